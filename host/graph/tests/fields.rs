//! Two different ops never share a key: every field of every op counts, but for those that are
//! documented as *not in any key*.
//!
//! Complete by construction. One sample of each op is turned into JSON and every value in it is
//! changed, one at a time: a new field is met without anything to do. A new variant without a
//! sample, and a field that is empty in all samples, fail the test.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use wbuild_graph::encode::{ByDefinition, Encoder};
use wbuild_graph::op::*;
use wbuild_graph::{
    Attrs, Definition, Digest, Edge, GraphLimits, NodeId, NodeMeta, Op, Platform, Span,
};

/// What no key holds. JSON pointers into the samples: all that is below counts, too.
const NOT_KEYED: [&str; 6] = [
    "/exec/volatile_env",
    "/exec/resources",
    "/exec/mounts/2/kind/cache/seed",
    "/exec/mounts/2/kind/cache/seed_path",
    "/file/actions/0/mark",
    "/source/local/exclude/0/at",
];

/// What only selects content, where that content is in the key instead.
const SELECTORS: [&str; 10] = [
    "/exec/mounts/1/kind/bind/subpath",
    "/file/actions/0/kind/copy/paths",
    "/file/actions/0/kind/copy/opts/follow_links",
    "/file/actions/0/kind/copy/opts/contents_only",
    "/file/actions/0/kind/copy/opts/wildcard",
    "/file/actions/0/kind/copy/opts/parents",
    "/file/actions/0/kind/copy/opts/allow_missing",
    "/file/actions/0/kind/copy/opts/include",
    "/file/actions/0/kind/copy/opts/exclude",
    "/file/actions/0/kind/copy/opts/required",
];

fn text(text: &str) -> String {
    text.to_owned()
}

fn attrs(key: &str) -> Attrs {
    Attrs(vec![(text(key), text("1")), (text("x-more"), text("2"))])
}

fn platform() -> Platform {
    Platform {
        os: text("linux"),
        architecture: text("arm"),
        variant: Some(text("v7")),
        os_version: Some(text("10.0")),
        os_features: vec![text("one"), text("two")],
    }
}

fn span() -> Option<Span> {
    Some(Span { source: 1, start: 2, end: 3 })
}

fn sources() -> Vec<SourceOp> {
    vec![
        SourceOp::Image {
            reference: text("docker.io/library/alpine:3"),
            platform: platform(),
            attrs: attrs("resolve"),
        },
        SourceOp::Local(LocalSource {
            name: text("context"),
            include: vec![text("src"), text("lib")],
            exclude: vec![IgnorePattern { pattern: text("*.o"), at: span() }],
            follow: vec![text("link")],
            attrs: attrs("x-a"),
        }),
        SourceOp::Git { url: text("https://host/r"), reference: text("v1"), attrs: attrs("depth") },
        SourceOp::Http {
            url: text("https://host/file"),
            checksum: Some(Digest::of(b"file")),
            attrs: attrs("filename"),
        },
        SourceOp::Other {
            identifier: text("scheme://x"),
            platform: Some(platform()),
            attrs: attrs("x-b"),
        },
    ]
}

fn exec() -> ExecOp {
    let mode = MountMode { mode: Some(0o700), uid: 1, gid: 2 };
    let mount = |target: &str, kind| Mount { target: text(target), kind };
    ExecOp {
        args: vec![text("/bin/sh"), text("-c"), text("make")],
        env: vec![(text("A"), text("b")), (text("C"), text("d"))],
        volatile_env: vec![(text("HTTP_PROXY"), text("p"))],
        cwd: text("/src"),
        user: text("app"),
        hostname: text("h"),
        platform: platform(),
        network: Network::Sandbox,
        security: Security::Sandbox,
        add_hosts: vec![(text("a"), text("10.0.0.1"))],
        ulimits: vec![Ulimit { name: text("nofile"), soft: 1, hard: 2 }],
        devices: vec![(text("vendor/class"), true)],
        resources: attrs("memory"),
        valid_exit_codes: vec![0, 3],
        capture: Some(10),
        mounts: vec![
            mount(
                "/",
                MountKind::Bind { source: Some(0), subpath: text("/r"), access: Access::Rw },
            ),
            mount(
                "/m",
                MountKind::Bind { source: Some(1), subpath: text("/x"), access: Access::Ro },
            ),
            mount(
                "/c",
                MountKind::Cache {
                    id: text("go"),
                    sharing: Sharing::Locked,
                    seed: Some(2),
                    seed_path: text("/s"),
                    readonly: false,
                    mode,
                },
            ),
            mount("/t", MountKind::Tmpfs { size: Some(1 << 20), mode }),
            mount("/s", MountKind::Secret { id: text("token"), required: true, mode }),
            mount("/a", MountKind::Ssh { id: text("default"), required: false, mode }),
        ],
        secret_env: vec![SecretEnv { name: text("T"), id: text("token"), required: true }],
        attrs: attrs("x-c"),
    }
}

fn file() -> FileOp {
    let entry =
        || EntryOpts { chown: Some(text("1:2")), mode: Some(text("u=rwX")), timestamp: Some(-1) };
    let copy = CopyOpts {
        entry: entry(),
        create_dest: true,
        follow_links: false,
        contents_only: true,
        wildcard: false,
        parents: true,
        include: vec![text("i")],
        exclude: vec![text("e")],
        required: vec![text("r")],
        unpack: Unpack::Auto,
        keep_times: false,
        keep_owner: true,
        allow_missing: false,
        replace: true,
    };
    let kinds = [
        FileActionKind::Copy {
            source: 2,
            paths: vec![text("a"), text("b*")],
            target: text("/dst/"),
            opts: copy,
        },
        FileActionKind::Write { path: text("/w"), data: vec![1, 2], opts: entry() },
        FileActionKind::Mkdir { path: text("/d"), parents: true, opts: entry() },
        FileActionKind::Remove { path: text("/r"), wildcard: true, allow_missing: false },
        FileActionKind::Symlink { path: text("/l"), target: text("d"), opts: entry() },
    ];
    let mut actions: Vec<_> =
        kinds.into_iter().map(|kind| FileAction { mark: None, kind }).collect();
    actions[0].mark = span();
    FileOp { base: Some(0), names_from: Some(1), actions }
}

/// One of each kind, with everything in it filled.
fn samples() -> Vec<Op> {
    let mut ops: Vec<Op> = sources().into_iter().map(Op::Source).collect();
    ops.push(Op::Exec(Box::new(exec())));
    ops.push(Op::File(file()));
    ops.push(Op::Merge);
    ops.push(Op::Diff { lower: Some(0), upper: Some(1) });
    ops
}

/// How a key sees an op.
#[derive(Clone, Copy, Debug, PartialEq)]
enum View {
    /// All inputs by their definition.
    Definition,
    /// Those of which the op reads only a part, by content.
    Content,
}

fn digest(op: &Op, view: View) -> Digest {
    let mut e = Encoder::new("wbuild.test.v1");
    match view {
        View::Definition => op.encode(&mut e, &ByDefinition),
        View::Content => op.encode(&mut e, &op.content_inputs(8)),
    }
    e.finish()
}

/// A sample while it is changed.
struct Walk {
    sample: Value,
    /// Every changed op: where and what.
    changed: Vec<(String, Op)>,
    /// By kind of place: the variants it may have, and those that samples have.
    variants: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>,
    /// Kinds of places that are empty, and those that are not.
    empty: BTreeSet<String>,
    filled: BTreeSet<String>,
}

/// A place without its numbers: what is true for one element is for all.
fn kind_of(place: &str) -> String {
    let parts = place.split('/').filter(|part| part.parse::<usize>().is_err());
    parts.collect::<Vec<_>>().join("/")
}

impl Walk {
    fn try_with(&self, place: &str, value: Value) -> Result<Op, String> {
        let mut changed = self.sample.clone();
        *changed.pointer_mut(place).expect("a place in the sample") = value;
        serde_json::from_value(changed).map_err(|error| error.to_string())
    }

    /// Changes the value at a place; false if it may not have that value.
    fn change(&mut self, place: &str, value: Value) -> bool {
        if self.sample.pointer(place) == Some(&value) {
            return false;
        }
        let op = self.try_with(place, value);
        let valid = op.is_ok();
        self.changed.extend(op.ok().map(|op| (place.to_owned(), op)));
        valid
    }

    /// Leaves a field out, if it may be.
    fn leave_out(&mut self, place: &str, name: &str) {
        let mut without = self.sample.pointer(place).expect("it is here").clone();
        without.as_object_mut().expect("an object").shift_remove(name);
        let now = self.try_with("", self.sample.clone());
        // What is left out and what is absent are one.
        let op = self.try_with(place, without).ok().filter(|op| Ok(op) != now.as_ref());
        self.changed.extend(op.map(|op| (format!("{place}/{name}"), op)));
    }

    /// The variants that are possible at a place, if it is one of an enum.
    fn choices(&self, place: &str) -> BTreeSet<String> {
        let probe = Value::from("no such variant");
        let Err(error) = self.try_with(place, probe) else { return BTreeSet::new() };
        let Some((_, expected)) = error.split_once("unknown variant `no such variant`, expected")
        else {
            return BTreeSet::new();
        };
        expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    fn visit(&mut self, place: &str) {
        let value = self.sample.pointer(place).expect("a place in the sample").clone();
        let choices = self.choices(place);
        if !choices.is_empty() {
            let now = match &value {
                Value::String(name) => name.clone(),
                Value::Object(object) => object.keys().next().expect("a variant").clone(),
                other => panic!("{place}: {other} is no variant"),
            };
            // Those without fields can be tried here; of the others there must be samples.
            for choice in &choices {
                let tried = self.change(place, Value::from(choice.as_str()));
                let (all, met) = self.variants.entry(kind_of(place)).or_default();
                all.insert(choice.clone());
                if tried || *choice == now {
                    met.insert(choice.clone());
                }
            }
        }
        let is_empty = match &value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        match is_empty {
            true => self.empty.insert(kind_of(place)),
            false => self.filled.insert(kind_of(place)),
        };
        // What is optional can be left out.
        self.change(place, Value::Null);
        match value {
            Value::Null => {}
            Value::Bool(value) => assert!(self.change(place, Value::from(!value)), "{place}"),
            Value::Number(number) => {
                let number = number.as_i64().expect("a small number");
                assert!(self.change(place, Value::from(number + 1)), "{place}");
            }
            Value::String(value) if choices.is_empty() => {
                // A digest has no place for one more.
                let end = if value.ends_with('0') { "1" } else { "0" };
                let other = format!("{}{end}", &value[..value.len().saturating_sub(1)]);
                let changed = self.change(place, Value::from(format!("{value}x")))
                    || self.change(place, Value::from(other));
                assert!(changed, "{place}");
            }
            Value::String(_) => {}
            Value::Array(items) => self.visit_items(place, &items),
            Value::Object(fields) => {
                for (name, _) in fields {
                    self.leave_out(place, &name);
                    self.visit(&format!("{place}/{name}"));
                }
            }
        }
    }

    fn visit_items(&mut self, place: &str, items: &[Value]) {
        for number in 0..items.len() {
            let mut fewer = items.to_vec();
            fewer.remove(number);
            self.change(place, Value::from(fewer));
            let mut more = items.to_vec();
            more.insert(number, items[number].clone());
            self.change(place, Value::from(more));
            if number > 0 {
                let mut swapped = items.to_vec();
                swapped.swap(number - 1, number);
                self.change(place, Value::from(swapped));
                // Where one text ends and the next begins counts.
                if let (Value::String(one), Value::String(two)) =
                    (&items[number - 1], &items[number])
                {
                    let mut moved = items.to_vec();
                    moved[number - 1] = Value::from(format!("{one}{two}"));
                    moved[number] = Value::from("");
                    self.change(place, Value::from(moved));
                }
            }
            self.visit(&format!("{place}/{number}"));
        }
    }
}

fn is_below(place: &str, rule: &str) -> bool {
    place.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[test]
fn every_field_of_every_op_counts() {
    let mut variants: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    let (mut empty, mut filled) = (BTreeSet::new(), BTreeSet::new());
    let mut used = BTreeSet::new();
    let mut seen: BTreeMap<Digest, Op> = BTreeMap::new();
    let mut changes = 0;
    for op in samples() {
        let sample = serde_json::to_value(&op).expect("JSON");
        let mut walk = Walk {
            sample,
            changed: Vec::new(),
            variants: BTreeMap::new(),
            empty: BTreeSet::new(),
            filled: BTreeSet::new(),
        };
        walk.visit("");
        for (kind, (all, met)) in walk.variants {
            let entry = variants.entry(kind).or_default();
            entry.0.extend(all);
            entry.1.extend(met);
        }
        empty.extend(walk.empty);
        filled.extend(walk.filled);
        for (place, changed) in walk.changed {
            assert_ne!(changed, op, "{place} was changed without an effect");
            let not_keyed = NOT_KEYED.iter().find(|rule| is_below(&place, rule));
            let selector = SELECTORS.iter().find(|rule| is_below(&place, rule));
            used.extend(not_keyed.into_iter().chain(selector));
            for view in [View::Definition, View::Content] {
                let same = digest(&changed, view) == digest(&op, view);
                let expected = not_keyed.is_some() || selector.is_some() && view == View::Content;
                assert_eq!(same, expected, "{place} by {view:?}: {changed:?}");
            }
            if not_keyed.is_none() {
                changes += 1;
                let key = digest(&changed, View::Definition);
                if let Some(other) = seen.insert(key, changed.clone()) {
                    assert_eq!(other, changed, "two ops have one digest");
                }
            }
        }
    }
    for (kind, (all, met)) in variants {
        let missing: Vec<_> = all.difference(&met).collect();
        assert!(missing.is_empty(), "no sample of {kind} has the variants {missing:?}");
    }
    let never: Vec<_> = empty.difference(&filled).collect();
    assert!(never.is_empty(), "these are empty in all samples: {never:?}");
    let rules: BTreeSet<_> = NOT_KEYED.iter().chain(&SELECTORS).collect();
    assert_eq!(rules, used.iter().collect(), "a rule is about nothing");
    assert!(changes > 300, "only {changes} changes were made");
}

/// A definition over two images and a process with two outputs, and the vertex to look at.
fn definition(session: &str, op: Op, inputs: &[(u32, u32)]) -> (Definition, NodeId) {
    let mut definition = Definition::new(session, GraphLimits::default());
    for name in ["a", "b"] {
        let image = SourceOp::Image {
            reference: text(name),
            platform: platform(),
            attrs: Attrs::default(),
        };
        definition.insert(Op::Source(image), vec![]).expect("an image");
    }
    let mut process = ExecOp::new(vec![text("x")]);
    for target in ["/", "/out"] {
        let kind = MountKind::Bind { source: None, subpath: text("/"), access: Access::Rw };
        process.mounts.push(Mount { target: text(target), kind });
    }
    definition.insert(Op::Exec(Box::new(process)), vec![]).expect("a process");
    let inputs =
        inputs.iter().map(|(node, index)| Edge { node: NodeId(*node), index: *index }).collect();
    let node = definition.insert(op, inputs).expect("a valid vertex");
    (definition, node)
}

#[test]
fn inputs_marks_and_sessions_count_and_names_do_not() {
    let vertex = |session: &str, op: Op, inputs: &[(u32, u32)]| {
        let (mut definition, node) = definition(session, op, inputs);
        definition.digest(node)
    };
    let plain = vertex("s", Op::Merge, &[(0, 0), (2, 0)]);
    let mut all = BTreeSet::from([plain]);
    for inputs in [
        &[(1, 0), (2, 0)][..],
        &[(0, 0), (2, 1)],
        &[(2, 0), (0, 0)],
        &[(0, 0)],
        &[(0, 0), (2, 0), (2, 0)],
    ] {
        assert!(all.insert(vertex("s", Op::Merge, inputs)), "{inputs:?}");
    }
    let (mut ignoring, node) = definition("s", Op::Merge, &[(0, 0), (2, 0)]);
    ignoring.ignore_cache(node).expect("not looked at");
    assert!(all.insert(ignoring.digest(node)));
    // An input that ignores the cache is another input.
    let (mut ignoring, node) = definition("s", Op::Merge, &[(0, 0), (2, 0)]);
    ignoring.ignore_cache(NodeId(0)).expect("not looked at");
    assert!(all.insert(ignoring.digest(node)));

    // All of what people see; a new field does not compile here until it is thought of.
    let (mut named, node) = definition("s", Op::Merge, &[(0, 0), (2, 0)]);
    let meta = NodeMeta {
        name: text("name"),
        spans: span().into_iter().collect(),
        group: Some((text("1"), text("group"))),
        hidden: true,
    };
    named.annotate(node, meta).expect("small");
    assert_eq!(named.digest(node), plain);

    // The client's own things are another client's other things; all else belongs to nobody.
    let mut layout = sources().remove(0);
    if let SourceOp::Image { attrs, .. } = &mut layout {
        attrs.push("store", "oci-layout:x");
    }
    let with = |mounts: Vec<Mount>, secret_env: Vec<SecretEnv>| {
        let mounts = exec().mounts.drain(..1).chain(mounts).collect();
        Op::Exec(Box::new(ExecOp { mounts, secret_env, ..exec() }))
    };
    let mounts = |range: std::ops::Range<usize>| exec().mounts[range].to_vec();
    let cases = [
        (Op::Source(sources().remove(0)), false),
        (Op::Source(layout), true),
        (Op::Source(sources().remove(1)), true),
        (Op::Source(sources().remove(2)), false),
        (Op::Source(sources().remove(3)), false),
        (Op::Source(sources().remove(4)), false),
        (with(mounts(1..4), vec![]), false),
        (with(mounts(4..5), vec![]), true),
        (with(mounts(5..6), vec![]), true),
        (with(vec![], exec().secret_env), true),
        (Op::File(file()), false),
        (Op::Merge, false),
    ];
    for (op, own) in cases {
        let inputs = [(0, 0), (1, 0), (2, 0)];
        let inputs = if matches!(op, Op::Source(_)) { &inputs[..0] } else { &inputs[..] };
        let differ = vertex("s", op.clone(), inputs) != vertex("t", op.clone(), inputs);
        assert_eq!(differ, own, "{op:?}");
    }
}
