//! A cache in OCI content: a repository of a registry, or an image layout in a directory, whichever the
//! user has granted. The bundled backends `registry` and `local` are this component.
//!
//! A cache is one manifest under one tag (see [`manifest`]): its config is the document of all records
//! (`cache_records::document`), its layers are theirs. It is read once, by the first question, and
//! answered from memory; an export replaces it as a whole, blobs first, the tag last. So a reader sees
//! the old cache or the new one, and an export that ends early leaves the old one.
//!
//! This file is the border: it turns resources of the host into plain values and back.

mod config;
mod manifest;

mod bindings {
    // Generated: the component ABI is made of raw pointers.
    #![allow(unsafe_code, missing_docs)]
    wit_bindgen::generate!({
        path: ["../../wit/types", "../../wit/cache"],
        world: "wbuild:cache/remote-cache",
        generate_all,
    });
    export!(CacheOci with_types_in self);
    use super::CacheOci;
}

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use bindings::exports::wbuild::cache::backend::{Attrs, Guest, RecordEntry};
use bindings::wbuild::cache::blobs::{self, Blob, Descriptor};
use bindings::wbuild::cache::repository;
use bindings::wbuild::types::log::log;
use bindings::wbuild::types::types::{Failure, Severity};
use cache_records::document::{self, MAX_BYTES, MAX_LAYERS, MEDIA_TYPE};
use cache_records::session::{self, Need, Opened, writes};
use cache_records::{Hash, Layer, PER_KEY, PruneOptions, Record, Table};
use config::Config;

cache_records::border!(RecordEntry, Descriptor);

/// Bytes of a blob that the host hands out at once.
const PIECE: u32 = 1 << 20;

struct CacheOci;

/// What `open` made; an instance serves one cache, direction and build.
struct Session {
    config: Config,
    writable: bool,
    /// What the cache holds; not looked at yet.
    present: Option<Table>,
    /// What the host has saved.
    saved: Table,
    /// Layers that are there.
    pushed: BTreeSet<Hash>,
}

impl Opened for Session {
    type Failure = Failure;

    fn is_writable(&self) -> bool {
        self.writable
    }

    fn failure(kind: &str, message: String) -> Failure {
        failure(kind, message)
    }
}

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

impl Guest for CacheOci {
    fn open(mode: String, config: Attrs) -> Result<(), Failure> {
        let writable = writes(&mode).map_err(|message| failure("invalid", message))?;
        let config = Config::parse(&config).map_err(|(kind, message)| failure(kind, message))?;
        let (saved, pushed) = (Table::default(), BTreeSet::new());
        SESSION.set(Some(Session { config, writable, present: None, saved, pushed }));
        Ok(())
    }

    fn find(keys: Vec<String>) -> Result<Vec<Vec<RecordEntry>>, Failure> {
        with(Need::Read, "find", |session| {
            session.load()?;
            keys.iter().map(|key| Ok(session.find(&hash(key)?))).collect()
        })
    }

    fn fetch(layers: Vec<Descriptor>) -> Vec<Result<Blob, Failure>> {
        repository::pull(&layers)
    }

    fn save(entries: Vec<RecordEntry>) -> Result<(), Failure> {
        with(Need::Write, "save", |session| {
            let records = entries.into_iter().map(record_in).collect::<Result<Vec<_>, _>>();
            for record in records.map_err(|message| failure("invalid", message))? {
                session.saved.add(record);
            }
            Ok(())
        })
    }

    fn push(layers: Vec<Descriptor>) -> Vec<Result<(), Failure>> {
        let pushed = with(Need::Write, "push", |session| Ok(session.push(&layers)));
        pushed.unwrap_or_else(|failure| layers.iter().map(|_| Err(failure.clone())).collect())
    }

    fn commit(_options: Attrs) -> Result<Attrs, Failure> {
        with(Need::Write, "commit", |session| {
            let table = std::mem::take(&mut session.saved);
            // Nothing was worth keeping: what is there is still the better cache.
            if table.is_empty() {
                return Ok(vec![("records".to_owned(), "0".to_owned())]);
            }
            session.publish(table)
        })
    }

    fn prune(options: Attrs) -> Result<Attrs, Failure> {
        let known = ["keep", "older-than"];
        if let Some((key, _)) = options.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            return Err(failure("unsupported", format!("backend.prune knows no key {key:?}")));
        }
        let options =
            PruneOptions::parse(&options).map_err(|message| failure("invalid", message))?;
        with(Need::Write, "prune", |session| {
            session.load()?;
            let mut table = session.present.take().unwrap_or_default();
            let pruned = table.prune(&options);
            if pruned.removed > 0 {
                session.publish(table)?;
            } else {
                session.present = Some(table);
            }
            Ok(vec![
                ("removed".to_owned(), pruned.removed.to_string()),
                ("kept".to_owned(), pruned.kept.to_string()),
            ])
        })
    }
}

impl Session {
    /// Reads what the cache holds, once.
    fn load(&mut self) -> Result<(), Failure> {
        if self.present.is_some() {
            return Ok(());
        }
        let named = self.config.digest.as_ref().unwrap_or(&self.config.tag);
        let table = match repository::resolve(named)? {
            Some(manifest) => match read_cache(&manifest, named) {
                Ok(records) => records.into_iter().collect(),
                // What cannot be read is replaced by an export; for an import it is no use.
                Err(failure) if self.writable && failure.kind == "invalid" => Table::default(),
                Err(failure) => return Err(failure),
            },
            None => Table::default(),
        };
        self.present = Some(table);
        Ok(())
    }

    /// Records of a key, newest first: of the cache, and of this build.
    fn find(&self, key: &Hash) -> Vec<RecordEntry> {
        let mut found: Vec<&Record> = self.saved.find(key).collect();
        for record in self.present.iter().flat_map(|present| present.find(key)) {
            if !found.iter().any(|known| known.id == record.id && known.attrs == record.attrs) {
                found.push(record);
            }
        }
        // Stable: of two made at one time this build's comes first.
        found.sort_by_key(|record| std::cmp::Reverse(record.created));
        found.into_iter().take(PER_KEY).map(record_out).collect()
    }

    fn push(&mut self, layers: &[Descriptor]) -> Vec<Result<(), Failure>> {
        let answers = repository::push(layers);
        for (layer, answer) in layers.iter().zip(&answers) {
            if answer.is_ok() {
                self.pushed.extend(Hash::parse(&layer.digest));
            }
        }
        answers
    }

    /// Makes `table` the cache: layers that are not there yet, the document, the manifest, the tag.
    fn publish(&mut self, mut table: Table) -> Result<Attrs, Failure> {
        if self.config.digest.is_some() {
            return Err(failure("invalid", "a cache is written by tag, not by digest".to_owned()));
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
        let digest = repository::publish(Some(&self.config.tag), manifest::MANIFEST, &bytes)?;
        if self.config.reset {
            match repository::retain(&[]) {
                Ok(_) => {}
                // A registry does it by itself.
                Err(failure) if failure.kind == "unsupported" => {}
                // The cache is there all the same.
                Err(failure) => {
                    let message =
                        format!("what is left of older caches stays: {}", failure.message);
                    log(Severity::Warning, &message);
                }
            }
        }
        let records = table.len().to_string();
        self.present = Some(table);
        Ok(vec![
            ("digest".to_owned(), digest),
            ("size".to_owned(), bytes.len().to_string()),
            ("records".to_owned(), records),
        ])
    }

    /// Pushes the layers that records need; those of which one is missing go.
    fn push_layers(&mut self, table: &mut Table) -> Result<(), Failure> {
        let missing: BTreeMap<Hash, Descriptor> = layers_of(table)
            .into_iter()
            .filter(|layer| !self.pushed.contains(&layer.digest))
            .map(|layer| (layer.digest, layer_out(layer)))
            .collect();
        let missing: Vec<Descriptor> = missing.into_values().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut gone = 0;
        for answer in self.push(&missing) {
            match answer {
                Ok(()) => {}
                Err(failure) if matches!(failure.kind.as_str(), "gone" | "invalid") => gone += 1,
                Err(failure) => return Err(failure),
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

    fn push_small(&mut self, media_type: &str, data: &[u8]) -> Result<manifest::Blob, Failure> {
        let blob = blobs::write_small(media_type, data)?;
        let descriptor = Descriptor { media_type: media_type.to_owned(), ..blob.descriptor() };
        let digest = hash(&descriptor.digest)?;
        let size = descriptor.size;
        repository::push(&[descriptor]).into_iter().collect::<Result<Vec<()>, _>>()?;
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

/// The records of the cache that a manifest stands for.
fn read_cache(manifest: &Descriptor, named: &str) -> Result<Vec<Record>, Failure> {
    let foreign = || failure("invalid", format!("what {named:?} names is no cache of wbuild's"));
    let unreadable =
        |why: &str| failure("invalid", format!("the cache {named:?} is not read: {why}"));
    let bytes = read_blob(&manifest.digest, manifest.size, manifest::MAX_BYTES)?;
    let document = manifest::read(&bytes).ok_or_else(foreign)?;
    if document.size > MAX_BYTES as u64 {
        return Err(unreadable("its list of records is too large"));
    }
    let descriptor = Descriptor {
        media_type: MEDIA_TYPE.to_owned(),
        digest: document.digest.to_string(),
        size: document.size,
        diff_id: None,
        uncompressed_size: None,
        attrs: Vec::new(),
    };
    // Kept until it is read.
    let _blob = repository::pull(std::slice::from_ref(&descriptor))
        .into_iter()
        .next()
        .unwrap_or_else(|| Err(failure("internal", "the host gives no answer".to_owned())))
        .map_err(|failure| match failure.kind.as_str() {
            // The manifest is there and what it names is not: as bad as damage.
            "gone" => unreadable(&failure.message),
            _ => failure,
        })?;
    let bytes = read_blob(&descriptor.digest, document.size, MAX_BYTES)?;
    document::decode(&bytes).map_err(|why| unreadable(&why.to_string()))
}

fn read_blob(digest: &str, size: u64, most: usize) -> Result<Vec<u8>, Failure> {
    let gone = || failure("gone", format!("the blob {digest} is not here"));
    let blob = blobs::open(digest).ok_or_else(gone)?;
    if size > most as u64 {
        return Err(failure("invalid", format!("the blob {digest} is larger than {most} bytes")));
    }
    let mut bytes = Vec::new();
    loop {
        let piece = blobs::read(&blob, bytes.len() as u64, PIECE)?;
        if piece.is_empty() {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&piece);
        if bytes.len() > most {
            return Err(failure(
                "invalid",
                format!("the blob {digest} is larger than {most} bytes"),
            ));
        }
    }
}

/// Runs `action` on the session, if there is one and its mode allows it.
fn with<T>(
    need: Need,
    call: &str,
    action: impl FnOnce(&mut Session) -> Result<T, Failure>,
) -> Result<T, Failure> {
    session::with(&SESSION, need, call, action)
}

fn hash(text: &str) -> Result<Hash, Failure> {
    hash_in(text).map_err(|message| failure("invalid", message))
}

fn failure(kind: &str, message: String) -> Failure {
    Failure {
        kind: kind.to_owned(),
        message,
        retryable: false,
        diagnostics: Vec::new(),
        attrs: Vec::new(),
    }
}
