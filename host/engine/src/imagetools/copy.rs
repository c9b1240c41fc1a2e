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
use wbuild_graph::{Digest, Failure, FailureKind};
use wbuild_oci::image::MAX_NESTED_INDEXES;
use wbuild_oci::layout::Layout;
use wbuild_oci::media::{Descriptor, Document, Manifest, is_distributable};
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
            let source: Arc<dyn PushSource> = Arc::new(Blobs {
                place: place.clone(),
                client: self.client(),
                scratch: self.scratch.clone(),
                step: Arc::clone(step),
            });
            let mut copying = Copying { tools: self, place, to: repository, source, done };
            // What is pushed by name needs no other; an index that was taken apart is not wanted.
            let named = fetched.descriptor.digest != created.descriptor.digest
                && matches!(fetched.document, Document::Manifest(_));
            copying.document(fetched, named, 0).await?;
            done = copying.done;
        }
        let Descriptor { media_type, .. } = &created.descriptor;
        let client = self.client();
        for tag in tags {
            client.push_manifest(tag, media_type, &created.bytes).await?;
        }
        Ok(())
    }
}

/// What goes from one place to one repository.
struct Copying<'a> {
    tools: &'a ImageTools,
    place: &'a Place,
    to: &'a Reference,
    source: Arc<dyn PushSource>,
    /// Documents that are there, with all they name.
    done: BTreeSet<Digest>,
}

impl Copying<'_> {
    /// Copies what a document names and, if it is to be `named` by its digest, the document.
    fn document<'b>(
        &'b mut self,
        fetched: &'b Fetched,
        named: bool,
        depth: usize,
    ) -> BoxFuture<'b, Result<(), Failure>> {
        Box::pin(async move {
            let Fetched { descriptor, bytes, document } = fetched;
            if named && !self.done.insert(descriptor.digest) {
                return Ok(());
            }
            match document {
                Document::Index(_) if depth > MAX_NESTED_INDEXES => {
                    let place = self.place;
                    let message = format!("{place} nests more than {MAX_NESTED_INDEXES} indexes");
                    return Err(Failure::new(FailureKind::Limit, message));
                }
                Document::Index(index) => {
                    for entry in &index.manifests {
                        let below = self.tools.document(self.place, entry).await?;
                        self.document(&below, true, depth + 1).await?;
                    }
                }
                Document::Manifest(manifest) => self.blobs(manifest).await?,
            }
            if named {
                let name = self.to.at(&descriptor.digest.to_string())?;
                let client = self.tools.client();
                client.push_manifest(&name, &descriptor.media_type, bytes).await?;
            }
            Ok(())
        })
    }

    async fn blobs(&self, manifest: &Manifest) -> Result<(), Failure> {
        let blobs = manifest.layers.iter().chain([&manifest.config]);
        let blobs = blobs.filter(|blob| is_distributable(&blob.media_type));
        // Each once.
        let blobs: BTreeMap<Digest, &Descriptor> = blobs.map(|blob| (blob.digest, blob)).collect();
        let blobs: Vec<Descriptor> = blobs.into_values().cloned().collect();
        for answer in self.tools.client().push_blobs(self.to, &blobs, &self.source).await? {
            answer?;
        }
        Ok(())
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
