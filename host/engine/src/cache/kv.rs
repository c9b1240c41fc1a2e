//! The key-value buckets of a cache backend.

use std::sync::Arc;

use wbuild_api::extension::{KvCap, KvPair, PluginIdentity};
use wbuild_graph::Failure;
use wbuild_store::KvStore;

/// Buckets of one plugin, apart from those of others by what the plugins are: neither a name that a
/// project gives to its own, nor another way to write a path, leads to the buckets of another.
pub(super) struct KvBuckets {
    pub(super) kv: Arc<dyn KvStore>,
    pub(super) plugin: PluginIdentity,
}

impl KvBuckets {
    fn bucket(&self, name: &str) -> Result<Arc<dyn wbuild_store::Kv>, Failure> {
        Ok(self.kv.open_bucket(&format!("{}/{name}", self.plugin.what()))?)
    }
}

impl KvCap for KvBuckets {
    fn open(&self, bucket: String) -> Result<String, Failure> {
        Ok(self.bucket(&bucket)?.generation()?)
    }

    fn get_many(
        &self,
        bucket: String,
        keys: Vec<Vec<u8>>,
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        Ok(self.bucket(&bucket)?.get_many(&keys)?)
    }

    fn scan(
        &self,
        bucket: String,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: u32,
    ) -> Result<Vec<KvPair>, Failure> {
        Ok(self.bucket(&bucket)?.scan(&prefix, after.as_deref(), limit as usize)?)
    }

    fn apply(
        &self,
        bucket: String,
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<(), Failure> {
        Ok(self.bucket(&bucket)?.apply(&changes)?)
    }

    fn clear(&self, bucket: String) -> Result<(), Failure> {
        Ok(self.bucket(&bucket)?.clear()?)
    }
}
