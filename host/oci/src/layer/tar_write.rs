//! Encodes tar: ustar headers, and a pax extended header where a value does not fit.
//!
//! The bytes depend on the entries alone: pax records are sorted, numeric ids only, whole seconds,
//! no access or change times, no user or group names.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use super::entry::{Entry, EntryKind, show};
use crate::error::{Error, ErrorKind, Result};

/// Tar's unit.
pub(crate) const BLOCK: usize = 512;
/// Prefix of the pax keys that carry extended attributes, as star, GNU tar, Docker and containerd
/// write them.
pub(crate) const PAX_XATTR: &str = "SCHILY.xattr.";

/// Writes a tar archive to `W`.
pub struct TarWriter<W: Write> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        TarWriter { out, buffer: vec![0; 256 << 10] }
    }

    /// What is written to.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Appends an entry. For a file, exactly [`Entry::size`] bytes are taken from `data`; fewer are an
    /// error of kind [`ErrorKind::Changed`]. All other entries carry no data.
    pub fn append(&mut self, entry: &Entry, data: Option<&mut dyn Read>) -> Result<()> {
        let what = || format!("cannot write {} to the archive", show(&entry.path));
        let header = encode(entry)?;
        self.out.write_all(&header).map_err(|e| Error::io(what(), e))?;
        if !matches!(entry.kind, EntryKind::File) || entry.size == 0 {
            return Ok(());
        }
        let data = data.expect("a file of some size comes with its data");
        let mut left = entry.size;
        while left > 0 {
            let want =
                usize::try_from(left).map_or(self.buffer.len(), |l| l.min(self.buffer.len()));
            let got = match data.read(&mut self.buffer[..want]) {
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io(format!("cannot read {}", show(&entry.path)), e)),
            };
            if got == 0 {
                let message = format!("{} became shorter while it was read", show(&entry.path));
                return Err(Error::new(ErrorKind::Changed, message));
            }
            self.out.write_all(&self.buffer[..got]).map_err(|e| Error::io(what(), e))?;
            left -= got as u64;
        }
        let padding = padding(entry.size);
        self.out.write_all(&[0; BLOCK][..padding]).map_err(|e| Error::io(what(), e))
    }

    /// Writes the end of the archive and gives `W` back.
    pub fn finish(mut self) -> Result<W> {
        let end = self.out.write_all(&[0; 2 * BLOCK]);
        end.map_err(|e| Error::io("cannot write the end of the archive", e))?;
        Ok(self.out)
    }
}

/// Bytes that fill the last block of `size` bytes of data.
pub(crate) fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// The header blocks of `entry`.
fn encode(entry: &Entry) -> Result<Vec<u8>> {
    let bad = |reason: &str| {
        let noun = entry.kind.noun();
        Error::unsupported(format!("the {noun} {} cannot be stored: {reason}", show(&entry.path)))
    };
    if entry.path.is_empty() || entry.path.contains(&0) {
        return Err(bad("its name is empty or contains NUL"));
    }
    let mut pax: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut header = [0u8; BLOCK];

    let mut name = entry.path.clone();
    if matches!(entry.kind, EntryKind::Directory) {
        name.push(b'/');
    }
    match split_name(&name) {
        Some((prefix, rest)) => {
            header[..rest.len()].copy_from_slice(rest);
            header[345..345 + prefix.len()].copy_from_slice(prefix);
        }
        None => {
            // What a reader without pax support would see; it has to be something.
            put_ascii(&mut header[..100], &name);
            pax.insert(b"path".to_vec(), name);
        }
    }
    let (type_flag, link, (major, minor)) = match &entry.kind {
        EntryKind::File => (b'0', None, (0, 0)),
        EntryKind::HardLink(target) => (b'1', Some(target), (0, 0)),
        EntryKind::Symlink(target) => (b'2', Some(target), (0, 0)),
        EntryKind::CharDevice { major, minor } => (b'3', None, (*major, *minor)),
        EntryKind::BlockDevice { major, minor } => (b'4', None, (*major, *minor)),
        EntryKind::Directory => (b'5', None, (0, 0)),
        EntryKind::Fifo => (b'6', None, (0, 0)),
    };
    header[156] = type_flag;
    if let Some(link) = link {
        if link.is_empty() || link.contains(&0) {
            return Err(bad("its target is empty or contains NUL"));
        }
        if link.len() <= 100 && link.is_ascii() {
            header[157..157 + link.len()].copy_from_slice(link);
        } else {
            put_ascii(&mut header[157..257], link);
            pax.insert(b"linkpath".to_vec(), link.clone());
        }
    }
    let mut number = |range: std::ops::Range<usize>, key: Option<&str>, value: i64| -> Result<()> {
        let digits = range.len() - 1;
        let fits = value >= 0 && (value as u64) < 1 << (3 * digits);
        let shown = if fits { value } else { 0 };
        header[range.start..range.end - 1].copy_from_slice(format!("{shown:0digits$o}").as_bytes());
        match (fits, key) {
            (true, _) => Ok(()),
            (false, Some(key)) => {
                pax.insert(key.as_bytes().to_vec(), value.to_string().into_bytes());
                Ok(())
            }
            (false, None) => Err(bad("a device number is too large")),
        }
    };
    let size = if matches!(entry.kind, EntryKind::File) { entry.size } else { 0 };
    let size = i64::try_from(size).map_err(|_| bad("it is larger than 2^63 - 1 bytes"))?;
    number(100..108, None, i64::from(entry.mode & 0o7777))?;
    number(108..116, Some("uid"), i64::from(entry.uid))?;
    number(116..124, Some("gid"), i64::from(entry.gid))?;
    number(124..136, Some("size"), size)?;
    number(136..148, Some("mtime"), entry.mtime)?;
    number(329..337, None, i64::from(major))?;
    number(337..345, None, i64::from(minor))?;
    for (name, value) in &entry.xattrs {
        if name.contains(&b'=') {
            return Err(bad("the name of an extended attribute contains '='"));
        }
        let key = [PAX_XATTR.as_bytes(), name].concat();
        pax.insert(key, value.clone());
    }

    let mut out = Vec::with_capacity(BLOCK);
    if !pax.is_empty() {
        let body = pax_records(&pax);
        let mut extended = [0u8; BLOCK];
        let base = entry.path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        put_ascii(&mut extended[..100], &[b"PaxHeaders.0/", base].concat());
        extended[100..108].copy_from_slice(b"0000644\0");
        for range in [108..116, 116..124, 329..337, 337..345] {
            extended[range].copy_from_slice(b"0000000\0");
        }
        extended[124..135].copy_from_slice(format!("{:011o}", body.len()).as_bytes());
        extended[136..147].copy_from_slice(b"00000000000");
        extended[156] = b'x';
        seal(&mut extended);
        out.extend_from_slice(&extended);
        out.extend_from_slice(&body);
        out.resize(out.len() + padding(body.len() as u64), 0);
    }
    seal(&mut header);
    out.extend_from_slice(&header);
    Ok(out)
}

/// Splits a name into ustar's prefix and name; `None` where it does not fit or is not ASCII (what a
/// plain header means then depends on the reader).
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= 100 {
        return Some((b"", name));
    }
    // The last possible slash; the one that ends a directory's name leaves nothing behind it.
    let last = name.len().min(156);
    let slash =
        name[..last].iter().rposition(|b| *b == b'/').filter(|s| *s > 0 && s + 1 < name.len())?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (rest.len() <= 100).then_some((prefix, rest))
}

fn put_ascii(field: &mut [u8], text: &[u8]) {
    for (slot, byte) in field.iter_mut().zip(text.iter().filter(|b| b.is_ascii_graphic())) {
        *slot = *byte;
    }
}

/// Magic, version and checksum.
fn seal(header: &mut [u8; BLOCK]) {
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn pax_records(records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        out.extend_from_slice(format!("{length} ").as_bytes());
        out.extend_from_slice(key);
        out.push(b'=');
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out
}
