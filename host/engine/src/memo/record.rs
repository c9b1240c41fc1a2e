//! The first run: capabilities that pass every call on and write it down.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use wbuild_api::extension::{
    DefinitionFile, DiagnosticsCap, Entry, FilesResult, FrontendHost, GraphCap, ImageInfo,
    ImageRequest, ImageResult, InspectCap, NamedContext, Outcome, ReadDir, RequestCap, ResultsCap,
    SourceInfo, SourceRequest,
};
use wbuild_graph::op::Security;
use wbuild_graph::{Attrs, Diagnostic, Edge, Failure, NodeMeta, Op, Platform, SourceFile, Span};

use crate::job::Job;
use crate::nested::{self, Callee, Caller, FindFrontend};

use super::trace::{self, Call, Question, Told, Trace};

/// Writes down what passes through it.
pub(super) struct Recorder {
    inner: FrontendHost,
    job: Arc<Job>,
    /// None once something happened that cannot be repeated.
    trace: Mutex<Option<Trace>>,
    /// How many calls there were, also where they cannot be repeated.
    calls: AtomicU64,
}

impl Recorder {
    pub(super) fn new(job: &Arc<Job>, inner: FrontendHost) -> Arc<Recorder> {
        Arc::new(Recorder {
            inner,
            job: Arc::clone(job),
            trace: Mutex::new(Some(Trace::default())),
            calls: AtomicU64::new(0),
        })
    }

    /// The capabilities to hand to the frontend.
    pub(super) fn host(self: &Arc<Self>) -> FrontendHost {
        let caller = Caller {
            graph: Arc::clone(self) as Arc<dyn GraphCap>,
            inspect: Arc::clone(self) as Arc<dyn InspectCap>,
            request: Arc::clone(self) as Arc<dyn RequestCap>,
            diagnostics: Arc::clone(self) as Arc<dyn DiagnosticsCap>,
            results: Arc::clone(self) as Arc<dyn ResultsCap>,
        };
        FrontendHost {
            graph: Arc::clone(&caller.graph),
            inspect: Arc::clone(&caller.inspect),
            request: Arc::clone(&caller.request),
            diagnostics: Arc::clone(&caller.diagnostics),
            results: Arc::clone(&caller.results),
            nested: nested::over(&self.job, caller, Arc::clone(self) as Arc<dyn FindFrontend>),
            // What a plugin says besides is not repeated.
            log: Arc::clone(&self.inner.log),
        }
    }

    /// What was written down; none if it cannot be repeated.
    pub(super) fn finish(&self) -> Option<Trace> {
        let trace = self.trace.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        // A question that was given up has no answer that could be compared.
        let answered = !trace.calls.iter().any(|call| matches!(call, Call::Asked(_, None)));
        answered.then_some(trace)
    }

    /// How many calls there were.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn with(&self, write: impl FnOnce(&mut Option<Trace>)) {
        write(&mut self.trace.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Something is asked, and has its place in the trace from now on: questions that are answered
    /// beside each other are written down in the order in which they were asked.
    fn asks(&self, question: Question) -> Asked {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut place = 0;
        self.with(|trace| {
            if let Some(written) = trace {
                place = written.calls.len();
                if !written.push(Call::Asked(question, None)) {
                    *trace = None;
                }
            }
        });
        Asked(place)
    }

    fn told(&self, asked: Asked, told: Told) {
        self.with(|trace| match (told, trace) {
            (Some(answer), Some(trace)) => {
                if let Some(Call::Asked(_, place)) = trace.calls.get_mut(asked.0) {
                    *place = Some(answer);
                }
            }
            (_, trace) => *trace = None,
        });
    }

    fn asked(&self, question: Question, told: Told) {
        let asked = self.asks(question);
        self.told(asked, told);
    }

    /// Something was done. What failed is not repeated: it may have been done in part.
    fn did<T>(
        &self,
        result: Result<T, Failure>,
        call: impl FnOnce() -> Call,
    ) -> Result<T, Failure> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.with(|trace| match (&result, trace) {
            (Ok(_), trace) => {
                if trace.as_mut().is_some_and(|written| !written.push(call())) {
                    *trace = None;
                }
            }
            (Err(_), trace) => *trace = None,
        });
        result
    }
}

/// Which components are called is asked, too.
#[async_trait]
impl FindFrontend for Recorder {
    async fn find(&self, name: &str) -> Result<Callee, Failure> {
        let asked = self.asks(Question::Frontend(name.to_owned()));
        let answer = self.job.find(name).await.map(|callee| callee.frontend);
        self.told(asked, trace::frontend(&answer));
        Ok(Callee { frontend: answer?, notes: Vec::new() })
    }
}

/// The place of a question in the trace.
struct Asked(usize);

impl GraphCap for Recorder {
    fn insert(&self, op: Op, inputs: Vec<Edge>) -> Result<Vec<Edge>, Failure> {
        if matches!(&op, Op::Exec(exec) if exec.security == Security::Client) {
            // It is to run in every build, and may do anything: what is asked behind it, too.
            self.with(|trace| *trace = None);
        }
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
        let asked = self.asks(Question::ResolveImages(requests.clone()));
        let answers = self.inner.inspect.resolve_images(requests).await;
        self.told(asked, trace::images(&answers));
        answers
    }

    async fn resolve_sources(
        &self,
        requests: Vec<SourceRequest>,
    ) -> Vec<Result<SourceInfo, Failure>> {
        let asked = self.asks(Question::ResolveSources(requests.clone()));
        let answers = self.inner.inspect.resolve_sources(requests).await;
        self.told(asked, trace::sources(&answers));
        answers
    }

    async fn read_file(
        &self,
        at: Edge,
        path: String,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, Failure> {
        let asked = self.asks(Question::ReadFile(at, path.clone(), offset, length));
        let answer = self.inner.inspect.read_file(at, path, offset, length).await;
        self.told(asked, trace::bytes(&answer));
        answer
    }

    async fn stat(&self, at: Edge, path: String) -> Result<Option<Entry>, Failure> {
        let asked = self.asks(Question::Stat(at, path.clone()));
        let answer = self.inner.inspect.stat(at, path).await;
        self.told(asked, trace::result(answer.as_ref()));
        answer
    }

    async fn read_dir(&self, at: Edge, query: ReadDir) -> Result<Vec<Entry>, Failure> {
        let asked = self.asks(Question::ReadDir(at, query.clone()));
        let answer = self.inner.inspect.read_dir(at, query).await;
        self.told(asked, trace::result(answer.as_ref()));
        answer
    }

    fn start(&self, at: Vec<Edge>) {
        // A hint: what it begins is asked for later, or not needed.
        self.inner.inspect.start(at);
    }

    async fn evaluate(&self, at: Vec<Edge>) -> Vec<Result<(), Failure>> {
        let asked = self.asks(Question::Evaluate(at.clone()));
        let answers = self.inner.inspect.evaluate(at).await;
        self.told(asked, trace::solved(&answers));
        answers
    }

    async fn outcome_of(&self, at: Edge) -> Result<Arc<Outcome>, Failure> {
        let asked = self.asks(Question::OutcomeOf(at));
        let answer = self.inner.inspect.outcome_of(at).await;
        self.told(asked, trace::result(answer.as_ref().map(Arc::as_ref)));
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
