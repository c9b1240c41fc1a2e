//! Other languages' compilers and interpreters, as this machine has them.
//!
//! What is installed for a test lies beside the test's executable; nothing is installed on the machine.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

use crate::run::{Run, Running};
use crate::sandbox::Sandbox;
use crate::skip;

/// For hundreds of megabytes.
const INSTALLING: Duration = Duration::from_secs(600);

/// What a project in JavaScript is compiled with: a `node_modules` of the versions that
/// `frontends/package-json` locks. Skips where npm cannot install it.
pub fn node_modules() -> Result<PathBuf> {
    let npm = skip::need_program("npm")?;
    let folder = crate::scratch()?.join("npm");
    std::fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let project = crate::workspace().join("frontends/package-json");
    let wanted = std::fs::read(project.join("package-lock.json"))?;
    let modules = folder.join("node_modules");
    if std::fs::read(folder.join("installed")).is_ok_and(|installed| installed == wanted) {
        return Ok(modules);
    }
    for name in ["package.json", "package-lock.json"] {
        std::fs::copy(project.join(name), folder.join(name))?;
    }
    let run = Run::of(
        Command::new(npm)
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&folder),
    )?;
    if run.code != 0 {
        return skip::skip(format!("npm cannot install the compiler: {}", run.stderr));
    }
    std::fs::write(folder.join("installed"), wanted)?;
    Ok(modules)
}

/// What the README of the SDK in JavaScript has installed for the larger engine. (The second is a
/// dependency that the first does not name; a newer one finds no folder of WIT.)
const LARGER_ENGINE: [&str; 2] =
    ["@bytecodealliance/componentize-js@0.23.0", "@bytecodealliance/preview2-shim@0.25.0"];

/// A folder with a `package.json` and its `node_modules`, with the larger engine's compiler. Skips where
/// npm cannot install it.
pub fn node_modules_of_the_larger_engine() -> Result<PathBuf> {
    let npm = skip::need_program("npm")?;
    let folder = crate::scratch()?.join("npm-larger");
    std::fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let wanted = LARGER_ENGINE.join("\n");
    if std::fs::read_to_string(folder.join("installed")).is_ok_and(|installed| installed == wanted)
    {
        return Ok(folder);
    }
    std::fs::write(folder.join("package.json"), "{ \"private\": true, \"type\": \"module\" }\n")?;
    let mut command = Command::new(npm);
    command
        .args([
            "install",
            "--save-dev",
            "--save-exact",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
        ])
        .args(LARGER_ENGINE)
        .current_dir(&folder);
    let run = Running::start(&mut command)?.wait(INSTALLING)?;
    if run.code != 0 {
        return skip::skip(format!("npm cannot install the compiler: {}", run.stderr));
    }
    std::fs::write(folder.join("installed"), wanted)?;
    Ok(folder)
}

/// Skips where there is no compiler from C to WebAssembly. (Which names it may have is the program's
/// matter; Debian's newest is installed by tests/run.sh.)
pub fn need_clang() -> Result<()> {
    for name in ["clang", "wasm-ld"] {
        let versions = (15..=22).rev().map(|version| format!("{name}-{version}"));
        if !std::iter::once(name.to_owned())
            .chain(versions)
            .any(|name| skip::find_program(&name).is_some())
        {
            return skip::skip(format!("{name} is not installed"));
        }
    }
    Ok(())
}

/// What a project in Python is compiled with: a virtual environment that has it. Skips where pip cannot
/// install it.
pub fn python_environment() -> Result<PathBuf> {
    let python = skip::need_program("python3")?;
    let folder = crate::scratch()?.join("python");
    std::fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let environment = folder.join("venv");
    if environment.join("bin/componentize-py").exists() {
        return Ok(environment);
    }
    Run::of(Command::new(python).args(["-m", "venv"]).arg(&environment))?.success()?;
    let run = Run::of(Command::new(environment.join("bin/pip")).args([
        "install",
        "--quiet",
        "componentize-py==0.25.1",
    ]))?;
    if run.code != 0 {
        return skip::skip(format!("pip cannot install the compiler: {}", run.stderr));
    }
    Ok(environment)
}

/// An OCI layout in the sandbox: the base image with Node.js and npm of this machine.
pub fn node_image(sandbox: &Sandbox) -> Result<PathBuf> {
    let node = skip::need_program("node")?;
    let npm = skip::need_program("npm")?.canonicalize()?;
    let module = npm.ancestors().find(|folder| folder.ends_with("node_modules/npm"));
    let module = module.context("npm lies in no folder node_modules/npm")?;
    let root = sandbox.path("node/rootfs");
    copy(&node, &root.join("usr/bin/node"))?;
    copy(module, &root.join("usr/lib/node_modules/npm"))?;
    std::os::unix::fs::symlink("../lib/node_modules/npm/bin/npm-cli.js", root.join("usr/bin/npm"))?;
    // npm begins with `#!/usr/bin/env node`.
    std::os::unix::fs::symlink("/bin/busybox", root.join("usr/bin/env"))?;
    libraries(&[node], &root)?;
    layout(sandbox, "node")
}

/// An OCI layout in the sandbox: the base image with Python of this machine.
pub fn python_image(sandbox: &Sandbox) -> Result<PathBuf> {
    let python = skip::need_program("python3")?;
    let asked = "import ensurepip, sys, glob; print(sys.base_prefix); \
        print(sys.base_prefix + '/bin/python%d.%d' % sys.version_info[:2]); \
        print('\\n'.join(glob.glob(sys.base_prefix + '/lib/python3.*/lib-dynload/*.so')))";
    let run = Run::of(Command::new(python).args(["-c", asked]))?;
    if run.code != 0 {
        return skip::skip("python3 has no module ensurepip (Debian: python3-venv)");
    }
    let lines: Vec<PathBuf> = run.text()?.lines().map(PathBuf::from).collect();
    let (prefix, programs) = lines.split_first().context("python3 says nothing")?;
    let root = sandbox.path("python/rootfs");
    if prefix == Path::new("/usr") {
        return skip::skip("the Python of the system lies among all other libraries");
    }
    for part in ["bin", "lib"] {
        copy(&prefix.join(part), &root.join(prefix.strip_prefix("/")?).join(part))?;
    }
    // What this machine has installed besides is hundreds of megabytes, and Python's own tests as many.
    let library = root.join(prefix.strip_prefix("/")?).join("lib");
    for entry in std::fs::read_dir(library)? {
        let path = entry?.path();
        for part in ["site-packages", "test"].map(|part| path.join(part)) {
            if part.is_dir() {
                std::fs::remove_dir_all(part)?;
            }
        }
    }
    std::fs::create_dir_all(root.join("usr/bin"))?;
    std::os::unix::fs::symlink(prefix.join("bin/python3"), root.join("usr/bin/python3"))?;
    libraries(programs, &root)?;
    layout(sandbox, "python")
}

/// Builds the image of `name/rootfs` on the base image.
fn layout(sandbox: &Sandbox, name: &str) -> Result<PathBuf> {
    let (context, layout) = (sandbox.path(name), sandbox.path(format!("{name}-layout")));
    std::fs::write(context.join("Dockerfile"), "FROM base\nCOPY rootfs /\n")?;
    let mut command = sandbox.wbuild(["build", "--progress=plain", "--tag=base:latest"])?;
    command
        .arg(format!("--build-context=base=oci-layout://{}", crate::base::layout()?.display()))
        .arg(format!("--output=type=oci,tar=false,dest={}", layout.display()))
        .arg(&context);
    Run::of(&mut command)?.success()?;
    Ok(layout)
}

/// The libraries that programs want, at their places.
fn libraries(programs: &[PathBuf], root: &Path) -> Result<()> {
    let run = Run::of(Command::new("ldd").args(programs))?.success()?;
    for word in run.text()?.split_whitespace() {
        let to = root.join(word.trim_start_matches('/'));
        if word.starts_with('/')
            && word.contains(".so")
            && !to.exists()
            && Path::new(word).is_file()
        {
            copy(&Path::new(word).canonicalize()?, &to)?;
        }
    }
    Ok(())
}

/// Copies a file or a folder.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to.parent().context("a path below the sandbox")?)?;
    Run::of(Command::new("cp").arg("-r").arg("--preserve=mode,links").arg(from).arg(to))?
        .success()?;
    Ok(())
}
