//! `wbuild plugin test`.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use wbuild_cli::args::trial::TestArgs;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::resolve::plugins::Supply;
use wbuild_cli::{terminal, units};
use wbuild_engine::extension::{CachePlugin, ClampCap, Frontend, Runner};
use wbuild_graph::Failure;
use wbuild_plugin::{Plugin, PluginKind, Usage, WasmFrontend};
use wbuild_supply::PluginRef;
use wbuild_testkit::cases::{self, Outcome};
use wbuild_testkit::{backend, machine};

use super::{find, project_at, tell_changes};
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
    let (name, beside) = if let Some(project) = project_at(&args.plugin, environment)? {
        (project.component().into_os_string(), Some(given.join(CASES)))
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
    tell_changes(&environment.absolute(Path::new(&name)));
    // What frontends it calls is said by its cases.
    let tested = Tested::new(&find(&name, environment)?.calling())?;
    let folders = cases::folders(&folder)?;
    let mut rows: Vec<Value> = Vec::new();
    let mut failed = 0;
    for folder in &folders {
        let outcome = plugins::now(async { Ok(tested.run(folder, args.update).await) })?;
        let usage = tested.usage();
        failed += usize::from(outcome.problem.is_some());
        if args.json {
            let mut row = json!({
                "name": outcome.name,
                "ok": outcome.problem.is_none(),
                "updated": outcome.updated,
                "problem": outcome.problem,
                "calls": outcome.calls,
            });
            if let Some(usage) = usage {
                row["cpu_us"] = u64::try_from(usage.cpu.as_micros()).unwrap_or(u64::MAX).into();
                row["memory_bytes"] = usage.memory_bytes.into();
            }
            rows.push(row);
            continue;
        }
        let how = match (&outcome.problem, outcome.updated) {
            (Some(_), _) => "FAILED",
            (None, true) => "updated",
            (None, false) => "ok",
        };
        let mut used = units::count(outcome.calls, "call");
        if let Some(usage) = usage {
            let (micros, memory) = (usage.cpu.as_micros(), units::size(usage.memory_bytes as u64));
            let (ms, tenth) = (micros / 1000, micros % 1000 / 100);
            used.push_str(&format!(", {ms}.{tenth} ms of processor, {memory} of memory"));
        }
        let mut line = format!("{:<8} {} ({used})\n", how, outcome.name);
        if let Some(problem) = &outcome.problem {
            problem.lines().for_each(|text| line.push_str(&format!("    {text}\n")));
        }
        terminal::print(terminal::plain(&line).as_bytes())?;
    }
    if args.json {
        super::super::print_json(&Value::Array(rows))?;
    } else if failed > 0 {
        terminal::eprint(&format!("{failed} of {} failed", units::count(folders.len(), "case")));
        terminal::eprint("; --update writes anew what is expected\n");
    } else {
        terminal::eprint(&format!("{}, all as expected\n", units::count(folders.len(), "case")));
    }
    Ok(if failed > 0 { Exit::Failed } else { Exit::Success })
}

/// A plugin under test.
enum Tested {
    Frontend(Arc<WasmFrontend>),
    Runner(Arc<dyn Runner>, Arc<dyn ClampCap>),
    Cache(Arc<dyn CachePlugin>),
}

impl Tested {
    fn new(plugin: &Plugin) -> Result<Tested, Fault> {
        match &plugin.kinds()[..] {
            [PluginKind::Runner] => Ok(Tested::Runner(plugin.runner()?, wbuild_engine::clamp())),
            [PluginKind::Cache] => Ok(Tested::Cache(plugin.cache()?)),
            _ => Ok(Tested::Frontend(plugin.measured_frontend()?)),
        }
    }

    async fn run(&self, folder: &Path, update: bool) -> Outcome {
        match self {
            Tested::Frontend(frontend) => {
                let frontend: Arc<dyn Frontend> = frontend.clone();
                cases::run(folder, &frontend, update).await
            }
            Tested::Runner(runner, clamp) => machine::run(folder, &**runner, clamp, update).await,
            Tested::Cache(plugin) => backend::run(folder, plugin, update).await,
        }
    }

    /// What the last case took, where it is known.
    fn usage(&self) -> Option<Usage> {
        match self {
            Tested::Frontend(frontend) => Some(frontend.usage()),
            Tested::Runner(..) | Tested::Cache(_) => None,
        }
    }
}
