//! Pure values of the build graph: ops, platforms, definitions, their canonical encoding and
//! digests, source spans and diagnostics.
//!
//! Invariants:
//!
//! - No I/O, no async, no clock, no environment, no randomness.
//! - A [`Definition`] that exists is valid: every input refers to an earlier node and to an output
//!   that node has, so the graph is acyclic by construction, and every limit holds.
//! - All that is hashed goes through [`encode::Encoder`], whose format is versioned and pinned by
//!   golden vectors. Names, spans and grouping are no part of any digest.
//! - Kinds of digest never share a type (see [`digest`]).

pub mod attrs;
pub mod decode;
pub mod definition;
pub mod diagnostic;
pub mod digest;
pub mod draft;
pub mod dump;
pub mod encode;
pub mod failure;
pub mod name;
pub mod op;
pub mod platform;

pub use attrs::Attrs;
pub use definition::{Definition, Edge, GraphLimits, NodeId, NodeMeta, Vertex};
pub use diagnostic::{Diagnostic, Label, Severity, SourceFile, SourceMap, Span};
pub use digest::{
    BlobDigest, CacheKey, ChainId, ContentDigest, DiffId, Digest, ResultId, VertexDigest,
};
pub use failure::{Failure, FailureKind, quoted};
pub use name::NameParts;
pub use op::Op;
pub use platform::Platform;
