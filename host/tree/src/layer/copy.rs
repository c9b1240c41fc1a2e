//! The copy action: a selection of a source into a layer.
//!
//! Directories are jobs: each makes its files and hands its subdirectories on, so that several
//! threads create files at once, which is where the time goes. A directory that was made by the
//! copy itself is known to be empty; only one that existed is searched for what is there.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::file::{self, DataError, Defaults, Meta};
use super::view::{DirAt, Found, open_dir};
use super::{LayerWriter, LentFile, NewDir, copy_up, make_dir, set_dir};
use crate::content::{Node, open_file};
use crate::error::{Result, TreeError, show};
use crate::mode::ModeChange;
use crate::par;
use crate::path::{RelPath, join, split};
use crate::root::{DirCursor, Links, open_beneath, read_link_at};
use crate::select::{Selected, Selection, Shape, Source, SourceKind};
use crate::stat::{Kind, Timestamp};
use crate::xattr::{self, Holder, Xattrs};

/// Entries that one job makes; larger directories are shared between threads.
const PIECE: usize = 128;

/// Who owns what is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This user and group, the directories made on the way too.
    Fixed {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Whoever owns it in the source; directories made on the way belong to root.
    Kept,
}

/// Options of a copy that decide how things arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// See [`Owner`].
    pub owner: Owner,
    /// Change of mode, of files and directories alike.
    pub mode: Option<ModeChange>,
    /// Make missing parents of the destination (0755).
    pub create_dest: bool,
    /// Follow links in the destination.
    pub follow_links: bool,
    /// Keep the times of what is copied; otherwise it has the time of the copy.
    pub keep_times: bool,
    /// Replace what is in the way whatever it is; otherwise a directory is never replaced by
    /// something else, nor something else by a directory.
    pub replace: bool,
    /// The time of everything copied and made, instead of all others.
    pub timestamp: Option<Timestamp>,
}

impl Default for CopyOptions {
    /// As an instruction without flags: owned by root, modes and times as in the source, parents
    /// made, links followed.
    fn default() -> Self {
        CopyOptions {
            owner: Owner::Fixed { uid: 0, gid: 0 },
            mode: None,
            create_dest: true,
            follow_links: true,
            keep_times: true,
            replace: false,
            timestamp: None,
        }
    }
}

/// What a copy did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Entries made, directories that existed not counted.
    pub entries: u64,
    /// Bytes of the files among them.
    pub bytes: u64,
}

impl LayerWriter {
    /// Copies a selection to `target`.
    ///
    /// - A target that ends in `/` is a directory. So is one that exists as a directory: entries
    ///   arrive in it under their own names.
    /// - Otherwise a single entry becomes the target itself.
    /// - The contents of a directory arrive in the target, which is made (0755) if it is missing
    ///   and keeps its metadata if it is there. Directories in it that exist are merged; they get
    ///   the source's metadata unless only part of the source was asked for.
    /// - A file or link in the way of a file is replaced; see [`CopyOptions::replace`] for the
    ///   rest.
    /// - Hard links between copied files of one selected path stay hard links.
    /// - A file of a context whose digest is known ([`Selection::digest`]) is checked against it.
    ///
    /// # Errors
    /// Something is in the way, a context's file has changed, or the system refuses.
    pub fn copy(
        &mut self,
        source: &Source<'_>,
        selection: &Selection,
        target: &str,
        options: &CopyOptions,
    ) -> Result<CopyReport> {
        let mut report = CopyReport::default();
        if selection.is_empty() {
            return Ok(report);
        }
        let into_dir = matches!(target.rsplit('/').next(), Some("" | "." | ".."));
        let wanted = RelPath::clean(target)?;
        let resolved = self.resolve(&wanted, options.follow_links, options.follow_links)?;
        let exists = resolved.stat.is_some_and(|stat| stat.is_dir());
        let is_dir = into_dir || exists || resolved.path.is_root();
        let nodes = selection.roots.iter().filter(|root| root.shape != Shape::Contents).count();
        if nodes > 0 && selection.roots.len() > 1 && !is_dir {
            return Err(TreeError::Conflict {
                action: "copy several files to",
                path: target.to_owned(),
                reason: "it must be a directory and end with a slash".to_owned(),
            });
        }
        let (uid, gid) = match options.owner {
            Owner::Fixed { uid, gid } => (uid, gid),
            Owner::Kept => (0, 0),
        };
        let new = NewDir { mode: 0o755, uid, gid, time: options.timestamp };
        if !options.create_dest
            && let Some(parent) = resolved.path.parent()
            && self.resolve(&parent, false, false)?.stat.is_none()
        {
            return Err(self.error("copy to", resolved.path.as_bytes(), Errno::NOENT));
        }
        let run = Run {
            source,
            selection,
            options,
            process: self.process,
            dest: Dest { writer: self, new: &new },
        };
        run.all(&resolved.path, is_dir, &mut report)?;
        Ok(report)
    }
}

struct Dest<'a> {
    writer: &'a mut LayerWriter,
    new: &'a NewDir,
}

struct Run<'a> {
    source: &'a Source<'a>,
    selection: &'a Selection,
    options: &'a CopyOptions,
    process: Defaults,
    dest: Dest<'a>,
}

impl Run<'_> {
    fn all(mut self, target: &RelPath, is_dir: bool, report: &mut CopyReport) -> Result<()> {
        let roots = &self.selection.roots;
        let mut at = 0;
        while at < roots.len() {
            let root = &roots[at];
            if root.shape == Shape::Node {
                let count = roots[at..].iter().take_while(|root| root.shape == Shape::Node).count();
                self.nodes(&roots[at..at + count], target, is_dir, report)?;
                at += count;
                continue;
            }
            let whole = root.shape == Shape::Tree;
            let place = match (&root.name, whole && is_dir) {
                (Some(name), true) => target.join(name),
                _ => target.clone(),
            };
            self.tree(root, &place, report)?;
            at += 1;
        }
        Ok(())
    }

    /// Entries that are no directories, all to the same place.
    fn nodes(
        &mut self,
        roots: &[Selected],
        target: &RelPath,
        is_dir: bool,
        report: &mut CopyReport,
    ) -> Result<()> {
        let dir = if is_dir { target.clone() } else { target.parent().unwrap_or_default() };
        let Dest { writer, new } = &mut self.dest;
        let (at, _) = writer.ensure_dir(&dir, new)?;
        // Of several entries with one name the last one stays.
        let mut last: HashMap<&[u8], &Selected> = HashMap::new();
        let mut order = Vec::new();
        for root in roots {
            let name = match (is_dir, &root.name) {
                (true, Some(name)) => &**name,
                _ => target.name().unwrap_or_default(),
            };
            if last.insert(name, root).is_none() {
                order.push(name);
            }
        }
        let writer = &*self.dest.writer;
        let maker = self.maker(writer);
        let defaults = writer
            .defaults_in(at.upper.as_ref().expect("made above").as_fd())
            .map_err(|errno| writer.error("stat", dir.as_bytes(), errno))?;
        let mut jobs: Vec<(&[u8], &Selected)> =
            order.into_iter().map(|name| (name, last[name])).collect();
        let workers = std::sync::Mutex::new((CopyReport::default(), Vec::new()));
        par::for_each_piece(
            &writer.work,
            &mut jobs,
            PIECE,
            || (DirCursor::new(self.source.root.as_fd()), Worker::default()),
            |(cursor, worker), piece| {
                for (name, root) in piece {
                    let (from, from_name) = split(root.path.as_bytes());
                    let from = maker.source_dir(cursor, from)?;
                    let found = maker.find(&at, &dir, name)?;
                    maker.clear_for_node(&at, &dir, name, found)?;
                    let place = Place { at: &at, dir: &dir, name, defaults };
                    maker.node(worker, from, from_name, &root.path, &root.top, &place)?;
                }
                let mut all = workers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let (total, lent) = &mut *all;
                total.entries += std::mem::take(&mut worker.report.entries);
                total.bytes += std::mem::take(&mut worker.report.bytes);
                lent.append(&mut worker.lent);
                Ok(())
            },
        )?;
        let (done, lent) = workers.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        report.entries += done.entries;
        report.bytes += done.bytes;
        let writer = &mut *self.dest.writer;
        lent.into_iter().for_each(|(path, file)| writer.lent.insert(path, file));
        writer.touch(&dir, self.options.timestamp);
        Ok(())
    }

    fn maker<'m>(&'m self, writer: &'m LayerWriter) -> Maker<'m> {
        Maker {
            source: self.source,
            options: self.options,
            process: self.process,
            loaded: self.selection.loaded,
            writer,
        }
    }

    /// A directory, or what is in it.
    fn tree(&mut self, root: &Selected, place: &RelPath, report: &mut CopyReport) -> Result<()> {
        let Dest { writer, new } = &mut self.dest;
        let (made, existed) = match root.shape {
            Shape::Tree => {
                // The parents; the directory itself is made below with the source's metadata.
                let (at, dir, name) = match (place.parent(), place.name()) {
                    (Some(dir), Some(name)) => {
                        let (at, _) = writer.ensure_dir(&dir, new)?;
                        (at, dir, name)
                    }
                    _ => return self.contents(root, place, false, report),
                };
                let found =
                    at.find(name).map_err(|errno| writer.error("stat", place.as_bytes(), errno))?;
                if found.is_dir() {
                    writer.ensure_dir(place, new)?;
                    (false, true)
                } else {
                    let maker = Maker {
                        source: self.source,
                        options: self.options,
                        process: self.process,
                        loaded: self.selection.loaded,
                        writer,
                    };
                    let found = maker.clear_for_dir(&at, &dir, name, found)?;
                    let fd = make_dir(&at, name, found, writer.kind)
                        .map_err(|errno| writer.error("make", place.as_bytes(), errno))?;
                    let mut cursor = DirCursor::new(self.source.root.as_fd());
                    let (from, from_name) = split(root.path.as_bytes());
                    let from = maker.source_dir(&mut cursor, from)?;
                    let xattrs =
                        maker.xattrs(Holder::At(from, from_name), &root.path, &root.top)?;
                    let meta = maker.meta(&root.top);
                    writer
                        .finish_dir(fd.as_fd(), place, &meta, &xattrs)
                        .map_err(|errno| writer.error("change", place.as_bytes(), errno))?;
                    writer.touch(&dir, self.options.timestamp);
                    report.entries += 1;
                    (true, false)
                }
            }
            _ => {
                let (_, made) = writer.ensure_dir(place, new)?;
                (made, !made)
            }
        };
        let fresh = made && !existed;
        self.contents(root, place, fresh, report)?;
        if root.shape == Shape::Tree && fresh {
            let mtime = self.maker(self.dest.writer).meta(&root.top).mtime;
            self.dest.writer.touch(place, mtime);
        }
        Ok(())
    }

    /// What is in a directory, into one that exists in the upper tree.
    fn contents(
        &mut self,
        root: &Selected,
        place: &RelPath,
        fresh: bool,
        report: &mut CopyReport,
    ) -> Result<()> {
        let tree = Children::of(&root.nodes);
        let writer = &*self.dest.writer;
        let base = !fresh && {
            let mut at = writer.root_at().map_err(|errno| writer.error("open", b"", errno))?;
            for name in place.names() {
                at = at
                    .find(name)
                    .and_then(|found| at.enter(name, found, writer.kind))
                    .map_err(|errno| writer.error("open", place.as_bytes(), errno))?;
            }
            at.base.is_some()
        };
        let maker = self.maker(writer);
        let links = hard_links(&root.nodes);
        let first = Job { dir: 0, place: place.as_bytes().into(), fresh, base, piece: None };
        let workers = par::run(&writer.work, vec![first], Worker::default, |worker, job, more| {
            maker.job(worker, root, &tree, &links, job, more)
        })?;
        let mut later = Vec::new();
        let mut lent = Vec::new();
        let mut times: Vec<(RelPath, DirTime)> = Vec::new();
        let mut modes = Vec::new();
        for worker in workers {
            report.entries += worker.report.entries;
            report.bytes += worker.report.bytes;
            times.extend(worker.times);
            modes.extend(worker.modes);
            later.extend(worker.later);
            lent.extend(worker.lent);
        }
        // The files they are links to exist now.
        later.sort_unstable_by_key(|link| link.node);
        for link in later {
            maker.hard_link(root, &links, place, &link)?;
            report.entries += 1;
        }
        // Of what is said of one directory, the time it was given comes last and wins.
        let writer = &mut *self.dest.writer;
        times.sort_unstable();
        for (path, time) in times {
            match time {
                DirTime::Touched => writer.touch(&path, self.options.timestamp),
                DirTime::CopiedUp(time) => drop(writer.times.insert(path, time)),
                DirTime::Given(time) => writer.touch(&path, time),
            }
        }
        writer.modes.extend(modes);
        lent.into_iter().for_each(|(path, file)| writer.lent.insert(path, file));
        Ok(())
    }
}

/// Why a directory gets which time; later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum DirTime {
    CopiedUp(Timestamp),
    Touched,
    Given(Option<Timestamp>),
}

/// The entries of each directory of a list in walk order. Directory 0 is the root, directory
/// `n + 1` the node `n`.
struct Children {
    starts: Vec<u32>,
    nodes: Vec<u32>,
}

impl Children {
    fn of(nodes: &[Node]) -> Children {
        let mut parents = Vec::with_capacity(nodes.len());
        let mut open: Vec<usize> = vec![0];
        let mut counts = vec![0_u32; nodes.len() + 2];
        for (index, node) in nodes.iter().enumerate() {
            open.truncate(node.path.names().count());
            let parent = *open.last().expect("the root stays");
            parents.push(parent);
            counts[parent + 1] += 1;
            if node.stat.is_dir() {
                open.push(index + 1);
            }
        }
        for index in 1..counts.len() {
            counts[index] += counts[index - 1];
        }
        let mut next = counts.clone();
        let mut sorted = vec![0; nodes.len()];
        for (index, parent) in parents.into_iter().enumerate() {
            sorted[next[parent] as usize] = u32::try_from(index).expect("fewer than 2^32 entries");
            next[parent] += 1;
        }
        Children { starts: counts, nodes: sorted }
    }

    fn in_dir(&self, dir: usize) -> &[u32] {
        &self.nodes[self.starts[dir] as usize..self.starts[dir + 1] as usize]
    }
}

/// For each file that is another name of an earlier one: the earlier one.
fn hard_links(nodes: &[Node]) -> HashMap<usize, usize> {
    let mut first: HashMap<(u64, (u32, u32)), usize> = HashMap::new();
    let mut links = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        if node.stat.kind == Kind::File && node.stat.nlink > 1 {
            match first.entry((node.stat.inode, node.stat.device)) {
                std::collections::hash_map::Entry::Occupied(known) => {
                    links.insert(index, *known.get());
                }
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(index);
                }
            }
        }
    }
    links
}

struct Job {
    dir: usize,
    /// The directory in the layer.
    place: Box<[u8]>,
    /// It was made by this copy and is empty.
    fresh: bool,
    /// The base has a directory at this place that shows through.
    base: bool,
    /// Part of the entries; none: all of them.
    piece: Option<(usize, usize)>,
}

/// A hard link to be made once all files are there.
struct LateLink {
    node: usize,
    base: bool,
}

#[derive(Default)]
struct Worker {
    buffer: Vec<u8>,
    report: CopyReport,
    times: Vec<(RelPath, DirTime)>,
    modes: Vec<(RelPath, u32)>,
    later: Vec<LateLink>,
    lent: Vec<(RelPath, LentFile)>,
}

/// A name in a directory of the layer.
struct Place<'a> {
    at: &'a DirAt,
    dir: &'a RelPath,
    name: &'a [u8],
    defaults: Defaults,
}

impl Place<'_> {
    fn upper(&self) -> BorrowedFd<'_> {
        self.at.upper.as_ref().expect("the directory was copied up").as_fd()
    }

    fn path(&self) -> RelPath {
        self.dir.join(self.name)
    }
}

/// What all threads of a copy share.
struct Maker<'a> {
    source: &'a Source<'a>,
    options: &'a CopyOptions,
    process: Defaults,
    /// Attributes and link targets are in the nodes.
    loaded: bool,
    writer: &'a LayerWriter,
}

impl Maker<'_> {
    fn meta(&self, node: &Node) -> Meta {
        let (uid, gid) = match self.options.owner {
            Owner::Fixed { uid, gid } => (uid, gid),
            Owner::Kept => (node.stat.uid, node.stat.gid),
        };
        let mode = match &self.options.mode {
            Some(change) => change.apply(node.stat.mode, node.stat.is_dir()),
            None => node.stat.mode,
        };
        let kept = self.options.keep_times.then_some(node.stat.mtime);
        Meta { mode, uid, gid, mtime: self.options.timestamp.or(kept) }
    }

    fn xattrs(&self, holder: Holder<'_>, path: &RelPath, node: &Node) -> Result<Xattrs> {
        match self.source.kind {
            SourceKind::Context => Ok(Xattrs::new()),
            SourceKind::Image if self.loaded => Ok(node.xattrs.clone()),
            SourceKind::Image => xattr::read(holder).map_err(|errno| {
                self.source.root.error("read the attributes of", path.as_bytes(), errno)
            }),
        }
    }

    fn source_dir<'c>(&self, cursor: &'c mut DirCursor<'_>, dir: &[u8]) -> Result<BorrowedFd<'c>> {
        cursor.dir(dir).map_err(|errno| self.source_error("open", dir, errno))
    }

    fn source_error(&self, action: &'static str, path: &[u8], errno: Errno) -> TreeError {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO
                if self.source.kind == SourceKind::Context =>
            {
                self.changed(path)
            }
            errno => self.source.root.error(action, path, errno),
        }
    }

    fn changed(&self, path: &[u8]) -> TreeError {
        TreeError::Changed { path: show(path), place: self.source.root.place().to_owned() }
    }

    fn find(&self, at: &DirAt, dir: &RelPath, name: &[u8]) -> Result<Found> {
        at.find(name).map_err(|errno| self.writer.error("stat", dir.join(name).as_bytes(), errno))
    }

    /// Makes room for something that is no directory.
    fn clear_for_node(&self, at: &DirAt, dir: &RelPath, name: &[u8], found: Found) -> Result<()> {
        if !self.options.replace && found.is_dir() {
            return Err(TreeError::Conflict {
                action: "copy a file to",
                path: dir.join(name).to_string(),
                reason: "a directory is there".to_owned(),
            });
        }
        self.writer.clear_upper(at, dir, name, found)
    }

    /// Makes room for a directory; what is there is none. Says what is found afterwards.
    fn clear_for_dir(&self, at: &DirAt, dir: &RelPath, name: &[u8], found: Found) -> Result<Found> {
        let Some(stat) = found.stat() else { return Ok(found) };
        if !self.options.replace {
            return Err(TreeError::Conflict {
                action: "copy a directory to",
                path: dir.join(name).to_string(),
                reason: format!("a {} is there", stat.kind),
            });
        }
        self.writer.clear_upper(at, dir, name, found)?;
        Ok(Found::Absent { whiteout: false })
    }

    fn job(
        &self,
        worker: &mut Worker,
        root: &Selected,
        tree: &Children,
        links: &HashMap<usize, usize>,
        job: Job,
        more: &mut Vec<Job>,
    ) -> Result<()> {
        let children = tree.in_dir(job.dir);
        let (begin, end) = match job.piece {
            Some(piece) => piece,
            None if children.len() > PIECE + PIECE / 2 => {
                for begin in (0..children.len()).step_by(PIECE).rev() {
                    let piece = Some((begin, children.len().min(begin + PIECE)));
                    more.push(Job { place: job.place.clone(), piece, ..job });
                }
                return Ok(());
            }
            None => (0, children.len()),
        };
        if begin == end {
            return Ok(());
        }
        let below = match job.dir {
            0 => &[][..],
            dir => root.nodes[dir - 1].path.as_bytes(),
        };
        let from_path = RelPath::trusted(join(root.path.as_bytes(), below));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let from =
            open_beneath(self.source.root.as_fd(), from_path.as_bytes(), flags, Links::Refuse)
                .map_err(|errno| self.source_error("open", from_path.as_bytes(), errno))?;
        let dir = RelPath::trusted(job.place);
        let fail = |errno| self.writer.error("open", dir.as_bytes(), errno);
        let upper = self.writer.open_upper(dir.as_bytes()).map_err(fail)?;
        let base = match &self.writer.base {
            Some(base) if job.base => {
                let open = open_beneath(base.as_fd(), dir.as_bytes(), flags, Links::Refuse);
                Some(open.map_err(fail)?)
            }
            _ => None,
        };
        let defaults = self.writer.defaults_in(upper.as_fd()).map_err(fail)?;
        let at = DirAt { upper: Some(upper), base };
        // Whether this directory itself gets a new entry.
        let mut made = false;
        for index in &children[begin..end] {
            let index = *index as usize;
            let node = &root.nodes[index];
            let name = split(node.path.as_bytes()).1;
            let found = if job.fresh {
                Found::Absent { whiteout: false }
            } else {
                self.find(&at, &dir, name)?
            };
            let place = Place { at: &at, dir: &dir, name, defaults };
            let path = from_path.join(name);
            if node.stat.is_dir() {
                let (fresh, base) =
                    self.dir(worker, root, from.as_fd(), &path, node, found, &place)?;
                made |= fresh;
                let place = join(dir.as_bytes(), name);
                more.push(Job { dir: index + 1, place, fresh, base, piece: None });
                continue;
            }
            made = true;
            if links.contains_key(&index) {
                worker.later.push(LateLink { node: index, base: job.base });
                continue;
            }
            if !job.fresh {
                self.clear_for_node(&at, &dir, name, found)?;
            }
            self.node(worker, from.as_fd(), name, &path, node, &place)?;
        }
        if made && !job.fresh {
            worker.times.push((dir, DirTime::Touched));
        }
        Ok(())
    }

    /// Makes or merges a directory. Says whether it is new, and whether the base shows through.
    #[allow(clippy::too_many_arguments)]
    fn dir(
        &self,
        worker: &mut Worker,
        root: &Selected,
        from: BorrowedFd<'_>,
        from_path: &RelPath,
        node: &Node,
        found: Found,
        place: &Place<'_>,
    ) -> Result<(bool, bool)> {
        let here = place.path();
        let fail = |errno| self.writer.error("make the directory", here.as_bytes(), errno);
        let (fresh, base) = match found {
            Found::Upper(stat) if stat.is_dir() => {
                let entered = place.at.enter(place.name, found, self.writer.kind).map_err(fail)?;
                (false, entered.base.is_some())
            }
            Found::Base(stat) if stat.is_dir() => {
                let base = place.at.base.as_ref().expect("found there").as_fd();
                copy_up(place.upper(), base, place.name, &stat, self.process).map_err(fail)?;
                worker.times.push((here.clone(), DirTime::CopiedUp(stat.mtime)));
                (false, true)
            }
            other => {
                let other = self.clear_for_dir(place.at, place.dir, place.name, other)?;
                make_dir(place.at, place.name, other, self.writer.kind).map_err(fail)?;
                worker.report.entries += 1;
                (true, false)
            }
        };
        if fresh || !root.partial {
            let to = open_dir(place.upper(), place.name).map_err(fail)?;
            let name = split(node.path.as_bytes()).1;
            let xattrs = self.xattrs(Holder::At(from, name), from_path, node)?;
            let meta = self.meta(node);
            if let Some(mode) = set_dir(to.as_fd(), &meta, &xattrs, self.process).map_err(fail)? {
                worker.modes.push((here.clone(), mode));
            }
            worker.times.push((here, DirTime::Given(meta.mtime)));
        }
        Ok((fresh, base))
    }

    /// Makes something that is no directory, where nothing is.
    fn node(
        &self,
        worker: &mut Worker,
        from: BorrowedFd<'_>,
        from_name: &[u8],
        from_path: &RelPath,
        node: &Node,
        place: &Place<'_>,
    ) -> Result<()> {
        let meta = self.meta(node);
        let upper = place.upper();
        let write_error = |errno| self.writer.error("write", place.path().as_bytes(), errno);
        match node.stat.kind {
            Kind::File => self.file(worker, from, from_name, from_path, node, place, &meta)?,
            Kind::Symlink => {
                let target = match &node.link {
                    Some(target) => target.clone(),
                    None => read_link_at(from, from_name)
                        .map_err(|errno| self.source_error("read", from_path.as_bytes(), errno))?,
                };
                let xattrs = self.xattrs(Holder::At(from, from_name), from_path, node)?;
                rustix::fs::symlinkat(&*target, upper, place.name)
                    .and_then(|()| {
                        let kind = Kind::Symlink;
                        file::finish_at(upper, place.name, kind, &meta, &xattrs, place.defaults)
                    })
                    .map_err(write_error)?;
            }
            kind => {
                if self.source.kind == SourceKind::Context {
                    return Err(TreeError::Special {
                        path: from_path.to_string(),
                        place: self.source.root.place().to_owned(),
                        kind: kind.as_str(),
                    });
                }
                let xattrs = self.xattrs(Holder::At(from, from_name), from_path, node)?;
                file::make_special(upper, place.name, kind, node.stat.rdev)
                    .and_then(|()| {
                        file::finish_at(upper, place.name, kind, &meta, &xattrs, place.defaults)
                    })
                    .map_err(write_error)?;
            }
        }
        worker.report.entries += 1;
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn file(
        &self,
        worker: &mut Worker,
        from: BorrowedFd<'_>,
        from_name: &[u8],
        from_path: &RelPath,
        node: &Node,
        place: &Place<'_>,
        meta: &Meta,
    ) -> Result<()> {
        let cancel = &self.writer.work.cancel;
        let write_error = |errno| self.writer.error("write", place.path().as_bytes(), errno);
        let wanted = match self.source.kind {
            SourceKind::Context => node.sha256.as_ref(),
            SourceKind::Image => None,
        };
        let target = file::create(place.upper(), place.name, meta.mode).map_err(write_error)?;
        // Another name of the file would have to be told as well.
        let lendable = node.stat.size > file::SMALL && node.stat.nlink == 1;
        if let (Some(sha256), true) = (wanted, self.writer.lends && lendable) {
            rustix::fs::ftruncate(&target, node.stat.size)
                .and_then(|()| {
                    file::finish_fd(target.as_fd(), meta, &Xattrs::new(), place.defaults)
                })
                .map_err(write_error)?;
            let (source, size) = (from_path.clone(), node.stat.size);
            worker.lent.push((place.path(), LentFile { source, size, sha256: *sha256 }));
            worker.report.bytes += node.stat.size;
            return Ok(());
        }
        let source = open_file(from, from_name)
            .map_err(|errno| self.source_error("open", from_path.as_bytes(), errno))?;
        let copied = file::copy_data(
            source.as_fd(),
            target.as_fd(),
            &node.stat,
            wanted,
            &mut worker.buffer,
            cancel,
        );
        copied.map_err(|error| match error {
            DataError::Read(errno) => self.source_error("read", from_path.as_bytes(), errno),
            DataError::Write(errno) => write_error(errno),
            DataError::Changed => self.changed(from_path.as_bytes()),
            DataError::Cancelled => TreeError::Cancelled,
        })?;
        let xattrs = self.xattrs(Holder::Fd(source.as_fd()), from_path, node)?;
        file::finish_fd(target.as_fd(), meta, &xattrs, place.defaults).map_err(write_error)?;
        worker.report.bytes += node.stat.size;
        Ok(())
    }

    fn hard_link(
        &self,
        root: &Selected,
        links: &HashMap<usize, usize>,
        place: &RelPath,
        link: &LateLink,
    ) -> Result<()> {
        let node = &root.nodes[link.node];
        let first = place.join(root.nodes[links[&link.node]].path.as_bytes());
        let here = place.join(node.path.as_bytes());
        let fail = |errno| self.writer.error("link", here.as_bytes(), errno);
        let (dir, name) = split(here.as_bytes());
        let dir = RelPath::trusted(dir);
        let upper = self.writer.open_upper(dir.as_bytes()).map_err(fail)?;
        let base = match &self.writer.base {
            Some(base) if link.base => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                Some(
                    open_beneath(base.as_fd(), dir.as_bytes(), flags, Links::Refuse)
                        .map_err(fail)?,
                )
            }
            _ => None,
        };
        let at = DirAt { upper: Some(upper), base };
        let found = self.find(&at, &dir, name)?;
        self.clear_for_node(&at, &dir, name, found)?;
        let upper = at.upper.as_ref().expect("opened above");
        let (first_dir, first_name) = split(first.as_bytes());
        let first_dir = self.writer.open_upper(first_dir).map_err(fail)?;
        rustix::fs::linkat(&first_dir, first_name, upper, name, AtFlags::empty()).map_err(fail)
    }
}
