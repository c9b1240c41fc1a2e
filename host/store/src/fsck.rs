//! Checking the whole state directory against itself.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::blob::hash_file;
use crate::document::DocumentKind;
use crate::error::{Error, Result};
use crate::lease::LeaseItem;
use crate::store::{Inner, Store};
use crate::sync::{lock, write};
use crate::usage::{Catalog, RecordState};

/// What to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsckOptions {
    /// Hash every blob again: reads all of them.
    pub verify_blobs: bool,
    /// Remove what is damaged, so that it is made again when it is needed.
    pub repair: bool,
}

/// What kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemKind {
    /// A record file that cannot be understood, or that lies under a wrong name.
    DamagedRecord,
    /// A sealed record one of whose snapshots is missing.
    MissingSnapshot,
    /// A record one of whose attached blobs is missing.
    MissingBlob,
    /// A blob whose bytes do not have its digest.
    DamagedBlob,
    /// A document whose checksum is wrong.
    DamagedDocument,
    /// A file that the store did not make.
    ForeignFile,
    /// A record that a crash of the machine left unsealed. Normal after one.
    StaleRecord,
    /// A snapshot no record refers to. Normal after a killed build.
    OrphanSnapshot,
}

impl ProblemKind {
    /// Whether it is the normal trace of a crash: garbage that no answer depends on.
    pub fn is_harmless(self) -> bool {
        matches!(self, ProblemKind::StaleRecord | ProblemKind::OrphanSnapshot)
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// What kind.
    pub kind: ProblemKind,
    /// Where.
    pub path: PathBuf,
    /// In words.
    pub detail: String,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// Valid records.
    pub records: usize,
    /// Those of them that survive a power cut.
    pub sealed_records: usize,
    /// Snapshots.
    pub snapshots: usize,
    /// Blobs.
    pub blobs: usize,
    /// Documents.
    pub documents: usize,
    /// Findings, sorted.
    pub problems: Vec<Problem>,
}

impl FsckReport {
    /// Whether nothing is wrong; the normal traces of a crash are nothing wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.iter().all(|problem| problem.kind.is_harmless())
    }
}

impl Store {
    /// Checks everything stored. On a read-only store nothing can be repaired, and a build that
    /// runs meanwhile may show as a problem.
    pub fn fsck(&self, options: FsckOptions) -> Result<FsckReport> {
        let inner = &*self.inner;
        if options.repair {
            inner.check_writable()?;
        }
        if !inner.read_only {
            inner.adopt_pending()?;
        }
        let _writes = lock(&inner.record_writes);
        let _gc = write(&inner.gc);
        let mut check = Check { inner, options, report: FsckReport::default() };
        // Blobs first: whether a record's attachments are there depends on it.
        check.blobs()?;
        check.records()?;
        check.documents()?;
        check.report.problems.sort();
        Ok(check.report)
    }
}

struct Check<'a> {
    inner: &'a Inner,
    options: FsckOptions,
    report: FsckReport,
}

impl Check<'_> {
    fn problem(&mut self, kind: ProblemKind, path: PathBuf, detail: impl Into<String>) {
        self.report.problems.push(Problem { kind, path, detail: detail.into() });
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
                    damaged.push((folder.join(name), digest, detail));
                }
            }
            Ok(())
        })?;
        self.report.blobs = count;
        for (path, digest, detail) in damaged {
            self.problem(ProblemKind::DamagedBlob, path, detail);
            if self.options.repair {
                inner.remove_blob(&digest)?;
            }
        }
        for (shard, _) in inner.blobs.list()? {
            let Some(folder) = inner.blobs.try_sub(&shard)? else { continue };
            for (name, _) in folder.list()? {
                let good = wbuild_graph::Digest::from_hex(&name).is_ok() && name[..2] == shard;
                if !good {
                    self.problem(ProblemKind::ForeignFile, folder.join(&name), "not a digest");
                }
            }
        }
        Ok(())
    }

    fn records(&mut self) -> Result<()> {
        let inner = self.inner;
        let catalog = Catalog::load(inner)?;
        for name in &catalog.broken {
            let path = inner.records.join(&name.path());
            self.problem(ProblemKind::DamagedRecord, path, "damaged, or under a wrong name");
            if self.options.repair {
                inner.discard_record_name(name)?;
            }
        }
        let mut needed = HashSet::new();
        for entry in &catalog.records {
            let path = inner.records.join(&entry.names[0].path());
            let mut bad = !entry.state.is_valid();
            match entry.state {
                RecordState::Stale => self.problem(
                    ProblemKind::StaleRecord,
                    path.clone(),
                    "written in another boot and never sealed",
                ),
                RecordState::Incomplete => self.problem(
                    ProblemKind::MissingSnapshot,
                    path.clone(),
                    format!("{:?} lacks a snapshot", entry.record.description),
                ),
                RecordState::Sealed | RecordState::Unsealed => {
                    for blob in &entry.record.attachments {
                        if inner.find_blob(&blob.digest)?.is_none() {
                            bad = true;
                            self.problem(
                                ProblemKind::MissingBlob,
                                path.clone(),
                                format!("{:?} lacks {}", entry.record.description, blob.digest),
                            );
                        }
                    }
                }
            }
            if bad {
                if self.options.repair {
                    for name in &entry.names {
                        inner.discard_record_name(name)?;
                    }
                }
                continue;
            }
            self.report.records += 1;
            self.report.sealed_records += usize::from(entry.state == RecordState::Sealed);
            needed.extend(entry.record.snapshots());
        }
        for id in inner.list_snapshots()? {
            self.report.snapshots += 1;
            let leased = inner.leases.is_leased(LeaseItem::Snapshot(id));
            if !needed.contains(&id) && !leased {
                let path = inner.snapshots.join(&id.to_string());
                self.problem(ProblemKind::OrphanSnapshot, path, "no record refers to it");
                if self.options.repair {
                    let trash = inner.retire_snapshot(id)?;
                    inner.tmp.remove_all(&trash)?;
                }
            }
        }
        Ok(())
    }

    fn documents(&mut self) -> Result<()> {
        let inner = self.inner;
        for (name, _) in inner.documents.list()? {
            let path = inner.documents.join(&name);
            if DocumentKind::of_file(&name).is_none() {
                self.problem(ProblemKind::ForeignFile, path, "not a document");
                continue;
            }
            self.report.documents += 1;
            let id = match inner.document_id(&name) {
                Ok(id) => id,
                Err(Error::TooLarge { .. }) => None,
                Err(error) => return Err(error),
            };
            if id.is_none() {
                self.problem(ProblemKind::DamagedDocument, path, "its checksum does not match");
                if self.options.repair {
                    inner.documents.remove_file(&name)?;
                }
            }
        }
        Ok(())
    }
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
