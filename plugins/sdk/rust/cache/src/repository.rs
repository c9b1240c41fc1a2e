//! OCI content under the one name that the user granted: a repository of a registry, or an image layout
//! in a directory. See `wit/cache`, interface `repository`.

pub use crate::sys::{publish, pull, push, resolve, retain};
