//! One build from request to report.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wbuild_api::event::{BuildError, BuildReport, BuildStats, Event, EventSink, ImageReport};
use wbuild_api::request::{BuildRequest, Entitlement};
use wbuild_api::session::Session;
use wbuild_graph::{Failure, FailureKind, Severity, SourceMap};
use wbuild_http::Reach;
use wbuild_solver::{Abort, Solver, Spawn};

use crate::cache::CacheLine;
use crate::cache::grants::Grants;
use crate::cache::imports::Imports;
use crate::explain::{self, Explain};
use crate::foreign::Foreign;
use crate::frontend_host::plugin_log;
use crate::job::{Job, StopBackground};
use crate::plan::yielded_nothing;
use crate::room::Room;
use crate::runners::Runners;
use crate::source::git::Repositories;
use crate::source::http::Downloads;
use crate::source::image::Images;
use crate::source::layout::Layouts;
use crate::source::local::Locals;
use crate::source::registry::Registries;
use crate::steps::Steps;
use crate::worker::{BuildWorker, Settings};
use crate::{Engine, Plugins, export, inputs, memo};

impl Engine {
    /// Builds. Cancelling `cancel` ends every step, waits until nothing of them is left, and returns
    /// a failure of kind `Cancelled`.
    ///
    /// # Errors
    ///
    /// The first failure, with the step that failed and the sources to show where.
    pub async fn build(
        &self,
        request: BuildRequest,
        session: Arc<dyn Session>,
        plugins: Plugins,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<BuildReport, Box<BuildError>> {
        let work =
            async |job: &Arc<Job>, stats: &mut BuildStats| self.run(job, &plugins, stats).await;
        let served = self.serve(request, session, &plugins, events, cancel, work).await?;
        let Served { answer: images, sources, stats } = served;
        Ok(BuildReport { images, sources, stats })
    }

    /// Does something with a job, and leaves nothing of it running, however it ends.
    pub(crate) async fn serve<T>(
        &self,
        request: BuildRequest,
        session: Arc<dyn Session>,
        plugins: &Plugins,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
        work: impl AsyncFnOnce(&Arc<Job>, &mut BuildStats) -> Result<T, Failure>,
    ) -> Result<Served<T>, Box<BuildError>> {
        let began = Instant::now();
        let steps = Arc::new(Steps::new(Arc::clone(&events)));
        let room = Arc::new(Room::new(
            self.store.clone(),
            self.limits,
            &self.policies,
            Arc::clone(&events),
        ));
        let worker = Arc::new(self.worker(&request, &session, plugins, &steps, &events, &room));
        let observer = Arc::clone(&steps) as Arc<dyn wbuild_solver::Observer>;
        let solver = Solver::new(Arc::clone(&worker), Arc::new(TokioSpawn), observer);
        let plugged = (plugins.remotes.clone(), Arc::clone(&plugins.nested));
        let job = Job::new(request, session, Arc::clone(&steps), worker, plugged, solver);
        let mut stats = BuildStats::default();
        let blocking = TaskTracker::new();
        let stop = StopBackground(&job);
        let run = crate::BLOCKING.scope(blocking.clone(), work(&job, &mut stats));
        let watch = crate::BLOCKING.scope(blocking.clone(), room.watch());
        let result = tokio::select! {
            result = run => result,
            () = watch => unreachable!("a watch has no end"),
            () = cancel.cancelled() => Err(Failure::cancelled()),
        };
        drop(stop);
        job.stop_background().await;
        job.worker().imports.stop();
        // Everything that was cut off ends before this returns, however the build ended.
        self.launchers.drained().await;
        blocking.close();
        blocking.wait().await;
        (stats.steps_run, stats.steps_cached) = steps.counts();
        stats.total_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let sources = job.texts().sources().clone();
        let cancelled = matches!(&result, Err(failure) if failure.kind == FailureKind::Cancelled);
        let served = match result {
            Ok(answer) => Ok(Served { answer, sources, stats }),
            Err(mut failure) => {
                // A place in a generated source is shown where it comes from.
                job.texts().resolve_failure(&mut failure);
                if cancelled && job.worker().explain.has_run() {
                    // A small file; what ran is a question even so.
                    job.worker().explain.keep(&steps, &sources).await;
                }
                // What did succeed is kept for the next build.
                if !cancelled && let Err(error) = self.finish(&job).await {
                    events.event(Event::PluginLog {
                        plugin: "wbuild".to_owned(),
                        severity: Severity::Warning,
                        text: format!("what succeeded could not be kept: {error}"),
                    });
                }
                let failure = room.explain(failure);
                Err(Box::new(BuildError { failure, step: steps.failed(), sources }))
            }
        };
        // Nothing of this build is held any more, so it is as old as anything of its time.
        drop(job);
        match cancelled {
            // Who ended it does not want to wait for anything else.
            true => room.close().await,
            false => room.tidy().await,
        }
        served
    }

    fn worker(
        &self,
        request: &BuildRequest,
        session: &Arc<dyn Session>,
        plugins: &Plugins,
        steps: &Arc<Steps>,
        events: &Arc<dyn EventSink>,
        room: &Arc<Room>,
    ) -> BuildWorker {
        let store = self.store.clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let log = |plugin: String| plugin_log(plugin, Arc::clone(events));
        let caches = plugins
            .caches
            .iter()
            .map(|plugin| (Arc::clone(plugin), log(plugin.identity().name)))
            .collect();
        let runners = plugins
            .runners
            .iter()
            .map(|runner| (Arc::clone(runner), log(runner.identity().name)))
            .collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let reach = match request.allow.contains(&Entitlement::NetworkPrivate) {
            true => Reach::Everything,
            false => Reach::Public,
        };
        let registries = Arc::new(Registries::new(Arc::clone(session)));
        BuildWorker {
            images: Images::new(
                store.clone(),
                Arc::clone(steps),
                Arc::clone(&registries),
                Layouts::new(&request.contexts),
                now,
                request.pull,
            ),
            downloads: Downloads::new(store.clone(), Arc::clone(session), Arc::clone(steps), reach),
            repositories: Repositories::new(
                store.clone(),
                Arc::clone(session),
                Arc::clone(steps),
                self.launchers.search.clone(),
                reach,
            ),
            locals: Locals::new(store.clone(), Arc::clone(session)),
            caches: CacheLine::new(store.clone(), caches),
            imports: Imports::new(
                store.clone(),
                Arc::clone(steps),
                Grants { store: store.clone(), session: Arc::clone(session), registries },
                &request.cache_from,
                &plugins.remotes,
                log,
                now,
            ),
            cache_mounts: request.cache_mounts.clone(),
            restored: tokio::sync::Mutex::default(),
            explain: Explain::new(store.clone(), explain::place_of(request), request.explain),
            foreign: Foreign::default(),
            runners: Runners::new(runners, self.launchers.search.clone()),
            launchers: Arc::clone(&self.launchers),
            steps: Arc::clone(steps),
            session: Arc::clone(session),
            settings: Settings {
                source_date_epoch: request.source_date_epoch,
                lend: request.outputs.iter().any(|output| output.kind.is_image()),
                now,
            },
            // Steps wait for input and output much of the time, so more of them than cores.
            exec_slots: Semaphore::new(request.max_parallelism.unwrap_or(cores.max(4) * 2).max(1)),
            io_slots: Semaphore::new(cores.max(2)),
            keyed: Mutex::default(),
            main_context: OnceLock::new(),
            unsaved: Mutex::default(),
            made: OnceLock::new(),
            room: Arc::clone(room),
            captured: Default::default(),
            store,
        }
    }

    async fn run(
        &self,
        job: &Arc<Job>,
        plugins: &Plugins,
        stats: &mut BuildStats,
    ) -> Result<Vec<ImageReport>, Failure> {
        export::check(job.request())?;
        export::reach(job.request()).await?;
        let began = Instant::now();
        job.settle_secrets().await?;
        let frontend = inputs::settle(job, &plugins.frontend).await?;
        stats.frontend_memo_hit = memo::plan(job, &frontend).await?.held;
        stats.frontend_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if job.yielded().is_empty() {
            return Err(yielded_nothing());
        }
        export::settle(job)?;
        let images = export::export(job).await?;
        self.finish(job).await?;
        Ok(images)
    }

    /// Makes what was learnt durable. Does nothing if there is nothing new.
    pub(crate) async fn finish(&self, job: &Arc<Job>) -> Result<(), Failure> {
        let worker = job.worker();
        job.saved().await;
        worker.settle().await?;
        worker.caches.flush().await;
        worker.locals.keep().await?;
        let sources = job.texts().sources().clone();
        worker.explain.keep(job.steps(), &sources).await;
        let store = self.store.clone();
        crate::blocking(move || store.seal()).await.map(|_| ())
    }
}

/// What came of a job.
pub(crate) struct Served<T> {
    pub(crate) answer: T,
    pub(crate) sources: SourceMap,
    pub(crate) stats: BuildStats,
}

/// Runs the solver's tasks on tokio.
struct TokioSpawn;

struct Handle(tokio::task::AbortHandle);

impl Abort for Handle {
    fn abort(&self) {
        self.0.abort();
    }
}

impl Spawn for TokioSpawn {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Box<dyn Abort> {
        Box::new(Handle(tokio::spawn(crate::tracked(task)).abort_handle()))
    }
}
