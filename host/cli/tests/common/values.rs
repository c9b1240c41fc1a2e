//! Values of case files: what is left out has its default, and a span may be written as
//! `{"source": 0, "find": "text"}`, the first place of that text.

use serde_json::{Value, json};
use wbuild_graph::{Diagnostic, Failure, SourceFile, SourceMap};

/// The sources of a case; places in the rest of it become offsets.
pub fn sources(input: &mut Value) -> SourceMap {
    let mut sources = SourceMap::default();
    let mut texts = Vec::new();
    for source in input["sources"].as_array().into_iter().flatten() {
        let text = source["text"].as_str().expect("text").to_owned();
        let name = source["name"].as_str().expect("name").to_owned();
        let language = source["language"].as_str().unwrap_or_default().to_owned();
        sources.add(SourceFile { name, language, text: text.as_bytes().into() });
        texts.push(text);
    }
    locate(input, &texts);
    sources
}

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

/// An object with what it leaves out.
pub fn with_defaults(value: &Value, defaults: Value) -> Value {
    let mut out = defaults;
    let object = out.as_object_mut().expect("an object");
    for (key, value) in value.as_object().expect("an object") {
        object.insert(key.clone(), value.clone());
    }
    out
}

/// A diagnostic, absent fields at their defaults.
pub fn diagnostic(value: &Value) -> Diagnostic {
    let mut value = with_defaults(
        value,
        json!({"severity": "error", "code": null, "labels": [], "help": null, "url": null, "attrs": []}),
    );
    for label in value["labels"].as_array_mut().expect("labels") {
        *label = with_defaults(label, json!({"text": "", "primary": true}));
    }
    serde_json::from_value(value).expect("a diagnostic")
}

/// A failure, absent fields at their defaults.
pub fn failure(value: &Value) -> Failure {
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
