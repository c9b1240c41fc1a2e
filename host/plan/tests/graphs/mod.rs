//! Graphs for the tests: one with everything, and small ones written down in lines.

use std::collections::HashMap;

use serde_json::json;
use wbuild_graph::op::*;
use wbuild_graph::{
    Attrs, Definition, Digest, Edge, GraphLimits, NodeMeta, Op, Platform, SourceFile, SourceMap,
    Span,
};
use wbuild_plan::{Files, FrontendId, Image, Pin, Plan, Results, VERSION};

fn attrs(key: &str, value: &str) -> Attrs {
    Attrs(vec![(key.to_owned(), value.to_owned())])
}

fn platform() -> Platform {
    "linux/amd64".parse().expect("platform")
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn frontend() -> FrontendId {
    FrontendId { name: text("test"), digest: Digest::of(b"test"), wit: text("0.1.0") }
}

/// A plan in which every key occurs.
pub fn everything() -> (Plan, Definition, SourceMap) {
    let mut sources = SourceMap::default();
    let source = SourceFile {
        name: text("Buildfile"),
        language: String::new(),
        text: b"one\ntwo three\n"[..].into(),
    };
    let source = sources.add(source);
    let mut graph = Definition::new("client", GraphLimits::default());
    let mut add = |op, inputs: &[u32]| {
        let inputs = inputs.iter().map(|node| Edge { node: wbuild_graph::NodeId(*node), index: 0 });
        graph.insert(op, inputs.collect()).expect("valid")
    };
    let image = SourceOp::Image {
        reference: text("docker.io/library/base:1"),
        platform: platform(),
        attrs: attrs("resolve", "local"),
    };
    add(Op::Source(image), &[]);
    let at = Some(Span { source, start: 0, end: 3 });
    add(
        Op::Source(SourceOp::Local(LocalSource {
            name: text("context"),
            include: vec![text("src")],
            exclude: vec![IgnorePattern { pattern: text("*.o"), at }],
            follow: vec![text("link")],
            attrs: attrs("x-a", "b"),
        })),
        &[],
    );
    let git = SourceOp::Git {
        url: text("https://example.org/r.git"),
        reference: text("main"),
        attrs: attrs("subdir", "d"),
    };
    add(Op::Source(git), &[]);
    let http = SourceOp::Http {
        url: text("https://example.org/f"),
        checksum: Some(Digest::of(b"f")),
        attrs: attrs("filename", "f"),
    };
    add(Op::Source(http), &[]);
    let other = SourceOp::Other {
        identifier: text("other://x"),
        platform: Some(platform()),
        attrs: Attrs::default(),
    };
    add(Op::Source(other), &[]);
    let exec = add(Op::Exec(Box::new(exec())), &[0, 1]);
    add(Op::File(file()), &[0, 1]);
    add(Op::Merge, &[5, 6]);
    let diff = add(Op::Diff { lower: Some(0), upper: Some(1) }, &[0, 7]);
    add(Op::Merge, &[2, 3, 4]);
    let meta = NodeMeta {
        name: text("[1/1] RUN make\n\"it\""),
        spans: vec![Span { source, start: 4, end: 13 }, Span { source: 7, start: 1, end: 2 }],
        group: Some((text("g"), text("the group"))),
        hidden: true,
    };
    graph.annotate(exec, meta).expect("annotated");
    graph.ignore_cache(exec).expect("marked");
    let root = Edge { node: diff, index: 0 };
    let files = |name: &str, platform: &str| Files {
        name: text(name),
        platform: text(platform),
        root: Edge { node: exec, index: 1 }.into(),
        path: text("/out"),
        attrs: vec![text("dest=out")],
    };
    let results = Results {
        images: vec![Image {
            name: text("app"),
            platform: platform().to_string(),
            root: Some(root.into()),
            config: json!({"os": "linux", "config": {"Env": ["A=1"]}}),
            attrs: vec![text("tag=app:1")],
        }],
        files: vec![files("bin", "linux/amd64"), files("", "")],
        required: vec![root.into()],
        effects: vec![Edge { node: exec, index: 0 }.into()],
        fails: Some(Edge { node: exec, index: 0 }.into()),
        published: vec![text("app")],
    };
    let pins = vec![
        Pin {
            kind: text("git"),
            name: text("https://example.org/r.git"),
            reference: text("main"),
            platform: String::new(),
            pin: text("0123456789012345678901234567890123456789"),
        },
        Pin {
            kind: text("image"),
            name: text("base:1"),
            reference: String::new(),
            platform: text("linux/amd64"),
            pin: Digest::of(b"base").to_string(),
        },
    ];
    let nodes = wbuild_plan::nodes(&graph, &sources);
    (Plan { version: VERSION, frontend: frontend(), nodes, results, pins }, graph, sources)
}

fn exec() -> ExecOp {
    let mode = MountMode { mode: Some(0o1777), uid: 1, gid: 2 };
    let kinds = [
        ("/", MountKind::Bind { source: Some(0), subpath: String::new(), access: Access::Rw }),
        ("/src", MountKind::Bind { source: Some(1), subpath: text("a"), access: Access::Ro }),
        ("/tmp", MountKind::Bind { source: None, subpath: String::new(), access: Access::Rw }),
        (
            "/cache",
            MountKind::Cache {
                id: text("c"),
                sharing: Sharing::Locked,
                seed: Some(0),
                seed_path: text("s"),
                readonly: true,
                mode,
            },
        ),
        ("/mem", MountKind::Tmpfs { size: Some(1 << 20), mode }),
        ("/secret", MountKind::Secret { id: text("s"), required: true, mode }),
        ("/agent", MountKind::Ssh { id: text("default"), required: false, mode }),
    ];
    ExecOp {
        env: vec![(text("A"), text("1")), (text("A"), text("2"))],
        volatile_env: vec![(text("V"), text("v"))],
        cwd: text("/w"),
        user: text("app"),
        hostname: text("h"),
        platform: platform(),
        network: Network::None,
        security: Security::Insecure,
        add_hosts: vec![(text("db"), text("10.0.0.1"))],
        ulimits: vec![Ulimit { name: text("nofile"), soft: 1, hard: -1 }],
        devices: vec![(text("v/c=d"), true)],
        resources: attrs("memory", "1"),
        valid_exit_codes: vec![0, 2],
        capture: Some(100),
        mounts: kinds.map(|(target, kind)| Mount { target: text(target), kind }).into(),
        secret_env: vec![SecretEnv { name: text("T"), id: text("t"), required: true }],
        attrs: attrs("k", "v"),
        ..ExecOp::new(vec![text("make"), text("all")])
    }
}

fn file() -> FileOp {
    let entry =
        EntryOpts { chown: Some(text("app:app")), mode: Some(text("0644")), timestamp: Some(1) };
    let copy = CopyOpts {
        entry: entry.clone(),
        create_dest: true,
        follow_links: true,
        contents_only: true,
        wildcard: true,
        parents: true,
        include: vec![text("*.c")],
        exclude: vec![text("*.o")],
        required: vec![text(".")],
        unpack: Unpack::Auto,
        keep_times: true,
        keep_owner: true,
        allow_missing: true,
        replace: true,
    };
    let kinds = [
        FileActionKind::Copy { source: 1, paths: vec![text("a")], target: text("/a"), opts: copy },
        FileActionKind::Write { path: text("/t"), data: b"text\n".to_vec(), opts: entry.clone() },
        FileActionKind::Write { path: text("/b"), data: vec![0xff], opts: EntryOpts::default() },
        FileActionKind::Mkdir { path: text("/d"), parents: true, opts: entry.clone() },
        FileActionKind::Remove { path: text("/r"), wildcard: true, allow_missing: true },
        FileActionKind::Symlink { path: text("/l"), target: text("t"), opts: entry },
    ];
    let actions = kinds.map(|kind| FileAction { mark: None, kind }).into();
    FileOp { base: Some(0), names_from: Some(1), actions }
}

/// Reads a graph: a line is a step and stands on the one before it of its stage. `FROM IMAGE`,
/// `RUN WORD…` with variables `NAME=VALUE` before the words, `WRITE TEXT` (`\n` is a line feed),
/// `COPY STAGE PATH`. `ENV NAME=VALUE` is for the image, which stands on the last step; `PIN NAME PIN`
/// and `FRONTEND NAME` are what they say.
pub fn read(lines: &str) -> Plan {
    let mut sources = SourceMap::default();
    let file =
        SourceFile { name: text("file"), language: String::new(), text: lines.as_bytes().into() };
    let source = sources.add(file);
    let mut graph = Definition::new("client", GraphLimits::default());
    let mut stages: HashMap<&str, Edge> = HashMap::new();
    let (mut env, mut pins, mut root) = (Vec::new(), Vec::new(), None);
    let mut frontend = frontend();
    let mut offset = 0;
    for line in lines.split_inclusive('\n') {
        let start = offset;
        offset += line.len();
        let line = line.trim_end();
        let name = wbuild_graph::NameParts::of(line);
        let (word, rest) = name.text.split_once(' ').expect("a word and more");
        let base: Vec<Edge> = stages.get(name.stage).copied().into_iter().collect();
        let on = base.first().map(|_| 0);
        let write = |kind| FileOp {
            base: on,
            names_from: None,
            actions: vec![FileAction { mark: None, kind }],
        };
        let (op, inputs) = match word {
            "FROM" => {
                let (reference, attrs) = (text(rest), Attrs::default());
                let image = SourceOp::Image { reference, platform: platform(), attrs };
                (Op::Source(image), Vec::new())
            }
            "RUN" => {
                let is_variable = |word: &&str| word.contains('=');
                let pair = |word: &str| {
                    let (name, value) = word.split_once('=').expect("a variable");
                    (text(name), text(value))
                };
                let words = rest.split(' ');
                let kind =
                    MountKind::Bind { source: on, subpath: String::new(), access: Access::Rw };
                let exec = ExecOp {
                    env: words.clone().take_while(is_variable).map(pair).collect(),
                    mounts: vec![Mount { target: text("/"), kind }],
                    platform: platform(),
                    ..ExecOp::new(words.skip_while(is_variable).map(text).collect())
                };
                (Op::Exec(Box::new(exec)), base)
            }
            "WRITE" => {
                let data = rest.replace("\\n", "\n").into_bytes();
                let (path, opts) = (text("/f"), EntryOpts::default());
                (Op::File(write(FileActionKind::Write { path, data, opts })), base)
            }
            "COPY" => {
                let (stage, path) = rest.split_once(' ').expect("stage and path");
                let inputs: Vec<Edge> = base.into_iter().chain([stages[stage]]).collect();
                let source = u32::try_from(inputs.len() - 1).expect("small");
                let (paths, target) = (vec![text(path)], text("/"));
                let opts = CopyOpts::default();
                (Op::File(write(FileActionKind::Copy { source, paths, target, opts })), inputs)
            }
            "ENV" => {
                env.push(text(rest));
                continue;
            }
            "PIN" => {
                let (name, pin) = rest.split_once(' ').expect("name and pin");
                let (kind, none) = (text("image"), String::new());
                let (name, pin) = (text(name), text(pin));
                pins.push(Pin { kind, name, reference: none.clone(), platform: none, pin });
                continue;
            }
            "FRONTEND" => {
                frontend.digest = Digest::of(rest.as_bytes());
                continue;
            }
            other => panic!("{other:?} is no word"),
        };
        let node = graph.insert(op, inputs).expect("valid");
        let byte = |at: usize| u32::try_from(at).expect("small");
        let spans = vec![Span { source, start: byte(start), end: byte(start + line.len()) }];
        let meta = NodeMeta { name: text(line), spans, ..NodeMeta::default() };
        graph.annotate(node, meta).expect("annotated");
        let edge = Edge { node, index: 0 };
        stages.insert(name.stage, edge);
        root = Some(edge.into());
    }
    let config = json!({"config": {"Env": env}, "history": [{"created_by": lines}]});
    let (name, attrs) = (String::new(), Vec::new());
    let images = vec![Image { name, platform: platform().to_string(), root, config, attrs }];
    let results = Results { images, ..Results::default() };
    let nodes = wbuild_plan::nodes(&graph, &sources);
    Plan { version: VERSION, frontend, nodes, results, pins }
}
