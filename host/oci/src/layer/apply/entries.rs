//! One entry of an archive at a time.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::directories::Pending;
use super::names::{Name, join, name_of};
use super::{Applier, failed};
use crate::error::{Error, Result};
use crate::layer::entry::{Entry, EntryKind, show};
use crate::layer::fs::{
    fd_xattrs, mtime, open_child, open_dir, path, remove_tree, set_child_xattr,
};
use crate::layer::tar_read::TarReader;
use crate::layer::write::is_whiteout;
use crate::layer::{MAX_DEPTH, travels};

impl Applier<'_, '_> {
    pub(super) fn entry<R: Read>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> Result<()> {
        match name_of(&entry.path, self.dest, self.layer.is_some())? {
            Name::Ignored => Ok(()),
            Name::Root => self.root_entry(entry),
            Name::Normal { parent, name } => {
                let dir = self.parent(&parent, entry.mtime)?;
                self.normal(entry, tar, &dir, &parent, &name)
            }
            Name::Whiteout { parent, name } => {
                self.check_marker(entry)?;
                let dir = self.parent(&parent, entry.mtime)?;
                self.whiteout(&dir, &parent, &name)
            }
            Name::Opaque { parent } => {
                self.check_marker(entry)?;
                if parent.is_empty() {
                    // overlayfs reads no mark on the root of an upper directory.
                    let message = "the layer hides everything below it";
                    return Err(Error::unsupported(message).hint(
                        "flatten the image with another tool, so that its first layer is this one",
                    ));
                }
                let dir = self.parent(&parent, entry.mtime)?;
                self.set_opaque(dir.as_fd(), &parent)
            }
        }
    }

    pub(super) fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        if !matches!(entry.kind, EntryKind::Directory) {
            let noun = entry.kind.noun();
            return Err(Error::invalid(format!(
                "the archive replaces the root directory by a {noun}"
            )));
        }
        if self.layer.is_none() {
            // The destination keeps what it is.
            return Ok(());
        }
        self.own_fd(self.root, entry.uid, entry.gid, b".")?;
        self.set_fd_xattrs(self.root, entry.xattrs.iter(), b".")?;
        let pending = Pending { mode: entry.mode, mtime: Some(entry.mtime) };
        self.directories.set(b"", pending, self.limits.directories)
    }

    pub(super) fn normal<R: Read>(
        &mut self,
        entry: &Entry,
        tar: &mut TarReader<R>,
        dir: &OwnedFd,
        parent: &[u8],
        name: &[u8],
    ) -> Result<()> {
        let at = &join(parent, name);
        if let EntryKind::Directory = entry.kind {
            return self.directory(entry, dir, at, name);
        }
        if let EntryKind::HardLink(target) = &entry.kind {
            return self.hard_link(target, dir, at, name);
        }
        if let EntryKind::CharDevice { major: 0, minor: 0 } = entry.kind {
            let at = show(at);
            return Err(Error::invalid(format!(
                "the archive holds {at}, a device that means deletion"
            )));
        }
        if let EntryKind::File = entry.kind {
            return self.file(entry, tar, dir, at, name);
        }
        let made = path(name);
        let mode = Mode::from_raw_mode(0o600);
        let device = |kind: FileType, (major, minor): (u32, u32)| {
            let make =
                || rustix::fs::mknodat(dir, made, kind, mode, rustix::fs::makedev(major, minor));
            (make(), "make the device")
        };
        let make = || match &entry.kind {
            EntryKind::Symlink(target) => {
                (rustix::fs::symlinkat(path(target), dir, made), "make the link")
            }
            EntryKind::CharDevice { major, minor } => {
                device(FileType::CharacterDevice, (*major, *minor))
            }
            EntryKind::BlockDevice { major, minor } => {
                device(FileType::BlockDevice, (*major, *minor))
            }
            EntryKind::Fifo => (rustix::fs::mkfifoat(dir, made, mode), "make the pipe"),
            EntryKind::File | EntryKind::Directory | EntryKind::HardLink(_) => {
                unreachable!("handled above")
            }
        };
        let (mut result, verb) = make();
        if result == Err(Errno::EXIST) {
            self.clear(dir, at, name)?;
            result = make().0;
        }
        result.map_err(|e| failed(verb, at, e))?;
        let fail = |verb| move |e| failed(verb, at, e);
        if let Some((uid, gid)) = self.owner(entry.uid, entry.gid) {
            rustix::fs::chownat(dir, made, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(fail("change the owner of"))?;
        }
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| travels(key)) {
            let result = set_child_xattr(dir.as_fd(), name, key, value);
            self.xattr_result(result, key, at)?;
        }
        if !matches!(entry.kind, EntryKind::Symlink(_)) {
            // It was made just now and is no link, so this follows nothing.
            rustix::fs::chmodat(dir, made, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(fail("change the mode of"))?;
        }
        rustix::fs::utimensat(dir, made, &mtime(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(fail("change the time of"))
    }

    pub(super) fn directory(
        &mut self,
        entry: &Entry,
        dir: &OwnedFd,
        at: &[u8],
        name: &[u8],
    ) -> Result<()> {
        let private = Mode::from_raw_mode(0o700);
        let mut fresh = false;
        let mut again = false;
        match rustix::fs::mkdirat(dir, path(name), private) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(dir, path(name), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| failed("read", at, e))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    again = true;
                } else {
                    fresh = self.layer.is_some() && is_whiteout(&stat);
                    self.clear(dir, at, name)?;
                    rustix::fs::mkdirat(dir, path(name), private)
                        .map_err(|e| failed("make the directory", at, e))?;
                }
            }
            Err(error) => return Err(failed("make the directory", at, error)),
        }
        let fd = open_child(dir.as_fd(), name).map_err(|e| failed("open", at, e))?;
        if fresh {
            self.set_opaque(fd.as_fd(), at)?;
        }
        self.own_fd(fd.as_fd(), entry.uid, entry.gid, at)?;
        if again && self.layer.is_some() {
            // The last entry wins with all it says, attributes included.
            let stale = |name: &[u8]| travels(name) && !entry.xattrs.contains_key(name);
            for (key, _) in fd_xattrs(fd.as_fd(), stale).map_err(|e| failed("read", at, e))? {
                rustix::fs::fremovexattr(&fd, path(&key)).map_err(|e| failed("change", at, e))?;
            }
        }
        self.set_fd_xattrs(fd.as_fd(), entry.xattrs.iter(), at)?;
        let pending = Pending { mode: entry.mode, mtime: Some(entry.mtime) };
        self.directories.set(at, pending, self.limits.directories)
    }

    pub(super) fn file<R: Read>(
        &mut self,
        entry: &Entry,
        tar: &mut TarReader<R>,
        dir: &OwnedFd,
        at: &[u8],
        name: &[u8],
    ) -> Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(dir, path(name), flags, Mode::from_raw_mode(0o600));
        let fd = match open() {
            Err(Errno::EXIST) => {
                self.clear(dir, at, name)?;
                open()
            }
            other => other,
        };
        let file = File::from(fd.map_err(|e| failed("make the file", at, e))?);
        let wrote =
            |e| Error::io(format!("cannot write {} while an archive is unpacked", show(at)), e);
        let mut buffer = [0; 64 << 10];
        match &entry.sparse {
            None => loop {
                let got = tar.read_data(&mut buffer)?;
                if got == 0 {
                    break;
                }
                (&file).write_all(&buffer[..got]).map_err(wrote)?;
            },
            Some(map) => {
                // The reader has checked the map against the data and the size.
                for (offset, length) in map {
                    let (mut offset, mut left) = (*offset, *length);
                    while left > 0 {
                        let want =
                            usize::try_from(left).map_or(buffer.len(), |l| l.min(buffer.len()));
                        let got = tar.read_data(&mut buffer[..want])?;
                        file.write_all_at(&buffer[..got], offset).map_err(wrote)?;
                        offset += got as u64;
                        left -= got as u64;
                    }
                }
                rustix::fs::ftruncate(&file, entry.size).map_err(|e| failed("extend", at, e))?;
            }
        }
        self.own_fd(file.as_fd(), entry.uid, entry.gid, at)?;
        self.set_fd_xattrs(file.as_fd(), entry.xattrs.iter(), at)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode))
            .map_err(|e| failed("change the mode of", at, e))?;
        rustix::fs::futimens(&file, &mtime(entry.mtime))
            .map_err(|e| failed("change the time of", at, e))
    }

    pub(super) fn hard_link(
        &mut self,
        target: &[u8],
        dir: &OwnedFd,
        at: &[u8],
        name: &[u8],
    ) -> Result<()> {
        let absent = || {
            let (at, target) = (show(at), show(target));
            Error::invalid(format!(
                "the hard link {at} leads to {target}, which the archive does not hold"
            ))
        };
        let Name::Normal { parent, name: target_name } =
            name_of(target, self.dest, self.layer.is_some())?
        else {
            return Err(absent());
        };
        // Never makes a directory: the target has to be there already.
        let from = open_dir(self.root, &parent, self.links).map_err(|e| match e {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => absent(),
            other => failed("open the directory", &parent, other),
        })?;
        let stat = match rustix::fs::statat(&from, path(&target_name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Err(absent()),
            Err(error) => return Err(failed("read", target, error)),
        };
        if is_whiteout(&stat) {
            return Err(absent());
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let at = show(at);
            return Err(Error::invalid(format!("the hard link {at} leads to a directory")));
        }
        let link =
            || rustix::fs::linkat(&from, path(&target_name), dir, path(name), AtFlags::empty());
        let mut result = link();
        if result == Err(Errno::EXIST) {
            let there = rustix::fs::statat(dir, path(name), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| failed("read", at, e))?;
            if (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino) {
                // A link to itself, or said twice.
                return Ok(());
            }
            self.clear(dir, at, name)?;
            result = link();
        }
        result.map_err(|e| {
            if e == Errno::NOENT { absent() } else { failed("make the hard link", at, e) }
        })
    }

    /// Makes room for an entry of another kind.
    pub(super) fn clear(&mut self, dir: &OwnedFd, at: &[u8], name: &[u8]) -> Result<()> {
        self.parent = None;
        self.directories.forget(at);
        remove_tree(dir.as_fd(), name, MAX_DEPTH).map_err(|e| failed("replace", at, e))
    }
}
