//! Ordered key/value pairs, the open end of every op.

use serde::{Deserialize, Serialize};

/// Ordered key/value pairs. A key may repeat: repeated keys form a list, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attrs(pub Vec<(String, String)>);

impl Attrs {
    /// The last value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All values of `key`, in order.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Appends a pair.
    pub fn push(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.push((key.into(), value.into()));
    }

    /// Pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first key that is neither in `known` nor starts with `x-`.
    pub fn unknown(&self, known: &[&str]) -> Option<&str> {
        self.iter().map(|(k, _)| k).find(|k| !k.starts_with("x-") && !known.contains(k))
    }
}

impl From<Vec<(String, String)>> for Attrs {
    fn from(pairs: Vec<(String, String)>) -> Self {
        Attrs(pairs)
    }
}
