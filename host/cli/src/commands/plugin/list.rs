//! `wbuild plugin list`.

use serde_json::{Value, json};
use wbuild_cli::args::{ListArgs, PluginArgs};
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::resolve::plugins::Supply;
use wbuild_cli::table::{Align, Table};
use wbuild_cli::{terminal, units};
use wbuild_graph::Digest;
use wbuild_plugin::PluginKind;
use wbuild_supply::{Lock, PluginRef, catalog};

/// Lists bundled plugins, those that the project has names for, and what its lock pins besides.
pub fn list(args: &ListArgs, environment: &Environment) -> Result<Exit, Fault> {
    let supply = Supply::of(Some(&environment.cwd), &PluginArgs::default(), false)?;
    let mut rows: Vec<Value> = Vec::new();
    for kind in PluginKind::ALL {
        for name in catalog::names(kind) {
            let bundled = catalog::find(kind, name)?;
            rows.push(json!({
                "kind": kind.to_string(),
                "name": name,
                "size_bytes": bundled.bytes.len(),
                "digest": Digest::from_bytes(bundled.digest),
            }));
        }
    }
    if let Some(project) = &supply.project {
        let lock = Lock::of(project.root())?;
        let pinned = |source: &PluginRef| lock.get(source).map(|locked| locked.component);
        for alias in project.aliases() {
            rows.push(json!({
                "kind": alias.kind.to_string(),
                "name": alias.name,
                "source": alias.source.to_string(),
                "digest": pinned(&alias.source),
            }));
        }
        let named =
            |source: &str| project.aliases().any(|alias| alias.source.to_string() == source);
        for (source, locked) in lock.entries().filter(|(source, _)| !named(source)) {
            rows.push(json!({ "source": source, "digest": locked.component }));
        }
    }
    if args.json {
        return super::super::print_json(&Value::Array(rows));
    }
    let mut table = Table::new(&[
        ("KIND", Align::Left),
        ("NAME", Align::Left),
        ("SIZE", Align::Right),
        ("FROM", Align::Left),
    ]);
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
        let size = row["size_bytes"].as_u64().map_or_else(|| "-".to_owned(), units::size);
        let from = match (row["source"].as_str(), row["digest"].as_str()) {
            (None, _) => "wbuild".to_owned(),
            (Some(source), None) => source.to_owned(),
            (Some(source), Some(digest)) => format!("{source} (pinned: {})", &digest[..19]),
        };
        table.row([text("kind"), text("name"), size, from]);
    }
    terminal::print(table.render().as_bytes())?;
    Ok(Exit::Success)
}
