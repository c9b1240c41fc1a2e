//! Sources: where files come in from outside. Each pins what it names before anything is keyed.

pub(crate) mod git;
pub(crate) mod http;
pub(crate) mod image;
pub(crate) mod layout;
pub(crate) mod local;
pub(crate) mod receive;
pub(crate) mod registry;
mod resolve;
