//! `wbuild plugin trace`: what a frontend asked and was answered, as one file, and the same answers
//! again without any machine.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use wbuild_api::describe::{Description, Query};
use wbuild_api::event::BuildError;
use wbuild_cli::args::trial::TraceArgs;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::progress::{Display, Ending};
use wbuild_cli::report::Report;
use wbuild_cli::report::style::Style;
use wbuild_cli::resolve;
use wbuild_cli::terminal;
use wbuild_engine::Reader;
use wbuild_engine::extension::{Frontend, FrontendHost, PluginIdentity};
use wbuild_exec::namespace;
use wbuild_graph::{Failure, FailureKind};
use wbuild_testkit::{Trace, Traced, replay};

use super::find;
use crate::commands::engine::{remark, renderer, with_engine};
use crate::plugins;

/// The largest trace, in bytes.
const TRACE_BYTES: u64 = 256 << 20;

/// Runs the command.
pub fn run(args: &TraceArgs, environment: &Environment) -> Result<Exit, Fault> {
    let plugin = find(&args.plugin, environment)?;
    match &args.replay {
        // Others that it called are in the trace.
        Some(file) => again(&environment.absolute(file), plugin.calling().frontend()?),
        None => record(args, plugin.frontend()?, environment),
    }
}

fn record(
    args: &TraceArgs,
    frontend: Arc<dyn Frontend>,
    environment: &Environment,
) -> Result<Exit, Fault> {
    let build = match args.parse_build() {
        Ok(build) => build,
        Err(error) => {
            let _ = error.print();
            return Ok(Exit::Usage);
        }
    };
    let build = resolve::build(&build, environment, &mut std::io::empty())?;
    // A frontend that looks at what a step did has it run.
    let entered = namespace::enter(&environment.search_path()).ok();
    let user_namespace = entered.and_then(|entered| entered.step_user_namespace());
    let (mut loaded, notes) = plugins::of_build(&build, environment)?;
    let traced = Traced::new(frontend);
    loaded.frontend = Reader::Frontend(Arc::new(Unremembered(Arc::clone(&traced))));
    let style = Style::new(environment.colour());
    let display = Display::start(renderer(build.display, style), Box::new(std::io::stderr()));
    remark(&build.remarks, &*display.sink());
    remark(&notes, &*display.sink());
    let result = with_engine(build, loaded, environment, user_namespace, display.sink(), {
        async |engine, job| {
            engine.plan(job.request, job.session, job.plugins, job.events, job.cancel).await
        }
    });
    let ending = match &result {
        Ok(_) => Ending::Finished,
        Err(error) if error.failure.kind == FailureKind::Cancelled => Ending::Cancelled,
        Err(_) => Ending::Failed,
    };
    let model = display.finish(ending);
    // What failed is worth a report most of all.
    let written = match traced.trace() {
        Some(trace) => write(args, &trace.to_json(), environment),
        None => Ok(()),
    };
    let exit = match result {
        Ok(_) => Exit::Success,
        Err(error) => {
            let BuildError { failure, step, sources } = *error;
            let report = Report { style, sources: &sources, output_was_shown: true };
            terminal::eprint(&report.failure(&failure, step.and_then(|id| model.step(id))));
            Exit::of(&failure)
        }
    };
    written.map(|()| exit)
}

fn write(args: &TraceArgs, text: &str, environment: &Environment) -> Result<(), Fault> {
    match &args.output {
        None => terminal::print(text.as_bytes()).map(drop),
        Some(file) => std::fs::write(environment.absolute(file), text).map_err(|error| {
            Fault::input(format!("cannot write {}", file.display())).cause(&error)
        }),
    }
}

fn again(file: &Path, frontend: Arc<dyn Frontend>) -> Result<Exit, Fault> {
    let cannot = |error: &std::io::Error| {
        Fault::input(format!("cannot read {}", file.display())).cause(error)
    };
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(|error| cannot(&error))?;
    opened.take(TRACE_BYTES).read_to_string(&mut text).map_err(|error| cannot(&error))?;
    let trace = Trace::from_json(&text)
        .map_err(|failure| failure.context(format!("cannot read {}", file.display())))?;
    let replay = plugins::now(async { Ok(replay(&trace, frontend).await) })?;
    terminal::print(terminal::plain(&replay.run.snapshot.text()).as_bytes())?;
    let mut told = String::new();
    for asked in &replay.asked_else {
        told.push_str(&format!("it asked what is not in the trace: {asked}\n"));
    }
    let differs = replay.run.trace.as_ref().and_then(|now| trace.difference(now));
    if let (true, Some(difference)) = (told.is_empty(), differs) {
        told.push_str(&format!("it did something else than in the trace: {difference}\n"));
    }
    if told.is_empty() {
        terminal::eprint("as in the trace\n");
        return Ok(Exit::Success);
    }
    terminal::eprint(&terminal::plain(&told));
    Ok(Exit::Failed)
}

/// A frontend that runs even if what it would do is known, and leaves no memory of it.
struct Unremembered(Arc<Traced>);

#[async_trait]
impl Frontend for Unremembered {
    fn identity(&self) -> PluginIdentity {
        let identity = self.0.identity();
        PluginIdentity { name: format!("{} (traced)", identity.name), ..identity }
    }

    async fn build(&self, host: FrontendHost) -> Result<(), Failure> {
        // A build that publishes is not remembered; there is nothing to be published here.
        host.results.publish(Vec::new()).await?;
        self.0.build(host).await
    }

    fn describes(&self) -> bool {
        self.0.describes()
    }

    async fn describe(&self, host: FrontendHost, query: Query) -> Result<Description, Failure> {
        self.0.describe(host, query).await
    }
}
