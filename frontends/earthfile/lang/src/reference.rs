//! References to targets, artifacts and functions: `+t`, `./dir+t`, `host/org/repo:tag+t`, `alias+t`,
//! each perhaps followed by the path of an artifact, `+t/path`.
//!
//! A reference may hold variables, so it is read from a string, when these are known. The parser
//! looks at those without variables, so that their mistakes are told with all others.

use std::fmt;
use std::ops::Range;

/// Where an Earthfile lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The one that the reference stands in.
    Here,
    /// A directory: `./dir`, `../dir`, `.dir` or `/dir`.
    Local(String),
    /// A directory of a git repository.
    Remote {
        /// Host, repository and the directory in it.
        path: String,
        /// Branch, tag or commit; none means the default branch.
        tag: Option<String>,
    },
    /// What an IMPORT names.
    Import(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Here => Ok(()),
            Place::Local(path) | Place::Remote { path, tag: None } | Place::Import(path) => {
                f.write_str(path)
            }
            Place::Remote { path, tag: Some(tag) } => write!(f, "{path}:{tag}"),
        }
    }
}

/// A target or function of an Earthfile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Whose.
    pub place: Place,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.place, self.name)
    }
}

/// Files that a target saves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Artifact {
    /// Of which target.
    pub target: Reference,
    /// Path or pattern in the target's artifacts, with a leading `/`.
    pub path: String,
}

/// Why a reference cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceError {
    /// Bytes of the reference.
    pub at: Range<usize>,
    /// One sentence without a trailing period.
    pub message: String,
    /// What to do about it.
    pub help: &'static str,
}

fn error<T>(
    at: Range<usize>,
    message: impl Into<String>,
    help: &'static str,
) -> Result<T, ReferenceError> {
    Err(ReferenceError { at, message: message.into(), help })
}

/// Where the `+` of a reference stands: one with a backslash before it is text.
pub fn plus(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '+' if !escaped => return Some(at),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

/// Whether a name can be that of a target.
pub fn is_target_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
}

/// Whether a name can be that of a function.
pub fn is_function_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_'))
}

/// Why a word cannot name a target.
pub(crate) const TARGET_NAMES: &str =
    "names of targets begin with a small letter; letters, digits, `.` and `-` follow";

/// Why a word cannot name a function.
pub(crate) const FUNCTION_NAMES: &str =
    "names of functions begin with a capital letter; capital letters, digits, `.` and `_` follow";

/// Reads the place of an Earthfile, as IMPORT names it or as it stands before a `+`.
pub fn place(text: &str) -> Result<Place, ReferenceError> {
    let whole = 0..text.len();
    if text.is_empty() {
        return Ok(Place::Here);
    }
    // No host and no alias begins with a dot.
    if text.starts_with(['/', '.']) {
        return Ok(Place::Local(text.to_owned()));
    }
    if text.contains("://") {
        let help = "write host and path without `https://`, e.g. `github.com/org/repo:main`";
        return error(whole, "a reference is not a URL", help);
    }
    if !text.contains('/') {
        let named =
            text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        return match named {
            true => Ok(Place::Import(text.to_owned())),
            false => error(
                whole,
                format!("`{text}` is neither a directory nor a repository nor an alias"),
                "a directory begins with `./`, a repository with its host, as in `github.com/org/repo`",
            ),
        };
    }
    // The host may have a port; a tag may have slashes.
    let host = text.find('/').unwrap_or_default();
    let (path, tag) = match text[host..].find(':') {
        Some(colon) => (&text[..host + colon], Some(&text[host + colon + 1..])),
        None => (text, None),
    };
    if tag == Some("") {
        let help = "write a branch, tag or commit behind the colon, or leave the colon out";
        return error(path.len()..text.len(), "the tag of the reference is empty", help);
    }
    if path.split('/').any(|part| part.is_empty() || part == "..") {
        let help = "write host and path, e.g. `github.com/org/repo/dir:main`";
        return error(0..path.len(), "a part of the repository's path is missing", help);
    }
    // A directory of a repository may be written as one is here: `github.com/org/repo/./dir`.
    let named: Vec<&str> = path.split('/').filter(|part| *part != ".").collect();
    Ok(Place::Remote { path: named.join("/"), tag: tag.map(str::to_owned) })
}

fn split(text: &str) -> Result<(Place, usize), ReferenceError> {
    let Some(at) = plus(text) else {
        let help = "write e.g. `+name`, or `./dir+name` for one of another directory";
        return error(0..text.len(), format!("`{text}` has no `+`"), help);
    };
    Ok((place(&text[..at])?, at + 1))
}

/// Reads a reference to a target.
pub fn target(text: &str) -> Result<Reference, ReferenceError> {
    let (place, at) = split(text)?;
    let name = &text[at..];
    if name.contains('/') && is_target_name(name.split('/').next().unwrap_or_default()) {
        let help = "leave the path out: a target is meant here, not what it saves";
        return error(at..text.len(), "this is an artifact, not a target", help);
    }
    if is_function_name(name) {
        let help = "a function is called with DO; BUILD, FROM and COPY take a target";
        return error(at..text.len(), format!("`{name}` is a function, not a target"), help);
    }
    if !is_target_name(name) {
        let message = format!("`{name}` cannot be the name of a target");
        return error(at..text.len(), message, TARGET_NAMES);
    }
    Ok(Reference { place, name: name.to_owned() })
}

/// Reads a reference to a function.
pub fn function(text: &str) -> Result<Reference, ReferenceError> {
    let (place, at) = split(text)?;
    let name = &text[at..];
    if is_target_name(name) {
        let help = "DO takes a function; use BUILD, FROM or COPY for a target";
        return error(at..text.len(), format!("`{name}` is a target, not a function"), help);
    }
    if !is_function_name(name) {
        let message = format!("`{name}` cannot be the name of a function");
        return error(at..text.len(), message, FUNCTION_NAMES);
    }
    Ok(Reference { place, name: name.to_owned() })
}

/// Reads a reference to an artifact. All artifacts of the target are meant if there is no path.
pub fn artifact(text: &str) -> Result<Artifact, ReferenceError> {
    let (place, at) = split(text)?;
    let end = text[at..].find('/').map_or(text.len(), |offset| at + offset);
    let name = &text[at..end];
    if !is_target_name(name) {
        let message = format!("`{name}` cannot be the name of a target");
        return error(at..end.max(at), message, TARGET_NAMES);
    }
    let path = if end == text.len() { "/".to_owned() } else { text[end..].to_owned() };
    Ok(Artifact { target: Reference { place, name: name.to_owned() }, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, place) in [
            ("+a", Place::Here),
            ("./x/y+a", Place::Local("./x/y".to_owned())),
            ("../x+a", Place::Local("../x".to_owned())),
            ("..+a", Place::Local("..".to_owned())),
            (".x+a", Place::Local(".x".to_owned())),
            (".x/y+a", Place::Local(".x/y".to_owned())),
            ("/x+a", Place::Local("/x".to_owned())),
            ("lib+a", Place::Import("lib".to_owned())),
            (
                "github.com/o/r/d:v1.2+a",
                Place::Remote { path: "github.com/o/r/d".to_owned(), tag: Some("v1.2".to_owned()) },
            ),
            (
                "h.org/o/r:john/work+a",
                Place::Remote { path: "h.org/o/r".to_owned(), tag: Some("john/work".to_owned()) },
            ),
            ("host:8080/o/r+a", Place::Remote { path: "host:8080/o/r".to_owned(), tag: None }),
        ] {
            let got = target(text).expect(text);
            assert_eq!(got, Reference { place, name: "a".to_owned() });
            assert_eq!(got.to_string(), text);
        }
        assert_eq!(place(".x"), Ok(Place::Local(".x".to_owned())));
        assert_eq!(target("h.org/./o/r/./d/.:v1+a"), target("h.org/o/r/d:v1+a"));
        let got = artifact("./x+a/b/*").expect("an artifact");
        assert_eq!((got.target.to_string(), got.path.as_str()), ("./x+a".to_owned(), "/b/*"));
        assert_eq!(artifact("+a").expect("all of them").path, "/");
        assert_eq!(function("+DO_IT").expect("a function").name, "DO_IT");
        assert_eq!(plus(r"a\+b"), None);
        assert_eq!(plus(r"a\\+b"), Some(3));
    }

    #[test]
    fn mistakes_have_places() {
        for (text, at) in [
            ("a", 0..1),
            ("+A", 1..2),
            ("+", 1..1),
            ("+a_b", 1..4),
            ("https://x/y+a", 0..11),
            ("h/o/r:+a", 5..6),
            ("h//r+a", 0..4),
            ("h/o/../r+a", 0..8),
            ("a b+a", 0..3),
            ("+a/b", 1..4),
        ] {
            assert_eq!(target(text).expect_err(text).at, at, "{text}");
        }
        assert_eq!(function("+a").expect_err("a target").at, 1..2);
        assert_eq!(artifact("+A/b").expect_err("no target").at, 1..2);
    }
}
