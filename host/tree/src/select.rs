//! What a copy reads: paths and patterns of a source, turned into a list of entries, and the
//! digest of exactly what the copy brings.

use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};
use wbuild_graph::{ContentDigest, Digest};
use wbuild_ignore::{Matcher, clean, glob};

use crate::content::{Loader, Node, Ownership};
use crate::digest::{bare, fold, node_digest};
use crate::error::{Missing, Result, TreeError};
use crate::index::{Cursor, DigestIndex};
use crate::par::Work;
use crate::path::{RelPath, join};
use crate::root::{Followed, Links, Root};
use crate::stat::{Kind, Timestamp};
use crate::walk::{Entry, Filter, Scope, walk};

/// Where a source comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A directory of the user's. It may change at any time; owners and attributes do not count;
    /// FIFOs, sockets and devices are refused.
    Context,
    /// An image or a stage: nobody writes to it, everything in it counts.
    Image,
}

/// A tree to copy from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The tree.
    pub root: &'a Root,
    /// What is hidden from every copy, e.g. by an ignore file. Relative to the root.
    pub filter: &'a Filter,
    /// See [`SourceKind`].
    pub kind: SourceKind,
}

impl Source<'_> {
    /// Whether owners and attributes count.
    pub fn ownership(&self) -> Ownership {
        match self.kind {
            SourceKind::Context => Ownership::Ignored,
            SourceKind::Image => Ownership::Kept,
        }
    }
}

/// Options of a copy that decide what is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectOptions {
    /// Paths are patterns (see [`wbuild_ignore::glob`]); one that matches nothing copies nothing.
    pub wildcard: bool,
    /// A directory stands for what is in it.
    pub contents_only: bool,
    /// A path that is a link stands for what it points to. Links below a copied directory are
    /// copied as links always.
    pub follow_links: bool,
    /// Keep the directories of a path below its `/./`, or all of them. Patterns may hold `**`.
    pub parents: bool,
    /// A literal path that is not there copies nothing.
    pub allow_missing: bool,
    /// Only these, relative to each directory copied.
    pub include: Vec<String>,
    /// Not these, relative to each directory copied; a file copied by itself is seen by its name.
    pub exclude: Vec<String>,
    /// Paths that must be there, relative to the directory copied. `.` is each path itself: a
    /// pattern then matches something.
    pub required: Vec<String>,
    /// The destination is known to be a directory (it ends in a slash), so that the name of a
    /// single file counts.
    pub into_dir: bool,
}

/// How a selected path is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A single entry that is no directory.
    Node,
    /// A directory as itself.
    Tree,
    /// What is in a directory.
    Contents,
}

/// One path that is copied.
#[derive(Clone, Debug)]
pub struct Selected {
    /// Where it is in the source, without links.
    pub path: RelPath,
    /// The last name of the path as given: its name inside a destination directory. None for the
    /// root.
    pub name: Option<Box<[u8]>>,
    /// See [`Shape`].
    pub shape: Shape,
    /// The entry itself.
    pub top: Node,
    /// What is in the directory, relative to it, in walk order.
    pub nodes: Vec<Node>,
    /// Only part of the directory was asked for by an include list, so that directories which
    /// exist at the destination keep their metadata.
    pub partial: bool,
}

/// What a copy reads, in the order in which it is copied: that of the paths given, and for a
/// pattern sorted.
#[derive(Clone, Debug)]
pub struct Selection {
    pub(crate) roots: Vec<Selected>,
    /// Whether base names are part of what is copied.
    names_count: bool,
    /// Attributes and link targets are known.
    pub(crate) loaded: bool,
}

/// Resolves the paths of a copy.
///
/// # Errors
/// A literal path that is not there ([`TreeError::Missing`], which says what hides it or what is
/// spelt alike), a malformed pattern, a special file in a context, or the tree cannot be read.
pub fn select<P: AsRef<str>>(
    source: &Source<'_>,
    paths: &[P],
    options: &SelectOptions,
    work: &Work,
) -> Result<Selection> {
    let own = Filter::new(&options.include, &options.exclude)?;
    let selector = Selector { source, options, own: &own, work };
    let all_there = options.required.iter().any(|required| is_itself(required));
    let mut roots = Vec::new();
    let mut names_count = options.into_dir || paths.len() > 1;
    for path in paths {
        let path = path.as_ref();
        let before = roots.len();
        if options.parents {
            roots.extend(selector.with_parents(path)?);
        } else if selector.is_pattern(path) {
            names_count = true;
            for found in selector.expand(path)? {
                // By its own name, which the user did not write: what it links to may be missing.
                roots.extend(selector.one(&format!("/{found}"), &found)?);
            }
        } else {
            roots.extend(selector.one(path, &RelPath::clean(path)?)?);
        }
        if all_there && roots.len() == before {
            return Err(Missing::new(path, source.root.place()).error());
        }
    }
    selector.check_required(&roots)?;
    Ok(Selection { roots, names_count, loaded: false })
}

/// Whether a required path means the copied paths themselves.
fn is_itself(required: &str) -> bool {
    required == "."
}

struct Selector<'a> {
    source: &'a Source<'a>,
    options: &'a SelectOptions,
    own: &'a Filter,
    work: &'a Work,
}

impl Selector<'_> {
    fn is_pattern(&self, path: &str) -> bool {
        self.options.wildcard && (glob::has_wildcard(path.as_bytes()) || path.contains('\\'))
    }

    /// A path that exists (or must), as written by the user in `given`.
    fn one(&self, given: &str, path: &RelPath) -> Result<Option<Selected>> {
        let Some(followed) = self.find(given, path, self.options.follow_links)? else {
            return Ok(None);
        };
        let stat = followed.stat.expect("found");
        let name: Option<Box<[u8]>> = path.name().map(Into::into);
        let top = bare(followed.path.clone(), stat);
        if !stat.is_dir() {
            if let Some(name) = &name
                && self.own.exclusion(&RelPath::trusted(name.clone())).matched
            {
                return Ok(None);
            }
            self.refuse_special(stat.kind, &followed.path)?;
            return Ok(Some(Selected {
                path: followed.path,
                name,
                shape: Shape::Node,
                top,
                nodes: Vec::new(),
                partial: false,
            }));
        }
        let nodes = self.list(&followed.path, &[self.own])?;
        let contents = self.options.contents_only || name.is_none();
        Ok(Some(Selected {
            path: followed.path,
            name,
            shape: if contents { Shape::Contents } else { Shape::Tree },
            top,
            nodes,
            partial: !self.options.include.is_empty(),
        }))
    }

    /// Copies with the directories above: everything of the directory before `/./` that the rest
    /// of the path matches.
    fn with_parents(&self, given: &str) -> Result<Option<Selected>> {
        let (pivot, rest) = given.split_once("/./").unwrap_or(("", given));
        let is_pattern = self.is_pattern(rest);
        let pivot = RelPath::clean(pivot)?;
        let Some(followed) = self.find(given, &pivot, true)? else { return Ok(None) };
        let stat = followed.stat.expect("found");
        let matcher = if is_pattern {
            Matcher::new(&[format!("/{rest}")])?
        } else {
            let rest = RelPath::clean(rest)?;
            let whole = RelPath::clean([followed.path.as_bytes(), b"/", rest.as_bytes()].concat())?;
            if self.find(given, &whole, false)?.is_none() {
                return Ok(None);
            }
            if rest.is_root() { Matcher::new(&["**"])? } else { Matcher::literal(rest.as_bytes()) }
        };
        let only = Filter::only(matcher);
        let nodes = self.list(&followed.path, &[self.own, &only])?;
        if nodes.is_empty() {
            return Ok(None);
        }
        Ok(Some(Selected {
            name: None,
            shape: Shape::Contents,
            top: bare(followed.path.clone(), stat),
            path: followed.path,
            nodes,
            partial: true,
        }))
    }

    /// Entries of a directory that the source's filter and all of `filters` select.
    fn list(&self, dir: &RelPath, filters: &[&Filter]) -> Result<Vec<Node>> {
        let root = RelPath::root();
        let mut scopes = vec![Scope { filter: self.source.filter, start: dir }];
        scopes.extend(filters.iter().map(|filter| Scope { filter, start: &root }));
        let entries = walk(self.source.root, dir, &scopes, self.work)?;
        for entry in &entries {
            if entry.stat.kind.is_special() {
                self.refuse_special(entry.stat.kind, &dir.join(entry.path.as_bytes()))?;
            }
        }
        // An image of one layer may be given as that layer's directory, with its whiteouts.
        let there = |entry: &Entry| !entry.stat.is_whiteout();
        Ok(entries.into_iter().filter(there).map(Node::from).collect())
    }

    fn refuse_special(&self, kind: Kind, path: &RelPath) -> Result<()> {
        if self.source.kind == SourceKind::Image || !kind.is_special() {
            return Ok(());
        }
        Err(TreeError::Special {
            path: path.to_string(),
            place: self.source.root.place().to_owned(),
            kind: kind.as_str(),
        })
    }

    /// Follows a literal path to something that exists and is not hidden; none if that is missing
    /// and may be.
    fn find(&self, given: &str, path: &RelPath, last: bool) -> Result<Option<Followed>> {
        let followed = match self.source.root.follow(path, last) {
            Ok(followed) => followed,
            // A file where a directory should be.
            Err(TreeError::Io { errno: rustix::io::Errno::NOTDIR, .. }) => {
                Followed { path: path.clone(), stat: None, links: Vec::new() }
            }
            Err(error) => return Err(error),
        };
        let mut followed = followed;
        if self.source.kind == SourceKind::Image {
            followed.stat = followed.stat.filter(|stat| !stat.is_whiteout());
        }
        let hidden = self.hidden(&followed)?;
        match (followed.stat, hidden) {
            (Some(_), None) => return Ok(Some(followed)),
            _ if self.options.allow_missing => return Ok(None),
            _ => {}
        }
        let excluded_by = hidden.flatten();
        let nearest =
            if followed.stat.is_none() { self.nearest(&followed.path)? } else { Vec::new() };
        let leads_to = (!followed.links.is_empty()).then(|| format!("/{}", followed.path));
        let missing = Missing::new(given, self.source.root.place());
        Err(Missing { leads_to, nearest, excluded_by, ..missing }.error())
    }

    /// `Some` if the source's filter hides the path or a link that leads there, with the pattern
    /// that does.
    fn hidden(&self, followed: &Followed) -> Result<Option<Option<usize>>> {
        let filter = self.source.filter;
        if filter.is_all() {
            return Ok(None);
        }
        let by = |path| filter.exclusion(path).by.filter(|_| filter.exclusion(path).matched);
        for link in &followed.links {
            if !filter.selects(link) {
                return Ok(Some(by(link)));
            }
        }
        let path = &followed.path;
        if path.is_root() || filter.selects(path) {
            return Ok(None);
        }
        // A hidden directory is there all the same if something in it is not hidden.
        let is_dir = followed.stat.is_some_and(|stat| stat.is_dir());
        if is_dir && !self.list(path, &[])?.is_empty() {
            return Ok(None);
        }
        Ok(Some(by(path)))
    }

    /// Paths that are spelt almost like one that does not exist.
    fn nearest(&self, path: &RelPath) -> Result<Vec<String>> {
        // The deepest directory that exists, and the first name that does not.
        let mut dir = RelPath::root();
        let mut missing: &[u8] = b"";
        for name in path.names() {
            missing = name;
            let next = dir.join(name);
            match self.source.root.stat(&next, Links::Refuse)? {
                Some(stat) if stat.is_dir() => dir = next,
                _ => break,
            }
        }
        let wanted = String::from_utf8_lossy(missing).to_lowercase();
        let limit = 1 + wanted.chars().count() / 4;
        let mut near: Vec<(usize, String)> = Vec::new();
        for entry in self.source.root.read_dir(&dir)?.into_iter().take(10_000) {
            let candidate = dir.join(&entry.name);
            let name = String::from_utf8_lossy(&entry.name).to_lowercase();
            let distance = edit_distance(&wanted, &name, limit);
            if distance <= limit && self.source.filter.selects(&candidate) {
                near.push((distance, candidate.to_string()));
            }
        }
        near.sort();
        near.truncate(3);
        Ok(near.into_iter().map(|(_, name)| name).collect())
    }

    /// Paths that match a pattern, sorted. Links inside the pattern's part are not entered.
    fn expand(&self, pattern: &str) -> Result<Vec<RelPath>> {
        let cleaned = clean(&[b"/", pattern.as_bytes()].concat());
        if cleaned == b"." {
            return Ok(vec![RelPath::root()]);
        }
        let mut parts = glob::split(&cleaned)?.into_iter().peekable();
        let mut prefix = RelPath::root();
        while let Some(text) = parts.next_if(|part| part.literal().is_some()) {
            prefix = prefix.join(text.literal().expect("checked"));
        }
        if parts.peek().is_none() {
            // Nothing but escapes: a literal path after all.
            return Ok(vec![prefix]);
        }
        let start = match self.source.root.follow(&prefix, self.options.follow_links) {
            Ok(Followed { path, stat: Some(stat), .. }) if stat.is_dir() => path,
            _ => return Ok(Vec::new()),
        };
        let mut found = vec![start];
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let mut next = Vec::new();
            for dir in &found {
                self.work.cancel.check()?;
                for entry in
                    self.source.root.subtree(dir, Links::Refuse)?.read_dir(&RelPath::root())?
                {
                    if part.matches(&entry.name) && (last || entry.stat.is_dir()) {
                        let path = dir.join(&entry.name);
                        if !last || self.is_visible(&path, entry.stat.is_dir())? {
                            next.push(path);
                        }
                    }
                }
            }
            found = next;
        }
        Ok(found)
    }

    fn is_visible(&self, path: &RelPath, is_dir: bool) -> Result<bool> {
        let filter = self.source.filter;
        Ok(filter.selects(path) || (is_dir && !self.list(path, &[])?.is_empty()))
    }

    fn check_required(&self, roots: &[Selected]) -> Result<()> {
        for required in self.options.required.iter().filter(|required| !is_itself(required)) {
            let path = RelPath::clean(required)?;
            let there = roots.iter().any(|root| {
                root.shape != Shape::Node
                    && root.nodes.binary_search_by(|node| node.path.cmp(&path)).is_ok()
            });
            if !there {
                return Err(Missing::new(required, self.source.root.place()).error());
            }
        }
        Ok(())
    }
}

/// Include patterns for paths whose links are to be followed: each path, the links met on the way
/// and what they lead to. What lies outside the tree or does not exist is left out; a path with
/// wildcards stays as it is.
///
/// # Errors
/// The tree cannot be read.
pub fn follow_patterns<P: AsRef<str>>(root: &Root, paths: &[P]) -> Result<Vec<String>> {
    let mut patterns = Vec::new();
    for path in paths {
        let path = path.as_ref();
        patterns.push(path.to_owned());
        if glob::has_wildcard(path.as_bytes()) {
            continue;
        }
        match root.follow(&RelPath::clean(path)?, true) {
            Ok(followed) => {
                let end = followed.stat.map(|_| followed.path);
                patterns.extend(followed.links.into_iter().chain(end).filter_map(|path| {
                    // Only text can be a pattern; other names cannot be asked for either.
                    let text = std::str::from_utf8(path.as_bytes()).ok()?;
                    Some(glob::escape(text))
                }));
            }
            // A loop of links, or a file where a directory should be: nothing is there.
            Err(TreeError::Io { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    patterns.sort();
    patterns.dedup();
    Ok(patterns)
}

/// Levenshtein distance; anything above `limit` is `limit + 1`.
fn edit_distance(a: &str, b: &str, limit: usize) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > limit {
        return limit + 1;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl Selection {
    /// The selected paths, in the order in which they are copied.
    pub fn roots(&self) -> &[Selected] {
        &self.roots
    }

    /// The selected path with this number alone. What it arrives as does not change: a base name
    /// that counts still does.
    pub fn only(&self, number: usize) -> Selection {
        let roots = self.roots.get(number).cloned().into_iter().collect();
        Selection { roots, names_count: self.names_count, loaded: self.loaded }
    }

    /// Whether nothing is copied.
    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Entries in all, and bytes of the files among them.
    pub fn totals(&self) -> (u64, u64) {
        let mut totals = (0, 0);
        for node in self.roots.iter().flat_map(|root| root.nodes.iter().chain([&root.top])) {
            totals.0 += 1;
            if node.stat.kind == Kind::File {
                totals.1 += node.stat.size;
            }
        }
        totals
    }

    /// The digest of exactly what the copy brings, for cache keys. The names in copied directories
    /// count; a base name does only if it is part of what is copied: with a pattern, with several
    /// paths, or with [`SelectOptions::into_dir`].
    ///
    /// Reads what is not in `index`, in parallel, and adds it there. What was read is also kept in
    /// the selection, so that a copy from a context checks the files against it.
    ///
    /// The encoding is `"wbuild.selection.1\n"`, the number of paths as `u32`, and for each: its
    /// shape (1 node, 2 tree, 3 contents), whether it is partial (0, 1), length (`u32`) and bytes
    /// of the name that counts, and the digest of the entry as in [`crate::digest`], where for
    /// contents the directory's own metadata is 0.
    ///
    /// # Errors
    /// Something cannot be read, or changes all the time.
    pub fn digest(
        &mut self,
        source: &Source<'_>,
        index: Option<&Mutex<DigestIndex>>,
        work: &Work,
    ) -> Result<ContentDigest> {
        let ownership = source.ownership();
        // Before the first file is looked at again: what is written later than this is not trusted.
        let now = Timestamp::now();
        let mut hash = Sha256::new();
        hash.update(b"wbuild.selection.1\n");
        hash.update(u32::try_from(self.roots.len()).unwrap_or(u32::MAX).to_le_bytes());
        for root in &mut self.roots {
            let loader = |base| Loader {
                root: source.root,
                base,
                ownership,
                mutable: source.kind == SourceKind::Context,
                layer: None,
                contents: true,
            };
            let here = RelPath::root();
            if root.shape == Shape::Contents {
                // Its own metadata and attributes are not copied.
            } else {
                load(loader(&here), std::slice::from_mut(&mut root.top), index, now, work)?;
            }
            load(loader(&root.path), &mut root.nodes, index, now, work)?;
            let (shape, digest) = match root.shape {
                Shape::Node => (1, node_digest(&root.top, ownership)),
                Shape::Tree => (2, fold(Some(&root.top), &root.nodes, ownership)),
                Shape::Contents => (3, fold(None, &root.nodes, ownership)),
            };
            let name = match &root.name {
                Some(name) if self.names_count && root.shape != Shape::Contents => &**name,
                _ => b"",
            };
            hash.update([shape, u8::from(root.partial)]);
            hash.update(u32::try_from(name.len()).expect("a name is short").to_le_bytes());
            hash.update(name);
            hash.update(digest.digest().as_bytes());
        }
        self.loaded = true;
        Ok(ContentDigest(Digest::from_bytes(hash.finalize().into())))
    }
}

/// Takes what the index knows, reads the rest, and tells the index.
fn load(
    loader: Loader<'_>,
    nodes: &mut [Node],
    index: Option<&Mutex<DigestIndex>>,
    now: Timestamp,
    work: &Work,
) -> Result<()> {
    let full = |node: &Node| join(loader.base.as_bytes(), node.path.as_bytes());
    let mut unknown = Vec::new();
    if let Some(index) = index {
        let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cursor = Cursor::default();
        for (place, node) in nodes.iter_mut().enumerate() {
            if node.stat.kind == Kind::File && node.sha256.is_none() {
                node.sha256 = index.get_next(&full(node), &node.stat, &mut cursor);
                if node.sha256.is_none() {
                    unknown.push(place);
                }
            }
        }
    }
    loader.load(nodes, work)?;
    if let Some(index) = index
        && !unknown.is_empty()
    {
        let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
        for node in unknown.into_iter().map(|place| &nodes[place]) {
            if let Some(sha) = node.sha256 {
                index.record(&RelPath::trusted(full(node)), &node.stat, sha, now);
            }
        }
    }
    Ok(())
}
