//! Decodes tar: v7, ustar, GNU (long names, sparse files) and pax.
//!
//! Strict where readers are known to disagree, because two readings of one archive are an attack:
//! data behind entries that have none, pax sizes that contradict, global headers that rename. No
//! memory is allocated on the say-so of the archive beyond [`TarLimits`].

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::entry::{Entry, EntryKind, show};
use super::tar_write::{BLOCK, PAX_XATTR, padding};
use crate::error::{Error, Result};

/// What one entry may demand.
#[derive(Clone, Copy, Debug)]
pub struct TarLimits {
    /// Bytes of extended headers (pax, GNU long names) of one entry.
    pub extended: u64,
    /// Bytes of a path, and of a link's target: no more than the kernel takes in one call.
    pub path: usize,
    /// Pieces of a sparse file.
    pub sparse: usize,
}

impl Default for TarLimits {
    fn default() -> Self {
        TarLimits { extended: 1 << 20, path: 4095, sparse: 100_000 }
    }
}

/// Reads a tar archive from `R`.
pub struct TarReader<R: Read> {
    input: R,
    limits: TarLimits,
    /// Data of the present entry that was not read.
    left: u64,
    padding: usize,
    done: bool,
}

/// Where a sparse file's data lies: offset and length.
type SparseMap = Vec<(u64, u64)>;

/// What extended headers say of the entry that follows them.
#[derive(Default)]
struct Extended {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// GNU.sparse.offset and numbytes of sparse format 0.0, which repeat.
    sparse_pairs: Vec<u64>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    /// There was a pax header. Some readers join several, for others the last one counts.
    pax: bool,
    bytes: u64,
}

fn bad(reason: impl std::fmt::Display) -> Error {
    Error::invalid(format!("the archive is malformed: {reason}"))
}

impl<R: Read> TarReader<R> {
    /// A reader at the start of an archive.
    pub fn new(input: R, limits: TarLimits) -> Self {
        TarReader { input, limits, left: 0, padding: 0, done: false }
    }

    /// The next entry; data of the present one that was not read is passed over. `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_rest()?;
        let mut extended = Extended::default();
        let mut any = false;
        loop {
            let Some(header) = self.header()? else {
                return if any { Err(bad("it ends after an extended header")) } else { Ok(None) };
            };
            let type_flag = header[156];
            let size = number(&header[124..136]).ok_or_else(|| bad("a size is not a number"))?;
            match type_flag {
                b'x' if std::mem::replace(&mut extended.pax, true) => {
                    return Err(bad("an entry has two pax headers"));
                }
                b'x' | b'g' => {
                    let body = self.extended_body(size, &mut extended)?;
                    let mut sink = Extended::default();
                    parse_pax(&body, if type_flag == b'x' { &mut extended } else { &mut sink })?;
                    if let Some(key) = sink.records.keys().find(|k| changes_entries(k)) {
                        let key = show(key);
                        return Err(Error::unsupported(format!(
                            "the archive sets {key} for all following entries in a global pax header"
                        )));
                    }
                }
                b'L' | b'K' => {
                    let mut body = self.extended_body(size, &mut extended)?;
                    body.truncate(body.iter().position(|b| *b == 0).unwrap_or(body.len()));
                    let slot = if type_flag == b'L' {
                        &mut extended.long_name
                    } else {
                        &mut extended.long_link
                    };
                    *slot = Some(body);
                }
                // A volume label names no file.
                b'V' => {
                    self.left = size;
                    self.padding = padding(size);
                    self.skip_rest()?;
                }
                _ => return self.entry(&header, size, extended).map(Some),
            }
            any = matches!(type_flag, b'x' | b'L' | b'K') || any;
        }
    }

    /// Reads data of the present entry; 0 at its end.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let want = usize::try_from(self.left).map_or(buffer.len(), |l| l.min(buffer.len()));
        if want == 0 {
            return Ok(0);
        }
        let got = loop {
            match self.input.read(&mut buffer[..want]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(read_error)?,
            }
        };
        if got == 0 {
            return Err(bad("it ends within a file"));
        }
        self.left -= got as u64;
        Ok(got)
    }

    /// Bytes of the present entry's data that were not read yet.
    pub fn remaining(&self) -> u64 {
        self.left
    }

    /// Reads what follows the end of the archive, so that the whole input has been seen.
    pub fn drain(mut self) -> Result<()> {
        self.skip_rest()?;
        io::copy(&mut self.input, &mut io::sink()).map_err(read_error)?;
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<()> {
        let mut buffer = [0; 8192];
        while self.left > 0 {
            self.read_data(&mut buffer)?;
        }
        let padding = std::mem::take(&mut self.padding);
        self.exact(&mut buffer[..padding])
    }

    fn exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.input.read_exact(buffer).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => bad("it is cut short"),
            _ => read_error(e),
        })
    }

    /// The next header block with a good checksum; `None` at two zero blocks or a clean end of input.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        if self.done {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        let mut zero_before = false;
        loop {
            let mut filled = 0;
            while filled < BLOCK {
                match self.input.read(&mut block[filled..]) {
                    Ok(0) if filled == 0 => {
                        self.done = true;
                        return Ok(None);
                    }
                    Ok(0) => return Err(bad("it is cut short")),
                    Ok(got) => filled += got,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(read_error(e)),
                }
            }
            let zero = block.iter().all(|b| *b == 0);
            match (zero, zero_before) {
                (true, true) => {
                    self.done = true;
                    return Ok(None);
                }
                (true, false) => zero_before = true,
                // Some readers stop at one zero block, some do not.
                (false, true) => return Err(bad("entries follow a zero block")),
                (false, false) => break,
            }
        }
        let said = number(&block[148..156]).ok_or_else(|| bad("a checksum is not a number"))?;
        let others = || block[..148].iter().chain(&block[156..]);
        let unsigned: u64 = others().map(|b| u64::from(*b)).sum::<u64>() + 8 * 32;
        // Ancient tars summed signed bytes.
        let signed: i64 = others().map(|b| i64::from(*b as i8)).sum::<i64>() + 8 * 32;
        if said != unsigned && i64::try_from(said) != Ok(signed) {
            return Err(bad("the checksum of a header is wrong"));
        }
        Ok(Some(block))
    }

    fn extended_body(&mut self, size: u64, extended: &mut Extended) -> Result<Vec<u8>> {
        extended.bytes = extended.bytes.saturating_add(size);
        if extended.bytes > self.limits.extended {
            let limit = self.limits.extended;
            return Err(Error::limit(format!("an entry's extended headers exceed {limit} bytes")));
        }
        let mut body = vec![0; usize::try_from(size).expect("within the limit")];
        self.exact(&mut body)?;
        let mut rest = [0; BLOCK];
        self.exact(&mut rest[..padding(size)])?;
        Ok(body)
    }

    fn entry(&mut self, header: &[u8; BLOCK], size: u64, mut extended: Extended) -> Result<Entry> {
        let mut take = |key: &str| extended.records.remove(key.as_bytes());
        let field = |range: std::ops::Range<usize>| {
            let field = &header[range];
            field[..field.iter().position(|b| *b == 0).unwrap_or(field.len())].to_vec()
        };
        let posix = &header[257..263] == b"ustar\0";
        let mut path = field(0..100);
        if posix && header[345] != 0 {
            path = [field(345..500), path].join(&b'/');
        }
        path = one_of(extended.long_name.take(), take("path"), "name")?.unwrap_or(path);
        let sparse_name = take("GNU.sparse.name");
        path = sparse_name.unwrap_or(path);
        let link = one_of(extended.long_link.take(), take("linkpath"), "target")?;
        let link = link.unwrap_or_else(|| field(157..257));
        for text in [&path, &link] {
            if text.len() > self.limits.path {
                return Err(Error::limit(format!("the path {} is too long", show(text))));
            }
            if text.contains(&0) {
                return Err(bad(format_args!("the name {} contains NUL", show(text))));
            }
        }
        let at = show(&path);
        let decimal = |key: &str, value: Vec<u8>| -> Result<i64> {
            // Times alone may have a fraction; a negative one counts down from the next second.
            let text = String::from_utf8(value).unwrap_or_default();
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            let digits = whole.strip_prefix('-').unwrap_or(whole);
            let fine = !digits.is_empty()
                && (whole.len() == text.len() || key == "mtime")
                && digits.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
            let number = whole.parse::<i64>().ok().filter(|_| fine);
            let down = whole.starts_with('-') && fraction.bytes().any(|b| b != b'0');
            number
                .and_then(|n| n.checked_sub(i64::from(down)))
                .ok_or_else(|| bad(format_args!("{key} of {at} is not a number")))
        };
        let size = match take("size") {
            Some(value) => u64::try_from(decimal("size", value)?)
                .map_err(|_| bad(format_args!("the size of {at} is negative")))?,
            None => size,
        };
        let mtime = match take("mtime") {
            Some(value) => decimal("mtime", value)?,
            None => signed_number(&header[136..148])
                .ok_or_else(|| bad(format_args!("the time of {at} is not a number")))?,
        };
        let mut id = |key: &str, range: std::ops::Range<usize>| -> Result<u32> {
            let value = match extended.records.remove(key.as_bytes()) {
                Some(value) => u64::try_from(decimal(key, value)?).ok(),
                None => number(&header[range]),
            };
            // The highest value means "leave unchanged" to chown.
            value
                .and_then(|v| u32::try_from(v).ok())
                .filter(|v| *v != u32::MAX)
                .ok_or_else(|| bad(format_args!("the {key} of {at} is out of range")))
        };
        let (uid, gid) = (id("uid", 108..116)?, id("gid", 116..124)?);
        let mode = number(&header[100..108])
            .ok_or_else(|| bad(format_args!("the mode of {at} is not a number")))?;
        // The kernel takes the lower bits of larger numbers, which may be another device's: those of
        // 4096:0 are those of a whiteout.
        let device = || match (number(&header[329..337]), number(&header[337..345])) {
            (Some(major @ ..=0xfff), Some(minor @ ..=0xf_ffff)) => Ok((major as u32, minor as u32)),
            _ => Err(bad(format_args!("the device number of {at} is out of range"))),
        };
        let kind = match header[156] {
            0 if path.ends_with(b"/") => EntryKind::Directory,
            b'0' | b'7' | b'S' if path.ends_with(b"/") => {
                return Err(bad(format_args!("the file {at} has the name of a directory")));
            }
            b'0' | 0 | b'7' | b'S' => EntryKind::File,
            b'1' => EntryKind::HardLink(link),
            b'2' => EntryKind::Symlink(link),
            b'3' => {
                let (major, minor) = device()?;
                EntryKind::CharDevice { major, minor }
            }
            b'4' => {
                let (major, minor) = device()?;
                EntryKind::BlockDevice { major, minor }
            }
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => {
                let flag = other.escape_ascii();
                return Err(Error::unsupported(format!(
                    "{at} is an entry of the unknown type '{flag}'"
                )));
            }
        };
        if matches!(&kind, EntryKind::HardLink(link) | EntryKind::Symlink(link) if link.is_empty())
        {
            return Err(bad(format_args!("the link {at} has no target")));
        }
        let mut data = size;
        if !matches!(kind, EntryKind::File) {
            // Some writers repeat the size of the file at its hard links; none of them adds the data.
            if size != 0 && !matches!(kind, EntryKind::HardLink(_)) {
                return Err(bad(format_args!("the {} {at} claims to have data", kind.noun())));
            }
            data = 0;
        }
        self.left = data;
        self.padding = padding(data);
        let mut entry = Entry {
            path,
            kind,
            mode: mode as u32 & 0o7777,
            uid,
            gid,
            mtime,
            size: data,
            xattrs: BTreeMap::new(),
            sparse: None,
        };
        if matches!(entry.kind, EntryKind::File) {
            let (sparse, real) = self.sparse(header, &mut extended, &at)?;
            if let Some(map) = sparse {
                check_sparse(&map, real, self.left, &at)?;
                entry.size = real;
                entry.sparse = Some(map);
            }
        }
        while entry.path.len() > 1 && entry.path.ends_with(b"/") {
            entry.path.pop();
        }
        entry.xattrs = extended
            .records
            .into_iter()
            .filter_map(|(key, value)| {
                Some((key.strip_prefix(PAX_XATTR.as_bytes())?.to_vec(), value))
            })
            .collect();
        Ok(entry)
    }

    /// The map and real size of a sparse file, in whichever of GNU's four ways they are written.
    fn sparse(
        &mut self,
        header: &[u8; BLOCK],
        extended: &mut Extended,
        at: &str,
    ) -> Result<(Option<SparseMap>, u64)> {
        let wrong = || bad(format_args!("the sparse map of {at} is malformed"));
        let limit = self.limits.sparse;
        let too_many =
            || Error::limit(format!("the sparse file {at} has more than {limit} pieces"));
        let mut text = |key: &str| extended.records.remove(key.as_bytes());
        let parse = |bytes: &[u8]| -> Result<u64> {
            let digits = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
            let number =
                std::str::from_utf8(bytes).ok().filter(|_| digits).and_then(|t| t.parse().ok());
            number.ok_or_else(wrong)
        };
        if header[156] == b'S' {
            let real = number(&header[483..495]).ok_or_else(wrong)?;
            let mut map = Vec::new();
            let mut pieces = |block: &[u8]| -> Result<()> {
                for piece in block.chunks_exact(24) {
                    if piece[0] != 0 {
                        let offset = number(&piece[..12]).ok_or_else(wrong)?;
                        map.push((offset, number(&piece[12..]).ok_or_else(wrong)?));
                    }
                }
                if map.len() > limit { Err(too_many()) } else { Ok(()) }
            };
            pieces(&header[386..482])?;
            let mut more = header[482] != 0;
            while more {
                let mut block = [0; BLOCK];
                self.exact(&mut block)?;
                pieces(&block[..504])?;
                more = block[504] != 0;
            }
            return Ok((Some(map), real));
        }
        let major = text("GNU.sparse.major");
        let minor = text("GNU.sparse.minor");
        let old_map = text("GNU.sparse.map");
        let _pieces = text("GNU.sparse.numblocks");
        let real = match (text("GNU.sparse.realsize"), text("GNU.sparse.size")) {
            (Some(real), _) | (None, Some(real)) => parse(&real)?,
            (None, None) if major.is_some() || old_map.is_some() => return Err(wrong()),
            (None, None) => return Ok((None, 0)),
        };
        let numbers: Vec<u64> = if major.as_deref() == Some(b"1") && minor.as_deref() == Some(b"0")
        {
            // Decimal numbers, one a line, in front of the data and padded to a block.
            let mut block = [0; BLOCK];
            let (mut at_byte, mut digits, mut numbers) = (BLOCK, Vec::new(), Vec::new());
            let mut wanted = 1;
            while numbers.len() < wanted {
                if at_byte == BLOCK {
                    if self.left < BLOCK as u64 {
                        return Err(wrong());
                    }
                    self.exact(&mut block)?;
                    self.left -= BLOCK as u64;
                    at_byte = 0;
                }
                match block[at_byte] {
                    b'\n' => {
                        numbers.push(parse(&digits)?);
                        digits.clear();
                        if numbers.len() == 1 {
                            let count = usize::try_from(numbers[0]).ok().filter(|n| *n <= limit);
                            wanted = 1 + 2 * count.ok_or_else(too_many)?;
                        }
                    }
                    digit if digits.len() < 20 => digits.push(digit),
                    _ => return Err(wrong()),
                }
                at_byte += 1;
            }
            numbers.remove(0);
            numbers
        } else if major.is_some() {
            return Err(Error::unsupported(format!("{at} uses an unknown format of sparse files")));
        } else if let Some(map) = old_map {
            let parts = map.split(|b| *b == b',').filter(|part| !part.is_empty());
            parts.map(parse).collect::<Result<_>>()?
        } else {
            std::mem::take(&mut extended.sparse_pairs)
        };
        if !numbers.len().is_multiple_of(2) {
            return Err(wrong());
        }
        if numbers.len() / 2 > limit {
            return Err(too_many());
        }
        Ok((Some(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()), real))
    }
}

/// Pieces are in order, do not overlap, lie within the file and are exactly the data there is.
fn check_sparse(map: &[(u64, u64)], real: u64, data: u64, at: &str) -> Result<()> {
    let (mut end, mut total) = (0u64, 0u64);
    let mut fine = i64::try_from(real).is_ok();
    for (offset, length) in map {
        fine &= *offset >= end;
        end = offset.checked_add(*length).unwrap_or(u64::MAX);
        total = total.saturating_add(*length);
    }
    if fine && end <= real && total == data {
        Ok(())
    } else {
        Err(bad(format_args!("the sparse map of {at} does not fit the file")))
    }
}

/// What GNU's way and pax say of one thing. Readers disagree which of the two counts.
fn one_of(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>, what: &str) -> Result<Option<Vec<u8>>> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => {
            let (gnu, pax) = (show(&gnu), show(&pax));
            Err(bad(format_args!("an entry has the {what} {gnu} and the {what} {pax}")))
        }
        (gnu, pax) => Ok(pax.or(gnu)),
    }
}

fn read_error(error: io::Error) -> Error {
    Error::io("cannot read the archive", error)
}

/// Keys that would give following entries other names, sizes or owners.
fn changes_entries(key: &[u8]) -> bool {
    matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime")
        || key.starts_with(b"GNU.sparse.")
        || key.starts_with(PAX_XATTR.as_bytes())
}

/// Reads `LENGTH KEY=VALUE\n` records; of a repeated key the last wins (POSIX, pax), and an empty
/// value removes what was said before.
fn parse_pax(mut body: &[u8], into: &mut Extended) -> Result<()> {
    let wrong = || bad("a pax record is malformed");
    while !body.is_empty() {
        let space = body.iter().take(20).position(|b| *b == b' ').ok_or_else(wrong)?;
        let digits = &body[..space];
        let length =
            std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
        let length: usize = length.and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        let record = body.get(space + 1..length).ok_or_else(wrong)?;
        let (newline, record) = record.split_last().ok_or_else(wrong)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(wrong)?;
        if *newline != b'\n' || equals == 0 {
            return Err(wrong());
        }
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            let in_turn =
                into.sparse_pairs.len().is_multiple_of(2) == (key == b"GNU.sparse.offset");
            into.sparse_pairs.push(number.filter(|_| in_turn).ok_or_else(wrong)?);
        } else if value.is_empty() && matches!(key, b"path" | b"linkpath") {
            // For some readers that is the name, for others the one of the header is.
            return Err(bad("a pax header gives an entry an empty name or target"));
        } else if value.is_empty() && !key.starts_with(PAX_XATTR.as_bytes()) {
            into.records.remove(key);
        } else {
            into.records.insert(key.to_vec(), value.to_vec());
        }
        body = &body[length..];
    }
    Ok(())
}

/// A numeric field: octal digits with blanks around, or GNU's binary form. An empty one is 0.
fn number(field: &[u8]) -> Option<u64> {
    signed_number(field).and_then(|n| u64::try_from(n).ok())
}

fn signed_number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        // Big endian two's complement; the top bit only says that it is binary.
        let negative = field[0] & 0x40 != 0;
        let first = if negative { i128::from(field[0] as i8) } else { i128::from(field[0] & 0x7f) };
        let value = field[1..]
            .iter()
            .try_fold(first, |value, byte| value.checked_mul(256).map(|v| v + i128::from(*byte)))?;
        return i64::try_from(value).ok();
    }
    let text = field.split(|b| *b == 0).next().unwrap_or_default().trim_ascii();
    let mut value = 0i64;
    for byte in text {
        let digit = byte.checked_sub(b'0').filter(|d| *d < 8)?;
        value = value.checked_mul(8)?.checked_add(i64::from(digit))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tar_write::TarWriter;
    use super::*;

    type Read1 = (Entry, Vec<u8>);

    fn read_all(archive: &[u8]) -> Result<Vec<Read1>> {
        let mut reader = TarReader::new(archive, TarLimits::default());
        let mut out = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            let mut data = vec![0; 100];
            let mut all = Vec::new();
            loop {
                let got = reader.read_data(&mut data)?;
                if got == 0 {
                    break;
                }
                all.extend_from_slice(&data[..got]);
            }
            out.push((entry, all));
        }
        reader.drain()?;
        Ok(out)
    }

    fn write_all(entries: &[Read1]) -> Vec<u8> {
        let mut writer = TarWriter::new(Vec::new());
        for (entry, data) in entries {
            writer.append(entry, Some(&mut &data[..])).expect("can be written");
        }
        writer.finish().expect("memory")
    }

    fn any_entry() -> impl Strategy<Value = Read1> {
        let name = || {
            prop_oneof![
                "[a-z]{1,12}(/[a-zäß]{1,90}){0,3}".prop_map(String::into_bytes),
                prop::collection::vec(1u8..=255, 1..40),
                "[a-z]{90,110}".prop_map(String::into_bytes),
                "[a-z]{60,155}/[a-z]{60,101}".prop_map(String::into_bytes),
            ]
            .prop_filter("a trailing slash is not kept", |n| !n.ends_with(b"/"))
        };
        let kind = prop_oneof![
            Just(EntryKind::File),
            Just(EntryKind::Directory),
            name().prop_map(EntryKind::Symlink),
            name().prop_map(EntryKind::HardLink),
            (0u32..4096, 0u32..1 << 20)
                .prop_map(|(major, minor)| EntryKind::CharDevice { major, minor }),
            (0u32..4096, 0u32..1 << 20)
                .prop_map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
            Just(EntryKind::Fifo),
        ];
        let xattrs = prop::collection::btree_map(
            "user\\.[a-z]{1,5}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..1200),
            0..3,
        );
        let ids = prop_oneof![0u32..70_000, Just(u32::MAX - 1)];
        let time = prop_oneof![0i64..2_000_000_000, any::<i64>()];
        let data = prop::collection::vec(any::<u8>(), 0..1500);
        (name(), kind, 0u32..0o10000, ids.clone(), ids, time, xattrs, data).prop_map(
            |(path, kind, mode, uid, gid, mtime, xattrs, mut data)| {
                if kind != EntryKind::File {
                    data.clear();
                }
                let size = data.len() as u64;
                (Entry { path, kind, mode, uid, gid, mtime, size, xattrs, sparse: None }, data)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn what_is_written_is_read(entries in prop::collection::vec(any_entry(), 0..6)) {
            let archive = write_all(&entries);
            prop_assert_eq!(archive.len() % BLOCK, 0);
            prop_assert_eq!(read_all(&archive).expect("own output"), entries);
        }

        #[test]
        fn another_decoder_agrees(entries in prop::collection::vec(any_entry(), 0..4)) {
            // The other decoder ends a pax record at the first newline, inside of a value too.
            let plain = |e: &Entry| {
                let link = match &e.kind {
                    EntryKind::Symlink(link) | EntryKind::HardLink(link) => &link[..],
                    _ => b"",
                };
                ![&e.path[..], link].into_iter().chain(e.xattrs.values().map(Vec::as_slice)).any(|v| v.contains(&b'\n'))
            };
            let entries: Vec<Read1> = entries.into_iter().filter(|(e, _)| plain(e)).collect();
            let archive = write_all(&entries);
            let mut other = tar::Archive::new(&archive[..]);
            let mut seen = 0;
            for (theirs, (ours, data)) in other.entries().expect("readable").zip(&entries) {
                let mut theirs = theirs.expect("readable");
                let path = theirs.path_bytes().into_owned();
                prop_assert_eq!(path.strip_suffix(b"/").unwrap_or(&path), &ours.path[..]);
                if let EntryKind::Symlink(link) | EntryKind::HardLink(link) = &ours.kind {
                    let target = theirs.link_name_bytes().expect("has a target");
                    prop_assert_eq!(&*target, &link[..]);
                }
                let mut content = Vec::new();
                theirs.read_to_end(&mut content).expect("readable");
                prop_assert_eq!(&content, data);
                seen += 1;
            }
            prop_assert_eq!(seen, entries.len());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let _ = read_all(&bytes);
        }

        #[test]
        fn a_damaged_archive_never_panics(entry in any_entry(), at in any::<prop::sample::Index>(), byte: u8, fix: bool) {
            let mut archive = write_all(&[entry]);
            let at = at.index(archive.len());
            archive[at] = byte;
            if fix {
                // With good checksums the damage gets past the first check.
                for block in archive.chunks_exact_mut(BLOCK).filter(|b| &b[257..262] == b"ustar") {
                    block[148..156].fill(b' ');
                    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
                    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
                }
            }
            let _ = read_all(&archive);
        }
    }

    #[test]
    fn numbers() {
        for (field, want) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"\x80\0\0\0\0\0\x01\x02", Some(258)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(signed_number(field), want, "{field:?}");
        }
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff"), None);
    }
}
