//! Case folders: `check` compares with a file of the case, and writes it when `WBUILD_BLESS=1`.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod project;
pub mod values;

use std::path::{Path, PathBuf};

/// The case folders of an area, sorted.
pub fn cases(area: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(area);
    let entries = std::fs::read_dir(&root).unwrap_or_else(|error| panic!("{root:?}: {error}"));
    let mut found: Vec<PathBuf> =
        entries.map(|entry| entry.expect("entry").path()).filter(|path| path.is_dir()).collect();
    found.sort();
    assert!(!found.is_empty(), "no cases in {root:?}");
    found
}

/// A file of a case.
pub fn read(case: &Path, name: &str) -> String {
    let path = case.join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Collects what differs, so that one run shows all of it.
#[derive(Default)]
pub struct Goldens {
    failures: Vec<String>,
}

impl Goldens {
    /// Compares with a file of the case.
    pub fn check(&mut self, path: &Path, actual: &str) {
        let expected = std::fs::read_to_string(path).unwrap_or_default();
        if expected == actual {
            return;
        }
        if std::env::var_os("WBUILD_BLESS").is_some_and(|value| value == "1") {
            std::fs::write(path, actual).expect("golden written");
            return;
        }
        self.failures
            .push(format!("{}\n--- expected\n{expected}\n--- actual\n{actual}", path.display()));
    }
}

impl Drop for Goldens {
    fn drop(&mut self) {
        if !self.failures.is_empty() && !std::thread::panicking() {
            panic!(
                "{} goldens differ (WBUILD_BLESS=1 rewrites them):\n{}",
                self.failures.len(),
                self.failures.join("\n\n")
            );
        }
    }
}
