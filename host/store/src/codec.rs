//! The form of a record file.
//!
//! ```text
//! "WBREC\0" version:u16    8 bytes; another version is not read
//! sha256 of all that follows
//! boot id, group            the stamp
//! the record's fields in order of declaration
//! ```
//!
//! Numbers are little-endian; a length (u32) precedes texts, bytes and lists; an optional value is
//! a byte 0, or 1 and the value. There is exactly one encoding of a record. Decoding checks the
//! checksum first, and all bytes must be used up.

use sha2::{Digest as _, Sha256};
use wbuild_graph::{Attrs, BlobDigest, CacheKey, ContentDigest, DiffId, Digest, ResultId};

use crate::boot::{BootId, Stamp};
use crate::record::{BlobRef, ExecOutcome, LayerRecord, OutputRecord, Record};
use crate::snapshot::SnapshotId;

const MAGIC: &[u8; 8] = b"WBREC\0\x01\0";
const HEADER: usize = 8 + 32;

/// Why a record file cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("it is of another format version")]
    Version,
    #[error("its checksum does not match")]
    Checksum,
    #[error("it does not follow the format")]
    Malformed,
}

/// Encodes a record file.
pub(crate) fn encode(record: &Record, stamp: &Stamp) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(1024));
    out.0.extend_from_slice(MAGIC);
    out.0.extend_from_slice(&[0; 32]);
    out.bytes(stamp.boot.as_str().as_bytes());
    out.u64(stamp.seq);
    out.list(&record.keys, |out, key| out.digest(&key.0));
    out.list(&record.outputs, Writer::output);
    out.option(record.outcome.as_ref(), |out, outcome| {
        out.0.extend_from_slice(&outcome.exit_code.to_le_bytes());
        out.bytes(&outcome.stdout);
        out.bytes(&outcome.stderr);
        out.0.push(u8::from(outcome.stdout_truncated));
        out.0.push(u8::from(outcome.stderr_truncated));
    });
    out.u64(record.created);
    out.bytes(record.description.as_bytes());
    out.list(&record.inputs, |out, id| out.digest(&id.0));
    out.list(&record.attachments, Writer::blob);
    out.attrs(&record.attrs);
    let mut out = out.0;
    let checksum: [u8; 32] = Sha256::digest(&out[HEADER..]).into();
    out[8..HEADER].copy_from_slice(&checksum);
    out
}

/// Decodes a record file.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Record, Stamp), DecodeError> {
    let body = checked_body(bytes)?;
    let mut input = Reader(body);
    parse(&mut input).filter(|_| input.0.is_empty()).ok_or(DecodeError::Malformed)
}

fn checked_body(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let Some((header, body)) = bytes.split_at_checked(HEADER) else {
        return Err(DecodeError::Checksum);
    };
    if header[..6] != MAGIC[..6] {
        return Err(DecodeError::Checksum);
    }
    if header[..8] != *MAGIC {
        return Err(DecodeError::Version);
    }
    if Sha256::digest(body)[..] != header[8..] {
        return Err(DecodeError::Checksum);
    }
    Ok(body)
}

fn parse(input: &mut Reader<'_>) -> Option<(Record, Stamp)> {
    let boot = BootId::new(&input.text()?).ok()?;
    let stamp = Stamp { boot, seq: input.u64()? };
    let record = Record {
        keys: input.list(|input| Some(CacheKey(input.digest()?)))?,
        outputs: input.list(Reader::output)?,
        outcome: input.option(|input| {
            Some(ExecOutcome {
                exit_code: i32::from_le_bytes(input.array()?),
                stdout: input.bytes()?.to_vec(),
                stderr: input.bytes()?.to_vec(),
                stdout_truncated: input.flag()?,
                stderr_truncated: input.flag()?,
            })
        })?,
        created: input.u64()?,
        description: input.text()?,
        inputs: input.list(|input| Some(ResultId(input.digest()?)))?,
        attachments: input.list(Reader::blob)?,
        attrs: input.attrs()?,
    };
    if record.keys.is_empty() { None } else { Some((record, stamp)) }
}

struct Writer(Vec<u8>);

impl Writer {
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        // A record that long would be refused when read back; files are limited far below it.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn digest(&mut self, digest: &Digest) {
        self.0.extend_from_slice(digest.as_bytes());
    }

    fn list<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        self.length(items.len());
        for value in items {
            item(self, value);
        }
    }

    fn option<T>(&mut self, value: Option<T>, item: impl FnOnce(&mut Self, T)) {
        self.0.push(u8::from(value.is_some()));
        if let Some(value) = value {
            item(self, value);
        }
    }

    fn attrs(&mut self, attrs: &Attrs) {
        self.list(&attrs.0, |out, (key, value)| {
            out.bytes(key.as_bytes());
            out.bytes(value.as_bytes());
        });
    }

    fn blob(&mut self, blob: &BlobRef) {
        self.bytes(blob.media_type.as_bytes());
        self.digest(&blob.digest.0);
        self.u64(blob.size);
    }

    fn output(&mut self, output: &OutputRecord) {
        self.option(output.result_id, |out, id| out.digest(&id.0));
        self.list(&output.layers, |out, layer| {
            out.option(layer.snapshot, |out, id| {
                out.0.extend_from_slice(&id.as_u128().to_le_bytes());
            });
            out.option(layer.content_digest, |out, id| out.digest(&id.0));
            out.option(layer.blob.as_ref(), Writer::blob);
            out.option(layer.diff_id, |out, id| out.digest(&id.0));
            out.u64(layer.size_bytes);
            out.attrs(&layer.attrs);
        });
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.array()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn digest(&mut self) -> Option<Digest> {
        self.array().map(Digest::from_bytes)
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.length()?;
        // Every element takes at least one byte, so a lying length cannot reserve memory.
        let mut out = Vec::with_capacity(length.min(self.0.len()).min(1024));
        for _ in 0..length {
            out.push(item(self)?);
        }
        Some(out)
    }

    /// `None` when malformed, `Some(None)` when absent.
    fn option<T>(&mut self, item: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.flag()? { item(self).map(Some) } else { Some(None) }
    }

    fn attrs(&mut self) -> Option<Attrs> {
        self.list(|input| Some((input.text()?, input.text()?))).map(Attrs)
    }

    fn blob(&mut self) -> Option<BlobRef> {
        Some(BlobRef {
            media_type: self.text()?,
            digest: BlobDigest(self.digest()?),
            size: self.u64()?,
        })
    }

    fn output(&mut self) -> Option<OutputRecord> {
        Some(OutputRecord {
            result_id: self.option(|input| Some(ResultId(input.digest()?)))?,
            layers: self.list(|input| {
                Some(LayerRecord {
                    snapshot: input.option(|input| {
                        Some(SnapshotId::from_u128(u128::from_le_bytes(input.array()?)))
                    })?,
                    content_digest: input.option(|input| Some(ContentDigest(input.digest()?)))?,
                    blob: input.option(Reader::blob)?,
                    diff_id: input.option(|input| Some(DiffId(input.digest()?)))?,
                    size_bytes: input.u64()?,
                    attrs: input.attrs()?,
                })
            })?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn digest() -> impl Strategy<Value = Digest> {
        any::<[u8; 32]>().prop_map(Digest::from_bytes)
    }

    fn attrs() -> impl Strategy<Value = Attrs> {
        vec((".{0,8}", ".{0,8}"), 0..3).prop_map(Attrs)
    }

    fn blob() -> impl Strategy<Value = BlobRef> {
        (".{0,20}", digest(), any::<u64>()).prop_map(|(media_type, digest, size)| BlobRef {
            media_type,
            digest: BlobDigest(digest),
            size,
        })
    }

    fn layer() -> impl Strategy<Value = LayerRecord> {
        let ids = (option::of(any::<u128>()), option::of(digest()), option::of(digest()));
        (ids, option::of(blob()), any::<u64>(), attrs()).prop_map(
            |((snapshot, content, diff), blob, size_bytes, attrs)| LayerRecord {
                snapshot: snapshot.map(SnapshotId::from_u128),
                content_digest: content.map(ContentDigest),
                blob,
                diff_id: diff.map(DiffId),
                size_bytes,
                attrs,
            },
        )
    }

    fn output() -> impl Strategy<Value = OutputRecord> {
        (option::of(digest()), vec(layer(), 0..4))
            .prop_map(|(id, layers)| OutputRecord { result_id: id.map(ResultId), layers })
    }

    fn outcome() -> impl Strategy<Value = ExecOutcome> {
        let output = (vec(any::<u8>(), 0..40), any::<bool>());
        (any::<i32>(), output.clone(), output).prop_map(|(exit_code, out, err)| ExecOutcome {
            exit_code,
            stdout: out.0,
            stderr: err.0,
            stdout_truncated: out.1,
            stderr_truncated: err.1,
        })
    }

    fn record() -> impl Strategy<Value = Record> {
        let lists = (vec(digest(), 1..4), vec(output(), 0..3), vec(digest(), 0..3));
        let rest = (option::of(outcome()), any::<u64>(), ".{0,30}", vec(blob(), 0..2), attrs());
        (lists, rest).prop_map(|((keys, outputs, inputs), rest)| Record {
            keys: keys.into_iter().map(CacheKey).collect(),
            outputs,
            outcome: rest.0,
            created: rest.1,
            description: rest.2,
            inputs: inputs.into_iter().map(ResultId).collect(),
            attachments: rest.3,
            attrs: rest.4,
        })
    }

    fn stamp() -> Stamp {
        Stamp { boot: BootId::new("boot-1").unwrap(), seq: 7 }
    }

    fn reseal(mut bytes: Vec<u8>) -> Vec<u8> {
        let checksum: [u8; 32] = Sha256::digest(&bytes[HEADER..]).into();
        bytes[8..HEADER].copy_from_slice(&checksum);
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn records_round_trip(record in record()) {
            let bytes = encode(&record, &stamp());
            prop_assert_eq!(decode(&bytes), Ok((record, stamp())));
        }

        #[test]
        fn every_flipped_bit_is_noticed(record in record(), bit in any::<prop::sample::Index>()) {
            let mut bytes = encode(&record, &stamp());
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&bytes).is_err());
        }

        /// With a right checksum over wrong bytes the parser itself must hold.
        #[test]
        fn nonsense_is_refused_or_means_exactly_itself(
            record in record(),
            at in any::<prop::sample::Index>(),
            patch in vec(any::<u8>(), 0..9),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encode(&record, &stamp());
            let at = HEADER + at.index(bytes.len() - HEADER);
            let end = (at + patch.len()).min(bytes.len());
            bytes.splice(at..end, patch);
            bytes.truncate(HEADER + cut.index(bytes.len() - HEADER + 1));
            let bytes = reseal(bytes);
            if let Ok((record, stamp)) = decode(&bytes) {
                prop_assert_eq!(encode(&record, &stamp), bytes);
            }
        }
    }

    /// The bytes on disk are a promise to later versions: this changes only with the version.
    #[test]
    fn the_format_is_pinned() {
        let digest = |n: u8| Digest::from_bytes([n; 32]);
        let record = Record {
            keys: vec![CacheKey(digest(1)), CacheKey(digest(2))],
            outputs: vec![OutputRecord {
                result_id: Some(ResultId(digest(3))),
                layers: vec![LayerRecord {
                    snapshot: Some(SnapshotId::from_u128(4)),
                    content_digest: Some(ContentDigest(digest(5))),
                    blob: Some(BlobRef {
                        media_type: "m".into(),
                        digest: BlobDigest(digest(6)),
                        size: 7,
                    }),
                    diff_id: Some(DiffId(digest(8))),
                    size_bytes: 9,
                    attrs: vec![("k".to_owned(), "v".to_owned())].into(),
                }],
            }],
            outcome: Some(ExecOutcome { exit_code: -1, ..ExecOutcome::default() }),
            created: 10,
            description: "RUN true".into(),
            inputs: vec![ResultId(digest(11))],
            attachments: Vec::new(),
            attrs: Attrs::default(),
        };
        let bytes = encode(&record, &stamp());
        assert_eq!(bytes.len(), 397);
        assert_eq!(
            Digest::of(&bytes).to_string(),
            "sha256:13b0e40dd228aa942b4a1e05bfdf5fb113b85b65b7df3341b40cfade9a40d8b7"
        );
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let mut bytes = encode(&Record::default(), &stamp());
        assert_eq!(decode(&bytes), Err(DecodeError::Malformed), "a record needs a key");
        bytes[6] = 2;
        assert_eq!(decode(&bytes), Err(DecodeError::Version));
        assert_eq!(decode(b""), Err(DecodeError::Checksum));
    }
}
