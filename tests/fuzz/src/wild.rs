//! Dockerfiles that other people wrote: each is parsed, checked and lowered with invented answers.
//! Every image there is has a simple config, and every file of the context exists.

use std::fs;
use std::path::{Path, PathBuf};

use wbuild_dockerfile::describe;

use crate::Recorder;
use crate::seeds;
use crate::source::Source;
use crate::support::IMAGE;

/// Larger files are not what people mean by a Dockerfile.
const MOST_BYTES: u64 = 4 << 20;

/// Files below a folder that are Dockerfiles by their names.
pub fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in seeds::entries(folder) {
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        if about.is_dir() {
            find(&path, found);
        } else if about.is_file() && about.len() <= MOST_BYTES && is_dockerfile(&path) {
            found.push(path);
        }
    }
}

fn is_dockerfile(path: &Path) -> bool {
    let Some(name) = path.file_name() else { return false };
    let name = name.to_string_lossy().to_lowercase();
    // What is about Dockerfiles, or holds them.
    let other = [
        "dockerignore",
        "go",
        "gz",
        "js",
        "json",
        "md",
        "pest",
        "png",
        "py",
        "rs",
        "sh",
        "svg",
        "tar",
        "tgz",
        "ts",
        "vim",
    ];
    let about = name.rsplit_once('.').is_some_and(|(_, end)| other.contains(&end));
    if about || path.parent().is_some_and(|folder| folder.ends_with("bin")) {
        return false;
    }
    let named = ["dockerfile", "containerfile"];
    named.iter().any(|kind| {
        name.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
            || name.ends_with(&format!(".{kind}"))
    })
}

/// What came of one file.
pub enum Outcome {
    /// It was lowered for the default target and for every stage.
    Built,
    /// What was said of it.
    Refused(String),
}

/// Parses, checks and lowers a file.
///
/// # Panics
/// If an invariant does not hold.
pub fn examine(dockerfile: &[u8]) -> Outcome {
    let request = format!("image * {IMAGE}\n");
    let parsed = wbuild_dockerfile::parse(0, dockerfile);
    Source::new(0, dockerfile).check_diagnostics(&parsed.problems);
    let mut targets = vec![String::new()];
    targets.extend((0..parsed.file.stages.len()).map(|stage| format!("target {stage}\n")));
    for target in targets {
        let facts = format!("{request}{target}");
        let recorder = || Recorder::lenient(dockerfile.to_vec(), &facts).0;
        let (mut build, mut check) = (recorder(), recorder());
        if !build.build() {
            let failure = build.out.find("failed (").unwrap_or_default();
            return Outcome::Refused(build.out[failure..].to_owned());
        }
        if !check.attempt(|host| describe::check(host, None)) {
            return Outcome::Refused(check.out);
        }
    }
    Outcome::Built
}
