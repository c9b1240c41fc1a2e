//! Builds from within a process. Nothing is run here, so that no container runtime is needed; what
//! runs steps is `tests/e2e/embedding.rs`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wbuild::graph::op::{EntryOpts, FileAction, FileActionKind, FileOp};
use wbuild::graph::{NodeMeta, Op};
use wbuild::{
    Builder, Event, Failure, FailureKind, FilesResult, Frontend, FrontendHost, FrontendSource,
    Isolate, Output, Process, StepEnd,
};
use wbuild_supply::{Kept, PluginRef, PluginStore};

type Test = fn(&Process, &Path);

const TESTS: [(&str, Test); 11] = [
    ("a_context_becomes_files", a_context_becomes_files),
    ("an_image_has_a_digest_and_metadata", an_image_has_a_digest_and_metadata),
    ("a_function_is_a_frontend", a_function_is_a_frontend),
    ("a_component_in_memory_is_a_frontend", a_component_in_memory_is_a_frontend),
    ("a_component_by_path_runs_in_a_process_of_its_own", a_component_by_path_runs_elsewhere),
    ("references_are_supplied_as_for_the_command_line", references),
    ("errors_show_the_line", errors_show_the_line),
    ("a_plan_builds_nothing", a_plan_builds_nothing),
    ("events_end_with_the_build", events_end_with_the_build),
    ("builds_are_cancelled", builds_are_cancelled),
    ("what_is_unknown_is_said", what_is_unknown_is_said),
];

fn main() {
    let process = wbuild::init();
    if let Err(failure) = process.can_run_steps() {
        let required = std::env::var_os("WBUILD_TEST_REQUIRE").is_some_and(|value| value == "1");
        assert!(!required, "builds cannot be run here: {failure}");
        eprintln!("skipped: embed: {failure}");
        return;
    }
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for (name, test) in TESTS {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            continue;
        }
        let dir = tempfile::tempdir().expect("directory");
        test(&process, dir.path());
        println!("test {name} ... ok");
    }
}

/// A builder in a directory, with a context that has one file.
fn builder(process: &Process, dir: &Path) -> Builder {
    std::fs::create_dir_all(dir.join("src")).expect("directory");
    std::fs::write(dir.join("src/a.txt"), "hello").expect("file");
    // Compiling the bundled components takes seconds: once for all tests.
    let code =
        std::env::temp_dir().join(format!("wbuild-embed-{}", rustix::process::getuid().as_raw()));
    process.builder(dir.join("state")).code_dir(code).context(dir.join("src"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn a_context_becomes_files(process: &Process, dir: &Path) {
    let built = builder(process, dir)
        .definition("Dockerfile", "FROM scratch\nARG NAME\nCOPY a.txt /$NAME\n")
        .arg("NAME", "b.txt")
        .output(Output::files(dir.join("out")))
        .output(Output::tar(dir.join("out.tar")))
        .build_blocking()
        .expect("it builds");
    assert_eq!(read(&dir.join("out/b.txt")), "hello");
    assert!(dir.join("out.tar").is_file());
    assert_eq!((built.outputs.len(), built.stats.steps_run), (2, 1));

    // A definition in the context, read by another bundled frontend; the step is known.
    std::fs::write(dir.join("src/x.yaml"), "stages: {a: {steps: [{copy: a.txt, to: /b.txt}]}}")
        .expect("file");
    let built = builder(process, dir)
        .frontend("yaml")
        .definition_file("x.yaml")
        .build_blocking()
        .expect("it builds");
    assert!(built.stats.steps_run == 0 && built.stats.steps_cached > 0, "{:?}", built.stats);
}

fn an_image_has_a_digest_and_metadata(process: &Process, dir: &Path) {
    let built = builder(process, dir)
        .definition("Dockerfile", "FROM scratch\nCOPY a.txt /\n")
        .label("a", "b")
        .tag("example.org/x:1")
        .source_date_epoch(7)
        .output(Output::oci_layout(dir.join("layout")))
        .build_blocking()
        .expect("it builds");
    let metadata = built.metadata();
    let digest = metadata["containerimage.digest"].as_str().expect("a digest");
    assert_eq!(Some(digest.to_owned()), built.images[0].digest.map(|digest| digest.to_string()));
    assert!(read(&dir.join("layout/index.json")).contains(digest));
    assert!(built.image_id().is_some_and(|id| id != digest));
    assert_eq!(metadata["image.name"], "example.org/x:1");
}

/// A frontend that writes what its definition says, and counts how often it was called.
fn writer(calls: &Arc<AtomicUsize>) -> Arc<dyn Frontend> {
    let calls = Arc::clone(calls);
    wbuild::native("writer", move |host: FrontendHost| {
        calls.fetch_add(1, Ordering::SeqCst);
        async move { write(&host) }
    })
}

fn write(host: &FrontendHost) -> Result<(), Failure> {
    let data = host.request.definition()?.data;
    let kind = FileActionKind::Write { path: "/f".to_owned(), data, opts: EntryOpts::default() };
    let actions = vec![FileAction { mark: None, kind }];
    let op = Op::File(FileOp { base: None, names_from: None, actions });
    let root = host.graph.insert(op, Vec::new())?[0];
    let name = "write it".to_owned();
    host.graph.annotate(root, NodeMeta { name, ..NodeMeta::default() })?;
    let (name, path) = (String::new(), "/".to_owned());
    host.results.files(FilesResult { name, platform: None, root, path, attrs: Default::default() })
}

fn a_function_is_a_frontend(process: &Process, dir: &Path) {
    let calls = Arc::new(AtomicUsize::new(0));
    let build = |text: &str| {
        builder(process, dir)
            .frontend(writer(&calls))
            .definition("text", text)
            .output(Output::files(dir.join("out")))
            .build_blocking()
            .expect("it builds")
    };
    assert_eq!(build("one").stats.steps_run, 1);
    assert_eq!(read(&dir.join("out/f")), "one");
    // Nothing that it asked for has changed, so it is not called.
    let again = build("one");
    assert!(again.stats.frontend_memo_hit && again.stats.steps_cached == 1);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    build("two");
    assert_eq!((read(&dir.join("out/f")).as_str(), calls.load(Ordering::SeqCst)), ("two", 2));
}

fn a_component_in_memory_is_a_frontend(process: &Process, dir: &Path) {
    let steps = wbuild_bundled::find(wbuild_bundled::Kind::Frontend, "steps").expect("bundled");
    builder(process, dir)
        .frontend(FrontendSource::Component("steps".to_owned(), steps.bytes.into()))
        .definition("Steps", "from scratch\ncopy a.txt /x\n")
        .output(Output::files(dir.join("out")))
        .build_blocking()
        .expect("it builds");
    assert_eq!(read(&dir.join("out/x")), "hello");
}

const STEPS: &str = "from scratch\ncopy a.txt /x\n";

fn steps() -> &'static [u8] {
    wbuild_bundled::find(wbuild_bundled::Kind::Frontend, "steps").expect("bundled").bytes
}

fn a_component_by_path_runs_elsewhere(process: &Process, dir: &Path) {
    let path = dir.join("own.wasm");
    std::fs::write(&path, steps()).expect("component");
    let build = |isolate: Isolate| {
        builder(process, dir)
            .frontend(path.clone())
            .isolate(isolate)
            .definition("Steps", STEPS)
            .output(Output::files(dir.join("out")))
    };
    build(Isolate::Untrusted).build_blocking().expect("it builds");
    assert_eq!(read(&dir.join("out/x")), "hello");
    // A process of its own is given its code as a file; this one does without.
    let nowhere = |isolate| build(isolate).no_cache().code_dir("/proc/nothing/here");
    let error = nowhere(Isolate::Untrusted).definition("Steps", "from scratch\nworkdir /a\n");
    let error = error.build_blocking().expect_err("there is no file");
    assert!(error.to_string().contains("no process can be given it"), "{error}");
    let built = nowhere(Isolate::None).definition("Steps", "from scratch\nworkdir /b\n");
    built.build_blocking().expect("it is compiled and run here");
}

/// By what was fetched before, so that nobody is asked.
fn references(process: &Process, dir: &Path) {
    let digest = wbuild::graph::Digest::of(steps());
    let reference = format!("https://plugins.example/steps.wasm#{digest}");
    let source = PluginRef::remote(&reference).expect("a reference").expect("it has a scheme");
    let kept = Kept { bytes: steps().into(), manifest: None, signatures: Vec::new() };
    let plugins = dir.join("plugins");
    PluginStore::new(plugins.clone()).keep(&source, &digest, &kept).expect("kept");
    let build = |frontend: &str| {
        builder(process, dir)
            .frontend(frontend)
            .plugin_dir(&plugins)
            .offline()
            .definition("Steps", STEPS)
            .output(Output::files(dir.join("out")))
    };
    build(&reference).build_blocking().expect("it builds");
    assert_eq!(read(&dir.join("out/x")), "hello");
    // What is not here, what is not pinned, what is no reference.
    let says = |builder: Builder, says: &str| {
        let error = builder.build_blocking().expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    };
    let other = "oci://plugins.example/team/other:1";
    says(build(other), "is not pinned, and --offline forbids");
    says(build(other).project(dir.join("src")).locked(), "is not in wbuild.lock");
    says(build("https://plugins.example/steps.wasm"), "which file");
    says(build("./own.wasm"), "is the path of a component");
    // The project names it, and the policy is about it.
    let file = format!("[frontend.ours]\nsource = \"{reference}\"\n");
    std::fs::write(dir.join("src/wbuild.toml"), file).expect("project");
    build("ours").project(dir.join("src")).build_blocking().expect("it builds");
    says(build("ours"), "no bundled frontend named");
    std::fs::write(dir.join("policy.toml"), "default = \"deny\"\n").expect("policy");
    says(build(&reference).policy(dir.join("policy.toml")), "does not allow the plugin");
    std::fs::write(dir.join("policy.toml"), "default = \"maybe\"\n").expect("policy");
    says(build(&reference).policy(dir.join("policy.toml")), "policy.toml:1");
}

fn errors_show_the_line(process: &Process, dir: &Path) {
    let error = builder(process, dir)
        .definition("Dockerfile", "FROM scratch\nCOPY missing /\n")
        .build_blocking()
        .expect_err("there is no such file");
    let text = error.to_string();
    for part in ["--> Dockerfile:2", "COPY missing /", "missing"] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    assert!(error.step.is_some() && !text.contains('\x1b'));
    assert!(error.render(true).contains("\x1b["));
    let error = builder(process, dir)
        .definition("Dockerfile", "FROM scratch\nCOPPY a b\n")
        .build_blocking()
        .expect_err("no instruction");
    assert_eq!(error.failure.kind, FailureKind::Invalid);
    assert!(error.to_string().contains("did you mean"), "{error}");
}

fn a_plan_builds_nothing(process: &Process, dir: &Path) {
    let plan = builder(process, dir)
        .definition("Dockerfile", "FROM scratch\nCOPY a.txt /\nRUN [\"/never\"]\n")
        .output(Output::files(dir.join("out")))
        .plan_blocking()
        .expect("it plans");
    assert_eq!(plan.nodes.last().map(|node| node.op.as_str()), Some("exec"));
    assert!(!dir.join("out").exists());
}

fn events_end_with_the_build(process: &Process, dir: &Path) {
    let (builder, mut events) =
        builder(process, dir).definition("Dockerfile", "FROM scratch\nCOPY a.txt /\n").events();
    builder.build_blocking().expect("it builds");
    let mut ended = Vec::new();
    while let Some(event) = events.blocking_next() {
        if let Event::StepEnded { how, .. } = event {
            ended.push(how);
        }
    }
    assert_eq!(ended, [StepEnd::Done]);
}

fn builds_are_cancelled(process: &Process, dir: &Path) {
    let token = tokio_util::sync::CancellationToken::new();
    // Waits until the build has called it, and for ever after.
    let cancel = token.clone();
    let frontend = wbuild::native("waits", move |_: FrontendHost| {
        cancel.cancel();
        std::future::pending()
    });
    let error = builder(process, dir)
        .frontend(frontend)
        .definition("x", "")
        .cancelled_by(token)
        .build_blocking()
        .expect_err("cancelled");
    assert_eq!(error.failure.kind, FailureKind::Cancelled);

    // A future that is dropped leaves the state directory to the next build.
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let waits = wbuild::native("waits too", |_: FrontendHost| std::future::pending());
        let build = builder(process, dir).frontend(waits).definition("x", "").build();
        let dropped = tokio::time::timeout(std::time::Duration::from_millis(300), build).await;
        assert!(dropped.is_err(), "it waits");
        let next = builder(process, dir).definition("Dockerfile", "FROM scratch\nCOPY . /\n");
        next.build().await.expect("it builds");
    });
}

fn what_is_unknown_is_said(process: &Process, dir: &Path) {
    let error = builder(process, dir).frontend("dockerfle").build_blocking().expect_err("no such");
    assert!(error.to_string().contains("dockerfile, earthfile"), "{error}");
    let error = builder(process, dir)
        .frontend(dir.join("none.wasm"))
        .build_blocking()
        .expect_err("no such file");
    assert!(error.to_string().contains("none.wasm"), "{error}");
}
