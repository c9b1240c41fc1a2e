//! `wbuild plan`: the frontend reads the definition and nothing is built; and what is different
//! between two plans. The plan goes to standard output, all else to standard error.

use std::io::Read as _;
use std::os::fd::AsFd;
use std::path::Path;

use wbuild_api::event::BuildError;
use wbuild_cli::args::plan::{PlanDiffArgs, PlanFormat};
use wbuild_cli::args::{BuildArgs, PlanArgs};
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::progress::{Display, Ending, json};
use wbuild_cli::report::style::Style;
use wbuild_cli::report::{self, Report};
use wbuild_cli::resolve::{self, Display as Shown};
use wbuild_cli::terminal;
use wbuild_engine::PlanReport;
use wbuild_exec::namespace;
use wbuild_exec::spec::UserNamespace;
use wbuild_graph::{Failure, FailureKind};
use wbuild_plan::{MAX_PLAN, Plan, diff, dot, text};

use super::engine::{remark, renderer, with_engine};
use crate::plugins;

/// Plans, and prints the plan.
pub fn run(args: &PlanArgs, environment: &Environment) -> Result<Exit, Fault> {
    let build = &args.build;
    if build.check || build.call.is_some() {
        return Err(Fault::usage("--check and --call ask the frontend, and so does a plan")
            .hint("leave one of them out"));
    }
    if build.iidfile.is_some() || build.metadata_file.is_some() {
        return Err(Fault::usage(
            "a plan builds no image that --iidfile or --metadata-file could name",
        ));
    }
    let user_namespace = steps_namespace(environment);
    let mut planned = match planned(build, user_namespace, environment)? {
        Ok(planned) => planned,
        Err(exit) => return Ok(exit),
    };
    if !args.all {
        planned.plan = planned.plan.only_needed();
    }
    let PlanReport { plan, definition, sources, .. } = &planned;
    let out = match args.format {
        PlanFormat::Text => terminal::plain(&text::render(plan, definition, sources)),
        PlanFormat::Json => plan.to_json(),
        PlanFormat::Dot => dot::render(plan),
    };
    terminal::print(out.as_bytes())?;
    if build.stats {
        let calls = planned.calls;
        terminal::eprint(&format!("{}calls         {calls}\n", report::stats(&planned.stats)));
    }
    Ok(Exit::Success)
}

/// Compares two plans.
pub fn diff(args: &PlanDiffArgs, environment: &Environment) -> Result<Exit, Fault> {
    // One status says that something is different, so what went wrong has another.
    let trouble = |mut fault: Fault| {
        if fault.exit == Exit::Failed {
            fault.exit = Exit::Usage;
        }
        fault
    };
    let user_namespace = steps_namespace(environment);
    let mut plans = Vec::new();
    for path in [&args.old, &args.new] {
        match plan_of(path, args, user_namespace.clone(), environment).map_err(trouble)? {
            Ok(plan) => plans.push(plan),
            Err(Exit::Failed) => return Ok(Exit::Usage),
            Err(exit) => return Ok(exit),
        }
    }
    let [old, new] = plans.try_into().expect("there were two");
    let difference = diff::compare(old, new);
    match args.json {
        true => {
            let value = serde_json::to_value(&difference).expect("keys are strings, so it is JSON");
            super::print_json(&value)?;
        }
        false => terminal::print(terminal::plain(&diff::render(&difference)).as_bytes())?,
    }
    Ok(if difference.is_empty() { Exit::Success } else { Exit::Failed })
}

/// Namespaces for steps that the frontend looks at. Where there are none to be had such a step fails,
/// and a plan that needs none is made.
fn steps_namespace(environment: &Environment) -> Option<UserNamespace> {
    namespace::enter(&environment.search_path()).ok()?.step_user_namespace()
}

/// A plan from a file, or of what is planned now. A build that fails has said so.
fn plan_of(
    path: &Path,
    args: &PlanDiffArgs,
    user_namespace: Option<UserNamespace>,
    environment: &Environment,
) -> Result<Result<Plan, Exit>, Fault> {
    let absolute = environment.absolute(path);
    let mut build = BuildArgs {
        frontend: args.frontend.clone(),
        state: args.state.clone(),
        ..BuildArgs::default()
    };
    if absolute.is_dir() {
        build.path = Some(path.into());
    } else {
        let shown = path.display();
        let cannot = |error: &std::io::Error| {
            Fault::input(format!("cannot read the plan {shown}")).cause(error)
        };
        let mut data = Vec::new();
        let file = std::fs::File::open(&absolute).map_err(|error| cannot(&error))?;
        file.take(MAX_PLAN + 1).read_to_end(&mut data).map_err(|error| cannot(&error))?;
        // A definition may be JSON, too; only a plan is an object with these.
        let is_plan = serde_json::from_slice::<Head>(&data).is_ok();
        if is_plan {
            let plan = Plan::from_json(&data).map_err(|failure| {
                Fault::from(failure.context(format!("cannot read the plan {shown}")))
            })?;
            return Ok(Ok(plan));
        }
        let directory = absolute.parent().unwrap_or(Path::new("/"));
        build.path = Some(directory.into());
        build.file = Some(absolute);
    }
    Ok(planned(&build, user_namespace, environment)?.map(|planned| planned.plan))
}

/// What every plan begins with.
#[derive(serde::Deserialize)]
struct Head {
    #[serde(rename = "version")]
    _version: u32,
    #[serde(rename = "frontend")]
    _frontend: serde::de::IgnoredAny,
    #[serde(rename = "nodes")]
    _nodes: Vec<serde::de::IgnoredAny>,
}

/// Plans; what failed has been reported.
fn planned(
    args: &BuildArgs,
    user_namespace: Option<UserNamespace>,
    environment: &Environment,
) -> Result<Result<PlanReport, Exit>, Fault> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned();
    let mut stdin = stdin.map(std::fs::File::from).map_err(|error| {
        Fault::from(Failure::internal("cannot duplicate standard input").cause(&error))
    })?;
    let build = resolve::build(args, environment, &mut stdin)?;
    let (loaded, notes) = plugins::of_build(&build, environment)?;
    let style = Style::new(environment.colour());
    let shown = build.display;
    let display = Display::start(renderer(shown, style), Box::new(std::io::stderr()));
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
    match result {
        Ok(planned) => {
            let report = Report { style, sources: &planned.sources, output_was_shown: true };
            if matches!(shown, Shown::Tty | Shown::Plain) {
                terminal::eprint(&report.diagnostics(&model.diagnostics));
            }
            Ok(Ok(planned))
        }
        Err(error) => {
            let BuildError { failure, step, sources } = *error;
            let exit = Exit::of(&failure);
            let report = Report { style, sources: &sources, output_was_shown: true };
            let text = report.failure(&failure, step.and_then(|id| model.step(id)));
            match shown {
                Shown::Json => terminal::eprint(&json::failed(&failure, step, exit, &text)),
                _ => terminal::eprint(&text),
            }
            Ok(Err(exit))
        }
    }
}
