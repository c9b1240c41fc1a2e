//! Golden tests, a folder a case: `parse` (what a file says), `lower` (the graph and the images it
//! becomes), `errors` (what is said of a file that cannot be built).
//!
//! Each folder holds a Dockerfile and `expect.txt`; those that are built may hold `request.txt`,
//! what the caller asks for and what images there are. `UPDATE=1` rewrites what is expected.
//!
//! Every case of `errors` has a twin, nearly the same build without the mistake, that must succeed:
//! the file `right` in place of the Dockerfile, `right-request.txt` in place of the request, or both.

mod support;

use support::recorder::Recorder;
use support::{IMAGE, Source, cases, compare, dump, finish, render};

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

#[test]
fn errors_have_twins_that_build() {
    let mut failed = Vec::new();
    for case in cases("errors") {
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let read = |name: &str| std::fs::read_to_string(case.join(name)).ok();
        let (file, request) = (read("right"), read("right-request.txt"));
        if file.is_none() && request.is_none() {
            failed.push(format!("{name}: it has neither `right` nor `right-request.txt`"));
            continue;
        }
        let file = file.or_else(|| read("Dockerfile")).expect("a case has a Dockerfile");
        let request = request.or_else(|| read("request.txt")).unwrap_or_default();
        let images = ["a", "b"].map(|name| format!("image {name} {IMAGE}\n")).concat();
        let mut twin = Recorder::new(file.into_bytes(), &(images + &request));
        if !twin.build() {
            failed.push(format!("{name}: {}", twin.out));
        }
    }
    finish(failed);
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
