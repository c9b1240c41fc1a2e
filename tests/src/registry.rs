//! A container registry on a loopback port: Debian's `docker-registry`.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::run::Run;
use crate::skip;

/// The user that a registry with a password knows.
pub const USER: &str = "builder";
/// Their password.
pub const PASSWORD: &str = "correct horse";
/// The line of the password file (bcrypt, cost 5).
const HTPASSWD: &str = "builder:$2y$05$pF/TvFC8VGWSOL8hUi7OQOJ6PouYnm7iQQjcJNR3WHgubta4k8TrW\n";

/// A running registry. Ended when dropped.
pub struct Registry {
    process: Child,
    port: u16,
    folder: PathBuf,
    password: bool,
}

impl Registry {
    /// Starts one that keeps its data in `folder`; with a password, if asked for.
    pub fn start(folder: &Path, password: bool) -> Result<Registry> {
        let program = skip::need_program("docker-registry")?;
        std::fs::create_dir_all(folder)?;
        let auth = if password {
            let file = folder.join("htpasswd");
            std::fs::write(&file, HTPASSWD)?;
            format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", file.display())
        } else {
            String::new()
        };
        // Another process may take the port between the look and the start: then try another.
        let mut last = None;
        for _ in 0..5 {
            let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            let config = folder.join("config.yml");
            std::fs::write(
                &config,
                format!(
                    "version: 0.1\n\
                     log: {{level: warn, accesslog: {{disabled: true}}}}\n\
                     storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
                     http: {{addr: \"127.0.0.1:{port}\", secret: tests}}\n\
                     {auth}",
                    folder.join("data").display()
                ),
            )?;
            let log = std::fs::File::create(folder.join("log"))?;
            let process = Command::new(&program)
                .arg("serve")
                .arg(&config)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .context("cannot start docker-registry")?;
            let mut registry = Registry { process, port, folder: folder.to_owned(), password };
            match registry.wait_until_it_listens() {
                Ok(()) => return Ok(registry),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("it was tried"))
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            ensure!(self.process.try_wait()?.is_none(), "docker-registry ended: {}", log());
            ensure!(Instant::now() < deadline, "docker-registry does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Puts an image of an OCI layout into it, by skopeo; `source` is `DIR:TAG`.
    pub fn push(&self, source: &str, name: &str) -> Result<()> {
        self.push_as("oci", source, name)
    }

    /// [`Self::push`], its manifest in a format of skopeo's: `oci`, or `v2s2` for docker's own.
    pub fn push_as(&self, format: &str, source: &str, name: &str) -> Result<()> {
        let mut command = Command::new(skip::need_program("skopeo")?);
        command.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]);
        command.args(["--format", format]);
        // Else it looks where only some users may.
        let nothing = self.folder.join("no-credentials.json");
        std::fs::write(&nothing, "{}")?;
        command.env("REGISTRY_AUTH_FILE", nothing);
        if self.password {
            command.arg(format!("--dest-creds={USER}:{PASSWORD}"));
        }
        command.arg(format!("oci:{source}")).arg(format!("docker://{}/{name}", self.host()));
        Run::of(&mut command)?.success()?;
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
