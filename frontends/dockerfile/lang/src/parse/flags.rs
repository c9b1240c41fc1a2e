//! Checking `--name=value` words against what an instruction knows.

use std::collections::BTreeMap;

use super::Parser;
use crate::suggest::closest;
use crate::text::shown;
use crate::words::{self, Flag};
use crate::{Code, Diagnostic, Text};

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// `--link`, `--link=true`, `--link=false`.
    Switch,
    /// `--from=build`, at most once.
    Value,
    /// `--exclude=*.md`, any number of times.
    List,
}

/// The flags of one instruction; each is known and well formed.
#[derive(Default)]
pub(super) struct Flags(Vec<Flag>);

impl Flags {
    /// The value of a flag that stands at most once.
    pub fn value(&mut self, name: &str) -> Option<Text> {
        let at = self.0.iter().position(|flag| flag.name.as_str() == name)?;
        self.0.remove(at).value
    }

    /// All values of a flag, in order.
    pub fn list(&self, name: &str) -> Vec<Text> {
        let named = self.0.iter().filter(|flag| flag.name.as_str() == name);
        named.filter_map(|flag| flag.value.clone()).collect()
    }

    /// How a switch is set, if it is.
    pub fn switch(&self, name: &str) -> Option<bool> {
        let flag = self.0.iter().find(|flag| flag.name.as_str() == name)?;
        Some(flag.value.as_ref().is_none_or(|value| switch(value) != Some(false)))
    }
}

fn switch(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// The instruction that knows a flag which another one does not.
fn elsewhere(name: &str) -> Option<&'static str> {
    Some(match name {
        "mount" | "network" | "security" | "device" => "RUN",
        "checksum" | "keep-git-dir" | "unpack" => "ADD",
        "from" | "parents" => "COPY",
        "chown" | "chmod" | "link" | "exclude" => "COPY and ADD",
        "platform" => "FROM",
        "interval" | "timeout" | "start-period" | "start-interval" | "retries" => "HEALTHCHECK",
        _ => return None,
    })
}

impl Parser<'_, '_> {
    /// Takes the flags off the start of `rest`. None if one of them is wrong.
    pub(super) fn flags(
        &mut self,
        instruction: &str,
        rest: &Text,
        known: &[(&'static str, Type)],
    ) -> Option<(Flags, Text)> {
        let (flags, rest) = words::flags(rest);
        let before = self.problems.len();
        let mut seen: BTreeMap<&str, &Flag> = BTreeMap::new();
        for flag in &flags {
            self.flag(instruction, flag, known);
            let listed =
                known.iter().any(|(name, kind)| *name == flag.name.as_str() && *kind == Type::List);
            let first = *seen.entry(&flag.name).or_insert(flag);
            if !listed && !std::ptr::eq(first, flag) {
                self.report(
                    Diagnostic::error(
                        Code::RepeatedFlag,
                        flag.word.span(),
                        format!("`--{}` is given twice", flag.name),
                    )
                    .related(first.word.span(), "first given here")
                    .help("keep one of them"),
                );
            }
        }
        (self.problems.len() == before).then_some((Flags(flags), rest))
    }

    fn flag(&mut self, instruction: &str, flag: &Flag, known: &[(&'static str, Type)]) {
        let Some((_, kind)) = known.iter().find(|(name, _)| *name == flag.name.as_str()) else {
            let list = known.iter().map(|(name, _)| format!("--{name}")).collect::<Vec<_>>();
            let help = match (elsewhere(&flag.name), list.is_empty()) {
                (Some(other), _) => format!("it is a flag of {other}"),
                (None, true) => format!(
                    "{instruction} has no flags; write `--` before an argument that starts with dashes"
                ),
                (None, false) => format!("{instruction} knows {}", list.join(", ")),
            };
            let close = closest(&flag.name, known.iter().map(|(name, _)| *name));
            self.report(
                Diagnostic::error(
                    Code::UnknownFlag,
                    flag.word.span_of(0..flag.name.len() + 2),
                    format!("{instruction} has no flag {}", shown(&format!("--{}", flag.name))),
                )
                .help(help)
                .maybe_help(close.map(|name| format!("did you mean `--{name}`?"))),
            );
            return;
        };
        match (kind, &flag.value) {
            (Type::Switch, None) => {}
            (Type::Switch, Some(value)) if switch(value).is_some() => {}
            (Type::Switch, Some(value)) if value.is_empty() => self.report(
                Diagnostic::error(
                    Code::InvalidFlag,
                    flag.word.span(),
                    format!("`--{}` has nothing behind its `=`", flag.name),
                )
                .help(format!("write `--{0}` or `--{0}=false`", flag.name)),
            ),
            (Type::Switch, Some(value)) => self.report(
                Diagnostic::error(
                    Code::InvalidFlag,
                    value.span(),
                    format!("`--{}` is either on or off, not {}", flag.name, shown(value)),
                )
                .help(format!("write `--{0}` or `--{0}=false`", flag.name)),
            ),
            (_, Some(_)) => {}
            (_, None) => self.report(
                Diagnostic::error(
                    Code::InvalidFlag,
                    flag.word.span(),
                    format!("`--{}` needs a value", flag.name),
                )
                .help(format!("write `--{}=…` without a blank around the `=`", flag.name)),
            ),
        }
    }
}
