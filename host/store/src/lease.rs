//! Leases: what is leased is not evicted. They live in memory; between processes the state lock
//! does the same.
//!
//! Who leases something that is already there does so below the read side of the store's gc lock,
//! after it has seen it there; eviction looks at the table below the write side. So a lease that
//! was given keeps what it names (`tests/leases.rs` tries the orders).

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use wbuild_graph::BlobDigest;

use crate::snapshot::SnapshotId;
use crate::sync::{Mutex, lock};

/// Something a lease can keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseItem {
    /// A snapshot.
    Snapshot(SnapshotId),
    /// A blob.
    Blob(BlobDigest),
}

/// Counts of what is leased.
#[derive(Debug, Default)]
pub(crate) struct LeaseTable {
    counts: Mutex<HashMap<LeaseItem, usize>>,
}

impl LeaseTable {
    pub(crate) fn lease(self: &Arc<Self>, items: Vec<LeaseItem>) -> Lease {
        let mut counts = lock(&self.counts);
        for item in &items {
            *counts.entry(*item).or_default() += 1;
        }
        drop(counts);
        Lease { table: Arc::clone(self), items }
    }

    pub(crate) fn is_leased(&self, item: LeaseItem) -> bool {
        lock(&self.counts).contains_key(&item)
    }
}

/// Keeps snapshots and blobs from eviction until it is dropped.
#[must_use = "a lease that is dropped keeps nothing"]
#[derive(Debug)]
pub struct Lease {
    table: Arc<LeaseTable>,
    items: Vec<LeaseItem>,
}

impl Lease {
    /// What it keeps.
    pub fn items(&self) -> &[LeaseItem] {
        &self.items
    }
}

impl Clone for Lease {
    fn clone(&self) -> Self {
        self.table.lease(self.items.clone())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut counts = lock(&self.table.counts);
        for item in &self.items {
            if let Some(count) = counts.get_mut(item) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(item);
                }
            }
        }
    }
}

/// A value together with the lease on what it names. Dereferences to the value.
#[derive(Clone, Debug)]
pub struct Held<T> {
    value: T,
    lease: Lease,
}

impl<T> Held<T> {
    pub(crate) fn new(value: T, lease: Lease) -> Self {
        Held { value, lease }
    }

    /// The lease.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Takes both apart. Whoever drops the lease must not count on the value's data any longer.
    pub fn into_parts(self) -> (T, Lease) {
        (self.value, self.lease)
    }
}

impl<T> Deref for Held<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}
