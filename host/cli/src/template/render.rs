//! What a template makes of a document.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Expression, Function, Node};

/// Most bytes that a template makes.
const MAX_OUTPUT: usize = 64 << 20;

/// Appends what nodes make; `dot` is what they are about, `top` the whole document.
pub(super) fn render(
    nodes: &[Node],
    dot: &Value,
    top: &Value,
    out: &mut String,
) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Show(what) => out.push_str(&show(&value(what, dot, top)?)),
            Node::If(what, body, other) => {
                let branch = if truth(&value(what, dot, top)?) { body } else { other };
                render(branch, dot, top, out)?;
            }
            Node::Range(what, body, other) => {
                let list: Vec<Value> = match value(what, dot, top)? {
                    Value::Array(list) => list,
                    Value::Object(map) => {
                        // As Go goes through them.
                        let mut sorted: Vec<(String, Value)> = map.into_iter().collect();
                        sorted.sort_by(|a, b| a.0.cmp(&b.0));
                        sorted.into_iter().map(|(_, value)| value).collect()
                    }
                    Value::Null => Vec::new(),
                    other => return Err(format!("range cannot go through {other}")),
                };
                if list.is_empty() {
                    render(other, dot, top, out)?;
                }
                for item in &list {
                    render(body, item, top, out)?;
                }
            }
        }
        if out.len() > MAX_OUTPUT {
            return Err(format!("it makes more than {MAX_OUTPUT} bytes"));
        }
    }
    Ok(())
}

fn value(what: &Expression, dot: &Value, top: &Value) -> Result<Value, String> {
    match what {
        Expression::Constant(value) => Ok(value.clone()),
        Expression::Path(path) => {
            let mut found = dot;
            for (depth, name) in path.iter().enumerate() {
                found = match member(found, name) {
                    Some(value) => value,
                    None if depth == 0 && std::ptr::eq(dot, top) => {
                        let names = top.as_object().into_iter().flat_map(|map| map.keys());
                        let names: Vec<String> = names.map(|name| format!(".{name}")).collect();
                        return Err(format!("there is no .{name}, only {}", names.join(", ")));
                    }
                    None => return Ok(Value::Null),
                };
            }
            Ok(found.clone())
        }
        Expression::Of(what, names) => {
            let mut found = value(what, dot, top)?;
            for name in names {
                found = member(&found, name).cloned().unwrap_or_default();
            }
            Ok(found)
        }
        Expression::Call(function, given) => {
            let values = given.iter().map(|what| value(what, dot, top));
            let values = values.collect::<Result<Vec<Value>, String>>()?;
            call(*function, values)
        }
    }
}

fn call(function: Function, values: Vec<Value>) -> Result<Value, String> {
    let text = |values: &[Value]| {
        let shown: Vec<String> = values.iter().map(show).collect();
        shown.join(" ")
    };
    Ok(match function {
        Function::Json => Value::from(
            serde_json::to_string_pretty(&values[0]).expect("keys are strings, so it is JSON"),
        ),
        Function::Println => Value::from(text(&values) + "\n"),
        Function::Print => Value::from(text(&values)),
        Function::Len => match &values[0] {
            Value::Array(list) => list.len().into(),
            Value::Object(map) => map.len().into(),
            Value::String(text) => text.len().into(),
            Value::Null => 0.into(),
            other => return Err(format!("{other} has no length")),
        },
        Function::Index => {
            let mut values = values.into_iter();
            let mut found = values.next().unwrap_or_default();
            for key in values {
                found = match (&found, &key) {
                    (Value::Object(map), Value::String(key)) => map.get(key).cloned(),
                    (Value::Array(list), Value::Number(at)) => {
                        let at = at.as_u64().and_then(|at| usize::try_from(at).ok());
                        let item = at.and_then(|at| list.get(at)).cloned();
                        Some(item.ok_or_else(|| format!("there is no entry {key}"))?)
                    }
                    (Value::Null, _) => None,
                    _ => return Err(format!("{key} is no index of it")),
                }
                .unwrap_or_default();
            }
            found
        }
    })
}

/// The member that Go's types call by this name: `OSVersion` is `os.version`.
fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let map = value.as_object()?;
    map.get(name).or_else(|| map.iter().find(|(key, _)| same(key, name)).map(|(_, value)| value))
}

/// Whether Go's name and a document's are the same.
pub(super) fn same(a: &str, b: &str) -> bool {
    let plain = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
    };
    plain(a) == plain(b)
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let shown: Vec<String> = list.iter().map(show).collect();
            format!("[{}]", shown.join(" "))
        }
        Value::Object(map) => {
            let mut sorted: Vec<(&String, &Value)> = map.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            let mut out = String::from("map[");
            for (at, (key, value)) in sorted.into_iter().enumerate() {
                let gap = if at > 0 { " " } else { "" };
                let _ = write!(out, "{gap}{key}:{}", show(value));
            }
            out + "]"
        }
        other => other.to_string(),
    }
}
