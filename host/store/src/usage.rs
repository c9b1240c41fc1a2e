//! What takes how much space. Reads everything: never on the path of a build.

use std::collections::{BTreeMap, HashSet};
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use wbuild_graph::BlobDigest;

use crate::catalog::{Catalog, Reference};
use crate::document::DocumentKind;
use crate::error::{Error, Result};
use crate::files::{Folder, Visitor, modified, walk};
use crate::lease::LeaseItem;
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
    /// Records, the index, directories, and what is unfinished. Goes with the rest.
    Internal,
}

impl UsageKind {
    /// `snapshot`, `blob`, `cache`, `context` or `internal`.
    pub const fn as_str(self) -> &'static str {
        match self {
            UsageKind::Snapshot => "snapshot",
            UsageKind::Blob => "blob",
            UsageKind::Cache => "cache",
            UsageKind::Context => "context",
            UsageKind::Internal => "internal",
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
    /// Several results need it that are not built on each other, so that it stays when one goes.
    pub shared: bool,
    /// Results that need it.
    pub results: usize,
    /// The snapshot below it, in the chain of the result that made it.
    pub parents: Vec<String>,
    /// When the result that made it was made, in seconds since 1970; 0 if unknown.
    pub created: u64,
}

impl UsageEntry {
    /// Its type, by the names that BuildKit has for what it keeps.
    pub fn record_type(&self) -> &'static str {
        match self.kind {
            UsageKind::Snapshot | UsageKind::Blob => "regular",
            UsageKind::Cache if self.description == REPOSITORY => "source.git.checkout",
            UsageKind::Cache => "exec.cachemount",
            UsageKind::Context if self.description == DocumentKind::Context.as_str() => {
                "source.local"
            }
            UsageKind::Context | UsageKind::Internal => "internal",
        }
    }

    /// Whether what it holds may still change.
    pub fn is_mutable(&self) -> bool {
        self.kind == UsageKind::Cache
    }

    /// An entry that belongs to no result.
    fn alone(kind: UsageKind, id: String, size_bytes: u64, last_used: SystemTime) -> UsageEntry {
        UsageEntry {
            kind,
            id,
            size_bytes,
            last_used,
            description: String::new(),
            in_use: false,
            shared: false,
            results: 0,
            parents: Vec::new(),
            created: 0,
        }
    }

    /// The same with what records know of it.
    fn referred(mut self, reference: Option<&Reference>) -> UsageEntry {
        if let Some(reference) = reference {
            self.last_used = self.last_used.max(reference.last_used);
            self.description.clone_from(&reference.description);
            self.shared = reference.ends > 1;
            self.results = reference.count;
            self.parents.extend(reference.below.map(|id| id.to_string()));
            self.created = reference.created;
        }
        self
    }
}

/// Descriptions of what lies in `caches`.
const REPOSITORY: &str = "git repository";
const CACHE_MOUNT: &str = "cache mount";

/// Adds up what a tree takes on disk, each inode once over all trees it is used for.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    seen: HashSet<(u64, u64)>,
    bytes: u64,
}

impl Meter {
    /// Bytes of the file `name` unless they were counted, and when it was changed.
    fn file(&mut self, folder: &Folder, name: &str) -> Result<Option<(u64, SystemTime)>> {
        self.bytes = 0;
        let Some(stat) = folder.stat(name)? else { return Ok(None) };
        self.add(&stat);
        Ok(Some((self.bytes, modified(&stat))))
    }

    /// Bytes of `name`, be it a file or a directory with all below.
    pub(crate) fn measure_any(&mut self, folder: &Folder, name: &str) -> Result<u64> {
        match folder.stat(name)? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                self.measure(folder, name)
            }
            _ => Ok(self.file(folder, name)?.map_or(0, |(bytes, _)| bytes)),
        }
    }

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

/// What the beginning of a blob is called among blobs.
pub(crate) fn partial_id(digest: &BlobDigest) -> String {
    format!("{digest} (part)")
}

impl Store {
    /// Everything that takes space, sorted by kind and then by id; the sum is what the file system
    /// says of the state directory. Works on a read-only store while another process builds; what
    /// vanishes meanwhile is left out.
    pub fn du(&self) -> Result<Vec<UsageEntry>> {
        let catalog = Catalog::load(&self.inner)?;
        Ok(self.inner.usage(&catalog)?.entries)
    }
}

/// Everything that takes space.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    pub(crate) entries: Vec<UsageEntry>,
    /// What folders take that others write to, by name relative to the state directory.
    pub(crate) folders: BTreeMap<String, u64>,
}

impl Inner {
    pub(crate) fn usage(&self, catalog: &Catalog) -> Result<Usage> {
        let Usage { entries: mut out, mut folders } = Usage::default();
        let mut meter = Meter::default();
        let references = catalog.snapshots();
        for id in self.list_snapshots()? {
            let Some(stat) = self.snapshots.stat(&id.to_string())? else { continue };
            let size = meter.measure(&self.snapshots, &id.to_string())?;
            let reference = references.get(&id);
            // Only who made it changes a snapshot's own time, so a record knows better.
            let last_used = reference.map_or_else(|| modified(&stat), |known| known.last_used);
            let entry = UsageEntry::alone(UsageKind::Snapshot, id.to_string(), size, last_used);
            let in_use = self.leases.is_leased(LeaseItem::Snapshot(id));
            out.push(UsageEntry { in_use, ..entry.referred(reference) });
        }
        self.usage_of_blobs(catalog, &mut meter, &mut out)?;
        self.usage_of_caches(&mut meter, &mut out, &mut folders)?;
        self.usage_of_documents(&mut meter, &mut out)?;
        out.push(self.usage_of_the_rest(&mut meter, &mut folders)?);
        Ok(Usage { entries: out, folders })
    }

    fn usage_of_blobs(
        &self,
        catalog: &Catalog,
        meter: &mut Meter,
        out: &mut Vec<UsageEntry>,
    ) -> Result<()> {
        let start = out.len();
        let references = catalog.blobs();
        self.each_blob(|folder, name, digest| {
            let Some((size, modified)) = meter.file(folder, name)? else { return Ok(()) };
            let entry = UsageEntry::alone(UsageKind::Blob, digest.to_string(), size, modified);
            let in_use = self.leases.is_leased(LeaseItem::Blob(digest));
            out.push(UsageEntry { in_use, ..entry.referred(references.get(&digest)) });
            Ok(())
        })?;
        for partial in self.partials()? {
            let Some((size, modified)) = meter.file(&self.tmp, &partial.name())? else { continue };
            let id = partial_id(&partial.digest);
            let entry = UsageEntry::alone(UsageKind::Blob, id, size, modified);
            out.push(UsageEntry { description: "begun download".into(), ..entry });
        }
        out[start..].sort_by(|a, b| a.id.cmp(&b.id));
        Ok(())
    }

    fn usage_of_caches(
        &self,
        meter: &mut Meter,
        out: &mut Vec<UsageEntry>,
        folders: &mut BTreeMap<String, u64>,
    ) -> Result<()> {
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
            let id = String::from_utf8_lossy(&id).into_owned();
            let size = meter.measure(&self.caches, &name)?;
            folders.insert(format!("caches/{name}"), size);
            let description = match name.starts_with(crate::cache_dir::REPOSITORY) {
                true => REPOSITORY,
                false => CACHE_MOUNT,
            };
            out.push(UsageEntry {
                description: description.into(),
                in_use: crate::cache_dir::in_use(&folder)?,
                ..UsageEntry::alone(UsageKind::Cache, id, size, last_used)
            });
        }
        out[start..].sort_by(|a, b| a.id.cmp(&b.id));
        Ok(())
    }

    fn usage_of_documents(&self, meter: &mut Meter, out: &mut Vec<UsageEntry>) -> Result<()> {
        let start = out.len();
        for (name, _) in self.documents.list()? {
            let Some(kind) = DocumentKind::of_file(&name) else { continue };
            let Some((size, last_used)) = meter.file(&self.documents, &name)? else { continue };
            let id = match self.document_id(&name) {
                Ok(id) => id,
                Err(Error::TooLarge { .. }) => None,
                Err(error) => return Err(error),
            };
            out.push(UsageEntry {
                description: kind.as_str().into(),
                ..UsageEntry::alone(UsageKind::Context, id.unwrap_or(name), size, last_used)
            });
        }
        out[start..].sort_by(|a, b| (&a.id, &a.description).cmp(&(&b.id, &b.description)));
        Ok(())
    }

    /// All that is no entry of its own.
    fn usage_of_the_rest(
        &self,
        meter: &mut Meter,
        folders: &mut BTreeMap<String, u64>,
    ) -> Result<UsageEntry> {
        let of_root = meter.file(&self.root, ".")?;
        let (mut size, last_used) = of_root.unwrap_or((0, SystemTime::UNIX_EPOCH));
        for (name, kind) in self.root.list()? {
            // What is in these two was counted one by one.
            let counted = matches!(name.as_str(), "snapshots" | "caches");
            let bytes = match kind {
                FileType::Directory if !counted => meter.measure(&self.root, &name)?,
                _ => meter.file(&self.root, &name)?.map_or(0, |(bytes, _)| bytes),
            };
            if name == "index" {
                folders.insert(name, bytes);
            }
            size += bytes;
        }
        let entry = UsageEntry::alone(UsageKind::Internal, "internal".into(), size, last_used);
        Ok(UsageEntry { description: "records, index, directories".into(), ..entry })
    }
}

#[cfg(test)]
mod tests {
    use wbuild_graph::{CacheKey, Digest};

    use super::*;
    use crate::cache_dir::{CacheOwner, CacheSharing};
    use crate::record::{BlobRef, LayerRecord, OutputRecord, Record};
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
        assert_eq!(mine.len(), 6);
        // The file system's own answer, with each inode once.
        let output = std::process::Command::new("du").args(["-s", "-B1"]).arg(dir.path()).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let total: u64 = mine.iter().map(|entry| entry.size_bytes).sum();
        assert_eq!(text.split('\t').next().unwrap().parse(), Ok(total), "{mine:?}");
        assert_eq!((ea.results, ea.parents.len()), (3, 0));
        assert_eq!(eb.parents, [a.to_string()]);
    }

    /// What one result alone needs goes with it; what several need does not.
    #[test]
    fn shared_is_what_several_ends_of_chains_need() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let layers: Vec<_> = (0..4).map(|_| *snapshot_with(&store, &[("f", "x")])).collect();
        let digest = store.put_blob(b"config").unwrap();
        for (n, chain) in [(1, &[0][..]), (2, &[0, 1]), (3, &[0, 1, 2]), (4, &[0, 3])] {
            let layers = chain.iter().map(|index| LayerRecord {
                snapshot: Some(layers[*index]),
                ..LayerRecord::default()
            });
            let record = Record {
                keys: vec![CacheKey(Digest::of(&[n]))],
                outputs: vec![OutputRecord { result_id: None, layers: layers.collect() }],
                attachments: vec![BlobRef { media_type: "text".into(), digest, size: 6 }],
                created: u64::from(n),
                ..Record::default()
            };
            store.put_record(&record).unwrap();
        }
        let entries = store.du().unwrap();
        let of = |n: usize| entries.iter().find(|e| e.id == layers[n].to_string()).unwrap();
        let shown: Vec<_> = (0..4).map(|n| (of(n).shared, of(n).results, of(n).created)).collect();
        assert_eq!(shown, [(true, 4, 1), (false, 2, 2), (false, 1, 3), (false, 1, 4)]);
        assert_eq!(of(2).parents, [layers[1].to_string()]);
        assert_eq!(of(0).record_type(), "regular");
        let blob = entries.iter().find(|e| e.kind == UsageKind::Blob).unwrap();
        assert_eq!((blob.shared, blob.results), (true, 4));
    }
}
