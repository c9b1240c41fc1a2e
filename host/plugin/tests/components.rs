//! The real components of this repository, over capabilities in memory.

mod common;

use std::sync::Arc;

use common::*;
use wbuild_api::extension::{LayerDescriptor, RecordEntry};
use wbuild_graph::{Attrs, CacheKey, Digest, FailureKind, Platform, ResultId, Severity};
use wbuild_plugin::{Grants, PluginHost, PluginHostOptions, PluginKind, PluginSource};

const STEPS: &str = "\
from alpine:3.20
workdir /src
copy . ./
env VERSION=$(cat version)
if test -x ./configure
run ./configure
else
run echo none
end
run make
cmd ./app
";

#[test]
fn a_frontend_makes_a_graph_and_yields_an_image() {
    let host = host();
    let frontend = load(&host, "steps").frontend().expect("a frontend");
    assert_eq!(frontend.identity().name, "steps");
    assert_eq!(frontend.identity().digest, Digest::of(&dist("steps")));
    assert_eq!(frontend.identity().wit_version, "0.1.0");

    let world = World::with(STEPS, &[], 2);
    run(frontend.build(world.host())).expect("it builds");
    let dump = world.dump();
    for part in [
        "image registry.test/alpine:3.20@sha256:",
        "cat version",
        "VERSION=1.2.3",
        "./configure",
        "make",
    ] {
        assert!(dump.contains(part), "{part} is missing in\n{dump}");
    }
    assert!(!dump.contains("echo none"), "the other branch was not taken:\n{dump}");
    let results = world.results.lock().expect("lock");
    let [image] = &results[..] else { panic!("one result: {results:?}") };
    assert!(image.starts_with("image \"\" linux/amd64 {"), "{image}");
    assert!(image.contains(r#""Cmd":["/bin/sh","-c","./app"]"#), "{image}");
    // Every node that people see has the line that made it.
    let definition = world.definition.lock().expect("lock");
    let run = definition.ids().find(|id| definition.meta(*id).name == "run make").expect("a node");
    let span = definition.meta(run).spans[0];
    let sources = world.sources.lock().expect("lock");
    let source = sources.get(span.source).expect("registered");
    assert_eq!(source.text[span.start as usize..span.end as usize], *b"run make");
}

#[test]
fn equal_runs_make_equal_graphs_and_share_nothing() {
    let host = host();
    let frontend = load(&host, "steps").frontend().expect("a frontend");
    let build = || async {
        let world = World::new(STEPS, &[]);
        frontend.build(world.host()).await.expect("it builds");
        (world.dump(), world.results.lock().expect("lock").clone())
    };
    let runtime = runtime();
    let first = runtime.block_on(build());
    let all: Vec<_> = runtime.block_on(async {
        let mut all = Vec::new();
        for _ in 0..20 {
            all.push(build().await);
        }
        all
    });
    assert!(all.iter().all(|run| *run == first));
}

#[test]
fn a_failure_of_the_host_comes_back_whole_with_the_line_that_asked() {
    let frontend = load(&host(), "steps").frontend().expect("a frontend");
    let world = World::new("from missing\n", &[]);
    let failure = run(frontend.build(world.host())).expect_err("there is no such image");
    assert_eq!(failure.kind, FailureKind::NotFound);
    assert_eq!(failure.message, "no image missing");
    assert_eq!(failure.hints, ["docker pull knows it?"]);
    assert_eq!(failure.diagnostics[0].labels[0].at.start, 0);
}

#[test]
fn nothing_is_compiled_or_written_before_the_first_build() {
    let dir = tempfile::tempdir().expect("directory");
    let code = dir.path().join("state/code");
    let host = PluginHost::new(PluginHostOptions::new(&code));
    let bytes: &'static [u8] = Box::leak(dist("steps").into_boxed_slice());
    let digest = Digest::of(bytes);
    let plugin = host.load("steps", PluginSource::Embedded { bytes, digest }).expect("it loads");
    let frontend = plugin.frontend().expect("a frontend");
    assert_eq!(frontend.identity().digest, digest);
    assert!(!code.exists(), "the identity costs nothing");
    run(frontend.build(World::new("from scratch\n", &[]).host())).expect("it builds");
    let files = |suffix: &str| {
        let entries = std::fs::read_dir(&code).expect("code cache");
        let names = entries.map(|e| e.expect("entry").file_name().into_string().expect("name"));
        names.filter(|name| name.ends_with(suffix)).count()
    };
    assert_eq!(files(".cwasm"), 1);
    assert_eq!(run(host.warm(&[plugin])).expect("warm").len(), 1);
    let again = PluginHost::new(PluginHostOptions::new(&code));
    let plugin = again.load("steps", dist("steps")).expect("it loads");
    assert_eq!(run(again.warm(&[plugin])).expect("warm"), [None], "loaded, not compiled");
}

#[test]
fn a_runner_offers_and_plans() {
    let runner = load(&host(), "native").runner().expect("a runner");
    let machine = Arc::new(Machine::default());
    run(async {
        let platforms =
            vec![Platform::new("linux", "amd64", None), Platform::new("linux", "riscv64", None)];
        let offers = runner.supports(machine.host(), platforms).await.expect("offers");
        assert_eq!(offers[0].as_ref().expect("native").how, "native");
        assert_eq!(offers[0].as_ref().expect("native").rank, 0);
        let refusal = offers[1].as_ref().expect_err("foreign");
        assert_eq!(refusal.kind, FailureKind::Unsupported);
        assert!(refusal.diagnostics[0].help.is_some(), "it says what to do: {refusal:?}");

        let plan = runner.make_plan(machine.host(), job("ok")).await.expect("a plan");
        assert_eq!(plan.spec, None, "the base spec");
        let mut foreign = job("ok");
        foreign.entry_format = vec!["elf:aarch64".to_owned()];
        let plan = runner.make_plan(machine.host(), foreign).await.expect("a plan");
        assert_eq!(plan.warnings[0].severity, Severity::Warning);
        let mut old = job("ok");
        old.platform = Platform::new("linux", "386", None);
        let plan = runner.make_plan(machine.host(), old).await.expect("a plan");
        assert_eq!(plan.personality.as_deref(), Some("linux32"));
    });
}

fn record(key: &str, layer: Digest) -> RecordEntry {
    RecordEntry {
        keys: vec![CacheKey(Digest::of(key.as_bytes()))],
        id: ResultId(Digest::of(b"result")),
        layers: vec![LayerDescriptor {
            media_type: "application/vnd.wbuild.snapshot.v1".to_owned(),
            digest: layer,
            size: 5,
            diff_id: None,
            uncompressed_size: None,
            attrs: Attrs::default(),
        }],
        created: 1_700_000_000,
        attrs: Attrs(vec![("kind".to_owned(), "result".to_owned())]),
    }
}

#[test]
fn a_cache_backend_keeps_records_between_connections() {
    let cache = load(&host(), "cache-local").cache().expect("a cache backend");
    let storage = Arc::new(Storage::default());
    let layer = storage.put(b"layer");
    let (key, other) = (CacheKey(Digest::of(b"key")), CacheKey(Digest::of(b"other")));
    run(async {
        let writer = cache.connect(storage.host()).await.expect("an instance");
        writer.open("write".to_owned(), Attrs::default()).await.expect("open");
        writer.save(vec![record("key", layer)]).await.expect("save");
        writer.commit().await.expect("commit");

        let reader = cache.connect(storage.host()).await.expect("an instance");
        reader.open("read".to_owned(), Attrs::default()).await.expect("open");
        let found = reader.find(vec![key, other]).await.expect("find");
        assert_eq!(found, [vec![record("key", layer)], Vec::new()]);
        let gone = LayerDescriptor { digest: Digest::of(b"gone"), ..found[0][0].layers[0].clone() };
        let fetched = reader.fetch(vec![found[0][0].layers[0].clone(), gone]).await.expect("fetch");
        assert_eq!(fetched[0], Ok(()));
        assert_eq!(fetched[1].as_ref().expect_err("gone").kind, FailureKind::Gone);
        let refused = reader.save(vec![record("key", layer)]).await.expect_err("read only");
        assert_eq!(refused.kind, FailureKind::Denied);
        // A refusal is an answer: the instance lives on.
        assert_eq!(reader.find(vec![key]).await.expect("find").len(), 1);
    });
}

#[test]
fn inspect_says_what_a_component_is() {
    let host = host();
    for (name, kind, import) in [
        ("steps", PluginKind::Frontend, "wbuild:frontend/graph@0.1.0"),
        ("native", PluginKind::Runner, "wbuild:runner/machine@0.1.0"),
        ("qemu", PluginKind::Runner, "wbuild:runner/machine@0.1.0"),
        ("cache-local", PluginKind::Cache, "wbuild:cache/kv@0.1.0"),
    ] {
        let info = run(load(&host, name).inspect()).expect(name);
        assert_eq!(info.kinds, [kind]);
        assert_eq!(info.size, dist(name).len() as u64);
        assert!(info.imports.iter().any(|i| i == import), "{:?}", info.imports);
        assert!(info.imports.iter().all(|i| i.starts_with("wbuild:")), "{:?}", info.imports);
        assert!(info.packages.iter().all(|(_, version)| version == "0.1.0"));
        assert!(!info.abilities.is_empty());
        assert_eq!(info.refusal, None);
        assert!(info.load_time.is_some() && info.instantiate_time.is_some(), "{info:?}");
        assert_eq!(info.code_cache_note, None);
    }
}

#[test]
fn a_frontend_hands_work_to_another_and_uses_what_comes_back() {
    let plugin = load(&host(), "earthfile");
    let failure = plugin.frontend().map(drop).expect_err("it has no grant");
    assert_eq!(failure.kind, FailureKind::Denied);
    let frontend = plugin
        .granted(Grants { nested: true, ..Grants::default() })
        .frontend()
        .expect("it has one");
    let file = "VERSION 0.8\nFROM DOCKERFILE --build-arg A=1 --target t .\nRUN after\n";
    let mut world = Arc::into_inner(World::with(file, &[], 2)).expect("the only one");
    world.files.insert("/Dockerfile".to_owned(), b"FROM x".to_vec());
    let world = Arc::new(world);
    run(frontend.build(world.host())).expect("it builds");
    let results = world.results.lock().expect("lock");
    let [asked, image] = &results[..] else { panic!("{results:?}") };
    for part in [
        "frontend: \"dockerfile\", definition: Some((\"Dockerfile\", [70, 82, 79, 77, 32, 120]))",
        "contexts: [(\"context\", NestedContext { root: ",
        "handed_on: [], targets: [\"t\"], platforms: [Platform { os: \"linux\", architecture: \"amd64\"",
        "options: Attrs([(\"build-arg:A\", \"1\")]), asked_at: [Span { source: 0, start: 12, end: 56 }]",
    ] {
        assert!(asked.contains(part), "{part} is missing in\n{asked}");
    }
    assert!(image.starts_with("image \"\" linux/amd64 {"), "{image}");
    assert!(image.contains(r#""Env":["PATH=/bin"]"#), "{image}");
    assert!(world.dump().contains("after"), "{}", world.dump());
}
