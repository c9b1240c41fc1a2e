//! Opening what is in a tree.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::Result;
use crate::path::RelPath;
use crate::root::{Links, Root, stat_fd};
use crate::stat::Kind;
use crate::xattr;

impl Root {
    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// It does not exist or is no regular file.
    pub fn open_file(&self, path: &RelPath, links: Links) -> Result<File> {
        // A FIFO must not keep the caller waiting for a writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = || {
            let fd = self.open_at(path.as_bytes(), flags, links)?;
            if stat_fd(fd.as_fd())?.kind == Kind::File { Ok(fd) } else { Err(Errno::INVAL) }
        };
        open().map(File::from).map_err(|errno| self.error("open", path.as_bytes(), errno))
    }

    /// Opens anything, as a place only (`O_PATH`): to be mounted, not to be read. `None`: it does not
    /// exist.
    ///
    /// # Errors
    /// Anything but absence.
    pub fn open_place(&self, path: &RelPath, links: Links) -> Result<Option<OwnedFd>> {
        match self.open_at(path.as_bytes(), OFlags::PATH | OFlags::CLOEXEC, links) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(self.error("open", path.as_bytes(), errno)),
        }
    }

    /// The extended attributes of a directory that are part of its content; links are refused.
    ///
    /// # Errors
    /// It does not exist or is no directory.
    pub fn dir_xattrs(&self, path: &RelPath) -> Result<xattr::Xattrs> {
        let fd = self.open_dir(path, Links::Refuse)?;
        xattr::read(xattr::Holder::Fd(fd.as_fd()))
            .map_err(|errno| self.error("read the attributes of", path.as_bytes(), errno))
    }

    /// Bytes `offset..offset + length` of a regular file, fewer at its end; links are followed inside
    /// the tree.
    ///
    /// # Errors
    /// It does not exist or is no regular file.
    pub fn read_range(&self, path: &RelPath, offset: u64, length: usize) -> Result<Vec<u8>> {
        let file = self.open_file(path, Links::Inside)?;
        let size = file.metadata().map_or(0, |m| m.len());
        let rest = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut data = vec![0; length.min(rest)];
        let mut have = 0;
        while have < data.len() {
            match file.read_at(&mut data[have..], offset + have as u64) {
                Ok(0) => break,
                Ok(count) => have += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                    return Err(self.error("read", path.as_bytes(), errno));
                }
            }
        }
        data.truncate(have);
        Ok(data)
    }
}
