//! The one place with `unsafe`: `unshare`, which is unsafe only for flags that are never passed.

use rustix::io;
use rustix::thread::UnshareFlags;

/// Namespaces a process may leave behind for new ones.
pub(crate) enum Leave {
    /// A new mount namespace.
    Mounts,
    /// New user and mount namespaces, in one step (the mount namespace then belongs to the user
    /// namespace).
    UserAndMounts,
    /// A new user namespace.
    User,
    /// A new mount namespace, and a new PID namespace for children.
    MountsAndPids,
}

/// Leaves namespaces of the calling process, which must have one thread: a new user namespace is
/// refused to others (`EINVAL`), and a mount namespace would be the calling thread's alone.
#[allow(unsafe_code)]
pub(crate) fn unshare(what: Leave) -> io::Result<()> {
    let flags = match what {
        Leave::Mounts => UnshareFlags::NEWNS,
        Leave::UserAndMounts => UnshareFlags::NEWUSER | UnshareFlags::NEWNS,
        Leave::User => UnshareFlags::NEWUSER,
        Leave::MountsAndPids => UnshareFlags::NEWNS | UnshareFlags::NEWPID,
    };
    // SAFETY: the function is unsafe because CLONE_FILES splits the table of file descriptors
    // between threads; none of the flags above does.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}
