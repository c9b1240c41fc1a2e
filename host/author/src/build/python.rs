//! Python: the component is CPython with the modules of the project inside.

use std::path::{Path, PathBuf};
use std::process::Command;

use wbuild_graph::Failure;

use super::{read, tool, work};
use crate::project::Project;

/// What the project's own environment installs, unless it has a `requirements-build.txt`.
const COMPILER: &str = "componentize-py==0.25.1";

pub(super) fn build(
    project: &Project,
    wit: &Path,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, Failure> {
    let compiler = compiler(project, say)?;
    let folder = work(project)?.join("python");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)
            .map_err(|error| crate::files::failed("remove", &folder, &error))?;
    }
    let skipped = ["build", "wit", "tests", ".git", ".venv", "__pycache__"];
    super::copy_sources(&project.folder, &folder, &skipped, &["py"])?;
    let out = work(project)?.join("cpython.wasm");
    let mut command = Command::new(compiler);
    command
        .arg("--wit-path")
        .arg(wit)
        // With WASI, which is hermetic here: what asks for a file or a module that is not there gets an
        // exception with the lines of the frontend, and not the end of the component.
        .args(["--world", &project.world, "componentize", "--python-path"])
        .arg(&folder)
        .arg("--output")
        .arg(&out)
        .arg(&project.main)
        .current_dir(&folder)
        // The order of sets is part of the memory that is kept.
        .env("PYTHONHASHSEED", "0");
    tool::run(&mut command, "componentize-py")?;
    read(&out)
}

/// The compiler: that of the project's `.venv`, of PATH, or one that is installed now.
fn compiler(project: &Project, say: &mut dyn FnMut(&str)) -> Result<PathBuf, Failure> {
    let environment = project.folder.join(".venv");
    let own = environment.join("bin/componentize-py");
    if own.exists() {
        return Ok(own);
    }
    if let Some(found) = tool::find(&["componentize-py"]) {
        return Ok(found);
    }
    let python = tool::find(&["python3"]).ok_or_else(|| {
        tool::missing(
            "python3",
            &["Debian, Ubuntu: apt-get install python3-venv", "Fedora: dnf install python3"],
        )
    })?;
    say("installing componentize-py into .venv");
    tool::run(Command::new(python).args(["-m", "venv"]).arg(&environment), "python3 -m venv")
        .map_err(|failure| failure.hint("Debian, Ubuntu: apt-get install python3-venv"))?;
    let mut pip = Command::new(environment.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    let listed = project.folder.join("requirements-build.txt");
    match listed.is_file() {
        true => pip.arg("-r").arg(&listed),
        false => pip.arg(COMPILER),
    };
    tool::run(&mut pip, "pip")?;
    Ok(own)
}
