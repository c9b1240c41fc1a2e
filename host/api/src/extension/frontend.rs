//! What a frontend is, and what it is given: the graph, questions about results, facts about the
//! invocation, and where it says what the build yields.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use wbuild_graph::{
    Attrs, Diagnostic, Digest, Edge, Failure, NodeMeta, Op, Platform, SourceFile, Span,
};

use super::{LogCap, PluginIdentity};
use crate::describe::{Description, Query};
use crate::nested::NestedCap;

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
    /// Several of them; the first failure ends it.
    fn map_sources(&self, ranges: Vec<(Span, Span)>) -> Result<(), Failure> {
        let mut ranges = ranges.into_iter();
        ranges.try_for_each(|(generated, original)| self.map_source(generated, original))
    }
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
