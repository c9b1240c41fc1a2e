//! Secrets whose values count for cache keys, as the client has asked for: a keyed hash of the value
//! becomes part of the steps that get the secret. The value itself does not.

use std::collections::BTreeMap;

use wbuild_graph::op::{ExecOp, MountKind};
use wbuild_graph::{Digest, Failure};

use crate::blocking;
use crate::ops::exec::secret_value;
use crate::worker::BuildWorker;

/// Begins the attribute of a step; the secret's id follows.
pub(crate) const ATTR: &str = "secret-hash:";

/// Hashes by the secrets' ids.
#[derive(Debug, Default)]
pub(crate) struct KeyedSecrets(BTreeMap<String, Digest>);

impl KeyedSecrets {
    /// Reads and hashes the values.
    pub(crate) async fn read<'a>(
        worker: &BuildWorker,
        ids: impl IntoIterator<Item = &'a String>,
    ) -> Result<KeyedSecrets, Failure> {
        let mut hashes = BTreeMap::new();
        for id in ids {
            let value = secret_value(worker, id, true).await?.unwrap_or_default();
            let store = worker.store.clone();
            let hash = blocking(move || store.keyed_hash(&value)).await?;
            hashes.insert(id.clone(), hash);
        }
        Ok(KeyedSecrets(hashes))
    }

    /// Makes the hashes of the secrets that a step gets part of the step.
    pub(crate) fn settle(&self, exec: &mut ExecOp) {
        let mounted = exec.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Secret { id, .. } => Some(id),
            _ => None,
        });
        let ids = mounted.chain(exec.secret_env.iter().map(|secret| &secret.id));
        // In the order of ids, each once.
        let found: BTreeMap<&String, &Digest> =
            ids.filter_map(|id| self.0.get_key_value(id)).collect();
        let attrs = found.into_iter().map(|(id, hash)| (format!("{ATTR}{id}"), hash.hex()));
        let attrs: Vec<_> = attrs.collect();
        exec.attrs.0.extend(attrs);
    }

    /// Ids and hashes, for what a build is remembered by.
    pub(crate) fn hashes(&self) -> &BTreeMap<String, Digest> {
        &self.0
    }
}
