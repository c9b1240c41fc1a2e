//! Looking at the files of a result, for frontends. Reads stay inside the tree and below limits, and
//! see of a directory of the client's what its source lets through: a frontend that may use some
//! files must not read the others here.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use wbuild_api::extension::{Entry, EntryKind, ReadDir};
use wbuild_graph::{Attrs, Failure, FailureKind, decode};
use wbuild_ignore::glob::Pattern;
use wbuild_store::Lease;
use wbuild_tree::TreeError;
use wbuild_tree::path::RelPath;
use wbuild_tree::root::Root;
use wbuild_tree::stat::{Kind, Stat};
use wbuild_tree::walk::Filter;

use crate::blocking;

/// The most entries one listing returns.
const LIST_LIMIT: usize = 10_000;
/// The most bytes that their paths, and what links among them say, have together: trees are made by
/// others, and a path may be as long as they like.
const LIST_BYTES: usize = 4 << 20;

/// An open tree.
pub(crate) struct Inspected {
    root: Arc<Root>,
    filter: Filter,
    _lease: Option<Lease>,
}

impl Inspected {
    pub(crate) fn new(fd: OwnedFd, place: &str, lease: Option<Lease>) -> Self {
        let root = Arc::new(Root::from_fd(fd, place));
        Inspected { root, filter: Filter::all(), _lease: lease }
    }

    /// The same, as a source of the directory sees it.
    pub(crate) fn through(self, filter: &Filter) -> Self {
        Inspected { filter: filter.clone(), ..self }
    }

    /// Bytes `offset..offset + length` of a file, fewer at its end.
    pub(crate) async fn read(
        &self,
        path: String,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, Failure> {
        let (root, filter) = (Arc::clone(&self.root), self.filter.clone());
        blocking(move || -> Result<Vec<u8>, Failure> {
            let path = RelPath::clean(&path)?;
            // By where the file is: a link that may be seen may lead to one that may not.
            if !filter.is_all() && !filter.selects(&root.follow(&path, true)?.path) {
                return Err(hidden(&path));
            }
            Ok(root.read_range(&path, offset, length as usize)?)
        })
        .await
    }

    pub(crate) async fn stat(&self, path: String) -> Result<Option<Entry>, Failure> {
        let (root, filter) = (Arc::clone(&self.root), self.filter.clone());
        blocking(move || -> Result<Option<Entry>, Failure> {
            let rel = RelPath::clean(&path)?;
            let found = root.follow(&rel, false)?;
            match found.stat {
                Some(stat) if !filter.shows(&found.path, stat.is_dir()) => Ok(None),
                Some(stat) => entry(&root, &found.path, path, &stat).map(Some),
                None => Ok(None),
            }
        })
        .await
    }

    pub(crate) async fn read_dir(&self, query: ReadDir) -> Result<Vec<Entry>, Failure> {
        decode::only_known(&query.opts, "inspect.read-dir", &["pattern", "recursive"])?;
        let recursive = decode::flag(&query.opts, "recursive")?;
        let patterns = query
            .opts
            .all("pattern")
            .map(|pattern| Pattern::new(pattern.as_bytes()).map_err(TreeError::from))
            .collect::<Result<Vec<_>, _>>()?;
        let (root, filter) = (Arc::clone(&self.root), self.filter.clone());
        let limit = (query.limit as usize).min(LIST_LIMIT);
        blocking(move || -> Result<Vec<Entry>, Failure> {
            let asked = RelPath::clean(&query.path)?;
            let base = root.follow(&asked, true)?.path;
            if !base.as_bytes().is_empty() && !filter.shows(&base, true) {
                return Err(hidden(&asked));
            }
            // The first `limit` entries by path, whatever the size of the tree.
            let mut out = BTreeMap::new();
            let mut bytes = 0;
            let mut stack = vec![(base, String::new())];
            // Depth first in name order, which is the order of the paths below the directory.
            while let Some((dir, prefix)) = stack.pop() {
                let mut below = Vec::new();
                for child in root.read_dir(&dir)? {
                    let name = String::from_utf8_lossy(&child.name).into_owned();
                    let path = format!("{prefix}{name}");
                    let rel = dir.join(&child.name);
                    let stat = child.stat;
                    if !filter.shows(&rel, stat.is_dir()) {
                        continue;
                    }
                    if recursive && stat.is_dir() {
                        below.push((rel.clone(), format!("{path}/")));
                    }
                    let wanted =
                        patterns.is_empty() || patterns.iter().any(|p| p.matches(path.as_bytes()));
                    if wanted && query.after.as_deref().is_none_or(|after| path.as_str() > after) {
                        bytes += path.len();
                        out.insert(path, (rel, stat));
                        if out.len() > limit {
                            bytes -= out.pop_last().map_or(0, |(path, _)| path.len());
                        }
                        listed(&asked, bytes)?;
                    }
                }
                stack.extend(below.into_iter().rev());
            }
            let entry = |(path, (rel, stat))| {
                let entry = entry(&root, &rel, path, &stat)?;
                bytes += entry.link.as_ref().map_or(0, String::len);
                listed(&asked, bytes).map(|()| entry)
            };
            out.into_iter().map(entry).collect()
        })
        .await
    }
}

/// That a listing of so many bytes is not too large.
fn listed(path: &RelPath, bytes: usize) -> Result<(), Failure> {
    if bytes <= LIST_BYTES {
        return Ok(());
    }
    let path = String::from_utf8_lossy(path.as_bytes()).into_owned();
    let message = format!("the listing of /{path} has more than {} MiB", LIST_BYTES >> 20);
    Err(Failure::new(FailureKind::Limit, message)
        .hint("the frontend can ask for fewer entries at once, and for those that match a pattern"))
}

fn hidden(path: &RelPath) -> Failure {
    let path = String::from_utf8_lossy(path.as_bytes()).into_owned();
    Failure::not_found(format!("{path} is not let through by the source of the directory"))
}

fn entry(root: &Root, rel: &RelPath, path: String, stat: &Stat) -> Result<Entry, Failure> {
    let kind = match stat.kind {
        Kind::File => EntryKind::File,
        Kind::Directory => EntryKind::Directory,
        Kind::Symlink => EntryKind::Symlink,
        _ => EntryKind::Other,
    };
    let link = match kind {
        EntryKind::Symlink => Some(String::from_utf8_lossy(&root.read_link(rel)?).into_owned()),
        _ => None,
    };
    Ok(Entry {
        path,
        kind,
        size: if kind == EntryKind::File { stat.size } else { 0 },
        mode: stat.mode & 0o7777,
        uid: stat.uid,
        gid: stat.gid,
        link,
        attrs: Attrs::default(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    async fn list(dir: &Path, limit: u32) -> Result<Vec<Entry>, Failure> {
        let fd = std::fs::File::open(dir).expect("a directory").into();
        let opts = Attrs(vec![("recursive".to_owned(), "true".to_owned())]);
        let query = ReadDir { path: "/".to_owned(), after: None, limit, opts };
        Inspected::new(fd, "test", None).read_dir(query).await
    }

    fn refused(listed: Result<Vec<Entry>, Failure>) {
        let failure = listed.expect_err("it is too large");
        assert_eq!(failure.kind, FailureKind::Limit);
        assert_eq!(failure.message, "the listing of / has more than 4 MiB");
        assert!(failure.hints[0].contains("fewer entries at once"), "{:?}", failure.hints);
    }

    #[tokio::test]
    async fn a_listing_has_a_bound_in_bytes() {
        let dir = tempfile::tempdir().expect("a directory");
        let deep = dir.path().join("d".repeat(255));
        std::fs::create_dir(&deep).expect("a directory");
        let file = |n: usize| std::fs::write(deep.join(format!("{n:0>255}")), "").expect("a file");
        // The directory, and as many paths of 511 bytes as fit beside it.
        let fits = (LIST_BYTES - 255) / 511;
        (0..fits).for_each(file);
        assert_eq!(list(dir.path(), 10_000).await.expect("it fits").len(), fits + 1);
        file(fits);
        refused(list(dir.path(), 10_000).await);
        let asked = u32::try_from(fits + 1).expect("few");
        assert_eq!(list(dir.path(), asked).await.expect("it fits").len(), fits + 1);
    }

    #[tokio::test]
    async fn what_links_say_counts_as_much() {
        let dir = tempfile::tempdir().expect("a directory");
        let link = |n: usize| {
            let path = dir.path().join(format!("{n:0>5}"));
            symlink("x".repeat(4000), path).expect("a link");
        };
        let fits = LIST_BYTES / 4005;
        (0..fits).for_each(link);
        assert_eq!(list(dir.path(), 10_000).await.expect("it fits").len(), fits);
        link(fits);
        refused(list(dir.path(), 10_000).await);
    }
}
