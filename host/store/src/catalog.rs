//! All records at once, with what they say of snapshots and blobs: what `du`, prune and fsck share.
//! Reads every record: never on the path of a build.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::SystemTime;

use wbuild_graph::BlobDigest;

use crate::error::Result;
use crate::record::Record;
use crate::records::RecordName;
use crate::snapshot::SnapshotId;
use crate::store::Inner;

/// How far a record can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordState {
    /// Survives a power cut.
    Sealed,
    /// Valid in this boot.
    Unsealed,
    /// Left unsealed by another boot: invalid.
    Stale,
    /// A snapshot it needs is missing: invalid.
    Incomplete,
}

impl RecordState {
    pub(crate) fn is_valid(self) -> bool {
        matches!(self, RecordState::Sealed | RecordState::Unsealed)
    }
}

/// A record with all names that lead to it.
#[derive(Debug)]
pub(crate) struct CatalogRecord {
    pub(crate) names: Vec<RecordName>,
    pub(crate) record: Record,
    pub(crate) state: RecordState,
    pub(crate) last_used: SystemTime,
}

/// All records.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) records: Vec<CatalogRecord>,
    /// Names whose file cannot be understood, or that its record does not claim.
    pub(crate) broken: Vec<RecordName>,
}

/// What records know of one snapshot or blob.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(crate) last_used: SystemTime,
    pub(crate) count: usize,
    pub(crate) description: String,
    /// Records that no other is built on.
    pub(crate) ends: usize,
    /// The snapshot below, and when it was made, as the maker's record says.
    pub(crate) below: Option<SnapshotId>,
    pub(crate) created: u64,
    /// Length of the chain whose record gave the description.
    depth: usize,
}

impl Catalog {
    pub(crate) fn load(inner: &Inner) -> Result<Catalog> {
        let existing: HashSet<SnapshotId> = inner.list_snapshots()?.into_iter().collect();
        let mut catalog = Catalog::default();
        let mut by_inode: HashMap<u64, usize> = HashMap::new();
        for name in inner.list_records()? {
            let Some((key, _)) = name.key() else {
                catalog.broken.push(name);
                continue;
            };
            if let Some(index) = by_inode.get(&name.inode)
                && catalog.records[*index].record.keys.contains(&key)
            {
                catalog.records[*index].names.push(name);
                continue;
            }
            let Some(file) = inner.records.try_open(&name.path())? else { continue };
            let decoded = inner.decode_record(&file, &name.path())?;
            let Some((record, stamp)) = decoded.filter(|(record, _)| record.keys.contains(&key))
            else {
                catalog.broken.push(name);
                continue;
            };
            let state = if !inner.is_valid(&stamp) {
                RecordState::Stale
            } else if !record.snapshots().all(|id| existing.contains(&id)) {
                RecordState::Incomplete
            } else if inner.is_sealed(&stamp) {
                RecordState::Sealed
            } else {
                RecordState::Unsealed
            };
            by_inode.insert(name.inode, catalog.records.len());
            let last_used = name.last_used;
            catalog.records.push(CatalogRecord { names: vec![name], record, state, last_used });
        }
        Ok(catalog)
    }

    /// What valid records say of each snapshot.
    pub(crate) fn snapshots(&self) -> BTreeMap<SnapshotId, Reference> {
        let mut out = BTreeMap::new();
        let built_on = self.built_on();
        for entry in self.valid() {
            let unique: HashSet<_> = entry.record.snapshots().collect();
            let tops: HashSet<_> = entry.record.top_snapshots().collect();
            let end = !tops.iter().any(|id| built_on.contains(id));
            for id in unique {
                // The maker's record has it on top, of the shortest chain among those.
                let depth = if tops.contains(&id) { entry.depth() } else { usize::MAX };
                refer(&mut out, id, entry, end, depth, &entry.record.description, || {
                    below(&entry.record, id)
                });
            }
        }
        out
    }

    /// Snapshots that another lies on in some chain.
    fn built_on(&self) -> HashSet<SnapshotId> {
        let mut out = HashSet::new();
        for output in self.valid().flat_map(|entry| &entry.record.outputs) {
            if let Some((_, lower)) = output.layers.split_last() {
                out.extend(lower.iter().filter_map(|layer| layer.snapshot));
            }
        }
        out
    }

    /// What valid records say of each blob.
    pub(crate) fn blobs(&self) -> BTreeMap<BlobDigest, Reference> {
        let mut out = BTreeMap::new();
        let built_on = self.built_on();
        for entry in self.valid() {
            let end = !entry.record.top_snapshots().any(|id| built_on.contains(&id));
            let mut seen = HashSet::new();
            for blob in entry.record.blobs().filter(|blob| seen.insert(blob.digest)) {
                let depth = entry.depth();
                refer(&mut out, blob.digest, entry, end, depth, &blob.media_type, || None);
            }
        }
        out
    }

    fn valid(&self) -> impl Iterator<Item = &CatalogRecord> {
        self.records.iter().filter(|entry| entry.state.is_valid())
    }
}

impl CatalogRecord {
    /// Length of its longest chain.
    pub(crate) fn depth(&self) -> usize {
        self.record.outputs.iter().map(|output| output.layers.len()).max().unwrap_or(0)
    }
}

/// What a snapshot lies on in the chain whose top it is.
fn below(record: &Record, id: SnapshotId) -> Option<SnapshotId> {
    let chain = record
        .outputs
        .iter()
        .find(|output| output.layers.last().is_some_and(|top| top.snapshot == Some(id)))?;
    chain.layers.iter().rev().nth(1)?.snapshot
}

fn refer<K: Ord>(
    map: &mut BTreeMap<K, Reference>,
    key: K,
    entry: &CatalogRecord,
    end: bool,
    depth: usize,
    description: &str,
    below: impl Fn() -> Option<SnapshotId>,
) {
    let reference = map.entry(key).or_insert_with(|| Reference {
        last_used: entry.last_used,
        count: 0,
        description: String::new(),
        ends: 0,
        below: None,
        created: entry.record.created,
        depth: usize::MAX,
    });
    reference.count += 1;
    reference.ends += usize::from(end);
    reference.last_used = reference.last_used.max(entry.last_used);
    if depth < reference.depth
        || (depth == reference.depth && *description < *reference.description)
    {
        reference.depth = depth;
        reference.description = description.to_owned();
        reference.below = below();
        reference.created = entry.record.created;
    }
}
