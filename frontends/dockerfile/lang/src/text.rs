//! Text that knows where each of its bytes came from.
//!
//! A logical line of a Dockerfile is put together from physical lines, loses comments and
//! continuation characters, and is then cut into words that may lose quotes and escapes. [`Text`]
//! follows all of that, so that a message about one key of a `--mount` flag on the third line of a
//! `RUN` can point at exactly that key.
//!
//! Invariants: segments are in the order of both the value and the source; the first one is always
//! there, so that even an empty text has a place. Most texts have no other, and then it costs nothing.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, Range};

/// Half-open byte range in a registered source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Number of the source, as the caller of the parser gave it.
    pub source: u32,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The smallest span that covers both. They must be of one source.
    pub fn to(self, other: Span) -> Span {
        Span {
            source: self.source,
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }
}

/// From byte `at` of the value on, bytes come from byte `from` of the source on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    at: u32,
    from: u32,
}

/// A string and the places its bytes came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    value: String,
    source: u32,
    /// Where the first segment comes from.
    from: u32,
    /// The other segments.
    more: Vec<Segment>,
    end: u32,
}

/// Offsets are kept in 32 bits; the parser refuses larger sources before it comes here.
fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

impl Text {
    /// The text of `bytes`, which begin at `start` in the source. Invalid UTF-8 becomes U+FFFD, as
    /// it would in the image's JSON.
    pub fn decode(source: u32, start: usize, bytes: &[u8]) -> Text {
        let mut builder = TextBuilder::new(source, start);
        builder.push_bytes(start, bytes);
        builder.finish()
    }

    /// The string.
    pub fn as_str(&self) -> &str {
        &self.value
    }

    /// The whole range in the source.
    pub fn span(&self) -> Span {
        Span { source: self.source, start: self.from, end: self.end }
    }

    /// Where the bytes `range` of the value came from.
    pub fn span_of(&self, range: Range<usize>) -> Span {
        let (start, _) = self.place(range.start);
        let end = if range.end >= self.value.len() && !range.is_empty() {
            // The last character may stand for more than its own bytes, e.g. for an escape too.
            self.end
        } else if range.end > range.start {
            // Through the last byte, because the range may end where another segment begins. A
            // replaced byte is longer in the value than in the source, hence the limit.
            let (last, limit) = self.place(range.end - 1);
            (last + 1).min(limit).max(start)
        } else {
            start
        };
        Span { source: self.source, start, end }
    }

    /// A segment by its number.
    fn segment(&self, number: usize) -> Segment {
        match number.checked_sub(1) {
            None => Segment { at: 0, from: self.from },
            Some(number) => self.more[number],
        }
    }

    /// The offset of byte `at`, and that of the first byte which comes from elsewhere.
    fn place(&self, at: usize) -> (u32, u32) {
        let at = narrow(at.min(self.value.len()));
        let next = self.more.partition_point(|segment| segment.at <= at);
        let segment = self.segment(next);
        let limit = self.more.get(next).map_or(self.end, |segment| segment.from);
        let limit = limit.max(segment.from);
        ((segment.from + (at - segment.at)).min(limit), limit)
    }

    /// The bytes `range` of the value as a text of their own.
    ///
    /// # Panics
    /// If the range is not on character boundaries, like slicing a string.
    pub fn slice(&self, range: Range<usize>) -> Text {
        let span = self.span_of(range.clone());
        let (start, end) = (narrow(range.start), narrow(range.end));
        let first = self.more.partition_point(|segment| segment.at <= start);
        let inside = self.more[first..].iter().take_while(|segment| segment.at < end);
        let more = inside.map(|s| Segment { at: s.at - start, from: s.from }).collect();
        let value = self.value[range].to_owned();
        Text { value, source: self.source, from: span.start, more, end: span.end }
    }

    /// Without white space at both ends.
    pub fn trimmed(&self) -> Text {
        let start = self.value.len() - self.value.trim_start().len();
        let end = start + self.value[start..].trim_end().len();
        self.slice(start..end)
    }

    /// Splits at the first `separator`, which belongs to neither half.
    pub fn split_once(&self, separator: char) -> Option<(Text, Text)> {
        let at = self.value.find(separator)?;
        let after = at + separator.len_utf8();
        Some((self.slice(0..at), self.slice(after..self.value.len())))
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}..{}", self.value, self.span().start, self.end)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.value)
    }
}

/// Puts a [`Text`] together from pieces of one source.
#[derive(Debug)]
pub struct TextBuilder {
    text: Text,
    empty: bool,
}

impl TextBuilder {
    /// An empty text, to be placed at `start` if nothing is added.
    pub fn new(source: u32, start: usize) -> Self {
        let from = narrow(start);
        let text = Text { value: String::new(), source, from, more: Vec::new(), end: from };
        TextBuilder { text, empty: true }
    }

    /// An empty text placed at the start of `other`, to be filled from it.
    pub fn like(other: &Text) -> Self {
        TextBuilder::within(other, 0)
    }

    /// An empty text placed at byte `at` of `other`, to be filled from there.
    pub fn within(other: &Text, at: usize) -> Self {
        TextBuilder::new(other.source, other.place(at).0 as usize)
    }

    fn piece(&mut self, from: u32, end: u32) {
        let at = narrow(self.text.value.len());
        if self.empty {
            self.text.from = from;
            self.empty = false;
        } else {
            let last = self.text.segment(self.text.more.len());
            if last.from + (at - last.at) != from {
                self.text.more.push(Segment { at, from });
            }
        }
        self.text.end = end;
    }

    /// Adds bytes of the source, which begin at `start`.
    pub fn push_bytes(&mut self, start: usize, bytes: &[u8]) {
        let mut at = start;
        for chunk in bytes.utf8_chunks() {
            let valid = chunk.valid();
            if !valid.is_empty() {
                self.piece(narrow(at), narrow(at + valid.len()));
                self.text.value.push_str(valid);
                at += valid.len();
            }
            if !chunk.invalid().is_empty() {
                self.piece(narrow(at), narrow(at + chunk.invalid().len()));
                self.text.value.push(char::REPLACEMENT_CHARACTER);
                at += chunk.invalid().len();
            }
        }
    }

    /// Adds the bytes `range` of another text of the same source.
    pub fn push(&mut self, other: &Text, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let piece = other.slice(range);
        let at = narrow(self.text.value.len());
        self.piece(piece.from, piece.end);
        for segment in &piece.more {
            self.text.more.push(Segment { at: at + segment.at, from: segment.from });
        }
        self.text.value.push_str(&piece.value);
    }

    /// Adds a character that stands for the bytes `range` of another text, e.g. an escape.
    pub fn push_char(&mut self, c: char, other: &Text, range: Range<usize>) {
        let span = other.span_of(range);
        self.piece(span.start, span.end);
        self.text.value.push(c);
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.empty
    }

    /// The text so far.
    pub fn finish(self) -> Text {
        self.text
    }
}

/// Quotes a user's text for a message, cut to a length a reader can take in.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    if text.is_empty() {
        return "an empty value".to_owned();
    }
    let cut: Cow<'_, str> = if text.chars().count() > MOST {
        Cow::Owned(text.chars().take(MOST).chain("…".chars()).collect())
    } else {
        Cow::Borrowed(text)
    };
    format!("`{}`", cut.replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(span: Span) -> Range<u32> {
        span.start..span.end
    }

    #[test]
    fn places_survive_joining_slicing_and_replacing() {
        // RUN a\<newline>bc
        let mut builder = TextBuilder::new(0, 0);
        builder.push_bytes(0, b"RUN a");
        builder.push_bytes(7, b"bc");
        let line = builder.finish();
        assert_eq!(line.as_str(), "RUN abc");
        assert_eq!(range(line.span()), 0..9);
        assert_eq!(range(line.span_of(4..6)), 4..8);
        let word = line.slice(4..7);
        assert_eq!(word.as_str(), "abc");
        assert_eq!(range(word.span_of(1..3)), 7..9);
        assert_eq!(range(word.span_of(0..1)), 4..5);

        let odd = Text::decode(0, 10, b"a\xffb");
        assert_eq!(odd.as_str(), "a\u{fffd}b");
        assert_eq!(range(odd.span_of(1..4)), 11..12);
        assert_eq!(range(odd.span_of(4..5)), 12..13);
        assert_eq!(range(odd.span()), 10..13);
    }

    #[test]
    fn an_empty_text_has_a_place() {
        let text = Text::decode(3, 5, b"A=");
        let (_, value) = text.split_once('=').expect("there is one");
        assert_eq!(value.as_str(), "");
        assert_eq!(value.span(), Span { source: 3, start: 7, end: 7 });
    }
}
