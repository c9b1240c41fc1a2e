//! Images: resolving names to manifests, keeping manifests and configs, fetching and unpacking
//! layers when something reads them.
//!
//! A name is resolved at most once a build, however many stages use it. What comes from a registry or
//! a layout is checked against its digest and size when it enters the store, and nowhere else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::OnceCell;
use wbuild_api::event::Event;
use wbuild_api::extension::ImageInfo;
use wbuild_graph::encode::Encoder;
use wbuild_graph::{
    Attrs, BlobDigest, CacheKey, DiffId, Digest, Failure, FailureKind, Platform, Severity, decode,
};
use wbuild_oci::config::ImageConfig;
use wbuild_oci::layer::{self, ApplyOptions, ParentMeta};
use wbuild_oci::media::{Descriptor, Document, MAX_CONFIG, MAX_MANIFEST, Manifest};
use wbuild_oci::reference::Reference;
use wbuild_store::{BlobRef, DocumentKind, Lease, OutputRecord, Record, SnapshotId, Store};
use wbuild_tree::par::Cancel;
use wbuild_tree::path::RelPath;
use wbuild_tree::root::Root;

use crate::blocking;
use crate::cancel::{CancelOnDrop, Stoppable};
use crate::ops::overlay_kind;
use crate::solved::{ImageOrigin, Layer, LayerFacts, Origin, Solved, Tree, image_layer_content};
use crate::source::layout::Layouts;
use crate::source::registry::Registries;
use crate::steps::Steps;

/// Where images can be had from.
#[async_trait]
pub(crate) trait Provider: Send + Sync {
    /// What a name stands for now: a manifest or an index.
    async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Descriptor, Failure>;

    /// What was said of a name cannot be had. Whether it is worth while to ask once more, since
    /// somebody else will be asked.
    async fn reconsider(&self, _: &Reference) -> bool {
        false
    }

    /// A small document, verified.
    async fn document(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, Failure>;

    /// Brings a blob into the store, verified; `progress` is told of bytes so far.
    async fn fetch(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        store: &Store,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Failure>;
}

/// A resolved image.
struct Resolved {
    info: ImageInfo,
    manifest: Manifest,
    diff_ids: Vec<DiffId>,
    origin: ImageOrigin,
    /// Manifest and config were in the store already.
    known: bool,
}

/// Reference, platform, image store and freshness, as asked for.
type Asked = (String, Platform, Option<String>, Freshness);
type Slot = Arc<OnceCell<Arc<Resolved>>>;

/// What a name may mean.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Freshness {
    /// What the registry says; what it said last, if it cannot be asked.
    Default,
    /// What the registry says.
    Pull,
    /// What it said last.
    Local,
}

/// The images of one build.
pub(crate) struct Images {
    pub(crate) store: Store,
    pub(crate) steps: Arc<Steps>,
    pub(crate) registries: Arc<Registries>,
    pub(crate) layouts: Layouts,
    pub(crate) created: u64,
    /// Do not be content with what a name meant before.
    pub(crate) pull: bool,
    resolved: Mutex<HashMap<Asked, Slot>>,
    /// Held by who fetches a blob: images share layers.
    fetching: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Images {
    pub(crate) fn new(
        store: Store,
        steps: Arc<Steps>,
        registries: Arc<Registries>,
        layouts: Layouts,
        created: u64,
        pull: bool,
    ) -> Images {
        let (resolved, fetching) = Default::default();
        Images { store, steps, registries, layouts, created, pull, resolved, fetching }
    }

    fn provider(&self, store: Option<&str>) -> Result<&dyn Provider, Failure> {
        match store {
            None | Some("registry") => Ok(&*self.registries),
            Some(store) => match store.strip_prefix("oci-layout:") {
                Some(context) => self.layouts.get(context),
                None => Err(Failure::unsupported(format!("unknown image store {store:?}"))
                    .hint("expected \"registry\" or \"oci-layout:<context name>\"")),
            },
        }
    }

    async fn resolved(
        &self,
        reference: &str,
        platform: &Platform,
        attrs: &Attrs,
    ) -> Result<Arc<Resolved>, Failure> {
        decode::only_known(attrs, "graph.image", &["resolve", "checksum", "store"])?;
        let freshness = match attrs.get("resolve") {
            Some("pull") => Freshness::Pull,
            Some("local") => Freshness::Local,
            None | Some("default") if self.pull => Freshness::Pull,
            None | Some("default") => Freshness::Default,
            Some(other) => {
                return Err(Failure::unsupported(format!(
                    "an image cannot be resolved as {other:?}"
                ))
                .hint("expected one of: default, pull, local"));
            }
        };
        let store = attrs.get("store").filter(|store| *store != "registry").map(str::to_owned);
        let key = (reference.to_owned(), platform.clone(), store.clone(), freshness);
        let slot = {
            let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(resolved.entry(key).or_default())
        };
        let resolved = slot
            .get_or_try_init(|| self.resolve_twice(reference, platform, store, freshness))
            .await
            .cloned()
            .map_err(|failure| failure.context(format!("cannot resolve the image {reference}")))?;
        if let Some(checksum) = attrs.get("checksum")
            && checksum != resolved.info.manifest.to_string()
        {
            let found = resolved.info.manifest;
            return Err(Failure::invalid(format!(
                "the image {reference} has the manifest {found}, not {checksum}"
            )));
        }
        Ok(resolved)
    }

    /// Resolves a name; again, where the first answer leads nowhere and was not the registry's own.
    async fn resolve_twice(
        &self,
        name: &str,
        platform: &Platform,
        store: Option<String>,
        freshness: Freshness,
    ) -> Result<Arc<Resolved>, Failure> {
        match self.resolve_now(name, platform, store.clone(), freshness).await {
            Err(failure) => {
                let reference: Reference = name.parse()?;
                if self.provider(store.as_deref())?.reconsider(&reference).await {
                    return self.resolve_now(name, platform, store, freshness).await;
                }
                Err(failure)
            }
            done => done,
        }
    }

    async fn resolve_now(
        &self,
        name: &str,
        platform: &Platform,
        store: Option<String>,
        freshness: Freshness,
    ) -> Result<Arc<Resolved>, Failure> {
        let provider = self.provider(store.as_deref())?;
        let reference: Reference = name.parse()?;
        let mut known = true;
        let stored = match reference.digest() {
            Some(digest) => self.store.read_blob(&BlobDigest(digest), MAX_MANIFEST)?,
            None => None,
        };
        let (mut descriptor, mut bytes) = match (reference.digest(), stored) {
            // A pinned manifest that is here needs nobody's word.
            (Some(digest), Some(bytes)) => {
                (Descriptor::new("", digest, bytes.len() as u64), Some(bytes))
            }
            _ => (self.ask(provider, &reference, platform, &store, freshness).await?, None),
        };
        let top = descriptor.digest;
        // An index may lead to another one, but not for ever.
        for _ in 0..4 {
            let what = format!("{name} ({})", descriptor.digest);
            let document = match bytes.take() {
                Some(bytes) => {
                    descriptor.verify(&what, &bytes)?;
                    known &= self.has(descriptor.digest).await?;
                    self.store.put_blob(&bytes)?;
                    bytes
                }
                None => {
                    let (bytes, was_here) =
                        self.document(provider, &reference, &descriptor, MAX_MANIFEST).await?;
                    known &= was_here;
                    bytes
                }
            };
            let media_type = (!descriptor.media_type.is_empty()).then_some(&*descriptor.media_type);
            match Document::decode(&document, media_type, &what)? {
                Document::Index(index) => descriptor = index.choose(platform, name)?.clone(),
                Document::Manifest(manifest) => {
                    let (config, was_here) =
                        self.document(provider, &reference, &manifest.config, MAX_CONFIG).await?;
                    known &= was_here;
                    let config = ImageConfig::decode(&config, &format!("the config of {name}"))?;
                    let (layers, diff_ids) = (manifest.layers.len(), config.diff_ids().len());
                    if layers != diff_ids {
                        return Err(Failure::invalid(format!(
                            "{name} has {layers} layers, but its config lists {diff_ids}"
                        )));
                    }
                    if config.platform().rank_for(platform).is_none() {
                        return Err(Failure::not_found(format!(
                            "{name} is an image for {}, not for {platform}",
                            config.platform()
                        ))
                        .hint("choose another image, or another platform with --platform"));
                    }
                    let info = ImageInfo {
                        reference: reference.with_digest(top).to_string(),
                        manifest: descriptor.digest,
                        platform: config.platform().clone(),
                        config: String::from_utf8_lossy(config.bytes()).into_owned(),
                        attrs: Attrs::default(),
                    };
                    let origin = ImageOrigin {
                        reference: reference.with_digest(descriptor.digest).to_string(),
                        store,
                    };
                    let diff_ids = config.diff_ids().to_vec();
                    return Ok(Arc::new(Resolved { info, manifest, diff_ids, origin, known }));
                }
            }
        }
        Err(Failure::new(FailureKind::Limit, format!("{name} is an index of indexes of indexes")))
    }

    /// What a name stands for now; what it stood for when it was last asked for, if the registry does
    /// not answer and the client did not insist.
    async fn ask(
        &self,
        provider: &dyn Provider,
        reference: &Reference,
        platform: &Platform,
        store: &Option<String>,
        freshness: Freshness,
    ) -> Result<Descriptor, Failure> {
        // Layouts are on this machine: they answer, or they are not there.
        if store.is_some() {
            return provider.resolve(reference, platform).await;
        }
        let id = reference.to_string();
        let known = self.store.load_document(DocumentKind::Pin, &id)?;
        let known: Option<Descriptor> = known.and_then(|data| serde_json::from_slice(&data).ok());
        if freshness == Freshness::Local {
            return match known {
                Some(known) if self.has(known.digest).await? => Ok(known),
                _ => {
                    let message = format!("the image {reference} is not here");
                    Err(Failure::new(FailureKind::NotFound, message)
                        .hint("let it be asked for: the registry was not"))
                }
            };
        }
        match provider.resolve(reference, platform).await {
            Ok(found) => {
                if known.as_ref() != Some(&found) {
                    let data = serde_json::to_vec(&found).map_err(|error| {
                        Failure::internal("cannot keep what an image's name means").cause(&error)
                    })?;
                    self.store.save_document(DocumentKind::Pin, &id, &data)?;
                }
                Ok(found)
            }
            Err(failure)
                if failure.kind == FailureKind::Unavailable && freshness == Freshness::Default =>
            {
                let Some(known) = known else { return Err(failure) };
                if !self.has(known.digest).await? {
                    return Err(failure);
                }
                self.steps.sink().event(Event::PluginLog {
                    plugin: "wbuild".to_owned(),
                    severity: Severity::Warning,
                    text: format!("{failure}; using {} as it was last found", known.digest),
                });
                Ok(known)
            }
            Err(failure) => Err(failure),
        }
    }

    async fn has(&self, digest: Digest) -> Result<bool, Failure> {
        Ok(self.store.has_blob(&BlobDigest(digest))?)
    }

    /// A document from the store, else from the provider; and whether it was in the store.
    async fn document(
        &self,
        provider: &dyn Provider,
        reference: &Reference,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<(Vec<u8>, bool), Failure> {
        if let Some(bytes) = self.store.read_blob(&BlobDigest(descriptor.digest), limit)? {
            return Ok((bytes, true));
        }
        if descriptor.size > limit {
            let message = format!("{} of {reference} is too large", descriptor.digest);
            return Err(Failure::new(FailureKind::Limit, message));
        }
        let bytes = provider.document(reference, descriptor).await?;
        descriptor.verify(&format!("{} of {reference}", descriptor.digest), &bytes)?;
        self.store.put_blob(&bytes)?;
        Ok((bytes, false))
    }

    /// For frontends: the config, and what the name stands for.
    pub(crate) async fn resolve(
        &self,
        reference: &str,
        platform: &Platform,
        attrs: &Attrs,
    ) -> Result<ImageInfo, Failure> {
        Ok(self.resolved(reference, platform, attrs).await?.info.clone())
    }

    /// What keys an image: the manifest, whatever it is called and wherever it lies.
    pub(crate) async fn pin(
        &self,
        reference: &str,
        platform: &Platform,
        attrs: &Attrs,
    ) -> Result<Digest, Failure> {
        let resolved = self.resolved(reference, platform, attrs).await?;
        Ok(Encoder::new("wbuild.image-pin.v1").digest(&resolved.info.manifest).finish())
    }

    /// The image as a stack of lazy layers, if nothing of it had to be fetched to know it.
    pub(crate) async fn stored(
        &self,
        reference: &str,
        platform: &Platform,
        attrs: &Attrs,
    ) -> Result<Option<Arc<Solved>>, Failure> {
        let resolved = self.resolved(reference, platform, attrs).await?;
        Ok(if resolved.known { Some(resolved.solved()) } else { None })
    }

    /// The image as a stack of lazy layers.
    pub(crate) async fn pull(
        &self,
        reference: &str,
        platform: &Platform,
        attrs: &Attrs,
    ) -> Result<Arc<Solved>, Failure> {
        Ok(self.resolved(reference, platform, attrs).await?.solved())
    }

    /// Makes sure that a layer's blob is in the store.
    pub(crate) async fn fetch_layer(&self, layer: &Layer) -> Result<BlobRef, Failure> {
        let gone = || Failure::new(FailureKind::Gone, "the files of a layer are gone");
        let blob = layer.facts().blob.ok_or_else(gone)?;
        let fetching = {
            let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(fetching.entry(blob.digest.0).or_default())
        };
        let _one = fetching.lock().await;
        if self.store.has_blob(&blob.digest)? {
            return Ok(blob);
        }
        let Origin::Image(origin) = &layer.origin else { return Err(gone()) };
        let provider = self.provider(origin.store.as_deref())?;
        let reference: Reference = origin.reference.parse()?;
        let descriptor = Descriptor::new(blob.media_type.clone(), blob.digest.0, blob.size);
        let step = self.steps.internal(&format!(
            "pull {} {}",
            reference.familiar(),
            blob.digest.0.short()
        ));
        let total = Some(blob.size);
        let item = blob.digest.to_string();
        let progress = |current: u64| step.progress(&item, current, total);
        match provider.fetch(&reference, &descriptor, &self.store, &progress).await {
            Ok(()) => {
                step.done();
                Ok(blob)
            }
            Err(failure) => {
                let failure = failure.context(format!("cannot fetch a layer of {reference}"));
                step.fetch_failed(&failure);
                Err(failure)
            }
        }
    }

    /// Unpacks a fetched layer on top of `below` and records it under `key`.
    pub(crate) async fn unpack_layer(
        &self,
        layer: &Layer,
        below: Vec<SnapshotId>,
        key: CacheKey,
    ) -> Result<(SnapshotId, Lease), Failure> {
        let facts = layer.facts();
        let (Some(blob), Some(diff_id)) = (facts.blob, facts.diff_id) else {
            return Err(Failure::internal("a layer of an image without blob or diff id"));
        };
        let (store, created) = (self.store.clone(), self.created);
        let (_cancel, work) = CancelOnDrop::new();
        blocking(move || unpack(&store, &blob, diff_id, &below, key, created, work.cancel)).await
    }
}

impl Resolved {
    fn solved(&self) -> Arc<Solved> {
        let layers = self.manifest.layers.iter().zip(&self.diff_ids).map(|(blob, diff_id)| {
            let facts = LayerFacts {
                blob: Some(BlobRef {
                    media_type: blob.media_type.clone(),
                    digest: BlobDigest(blob.digest),
                    size: blob.size,
                }),
                diff_id: Some(*diff_id),
                content: Some(image_layer_content(diff_id)),
                ..LayerFacts::default()
            };
            Layer::new(Origin::Image(self.origin.clone()), facts)
        });
        Solved::tree(Tree::new(layers.collect()))
    }
}

/// Unpacks a blob into a snapshot that lies on `below`.
fn unpack(
    store: &Store,
    blob: &BlobRef,
    diff_id: DiffId,
    below: &[SnapshotId],
    key: CacheKey,
    created: u64,
    cancel: Cancel,
) -> Result<(SnapshotId, Lease), Failure> {
    let gone = || Failure::new(FailureKind::Gone, format!("the blob {} is gone", blob.digest));
    let input = store.open_blob(&blob.digest)?.ok_or_else(gone)?;
    let view = store.view(below)?;
    let base = Root::from_fd(view.open_dir()?, "the layers below");
    let builder = store.begin_snapshot()?;
    let mut options = ApplyOptions::new(overlay_kind(store.kind()));
    options.media_type = Some(&blob.media_type);
    options.diff_id = Some(diff_id);
    options.base_known = true;
    let mut parents = |path: &[u8]| {
        let lookup = || -> Result<Option<ParentMeta>, wbuild_tree::error::TreeError> {
            // A link in the way is replaced by the layer's own directory, as in a plain unpack.
            let found = base.follow(&RelPath::clean(path)?, false)?;
            let stat = found.stat.filter(|stat| stat.is_dir() && found.links.is_empty());
            let Some(stat) = stat else {
                return Ok(None);
            };
            Ok(Some(ParentMeta {
                mode: stat.mode & 0o7777,
                uid: stat.uid,
                gid: stat.gid,
                mtime: stat.mtime.secs,
                xattrs: base
                    .dir_xattrs(&found.path)?
                    .iter()
                    .map(|(name, value)| (name.to_vec(), value.to_vec()))
                    .collect(),
            }))
        };
        lookup().map_err(|error| {
            wbuild_oci::Error::new(wbuild_oci::ErrorKind::Io, "cannot look into the layers below")
                .because(error)
        })
    };
    let input = Stoppable { inner: &input.file, cancel };
    let applied = layer::apply(input, builder.fs(), &options, &mut parents)?;
    if below.is_empty() {
        builder.drop_whiteouts()?;
    }
    let (snapshot, lease) = builder.commit()?.into_parts();
    store.put_record(&Record {
        keys: vec![key],
        outputs: vec![OutputRecord {
            result_id: None,
            layers: vec![wbuild_store::LayerRecord {
                snapshot: Some(snapshot),
                diff_id: Some(diff_id),
                blob: Some(blob.clone()),
                size_bytes: applied.size,
                ..wbuild_store::LayerRecord::default()
            }],
        }],
        created,
        description: format!("layer {}", blob.digest.0.short()),
        ..Record::default()
    })?;
    Ok((snapshot, lease))
}
