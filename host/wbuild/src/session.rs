//! The client's side of a build: directories, secrets, agents, registry credentials.
//!
//! Nothing is opened or read before it is asked for. A secret's value exists while it is handed
//! over, in no message and no log.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rustix::fs::{Mode, OFlags};
use wbuild_api::session::{
    Archive, BuildContext, ClientProcess, ClientSpec, Proxies, RegistryAuth, RegistryHost, Session,
};
use wbuild_graph::{Failure, FailureKind};

use crate::client_process;

/// A secret is at most this long, in bytes; the limit that BuildKit has.
pub const MAX_SECRET: u64 = 500 << 10;

/// Most bytes of one file of known hosts.
const MAX_KNOWN_HOSTS: u64 = 16 << 20;

/// Finds the credentials of registry hosts.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// The credentials for a host, e.g. `ghcr.io` or `localhost:5000`.
    async fn of_host(&self, host: &str) -> Result<Option<RegistryAuth>, Failure>;
}

/// Says how the hosts of registries are asked.
pub trait RegistryHosts: Send + Sync {
    /// How a host is asked, e.g. `ghcr.io` or `localhost:5000`.
    ///
    /// # Errors
    ///
    /// What is said of it cannot be read.
    fn host(&self, name: &str) -> Result<RegistryHost, Failure>;
}

/// Nobody has any.
pub struct NoCredentials;

#[async_trait]
impl Credentials for NoCredentials {
    async fn of_host(&self, _: &str) -> Result<Option<RegistryAuth>, Failure> {
        Ok(None)
    }
}

/// A directory the client lends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Absolute.
    pub path: PathBuf,
    /// As written.
    pub shown: String,
}

/// Where a secret's value is.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretPlace {
    /// In a file, read when it is asked for.
    File(PathBuf),
    /// Here.
    Value(Vec<u8>),
}

impl std::fmt::Debug for SecretPlace {
    /// Never the value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SecretPlace::File(path) => f.debug_tuple("File").field(path).finish(),
            SecretPlace::Value(_) => f.write_str("Value(…)"),
        }
    }
}

/// What a session lends, before anything of it is opened.
#[derive(Clone, Default)]
pub struct Lent {
    /// Directories by the name of the local context.
    pub directories: BTreeMap<String, Directory>,
    /// Where secrets are, by id.
    pub secrets: BTreeMap<String, SecretPlace>,
    /// Agents' sockets, by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// Files with the keys of ssh servers; need not exist.
    pub known_hosts: Vec<PathBuf>,
    /// What was read of the archive on standard input, where that is the main context.
    pub archive: Option<Vec<u8>>,
    /// How registries are asked; none = over HTTPS, those of this machine over HTTP.
    pub registries: Option<Arc<dyn RegistryHosts>>,
    /// Through whom registries and web servers are asked.
    pub proxies: Proxies,
}

/// The session of one client in this process.
pub struct LocalSession {
    contexts: BTreeMap<String, Arc<LocalContext>>,
    secrets: BTreeMap<String, SecretPlace>,
    agents: BTreeMap<String, PathBuf>,
    known_hosts: Vec<PathBuf>,
    archive: Mutex<Option<Vec<u8>>>,
    credentials: Arc<dyn Credentials>,
    registries: Option<Arc<dyn RegistryHosts>>,
    proxies: Proxies,
}

impl LocalSession {
    /// A session that lends this.
    pub fn new(lent: impl Into<Lent>, credentials: Arc<dyn Credentials>) -> Self {
        let lent = lent.into();
        let contexts = lent
            .directories
            .into_iter()
            .map(|(name, directory)| (name, Arc::new(LocalContext { directory })))
            .collect();
        let Lent { secrets, agents, known_hosts, archive, registries, proxies, .. } = lent;
        let archive = Mutex::new(archive);
        LocalSession {
            contexts,
            secrets,
            agents,
            known_hosts,
            archive,
            credentials,
            registries,
            proxies,
        }
    }
}

#[async_trait]
impl Session for LocalSession {
    fn id(&self) -> String {
        // One process is one client.
        format!("cli-{}", std::process::id())
    }

    fn context(&self, name: &str) -> Option<Arc<dyn BuildContext>> {
        let context = self.contexts.get(name)?;
        Some(Arc::<LocalContext>::clone(context))
    }

    fn archive(&self) -> Result<Archive, Failure> {
        let start = self.archive.lock().unwrap_or_else(PoisonError::into_inner).take();
        let start = start.ok_or_else(|| Failure::not_found("standard input is no archive"))?;
        let rest = std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Failure::internal("cannot duplicate standard input").cause(&error))?;
        Ok(Archive { name: "-".to_owned(), start, rest })
    }

    fn spawn(&self, spec: ClientSpec) -> Result<Arc<dyn ClientProcess>, Failure> {
        let context = self.contexts.get("context").ok_or_else(|| {
            Failure::not_found("there is no directory that a process could run in")
        })?;
        client_process::spawn(&context.directory.path, spec)
    }

    fn has_secret(&self, id: &str) -> bool {
        self.secrets.contains_key(id)
    }

    async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Failure> {
        let Some(place) = self.secrets.get(id) else { return Ok(None) };
        let value = match place {
            SecretPlace::Value(value) => value.clone(),
            SecretPlace::File(path) => {
                let mut value = Vec::new();
                std::fs::File::open(path)
                    .and_then(|file| file.take(MAX_SECRET + 1).read_to_end(&mut value))
                    .map_err(|error| {
                        let message =
                            format!("cannot read the file {} of the secret {id:?}", path.display());
                        Failure::new(kind_of(&error), message).cause(&error)
                    })?;
                value
            }
        };
        if value.len() as u64 > MAX_SECRET {
            return Err(Failure::new(
                FailureKind::Limit,
                format!("the secret {id:?} is longer than {} KiB", MAX_SECRET >> 10),
            )
            .hint("secrets are for keys and tokens; hand over files with --build-context"));
        }
        Ok(Some(value))
    }

    fn has_ssh(&self, id: &str) -> bool {
        self.agents.contains_key(id)
    }

    fn ssh_socket(&self, id: &str) -> Option<PathBuf> {
        self.agents.get(id).cloned()
    }

    async fn known_hosts(&self) -> Result<Vec<u8>, Failure> {
        let mut all = Vec::new();
        for path in &self.known_hosts {
            match std::fs::File::open(path).map(|file| file.take(MAX_KNOWN_HOSTS)) {
                Ok(mut file) => {
                    file.read_to_end(&mut all).map_err(|error| {
                        let message = format!("cannot read {}", path.display());
                        Failure::new(kind_of(&error), message).cause(&error)
                    })?;
                    all.push(b'\n');
                }
                // Whoever has none knows no server.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    let message = format!("cannot open {}", path.display());
                    return Err(Failure::new(kind_of(&error), message).cause(&error));
                }
            }
        }
        Ok(all)
    }

    async fn registry_auth(&self, host: &str) -> Result<Option<RegistryAuth>, Failure> {
        self.credentials.of_host(host).await
    }

    async fn registry_host(&self, host: &str) -> Result<RegistryHost, Failure> {
        match &self.registries {
            Some(registries) => registries.host(host),
            None => Ok(RegistryHost::default()),
        }
    }

    fn proxies(&self) -> Proxies {
        self.proxies.clone()
    }
}

fn kind_of(error: &std::io::Error) -> FailureKind {
    match error.kind() {
        std::io::ErrorKind::NotFound => FailureKind::NotFound,
        std::io::ErrorKind::PermissionDenied => FailureKind::Denied,
        _ => FailureKind::Invalid,
    }
}

/// A directory on this machine, read in place.
struct LocalContext {
    directory: Directory,
}

impl BuildContext for LocalContext {
    fn identity(&self) -> Option<String> {
        // By the real path, so that the same tree reached by another way is the same tree.
        let path = std::fs::canonicalize(&self.directory.path);
        Some(path.as_deref().unwrap_or(&self.directory.path).to_string_lossy().into_owned())
    }

    fn display(&self) -> String {
        self.directory.shown.clone()
    }

    fn open(&self) -> Result<OwnedFd, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.directory.path, flags, Mode::empty()).map_err(|error| {
            let error = std::io::Error::from(error);
            let message = format!("cannot open the directory {}", self.directory.shown);
            Failure::new(kind_of(&error), message).cause(&error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The session answers at once; no runtime is needed to ask it.
    fn now<T>(future: impl Future<Output = T>) -> T {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => panic!("the session waits for something"),
        }
    }

    #[test]
    fn lends_what_was_offered_and_nothing_else() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("token"), b"s3cret\n").expect("file");
        std::fs::write(at("known_hosts"), b"h ssh-ed25519 AAAA\n").expect("file");
        std::fs::write(at("large"), vec![b'x'; MAX_SECRET as usize + 1]).expect("file");
        std::fs::write(at("fits"), vec![b'x'; MAX_SECRET as usize]).expect("file");
        let directory = Directory { path: dir.path().into(), shown: ".".into() };
        let lent = Lent {
            directories: BTreeMap::from([("context".into(), directory)]),
            secrets: BTreeMap::from([
                ("file".into(), SecretPlace::File(at("token"))),
                ("large".into(), SecretPlace::File(at("large"))),
                ("fits".into(), SecretPlace::File(at("fits"))),
                ("gone".into(), SecretPlace::File(at("gone"))),
                ("env".into(), SecretPlace::Value(b"v".to_vec())),
            ]),
            agents: BTreeMap::from([("default".into(), at("agent"))]),
            known_hosts: vec![at("none"), at("known_hosts")],
            ..Lent::default()
        };
        assert!(!format!("{:?}", lent.secrets).contains("118"), "a secret's bytes are not shown");
        let session = LocalSession::new(lent, Arc::new(NoCredentials));

        assert_eq!(now(session.secret("file")), Ok(Some(b"s3cret\n".to_vec())));
        assert_eq!(now(session.secret("env")), Ok(Some(b"v".to_vec())));
        assert_eq!(now(session.secret("other")), Ok(None));
        assert_eq!(now(session.secret("large")).expect_err("limit").kind, FailureKind::Limit);
        assert!(now(session.secret("fits")).is_ok());
        assert_eq!(now(session.secret("gone")).expect_err("gone").kind, FailureKind::NotFound);
        assert!(session.has_secret("gone") && !session.has_secret("other"));
        assert_eq!(now(session.known_hosts()), Ok(b"h ssh-ed25519 AAAA\n\n".to_vec()));
        assert!(session.has_ssh("default") && !session.has_ssh("x"));
        assert_eq!(session.ssh_socket("default"), Some(at("agent")));

        let context = session.context("context").expect("lent");
        assert_eq!(context.display(), ".");
        let fd = context.open().expect("directory");
        assert!(rustix::fs::openat(&fd, "token", OFlags::RDONLY, Mode::empty()).is_ok());
        assert!(session.context("dockerfile").is_none());
    }
}
