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

/// What a registry is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// It wants [`USER`] and [`PASSWORD`].
    pub password: bool,
    /// It speaks TLS, with a certificate of an authority of its own ([`Registry::authority`]).
    pub tls: bool,
}

/// A running registry. Ended when dropped.
pub struct Registry {
    process: Child,
    port: u16,
    folder: PathBuf,
    settings: Settings,
}

/// A request that a registry has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// E.g. `PUT`.
    pub method: String,
    /// With its query.
    pub path: String,
    /// E.g. 201.
    pub status: u16,
}

impl Registry {
    /// Starts one that keeps its data in `folder`; with a password, if asked for.
    pub fn start(folder: &Path, password: bool) -> Result<Registry> {
        Registry::with(folder, Settings { password, ..Settings::default() })
    }

    /// Starts one that keeps its data in `folder`.
    pub fn with(folder: &Path, settings: Settings) -> Result<Registry> {
        skip::need_program("docker-registry")?;
        std::fs::create_dir_all(folder)?;
        if settings.tls {
            make_certificates(folder)?;
        }
        // Another process may take the port between the look and the start: then try another.
        let mut last = None;
        for _ in 0..5 {
            let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            match Registry::at(folder, settings, port) {
                Ok(registry) => return Ok(registry),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("it was tried"))
    }

    fn at(folder: &Path, settings: Settings, port: u16) -> Result<Registry> {
        let process = serve(folder, settings, port)?;
        let mut registry = Registry { process, port, folder: folder.to_owned(), settings };
        registry.wait_until_it_listens()?;
        Ok(registry)
    }

    /// Ends it at once, with all its connections, and starts it again at the same address.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.process = serve(&self.folder, self.settings, self.port)?;
        self.wait_until_it_listens()
    }

    /// Ends it at once, with all its connections.
    pub fn stop(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// The certificate of the authority that its own is of, as PEM.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
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

    /// What it was asked since it was last started, in the order of its answers.
    pub fn requests(&self) -> Result<Vec<Request>> {
        let log = std::fs::read(self.folder.join("log"))?;
        let log = String::from_utf8_lossy(&log);
        // `… "PUT /v2/… HTTP/1.1" 201 …`
        let request = |line: &str| {
            let (_, rest) = line.split_once('"')?;
            let (asked, rest) = rest.split_once('"')?;
            let (method, path) = asked.strip_suffix(" HTTP/1.1")?.split_once(' ')?;
            let status = rest.split_whitespace().next()?.parse().ok()?;
            Some(Request { method: method.to_owned(), path: path.to_owned(), status })
        };
        Ok(log.lines().filter_map(request).collect())
    }

    /// The files in which it keeps its blobs, manifests among them.
    pub fn blobs(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        let mut folders = vec![self.folder.join("data/docker/registry/v2/blobs")];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder);
            for entry in entries.with_context(|| format!("cannot list {}", folder.display()))? {
                let path = entry?.path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        Ok(files)
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Takes an image out of it into a new OCI layout, by skopeo, which checks every blob; all
    /// platforms of an index.
    pub fn pull(&self, name: &str, layout: &Path) -> Result<()> {
        self.pull_as(&["copy", "--quiet", "--all", "--preserve-digests"], name, layout)
    }

    /// [`Self::pull`] of what an index has for linux on one architecture.
    pub fn pull_for(&self, architecture: &str, name: &str, layout: &Path) -> Result<()> {
        let platform = ["--override-os=linux", &format!("--override-arch={architecture}")];
        let args = [&platform[..], &["copy", "--quiet", "--preserve-digests"]].concat();
        self.pull_as(&args, name, layout)
    }

    fn pull_as(&self, args: &[&str], name: &str, layout: &Path) -> Result<()> {
        let mut command = self.skopeo(args)?;
        command.arg("--src-tls-verify=false");
        if self.settings.password {
            command.arg(format!("--src-creds={USER}:{PASSWORD}"));
        }
        command.arg(format!("docker://{}/{name}", self.host()));
        command.arg(format!("oci:{}:pulled", layout.display()));
        Run::of(&mut command)?.success()?;
        Ok(())
    }

    /// The manifest or index of a name, by skopeo.
    pub fn manifest(&self, name: &str) -> Result<serde_json::Value> {
        let mut command = self.skopeo(&["inspect", "--raw", "--tls-verify=false"])?;
        command.arg(format!("docker://{}/{name}", self.host()));
        Run::of(&mut command)?.success()?.json()
    }

    fn skopeo(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(skip::need_program("skopeo")?);
        command.arg("--insecure-policy").args(args);
        // Else it looks where only some users may.
        let nothing = self.folder.join("no-credentials.json");
        std::fs::write(&nothing, "{}")?;
        command.env("REGISTRY_AUTH_FILE", nothing);
        Ok(command)
    }

    /// Puts an image of an OCI layout into it, by skopeo; `source` is `DIR:TAG`.
    pub fn push(&self, source: &str, name: &str) -> Result<()> {
        self.push_as("oci", source, name)
    }

    /// [`Self::push`], its manifest in a format of skopeo's: `oci`, or `v2s2` for docker's own.
    pub fn push_as(&self, format: &str, source: &str, name: &str) -> Result<()> {
        let mut command = self.skopeo(&["copy", "--quiet", "--dest-tls-verify=false"])?;
        command.args(["--format", format]);
        if self.settings.password {
            command.arg(format!("--dest-creds={USER}:{PASSWORD}"));
        }
        command.arg(format!("oci:{source}")).arg(format!("docker://{}/{name}", self.host()));
        Run::of(&mut command)?.success()?;
        Ok(())
    }
}

fn serve(folder: &Path, settings: Settings, port: u16) -> Result<Child> {
    let program = skip::need_program("docker-registry")?;
    let at = |name: &str| folder.join(name).display().to_string();
    let mut auth = String::new();
    if settings.password {
        std::fs::write(folder.join("htpasswd"), HTPASSWD)?;
        auth = format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", at("htpasswd"));
    }
    let mut tls = String::new();
    if settings.tls {
        tls = format!(", tls: {{certificate: {}, key: {}}}", at("server.pem"), at("server.key"));
    }
    let config = folder.join("config.yml");
    std::fs::write(
        &config,
        format!(
            "version: 0.1\n\
             log: {{level: error, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\", secret: tests{tls}}}\n\
             {auth}",
            at("data")
        ),
    )?;
    let log = std::fs::File::create(folder.join("log"))?;
    Command::new(program)
        .arg("serve")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start docker-registry")
}

/// `ca.pem`, and `server.pem` and `server.key` for 127.0.0.1 that it vouches for.
fn make_certificates(folder: &Path) -> Result<()> {
    let openssl = skip::need_program("openssl")?;
    let run = |args: &[&str]| -> Result<()> {
        Run::of(Command::new(&openssl).args(args).current_dir(folder))?.success()?;
        Ok(())
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"];
    let ca = ["-subj", "/CN=tests", "-keyout", "ca.key", "-out", "ca.pem"];
    run(&[&["req", "-x509"][..], &key, &ca].concat())?;
    let server = ["-subj", "/CN=registry", "-keyout", "server.key", "-out", "server.pem"];
    let by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"];
    let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
    run(&[&["req", "-x509"][..], &key, &server, &by, &leaf].concat())
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
