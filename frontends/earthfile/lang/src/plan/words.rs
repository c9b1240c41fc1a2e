//! What words come to: variables, quotes, and `$(…)`.

use std::rc::Rc;

use wbuild_dockerfile::expand::{Lookup, Options, expand};
use wbuild_dockerfile::{Diagnostic, Failure, Text};

use super::Session;
use super::state::State;
use crate::Code;
use crate::lex::closed;

/// How much of a command's output `$(…)` may take.
const CAPTURE: u32 = 1 << 20;

/// Stands in a word for what a command has printed. No variable has such a name.
const PRINTED: &str = "__wbuild_printed_";

/// Variables, and what commands have printed.
struct Known<'s> {
    state: &'s State,
    printed: &'s [String],
}

impl Lookup for Known<'_> {
    fn lookup(&self, name: &str) -> Option<&str> {
        match name.strip_prefix(PRINTED) {
            Some(number) => self.printed.get(number.parse::<usize>().ok()?).map(String::as_str),
            None => self.state.lookup(name),
        }
    }
}

/// Where each `$(…)` of a word stands: outside of single quotes, and without a backslash.
fn commands(word: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let (mut at, mut single, mut double) = (0, false, false);
    while let Some(c) = word[at..].chars().next() {
        let end = at + c.len_utf8();
        match c {
            '\\' if !single => {
                at = end + word[end..].chars().next().map_or(0, char::len_utf8);
                continue;
            }
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            '$' if !single && word[end..].starts_with('(') => {
                if let Some(length) = closed(&word[end..]) {
                    found.push((at, end + length));
                    at = end + length;
                    continue;
                }
            }
            _ => {}
        }
        at = end;
    }
    found
}

impl<'h> Session<'h> {
    /// What a word comes to.
    pub(super) async fn word(
        self: &Rc<Self>,
        state: &State,
        word: &Text,
    ) -> Result<String, Failure> {
        Ok(self.expanded(state, word, false).await?.0)
    }

    /// What a word comes to, split at white space that nothing protects.
    pub(super) async fn split(
        self: &Rc<Self>,
        state: &State,
        word: &Text,
    ) -> Result<Vec<String>, Failure> {
        Ok(self.expanded(state, word, true).await?.1)
    }

    async fn expanded(
        self: &Rc<Self>,
        state: &State,
        word: &Text,
        split: bool,
    ) -> Result<(String, Vec<String>), Failure> {
        let found = commands(word);
        let mut printed = Vec::new();
        let mut text = String::new();
        let mut at = 0;
        for (number, (start, end)) in found.iter().copied().enumerate() {
            let command = word.slice(start + 2..end - 1);
            printed.push(self.printed(state, &command).await?);
            text.push_str(&word[at..start]);
            text.push_str(&format!("${{{PRINTED}{number}}}"));
            at = end;
        }
        text.push_str(&word[at..]);
        let options = Options { split, ..Options::word('\\') };
        let known = Known { state, printed: &printed };
        let expansion = expand(&text, options, &known).map_err(|error| {
            // Places of a word are those of what is expanded only if there is no command in it.
            let span = if found.is_empty() { word.span_of(error.at) } else { word.span() };
            Diagnostic::error(Code::InvalidExpansion, span, error.message).maybe_help(error.help)
        })?;
        Ok((expansion.text, expansion.words))
    }

    /// What a command prints.
    async fn printed(self: &Rc<Self>, state: &State, command: &Text) -> Result<String, Failure> {
        if !state.begun {
            let help = "write e.g. `FROM alpine` before it";
            let message = "there is nothing yet that the command could run in";
            return Err(Diagnostic::error(Code::Misplaced, command.span(), message)
                .help(help)
                .into());
        }
        let args = vec!["/bin/sh".to_owned(), "-c".to_owned(), command.as_str().to_owned()];
        let exec = self.exec(state, args, Some(CAPTURE));
        let at = self.add_exec(&exec, state, command.span(), &format!("$({command})"), false)?;
        let outcome = self.schedule.outcome(at).await?;
        let fail = |kind: &str, message: String| Failure {
            kind: kind.to_owned(),
            ..Failure::new(kind, message).at(Code::FailedCommand, command.span())
        };
        if outcome.code != 0 {
            let said = String::from_utf8_lossy(&outcome.stderr);
            let said = said.trim();
            let behind = if said.is_empty() { String::new() } else { format!(": {said}") };
            return Err(fail(
                "exec-failed",
                format!("the command failed with exit code {}{behind}", outcome.code),
            ));
        }
        if outcome.truncated {
            return Err(fail("limit", format!("the command printed more than {CAPTURE} bytes")));
        }
        match String::from_utf8(outcome.stdout) {
            Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
            Err(_) => {
                Err(fail("invalid", "the command printed bytes that are not UTF-8".to_owned()))
            }
        }
    }
}
