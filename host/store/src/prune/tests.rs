//! Tests of eviction.

use std::time::Duration;

use wbuild_graph::{CacheKey, Digest};

use super::*;
use crate::cache_dir::{CacheOwner, CacheSharing};
use crate::record::{BlobRef, LayerRecord, OutputRecord, Record};
use crate::testing::{open, snapshot_with, write_file};

fn key(n: u8) -> CacheKey {
    CacheKey(Digest::of(&[n]))
}

/// Puts a record over a chain and sets when it was last used.
fn put(store: &Store, n: u8, chain: &[SnapshotId], used: u64, blob: Option<BlobDigest>) {
    let layers = chain
        .iter()
        .map(|id| LayerRecord { snapshot: Some(*id), ..LayerRecord::default() })
        .collect();
    let attachment = |digest| BlobRef { media_type: "m".into(), digest, size: 0 };
    store
        .put_record(&Record {
            keys: vec![key(n), key(n + 100)],
            outputs: vec![OutputRecord { result_id: None, layers }],
            attachments: blob.map(attachment).into_iter().collect(),
            ..Record::default()
        })
        .unwrap();
    let hex = key(n).0.hex();
    let path = store.path().join("records").join(&hex[..2]).join(&hex);
    std::fs::File::open(path).unwrap().set_modified(at(used)).unwrap();
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn layer(store: &Store) -> SnapshotId {
    snapshot_with(store, &[("f", &"x".repeat(50_000))]).into_parts().0
}

/// Which records are there, without marking them as used.
fn present(store: &Store) -> Vec<u8> {
    (0..50).filter(|n| store.is_sealed(&key(*n)).unwrap().is_some()).collect()
}

#[test]
fn the_oldest_chains_go_whole_and_shared_layers_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (base, a1, a2, b1) = (layer(&store), layer(&store), layer(&store), layer(&store));
    // A build that hits its last step touches only that record: 1 and 2 look old.
    put(&store, 1, &[base], 1, None);
    put(&store, 2, &[base, b1], 2, None);
    put(&store, 3, &[base, a1], 3, None);
    put(&store, 4, &[base, a1, a2], 4, None);
    put(&store, 5, &[base, b1], 9, None);
    let report =
        store.prune(&PruneFilter { older_than: Some(at(5)), ..PruneFilter::default() }).unwrap();
    assert_eq!(present(&store), [1, 2, 5], "the chain of 5 needs the layers of 1 and 2");
    let gone: Vec<_> = report.removed.iter().map(|entry| entry.id.clone()).collect();
    assert_eq!(gone.len(), 2);
    assert!(gone.contains(&a1.to_string()) && gone.contains(&a2.to_string()));
    assert!(report.freed_bytes >= 100_000);
    assert_eq!(store.inner.list_snapshots().unwrap().len(), 2);
    assert_eq!(std::fs::read_dir(store.tmp_path()).unwrap().count(), 0);
    assert!(store.prune(&PruneFilter::default()).unwrap().removed.is_empty());
}

#[test]
fn a_ceiling_keeps_what_was_used_last() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..6 {
        let id = layer(&store);
        put(&store, n, &[id], u64::from(n), None);
    }
    let used = || store.du().unwrap().iter().map(|entry| entry.size_bytes).sum::<u64>();
    let each = store.du().unwrap()[0].size_bytes;
    let ceiling = used() - each * 7 / 2;
    let keep = Some(Bounds::at_most(ceiling));
    let filter = PruneFilter { keep, ..PruneFilter::default() };
    let report = store.prune(&filter).unwrap();
    assert_eq!(present(&store), [4, 5]);
    assert!(used() <= ceiling && report.remaining_bytes == used(), "{report:?}");
    assert_eq!(report.records, 4);
    let again = PruneReport { remaining_bytes: used(), ..PruneReport::default() };
    assert_eq!(store.prune(&filter).unwrap(), again);
}

#[test]
fn what_is_leased_or_in_use_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (base, top, other) = (layer(&store), layer(&store), layer(&store));
    let (config, loose) = (store.put_blob(b"config").unwrap(), store.put_blob(b"x").unwrap());
    put(&store, 1, &[base], 1, None);
    put(&store, 2, &[base, top], 2, Some(config));
    put(&store, 3, &[other], 3, None);
    let held = store.get_record(&key(2)).unwrap().unwrap();
    let fresh = snapshot_with(&store, &[]);
    let open_blob = store.open_blob(&loose).unwrap().unwrap();
    let owner = CacheOwner {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        ..CacheOwner::default()
    };
    let take = |id| store.try_cache_dir(id, CacheSharing::Shared, owner).unwrap().unwrap();
    let used = take("used");
    write_file(take("unused"), "f", b"x");
    store.save_context("ctx", b"y").unwrap();
    let all = PruneFilter { all: true, ..PruneFilter::default() };
    store.prune(&all).unwrap();
    assert_eq!(present(&store), [1, 2], "the lease on 2 holds its whole chain");
    let left: Vec<_> = store.du().unwrap().into_iter().map(|e| (e.kind, e.id)).collect();
    assert_eq!(left.len(), 7, "{left:?}");
    assert!(left.contains(&(UsageKind::Snapshot, fresh.to_string())));
    assert!(left.contains(&(UsageKind::Cache, "used".into())));
    drop((held, fresh, open_blob, used));
    store.prune(&all).unwrap();
    let left = store.du().unwrap();
    assert!(left.iter().all(|entry| entry.kind == UsageKind::Internal), "{left:?}");
    assert!(present(&store).is_empty());
}

#[test]
fn kinds_and_garbage() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = layer(&store);
    let config = store.put_blob(b"config").unwrap();
    put(&store, 1, &[id], 1, Some(config));
    store.put_blob(b"loose").unwrap();
    layer(&store);
    let hex = key(7).0.hex();
    std::fs::create_dir_all(dir.path().join("records").join(&hex[..2])).unwrap();
    std::fs::write(dir.path().join("records").join(&hex[..2]).join(&hex), b"junk").unwrap();
    let report = store.prune(&PruneFilter::default()).unwrap();
    assert_eq!(report.removed.len(), 1, "only the snapshot nothing refers to");
    assert!(store.inner.list_records().unwrap().iter().all(|name| name.name != hex));
    let blobs = PruneFilter {
        all: true,
        kinds: BTreeSet::from([UsageKind::Blob]),
        ..PruneFilter::default()
    };
    let report = store.prune(&blobs).unwrap();
    assert_eq!(report.removed.len(), 1, "the config belongs to a record");
    assert_eq!(present(&store), [1]);
    assert!(store.has_blob(&config).unwrap());
}
