//! OCI image layouts (image-layout.md) and the archives `docker load` takes.
//!
//! ```text
//! oci-layout               {"imageLayoutVersion":"1.0.0"}
//! index.json               names and manifests
//! manifest.json            docker archives only: Config, RepoTags, Layers
//! blobs/sha256/<hex>       manifests, configs, layers
//! ```
//!
//! [`Layout`] reads a directory, a [`LayoutWriter`] adds to one and removes from it; an [`Export`] is
//! written by [`write_oci_tar`], [`write_oci_dir`] and [`write_docker_tar`]. What is written depends on the export alone: blobs in order of digest, fixed
//! modes and times. Blobs are checked against their digests while they are read or written.

mod change;
mod read;
mod write;

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};
use wbuild_graph::Digest;

pub use change::LayoutWriter;
pub use read::Layout;
pub use write::{
    Export, ExportImage, IndexAnnotations, write_docker_tar, write_oci_dir, write_oci_tar,
};

use crate::error::{Error, ErrorKind, Result};

const LAYOUT_FILE: &str = "oci-layout";
const LAYOUT_TEXT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX_FILE: &str = "index.json";

/// Gives out blobs by digest.
pub trait BlobSource {
    /// Opens a blob for reading from its start. The caller checks what it reads.
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send + '_>>;
}

/// Passes a blob on and fails at its end if it was not the one that was asked for.
struct VerifyingReader<R> {
    inner: R,
    hash: Option<Sha256>,
    want: Digest,
    size: Option<u64>,
    count: u64,
}

impl<R: Read> VerifyingReader<R> {
    fn new(inner: R, want: Digest, size: Option<u64>) -> Self {
        VerifyingReader { inner, hash: Some(Sha256::new()), want, size, count: 0 }
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let got = self.inner.read(buffer)?;
        let fail = |message: String| Error::new(ErrorKind::Mismatch, message).into_io();
        let want = self.want;
        if got > 0 {
            self.count += got as u64;
            if self.size.is_some_and(|size| self.count > size) {
                return Err(fail(format!("the blob {want} is larger than announced")));
            }
            if let Some(hash) = &mut self.hash {
                hash.update(&buffer[..got]);
            }
            return Ok(got);
        }
        if let Some(hash) = self.hash.take() {
            if self.size.is_some_and(|size| self.count != size) {
                return Err(fail(format!("the blob {want} is smaller than announced")));
            }
            let found = Digest::from_bytes(hash.finalize().into());
            if found != want {
                return Err(fail(format!(
                    "the blob {want} is damaged: its content has the digest {found}"
                )));
            }
        }
        Ok(0)
    }
}
