//! `ARG`, `LET`, `SET`, `ENV`, `LABEL`, and arguments for targets.

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::{Diagnostic, Text};

use super::{Parser, Scope};
use crate::Code;
use crate::ast::{Assign, BuildArg, Kind, Source};
use crate::features::needed;
use crate::flags::{self, is_literal};
use crate::lex::{self, Line};
use crate::reference::{self, ReferenceError, plus};

/// Whether a name can be that of a variable.
pub(crate) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A name with what stands behind its `=`, which may have blanks around it.
fn split(rest: &Text) -> (Text, Option<Text>, Text) {
    let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
    let name = rest.slice(0..end);
    let behind = rest.slice(end..rest.len()).trimmed();
    if behind.starts_with('=') {
        let value = behind.slice(1..behind.len()).trimmed();
        return (name, Some(value), behind.slice(behind.len()..behind.len()));
    }
    (name, None, behind)
}

impl Parser {
    pub(super) fn arg(&mut self, line: &Line, scope: Scope) -> Option<Kind> {
        let (flags, at) = flags::read("ARG", line, 1, &self.features, &mut self.problems);
        let assign = self.assign("ARG", line, at)?;
        if let (Some(required), Some(value)) = (flags.get("required"), &assign.value)
            && required.value.as_ref().is_none_or(|value| flags::switch(value) == Some(true))
        {
            let help = "leave out the default, or `--required`";
            let message = "an ARG that is required has no default";
            self.error(Code::UnexpectedArgument, value.span(), message, help);
        }
        if let Some(global) = flags.get("global").filter(|_| scope != Scope::Base) {
            let help = "move it to the top of the file, before the first target";
            let message = "an ARG of a recipe cannot be global";
            self.error(Code::Misplaced, flags::span(global), message, help);
        }
        Some(Kind::Arg { flags, assign })
    }

    pub(super) fn variable(&mut self, name: &'static str, line: &Line) -> Option<Kind> {
        if !self.features.has("arg-scope-and-set") {
            self.report(needed(name, "arg-scope-and-set", line.words[0].span()));
        }
        let assign = self.assign(name, line, 1)?;
        if assign.value.is_none() {
            let help = format!("write e.g. `{name} {}=value`", assign.name);
            self.missing(assign.name.span(), format!("{name} needs a value"), &help);
            return None;
        }
        Some(if name == "LET" { Kind::Let(assign) } else { Kind::Set(assign) })
    }

    fn assign(&mut self, command: &str, line: &Line, at: usize) -> Option<Assign> {
        let rest = line.rest(at);
        let example = format!("write e.g. `{command} name=value`");
        if rest.is_empty() {
            self.missing(line.words[0].span(), format!("{command} needs a name"), &example);
            return None;
        }
        let (name, value, behind) = split(&rest);
        if !behind.is_empty() {
            let message = format!("{} is not expected here", shown(&behind));
            let help = match is_variable(&name) {
                true => format!("write `{command} {name}={behind}`"),
                false => example,
            };
            self.error(Code::UnexpectedArgument, behind.span(), message, &help);
            return None;
        }
        self.variable_name(&name)?;
        Some(Assign { name, value })
    }

    pub(super) fn variable_name(&mut self, name: &Text) -> Option<()> {
        if is_variable(name) {
            return Some(());
        }
        let message = format!("{} cannot be the name of a variable", shown(name));
        let help = "a name begins with a letter or `_`; letters, digits and `_` follow";
        self.error(Code::InvalidName, name.span(), message, help);
        None
    }

    pub(super) fn env(&mut self, line: &Line) -> Option<Kind> {
        let rest = line.rest(1);
        let (name, value, behind) = split(&rest);
        if name.is_empty() {
            let at = line.words[0].span();
            self.missing(at, "ENV needs a name", "write e.g. `ENV name=value`");
            return None;
        }
        self.variable_name(&name)?;
        // The old form has a blank in place of the `=`.
        let value = value.or_else(|| (!behind.is_empty()).then_some(behind));
        if value.is_none() {
            let help = format!("write `ENV {name}=value`");
            self.missing(name.span(), format!("{} has no value", shown(&name)), &help);
            return None;
        }
        Some(Kind::Env(Assign { name, value }))
    }

    pub(super) fn label(&mut self, line: &Line) -> Option<Kind> {
        let help = "write e.g. `LABEL name=value other=\"a b\"`";
        let mut pairs: Vec<Assign> = Vec::new();
        // A name whose value has not come yet, and whether its `=` has.
        let mut open: Option<(Text, bool)> = None;
        for word in &line.words[1..] {
            let mut rest = word.clone();
            loop {
                let end = rest.find('=').unwrap_or(rest.len());
                match open.take() {
                    None if end == 0 => {
                        let message = format!("a name is missing before {}", shown(&rest));
                        self.missing(rest.span(), message, help);
                        return None;
                    }
                    None => {
                        open = Some((rest.slice(0..end), false));
                        rest = rest.slice(end..rest.len());
                    }
                    Some((name, false)) if end > 0 => {
                        self.missing(name.span(), format!("{} has no value", shown(&name)), help);
                        return None;
                    }
                    Some((name, false)) => {
                        open = Some((name, true));
                        rest = rest.slice(1..rest.len());
                    }
                    Some((name, true)) => {
                        pairs.push(Assign { name, value: Some(rest) });
                        break;
                    }
                }
                if rest.is_empty() {
                    break;
                }
            }
        }
        match open {
            Some((name, false)) => {
                self.missing(name.span(), format!("{} has no value", shown(&name)), help);
                return None;
            }
            Some((name, true)) => {
                let end = line.rest(line.words.len());
                pairs.push(Assign { name, value: Some(end) });
            }
            None => {}
        }
        if pairs.is_empty() {
            self.missing(line.words[0].span(), "LABEL needs a name and a value", help);
            return None;
        }
        Some(Kind::Label(pairs))
    }

    /// Arguments for a target: `--name=value` or `--name value`.
    pub(super) fn build_args(&mut self, words: &[Text]) -> Vec<BuildArg> {
        let mut args = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(_) = word.strip_prefix("--").filter(|rest| !rest.is_empty()) else {
                let message = format!("{} is not expected here", shown(word));
                let help = "arguments for a target are written `--NAME=value`";
                self.error(Code::UnexpectedArgument, word.span(), message, help);
                continue;
            };
            let rest = word.slice(2..word.len());
            let (name, value) = match rest.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (rest, words.next().cloned()),
            };
            let Some(value) = value else {
                let help = format!("write `--{name}=value`");
                self.missing(word.span(), format!("{} has no value", shown(word)), &help);
                continue;
            };
            if name.as_str() == "build-arg" {
                // An argument of this name, which nothing can declare.
                let message = "`--build-arg` has no effect behind the name of a target";
                let note = Diagnostic::note(Code::UnusedArgument, word.span(), message)
                    .help(format!("write `--{value}`"));
                self.report(note);
                continue;
            }
            if self.variable_name(&name).is_some() {
                args.push(BuildArg { name, value });
            }
        }
        args
    }

    /// A word, or words in parentheses, from word `at` on. Answers with the word behind it.
    pub(super) fn source(&mut self, line: &Line, at: usize) -> Option<(Source, usize)> {
        let word = &line.words[at];
        if !word.starts_with('(') {
            let source = Source { text: word.clone(), path: word.clone(), args: Vec::new() };
            return Some((source, at + 1));
        }
        let start = line.starts[at];
        let help = "write e.g. `(+target/path --ARG=value)`";
        let Some(length) = lex::closed(&line.text[start..]) else {
            let span = word.span_of(0..1);
            self.error(Code::UnclosedQuote, span, "this parenthesis is not closed", help);
            return None;
        };
        let text = line.text.slice(start..start + length);
        let next = at + line.starts[at..].iter().take_while(|at| **at < start + length).count();
        let last = line.starts[next - 1] + line.words[next - 1].len();
        if last > start + length {
            let behind = line.text.slice(start + length..last);
            let message = format!("{} is not expected behind the parenthesis", shown(&behind));
            self.error(Code::UnexpectedArgument, behind.span(), message, help);
            return None;
        }
        let inner = lex::words(&text.slice(1..text.len() - 1));
        let Some((path, args)) = inner.split_first() else {
            self.missing(text.span(), "there is nothing between the parentheses", help);
            return None;
        };
        let args = self.build_args(args);
        Some((Source { path: path.clone(), text, args }, next))
    }

    /// Looks at a reference that holds nothing to be evaluated.
    pub(super) fn check<T>(
        &mut self,
        word: &Text,
        read: impl Fn(&str) -> Result<T, ReferenceError>,
    ) {
        if is_literal(word)
            && let Err(error) = read(word)
        {
            let at = word.span_of(error.at);
            self.error(Code::InvalidReference, at, error.message, error.help);
        }
    }

    /// Looks at a source if it is an artifact.
    pub(super) fn check_artifact(&mut self, source: &Source) {
        if plus(&source.path).is_some() {
            self.check(&source.path, reference::artifact);
        } else if !source.args.is_empty() && is_literal(&source.path) {
            let help = "arguments are for the target of an artifact: `(+target/path --ARG=value)`";
            let message = "a file of the context takes no arguments";
            self.error(Code::UnexpectedArgument, source.text.span(), message, help);
        }
    }
}
