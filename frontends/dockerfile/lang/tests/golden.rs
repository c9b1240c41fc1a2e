//! Golden tests, a folder a case: `parse` (what a file says), `lower` (the graph and the images it
//! becomes), `errors` (what is said of a file that cannot be built).
//!
//! Each folder holds a Dockerfile and `expect.txt`; those that are built may hold `request.txt`,
//! what the caller asks for and what images there are. `UPDATE=1` rewrites what is expected.

mod support;

use support::recorder::Recorder;
use support::{Source, cases, compare, dump, finish, render};

#[test]
fn parse() {
    let mut failed = Vec::new();
    for case in cases("parse") {
        let text = std::fs::read(case.join("Dockerfile")).expect("a case has a Dockerfile");
        let parsed = wbuild_dockerfile::parse(0, &text);
        let sources = [Source { name: "Dockerfile".to_owned(), text }];
        let got = dump::dump(&parsed.file) + &render(&parsed.problems, &sources);
        compare(&case, &got, &mut failed);
    }
    finish(failed);
}

#[test]
fn lower() {
    build("lower");
}

#[test]
fn errors() {
    build("errors");
}

fn build(kind: &str) {
    let mut failed = Vec::new();
    for case in cases(kind) {
        let text = std::fs::read(case.join("Dockerfile")).expect("a case has a Dockerfile");
        let request = std::fs::read_to_string(case.join("request.txt")).unwrap_or_default();
        let got = Recorder::new(text, &request).run();
        compare(&case, &got, &mut failed);
    }
    finish(failed);
}
