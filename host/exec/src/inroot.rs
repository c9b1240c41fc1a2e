//! Opening paths inside an image's root, and the wall against hostile roots.
//!
//! Invariants:
//!
//! - Nothing here follows a symlink of the root out of the root: single files are opened with
//!   `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`.
//! - Only regular files are read, up to a limit, and never a FIFO or device (which could block or
//!   have side effects).

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use wbuild_graph::{Failure, FailureKind};

use crate::fail::OrFail;

/// Attempts of `openat2` that fail with `EAGAIN` because something was renamed meanwhile.
const RACES: usize = 16;

/// Opens `path` as seen by a process whose root is `root`.
pub(crate) fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::CLOEXEC;
    let mut races = 0;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if races < RACES => races += 1,
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Opens a regular file for reading, with its size; `None` where there is no such file.
fn open_file(root: BorrowedFd<'_>, path: &str) -> Result<Option<(std::fs::File, u64)>, Failure> {
    // O_PATH first: opening a FIFO or device for reading can block or act; O_NONBLOCK alone does
    // not help against every device.
    let handle = match open(root, path, OFlags::PATH) {
        Ok(handle) => handle,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => {
            return Err(errno).or_fail(format_args!("open {path} in the root"));
        }
    };
    let stat = rustix::fs::fstat(&handle).or_fail(format_args!("stat {path} in the root"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Failure::invalid(format!("{path} in the root is no regular file"))
            .attr("path", path)
            .hint("an image whose system files are links to elsewhere or devices is not run"));
    }
    // Reopen what was checked, not the name: /proc/self/fd is a magic link to this very inode.
    let file = std::fs::File::open(format!("/proc/self/fd/{}", raw(&handle)))
        .or_fail(format_args!("open {path} in the root for reading"))?;
    Ok(Some((file, u64::try_from(stat.st_size).unwrap_or(u64::MAX))))
}

/// Reads a regular file of at most `limit` bytes; `None` where there is no such file.
pub(crate) fn read(
    root: BorrowedFd<'_>,
    path: &str,
    limit: usize,
) -> Result<Option<Vec<u8>>, Failure> {
    let Some((file, size)) = open_file(root, path)? else { return Ok(None) };
    let too_large = || {
        Failure::new(FailureKind::Limit, format!("{path} in the root is larger than {limit} bytes"))
            .attr("path", path)
    };
    if size > limit as u64 {
        return Err(too_large());
    }
    let mut data = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    Read::read_to_end(&mut Read::take(file, limit as u64 + 1), &mut data)
        .or_fail(format_args!("read {path} in the root"))?;
    if data.len() > limit {
        return Err(too_large());
    }
    Ok(Some(data))
}

/// Reads the first bytes of a regular file, at most `len`; `None` where there is no such file.
pub(crate) fn read_head(
    root: BorrowedFd<'_>,
    path: &str,
    len: usize,
) -> Result<Option<Vec<u8>>, Failure> {
    let Some((file, _)) = open_file(root, path)? else { return Ok(None) };
    let mut data = Vec::new();
    Read::read_to_end(&mut Read::take(file, len as u64), &mut data)
        .or_fail(format_args!("read {path} in the root"))?;
    Ok(Some(data))
}

/// Number of a descriptor, for `/proc/self/fd/<n>`.
pub(crate) fn raw(fd: &impl AsFd) -> i32 {
    use std::os::fd::AsRawFd;
    fd.as_fd().as_raw_fd()
}

/// Refuses a root in which a directory that a container runtime mounts over is something else.
///
/// A runtime resolves `/dev`, `/proc` and `/sys` inside the root before it mounts there; an image
/// that makes one of them a symlink has turned that against the host more than once (runc
/// CVE-2019-19921, CVE-2023-27561, CVE-2025-31133, CVE-2026-41579). Missing ones are fine, they
/// are made.
pub fn check_root(root: BorrowedFd<'_>) -> Result<(), Failure> {
    for name in ["dev", "proc", "sys"] {
        let stat = match rustix::fs::statat(root, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno).or_fail(format_args!("stat /{name} in the root")),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(Failure::new(
                FailureKind::Denied,
                format!("the root's /{name} is no directory, so nothing is run in it"),
            )
            .attr("path", format!("/{name}"))
            .hint(format!("make /{name} an empty directory, or leave it out of the image")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        (dir, fd)
    }

    #[test]
    fn reads_regular_files_only_and_never_leaves_the_root() {
        let (dir, fd) = dir();
        let root = dir.path();
        std::fs::create_dir(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/passwd"), "inside").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../../../etc/passwd", root.join("dots")).unwrap();
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        rustix::fs::mkfifoat(&fd, "fifo", Mode::from_raw_mode(0o600)).unwrap();
        let text = |path: &str| read(fd.as_fd(), path, 100);
        for path in ["etc/passwd", "absolute", "dots", "../../etc/passwd"] {
            assert_eq!(text(path).unwrap().unwrap(), b"inside", "{path}");
        }
        assert_eq!(text("none").unwrap(), None);
        for path in ["fifo", "etc", "loop"] {
            assert!(text(path).is_err(), "{path}");
        }
        let limited = read(fd.as_fd(), "etc/passwd", 5).unwrap_err();
        assert_eq!(limited.kind, FailureKind::Limit);
    }

    #[test]
    fn a_huge_sparse_file_is_refused_without_reading_it() {
        let (dir, fd) = dir();
        let file = std::fs::File::create(dir.path().join("big")).unwrap();
        file.set_len(1 << 40).unwrap();
        let failure = read(fd.as_fd(), "big", 10 << 20).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Limit);
    }

    #[test]
    fn refuses_roots_whose_system_directories_are_links_or_files() {
        for name in ["dev", "proc", "sys"] {
            let (dir, fd) = dir();
            assert!(check_root(fd.as_fd()).is_ok());
            std::fs::create_dir(dir.path().join(name)).unwrap();
            assert!(check_root(fd.as_fd()).is_ok());
            std::fs::remove_dir(dir.path().join(name)).unwrap();
            std::os::unix::fs::symlink("/", dir.path().join(name)).unwrap();
            assert_eq!(check_root(fd.as_fd()).unwrap_err().kind, FailureKind::Denied);
            std::fs::remove_file(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name), "").unwrap();
            assert_eq!(check_root(fd.as_fd()).unwrap_err().kind, FailureKind::Denied);
        }
    }
}
