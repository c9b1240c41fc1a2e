//! Puts files in the place of `INCLUDE` lines. Calls no host.

use std::ops::Range;

use wbuild_dockerfile::lexer::{Reader, blank_separated, keyword};
use wbuild_dockerfile::{Failure, Span, Text};

/// How deep files may include each other.
const DEPTH: usize = 16;
/// How many may be included, each time counted.
const FILES: usize = 200;
/// How many bytes all may have together.
const BYTES: usize = 16 << 20;

/// A text without `INCLUDE` lines, and what its parts stand for.
#[derive(Debug, Default, PartialEq)]
pub struct Expanded {
    /// A Dockerfile.
    pub text: Vec<u8>,
    /// Ranges of it, and where they come from.
    pub parts: Vec<(Range<usize>, Span)>,
    files: usize,
}

/// Reads a file of the context: its bytes, and its number as a source. None if it is not there.
pub type Read<'a> = dyn FnMut(&str) -> Result<Option<(Vec<u8>, u32)>, Failure> + 'a;

/// A failure about a place.
fn failure(kind: &str, message: String, at: Span) -> Failure {
    let mut failure = Failure::new(kind, message.clone());
    failure.diagnostics.push(wbuild_dockerfile::Diagnostic {
        severity: wbuild_dockerfile::Severity::Error,
        code: "include".into(),
        message,
        labels: vec![wbuild_dockerfile::Label { at, text: String::new(), primary: true }],
        help: None,
        url: None,
        attrs: Vec::new(),
    });
    failure
}

impl Expanded {
    /// Adds a file; `above` are the files that it is included by, itself last.
    pub fn add(
        &mut self,
        source: u32,
        data: &[u8],
        escape: char,
        above: &mut Vec<String>,
        read: &mut Read<'_>,
    ) -> Result<(), Failure> {
        let mut reader = Reader::new(source, data);
        let mut copied = reader.offset();
        while let Some(line) = reader.logical(escape) {
            let (word, rest) = keyword(&line.text);
            if !word.eq_ignore_ascii_case("INCLUDE") {
                for (name, tabs) in heredocs(&word, &rest) {
                    reader.heredoc(&name, tabs);
                }
                continue;
            }
            self.copy(source, data, copied..line.span.start as usize, line.span)?;
            copied = reader.offset();
            let path = path_of(&rest).ok_or_else(|| {
                let message = "INCLUDE wants the path of one file of the context".to_owned();
                failure("invalid", message, line.span)
            })?;
            self.files += 1;
            if above.len() > DEPTH || self.files > FILES {
                let message =
                    format!("more than {DEPTH} files deep, or {FILES} in all, are included");
                return Err(failure("limit", message, line.span));
            }
            if above.contains(&path) {
                let message = format!("{path} includes itself: {} -> {path}", above.join(" -> "));
                return Err(failure("invalid", message, line.span));
            }
            let Some((included, number)) = read(&path)? else {
                let message = format!("there is no {path} in the context to include");
                return Err(failure("not-found", message, line.span));
            };
            above.push(path);
            self.add(number, &included, escape, above, read)?;
            above.pop();
            if self.text.last().is_some_and(|last| *last != b'\n') {
                self.text.push(b'\n');
            }
        }
        let end = Span { source, start: copied as u32, end: data.len() as u32 };
        self.copy(source, data, copied..data.len(), end)
    }

    fn copy(
        &mut self,
        source: u32,
        data: &[u8],
        range: Range<usize>,
        at: Span,
    ) -> Result<(), Failure> {
        let start = self.text.len();
        if start + range.len() > BYTES {
            let message = format!("what is included has more than {} MiB", BYTES >> 20);
            return Err(failure("limit", message, at));
        }
        let original = Span { source, start: range.start as u32, end: range.end as u32 };
        self.text.extend_from_slice(&data[range]);
        if start < self.text.len() {
            self.parts.push((start..self.text.len(), original));
        }
        Ok(())
    }
}

/// A path inside the context, as it is called there.
fn path_of(rest: &Text) -> Option<String> {
    let [word] = &blank_separated(rest)[..] else { return None };
    let parts = word.split('/').filter(|part| !matches!(*part, "" | "."));
    let parts: Vec<&str> = parts.collect();
    let inside = !parts.is_empty() && !parts.contains(&"..");
    inside.then(|| parts.join("/"))
}

/// Names of the heredocs that an instruction opens, and whether tabs before them mean nothing.
fn heredocs(word: &Text, rest: &Text) -> Vec<(String, bool)> {
    if !["RUN", "COPY", "ADD"].iter().any(|name| word.eq_ignore_ascii_case(name)) {
        return Vec::new();
    }
    let opened = |word: Text| {
        let name = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
        let (name, tabs) = name.strip_prefix('-').map_or((name, false), |name| (name, true));
        let name = name.trim_matches(['"', '\'']);
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        (!name.is_empty() && name.chars().all(plain)).then(|| (name.to_owned(), tabs))
    };
    blank_separated(rest).into_iter().filter_map(opened).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expands the file `main` of some files, whose number is their place.
    fn expand(files: &[(&str, &str)]) -> Result<Expanded, Failure> {
        let mut out = Expanded::default();
        let mut read = |path: &str| {
            let found = files.iter().position(|(name, _)| *name == path);
            Ok(found.map(|at| (files[at].1.as_bytes().to_vec(), at as u32)))
        };
        out.add(0, files[0].1.as_bytes(), '\\', &mut vec!["main".to_owned()], &mut read)?;
        Ok(out)
    }

    fn text(files: &[(&str, &str)]) -> String {
        String::from_utf8(expand(files).expect("expands").text).expect("UTF-8")
    }

    #[test]
    fn files_stand_where_they_are_included() {
        let files = [
            ("main", "FROM a\n# x\n  include ./b  \nRUN z\n"),
            ("b", "INCLUDE d/c\nRUN b"),
            ("d/c", "RUN c\n"),
        ];
        assert_eq!(text(&files), "FROM a\n# x\n  RUN c\nRUN b\nRUN z\n");
        let parts = expand(&files).expect("expands").parts;
        for (range, from) in parts {
            let original = &files[from.source as usize].1[from.start as usize..from.end as usize];
            assert_eq!(original, &text(&files)[range]);
        }
    }

    #[test]
    fn what_only_looks_like_an_include_is_left_alone() {
        for file in [
            "FROM a\nRUN <<EOF\nINCLUDE b\nEOF\n",
            "FROM a\nCOPY <<-\"E1\" <<E2 /x/\n\tINCLUDE b\n\tE1\nINCLUDE c\nE2\n",
            "FROM a\nRUN x \\\n  INCLUDE b\n# INCLUDE c\n",
        ] {
            assert_eq!(text(&[("main", file)]), file);
        }
    }

    #[test]
    fn an_error_knows_its_place() {
        for (files, place, message) in [
            (&[("main", "FROM a\nINCLUDE b c\n")][..], "INCLUDE b c", "one file"),
            (&[("main", "FROM a\nINCLUDE ../b\n")], "INCLUDE ../b", "of the context"),
            (&[("main", "FROM a\nINCLUDE b\n")], "INCLUDE b", "there is no b"),
            (
                &[("main", "INCLUDE b"), ("b", "RUN x\nINCLUDE main")],
                "INCLUDE main",
                "main -> b -> main",
            ),
        ] {
            let failure = expand(files).expect_err(place);
            let at = failure.diagnostics[0].labels[0].at;
            let text = files[at.source as usize].1;
            assert_eq!(&text[at.start as usize..at.end as usize], place);
            assert!(failure.message.contains(message), "{}", failure.message);
        }
        let wide = "INCLUDE b\n".repeat(FILES + 1);
        assert_eq!(expand(&[("main", &wide), ("b", "")]).expect_err("many").kind, "limit");
    }
}
