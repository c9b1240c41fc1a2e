//! Variables in the order they were first set.

use indexmap::IndexMap;

use crate::expand::Lookup;

/// An ordered set of variables with look-up by name. Setting one again keeps its place.
#[derive(Clone, Debug, Default)]
pub struct Vars(IndexMap<String, String>);

impl Vars {
    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// Forgets a variable.
    pub fn remove(&mut self, name: &str) {
        self.0.shift_remove(name);
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All of them, in order.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl Lookup for Vars {
    fn lookup(&self, name: &str) -> Option<&str> {
        self.get(name)
    }
}
