//! The content store as a cache backend sees it.

use super::shelf::Shelf;
use wbuild_api::extension::{BlobInfo, BlobsCap};
use wbuild_graph::{BlobDigest, Digest, Failure, FailureKind};

/// The most one read of a blob returns.
const READ: u32 = 1 << 20;
/// The largest small blob.
const SMALL: usize = 4 << 20;

/// The content store as a plugin sees it.
pub(super) struct StoreBlobs {
    pub(super) shelf: Shelf,
}

impl BlobsCap for StoreBlobs {
    fn open(&self, digest: Digest) -> Option<BlobInfo> {
        let blob = self.shelf.open(&digest).ok()??;
        let media_type = "application/octet-stream".to_owned();
        Some(BlobInfo { digest: blob.digest, size: blob.size, media_type })
    }

    fn read(&self, digest: Digest, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        use std::os::unix::fs::FileExt as _;
        let gone = || Failure::new(FailureKind::Gone, format!("the blob {digest} is not here"));
        let blob = self.shelf.open(&digest)?.ok_or_else(gone)?;
        let rest = blob.size.saturating_sub(offset);
        let length = u64::from(length.min(READ)).min(rest);
        let mut data = vec![0; usize::try_from(length).expect("at most 1 MiB")];
        blob.file
            .read_exact_at(&mut data, offset)
            .map_err(|e| Failure::internal(format!("cannot read the blob {digest}")).cause(&e))?;
        Ok(data)
    }

    fn write_small(&self, media_type: String, data: Vec<u8>) -> Result<BlobInfo, Failure> {
        if data.len() > SMALL {
            let message = format!("a small blob has at most {SMALL} bytes, not {}", data.len());
            return Err(Failure::new(FailureKind::Limit, message));
        }
        let digest = BlobDigest(self.shelf.write(&data)?);
        Ok(BlobInfo { digest, size: data.len() as u64, media_type })
    }
}
