//! Whether what a layer was unpacked to still holds what its archive says.

use std::collections::BTreeMap;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};
use wbuild_graph::{DiffId, Digest};

use super::decompress::{Decompressed, Limits, start};
use super::format::Expected;
use super::{EntryKind, TarReader};
use crate::error::{Error, ErrorKind, Result};
use crate::media::Compression;

const BUFFER: usize = 64 << 10;

/// Opens a regular file of an unpacked layer by its path; `None` if there is none.
pub type FileLookup<'a> = dyn FnMut(&[u8]) -> io::Result<Option<Box<dyn Read>>> + 'a;

/// Reads the layer `input` and asks for the content of each of its regular files by its path; gives
/// the paths whose content is another, or that are gone. Names, modes and times are not compared, nor
/// are sparse files.
///
/// # Errors
///
/// `input` is not of its `media_type`, not the layer `diff_id`, or too large; reading fails.
pub fn differences<R: Read + Send>(
    input: R,
    media_type: &str,
    diff_id: DiffId,
    content: &mut FileLookup<'_>,
) -> Result<Vec<Vec<u8>>> {
    let expected = Compression::of_media_type(media_type).ok_or_else(|| {
        Error::unsupported(format!("layers of the media type {media_type:?} cannot be read"))
    })?;
    let limits = Limits::default();
    let files = std::thread::scope(|scope| {
        let (pipe, handle) = start(scope, input, Expected::Exactly(expected), limits);
        let files = files(pipe, &limits);
        let done = match handle.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let files = files?;
        let Decompressed { diff_id: found, .. } =
            done.expect("the pipe was read to its end without an error");
        if found != diff_id {
            let message = format!("the content of a layer has the digest {found}, not {diff_id}");
            return Err(Error::new(ErrorKind::Mismatch, message));
        }
        Ok(files)
    })?;
    let mut out = Vec::new();
    for (path, digest) in files {
        let found = content(&path).and_then(|found| found.map(hash).transpose());
        if found.map_err(|e| Error::io("cannot read the files of a layer", e))? != Some(digest) {
            out.push(path);
        }
    }
    Ok(out)
}

fn hash(mut content: Box<dyn Read>) -> io::Result<Digest> {
    let mut hash = Sha256::new();
    io::copy(&mut content, &mut hash)?;
    Ok(Digest::from_bytes(hash.finalize().into()))
}

/// The contents of the archive's regular files; of several entries for a path the last one counts.
fn files(input: impl Read, limits: &Limits) -> Result<BTreeMap<Vec<u8>, Digest>> {
    let mut reader = TarReader::new(input, limits.tar);
    let mut files = BTreeMap::new();
    let mut buffer = vec![0; BUFFER];
    let mut count = 0;
    while let Some(entry) = reader.next_entry()? {
        count += 1;
        if count > limits.entries {
            return Err(Error::limit(format!(
                "the archive has more than {} entries",
                limits.entries
            )));
        }
        let path = clean(&entry.path);
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if name.starts_with(b".wh.") {
            continue;
        }
        // The data of a sparse file is not its content.
        if entry.kind != EntryKind::File || entry.sparse.is_some() {
            files.remove(&path);
            continue;
        }
        let mut hash = Sha256::new();
        loop {
            match reader.read_data(&mut buffer)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
        files.insert(path, Digest::from_bytes(hash.finalize().into()));
    }
    reader.drain()?;
    Ok(files)
}

/// Without what means nothing in a path: slashes at the begin, and single dots.
fn clean(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.collect::<Vec<_>>().join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{CompressOptions, Entry, LayerBuilder};

    fn entry(path: &str, kind: EntryKind, size: u64) -> Entry {
        Entry { size, ..Entry::new(path, kind, 0o644) }
    }

    #[test]
    fn another_content_and_a_missing_file_are_found() {
        let options = CompressOptions::new(Compression::Gzip);
        let mut layer = LayerBuilder::new(Vec::new(), &options).expect("a layer");
        for (path, text) in
            [("./a", "one"), ("d/b", "two"), ("c", "old"), ("c", "new"), (".wh.gone", "")]
        {
            let header = entry(path, EntryKind::File, text.len() as u64);
            layer.append(&header, Some(&mut text.as_bytes())).expect(path);
        }
        layer.append(&entry("l", EntryKind::Symlink(b"a".to_vec()), 0), None).expect("a link");
        let (bytes, blob) = layer.finish().expect("a layer");
        let media = "application/vnd.oci.image.layer.v1.tar+gzip";
        let compare = |tree: &[(&str, &str)], diff_id| {
            differences(&bytes[..], media, diff_id, &mut |path| {
                let found = tree.iter().find(|(name, _)| name.as_bytes() == path);
                let text = found.map(|(_, text)| text.as_bytes().to_vec());
                Ok(text.map(|text| Box::new(io::Cursor::new(text)) as Box<dyn Read>))
            })
        };
        let good = [("a", "one"), ("c", "new"), ("d/b", "two")];
        assert!(compare(&good, blob.diff_id).expect("read").is_empty());
        let bad = [("a", "onf"), ("c", "new")];
        let found = compare(&bad, blob.diff_id).expect("read");
        assert_eq!(found, [b"a".to_vec(), b"d/b".to_vec()]);
        assert!(compare(&good, DiffId(Digest::of(b"another"))).is_err());
    }
}
