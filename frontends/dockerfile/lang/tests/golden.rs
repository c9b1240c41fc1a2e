//! Golden tests, a folder a case: `expand` (what becomes of words), `parse` (what a file says),
//! `lower` (the graph and the images it becomes), `errors` (what is said of a file that cannot be
//! built), `lint` (what the build checks find), `describe` (the stages, and what a target takes).
//!
//! Each folder holds a Dockerfile, or `words.txt`, and `expect.txt`; those that are more than parsed
//! may hold `request.txt`, what the caller asks for and what images there are. `UPDATE=1` rewrites
//! what is expected.
//!
//! Every case of `errors` has a twin, nearly the same build without the mistake, that must succeed:
//! the file `right` in place of the Dockerfile, `right-request.txt` in place of the request, or both.

mod support;

use std::path::Path;

use support::recorder::Recorder;
use support::{IMAGE, Source, cases, compare, dump, finish, render, words};
use wbuild_dockerfile::describe;

#[test]
fn expand() {
    let mut failed = Vec::new();
    for case in cases("expand") {
        let file = std::fs::read_to_string(case.join("words.txt")).expect("a case has words.txt");
        compare(&case, &words::expanded(&file), &mut failed);
    }
    finish(failed);
}

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

/// A case whose name begins with `build-` is built, the others are checked.
#[test]
fn lint() {
    let mut failed = Vec::new();
    for case in cases("lint") {
        let mut recorder = recorder(&case);
        recorder.quiet = true;
        let name = case.file_name().unwrap_or_default().to_string_lossy();
        let target = recorder.targets.first().cloned();
        if name.starts_with("build-") {
            recorder.build();
        } else {
            recorder.attempt(|recorder| describe::check(recorder, target.as_deref()));
        }
        compare(&case, &recorder.out, &mut failed);
    }
    finish(failed);
}

/// A case whose name begins with `call-` calls the method that the rest of the name is.
#[test]
fn describe() {
    let mut failed = Vec::new();
    for case in cases("describe") {
        let mut recorder = recorder(&case);
        recorder.quiet = true;
        let target = recorder.targets.first().cloned();
        let name = case.file_name().unwrap_or_default().to_string_lossy();
        recorder.attempt(|recorder| {
            if let Some(method) = name.strip_prefix("call-") {
                recorder.quiet = false;
                for (name, summary) in describe::methods() {
                    recorder.say(format!("method {name}: {summary}"));
                }
                recorder.say(describe::call(method)?);
                return Ok(());
            }
            let targets = describe::targets(recorder)?;
            let parameters = describe::parameters(recorder, target.as_deref())?;
            recorder.quiet = false;
            for target in targets {
                let at = (target.at.start, target.at.end);
                let default = if target.is_default { " (default)" } else { "" };
                let (name, summary) = (&target.name, &target.summary);
                recorder.say(format!("target {name:?}{default} {summary:?} at {at:?}"));
                recorder.say(format!("  from {:?}, platform {:?}", target.base, target.platform));
            }
            for parameter in parameters {
                let at = parameter.at.map(|at| (at.start, at.end));
                let required = if parameter.required { " (required)" } else { "" };
                let (kind, name) = (parameter.kind, &parameter.name);
                let (value, summary) = (&parameter.default, &parameter.summary);
                recorder.say(format!("{kind} {name} = {value:?}{required} {summary:?} at {at:?}"));
            }
            Ok(())
        });
        compare(&case, &recorder.out, &mut failed);
    }
    finish(failed);
}

fn recorder(case: &Path) -> Recorder {
    let text = std::fs::read(case.join("Dockerfile")).expect("a case has a Dockerfile");
    let request = std::fs::read_to_string(case.join("request.txt")).unwrap_or_default();
    Recorder::new(text, &request)
}

fn build(kind: &str) {
    let mut failed = Vec::new();
    for case in cases(kind) {
        let got = recorder(&case).run();
        compare(&case, &got, &mut failed);
    }
    finish(failed);
}
