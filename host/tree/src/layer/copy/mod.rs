//! The copy action: a selection of a source into a layer.
//!
//! Directories are jobs: each makes its files and hands its subdirectories on, so that several
//! threads create files at once, which is where the time goes. A directory that was made by the
//! copy itself is known to be empty; only one that existed is searched for what is there.

mod maker;
mod order;

use std::collections::HashMap;
use std::os::fd::AsFd;

use rustix::io::Errno;

use self::maker::{Job, Maker, Place, Worker};
use self::order::{Children, hard_links};
use super::file::Defaults;
use super::{LayerWriter, NewDir, make_dir};
use crate::error::{Result, TreeError};
use crate::mode::ModeChange;
use crate::par;
use crate::path::{RelPath, split};
use crate::root::DirCursor;
use crate::select::{Selected, Selection, Shape, Source};
use crate::stat::Timestamp;
use crate::xattr::Holder;

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
