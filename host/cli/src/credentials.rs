//! Registry credentials from docker's configuration, and the programs it names.
//!
//! Read when a registry first asks for them: most builds never do.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OnceCell;
use wbuild_api::session::RegistryAuth;
use wbuild_cli::session::Credentials;
use wbuild_graph::{Failure, FailureKind};
use wbuild_oci::registry::{
    Credential, CredentialHelper, Credentials as _, DockerConfig, DockerCredentials,
};

/// A helper's answer is at most this long, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// See the module.
pub struct FromDocker {
    directory: Option<PathBuf>,
    search: Vec<PathBuf>,
    read: OnceCell<DockerCredentials>,
}

impl FromDocker {
    /// Credentials of `directory/config.json`, whose helpers are looked for in `search`.
    pub fn new(directory: Option<PathBuf>, search: Vec<PathBuf>) -> Self {
        FromDocker { directory, search, read: OnceCell::new() }
    }

    fn read(&self) -> Result<DockerCredentials, Failure> {
        let config = match &self.directory {
            None => DockerConfig::default(),
            Some(directory) => {
                let path = directory.join("config.json");
                let failed = |kind, error: &dyn std::error::Error| {
                    Failure::new(
                        kind,
                        format!("cannot read the registry credentials in {}", path.display()),
                    )
                    .cause(error)
                };
                match std::fs::read_to_string(&path) {
                    Ok(text) => DockerConfig::parse(&text)
                        .map_err(|error| failed(FailureKind::Invalid, &error))?,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        DockerConfig::default()
                    }
                    Err(error) => return Err(failed(FailureKind::Denied, &error)),
                }
            }
        };
        let helper = Helper { search: self.search.clone() };
        Ok(DockerCredentials::new(config, Some(Arc::new(helper))))
    }
}

#[async_trait]
impl Credentials for FromDocker {
    async fn of_host(&self, host: &str) -> Result<Option<RegistryAuth>, Failure> {
        let credentials = self.read.get_or_try_init(|| async { self.read() }).await?;
        let found = credentials.lookup(host).await.map_err(|error| {
            let message = format!("cannot get the credentials for the registry {host}");
            Failure::new(FailureKind::Denied, message).cause(&error)
        })?;
        Ok(found.map(|credential| match credential {
            Credential::Basic { username, password } => RegistryAuth::Basic { username, password },
            Credential::Identity(token) => RegistryAuth::IdentityToken(token),
            Credential::Bearer(token) => RegistryAuth::Bearer(token),
        }))
    }
}

/// Runs `docker-credential-NAME`.
struct Helper {
    search: Vec<PathBuf>,
}

#[async_trait]
impl CredentialHelper for Helper {
    async fn get(&self, program: &str, server: &str) -> wbuild_oci::Result<Option<Vec<u8>>> {
        let path = self.search.iter().map(|dir| dir.join(program)).find(|path| path.is_file());
        let Some(path) = path else {
            return Err(wbuild_oci::Error::new(
                wbuild_oci::ErrorKind::Invalid,
                format!(
                    "docker's configuration names the credential helper {program}, which is not installed"
                ),
            ));
        };
        let (program, server) = (program.to_owned(), server.to_owned());
        let ran = tokio::task::spawn_blocking(move || ask(&path, &server)).await;
        match ran {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(wbuild_oci::Error::new(
                wbuild_oci::ErrorKind::Invalid,
                format!("cannot run {program}: {error}"),
            )),
            Err(_) => Err(wbuild_oci::Error::new(
                wbuild_oci::ErrorKind::Invalid,
                format!("asking {program} did not end"),
            )),
        }
    }
}

/// One question to a helper (docker-credential-helpers, "get"). What a helper says on standard
/// error stays with the user's terminal; its standard output may hold a secret and goes nowhere.
fn ask(path: &std::path::Path, server: &str) -> std::io::Result<Option<Vec<u8>>> {
    let mut child = Command::new(path)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its question answers nonsense, which is noticed.
        let _ = stdin.write_all(server.as_bytes());
    }
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_ANSWER).read_to_end(&mut answer)?;
    }
    let status = child.wait()?;
    // The protocol tells "unknown here" only by the text of the failure; any failure means that
    // there is nothing to be had, and the registry will say if it minds.
    Ok(status.success().then_some(answer))
}
