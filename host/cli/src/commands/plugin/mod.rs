//! `wbuild plugin`.

pub mod build;
pub mod new;
pub mod run;
pub mod test;
pub mod trace;

use std::time::Duration;

use serde_json::{Value, json};
use wbuild_cli::args::{InspectArgs, ListArgs};
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::plugin_name::{PluginName, unknown};
use wbuild_cli::report::Report;
use wbuild_cli::report::style::Style;
use wbuild_cli::table::{Align, Table};
use wbuild_cli::{terminal, units};
use wbuild_graph::Failure;
use wbuild_plugin::{Plugin, PluginInfo};

use crate::plugins;

/// `wbuild plugin list`.
pub fn list(args: &ListArgs) -> Result<Exit, Fault> {
    let all = wbuild_bundled::all();
    if args.json {
        let rows: Vec<Value> = all
            .iter()
            .map(|bundled| {
                json!({
                    "kind": plugins::kind_name(bundled.kind),
                    "name": bundled.name,
                    "size_bytes": bundled.bytes.len(),
                    "digest": wbuild_graph::Digest::from_bytes(bundled.digest),
                })
            })
            .collect();
        return super::print_json(&Value::Array(rows));
    }
    let mut table =
        Table::new(&[("KIND", Align::Left), ("NAME", Align::Left), ("SIZE", Align::Right)]);
    for bundled in all {
        table.row([
            plugins::kind_name(bundled.kind).to_owned(),
            bundled.name.to_owned(),
            units::size(bundled.bytes.len() as u64),
        ]);
    }
    terminal::print(table.render().as_bytes())?;
    Ok(Exit::Success)
}

/// `wbuild plugin inspect`.
pub fn inspect(args: &InspectArgs, environment: &Environment) -> Result<Exit, Fault> {
    let plugin = find(&PluginName::parse(&args.plugin, &environment.cwd)?, environment)?;
    let info = examine(&plugin)?;
    if args.json {
        let value = serde_json::to_value(&info).expect("keys are strings, so it is JSON");
        super::print_json(&value)?;
    } else {
        terminal::print(describe(&info).as_bytes())?;
    }
    // A plugin that cannot be used has been described, but a script should notice.
    Ok(if info.refusal.is_some() { Exit::Failed } else { Exit::Success })
}

/// A plugin of any kind.
fn find(name: &PluginName, environment: &Environment) -> Result<Plugin, Fault> {
    let host = plugins::host(environment);
    match name {
        PluginName::File { shown, path } => Ok(host.load(shown, path.as_path())?),
        PluginName::Bundled(name) => {
            let all = wbuild_bundled::all();
            let Some(bundled) = all.iter().find(|bundled| bundled.name == *name) else {
                let names: Vec<&str> = all.iter().map(|bundled| bundled.name).collect();
                return Err(unknown("plugin", name, &names));
            };
            Ok(plugins::load_bundled(&host, bundled)?)
        }
    }
}

/// Runs a plugin that is asked by itself.
fn executor() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::internal("cannot start an executor").cause(&error))
}

/// What a plugin is; compiles it, unless that was done before.
fn examine(plugin: &Plugin) -> Result<PluginInfo, Failure> {
    executor()?.block_on(plugin.inspect())
}

fn describe(info: &PluginInfo) -> String {
    let tame = |text: &str| terminal::plain(text).replace('\n', " ");
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!("{name:<12}{value}\n"));
        }
    };
    let kinds: Vec<String> = info.kinds.iter().map(ToString::to_string).collect();
    let packages: Vec<String> =
        info.packages.iter().map(|(name, version)| tame(&format!("{name}@{version}"))).collect();
    line("name", tame(&info.name));
    line(
        "kind",
        if kinds.is_empty() { "none that wbuild knows".to_owned() } else { kinds.join(", ") },
    );
    line("digest", info.digest.to_string());
    line("size", units::size(info.size));
    line("speaks", packages.join(", "));
    line("answers", if info.describes { "--check, --call".to_owned() } else { String::new() });
    let time = |time: Duration| match time.as_micros() {
        micros @ 0..10_000 => format!("{}.{:03} ms", micros / 1000, micros % 1000),
        micros => format!("{} ms", micros / 1000),
    };
    line(
        "compiled",
        match (info.compile_time, info.compiled_size) {
            (Some(took), Some(size)) => format!("now, in {}, to {}", time(took), units::size(size)),
            (Some(took), None) => format!("now, in {}", time(took)),
            (None, _) if info.load_time.is_some() => "before".to_owned(),
            (None, _) => String::new(),
        },
    );
    line("loads in", info.load_time.map(time).unwrap_or_default());
    line("starts in", info.instantiate_time.map(time).unwrap_or_default());
    line("code cache", info.code_cache_note.as_deref().map(tame).unwrap_or_default());
    if let Some(manifest) = &info.manifest {
        line("says", tame(&manifest.to_string()));
    }
    if info.abilities.is_empty() {
        out.push_str("\nIt can do nothing but compute.\n");
    } else {
        out.push_str("\nIt can, and nothing else:\n");
        for ability in &info.abilities {
            out.push_str(&format!("  - {ability}\n"));
        }
    }
    for (title, names) in [("imports", &info.imports), ("exports", &info.exports)] {
        if !names.is_empty() {
            out.push_str(&format!("\n{title}:\n"));
            for name in names {
                out.push_str(&format!("  {}\n", tame(name)));
            }
        }
    }
    if let Some(refusal) = &info.refusal {
        let sources = Default::default();
        let report = Report { style: Style::new(false), sources: &sources, output_was_shown: true };
        out.push_str(&format!("\nIt cannot be used here:\n{}", report.failure(refusal, None)));
    }
    out
}
