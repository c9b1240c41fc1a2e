//! The crate's one error type.

use std::io;
use std::path::{Path, PathBuf};

use wbuild_graph::{BlobDigest, Failure, FailureKind};

use crate::lock::LockHolder;
use crate::snapshot::SnapshotId;

/// Result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in the store. One variant per thing a caller could do differently.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Read-only access to a state directory that has never been used.
    #[error("there is no state directory at {}", path.display())]
    Absent {
        /// The directory asked for.
        path: PathBuf,
    },
    /// The directory is of another version, or no state directory at all.
    #[error("cannot use {} as a state directory: {reason}", path.display())]
    Format {
        /// The state directory.
        path: PathBuf,
        /// What is unexpected in it.
        reason: String,
    },
    /// Another process holds the state directory, and waiting was not wanted or took too long.
    #[error("the state directory {} is in use by {holder}", path.display())]
    Locked {
        /// The state directory.
        path: PathBuf,
        /// Who holds it.
        holder: LockHolder,
    },
    /// A parent of this process holds the state directory; waiting for it would never end.
    #[error("the state directory {} is held by {holder}, which started this process", path.display())]
    LockedByAncestor {
        /// The state directory.
        path: PathBuf,
        /// Who holds it.
        holder: LockHolder,
    },
    /// The caller's cancellation callback said stop.
    #[error("cancelled while waiting for {what}")]
    Cancelled {
        /// What was waited for.
        what: String,
    },
    /// A write was asked of a store opened read-only.
    #[error("the state directory {} is open for reading only", path.display())]
    ReadOnly {
        /// The state directory.
        path: PathBuf,
    },
    /// Something stored does not have its checksum or form any more.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Ingested bytes are not what they were announced to be.
    #[error("blob {expected} arrived with digest {actual}")]
    DigestMismatch {
        /// Announced.
        expected: BlobDigest,
        /// Computed.
        actual: BlobDigest,
    },
    /// Ingested bytes are more or fewer than announced.
    #[error("a blob of {expected} bytes arrived with {actual} bytes")]
    SizeMismatch {
        /// Announced.
        expected: u64,
        /// Received.
        actual: u64,
    },
    /// A limit was exceeded.
    #[error("{what} exceeds the limit of {limit} {unit}")]
    TooLarge {
        /// Of what.
        what: String,
        /// How much is allowed.
        limit: u64,
        /// Of what unit.
        unit: &'static str,
    },
    /// A name or parameter given by the caller is not acceptable.
    #[error("invalid {what}: {reason}")]
    Invalid {
        /// Which parameter.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// A snapshot that should exist does not (evicted, or removed by hand).
    #[error("snapshot {id} is gone")]
    SnapshotGone {
        /// The snapshot.
        id: SnapshotId,
    },
    /// A blob that should exist does not.
    #[error("blob {digest} is gone")]
    BlobGone {
        /// The blob.
        digest: BlobDigest,
    },
    /// The kernel refused an overlay mount.
    #[error("cannot mount {layers} layers with overlayfs at step {step}{}", detail_suffix(detail))]
    Overlay {
        /// Number of lower layers.
        layers: usize,
        /// Which call failed.
        step: String,
        /// The kernel's own words, if it gave any.
        detail: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Data could not be made durable earlier in this process, so nothing can be acknowledged.
    #[error("writing to {} failed earlier; results of this process are not durable", path.display())]
    SyncFailed {
        /// The state directory.
        path: PathBuf,
    },
    /// The index (kv) failed in a way that replacing it cannot cure.
    #[error("cannot {action} the index {}", path.display())]
    Index {
        /// What was attempted.
        action: &'static str,
        /// The index's folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn detail_suffix(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

impl Error {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Error::Io { action, path: path.into(), source: source.into() }
    }

    pub(crate) fn damaged(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Error::Damaged { path: path.into(), reason: reason.into() }
    }

    /// The error a failure point returns when a test asks for one.
    #[allow(dead_code)]
    pub(crate) fn injected(name: &'static str, path: &Path) -> Self {
        Error::io(name, path, io::Error::other("injected failure"))
    }

    /// What the user can try, if anything is known to help.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Io { source, .. } | Error::Index { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "free space: `wbuild prune` removes cached results".into()
                }
                io::ErrorKind::PermissionDenied => {
                    "use a state directory of your own with --state-dir".into()
                }
                _ => return None,
            },
            Error::Format { .. } => {
                "use another directory with --state-dir, or remove this one".into()
            }
            Error::Locked { .. } => {
                "wait for it to end, or use another directory with --state-dir".into()
            }
            Error::LockedByAncestor { .. } => {
                "a build inside a build needs its own directory: --state-dir".into()
            }
            Error::Damaged { .. } => {
                "`wbuild fsck --verify --repair` sets aside what is damaged".into()
            }
            Error::Overlay { layers, .. } if *layers > crate::overlay::MAX_LAYERS => format!(
                "the kernel takes at most {} layers; combine build steps",
                crate::overlay::MAX_LAYERS
            ),
            Error::Overlay { step, source, .. }
                if step.starts_with("upperdir") && source.kind() == io::ErrorKind::InvalidInput =>
            {
                "use a state directory on another file system with --state-dir; an overlay cannot lie on \
                 an overlay, which the root of a container mostly is"
                    .into()
            }
            Error::Overlay { .. } => "`wbuild doctor` says what this machine offers".into(),
            Error::SyncFailed { .. } => "check the disk (the kernel log names the device)".into(),
            _ => return None,
        })
    }

    fn failure_kind(&self) -> FailureKind {
        match self {
            Error::Absent { .. } => FailureKind::NotFound,
            Error::Locked { .. } => FailureKind::Unavailable,
            Error::LockedByAncestor { .. } | Error::ReadOnly { .. } => FailureKind::Denied,
            Error::Cancelled { .. } => FailureKind::Cancelled,
            Error::DigestMismatch { .. } | Error::SizeMismatch { .. } | Error::Invalid { .. } => {
                FailureKind::Invalid
            }
            Error::TooLarge { .. } => FailureKind::Limit,
            Error::SnapshotGone { .. } | Error::BlobGone { .. } | Error::Damaged { .. } => {
                FailureKind::Gone
            }
            Error::Format { .. } | Error::Overlay { .. } => FailureKind::Unsupported,
            Error::Io { source, .. } | Error::Index { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => FailureKind::Denied,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FailureKind::Limit,
                _ => FailureKind::Unavailable,
            },
            Error::SyncFailed { .. } => FailureKind::Unavailable,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut failure = Failure::new(error.failure_kind(), error.to_string());
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            failure.causes.push(cause.to_string());
            source = cause.source();
        }
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<Error> for io::Error {
    /// For `Write` implementations; keeps the kind where there is one.
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
