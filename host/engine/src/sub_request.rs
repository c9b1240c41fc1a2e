//! Questions about a definition: the frontend answers them and nothing is built.
//!
//! A frontend that is asked has the capabilities of a build with two exceptions: of the graph it may
//! look at sources of files only (contexts, with their ignore files), so that no step runs and no
//! layer is fetched; and what it yields as results is dropped.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use wbuild_api::describe::{DescribeReport, Description, Query};
use wbuild_api::event::{BuildError, BuildStats, EventSink};
use wbuild_api::extension::{
    Entry, FilesResult, FrontendHost, ImageInfo, ImageRequest, ImageResult, InspectCap, Outcome,
    ReadDir, ResultsCap, SourceInfo, SourceRequest,
};
use wbuild_api::request::BuildRequest;
use wbuild_api::session::Session;
use wbuild_graph::op::SourceOp;
use wbuild_graph::{Edge, Failure, FailureKind, Op};

use crate::build::Served;
use crate::frontend_host::{evaluate_allowed, frontend_host};
use crate::job::Job;
use crate::nested::{self, Caller};
use crate::{Engine, Plugins, inputs};

impl Engine {
    /// Asks the frontend about a definition. Of the request all that concerns what is built and not
    /// where it goes counts; outputs are ignored. Cancelling is as of [`Engine::build`].
    ///
    /// # Errors
    ///
    /// `Unsupported` if the frontend answers no such question; else what it fails with.
    pub async fn describe(
        &self,
        request: BuildRequest,
        query: Query,
        session: Arc<dyn Session>,
        plugins: Plugins,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<DescribeReport, Box<BuildError>> {
        let work = async |job: &Arc<Job>, stats: &mut BuildStats| {
            self.ask(job, &plugins, query, stats).await
        };
        let served = self.serve(request, session, &plugins, events, cancel, work).await?;
        let Served { answer: description, sources, stats } = served;
        Ok(DescribeReport { description, sources, stats })
    }

    async fn ask(
        &self,
        job: &Arc<Job>,
        plugins: &Plugins,
        query: Query,
        stats: &mut BuildStats,
    ) -> Result<Description, Failure> {
        let began = Instant::now();
        job.worker().explain.keep_nothing();
        let frontend = inputs::settle(job, &plugins.frontend).await?;
        let all = frontend_host(job, &frontend.identity().name);
        let inspect: Arc<dyn InspectCap> =
            Arc::new(ContextsOnly { job: Arc::clone(job), all: all.inspect });
        let caller = Caller {
            graph: Arc::clone(&all.graph),
            inspect: Arc::clone(&inspect),
            request: Arc::clone(&all.request),
            diagnostics: Arc::clone(&all.diagnostics),
            results: Arc::new(Dropped),
        };
        // Others may be called; they may look at no more than this one.
        let results = Arc::clone(&caller.results);
        let nested = nested::over(job, caller, Arc::<Job>::clone(job));
        let host = FrontendHost { inspect, nested, results, ..all };
        let description = frontend.describe(host, query).await?;
        stats.frontend_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Configs of images and digests of files serve the next build.
        self.finish(job).await?;
        Ok(description)
    }
}

/// Looks at nothing that a step makes.
struct ContextsOnly {
    job: Arc<Job>,
    all: Arc<dyn InspectCap>,
}

impl ContextsOnly {
    fn check(&self, at: Edge) -> Result<(), Failure> {
        let definition = self.job.definition();
        definition.check_edge(at)?;
        let vertex = definition.vertex(at.node);
        let what = match &vertex.op {
            Op::Source(SourceOp::Image { .. }) => "the files of an image",
            Op::Source(_) if vertex.inputs.is_empty() => return Ok(()),
            _ => "the result of a step",
        };
        let message = format!("{what} cannot be looked at without building");
        Err(Failure::new(FailureKind::Denied, message)
            .hint("a frontend that is asked about a definition may look at contexts only"))
    }
}

#[async_trait]
impl InspectCap for ContextsOnly {
    async fn resolve_images(&self, requests: Vec<ImageRequest>) -> Vec<Result<ImageInfo, Failure>> {
        self.all.resolve_images(requests).await
    }

    async fn resolve_sources(
        &self,
        requests: Vec<SourceRequest>,
    ) -> Vec<Result<SourceInfo, Failure>> {
        self.all.resolve_sources(requests).await
    }

    async fn read_file(
        &self,
        at: Edge,
        path: String,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, Failure> {
        self.check(at)?;
        self.all.read_file(at, path, offset, length).await
    }

    async fn stat(&self, at: Edge, path: String) -> Result<Option<Entry>, Failure> {
        self.check(at)?;
        self.all.stat(at, path).await
    }

    async fn read_dir(&self, at: Edge, query: ReadDir) -> Result<Vec<Entry>, Failure> {
        self.check(at)?;
        self.all.read_dir(at, query).await
    }

    /// A hint: what may not be looked at need not be begun.
    fn start(&self, at: Vec<Edge>) {
        self.all.start(at.into_iter().filter(|edge| self.check(*edge).is_ok()).collect());
    }

    async fn evaluate(&self, at: Vec<Edge>) -> Vec<Result<(), Failure>> {
        evaluate_allowed(&*self.all, at, |edge| self.check(edge)).await
    }

    async fn outcome_of(&self, at: Edge) -> Result<Arc<Outcome>, Failure> {
        self.check(at)?;
        self.all.outcome_of(at).await
    }
}

/// Takes results and forgets them, so that a frontend can describe by going through a build.
struct Dropped;

#[async_trait]
impl ResultsCap for Dropped {
    fn image(&self, _: ImageResult) -> Result<(), Failure> {
        Ok(())
    }

    fn files(&self, _: FilesResult) -> Result<(), Failure> {
        Ok(())
    }

    fn require(&self, _: Edge) -> Result<(), Failure> {
        Ok(())
    }

    fn attest(&self, _: String, _: FilesResult) -> Result<(), Failure> {
        Ok(())
    }

    fn effect(&self, _: String, _: Edge) -> Result<(), Failure> {
        Ok(())
    }

    fn fail_after(&self, _: Edge) -> Result<(), Failure> {
        Ok(())
    }

    async fn publish(&self, _: Vec<String>) -> Result<(), Failure> {
        Err(Failure::new(FailureKind::Denied, "nothing can be published without building"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compiles only if callers may run builds and questions as tasks of their own.
    #[expect(dead_code, reason = "it is enough that it compiles")]
    fn can_be_spawned(
        engine: &'static Engine,
        request: BuildRequest,
        session: Arc<dyn Session>,
        plugins: Plugins,
        events: Arc<dyn EventSink>,
    ) {
        fn sendable(_: impl Send) {}
        let cancel = CancellationToken::new();
        let clones = (request.clone(), session.clone(), plugins.clone(), events.clone());
        sendable(engine.build(request, session, plugins, events, cancel.clone()));
        let (request, session, plugins, events) = clones;
        sendable(engine.describe(request, Query::Targets, session, plugins, events, cancel));
    }
}
