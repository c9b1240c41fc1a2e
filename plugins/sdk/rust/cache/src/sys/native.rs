//! The same calls over the capabilities of `wbuild_api::extension`.

use std::rc::Rc;

use cache_records::{Attrs, Hash, Layer, Record};
use wbuild_api::extension::{
    BlobInfo, CacheHost, HttpBody, HttpCap, HttpRequest, HttpResponse, LayerDescriptor,
    NewManifest, RecordEntry, RepositoryCap,
};
use wbuild_graph::{
    BlobDigest, CacheKey, DiffId, Digest, Failure, FailureKind, ResultId, Severity,
};
use wbuild_guest::native::{host, wait};

use crate::http::{Body, Request};
use crate::{Error, Result};

fn caps() -> CacheHost {
    host()
}

/// A line for the user.
pub fn log(severity: Severity, text: &str) {
    caps().log.log(severity, text.to_owned());
}

// ---- records ------------------------------------------------------------------------------------

pub(crate) fn digest(hash: &Hash) -> Digest {
    hash.to_string().parse().expect("a sha256 is a digest")
}

pub(crate) fn hash(digest: &Digest) -> Result<Hash> {
    let text = digest.to_string();
    Hash::parse(&text).ok_or_else(|| Error::invalid(format!("{text:?} is no digest")))
}

pub(crate) fn layer_in(layer: LayerDescriptor) -> Result<Layer> {
    Ok(Layer {
        digest: hash(&layer.digest)?,
        size: layer.size,
        media_type: layer.media_type,
        diff_id: layer.diff_id.map(|id| hash(&id.0)).transpose()?,
        uncompressed_size: layer.uncompressed_size,
        attrs: layer.attrs.0,
    })
}

pub(crate) fn layer_out(layer: &Layer) -> LayerDescriptor {
    LayerDescriptor {
        media_type: layer.media_type.clone(),
        digest: digest(&layer.digest),
        size: layer.size,
        diff_id: layer.diff_id.map(|id| DiffId(digest(&id))),
        uncompressed_size: layer.uncompressed_size,
        attrs: wbuild_graph::Attrs(layer.attrs.clone()),
    }
}

pub(crate) fn record_in(entry: RecordEntry) -> Result<Record> {
    Ok(Record {
        id: hash(&entry.id.0)?,
        attrs: entry.attrs.0,
        created: entry.created,
        keys: entry.keys.iter().map(|key| hash(&key.0)).collect::<Result<_>>()?,
        layers: entry
            .layers
            .into_iter()
            .map(|layer| Ok(Rc::new(layer_in(layer)?)))
            .collect::<Result<_>>()?,
    })
}

pub(crate) fn record_out(record: &Record) -> RecordEntry {
    RecordEntry {
        keys: record.keys.iter().map(|key| CacheKey(digest(key))).collect(),
        id: ResultId(digest(&record.id)),
        layers: record.layers.iter().map(|layer| layer_out(layer)).collect(),
        created: record.created,
        attrs: wbuild_graph::Attrs(record.attrs.clone()),
    }
}

// ---- blobs --------------------------------------------------------------------------------------

/// A blob in the content store, which stays there as long as this lives.
#[derive(Debug)]
pub struct Blob(BlobInfo);

impl Blob {
    /// A blob that is here now, and that this backend reaches (wit/cache, `blobs.open`). Never fetches.
    pub fn open(wanted: &Hash) -> Option<Blob> {
        caps().blobs.open(digest(wanted)).map(Blob)
    }

    /// Stores a few bytes, at most 4 MiB.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub fn write_small(media_type: &str, data: &[u8]) -> Result<Blob> {
        Ok(Blob(caps().blobs.write_small(media_type.to_owned(), data.to_vec())?))
    }

    /// Its digest.
    ///
    /// # Errors
    ///
    /// When the host gives none.
    pub fn digest(&self) -> Result<Hash> {
        hash(&self.0.digest.0)
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// At most 1 MiB, of blobs of at most 64 MiB; nothing behind the end.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub fn read(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        Ok(caps().blobs.read(self.0.digest.0, offset, length)?)
    }

    /// The blob that a call of the host has made present.
    fn brought(layer: &Layer) -> Result<Blob> {
        Blob::open(&layer.digest).ok_or_else(|| {
            let message = format!("the host has not brought {}", layer.digest);
            Error::new(FailureKind::Internal, message)
        })
    }
}

// ---- kv -----------------------------------------------------------------------------------------

/// Values of this backend's own, which the host keeps between builds.
#[derive(Debug)]
pub struct Bucket {
    name: String,
    generation: String,
}

#[allow(missing_docs)] // Each is the function of its name in wit/cache, interface `kv`.
#[allow(clippy::missing_errors_doc)]
impl Bucket {
    pub fn open(name: &str) -> Result<Bucket> {
        let generation = caps().kv.open(name.to_owned())?;
        Ok(Bucket { name: name.to_owned(), generation })
    }

    pub fn generation(&self) -> String {
        self.generation.clone()
    }

    pub fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        Ok(caps().kv.get_many(self.name.clone(), keys.to_vec())?)
    }

    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: u32,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let after = after.map(<[u8]>::to_vec);
        Ok(caps().kv.scan(self.name.clone(), prefix.to_vec(), after, limit)?)
    }

    pub fn apply(&self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()> {
        Ok(caps().kv.apply(self.name.clone(), changes.to_vec())?)
    }

    pub fn clear(&self) -> Result<()> {
        Ok(caps().kv.clear(self.name.clone())?)
    }
}

// ---- repository ---------------------------------------------------------------------------------

fn denied(interface: &str) -> Failure {
    Failure::new(FailureKind::Denied, format!("wbuild:cache/{interface} is not granted"))
}

fn repository() -> Result<std::sync::Arc<dyn RepositoryCap>> {
    Ok(caps().repository.ok_or_else(|| denied("repository"))?)
}

/// The manifest that a tag or digest names; its blob is here afterwards.
///
/// # Errors
///
/// Those of the host.
pub fn resolve(reference: &str) -> Result<Option<Layer>> {
    let (repository, reference) = (repository()?, reference.to_owned());
    let found = wait(|_: CacheHost| async move { repository.resolve(reference).await })?;
    found.map(layer_in).transpose()
}

/// One answer for each of `wanted`, also where there is no repository.
fn each(
    wanted: &[Layer],
    ask: impl FnOnce(std::sync::Arc<dyn RepositoryCap>) -> Vec<Result<(), Failure>>,
) -> Vec<Result<()>> {
    match repository() {
        Ok(repository) => {
            ask(repository).into_iter().map(|answer| answer.map_err(Error::from)).collect()
        }
        Err(_) => wanted.iter().map(|_| Err(denied("repository").into())).collect(),
    }
}

/// Makes blobs present here; one answer each, in order.
pub fn pull(wanted: &[Layer]) -> Vec<Result<Blob>> {
    let layers: Vec<_> = wanted.iter().map(layer_out).collect();
    let answers = each(wanted, |repository| {
        wait(|_: CacheHost| async move { repository.pull(layers).await })
    });
    let blob = |(layer, answer): (&Layer, Result<()>)| answer.and_then(|()| Blob::brought(layer));
    wanted.iter().zip(answers).map(blob).collect()
}

/// Makes blobs present there; one answer each, in order.
pub fn push(wanted: &[Layer]) -> Vec<Result<()>> {
    let layers: Vec<_> = wanted.iter().map(layer_out).collect();
    each(wanted, |repository| wait(|_: CacheHost| async move { repository.push(layers).await }))
}

/// Puts a manifest there. Answers its digest.
///
/// # Errors
///
/// Those of the host.
pub fn publish(tag: Option<&str>, media_type: &str, data: &[u8]) -> Result<Hash> {
    let repository = repository()?;
    let manifest = NewManifest {
        tag: tag.map(str::to_owned),
        media_type: media_type.to_owned(),
        data: data.to_vec(),
    };
    hash(&wait(|_: CacheHost| async move { repository.publish(manifest).await })?)
}

/// Removes what neither these manifests nor any other lead to; answers how many blobs.
///
/// # Errors
///
/// `Unsupported` of a registry.
pub fn retain(manifests: &[Hash]) -> Result<u64> {
    let repository = repository()?;
    let manifests = manifests.iter().map(digest).collect();
    Ok(wait(|_: CacheHost| async move { repository.retain(manifests).await })?)
}

// ---- http ---------------------------------------------------------------------------------------

/// The beginning of an answer; its body waits.
pub struct Response {
    http: std::sync::Arc<dyn HttpCap>,
    head: HttpResponse,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.head.fmt(f)
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        self.http.forget(self.head.id);
    }
}

impl Response {
    /// 100 to 599.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// All headers, names in lower case.
    pub fn headers(&self) -> Attrs {
        self.head.headers.0.clone()
    }

    /// Who answered, after redirects.
    pub fn url(&self) -> String {
        self.head.url.clone()
    }

    /// The body, of at most `most` bytes and at most 4 MiB.
    ///
    /// # Errors
    ///
    /// `Limit` for a longer one.
    pub fn into_bytes(self, most: u32) -> Result<Vec<u8>> {
        let (http, id) = (std::sync::Arc::clone(&self.http), self.head.id);
        Ok(wait(|_: CacheHost| async move { http.body_small(id, most).await })?)
    }

    /// Takes the body into the content store, if it is this layer.
    ///
    /// # Errors
    ///
    /// `Invalid` when it is another.
    pub fn into_layer(self, layer: &Layer) -> Result<Blob> {
        let (http, id) = (std::sync::Arc::clone(&self.http), self.head.id);
        let expect = layer_out(layer);
        wait(|_: CacheHost| async move { http.body_blob(id, expect).await })?;
        Blob::brought(layer)
    }
}

pub(crate) fn send(requests: Vec<Request>) -> Vec<Result<Response>> {
    let Some(http) = caps().http else {
        return requests.iter().map(|_| Err(denied("http").into())).collect();
    };
    let outgoing = |request: Request| HttpRequest {
        method: request.method,
        url: request.url,
        headers: wbuild_graph::Attrs(request.headers),
        authorize: request.authorize.map(|kind| (kind, wbuild_graph::Attrs::default())),
        body: match request.body {
            Body::None => HttpBody::None,
            Body::Small(data) => HttpBody::Small(data),
            Body::Blob(blob, offset, length) => {
                HttpBody::Blob { digest: BlobDigest(blob.0.digest.0), offset, length }
            }
        },
        attrs: wbuild_graph::Attrs(request.attrs),
    };
    let requests: Vec<_> = requests.into_iter().map(outgoing).collect();
    let sending = std::sync::Arc::clone(&http);
    let answers = wait(|_: CacheHost| async move { sending.send(requests).await });
    let response = |head| Response { http: std::sync::Arc::clone(&http), head };
    answers.into_iter().map(|answer| answer.map(response).map_err(Error::from)).collect()
}
