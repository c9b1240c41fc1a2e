//! The one error of this crate.

use std::fmt;

use wbuild_graph::{Failure, FailureKind};

/// What a caller could do differently about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// An answer is malformed or contradicts itself.
    Invalid,
    /// A limit on input from outside was exceeded.
    Limit,
    /// The other side says that there is no such thing.
    NotFound,
    /// Credentials are missing or refused, or a security rule forbids the step.
    Denied,
    /// [`crate::Reach`] forbids the address.
    OutOfReach,
    /// The other side cannot be reached or answers with a temporary error.
    Unavailable,
}

/// A request that failed: what was asked for, why there is no answer, what to try.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// See [`ErrorKind`].
    pub kind: ErrorKind,
    /// What was attempted on what. Holds no credential.
    pub message: String,
    /// What the user can do about it.
    pub hint: Option<String>,
    /// What caused it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error {
    /// An error of `kind` with a message and nothing else.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, message: message.into(), hint: None, source: None }
    }

    /// Adds what caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let kind = match error.kind {
            ErrorKind::Invalid => FailureKind::Invalid,
            ErrorKind::Limit => FailureKind::Limit,
            ErrorKind::NotFound => FailureKind::NotFound,
            ErrorKind::Denied | ErrorKind::OutOfReach => FailureKind::Denied,
            ErrorKind::Unavailable => FailureKind::Unavailable,
        };
        let mut failure = Failure::new(kind, error.message);
        failure.retryable = kind == FailureKind::Unavailable;
        if let Some(source) = error.source {
            failure = failure.cause(&*source);
        }
        match error.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
