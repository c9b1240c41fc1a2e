//! Images that are there already, in registries and layouts: looking into them, and joining several
//! into one. Nothing is built and the state directory is not used.
//!
//! What is looked at are manifests and, where they are asked for, configs. Layers are read only where
//! they have to be copied into another registry.

mod copy;
mod create;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::Value;
use wbuild_api::event::{EventSink, StepId};
use wbuild_api::session::Session;
use wbuild_graph::{Failure, Platform};
use wbuild_oci::ImageConfig;
use wbuild_oci::image::MAX_NESTED_INDEXES;
use wbuild_oci::layout::Layout;
use wbuild_oci::media::{Descriptor, Document, MAX_CONFIG, MAX_MANIFEST};
use wbuild_oci::reference::Reference;
use wbuild_oci::registry::{Client, Fetched};

pub use create::{Create, Created, MAX_SOURCES, Source, Wanted};

use crate::blocking;
use crate::source::registry::Registries;
use crate::steps::Steps;

/// Documents that are asked for at once.
const PARALLEL: usize = 8;
/// Most configs of one image that are shown.
const MAX_CONFIGS: usize = 1_000;

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a registry.
    Registry(Reference),
    /// In an OCI image layout.
    Layout {
        /// Where the layout is.
        directory: PathBuf,
        /// A tag or a digest; none = its only image.
        reference: Option<String>,
        /// As the user wrote it.
        shown: String,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Registry(reference) => reference.fmt(f),
            Place::Layout { shown, .. } => f.write_str(shown),
        }
    }
}

/// The config of an image.
#[derive(Clone, Debug)]
pub struct Config {
    /// For which platform the image is.
    pub platform: Platform,
    /// What it says.
    pub config: Value,
}

/// Looks at images and joins them, as one client.
pub struct ImageTools {
    registries: Registries,
    steps: Arc<Steps>,
    /// Where a layer is while it is on its way from one registry to another.
    scratch: PathBuf,
}

impl ImageTools {
    /// Asks registries as `session` says. `scratch` is a directory for files that pass through.
    pub fn new(session: Arc<dyn Session>, scratch: PathBuf, events: Arc<dyn EventSink>) -> Self {
        let steps = Arc::new(Steps::new(events));
        ImageTools { registries: Registries::new(session), steps, scratch }
    }

    /// The step that failed, if one did.
    pub fn failed_step(&self) -> Option<StepId> {
        self.steps.failed()
    }

    fn client(&self) -> Client {
        self.registries.client_for_push(Default::default())
    }

    /// The manifest or index at a place.
    ///
    /// # Errors
    ///
    /// There is none, it cannot be had, or it is not what its digest, type and size say.
    pub async fn find(&self, place: &Place) -> Result<Fetched, Failure> {
        match place {
            Place::Registry(reference) => Ok(self.client().manifest(reference).await?),
            Place::Layout { directory, reference, .. } => {
                let (directory, reference) = (directory.clone(), reference.clone());
                blocking(move || -> wbuild_oci::Result<Fetched> {
                    let layout = Layout::open_path(&directory)?;
                    let found = layout.resolve(reference.as_deref(), &Platform::host())?;
                    let bytes = layout.bytes(&found, MAX_MANIFEST)?;
                    let what = directory.display().to_string();
                    let document = Document::decode(&bytes, Some(&found.media_type), &what)?;
                    Ok(Fetched { descriptor: found, bytes, document })
                })
                .await
            }
        }
    }

    /// A manifest or index that another one at this place names.
    async fn document(&self, place: &Place, descriptor: &Descriptor) -> Result<Fetched, Failure> {
        match place {
            Place::Registry(reference) => {
                Ok(self.client().manifest_of(reference, descriptor).await?)
            }
            Place::Layout { .. } => {
                let bytes = self.small_blob(place, descriptor, MAX_MANIFEST).await?;
                let what = format!("{} in {place}", descriptor.digest);
                let document = Document::decode(&bytes, Some(&descriptor.media_type), &what)?;
                Ok(Fetched { descriptor: descriptor.clone(), bytes, document })
            }
        }
    }

    async fn small_blob(
        &self,
        place: &Place,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, Failure> {
        match place {
            Place::Registry(reference) => {
                Ok(self.client().blob_bytes(reference, descriptor).await?)
            }
            Place::Layout { directory, .. } => {
                let (directory, descriptor) = (directory.clone(), descriptor.clone());
                blocking(move || Layout::open_path(&directory)?.bytes(&descriptor, limit)).await
            }
        }
    }

    /// The configs of an image that [`find`](Self::find) has found: its own, or those of all images
    /// that the index names, in its order. What is no image has none.
    ///
    /// # Errors
    ///
    /// One cannot be had, or there are too many.
    pub async fn configs(&self, place: &Place, found: &Fetched) -> Result<Vec<Config>, Failure> {
        let mut manifests: Vec<Fetched> = Vec::new();
        let mut level = vec![found.clone()];
        for _ in 0..=MAX_NESTED_INDEXES {
            let mut below: Vec<Descriptor> = Vec::new();
            for fetched in std::mem::take(&mut level) {
                match &fetched.document {
                    Document::Index(index) => {
                        let images = index.manifests.iter().filter(|d| !d.is_attestation());
                        let known = |d: &&Descriptor| d.is_manifest() || d.is_index();
                        below.extend(images.filter(known).cloned());
                    }
                    Document::Manifest(manifest) if manifest.is_image() => manifests.push(fetched),
                    Document::Manifest(_) => {}
                }
            }
            if manifests.len() + below.len() > MAX_CONFIGS {
                let message = format!("{place} holds more than {MAX_CONFIGS} images");
                return Err(Failure::new(wbuild_graph::FailureKind::Limit, message)
                    .hint("look at one of them, by its digest"));
            }
            let documents = below.iter().map(|descriptor| self.document(place, descriptor));
            let documents = documents.collect::<Vec<_>>();
            level = stream::iter(documents).buffered(PARALLEL).try_collect().await?;
            if level.is_empty() {
                break;
            }
        }
        let configs = manifests.iter().map(|fetched| self.config(place, fetched));
        let configs: Vec<_> = configs.collect();
        stream::iter(configs).buffered(PARALLEL).try_collect().await
    }

    /// The config of one image.
    async fn config(&self, place: &Place, fetched: &Fetched) -> Result<Config, Failure> {
        let Document::Manifest(manifest) = &fetched.document else {
            return Err(Failure::internal(format!("{place} is an index and has no config")));
        };
        if !manifest.is_image() {
            return Err(Failure::unsupported(format!("{place} is no container image")));
        }
        let bytes = self.small_blob(place, &manifest.config, MAX_CONFIG).await?;
        let config = ImageConfig::decode(&bytes, &format!("the config of {place}"))?;
        let platform = config.platform().clone();
        Ok(Config { platform, config: Value::Object(config.root().clone()) })
    }
}
