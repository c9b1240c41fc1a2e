//! Hashes under a key of this state directory: they tell equal values from others and say nothing
//! to whoever has the hash alone.
//!
//! ```text
//! hash.key     32 random bytes, readable by the owner only
//! ```
//!
//! HMAC-SHA256 (RFC 2104). The key leaves this module in no way. A lost key is made anew: then all
//! hashes are others, which costs what was found by them.

use std::io::Write as _;

use hmac::{Hmac, Mac as _};
use rustix::fs::{Mode, RenameFlags};
use rustix::io::Errno;
use sha2::Sha256;
use wbuild_graph::Digest;

use crate::error::{Error, Result};
use crate::files::{TempName, random_u128};
use crate::store::{Inner, Store};

const FILE: &str = "hash.key";
const LENGTH: usize = 32;

impl Store {
    /// The hash of a value under the key of this state directory.
    pub fn keyed_hash(&self, value: &[u8]) -> Result<Digest> {
        let key = self.inner.hash_key()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key may have any length");
        mac.update(value);
        Ok(Digest::from_bytes(mac.finalize().into_bytes().into()))
    }
}

impl Inner {
    fn hash_key(&self) -> Result<[u8; LENGTH]> {
        let kept = |bytes: Vec<u8>| <[u8; LENGTH]>::try_from(bytes).ok();
        if let Some(key) = self.root.read(FILE, LENGTH as u64)?.and_then(kept) {
            return Ok(key);
        }
        self.check_writable()?;
        // One that was torn by a power cut is no key.
        self.root.remove_file(FILE)?;
        let mut key = [0; LENGTH];
        key[..16].copy_from_slice(&random_u128()?.to_ne_bytes());
        key[16..].copy_from_slice(&random_u128()?.to_ne_bytes());
        let temp = TempName::new(&self.tmp, "hash")?;
        let mut file = self.tmp.create_new(temp.name())?;
        let failed = |error| Error::io("write", self.tmp.join(temp.name()), error);
        rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR).map_err(|e| failed(e.into()))?;
        file.write_all(&key).and_then(|()| file.sync_all()).map_err(failed)?;
        let renamed = rustix::fs::renameat_with(
            &self.tmp,
            temp.name(),
            &self.root,
            FILE,
            RenameFlags::NOREPLACE,
        );
        match renamed {
            Ok(()) => {
                temp.keep();
                Ok(key)
            }
            // Another thread was quicker: its key it is.
            Err(Errno::EXIST) => {
                self.root.read(FILE, LENGTH as u64)?.and_then(kept).ok_or_else(|| {
                    Error::io("read", self.root.join(FILE), std::io::ErrorKind::InvalidData)
                })
            }
            Err(errno) => Err(self.root.error("create", FILE, errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::open;

    #[test]
    fn hashes_are_of_the_value_and_of_the_directory() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = open(one.path());
        let hash = store.keyed_hash(b"value").unwrap();
        assert_ne!(hash, store.keyed_hash(b"valuf").unwrap());
        assert_ne!(hash, Digest::of(b"value"));
        assert_ne!(hash, open(two.path()).keyed_hash(b"value").unwrap());
        drop(store);
        assert_eq!(open(one.path()).keyed_hash(b"value").unwrap(), hash, "the key stays");
        let file = one.path().join(FILE);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        // What a power cut may leave.
        for torn in [&b""[..], b"short"] {
            std::fs::write(&file, torn).unwrap();
            let store = open(one.path());
            let other = store.keyed_hash(b"value").unwrap();
            assert_ne!(other, hash);
            assert_eq!(store.keyed_hash(b"value").unwrap(), other);
        }
    }

    #[test]
    fn several_threads_agree_on_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let hashes: Vec<Digest> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| store.keyed_hash(b"value").unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(hashes.iter().all(|hash| *hash == hashes[0]));
    }
}
