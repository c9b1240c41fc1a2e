//! Applies archives to a directory, trusting nothing in them.
//!
//! [`apply`] turns a layer into an overlay upper directory; [`unpack`] extracts an ordinary archive
//! into a tree. Invariants:
//!
//! - Every name is resolved by the kernel below one directory descriptor; `..` is refused before that,
//!   and in a layer no parent may be a symbolic link. So nothing outside is read or written.
//! - A layer's hard links lead to entries of the same layer; no entry of a layer becomes a live
//!   whiteout or opaque mark but through the names the specification gives them.
//! - Of several entries for one path the last wins.
//! - Owners are set before modes (a change of owner clears setuid), modes and times of directories
//!   last of all (writing into a directory changes its time, and may not be allowed by its mode).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;
use wbuild_graph::DiffId;

use super::decompress::{Decompressed, Limits, start};
use super::entry::{Entry, EntryKind, show};
use super::format::Expected;
use super::fs::{
    Links, fd_xattrs, mtime, open_child, open_dir, path, remove_tree, set_child_xattr,
};
use super::tar_read::TarReader;
use super::write::is_whiteout;
use super::{MAX_DEPTH, OverlayKind, travels};
use crate::error::{Error, ErrorKind, Result};
use crate::media::Compression;

/// Whose files the result holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The owners of the archive.
    Keep,
    /// One owner for everything.
    Fixed {
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Whoever runs this; for callers without the right to change owners.
    Ignore,
}

/// Metadata for a directory that an archive needs but does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentMeta {
    /// Permission bits (0o7777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime: i64,
    /// Extended attributes that travel in images.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Finds a directory in the layers below, by its path without leading or trailing slash. `None`: there
/// is none, and the directory is made `0755`, owned by 0:0.
pub type ParentLookup<'a> = dyn FnMut(&[u8]) -> Result<Option<ParentMeta>> + 'a;

/// A [`ParentLookup`] for a layer with nothing below it.
pub fn no_parents(_path: &[u8]) -> Result<Option<ParentMeta>> {
    Ok(None)
}

/// How a layer is applied.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions<'a> {
    /// Which attribute marks opaque directories.
    pub overlay: OverlayKind,
    /// Whose files the result holds.
    pub ownership: Ownership,
    /// What the archive may demand.
    pub limits: Limits,
    /// Media type of the layer; its compression must be what the content shows. `None` accepts any
    /// that layers have.
    pub media_type: Option<&'a str>,
    /// What the uncompressed tar must hash to.
    pub diff_id: Option<DiffId>,
    /// The lookup of parents knows every directory below: where it finds none, there is nothing that
    /// a whiteout could hide, and none is kept.
    pub base_known: bool,
}

impl ApplyOptions<'_> {
    /// Owners of the archive, default limits, nothing known of the content or of what is below.
    pub fn new(overlay: OverlayKind) -> Self {
        let ownership = Ownership::Keep;
        ApplyOptions {
            overlay,
            ownership,
            limits: Limits::default(),
            media_type: None,
            diff_id: None,
            base_known: false,
        }
    }
}

/// How an archive is unpacked.
#[derive(Clone, Copy, Debug)]
pub struct UnpackOptions<'a> {
    /// Directory below the root that receives the content; made where missing. Relative, `/` between
    /// components; empty for the root itself.
    pub dest: &'a [u8],
    /// Whose files the result holds.
    pub ownership: Ownership,
    /// What the archive may demand.
    pub limits: Limits,
}

/// What was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Bytes of the uncompressed tar.
    pub size: u64,
    /// Entries, extended headers not counted.
    pub entries: u64,
    /// What could not be kept (extended attributes this file system or user cannot set), at most 20.
    pub warnings: Vec<String>,
}

/// Applies the layer `input` to the empty directory `upper`, making it an overlay upper directory.
///
/// Reads `input` to its end. On an error the directory holds part of the layer and has to be removed by
/// the caller. Blocking; decompression runs on a second thread meanwhile.
pub fn apply<R: Read + Send>(
    input: R,
    upper: BorrowedFd<'_>,
    options: &ApplyOptions<'_>,
    parents: &mut ParentLookup<'_>,
) -> Result<Applied> {
    let expected = match options.media_type {
        None => Expected::Layer,
        Some(media_type) => {
            Expected::Exactly(Compression::of_media_type(media_type).ok_or_else(|| {
                let message = format!("layers of the media type {media_type:?} cannot be applied");
                Error::unsupported(message)
            })?)
        }
    };
    // What exists was made by this layer: the handling of whiteouts relies on it.
    let present =
        super::fs::names(upper).map_err(|e| Error::io("cannot list a layer's directory", e))?;
    if let Some(name) = present.first() {
        let name = show(name);
        return Err(Error::invalid(format!(
            "the directory for a layer is not empty: it holds {name}"
        )));
    }
    let applier = Applier {
        root: upper,
        links: Links::Refuse,
        layer: Some(options.overlay),
        dest: b"",
        ownership: options.ownership,
        parents,
        limits: options.limits,
        directories: Directories::default(),
        marked: BTreeSet::new(),
        base_known: options.base_known,
        parent: None,
        unpacked: 0,
        warnings: Vec::new(),
    };
    run(input, expected, options.limits, options.diff_id, applier)
}

/// Extracts the archive `input` into the tree `root`, below `options.dest`.
///
/// Names are taken as they are (no whiteouts). Symbolic links in the tree are followed for parents, as
/// if `root` were `/`. An entry replaces what has its name, but a directory entry keeps the content of a
/// directory. Otherwise like [`apply`].
pub fn unpack<R: Read + Send>(
    input: R,
    root: BorrowedFd<'_>,
    options: &UnpackOptions<'_>,
) -> Result<Applied> {
    let mut none = no_parents;
    let applier = Applier {
        root,
        links: Links::WithinRoot,
        layer: None,
        dest: options.dest,
        ownership: options.ownership,
        parents: &mut none,
        limits: options.limits,
        directories: Directories::default(),
        marked: BTreeSet::new(),
        base_known: false,
        parent: None,
        unpacked: 0,
        warnings: Vec::new(),
    };
    run(input, Expected::Any, options.limits, None, applier)
}

fn run<R: Read + Send>(
    input: R,
    expected: Expected,
    limits: Limits,
    diff_id: Option<DiffId>,
    mut applier: Applier<'_, '_>,
) -> Result<Applied> {
    std::thread::scope(|scope| {
        let (pipe, handle) = start(scope, input, expected, limits);
        let result = applier.archive(pipe);
        let done = match handle.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let entries = result?;
        let Decompressed { diff_id: found, size } =
            done.expect("the pipe was read to its end without an error");
        if let Some(wanted) = diff_id
            && wanted != found
        {
            let message =
                format!("the content of a layer has the digest {found} instead of {wanted}");
            return Err(Error::new(ErrorKind::Mismatch, message));
        }
        applier.finish_directories()?;
        Ok(Applied { diff_id: found, size, entries, warnings: applier.warnings })
    })
}

/// Mode and time that a directory gets at the end.
#[derive(Clone, Copy)]
struct Pending {
    mode: u32,
    mtime: Option<i64>,
}

/// What is known of directories until the end, and how much memory that takes.
#[derive(Default)]
struct Directories {
    pending: BTreeMap<Vec<u8>, Pending>,
    bytes: usize,
}

impl Directories {
    /// Memory of one directory besides its path, about.
    const EACH: usize = 80;

    fn set(&mut self, at: &[u8], pending: Pending, limit: usize) -> Result<()> {
        if let Some(known) = self.pending.get_mut(at) {
            *known = pending;
            return Ok(());
        }
        self.account(at, limit)?;
        self.pending.insert(at.to_vec(), pending);
        Ok(())
    }

    /// Counts the memory of what is remembered of a directory.
    fn account(&mut self, at: &[u8], limit: usize) -> Result<()> {
        self.bytes += at.len() + Self::EACH;
        if self.bytes > limit {
            return Err(Error::limit(format!(
                "the directories of the archive take more than {limit} bytes of memory"
            )));
        }
        Ok(())
    }

    /// Forgets a directory and all below it.
    fn forget(&mut self, at: &[u8]) {
        let below = join(at, b"");
        let known = self.pending.range(below.clone()..).map(|(path, _)| path);
        let gone: Vec<Vec<u8>> =
            known.take_while(|path| path.starts_with(&below)).cloned().collect();
        for path in gone.iter().map(Vec::as_slice).chain([at]) {
            if self.pending.remove(path).is_some() {
                self.bytes -= path.len() + Self::EACH;
            }
        }
    }
}

struct Applier<'a, 'p> {
    root: BorrowedFd<'a>,
    links: Links,
    /// Set when whiteouts are interpreted.
    layer: Option<OverlayKind>,
    dest: &'a [u8],
    ownership: Ownership,
    parents: &'a mut ParentLookup<'p>,
    limits: Limits,
    directories: Directories,
    /// Directories in which whiteouts were made; see [`Applier::drop_idle_whiteouts`].
    marked: BTreeSet<Vec<u8>>,
    base_known: bool,
    /// The directory of the last entry; the next one is mostly there too.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    unpacked: u64,
    warnings: Vec<String>,
}

/// What an entry's path says.
#[derive(Debug, PartialEq, Eq)]
enum Name {
    Root,
    Normal {
        parent: Vec<u8>,
        name: Vec<u8>,
    },
    Whiteout {
        parent: Vec<u8>,
        name: Vec<u8>,
    },
    Opaque {
        parent: Vec<u8>,
    },
    /// Metadata of AUFS that old images carry.
    Ignored,
}

/// Components of a path; `.` and empty ones dropped, `..` refused.
fn components(at: &[u8]) -> Result<Vec<&[u8]>> {
    let parts: Vec<&[u8]> =
        at.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err(Error::invalid(format!("the archive holds {}, which leads upwards", show(at))));
    }
    if parts.contains(&&b""[..]) || at.contains(&0) {
        return Err(Error::invalid(format!("the archive holds the name {} with NUL", show(at))));
    }
    if parts.len() > MAX_DEPTH {
        let at = show(at);
        return Err(Error::limit(format!("{at} is nested deeper than {MAX_DEPTH} directories")));
    }
    if parts.iter().any(|part| part.len() > 255) {
        return Err(Error::limit(format!("{} has a part of more than 255 bytes", show(at))));
    }
    Ok(parts)
}

fn name_of(at: &[u8], dest: &[u8], whiteouts: bool) -> Result<Name> {
    let parts = components(at)?;
    let Some((last, parents)) = parts.split_last() else { return Ok(Name::Root) };
    let mut parent = dest.to_vec();
    for part in parents {
        if !parent.is_empty() {
            parent.push(b'/');
        }
        parent.extend_from_slice(part);
    }
    let name = last.to_vec();
    if !whiteouts {
        return Ok(Name::Normal { parent, name });
    }
    if parts.iter().any(|part| matches!(*part, b".wh..wh.plnk" | b".wh..wh.aufs" | b".wh..wh.orph"))
    {
        return Ok(Name::Ignored);
    }
    if parents.iter().any(|part| part.starts_with(b".wh.")) {
        let at = show(at);
        return Err(Error::invalid(format!("the layer holds {at}, which lies below a whiteout")));
    }
    match last.strip_prefix(b".wh.") {
        None => Ok(Name::Normal { parent, name }),
        Some(b".wh..opq") => Ok(Name::Opaque { parent }),
        Some(hidden)
            if hidden.is_empty()
                || hidden == b"."
                || hidden == b".."
                || hidden.starts_with(b".wh.") =>
        {
            Err(Error::invalid(format!(
                "the layer holds {}, which hides no possible name",
                show(at)
            )))
        }
        Some(hidden) => Ok(Name::Whiteout { parent, name: hidden.to_vec() }),
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

const LITTLE_ROOM: &str = "some file systems have little room for the attributes of one file, however \
     much is free: ext4 one block, btrfs and xfs more; or the disk is full";

fn failed(verb: &str, at: &[u8], error: Errno) -> Error {
    let message = format!("cannot {verb} {} while an archive is unpacked", show(at));
    let error_text = Error::io(message, error);
    match (verb, error) {
        ("change the owner of", Errno::INVAL | Errno::PERM) => error_text.hint(
            "this user may not give files to that owner; run as root, or give the user more subordinate \
             ids in /etc/subuid and /etc/subgid",
        ),
        ("make the device", Errno::PERM) => {
            error_text.hint("device nodes need root outside of a user namespace")
        }
        _ => error_text,
    }
}

impl Applier<'_, '_> {
    fn archive(&mut self, input: impl Read) -> Result<u64> {
        let mut tar = TarReader::new(input, self.limits.tar);
        let mut entries = 0;
        while let Some(entry) = tar.next_entry()? {
            entries += 1;
            if entries > self.limits.entries {
                let limit = self.limits.entries;
                return Err(Error::limit(format!("the archive has more than {limit} entries")));
            }
            self.unpacked = self.unpacked.saturating_add(entry.size);
            if self.unpacked > self.limits.unpacked {
                let limit = self.limits.unpacked;
                return Err(Error::limit(format!(
                    "the archive holds more than {limit} bytes of files"
                )));
            }
            self.entry(&entry, &mut tar)?;
        }
        tar.drain()?;
        Ok(entries)
    }

    fn entry<R: Read>(&mut self, entry: &Entry, tar: &mut TarReader<R>) -> Result<()> {
        match name_of(&entry.path, self.dest, self.layer.is_some())? {
            Name::Ignored => Ok(()),
            Name::Root => self.root_entry(entry),
            Name::Normal { parent, name } => {
                let dir = self.parent(&parent, entry.mtime)?;
                self.normal(entry, tar, &dir, &parent, &name)
            }
            Name::Whiteout { parent, name } => {
                self.check_marker(entry)?;
                let dir = self.parent(&parent, entry.mtime)?;
                self.whiteout(&dir, &parent, &name)
            }
            Name::Opaque { parent } => {
                self.check_marker(entry)?;
                if parent.is_empty() {
                    // overlayfs reads no mark on the root of an upper directory.
                    let message = "the layer hides everything below it";
                    return Err(Error::unsupported(message).hint(
                        "flatten the image with another tool, so that its first layer is this one",
                    ));
                }
                let dir = self.parent(&parent, entry.mtime)?;
                self.set_opaque(dir.as_fd(), &parent)
            }
        }
    }

    /// Whiteouts are empty files; AUFS made them hard links.
    fn check_marker(&self, entry: &Entry) -> Result<()> {
        match entry.kind {
            EntryKind::File | EntryKind::HardLink(_) => Ok(()),
            ref other => {
                let (noun, at) = (other.noun(), show(&entry.path));
                Err(Error::invalid(format!("the whiteout {at} is a {noun} instead of a file")))
            }
        }
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<()> {
        if !matches!(entry.kind, EntryKind::Directory) {
            let noun = entry.kind.noun();
            return Err(Error::invalid(format!(
                "the archive replaces the root directory by a {noun}"
            )));
        }
        if self.layer.is_none() {
            // The destination keeps what it is.
            return Ok(());
        }
        self.own_fd(self.root, entry.uid, entry.gid, b".")?;
        self.set_fd_xattrs(self.root, entry.xattrs.iter(), b".")?;
        let pending = Pending { mode: entry.mode, mtime: Some(entry.mtime) };
        self.directories.set(b"", pending, self.limits.directories)
    }

    /// The directory `at`, made with its parents where missing.
    fn parent(&mut self, at: &[u8], near: i64) -> Result<Rc<OwnedFd>> {
        if let Some((known, fd)) = &self.parent
            && known == at
        {
            return Ok(Rc::clone(fd));
        }
        let fd = match open_dir(self.root, at, self.links) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(at, near)?,
            Err(error) => return Err(self.parent_error(at, error)),
        };
        let fd = Rc::new(fd);
        self.parent = Some((at.to_vec(), Rc::clone(&fd)));
        Ok(fd)
    }

    fn parent_error(&self, at: &[u8], error: Errno) -> Error {
        match error {
            Errno::LOOP if self.links == Links::Refuse => {
                let at = show(at);
                Error::invalid(format!("the layer writes through {at}, which is a symbolic link"))
            }
            Errno::NOTDIR => {
                let at = show(at);
                Error::invalid(format!("the archive uses {at} as a directory, but it is none"))
            }
            other => failed("open the directory", at, other),
        }
    }

    fn make_parents(&mut self, at: &[u8], near: i64) -> Result<OwnedFd> {
        let mut dir = open_dir(self.root, b"", self.links).map_err(|e| failed("open", b".", e))?;
        let mut start = 0;
        loop {
            let end =
                at[start..].iter().position(|b| *b == b'/').map_or(at.len(), |slash| start + slash);
            let (prefix, name) = (&at[..end], &at[start..end]);
            dir = match open_dir(self.root, prefix, self.links) {
                Ok(next) => next,
                Err(Errno::NOENT) => self.new_parent(&dir, prefix, name, false, near)?,
                Err(Errno::NOTDIR) if self.layer.is_some() && self.is_whiteout_at(&dir, name) => {
                    rustix::fs::unlinkat(&dir, path(name), AtFlags::empty())
                        .map_err(|e| failed("replace", prefix, e))?;
                    self.new_parent(&dir, prefix, name, true, near)?
                }
                Err(error) => return Err(self.parent_error(prefix, error)),
            };
            if end == at.len() {
                return Ok(dir);
            }
            start = end + 1;
        }
    }

    /// Makes a directory that the archive does not hold. `fresh`: what lies below was deleted by this
    /// layer, so it starts anew.
    fn new_parent(
        &mut self,
        dir: &OwnedFd,
        at: &[u8],
        name: &[u8],
        fresh: bool,
        near: i64,
    ) -> Result<OwnedFd> {
        let make = rustix::fs::mkdirat(dir, path(name), Mode::from_raw_mode(0o700));
        make.map_err(|e| failed("make the directory", at, e))?;
        let fd = open_child(dir.as_fd(), name).map_err(|e| failed("open", at, e))?;
        let found = if fresh { None } else { (self.parents)(at)? };
        if fresh {
            self.set_opaque(fd.as_fd(), at)?;
        }
        let meta = found.unwrap_or(ParentMeta {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: near,
            xattrs: Vec::new(),
        });
        self.own_fd(fd.as_fd(), meta.uid, meta.gid, at)?;
        self.set_fd_xattrs(fd.as_fd(), meta.xattrs.iter().map(|(n, v)| (n, v)), at)?;
        // Outside of layers the time is that of the build, as for any directory made by a step.
        let mtime = self.layer.map(|_| meta.mtime);
        let pending = Pending { mode: meta.mode, mtime };
        self.directories.set(at, pending, self.limits.directories)?;
        Ok(fd)
    }

    fn is_whiteout_at(&self, dir: &OwnedFd, name: &[u8]) -> bool {
        rustix::fs::statat(dir, path(name), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| is_whiteout(&stat))
    }

    fn normal<R: Read>(
        &mut self,
        entry: &Entry,
        tar: &mut TarReader<R>,
        dir: &OwnedFd,
        parent: &[u8],
        name: &[u8],
    ) -> Result<()> {
        let at = &join(parent, name);
        if let EntryKind::Directory = entry.kind {
            return self.directory(entry, dir, at, name);
        }
        if let EntryKind::HardLink(target) = &entry.kind {
            return self.hard_link(target, dir, at, name);
        }
        if let EntryKind::CharDevice { major: 0, minor: 0 } = entry.kind {
            let at = show(at);
            return Err(Error::invalid(format!(
                "the archive holds {at}, a device that means deletion"
            )));
        }
        if let EntryKind::File = entry.kind {
            return self.file(entry, tar, dir, at, name);
        }
        let made = path(name);
        let mode = Mode::from_raw_mode(0o600);
        let device = |kind: FileType, (major, minor): (u32, u32)| {
            let make =
                || rustix::fs::mknodat(dir, made, kind, mode, rustix::fs::makedev(major, minor));
            (make(), "make the device")
        };
        let make = || match &entry.kind {
            EntryKind::Symlink(target) => {
                (rustix::fs::symlinkat(path(target), dir, made), "make the link")
            }
            EntryKind::CharDevice { major, minor } => {
                device(FileType::CharacterDevice, (*major, *minor))
            }
            EntryKind::BlockDevice { major, minor } => {
                device(FileType::BlockDevice, (*major, *minor))
            }
            EntryKind::Fifo => (rustix::fs::mkfifoat(dir, made, mode), "make the pipe"),
            EntryKind::File | EntryKind::Directory | EntryKind::HardLink(_) => {
                unreachable!("handled above")
            }
        };
        let (mut result, verb) = make();
        if result == Err(Errno::EXIST) {
            self.clear(dir, at, name)?;
            result = make().0;
        }
        result.map_err(|e| failed(verb, at, e))?;
        let fail = |verb| move |e| failed(verb, at, e);
        if let Some((uid, gid)) = self.owner(entry.uid, entry.gid) {
            rustix::fs::chownat(dir, made, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(fail("change the owner of"))?;
        }
        for (key, value) in entry.xattrs.iter().filter(|(key, _)| travels(key)) {
            let result = set_child_xattr(dir.as_fd(), name, key, value);
            self.xattr_result(result, key, at)?;
        }
        if !matches!(entry.kind, EntryKind::Symlink(_)) {
            // It was made just now and is no link, so this follows nothing.
            rustix::fs::chmodat(dir, made, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(fail("change the mode of"))?;
        }
        rustix::fs::utimensat(dir, made, &mtime(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(fail("change the time of"))
    }

    fn directory(&mut self, entry: &Entry, dir: &OwnedFd, at: &[u8], name: &[u8]) -> Result<()> {
        let private = Mode::from_raw_mode(0o700);
        let mut fresh = false;
        let mut again = false;
        match rustix::fs::mkdirat(dir, path(name), private) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(dir, path(name), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| failed("read", at, e))?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    again = true;
                } else {
                    fresh = self.layer.is_some() && is_whiteout(&stat);
                    self.clear(dir, at, name)?;
                    rustix::fs::mkdirat(dir, path(name), private)
                        .map_err(|e| failed("make the directory", at, e))?;
                }
            }
            Err(error) => return Err(failed("make the directory", at, error)),
        }
        let fd = open_child(dir.as_fd(), name).map_err(|e| failed("open", at, e))?;
        if fresh {
            self.set_opaque(fd.as_fd(), at)?;
        }
        self.own_fd(fd.as_fd(), entry.uid, entry.gid, at)?;
        if again && self.layer.is_some() {
            // The last entry wins with all it says, attributes included.
            let stale = |name: &[u8]| travels(name) && !entry.xattrs.contains_key(name);
            for (key, _) in fd_xattrs(fd.as_fd(), stale).map_err(|e| failed("read", at, e))? {
                rustix::fs::fremovexattr(&fd, path(&key)).map_err(|e| failed("change", at, e))?;
            }
        }
        self.set_fd_xattrs(fd.as_fd(), entry.xattrs.iter(), at)?;
        let pending = Pending { mode: entry.mode, mtime: Some(entry.mtime) };
        self.directories.set(at, pending, self.limits.directories)
    }

    fn file<R: Read>(
        &mut self,
        entry: &Entry,
        tar: &mut TarReader<R>,
        dir: &OwnedFd,
        at: &[u8],
        name: &[u8],
    ) -> Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(dir, path(name), flags, Mode::from_raw_mode(0o600));
        let fd = match open() {
            Err(Errno::EXIST) => {
                self.clear(dir, at, name)?;
                open()
            }
            other => other,
        };
        let file = File::from(fd.map_err(|e| failed("make the file", at, e))?);
        let wrote =
            |e| Error::io(format!("cannot write {} while an archive is unpacked", show(at)), e);
        let mut buffer = [0; 64 << 10];
        match &entry.sparse {
            None => loop {
                let got = tar.read_data(&mut buffer)?;
                if got == 0 {
                    break;
                }
                (&file).write_all(&buffer[..got]).map_err(wrote)?;
            },
            Some(map) => {
                // The reader has checked the map against the data and the size.
                for (offset, length) in map {
                    let (mut offset, mut left) = (*offset, *length);
                    while left > 0 {
                        let want =
                            usize::try_from(left).map_or(buffer.len(), |l| l.min(buffer.len()));
                        let got = tar.read_data(&mut buffer[..want])?;
                        file.write_all_at(&buffer[..got], offset).map_err(wrote)?;
                        offset += got as u64;
                        left -= got as u64;
                    }
                }
                rustix::fs::ftruncate(&file, entry.size).map_err(|e| failed("extend", at, e))?;
            }
        }
        self.own_fd(file.as_fd(), entry.uid, entry.gid, at)?;
        self.set_fd_xattrs(file.as_fd(), entry.xattrs.iter(), at)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode))
            .map_err(|e| failed("change the mode of", at, e))?;
        rustix::fs::futimens(&file, &mtime(entry.mtime))
            .map_err(|e| failed("change the time of", at, e))
    }

    fn hard_link(&mut self, target: &[u8], dir: &OwnedFd, at: &[u8], name: &[u8]) -> Result<()> {
        let absent = || {
            let (at, target) = (show(at), show(target));
            Error::invalid(format!(
                "the hard link {at} leads to {target}, which the archive does not hold"
            ))
        };
        let Name::Normal { parent, name: target_name } =
            name_of(target, self.dest, self.layer.is_some())?
        else {
            return Err(absent());
        };
        // Never makes a directory: the target has to be there already.
        let from = open_dir(self.root, &parent, self.links).map_err(|e| match e {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => absent(),
            other => failed("open the directory", &parent, other),
        })?;
        let stat = match rustix::fs::statat(&from, path(&target_name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Err(absent()),
            Err(error) => return Err(failed("read", target, error)),
        };
        if is_whiteout(&stat) {
            return Err(absent());
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let at = show(at);
            return Err(Error::invalid(format!("the hard link {at} leads to a directory")));
        }
        let link =
            || rustix::fs::linkat(&from, path(&target_name), dir, path(name), AtFlags::empty());
        let mut result = link();
        if result == Err(Errno::EXIST) {
            let there = rustix::fs::statat(dir, path(name), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| failed("read", at, e))?;
            if (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino) {
                // A link to itself, or said twice.
                return Ok(());
            }
            self.clear(dir, at, name)?;
            result = link();
        }
        result.map_err(|e| {
            if e == Errno::NOENT { absent() } else { failed("make the hard link", at, e) }
        })
    }

    /// Hides `name` of the layers below. What this layer itself puts there stays (layer.md,
    /// "Whiteouts": they apply to lower layers only), and hides a file by being there.
    fn whiteout(&mut self, dir: &OwnedFd, parent: &[u8], name: &[u8]) -> Result<()> {
        let at = &join(parent, name);
        match rustix::fs::statat(dir, path(name), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let fd = open_child(dir.as_fd(), name).map_err(|e| failed("open", at, e))?;
                self.set_opaque(fd.as_fd(), at)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                let mode = Mode::empty();
                rustix::fs::mknodat(dir, path(name), FileType::CharacterDevice, mode, 0)
                    .map_err(|e| failed("make the whiteout of", at, e))?;
                self.mark(parent)
            }
            Err(error) => Err(failed("read", at, error)),
        }
    }

    /// Notes a directory with a whiteout.
    fn mark(&mut self, parent: &[u8]) -> Result<()> {
        if !self.marked.contains(parent) {
            self.directories.account(parent, self.limits.directories)?;
            self.marked.insert(parent.to_vec());
        }
        Ok(())
    }

    /// Removes whiteouts that have nothing to hide: those in a directory that is opaque, or lies in one,
    /// or has no counterpart below. Overlayfs reads such a directory as it is, and a whiteout in it is a
    /// name that is listed and cannot be opened.
    fn drop_idle_whiteouts(&mut self) -> Result<()> {
        for at in std::mem::take(&mut self.marked) {
            // Another entry may have taken its place.
            let Ok(dir) = open_dir(self.root, &at, Links::Refuse) else { continue };
            let alone = self.base_known && !at.is_empty() && (self.parents)(&at)?.is_none();
            if !(alone || self.is_in_opaque(&at)?) {
                continue;
            }
            for name in super::fs::names(dir.as_fd()).map_err(|e| failed("list", &at, e))? {
                if self.is_whiteout_at(&dir, &name) {
                    rustix::fs::unlinkat(&dir, path(&name), AtFlags::empty())
                        .map_err(|e| failed("remove a whiteout from", &at, e))?;
                }
            }
        }
        Ok(())
    }

    /// Whether a directory of the layer, or one that it lies in, is opaque.
    fn is_in_opaque(&self, at: &[u8]) -> Result<bool> {
        let overlay = self.layer.expect("only layers have opaque directories");
        let ends = at.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(end, _)| end);
        for end in ends.chain([at.len()]) {
            let dir = open_dir(self.root, &at[..end], Links::Refuse)
                .map_err(|e| failed("open", &at[..end], e))?;
            let mut value = [0; 2];
            match rustix::fs::fgetxattr(&dir, overlay.opaque_xattr(), &mut value) {
                Ok(1) if value[0] == b'y' => return Ok(true),
                Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => {}
                Err(error) => return Err(failed("read the attributes of", &at[..end], error)),
            }
        }
        Ok(false)
    }

    fn set_opaque(&self, dir: BorrowedFd<'_>, at: &[u8]) -> Result<()> {
        let overlay = self.layer.expect("only layers have opaque directories");
        rustix::fs::fsetxattr(dir, overlay.opaque_xattr(), b"y", XattrFlags::empty())
            .map_err(|e| failed("mark as opaque", at, e))
    }

    /// Makes room for an entry of another kind.
    fn clear(&mut self, dir: &OwnedFd, at: &[u8], name: &[u8]) -> Result<()> {
        self.parent = None;
        self.directories.forget(at);
        remove_tree(dir.as_fd(), name, MAX_DEPTH).map_err(|e| failed("replace", at, e))
    }

    fn finish_directories(&mut self) -> Result<()> {
        self.drop_idle_whiteouts()?;
        // Deepest first: a parent may lose the right to be searched.
        for (at, pending) in self.directories.pending.iter().rev() {
            let fd = open_dir(self.root, at, self.links).map_err(|e| failed("open", at, e))?;
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(pending.mode))
                .map_err(|e| failed("change the mode of", at, e))?;
            if let Some(seconds) = pending.mtime {
                rustix::fs::futimens(&fd, &mtime(seconds))
                    .map_err(|e| failed("change the time of", at, e))?;
            }
        }
        Ok(())
    }

    fn owner(&self, uid: u32, gid: u32) -> Option<(Uid, Gid)> {
        let (uid, gid) = match self.ownership {
            Ownership::Keep => (uid, gid),
            Ownership::Fixed { uid, gid } => (uid, gid),
            Ownership::Ignore => return None,
        };
        Some((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    fn own_fd(&self, fd: BorrowedFd<'_>, uid: u32, gid: u32, at: &[u8]) -> Result<()> {
        match self.owner(uid, gid) {
            None => Ok(()),
            Some((uid, gid)) => rustix::fs::fchown(fd, Some(uid), Some(gid))
                .map_err(|e| failed("change the owner of", at, e)),
        }
    }

    fn set_fd_xattrs<'x>(
        &mut self,
        fd: BorrowedFd<'_>,
        xattrs: impl Iterator<Item = (&'x Vec<u8>, &'x Vec<u8>)>,
        at: &[u8],
    ) -> Result<()> {
        for (key, value) in xattrs.filter(|(key, _)| travels(key)) {
            let result = rustix::fs::fsetxattr(fd, path(key), value, XattrFlags::empty());
            self.xattr_result(result, key, at)?;
        }
        Ok(())
    }

    /// An attribute that cannot exist here is worth a warning; losing it seldom matters, and Docker
    /// goes on too.
    fn xattr_result(
        &mut self,
        result: rustix::io::Result<()>,
        key: &[u8],
        at: &[u8],
    ) -> Result<()> {
        match result {
            Ok(()) => Ok(()),
            Err(error @ (Errno::OPNOTSUPP | Errno::PERM)) => {
                if self.warnings.len() < 20 {
                    let (key, at) = (show(key), show(at));
                    self.warnings
                        .push(format!("the attribute {key} of {at} was not kept: {error}"));
                }
                Ok(())
            }
            // No attribute can have such a name or value: NUL in the name, too long, not in the form
            // that the kernel checks.
            Err(error @ (Errno::INVAL | Errno::RANGE | Errno::TOOBIG)) => {
                let (key, at) = (show(key), show(at));
                let message =
                    format!("the archive gives {at} the attribute {key}, which is malformed");
                Err(Error::invalid(message).because(error))
            }
            Err(error) => {
                let key = show(key);
                let failure = failed(&format!("set the attribute {key} of"), at, error);
                Err(if error == Errno::NOSPC { failure.hint(LITTLE_ROOM) } else { failure })
            }
        }
    }
}
