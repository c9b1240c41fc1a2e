//! The canonical encoding: pinned by golden vectors. (That it is complete: `fields.rs`.)

use wbuild_graph::encode::{ByDefinition, Encoder};
use wbuild_graph::op::*;
use wbuild_graph::{
    Attrs, Definition, Digest, Edge, FailureKind, GraphLimits, NodeMeta, Op, Platform,
};

fn digest(op: &Op) -> Digest {
    let mut e = Encoder::new("wbuild.golden.v1");
    op.encode(&mut e, &ByDefinition);
    e.finish()
}

fn image() -> Op {
    Op::Source(SourceOp::Image {
        reference: "docker.io/library/alpine:3".to_owned(),
        platform: Platform::new("linux", "arm", Some("v7")),
        attrs: Attrs(vec![("resolve".to_owned(), "pull".to_owned())]),
    })
}

fn local() -> Op {
    Op::Source(SourceOp::Local(LocalSource {
        name: "context".to_owned(),
        include: vec!["src".to_owned()],
        exclude: vec![IgnorePattern { pattern: "*.o".to_owned(), at: None }],
        follow: vec!["link".to_owned()],
        attrs: Attrs::default(),
    }))
}

fn exec() -> ExecOp {
    let mut exec = ExecOp::new(vec!["/bin/sh".to_owned(), "-c".to_owned(), "make".to_owned()]);
    exec.env = vec![("A".to_owned(), "b".to_owned())];
    exec.cwd = "/src".to_owned();
    exec.user = "app".to_owned();
    exec.hostname = "h".to_owned();
    exec.platform = Platform::new("linux", "amd64", None);
    exec.add_hosts = vec![("a".to_owned(), "10.0.0.1".to_owned())];
    exec.ulimits = vec![Ulimit { name: "nofile".to_owned(), soft: 1, hard: 2 }];
    exec.devices = vec![("vendor/class".to_owned(), true)];
    exec.valid_exit_codes = vec![0, 3];
    exec.capture = Some(10);
    let mode = MountMode { mode: Some(0o700), uid: 1, gid: 2 };
    let mount = |target: &str, kind| Mount { target: target.to_owned(), kind };
    exec.mounts = vec![
        mount(
            "/",
            MountKind::Bind { source: Some(0), subpath: "/".to_owned(), access: Access::Rw },
        ),
        mount(
            "/m",
            MountKind::Bind { source: Some(1), subpath: "/x".to_owned(), access: Access::Ro },
        ),
        mount(
            "/c",
            MountKind::Cache {
                id: "go".to_owned(),
                sharing: Sharing::Locked,
                seed: None,
                seed_path: "/".to_owned(),
                readonly: false,
                mode,
            },
        ),
        mount("/t", MountKind::Tmpfs { size: Some(1 << 20), mode }),
        mount("/s", MountKind::Secret { id: "token".to_owned(), required: true, mode }),
        mount("/a", MountKind::Ssh { id: "default".to_owned(), required: false, mode }),
    ];
    exec.secret_env =
        vec![SecretEnv { name: "T".to_owned(), id: "token".to_owned(), required: true }];
    exec.attrs = Attrs(vec![("x-a".to_owned(), "1".to_owned())]);
    exec
}

fn file() -> FileOp {
    let action = |kind| FileAction { mark: None, kind };
    let entry = EntryOpts {
        chown: Some("1:2".to_owned()),
        mode: Some("u=rwX".to_owned()),
        timestamp: Some(-1),
    };
    FileOp {
        base: Some(0),
        names_from: Some(1),
        actions: vec![
            action(FileActionKind::Copy {
                source: 2,
                paths: vec!["a".to_owned(), "b*".to_owned()],
                target: "/dst/".to_owned(),
                opts: CopyOpts {
                    entry: entry.clone(),
                    create_dest: true,
                    include: vec!["i".to_owned()],
                    exclude: vec!["e".to_owned()],
                    required: vec!["r".to_owned()],
                    unpack: Unpack::Auto,
                    ..CopyOpts::default()
                },
            }),
            action(FileActionKind::Write {
                path: "/w".to_owned(),
                data: b"data".to_vec(),
                opts: entry.clone(),
            }),
            action(FileActionKind::Mkdir {
                path: "/d".to_owned(),
                parents: true,
                opts: entry.clone(),
            }),
            action(FileActionKind::Remove {
                path: "/r".to_owned(),
                wildcard: true,
                allow_missing: false,
            }),
            action(FileActionKind::Symlink {
                path: "/l".to_owned(),
                target: "d".to_owned(),
                opts: EntryOpts::default(),
            }),
        ],
    }
}

#[test]
fn golden_vectors() {
    let ops = [
        ("image", image()),
        ("local", local()),
        ("exec", Op::Exec(Box::new(exec()))),
        ("file", Op::File(file())),
        ("merge", Op::Merge),
        ("diff", Op::Diff { lower: None, upper: Some(0) }),
    ];
    let found: Vec<String> =
        ops.iter().map(|(name, op)| format!("{name} {}", digest(op).hex())).collect();
    let golden: Vec<&str> = include_str!("encoding.golden").lines().collect();
    assert_eq!(
        found, golden,
        "a changed encoding makes every stored record unreachable: give its domain a new version"
    );
}

#[test]
fn what_was_looked_at_cannot_ignore_the_cache_any_more() {
    let mut d = Definition::new("session", GraphLimits::default());
    let looked_at = d.insert(image(), vec![]).unwrap();
    let ignoring = d.insert(image(), vec![]).unwrap();
    d.ignore_cache(ignoring).unwrap();
    assert_ne!(d.digest(looked_at), d.digest(ignoring), "ignore-cache is work of its own");
    assert!(d.ignore_cache(looked_at).is_err(), "it was looked at");
    d.ignore_cache(ignoring).expect("it ignores it already");
}

#[test]
fn bad_nodes_are_refused() {
    let limits = GraphLimits { nodes: 3, edges: 4, bytes: 10_000 };
    let mut d = Definition::new("s", limits);
    let base = Edge { node: d.insert(image(), vec![]).unwrap(), index: 0 };
    let text = |result: Result<wbuild_graph::NodeId, wbuild_graph::Failure>| {
        result.expect_err("refused").message
    };
    let far = Edge { node: wbuild_graph::NodeId(9), index: 0 };
    assert_eq!(text(d.insert(Op::Merge, vec![far])), "there is no node 9 in this graph");
    let second = Edge { index: 1, ..base };
    assert_eq!(
        text(d.insert(Op::Merge, vec![second])),
        "node 0 has 1 outputs, there is no output 1"
    );
    assert_eq!(
        text(d.insert(Op::Diff { lower: None, upper: Some(1) }, vec![base])),
        "the op refers to input 1, but the node has 1 inputs"
    );
    let mut no_root = ExecOp::new(vec!["x".to_owned()]);
    assert_eq!(
        text(d.insert(Op::Exec(Box::new(no_root.clone())), vec![])),
        "the first mount must be a bind at /"
    );
    no_root.args.clear();
    assert_eq!(
        text(d.insert(Op::Exec(Box::new(no_root)), vec![])),
        "a process needs at least one argument"
    );
    assert_eq!(text(d.insert(Op::Merge, vec![base; 5])), "the graph has more than 4 inputs");
}

#[test]
fn what_is_in_no_digest_still_counts_towards_the_limits() {
    let limits = GraphLimits { bytes: 10_000, ..GraphLimits::default() };
    let long = "x".repeat(20_000);
    let mut definition = Definition::new("test", limits);
    let mut exec = ExecOp::new(vec!["x".to_owned()]);
    let kind = MountKind::Bind { source: None, subpath: String::new(), access: Access::Rw };
    exec.mounts.push(Mount { target: "/".to_owned(), kind });
    let node = definition.insert(Op::Exec(Box::new(exec.clone())), Vec::new()).expect("small");
    let meta = |name: &str| NodeMeta { name: name.to_owned(), ..NodeMeta::default() };
    for _ in 0..100 {
        definition.annotate(node, meta(&long[..5_000])).expect("what is replaced does not count");
    }
    let failure = definition.annotate(node, meta(&long)).expect_err("too long");
    assert_eq!(failure.kind, FailureKind::Limit);
    exec.volatile_env.push(("A".to_owned(), long));
    let failure = definition.insert(Op::Exec(Box::new(exec)), Vec::new()).expect_err("too large");
    assert_eq!(failure.kind, FailureKind::Limit);
}
