//! What may go.

use std::collections::BTreeSet;

/// Which records may go; see `backend.prune`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Ids of results that stay in any case.
    pub keep: BTreeSet<String>,
    /// Records made before this time (seconds since 1970) go.
    pub older_than: Option<u64>,
}

/// What a prune did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Records removed, unreadable and unnamed ones included.
    pub removed: usize,
    /// Records left.
    pub kept: usize,
}

impl PruneOptions {
    /// Reads `keep` (may repeat) and `older-than`.
    pub fn parse(options: &[(String, String)]) -> Result<Self, String> {
        let mut parsed = PruneOptions::default();
        for (key, value) in options {
            match key.as_str() {
                "keep" => {
                    parsed.keep.insert(value.clone());
                }
                "older-than" => {
                    let time = value.parse().map_err(|_| {
                        format!("older-than must be seconds since 1970, not {value:?}")
                    })?;
                    parsed.older_than = Some(time);
                }
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// Whether a readable record goes. With neither option only garbage does; with `keep` alone
    /// everything else does.
    pub fn removes(&self, id: &str, created: u64) -> bool {
        if self.keep.contains(id) {
            return false;
        }
        match self.older_than {
            Some(time) => created < time,
            None => !self.keep.is_empty(),
        }
    }
}
