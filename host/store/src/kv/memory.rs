//! The reference implementation: ordered maps in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use super::{
    AnswerSize, Change, Kv, KvStore, Pair, check_changes, check_key, check_keys, check_name, gather,
};
use crate::error::Result;
use crate::files::random_name;
use crate::sync::lock;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Buckets that end with the process. For tests, and for builds that keep nothing.
#[derive(Debug)]
pub struct MemoryStore {
    generation: String,
    buckets: Mutex<HashMap<String, Arc<Mutex<Map>>>>,
}

impl MemoryStore {
    /// An empty store with a generation of its own.
    pub fn new() -> Result<Self> {
        Ok(MemoryStore { generation: random_name()?, buckets: Mutex::default() })
    }
}

struct Bucket {
    generation: String,
    map: Arc<Mutex<Map>>,
}

impl KvStore for MemoryStore {
    fn open_bucket(&self, name: &str) -> Result<Arc<dyn Kv>> {
        check_name(name)?;
        let map = Arc::clone(lock(&self.buckets).entry(name.to_owned()).or_default());
        Ok(Arc::new(Bucket { generation: self.generation.clone(), map }))
    }

    fn commit(&self) -> Result<()> {
        Ok(())
    }
}

impl Kv for Bucket {
    fn generation(&self) -> Result<String> {
        Ok(self.generation.clone())
    }

    fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        check_keys(keys)?;
        let map = lock(&self.map);
        gather(keys, |key| Ok(map.get(key).cloned()))?
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>> {
        let map = lock(&self.map);
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_vec()),
            _ => Bound::Included(prefix.to_vec()),
        };
        let mut size = AnswerSize::new(limit);
        Ok(map
            .range((start, Bound::Unbounded))
            .take_while(|(key, value)| key.starts_with(prefix) && size.take(key, value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn apply(&self, changes: &[Change]) -> Result<()> {
        check_changes(changes)?;
        let mut map = lock(&self.map);
        for (key, value) in changes {
            check_key(key)?;
            match value {
                Some(value) => map.insert(key.clone(), value.clone()),
                None => map.remove(key),
            };
        }
        Ok(())
    }

    fn clear(&self) -> Result<()> {
        lock(&self.map).clear();
        Ok(())
    }
}
