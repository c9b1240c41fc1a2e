//! A cache in OCI content: a repository of a registry, or an image layout in a directory, whichever the
//! user has granted. The bundled backends `registry` and `local` are this component.
//!
//! A cache is one manifest under one tag (see [`manifest`]): its config is the document of all records
//! (`wbuild_cache::document`), its layers are theirs. It is read once, by the first question, and
//! answered from memory; an export replaces it as a whole, blobs first, the tag last. So a reader sees
//! the old cache or the new one, and an export that ends early leaves the old one.

mod config;
mod manifest;

use std::collections::{BTreeMap, BTreeSet};

use config::Options;
use wbuild_cache::document::{self, MAX_BYTES, MAX_LAYERS, MEDIA_TYPE};
use wbuild_cache::{
    Attrs, Blob, Cache, Config, Error, FailureKind, Hash, Layer, PER_KEY, PruneOptions, Pruned,
    Record, Result, Severity, Table, log, repository,
};

wbuild_cache::cache!(CacheOci);

/// One cache, for one direction and one build.
struct CacheOci {
    options: Options,
    writable: bool,
    /// What the cache holds; not looked at yet.
    present: Option<Table>,
    /// What the host has saved.
    saved: Table,
    /// Layers that are there.
    pushed: BTreeSet<Hash>,
}

impl Cache for CacheOci {
    fn open(mut config: Config) -> Result<CacheOci> {
        let (options, writable) = (Options::take(&mut config)?, config.writable);
        config.finish()?;
        let (saved, pushed) = (Table::default(), BTreeSet::new());
        Ok(CacheOci { options, writable, present: None, saved, pushed })
    }

    /// Newest first: of the cache, and of this build.
    fn find(&mut self, keys: &[Hash]) -> Result<Vec<Vec<Record>>> {
        self.load()?;
        Ok(keys.iter().map(|key| self.records_of(key)).collect())
    }

    fn fetch(&mut self, layers: &[Layer]) -> Vec<Result<Blob>> {
        repository::pull(layers)
    }

    fn save(&mut self, records: Vec<Record>) -> Result<()> {
        records.into_iter().for_each(|record| self.saved.add(record));
        Ok(())
    }

    fn push(&mut self, layers: &[Layer]) -> Vec<Result<()>> {
        let answers = repository::push(layers);
        for (layer, answer) in layers.iter().zip(&answers) {
            if answer.is_ok() {
                self.pushed.insert(layer.digest);
            }
        }
        answers
    }

    fn commit(&mut self) -> Result<Attrs> {
        let table = std::mem::take(&mut self.saved);
        // Nothing was worth keeping: what is there is still the better cache.
        if table.is_empty() {
            return Ok(vec![("records".to_owned(), "0".to_owned())]);
        }
        self.publish(table)
    }

    fn prune(&mut self, options: &PruneOptions) -> Result<Pruned> {
        self.load()?;
        let mut table = self.present.take().unwrap_or_default();
        let pruned = table.prune(options);
        if pruned.removed > 0 {
            self.publish(table)?;
        } else {
            self.present = Some(table);
        }
        Ok(pruned)
    }
}

impl CacheOci {
    /// Reads what the cache holds, once.
    fn load(&mut self) -> Result<()> {
        if self.present.is_some() {
            return Ok(());
        }
        let named = self.options.digest.as_ref().unwrap_or(&self.options.tag);
        let table = match repository::resolve(named)? {
            Some(manifest) => match read_cache(&manifest, named) {
                Ok(records) => records.into_iter().collect(),
                // What cannot be read is replaced by an export; for an import it is no use.
                Err(error) if self.writable && error.kind() == FailureKind::Invalid => {
                    Table::default()
                }
                Err(error) => return Err(error),
            },
            None => Table::default(),
        };
        self.present = Some(table);
        Ok(())
    }

    fn records_of(&self, key: &Hash) -> Vec<Record> {
        let mut found: Vec<&Record> = self.saved.find(key).collect();
        for record in self.present.iter().flat_map(|present| present.find(key)) {
            if !found.iter().any(|known| known.id == record.id && known.attrs == record.attrs) {
                found.push(record);
            }
        }
        // Stable: of two made at one time this build's comes first.
        found.sort_by_key(|record| std::cmp::Reverse(record.created));
        found.into_iter().take(PER_KEY).cloned().collect()
    }

    /// Makes `table` the cache: layers that are not there yet, the document, the manifest, the tag.
    fn publish(&mut self, mut table: Table) -> Result<Attrs> {
        if self.options.digest.is_some() {
            return Err(Error::invalid("a cache is written by tag, not by digest"));
        }
        self.push_layers(&mut table)?;
        let left_out = table.shrink(|table| {
            let layers = layers_of(table);
            let document = manifest::Blob { digest: Hash([0; 32]), size: u64::MAX };
            layers.len() <= MAX_LAYERS
                && manifest::write(&document, None, layers).len() <= manifest::MAX_BYTES
                && document::encode(table.records()).len() <= MAX_BYTES
        });
        if left_out > 0 {
            let message =
                format!("the cache is too large: its {left_out} oldest results are left out");
            log(Severity::Warning, &message);
        }
        let document = self.push_small(MEDIA_TYPE, &document::encode(table.records()))?;
        let layers = layers_of(&table);
        let empty = match layers.is_empty() {
            true => Some(self.push_small(manifest::EMPTY, b"{}")?),
            false => None,
        };
        let bytes = manifest::write(&document, empty.as_ref(), layers);
        let digest = repository::publish(Some(&self.options.tag), manifest::MANIFEST, &bytes)?;
        if self.options.reset {
            match repository::retain(&[]) {
                Ok(_) => {}
                // A registry does it by itself.
                Err(error) if error.kind() == FailureKind::Unsupported => {}
                // The cache is there all the same.
                Err(error) => {
                    let message = format!("what is left of older caches stays: {error}");
                    log(Severity::Warning, &message);
                }
            }
        }
        let records = table.len().to_string();
        self.present = Some(table);
        Ok(vec![
            ("digest".to_owned(), digest.to_string()),
            ("size".to_owned(), bytes.len().to_string()),
            ("records".to_owned(), records),
        ])
    }

    /// Pushes the layers that records need; those of which one is missing go.
    fn push_layers(&mut self, table: &mut Table) -> Result<()> {
        let missing: BTreeMap<Hash, Layer> = layers_of(table)
            .into_iter()
            .filter(|layer| !self.pushed.contains(&layer.digest))
            .map(|layer| (layer.digest, layer.clone()))
            .collect();
        let missing: Vec<Layer> = missing.into_values().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut gone = 0;
        for answer in self.push(&missing) {
            match answer {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), FailureKind::Gone | FailureKind::Invalid) => {
                    gone += 1;
                }
                Err(error) => return Err(error),
            }
        }
        if gone > 0 {
            let before = table.len();
            table.retain(|record| {
                record.layers.iter().all(|layer| self.pushed.contains(&layer.digest))
            });
            let left_out = before - table.len();
            let message = format!("{left_out} results are not cached: {gone} layers are not here");
            log(Severity::Warning, &message);
        }
        Ok(())
    }

    fn push_small(&mut self, media_type: &str, data: &[u8]) -> Result<manifest::Blob> {
        let blob = Blob::write_small(media_type, data)?;
        let (digest, size) = (blob.digest()?, blob.size());
        let small = plain(media_type, digest, size);
        repository::push(&[small]).into_iter().collect::<Result<Vec<()>>>()?;
        Ok(manifest::Blob { digest, size })
    }
}

/// The layers that records need, each once.
fn layers_of(table: &Table) -> Vec<&Layer> {
    let layers = table.records().flat_map(|record| &record.layers);
    let by_digest: BTreeMap<&Hash, &Layer> =
        layers.map(|layer| (&layer.digest, &**layer)).collect();
    by_digest.into_values().collect()
}

/// What is fetched or sent and is no layer.
fn plain(media_type: &str, digest: Hash, size: u64) -> Layer {
    Layer {
        digest,
        size,
        media_type: media_type.to_owned(),
        diff_id: None,
        uncompressed_size: None,
        attrs: Vec::new(),
    }
}

/// The records of the cache that a manifest stands for.
fn read_cache(manifest: &Layer, named: &str) -> Result<Vec<Record>> {
    let foreign = || Error::invalid(format!("what {named:?} names is no cache of wbuild's"));
    let unreadable = |why: &str| Error::invalid(format!("the cache {named:?} is not read: {why}"));
    let gone =
        || Error::new(FailureKind::Gone, format!("the blob {} is not here", manifest.digest));
    let bytes = Blob::open(&manifest.digest).ok_or_else(gone)?.whole(manifest::MAX_BYTES)?;
    let document = manifest::read(&bytes).ok_or_else(foreign)?;
    if document.size > MAX_BYTES as u64 {
        return Err(unreadable("its list of records is too large"));
    }
    let wanted = plain(MEDIA_TYPE, document.digest, document.size);
    let blob = repository::pull(&[wanted])
        .pop()
        .unwrap_or_else(|| Err(Error::new(FailureKind::Internal, "the host gives no answer")))
        .map_err(|error| match error.kind() {
            // The manifest is there and what it names is not: as bad as damage.
            FailureKind::Gone => unreadable(&error.as_failure().message),
            _ => error,
        })?;
    document::decode(&blob.whole(MAX_BYTES)?).map_err(|why| unreadable(&why.to_string()))
}

#[cfg(test)]
mod tests {
    /// What all backends promise, over a repository in memory.
    #[test]
    fn promises() {
        wbuild_testkit::backend::check("tests/cases", super::cache());
    }
}
