//! What is said at the end. A case is a folder with `input.json`:
//!
//! - `sources`: `[{"name": …, "text": …}]`
//! - `failure`: as serialised, absent fields at their defaults
//! - `diagnostics`: messages about the sources
//! - `step`: name, `find` (places) and `output` of the step that failed
//!
//! A span may be written as `{"source": 0, "find": "text"}`, the first place of that text.
//! `plain.txt` holds the report without colours, `colour.txt` with them where the case has one.

mod common;

use serde_json::{Value, json};
use wbuild_api::event::{Event, StepEnd, StepId};
use wbuild_cli::progress::model::Model;
use wbuild_cli::report::{Report, style::Style};
use wbuild_graph::{Diagnostic, Failure, SourceFile, SourceMap, Span};

/// Replaces `find` by offsets.
fn locate(value: &mut Value, texts: &[String]) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(find)) = object.remove("find") {
                let source = object["source"].as_u64().expect("a source's index");
                let text = &texts[usize::try_from(source).expect("small")];
                let start = text.find(&find).unwrap_or_else(|| panic!("{find:?} not found"));
                object.insert("start".into(), json!(start));
                object.insert("end".into(), json!(start + find.len()));
            }
            object.values_mut().for_each(|value| locate(value, texts));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| locate(value, texts)),
        _ => {}
    }
}

fn with_defaults(value: &Value, defaults: Value) -> Value {
    let mut out = defaults;
    let object = out.as_object_mut().expect("an object");
    for (key, value) in value.as_object().expect("an object") {
        object.insert(key.clone(), value.clone());
    }
    out
}

fn diagnostic(value: &Value) -> Diagnostic {
    let mut value = with_defaults(
        value,
        json!({"severity": "error", "code": null, "labels": [], "help": null, "url": null, "attrs": []}),
    );
    for label in value["labels"].as_array_mut().expect("labels") {
        *label = with_defaults(label, json!({"text": "", "primary": true}));
    }
    serde_json::from_value(value).expect("a diagnostic")
}

fn failure(value: &Value) -> Failure {
    let mut value = with_defaults(
        value,
        json!({"kind": "invalid", "causes": [], "hints": [], "retryable": false,
               "diagnostics": [], "attrs": []}),
    );
    let diagnostics = value["diagnostics"].as_array().expect("a list").iter().map(diagnostic);
    let diagnostics: Vec<Diagnostic> = diagnostics.collect();
    value["diagnostics"] = json!(diagnostics);
    serde_json::from_value(value).expect("a failure")
}

#[test]
fn reports() {
    let mut goldens = common::Goldens::default();
    for case in common::cases("report") {
        let mut input: Value =
            serde_json::from_str(&common::read(&case, "input.json")).expect("JSON");
        let mut sources = SourceMap::default();
        let mut texts = Vec::new();
        for source in input["sources"].as_array().into_iter().flatten() {
            let text = source["text"].as_str().expect("text").to_owned();
            let name = source["name"].as_str().expect("name").to_owned();
            sources.add(SourceFile { name, language: String::new(), text: text.as_bytes().into() });
            texts.push(text);
        }
        locate(&mut input, &texts);

        let mut model = Model::new(false);
        let id = StepId(0);
        let failure = input.get("failure").map(failure);
        if let (Some(step), Some(failure)) = (input.get("step"), &failure) {
            let spans: Vec<Span> = match step.get("spans") {
                Some(spans) => serde_json::from_value(spans.clone()).expect("spans"),
                None => Vec::new(),
            };
            let name = step["name"].as_str().expect("name").to_owned();
            let output = step["output"].as_str().unwrap_or("").as_bytes().into();
            let how = StepEnd::Failed(failure.clone());
            model.apply(&Event::StepDefined { step: id, name, spans });
            model.apply(&Event::StepLog { step: id, stream: 1, data: output, at_ms: 1 });
            model.apply(&Event::StepEnded { step: id, how, at_ms: 2 });
        }
        let diagnostics: Vec<Diagnostic> =
            input["diagnostics"].as_array().into_iter().flatten().map(diagnostic).collect();
        let render = |colour| {
            let style = Style::new(colour);
            let report = Report { style, sources: &sources, output_was_shown: true };
            let mut text = report.diagnostics(&diagnostics);
            if let Some(failure) = &failure {
                text.push_str(&report.failure(failure, model.step(id)));
            }
            text
        };
        let plain = render(false);
        assert!(!plain.contains('\x1b'), "{}: no escapes without colour", case.display());
        let bad = |line: &&str| line.ends_with(' ');
        assert_eq!(plain.lines().find(bad), None, "{}: no trailing blanks", case.display());
        goldens.check(&case.join("plain.txt"), &plain);
        if case.join("colour.txt").exists() {
            goldens.check(&case.join("colour.txt"), &render(true).replace('\x1b', "ESC"));
        }
        assert_eq!(strip(&render(true)), plain, "{}: same text with colours", case.display());
    }
}

fn strip(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\x1b[") {
        out.push_str(&rest[..at]);
        let end = rest[at..].find('m').expect("SGR ends with m");
        rest = &rest[at + end + 1..];
    }
    out + rest
}
