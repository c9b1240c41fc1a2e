//! Directory-descriptor file system calls shared by writer and applier.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags, openat,
    openat2,
};
use rustix::io::Errno;

/// Raw bytes as a path.
pub(crate) fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Opens the directory `at` below `root` without leaving it and, unless `links` allows them within
/// the root, without following any symbolic link. The empty path is the root itself.
pub(crate) fn open_dir(
    root: BorrowedFd<'_>,
    at: &[u8],
    links: Links,
) -> rustix::io::Result<OwnedFd> {
    let name = if at.is_empty() { Path::new(".") } else { path(at) };
    let resolve = match links {
        Links::Refuse => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        Links::WithinRoot => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    loop {
        match openat2(root, name, flags, Mode::empty(), resolve) {
            // The kernel asks to try again when something was renamed meanwhile.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// What parents of an entry may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// Real directories only.
    Refuse,
    /// Symbolic links too, resolved as if the root were `/`.
    WithinRoot,
}

/// Opens a directory that is an immediate child, not following a link.
pub(crate) fn open_child(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, path(name), flags, Mode::empty())
}

/// A path to a child for the calls on extended attributes, which know no directory descriptors.
/// The descriptor pins the directory; the child itself is not followed by the `l*` calls.
pub(crate) fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    let mut out = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    out.push(path(name));
    out
}

/// Sets the modification time and nothing else.
pub(crate) fn mtime(seconds: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    }
}

/// All extended attributes that `keep` wants, read through `list` and `get`, which grow their buffer.
fn xattrs(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
    keep: impl Fn(&[u8]) -> bool,
) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut buffer = [0; 1024];
    let mut large;
    let names: &[u8] = match list(&mut buffer) {
        Ok(length) => &buffer[..length],
        Err(Errno::RANGE) => {
            // The kernel's own limit of a list.
            large = vec![0; 64 << 10];
            let length = list(&mut large)?;
            &large[..length]
        }
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut out = Vec::new();
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty() && keep(name)) {
        let mut value = vec![0; 256];
        let length = match get(name, &mut value) {
            Err(Errno::RANGE) => {
                // The kernel's own limit of a value.
                value.resize(64 << 10, 0);
                get(name, &mut value)
            }
            other => other,
        };
        match length {
            Ok(length) => {
                value.truncate(length);
                out.push((name.to_vec(), value));
            }
            // Gone meanwhile, or listed but not readable without privilege.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(out)
}

/// Extended attributes of an open file or directory.
pub(crate) fn fd_xattrs(
    fd: BorrowedFd<'_>,
    keep: impl Fn(&[u8]) -> bool,
) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    xattrs(
        |buffer| rustix::fs::flistxattr(fd, buffer),
        |name, buffer| rustix::fs::fgetxattr(fd, path(name), buffer),
        keep,
    )
}

/// Extended attributes of a child that cannot be opened: a link, device or pipe.
pub(crate) fn child_xattrs(
    dir: BorrowedFd<'_>,
    name: &[u8],
    keep: impl Fn(&[u8]) -> bool,
) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let at = proc_path(dir, name);
    xattrs(
        |buffer| rustix::fs::llistxattr(&at, buffer),
        |name, buffer| rustix::fs::lgetxattr(&at, path(name), buffer),
        keep,
    )
}

/// Sets an attribute of a child that cannot be opened.
pub(crate) fn set_child_xattr(
    dir: BorrowedFd<'_>,
    child: &[u8],
    name: &[u8],
    value: &[u8],
) -> rustix::io::Result<()> {
    rustix::fs::lsetxattr(proc_path(dir, child), path(name), value, XattrFlags::empty())
}

/// Removes whatever `name` is, with all that is in it, never following a link.
pub(crate) fn remove_tree(
    dir: BorrowedFd<'_>,
    name: &[u8],
    depth: usize,
) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(dir, path(name), AtFlags::empty()) {
        // EISDIR from Linux, EPERM from POSIX.
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    if depth == 0 {
        return Err(Errno::NAMETOOLONG);
    }
    let child = open_child(dir, name)?;
    for entry in names(&child)? {
        remove_tree(child.as_fd(), &entry, depth - 1)?;
    }
    rustix::fs::unlinkat(dir, path(name), AtFlags::REMOVEDIR)
}

/// The names in a directory, in no order.
pub(crate) fn names(dir: impl AsFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut out = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            out.push(name.to_vec());
        }
    }
    Ok(out)
}
