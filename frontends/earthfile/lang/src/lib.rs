//! The Earthfile language: from source text to a build graph.
//!
//! Pure: no I/O, no clock, no environment, nothing of WebAssembly.
//!
//! ```text
//! bytes ─ lex (lines of words) ─ parse (flags, features, references) ─► Earthfile (ast) ─ print
//!                                                                          │
//!                              DynamicHost: graph, outcomes, results ◄── plan
//! ```
//!
//! What the language has in common with Dockerfiles is that crate's: texts with places, diagnostics,
//! suggestions, and the commands that only change an image's config.
//!
//! Entry points: [`parse`](parse()) and [`print`](print()) for tools, [`build`] for a build.

pub mod ast;
mod catalogue;
mod code;
pub mod describe;
pub mod features;
pub mod flags;
mod lex;
mod lint;
mod parse;
mod plan;
mod print;
pub mod reference;

pub use catalogue::Rule;
pub use code::Code;
pub use parse::{Parsed, parse};
pub use plan::build;
pub use plan::host::{DynamicHost, NestedBuild, NestedImage, Outcome};
pub use print::print;
pub use wbuild_dockerfile::{Diagnostic, Severity, Span, Text};
