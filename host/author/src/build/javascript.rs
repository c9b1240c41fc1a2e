//! JavaScript: the component is QuickJS with the modules of the project inside.

use std::path::Path;
use std::process::Command;

use wbuild_graph::Failure;

use super::{read, tool, work};
use crate::project::Project;

/// The compiler, as npm installs it.
const COMPILER: &str = "node_modules/.bin/componentize-qjs";

pub(super) fn build(
    project: &Project,
    wit: &Path,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, Failure> {
    install(project, say)?;
    let sources = stage(project)?;
    let out = work(project)?.join("quickjs.wasm");
    let mut command = Command::new(project.folder.join(COMPILER));
    command
        .arg("--wit")
        .arg(wit)
        .args(["--world", &project.world, "--stub-wasi", "--sync", "--opt-size"])
        .arg("--module-root")
        .arg(&sources)
        .arg("--js")
        .arg(sources.join(&project.main))
        .arg("--output")
        .arg(&out)
        .current_dir(&project.folder);
    tool::run(&mut command, "componentize-qjs")?;
    read(&out)
}

/// Installs what package.json names, if nothing is installed.
fn install(project: &Project, say: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    if project.folder.join(COMPILER).exists() {
        return Ok(());
    }
    let npm = tool::find(&["npm"]).ok_or_else(|| {
        tool::missing(
            "npm",
            &["install Node.js 18 or newer (https://nodejs.org), which npm comes with"],
        )
    })?;
    let subcommand = match project.folder.join("package-lock.json").exists() {
        true => "ci",
        false => "install",
    };
    say(&format!("npm {subcommand}"));
    let mut command = Command::new(npm);
    command
        .args([subcommand, "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&project.folder);
    tool::run(&mut command, "npm")?;
    match project.folder.join(COMPILER).exists() {
        true => Ok(()),
        false => Err(Failure::not_found("the project does not install componentize-qjs")
            .hint("npm install --save-dev componentize-qjs")),
    }
}

/// A copy of the modules, without links: the compiler sees one folder and nothing outside of it.
fn stage(project: &Project) -> Result<std::path::PathBuf, Failure> {
    let folder = work(project)?.join("js");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)
            .map_err(|error| crate::files::failed("remove", &folder, &error))?;
    }
    let skipped = ["node_modules", "build", "wit", "tests", ".git"];
    super::copy_sources(&project.folder, &folder, &skipped, &["js", "mjs", "json"])?;
    Ok(folder)
}
