//! What plugins of every kind have in common: errors, and the border of `wbuild:types`.
//!
//! Authors meet this crate through `wbuild-frontend`, `wbuild-runner` and `wbuild-cache`, which say
//! what there is for each kind.

mod error;
#[cfg(not(target_family = "wasm"))]
pub mod native;
#[cfg(target_family = "wasm")]
pub mod wasm;

#[doc(hidden)]
pub use error::diagnostic;
pub use error::{Error, Result, ResultExt};

/// Version of the WIT packages that the SDK speaks.
pub const WIT_VERSION: &str = "0.1.0";
