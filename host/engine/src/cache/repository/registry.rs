//! A repository of a registry.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use wbuild_api::extension::{LayerDescriptor, NewManifest, RepositoryCap};
use wbuild_graph::{Digest, Failure};
use wbuild_oci::media::Descriptor;
use wbuild_oci::reference::Reference;
use wbuild_oci::registry::{Client, PushSource};
use wbuild_oci::{Error, ErrorKind};

use super::before::Before;
use super::{
    Named, PARALLEL, Progress, check_manifest, gone, granted_tag, named, not_here, wanted,
};
use crate::cache::shelf::Shelf;

/// Repositories of a registry that hold a blob already, by digest and registry.
pub(crate) type Elsewhere = Arc<dyn Fn(&Digest, &str) -> Vec<String> + Send + Sync>;

/// The repository of `reference`, with its tag and no other.
pub(crate) fn registry(
    shelf: Shelf,
    client: Client,
    reference: Reference,
    elsewhere: Elsewhere,
    progress: Progress,
) -> Arc<dyn RepositoryCap> {
    let before = Before::new(shelf.store().clone(), &reference);
    Arc::new(RegistryRepository { shelf, before, client, reference, elsewhere, progress })
}

struct RegistryRepository {
    shelf: Shelf,
    before: Before,
    client: Client,
    reference: Reference,
    elsewhere: Elsewhere,
    progress: Progress,
}

impl RegistryRepository {
    fn tag(&self) -> &str {
        self.reference.tag().unwrap_or("latest")
    }

    async fn pull_one(&self, layer: &LayerDescriptor) -> Result<(), Failure> {
        let blob = wanted(layer)?;
        let named = self.shelf.reaches(&blob.digest);
        if !named && self.before.has(&blob.digest).await? {
            self.shelf.name([layer]);
        }
        if self.shelf.take(&blob.digest).await?.is_some() {
            return Ok(());
        }
        let report = |bytes| (self.progress)(&blob.digest, bytes, blob.size);
        let (mut receiver, writing) = self.shelf.receive(&blob, &report).await?;
        let (client, reference, wanted) = (&self.client, &self.reference, &blob);
        let fetching = async move { client.blob(reference, wanted, &mut receiver).await };
        writing.beside(fetching).await.map_err(gone)?;
        self.shelf.brought(&blob.digest).await?;
        match named {
            true => Ok(()),
            false => self.before.note(&blob.digest).await,
        }
    }
}

#[async_trait]
impl RepositoryCap for RegistryRepository {
    async fn resolve(&self, reference: String) -> Result<Option<LayerDescriptor>, Failure> {
        let name = match named(&reference, self.tag())? {
            Named::Tag => self.reference.without_digest(),
            Named::Digest(digest) => self.reference.at(&digest.to_string())?,
        };
        match self.client.manifest(&name).await {
            Ok(fetched) => {
                Ok(Some(self.shelf.put(&fetched.descriptor.media_type, fetched.bytes).await?))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn pull(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>> {
        let slots = Semaphore::new(PARALLEL);
        let pulls = blobs.iter().map(|layer| async {
            let _slot = slots.acquire().await.expect("the semaphore is never closed");
            self.pull_one(layer).await
        });
        join_all(pulls).await
    }

    async fn push(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>> {
        let blobs: Vec<Result<Descriptor, Failure>> = blobs.iter().map(wanted).collect();
        let mut seen = BTreeSet::new();
        let once: Vec<Descriptor> = blobs
            .iter()
            .filter_map(|blob| blob.as_ref().ok())
            .filter(|blob| seen.insert(blob.digest))
            .cloned()
            .collect();
        let source = Arc::new(Source {
            shelf: self.shelf.clone(),
            elsewhere: Arc::clone(&self.elsewhere),
            progress: Arc::clone(&self.progress),
            missing: Mutex::default(),
        });
        let from: Arc<dyn PushSource> = Arc::clone(&source) as _;
        let pushed = match self.client.push_blobs(&self.reference, &once, &from).await {
            Ok(pushed) => pushed,
            Err(error) => {
                let failure = Failure::from(error);
                return blobs.iter().map(|_| Err(failure.clone())).collect();
            }
        };
        let mut came: Vec<(Digest, Result<(), Failure>)> = Vec::with_capacity(once.len());
        for (blob, result) in once.iter().zip(pushed) {
            let missing = source.lacks(&blob.digest);
            let result = result.map_err(|error| match missing {
                true => not_here(&blob.digest),
                false => Failure::from(error),
            });
            came.push((blob.digest, result));
        }
        came.sort_by_key(|(digest, _)| *digest);
        let answer = |digest: &Digest| {
            let at = came.binary_search_by_key(digest, |(digest, _)| *digest);
            at.map_or_else(|_| Err(not_here(digest)), |at| came[at].1.clone())
        };
        blobs.into_iter().map(|blob| blob.and_then(|blob| answer(&blob.digest))).collect()
    }

    async fn publish(&self, manifest: NewManifest) -> Result<Digest, Failure> {
        let NewManifest { tag, media_type, data } = manifest;
        check_manifest(&media_type, &data)?;
        let target = match tag {
            Some(tag) => {
                granted_tag(&tag, self.tag())?;
                self.reference.without_digest()
            }
            None => self.reference.at(&Digest::of(&data).to_string())?,
        };
        Ok(self.client.push_manifest(&target, &media_type, &data).await?)
    }

    async fn retain(&self, _manifests: Vec<Digest>) -> Result<u64, Failure> {
        Err(Failure::unsupported("a registry removes by itself what nothing leads to"))
    }
}

/// Blobs of the store on their way to a registry.
struct Source {
    shelf: Shelf,
    elsewhere: Elsewhere,
    progress: Progress,
    /// What was wanted and is not here.
    missing: Mutex<BTreeSet<Digest>>,
}

impl Source {
    fn lacks(&self, digest: &Digest) -> bool {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }
}

#[async_trait]
impl PushSource for Source {
    fn elsewhere(&self, layer: &Descriptor, registry: &str) -> Vec<String> {
        (self.elsewhere)(&layer.digest, registry)
    }

    async fn open(&self, layer: &Descriptor) -> wbuild_oci::Result<File> {
        match self.shelf.open(&layer.digest) {
            Ok(Some(blob)) if blob.size == layer.size => Ok(blob.file),
            Ok(_) => {
                let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
                missing.insert(layer.digest);
                let message = format!("the blob {} is not here", layer.digest);
                Err(Error::new(ErrorKind::NotFound, message))
            }
            Err(error) => {
                let message = format!("cannot open the blob {} to push it", layer.digest.short());
                Err(Error::new(ErrorKind::Io, message).because(error))
            }
        }
    }

    fn sent(&self, blob: &Descriptor, bytes: u64) {
        (self.progress)(&blob.digest, bytes, blob.size);
    }
}
