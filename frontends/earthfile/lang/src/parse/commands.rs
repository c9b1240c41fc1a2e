//! One command: which it is, and those that are no blocks.

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::{Diagnostic, Severity, Text, TextBuilder, parse_instruction};

use super::{Parser, Scope, blocks};
use crate::Code;
use crate::ast::{Kind, Source, Statement};
use crate::features::needed;
use crate::flags::{self, Flags};
use crate::lex::Line;
use crate::reference::{self, plus};

/// First words of commands.
pub(super) const KEYWORDS: [&str; 41] = [
    "ARG",
    "BUILD",
    "CACHE",
    "CATCH",
    "CMD",
    "COMMAND",
    "COPY",
    "DO",
    "DOCKER",
    "DOCKERFILE",
    "ELSE",
    "END",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FINALLY",
    "FOR",
    "FROM",
    "FUNCTION",
    "GIT",
    "HEALTHCHECK",
    "HOST",
    "IF",
    "IMPORT",
    "LABEL",
    "LET",
    "LOCALLY",
    "PIPELINE",
    "PROJECT",
    "RUN",
    "SAVE",
    "SET",
    "TRIGGER",
    "TRY",
    "USER",
    "VERSION",
    "VOLUME",
    "WAIT",
    "WITH",
    "WORKDIR",
    "END",
];

/// The command of a line, and how many words its name takes.
fn command(line: &Line) -> Option<(&'static str, usize)> {
    let second = line.words.get(1).map(|word| word.as_str());
    Some(match (line.words[0].as_str(), second) {
        ("FROM", Some("DOCKERFILE")) => ("FROM DOCKERFILE", 2),
        ("SAVE", Some("ARTIFACT")) => ("SAVE ARTIFACT", 2),
        ("SAVE", Some("IMAGE")) => ("SAVE IMAGE", 2),
        ("GIT", Some("CLONE")) => ("GIT CLONE", 2),
        ("WITH", _) => ("WITH DOCKER", 2),
        (first, _) => {
            const SINGLE: [&str; 31] = [
                "ARG",
                "BUILD",
                "CACHE",
                "CMD",
                "COMMAND",
                "COPY",
                "DO",
                "ENTRYPOINT",
                "ENV",
                "EXPOSE",
                "FOR",
                "FROM",
                "FUNCTION",
                "HEALTHCHECK",
                "HOST",
                "IF",
                "IMPORT",
                "LABEL",
                "LET",
                "LOCALLY",
                "PIPELINE",
                "PROJECT",
                "RUN",
                "SET",
                "TRIGGER",
                "TRY",
                "USER",
                "VERSION",
                "VOLUME",
                "WAIT",
                "WORKDIR",
            ];
            (SINGLE.into_iter().find(|name| *name == first)?, 1)
        }
    })
}

/// A line whose flags may have a blank in place of their `=`, with that.
fn with_equals(line: &Line) -> Text {
    let mut builder = TextBuilder::like(&line.text);
    let mut from = 0;
    let mut words = line.words.iter().enumerate().skip(1);
    while let Some((number, word)) = words.next().filter(|(_, word)| word.starts_with("--")) {
        let end = line.starts[number] + word.len();
        let Some(next) = line.starts.get(number + 1).filter(|_| !word.contains('=')) else {
            continue;
        };
        builder.push(&line.text, from..end);
        builder.push_char('=', &line.text, end..end + 1);
        from = *next;
        words.next();
    }
    builder.push(&line.text, from..line.text.len());
    builder.finish()
}

impl Parser {
    /// Reads a command; of a block all of it.
    pub(super) fn statement(&mut self, line: Line, scope: Scope) -> Option<Statement> {
        let Some((name, words)) = command(&line) else {
            self.unreadable(&line);
            return None;
        };
        if matches!(name, "RUN" | "COPY") && self.heredoc(&line) {
            return None;
        }
        let kind = match self.block(&line, scope) {
            Some(block) => block,
            None if line.broken => None,
            None => {
                let before = self.problems.len();
                let kind = self.simple(name, words, &line, scope);
                let mut said = self.problems[before..].iter();
                kind.filter(|_| said.all(|problem| problem.severity != Severity::Error))
            }
        }?;
        let span = line.span;
        Some(blocks::statement(line, span, name, kind))
    }

    fn unreadable(&mut self, line: &Line) {
        let first = &line.words[0];
        let (what, help) = match first.as_str() {
            "SAVE" => ("SAVE needs ARTIFACT or IMAGE", "write e.g. `SAVE ARTIFACT file`"),
            "GIT" => ("GIT needs CLONE", "write e.g. `GIT CLONE url directory`"),
            _ => return self.unknown(line),
        };
        let at = line.words.get(1).unwrap_or(first).span();
        self.missing(at, what, help);
    }

    fn simple(
        &mut self,
        name: &'static str,
        words: usize,
        line: &Line,
        scope: Scope,
    ) -> Option<Kind> {
        let at = line.words[0].span();
        match name {
            "ARG" => return self.arg(line, scope),
            "LET" | "SET" => return self.variable(name, line),
            "ENV" => return self.env(line),
            "LABEL" => return self.label(line),
            "RUN" => return self.run(name, line, 1).map(blocks::run),
            "CMD" | "ENTRYPOINT" | "EXPOSE" | "HEALTHCHECK" | "USER" | "VOLUME" | "WORKDIR" => {
                if matches!(name, "USER" | "WORKDIR") {
                    self.no_more(line, 2, "put quotes around blanks");
                }
                let text =
                    if name == "HEALTHCHECK" { with_equals(line) } else { line.text.clone() };
                return match parse_instruction(text) {
                    Ok(instruction) => Some(Kind::Config(Box::new(instruction))),
                    Err(problems) => {
                        problems.into_iter().for_each(|problem| self.report(problem));
                        None
                    }
                };
            }
            "VERSION" => {
                let help = "there is one VERSION in a file, its first command";
                self.error(Code::InvalidVersion, at, "VERSION does not stand first", help);
                return None;
            }
            "FUNCTION" | "COMMAND" => {
                let help = "it is the first command of a recipe whose name has capital letters";
                let message = format!("{name} does not stand at the beginning of a function");
                self.error(Code::Misplaced, at, message, help);
                return None;
            }
            _ => {}
        }
        let before = self.problems.len();
        let (flags, first) = flags::read(name, line, words, &self.features, &mut self.problems);
        if self.problems.len() > before && first == line.words.len() {
            // What is missing may have been taken for the value of a flag.
            return None;
        }
        match name {
            "FROM" => self.from(flags, line, first),
            "FROM DOCKERFILE" => {
                let form = "write e.g. `FROM DOCKERFILE .`";
                let place = self.need(line, first, "FROM DOCKERFILE needs a context", form)?;
                let (context, next) = self.source(line, place)?;
                self.no_more(line, next, form);
                self.check_artifact(&context);
                Some(Kind::FromDockerfile { flags, context })
            }
            "LOCALLY" => {
                self.no_more(line, first, "LOCALLY stands alone on its line");
                Some(Kind::Locally)
            }
            "COPY" => self.copy(flags, line, first),
            "SAVE ARTIFACT" => self.save_artifact(flags, line, first),
            "SAVE IMAGE" => {
                let names = line.words[first..].to_vec();
                if let Some(word) = names.first().filter(|name| name.as_str() == "AS") {
                    let help = "names stand behind it: `SAVE IMAGE name`";
                    self.error(
                        Code::UnexpectedArgument,
                        word.span(),
                        "SAVE IMAGE knows no AS",
                        help,
                    );
                }
                if let Some(push) = flags.get("push").filter(|_| names.is_empty()) {
                    let help = "write e.g. `SAVE IMAGE --push registry.example/app:latest`";
                    self.missing(push.word.span(), "an image that is pushed needs a name", help);
                }
                Some(Kind::SaveImage { flags, names })
            }
            "BUILD" => {
                let form = "write e.g. `BUILD +target`";
                let place = self.need(line, first, "BUILD needs a target", form)?;
                let target = line.words[place].clone();
                self.check(&target, reference::target);
                let args = self.build_args(&line.words[place + 1..]);
                Some(Kind::Build { flags, target, args })
            }
            "DO" => {
                let form = "write e.g. `DO +FUNCTION`";
                let place = self.need(line, first, "DO needs a function", form)?;
                let function = line.words[place].clone();
                self.check(&function, reference::function);
                let args = self.build_args(&line.words[place + 1..]);
                Some(Kind::Do { flags, function, args })
            }
            "IMPORT" => self.import(flags, line, first),
            "GIT CLONE" => {
                let form = "write e.g. `GIT CLONE https://example.org/repo.git directory`";
                let [url, target] = self.exactly(line, first, "GIT CLONE", form)?;
                Some(Kind::GitClone { flags, url, target })
            }
            "CACHE" => {
                self.gate(line, name, "use-cache-command");
                if let Some(sharing) = flags.value("sharing") {
                    let known = &super::mount::SHARING;
                    self.one_of("`--sharing`", Code::InvalidFlag, sharing, known);
                }
                let [path] =
                    self.exactly(line, first, name, "write e.g. `CACHE /var/cache/apt`")?;
                Some(Kind::Cache { flags, path })
            }
            "HOST" => {
                self.gate(line, name, "use-host-command");
                let form = "write e.g. `HOST name 192.0.2.1`";
                let [name, address] = self.exactly(line, first, name, form)?;
                Some(Kind::Host { name, address })
            }
            "PROJECT" => {
                if scope != Scope::Base {
                    let help = "move it to the top of the file, before the first target";
                    self.error(Code::Misplaced, at, "PROJECT stands in a recipe", help);
                }
                let [project] = self.exactly(line, first, name, "write `PROJECT org/project`")?;
                Some(Kind::Service(vec![project]))
            }
            "PIPELINE" | "TRIGGER" => {
                self.gate(line, name, "use-pipelines");
                Some(Kind::Service(line.words[first..].to_vec()))
            }
            _ => None,
        }
    }

    fn gate(&mut self, line: &Line, name: &str, feature: &str) {
        if !self.features.has(feature) {
            self.report(needed(name, feature, line.words[0].span()));
        }
    }

    /// The place of a word that must be there.
    fn need(&mut self, line: &Line, at: usize, message: &str, help: &str) -> Option<usize> {
        if at >= line.words.len() {
            let span = line.words[0].span();
            self.missing(span, message, help);
            return None;
        }
        Some(at)
    }

    /// As many words as the command takes.
    fn exactly<const N: usize>(
        &mut self,
        line: &Line,
        at: usize,
        name: &str,
        form: &str,
    ) -> Option<[Text; N]> {
        let words = &line.words[at..];
        if words.len() < N {
            let last = &line.words[line.words.len() - 1];
            let count = if N == 1 { "an argument" } else { "two arguments" };
            self.missing(last.span(), format!("{name} needs {count}"), form);
            return None;
        }
        self.no_more(line, at + N, form);
        words[..N].to_vec().try_into().ok()
    }

    fn from(&mut self, flags: Flags, line: &Line, first: usize) -> Option<Kind> {
        let form = "write e.g. `FROM alpine:3.20` or `FROM +target`";
        let place = self.need(line, first, "FROM needs an image or a target", form)?;
        let base = line.words[place].clone();
        let rest = &line.words[place + 1..];
        if let [word, ..] = rest
            && word.eq_ignore_ascii_case("AS")
        {
            let help = "write a target of its own in place of a stage with a name";
            self.error(Code::UnexpectedArgument, word.span(), "FROM knows no AS here", help);
            return None;
        }
        let args = self.build_args(rest);
        if plus(&base).is_some() {
            self.check(&base, reference::target);
        } else if let Some(first) = rest.first().filter(|_| flags::is_literal(&base)) {
            let help = "arguments are for targets; an image takes none";
            let message = format!("the image {} takes no arguments", shown(&base));
            self.error(Code::UnexpectedArgument, first.span(), message, help);
        }
        Some(Kind::From { flags, base, args })
    }

    fn copy(&mut self, flags: Flags, line: &Line, first: usize) -> Option<Kind> {
        if let Some(from) = flags.get("from") {
            let help = "write a target that begins with the image and saves the files, and copy `+target/path`";
            self.error(Code::UnknownFlag, flags::span(from), "COPY has no `--from` here", help);
            return None;
        }
        let form = "write e.g. `COPY file directory/` or `COPY +target/file .`";
        let mut sources: Vec<Source> = Vec::new();
        let mut at = first;
        while at < line.words.len() {
            let word = &line.words[at];
            if at > first && word.starts_with("--") {
                let before = &sources[sources.len() - 1].path;
                let help = match plus(before) {
                    Some(_) => format!("write both between parentheses: `({before} {word})`"),
                    None => "flags of COPY stand before its sources".to_owned(),
                };
                let message = format!("{} is not expected here", shown(word));
                self.error(Code::UnexpectedArgument, word.span(), message, &help);
                return None;
            }
            let (source, next) = self.source(line, at)?;
            sources.push(source);
            at = next;
        }
        let target = sources.pop();
        let Some(target) = target.filter(|_| !sources.is_empty()) else {
            let last = &line.words[line.words.len() - 1];
            self.missing(last.span(), "COPY needs a source and a target", form);
            return None;
        };
        if target.text != target.path {
            let span = target.text.span();
            self.missing(span, "there is nothing behind the last source of COPY", form);
            return None;
        }
        sources.iter().for_each(|source| self.check_artifact(source));
        Some(Kind::Copy { flags, sources, target: target.path })
    }

    fn save_artifact(&mut self, flags: Flags, line: &Line, first: usize) -> Option<Kind> {
        let form = "write e.g. `SAVE ARTIFACT file` or `SAVE ARTIFACT file AS LOCAL out/file`";
        let words = &line.words[first..];
        let keyword = |word: &Text, name: &str| word.as_str() == name;
        let position = words.iter().position(|word| keyword(word, "AS"));
        let (paths, local) = match position {
            Some(at) => (&words[..at], &words[at..]),
            None => (words, &words[words.len()..]),
        };
        let local = match local {
            [] => None,
            [_, word, path] if keyword(word, "LOCAL") => Some(path.clone()),
            [_, word, _, ..] if keyword(word, "LOCAL") => {
                let extra = first + position.unwrap_or_default() + 3;
                self.no_more(line, extra, form);
                return None;
            }
            [last, ..] => {
                self.missing(last.span(), "AS needs LOCAL and a path", form);
                return None;
            }
        };
        let (source, target) = match paths {
            [source] => (source.clone(), None),
            [_, word] | [_, word, _] | [_, _, word, _] if keyword(word, "LOCAL") => {
                let message = "AS is missing before LOCAL";
                self.missing(word.span(), message, form);
                return None;
            }
            [source, target] => (source.clone(), Some(target.clone())),
            [] => {
                let at = line.words[0].span().to(line.words[1].span());
                self.missing(at, "SAVE ARTIFACT needs a path", form);
                return None;
            }
            [_, _, extra, ..] => {
                let message = format!("{} is not expected here", shown(extra));
                self.report(
                    Diagnostic::error(Code::UnexpectedArgument, extra.span(), message).help(form),
                );
                return None;
            }
        };
        Some(Kind::SaveArtifact { flags, source, target, local })
    }

    fn import(&mut self, flags: Flags, line: &Line, first: usize) -> Option<Kind> {
        let form = "write e.g. `IMPORT ./dir AS name` or `IMPORT github.com/org/repo:main`";
        let place = self.need(line, first, "IMPORT needs the place of an Earthfile", form)?;
        let word = line.words[place].clone();
        let alias = match &line.words[place + 1..] {
            [] => None,
            [word, alias] if word.as_str() == "AS" => Some(alias.clone()),
            [word] if word.as_str() == "AS" => {
                self.missing(word.span(), "the name is missing after AS", form);
                return None;
            }
            _ => {
                let extra = match line.words[place + 1].as_str() {
                    "AS" => place + 3,
                    _ => place + 1,
                };
                self.no_more(line, extra, form);
                return None;
            }
        };
        if let Some(at) = plus(&word) {
            let help = "leave the target out: IMPORT names an Earthfile";
            let span = word.span_of(at..word.len());
            self.error(Code::InvalidReference, span, "this is a target, not an Earthfile", help);
        } else if flags::is_literal(&word) {
            match reference::place(&word) {
                Ok(reference::Place::Import(_) | reference::Place::Here) => {
                    let message = format!("{} is no place of an Earthfile", shown(&word));
                    self.error(Code::InvalidReference, word.span(), message, form);
                }
                Ok(_) if word.as_str() == "." => {
                    let help = "targets of this file are called `+name`";
                    self.error(
                        Code::InvalidReference,
                        word.span(),
                        "a file cannot import itself",
                        help,
                    );
                }
                Ok(_) if word.ends_with("..") && alias.is_none() => {
                    let help = "write `AS name` behind it";
                    self.missing(word.span(), "this import has no name of its own", help);
                }
                Ok(_) => {}
                Err(_) => self.check(&word, reference::place),
            }
        }
        Some(Kind::Import { flags, place: word, alias })
    }
}
