//! Owners and extended attributes.

use std::os::fd::BorrowedFd;

use rustix::fs::{Gid, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Applier, Ownership, failed};
use crate::error::{Error, Result};
use crate::layer::entry::show;
use crate::layer::fs::path;
use crate::layer::travels;

const LITTLE_ROOM: &str = "some file systems have little room for the attributes of one file, however \
     much is free: ext4 one block, btrfs and xfs more; or the disk is full";

impl Applier<'_, '_> {
    pub(super) fn owner(&self, uid: u32, gid: u32) -> Option<(Uid, Gid)> {
        let (uid, gid) = match self.ownership {
            Ownership::Keep => (uid, gid),
            Ownership::Fixed { uid, gid } => (uid, gid),
            Ownership::Ignore => return None,
        };
        Some((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    pub(super) fn own_fd(&self, fd: BorrowedFd<'_>, uid: u32, gid: u32, at: &[u8]) -> Result<()> {
        match self.owner(uid, gid) {
            None => Ok(()),
            Some((uid, gid)) => rustix::fs::fchown(fd, Some(uid), Some(gid))
                .map_err(|e| failed("change the owner of", at, e)),
        }
    }

    pub(super) fn set_fd_xattrs<'x>(
        &mut self,
        fd: BorrowedFd<'_>,
        xattrs: impl Iterator<Item = (&'x Vec<u8>, &'x Vec<u8>)>,
        at: &[u8],
    ) -> Result<()> {
        for (key, value) in xattrs.filter(|(key, _)| travels(key)) {
            let result = rustix::fs::fsetxattr(fd, path(key), value, XattrFlags::empty());
            self.xattr_result(result, key, at)?;
        }
        Ok(())
    }

    /// An attribute that cannot exist here is worth a warning; losing it seldom matters, and Docker
    /// goes on too.
    pub(super) fn xattr_result(
        &mut self,
        result: rustix::io::Result<()>,
        key: &[u8],
        at: &[u8],
    ) -> Result<()> {
        match result {
            Ok(()) => Ok(()),
            Err(error @ (Errno::OPNOTSUPP | Errno::PERM)) => {
                if self.warnings.len() < 20 {
                    let (key, at) = (show(key), show(at));
                    self.warnings
                        .push(format!("the attribute {key} of {at} was not kept: {error}"));
                }
                Ok(())
            }
            // No attribute can have such a name or value: NUL in the name, too long, not in the form
            // that the kernel checks.
            Err(error @ (Errno::INVAL | Errno::RANGE | Errno::TOOBIG)) => {
                let (key, at) = (show(key), show(at));
                let message =
                    format!("the archive gives {at} the attribute {key}, which is malformed");
                Err(Error::invalid(message).because(error))
            }
            Err(error) => {
                let key = show(key);
                let failure = failed(&format!("set the attribute {key} of"), at, error);
                Err(if error == Errno::NOSPC { failure.hint(LITTLE_ROOM) } else { failure })
            }
        }
    }
}
