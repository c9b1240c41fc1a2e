//! Telling archives from other files, as ADD has to.

use std::io::{BufReader, ErrorKind as IoKind, Read, Seek, SeekFrom};

use super::format::{Format, too_much_memory};
use crate::error::{Error, Result};
use crate::media::Compression;

/// A tar's block size (POSIX pax, "ustar Interchange Format").
const BLOCK: usize = 512;
/// How many bytes tell an archive from other files.
pub const LOOK: usize = BLOCK;

/// Whether `file` is a tar, plain or compressed in a form that can be unpacked: decided by its
/// content, not its name. Leaves the file at its start.
pub fn is_archive<R: Read + Seek>(file: &mut R) -> Result<bool> {
    let failed = |e| Error::io("cannot read a file that may be an archive", e);
    let start = head(file).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let block =
        Format::detect(&start).decode(BufReader::new(&mut *file)).and_then(|mut d| head(&mut d));
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    if let Some(error) = block.as_ref().err().and_then(too_much_memory) {
        return Err(error);
    }
    // What does not decompress is no archive.
    Ok(block.is_ok_and(|block| is_header(&block)))
}

/// Whether a stream of which only the beginning is there is an archive, as far as that tells: a
/// compressed one is believed to hold a tar. Wants the first [`LOOK`] bytes.
pub fn looks_like_archive(start: &[u8]) -> bool {
    Format::detect(start) != Format::Layer(Compression::None) || is_header(start)
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
        let bzip2 = |data: &[u8]| {
            let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            out.write_all(data).unwrap();
            out.finish().unwrap()
        };
        let xz = |data: &[u8]| {
            let options = lzma_rust2::XzOptions::with_preset(0);
            let mut out = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            out.write_all(data).unwrap();
            out.finish().unwrap()
        };
        for (name, data, archive) in [
            ("tar", tar.clone(), true),
            ("tar.gz", gzip(&tar), true),
            ("tar.zst", zstd, true),
            ("tar.bz2", bzip2(&tar), true),
            ("tar.xz", xz(&tar), true),
            ("text", b"hello".to_vec(), false),
            ("text.bz2", bzip2(b"hello"), false),
            ("text.xz", xz(b"hello"), false),
            ("text.gz", gzip(b"hello"), false),
            ("empty", Vec::new(), false),
            ("zeros", vec![0; 2048], false),
            ("cut gzip", gzip(&tar)[..12].to_vec(), false),
            ("cut xz", xz(&tar)[..12].to_vec(), false),
            ("no bzip2", b"BZh9 is how the line begins".to_vec(), false),
        ] {
            let mut file = Cursor::new(data);
            assert_eq!(is_archive(&mut file).unwrap(), archive, "{name}");
            assert_eq!(file.position(), 0, "{name}");
            let start = &file.get_ref()[..file.get_ref().len().min(LOOK)];
            let believed = archive || name.starts_with("text.") || name.starts_with("cut");
            let believed = believed || name == "no bzip2";
            assert_eq!(looks_like_archive(start), believed, "{name}");
        }
        // A dictionary of 1 GiB: neither read nor taken for something else.
        let mut options = lzma_rust2::XzOptions::with_preset(0);
        options.lzma_options.dict_size = 1 << 16;
        let mut out = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        out.write_all(&tar).unwrap();
        let mut large = out.finish().unwrap();
        // The properties of LZMA2 in the first block header, and that header's CRC-32.
        assert_eq!(large[12..17], [2, 0, 0x21, 1, 8]);
        large[16] = 36;
        let checksum = crc32fast::hash(&large[12..20]).to_le_bytes();
        large[20..24].copy_from_slice(&checksum);
        let error = is_archive(&mut Cursor::new(large)).unwrap_err();
        assert!(error.to_string().contains("130 MiB"), "{error}");
    }
}
