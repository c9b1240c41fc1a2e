//! The capabilities of a backend: as a component imports of it ([`wasm`]), natively those that the thread
//! was given ([`native`]). Both have the same names.

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
mod wasm;

#[cfg(not(target_family = "wasm"))]
pub use native::*;
#[cfg(target_family = "wasm")]
pub use wasm::*;
