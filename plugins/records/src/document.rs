//! Many records as one document: what a cache elsewhere is found by.
//!
//! ```text
//! document = magic "wbuild cache records" (20 bytes), version (1 byte: 1), body,
//!            sha256 of all that precedes (32 bytes)
//! body     = layers list of layer, records list of record
//! layer    = digest (32 bytes), size number, media type text, diff id option of 32 bytes,
//!            uncompressed size option of number, attrs
//! record   = id (32 bytes), attrs, created number, keys list of 32 bytes,
//!            layers list of number (places in the list of layers)
//! ```
//!
//! with numbers, texts, lists, options and attrs as in [`codec`](crate::codec). Layers are sorted, each
//! is there once and used by a record; keys are sorted; records are sorted by id and attributes, of
//! which no two have both in common. So a document is a function of its records alone.
//!
//! The checksum tells a damaged document from a whole one. It proves nothing about who wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use crate::codec::{Reader, Writer};
use crate::{Hash, Layer, Record};

const MAGIC: &[u8; 20] = b"wbuild cache records";
const VERSION: u8 = 1;
/// Bytes of the checksum.
const CHECKSUM: usize = 32;

/// Media type of a document.
pub const MEDIA_TYPE: &str = "application/vnd.wbuild.cache.records.v1";
/// Largest document, in bytes: what a cache backend can write at once.
pub const MAX_BYTES: usize = 4 << 20;
/// Most layers of a document: what the manifest of one image may list.
pub const MAX_LAYERS: usize = 10_000;
/// Most layers of one record.
pub const MAX_CHAIN: usize = 1_000;
/// Most keys of one record.
pub const MAX_KEYS: usize = 10_000;

/// Why a document is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It is none of ours.
    Foreign,
    /// It is ours, of a version that is not known here.
    Version(u8),
    /// Bytes are missing or changed, or it says what none can say.
    Damaged,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unreadable::Foreign => f.write_str("it is no document of cache records"),
            Unreadable::Version(version) => write!(f, "it has the unknown version {version}"),
            Unreadable::Damaged => f.write_str("it is damaged"),
        }
    }
}

/// Writes a document.
pub fn encode<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<u8> {
    let mut sorted: Vec<&Record> = records.into_iter().collect();
    sorted.sort_by(|a, b| (&a.id, &a.attrs).cmp(&(&b.id, &b.attrs)));
    sorted.dedup_by(|a, b| a.id == b.id && a.attrs == b.attrs);
    let layers: BTreeSet<&Layer> =
        sorted.iter().flat_map(|record| &record.layers).map(|layer| &**layer).collect();
    let places: BTreeMap<&Layer, u64> = layers.iter().copied().zip(0..).collect();

    let mut out = Writer(MAGIC.to_vec());
    out.bytes(&[VERSION]);
    out.list(layers.iter(), |out, layer| {
        out.bytes(&layer.digest.0);
        out.number(layer.size);
        out.text(&layer.media_type);
        out.option(layer.diff_id.as_ref(), |out, diff_id| out.bytes(&diff_id.0));
        out.option(layer.uncompressed_size, Writer::number);
        out.attrs(&layer.attrs);
    });
    out.list(sorted.iter(), |out, record| {
        out.bytes(&record.id.0);
        out.attrs(&record.attrs);
        out.number(record.created);
        out.list(record.keys.iter(), |out, key| out.bytes(&key.0));
        out.list(record.layers.iter(), |out, layer| out.number(places[&**layer]));
    });
    let checksum = Sha256::digest(&out.0);
    out.bytes(&checksum);
    out.0
}

/// Reads a document.
pub fn decode(bytes: &[u8]) -> Result<Vec<Record>, Unreadable> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else { return Err(Unreadable::Foreign) };
    let Some((version, _)) = rest.split_first() else { return Err(Unreadable::Damaged) };
    if *version != VERSION {
        return Err(Unreadable::Version(*version));
    }
    if bytes.len() > MAX_BYTES {
        return Err(Unreadable::Damaged);
    }
    let body = bytes.len().checked_sub(CHECKSUM).and_then(|at| bytes.split_at_checked(at));
    let Some((content, checksum)) = body else { return Err(Unreadable::Damaged) };
    if content.len() <= MAGIC.len() || Sha256::digest(content)[..] != *checksum {
        return Err(Unreadable::Damaged);
    }
    decode_body(&content[MAGIC.len() + 1..]).ok_or(Unreadable::Damaged)
}

fn hash(from: &mut Reader<'_>) -> Option<Hash> {
    from.array().map(Hash)
}

/// Whether each is behind the one before it.
fn ascends<T: Ord>(items: &[T]) -> bool {
    items.is_sorted_by(|a, b| a < b)
}

fn decode_body(body: &[u8]) -> Option<Vec<Record>> {
    let mut from = Reader(body);
    let layers = from.bounded(MAX_LAYERS as u64, |from| {
        Some(Rc::new(Layer {
            digest: hash(from)?,
            size: from.number()?,
            media_type: from.text()?,
            diff_id: from.option(hash)?,
            uncompressed_size: from.option(Reader::number)?,
            attrs: from.attrs()?,
        }))
    })?;
    let mut used = vec![false; layers.len()];
    let records = from.list(|from| {
        let (id, attrs, created) = (hash(from)?, from.attrs()?, from.number()?);
        let keys = from.bounded(MAX_KEYS as u64, hash)?;
        let places = from.bounded(MAX_CHAIN as u64, Reader::number)?;
        let chain = places.into_iter().map(|place| {
            let place = usize::try_from(place).ok()?;
            *used.get_mut(place)? = true;
            layers.get(place).cloned()
        });
        let layers = chain.collect::<Option<Vec<_>>>()?;
        if keys.is_empty() || !ascends(&keys) {
            return None;
        }
        Some(Record { id, attrs, created, keys: keys.into_iter().collect(), layers })
    })?;
    let names: Vec<_> = records.iter().map(|record| (&record.id, &record.attrs)).collect();
    let orderly =
        from.end() && ascends(&layers) && ascends(&names) && used.iter().all(|used| *used);
    orderly.then_some(records)
}

/// Makes the checksum fit what precedes it: for tests and fuzzers that want to get past it.
pub fn mend(document: &mut [u8]) {
    if let Some(at) = document.len().checked_sub(CHECKSUM) {
        let checksum = Sha256::digest(&document[..at]);
        document[at..].copy_from_slice(&checksum);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary;

    /// Without those that have id and attributes in common.
    fn distinct(mut records: Vec<Record>) -> Vec<Record> {
        records.sort_by(|a, b| (&a.id, &a.attrs).cmp(&(&b.id, &b.attrs)));
        records.dedup_by(|a, b| a.id == b.id && a.attrs == b.attrs);
        records
    }

    proptest! {
        #[test]
        fn documents_come_back_whatever_the_order(
            records in prop::collection::vec(arbitrary::record(), 0..8),
        ) {
            let records = distinct(records);
            let bytes = encode(&records);
            let back = decode(&bytes);
            prop_assert_eq!(back.as_ref(), Ok(&records));
            prop_assert_eq!(encode(records.iter().rev()), bytes);
        }

        #[test]
        fn no_part_and_no_change_is_read(
            records in prop::collection::vec(arbitrary::record(), 0..3),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let bytes = encode(&distinct(records));
            prop_assert!(decode(&bytes[..at.index(bytes.len())]).is_err());
            prop_assert!(decode(&[&bytes[..], b"\0"].concat()).is_err());
            let mut changed = bytes;
            let at = at.index(changed.len());
            changed[at] ^= 1 << bit;
            prop_assert!(decode(&changed).is_err());
        }

        #[test]
        fn what_is_read_is_written_the_same_way(body in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = [&MAGIC[..], &[VERSION], &body, &[0; CHECKSUM]].concat();
            mend(&mut bytes);
            if let Ok(records) = decode(&bytes) {
                prop_assert_eq!(encode(&records), bytes);
            }
        }
    }

    #[test]
    fn the_format_is_pinned() {
        let layer = Layer {
            digest: Hash([2; 32]),
            size: 300,
            media_type: "m".into(),
            diff_id: Some(Hash([3; 32])),
            uncompressed_size: None,
            attrs: vec![("a".into(), "b".into())],
        };
        let record = Record {
            id: Hash([1; 32]),
            attrs: Vec::new(),
            created: 5,
            keys: [Hash([4; 32])].into(),
            layers: vec![Rc::new(layer)],
        };
        let want = [
            &b"wbuild cache records\x01"[..],
            b"\x01",
            &[2; 32],
            b"\xac\x02\x01m\x01",
            &[3; 32],
            b"\x00\x01\x01a\x01b",
            b"\x01",
            &[1; 32],
            b"\x00\x05\x01",
            &[4; 32],
            b"\x01\x00",
        ]
        .concat();
        let bytes = encode([&record]);
        assert_eq!(bytes[..bytes.len() - CHECKSUM], want);
        assert_eq!(decode(&bytes), Ok(vec![record]));
    }

    #[test]
    fn what_is_none_is_told_apart() {
        let empty = encode([]);
        assert_eq!(decode(&empty), Ok(Vec::new()));
        assert_eq!(decode(b""), Err(Unreadable::Foreign));
        assert_eq!(decode(b"{}"), Err(Unreadable::Foreign));
        assert_eq!(decode(MAGIC), Err(Unreadable::Damaged));
        assert_eq!(decode(&[&MAGIC[..], b"\x02 whatever"].concat()), Err(Unreadable::Version(2)));
        let large = [&MAGIC[..], &[VERSION], &vec![0; MAX_BYTES]].concat();
        assert_eq!(decode(&large), Err(Unreadable::Damaged));
        // A layer that no record uses; a record without a key.
        let layer = [&[0; 32][..], b"\x00\x00\x00\x00\x00"].concat();
        let record = [&[0; 32][..], b"\x00\x00\x00\x00"].concat();
        for body in [[b"\x01", &layer[..], b"\x00"].concat(), [b"\x00\x01", &record[..]].concat()] {
            let mut bytes = [&MAGIC[..], &[VERSION], &body, &[0; CHECKSUM]].concat();
            mend(&mut bytes);
            assert_eq!(decode(&bytes), Err(Unreadable::Damaged));
        }
    }
}
