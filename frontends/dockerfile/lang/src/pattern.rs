//! Patterns of `${variable#pattern}` and `${variable/pattern/replacement}`.
//!
//! `*` is any text of a line, `?` any one character of it, a backslash makes the next character literal
//! (POSIX shell patterns without bracket expressions, and line by line as the reference builder
//! matches them). Matching keeps the set of reachable places instead of backtracking, so a hostile
//! pattern costs at most its length times that of the value, when replacing too.

/// Part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Many,
}

impl Token {
    /// Whether it stands for this one character.
    fn matches(self, c: char) -> bool {
        match self {
            Token::Char(own) => own == c,
            Token::One => c != '\n',
            Token::Many => false,
        }
    }
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

    /// How many of `value`'s first characters the pattern matches. If it does not match, whether a `*`
    /// was reached: what follows that is not in the rest of its line then.
    fn prefix(&self, value: &[char], length: Length) -> Result<usize, bool> {
        // Places that can be reached, in order. They are of one line: only its end leads to the next.
        let mut reachable = vec![0];
        let mut many = false;
        for token in &self.0 {
            if *token == Token::Many {
                many = true;
                let first = reachable[0];
                let line = value[first..].iter().take_while(|c| **c != '\n').count();
                reachable = (first..=first + line).collect();
            } else {
                reachable.retain_mut(|place| {
                    let matches = value.get(*place).is_some_and(|c| token.matches(*c));
                    *place += 1;
                    matches
                });
            }
            if reachable.is_empty() {
                return Err(many);
            }
        }
        let place = match length {
            Length::Shortest => reachable.first(),
            Length::Longest => reachable.last(),
        };
        place.copied().ok_or(many)
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
    /// place counts; an empty one right behind another match does not. Ends early when the result is
    /// longer than `most`.
    pub fn replace(&self, value: &str, replacement: &str, all: bool, most: usize) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let mut behind = None;
        let before = self.0.iter().take_while(|token| **token != Token::Many).count();
        while at <= chars.len() && out.len() <= most {
            let matched = self.prefix(&chars[at..], Length::Longest);
            // What a `*` has not found from here it does not find from further on in its line.
            if matched == Err(true) {
                let line = chars[at + before..].iter().take_while(|c| **c != '\n').count();
                let next = at + line + 1;
                out.extend(&chars[at..next.min(chars.len())]);
                at = next;
                continue;
            }
            let matched = matched.ok().filter(|length| *length > 0 || behind != Some(at));
            if let Some(length) = matched {
                out.push_str(replacement);
                at += length;
                behind = Some(at);
                if !all {
                    break;
                }
                continue;
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
