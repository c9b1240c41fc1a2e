//! The engine: joins the solver to sources, ops, the store, exporters and plugins. What the command
//! line, an embedding program and, later, a daemon call.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wbuild_api::event::{BuildError, BuildReport, EventSink};
use wbuild_api::extension::{CachePlugin, Frontend, Runner};
use wbuild_api::request::BuildRequest;
use wbuild_api::session::Session;
use wbuild_graph::Failure;

/// How to open an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The state directory; made if missing.
    pub state_dir: PathBuf,
    /// Program and arguments that start this program's launcher (see `wbuild-exec`), e.g.
    /// `/proc/self/exe` with a hidden subcommand.
    pub launcher: (PathBuf, Vec<String>),
    /// Preferred OCI runtime by name or path; none = crun, else runc.
    pub runtime: Option<String>,
    /// Look records up by their key aliases in the store; off, hits come from the cache backend
    /// alone.
    pub record_aliases: bool,
    /// Wait for another build that holds the state directory; off, fail at once.
    pub wait: bool,
}

/// The plugins of one build.
#[derive(Clone)]
pub struct Plugins {
    /// Reads the definition.
    pub frontend: Arc<dyn Frontend>,
    /// Asked in order; the lowest offer wins.
    pub runners: Vec<Arc<dyn Runner>>,
    /// Asked after the store's own records.
    pub caches: Vec<Arc<dyn CachePlugin>>,
}

/// An open engine.
pub struct Engine {
    options: EngineOptions,
}

impl Engine {
    /// Opens the state directory, waiting for another build if need be.
    pub async fn open(
        options: EngineOptions,
        events: Arc<dyn EventSink>,
    ) -> Result<Engine, Failure> {
        let _ = events;
        Ok(Engine { options })
    }

    /// Builds. Cancelling `cancel` ends every step and returns `Cancelled`.
    pub async fn build(
        &self,
        request: BuildRequest,
        session: Arc<dyn Session>,
        plugins: Plugins,
        events: Arc<dyn EventSink>,
        cancel: CancellationToken,
    ) -> Result<BuildReport, Box<BuildError>> {
        let _ = (request, session, plugins, events, cancel, &self.options);
        Err(Box::new(BuildError {
            failure: Failure::internal("being written"),
            step: None,
            sources: Default::default(),
        }))
    }
}
