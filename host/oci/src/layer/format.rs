//! The formats that archives come in, told by their first bytes, and their decoders.
//!
//! Layers of images are in those of [`Compression`]; what `ADD` unpacks may be in any.

use std::io::{self, BufRead, Read};

use crate::error::{Error, Result};
use crate::media::Compression;

/// Largest zstd window, as a power of two: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Most memory that an xz stream may demand, in KiB: what `xz -9`, the largest preset, needs and as
/// much again.
const XZ_MEMORY: u32 = 130 << 10;
/// Bytes that tell the formats apart.
pub(crate) const MAGIC: u64 = 6;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// One that layers may have.
    Layer(Compression),
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

/// What formats a stream may have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    /// That of this media type.
    Exactly(Compression),
    /// Any that layers have.
    Layer,
    /// Any at all.
    Any,
}

impl Expected {
    /// Fails if a stream has another format.
    pub(crate) fn check(self, found: Format) -> Result<()> {
        let name = found.name();
        match (self, found) {
            (Expected::Exactly(wanted), found) if found != Format::Layer(wanted) => {
                let wanted = Format::Layer(wanted).name();
                let message = format!("the layer is {name}, its media type says {wanted}");
                Err(Error::invalid(message))
            }
            (Expected::Layer, Format::Bzip2 | Format::Xz) => {
                Err(Error::unsupported(format!("a layer of an image cannot be {name}")))
            }
            _ => Ok(()),
        }
    }
}

impl Format {
    /// The one that the first bytes of a stream show; no magic means plain tar.
    pub(crate) fn detect(start: &[u8]) -> Format {
        match start {
            [0x1f, 0x8b, ..] => Format::Layer(Compression::Gzip),
            // The second form is a skippable frame in front of the first real one.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Format::Layer(Compression::Zstd)
            }
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Format::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Format::Xz,
            _ => Format::Layer(Compression::None),
        }
    }

    /// What messages call an archive in it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Layer(Compression::None) => "a plain tar archive",
            Format::Layer(Compression::Gzip) => "a gzip archive",
            Format::Layer(Compression::Zstd) => "a zstd archive",
            Format::Bzip2 => "a bzip2 archive",
            Format::Xz => "an xz archive",
        }
    }

    /// Decodes a stream: all of its members, one after the other.
    pub(crate) fn decode<'a>(self, input: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Format::Layer(Compression::None) => Box::new(input),
            Format::Layer(Compression::Gzip) => {
                Box::new(flate2::bufread::MultiGzDecoder::new(input))
            }
            Format::Layer(Compression::Zstd) => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Box::new(decoder)
            }
            Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            Format::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, XZ_MEMORY)),
        })
    }
}

/// What libzstd says of a frame with a larger window than is allowed; it has no other mark.
const ZSTD_TOO_MUCH: &str = "Frame requires too much memory for decoding";

/// The error of a stream that demands more memory than is allowed, if that is what a decoder's is.
pub(crate) fn too_much_memory(error: &io::Error) -> Option<Error> {
    let mebibytes = match error.get_ref() {
        _ if error.kind() == io::ErrorKind::OutOfMemory => XZ_MEMORY >> 10,
        Some(inner) if inner.to_string() == ZSTD_TOO_MUCH => 1 << (ZSTD_WINDOW_LOG - 20),
        _ => return None,
    };
    Some(Error::limit(format!("the archive needs more than {mebibytes} MiB to unpack")))
}
