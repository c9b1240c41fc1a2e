//! Golden tests, a folder a case: `parse` (what a file says, and what is printed of it), `errors`
//! (what is said of a file that cannot be read), `lower` (the graph and the results it becomes),
//! `refused` (what is said of a file that can be read and cannot be built), `check` (what the build
//! checks find), `describe` (the targets, and what one takes).
//!
//! Each folder holds an Earthfile and `expect.txt`; those that are built may hold `request.txt`, what
//! the caller asks for, what images there are and what commands do. `UPDATE=1` rewrites what is
//! expected. Every case of `errors` and `refused` has a twin, nearly the same file without the
//! mistake: `right`.

mod support;

use std::path::Path;

use support::common::recorder::Recorder;
use support::common::{IMAGE, Source, cases, compare, finish, render};
use support::dump::{dump, without_places};
use support::world;
use wbuild_dockerfile::describe::{Parameter, Target};
use wbuild_dockerfile::{CheckRule as _, Coded as _};
use wbuild_earthfile::{Code, Parsed, Rule, build, describe, parse, print};

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

/// The host of a case.
fn recorder(case: &Path, file: &str) -> Recorder {
    let text = std::fs::read(case.join(file)).expect("the case has this file");
    let request = std::fs::read_to_string(case.join("request.txt")).unwrap_or_default();
    let mut recorder = Recorder::new(text, &format!("image a {IMAGE}\nimage b {IMAGE}\n{request}"));
    recorder.file_name = Some("Earthfile");
    recorder
}

/// Builds a file of a case.
fn built(case: &Path, file: &str) -> (bool, String) {
    let mut recorder = recorder(case, file);
    (recorder.attempt(|recorder| build(recorder)), recorder.out)
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

/// What the build checks find; a target of the request is the one that is looked at.
#[test]
fn check() {
    let mut failed = Vec::new();
    for case in cases("check") {
        let mut recorder = recorder(&case, "Earthfile");
        recorder.quiet = true;
        let target = recorder.targets.first().cloned();
        recorder.attempt(|recorder| describe::check(recorder, target.as_deref()));
        compare(&case, &recorder.out, &mut failed);
    }
    finish(failed);
}

/// The targets of a file, and what the one that is asked for takes.
#[test]
fn describing() {
    let mut failed = Vec::new();
    for case in cases("describe") {
        let mut recorder = recorder(&case, "Earthfile");
        let target = recorder.targets.first().cloned();
        recorder.quiet = true;
        recorder.attempt(|recorder| {
            let targets = describe::targets(recorder)?;
            let parameters = describe::parameters(recorder, target.as_deref())?;
            recorder.quiet = false;
            for Target { name, summary, at, base, platform, .. } in targets {
                let at = (at.start, at.end);
                recorder.say(format!("target {name:?} {summary:?} at {at:?}"));
                recorder.say(format!("  from {base:?}, platform {platform:?}"));
            }
            for Parameter { kind, name, summary, default, required, at } in parameters {
                let at = at.map(|at| (at.start, at.end));
                let required = if required { " (required)" } else { "" };
                recorder.say(format!("{kind} {name:?}{required} {summary:?} at {at:?}"));
                recorder.say(format!("  default {default:?}"));
            }
            Ok(())
        });
        compare(&case, &recorder.out, &mut failed);
    }
    finish(failed);
}

#[test]
fn methods() {
    let rules = describe::call("rules").expect("there is this method");
    let rules: serde_json::Value = serde_json::from_str(&rules).expect("it is JSON");
    let names = rules.as_array().expect("a list").iter().map(|rule| rule["name"].as_str());
    assert!(names.eq(Rule::ALL.iter().map(|rule| Some(rule.name()))), "{rules}");
    let failure = describe::call("rulse").expect_err("there is no such method");
    assert_eq!(failure.attrs, [("hint".to_owned(), "did you mean rules?".to_owned())]);
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

/// Functions and blocks inside each other have a limit together, below which they are built.
#[test]
fn functions_and_blocks_inside_each_other() {
    let build = |functions: usize, blocks: usize| {
        let mut text = "VERSION 0.8\nFROM a\nt:\n    DO +F0\n".to_owned();
        for number in 0..functions {
            let next = match number + 1 {
                next if next < functions => format!("    DO +F{next}\n"),
                _ => "    RUN x\n".to_owned(),
            };
            let (begin, end) = ("    IF x\n".repeat(blocks), "    END\n".repeat(blocks));
            text += &format!("F{number}:\n    FUNCTION\n{begin}{next}{end}");
        }
        let request = format!("image a {IMAGE}\ntarget t\noutcome 0 x\n");
        let mut recorder = Recorder::new(text.into_bytes(), &request);
        recorder.file_name = Some("Earthfile");
        // What calls itself needs more of the stack if it is not optimised.
        let build = move || (recorder.attempt(|recorder| build(recorder)), recorder.out);
        let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(build);
        thread.expect("there is a thread").join().expect("it does not panic")
    };
    for (functions, blocks) in [(1, 60), (60, 0), (9, 10)] {
        let (fine, said) = build(functions, blocks);
        assert!(fine, "{functions} {blocks}: {said}");
    }
    let (fine, said) = build(10, 10);
    assert!(!fine && said.contains("more than 100 functions and blocks"), "{said}");
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
