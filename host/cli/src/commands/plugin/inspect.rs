//! `wbuild plugin inspect`: what a plugin is, what it can do, and what it would be granted here.

use std::time::Duration;

use serde_json::{Value, json};
use wbuild::plugins::{Isolate, Trust, isolator};
use wbuild_cli::args::InspectArgs;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::report::Report;
use wbuild_cli::report::style::Style;
use wbuild_cli::{terminal, units};
use wbuild_isolate::confine::UNCONFINED;
use wbuild_plugin::PluginInfo;
use wbuild_supply::{Decision, Supplied};

use super::Named;
use crate::plugins;

/// Runs the command.
pub fn run(args: &InspectArgs, environment: &Environment) -> Result<Exit, Fault> {
    let Named { mut supplier, kind, reference } = Named::new(&args.named, environment)?;
    let (source, _) = supplier.resolve(kind, &reference)?;
    // A component that somebody wonders about is looked at where it can do nothing.
    let choice = args.isolate_plugins.map_or(Isolate::Untrusted, Into::into);
    let apart = Trust::of(&reference, &source).is_isolated(Some(choice));
    if apart {
        supplier = supplier.apart();
    }
    let looked = plugins::now(async {
        let supplied = supplier.look_at(kind, &reference).await?;
        let info = match apart {
            true => isolator().inspect(&supplied.plugin).await?,
            false => supplied.plugin.inspect().await?,
        };
        Ok((supplied, info))
    });
    let (supplied, mut info) =
        looked.map_err(|fault| match fault.failure.message == UNCONFINED {
            true => fault.hint("--isolate-plugins=none looks at it in this process"),
            false => fault,
        })?;
    // What it lacks is said among what holds here; who is asked can still give it.
    if supplied.decision.wants.iter().any(|(_, why)| why.is_none()) {
        info.refusal = None;
    }
    if args.named.json {
        let mut value = serde_json::to_value(&info).expect("keys are strings, so it is JSON");
        value["source"] = Value::from(supplied.source.to_string());
        value["here"] = here_as_json(&supplied.decision);
        super::super::print_json(&value)?;
    } else {
        let here = here(&supplied, supplier.policy());
        terminal::print(describe(&info, &here).as_bytes())?;
    }
    // A plugin that cannot be used has been described, but a script should notice.
    Ok(if info.refusal.is_some() { Exit::Failed } else { Exit::Success })
}

fn here_as_json(decision: &Decision) -> Value {
    let wants =
        decision.wants.iter().map(|(want, why)| json!({"wants": want.words(), "granted": why}));
    let limits = decision.limit_lines.iter();
    let limits =
        limits.map(|line| json!({"name": line.name, "value": line.value, "from": line.from}));
    json!({
        "kind": decision.kind.to_string(),
        "wants": wants.collect::<Vec<_>>(),
        "limits": limits.collect::<Vec<_>>(),
        "images": decision.allowed.images,
        "files": decision.allowed.files,
        "tools": decision.allowed.tools,
        "signer": decision.signer,
        "entry": decision.rule.as_ref().map(|rule| &rule.shown),
    })
}

/// What holds for it on this machine, in plain words.
fn here(supplied: &Supplied, policy: Option<&str>) -> String {
    let Decision { wants, rule, signer, allowed, limit_lines, .. } = &supplied.decision;
    let mut out = "\nHere:\n".to_owned();
    let mut line = |text: String| out.push_str(&format!("  - {}\n", tame(&text)));
    match (rule, policy) {
        (Some(rule), Some(policy)) => {
            line(format!("the entry for {} of {policy} is about it", rule.shown));
        }
        (_, Some(policy)) => line(format!("no entry of {policy} is about it")),
        (_, None) => line("there is no policy for plugins".to_owned()),
    }
    if let Some(signer) = signer {
        line(format!("it is signed with the key {signer}"));
    }
    for (want, why) in wants {
        line(match why {
            Some(why) => format!("it may {}: {why}", want.words()),
            None => format!(
                "it wants to {}: you are asked first, and without a terminal it is refused",
                want.words()
            ),
        });
    }
    if wants.is_empty() {
        line("it needs no grant".to_owned());
    }
    for (what, list) in [("images", &allowed.images), ("files of local contexts", &allowed.files)] {
        if let Some(list) = list {
            let list = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
            line(format!("of {what} it may use {list}"));
        }
    }
    if !allowed.tools.is_empty() {
        line(format!("it may use the emulators {}", allowed.tools.join(", ")));
    }
    out.push_str("\nlimits:\n");
    for limit in limit_lines {
        out.push_str(&format!("  {:<14}{:<10} {}\n", limit.name, limit.value, limit.from));
    }
    out
}

fn tame(text: &str) -> String {
    terminal::plain(text).replace('\n', " ")
}

fn describe(info: &PluginInfo, here: &str) -> String {
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
    out.push_str(here);
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
