//! Plans: what a frontend made of a definition, as a value that can be kept, shown and compared.
//!
//! A [`Plan`] holds the nodes of the graph with the fields of their ops by name, the results, what
//! names were found to stand for, and which frontend it was. It is written as JSON of a documented
//! schema (`docs/plan.md`), as DOT for graphviz ([`dot`]), and compared with another ([`diff`]).
//!
//! Invariants:
//!
//! - No I/O, no clock. The same graph gives the same bytes.
//! - Digests here know no client: two who build the same have the same digests.
//! - A plan that was read is valid: inputs refer to earlier nodes that are there, results to nodes.
//! - Values of secrets are in no graph, so they are in no plan. Build arguments are.

pub mod diff;
pub mod dot;
mod fields;
mod json;
pub mod text;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wbuild_graph::{Definition, Digest, Edge, NodeId, SourceMap, Span, VertexDigest};

pub use json::{MAX_PLAN, attrs, config};

/// The version of the schema. It grows when something is taken away or means something else; new
/// keys may come without.
pub const VERSION: u32 = 1;

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`VERSION`].
    pub version: u32,
    /// What read the definition.
    pub frontend: FrontendId,
    /// Inputs before those that use them.
    pub nodes: Vec<Node>,
    /// What the frontend yields.
    pub results: Results,
    /// What names were found to stand for, sorted.
    pub pins: Vec<Pin>,
}

/// What read the definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrontendId {
    /// As the user named it.
    pub name: String,
    /// sha256 of the component.
    pub digest: Digest,
    /// Version of the contract that it speaks.
    pub wit: String,
}

/// A node of the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Names it in this plan; they grow, and some may be missing.
    pub id: u32,
    /// Kind of work: `image`, `local`, `git`, `http`, `other`, `exec`, `file`, `merge`, `diff`.
    pub op: String,
    /// For people; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Of the op and all it stands on.
    pub digest: VertexDigest,
    /// Outputs of other nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Output>,
    /// What the op says beyond its defaults. `{"input": 0}` is an input by its place in `inputs`.
    pub fields: Map<String, Value>,
    /// Places in the definition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<Place>,
    /// What it is shown as a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Not shown unless it fails.
    #[serde(default, skip_serializing_if = "is_false")]
    pub hidden: bool,
    /// Runs in every build.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ignore_cache: bool,
}

/// An output of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Which node.
    pub node: u32,
    /// Which of its outputs.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub output: u32,
}

impl From<Edge> for Output {
    fn from(edge: Edge) -> Self {
        Output { node: edge.node.0, output: edge.index }
    }
}

/// A range of a source. Lines and columns count from 1; the end is behind the last character.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// As the user knows it, e.g. `Dockerfile`.
    pub file: String,
    /// Where it begins.
    pub line: usize,
    /// Where it begins.
    pub column: usize,
    /// Where it ends.
    pub end_line: usize,
    /// Where it ends.
    pub end_column: usize,
}

impl Place {
    /// What a span means; none if it is in no source that is known.
    pub fn of(span: Span, sources: &SourceMap) -> Option<Place> {
        let source = sources.get(span.source)?;
        let (start, end) = (source.position(span.start), source.position(span.end.max(span.start)));
        Some(Place {
            file: source.name.clone(),
            line: start.line,
            column: start.column,
            end_line: end.line,
            end_column: end.column,
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What a frontend yields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// Images, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
    /// Files, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Files>,
    /// What must succeed besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required: Vec<Output>,
    /// What is run for its effect once all else has succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Output>,
    /// What the build fails with behind its results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fails: Option<Output>,
    /// Names of what would be written while the frontend waits; a plan writes nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<String>,
}

impl Results {
    /// All that has to be built.
    pub fn roots(&self) -> impl Iterator<Item = Output> + '_ {
        let images = self.images.iter().filter_map(|image| image.root);
        let more = self.required.iter().chain(&self.effects).chain(&self.fails).copied();
        images.chain(self.files.iter().map(|files| files.root)).chain(more)
    }
}

/// An image, for one platform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Distinguishes several; empty = the image of the build.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it is for.
    pub platform: String,
    /// Its files; none = an image without layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Output>,
    /// OCI image config without rootfs.
    pub config: Value,
    /// `KEY=VALUE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attrs: Vec<String>,
}

/// Files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Distinguishes several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What they are for, where it is said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Where from.
    pub root: Output,
    /// Path inside the root.
    pub path: String,
    /// `KEY=VALUE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attrs: Vec<String>,
}

/// What a name was found to stand for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// `image`, `git` or `http`.
    pub kind: String,
    /// Name of the image, or URL.
    pub name: String,
    /// Branch or tag of a repository.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// Platform of an image, as it was asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub platform: String,
    /// Digest of a manifest or file, or commit.
    pub pin: String,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// The nodes of a graph.
pub fn nodes(definition: &Definition, sources: &SourceMap) -> Vec<Node> {
    // Digests of a build know whose directories and secrets they are about.
    let mut anonymous = definition.anonymous();
    definition
        .ids()
        .map(|id| {
            let vertex = definition.vertex(id);
            let meta = definition.meta(id);
            let (op, fields) = fields::of(&vertex.op, vertex.inputs.len());
            Node {
                id: id.0,
                op: op.to_owned(),
                name: meta.name.clone(),
                digest: anonymous.digest(id),
                inputs: vertex.inputs.iter().map(|edge| Output::from(*edge)).collect(),
                fields,
                spans: meta.spans.iter().filter_map(|span| Place::of(*span, sources)).collect(),
                group: meta.group.as_ref().map(|(_, name)| name.clone()),
                hidden: meta.hidden,
                ignore_cache: definition.ignores_cache(id),
            }
        })
        .collect()
}

impl Plan {
    /// Ids of the nodes that the results stand on, in order.
    pub fn needed(&self) -> Vec<u32> {
        let mut wanted: Vec<u32> = self.results.roots().map(|output| output.node).collect();
        let mut seen = std::collections::BTreeSet::new();
        while let Some(id) = wanted.pop() {
            if seen.insert(id)
                && let Some(node) = self.node(id)
            {
                wanted.extend(node.inputs.iter().map(|input| input.node));
            }
        }
        seen.into_iter().collect()
    }

    /// The plan without nodes that no result stands on. Ids stay.
    #[must_use]
    pub fn only_needed(mut self) -> Plan {
        let needed = self.needed();
        self.nodes.retain(|node| needed.binary_search(&node.id).is_ok());
        self
    }

    /// A node.
    pub fn node(&self, id: u32) -> Option<&Node> {
        let at = self.nodes.binary_search_by_key(&id, |node| node.id).ok()?;
        self.nodes.get(at)
    }

    /// Whether a node of the graph that the plan was made of is in it.
    pub fn has(&self, id: NodeId) -> bool {
        self.node(id.0).is_some()
    }
}
