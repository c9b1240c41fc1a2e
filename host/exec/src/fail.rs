//! Short ways to make a [`Failure`] of a system call's error.

use std::fmt;

use rustix::io::Errno;
use wbuild_graph::{Failure, FailureKind};

/// The kind that fits an errno.
pub(crate) fn kind_of(errno: Errno) -> FailureKind {
    match errno {
        Errno::NOENT => FailureKind::NotFound,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => FailureKind::Denied,
        Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
            FailureKind::Limit
        }
        Errno::NOSYS | Errno::OPNOTSUPP => FailureKind::Unsupported,
        _ => FailureKind::Internal,
    }
}

/// Turns the error of a system call into a failure that says what was attempted.
pub(crate) trait OrFail<T> {
    /// `attempt` completes "cannot …".
    fn or_fail(self, attempt: impl fmt::Display) -> Result<T, Failure>;
}

impl<T> OrFail<T> for Result<T, Errno> {
    fn or_fail(self, attempt: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|errno| {
            Failure::new(kind_of(errno), format!("cannot {attempt}")).cause(&errno)
        })
    }
}

impl<T> OrFail<T> for std::io::Result<T> {
    fn or_fail(self, attempt: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| {
            let kind = Errno::from_io_error(&error).map_or(FailureKind::Internal, kind_of);
            Failure::new(kind, format!("cannot {attempt}")).cause(&error)
        })
    }
}
