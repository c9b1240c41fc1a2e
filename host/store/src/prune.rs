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
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use wbuild_graph::BlobDigest;

use crate::catalog::{Catalog, CatalogRecord, Reference};
use crate::document::DocumentKind;
use crate::error::{Error, Result};
use crate::files::modified;
use crate::fsck::ASIDE;
use crate::lease::LeaseItem;
use crate::records::RecordName;
use crate::snapshot::SnapshotId;
use crate::space::Bounds;
use crate::store::{Inner, Store};
use crate::sync::{lock, write};
use crate::usage::{Meter, UsageEntry, UsageKind, partial_id};

/// What to evict. Garbage (damaged records, snapshots nothing refers to) always goes.
#[derive(Clone, Debug, Default)]
pub struct PruneFilter {
    /// Everything that is not in use.
    pub all: bool,
    /// Only what was last used before this moment.
    pub older_than: Option<SystemTime>,
    /// Stop when no more remains than these allow.
    pub keep: Option<Bounds>,
    /// Only things of these kinds; empty means every kind.
    pub kinds: BTreeSet<UsageKind>,
    /// Only what this says yes to. Of a result it is asked about what it is known by: the topmost
    /// snapshot, or its blobs if it has none.
    pub only: Option<Choice>,
    /// Stop when no more bytes than these remain of what `only` says yes to.
    pub keep_chosen: Option<u64>,
}

/// Decides what is evicted.
#[derive(Clone)]
pub struct Choice(Arc<dyn Fn(&UsageEntry) -> bool + Send + Sync>);

impl Choice {
    /// What `decide` says.
    pub fn new(decide: impl Fn(&UsageEntry) -> bool + Send + Sync + 'static) -> Choice {
        Choice(Arc::new(decide))
    }
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Choice")
    }
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
    /// Bytes that remain, of whatever kind.
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
    /// Name in `damaged`.
    Aside(String),
}

struct Pruning<'a> {
    inner: &'a Inner,
    catalog: &'a Catalog,
    snapshots: BTreeMap<SnapshotId, Reference>,
    blobs: BTreeMap<BlobDigest, Reference>,
    entries: HashMap<(UsageKind, String), UsageEntry>,
    kinds: BTreeSet<UsageKind>,
    only: Option<Choice>,
    remaining: u64,
    /// Of that, what could go if it is not in use.
    chosen: u64,
    trash: Vec<String>,
    report: PruneReport,
}

impl Store {
    /// Evicts what the filter says, least recently used first; never what is leased or in use.
    pub fn prune(&self, filter: &PruneFilter) -> Result<PruneReport> {
        let PruneFilter { all, older_than, keep, only, .. } = filter;
        let disk = self.disk()?;
        self.prune_down(filter, |used, freed| match keep {
            Some(bounds) => Some(bounds.target(used, disk.free.saturating_add(freed))),
            None => (*all || older_than.is_some() || only.is_some()).then_some(0),
        })
    }

    /// Evicts as the filter says until no more remains than `goal` allows, which is asked with what
    /// there is and what has gone as garbage; `None` evicts nothing but garbage.
    pub(crate) fn prune_down(
        &self,
        filter: &PruneFilter,
        goal: impl FnOnce(u64, u64) -> Option<u64>,
    ) -> Result<PruneReport> {
        let inner = &*self.inner;
        inner.check_writable()?;
        inner.adopt_pending()?;
        inner.account.begin(&inner.root)?;
        // Sizes do not change and take long to find out, so before anybody has to wait.
        let added = inner.added();
        let measured = inner.usage(&Catalog::load(inner)?)?;
        let total = measured.entries.iter().map(|entry| entry.size_bytes).sum();
        inner.counted(total, measured.folders, added);
        let sizes: HashMap<_, _> = measured
            .entries
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
            let mut pruning = Pruning::new(inner, &catalog, sizes, total, filter);
            pruning.report.records = discarded;
            let result = pruning.run(filter, goal);
            inner.discount(total.saturating_sub(pruning.remaining));
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
        remaining: u64,
        filter: &PruneFilter,
    ) -> Self {
        let kinds = if filter.kinds.is_empty() {
            use UsageKind::{Blob, Cache, Context, Snapshot};
            BTreeSet::from([Snapshot, Blob, Cache, Context])
        } else {
            filter.kinds.clone()
        };
        Pruning {
            inner,
            catalog,
            snapshots: catalog.snapshots(),
            blobs: catalog.blobs(),
            chosen: 0,
            only: filter.only.clone(),
            entries,
            kinds,
            remaining,
            trash: Vec::new(),
            report: PruneReport::default(),
        }
    }

    fn run(
        &mut self,
        filter: &PruneFilter,
        goal: impl FnOnce(u64, u64) -> Option<u64>,
    ) -> Result<()> {
        self.collect_garbage()?;
        let chosen = self.entries.values().filter(|entry| self.chooses(entry));
        self.chosen = chosen.map(|entry| entry.size_bytes).sum();
        if let Some(goal) = goal(self.remaining, self.report.freed_bytes) {
            for (last_used, candidate) in self.candidates()? {
                // A ceiling of nothing still means everything, empty files included.
                if goal > 0 && self.remaining <= goal {
                    break;
                }
                if filter.keep_chosen.is_some_and(|most| self.chosen <= most) {
                    break;
                }
                if filter.older_than.is_some_and(|limit| last_used >= limit) {
                    break;
                }
                if filter.only.as_ref().is_none_or(|only| self.is_chosen(&candidate, only)) {
                    self.evict(candidate)?;
                }
            }
        }
        self.report.remaining_bytes = self.remaining;
        Ok(())
    }

    fn chooses(&self, entry: &UsageEntry) -> bool {
        self.kinds.contains(&entry.kind)
            && self.only.as_ref().is_none_or(|Choice(decide)| decide(entry))
    }

    fn is_chosen(&self, candidate: &Candidate, Choice(decide): &Choice) -> bool {
        let entry = |kind, id: String| self.entries.get(&(kind, id));
        let mut known = match candidate {
            Candidate::Record(index) => {
                let record = &self.catalog.records[*index].record;
                let tops =
                    record.top_snapshots().map(|id| entry(UsageKind::Snapshot, id.to_string()));
                let mut known: Vec<_> = tops.collect();
                if known.is_empty() {
                    let blobs = record.blobs().map(|blob| blob.digest.to_string());
                    known.extend(blobs.map(|id| entry(UsageKind::Blob, id)));
                }
                known
            }
            Candidate::Blob(digest) => vec![entry(UsageKind::Blob, digest.to_string())],
            Candidate::Partial(digest) => vec![entry(UsageKind::Blob, partial_id(digest))],
            Candidate::Cache(name) => vec![entry(UsageKind::Cache, self.cache_id(name))],
            Candidate::Document(name) => vec![entry(UsageKind::Context, self.document_id(name))],
            Candidate::Aside(_) => Vec::new(),
        }
        .into_iter()
        .flatten();
        known.any(|entry| decide(entry))
    }

    fn cache_id(&self, name: &str) -> String {
        let folder = self.inner.caches.try_sub(name).ok().flatten();
        let id = folder.and_then(|folder| folder.read("id", 1 << 20).ok().flatten());
        String::from_utf8_lossy(&id.unwrap_or_default()).into_owned()
    }

    fn document_id(&self, name: &str) -> String {
        self.inner.document_id(name).ok().flatten().unwrap_or_else(|| name.to_owned())
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
                let known = self.entries.get(&(UsageKind::Cache, self.cache_id(&name)));
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
        // What a repair has set aside is of use to nobody but the curious.
        if let Some(folder) = self.inner.root.try_sub(ASIDE)? {
            for (name, _) in folder.list()? {
                out.push((SystemTime::UNIX_EPOCH, after_records, Candidate::Aside(name)));
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
                let id = self.cache_id(&name);
                let trash = format!("trash-cache-{name}");
                self.inner.caches.rename(&name, &self.inner.tmp, &trash)?;
                self.trash.push(trash);
                self.gone(UsageKind::Cache, id);
            }
            Candidate::Document(name) => {
                let id = self.document_id(&name);
                self.inner.documents.remove_file(&name)?;
                self.gone(UsageKind::Context, id);
            }
            Candidate::Aside(name) => {
                let folder = self.inner.root.sub(ASIDE)?;
                let bytes = Meter::default().measure_any(&folder, &name)?;
                folder.remove_all(&name)?;
                self.remaining = self.remaining.saturating_sub(bytes);
                self.report.freed_bytes += bytes;
            }
        }
        Ok(())
    }

    fn remove_record(&mut self, entry: &CatalogRecord) -> Result<()> {
        for name in &entry.names {
            self.inner.remove_record_name(name)?;
        }
        self.report.records += 1;
        let frees = entry.names.first().map_or(0, |name| name.frees);
        self.remaining = self.remaining.saturating_sub(frees);
        self.report.freed_bytes += frees;
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
            if self.chooses(&entry) {
                self.chosen = self.chosen.saturating_sub(entry.size_bytes);
            }
            self.remaining = self.remaining.saturating_sub(entry.size_bytes);
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
mod tests;
