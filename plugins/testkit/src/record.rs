//! Recording what a frontend asks and does, at the capabilities, whoever they belong to.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value as Json, json};
use wbuild_api::describe::{Description, Query};
use wbuild_api::extension::{
    DefinitionFile, DiagnosticsCap, Entry, FilesResult, Frontend, FrontendHost, GraphCap,
    ImageInfo, ImageRequest, ImageResult, InspectCap, LogCap, NamedContext, NestedBuild, NestedCap,
    NestedResult, Outcome, PluginIdentity, ReadDir, RequestCap, ResultsCap, SourceInfo,
    SourceRequest,
};
use wbuild_graph::{
    Attrs, Diagnostic, Edge, Failure, NodeMeta, Op, Platform, Severity, SourceFile, Span,
};

use crate::bench::lock;
use crate::trace::{Call, Trace, VERSION};

fn value(of: &impl Serialize) -> Json {
    // Keys are strings.
    serde_json::to_value(of).unwrap_or_default()
}

/// A frontend whose builds are recorded.
pub struct Traced {
    inner: Arc<dyn Frontend>,
    trace: Mutex<Option<Trace>>,
}

impl Traced {
    /// Records what this one does.
    pub fn new(inner: Arc<dyn Frontend>) -> Arc<Traced> {
        Arc::new(Traced { inner, trace: Mutex::default() })
    }

    /// What the last build did; none if there was none.
    pub fn trace(&self) -> Option<Trace> {
        lock(&self.trace).clone()
    }
}

#[async_trait]
impl Frontend for Traced {
    fn identity(&self) -> PluginIdentity {
        self.inner.identity()
    }

    async fn build(&self, host: FrontendHost) -> Result<(), Failure> {
        let recorder = Arc::new(Recorder { inner: host, calls: Mutex::default() });
        let result = self.inner.build(recorder.host()).await;
        *lock(&self.trace) = Some(Trace {
            version: VERSION,
            frontend: self.inner.identity(),
            calls: std::mem::take(&mut *lock(&recorder.calls)),
            ended: Some(result.clone()),
        });
        result
    }

    fn describes(&self) -> bool {
        self.inner.describes()
    }

    async fn describe(&self, host: FrontendHost, query: Query) -> Result<Description, Failure> {
        self.inner.describe(host, query).await
    }
}

struct Recorder {
    inner: FrontendHost,
    calls: Mutex<Vec<Call>>,
}

impl Recorder {
    fn host(self: &Arc<Self>) -> FrontendHost {
        FrontendHost {
            graph: Arc::clone(self) as _,
            inspect: Arc::clone(self) as _,
            request: Arc::clone(self) as _,
            diagnostics: Arc::clone(self) as _,
            results: Arc::clone(self) as _,
            nested: Arc::clone(self) as _,
            log: Arc::clone(self) as _,
        }
    }

    fn note<T: Serialize>(&self, call: &str, args: Json, answer: T) -> T {
        let call = Call { call: call.to_owned(), args, answer: value(&answer) };
        lock(&self.calls).push(call);
        answer
    }
}

impl GraphCap for Recorder {
    fn insert(&self, op: Op, inputs: Vec<Edge>) -> Result<Vec<Edge>, Failure> {
        let args = json!([op, inputs]);
        self.note("graph.insert", args, self.inner.graph.insert(op, inputs))
    }

    fn annotate(&self, at: Edge, meta: NodeMeta) -> Result<(), Failure> {
        let args = json!([at, meta]);
        self.note("graph.annotate", args, self.inner.graph.annotate(at, meta))
    }

    fn ignore_cache(&self, at: Edge) -> Result<(), Failure> {
        self.note("graph.ignore-cache", json!([at]), self.inner.graph.ignore_cache(at))
    }

    fn same_work(&self, at: Edge, other: Edge) -> Result<bool, Failure> {
        let answer = self.inner.graph.same_work(at, other);
        self.note("graph.same-work", json!([at, other]), answer)
    }
}

#[async_trait]
impl InspectCap for Recorder {
    async fn resolve_images(&self, requests: Vec<ImageRequest>) -> Vec<Result<ImageInfo, Failure>> {
        let args = json!([requests]);
        self.note("inspect.resolve-images", args, self.inner.inspect.resolve_images(requests).await)
    }

    async fn resolve_sources(
        &self,
        requests: Vec<SourceRequest>,
    ) -> Vec<Result<SourceInfo, Failure>> {
        let args = json!([requests]);
        let answer = self.inner.inspect.resolve_sources(requests).await;
        self.note("inspect.resolve-sources", args, answer)
    }

    async fn read_file(
        &self,
        at: Edge,
        path: String,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, Failure> {
        let args = json!([at, path, offset, length]);
        let answer = self.inner.inspect.read_file(at, path, offset, length).await;
        self.note("inspect.read-file", args, answer)
    }

    async fn stat(&self, at: Edge, path: String) -> Result<Option<Entry>, Failure> {
        let args = json!([at, path]);
        self.note("inspect.stat", args, self.inner.inspect.stat(at, path).await)
    }

    async fn read_dir(&self, at: Edge, query: ReadDir) -> Result<Vec<Entry>, Failure> {
        let args = json!([at, query]);
        self.note("inspect.read-dir", args, self.inner.inspect.read_dir(at, query).await)
    }

    fn start(&self, at: Vec<Edge>) {
        let args = json!([at]);
        self.inner.inspect.start(at);
        self.note("inspect.start", args, ());
    }

    async fn evaluate(&self, at: Vec<Edge>) -> Vec<Result<(), Failure>> {
        let args = json!([at]);
        self.note("inspect.evaluate", args, self.inner.inspect.evaluate(at).await)
    }

    async fn outcome_of(&self, at: Edge) -> Result<Arc<Outcome>, Failure> {
        let answer = self.inner.inspect.outcome_of(at).await;
        self.note("inspect.outcome-of", json!([at]), answer)
    }
}

#[async_trait]
impl RequestCap for Recorder {
    fn definition(&self) -> Result<DefinitionFile, Failure> {
        self.note("request.definition", json!([]), self.inner.request.definition())
    }

    async fn opt(&self, name: String) -> Option<String> {
        let args = json!([name]);
        self.note("request.opt", args, self.inner.request.opt(name).await)
    }

    async fn opts(&self, prefix: String) -> Attrs {
        let args = json!([prefix]);
        self.note("request.opts", args, self.inner.request.opts(prefix).await)
    }

    fn targets(&self) -> Vec<String> {
        self.note("request.targets", json!([]), self.inner.request.targets())
    }

    fn build_platform(&self) -> Platform {
        self.note("request.build-platform", json!([]), self.inner.request.build_platform())
    }

    fn target_platforms(&self) -> Vec<Platform> {
        self.note("request.target-platforms", json!([]), self.inner.request.target_platforms())
    }

    fn context(
        &self,
        name: String,
        platform: Option<Platform>,
    ) -> Result<Option<NamedContext>, Failure> {
        let args = json!([name, platform]);
        self.note("request.context", args, self.inner.request.context(name, platform))
    }

    fn context_names(&self) -> Vec<String> {
        self.note("request.context-names", json!([]), self.inner.request.context_names())
    }

    fn has_secret(&self, id: String) -> bool {
        let args = json!([id]);
        self.note("request.has-secret", args, self.inner.request.has_secret(id))
    }

    fn has_ssh(&self, id: String) -> bool {
        let args = json!([id]);
        self.note("request.has-ssh", args, self.inner.request.has_ssh(id))
    }

    fn epoch(&self) -> Option<u64> {
        self.note("request.epoch", json!([]), self.inner.request.epoch())
    }

    fn supports(&self, feature: String) -> bool {
        let args = json!([feature]);
        self.note("request.supports", args, self.inner.request.supports(feature))
    }
}

impl DiagnosticsCap for Recorder {
    fn add_source(&self, source: SourceFile) -> Result<u32, Failure> {
        let args = json!([source]);
        self.note("diagnostics.add-source", args, self.inner.diagnostics.add_source(source))
    }

    fn map_source(&self, generated: Span, original: Span) -> Result<(), Failure> {
        let answer = self.inner.diagnostics.map_source(generated, original);
        self.note("diagnostics.map-source", json!([generated, original]), answer)
    }

    fn report(&self, diagnostic: Diagnostic) -> Result<(), Failure> {
        let args = json!([diagnostic]);
        self.note("diagnostics.report", args, self.inner.diagnostics.report(diagnostic))
    }
}

#[async_trait]
impl ResultsCap for Recorder {
    fn image(&self, image: ImageResult) -> Result<(), Failure> {
        let args = json!([image]);
        self.note("results.image", args, self.inner.results.image(image))
    }

    fn files(&self, files: FilesResult) -> Result<(), Failure> {
        let args = json!([files]);
        self.note("results.files", args, self.inner.results.files(files))
    }

    fn require(&self, at: Edge) -> Result<(), Failure> {
        self.note("results.require", json!([at]), self.inner.results.require(at))
    }

    fn attest(&self, kind: String, statement: FilesResult) -> Result<(), Failure> {
        let args = json!([kind, statement]);
        self.note("results.attest", args, self.inner.results.attest(kind, statement))
    }

    fn effect(&self, name: String, at: Edge) -> Result<(), Failure> {
        let args = json!([name, at]);
        self.note("results.effect", args, self.inner.results.effect(name, at))
    }

    fn fail_after(&self, at: Edge) -> Result<(), Failure> {
        self.note("results.fail-after", json!([at]), self.inner.results.fail_after(at))
    }

    async fn publish(&self, names: Vec<String>) -> Result<(), Failure> {
        let args = json!([names]);
        self.note("results.publish", args, self.inner.results.publish(names).await)
    }
}

#[async_trait]
impl NestedCap for Recorder {
    async fn build(&self, requests: Vec<NestedBuild>) -> Vec<Result<NestedResult, Failure>> {
        let args = json!([requests]);
        self.note("nested.build", args, self.inner.nested.build(requests).await)
    }
}

impl LogCap for Recorder {
    fn log(&self, severity: Severity, text: String) {
        let args = json!([severity, text]);
        self.inner.log.log(severity, text);
        self.note("log.log", args, ());
    }
}
