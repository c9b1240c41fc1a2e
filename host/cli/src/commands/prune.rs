//! `wbuild prune`.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::ops::ControlFlow;
use std::time::SystemTime;

use serde_json::{Value, json};
use wbuild_cli::args::{PruneArgs, PruneFilter};
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::{terminal, units};
use wbuild_graph::Failure;
use wbuild_store::{LockWait, OpenOptions, Store, UsageKind};

/// Runs the command. Needs the lock: a build that runs is waited for.
pub fn run(args: &PruneArgs, environment: &Environment) -> Result<Exit, Fault> {
    let dir = environment.state_dir(args.state.state_dir.as_deref())?;
    if !args.force && !confirmed(args, &dir.display().to_string(), environment)? {
        terminal::eprint("nothing was removed\n");
        return Ok(Exit::Success);
    }
    if !dir.exists() {
        return finish(args, &[], 0, 0);
    }
    super::see_all_owners(environment);
    let mut told = false;
    let wait = LockWait::Callback(Box::new(move |holder, _| {
        if !std::mem::replace(&mut told, true) {
            terminal::eprint(&format!("waiting for another build: {holder}\n"));
        }
        ControlFlow::Continue(())
    }));
    let options = OpenOptions { owner: "wbuild prune".to_owned(), wait, ..OpenOptions::default() };
    let store = Store::open(&dir, options).map_err(Failure::from)?;
    let report = store.prune(&filter(args)).map_err(Failure::from)?;
    finish(args, &report.removed, report.freed_bytes, report.remaining_bytes)
}

fn filter(args: &PruneArgs) -> wbuild_store::PruneFilter {
    let until = args.filter.iter().map(|PruneFilter::Until(age)| *age).max();
    wbuild_store::PruneFilter {
        all: until.is_none() && args.max_used_space.is_none(),
        older_than: until.and_then(|age| SystemTime::now().checked_sub(age)),
        keep_bytes: args.max_used_space,
        // Cache mounts and fetched blobs cost more to get again than what steps have made.
        kinds: match args.all {
            true => BTreeSet::new(),
            false => BTreeSet::from([UsageKind::Snapshot, UsageKind::Context]),
        },
    }
}

fn confirmed(args: &PruneArgs, dir: &str, environment: &Environment) -> Result<bool, Fault> {
    let what = if args.all { "results, cache mounts and fetched images" } else { "results" };
    let which =
        if args.filter.is_empty() && args.max_used_space.is_none() { "all" } else { "those" };
    let limit = if which == "all" { "" } else { " that the options select" };
    terminal::eprint(&format!("Remove {which} {what}{limit} in {dir}? [y/N] "));
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Fault::input("cannot read the answer").cause(&error))?;
    if answer.is_empty() && !environment.stdin_terminal {
        terminal::eprint("\n");
        return Err(
            Fault::usage("nobody answered whether to remove anything").hint("--force does not ask")
        );
    }
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn finish(
    args: &PruneArgs,
    removed: &[wbuild_store::UsageEntry],
    freed: u64,
    remaining: u64,
) -> Result<Exit, Fault> {
    if args.json {
        let removed: Vec<Value> = removed.iter().map(super::du::to_json).collect();
        return super::print_json(&json!({
            "removed": removed, "freed_bytes": freed, "remaining_bytes": remaining,
        }));
    }
    let mut text = String::new();
    if !removed.is_empty() {
        text = super::du::table(removed).render();
        text.push('\n');
    }
    let (freed, remaining) = (units::size(freed), units::size(remaining));
    text.push_str(&format!("freed {freed}, {remaining} remain\n"));
    terminal::print(text.as_bytes())?;
    Ok(Exit::Success)
}
