//! Golden tests, a folder a case: `parse` (what a file says, and what is printed of it), `errors`
//! (what is said of a file that cannot be read), `lower` (the graph and the results it becomes),
//! `refused` (what is said of a file that can be read and cannot be built).
//!
//! Each folder holds an Earthfile and `expect.txt`; those that are built may hold `request.txt`, what
//! the caller asks for, what images there are and what commands do. `UPDATE=1` rewrites what is
//! expected. Every case of `errors` and `refused` has a twin, nearly the same file without the
//! mistake: `right`.

mod support;

use support::common::{IMAGE, Source, cases, compare, finish, render};
use support::dump::{dump, without_places};
use support::world;
use wbuild_dockerfile::Coded as _;
use wbuild_earthfile::{Code, Parsed, parse, print};

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

/// Builds a file of a case.
fn built(case: &std::path::Path, file: &str) -> (bool, String) {
    let text = std::fs::read(case.join(file)).expect("the case has this file");
    let request = std::fs::read_to_string(case.join("request.txt")).unwrap_or_default();
    world::run(text, &format!("image a {IMAGE}\nimage b {IMAGE}\n{request}"))
}

#[test]
fn lower() {
    let mut failed = Vec::new();
    for case in cases("lower") {
        let (fine, got) = built(&case, "Earthfile");
        assert!(fine, "{}: {got}", case.display());
        compare(&case, &got, &mut failed);
    }
    finish(failed);
}

#[test]
fn refused() {
    let mut failed = Vec::new();
    for case in cases("refused") {
        let (fine, got) = built(&case, "Earthfile");
        assert!(!fine, "{} is built", case.display());
        let from = got.find("failed (").expect("it says why");
        compare(&case, &got[from..], &mut failed);
        let (fine, got) = built(&case, "right");
        assert!(fine, "{}: {got}", case.display());
    }
    finish(failed);
}

#[test]
fn every_code_has_a_case() {
    let mut shown = String::new();
    for case in ["errors", "refused", "lower"].iter().flat_map(|kind| cases(kind)) {
        shown += &std::fs::read_to_string(case.join("expect.txt")).unwrap_or_default();
    }
    let unseen: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    let unseen: Vec<&&str> =
        unseen.iter().filter(|name| !shown.contains(&format!("[{name}]: "))).collect();
    // A file of sixteen megabytes is no case.
    assert_eq!(unseen, [&"too-large"], "no case shows these");
}

#[test]
fn a_long_chain() {
    const LENGTH: usize = 600;
    let mut text = String::from("VERSION 0.8\nFROM a\n");
    for number in 0..LENGTH {
        text += &format!("t{number}:\n    BUILD +t{}\n", number + 1);
    }
    text += &format!("t{LENGTH}:\n    SAVE IMAGE last\n");
    let request = format!("image a {IMAGE}\ntarget t0\n");
    // As much as a component has.
    let stack = std::thread::Builder::new().stack_size(512 << 10);
    let built = stack.spawn(move || world::run(text.into_bytes(), &request)).expect("a thread");
    let (fine, got) = built.join().expect("it ends");
    assert!(fine && got.contains("tag=last"), "{got}");
}

#[test]
fn a_file_that_is_too_large() {
    let parsed = parse(0, &vec![b'#'; (16 << 20) + 1]);
    assert_eq!(parsed.problems.len(), 1);
    assert_eq!(parsed.problems[0].code, Code::TooLarge.name());
}
