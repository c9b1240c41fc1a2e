//! The program as users run it: exit codes, what goes to which stream, files left behind, signals.
//! Builds here run no process, so they need no container runtime.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::project::{Project, streams};
use serde_json::Value;

/// Whether builds can be run here; otherwise says why not, or fails where that is demanded.
fn can_build(test: &str) -> bool {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let reason = REASON.get_or_init(|| {
        let project = Project::new();
        let output = project.run(&["-q", "."]);
        let (_, err) = streams(&output);
        let refused = !output.status.success() && err.contains("namespace");
        refused.then(|| err.lines().next().unwrap_or_default().to_owned())
    });
    match reason {
        None => true,
        Some(reason) => {
            let required = std::env::var_os("WBUILD_TEST_REQUIRE").is_some_and(|v| v == "1");
            assert!(!required, "{test}: {reason}");
            eprintln!("skipped: {test}: {reason}");
            false
        }
    }
}

#[test]
fn versions_and_help_are_data() {
    let project = Project::new();
    let version = format!("wbuild {}\n", env!("CARGO_PKG_VERSION"));
    for args in [&["--version"][..], &["-V"], &["version"]] {
        assert_eq!(project.good(args), (version.clone(), String::new()), "{args:?}");
    }
    let (out, err) = project.good(&["--help"]);
    assert!(out.contains("Exit codes:") && err.is_empty());
}

#[test]
fn wrong_command_lines_end_with_2() {
    let project = Project::new();
    for (args, said) in [
        (&[][..], "Usage: wbuild"),
        (&["--nonsense", "."], "unexpected argument '--nonsense'"),
        (&["build"], "the build context is missing"),
        (&["--frontend", "dockerfle", "."], "did you mean \"dockerfile\"?"),
        (&["--runner", "x", "."], "bundled: native"),
        (&["--cache-backend", "native", "."], "bundled: cache-local"),
        (&["plugin", "inspect", "nativ"], "did you mean \"native\"?"),
        (&["plugin", "test", "step"], "did you mean \"steps\"?"),
        (&["prune"], "--force does not ask"),
    ] {
        let err = project.bad(args, 2);
        assert!(err.contains(said), "{args:?}: {err}");
    }
}

#[test]
fn wrong_inputs_end_with_1() {
    let project = Project::new();
    project.write("not.wasm", "this is no component");
    for (args, said) in [
        (&["missing"][..], "cannot find the build context missing"),
        (&["src"], "cannot find Dockerfile, dockerfile, wbuild.yaml or wbuild.yml in src"),
        (&["-f", "src", "."], "the definition src is a directory"),
        (&["--frontend", "./not.wasm", "."], "./not.wasm"),
        (&["--frontend", "./gone.wasm", "."], "gone.wasm"),
        (&["plugin", "inspect", "./not.wasm"], "./not.wasm is not a valid WebAssembly component"),
        (
            &["plugin", "inspect", "--isolate-plugins=none", "./not.wasm"],
            "./not.wasm is not a valid",
        ),
        (&["plugin", "test", "no/such"], "neither a component nor a project at no/such"),
        (&["plugin", "test", "gone.wasm"], "`wbuild plugin build` makes"),
        (&["plugin", "test", "gone.wasm", "--cases", "src"], "a project at gone.wasm"),
        (&["plugin", "test", "steps"], "there are no cases beside it"),
    ] {
        let err = project.bad(args, 1);
        assert!(err.contains(said), "{args:?}: {err}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let project = Project::new();
    for args in [&["--help"][..], &["plugin", "list"], &["du"], &["version"]] {
        let mut command = project.command(args);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("ends");
        let (_, err) = streams(&output);
        assert_eq!((output.status.code(), err.as_str()), (Some(0), ""), "{args:?}");
    }
    if can_build("a_closed_pipe_is_no_error") {
        // Nobody reads what is shown: the build goes on.
        let mut command = project.command(&["--iidfile", "id", "-o", "type=oci,dest=x", "."]);
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
        drop(child.stderr.take());
        assert_eq!(child.wait().expect("ends").code(), Some(0));
        assert!(project.path("id").exists());
    }
}

#[test]
fn builds_and_leaves_what_scripts_need() {
    if !can_build("builds_and_leaves_what_scripts_need") {
        return;
    }
    let project = Project::new();
    let args =
        ["-t", "x:1", "-o", "type=oci,dest=x.tar", "--iidfile", "id", "--metadata-file", "m", "."];
    let (out, err) = project.good(&args);
    assert_eq!(out, "", "standard output is for data");
    assert!(err.contains(" COPY src /src\n") && err.contains(" DONE "), "{err}");
    let id = fs::read_to_string(project.path("id")).expect("id");
    assert!(id.starts_with("sha256:") && !id.ends_with('\n'));
    let text = fs::read_to_string(project.path("m")).expect("metadata");
    let metadata: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(metadata["containerimage.config.digest"], id.as_str());
    let digest = metadata["containerimage.digest"].as_str().expect("digest of the manifest");
    assert!(err.contains(&format!("image {digest} docker.io/library/x:1\n")), "{err}");
    assert_eq!(metadata["image.name"], "docker.io/library/x:1");
    assert!(fs::metadata(project.path("x.tar")).expect("archive").len() > 0);

    let (_, again) = project.good(&args);
    assert!(again.contains(" CACHED\n"), "{again}");
    assert_eq!(fs::read_to_string(project.path("id")).expect("id"), id);

    let (out, err) = project.good(&["-q", "-t", "x:1", "-o", "type=oci,dest=x.tar", "."]);
    assert_eq!((out, err.as_str()), (format!("{id}\n"), ""));
    let (out, err) = project.good(&["--stats", "--progress", "quiet", "."]);
    assert!(err.contains("steps cached") && !out.contains("steps"), "{err}");
}

#[test]
fn an_archive_has_standard_output_for_itself() {
    if !can_build("an_archive_has_standard_output_for_itself") {
        return;
    }
    let project = Project::new();
    for args in [&["-q", "-o", "-", "."][..], &["--progress", "plain", "-o", "type=tar", "."]] {
        let output = project.run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", streams(&output).1);
        assert_eq!(&output.stdout[257..262], b"ustar", "{args:?}: a tar and nothing before it");
        assert_eq!(output.stdout.len() % 512, 0, "{args:?}: and nothing behind it");
    }
    // A directory needs no standard output.
    project.good(&["-o", "out", "."]);
    assert_eq!(fs::read(project.path("out/src/a.txt")).expect("file"), b"hello\n");
}

#[test]
fn a_definition_may_come_from_standard_input() {
    if !can_build("a_definition_may_come_from_standard_input") {
        return;
    }
    let project = Project::new();
    for (args, definition, code) in [
        (&["-q", "-f", "-", "."][..], "FROM scratch\nCOPY src/a.txt /a\n", 0),
        (&["-q", "-"], "FROM scratch\nLABEL a=b\n", 0),
        (&["-q", "-"], "FROM scratch\nCOPY src/a.txt /a\n", 1),
    ] {
        let mut command = project.command(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(definition.as_bytes()).expect("written");
        drop(stdin);
        let output = child.wait_with_output().expect("ends");
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", streams(&output).1);
    }
}

#[test]
fn failures_end_with_the_place_and_nothing_else() {
    if !can_build("failures_end_with_the_place_and_nothing_else") {
        return;
    }
    let project = Project::new();
    project.write("Broken", "FROM scratch\nCOPYY src /src\n");
    project.write("Missing", "FROM scratch\n\nCOPY nothing /src\n");
    fs::write(project.path("id"), "of an earlier build").expect("file");
    for display in ["plain", "quiet"] {
        let args = ["--progress", display, "--iidfile", "id", "-f", "Broken", "."];
        let err = project.bad(&args, 1);
        assert!(err.contains("--> Broken:2:1") && err.contains(">>> COPYY src /src"), "{err}");
        assert!(err.contains("    |     ^^^^^"), "{err}");
        let err = project.bad(&["--progress", display, "-f", "Missing", "."], 1);
        assert!(err.contains("--> Missing:3") && err.contains(">>> COPY nothing /src"), "{err}");
    }
    assert!(!project.path("id").exists(), "no id of a build that failed");

    let err = project.bad(&["--progress", "json", "-f", "Missing", "."], 1);
    let lines: Vec<Value> =
        err.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let last = lines.last().expect("a line");
    assert_eq!((&last["event"], &last["exit_code"]), (&"build-failed".into(), &1.into()));
    assert!(last["text"].as_str().expect("text").contains(">>> COPY nothing /src"));
    assert!(lines.iter().any(|line| line["event"] == "step-defined"), "{err}");
}

#[test]
fn json_progress_is_json_only() {
    if !can_build("json_progress_is_json_only") {
        return;
    }
    let project = Project::new();
    let (out, err) = project.good(&["--progress=rawjson", "--stats", "."]);
    assert_eq!(out, "");
    let lines: Vec<Value> =
        err.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let last = lines.last().expect("a line");
    assert_eq!(last["event"], "build-succeeded");
    assert_eq!(last["stats"]["steps_run"].as_u64().map(|run| run > 0), Some(true), "{last}");
}

#[test]
fn plugins_are_replaceable_by_path() {
    if !can_build("plugins_are_replaceable_by_path") {
        return;
    }
    let project = Project::new();
    for (kind, name) in [
        (wbuild_bundled::Kind::Frontend, "dockerfile"),
        (wbuild_bundled::Kind::Runner, "native"),
        (wbuild_bundled::Kind::Cache, "cache-local"),
    ] {
        let bytes = wbuild_bundled::find(kind, name).expect("bundled").bytes;
        fs::write(project.path(&format!("my-{name}.wasm")), bytes).expect("component");
    }
    let plugins = [
        "--frontend",
        "./my-dockerfile.wasm",
        "--runner",
        "my-native.wasm",
        "--cache-backend",
        "./my-cache-local.wasm",
        "-o",
        "out",
        ".",
    ];
    project.good(&plugins);
    assert!(project.path("out/src/a.txt").exists());

    let (out, err) = project.good(&["plugin", "inspect", "./my-dockerfile.wasm"]);
    assert!(err.is_empty() && out.contains("kind        frontend\n"), "{out}{err}");
    let (out, _) = project.good(&["plugin", "inspect", "--json", "dockerfile"]);
    let info: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(info["kinds"][0], "frontend");
    assert!(info["load_time"].is_object(), "it is compiled already: {info}");
    let (out, _) = project.good(&["plugin", "list", "--json"]);
    let list: Value = serde_json::from_str(&out).expect("JSON");
    let found = list.as_array().expect("a list").iter().find(|row| row["name"] == "dockerfile");
    assert_eq!(found.expect("listed")["digest"], info["digest"]);
    // A plugin of another kind is refused by name.
    let err = project.bad(&["--frontend", "./my-native.wasm", "."], 1);
    assert!(err.contains("my-native.wasm"), "{err}");
}

#[test]
fn the_state_is_shown_and_removed() {
    if !can_build("the_state_is_shown_and_removed") {
        return;
    }
    let project = Project::new();
    let (out, _) = project.good(&["du"]);
    assert!(out.starts_with("0 B in "), "nothing yet: {out}");
    project.good(&["-q", "-o", "type=oci,dest=x.tar", "."]);
    let bytes = || {
        let (out, _) = project.good(&["du", "--json"]);
        let usage: Value = serde_json::from_str(&out).expect("JSON");
        // Empty directories stay.
        let entries = usage["entries"].as_array().expect("entries");
        let kept = entries.iter().filter(|entry| entry["kind"] != "internal");
        kept.map(|entry| entry["size_bytes"].as_u64().expect("bytes")).sum::<u64>()
    };
    assert!(bytes() > 0);
    let (out, _) = project.good(&["du"]);
    assert!(out.contains("COPY src /src"), "{out}");

    // An hour has not passed.
    project.good(&["prune", "--force", "--all", "--filter", "until=1h"]);
    assert!(bytes() > 0);
    for (answer, removes) in [("n\n", false), ("y\n", true)] {
        let mut command = project.command(&["prune", "--all"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(answer.as_bytes()).expect("written");
        drop(stdin);
        let output = child.wait_with_output().expect("ends");
        let (out, err) = streams(&output);
        assert!(output.status.success() && err.contains("[y/N]"), "{out}{err}");
        assert_eq!(out.contains("freed "), removes, "{out}{err}");
        assert_eq!(bytes() == 0, removes);
    }
    let (_, err) = project.good(&["."]);
    assert!(!err.contains("CACHED"), "everything is gone: {err}");
}

#[test]
fn doctor_says_what_there_is() {
    let project = Project::new();
    let output = project.run(&["doctor", "--json"]);
    let (out, err) = streams(&output);
    let report: Value = serde_json::from_str(&out).expect(&err);
    let works = report["works"].as_bool().expect("a verdict");
    assert_eq!(output.status.code(), Some(i32::from(!works)));
    let checks = report["checks"].as_array().expect("checks");
    let missing = checks.iter().filter(|check| check["state"] == "missing").count();
    assert_eq!(missing == 0, works);
    let (text, _) = streams(&project.run(&["doctor"]));
    for check in checks {
        assert!(text.contains(check["name"].as_str().expect("name")), "{check}");
    }
    let state = project.path("state");
    assert!(text.contains(state.to_str().expect("UTF-8")) && !state.exists());
}

/// Holds a state directory as another build would.
fn hold(project: &Project) -> OwnedFd {
    project.good(&["-q", "."]);
    let lock: OwnedFd = fs::File::open(project.path("state/lock")).expect("lock").into();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("held");
    lock
}

/// Waits until a child's standard error says something.
fn wait_for(child: &mut Child, said: &str) -> String {
    let mut stderr = child.stderr.take().expect("piped");
    let mut text = Vec::new();
    let begin = Instant::now();
    let mut byte = [0];
    while !String::from_utf8_lossy(&text).contains(said) {
        assert!(begin.elapsed() < Duration::from_secs(60), "never said {said:?}");
        match stderr.read(&mut byte).expect("readable") {
            0 => panic!("ended without {said:?}: {}", String::from_utf8_lossy(&text)),
            _ => text.push(byte[0]),
        }
    }
    child.stderr = Some(stderr);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_build_that_waits_can_be_interrupted() {
    if !can_build("a_build_that_waits_can_be_interrupted") {
        return;
    }
    let project = Project::new();
    let _lock = hold(&project);
    let err = project.bad(&["--no-wait", "."], 1);
    assert!(err.contains("another"), "{err}");
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let mut command = project.command(&["--progress", "plain", "."]);
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
        wait_for(&mut child, "waiting for another build");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).expect("signalled");
        let output = child.wait_with_output().expect("ends");
        let (_, err) = streams(&output);
        assert_eq!(output.status.signal(), None, "it ends by itself");
        assert_eq!(output.status.code(), Some(130), "{signal:?}: {err}");
        assert!(err.ends_with("error: the build was cancelled\n"), "{err}");
    }
}

#[test]
fn a_terminal_gets_a_live_view_and_its_cursor_back() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    if !can_build("a_terminal_gets_a_live_view_and_its_cursor_back") {
        return;
    }
    let project = Project::new();
    let _lock = hold(&project);
    for (term, live) in [("xterm", true), ("dumb", false)] {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("name");
        let slave = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(name.to_str().expect("UTF-8"))
            .expect("terminal");
        let mut command = project.command(&["."]);
        command.env("TERM", term).stdout(Stdio::null()).stderr(slave);
        let mut child = command.spawn().expect("starts");
        // The command holds a copy of the terminal, which would never be closed.
        drop(command);
        let mut master = fs::File::from(master);
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        // A terminal whose other side is closed ends with an error (EIO).
        while let Ok(count @ 1..) = master.read(&mut piece) {
            let before = text.len();
            text.extend_from_slice(&piece[..count]);
            let waiting =
                |text: &[u8]| String::from_utf8_lossy(text).contains("waiting for another build");
            if waiting(&text) && !waiting(&text[..before]) {
                let pid = rustix::process::Pid::from_child(&child);
                rustix::process::kill_process(pid, rustix::process::Signal::INT)
                    .expect("signalled");
            }
        }
        assert_eq!(child.wait().expect("ends").code(), Some(130));
        let text = String::from_utf8_lossy(&text);
        assert_eq!(text.contains("\x1b[?25l"), live, "{term}: {text}");
        assert_eq!(text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l"), live, "{term}: {text}");
        assert_eq!(text.contains('\x1b'), live, "{term}: {text}");
    }
}
