//! How much the state directory takes, known without walking through it.
//!
//! The file `usage` holds what was counted when nobody was writing:
//!
//! ```text
//! total <bytes>
//! folder <bytes> <name>     of a folder that others than the store write: cache mounts, the index
//! check <first 16 hex digits of sha256 of the lines before>
//! ```
//!
//! It is taken away before the first change that a process makes, and written again when a build is
//! through, with what was added since. So where it is, it is right, and after a process that was
//! killed it is missing: then everything is measured, once.
//!
//! Between two measurements the total only grows: what is replaced or removed in between is counted
//! as if it were still there. It is never less than what is on the disk, so that a limit compared
//! with it holds; and where it comes near one, everything is measured.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use wbuild_graph::Digest;

use crate::error::Result;
use crate::files::{Folder, write_atomically};
use crate::store::Inner;
use crate::sync::lock;
use crate::usage::Meter;

const FILE: &str = "usage";
const LIMIT: u64 = 16 << 20;
/// What a file takes is rounded up to this.
const BLOCK: u64 = 4096;
/// More than a state directory takes before anything is in it: a dozen directories and files.
const NEW: u64 = 16 * BLOCK;

/// What is known, and what came since.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Bytes that this process has added since the total was counted.
    added: AtomicU64,
    /// The file is gone, because something is being changed.
    open: AtomicBool,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    loaded: bool,
    known: Option<Known>,
    /// Folders that others than the store have written to since.
    touched: BTreeSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    total: u64,
    folders: BTreeMap<String, u64>,
}

impl Known {
    fn encode(&self) -> String {
        let mut text = format!("total {}\n", self.total);
        for (name, bytes) in &self.folders {
            text.push_str(&format!("folder {bytes} {name}\n"));
        }
        let check = &Digest::of(text.as_bytes()).hex()[..16];
        format!("{text}check {check}\n")
    }

    fn decode(text: &str) -> Option<Known> {
        let (body, check) = text.strip_suffix('\n')?.rsplit_once("check ")?;
        if Digest::of(body.as_bytes()).hex()[..16] != *check {
            return None;
        }
        let mut lines = body.lines();
        let total = lines.next()?.strip_prefix("total ")?.parse().ok()?;
        let mut folders = BTreeMap::new();
        for line in lines {
            let (bytes, name) = line.strip_prefix("folder ")?.split_once(' ')?;
            folders.insert(name.to_owned(), bytes.parse().ok()?);
        }
        Some(Known { total, folders })
    }
}

impl Books {
    fn load(&mut self, root: &Folder) -> Result<()> {
        if !std::mem::replace(&mut self.loaded, true) {
            let bytes = root.read(FILE, LIMIT)?.unwrap_or_default();
            self.known = std::str::from_utf8(&bytes).ok().and_then(Known::decode);
        }
        Ok(())
    }
}

impl Account {
    /// Something is about to be written that is not counted yet.
    pub(crate) fn begin(&self, root: &Folder) -> Result<()> {
        if self.open.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut books = lock(&self.books);
        books.load(root)?;
        if !self.open.load(Ordering::Acquire) {
            root.remove_file(FILE)?;
            self.open.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// The state directory was just made: there is nothing to be measured.
    pub(crate) fn is_new(&self) {
        let mut books = lock(&self.books);
        books.loaded = true;
        books.known = Some(Known { total: NEW, ..Known::default() });
        self.open.store(true, Ordering::Release);
    }

    /// So many bytes are here that were not.
    pub(crate) fn add(&self, bytes: u64) {
        self.added.fetch_add(bytes, Ordering::AcqRel);
    }

    /// A file of so many bytes is here, with its share of what its directory takes.
    pub(crate) fn add_file(&self, bytes: u64) {
        self.add(bytes.next_multiple_of(BLOCK).saturating_add(BLOCK));
    }

    /// Somebody else may write to this folder, named relative to the state directory.
    pub(crate) fn touch(&self, root: &Folder, folder: String) -> Result<()> {
        self.begin(root)?;
        lock(&self.books).touched.insert(folder);
        Ok(())
    }
}

impl Inner {
    /// At most so many bytes are here, with what folders written by others took when they were last
    /// looked at; `None` if it is not known.
    pub(crate) fn estimate(&self) -> Result<Option<u64>> {
        let mut books = lock(&self.account.books);
        books.load(&self.root)?;
        let added = self.account.added.load(Ordering::Acquire);
        Ok(books.known.as_ref().map(|known| known.total.saturating_add(added)))
    }

    /// Looks at the folders that others have written to.
    pub(crate) fn count_touched(&self) -> Result<()> {
        let mut books = lock(&self.account.books);
        books.load(&self.root)?;
        let Books { known: Some(known), touched, .. } = &mut *books else {
            return Ok(());
        };
        for name in std::mem::take(touched) {
            let bytes = Meter::default().measure(&self.root, &name)?;
            let before = known.folders.insert(name, bytes).unwrap_or(0);
            known.total = known.total.saturating_sub(before).saturating_add(bytes);
        }
        Ok(())
    }

    /// What this process has added so far, to be given to [`Inner::counted`] after everything was
    /// measured: what is added meanwhile may be counted twice, and never not at all.
    pub(crate) fn added(&self) -> u64 {
        self.account.added.load(Ordering::Acquire)
    }

    /// Everything was measured, beginning when `added` had been added.
    pub(crate) fn counted(&self, total: u64, folders: BTreeMap<String, u64>, added: u64) {
        let mut books = lock(&self.account.books);
        books.loaded = true;
        // With the file that will say so.
        books.known = Some(Known { total: total.saturating_add(BLOCK), folders });
        self.account.added.fetch_sub(added, Ordering::AcqRel);
    }

    /// So many bytes went, after everything was measured.
    pub(crate) fn discount(&self, bytes: u64) {
        if let Some(known) = &mut lock(&self.account.books).known {
            known.total = known.total.saturating_sub(bytes);
        }
    }

    /// Writes down what is known. Nobody may be writing.
    pub(crate) fn close_account(&self) -> Result<()> {
        self.count_touched()?;
        let mut books = lock(&self.account.books);
        let Some(known) = &mut books.known else { return Ok(()) };
        let added = self.account.added.swap(0, Ordering::AcqRel);
        known.total = known.total.saturating_add(added);
        let text = known.encode();
        // On a full disk it may fail: then the next build measures.
        if write_atomically(&self.tmp, &self.root, FILE, text.as_bytes()).is_ok() {
            self.account.open.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Whether there is something to write down.
    pub(crate) fn account_is_open(&self) -> bool {
        self.account.open.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_comes_back_or_not_at_all() {
        let known = Known {
            total: 12_345,
            folders: BTreeMap::from([("index".into(), 7), ("caches/a b".into(), 0)]),
        };
        let text = known.encode();
        assert_eq!(Known::decode(&text), Some(known));
        assert_eq!(Known::decode(&Known::default().encode()), Some(Known::default()));
        for index in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[index] ^= 1;
            assert_eq!(Known::decode(&String::from_utf8(bad).unwrap()), None, "flip at {index}");
            assert_eq!(Known::decode(&text[..index]), None, "cut at {index}");
        }
    }
}
