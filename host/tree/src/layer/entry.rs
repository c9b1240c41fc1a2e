//! Single entries with all their metadata, as the entries of an archive come.

use std::io::Read;
use std::os::fd::AsFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::file::{self, DataError, Meta};
use super::view::{DirAt, Found};
use super::{LayerWriter, NewDir, set_dir};
use crate::content::open_file;
use crate::error::{Missing, Result, TreeError};
use crate::path::RelPath;
use crate::stat::{Kind, Stat, Timestamp};
use crate::xattr::{self, Holder, Xattrs};

const BUFFER: usize = 128 * 1024;

/// What [`LayerWriter::put`] makes.
pub enum NewEntry<'a> {
    /// A file of exactly `size` bytes.
    File {
        /// Bytes to read from `data`.
        size: u64,
        /// Where they come from.
        data: &'a mut dyn Read,
    },
    /// A directory. One that exists gets the metadata.
    Directory,
    /// A link with this target, which is stored as it is.
    Symlink(&'a [u8]),
    /// Another name of a file of the merged tree; a file that only the base has is copied up. The
    /// metadata is that of the file.
    HardLink(&'a RelPath),
    /// A character device; 0:0, which would be a whiteout, is refused.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Metadata of an entry that is put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryMeta {
    /// `07777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// None: now. A directory keeps it whatever is put in it later.
    pub mtime: Option<Timestamp>,
    /// Those that are content; others are ignored.
    pub xattrs: Xattrs,
}

impl LayerWriter {
    /// Makes one entry of the merged tree, in place of whatever is there: a directory is only
    /// merged with a directory, anything else is removed first. Links in the directories above are
    /// followed within the root; missing ones are made 0755 root.
    ///
    /// # Errors
    /// Something above is no directory, a hard link's file is not there, the data ends early or
    /// cannot be read, or the system refuses.
    pub fn put(&mut self, path: &RelPath, entry: NewEntry<'_>, meta: &EntryMeta) -> Result<()> {
        self.work.cancel.check()?;
        let fail = |writer: &Self, errno| writer.error("write", path.as_bytes(), errno);
        if matches!(entry, NewEntry::CharDevice(0, 0)) {
            return Err(TreeError::Special {
                path: path.to_string(),
                place: "the archive".to_owned(),
                kind: "character device 0:0, which stands for a removed file",
            });
        }
        let xattrs: Xattrs =
            meta.xattrs.iter().filter(|(name, _)| xattr::is_content(name)).cloned().collect();
        let root = NewDir { mode: 0o755, uid: 0, gid: 0, time: None };
        let Some(parent) = path.parent() else {
            let NewEntry::Directory = entry else {
                return Err(TreeError::Conflict {
                    action: "replace",
                    path: "/".to_owned(),
                    reason: "it is the root directory".to_owned(),
                });
            };
            return self.put_dir_metadata(&RelPath::root(), meta, &xattrs);
        };
        let name = path.name().expect("it has a parent");
        let parent = self.resolve(&parent, true, true)?.path;
        let (at, _) = self.ensure_dir(&parent, &root)?;
        let found = at.find(name).map_err(|errno| fail(self, errno))?;
        let here = parent.join(name);
        if let NewEntry::Directory = entry {
            if !found.is_dir() {
                self.clear_upper(&at, &parent, name, found)?;
                if !self.fixed.contains(&parent) {
                    self.touch(&parent, None);
                }
            }
            self.ensure_dir(&here, &root)?;
            return self.put_dir_metadata(&here, meta, &xattrs);
        }
        // Before the old entry goes: it may be the only name of the file.
        let linked = match &entry {
            NewEntry::HardLink(target) => Some(self.link_target(target)?),
            _ => None,
        };
        if linked.as_ref() == Some(&here) {
            return Ok(());
        }
        self.clear_upper(&at, &parent, name, found)?;
        self.forget_below(&here);
        let upper = at.upper.as_ref().expect("made by ensure_dir").as_fd();
        let defaults = self.defaults_in(upper).map_err(|errno| fail(self, errno))?;
        let file_meta =
            Meta { mode: meta.mode & 0o7777, uid: meta.uid, gid: meta.gid, mtime: meta.mtime };
        let special = |kind: Kind, rdev: (u32, u32)| {
            file::make_special(upper, name, kind, rdev)?;
            file::finish_at(upper, name, kind, &file_meta, &xattrs, defaults)
        };
        let made = match entry {
            NewEntry::File { size, data } => {
                let fd =
                    file::create(upper, name, file_meta.mode).map_err(|errno| fail(self, errno))?;
                self.fill(&here, fd.as_fd(), size, data)?;
                file::finish_fd(fd.as_fd(), &file_meta, &xattrs, defaults)
            }
            NewEntry::Symlink(target) => {
                rustix::fs::symlinkat(target, upper, name).and_then(|()| {
                    let kind = Kind::Symlink;
                    file::finish_at(upper, name, kind, &file_meta, &xattrs, defaults)
                })
            }
            NewEntry::HardLink(_) => {
                let target = linked.expect("resolved above");
                // Every directory on the way was entered with links refused a moment ago.
                let flags = AtFlags::empty();
                rustix::fs::linkat(&self.upper, target.as_bytes(), upper, name, flags)
            }
            NewEntry::CharDevice(major, minor) => special(Kind::CharDevice, (major, minor)),
            NewEntry::BlockDevice(major, minor) => special(Kind::BlockDevice, (major, minor)),
            NewEntry::Fifo => special(Kind::Fifo, (0, 0)),
            NewEntry::Directory => unreachable!("handled above"),
        };
        made.map_err(|errno| fail(self, errno))?;
        if !self.fixed.contains(&parent) {
            self.touch(&parent, None);
        }
        Ok(())
    }

    fn put_dir_metadata(
        &mut self,
        path: &RelPath,
        meta: &EntryMeta,
        xattrs: &Xattrs,
    ) -> Result<()> {
        let fail = |writer: &Self, errno| writer.error("change", path.as_bytes(), errno);
        let fd = self.open_upper(path.as_bytes()).map_err(|errno| fail(self, errno))?;
        let wanted =
            Meta { mode: meta.mode & 0o7777, uid: meta.uid, gid: meta.gid, mtime: meta.mtime };
        let waits = set_dir(fd.as_fd(), &wanted, xattrs, self.process)
            .map_err(|errno| fail(self, errno))?;
        match waits {
            Some(mode) => drop(self.modes.insert(path.clone(), mode)),
            None => drop(self.modes.remove(path)),
        }
        self.touch(path, meta.mtime);
        if meta.mtime.is_some() {
            self.fixed.insert(path.clone());
        }
        Ok(())
    }

    /// Times and modes of what is not there any more.
    pub(super) fn forget_below(&mut self, gone: &RelPath) {
        let stays = |path: &RelPath| path.below(gone).is_none();
        self.times.retain(|path, _| stays(path));
        self.modes.retain(|path, _| stays(path));
        self.fixed.retain(stays);
    }

    fn fill(
        &self,
        path: &RelPath,
        to: std::os::fd::BorrowedFd<'_>,
        size: u64,
        data: &mut dyn Read,
    ) -> Result<()> {
        let fail = |reason: String| TreeError::Data { path: path.to_string(), reason };
        let mut buffer = vec![0; BUFFER.min(usize::try_from(size).unwrap_or(BUFFER)).max(1)];
        let mut left = size;
        while left > 0 {
            self.work.cancel.check()?;
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = match data.read(&mut buffer[..most]) {
                Ok(0) => return Err(fail(format!("it ends {left} bytes early"))),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(fail(error.to_string())),
            };
            file::write_all(to, &buffer[..count])
                .map_err(|errno| self.error("write", path.as_bytes(), errno))?;
            left -= count as u64;
        }
        Ok(())
    }

    /// A file of the merged tree, in the upper directory.
    fn link_target(&mut self, target: &RelPath) -> Result<RelPath> {
        let resolved = self.resolve(target, true, false)?;
        match resolved.stat {
            None => Err(Missing::new(target.to_string(), self.upper.place()).error()),
            Some(stat) if stat.is_dir() => Err(TreeError::Conflict {
                action: "link to",
                path: target.to_string(),
                reason: "it is a directory".to_owned(),
            }),
            Some(_) => {
                let fail = |writer: &Self, errno| writer.error("link to", target.as_bytes(), errno);
                // All parents exist, so this only copies them up.
                let new = NewDir { mode: 0o755, uid: 0, gid: 0, time: None };
                let (at, _, name) = self.parent_of("link to", &resolved.path, &new)?;
                let found = at.find(&name).map_err(|errno| fail(self, errno))?;
                if let Found::Base(stat) = found {
                    self.copy_up_node(&at, &name, &stat).map_err(|errno| fail(self, errno))?;
                }
                Ok(resolved.path)
            }
        }
    }

    /// Makes something of the base that is no directory exist in the upper tree.
    fn copy_up_node(&self, at: &DirAt, name: &[u8], stat: &Stat) -> std::result::Result<(), Errno> {
        let upper = at.upper.as_ref().expect("the directory was copied up").as_fd();
        let base = at.base.as_ref().expect("found there").open_for(name)?;
        let base = base.as_fd();
        let defaults = self.defaults_in(upper)?;
        let meta = Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: Some(stat.mtime) };
        let xattrs = xattr::read(Holder::At(base, name))?;
        if stat.kind == Kind::File {
            let from = open_file(base, name)?;
            let to = file::create(upper, name, stat.mode)?;
            let cancel = &self.work.cancel;
            file::copy_data(from.as_fd(), to.as_fd(), stat, None, &mut Vec::new(), cancel)
                .map_err(|error| match error {
                    DataError::Read(errno) | DataError::Write(errno) => errno,
                    DataError::Changed => Errno::IO,
                    DataError::Cancelled => Errno::CANCELED,
                })?;
            return file::finish_fd(to.as_fd(), &meta, &xattrs, defaults);
        }
        match stat.kind {
            Kind::Symlink => {
                let target = crate::root::read_link_at(base, name)?;
                rustix::fs::symlinkat(&*target, upper, name)?;
            }
            kind => file::make_special(upper, name, kind, stat.rdev)?,
        }
        file::finish_at(upper, name, stat.kind, &meta, &xattrs, defaults)
    }
}
