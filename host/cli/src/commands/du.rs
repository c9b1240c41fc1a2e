//! `wbuild du`.
//!
//! `--json` prints an object: `state_dir`, `total_bytes` (the sum of the entries, which without a
//! filter is what the file system says of the state directory), `shared_bytes`,
//! `reclaimable_bytes`, and `entries`, the largest first. Of an entry, `last_used` and `created` are
//! seconds since 1970 (0 if unknown), `results` the number of results that need it, and `parents` the
//! ids of what it lies on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use wbuild_cli::args::DuArgs;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::filter::Filter;
use wbuild_cli::table::{Align, Table};
use wbuild_cli::{terminal, units};
use wbuild_graph::Failure;
use wbuild_store::{UsageEntry, UsageKind};

/// Runs the command. Takes no lock: it works while a build runs.
pub fn run(args: &DuArgs, environment: &Environment) -> Result<Exit, Fault> {
    let dir = environment.state_dir(args.state.state_dir.as_deref())?;
    let mut entries = match super::open_to_look(&dir, environment)? {
        Some(store) => store.du().map_err(Failure::from)?,
        // Nothing has been built here yet.
        None => Vec::new(),
    };
    let now = SystemTime::now();
    entries.retain(|entry| {
        args.filter.iter().all(|filter| match filter {
            Filter::Until(age) => {
                now.checked_sub(*age).is_some_and(|limit| entry.last_used < limit)
            }
            filter => filter.matches(entry),
        })
    });
    entries.sort_by(|a, b| (b.size_bytes, &a.id).cmp(&(a.size_bytes, &b.id)));
    let sum = |wanted: &dyn Fn(&&UsageEntry) -> bool| -> u64 {
        entries.iter().filter(wanted).map(|entry| entry.size_bytes).sum()
    };
    let total = sum(&|_| true);
    let shared = sum(&|entry| entry.shared);
    let reclaimable = sum(&|entry| !entry.in_use && entry.kind != UsageKind::Internal);
    if args.json {
        let entries: Vec<Value> = entries.iter().map(to_json).collect();
        return super::print_json(&json!({
            "state_dir": dir,
            "total_bytes": total,
            "shared_bytes": shared,
            "reclaimable_bytes": reclaimable,
            "entries": entries,
        }));
    }
    let mut text = shown(&entries, args.verbose);
    let sums = [
        ("Shared:", shared),
        ("Private:", total - shared),
        ("Reclaimable:", reclaimable),
        ("Total:", total),
    ];
    for (name, bytes) in sums.iter().filter(|_| !entries.is_empty()) {
        text.push_str(&format!("{name:13}{}\n", units::size(*bytes)));
    }
    text.push_str(&format!("{} in {}\n", units::size(total), dir.display()));
    terminal::print(text.as_bytes())?;
    Ok(Exit::Success)
}

/// Things of the state directory for people, with an empty line behind; nothing if there are none.
pub fn shown(entries: &[UsageEntry], verbose: bool) -> String {
    let mut text: String = match verbose {
        true => entries.iter().map(paragraph).collect(),
        false if entries.is_empty() => String::new(),
        false => table(entries).render(),
    };
    if !text.is_empty() && !verbose {
        text.push('\n');
    }
    text
}

fn table(entries: &[UsageEntry]) -> Table {
    let mut table = Table::new(&[
        ("KIND", Align::Left),
        ("SIZE", Align::Right),
        ("LAST USED", Align::Right),
        ("RESULTS", Align::Right),
        ("DESCRIPTION", Align::Left),
    ]);
    for entry in entries {
        let description = match entry.description.as_str() {
            "" => terminal::truncate(&entry.id, 40),
            description => terminal::truncate(description, 70),
        };
        let busy = if entry.in_use { " (in use)" } else { "" };
        let shared = if entry.shared { "*" } else { " " };
        table.row([
            entry.kind.as_str().to_owned(),
            format!("{}{shared}", units::size(entry.size_bytes)),
            ago(entry.last_used),
            if entry.results > 0 { entry.results.to_string() } else { String::new() },
            format!("{description}{busy}"),
        ]);
    }
    table
}

fn paragraph(entry: &UsageEntry) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let value = terminal::plain(value).replace('\n', " ");
        out.push_str(&format!("{name:13}{value}\n"));
    };
    line("ID:", &entry.id);
    if !entry.parents.is_empty() {
        line("Parent:", &entry.parents.join(","));
    }
    if entry.created > 0 {
        line("Created:", &ago(UNIX_EPOCH + Duration::from_secs(entry.created)));
    }
    line("Mutable:", &entry.is_mutable().to_string());
    line("Reclaimable:", &(!entry.in_use && entry.kind != UsageKind::Internal).to_string());
    line("Shared:", &entry.shared.to_string());
    line("Size:", &units::size(entry.size_bytes));
    if !entry.description.is_empty() {
        line("Description:", &entry.description);
    }
    line("Results:", &entry.results.to_string());
    line("Last used:", &ago(entry.last_used));
    line("Type:", entry.record_type());
    out.push('\n');
    out
}

fn ago(moment: SystemTime) -> String {
    let since = SystemTime::now().duration_since(moment).unwrap_or(Duration::ZERO);
    format!("{} ago", units::age(since.as_secs()))
}

/// A thing of the state directory for programs.
pub fn to_json(entry: &UsageEntry) -> Value {
    let seconds = entry.last_used.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({
        "kind": entry.kind.as_str(),
        "type": entry.record_type(),
        "id": entry.id,
        "parents": entry.parents,
        "size_bytes": entry.size_bytes,
        "created": entry.created,
        "last_used": seconds,
        "results": entry.results,
        "description": entry.description,
        "in_use": entry.in_use,
        "mutable": entry.is_mutable(),
        "shared": entry.shared,
    })
}
