//! @NAME@: a cache backend for wbuild.
//!
//! It keeps its records on this machine, in a bucket of its own: a document for each key, as
//! `wbuild_cache::document` writes it. What cannot be read is a miss.

use std::collections::BTreeMap;

use wbuild_cache::{
    Attrs, Blob, Bucket, Cache, Config, Hash, Layer, PruneOptions, Pruned, Record, Result, Table,
    document, present,
};

wbuild_cache::cache!(Mine);

/// One value serves one backend, direction and build; calls never overlap.
struct Mine {
    bucket: Bucket,
    saved: usize,
}

impl Cache for Mine {
    fn open(config: Config) -> Result<Mine> {
        // An option that nobody has taken is a mistake of the user's: `config.take("name")`.
        config.finish()?;
        Ok(Mine { bucket: Bucket::open("records")?, saved: 0 })
    }

    fn find(&mut self, keys: &[Hash]) -> Result<Vec<Vec<Record>>> {
        let tables = self.tables(keys)?;
        let of_key = |(key, table): (&Hash, Table)| table.find(key).cloned().collect();
        Ok(keys.iter().zip(tables).map(of_key).collect())
    }

    /// Layers are on this machine or nowhere.
    fn fetch(&mut self, layers: &[Layer]) -> Vec<Result<Blob>> {
        layers.iter().map(present).collect()
    }

    fn save(&mut self, records: Vec<Record>) -> Result<()> {
        let mut changed: BTreeMap<Hash, Table> = BTreeMap::new();
        self.saved += records.len();
        for record in records {
            for key in &record.keys {
                if !changed.contains_key(key) {
                    let table = self.tables(&[*key])?.remove(0);
                    changed.insert(*key, table);
                }
                changed.entry(*key).or_default().add(record.clone());
            }
        }
        self.write(changed)
    }

    /// Nothing has to be moved.
    fn push(&mut self, layers: &[Layer]) -> Vec<Result<()>> {
        layers.iter().map(|layer| present(layer).map(drop)).collect()
    }

    fn commit(&mut self) -> Result<Attrs> {
        Ok(vec![("records".to_owned(), self.saved.to_string())])
    }

    fn prune(&mut self, options: &PruneOptions) -> Result<Pruned> {
        let (mut all, mut after) = (Table::default(), None::<Vec<u8>>);
        let mut changed = BTreeMap::new();
        loop {
            let page = self.bucket.scan(&[], after.as_deref(), 1000)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, data) in page {
                let mut table = read(Some(&data));
                table.records().cloned().for_each(|record| all.add(record));
                if table.prune(options).removed > 0
                    && let Some(key) = hash(&key)
                {
                    changed.insert(key, table);
                }
            }
        }
        self.write(changed)?;
        // A record lies under each of its keys and counts once.
        Ok(all.prune(options))
    }
}

impl Mine {
    /// What is kept for keys, in order.
    fn tables(&self, keys: &[Hash]) -> Result<Vec<Table>> {
        let names: Vec<Vec<u8>> = keys.iter().map(|key| key.hex().into_bytes()).collect();
        let values = self.bucket.get_many(&names)?;
        Ok(values.iter().map(|value| read(value.as_deref())).collect())
    }

    fn write(&self, tables: BTreeMap<Hash, Table>) -> Result<()> {
        let change = |(key, table): (Hash, Table)| {
            let data = (!table.is_empty()).then(|| document::encode(table.records()));
            (key.hex().into_bytes(), data)
        };
        let changes: Vec<_> = tables.into_iter().map(change).collect();
        self.bucket.apply(&changes)
    }
}

fn read(data: Option<&[u8]>) -> Table {
    let records = data.and_then(|data| document::decode(data).ok());
    records.unwrap_or_default().into_iter().collect()
}

fn hash(name: &[u8]) -> Option<Hash> {
    Hash::parse(&format!("sha256:{}", std::str::from_utf8(name).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What all backends promise, with the options in tests/cases; UPDATE=1 writes anew what is
    /// expected.
    #[test]
    fn promises() {
        wbuild_testkit::backend::check("tests/cases", cache());
    }

    #[test]
    fn an_option_that_is_not_known_is_refused() {
        let config = Config::new(false, vec![("url".to_owned(), "x".to_owned())]);
        assert!(Mine::open(config).is_err());
    }
}
