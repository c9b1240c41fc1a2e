//! Keeping the state directory below its limits, by itself: after each build, and during one where
//! room gets short.
//!
//! Ordinarily that is two numbers: what the disk says, and what is known of the state directory (see
//! `account`). Only where they come near a limit is everything measured, and then a tenth more is
//! evicted than must be, so that the next builds need not measure again.
//!
//! Policies are the user's further wishes for some of what is kept. What they are about has to be
//! measured each time, so they are heeded again only after a while.

use std::time::{Duration, SystemTime};

use crate::error::Result;
use crate::files::{modified, write_atomically};
use crate::prune::{Choice, PruneFilter, PruneReport};
use crate::snapshot::SnapshotId;
use crate::space::{Bounds, Disk, Limits, Space};
use crate::store::Store;
use crate::usage::Meter;

/// When and for what to collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gc {
    /// What may be kept.
    pub limits: Limits,
    /// When the present build began: what it used is told apart from what is older.
    pub since: SystemTime,
}

/// What may be kept of some things. It names an age, an amount, or both: then what is younger stays
/// however much it is, and of what is older the oldest goes until no more than the amount is left.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Which things; all if it does not say.
    pub only: Option<Choice>,
    /// What was used within this time stays.
    pub keep_for: Option<Duration>,
    /// So much of them stays.
    pub max_used: Option<Space>,
}

/// The file whose time says when policies were heeded last.
const POLICIES: &str = "policies";
/// Between two times.
const POLICIES_PAUSE: Duration = Duration::from_secs(600);

/// What a collection did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    /// What went, and what is left.
    pub report: PruneReport,
    /// Of what went, bytes of what the present build had used.
    pub recent_bytes: u64,
    /// The limits, in bytes of this disk.
    pub bounds: Bounds,
    /// What was free before.
    pub free_bytes: u64,
}

impl Collected {
    /// Whether more is left than may be, because it is in use.
    pub fn is_over(&self) -> bool {
        self.bounds.max_used.is_some_and(|most| self.report.remaining_bytes > most)
    }
}

impl Store {
    /// The disk that the state directory is on, as it is now.
    pub fn disk(&self) -> Result<Disk> {
        Disk::of(&self.inner.root)
    }

    /// Evicts what is too much, the longest unused chains first, and never what is leased. `None` if
    /// everything may stay, which takes no measuring as long as what is kept is far from its limits.
    pub fn gc(&self, gc: &Gc) -> Result<Option<Collected>> {
        self.inner.check_writable()?;
        let collected = match self.is_short(&gc.limits)? {
            true => self.collect(gc)?,
            false => None,
        };
        self.close_account()?;
        Ok(collected)
    }

    /// Whether more may be kept than allowed; certain only that it is not. Asks the file system for
    /// its numbers and otherwise looks at what is known.
    pub fn is_short(&self, limits: &Limits) -> Result<bool> {
        let disk = self.disk()?;
        let bounds = limits.on(&disk);
        if bounds.holds_anyway(&disk) {
            return Ok(false);
        }
        self.inner.count_touched()?;
        let estimate = self.inner.estimate()?;
        Ok(estimate.is_none_or(|used| used > bounds.target(used, disk.free)))
    }

    /// Measures everything and evicts what is too much.
    pub fn collect(&self, gc: &Gc) -> Result<Option<Collected>> {
        let disk = self.disk()?;
        let bounds = gc.limits.on(&disk);
        let report = self.prune_down(&PruneFilter::default(), |used, freed| {
            let target = bounds.target(used, disk.free.saturating_add(freed));
            // Below what is kept for certain nothing goes, however short the disk is.
            let least = bounds.reserved.min(target);
            (used > target).then(|| (target - target / 10).max(least))
        })?;
        let collected = collected(report, bounds, disk.free, gc.since);
        let anything = !collected.report.removed.is_empty() || collected.is_over();
        Ok(anything.then_some(collected))
    }

    /// Evicts what policies say, one after the other, unless they were heeded a moment ago. `None` if
    /// nothing went. Nobody may be writing.
    pub fn heed(&self, policies: &[Policy], since: SystemTime) -> Result<Option<Collected>> {
        if policies.is_empty() {
            return Ok(None);
        }
        self.inner.check_writable()?;
        let (root, tmp) = (&self.inner.root, &self.inner.tmp);
        let now = SystemTime::now();
        let last = root.stat(POLICIES)?.map(|stat| modified(&stat));
        // A time that is to come is none to wait for.
        let lately = |last| now.duration_since(last).is_ok_and(|ago| ago < POLICIES_PAUSE);
        if last.is_some_and(lately) {
            return Ok(None);
        }
        write_atomically(tmp, root, POLICIES, b"")?;
        let disk = self.disk()?;
        let mut all = PruneReport::default();
        for policy in policies {
            let report = self.prune(&PruneFilter {
                all: true,
                older_than: policy.keep_for.and_then(|age| now.checked_sub(age)),
                only: policy.only.clone(),
                keep_chosen: policy.max_used.map(|most| most.on(&disk)),
                ..PruneFilter::default()
            })?;
            all.removed.extend(report.removed);
            all.records += report.records;
            all.freed_bytes += report.freed_bytes;
            all.remaining_bytes = report.remaining_bytes;
        }
        self.close_account()?;
        let collected = collected(all, Bounds::default(), disk.free, since);
        Ok((!collected.report.removed.is_empty()).then_some(collected))
    }

    /// Evicts so that a full disk is one no more: the older half of what is kept, or `all` that is
    /// not leased.
    pub fn make_room(&self, gc: &Gc, all: bool) -> Result<Collected> {
        let disk = self.disk()?;
        let bounds = gc.limits.on(&disk);
        let report = self
            .prune_down(&PruneFilter::default(), |used, _| Some(if all { 0 } else { used / 2 }))?;
        Ok(collected(report, bounds, disk.free, gc.since))
    }

    /// Writes down what is known of the space that is used, so that the next process need not
    /// measure. Nobody may be writing.
    pub fn close_account(&self) -> Result<()> {
        match self.inner.account_is_open() {
            true => self.inner.close_account(),
            false => Ok(()),
        }
    }

    /// Counts a snapshot that was filled after it was committed.
    pub fn recount(&self, snapshot: SnapshotId) -> Result<()> {
        let inner = &*self.inner;
        inner.account.begin(&inner.root)?;
        inner.account.add(Meter::default().measure(&inner.snapshots, &snapshot.to_string())?);
        Ok(())
    }
}

fn collected(report: PruneReport, bounds: Bounds, free_bytes: u64, since: SystemTime) -> Collected {
    let recent = report.removed.iter().filter(|entry| entry.last_used >= since);
    let recent_bytes = recent.map(|entry| entry.size_bytes).sum();
    Collected { recent_bytes, report, bounds, free_bytes }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wbuild_graph::{CacheKey, Digest};

    use super::*;
    use crate::cache_dir::{CacheOwner, CacheSharing};
    use crate::record::{LayerRecord, OutputRecord, Record};
    use crate::space::Space;
    use crate::testing::{open, snapshot_with, write_file};

    fn key(n: u32) -> CacheKey {
        CacheKey(Digest::of(&n.to_le_bytes()))
    }

    /// A result of about 100 kB over a chain.
    fn put(store: &Store, n: u32, below: &[SnapshotId]) -> SnapshotId {
        let layer = *snapshot_with(store, &[("f", &"x".repeat(100_000))]);
        let layers = below.iter().chain([&layer]);
        let layers = layers.map(|id| LayerRecord { snapshot: Some(*id), ..Default::default() });
        store
            .put_record(&Record {
                keys: vec![key(n)],
                outputs: vec![OutputRecord { layers: layers.collect(), ..Default::default() }],
                ..Record::default()
            })
            .unwrap();
        layer
    }

    fn ceiling(bytes: u64) -> Gc {
        let none = Some(Space::Bytes(0));
        let limits = Limits { max_used: Some(Space::Bytes(bytes)), reserved: none, min_free: none };
        Gc { limits, since: SystemTime::now() }
    }

    fn used(store: &Store) -> u64 {
        store.du().unwrap().iter().map(|entry| entry.size_bytes).sum()
    }

    fn known(store: &Store) -> Option<u64> {
        store.inner.estimate().unwrap()
    }

    #[test]
    fn what_is_known_is_never_less_than_what_is_there_and_right_after_measuring() {
        let dir = tempfile::tempdir().unwrap();
        let owner = CacheOwner {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            ..CacheOwner::default()
        };
        let far = ceiling(u64::MAX);
        let near = ceiling(1 << 30);
        {
            let store = open(dir.path());
            let now = known(&store).expect("a new one holds nothing");
            assert!((used(&store)..used(&store) + 65_536).contains(&now), "{now}");
            assert_eq!(store.gc(&near).unwrap(), None);
        }
        for round in 0..5 {
            let store = open(dir.path());
            let before = known(&store).unwrap();
            put(&store, round, &[]);
            store.put_blob(&[7; 10_000 * 2][..(10_000 + round as usize)]).unwrap();
            store.save_context("c", &vec![2; 30_000]).unwrap();
            let cache = store.try_cache_dir("id", CacheSharing::Shared, owner).unwrap().unwrap();
            write_file(&cache, &round.to_string(), &vec![0; 200_000]);
            drop(cache);
            assert!(!dir.path().join("usage").exists(), "it is taken away before a change");
            assert_eq!(store.gc(if round % 2 == 0 { &far } else { &near }).unwrap(), None);
            let now = known(&store).unwrap();
            assert!(now >= used(&store) && now > before + 300_000, "{now} {}", used(&store));
            assert!(now < used(&store) + 300_000, "{now} {}", used(&store));
            drop(store);
            assert_eq!(known(&open(dir.path())), Some(now), "it is written down");
        }
        let store = open(dir.path());
        put(&store, 100, &[]);
        drop(store);
        // As after a kill.
        let store = open(dir.path());
        assert_eq!(known(&store), None);
        assert_eq!(store.gc(&near).unwrap(), None);
        assert!(known(&store).unwrap() >= used(&store) - 4096);
    }

    #[test]
    fn the_ceiling_holds_and_the_newest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let gc = ceiling(1_000_000);
        let mut evictions = 0;
        for n in 0..40 {
            put(&store, n, &[]);
            if let Some(collected) = store.gc(&gc).unwrap() {
                evictions += 1;
                assert!(!collected.is_over(), "{collected:?}");
                let difference = collected.report.remaining_bytes.abs_diff(used(&store));
                assert!(difference <= 16384, "{difference}");
            }
            // A little more for what file systems need to find the pieces of a file, once it is on
            // the disk.
            assert!(used(&store) <= 1_020_000, "{n}: {}", used(&store));
            assert!(store.get_record(&key(n)).unwrap().is_some(), "the newest is gone");
            // So that none is as old as another.
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!((5..36).contains(&evictions), "not each time, but again and again: {evictions}");
    }

    #[test]
    fn what_is_leased_stays_and_is_said_to_be_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let base = put(&store, 1, &[]);
        put(&store, 2, &[base]);
        put(&store, 3, &[]);
        let gc = Gc { since: SystemTime::UNIX_EPOCH, ..ceiling(150_000) };
        let held = store.get_record(&key(2)).unwrap().unwrap();
        let collected = store.gc(&gc).unwrap().unwrap();
        assert!(collected.is_over() && collected.recent_bytes >= 100_000, "{collected:?}");
        assert!(store.get_record(&key(2)).unwrap().is_some());
        assert!(store.get_record(&key(3)).unwrap().is_none());
        drop(held);
        let collected = store.gc(&gc).unwrap().unwrap();
        assert!(!collected.is_over() && used(&store) <= 150_000, "{collected:?}");
    }

    #[test]
    fn what_is_reserved_outlives_a_disk_that_others_fill() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        for n in 0..10 {
            put(&store, n, &[]);
        }
        let free = store.disk().unwrap().free;
        let limits = Limits {
            max_used: Some(Space::Bytes(1 << 40)),
            reserved: Some(Space::Bytes(500_000)),
            // There is never so much.
            min_free: Some(Space::Bytes(free.saturating_mul(2))),
        };
        let gc = Gc { limits, since: SystemTime::now() };
        assert!(store.gc(&gc).unwrap().is_some());
        assert!((350_000..=500_000).contains(&used(&store)), "{}", used(&store));
        assert_eq!(store.gc(&gc).unwrap(), None, "nothing is left to be done");
    }

    #[test]
    fn policies_are_about_some_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let of = |kind| Some(Choice::new(move |entry| entry.kind == kind));
        let hour = Duration::from_secs(3600);
        let age = |n: u32, ago: Duration| {
            let hex = key(n).0.hex();
            let path = dir.path().join("records").join(&hex[..2]).join(&hex);
            let file = std::fs::File::open(path).unwrap();
            file.set_modified(SystemTime::now().checked_sub(ago).unwrap()).unwrap();
        };
        for n in 0..6 {
            put(&store, n, &[]);
            age(n, hour * (10 - n));
        }
        let blob = store.put_blob(&[7; 300_000]).unwrap();
        let heed = |policies: &[Policy]| {
            let mark = dir.path().join(POLICIES);
            let _ = std::fs::remove_file(&mark);
            let collected = store.heed(policies, SystemTime::now()).unwrap();
            assert_eq!(store.heed(policies, SystemTime::now()).unwrap(), None, "at once again");
            assert_eq!(mark.exists(), !policies.is_empty());
            collected.map_or(0, |collected| collected.report.removed.len())
        };
        let there = || (0..6).filter(|n| store.is_sealed(&key(*n)).unwrap().is_some()).count();
        assert_eq!(heed(&[]), 0);
        // By age alone; then the oldest of what is too much, and only of that.
        let snapshots = |keep_for, max: Option<u64>| Policy {
            only: of(crate::UsageKind::Snapshot),
            keep_for,
            max_used: max.map(Space::Bytes),
        };
        assert_eq!(heed(&[snapshots(Some(hour * 20), None)]), 0);
        assert_eq!(heed(&[snapshots(Some(hour * 9 + hour / 2), None)]), 1);
        assert_eq!(heed(&[snapshots(None, Some(350_000))]), 2);
        assert_eq!(there(), 3);
        // What is younger stays, however much it is.
        assert_eq!(heed(&[snapshots(Some(hour * 20), Some(1))]), 0);
        assert_eq!(heed(&[snapshots(Some(hour * 6 + hour / 2), Some(1))]), 1);
        assert!(there() == 2 && store.has_blob(&blob).unwrap());
        // One after the other.
        let blobs = Policy { only: of(crate::UsageKind::Blob), ..snapshots(None, Some(0)) };
        assert_eq!(heed(&[blobs, snapshots(None, Some(150_000))]), 2);
        assert!(there() == 1 && !store.has_blob(&blob).unwrap());
        let report = store.fsck(crate::FsckOptions::default()).unwrap();
        assert!(report.is_clean(), "{report:?}");
    }

    /// Builds and collections side by side: what a lease holds is found to its end.
    #[test]
    fn collections_and_builds_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let gc = ceiling(600_000);
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let builds: Vec<_> = (0..3_u32)
                .map(|thread| {
                    let store = store.clone();
                    scope.spawn(move || {
                        let mut hits = 0;
                        for round in 0..40 {
                            let n = 100 + (thread + round) % 7;
                            let found = store.get_record(&key(n)).unwrap();
                            hits += usize::from(found.is_some());
                            let chain: Vec<_> =
                                found.iter().flat_map(|record| record.snapshots()).collect();
                            let view = store.view(&chain).unwrap();
                            let builder = store.begin_snapshot().unwrap();
                            write_file(builder.fs(), "f", &[1; 30_000]);
                            let layer = builder.commit().unwrap();
                            let chain = chain.iter().take(3).chain([&*layer]);
                            let layers = chain.map(|id| LayerRecord {
                                snapshot: Some(*id),
                                ..Default::default()
                            });
                            let layers = layers.collect();
                            store
                                .put_record(&Record {
                                    keys: vec![key(n)],
                                    outputs: vec![OutputRecord { layers, ..Default::default() }],
                                    ..Record::default()
                                })
                                .unwrap();
                            drop(view);
                        }
                        hits
                    })
                })
                .collect();
            let collector = scope.spawn(|| {
                let mut evicted = 0;
                while !done.load(std::sync::atomic::Ordering::Acquire) {
                    if let Some(collected) = store.collect(&gc).unwrap() {
                        evicted += collected.report.removed.len();
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                evicted
            });
            let hits: usize = builds.into_iter().map(|build| build.join().unwrap()).sum();
            done.store(true, std::sync::atomic::Ordering::Release);
            let evicted = collector.join().unwrap();
            assert!(hits > 0 && evicted > 0, "{hits} hits, {evicted} evicted");
        });
        store.gc(&gc).unwrap();
        assert!(used(&store) <= 600_000);
        let report = store.fsck(crate::FsckOptions::default()).unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}
