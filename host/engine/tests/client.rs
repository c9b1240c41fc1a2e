//! Processes of the client's own.

mod place;

use place::{Place, copy, file, privileged, write, yield_image};
use wbuild_engine::extension::FrontendHost;
use wbuild_engine::request::{ContextSpec, Entitlement, OutputDest, OutputKind};
use wbuild_graph::op::{
    Access, ExecOp, FileOp, LocalSource, Mount, MountKind, MountMode, Security, SourceOp,
};
use wbuild_graph::{Edge, Failure, FailureKind, Op};

/// A command of the client's, after another.
fn client(host: &FrontendHost, command: &str, after: Option<Edge>) -> Result<Edge, Failure> {
    let args = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
    let mut exec = ExecOp::new(args);
    exec.security = Security::Client;
    let source = after.map(|_| 0);
    let kind = MountKind::Bind { source, subpath: String::new(), access: Access::Rw };
    exec.mounts = vec![Mount { target: "/".to_owned(), kind }];
    Ok(host.graph.insert(Op::Exec(Box::new(exec)), after.into_iter().collect())?[0])
}

/// The context after something.
fn local_after(host: &FrontendHost, after: Edge) -> Edge {
    let source = LocalSource { name: "context".to_owned(), ..LocalSource::default() };
    host.graph.insert(Op::Source(SourceOp::Local(source)), vec![after]).expect("context")[0]
}

fn place() -> Place {
    let mut place = Place::new();
    place.request.allow.insert(Entitlement::ClientExec);
    let directory = ContextSpec::Local(place.path("context"));
    place.request.contexts.insert("context".to_owned(), directory);
    place
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_run_in_order_in_every_build_and_nothing_else_does() {
    if !privileged("they_run_in_order_in_every_build_and_nothing_else_does") {
        return;
    }
    let mut place = place();
    place.write("f", "before");
    let out = place.path("out");
    place.output(OutputKind::Local, OutputDest::Directory(out.clone()), &[]);
    let frontend = |host: &FrontendHost| {
        // Of the directory as it was, as it is between, and as it is in the end.
        let first = client(host, "cat f >> seen", None)?;
        let between = local_after(host, first);
        let kept = file(host, None, Some(between), copy(0, "/f", "/between"));
        // Equal words are not equal work.
        let second = client(host, "cat f >> seen", Some(kept))?;
        let third = client(host, "echo after > f", Some(second))?;
        let end = local_after(host, third);
        let root = file(host, Some(kept), Some(end), copy(1, "/f", "/after"));
        yield_image(host, root)
    };
    for run in 1..=2 {
        place.write("f", "before");
        let report = place.build_as("own".to_owned(), frontend).await.expect("built");
        assert!(!report.stats.frontend_memo_hit, "what it did is not to be taken for granted");
        let spawned = place.client.spawned.lock().expect("spawned").len();
        assert_eq!(spawned, 3 * run, "all run in build {run}");
        let read = |name: &str| std::fs::read_to_string(out.join(name)).expect("exported");
        assert_eq!((read("between"), read("after")), ("before".to_owned(), "after\n".to_owned()));
        // What is made of what they leave behind is known the second time.
        let steps = (report.stats.steps_run, report.stats.steps_cached);
        assert_eq!(steps, if run == 1 { (2, 0) } else { (0, 2) });
    }
    let seen = std::fs::read_to_string(place.path("context/seen")).expect("seen");
    assert_eq!(seen, "before".repeat(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_need_leave_a_directory_and_no_mounts() {
    let mut place = place();
    let begun = |host: &FrontendHost| client(host, "true", None).map(drop);
    place.request.allow.clear();
    let failure = place.build(begun).await.expect_err("no leave").failure;
    assert_eq!(failure.kind, FailureKind::Denied);
    assert_eq!(failure.hints, ["if the definition is trusted: --allow client.exec"]);
    place.request.allow.insert(Entitlement::ClientExec);
    let context = place.request.contexts.insert("context".to_owned(), ContextSpec::Empty);
    let failure = place.build(begun).await.expect_err("no directory").failure;
    assert_eq!(failure.kind, FailureKind::Unsupported);
    place.request.contexts.insert("context".to_owned(), context.expect("there was one"));
    let mounts = |host: &FrontendHost| {
        let mut exec = ExecOp::new(vec!["true".to_owned()]);
        exec.security = Security::Client;
        let bind = MountKind::Bind { source: None, subpath: String::new(), access: Access::Rw };
        let tmpfs = MountKind::Tmpfs { size: None, mode: MountMode::default() };
        exec.mounts = [("/", bind), ("/tmp", tmpfs)]
            .map(|(target, kind)| Mount { target: target.to_owned(), kind })
            .to_vec();
        host.graph.insert(Op::Exec(Box::new(exec)), Vec::new()).map(drop)
    };
    let failure = place.build(mounts).await.expect_err("a mount").failure;
    assert_eq!(failure.kind, FailureKind::Invalid);
    let fails = |host: &FrontendHost| {
        let failed = client(host, "exit 3", None)?;
        let op = FileOp { base: Some(0), names_from: None, actions: vec![write("/f", "x")] };
        yield_image(host, host.graph.insert(Op::File(op), vec![failed])?[0])
    };
    let failure = place.build(fails).await.expect_err("it fails").failure;
    assert_eq!(
        (failure.kind, failure.attrs.get("exit-code")),
        (FailureKind::ExecFailed, Some("3"))
    );
    assert_eq!(
        *place.client.spawned.lock().expect("spawned"),
        ["exit 3"],
        "the others never began"
    );
}
