//! Ignore files and what their patterns match.

use wbuild_dockerfile::parse_ignore;
use wbuild_ignore::{Matcher, State};

use crate::seeds;
use crate::source::Source;

/// The input is an ignore file.
pub fn check_file(data: &[u8]) {
    let source = Source::new(5, data);
    let result = parse_ignore(5, data);
    assert_eq!(result, parse_ignore(5, data), "it differs each time");
    let patterns = match result {
        Err(problems) => {
            assert!(!problems.is_empty());
            return source.check_diagnostics(&problems);
        }
        Ok(patterns) => patterns,
    };
    let mut before = 0;
    for pattern in &patterns {
        source.check_span(pattern.at);
        assert!(pattern.at.start >= before, "patterns overlap at {:?}", pattern.at);
        before = pattern.at.end;
        assert!(!pattern.text.is_empty());
    }
    // What was cleaned is clean.
    for pattern in &patterns {
        let text = pattern.text.strip_prefix('!').unwrap_or(&pattern.text);
        // Cleaning may bring to the front what means something there, as it always has.
        let new_sign = pattern.text.starts_with('!') && data[pattern.at.start as usize] != b'!';
        if text.is_empty()
            || new_sign
            || text.trim() != text
            || text.starts_with(['#', '!', '\u{feff}'])
        {
            continue;
        }
        let again = parse_ignore(0, pattern.text.as_bytes()).expect("it was read before");
        let again: Vec<&str> = again.iter().map(|pattern| pattern.text.as_str()).collect();
        assert_eq!(again, [&pattern.text], "cleaning it again changes it");
    }
}

/// Lines are patterns; the path stands behind the first NUL byte.
pub fn check_matcher(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (patterns, path) = text.split_once('\0').unwrap_or((text, "a/b"));
    let patterns: Vec<&str> = patterns.lines().take(64).collect();
    // Paths are relative and clean.
    let names = path.split('/').filter(|name| !matches!(*name, "" | "." | ".."));
    let path = names.collect::<Vec<_>>().join("/");
    if path.is_empty() {
        return;
    }
    let Ok(matcher) = Matcher::new(&patterns) else { return };
    let decision = matcher.decide(path.as_bytes());
    let rules: Vec<(bool, Matcher)> = patterns.iter().filter_map(|pattern| rule(pattern)).collect();
    let excludes = |number: usize| number > 0 && !rules[number - 1].0;
    // Of all that match the path or a directory above it, the last one; and the last one that turned
    // the meaning round on the way down.
    let (mut last, mut turned) = (0, 0);
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    for end in ends {
        for (number, (_, alone)) in (1..).zip(&rules) {
            let here = alone.step(State::default(), &path.as_bytes()[..end]);
            if alone.matched(here) {
                last = last.max(number);
                if number > turned && excludes(number) != excludes(turned) {
                    turned = number;
                }
            }
        }
    }
    let matched = excludes(last) || excludes(turned);
    assert_eq!(decision.matched, matched, "{patterns:?} on {path:?}");
    if let Some(by) = decision.by {
        let negated = patterns[by].trim().starts_with('!');
        assert_eq!(negated, !matched, "{:?} cannot decide so on {path:?}", patterns[by]);
    }
}

/// A pattern as a list of its own, and whether `!` stands before it.
fn rule(pattern: &str) -> Option<(bool, Matcher)> {
    let pattern = pattern.trim();
    let (negated, pattern) = match pattern.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, pattern),
    };
    // A second `!` is part of the pattern, which a list would take for its own.
    let second = negated && pattern.starts_with('!');
    let pattern = if second { format!("./{pattern}") } else { pattern.to_owned() };
    let alone = Matcher::new(&[pattern]).expect("it is part of a list that can be read");
    (!alone.is_empty()).then_some((negated, alone))
}

/// Ignore files of the case folders, and the lists that people write.
pub fn files() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = vec![
        b"# comment\n*\n!src\n!Cargo.*\n**/target\n  spaced \n\xef\xbb\xbf\n".to_vec(),
        b"/a/../b/\n! /c/d\n./e//f\n.\n/\n..\n!\n\\#x\n[a-z]?\n".to_vec(),
        b"node_modules\r\nnpm-debug.log\r\nDockerfile*\r\n.git\r\n".to_vec(),
    ];
    for case in seeds::cases() {
        let files = case.request.lines().filter_map(|line| line.strip_prefix("file "));
        let texts = files.filter_map(|file| file.splitn(3, ' ').nth(2));
        seeds.extend(texts.map(|text| text.replace("\\n", "\n").into_bytes()));
    }
    seeds
}

/// Lists with paths.
pub fn lists() -> Vec<Vec<u8>> {
    let paths = ["src/lib.rs", "target/debug/deps/x.o", ".git", "a/node_modules/b/index.js"];
    let lists = [
        "*\n!src\n**/*.o",
        "**/target\n!**/deps\ntarget/*/deps/?.o",
        "node_modules\n**/node_modules/**\n!a/**/index.js",
        "**.rs\n!s**b.rs\n[!a-b]rc\nx\\*y",
        ".git\n!.git\n/.git/\n..\n.",
    ];
    let pair = |list: &str, path: &str| format!("{list}\0{path}").into_bytes();
    lists.iter().flat_map(|list| paths.map(|path| pair(list, path))).collect()
}
