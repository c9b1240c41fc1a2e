//! Making single entries in an upper directory, with all their metadata.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, SeekFrom, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::content::Sha;
use crate::par::Cancel;
use crate::root::read;
use crate::stat::{Kind, Stat, Timestamp};
use crate::xattr::{self, Holder, Xattrs};

/// Files up to this size go through a buffer: one read and one write, as cheap as any call that
/// copies inside the kernel.
pub(super) const SMALL: u64 = 128 * 1024;
const BUFFER: usize = 256 * 1024;
/// Bytes copied between two looks at the cancellation.
const STRIDE: u64 = 16 * 1024 * 1024;

/// Metadata a new entry gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// None: the time it is made.
    pub mtime: Option<Timestamp>,
}

/// What a new entry gets from the process and the directory without being asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    pub uid: u32,
    pub gid: u32,
    pub umask: u32,
}

/// Why a file was not copied.
#[derive(Debug)]
pub(super) enum DataError {
    Read(Errno),
    Write(Errno),
    /// It is not what was selected.
    Changed,
    Cancelled,
}

pub(super) fn timestamps(mtime: Timestamp) -> Timestamps {
    // The access time is nobody's business; it is left as it is.
    let omit = rustix::fs::Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    Timestamps { last_access: omit, last_modification: mtime.spec() }
}

/// Creates an empty file that did not exist, for writing.
pub(super) fn create(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode & 0o777))
}

/// Sets owner, attributes, mode and time of what was just made, in the order in which they do not
/// undo each other: a change of owner clears set-id bits and capabilities.
pub(super) fn finish_fd(
    fd: BorrowedFd<'_>,
    meta: &Meta,
    xattrs: &Xattrs,
    defaults: Defaults,
) -> Result<(), Errno> {
    let owned = (meta.uid, meta.gid) == (defaults.uid, defaults.gid);
    if !owned {
        rustix::fs::fchown(fd, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
    }
    xattr::write(Holder::Fd(fd), xattrs)?;
    if meta.mode & (0o7000 | defaults.umask) != 0 {
        rustix::fs::fchmod(fd, Mode::from_raw_mode(meta.mode))?;
    }
    if let Some(mtime) = meta.mtime {
        rustix::fs::futimens(fd, &timestamps(mtime))?;
    }
    Ok(())
}

/// [`finish_fd`] for what cannot be opened: links, device nodes, FIFOs, sockets.
pub(super) fn finish_at(
    dir: BorrowedFd<'_>,
    name: &[u8],
    kind: Kind,
    meta: &Meta,
    xattrs: &Xattrs,
    defaults: Defaults,
) -> Result<(), Errno> {
    if (meta.uid, meta.gid) != (defaults.uid, defaults.gid) {
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    xattr::write(Holder::At(dir, name), xattrs)?;
    if kind != Kind::Symlink {
        // Made by us a moment ago in a directory that only we write to: it is no link.
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(meta.mode), AtFlags::empty())?;
    }
    if let Some(mtime) = meta.mtime {
        rustix::fs::utimensat(dir, name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Makes a device node, FIFO or socket. A device number above what the kernel keeps is `INVAL`:
/// without its upper bits it would be another device, or the 0:0 of a whiteout.
pub(super) fn make_special(
    dir: BorrowedFd<'_>,
    name: &[u8],
    kind: Kind,
    rdev: (u32, u32),
) -> Result<(), Errno> {
    if rdev.0 > 0xfff || rdev.1 > 0xf_ffff {
        return Err(Errno::INVAL);
    }
    let device = rustix::fs::makedev(rdev.0, rdev.1);
    rustix::fs::mknodat(dir, name, kind.file_type(), Mode::from_raw_mode(0o600), device)
}

/// Copies the contents of a file whose metadata is `stat`. With `wanted` the bytes are hashed on
/// the way and must have that digest.
pub(super) fn copy_data(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    stat: &Stat,
    wanted: Option<&Sha>,
    buffer: &mut Vec<u8>,
    cancel: &Cancel,
) -> Result<(), DataError> {
    let copied = if wanted.is_some() || stat.size <= SMALL {
        through_buffer(from, to, stat.size, wanted, buffer, cancel)?
    } else if stat.allocated < stat.size {
        sparse(from, to, stat.size, buffer, cancel)?
    } else {
        in_kernel(from, to, stat.size, buffer, cancel)?
    };
    if copied == stat.size { Ok(()) } else { Err(DataError::Changed) }
}

pub(super) fn write_all(to: BorrowedFd<'_>, mut data: &[u8]) -> Result<(), Errno> {
    while !data.is_empty() {
        match rustix::io::write(to, data) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => data = &data[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn through_buffer(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    size: u64,
    wanted: Option<&Sha>,
    buffer: &mut Vec<u8>,
    cancel: &Cancel,
) -> Result<u64, DataError> {
    buffer.resize(BUFFER, 0);
    let mut hasher = wanted.map(|_| Sha256::new());
    let mut total = 0;
    loop {
        let count = read(from, buffer).map_err(DataError::Read)?;
        total += count as u64;
        if total > size {
            return Err(DataError::Changed);
        }
        if let Some(hasher) = &mut hasher {
            hasher.update(&buffer[..count]);
        }
        write_all(to, &buffer[..count]).map_err(DataError::Write)?;
        // A short read at the expected size is the end; another call would only confirm it.
        if count == 0 || (count < BUFFER && total == size) {
            break;
        }
        if cancel.is_cancelled() {
            return Err(DataError::Cancelled);
        }
    }
    let found: Option<Sha> = hasher.map(|hasher| hasher.finalize().into());
    if found.as_ref() == wanted { Ok(total) } else { Err(DataError::Changed) }
}

/// Copies from the current offsets up to `size` bytes inside the kernel, which shares blocks where
/// the file system can.
fn in_kernel(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    size: u64,
    buffer: &mut Vec<u8>,
    cancel: &Cancel,
) -> Result<u64, DataError> {
    let mut total = 0;
    let mut sendfile = false;
    while total < size {
        if cancel.is_cancelled() {
            return Err(DataError::Cancelled);
        }
        let stride = usize::try_from((size - total).min(STRIDE)).expect("at most the stride");
        let count = if sendfile {
            rustix::fs::sendfile(to, from, None, stride)
        } else {
            rustix::fs::copy_file_range(from, None, to, None, stride)
        };
        match count {
            Ok(0) => break,
            Ok(count) => total += count as u64,
            Err(Errno::INTR | Errno::AGAIN) => {}
            // Another file system or one without the call.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM)
                if !sendfile =>
            {
                sendfile = true;
            }
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return Ok(total + through_buffer(from, to, size - total, None, buffer, cancel)?);
            }
            // Only a look at both sides would tell which one it was; reading rarely fails.
            Err(errno) => return Err(DataError::Write(errno)),
        }
    }
    Ok(total)
}

/// Copies the data of a file with holes and leaves the holes out.
fn sparse(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    size: u64,
    buffer: &mut Vec<u8>,
    cancel: &Cancel,
) -> Result<u64, DataError> {
    rustix::fs::ftruncate(to, size).map_err(DataError::Write)?;
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            // A hole up to the end.
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(DataError::Read(errno)),
        };
        let hole = rustix::fs::seek(from, SeekFrom::Hole(data)).map_err(DataError::Read)?.min(size);
        if data >= hole {
            break;
        }
        rustix::fs::seek(from, SeekFrom::Start(data)).map_err(DataError::Read)?;
        rustix::fs::seek(to, SeekFrom::Start(data)).map_err(DataError::Write)?;
        if in_kernel(from, to, hole - data, buffer, cancel)? != hole - data {
            return Err(DataError::Changed);
        }
        at = hole;
    }
    Ok(size)
}
