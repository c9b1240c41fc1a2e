//! The graph as a frontend builds it: nodes are appended, each checked when it arrives, so that an
//! error points at the line that made it and a cycle cannot be written down.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::encode::{ByDefinition, Encoder};
use crate::op::{FileActionKind, Mount, MountKind, Op, Security, SourceOp};
use crate::{Failure, FailureKind, Span, VertexDigest, quoted};

/// A node of one definition. Two nodes with equal digests keep their own names and spans; their
/// work is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u32);

/// One output of one node: what other nodes take as input, and what is solved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edge {
    /// Which node.
    pub node: NodeId,
    /// Which of its outputs.
    pub index: u32,
}

/// A node: an op and where its inputs come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vertex {
    /// What to do.
    pub op: Op,
    /// By index.
    pub inputs: Vec<Edge>,
}

/// What people see of a node; in no digest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeMeta {
    /// For progress and errors.
    pub name: String,
    /// Places in the sources that made it.
    pub spans: Vec<Span>,
    /// Progress group: id and name.
    pub group: Option<(String, String)>,
    /// Not shown unless it fails.
    pub hidden: bool,
}

/// Bounds of a definition.
#[derive(Clone, Copy, Debug)]
pub struct GraphLimits {
    /// Number of nodes.
    pub nodes: usize,
    /// Number of inputs of all nodes together.
    pub edges: usize,
    /// Size of all ops together, in encoded bytes.
    pub bytes: usize,
}

impl Default for GraphLimits {
    fn default() -> Self {
        GraphLimits { nodes: 100_000, edges: 1_000_000, bytes: 64 << 20 }
    }
}

#[derive(Clone, Debug)]
struct Node {
    vertex: Arc<Vertex>,
    meta: NodeMeta,
    ignore_cache: bool,
    /// Computed when first asked for; from then on the node is fixed.
    digest: Option<VertexDigest>,
}

/// A valid graph that only grows.
#[derive(Clone, Debug, Default)]
pub struct Definition {
    nodes: Vec<Node>,
    limits: GraphLimits,
    edges: usize,
    bytes: usize,
    session: String,
}

impl Definition {
    /// An empty definition. `session` names the client whose directories, secrets and agents the
    /// ops refer to: two clients' are different work, although they may share a cache key.
    pub fn new(session: impl Into<String>, limits: GraphLimits) -> Self {
        Definition { limits, session: session.into(), ..Definition::default() }
    }

    /// Appends a node.
    ///
    /// # Errors
    ///
    /// `Invalid` when an input does not exist or the op contradicts itself, `Limit` when the graph
    /// grows past its limits.
    pub fn insert(&mut self, op: Op, inputs: Vec<Edge>) -> Result<NodeId, Failure> {
        let limit = |what: &str, bound: usize| {
            Failure::new(FailureKind::Limit, format!("the graph has more than {bound} {what}"))
        };
        if self.nodes.len() >= self.limits.nodes {
            return Err(limit("nodes", self.limits.nodes));
        }
        self.edges += inputs.len();
        if self.edges > self.limits.edges {
            return Err(limit("inputs", self.limits.edges));
        }
        for edge in &inputs {
            self.check_edge(*edge)?;
        }
        if let Some(bad) = op.references().into_iter().find(|i| *i as usize >= inputs.len()) {
            return Err(Failure::invalid(format!(
                "the op refers to input {bad}, but the node has {} inputs",
                inputs.len()
            )));
        }
        check_op(&op)?;
        let mut size = Encoder::new("size");
        op.encode(&mut size, &ByDefinition);
        self.bytes = self.bytes.saturating_add(size.as_bytes().len() + unhashed(&op));
        if self.bytes > self.limits.bytes {
            return Err(limit("bytes", self.limits.bytes));
        }
        let id =
            NodeId(u32::try_from(self.nodes.len()).map_err(|_| limit("nodes", u32::MAX as usize))?);
        self.nodes.push(Node {
            vertex: Arc::new(Vertex { op, inputs }),
            meta: NodeMeta::default(),
            ignore_cache: false,
            digest: None,
        });
        Ok(id)
    }

    /// Checks that `edge` exists here.
    ///
    /// # Errors
    ///
    /// `Invalid` when it does not.
    pub fn check_edge(&self, edge: Edge) -> Result<(), Failure> {
        let node = self.nodes.get(edge.node.0 as usize).ok_or_else(|| {
            Failure::invalid(format!("there is no node {} in this graph", edge.node.0))
        })?;
        let outputs = node.vertex.op.outputs();
        if edge.index >= outputs {
            return Err(Failure::invalid(format!(
                "node {} has {outputs} outputs, there is no output {}",
                edge.node.0, edge.index
            )));
        }
        Ok(())
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The vertex of a node of this definition.
    ///
    /// # Panics
    ///
    /// When `id` is of another definition.
    pub fn vertex(&self, id: NodeId) -> &Arc<Vertex> {
        &self.node(id).vertex
    }

    /// What people see of a node.
    pub fn meta(&self, id: NodeId) -> &NodeMeta {
        &self.node(id).meta
    }

    /// Sets what people see of a node.
    ///
    /// # Errors
    ///
    /// `Invalid` when the node does not exist, `Limit` when the graph grows past its limits.
    pub fn annotate(&mut self, id: NodeId, meta: NodeMeta) -> Result<(), Failure> {
        self.check_edge(Edge { node: id, index: 0 }).or_else(|error| {
            // A node may have no outputs at all and still have a name.
            if (id.0 as usize) < self.nodes.len() { Ok(()) } else { Err(error) }
        })?;
        let node = &mut self.nodes[id.0 as usize];
        let others = self.bytes.saturating_sub(meta_size(&node.meta));
        let bytes = others.saturating_add(meta_size(&meta));
        if bytes > self.limits.bytes {
            let message = format!("the graph has more than {} bytes", self.limits.bytes);
            return Err(Failure::new(FailureKind::Limit, message));
        }
        self.bytes = bytes;
        node.meta = meta;
        Ok(())
    }

    /// Marks a node as never to be looked up.
    ///
    /// # Errors
    ///
    /// `Invalid` when the node does not exist or has been looked at already.
    pub fn ignore_cache(&mut self, id: NodeId) -> Result<(), Failure> {
        let node = self
            .nodes
            .get_mut(id.0 as usize)
            .ok_or_else(|| Failure::invalid(format!("there is no node {} in this graph", id.0)))?;
        if node.digest.is_some() && !node.ignore_cache {
            return Err(Failure::invalid(format!(
                "node {} was looked at before ignore-cache was called on it",
                id.0
            )));
        }
        node.ignore_cache = true;
        Ok(())
    }

    /// Whether a node is never to be looked up.
    pub fn ignores_cache(&self, id: NodeId) -> bool {
        self.node(id).ignore_cache
    }

    /// The same graph as nobody's: its digests are those of whoever builds the same.
    #[must_use]
    pub fn anonymous(&self) -> Definition {
        let mut copy = Definition { session: String::new(), ..self.clone() };
        copy.nodes.iter_mut().for_each(|node| node.digest = None);
        copy
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All node ids, inputs before those that use them.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)).map(NodeId)
    }

    /// The digest that dedupes work inside a process. From the first call on a node and what it
    /// needs are fixed.
    pub fn digest(&mut self, id: NodeId) -> VertexDigest {
        let mut stack = vec![id];
        while let Some(&top) = stack.last() {
            let node = self.node(top);
            if node.digest.is_some() {
                stack.pop();
                continue;
            }
            let missing: Vec<NodeId> = node
                .vertex
                .inputs
                .iter()
                .map(|edge| edge.node)
                .filter(|input| self.node(*input).digest.is_none())
                .collect();
            if !missing.is_empty() {
                stack.extend(missing);
                continue;
            }
            let mut e = Encoder::new("wbuild.vertex.v1");
            node.vertex.op.encode(&mut e, &ByDefinition);
            e.list(node.vertex.inputs.iter(), |e, edge| {
                let digest = self.node(edge.node).digest.expect("inputs were computed before");
                e.digest(digest.digest()).int(i64::from(edge.index));
            });
            e.bool(node.ignore_cache);
            e.option(uses_session(&node.vertex.op).then_some(self.session.as_str()), |e, s| {
                e.str(s);
            });
            let digest = VertexDigest(e.finish());
            self.nodes[top.0 as usize].digest = Some(digest);
            stack.pop();
        }
        self.node(id).digest.expect("computed above")
    }
}

/// Size of what an op holds beside what is hashed.
fn unhashed(op: &Op) -> usize {
    let pair = |(key, value): &(String, String)| key.len() + value.len();
    match op {
        Op::Exec(exec) => {
            let seeds = exec.mounts.iter().map(|mount| match &mount.kind {
                MountKind::Cache { seed_path, .. } => seed_path.len(),
                _ => 0,
            });
            let pairs = exec.volatile_env.iter().chain(&exec.resources.0).map(pair);
            pairs.chain(seeds).sum()
        }
        _ => 0,
    }
}

fn meta_size(meta: &NodeMeta) -> usize {
    let group = meta.group.as_ref().map_or(0, |(id, name)| id.len() + name.len());
    meta.name.len() + meta.spans.len() * size_of::<Span>() + group
}

/// Whether the op reads something that belongs to one client.
fn uses_session(op: &Op) -> bool {
    match op {
        Op::Source(SourceOp::Local(_)) => true,
        Op::Source(SourceOp::Image { attrs, .. }) => {
            attrs.get("store").is_some_and(|s| s.starts_with("oci-layout"))
        }
        Op::Exec(exec) => {
            !exec.secret_env.is_empty()
                || exec.security == Security::Client
                || exec
                    .mounts
                    .iter()
                    .any(|m| matches!(m.kind, MountKind::Secret { .. } | MountKind::Ssh { .. }))
        }
        _ => false,
    }
}

fn check_op(op: &Op) -> Result<(), Failure> {
    match op {
        Op::Exec(exec) => {
            if exec.args.is_empty() {
                return Err(Failure::invalid("a process needs at least one argument"));
            }
            if !exec.cwd.starts_with('/') {
                let message =
                    format!("the working directory {} is not absolute", quoted(&exec.cwd));
                return Err(Failure::invalid(message));
            }
            match exec.mounts.first() {
                Some(root) if root.target == "/" => {
                    if !matches!(root.kind, MountKind::Bind { .. }) {
                        return Err(Failure::invalid("the mount at / must be a bind"));
                    }
                }
                _ => return Err(Failure::invalid("the first mount must be a bind at /")),
            }
            let bind = |mount: &Mount| matches!(mount.kind, MountKind::Bind { .. });
            if exec.security == Security::Client && !exec.mounts.iter().all(bind) {
                let message = "a process of the caller's has no mounts but binds";
                return Err(Failure::invalid(message));
            }
            for mount in &exec.mounts {
                if !mount.target.starts_with('/') {
                    let message =
                        format!("the mount target {} is not absolute", quoted(&mount.target));
                    return Err(Failure::invalid(message));
                }
                check_text(&mount.target, "a mount target")?;
            }
            let texts = exec.args.iter().chain([&exec.cwd, &exec.user, &exec.hostname]);
            texts.into_iter().try_for_each(|text| check_text(text, "a process argument"))?;
            for (key, value) in exec.env.iter().chain(&exec.volatile_env) {
                check_text(key, "a variable name")?;
                check_text(value, "a variable value")?;
                if key.is_empty() || key.contains('=') {
                    return Err(Failure::invalid(format!("invalid variable name {}", quoted(key))));
                }
            }
            Ok(())
        }
        Op::File(file) => {
            for action in &file.actions {
                match &action.kind {
                    FileActionKind::Copy { paths, target, .. } => {
                        paths.iter().chain([target]).try_for_each(|p| check_text(p, "a path"))?;
                    }
                    FileActionKind::Write { path, .. }
                    | FileActionKind::Mkdir { path, .. }
                    | FileActionKind::Remove { path, .. } => check_text(path, "a path")?,
                    FileActionKind::Symlink { path, target, .. } => {
                        check_text(path, "a path")?;
                        check_text(target, "a link target")?;
                    }
                }
            }
            Ok(())
        }
        Op::Source(_) | Op::Merge | Op::Diff { .. } => Ok(()),
    }
}

fn check_text(text: &str, what: &str) -> Result<(), Failure> {
    if text.contains('\0') {
        return Err(Failure::invalid(format!("{what} has a NUL byte: {}", quoted(text))));
    }
    Ok(())
}
