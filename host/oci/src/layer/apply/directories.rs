//! Directories: those an archive leaves out, and what all of them get at the end.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::names::join;
use super::{Applier, ParentMeta, failed};
use crate::error::{Error, Result};
use crate::layer::entry::show;
use crate::layer::fs::{Links, mtime, open_child, open_dir, path};

/// Mode and time that a directory gets at the end.
#[derive(Clone, Copy)]
pub(super) struct Pending {
    pub(super) mode: u32,
    pub(super) mtime: Option<i64>,
}

/// What is known of directories until the end, and how much memory that takes.
#[derive(Default)]
pub(super) struct Directories {
    pending: BTreeMap<Vec<u8>, Pending>,
    bytes: usize,
}

impl Directories {
    /// Memory of one directory besides its path, about.
    const EACH: usize = 80;

    pub(super) fn set(&mut self, at: &[u8], pending: Pending, limit: usize) -> Result<()> {
        if let Some(known) = self.pending.get_mut(at) {
            *known = pending;
            return Ok(());
        }
        self.account(at, limit)?;
        self.pending.insert(at.to_vec(), pending);
        Ok(())
    }

    /// Counts the memory of what is remembered of a directory.
    pub(super) fn account(&mut self, at: &[u8], limit: usize) -> Result<()> {
        self.bytes += at.len() + Self::EACH;
        if self.bytes > limit {
            return Err(Error::limit(format!(
                "the directories of the archive take more than {limit} bytes of memory"
            )));
        }
        Ok(())
    }

    /// Forgets a directory and all below it.
    pub(super) fn forget(&mut self, at: &[u8]) {
        let below = join(at, b"");
        let known = self.pending.range(below.clone()..).map(|(path, _)| path);
        let gone: Vec<Vec<u8>> =
            known.take_while(|path| path.starts_with(&below)).cloned().collect();
        for path in gone.iter().map(Vec::as_slice).chain([at]) {
            if self.pending.remove(path).is_some() {
                self.bytes -= path.len() + Self::EACH;
            }
        }
    }
}

impl Applier<'_, '_> {
    /// The directory `at`, made with its parents where missing.
    pub(super) fn parent(&mut self, at: &[u8], near: i64) -> Result<Rc<OwnedFd>> {
        if let Some((known, fd)) = &self.parent
            && known == at
        {
            return Ok(Rc::clone(fd));
        }
        let fd = match open_dir(self.root, at, self.links) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(at, near)?,
            Err(error) => return Err(self.parent_error(at, error)),
        };
        let fd = Rc::new(fd);
        self.parent = Some((at.to_vec(), Rc::clone(&fd)));
        Ok(fd)
    }

    pub(super) fn parent_error(&self, at: &[u8], error: Errno) -> Error {
        match error {
            Errno::LOOP if self.links == Links::Refuse => {
                let at = show(at);
                Error::invalid(format!("the layer writes through {at}, which is a symbolic link"))
            }
            Errno::NOTDIR => {
                let at = show(at);
                Error::invalid(format!("the archive uses {at} as a directory, but it is none"))
            }
            other => failed("open the directory", at, other),
        }
    }

    pub(super) fn make_parents(&mut self, at: &[u8], near: i64) -> Result<OwnedFd> {
        let mut dir = open_dir(self.root, b"", self.links).map_err(|e| failed("open", b".", e))?;
        let mut start = 0;
        loop {
            let end =
                at[start..].iter().position(|b| *b == b'/').map_or(at.len(), |slash| start + slash);
            let (prefix, name) = (&at[..end], &at[start..end]);
            dir = match open_dir(self.root, prefix, self.links) {
                Ok(next) => next,
                Err(Errno::NOENT) => self.new_parent(&dir, prefix, name, false, near)?,
                Err(Errno::NOTDIR) if self.layer.is_some() && self.is_whiteout_at(&dir, name) => {
                    rustix::fs::unlinkat(&dir, path(name), AtFlags::empty())
                        .map_err(|e| failed("replace", prefix, e))?;
                    self.new_parent(&dir, prefix, name, true, near)?
                }
                Err(error) => return Err(self.parent_error(prefix, error)),
            };
            if end == at.len() {
                return Ok(dir);
            }
            start = end + 1;
        }
    }

    /// Makes a directory that the archive does not hold. `fresh`: what lies below was deleted by this
    /// layer, so it starts anew.
    pub(super) fn new_parent(
        &mut self,
        dir: &OwnedFd,
        at: &[u8],
        name: &[u8],
        fresh: bool,
        near: i64,
    ) -> Result<OwnedFd> {
        let make = rustix::fs::mkdirat(dir, path(name), Mode::from_raw_mode(0o700));
        make.map_err(|e| failed("make the directory", at, e))?;
        let fd = open_child(dir.as_fd(), name).map_err(|e| failed("open", at, e))?;
        let found = if fresh { None } else { (self.parents)(at)? };
        if fresh {
            self.set_opaque(fd.as_fd(), at)?;
        }
        let meta = found.unwrap_or(ParentMeta {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: near,
            xattrs: Vec::new(),
        });
        self.own_fd(fd.as_fd(), meta.uid, meta.gid, at)?;
        self.set_fd_xattrs(fd.as_fd(), meta.xattrs.iter().map(|(n, v)| (n, v)), at)?;
        // Outside of layers the time is that of the build, as for any directory made by a step.
        let mtime = self.layer.map(|_| meta.mtime);
        let pending = Pending { mode: meta.mode, mtime };
        self.directories.set(at, pending, self.limits.directories)?;
        Ok(fd)
    }

    pub(super) fn finish_directories(&mut self) -> Result<()> {
        self.drop_idle_whiteouts()?;
        // Deepest first: a parent may lose the right to be searched.
        for (at, pending) in self.directories.pending.iter().rev() {
            let fd = open_dir(self.root, at, self.links).map_err(|e| failed("open", at, e))?;
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(pending.mode))
                .map_err(|e| failed("change the mode of", at, e))?;
            if let Some(seconds) = pending.mtime {
                rustix::fs::futimens(&fd, &mtime(seconds))
                    .map_err(|e| failed("change the time of", at, e))?;
            }
        }
        Ok(())
    }
}
