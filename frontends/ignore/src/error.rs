//! Why a pattern or a list is refused.

use std::fmt;

/// A pattern that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// The pattern, cleaned; for messages only.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl PatternError {
    pub(crate) fn new(pattern: &[u8], reason: &'static str) -> PatternError {
        PatternError { pattern: String::from_utf8_lossy(pattern).into_owned(), reason }
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid pattern {:?}: {}", self.pattern, self.reason)
    }
}

impl std::error::Error for PatternError {}

/// A list that cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListError {
    /// One of its patterns cannot be read.
    Pattern {
        /// Index of the pattern in the list.
        index: usize,
        /// Which and why.
        error: PatternError,
    },
    /// It has more than [`MAX_PATTERNS`](crate::MAX_PATTERNS).
    TooMany,
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListError::Pattern { error, .. } => error.fmt(f),
            ListError::TooMany => {
                write!(f, "the number of patterns exceeds the limit of {}", crate::MAX_PATTERNS)
            }
        }
    }
}

impl std::error::Error for ListError {}
