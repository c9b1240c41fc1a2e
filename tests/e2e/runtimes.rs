//! Frontends whose runtimes ask WASI for what a system has: they build, and see the same everywhere.
//!
//! The sources of those that ask for everything are in `runtimes/`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use wbuild_tests::run::{Run, Running};
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::{languages, skip};

use crate::Test;
use crate::plugin_languages::{build_project, builds, new, sandbox_for};

/// Takes minutes, and installs what few machines have.
pub const LONG: &[Test] = &[
    ("std_of_rust", std_of_rust),
    ("python", python),
    ("javascript_in_the_larger_engine", javascript_in_the_larger_engine),
];

/// For compilers, on a machine that does other things, too.
const COMPILING: Duration = Duration::from_secs(900);

fn sources() -> PathBuf {
    wbuild_tests::workspace().join("tests/e2e/runtimes")
}

/// What a frontend says to a definition, without what the build says.
fn asked(
    sandbox: &Sandbox,
    component: &str,
    definition: &str,
    more: &[&str],
) -> Result<Vec<String>> {
    sandbox.write("asked", definition)?;
    let frontend = format!("--frontend={component}");
    let args = [&[&*frontend, "-f", "context/asked", "-o", "type=cacheonly"], more].concat();
    let run = sandbox.build(&args)?.success()?;
    let name = format!("{component}: ");
    Ok(run.stderr.lines().filter_map(|line| line.strip_prefix(&name)).map(str::to_owned).collect())
}

/// A frontend that is at fault.
const BUG: i32 = 70;

/// The build of a definition that ends the frontend.
fn ended(sandbox: &Sandbox, component: &str, definition: &str, code: i32) -> Result<Run> {
    sandbox.write("asked", definition)?;
    let frontend = format!("--frontend={component}");
    sandbox.build(&[&frontend, "-f", "context/asked", "-o", "type=cacheonly"])?.expect(code)
}

/// Whether it is known what the component runs in.
fn in_the_profile(sandbox: &Sandbox, component: &str) -> Result<()> {
    let run = sandbox.run(["plugin", "inspect", component])?.success()?;
    let text = run.text()?;
    ensure!(
        text.contains("hermetic WASI profile") && text.contains("wasi:cli/stdout@0.2."),
        "{text}"
    );
    Ok(())
}

/// Each line with what `asked` answers to it.
const STD: &[(&str, &str)] = &[
    ("time", "Ok(0ns)"),
    ("clock", "1ns"),
    ("sleep", "3600.000000001s"),
    ("deadline", "60 turns"),
    ("env", "[]"),
    ("args", "[]"),
    ("dir", "Ok(\"/\")"),
    ("set", "Ok(\"set\")"),
    ("read /etc/hostname", "kind: NotFound"),
    ("read here", "kind: NotFound"),
    ("write /tmp/x", "kind: NotFound"),
    ("list /", "kind: NotFound"),
    ("list .", "kind: NotFound"),
    ("mkdir /tmp/a/b", "kind: NotFound"),
    ("stdin", "Ok(0) \"\""),
    ("terminal", "false"),
    ("thread", "kind: Unsupported"),
    ("program /bin/true", "kind: Unsupported"),
    ("connect 127.0.0.1:22", "kind: PermissionDenied"),
    ("connect example.org:80", "kind: PermissionDenied"),
    ("listen 127.0.0.1:0", "kind: PermissionDenied"),
    ("udp 127.0.0.1:0", "kind: PermissionDenied"),
    ("resolve example.org:80", "kind: PermissionDenied"),
];

fn std_of_rust() -> Result<()> {
    let sandbox = Sandbox::new("std")?;
    let component = std_frontend()?;
    let component = component.to_str().context("a path of UTF-8")?;
    in_the_profile(&sandbox, component)?;

    let definition: String = STD.iter().map(|(line, _)| format!("{line}\n")).collect();
    let seen = asked(&sandbox, component, &definition, &[])?;
    ensure!(seen.len() == STD.len(), "{seen:#?}");
    for ((line, answer), seen) in STD.iter().zip(&seen) {
        let word = line.split(' ').next().unwrap_or(line);
        ensure!(seen.starts_with(&format!("{word}: ")) && seen.contains(answer), "{line}: {seen}");
    }
    // The same for the same input; something else for another.
    let random = asked(&sandbox, component, "random\n", &[])?;
    let fresh = Sandbox::new("std-again")?;
    // Which remembers nothing; a process of its own sees nothing else either.
    let isolated = asked(&fresh, component, &definition, &["--isolate-plugins=all"])?;
    ensure!(isolated == seen, "{isolated:#?}");
    ensure!(random == asked(&fresh, component, "random\n", &[])?, "{random:?}");
    ensure!(random != asked(&fresh, component, "random\n\n", &[])?[..1], "{random:?}");
    let pinned = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000"];
    let seen = asked(&sandbox, component, "time\n", &pinned)?;
    ensure!(seen == ["time: Ok(1700000000s)"], "{seen:?}");

    // What is written: each stream by lines, the last also without an end, and not without bounds.
    let seen = asked(&sandbox, component, "stderr to standard error\npart begun, \n", &[])?;
    ensure!(
        seen == ["warning: to standard error", "stderr: Ok(())", "begun, part: Ok(())"],
        "{seen:?}"
    );
    let seen = asked(&sandbox, component, "much\n", &[])?;
    ensure!(seen.last().is_some_and(|last| last.contains("the rest is dropped")), "{seen:?}");

    // How it can end.
    let run = ended(&sandbox, component, "time\npanic the disk is full\n", BUG)?;
    run.says("time: Ok(0ns)")?;
    run.says("panicked at src/lib.rs:")?;
    run.says("the disk is full")?;
    run.says("crashed")?;
    let run = ended(&sandbox, component, "part not the end\nexit\n", BUG)?;
    run.says("not the end")?;
    run.says("ended its program instead of answering")?;
    Ok(())
}

/// The frontend in `runtimes/std`, compiled. Skips without rustup.
fn std_frontend() -> Result<PathBuf> {
    let rustup = skip::need_program("rustup")?;
    let target = "wasm32-wasip2";
    let run = Run::of(Command::new(rustup).args(["target", "add", target]))?;
    if run.code != 0 {
        return skip::skip(format!("rustup cannot add {target}: {}", run.stderr));
    }
    let folder = wbuild_tests::scratch()?.join("std-frontend");
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--release", "--locked", "--target", target])
        .current_dir(sources().join("std"))
        .env("CARGO_TARGET_DIR", &folder)
        // Those of the tests are for this machine.
        .env_remove("RUSTFLAGS");
    Running::start(&mut cargo)?.wait(COMPILING)?.success()?;
    Ok(folder.join(target).join("release/std_frontend.wasm"))
}

fn python() -> Result<()> {
    let sandbox = sandbox_for("python-wasi")?;
    let project = new(&sandbox, "python", "frontend")?;
    std::fs::copy(sources().join("app.py"), project.join("app.py"))?;
    let said = build_project(&sandbox, &project)?;
    let component = said["path"].as_str().context("a path")?;
    in_the_profile(&sandbox, component)?;
    let definition = "time\ndeadline\nenv\nread /etc/hostname\nlist .\nstdin\nsocket\nthread\nprogram x\n\
        stderr said\n";
    let seen = asked(&sandbox, component, definition, &[])?;
    let expected = [
        "time: (0.0, '1970-01-01T00:00:00')",
        "deadline: 60",
        "env: ({}, [], '/')",
        "read: FileNotFoundError(44, 'No such file or directory')",
        "list: FileNotFoundError(44, 'No such file or directory')",
        "stdin: ''",
        "socket: PermissionError(2, 'Permission denied')",
        "thread: RuntimeError(\"can't start new thread\")",
        "program: OSError(58, 'wasi does not support processes.')",
        "warning: said",
        "stderr: None",
    ];
    ensure!(seen == expected, "{seen:#?}");
    random_follows_from_input(&sandbox, component)?;
    ended(&sandbox, component, "exit\n", BUG)?.says("ended its program instead of answering")?;
    let run = ended(&sandbox, component, "bug\n", BUG)?;
    run.says("the frontend failed: ZeroDivisionError")?;
    run.says("app.py:")?;
    ended(&sandbox, component, "late\n", BUG)?.says("ModuleNotFoundError")?;
    Ok(())
}

/// As the README of the SDK says.
fn javascript_in_the_larger_engine() -> Result<()> {
    let sandbox = sandbox_for("starlingmonkey")?;
    let project = new(&sandbox, "js", "frontend")?;
    let modules = languages::node_modules_of_the_larger_engine()?;
    std::fs::remove_file(project.join("node_modules"))?;
    std::os::unix::fs::symlink(modules.join("node_modules"), project.join("node_modules"))?;
    std::fs::copy(modules.join("package.json"), project.join("package.json"))?;
    let said = build_project(&sandbox, &project)?;
    let component = said["path"].as_str().context("a path")?.to_owned();
    in_the_profile(&sandbox, &component)?;
    sandbox.run(["plugin", "test", "project"])?.success()?;
    builds(&sandbox, &component)?;

    std::fs::copy(sources().join("main.js"), project.join("main.js"))?;
    build_project(&sandbox, &project)?;
    let pinned = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000"];
    let definition = "time\nepoch\nclock\ntext é\nsize hello.txt\nsizes hello.txt\nconsole said\n";
    let seen = asked(&sandbox, &component, definition, &pinned)?;
    let expected = [
        "time: [1700000000000,\"2023-11-14T22:13:20.000Z\"]",
        "epoch: 1700000000",
        "clock: false",
        "text: \"é\"",
        "size: 7",
        "sizes: [6]",
        "said",
        "warning: said",
        "console: undefined",
    ];
    ensure!(seen == expected, "{seen:#?}");
    random_follows_from_input(&sandbox, &component)?;
    let run = ended(&sandbox, &component, "fetch http://example.org/\n", 1)?;
    run.says("of wasi:http/types, which is not there for plugins")?;
    let run = ended(&sandbox, &component, "throw oh no\n", BUG)?;
    run.says("the frontend failed: TypeError: oh no")?;
    run.says("ask@main.js:")?;
    Ok(())
}

/// The same random numbers for the same definition, also in another process that remembers nothing.
fn random_follows_from_input(sandbox: &Sandbox, component: &str) -> Result<()> {
    let random = asked(sandbox, component, "random\n", &[])?;
    std::fs::remove_dir_all(sandbox.path("state"))?;
    let again = asked(sandbox, component, "random\n", &[])?;
    let other = asked(sandbox, component, "random\n\n", &[])?;
    ensure!(
        random.len() == 1 && random == again && random != other,
        "{random:?} {again:?} {other:?}"
    );
    Ok(())
}
