//! Threads, session, signals and an engine for the time of one command.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
pub use wbuild::launcher;
use wbuild_api::event::{BuildError, EventSink};
use wbuild_api::request::BuildRequest;
use wbuild_api::session::Session;
use wbuild_cli::environment::{Environment, vars};
use wbuild_cli::progress::json::Json;
use wbuild_cli::progress::plain::Plain;
use wbuild_cli::progress::tty::Tty;
use wbuild_cli::progress::{Quiet, Renderer};
use wbuild_cli::report::style::Style;
use wbuild_cli::resolve::{Build, Display, Lends};
use wbuild_cli::session::LocalSession;
use wbuild_cli::terminal;
use wbuild_engine::{Engine, EngineOptions, Plugins};
use wbuild_exec::spec::UserNamespace;
use wbuild_graph::Failure;

use crate::credentials::FromDocker;
use crate::signals;

/// Work of the engine that blocks has threads of its own; these only wait and decide.
const WORKERS: usize = 2;

/// What an engine is asked with.
pub struct Job {
    pub request: BuildRequest,
    pub session: Arc<dyn Session>,
    pub plugins: Plugins,
    pub events: Arc<dyn EventSink>,
    /// Cancelled by Ctrl-C.
    pub cancel: CancellationToken,
}

/// Opens the engine and lets `work` use it.
pub fn with_engine<T>(
    build: Build,
    plugins: Plugins,
    environment: &Environment,
    user_namespace: Option<UserNamespace>,
    events: Arc<dyn EventSink>,
    work: impl AsyncFnOnce(&Engine, Job) -> Result<T, Box<BuildError>>,
) -> Result<T, Box<BuildError>> {
    let options = EngineOptions {
        state_dir: build.state_dir,
        launcher: launcher(),
        runtime: build.runtime,
        search: environment.search_path(),
        user_namespace,
        record_aliases: build.record_aliases,
        wait: build.wait,
        owner: build.owner,
        boot_id: build.boot_id,
        limits: build.kept.limits,
        policies: build.kept.policies,
    };
    let request = build.request;
    let sink = Arc::clone(&events);
    with_session(build.lends, environment, events, async move |session, cancel| {
        let events = sink;
        let engine = tokio::select! {
            opened = Engine::open(options, Arc::clone(&events)) => opened.map_err(alone)?,
            // Another build holds the state directory, and the user does not want to wait.
            () = cancel.cancelled() => return Err(alone(Failure::cancelled())),
        };
        work(&engine, Job { request, session, plugins, events, cancel }).await
    })
}

/// Threads, the client's session and signals for the time of `work`, without an engine. The token is
/// cancelled by Ctrl-C.
pub fn with_session<T>(
    lends: Lends,
    environment: &Environment,
    events: Arc<dyn EventSink>,
    work: impl AsyncFnOnce(Arc<dyn Session>, CancellationToken) -> Result<T, Box<BuildError>>,
) -> Result<T, Box<BuildError>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|error| alone(Failure::internal("cannot start threads").cause(&error)))?;
    let docker_config = lends.docker_config.clone();
    let given = environment.var(vars::AUTH_CONFIG).map_err(|fault| alone(*fault.failure))?;
    let given = given.map(str::to_owned);
    let credentials = FromDocker::new(given, docker_config, environment.search_path());
    let session: Arc<dyn Session> = Arc::new(LocalSession::new(lends, Arc::new(credentials)));
    let result = runtime.block_on(async move {
        let cancel = CancellationToken::new();
        signals::listen(cancel.clone(), Arc::clone(&events))
            .map_err(|fault| alone(*fault.failure))?;
        work(session, cancel).await
    });
    // All is cleaned up. What still blocks (waiting for a lock) ends with the process.
    runtime.shutdown_background();
    result
}

/// A failure outside of any step.
pub fn alone(failure: Failure) -> Box<BuildError> {
    Box::new(BuildError { failure, step: None, sources: Default::default() })
}

/// What draws a display.
pub fn renderer(shown: Display, style: Style) -> Box<dyn Renderer> {
    match shown {
        Display::Plain => Box::<Plain>::default(),
        Display::Json => Box::<Json>::default(),
        Display::Quiet => Box::new(Quiet),
        // The size most terminals have, for one that does not tell.
        Display::Tty => {
            Box::new(Tty::new(style, Box::new(|| terminal::window().unwrap_or((80, 24)))))
        }
    }
}

/// Says what was decided before the build began.
pub fn remark(remarks: &[String], events: &dyn EventSink) {
    for text in remarks {
        events.event(wbuild_api::event::Event::PluginLog {
            plugin: "wbuild".to_owned(),
            severity: wbuild_graph::Severity::Note,
            text: text.clone(),
        });
    }
}
