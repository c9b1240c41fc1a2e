//! A blob that goes into a file.

use std::fs::File;
use std::io::{self, Seek, Write};

use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use wbuild_graph::Digest;

use super::BlobSink;

/// Writes a blob into a file that was empty, and hashes it on the way.
pub struct FileSink {
    file: File,
    hash: Sha256,
    size: u64,
}

impl FileSink {
    /// `file` is empty and open for writing.
    pub fn new(file: File) -> Self {
        FileSink { file, hash: Sha256::new(), size: 0 }
    }

    /// The file, at its end.
    pub fn into_file(self) -> File {
        self.file
    }
}

#[async_trait]
impl BlobSink for FileSink {
    fn size(&self) -> u64 {
        self.size
    }

    async fn write(&mut self, data: Bytes) -> io::Result<()> {
        self.file.write_all(&data)?;
        self.hash.update(&data);
        self.size += data.len() as u64;
        Ok(())
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.file.rewind()?;
        self.file.set_len(0)?;
        (self.hash, self.size) = (Sha256::new(), 0);
        Ok(())
    }

    async fn digest(&mut self) -> io::Result<Digest> {
        Ok(Digest::from_bytes(self.hash.clone().finalize().into()))
    }
}
