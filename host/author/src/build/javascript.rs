//! JavaScript: the component is an engine with the modules of the project inside. Which engine is what
//! `package.json` names the compiler of: QuickJS, or the larger and faster StarlingMonkey.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use wbuild_graph::Failure;

use super::{read, tool, work};
use crate::project::Project;

/// A compiler from npm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compiler {
    /// QuickJS.
    Qjs,
    /// StarlingMonkey. Its component imports WASI: without, the time and the seed of this machine would
    /// be part of it.
    Js,
}

impl Compiler {
    /// The one that a project names; QuickJS if it names none. (What is installed says less: the larger
    /// one brings the other along.)
    fn of(package: &Value) -> Compiler {
        let names = |compiler: Compiler| {
            let lists = ["devDependencies", "dependencies"];
            lists.iter().any(|list| package[list].get(compiler.package()).is_some())
        };
        match names(Compiler::Js) && !names(Compiler::Qjs) {
            true => Compiler::Js,
            false => Compiler::Qjs,
        }
    }

    fn package(self) -> &'static str {
        match self {
            Compiler::Qjs => "componentize-qjs",
            Compiler::Js => "@bytecodealliance/componentize-js",
        }
    }

    /// As npm installs it.
    fn program(self, project: &Project) -> PathBuf {
        let name = match self {
            Compiler::Qjs => "componentize-qjs",
            Compiler::Js => "componentize-js",
        };
        project.folder.join("node_modules/.bin").join(name)
    }

    /// The call that makes `out` of the modules in `sources`.
    fn command(self, project: &Project, wit: &Path, sources: &Path, out: &Path) -> Command {
        let mut command = Command::new(self.program(project));
        command.arg("--wit").arg(wit);
        match self {
            Compiler::Qjs => command
                // With WASI, which is hermetic here: modules that stand in for it are linked at every
                // start, and what calls them ends the component.
                .args(["--world", &project.world, "--sync", "--opt-size"])
                .arg("--module-root")
                .arg(sources)
                .arg("--js")
                .arg(sources.join(&project.main))
                .arg("--output")
                .arg(out)
                .current_dir(&project.folder),
            // Modules are found from where it runs, and not above.
            Compiler::Js => command
                .args(["--world-name", &project.world, "--out"])
                .arg(out)
                .arg(&project.main)
                .current_dir(sources),
        };
        command
    }
}

pub(super) fn build(
    project: &Project,
    wit: &Path,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, Failure> {
    let package = std::fs::read(project.folder.join("package.json")).unwrap_or_default();
    // What is wrong with it npm says.
    let compiler = Compiler::of(&serde_json::from_slice(&package).unwrap_or_default());
    install(project, compiler, say)?;
    let sources = stage(project)?;
    let out = work(project)?.join("javascript.wasm");
    let mut command = compiler.command(project, wit, &sources, &out);
    tool::run(&mut command, compiler.package())?;
    read(&out)
}

/// Installs what package.json names, if nothing is installed.
fn install(
    project: &Project,
    compiler: Compiler,
    say: &mut dyn FnMut(&str),
) -> Result<(), Failure> {
    let program = compiler.program(project);
    if program.exists() {
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
    let package = compiler.package();
    match program.exists() {
        true => Ok(()),
        false => Err(Failure::not_found(format!("the project does not install {package}"))
            .hint(format!("npm install --save-dev {package}"))),
    }
}

/// A copy of the modules, without links: the compiler sees one folder and nothing outside of it.
fn stage(project: &Project) -> Result<PathBuf, Failure> {
    let folder = work(project)?.join("js");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)
            .map_err(|error| crate::files::failed("remove", &folder, &error))?;
    }
    let skipped = ["node_modules", "build", "wit", "tests", ".git"];
    super::copy_sources(&project.folder, &folder, &skipped, &["js", "mjs", "json"])?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn package_json_names_the_compiler() {
        let (qjs, js) = ("componentize-qjs", "@bytecodealliance/componentize-js");
        for (package, compiler) in [
            (json!({ "devDependencies": { qjs: "0.4.5" } }), Compiler::Qjs),
            (json!({ "devDependencies": { js: "0.23.0" } }), Compiler::Js),
            (json!({ "dependencies": { js: "0.23.0" } }), Compiler::Js),
            // The smaller one.
            (json!({ "devDependencies": { js: "0.23.0", qjs: "0.4.5" } }), Compiler::Qjs),
            (json!({ "devDependencies": { "esbuild": "1" } }), Compiler::Qjs),
            (Value::Null, Compiler::Qjs),
        ] {
            assert_eq!(Compiler::of(&package), compiler, "{package}");
        }
    }
}
