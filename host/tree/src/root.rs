//! A directory tree that is only ever entered through its file descriptor.
//!
//! Invariant: no look-up leaves the tree, whatever links are in it and whoever changes it
//! meanwhile. All of them are single `openat2` calls, resolved by the kernel, or follow a path
//! whose links were resolved here and is then opened with links refused.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, ResolveFlags, StatxFlags};
use rustix::io::Errno;

use crate::error::{Missing, Result, TreeError, show};
use crate::path::{RelPath, join};
use crate::stat::{Kind, Stat};

/// How often a look-up is repeated that the kernel gave up because of a concurrent rename.
const RETRIES: u32 = 256;
/// Links followed in one look-up, as many as the kernel follows.
const MAX_LINKS: u32 = 40;
/// Longest link target (the kernel's own limit).
const MAX_TARGET: usize = 4096;

/// What a look-up does with symbolic links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// They are followed as if the root were `/`.
    Inside,
    /// One anywhere in the path is an error.
    Refuse,
}

impl Links {
    fn resolve(self) -> ResolveFlags {
        match self {
            Links::Inside => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            Links::Refuse => {
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
            }
        }
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name.
    pub name: Box<[u8]>,
    /// What it is, not following links.
    pub stat: Stat,
}

/// A tree and what to call it in messages.
#[derive(Clone, Debug)]
pub struct Root {
    fd: Arc<OwnedFd>,
    place: Arc<str>,
}

/// The outcome of following a path by hand: see [`Root::follow`].
#[derive(Clone, Debug)]
pub struct Followed {
    /// The path without any link in it; what does not exist is kept as given.
    pub path: RelPath,
    /// What is there; none if it does not exist.
    pub stat: Option<Stat>,
    /// The links that were followed, in order.
    pub links: Vec<RelPath>,
}

impl Root {
    /// Opens the directory at a path of this machine. `place` is what messages call the tree,
    /// e.g. `the build context`.
    ///
    /// # Errors
    /// It cannot be opened or is no directory.
    pub fn open(path: &Path, place: &str) -> Result<Root> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| TreeError::Io {
            action: "open",
            path: path.display().to_string(),
            place: place.to_owned(),
            errno,
        })?;
        Ok(Root::from_fd(fd, place))
    }

    /// Takes a directory that is already open (readable, not `O_PATH`).
    pub fn from_fd(fd: OwnedFd, place: &str) -> Root {
        Root { fd: Arc::new(fd), place: place.into() }
    }

    /// What messages call the tree.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The directory `path` as a tree of its own.
    ///
    /// # Errors
    /// It cannot be opened or is no directory.
    pub fn subtree(&self, path: &RelPath, links: Links) -> Result<Root> {
        let fd = self.open_dir(path, links)?;
        Ok(Root { fd: Arc::new(fd), place: self.place.clone() })
    }

    pub(crate) fn error(&self, action: &'static str, path: &[u8], errno: Errno) -> TreeError {
        TreeError::io(action, path, &self.place, errno)
    }

    /// Opens anything with the given flags; `O_CLOEXEC` is added.
    pub(crate) fn open_at(
        &self,
        path: &[u8],
        flags: OFlags,
        links: Links,
    ) -> std::result::Result<OwnedFd, Errno> {
        open_beneath(self.fd.as_fd(), path, flags, links)
    }

    /// Opens a directory for reading.
    ///
    /// # Errors
    /// It does not exist, is no directory, or may not be read.
    pub fn open_dir(&self, path: &RelPath, links: Links) -> Result<OwnedFd> {
        self.open_at(path.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY, links)
            .map_err(|errno| self.error("open", path.as_bytes(), errno))
    }

    /// Metadata of an entry; `None` if it does not exist. With [`Links::Inside`] the last name is
    /// followed too.
    ///
    /// # Errors
    /// Anything but absence.
    pub fn stat(&self, path: &RelPath, links: Links) -> Result<Option<Stat>> {
        let mut flags = OFlags::PATH;
        if links == Links::Refuse {
            // The last name may be a link: it is looked at, not followed.
            flags |= OFlags::NOFOLLOW;
        }
        let opened = match (links, path.parent(), path.name()) {
            (Links::Refuse, Some(parent), Some(name)) => {
                // NO_SYMLINKS refuses a link as the last name as well, so go through the parent.
                match self.open_at(parent.as_bytes(), OFlags::PATH | OFlags::DIRECTORY, links) {
                    Ok(dir) => {
                        return stat_at(dir.as_fd(), name)
                            .map_err(|errno| self.error("stat", path.as_bytes(), errno));
                    }
                    Err(errno) => Err(errno),
                }
            }
            _ => self.open_at(path.as_bytes(), flags, links),
        };
        match opened {
            Ok(fd) => stat_fd(fd.as_fd())
                .map(Some)
                .map_err(|errno| self.error("stat", path.as_bytes(), errno)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(self.error("stat", path.as_bytes(), errno)),
        }
    }

    /// The target of a symbolic link; links in the directories above it are followed inside.
    ///
    /// # Errors
    /// It does not exist or is no link.
    pub fn read_link(&self, path: &RelPath) -> Result<Box<[u8]>> {
        let fail = |errno| self.error("read the link", path.as_bytes(), errno);
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Err(fail(Errno::INVAL));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let dir = self.open_at(parent.as_bytes(), flags, Links::Inside).map_err(fail)?;
        read_link_at(dir.as_fd(), name).map_err(fail)
    }

    /// Reads a whole regular file, following links inside the tree.
    ///
    /// # Errors
    /// It does not exist, is no regular file, or is larger than `limit` bytes.
    pub fn read_file(&self, path: &RelPath, limit: u64) -> Result<Vec<u8>> {
        let fail = |errno| self.error("read", path.as_bytes(), errno);
        // Looked at first: opening a device may do something.
        let Some(stat) = self.stat(path, Links::Inside)? else {
            return Err(Missing::new(path.to_string(), &*self.place).error());
        };
        if stat.is_dir() {
            return Err(fail(Errno::ISDIR));
        }
        let special = |kind: Kind| TreeError::Special {
            path: path.to_string(),
            place: self.place.to_string(),
            kind: kind.as_str(),
        };
        if stat.kind != Kind::File {
            return Err(special(stat.kind));
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.open_at(path.as_bytes(), flags, Links::Inside).map_err(fail)?;
        let stat = stat_fd(fd.as_fd()).map_err(fail)?;
        if stat.kind != Kind::File {
            return Err(special(stat.kind));
        }
        let too_large = || TreeError::Limit { what: format!("the size of {path:?}"), limit };
        if stat.size > limit {
            return Err(too_large());
        }
        let mut data = Vec::new();
        let mut piece = vec![0; 64 * 1024];
        loop {
            let count = read(fd.as_fd(), &mut piece).map_err(fail)?;
            if count == 0 {
                return Ok(data);
            }
            if (data.len() + count) as u64 > limit {
                return Err(too_large());
            }
            data.extend_from_slice(&piece[..count]);
        }
    }

    /// The entries of a directory, sorted by name; links in the path are followed inside.
    ///
    /// # Errors
    /// It does not exist or is no directory.
    pub fn read_dir(&self, path: &RelPath) -> Result<Vec<DirEntry>> {
        let fail = |errno| self.error("list", path.as_bytes(), errno);
        let dir = self.open_dir(path, Links::Inside)?;
        let names = Names::read(dir.as_fd(), &mut Vec::new()).map_err(fail)?;
        let mut entries = Vec::with_capacity(names.len());
        for (name, _) in names.iter() {
            // What vanished meanwhile is not there.
            if let Some(stat) = stat_cstr(dir.as_fd(), name).map_err(fail)? {
                entries.push(DirEntry { name: name.to_bytes().into(), stat });
            }
        }
        Ok(entries)
    }

    /// Follows a path one name at a time and says where it ends and which links it went through.
    /// `last` follows a link that is the last name, too. `..` in link targets stays inside.
    ///
    /// The answer is a statement about the moment; open it with [`Links::Refuse`].
    ///
    /// # Errors
    /// A loop of links, or a name below something that is no directory.
    pub fn follow(&self, path: &RelPath, last: bool) -> Result<Followed> {
        let mut pending: Vec<Box<[u8]>> = path.names().rev().map(Into::into).collect();
        let mut done: Vec<Box<[u8]>> = Vec::new();
        let mut links = Vec::new();
        let mut stat = Some(stat_fd(self.fd.as_fd()).map_err(|e| self.error("stat", b"", e))?);
        while let Some(name) = pending.pop() {
            match &*name {
                b"" | b"." => continue,
                b".." => {
                    done.pop();
                    stat = self.stat(&RelPath::trusted(done.join(&b'/')), Links::Refuse)?;
                    continue;
                }
                _ => {}
            }
            let parent = done.join(&b'/');
            let here = RelPath::trusted(join(&parent, &name));
            if here.as_bytes().len() > crate::path::MAX_PATH {
                return Err(self.error("follow", path.as_bytes(), Errno::NAMETOOLONG));
            }
            match stat {
                Some(dir) if !dir.is_dir() => {
                    return Err(self.error("follow", path.as_bytes(), Errno::NOTDIR));
                }
                Some(_) => stat = self.stat(&here, Links::Refuse)?,
                None => {}
            }
            let is_link = stat.is_some_and(|stat| stat.kind == Kind::Symlink);
            if is_link && (last || !pending.is_empty()) {
                let target = self.read_link(&here)?;
                links.push(here);
                if links.len() > MAX_LINKS as usize {
                    return Err(self.error("follow", path.as_bytes(), Errno::LOOP));
                }
                if target.starts_with(b"/") {
                    done.clear();
                }
                pending.extend(target.split(|byte| *byte == b'/').rev().map(Into::into));
                let base = RelPath::trusted(done.join(&b'/'));
                stat = self.stat(&base, Links::Refuse)?;
                continue;
            }
            done.push(name);
        }
        Ok(Followed { path: RelPath::trusted(done.join(&b'/')), stat, links })
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens a path below a directory; `O_CLOEXEC` is added.
pub(crate) fn open_beneath(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    links: Links,
) -> std::result::Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = flags | OFlags::CLOEXEC;
    for _ in 0..RETRIES {
        match rustix::fs::openat2(dir, path, flags, Mode::empty(), links.resolve()) {
            // The kernel could not be sure to have stayed inside because of a concurrent rename.
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A `..` that would leave a tree opened with BENEATH.
            Err(Errno::XDEV) => return Err(Errno::LOOP),
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

pub(crate) const STAT_FLAGS: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT);

pub(crate) fn stat_fd(fd: BorrowedFd<'_>) -> std::result::Result<Stat, Errno> {
    let stx = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Stat::from_statx(&stx).ok_or(Errno::OPNOTSUPP)
}

/// Metadata of a name, not followed; `None` if there is no such name.
pub(crate) fn stat_at(
    dir: BorrowedFd<'_>,
    name: &[u8],
) -> std::result::Result<Option<Stat>, Errno> {
    match rustix::fs::statx(dir, name, STAT_FLAGS, StatxFlags::BASIC_STATS) {
        Ok(stx) => Stat::from_statx(&stx).map(Some).ok_or(Errno::OPNOTSUPP),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// [`stat_at`] without a copy of the name.
pub(crate) fn stat_cstr(
    dir: BorrowedFd<'_>,
    name: &CStr,
) -> std::result::Result<Option<Stat>, Errno> {
    match rustix::fs::statx(dir, name, STAT_FLAGS, StatxFlags::BASIC_STATS) {
        Ok(stx) => Stat::from_statx(&stx).map(Some).ok_or(Errno::OPNOTSUPP),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

pub(crate) fn read_link_at(
    dir: BorrowedFd<'_>,
    name: &[u8],
) -> std::result::Result<Box<[u8]>, Errno> {
    let target = rustix::fs::readlinkat(dir, name, Vec::with_capacity(256))?.into_bytes();
    if target.len() > MAX_TARGET { Err(Errno::NAMETOOLONG) } else { Ok(target.into()) }
}

/// `read`, repeated when a signal interrupts it.
pub(crate) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> std::result::Result<usize, Errno> {
    loop {
        match rustix::io::read(fd, &mut *buffer) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// The names of one directory, sorted, in one allocation.
pub(crate) struct Names {
    /// Names, each followed by NUL.
    bytes: Vec<u8>,
    /// Where each name starts and ends (before the NUL), and what the directory says it is.
    spans: Vec<(u32, u32, Option<Kind>)>,
}

impl Names {
    /// Lists an open directory. `buffer` is scratch space kept between calls.
    pub(crate) fn read(
        dir: BorrowedFd<'_>,
        buffer: &mut Vec<u8>,
    ) -> std::result::Result<Names, Errno> {
        // A name has at most 255 bytes, so a record always fits.
        buffer.clear();
        buffer.reserve(32 * 1024);
        let mut names = Names { bytes: Vec::new(), spans: Vec::new() };
        let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes_with_nul();
            if matches!(name, b".\0" | b"..\0") {
                continue;
            }
            let start = u32::try_from(names.bytes.len()).map_err(|_| Errno::OVERFLOW)?;
            names.bytes.extend_from_slice(name);
            let end = u32::try_from(names.bytes.len() - 1).map_err(|_| Errno::OVERFLOW)?;
            names.spans.push((start, end, Kind::of(entry.file_type())));
        }
        let bytes = &names.bytes;
        names.spans.sort_unstable_by_key(|(start, end, _)| &bytes[*start as usize..*end as usize]);
        Ok(names)
    }

    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(crate) fn get(&self, index: usize) -> (&CStr, Option<Kind>) {
        let (start, end, kind) = self.spans[index];
        let name = &self.bytes[start as usize..=end as usize];
        (CStr::from_bytes_with_nul(name).expect("copied from a C string"), kind)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&CStr, Option<Kind>)> {
        (0..self.len()).map(|index| self.get(index))
    }
}

/// Keeps the directory of the last path open, as consecutive entries mostly share it.
pub(crate) struct DirCursor<'a> {
    root: BorrowedFd<'a>,
    current: Option<(Box<[u8]>, OwnedFd)>,
}

impl<'a> DirCursor<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>) -> Self {
        DirCursor { root, current: None }
    }

    /// The directory at `path`, opened with links refused.
    pub(crate) fn dir(&mut self, path: &[u8]) -> std::result::Result<BorrowedFd<'_>, Errno> {
        if self.current.as_ref().is_none_or(|(open, _)| **open != *path) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let fd = open_beneath(self.root, path, flags, Links::Refuse)?;
            self.current = Some((path.into(), fd));
        }
        Ok(self.current.as_ref().expect("set above").1.as_fd())
    }
}

/// A path for messages.
pub(crate) fn shown(dir: &[u8], name: &[u8]) -> String {
    show(&join(dir, name))
}
