//! The Earthfile language: parsing, and printing what was parsed; builds and checks.

use std::path::{Path, PathBuf};

use wbuild_earthfile::{describe, parse, print};

use crate::Recorder;
use crate::plan::request_and_definition;
use crate::source::Source;
use crate::support::IMAGE;

/// What the language's tests share, where they look for it.
mod common {
    pub use crate::support::recorder;
}
#[path = "../../../frontends/earthfile/lang/tests/support/world.rs"]
#[allow(dead_code)]
mod world;

/// The input is a file.
pub fn check(data: &[u8]) {
    let source = Source::new(7, data);
    let parsed = parse(7, data);
    assert_eq!(format!("{parsed:?}"), format!("{:?}", parse(7, data)), "it differs each time");
    source.check_diagnostics(&parsed.problems);
    if parsed.failed() {
        return;
    }
    let printed = print(&parsed.file);
    let again = parse(7, printed.as_bytes());
    assert!(!again.failed(), "{printed:?} cannot be read again: {:?}", again.problems);
    assert_eq!(print(&again.file), printed);
}

/// A whole build, and questions: the input is a request and an Earthfile.
pub fn check_plan(data: &[u8]) {
    let (request, earthfile) = request_and_definition(data);
    let recorder = || {
        let mut recorder = Recorder::lenient(earthfile.to_vec(), &request).0;
        recorder.file_name = Some("Earthfile");
        recorder
    };
    // The host looks at every place and every node that it is told.
    let build = || {
        let mut recorder = recorder();
        recorder.attempt(|host| wbuild_earthfile::build(host));
        recorder.out
    };
    let record = build();
    assert_eq!(record, build(), "it differs each time");
    // An artifact that is asked for is files and nothing else; what TRY has run fails afterwards.
    let ends = ["result ", "failed ", "require ", "files ", "fail-after "];
    let ended = |line: &str| ends.iter().any(|end| line.starts_with(end));
    assert!(record.lines().any(ended), "neither a result nor a failure: {record}");
    let target = recorder().targets.first().cloned();
    for target in [None, target.as_deref()] {
        recorder().attempt(|host| describe::check(host, target));
        recorder().attempt(|host| describe::parameters(host, target).map(drop));
    }
    recorder().attempt(|host| describe::targets(host).map(drop));
}

/// The files of these kinds of case folders.
fn cases(kinds: &[&str]) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../frontends/earthfile/lang/tests");
    let mut files = Vec::new();
    for kind in kinds {
        for case in std::fs::read_dir(root.join(kind)).expect("there are cases") {
            let case = case.expect("it can be listed").path();
            for name in ["Earthfile", "right"] {
                files.extend(std::fs::read(case.join(name)).ok().map(|text| (case.clone(), text)));
            }
        }
    }
    files.sort();
    files
}

/// The case folders of what is parsed.
pub fn seeds() -> Vec<Vec<u8>> {
    cases(&["parse", "errors"]).into_iter().map(|(_, text)| text).collect()
}

/// The case folders of what is built.
pub fn plans() -> Vec<Vec<u8>> {
    let join = |(case, text): (PathBuf, Vec<u8>)| {
        let request = std::fs::read_to_string(case.join("request.txt")).unwrap_or_default();
        let request = format!("image a {IMAGE}\nimage b {IMAGE}\n{request}");
        [request.as_bytes(), b"\0", &text].concat()
    };
    cases(&["lower", "refused", "check", "describe"]).into_iter().map(join).collect()
}
