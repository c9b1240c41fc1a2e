//! How records are written in the buckets.
//!
//! ```text
//! value      = version byte (1), body
//! record     body = id text, keys list of text, created number, attrs, layers list of layer
//! layer           = media type text, digest text, size number, diff id option text,
//!                   uncompressed size option number, attrs
//! index      body = list of (created number, record name text)
//! ```
//!
//! with numbers, texts, lists, options and attrs as in `cache_records::codec`. A value that does not follow this to the last byte, or has another version, is unreadable as a
//! whole: the record is a miss, never a wrong hit.

use cache_records::codec::{Reader, Writer};

use crate::bindings::exports::wbuild::cache::backend::RecordEntry;
use crate::bindings::wbuild::cache::blobs::Descriptor;

const VERSION: u8 = 1;

/// An index value: the records under one key, each with the time it was made.
pub type Index = Vec<(u64, String)>;

fn begin() -> Writer {
    Writer(vec![VERSION])
}

fn read(bytes: &[u8]) -> Option<Reader<'_>> {
    let (version, body) = bytes.split_first()?;
    (*version == VERSION).then_some(Reader(body))
}

/// Writes a record.
pub fn encode_record(record: &RecordEntry) -> Vec<u8> {
    let mut out = begin();
    out.text(&record.id);
    out.list(record.keys.iter(), |out, key| out.text(key));
    out.number(record.created);
    out.attrs(&record.attrs);
    out.list(record.layers.iter(), |out, layer| {
        out.text(&layer.media_type);
        out.text(&layer.digest);
        out.number(layer.size);
        out.option(layer.diff_id.as_ref(), |out, diff_id| out.text(diff_id));
        out.option(layer.uncompressed_size, Writer::number);
        out.attrs(&layer.attrs);
    });
    out.0
}

/// Reads a record; `None` if it is unreadable.
pub fn decode_record(bytes: &[u8]) -> Option<RecordEntry> {
    let mut from = read(bytes)?;
    let record = RecordEntry {
        id: from.text()?,
        keys: from.list(Reader::text)?,
        created: from.number()?,
        attrs: from.attrs()?,
        layers: from.list(|from| {
            Some(Descriptor {
                media_type: from.text()?,
                digest: from.text()?,
                size: from.number()?,
                diff_id: from.option(Reader::text)?,
                uncompressed_size: from.option(Reader::number)?,
                attrs: from.attrs()?,
            })
        })?,
    };
    from.end().then_some(record)
}

/// Writes an index value.
pub fn encode_index(index: &Index) -> Vec<u8> {
    let mut out = begin();
    out.list(index.iter(), |out, (created, name)| {
        out.number(*created);
        out.text(name);
    });
    out.0
}

/// Reads an index value; `None` if it is unreadable.
pub fn decode_index(bytes: &[u8]) -> Option<Index> {
    let mut from = read(bytes)?;
    let index = from.list(|from| Some((from.number()?, from.text()?)))?;
    from.end().then_some(index)
}

/// Writes attributes alone, to tell two lists of them apart.
pub fn encode_attrs(attrs: &[(String, String)]) -> Vec<u8> {
    let mut out = begin();
    out.attrs(attrs);
    out.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attrs() -> impl Strategy<Value = Vec<(String, String)>> {
        prop::collection::vec((".{0,8}", ".{0,8}"), 0..4)
    }

    fn layer() -> impl Strategy<Value = Descriptor> {
        (
            ".{0,20}",
            ".{0,20}",
            any::<u64>(),
            prop::option::of(".{0,20}"),
            prop::option::of(any::<u64>()),
            attrs(),
        )
            .prop_map(|(media_type, digest, size, diff_id, uncompressed_size, attrs)| {
                Descriptor { media_type, digest, size, diff_id, uncompressed_size, attrs }
            })
    }

    fn record() -> impl Strategy<Value = RecordEntry> {
        (
            prop::collection::vec(".{0,20}", 0..4),
            ".{0,20}",
            prop::collection::vec(layer(), 0..4),
            any::<u64>(),
            attrs(),
        )
            .prop_map(|(keys, id, layers, created, attrs)| RecordEntry {
                keys,
                id,
                layers,
                created,
                attrs,
            })
    }

    proptest! {
        #[test]
        fn records_come_back_and_no_prefix_does(record in record()) {
            let bytes = encode_record(&record);
            let back = decode_record(&bytes);
            prop_assert_eq!(back.as_ref(), Some(&record));
            for cut in 0..bytes.len() {
                prop_assert!(decode_record(&bytes[..cut]).is_none());
            }
            let longer = [bytes, vec![0]].concat();
            prop_assert!(decode_record(&longer).is_none());
        }

        #[test]
        fn indexes_come_back(index in prop::collection::vec((any::<u64>(), ".{0,20}"), 0..6)) {
            prop_assert_eq!(decode_index(&encode_index(&index)), Some(index));
        }

        #[test]
        fn what_is_read_is_written_the_same_way(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = [vec![VERSION], bytes].concat();
            if let Some(record) = decode_record(&bytes) {
                prop_assert_eq!(encode_record(&record), bytes.clone());
            }
            if let Some(index) = decode_index(&bytes) {
                prop_assert_eq!(encode_index(&index), bytes);
            }
        }
    }

    #[test]
    fn the_format_is_pinned() {
        let record = RecordEntry {
            keys: vec!["k".into()],
            id: "i".into(),
            layers: vec![Descriptor {
                media_type: "m".into(),
                digest: "d".into(),
                size: 300,
                diff_id: Some("f".into()),
                uncompressed_size: None,
                attrs: vec![("a".into(), "b".into())],
            }],
            created: 1,
            attrs: Vec::new(),
        };
        let want: &[u8] =
            b"\x01\x01i\x01\x01k\x01\x00\x01\x01m\x01d\xac\x02\x01\x01f\x00\x01\x01a\x01b";
        assert_eq!(encode_record(&record), want);
    }

    #[test]
    fn refuses_other_versions() {
        assert_eq!(decode_index(b""), None);
        assert_eq!(decode_index(b"\x02\x00"), None);
        assert_eq!(decode_index(b"\x01\x00"), Some(Vec::new()));
    }
}
