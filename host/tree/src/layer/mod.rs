//! Writing a layer: changes to a base tree, as the upper directory of an overlay, without mounting
//! one for writing.
//!
//! Invariants:
//!
//! - Only the upper directory is written to; the base and the sources are only read.
//! - No path leaves the merged tree, whatever links are in it: a destination is resolved one name
//!   at a time, upper directory first, links followed within the root, and is then entered with
//!   links refused.
//! - The upper directory is valid for an overlay mount at any time: parents that exist in the base
//!   are copied up with their metadata before something is made in them, what is removed leaves a
//!   whiteout (character device 0:0) where the base has something, and a new directory over a
//!   removed one is marked opaque.
//! - A directory that was only copied up keeps its time; one in which something was made or
//!   removed has the time of that change, or the time the action was given.
//!   [`LayerWriter::finish`] sets these times; without it the layer is complete but for them.

mod actions;
mod base;
mod copy;
mod entry;
mod file;
mod lent;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, Gid, Mode, Uid};
use rustix::io::Errno;

use crate::error::{Result, TreeError, show};
use crate::par::Work;
use crate::path::{MAX_PATH, RelPath};
use crate::root::{Links, Root, open_beneath, stat_fd};
use crate::stat::{Kind, Stat, Timestamp};
use crate::walk::walk;
use crate::xattr::{self, Holder, XattrKind, Xattrs};

pub use actions::{LinkOptions, MkdirOptions, RemoveOptions, WriteOptions};
pub use base::Base;
pub use copy::{CopyOptions, CopyReport, Owner};
pub use entry::{EntryMeta, NewEntry};
pub use lent::{LentFile, LentFiles, LentReader};

use base::{BaseDir, open_dir};
use file::{Defaults, Meta};
use view::{DirAt, Found};

/// Links followed while a destination is resolved, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Writes one layer. See the module's description.
#[derive(Debug)]
pub struct LayerWriter {
    upper: Root,
    base: Option<Arc<Base>>,
    kind: XattrKind,
    /// Owner and mask of what this process makes.
    process: Defaults,
    /// Times that directories get at the end.
    times: BTreeMap<RelPath, Timestamp>,
    /// Modes that would keep an unprivileged process from working in the directory.
    modes: BTreeMap<RelPath, u32>,
    /// Directories whose time [`LayerWriter::put`] was given: it stays whatever is put in them.
    fixed: BTreeSet<RelPath>,
    /// Whether large files of contexts are left where they are, and those that were.
    lends: bool,
    lent: LentFiles,
    work: Work,
}

/// A destination without links in it.
#[derive(Clone, Debug)]
struct Resolved {
    path: RelPath,
    stat: Option<Stat>,
}

/// What directories that have to be made are like.
#[derive(Clone, Copy, Debug)]
struct NewDir {
    mode: u32,
    uid: u32,
    gid: u32,
    time: Option<Timestamp>,
}

impl LayerWriter {
    /// Writes into the directory `upper`, which may hold an earlier part of the same layer. `base`
    /// is everything below it; none means an empty base. `kind` is that of the overlay the layers are
    /// mounted with.
    ///
    /// The upper directory itself becomes `/`: it gets the base's metadata, or 0755 root.
    ///
    /// # Errors
    /// The directories cannot be looked at, or the upper one not be given its metadata.
    pub fn new(upper: Root, base: Option<Base>, kind: XattrKind, work: Work) -> Result<Self> {
        let process = Defaults {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            umask: umask(),
        };
        let mut writer = LayerWriter {
            upper,
            base: base.map(Arc::new),
            kind,
            process,
            times: BTreeMap::new(),
            modes: BTreeMap::new(),
            fixed: BTreeSet::new(),
            lends: false,
            lent: LentFiles::default(),
            work,
        };
        writer.prepare_root().map_err(|errno| writer.upper.error("prepare", b"", errno))?;
        Ok(writer)
    }

    fn prepare_root(&mut self) -> std::result::Result<(), Errno> {
        let upper = self.upper.as_fd();
        let now = stat_fd(upper)?;
        let (mode, uid, gid) = match &self.base {
            Some(base) => {
                let base = base.root().open()?;
                let stat = stat_fd(base.as_fd())?;
                xattr::replace(Holder::Fd(upper), &xattr::read(Holder::Fd(base.as_fd()))?)?;
                self.times.insert(RelPath::root(), stat.mtime);
                (stat.mode, stat.uid, stat.gid)
            }
            None => (0o755, self.process.uid, self.process.gid),
        };
        if (now.uid, now.gid) != (uid, gid) {
            rustix::fs::fchown(upper, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        if now.mode != mode {
            rustix::fs::fchmod(upper, Mode::from_raw_mode(mode))?;
        }
        Ok(())
    }

    /// From now on, copies leave the contents of large files of contexts where they are; see
    /// [`LentFiles`]. For a layer of copies alone: what would write or remove files afterwards does
    /// not know of it.
    pub fn lend(&mut self) {
        self.lends = true;
    }

    /// Sets the times (and, unprivileged, the modes) that had to wait until nothing more is made.
    /// Gives the files that the layer lacks the contents of; none without [`LayerWriter::lend`].
    ///
    /// # Errors
    /// A directory of the layer cannot be changed.
    pub fn finish(mut self) -> Result<LentFiles> {
        let mut lent = std::mem::take(&mut self.lent);
        lent.settle(&self.upper)?;
        // Deepest first: a directory without search permission hides what is in it.
        for (path, mode) in self.modes.iter().rev() {
            let opened = self.open_upper(path.as_bytes());
            match opened.and_then(|fd| rustix::fs::fchmod(&fd, Mode::from_raw_mode(*mode))) {
                // Removed again by a later action.
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(self.error("change", path.as_bytes(), errno)),
            }
        }
        for (path, time) in self.times.iter().rev() {
            let at = if path.is_root() { b"." } else { path.as_bytes() };
            let times = file::timestamps(*time);
            // Every name on the way is a directory that this writer made or copied up.
            match rustix::fs::utimensat(&self.upper, at, &times, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(self.error("set the time of", path.as_bytes(), errno)),
            }
        }
        Ok(lent)
    }

    fn error(&self, action: &'static str, path: &[u8], errno: Errno) -> TreeError {
        self.upper.error(action, path, errno)
    }

    fn open_upper(&self, path: &[u8]) -> std::result::Result<OwnedFd, Errno> {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        open_beneath(self.upper.as_fd(), path, flags, Links::Refuse)
    }

    /// Owner and mask for what is made in a directory: one with the set-gid bit hands its group
    /// down.
    fn defaults_in(&self, dir: BorrowedFd<'_>) -> std::result::Result<Defaults, Errno> {
        let stat = stat_fd(dir)?;
        let gid = if stat.mode & 0o2000 != 0 { stat.gid } else { self.process.gid };
        Ok(Defaults { gid, ..self.process })
    }

    /// Something was made or removed in a directory.
    fn touch(&mut self, dir: &RelPath, time: Option<Timestamp>) {
        match time {
            Some(time) => drop(self.times.insert(dir.clone(), time)),
            None => drop(self.times.remove(dir)),
        }
    }

    fn root_at(&self) -> std::result::Result<DirAt, Errno> {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        let upper = open_beneath(self.upper.as_fd(), b"", flags, Links::Refuse)?;
        Ok(DirAt { upper: Some(upper), base: self.base.as_ref().map(Base::root) })
    }

    /// Where a path of the merged tree ends. With `follow`, links on the way are followed within
    /// the root, and with `last` one at the end as well. What does not exist is taken as it is
    /// written.
    fn resolve(&self, path: &RelPath, follow: bool, last: bool) -> Result<Resolved> {
        let fail = |errno| self.error("find", path.as_bytes(), errno);
        let mut pending: Vec<Box<[u8]>> = path.names().rev().map(Into::into).collect();
        let mut names: Vec<Box<[u8]>> = Vec::new();
        // The directories that exist on the way, the root included.
        let mut dirs = vec![self.root_at().map_err(fail)?];
        // What the last name is, if it is no directory.
        let mut end: Option<Stat> = None;
        let mut links = 0;
        while let Some(name) = pending.pop() {
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    names.pop();
                    end = None;
                    dirs.truncate(names.len() + 1);
                    continue;
                }
                _ => {}
            }
            if let Some(stat) = end {
                return Err(TreeError::Conflict {
                    action: "write below",
                    path: show(&names.join(&b'/')),
                    reason: format!("it is a {}", stat.kind),
                });
            }
            if names.iter().map(|name| name.len() + 1).sum::<usize>() + name.len() > MAX_PATH {
                return Err(fail(Errno::NAMETOOLONG));
            }
            let exists = dirs.len() == names.len() + 1;
            if exists {
                let dir = dirs.last().expect("the root stays");
                let found = dir.find(&name).map_err(fail)?;
                match found.stat() {
                    Some(stat) if stat.is_dir() => {
                        let entered = dir.enter(&name, found, self.kind).map_err(fail)?;
                        dirs.push(entered);
                    }
                    Some(stat)
                        if stat.kind == Kind::Symlink
                            && follow
                            && (last || !pending.is_empty()) =>
                    {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(fail(Errno::LOOP));
                        }
                        let target = dir.read_link(&name, found).map_err(fail)?;
                        if target.starts_with(b"/") {
                            names.clear();
                            dirs.truncate(1);
                        }
                        pending.extend(target.split(|byte| *byte == b'/').rev().map(Into::into));
                        continue;
                    }
                    Some(stat) => end = Some(stat),
                    None => {}
                }
            }
            names.push(name);
        }
        let stat = match end {
            Some(stat) => Some(stat),
            None if dirs.len() == names.len() + 1 => {
                let dir = dirs.last().expect("the root stays");
                Some(dir.stat().map_err(fail)?)
            }
            None => None,
        };
        Ok(Resolved { path: RelPath::trusted(names.join(&b'/')), stat })
    }

    /// Makes sure that a resolved path is a directory of the upper tree: copies up what the base
    /// has and makes what is missing. Says whether the last one was made.
    fn ensure_dir(&mut self, path: &RelPath, new: &NewDir) -> Result<(DirAt, bool)> {
        let mut at = self.root_at().map_err(|errno| self.error("open", b"", errno))?;
        let mut here = RelPath::root();
        let mut made = false;
        for name in path.names() {
            let parent = here.clone();
            here = here.join(name);
            let fail =
                |writer: &Self, errno| writer.error("make the directory", here.as_bytes(), errno);
            let found = at.find(name).map_err(|errno| fail(self, errno))?;
            let upper = at.upper.as_ref().expect("kept by this loop").as_fd();
            made = false;
            match found {
                Found::Upper(stat) if stat.is_dir() => {}
                Found::Base(stat) if stat.is_dir() => {
                    let base = at.base.as_ref().expect("found there");
                    copy_up(upper, base, name, &stat, self.process)
                        .map_err(|errno| fail(self, errno))?;
                    self.times.insert(here.clone(), stat.mtime);
                }
                Found::Absent { .. } => {
                    let fd =
                        make_dir(&at, name, found, self.kind).map_err(|errno| fail(self, errno))?;
                    let meta = Meta { mode: new.mode, uid: new.uid, gid: new.gid, mtime: None };
                    self.finish_dir(fd.as_fd(), &here, &meta, &Xattrs::new())
                        .map_err(|errno| fail(self, errno))?;
                    self.touch(&parent, new.time);
                    self.touch(&here, new.time);
                    made = true;
                }
                Found::Upper(stat) | Found::Base(stat) => {
                    return Err(TreeError::Conflict {
                        action: "make the directory",
                        path: here.to_string(),
                        reason: format!("a {} is there", stat.kind),
                    });
                }
            }
            let found = match at.find(name) {
                Ok(found @ Found::Upper(_)) => Ok(found),
                // Somebody else took it away again.
                Ok(_) => Err(Errno::NOENT),
                Err(errno) => Err(errno),
            };
            let entered = found.and_then(|found| at.enter(name, found, self.kind));
            at = entered.map_err(|errno| fail(self, errno))?;
        }
        Ok((at, made))
    }

    /// Metadata of a directory that was just made. Its time is set by [`LayerWriter::finish`].
    fn finish_dir(
        &mut self,
        fd: BorrowedFd<'_>,
        path: &RelPath,
        meta: &Meta,
        xattrs: &Xattrs,
    ) -> std::result::Result<(), Errno> {
        if let Some(mode) = set_dir(fd, meta, xattrs, self.process)? {
            self.modes.insert(path.clone(), mode);
        }
        Ok(())
    }

    /// Removes what the upper tree has under a name.
    fn clear_upper(&self, at: &DirAt, dir: &RelPath, name: &[u8], found: Found) -> Result<()> {
        let path = dir.join(name);
        let fail = |errno| self.error("remove", path.as_bytes(), errno);
        let upper = at.upper.as_ref().expect("the directory was copied up");
        match found {
            Found::Upper(stat) if stat.is_dir() => {
                for entry in walk(&self.upper, &path, &[], &self.work)?.iter().rev() {
                    let flags =
                        if entry.stat.is_dir() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                    // All directories on the way come from the walk, which follows no link.
                    let below = path.join(entry.path.as_bytes());
                    rustix::fs::unlinkat(&self.upper, below.as_bytes(), flags).map_err(fail)?;
                }
                rustix::fs::unlinkat(upper, name, AtFlags::REMOVEDIR).map_err(fail)
            }
            Found::Upper(_) | Found::Absent { whiteout: true } => {
                rustix::fs::unlinkat(upper, name, AtFlags::empty()).map_err(fail)
            }
            Found::Base(_) | Found::Absent { whiteout: false } => Ok(()),
        }
    }
}

/// Makes a directory of the base exist in the upper tree, with its metadata but for the time.
fn copy_up(
    upper: BorrowedFd<'_>,
    base: &BaseDir,
    name: &[u8],
    stat: &Stat,
    process: Defaults,
) -> std::result::Result<(), Errno> {
    let from = open_dir(base.open_for(name)?.as_fd(), name)?;
    rustix::fs::mkdirat(upper, name, Mode::RWXU)?;
    let to = open_dir(upper, name)?;
    let now = stat_fd(to.as_fd())?;
    if (now.uid, now.gid) != (stat.uid, stat.gid) {
        let (uid, gid) = (Uid::from_raw(stat.uid), Gid::from_raw(stat.gid));
        // An unprivileged process cannot give it away; it fails here rather than change owners.
        rustix::fs::fchown(&to, Some(uid), Some(gid))?;
    }
    xattr::replace(Holder::Fd(to.as_fd()), &xattr::read(Holder::Fd(from.as_fd()))?)?;
    let mode = if process.uid == 0 { stat.mode } else { stat.mode | 0o700 };
    rustix::fs::fchmod(&to, Mode::from_raw_mode(mode))
}

/// Makes a directory where none is visible. It must not show what the base has at its place.
fn make_dir(
    at: &DirAt,
    name: &[u8],
    found: Found,
    kind: XattrKind,
) -> std::result::Result<OwnedFd, Errno> {
    let upper = at.upper.as_ref().expect("the directory was copied up");
    if let Found::Absent { whiteout: true } = found {
        rustix::fs::unlinkat(upper, name, AtFlags::empty())?;
    }
    rustix::fs::mkdirat(upper, name, Mode::RWXU)?;
    let fd = open_dir(upper.as_fd(), name)?;
    if at.in_base(name)?.is_some_and(|stat| stat.is_dir()) {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(&fd, kind.opaque(), b"y", flags)?;
    }
    Ok(fd)
}

/// Sets owner, attributes and mode of a directory. Returns the mode if it has to wait because this
/// process could not work in the directory otherwise.
fn set_dir(
    fd: BorrowedFd<'_>,
    meta: &Meta,
    xattrs: &Xattrs,
    process: Defaults,
) -> std::result::Result<Option<u32>, Errno> {
    let now = stat_fd(fd)?;
    if (now.uid, now.gid) != (meta.uid, meta.gid) {
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        rustix::fs::fchown(fd, Some(uid), Some(gid))?;
    }
    xattr::replace(Holder::Fd(fd), xattrs)?;
    let waits = process.uid != 0 && meta.mode & 0o700 != 0o700;
    let mode = if waits { meta.mode | 0o700 } else { meta.mode };
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?;
    Ok(waits.then_some(meta.mode))
}

/// The mask of this process. Setting it to find out would change it for all threads, so it is read,
/// once: nothing in this process changes it.
fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        std::fs::read_to_string("/proc/self/status")
            .ok()
            .and_then(|status| {
                let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
                u32::from_str_radix(line.trim(), 8).ok()
            })
            // Unknown: assume the worst, which costs a call for each file.
            .unwrap_or(0o777)
    })
}
