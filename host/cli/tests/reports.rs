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

use common::values;
use serde_json::Value;
use wbuild_api::event::{Event, StepEnd, StepId};
use wbuild_cli::progress::model::Model;
use wbuild_cli::report::{Report, style::Style};
use wbuild_graph::{Diagnostic, Span};

#[test]
fn reports() {
    let mut goldens = common::Goldens::default();
    for case in common::cases("report") {
        let mut input: Value =
            serde_json::from_str(&common::read(&case, "input.json")).expect("JSON");
        let sources = values::sources(&mut input);

        let mut model = Model::new(false);
        let id = StepId(0);
        let failure = input.get("failure").map(values::failure);
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
            model.apply(&Event::StepEnded { step: id, how, from: None, at_ms: 2 });
        }
        let diagnostics: Vec<Diagnostic> =
            input["diagnostics"].as_array().into_iter().flatten().map(values::diagnostic).collect();
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
