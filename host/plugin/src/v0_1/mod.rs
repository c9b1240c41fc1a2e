//! WIT packages at 0.1: generated bindings and conversions between them and the host's own types.
//!
//! No decisions are taken here. What a string may be is decided by `wbuild_graph::decode`, what a
//! guest may do by the capability objects, how much of it by [`crate::limits`]; a later version of
//! the packages gets a folder beside this one and goes through the same three.

pub(crate) mod cache;
pub(crate) mod frontend;
pub(crate) mod runner;
pub(crate) mod types;
