//! What one tar entry is, after decoding and before encoding.

use std::collections::BTreeMap;

/// What an entry makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file with [`Entry::size`] bytes of data.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and its target, as stored.
    Symlink(Vec<u8>),
    /// Another name of an earlier entry of the same archive.
    HardLink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

impl EntryKind {
    /// A word for messages.
    pub fn noun(&self) -> &'static str {
        match self {
            EntryKind::File => "file",
            EntryKind::Directory => "directory",
            EntryKind::Symlink(_) => "symbolic link",
            EntryKind::HardLink(_) => "hard link",
            EntryKind::CharDevice { .. } => "character device",
            EntryKind::BlockDevice { .. } => "block device",
            EntryKind::Fifo => "named pipe",
        }
    }
}

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path as stored, without a trailing slash; not checked in any way when it was read.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky (0o7777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification, whole seconds since 1970.
    pub mtime: i64,
    /// Bytes of data of a file, 0 for all else.
    pub size: u64,
    /// Extended attributes by name.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where a sparse file's data lies: (offset in the file, length), in order. `None`: the data is
    /// the whole file. Only the reader makes it; the writer writes dense files.
    pub sparse: Option<Vec<(u64, u64)>>,
}

impl Entry {
    /// An entry owned by 0:0, dated 1970, without data and attributes.
    pub fn new(path: impl Into<Vec<u8>>, kind: EntryKind, mode: u32) -> Self {
        Entry {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 0,
            size: 0,
            xattrs: BTreeMap::new(),
            sparse: None,
        }
    }
}

/// A path for messages: quoted, with everything unprintable escaped, at most about 200 characters.
pub(crate) fn show(path: &[u8]) -> String {
    let mut text: String =
        String::from_utf8_lossy(path).chars().take(200).flat_map(char::escape_debug).collect();
    if path.len() > 200 {
        text.push('…');
    }
    format!("\"{text}\"")
}
