//! Sources, spans into them, and messages that point at spans.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Half-open byte range in a registered source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// Index into the [`SourceMap`].
    pub source: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// How grave a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The build cannot go on.
    Error,
    /// The build goes on; the result may not be what was meant.
    Warning,
    /// Information.
    Note,
    /// Advice.
    Help,
}

/// A span with a text beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Where.
    pub at: Span,
    /// What is to be said of this place; may be empty.
    pub text: String,
    /// The place the message is about, as opposed to a related one.
    pub primary: bool,
}

/// A message about places in the sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// See [`Severity`].
    pub severity: Severity,
    /// Stable machine name, e.g. `undefined-var`.
    pub code: Option<String>,
    /// One sentence without a trailing period.
    pub message: String,
    /// Places.
    pub labels: Vec<Label>,
    /// What to do about it.
    pub help: Option<String>,
    /// Where to read more.
    pub url: Option<String>,
    /// Keys: `detail`, `fix`, `experimental`.
    pub attrs: crate::Attrs,
}

/// A text that spans refer to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// As the user knows it, e.g. `Dockerfile`.
    pub name: String,
    /// E.g. `dockerfile`; may be empty.
    pub language: String,
    /// The text; need not be UTF-8.
    pub text: Arc<[u8]>,
}

/// 1-based line, and column in characters (invalid UTF-8 counts one a byte).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// 1-based.
    pub line: usize,
    /// 1-based.
    pub column: usize,
}

impl SourceFile {
    /// Line and column of a byte offset; past the end means the end.
    pub fn position(&self, offset: u32) -> Position {
        let offset = (offset as usize).min(self.text.len());
        let before = &self.text[..offset];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        Position { line, column: String::from_utf8_lossy(&before[start..]).chars().count() + 1 }
    }

    /// Number of lines; an empty text has one.
    pub fn line_count(&self) -> usize {
        let newlines = self.text.iter().filter(|b| **b == b'\n').count();
        newlines + usize::from(self.text.last() != Some(&b'\n')).max(usize::from(newlines == 0))
    }

    /// A line (1-based) without its line ending, invalid UTF-8 replaced.
    pub fn line(&self, number: usize) -> Option<String> {
        let line = self.text.split(|b| *b == b'\n').nth(number.checked_sub(1)?)?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Some(String::from_utf8_lossy(line).into_owned())
    }
}

/// The sources of one build, by index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceMap {
    files: Vec<SourceFile>,
}

impl SourceMap {
    /// Registers a source and returns its index. The same file registered twice is one source.
    pub fn add(&mut self, file: SourceFile) -> u32 {
        let index = self.files.iter().position(|known| *known == file).unwrap_or_else(|| {
            self.files.push(file);
            self.files.len() - 1
        });
        u32::try_from(index).expect("the number of sources is limited far below 2^32")
    }

    /// The source at `index`.
    pub fn get(&self, index: u32) -> Option<&SourceFile> {
        self.files.get(index as usize)
    }

    /// Number of sources.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}
