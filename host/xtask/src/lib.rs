//! The project's own build steps, run as `cargo xtask <command>`.
//!
//! - [`guests`]: compiles every guest of the workspace to a component.
//! - [`component`]: what a component imports and exports; the proof of its sandbox.
//! - [`toolchain`]: the compiler that guests are built with.
//! - [`reference`]: the pages of `wit/reference`.
//! - [`wit`]: keeps `wit/CHANGES.md` honest and copies WIT packages for other languages' tools.
//!
//! This crate must not depend, not even through others, on `wbuild-bundled`: that crate embeds
//! what this one makes.

pub mod component;
pub mod guests;
pub mod reference;
pub mod toolchain;
pub mod wit;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The root folder of the workspace.
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this crate lies in host/xtask of the workspace")
        .to_owned()
}

/// Writes `contents` as a whole or not at all. Leaves the file (and its time) alone when it
/// holds them already; says whether it wrote.
fn write_if_changed(path: &Path, contents: &[u8]) -> Result<bool> {
    if std::fs::read(path).is_ok_and(|present| present == contents) {
        return Ok(false);
    }
    let folder = path.parent().context("a file has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}.part", std::process::id()));
    std::fs::write(&part, contents)
        .and_then(|()| std::fs::rename(&part, path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

/// Reads a text file; the error names it.
fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
