//! `RUN`, and commands that are run to know something: conditions.

use wbuild_dockerfile::ast::Command;
use wbuild_dockerfile::lexer::{Json, json_array, shown};
use wbuild_dockerfile::suggest::did_you_mean;
use wbuild_dockerfile::{Diagnostic, Text, TextBuilder};

use super::{Parser, mount};
use crate::Code;
use crate::ast::{Mount, Run};
use crate::flags::{self, Flags, is_literal};
use crate::lex::Line;

/// Words with one blank between them, as the shell gets them.
fn joined(line: &Line, at: usize) -> Text {
    let words = &line.words[at..];
    let mut builder = TextBuilder::like(&words[0]);
    for (number, word) in words.iter().enumerate() {
        if number > 0 {
            let gap = line.starts[at + number] - 1;
            builder.push_char(' ', &line.text, gap..gap + 1);
        }
        builder.push(word, 0..word.len());
    }
    builder.finish()
}

impl Parser {
    /// A command with flags, whose name takes `at` words.
    pub(super) fn run(&mut self, name: &'static str, line: &Line, at: usize) -> Option<Run> {
        let before = self.problems.len();
        let (flags, at) = flags::read(name, line, at, &self.features, &mut self.problems);
        let mounts = self.mounts(&flags);
        self.network(&flags);
        let rest = line.rest(at);
        if rest.is_empty() {
            let help = match name {
                "RUN" if flags.get("entrypoint").is_some() => "",
                "RUN" => "write e.g. `RUN make`",
                _ => "a condition is a command, e.g. `IF [ -f Makefile ]`",
            };
            if !help.is_empty() {
                if self.problems.len() > before {
                    // The command may have been taken for the value of a flag.
                    return None;
                }
                self.missing(line.words[0].span(), format!("{name} needs a command"), help);
                return None;
            }
        }
        let command = match json_array(&rest) {
            Json::Strings(words) if words.is_empty() => {
                self.missing(
                    rest.span(),
                    format!("the command of {name} is empty"),
                    "name a program",
                );
                return None;
            }
            Json::Strings(words) => Command::Exec(words),
            Json::Mixed(element) => {
                let help = "put double quotes around every element, numbers too";
                let message = format!("the array of {name} may hold strings only");
                self.error(Code::InvalidJson, element.span(), message, help);
                return None;
            }
            Json::Other if rest.is_empty() => Command::Shell(rest),
            Json::Other => Command::Shell(joined(line, at)),
        };
        (self.problems.len() == before).then_some(Run { flags, command, mounts })
    }

    fn network(&mut self, flags: &Flags) {
        let Some(value) = flags.value("network") else { return };
        if is_literal(value) && value.as_str() != "none" {
            let message = format!("`--network` cannot be {}", shown(value));
            let help = "write `--network=none`, or leave it out";
            self.error(Code::InvalidFlag, value.span(), message, help);
        }
    }

    pub(super) fn mounts(&mut self, flags: &Flags) -> Vec<Mount> {
        let mut mounts = Vec::new();
        for text in flags.list("mount") {
            // Quotes around the whole value are taken off before it is split.
            let text = match text.as_bytes() {
                [quote @ (b'"' | b'\''), .., last] if quote == last => {
                    text.slice(1..text.len() - 1)
                }
                _ => text.clone(),
            };
            if mount::is_open(&text) {
                mounts.push(Mount { text, fields: Vec::new() });
                continue;
            }
            match mount::read(&text) {
                Ok(mount) => mounts.push(mount),
                Err(problems) => problems.into_iter().for_each(|problem| self.report(problem)),
            }
        }
        mounts
    }

    /// A value that is known must be one of these.
    pub(super) fn one_of(&mut self, what: &str, code: Code, value: &Text, known: &[&'static str]) {
        one_of(what, code, value, known).into_iter().for_each(|problem| self.report(problem));
    }
}

/// What is wrong with a value that is known, if it is not one of these.
pub(super) fn one_of(
    what: &str,
    code: Code,
    value: &Text,
    known: &[&'static str],
) -> Option<Diagnostic> {
    if !is_literal(value) || known.contains(&value.as_str()) {
        return None;
    }
    let list = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    Some(
        Diagnostic::error(code, value.span(), format!("{what} cannot be {}", shown(value)))
            .help(format!("it is one of {list}"))
            .maybe_help(did_you_mean(value, known.iter().copied())),
    )
}
