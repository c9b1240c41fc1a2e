//! Which frontend a definition asks for: its syntax line.
//!
//! A definition may begin by naming what reads it, `# syntax=docker/dockerfile:1`, in the forms that
//! `docker build` knows; [`detect`] finds the line, [`choose`] says what it means here. In order of
//! precedence the frontend is
//!
//! 1. what `--frontend` or its variable names; then nothing here is asked;
//! 2. what `--build-arg BUILDKIT_SYNTAX=NAME` names;
//! 3. what the syntax line names;
//! 4. what the project says of files of that name;
//! 5. `yaml` for a definition that is called `wbuild.yaml` or `wbuild.yml`;
//! 6. `dockerfile`.
//!
//! In 2 and 3 the name is that of a frontend of the project or a bundled one, or a reference to one in
//! a registry, written as images are. The images in which docker publishes its Dockerfile frontend
//! mean the bundled one, so nothing is fetched for them. A build context of that name may replace it
//! by another. Files are not named so: a definition does not choose among those of a machine.

use std::collections::BTreeMap;
use std::ops::Range;

use wbuild_api::request::ContextSpec;
use wbuild_graph::{Failure, SourceFile};
use wbuild_oci::Reference;

use crate::document::{Problem, pointed};
use crate::reference::PluginRef;
use crate::suggest::nearest;

/// The frontend where nothing names one.
pub const DEFAULT: &str = "dockerfile";

/// Names of definitions that another frontend reads where nothing names one.
pub const NAMED: [(&str, &str); 2] = [("wbuild.yaml", "yaml"), ("wbuild.yml", "yaml")];

/// Build argument that wins over the syntax line.
pub const ARGUMENT: &str = "BUILDKIT_SYNTAX";

/// Repositories whose images are docker's Dockerfile frontend, of any tag and digest.
const DOCKERFILE_IMAGES: [&str; 2] =
    ["docker.io/docker/dockerfile", "docker.io/docker/dockerfile-upstream"];

/// Another name of the bundled Dockerfile frontend: BuildKit's for the one inside it.
const BUILT_IN: &str = "dockerfile.v0";

/// What a definition says of its syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// The frontend: the first word of the value.
    pub name: String,
    /// Where the name stands, in bytes.
    pub at: Range<usize>,
}

/// Finds the syntax line. As in BuildKit it may stand
///
/// - among the directives at the very beginning: lines `# key=value` with the keys `syntax`,
///   `escape` and `check`, each at most once; the first line of another form ends them;
/// - among such lines with `//` in place of `#`;
/// - as the key `syntax` of a definition that is a JSON object;
///
/// each after a byte order mark and after a line `#!…`.
pub fn detect(data: &[u8]) -> Option<Syntax> {
    let mut start = if data.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    if data[start..].starts_with(b"#!") {
        start += line_at(&data[start..]).len();
    }
    directive(data, start, b"#")
        .or_else(|| directive(data, start, b"//"))
        .or_else(|| member(data, start))
}

/// The line at the beginning, with its line feed.
fn line_at(data: &[u8]) -> &[u8] {
    data.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// `syntax` among directives that begin with `mark`.
fn directive(data: &[u8], start: usize, mark: &[u8]) -> Option<Syntax> {
    let mut seen: Vec<&str> = Vec::new();
    let mut at = start;
    loop {
        let line = line_at(&data[at..]);
        let (key, value) = key_and_value(line.strip_prefix(mark)?, at + mark.len())?;
        let key = ["syntax", "escape", "check"]
            .into_iter()
            .find(|known| data[key.clone()].eq_ignore_ascii_case(known.as_bytes()))?;
        if key == "syntax" {
            // What follows a blank is for the frontend.
            let word = data[value.clone()].split(|byte| *byte == b' ').next().unwrap_or_default();
            let end = value.start + word.len();
            let name = String::from_utf8_lossy(word).into_owned();
            return (!name.is_empty()).then_some(Syntax { name, at: value.start..end });
        }
        if seen.contains(&key) {
            return None;
        }
        seen.push(key);
        at += line.len();
    }
}

/// The places of `key` and `value` in ` key = value `, which begins at `at`; none if the text has
/// another form.
fn key_and_value(text: &[u8], at: usize) -> Option<(Range<usize>, Range<usize>)> {
    let blanks = |text: &[u8]| text.iter().take_while(|byte| is_blank(**byte)).count();
    let key = blanks(text);
    let mut end = key;
    while text.get(end).is_some_and(u8::is_ascii_alphanumeric) {
        end += 1;
    }
    if !text.get(key).is_some_and(u8::is_ascii_alphabetic) {
        return None;
    }
    let equals = end + blanks(&text[end..]);
    if text.get(equals) != Some(&b'=') {
        return None;
    }
    let value = equals + 1 + blanks(&text[equals + 1..]);
    let back = text[value..].iter().rev().take_while(|byte| is_blank(**byte)).count();
    let value_end = text.len() - back;
    (value < value_end).then_some((at + key..at + end, at + value..at + value_end))
}

/// White space of ASCII, the vertical tab aside.
fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace()
}

/// `syntax` of a JSON object.
fn member(data: &[u8], start: usize) -> Option<Syntax> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&data[start..]).ok()?;
    let value = object.get("syntax")?.as_str()?;
    let name = value.split(' ').next().unwrap_or_default().to_owned();
    // Written plainly it can be pointed at; written with escapes, the object can.
    let find = |text: String, from: usize| {
        let found = data[from..].windows(text.len()).position(|part| part == text.as_bytes())?;
        Some(from + found + 1)
    };
    let key = find("\"syntax\"".to_owned(), start).unwrap_or(start);
    let at = match find(format!("\"{value}\""), key) {
        Some(found) => found..found + name.len(),
        None => start..data.len(),
    };
    (!name.is_empty()).then_some(Syntax { name, at })
}

/// What reads a definition that did not get its frontend from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The frontend.
    pub frontend: PluginRef,
    /// What was asked for, if anything was: the option `source` of the frontend.
    pub source: Option<String>,
    /// Something to be said: the bundled frontend stands for another.
    pub note: Option<String>,
    /// The line that names it, if the definition does.
    pub line: Option<SyntaxLine>,
}

/// The place in a definition where its frontend is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxLine {
    source: SourceFile,
    at: Range<usize>,
}

impl SyntaxLine {
    /// Shows that the frontend cannot be had where it is asked for.
    pub fn show(&self, failure: Failure) -> Problem {
        let message = failure.message.clone();
        pointed(failure, &message, None, self.source.clone(), self.at.clone())
    }
}

impl Choice {
    /// What the frontend is told of the choice.
    pub fn options(&self) -> Option<(String, String)> {
        Some(("source".to_owned(), self.source.clone()?))
    }
}

/// Where the choice is made.
#[derive(Debug)]
pub struct Definition<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// Its bytes.
    pub data: &'a [u8],
}

/// What there is to choose from.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Names of frontends: those of the project, and bundled ones.
    pub names: &'a [&'a str],
    /// The project's for definitions of this name that name none themselves.
    pub default: Option<&'a PluginRef>,
}

/// Chooses the frontend of a definition. `argument` is the value of [`ARGUMENT`].
///
/// # Errors
///
/// A name that no frontend answers to; the failure shows where it stands.
pub fn choose(
    definition: &Definition<'_>,
    argument: Option<&str>,
    contexts: &BTreeMap<String, ContextSpec>,
    known: Known<'_>,
) -> Result<Choice, Problem> {
    let argument = argument.and_then(|value| value.split_whitespace().next());
    let line = match argument {
        Some(_) => None,
        None => detect(definition.data),
    };
    let Some(name) = argument.or(line.as_ref().map(|line| line.name.as_str())) else {
        let file = definition.name.rsplit('/').next();
        let named = NAMED.iter().find(|(name, _)| Some(*name) == file);
        let usual = || PluginRef::Bundled(named.map_or(DEFAULT, |(_, name)| name).to_owned());
        let frontend = known.default.cloned().unwrap_or_else(usual);
        return Ok(Choice { frontend, source: None, note: None, line: None });
    };
    let meant = match replacement(name, contexts) {
        Some((_, ContextSpec::Image(reference))) => reference.as_str(),
        Some((context, _)) => {
            return Err(refusal(
                definition,
                line.as_ref(),
                format!("the build context {context} cannot stand for the frontend {name}"),
                "a build context replaces a frontend by another name: \
                 --build-context NAME=docker-image://OTHER"
                    .to_owned(),
            ));
        }
        None => name,
    };
    let place = line.as_ref().map(|line| definition.line(line));
    let chosen = |frontend, note| {
        Ok(Choice { frontend, source: Some(meant.to_owned()), note, line: place.clone() })
    };
    if known.names.contains(&meant) {
        return chosen(PluginRef::Named(meant.to_owned()), None);
    }
    if meant == BUILT_IN {
        return chosen(PluginRef::Bundled(DEFAULT.to_owned()), None);
    }
    if is_dockerfile_image(meant) {
        let note = format!("the bundled frontend {DEFAULT} stands for {meant}");
        return chosen(PluginRef::Bundled(DEFAULT.to_owned()), Some(note));
    }
    let which = match argument {
        Some(_) => format!("{meant:?}, which {ARGUMENT} names"),
        None => format!("{meant:?}"),
    };
    match elsewhere(meant) {
        Ok(Some(frontend)) => chosen(frontend, None),
        Ok(None) => {
            let hint = match nearest(meant, known.names.iter().copied()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "one in a registry is named as images are, REGISTRY/NAME:TAG; --frontend \
                         FILE.wasm reads the definition with a component of yours"
                    .to_owned(),
            };
            let message = format!("there is no frontend {which}");
            Err(refusal(definition, line.as_ref(), message, hint)
                .hint(format!("--frontend {DEFAULT} reads it with the bundled one")))
        }
        Err(failure) => {
            let message = format!("there is no frontend {which}");
            let mut problem = refusal(definition, line.as_ref(), message, String::new());
            problem.failure.causes.push(failure.message);
            problem.failure.hints = failure.hints;
            Err(problem.hint(format!("--frontend {DEFAULT} reads it with the bundled one")))
        }
    }
}

/// A frontend that has to be fetched; none for what is a plain name.
fn elsewhere(meant: &str) -> Result<Option<PluginRef>, Failure> {
    if let Some(remote) = PluginRef::remote(meant)? {
        return Ok(Some(remote));
    }
    // A name without a slash is one that somebody mistyped rather than one of Docker's own images, and
    // files are not named so.
    if !meant.contains('/') || meant.starts_with(['.', '/']) || meant.ends_with(".wasm") {
        return Ok(None);
    }
    PluginRef::image(meant).map(Some)
}

/// The build context that has the name of the frontend. Both may be short for another, as names of
/// images are.
fn replacement<'a>(
    name: &str,
    contexts: &'a BTreeMap<String, ContextSpec>,
) -> Option<(&'a str, &'a ContextSpec)> {
    let full = |name: &str| {
        let reference: Reference = name.parse().ok()?;
        Some(reference.to_string())
    };
    let wanted = full(name);
    // The main context has a name of its own, which is none of an image.
    let mut named = contexts.iter().filter(|(context, _)| *context != "context");
    named
        .find(|(context, _)| *context == name || (wanted.is_some() && full(context) == wanted))
        .map(|(context, spec)| (context.as_str(), spec))
}

fn is_dockerfile_image(name: &str) -> bool {
    let reference: Result<Reference, _> = name.parse();
    reference.is_ok_and(|reference| DOCKERFILE_IMAGES.contains(&reference.name().as_str()))
}

/// The failure, with the line if there is one.
fn refusal(
    definition: &Definition<'_>,
    line: Option<&Syntax>,
    message: String,
    hint: String,
) -> Problem {
    let failure = Failure::unsupported(message).hint(hint);
    match line {
        Some(line) => definition.line(line).show(failure),
        None => failure.into(),
    }
}

impl Definition<'_> {
    fn line(&self, line: &Syntax) -> SyntaxLine {
        let source = SourceFile {
            name: self.name.to_owned(),
            language: String::new(),
            text: self.data.into(),
        };
        SyntaxLine { source, at: line.at.clone() }
    }
}

#[cfg(test)]
mod tests;
