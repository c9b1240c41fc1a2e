//! Pushes images: blobs first, then the manifests that name them, then the index, then tags. So a
//! registry never shows an image of which something is missing, however a push ends.
//!
//! What a repository has is not sent, and its content is not even opened: layers of a base that lies
//! in the same registry are neither fetched nor sent.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use reqwest::header::{ACCEPT, HeaderValue};
use reqwest::{Method, StatusCode};
use tokio::sync::Semaphore;
use wbuild_graph::Digest;

use super::Client;
use super::send::Payload;
use super::upload::{Content, Repository, media_type};
use crate::error::{Error, Result};
use crate::layout::Export;
use crate::media::{Descriptor, MAX_MANIFEST, is_distributable};
use crate::reference::Reference;

/// Where the layers of a push come from.
#[async_trait]
pub trait PushSource: Send + Sync {
    /// Repositories of `registry` that hold the layer already.
    fn elsewhere(&self, layer: &Descriptor, registry: &str) -> Vec<String>;

    /// Opens a layer's blob. Called only for a layer that has to be sent.
    async fn open(&self, layer: &Descriptor) -> Result<File>;

    /// `bytes` of a blob are on their way; after a cut it may be fewer than before. Not called for one
    /// that need not be sent.
    fn sent(&self, blob: &Descriptor, bytes: u64);
}

/// What a push came to; manifests are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Blobs that were sent.
    pub sent: usize,
    /// Blobs taken over from another repository.
    pub mounted: usize,
    /// Blobs that were there.
    pub present: usize,
}

/// What became of one blob.
enum Went {
    Sent,
    Mounted,
    Present,
}

/// One blob of a push.
struct Blob<'a> {
    descriptor: &'a Descriptor,
    /// The content of a config; a layer is asked of the source.
    bytes: Option<&'a [u8]>,
}

impl Client {
    /// Pushes an image or an index under `names`, which may be in several repositories and registries;
    /// with `by_digest` to their repositories without a tag.
    pub async fn push(
        &self,
        export: &Export,
        names: &[Reference],
        by_digest: bool,
        source: &Arc<dyn PushSource>,
    ) -> Result<Pushed> {
        let root = export.root();
        if root.size > MAX_MANIFEST {
            let message = format!("the manifest is larger than {MAX_MANIFEST} bytes");
            return Err(Error::limit(message).hint("shorten its annotations"));
        }
        let mut repositories: Vec<(&Reference, Vec<String>)> = Vec::new();
        for name in names {
            let target =
                if by_digest { root.digest.to_string() } else { name.without_digest().target() };
            match repositories.iter_mut().find(|(known, _)| known.name() == name.name()) {
                Some((_, targets)) if targets.contains(&target) => {}
                Some((_, targets)) => targets.push(target),
                None => repositories.push((name, vec![target])),
            }
        }
        let mut pushed = Pushed::default();
        let mut done: Vec<&Reference> = Vec::new();
        for (reference, targets) in repositories {
            let near = done.iter().filter(|other| other.registry() == reference.registry());
            let near: Vec<&str> = near.map(|other| other.repository()).collect();
            for went in self.push_to(export, reference, &targets, &near, source).await? {
                match went {
                    Went::Sent => pushed.sent += 1,
                    Went::Mounted => pushed.mounted += 1,
                    Went::Present => pushed.present += 1,
                }
            }
            done.push(reference);
        }
        Ok(pushed)
    }

    /// Pushes to one repository; `near` are others of its registry that have everything.
    async fn push_to(
        &self,
        export: &Export,
        reference: &Reference,
        targets: &[String],
        near: &[&str],
        source: &Arc<dyn PushSource>,
    ) -> Result<Vec<Went>> {
        let to = Repository::new(&self.0, reference).await?;
        let slots = Semaphore::new(to.site.concurrency);
        let configs = export.images().iter().map(|image| {
            (
                image.manifest.config.digest,
                Blob { descriptor: &image.manifest.config, bytes: Some(image.config.bytes()) },
            )
        });
        let layers = export.layers().filter(|layer| is_distributable(&layer.media_type));
        let layers = layers.map(|layer| (layer.digest, Blob { descriptor: layer, bytes: None }));
        let blobs: BTreeMap<Digest, Blob<'_>> = layers.chain(configs).collect();
        let blobs = blobs.values().map(|blob| async {
            let _slot = slots.acquire().await.expect("the semaphore is never closed");
            push_blob(&to, blob, near, source).await
        });
        let went = try_join_all(blobs).await?;

        let content = |descriptor: &Descriptor| {
            let digest = descriptor.digest;
            let missing = || Error::invalid(format!("cannot push {digest}: it has no content"));
            export.documents().get(&digest).map(Vec::as_slice).ok_or_else(missing)
        };
        let root = export.root();
        if root.is_index() {
            let manifests = export.manifests().iter().map(|manifest| async {
                let _slot = slots.acquire().await.expect("the semaphore is never closed");
                put(&to, manifest, content(manifest)?, &manifest.digest.to_string()).await
            });
            try_join_all(manifests).await?;
        }
        for target in targets {
            put(&to, root, content(root)?, target).await?;
        }
        Ok(went)
    }

    /// Pushes blobs to the repository of `reference`, but for those it has; one answer each, in order.
    /// What the source cannot open fails by itself.
    pub async fn push_blobs(
        &self,
        reference: &Reference,
        blobs: &[Descriptor],
        source: &Arc<dyn PushSource>,
    ) -> Result<Vec<Result<()>>> {
        let to = Repository::new(&self.0, reference).await?;
        let slots = Semaphore::new(to.site.concurrency);
        let pushes = blobs.iter().map(|descriptor| async {
            let _slot = slots.acquire().await.expect("the semaphore is never closed");
            push_blob(&to, &Blob { descriptor, bytes: None }, &[], source).await.map(drop)
        });
        Ok(join_all(pushes).await)
    }

    /// Puts a manifest or an index where `reference` says, by tag or by digest. What it names must be
    /// there.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest> {
        let descriptor = Descriptor::of(media_type, bytes);
        if descriptor.size > MAX_MANIFEST {
            return Err(Error::limit(format!("the manifest is larger than {MAX_MANIFEST} bytes")));
        }
        let to = Repository::new(&self.0, reference).await?;
        put(&to, &descriptor, bytes, &reference.target()).await?;
        Ok(descriptor.digest)
    }
}

async fn push_blob(
    to: &Repository<'_>,
    blob: &Blob<'_>,
    near: &[&str],
    source: &Arc<dyn PushSource>,
) -> Result<Went> {
    let descriptor = blob.descriptor;
    if to.has_blob(&descriptor.digest).await? {
        return Ok(Went::Present);
    }
    let mut from: Vec<String> = near.iter().map(|&name| name.to_owned()).collect();
    if blob.bytes.is_none() {
        from.extend(source.elsewhere(descriptor, to.reference.registry()));
    }
    for from in from.iter().filter(|from| *from != to.reference.repository()) {
        if to.mount(&descriptor.digest, from).await? {
            return Ok(Went::Mounted);
        }
    }
    let content = match blob.bytes {
        Some(bytes) => Content::Bytes(Bytes::copy_from_slice(bytes)),
        None => Content::File(Arc::new(source.open(descriptor).await?)),
    };
    let (told, known) = (Arc::clone(source), descriptor.clone());
    to.upload(descriptor, &content, Arc::new(move |bytes| told.sent(&known, bytes))).await?;
    Ok(Went::Sent)
}

/// Puts a manifest or an index where `target`, a tag or its digest, names it, unless it does so.
async fn put(
    to: &Repository<'_>,
    descriptor: &Descriptor,
    bytes: &[u8],
    target: &str,
) -> Result<()> {
    let separator = if target.contains(':') { '@' } else { ':' };
    let name = format!("{}{separator}{target}", to.reference.name());
    let path = format!("manifests/{target}");
    let what = format!("ask for {name}");
    let mut request = to.outgoing(Method::HEAD, &path, &what)?;
    let accept = HeaderValue::from_str(&descriptor.media_type)
        .map_err(|e| Error::invalid("a manifest without a valid media type").because(e))?;
    request.headers = vec![(ACCEPT, accept)];
    if let Ok(response) = to.inner.send(&request, |status| status == StatusCode::NOT_FOUND).await?
        && super::described(response.headers()).is_some_and(|it| it.digest == descriptor.digest)
    {
        return Ok(());
    }
    let what = format!("push {name}");
    let mut request = to.outgoing(Method::PUT, &path, &what)?;
    request.headers = vec![media_type(&descriptor.media_type)?];
    request.payload = Payload::Bytes(Bytes::copy_from_slice(bytes));
    request.completes = true;
    let response = to.inner.send(&request, |_| false).await?.map_err(|refusal| refusal.error)?;
    to.same_digest(&descriptor.digest, response.headers(), &what)?;
    if response.status() != StatusCode::CREATED {
        let (registry, status) = (to.reference.registry(), response.status());
        let message = format!("cannot {what}: {registry} answers {status} instead of 201");
        return Err(Error::invalid(message).hint("is this a container registry?"));
    }
    Ok(())
}
