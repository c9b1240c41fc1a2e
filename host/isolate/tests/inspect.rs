//! Looking at components in processes of their own: what is seen is the same, and nothing of it is
//! read, compiled or run here.

#[path = "../../plugin/tests/common/mod.rs"]
mod common;
mod support;

use std::time::Duration;

use common::*;
use support::*;
use wbuild_graph::{Failure, FailureKind};
use wbuild_isolate::{Isolator, Program};
use wbuild_plugin::{PluginHost, PluginHostOptions, PluginInfo, PluginKind, PluginSource};

fn looking(directory: &std::path::Path, program: Program) -> (PluginHost, Isolator) {
    let mut options = PluginHostOptions::new(directory.join("code"));
    options.frontend_limits.cpu = Duration::from_millis(500);
    let isolator = Isolator::new(program);
    options.compiler = Some(isolator.compiler());
    (PluginHost::new(options), isolator)
}

fn look(program: Program, source: impl Into<PluginSource>) -> Result<PluginInfo, Failure> {
    let directory = tempfile::tempdir().expect("directory");
    let (host, isolator) = looking(directory.path(), program);
    run(async {
        let plugin = host.load_apart("x", source).await?;
        isolator.inspect(&plugin).await
    })
}

fn here(source: impl Into<PluginSource>) -> Result<PluginInfo, Failure> {
    let directory = tempfile::tempdir().expect("directory");
    let (host, _) = looking(directory.path(), program("plugin"));
    run(async { host.load("x", source)?.inspect().await })
}

const MODULE: &str =
    "(memory (export \"mem\") 1) (func (export \"build\") (result i32) i32.const 0)";

/// Making an instance runs what the component says is to be run.
#[test]
fn what_starts_runs_there_and_is_ended() {
    for (start, says) in [
        ("(func $s (loop (br 0))) (start $s)", "processor time"),
        ("(func $s unreachable) (start $s)", "unreachable"),
        ("(memory $m 60000)", "memory"),
    ] {
        let component = wat(&wat_frontend("", &format!("{MODULE} {start}"), ""));
        let info = look(program("plugin"), component).expect("it is described");
        let refusal = info.refusal.unwrap_or_else(|| panic!("{start}"));
        let said = format!("{refusal:?}");
        assert!(said.contains(says), "{start}: {said}");
        assert_eq!(info.instantiate_time, None);
    }
}

#[test]
fn the_same_is_seen() {
    for name in ["steps", "native", "cache-local", "hostile-nested", "hostile-import"] {
        let (there, here) = (look(program("plugin"), dist(name)), here(dist(name)).expect(name));
        let there = there.expect(name);
        assert_eq!(
            (&there.imports, &there.exports, &there.kinds, &there.manifest, &there.digest),
            (&here.imports, &here.exports, &here.kinds, &here.manifest, &here.digest),
            "{name}"
        );
        assert_eq!(
            (&there.abilities, there.describes),
            (&here.abilities, here.describes),
            "{name}"
        );
        let times = |info: &PluginInfo| {
            [info.compile_time, info.load_time, info.instantiate_time].map(|time| time.is_some())
        };
        let said = |info: &PluginInfo| info.refusal.as_ref().map(|it| it.message.clone());
        assert_eq!(said(&there), said(&here), "{name}");
        // What is refused by its border is neither compiled nor run.
        let kinds = here.kinds.first().is_some_and(|kind| *kind == PluginKind::Frontend);
        if name == "steps" {
            assert!(kinds && there.refusal.is_none());
            let times = times(&there);
            assert_eq!(times, [true; 3]);
        }
    }
}

#[test]
fn what_is_no_component_is_told_as_it_is_here() {
    let mut cut = wat(&wat_frontend("", MODULE, ""));
    cut.truncate(cut.len() / 2);
    let module = wat("(module)");
    for bytes in [b"text".to_vec(), Vec::new(), cut, module] {
        let (there, here) = (look(program("plugin"), bytes.clone()), here(bytes));
        let (there, here) = (there.expect_err("none"), here.expect_err("none"));
        assert_eq!((there.kind, &there.message), (here.kind, &here.message));
        assert_eq!(there.kind, FailureKind::Invalid);
    }
}

/// A manifest is text until it is shown, however deep it is.
#[test]
fn manifests_are_read() {
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let long = format!("[{}1]", "\"\u{1}\",".replace('\u{1}', "\\u0001").repeat(5000));
    for text in [deep, long] {
        let mut bytes = wat("(component)");
        let mut section = vec![15];
        section.extend_from_slice(b"wbuild:manifest");
        section.extend_from_slice(text.as_bytes());
        bytes.push(0);
        leb(section.len(), &mut bytes);
        bytes.extend(section);
        let info = look(program("plugin"), bytes).expect("it is one");
        let shown: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(info.manifest, Some(shown));
    }
}

fn leb(mut number: usize, out: &mut Vec<u8>) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// Where no child can be, nothing is looked at: this process does not fall back to itself.
#[test]
fn nothing_is_looked_at_here() {
    let nobody = Program { exe: "/nothing/here".into(), ..program("plugin") };
    let bytes = dist("steps");
    for bytes in [b"text".to_vec(), bytes.clone()] {
        let failure = look(nobody.clone(), bytes).expect_err("nobody can look");
        assert_eq!(failure.message, "a plugin's process cannot be started");
    }
    // Read there, and then run nowhere else.
    let directory = tempfile::tempdir().expect("directory");
    let (host, _) = looking(directory.path(), program("plugin"));
    let (plugin, nobody) = (run(host.load_apart("x", bytes)), Isolator::new(nobody));
    let failure = run(nobody.inspect(&plugin.expect("read"))).expect_err("nobody can run it");
    assert_eq!(failure.message, "a plugin's process cannot be started");
}

/// Not from the plugin: what its process says, once it is taken over.
#[test]
fn lies_end_it() {
    for lie in ["liar-other-answer", "liar-nested", "liar-names"] {
        let failure = look(program(lie), b"text".to_vec()).expect_err(lie);
        assert_eq!(failure.kind, FailureKind::Denied, "{lie}: {failure:?}");
        assert!(failure.message.starts_with("cannot look at x"), "{lie}: {failure}");
    }
}
