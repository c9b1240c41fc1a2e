//! Ignore files and what they decide, a folder a case: `ignore`, and `expect` with a line a path:
//!
//! ```text
//! x 3 path       excluded by the pattern on line 3
//! . 4 path       brought back by line 4
//! . - path       nothing matches it
//! ! 2 reason     line 2 is malformed
//! ```

use std::fmt::Write as _;
use std::path::Path;

use wbuild_ignore::{ListError, Matcher, check, read};

/// Number of the line that the byte `at` is on.
fn line_of(file: &[u8], at: usize) -> usize {
    1 + file[..at].iter().filter(|byte| **byte == b'\n').count()
}

/// What is expected, with what is really decided in place of what should be.
fn decide(file: &[u8], expect: &str) -> String {
    let lines = read(file);
    let number = |index: usize| line_of(file, lines[index].at.start);
    let mut got = String::new();
    for (index, line) in lines.iter().enumerate() {
        if let Err(error) = check(&line.pattern) {
            writeln!(got, "! {} {}", number(index), error.reason).expect("a string");
        }
    }
    match Matcher::new(&lines) {
        Ok(matcher) => {
            for path in expect.lines().filter_map(|line| line.splitn(3, ' ').nth(2)) {
                let decision = matcher.decide(path.as_bytes());
                let mark = if decision.matched { 'x' } else { '.' };
                let by = decision.by.map_or("-".to_owned(), |index| number(index).to_string());
                writeln!(got, "{mark} {by} {path}").expect("a string");
            }
        }
        Err(ListError::Pattern { index, error }) => {
            let first = format!("! {} {}\n", number(index), error.reason);
            assert!(got.starts_with(&first), "the list stops at its first error: {first}{got}");
        }
        Err(error) => panic!("{error}"),
    }
    got
}

#[test]
fn cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut failed = String::new();
    let mut count = 0;
    for case in std::fs::read_dir(folder).expect("the cases") {
        let case = case.expect("an entry").path();
        let file = std::fs::read(case.join("ignore")).expect("a case has an ignore file");
        let expect = std::fs::read_to_string(case.join("expect")).expect("what is expected");
        let got = decide(&file, &expect);
        count += 1;
        if got != expect {
            writeln!(failed, "== {}", case.display()).expect("a string");
            for (got, wanted) in got.lines().zip(expect.lines()).filter(|(a, b)| a != b) {
                writeln!(failed, "   {got}    expected: {wanted}").expect("a string");
            }
            if got.lines().count() != expect.lines().count() {
                writeln!(failed, "   another number of lines:\n{got}").expect("a string");
            }
        }
    }
    assert!(count > 0 && failed.is_empty(), "{failed}");
}
