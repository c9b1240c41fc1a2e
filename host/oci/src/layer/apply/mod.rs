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

mod attributes;
mod directories;
mod entries;
mod names;
mod whiteouts;

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;
use wbuild_graph::DiffId;

use self::directories::Directories;
use super::OverlayKind;
use super::decompress::{Decompressed, Limits, start};
use super::entry::show;
use super::format::Expected;
use super::fs::Links;
use super::tar_read::TarReader;
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

fn failed(verb: &str, at: &[u8], error: Errno) -> Error {
    let message = format!("cannot {verb} {} while an archive is unpacked", show(at));
    let hint = match (verb, error) {
        ("change the owner of", Errno::INVAL | Errno::PERM) => {
            "this user may not give files to that owner; run as root, or give the user more subordinate \
             ids in /etc/subuid and /etc/subgid"
        }
        ("make the device", Errno::PERM) => "device nodes need root outside of a user namespace",
        _ => return Error::io(message, error),
    };
    Error::new(ErrorKind::Denied, message).because(std::io::Error::from(error)).hint(hint)
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
}
