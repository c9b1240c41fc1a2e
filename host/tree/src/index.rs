//! What is known of a context's files from earlier builds, so that an unchanged file is not read
//! again.
//!
//! A file is unchanged if size, mtime, ctime, inode and mode are the same. A file that was written
//! to so shortly before it was hashed that a later write could leave the same times is never
//! remembered; it is hashed again next time.
//!
//! # Format, version 1
//!
//! ```text
//! "wbuild.index\n" version u32 count u32
//! records, sorted by path in walk order:
//!   length of path u16, age u8, mode u16, size u64, inode u64,
//!   mtime i64 s, u32 ns, ctime i64 s, u32 ns, sha256 32 bytes, path
//! sha256 of everything before it
//! ```
//!
//! Numbers are little endian. `age` counts saves since the record was last of use; old records
//! are dropped. Anything that is not exactly this is an empty index: it costs a build's time, not
//! its result. The record is a claim about the user's own directory and lies in his own state
//! directory; the checksum is against accidents, not against him.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::content::Sha;
use crate::path::{RelPath, walk_order};
use crate::stat::{Stat, Timestamp};

const MAGIC: &[u8] = b"wbuild.index\n";
const VERSION: u32 = 1;
const HEAD: usize = MAGIC.len() + 8;
/// Bytes of a record before its path.
const FIXED: usize = 2 + 1 + 2 + 8 + 8 + 12 + 12 + 32;
/// A record that was of no use for so many saves is dropped.
const MAX_AGE: u8 = 16;
/// File systems stamp with the kernel's tick (at most 10 ms), so a write within it may go unseen.
const TICK: i128 = 50_000_000;
/// File systems that store whole seconds, or even ones (FAT).
const COARSE: i128 = 2_000_000_000;

/// See the module's description. One for each context directory.
#[derive(Debug, Default)]
pub struct DigestIndex {
    /// As loaded; empty if nothing was.
    data: Vec<u8>,
    /// Where each record begins in `data`.
    at: Vec<u32>,
    /// Which loaded records were of use.
    used: Vec<bool>,
    /// Found since then; wins over what was loaded.
    fresh: BTreeMap<RelPath, (Record, Sha)>,
}

/// What must be the same for a file to be unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    mode: u16,
    size: u64,
    inode: u64,
    mtime: Timestamp,
    ctime: Timestamp,
}

impl Record {
    fn of(stat: &Stat) -> Record {
        Record {
            mode: u16::try_from(stat.mode & 0o7777).expect("12 bits"),
            size: stat.size,
            inode: stat.inode,
            mtime: stat.mtime,
            ctime: stat.ctime,
        }
    }
}

/// Whether a write after the hashing could leave the same times.
fn is_racy(stat: &Stat, hashed_at: Timestamp) -> bool {
    let coarse = stat.mtime.nanos == 0 && stat.ctime.nanos == 0;
    let latest = stat.mtime.max(stat.ctime).as_nanos();
    latest + if coarse { COARSE } else { TICK } >= hashed_at.as_nanos()
}

/// Remembers where the last look-up ended: look-ups in walk order then cost one comparison.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor(usize);

impl DigestIndex {
    /// Knows nothing.
    pub fn new() -> DigestIndex {
        DigestIndex::default()
    }

    /// Reads what [`DigestIndex::encode`] wrote; anything else is an empty index.
    pub fn decode(data: Vec<u8>) -> DigestIndex {
        match offsets(&data) {
            Some(at) => {
                let used = vec![false; at.len()];
                DigestIndex { data, at, used, fresh: BTreeMap::new() }
            }
            None => DigestIndex::default(),
        }
    }

    /// Number of files known.
    pub fn len(&self) -> usize {
        let replaced = self.fresh.keys().filter(|path| self.find(path.as_bytes()).is_ok()).count();
        self.at.len() + self.fresh.len() - replaced
    }

    /// Whether no file is known.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty() && self.fresh.is_empty()
    }

    /// Whether something was learnt that is worth saving.
    pub fn is_changed(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// The digest of a file's contents, if the file is unchanged since it was hashed. `path` is
    /// relative to the context.
    pub fn get(&self, path: &RelPath, stat: &Stat) -> Option<Sha> {
        let record = Record::of(stat);
        if let Some((known, sha)) = self.fresh.get(path) {
            return (*known == record).then_some(*sha);
        }
        self.matching(self.find(path.as_bytes()).ok()?, &record)
    }

    /// Like [`DigestIndex::get`], for look-ups in walk order; marks the record as used.
    pub(crate) fn get_next(
        &mut self,
        path: &[u8],
        stat: &Stat,
        cursor: &mut Cursor,
    ) -> Option<Sha> {
        let record = Record::of(stat);
        if !self.fresh.is_empty()
            && let Some((known, sha)) = self.fresh.get(&RelPath::trusted(path))
        {
            return (*known == record).then_some(*sha);
        }
        let at = if cursor.0 < self.at.len() && self.path(cursor.0) == path {
            cursor.0
        } else {
            match self.find(path) {
                Ok(at) => at,
                Err(at) => {
                    cursor.0 = at;
                    return None;
                }
            }
        };
        cursor.0 = at + 1;
        let sha = self.matching(at, &record)?;
        self.used[at] = true;
        Some(sha)
    }

    /// Remembers a digest. `hashed_at` is the time before the file was read.
    pub fn record(&mut self, path: &RelPath, stat: &Stat, sha: Sha, hashed_at: Timestamp) {
        if is_racy(stat, hashed_at) || path.as_bytes().len() > usize::from(u16::MAX) {
            return;
        }
        self.fresh.insert(path.clone(), (Record::of(stat), sha));
    }

    /// The index for the next build.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.data.len() + self.fresh.len() * 128 + 64);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        let mut count: u32 = 0;
        let mut fresh = self.fresh.iter().peekable();
        let mut put = |path: &[u8], age: u8, record: &Record, sha: &Sha| {
            let len = u16::try_from(path.len()).expect("checked when it was recorded");
            out.extend_from_slice(&len.to_le_bytes());
            out.push(age);
            out.extend_from_slice(&record.mode.to_le_bytes());
            out.extend_from_slice(&record.size.to_le_bytes());
            out.extend_from_slice(&record.inode.to_le_bytes());
            for time in [record.mtime, record.ctime] {
                out.extend_from_slice(&time.secs.to_le_bytes());
                out.extend_from_slice(&time.nanos.to_le_bytes());
            }
            out.extend_from_slice(sha);
            out.extend_from_slice(path);
            count += 1;
        };
        for at in 0..self.at.len() {
            let path = self.path(at);
            let mut replaced = false;
            while let Some((name, (record, sha))) = fresh.peek() {
                let order = walk_order(name.as_bytes(), path);
                if order == Ordering::Greater {
                    break;
                }
                replaced |= order == Ordering::Equal;
                put(name.as_bytes(), 0, record, sha);
                fresh.next();
            }
            let age = if self.used[at] { 0 } else { self.age(at).saturating_add(1) };
            if !replaced && age <= MAX_AGE {
                let (record, sha) = self.stored(at);
                put(path, age, &record, &sha);
            }
        }
        for (name, (record, sha)) in fresh {
            put(name.as_bytes(), 0, record, sha);
        }
        out[HEAD - 4..HEAD].copy_from_slice(&count.to_le_bytes());
        let check: Sha = Sha256::digest(&out).into();
        out.extend_from_slice(&check);
        out
    }

    fn find(&self, path: &[u8]) -> Result<usize, usize> {
        self.at.binary_search_by(|at| walk_order(record_path(&self.data, *at as usize), path))
    }

    fn path(&self, index: usize) -> &[u8] {
        record_path(&self.data, self.at[index] as usize)
    }

    fn age(&self, index: usize) -> u8 {
        self.data[self.at[index] as usize + 2]
    }

    fn matching(&self, index: usize, wanted: &Record) -> Option<Sha> {
        let (record, sha) = self.stored(index);
        (record == *wanted).then_some(sha)
    }

    fn stored(&self, index: usize) -> (Record, Sha) {
        let bytes = &self.data[self.at[index] as usize..][..FIXED];
        fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
            bytes[at..at + N].try_into().expect("the length is constant")
        }
        let time = |at| Timestamp {
            secs: i64::from_le_bytes(take(bytes, at)),
            nanos: u32::from_le_bytes(take(bytes, at + 8)),
        };
        let record = Record {
            mode: u16::from_le_bytes(take(bytes, 3)),
            size: u64::from_le_bytes(take(bytes, 5)),
            inode: u64::from_le_bytes(take(bytes, 13)),
            mtime: time(21),
            ctime: time(33),
        };
        (record, take(bytes, 45))
    }
}

/// Where the records begin; `None` if the data is not a valid index.
fn offsets(data: &[u8]) -> Option<Vec<u32>> {
    let (body, check) = data.split_at_checked(data.len().checked_sub(32)?)?;
    let rest = body.strip_prefix(MAGIC)?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    let (count, _) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || Sha256::digest(body)[..] != *check {
        return None;
    }
    let count = u32::from_le_bytes(*count) as usize;
    if count > body.len() / FIXED || u32::try_from(body.len()).is_err() {
        return None;
    }
    let mut at = Vec::with_capacity(count);
    let mut next = HEAD;
    for _ in 0..count {
        let len = body.get(next..next + 2)?;
        let end = next + FIXED + usize::from(u16::from_le_bytes([len[0], len[1]]));
        let path = body.get(next + FIXED..end)?;
        if let Some(last) = at.last()
            && walk_order(record_path(body, *last as usize), path) != Ordering::Less
        {
            return None;
        }
        at.push(u32::try_from(next).ok()?);
        next = end;
    }
    (next == body.len()).then_some(at)
}

fn record_path(data: &[u8], at: usize) -> &[u8] {
    let len = u16::from_le_bytes([data[at], data[at + 1]]);
    &data[at + FIXED..at + FIXED + usize::from(len)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stat::Kind;
    use proptest::prelude::*;

    fn stat(size: u64, mtime: i64) -> Stat {
        Stat {
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            size,
            allocated: 0,
            inode: 5,
            device: (0, 0),
            rdev: (0, 0),
            mtime: Timestamp { secs: mtime, nanos: 1 },
            ctime: Timestamp { secs: mtime, nanos: 1 },
        }
    }

    fn path(text: &str) -> RelPath {
        RelPath::clean(text).unwrap()
    }

    const LATER: Timestamp = Timestamp { secs: 1_000_000, nanos: 0 };

    #[test]
    fn remembers_across_saving() {
        let mut index = DigestIndex::new();
        for (name, sha) in [("b", 2), ("a/x", 1), ("a.b", 3), ("a", 9)] {
            index.record(&path(name), &stat(1, 10), [sha; 32], LATER);
        }
        let mut index = DigestIndex::decode(index.encode());
        assert_eq!(index.len(), 4);
        assert!(!index.is_changed());
        assert_eq!(index.get(&path("a/x"), &stat(1, 10)), Some([1; 32]));
        assert_eq!(index.get(&path("a/y"), &stat(1, 10)), None);
        let mut cursor = Cursor::default();
        for (name, sha) in [("a", 9), ("a/x", 1), ("a.b", 3), ("b", 2)] {
            let found = index.get_next(name.as_bytes(), &stat(1, 10), &mut cursor);
            assert_eq!(found, Some([sha; 32]), "{name}");
        }
        index.record(&path("a/x"), &stat(2, 10), [7; 32], LATER);
        index.record(&path("c"), &stat(2, 10), [8; 32], LATER);
        let index = DigestIndex::decode(index.encode());
        assert_eq!(index.len(), 5);
        assert_eq!(index.get(&path("a/x"), &stat(1, 10)), None);
        assert_eq!(index.get(&path("a/x"), &stat(2, 10)), Some([7; 32]));
        assert_eq!(index.get(&path("b"), &stat(1, 10)), Some([2; 32]));
    }

    #[test]
    fn any_difference_is_a_miss() {
        let mut index = DigestIndex::new();
        let known = stat(1, 10);
        index.record(&path("f"), &known, [1; 32], LATER);
        let changes: [fn(&mut Stat); 6] = [
            |s| s.size = 2,
            |s| s.mtime.nanos = 2,
            |s| s.mtime.secs = 11,
            |s| s.ctime.nanos = 2,
            |s| s.inode = 6,
            |s| s.mode = 0o755,
        ];
        for change in changes {
            let mut other = known;
            change(&mut other);
            assert_eq!(index.get(&path("f"), &other), None);
        }
        let mut other = known;
        other.uid = 1000;
        assert_eq!(index.get(&path("f"), &other), Some([1; 32]));
    }

    #[test]
    fn files_written_just_before_hashing_are_not_remembered() {
        let at = |secs, nanos| Timestamp { secs, nanos };
        for (time, hashed_at, racy) in [
            (at(10, 1), at(10, 1), true),
            (at(10, 1), at(10, 40_000_000), true),
            (at(10, 1), at(10, 60_000_000), false),
            (at(10, 1), at(9, 0), true),
            (at(10, 0), at(11, 0), true),
            (at(10, 0), at(12, 1), false),
        ] {
            let mut stat = stat(1, 0);
            stat.mtime = time;
            stat.ctime = time;
            assert_eq!(is_racy(&stat, hashed_at), racy, "{time:?} {hashed_at:?}");
            let mut index = DigestIndex::new();
            index.record(&path("f"), &stat, [1; 32], hashed_at);
            assert_eq!(index.get(&path("f"), &stat).is_none(), racy);
        }
        // An old mtime does not hide a fresh change.
        let mut stat = stat(1, 0);
        stat.ctime = at(10, 1);
        assert!(is_racy(&stat, at(10, 2)));
    }

    #[test]
    fn unused_records_fade() {
        let mut index = DigestIndex::new();
        index.record(&path("old"), &stat(1, 1), [1; 32], LATER);
        for _ in 0..MAX_AGE {
            index = DigestIndex::decode(index.encode());
            assert_eq!(index.len(), 1);
        }
        let mut used = DigestIndex::decode(index.encode());
        assert_eq!(used.get_next(b"old", &stat(1, 1), &mut Cursor::default()), Some([1; 32]));
        assert_eq!(DigestIndex::decode(used.encode()).len(), 1);
        let index = DigestIndex::decode(index.encode());
        assert_eq!(DigestIndex::decode(index.encode()).len(), 0);
    }

    proptest! {
        #[test]
        fn damage_gives_an_empty_index(at in 0_usize..400, bit in 0..8) {
            let mut index = DigestIndex::new();
            for name in ["a", "b/c", "d"] {
                index.record(&path(name), &stat(1, 10), [1; 32], LATER);
            }
            let good = index.encode();
            let mut bad = good.clone();
            let at = at % bad.len();
            bad[at] ^= 1_u8 << bit;
            prop_assert!(DigestIndex::decode(bad).is_empty());
            prop_assert!(DigestIndex::decode(good[..at].to_vec()).is_empty());
        }

        #[test]
        fn never_panics(data: Vec<u8>) {
            let mut framed = [MAGIC, &VERSION.to_le_bytes(), &data].concat();
            framed.extend_from_slice(&Sha256::digest(&framed));
            for data in [data, framed] {
                let mut index = DigestIndex::decode(data);
                index.get_next(b"a", &stat(1, 1), &mut Cursor::default());
                index.encode();
            }
        }
    }
}
