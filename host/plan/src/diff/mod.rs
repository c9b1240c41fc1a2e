//! What is different between two plans.
//!
//! A node is the same in both if its digest is: the op and all it stands on. Those that are left are
//! paired by stage and text of their names, then by what stands between the same neighbours
//! ([`pairs`]), and compared field by field ([`values`]). A node all of whose own fields are equal is
//! told apart as one that *follows*: it has another digest since something below it has.
//!
//! Names, spans and numbers of nodes are no difference, nor is the order in which a frontend made
//! them.

mod pairs;
mod text;
mod values;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{Image, Node, Output, Pin, Plan};
use pairs::Pairs;

pub use text::render;
pub use values::Change;

/// Fields that say what a node stands on.
const BASES: [&str; 2] = ["base", "mounts /.from"];

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    /// Nodes of the new plan that the old one has not.
    pub added: Vec<NodeId>,
    /// Nodes of the old plan that the new one has not.
    pub removed: Vec<NodeId>,
    /// Nodes whose own fields are different, in the order of the new plan.
    pub changed: Vec<Changed>,
    /// Nodes that stand on something different and are the same themselves.
    pub follows: Vec<NodeId>,
    /// What the results are.
    pub results: Vec<Changed>,
    /// What names stand for.
    pub pins: Vec<Change>,
    /// The frontend, which by itself changes nothing that is built.
    pub frontend: Vec<Change>,
}

/// A node, as people find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeId {
    /// In its plan.
    pub id: u32,
    /// Kind of work.
    pub op: String,
    /// Its name, or what else tells it apart.
    pub name: String,
    /// Its first place in the definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

/// Something that is in both plans and not the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed {
    /// The node, or result, in the new plan.
    #[serde(flatten)]
    pub what: NodeId,
    /// In what.
    pub fields: Vec<Change>,
}

impl Difference {
    /// Whether the same is built.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty()
            && self.removed.is_empty()
            && self.changed.is_empty()
            && self.follows.is_empty()
            && self.results.is_empty()
            && self.pins.is_empty()
    }
}

impl NodeId {
    fn of(node: &Node) -> NodeId {
        NodeId {
            id: node.id,
            op: node.op.clone(),
            name: shown(node),
            at: node.spans.first().map(ToString::to_string),
        }
    }
}

/// What a node is called; one without a name by what it says.
fn shown(node: &Node) -> String {
    if !node.name.is_empty() {
        return node.name.clone();
    }
    let of = ["reference", "context", "url", "identifier"];
    let text = of.iter().find_map(|field| node.fields.get(*field)?.as_str());
    text.unwrap_or_default().to_owned()
}

/// Compares two plans. Only what their results stand on counts.
pub fn compare(old: Plan, new: Plan) -> Difference {
    let (old, new) = (old.only_needed(), new.only_needed());
    let pairs = Pairs::of(&old, &new);
    let mut difference = Difference::default();
    for node in &new.nodes {
        match pairs.old_of(node.id) {
            None => difference.added.push(NodeId::of(node)),
            Some(before) if before.digest == node.digest => {}
            Some(before) => {
                let fields =
                    values::compare("", &pairs.fields(before, true), &pairs.fields(node, false));
                let what = NodeId::of(node);
                // What only stands on another step does what it did before.
                let base = |change: &Change| BASES.contains(&change.field.as_str());
                match fields.iter().all(base) {
                    true => difference.follows.push(what),
                    false => difference.changed.push(Changed { what, fields }),
                }
            }
        }
    }
    let gone = old.nodes.iter().filter(|node| pairs.new_of(node.id).is_none());
    difference.removed = gone.map(NodeId::of).collect();
    difference.results = results(&old, &new, &pairs);
    difference.pins = pins(&old.pins, &new.pins);
    let frontend = |plan: &Plan| json!(plan.frontend);
    difference.frontend = values::compare("", &frontend(&old), &frontend(&new));
    difference
}

/// The results by what they are called.
fn results(old: &Plan, new: &Plan, pairs: &Pairs<'_>) -> Vec<Changed> {
    let (before, after) = (named(old, pairs, true), named(new, pairs, false));
    let mut out = Vec::new();
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    for name in names {
        let empty = Value::Null;
        let (was, is) = (before.get(name).unwrap_or(&empty), after.get(name).unwrap_or(&empty));
        let fields = values::compare("", was, is);
        if !fields.is_empty() {
            let (op, name) = name;
            let what = NodeId { id: 0, op: (*op).to_owned(), name: name.clone(), at: None };
            out.push(Changed { what, fields });
        }
    }
    out
}

type Named = BTreeMap<(&'static str, String), Value>;

fn named(plan: &Plan, pairs: &Pairs<'_>, is_old: bool) -> Named {
    let at = |output: &Output| pairs.token(*output, is_old);
    let mut out = Named::new();
    for image in &plan.results.images {
        let Image { name, platform, root, config, attrs } = image;
        let name = format!("{name} {platform}").trim_start().to_owned();
        let mut value = json!({"root": root.as_ref().map(at), "attrs": attrs});
        if let (Some(config), Some(value)) = (config.as_object(), value.as_object_mut()) {
            // The history says what the steps say, which is compared already.
            let config = config.iter().filter(|(name, _)| *name != "history");
            value.extend(config.map(|(name, field)| (name.clone(), field.clone())));
        }
        out.insert(("image", name), value);
    }
    for files in &plan.results.files {
        let name = format!("{} {}", files.name, files.platform).trim().to_owned();
        let value = json!({"root": at(&files.root), "path": files.path, "attrs": files.attrs});
        out.insert(("files", name), value);
    }
    let results = &plan.results;
    let lists = [("required", &results.required), ("effects", &results.effects)];
    for (kind, outputs) in lists.into_iter().filter(|(_, outputs)| !outputs.is_empty()) {
        let outputs: Vec<_> = outputs.iter().map(at).collect();
        out.insert((kind, String::new()), json!({ "nodes": outputs }));
    }
    if let Some(fails) = &results.fails {
        out.insert(("failure", String::new()), json!({ "node": at(fails) }));
    }
    if !results.published.is_empty() {
        out.insert(("published", String::new()), json!({ "names": results.published }));
    }
    out
}

fn pins(old: &[Pin], new: &[Pin]) -> Vec<Change> {
    let by_name = |pins: &[Pin]| -> BTreeMap<String, String> {
        let name = |pin: &Pin| {
            let parts = [&pin.kind, &pin.name, &pin.reference, &pin.platform];
            let parts: Vec<&str> = parts.iter().map(|part| part.as_str()).collect();
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
        };
        pins.iter().map(|pin| (name(pin), pin.pin.clone())).collect()
    };
    let (old, new) = (by_name(old), by_name(new));
    let mut out = Vec::new();
    for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
        let (was, is) = (old.get(name), new.get(name));
        if was != is {
            let value = |text: Option<&String>| text.map(|text| json!(text));
            out.push(Change { field: name.clone(), old: value(was), new: value(is) });
        }
    }
    out
}
