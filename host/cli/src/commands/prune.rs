//! `wbuild prune`.
//!
//! `--json` prints an object: `removed` with entries as of `wbuild du --json`, `freed_bytes` and
//! `remaining_bytes`.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::time::SystemTime;

use serde_json::{Value, json};
use wbuild_cli::args::PruneArgs;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::filter::{self, Filter};
use wbuild_cli::{terminal, units};
use wbuild_graph::Failure;
use wbuild_store::{Bounds, Disk, PruneReport, Space, UsageKind};

/// Runs the command. Needs the lock: a build that runs is waited for.
pub fn run(args: &PruneArgs, environment: &Environment) -> Result<Exit, Fault> {
    let dir = environment.state_dir(args.state.state_dir.as_deref())?;
    if args.keep_storage.is_some() {
        terminal::eprint(
            "warning: --keep-storage is an old name; what is removed is all above it, as with \
             --max-used-space\n",
        );
    }
    if !args.force && !confirmed(args, &dir.display().to_string(), environment)? {
        terminal::eprint("nothing was removed\n");
        return Ok(Exit::Success);
    }
    if !dir.exists() {
        return finish(args, &PruneReport::default());
    }
    let store = super::open_to_change(&dir, "wbuild prune", environment)?;
    let disk = store.disk().map_err(Failure::from)?;
    let report = store.prune(&selected(args, &disk)).map_err(Failure::from)?;
    store.close_account().map_err(Failure::from)?;
    finish(args, &report)
}

/// Whether only results of steps are meant, which is so where nothing is said.
fn results_only(args: &PruneArgs) -> bool {
    let chosen = args.filter.iter().any(|filter| !matches!(filter, Filter::Until(_)));
    !args.all && !chosen && !has_limit(args)
}

fn has_limit(args: &PruneArgs) -> bool {
    [args.max_used_space, args.reserved_space, args.min_free_space, args.keep_storage]
        .iter()
        .any(Option::is_some)
}

fn selected(args: &PruneArgs, disk: &Disk) -> wbuild_store::PruneFilter {
    let until = args.filter.iter().filter_map(|filter| match filter {
        Filter::Until(age) => Some(*age),
        _ => None,
    });
    let until = until.max();
    let bytes = |space: Option<Space>| space.map(|space| space.on(disk));
    let keep = has_limit(args).then(|| Bounds {
        max_used: bytes(args.max_used_space.or(args.keep_storage)),
        reserved: bytes(args.reserved_space).unwrap_or(0),
        min_free: bytes(args.min_free_space).unwrap_or(0),
    });
    wbuild_store::PruneFilter {
        keep_chosen: None,
        all: until.is_none() && keep.is_none(),
        older_than: until.and_then(|age| SystemTime::now().checked_sub(age)),
        keep,
        // Cache mounts and fetched blobs cost more to get again than what steps have made.
        kinds: match results_only(args) {
            false => BTreeSet::new(),
            true => BTreeSet::from([UsageKind::Snapshot, UsageKind::Context]),
        },
        only: filter::choice(&args.filter),
    }
}

fn confirmed(args: &PruneArgs, dir: &str, environment: &Environment) -> Result<bool, Fault> {
    let what = match results_only(args) {
        true => "results",
        false => "results, cache mounts and fetched images",
    };
    let which = if args.filter.is_empty() && !has_limit(args) { "all" } else { "those" };
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

fn finish(args: &PruneArgs, report: &PruneReport) -> Result<Exit, Fault> {
    let PruneReport { removed, freed_bytes, remaining_bytes, .. } = report;
    if args.json {
        let removed: Vec<Value> = removed.iter().map(super::du::to_json).collect();
        return super::print_json(&json!({
            "removed": removed, "freed_bytes": freed_bytes, "remaining_bytes": remaining_bytes,
        }));
    }
    let mut text = super::du::shown(removed, args.verbose);
    let (freed, remaining) = (units::size(*freed_bytes), units::size(*remaining_bytes));
    text.push_str(&format!("freed {freed}, {remaining} remain\n"));
    terminal::print(text.as_bytes())?;
    Ok(Exit::Success)
}
