//! File trees seen through directory descriptors: looking things up without ever leaving a root,
//! walking, digests of contents, and copying into the layers of an image.
//!
//! Synchronous, on as many threads as [`Work`] allows; nothing here prints, reads the environment
//! or keeps state besides the directories it is given.
//!
//! # A copy, from the source to the layer
//!
//! ```no_run
//! use std::sync::Mutex;
//! use wbuild_tree::{
//!     CopyOptions, DigestIndex, Filter, LayerWriter, Root, SelectOptions, Source, SourceKind, Work,
//!     XattrKind, select,
//! };
//!
//! # fn main() -> Result<(), wbuild_tree::TreeError> {
//! let work = Work::default();
//! // The user's directory, with the patterns of its ignore file.
//! let context = Root::open("project".as_ref(), "the build context")?;
//! let filter = Filter::new(&[], &["target".to_owned()])?;
//! let source = Source { root: &context, filter: &filter, kind: SourceKind::Context };
//!
//! // What `COPY src /app/` reads, and the digest of it for the cache key. Nothing is read that
//! // the index knows already; save `index.encode()` if `index.is_changed()`.
//! let options = SelectOptions {
//!     wildcard: true,
//!     contents_only: true,
//!     follow_links: true,
//!     into_dir: true,
//!     ..SelectOptions::default()
//! };
//! let index = Mutex::new(DigestIndex::decode(std::fs::read("index").unwrap_or_default()));
//! let mut selection = select(&source, &["src"], &options, &work)?;
//! let digest = selection.digest(&source, Some(&index), &work)?;
//!
//! // On a miss: into the upper directory of a new snapshot, over the base's merged view.
//! let upper = Root::open("snapshots/1/upper".as_ref(), "the new layer")?;
//! let base = Root::open("mounts/base".as_ref(), "the base")?;
//! let mut layer = LayerWriter::new(upper, Some(base.into()), XattrKind::Trusted, work)?;
//! layer.copy(&source, &selection, "/app/", &CopyOptions::default())?;
//! layer.finish()?;
//! # let _ = digest;
//! # Ok(())
//! # }
//! ```
//!
//! # Elsewhere
//!
//! - [`tree_digest`] of a stage or a bind mount's source, [`layer_digest`] of an upper directory,
//!   [`read_layer`] for those who export one.
//! - [`walk`] with [`Filter`]s; what their patterns mean is owned by [`wbuild_ignore`].
//! - All errors are [`TreeError`]s, which convert into [`wbuild_graph::Failure`].

pub mod content;
pub mod digest;
pub mod error;
pub mod index;
pub mod layer;
pub mod mode;
mod open;
pub mod par;
pub mod path;
pub mod root;
pub mod select;
pub mod stat;
pub mod walk;
pub mod xattr;

pub use content::{Mark, Node, Ownership, Sha};
pub use digest::{layer_digest, layer_nodes_digest, read_layer, tree_digest};
pub use error::{Missing, Result, TreeError};
pub use index::DigestIndex;
pub use layer::{
    Base, CopyOptions, CopyReport, EntryMeta, LayerWriter, LentFile, LentFiles, LentReader,
    LinkOptions, MkdirOptions, NewEntry, Owner, RemoveOptions, WriteOptions,
};
pub use mode::ModeChange;
pub use par::{Cancel, Work};
pub use path::RelPath;
pub use root::{DirEntry, Followed, Links, Root};
pub use select::{
    SelectOptions, Selected, Selection, Shape, Source, SourceKind, follow_patterns, select,
};
pub use stat::{Kind, Stat, Timestamp};
pub use walk::{Entry, Filter, Scope, walk};
pub use xattr::{XattrKind, Xattrs};
