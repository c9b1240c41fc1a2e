//! Tests that cannot run on this machine say so: `skipped: <test>: <reason>`.
//!
//! Where everything has to be there (`WBUILD_TEST_REQUIRE=1`) a skip is a failure.

use std::fmt;
use std::path::PathBuf;

/// The error of a test that cannot run here.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends the test as skipped.
pub fn skip<T>(reason: impl Into<String>) -> anyhow::Result<T> {
    Err(Skip(reason.into()).into())
}

/// Whether a skip is a failure.
pub fn is_failure() -> bool {
    std::env::var_os("WBUILD_TEST_REQUIRE").is_some_and(|value| value == "1")
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Skips unless this process is root.
pub fn need_root() -> anyhow::Result<()> {
    if is_root() { Ok(()) } else { skip("needs root") }
}

/// Where a program is: on PATH or where administrators' programs are. Skips if it is nowhere.
pub fn need_program(name: &str) -> anyhow::Result<PathBuf> {
    match find_program(name) {
        Some(path) => Ok(path),
        None => skip(format!("{name} is not installed")),
    }
}

/// Where a program is.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}
