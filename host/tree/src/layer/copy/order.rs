//! What a list of entries in walk order says about directories and links.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::content::Node;
use crate::stat::Kind;

/// The entries of each directory of a list in walk order. Directory 0 is the root, directory
/// `n + 1` the node `n`.
pub(super) struct Children {
    starts: Vec<u32>,
    nodes: Vec<u32>,
}

impl Children {
    pub(super) fn of(nodes: &[Node]) -> Children {
        let mut parents = Vec::with_capacity(nodes.len());
        let mut open: Vec<usize> = vec![0];
        let mut counts = vec![0_u32; nodes.len() + 2];
        for (index, node) in nodes.iter().enumerate() {
            open.truncate(node.path.names().count());
            let parent = *open.last().expect("the root stays");
            parents.push(parent);
            counts[parent + 1] += 1;
            if node.stat.is_dir() {
                open.push(index + 1);
            }
        }
        for index in 1..counts.len() {
            counts[index] += counts[index - 1];
        }
        let mut next = counts.clone();
        let mut sorted = vec![0; nodes.len()];
        for (index, parent) in parents.into_iter().enumerate() {
            sorted[next[parent] as usize] = u32::try_from(index).expect("fewer than 2^32 entries");
            next[parent] += 1;
        }
        Children { starts: counts, nodes: sorted }
    }

    pub(super) fn in_dir(&self, dir: usize) -> &[u32] {
        &self.nodes[self.starts[dir] as usize..self.starts[dir + 1] as usize]
    }
}

/// For each file that is another name of an earlier one: the earlier one.
pub(super) fn hard_links(nodes: &[Node]) -> HashMap<usize, usize> {
    let mut first: HashMap<(u64, (u32, u32)), usize> = HashMap::new();
    let mut links = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        if node.stat.kind == Kind::File && node.stat.nlink > 1 {
            match first.entry((node.stat.inode, node.stat.device)) {
                Entry::Occupied(known) => {
                    links.insert(index, *known.get());
                }
                Entry::Vacant(place) => {
                    place.insert(index);
                }
            }
        }
    }
    links
}
