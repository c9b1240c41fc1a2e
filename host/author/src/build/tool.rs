//! Running other people's programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use wbuild_graph::{Failure, FailureKind};

/// Bytes of a tool's output that are shown when it fails.
const SHOWN: usize = 8 << 10;

/// A program on PATH, the first that is there of several names.
pub(super) fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let places = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    places.into_iter().find(|place| place.is_file())
}

/// The failure of a build whose tool is not there.
pub(super) fn missing(what: &str, hints: &[&str]) -> Failure {
    let failure = Failure::not_found(format!("{what} is not on this machine"));
    hints.iter().fold(failure, |failure, hint| failure.hint(*hint))
}

/// Runs a tool to its end. What it says is shown only if it fails, as its failure.
pub(super) fn run(command: &mut Command, what: &str) -> Result<(), Failure> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command.stdin(std::process::Stdio::null()).output().map_err(|error| {
        Failure::new(FailureKind::Unavailable, format!("cannot run {program}")).cause(&error)
    })?;
    if output.status.success() {
        return Ok(());
    }
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    let said = said.trim();
    // What matters is said last.
    let from = (said.len().saturating_sub(SHOWN)..said.len()).find(|at| said.is_char_boundary(*at));
    let mut failure =
        Failure::new(FailureKind::ExecFailed, format!("{what} failed ({})", output.status));
    failure.causes.extend(said[from.unwrap_or(0)..].lines().map(str::to_owned));
    Err(failure)
}
