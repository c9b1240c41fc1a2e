//! Other builders for the same Dockerfiles: buildah, and docker with the BuildKit it brings.
//!
//! A case's file `peer` says that they build it too, and lists what of the result is accepted to
//! differ: `buildah: START` or `docker: START` accepts the lines of [`differences`] that begin with
//! START, and `docker: skip` that the version of the distribution cannot build the case. Lines with
//! `#` give the reasons.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::FlockOperation;
use serde_json::{Value, json};

use crate::case::Case;
use crate::image::{Image, sorted};
use crate::machine;
use crate::run::Run;
use crate::sandbox::Sandbox;
use crate::skip;
use crate::tree::Tree;

/// Buildah with a storage of its own.
pub struct Buildah {
    program: PathBuf,
    storage: PathBuf,
    driver: &'static str,
}

impl Buildah {
    /// One whose storage lies in `storage` and holds the base image as `base`.
    pub fn with_base(storage: &Path) -> Result<Buildah> {
        // Without root it needs more set up than can be asked of a test machine.
        skip::need_root()?;
        let program = skip::need_program("buildah")?;
        let skopeo = skip::need_program("skopeo")?;
        let base = crate::base::layout()?;
        std::fs::create_dir_all(storage)?;
        let mut last = None;
        // Overlay, or plain copies where the file system does not carry one.
        for driver in ["overlay", "vfs"] {
            let buildah = Buildah { program: program.clone(), storage: storage.to_owned(), driver };
            let mut command = Command::new(&skopeo);
            command
                .args(["copy", "--quiet", "--insecure-policy"])
                .arg(format!("oci:{}:latest", base.display()))
                .arg(format!("containers-storage:{}localhost/base:latest", buildah.store()));
            match Run::of(&mut command).and_then(Run::success) {
                Ok(_) => return Ok(buildah),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("it was tried")).context("cannot fill buildah's storage")
    }

    fn store(&self) -> String {
        let at = self.storage.display();
        format!("[{}@{at}/{driver}-root+{at}/{driver}-run]", self.driver, driver = self.driver)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        let folder = |kind: &str| self.storage.join(format!("{}-{kind}", self.driver));
        command
            .arg("--root")
            .arg(folder("root"))
            .arg("--runroot")
            .arg(folder("run"))
            .args(["--storage-driver", self.driver])
            .current_dir(&self.storage);
        command
    }

    /// Builds a case in its sandbox; the image.
    pub fn build(&self, sandbox: &Sandbox, case: &Case) -> Result<Image> {
        let mut command = self.command();
        command
            .current_dir(sandbox.folder())
            .envs(case.env()?)
            .args(["build", "--isolation", "chroot", "--network", "host"])
            .args(["--format", "oci", "--tag", "result"])
            .args(case.args()?)
            .arg("context");
        Run::of(&mut command)?.success().context("buildah cannot build it")?;
        let layout = self.storage.join("result");
        let mut command = self.command();
        command.args(["push", "--quiet", "result"]).arg(format!("oci:{}:latest", layout.display()));
        Run::of(&mut command)?.success().context("buildah cannot export it")?;
        Image::of_layout(&layout)
    }

    /// Gives an image of its storage to a registry without encryption.
    pub fn push(&self, image: &str, name: &str) -> Result<()> {
        let mut command = self.command();
        command.args(["push", "--quiet", "--tls-verify=false", image]);
        Run::of(command.arg(format!("docker://{name}")))?.success()?;
        Ok(())
    }

    /// Takes in an image and runs a command in it: `docker://NAME`, or of an archive,
    /// `oci-archive:PATH` or `docker-archive:PATH`.
    pub fn run_image(&self, archive: &str, command_line: &[&str]) -> Result<Run> {
        let pull = ["pull", "--quiet", "--tls-verify=false", archive];
        let pulled = Run::of(self.command().args(pull))?.success()?;
        let id = pulled.text()?.trim().to_owned();
        let made = Run::of(self.command().args(["from", &id]))?.success()?;
        let container = made.text()?.trim().to_owned();
        Run::of(
            self.command()
                .args(["run", "--isolation", "chroot", &container, "--"])
                .args(command_line),
        )
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        // It may have mounted things below its storage.
        let _ = Run::of(self.command().args(["umount", "--all"]));
    }
}

/// A docker daemon of its own, without network. Ended when dropped.
pub struct Docker {
    client: PathBuf,
    daemon: Child,
    folder: tempfile::TempDir,
    /// Let go of when the daemon has ended.
    handlers: Option<File>,
}

impl Docker {
    /// Starts one.
    pub fn start() -> Result<Docker> {
        Docker::start_by(&mut Command::new(skip::need_program("dockerd")?))
    }

    /// Starts one on a machine with handlers for programs of other processors, as the distribution
    /// registers them. Linux keeps them as long as the daemon lives, for the whole machine; see
    /// [`machine::handlers`].
    pub fn with_emulators() -> Result<Docker> {
        let script = "set -e\n\
            mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc\n\
            cat /usr/lib/binfmt.d/qemu-*.conf | grep ^: | while read -r line; do\n\
                printf '%s' \"$line\" > /proc/sys/fs/binfmt_misc/register\n\
            done\n\
            exec \"$@\"\n";
        let mut command = Command::new(skip::need_program("unshare")?);
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(skip::need_program("dockerd")?);
        let lock = machine::handlers(FlockOperation::LockExclusive)?;
        let mut docker = Docker::start_by(&mut command)?;
        docker.handlers = Some(lock);
        Ok(docker)
    }

    /// Starts one by a command that takes its arguments.
    fn start_by(start: &mut Command) -> Result<Docker> {
        skip::need_root()?;
        let daemon = skip::need_program("dockerd")?;
        // The client of the daemon's own package rather than another version that is found first.
        let client = match daemon.parent().map(|folder| folder.join("../bin/docker")) {
            Some(path) if path.is_file() => path,
            _ => skip::need_program("docker")?,
        };
        // Short, for the path of a socket is limited to 107 bytes.
        let folder = tempfile::Builder::new().prefix("wbuild-docker-").tempdir()?;
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711))?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let daemon = start
            .arg("--data-root")
            .arg(folder.path().join("data"))
            .arg("--exec-root")
            .arg(folder.path().join("exec"))
            .arg("--pidfile")
            .arg(folder.path().join("pid"))
            .args(["--host", &address(folder.path())])
            .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start dockerd")?;
        let mut docker = Docker { client, daemon, folder, handlers: None };
        let deadline = Instant::now() + Duration::from_secs(60);
        while docker.client(&["version"])?.code != 0 {
            let log = std::fs::read_to_string(docker.folder.path().join("log"));
            let log = log.unwrap_or_default();
            ensure!(docker.daemon.try_wait()?.is_none(), "dockerd ended:\n{log}");
            ensure!(Instant::now() < deadline, "dockerd does not answer:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(docker)
    }

    /// Where it listens, as `DOCKER_HOST` has it.
    pub fn address(&self) -> String {
        address(self.folder.path())
    }

    /// Runs a command of the client.
    pub fn client(&self, args: &[&str]) -> Result<Run> {
        Run::of(self.command().args(args))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.client);
        command
            .args(["--host", &self.address()])
            .env("DOCKER_BUILDKIT", "1")
            .env("DOCKER_CONFIG", self.folder.path());
        command
    }

    /// Gives it the base image, as `base`.
    pub fn load_base(&self) -> Result<()> {
        self.load("base", &crate::base::layout()?, "linux/amd64")
    }

    /// Gives it what an OCI layout has for a platform.
    pub fn load(&self, name: &str, layout: &Path, platform: &str) -> Result<()> {
        let archive = self.folder.path().join("loaded.tar");
        // It is not written over.
        let _ = std::fs::remove_file(&archive);
        let mut command = Command::new(skip::need_program("skopeo")?);
        let parts = ["--override-os", "--override-arch", "--override-variant"];
        for (option, part) in parts.into_iter().zip(platform.split('/')) {
            command.args([option, part]);
        }
        command
            .args(["copy", "--quiet", "--insecure-policy"])
            .arg(format!("oci:{}:latest", layout.display()))
            .arg(format!("docker-archive:{}:{name}:latest", archive.display()));
        Run::of(&mut command)?.success()?;
        self.client(&["load", "--input", text(&archive)?])?.success()?;
        Ok(())
    }

    /// Builds a case in its sandbox; the image.
    pub fn build_case(&self, sandbox: &Sandbox, case: &Case) -> Result<Image> {
        self.build(sandbox, case.env()?, &case.args()?)
    }

    /// Builds the context of a sandbox; the image.
    pub fn build<S: AsRef<std::ffi::OsStr>>(
        &self,
        sandbox: &Sandbox,
        env: impl IntoIterator<Item = (String, String)>,
        args: &[S],
    ) -> Result<Image> {
        let mut command = self.command();
        command
            .current_dir(sandbox.folder())
            .envs(env)
            .args(["build", "--quiet", "--network", "host", "--tag", "result"])
            .args(args)
            .arg("context");
        Run::of(&mut command)?.success().context("docker cannot build it")?;
        let archive = self.folder.path().join("result.tar");
        self.client(&["save", "--output", text(&archive)?, "result"])?.success()?;
        Image::of_docker_tar(&archive)
    }
}

fn address(folder: &Path) -> String {
    format!("unix://{}", folder.join("s").display())
}

impl Drop for Docker {
    fn drop(&mut self) {
        // It unmounts what it has mounted when it is asked to end.
        let id = rustix::process::Pid::from_child(&self.daemon);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.daemon.wait();
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path is not UTF-8")
}

/// Fails unless a builder's image is the same but for the differences that `accepted` lists for it;
/// a line there that accepts nothing is wrong as well.
pub fn compare(builder: &str, accepted: &[String], ours: &Image, theirs: &Image) -> Result<()> {
    let starts: Vec<&str> =
        accepted.iter().filter_map(|line| line.strip_prefix(builder)?.strip_prefix(": ")).collect();
    let differences = differences(builder, ours, theirs);
    let unexpected: String = differences
        .iter()
        .filter(|difference| !starts.iter().any(|start| difference.starts_with(start)))
        .filter(|difference| {
            let trace = |path: &&str| difference.starts_with(&format!("{path}: nothing here"));
            builder != "buildah" || !BUILDAHS_TRACES.iter().any(trace)
        })
        .map(|difference| format!("{difference}\n"))
        .collect();
    ensure!(unexpected.is_empty(), "the image of {builder} differs:\n{unexpected}");
    for start in starts {
        if !differences.iter().any(|difference| difference.starts_with(start)) {
            bail!("{start:?} in the file `peer` accepts a difference from {builder} that is none");
        }
    }
    Ok(())
}

/// The keys of an image config that describe how a container is run or an image is built on top.
const COMPARED: [&str; 13] = [
    "Env",
    "Cmd",
    "Entrypoint",
    "WorkingDir",
    "User",
    "Labels",
    "ExposedPorts",
    "Volumes",
    "StopSignal",
    "Healthcheck",
    "OnBuild",
    "Shell",
    "ArgsEscaped",
];

/// Those that buildah leaves out of images in OCI format, which does not define them all.
const NOT_BUILDAHS: [&str; 4] = ["Healthcheck", "OnBuild", "Shell", "ArgsEscaped"];

/// What buildah's containers leave in a layer: places where it had mounted something.
const BUILDAHS_TRACES: [&str; 4] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run"];

/// What history says of each instruction, without what Debian's version writes in another form: the
/// values of `EXPOSE` and `HEALTHCHECK`, those of `ARG`, owners and modes of copied files.
fn steps(image: &Image) -> Vec<String> {
    let history = image.config["history"].as_array().into_iter().flatten();
    let step = |entry: &Value| {
        let text = entry["created_by"].as_str().unwrap_or_default();
        let words = text.split(' ');
        match words.clone().next() {
            Some(keyword @ ("EXPOSE" | "HEALTHCHECK")) => return keyword.to_owned(),
            Some("ARG") => {
                let names = words.map(|word| word.split('=').next().unwrap_or_default());
                return names.collect::<Vec<_>>().join(" ");
            }
            _ => {}
        }
        let told = |word: &&str| !word.starts_with("--chown=") && !word.starts_with("--chmod=");
        words.filter(told).collect::<Vec<_>>().join(" ")
    };
    history.map(step).collect()
}

/// How the images of two builders differ, a line each: `config.<Key>: …`, `history.<number>: …`
/// (of docker, whose history we write too), or a path with what each has there.
fn differences(builder: &str, ours: &Image, theirs: &Image) -> Vec<String> {
    let mut out = Vec::new();
    for key in COMPARED {
        if builder == "buildah" && NOT_BUILDAHS.contains(&key) {
            continue;
        }
        let value = |image: &Image| {
            let mut value = image.config["config"][key].clone();
            // The builder's own mark is no part of the definition.
            if let Some(labels) = value.as_object_mut() {
                labels.shift_remove("io.buildah.version");
            }
            let nothing = [json!(null), json!({}), json!([]), json!("")];
            if key == "WorkingDir" && value == "/" {
                value = Value::Null;
            }
            if nothing.contains(&value) { Value::Null } else { sorted(value) }
        };
        let (a, b) = (value(ours), value(theirs));
        if a != b {
            out.push(format!("config.{key}: {a} here, {b} there"));
        }
    }
    if builder == "docker" {
        let (a, b) = (steps(ours), steps(theirs));
        for number in 0..a.len().max(b.len()) {
            let (a, b) = (a.get(number), b.get(number));
            if a != b {
                let or_nothing =
                    |step: Option<&String>| step.map_or("nothing", String::as_str).to_owned();
                out.push(format!(
                    "history.{number}: {} here, {} there",
                    or_nothing(a),
                    or_nothing(b)
                ));
            }
        }
        if ours.config["author"] != theirs.config["author"] {
            let (a, b) = (&ours.config["author"], &theirs.config["author"]);
            out.push(format!("author: {a} here, {b} there"));
        }
    }
    let mut paths: Vec<&String> = ours.tree.0.keys().chain(theirs.tree.0.keys()).collect();
    paths.sort();
    paths.dedup();
    for path in paths {
        let line = |tree: &Tree| {
            let entry = tree.0.get(path)?;
            let only = Tree([(path.clone(), entry.clone())].into());
            Some(only.listing().trim_end().to_owned())
        };
        let (a, b) = (line(&ours.tree), line(&theirs.tree));
        if a != b {
            let or_nothing = |line: Option<String>| line.unwrap_or_else(|| "nothing".to_owned());
            out.push(format!("{path}: {} here, {} there", or_nothing(a), or_nothing(b)));
        }
    }
    out
}
