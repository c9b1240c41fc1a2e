//! Patterns of `${variable#pattern}` and `${variable/pattern/replacement}`.
//!
//! `*` is any text, `?` any one character, a backslash makes the next character literal (POSIX shell
//! patterns without bracket expressions). Matching keeps the set of reachable positions instead of
//! backtracking, so a hostile pattern costs at most its length times that of the value.

/// Part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Many,
}

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Token>);

/// Which of several matches is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    Shortest,
    Longest,
}

impl Pattern {
    /// Reads a pattern. The error is the character that may not follow a backslash.
    pub fn parse(text: &str) -> Result<Pattern, Option<char>> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Many,
                '?' => Token::One,
                '\\' => match chars.next() {
                    // `}` and `/` end the pattern unless they are escaped.
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::Char(c),
                    other => return Err(other),
                },
                c => Token::Char(c),
            });
        }
        Ok(Pattern(tokens))
    }

    /// How many of `value`'s first characters the pattern matches.
    fn prefix(&self, value: &[char], length: Length) -> Option<usize> {
        let mut reachable = vec![false; value.len() + 1];
        reachable[0] = true;
        for token in &self.0 {
            match token {
                Token::Many => {
                    let first = reachable.iter().position(|r| *r)?;
                    reachable[first..].fill(true);
                }
                Token::One => {
                    reachable.rotate_right(1);
                    reachable[0] = false;
                }
                Token::Char(c) => {
                    let mut before = false;
                    for (at, slot) in reachable.iter_mut().enumerate() {
                        let here = before && value[at - 1] == *c;
                        before = std::mem::replace(slot, here);
                    }
                }
            }
            if !reachable.contains(&true) {
                return None;
            }
        }
        match length {
            Length::Shortest => reachable.iter().position(|r| *r),
            Length::Longest => reachable.iter().rposition(|r| *r),
        }
    }

    /// `value` without what the pattern matches at its start.
    pub fn strip_prefix(&self, value: &str, length: Length) -> String {
        let chars: Vec<char> = value.chars().collect();
        let matched = self.prefix(&chars, length).unwrap_or(0);
        chars[matched..].iter().collect()
    }

    /// `value` without what the pattern matches at its end.
    pub fn strip_suffix(&self, value: &str, length: Length) -> String {
        let chars: Vec<char> = value.chars().rev().collect();
        let reversed = Pattern(self.0.iter().rev().copied().collect());
        let matched = reversed.prefix(&chars, length).unwrap_or(0);
        chars[matched..].iter().rev().collect()
    }

    /// `value` with the first match, or every match, replaced. The longest match at the leftmost
    /// place counts; an empty one right behind another match does not.
    pub fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let mut behind = None;
        while at <= chars.len() {
            let matched = self.prefix(&chars[at..], Length::Longest);
            // What a leading `*` does not find from here it does not find further on either.
            if matched.is_none() && self.0.first() == Some(&Token::Many) {
                break;
            }
            let matched = matched.filter(|length| *length > 0 || behind != Some(at));
            if let Some(length) = matched {
                out.push_str(replacement);
                at += length;
                behind = Some(at);
                if !all {
                    break;
                }
                if length > 0 {
                    continue;
                }
            }
            if let Some(c) = chars.get(at) {
                out.push(*c);
            }
            at += 1;
        }
        out.extend(chars.get(at..).unwrap_or_default());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).expect("valid")
    }

    #[test]
    fn strips_shortest_and_longest() {
        use Length::{Longest, Shortest};
        for (text, value, prefix, prefixes, suffix, suffixes) in [
            ("a*c", "abcabc", "abc", "", "abc", ""),
            ("*a", "babab", "bab", "b", "babab", "babab"),
            ("b*", "babab", "abab", "", "baba", ""),
            ("?", "äbc", "bc", "bc", "äb", "äb"),
            ("*", "abc", "abc", "", "abc", ""),
            ("", "abc", "abc", "abc", "abc", "abc"),
            ("x", "abc", "abc", "abc", "abc", "abc"),
            ("*/", "/usr/lib/x", "usr/lib/x", "x", "/usr/lib/x", "/usr/lib/x"),
            ("/*", "/usr/lib/x", "usr/lib/x", "", "/usr/lib", ""),
            (r"\*", "*a*", "a*", "a*", "*a", "*a"),
        ] {
            let p = pattern(text);
            assert_eq!(p.strip_prefix(value, Shortest), prefix, "{value}#{text}");
            assert_eq!(p.strip_prefix(value, Longest), prefixes, "{value}##{text}");
            assert_eq!(p.strip_suffix(value, Shortest), suffix, "{value}%{text}");
            assert_eq!(p.strip_suffix(value, Longest), suffixes, "{value}%%{text}");
        }
    }

    #[test]
    fn replaces_first_and_all() {
        for (text, value, replacement, first, all) in [
            ("b", "abab", "x", "axab", "axax"),
            ("a*", "babab", "x", "bx", "bx"),
            ("?b", "abab", "", "ab", ""),
            ("c", "abab", "x", "abab", "abab"),
            ("", "ab", "-", "-ab", "-a-b-"),
            ("*", "ab", "-", "-", "-"),
            ("*", "", "-", "-", "-"),
            ("*b", "aac", "x", "aac", "aac"),
            (r"\/", "a/b/c", ".", "a.b/c", "a.b.c"),
        ] {
            let p = pattern(text);
            assert_eq!(p.replace(value, replacement, false), first, "{value}/{text}");
            assert_eq!(p.replace(value, replacement, true), all, "{value}//{text}");
        }
    }

    #[test]
    fn refuses_other_escapes() {
        assert_eq!(Pattern::parse(r"a\n"), Err(Some('n')));
        assert_eq!(Pattern::parse(r"a\"), Err(None));
    }
}
