//! Frontends that call other frontends.

mod place;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use place::{Place, copy, file, identity, local, privileged, write, yield_image};
use tokio_util::sync::CancellationToken;
use wbuild_engine::event::Event;
use wbuild_engine::extension::{
    Allowed, FilesResult, Frontend, FrontendHost, ImageRequest, NestedBuild, NestedContext,
    NestedResult, PluginIdentity, ReadDir,
};
use wbuild_graph::op::{LocalSource, SourceOp};
use wbuild_graph::{Attrs, Edge, Failure, FailureKind, NodeId, NodeMeta, Op, Platform, Span};
use wbuild_plugin::{Grants, PluginHost, PluginHostOptions};

type Work = Arc<dyn Fn(FrontendHost) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// A frontend that waits for what it asks.
#[derive(Clone)]
struct Waiting {
    identity: PluginIdentity,
    work: Work,
    runs: Arc<AtomicUsize>,
}

#[async_trait]
impl Frontend for Waiting {
    fn identity(&self) -> PluginIdentity {
        self.identity.clone()
    }

    async fn build(&self, host: FrontendHost) -> Result<(), Failure> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        (self.work)(host).await
    }
}

fn waiting<F, Fut>(name: &str, work: F) -> Waiting
where
    F: Fn(FrontendHost) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let work: Work = Arc::new(move |host| Box::pin(work(host)));
    Waiting { identity: identity(name), work, runs: Arc::default() }
}

/// Those of these names may be called.
fn callable(place: &mut Place, frontends: &[&Waiting]) {
    let known: BTreeMap<String, Arc<dyn Frontend>> = frontends
        .iter()
        .map(|frontend| {
            let frontend: Arc<dyn Frontend> = Arc::new((*frontend).clone());
            (frontend.identity().name, frontend)
        })
        .collect();
    place.nested = Arc::new(move |name: &str| {
        known.get(name).cloned().ok_or_else(|| Failure::not_found(format!("no frontend {name}")))
    });
}

fn request(name: &str, text: &[u8], context: Edge) -> NestedBuild {
    NestedBuild {
        frontend: name.to_owned(),
        definition: Some(("inner".to_owned(), text.to_vec())),
        contexts: vec![("context".to_owned(), NestedContext { root: context, config: None })],
        ..NestedBuild::default()
    }
}

async fn call(host: &FrontendHost, request: NestedBuild) -> Result<NestedResult, Failure> {
    host.nested.build(vec![request]).await.remove(0)
}

fn files(root: Edge) -> FilesResult {
    let (name, path, attrs) = (String::new(), "/".to_owned(), Attrs::default());
    FilesResult { name, platform: None, root, path, attrs }
}

/// Writes its definition and a file of its context to a tree.
fn inner() -> Waiting {
    waiting("inner", |host| async move {
        let text = String::from_utf8(host.request.definition()?.data).expect("text");
        let context = host.request.context("context".to_owned(), None)?.expect("a context");
        assert_eq!(context.kind, "input");
        let context = context.root.expect("its files");
        let read = host.inspect.read_file(context, "read".to_owned(), 0, 100).await?;
        let text = format!("{text}{}", String::from_utf8_lossy(&read));
        let root = file(&host, None, None, write("/text", &text));
        host.results.files(files(root))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_called_frontend_runs_again_with_its_caller_and_only_then() {
    if !privileged("a_called_frontend_runs_again_with_its_caller_and_only_then") {
        return;
    }
    let mut place = Place::new();
    place.write("read", "context");
    place.write("inner", "one");
    let outer = waiting("outer", |host| async move {
        let context = local(&host);
        let text = host.inspect.read_file(context, "inner".to_owned(), 0, 100).await?;
        let result = call(&host, request("inner", &text, context)).await?;
        let [files] = &result.files[..] else { panic!("{result:?}") };
        assert!(files.platform.is_some());
        let text = host.inspect.read_file(files.root, "text".to_owned(), 0, 100).await?;
        assert!(String::from_utf8_lossy(&text).ends_with("context"), "{text:?}");
        yield_image(&host, files.root)
    });
    let mut inner = inner();
    let build = async |place: &mut Place, inner: &Waiting, run: bool, why: &str| {
        callable(place, &[inner]);
        let count = || (outer.runs.load(Ordering::SeqCst), inner.runs.load(Ordering::SeqCst));
        let before = count();
        let built = place.build_with(Arc::new(outer.clone()), CancellationToken::new()).await;
        let report = built.unwrap_or_else(|error| panic!("{why}: {}", error.failure));
        let runs = usize::from(run);
        assert_eq!(count(), (before.0 + runs, before.1 + runs), "{why}");
        assert_eq!(report.stats.frontend_memo_hit, !run, "{why}");
    };
    build(&mut place, &inner, true, "they never ran").await;
    build(&mut place, &inner, false, "nothing has changed").await;
    place.write("inner", "two");
    build(&mut place, &inner, true, "the inner definition has changed").await;
    build(&mut place, &inner, false, "nothing has changed since").await;
    place.write("read", "other context");
    build(&mut place, &inner, true, "a file that the inner one read has changed").await;
    inner.identity = identity("another");
    inner.identity.name = "inner".to_owned();
    build(&mut place, &inner, true, "it is another component").await;
    build(&mut place, &inner, false, "it is the same since").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn called_frontends_take_turns_in_their_order() {
    if !privileged("called_frontends_take_turns_in_their_order") {
        return;
    }
    let mut place = Place::new();
    place.write("f", "file");
    // The first takes longest, and asks less often than the last.
    let slow = waiting("slow", |host| async move {
        let text = String::from_utf8(host.request.definition()?.data).expect("text");
        let number: u64 = text.parse().expect("a number");
        for turn in 0..=number {
            tokio::time::sleep(Duration::from_millis(30 - 10 * number)).await;
            let root = file(&host, None, None, write(&format!("/{number}-{turn}"), &text));
            host.results.files(FilesResult { name: turn.to_string(), ..files(root) })?;
            assert_eq!(host.inspect.evaluate(vec![root]).await, [Ok(())]);
        }
        Ok(())
    });
    callable(&mut place, &[&slow]);
    let found: Arc<Mutex<Vec<Vec<u32>>>> = Arc::default();
    let kept = Arc::clone(&found);
    let outer = waiting("outer", move |host| {
        let kept = Arc::clone(&kept);
        async move {
            let context = local(&host);
            let text = |number: u8| vec![b'0' + number];
            let requests = (0..3).map(|number| request("slow", &text(number), context)).collect();
            for answer in host.nested.build(requests).await {
                let nodes = answer?.files.iter().map(|files| files.root.node.0).collect();
                kept.lock().expect("kept").push(nodes);
            }
            yield_image(&host, context)
        }
    });
    place.build_with(Arc::new(outer), CancellationToken::new()).await.expect("built");
    assert_eq!(*found.lock().expect("found"), [vec![1], vec![2, 4], vec![3, 5, 6]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_called_frontend_has_what_it_is_given_and_nothing_else() {
    if !privileged("a_called_frontend_has_what_it_is_given_and_nothing_else") {
        return;
    }
    let mut place = Place::new();
    place.write("f", "file");
    place.request.options.push("secret-option", "x");
    place.request.targets.push("outer-target".to_owned());
    let curious = waiting("curious", |host| async move {
        let kind = |failure: Failure| failure.kind;
        assert_eq!(host.request.opt("secret-option".to_owned()).await, None);
        assert_eq!(
            host.request.opts("own".to_owned()).await.0,
            [(":a".to_owned(), "1".to_owned())]
        );
        assert_eq!(host.request.targets(), ["t"]);
        assert_eq!(host.request.context_names(), ["context"]);
        assert!(host.request.definition()?.attrs.0.is_empty());
        let source = LocalSource { name: "context".to_owned(), ..LocalSource::default() };
        let directory = host.graph.insert(Op::Source(SourceOp::Local(source)), Vec::new());
        assert_eq!(directory.map_err(kind), Err(FailureKind::Denied));
        let given = host.request.context("context".to_owned(), None)?.and_then(|c| c.root);
        let given = given.expect("given");
        // The caller's other node, and one that there is not.
        for node in [given.node.0 + 1, 77] {
            let at = Edge { node: NodeId(node), index: 0 };
            let invalid = Err(FailureKind::Invalid);
            let meta = NodeMeta::default();
            assert_eq!(host.graph.same_work(given, at).map(drop).map_err(kind), invalid, "{node}");
            assert_eq!(host.graph.annotate(at, meta).map_err(kind), invalid, "{node}");
            let read = host.inspect.read_file(at, "f".to_owned(), 0, 9).await;
            assert_eq!(read.map(drop).map_err(kind), invalid, "{node}");
            let evaluated = host.inspect.evaluate(vec![given, at]).await;
            assert_eq!(evaluated[0], Ok(()), "{node}");
            assert_eq!(evaluated[1].clone().map_err(kind), invalid, "{node}");
            assert_eq!(host.results.files(files(at)).map_err(kind), invalid, "{node}");
            let op = wbuild_graph::op::FileOp {
                base: None,
                names_from: None,
                actions: vec![copy(0, "/f", "/f")],
            };
            let copied = host.graph.insert(Op::File(op), vec![at]);
            assert_eq!(copied.map(drop).map_err(kind), invalid, "{node}");
        }
        // What it was given is not its to change.
        assert_eq!(host.graph.ignore_cache(given).map_err(kind), Err(FailureKind::Denied));
        assert_eq!(host.results.publish(vec![]).await.map_err(kind), Err(FailureKind::Unsupported));
        host.results.files(files(file(&host, None, Some(given), copy(0, "/f", "/f"))))
    });
    callable(&mut place, &[&curious]);
    let outer = waiting("outer", |host| async move {
        let context = local(&host);
        file(&host, None, None, write("/other", "node"));
        let mut request = request("curious", b"", context);
        request.definition = None;
        request.targets.push("t".to_owned());
        request.options.push("own:a", "1");
        let result = call(&host, request.clone()).await?;
        let unknown = NestedBuild { frontend: "unknown".to_owned(), ..request };
        let failure = call(&host, unknown).await.expect_err("unknown");
        assert_eq!(failure.kind, FailureKind::NotFound);
        yield_image(&host, result.files[0].root)
    });
    place.build_with(Arc::new(outer), CancellationToken::new()).await.expect("built");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contexts_are_handed_on_as_they_are() {
    if !privileged("contexts_are_handed_on_as_they_are") {
        return;
    }
    let mut place = Place::new();
    place.write("f", "file");
    let image = wbuild_engine::request::ContextSpec::Image("alpine".to_owned());
    place.request.contexts.insert("image".to_owned(), image.clone());
    place.request.contexts.insert("other".to_owned(), image);
    let directory = wbuild_engine::request::ContextSpec::Local(place.path("context"));
    place.request.contexts.insert("context".to_owned(), directory);
    let curious = waiting("curious", |host| async move {
        assert_eq!(host.request.context_names(), ["context", "image"]);
        assert_eq!(host.request.context("other".to_owned(), None)?, None);
        let image = host.request.context("image".to_owned(), None)?.expect("handed on");
        assert_eq!((&*image.kind, &*image.identifier), ("image", "alpine"));
        let main = host.request.context("context".to_owned(), None)?.expect("handed on");
        assert_eq!(main.kind, "local");
        host.results.files(files(file(&host, None, Some(local(&host)), copy(0, "/f", "/f"))))
    });
    callable(&mut place, &[&curious]);
    let outer = waiting("outer", |host| async move {
        let handed_on = ["context", "image", "missing"].map(str::to_owned).to_vec();
        let frontend = "curious".to_owned();
        let request = NestedBuild { frontend, handed_on, ..NestedBuild::default() };
        yield_image(&host, call(&host, request).await?.files[0].root)
    });
    place.build_with(Arc::new(outer), CancellationToken::new()).await.expect("built");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_called_frontend_may_use_is_what_it_is_left_itself() {
    if !privileged("what_a_called_frontend_may_use_is_what_it_is_left_itself") {
        return;
    }
    let mut place = Place::new();
    place.write("f", "file");
    place.write("secret", "no");
    std::os::unix::fs::symlink("secret", place.path("context/link")).expect("link");
    std::fs::create_dir(place.path("context/d")).expect("directory");
    let directory = wbuild_engine::request::ContextSpec::Local(place.path("context"));
    place.request.contexts.insert("context".to_owned(), directory);
    let image = |reference: &str| {
        let (reference, platform) = (reference.to_owned(), Platform::host());
        Op::Source(SourceOp::Image { reference, platform, attrs: Attrs::default() })
    };
    let kind = |failure: Failure| failure.kind;
    let mut narrow = waiting("narrow", move |host| async move {
        let denied = Err(FailureKind::Denied);
        let asked = ["team/other", "evil.example/x"].map(|reference| ImageRequest {
            reference: reference.to_owned(),
            platform: None,
            attrs: Attrs::default(),
        });
        for answer in host.inspect.resolve_images(asked.to_vec()).await {
            assert_eq!(answer.map(drop).map_err(kind), denied);
        }
        let used = host.graph.insert(image("team/other"), Vec::new());
        assert_eq!(used.map(drop).map_err(kind), denied);
        host.graph.insert(image("alpine"), Vec::new())?;
        // What one that is called by another hands on may be made of anything.
        host.request.context("context".to_owned(), None)?;
        let source = LocalSource { name: "context".to_owned(), ..LocalSource::default() };
        let root = host.graph.insert(Op::Source(SourceOp::Local(source)), Vec::new())?[0];
        let all = ReadDir { path: "/".into(), after: None, limit: 9, opts: Attrs::default() };
        let names = host.inspect.read_dir(root, all).await?;
        let names: Vec<String> = names.into_iter().map(|entry| entry.path).collect();
        assert_eq!(names, ["f"]);
        assert_eq!(host.inspect.read_file(root, "f".to_owned(), 0, 9).await?, b"file");
        for path in ["secret", "link", "d/../secret"] {
            let read = host.inspect.read_file(root, path.to_owned(), 0, 9).await;
            assert_eq!(read.map(drop).map_err(kind), Err(FailureKind::NotFound), "{path}");
        }
        assert_eq!(host.inspect.stat(root, "secret".to_owned()).await?, None);
        let below = ReadDir { path: "d".into(), after: None, limit: 9, opts: Attrs::default() };
        let below = host.inspect.read_dir(root, below).await;
        assert_eq!(below.map(drop).map_err(kind), Err(FailureKind::NotFound));
        host.results.files(files(root))
    });
    narrow.identity.allowed = Allowed {
        images: Some(vec!["docker.io/library/*".to_owned()]),
        files: Some(vec!["f".to_owned()]),
        ..Allowed::default()
    };
    let handed_on = NestedBuild {
        frontend: "narrow".to_owned(),
        handed_on: vec!["context".to_owned()],
        ..NestedBuild::default()
    };
    let on = handed_on.clone();
    let between = waiting("between", move |host| {
        let on = on.clone();
        async move { call(&host, on).await.map(drop) }
    });
    callable(&mut place, &[&narrow, &between]);
    let outer = waiting("outer", move |host| {
        let handed_on = handed_on.clone();
        async move {
            // The caller itself may use all of it, and gives nothing away by that.
            host.graph.insert(image("team/other"), Vec::new())?;
            let whole = local(&host);
            let made = file(&host, None, Some(whole), copy(0, "/secret", "/f"));
            for given in [whole, made] {
                let failure = call(&host, request("narrow", b"", given)).await.expect_err("narrow");
                assert_eq!(failure.kind, FailureKind::Denied);
                assert!(failure.message.contains("some files only"), "{failure}");
            }
            let failure = call(&host, request("between", b"", made)).await.expect_err("narrow");
            assert!(failure.message.contains("some files only"), "{failure}");
            let unlike = file(&host, None, None, write("/f", "of nobody"));
            let failure = call(&host, request("narrow", b"", unlike)).await.expect_err("not lent");
            assert!(failure.message.contains("was not given"), "{failure}");
            yield_image(&host, call(&host, handed_on).await?.files[0].root)
        }
    });
    let built = place.build_with(Arc::new(outer), CancellationToken::new()).await;
    built.unwrap_or_else(|error| panic!("{}", error.failure));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asked_is_shown_with_what_a_called_frontend_does() {
    if !privileged("who_asked_is_shown_with_what_a_called_frontend_does") {
        return;
    }
    let mut place = Place::new();
    place.write("read", "context");
    let inner = inner();
    callable(&mut place, &[&inner]);
    let asked = Span { source: 3, start: 1, end: 2 };
    let outer = waiting("outer", move |host| async move {
        let mut request = request("inner", b"x", local(&host));
        request.asked_at.push(asked);
        let result = call(&host, request).await?;
        yield_image(&host, result.files[0].root)
    });
    place.build_with(Arc::new(outer), CancellationToken::new()).await.expect("built");
    let log = place.log.0.lock().expect("log");
    let defined = log.iter().find_map(|event| match event {
        Event::StepDefined { name, spans, .. } if name == "step" => Some(spans.clone()),
        _ => None,
    });
    assert_eq!(defined, Some(vec![asked]));
}

/// The component that calls itself without end.
fn endless() -> Arc<dyn Frontend> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let bytes = std::fs::read(root.join("target/guests/dist/hostile-nested.wasm"));
    let bytes = bytes.expect("`cargo xtask guests` makes it");
    let code = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-code");
    let plugin = PluginHost::new(PluginHostOptions::new(code)).load("hostile-nested", bytes);
    let plugin = plugin.expect("it loads");
    assert!(plugin.frontend().is_err(), "it has no grant");
    plugin.granted(Grants { nested: true, ..Grants::default() }).frontend().expect("it has one")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_end_end() {
    let mut place = Place::new();
    let endless = endless();
    let found = Arc::clone(&endless);
    place.nested = Arc::new(move |_: &str| Ok(Arc::clone(&found)));
    let built = place.build_with(endless, CancellationToken::new()).await;
    let failure = built.expect_err("it has no end").failure;
    assert_eq!(failure.kind, FailureKind::Limit, "{failure}");
    assert_eq!(failure.message, "frontends call each other more than 8 deep");

    let empty = waiting("empty", |_| async { Ok(()) });
    callable(&mut place, &[&empty]);
    let outer = waiting("outer", |host| async move {
        let text = NestedBuild { frontend: "empty".to_owned(), ..NestedBuild::default() };
        let answers = host.nested.build(vec![text; 1001]).await;
        assert!(answers[..1000].iter().all(Result::is_ok), "the first are called");
        answers[1000].clone().map(drop)
    });
    let built = place.build_with(Arc::new(outer), CancellationToken::new()).await;
    let failure = built.expect_err("it is too often").failure;
    assert_eq!(failure.message, "frontends are called more than 1000 times in this build");
    assert_eq!(empty.runs.load(Ordering::SeqCst), 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_called_frontend_ends_with_the_build() {
    let mut place = Place::new();
    let cancel = CancellationToken::new();
    let (begun, ended) = (cancel.clone(), Arc::new(()));
    let held = Arc::clone(&ended);
    let stuck = waiting("stuck", move |_| {
        let (begun, held) = (begun.clone(), Arc::clone(&held));
        async move {
            begun.cancel();
            std::future::pending::<()>().await;
            drop(held);
            Ok(())
        }
    });
    callable(&mut place, &[&stuck]);
    drop(stuck.clone());
    let outer = waiting("outer", |host| async move {
        let text = NestedBuild { frontend: "stuck".to_owned(), ..NestedBuild::default() };
        call(&host, text).await.map(drop)
    });
    let built = place.build_with(Arc::new(outer), cancel).await;
    assert_eq!(built.expect_err("cancelled").failure.kind, FailureKind::Cancelled);
    // That of the function itself, and this one.
    assert_eq!(Arc::strong_count(&ended), 2, "it is still there");
}
