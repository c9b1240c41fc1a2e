//! Ops under construction: what the calls of `wit/frontend`, interface `graph`, collect before a node
//! is inserted. Decides which keys and values each call knows; one place for components, for
//! frontends that are compiled into a program, and for tests of either.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::decode::known;
use crate::op::{
    ExecOp, FileAction, FileActionKind, FileOp, IgnorePattern, Input, LocalSource, Mount,
    MountKind, SecretEnv, SourceOp, Ulimit,
};
use crate::{Attrs, Edge, Failure, NodeMeta, Op, Platform, Span, decode};

/// A container image.
pub fn image(reference: String, platform: Platform, attrs: Attrs) -> Result<Op, Failure> {
    decode::only_known(&attrs, "graph.image", known::IMAGE)?;
    Ok(Op::Source(SourceOp::Image { reference, platform, attrs }))
}

/// A git repository.
pub fn git(url: String, reference: String, attrs: Attrs) -> Result<Op, Failure> {
    decode::only_known(&attrs, "graph.git", known::GIT)?;
    Ok(Op::Source(SourceOp::Git { url, reference, attrs }))
}

/// One file over http or https.
pub fn http(url: String, checksum: Option<&str>, attrs: Attrs) -> Result<Op, Failure> {
    decode::http_attrs(&attrs)?;
    let checksum = checksum.map(digest).transpose()?;
    Ok(Op::Source(SourceOp::Http { url, checksum, attrs }))
}

/// A digest that a plugin names.
pub fn digest(text: &str) -> Result<crate::Digest, Failure> {
    text.parse()
        .map_err(|error: crate::digest::ParseDigestError| Failure::invalid(error.to_string()))
}

/// Layers on top of each other.
pub fn merge(layers: Vec<Edge>, attrs: &Attrs) -> Result<(Op, Vec<Edge>), Failure> {
    decode::only_known(attrs, "graph.merge", &[])?;
    Ok((Op::Merge, layers))
}

/// What one has and the other has not.
pub fn diff(
    lower: Option<Edge>,
    upper: Option<Edge>,
    attrs: &Attrs,
) -> Result<(Op, Vec<Edge>), Failure> {
    decode::only_known(attrs, "graph.diff", &[])?;
    let mut inputs = Inputs::default();
    let lower = lower.map(|edge| inputs.add(edge));
    let upper = upper.map(|edge| inputs.add(edge));
    Ok((Op::Diff { lower, upper }, inputs.into_edges()))
}

/// What people see of a node.
pub fn annotation(name: String, spans: Vec<Span>, attrs: &Attrs) -> Result<NodeMeta, Failure> {
    decode::only_known(attrs, "graph.annotate", &["group", "group-name", "hidden"])?;
    let group = attrs
        .get("group")
        .map(|id| (id.to_owned(), attrs.get("group-name").unwrap_or(id).to_owned()));
    Ok(NodeMeta { name, spans, group, hidden: decode::flag(attrs, "hidden")? })
}

/// The inputs of a node, each once. The graph bounds their number.
#[derive(Debug, Default)]
struct Inputs {
    edges: Vec<Edge>,
    known: HashMap<Edge, Input>,
}

impl Inputs {
    /// The index of an input.
    fn add(&mut self, edge: Edge) -> Input {
        let next = u32::try_from(self.edges.len()).unwrap_or(u32::MAX);
        match self.known.entry(edge) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(slot) => {
                self.edges.push(edge);
                *slot.insert(next)
            }
        }
    }

    fn into_edges(self) -> Vec<Edge> {
        self.edges
    }
}

/// `exec-op`.
#[derive(Debug)]
pub struct ExecDraft {
    /// As far as it is said.
    pub op: ExecOp,
    inputs: Inputs,
}

impl ExecDraft {
    /// A process that runs on `platform`, which is the build platform unless said otherwise.
    pub fn new(args: Vec<String>, platform: Platform) -> Self {
        let op = ExecOp { platform, ..ExecOp::new(args) };
        ExecDraft { op, inputs: Inputs::default() }
    }

    /// `network`.
    pub fn network(&mut self, mode: &str) -> Result<(), Failure> {
        self.op.network = decode::network(mode)?;
        Ok(())
    }

    /// `security`.
    pub fn security(&mut self, mode: &str) -> Result<(), Failure> {
        self.op.security = decode::security(mode)?;
        Ok(())
    }

    /// `ulimit`.
    pub fn ulimit(&mut self, name: String, soft: i64, hard: i64) {
        self.op.ulimits.push(Ulimit { name, soft, hard });
    }

    /// `resources`.
    pub fn resources(&mut self, limits: Attrs) -> Result<(), Failure> {
        decode::only_known(&limits, "exec-op.resources", known::RESOURCES)?;
        self.op.resources.0.extend(limits.0);
        Ok(())
    }

    /// `attrs`.
    pub fn attrs(&mut self, attrs: Attrs) -> Result<(), Failure> {
        decode::only_known(&attrs, "exec-op.attrs", known::EXEC)?;
        self.op.attrs.0.extend(attrs.0);
        Ok(())
    }

    /// `capture`.
    pub fn capture(&mut self, limit: u32) -> Result<(), Failure> {
        self.op.capture = Some(decode::capture(limit)?);
        Ok(())
    }

    fn mount(&mut self, target: String, kind: MountKind) {
        self.op.mounts.push(Mount { target, kind });
    }

    /// `bind`.
    pub fn bind(
        &mut self,
        target: String,
        source: Option<Edge>,
        subpath: String,
        access: &str,
        opts: &Attrs,
    ) -> Result<(), Failure> {
        decode::only_known(opts, "exec-op.bind", &[])?;
        let access = decode::access(access)?;
        let source = source.map(|edge| self.inputs.add(edge));
        self.mount(target, MountKind::Bind { source, subpath, access });
        Ok(())
    }

    /// `cache-dir`.
    pub fn cache_dir(
        &mut self,
        target: String,
        id: String,
        sharing: &str,
        seed: Option<Edge>,
        opts: &Attrs,
    ) -> Result<(), Failure> {
        let seed = seed.map(|edge| self.inputs.add(edge));
        let kind = decode::cache_mount(id, sharing, seed, opts)?;
        self.mount(target, kind);
        Ok(())
    }

    /// `tmpfs`.
    pub fn tmpfs(&mut self, target: String, opts: &Attrs) -> Result<(), Failure> {
        self.mount(target, decode::tmpfs_mount(opts)?);
        Ok(())
    }

    /// `secret-env`.
    pub fn secret_env(&mut self, name: String, id: String, required: bool) {
        self.op.secret_env.push(SecretEnv { name, id, required });
    }

    /// `secret-file`.
    pub fn secret_file(
        &mut self,
        target: String,
        id: String,
        required: bool,
        opts: &Attrs,
    ) -> Result<(), Failure> {
        decode::only_known(opts, "exec-op.secret-file", &["mode", "uid", "gid"])?;
        let mode = decode::mount_mode(opts)?;
        self.mount(target, MountKind::Secret { id, required, mode });
        Ok(())
    }

    /// `ssh`.
    pub fn ssh(
        &mut self,
        target: String,
        id: String,
        required: bool,
        opts: &Attrs,
    ) -> Result<(), Failure> {
        decode::only_known(opts, "exec-op.ssh", &["mode", "uid", "gid"])?;
        let mode = decode::mount_mode(opts)?;
        self.mount(target, MountKind::Ssh { id, required, mode });
        Ok(())
    }

    /// The op and its inputs.
    pub fn finish(self) -> (Op, Vec<Edge>) {
        (Op::Exec(Box::new(self.op)), self.inputs.into_edges())
    }
}

/// `local-source`.
#[derive(Debug)]
pub struct LocalDraft {
    /// As far as it is said.
    pub source: LocalSource,
    /// What is to be solved before it is read.
    pub after: Vec<Edge>,
}

impl LocalDraft {
    /// All of a directory.
    pub fn new(name: String) -> Self {
        LocalDraft { source: LocalSource { name, ..LocalSource::default() }, after: Vec::new() }
    }

    /// `exclude`.
    pub fn exclude(&mut self, pattern: String, at: Option<Span>) {
        self.source.exclude.push(IgnorePattern { pattern, at });
    }

    /// `attrs`.
    pub fn attrs(&mut self, attrs: Attrs) -> Result<(), Failure> {
        decode::only_known(&attrs, "local-source.attrs", &[])?;
        self.source.attrs.0.extend(attrs.0);
        Ok(())
    }

    /// The op and its inputs.
    pub fn finish(self) -> (Op, Vec<Edge>) {
        (Op::Source(SourceOp::Local(self.source)), self.after)
    }
}

/// `file-op`.
#[derive(Debug, Default)]
pub struct FileDraft {
    op: FileOp,
    inputs: Inputs,
    /// Where the actions that follow come from.
    pub mark: Option<Span>,
}

impl FileDraft {
    /// Actions on a base; none = on nothing.
    pub fn new(base: Option<Edge>) -> Self {
        let mut draft = FileDraft::default();
        draft.op.base = base.map(|edge| draft.inputs.add(edge));
        draft
    }

    /// `names-from`.
    pub fn names_from(&mut self, at: Edge) {
        self.op.names_from = Some(self.inputs.add(at));
    }

    fn act(&mut self, kind: FileActionKind) {
        self.op.actions.push(FileAction { mark: self.mark, kind });
    }

    /// `copy`.
    pub fn copy(
        &mut self,
        source: Edge,
        paths: Vec<String>,
        target: String,
        opts: &Attrs,
    ) -> Result<(), Failure> {
        let opts = decode::copy_opts(opts)?;
        let source = self.inputs.add(source);
        self.act(FileActionKind::Copy { source, paths, target, opts });
        Ok(())
    }

    /// `write`.
    pub fn write(&mut self, path: String, data: Vec<u8>, opts: &Attrs) -> Result<(), Failure> {
        let opts = decode::write_opts(opts, "file-op.write")?;
        self.act(FileActionKind::Write { path, data, opts });
        Ok(())
    }

    /// `mkdir`.
    pub fn mkdir(&mut self, path: String, opts: &Attrs) -> Result<(), Failure> {
        let (parents, opts) = decode::mkdir_opts(opts)?;
        self.act(FileActionKind::Mkdir { path, parents, opts });
        Ok(())
    }

    /// `remove`.
    pub fn remove(&mut self, path: String, opts: &Attrs) -> Result<(), Failure> {
        let (wildcard, allow_missing) = decode::remove_opts(opts)?;
        self.act(FileActionKind::Remove { path, wildcard, allow_missing });
        Ok(())
    }

    /// `symlink`.
    pub fn symlink(&mut self, path: String, target: String, opts: &Attrs) -> Result<(), Failure> {
        let opts = decode::write_opts(opts, "file-op.symlink")?;
        self.act(FileActionKind::Symlink { path, target, opts });
        Ok(())
    }

    /// The op and its inputs.
    pub fn finish(self) -> (Op, Vec<Edge>) {
        (Op::File(self.op), self.inputs.into_edges())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    fn edge(node: u32) -> Edge {
        Edge { node: NodeId(node), index: 0 }
    }

    #[test]
    fn an_input_used_twice_is_one_input() {
        let mut draft = FileDraft::new(Some(edge(1)));
        let none = Attrs::default();
        draft.copy(edge(2), vec!["/a".into()], "/b".into(), &none).expect("copy");
        draft.copy(edge(1), vec!["/c".into()], "/d".into(), &none).expect("copy");
        draft.names_from(edge(2));
        let (op, inputs) = draft.finish();
        assert_eq!(inputs, [edge(1), edge(2)]);
        let Op::File(op) = op else { panic!("a file op") };
        assert_eq!((op.base, op.names_from), (Some(0), Some(1)));
        assert_eq!(Op::File(op).references().into_iter().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn options_that_are_not_known_are_refused_by_name() {
        let mut draft = ExecDraft::new(vec!["true".into()], Platform::host());
        let opts = Attrs(vec![("colour".into(), "red".into())]);
        let failure = draft.ssh("/s".into(), "a".into(), true, &opts).expect_err("unknown");
        assert_eq!(failure.message, "exec-op.ssh does not know the key \"colour\"");
        let failure = draft
            .bind("/".into(), None, String::new(), "rx", &Attrs::default())
            .expect_err("unknown");
        assert_eq!(failure.message, "unknown bind access \"rx\"");
        assert!(draft.op.mounts.is_empty(), "a refused mount is not added");
    }
}
