//! Checking the whole state directory against itself, and setting aside what is damaged.
//!
//! A check changes nothing. A repair moves what is damaged into the folder `damaged`, where it stays
//! until a prune, or until the room is needed; only what a crash has left without any meaning is
//! removed. Either way the store behaves as if it had never been there: builds make it again. Records
//! whose snapshots or blobs were set aside go with them.

mod report;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::blob::hash_file;
use crate::catalog::{Catalog, RecordState};
use crate::document::DocumentKind;
use crate::error::{Error, Result};
use crate::files::Folder;
use crate::lease::LeaseItem;
use crate::record::LayerRecord;
use crate::records::RecordName;
use crate::snapshot::SnapshotId;
use crate::store::{Inner, Store};
use crate::sync::{lock, write};

pub use report::{
    FsckHelp, FsckOptions, FsckReport, LayerCheck, LayerState, Problem, ProblemKind, Remedy,
    StoredLayer,
};

impl Store {
    /// Checks everything stored that the store can check by itself; see [`Store::fsck_with`].
    pub fn fsck(&self, options: FsckOptions) -> Result<FsckReport> {
        self.fsck_with(options, FsckHelp::default())
    }

    /// Checks everything stored. On a read-only store nothing can be repaired, and a build that
    /// runs meanwhile may show as a problem.
    pub fn fsck_with(&self, options: FsckOptions, help: FsckHelp<'_>) -> Result<FsckReport> {
        let inner = &*self.inner;
        if options.repair {
            inner.check_writable()?;
            inner.account.begin(&inner.root)?;
        }
        if !inner.read_only {
            inner.adopt_pending()?;
        }
        let _writes = lock(&inner.record_writes);
        let _gc = write(&inner.gc);
        let report = FsckReport::default();
        let mut check = Check { inner, options, help, report, lost: HashSet::new() };
        check.seals()?;
        // Blobs and layers first: whether a record holds depends on them.
        check.blobs()?;
        check.layers()?;
        check.records()?;
        check.documents()?;
        check.index()?;
        check.leftovers()?;
        check.report.problems.sort();
        Ok(check.report)
    }
}

struct Check<'a> {
    inner: &'a Inner,
    options: FsckOptions,
    help: FsckHelp<'a>,
    report: FsckReport,
    /// Layers found damaged.
    lost: HashSet<SnapshotId>,
}

impl Check<'_> {
    /// Notes a problem; a repair moves `name` of `folder` aside, as `label`.
    fn damaged(
        &mut self,
        kind: ProblemKind,
        (folder, name): (&Folder, &str),
        label: &str,
        detail: impl Into<String>,
    ) -> Result<()> {
        let remedy = match self.options.repair {
            true => Remedy::SetAside(self.inner.set_aside(folder, name, label)?),
            false => Remedy::None,
        };
        self.note(kind, folder.join(name), detail, remedy);
        Ok(())
    }

    fn note(
        &mut self,
        kind: ProblemKind,
        path: PathBuf,
        detail: impl Into<String>,
        remedy: Remedy,
    ) {
        self.report.problems.push(Problem { kind, path, detail: detail.into(), remedy });
    }

    fn seals(&mut self) -> Result<()> {
        let inner = self.inner;
        let bad = crate::boot::unreadable_seals(&inner.root)?;
        if bad == 0 {
            return Ok(());
        }
        let path = inner.root.join(crate::boot::SEALS_FILE);
        let mut remedy = Remedy::None;
        if self.options.repair {
            remedy = Remedy::SetAside(inner.copy_aside(crate::boot::SEALS_FILE)?);
            write(&inner.seals).rewrite(&inner.root, &inner.tmp)?;
        }
        self.note(ProblemKind::DamagedSeals, path, format!("{bad} lines make no sense"), remedy);
        Ok(())
    }

    fn blobs(&mut self) -> Result<()> {
        let inner = self.inner;
        let mut damaged = Vec::new();
        let mut count = 0;
        inner.each_blob(|folder, name, digest| {
            count += 1;
            if self.options.verify_blobs
                && let Some(file) = folder.try_open(name)?
            {
                let actual = hash_file(file);
                if actual.as_ref().ok() != Some(&digest.0) {
                    let detail = actual.map_or_else(|e| e.to_string(), |d| format!("it has {d}"));
                    damaged.push((folder.path().to_owned(), name.to_owned(), detail));
                }
            }
            Ok(())
        })?;
        self.report.blobs = count;
        for (folder, name, detail) in damaged {
            let folder = Folder::open(&folder)?;
            let label = format!("blob-{name}");
            self.damaged(ProblemKind::DamagedBlob, (&folder, &name), &label, detail)?;
        }
        for (shard, _) in inner.blobs.list()? {
            let Some(folder) = inner.blobs.try_sub(&shard)? else { continue };
            for (name, _) in folder.list()? {
                let good = wbuild_graph::Digest::from_hex(&name).is_ok() && name[..2] == shard;
                if !good {
                    let path = folder.join(&name);
                    self.note(ProblemKind::ForeignFile, path, "not a digest", Remedy::None);
                }
            }
        }
        Ok(())
    }

    fn layers(&mut self) -> Result<()> {
        let Some(check) = self.help.layer else { return Ok(()) };
        let inner = self.inner;
        let catalog = Catalog::load(inner)?;
        // Of several records the one that knows what the files are.
        let mut known: BTreeMap<SnapshotId, &LayerRecord> = BTreeMap::new();
        for layer in catalog.records.iter().flat_map(|entry| entry.record.layers()) {
            let Some(id) = layer.snapshot.filter(|id| inner.snapshot_exists(*id).unwrap_or(false))
            else {
                continue;
            };
            let best = known.entry(id).or_insert(layer);
            if best.content_digest.is_none()
                && (layer.content_digest.is_some() || best.blob.is_none())
            {
                *best = layer;
            }
        }
        for (id, layer) in known {
            let blob = match &layer.blob {
                Some(blob) => inner.find_blob(&blob.digest)?.map(|(file, _)| file),
                None => None,
            };
            let files = inner.open_layer(id)?;
            match check(StoredLayer { record: layer, files, blob, kind: inner.kind })? {
                LayerState::Good => self.report.layers_compared += 1,
                LayerState::Unknown => self.report.layers_unknown += 1,
                LayerState::Damaged(detail) => {
                    self.report.layers_compared += 1;
                    self.lost.insert(id);
                    let name = id.to_string();
                    let label = format!("layer-{name}");
                    let at = (&inner.snapshots, name.as_str());
                    self.damaged(ProblemKind::DamagedLayer, at, &label, detail)?;
                    inner.known.remove(id);
                }
            }
        }
        Ok(())
    }

    fn records(&mut self) -> Result<()> {
        let inner = self.inner;
        let catalog = Catalog::load(inner)?;
        for name in &catalog.broken {
            self.bad_record(ProblemKind::DamagedRecord, &[name], "damaged, or under a wrong name")?;
        }
        let mut needed = HashSet::new();
        for entry in &catalog.records {
            let names: Vec<&RecordName> = entry.names.iter().collect();
            let description = &entry.record.description;
            let lost = entry.record.snapshots().any(|id| self.lost.contains(&id));
            let problem = match entry.state {
                RecordState::Stale => {
                    let detail = "written in another boot and never sealed".to_owned();
                    Some((ProblemKind::StaleRecord, detail))
                }
                RecordState::Incomplete => Some((
                    ProblemKind::MissingSnapshot,
                    format!("{description:?} lacks a snapshot"),
                )),
                RecordState::Sealed | RecordState::Unsealed => {
                    let mut missing = None;
                    for blob in &entry.record.attachments {
                        if inner.find_blob(&blob.digest)?.is_none() {
                            missing = Some(blob.digest);
                        }
                    }
                    missing.map(|digest| {
                        (ProblemKind::MissingBlob, format!("{description:?} lacks {digest}"))
                    })
                }
            };
            match problem {
                Some((kind, detail)) => self.bad_record(kind, &names, detail)?,
                // Damage that is only looked at: the record does not hold either.
                None if lost => {}
                None => {
                    self.report.records += 1;
                    self.report.sealed_records += usize::from(entry.state == RecordState::Sealed);
                    needed.extend(entry.record.snapshots());
                }
            }
        }
        for id in inner.list_snapshots()? {
            self.report.snapshots += 1;
            let leased = inner.leases.is_leased(LeaseItem::Snapshot(id));
            if !needed.contains(&id) && !leased && !self.lost.contains(&id) {
                let path = inner.snapshots.join(&id.to_string());
                let mut remedy = Remedy::None;
                if self.options.repair {
                    let trash = inner.retire_snapshot(id)?;
                    inner.tmp.remove_all(&trash)?;
                    remedy = Remedy::Removed;
                }
                self.note(ProblemKind::OrphanSnapshot, path, "no record refers to it", remedy);
            }
        }
        Ok(())
    }

    /// A record that does not hold. What was kept of an earlier one takes its place.
    fn bad_record(
        &mut self,
        kind: ProblemKind,
        names: &[&RecordName],
        detail: impl Into<String>,
    ) -> Result<()> {
        let inner = self.inner;
        let mut remedy = Remedy::None;
        for name in names.iter().filter(|_| self.options.repair) {
            if kind.is_harmless() {
                remedy = Remedy::Removed;
            } else {
                let aside = inner.aside_name(&format!("record-{}", name.name))?;
                let folder = inner.root.ensure(ASIDE)?;
                inner.records.link(&name.path(), &folder, &aside)?;
                remedy = Remedy::SetAside(folder.join(&aside));
            }
            inner.discard_record_name(name)?;
        }
        self.note(kind, inner.records.join(&names[0].path()), detail, remedy);
        Ok(())
    }

    fn documents(&mut self) -> Result<()> {
        let inner = self.inner;
        for (name, _) in inner.documents.list()? {
            if DocumentKind::of_file(&name).is_none() {
                let path = inner.documents.join(&name);
                self.note(ProblemKind::ForeignFile, path, "not a document", Remedy::None);
                continue;
            }
            self.report.documents += 1;
            let id = match inner.document_id(&name) {
                Ok(id) => id,
                Err(Error::TooLarge { .. }) => None,
                Err(error) => return Err(error),
            };
            if id.is_none() {
                let detail = "its checksum does not match";
                let at = (&inner.documents, name.as_str());
                self.damaged(
                    ProblemKind::DamagedDocument,
                    at,
                    &format!("document-{name}"),
                    detail,
                )?;
            }
        }
        Ok(())
    }

    /// Looks into a copy of the index. A damaged one is put aside beside itself, and filled from the
    /// records when it is next asked.
    fn index(&mut self) -> Result<()> {
        let inner = self.inner;
        let Some(scratch) = self.help.scratch else { return Ok(()) };
        let Some(index) = inner.root.try_sub("index")? else { return Ok(()) };
        if let Some(kv) = inner.kv_if_open()
            && kv.is_dirty()
        {
            kv.flush()?;
        }
        let failed = |e| Error::Index { action: "check", path: index.join("sled"), source: e };
        copy_files(index.path(), scratch).map_err(failed)?;
        if let Some(reason) = crate::kv::examine(scratch).map_err(failed)? {
            let mut remedy = Remedy::None;
            if self.options.repair {
                inner.kv_store().put_aside(&reason)?;
                remedy = Remedy::SetAside(index.path().to_owned());
            }
            self.note(ProblemKind::DamagedIndex, index.join("sled"), reason, remedy);
        }
        Ok(())
    }

    /// What an open would sweep away: seen only by those who look, and only while nobody works.
    fn leftovers(&mut self) -> Result<()> {
        let inner = self.inner;
        if !inner.read_only || crate::lock::current_holder(&inner.root)?.is_some() {
            return Ok(());
        }
        let partials: BTreeSet<_> = inner.partials()?.iter().map(|part| part.name()).collect();
        for (name, _) in inner.tmp.list()?.into_iter().filter(|(name, _)| !partials.contains(name))
        {
            let path = inner.tmp.join(&name);
            self.note(ProblemKind::Leftover, path, "unfinished", Remedy::None);
        }
        Ok(())
    }
}

/// Folder of what was set aside.
pub(crate) const ASIDE: &str = "damaged";

impl Inner {
    /// A free name among what was set aside, with the time in front.
    fn aside_name(&self, label: &str) -> Result<String> {
        let folder = self.root.ensure(ASIDE)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut name = format!("{now}-{label}");
        let mut number = 1;
        while folder.exists(&name)? {
            number += 1;
            name = format!("{now}-{label}-{number}");
        }
        Ok(name)
    }

    fn set_aside(&self, folder: &Folder, name: &str, label: &str) -> Result<PathBuf> {
        let aside = self.aside_name(label)?;
        let to = self.root.ensure(ASIDE)?;
        folder.rename(name, &to, &aside)?;
        Ok(to.join(&aside))
    }

    /// A second copy of a file of the root, for one that is written anew.
    fn copy_aside(&self, name: &str) -> Result<PathBuf> {
        let aside = self.aside_name(name)?;
        let to = self.root.ensure(ASIDE)?;
        self.root.link(name, &to, &aside)?;
        Ok(to.join(&aside))
    }
}

/// Copies a directory of files and directories.
fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        // What was put aside before is known to be bad.
        if entry.file_name().to_string_lossy().starts_with("sled.bad-") {
            continue;
        }
        if kind.is_dir() {
            std::fs::create_dir(&target)?;
            copy_files(&entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use wbuild_graph::{CacheKey, Digest};

    use super::*;
    use crate::record::{BlobRef, LayerRecord, OutputRecord, Record};
    use crate::testing::{open, open_in_boot, snapshot_with};

    fn put(store: &Store, n: u8, attach: &[u8]) -> PathBuf {
        let digest = store.put_blob(attach).unwrap();
        let id = *snapshot_with(store, &[("f", "x")]);
        let layers = vec![LayerRecord { snapshot: Some(id), ..LayerRecord::default() }];
        let key = CacheKey(Digest::of(&[n]));
        let size = attach.len() as u64;
        store
            .put_record(&Record {
                keys: vec![key],
                outputs: vec![OutputRecord { result_id: None, layers }],
                attachments: vec![BlobRef { media_type: "m".into(), digest, size }],
                ..Record::default()
            })
            .unwrap();
        store.path().join("records").join(&key.0.hex()[..2]).join(key.0.hex())
    }

    #[test]
    fn each_kind_of_damage_is_found_and_repaired() {
        use ProblemKind::*;
        let dir = tempfile::tempdir().unwrap();
        let store = open_in_boot(dir.path(), "one");
        let deep = FsckOptions { verify_blobs: true, repair: false };
        put(&store, 0, b"good");
        let damaged = put(&store, 1, b"good");
        put(&store, 2, b"rotten");
        put(&store, 3, b"lost");
        store.save_context("c", b"table").unwrap();
        store.seal().unwrap();
        put(&store, 5, b"good");
        let report = store.fsck(deep).unwrap();
        assert_eq!((report.problems.len(), report.records, report.sealed_records), (0, 5, 4));
        drop(store);

        let flip = |path: &std::path::Path| {
            let mut bytes = std::fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            std::fs::write(path, bytes).unwrap();
        };
        let blob = |data: &[u8]| {
            let hex = Digest::of(data).hex();
            dir.path().join("blobs/sha256").join(&hex[..2]).join(hex)
        };
        flip(&damaged);
        flip(&blob(b"rotten"));
        std::fs::remove_file(blob(b"lost")).unwrap();
        std::fs::write(dir.path().join("contexts/readme"), b"").unwrap();
        for entry in std::fs::read_dir(dir.path().join("contexts")).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap() != "readme" {
                flip(&path);
            }
        }
        let kinds = |report: &FsckReport| -> Vec<_> {
            report.problems.iter().map(|problem| problem.kind).collect()
        };
        let store = open_in_boot(dir.path(), "two");
        let found = store.fsck(deep).unwrap();
        let expected = [
            DamagedRecord,
            MissingBlob,
            DamagedBlob,
            DamagedDocument,
            ForeignFile,
            StaleRecord,
            OrphanSnapshot,
            OrphanSnapshot,
            OrphanSnapshot,
        ];
        assert_eq!(kinds(&found), expected);
        assert!(!found.is_clean());
        store.fsck(FsckOptions { verify_blobs: true, repair: true }).unwrap();
        let left = store.fsck(deep).unwrap();
        assert_eq!(kinds(&left), [ForeignFile], "what is not ours is left alone");
        assert_eq!(left.records, 1);
    }

    #[test]
    fn a_missing_snapshot_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        put(&store, 1, b"x");
        let id = store.inner.list_snapshots().unwrap()[0];
        std::fs::remove_dir_all(dir.path().join(format!("snapshots/{id}"))).unwrap();
        let report = store.fsck(FsckOptions::default()).unwrap();
        assert_eq!(report.problems[0].kind, ProblemKind::MissingSnapshot);
        assert!(!report.is_clean());
    }
}
