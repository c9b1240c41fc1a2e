//! The one error of this crate: what was attempted on what, why it failed, what to try.

use std::fmt;
use std::io;

use wbuild_graph::{Failure, FailureKind};

/// What a caller could do differently about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A document, archive, reference or answer is malformed or contradicts itself.
    Invalid,
    /// Bytes do not have the digest or size they were announced with.
    Mismatch,
    /// Well formed, but not something this crate handles.
    Unsupported,
    /// A limit on input from outside was exceeded.
    Limit,
    /// There is no such image, blob, tag or platform.
    NotFound,
    /// Credentials are missing or refused, or a security rule forbids the step.
    Denied,
    /// The other side cannot be reached or answers with a temporary error.
    Unavailable,
    /// An input changed while it was read.
    Changed,
    /// A local file or stream failed.
    Io,
}

/// A failed operation on an image, layer, layout or registry.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
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

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Limit, message)
    }

    pub(crate) fn io(message: impl Into<String>, source: impl Into<io::Error>) -> Self {
        let source: io::Error = source.into();
        // An error of this crate that travelled through a `Read` or `Write` comes out unharmed.
        match source.downcast::<Error>() {
            Ok(error) => error,
            Err(source) => Self::new(ErrorKind::Io, message).because(source),
        }
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

    /// Whether it says what can be done.
    pub fn has_hint(&self) -> bool {
        self.hint.is_some()
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// For a caller that must go through `std::io`; [`Error::io`] takes it out again.
    pub(crate) fn into_io(self) -> io::Error {
        io::Error::other(self)
    }
}

impl From<wbuild_http::Error> for Error {
    fn from(error: wbuild_http::Error) -> Error {
        let kind = match error.kind {
            wbuild_http::ErrorKind::Invalid => ErrorKind::Invalid,
            wbuild_http::ErrorKind::Limit => ErrorKind::Limit,
            wbuild_http::ErrorKind::NotFound => ErrorKind::NotFound,
            wbuild_http::ErrorKind::Denied | wbuild_http::ErrorKind::OutOfReach => {
                ErrorKind::Denied
            }
            wbuild_http::ErrorKind::Unavailable => ErrorKind::Unavailable,
        };
        Error { kind, message: error.message, hint: error.hint, source: error.source }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let kind = match error.kind {
            ErrorKind::Invalid | ErrorKind::Mismatch => FailureKind::Invalid,
            ErrorKind::Unsupported => FailureKind::Unsupported,
            ErrorKind::Limit => FailureKind::Limit,
            ErrorKind::NotFound => FailureKind::NotFound,
            ErrorKind::Denied => FailureKind::Denied,
            ErrorKind::Unavailable => FailureKind::Unavailable,
            ErrorKind::Changed => FailureKind::Changed,
            ErrorKind::Io => FailureKind::Internal,
        };
        let mut failure = Failure::new(kind, error.message);
        failure.retryable = kind == FailureKind::Unavailable;
        if let Some(source) = error.source {
            failure = failure.cause(&*source);
        }
        if let Some(hint) = error.hint {
            failure = failure.hint(hint);
        }
        failure
    }
}
