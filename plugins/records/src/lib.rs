//! Cache records as values: what cache backends keep, how it is written, how it is found.
//!
//! For backends, which are components, and for their tests and fuzzers, which are not: nothing here
//! calls a host or knows its types. `wbuild-cache` hands it on.
//!
//! - [`codec`]: numbers, texts and lists as bytes;
//! - [`document`]: many records as one document, for caches that lie elsewhere;
//! - [`Table`]: records in memory, found by their keys;
//! - [`session`]: what an instance has opened, and what it may do with it.

pub mod codec;
pub mod document;
mod prune;
pub mod session;
mod table;

use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;

pub use prune::{PruneOptions, Pruned};
pub use table::{PER_KEY, Table};

/// Ordered key/value pairs.
pub type Attrs = Vec<(String, String)>;

/// A digest: sha256, the only algorithm there is at present.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Reads `sha256:` and 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Hash> {
        let hex = text.strip_prefix("sha256:")?.as_bytes();
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut out = [0; 32];
        if hex.len() != 64 {
            return None;
        }
        for (byte, pair) in out.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Hash(out))
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A layer, as the host describes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layer {
    /// Of its bytes as transferred.
    pub digest: Hash,
    /// In bytes, as transferred.
    pub size: u64,
    /// OCI media type.
    pub media_type: String,
    /// Digest of the uncompressed tar.
    pub diff_id: Option<Hash>,
    /// Size of the uncompressed tar.
    pub uncompressed_size: Option<u64>,
    /// Kept as they are.
    pub attrs: Attrs,
}

/// What one solved output is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of the result. Records of one id and different attributes are different records.
    pub id: Hash,
    /// Facts of the host, kept as they are.
    pub attrs: Attrs,
    /// Seconds since 1970.
    pub created: u64,
    /// By which it is found; at least one.
    pub keys: BTreeSet<Hash>,
    /// Bottom first. Chains share their layers.
    pub layers: Vec<Rc<Layer>>,
}

#[cfg(test)]
pub(crate) mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    pub fn hash() -> impl Strategy<Value = Hash> {
        // Few of them, so that records meet.
        (0u8..6).prop_map(|n| Hash([n; 32]))
    }

    pub fn attrs() -> impl Strategy<Value = Attrs> {
        prop::collection::vec((".{0,6}", ".{0,6}"), 0..3)
    }

    fn layer() -> impl Strategy<Value = Rc<Layer>> {
        let sizes = (any::<u64>(), prop::option::of(any::<u64>()));
        (hash(), sizes, ".{0,12}", prop::option::of(hash()), attrs()).prop_map(
            |(digest, (size, uncompressed_size), media_type, diff_id, attrs)| {
                Rc::new(Layer { digest, size, media_type, diff_id, uncompressed_size, attrs })
            },
        )
    }

    pub fn record() -> impl Strategy<Value = Record> {
        let keys = prop::collection::btree_set(hash(), 1..4);
        let layers = prop::collection::vec(layer(), 0..4);
        (hash(), attrs(), 0u64..50, keys, layers).prop_map(|(id, attrs, created, keys, layers)| {
            Record { id, attrs, created, keys, layers }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        let text = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(Hash::parse(&text), Some(Hash([15; 32])));
        assert_eq!(Hash([15; 32]).to_string(), text);
        let short = &text[..text.len() - 1];
        let upper = text.to_uppercase().replace("SHA", "sha");
        let other = text.replace("256", "512");
        let hex = &text[7..];
        let wide = format!("{text}0");
        for bad in [short, &upper, &other, hex, &wide, "", "sha256:", "sha256:é"] {
            assert_eq!(Hash::parse(bad), None, "{bad}");
        }
    }
}
