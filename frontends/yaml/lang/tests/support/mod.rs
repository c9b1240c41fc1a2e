//! What the tests share: case folders, the renderer of diagnostics and the recording host are those of
//! the Dockerfile language's tests.
#![allow(dead_code)]

#[path = "../../../../dockerfile/lang/tests/support/mod.rs"]
pub mod common;
pub mod reference;
