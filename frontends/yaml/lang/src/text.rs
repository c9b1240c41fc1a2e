//! Texts that know where in the document they stand.

use std::ops::Range;

use wbuild_dockerfile::{Text, TextBuilder};

/// The text of a scalar that stands at `range` of the document. Where it is written as it is, byte
/// goes to byte: in plain and quoted scalars without escapes, and line by line in block scalars. What
/// was folded or escaped goes to the rest of the range.
pub fn placed(source: u32, document: &[u8], range: Range<usize>, value: &str) -> Text {
    let whole = Text::decode(source, range.start, &document[range.clone()]);
    let mut builder = TextBuilder::new(source, range.start);
    let mut at = 0;
    for line in value.split_inclusive('\n') {
        let content = line.trim_end_matches('\n');
        match whole[at..].find(content) {
            Some(found) => {
                let start = at + found;
                at = start + content.len();
                builder.push(&whole, start..at);
            }
            None => content.chars().for_each(|c| builder.push_char(c, &whole, at..whole.len())),
        }
        if line.len() > content.len() {
            let end = whole[at..].find('\n').map_or(whole.len(), |found| at + found + 1);
            builder.push_char('\n', &whole, at..end);
            at = end;
        }
    }
    builder.finish()
}

/// A word in the language of Dockerfile words that means this text, but for `${NAME}`: quotes and
/// backslashes are themselves, and so is a `$` that begins no `${`. `$${` is `${`.
pub fn word(text: &Text) -> Text {
    let mut builder = TextBuilder::like(text);
    let mut chars = text.char_indices().peekable();
    let escape = |builder: &mut TextBuilder, range: Range<usize>| {
        builder.push_char('\\', text, range.clone());
        builder.push(text, range);
    };
    while let Some((at, c)) = chars.next() {
        let here = at..at + c.len_utf8();
        let next = |offset: usize| text.as_bytes().get(at + offset).copied();
        match c {
            '"' | '\'' | '\\' => escape(&mut builder, here),
            '$' if next(1) == Some(b'{') => builder.push(text, here),
            '$' if (next(1), next(2)) == (Some(b'$'), Some(b'{')) => {
                chars.next();
                escape(&mut builder, at + 1..at + 2);
            }
            '$' => escape(&mut builder, here),
            _ => builder.push(text, here),
        }
    }
    builder.finish()
}

/// Texts and words of ours, which stand where `at` does, one behind the other.
pub fn joined(at: &Text, parts: &[Part<'_>]) -> Text {
    let mut builder = TextBuilder::like(at);
    for part in parts {
        match part {
            Part::Ours(text) => text.chars().for_each(|c| builder.push_char(c, at, 0..at.len())),
            Part::Theirs(text) => text
                .char_indices()
                .for_each(|(start, c)| builder.push_char(c, text, start..start + c.len_utf8())),
        }
    }
    builder.finish()
}

/// A part of a joined text.
pub enum Part<'a> {
    /// Of this crate.
    Ours(&'a str),
    /// Of the document.
    Theirs(&'a Text),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_themselves_but_for_variables() {
        for (text, want) in [
            ("plain", "plain"),
            ("say \"hi\" it's \\n", "say \\\"hi\\\" it\\'s \\\\n"),
            ("${A}/$B/$", "${A}/\\$B/\\$"),
            ("$${A} $$ $$B", "\\${A} \\$\\$ \\$\\$B"),
            ("${A:-'x'}", "${A:-\\'x\\'}"),
        ] {
            let text = Text::decode(0, 0, text.as_bytes());
            assert_eq!(word(&text).as_str(), want);
        }
    }

    #[test]
    fn places() {
        let document = b"a: |\n  one\n  two\nb: \"x\\ty\"\n";
        let block = placed(0, document, 3..16, "one\ntwo\n");
        let two = block.span_of(4..7);
        assert_eq!(&document[two.start as usize..two.end as usize], b"two");
        let escaped = placed(0, document, 20..26, "x\ty");
        let span = escaped.span_of(1..2);
        assert_eq!((span.start, span.end), (20, 26));
    }
}
