//! The string literals of a Rust source that a program may print.

/// A string literal.
pub struct Literal {
    /// Counted from 1.
    pub line: usize,
    /// Without quotes and escapes.
    pub text: String,
}

/// Words before a literal that say nobody but a developer reads it.
const FOR_DEVELOPERS: [&str; 5] =
    ["expect(", "unreachable!(", "panic!(", "assert!(", "doc = concat!("];

/// All literals outside of comments, attributes for documentation and unit tests.
pub fn literals(source: &str) -> Vec<Literal> {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if c == '\'' {
            at += character(rest);
        } else if c == '"' {
            let raw = source[..at].ends_with('r') && !source[..at].ends_with("str");
            let (text, length) = string(rest, raw);
            let before = source[..at].trim_end();
            if !FOR_DEVELOPERS.iter().any(|word| before.ends_with(word)) {
                found.push(Literal { line: source[..at].lines().count(), text });
            }
            at += length;
        } else {
            at += c.len_utf8();
        }
    }
    found
}

/// The length of a character literal, or of the quote of a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            rest[2..].char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 3)
        }
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

/// A string literal from its opening quote on, and its length.
fn string(rest: &str, raw: bool) -> (String, usize) {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text, at + 1),
            '\\' if !raw => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, '\n')) => while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                Some((_, other)) => text.push(other),
                None => {}
            },
            c => text.push(c),
        }
    }
    (text, rest.len())
}

#[cfg(test)]
mod tests {
    use super::literals;

    #[test]
    fn finds_what_is_printed() {
        let source = concat!(
            "// \"no\"\nlet a = '\"'; let b = '\\''; fn f<'a>(x: &'a str) {}\n",
            "say(\"one \\\"two\\\" \\\n    three\"); x.expect(\"no\"); y(r\"a\\b\");\n",
            "#[cfg(test)] mod tests { say(\"no\") }",
        );
        let found: Vec<_> = literals(source).into_iter().map(|l| (l.line, l.text)).collect();
        assert_eq!(found, [(3, "one \"two\" three".to_owned()), (4, "a\\b".to_owned())]);
    }
}
