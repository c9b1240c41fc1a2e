//! Variables in the order they were first set.

use std::collections::BTreeMap;

use crate::expand::Lookup;

/// An ordered set of variables with look-up by name. Setting one again keeps its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vars {
    pairs: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
}

impl Vars {
    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.index.get(name) {
            Some(at) => self.pairs[*at].1 = value.to_owned(),
            None => {
                self.index.insert(name.to_owned(), self.pairs.len());
                self.pairs.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    /// Forgets a variable.
    pub fn remove(&mut self, name: &str) {
        if let Some(at) = self.index.remove(name) {
            self.pairs.remove(at);
            let names = self.pairs.iter().enumerate().map(|(at, (name, _))| (name.clone(), at));
            self.index = names.collect();
        }
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|at| self.pairs[*at].1.as_str())
    }

    /// All of them, in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

impl Lookup for Vars {
    fn lookup(&self, name: &str) -> Option<&str> {
        self.get(name)
    }
}
