//! File name patterns with the meaning of Go's `path/filepath.Match` on Unix.
//!
//! ```text
//! *       any characters but '/'
//! ?       one character but '/'
//! [a-z]   one character of the class, [^a-z] one that is not in it
//! \c      the character c
//! ```
//!
//! A character is a UTF-8 sequence; a byte that is none counts as one. As in Go, a class may match
//! `/`, and a pattern is checked as a whole: one that is malformed anywhere is an error. Matching
//! takes at most time proportional to pattern times name.

use crate::error::PatternError;
use crate::text::{Class, character};

type Result<T, E = PatternError> = std::result::Result<T, E>;

/// Longest pattern in bytes.
pub const MAX_PATTERN: usize = 8192;

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    chunks: Vec<Chunk>,
}

/// A run of items, possibly after a `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Chunk {
    star: bool,
    items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Bytes(Vec<u8>),
    Any,
    Class(Class),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A class that is not closed or empty, a `\` at the end, more than [`MAX_PATTERN`] bytes.
    pub fn new(pattern: &[u8]) -> Result<Pattern> {
        let fail = |reason| PatternError::new(pattern, reason);
        if pattern.len() > MAX_PATTERN {
            return Err(fail("it is longer than 8192 bytes"));
        }
        let mut chunks = vec![Chunk::default()];
        let mut at = 0;
        while at < pattern.len() {
            let last = chunks.last_mut().expect("never empty");
            let byte = match pattern[at] {
                b'*' => {
                    if !last.items.is_empty() {
                        chunks.push(Chunk { star: true, items: Vec::new() });
                    } else {
                        last.star = true;
                    }
                    at += 1;
                    continue;
                }
                b'?' => {
                    last.items.push(Item::Any);
                    at += 1;
                    continue;
                }
                b'[' => {
                    let (len, class) = Class::read(&pattern[at..]).map_err(fail)?;
                    last.items.push(Item::Class(class));
                    at += len;
                    continue;
                }
                b'\\' => {
                    at += 1;
                    *pattern.get(at).ok_or_else(|| fail("it ends with a backslash"))?
                }
                byte => byte,
            };
            match last.items.last_mut() {
                Some(Item::Bytes(bytes)) => bytes.push(byte),
                _ => last.items.push(Item::Bytes(vec![byte])),
            }
            at += 1;
        }
        chunks.retain(|chunk| chunk.star || !chunk.items.is_empty());
        Ok(Pattern { chunks })
    }

    /// The text, if the pattern matches nothing but one text.
    pub fn literal(&self) -> Option<&[u8]> {
        match self.chunks.as_slice() {
            [] => Some(b""),
            [Chunk { star: false, items }] => match items.as_slice() {
                [Item::Bytes(bytes)] => Some(bytes),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: &[u8]) -> bool {
        let mut rest = name;
        'chunks: for (index, chunk) in self.chunks.iter().enumerate() {
            let last = index + 1 == self.chunks.len();
            if chunk.items.is_empty() {
                // A star at the end takes everything up to a slash.
                return !rest.contains(&b'/');
            }
            let fits = |text| chunk.eat(text).filter(|after| !last || after.is_empty());
            if let Some(after) = fits(rest) {
                rest = after;
                continue;
            }
            if chunk.star {
                // The earliest place is as good as any: what follows begins with another star.
                for skipped in 0..rest.len() {
                    if rest[skipped] == b'/' {
                        break;
                    }
                    if let Some(after) = fits(&rest[skipped + 1..]) {
                        rest = after;
                        continue 'chunks;
                    }
                }
            }
            return false;
        }
        rest.is_empty()
    }
}

impl Chunk {
    /// What is left of `text` after the items.
    fn eat<'t>(&self, mut text: &'t [u8]) -> Option<&'t [u8]> {
        for item in &self.items {
            text = match item {
                Item::Bytes(bytes) => text.strip_prefix(bytes.as_slice())?,
                Item::Any | Item::Class(_) if text.is_empty() => return None,
                Item::Any if text[0] == b'/' => return None,
                Item::Any => &text[character(text).1..],
                Item::Class(class) => {
                    let (value, width) = character(text);
                    if !class.holds(value) {
                        return None;
                    }
                    &text[width..]
                }
            };
        }
        Some(text)
    }
}

/// Splits a clean path of patterns at its slashes, not at those inside classes, into one pattern a
/// name.
///
/// # Errors
/// As for [`Pattern::new`].
pub fn split(path: &[u8]) -> Result<Vec<Pattern>> {
    // The whole is checked first, as a class may span slashes.
    Pattern::new(path)?;
    let mut names = Vec::new();
    let (mut begin, mut at) = (0, 0);
    while at < path.len() {
        match path[at] {
            b'/' => {
                names.push(Pattern::new(&path[begin..at])?);
                begin = at + 1;
                at += 1;
            }
            b'\\' => at += 2,
            b'[' => at += Class::read(&path[at..]).map_or(1, |(len, _)| len),
            _ => at += 1,
        }
    }
    names.push(Pattern::new(&path[begin..])?);
    Ok(names)
}

/// A pattern that matches nothing but this text, also as one of a list.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        // Lists cut off white space around patterns.
        if c.is_whitespace() && (at == 0 || at + c.len_utf8() == text.len()) {
            escaped.extend(['[', c, ']']);
            continue;
        }
        if matches!(c, '*' | '?' | '[' | ']' | '\\') || (at == 0 && c == '!') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Whether a path holds an unescaped `*`, `?` or `[`.
pub fn has_wildcard(path: &[u8]) -> bool {
    let mut escaped = false;
    path.iter().any(|byte| {
        let literal = escaped;
        escaped = *byte == b'\\' && !literal;
        !literal && matches!(byte, b'*' | b'?' | b'[')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `Some(matches)`, or `None` for a malformed pattern. Results as Go gives them.
    const TABLE: &[(&str, &str, Option<bool>)] = &[
        ("abc", "abc", Some(true)),
        ("*", "abc", Some(true)),
        ("*c", "abc", Some(true)),
        ("a*", "a", Some(true)),
        ("a*", "abc", Some(true)),
        ("a*", "ab/c", Some(false)),
        ("a*/b", "abc/b", Some(true)),
        ("a*/b", "a/c/b", Some(false)),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", Some(true)),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/f", Some(true)),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", Some(false)),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", Some(false)),
        ("a*b?c*x", "abxbbxdbxebxczzx", Some(true)),
        ("a*b?c*x", "abxbbxdbxebxczzy", Some(false)),
        ("ab[c]", "abc", Some(true)),
        ("ab[b-d]", "abc", Some(true)),
        ("ab[e-g]", "abc", Some(false)),
        ("ab[^c]", "abc", Some(false)),
        ("ab[^b-d]", "abc", Some(false)),
        ("ab[^e-g]", "abc", Some(true)),
        ("a\\*b", "a*b", Some(true)),
        ("a\\*b", "ab", Some(false)),
        ("a?b", "a☺b", Some(true)),
        ("a[^a]b", "a☺b", Some(true)),
        ("a???b", "a☺b", Some(false)),
        ("a[^a][^a][^a]b", "a☺b", Some(false)),
        ("[a-ζ]*", "α", Some(true)),
        ("*[a-ζ]", "A", Some(false)),
        ("a?b", "a/b", Some(false)),
        ("a*b", "a/b", Some(false)),
        ("a[^x]b", "a/b", Some(true)),
        ("[\\]a]", "]", Some(true)),
        ("[\\-]", "-", Some(true)),
        ("[x\\-]", "x", Some(true)),
        ("[x\\-]", "-", Some(true)),
        ("[x\\-]", "z", Some(false)),
        ("[\\-x]", "x", Some(true)),
        ("[\\-x]", "-", Some(true)),
        ("[\\-x]", "a", Some(false)),
        ("[]a]", "]", None),
        ("[-]", "-", None),
        ("[x-]", "x", None),
        ("[-x]", "x", None),
        ("\\", "a", None),
        ("[a-b-c]", "a", None),
        ("[", "a", None),
        ("[^", "a", None),
        ("[^bc", "a", None),
        ("a[", "a", None),
        ("a[", "ab", None),
        ("*x", "xxx", Some(true)),
        ("", "", Some(true)),
        ("", "a", Some(false)),
        ("**", "a", Some(true)),
        ("**", "a/b", Some(false)),
        ("x\\", "y", None),
        // Not of Go's own tests.
        ("a?b", "a\u{1f600}b", Some(true)),
        ("a??b", "a\u{1f600}b", Some(false)),
        ("[\u{1f600}]", "\u{1f600}", Some(true)),
        ("[\u{fffd}]", "\u{fffd}", Some(true)),
        ("[^a]", "[", Some(true)),
        ("[^a]", "^", Some(true)),
    ];

    #[test]
    fn matches_what_go_matches() {
        for (pattern, name, wanted) in TABLE {
            let got = Pattern::new(pattern.as_bytes()).ok().map(|p| p.matches(name.as_bytes()));
            assert_eq!(got, *wanted, "{pattern} on {name}");
        }
    }

    #[test]
    fn knows_literals_and_wildcards() {
        for (pattern, literal, wildcard) in [
            ("abc", Some("abc"), false),
            ("a\\*c", Some("a*c"), false),
            ("a\\\\*", None, true),
            ("a[b]", None, true),
            ("a?", None, true),
            ("", Some(""), false),
        ] {
            let compiled = Pattern::new(pattern.as_bytes()).unwrap();
            assert_eq!(compiled.literal(), literal.map(str::as_bytes), "{pattern}");
            assert_eq!(has_wildcard(pattern.as_bytes()), wildcard, "{pattern}");
        }
    }

    #[test]
    fn a_path_is_split_at_slashes_outside_of_classes() {
        for (path, names) in [
            ("", &[""][..]),
            ("a", &["a"]),
            ("a/b*/c?d", &["a", "b*", "c?d"]),
            ("/a/", &["", "a", ""]),
            ("a[/]b/c", &["a[/]b", "c"]),
            ("[^a-/]/[x]/y", &["[^a-/]", "[x]", "y"]),
            (r"a\[/b\]", &[r"a\[", r"b\]"]),
            (r"a\\/b", &[r"a\\", "b"]),
            ("é/ü*", &["é", "ü*"]),
        ] {
            let split = split(path.as_bytes()).expect(path);
            let wanted: Vec<Pattern> =
                names.iter().map(|name| Pattern::new(name.as_bytes()).expect(name)).collect();
            assert_eq!(split, wanted, "{path}");
        }
        for bad in ["a/[", "a[/b", r"a/b\"] {
            assert!(split(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_escaped_text_is_escaped_where_it_must_be() {
        for (text, escaped) in [
            ("", ""),
            ("plain/path", "plain/path"),
            ("a*b?c[d]e\\f", "a\\*b\\?c\\[d\\]e\\\\f"),
            ("!a!", "\\!a!"),
            (" a b ", "[ ]a b[ ]"),
            ("\u{3000}", "[\u{3000}]"),
        ] {
            assert_eq!(escape(text), escaped);
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        let pattern = Pattern::new("a*".repeat(500).as_bytes()).unwrap();
        let mut name = b"a".repeat(2000);
        name.push(b'/');
        assert!(!pattern.matches(&name));
    }

    /// Tries every split at a star.
    fn slow(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len())
                .take_while(|at| !name[..*at].contains(&b'/'))
                .any(|at| slow(rest, &name[at..])),
            Some((b'?', rest)) => {
                name.first().is_some_and(|c| *c != b'/') && slow(rest, &name[1..])
            }
            Some((byte, rest)) => name.first() == Some(byte) && slow(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn never_panics(pattern: Vec<u8>, name: Vec<u8>) {
            if let Ok(pattern) = Pattern::new(&pattern) {
                pattern.matches(&name);
            }
        }

        #[test]
        fn agrees_with_exhaustive_search(pattern in "[ab*?/]{0,8}", name in "[ab/]{0,8}") {
            let fast = Pattern::new(pattern.as_bytes()).unwrap().matches(name.as_bytes());
            prop_assert_eq!(fast, slow(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
