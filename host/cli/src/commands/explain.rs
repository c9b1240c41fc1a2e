//! `wbuild explain`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use wbuild_api::explain::StepExplained;
use wbuild_cli::args::{BuildArgs, ExplainArgs};
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::resolve::definition;
use wbuild_cli::{explain, terminal};
use wbuild_graph::Failure;
use wbuild_store::{Error, OpenOptions, Store};

/// Runs the command. Takes no lock: it works while a build runs.
pub fn run(args: &ExplainArgs, environment: &Environment) -> Result<Exit, Fault> {
    let dir = environment.state_dir(args.state.state_dir.as_deref())?;
    let wanted = match (&args.context, &args.file) {
        (None, None) => None,
        (context, file) => {
            let path = Some(context.clone().unwrap_or_else(|| ".".into()));
            let build = BuildArgs { path, file: file.clone(), ..BuildArgs::default() };
            Some(definition::find(&build, None, environment, &mut std::io::empty())?.definition)
        }
    };
    super::see_all_owners(environment);
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let explained = match Store::open(&dir, options) {
        Ok(store) => wbuild_engine::explain::last(&store, wanted.as_ref())?,
        // Nothing has been built here yet.
        Err(Error::Absent { .. }) => None,
        Err(error) => return Err(Failure::from(error).into()),
    };
    let Some(explained) = explained else {
        let what = if wanted.is_some() { "no build of this definition" } else { "no build" };
        return Err(Fault::input(format!("{what} is known in {}", dir.display()))
            .hint("build first; --state-dir names another state directory"));
    };
    let steps: Vec<&StepExplained> = match &args.step {
        Some(step) => vec![explain::find(&explained, step)?],
        None => explained.steps.iter().collect(),
    };
    if args.json {
        return super::print_json(&json!({
            "definition": explained.definition,
            "at": explained.at,
            "unchanged_at": explained.unchanged_at,
            "steps": steps,
        }));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    terminal::print(explain::text(&explained, &steps, now).as_bytes())?;
    Ok(Exit::Success)
}
