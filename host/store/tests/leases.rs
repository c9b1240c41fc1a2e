//! The lease table under shuttle, which tries many orders in which threads take its lock: the
//! table's own source, over shuttle's locks.

use std::collections::HashSet;
use std::sync::Arc;

use shuttle::thread;
use wbuild_graph::{BlobDigest, Digest};
use wbuild_store::SnapshotId;

#[path = "../src/lease.rs"]
mod lease;

/// Stands for the module of the store that the table takes its locks from.
mod sync {
    use std::sync::PoisonError;

    pub(crate) use shuttle::sync::Mutex;
    pub(crate) use shuttle::sync::MutexGuard;

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Likewise.
mod snapshot {
    pub(crate) use wbuild_store::SnapshotId;
}

use lease::{Held, Lease, LeaseItem, LeaseTable};
use sync::{Mutex, lock};

/// The part of the store that leases matter to: things, and the lock between their use and their
/// eviction.
struct Things {
    table: Arc<LeaseTable>,
    gc: shuttle::sync::RwLock<()>,
    there: Mutex<HashSet<LeaseItem>>,
}

impl Things {
    fn new(items: &[LeaseItem]) -> Arc<Things> {
        Arc::new(Things {
            table: Arc::default(),
            gc: shuttle::sync::RwLock::new(()),
            there: Mutex::new(items.iter().copied().collect()),
        })
    }

    fn has(&self, item: LeaseItem) -> bool {
        lock(&self.there).contains(&item)
    }

    /// As the store looks something up.
    fn find(&self, items: &[LeaseItem]) -> Option<Held<usize>> {
        let _gc = self.gc.read().expect("no panic");
        let all = items.iter().all(|item| self.has(*item));
        all.then(|| Held::new(items.len(), self.table.lease(items.to_vec())))
    }

    /// As the store evicts: whether it did.
    fn evict(&self, item: LeaseItem) -> bool {
        let _gc = self.gc.write().expect("no panic");
        !self.table.is_leased(item) && lock(&self.there).remove(&item)
    }
}

fn items() -> [LeaseItem; 2] {
    let id = "00000000000000000000000000000001".parse::<SnapshotId>().expect("an id");
    [LeaseItem::Snapshot(id), LeaseItem::Blob(BlobDigest(Digest::of(b"blob")))]
}

fn check(test: fn()) {
    shuttle::check_random(test, 3_000);
    shuttle::check_pct(test, 3_000, 3);
}

#[test]
fn what_is_leased_is_there_until_its_last_lease_is_gone() {
    check(|| {
        let things = Things::new(&items());
        let users: Vec<_> = (0..2)
            .map(|user| {
                let things = Arc::clone(&things);
                thread::spawn(move || {
                    let [snapshot, blob] = items();
                    // The same twice, and both: each counts.
                    let wanted = [[snapshot, snapshot], [blob, snapshot]][user];
                    let Some(held) = things.find(&wanted) else { return };
                    assert_eq!(*held, 2);
                    let second: Lease = held.lease().clone();
                    assert!(wanted.iter().all(|item| things.has(*item)), "found and evicted");
                    let (_, first) = held.into_parts();
                    drop(first);
                    assert!(wanted.iter().all(|item| things.has(*item)), "still leased");
                    assert!(wanted.iter().all(|item| things.table.is_leased(*item)));
                    assert_eq!(second.items(), wanted);
                })
            })
            .collect();
        let evicting = {
            let things = Arc::clone(&things);
            thread::spawn(move || items().map(|item| things.evict(item)))
        };
        let evicted = evicting.join().expect("no panic");
        users.into_iter().for_each(|user| user.join().expect("no panic"));
        // Nobody holds anything now: what is left can go, and nothing can twice.
        for (item, evicted) in items().into_iter().zip(evicted) {
            assert!(!things.table.is_leased(item));
            assert_eq!(things.evict(item), !evicted);
            assert!(!things.evict(item));
        }
    });
}

#[test]
fn leases_of_several_threads_are_counted() {
    check(|| {
        let table = Arc::new(LeaseTable::default());
        let [item, other] = items();
        let first = table.lease(vec![item]);
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let lease = first.clone();
                let table = Arc::clone(&table);
                thread::spawn(move || {
                    let more = table.lease(vec![other, item]);
                    drop(lease);
                    assert!(table.is_leased(item) && table.is_leased(other));
                    drop(more);
                })
            })
            .collect();
        drop(first);
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert!(!table.is_leased(item) && !table.is_leased(other));
    });
}
