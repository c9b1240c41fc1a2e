//! Reading ignore files: lines, comments, cleaning.
//!
//! What a line means is decided by [`Matcher`](crate::Matcher); nothing is refused here.

use std::ops::Range;

use crate::list::clean_path;

/// A pattern and the place it stands at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Cleaned; `!` in front re-includes. A `!` that nothing follows, or only the root, stays by
    /// itself and is an error of the list.
    pub pattern: String,
    /// Bytes of the file: the line without white space around it.
    pub at: Range<usize>,
}

impl AsRef<str> for Line {
    fn as_ref(&self) -> &str {
        &self.pattern
    }
}

/// Reads the patterns in order.
///
/// A byte order mark in front is skipped. A line that begins with `#` is a comment; a `#` behind
/// blanks is part of a pattern. White space around a line and behind `!` is dropped, and so is one
/// `/` in front. The directory itself (`.`) cannot be left out: for historical reasons saying so is
/// no error, and it is no pattern. What is not UTF-8 is replaced, and then matches nothing.
pub fn read(file: &[u8]) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut next = if file.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    for raw in file[next..].split_inclusive(|byte| *byte == b'\n') {
        let start = next;
        next += raw.len();
        if raw.starts_with(b"#") {
            continue;
        }
        let text = String::from_utf8_lossy(raw);
        // White space is UTF-8, hence as long in the text as in the file.
        let at = start + text.len() - text.trim_start().len()
            ..next - (text.len() - text.trim_end().len());
        let text = text.trim();
        let (sign, rest) = match text.strip_prefix('!') {
            Some(rest) => ("!", rest.trim()),
            None => ("", text),
        };
        if text.is_empty() {
            continue;
        }
        let cleaned = if rest.is_empty() { String::new() } else { clean_path(rest) };
        let cleaned = match cleaned.strip_prefix('/') {
            Some("") if sign.is_empty() => "/",
            Some(rest) => rest,
            None => &cleaned,
        };
        if cleaned != "." {
            lines.push(Line { pattern: format!("{sign}{cleaned}"), at });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_cleaned_and_placed() {
        let file =
            "\u{feff}# note\n\n  /a/../b/ \n!  /c/d\n**/*.o\n.\n #x\n./e//f\r\n/\n!\n! .\n!//";
        let lines = read(file.as_bytes());
        let shown: Vec<_> =
            lines.iter().map(|line| (line.pattern.as_str(), &file[line.at.clone()])).collect();
        assert_eq!(
            shown,
            [
                ("b", "/a/../b/"),
                ("!c/d", "!  /c/d"),
                ("**/*.o", "**/*.o"),
                ("#x", "#x"),
                ("e/f", "./e//f"),
                ("/", "/"),
                ("!", "!"),
                ("!", "!//"),
            ]
        );
    }

    #[test]
    fn bytes_that_are_no_text_do_not_move_the_places() {
        let file = b"\xff\xfe \n  a\xffb \xc2\xa0\r\nc";
        let lines = read(file);
        let places: Vec<_> = lines.iter().map(|line| &file[line.at.clone()]).collect();
        assert_eq!(places, [&b"\xff\xfe"[..], b"a\xffb", b"c"]);
        assert_eq!(lines[1].pattern, "a\u{fffd}b");
    }
}
