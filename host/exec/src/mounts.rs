//! What a step's root and mounts are made of, by descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use wbuild_graph::Failure;

use crate::fail::OrFail;

/// Where a mount's files come from.
#[derive(Debug)]
pub enum Source {
    /// A detached mount, made by `fsmount` or by [`detach`]. Unmounted when the step is over.
    Mount(OwnedFd),
    /// What lies below a detached mount. The launcher finds it once the mount has a place: a part of a
    /// mount without one cannot be mounted by itself on most kernels.
    Below {
        /// The mount.
        mount: OwnedFd,
        /// Relative, without links or `..` in it: nothing of the step runs yet that could change it.
        path: String,
        /// It is no directory.
        is_file: bool,
    },
    /// A directory or file, opened in this process's mount namespace (`O_PATH` will do).
    Path(OwnedFd),
    /// A file that exists in memory for the time of the step: a secret, a generated `/etc/hosts`.
    /// Not for a root.
    Content(Content),
}

/// A file made for a step.
#[derive(Clone, Debug)]
pub struct Content {
    /// Its bytes.
    pub data: Arc<[u8]>,
    /// Permission bits.
    pub mode: u32,
    /// Owner, as seen by the launcher.
    pub uid: u32,
    /// Group, as seen by the launcher.
    pub gid: u32,
}

impl Content {
    /// A file of root that all can read.
    pub fn readable(data: impl Into<Arc<[u8]>>) -> Self {
        Content { data: data.into(), mode: 0o644, uid: 0, gid: 0 }
    }
}

impl Source {
    /// What to append to the place of the mount.
    pub(crate) fn suffix(&self) -> String {
        match self {
            Source::Below { path, .. } => format!("/{path}"),
            _ => String::new(),
        }
    }

    /// The detached mount of a source that is no content.
    pub(crate) fn detach(self) -> Result<OwnedFd, Failure> {
        match self {
            Source::Mount(mount) | Source::Below { mount, .. } => Ok(mount),
            Source::Path(path) => detach(path.as_fd()),
            Source::Content(_) => Err(Failure::internal("a generated file has no mount")),
        }
    }
}

/// Makes a detached mount of a directory or file, as `mount --bind` would: without what is mounted
/// below it. Needs `CAP_SYS_ADMIN` over this process's mount namespace.
pub fn detach(path: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    match rustix::mount::open_tree(path, "", flags) {
        // In a user namespace, mounts that came from outside stay together with what they cover.
        Err(Errno::INVAL) => {
            rustix::mount::open_tree(path, "", flags | OpenTreeFlags::AT_RECURSIVE)
        }
        result => result,
    }
    .or_fail("make a mount of a step's source")
}
