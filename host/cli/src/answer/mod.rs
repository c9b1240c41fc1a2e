//! Answers to questions about a definition (`--check`, `--call`): JSON for programs, in the schemas
//! that BuildKit has for them, and text for people. Pure: values in, text out.
//!
//! Places are `{"sourceIndex": 0, "ranges": [{"start": {"line": 3, "character": 5}, "end": …}]}`.
//! Lines count from 1, characters from 0; the end of a range is behind its last character. BuildKit
//! knows lines only, and leaves out what is 0.

pub mod lint;
pub mod lists;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wbuild_graph::{SourceFile, SourceMap, Span};

/// A place that a span means; none if it is in no source.
fn location(span: Span, sources: &SourceMap) -> Option<Value> {
    let source = sources.get(span.source)?;
    let mut end = span.end.max(span.start);
    // A line feed at the end belongs to the line before.
    while end > span.start && source.text.get(end as usize - 1).is_some_and(is_line_end) {
        end -= 1;
    }
    let range = json!({"start": position(source, span.start), "end": position(source, end)});
    Some(json!({"sourceIndex": span.source, "ranges": [range]}))
}

fn is_line_end(byte: &u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn position(source: &SourceFile, offset: u32) -> Value {
    let at = source.position(offset);
    json!({"line": at.line, "character": at.column - 1})
}

fn all(sources: &SourceMap) -> impl Iterator<Item = &SourceFile> {
    (0..).map_while(|index| sources.get(index))
}

/// The texts of sources, as lists of targets and parameters hold them.
fn texts(sources: &SourceMap) -> Vec<String> {
    all(sources).map(|source| STANDARD.encode(&source.text)).collect()
}

/// JSON for standard output.
pub fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("keys are strings, so it is JSON");
    text.push('\n');
    text
}

/// Takes absent values out of an object.
fn compact(value: Value) -> Value {
    let Value::Object(object) = value else { return value };
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    Value::Object(object.into_iter().filter(|(_, value)| !empty(value)).collect())
}
