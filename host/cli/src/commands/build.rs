//! `wbuild build`.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wbuild::{Engine, EngineOptions, Plugins};
use wbuild_api::event::{BuildError, BuildReport, EventSink, StepId};
use wbuild_api::request::OutputSpec;
use wbuild_api::session::Session;
use wbuild_cli::args::BuildArgs;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::metadata;
use wbuild_cli::progress::json::{self, Json};
use wbuild_cli::progress::model::Model;
use wbuild_cli::progress::plain::Plain;
use wbuild_cli::progress::tty::Tty;
use wbuild_cli::progress::{Display, Ending, Quiet, Renderer};
use wbuild_cli::report::style::Style;
use wbuild_cli::report::{self, Report};
use wbuild_cli::resolve::{self, Build, Display as Shown, Notes};
use wbuild_cli::session::LocalSession;
use wbuild_cli::terminal;
use wbuild_exec::namespace::{self, Entered};
use wbuild_exec::spec::UserNamespace;
use wbuild_graph::{Diagnostic, Failure, FailureKind};

use crate::credentials::FromDocker;
use crate::{LAUNCHER, plugins, signals};

/// Work of the engine that blocks has threads of its own; these only wait and decide.
const WORKERS: usize = 2;

/// Runs the command.
pub fn run(args: &BuildArgs, environment: &Environment) -> Result<Exit, Fault> {
    let build = resolve::build(args, environment, &mut std::io::stdin().lock())?;
    plugins::check_names(&build)?;
    if let Some(path) = &build.notes.iidfile {
        // An id of an earlier build must not be taken for that of one that failed.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(
                    Fault::input(format!("cannot replace {}", path.display())).cause(&error)
                );
            }
            _ => {}
        }
    }
    let host = plugins::host(environment);
    let loaded = plugins::of_build(&host, &build)?;

    let entered = namespace::enter(&environment.search_path())?;
    let user_namespace = entered.step_user_namespace();
    let style = Style::new(environment.colour());
    let display = Display::start(renderer(build.display, style), Box::new(std::io::stderr()));
    let view = View { shown: build.display, style, notes: build.notes.clone() };
    let outputs = build.request.outputs.clone();
    let result = execute(build, loaded, environment, user_namespace, display.sink());
    let ending = match &result {
        Ok(_) => Ending::Finished,
        Err(error) if error.failure.kind == FailureKind::Cancelled => Ending::Cancelled,
        Err(_) => Ending::Failed,
    };
    let model = display.finish(ending);
    match result {
        Ok(report) => view.success(&report, &outputs, &model),
        Err(mut error) => {
            explain_single_user(&entered, &mut error.failure);
            Ok(view.failure(&error, model))
        }
    }
}

/// Package managers change owners; where a step has one user only that fails, in words that say
/// nothing of the reason.
fn explain_single_user(entered: &Entered, failure: &mut Failure) {
    if let Entered::User { single: Some(why), .. } = entered
        && failure.kind == FailureKind::ExecFailed
    {
        let hint =
            format!("steps have one user only here ({why}), `wbuild doctor` shows the remedy");
        failure.hints.push(hint);
    }
}

fn renderer(shown: Shown, style: Style) -> Box<dyn Renderer> {
    match shown {
        Shown::Plain => Box::<Plain>::default(),
        Shown::Json => Box::new(Json),
        Shown::Quiet => Box::new(Quiet),
        // The size most terminals have, for one that does not tell.
        Shown::Tty => {
            Box::new(Tty::new(style, Box::new(|| terminal::window().unwrap_or((80, 24)))))
        }
    }
}

fn execute(
    build: Build,
    plugins: Plugins,
    environment: &Environment,
    user_namespace: Option<UserNamespace>,
    events: Arc<dyn EventSink>,
) -> Result<BuildReport, Box<BuildError>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|error| alone(Failure::internal("cannot start threads").cause(&error)))?;
    let docker_config = build.lends.docker_config.clone();
    let credentials = FromDocker::new(docker_config, environment.search_path());
    let session: Arc<dyn Session> = Arc::new(LocalSession::new(build.lends, Arc::new(credentials)));
    let options = EngineOptions {
        state_dir: build.state_dir,
        launcher: (PathBuf::from("/proc/self/exe"), LAUNCHER.to_owned()),
        runtime: build.runtime,
        search: environment.search_path(),
        user_namespace,
        record_aliases: build.record_aliases,
        wait: build.wait,
        owner: build.owner,
        boot_id: build.boot_id,
    };
    let request = build.request;
    let result = runtime.block_on(async move {
        let cancel = CancellationToken::new();
        signals::listen(cancel.clone(), Arc::clone(&events))
            .map_err(|fault| alone(*fault.failure))?;
        let engine = tokio::select! {
            opened = Engine::open(options, Arc::clone(&events)) => opened.map_err(alone)?,
            // Another build holds the state directory, and the user does not want to wait.
            () = cancel.cancelled() => return Err(alone(Failure::cancelled())),
        };
        engine.build(request, session, plugins, events, cancel).await
    });
    // The engine has cleaned up. What still blocks (waiting for a lock) ends with the process.
    runtime.shutdown_background();
    result
}

/// A failure outside of any step.
fn alone(failure: Failure) -> Box<BuildError> {
    Box::new(BuildError { failure, step: None, sources: Default::default() })
}

/// Says how the build ended.
struct View {
    shown: Shown,
    style: Style,
    notes: Notes,
}

impl View {
    fn success(
        &self,
        report: &BuildReport,
        outputs: &[OutputSpec],
        model: &Model,
    ) -> Result<Exit, Fault> {
        let notes = &self.notes;
        let id = metadata::image_id(report);
        if let (Some(path), Some(id)) = (&notes.iidfile, id) {
            metadata::replace_file(path, id.to_string().as_bytes())?;
        }
        if let Some(path) = &notes.metadata_file {
            let mut text = serde_json::to_string_pretty(&metadata::metadata(report))
                .expect("keys are strings, so it is JSON");
            text.push('\n');
            metadata::replace_file(path, text.as_bytes())?;
        }
        match self.shown {
            Shown::Json => terminal::eprint(&json::succeeded(report)),
            Shown::Quiet => {}
            Shown::Tty | Shown::Plain => {
                let warnings = self.report(&report.sources).diagnostics(&model.diagnostics);
                let text = report::success(report, self.style, outputs.is_empty());
                let gap = if warnings.is_empty() { "" } else { "\n" };
                terminal::eprint(&format!("{gap}{warnings}{text}"));
            }
        }
        if notes.stats && self.shown != Shown::Json {
            terminal::eprint(&report::stats(&report.stats));
        }
        if let (true, Some(id)) = (notes.print_id, id) {
            terminal::print(format!("{id}\n").as_bytes())?;
        }
        Ok(Exit::Success)
    }

    fn failure(&self, error: &BuildError, mut model: Model) -> Exit {
        let BuildError { failure, step, sources } = error;
        let exit = Exit::of(failure);
        let report = self.report(sources);
        let others: Vec<Diagnostic> = model
            .diagnostics
            .iter()
            .filter(|diagnostic| !failure.diagnostics.contains(diagnostic))
            .cloned()
            .collect();
        if self.shown == Shown::Json {
            let text = report.failure(failure, step.and_then(|id| model.step(id)));
            terminal::eprint(&json::failed(failure, *step, exit, &text));
            return exit;
        }
        if exit != Exit::Interrupted {
            terminal::eprint("\n");
            terminal::eprint(&report.diagnostics(&others));
        }
        if let Some(id) = step {
            show_whole_output(*id, &mut model);
        }
        terminal::eprint(&report.failure(failure, step.and_then(|id| model.step(id))));
        exit
    }

    fn report<'a>(&self, sources: &'a wbuild_graph::SourceMap) -> Report<'a> {
        // Where the display has not shown it, `show_whole_output` has.
        Report { style: self.style, sources, output_was_shown: true }
    }
}

/// A display that did not show the output of the failed step shows all of it now, unless the report
/// holds all of it anyway.
fn show_whole_output(id: StepId, model: &mut Model) {
    let Some(step) = model.step_mut(id) else { return };
    if step.lines <= report::SHORT as u64 {
        return;
    }
    let heading = format!("#{} {}\n", step.number, step.name);
    if let Some(whole) = &mut step.whole {
        let mut stderr = std::io::stderr().lock();
        let _ = stderr
            .write_all(heading.as_bytes())
            .and_then(|()| whole.copy_to(&mut stderr))
            .and_then(|()| stderr.write_all(b"\n"));
    }
}
