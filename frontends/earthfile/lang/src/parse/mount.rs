//! `--mount` of what runs processes.
//!
//! A mount that a variable stands for is read by the same function as every other one, when the
//! variable is known.

use wbuild_dockerfile::lexer::{mount_fields, shown};
use wbuild_dockerfile::suggest::did_you_mean;
use wbuild_dockerfile::{Diagnostic, Text};

use super::run::one_of;
use crate::Code;
use crate::ast::Mount;

/// Keys of a mount with the name that stands for them.
const KEYS: [(&str, &str); 7] = [
    ("type", "type"),
    ("target", "target"),
    ("mode", "mode"),
    ("chmod", "mode"),
    ("id", "id"),
    ("source", "source"),
    ("sharing", "sharing"),
];

const TYPES: [&str; 3] = ["cache", "tmpfs", "secret"];

// What follows is known, but not supported: that is said where a command with it is carried out.

/// A directory of the machine that builds.
pub(crate) const BIND: &str = "bind-experimental";

/// An agent; this one needs no target.
pub(crate) const SSH: &str = "ssh-experimental";

/// How caches are shared.
pub(crate) const SHARING: [&str; 3] = ["locked", "shared", "private"];

/// Whether a variable stands for keys of the mount.
pub(super) fn is_open(text: &str) -> bool {
    text.split(',').any(|word| word.split('=').next().is_some_and(|key| key.contains('$')))
}

/// Splits a mount, and looks at what can be known of it: at least one problem if it is not well
/// formed.
pub(crate) fn read(text: &Text) -> Result<Mount, Vec<Diagnostic>> {
    let error = |at, message: String, help: &str| {
        Diagnostic::error(Code::InvalidMount, at, message).help(help)
    };
    let mut problems = Vec::new();
    let mut fields: Vec<(&'static str, Text)> = Vec::new();
    for word in mount_fields(text).map_err(|problem| vec![problem])? {
        if matches!(word.as_str(), "ro" | "readonly") {
            fields.push(("readonly", word));
            continue;
        }
        let Some((name, value)) = word.split_once('=') else {
            let help = "write it without blanks: `--mount=type=cache,target=/x`";
            let message = format!("{} is not `key=value`", shown(&word));
            problems.push(error(word.span(), message, help));
            continue;
        };
        match KEYS.iter().find(|(key, _)| *key == name.as_str()) {
            Some((_, key)) => fields.push((key, value)),
            None => problems.push(
                error(
                    name.span(),
                    format!("a mount has no key {}", shown(&name)),
                    "the keys are `type`, `target`, `id`, `sharing`, `chmod` and `readonly`",
                )
                .maybe_help(did_you_mean(&name, KEYS.iter().map(|(key, _)| *key))),
            ),
        }
    }
    for (key, known) in [("type", &TYPES[..]), ("sharing", &SHARING[..])] {
        let value = fields.iter().rev().find(|(name, _)| *name == key).map(|(_, value)| value);
        if let Some(value) = value.filter(|value| !matches!(value.as_str(), BIND | SSH)) {
            let what = format!("`{key}` of a mount");
            problems.extend(one_of(&what, Code::InvalidMount, value, known));
        }
    }
    let agent = fields.iter().any(|(name, value)| *name == "type" && value.as_str() == SSH);
    let needed = if agent { &["type"][..] } else { &["type", "target"] };
    let missing = needed.iter().find(|key| !fields.iter().any(|(name, _)| name == *key));
    if let Some(key) = missing.filter(|_| problems.is_empty()) {
        let help = "write e.g. `--mount=type=cache,target=/var/cache/apt`";
        problems.push(error(text.span(), format!("the mount has no `{key}`"), help));
    }
    match problems.is_empty() {
        true => Ok(Mount { text: text.clone(), fields }),
        false => Err(problems),
    }
}
