//! Golden tests: `tests/cases` for parsing and its errors, `tests/graphs` for lowering.
//!
//! Each folder holds a Dockerfile and `expect.txt`, those of `graphs` also `request.txt`.
//! `UPDATE=1` rewrites what is expected.

mod support;

use support::recorder::Recorder;
use support::{Source, cases, compare, dump, finish, render};

#[test]
fn parsing() {
    let mut failed = Vec::new();
    for case in cases("cases") {
        let text = std::fs::read(case.join("Dockerfile")).expect("a case has a Dockerfile");
        let parsed = wbuild_dockerfile::parse(0, &text);
        let sources = [Source { name: "Dockerfile".to_owned(), text }];
        let got = dump::dump(&parsed.file) + &render(&parsed.problems, &sources);
        compare(&case, &got, &mut failed);
    }
    finish(failed);
}

#[test]
fn lowering() {
    let mut failed = Vec::new();
    for case in cases("graphs") {
        let text = std::fs::read(case.join("Dockerfile")).expect("a case has a Dockerfile");
        let request = std::fs::read_to_string(case.join("request.txt")).unwrap_or_default();
        let got = Recorder::new(text, &request).run();
        compare(&case, &got, &mut failed);
    }
    finish(failed);
}
