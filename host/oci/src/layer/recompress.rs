//! The same layer in another compression.

use std::io::{self, Read, Write};

use wbuild_graph::{BlobDigest, DiffId};

use super::compress::{CompressOptions, Compressor};
use super::decompress::{Decompressed, Limits, start};
use super::format::Expected;
use super::{HashWriter, LayerBlob};
use crate::error::{Error, Result};
use crate::media::Compression;

/// Compresses the layer `input` anew into `out`. The tar inside stays what it is, byte for byte, and
/// is checked against `diff_id`; decompression is limited by [`Limits::default`].
///
/// # Errors
///
/// `input` is not of its `media_type`, not the layer `diff_id`, or too large; reading or writing fails.
pub fn recompress<R: Read + Send, W: Write>(
    input: R,
    media_type: &str,
    diff_id: DiffId,
    out: W,
    options: &CompressOptions,
) -> Result<(W, LayerBlob)> {
    let expected = Compression::of_media_type(media_type).ok_or_else(|| {
        Error::unsupported(format!("layers of the media type {media_type:?} cannot be read"))
    })?;
    let failed = |e| Error::io("cannot compress a layer anew", e);
    let mut compressor =
        Compressor::new(HashWriter::outside(out, options.compression), options).map_err(failed)?;
    let done = std::thread::scope(|scope| {
        let (mut pipe, handle) =
            start(scope, input, Expected::Exactly(expected), Limits::default());
        let copied = io::copy(&mut pipe, &mut compressor);
        // The other thread ends when it has nobody to hand its pieces to.
        drop(pipe);
        match handle.join() {
            Ok(done) => copied.map(|_| done),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    let Decompressed { diff_id: found, size: uncompressed } =
        done.map_err(failed)?.expect("the pipe was read to its end without an error");
    if found != diff_id {
        return Err(Error::invalid(format!("the layer is {found}, its config says {diff_id}")));
    }
    let (mut out, digest, size) = compressor.finish().map_err(failed)?.finish();
    out.flush().map_err(failed)?;
    let compression = options.compression;
    let digest = BlobDigest(digest.unwrap_or(*diff_id.digest()));
    Ok((out, LayerBlob { diff_id, uncompressed, digest, size, compression }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Entry, EntryKind, LayerBuilder};

    #[test]
    fn the_tar_stays_the_same() {
        let kinds = [Compression::None, Compression::Gzip, Compression::Zstd];
        for from in kinds {
            let mut builder =
                LayerBuilder::new(Vec::new(), &CompressOptions::new(from)).expect("builder");
            builder.append(&Entry::new("d", EntryKind::Directory, 0o755), None).expect("entry");
            let (bytes, first) = builder.finish().expect("layer");
            for to in kinds {
                let options = CompressOptions::new(to);
                let again = |diff_id| {
                    recompress(&bytes[..], from.oci_layer(), diff_id, Vec::new(), &options)
                };
                let (made, blob) = again(first.diff_id).expect("again");
                assert_eq!((blob.diff_id, blob.uncompressed), (first.diff_id, first.uncompressed));
                assert_eq!((blob.size, blob.compression), (made.len() as u64, to));
                assert_eq!(blob.digest.0, wbuild_graph::Digest::of(&made));
                if to == from {
                    assert_eq!(made, bytes);
                }
                assert!(again(DiffId(wbuild_graph::Digest::of(b"other"))).is_err());
            }
        }
    }

    #[test]
    fn what_is_damaged_or_mislabelled_is_refused() {
        let diff_id = DiffId(wbuild_graph::Digest::of(b"x"));
        let options = CompressOptions::new(Compression::Zstd);
        for (bytes, media_type) in [
            (&b"\x1f\x8b broken"[..], Compression::Gzip.oci_layer()),
            (b"plain", Compression::Gzip.oci_layer()),
            (b"x", "application/json"),
        ] {
            assert!(recompress(bytes, media_type, diff_id, Vec::new(), &options).is_err());
        }
    }
}
