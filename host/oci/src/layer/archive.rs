//! Telling archives from other files, as ADD has to.

use std::io::{ErrorKind as IoKind, Read, Seek, SeekFrom};

use super::decompress::detect;
use crate::error::{Error, Result};
use crate::media::Compression;

/// A tar's block size (POSIX pax, "ustar Interchange Format").
const BLOCK: usize = 512;

/// Whether `file` is a tar, plain or compressed in a form that can be unpacked: decided by its
/// content, not its name. Leaves the file at its start.
pub fn is_archive<R: Read + Seek>(file: &mut R) -> Result<bool> {
    let failed = |e| Error::io("cannot read a file that may be an archive", e);
    let start = head(file).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    // An archive in a form that cannot be unpacked is an error: docker would unpack it.
    let block = match detect(&start)? {
        Compression::None => Ok(start),
        Compression::Gzip => head(&mut flate2::read::MultiGzDecoder::new(&mut *file)),
        Compression::Zstd => zstd::stream::read::Decoder::new(&mut *file).and_then(|mut d| {
            d.window_log_max(27)?;
            head(&mut d)
        }),
    };
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    // What does not decompress is no archive.
    Ok(block.is_ok_and(|block| is_header(&block)))
}

/// The first block, or less at the end of the file.
fn head(input: &mut dyn Read) -> std::io::Result<Vec<u8>> {
    let mut block = vec![0; BLOCK];
    let mut have = 0;
    while have < BLOCK {
        match input.read(&mut block[have..]) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == IoKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    block.truncate(have);
    Ok(block)
}

/// Whether a block is a tar header: its checksum (the sum of all bytes, its own field as blanks)
/// holds.
fn is_header(block: &[u8]) -> bool {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    if block.len() < BLOCK {
        return false;
    }
    let text = String::from_utf8_lossy(&block[CHECKSUM]);
    let text = text.trim_matches([' ', '\0']);
    let Ok(stated) = u64::from_str_radix(text, 8) else {
        return false;
    };
    let blanks = CHECKSUM.len() as u64 * u64::from(b' ');
    let field: u64 = block[CHECKSUM].iter().map(|b| u64::from(*b)).sum();
    let sum: u64 = block[..BLOCK].iter().map(|b| u64::from(*b)).sum();
    stated == sum - field + blanks
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;

    #[test]
    fn content_decides() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(2);
        header.set_cksum();
        tar.append_data(&mut header, "a", &b"hi"[..]).unwrap();
        let tar = tar.into_inner().unwrap();
        let gzip = |data: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(data).unwrap();
            out.finish().unwrap()
        };
        let zstd = zstd::encode_all(&tar[..], 1).unwrap();
        for (name, data, archive) in [
            ("tar", tar.clone(), true),
            ("tar.gz", gzip(&tar), true),
            ("tar.zst", zstd, true),
            ("text", b"hello".to_vec(), false),
            ("text.gz", gzip(b"hello"), false),
            ("empty", Vec::new(), false),
            ("zeros", vec![0; 2048], false),
            ("cut gzip", gzip(&tar)[..12].to_vec(), false),
        ] {
            let mut file = Cursor::new(data);
            assert_eq!(is_archive(&mut file).unwrap(), archive, "{name}");
            assert_eq!(file.position(), 0, "{name}");
        }
        let error = is_archive(&mut Cursor::new(b"\xfd7zXZ\0rest".to_vec())).unwrap_err();
        assert!(error.to_string().contains("xz"), "{error}");
    }
}
