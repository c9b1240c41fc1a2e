//! The canonical encoding: pinned by golden vectors, and complete.

use wbuild_graph::encode::{ByDefinition, Encoder};
use wbuild_graph::op::*;
use wbuild_graph::{
    Attrs, Definition, Digest, Edge, FailureKind, GraphLimits, NodeMeta, Op, Platform, Span,
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

/// Two different ops must never share a key (the class of CVE-2024-24557): each change of one field
/// changes the digest, and all differ from each other.
#[test]
fn every_field_counts() {
    let mut seen = vec![digest(&Op::Exec(Box::new(exec()))), digest(&Op::File(file()))];
    let execs: Vec<fn(&mut ExecOp)> = vec![
        |e| e.args.push("x".to_owned()),
        |e| e.args = vec!["/bin/sh".to_owned(), "-cmake".to_owned()],
        |e| e.env[0].1 = "c".to_owned(),
        |e| e.env.clear(),
        |e| e.cwd = "/".to_owned(),
        |e| e.user = "root".to_owned(),
        |e| e.hostname.clear(),
        |e| e.platform = Platform::new("linux", "amd64", Some("v3")),
        |e| e.platform.os_version = Some("10".to_owned()),
        |e| e.platform.os_features.push("f".to_owned()),
        |e| e.network = Network::None,
        |e| e.network = Network::Host,
        |e| e.security = Security::Insecure,
        |e| e.add_hosts.clear(),
        |e| e.ulimits[0].soft = 0,
        |e| e.ulimits[0].hard = 3,
        |e| e.devices[0].1 = false,
        |e| e.valid_exit_codes.pop().map_or((), |_| ()),
        |e| e.capture = None,
        |e| e.capture = Some(11),
        |e| e.mounts.truncate(5),
        |e| e.mounts[1].target = "/n".to_owned(),
        |e| {
            e.mounts[1].kind =
                MountKind::Bind { source: Some(0), subpath: "/x".to_owned(), access: Access::Ro };
        },
        |e| {
            e.mounts[1].kind =
                MountKind::Bind { source: Some(1), subpath: "/y".to_owned(), access: Access::Ro };
        },
        |e| {
            e.mounts[1].kind = MountKind::Bind {
                source: Some(1),
                subpath: "/x".to_owned(),
                access: Access::Discard,
            };
        },
        |e| {
            if let MountKind::Cache { sharing, .. } = &mut e.mounts[2].kind {
                *sharing = Sharing::Shared;
            }
        },
        |e| {
            if let MountKind::Cache { readonly, .. } = &mut e.mounts[2].kind {
                *readonly = true;
            }
        },
        |e| {
            if let MountKind::Tmpfs { size, .. } = &mut e.mounts[3].kind {
                *size = None;
            }
        },
        |e| {
            if let MountKind::Secret { required, .. } = &mut e.mounts[4].kind {
                *required = false;
            }
        },
        |e| {
            if let MountKind::Ssh { mode, .. } = &mut e.mounts[5].kind {
                mode.gid = 9;
            }
        },
        |e| e.secret_env[0].id = "other".to_owned(),
        |e| e.secret_env.clear(),
        |e| e.attrs = Attrs::default(),
    ];
    for change in execs {
        let mut op = exec();
        change(&mut op);
        seen.push(digest(&Op::Exec(Box::new(op))));
    }
    let copies: Vec<fn(&mut CopyOpts)> = vec![
        |o| o.entry.chown = None,
        |o| o.entry.mode = Some("u=rwx".to_owned()),
        |o| o.entry.timestamp = None,
        |o| o.create_dest = false,
        |o| o.follow_links = true,
        |o| o.contents_only = true,
        |o| o.wildcard = true,
        |o| o.parents = true,
        |o| o.include.clear(),
        |o| o.exclude.clear(),
        |o| o.required.clear(),
        |o| o.unpack = Unpack::Always,
        |o| o.keep_times = true,
        |o| o.keep_owner = true,
        |o| o.allow_missing = true,
        |o| o.replace = true,
    ];
    for change in copies {
        let mut op = file();
        if let FileActionKind::Copy { opts, .. } = &mut op.actions[0].kind {
            change(opts);
        }
        seen.push(digest(&Op::File(op)));
    }
    let files: Vec<fn(&mut FileOp)> = vec![
        |f| f.base = None,
        |f| f.names_from = None,
        |f| f.actions.swap(0, 1),
        |f| f.actions.truncate(4),
        |f| {
            if let FileActionKind::Copy { target, .. } = &mut f.actions[0].kind {
                target.pop();
            }
        },
        |f| {
            if let FileActionKind::Copy { paths, .. } = &mut f.actions[0].kind {
                *paths = vec!["ab*".to_owned()];
            }
        },
        |f| {
            if let FileActionKind::Write { data, .. } = &mut f.actions[1].kind {
                data.push(0);
            }
        },
        |f| {
            if let FileActionKind::Mkdir { parents, .. } = &mut f.actions[2].kind {
                *parents = false;
            }
        },
        |f| {
            if let FileActionKind::Remove { allow_missing, .. } = &mut f.actions[3].kind {
                *allow_missing = true;
            }
        },
        |f| {
            if let FileActionKind::Symlink { target, .. } = &mut f.actions[4].kind {
                target.push('/');
            }
        },
    ];
    for change in files {
        let mut op = file();
        change(&mut op);
        seen.push(digest(&Op::File(op)));
    }
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), all, "a change was not seen by the digest");
}

#[test]
fn what_is_in_no_key_is_in_none() {
    let mut op = exec();
    op.volatile_env = vec![("HTTP_PROXY".to_owned(), "p".to_owned())];
    op.resources.push("memory", "1");
    assert_eq!(digest(&Op::Exec(Box::new(op))), digest(&Op::Exec(Box::new(exec()))));
    let mut op = file();
    op.actions[0].mark = Some(Span { source: 0, start: 1, end: 2 });
    assert_eq!(digest(&Op::File(op)), digest(&Op::File(file())));
    let Op::Source(SourceOp::Local(mut source)) = local() else { unreachable!() };
    source.exclude[0].at = Some(Span { source: 0, start: 1, end: 2 });
    assert_eq!(digest(&Op::Source(SourceOp::Local(source))), digest(&local()));
}

#[test]
fn names_and_sessions() {
    let mut a = Definition::new("session a", GraphLimits::default());
    let mut b = Definition::new("session b", GraphLimits::default());
    let (image_a, image_b) =
        (a.insert(image(), vec![]).unwrap(), b.insert(image(), vec![]).unwrap());
    let (local_a, local_b) =
        (a.insert(local(), vec![]).unwrap(), b.insert(local(), vec![]).unwrap());
    a.annotate(image_a, NodeMeta { name: "a name".to_owned(), ..NodeMeta::default() }).unwrap();
    assert_eq!(a.digest(image_a), b.digest(image_b), "images belong to nobody");
    assert_ne!(a.digest(local_a), b.digest(local_b), "directories belong to their session");
    let again = a.insert(image(), vec![]).unwrap();
    a.ignore_cache(again).unwrap();
    assert_ne!(a.digest(image_a), a.digest(again), "ignore-cache is work of its own");
    assert!(a.ignore_cache(image_a).is_err(), "it was looked at");
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
