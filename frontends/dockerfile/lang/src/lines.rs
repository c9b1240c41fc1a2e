//! From bytes to logical lines: line endings, comments, continuations, heredoc bodies.
//!
//! Rules (Dockerfile reference, "Format", "Escape", "Here-documents"):
//! - a line whose first non-blank character is `#` is a comment, also between continued lines;
//! - an escape character at the end of a line, perhaps followed by blanks, joins the next line to
//!   it, unless another escape character stands before it;
//! - leading white space of an instruction is dropped, that of continued lines is kept;
//! - empty lines between continued lines are skipped, and remembered for a warning;
//! - heredoc bodies are raw: no comments, no continuations.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::{Span, Text, TextBuilder};

/// A physical line without its line ending.
#[derive(Clone, Copy)]
struct Physical<'a> {
    start: usize,
    content: &'a [u8],
}

/// An instruction with its continued lines joined.
#[derive(Debug)]
pub struct Logical {
    /// The joined text. Not empty.
    pub text: Text,
    /// From the first to the last physical line, without the last line ending.
    pub span: Span,
    /// Comment lines directly above, without `#`.
    pub doc: Vec<Text>,
    /// Empty lines between continued lines.
    pub empty: Vec<Span>,
}

/// Reads logical lines, and heredoc bodies on demand.
pub struct Reader<'a> {
    bytes: &'a [u8],
    /// The same as a string, if it is one, for the texts to share.
    file: Option<Arc<str>>,
    source: u32,
    at: usize,
    /// Where each line stands last, with and without the tabs it begins with. Made on demand.
    last: BTreeMap<(bool, &'a [u8]), usize>,
}

fn without_tabs(mut line: &[u8]) -> &[u8] {
    while let [b'\t', rest @ ..] = line {
        line = rest;
    }
    line
}

fn is_comment(line: &Text) -> bool {
    line.trim_start().starts_with('#')
}

impl<'a> Reader<'a> {
    /// Reads from the start; a byte order mark is skipped.
    pub fn new(source: u32, bytes: &'a [u8]) -> Self {
        let at = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let file = std::str::from_utf8(bytes).ok().map(Arc::from);
        Reader { bytes, file, source, at, last: BTreeMap::new() }
    }

    /// Where reading goes on.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The rest of the line at the current position, decoded; does not move.
    pub fn peek(&self) -> Option<Text> {
        Some(self.decode(self.physical()?.0))
    }

    /// Moves past one physical line.
    pub fn skip(&mut self) {
        if let Some((_, next)) = self.physical() {
            self.at = next;
        }
    }

    fn physical(&self) -> Option<(Physical<'a>, usize)> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
        let mut content = &rest[..length];
        while let [before @ .., b'\n' | b'\r'] = content {
            content = before;
        }
        Some((Physical { start: self.at, content }, self.at + length))
    }

    fn decode(&self, line: Physical<'_>) -> Text {
        self.text(line.start..line.start + line.content.len())
    }

    fn text(&self, range: Range<usize>) -> Text {
        match &self.file {
            Some(file) => Text::of_file(self.source, file, range),
            None => Text::decode(self.source, range.start, &self.bytes[range]),
        }
    }

    fn span(&self, line: Physical<'_>) -> Span {
        self.decode(line).span()
    }

    /// The next instruction, or none at the end of the file.
    pub fn logical(&mut self, escape: char) -> Option<Logical> {
        let mut doc: Vec<Text> = Vec::new();
        loop {
            let (line, next) = self.physical()?;
            self.at = next;
            let text = self.decode(line);
            let text = text.slice(text.len() - text.trim_start().len()..text.len());
            if text.starts_with('#') {
                let comment = text.slice(1..text.len()).trimmed();
                if comment.is_empty() {
                    doc.clear();
                } else {
                    doc.push(comment);
                }
                continue;
            }
            let (kept, continued) = strip_continuation(&text, escape);
            if kept.is_empty() && !continued {
                doc.clear();
                continue;
            }
            if !continued {
                return Some(Logical { span: text.span(), text: kept, doc, empty: Vec::new() });
            }
            let mut span = text.span();
            let mut builder = TextBuilder::like(&kept);
            builder.push(&kept, 0..kept.len());
            let mut empty = Vec::new();
            let mut open = true;
            while open {
                let Some((line, next)) = self.physical() else { break };
                self.at = next;
                let text = self.decode(line);
                if is_comment(&text) {
                    continue;
                }
                if text.trim_start().is_empty() {
                    empty.push(self.span(line));
                    continue;
                }
                let (kept, continued) = strip_continuation(&text, escape);
                builder.push(&kept, 0..kept.len());
                span = span.to(text.span());
                open = continued;
            }
            let text = builder.finish();
            if text.trim().is_empty() {
                // Nothing but continuation characters.
                doc.clear();
                continue;
            }
            return Some(Logical { text, span, doc, empty });
        }
    }

    /// Whether a heredoc of this name would end, without reading the rest of the file each time.
    pub fn has_end(&mut self, name: &str, strip_tabs: bool) -> bool {
        let start = self.at;
        if self.last.is_empty() {
            while let Some((line, next)) = self.physical() {
                self.last.insert((false, line.content), line.start);
                self.last.insert((true, without_tabs(line.content)), line.start);
                self.at = next;
            }
            self.at = start;
        }
        self.last.get(&(strip_tabs, name.as_bytes())).is_some_and(|last| *last >= start)
    }

    /// Reads a heredoc's body up to the line that is `name`. Returns the raw body, line endings
    /// included, and the place of the closing line. At the end of the file without such a line it
    /// returns none and stays where it was.
    pub fn heredoc(&mut self, name: &str, strip_tabs: bool) -> Option<(Text, Span)> {
        let start = self.at;
        while let Some((line, next)) = self.physical() {
            let content = if strip_tabs { without_tabs(line.content) } else { line.content };
            self.at = next;
            if content == name.as_bytes() {
                let body = self.text(start..line.start);
                return Some((body, self.span(line)));
            }
        }
        self.at = start;
        None
    }
}

/// The line without a continuation character at its end, and whether there was one.
fn strip_continuation(line: &Text, escape: char) -> (Text, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        // An escaped escape character is text.
        Some(before) if !before.ends_with(escape) => (line.slice(0..before.len()), true),
        _ => (line.clone(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, escape: char) -> Vec<String> {
        let mut reader = Reader::new(0, text.as_bytes());
        std::iter::from_fn(|| reader.logical(escape))
            .map(|line| format!("{}..{} {}", line.span.start, line.span.end, line.text.as_str()))
            .collect()
    }

    #[test]
    fn joins_continued_lines() {
        for (text, escape, expect) in [
            ("RUN a\n", '\\', vec!["0..5 RUN a"]),
            ("RUN a", '\\', vec!["0..5 RUN a"]),
            ("\u{feff}RUN a\r\nRUN b\r\n", '\\', vec!["3..8 RUN a", "10..15 RUN b"]),
            ("  RUN a \\\n   b\n", '\\', vec!["2..14 RUN a    b"]),
            ("RUN a \\  \n# note \\\n\n b\nRUN c\n", '\\', vec!["0..22 RUN a  b", "23..28 RUN c"]),
            ("RUN a \\\\\nRUN b\n", '\\', vec!["0..8 RUN a \\\\", "9..14 RUN b"]),
            ("RUN a `\n b\\\nRUN c\n", '`', vec!["0..11 RUN a  b\\", "12..17 RUN c"]),
            ("\\\nRUN a\n", '\\', vec!["0..7 RUN a"]),
            ("RUN a \\\n", '\\', vec!["0..7 RUN a "]),
            ("\\\n\\\n", '\\', vec![]),
            ("# only\n\n \t\n", '\\', vec![]),
        ] {
            assert_eq!(lines(text, escape), expect, "{text:?}");
        }
    }

    #[test]
    fn keeps_comments_directly_above() {
        let mut reader = Reader::new(0, b"# far\n\n# one\n #two\nRUN a\n# x\n#\n# y\nRUN b\n");
        let mut docs = Vec::new();
        while let Some(line) = reader.logical('\\') {
            docs.push(line.doc.iter().map(|doc| doc.as_str().to_owned()).collect::<Vec<_>>());
        }
        assert_eq!(docs, [vec!["one", "two"], vec!["y"]]);
    }

    #[test]
    fn reads_heredoc_bodies() {
        let mut reader = Reader::new(0, b"RUN <<E\n# a \\\n\n\tE\nE\r\nRUN b\n");
        assert_eq!(reader.logical('\\').map(|l| l.text.to_string()), Some("RUN <<E".to_owned()));
        let here = reader.offset();
        let (body, close) = reader.heredoc("E", false).expect("closed");
        assert_eq!(body.as_str(), "# a \\\n\n\tE\n");
        assert_eq!((close.start, close.end), (18, 19));
        reader.at = here;
        let (body, _) = reader.heredoc("E", true).expect("closed");
        assert_eq!(body.as_str(), "# a \\\n\n");
        assert!(reader.heredoc("nowhere", false).is_none());
        assert_eq!(reader.logical('\\').map(|l| l.text.to_string()), Some("E".to_owned()));
    }
}
