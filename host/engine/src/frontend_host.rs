//! The capabilities of a frontend run: thin objects over the build's [`Job`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use futures_util::future::join_all;
use wbuild_api::event::{Event, EventSink};
use wbuild_api::extension::{
    DefinitionFile, DiagnosticsCap, Entry, FilesResult, FrontendHost, GraphCap, ImageInfo,
    ImageRequest, ImageResult, InspectCap, LogCap, NamedContext, Outcome, ReadDir, RequestCap,
    ResultsCap, SourceInfo, SourceRequest,
};
use wbuild_api::nodes;
use wbuild_api::request::ContextSpec;
use wbuild_api::texts::options_of;
use wbuild_api::yielded;
use wbuild_graph::op::SourceOp;
use wbuild_graph::{
    Attrs, Diagnostic, Edge, Failure, NodeMeta, Op, Platform, Severity, SourceFile, Span,
};

use crate::export;
use crate::job::Job;
use crate::nested::{self, Caller};
use crate::source::local::MAIN_CONTEXT;
use crate::vcs;

/// The most one read of a file returns, in bytes (`limits.read-bytes`).
pub(crate) const READ_LIMIT: u32 = 1 << 20;
/// The most lines a plugin may say in one build.
const LOG_LINES: u32 = 10_000;
/// The longest line.
const LOG_BYTES: usize = 8 << 10;

/// The capabilities of `job`'s frontend.
pub(crate) fn frontend_host(job: &Arc<Job>, plugin: &str) -> FrontendHost {
    let caller = Caller {
        graph: Arc::new(Graph(Arc::clone(job))),
        inspect: Arc::new(Inspect(Arc::clone(job))),
        request: Arc::new(Request(Arc::clone(job))),
        diagnostics: Arc::new(Diagnostics(Arc::clone(job))),
        results: Arc::new(Results(Arc::clone(job))),
    };
    FrontendHost {
        graph: Arc::clone(&caller.graph),
        inspect: Arc::clone(&caller.inspect),
        request: Arc::clone(&caller.request),
        diagnostics: Arc::clone(&caller.diagnostics),
        results: Arc::clone(&caller.results),
        nested: nested::over(job, caller, Arc::<Job>::clone(job)),
        log: plugin_log(plugin.to_owned(), Arc::clone(job.steps().sink())),
    }
}

struct Graph(Arc<Job>);

impl GraphCap for Graph {
    fn insert(&self, mut op: Op, inputs: Vec<Edge>) -> Result<Vec<Edge>, Failure> {
        self.0.check_granted(&op)?;
        if let Some(narrowed) = self.0.narrowed() {
            narrowed.op(&mut op)?;
        }
        if let Op::Source(SourceOp::Local(source)) = &op {
            // Here and not when it is read, so that the failure belongs to the line that asks for it.
            self.0.worker().locals.lent(&source.name)?;
        }
        self.0.settle(&mut op);
        nodes::insert(&mut self.0.definition(), op, inputs)
    }

    fn annotate(&self, at: Edge, mut meta: NodeMeta) -> Result<(), Failure> {
        self.0.texts().resolve_node(&mut meta);
        self.0.definition().annotate(at.node, meta)
    }

    fn ignore_cache(&self, at: Edge) -> Result<(), Failure> {
        self.0.definition().ignore_cache(at.node)
    }

    fn same_work(&self, at: Edge, other: Edge) -> Result<bool, Failure> {
        nodes::same_work(&mut self.0.definition(), at, other)
    }
}

struct Inspect(Arc<Job>);

#[async_trait]
impl InspectCap for Inspect {
    async fn resolve_images(&self, requests: Vec<ImageRequest>) -> Vec<Result<ImageInfo, Failure>> {
        let resolve = async |request: ImageRequest| {
            if let Some(narrowed) = self.0.narrowed() {
                narrowed.image(&request.reference, &request.attrs)?;
            }
            self.0.resolve_image(request).await
        };
        join_all(requests.into_iter().map(resolve)).await
    }

    async fn resolve_sources(
        &self,
        requests: Vec<SourceRequest>,
    ) -> Vec<Result<SourceInfo, Failure>> {
        join_all(requests.iter().map(|request| self.0.resolve_source(request))).await
    }

    async fn read_file(
        &self,
        at: Edge,
        path: String,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, Failure> {
        let length = length.min(READ_LIMIT);
        self.0.tree_of(at).await?.read(path, offset, length).await
    }

    async fn stat(&self, at: Edge, path: String) -> Result<Option<Entry>, Failure> {
        self.0.tree_of(at).await?.stat(path).await
    }

    async fn read_dir(&self, at: Edge, query: ReadDir) -> Result<Vec<Entry>, Failure> {
        self.0.tree_of(at).await?.read_dir(query).await
    }

    fn start(&self, at: Vec<Edge>) {
        for edge in at {
            self.0.start(edge);
        }
    }

    async fn evaluate(&self, at: Vec<Edge>) -> Vec<Result<(), Failure>> {
        join_all(at.into_iter().map(|edge| async move {
            let solved = self.0.solve(edge).await?;
            self.0.materialise(&solved, edge).await
        }))
        .await
    }

    async fn outcome_of(&self, at: Edge) -> Result<Arc<Outcome>, Failure> {
        let solved = self.0.solve(at).await?;
        solved
            .outcome
            .clone()
            .ok_or_else(|| Failure::invalid(format!("node {} is no exec with capture", at.node.0)))
    }
}

/// Evaluates what may be looked at; one answer each, in order.
pub(crate) async fn evaluate_allowed(
    inspect: &dyn InspectCap,
    at: Vec<Edge>,
    check: impl Fn(Edge) -> Result<(), Failure>,
) -> Vec<Result<(), Failure>> {
    let mut answers: Vec<Result<(), Failure>> = at.iter().map(|edge| check(*edge)).collect();
    let allowed: Vec<Edge> =
        at.iter().zip(&answers).filter(|(_, ok)| ok.is_ok()).map(|(edge, _)| *edge).collect();
    let evaluated = inspect.evaluate(allowed).await;
    for (slot, answer) in answers.iter_mut().filter(|slot| slot.is_ok()).zip(evaluated) {
        *slot = answer;
    }
    answers
}

struct Request(Arc<Job>);

#[async_trait]
impl RequestCap for Request {
    fn definition(&self) -> Result<DefinitionFile, Failure> {
        self.0.definition_file()
    }

    async fn opt(&self, name: String) -> Option<String> {
        self.0.option(&name).await
    }

    async fn opts(&self, prefix: String) -> Attrs {
        let mut options = self.0.options();
        if let Some(of_vcs) = prefix.strip_prefix(vcs::PREFIX) {
            let names = self.0.vcs().await.iter().filter(|(name, _)| name.starts_with(of_vcs));
            let names = names.map(|(name, value)| (format!("{}{name}", vcs::PREFIX), value));
            let new: Vec<_> = names
                .filter(|(name, _)| options.get(name).is_none())
                .map(|(name, value)| (name, value.to_owned()))
                .collect();
            options.0.extend(new);
        }
        options_of(&options, &prefix)
    }

    fn targets(&self) -> Vec<String> {
        self.0.request().targets.clone()
    }

    fn build_platform(&self) -> Platform {
        self.0.build_platform().clone()
    }

    fn target_platforms(&self) -> Vec<Platform> {
        self.0.target_platforms().to_vec()
    }

    fn context(
        &self,
        name: String,
        platform: Option<Platform>,
    ) -> Result<Option<NamedContext>, Failure> {
        let contexts = &self.0.request().contexts;
        let specific = platform.map(|platform| format!("{name}::{platform}"));
        let found = specific
            .as_deref()
            .and_then(|specific| contexts.get_key_value(specific))
            .or_else(|| contexts.get_key_value(&name));
        let Some((key, spec)) = found else {
            return Ok(None);
        };
        let mut attrs = Attrs::default();
        let root = match key == MAIN_CONTEXT {
            true => self.0.main_root()?,
            false => None,
        };
        let (kind, identifier) = match spec {
            _ if root.is_some() => ("input", key.clone()),
            ContextSpec::Local(_) | ContextSpec::Empty | ContextSpec::Archive => {
                ("local", key.clone())
            }
            ContextSpec::Image(reference) => ("image", reference.clone()),
            ContextSpec::OciLayout { reference, .. } => {
                attrs.push("store", format!("oci-layout:{key}"));
                ("oci-layout", crate::source::layout::context_reference(key, reference.as_deref()))
            }
            ContextSpec::Git(url) => ("git", url.clone()),
            ContextSpec::Http(_) if key == MAIN_CONTEXT => ("local", key.clone()),
            ContextSpec::Http(url) => ("http", url.clone()),
        };
        Ok(Some(NamedContext { kind: kind.to_owned(), identifier, root, config: None, attrs }))
    }

    fn context_names(&self) -> Vec<String> {
        self.0.request().contexts.keys().cloned().collect()
    }

    fn has_secret(&self, id: String) -> bool {
        self.0.session().has_secret(&id)
    }

    fn has_ssh(&self, id: String) -> bool {
        self.0.session().has_ssh(&id)
    }

    fn epoch(&self) -> Option<u64> {
        self.0.request().source_date_epoch
    }

    fn supports(&self, feature: String) -> bool {
        crate::job::supports(&feature)
    }
}

struct Diagnostics(Arc<Job>);

impl DiagnosticsCap for Diagnostics {
    fn add_source(&self, source: SourceFile) -> Result<u32, Failure> {
        self.0.texts().add(source)
    }

    fn map_source(&self, generated: Span, original: Span) -> Result<(), Failure> {
        self.0.texts().map(generated, original)
    }

    fn report(&self, diagnostic: Diagnostic) -> Result<(), Failure> {
        let diagnostic = self.0.texts().report(diagnostic)?;
        self.0.steps().sink().event(Event::Diagnostic { diagnostic });
        Ok(())
    }
}

struct Results(Arc<Job>);

#[async_trait]
impl ResultsCap for Results {
    fn image(&self, image: ImageResult) -> Result<(), Failure> {
        let first = &self.0.target_platforms()[0];
        self.0.yielded().image(&self.0.definition(), image, first)
    }

    fn files(&self, files: FilesResult) -> Result<(), Failure> {
        self.0.yielded().files(&self.0.definition(), files)
    }

    fn require(&self, at: Edge) -> Result<(), Failure> {
        self.0.yielded().require(&self.0.definition(), at)
    }

    fn attest(&self, kind: String, _: FilesResult) -> Result<(), Failure> {
        yielded::attest(&kind)
    }

    fn effect(&self, name: String, at: Edge) -> Result<(), Failure> {
        self.0.yielded().effect(&mut self.0.definition(), &name, at)
    }

    fn fail_after(&self, at: Edge) -> Result<(), Failure> {
        self.0.yielded().fail_after(&self.0.definition(), at)
    }

    async fn publish(&self, names: Vec<String>) -> Result<(), Failure> {
        if self.0.planning().only {
            self.0.planning().publish(names);
            return Ok(());
        }
        export::publish(&self.0, &names).await
    }
}

/// Where a plugin says things: lines for the user, with limits.
pub(crate) fn plugin_log(plugin: String, events: Arc<dyn EventSink>) -> Arc<dyn LogCap> {
    Arc::new(PluginLog { plugin, events, lines: AtomicU32::new(0) })
}

struct PluginLog {
    plugin: String,
    events: Arc<dyn EventSink>,
    lines: AtomicU32,
}

impl LogCap for PluginLog {
    fn log(&self, severity: Severity, mut text: String) {
        // Counts no further than it has to, so that it cannot begin anew.
        let next = |line| (line <= LOG_LINES).then_some(line + 1);
        let Ok(line) = self.lines.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) else {
            return;
        };
        if line == LOG_LINES {
            text = format!("more than {LOG_LINES} lines; the rest is not shown");
        }
        if text.len() > LOG_BYTES {
            let end = (0..=LOG_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        self.events.event(Event::PluginLog { plugin: self.plugin.clone(), severity, text });
    }
}
