//! Compiling in a process of its own: the same code, and an end to what takes too long.

#[path = "../../plugin/tests/common/mod.rs"]
mod common;
mod support;

use std::time::Duration;

use common::*;
use support::*;
use wbuild_graph::FailureKind;
use wbuild_isolate::{Isolator, Program};
use wbuild_plugin::{PluginHost, PluginHostOptions};

fn compiling(directory: &std::path::Path, compile_time: Duration) -> PluginHost {
    let mut options = PluginHostOptions::new(directory);
    let program = Program { compile_time, ..program("plugin") };
    options.compiler = Some(Isolator::new(program).compiler());
    PluginHost::new(options)
}

#[test]
fn what_is_compiled_elsewhere_runs_here_and_there() {
    let directory = tempfile::tempdir().expect("directory");
    let host = compiling(&directory.path().join("code"), Duration::from_secs(60));
    let plugin = load(&host, "steps");
    run(async {
        let text = "from a\nrun b\n";
        let (one, other) = (World::new(text, &[]), World::new(text, &[]));
        let here = plugin.frontend().expect("a frontend");
        here.build(one.host()).await.expect("it builds");
        let there = isolator().frontend(&plugin).expect("a frontend");
        there.build(other.host()).await.expect("it builds");
        assert_eq!(one.dump(), other.dump());
    });
}

#[test]
fn what_is_no_component_is_told_as_it_is_here() {
    let directory = tempfile::tempdir().expect("directory");
    let host = compiling(&directory.path().join("code"), Duration::from_secs(60));
    // Its outline is in order, and its module is not.
    let mut bytes = wat("(component (core module (func unreachable drop)))");
    let at = bytes.iter().rposition(|byte| *byte == 0x1a).expect("drop");
    bytes[at] = 0x6a;
    let plugin = host.load("x", bytes).expect("it loads");
    let failure = run(plugin.code()).expect_err("it is none");
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert_eq!(failure.message, "x is not a valid WebAssembly component");
}

/// A component of a few hundred KiB that keeps an optimising compiler busy.
fn bomb() -> Vec<u8> {
    let mut body = String::new();
    for n in 0..60_000 {
        let (a, b) = (n % 50, (n * 7 + 3) % 50);
        body += &format!(
            "(local.set {a} (i32.add (i32.mul (local.get {a}) (local.get {b})) (i32.const {n})))\n"
        );
        if n % 4 == 0 {
            body += &format!("(br_if 0 (local.get {b}))\n");
        }
    }
    let locals = "i32 ".repeat(50);
    wat(&format!("(component (core module (func (export \"f\") (local {locals}) (loop {body}))))"))
}

#[test]
fn a_component_that_keeps_the_compiler_busy_is_given_up() {
    let directory = tempfile::tempdir().expect("directory");
    let host = compiling(&directory.path().join("code"), Duration::from_secs(1));
    let bytes = bomb();
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
    let plugin = host.load("x", bytes).expect("it loads");
    let failure = run(plugin.code()).expect_err("it takes too long");
    assert_eq!(failure.kind, FailureKind::Limit, "{failure:?}");
    assert_eq!(failure.message, "compiling x took more than 1 s");
    assert_eq!(failure.attrs.get("plugin"), Some("x"));
}
