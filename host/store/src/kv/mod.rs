//! Key-value buckets: what stands behind the kv capability of cache backends, and an index of what
//! can be found out again. Never the truth about anything.
//!
//! Two implementations pass one suite of tests: [`SledStore`], and [`MemoryStore`], which is the
//! specification in a few lines.

mod memory;
mod sled_store;
#[cfg(test)]
mod suite;

use std::sync::Arc;

use crate::error::{Error, Result};

pub use memory::MemoryStore;
pub use sled_store::SledStore;
pub(crate) use sled_store::examine;

/// Longest bucket name, in bytes.
pub const MAX_NAME: usize = 200;
/// Longest key, in bytes. A key has at least one.
pub const MAX_KEY: usize = 1024;
/// Longest value, in bytes.
pub const MAX_VALUE: usize = 1 << 20;
/// Most changes in one batch, keys in one [`Kv::get_many`], pairs of one [`Kv::scan`].
pub const MAX_BATCH: usize = 16_384;
/// Most bytes of keys and values in one batch or answer.
pub const MAX_BATCH_BYTES: usize = 32 << 20;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);
/// A key and its new value; `None` deletes.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// Buckets by name.
pub trait KvStore: Send + Sync {
    /// Opens a bucket, making it if it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name that is empty or longer than [`MAX_NAME`]; [`Error::Index`].
    fn open_bucket(&self, name: &str) -> Result<Arc<dyn Kv>>;

    /// Makes everything applied so far durable.
    fn commit(&self) -> Result<()>;
}

/// One bucket. Every method checks the limits of this module and fails with [`Error::TooLarge`] or
/// [`Error::Invalid`] beyond them.
pub trait Kv: Send + Sync {
    /// Changes when the bucket lost what was in it: whoever filled it must do so again.
    fn generation(&self) -> Result<String>;

    /// The values of `keys`, in their order. An error when they are more than [`MAX_BATCH_BYTES`]
    /// together: one value may be asked for many times.
    fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>>;

    /// Pairs whose key starts with `prefix` and is greater than `after`, in byte order, at most
    /// `limit`. Fewer than `limit` come back also when [`MAX_BATCH`] or [`MAX_BATCH_BYTES`] ends
    /// the answer: only an empty answer means the end.
    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>>;

    /// Applies all changes or none, in order. Visible at once, durable after a commit.
    fn apply(&self, changes: &[Change]) -> Result<()>;

    /// Empties the bucket. Its generation stays.
    fn clear(&self) -> Result<()>;
}

fn too_large(what: &str, limit: usize, unit: &'static str) -> Error {
    Error::TooLarge { what: what.into(), limit: limit as u64, unit }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::Invalid { what: "bucket name", reason: "it is empty".into() });
    }
    if name.len() > MAX_NAME {
        return Err(too_large("a bucket name", MAX_NAME, "bytes"));
    }
    Ok(())
}

fn check_key(key: &[u8]) -> Result<()> {
    match key.len() {
        0 => Err(Error::Invalid { what: "key", reason: "it is empty".into() }),
        length if length > MAX_KEY => Err(too_large("a key", MAX_KEY, "bytes")),
        _ => Ok(()),
    }
}

fn check_keys(keys: &[Vec<u8>]) -> Result<()> {
    if keys.len() > MAX_BATCH {
        return Err(too_large("a list of keys", MAX_BATCH, "keys"));
    }
    keys.iter().try_for_each(|key| check_key(key))
}

/// The values of keys, as far as one answer may hold them.
fn gather<E>(
    keys: &[Vec<u8>],
    mut get: impl FnMut(&[u8]) -> std::result::Result<Option<Vec<u8>>, E>,
) -> std::result::Result<Result<Vec<Option<Vec<u8>>>>, E> {
    let mut values = Vec::with_capacity(keys.len());
    let mut total = 0;
    for key in keys {
        let value = get(key)?;
        total += value.as_ref().map_or(0, Vec::len);
        if total > MAX_BATCH_BYTES {
            return Ok(Err(too_large("the values of a list of keys", MAX_BATCH_BYTES, "bytes")));
        }
        values.push(value);
    }
    Ok(Ok(values))
}

fn check_changes(changes: &[Change]) -> Result<()> {
    if changes.len() > MAX_BATCH {
        return Err(too_large("a batch", MAX_BATCH, "changes"));
    }
    let mut total = 0;
    for (key, value) in changes {
        check_key(key)?;
        let length = value.as_ref().map_or(0, Vec::len);
        if length > MAX_VALUE {
            return Err(too_large("a value", MAX_VALUE, "bytes"));
        }
        total += key.len() + length;
    }
    if total > MAX_BATCH_BYTES {
        return Err(too_large("a batch", MAX_BATCH_BYTES, "bytes"));
    }
    Ok(())
}

/// Ends an answer at its limits.
struct AnswerSize {
    pairs: usize,
    bytes: usize,
}

impl AnswerSize {
    fn new(limit: usize) -> Self {
        AnswerSize { pairs: limit.min(MAX_BATCH), bytes: MAX_BATCH_BYTES }
    }

    /// Whether one more pair fits.
    fn take(&mut self, key: &[u8], value: &[u8]) -> bool {
        let size = key.len() + value.len();
        if self.pairs == 0 || size > self.bytes {
            return false;
        }
        self.pairs -= 1;
        self.bytes -= size;
        true
    }
}
