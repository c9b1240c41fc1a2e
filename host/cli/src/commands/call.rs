//! `wbuild build --check` and `--call`: the frontend is asked and nothing is built. The answer goes
//! to standard output, all else to standard error.

use wbuild_api::describe::{DescribeReport, Description, Query};
use wbuild_api::event::BuildError;
use wbuild_cli::answer::lint::Findings;
use wbuild_cli::answer::{lists, pretty};
use wbuild_cli::args::call::Format;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::progress::json;
use wbuild_cli::progress::model::Model;
use wbuild_cli::progress::{Display, Ending};
use wbuild_cli::report::style::Style;
use wbuild_cli::report::{self, Report};
use wbuild_cli::resolve::{Build, Call, Display as Shown};
use wbuild_cli::terminal;
use wbuild_graph::{Failure, FailureKind};

use crate::plugins;

use super::engine::{remark, renderer, with_engine};

/// Asks, and writes the answer.
pub fn run(build: Build, call: &Call, environment: &Environment) -> Result<Exit, Fault> {
    // No step runs, so where there are no namespaces to be had they are not needed either.
    super::see_all_owners(environment);
    let (plugins, notes) = plugins::of_build(&build, environment)?;
    let frontend = plugins.frontend.to_string();
    let style = Style::new(environment.colour());
    let display = Display::start(renderer(build.display, style), Box::new(std::io::stderr()));
    let (shown, stats) = (build.display, build.notes.stats);
    remark(&build.remarks, &*display.sink());
    remark(&notes, &*display.sink());
    let query = call.query.clone();
    let result = with_engine(build, plugins, environment, None, display.sink(), {
        async |engine, job| {
            engine
                .describe(job.request, query, job.session, job.plugins, job.events, job.cancel)
                .await
        }
    });
    let ending = match &result {
        Ok(_) => Ending::Finished,
        Err(error) if error.failure.kind == FailureKind::Cancelled => Ending::Cancelled,
        Err(_) => Ending::Failed,
    };
    let model = display.finish(ending);
    let view = View { call, shown, errors: style, answers: Style::new(environment.colour_out()) };
    match result {
        Ok(answer) => {
            let exit = view.answer(&answer, &model, &frontend)?;
            if stats && shown != Shown::Json {
                terminal::eprint(&report::stats(&answer.stats));
            }
            Ok(exit)
        }
        Err(error) => view.failure(&error, &model),
    }
}

struct View<'a> {
    call: &'a Call,
    shown: Shown,
    errors: Style,
    answers: Style,
}

impl View<'_> {
    fn answer(
        &self,
        report: &DescribeReport,
        model: &Model,
        frontend: &str,
    ) -> Result<Exit, Fault> {
        let json = self.call.format == Format::Json;
        let sources = &report.sources;
        let mut exit = Exit::Success;
        let text = match &report.description {
            Description::Check => {
                let findings = Findings::of(&model.diagnostics, sources);
                if !findings.is_empty() && !self.call.ignore_status {
                    exit = Exit::Failed;
                }
                match json {
                    true => pretty(&findings.json(None)),
                    false => findings.text(self.answers),
                }
            }
            Description::Targets { targets } => match json {
                true => pretty(&lists::targets_json(targets, sources)),
                false => lists::targets_text(targets),
            },
            Description::Outline(outline) => match json {
                true => pretty(&lists::outline_json(outline, sources)),
                false => lists::outline_text(outline),
            },
            Description::Methods { methods } => match json {
                true => pretty(&lists::methods_json(methods)),
                false => lists::methods_text(methods),
            },
            Description::Call { output } => {
                if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(output) {
                    let message = format!("the frontend {frontend} answers with what is no JSON");
                    return Err(Failure::internal(message).cause(&error).into());
                }
                let output = output.trim_end_matches('\n');
                match json {
                    true => format!("{output}\n"),
                    false => format!("{}\n", terminal::plain(output)),
                }
            }
        };
        terminal::print(text.as_bytes())?;
        Ok(exit)
    }

    /// What keeps a definition from being built is an answer too, for a check.
    fn failure(&self, error: &BuildError, model: &Model) -> Result<Exit, Fault> {
        let BuildError { failure, step, sources } = error;
        let about_definition =
            failure.diagnostics.iter().any(|diagnostic| !diagnostic.labels.is_empty());
        let others: Vec<_> = model
            .diagnostics
            .iter()
            .filter(|known| !failure.diagnostics.contains(known))
            .cloned()
            .collect();
        let findings = Findings::of(&others, sources);
        let is_check = matches!(self.call.query, Query::Check { .. });
        if is_check && (about_definition || !findings.is_empty()) {
            let text = match self.call.format {
                Format::Json => pretty(&findings.json(Some(failure))),
                Format::Text if findings.is_empty() => String::new(),
                Format::Text => findings.text(self.answers) + "\n",
            };
            terminal::print(text.as_bytes())?;
        }
        let exit = Exit::of(failure);
        let report = Report { style: self.errors, sources, output_was_shown: true };
        let text = report.failure(failure, step.and_then(|id| model.step(id)));
        match self.shown {
            Shown::Json => terminal::eprint(&json::failed(failure, *step, exit, &text)),
            _ => terminal::eprint(&text),
        }
        Ok(exit)
    }
}
