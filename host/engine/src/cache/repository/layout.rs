//! An image layout in a directory.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use wbuild_api::extension::{LayerDescriptor, NewManifest, RepositoryCap};
use wbuild_graph::{Digest, Failure, FailureKind, Platform};
use wbuild_oci::ErrorKind;
use wbuild_oci::layout::{Layout, LayoutWriter};
use wbuild_oci::media::{Descriptor, MAX_MANIFEST};

use super::{PARALLEL, Progress, check_manifest, gone, granted_tag, named, not_here, wanted};
use crate::blocking;
use crate::cache::shelf::Shelf;
use crate::source::layout::copy;

/// How long others may keep a directory that is to be written.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is tried.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// The layout in `dir`, which messages call `name`, with the tag `tag` and no other. The directory may
/// be empty; it is made a layout by what is first published.
pub(crate) fn layout(
    shelf: Shelf,
    dir: OwnedFd,
    name: String,
    tag: String,
    progress: Progress,
) -> Arc<dyn RepositoryCap> {
    let dir = Arc::new(dir);
    Arc::new(LayoutRepository { shelf, dir, name, tag, progress, writer: Mutex::default() })
}

struct LayoutRepository {
    shelf: Shelf,
    dir: Arc<OwnedFd>,
    name: String,
    tag: String,
    progress: Progress,
    /// Kept from the first blob that is added until what is not needed is removed: else another could
    /// remove what is not named yet.
    writer: Mutex<Option<Arc<LayoutWriter>>>,
}

impl LayoutRepository {
    fn failed(&self, error: std::io::Error) -> Failure {
        Failure::internal(format!("cannot open the directory {}", self.name)).cause(&error)
    }

    /// `None` if it is no layout yet.
    async fn read(&self) -> Result<Option<Layout>, Failure> {
        let dir = self.dir.try_clone().map_err(|error| self.failed(error))?;
        let name = self.name.clone();
        blocking(move || match Layout::open(dir, name) {
            Ok(layout) => Ok(Some(layout)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn writer(&self) -> Result<Arc<LayoutWriter>, Failure> {
        let mut writer = self.writer.lock().await;
        if let Some(writer) = &*writer {
            return Ok(Arc::clone(writer));
        }
        let begin = Instant::now();
        loop {
            let dir = self.dir.try_clone().map_err(|error| self.failed(error))?;
            if let Some(locked) = blocking(move || LayoutWriter::try_lock(dir)).await? {
                let locked = Arc::new(locked);
                *writer = Some(Arc::clone(&locked));
                return Ok(locked);
            }
            if begin.elapsed() > PATIENCE {
                let message = format!("another build writes to the directory {}", self.name);
                let failure = Failure::new(FailureKind::Unavailable, message);
                return Err(
                    failure.hint("let each build write to a directory, or a copy, of its own")
                );
            }
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    async fn pull_one(&self, layout: &Layout, layer: &LayerDescriptor) -> Result<(), Failure> {
        let blob = wanted(layer)?;
        if self.shelf.take(&blob.digest).await?.is_some() {
            return Ok(());
        }
        let report = |bytes| (self.progress)(&blob.digest, bytes, blob.size);
        copy(layout, &self.name, &blob, self.shelf.store(), &report).await.map_err(gone)?;
        self.shelf.brought(&blob.digest).await
    }

    async fn push_one(&self, to: &Arc<LayoutWriter>, blob: Descriptor) -> Result<(), Failure> {
        let (to, shelf, progress) =
            (Arc::clone(to), self.shelf.clone(), Arc::clone(&self.progress));
        blocking(move || -> Result<(), Failure> {
            if to.has_blob(&blob) {
                return Ok(());
            }
            let found = shelf.open(&blob.digest)?.ok_or_else(|| not_here(&blob.digest))?;
            to.put_blob(&blob, &found.file)?;
            progress(&blob.digest, blob.size, blob.size);
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl RepositoryCap for LayoutRepository {
    async fn resolve(&self, reference: String) -> Result<Option<LayerDescriptor>, Failure> {
        named(&reference, &self.tag)?;
        let Some(layout) = self.read().await? else { return Ok(None) };
        let found = blocking(move || -> Result<_, wbuild_oci::Error> {
            // Platforms do not matter: a cache is listed once.
            let found = layout.resolve(Some(&reference), &Platform::host());
            let descriptor = match found {
                Ok(descriptor) => descriptor,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let bytes = layout.bytes(&descriptor, MAX_MANIFEST)?;
            Ok(Some((descriptor.media_type, bytes)))
        });
        match found.await? {
            Some((media_type, bytes)) => Ok(Some(self.shelf.put(&media_type, bytes).await?)),
            None => Ok(None),
        }
    }

    async fn pull(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>> {
        let layout = match self.read().await {
            Ok(Some(layout)) => layout,
            Ok(None) => return blobs.iter().map(|blob| Err(not_here(&blob.digest))).collect(),
            Err(failure) => return blobs.iter().map(|_| Err(failure.clone())).collect(),
        };
        let slots = Semaphore::new(PARALLEL);
        let pulls = blobs.iter().map(|layer| async {
            let _slot = slots.acquire().await.expect("the semaphore is never closed");
            self.pull_one(&layout, layer).await
        });
        join_all(pulls).await
    }

    async fn push(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>> {
        let writer = match self.writer().await {
            Ok(writer) => writer,
            Err(failure) => return blobs.iter().map(|_| Err(failure.clone())).collect(),
        };
        let slots = Semaphore::new(PARALLEL);
        let mut first = BTreeSet::new();
        // What is named twice is written once, and looked at afterwards.
        let (now, later): (Vec<_>, Vec<_>) =
            blobs.iter().enumerate().partition(|(_, layer)| first.insert(layer.digest));
        let mut answers: Vec<(usize, Result<(), Failure>)> = Vec::with_capacity(blobs.len());
        for part in [now, later] {
            let (slots, writer) = (&slots, &writer);
            let pushes = part.into_iter().map(|(at, layer)| async move {
                let _slot = slots.acquire().await.expect("the semaphore is never closed");
                (at, async { self.push_one(writer, wanted(layer)?).await }.await)
            });
            answers.extend(join_all(pushes).await);
        }
        answers.sort_by_key(|(at, _)| *at);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    async fn publish(&self, manifest: NewManifest) -> Result<Digest, Failure> {
        let NewManifest { tag, media_type, data } = manifest;
        check_manifest(&media_type, &data)?;
        if let Some(tag) = &tag {
            granted_tag(tag, &self.tag)?;
        }
        let writer = self.writer().await?;
        blocking(move || writer.put_manifest(tag.as_deref(), &media_type, &data)).await
    }

    async fn retain(&self, manifests: Vec<Digest>) -> Result<u64, Failure> {
        let writer = self.writer().await?;
        let removed = blocking(move || writer.retain(&manifests)).await;
        *self.writer.lock().await = None;
        removed
    }
}
