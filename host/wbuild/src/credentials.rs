//! Registry credentials from docker's configuration, and the programs it names.
//!
//! Read when a registry first asks for them: most builds never do.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::OnceCell;
use wbuild_api::session::RegistryAuth;
use wbuild_graph::{Failure, FailureKind};
use wbuild_oci::registry::{
    Credential, CredentialHelper, Credentials as _, DockerConfig, DockerCredentials,
};

use crate::session::Credentials;

/// The variable in which the command line gets them.
const AUTH_CONFIG: &str = "DOCKER_AUTH_CONFIG";
/// A helper's answer is at most this long, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// A helper may ask its user something, but not for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
pub struct FromDocker {
    /// A configuration that was given as text; what it says of a registry comes first.
    given: Option<String>,
    directory: Option<PathBuf>,
    search: Vec<PathBuf>,
    read: OnceCell<[DockerCredentials; 2]>,
}

impl FromDocker {
    /// Credentials of `given`, else of `directory/config.json`, whose helpers are looked for in
    /// `search`.
    pub fn new(given: Option<String>, directory: Option<PathBuf>, search: Vec<PathBuf>) -> Self {
        FromDocker { given, directory, search, read: OnceCell::new() }
    }

    fn read(&self) -> Result<[DockerCredentials; 2], Failure> {
        let given = self.given.as_deref().map(DockerConfig::parse).transpose();
        let given = given.map_err(|error| {
            let message = format!("cannot read the registry credentials in {}", AUTH_CONFIG);
            Failure::invalid(message).cause(&error)
        })?;
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
        Ok([
            DockerCredentials::new(given.unwrap_or_default(), None),
            DockerCredentials::new(config, Some(Arc::new(helper))),
        ])
    }
}

#[async_trait]
impl Credentials for FromDocker {
    async fn of_host(&self, host: &str) -> Result<Option<RegistryAuth>, Failure> {
        let credentials = self.read.get_or_try_init(|| async { self.read() }).await?;
        let mut found = None;
        for credentials in credentials {
            if found.is_none() {
                found = credentials.lookup(host).await.map_err(|error| {
                    let message = format!("cannot get the credentials for the registry {host}");
                    Failure::new(FailureKind::Denied, message).cause(&error)
                })?;
            }
        }
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
        let ran = tokio::task::spawn_blocking(move || ask(&path, &server, PATIENCE)).await;
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
fn ask(
    path: &std::path::Path,
    server: &str,
    patience: Duration,
) -> std::io::Result<Option<Vec<u8>>> {
    let mut child = Command::new(path)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (sender, answered) = std::sync::mpsc::channel();
    let server = server.to_owned();
    // Reading ends with the helper, or with whatever it has left running: nobody waits for that.
    std::thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // A helper that does not read its question answers nonsense, which is noticed.
            let _ = stdin.write_all(server.as_bytes());
        }
        let mut answer = Vec::new();
        let read = stdout.map(|stdout| stdout.take(MAX_ANSWER).read_to_end(&mut answer));
        let _ = sender.send(read.unwrap_or(Ok(0)).map(|_| answer));
    });
    let deadline = Instant::now() + patience;
    let answer = answered.recv_timeout(patience);
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if answer.is_ok() && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            None => {
                child.kill()?;
                child.wait()?;
                let message = format!("it did not answer within {} seconds", patience.as_secs());
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, message));
            }
        }
    };
    let answer = answer.map_err(|_| {
        std::io::Error::new(std::io::ErrorKind::TimedOut, "it ended without closing its output")
    })??;
    // The protocol tells "unknown here" only by the text of the failure; any failure means that
    // there is nothing to be had, and the registry will say if it minds.
    Ok(status.success().then_some(answer))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn helpers_answer_in_time_or_not_at_all() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let helper = |name: &str, script: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("file");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("file");
            path
        };
        let patience = Duration::from_millis(700);
        let good =
            helper("good", r#"read server; echo "{\"Username\":\"$1\",\"Secret\":\"$server\"}""#);
        let answer = ask(&good, "reg.example", Duration::from_secs(20)).expect("an answer");
        let answer = String::from_utf8(answer.expect("known")).expect("text");
        assert_eq!(answer.trim(), r#"{"Username":"get","Secret":"reg.example"}"#);
        let unknown = helper("unknown", "echo credentials not found in native keychain; exit 1");
        assert_eq!(ask(&unknown, "x", Duration::from_secs(20)).expect("no error"), None);
        for (name, script) in [
            ("sleeps", "exec sleep 30"),
            ("leaves", "sleep 30 &\nexit 0"),
            ("lingers", "exec 1>&-; exec sleep 30"),
        ] {
            let began = Instant::now();
            let error = ask(&helper(name, script), "x", patience).expect_err(name);
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{name}: {error}");
            assert!(began.elapsed() < Duration::from_secs(10), "{name}");
        }
    }
}
