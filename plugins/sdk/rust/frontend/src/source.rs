//! Texts of the user's, and places in them.

use std::ops::{Deref, Range};
use std::sync::Arc;

use wbuild_graph::{Diagnostic, Label, Severity, Span};

use crate::{Error, Result, sys};
use wbuild_guest::diagnostic;

/// A text that the host knows, so that messages can show its lines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Source {
    index: u32,
    name: Arc<str>,
    data: Arc<[u8]>,
}

impl Source {
    /// Registers a text. `language` is for highlighting and may be empty.
    pub fn new(name: &str, language: &str, data: &[u8]) -> Result<Source> {
        let index = sys::add_source(name, language, data)?;
        Ok(Source { index, name: name.into(), data: data.into() })
    }

    /// As the user knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// Its text.
    ///
    /// # Errors
    ///
    /// When it is not UTF-8, with the place of the first byte that is not.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.data).map_err(|error| {
            let at = error.valid_up_to();
            self.error(at..at + 1, format!("{} is not UTF-8", self.name))
        })
    }

    /// A place in it, in bytes.
    pub fn span(&self, range: Range<usize>) -> Span {
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span { source: self.index, start: offset(range.start), end: offset(range.end) }
    }

    /// Its lines with their places: without line ends, numbered from 1, and whatever is no UTF-8
    /// replaced.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut start = 0;
        for raw in self.data.split_inclusive(|byte| *byte == b'\n') {
            let bare = raw.strip_suffix(b"\n").unwrap_or(raw);
            let bare = bare.strip_suffix(b"\r").unwrap_or(bare);
            lines.push(Line {
                number: lines.len() + 1,
                text: String::from_utf8_lossy(bare).into_owned(),
                range: start..start + bare.len(),
                at: self.span(start..start + bare.len()),
            });
            start += raw.len();
        }
        lines
    }

    /// An error at a place of it.
    pub fn error(&self, range: Range<usize>, message: impl Into<String>) -> Error {
        Error::invalid(message).at(self.span(range))
    }

    /// A warning at a place of it, to be reported.
    pub fn warning(&self, range: Range<usize>, message: impl Into<String>) -> Warning {
        Warning::new(message).at(self.span(range))
    }

    /// Says what places of this text, which was generated, stand for.
    pub fn map(&self, ranges: &[(Range<usize>, Span)]) -> Result<()> {
        let ranges: Vec<_> =
            ranges.iter().map(|(range, original)| (self.span(range.clone()), *original)).collect();
        Ok(sys::map_source(&ranges)?)
    }
}

/// A line of a [`Source`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: usize,
    /// Without its line end.
    pub text: String,
    /// Its bytes in the source.
    pub range: Range<usize>,
    /// The same as a place.
    pub at: Span,
}

impl Deref for Line {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// A message that ends nothing.
#[derive(Clone, Debug)]
#[must_use = "a warning is shown by `report`"]
pub struct Warning(Diagnostic);

impl Warning {
    /// One sentence without a trailing period.
    pub fn new(message: impl Into<String>) -> Self {
        Warning(diagnostic(Severity::Warning, message.into()))
    }

    /// A place that it is about.
    pub fn at(self, place: Span) -> Self {
        self.label(place, "", true)
    }

    /// A related place, and what is to be said of it.
    pub fn note(self, place: Span, text: &str) -> Self {
        self.label(place, text, false)
    }

    fn label(mut self, at: Span, text: &str, primary: bool) -> Self {
        self.0.labels.push(Label { at, text: text.to_owned(), primary });
        self
    }

    /// A stable machine name, by which a user silences it.
    pub fn code(mut self, code: &str) -> Self {
        self.0.code = Some(code.to_owned());
        self
    }

    /// What to do about it.
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.0.help = Some(text.into());
        self
    }

    /// Where to read more.
    pub fn url(mut self, url: &str) -> Self {
        self.0.url = Some(url.to_owned());
        self
    }

    /// Shows it.
    pub fn report(self) {
        sys::report(self.0);
    }
}
