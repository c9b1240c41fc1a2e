//! Makes the entries of a copy, one directory or piece of one at a time.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::order::Children;
use super::{CopyOptions, CopyReport, DirTime, Owner, PIECE};
use crate::content::{Node, open_file};
use crate::error::{Result, TreeError, show};
use crate::layer::base::open_dir;
use crate::layer::file::{self, DataError, Defaults, Meta};
use crate::layer::view::{DirAt, Found};
use crate::layer::{LayerWriter, LentFile, copy_up, make_dir, set_dir};
use crate::path::{RelPath, join, split};
use crate::root::{DirCursor, Links, open_beneath, read_link_at};
use crate::select::{Selected, Source, SourceKind};
use crate::stat::Kind;
use crate::xattr::{self, Holder, Xattrs};

pub(super) struct Job {
    pub(super) dir: usize,
    /// The directory in the layer.
    pub(super) place: Box<[u8]>,
    /// It was made by this copy and is empty.
    pub(super) fresh: bool,
    /// The base has a directory at this place that shows through.
    pub(super) base: bool,
    /// Part of the entries; none: all of them.
    pub(super) piece: Option<(usize, usize)>,
}

/// A hard link to be made once all files are there.
pub(super) struct LateLink {
    pub(super) node: usize,
    pub(super) base: bool,
}

#[derive(Default)]
pub(super) struct Worker {
    pub(super) buffer: Vec<u8>,
    pub(super) report: CopyReport,
    pub(super) times: Vec<(RelPath, DirTime)>,
    pub(super) modes: Vec<(RelPath, u32)>,
    pub(super) later: Vec<LateLink>,
    pub(super) lent: Vec<(RelPath, LentFile)>,
}

/// A name in a directory of the layer.
pub(super) struct Place<'a> {
    pub(super) at: &'a DirAt,
    pub(super) dir: &'a RelPath,
    pub(super) name: &'a [u8],
    pub(super) defaults: Defaults,
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
pub(super) struct Maker<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) options: &'a CopyOptions,
    pub(super) process: Defaults,
    /// Attributes and link targets are in the nodes.
    pub(super) loaded: bool,
    pub(super) writer: &'a LayerWriter,
}

impl Maker<'_> {
    pub(super) fn meta(&self, node: &Node) -> Meta {
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

    pub(super) fn xattrs(&self, holder: Holder<'_>, path: &RelPath, node: &Node) -> Result<Xattrs> {
        match self.source.kind {
            SourceKind::Context => Ok(Xattrs::new()),
            SourceKind::Image if self.loaded => Ok(node.xattrs.clone()),
            SourceKind::Image => xattr::read(holder).map_err(|errno| {
                self.source.root.error("read the attributes of", path.as_bytes(), errno)
            }),
        }
    }

    pub(super) fn source_dir<'c>(
        &self,
        cursor: &'c mut DirCursor<'_>,
        dir: &[u8],
    ) -> Result<BorrowedFd<'c>> {
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

    pub(super) fn find(&self, at: &DirAt, dir: &RelPath, name: &[u8]) -> Result<Found> {
        at.find(name).map_err(|errno| self.writer.error("stat", dir.join(name).as_bytes(), errno))
    }

    /// Makes room for something that is no directory.
    pub(super) fn clear_for_node(
        &self,
        at: &DirAt,
        dir: &RelPath,
        name: &[u8],
        found: Found,
    ) -> Result<()> {
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
    pub(super) fn clear_for_dir(
        &self,
        at: &DirAt,
        dir: &RelPath,
        name: &[u8],
        found: Found,
    ) -> Result<Found> {
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

    pub(super) fn job(
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
            Some(base) if job.base => Some(base.open(&dir, self.writer.kind).map_err(fail)?),
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
                let base = place.at.base.as_ref().expect("found there");
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
    pub(super) fn node(
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

    pub(super) fn hard_link(
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
            Some(base) if link.base => Some(base.open(&dir, self.writer.kind).map_err(fail)?),
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
