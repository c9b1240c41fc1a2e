//! Blobs of the store that a cache backend has in hand: they stay until it is done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use wbuild_api::extension::LayerDescriptor;
use wbuild_graph::{Attrs, BlobDigest, Digest, Failure};
use wbuild_store::{Blob, Lease, Store};

use crate::blocking;

/// What one capability has looked at or brought into the store. Cheap to clone; clones share it.
#[derive(Clone)]
pub(super) struct Shelf {
    store: Store,
    held: Arc<Mutex<BTreeMap<BlobDigest, Lease>>>,
}

impl Shelf {
    pub(super) fn new(store: Store) -> Shelf {
        Shelf { store, held: Arc::default() }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// A blob that is here, which then stays.
    pub(super) fn open(&self, digest: &Digest) -> Result<Option<Blob>, Failure> {
        let found = self.store.open_blob(&BlobDigest(*digest))?;
        if let Some(blob) = &found {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.insert(blob.digest, blob.lease().clone());
        }
        Ok(found)
    }

    /// Puts a few bytes here.
    pub(super) fn write(&self, data: &[u8]) -> Result<Digest, Failure> {
        let digest = self.store.put_blob(data)?.0;
        let gone = || Failure::internal(format!("{digest} has left the store at once"));
        self.open(&digest)?.ok_or_else(gone)?;
        Ok(digest)
    }

    /// [`Self::open`], on a thread that may wait.
    pub(super) async fn take(&self, digest: &Digest) -> Result<Option<Blob>, Failure> {
        let (shelf, digest) = (self.clone(), *digest);
        blocking(move || shelf.open(&digest)).await
    }

    /// Puts a document here and says what it is.
    pub(super) async fn put(
        &self,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<LayerDescriptor, Failure> {
        let (shelf, size) = (self.clone(), bytes.len() as u64);
        Ok(LayerDescriptor {
            media_type: media_type.to_owned(),
            digest: blocking(move || shelf.write(&bytes)).await?,
            size,
            diff_id: None,
            uncompressed_size: None,
            attrs: Attrs::default(),
        })
    }
}
