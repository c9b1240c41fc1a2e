//! What one instance of a cache backend may reach of the content store.
//!
//! The store holds what all builds of a user are made of, and a backend may be able to send bytes away.
//! So it reaches what the host has named to it (in `save`, `push` and `fetch`), what it has stored
//! itself, and what has come from the place it was granted. What it claims in an answer makes nothing
//! reachable. Anything else is absent: there is no telling it from what is not in the store.
//!
//! A blob that was looked at stays in the store until the instance is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wbuild_api::extension::{CacheBackend, CacheHost, CachePlugin, LayerDescriptor, Naming};
use wbuild_graph::{Attrs, BlobDigest, Digest, Failure};
use wbuild_oci::media::Descriptor;
use wbuild_store::{Blob, Lease, Store};

use crate::blocking;
use crate::source::receive::{Receiver, Writing, receive, receive_whole};

/// The part of the store that all capabilities of one instance share. Cheap to clone; clones are one.
#[derive(Clone)]
pub(crate) struct Shelf {
    store: Store,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    reachable: BTreeSet<Digest>,
    held: BTreeMap<Digest, Lease>,
}

impl Shelf {
    pub(crate) fn new(store: Store) -> Shelf {
        Shelf { store, known: Arc::default() }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Makes an instance of a backend with capabilities over this shelf. What the host asks of it from
    /// then on is reachable for it.
    pub(crate) async fn connect(
        &self,
        plugin: &dyn CachePlugin,
        host: CacheHost,
    ) -> Result<Arc<dyn CacheBackend>, Failure> {
        let shelf = self.clone();
        let named = move |layers: &mut dyn Iterator<Item = &LayerDescriptor>| shelf.name(layers);
        Ok(Arc::new(Naming { named, backend: plugin.connect(host).await? }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes blobs reachable.
    pub(super) fn name<'a>(&self, layers: impl IntoIterator<Item = &'a LayerDescriptor>) {
        self.known().reachable.extend(layers.into_iter().map(|layer| layer.digest));
    }

    /// Whether a blob may be looked for in the store.
    pub(super) fn reaches(&self, digest: &Digest) -> bool {
        self.known().reachable.contains(digest)
    }

    /// A reachable blob that is here, which then stays.
    pub(super) fn open(&self, digest: &Digest) -> Result<Option<Blob>, Failure> {
        if !self.reaches(digest) {
            return Ok(None);
        }
        let found = self.store.open_blob(&BlobDigest(*digest))?;
        if let Some(blob) = &found {
            self.known().held.insert(*digest, blob.lease().clone());
        }
        Ok(found)
    }

    /// [`Self::open`], on a thread that may wait.
    pub(super) async fn take(&self, digest: &Digest) -> Result<Option<Blob>, Failure> {
        let (shelf, digest) = (self.clone(), *digest);
        blocking(move || shelf.open(&digest)).await
    }

    /// Makes a blob reachable whose bytes the backend has given, or the place that it was granted.
    fn keep(&self, digest: &Digest) -> Result<(), Failure> {
        self.known().reachable.insert(*digest);
        let gone = || Failure::internal(format!("{digest} has left the store at once"));
        self.open(digest)?.map(drop).ok_or_else(gone)
    }

    /// Begins to take a blob from the place that the backend was granted. One that is not reachable has
    /// to come whole: what of it is here already is nobody's there.
    pub(super) async fn receive<'a>(
        &self,
        blob: &Descriptor,
        report: &'a (dyn Fn(u64) + Send + Sync),
    ) -> Result<(Receiver<'a>, Writing), Failure> {
        match self.reaches(&blob.digest) {
            true => receive(&self.store, blob.digest, blob.size, report).await,
            false => receive_whole(&self.store, blob.digest, blob.size, report).await,
        }
    }

    /// What has come whole from the place that the backend was granted.
    pub(super) async fn brought(&self, digest: &Digest) -> Result<(), Failure> {
        let (shelf, digest) = (self.clone(), *digest);
        blocking(move || shelf.keep(&digest)).await
    }

    /// Puts a few bytes here.
    pub(super) fn write(&self, data: &[u8]) -> Result<Digest, Failure> {
        let digest = self.store.put_blob(data)?.0;
        self.keep(&digest)?;
        Ok(digest)
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
