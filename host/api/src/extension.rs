//! The plug points: what a frontend, a runner and a cache backend are to the engine, and the
//! capabilities the engine hands them.
//!
//! `wbuild-plugin` implements these traits over Wasm components; tests implement them natively.
//! Every argument and answer is an owned, serialisable value, so that a plugin may run in another
//! process one day. One object enforces one capability, for every WIT version that reaches it.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use wbuild_graph::{
    Attrs, BlobDigest, CacheKey, Diagnostic, DiffId, Digest, Edge, Failure, NodeMeta, Op, Platform,
    ResultId, Severity, SourceFile, Span,
};

/// Which plugin this is, for provenance, memo traces and messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginIdentity {
    /// As the user named it: `dockerfile`, `./my.wasm`.
    pub name: String,
    /// sha256 of the component.
    pub digest: Digest,
    /// Version of the WIT package it speaks, e.g. `0.1.0`.
    pub wit_version: String,
}

// ---- frontend ----------------------------------------------------------------------------------

pub use crate::describe::{Description, Outline, Parameter, Query, Target};
pub use crate::nested::{NestedBuild, NestedCap, NestedContext, NestedResult};

/// Turns a user's file into a definition, perhaps solving parts of it on the way.
#[async_trait]
pub trait Frontend: Send + Sync {
    /// Which plugin this is.
    fn identity(&self) -> PluginIdentity;

    /// Runs the frontend once, in a fresh instance. What it yields goes through `host.results`.
    async fn build(&self, host: FrontendHost) -> Result<(), Failure>;

    /// Whether it answers questions about a definition without building it.
    fn describes(&self) -> bool {
        false
    }

    /// Answers a question, in a fresh instance. Messages about the sources go through
    /// `host.diagnostics`.
    async fn describe(&self, _host: FrontendHost, query: Query) -> Result<Description, Failure> {
        Err(query.unsupported(&self.identity().name))
    }
}

/// The capabilities of one frontend run.
#[derive(Clone)]
pub struct FrontendHost {
    /// Graph construction.
    pub graph: Arc<dyn GraphCap>,
    /// Looking at results.
    pub inspect: Arc<dyn InspectCap>,
    /// Facts about the invocation.
    pub request: Arc<dyn RequestCap>,
    /// Sources and messages.
    pub diagnostics: Arc<dyn DiagnosticsCap>,
    /// What the build yields.
    pub results: Arc<dyn ResultsCap>,
    /// Other frontends; a component reaches it only if it was granted the import.
    pub nested: Arc<dyn NestedCap>,
    /// Lines for the user.
    pub log: Arc<dyn LogCap>,
}

/// wit/frontend, interface `graph`.
pub trait GraphCap: Send + Sync {
    /// Appends a node and returns its outputs.
    fn insert(&self, op: Op, inputs: Vec<Edge>) -> Result<Vec<Edge>, Failure>;
    /// Names a node.
    fn annotate(&self, at: Edge, meta: NodeMeta) -> Result<(), Failure>;
    /// Marks a node as never to be looked up.
    fn ignore_cache(&self, at: Edge) -> Result<(), Failure>;
    /// Whether two outputs are the same work.
    fn same_work(&self, at: Edge, other: Edge) -> Result<bool, Failure>;
}

/// A request to resolve an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRequest {
    /// As written.
    pub reference: String,
    /// None = the build's first target platform.
    pub platform: Option<Platform>,
    /// As of `graph.image`.
    pub attrs: Attrs,
}

/// A resolved image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Canonical name with the digest that was resolved.
    pub reference: String,
    /// Digest of the manifest for the platform.
    pub manifest: Digest,
    /// The image's platform.
    pub platform: Platform,
    /// OCI image config, verbatim JSON.
    pub config: String,
    /// Open for later.
    pub attrs: Attrs,
}

/// A request to resolve a git or http source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRequest {
    /// `git` or `http`.
    pub kind: String,
    /// As of `graph.git`, `graph.http`.
    pub url: String,
    /// Branch, tag or commit of a repository.
    pub reference: String,
    /// As of `graph.git`, `graph.http`.
    pub attrs: Attrs,
}

/// A resolved source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Commit or checksum.
    pub pin: String,
    /// `tag`, `last-modified`.
    pub attrs: Attrs,
}

/// Kinds of directory entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntryKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Device, FIFO, socket.
    Other,
}

/// One entry of a result's tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Below the directory that was asked for, or the path that was asked for.
    pub path: String,
    /// See [`EntryKind`].
    pub kind: EntryKind,
    /// In bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Target of a symlink.
    pub link: Option<String>,
    /// Open for later.
    pub attrs: Attrs,
}

/// A question for [`InspectCap::read_dir`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadDir {
    /// Directory.
    pub path: String,
    /// Entries after this one.
    pub after: Option<String>,
    /// At most so many.
    pub limit: u32,
    /// `pattern` (repeats), `recursive`.
    pub opts: Attrs,
}

/// What an exec with `capture` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Exit code; 128 + signal number if a signal ended it.
    pub exit_code: i32,
    /// First bytes of standard output.
    pub stdout: Vec<u8>,
    /// There was more.
    pub stdout_truncated: bool,
    /// First bytes of standard error.
    pub stderr: Vec<u8>,
    /// There was more.
    pub stderr_truncated: bool,
}

/// wit/frontend, interface `inspect`. Each call solves what it needs.
#[async_trait]
pub trait InspectCap: Send + Sync {
    /// Resolves all in parallel; one answer each, in order.
    async fn resolve_images(&self, requests: Vec<ImageRequest>) -> Vec<Result<ImageInfo, Failure>>;
    /// Resolves all in parallel without fetching contents.
    async fn resolve_sources(
        &self,
        requests: Vec<SourceRequest>,
    ) -> Vec<Result<SourceInfo, Failure>>;
    /// At most 1 MiB of a file.
    async fn read_file(
        &self,
        at: Edge,
        path: String,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, Failure>;
    /// Metadata of a path, not following a final symlink; `None` if there is nothing.
    async fn stat(&self, at: Edge, path: String) -> Result<Option<Entry>, Failure>;
    /// Sorted by path.
    async fn read_dir(&self, at: Edge, query: ReadDir) -> Result<Vec<Entry>, Failure>;
    /// Begins solving in the background.
    fn start(&self, at: Vec<Edge>);
    /// Solves all in parallel; one answer each, in order.
    async fn evaluate(&self, at: Vec<Edge>) -> Vec<Result<(), Failure>>;
    /// Runs a captured exec if need be and says what it did.
    async fn outcome_of(&self, at: Edge) -> Result<Arc<Outcome>, Failure>;
}

/// The build definition file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinitionFile {
    /// As the user knows it.
    pub name: String,
    /// Its bytes.
    pub data: Vec<u8>,
    /// `path` (inside the context `context`), `context`.
    pub attrs: Attrs,
}

/// A named build context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedContext {
    /// `local`, `image`, `oci-layout`, `git`, `http` or `input`.
    pub kind: String,
    /// local: name for a local source; image, oci-layout: reference; git, http: URL.
    pub identifier: String,
    /// Set for kind `input`.
    pub root: Option<Edge>,
    /// Image config of an `input`.
    pub config: Option<String>,
    /// For oci-layout: `store`, to be passed on to `image`.
    pub attrs: Attrs,
}

/// wit/frontend, interface `request`.
#[async_trait]
pub trait RequestCap: Send + Sync {
    /// The build definition file.
    fn definition(&self) -> Result<DefinitionFile, Failure>;
    /// One option, e.g. `build-arg:X`, `target`.
    async fn opt(&self, name: String) -> Option<String>;
    /// All options whose names start with `prefix`, names without it.
    async fn opts(&self, prefix: String) -> Attrs;
    /// Targets in the order they were asked for.
    fn targets(&self) -> Vec<String>;
    /// Where build steps run natively.
    fn build_platform(&self) -> Platform;
    /// What to build for.
    fn target_platforms(&self) -> Vec<Platform>;
    /// A context by name, the platform's own before the general one.
    fn context(
        &self,
        name: String,
        platform: Option<Platform>,
    ) -> Result<Option<NamedContext>, Failure>;
    /// Names of all contexts.
    fn context_names(&self) -> Vec<String>;
    /// Whether the client offers a secret.
    fn has_secret(&self, id: String) -> bool;
    /// Whether the client offers an ssh agent.
    fn has_ssh(&self, id: String) -> bool;
    /// SOURCE_DATE_EPOCH.
    fn epoch(&self) -> Option<u64>;
    /// Whether the host knows a key or value.
    fn supports(&self, feature: String) -> bool;
}

/// wit/frontend, interface `diagnostics`.
pub trait DiagnosticsCap: Send + Sync {
    /// Registers a source and returns its index.
    fn add_source(&self, source: SourceFile) -> Result<u32, Failure>;
    /// A range of a generated source stands for another range.
    fn map_source(&self, generated: Span, original: Span) -> Result<(), Failure>;
    /// Reports a message.
    fn report(&self, diagnostic: Diagnostic) -> Result<(), Failure>;
}

/// An image a frontend yields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageResult {
    /// Distinguishes several images of one build; "" = the image.
    pub name: String,
    /// None = the build's first target platform.
    pub platform: Option<Platform>,
    /// None = an image without layers.
    pub root: Option<Edge>,
    /// OCI image config without rootfs.
    pub config: String,
    /// `tag`, `push-tag`, `annotation` (`key=value`), `index`.
    pub attrs: Attrs,
}

/// Files a frontend yields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilesResult {
    /// Distinguishes several.
    pub name: String,
    /// None = the build's first target platform.
    pub platform: Option<Platform>,
    /// Where from.
    pub root: Edge,
    /// Path inside the root.
    pub path: String,
    /// `dest`, `if-exists`, `keep-times`, `keep-owner`.
    pub attrs: Attrs,
}

/// wit/frontend, interface `results`.
#[async_trait]
pub trait ResultsCap: Send + Sync {
    /// Yields an image.
    fn image(&self, image: ImageResult) -> Result<(), Failure>;
    /// Yields files.
    fn files(&self, files: FilesResult) -> Result<(), Failure>;
    /// Work that must succeed though nothing of it is yielded.
    fn require(&self, at: Edge) -> Result<(), Failure>;
    /// Yields an attestation: in-toto predicate type and the file that holds it.
    fn attest(&self, kind: String, statement: FilesResult) -> Result<(), Failure>;
    /// Work for its effect, after everything else.
    fn effect(&self, name: String, at: Edge) -> Result<(), Failure>;
    /// The build fails with this captured exec's failure after its results are exported.
    fn fail_after(&self, at: Edge) -> Result<(), Failure>;
    /// Exports the named results now.
    async fn publish(&self, names: Vec<String>) -> Result<(), Failure>;
}

/// wit/types, interface `log`.
pub trait LogCap: Send + Sync {
    /// A line for the user; limited in size and number.
    fn log(&self, severity: Severity, text: String);
}

// ---- runner ------------------------------------------------------------------------------------

/// Decides how a process is launched. Plans only: the host checks the plan and carries it out.
#[async_trait]
pub trait Runner: Send + Sync {
    /// Which plugin this is.
    fn identity(&self) -> PluginIdentity;
    /// How well each platform can be run here.
    async fn supports(
        &self,
        host: RunnerHost,
        platforms: Vec<Platform>,
    ) -> Result<Vec<Result<Offer, Failure>>, Failure>;
    /// Pure: same job, same machine facts, same plan.
    async fn make_plan(&self, host: RunnerHost, job: Job) -> Result<LaunchPlan, Failure>;
}

/// The capabilities of a runner.
#[derive(Clone)]
pub struct RunnerHost {
    /// Facts and tools of the machine.
    pub machine: Arc<dyn MachineCap>,
    /// Checks edited specs.
    pub clamp: Arc<dyn ClampCap>,
    /// Lines for the user.
    pub log: Arc<dyn LogCap>,
}

/// How well a runner runs a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Lowest wins; native is 0, emulated 100.
    pub rank: u32,
    /// `native`, `personality`, `emulated`, …
    pub how: String,
    /// Open for later.
    pub attrs: Attrs,
}

/// One mount of a job as a runner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountView {
    /// `slot:<n>` in the spec.
    pub slot: u32,
    /// Path in the container.
    pub target: String,
    /// `bind`, `cache`, `tmpfs`, `secret`, `ssh`, `file`.
    pub kind: String,
    /// Writes are refused.
    pub readonly: bool,
    /// Open for later.
    pub attrs: Attrs,
}

/// One process the solver wants to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Where it runs.
    pub platform: Platform,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Without secret and volatile variables.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
    /// Mounts.
    pub mounts: Vec<MountView>,
    /// Format of the program inside the root and of its interpreter chain, e.g. `elf:x86_64`.
    pub entry_format: Vec<String>,
    /// The host's own safe OCI runtime spec, as JSON; mount sources are tokens.
    pub base_spec: String,
    /// Open for later.
    pub attrs: Attrs,
}

/// An emulator registration in the step's own user namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinfmtRule {
    /// Name of a granted tool.
    pub tool: String,
    /// Bytes at the start of a file.
    pub magic: Vec<u8>,
    /// Which bits of them count.
    pub mask: Vec<u8>,
    /// E.g. `OCF`.
    pub flags: String,
}

/// How to launch a job. `spec` has passed the clamp.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// The edited spec; none = the base spec.
    pub spec: Option<String>,
    /// Tools bound into the container: name and target.
    pub tools: Vec<(String, String)>,
    /// Emulators.
    pub binfmt: Vec<BinfmtRule>,
    /// E.g. `linux32`.
    pub personality: Option<String>,
    /// Shown with the step.
    pub warnings: Vec<Diagnostic>,
    /// Open for later.
    pub attrs: Attrs,
}

/// A host executable the policy lets a runner use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// By which it was found.
    pub name: String,
    /// Of its bytes.
    pub digest: Digest,
    /// Needs no libraries.
    pub is_static: bool,
    /// If known.
    pub version: Option<String>,
}

/// A handler the kernel has already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinfmtEntry {
    /// Its flags.
    pub flags: String,
    /// `F`: opened at registration.
    pub usable_in_container: bool,
    /// Open for later.
    pub attrs: Attrs,
}

/// wit/runner, interface `machine`.
pub trait MachineCap: Send + Sync {
    /// What runs without help.
    fn native_platforms(&self) -> Vec<Platform>;
    /// What the kernel emulates already.
    fn kernel_binfmt(&self, platform: Platform) -> Option<BinfmtEntry>;
    /// `rootless`, `userns`, `cgroup-v2`, `binfmt-userns`, `overlay`, `personality`.
    fn features(&self) -> Attrs;
    /// A granted tool by name.
    fn find_tool(&self, name: String) -> Option<Tool>;
}

/// wit/runner, `plan.from-spec`.
pub trait ClampCap: Send + Sync {
    /// Compares `edited` with `base` field by field; returns the spec to use, or what the policy
    /// refuses. `tools` are the names of tools the plan binds.
    fn clamp(&self, base: String, edited: String, tools: Vec<String>) -> Result<String, Failure>;
}

// ---- cache backend -----------------------------------------------------------------------------

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
