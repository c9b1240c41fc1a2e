//! Lists compared with a slow matcher that follows the rules word by word.

use proptest::collection::vec;
use proptest::prelude::*;
use wbuild_ignore::{Matcher, State, check, clean, glob, read};

/// Whether a cleaned pattern matches all of the text, by trying everything.
fn matches(pattern: &[char], text: &[char]) -> bool {
    let rest_of = |at: usize| &pattern[at..];
    match pattern {
        [] => text.is_empty(),
        ['*', '*'] | ['*', '*', '/'] => true,
        ['*', '*', ..] => {
            let rest = rest_of(if pattern[2] == '/' { 3 } else { 2 });
            let behind_a_slash = |at: usize| text[at] == '/' && matches(rest, &text[at + 1..]);
            matches(rest, text) || (0..text.len()).any(behind_a_slash)
        }
        ['*', ..] => (0..=text.len())
            .take_while(|end| !text[..*end].contains(&'/'))
            .any(|end| matches(rest_of(1), &text[end..])),
        ['?', ..] => text.first().is_some_and(|c| *c != '/') && matches(rest_of(1), &text[1..]),
        ['\\', c, ..] => text.first() == Some(c) && matches(rest_of(2), &text[1..]),
        // The classes made below: two characters, or a range.
        ['[', '^', low, '-', high, ']', ..] => {
            text.first().is_some_and(|c| !(low..=high).contains(&c))
                && matches(rest_of(6), &text[1..])
        }
        ['[', low, '-', high, ']', ..] => {
            text.first().is_some_and(|c| (low..=high).contains(&c))
                && matches(rest_of(5), &text[1..])
        }
        [c, ..] => text.first() == Some(c) && matches(rest_of(1), &text[1..]),
    }
}

/// The same for patterns as they are in lists, where `**` in front of plain text is any beginning.
fn matches_in_list(pattern: &str, path: &str) -> bool {
    let plain = |rest: &&str| !rest.contains(['*', '?', '[', ']', '\\']) && !rest.starts_with('/');
    if let Some(end) = pattern.strip_prefix("**").filter(plain) {
        return path.ends_with(end);
    }
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    matches(&chars(pattern), &chars(path))
}

/// Whether the list has the path in its set: if its last match says so, or if going down to it
/// directory by directory, where a pattern that would turn nothing round is passed over.
fn decide(rules: &[(bool, String)], path: &str) -> bool {
    let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).chain([path.len()]).collect();
    let mut last = false;
    for (negated, pattern) in rules {
        if ends.iter().any(|end| matches_in_list(pattern, &path[..*end])) {
            last = !negated;
        }
    }
    let mut taken = vec![false; rules.len()];
    let mut walked = false;
    for end in ends {
        walked = false;
        for ((negated, pattern), taken) in rules.iter().zip(&mut taken) {
            let turns = *negated == walked;
            if *taken || (turns && matches_in_list(pattern, &path[..end])) {
                *taken = true;
                walked = !negated;
            }
        }
    }
    last || walked
}

fn cleaned(pattern: &str) -> String {
    String::from_utf8(clean(pattern.as_bytes())).expect("text stays text")
}

/// What a walk sees that goes into no directory it need not go into.
fn walk(matcher: &Matcher, path: &str) -> bool {
    let mut state = State::default();
    for (at, _) in path.match_indices('/') {
        let dir = &path.as_bytes()[..at];
        state = matcher.step(state, dir);
        if !matcher.may_differ_below(dir, state) {
            return matcher.matched(state);
        }
    }
    matcher.matched(matcher.step(state, path.as_bytes()))
}

const PATH: &str = "[ab☺]{1,2}(/[ab]{1,2}){0,4}";

/// One name, of characters with and without a meaning in patterns.
const NAME: &str = "[ab \\u{a0}é☺*?!.\\[\\]\\\\^{|#-]{1,6}";

/// Parts that patterns are put together from.
fn pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => "[ab]{1,3}",
        3 => Just("*".to_owned()),
        2 => Just("**".to_owned()),
        3 => Just("/".to_owned()),
        1 => Just("**/".to_owned()),
        1 => Just("/**".to_owned()),
        1 => Just("?".to_owned()),
        1 => Just("☺".to_owned()),
        1 => Just("\\a".to_owned()),
        1 => Just("[a-b]".to_owned()),
        1 => Just("[^b-c]".to_owned()),
    ];
    let pattern = vec(part, 1..6).prop_map(|parts| parts.concat());
    // The root is no pattern of its own, and `!` before it is an error.
    pattern.prop_filter("the root", |pattern| pattern.chars().any(|c| c != '/'))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn one_pattern_agrees_with_the_reference(pattern in pattern(), paths in vec(PATH, 1..8)) {
        let rules = [(false, cleaned(&pattern))];
        let matcher = Matcher::new(&[&pattern]).unwrap();
        for path in paths {
            prop_assert_eq!(matcher.decide(path.as_bytes()).matched, decide(&rules, &path), "{}", path);
        }
    }

    #[test]
    fn lists_agree_with_the_reference(
        list in vec((any::<bool>(), pattern()), 1..8),
        paths in vec(PATH, 1..8),
    ) {
        let rules: Vec<_> = list.iter().map(|(not, pattern)| (*not, cleaned(pattern))).collect();
        let texts: Vec<_> =
            list.iter().map(|(not, text)| format!("{}{text}", if *not { "!" } else { "" })).collect();
        let matcher = Matcher::new(&texts).unwrap();
        for path in paths {
            let wanted = decide(&rules, &path);
            let decision = matcher.decide(path.as_bytes());
            prop_assert_eq!(decision.matched, wanted, "{}", path);
            prop_assert_eq!(walk(&matcher, &path), wanted, "walking to {}", path);
            // The pattern that is named matches, and says what was decided.
            if let Some(by) = decision.by {
                let named = Matcher::new(&[&rules[by].1]).unwrap();
                prop_assert!(named.decide(path.as_bytes()).matched);
                prop_assert_eq!(rules[by].0, !decision.matched);
            } else {
                prop_assert!(!decision.matched);
            }
        }
    }

    #[test]
    fn an_escaped_path_matches_itself_only(path in NAME, other in NAME) {
        prop_assume!(path != "." && path != "..");
        let matcher = Matcher::new(&[glob::escape(&path)]).unwrap();
        prop_assert!(matcher.decide(path.as_bytes()).matched);
        prop_assert_eq!(matcher.decide(other.as_bytes()).matched, path == other);
    }

    #[test]
    fn no_input_panics(file: Vec<u8>, path: Vec<u8>) {
        let lines = read(&file);
        for line in &lines {
            prop_assert!(file.get(line.at.clone()).is_some());
        }
        if let Ok(matcher) = Matcher::new(&lines) {
            let state = matcher.state(&path);
            matcher.may_differ_below(&path, state);
        }
    }

    #[test]
    fn odd_files_do_not_panic(file in "[ab*/?!.\\[\\]\\\\^ #\n☺-]{0,24}", path in "[ab/☺*]{0,10}") {
        let lines = read(file.as_bytes());
        let malformed = lines.iter().any(|line| check(&line.pattern).is_err());
        let matcher = Matcher::new(&lines);
        prop_assert_eq!(matcher.is_err(), malformed);
        if let Ok(matcher) = matcher {
            let state = matcher.state(path.as_bytes());
            matcher.may_differ_below(path.as_bytes(), state);
        }
    }
}
