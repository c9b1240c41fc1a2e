//! Which frontend a definition asks for: its syntax line.
//!
//! A definition may begin by naming what reads it, `# syntax=docker/dockerfile:1`, in the forms that
//! `docker build` knows; [`detect`] finds the line, [`choose`] says what it means here. In order of
//! precedence the frontend is
//!
//! 1. what `--frontend` or its variable names; then nothing here is asked;
//! 2. what `--build-arg BUILDKIT_SYNTAX=NAME` names;
//! 3. what the syntax line names;
//! 4. `yaml` for a definition that is called `wbuild.yaml` or `wbuild.yml`;
//! 5. `dockerfile`.
//!
//! In 2 and 3 the name is that of a bundled frontend, or of the images in which docker publishes
//! its Dockerfile frontend: the bundled one stands for those, so nothing is fetched. A build context
//! of that name may replace it by another. Any other image is a program that wbuild does not run.

use std::collections::BTreeMap;
use std::ops::Range;

use wbuild_api::request::ContextSpec;
use wbuild_graph::{Diagnostic, Failure, Label, Severity, SourceFile, SourceMap, Span};
use wbuild_oci::Reference;

use crate::exit::{Exit, Fault};
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
    /// A bundled frontend.
    pub frontend: String,
    /// What was asked for, if anything was: the option `source` of the frontend.
    pub source: Option<String>,
    /// Something to be said: the bundled frontend stands for another.
    pub note: Option<String>,
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

/// Chooses the frontend of a definition. `argument` is the value of [`ARGUMENT`], `bundled` the
/// names of frontends that there are.
///
/// # Errors
///
/// A name that no bundled frontend answers to; the failure shows where it stands.
pub fn choose(
    definition: &Definition<'_>,
    argument: Option<&str>,
    contexts: &BTreeMap<String, ContextSpec>,
    bundled: &[&str],
) -> Result<Choice, Fault> {
    let argument = argument.and_then(|value| value.split_whitespace().next());
    let line = match argument {
        Some(_) => None,
        None => detect(definition.data),
    };
    let Some(name) = argument.or(line.as_ref().map(|line| line.name.as_str())) else {
        let file = definition.name.rsplit('/').next();
        let named = NAMED.iter().find(|(name, _)| Some(*name) == file);
        let frontend = named.map_or(DEFAULT, |(_, frontend)| frontend).to_owned();
        return Ok(Choice { frontend, source: None, note: None });
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
    let chosen = |frontend: &str, note| {
        Ok(Choice { frontend: frontend.to_owned(), source: Some(meant.to_owned()), note })
    };
    if let Some(found) = bundled.iter().find(|known| **known == meant) {
        return chosen(found, None);
    }
    if meant == BUILT_IN {
        return chosen(DEFAULT, None);
    }
    if is_dockerfile_image(meant) {
        let note = format!("the bundled frontend {DEFAULT} stands for {meant}");
        return chosen(DEFAULT, Some(note));
    }
    let hint = match nearest(meant, bundled.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "wbuild runs no frontends from images; --frontend FILE.wasm reads the definition \
                 with a component of yours"
            .to_owned(),
    };
    let mut fault =
        refusal(definition, line.as_ref(), format!("there is no frontend {meant:?}"), hint);
    if argument.is_some() {
        fault.failure.message = format!("there is no frontend {meant:?}, which {ARGUMENT} names");
    }
    Err(fault.hint(format!("--frontend {DEFAULT} reads it with the bundled one")))
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
) -> Fault {
    let mut sources = SourceMap::default();
    let mut failure = Failure::unsupported(message.clone()).hint(hint);
    if let Some(line) = line {
        let source = sources.add(SourceFile {
            name: definition.name.to_owned(),
            language: String::new(),
            text: definition.data.into(),
        });
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let at = Span { source, start: offset(line.at.start), end: offset(line.at.end) };
        failure.diagnostics.push(Diagnostic {
            severity: Severity::Error,
            code: None,
            message,
            labels: vec![Label { at, text: String::new(), primary: true }],
            help: None,
            url: None,
            attrs: Default::default(),
        });
    }
    Fault { exit: Exit::Failed, failure: Box::new(failure), sources }
}

#[cfg(test)]
mod tests;
