//! Places in a source: every one must lie in it, and where a text keeps the bytes it came from, it
//! must point at these.

use wbuild_dockerfile::{Diagnostic, Span, Text};

/// The bytes of the source with a number.
#[derive(Clone, Copy)]
pub struct Source<'s> {
    bytes: &'s [u8],
    number: u32,
    /// The bytes as text, if they are.
    text: Option<&'s str>,
}

impl<'s> Source<'s> {
    /// A source of which spans carry `number`.
    pub fn new(number: u32, bytes: &'s [u8]) -> Self {
        Source { bytes, number, text: std::str::from_utf8(bytes).ok() }
    }

    /// A span lies in the source, on boundaries of characters.
    pub fn check_span(&self, span: Span) {
        assert_eq!(span.source, self.number, "{span:?} is of another source");
        let (start, end) = (span.start as usize, span.end as usize);
        assert!(start <= end, "{span:?} ends before it starts");
        assert!(end <= self.bytes.len(), "{span:?} is outside {} bytes", self.bytes.len());
        if let Some(text) = self.text {
            assert!(text.is_char_boundary(start), "{span:?} starts inside a character");
            assert!(text.is_char_boundary(end), "{span:?} ends inside a character");
        }
    }

    /// A text and all parts of it lie in the source.
    pub fn check_text(&self, text: &Text) {
        let whole = text.span();
        self.check_span(whole);
        let mut before = whole.start;
        for (at, c) in text.char_indices() {
            let span = text.span_of(at..at + c.len_utf8());
            self.check_span(span);
            assert!(span.start >= before, "{text:?}: {c:?} at {at} lies before its left neighbour");
            assert!(span.end <= whole.end, "{text:?}: {c:?} at {at} lies outside the text");
            before = span.start;
        }
    }

    /// Like [`Self::check_text`]; and each character is what stands at its place. Holds for texts
    /// that were cut and joined, and not for those whose escapes were replaced.
    pub fn check_copy(&self, text: &Text) {
        self.check_text(text);
        for (at, c) in text.char_indices() {
            let span = text.span_of(at..at + c.len_utf8());
            let bytes = &self.bytes[span.start as usize..span.end as usize];
            let mut buffer = [0; 4];
            let same = c.encode_utf8(&mut buffer).as_bytes() == bytes;
            let replaced = c == char::REPLACEMENT_CHARACTER && std::str::from_utf8(bytes).is_err();
            assert!(same || replaced, "{text:?}: {c:?} at {at} came from {bytes:?}");
        }
    }

    /// Every place of a message.
    pub fn check_diagnostics(&self, diagnostics: &[Diagnostic]) {
        for diagnostic in diagnostics {
            assert!(!diagnostic.message.is_empty(), "{diagnostic:?} says nothing");
            for label in &diagnostic.labels {
                self.check_span(label.at);
            }
        }
    }
}
