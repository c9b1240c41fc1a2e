//! The gate between a runner and the runtime: what of an edited spec is accepted.
//!
//! A runner is handed the base spec as JSON and returns an edited one. [`clamp`] compares the two
//! value by value and accepts a difference only if a rule here names it and it takes privileges
//! away or is granted. So a field this host does not know is a difference without a rule, and
//! refused; nothing is dropped silently.
//!
//! | field | may |
//! | --- | --- |
//! | `process.args` | gain a prefix that starts with the target of a granted tool's mount |
//! | `process.env` | gain variables of the allow-list that are not set yet |
//! | `process.noNewPrivileges`, `root.readonly` | become true |
//! | `process.capabilities.*` | lose entries |
//! | `process.rlimits` | become lower |
//! | `linux.maskedPaths`, `linux.readonlyPaths` | gain entries |
//! | `mounts` | change order where neither lies above the other, gain strict options, gain granted tools read-only |
//! | `annotations` | gain `org.wbuild.*` |
//!
//! The result is built from the parsed value, so no two parsers ever read the runner's bytes.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use oci_spec::runtime::Spec;
use serde_json::Value;
use wbuild_graph::{Failure, FailureKind};

use crate::spec::to_json;

/// Largest edited spec in bytes.
pub const SPEC_LIMIT: usize = 1 << 20;

/// Prefix of the token that names a granted tool as a mount source.
pub const TOOL_TOKEN: &str = "tool:";

/// Options that only take something away from a mount, and the option each one undoes.
const STRICT: [(&str, &str); 5] = [
    ("ro", "rw"),
    ("nosuid", "suid"),
    ("nodev", "dev"),
    ("noexec", "exec"),
    ("nosymfollow", "symfollow"),
];

/// What policy lets a runner add.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// Names of host tools that may be mounted read-only.
    pub tools: BTreeSet<String>,
    /// Targets at which the runner has bound granted tools through the plan interface.
    pub bound: BTreeSet<String>,
    /// Names of variables that may be added.
    pub env: BTreeSet<String>,
}

/// An accepted edit.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The spec to run; mount sources are still tokens.
    pub spec: Spec,
    /// Tools that are mounted: name and target.
    pub tools: Vec<(String, String)>,
}

/// Checks `edited`, a runner's answer, against `base`, and returns what to run.
///
/// Fails with `Denied` on any difference without a rule that accepts it, naming the field; with
/// `Invalid` or `Limit` on what is no spec.
pub fn clamp(base: &Spec, edited: &str, grants: &Grants) -> Result<Plan, Failure> {
    if edited.len() > SPEC_LIMIT {
        return Err(Failure::new(
            FailureKind::Limit,
            format!("the runner's spec has {} bytes, more than {SPEC_LIMIT}", edited.len()),
        ));
    }
    let mut edited: Value = serde_json::from_str(edited)
        .map_err(|error| Failure::invalid("the runner's spec is no JSON").cause(&error))?;
    let mut base = to_json(base);
    drop_nulls(&mut base);
    drop_nulls(&mut edited);
    let mut gate = Gate { grants, tools: Vec::new() };
    gate.compare("", &base, &edited)?;
    gate.args(&base, &edited)?;
    let spec = serde_json::from_value(edited).map_err(|error| {
        Failure::invalid("the runner's spec is no OCI runtime spec").cause(&error)
    })?;
    Ok(Plan { spec, tools: gate.tools })
}

/// A null means that the field is not there.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn denied(path: &str, why: &str) -> Failure {
    let path = if path.is_empty() { "/" } else { path };
    Failure::new(FailureKind::Denied, format!("the runner may not change {path}: {why}"))
        .attr("path", path)
}

struct Gate<'a> {
    grants: &'a Grants,
    tools: Vec<(String, String)>,
}

impl Gate<'_> {
    /// Walks both values; `path` is a JSON pointer (RFC 6901).
    fn compare(&mut self, path: &str, base: &Value, edited: &Value) -> Result<(), Failure> {
        match path {
            // Looked at when the tools are known.
            "/process/args" => return Ok(()),
            "/process/env" => return self.env(path, base, edited),
            "/process/noNewPrivileges" | "/root/readonly" => {
                return match (base, edited) {
                    (_, Value::Bool(true)) | (Value::Bool(false), Value::Bool(false)) => Ok(()),
                    _ => Err(denied(path, "it can only be set")),
                };
            }
            "/process/rlimits" => return rlimits(path, base, edited),
            "/linux/maskedPaths" | "/linux/readonlyPaths" => return superset(path, base, edited),
            "/mounts" => return self.mounts(path, base, edited),
            _ if path.starts_with("/process/capabilities/") => return subset(path, base, edited),
            _ => {}
        }
        match (base, edited) {
            (Value::Object(base), Value::Object(edited)) => {
                let keys: BTreeSet<&String> = base.keys().chain(edited.keys()).collect();
                for key in keys {
                    let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                    match (base.get(key), edited.get(key)) {
                        (Some(base), Some(edited)) => self.compare(&path, base, edited)?,
                        (Some(base), None) => removed(&path, base)?,
                        (None, Some(edited)) => self.added(&path, edited)?,
                        (None, None) => {}
                    }
                }
                Ok(())
            }
            _ if base == edited => Ok(()),
            _ => Err(denied(path, "the value differs")),
        }
    }

    fn added(&mut self, path: &str, edited: &Value) -> Result<(), Failure> {
        match path {
            "/annotations" => {
                let Value::Object(map) = edited else {
                    return Err(denied(path, "it is no object"));
                };
                for (key, value) in map {
                    self.annotation(&format!("{path}/{key}"), key, value)?;
                }
                Ok(())
            }
            "/process/noNewPrivileges" | "/root/readonly" if *edited == Value::Bool(true) => Ok(()),
            "/linux/maskedPaths" | "/linux/readonlyPaths" => {
                superset(path, &Value::Array(Vec::new()), edited)
            }
            "/process/env" => self.env(path, &Value::Array(Vec::new()), edited),
            _ => match path.strip_prefix("/annotations/") {
                Some(key) => self.annotation(path, key, edited),
                None => Err(denied(path, "it is not in the base spec")),
            },
        }
    }

    fn annotation(&self, path: &str, key: &str, value: &Value) -> Result<(), Failure> {
        if !key.starts_with("org.wbuild.") || !value.is_string() {
            return Err(denied(path, "only annotations of org.wbuild.* can be added, as strings"));
        }
        Ok(())
    }

    /// The base's variables in order, with granted new ones anywhere between them.
    fn env(&self, path: &str, base: &Value, edited: &Value) -> Result<(), Failure> {
        let (base, edited) = (strings(path, base)?, strings(path, edited)?);
        let name = |variable: &str| variable.split('=').next().unwrap_or("").to_owned();
        let set: BTreeSet<String> = base.iter().map(|v| name(v)).collect();
        let mut rest = base.iter().peekable();
        let mut seen = BTreeSet::new();
        for variable in &edited {
            if rest.peek() == Some(&variable) {
                rest.next();
                continue;
            }
            let name = name(variable);
            let granted = self.grants.env.contains(&name) && variable.contains('=');
            if !granted || variable.contains('\0') {
                return Err(denied(path, &format!("the variable {name:?} is not granted")));
            }
            if set.contains(&name) || !seen.insert(name.clone()) {
                return Err(denied(path, &format!("the variable {name:?} is already set")));
            }
        }
        match rest.next() {
            None => Ok(()),
            Some(variable) => Err(denied(
                path,
                &format!("the variable {:?} was dropped or moved", name(variable)),
            )),
        }
    }

    fn mounts(&mut self, path: &str, base: &Value, edited: &Value) -> Result<(), Failure> {
        let (Value::Array(base), Value::Array(edited)) = (base, edited) else {
            return Err(denied(path, "it is no list"));
        };
        // Each of the base's mounts must come back once. They are told apart by everything but
        // their options; equal ones pair up in order.
        let mut order: Vec<Option<usize>> = Vec::new();
        let mut taken = vec![false; base.len()];
        for (number, mount) in edited.iter().enumerate() {
            let path = format!("{path}/{number}");
            if let Some(name) = mount
                .get("source")
                .and_then(Value::as_str)
                .and_then(|source| source.strip_prefix(TOOL_TOKEN))
            {
                self.tool(&path, name, mount, base)?;
                order.push(None);
                continue;
            }
            let found = base.iter().enumerate().find(|(at, original)| {
                !taken[*at] && without_options(original) == without_options(mount)
            });
            let Some((at, original)) = found else {
                return Err(denied(&path, "the base spec has no such mount"));
            };
            stricter(&path, original, mount)?;
            taken[at] = true;
            order.push(Some(at));
        }
        if let Some(missing) = taken.iter().position(|taken| !taken) {
            return Err(denied(
                path,
                &format!("the mount at {} was dropped", target(&base[missing])),
            ));
        }
        // A later mount hides an earlier one at or below its target: such pairs keep their order.
        let kept: Vec<usize> = order.iter().flatten().copied().collect();
        for (position, late) in kept.iter().enumerate() {
            for early in &kept[position + 1..] {
                if early < late && related(target(&base[*early]), target(&base[*late])) {
                    return Err(denied(
                        path,
                        &format!(
                            "the mounts at {} and {} changed places, and one hides the other",
                            target(&base[*early]),
                            target(&base[*late])
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// A mount of a granted tool: read-only, at a path that is nobody else's.
    fn tool(
        &mut self,
        path: &str,
        name: &str,
        mount: &Value,
        base: &[Value],
    ) -> Result<(), Failure> {
        if !self.grants.tools.contains(name) {
            return Err(denied(path, &format!("the tool {name:?} is not granted")));
        }
        let Some(fields) = mount.as_object() else {
            return Err(denied(path, "it is no object"));
        };
        if let Some(other) = fields
            .keys()
            .find(|key| !matches!(key.as_str(), "destination" | "source" | "type" | "options"))
        {
            return Err(denied(path, &format!("a tool's mount has no {other:?}")));
        }
        if fields.get("type").and_then(Value::as_str) != Some("bind") {
            return Err(denied(path, "a tool's mount is a bind mount"));
        }
        let options = strings(path, fields.get("options").unwrap_or(&Value::Null))?;
        let allowed = |option: &String| {
            matches!(option.as_str(), "bind" | "rbind" | "private" | "rprivate")
                || STRICT.iter().any(|(strict, _)| strict == option)
        };
        if !options.iter().all(allowed) || !options.iter().any(|o| o == "ro") {
            return Err(denied(
                path,
                "a tool is mounted read-only, with no other option than stricter ones",
            ));
        }
        let target_path = target(mount);
        if !clean(target_path)
            || ["/proc", "/sys", "/dev", "/etc"].iter().any(|system| related(system, target_path))
            || base.iter().any(|other| related(target(other), target_path))
            || self.tools.iter().any(|(_, other)| related(other, target_path))
        {
            return Err(denied(path, &format!("a tool cannot be mounted at {target_path:?}")));
        }
        self.tools.push((name.to_owned(), target_path.to_owned()));
        Ok(())
    }

    /// The original command at the end; before it nothing, or a granted tool and its arguments.
    fn args(&self, base: &Value, edited: &Value) -> Result<(), Failure> {
        let path = "/process/args";
        let list = |value: &Value| strings(path, value.pointer(path).unwrap_or(&Value::Null));
        let (base, edited) = (list(base)?, list(edited)?);
        let Some(prefix) = edited.strip_suffix(base.as_slice()) else {
            return Err(denied(path, "the command was dropped or changed"));
        };
        let Some(program) = prefix.first() else { return Ok(()) };
        if prefix.iter().any(|arg| arg.contains('\0')) {
            return Err(denied(path, "an argument contains a NUL byte"));
        }
        let granted = self.tools.iter().any(|(_, target)| target == program)
            || self.grants.bound.contains(program);
        if granted {
            Ok(())
        } else {
            Err(denied(path, &format!("{program:?} is no granted tool's path")))
        }
    }
}

/// A field that the edit leaves out.
fn removed(path: &str, base: &Value) -> Result<(), Failure> {
    let empty = matches!(base, Value::Array(list) if list.is_empty())
        || matches!(base, Value::Object(map) if map.is_empty());
    // A guest's types may drop what is empty. Capability sets and false flags mean the same absent.
    let harmless = empty
        || path.starts_with("/process/capabilities/")
        || (matches!(path, "/process/noNewPrivileges" | "/root/readonly")
            && *base == Value::Bool(false));
    if harmless { Ok(()) } else { Err(denied(path, "it was dropped")) }
}

/// A list of strings; absent is empty.
fn strings(path: &str, value: &Value) -> Result<Vec<String>, Failure> {
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        _ => return Err(denied(path, "it is no list")),
    };
    list.iter()
        .map(|entry| entry.as_str().map(str::to_owned))
        .collect::<Option<_>>()
        .ok_or_else(|| denied(path, "an entry is no string"))
}

fn subset(path: &str, base: &Value, edited: &Value) -> Result<(), Failure> {
    let (base, edited) = (strings(path, base)?, strings(path, edited)?);
    match edited.iter().find(|entry| !base.contains(entry)) {
        None => Ok(()),
        Some(entry) => Err(denied(path, &format!("{entry} was added"))),
    }
}

fn superset(path: &str, base: &Value, edited: &Value) -> Result<(), Failure> {
    let (base, edited) = (strings(path, base)?, strings(path, edited)?);
    if let Some(entry) = base.iter().find(|entry| !edited.contains(entry)) {
        return Err(denied(path, &format!("{entry} was dropped")));
    }
    // A new entry is a path that the runtime covers inside the root.
    match edited.iter().find(|entry| !base.contains(entry) && !clean(entry)) {
        None => Ok(()),
        Some(entry) => Err(denied(path, &format!("{entry:?} is no clean absolute path"))),
    }
}

fn rlimits(path: &str, base: &Value, edited: &Value) -> Result<(), Failure> {
    let (Value::Array(base), Value::Array(edited)) = (base, edited) else {
        return Err(denied(path, "it is no list"));
    };
    if base.len() != edited.len() {
        return Err(denied(path, "limits were added or dropped"));
    }
    for (base, edited) in base.iter().zip(edited) {
        let same_type = base.get("type") == edited.get("type");
        let fields =
            edited.as_object().map(|map| map.len()) == base.as_object().map(|map| map.len());
        let value = |limit: &Value, key: &str| limit.get(key).and_then(Value::as_u64);
        let lower = |key: &str| match (value(base, key), value(edited, key)) {
            (Some(base), Some(edited)) => edited <= base,
            _ => false,
        };
        if !(same_type && fields && lower("soft") && lower("hard")) {
            return Err(denied(path, "a limit can only become lower"));
        }
    }
    Ok(())
}

fn target(mount: &Value) -> &str {
    mount.get("destination").and_then(Value::as_str).unwrap_or("")
}

fn without_options(mount: &Value) -> Value {
    let mut mount = mount.clone();
    if let Some(map) = mount.as_object_mut() {
        map.shift_remove("options");
    }
    mount
}

/// Whether `edited` has the options of `base`, in order, but for strict ones added and their
/// opposites taken away.
fn stricter(path: &str, base: &Value, edited: &Value) -> Result<(), Failure> {
    let options = |mount: &Value| strings(path, mount.get("options").unwrap_or(&Value::Null));
    let (base, edited) = (options(base)?, options(edited)?);
    let neutral = |option: &&String| {
        !STRICT.iter().any(|(strict, loose)| option == strict || option == loose)
    };
    if !base.iter().filter(neutral).eq(edited.iter().filter(neutral)) {
        return Err(denied(path, "an option was added, dropped or moved"));
    }
    // The last of a pair counts.
    let is_strict = |options: &[String], strict: &str, loose: &str| {
        options.iter().rev().find(|o| *o == strict || *o == loose).is_some_and(|o| o == strict)
    };
    for (strict, loose) in STRICT {
        if is_strict(&base, strict, loose) && !is_strict(&edited, strict, loose) {
            return Err(denied(path, &format!("it is no longer {strict}")));
        }
        // Absent and "loose" are the same; but a runner that writes the loose one means harm or is
        // confused, so it is not let through where the base did not have it.
        if edited.iter().any(|o| o == loose) && !base.iter().any(|o| o == loose) {
            return Err(denied(path, &format!("{loose} was added")));
        }
    }
    Ok(())
}

/// Absolute, and without `.`, `..`, doubled or trailing slashes or NUL.
fn clean(path: &str) -> bool {
    let normal = Path::new(path).components().skip(1).all(|c| matches!(c, Component::Normal(_)));
    path.len() > 1
        && path.starts_with('/')
        && normal
        && !path.contains('\0')
        && !path.contains("//")
        && !path.contains("/./")
        && !path.ends_with("/.")
        && !path.ends_with('/')
}

/// Whether one of two paths is the other or lies below it.
fn related(a: &str, b: &str) -> bool {
    let below = |inner: &str, outer: &str| {
        let outer = outer.trim_end_matches('/');
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    below(a, b) || below(b, a)
}

#[cfg(test)]
#[path = "clamp_tests.rs"]
mod tests;
