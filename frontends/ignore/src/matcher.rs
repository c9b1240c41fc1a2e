//! Lists of patterns with the meaning of `.dockerignore` (moby's pattern matcher), used for ignore
//! files as well as for include and exclude lists.
//!
//! - Patterns are relative to the root of the list; a leading `/`, `.` and empty names are cleaned
//!   away. One without `/` therefore matches only at the top.
//! - `*`, `?`, classes and `\` as in [`crate::glob`]; here a class never matches `/`.
//! - `**` stands for any number of directories. `x**` matches everything that starts with `x`;
//!   `a**b` matches `ab` and a `b` anywhere below what starts with `a`; `**x` without any other
//!   wildcard matches everything that ends with `x`.
//! - A pattern matches a path if it matches the path or a directory above it.
//! - `!` turns the meaning round; of all patterns that match, the last one decides.
//!
//! Every decision is the index of the deciding pattern, so a directory hands one number down to
//! its entries and each path is compared with each pattern at most once.

use std::collections::HashMap;

use crate::error::{ListError, PatternError};
use crate::glob::{self, Pattern};

type Result<T, E = PatternError> = std::result::Result<T, E>;

/// Most patterns in one list.
pub const MAX_PATTERNS: usize = 100_000;
/// Most `**` inside names in one pattern; each doubles the work.
const MAX_INNER: usize = 5;

/// A compiled list.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    rules: Vec<Rule>,
    /// Patterns that are one literal path.
    exact: HashMap<Box<[u8]>, State>,
    /// Patterns that are `**/` and one literal name.
    named: HashMap<Box<[u8]>, State>,
    /// The others by their literal first name, last pattern first.
    headed: HashMap<Box<[u8]>, Vec<usize>>,
    /// The rest, last pattern first.
    loose: Vec<usize>,
    has_negated: bool,
}

/// The last rule that matches a path or a directory above it, plus one; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct State(usize);

#[derive(Clone, Debug)]
struct Rule {
    negated: bool,
    /// Index in the list as given, which may hold empty patterns.
    index: usize,
    /// Alternatives.
    variants: Vec<Vec<Part>>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(Box<[u8]>),
    Glob(Pattern),
    /// Any number of names, none included.
    AnyNames,
}

impl Part {
    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Part::Literal(text) => **text == *name,
            Part::Glob(pattern) => pattern.matches(name),
            Part::AnyNames => false,
        }
    }
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
        let mut matcher = Matcher::default();
        for (index, pattern) in patterns.iter().enumerate() {
            let compiled = compile(pattern.as_ref());
            let compiled = compiled.map_err(|error| ListError::Pattern { index, error })?;
            if let Some((negated, variants)) = compiled {
                matcher.add(Rule { negated, index, variants });
            }
        }
        for list in matcher.headed.values_mut() {
            list.reverse();
        }
        matcher.loose.reverse();
        Ok(matcher)
    }

    /// A list of one clean literal path, whatever characters are in it.
    pub fn literal(path: &[u8]) -> Matcher {
        let mut matcher = Matcher::default();
        let parts =
            path.split(|byte| *byte == b'/').map(|name| Part::Literal(name.into())).collect();
        matcher.add(Rule { negated: false, index: 0, variants: vec![parts] });
        matcher
    }

    fn add(&mut self, rule: Rule) {
        let number = self.rules.len();
        self.has_negated |= rule.negated;
        let best = State(number + 1);
        match rule.variants.as_slice() {
            [parts] => match parts.as_slice() {
                [Part::AnyNames, Part::Literal(name)] => {
                    self.named.insert(name.clone(), best);
                }
                parts if parts.iter().all(|part| matches!(part, Part::Literal(_))) => {
                    let names: Vec<&[u8]> = parts
                        .iter()
                        .filter_map(|part| match part {
                            Part::Literal(name) => Some(&**name),
                            _ => None,
                        })
                        .collect();
                    self.exact.insert(names.join(&b'/').into(), best);
                }
                [Part::Literal(first), ..] => {
                    self.headed.entry(first.clone()).or_default().push(number);
                }
                _ => self.loose.push(number),
            },
            _ => self.loose.push(number),
        }
        self.rules.push(rule);
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
    pub fn decision(&self, best: State) -> Decision {
        match best.0.checked_sub(1) {
            None => Decision { matched: false, by: None },
            Some(number) => {
                let rule = &self.rules[number];
                Decision { matched: !rule.negated, by: Some(rule.index) }
            }
        }
    }

    /// Whether a path in this state is in the set.
    pub fn matched(&self, best: State) -> bool {
        best.0 > 0 && !self.rules[best.0 - 1].negated
    }

    /// [`Matcher::step`] from the root down.
    pub fn state(&self, path: &[u8]) -> State {
        let mut best = State::default();
        for (at, byte) in path.iter().enumerate() {
            if *byte == b'/' {
                best = self.step(best, &path[..at]);
            }
        }
        if path.is_empty() { best } else { self.step(best, path) }
    }

    /// The deciding rule of a path, given that of the directory above it.
    pub fn step(&self, above: State, path: &[u8]) -> State {
        let mut best = above;
        if let Some(found) = self.exact.get(path) {
            best = best.max(*found);
        }
        if !self.named.is_empty()
            && let Some(found) = self.named.get(last_name(path))
        {
            best = best.max(*found);
        }
        if self.headed.is_empty() && self.loose.is_empty() {
            return best;
        }
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let headed = self.headed.get(names[0]).map_or(&[][..], Vec::as_slice);
        for list in [headed, &self.loose] {
            for number in list {
                if *number < best.0 {
                    break;
                }
                if self.rules[*number].variants.iter().any(|parts| matches(parts, &names)) {
                    best = State(number + 1);
                    break;
                }
            }
        }
        best
    }

    /// Whether something below the directory `dir`, whose deciding rule is `best`, may be decided
    /// otherwise than the directory itself. If not, the directory can be skipped, or taken, whole.
    pub fn may_differ_below(&self, dir: &[u8], best: State) -> bool {
        let matched = self.matched(best);
        if matched && !self.has_negated {
            return false;
        }
        let names: Vec<&[u8]> = dir.split(|byte| *byte == b'/').filter(|n| !n.is_empty()).collect();
        self.rules[best.0..]
            .iter()
            .filter(|rule| rule.negated == matched)
            .any(|rule| rule.variants.iter().any(|parts| reaches_below(parts, &names)))
    }
}

/// Whether a pattern of a list is well formed.
///
/// # Errors
/// It is not, or is a `!` alone.
pub fn check(pattern: &str) -> Result<()> {
    compile(pattern).map(|_| ())
}

/// Whether the pattern begins with `!`, and its alternatives; none for an empty pattern.
fn compile(pattern: &str) -> Result<Option<(bool, Vec<Vec<Part>>)>> {
    let text = pattern.trim();
    let (negated, text) = match text.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, text),
    };
    if text.is_empty() {
        return if negated {
            Err(PatternError::new(b"!", "nothing follows the `!`"))
        } else {
            Ok(None)
        };
    }
    let cleaned = clean(text.as_bytes());
    // The pattern as a whole decides whether it is well formed.
    Pattern::new(&cleaned)?;
    Ok(Some((negated, expand(&cleaned)?)))
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

/// A pattern being read: finished names and the text of the name at hand.
#[derive(Clone, Default)]
struct Partial {
    parts: Vec<Part>,
    name: Vec<u8>,
}

impl Partial {
    fn end_name(&mut self) -> Result<()> {
        let compiled = Pattern::new(&self.name)?;
        self.parts.push(match compiled.literal() {
            Some(text) => Part::Literal(text.into()),
            None => Part::Glob(compiled),
        });
        self.name.clear();
        Ok(())
    }
}

/// Splits a well-formed pattern into names and `**`. A `**` inside a name gives two alternatives.
fn expand(pattern: &[u8]) -> Result<Vec<Vec<Part>>> {
    let mut partials = vec![Partial::default()];
    let mut inner = 0;
    // `**x` with nothing but text after it is a plain suffix, unlike `**/x`.
    let suffix = pattern.strip_prefix(b"**").filter(|rest| {
        !rest.is_empty()
            && rest[0] != b'/'
            && !rest.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\'))
    });
    let mut at = 0;
    if suffix.is_some() {
        partials[0].parts.push(Part::AnyNames);
        partials[0].name.push(b'*');
        at = 2;
    }
    while at < pattern.len() {
        let rest = &pattern[at..];
        if let Some(after) = rest.strip_prefix(b"**") {
            let slash = usize::from(after.starts_with(b"/"));
            let end = after.len() == slash;
            at += 2 + slash;
            let mut added = Vec::new();
            for partial in &mut partials {
                match (partial.name.is_empty(), end) {
                    (true, false) => partial.parts.push(Part::AnyNames),
                    (true, true) => {
                        // Something below, not the directory itself.
                        partial.parts.push(Part::AnyNames);
                        partial.name.push(b'*');
                    }
                    (false, true) => {
                        partial.name.push(b'*');
                        partial.end_name()?;
                        partial.parts.push(Part::AnyNames);
                    }
                    (false, false) => {
                        let mut deep = partial.clone();
                        deep.name.push(b'*');
                        deep.end_name()?;
                        deep.parts.push(Part::AnyNames);
                        added.push(deep);
                    }
                }
            }
            if !added.is_empty() {
                inner += 1;
                if inner > MAX_INNER {
                    let reason = "it has too many `**` inside names";
                    return Err(PatternError::new(pattern, reason));
                }
                partials.append(&mut added);
            }
            continue;
        }
        let len = match rest[0] {
            b'/' => {
                for partial in &mut partials {
                    // Empty after a `**` at the start of this name, which ate the slash.
                    if !partial.name.is_empty() {
                        partial.end_name()?;
                    }
                }
                at += 1;
                continue;
            }
            b'\\' => rest.len().min(2),
            b'[' => glob::class_len(rest).unwrap_or(1),
            _ => 1,
        };
        for partial in &mut partials {
            partial.name.extend_from_slice(&rest[..len]);
        }
        at += len;
    }
    let mut variants = Vec::with_capacity(partials.len());
    for mut partial in partials {
        if !partial.name.is_empty() {
            partial.end_name()?;
        }
        variants.push(partial.parts);
    }
    Ok(variants)
}

fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// Whether the parts match all the names. Going back to the last `**` only is enough: what an
/// earlier one could take more, the last one can take as well.
fn matches(parts: &[Part], names: &[&[u8]]) -> bool {
    // Most patterns differ in the last name already.
    if let (Some(part), Some(name)) = (parts.last(), names.last())
        && !matches!(part, Part::AnyNames)
        && !part.matches(name)
    {
        return false;
    }
    let (mut part, mut name) = (0, 0);
    let mut back = None;
    loop {
        match parts.get(part) {
            Some(Part::AnyNames) => {
                back = Some((part, name));
                part += 1;
                continue;
            }
            Some(found) if name < names.len() && found.matches(names[name]) => {
                part += 1;
                name += 1;
                continue;
            }
            None if name == names.len() => return true,
            _ => {}
        }
        match back {
            Some((star, taken)) if taken < names.len() => {
                back = Some((star, taken + 1));
                part = star + 1;
                name = taken + 1;
            }
            _ => return false,
        }
    }
}

/// Whether the parts may match something below the directory of these names.
fn reaches_below(parts: &[Part], names: &[&[u8]]) -> bool {
    // The set of parts that may come next.
    let mut next = vec![false; parts.len() + 1];
    let reach = |next: &mut [bool], mut at: usize| {
        next[at] = true;
        while matches!(parts.get(at), Some(Part::AnyNames)) {
            at += 1;
            next[at] = true;
        }
    };
    reach(&mut next, 0);
    for name in names {
        let mut after = vec![false; parts.len() + 1];
        for (at, part) in parts.iter().enumerate().filter(|(at, _)| next[*at]) {
            match part {
                Part::AnyNames => reach(&mut after, at),
                part if part.matches(name) => reach(&mut after, at + 1),
                _ => {}
            }
        }
        next = after;
    }
    next[..parts.len()].iter().any(|reachable| *reachable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decide(patterns: &[&str], path: &str) -> Decision {
        Matcher::new(patterns).unwrap().decide(path.as_bytes())
    }

    /// Pattern, path, whether moby's matcher matches the path itself or a directory above it.
    const TABLE: &[(&str, &str, bool)] = &[
        ("**", "file", true),
        ("**/", "file", true),
        ("**", "dir/file", true),
        ("**/", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("**/dir", "dir", true),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir3/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**file", "dir/xfile", true),
        ("**file*", "dir/xfile", false),
        ("**/file", "dir/file", true),
        ("**/file", "dir/xfile", false),
        ("**file", "dir/dir/file", true),
        ("**/file", "dir/dir/file", true),
        ("**/file*", "dir/dir/file", true),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/file*.txt", "dir/dir/file.txt", true),
        ("**/file*.txt*", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("**/**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a**/*.txt", "ax/file.txt", true),
        ("a**/*.txt", "afile.txt", true),
        ("a**/*.txt", "xa/file.txt", false),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txt", true),
        ("a/*.txt**", "a/file.txt", true),
        ("a/*.txt**", "a/file.txtx/y", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aae", false),
        ("a[^b-d]e", "aze", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcdef", false),
        ("abc.def", "abc.def", true),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("abc?def", "abcdef", false),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/foo/bar", true),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("abc/**", "abc", false),
        ("abc/**", "abc/def", true),
        ("abc/**", "abc/def/ghi", true),
        ("**/.foo", ".foo", true),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a(b)c/def", "a(b)c/xyz", false),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
        ("a\\\\", "a\\", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("*", "a/b", true),
        ("foo", "bar/foo", false),
        ("foo**", "foobar/baz", true),
        ("x/**b", "x/y/b", true),
        ("x/**b", "x/b", true),
        ("x/**b", "x/yb", false),
        ("/foo", "foo", true),
        ("./foo/", "foo", true),
        ("foo/../bar", "bar", true),
        ("../foo", "foo", false),
        (".", "foo", false),
        ("/", "foo", false),
        ("  foo ", "foo/x", true),
    ];

    #[test]
    fn matches_what_moby_matches() {
        for (pattern, path, wanted) in TABLE {
            assert_eq!(decide(&[pattern], path).matched, *wanted, "{pattern} on {path}");
        }
    }

    #[test]
    fn the_last_match_decides_and_is_named() {
        let cases: &[(&[&str], &str, bool, Option<usize>)] = &[
            (&["**", "!util/docker/web"], "util/docker/web/foo", false, Some(1)),
            (
                &["**", "!util/docker/web", "util/docker/web/foo"],
                "util/docker/web/foo",
                true,
                Some(2),
            ),
            (&["**", "!dist/*.whl"], "dist/a.whl", false, Some(1)),
            (&["docs", "!docs/README.md"], "docs/README.md", false, Some(1)),
            (&["docs", "!docs/README.md"], "docs/other", true, Some(0)),
            (&["docs/", "!docs/README.md"], "docs/README.md", false, Some(1)),
            (&["!fileutils.go", "*.go"], "fileutils.go", true, Some(1)),
            (&["*.go", "!fileutils.go"], "fileutils.go", false, Some(1)),
            (&["", "  ", "a", "!", "b"][..3], "a", true, Some(2)),
            (&["a", "!a/b", "a"], "a/b", true, Some(2)),
            (&["*.md", "!README*.md", "README-secret.md"], "README.md", false, Some(1)),
            (&["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true, Some(2)),
            (&["! spaced"], "spaced", false, Some(0)),
            (&[], "any/path", false, None),
        ];
        for (patterns, path, matched, by) in cases {
            let wanted = Decision { matched: *matched, by: *by };
            assert_eq!(decide(patterns, path), wanted, "{patterns:?} on {path}");
        }
    }

    #[test]
    fn malformed_patterns_are_errors() {
        for pattern in ["!", "[", "a[", "[^bc", "\\", "[a-b-c]", "! "] {
            assert!(Matcher::new(&[pattern]).is_err(), "{pattern}");
        }
        let many = "a**".repeat(12) + "b";
        assert!(Matcher::new(&[many]).is_err());
    }

    #[test]
    fn directories_are_skipped_only_when_nothing_below_can_come_back() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&["docs"], "docs", false),
            (&["docs", "!docs/README.md"], "docs", true),
            (&["docs", "!src/x"], "docs", false),
            (&["*", "!a/b/c"], "a/b", true),
            (&["*", "!a/b/c"], "a/x", false),
            (&["*", "!**/c"], "a/x", true),
            (&["!docs/x", "docs"], "docs", false),
            (&["*", "!a*/k"], "abc", true),
            (&["*", "!a**b"], "axx", true),
            (&["*", "!a**b"], "x", false),
        ];
        for (patterns, dir, wanted) in cases {
            let matcher = Matcher::new(patterns).unwrap();
            let best = matcher.state(dir.as_bytes());
            assert_eq!(
                matcher.may_differ_below(dir.as_bytes(), best),
                *wanted,
                "{patterns:?} {dir}"
            );
        }
    }

    #[test]
    fn thousands_of_patterns_stay_cheap() {
        let patterns: Vec<String> = (0..10_000)
            .map(|n| match n % 4 {
                0 => format!("src/module{n}/target"),
                1 => format!("**/generated{n}.rs"),
                2 => format!("vendor{n}/**/*.o"),
                _ => format!("!src/module{n}/keep"),
            })
            .collect();
        let matcher = Matcher::new(&patterns).unwrap();
        let begun = std::time::Instant::now();
        for n in 0..20_000 {
            matcher.decide(format!("src/module{n}/target/deep/file{n}.rs").as_bytes());
        }
        // Comparing every path with every pattern would take minutes in a debug build.
        assert!(begun.elapsed().as_secs() < 20);
    }

    proptest! {
        #[test]
        fn never_panics(patterns: Vec<String>, path in "[a-c*/.!\\\\\\[\\]-]{0,12}") {
            if let Ok(matcher) = Matcher::new(&patterns) {
                let path = clean(path.as_bytes());
                let state = matcher.state(&path);
                matcher.may_differ_below(&path, state);
            }
        }

        #[test]
        fn odd_patterns_never_panic(
            patterns in proptest::collection::vec("[ab*/?!.\\[\\]\\\\^-]{0,8}", 0..4),
            path in "[ab/]{0,8}",
        ) {
            if let Ok(matcher) = Matcher::new(&patterns) {
                matcher.decide(&clean(path.as_bytes()));
            }
        }

        /// Fast look-ups and one-by-one comparison agree, and skipping a directory loses nothing.
        #[test]
        fn agrees_with_the_definition(
            patterns in proptest::collection::vec("!?[ab*/]{1,6}", 1..5),
            path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
        ) {
            let Ok(matcher) = Matcher::new(&patterns) else { return Ok(()) };
            let mut wanted = false;
            for rule in &matcher.rules {
                let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
                let hit = ends.into_iter().any(|end| {
                    let names: Vec<&[u8]> = path.as_bytes()[..end].split(|b| *b == b'/').collect();
                    rule.variants.iter().any(|parts| matches(parts, &names))
                });
                if hit {
                    wanted = !rule.negated;
                }
            }
            prop_assert_eq!(matcher.decide(path.as_bytes()).matched, wanted);
            for (at, _) in path.match_indices('/') {
                let dir = &path.as_bytes()[..at];
                let best = matcher.state(dir);
                if !matcher.may_differ_below(dir, best) {
                    prop_assert_eq!(matcher.matched(best), wanted, "below {}", &path[..at]);
                }
            }
        }
    }
}
