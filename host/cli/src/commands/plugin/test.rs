//! `wbuild plugin test`.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use wbuild_author::Project;
use wbuild_cli::args::trial::TestArgs;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::resolve::plugins::Supply;
use wbuild_cli::{terminal, units};
use wbuild_engine::extension::Frontend;
use wbuild_graph::Failure;
use wbuild_supply::PluginRef;
use wbuild_testkit::cases;

use super::find;
use crate::plugins;

/// Where the cases of a project are.
const CASES: &str = "tests/cases";

/// That there is something to test, before its cases are looked for.
fn check_named(args: &TestArgs, environment: &Environment) -> Result<(), Fault> {
    if let PluginRef::File { path, shown } = PluginRef::parse(&args.plugin, &environment.cwd)?
        && !path.exists()
    {
        let message = format!("there is neither a component nor a project at {shown}");
        return Err(Fault::from(Failure::not_found(message)).hint(
            "name the folder of a project, as `wbuild plugin new` makes them, or the .wasm file \
             that `wbuild plugin build` makes",
        ));
    }
    let supply = Supply::of(Some(&environment.cwd), &Default::default(), false)?;
    supply.any(&args.plugin, environment)?;
    Ok(())
}

/// Runs the command.
pub fn run(args: &TestArgs, environment: &Environment) -> Result<Exit, Fault> {
    let given = environment.absolute(Path::new(&args.plugin));
    let (name, beside) = if given.is_dir() {
        let project = Project::read(&given)?;
        let component = project.component();
        if !component.is_file() {
            let message = format!("{} is not built", given.display());
            return Err(Fault::from(Failure::not_found(message))
                .hint(format!("wbuild plugin build {}", given.display())));
        }
        (component.into_os_string(), Some(given.join(CASES)))
    } else {
        check_named(args, environment)?;
        // Of a project, or of a file that was put somewhere with its cases.
        let folders = given.ancestors().skip(1).take(2);
        let beside = folders.map(|folder| folder.join(CASES)).find(|cases| cases.is_dir());
        (args.plugin.clone(), beside)
    };
    let folder = match (&args.cases, beside) {
        (Some(folder), _) => environment.absolute(folder),
        (None, Some(folder)) => folder,
        (None, None) => {
            return Err(Fault::input("there are no cases beside it")
                .hint(format!("name their folder: --cases DIR, or put it into {CASES}")));
        }
    };
    let plugin = find(&name, environment)?;
    let frontend = plugin.measured_frontend()?;
    let folders = cases::folders(&folder)?;
    let mut rows: Vec<Value> = Vec::new();
    let mut failed = 0;
    for folder in &folders {
        let any: Arc<dyn Frontend> = frontend.clone();
        let outcome = plugins::now(async { Ok(cases::run(folder, &any, args.update).await) })?;
        let usage = frontend.usage();
        failed += usize::from(outcome.problem.is_some());
        if args.json {
            rows.push(json!({
                "name": outcome.name,
                "ok": outcome.problem.is_none(),
                "updated": outcome.updated,
                "problem": outcome.problem,
                "calls": outcome.calls,
                "cpu_us": u64::try_from(usage.cpu.as_micros()).unwrap_or(u64::MAX),
                "memory_bytes": usage.memory_bytes,
            }));
            continue;
        }
        let how = match (&outcome.problem, outcome.updated) {
            (Some(_), _) => "FAILED",
            (None, true) => "updated",
            (None, false) => "ok",
        };
        let micros = usage.cpu.as_micros();
        let used = format!(
            "{} calls, {}.{} ms of processor, {} of memory",
            outcome.calls,
            micros / 1000,
            micros % 1000 / 100,
            units::size(usage.memory_bytes as u64)
        );
        let mut line = format!("{:<8} {} ({used})\n", how, outcome.name);
        if let Some(problem) = &outcome.problem {
            problem.lines().for_each(|text| line.push_str(&format!("    {text}\n")));
        }
        terminal::print(terminal::plain(&line).as_bytes())?;
    }
    if args.json {
        super::super::print_json(&Value::Array(rows))?;
    } else if failed > 0 {
        terminal::eprint(&format!("{failed} of {} cases failed", folders.len()));
        terminal::eprint("; --update writes anew what is expected\n");
    } else {
        terminal::eprint(&format!("{} cases, all as expected\n", folders.len()));
    }
    Ok(if failed > 0 { Exit::Failed } else { Exit::Success })
}
