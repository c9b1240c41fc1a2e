//! From bytes to [`Earthfile`].
//!
//! The parser does not stop at the first mistake: a command that cannot be read is reported and left
//! out, and reading goes on with the next one, so that a user sees all mistakes at once. A recipe
//! keeps those of its commands: who builds another one need not care about them.

mod blocks;
mod commands;
mod heredoc;
pub(crate) mod mount;
mod repeated;
mod run;
mod values;
mod version;

pub(crate) use values::is_variable;

use std::collections::BTreeMap;

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::suggest::did_you_mean;
use wbuild_dockerfile::{Diagnostic, Severity, Span, Text};

use crate::Code;
use crate::ast::{Earthfile, Recipe};
use crate::features::Features;
use crate::lex::{Lexer, Line};
use crate::reference::{FUNCTION_NAMES, TARGET_NAMES, is_function_name, is_target_name};

/// Sources above this size are refused: places are kept in 32 bits, and nobody writes them by hand.
const MOST_BYTES: usize = 16 << 20;

/// Most errors that are told: who sends something else than an Earthfile needs to hear it once.
const MOST_ERRORS: usize = 1000;

/// What came of parsing a file.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What could be read.
    pub file: Earthfile,
    /// Errors and warnings in the order of the file.
    pub problems: Vec<Diagnostic>,
}

impl Parsed {
    /// Whether there is an error among the problems.
    pub fn failed(&self) -> bool {
        self.problems.iter().any(is_error)
    }

    /// Whether there is one that is not of a recipe alone: nothing of the file can be built then.
    pub fn refused(&self) -> bool {
        let recipes = self.file.targets.iter().chain(&self.file.functions);
        let of_recipes: usize = recipes.map(|recipe| recipe.problems.len()).sum();
        self.problems.iter().filter(|problem| is_error(problem)).count() > of_recipes
    }
}

fn is_error(problem: &Diagnostic) -> bool {
    problem.severity == Severity::Error
}

/// Gives recipes the errors that are about their commands alone.
fn settle(file: &mut Earthfile, problems: &[Diagnostic]) {
    if problems.len() >= MOST_ERRORS {
        // There may be more of them, of any recipe.
        return;
    }
    let recipes = file.targets.iter_mut().chain(&mut file.functions);
    let mut recipes: BTreeMap<u32, &mut Recipe> =
        recipes.map(|recipe| (recipe.name.span().start, recipe)).collect();
    for problem in problems {
        let Some(label) = problem.labels.first().filter(|_| is_error(problem)) else { continue };
        // What is about the name of a recipe is not about a command of it.
        if let Some((name, recipe)) = recipes.range_mut(..=label.at.start).next_back()
            && *name < label.at.start
            && !Code::is_of_the_file(&problem.code)
        {
            recipe.problems.push(problem.clone());
        }
    }
}

/// Parses a file. `source` is the number that spans will carry.
pub fn parse(source: u32, bytes: &[u8]) -> Parsed {
    let start = Span { source, start: 0, end: 0 };
    if bytes.len() > MOST_BYTES {
        let message = format!("the Earthfile is larger than {} MiB", MOST_BYTES >> 20);
        let help = "large data belongs into files of the context";
        let problem = Diagnostic::error(Code::TooLarge, start, message).help(help);
        return Parsed { file: Earthfile::default(), problems: vec![problem] };
    }
    let text = Text::decode(source, 0, bytes);
    let mut lexer = Lexer::new(&text);
    let mut problems = Vec::new();
    let mut lines = Vec::new();
    while let Some(line) = lexer.next_line(&mut problems) {
        lines.push(line);
        if problems.len() >= MOST_ERRORS {
            break;
        }
    }
    let mut parser = Parser {
        lines: lines.into_iter().peekable(),
        features: Features::of(8),
        problems,
        depth: 0,
    };
    let mut file = parser.file(start);
    let mut problems = parser.problems;
    problems.sort_by_key(|problem| problem.labels.first().map(|label| label.at));
    settle(&mut file, &problems);
    problems.truncate(MOST_ERRORS);
    Parsed { file, problems }
}

/// Where commands stand; some can stand in one place only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Base,
    Target,
    Function,
}

/// Reads commands. Errors go to `problems`; a method that returns none has reported why.
struct Parser {
    lines: std::iter::Peekable<std::vec::IntoIter<Line>>,
    features: Features,
    problems: Vec<Diagnostic>,
    /// How many blocks are open.
    depth: u32,
}

/// Whether a line begins a target or function.
fn is_header(line: &Line) -> bool {
    !line.indented && line.words[0].ends_with(':')
}

impl Parser {
    fn report(&mut self, problem: Diagnostic) {
        if self.problems.len() < MOST_ERRORS {
            self.problems.push(problem);
        }
    }

    fn error(&mut self, code: Code, at: Span, message: impl Into<String>, help: &str) {
        self.report(Diagnostic::error(code, at, message).help(help));
    }

    fn missing(&mut self, at: Span, message: impl Into<String>, help: &str) {
        self.error(Code::MissingArgument, at, message, help);
    }

    /// The words from number `at` on have no place.
    fn no_more(&mut self, line: &Line, at: usize, help: &str) {
        if let Some(word) = line.words.get(at) {
            let span = line.rest(at).span();
            let message = format!("{} is not expected here", shown(word));
            self.error(Code::UnexpectedArgument, span, message, help);
        }
    }

    fn file(&mut self, start: Span) -> Earthfile {
        let mut file = Earthfile { version: self.version(start), ..Earthfile::default() };
        file.base = self.statements(Scope::Base);
        let mut seen: BTreeMap<String, Span> = BTreeMap::new();
        while let Some(line) = self.lines.next() {
            let Some(recipe) = self.recipe(line) else { continue };
            let name = recipe.name.as_str().to_owned();
            match seen.get(&name) {
                Some(first) => self.report(
                    Diagnostic::error(
                        Code::RepeatedName,
                        recipe.name.span(),
                        format!("there are two recipes of the name {}", shown(&name)),
                    )
                    .related(*first, "the first one")
                    .help("give one of them another name"),
                ),
                None => _ = seen.insert(name, recipe.name.span()),
            }
            match recipe.marker {
                Some(_) => file.functions.push(recipe),
                None => file.targets.push(recipe),
            }
        }
        self.repeated(&file);
        file
    }

    /// A target or function, its header read.
    fn recipe(&mut self, header: Line) -> Option<Recipe> {
        let word = &header.words[0];
        let name = word.slice(0..word.len() - 1);
        self.no_more(&header, 1, "the commands of a recipe stand below its name, indented");
        let function = is_function_name(&name);
        let valid = function || is_target_name(&name);
        if !valid {
            let capital = name.starts_with(|c: char| c.is_ascii_uppercase());
            let help = if capital { FUNCTION_NAMES } else { TARGET_NAMES };
            let message = format!("{} cannot be the name of a recipe", shown(&name));
            // What is likely meant, by its first letter.
            let target = name.to_ascii_lowercase().replace('_', "-");
            let upper = name.to_ascii_uppercase().replace('-', "_");
            let close = match (is_target_name(&target), is_function_name(&upper)) {
                (true, true) if capital => {
                    Some(format!("write `{target}` for a target, `{upper}` for a function"))
                }
                (true, _) => Some(format!("{help}, e.g. `{target}`")),
                _ => None,
            };
            self.report(
                Diagnostic::error(Code::InvalidName, word.span(), message)
                    .help(help)
                    .maybe_help(close),
            );
        }
        if name.as_str() == "base" {
            let help = "what stands before the first target is the target `base`";
            self.error(
                Code::InvalidName,
                word.span(),
                "a target cannot have the name `base`",
                help,
            );
        }
        let marker = if function { self.marker(&name) } else { None };
        let scope = if function { Scope::Function } else { Scope::Target };
        let body = self.statements(scope);
        // What has no marker has been reported; it must not be taken for a target.
        let marker = marker.or_else(|| function.then(|| name.slice(0..0)));
        let problems = Vec::new();
        valid.then_some(Recipe { name, comments: header.comments, marker, body, problems })
    }

    /// The command that every function begins with.
    fn marker(&mut self, name: &Text) -> Option<Text> {
        let keyword =
            if self.features.has("use-function-keyword") { "FUNCTION" } else { "COMMAND" };
        let next = self.lines.peek().filter(|line| !is_header(line));
        let word = next.map(|line| line.words[0].clone());
        match word.as_ref().map(|word| word.as_str()) {
            Some("FUNCTION" | "COMMAND") => {}
            _ => {
                let message = format!("the function {} does not begin with {keyword}", shown(name));
                let help = format!(
                    "write {keyword} as its first command; if it is to be a target, its name begins with a small letter"
                );
                self.error(Code::MissingArgument, name.span(), message, &help);
                return None;
            }
        }
        let line = self.lines.next()?;
        self.no_more(&line, 1, &format!("{keyword} stands alone on its line"));
        let word = word?;
        if word.as_str() != keyword {
            let message = format!("functions begin with {keyword} in this version");
            let help = match keyword {
                "COMMAND" => "write COMMAND, or `VERSION 0.8` at the top of the file",
                _ => "write FUNCTION: COMMAND is what it was called before version 0.8",
            };
            self.error(Code::FeatureNeeded, word.span(), message, help);
        }
        Some(word)
    }

    /// A line that begins with none of the commands.
    fn unknown(&mut self, line: &Line) {
        let word = &line.words[0];
        let upper = word.to_uppercase();
        let name = if upper.ends_with(':') { &word[..word.len() - 1] } else { word.as_str() };
        let alone = line.words.len() == 1 || line.words[1].as_str() == ":";
        if !line.indented && alone && (is_target_name(name) || is_function_name(name)) {
            let message = format!("{} is not a command", shown(word));
            let help =
                format!("to begin a recipe, write the colon right behind its name: `{name}:`");
            return self.error(Code::UnknownCommand, word.span(), message, &help);
        }
        if let Some((name, value)) = word.split_once('=')
            && values::is_variable(&name)
        {
            let message = format!("{} is not a command", shown(word));
            let value = if value.is_empty() { "…" } else { &value };
            let help = format!("for a variable write `LET {name}={value}`");
            return self.error(Code::UnknownCommand, word.span(), message, &help);
        }
        let help = match upper.as_str() {
            "ADD" => "use COPY; it takes no URLs: fetch those with RUN",
            "SHELL" => "use the exec form: `RUN [\"/bin/bash\", \"-c\", \"…\"]`",
            "ONBUILD" => "write a function, which other files can use with IMPORT and DO",
            "STOPSIGNAL" | "MAINTAINER" => "use FROM DOCKERFILE for what only Dockerfiles have",
            _ if commands::KEYWORDS.contains(&upper.as_str()) => {
                let message = format!("{} is not a command", shown(word));
                let help = format!("commands are written in capital letters: `{upper}`");
                return self.error(Code::UnknownCommand, word.span(), message, &help);
            }
            _ if word.ends_with(':') => "the name of a target or function begins its line",
            // What is in small letters is rather the rest of a command than one.
            _ if word.chars().any(char::is_uppercase)
                && let Some(help) = did_you_mean(word, commands::KEYWORDS) =>
            {
                let message = format!("{} is not a command", shown(word));
                return self.error(Code::UnknownCommand, word.span(), message, &help);
            }
            _ => "if the line belongs to the command above, end the line above with a backslash",
        };
        let message = format!("{} is not a command", shown(word));
        self.error(Code::UnknownCommand, word.span(), message, help);
    }
}
