//! `.dockerignore` files (Docker build context documentation, ".dockerignore files").
//!
//! `wbuild-ignore` reads them and knows what a pattern means; here its lines get spans, and what is
//! wrong with them becomes diagnostics.

use crate::{Code, Diagnostic, Span};

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
    for line in wbuild_ignore::read(bytes) {
        let offset = |at| u32::try_from(at).unwrap_or(u32::MAX);
        let at = Span { source, start: offset(line.at.start), end: offset(line.at.end) };
        match wbuild_ignore::check(&line.pattern) {
            Ok(()) => patterns.push(Pattern { text: line.pattern, at }),
            Err(_) if line.pattern == "!" => problems.push(
                Diagnostic::error(Code::InvalidIgnore, at, "a pattern is missing after `!`")
                    .help("name what to include again, e.g. `!README.md`"),
            ),
            Err(error) => {
                problems.push(Diagnostic::error(Code::InvalidIgnore, at, error.to_string()));
            }
        }
    }
    if problems.is_empty() { Ok(patterns) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_problems_have_their_places() {
        let patterns = parse(7, b"# note\n  /a/../b/ \n").expect("valid");
        let at = Span { source: 7, start: 9, end: 17 };
        assert_eq!(patterns, [Pattern { text: "b".to_owned(), at }]);
        let problems = parse(0, b"a\n !\nb\n[c\n").expect_err("two are wrong");
        let places: Vec<_> = problems.iter().map(|problem| problem.labels[0].at).collect();
        assert_eq!(
            places.iter().map(|at| (at.start, at.end)).collect::<Vec<_>>(),
            [(3, 4), (7, 9)]
        );
    }
}
