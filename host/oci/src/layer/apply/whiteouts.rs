//! Whiteouts and opaque directories (image specification, layer.md) as overlayfs has them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, XattrFlags};
use rustix::io::Errno;

use super::names::join;
use super::{Applier, failed};
use crate::error::{Error, Result};
use crate::layer::entry::{Entry, EntryKind, show};
use crate::layer::fs::{Links, names, open_child, open_dir, path};
use crate::layer::write::is_whiteout;

impl Applier<'_, '_> {
    /// Whiteouts are empty files; AUFS made them hard links.
    pub(super) fn check_marker(&self, entry: &Entry) -> Result<()> {
        match entry.kind {
            EntryKind::File | EntryKind::HardLink(_) => Ok(()),
            ref other => {
                let (noun, at) = (other.noun(), show(&entry.path));
                Err(Error::invalid(format!("the whiteout {at} is a {noun} instead of a file")))
            }
        }
    }

    pub(super) fn is_whiteout_at(&self, dir: &OwnedFd, name: &[u8]) -> bool {
        rustix::fs::statat(dir, path(name), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| is_whiteout(&stat))
    }

    /// Hides `name` of the layers below. What this layer itself puts there stays (layer.md,
    /// "Whiteouts": they apply to lower layers only), and hides a file by being there.
    pub(super) fn whiteout(&mut self, dir: &OwnedFd, parent: &[u8], name: &[u8]) -> Result<()> {
        let at = &join(parent, name);
        match rustix::fs::statat(dir, path(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let fd = open_child(dir.as_fd(), name).map_err(|e| failed("open", at, e))?;
                self.set_opaque(fd.as_fd(), at)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                let mode = Mode::empty();
                rustix::fs::mknodat(dir, path(name), FileType::CharacterDevice, mode, 0)
                    .map_err(|e| failed("make the whiteout of", at, e))?;
                self.mark(parent)
            }
            Err(error) => Err(failed("read", at, error)),
        }
    }

    /// Notes a directory with a whiteout.
    pub(super) fn mark(&mut self, parent: &[u8]) -> Result<()> {
        if !self.marked.contains(parent) {
            self.directories.account(parent, self.limits.directories)?;
            self.marked.insert(parent.to_vec());
        }
        Ok(())
    }

    /// Removes whiteouts that have nothing to hide: those in a directory that is opaque, or lies in one,
    /// or has no counterpart below. Overlayfs reads such a directory as it is, and a whiteout in it is a
    /// name that is listed and cannot be opened.
    pub(super) fn drop_idle_whiteouts(&mut self) -> Result<()> {
        for at in std::mem::take(&mut self.marked) {
            // Another entry may have taken its place.
            let Ok(dir) = open_dir(self.root, &at, Links::Refuse) else { continue };
            let alone = self.base_known && !at.is_empty() && (self.parents)(&at)?.is_none();
            if !(alone || self.is_in_opaque(&at)?) {
                continue;
            }
            for name in names(dir.as_fd()).map_err(|e| failed("list", &at, e))? {
                if self.is_whiteout_at(&dir, &name) {
                    rustix::fs::unlinkat(&dir, path(&name), AtFlags::empty())
                        .map_err(|e| failed("remove a whiteout from", &at, e))?;
                }
            }
        }
        Ok(())
    }

    /// Whether a directory of the layer, or one that it lies in, is opaque.
    pub(super) fn is_in_opaque(&self, at: &[u8]) -> Result<bool> {
        let overlay = self.layer.expect("only layers have opaque directories");
        let ends = at.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(end, _)| end);
        for end in ends.chain([at.len()]) {
            let dir = open_dir(self.root, &at[..end], Links::Refuse)
                .map_err(|e| failed("open", &at[..end], e))?;
            let mut value = [0; 2];
            match rustix::fs::fgetxattr(&dir, overlay.opaque_xattr(), &mut value) {
                Ok(1) if value[0] == b'y' => return Ok(true),
                Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => {}
                Err(error) => return Err(failed("read the attributes of", &at[..end], error)),
            }
        }
        Ok(false)
    }

    pub(super) fn set_opaque(&self, dir: BorrowedFd<'_>, at: &[u8]) -> Result<()> {
        let overlay = self.layer.expect("only layers have opaque directories");
        rustix::fs::fsetxattr(dir, overlay.opaque_xattr(), b"y", XattrFlags::empty())
            .map_err(|e| failed("mark as opaque", at, e))
    }
}
