//! `wbuild build`.

use std::io::Write;
use std::os::fd::AsFd;

use wbuild_api::event::{BuildError, BuildReport, StepId};
use wbuild_api::request::OutputSpec;
use wbuild_cli::answer::lint::Findings;
use wbuild_cli::args::BuildArgs;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::metadata;
use wbuild_cli::progress::json;
use wbuild_cli::progress::model::Model;
use wbuild_cli::progress::{Display, Ending};
use wbuild_cli::report::style::Style;
use wbuild_cli::report::{self, Report};
use wbuild_cli::resolve::{self, Display as Shown, Notes};
use wbuild_cli::terminal;
use wbuild_exec::namespace::{self, Entered};
use wbuild_graph::{Diagnostic, Failure, FailureKind, SourceMap};

use super::engine::{remark, renderer, with_engine};
use crate::plugins;

/// Runs the command.
pub fn run(args: &BuildArgs, environment: &Environment) -> Result<Exit, Fault> {
    // Not through the buffer of the standard library: an archive is read on by the engine.
    let stdin = std::io::stdin().as_fd().try_clone_to_owned();
    let mut stdin = stdin.map(std::fs::File::from).map_err(|error| {
        Fault::from(Failure::internal("cannot duplicate standard input").cause(&error))
    })?;
    let build = resolve::build(args, environment, &mut stdin)?;
    if let Some(call) = build.call.clone() {
        return super::call::run(build, &call, environment);
    }
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
    // Before the first thread; what plugins are fetched with has some.
    let entered = namespace::enter(&environment.search_path())?;
    let (loaded, notes) = plugins::of_build(&build, environment)?;
    let user_namespace = entered.step_user_namespace();
    let style = Style::new(environment.colour());
    let display = Display::start(renderer(build.display, style), Box::new(std::io::stderr()));
    remark(&build.remarks, &*display.sink());
    remark(&notes, &*display.sink());
    let view = View {
        shown: build.display,
        style,
        full_warnings: build.full_warnings,
        notes: build.notes.clone(),
    };
    let outputs = build.request.outputs.clone();
    let result = with_engine(build, loaded, environment, user_namespace, display.sink(), {
        async |engine, job| {
            engine.build(job.request, job.session, job.plugins, job.events, job.cancel).await
        }
    });
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

/// Says how the build ended.
struct View {
    shown: Shown,
    style: Style,
    full_warnings: bool,
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
        if let Some(path) = &notes.metadata_file {
            let mut text = serde_json::to_string_pretty(&metadata::metadata(report))
                .expect("keys are strings, so it is JSON");
            text.push('\n');
            metadata::replace_file(path, text.as_bytes())?;
        }
        match (&notes.iidfile, id) {
            (Some(path), Some(id)) => metadata::replace_file(path, id.to_string().as_bytes())?,
            (Some(_), None) if report.images.len() > 1 => {
                let message =
                    "--iidfile is for one image, and none of those built is the build's own";
                return Err(Fault::input(message)
                    .hint("build one of them by itself, or read --metadata-file"));
            }
            _ => {}
        }
        match self.shown {
            Shown::Json => {
                let findings = Findings::of(&model.diagnostics, &report.sources);
                terminal::eprint(&json::succeeded(report, &findings));
            }
            Shown::Quiet => {}
            Shown::Tty | Shown::Plain => {
                let warnings = self.warnings(&model.diagnostics, &report.sources);
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
            terminal::eprint(&self.warnings(&others, sources));
        }
        if let Some(id) = step {
            show_whole_output(*id, &mut model);
        }
        terminal::eprint(&report.failure(failure, step.and_then(|id| model.step(id))));
        exit
    }

    /// Messages about the sources: with the lines they are about, or warnings in a line each.
    fn warnings(&self, diagnostics: &[Diagnostic], sources: &SourceMap) -> String {
        let report = self.report(sources);
        if self.full_warnings {
            return report.diagnostics(diagnostics);
        }
        let findings = Findings::of(diagnostics, sources);
        let others: Vec<Diagnostic> = diagnostics
            .iter()
            .filter(|diagnostic| !findings.contains(diagnostic))
            .cloned()
            .collect();
        let summary = findings.summary(self.style);
        let gap = if summary.is_empty() { "" } else { "\n" };
        format!("{}{summary}{gap}", report.diagnostics(&others))
    }

    fn report<'a>(&self, sources: &'a SourceMap) -> Report<'a> {
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
