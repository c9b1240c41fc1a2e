//! Which documents have come from a repository of a registry before.
//!
//! A backend that reads a cache asks for the list of its records, which no host has named to it. That
//! it is in the store already does not make it reachable: a registry has to show that it has the bytes.
//! What it has shown once it need not send again with every build.

use wbuild_graph::{Digest, Failure};
use wbuild_oci::reference::Reference;
use wbuild_store::Store;

use crate::blocking;

/// The host's bucket of what has come.
const BUCKET: &str = "brought";
/// Most that is remembered; the next one takes the place of all.
const MOST: usize = 1000;

/// What has come from one repository.
pub(super) struct Before {
    store: Store,
    repository: String,
}

impl Before {
    pub(super) fn new(store: Store, reference: &Reference) -> Before {
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        Before { store, repository }
    }

    fn key(&self, digest: &Digest) -> Vec<u8> {
        // Fixed length, whatever the repository is called.
        Digest::of(format!("{digest} {}", self.repository).as_bytes()).to_string().into_bytes()
    }

    pub(super) async fn has(&self, digest: &Digest) -> Result<bool, Failure> {
        let (store, key) = (self.store.clone(), self.key(digest));
        blocking(move || -> Result<bool, Failure> {
            let found = store.kv()?.open_bucket(BUCKET)?.get_many(&[key])?;
            Ok(found.into_iter().flatten().next().is_some())
        })
        .await
    }

    pub(super) async fn note(&self, digest: &Digest) -> Result<(), Failure> {
        let (store, key) = (self.store.clone(), self.key(digest));
        blocking(move || -> Result<(), Failure> {
            let bucket = store.kv()?.open_bucket(BUCKET)?;
            if bucket.scan(&[], None, MOST)?.len() >= MOST {
                bucket.clear()?;
            }
            Ok(bucket.apply(&[(key, Some(b"1".to_vec()))])?)
        })
        .await
    }
}
