//! What plugins of every kind have in common: errors, and the border of `wbuild:types`.
//!
//! Authors meet this crate through `wbuild-frontend`, `wbuild-runner` and `wbuild-cache`, which say
//! what there is for each kind.

mod error;
#[cfg(target_family = "wasm")]
pub mod wasm;

#[doc(hidden)]
pub use error::diagnostic;
pub use error::{Error, Result, ResultExt};

/// Version of the WIT packages that the SDK speaks.
pub const WIT_VERSION: &str = "0.1.0";

/// What a panic has said. For plugins that are compiled into a program: a component ends with it.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "with no message".to_owned())
}
