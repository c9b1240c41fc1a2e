//! Guests that misbehave: each ends in a message that says what it did, and the next run works.

#[path = "../../plugin/tests/common/mod.rs"]
mod common;
mod support;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use support::versions::component;
use support::*;
use wbuild_api::describe::{Description, MethodInfo, Query};
use wbuild_api::extension::{CacheBackend, Entry, Frontend, Outcome};
use wbuild_graph::{Attrs, CacheKey, Digest, Failure, FailureKind};
use wbuild_plugin::{PluginHost, PluginHostOptions};

const MIB: usize = 1 << 20;

/// What a guest may compute whose other limits are tried: slow machines reach those in time.
const PATIENT: Duration = Duration::from_secs(60);
/// What one may compute that computes for ever.
const SHORT: Duration = Duration::from_millis(500);

fn hostile(cpu: Duration) -> Arc<dyn Frontend> {
    let host = frontend_host(|limits| {
        limits.cpu = cpu;
        limits.buffered_bytes = 16 * MIB;
        limits.handles = 500;
        limits.messages = 200;
        limits.log_lines = 20;
        limits.log_line_bytes = 5;
    });
    component(&host, "hostile-frontend").frontend_there().expect("a frontend")
}

/// What a frontend is answered counts as what is held for it: as long as it is, or has a handle of it.
fn answers_have_a_bound_in_bytes() {
    let outcome = Outcome { stdout: vec![b'x'; MIB - size_of::<Outcome>()], ..Outcome::default() };
    let outcome = Arc::new(outcome);
    let cases = [
        // 16 MiB, in answers of 1 MiB and of 4 KiB.
        ("outcomes", 16, None),
        ("outcomes", 17, Some("makes the host hold more than 16 MiB for it")),
        ("list", 4096, None),
        ("list", 4097, Some("makes the host hold more than 16 MiB for it")),
    ];
    // Of a frontend that may have more: 24 MiB in one call.
    let more =
        [("list", 6144, None), ("list", 6145, Some("asks for more than 24 MiB in one call"))];
    let usual = component(&frontend_host(|limits| limits.cpu = PATIENT), "hostile-frontend");
    let usual = usual.frontend_there().expect("a frontend");
    let small = hostile(PATIENT);
    let cases = cases.into_iter().map(|case| (&small, case));
    for (frontend, (behaviour, count, limit)) in
        cases.chain(more.into_iter().map(|case| (&usual, case)))
    {
        let name = format!("{count} {behaviour}");
        let count = count.to_string();
        let mut world = World::new("", &[("behaviour", behaviour), ("count", &count)]);
        let facts = Arc::get_mut(&mut world).expect("nobody else has it");
        facts.outcome = Arc::clone(&outcome);
        facts.listed = 4096 - size_of::<Entry>();
        let ended = run(frontend.build(world.host())).map_err(|failure| failure.message);
        let limit = limit.map(|words| format!("the frontend hostile-frontend {words}"));
        assert_eq!(ended.err(), limit, "{name}");
    }
}

/// An op is passed on at once, however it was collected. An isolated frontend has less room for one
/// op, but what it says is no attack.
fn large_ops_meet_a_limit() {
    let host = frontend_host(|limits| limits.cpu = PATIENT);
    let frontend = component(&host, "hostile-frontend").frontend_there().expect("a frontend");
    let graph = "the graph has more than 1048576 bytes";
    let held = "the frontend hostile-frontend makes the host hold more than 64 MiB for it";
    for (behaviour, count, isolated_too) in [
        ("pieces", "40", true),
        ("pieces", "60", false),
        ("crumbs", "50000", true),
        ("crumbs", "120000", false),
    ] {
        let world = World::new("", &[("behaviour", behaviour), ("count", count)]);
        let failure = run(frontend.build(world.host())).expect_err(behaviour);
        let message = if isolated() && !isolated_too { held } else { graph };
        assert_eq!(failure.message, message, "{count} {behaviour}: {failure:?}");
        assert_eq!(failure.kind, FailureKind::Limit);
    }
}

async fn build(frontend: &Arc<dyn Frontend>, behaviour: &str) -> (Arc<World>, Result<(), Failure>) {
    let world = World::new("", &[("behaviour", behaviour), ("kind", "gone")]);
    let result = frontend.build(world.host()).await;
    (world, result)
}

/// Without what names functions of the guest, which change with its compiler; and without the way to
/// more, which goes with every limit that can be set.
fn without_stack(failure: &Failure) -> String {
    let mut failure = failure.clone();
    failure.causes.retain(|cause| !cause.starts_with("in "));
    let hints = failure.hints.len();
    failure.hints.retain(|hint| !hint.contains("the policy for plugins can give it: limits = {"));
    let settable = ["processor time", "MiB of memory", "the host hold", "handles at once"];
    let limit = settable.iter().any(|words| failure.message.contains(words));
    assert_eq!(hints > failure.hints.len(), limit, "{failure}");
    render(&failure)
}

const BUG: &str = "\n  hint: this is a bug of the frontend, not of the build it was run for";

fn a_hostile_frontend_ends_in_words_and_the_next_build_works() {
    use FailureKind::*;
    let crash = |cause: &str| {
        format!("the frontend hostile-frontend crashed\n  because: wasm trap: {cause}{BUG}")
    };
    let limit = |what: &str| format!("the frontend hostile-frontend {what}");
    let cases: Vec<(&str, FailureKind, String)> = vec![
        ("fail", Gone, "failed as it was told to".to_owned()),
        ("trap", Internal, crash("wasm `unreachable` instruction executed")),
        ("spin", Limit, limit("used more than 500 ms of processor time")),
        ("spin-host-calls", Limit, limit("used more than 500 ms of processor time")),
        // The stack that compilers keep in linear memory ends before the machine's does.
        ("recursion", Internal, crash("out of bounds memory access")),
        ("alloc", Limit, limit("needs more than 256 MiB of memory")),
        ("huge-string", Limit, limit("makes the host hold more than 16 MiB for it")),
        ("handle-flood", Limit, limit("holds more than 500 handles at once")),
        ("flood-diagnostics", Limit, limit("reported more than 200 diagnostics and results")),
        ("flood-sources", Limit, limit("makes the host hold more than 16 MiB for it")),
        ("deep-graph", Limit, "the graph has more than 1000 nodes".to_owned()),
        ("wide-graph", Limit, limit("makes the host hold more than 16 MiB for it")),
        ("big-file", Limit, limit("makes the host hold more than 16 MiB for it")),
        ("forged-output", Invalid, "there is no node 999 in this graph".to_owned()),
        ("forged-index", Invalid, "node 0 has 1 outputs, there is no output 7".to_owned()),
        ("read-path", Denied, "../../etc/passwd leads out of the tree".to_owned()),
        ("bad-path", Invalid, "a path has a NUL byte: \"/a\\0b\"".to_owned()),
        ("empty-exec", Invalid, "a process needs at least one argument".to_owned()),
        (
            "bad-config",
            Invalid,
            "the image config is not JSON\n  because: EOF while parsing an object at line 1 \
             column 1"
                .to_owned(),
        ),
    ];
    let (patient, short) = (hostile(PATIENT), hostile(SHORT));
    run(async {
        for (behaviour, kind, message) in cases {
            let frontend = if behaviour.starts_with("spin") { &short } else { &patient };
            let (_, result) = build(frontend, behaviour).await;
            let failure = result.expect_err(behaviour);
            assert_eq!(without_stack(&failure), message, "{behaviour}");
            assert_eq!(failure.kind, kind, "{behaviour}");
            let (world, result) = build(frontend, "ok").await;
            assert_eq!(result, Ok(()), "after {behaviour}");
            assert_eq!(world.results.lock().expect("lock").len(), 1, "after {behaviour}");
        }
    });
}

/// Every question a frontend can be asked.
fn queries() -> [Query; 5] {
    let args = Attrs(vec![("key".to_owned(), "value".to_owned())]);
    [
        Query::Check { target: None },
        Query::Targets,
        Query::Outline { target: None },
        Query::Methods,
        Query::Call { method: "echo".to_owned(), target: None, args },
    ]
}

fn a_hostile_frontend_that_is_asked_ends_in_words() {
    use FailureKind::*;
    let crash = format!(
        "the frontend hostile-frontend crashed\n  because: wasm trap: wasm `unreachable` \
         instruction executed{BUG}"
    );
    let limit = |what: &str| format!("the frontend hostile-frontend {what}");
    let (patient, short) = (hostile(PATIENT), hostile(SHORT));
    run(async {
        for query in queries() {
            let ask = async |behaviour: &str| {
                let frontend = if behaviour == "spin" { &short } else { &patient };
                let world = World::new("", &[("behaviour", behaviour), ("kind", "gone")]);
                frontend.describe(world.host(), query.clone()).await
            };
            let mut cases = vec![
                ("trap", Internal, crash.clone()),
                ("spin", Limit, limit("used more than 500 ms of processor time")),
                ("huge-answer", Limit, limit("makes the host hold more than 16 MiB for it")),
            ];
            let many = |what: &str| limit(&format!("answers 20000 {what}, more than 10000"));
            match query {
                Query::Check { .. } => {
                    let message = limit("reported more than 200 diagnostics and results");
                    cases.push(("many-answers", Limit, message));
                }
                Query::Targets => cases.push(("many-answers", Limit, many("targets"))),
                Query::Outline { .. } => cases.push(("many-answers", Limit, many("parameters"))),
                Query::Methods => cases.push(("many-answers", Limit, many("methods"))),
                Query::Call { .. } => {}
            }
            cases.push(("fail", Gone, "failed as it was told to".to_owned()));
            for (behaviour, kind, message) in cases {
                let failure = ask(behaviour).await.expect_err(behaviour);
                assert_eq!(without_stack(&failure), message, "{query:?} {behaviour}");
                assert_eq!(failure.kind, kind, "{query:?} {behaviour}");
                ask("ok").await.unwrap_or_else(|e| panic!("{query:?} after {behaviour}: {e}"));
            }
            ask("forged-span").await.unwrap_or_else(|e| panic!("{query:?}: {e}"));
        }
    });
}

fn answers_of_a_frontend_are_kept_and_cut() {
    let frontend = hostile(PATIENT);
    assert!(frontend.describes());
    let ask = async |behaviour: &str, query: Query| {
        let world = World::new("", &[("behaviour", behaviour)]);
        frontend.describe(world.host(), query).await.expect(behaviour)
    };
    run(async {
        let [_, targets, outline, methods, call] = queries();
        let Description::Outline(answer) = ask("ok", outline.clone()).await else { panic!() };
        assert_eq!(answer.target.map(|target| target.name), Some("x".to_owned()));
        assert_eq!(answer.parameters[0].kind, "arg");
        // The only target has another name.
        let other = Query::Outline { target: Some("y".to_owned()) };
        let Description::Outline(answer) = ask("ok", other).await else { panic!() };
        assert_eq!(answer.target, None);
        let methods = ask("ok", methods).await;
        let method = MethodInfo { name: "x".to_owned(), summary: "x".to_owned() };
        assert_eq!(methods, Description::Methods { methods: vec![method] });
        let output = r#"echo [("key", "value")]"#.to_owned();
        assert_eq!(ask("ok", call).await, Description::Call { output });

        let Description::Targets { targets } = ask("long-texts", targets).await else { panic!() };
        assert!(targets[0].summary.len() < 70_000 && targets[0].summary.ends_with('…'));
    });
}

fn a_frontend_without_the_export_says_what_it_can_do() {
    let steps = load(&host(), "steps").frontend_there().expect("a frontend");
    assert!(!steps.describes());
    run(async {
        for (query, said) in [
            (Query::Check { target: None }, "check a definition"),
            (Query::Targets, "list targets"),
            (
                Query::Call { method: "x".to_owned(), target: None, args: Attrs::default() },
                "answer \"x\"",
            ),
        ] {
            let world = World::new("from scratch\n", &[]);
            let failure = steps.describe(world.host(), query).await.expect_err(said);
            assert_eq!(failure.kind, FailureKind::Unsupported);
            assert_eq!(
                render(&failure),
                format!(
                    "the frontend steps cannot {said}\n  hint: it can only build: it has no \
                     export wbuild:frontend/describe"
                )
            );
        }
    });
}

fn abuse_of_the_component_abi_ends_the_guest() {
    let frontend = hostile(PATIENT);
    run(async {
        for (behaviour, cause) in [
            ("bad-utf8", "invalid utf-8"),
            ("early-drop", "unknown handle index"),
            ("forged-handle", "unknown handle index 12345"),
        ] {
            let (_, result) = build(&frontend, behaviour).await;
            let failure = result.expect_err(behaviour);
            assert_eq!(failure.message, "the frontend hostile-frontend was ended", "{behaviour}");
            assert_eq!(failure.kind, FailureKind::Internal);
            assert!(failure.causes[0].contains(cause), "{behaviour}: {:?}", failure.causes);
        }
        let (world, result) = build(&frontend, "unknown-key").await;
        let failure = result.expect_err("an unknown key");
        assert_eq!(failure.message, "graph.image does not know the key \"no-such-key\"");
        assert_eq!(failure.hints, ["known keys: resolve, checksum, store"]);
        assert!(world.results.lock().expect("lock").is_empty());
        // Spans are checked where they are drawn; the build goes on.
        let (world, result) = build(&frontend, "forged-span").await;
        assert_eq!(result, Ok(()));
        assert_eq!(world.diagnostics.lock().expect("lock").len(), 3);
        let (world, result) = build(&frontend, "nothing").await;
        assert_eq!(result, Ok(()));
        assert!(world.results.lock().expect("lock").is_empty());
    });
}

fn a_flood_of_log_lines_is_cut_off_once_and_said_so() {
    let frontend = hostile(SHORT);
    let (world, result) = run(build(&frontend, "flood-log"));
    if let Err(failure) = result {
        assert!(failure.message.ends_with("of processor time"), "{failure}");
    }
    let log = world.log.lock().expect("lock");
    assert_eq!(log.len(), 21);
    assert_eq!(log[19].1, "line …", "long lines are cut");
    assert_eq!(log[20].1, "more than 20 messages; the rest is dropped");
}

fn a_guest_that_computes_for_ever_does_not_hold_the_executor() {
    // One worker thread: if the guest held it, nothing else would run.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("rt");
    let frontend = hostile(SHORT);
    runtime.block_on(async {
        frontend.build(World::new("", &[("behaviour", "ok")]).host()).await.expect("warm");
        let world = World::new("", &[("behaviour", "spin")]);
        let mut build = frontend.build(world.host());
        let mut beats = 0;
        let result = loop {
            tokio::select! {
                result = &mut build => break result,
                () = tokio::time::sleep(Duration::from_millis(5)) => beats += 1,
            }
        };
        assert!(result.is_err());
        // Held, it would be none; half a second of computing has many ticks.
        assert!(beats >= 4, "{beats} beats");
    });
}

fn a_wait_for_the_host_is_not_processor_time() {
    let host = frontend_host(|limits| limits.cpu = Duration::from_millis(200));
    let frontend = load(&host, "steps").frontend_there().expect("a frontend");
    let world = World::with("from a\n", &[], 0);
    struct Slow(Arc<World>);
    #[async_trait::async_trait]
    impl wbuild_api::extension::InspectCap for Slow {
        async fn resolve_images(
            &self,
            requests: Vec<wbuild_api::extension::ImageRequest>,
        ) -> Vec<Result<wbuild_api::extension::ImageInfo, Failure>> {
            tokio::time::sleep(Duration::from_millis(400)).await;
            self.0.resolve_images(requests).await
        }
        async fn resolve_sources(
            &self,
            requests: Vec<wbuild_api::extension::SourceRequest>,
        ) -> Vec<Result<wbuild_api::extension::SourceInfo, Failure>> {
            self.0.resolve_sources(requests).await
        }
        async fn read_file(
            &self,
            at: wbuild_graph::Edge,
            path: String,
            offset: u64,
            length: u32,
        ) -> Result<Vec<u8>, Failure> {
            self.0.read_file(at, path, offset, length).await
        }
        async fn stat(
            &self,
            at: wbuild_graph::Edge,
            path: String,
        ) -> Result<Option<wbuild_api::extension::Entry>, Failure> {
            self.0.stat(at, path).await
        }
        async fn read_dir(
            &self,
            at: wbuild_graph::Edge,
            query: wbuild_api::extension::ReadDir,
        ) -> Result<Vec<wbuild_api::extension::Entry>, Failure> {
            self.0.read_dir(at, query).await
        }
        fn start(&self, at: Vec<wbuild_graph::Edge>) {
            self.0.start(at);
        }
        async fn evaluate(&self, at: Vec<wbuild_graph::Edge>) -> Vec<Result<(), Failure>> {
            self.0.evaluate(at).await
        }
        async fn outcome_of(
            &self,
            at: wbuild_graph::Edge,
        ) -> Result<Arc<wbuild_api::extension::Outcome>, Failure> {
            self.0.outcome_of(at).await
        }
    }
    let mut capabilities = world.host();
    capabilities.inspect = Arc::new(Slow(Arc::clone(&world)));
    run(frontend.build(capabilities)).expect("it waits longer than it may compute");
}

fn builds_that_are_given_up_leave_nothing_behind() {
    let host = host();
    let steps = load(&host, "steps").frontend_there().expect("a frontend");
    let spinning = component(&host, "hostile-frontend").frontend_there().expect("a frontend");
    let text = "from a\nenv A=$(a)\nenv B=$(b)\nif x\nrun y\nend\nenv C=$(c)\n";
    run(async {
        let (mut dropped, mut done) = (0, 0);
        for n in 0..100 {
            let world = World::with(text, &[], 30);
            match given_up(steps.build(world.host()), n * 2).await {
                None => dropped += 1,
                Some(result) => {
                    result.expect("it builds");
                    done += 1;
                }
            }
            assert_eq!(Arc::strong_count(&world), 1, "the store and all its handles are gone");
        }
        let least = if isolated() { 5 } else { 50 };
        assert!(dropped > least && done > 5, "{dropped} given up, {done} done");
        for n in 0..10 {
            let world = World::new("", &[("behaviour", "spin")]);
            assert!(given_up(spinning.build(world.host()), n).await.is_none());
            assert_eq!(Arc::strong_count(&world), 1);
        }
        steps.build(World::new(text, &[]).host()).await.expect("it builds");
    });
}

fn a_hostile_runner_gets_no_plan_past_the_clamp() {
    let mut options = PluginHostOptions::new(code_cache());
    options.runner_limits.cpu = Duration::from_secs(2);
    // Busy machines take longer for that.
    options.runner_limits.wall = Some(PATIENT);
    let host = PluginHost::new(options);
    let runner = component(&host, "hostile-runner").runner_there().expect("a runner");
    let machine = Arc::new(Machine::default());
    run(async {
        for allowed in ["ok", "same", "ignore-refusal"] {
            let plan = runner.make_plan(machine.host(), job(allowed)).await;
            plan.unwrap_or_else(|failure| panic!("{allowed}: {failure}"));
        }
        for (behaviour, message) in [
            ("add-hook", "the edited spec differs from the base"),
            ("host-mount", "the edited spec differs from the base"),
            ("not-json", "the spec is not JSON"),
            ("deep", "the spec is not JSON"),
            ("huge", "the runner hostile-runner needs more than 32 MiB of memory"),
            ("personality", "unknown personality \"linux128\""),
            ("trap", "the runner hostile-runner crashed"),
            ("spin", "the runner hostile-runner used more than 2 s of processor time"),
        ] {
            let failure =
                runner.make_plan(machine.host(), job(behaviour)).await.expect_err(behaviour);
            assert_eq!(failure.message, message, "{behaviour}");
            runner.make_plan(machine.host(), job("ok")).await.expect("the next plan");
        }
        let clamped = machine.clamped.lock().expect("lock");
        assert!(clamped.iter().all(|(_, tools)| tools.is_empty()), "no tool was granted");
    });
}

fn a_call_may_not_take_for_ever_on_the_wall() {
    let mut options = PluginHostOptions::new(code_cache());
    options.runner_limits.cpu = Duration::from_secs(60);
    options.runner_limits.wall = Some(Duration::from_millis(150));
    let runner =
        component(&PluginHost::new(options), "hostile-runner").runner_there().expect("a runner");
    let machine = Arc::new(Machine::default());
    let failure = run(runner.make_plan(machine.host(), job("spin"))).expect_err("it spins");
    assert_eq!(failure.message, "the runner hostile-runner took longer than 150 ms for one call");
    assert_eq!(failure.kind, FailureKind::Limit);
}

async fn connected(host: &PluginHost, behaviour: &str) -> (Arc<Storage>, Arc<dyn CacheBackend>) {
    let storage = Arc::new(Storage::default());
    let cache = component(host, "hostile-cache").cache_there().expect("a cache backend");
    let backend = cache.connect(storage.host()).await.expect("an instance");
    let config = Attrs(vec![("x-behaviour".to_owned(), behaviour.to_owned())]);
    backend.open("read".to_owned(), config).await.expect("open");
    (storage, backend)
}

fn a_lying_cache_backend_is_a_broken_one() {
    let mut options = PluginHostOptions::new(code_cache());
    options.cache_limits.cpu = Duration::from_secs(2);
    let host = PluginHost::new(options);
    let name = "the cache backend hostile-cache";
    let keys = vec![CacheKey(Digest::of(b"a")), CacheKey(Digest::of(b"b"))];
    run(async {
        for (behaviour, kind, message) in [
            ("short-find", FailureKind::Internal, "answered 1 lists for 2 keys"),
            ("long-find", FailureKind::Internal, "answered 3 lists for 2 keys"),
            ("wrong-keys", FailureKind::Internal, "answered a record that is none"),
            ("no-keys", FailureKind::Internal, "answered a record that is none"),
            ("bad-digest", FailureKind::Internal, "answered a record that is none"),
            ("huge-find", FailureKind::Limit, "needs more than 64 MiB of memory"),
            ("trap", FailureKind::Internal, "crashed"),
            ("spin", FailureKind::Limit, "used more than 2 s of processor time"),
        ] {
            let (_, backend) = connected(&host, behaviour).await;
            let failure = backend.find(keys.clone()).await.expect_err(behaviour);
            assert_eq!(failure.message, format!("{name} {message}"), "{behaviour}");
            assert_eq!(failure.kind, kind, "{behaviour}");
        }
        let (_, backend) = connected(&host, "trap").await;
        let first = backend.find(keys.clone()).await.expect_err("trap");
        let again = backend.commit().await.expect_err("it ended");
        assert_eq!(first, again, "an instance that trapped is never entered again");

        let (storage, backend) = connected(&host, "other-blob").await;
        let hits = backend.find(keys.clone()).await.expect("find");
        let fetched = backend.fetch(hits[0][0].layers.clone()).await.expect("fetch");
        let lie = fetched[0].as_ref().expect_err("another blob");
        assert!(lie.message.starts_with("asked for the layer sha256:0000"), "{lie}");
        assert_eq!(storage.blobs.lock().expect("lock").len(), 1);

        let (_, backend) = connected(&host, "short-fetch").await;
        let hits = backend.find(keys.clone()).await.expect("find");
        let failure = backend.fetch(hits[0][0].layers.clone()).await.expect_err("too few");
        assert_eq!(failure.message, format!("{name} gave 0 answers for 1 layers"));

        // Until the bucket is full; each call of an isolated one takes time of its process.
        let mut options = PluginHostOptions::new(code_cache());
        options.cache_limits.cpu = Duration::from_secs(60);
        let (storage, backend) = connected(&PluginHost::new(options), "kv-flood").await;
        let failure = backend.save(Vec::new()).await.expect_err("a flood");
        assert_eq!(failure.message, "flood is full");
        drop(storage);
        // Names like paths: `open` fails if one of them reaches a bucket.
        let (storage, _) = connected(&host, "kv-names").await;
        assert!(storage.buckets.lock().expect("lock").is_empty());
    });
}

fn a_cache_call_that_is_given_up_ends_the_instance() {
    let host = host();
    run(async {
        let (_, backend) = connected(&host, "spin").await;
        let keys = vec![CacheKey(Digest::of(b"a"))];
        assert!(given_up(backend.find(keys.clone()), 3).await.is_none());
        let failure = backend.find(keys).await.expect_err("it was given up");
        assert_eq!(failure.message, "the cache backend hostile-cache was given up in a call");
        assert_eq!(failure.kind, FailureKind::Unavailable);
    });
}

fn components_that_ask_for_more_are_refused_before_they_run() {
    let host = host();
    let refused = |name: &str| {
        let plugin = load(&host, name);
        let failure = plugin.frontend_there().map(drop).expect_err(name);
        let info = run(plugin.inspect()).expect("it can be looked at");
        assert!(info.refusal.is_some(), "{name}");
        render(&failure)
    };
    assert_eq!(
        refused("hostile-import"),
        "the frontend hostile-import imports hostile:extra/thing@0.1.0, which wbuild does not \
         offer\n  hint: plugins get wbuild's own interfaces, and WASI 0.2 without anything of \
         the system behind it; nothing else"
    );
    assert_eq!(
        refused("hostile-nested"),
        "the frontend hostile-nested asks for wbuild:frontend/nested@0.1.0, which is not granted\n  \
         hint: the policy for plugins grants it: nested = true"
    );
    assert_eq!(
        refused("hostile-world"),
        "hostile-world is not a frontend\n  because: it does not export wbuild:frontend/build\n  \
         hint: a frontend is a component of the world wbuild:frontend/frontend"
    );
    let failure = load(&host, "native").frontend_there().err().expect("a runner");
    assert_eq!(failure.to_string(), "native is not a frontend: it is a runner");
}

/// A release of WIT without components of its own in this suite would be tried by nothing here.
#[test]
fn each_released_version_has_its_components() {
    let frozen = versions::wit().join("frozen");
    let entries = std::fs::read_dir(&frozen).expect("wit/frozen");
    let mut released: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a version"))
        .collect();
    released.sort();
    let mut tried: Vec<&str> = versions::VERSIONS.iter().map(|(version, _)| *version).collect();
    tried.sort_unstable();
    let todo = "host/isolate/tests/support/versions.rs says what a release needs";
    assert_eq!(tried, released, "versions of the hostile suite, and of wit/frozen; {todo}");
    let host = host();
    versions::each(|| {
        let version = versions::version();
        for name in versions::COMPONENTS {
            let plugin = component(&host, name);
            let of_wbuild: Vec<&String> =
                plugin.imports().iter().filter(|import| import.starts_with("wbuild:")).collect();
            assert!(!of_wbuild.is_empty(), "{name} imports nothing");
            for import in of_wbuild {
                let (_, made_for) = import.split_once('@').unwrap_or_default();
                assert_eq!(made_for, version, "{name} for {version} imports {import}; {todo}");
            }
        }
    });
}

both!(
    a_hostile_frontend_ends_in_words_and_the_next_build_works,
    a_hostile_frontend_that_is_asked_ends_in_words,
    answers_of_a_frontend_are_kept_and_cut,
    a_frontend_without_the_export_says_what_it_can_do,
    abuse_of_the_component_abi_ends_the_guest,
    answers_have_a_bound_in_bytes,
    large_ops_meet_a_limit,
    a_flood_of_log_lines_is_cut_off_once_and_said_so,
    a_guest_that_computes_for_ever_does_not_hold_the_executor,
    a_wait_for_the_host_is_not_processor_time,
    builds_that_are_given_up_leave_nothing_behind,
    a_hostile_runner_gets_no_plan_past_the_clamp,
    a_call_may_not_take_for_ever_on_the_wall,
    a_lying_cache_backend_is_a_broken_one,
    a_cache_call_that_is_given_up_ends_the_instance,
    components_that_ask_for_more_are_refused_before_they_run,
);
