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
    /// The result is split into words as well.
    pub split: bool,
}

impl Options {
    /// For arguments of instructions.
    pub fn word(escape: char) -> Self {
        Options {
            escape,
            quotes: true,
            keep_quotes: false,
            keep_escapes: false,
            keep_unset: false,
            split: false,
        }
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
    /// The word split at white space that is not protected by quotes or escapes, if that was asked
    /// for.
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

/// By how many bytes a word may grow. A few lines of `ENV A=$A$A` would fill any memory.
const GROWTH: usize = 1 << 20;

/// Why reading a word stopped.
enum Stop {
    /// The end came before the character that closes the word. Whoever opened it knows where, and
    /// what to say.
    Open,
    Error(ExpandError),
}

/// Expands one word.
pub fn expand(word: &str, options: Options, env: &dyn Lookup) -> Result<Expansion, ExpandError> {
    // Most words hold nothing to expand.
    let special = |c| c == '$' || c == '\'' || c == '"' || c == options.escape;
    if !word.contains(special) {
        let words = options.split.then(|| word.split_whitespace().map(str::to_owned).collect());
        return Ok(Expansion {
            text: word.to_owned(),
            words: words.unwrap_or_default(),
            ..Expansion::default()
        });
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
    let (text, words) = match expander.until(None) {
        Ok(read) => read,
        Err(Stop::Error(error)) => return Err(error),
        Err(Stop::Open) => unreachable!("a word that nothing closes ends at its end"),
    };
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
    wanted: bool,
    words: Vec<String>,
    open: Option<String>,
}

impl Words {
    fn protected(&mut self, text: &str) {
        if !self.wanted {
            return;
        }
        self.open.get_or_insert_default().push_str(text);
    }

    fn plain(&mut self, text: &str) {
        if !self.wanted {
            return;
        }
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

impl<'a> Expander<'a> {
    fn peek(&self) -> Option<char> {
        self.word[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn error<T>(&self, start: usize, message: impl Into<String>, help: &str) -> Result<T, Stop> {
        let help = (!help.is_empty()).then(|| help.to_owned());
        let at = start..self.at.max(start);
        Err(Stop::Error(ExpandError { at, message: message.into(), help }))
    }

    /// At least one character, and those that follow up to one that may mean something.
    fn up_to(&mut self, stops: impl Fn(char) -> bool) -> &'a str {
        let from = self.at;
        self.next();
        let rest = &self.word[self.at..];
        let end = rest.find(|c| c == '$' || c == self.options.escape || stops(c));
        self.at += end.unwrap_or(rest.len());
        &self.word[from..self.at]
    }

    /// Fails if what came of a substitution makes the word too long.
    fn check_length(&self, start: usize, length: usize) -> Result<(), Stop> {
        if length <= self.word.len() + GROWTH {
            return Ok(());
        }
        let message = format!("the word becomes longer than {} MiB here", GROWTH >> 20);
        self.error(start, message, "no program takes a variable or an argument of that length")
    }

    /// Reads up to `stop`, which is consumed, or to the end.
    fn until(&mut self, stop: Option<char>) -> Result<(String, Words), Stop> {
        let mut text = String::new();
        let wanted = self.options.split && self.depth == 0;
        let mut words = Words { wanted, ..Words::default() };
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.next();
                return Ok((text, words));
            }
            match c {
                '$' => {
                    let start = self.at;
                    let value = self.dollar()?;
                    self.check_length(start, text.len() + value.len())?;
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
                c if c != self.options.escape => {
                    let plain = self.up_to(|c| c == '\'' || c == '"' || Some(c) == stop);
                    words.plain(plain);
                    text.push_str(plain);
                }
                _ => {
                    let from = self.at;
                    self.next();
                    let kept = if self.keep_escapes { from } else { self.at };
                    self.next();
                    let literal = &self.word[kept..self.at];
                    words.protected(literal);
                    text.push_str(literal);
                }
            }
        }
        if stop.is_none() { Ok((text, words)) } else { Err(Stop::Open) }
    }

    /// A word inside `${…}`.
    fn inner(&mut self, stop: char, keep_escapes: bool) -> Result<String, Stop> {
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

    fn single_quoted(&mut self) -> Result<String, Stop> {
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

    fn double_quoted(&mut self) -> Result<String, Stop> {
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
                '$' => {
                    let start = self.at;
                    let value = self.dollar()?;
                    self.check_length(start, text.len() + value.len())?;
                    text.push_str(&value);
                }
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
                        // Before any other character it is text, which a pattern has to escape.
                        Some(_) => {
                            if self.keep_escapes && !self.options.keep_escapes {
                                text.push(c);
                            }
                            text.push(c);
                        }
                    }
                }
                _ => text.push_str(self.up_to(|c| c == '"')),
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

    fn dollar(&mut self) -> Result<String, Stop> {
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
        let name = self.name();
        if name.is_empty() && self.peek().is_some() {
            self.next();
            return self.error(
                start,
                "a variable's name is missing after `${`",
                "write `${NAME}`, or an escape character before a `$` that is text",
            );
        }
        match self.braces(start, &name) {
            Err(Stop::Open) => self.error(start, "this `${` has no closing `}`", "add `}`"),
            result => result,
        }
    }

    /// What follows the name in `${name…}`.
    fn braces(&mut self, start: usize, name: &str) -> Result<String, Stop> {
        let open = self.at;
        let modifier = self.next().ok_or(Stop::Open)?;
        let as_written = |this: &Self| this.word[start..this.at].to_owned();
        match modifier {
            '}' => Ok(match self.get(start, name) {
                None if self.options.keep_unset => as_written(self),
                value => value.unwrap_or_default(),
            }),
            ':' | '-' | '+' | '?' => {
                let or_empty = modifier == ':';
                let modifier = if or_empty { self.next().ok_or(Stop::Open)? } else { modifier };
                if !matches!(modifier, '-' | '+' | '?') {
                    return self.unknown_modifier(open);
                }
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
                let pattern = self.pattern(&word, from)?;
                let value = match self.get(start, name) {
                    None if self.options.keep_unset => return Ok(as_written(self)),
                    value => value.unwrap_or_default(),
                };
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
                let word = match self.inner('/', true) {
                    Err(Stop::Open) => {
                        return self.error(
                            start,
                            "the `/` between pattern and replacement is missing",
                            "write `${NAME/pattern/replacement}`",
                        );
                    }
                    word => word?,
                };
                let pattern = self.pattern(&word, from)?;
                let replacement = self.inner('}', true)?;
                // A pattern may match nothing, so this makes a difference even if there is no value.
                let value = match self.get(start, name) {
                    None if self.options.keep_unset => return Ok(as_written(self)),
                    value => value.unwrap_or_default(),
                };
                let most = self.word.len() + GROWTH;
                let replaced = pattern.replace(&value, &replacement, all, most);
                self.check_length(start, replaced.len())?;
                Ok(replaced)
            }
            _ => self.unknown_modifier(open),
        }
    }

    fn unknown_modifier<T>(&self, open: usize) -> Result<T, Stop> {
        let modifier = &self.word[open..self.at];
        let help = if matches!(modifier, ":#" | ":%" | ":/") {
            "leave the `:` out; it goes with `-`, `+` and `?` only"
        } else {
            "after the name one of `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//` may stand"
        };
        self.error(open, format!("{} is not known in a substitution", shown(modifier)), help)
    }

    fn pattern(&self, text: &str, from: usize) -> Result<Pattern, Stop> {
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
