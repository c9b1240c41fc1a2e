//! Ignore files and path patterns: reading `.dockerignore` files, deciding paths by a list of
//! patterns, and matching single patterns as Go does.
//!
//! Pure: no I/O, no dependencies, no state; builds for every target, so the host, frontends and
//! tools decide alike.
//!
//! ```
//! let file = b"# built\ntarget\n!target/keep\n";
//! let lines = wbuild_ignore::read(file);
//! let matcher = wbuild_ignore::Matcher::new(&lines)?;
//! let decision = matcher.decide(b"target/debug/x");
//! assert!(decision.matched);
//! assert_eq!(&file[lines[decision.by.unwrap()].at.clone()], b"target");
//! assert!(!matcher.decide(b"target/keep").matched);
//! # Ok::<(), wbuild_ignore::ListError>(())
//! ```

mod error;
mod file;
pub mod glob;
mod index;
mod list;
mod pattern;
mod text;

pub use error::{ListError, PatternError};
pub use file::{Line, read};
pub use list::{Decision, MAX_PATTERNS, Matcher, State, check, clean};
