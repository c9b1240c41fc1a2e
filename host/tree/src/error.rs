//! What can go wrong with file trees, and how it is told to the user.

use std::fmt;

use rustix::io::Errno;
use wbuild_graph::{Failure, FailureKind};
use wbuild_ignore::{ListError, MAX_PATTERNS, PatternError};

/// Shorthand used throughout the crate.
pub type Result<T, E = TreeError> = std::result::Result<T, E>;

/// A literal path that a copy or a look-up needs and that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The path as it was asked for.
    pub path: String,
    /// What was searched, e.g. `the build context`.
    pub place: String,
    /// Where the links in it lead, as a path from the root; none if there are none.
    pub leads_to: Option<String>,
    /// Names beside it that are spelt almost the same, as paths from the root, best first.
    pub nearest: Vec<String>,
    /// It exists, but this pattern of the source's exclude list hides it (index into the list as
    /// it was given).
    pub excluded_by: Option<usize>,
}

impl Missing {
    /// One that nothing more is known of.
    pub fn new(path: impl Into<String>, place: impl Into<String>) -> Missing {
        Missing {
            path: path.into(),
            place: place.into(),
            leads_to: None,
            nearest: Vec::new(),
            excluded_by: None,
        }
    }

    /// As an error.
    pub fn error(self) -> TreeError {
        TreeError::Missing(Box::new(self))
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ", self.path)?;
        if let Some(end) = &self.leads_to {
            write!(f, "leads to {end:?}, which ")?;
        }
        let what =
            if self.excluded_by.is_some() { "is excluded from" } else { "does not exist in" };
        write!(f, "{what} {}", self.place)
    }
}

/// Why an operation on a tree failed. Paths are relative to the root of the tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A literal path is not there.
    #[error("{0}")]
    Missing(Box<Missing>),
    /// The operating system refused.
    #[error("cannot {action} {path:?} in {place}: {errno}")]
    Io {
        /// The verb.
        action: &'static str,
        /// On what.
        path: String,
        /// In which tree.
        place: String,
        /// Why.
        errno: Errno,
    },
    /// A path that cannot be a path.
    #[error("invalid path {path:?}: {reason}")]
    Path {
        /// As given.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// A pattern that cannot be read.
    #[error("invalid pattern {pattern:?}: {reason}")]
    Pattern {
        /// As given.
        pattern: String,
        /// Why.
        reason: &'static str,
    },
    /// A mode that cannot be read.
    #[error("invalid mode {mode:?}: {reason}")]
    Mode {
        /// As given.
        mode: String,
        /// Why.
        reason: &'static str,
    },
    /// A FIFO, socket or device where only files, directories and links may be.
    #[error("cannot copy {path:?} from {place}: it is a {kind}")]
    Special {
        /// Where it is.
        path: String,
        /// In which tree.
        place: String,
        /// `FIFO`, `socket`, `block device`, `character device`.
        kind: &'static str,
    },
    /// A file was written to between hashing and copying, or while it was read.
    #[error("{path:?} in {place} changed while it was read")]
    Changed {
        /// The file.
        path: String,
        /// In which tree.
        place: String,
    },
    /// What was to be written could not be had.
    #[error("cannot read the contents of {path:?}: {reason}")]
    Data {
        /// What was being written.
        path: String,
        /// Why.
        reason: String,
    },
    /// What is at the destination does not allow the action.
    #[error("cannot {action} {path:?}: {reason}")]
    Conflict {
        /// The verb.
        action: &'static str,
        /// The destination.
        path: String,
        /// What is there.
        reason: String,
    },
    /// A limit was exceeded.
    #[error("{what} exceeds the limit of {limit}")]
    Limit {
        /// What was counted, on what.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// The tree holds something that cannot be represented.
    #[error("cannot read {path:?} in {place}: {reason}")]
    Unsupported {
        /// Where.
        path: String,
        /// In which tree.
        place: String,
        /// What.
        reason: &'static str,
    },
    /// The caller asked to stop.
    #[error("the operation was cancelled")]
    Cancelled,
}

impl TreeError {
    /// An operating system error.
    pub(crate) fn io(action: &'static str, path: &[u8], place: &str, errno: Errno) -> Self {
        TreeError::Io { action, path: show(path), place: place.to_owned(), errno }
    }

    /// The kind of failure a caller sees.
    pub fn kind(&self) -> FailureKind {
        match self {
            TreeError::Missing(_) => FailureKind::NotFound,
            TreeError::Io { errno, .. } => match *errno {
                Errno::NOENT => FailureKind::NotFound,
                Errno::ACCESS | Errno::PERM | Errno::ROFS => FailureKind::Denied,
                Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL => {
                    FailureKind::Invalid
                }
                Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::FBIG => {
                    FailureKind::Limit
                }
                Errno::OPNOTSUPP | Errno::NOSYS => FailureKind::Unsupported,
                _ => FailureKind::Unavailable,
            },
            TreeError::Path { .. }
            | TreeError::Pattern { .. }
            | TreeError::Mode { .. }
            | TreeError::Special { .. }
            | TreeError::Data { .. }
            | TreeError::Conflict { .. } => FailureKind::Invalid,
            TreeError::Changed { .. } => FailureKind::Changed,
            TreeError::Limit { .. } => FailureKind::Limit,
            TreeError::Unsupported { .. } => FailureKind::Unsupported,
            TreeError::Cancelled => FailureKind::Cancelled,
        }
    }
}

impl From<PatternError> for TreeError {
    fn from(error: PatternError) -> TreeError {
        TreeError::Pattern { pattern: error.pattern, reason: error.reason }
    }
}

impl From<ListError> for TreeError {
    fn from(error: ListError) -> TreeError {
        match error {
            ListError::Pattern { error, .. } => error.into(),
            ListError::TooMany => {
                let what = "the number of patterns".to_owned();
                TreeError::Limit { what, limit: MAX_PATTERNS as u64 }
            }
        }
    }
}

impl From<TreeError> for Failure {
    fn from(error: TreeError) -> Failure {
        let kind = error.kind();
        let mut failure = match &error {
            TreeError::Cancelled => return Failure::cancelled(),
            TreeError::Io { action, path, place, errno } => {
                let mut failure =
                    Failure::new(kind, format!("cannot {action} {path:?} in {place}")).cause(errno);
                match *errno {
                    Errno::NOSPC | Errno::DQUOT => {
                        failure = failure.hint("free some disk space, e.g. by pruning the cache");
                    }
                    Errno::LOOP => {
                        failure = failure.hint(
                            "a symbolic link stands where none is allowed, or links form a loop",
                        );
                    }
                    Errno::MFILE | Errno::NFILE => {
                        failure = failure.hint("raise the limit of open files (ulimit -n)");
                    }
                    Errno::NOSYS => {
                        failure = failure.hint("Linux 5.6 or later is needed");
                    }
                    _ => {}
                }
                failure.attr("path", path)
            }
            TreeError::Missing(missing) => {
                let mut failure = Failure::new(kind, error.to_string()).attr("path", &missing.path);
                if let Some(index) = missing.excluded_by {
                    failure = failure
                        .attr("excluded-by", index.to_string())
                        .hint("an ignore pattern hides it; re-include it with a later `!` pattern");
                } else if let [best, others @ ..] = missing.nearest.as_slice() {
                    let mut hint = format!("did you mean {best:?}");
                    for other in others {
                        hint.push_str(&format!(" or {other:?}"));
                    }
                    failure = failure.hint(hint + "?");
                }
                failure
            }
            TreeError::Special { path, .. } => Failure::new(kind, error.to_string())
                .attr("path", path)
                .hint("remove it or exclude it with an ignore pattern"),
            TreeError::Changed { path, .. } => Failure::new(kind, error.to_string())
                .attr("path", path)
                .hint("build again once nothing writes to it any more"),
            TreeError::Path { path, .. }
            | TreeError::Data { path, .. }
            | TreeError::Conflict { path, .. }
            | TreeError::Unsupported { path, .. } => {
                Failure::new(kind, error.to_string()).attr("path", path)
            }
            TreeError::Pattern { .. } | TreeError::Mode { .. } | TreeError::Limit { .. } => {
                Failure::new(kind, error.to_string())
            }
        };
        failure.retryable = kind == FailureKind::Changed;
        failure
    }
}

/// A path as text, for messages only.
pub(crate) fn show(path: &[u8]) -> String {
    if path.is_empty() { "/".to_owned() } else { String::from_utf8_lossy(path).into_owned() }
}
