//! The plug points: what a frontend, a runner and a cache backend are to the engine, and the
//! capabilities the engine hands them.
//!
//! `wbuild-plugin` implements these traits over Wasm components; tests implement them natively.
//! Every argument and answer is an owned, serialisable value, so that a plugin may run in another
//! process one day. One object enforces one capability, for every WIT version that reaches it.

mod cache;
mod frontend;
mod runner;

use serde::{Deserialize, Serialize};
use wbuild_graph::{Digest, Severity};

pub use self::cache::*;
pub use self::frontend::*;
pub use self::runner::*;
pub use crate::describe::{Description, Outline, Parameter, Query, Target};
pub use crate::nested::{NestedBuild, NestedCap, NestedContext, NestedResult};

/// Which plugin this is, for provenance, memo traces and messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginIdentity {
    /// As the user named it: `dockerfile`, `./my.wasm`.
    pub name: String,
    /// sha256 of the component.
    pub digest: Digest,
    /// Version of the WIT package it speaks, e.g. `0.1.0`.
    pub wit_version: String,
}

/// wit/types, interface `log`.
pub trait LogCap: Send + Sync {
    /// A line for the user; limited in size and number.
    fn log(&self, severity: Severity, text: String);
}
