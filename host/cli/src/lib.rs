//! The pieces of the command line that need no engine: arguments, their resolution into a
//! [`BuildRequest`](wbuild_api::request::BuildRequest), the client's session, progress displays,
//! reports and exit codes. The binary `wbuild` joins them to the engine and the plugins.
//!
//! Invariants:
//!
//! - This crate is the only one that prints, and the only one that reads the user's environment.
//!   Both go through one place: [`environment`] for reading, [`terminal`] for printing.
//! - Standard output carries data only: exported archives, ids, tables asked for. All else goes to
//!   standard error.
//! - A reader that goes away (closed pipe) is no error and never a panic.
//! - Arguments are parsed once ([`args`]) into types that cannot be wrong, then resolved against
//!   the environment and the file system ([`resolve`]). Nothing after that looks at either.
//! - Everything shown is free of control characters that a step, a plugin or a file brought along,
//!   except the output of steps in the plain display, which is passed on byte for byte.

pub use wbuild::session;

pub mod answer;
pub mod args;
pub mod config;
pub mod environment;
pub mod exit;
pub mod explain;
pub mod filter;
pub mod imagetools;
pub mod isolation;
pub mod metadata;
pub mod progress;
pub mod registries;
pub mod report;
pub mod resolve;
pub mod table;
pub mod template;
pub mod terminal;
pub mod units;
