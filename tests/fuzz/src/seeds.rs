//! The case folders as inputs. They are used where they lie, not copied.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A case folder of the language: its Dockerfile, and its request or nothing.
pub struct Case {
    /// The file.
    pub dockerfile: Vec<u8>,
    /// What the caller asks for.
    pub request: String,
}

/// All case folders of the language, in order.
pub fn cases() -> Vec<Case> {
    let tests = root().join("frontends/dockerfile/lang/tests");
    let mut cases = Vec::new();
    for kind in ["parse", "errors", "lower", "lint", "describe"] {
        for folder in entries(&tests.join(kind)) {
            let dockerfile = fs::read(folder.join("Dockerfile")).expect("a case has a Dockerfile");
            let request = fs::read_to_string(folder.join("request.txt")).unwrap_or_default();
            cases.push(Case { dockerfile, request });
        }
    }
    cases
}

/// Everything below a folder, in order.
pub fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a folder can be listed").path()).collect();
    paths.sort();
    paths
}
