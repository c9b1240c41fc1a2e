//! What a cache backend is, and what it is given: buckets of values, the content store, a repository,
//! and granted servers.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use wbuild_graph::{Attrs, BlobDigest, CacheKey, DiffId, Digest, Failure, ResultId};

use super::{LogCap, PluginIdentity};

/// A cache backend that can be connected to a build's capabilities.
#[async_trait]
pub trait CachePlugin: Send + Sync {
    /// Which plugin this is.
    fn identity(&self) -> PluginIdentity;
    /// Makes an instance for one backend, direction and build.
    async fn connect(&self, host: CacheHost) -> Result<Arc<dyn CacheBackend>, Failure>;
}

/// Where cache records and blobs are kept besides the store. Calls never overlap.
#[async_trait]
pub trait CacheBackend: Send + Sync {
    /// Begins a build. mode: `read` or `write`.
    async fn open(&self, mode: String, config: Attrs) -> Result<(), Failure>;
    /// One list per key, in order, newest first.
    async fn find(&self, keys: Vec<CacheKey>) -> Result<Vec<Vec<RecordEntry>>, Failure>;
    /// Makes layers present in the content store; `Gone` makes the hit a miss.
    async fn fetch(
        &self,
        layers: Vec<LayerDescriptor>,
    ) -> Result<Vec<Result<(), Failure>>, Failure>;
    /// Announces records.
    async fn save(&self, entries: Vec<RecordEntry>) -> Result<(), Failure>;
    /// Makes layers present in the backend.
    async fn push(&self, layers: Vec<LayerDescriptor>)
    -> Result<Vec<Result<(), Failure>>, Failure>;
    /// Flushes manifests and indexes at the end of a build.
    async fn commit(&self) -> Result<Attrs, Failure>;
    /// Forgets what nothing refers to.
    async fn prune(&self, options: Attrs) -> Result<Attrs, Failure>;
}

/// A backend whose host notes, before each call, which blobs the call names: those are what the backend
/// may reach of the content store, besides what it has written and what has come from its own place.
pub struct Naming<F> {
    /// Told of the layers.
    pub named: F,
    /// What is called.
    pub backend: Arc<dyn CacheBackend>,
}

#[async_trait]
impl<F> CacheBackend for Naming<F>
where
    F: Fn(&mut dyn Iterator<Item = &LayerDescriptor>) + Send + Sync,
{
    async fn open(&self, mode: String, config: Attrs) -> Result<(), Failure> {
        self.backend.open(mode, config).await
    }

    async fn find(&self, keys: Vec<CacheKey>) -> Result<Vec<Vec<RecordEntry>>, Failure> {
        self.backend.find(keys).await
    }

    async fn fetch(
        &self,
        layers: Vec<LayerDescriptor>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        (self.named)(&mut layers.iter());
        self.backend.fetch(layers).await
    }

    async fn save(&self, entries: Vec<RecordEntry>) -> Result<(), Failure> {
        (self.named)(&mut entries.iter().flat_map(|entry| &entry.layers));
        self.backend.save(entries).await
    }

    async fn push(
        &self,
        layers: Vec<LayerDescriptor>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        (self.named)(&mut layers.iter());
        self.backend.push(layers).await
    }

    async fn commit(&self) -> Result<Attrs, Failure> {
        self.backend.commit().await
    }

    async fn prune(&self, options: Attrs) -> Result<Attrs, Failure> {
        self.backend.prune(options).await
    }
}

/// The capabilities of a cache backend.
#[derive(Clone)]
pub struct CacheHost {
    /// Key-value buckets.
    pub kv: Arc<dyn KvCap>,
    /// The content store.
    pub blobs: Arc<dyn BlobsCap>,
    /// The repository or directory that the user named for this backend; none = calls are refused.
    pub repository: Option<Arc<dyn RepositoryCap>>,
    /// Requests to the servers that the user named for this backend; none = calls are refused.
    pub http: Option<Arc<dyn HttpCap>>,
    /// Lines for the user.
    pub log: Arc<dyn LogCap>,
}

/// Everything needed to fetch, check and unpack a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDescriptor {
    /// OCI media type, or `application/vnd.wbuild.snapshot.v1` for a layer that exists as files on
    /// this machine only; its digest is then the layer's content digest.
    pub media_type: String,
    /// Of the bytes as transferred.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Digest of the uncompressed tar.
    pub diff_id: Option<DiffId>,
    /// In bytes.
    pub uncompressed_size: Option<u64>,
    /// `content-digest`, `compression`, `url`, `annotation.<name>`.
    pub attrs: Attrs,
}

/// What one solved vertex is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordEntry {
    /// At least one.
    pub keys: Vec<CacheKey>,
    /// Equal ids are interchangeable.
    pub id: ResultId,
    /// Bottom first.
    pub layers: Vec<LayerDescriptor>,
    /// Seconds since 1970.
    pub created: u64,
    /// Host facts, kept verbatim.
    pub attrs: Attrs,
}

/// A blob that is present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobInfo {
    /// Digest.
    pub digest: BlobDigest,
    /// In bytes.
    pub size: u64,
    /// As recorded, or `application/octet-stream`.
    pub media_type: String,
}

/// wit/cache, interface `blobs`.
pub trait BlobsCap: Send + Sync {
    /// A blob (or, for a content digest, a snapshot) that is present now. Never fetches.
    fn open(&self, digest: Digest) -> Option<BlobInfo>;
    /// At most 1 MiB of a blob.
    fn read(&self, digest: Digest, offset: u64, length: u32) -> Result<Vec<u8>, Failure>;
    /// Stores a small blob.
    fn write_small(&self, media_type: String, data: Vec<u8>) -> Result<BlobInfo, Failure>;
}

/// A key and, in a change, its new value.
pub type KvPair = (Vec<u8>, Vec<u8>);

/// wit/cache, interface `kv`. `bucket` has been checked to be a plain name.
pub trait KvCap: Send + Sync {
    /// Opens a bucket of this plugin's and returns its generation.
    fn open(&self, bucket: String) -> Result<String, Failure>;
    /// Values by key, in order.
    fn get_many(&self, bucket: String, keys: Vec<Vec<u8>>)
    -> Result<Vec<Option<Vec<u8>>>, Failure>;
    /// Pairs in key order after `after`.
    fn scan(
        &self,
        bucket: String,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: u32,
    ) -> Result<Vec<KvPair>, Failure>;
    /// An atomic batch; `None` deletes.
    fn apply(
        &self,
        bucket: String,
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<(), Failure>;
    /// Empties the bucket.
    fn clear(&self, bucket: String) -> Result<(), Failure>;
}

/// A manifest that is to be published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewManifest {
    /// By which it is found from now on; none = by its digest alone.
    pub tag: Option<String>,
    /// Of the manifest; its bytes say the same.
    pub media_type: String,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// wit/cache, interface `repository`: OCI content under one name, a repository of a registry or a
/// layout in a directory. What it brings here lies in the content store, checked.
#[async_trait]
pub trait RepositoryCap: Send + Sync {
    /// Fetches the manifest that a tag or digest names; `None` if there is no such thing.
    async fn resolve(&self, reference: String) -> Result<Option<LayerDescriptor>, Failure>;
    /// Fetches blobs in parallel; one answer each, in order. `Gone` if a blob is not there.
    async fn pull(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>>;
    /// Sends blobs in parallel, but for those that are there; one answer each, in order. `Gone` if a
    /// blob is neither there nor here.
    async fn push(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>>;
    /// Puts a manifest there, whose blobs are there, and answers its digest.
    async fn publish(&self, manifest: NewManifest) -> Result<Digest, Failure>;
    /// Removes every blob that neither these manifests nor any tag lead to, and answers how many.
    /// `Unsupported` of a registry.
    async fn retain(&self, manifests: Vec<Digest>) -> Result<u64, Failure>;
}

/// What a request carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpBody {
    /// Nothing.
    #[default]
    None,
    /// A few bytes.
    Small(Vec<u8>),
    /// A blob of the content store, or a part of one.
    Blob {
        /// Which.
        digest: BlobDigest,
        /// From where.
        offset: u64,
        /// How much; none = the rest.
        length: Option<u64>,
    },
}

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// Upper case.
    pub method: String,
    /// Absolute.
    pub url: String,
    /// Names may repeat.
    pub headers: Attrs,
    /// How the host is to identify the user: kind, and what goes with it.
    pub authorize: Option<(String, Attrs)>,
    /// What goes with it.
    pub body: HttpBody,
    /// `timeout-ms`, `retries`, `follow-redirects`.
    pub attrs: Attrs,
}

/// The beginning of an answer; its body waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpResponse {
    /// Names the answer for the other calls.
    pub id: u64,
    /// 100 to 599.
    pub status: u16,
    /// Names in lower case.
    pub headers: Attrs,
    /// Who answered, after redirects.
    pub url: String,
}

/// wit/cache, interface `http`: requests to granted origins.
#[async_trait]
pub trait HttpCap: Send + Sync {
    /// Sends all in parallel; one answer each, in order.
    async fn send(&self, requests: Vec<HttpRequest>) -> Vec<Result<HttpResponse, Failure>>;
    /// The body, at most `limit` bytes. A body can be had once.
    async fn body_small(&self, response: u64, limit: u32) -> Result<Vec<u8>, Failure>;
    /// Takes the body into the content store, if it is what is expected.
    async fn body_blob(&self, response: u64, expect: LayerDescriptor) -> Result<(), Failure>;
    /// Drops an answer and its connection.
    fn forget(&self, response: u64);
}
