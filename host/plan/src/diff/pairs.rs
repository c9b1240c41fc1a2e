//! Which node of one plan is which of the other.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::{Map, Value, json};
use wbuild_graph::NameParts;

use super::shown;
use crate::{Node, Output, Plan};

/// Between two neighbours so many nodes of either plan are compared with each other; of more, in order.
const ALIKE: usize = 32;

/// See the module.
pub(super) struct Pairs<'a> {
    old: &'a Plan,
    new: &'a Plan,
    old_of: HashMap<u32, u32>,
    new_of: HashMap<u32, u32>,
}

/// Steps of one stage and kind, which keep their order.
type Row<'a> = Vec<&'a Node>;

impl<'a> Pairs<'a> {
    pub(super) fn of(old: &'a Plan, new: &'a Plan) -> Pairs<'a> {
        let mut pairs = Pairs { old, new, old_of: HashMap::new(), new_of: HashMap::new() };
        // The same work, then what is called the same, whatever its place.
        pairs.by(|node| node.digest);
        pairs.by(|node| {
            let parts = parts(node);
            (node.op.clone(), parts.0, parts.1)
        });
        let rows = |plan: &'a Plan| {
            let mut rows: BTreeMap<(String, String), Row<'a>> = BTreeMap::new();
            for node in &plan.nodes {
                let key = (node.op.clone(), parts(node).0);
                rows.entry(key).or_default().push(node);
            }
            rows
        };
        let after = rows(new);
        for (key, before) in rows(old) {
            if let Some(after) = after.get(&key) {
                pairs.by_neighbours(&before, after);
            }
        }
        pairs
    }

    /// Pairs those that are alone with the first of the same key.
    fn by<K: std::hash::Hash + Eq>(&mut self, key: impl Fn(&Node) -> K) {
        let mut left: HashMap<K, VecDeque<u32>> = HashMap::new();
        for node in self.old.nodes.iter().filter(|node| !self.new_of.contains_key(&node.id)) {
            left.entry(key(node)).or_default().push_back(node.id);
        }
        for node in &self.new.nodes {
            if self.old_of.contains_key(&node.id) {
                continue;
            }
            if let Some(before) = left.get_mut(&key(node)).and_then(VecDeque::pop_front) {
                self.pair(before, node.id);
            }
        }
    }

    fn pair(&mut self, old: u32, new: u32) {
        self.old_of.insert(new, old);
        self.new_of.insert(old, new);
    }

    /// Pairs what stands between the same neighbours.
    fn by_neighbours(&mut self, before: &Row<'a>, after: &Row<'a>) {
        let places: HashMap<u32, usize> =
            after.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
        let mut gap_old: Vec<&Node> = Vec::new();
        let mut from = 0;
        for node in before.iter().map(Some).chain([None]) {
            let end = match node {
                None => after.len(),
                Some(node) => match self.new_of.get(&node.id).and_then(|id| places.get(id)) {
                    Some(at) if *at >= from => *at,
                    // One that has moved is no neighbour.
                    Some(_) => continue,
                    None if self.new_of.contains_key(&node.id) => continue,
                    None => {
                        gap_old.push(node);
                        continue;
                    }
                },
            };
            let alone = |node: &&&Node| !self.old_of.contains_key(&node.id);
            let gap_new: Vec<&Node> = after[from..end].iter().filter(alone).copied().collect();
            self.in_gap(std::mem::take(&mut gap_old), gap_new);
            from = end + 1;
        }
    }

    /// Pairs those that are the most alike first.
    fn in_gap(&mut self, old: Vec<&Node>, mut new: Vec<&Node>) {
        if old.len() == new.len() || old.len() > ALIKE || new.len() > ALIKE {
            for (before, after) in old.iter().zip(&new) {
                self.pair(before.id, after.id);
            }
            return;
        }
        let mut old = old;
        while !old.is_empty() && !new.is_empty() {
            let all = (0..old.len()).flat_map(|a| (0..new.len()).map(move |b| (a, b)));
            // The first of several that are equally alike.
            let best = all.rev().max_by_key(|(a, b)| likeness(old[*a], new[*b]));
            let Some((a, b)) = best else { return };
            self.pair(old.remove(a).id, new.remove(b).id);
        }
    }

    pub(super) fn old_of(&self, new: u32) -> Option<&'a Node> {
        self.old.node(*self.old_of.get(&new)?)
    }

    pub(super) fn new_of(&self, old: u32) -> Option<u32> {
        self.new_of.get(&old).copied()
    }

    /// The fields of a node, with names in place of inputs.
    pub(super) fn fields(&self, node: &Node, is_old: bool) -> Value {
        let mut fields: Map<String, Value> = node
            .fields
            .iter()
            .map(|(name, value)| (name.clone(), self.named(value, node, is_old)))
            .collect();
        if node.ignore_cache {
            fields.insert("ignore_cache".to_owned(), json!(true));
        }
        Value::Object(fields)
    }

    fn named(&self, value: &Value, node: &Node, is_old: bool) -> Value {
        let of_all = |list: &Vec<Value>| list.iter().map(|v| self.named(v, node, is_old)).collect();
        match value {
            Value::Array(list) => Value::Array(of_all(list)),
            Value::Object(object) => {
                let input = match object.len() {
                    1 => object.get("input").and_then(Value::as_u64),
                    _ => None,
                };
                let output = input.and_then(|at| node.inputs.get(usize::try_from(at).ok()?));
                match output {
                    Some(output) => self.token(*output, is_old),
                    None => object
                        .iter()
                        .map(|(name, value)| (name.clone(), self.named(value, node, is_old)))
                        .collect(),
                }
            }
            other => other.clone(),
        }
    }

    /// What stands for an output: equal for two that are paired, and for no others.
    pub(super) fn token(&self, output: Output, is_old: bool) -> Value {
        let plan = if is_old { self.old } else { self.new };
        let name = plan.node(output.node).map_or_else(String::new, shown);
        let index = match output.output {
            0 => String::new(),
            index => format!(" (output {index})"),
        };
        // Paired nodes go by the new name. Numbers are those of a plan, so they are compared there only.
        let number = if is_old { self.new_of(output.node) } else { Some(output.node) };
        match number {
            Some(number) => {
                let name = self.new.node(number).map_or(name, shown);
                json!(format!("#{number} {name}{index}"))
            }
            None => json!(format!("#{} before, {name}{index}", output.node)),
        }
    }
}

/// Stage and text of what a node is called.
fn parts(node: &Node) -> (String, String) {
    let name = shown(node);
    let parts = NameParts::of(&name);
    (parts.stage.to_owned(), parts.text.to_owned())
}

/// How much of two nodes' texts is common at both ends.
fn likeness(a: &Node, b: &Node) -> usize {
    let (a, b) = (parts(a).1, parts(b).1);
    let ahead = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let rest = a.len().min(b.len()) - ahead;
    let behind = a.bytes().rev().zip(b.bytes().rev()).take(rest).take_while(|(a, b)| a == b);
    ahead + behind.count()
}
