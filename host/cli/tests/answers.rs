//! Answers to questions about a definition. A case is a folder with `input.json`:
//!
//! - `sources`: `[{"name": …, "text": …}]`
//! - `diagnostics`, and perhaps `failure`: what a check has found; `check.txt`, `check.json` and
//!   `summary.txt` (as a build shows it) hold the rest
//! - `targets`, `outline` or `methods`: an answer; `answer.txt` and `answer.json` hold the rest
//!
//! Values are as of [`common::values`].

mod common;

use common::values;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wbuild_api::describe::{MethodInfo, Outline, Target};
use wbuild_cli::answer::lint::Findings;
use wbuild_cli::answer::{lists, pretty};
use wbuild_cli::report::style::Style;
use wbuild_graph::Diagnostic;

fn item<T: DeserializeOwned>(value: &Value) -> T {
    let defaults = json!({
        "name": "", "kind": "", "summary": "", "is_default": false, "default": null,
        "required": false, "at": null, "attrs": [],
    });
    serde_json::from_value(values::with_defaults(value, defaults)).expect("an item")
}

fn items<T: DeserializeOwned>(value: &Value) -> Vec<T> {
    value.as_array().into_iter().flatten().map(item).collect()
}

#[test]
fn answers() {
    let mut goldens = common::Goldens::default();
    for case in common::cases("answer") {
        let mut input: Value =
            serde_json::from_str(&common::read(&case, "input.json")).expect("JSON");
        let sources = values::sources(&mut input);
        let mut check = |name: &str, text: &str| {
            let no_blanks = |line: &&str| line.ends_with(' ');
            assert_eq!(text.lines().find(no_blanks), None, "{}: trailing blanks", case.display());
            goldens.check(&case.join(name), text);
        };
        if let Some(list) = input["diagnostics"].as_array() {
            let diagnostics: Vec<Diagnostic> = list.iter().map(values::diagnostic).collect();
            let failure = input.get("failure").map(values::failure);
            let findings = Findings::of(&diagnostics, &sources);
            check("check.txt", &findings.text(Style::new(false)));
            check("check.json", &pretty(&findings.json(failure.as_ref())));
            check("summary.txt", &findings.summary(Style::new(false)));
        }
        let (text, json) = if let Some(targets) = input.get("targets") {
            let targets: Vec<Target> = items(targets);
            (lists::targets_text(&targets), lists::targets_json(&targets, &sources))
        } else if let Some(outline) = input.get("outline") {
            let target = outline.get("target").map(item);
            let outline = Outline { target, parameters: items(&outline["parameters"]) };
            (lists::outline_text(&outline), lists::outline_json(&outline, &sources))
        } else if let Some(methods) = input.get("methods") {
            let methods: Vec<MethodInfo> =
                serde_json::from_value(methods.clone()).expect("methods");
            (lists::methods_text(&methods), lists::methods_json(&methods))
        } else {
            continue;
        };
        check("answer.txt", &text);
        check("answer.json", &pretty(&json));
    }
}
