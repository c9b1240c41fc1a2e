//! Tests of the whole crate: layers against real directories and GNU tar, layouts against skopeo and
//! umoci, the registry client against docker-registry and against servers that mean harm.

mod applying;
mod content;
mod hostile;
mod hostile_registries;
mod joining;
mod layouts;
mod mirrors;
mod pushing;
mod registries;
mod registry_server;
mod server;
mod support;
mod t_413;
mod t_auth;
mod t_dig;
mod t_net;
mod tls;
#[path = "../../../../tests/src/wire.rs"]
mod wire;
mod writing;
