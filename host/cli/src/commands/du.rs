//! `wbuild du`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use wbuild_cli::args::DuArgs;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::table::{Align, Table};
use wbuild_cli::{terminal, units};
use wbuild_graph::Failure;
use wbuild_store::{Error, OpenOptions, Store, UsageEntry};

/// Runs the command. Takes no lock: it works while a build runs.
pub fn run(args: &DuArgs, environment: &Environment) -> Result<Exit, Fault> {
    let dir = environment.state_dir(args.state.state_dir.as_deref())?;
    super::see_all_owners(environment);
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let mut entries = match Store::open(&dir, options).and_then(|store| store.du()) {
        Ok(entries) => entries,
        // Nothing has been built here yet.
        Err(Error::Absent { .. }) => Vec::new(),
        Err(error) => return Err(Failure::from(error).into()),
    };
    entries.sort_by(|a, b| (b.size_bytes, &a.id).cmp(&(a.size_bytes, &b.id)));
    let total: u64 = entries.iter().map(|entry| entry.size_bytes).sum();
    if args.json {
        let entries: Vec<Value> = entries.iter().map(to_json).collect();
        return super::print_json(&json!({
            "state_dir": dir, "total_bytes": total, "entries": entries,
        }));
    }
    let mut text = String::new();
    if !entries.is_empty() {
        text = table(&entries).render();
        text.push('\n');
    }
    text.push_str(&format!("{} in {}\n", units::size(total), dir.display()));
    terminal::print(text.as_bytes())?;
    Ok(Exit::Success)
}

/// Things of the state directory as a table.
pub fn table(entries: &[UsageEntry]) -> Table {
    let mut table = Table::new(&[
        ("KIND", Align::Left),
        ("SIZE", Align::Right),
        ("LAST USED", Align::Right),
        ("DESCRIPTION", Align::Left),
    ]);
    for entry in entries {
        let since = SystemTime::now().duration_since(entry.last_used).unwrap_or(Duration::ZERO);
        let description = match entry.description.as_str() {
            "" => terminal::truncate(&entry.id, 40),
            description => terminal::truncate(description, 70),
        };
        let busy = if entry.in_use { " (in use)" } else { "" };
        table.row([
            entry.kind.as_str().to_owned(),
            units::size(entry.size_bytes),
            format!("{} ago", units::age(since.as_secs())),
            format!("{description}{busy}"),
        ]);
    }
    table
}

/// A thing of the state directory for programs.
pub fn to_json(entry: &UsageEntry) -> Value {
    let seconds = entry.last_used.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({
        "kind": entry.kind.as_str(),
        "id": entry.id,
        "size_bytes": entry.size_bytes,
        "last_used": seconds,
        "description": entry.description,
        "in_use": entry.in_use,
    })
}
