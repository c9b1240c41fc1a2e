//! Bringing what an index names into the repository that it is pushed to: blobs first, then manifests,
//! then the index, so that it never names what is not there.
//!
//! Within a registry blobs are mounted; from elsewhere they are fetched into a file without a name,
//! checked, and sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use wbuild_graph::{Digest, Failure};
use wbuild_oci::image::MAX_NESTED_INDEXES;
use wbuild_oci::layout::Layout;
use wbuild_oci::media::{Descriptor, Document, is_distributable};
use wbuild_oci::reference::Reference;
use wbuild_oci::registry::{Client, Fetched, FileSink, PushSource};

use super::{Created, ImageTools, Place};
use crate::blocking;
use crate::steps::InternalStep;

impl ImageTools {
    /// Pushes what [`create`](Self::create) has made under `targets`, with all it names.
    ///
    /// # Errors
    ///
    /// Something cannot be fetched or sent. No target names the result before everything is there.
    pub async fn push(&self, created: &Created, targets: &[Reference]) -> Result<(), Failure> {
        let mut repositories: Vec<(&Reference, Vec<&Reference>)> = Vec::new();
        for target in targets {
            match repositories.iter_mut().find(|(known, _)| known.name() == target.name()) {
                Some((_, tags)) => tags.push(target),
                None => repositories.push((target, vec![target])),
            }
        }
        for (repository, tags) in repositories {
            let names: Vec<String> = tags.iter().map(|tag| tag.familiar()).collect();
            let step = Arc::new(self.steps.internal(&format!("push {}", names.join(", "))));
            let result = self.push_to(created, repository, &tags, &step).await;
            let step = Arc::into_inner(step);
            let step = step.ok_or_else(|| Failure::internal("a push did not end"))?;
            match result {
                Ok(()) => step.done(),
                Err(failure) => {
                    step.failed(&failure);
                    return Err(failure);
                }
            }
        }
        Ok(())
    }

    async fn push_to(
        &self,
        created: &Created,
        repository: &Reference,
        tags: &[&Reference],
        step: &Arc<InternalStep>,
    ) -> Result<(), Failure> {
        let mut done = BTreeSet::new();
        for (place, fetched) in &created.parts {
            if matches!(place, Place::Registry(from) if from.name() == repository.name()) {
                continue;
            }
            let root = fetched.descriptor.digest == created.descriptor.digest;
            self.copy(place, fetched, repository, step, &mut done, root, 0).await?;
        }
        let Descriptor { media_type, .. } = &created.descriptor;
        let client = self.client();
        for tag in tags {
            client.push_manifest(tag, media_type, &created.bytes).await?;
        }
        Ok(())
    }

    /// Copies what a document names and, unless it is the `root` that is pushed by name or an index
    /// that was taken apart, the document.
    #[allow(clippy::too_many_arguments)] // One recursion's state, not an interface.
    fn copy<'a>(
        &'a self,
        place: &'a Place,
        fetched: &'a Fetched,
        to: &'a Reference,
        step: &'a Arc<InternalStep>,
        done: &'a mut BTreeSet<Digest>,
        root: bool,
        depth: usize,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let Fetched { descriptor, bytes, document } = fetched;
            if !done.insert(descriptor.digest) {
                return Ok(());
            }
            match document {
                Document::Index(index) => {
                    if depth > MAX_NESTED_INDEXES {
                        let message =
                            format!("{place} nests more than {MAX_NESTED_INDEXES} indexes");
                        return Err(Failure::new(wbuild_graph::FailureKind::Limit, message));
                    }
                    for entry in &index.manifests {
                        let below = self.document(place, entry).await?;
                        self.copy(place, &below, to, step, done, false, depth + 1).await?;
                    }
                    if depth == 0 {
                        return Ok(());
                    }
                }
                Document::Manifest(manifest) => {
                    let blobs = manifest.layers.iter().chain([&manifest.config]);
                    let blobs = blobs.filter(|blob| is_distributable(&blob.media_type));
                    let blobs: BTreeMap<Digest, &Descriptor> =
                        blobs.map(|blob| (blob.digest, blob)).collect();
                    let blobs: Vec<Descriptor> = blobs.into_values().cloned().collect();
                    let source: Arc<dyn PushSource> = Arc::new(Blobs {
                        place: place.clone(),
                        client: self.client(),
                        scratch: self.scratch.clone(),
                        step: Arc::clone(step),
                    });
                    for answer in self.client().push_blobs(to, &blobs, &source).await? {
                        answer?;
                    }
                }
            }
            if !root {
                let name = to.at(&descriptor.digest.to_string())?;
                self.client().push_manifest(&name, &descriptor.media_type, bytes).await?;
            }
            Ok(())
        })
    }
}

/// Blobs of one place.
struct Blobs {
    place: Place,
    client: Client,
    scratch: PathBuf,
    step: Arc<InternalStep>,
}

impl Blobs {
    async fn file(&self, blob: &Descriptor) -> Result<File, Failure> {
        let failed = |error: std::io::Error| {
            Failure::internal("cannot make a file for a layer on its way").cause(&error)
        };
        let file = tempfile::tempfile_in(&self.scratch).map_err(failed)?;
        match &self.place {
            Place::Registry(reference) => {
                let mut sink = FileSink::new(file);
                self.client.blob(reference, blob, &mut sink).await?;
                Ok(sink.into_file())
            }
            Place::Layout { directory, .. } => {
                let (directory, blob) = (directory.clone(), blob.clone());
                blocking(move || -> wbuild_oci::Result<File> {
                    let mut file = file;
                    let mut from = Layout::open_path(&directory)?.blob(&blob)?;
                    // What does not have its digest says so itself.
                    std::io::copy(&mut from, &mut file).map_err(|error| match error
                        .downcast::<wbuild_oci::Error>(
                    ) {
                        Ok(error) => error,
                        Err(error) => wbuild_oci::Error::new(
                            wbuild_oci::ErrorKind::Io,
                            format!("cannot copy {} from {}", blob.digest, directory.display()),
                        )
                        .because(error),
                    })?;
                    Ok(file)
                })
                .await
            }
        }
    }
}

#[async_trait]
impl PushSource for Blobs {
    fn elsewhere(&self, _: &Descriptor, registry: &str) -> Vec<String> {
        match &self.place {
            Place::Registry(from) if from.registry() == registry => {
                vec![from.repository().to_owned()]
            }
            _ => Vec::new(),
        }
    }

    async fn open(&self, layer: &Descriptor) -> wbuild_oci::Result<File> {
        self.file(layer).await.map_err(|failure| {
            let digest = layer.digest.short();
            let message = format!("cannot copy the blob {digest} from {}", self.place);
            wbuild_oci::Error::new(wbuild_oci::ErrorKind::Io, message).because(failure)
        })
    }

    fn sent(&self, blob: &Descriptor, bytes: u64) {
        self.step.progress(&blob.digest.to_string(), bytes, Some(blob.size));
    }
}
