//! Lists of targets, of what a target takes, and of methods.

use serde_json::{Map, Value, json};
use wbuild_api::describe::{MethodInfo, Outline, Parameter, Target};
use wbuild_graph::SourceMap;

use super::{compact, location, texts};
use crate::table::{Align, Table};
use crate::terminal;

/// Name of the default target, where it has none.
const DEFAULT: &str = "(default)";

/// `frontend.targets`.
pub fn targets_json(targets: &[Target], sources: &SourceMap) -> Value {
    let target = |target: &Target| {
        compact(json!({
            "name": target.name,
            "default": target.is_default,
            "description": target.summary,
            "base": target.attrs.get("base"),
            "platform": target.attrs.get("platform"),
            "location": target.at.and_then(|at| location(at, sources)),
        }))
    };
    let targets: Vec<Value> = targets.iter().map(target).collect();
    json!({"targets": targets, "sources": texts(sources)})
}

/// A line for each target.
pub fn targets_text(targets: &[Target]) -> String {
    let mut table = Table::new(&[("TARGET", Align::Left), ("DESCRIPTION", Align::Left)]);
    for target in targets {
        let name = match (target.name.as_str(), target.is_default) {
            ("", true) => DEFAULT.to_owned(),
            (name, true) => format!("{name} {DEFAULT}"),
            (name, false) => name.to_owned(),
        };
        table.row([name, target.summary.clone()]);
    }
    table.render()
}

/// `frontend.outline`. Kinds of parameter that BuildKit does not have are lists by their own names.
pub fn outline_json(outline: &Outline, sources: &SourceMap) -> Value {
    let mut out = Map::new();
    if let Some(target) = &outline.target {
        out.insert("name".to_owned(), json!(target.name));
        out.insert("description".to_owned(), json!(target.summary));
    }
    for kind in kinds(outline) {
        let entry = |parameter: &&Parameter| {
            let place = parameter.at.and_then(|at| location(at, sources));
            let (name_key, value) = match kind {
                "cache-mount" => ("ID", None),
                _ => ("name", parameter.default.as_deref()),
            };
            let mut entry = compact(json!({
                "description": parameter.summary,
                "value": value,
                "required": parameter.required,
                "location": place,
            }));
            if let Value::Object(object) = &mut entry {
                object.shift_insert(0, name_key.to_owned(), json!(parameter.name));
            }
            entry
        };
        let entries: Vec<Value> = of_kind(outline, kind).iter().map(entry).collect();
        let key = match kind {
            "arg" => "args",
            "secret" => "secrets",
            "cache-mount" => "cache",
            other => other,
        };
        out.insert(key.to_owned(), Value::Array(entries));
    }
    out.insert("sources".to_owned(), json!(texts(sources)));
    compact(Value::Object(out))
}

/// A table for each kind of parameter.
pub fn outline_text(outline: &Outline) -> String {
    let mut parts = Vec::new();
    if let Some(target) = &outline.target {
        let mut part = String::new();
        let mut line = |word: &str, text: &str| {
            if !text.is_empty() {
                let text = terminal::plain(text).replace('\n', " ");
                part.push_str(&format!("{word:<13}{text}\n"));
            }
        };
        line("TARGET:", if target.name.is_empty() { DEFAULT } else { &target.name });
        line("DESCRIPTION:", &target.summary);
        parts.push(part);
    }
    for kind in kinds(outline) {
        parts.push(parameters_text(kind, &of_kind(outline, kind)));
    }
    if outline.parameters.is_empty() {
        parts.push("It takes nothing.\n".to_owned());
    }
    parts.join("\n")
}

fn parameters_text(kind: &str, parameters: &[&Parameter]) -> String {
    let left = Align::Left;
    let mut table = match kind {
        "arg" => Table::new(&[("BUILD ARG", left), ("VALUE", left), ("DESCRIPTION", left)]),
        "secret" => Table::new(&[("SECRET", left), ("REQUIRED", left)]),
        "ssh" => Table::new(&[("SSH", left), ("REQUIRED", left)]),
        "cache-mount" => Table::new(&[("CACHE MOUNT", left)]),
        _ => Table::new(&[
            ("KIND", left),
            ("NAME", left),
            ("VALUE", left),
            ("REQUIRED", left),
            ("DESCRIPTION", left),
        ]),
    };
    for parameter in parameters {
        let name = parameter.name.clone();
        let value = parameter.default.clone().unwrap_or_default();
        let required = if parameter.required { "true" } else { "" }.to_owned();
        let summary = parameter.summary.clone();
        match kind {
            "arg" => table.row([name, value, summary]),
            "secret" | "ssh" => table.row([name, required]),
            "cache-mount" => table.row([name]),
            other => table.row([other.to_owned(), name, value, required, summary]),
        }
    }
    table.render()
}

/// Kinds of parameter: those of BuildKit first, in its order, others as they come.
fn kinds(outline: &Outline) -> Vec<&str> {
    let known = ["arg", "secret", "ssh", "cache-mount"];
    let mut kinds: Vec<&str> = Vec::new();
    let given = || outline.parameters.iter().map(|parameter| parameter.kind.as_str());
    for kind in known.into_iter().filter(|kind| given().any(|given| given == *kind)).chain(given())
    {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

fn of_kind<'a>(outline: &'a Outline, kind: &str) -> Vec<&'a Parameter> {
    outline.parameters.iter().filter(|parameter| parameter.kind == kind).collect()
}

/// What every frontend that answers questions can be asked: name, what it gets, whether it is about
/// a target.
const COMMON: [(&str, &str, bool); 4] = [
    ("frontend.lint", "Say what is doubtful in the definition", true),
    ("frontend.outline", "List what a target takes from outside", true),
    ("frontend.targets", "List what can be built", false),
    ("frontend.subrequests.describe", "List what can be asked", false),
];
/// Version of the schemas of those.
const VERSION: &str = "1.0.0";

/// `frontend.subrequests.describe`.
pub fn methods_json(methods: &[MethodInfo]) -> Value {
    let common = COMMON.iter().map(|(name, description, of_target)| {
        let opts = match of_target {
            true => json!([{"Name": "target", "Description": "What would be built"}]),
            false => json!([]),
        };
        json!({
            "Name": name,
            "Version": VERSION,
            "Type": "rpc",
            "Description": description,
            "Opts": opts,
            "Metadata": [{"Name": "result.json", "Description": ""}],
        })
    });
    let own = methods.iter().map(|MethodInfo { name, summary }| {
        json!({
            "Name": name,
            "Version": "",
            "Type": "rpc",
            "Description": summary,
            "Opts": [],
            "Metadata": [{"Name": "result.json", "Description": ""}],
        })
    });
    Value::Array(common.chain(own).collect())
}

/// A line for each method, by the name that `--call` takes.
pub fn methods_text(methods: &[MethodInfo]) -> String {
    let left = Align::Left;
    let mut table = Table::new(&[("NAME", left), ("VERSION", left), ("DESCRIPTION", left)]);
    for (name, description, _) in COMMON {
        let name = name.strip_prefix("frontend.").unwrap_or(name);
        table.row([name.to_owned(), VERSION.to_owned(), description.to_owned()]);
    }
    for MethodInfo { name, summary } in methods {
        table.row([name.clone(), String::new(), summary.clone()]);
    }
    table.render()
}
