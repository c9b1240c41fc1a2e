//! A stable text form of a definition, for goldens and `wbuild graph`.
//!
//! One block a node, in order: `#<id> <kind> <name>`, then indented fields. Digests are left out,
//! since they follow from the fields; spans are shown as `source:start-end`.

use std::fmt::Write as _;

use crate::op::*;
use crate::{Definition, Edge, NodeId, Span};

/// The whole definition as text.
pub fn dump(definition: &Definition) -> String {
    let span = |span: Span| format!("{}:{}-{}", span.source, span.start, span.end);
    dump_some(definition, &|_| true, &span)
}

/// The nodes that are `wanted` as text, with places as `place` says them.
pub fn dump_some(
    definition: &Definition,
    wanted: &dyn Fn(NodeId) -> bool,
    place: &dyn Fn(Span) -> String,
) -> String {
    let mut out = String::new();
    for id in definition.ids().filter(|id| wanted(*id)) {
        node(&mut out, definition, id, place);
    }
    out
}

struct Block<'a> {
    out: &'a mut String,
}

impl Block<'_> {
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.out, "  {text}");
    }

    fn list(&mut self, name: &str, items: &[String]) {
        if !items.is_empty() {
            self.line(format_args!("{name} {items:?}"));
        }
    }
}

fn edge(edge: &Edge) -> String {
    match edge.index {
        0 => format!("#{}", edge.node.0),
        index => format!("#{}.{index}", edge.node.0),
    }
}

fn node(out: &mut String, definition: &Definition, id: NodeId, place: &dyn Fn(Span) -> String) {
    let vertex = definition.vertex(id);
    let meta = definition.meta(id);
    let input =
        |index: &Input| vertex.inputs.get(*index as usize).map_or_else(|| "?".to_owned(), edge);
    let kind = match &vertex.op {
        Op::Source(_) => "source",
        Op::Exec(_) => "exec",
        Op::File(_) => "file",
        Op::Merge => "merge",
        Op::Diff { .. } => "diff",
    };
    let _ = writeln!(out, "#{} {kind} {}", id.0, meta.name);
    let mut b = Block { out };
    match &vertex.op {
        Op::Source(source) => dump_source(&mut b, source),
        Op::Exec(exec) => dump_exec(&mut b, exec, &input),
        Op::File(file) => dump_file(&mut b, file, &input),
        Op::Merge => {
            let layers: Vec<String> = vertex.inputs.iter().map(edge).collect();
            b.line(format_args!("layers {}", layers.join(" ")));
        }
        Op::Diff { lower, upper } => {
            b.line(format_args!(
                "lower {} upper {}",
                lower.as_ref().map_or("empty".to_owned(), input),
                upper.as_ref().map_or("empty".to_owned(), input)
            ));
        }
    }
    if definition.ignores_cache(id) {
        b.line(format_args!("ignore-cache"));
    }
    if !meta.spans.is_empty() {
        let spans: Vec<String> = meta.spans.iter().map(|span| place(*span)).collect();
        b.line(format_args!("spans {}", spans.join(" ")));
    }
}

fn dump_source(b: &mut Block<'_>, source: &SourceOp) {
    let more = match source {
        SourceOp::Image { reference, platform, attrs } => {
            b.line(format_args!("image {reference} {platform}"));
            attrs
        }
        SourceOp::Local(local) => {
            b.line(format_args!("local {}", local.name));
            b.list("include", &local.include);
            let exclude: Vec<String> = local.exclude.iter().map(|p| p.pattern.clone()).collect();
            b.list("exclude", &exclude);
            b.list("follow", &local.follow);
            &local.attrs
        }
        SourceOp::Git { url, reference, attrs } => {
            b.line(format_args!("git {url} {reference}"));
            attrs
        }
        SourceOp::Http { url, checksum, attrs } => {
            b.line(format_args!("http {url}"));
            if let Some(checksum) = checksum {
                b.line(format_args!("checksum {checksum}"));
            }
            attrs
        }
        SourceOp::Other { identifier, platform, attrs } => {
            let platform = platform.as_ref().map_or(String::new(), |p| format!(" {p}"));
            b.line(format_args!("other {identifier}{platform}"));
            attrs
        }
    };
    for (key, value) in more.iter() {
        b.line(format_args!("{key} {value}"));
    }
}

fn dump_exec(b: &mut Block<'_>, exec: &ExecOp, input: &dyn Fn(&Input) -> String) {
    b.list("args", &exec.args);
    for (key, value) in &exec.env {
        b.line(format_args!("env {key}={value}"));
    }
    for (key, _) in &exec.volatile_env {
        b.line(format_args!("volatile-env {key}"));
    }
    b.line(format_args!("cwd {}", exec.cwd));
    for (name, value) in [("user", &exec.user), ("hostname", &exec.hostname)] {
        if !value.is_empty() {
            b.line(format_args!("{name} {value}"));
        }
    }
    b.line(format_args!("platform {}", exec.platform));
    if exec.network != Network::Sandbox {
        b.line(format_args!("network {:?}", exec.network));
    }
    if exec.security != Security::Sandbox {
        b.line(format_args!("security {:?}", exec.security));
    }
    for (name, address) in &exec.add_hosts {
        b.line(format_args!("host {name} {address}"));
    }
    for limit in &exec.ulimits {
        b.line(format_args!("ulimit {} {}:{}", limit.name, limit.soft, limit.hard));
    }
    for (device, required) in &exec.devices {
        b.line(format_args!("device {device} required {required}"));
    }
    for (key, value) in exec.resources.iter() {
        b.line(format_args!("resource {key} {value}"));
    }
    if !exec.valid_exit_codes.is_empty() {
        b.line(format_args!("valid-exit-codes {:?}", exec.valid_exit_codes));
    }
    if let Some(limit) = exec.capture {
        b.line(format_args!("capture {limit}"));
    }
    for mount in &exec.mounts {
        let target = &mount.target;
        match &mount.kind {
            MountKind::Bind { source, subpath, access } => {
                let from = source.as_ref().map_or("empty".to_owned(), input);
                b.line(format_args!("bind {target} {from} {subpath:?} {access:?}"));
            }
            MountKind::Cache { id, sharing, seed, seed_path, readonly, mode } => {
                let seed = seed.as_ref().map_or("none".to_owned(), input);
                b.line(format_args!(
                    "cache {target} {id:?} {sharing:?} seed {seed} {seed_path:?} readonly {readonly} {}",
                    describe(mode)
                ));
            }
            MountKind::Tmpfs { size, mode } => {
                b.line(format_args!("tmpfs {target} size {size:?} {}", describe(mode)));
            }
            MountKind::Secret { id, required, mode } => {
                b.line(format_args!("secret {target} {id} required {required} {}", describe(mode)));
            }
            MountKind::Ssh { id, required, mode } => {
                b.line(format_args!("ssh {target} {id} required {required} {}", describe(mode)));
            }
        }
    }
    for secret in &exec.secret_env {
        b.line(format_args!(
            "secret-env {} {} required {}",
            secret.name, secret.id, secret.required
        ));
    }
    for (key, value) in exec.attrs.iter() {
        b.line(format_args!("{key} {value}"));
    }
}

fn describe(mode: &MountMode) -> String {
    let bits = mode.mode.map_or("default".to_owned(), |m| format!("{m:04o}"));
    format!("mode {bits} owner {}:{}", mode.uid, mode.gid)
}

fn entry(opts: &EntryOpts) -> String {
    let mut out = String::new();
    if let Some(chown) = &opts.chown {
        let _ = write!(out, " chown {chown}");
    }
    if let Some(mode) = &opts.mode {
        let _ = write!(out, " mode {mode}");
    }
    if let Some(timestamp) = opts.timestamp {
        let _ = write!(out, " timestamp {timestamp}");
    }
    out
}

fn dump_file(b: &mut Block<'_>, file: &FileOp, input: &dyn Fn(&Input) -> String) {
    b.line(format_args!("base {}", file.base.as_ref().map_or("empty".to_owned(), input)));
    if let Some(names) = &file.names_from {
        b.line(format_args!("names-from {}", input(names)));
    }
    for action in &file.actions {
        match &action.kind {
            FileActionKind::Copy { source, paths, target, opts } => {
                let mut flags = String::new();
                for (set, name) in [
                    (opts.create_dest, "create-dest"),
                    (opts.follow_links, "follow-links"),
                    (opts.contents_only, "contents-only"),
                    (opts.wildcard, "wildcard"),
                    (opts.parents, "parents"),
                    (opts.keep_times, "keep-times"),
                    (opts.keep_owner, "keep-owner"),
                    (opts.allow_missing, "allow-missing"),
                    (opts.replace, "replace"),
                ] {
                    if set {
                        flags.push(' ');
                        flags.push_str(name);
                    }
                }
                if opts.unpack != Unpack::Never {
                    let _ = write!(flags, " unpack {:?}", opts.unpack);
                }
                b.line(format_args!(
                    "copy {} {paths:?} -> {target:?}{}{flags}",
                    input(source),
                    entry(&opts.entry)
                ));
                b.list("  include", &opts.include);
                b.list("  exclude", &opts.exclude);
                b.list("  required", &opts.required);
            }
            FileActionKind::Write { path, data, opts } => {
                let text = String::from_utf8_lossy(data);
                b.line(format_args!("write {path:?} {text:?}{}", entry(opts)));
            }
            FileActionKind::Mkdir { path, parents, opts } => {
                let parents = if *parents { " parents" } else { "" };
                b.line(format_args!("mkdir {path:?}{parents}{}", entry(opts)));
            }
            FileActionKind::Remove { path, wildcard, allow_missing } => {
                b.line(format_args!(
                    "remove {path:?} wildcard {wildcard} allow-missing {allow_missing}"
                ));
            }
            FileActionKind::Symlink { path, target, opts } => {
                b.line(format_args!("symlink {path:?} -> {target:?}{}", entry(opts)));
            }
        }
    }
}
