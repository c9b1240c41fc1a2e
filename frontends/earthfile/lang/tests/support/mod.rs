//! What the tests share. Case folders and the renderer of diagnostics are those of the Dockerfile
//! language's tests.

#![allow(dead_code)]

#[path = "../../../../dockerfile/lang/tests/support/mod.rs"]
pub mod common;
pub mod dump;
pub mod world;
