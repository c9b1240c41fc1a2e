//! The plugin interface, call by call, in the words of `wbuild-graph` and `wbuild-api`. As a
//! component ([`wasm`]) the calls are imports; natively ([`native`]) they go to the capabilities that
//! the thread was given. Both have the same functions and builders, and nothing above this module
//! knows which it is. For what this crate has no word for, call these directly.

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
mod wasm;

#[cfg(not(target_family = "wasm"))]
pub use native::*;
#[cfg(target_family = "wasm")]
pub use wasm::*;
