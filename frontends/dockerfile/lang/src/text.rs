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
use std::sync::Arc;

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

/// From byte `at` of the value on, up to the next segment, bytes come from `from..to` of the source:
/// one by one if these are as many, else all together, e.g. a character from an escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    at: u32,
    from: u32,
    to: u32,
}

/// Where the bytes of a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Places {
    source: u32,
    /// Where the first segment comes from.
    from: u32,
    to: u32,
    /// The other segments.
    more: Vec<Segment>,
}

/// A string and the places its bytes came from. Texts cut from one another share their bytes, so
/// cutting and cloning copy nothing.
#[derive(Clone)]
pub struct Text {
    bytes: Arc<str>,
    /// The value's range of `bytes`.
    start: u32,
    stop: u32,
    places: Places,
}

/// Offsets are kept in 32 bits; the parser refuses larger sources before it comes here.
fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

impl Places {
    fn end(&self) -> u32 {
        self.more.last().map_or(self.to, |last| last.to)
    }

    /// A segment by its number.
    fn segment(&self, number: usize) -> Segment {
        match number.checked_sub(1) {
            None => Segment { at: 0, from: self.from, to: self.to },
            Some(number) => self.more[number],
        }
    }

    /// The number of the segment that byte `at` is in.
    fn number(&self, at: u32) -> usize {
        self.more.partition_point(|segment| segment.at <= at)
    }
}

impl Text {
    /// The text of `bytes`, which begin at `start` in the source. Invalid UTF-8 becomes U+FFFD, as
    /// it would in the image's JSON.
    pub fn decode(source: u32, start: usize, bytes: &[u8]) -> Text {
        let mut builder = TextBuilder::new(source, start);
        builder.push_bytes(start, bytes);
        builder.finish()
    }

    /// The bytes `range` of a whole source.
    pub(crate) fn of_file(source: u32, file: &Arc<str>, range: Range<usize>) -> Text {
        let (start, stop) = (narrow(range.start), narrow(range.end));
        let places = Places { source, from: start, to: stop, more: Vec::new() };
        Text { bytes: Arc::clone(file), start, stop, places }
    }

    /// The string.
    pub fn as_str(&self) -> &str {
        &self.bytes[self.start as usize..self.stop as usize]
    }

    fn length(&self) -> u32 {
        self.stop - self.start
    }

    /// The whole range in the source.
    pub fn span(&self) -> Span {
        Span { source: self.places.source, start: self.places.from, end: self.places.end() }
    }

    /// Where the bytes `range` of the value came from.
    pub fn span_of(&self, range: Range<usize>) -> Span {
        let (start, _) = self.place(range.start);
        // Through the last byte, because the range may end where another segment begins.
        let end = if range.is_empty() { start } else { self.place(range.end - 1).1 };
        Span { source: self.places.source, start, end: end.max(start) }
    }

    /// Where the bytes `start..end` of a segment came from.
    fn part(&self, number: usize, start: u32, end: u32) -> (u32, u32) {
        let segment = self.places.segment(number);
        let next = self.places.more.get(number).map_or(self.length(), |next| next.at);
        if next - segment.at == segment.to - segment.from {
            (segment.from + (start - segment.at), segment.from + (end - segment.at))
        } else {
            (segment.from, segment.to)
        }
    }

    /// Where byte `at` of the value came from; behind the last byte, the end.
    fn place(&self, at: usize) -> (u32, u32) {
        if at >= self.len() {
            return (self.places.end(), self.places.end());
        }
        let at = narrow(at);
        self.part(self.places.number(at), at, at + 1)
    }

    /// The bytes `range` of the value as a text of their own.
    ///
    /// # Panics
    /// If the range is not on character boundaries, like slicing a string.
    pub fn slice(&self, range: Range<usize>) -> Text {
        // Panics here rather than where the slice is read.
        let _ = &self.as_str()[range.clone()];
        let (start, end) = (narrow(range.start), narrow(range.end));
        let places = self.places_of(start, end);
        let bytes = Arc::clone(&self.bytes);
        Text { bytes, start: self.start + start, stop: self.start + end, places }
    }

    fn places_of(&self, start: u32, end: u32) -> Places {
        let source = self.places.source;
        // Nearly all texts stand in the source as they are.
        if self.places.more.is_empty() && self.places.to - self.places.from == self.length() {
            let (from, to) = (self.places.from + start, self.places.from + end);
            return Places { source, from, to, more: Vec::new() };
        }
        let from = self.place(start as usize).0;
        let mut places = Places { source, from, to: from, more: Vec::new() };
        for number in self.places.number(start)..=self.places.more.len() {
            let at = self.places.segment(number).at.max(start);
            if at >= end {
                break;
            }
            let next = self.places.more.get(number).map_or(end, |next| next.at.min(end));
            let (from, to) = self.part(number, at, next);
            if at == start {
                (places.from, places.to) = (from, to);
            } else {
                places.more.push(Segment { at: at - start, from, to });
            }
        }
        places
    }

    /// Without white space at both ends.
    pub fn trimmed(&self) -> Text {
        let start = self.len() - self.trim_start().len();
        let end = start + self[start..].trim_end().len();
        self.slice(start..end)
    }

    /// Splits at the first `separator`, which belongs to neither half.
    pub fn split_once(&self, separator: char) -> Option<(Text, Text)> {
        let at = self.find(separator)?;
        let after = at + separator.len_utf8();
        Some((self.slice(0..at), self.slice(after..self.len())))
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.places == other.places && self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}..{}", self.as_str(), self.places.from, self.places.end())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// Puts a [`Text`] together from pieces of one source.
#[derive(Debug)]
pub struct TextBuilder {
    value: String,
    places: Places,
    empty: bool,
}

impl TextBuilder {
    /// An empty text, to be placed at `start` if nothing is added.
    pub fn new(source: u32, start: usize) -> Self {
        let from = narrow(start);
        let places = Places { source, from, to: from, more: Vec::new() };
        TextBuilder { value: String::new(), places, empty: true }
    }

    /// An empty text placed at the start of `other`, to be filled from it.
    pub fn like(other: &Text) -> Self {
        TextBuilder::within(other, 0)
    }

    /// An empty text placed at byte `at` of `other`, to be filled from there.
    pub fn within(other: &Text, at: usize) -> Self {
        TextBuilder::new(other.places.source, other.place(at).0 as usize)
    }

    /// Adds a text that came from `from..to`.
    fn piece(&mut self, text: &str, from: u32, to: u32) {
        let places = &mut self.places;
        let at = narrow(self.value.len());
        let last = places.segment(places.more.len());
        let one_by_one = at - last.at == last.to - last.from && text.len() as u32 == to - from;
        if self.empty {
            (places.from, places.to) = (from, to);
            self.empty = false;
        } else if one_by_one && last.to == from {
            match places.more.last_mut() {
                Some(last) => last.to = to,
                None => places.to = to,
            }
        } else {
            places.more.push(Segment { at, from, to });
        }
        self.value.push_str(text);
    }

    /// Adds bytes of the source, which begin at `start`.
    pub fn push_bytes(&mut self, start: usize, bytes: &[u8]) {
        let mut at = start;
        for chunk in bytes.utf8_chunks() {
            let valid = chunk.valid();
            if !valid.is_empty() {
                self.piece(valid, narrow(at), narrow(at + valid.len()));
                at += valid.len();
            }
            if !chunk.invalid().is_empty() {
                let end = at + chunk.invalid().len();
                self.piece("\u{fffd}", narrow(at), narrow(end));
                at = end;
            }
        }
    }

    /// Adds the bytes `range` of another text of the same source.
    pub fn push(&mut self, other: &Text, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let piece = other.slice(range);
        for number in 0..=piece.places.more.len() {
            let Segment { at, from, to } = piece.places.segment(number);
            let next = piece.places.more.get(number).map_or(piece.length(), |next| next.at);
            self.piece(&piece[at as usize..next as usize], from, to);
        }
    }

    /// Adds a character that stands for the bytes `range` of another text, e.g. an escape.
    pub fn push_char(&mut self, c: char, other: &Text, range: Range<usize>) {
        let span = other.span_of(range);
        self.piece(c.encode_utf8(&mut [0; 4]), span.start, span.end);
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.empty
    }

    /// The text so far.
    pub fn finish(self) -> Text {
        let stop = narrow(self.value.len());
        Text { bytes: self.value.into(), start: 0, stop, places: self.places }
    }
}

/// Quotes a user's text for a message, cut to a length a reader can take in.
pub fn shown(text: &str) -> String {
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

        // Escapes before characters of several bytes: a quoted `b` with an escaped `ü` before it.
        let source = Text::decode(0, 0, "\\\u{fc}'b'".as_bytes());
        let mut builder = TextBuilder::like(&source);
        builder.push_char('\u{fc}', &source, 0..3);
        builder.push(&source, 4..5);
        let joined = builder.finish();
        assert_eq!(range(joined.span_of(0..2)), 0..3);
        assert_eq!(range(joined.span_of(2..3)), 4..5);
        assert_eq!(range(joined.slice(0..2).span()), 0..3);
        assert_eq!(range(joined.span_of(0..3)), 0..5);

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
