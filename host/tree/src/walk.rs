//! Listing a tree with metadata, on several threads.
//!
//! Directories are listed and their names looked at relative to the directory's descriptor; what
//! an exclude list hides is neither opened nor looked at. Results are in walk order (see
//! [`crate::path::RelPath`]) whatever the number of threads.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;
use wbuild_ignore::{Decision, Matcher, State};

use crate::error::{Result, TreeError};
use crate::par::{self, Work};
use crate::path::{MAX_PATH, RelPath, join};
use crate::root::{Links, Names, Root, shown, stat_cstr};
use crate::stat::{Kind, Stat};

/// Names of one directory that one job looks at; larger directories are shared between threads.
const PIECE: usize = 512;

/// Which entries of a tree count. An entry is in if it matches the include list (or there is none)
/// and does not match the exclude list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    include: Option<Matcher>,
    exclude: Option<Matcher>,
}

impl Filter {
    /// Everything counts.
    pub fn all() -> Filter {
        Filter::default()
    }

    /// Compiles the two lists. An empty include list includes everything.
    ///
    /// # Errors
    /// A malformed pattern.
    pub fn new<P: AsRef<str>>(include: &[P], exclude: &[P]) -> Result<Filter> {
        let compile = |patterns: &[P]| -> Result<Option<Matcher>> {
            let matcher = Matcher::new(patterns)?;
            Ok(if matcher.is_empty() { None } else { Some(matcher) })
        };
        Ok(Filter { include: compile(include)?, exclude: compile(exclude)? })
    }

    /// Only what `matcher` matches.
    pub(crate) fn only(matcher: Matcher) -> Filter {
        Filter { include: Some(matcher), exclude: None }
    }

    /// Whether it lets everything through.
    pub fn is_all(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// What the exclude list says of a path.
    pub fn exclusion(&self, path: &RelPath) -> Decision {
        match &self.exclude {
            Some(matcher) => matcher.decide(path.as_bytes()),
            None => Decision { matched: false, by: None },
        }
    }

    /// Whether the path itself is in. A directory that is not may still hold entries that are.
    pub fn selects(&self, path: &RelPath) -> bool {
        self.selected(self.at(path.as_bytes()))
    }

    /// Whether there is anything to be seen at a path: it is in, or it is a directory that may hold
    /// entries that are.
    pub fn shows(&self, path: &RelPath, is_dir: bool) -> bool {
        let state = self.at(path.as_bytes());
        self.selected(state) || (is_dir && self.may_select_below(state, path.as_bytes()))
    }

    fn at(&self, path: &[u8]) -> FilterState {
        FilterState {
            include: self.include.as_ref().map_or_else(State::default, |m| m.state(path)),
            exclude: self.exclude.as_ref().map_or_else(State::default, |m| m.state(path)),
        }
    }

    fn step(&self, above: FilterState, path: &[u8]) -> FilterState {
        FilterState {
            include: self.include.as_ref().map_or(above.include, |m| m.step(above.include, path)),
            exclude: self.exclude.as_ref().map_or(above.exclude, |m| m.step(above.exclude, path)),
        }
    }

    fn selected(&self, state: FilterState) -> bool {
        self.include.as_ref().is_none_or(|m| m.matched(state.include))
            && !self.exclude.as_ref().is_some_and(|m| m.matched(state.exclude))
    }

    fn may_select_below(&self, state: FilterState, dir: &[u8]) -> bool {
        let included = self
            .include
            .as_ref()
            .is_none_or(|m| m.matched(state.include) || m.may_differ_below(dir, state.include));
        let excluded = self
            .exclude
            .as_ref()
            .is_some_and(|m| m.matched(state.exclude) && !m.may_differ_below(dir, state.exclude));
        included && !excluded
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct FilterState {
    include: State,
    exclude: State,
}

/// A filter whose patterns are relative to another directory than the one that is walked.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The filter.
    pub filter: &'a Filter,
    /// Path of the walk's start as the filter sees it.
    pub start: &'a RelPath,
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to where the walk began.
    pub path: RelPath,
    /// Metadata.
    pub stat: Stat,
    /// A directory that no filter selects, but something in it.
    pub implied: bool,
}

/// Lists everything below the directory `start` that all filters select, and the directories that
/// lead there. `start` itself is not in the list. Entries that vanish meanwhile are left out.
///
/// # Errors
/// A directory cannot be opened or listed, or a path becomes longer than the kernel takes.
pub fn walk(root: &Root, start: &RelPath, scopes: &[Scope<'_>], work: &Work) -> Result<Vec<Entry>> {
    let scopes: Vec<Scope<'_>> = scopes.iter().filter(|s| !s.filter.is_all()).copied().collect();
    let walker = Walker { root, start, scopes: &scopes, next_dir: AtomicUsize::new(1) };
    let first = Job::List(Dir {
        number: 0,
        path: Box::default(),
        states: scopes.iter().map(|s| s.filter.at(s.start.as_bytes())).collect(),
    });
    let workers = par::run(work, vec![first], Worker::default, |worker, job, more| match job {
        Job::List(dir) => walker.list(worker, dir, more),
        Job::Look(shared, piece) => walker.look(worker, &shared, piece, more),
    })?;
    let dirs = walker.next_dir.into_inner();
    Ok(assemble(workers, dirs))
}

struct Walker<'a> {
    root: &'a Root,
    start: &'a RelPath,
    scopes: &'a [Scope<'a>],
    next_dir: AtomicUsize,
}

/// A directory to be listed.
struct Dir {
    number: usize,
    /// Relative to the start of the walk.
    path: Box<[u8]>,
    states: Vec<FilterState>,
}

/// A directory that was listed and whose names are to be looked at.
struct Listing {
    dir: Dir,
    fd: OwnedFd,
    names: Names,
}

enum Job {
    List(Dir),
    Look(Arc<Listing>, usize),
}

#[derive(Default)]
struct Worker {
    buffer: Vec<u8>,
    found: Vec<Piece>,
}

/// What one job found: consecutive entries of one directory.
struct Piece {
    dir: usize,
    piece: usize,
    entries: Vec<Found>,
}

struct Found {
    path: Box<[u8]>,
    stat: Stat,
    selected: bool,
    /// Number of the directory, if it is one that is listed.
    dir: Option<usize>,
}

impl Walker<'_> {
    fn error(&self, action: &'static str, dir: &[u8], name: &[u8], errno: Errno) -> TreeError {
        let path = join(self.start.as_bytes(), &join(dir, name));
        self.root.error(action, &path, errno)
    }

    fn list(&self, worker: &mut Worker, dir: Dir, more: &mut Vec<Job>) -> Result<()> {
        let path = join(self.start.as_bytes(), &dir.path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = match self.root.open_at(&path, flags, Links::Refuse) {
            Ok(fd) => fd,
            // Removed since its parent was listed.
            Err(Errno::NOENT) if dir.number > 0 => return Ok(()),
            Err(errno) => return Err(self.error("open", &dir.path, b"", errno)),
        };
        let names = Names::read(fd.as_fd(), &mut worker.buffer)
            .map_err(|errno| self.error("list", &dir.path, b"", errno))?;
        let listing = Listing { dir, fd, names };
        if listing.names.len() <= PIECE {
            return self.look(worker, &listing, 0, more);
        }
        let pieces = listing.names.len().div_ceil(PIECE);
        let listing = Arc::new(listing);
        more.extend((0..pieces).rev().map(|piece| Job::Look(listing.clone(), piece)));
        Ok(())
    }

    fn look(
        &self,
        worker: &mut Worker,
        listing: &Listing,
        piece: usize,
        more: &mut Vec<Job>,
    ) -> Result<()> {
        let dir = &listing.dir;
        let range = piece * PIECE..listing.names.len().min((piece + 1) * PIECE);
        let mut entries = Vec::with_capacity(range.len());
        let mut states = Vec::with_capacity(self.scopes.len());
        for index in range {
            let (name, hint) = listing.names.get(index);
            let path = join(&dir.path, name.to_bytes());
            if self.start.as_bytes().len() + 1 + path.len() > MAX_PATH {
                let what = format!("the path {}", shown(&dir.path, name.to_bytes()));
                return Err(TreeError::Limit { what, limit: MAX_PATH as u64 });
            }
            let mut selected = true;
            let mut enter = true;
            states.clear();
            for (scope, above) in self.scopes.iter().zip(&dir.states) {
                let seen: &[u8] = &join(scope.start.as_bytes(), &path);
                let state = scope.filter.step(*above, seen);
                selected &= scope.filter.selected(state);
                let may_be_dir = hint.is_none_or(|kind| kind == Kind::Directory);
                enter &= may_be_dir && scope.filter.may_select_below(state, seen);
                states.push(state);
            }
            if !selected && !enter {
                continue;
            }
            let stat = stat_cstr(listing.fd.as_fd(), name)
                .map_err(|errno| self.error("stat", &dir.path, name.to_bytes(), errno))?;
            let Some(stat) = stat else { continue };
            if !selected && !stat.is_dir() {
                continue;
            }
            let number = (enter && stat.is_dir()).then(|| {
                let number = self.next_dir.fetch_add(1, Ordering::Relaxed);
                let states = states.clone();
                more.push(Job::List(Dir { number, path: path.clone(), states }));
                number
            });
            entries.push(Found { path, stat, selected, dir: number });
        }
        worker.found.push(Piece { dir: dir.number, piece, entries });
        Ok(())
    }
}

/// Puts the pieces into walk order and drops directories that neither are selected nor lead to
/// something that is.
fn assemble(workers: Vec<Worker>, dirs: usize) -> Vec<Entry> {
    let mut total = 0;
    let mut pieces: Vec<Vec<Piece>> = Vec::new();
    pieces.resize_with(dirs, Vec::new);
    for piece in workers.into_iter().flat_map(|worker| worker.found) {
        total += piece.entries.len();
        pieces[piece.dir].push(piece);
    }
    let mut children: Vec<Vec<Found>> = pieces
        .into_iter()
        .map(|mut pieces| {
            if pieces.len() == 1 {
                return pieces.pop().expect("one piece").entries;
            }
            pieces.sort_unstable_by_key(|piece| piece.piece);
            pieces.into_iter().flat_map(|piece| piece.entries).collect()
        })
        .collect();
    let mut out: Vec<Entry> = Vec::with_capacity(total);
    let mut open = vec![std::mem::take(&mut children[0]).into_iter()];
    // For each open directory that is not selected: its place in `out`.
    let mut implied: Vec<Option<usize>> = vec![None];
    while let Some(entries) = open.last_mut() {
        if let Some(found) = entries.next() {
            out.push(Entry {
                path: RelPath::trusted(found.path),
                stat: found.stat,
                implied: !found.selected,
            });
            match found.dir {
                Some(number) => {
                    open.push(std::mem::take(&mut children[number]).into_iter());
                    implied.push((!found.selected).then(|| out.len() - 1));
                }
                None if !found.selected => {
                    out.pop();
                }
                None => {}
            }
        } else {
            open.pop();
            if let Some(Some(place)) = implied.pop()
                && place + 1 == out.len()
            {
                out.pop();
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn tree(files: &[&str]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            if let Some(directory) = file.strip_suffix('/') {
                fs::create_dir_all(dir.path().join(directory)).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, file).unwrap();
            }
        }
        let root = Root::open(dir.path(), "the tree").unwrap();
        (dir, root)
    }

    fn names(entries: &[Entry]) -> Vec<String> {
        let mark = |e: &Entry| if e.implied { "~" } else { "" };
        entries.iter().map(|e| format!("{}{}", mark(e), e.path)).collect()
    }

    fn walk_with(root: &Root, include: &[&str], exclude: &[&str]) -> Vec<String> {
        let filter = Filter::new(include, exclude).unwrap();
        let scope = Scope { filter: &filter, start: &RelPath::root() };
        names(&walk(root, &RelPath::root(), &[scope], &Work::default()).unwrap())
    }

    #[test]
    fn filters_like_an_ignore_file() {
        let (_dir, root) =
            tree(&["a/b/c", "a/b/d", "a/e", "f", "empty/", "docs/x", "docs/README.md"]);
        let everything =
            ["a", "a/b", "a/b/c", "a/b/d", "a/e", "docs", "docs/README.md", "docs/x", "empty", "f"];
        assert_eq!(walk_with(&root, &[], &[]), everything);
        assert_eq!(
            walk_with(&root, &[], &["docs", "!docs/README.md", "a/b", "empty"]),
            ["a", "a/e", "~docs", "docs/README.md", "f"]
        );
        assert_eq!(walk_with(&root, &[], &["*", "!**/c"]), ["~a", "~a/b", "a/b/c"]);
        assert_eq!(walk_with(&root, &["a/*/c", "f"], &[]), ["~a", "~a/b", "a/b/c", "f"]);
        assert_eq!(
            walk_with(&root, &["a", "empty"], &["**/d"]),
            ["a", "a/b", "a/b/c", "a/e", "empty"]
        );
        assert_eq!(walk_with(&root, &["nothing"], &[]), [""; 0]);
        assert_eq!(walk_with(&root, &[], &["*"]), [""; 0]);
    }

    #[test]
    fn filters_see_the_path_from_their_own_root() {
        let (_dir, root) = tree(&["src/a.o", "src/sub/a.o", "src/sub/b"]);
        let filter = Filter::new(&[], &["src/*.o"]).unwrap();
        let start = RelPath::clean("src").unwrap();
        let outer = Scope { filter: &filter, start: &start };
        let entries = walk(&root, &start, &[outer], &Work::default()).unwrap();
        assert_eq!(names(&entries), ["sub", "sub/a.o", "sub/b"]);
    }

    #[test]
    fn order_does_not_depend_on_threads() {
        let files: Vec<String> = (0..20)
            .flat_map(|d| (0..20).map(move |f| format!("d{d}/s{}/f{f}", f % 3)))
            .chain((0..1100).map(|f| format!("flat/{f}")))
            .chain(["a.b".into(), "a/x".into(), "a-b/x".into()])
            .collect();
        let (_dir, root) = tree(&files.iter().map(String::as_str).collect::<Vec<_>>());
        let run = |threads| {
            let work = Work { threads, ..Work::default() };
            walk(&root, &RelPath::root(), &[], &work).unwrap()
        };
        let one = run(1);
        assert!(one.windows(2).all(|pair| pair[0].path < pair[1].path));
        assert_eq!(one, run(2));
        assert_eq!(one, run(5));
    }

    #[test]
    fn a_link_in_the_start_is_refused() {
        let (dir, root) = tree(&["real/x"]);
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let error = walk(&root, &RelPath::clean("link").unwrap(), &[], &Work::default());
        assert!(error.is_err());
    }
}
