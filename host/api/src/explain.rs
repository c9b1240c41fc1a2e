//! Why steps ran, and where the results of others came from. Plain values, for displays and files.

use serde::{Deserialize, Serialize};
use wbuild_graph::CacheKey;

/// Why a step ran, or where its result came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum Explanation {
    /// Its result was found.
    Found {
        /// Which of its keys led to the record.
        by: KeyKind,
        /// That key.
        key: CacheKey,
        /// Where the record was.
        from: RecordSource,
        /// When the result was made, in seconds since 1970; none if that is not known.
        made: Option<u64>,
    },
    /// It was not needed: what is built on it was found.
    NotNeeded,
    /// It was not to be looked up, or it stands on such a step.
    CacheIgnored,
    /// No earlier run of the step is known.
    New,
    /// Nothing has changed since an earlier run, whose result is no longer there.
    Gone {
        /// When that was made.
        made: u64,
    },
    /// Something is different from all that is stored.
    Changed {
        /// When the stored result that is nearest was made.
        made: u64,
        /// In what it differs; not empty.
        changes: Vec<Change>,
    },
}

/// The two keys of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyKind {
    /// Made of the step and the keys of what it stands on.
    Definition,
    /// Made of the step and what it stands on and reads has turned out to be.
    Result,
}

/// Where a record was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordSource {
    /// Made earlier in the same build.
    ThisBuild,
    /// In the state directory.
    Local,
    /// By a cache backend.
    Backend,
    /// In a cache elsewhere, as people call it.
    Elsewhere(String),
}

/// One difference between what a step is made of and what a stored result was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "change")]
pub enum Change {
    /// Something the step says, e.g. `command` or `variable A`.
    Value {
        /// What.
        name: String,
        /// None: it was not there.
        before: Option<String>,
        /// None: it is not there any more.
        after: Option<String>,
    },
    /// That a value is another can be said, but not which it is or was.
    Hidden {
        /// What.
        name: String,
    },
    /// What it stands on.
    Input {
        /// What part it has, e.g. `base`.
        role: String,
        /// What it is: a step, an image with its digest.
        before: String,
        /// The same now; equal if what it yields is another.
        after: String,
    },
    /// Files it reads.
    Files {
        /// Whose, e.g. `the build context`.
        of: String,
        /// Up to a certain number of paths.
        files: Vec<FileChange>,
        /// How many there are besides.
        more: u64,
    },
    /// Something that has no name here.
    Other,
}

/// A file that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Relative to the root of what it lies in; one that ends in `/` stands for what is below.
    pub path: String,
    /// How.
    pub how: FileChangeKind,
}

/// How a file is not as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileChangeKind {
    /// It was not there.
    New,
    /// It is not there.
    Gone,
    /// Other content.
    Content,
    /// The same content, and another mode, owner or kind.
    Metadata,
}

/// The steps of a build, explained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// The definition that was built, as its place is known.
    pub definition: String,
    /// When the build ended, in seconds since 1970.
    pub at: u64,
    /// When the last one ended that found all steps as the cache had them, if there was one since.
    pub unchanged_at: Option<u64>,
    /// In the order in which they were shown.
    pub steps: Vec<StepExplained>,
}

/// A step, explained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepExplained {
    /// As displays number it.
    pub number: u32,
    /// E.g. `[build 2/5] RUN make`.
    pub name: String,
    /// Where the definition says so.
    pub at: Option<Place>,
    /// How it ended.
    pub end: StepOutcome,
    /// None: there is nothing to say, e.g. of a step that was given up.
    pub why: Option<Explanation>,
}

/// Lines of a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file as the user knows it.
    pub file: String,
    /// First line, from 1.
    pub line: usize,
    /// Last line.
    pub last: usize,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepOutcome {
    /// It ran.
    Done,
    /// It was found, or not needed.
    Cached,
    /// It ran and failed.
    Failed,
    /// It was given up.
    Cancelled,
}
