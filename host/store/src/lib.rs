//! The state directory: content blobs, snapshots, records, cache mounts, and the index. The only
//! writer of it.
//!
//! # Layout
//!
//! ```text
//! FORMAT                     version, kind of overlay attributes (`trusted` or `user`)
//! lock                       flock of the one process that builds; its text says who that is
//! seals                      per boot: up to which group everything is durable (see `boot`)
//! blobs/sha256/ab/<hex>      sealed blobs; blobs/pending/<boot>/<hex> those of this boot
//! snapshots/<id>/fs          layers for overlayfs
//! records/ab/<key hex>       results by cache key; <key hex>~ what an unsealed one replaced
//! contexts/<kind>-<hash>     documents of the caller: kept digests of contexts, memo traces
//! caches/<hash>/             cache mounts, kept git repositories
//! index/sled                 key-value index; rebuildable, opened by its first use only
//! hash.key                   key of hashes of secret values (see `keyed_hash`)
//! usage                      how much all of it takes, where that is known (see `account`)
//! damaged                    what a repair has set aside
//! empty                      an empty directory, the layer below nothing
//! tmp                        everything unfinished; emptied at every open, but for a few
//!                            beginnings of blobs (see `partial`)
//! ```
//!
//! # Invariants
//!
//! - A thing exists once its record is committed; everything else is garbage.
//! - Every write is a file in `tmp` and a rename, so a killed process leaves the old or the new,
//!   never half of it.
//! - *Acknowledged* means [`Store::seal`] returned after it was written: it survives a power cut.
//!   Before that it survives the death of the process, and is dropped by the next boot.
//! - Whatever is read is checked against a checksum or digest that was computed here. Damage makes
//!   a miss, never a wrong answer.
//! - The path of a build that changes nothing reads record files; it neither syncs nor scans nor
//!   opens the index.
//! - What is leased is not evicted. Between processes the lock does that.
//! - The state directory is one file system (one `syncfs` covers it).
//!
//! # Use
//!
//! ```
//! use wbuild_graph::{CacheKey, Digest};
//! use wbuild_store::{LayerRecord, OpenOptions, OutputRecord, Record, Store};
//!
//! # fn main() -> wbuild_store::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path();
//! let store = Store::open(dir, OpenOptions { owner: "wbuild .".into(), ..Default::default() })?;
//! let key = CacheKey(Digest::of(b"some definition"));
//! if store.get_record(&key)?.is_none() {
//!     let builder = store.begin_snapshot()?;
//!     // ... fill builder.fs(), or mount store.writable(&layers, &builder, None)? ...
//!     let layer = builder.commit()?;
//!     store.put_record(&Record {
//!         keys: vec![key],
//!         outputs: vec![OutputRecord {
//!             layers: vec![LayerRecord { snapshot: Some(*layer), ..Default::default() }],
//!             ..Default::default()
//!         }],
//!         description: "RUN make".into(),
//!         ..Default::default()
//!     })?;
//! }
//! store.seal()?; // before success is reported
//! # Ok(())
//! # }
//! ```
//!
//! The crate is synchronous and blocks on the disk: callers on an async executor use it from
//! blocking threads. [`Store`] is cheap to clone and may be used from any thread.

/// A named point where tests inject an error or a kill. Compiles to nothing without the feature
/// `failpoints`.
macro_rules! failpoint {
    ($name:literal, $path:expr) => {
        fail::fail_point!($name, |_| Err($crate::error::Error::injected($name, ($path).as_ref())))
    };
}

mod account;
mod blob;
mod boot;
mod cache_dir;
mod catalog;
mod codec;
mod document;
mod error;
mod files;
mod fsck;
mod gc;
mod keyed_hash;
pub mod kv;
mod lease;
mod listing;
mod lock;
mod overlay;
mod partial;
mod prune;
mod record;
mod records;
mod snapshot;
mod space;
mod store;
mod sync;
#[cfg(test)]
mod testing;
mod usage;

pub use blob::{Blob, BlobCheck, BlobInfo, Ingest};
pub use boot::{StateKind, boot_id};
pub use cache_dir::{CacheDir, CacheOwner, CacheSharing};
pub use document::DocumentKind;
pub use error::{Error, Result};
pub use fsck::{
    FsckHelp, FsckOptions, FsckReport, LayerCheck, LayerState, Problem, ProblemKind, Remedy,
    StoredLayer,
};
pub use gc::{Collected, Gc, Policy};
pub use kv::{Kv, KvStore};
pub use lease::{Held, Lease, LeaseItem};
pub use lock::{LockHolder, LockWait, WaitCallback};
pub use overlay::{MAX_LAYERS, OverlayApi, overlay_api};
pub use prune::{Choice, PruneFilter, PruneReport};
pub use record::{BlobRef, ExecOutcome, LayerRecord, OutputRecord, Record};
pub use snapshot::{SnapshotBuilder, SnapshotId, Stack, View};
pub use space::{Bounds, Disk, Limits, Space};
pub use store::{OpenOptions, Sealed, Store};
pub use usage::{UsageEntry, UsageKind};
