//! Components written by hand: what the border of a component may be, and how each kind of end
//! reads.

#[path = "../../plugin/tests/common/mod.rs"]
mod common;
mod support;

use std::time::Duration;

use common::*;
use support::*;
use wbuild_graph::{Failure, FailureKind};
use wbuild_plugin::{PluginHost, PluginHostOptions};

fn plain(module: &str) -> String {
    wat_frontend("", module, "")
}

/// A frontend that succeeds.
const GOOD: &str =
    r#"(memory (export "mem") 1) (func $build (export "build") (result i32) i32.const 0)"#;

fn small_host() -> PluginHost {
    frontend_host(|limits| limits.cpu = Duration::from_millis(200))
}

async fn run_text(host: &PluginHost, text: &str) -> Result<(), Failure> {
    let frontend = host.load("x", wat(text))?.frontend_there()?;
    frontend.build(World::new("", &[]).host()).await
}

const BUG: &str = "\n  hint: this is a bug of the frontend, not of the build it was run for";

fn every_end_of_a_guest_has_its_words() {
    let body = |code: &str| {
        plain(&format!(
            r#"(memory (export "mem") 1) (table 1 funcref) (type $t (func))
            (func $build (export "build") (result i32) {code} i32.const 0)"#
        ))
    };
    let crashed = |cause: &str, stack: &str| {
        format!("the frontend x crashed\n  because: wasm trap: {cause}\n  because: {stack}{BUG}")
    };
    let store = |at: u32, value: u32| format!("(i32.store8 (i32.const {at}) (i32.const {value}))");
    let many_instances = (0..120)
        .map(|n| format!("(core instance $i{n} (instantiate $empty))"))
        .collect::<Vec<_>>()
        .join("\n");
    let cases: Vec<(&str, FailureKind, String, String)> = vec![
        (
            "a trap names the functions it happened in",
            FailureKind::Internal,
            plain(
                r#"(memory (export "mem") 1)
                (func $explode unreachable) (func $plan call $explode)
                (func $build (export "build") (result i32) call $plan i32.const 0)"#,
            ),
            crashed(
                "wasm `unreachable` instruction executed",
                "in `explode`, called by `plan`, called by `build`",
            ),
        ),
        (
            "out of bounds",
            FailureKind::Internal,
            body("(drop (i32.load (i32.const -4)))"),
            "the frontend x crashed".to_owned(),
        ),
        (
            "an empty table slot",
            FailureKind::Internal,
            body("(call_indirect (type $t) (i32.const 0))"),
            crashed("uninitialized element", "in `build`"),
        ),
        (
            "division by zero",
            FailureKind::Internal,
            body("(drop (i32.div_u (i32.const 1) (i32.const 0)))"),
            crashed("integer divide by zero", "in `build`"),
        ),
        (
            "recursion",
            FailureKind::Internal,
            plain(
                r#"(memory (export "mem") 1)
                (func $deep (param i64) (result i64)
                  (i64.add (local.get 0) (call $deep (i64.add (local.get 0) (i64.const 1)))))
                (func $build (export "build") (result i32)
                  (drop (call $deep (i64.const 0))) i32.const 0)"#,
            ),
            format!(
                "the frontend x overflowed its stack\n  because: wasm trap: call stack exhausted\n  \
                 because: in {}, called by more{BUG}",
                ["`deep`"; 10].join(", called by ")
            ),
        ),
        (
            "an endless loop",
            FailureKind::Limit,
            body("(loop $again br $again)"),
            "the frontend x used more than 200 ms of processor time".to_owned(),
        ),
        (
            "an endless loop while it is instantiated",
            FailureKind::Limit,
            plain(&format!("{GOOD} (func $spin (loop $again br $again)) (start $spin)")),
            "the frontend x used more than 200 ms of processor time".to_owned(),
        ),
        (
            "memory taken in small pieces",
            FailureKind::Limit,
            body("(loop $again (br_if $again (memory.grow (i32.const 16))))"),
            "the frontend x needs more than 256 MiB of memory".to_owned(),
        ),
        (
            "memory taken at once",
            FailureKind::Limit,
            body("(drop (memory.grow (i32.const 65000)))"),
            "the frontend x needs more than 256 MiB of memory".to_owned(),
        ),
        (
            "memory wanted from the start",
            FailureKind::Limit,
            plain(
                r#"(memory (export "mem") 20000)
                (func $build (export "build") (result i32) i32.const 0)"#,
            ),
            "the frontend x needs more than 256 MiB of memory".to_owned(),
        ),
        (
            "a table wanted from the start",
            FailureKind::Limit,
            plain(&format!("{GOOD} (table 5000000 funcref)")),
            "the frontend x needs tables of more than 200000 elements".to_owned(),
        ),
        (
            "handles of its own",
            FailureKind::Limit,
            wat_frontend(
                "(type $r (resource (rep i32))) (core func $new (canon resource.new $r))
                (core instance $h (export \"new\" (func $new)))",
                r#"(import "h" "new" (func $new (param i32) (result i32)))
                (memory (export "mem") 1)
                (func $build (export "build") (result i32)
                  (loop $again (drop (call $new (i32.const 1))) br $again) i32.const 0)"#,
                r#"(with "h" (instance $h))"#,
            ),
            "the frontend x holds more than 20000 handles at once".to_owned(),
        ),
        (
            "too many instances",
            FailureKind::Limit,
            wat_frontend(&format!("(core module $empty) {many_instances}"), GOOD, ""),
            "the frontend x has more than 100 core instances, memories or tables".to_owned(),
        ),
        (
            "an answer outside of its memory",
            FailureKind::Internal,
            plain(
                r#"(memory (export "mem") 1)
                (func $build (export "build") (result i32) i32.const 0x7ffffff0)"#,
            ),
            "the frontend x ".to_owned(),
        ),
        (
            "an answer that is no result",
            FailureKind::Internal,
            body(&store(0, 7)),
            "the frontend x ".to_owned(),
        ),
        (
            "a failure whose message is outside of its memory",
            FailureKind::Internal,
            body(&format!(
                "{} (i32.store (i32.const 12) (i32.const -1)) (i32.store (i32.const 16) \
                 (i32.const -1))",
                store(0, 1)
            )),
            "the frontend x ".to_owned(),
        ),
    ];
    let host = small_host();
    run(async {
        for (name, kind, text, message) in cases {
            let failure = run_text(&host, &text).await.expect_err(name);
            let rendered = render(&failure);
            // Where wasmtime's own words follow, only ours are pinned.
            assert!(rendered.starts_with(&message), "{name}:\n{rendered}\n---\n{message}");
            assert_eq!(failure.kind, kind, "{name}: {rendered}");
            assert_eq!(failure.attrs.get("plugin"), Some("x"), "{name}");
            run_text(&host, &plain(GOOD)).await.expect("the next one");
        }
    });
}

fn what_does_not_fit_is_told_before_it_runs() {
    let log = |function: &str| {
        wat_frontend(
            &format!("(import \"wbuild:types/log@0.1.0\" (instance $log {function}))"),
            GOOD,
            "",
        )
    };
    let cases = [
        (
            "a function that this version does not have",
            FailureKind::Unsupported,
            log(r#"(export "shout" (func (param "text" string)))"#),
            "the frontend x needs a newer wbuild",
        ),
        (
            "a function of another type",
            FailureKind::Invalid,
            log(r#"(export "log" (func (param "text" string)))"#),
            "the frontend x does not fit this wbuild",
        ),
        (
            "an export of another type",
            FailureKind::Invalid,
            r#"(component
              (core module $m (func (export "build") (result i32) i32.const 0))
              (core instance $i (instantiate $m))
              (func $f (result u32) (canon lift (core func $i "build")))
              (instance $b (export "build" (func $f)))
              (export "wbuild:frontend/build@0.1.0" (instance $b)))"#
                .to_owned(),
            "the frontend x does not fit this wbuild",
        ),
        (
            "an export that is no interface of ours",
            FailureKind::Invalid,
            r#"(component
              (instance $b) (export "wbuild:frontend/build@0.1.0" (instance $b)))"#
                .to_owned(),
            "the frontend x does not fit this wbuild",
        ),
        (
            "threads",
            FailureKind::Invalid,
            plain(
                r#"(memory (export "mem") 1 1 shared)
                (func $build (export "build") (result i32) i32.const 0)"#,
            ),
            "the frontend x is not a valid WebAssembly component",
        ),
        (
            "64 bit memory",
            FailureKind::Invalid,
            plain(&format!("{GOOD} (memory i64 1)")),
            "the frontend x is not a valid WebAssembly component",
        ),
        (
            "a core module to be given",
            FailureKind::Denied,
            wat_frontend(r#"(import "engine" (core module))"#, GOOD, ""),
            "the frontend x imports engine, which wbuild does not offer",
        ),
    ];
    let host = small_host();
    run(async {
        for (name, kind, text, message) in cases {
            let failure = run_text(&host, &text).await.expect_err(name);
            assert_eq!(failure.message, message, "{name}: {}", render(&failure));
            assert_eq!(failure.kind, kind, "{name}");
        }
        run_text(&host, &plain(GOOD)).await.expect("a good one");
    });
}

fn truncated_components_are_refused() {
    let dir = tempfile::tempdir().expect("directory");
    let host = PluginHost::new(PluginHostOptions::new(dir.path().join("code")));
    let whole = dist("native");
    run(async {
        let mut refused = 0;
        for part in 0..60 {
            let bytes = whole[..whole.len() * part / 60].to_vec();
            let Ok(plugin) = host.load("x", bytes) else {
                refused += 1;
                continue;
            };
            // At the end of a section it is a component, and then lacks what comes after.
            let Ok(runner) = plugin.runner_there() else {
                refused += 1;
                continue;
            };
            let machine = std::sync::Arc::new(Machine::default());
            let _ = runner.make_plan(machine.host(), job("ok")).await;
        }
        assert!(refused >= 55, "{refused} of 60");
    });
}

fn damaged_components_never_end_the_process() {
    let dir = tempfile::tempdir().expect("directory");
    let mut options = PluginHostOptions::new(dir.path().join("code"));
    options.frontend_limits.cpu = Duration::from_millis(100);
    let host = PluginHost::new(options);
    let whole = wat(&plain(GOOD));
    run(async {
        let mut refused = 0;
        for at in 0..150 {
            let mut bytes = whole.clone();
            let place = at * bytes.len() / 150;
            bytes[place] ^= 1 << (at % 8);
            let result = match host.load("x", bytes).and_then(|plugin| plugin.frontend_there()) {
                Ok(frontend) => frontend.build(World::new("", &[]).host()).await,
                Err(failure) => Err(failure),
            };
            refused += usize::from(result.is_err());
        }
        assert!(refused > 75, "{refused} of 150");
        run_text(&host, &plain(GOOD)).await.expect("the undamaged one");
    });
}

fn files_that_cannot_be_plugins_say_why() {
    let host = host();
    let dir = tempfile::tempdir().expect("directory");
    let path = |name: &str| dir.path().join(name);
    let refuse = |name: &str| host.load(name, path(name)).err().expect(name);

    let failure = refuse("missing.wasm");
    assert_eq!(failure.kind, FailureKind::NotFound);
    let shown = path("missing.wasm");
    assert_eq!(failure.message, format!("cannot read the plugin {}", shown.display()));

    std::fs::write(path("script.wasm"), "#!/bin/sh\n").expect("write");
    assert_eq!(refuse("script.wasm").message, "script.wasm is not a valid WebAssembly component");

    std::fs::write(path("core.wasm"), wat("(module)")).expect("write");
    assert_eq!(
        render(&refuse("core.wasm")),
        "core.wasm is a core WebAssembly module, not a component\n  hint: link it with \
         wasm-component-ld, or run `wasm-tools component new`"
    );

    std::fs::create_dir(path("folder.wasm")).expect("mkdir");
    assert_eq!(refuse("folder.wasm").kind, FailureKind::Unavailable);

    // Sparse: its size is all that is looked at.
    let large = std::fs::File::create(path("large.wasm")).expect("create");
    large.set_len(40 << 20).expect("size");
    let failure = refuse("large.wasm");
    assert_eq!(failure.kind, FailureKind::Limit);
    assert_eq!(failure.message, "the component large.wasm is 40 MiB large, more than 32 MiB");
}

both!(
    every_end_of_a_guest_has_its_words,
    what_does_not_fit_is_told_before_it_runs,
    truncated_components_are_refused,
    damaged_components_never_end_the_process,
    files_that_cannot_be_plugins_say_why,
);
