//! Components out of projects, by the ordinary tools of their languages.

mod c;
mod javascript;
mod python;
mod rust;
mod tool;

use std::path::{Path, PathBuf};

use wbuild_graph::Failure;

use crate::component;
use crate::files::{failed, write, write_wit};
use crate::project::{Kind, Language, Project};

/// Builds the component of a project, `build/NAME.wasm` in it, and answers its path. `say` is told what
/// is done that takes long or changes more than that: installing what the project names.
pub fn build(project: &Project, say: &mut dyn FnMut(&str)) -> Result<PathBuf, Failure> {
    let bytes = match project.language {
        Language::Rust => rust::build(project)?,
        Language::Js => javascript::build(project, &wit(project)?, say)?,
        Language::Python => python::build(project, &wit(project)?, say)?,
        Language::C => {
            component::componentise(&c::build(project)?, &wit(project)?, &project.world)?
        }
    };
    let bytes = component::with_manifest(&bytes, &project.manifest);
    let path = project.component();
    // Whole or not at all: a build may be reading the old one.
    let part = path.with_extension("wasm.part");
    write(&part, &bytes)?;
    std::fs::rename(&part, &path).map_err(|error| failed("write", &path, &error))?;
    Ok(path)
}

/// The WIT packages that a project is built for: its own, or else the oldest that this program has.
fn wit(project: &Project) -> Result<PathBuf, Failure> {
    let own = project.folder.join("wit");
    if own.is_dir() {
        return Ok(own);
    }
    let folder = work(project)?.join("wit");
    write_wit(package(project.kind), &folder)?;
    Ok(folder)
}

/// The WIT package that a kind of plugin is about.
pub(crate) fn package(kind: Kind) -> &'static str {
    match kind {
        Kind::Frontend => "frontend",
        Kind::Runner => "runner",
        Kind::Cache => "cache",
    }
}

/// What a build leaves behind besides the component.
fn work(project: &Project) -> Result<PathBuf, Failure> {
    let folder = project.folder.join("build/work");
    std::fs::create_dir_all(&folder).map_err(|error| failed("make the folder", &folder, &error))?;
    Ok(folder)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| failed("read", path, &error))
}

/// Copies the files of these kinds, following links; `skipped` are names at the top.
fn copy_sources(from: &Path, to: &Path, skipped: &[&str], kinds: &[&str]) -> Result<(), Failure> {
    let entries = std::fs::read_dir(from).map_err(|error| failed("list", from, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| failed("list", from, &error))?.path();
        let Some(name) = path.file_name() else { continue };
        if skipped.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if path.is_dir() {
            copy_sources(&path, &to.join(name), &["__pycache__"], kinds)?;
        } else if path.extension().is_some_and(|end| kinds.iter().any(|kind| end == *kind)) {
            write(&to.join(name), &read(&path)?)?;
        }
    }
    Ok(())
}
