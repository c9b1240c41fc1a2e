//! Image formats and their transport: references, manifests, configs, layers, layouts, registries.
//!
//! See the modules. In short:
//!
//! - [`Reference`] parses and normalises image names; [`media::Document`] decodes manifests and
//!   indexes; [`ImageConfig`] keeps configs byte for byte and finishes those of built images.
//! - [`join`] makes one index of images and indexes.
//! - [`layer`] writes layers from overlay upper directories ([`layer::write_upper`] into a
//!   [`layer::LayerBuilder`]) and applies them ([`layer::apply`]). Blocking; call it on a blocking
//!   thread.
//! - [`layout`] reads and writes OCI image layouts and `docker load` archives. Blocking.
//! - [`registry::Client`] pulls from registries. Async (tokio); drop the future to cancel.
//! - [`daemon::Daemon`] gives images to a running Docker. Async too.
//!
//! Invariants of the crate: what comes from a registry, layout or archive is checked against its
//! digest, its size and our limits before anyone sees it; everything written is a function of the
//! inputs alone; no clock, environment or user configuration is read here (callers pass times,
//! credentials and configuration files in).

pub mod config;
pub mod daemon;
pub mod error;
pub mod image;
pub mod join;
pub mod layer;
pub mod layout;
pub mod media;
mod pipe;
pub mod reference;
pub mod registry;
pub mod time;

pub use config::{Finish, ImageConfig};
pub use error::{Error, ErrorKind, Result};
pub use image::ImageMeta;
pub use media::{Compression, Descriptor, Document, Index, Manifest, MediaFamily};
pub use reference::Reference;
pub use time::Timestamp;

#[cfg(test)]
mod test_support;
