//! Large files that a layer names without holding their contents.
//!
//! A copy from a context may leave a large file empty, with its right size: the layer is then good
//! for looking up names, and what is in the file is read from the context, where it still lies, by
//! whoever wants it first. An export can stream it from there, so that it is never written a second
//! time; [`LentFiles::fill`] writes it where the layer is to be mounted or copied from.
//!
//! Invariant: contents are given out only as those that were selected. A file that changed since
//! then is an error, never other contents under the same key.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::file::{self, DataError};
use crate::content::{Node, Sha};
use crate::digest::layer_nodes_digest;
use crate::error::{Result, TreeError};
use crate::par::{self, Work};
use crate::path::RelPath;
use crate::root::{Links, Root, open_beneath, stat_fd};
use crate::stat::{Kind, Stat};
use crate::xattr::XattrKind;
use wbuild_graph::ContentDigest;

/// A file whose contents lie in the context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LentFile {
    /// Where, in the context.
    pub source: RelPath,
    /// Bytes.
    pub size: u64,
    /// What they have to be.
    pub sha256: Sha,
}

/// The lent files of a layer, by path in the layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LentFiles(BTreeMap<RelPath, LentFile>);

impl LentFiles {
    /// Whether the layer holds everything itself.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, path: RelPath, file: LentFile) {
        self.0.insert(path, file);
    }

    /// Forgets what a later part of the copy has replaced: small files are never lent, so one of
    /// the same size is the one that was lent.
    pub(super) fn settle(&mut self, upper: &Root) -> Result<()> {
        let mut gone = Vec::new();
        for (path, lent) in &self.0 {
            let there = upper.stat(path, Links::Refuse)?;
            if there.is_none_or(|stat| stat.kind != Kind::File || stat.size != lent.size) {
                gone.push(path.clone());
            }
        }
        for path in gone {
            self.0.remove(&path);
        }
        Ok(())
    }

    /// Opens the contents of the file at `path` of the layer; none if the layer holds them.
    ///
    /// # Errors
    /// The file is no longer in the context or cannot be read. That it has changed shows at the end
    /// of reading: an error of kind [`io::ErrorKind::InvalidData`] around [`TreeError::Changed`].
    pub fn open(&self, path: &RelPath, context: &Root) -> Result<Option<LentReader>> {
        let Some(lent) = self.0.get(path) else { return Ok(None) };
        let (fd, _) = open_lent(context, lent)?;
        Ok(Some(LentReader {
            file: File::from(fd),
            left: lent.size,
            hash: Some(Sha256::new()),
            wanted: lent.sha256,
            changed: Some(changed(context, &lent.source)),
        }))
    }

    /// Writes the contents into the files of the layer `upper`, which then lacks nothing.
    ///
    /// # Errors
    /// A file has changed since it was selected, or the system refuses.
    pub fn fill(&self, upper: &Root, context: &Root, work: &Work) -> Result<()> {
        let mut files: Vec<_> = self.0.iter().collect();
        par::for_each_piece(work, &mut files, 1, Vec::new, |buffer, piece| {
            for (path, lent) in piece {
                fill(upper, context, path, lent, buffer, work)?;
            }
            Ok(())
        })
    }

    /// The digest of the layer `upper` as it is once it is filled.
    ///
    /// # Errors
    /// As for [`crate::digest::layer_digest`].
    pub fn layer_digest(
        &self,
        upper: &Root,
        kind: XattrKind,
        work: &Work,
    ) -> Result<ContentDigest> {
        let known = |node: &mut Node| {
            if let Some(lent) = self.0.get(&node.path) {
                node.sha256 = Some(lent.sha256);
            }
        };
        Ok(layer_nodes_digest(&crate::digest::load_layer(upper, kind, known, true, work)?))
    }
}

/// Opens a file that looks like the one that was lent.
fn open_lent(context: &Root, lent: &LentFile) -> Result<(OwnedFd, Stat)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = open_beneath(context.as_fd(), lent.source.as_bytes(), flags, Links::Refuse)
        .and_then(|fd| stat_fd(fd.as_fd()).map(|stat| (fd, stat)));
    match opened {
        Ok((_, stat)) if stat.kind != Kind::File || stat.size != lent.size => {
            Err(changed(context, &lent.source))
        }
        Ok(opened) => Ok(opened),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => {
            Err(changed(context, &lent.source))
        }
        Err(errno) => Err(context.error("open", lent.source.as_bytes(), errno)),
    }
}

fn changed(context: &Root, path: &RelPath) -> TreeError {
    TreeError::Changed { path: path.to_string(), place: context.place().to_owned() }
}

fn fill(
    upper: &Root,
    context: &Root,
    path: &RelPath,
    lent: &LentFile,
    buffer: &mut Vec<u8>,
    work: &Work,
) -> Result<()> {
    let (from, stat) = open_lent(context, lent)?;
    let fail = |errno| upper.error("write", path.as_bytes(), errno);
    let there = upper
        .stat(path, Links::Refuse)?
        .filter(|stat| stat.kind == Kind::File && stat.size == lent.size)
        .ok_or_else(|| fail(Errno::NOENT))?;
    // Every name on the way is a directory of a layer that only we write to.
    let mode = |mode| {
        let mode = Mode::from_raw_mode(mode);
        rustix::fs::chmodat(upper.as_fd(), path.as_bytes(), mode, AtFlags::empty()).map_err(fail)
    };
    // Its owner may have no right to write to it.
    let closed = there.mode & 0o200 == 0;
    if closed {
        mode(there.mode | 0o200)?;
    }
    let flags = OFlags::WRONLY;
    let to = open_beneath(upper.as_fd(), path.as_bytes(), flags, Links::Refuse).map_err(fail)?;
    let wanted = Some(&lent.sha256);
    let copied = file::copy_data(from.as_fd(), to.as_fd(), &stat, wanted, buffer, &work.cancel);
    copied.map_err(|error| match error {
        DataError::Read(errno) => context.error("read", lent.source.as_bytes(), errno),
        DataError::Write(errno) => fail(errno),
        DataError::Changed => changed(context, &lent.source),
        DataError::Cancelled => TreeError::Cancelled,
    })?;
    drop(to);
    // Writing has taken set-id bits, and the time.
    if closed || there.mode & 0o7000 != 0 {
        mode(there.mode)?;
    }
    let times = file::timestamps(there.mtime);
    rustix::fs::utimensat(upper.as_fd(), path.as_bytes(), &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(fail)
}

/// Reads a lent file, and fails at its end if it was not what was selected.
#[derive(Debug)]
pub struct LentReader {
    file: File,
    left: u64,
    hash: Option<Sha256>,
    wanted: Sha,
    changed: Option<TreeError>,
}

impl LentReader {
    fn changed(&mut self) -> io::Error {
        match self.changed.take() {
            Some(error) => io::Error::new(io::ErrorKind::InvalidData, error),
            None => io::ErrorKind::InvalidData.into(),
        }
    }
}

impl Read for LentReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.hash.is_none() || buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).map_or(buffer.len(), |l| l.min(buffer.len()));
        let got = self.file.read(&mut buffer[..most])?;
        let hash = self.hash.as_mut().expect("looked at above");
        hash.update(&buffer[..got]);
        self.left -= got as u64;
        if got > 0 && self.left > 0 {
            return Ok(got);
        }
        let hash = self.hash.take().expect("looked at above");
        let sha: Sha = hash.finalize().into();
        if self.left > 0 || sha != self.wanted || self.file.read(&mut [0])? > 0 {
            return Err(self.changed());
        }
        Ok(got)
    }
}
