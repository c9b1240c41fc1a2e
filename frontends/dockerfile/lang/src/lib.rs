//! The Dockerfile language: parser, expander, image config, and lowering to a build graph.
//!
//! Pure: no I/O, no clock, no environment, nothing of WebAssembly. What a build needs from outside
//! goes through the [`Host`] trait; the component beside this crate implements it over the plugin
//! interface, tests implement it in memory.
//!
//! ```text
//! bytes ─ lines ─ words ─ parse ─► Dockerfile (ast) ─ plan ─► Host: graph, results
//!                                        ▲              │
//!                              expand ───┴── vars ──────┘── image (config, history)
//!                                                       └── lint: findings
//! ```
//!
//! Entry points: [`parse`](parse()) for tools, [`build`] for a build, [`describe`] for questions
//! about a file that is not built.

pub mod ast;
mod catalogue;
pub mod describe;
mod diagnostic;
mod directives;
pub mod expand;
mod gostyle;
mod heredoc;
mod ignore;
mod image;
mod lines;
mod lint;
mod parse;
#[doc(hidden)]
pub mod paths;
mod pattern;
mod plan;
mod platform;
pub mod suggest;
mod text;
mod units;
mod vars;
mod words;

/// The lexer's parts: for tests that check each by itself, and for the Earthfile language, which has
/// some of them in common.
#[doc(hidden)]
pub mod lexer {
    pub use crate::lines::{Logical, Reader};
    pub use crate::parse::mount_fields;
    pub use crate::text::shown;
    pub use crate::words::{Flag, Json, blank_separated, flags, json_array, keyword, quoted};
}

/// What the Earthfile language does in the same way when it makes a graph.
#[doc(hidden)]
pub mod shared {
    pub use crate::catalogue::url;
    pub use crate::directives::{check_above, check_on_top};
    pub use crate::image::{DEFAULT_PATH, has_layers, healthcheck_test};
    pub use crate::lint::{Linter, steps::is_secret};
    pub use crate::plan::{Foreign, expand_ports};
}

pub use catalogue::{Code, Example, Page, Rule};
pub use diagnostic::{CheckRule, Coded, Diagnostic, Failure, Label, Severity};
pub use directives::{Check, Directives};
pub use ignore::{Pattern as IgnorePattern, parse as parse_ignore};
pub use image::Image;
pub use parse::{
    Ownership, Parsed, Resolved, Sharing, parse, parse_instruction, parse_trigger, resolve_mount,
};
pub use plan::build;
pub use plan::host::{
    Attrs, Bind, CacheDir, CopyAction, DefinitionFile, Exec, ExecMount, FileAction, FileOp, Host,
    ImageInfo, ImageRequest, LocalSource, NamedContext, Output,
};
pub use platform::Platform;
pub use text::{Span, Text, TextBuilder};
pub use vars::Vars;
