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
pub mod check;
pub mod explain;
mod export;
mod frontend_host;
mod inputs;
mod inspect;
mod job;
mod keyed_secrets;
mod memo;
mod ops;
mod present;
mod room;
mod runners;
mod solved;
mod source;
mod steps;
mod sub_request;
mod worker;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tokio::sync::OnceCell;
use tokio_util::task::TaskTracker;
use wbuild_api::event::{Event, EventSink};
use wbuild_api::extension::{CachePlugin, Runner};
use wbuild_exec::spec::UserNamespace;
use wbuild_exec::{Launcher, LauncherOptions, RuntimeInfo, RuntimeKind};
use wbuild_graph::{Failure, FailureKind};
use wbuild_store::{DocumentKind, Limits, LockWait, OpenOptions, Store};

pub use inputs::{Choose, Chosen, Reader};
pub use wbuild_api::{describe, event, extension, request, session};
pub use wbuild_store as store;

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
}

/// An open engine.
pub struct Engine {
    store: Store,
    launcher: Arc<LazyLauncher>,
    limits: Limits,
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
        let launcher = Arc::new(LazyLauncher {
            program: launcher,
            runtime,
            search,
            user_namespace,
            store: store.clone(),
            started: OnceCell::new(),
            resolv_conf: OnceLock::new(),
        });
        Ok(Engine { store, launcher, limits })
    }

    /// The state directory, for `du` and `prune`.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// Id of the document that keeps which runtime was found to work.
const RUNTIME_DOCUMENT: &str = "container runtime";

/// The launcher, started by the first step that runs a process.
struct LazyLauncher {
    program: (PathBuf, String),
    runtime: Option<String>,
    search: Vec<PathBuf>,
    user_namespace: Option<UserNamespace>,
    store: Store,
    started: OnceCell<Launcher>,
    resolv_conf: OnceLock<String>,
}

impl LazyLauncher {
    async fn get(&self) -> Result<&Launcher, Failure> {
        let start = async {
            Launcher::start(LauncherOptions {
                exe: self.program.0.clone(),
                subcommand: self.program.1.clone().into(),
                runtime: self.runtime().await?,
                grace: std::time::Duration::from_secs(3),
                handlers: Vec::new(),
            })
            .await
        };
        self.started.get_or_try_init(|| start).await
    }

    /// The runtime that worked before and is still the same program, else one that is tried now.
    async fn runtime(&self) -> Result<RuntimeInfo, Failure> {
        if let Some(wanted) = &self.runtime {
            return self.wanted_runtime(wanted);
        }
        let id = format!("{RUNTIME_DOCUMENT} {}", self.user_namespace.is_some());
        // What cannot be read is tried again.
        let kept = self.store.load_document(DocumentKind::Machine, &id).ok().flatten();
        let kept = kept.and_then(|data| serde_json::from_slice::<RuntimeInfo>(&data).ok());
        if let Some(runtime) = kept.filter(RuntimeInfo::is_current) {
            return Ok(runtime);
        }
        let runtime = wbuild_exec::runtime::probe(&wbuild_exec::runtime::ProbeOptions {
            search: self.search.clone(),
            exe: self.program.0.clone(),
            subcommand: self.program.1.clone().into(),
            user_namespace: self.user_namespace.clone(),
        })
        .await?;
        let data = serde_json::to_vec(&runtime)
            .map_err(|error| Failure::internal("cannot keep the runtime found").cause(&error))?;
        self.store.save_document(DocumentKind::Machine, &id, &data)?;
        Ok(runtime)
    }

    fn wanted_runtime(&self, wanted: &str) -> Result<RuntimeInfo, Failure> {
        let unknown = || {
            Failure::not_found(format!("the container runtime {wanted:?} was not found"))
                .hint("expected crun, runc, or the path of one")
        };
        if !wanted.contains('/') {
            let mut found = wbuild_exec::runtime::find(&self.search).into_iter();
            return found.find(|runtime| runtime.kind.as_str() == wanted).ok_or_else(unknown);
        }
        let path = Path::new(wanted);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kind = RuntimeKind::ALL.into_iter().find(|kind| name.contains(kind.as_str()));
        wbuild_exec::runtime::examine(kind.ok_or_else(unknown)?, path)
    }

    /// The machine's resolver configuration, read once.
    fn resolv_conf(&self) -> &str {
        self.resolv_conf
            .get_or_init(|| std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    /// Waits until nothing of any step is left.
    async fn drained(&self) {
        if let Some(launcher) = self.started.get() {
            launcher.drained().await;
        }
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
