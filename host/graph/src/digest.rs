//! Digests. One algorithm (sha256), one newtype per meaning, so that a definition's digest can
//! never be used where a file tree's is wanted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A sha256 digest. Written `sha256:<64 lower-case hex digits>`, the form of the OCI image
/// specification (descriptor.md, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest {}: expected sha256:<64 lower-case hex digits>", crate::quoted(.0))]
pub struct ParseDigestError(String);

impl Digest {
    /// Wraps raw sha256 output.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Digest(bytes)
    }

    /// Hashes `data` as it is.
    pub fn of(data: &[u8]) -> Self {
        Digest(Sha256::digest(data).into())
    }

    /// The 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits without the algorithm, for file names.
    pub fn hex(&self) -> String {
        let mut out = String::with_capacity(64);
        for byte in self.0 {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
        out
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }

    /// Reads 64 lower-case hex digits.
    pub fn from_hex(hex: &str) -> Result<Self, ParseDigestError> {
        let error = || ParseDigestError(hex.to_owned());
        let text = hex.as_bytes();
        if text.len() != 64 {
            return Err(error());
        }
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(error()),
        };
        let mut out = [0; 32];
        for (slot, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
            *slot = (nibble(pair[0])? << 4) | nibble(pair[1])?;
        }
        Ok(Digest(out))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("sha256:") {
            Some(hex) => Digest::from_hex(hex).map_err(|_| ParseDigestError(text.to_owned())),
            None => Err(ParseDigestError(text.to_owned())),
        }
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! digest_types {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// The digest without its meaning, for encoding and file names.
            pub const fn digest(&self) -> &Digest {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map($name)
            }
        }
    )*};
}

digest_types! {
    /// Identity of a vertex by its definition: the op and, recursively, its inputs. Dedupes work
    /// inside one process; never stored.
    VertexDigest;
    /// Names a stored record; stable across builds and machines.
    CacheKey;
    /// Computed from the files of a tree: kind, mode, owner, xattrs, link target and content, never
    /// times.
    ContentDigest;
    /// Identity of a solved output: its chain of layers by content. Equal ids are interchangeable.
    ResultId;
    /// Digest of a blob's bytes as stored or transferred.
    BlobDigest;
    /// Digest of a layer's uncompressed tar (OCI image config, `rootfs.diff_ids`).
    DiffId;
    /// Identity of a stack of layers (OCI image config, "Layer ChainID").
    ChainId;
}

impl ChainId {
    /// The chain id of `diff_ids`, bottom first: `C(l0) = l0`,
    /// `C(l0..ln) = sha256(C(l0..ln-1) + " " + ln)` over the textual forms. `None` for no layers.
    pub fn of(diff_ids: &[DiffId]) -> Option<ChainId> {
        let mut chain: Option<ChainId> = None;
        for diff_id in diff_ids {
            chain = Some(match chain {
                None => ChainId(diff_id.0),
                Some(parent) => ChainId(Digest::of(format!("{parent} {diff_id}").as_bytes())),
            });
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_round_trips_and_refuses_other_forms() {
        let digest = Digest::of(b"hello");
        let text = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse::<Digest>(), Ok(digest));
        for bad in ["", "sha256:", "sha512:00", &text.to_uppercase(), &text[..70], "2cf24dba"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn chain_id_follows_the_specification() {
        let a = DiffId(Digest::of(b"a"));
        let b = DiffId(Digest::of(b"b"));
        assert_eq!(ChainId::of(&[]), None);
        assert_eq!(ChainId::of(&[a]), Some(ChainId(a.0)));
        let both = Digest::of(format!("{a} {b}").as_bytes());
        assert_eq!(ChainId::of(&[a, b]), Some(ChainId(both)));
    }
}
