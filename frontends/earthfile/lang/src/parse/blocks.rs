//! Commands one after the other, and blocks of them: `IF`, `FOR`, `WAIT`, `TRY`, `WITH DOCKER`.

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::{Diagnostic, Span, Text};

use super::{Parser, Scope, is_header};
use crate::Code;
use crate::ast::{Branch, Kind, Run, Statement};
use crate::features::needed;
use crate::flags;
use crate::lex::Line;

/// Blocks inside each other.
const DEPTH: u32 = 64;

/// What ends a block or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    End,
    Else,
    ElseIf,
    Catch,
    Finally,
}

impl Ending {
    /// What a line ends, in the words of this language or of another one.
    fn of(line: &Line) -> Option<Ending> {
        Some(match line.words[0].as_str() {
            "END" | "ENDIF" | "FI" | "ENDFOR" | "DONE" | "ENDWAIT" | "ENDTRY" | "ENDWITH" => {
                Ending::End
            }
            "ELIF" | "ELSEIF" | "ELSIF" => Ending::ElseIf,
            "ELSE" if line.words.get(1).is_some_and(|word| word.as_str() == "IF") => Ending::ElseIf,
            "ELSE" => Ending::Else,
            "CATCH" => Ending::Catch,
            "FINALLY" => Ending::Finally,
            _ => return None,
        })
    }
}

impl Parser {
    /// Commands up to the next recipe, or in a block up to what ends it.
    pub(super) fn statements(&mut self, scope: Scope) -> Vec<Statement> {
        let mut statements = Vec::new();
        let mut reported = false;
        while let Some(line) = self.lines.peek() {
            if is_header(line) {
                break;
            }
            if Ending::of(line).is_some() {
                if self.depth > 0 {
                    break;
                }
                let word = line.words[0].clone();
                let line = self.lines.next();
                if line.is_some_and(|line| self.borrowed(&line)) {
                    continue;
                }
                let message = format!("there is no block that {word} could belong to");
                let help =
                    "END ends IF, FOR, WAIT, TRY and WITH DOCKER; remove it if there is none";
                self.error(Code::UnexpectedEnd, word.span(), message, help);
                continue;
            }
            if scope != Scope::Base && self.depth == 0 && !line.indented && !reported {
                let at = line.span;
                reported = true;
                let message = "this command is not indented";
                let help = "commands of a recipe are indented; those for all recipes stand before the first one";
                self.error(Code::Misplaced, at, message, help);
            }
            let Some(line) = self.lines.next() else { break };
            statements.extend(self.statement(line, scope));
        }
        statements
    }

    /// The commands of a block.
    fn inside(&mut self, scope: Scope) -> Vec<Statement> {
        self.depth += 1;
        let statements = self.statements(scope);
        self.depth -= 1;
        statements
    }

    /// Reports a word that ends blocks in other languages.
    fn borrowed(&mut self, line: &Line) -> bool {
        let word = &line.words[0];
        let help = match word.as_str() {
            "END" | "ELSE" | "CATCH" | "FINALLY" => return false,
            "ELIF" | "ELSEIF" | "ELSIF" => "write `ELSE IF`",
            _ => "every block ends with `END`",
        };
        let message = format!("{} is not a command", shown(word));
        self.error(Code::UnknownCommand, word.span(), message, help);
        true
    }

    /// The end of a block that `opened` began, or a part of it that `parts` allow.
    fn ending(&mut self, opened: &Text, parts: &[Ending]) -> Option<(Ending, Line)> {
        while let Some(line) = self.lines.peek().filter(|line| !is_header(line)) {
            let ending =
                Ending::of(line).filter(|ending| *ending == Ending::End || parts.contains(ending));
            let Some(line) = self.lines.next() else { break };
            if let Some(ending) = ending {
                self.borrowed(&line);
                if !matches!(ending, Ending::ElseIf) {
                    let help = format!("{} stands alone on its line", line.words[0]);
                    self.no_more(&line, 1, &help);
                }
                return Some((ending, line));
            }
            let message = format!("{} does not belong here", shown(&line.words[0]));
            self.report(
                Diagnostic::error(Code::UnexpectedEnd, line.words[0].span(), message)
                    .related(opened.span(), "this block is open")
                    .help("end the block with END before it"),
            );
            // What is below it belongs to nothing.
            self.inside(Scope::Target);
        }
        let message = format!("the block of {} has no END", shown(opened));
        let help = "write END on a line of its own where the block ends";
        self.error(Code::UnclosedBlock, opened.span(), message, help);
        None
    }

    /// Reads a block, if the line begins one.
    pub(super) fn block(&mut self, line: &Line, scope: Scope) -> Option<Option<Kind>> {
        let keyword = line.words[0].clone();
        if !matches!(keyword.as_str(), "IF" | "FOR" | "WAIT" | "TRY" | "WITH") {
            return None;
        }
        if self.depth >= DEPTH {
            let message = format!("there are more than {DEPTH} blocks inside each other");
            let help = "move some of them to a function or target of their own";
            self.error(Code::Misplaced, keyword.span(), message, help);
            self.skip();
            return Some(None);
        }
        Some(match keyword.as_str() {
            "IF" => self.condition(line, scope),
            "FOR" => self.repeat(line, scope),
            "WAIT" => self.wait(line, scope),
            "TRY" => self.attempt(line, scope),
            _ => self.with(line, scope),
        })
    }

    /// Moves past the rest of a block.
    fn skip(&mut self) {
        let mut open = 1_usize;
        while open > 0
            && let Some(line) = self.lines.next_if(|line| !is_header(line))
        {
            match line.words[0].as_str() {
                "END" => open -= 1,
                "IF" | "FOR" | "WAIT" | "TRY" | "WITH" => open += 1,
                _ => {}
            }
        }
    }

    fn condition(&mut self, line: &Line, scope: Scope) -> Option<Kind> {
        let opened = line.words[0].clone();
        let mut head = (self.if_line("IF", line, 1), line.text.clone());
        let mut branches = Vec::new();
        let mut otherwise = None;
        let mut broken = false;
        loop {
            let body = self.inside(scope);
            match (head.0.take(), &mut otherwise) {
                (Some(condition), _) => {
                    let condition = Box::new(condition);
                    branches.push(Branch { line: head.1.clone(), condition, body });
                }
                (None, Some(last)) => *last = body,
                (None, None) => broken = true,
            }
            let parts: &[Ending] =
                if otherwise.is_some() { &[] } else { &[Ending::Else, Ending::ElseIf] };
            let (ending, line) = self.ending(&opened, parts)?;
            match ending {
                Ending::ElseIf => {
                    let words = if line.words[0].as_str() == "ELSE" { 2 } else { 1 };
                    head = (self.if_line("ELSE IF", &line, words), line.text);
                }
                Ending::Else => otherwise = Some(Vec::new()),
                _ => break,
            }
        }
        (!broken).then_some(Kind::If { branches, otherwise })
    }

    /// A condition.
    fn if_line(&mut self, name: &'static str, line: &Line, at: usize) -> Option<Run> {
        if let Some(last) = line.words.last().filter(|word| word.as_str() == "then") {
            let help = "a condition ends with its line, and the block with `END`";
            let message = "there is no `then` behind a condition";
            self.error(Code::UnexpectedArgument, last.span(), message, help);
            return None;
        }
        self.run(name, line, at)
    }

    fn repeat(&mut self, line: &Line, scope: Scope) -> Option<Kind> {
        if !self.features.has("for-in") {
            self.report(needed("FOR", "for-in", line.words[0].span()));
        }
        let (flags, at) = flags::read("FOR", line, 1, &self.features, &mut self.problems);
        let mounts = self.mounts(&flags);
        let form = "write e.g. `FOR name IN a b c` or `FOR name IN $(ls)`";
        let head = match &line.words[at..] {
            [name, word, _, ..] if word.as_str() == "IN" => {
                self.variable_name(name).map(|()| (name.clone(), line.rest(at + 2)))
            }
            [_, word, ..] if word.eq_ignore_ascii_case("IN") && word.as_str() != "IN" => {
                let help = "it is written in capital letters: `IN`";
                let message = format!("{} is not `IN`", shown(word));
                self.error(Code::UnexpectedArgument, word.span(), message, help);
                None
            }
            words => {
                let last = words.last().unwrap_or(&line.words[0]);
                self.missing(last.span(), "FOR needs a name, IN and values", form);
                None
            }
        };
        let body = self.inside(scope);
        self.ending(&line.words[0], &[])?;
        let (variable, values) = head?;
        Some(Kind::For { flags, mounts, variable, values, body })
    }

    fn wait(&mut self, line: &Line, scope: Scope) -> Option<Kind> {
        if !self.features.has("wait-block") {
            self.report(needed("WAIT", "wait-block", line.words[0].span()));
        }
        self.no_more(line, 1, "WAIT stands alone on its line");
        let body = self.inside(scope);
        self.ending(&line.words[0], &[])?;
        Some(Kind::Wait(body))
    }

    fn attempt(&mut self, line: &Line, scope: Scope) -> Option<Kind> {
        if !self.features.has("try") {
            self.report(needed("TRY", "try", line.words[0].span()));
        }
        self.no_more(line, 1, "TRY stands alone on its line");
        let opened = &line.words[0];
        let body = self.inside(scope);
        self.single_run(opened, &body, "TRY", &["RUN", "WITH DOCKER"]);
        let mut finally = Vec::new();
        loop {
            let (ending, line) = self.ending(opened, &[Ending::Catch, Ending::Finally])?;
            match ending {
                Ending::Finally => {
                    finally = self.inside(scope);
                    for statement in &finally {
                        if statement.name != "SAVE ARTIFACT" {
                            let message = format!("{} cannot stand in FINALLY", statement.name);
                            let help = "only SAVE ARTIFACT can";
                            self.error(Code::Misplaced, statement.span, message, help);
                        }
                    }
                }
                Ending::Catch => {
                    let at = line.words[0].span();
                    let help = "use FINALLY, whose commands are carried out in any case";
                    self.error(Code::Unsupported, at, "CATCH is not supported yet", help);
                    self.inside(scope);
                }
                _ => break,
            }
        }
        Some(Kind::Try { body, finally })
    }

    fn with(&mut self, line: &Line, scope: Scope) -> Option<Kind> {
        if line.words.get(1).is_none_or(|word| word.as_str() != "DOCKER") {
            let at = line.words.get(1).unwrap_or(&line.words[0]).span();
            self.missing(at, "WITH needs DOCKER", "write `WITH DOCKER`");
            return None;
        }
        let (flags, at) = flags::read("WITH DOCKER", line, 2, &self.features, &mut self.problems);
        self.no_more(line, at, "what it needs stands in flags, e.g. `--load=app=+image`");
        let body = self.inside(scope);
        self.single_run(&line.words[0], &body, "WITH DOCKER", &["RUN"]);
        self.ending(&line.words[0], &[])?;
        Some(Kind::With { flags, body })
    }

    /// Some blocks hold one RUN, perhaps in a block of its own, and nothing else.
    fn single_run(&mut self, opened: &Text, body: &[Statement], block: &str, runs: &[&str]) {
        let help = format!("{block} holds one RUN; join commands with `&&`");
        let mut first = true;
        for statement in body {
            let run = runs.contains(&statement.name);
            if !run || !first {
                let message = match run {
                    true => format!("there is a second RUN in {block}"),
                    false => format!("{} cannot stand in {block}", statement.name),
                };
                self.error(Code::Misplaced, statement.span, message, &help);
            }
            first &= !run;
        }
        if body.is_empty() {
            self.missing(opened.span(), format!("{block} holds no RUN"), &help);
        }
    }
}

/// A command as it was read.
pub(super) fn statement(line: Line, span: Span, name: &'static str, kind: Kind) -> Statement {
    Statement { span, name, line: line.text, comments: line.comments, kind }
}

/// What a RUN is as a command.
pub(super) fn run(run: Run) -> Kind {
    Kind::Run(Box::new(run))
}
