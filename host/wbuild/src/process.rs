//! What a program does before it builds.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use wbuild_exec::namespace::{self, Entered};
use wbuild_graph::Failure;

use crate::Builder;
use crate::plugins::CHILD;

/// First argument of the helper process that launches steps; no command of a program's own.
pub const LAUNCHER: &str = "__launcher";

/// A process that is ready to build; what [`init`] gives.
#[derive(Clone)]
pub struct Process {
    search: Vec<PathBuf>,
    entered: Arc<Result<Entered, Failure>>,
}

/// The program that starts launchers, and its hidden subcommand.
pub fn launcher() -> (PathBuf, String) {
    (PathBuf::from("/proc/self/exe"), LAUNCHER.to_owned())
}

/// If this process is to launch steps for another, or to have a plugin in it, it does so and does not
/// return. To be called at the beginning of `main`, with the arguments of the process: single-threaded,
/// without signal handlers.
pub fn serve_if_asked(argv: &[OsString]) {
    let Some((subcommand, rest)) = argv.get(1..).and_then(<[OsString]>::split_first) else {
        return;
    };
    if subcommand == LAUNCHER {
        std::process::exit(wbuild_exec::launcher_main(subcommand, rest));
    }
    if subcommand == CHILD {
        std::process::exit(wbuild_isolate::child_main(rest));
    }
}

/// Makes this process ready to build. To be called at the beginning of `main`, before any thread is
/// started; so not below `#[tokio::main]`.
///
/// If the process was started to launch steps or for a plugin, this does not return. Else it enters the namespaces in
/// which builds take place: mounts that are made here are seen here only, and an ordinary user becomes
/// root of a user namespace, with its files still being its own. What the program starts later is in
/// there, too.
pub fn init() -> Process {
    let argv: Vec<OsString> = std::env::args_os().collect();
    serve_if_asked(&argv);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let search: Vec<PathBuf> =
        std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    let entered = Arc::new(namespace::enter(&search));
    Process { search, entered }
}

impl Process {
    /// Whether steps can be run.
    ///
    /// # Errors
    ///
    /// Why the namespaces that they need cannot be had.
    pub fn can_run_steps(&self) -> Result<(), Failure> {
        match &*self.entered {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.clone()),
        }
    }

    /// Looks for programs in these directories, in place of those of `PATH`.
    #[must_use]
    pub fn search(self, directories: Vec<PathBuf>) -> Process {
        Process { search: directories, ..self }
    }

    /// A build that keeps its results in a directory, which is made if it is missing.
    pub fn builder(&self, state_dir: impl Into<PathBuf>) -> Builder {
        Builder::new(self.clone(), state_dir.into())
    }

    pub(crate) fn entered(&self) -> &Result<Entered, Failure> {
        &self.entered
    }

    pub(crate) fn directories(&self) -> &[PathBuf] {
        &self.search
    }
}
