//! The page about keys and the JSON Schema, made from the table that documents are checked by.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use wbuild_yaml::schema::{DOCUMENT, Is, Object};

/// All mappings, each once, in the order in which they are mentioned.
pub fn objects() -> Vec<&'static Object> {
    let mut found: Vec<&'static Object> = vec![&DOCUMENT];
    let mut at = 0;
    while let Some(object) = found.get(at).copied() {
        let mut names: BTreeSet<&str> = found.iter().map(|object| object.name).collect();
        for key in object.keys {
            let more: &[&'static Object] = match &key.is {
                Is::Object(object) | Is::Named(object) => std::slice::from_ref(object),
                Is::Objects(objects) => objects,
                _ => &[],
            };
            found.extend(more.iter().filter(|object| names.insert(object.name)));
        }
        at += 1;
    }
    found
}

fn id(object: &Object) -> String {
    let words = object.name.replace('`', "");
    words.rsplit(' ').next().unwrap_or_default().to_owned()
}

/// What a value is, in words.
fn kind(is: &Is) -> String {
    let list =
        |names: &[&str]| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    match is {
        Is::Text => "text".to_owned(),
        Is::Choice(choices) => list(choices),
        Is::Switch => "`true`, `false`".to_owned(),
        Is::Texts => "text or list".to_owned(),
        Is::List => "list".to_owned(),
        Is::Map => "names and texts".to_owned(),
        Is::Names => "list of names, or names and defaults".to_owned(),
        Is::Object(object) => object.name.to_owned(),
        Is::Objects([object]) => format!("list: {}", object.name),
        Is::Objects(_) => "list of steps".to_owned(),
        Is::Named(object) => format!("names and {}s", object.name.trim_start_matches("a "))
            .replace("artifactss", "artifacts"),
    }
}

/// The tables of the page.
pub fn page() -> String {
    let mut out = String::new();
    for object in objects() {
        let title = object.name.trim_start_matches("a ");
        let mut letters = title.chars();
        let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
        let _ = write!(
            out,
            "### {first}{}\n\n{}.\n\n| key | | |\n| --- | --- | --- |\n",
            letters.as_str(),
            object.about
        );
        for key in object.keys {
            let required = if key.required { ", required" } else { "" };
            let _ =
                writeln!(out, "| `{}` | {}{required} | {} |", key.name, kind(&key.is), key.about);
        }
        out.push('\n');
    }
    out
}

/// The JSON Schema.
pub fn schema() -> Value {
    let text = || json!({"type": ["string", "number", "boolean"]});
    let of = |object: &Object| json!({"$ref": format!("#/$defs/{}", id(object))});
    let value = |is: &Is| -> Value {
        match is {
            Is::Text => text(),
            Is::Choice(["1"]) => json!({"enum": [1, "1"]}),
            Is::Choice(choices) => json!({ "enum": choices }),
            Is::Switch => json!({"type": "boolean"}),
            Is::Texts => {
                json!({"anyOf": [text(), {"type": "array", "minItems": 1, "items": text()}]})
            }
            Is::List => json!({"type": "array", "minItems": 1, "items": text()}),
            Is::Map => json!({"type": "object", "additionalProperties": text()}),
            Is::Names => json!({"anyOf": [
                {"type": "array", "items": {"type": "string"}},
                {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}},
            ]}),
            Is::Object(object) => of(object),
            Is::Objects([object]) => json!({"type": "array", "items": of(object)}),
            Is::Objects(objects) => {
                json!({"type": "array", "items": {"oneOf": objects.iter().map(|o| of(o)).collect::<Vec<_>>()}})
            }
            Is::Named(object) => json!({"type": "object", "additionalProperties": of(object)}),
        }
    };
    let object = |object: &Object| -> Value {
        let properties: Map<String, Value> = object
            .keys
            .iter()
            .map(|key| {
                let mut value = value(&key.is);
                value["description"] = json!(key.about);
                (key.name.to_owned(), value)
            })
            .collect();
        let required: Vec<&str> =
            object.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
        json!({
            "description": object.about,
            "type": "object",
            "properties": properties,
            "patternProperties": {"^x-": {}},
            "additionalProperties": false,
            "required": required,
        })
    };
    let defs: Map<String, Value> =
        objects()[1..].iter().map(|other| (id(other), object(other))).collect();
    let mut schema = object(&DOCUMENT);
    let mut out = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "wbuild build in YAML",
    });
    if let (Some(out), Some(schema)) = (out.as_object_mut(), schema.as_object_mut()) {
        out.append(schema);
        out.insert("$defs".to_owned(), Value::Object(defs));
    }
    out
}
