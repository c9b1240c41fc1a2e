//! The one error that crosses every boundary: guest and host, solver and op, engine and client.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Attrs, Diagnostic};

/// What kind of failure this is. Decides retry and exit status; no text is parsed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The thing asked for does not exist.
    NotFound,
    /// Policy or permissions refuse it.
    Denied,
    /// The input is malformed or contradicts itself.
    Invalid,
    /// This host does not know the feature.
    Unsupported,
    /// Unreachable now; may work later.
    Unavailable,
    /// It existed and has vanished (a lazy blob).
    Gone,
    /// A process of the build ended with an exit code that is no success.
    ExecFailed,
    /// An input changed while it was read.
    Changed,
    /// The build was cancelled.
    Cancelled,
    /// A limit was exceeded.
    Limit,
    /// A bug, of wbuild or of a plugin.
    Internal,
}

impl FailureKind {
    const ALL: [(FailureKind, &'static str); 11] = [
        (FailureKind::NotFound, "not-found"),
        (FailureKind::Denied, "denied"),
        (FailureKind::Invalid, "invalid"),
        (FailureKind::Unsupported, "unsupported"),
        (FailureKind::Unavailable, "unavailable"),
        (FailureKind::Gone, "gone"),
        (FailureKind::ExecFailed, "exec-failed"),
        (FailureKind::Changed, "changed"),
        (FailureKind::Cancelled, "cancelled"),
        (FailureKind::Limit, "limit"),
        (FailureKind::Internal, "internal"),
    ];

    /// The name used across the plugin boundary.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("internal", |(_, name)| name)
    }

    /// Reads a name; an unknown one means `Internal` (wit/types, `failure.kind`).
    pub fn from_name(name: &str) -> Self {
        Self::ALL.iter().find(|(_, n)| *n == name).map_or(FailureKind::Internal, |(kind, _)| *kind)
    }
}

/// A failed operation: what was attempted on what, why, where in the source, what to try.
///
/// Cheap to clone: one failure reaches every waiter of a shared vertex.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// See [`FailureKind`].
    pub kind: FailureKind,
    /// One sentence without a trailing period: what was attempted on what.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What the user can do about it.
    pub hints: Vec<String>,
    /// Trying the same again may succeed.
    pub retryable: bool,
    /// Places in the sources, rendered under the message.
    pub diagnostics: Vec<Diagnostic>,
    /// `exit-code`, `signal`, `node` (the id of the failed node), `path`.
    pub attrs: Attrs,
}

impl Failure {
    /// A failure with a message and nothing else.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
            causes: Vec::new(),
            hints: Vec::new(),
            retryable: false,
            diagnostics: Vec::new(),
            attrs: Attrs::default(),
        }
    }

    /// A failure of kind `Invalid`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Invalid, message)
    }

    /// A failure of kind `NotFound`.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(FailureKind::NotFound, message)
    }

    /// A failure of kind `Unsupported`.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Unsupported, message)
    }

    /// A failure of kind `Internal`.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Internal, message)
    }

    /// A failure of kind `Cancelled`.
    pub fn cancelled() -> Self {
        Self::new(FailureKind::Cancelled, "the build was cancelled")
    }

    /// Adds why it failed, with the source's own causes.
    #[must_use]
    pub fn cause(mut self, source: &dyn std::error::Error) -> Self {
        self.causes.push(source.to_string());
        let mut next = source.source();
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// Adds something the user can try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds a machine-readable detail.
    #[must_use]
    pub fn attr(mut self, key: &str, value: impl Into<String>) -> Self {
        self.attrs.push(key, value);
        self
    }

    /// Says what was being done: the present message becomes the first cause.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Self {
        let inner = std::mem::replace(&mut self.message, message.into());
        self.causes.insert(0, inner);
        self
    }

    /// For sharing between waiters.
    pub fn shared(self) -> Arc<Failure> {
        Arc::new(self)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Characters of a text that a message quotes.
const QUOTED: usize = 200;

/// A text in quotes, for a message. Long ones are cut: plugins choose them, and escaped they are up to
/// six times as long as they were.
pub fn quoted(text: &str) -> impl fmt::Display + '_ {
    struct Quoted<'a>(&'a str);
    impl fmt::Display for Quoted<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0.char_indices().nth(QUOTED) {
                Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
                None => write!(f, "{:?}", self.0),
            }
        }
    }
    Quoted(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_quotes_is_short() {
        assert_eq!(quoted("a\0").to_string(), "\"a\\0\"");
        let long = quoted(&"\u{1}".repeat(1000)).to_string();
        assert!(long.ends_with("\"…") && long.len() < 2000, "{long}");
        assert_eq!(quoted(&"é".repeat(200)).to_string().chars().count(), 202);
    }
}
