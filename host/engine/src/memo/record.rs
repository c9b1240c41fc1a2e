//! The first run: capabilities that pass every call on and write it down.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use wbuild_api::extension::{
    DefinitionFile, DiagnosticsCap, Entry, FilesResult, FrontendHost, GraphCap, ImageInfo,
    ImageRequest, ImageResult, InspectCap, NamedContext, Outcome, ReadDir, RequestCap, ResultsCap,
    SourceInfo, SourceRequest,
};
use wbuild_graph::{Attrs, Diagnostic, Edge, Failure, NodeMeta, Op, Platform, SourceFile, Span};

use super::trace::{self, Call, Question, Told, Trace};

/// Writes down what passes through it.
pub(super) struct Recorder {
    inner: FrontendHost,
    /// None once something happened that cannot be repeated.
    trace: Mutex<Option<Trace>>,
}

impl Recorder {
    pub(super) fn new(inner: FrontendHost) -> Arc<Recorder> {
        Arc::new(Recorder { inner, trace: Mutex::new(Some(Trace::default())) })
    }

    /// The capabilities to hand to the frontend.
    pub(super) fn host(self: &Arc<Self>) -> FrontendHost {
        FrontendHost {
            graph: Arc::clone(self) as Arc<dyn GraphCap>,
            inspect: Arc::clone(self) as Arc<dyn InspectCap>,
            request: Arc::clone(self) as Arc<dyn RequestCap>,
            diagnostics: Arc::clone(self) as Arc<dyn DiagnosticsCap>,
            results: Arc::clone(self) as Arc<dyn ResultsCap>,
            // What a plugin says besides is not repeated.
            log: Arc::clone(&self.inner.log),
        }
    }

    /// What was written down; none if it cannot be repeated.
    pub(super) fn finish(&self) -> Option<Trace> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn with(&self, write: impl FnOnce(&mut Option<Trace>)) {
        write(&mut self.trace.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn asked(&self, question: Question, told: Told) {
        self.with(|trace| match told {
            Some(answer) => {
                if let Some(trace) = trace {
                    trace.calls.push(Call::Asked(question, answer));
                }
            }
            None => *trace = None,
        });
    }

    /// Something was done. What failed is not repeated: it may have been done in part.
    fn did<T>(
        &self,
        result: Result<T, Failure>,
        call: impl FnOnce() -> Call,
    ) -> Result<T, Failure> {
        self.with(|trace| match (&result, trace) {
            (Ok(_), Some(trace)) => trace.calls.push(call()),
            (Ok(_), None) => {}
            (Err(_), trace) => *trace = None,
        });
        result
    }
}

impl GraphCap for Recorder {
    fn insert(&self, op: Op, inputs: Vec<Edge>) -> Result<Vec<Edge>, Failure> {
        let call = Call::Insert(op.clone(), inputs.clone());
        self.did(self.inner.graph.insert(op, inputs), || call)
    }

    fn annotate(&self, at: Edge, meta: NodeMeta) -> Result<(), Failure> {
        let call = Call::Annotate(at, meta.clone());
        self.did(self.inner.graph.annotate(at, meta), || call)
    }

    fn ignore_cache(&self, at: Edge) -> Result<(), Failure> {
        self.did(self.inner.graph.ignore_cache(at), || Call::IgnoreCache(at))
    }

    fn same_work(&self, at: Edge, other: Edge) -> Result<bool, Failure> {
        let answer = self.inner.graph.same_work(at, other);
        self.asked(Question::SameWork(at, other), trace::result(answer.as_ref()));
        answer
    }
}

#[async_trait]
impl InspectCap for Recorder {
    async fn resolve_images(&self, requests: Vec<ImageRequest>) -> Vec<Result<ImageInfo, Failure>> {
        let answers = self.inner.inspect.resolve_images(requests.clone()).await;
        self.asked(Question::ResolveImages(requests), trace::images(&answers));
        answers
    }

    async fn resolve_sources(
        &self,
        requests: Vec<SourceRequest>,
    ) -> Vec<Result<SourceInfo, Failure>> {
        let answers = self.inner.inspect.resolve_sources(requests.clone()).await;
        self.asked(Question::ResolveSources(requests), trace::sources(&answers));
        answers
    }

    async fn read_file(
        &self,
        at: Edge,
        path: String,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, Failure> {
        let answer = self.inner.inspect.read_file(at, path.clone(), offset, length).await;
        self.asked(Question::ReadFile(at, path, offset, length), trace::bytes(&answer));
        answer
    }

    async fn stat(&self, at: Edge, path: String) -> Result<Option<Entry>, Failure> {
        let answer = self.inner.inspect.stat(at, path.clone()).await;
        self.asked(Question::Stat(at, path), trace::result(answer.as_ref()));
        answer
    }

    async fn read_dir(&self, at: Edge, query: ReadDir) -> Result<Vec<Entry>, Failure> {
        let answer = self.inner.inspect.read_dir(at, query.clone()).await;
        self.asked(Question::ReadDir(at, query), trace::result(answer.as_ref()));
        answer
    }

    fn start(&self, at: Vec<Edge>) {
        // A hint: what it begins is asked for later, or not needed.
        self.inner.inspect.start(at);
    }

    async fn evaluate(&self, at: Vec<Edge>) -> Vec<Result<(), Failure>> {
        let answers = self.inner.inspect.evaluate(at.clone()).await;
        self.asked(Question::Evaluate(at), trace::solved(&answers));
        answers
    }

    async fn outcome_of(&self, at: Edge) -> Result<Arc<Outcome>, Failure> {
        let answer = self.inner.inspect.outcome_of(at).await;
        let told = trace::result(answer.as_ref().map(Arc::as_ref));
        self.asked(Question::OutcomeOf(at), told);
        answer
    }
}

impl Recorder {
    fn fact<T: serde::Serialize>(&self, question: Question, answer: T) -> T {
        self.asked(question, trace::plain(&answer));
        answer
    }
}

#[async_trait]
impl RequestCap for Recorder {
    fn definition(&self) -> Result<DefinitionFile, Failure> {
        let answer = self.inner.request.definition();
        self.asked(Question::Definition, trace::definition(&answer));
        answer
    }

    async fn opt(&self, name: String) -> Option<String> {
        let answer = self.inner.request.opt(name.clone()).await;
        self.fact(Question::Opt(name), answer)
    }

    async fn opts(&self, prefix: String) -> Attrs {
        let answer = self.inner.request.opts(prefix.clone()).await;
        self.fact(Question::Opts(prefix), answer)
    }

    fn targets(&self) -> Vec<String> {
        self.fact(Question::Targets, self.inner.request.targets())
    }

    fn build_platform(&self) -> Platform {
        self.fact(Question::BuildPlatform, self.inner.request.build_platform())
    }

    fn target_platforms(&self) -> Vec<Platform> {
        self.fact(Question::TargetPlatforms, self.inner.request.target_platforms())
    }

    fn context(
        &self,
        name: String,
        platform: Option<Platform>,
    ) -> Result<Option<NamedContext>, Failure> {
        let answer = self.inner.request.context(name.clone(), platform.clone());
        self.asked(Question::Context(name, platform), trace::result(answer.as_ref()));
        answer
    }

    fn context_names(&self) -> Vec<String> {
        self.fact(Question::ContextNames, self.inner.request.context_names())
    }

    fn has_secret(&self, id: String) -> bool {
        let answer = self.inner.request.has_secret(id.clone());
        self.fact(Question::HasSecret(id), answer)
    }

    fn has_ssh(&self, id: String) -> bool {
        let answer = self.inner.request.has_ssh(id.clone());
        self.fact(Question::HasSsh(id), answer)
    }

    fn epoch(&self) -> Option<u64> {
        self.fact(Question::Epoch, self.inner.request.epoch())
    }

    fn supports(&self, feature: String) -> bool {
        let answer = self.inner.request.supports(feature.clone());
        self.fact(Question::Supports(feature), answer)
    }
}

impl DiagnosticsCap for Recorder {
    fn add_source(&self, source: SourceFile) -> Result<u32, Failure> {
        let call = Call::AddSource(source.clone().into());
        self.did(self.inner.diagnostics.add_source(source), || call)
    }

    fn map_source(&self, generated: Span, original: Span) -> Result<(), Failure> {
        let result = self.inner.diagnostics.map_source(generated, original);
        self.did(result, || Call::MapSource(generated, original))
    }

    fn report(&self, diagnostic: Diagnostic) -> Result<(), Failure> {
        let call = Call::Report(diagnostic.clone());
        self.did(self.inner.diagnostics.report(diagnostic), || call)
    }
}

#[async_trait]
impl ResultsCap for Recorder {
    fn image(&self, image: ImageResult) -> Result<(), Failure> {
        let call = Call::Image(image.clone());
        self.did(self.inner.results.image(image), || call)
    }

    fn files(&self, files: FilesResult) -> Result<(), Failure> {
        let call = Call::Files(files.clone());
        self.did(self.inner.results.files(files), || call)
    }

    fn require(&self, at: Edge) -> Result<(), Failure> {
        self.did(self.inner.results.require(at), || Call::Require(at))
    }

    fn effect(&self, name: String, at: Edge) -> Result<(), Failure> {
        let call = Call::Effect(name.clone(), at);
        self.did(self.inner.results.effect(name, at), || call)
    }

    fn fail_after(&self, at: Edge) -> Result<(), Failure> {
        self.did(self.inner.results.fail_after(at), || Call::FailAfter(at))
    }

    // The rest is done now: it is never repeated from a trace.

    fn attest(&self, kind: String, statement: FilesResult) -> Result<(), Failure> {
        self.with(|trace| *trace = None);
        self.inner.results.attest(kind, statement)
    }

    async fn publish(&self, names: Vec<String>) -> Result<(), Failure> {
        self.with(|trace| *trace = None);
        self.inner.results.publish(names).await
    }
}
