//! What a check is asked, and what it answers.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::boot::StateKind;
use crate::error::Result;
use crate::record::LayerRecord;

/// What to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsckOptions {
    /// Hash every blob again: reads all of them.
    pub verify_blobs: bool,
    /// Set aside what is damaged, so that it is made again when it is needed.
    pub repair: bool,
}

/// What is used for parts of a check that the store cannot make by itself.
#[derive(Clone, Copy, Default)]
pub struct FsckHelp<'a> {
    /// Compares the files of a layer with what is known of it.
    pub layer: Option<&'a LayerCheck<'a>>,
    /// An empty directory, for a copy of the index: opening one writes to it. Without, the index is
    /// not looked at.
    pub scratch: Option<&'a Path>,
}

/// See [`FsckHelp::layer`]. It must not use the store, which is locked meanwhile.
pub type LayerCheck<'a> = dyn Fn(StoredLayer<'_>) -> Result<LayerState> + 'a;

/// A layer to be compared.
#[derive(Debug)]
pub struct StoredLayer<'a> {
    /// What is known of it.
    pub record: &'a LayerRecord,
    /// Its directory.
    pub files: OwnedFd,
    /// Its archive, if that is here.
    pub blob: Option<File>,
    /// What its marks mean.
    pub kind: StateKind,
}

/// What came of comparing a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// It holds what it should.
    Good,
    /// It does not, in words.
    Damaged(String),
    /// There is nothing to compare it with.
    Unknown,
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
    /// A layer whose files are not what they were.
    DamagedLayer,
    /// A document whose checksum is wrong.
    DamagedDocument,
    /// A line of the seals that cannot be understood: what it sealed is found in this boot only.
    DamagedSeals,
    /// The index is not what it should be.
    DamagedIndex,
    /// A file that the store did not make.
    ForeignFile,
    /// A record that a crash of the machine left unsealed. Normal after one.
    StaleRecord,
    /// A snapshot no record refers to. Normal after a killed build.
    OrphanSnapshot,
    /// Something unfinished. Normal after a killed build, and removed by the next.
    Leftover,
}

impl ProblemKind {
    /// Whether it is the normal trace of a crash: garbage that no answer depends on.
    pub fn is_harmless(self) -> bool {
        use ProblemKind::{Leftover, OrphanSnapshot, StaleRecord};
        matches!(self, StaleRecord | OrphanSnapshot | Leftover)
    }

    /// A word for programs: `damaged-record`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ProblemKind::DamagedRecord => "damaged-record",
            ProblemKind::MissingSnapshot => "missing-snapshot",
            ProblemKind::MissingBlob => "missing-blob",
            ProblemKind::DamagedBlob => "damaged-blob",
            ProblemKind::DamagedLayer => "damaged-layer",
            ProblemKind::DamagedDocument => "damaged-document",
            ProblemKind::DamagedSeals => "damaged-seals",
            ProblemKind::DamagedIndex => "damaged-index",
            ProblemKind::ForeignFile => "foreign-file",
            ProblemKind::StaleRecord => "stale-record",
            ProblemKind::OrphanSnapshot => "orphan-snapshot",
            ProblemKind::Leftover => "leftover",
        }
    }
}

/// What a repair did about a problem.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// Nothing.
    None,
    /// It lies here now.
    SetAside(PathBuf),
    /// It is gone, and held nothing.
    Removed,
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
    /// What was done about it.
    pub remedy: Remedy,
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
    /// Layers whose files were compared.
    pub layers_compared: usize,
    /// Layers that there was nothing to compare with.
    pub layers_unknown: usize,
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

    /// Whether nothing is wrong any more.
    pub fn is_repaired(&self) -> bool {
        let settled = |it: &Problem| it.kind.is_harmless() || it.remedy != Remedy::None;
        self.problems.iter().all(settled)
    }
}
