//! What is different between two values.

use serde::Serialize;
use serde_json::{Map, Value};

/// A field that is different.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Which: `args[2]`, `env PATH`, `mounts /src.from`.
    pub field: String,
    /// What it was; none if it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// What it is; none if it is not there any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// What is different, by paths that begin with `field`.
pub(super) fn compare(field: &str, old: &Value, new: &Value) -> Vec<Change> {
    let mut out = Vec::new();
    values(field, old, new, &mut out);
    out
}

fn values(field: &str, old: &Value, new: &Value, out: &mut Vec<Change>) {
    match (old, new) {
        _ if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            objects(&|name| join(field, ".", name), old, new, out);
        }
        (Value::Array(old), Value::Array(new)) => arrays(field, old, new, out),
        _ => {
            let there = |value: &Value| (!value.is_null()).then(|| value.clone());
            out.push(Change { field: field.to_owned(), old: there(old), new: there(new) });
        }
    }
}

fn join(field: &str, between: &str, name: &str) -> String {
    if field.is_empty() { name.to_owned() } else { format!("{field}{between}{name}") }
}

fn objects(
    path: &dyn Fn(&str) -> String,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    out: &mut Vec<Change>,
) {
    let none = Value::Null;
    for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
        let (was, is) = (old.get(name).unwrap_or(&none), new.get(name).unwrap_or(&none));
        values(&path(name), was, is, out);
    }
}

/// Lists whose items have names are compared by them; others from both ends towards the middle.
fn arrays(field: &str, old: &[Value], new: &[Value], out: &mut Vec<Change>) {
    // As many objects with other names have been given another name, rather than replaced.
    let renamed = |was: &Map<String, Value>, is: &Map<String, Value>| {
        let objects = new.first().is_some_and(Value::is_object);
        objects && old.len() == new.len() && was.keys().any(|name| !is.contains_key(name))
    };
    if let (Some(was), Some(is)) = (by_name(old), by_name(new))
        && !renamed(&was, &is)
    {
        let before = out.len();
        objects(&|name| join(field, " ", name), &was, &is, out);
        if out.len() == before {
            let all = |list: &[Value]| Some(Value::Array(list.to_vec()));
            out.push(Change { field: format!("order of {field}"), old: all(old), new: all(new) });
        }
        return;
    }
    let ahead = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - ahead;
    let behind = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b);
    let behind = behind.count();
    let (was, is) = (&old[ahead..old.len() - behind], &new[ahead..new.len() - behind]);
    for at in 0..was.len().max(is.len()) {
        let none = Value::Null;
        let (was, is) = (was.get(at).unwrap_or(&none), is.get(at).unwrap_or(&none));
        values(&format!("{field}[{}]", ahead + at), was, is, out);
    }
}

/// The items of a list by name, if each has one of its own: `NAME=VALUE`, or what has a target, a path
/// or a name.
fn by_name(list: &[Value]) -> Option<Map<String, Value>> {
    let mut out = Map::new();
    for item in list {
        let (name, value) = match item {
            Value::String(text) => {
                let (name, value) = text.split_once('=')?;
                let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
                if name.is_empty() || !name.chars().all(plain) {
                    return None;
                }
                (name, Value::from(value))
            }
            Value::Object(object) => {
                let names = ["target", "path", "name"];
                let name = names.iter().find_map(|key| object.get(*key)?.as_str())?;
                (name, item.clone())
            }
            _ => return None,
        };
        if out.insert(name.to_owned(), value).is_some() {
            return None;
        }
    }
    Some(out)
}
