//! The engine: joins the solver to sources, ops, the store, exporters and plugins. What the command
//! line, an embedding program and, later, a daemon call.
//!
//! ```text
//! build ─► frontend (plugin) ─► job: definition ─► solver ─► worker ─► source / ops ─► store
//!                 ▲                                  │
//!                 └── inspect: parts solved on the way          export ◄── results of the frontend
//! ```
//!
//! Invariants:
//!
//! - Everything a frontend sees or does goes through the capability objects of `frontend_host`.
//! - Nothing is printed; what happens is an [`event::Event`].
//! - A build that returns `Ok` is sealed: it survives a power cut.
//! - Cancelling at any await leaves no process, mount or half-written record.

mod build;
mod cache;
mod cancel;
mod captured;
pub mod check;
pub mod explain;
mod export;
mod foreign;
mod frontend_host;
pub mod imagetools;
mod inputs;
mod inspect;
mod job;
mod keyed_secrets;
mod launch;
mod launchers;
mod memo;
mod narrow;
mod nested;
mod ops;
mod plan;
pub mod platforms;
mod present;
mod room;
mod runners;
mod solved;
mod source;
mod steps;
mod sub_request;
mod vcs;
mod worker;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::task::TaskTracker;
use wbuild_api::event::{Event, EventSink};
use wbuild_api::extension::{CachePlugin, Runner};
use wbuild_exec::spec::UserNamespace;
use wbuild_graph::{Failure, FailureKind};
use wbuild_store::{Limits, LockWait, OpenOptions, Policy, Store};

use crate::launchers::Launchers;
pub use crate::runners::clamp;

pub use inputs::{Choose, Chosen, Reader};
pub use nested::{Callee, FindFrontend};
pub use plan::PlanReport;
pub use wbuild_api::{describe, event, extension, request, session};
pub use wbuild_git::work_tree;
pub use wbuild_plan as plans;
pub use wbuild_store as store;

/// Through whom servers are asked, as the client for them wants it.
pub fn proxies(of_session: &session::Proxies) -> wbuild_http::Proxies {
    let session::Proxies { https, http, except } = of_session.clone();
    wbuild_http::Proxies { https, http, except }
}

/// A client that asks registries as a session says: with its credentials, mirrors, authorities and
/// proxies. Nothing is read or sent before it is used.
pub fn registry_client(session: Arc<dyn session::Session>) -> wbuild_oci::registry::Client {
    source::registry::Registries::new(session).client_for_push(Default::default())
}

/// How to open an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The state directory; made if missing.
    pub state_dir: PathBuf,
    /// Program and hidden subcommand that start the launcher (see `wbuild-exec`).
    pub launcher: (PathBuf, String),
    /// `crun`, `runc` or the path of one; none = the first that works.
    pub runtime: Option<String>,
    /// Directories to look for programs in, e.g. those of `PATH`.
    pub search: Vec<PathBuf>,
    /// What steps get where this process runs in a user namespace of its own; see
    /// `wbuild_exec::namespace`.
    pub user_namespace: Option<UserNamespace>,
    /// Look records up by their key aliases in the store; off, hits come from the cache backend
    /// alone.
    pub record_aliases: bool,
    /// Wait for another build that holds the state directory; off, fail at once.
    pub wait: bool,
    /// Command line, for the message another build shows while it waits for this one.
    pub owner: String,
    /// Identity of this boot; none = the machine's. Tests of power cuts set it.
    pub boot_id: Option<String>,
    /// What may be kept on the disk; brought about after each build, and during one where room is
    /// short.
    pub limits: Limits,
    /// What may be kept of some of it; heeded after builds, now and then.
    pub policies: Vec<Policy>,
}

/// The plugins of one build.
#[derive(Clone)]
pub struct Plugins {
    /// Reads the definition.
    pub frontend: Reader,
    /// Asked in order; the lowest offer wins.
    pub runners: Vec<Arc<dyn Runner>>,
    /// Asked after the store's own records.
    pub caches: Vec<Arc<dyn CachePlugin>>,
    /// Read and write the caches elsewhere of the request, by the backends' names there.
    pub remotes: BTreeMap<String, Arc<dyn CachePlugin>>,
    /// What the frontend, and those that it calls, may call.
    pub nested: Arc<dyn FindFrontend>,
}

/// An open engine.
pub struct Engine {
    store: Store,
    launchers: Arc<Launchers>,
    limits: Limits,
    policies: Vec<Policy>,
}

impl Engine {
    /// Opens the state directory, waiting for another build if need be.
    ///
    /// # Errors
    ///
    /// What opening the store fails with; `Unavailable` if another build holds it and `wait` is off.
    pub async fn open(
        options: EngineOptions,
        events: Arc<dyn EventSink>,
    ) -> Result<Engine, Failure> {
        let EngineOptions {
            state_dir,
            launcher,
            runtime,
            search,
            user_namespace,
            record_aliases,
            wait,
            owner,
            boot_id,
            limits,
            policies,
        } = options;
        let wait = if wait {
            let mut told = false;
            LockWait::Callback(Box::new(move |holder, _| {
                if !std::mem::replace(&mut told, true) {
                    events.event(Event::Waiting { holder: holder.to_string() });
                }
                ControlFlow::Continue(())
            }))
        } else {
            LockWait::Fail
        };
        let open = OpenOptions { boot_id, owner, wait, record_aliases, ..OpenOptions::default() };
        let store = blocking(move || Store::open(state_dir, open)).await?;
        let kept = Some(store.clone());
        let launchers = Launchers::new(launcher, runtime, search, user_namespace, kept);
        Ok(Engine { store, launchers: Arc::new(launchers), limits, policies })
    }

    /// The state directory, for `du` and `prune`.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

tokio::task_local! {
    /// Counts what runs on blocking threads for the build that this task belongs to: dropping a
    /// future does not end such work at once.
    static BLOCKING: TaskTracker;
}

/// A future that belongs to the same build as the present task, for a task of its own.
fn tracked<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let tracker = BLOCKING.try_with(TaskTracker::clone).unwrap_or_default();
    BLOCKING.scope(tracker, future)
}

/// Runs `work` on a thread that may block. A panic there is a failure here.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Failure>
where
    T: Send + 'static,
    E: Into<Failure> + Send + 'static,
{
    let token = BLOCKING.try_with(TaskTracker::token).ok();
    let task = move || {
        let _token = token;
        work()
    };
    match tokio::task::spawn_blocking(task).await {
        Ok(result) => result.map_err(Into::into),
        Err(error) if error.is_cancelled() => Err(Failure::cancelled()),
        Err(error) => {
            Err(Failure::new(FailureKind::Internal, "a worker thread panicked").cause(&error))
        }
    }
}
