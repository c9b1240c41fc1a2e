//! Golden tests, a folder a case: `parse` (what a file says, and what is printed of it), `errors`
//! (what is said of a file that cannot be read).
//!
//! Each folder holds an Earthfile and `expect.txt`; `UPDATE=1` rewrites what is expected. Every case
//! of `errors` has a twin, nearly the same file without the mistake: `right`.

mod support;

use support::common::{Source, cases, compare, finish, render};
use support::dump::{dump, without_places};
use wbuild_earthfile::{Parsed, parse, print};

fn describe(text: Vec<u8>) -> (Parsed, String) {
    let parsed = parse(0, &text);
    let sources = [Source { name: "Earthfile".to_owned(), text }];
    let said = render(&parsed.problems, &sources);
    (parsed, said)
}

#[test]
fn parsing() {
    let mut failed = Vec::new();
    for case in cases("parse") {
        let text = std::fs::read(case.join("Earthfile")).expect("a case has an Earthfile");
        let (parsed, said) = describe(text);
        let got = dump(&parsed.file);
        let printed = print(&parsed.file);
        compare(&case, &format!("{got}{said}---\n{printed}"), &mut failed);
        let (again, said) = describe(printed.into_bytes());
        assert_eq!(without_places(&dump(&again.file)), without_places(&got), "{}", case.display());
        assert_eq!(said, "", "{}", case.display());
    }
    finish(failed);
}

#[test]
fn errors() {
    let mut failed = Vec::new();
    for case in cases("errors") {
        let text = std::fs::read(case.join("Earthfile")).expect("a case has an Earthfile");
        let (parsed, said) = describe(text);
        assert!(parsed.failed(), "{} has no error", case.display());
        compare(&case, &said, &mut failed);
    }
    finish(failed);
}

#[test]
fn errors_have_twins_that_can_be_read() {
    for case in cases("errors") {
        let text = std::fs::read(case.join("right")).expect("a case has its twin");
        let (_, said) = describe(text);
        assert_eq!(said, "", "{}", case.display());
    }
}
