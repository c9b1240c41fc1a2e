//! The actions of a file op other than copy.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use wbuild_ignore::{clean, glob};

use super::file::{self, DataError, Meta};
use super::view::{DirAt, Found};
use super::{LayerWriter, NewDir};
use crate::error::{Missing, Result, TreeError};
use crate::par::Cancel;
use crate::path::RelPath;
use crate::stat::{Kind, Stat, Timestamp};
use crate::xattr::Xattrs;

/// Options of [`LayerWriter::write_file`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// Permission bits, exactly (no mask is applied).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Its time, that of directories made for it and of the directory it is in; none: now.
    pub timestamp: Option<Timestamp>,
    /// Follow links in the destination.
    pub follow_links: bool,
}

/// Options of [`LayerWriter::make_dir`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MkdirOptions {
    /// Permission bits, exactly (no mask is applied); of missing parents too.
    pub mode: u32,
    /// Owner, of missing parents too.
    pub uid: u32,
    /// Group, of missing parents too.
    pub gid: u32,
    /// Make missing parents.
    pub parents: bool,
    /// Time of what is made and of the directory it is in; none: now.
    pub timestamp: Option<Timestamp>,
}

/// Options of [`LayerWriter::remove`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// The path is a pattern; one that matches nothing removes nothing.
    pub wildcard: bool,
    /// A literal path that is not there is no error.
    pub allow_missing: bool,
    /// Time of the directories from which something is removed; none: now.
    pub timestamp: Option<Timestamp>,
}

/// Options of [`LayerWriter::make_link`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Its time and that of the directory it is in; none: now.
    pub timestamp: Option<Timestamp>,
}

impl LayerWriter {
    /// Writes a file, in place of a file or link that is there. Missing parents are made 0755 with
    /// the file's owner.
    ///
    /// # Errors
    /// A directory is there, or something on the way is none.
    pub fn write_file(&mut self, path: &str, data: &[u8], options: &WriteOptions) -> Result<()> {
        self.fill_file(path, options, |fd, _| file::write_all(fd, data).map_err(DataError::Write))
    }

    /// The same with what `from`, an open file, holds.
    ///
    /// # Errors
    /// As [`LayerWriter::write_file`]; `from` cannot be read or changes.
    pub fn write_file_from(
        &mut self,
        path: &str,
        from: BorrowedFd<'_>,
        options: &WriteOptions,
    ) -> Result<()> {
        let stat = Stat::of_fd(from).map_err(|errno| self.error("read", path.as_bytes(), errno))?;
        self.fill_file(path, options, |fd, cancel| {
            file::copy_data(from, fd, &stat, None, &mut Vec::new(), cancel)
        })
    }

    fn fill_file(
        &mut self,
        path: &str,
        options: &WriteOptions,
        fill: impl FnOnce(BorrowedFd<'_>, &Cancel) -> Result<(), DataError>,
    ) -> Result<()> {
        let wanted = RelPath::clean(path)?;
        let target = self.resolve(&wanted, options.follow_links, options.follow_links)?;
        let (at, dir, name) = self.parent_of(
            "write",
            &target.path,
            &NewDir { mode: 0o755, uid: options.uid, gid: options.gid, time: options.timestamp },
        )?;
        let fail = |writer: &Self, errno| writer.error("write", target.path.as_bytes(), errno);
        let found = at.find(&name).map_err(|errno| fail(self, errno))?;
        self.refuse_dir("write", &target.path, found)?;
        self.clear_upper(&at, &dir, &name, found)?;
        let upper = at.upper.as_ref().expect("made by parent_of").as_fd();
        let defaults = self.defaults_in(upper).map_err(|errno| fail(self, errno))?;
        let meta = Meta {
            mode: options.mode & 0o7777,
            uid: options.uid,
            gid: options.gid,
            mtime: options.timestamp,
        };
        let fd = file::create(upper, &name, meta.mode).map_err(|errno| fail(self, errno))?;
        fill(fd.as_fd(), &self.work.cancel).map_err(|error| match error {
            DataError::Read(errno) | DataError::Write(errno) => fail(self, errno),
            DataError::Changed => fail(self, Errno::IO),
            DataError::Cancelled => TreeError::Cancelled,
        })?;
        file::finish_fd(fd.as_fd(), &meta, &Xattrs::new(), defaults)
            .map_err(|errno| fail(self, errno))?;
        self.touch(&dir, options.timestamp);
        Ok(())
    }

    /// Makes a directory, links followed within the root. One that exists is left as it is.
    ///
    /// # Errors
    /// Something else is there, or a parent is missing and [`MkdirOptions::parents`] is off.
    pub fn make_dir(&mut self, path: &str, options: &MkdirOptions) -> Result<()> {
        let target = self.resolve(&RelPath::clean(path)?, true, true)?;
        if let Some(stat) = target.stat {
            if stat.is_dir() {
                return Ok(());
            }
            return Err(TreeError::Conflict {
                action: "make the directory",
                path: target.path.to_string(),
                reason: format!("a {} is there", stat.kind),
            });
        }
        if !options.parents
            && let Some(parent) = target.path.parent()
            && self.resolve(&parent, false, false)?.stat.is_none()
        {
            return Err(self.error("make the directory", target.path.as_bytes(), Errno::NOENT));
        }
        self.ensure_dir(
            &target.path,
            &NewDir {
                mode: options.mode & 0o7777,
                uid: options.uid,
                gid: options.gid,
                time: options.timestamp,
            },
        )?;
        Ok(())
    }

    /// Removes a file, link or whole directory. Links in the directories above are followed within
    /// the root, one at the end is removed itself.
    ///
    /// # Errors
    /// The root was named, or a literal path is not there.
    pub fn remove(&mut self, path: &str, options: &RemoveOptions) -> Result<()> {
        let pattern = options.wildcard
            && (glob::has_wildcard(path.as_bytes()) || path.as_bytes().contains(&b'\\'));
        if pattern {
            for found in self.expand(path)? {
                self.remove_one(path, &found, options)?;
            }
            return Ok(());
        }
        self.remove_one(path, &RelPath::clean(path)?, options)
    }

    fn remove_one(&mut self, given: &str, path: &RelPath, options: &RemoveOptions) -> Result<()> {
        if path.is_root() {
            return Err(TreeError::Conflict {
                action: "remove",
                path: given.to_owned(),
                reason: "it is the root directory".to_owned(),
            });
        }
        let resolved = self.resolve(path, true, false);
        let target = match resolved {
            Ok(target) => target,
            // A file where a directory should be: there is nothing below it.
            Err(TreeError::Conflict { .. }) if options.allow_missing => return Ok(()),
            Err(error) => return Err(error),
        };
        if target.stat.is_none() {
            if options.allow_missing {
                return Ok(());
            }
            return Err(Missing::new(given, self.upper.place()).error());
        }
        // Every parent exists, so that this makes nothing new.
        let new = NewDir { mode: 0o755, uid: 0, gid: 0, time: options.timestamp };
        let (at, dir, name) = self.parent_of("remove", &target.path, &new)?;
        let fail = |writer: &Self, errno| writer.error("remove", target.path.as_bytes(), errno);
        let found = at.find(&name).map_err(|errno| fail(self, errno))?;
        self.clear_upper(&at, &dir, &name, found)?;
        if at.in_base(&name).map_err(|errno| fail(self, errno))?.is_some() {
            let upper = at.upper.as_ref().expect("made by parent_of");
            rustix::fs::mknodat(upper, &*name, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(|errno| fail(self, errno))?;
        }
        self.forget_below(&target.path);
        self.touch(&dir, options.timestamp);
        Ok(())
    }

    /// Makes a symbolic link, in place of a file or link that is there; the directories above it
    /// must exist. `target` is stored as it is.
    ///
    /// # Errors
    /// A directory is there, or the directory above is missing.
    pub fn make_link(&mut self, path: &str, target: &str, options: &LinkOptions) -> Result<()> {
        if target.is_empty() || target.contains('\0') || target.len() > crate::path::MAX_PATH {
            let reason = "a link's target has 1 to 4095 bytes and no NUL";
            return Err(TreeError::Path { path: target.to_owned(), reason });
        }
        let place = self.resolve(&RelPath::clean(path)?, true, false)?;
        if let Some(parent) = place.path.parent()
            && self.resolve(&parent, false, false)?.stat.is_none()
        {
            return Err(self.error("make the link", place.path.as_bytes(), Errno::NOENT));
        }
        let new = NewDir { mode: 0o755, uid: 0, gid: 0, time: options.timestamp };
        let (at, dir, name) = self.parent_of("make the link", &place.path, &new)?;
        let fail =
            |writer: &Self, errno| writer.error("make the link", place.path.as_bytes(), errno);
        let found = at.find(&name).map_err(|errno| fail(self, errno))?;
        self.refuse_dir("make the link", &place.path, found)?;
        self.clear_upper(&at, &dir, &name, found)?;
        let upper = at.upper.as_ref().expect("made by parent_of").as_fd();
        let defaults = self.defaults_in(upper).map_err(|errno| fail(self, errno))?;
        let meta =
            Meta { mode: 0o777, uid: options.uid, gid: options.gid, mtime: options.timestamp };
        rustix::fs::symlinkat(target, upper, &*name)
            .and_then(|()| {
                let none = Xattrs::new();
                file::finish_at(upper, &name, Kind::Symlink, &meta, &none, defaults)
            })
            .map_err(|errno| fail(self, errno))?;
        self.touch(&dir, options.timestamp);
        Ok(())
    }

    /// The directory that holds a resolved path, in the upper tree, and the last name.
    pub(super) fn parent_of(
        &mut self,
        action: &'static str,
        path: &RelPath,
        new: &NewDir,
    ) -> Result<(DirAt, RelPath, Box<[u8]>)> {
        let (Some(dir), Some(name)) = (path.parent(), path.name()) else {
            return Err(TreeError::Conflict {
                action,
                path: "/".to_owned(),
                reason: "it is the root directory".to_owned(),
            });
        };
        let (at, _) = self.ensure_dir(&dir, new)?;
        Ok((at, dir, name.into()))
    }

    pub(super) fn refuse_dir(
        &self,
        action: &'static str,
        path: &RelPath,
        found: Found,
    ) -> Result<()> {
        if !found.is_dir() {
            return Ok(());
        }
        Err(TreeError::Conflict {
            action,
            path: path.to_string(),
            reason: "a directory is there".to_owned(),
        })
    }

    /// Paths of the merged tree that match a pattern, sorted; links are not followed in the part
    /// with wildcards.
    fn expand(&self, pattern: &str) -> Result<Vec<RelPath>> {
        let cleaned = clean(&[b"/", pattern.as_bytes()].concat());
        let mut found = vec![RelPath::root()];
        let mut parts = glob::split(&cleaned)?.into_iter().peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let mut next = Vec::new();
            for dir in found {
                if let Some(literal) = part.literal().filter(|_| !last) {
                    next.push(dir.join(literal));
                    continue;
                }
                let Ok(resolved) = self.resolve(&dir, true, true) else { continue };
                if !resolved.stat.is_some_and(|stat| stat.is_dir()) {
                    continue;
                }
                let fail = |errno| self.error("list", resolved.path.as_bytes(), errno);
                let at = self.dir_at(&resolved.path).map_err(fail)?;
                for name in at.names().map_err(fail)? {
                    let is_dir = at.find(&name).map_err(fail)?.is_dir();
                    if part.matches(&name) && (last || is_dir) {
                        next.push(resolved.path.join(&name));
                    }
                }
            }
            found = next;
        }
        Ok(found)
    }

    /// A resolved directory of the merged tree.
    fn dir_at(&self, path: &RelPath) -> std::result::Result<DirAt, Errno> {
        let mut at = self.root_at()?;
        for name in path.names() {
            let found = at.find(name)?;
            at = at.enter(name, found, self.kind)?;
        }
        Ok(at)
    }
}
