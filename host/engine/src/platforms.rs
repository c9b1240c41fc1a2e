//! Which platforms' steps run on this machine, and how: the answer that a build would come to, tried
//! out with a program of a few bytes.
//!
//! The same runners choose and plan, and the same launchers start the process, as for a step of a
//! build. Nothing is registered outside of the launcher's own user namespace.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use wbuild_api::event::EventSink;
use wbuild_api::extension::{Runner, Tool};
use wbuild_exec::spec::UserNamespace;
use wbuild_exec::{ExecSpec, Handler, Source, tiny};
use wbuild_graph::{Failure, Platform};

use crate::frontend_host::plugin_log;
use crate::launch::{self, Launch};
use crate::launchers::Launchers;
use crate::runners::Runners;

/// Platforms that are tried at once.
const PARALLEL: usize = 4;

/// With what is asked. See [`EngineOptions`](crate::EngineOptions).
pub struct PlatformOptions {
    /// Program and hidden subcommand that start the launcher.
    pub launcher: (PathBuf, String),
    /// The runtime; none = the first that works.
    pub runtime: Option<String>,
    /// Directories to look for programs in.
    pub search: Vec<PathBuf>,
    /// What steps get where this process runs in a user namespace of its own.
    pub user_namespace: Option<UserNamespace>,
    /// Asked in order; the lowest offer wins.
    pub runners: Vec<Arc<dyn Runner>>,
}

/// How a platform's steps run.
#[derive(Clone, Debug)]
pub struct Way {
    /// The runner that was chosen.
    pub runner: String,
    /// What it calls what it does: `native`, `personality`, `emulated`.
    pub how: String,
    /// The execution domain that programs see, e.g. `linux32`.
    pub personality: Option<String>,
    /// Emulators that are registered for the step alone.
    pub emulators: Vec<Emulator>,
    /// A program for the platform was run; else this crate knows none, and what could be tried without
    /// was.
    pub ran: bool,
}

/// An emulator of this machine.
#[derive(Clone, Debug)]
pub struct Emulator {
    /// Its program.
    pub path: PathBuf,
    /// What the runner knew of it.
    pub tool: Option<Tool>,
}

/// Answers for each platform how its steps run, or why they do not, with the remedy.
pub async fn platforms(
    options: PlatformOptions,
    events: Arc<dyn EventSink>,
    platforms: &[Platform],
) -> Vec<(Platform, Result<Way, Failure>)> {
    let PlatformOptions { launcher, runtime, search, user_namespace, runners } = options;
    let runners = runners.into_iter().map(|runner| {
        let log = plugin_log(runner.identity().name, Arc::clone(&events));
        (runner, log)
    });
    let runners = Runners::new(runners.collect(), search.clone());
    let launchers = Launchers::new(launcher, runtime, search, user_namespace, None);
    let (runners, launchers) = (&runners, &launchers);
    let answers = platforms.iter().map(|platform| async move {
        (platform.clone(), answer(runners, launchers, platform).await)
    });
    let answers = answers.collect::<Vec<_>>();
    let answers = stream::iter(answers).buffered(PARALLEL).collect().await;
    launchers.drained().await;
    answers
}

async fn answer(
    runners: &Runners,
    launchers: &Launchers,
    platform: &Platform,
) -> Result<Way, Failure> {
    let (runner, offer) = runners.offer(platform).await?;
    let mut exec = ExecSpec::new(vec![tiny::PROGRAM.to_owned()]);
    exec.readonly_root = true;
    exec.user_namespace.clone_from(&launchers.user_namespace);
    let job = launch::job(&exec, platform);
    let Launch { spec, handlers, personality, .. } =
        launch::plan(runners, launchers, exec, job, Arc::default()).await?;
    let emulators = handlers.iter().map(|Handler { name, program, .. }| Emulator {
        path: program.clone(),
        tool: runners.tool(name),
    });
    let emulators = emulators.collect();
    // Its emulators are registered by that.
    let launcher = launchers.get(handlers).await?;
    let ran = match tiny::root(&platform.architecture)? {
        None => false,
        Some(root) => {
            tiny::run(&launcher, spec, Source::Mount(root)).await.map_err(|failure| {
                let message = format!("a program for {platform} could not be run");
                let mut better = Failure::new(failure.kind, message).cause(&failure);
                better.causes.extend(failure.causes);
                better.hints.extend(failure.hints);
                better
            })?;
            true
        }
    };
    Ok(Way { runner, how: offer.how, personality, emulators, ran })
}
