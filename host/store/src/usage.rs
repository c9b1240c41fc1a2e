//! What takes how much space, and the catalogue of all records that this, prune and fsck share.
//! Reads everything: never on the path of a build.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use wbuild_graph::BlobDigest;

use crate::document::DocumentKind;
use crate::error::{Error, Result};
use crate::files::{Folder, Visitor, modified, walk};
use crate::lease::LeaseItem;
use crate::record::Record;
use crate::records::RecordName;
use crate::snapshot::SnapshotId;
use crate::store::{Inner, Store};

/// What kind of thing takes the space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UsageKind {
    /// A layer's directory.
    Snapshot,
    /// A blob.
    Blob,
    /// A cache mount, with all its directories.
    Cache,
    /// A document: kept digests of a context, a memo trace.
    Context,
}

impl UsageKind {
    /// `snapshot`, `blob`, `cache` or `context`.
    pub const fn as_str(self) -> &'static str {
        match self {
            UsageKind::Snapshot => "snapshot",
            UsageKind::Blob => "blob",
            UsageKind::Cache => "cache",
            UsageKind::Context => "context",
        }
    }
}

/// One thing in the state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageEntry {
    /// What it is.
    pub kind: UsageKind,
    /// Snapshot id, blob digest, or the caller's own id of a cache or document.
    pub id: String,
    /// Bytes on disk. An inode that several entries share counts in the first only.
    pub size_bytes: u64,
    /// When a record that needs it, or it itself, was last used.
    pub last_used: SystemTime,
    /// The step that made it, the blob's media type, the kind of document.
    pub description: String,
    /// A running build of this process holds it, so it cannot be evicted now.
    pub in_use: bool,
}

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
        for entry in self.valid() {
            let unique: HashSet<_> = entry.record.snapshots().collect();
            let tops: HashSet<_> = entry.record.top_snapshots().collect();
            for id in unique {
                // The maker's record has it on top, of the shortest chain among those.
                let depth = if tops.contains(&id) { entry.depth() } else { usize::MAX };
                refer(&mut out, id, entry, depth, &entry.record.description);
            }
        }
        out
    }

    /// What valid records say of each blob.
    pub(crate) fn blobs(&self) -> BTreeMap<BlobDigest, Reference> {
        let mut out = BTreeMap::new();
        for entry in self.valid() {
            let mut seen = HashSet::new();
            for blob in entry.record.blobs().filter(|blob| seen.insert(blob.digest)) {
                refer(&mut out, blob.digest, entry, entry.depth(), &blob.media_type);
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

fn refer<K: Ord>(
    map: &mut BTreeMap<K, Reference>,
    key: K,
    entry: &CatalogRecord,
    depth: usize,
    description: &str,
) {
    let reference = map.entry(key).or_insert_with(|| Reference {
        last_used: entry.last_used,
        count: 0,
        description: String::new(),
        depth: usize::MAX,
    });
    reference.count += 1;
    reference.last_used = reference.last_used.max(entry.last_used);
    if depth < reference.depth
        || (depth == reference.depth && *description < *reference.description)
    {
        reference.depth = depth;
        reference.description = description.to_owned();
    }
}

/// Adds up what a tree takes on disk, each inode once over all trees it is used for.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    seen: HashSet<(u64, u64)>,
    bytes: u64,
}

impl Meter {
    /// Bytes below the directory `name` and of itself; 0 if there is none.
    pub(crate) fn measure(&mut self, folder: &Folder, name: &str) -> Result<u64> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root: OwnedFd = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(0),
            Err(errno) => return Err(folder.error("open", name, errno)),
        };
        let failed = |errno| folder.error("measure", name, errno);
        self.bytes = 0;
        let stat = rustix::fs::fstat(&root).map_err(failed)?;
        self.add(&stat);
        match walk(root, self) {
            // A running step moves things about in a cache: what was seen so far is the answer.
            Ok(()) | Err(Errno::STALE | Errno::NOENT | Errno::ACCESS) => Ok(self.bytes),
            Err(errno) => Err(failed(errno)),
        }
    }

    fn add(&mut self, stat: &rustix::fs::Stat) {
        if self.seen.insert((stat.st_dev, stat.st_ino)) {
            self.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        }
    }
}

impl Visitor for Meter {
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        _kind: FileType,
    ) -> rustix::io::Result<bool> {
        let stat = rustix::fs::statat(parent.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
        self.add(&stat);
        Ok(true)
    }
}

/// Bytes on disk of a file of this size: a stat would be exact, but small files dominate the
/// count and large ones the sum.
fn file_usage(folder: &Folder, name: &str) -> Result<Option<(u64, SystemTime)>> {
    let stat = folder.stat(name)?;
    Ok(stat.map(|s| (u64::try_from(s.st_blocks).unwrap_or(0) * 512, modified(&s))))
}

/// What the beginning of a blob is called among blobs.
pub(crate) fn partial_id(digest: &BlobDigest) -> String {
    format!("{digest} (part)")
}

impl Store {
    /// Everything that takes space, sorted by kind and then by id. Works on a read-only store
    /// while another process builds; what vanishes meanwhile is left out.
    pub fn du(&self) -> Result<Vec<UsageEntry>> {
        let catalog = Catalog::load(&self.inner)?;
        self.inner.usage(&catalog)
    }
}

impl Inner {
    pub(crate) fn usage(&self, catalog: &Catalog) -> Result<Vec<UsageEntry>> {
        let mut out = Vec::new();
        let mut meter = Meter::default();
        let references = catalog.snapshots();
        for id in self.list_snapshots()? {
            let Some(stat) = self.snapshots.stat(&id.to_string())? else { continue };
            let reference = references.get(&id);
            out.push(UsageEntry {
                kind: UsageKind::Snapshot,
                id: id.to_string(),
                size_bytes: meter.measure(&self.snapshots, &id.to_string())?,
                last_used: reference.map_or_else(|| modified(&stat), |r| r.last_used),
                description: reference.map_or(String::new(), |r| r.description.clone()),
                in_use: self.leases.is_leased(LeaseItem::Snapshot(id)),
            });
        }
        let start = out.len();
        let references = catalog.blobs();
        self.each_blob(|folder, name, digest| {
            let Some((size_bytes, modified)) = file_usage(folder, name)? else { return Ok(()) };
            let reference = references.get(&digest);
            out.push(UsageEntry {
                kind: UsageKind::Blob,
                id: digest.to_string(),
                size_bytes,
                last_used: reference.map_or(modified, |r| r.last_used.max(modified)),
                description: reference.map_or(String::new(), |r| r.description.clone()),
                in_use: self.leases.is_leased(LeaseItem::Blob(digest)),
            });
            Ok(())
        })?;
        for partial in self.partials()? {
            out.push(UsageEntry {
                kind: UsageKind::Blob,
                id: partial_id(&partial.digest),
                size_bytes: partial.size_bytes,
                last_used: partial.last_used,
                description: "begun download".into(),
                in_use: false,
            });
        }
        out[start..].sort_by(|a, b| a.id.cmp(&b.id));
        self.usage_of_caches(&mut meter, &mut out)?;
        self.usage_of_documents(&mut out)?;
        Ok(out)
    }

    fn usage_of_caches(&self, meter: &mut Meter, out: &mut Vec<UsageEntry>) -> Result<()> {
        let start = out.len();
        for (name, _) in self.caches.list()? {
            let Some(folder) = self.caches.try_sub(&name)? else { continue };
            let id = folder.read("id", 1 << 20)?.unwrap_or_default();
            let mut last_used = SystemTime::UNIX_EPOCH;
            for (file, _) in folder.list()? {
                if file.ends_with(".lock")
                    && let Some(stat) = folder.stat(&file)?
                {
                    last_used = last_used.max(modified(&stat));
                }
            }
            out.push(UsageEntry {
                kind: UsageKind::Cache,
                id: String::from_utf8_lossy(&id).into_owned(),
                size_bytes: meter.measure(&self.caches, &name)?,
                last_used,
                description: match name.starts_with(crate::cache_dir::REPOSITORY) {
                    true => "git repository".into(),
                    false => "cache mount".into(),
                },
                in_use: crate::cache_dir::in_use(&folder)?,
            });
        }
        out[start..].sort_by(|a, b| a.id.cmp(&b.id));
        Ok(())
    }

    fn usage_of_documents(&self, out: &mut Vec<UsageEntry>) -> Result<()> {
        let start = out.len();
        for (name, _) in self.documents.list()? {
            let Some(kind) = DocumentKind::of_file(&name) else { continue };
            let Some((size_bytes, last_used)) = file_usage(&self.documents, &name)? else {
                continue;
            };
            let id = match self.document_id(&name) {
                Ok(id) => id,
                Err(Error::TooLarge { .. }) => None,
                Err(error) => return Err(error),
            };
            out.push(UsageEntry {
                kind: UsageKind::Context,
                id: id.unwrap_or(name),
                size_bytes,
                last_used,
                description: kind.as_str().into(),
                in_use: false,
            });
        }
        out[start..].sort_by(|a, b| (&a.id, &a.description).cmp(&(&b.id, &b.description)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wbuild_graph::{CacheKey, Digest};

    use super::*;
    use crate::cache_dir::{CacheOwner, CacheSharing};
    use crate::record::{BlobRef, LayerRecord, OutputRecord};
    use crate::testing::{open, options, snapshot_with, write_file};
    use crate::{OpenOptions, Store};

    #[test]
    fn everything_is_listed_with_its_maker_and_inodes_count_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let big = "x".repeat(100_000);
        let a = snapshot_with(&store, &[("f", &big)]);
        let builder = store.begin_snapshot().unwrap();
        std::fs::hard_link(
            dir.path().join(format!("snapshots/{}/fs/f", *a)),
            builder.fs_path().join("f"),
        )
        .unwrap();
        let (b, lease) = builder.commit().unwrap().into_parts();
        drop(lease);
        let digest = store.put_blob(big.as_bytes()).unwrap();
        for (n, description, chain) in
            [(1, "RUN second", vec![*a, b]), (2, "RUN first", vec![*a]), (3, "other", vec![b, *a])]
        {
            let layers = chain
                .iter()
                .map(|id| LayerRecord { snapshot: Some(*id), ..LayerRecord::default() })
                .collect();
            let record = Record {
                keys: vec![CacheKey(Digest::of(&[n]))],
                description: description.into(),
                outputs: vec![OutputRecord { result_id: None, layers }],
                attachments: vec![BlobRef { media_type: "text".into(), digest, size: 1 }],
                ..Record::default()
            };
            store.put_record(&record).unwrap();
        }
        let owner = CacheOwner {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            ..CacheOwner::default()
        };
        let cache = store.try_cache_dir("go", CacheSharing::Shared, owner).unwrap().unwrap();
        write_file(&cache, "f", big.as_bytes());
        store.save_context("ctx", big.as_bytes()).unwrap();

        let reader = Store::open(dir.path(), OpenOptions { read_only: true, ..options() }).unwrap();
        let (mine, theirs) = (store.du().unwrap(), reader.du().unwrap());
        let shape = |entries: &[UsageEntry]| -> Vec<_> {
            entries.iter().map(|e| (e.kind, e.id.clone(), e.description.clone())).collect()
        };
        assert_eq!(shape(&mine), shape(&theirs));
        let find = |kind, id: &str| mine.iter().find(|e| e.kind == kind && e.id == id).unwrap();
        let (ea, eb) =
            (find(UsageKind::Snapshot, &a.to_string()), find(UsageKind::Snapshot, &b.to_string()));
        assert_eq!((ea.description.as_str(), ea.in_use), ("RUN first", true));
        assert_eq!((eb.description.as_str(), eb.in_use), ("RUN second", false));
        let both = ea.size_bytes + eb.size_bytes;
        assert!((100_000..180_000).contains(&both), "the shared file counts once: {both}");
        let cache_entry = find(UsageKind::Cache, "go");
        assert!(cache_entry.in_use && cache_entry.size_bytes >= 100_000);
        assert_eq!(find(UsageKind::Blob, &digest.to_string()).description, "text");
        assert_eq!(find(UsageKind::Context, "ctx").description, "context");
        assert_eq!(mine.len(), 5);
    }
}
