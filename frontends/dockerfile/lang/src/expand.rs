//! Variables, quotes and escapes of words (Dockerfile reference, "Environment replacement").
//!
//! A pure function from a word and the variables in force to a word. Supported are `$name`,
//! `${name}`, `${name-w}`, `${name:-w}`, `${name+w}`, `${name:+w}`, `${name?w}`, `${name:?w}`,
//! `${name#p}`, `${name##p}`, `${name%p}`, `${name%%p}`, `${name/p/r}` and `${name//p/r}`, where `w`,
//! `p` and `r` are words themselves. Single quotes stop expansion, double quotes keep it; the escape
//! character makes the next one literal.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::pattern::{Length, Pattern};
use crate::text::shown;

/// Where the values of variables come from.
pub trait Lookup {
    /// The value of a variable; none if it is not set.
    fn lookup(&self, name: &str) -> Option<&str>;
}

impl Lookup for std::collections::BTreeMap<String, String> {
    fn lookup(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

/// How a word is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Makes the next character literal.
    pub escape: char,
    /// Quotes mean something. If not they are ordinary characters, as in a heredoc.
    pub quotes: bool,
    /// Quotes stay in the result.
    pub keep_quotes: bool,
    /// Escape characters stay in the result.
    pub keep_escapes: bool,
    /// A variable that is not set stays as it was written.
    pub keep_unset: bool,
}

impl Options {
    /// For arguments of instructions.
    pub fn word(escape: char) -> Self {
        Options { escape, quotes: true, keep_quotes: false, keep_escapes: false, keep_unset: false }
    }

    /// For bodies of heredocs that are copied to files. The escape is always a backslash.
    pub fn heredoc() -> Self {
        Options { quotes: false, ..Options::word('\\') }
    }

    /// For showing a command with its variables filled in, otherwise as it was written.
    pub fn display(escape: char) -> Self {
        Options { keep_quotes: true, keep_escapes: true, keep_unset: true, ..Options::word(escape) }
    }
}

/// A word after expansion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// The word.
    pub text: String,
    /// The word split at white space that is not protected by quotes or escapes.
    pub words: Vec<String>,
    /// Variables that were set and looked at.
    pub used: BTreeSet<String>,
    /// Variables that were not set, with the bytes of the word where each stands first.
    pub unset: BTreeMap<String, Range<usize>>,
}

impl Expansion {
    /// All variables that were looked at.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.used.iter().chain(self.unset.keys())
    }
}

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpandError {
    /// Bytes of the word.
    pub at: Range<usize>,
    /// One sentence without a trailing period.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// How deep words may stand inside words.
const DEPTH: u32 = 64;

/// Expands one word.
pub fn expand(word: &str, options: Options, env: &dyn Lookup) -> Result<Expansion, ExpandError> {
    // Most words hold nothing to expand.
    let special = |c| c == '$' || c == '\'' || c == '"' || c == options.escape;
    if !word.contains(special) {
        let words = word.split_whitespace().map(str::to_owned).collect();
        return Ok(Expansion { text: word.to_owned(), words, ..Expansion::default() });
    }
    let mut expander = Expander {
        word,
        at: 0,
        options,
        keep_escapes: options.keep_escapes,
        depth: 0,
        env,
        used: BTreeSet::new(),
        unset: BTreeMap::new(),
    };
    let (text, words) = expander.until(None)?;
    Ok(Expansion { text, words: words.done(), used: expander.used, unset: expander.unset })
}

struct Expander<'a> {
    word: &'a str,
    at: usize,
    options: Options,
    /// Inside a pattern the escapes are left for the pattern.
    keep_escapes: bool,
    depth: u32,
    env: &'a dyn Lookup,
    used: BTreeSet<String>,
    unset: BTreeMap<String, Range<usize>>,
}

/// Splits at unprotected white space while the text is put together.
#[derive(Default)]
struct Words {
    words: Vec<String>,
    open: Option<String>,
}

impl Words {
    fn protected(&mut self, text: &str) {
        self.open.get_or_insert_default().push_str(text);
    }

    fn plain(&mut self, text: &str) {
        for c in text.chars() {
            if !c.is_whitespace() {
                self.open.get_or_insert_default().push(c);
            } else if let Some(word) = self.open.take_if(|word| !word.is_empty()) {
                self.words.push(word);
            }
        }
    }

    fn done(mut self) -> Vec<String> {
        self.words.extend(self.open.filter(|word| !word.is_empty()));
        self.words
    }
}

impl Expander<'_> {
    fn peek(&self) -> Option<char> {
        self.word[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn error<T>(
        &self,
        start: usize,
        message: impl Into<String>,
        help: &str,
    ) -> Result<T, ExpandError> {
        let help = (!help.is_empty()).then(|| help.to_owned());
        Err(ExpandError { at: start..self.at.max(start), message: message.into(), help })
    }

    /// Reads up to `stop`, which is consumed, or to the end.
    fn until(&mut self, stop: Option<char>) -> Result<(String, Words), ExpandError> {
        let start = self.at;
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.next();
                return Ok((text, words));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    words.plain(&value);
                    text.push_str(&value);
                }
                '\'' if self.options.quotes => {
                    let value = self.single_quoted()?;
                    words.protected(&value);
                    text.push_str(&value);
                }
                '"' if self.options.quotes => {
                    let value = self.double_quoted()?;
                    words.protected(&value);
                    text.push_str(&value);
                }
                _ => {
                    let from = self.at;
                    self.next();
                    if c != self.options.escape {
                        let plain = &self.word[from..self.at];
                        words.plain(plain);
                        text.push_str(plain);
                        continue;
                    }
                    let kept = if self.keep_escapes { from } else { self.at };
                    self.next();
                    let literal = &self.word[kept..self.at];
                    words.protected(literal);
                    text.push_str(literal);
                }
            }
        }
        match stop {
            None => Ok((text, words)),
            Some(stop) => self.error(start, format!("this is not closed by `{stop}`"), ""),
        }
    }

    /// A word inside `${…}`.
    fn inner(&mut self, stop: char, keep_escapes: bool) -> Result<String, ExpandError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return self.error(self.at, format!("more than {DEPTH} words inside each other"), "");
        }
        let before = std::mem::replace(&mut self.keep_escapes, keep_escapes);
        let result = self.until(Some(stop));
        self.keep_escapes = before;
        self.depth -= 1;
        result.map(|(text, _)| text)
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.next();
        let Some(length) = self.word[self.at..].find('\'') else {
            self.at = self.word.len();
            return self.error(
                start,
                "this single quote is not closed",
                "add the closing quote, or write an escape character before a quote that is text",
            );
        };
        let text = &self.word[self.at..self.at + length];
        self.at += length + 1;
        Ok(if self.options.keep_quotes { format!("'{text}'") } else { text.to_owned() })
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.next();
        let quote = if self.options.keep_quotes { "\"" } else { "" };
        let mut text = quote.to_owned();
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    self.next();
                    text.push_str(quote);
                    return Ok(text);
                }
                '$' => text.push_str(&self.dollar()?),
                c if c == self.options.escape => {
                    self.next();
                    let escapes = |c| matches!(c, '"' | '$') || c == self.options.escape;
                    match self.peek() {
                        None => {}
                        Some(next) if escapes(next) => {
                            self.next();
                            if self.keep_escapes {
                                text.push(c);
                            }
                            text.push(next);
                        }
                        // Before any other character it is text.
                        Some(_) => text.push(c),
                    }
                }
                c => {
                    self.next();
                    text.push(c);
                }
            }
        }
        self.error(
            start,
            "this double quote is not closed",
            "add the closing quote, or write an escape character before a quote that is text",
        )
    }

    /// The value of a variable that has been read from `start` on.
    fn get(&mut self, start: usize, name: &str) -> Option<String> {
        let value = self.env.lookup(name).map(str::to_owned);
        if value.is_some() {
            self.used.insert(name.to_owned());
        } else {
            self.unset.entry(name.to_owned()).or_insert(start..self.at);
        }
        value
    }

    /// A name, a number, or one of the shell's special parameters (which are never set).
    fn name(&mut self) -> String {
        let rest = &self.word[self.at..];
        let length = match rest.chars().next() {
            Some(c) if c.is_ascii_digit() => rest.find(|c: char| !c.is_ascii_digit()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => Some(1),
            _ => rest.find(|c: char| !(c.is_alphanumeric() || c == '_')),
        };
        let name = rest[..length.unwrap_or(rest.len())].to_owned();
        self.at += name.len();
        name
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        let start = self.at;
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.get(start, &name) {
                None if self.options.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.next();
        let name = match self.peek() {
            Some('{' | '}' | ':') => String::new(),
            _ => self.name(),
        };
        if name.is_empty() && self.peek().is_some() {
            self.next();
            return self.error(
                start,
                "a variable's name is missing after `${`",
                "write `${NAME}`, or an escape character before a `$` that is text",
            );
        }
        self.braces(start, &name).map_err(|error| {
            // However deep inside it was noticed: the brace is what the reader can find.
            if error.message.ends_with("is not closed by `}`") {
                ExpandError {
                    at: start..self.word.len(),
                    message: "this `${` has no closing `}`".to_owned(),
                    help: Some("add `}`".to_owned()),
                }
            } else {
                error
            }
        })
    }

    /// What follows the name in `${name…}`.
    fn braces(&mut self, start: usize, name: &str) -> Result<String, ExpandError> {
        let open = self.at;
        let Some(modifier) = self.next() else {
            return self.error(start, "this is not closed by `}`", "");
        };
        let as_written = |this: &Self| this.word[start..this.at].to_owned();
        match modifier {
            '}' => Ok(match self.get(start, name) {
                None if self.options.keep_unset => as_written(self),
                value => value.unwrap_or_default(),
            }),
            ':' | '-' | '+' | '?' => {
                let or_empty = modifier == ':';
                let modifier = if or_empty { self.next() } else { Some(modifier) };
                let Some(modifier) = modifier else {
                    return self.error(start, "this is not closed by `}`", "");
                };
                if !matches!(modifier, '-' | '+' | '?') {
                    return self.unknown_modifier(open);
                }
                let from = self.at;
                let word = self.inner('}', false)?;
                let value = self.get(start, name);
                if value.is_none() && self.options.keep_unset {
                    return Ok(as_written(self));
                }
                let present = value.as_ref().is_some_and(|v| !(or_empty && v.is_empty()));
                match modifier {
                    '-' if present => Ok(value.unwrap_or_default()),
                    '-' => Ok(word),
                    '+' if present => Ok(word),
                    '+' => Ok(String::new()),
                    _ if present => Ok(value.unwrap_or_default()),
                    _ => {
                        let state = if value.is_some() { "empty" } else { "not set" };
                        let message = if word.is_empty() {
                            format!("`{name}` must have a value but is {state}")
                        } else {
                            format!("{name}: {word}")
                        };
                        self.at = self.at.max(from);
                        self.error(
                            start,
                            message,
                            &format!("`{name}` is {state}; give it a value with --build-arg {name}=… or an ARG default"),
                        )
                    }
                }
            }
            '#' | '%' => {
                let greedy = self.peek() == Some(modifier);
                if greedy {
                    self.next();
                }
                let from = self.at;
                let word = self.inner('}', true)?;
                let Some(value) = self.get(start, name) else {
                    return Ok(if self.options.keep_unset {
                        as_written(self)
                    } else {
                        String::new()
                    });
                };
                let pattern = self.pattern(&word, from)?;
                let length = if greedy { Length::Longest } else { Length::Shortest };
                Ok(if modifier == '#' {
                    pattern.strip_prefix(&value, length)
                } else {
                    pattern.strip_suffix(&value, length)
                })
            }
            '/' => {
                let all = self.peek() == Some('/');
                if all {
                    self.next();
                }
                let from = self.at;
                let Ok(word) = self.inner('/', true) else {
                    self.at = self.word.len();
                    return self.error(
                        start,
                        "the `/` between pattern and replacement is missing",
                        "write `${NAME/pattern/replacement}`",
                    );
                };
                let pattern = self.pattern(&word, from)?;
                let replacement = self.inner('}', true)?;
                let Some(value) = self.get(start, name) else {
                    return Ok(if self.options.keep_unset {
                        as_written(self)
                    } else {
                        String::new()
                    });
                };
                Ok(pattern.replace(&value, &replacement, all))
            }
            _ => self.unknown_modifier(open),
        }
    }

    fn unknown_modifier<T>(&self, open: usize) -> Result<T, ExpandError> {
        let modifier = &self.word[open..self.at];
        let help = if matches!(modifier, ":#" | ":%" | ":/") {
            "leave the `:` out; it goes with `-`, `+` and `?` only"
        } else {
            "after the name one of `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//` may stand"
        };
        self.error(open, format!("{} is not known in a substitution", shown(modifier)), help)
    }

    fn pattern(&self, text: &str, from: usize) -> Result<Pattern, ExpandError> {
        Pattern::parse(text).or_else(|escaped| {
            let escaped = escaped.map(String::from).unwrap_or_default();
            self.error(
                from,
                format!("`\\{escaped}` is not known in a pattern"),
                "a backslash may stand before `*`, `?`, `/`, `}` and another backslash",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn env() -> BTreeMap<String, String> {
        let pairs = [
            ("a", "1"),
            ("e", ""),
            ("path", "/usr/lib/x.tar.gz"),
            ("sp", "x y"),
            ("q", "it's"),
            ("ü", "umlaut"),
        ];
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    #[test]
    fn words() {
        for (word, expect) in [
            ("plain", "plain"),
            ("$a", "1"),
            ("${a}", "1"),
            ("x${a}y$a.z", "x1y1.z"),
            ("$ab", ""),
            ("${a}b", "1b"),
            ("$ü", "umlaut"),
            (r"\$a", "$a"),
            (r"\${a}", "${a}"),
            (r"\\$a", r"\1"),
            (r"a\b", "ab"),
            ("$", "$"),
            ("$.", "$."),
            ("a$", "a$"),
            ("$1x", "x"),
            ("$@", ""),
            ("'$a'", "$a"),
            ("\"$a\"", "1"),
            ("\"'$a'\"", "'1'"),
            (r#""\$a\"\b\\""#, "$a\"\\b\\"),
            (r"'a\'", r"a\"),
            ("a'b'\"c\"", "abc"),
            ("${q}", "it's"),
            ("${u-d}", "d"),
            ("${u:-d}", "d"),
            ("${e-d}", ""),
            ("${e:-d}", "d"),
            ("${a:-d}", "1"),
            ("${u+d}", ""),
            ("${u:+d}", ""),
            ("${e+d}", "d"),
            ("${e:+d}", ""),
            ("${a:+d}", "d"),
            ("${a?m}", "1"),
            ("${a:?m}", "1"),
            ("${e?m}", ""),
            ("${u:-${a}}", "1"),
            ("${u:-${e:-${a}$a}}", "11"),
            ("${u:-\"}\"}", "}"),
            (r"${u:-\}}", "}"),
            ("${u:-a b}", "a b"),
            ("${path#*/}", "usr/lib/x.tar.gz"),
            ("${path##*/}", "x.tar.gz"),
            ("${path%.*}", "/usr/lib/x.tar"),
            ("${path%%.*}", "/usr/lib/x"),
            ("${path%$u}", "/usr/lib/x.tar.gz"),
            ("${path/lib/bin}", "/usr/bin/x.tar.gz"),
            ("${path//r/R}", "/usR/lib/x.taR.gz"),
            (r"${path//\//_}", "_usr_lib_x.tar.gz"),
            ("${path/lib/$a}", "/usr/1/x.tar.gz"),
            ("${path/lib/}", "/usr//x.tar.gz"),
            ("${u#x}", ""),
            ("${u/x/y}", ""),
        ] {
            let got = expand(word, Options::word('\\'), &env());
            assert_eq!(got.map(|e| e.text), Ok(expect.to_owned()), "{word}");
        }
    }

    #[test]
    fn other_modes() {
        let backtick = expand(r"`$a\$a", Options::word('`'), &env()).expect("valid");
        assert_eq!(backtick.text, r"$a\1");
        let heredoc = expand("'$a' \"$a\" \\$a \\n", Options::heredoc(), &env()).expect("valid");
        assert_eq!(heredoc.text, "'1' \"1\" $a n");
        let shown =
            expand(r#"RUN echo "$a" '$a' $u ${u:-x} \n \$a"#, Options::display('\\'), &env());
        assert_eq!(shown.expect("valid").text, r#"RUN echo "1" '$a' $u ${u:-x} \n \$a"#);
    }

    #[test]
    fn splits_at_unprotected_blanks() {
        let words = |word: &str| expand(word, Options::word('\\'), &env()).expect("valid").words;
        assert_eq!(words("$sp"), ["x", "y"]);
        assert_eq!(words("\"$sp\" z"), ["x y", "z"]);
        assert_eq!(words(r"a\ b c"), ["a b", "c"]);
        assert_eq!(words(" a  b "), ["a", "b"]);
        assert!(words("$u").is_empty());
    }

    #[test]
    fn remembers_what_it_looked_at() {
        let got = expand("$a ${u:-$v} ${e}", Options::word('\\'), &env()).expect("valid");
        assert_eq!(got.used.into_iter().collect::<Vec<_>>(), ["a", "e"]);
        let unset = got.unset.into_iter().map(|(name, at)| (name, &"$a ${u:-$v} ${e}"[at]));
        let unset = unset.collect::<Vec<_>>();
        assert_eq!(unset, [("u".to_owned(), "${u:-$v}"), ("v".to_owned(), "$v")]);
    }

    #[test]
    fn errors_point_at_the_cause() {
        for (word, at, message) in [
            ("x${a", 1..4, "this `${` has no closing `}`"),
            ("x${", 1..3, "this `${` has no closing `}`"),
            ("x${a:-b", 1..7, "this `${` has no closing `}`"),
            ("x${a:", 1..5, "this `${` has no closing `}`"),
            ("${}", 0..3, "a variable's name is missing after `${`"),
            ("${{a}}", 0..3, "a variable's name is missing after `${`"),
            ("${:a}", 0..3, "a variable's name is missing after `${`"),
            ("${a!b}", 3..4, "`!` is not known in a substitution"),
            ("${a:#b}", 3..5, "`:#` is not known in a substitution"),
            ("${a/b}", 0..6, "the `/` between pattern and replacement is missing"),
            (r"${a#\n}", 4..7, r"`\n` is not known in a pattern"),
            ("x'a", 1..3, "this single quote is not closed"),
            ("x\"a", 1..3, "this double quote is not closed"),
            ("${u?}", 0..5, "`u` must have a value but is not set"),
            ("${e:?}", 0..6, "`e` must have a value but is empty"),
            ("${u:?give u}", 0..12, "u: give u"),
        ] {
            let got = expand(word, Options::word('\\'), &env()).map(|e| e.text);
            let error = got.expect_err(word);
            assert_eq!((error.at, error.message.as_str()), (at, message), "{word}");
        }
    }

    #[test]
    fn nesting_is_limited() {
        let deep = "${u:-".repeat(10_000);
        assert!(expand(&deep, Options::word('\\'), &env()).is_err());
    }
}
