//! Lists of patterns with the meaning of `.dockerignore` (moby's pattern matcher), used for ignore
//! files as well as for include and exclude lists.
//!
//! - Patterns are relative to the root of the list; a leading `/`, `.` and empty names are cleaned
//!   away. One without `/` therefore matches only at the top.
//! - `*`, `?`, classes and `\` as in [`crate::glob`].
//! - `**` stands for any number of directories. `x**` matches everything that starts with `x`;
//!   `a**b` matches `ab` and a `b` anywhere below what starts with `a`; `**x` without any other
//!   wildcard matches everything that ends with `x`.
//! - A pattern matches a path if it matches the path or a directory above it.
//! - `!` turns the meaning round; of all patterns that match, the last one decides.
//! - Going down from the root, a pattern that would turn nothing round where it matches is passed
//!   over, and is so for everything below. With `**/.env` and `!app`, `app` is not excluded and
//!   there is nothing to bring back; `app/.env` is excluded nevertheless.
//!
//! The last two rules rarely differ; where they do, a path is in the set if it is by either. That is
//! what comes of the reference's context transfer, which lists files by the last rule and opens them
//! by the one before.

use std::collections::{HashMap, HashSet};

use crate::error::{ListError, PatternError};
use crate::index::{Below, Texts};
use crate::pattern::{Pattern, Scratch};

/// Most patterns in one list.
pub const MAX_PATTERNS: usize = 100_000;

/// A compiled list.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    rules: Vec<Rule>,
    /// Patterns that are one literal path. Numbers of rules begin at one.
    exact: HashMap<Box<[u8]>, Vec<u32>>,
    /// Patterns that are `**/` and one literal name.
    named: HashMap<Box<[u8]>, Vec<u32>>,
    /// All others.
    others: Texts,
    /// What may be below a directory: rules without and with `!`.
    below: [Below; 2],
}

#[derive(Clone, Debug)]
struct Rule {
    negated: bool,
    /// Index in the list as given, which may hold empty patterns.
    index: usize,
    pattern: Pattern,
}

/// How a list stands towards a directory, handed down to what is in it, so that each path is
/// compared with each pattern at most once. The default is that of the root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The last rule that matches; 0 for none.
    last: u32,
    /// The rule that was the last to turn the meaning round on the way down from the root. Never
    /// above `last`.
    turned: u32,
}

/// What a list says of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The path is in the set that the list describes (for an ignore file: it is excluded).
    pub matched: bool,
    /// The pattern that decided, as index into the list given to [`Matcher::new`]; none if no
    /// pattern matches.
    pub by: Option<usize>,
}

impl Matcher {
    /// Compiles a list. Empty patterns and white space around patterns are ignored.
    ///
    /// # Errors
    /// A malformed pattern, `!` alone, or too many patterns.
    pub fn new<P: AsRef<str>>(patterns: &[P]) -> Result<Matcher, ListError> {
        if patterns.len() > MAX_PATTERNS {
            return Err(ListError::TooMany);
        }
        let mut rules = Vec::with_capacity(patterns.len());
        for (index, pattern) in patterns.iter().enumerate() {
            let compiled = compile(pattern.as_ref());
            let compiled = compiled.map_err(|error| ListError::Pattern { index, error })?;
            if let Some((negated, pattern)) = compiled {
                rules.push(Rule { negated, index, pattern });
            }
        }
        Ok(Matcher::of(rules))
    }

    /// A list of one clean literal path, whatever characters are in it.
    pub fn literal(path: &[u8]) -> Matcher {
        let pattern = Pattern::literal(path);
        Matcher::of(vec![Rule { negated: false, index: 0, pattern }])
    }

    fn of(rules: Vec<Rule>) -> Matcher {
        let mut matcher = Matcher::default();
        let mut others = Vec::new();
        // The same pattern again changes nothing unless one of the other kind came in between.
        let mut known = HashSet::new();
        let mut negated = false;
        for (number, rule) in (1..).zip(&rules) {
            let pattern = &rule.pattern;
            if std::mem::replace(&mut negated, rule.negated) != rule.negated {
                known.clear();
            }
            if !known.insert(pattern) {
                continue;
            }
            if let Some(path) = pattern.as_literal() {
                matcher.exact.entry(path.into()).or_default().push(number);
            } else if let Some(name) = pattern.as_name() {
                matcher.named.entry(name.into()).or_default().push(number);
            } else {
                others.push((number, pattern));
            }
            matcher.below[usize::from(rule.negated)].add(number, pattern);
        }
        matcher.others = Texts::new(others.iter().copied());
        matcher.rules = rules;
        matcher
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the list says of a clean relative path, directories above it included.
    pub fn decide(&self, path: &[u8]) -> Decision {
        self.decision(self.state(path))
    }

    /// What a state means.
    pub fn decision(&self, state: State) -> Decision {
        let by = if self.includes(state.turned) && !self.includes(state.last) {
            state.turned
        } else {
            state.last
        };
        let by = by.checked_sub(1).map(|at| self.rules[at as usize].index);
        Decision { matched: self.matched(state), by }
    }

    /// Whether a path in this state is in the set.
    pub fn matched(&self, state: State) -> bool {
        self.includes(state.last) || self.includes(state.turned)
    }

    fn rule(&self, number: u32) -> &Rule {
        &self.rules[number as usize - 1]
    }

    fn includes(&self, number: u32) -> bool {
        number > 0 && !self.rule(number).negated
    }

    /// The state of a clean relative path: [`Matcher::step`] from the root down.
    pub fn state(&self, path: &[u8]) -> State {
        let mut state = State::default();
        for (at, byte) in path.iter().enumerate() {
            if *byte == b'/' {
                state = self.step(state, &path[..at]);
            }
        }
        if path.is_empty() { state } else { self.step(state, path) }
    }

    /// The state of a clean relative path, given that of the directory above it.
    pub fn step(&self, above: State, path: &[u8]) -> State {
        let mut numbers = Vec::new();
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        for found in [self.exact.get(path), self.named.get(name)].into_iter().flatten() {
            numbers.extend_from_slice(found);
        }
        self.others.candidates(path, above.turned, &mut numbers);
        numbers.sort_unstable();
        numbers.dedup();
        // Each is compared only if it would change the state.
        let mut scratch = Scratch::default();
        let mut matches = |number: u32| self.rule(number).pattern.matches(path, &mut scratch);
        let mut state = above;
        let last = numbers.iter().rev().take_while(|number| **number > above.last);
        if let Some(number) = last.copied().find(|number| matches(*number)) {
            state.last = number;
        }
        for number in numbers {
            let turns = self.includes(number) != self.includes(state.turned);
            if turns && number > state.turned && number <= state.last && matches(number) {
                state.turned = number;
            }
        }
        state
    }

    /// Whether something below the directory `dir`, which is in `state`, may be decided otherwise
    /// than the directory itself. If not, the directory can be skipped, or taken, whole.
    pub fn may_differ_below(&self, dir: &[u8], state: State) -> bool {
        let mut scratch = Scratch::default();
        let mut any = |negated: bool, above: u32| {
            let pattern = |number| &self.rule(number).pattern;
            self.below[usize::from(negated)].any(dir, above, pattern, &mut scratch)
        };
        if !self.matched(state) {
            return any(false, state.turned);
        }
        // Both have to turn.
        let leaves = |number| !self.includes(number) || any(true, number);
        [state.turned, state.last].into_iter().all(leaves)
    }
}

/// Whether a pattern of a list is well formed.
///
/// # Errors
/// It is not, or is a `!` alone.
pub fn check(pattern: &str) -> Result<(), PatternError> {
    compile(pattern).map(|_| ())
}

/// Whether the pattern begins with `!`, and what follows; none for an empty pattern.
fn compile(pattern: &str) -> Result<Option<(bool, Pattern)>, PatternError> {
    let text = pattern.trim();
    let (negated, text) = match text.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, text),
    };
    // The root cannot be brought back.
    if negated && text.trim_matches('/').is_empty() {
        return Err(PatternError::new(b"!", "nothing follows the `!`"));
    }
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some((negated, Pattern::new(&clean(text.as_bytes()))?)))
}

/// Cleans a pattern like a path, but keeps leading `..` names (such a pattern matches nothing) and
/// takes no notice of slashes inside classes.
pub fn clean(pattern: &[u8]) -> Vec<u8> {
    let rooted = pattern.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in pattern.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if rooted || parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') }
}

/// The shortest equal path, as Go cleans paths: no doubled slashes, no `.`, no `..` that can be
/// resolved. An empty path is `.`.
pub(crate) fn clean_path(path: &str) -> String {
    let cleaned = String::from_utf8(clean(path.as_bytes())).expect("cut at slashes only");
    match (path.starts_with('/'), cleaned.as_str()) {
        (true, ".") => "/".to_owned(),
        (true, _) => format!("/{cleaned}"),
        (false, _) => cleaned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_path_is_no_pattern() {
        for path in ["a*b", "[a]", "!a", " a ", "a\\b"] {
            let list = Matcher::literal(path.as_bytes());
            assert!(!list.is_empty());
            let says = |path: &str| list.decide(path.as_bytes()).matched;
            assert!(says(path) && says(&format!("{path}/below")), "{path}");
            assert!(!says("axb") && !says("a") && !says(&format!("{path}x")), "{path}");
        }
        assert!(Matcher::default().is_empty());
    }

    #[test]
    fn patterns_of_any_length_match_all_of_a_name() {
        for length in [1, 62, 63, 64, 65, 66, 126, 127, 128, 129, 130, 200] {
            let marks = "?".repeat(length);
            let list = |pattern: &str| Matcher::new(&[pattern]).expect("well formed");
            let says = |list: &Matcher, length| list.decide(&b"x".repeat(length)).matched;
            let exact = list(&marks);
            assert!(says(&exact, length), "{length}");
            assert!(!says(&exact, length + 1) && !says(&exact, length - 1), "{length}");
            let least = list(&format!("*{marks}"));
            assert!(says(&least, length) && says(&least, length + 70), "{length}");
            assert!(!says(&least, length - 1), "{length}");
            let below = list(&format!("**/{marks}/y"));
            let path = |length| [&b"a/"[..], &b"x".repeat(length), b"/y"].concat();
            assert!(below.decide(&path(length)).matched, "{length}");
            assert!(!below.decide(&path(length + 1)).matched, "{length}");
        }
    }

    #[test]
    fn directories_that_no_pattern_reaches_are_skipped_or_taken_whole() {
        for (list, reached, others) in [
            (&["docs/*.md"][..], &["docs"][..], &["other", "docs/x", "doc", "docsx"][..]),
            (&["a/b/c"], &["a", "a/b"], &["b", "a/c", "a/b/d"]),
            (&["src/**/gen"], &["src", "src/any", "src/any/deep"], &["sr", "other"]),
            (&["a?/x"], &["ab", "az"], &["a", "abc", "ab/y"]),
            (&["*", "!keep/me"], &["keep"], &["other", "keep/other"]),
            (&["*", "!keep/m*"], &["keep"], &["other", "keepx"]),
            (&["*", "!a/b/c", "a/b"], &["a"], &["b"]),
        ] {
            let matcher = Matcher::new(list).expect("well formed");
            for (dirs, differs) in [(reached, true), (others, false)] {
                for dir in dirs {
                    let state = matcher.state(dir.as_bytes());
                    let may = matcher.may_differ_below(dir.as_bytes(), state);
                    assert_eq!(may, differs, "{list:?} below {dir}");
                }
            }
        }
    }
}
