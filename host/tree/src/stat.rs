//! What is known of an entry without reading it.

use std::fmt;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags};
use rustix::io::Errno;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device. In an overlay's upper directory number 0:0 is a whiteout.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A unix socket.
    Socket,
}

impl Kind {
    /// Whether only a privileged user or a running program can make one: neither file, directory
    /// nor link.
    pub fn is_special(self) -> bool {
        !matches!(self, Kind::File | Kind::Directory | Kind::Symlink)
    }

    pub(crate) fn of(kind: FileType) -> Option<Kind> {
        Some(match kind {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            _ => return None,
        })
    }

    pub(crate) fn file_type(self) -> FileType {
        match self {
            Kind::File => FileType::RegularFile,
            Kind::Directory => FileType::Directory,
            Kind::Symlink => FileType::Symlink,
            Kind::CharDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
        }
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Symlink => "symbolic link",
            Kind::CharDevice => "character device",
            Kind::BlockDevice => "block device",
            Kind::Fifo => "FIFO",
            Kind::Socket => "socket",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A point in time as file systems store it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    pub secs: i64,
    /// Nanoseconds within the second, below 1,000,000,000.
    pub nanos: u32,
}

impl Timestamp {
    /// A whole second.
    pub fn from_secs(secs: i64) -> Self {
        Timestamp { secs, nanos: 0 }
    }

    pub(crate) fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Timestamp { secs: now.tv_sec, nanos: u32::try_from(now.tv_nsec).unwrap_or(0) }
    }

    pub(crate) fn spec(self) -> rustix::fs::Timespec {
        rustix::fs::Timespec { tv_sec: self.secs, tv_nsec: self.nanos.into() }
    }

    /// Nanoseconds since the epoch.
    pub(crate) fn as_nanos(self) -> i128 {
        i128::from(self.secs) * 1_000_000_000 + i128::from(self.nanos)
    }
}

/// Metadata of an entry, without its extended attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: Kind,
    /// Permission, setuid, setgid and sticky bits (`07777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names of the inode.
    pub nlink: u32,
    /// Bytes of a file or of a link's target.
    pub size: u64,
    /// Bytes allocated on disk; less than `size` for a sparse file.
    pub allocated: u64,
    /// Inode number.
    pub inode: u64,
    /// Number of the file system it lies on.
    pub device: (u32, u32),
    /// Major and minor number of a device node, else 0:0.
    pub rdev: (u32, u32),
    /// Time of the last change of the contents.
    pub mtime: Timestamp,
    /// Time of the last change of contents or metadata; cannot be set by a program.
    pub ctime: Timestamp,
}

impl Stat {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Whether it is an overlay whiteout: it hides the entry of this name in the layers below.
    pub fn is_whiteout(&self) -> bool {
        self.kind == Kind::CharDevice && self.rdev == (0, 0)
    }

    /// Same contents as far as metadata can tell.
    pub(crate) fn same_contents(&self, other: &Stat) -> bool {
        self.kind == other.kind
            && self.size == other.size
            && self.inode == other.inode
            && self.mtime == other.mtime
            && self.ctime == other.ctime
    }

    /// Of an open file.
    pub(crate) fn of_fd(fd: BorrowedFd<'_>) -> Result<Stat, Errno> {
        let flags = StatxFlags::BASIC_STATS;
        let stx = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, flags)?;
        Stat::from_statx(&stx).ok_or(Errno::IO)
    }

    /// `None` if the file system reports a kind that Linux does not define.
    pub(crate) fn from_statx(stx: &Statx) -> Option<Stat> {
        let raw = u32::from(stx.stx_mode);
        Some(Stat {
            kind: Kind::of(FileType::from_raw_mode(raw))?,
            mode: raw & 0o7777,
            uid: stx.stx_uid,
            gid: stx.stx_gid,
            nlink: stx.stx_nlink,
            size: stx.stx_size,
            allocated: stx.stx_blocks.saturating_mul(512),
            inode: stx.stx_ino,
            device: (stx.stx_dev_major, stx.stx_dev_minor),
            rdev: (stx.stx_rdev_major, stx.stx_rdev_minor),
            mtime: Timestamp { secs: stx.stx_mtime.tv_sec, nanos: stx.stx_mtime.tv_nsec },
            ctime: Timestamp { secs: stx.stx_ctime.tv_sec, nanos: stx.stx_ctime.tv_nsec },
        })
    }
}
