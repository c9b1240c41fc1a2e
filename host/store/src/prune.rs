//! Eviction.
//!
//! The unit is the chain: a record keeps its whole chain of layers, so the last use of a snapshot
//! is the latest of all records that need it, and a record counts as used when a chain built on it
//! was. So the oldest chains go as a whole, from their tops, and what another chain shares stays.
//!
//! Order of deletion: the record's names, then the snapshot leaves its place in one rename, then
//! its files go. A crash in between leaves garbage, never a record without its snapshot.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use wbuild_graph::BlobDigest;

use crate::document::DocumentKind;
use crate::error::{Error, Result};
use crate::files::modified;
use crate::lease::LeaseItem;
use crate::records::RecordName;
use crate::snapshot::SnapshotId;
use crate::store::{Inner, Store};
use crate::sync::{lock, write};
use crate::usage::{Catalog, CatalogRecord, Reference, UsageEntry, UsageKind, partial_id};

/// What to evict. Garbage (damaged records, snapshots nothing refers to) always goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneFilter {
    /// Everything that is not in use.
    pub all: bool,
    /// Only what was last used before this moment.
    pub older_than: Option<SystemTime>,
    /// Stop when what remains takes no more than this many bytes.
    pub keep_bytes: Option<u64>,
    /// Only things of these kinds; empty means every kind.
    pub kinds: BTreeSet<UsageKind>,
}

/// What a prune did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// What is gone, in order of eviction.
    pub removed: Vec<UsageEntry>,
    /// Records that are gone, damaged and stale files among them.
    pub records: usize,
    /// Bytes freed on disk.
    pub freed_bytes: u64,
    /// Bytes of the chosen kinds that remain.
    pub remaining_bytes: u64,
}

/// One thing that can be evicted by itself.
enum Candidate {
    Record(usize),
    Blob(BlobDigest),
    /// The beginning of a blob.
    Partial(BlobDigest),
    /// Name in `caches`.
    Cache(String),
    /// Name in `contexts`.
    Document(String),
}

struct Pruning<'a> {
    inner: &'a Inner,
    catalog: &'a Catalog,
    snapshots: BTreeMap<SnapshotId, Reference>,
    blobs: BTreeMap<BlobDigest, Reference>,
    entries: HashMap<(UsageKind, String), UsageEntry>,
    kinds: BTreeSet<UsageKind>,
    remaining: u64,
    trash: Vec<String>,
    report: PruneReport,
}

impl Store {
    /// Evicts what the filter says, least recently used first; never what is leased or in use.
    pub fn prune(&self, filter: &PruneFilter) -> Result<PruneReport> {
        let inner = &*self.inner;
        inner.check_writable()?;
        inner.adopt_pending()?;
        // Sizes do not change and take long to find out, so before anybody has to wait.
        let sizes: HashMap<_, _> = inner
            .usage(&Catalog::load(inner)?)?
            .into_iter()
            .map(|entry| ((entry.kind, entry.id.clone()), entry))
            .collect();
        let (report, trash) = {
            let _writes = lock(&inner.record_writes);
            let _gc = write(&inner.gc);
            let mut catalog = Catalog::load(inner)?;
            let discarded = inner.discard_invalid(&catalog)?;
            if discarded > 0 {
                // Earlier versions may have come back in their place.
                catalog = Catalog::load(inner)?;
            }
            let mut pruning = Pruning::new(inner, &catalog, sizes, filter);
            pruning.report.records = discarded;
            let result = pruning.run(filter);
            (result.map(|()| pruning.report), pruning.trash)
        };
        for name in trash {
            inner.tmp.remove_all(&name)?;
            failpoint!("prune::deleted", inner.tmp.path());
        }
        report
    }
}

impl<'a> Pruning<'a> {
    fn new(
        inner: &'a Inner,
        catalog: &'a Catalog,
        entries: HashMap<(UsageKind, String), UsageEntry>,
        filter: &PruneFilter,
    ) -> Self {
        let kinds = if filter.kinds.is_empty() {
            use UsageKind::{Blob, Cache, Context, Snapshot};
            BTreeSet::from([Snapshot, Blob, Cache, Context])
        } else {
            filter.kinds.clone()
        };
        let remaining = entries
            .values()
            .filter(|entry| kinds.contains(&entry.kind))
            .map(|entry| entry.size_bytes)
            .sum();
        Pruning {
            inner,
            catalog,
            snapshots: catalog.snapshots(),
            blobs: catalog.blobs(),
            entries,
            kinds,
            remaining,
            trash: Vec::new(),
            report: PruneReport::default(),
        }
    }

    fn run(&mut self, filter: &PruneFilter) -> Result<()> {
        self.collect_garbage()?;
        if filter.all || filter.older_than.is_some() || filter.keep_bytes.is_some() {
            let keep = filter.keep_bytes.unwrap_or(0);
            for (last_used, candidate) in self.candidates()? {
                if self.remaining <= keep && filter.keep_bytes.is_some() {
                    break;
                }
                if filter.older_than.is_some_and(|limit| last_used >= limit) {
                    break;
                }
                self.evict(candidate)?;
            }
        }
        self.report.remaining_bytes = self.remaining;
        Ok(())
    }

    fn collect_garbage(&mut self) -> Result<()> {
        for id in self.inner.list_snapshots()? {
            if !self.snapshots.contains_key(&id) {
                self.retire(id)?;
            }
        }
        Ok(())
    }

    /// Everything that may go, in the order in which it should.
    fn candidates(&self) -> Result<Vec<(SystemTime, Candidate)>> {
        let mut out = Vec::new();
        if self.kinds.contains(&UsageKind::Snapshot) {
            for (index, entry) in self.catalog.records.iter().enumerate() {
                if !entry.state.is_valid() || self.in_use(entry) {
                    continue;
                }
                // A chain built on this one was used when that was.
                let through_chain = entry
                    .record
                    .top_snapshots()
                    .filter_map(|id| self.snapshots.get(&id))
                    .map(|reference| reference.last_used);
                let last_used = through_chain.fold(entry.last_used, SystemTime::max);
                out.push((last_used, Reverse(entry.depth()), Candidate::Record(index)));
            }
        }
        let after_records = Reverse(0);
        if self.kinds.contains(&UsageKind::Blob) {
            self.inner.each_blob(|folder, name, digest| {
                if !self.blobs.contains_key(&digest)
                    && let Some(stat) = folder.stat(name)?
                {
                    out.push((modified(&stat), after_records, Candidate::Blob(digest)));
                }
                Ok(())
            })?;
        }
        if self.kinds.contains(&UsageKind::Blob) {
            let partials = self.inner.partials()?.into_iter();
            out.extend(partials.map(|partial| {
                (partial.last_used, after_records, Candidate::Partial(partial.digest))
            }));
        }
        if self.kinds.contains(&UsageKind::Cache) {
            for (name, _) in self.inner.caches.list()? {
                let Some(folder) = self.inner.caches.try_sub(&name)? else { continue };
                if crate::cache_dir::in_use(&folder)? {
                    continue;
                }
                let id = folder.read("id", 1 << 20)?.unwrap_or_default();
                let id = String::from_utf8_lossy(&id).into_owned();
                let known = self.entries.get(&(UsageKind::Cache, id));
                let last_used = known.map_or(SystemTime::UNIX_EPOCH, |entry| entry.last_used);
                out.push((last_used, after_records, Candidate::Cache(name)));
            }
        }
        if self.kinds.contains(&UsageKind::Context) {
            for (name, _) in self.inner.documents.list()? {
                if DocumentKind::of_file(&name).is_some()
                    && let Some(stat) = self.inner.documents.stat(&name)?
                {
                    out.push((modified(&stat), after_records, Candidate::Document(name)));
                }
            }
        }
        // Stable: of equal age, longer chains first, then in the order of names.
        out.sort_by_key(|(last_used, depth, _)| (*last_used, *depth));
        Ok(out.into_iter().map(|(last_used, _, candidate)| (last_used, candidate)).collect())
    }

    fn in_use(&self, entry: &CatalogRecord) -> bool {
        let leased = |item| self.inner.leases.is_leased(item);
        let mut tops = entry.record.top_snapshots().peekable();
        if tops.peek().is_some() {
            return tops.any(|id| leased(LeaseItem::Snapshot(id)));
        }
        entry.record.blobs().any(|blob| leased(LeaseItem::Blob(blob.digest)))
    }

    fn evict(&mut self, candidate: Candidate) -> Result<()> {
        match candidate {
            Candidate::Record(index) => {
                let catalog = self.catalog;
                let entry = &catalog.records[index];
                self.remove_record(entry)?;
                let snapshots: BTreeSet<_> = entry.record.snapshots().collect();
                for id in snapshots {
                    if release(&mut self.snapshots, &id) {
                        self.retire(id)?;
                    }
                }
                let blobs: BTreeSet<_> = entry.record.blobs().map(|blob| blob.digest).collect();
                for digest in blobs {
                    if release(&mut self.blobs, &digest) && self.kinds.contains(&UsageKind::Blob) {
                        self.remove_blob(digest)?;
                    }
                }
            }
            Candidate::Blob(digest) => self.remove_blob(digest)?,
            Candidate::Partial(digest) => {
                if self.inner.remove_partial(&digest)? {
                    self.gone(UsageKind::Blob, partial_id(&digest));
                }
            }
            Candidate::Cache(name) => {
                let folder = self.inner.caches.sub(&name)?;
                let id = folder.read("id", 1 << 20)?.unwrap_or_default();
                let trash = format!("trash-cache-{name}");
                self.inner.caches.rename(&name, &self.inner.tmp, &trash)?;
                self.trash.push(trash);
                self.gone(UsageKind::Cache, String::from_utf8_lossy(&id).into_owned());
            }
            Candidate::Document(name) => {
                let id = self.inner.document_id(&name).ok().flatten();
                self.inner.documents.remove_file(&name)?;
                self.gone(UsageKind::Context, id.unwrap_or(name));
            }
        }
        Ok(())
    }

    fn remove_record(&mut self, entry: &CatalogRecord) -> Result<()> {
        for name in &entry.names {
            self.inner.remove_record_name(name)?;
        }
        self.report.records += 1;
        failpoint!("prune::record", self.inner.records.path());
        Ok(())
    }

    fn retire(&mut self, id: SnapshotId) -> Result<()> {
        if self.inner.leases.is_leased(LeaseItem::Snapshot(id)) {
            return Ok(());
        }
        match self.inner.retire_snapshot(id) {
            Ok(trash) => self.trash.push(trash),
            // A full disk may not even take a rename; then the files go in place.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::StorageFull => {
                self.inner.snapshots.remove_all(&id.to_string())?;
            }
            Err(error) => return Err(error),
        }
        failpoint!("prune::retired", self.inner.snapshots.path());
        self.gone(UsageKind::Snapshot, id.to_string());
        Ok(())
    }

    fn remove_blob(&mut self, digest: BlobDigest) -> Result<()> {
        if !self.inner.leases.is_leased(LeaseItem::Blob(digest))
            && self.inner.remove_blob(&digest)?
        {
            failpoint!("prune::blob", self.inner.blobs.path());
            self.gone(UsageKind::Blob, digest.to_string());
        }
        Ok(())
    }

    fn gone(&mut self, kind: UsageKind, id: String) {
        // Unknown if it came after the sizes were taken; then it is garbage of no great size.
        if let Some(entry) = self.entries.remove(&(kind, id)) {
            if self.kinds.contains(&kind) {
                self.remaining = self.remaining.saturating_sub(entry.size_bytes);
            }
            self.report.freed_bytes += entry.size_bytes;
            self.report.removed.push(entry);
        }
    }
}

/// Counts one reference down; `true` when that was the last.
fn release<K: Ord>(map: &mut BTreeMap<K, Reference>, key: &K) -> bool {
    let Some(reference) = map.get_mut(key) else { return false };
    reference.count -= 1;
    if reference.count == 0 {
        map.remove(key);
        return true;
    }
    false
}

impl Inner {
    /// Removes one name of a valid record, and the earlier version kept under it.
    fn remove_record_name(&self, name: &RecordName) -> Result<()> {
        if name.key().is_some_and(|(_, kept)| !kept) {
            self.records.remove_file(&format!("{}~", name.path()))?;
        }
        self.records.remove_file(&name.path()).map(|_| ())
    }

    /// Takes an invalid record file away. The earlier version kept under its name, if there is
    /// one, takes its place: it was acknowledged, and is all that is left of this key.
    pub(crate) fn discard_record_name(&self, name: &RecordName) -> Result<()> {
        let kept = format!("{}~", name.path());
        if name.key().is_some_and(|(_, kept)| !kept) && self.records.exists(&kept)? {
            return self.records.rename(&kept, &self.records, &name.path());
        }
        self.records.remove_file(&name.path()).map(|_| ())
    }

    fn discard_invalid(&self, catalog: &Catalog) -> Result<usize> {
        let invalid = catalog.records.iter().filter(|entry| !entry.state.is_valid());
        let names = catalog.broken.iter().chain(invalid.flat_map(|entry| &entry.names));
        let mut count = 0;
        for name in names {
            self.discard_record_name(name)?;
            count += 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
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
        let report = store
            .prune(&PruneFilter { older_than: Some(at(5)), ..PruneFilter::default() })
            .unwrap();
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
        let each = store.du().unwrap()[0].size_bytes;
        let filter = PruneFilter { keep_bytes: Some(each * 5 / 2), ..PruneFilter::default() };
        let report = store.prune(&filter).unwrap();
        assert_eq!(present(&store), [4, 5]);
        assert_eq!(report.remaining_bytes, each * 2);
        assert_eq!(report.records, 4);
        assert_eq!(
            store.prune(&filter).unwrap(),
            PruneReport { remaining_bytes: each * 2, ..PruneReport::default() }
        );
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
        assert_eq!(left.len(), 6, "{left:?}");
        assert!(left.contains(&(UsageKind::Snapshot, fresh.to_string())));
        assert!(left.contains(&(UsageKind::Cache, "used".into())));
        drop((held, fresh, open_blob, used));
        store.prune(&all).unwrap();
        assert_eq!(store.du().unwrap(), []);
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
}
