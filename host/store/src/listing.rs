//! All records, for those who keep an index of them elsewhere.

use std::collections::HashSet;

use crate::error::Result;
use crate::record::Record;
use crate::store::Store;

impl Store {
    /// Every valid record once, whatever number of keys leads to it. Reads all record files: for
    /// refilling an index that was lost, not for a build's ordinary way.
    pub fn records(&self) -> Result<Vec<Record>> {
        let mut seen = HashSet::new();
        let mut out = Vec::new();
        for name in self.inner.list_records()? {
            let Some((key, false)) = name.key() else { continue };
            if !seen.insert(name.inode) {
                continue;
            }
            // What is damaged or of another boot is not announced; look-ups do not find it either.
            if let Some(held) = self.record(&key)? {
                out.push(held.into_parts().0);
            }
        }
        Ok(out)
    }
}
