//! Ops under construction: what the builder resources of `graph` collect.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use wbuild_graph::op::{
    ExecOp, FileAction, FileActionKind, FileOp, Input, LocalSource, Mount, MountKind,
};
use wbuild_graph::{Attrs, Edge, Failure, Op, Platform, Span, decode};


/// `attrs` as bindings hand it over.
pub(crate) type Pairs = Vec<(String, String)>;

/// Bytes the host spends on texts.
pub(crate) fn texts_size<'a>(texts: impl IntoIterator<Item = &'a String>) -> usize {
    texts.into_iter().map(|text| size_of::<String>() + text.len()).sum()
}

/// Bytes the host spends on pairs.
pub(crate) fn pairs_size(pairs: &Pairs) -> usize {
    pairs.iter().map(|(key, value)| texts_size([key, value])).sum()
}

/// The inputs of a node, each once. The graph bounds their number.
#[derive(Default)]
pub(crate) struct Inputs {
    edges: Vec<Edge>,
    known: HashMap<Edge, Input>,
}

impl Inputs {
    /// The index of an input.
    pub(crate) fn add(&mut self, edge: Edge) -> Input {
        let next = u32::try_from(self.edges.len()).unwrap_or(u32::MAX);
        match self.known.entry(edge) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(slot) => {
                self.edges.push(edge);
                *slot.insert(next)
            }
        }
    }

    pub(crate) fn into_edges(self) -> Vec<Edge> {
        self.edges
    }
}

/// An exec.
pub struct ExecDraft {
    pub(crate) op: ExecOp,
    inputs: Inputs,
}

impl ExecDraft {
    pub(crate) fn new(args: Vec<String>, platform: Platform) -> Self {
        let op = ExecOp { platform, ..ExecOp::new(args) };
        ExecDraft { op, inputs: Inputs::default() }
    }

    pub(crate) fn capture(&mut self, limit: u32) -> Result<(), Failure> {
        self.op.capture = Some(decode::capture(limit)?);
        Ok(())
    }

    pub(crate) fn mount(&mut self, target: String, kind: MountKind) {
        self.op.mounts.push(Mount { target, kind });
    }

    pub(crate) fn bind(
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

    pub(crate) fn cache_dir(
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

    pub(crate) fn secret_file(
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

    pub(crate) fn ssh(
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

    pub(crate) fn finish(self) -> (Op, Vec<Edge>) {
        (Op::Exec(Box::new(self.op)), self.inputs.into_edges())
    }
}

/// A directory of the client's.
pub struct LocalDraft {
    pub(crate) source: LocalSource,
    /// What is to be solved before it is read.
    pub(crate) after: Vec<Edge>,
}

/// A file op.
#[derive(Default)]
pub struct FileDraft {
    op: FileOp,
    inputs: Inputs,
    /// Where the actions that follow come from.
    pub(crate) mark: Option<Span>,
}

impl FileDraft {
    pub(crate) fn new(base: Option<Edge>) -> Self {
        let mut draft = FileDraft::default();
        draft.op.base = base.map(|edge| draft.inputs.add(edge));
        draft
    }

    pub(crate) fn names_from(&mut self, at: Edge) {
        self.op.names_from = Some(self.inputs.add(at));
    }

    fn act(&mut self, kind: FileActionKind) {
        self.op.actions.push(FileAction { mark: self.mark, kind });
    }

    pub(crate) fn copy(
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

    pub(crate) fn write(
        &mut self,
        path: String,
        data: Vec<u8>,
        opts: &Attrs,
    ) -> Result<(), Failure> {
        let opts = decode::write_opts(opts, "file-op.write")?;
        self.act(FileActionKind::Write { path, data, opts });
        Ok(())
    }

    pub(crate) fn mkdir(&mut self, path: String, opts: &Attrs) -> Result<(), Failure> {
        let (parents, opts) = decode::mkdir_opts(opts)?;
        self.act(FileActionKind::Mkdir { path, parents, opts });
        Ok(())
    }

    pub(crate) fn remove(&mut self, path: String, opts: &Attrs) -> Result<(), Failure> {
        let (wildcard, allow_missing) = decode::remove_opts(opts)?;
        self.act(FileActionKind::Remove { path, wildcard, allow_missing });
        Ok(())
    }

    pub(crate) fn symlink(
        &mut self,
        path: String,
        target: String,
        opts: &Attrs,
    ) -> Result<(), Failure> {
        let opts = decode::write_opts(opts, "file-op.symlink")?;
        self.act(FileActionKind::Symlink { path, target, opts });
        Ok(())
    }

    pub(crate) fn finish(self) -> (Op, Vec<Edge>) {
        (Op::File(self.op), self.inputs.into_edges())
    }
}

#[cfg(test)]
mod tests {
    use wbuild_graph::NodeId;

    use super::*;

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
