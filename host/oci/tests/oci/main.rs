//! Tests of the whole crate: layers against real directories and GNU tar, layouts against skopeo and
//! umoci, the registry client against docker-registry and against servers that mean harm.

mod applying;
mod hostile_archives;
mod hostile_registries;
mod layouts;
mod registries;
mod server;
mod support;
mod writing;
