//! What the client lends for the time of a build: directories, secrets, agents, registry credentials.

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

    /// The tar that is the main context, if the request says that one is. Asked for once.
    fn archive(&self) -> Result<Archive, Failure> {
        Err(Failure::not_found("the client hands over no archive"))
    }

    /// Whether the client offers a secret.
    fn has_secret(&self, id: &str) -> bool;

    /// A secret's value; never stored or logged, and hashed only under a key of the state directory.
    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Failure>;

    /// Whether the client offers an ssh agent.
    fn has_ssh(&self, id: &str) -> bool;

    /// The path of the agent's socket.
    fn ssh_socket(&self, id: &str) -> Option<std::path::PathBuf>;

    /// The keys of ssh servers that the client knows, as in known_hosts (sshd(8)).
    async fn known_hosts(&self) -> Result<Vec<u8>, Failure>;

    /// The credentials for a registry host, e.g. `ghcr.io`.
    async fn registry_auth(&self, host: &str) -> Result<Option<RegistryAuth>, Failure>;

    /// How a registry host, or a mirror of one, is to be asked.
    async fn registry_host(&self, _host: &str) -> Result<RegistryHost, Failure> {
        Ok(RegistryHost::default())
    }

    /// Begins a process on the client's machine, in a directory below the main context. Called only
    /// if the request allows it.
    fn spawn(&self, _spec: ClientSpec) -> Result<Arc<dyn ClientProcess>, Failure> {
        Err(Failure::unsupported("the client runs no processes of its own"))
    }

    /// Through whom registries and web servers are asked.
    fn proxies(&self) -> Proxies {
        Proxies::default()
    }
}

/// A process of the client's.
#[derive(Debug)]
pub struct ClientSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Above the client's own; a later one of a name wins.
    pub env: Vec<(String, String)>,
    /// Below the main context, without `..`; empty = the main context itself.
    pub cwd: String,
    /// Where it prints.
    pub stdout: OwnedFd,
    /// Where it says what is wrong.
    pub stderr: OwnedFd,
}

/// A process of the client's that was begun.
pub trait ClientProcess: Send + Sync {
    /// Waits for its end, on a thread that may block, and ends what it has left behind. Answers its
    /// exit code; 128 + signal number if a signal ended it.
    fn wait(&self) -> Result<i32, Failure>;

    /// Ends it, with all that it has begun, unless it has ended.
    fn kill(&self);
}

/// How a registry host is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryHost {
    /// Who is asked first for what it holds: `HOST[:PORT][/PATH]`, in order.
    pub mirrors: Vec<String>,
    /// Over plain HTTP; none = only if it is on this machine and nothing is said of TLS.
    pub http: Option<bool>,
    /// Without a look at its certificate.
    pub insecure: bool,
    /// PEM texts with authorities to trust besides those of the system.
    pub authorities: Vec<Vec<u8>>,
    /// Client certificates.
    pub keypairs: Vec<Keypair>,
    /// Hosts of token services outside of its domain that may have its credentials.
    pub realms: Vec<String>,
    /// Blobs fetched at once; none = a few.
    pub concurrency: Option<usize>,
}

/// A client certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Keypair {
    /// PEM text of the certificate and those that lead to its authority.
    pub certificate: Vec<u8>,
    /// PEM text of the private key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Keypair {
    /// Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keypair(..)")
    }
}

/// Proxies, as the variables `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` name them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// URL of the proxy for HTTPS; it may hold a password.
    pub https: Option<String>,
    /// URL of the proxy for plain HTTP.
    pub http: Option<String>,
    /// Who is asked directly, comma separated.
    pub except: Option<String>,
}

impl std::fmt::Debug for Proxies {
    /// A proxy's URL may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proxies(..)")
    }
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

/// A stream of bytes that may come slowly.
#[derive(Debug)]
pub struct Archive {
    /// As people know it.
    pub name: String,
    /// Its beginning, where that was looked at already.
    pub start: Vec<u8>,
    /// The rest.
    pub rest: OwnedFd,
}

/// A file tree the client lends, read in place. Only paths that something uses are read.
pub trait BuildContext: Send + Sync {
    /// Names the tree on this machine, so that digests of unchanged files can be kept. None for one
    /// that will not be seen again.
    fn identity(&self) -> Option<String>;

    /// The tree as people know it, for messages: `.`, `./docs`.
    fn display(&self) -> String;

    /// The root directory, opened for reading.
    fn open(&self) -> Result<OwnedFd, Failure>;
}
