//! Files as values: contexts, images and results of steps, and how a frontend looks at them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use wbuild_api::extension::{Entry, EntryKind, ReadDir};
use wbuild_graph::op::LocalSource;
use wbuild_graph::{Attrs, Failure, FailureKind, decode};
use wbuild_ignore::Matcher;
use wbuild_ignore::glob::Pattern;

/// How many symlinks a path may lead over.
const LINKS: usize = 40;

/// What is at a path. Directories are not said: they are there when something is below them, or by
/// themselves when they are empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A file and its permission bits.
    File(Arc<[u8]>, u32),
    /// A directory that may have nothing in it.
    Directory,
    /// What a symlink says.
    Symlink(String),
}

/// A tree of files. Paths are clean and relative: `etc/passwd`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, Node>);

/// A path without `/` in front, `.`, `..` and empty parts.
///
/// # Errors
///
/// `Denied` when it leads above the root.
pub fn clean(path: &str) -> Result<String, Failure> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    let message = format!("the path {path} leads out of the tree");
                    return Err(Failure::new(FailureKind::Denied, message));
                }
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

impl Tree {
    /// A tree with nothing in it.
    pub fn new() -> Self {
        Tree::default()
    }

    /// Adds or replaces a file.
    #[must_use]
    pub fn file(mut self, path: &str, text: impl AsRef<[u8]>) -> Self {
        self.put(path, Node::File(text.as_ref().into(), 0o644));
        self
    }

    /// Adds or replaces what is at a path; one that leads above the root is left out.
    pub fn put(&mut self, path: &str, node: Node) {
        if let Ok(path) = clean(path) {
            self.0.insert(path, node);
        }
    }

    /// The files of a directory of this machine.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn read_from(directory: &Path) -> std::io::Result<Tree> {
        let mut tree = Tree::default();
        let mut stack = vec![(directory.to_owned(), String::new())];
        while let Some((at, prefix)) = stack.pop() {
            for entry in std::fs::read_dir(&at)? {
                let entry = entry?;
                let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    tree.put(&path, Node::Directory);
                    stack.push((entry.path(), format!("{path}/")));
                } else if kind.is_symlink() {
                    let target = std::fs::read_link(entry.path())?;
                    // As it would be written on the machine that builds.
                    let target = target.to_string_lossy().replace('\\', "/");
                    tree.put(&path, Node::Symlink(target));
                } else {
                    tree.put(&path, Node::File(std::fs::read(entry.path())?.into(), 0o644));
                }
            }
        }
        Ok(tree)
    }

    /// Paths and what is there, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Takes over all of another, over what is here.
    pub fn extend(&mut self, other: &Tree) {
        self.0.extend(other.0.iter().map(|(path, node)| (path.clone(), node.clone())));
    }

    /// Removes a path and what is below it; whether there was anything.
    pub fn remove(&mut self, path: &str) -> bool {
        let before = self.0.len();
        let below = format!("{path}/");
        self.0.retain(|known, _| known != path && !known.starts_with(&below));
        self.0.len() < before
    }

    /// What is visible of it through a local source.
    pub(crate) fn seen_through(&self, source: &LocalSource) -> Result<Tree, Failure> {
        let list = |error: wbuild_ignore::ListError| Failure::invalid(error.to_string());
        let include = match &source.include[..] {
            [] => None,
            patterns => Some(Matcher::new(patterns).map_err(list)?),
        };
        let patterns: Vec<&str> = source.exclude.iter().map(|hidden| &*hidden.pattern).collect();
        let exclude = Matcher::new(&patterns).map_err(list)?;
        let seen = |path: &&String| {
            let path = path.as_bytes();
            include.as_ref().is_none_or(|include| include.decide(path).matched)
                && !exclude.decide(path).matched
        };
        let kept = self.0.iter().filter(|(path, _)| seen(path));
        Ok(Tree(kept.map(|(path, node)| (path.clone(), node.clone())).collect()))
    }

    fn at(&self, path: &str) -> Option<&Node> {
        match self.0.get(path) {
            Some(node) => Some(node),
            None if path.is_empty() => Some(&Node::Directory),
            None => {
                let below = format!("{path}/");
                let next = self.0.range(below.clone()..).next()?.0;
                next.starts_with(&below).then_some(&Node::Directory)
            }
        }
    }

    /// The clean path that a path stands for, symlinks on the way followed; at its end, too, if
    /// wanted.
    fn follow(&self, path: &str, last: bool) -> Result<String, Failure> {
        let mut rest: Vec<String> = parts(path);
        let mut done = String::new();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            let next = if done.is_empty() { part } else { format!("{done}/{part}") };
            match self.0.get(&next) {
                Some(Node::Symlink(target)) if last || !rest.is_empty() => {
                    links += 1;
                    if links > LINKS {
                        return Err(Failure::invalid(format!("too many symlinks in {path}")));
                    }
                    let target = match target.strip_prefix('/') {
                        Some(rooted) => rooted.to_owned(),
                        None => format!("{done}/{target}"),
                    };
                    done = String::new();
                    rest.extend(parts(&clean(&target)?));
                }
                _ => done = next,
            }
        }
        Ok(done)
    }

    pub(crate) fn read(&self, path: &str, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        let place = self.follow(&clean(path)?, true)?;
        match self.at(&place) {
            Some(Node::File(data, _)) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
                let rest = &data[from..];
                Ok(rest[..rest.len().min(length as usize)].to_vec())
            }
            Some(_) => Err(Failure::invalid(format!("{path} is no file"))),
            None => Err(Failure::not_found(format!("there is no {path}"))),
        }
    }

    pub(crate) fn stat(&self, path: &str) -> Result<Option<Entry>, Failure> {
        let place = self.follow(&clean(path)?, false)?;
        Ok(self.at(&place).map(|node| entry(path.to_owned(), node)))
    }

    pub(crate) fn read_dir(&self, query: &ReadDir) -> Result<Vec<Entry>, Failure> {
        decode::only_known(&query.opts, "inspect.read-dir", &["pattern", "recursive"])?;
        let recursive = decode::flag(&query.opts, "recursive")?;
        let patterns = query.opts.all("pattern").map(|pattern| Pattern::new(pattern.as_bytes()));
        let patterns = patterns.collect::<Result<Vec<_>, _>>();
        let patterns = patterns.map_err(|error| Failure::invalid(error.to_string()))?;
        let base = self.follow(&clean(&query.path)?, true)?;
        match self.at(&base) {
            Some(Node::Directory) => {}
            Some(_) => return Err(Failure::invalid(format!("{} is no directory", query.path))),
            None => return Err(Failure::not_found(format!("there is no {}", query.path))),
        }
        let prefix = if base.is_empty() { String::new() } else { format!("{base}/") };
        let mut found: BTreeMap<String, Entry> = BTreeMap::new();
        for path in self.0.keys().filter_map(|path| path.strip_prefix(&prefix)) {
            // Directories above are there, too, though nobody said so.
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            for end in ends.take(if recursive { usize::MAX } else { 1 }) {
                let name = &path[..end];
                if let Some(node) = self.at(&format!("{prefix}{name}")) {
                    found.entry(name.to_owned()).or_insert_with(|| entry(name.to_owned(), node));
                }
            }
        }
        let wanted = |entry: &Entry| {
            let path = entry.path.as_bytes();
            !path.is_empty()
                && (patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(path)))
                && query.after.as_ref().is_none_or(|after| entry.path > *after)
        };
        Ok(found.into_values().filter(wanted).take(query.limit as usize).collect())
    }

    /// Copies what is at `from` to `to`: of a directory with `contents`, what is in it. Whether there
    /// was anything.
    pub(crate) fn copy(&mut self, source: &Tree, from: &str, to: &str, contents: bool) -> bool {
        let Ok(from) = source.follow(from, true) else { return false };
        let Some(node) = source.at(&from).cloned() else { return false };
        if node != Node::Directory {
            self.put(to, node);
            return true;
        }
        let name = from.rsplit('/').next().unwrap_or_default();
        let to = if contents || name.is_empty() { to.to_owned() } else { format!("{to}/{name}") };
        self.put(&to, Node::Directory);
        let prefix = if from.is_empty() { String::new() } else { format!("{from}/") };
        for (path, node) in &source.0 {
            if let Some(rest) = path.strip_prefix(&prefix) {
                self.put(&format!("{to}/{rest}"), node.clone());
            }
        }
        true
    }

    /// Whether a path, symlinks followed, is a directory.
    pub(crate) fn is_directory(&self, path: &str) -> bool {
        self.follow(path, true).is_ok_and(|path| self.at(&path) == Some(&Node::Directory))
    }
}

/// The parts of a clean path, the last first.
fn parts(path: &str) -> Vec<String> {
    path.rsplit('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn entry(path: String, node: &Node) -> Entry {
    let (kind, size, mode, link) = match node {
        Node::File(data, mode) => (EntryKind::File, data.len() as u64, *mode, None),
        Node::Directory => (EntryKind::Directory, 0, 0o755, None),
        Node::Symlink(target) => (EntryKind::Symlink, 0, 0o777, Some(target.clone())),
    };
    Entry { path, kind, size, mode, uid: 0, gid: 0, link, attrs: Attrs::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::new().file("a/b", "1").file("a/c/d", "22").file("z", "");
        tree.put("link", Node::Symlink("a/../a/c".to_owned()));
        tree.put("round", Node::Symlink("/round".to_owned()));
        tree
    }

    #[test]
    fn reads_through_symlinks_and_never_out_of_the_tree() {
        let tree = tree();
        assert_eq!(tree.read("/link/d", 0, 10), Ok(b"22".to_vec()));
        assert_eq!(tree.read("a/c/d", 1, 10), Ok(b"2".to_vec()));
        assert_eq!(tree.read("a/c/d", 5, 10), Ok(Vec::new()));
        for (path, kind) in [
            ("../a", FailureKind::Denied),
            ("a", FailureKind::Invalid),
            ("q", FailureKind::NotFound),
            ("round/x", FailureKind::Invalid),
        ] {
            assert_eq!(tree.read(path, 0, 1).expect_err(path).kind, kind, "{path}");
        }
    }

    #[test]
    fn lists_what_matches_in_order() {
        let list = |path: &str, opts: &[(&str, &str)], after: Option<&str>, limit| {
            let opts = opts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let query = ReadDir {
                path: path.to_owned(),
                after: after.map(str::to_owned),
                limit,
                opts: Attrs(opts),
            };
            let found = tree().read_dir(&query).expect("listed");
            found.into_iter().map(|entry| entry.path).collect::<Vec<_>>()
        };
        assert_eq!(list("/", &[], None, 10), ["a", "link", "round", "z"]);
        assert_eq!(list("/", &[], Some("a"), 1), ["link"]);
        assert_eq!(list("a", &[("recursive", "true")], None, 10), ["b", "c", "c/d"]);
        assert_eq!(list("link", &[("pattern", "*")], None, 10), ["d"]);
    }

    #[test]
    fn what_an_ignore_file_hides_is_not_seen() {
        let hide = |pattern: &str| wbuild_graph::op::IgnorePattern {
            pattern: pattern.to_owned(),
            at: None,
        };
        let source = LocalSource { exclude: vec![hide("a"), hide("!a/b")], ..Default::default() };
        let seen = tree().seen_through(&source).expect("valid");
        assert_eq!(
            seen.iter().map(|(path, _)| path).collect::<Vec<_>>(),
            ["a/b", "link", "round", "z"]
        );
    }
}
