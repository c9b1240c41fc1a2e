//! The capabilities as the child has them: each asks the parent and waits.

use std::sync::Arc;

use async_trait::async_trait;
use wbuild_api::extension::*;
use wbuild_graph::{
    Attrs, Diagnostic, Digest, Edge, Failure, NodeMeta, Op, Platform, Severity, SourceFile, Span,
};

use super::link::Link;
use crate::protocol::{CacheCall, Call, Facts, FrontendCall, RunnerCall};

/// All capabilities of a child, of whichever kind its plugin is.
pub(super) struct Remote {
    pub(super) link: Arc<Link>,
    /// Of a frontend.
    pub(super) facts: Option<Facts>,
}

impl Remote {
    fn fact<T>(&self, of: impl FnOnce(&Facts) -> T) -> T {
        of(self.facts.as_ref().expect("frontends, whose these capabilities are, are told them"))
    }

    fn frontend<T: serde::de::DeserializeOwned>(&self, call: FrontendCall) -> T {
        self.link.ask(Call::Frontend(call))
    }

    fn runner<T: serde::de::DeserializeOwned>(&self, call: RunnerCall) -> T {
        self.link.ask(Call::Runner(call))
    }

    fn cache<T: serde::de::DeserializeOwned>(&self, call: CacheCall) -> T {
        self.link.ask(Call::Cache(call))
    }
}

impl LogCap for Remote {
    fn log(&self, severity: Severity, text: String) {
        self.link.ask(Call::Log(severity, text))
    }
}

impl GraphCap for Remote {
    fn insert(&self, op: Op, inputs: Vec<Edge>) -> Result<Vec<Edge>, Failure> {
        self.frontend(FrontendCall::Insert(op, inputs))
    }
    fn annotate(&self, at: Edge, meta: NodeMeta) -> Result<(), Failure> {
        self.frontend(FrontendCall::Annotate(at, meta))
    }
    fn ignore_cache(&self, at: Edge) -> Result<(), Failure> {
        self.frontend(FrontendCall::IgnoreCache(at))
    }
    fn same_work(&self, at: Edge, other: Edge) -> Result<bool, Failure> {
        self.frontend(FrontendCall::SameWork(at, other))
    }
}

#[async_trait]
impl InspectCap for Remote {
    async fn resolve_images(&self, requests: Vec<ImageRequest>) -> Vec<Result<ImageInfo, Failure>> {
        self.frontend(FrontendCall::ResolveImages(requests))
    }
    async fn resolve_sources(
        &self,
        requests: Vec<SourceRequest>,
    ) -> Vec<Result<SourceInfo, Failure>> {
        self.frontend(FrontendCall::ResolveSources(requests))
    }
    async fn read_file(
        &self,
        at: Edge,
        path: String,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, Failure> {
        self.frontend(FrontendCall::ReadFile(at, path, offset, length))
    }
    async fn stat(&self, at: Edge, path: String) -> Result<Option<Entry>, Failure> {
        self.frontend(FrontendCall::Stat(at, path))
    }
    async fn read_dir(&self, at: Edge, query: ReadDir) -> Result<Vec<Entry>, Failure> {
        self.frontend(FrontendCall::ReadDir(at, query))
    }
    fn start(&self, at: Vec<Edge>) {
        self.frontend(FrontendCall::StartSolving(at))
    }
    async fn evaluate(&self, at: Vec<Edge>) -> Vec<Result<(), Failure>> {
        self.frontend(FrontendCall::Evaluate(at))
    }
    async fn outcome_of(&self, at: Edge) -> Result<Arc<Outcome>, Failure> {
        self.frontend(FrontendCall::OutcomeOf(at))
    }
}

#[async_trait]
impl RequestCap for Remote {
    fn definition(&self) -> Result<DefinitionFile, Failure> {
        self.frontend(FrontendCall::Definition)
    }
    async fn opt(&self, name: String) -> Option<String> {
        self.frontend(FrontendCall::Opt(name))
    }
    async fn opts(&self, prefix: String) -> Attrs {
        self.frontend(FrontendCall::Opts(prefix))
    }
    fn targets(&self) -> Vec<String> {
        self.fact(|facts| facts.targets.clone())
    }
    fn build_platform(&self) -> Platform {
        self.fact(|facts| facts.build_platform.clone())
    }
    fn target_platforms(&self) -> Vec<Platform> {
        self.fact(|facts| facts.target_platforms.clone())
    }
    fn context(
        &self,
        name: String,
        platform: Option<Platform>,
    ) -> Result<Option<NamedContext>, Failure> {
        self.frontend(FrontendCall::Context(name, platform))
    }
    fn context_names(&self) -> Vec<String> {
        self.fact(|facts| facts.context_names.clone())
    }
    fn has_secret(&self, id: String) -> bool {
        self.frontend(FrontendCall::HasSecret(id))
    }
    fn has_ssh(&self, id: String) -> bool {
        self.frontend(FrontendCall::HasSsh(id))
    }
    fn epoch(&self) -> Option<u64> {
        self.fact(|facts| facts.epoch)
    }
    fn supports(&self, feature: String) -> bool {
        self.frontend(FrontendCall::Supports(feature))
    }
}

impl DiagnosticsCap for Remote {
    fn add_source(&self, source: SourceFile) -> Result<u32, Failure> {
        self.frontend(FrontendCall::AddSource(source))
    }
    fn map_source(&self, generated: Span, original: Span) -> Result<(), Failure> {
        self.map_sources(vec![(generated, original)])
    }
    // A guest cannot be stopped between those of one call of its own, so many go in one of ours.
    fn map_sources(&self, ranges: Vec<(Span, Span)>) -> Result<(), Failure> {
        let mut chunks = ranges.chunks(10_000);
        chunks.try_for_each(|some| self.frontend(FrontendCall::MapSources(some.to_vec())))
    }
    fn report(&self, diagnostic: Diagnostic) -> Result<(), Failure> {
        self.frontend(FrontendCall::Report(diagnostic))
    }
}

#[async_trait]
impl ResultsCap for Remote {
    fn image(&self, image: ImageResult) -> Result<(), Failure> {
        self.frontend(FrontendCall::Image(image))
    }
    fn files(&self, files: FilesResult) -> Result<(), Failure> {
        self.frontend(FrontendCall::Files(files))
    }
    fn require(&self, at: Edge) -> Result<(), Failure> {
        self.frontend(FrontendCall::Require(at))
    }
    fn attest(&self, kind: String, statement: FilesResult) -> Result<(), Failure> {
        self.frontend(FrontendCall::Attest(kind, statement))
    }
    fn effect(&self, name: String, at: Edge) -> Result<(), Failure> {
        self.frontend(FrontendCall::Effect(name, at))
    }
    fn fail_after(&self, at: Edge) -> Result<(), Failure> {
        self.frontend(FrontendCall::FailAfter(at))
    }
    async fn publish(&self, names: Vec<String>) -> Result<(), Failure> {
        self.frontend(FrontendCall::Publish(names))
    }
}

#[async_trait]
impl NestedCap for Remote {
    async fn build(&self, requests: Vec<NestedBuild>) -> Vec<Result<NestedResult, Failure>> {
        self.frontend(FrontendCall::Nested(requests))
    }
}

impl MachineCap for Remote {
    fn native_platforms(&self) -> Vec<Platform> {
        self.runner(RunnerCall::NativePlatforms)
    }
    fn kernel_binfmt(&self, platform: Platform) -> Option<BinfmtEntry> {
        self.runner(RunnerCall::KernelBinfmt(platform))
    }
    fn features(&self) -> Attrs {
        self.runner(RunnerCall::Features)
    }
    fn find_tool(&self, name: String) -> Option<Tool> {
        self.runner(RunnerCall::FindTool(name))
    }
}

impl ClampCap for Remote {
    fn clamp(&self, _base: String, edited: String, tools: Vec<String>) -> Result<String, Failure> {
        self.runner(RunnerCall::Clamp(edited, tools))
    }
}

impl KvCap for Remote {
    fn open(&self, bucket: String) -> Result<String, Failure> {
        self.cache(CacheCall::KvOpen(bucket))
    }
    fn get_many(
        &self,
        bucket: String,
        keys: Vec<Vec<u8>>,
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        self.cache(CacheCall::KvGetMany(bucket, keys))
    }
    fn scan(
        &self,
        bucket: String,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: u32,
    ) -> Result<Vec<KvPair>, Failure> {
        self.cache(CacheCall::KvScan(bucket, prefix, after, limit))
    }
    fn apply(
        &self,
        bucket: String,
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<(), Failure> {
        self.cache(CacheCall::KvApply(bucket, changes))
    }
    fn clear(&self, bucket: String) -> Result<(), Failure> {
        self.cache(CacheCall::KvClear(bucket))
    }
}

impl BlobsCap for Remote {
    fn open(&self, digest: Digest) -> Option<BlobInfo> {
        self.cache(CacheCall::BlobOpen(digest))
    }
    fn read(&self, digest: Digest, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        self.cache(CacheCall::BlobRead(digest, offset, length))
    }
    fn write_small(&self, media_type: String, data: Vec<u8>) -> Result<BlobInfo, Failure> {
        self.cache(CacheCall::BlobWrite(media_type, data))
    }
}

#[async_trait]
impl RepositoryCap for Remote {
    async fn resolve(&self, reference: String) -> Result<Option<LayerDescriptor>, Failure> {
        self.cache(CacheCall::Resolve(reference))
    }
    async fn pull(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>> {
        self.cache(CacheCall::Pull(blobs))
    }
    async fn push(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>> {
        self.cache(CacheCall::PushBlobs(blobs))
    }
    async fn publish(&self, manifest: NewManifest) -> Result<Digest, Failure> {
        self.cache(CacheCall::Publish(manifest))
    }
    async fn retain(&self, manifests: Vec<Digest>) -> Result<u64, Failure> {
        self.cache(CacheCall::Retain(manifests))
    }
}

#[async_trait]
impl HttpCap for Remote {
    async fn send(&self, requests: Vec<HttpRequest>) -> Vec<Result<HttpResponse, Failure>> {
        self.cache(CacheCall::HttpSend(requests))
    }
    async fn body_small(&self, response: u64, limit: u32) -> Result<Vec<u8>, Failure> {
        self.cache(CacheCall::HttpBodySmall(response, limit))
    }
    async fn body_blob(&self, response: u64, expect: LayerDescriptor) -> Result<(), Failure> {
        self.cache(CacheCall::HttpBodyBlob(response, expect))
    }
    fn forget(&self, response: u64) {
        self.cache(CacheCall::HttpForget(response))
    }
}
