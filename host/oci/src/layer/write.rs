//! Writes the layer of an overlay upper directory.
//!
//! What the kernel leaves there becomes what the specification wants: a character device 0:0 is the
//! whiteout `.wh.NAME`, a directory with the opaque mark gets `.wh..wh..opq` as its first entry, and
//! the file system's own attributes stay behind. Entries of a directory are sorted by the name they
//! have in the archive; a directory comes before what is in it; the first of several names of a file
//! carries the data and the others link to it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::entry::{Entry, EntryKind, show};
use super::fs::{child_xattrs, fd_xattrs, names, open_child, path};
use super::{LayerBuilder, MAX_DEPTH, OverlayKind, travels};
use crate::error::{Error, ErrorKind, Result};

/// Says of a path (relative, without whiteout prefixes) whether it is left out, with all below it.
pub type Skip<'a> = dyn Fn(&[u8]) -> bool + 'a;

/// Gives the contents of a file (relative path) that the directory does not hold; none if it does.
pub type Contents<'a> = dyn Fn(&[u8]) -> Result<Option<Box<dyn Read + 'a>>> + 'a;

/// How an upper directory is read.
#[derive(Clone, Copy)]
pub struct WriteOptions<'a> {
    /// Which attributes hold the marks. Those of the other kind are dropped without effect.
    pub overlay: OverlayKind,
    /// `SOURCE_DATE_EPOCH`: later modification times are set to it.
    pub epoch: Option<i64>,
    /// Whether the layer begins with an entry `./` for the root directory itself. The usual builders
    /// leave it out, so that a step cannot change the root's mode.
    pub root_entry: bool,
    /// What is left out.
    pub skip: Option<&'a Skip<'a>>,
    /// Where the contents of files are that are empty here, but for their size.
    pub contents: Option<&'a Contents<'a>>,
}

impl WriteOptions<'_> {
    /// The usual: no epoch, no root entry, nothing left out.
    pub fn new(overlay: OverlayKind) -> Self {
        WriteOptions { overlay, epoch: None, root_entry: false, skip: None, contents: None }
    }
}

/// Appends everything in the overlay upper directory `upper` to `layer`. Sockets are passed over, as
/// they mean nothing without the process that made them.
pub fn write_upper<W: Write>(
    layer: &mut LayerBuilder<W>,
    upper: BorrowedFd<'_>,
    options: &WriteOptions<'_>,
) -> Result<()> {
    let mut walk = Walk { layer, options, links: HashMap::new() };
    if options.root_entry {
        let stat = rustix::fs::fstat(upper).map_err(|e| failed("read", b".", e))?;
        let mut entry = walk.entry(b".", EntryKind::Directory, &stat);
        entry.xattrs =
            fd_xattrs(upper, travels).map_err(|e| failed("read", b".", e))?.into_iter().collect();
        walk.layer.append(&entry, None)?;
    }
    walk.directory(upper, &mut Vec::new(), 0)
}

struct Walk<'a, 'o, W: Write> {
    layer: &'a mut LayerBuilder<W>,
    options: &'a WriteOptions<'o>,
    /// First name of each file that has several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// One child of a directory, in the order of the archive.
struct Child {
    /// Its name in the archive.
    stored: Vec<u8>,
    name: Vec<u8>,
    stat: Stat,
}

fn failed(verb: &str, at: &[u8], error: rustix::io::Errno) -> Error {
    Error::io(format!("cannot {verb} {} of a layer", show(at)), error)
}

/// Whether this is what overlayfs leaves in place of a deleted file.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

impl<W: Write> Walk<'_, '_, W> {
    fn directory(&mut self, dir: BorrowedFd<'_>, at: &mut Vec<u8>, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            let at = show(at);
            return Err(Error::limit(format!(
                "{at} is nested deeper than {MAX_DEPTH} directories"
            )));
        }
        let mut children = Vec::new();
        for name in names(dir).map_err(|e| failed("list", at, e))? {
            let stat = rustix::fs::statat(dir, path(&name), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| failed("read", &join(at, &name), e))?;
            let stored =
                if is_whiteout(&stat) { [b".wh.", &name[..]].concat() } else { name.clone() };
            if name.starts_with(b".wh.") {
                let message = format!("{} cannot be stored in a layer", show(&join(at, &name)));
                return Err(Error::unsupported(message).hint(
                    "names that start with .wh. mean deleted files there; remove or rename it",
                ));
            }
            children.push(Child { stored, name, stat });
        }
        children.sort_unstable_by(|a, b| a.stored.cmp(&b.stored));
        for child in children {
            let length = at.len();
            *at = join(at, &child.name);
            let skipped = self.options.skip.is_some_and(|skip| skip(at));
            if !skipped {
                self.child(dir, &child, at, depth)?;
            }
            at.truncate(length);
        }
        Ok(())
    }

    fn child(
        &mut self,
        dir: BorrowedFd<'_>,
        child: &Child,
        at: &mut Vec<u8>,
        depth: usize,
    ) -> Result<()> {
        let stat = &child.stat;
        let device = || {
            let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            (major, minor)
        };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => EntryKind::File,
            FileType::Directory => EntryKind::Directory,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, path(&child.name), Vec::new());
                EntryKind::Symlink(target.map_err(|e| failed("read", at, e))?.into_bytes())
            }
            FileType::CharacterDevice if is_whiteout(stat) => {
                let parent = &at[..at.len() - child.name.len()];
                return self.marker(&[parent, &child.stored].concat());
            }
            FileType::CharacterDevice => {
                let (major, minor) = device();
                EntryKind::CharDevice { major, minor }
            }
            FileType::BlockDevice => {
                let (major, minor) = device();
                EntryKind::BlockDevice { major, minor }
            }
            FileType::Fifo => EntryKind::Fifo,
            FileType::Socket => return Ok(()),
            _ => return Err(Error::unsupported(format!("{} is of an unknown type", show(at)))),
        };
        let mut entry = self.entry(at, kind, stat);
        if !matches!(entry.kind, EntryKind::Directory) && stat.st_nlink > 1 {
            match self.links.entry((stat.st_dev, stat.st_ino)) {
                std::collections::hash_map::Entry::Occupied(first) => {
                    entry.kind = EntryKind::HardLink(first.get().clone());
                    entry.size = 0;
                    return self.layer.append(&entry, None);
                }
                std::collections::hash_map::Entry::Vacant(slot) => {
                    slot.insert(at.clone());
                }
            }
        }
        match entry.kind {
            EntryKind::File => self.file(dir, child, entry),
            EntryKind::Directory => {
                let open = open_child(dir, &child.name).map_err(|e| failed("open", at, e))?;
                let opaque = self.options.overlay.opaque_xattr().as_bytes();
                let keep = |name: &[u8]| travels(name) || name == opaque;
                let mut is_opaque = false;
                for (name, value) in
                    fd_xattrs(open.as_fd(), keep).map_err(|e| failed("read", at, e))?
                {
                    if name == opaque {
                        is_opaque = value == b"y";
                    } else {
                        entry.xattrs.insert(name, value);
                    }
                }
                self.layer.append(&entry, None)?;
                if is_opaque {
                    self.marker(&join(at, b".wh..wh..opq"))?;
                }
                self.directory(open.as_fd(), at, depth + 1)
            }
            _ => {
                let xattrs =
                    child_xattrs(dir, &child.name, travels).map_err(|e| failed("read", at, e))?;
                entry.xattrs.extend(xattrs);
                self.layer.append(&entry, None)
            }
        }
    }

    fn file(&mut self, dir: BorrowedFd<'_>, child: &Child, mut entry: Entry) -> Result<()> {
        // Without NONBLOCK an open would hang if a pipe had taken the file's place.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, path(&child.name), flags, Mode::empty())
            .map_err(|e| failed("open", &entry.path, e))?;
        let now = rustix::fs::fstat(&fd).map_err(|e| failed("read", &entry.path, e))?;
        if (now.st_dev, now.st_ino) != (child.stat.st_dev, child.stat.st_ino) {
            let message = format!("{} was replaced while the layer was written", show(&entry.path));
            return Err(Error::new(ErrorKind::Changed, message));
        }
        entry.size = u64::try_from(now.st_size).expect("the kernel gives no negative sizes");
        let xattrs = fd_xattrs(fd.as_fd(), travels).map_err(|e| failed("read", &entry.path, e))?;
        entry.xattrs.extend(xattrs);
        if let Some(contents) = self.options.contents
            && let Some(mut data) = contents(&entry.path)?
        {
            return self.layer.append(&entry, Some(&mut data as &mut dyn Read));
        }
        let mut file = File::from(fd);
        self.layer.append(&entry, Some(&mut file as &mut dyn Read))
    }

    /// An empty file whose name is its meaning. Its time would only disturb reproducibility.
    fn marker(&mut self, at: &[u8]) -> Result<()> {
        self.layer.append(&Entry::new(at, EntryKind::File, 0o600), None)
    }

    fn entry(&self, at: &[u8], kind: EntryKind, stat: &Stat) -> Entry {
        let mut entry = Entry::new(at, kind, stat.st_mode & 0o7777);
        entry.uid = stat.st_uid;
        entry.gid = stat.st_gid;
        // Whole seconds, rounded down: what Docker, containerd and umoci write.
        entry.mtime = stat.st_mtime;
        if let Some(epoch) = self.options.epoch {
            entry.mtime = entry.mtime.min(epoch);
        }
        entry
    }
}

fn join(at: &[u8], name: &[u8]) -> Vec<u8> {
    if at.is_empty() { name.to_vec() } else { [at, b"/", name].concat() }
}
