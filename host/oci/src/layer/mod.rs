//! Layers: file system change sets as tar archives (OCI image specification, layer.md).
//!
//! - [`LayerBuilder`] streams entries into a compressed layer, hashing both sides in one pass;
//!   [`write_upper`] feeds it from an overlay upper directory.
//! - [`apply`] makes an overlay upper directory from a layer; [`unpack`] extracts an ordinary archive
//!   into a tree (`ADD`).
//!
//! Invariants: memory is bounded whatever the layer; nothing outside the given directory is touched
//! whatever the archive; the bytes written depend on the entries and options alone, never on threads
//! or directory order.

mod apply;
mod archive;
mod compare;
mod compress;
mod decompress;
mod entry;
mod format;
mod fs;
mod recompress;
mod tar_read;
mod tar_write;
mod write;

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};
use wbuild_graph::{BlobDigest, DiffId, Digest};

pub use apply::{
    Applied, ApplyOptions, Ownership, ParentLookup, ParentMeta, UnpackOptions, apply, no_parents,
    unpack,
};
pub use archive::{LOOK, is_archive, looks_like_archive};
pub use compare::{FileLookup, differences};
pub use compress::{CompressOptions, Compressor};
pub use decompress::Limits;
pub use entry::{Entry, EntryKind};
pub use recompress::recompress;
pub use tar_read::{TarLimits, TarReader};
pub use tar_write::TarWriter;
pub use write::{Contents, Skip, WriteOptions, write_upper};

use crate::error::{Error, Result};
use crate::media::{Compression, Descriptor, MediaFamily};

/// Deepest directory nesting that is written or applied. Each level costs one open file.
pub const MAX_DEPTH: usize = 512;

/// Which extended attributes an overlay file system keeps its marks in. One state directory uses one
/// kind: marks of the other kind have no effect in a mount and would bring deleted files back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OverlayKind {
    /// `trusted.overlay.*`, for mounts made with privilege.
    Trusted,
    /// `user.overlay.*`, for mounts with the option `userxattr`.
    User,
}

impl OverlayKind {
    /// The attribute that makes a directory opaque when it is `y`.
    pub const fn opaque_xattr(self) -> &'static str {
        match self {
            OverlayKind::Trusted => "trusted.overlay.opaque",
            OverlayKind::User => "user.overlay.opaque",
        }
    }
}

/// Whether an extended attribute belongs to overlayfs and never to an image.
pub(crate) fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Whether an extended attribute travels in images: capabilities, ACLs, and what users set. Labels
/// of the host's own security modules do not.
pub(crate) fn travels(name: &[u8]) -> bool {
    !is_overlay_xattr(name)
        && (name == b"security.capability"
            || name == b"system.posix_acl_access"
            || name == b"system.posix_acl_default"
            || name.starts_with(b"user.")
            || name.starts_with(b"trusted."))
}

/// A finished layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Bytes of the uncompressed tar.
    pub uncompressed: u64,
    /// Digest of the blob as written.
    pub digest: BlobDigest,
    /// Bytes of the blob as written.
    pub size: u64,
    /// Compression, hence media type.
    pub compression: Compression,
}

impl LayerBlob {
    /// The descriptor to put into a manifest of `family`.
    pub fn descriptor(&self, family: MediaFamily) -> Descriptor {
        let media_type = match family {
            MediaFamily::Oci => self.compression.oci_layer(),
            MediaFamily::Docker => self.compression.docker_layer(),
        };
        Descriptor::new(media_type, self.digest.0, self.size)
    }
}

/// Hashes and counts what passes through.
pub(crate) struct HashWriter<W> {
    inner: W,
    /// None: counts only.
    hash: Option<Sha256>,
    count: u64,
}

impl<W> HashWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        HashWriter { inner, hash: Some(Sha256::new()), count: 0 }
    }

    /// Behind the compressor of a layer. What is not compressed is known by the digest that its tar
    /// has anyway.
    pub(crate) fn outside(inner: W, compression: Compression) -> Self {
        let hash = (compression != Compression::None).then(Sha256::new);
        HashWriter { inner, hash, count: 0 }
    }

    /// What was written to, the digest unless nothing was hashed, and the number of bytes.
    pub(crate) fn finish(self) -> (W, Option<Digest>, u64) {
        (self.inner, self.hash.map(|hash| Digest::from_bytes(hash.finalize().into())), self.count)
    }
}

impl<W: Write> Write for HashWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(data)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&data[..written]);
        }
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Streams entries into a layer blob: tar, compression and both digests in one pass.
pub struct LayerBuilder<W: Write> {
    tar: TarWriter<HashWriter<Compressor<HashWriter<W>>>>,
    compression: Compression,
}

impl<W: Write> LayerBuilder<W> {
    /// An empty layer that will be written to `out`.
    pub fn new(out: W, options: &CompressOptions) -> Result<Self> {
        let out = HashWriter::outside(out, options.compression);
        let compressor = Compressor::new(out, options)
            .map_err(|e| Error::io("cannot set up the compressor of a layer", e))?;
        Ok(LayerBuilder {
            tar: TarWriter::new(HashWriter::new(compressor)),
            compression: options.compression,
        })
    }

    /// Appends an entry; see [`TarWriter::append`]. The caller keeps the order of layers: sorted,
    /// each path once, directories before what is in them, files before their hard links.
    pub fn append(&mut self, entry: &Entry, data: Option<&mut dyn Read>) -> Result<()> {
        self.tar.append(entry, data)
    }

    /// Ends the layer; gives back what was written to and what it now holds.
    pub fn finish(self) -> Result<(W, LayerBlob)> {
        let failed = |e| Error::io("cannot write the end of a layer", e);
        let (compressor, diff_id, uncompressed) = self.tar.finish()?.finish();
        let (mut out, digest, size) = compressor.finish().map_err(failed)?.finish();
        out.flush().map_err(failed)?;
        let diff_id = diff_id.expect("the tar is always hashed");
        let blob = LayerBlob {
            diff_id: DiffId(diff_id),
            uncompressed,
            digest: BlobDigest(digest.unwrap_or(diff_id)),
            size,
            compression: self.compression,
        };
        Ok((out, blob))
    }
}
