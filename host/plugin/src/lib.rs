//! Wasm plugins: loads components, runs them within limits, and makes them what the plug points of
//! `wbuild_api::extension` ask for. The only crate that knows wasmtime.
//!
//! ```no_run
//! # use std::path::Path;
//! # use wbuild_plugin::{PluginHost, PluginHostOptions};
//! # async fn f(host: wbuild_api::extension::FrontendHost) -> Result<(), wbuild_graph::Failure> {
//! let plugins = PluginHost::new(PluginHostOptions::new("/home/me/.cache/wbuild/code"));
//! let frontend = plugins.load("./my.wasm", Path::new("./my.wasm"))?.frontend()?;
//! println!("{}", frontend.identity().digest); // compiles and loads nothing
//! frontend.build(host).await?; // a fresh instance, dropped at the end
//! # Ok(())
//! # }
//! ```
//!
//! Invariants:
//!
//! - A guest has no ambient authority. What it imports is its request; a name that is not granted
//!   to its kind ends in an error that says so, before anything is compiled.
//! - WASI is the hermetic profile (module `hermetic`), behind which there is nothing of the system.
//! - The bindings (`v0_1`) convert and decide nothing. A capability is enforced by the object the
//!   engine hands over, an option by `wbuild_graph::decode`, an amount by `limits`; each once, for
//!   every WIT version.
//! - Whatever a guest does ends in a [`wbuild_graph::Failure`] and never in a panic; the instance
//!   is dropped and the next one starts from nothing. Dropping a future of this crate drops the
//!   instance that it runs.
//! - A guest never holds a worker thread for longer than a tick: it yields to the executor.
//! - The host never calls into a guest while that guest waits for the host.
//!
//! Needs a tokio runtime with time enabled. wbuild itself needs Linux; this crate is also for the test kit
//! on other systems, where compiled code is not kept, stacks are made anew, and the time of a guest is
//! what passes while it runs.

#[cfg(target_os = "linux")]
mod adopt;
pub mod answers;
pub mod bounds;
mod cache;
#[cfg(target_os = "linux")]
mod code_cache;
#[cfg(not(target_os = "linux"))]
#[path = "code_cache/elsewhere.rs"]
mod code_cache;
mod compile;
mod engine;
mod error;
mod frontend;
mod guest;
mod hermetic;
mod host;
mod inspect;
pub mod limits;
mod load;
mod runner;
#[cfg(target_os = "linux")]
mod stack;
mod state;
mod v0_1;

use serde::{Deserialize, Serialize};

#[cfg(target_os = "linux")]
pub use adopt::{Adopter, Known};
pub use cache::WasmCache;
pub use compile::{Compile, Compiler};
pub use frontend::{Usage, WasmFrontend};
pub use host::{Plugin, PluginHost, PluginHostOptions, PluginSource};
pub use inspect::PluginInfo;
pub use limits::Limits;
pub use load::{Border, Grants};
pub use runner::WasmRunner;

/// Kinds of plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginKind {
    /// Turns a user's file into a definition.
    Frontend,
    /// Decides how a process is launched.
    Runner,
    /// Keeps cache records.
    Cache,
}

impl PluginKind {
    /// All kinds.
    pub const ALL: [PluginKind; 3] = [PluginKind::Frontend, PluginKind::Runner, PluginKind::Cache];
}

impl std::fmt::Display for PluginKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PluginKind::Frontend => "frontend",
            PluginKind::Runner => "runner",
            PluginKind::Cache => "cache backend",
        })
    }
}
