//! What clients, the engine and plugins say to each other: requests, events, the client's session,
//! and the traits of the plug points. Types and traits, how patterns in
//! them are read ([`names`]), and what every host of a frontend decides in the same way ([`nodes`],
//! [`texts`], [`yielded`]).
//!
//! The engine implements the capabilities and calls the plug points; `wbuild-plugin` implements the
//! plug points over Wasm; the command line makes requests and draws events. None of the three needs
//! to be compiled for another.

pub mod describe;
pub mod event;
pub mod explain;
pub mod extension;
pub mod names;
pub mod nested;
pub mod nodes;
pub mod request;
#[cfg(unix)]
pub mod session;
pub mod texts;
pub mod yielded;
