//! `.dockerignore` files (Docker build context documentation, ".dockerignore files").
//!
//! Only the file is read here: one pattern a line, comments, cleaning, `!`. What a pattern matches is
//! decided where the files are.

use crate::lines::Reader;
use crate::{Code, Diagnostic, Span, paths};

/// A pattern and the place it stands at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Relative to the context, cleaned; `!` in front re-includes.
    pub text: String,
    /// The pattern in the file.
    pub at: Span,
}

/// Reads the patterns in order; a later one overrides an earlier one.
pub fn parse(source: u32, bytes: &[u8]) -> Result<Vec<Pattern>, Vec<Diagnostic>> {
    let mut patterns = Vec::new();
    let mut problems = Vec::new();
    let mut reader = Reader::new(source, bytes);
    while let Some(line) = reader.peek() {
        reader.skip();
        // A `#` behind blanks is part of a pattern.
        if line.starts_with('#') {
            continue;
        }
        let line = line.trimmed();
        let (negated, pattern) = match line.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, line.as_str()),
        };
        if pattern.is_empty() {
            if negated {
                problems.push(
                    Diagnostic::error(
                        Code::InvalidIgnore,
                        line.span(),
                        "a pattern is missing after `!`",
                    )
                    .help("name what to include again, e.g. `!README.md`"),
                );
            }
            continue;
        }
        let cleaned = paths::clean(pattern);
        let cleaned = match cleaned.strip_prefix('/') {
            Some(rest) if !rest.is_empty() => rest,
            _ => &cleaned,
        };
        // The context itself cannot be left out; for historical reasons saying so is no error.
        if cleaned == "." {
            continue;
        }
        let text = format!("{}{cleaned}", if negated { "!" } else { "" });
        patterns.push(Pattern { text, at: line.span() });
    }
    if problems.is_empty() { Ok(patterns) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_cleaned_and_placed() {
        let file = "\u{feff}# note\n\n  /a/../b/ \n!  /c/d\n**/*.o\n.\n #x\n./e//f\r\n/\n";
        let patterns = parse(7, file.as_bytes()).expect("valid");
        let shown: Vec<_> = patterns
            .iter()
            .map(|p| (p.text.as_str(), &file[p.at.start as usize..p.at.end as usize]))
            .collect();
        assert_eq!(
            shown,
            [
                ("b", "/a/../b/"),
                ("!c/d", "!  /c/d"),
                ("**/*.o", "**/*.o"),
                ("#x", "#x"),
                ("e/f", "./e//f"),
                ("/", "/"),
            ]
        );
        let problems = parse(0, b"a\n !\n").expect_err("nothing after `!`");
        assert_eq!((problems[0].labels[0].at.start, problems[0].labels[0].at.end), (3, 4));
    }
}
