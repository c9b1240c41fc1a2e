//! What a child says that has been taken over: each lie ends it, or is worth no more than a guest's.

#[path = "../../plugin/tests/common/mod.rs"]
mod common;
mod support;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use support::*;
use wbuild_api::extension::{CacheBackend, CachePlugin, Frontend, Runner};
use wbuild_graph::{Failure, FailureKind};
use wbuild_isolate::Isolator;
use wbuild_plugin::{PluginHost, PluginHostOptions};

fn liar(behaviour: &str) -> Isolator {
    Isolator::new(program(&format!("liar-{behaviour}")))
}

fn frontend(behaviour: &str) -> Arc<dyn Frontend> {
    let host = frontend_host(|limits| {
        limits.messages = 200;
        limits.log_lines = 20;
        limits.buffered_bytes = 16 << 20;
    });
    liar(behaviour).frontend(&load(&host, "hostile-frontend")).expect("a frontend")
}

fn runner(behaviour: &str) -> Arc<dyn Runner> {
    let mut options = PluginHostOptions::new(code_cache());
    options.runner_limits.wall = Some(Duration::from_millis(200));
    let host = PluginHost::new(options);
    liar(behaviour).runner(&load(&host, "hostile-runner")).expect("a runner")
}

fn cause(failure: &Failure) -> &str {
    failure.causes.first().map_or("", String::as_str)
}

#[test]
fn a_lying_frontend_is_ended() {
    let name = "the frontend hostile-frontend";
    let liar = format!("{name} said what no frontend can say");
    let cases: Vec<(&str, FailureKind, String, &str)> = vec![
        ("length", FailureKind::Denied, liar.clone(), "it would take too much memory"),
        ("garbage", FailureKind::Denied, liar.clone(), "it has a type that is never sent"),
        ("grows", FailureKind::Denied, liar.clone(), "it would take too much memory"),
        ("no-message", FailureKind::Denied, liar.clone(), "it is no message that is known"),
        (
            "nested",
            FailureKind::Denied,
            liar.clone(),
            "a call of another frontend, which it was not granted",
        ),
        ("other-kind", FailureKind::Denied, liar.clone(), "a call of another kind of plugin"),
        (
            "unknown-key",
            FailureKind::Denied,
            liar.clone(),
            "exec-op.attrs does not know the key \"client\"",
        ),
        (
            "capture",
            FailureKind::Denied,
            liar.clone(),
            "exec-op.capture keeps at most 1048576 bytes, not 99000000",
        ),
        (
            "diagnostics",
            FailureKind::Limit,
            format!("{name} reported more than 200 diagnostics and results"),
            "",
        ),
        ("other-answer", FailureKind::Internal, format!("{name} answered another question"), ""),
        (
            "closes",
            FailureKind::Internal,
            format!("the process of {name} ended early (exit status: 7)"),
            "",
        ),
    ];
    run(async {
        for (behaviour, kind, message, why) in cases {
            let world = World::new("", &[]);
            let failure = frontend(behaviour).build(world.host()).await.expect_err(behaviour);
            assert_eq!(failure.message, message, "{behaviour}: {failure:?}");
            assert_eq!(failure.kind, kind, "{behaviour}");
            assert_eq!(cause(&failure), why, "{behaviour}");
            assert_eq!(failure.attrs.get("plugin"), Some("hostile-frontend"), "{behaviour}");
            assert_eq!(world.definition.lock().expect("lock").len(), 0, "{behaviour}");
        }
    });
}

#[test]
fn what_a_guest_may_say_too_is_worth_as_much() {
    run(async {
        let world = World::new("", &[]);
        frontend("good-exec").build(world.host()).await.expect("nothing is wrong with it");
        assert_eq!(world.definition.lock().expect("lock").len(), 1);

        // The graph says no; the answer is the guest's to read, and here it does not care.
        let world = World::new("", &[]);
        frontend("forged-edge").build(world.host()).await.expect("it goes on");
        assert!(world.results.lock().expect("lock").is_empty());

        let world = World::new("", &[]);
        frontend("log").build(world.host()).await.expect("it goes on");
        let log = std::mem::take(&mut *world.log.lock().expect("lock"));
        assert_eq!(log.len(), 21);
        assert!(log.iter().all(|(_, text)| text.len() <= 4110), "lines are cut");

        let failure = frontend("failure").build(world.host()).await.expect_err("as it says");
        assert_eq!(failure.kind, FailureKind::Gone);
        assert!(failure.message.len() < 70_000, "{}", failure.message.len());
    });
}

#[test]
fn a_lying_runner_launches_nothing() {
    let name = "the runner hostile-runner";
    run(async {
        for (behaviour, message, why) in [
            ("spec", format!("{name} made a plan that the clamp has not seen"), ""),
            ("tool", format!("{name} uses the tool \"qemu\", which it was not given"), ""),
            (
                "personality",
                format!("{name} made an invalid plan: unknown personality \"vax\""),
                "",
            ),
            (
                "clamp-tool",
                format!("{name} said what no runner can say"),
                "a tool that it was not given",
            ),
            ("silent", format!("{name} took longer than 200 ms for one call"), ""),
        ] {
            let machine = Arc::new(Machine::default());
            let planned = runner(behaviour).make_plan(machine.host(), job("ok")).await;
            let failure = planned.expect_err(behaviour);
            assert_eq!((failure.message.as_str(), cause(&failure)), (message.as_str(), why));
        }
    });
}

#[test]
fn a_lying_cache_backend_reaches_nothing() {
    let cache = |behaviour: &str| -> Arc<dyn CachePlugin> {
        liar(behaviour).cache(&load(&host(), "hostile-cache")).expect("a cache backend")
    };
    run(async {
        for (behaviour, why) in [
            ("bucket", "\"../x\" is no name for a bucket"),
            ("unopened", "a bucket that was not opened"),
            ("repository", "a repository, which it was not granted"),
            ("http", "an answer of a server that it does not have"),
        ] {
            let storage = Arc::new(Storage::default());
            let connected = cache(behaviour).connect(storage.host()).await;
            let failure = connected.map(|_: Arc<dyn CacheBackend>| ()).expect_err(behaviour);
            assert_eq!(cause(&failure), why, "{behaviour}: {failure:?}");
            assert!(storage.buckets.lock().expect("lock").is_empty(), "{behaviour}");
        }
    });
}
