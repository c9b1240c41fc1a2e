//! What must hold for any input of the Dockerfile and Earthfile languages, of ignore files, of what images are made
//! of, of caches that lie elsewhere, of what says where plugins come from, and of what their processes say.
//!
//! A [`Target`] is a function that takes bytes, feeds them to one part of these and panics if
//! an invariant does not hold: not only that nothing panics, but that places lie in the source, that
//! the same input gives the same answer, and so on. The functions are plain: the test `replay` runs
//! them over the kept inputs and the case folders, the fuzzer (`sh tests/long.sh fuzz`) over what it
//! makes up. An input that once failed is kept in `corpus/<target>`.

mod archives;
mod earthfile;
mod expander;
mod frames;
mod ignores;
mod images;
mod lexer;
mod parser;
mod plan;
mod records;
pub mod seeds;
mod source;
mod supply;
pub mod wild;

/// The build that is written down, as the golden tests of the language use it.
#[path = "../../../frontends/dockerfile/lang/tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};

use support::recorder::Recorder;

/// A part under test.
pub struct Target {
    /// On the command line, and below `corpus`.
    pub name: &'static str,
    /// Panics if an invariant does not hold.
    pub check: fn(&[u8]),
    /// Inputs made of the case folders, or for images written down.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 20] = [
    Target { name: "lexer", check: lexer::check, seeds: lexer::seeds },
    Target { name: "parser", check: parser::check_file, seeds: parser::files },
    Target { name: "trigger", check: parser::check_trigger, seeds: parser::triggers },
    Target { name: "expander", check: expander::check, seeds: expander::seeds },
    Target { name: "ignore-file", check: ignores::check_file, seeds: ignores::files },
    Target { name: "ignore-matcher", check: ignores::check_matcher, seeds: ignores::lists },
    Target { name: "plan", check: plan::check, seeds: plan::seeds },
    Target { name: "earthfile", check: earthfile::check, seeds: earthfile::seeds },
    Target { name: "earthfile-plan", check: earthfile::check_plan, seeds: earthfile::plans },
    Target { name: "tar", check: archives::check_reader, seeds: archives::seeds },
    Target { name: "layer", check: archives::check_layer, seeds: archives::seeds },
    Target { name: "document", check: images::check_document, seeds: images::documents },
    Target { name: "reference", check: images::check_reference, seeds: images::references },
    Target { name: "records", check: records::check, seeds: records::seeds },
    Target { name: "plugin-reference", check: supply::check_reference, seeds: supply::references },
    Target { name: "plugin-project", check: supply::check_project, seeds: supply::projects },
    Target { name: "plugin-lock", check: supply::check_lock, seeds: supply::locks },
    Target { name: "plugin-policy", check: supply::check_policy, seeds: supply::policies },
    Target { name: "plugin-artifact", check: supply::check_artifact, seeds: supply::artifacts },
    Target { name: "plugin-frame", check: frames::check, seeds: frames::seeds },
];

/// The target of a name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// Where the kept inputs are.
    pub fn corpus(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.name)
    }
}
