//! What words come to: variables, quotes, and `$(…)`.

use std::rc::Rc;

use wbuild_dockerfile::expand::{Lookup, Options, expand};
use wbuild_dockerfile::{Diagnostic, Failure, Output, Span, Text};

use super::Session;
use super::state::State;
use crate::Code;
use crate::lex::closed;

/// How much of a command's output `$(…)` may take.
pub(super) const CAPTURE: u32 = 1 << 20;

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

/// What no image sets, and every shell knows.
const HOME: &str = "HOME";

/// Where each `$(…)` of a word stands, and each `$HOME` if it is `homeless`: outside of single
/// quotes, and without a backslash.
fn commands(word: &str, homeless: bool) -> Vec<(usize, usize)> {
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
            '$' if !single && homeless => {
                if let Some(length) = home(&word[end..]) {
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

/// How long the name of [`HOME`] is behind a `$`, if it is that.
fn home(rest: &str) -> Option<usize> {
    if rest.starts_with("{HOME}") {
        return Some(HOME.len() + 2);
    }
    let behind = rest.strip_prefix(HOME)?;
    let ends = !behind.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    ends.then_some(HOME.len())
}

impl<'h> Session<'h> {
    /// What a word comes to.
    pub(super) async fn word(
        self: &Rc<Self>,
        state: &State,
        word: &Text,
    ) -> Result<String, Failure> {
        Ok(self.expanded(state, word, Options::word('\\')).await?.0)
    }

    /// A command for a shell, with quotes, escapes and variables that are not set left to it.
    pub(super) async fn filled(
        self: &Rc<Self>,
        state: &State,
        command: &Text,
    ) -> Result<String, Failure> {
        Ok(self.expanded(state, command, Options::display('\\')).await?.0)
    }

    /// What the value of an argument comes to: `$(…)` at its beginning has always been replaced. Before
    /// that was so everywhere, a shell printed the value: what fails in it is nothing, and unless
    /// quotes keep them its lines become words.
    pub(super) async fn value(
        self: &Rc<Self>,
        state: &State,
        word: &Text,
    ) -> Result<String, Failure> {
        if !state.shells_out && word.trim_start_matches(['"', '\'']).starts_with("$(") {
            return self.printed(state, &format!("echo {word}"), word).await;
        }
        self.word(state, word).await
    }

    /// What a word comes to, split at white space that nothing protects.
    pub(super) async fn split(
        self: &Rc<Self>,
        state: &State,
        word: &Text,
    ) -> Result<Vec<String>, Failure> {
        let options = Options { split: true, ..Options::word('\\') };
        Ok(self.expanded(state, word, options).await?.1)
    }

    async fn expanded(
        self: &Rc<Self>,
        state: &State,
        word: &Text,
        options: Options,
    ) -> Result<(String, Vec<String>), Failure> {
        // A shell that is to come knows it itself.
        let homeless = !options.keep_unset && state.root.is_some() && state.lookup(HOME).is_none();
        let found = if state.shells_out { commands(word, homeless) } else { Vec::new() };
        let mut printed = Vec::new();
        let mut text = String::new();
        let mut at = 0;
        for (number, (start, end)) in found.iter().copied().enumerate() {
            printed.push(match word[start..].starts_with("$(") {
                true => {
                    let command = word.slice(start + 2..end - 1);
                    self.printed(state, &command, &command).await?
                }
                false => self.printed(state, "echo $HOME", &word.slice(start..end)).await?,
            });
            text.push_str(&word[at..start]);
            text.push_str(&format!("${{{PRINTED}{number}}}"));
            at = end;
        }
        text.push_str(&word[at..]);
        let known = Known { state, printed: &printed };
        let expansion = expand(&text, options, &known).map_err(|error| {
            // Places of a word are those of what is expanded only if there is no command in it.
            let span = if found.is_empty() { word.span_of(error.at) } else { word.span() };
            Diagnostic::error(Code::InvalidExpansion, span, error.message).maybe_help(error.help)
        })?;
        Ok((expansion.text, expansion.words))
    }

    /// What a command prints.
    async fn printed(
        self: &Rc<Self>,
        state: &State,
        command: &str,
        written: &Text,
    ) -> Result<String, Failure> {
        if !state.begun {
            let help = "write e.g. `FROM alpine` before it";
            let message = "there is nothing yet that the command could run in";
            return Err(Diagnostic::error(Code::Misplaced, written.span(), message)
                .help(help)
                .into());
        }
        let args = vec!["/bin/sh".to_owned(), "-c".to_owned(), command.to_owned()];
        let exec = self.exec(state, args, Some(CAPTURE));
        let at = self.add_exec(&exec, state, written.span(), &format!("$({command})"), false)?;
        self.output(at, written.span()).await
    }

    /// What a process has printed, without the ends of its last lines.
    pub(super) async fn output(&self, at: Output, span: Span) -> Result<String, Failure> {
        let outcome = self.schedule.outcome(at).await?;
        let fail = |kind: &str, message: String| Failure {
            kind: kind.to_owned(),
            ..Failure::new(kind, message).at(Code::FailedCommand, span)
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
