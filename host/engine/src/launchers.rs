//! The processes that run steps, and the container runtime they use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::OnceCell;
use wbuild_exec::spec::UserNamespace;
use wbuild_exec::{Handler, Launcher, LauncherOptions, RuntimeInfo, RuntimeKind};
use wbuild_graph::Failure;
use wbuild_store::{DocumentKind, Store};

/// Id of the document that keeps which runtime was found to work.
const RUNTIME_DOCUMENT: &str = "container runtime";

/// By the handlers they have.
type Started = BTreeMap<Vec<Handler>, Arc<OnceCell<Arc<Launcher>>>>;

/// The launchers, each started by the first step that needs it.
pub(crate) struct Launchers {
    program: (PathBuf, String),
    runtime: Option<String>,
    pub(crate) search: Vec<PathBuf>,
    /// The one that each step needs.
    pub(crate) user_namespace: Option<UserNamespace>,
    /// Keeps which runtime was found to work; none = it is found anew.
    store: Option<Store>,
    started: Mutex<Started>,
    resolv_conf: OnceLock<String>,
}

impl Launchers {
    /// `program` is the executable and its hidden subcommand.
    pub(crate) fn new(
        program: (PathBuf, String),
        runtime: Option<String>,
        search: Vec<PathBuf>,
        user_namespace: Option<UserNamespace>,
        store: Option<Store>,
    ) -> Launchers {
        Launchers {
            program,
            runtime,
            search,
            user_namespace,
            store,
            started: Mutex::default(),
            resolv_conf: OnceLock::new(),
        }
    }

    /// The launcher with these handlers, which a step without emulation needs none of. A launcher for
    /// each, so that no step sees the handlers of another.
    pub(crate) async fn get(&self, handlers: Vec<Handler>) -> Result<Arc<Launcher>, Failure> {
        let cell = Arc::clone(self.started().entry(handlers.clone()).or_default());
        let start = async {
            let launcher = Launcher::start(LauncherOptions {
                exe: self.program.0.clone(),
                subcommand: self.program.1.clone().into(),
                runtime: self.runtime().await?,
                grace: std::time::Duration::from_secs(3),
                handlers,
            })
            .await?;
            Ok(Arc::new(launcher))
        };
        cell.get_or_try_init(|| start).await.cloned()
    }

    fn started(&self) -> MutexGuard<'_, Started> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The runtime that worked before and is still the same program, else one that is tried now.
    async fn runtime(&self) -> Result<RuntimeInfo, Failure> {
        if let Some(wanted) = &self.runtime {
            return self.wanted_runtime(wanted);
        }
        let id = format!("{RUNTIME_DOCUMENT} {}", self.user_namespace.is_some());
        // What cannot be read is tried again.
        let kept = self.store.as_ref();
        let kept = kept.and_then(|store| store.load_document(DocumentKind::Machine, &id).ok());
        let kept =
            kept.flatten().and_then(|data| serde_json::from_slice::<RuntimeInfo>(&data).ok());
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
        if let Some(store) = &self.store {
            let data = serde_json::to_vec(&runtime).map_err(|error| {
                Failure::internal("cannot keep the runtime found").cause(&error)
            })?;
            store.save_document(DocumentKind::Machine, &id, &data)?;
        }
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
    pub(crate) fn resolv_conf(&self) -> &str {
        self.resolv_conf
            .get_or_init(|| std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    /// Waits until nothing of any step is left.
    pub(crate) async fn drained(&self) {
        let started: Vec<_> = self.started().values().cloned().collect();
        for launcher in started.iter().filter_map(|cell| cell.get()) {
            launcher.drained().await;
        }
    }
}
