//! What the client lends for the time of a build: directories, secrets, registry credentials.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use wbuild_graph::Failure;

/// The client's side services. The first implementation is the command line in the same process; a
/// remote client can be the second.
#[async_trait]
pub trait Session: Send + Sync {
    /// Names the client within this process.
    fn id(&self) -> String;

    /// A directory the client lends, by the name of a local context.
    fn context(&self, name: &str) -> Option<Arc<dyn BuildContext>>;

    /// Whether the client offers a secret.
    fn has_secret(&self, id: &str) -> bool;

    /// A secret's value; never stored, logged or hashed.
    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Failure>;

    /// Whether the client offers an ssh agent.
    fn has_ssh(&self, id: &str) -> bool;

    /// The path of the agent's socket.
    fn ssh_socket(&self, id: &str) -> Option<std::path::PathBuf>;

    /// The credentials for a registry host, e.g. `ghcr.io`.
    async fn registry_auth(&self, host: &str) -> Result<Option<RegistryAuth>, Failure>;
}

/// Credentials of a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum RegistryAuth {
    /// User and password.
    Basic {
        /// User.
        username: String,
        /// Password.
        password: String,
    },
    /// A token to be exchanged (docker's `identitytoken`).
    IdentityToken(String),
    /// A token to be sent as it is.
    Bearer(String),
}

/// A file tree the client lends, read in place. Only paths that something uses are read.
pub trait BuildContext: Send + Sync {
    /// Names the tree on this machine, so that digests of unchanged files can be kept.
    fn identity(&self) -> String;

    /// The tree as people know it, for messages: `.`, `./docs`.
    fn display(&self) -> String;

    /// The root directory, opened for reading.
    fn open(&self) -> Result<OwnedFd, Failure>;
}
