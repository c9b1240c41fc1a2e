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
    /// Where it comes from.
    pub origin: Origin,
    /// What it is narrowed to. Here, so that whatever stands in front of a plugin passes it on.
    pub allowed: Allowed,
}

impl PluginIdentity {
    /// One that comes with wbuild, and may do all that its kind may.
    pub fn bundled(name: &str, digest: Digest, wit_version: &str) -> PluginIdentity {
        PluginIdentity {
            name: name.to_owned(),
            digest,
            wit_version: wit_version.to_owned(),
            origin: Origin::Bundled,
            allowed: Allowed::default(),
        }
    }

    /// Whether it comes with wbuild. A name alone does not say so: a project may call its own plugins
    /// as it likes.
    pub fn is_bundled(&self) -> bool {
        self.origin == Origin::Bundled
    }

    /// What it is, whatever it was called this time and whichever version it has: what it keeps goes by
    /// that. Two plugins of different origins never have the same.
    pub fn what(&self) -> &str {
        match &self.origin {
            Origin::Bundled => &self.name,
            Origin::From(place) => place,
        }
    }
}

/// Where a plugin comes from. Whoever loads it says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// It comes with wbuild.
    Bundled,
    /// From elsewhere: `oci://REGISTRY/NAME`, a URL, the absolute path of a file.
    From(String),
}

impl Default for Origin {
    fn default() -> Self {
        Origin::From(String::new())
    }
}

/// What a plugin may have of what others of its kind all have. The default narrows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// The images that a frontend may use, as patterns part by part over their names without tag and
    /// digest, `**` at the end for all below; none = all.
    pub images: Option<Vec<String>>,
    /// What a frontend may use of the local contexts, as paths and patterns of ignore files; none = all.
    pub files: Option<Vec<String>>,
    /// The emulators that a runner which does not come with wbuild may use.
    pub tools: Vec<String>,
}

/// wit/types, interface `log`.
pub trait LogCap: Send + Sync {
    /// A line for the user; limited in size and number.
    fn log(&self, severity: Severity, text: String);
}
