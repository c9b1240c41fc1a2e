//! Reading what the digest of a tree needs beyond metadata: contents, link targets, attributes.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::error::{Result, TreeError, show};
use crate::par::{self, Work};
use crate::path::{RelPath, join, split};
use crate::root::{DirCursor, Root, read, read_link_at, stat_fd};
use crate::stat::{Kind, Stat};
use crate::walk::Entry;
use crate::xattr::{self, Holder, XattrKind, Xattrs};

/// How often a file is read again that was written to while it was read.
const ATTEMPTS: u32 = 3;
/// Bytes read at once.
const BUFFER: usize = 128 * 1024;
/// Entries one job reads.
const PIECE: usize = 48;

/// The sha256 of a file's contents.
pub type Sha = [u8; 32];

/// Whose owners and attributes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// Owner, group and extended attributes are content: images and stages.
    Kept,
    /// Everything belongs to 0:0 and has no attributes: a directory of the user's, whose owner and
    /// attributes say something of his machine, not of the files.
    Ignored,
}

/// What an entry of a layer does to the layers below besides adding itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mark {
    /// Nothing: a directory is merged, anything else replaces.
    #[default]
    None,
    /// The entry is no entry: it removes what the layers below have at its place.
    Whiteout,
    /// A directory that hides what the layers below have at its place.
    Opaque,
}

/// An entry with as much of its contents as was asked for.
#[derive(Clone, Debug)]
pub struct Node {
    /// Relative to where the walk began.
    pub path: RelPath,
    /// Metadata as found.
    pub stat: Stat,
    /// A directory that no filter selects, but something in it.
    pub implied: bool,
    /// See [`Mark`]; always `None` outside layers.
    pub mark: Mark,
    /// Attributes, sorted; none with [`Ownership::Ignored`].
    pub xattrs: Xattrs,
    /// The target of a link.
    pub link: Option<Box<[u8]>>,
    /// Digest of a file's contents, once it is known.
    pub sha256: Option<Sha>,
}

impl From<Entry> for Node {
    fn from(entry: Entry) -> Node {
        Node {
            path: entry.path,
            stat: entry.stat,
            implied: entry.implied,
            mark: Mark::None,
            xattrs: Xattrs::new(),
            link: None,
            sha256: None,
        }
    }
}

/// What to load, and from where.
#[derive(Clone, Copy)]
pub(crate) struct Loader<'a> {
    pub root: &'a Root,
    /// The nodes' paths are relative to this directory.
    pub base: &'a RelPath,
    pub ownership: Ownership,
    /// Somebody may write to the tree meanwhile: check each file before and after.
    pub mutable: bool,
    /// The tree is the upper directory of an overlay whose marks are of this kind.
    pub layer: Option<XattrKind>,
    /// Hash the files that have no digest yet.
    pub contents: bool,
}

impl Loader<'_> {
    /// Loads what is missing in `nodes`, in parallel.
    pub(crate) fn load(&self, nodes: &mut [Node], work: &Work) -> Result<()> {
        par::for_each_piece(
            work,
            nodes,
            PIECE,
            || (DirCursor::new(self.root.as_fd()), Vec::new()),
            |(cursor, buffer), piece| {
                for node in piece {
                    work.cancel.check()?;
                    self.load_one(node, cursor, buffer, work)?;
                }
                Ok(())
            },
        )
    }

    fn load_one(
        &self,
        node: &mut Node,
        cursor: &mut DirCursor<'_>,
        buffer: &mut Vec<u8>,
        work: &Work,
    ) -> Result<()> {
        if self.layer.is_some() && node.stat.is_whiteout() {
            node.mark = Mark::Whiteout;
            return Ok(());
        }
        let attributes = self.ownership == Ownership::Kept;
        let hash = self.contents && node.stat.kind == Kind::File && node.sha256.is_none();
        let link = node.stat.kind == Kind::Symlink && node.link.is_none();
        if !(attributes || hash || link) {
            return Ok(());
        }
        let path = join(self.base.as_bytes(), node.path.as_bytes());
        let fail = |action, errno| match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP if self.mutable => self.changed(&path),
            errno => self.root.error(action, &path, errno),
        };
        let (dir, name) = split(&path);
        let dir = cursor.dir(dir).map_err(|errno| fail("open the directory of", errno))?;
        if link {
            node.link = Some(read_link_at(dir, name).map_err(|errno| fail("read", errno))?);
        }
        if hash {
            let (fd, sha) = self.hash(dir, name, &path, &mut node.stat, buffer, work)?;
            node.sha256 = Some(sha);
            if attributes {
                self.attributes(node, Holder::Fd(fd.as_fd()), &path)?;
            }
        } else if attributes {
            // The root of the tree has no name.
            let holder = if name.is_empty() { Holder::Fd(dir) } else { Holder::At(dir, name) };
            self.attributes(node, holder, &path)?;
        }
        Ok(())
    }

    fn attributes(&self, node: &mut Node, holder: Holder<'_>, path: &[u8]) -> Result<()> {
        let (xattrs, marks) = xattr::read_marked(holder, self.layer)
            .map_err(|errno| self.root.error("read the attributes of", path, errno))?;
        if marks.incomplete {
            return Err(TreeError::Unsupported {
                path: show(path),
                place: self.root.place().to_owned(),
                reason: "its overlay attributes refer to another layer",
            });
        }
        node.xattrs = xattrs;
        if marks.opaque && node.stat.is_dir() {
            node.mark = Mark::Opaque;
        }
        Ok(())
    }

    fn changed(&self, path: &[u8]) -> TreeError {
        TreeError::Changed { path: show(path), place: self.root.place().to_owned() }
    }

    /// Hashes a file; `stat` becomes that of the contents that were hashed.
    fn hash(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        stat: &mut Stat,
        buffer: &mut Vec<u8>,
        work: &Work,
    ) -> Result<(rustix::fd::OwnedFd, Sha)> {
        buffer.resize(BUFFER, 0);
        for _ in 0..ATTEMPTS {
            let fd = open_file(dir, name).map_err(|errno| match errno {
                Errno::NOENT | Errno::LOOP | Errno::NXIO if self.mutable => self.changed(path),
                errno => self.root.error("open", path, errno),
            })?;
            let mut hasher = Sha256::new();
            let mut total = 0;
            loop {
                let count = read(fd.as_fd(), buffer)
                    .map_err(|errno| self.root.error("read", path, errno))?;
                hasher.update(&buffer[..count]);
                total += count as u64;
                // A file that keeps growing must not keep us here.
                if count == 0 || total > stat.size || (count < BUFFER && total == stat.size) {
                    break;
                }
                work.cancel.check()?;
            }
            if !self.mutable && total == stat.size {
                return Ok((fd, hasher.finalize().into()));
            }
            let after =
                stat_fd(fd.as_fd()).map_err(|errno| self.root.error("stat", path, errno))?;
            if after.kind == Kind::File && total == stat.size && after.same_contents(stat) {
                return Ok((fd, hasher.finalize().into()));
            }
            if after.kind != Kind::File || !self.mutable {
                break;
            }
            *stat = after;
        }
        Err(self.changed(path))
    }
}

/// Opens a name as a file for reading, never following a link and never waiting for a FIFO's
/// writer.
pub(crate) fn open_file(
    dir: BorrowedFd<'_>,
    name: &[u8],
) -> std::result::Result<rustix::fd::OwnedFd, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat(dir, name, flags, rustix::fs::Mode::empty()) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
