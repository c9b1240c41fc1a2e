//! Finding the few patterns of a list that a path has to be compared with.

use std::collections::HashMap;

use crate::pattern::{Pattern, Scratch};

/// Widest piece of text that is looked up.
const WIDTH: usize = 4;

/// Patterns by a piece of text that every path holds which they match.
///
/// A pattern is filed under the rarest piece it has, so that lists of alike patterns (`gen1*.rs`,
/// `gen2*.rs`, ..) spread out. A path is looked up at each of its bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    /// By width less one.
    tables: [HashMap<[u8; WIDTH], Vec<u32>>; WIDTH],
    /// Patterns that hold no text.
    bare: Vec<u32>,
}

fn pieces(text: &[u8], width: usize) -> impl Iterator<Item = [u8; WIDTH]> {
    text.windows(width).map(move |window| {
        let mut key = [0; WIDTH];
        key[..width].copy_from_slice(window);
        key
    })
}

/// The pieces of the widest kind that a pattern has, and their width.
fn widest(pattern: &Pattern) -> Option<(usize, Vec<[u8; WIDTH]>)> {
    let texts = pattern.texts();
    let width = texts.iter().map(Vec::len).max().unwrap_or(0).min(WIDTH);
    if width == 0 {
        return None;
    }
    let mut found: Vec<_> = texts.iter().flat_map(|text| pieces(text, width)).collect();
    found.sort_unstable();
    found.dedup();
    Some((width, found))
}

impl Texts {
    /// Files patterns under their numbers, which ascend.
    pub fn new<'p>(patterns: impl Iterator<Item = (u32, &'p Pattern)> + Clone) -> Texts {
        let mut counts: [HashMap<[u8; WIDTH], u32>; WIDTH] = Default::default();
        for (width, pieces) in patterns.clone().filter_map(|(_, pattern)| widest(pattern)) {
            for piece in pieces {
                *counts[width - 1].entry(piece).or_default() += 1;
            }
        }
        let mut texts = Texts::default();
        for (number, pattern) in patterns {
            let Some((width, pieces)) = widest(pattern) else {
                texts.bare.push(number);
                continue;
            };
            let rarest = pieces.into_iter().min_by_key(|piece| counts[width - 1][piece]);
            let table = &mut texts.tables[width - 1];
            table.entry(rarest.expect("not empty")).or_default().push(number);
        }
        texts
    }

    /// Adds the numbers above `above` of all patterns that may match the path.
    pub fn candidates(&self, path: &[u8], above: u32, out: &mut Vec<u32>) {
        let mut add = |numbers: &[u32]| {
            out.extend_from_slice(&numbers[numbers.partition_point(|number| *number <= above)..]);
        };
        add(&self.bare);
        for (table, width) in self.tables.iter().zip(1..).filter(|(table, _)| !table.is_empty()) {
            for piece in pieces(path, width) {
                if let Some(numbers) = table.get(&piece) {
                    add(numbers);
                }
            }
        }
    }
}

/// Patterns by the directories that they may match something below of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Below {
    nodes: Vec<Node>,
}

/// A directory that is the literal beginning of patterns.
#[derive(Clone, Debug, Default)]
struct Node {
    children: HashMap<Box<[u8]>, usize>,
    /// Highest number of a pattern that leads to something below here.
    through: u32,
    /// Highest number of a pattern that leads to something below whatever is below here.
    open: u32,
    /// Patterns that may lead to something below what is below here, ascending.
    partly: Vec<u32>,
}

impl Below {
    /// Files a pattern under its number, which is above those before.
    pub fn add(&mut self, number: u32, pattern: &Pattern) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        self.nodes[at].through = number;
        // What comes behind the last slash is a name, or a part of one.
        let mut names = pattern.head().split(|byte| *byte == b'/').peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                if pattern.as_literal().is_some() {
                    return;
                }
                let node = &mut self.nodes[at];
                if name.is_empty() && pattern.is_open() {
                    node.open = number;
                } else {
                    node.partly.push(number);
                }
                return;
            }
            let free = self.nodes.len();
            at = *self.nodes[at].children.entry(name.into()).or_insert(free);
            if at == free {
                self.nodes.push(Node::default());
            }
            self.nodes[at].through = number;
        }
    }

    /// Whether a pattern with a number above `above` may match something below the directory.
    pub fn any<'p>(
        &self,
        dir: &[u8],
        above: u32,
        pattern: impl Fn(u32) -> &'p Pattern,
        scratch: &mut Scratch,
    ) -> bool {
        let Some(mut node) = self.nodes.first() else { return false };
        let mut names = dir.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        loop {
            let Some(name) = names.next() else { return node.through > above };
            if node.open > above {
                return true;
            }
            let first = node.partly.partition_point(|number| *number <= above);
            let mut partly = node.partly[first..].iter();
            if partly.any(|number| pattern(*number).may_match_below(dir, scratch)) {
                return true;
            }
            match node.children.get(name) {
                Some(child) => node = &self.nodes[*child],
                None => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_many_alike_patterns_are_compared() {
        for form in ["**/gen#*.rs", "**/*-#-*", "src/#*", "*#", "a**#?", "**/x[ab]#"] {
            let patterns: Vec<Pattern> = (1000..9000)
                .map(|n| Pattern::new(form.replace('#', &n.to_string()).as_bytes()).unwrap())
                .collect();
            let texts = Texts::new((1..).zip(&patterns));
            for path in ["src/1234", "src/gen1234.rs", "x/part-1234-a", "a/b1234c", "x/xa1234"] {
                let mut found = Vec::new();
                texts.candidates(path.as_bytes(), 0, &mut found);
                assert!(found.len() <= 10, "{form} {path}: {}", found.len());
                let mut scratch = Scratch::default();
                for (number, pattern) in (1..).zip(&patterns) {
                    if pattern.matches(path.as_bytes(), &mut scratch) {
                        assert!(found.contains(&number), "{form} {path}");
                    }
                }
            }
        }
    }
}
