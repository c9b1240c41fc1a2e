//! `VERSION`.

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::suggest::closest;
use wbuild_dockerfile::{Diagnostic, Span};

use super::Parser;
use crate::Code;
use crate::ast::Version;
use crate::features::{Features, VERSIONS, names, since};
use crate::flags::switch;
use crate::lex::Line;

impl Parser {
    /// The first command of the file.
    pub(super) fn version(&mut self, start: Span) -> Option<Version> {
        let Some(first) = self.lines.peek() else {
            let help = "the smallest one is `VERSION 0.8` and a target";
            self.error(Code::EmptyFile, start, "the Earthfile holds no commands", help);
            return None;
        };
        let word = first.words[0].clone();
        if word.as_str() != "VERSION" {
            let message = "the file does not begin with VERSION";
            let written = if word.eq_ignore_ascii_case("version") {
                Some("commands are written in capital letters: `VERSION`")
            } else {
                closest(&word, ["VERSION"]).map(|_| "did you mean `VERSION`?")
            };
            if let Some(help) = written {
                self.lines.next();
                self.error(Code::MissingVersion, word.span(), message, help);
                return None;
            }
            // There was none in the beginning.
            self.features = Features::of(VERSIONS[0]);
            let help = format!(
                "it is read as one of version 0.{}; write `VERSION 0.8`, and look at what it changes",
                VERSIONS[0]
            );
            self.report(Diagnostic::note(Code::MissingVersion, word.span(), message).help(help));
            return None;
        }
        let line = self.lines.next()?;
        let flags = line.words[1..].iter().take_while(|word| word.starts_with("--")).count();
        let form = "write e.g. `VERSION 0.8` or `VERSION --try 0.8`";
        let Some(number) = line.words.get(1 + flags).cloned() else {
            self.missing(word.span(), "VERSION needs a number", form);
            return None;
        };
        self.no_more(&line, 2 + flags, form);
        let minor = number.strip_prefix("0.").and_then(|minor| minor.parse::<u32>().ok());
        let Some(minor) = minor.filter(|minor| VERSIONS.contains(minor)) else {
            let older = minor.is_some_and(|minor| minor < VERSIONS[0]);
            let message = match older {
                true => format!("version {number} is not supported"),
                false => format!("there is no version {}", shown(&number)),
            };
            let help = "the versions are 0.5, 0.6, 0.7 and 0.8";
            let code = if older { Code::Unsupported } else { Code::InvalidVersion };
            self.error(code, number.span(), message, help);
            return None;
        };
        let mut features = Features::of(minor);
        for word in &line.words[1..1 + flags] {
            self.feature(&line, word, &mut features);
        }
        if features.has("arg-scope-and-set") && !features.has("shell-out-anywhere") {
            let message = "`arg-scope-and-set` needs `shell-out-anywhere`";
            self.error(Code::InvalidVersion, line.span, message, "switch both on");
        }
        self.features = features.clone();
        let flags = line.words[1..1 + flags].to_vec();
        Some(Version { line: line.text, comments: line.comments, number, flags, features })
    }

    fn feature(&mut self, line: &Line, word: &wbuild_dockerfile::Text, features: &mut Features) {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.clone(), None),
        };
        let on = value.as_ref().is_none_or(|value| switch(value) == Some(true));
        if !on {
            let message = format!("{} cannot be switched off", shown(&name));
            let help = match since(&name[2..]) {
                Some(version) => format!("remove it, and write a version below 0.{version}"),
                None => "remove it".to_owned(),
            };
            return self.error(Code::InvalidFlag, word.span(), message, &help);
        }
        if !features.add(&name[2..]) {
            let close = closest(&name[2..], names());
            self.report(
                Diagnostic::error(
                    Code::UnknownFeature,
                    name.span(),
                    format!("there is no feature {}", shown(&name[2..])),
                )
                .help(format!("remove it from {}", shown(&line.text)))
                .maybe_help(close.map(|name| format!("did you mean `--{name}`?"))),
            );
        }
    }
}
