//! Making one image of several.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use wbuild_api::event::{ImageDescriptor, ImageReport};
use wbuild_graph::{Attrs, Digest, Failure, FailureKind};
use wbuild_oci::join::{self, Part, PartContent};
use wbuild_oci::media::{Descriptor, DescriptorPlatform, Document, MediaFamily};
use wbuild_oci::reference::Reference;
use wbuild_oci::registry::Fetched;

use super::{ImageTools, PARALLEL, Place};
use crate::export::annotations::{Annotations, Level};

/// Most sources of one image.
pub const MAX_SOURCES: usize = 1_000;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Create {
    /// What is joined.
    pub sources: Vec<Source>,
    /// What the result is called; may be in several repositories and registries.
    pub targets: Vec<Reference>,
    /// Annotations, as outputs of builds take them.
    pub annotations: Attrs,
    /// What the first target names already comes first.
    pub append: bool,
    /// Make an index of a single image, too, instead of giving it another name.
    pub prefer_index: bool,
}

/// One source.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the user wrote it, for messages.
    pub shown: String,
    /// Where it is; none = in the only repository that is spoken of.
    pub place: Option<Place>,
    /// What it is to be, where that was said.
    pub wanted: Wanted,
}

/// A descriptor of which only the digest must be said (descriptor.md). What is said beyond that
/// stands in the result.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Wanted {
    /// See [`Descriptor`].
    pub media_type: Option<String>,
    /// See [`Descriptor`].
    pub digest: Option<Digest>,
    /// See [`Descriptor`].
    pub size: Option<u64>,
    /// See [`Descriptor`].
    pub annotations: Option<std::collections::BTreeMap<String, String>>,
    /// See [`Descriptor`].
    pub platform: Option<WantedPlatform>,
}

/// A platform of which the rest is taken from the image's config.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct WantedPlatform {
    /// See [`DescriptorPlatform`].
    pub os: Option<String>,
    /// See [`DescriptorPlatform`].
    pub architecture: Option<String>,
    /// See [`DescriptorPlatform`].
    pub variant: Option<String>,
    /// See [`DescriptorPlatform`].
    #[serde(rename = "os.version")]
    pub os_version: Option<String>,
    /// See [`DescriptorPlatform`].
    #[serde(rename = "os.features")]
    pub os_features: Option<Vec<String>>,
}

/// What the sources make, not pushed yet.
#[derive(Clone, Debug)]
pub struct Created {
    /// What names it.
    pub descriptor: Descriptor,
    /// The index, or what the only source is.
    pub bytes: Vec<u8>,
    /// What it was made of, and from where that has to be copied.
    pub(super) parts: Vec<(Place, Fetched)>,
}

impl Created {
    /// What there is to say of it.
    pub fn report(&self, targets: &[Reference]) -> ImageReport {
        let Descriptor { media_type, digest, size, .. } = self.descriptor.clone();
        ImageReport {
            image: String::new(),
            names: targets.iter().map(ToString::to_string).collect(),
            digest: Some(digest),
            config: None,
            descriptor: Some(ImageDescriptor {
                media_type,
                digest,
                size,
                annotations: Default::default(),
            }),
        }
    }
}

impl ImageTools {
    /// Joins the sources. Reads manifests, and configs where nothing else says the platform; changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// A source cannot be had, is not what was said of it, or does not go with the others.
    pub async fn create(&self, create: &Create) -> Result<Created, Failure> {
        let annotations = Annotations::read(&create.annotations)?;
        check_levels(&annotations)?;
        let sources = settle(create)?;
        if let Some(target) = create.targets.first().filter(|_| create.append) {
            // A mirror that is late would take away what was appended last.
            self.client().without_mirrors(target.registry()).await;
        }
        let found = sources.iter().map(|(place, wanted)| self.source(place, wanted));
        let found: Vec<_> = found.collect();
        let parts: Vec<(Fetched, Part)> =
            stream::iter(found).buffered(PARALLEL).try_collect().await?;
        let places = sources.into_iter().map(|(place, _)| place);
        if let [(only, _)] = &parts[..]
            && annotations.is_empty()
            && (!create.prefer_index || matches!(only.document, Document::Index(_)))
        {
            let Fetched { descriptor, bytes, .. } = only.clone();
            let parts = places.zip([only.clone()]).collect();
            return Ok(Created { descriptor, bytes, parts });
        }
        let (found, parts): (Vec<Fetched>, Vec<Part>) = parts.into_iter().unzip();
        let mut index = join::join(&parts)?;
        let docker = index.media_type.as_deref() == Some(MediaFamily::Docker.index());
        if docker && !annotations.is_empty() {
            let message = "a manifest list of Docker's format takes no annotations";
            return Err(Failure::unsupported(message).hint("leave out --annotation"));
        }
        annotate(&mut index.manifests, &annotations);
        let of_index = annotations.at(Level::Index, None);
        if !of_index.is_empty() {
            index.annotations.get_or_insert_default().extend(of_index);
        }
        join::check_size(&index)?;
        let bytes = index.to_bytes();
        let media_type = index.media_type.clone().unwrap_or_default();
        let descriptor = Descriptor::of(media_type, &bytes);
        Ok(Created { descriptor, bytes, parts: places.zip(found).collect() })
    }

    /// What a source is and what it brings.
    async fn source(&self, place: &Place, wanted: &Wanted) -> Result<(Fetched, Part), Failure> {
        let mut found = self.find(place).await?;
        let name = place.to_string();
        // What the layout says of the platform is the writer's word, which the config outdoes.
        let mut descriptor = Descriptor::new(
            found.descriptor.media_type.clone(),
            found.descriptor.digest,
            found.descriptor.size,
        );
        found.descriptor = descriptor.clone();
        let differs = |what: &str, is: &dyn std::fmt::Display, said: &dyn std::fmt::Display| {
            let message = format!("{name} has the {what} {is}, not {said}");
            Failure::invalid(message)
        };
        if let Some(said) = wanted.digest.filter(|said| *said != descriptor.digest) {
            return Err(differs("digest", &descriptor.digest, &said));
        }
        if let Some(said) = wanted.size.filter(|said| *said != descriptor.size && *said > 0) {
            return Err(differs("size", &descriptor.size, &said));
        }
        let said = wanted.media_type.as_ref().filter(|said| !said.is_empty());
        if let Some(said) = said.filter(|said| **said != descriptor.media_type) {
            return Err(differs("media type", &descriptor.media_type, said));
        }
        let content = match &found.document {
            Document::Index(_) if wanted.platform.is_some() => {
                let message = format!("{name} is an index, so it is not for one platform");
                return Err(Failure::invalid(message).hint("leave the platform out"));
            }
            Document::Index(index) => PartContent::Index(index.manifests.clone()),
            Document::Manifest(_) => {
                descriptor.annotations.clone_from(&wanted.annotations);
                descriptor.platform = Some(self.platform(place, &found, wanted).await?);
                PartContent::Image(Box::new(descriptor))
            }
        };
        Ok((found, Part { name, content }))
    }

    /// The platform of a single image: what was said, and for the rest what its config says.
    async fn platform(
        &self,
        place: &Place,
        found: &Fetched,
        wanted: &Wanted,
    ) -> Result<DescriptorPlatform, Failure> {
        let said = wanted.platform.clone().unwrap_or_default();
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let mut platform = match (set(&said.os), set(&said.architecture)) {
            (Some(os), Some(architecture)) => DescriptorPlatform {
                architecture,
                os,
                os_version: None,
                os_features: None,
                variant: None,
                extra: Default::default(),
            },
            (os, architecture) => {
                let config = self.config(place, found).await?;
                let mut platform = DescriptorPlatform::from(&config.platform);
                if let Some(architecture) = architecture {
                    (platform.architecture, platform.variant) = (architecture, None);
                }
                platform.os = os.unwrap_or(platform.os);
                platform
            }
        };
        platform.variant = set(&said.variant).or(platform.variant);
        platform.os_version = set(&said.os_version).or(platform.os_version);
        platform.os_features = said.os_features.or(platform.os_features);
        Ok(platform)
    }
}

/// Annotations belong to what is made here: the index and what it says of images.
fn check_levels(annotations: &Annotations) -> Result<(), Failure> {
    for (level, word) in
        [(Level::Manifest, "manifest"), (Level::IndexDescriptor, "index-descriptor")]
    {
        if annotations.has(level) {
            let message = format!("annotations of level {word} cannot be added to what is joined");
            return Err(Failure::unsupported(message)
                .hint("write index:KEY=VALUE or manifest-descriptor:KEY=VALUE")
                .hint("what a manifest says of itself is for the build that makes it"));
        }
    }
    Ok(())
}

fn annotate(entries: &mut [Descriptor], annotations: &Annotations) {
    for entry in entries.iter_mut().filter(|entry| !entry.is_attestation()) {
        let platform = entry.platform.as_ref().map(DescriptorPlatform::normalised);
        let more = annotations.at(Level::ManifestDescriptor, platform.as_ref());
        if !more.is_empty() {
            entry.annotations.get_or_insert_default().extend(more);
        }
    }
}

/// Where each source is, what is appended to first.
fn settle(create: &Create) -> Result<Vec<(Place, Wanted)>, Failure> {
    let mut sources = create.sources.clone();
    if create.append {
        let first = create.targets.first().ok_or_else(|| {
            Failure::invalid("--append without a name appends to nothing").hint("name it: -t NAME")
        })?;
        let place = Some(Place::Registry(first.clone()));
        sources.insert(0, Source { shown: first.to_string(), place, wanted: Wanted::default() });
    }
    if sources.is_empty() {
        return Err(Failure::invalid("there is nothing to join").hint("name one source or more"));
    }
    if sources.len() > MAX_SOURCES {
        let message = format!("there are more than {MAX_SOURCES} sources");
        return Err(Failure::new(FailureKind::Limit, message));
    }
    let mut repositories: BTreeSet<String> = create.targets.iter().map(Reference::name).collect();
    let mut near: Option<&Reference> = create.targets.first();
    for source in &create.sources {
        if let Some(Place::Registry(reference)) = &source.place {
            repositories.insert(reference.name());
            near = near.or(Some(reference));
        }
    }
    let place = |source: &Source| -> Result<Place, Failure> {
        let placed = match (&source.place, near) {
            (Some(place), _) => place.clone(),
            (None, Some(near)) if repositories.len() == 1 => Place::Registry(near.clone()),
            (None, _) => {
                let shown = &source.shown;
                let message = match repositories.len() {
                    0 => format!("{shown} is in no repository"),
                    _ => format!("{shown} may be in any of several repositories"),
                };
                return Err(Failure::invalid(message).hint("write NAME@DIGEST"));
            }
        };
        Ok(match (placed, source.wanted.digest) {
            (Place::Registry(reference), Some(digest)) if reference.digest().is_none() => {
                Place::Registry(reference.at(&digest.to_string())?)
            }
            (placed, _) => placed,
        })
    };
    sources.iter().map(|source| Ok((place(source)?, source.wanted.clone()))).collect()
}
