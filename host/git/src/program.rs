//! Running git: what it gets, what it is kept from, and how it ends.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;
use wbuild_graph::{Failure, FailureKind};
use wbuild_http::{GateLimits, Proxies, Reach, Retries};

/// Most of what a program says to people that is kept, from its end, in bytes.
const MESSAGES: usize = 16 << 10;

/// What a repository may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What is transferred by one command.
    pub gate: GateLimits,
    /// How often a server is asked that cannot answer now.
    pub retries: Retries,
    /// Longest time of one command that transfers something.
    pub transfer: Duration,
    /// Longest time of one command that does not.
    pub local: Duration,
    /// Largest output of one command that is read into memory, in bytes.
    pub output: usize,
    /// Largest file that git may write, in bytes.
    pub file: u64,
    /// Most memory that git may take for itself, in bytes.
    pub memory: u64,
    /// Most entries of a tree.
    pub entries: usize,
    /// Most bytes of a tree's files.
    pub tree: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            gate: GateLimits::default(),
            retries: Retries { attempts: 3, ..Retries::default() },
            transfer: Duration::from_secs(3600),
            local: Duration::from_secs(1800),
            output: 512 << 20,
            file: 64 << 30,
            memory: 8 << 30,
            entries: 4 << 20,
            tree: 64 << 30,
        }
    }
}

/// The program, and what it may reach.
#[derive(Clone, Debug)]
pub struct Git {
    program: PathBuf,
    search: OsString,
    pub(crate) reach: Reach,
    pub(crate) limits: Limits,
    pub(crate) proxies: Proxies,
    /// Its version was looked at.
    usable: Arc<OnceCell<()>>,
}

/// The first version that takes all its configuration from the environment. An older one would
/// ignore the settings below without a word.
const OLDEST: (u32, u32) = (2, 32);

/// Settings of every command, before those of its own. They come by the environment, which git reads
/// after the configuration of a repository.
const SETTINGS: &[(&str, &str)] = &[
    // Nothing is run.
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.askPass", ""),
    ("credential.helper", ""),
    ("core.sshCommand", "false"),
    ("core.gitProxy", ""),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    // Nothing of this machine's users shows in what comes out.
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.autocrlf", "false"),
    ("core.eol", "lf"),
    ("core.logAllRefUpdates", "false"),
    ("init.defaultBranch", "main"),
    ("init.templateDir", ""),
    // Links are made by this crate.
    ("core.symlinks", "false"),
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    // The directories are this crate's, whoever the user is in the present namespace.
    ("safe.directory", "*"),
    ("safe.bareRepository", "explicit"),
    // Objects are checked on arrival.
    ("transfer.fsckObjects", "true"),
    ("fetch.fsckObjects", "true"),
    // Mistakes of old tools, in many repositories, that can do no harm.
    ("fetch.fsck.badDate", "ignore"),
    ("fetch.fsck.badDateOverflow", "ignore"),
    ("fetch.fsck.badEmail", "ignore"),
    ("fetch.fsck.badFilemode", "ignore"),
    ("fetch.fsck.badName", "ignore"),
    ("fetch.fsck.badTimezone", "ignore"),
    ("fetch.fsck.missingEmail", "ignore"),
    ("fetch.fsck.missingNameBeforeEmail", "ignore"),
    ("fetch.fsck.missingSpaceBeforeDate", "ignore"),
    ("fetch.fsck.missingSpaceBeforeEmail", "ignore"),
    ("fetch.fsck.missingTaggerEntry", "ignore"),
    ("fetch.fsck.zeroPaddedDate", "ignore"),
    ("fetch.fsck.zeroPaddedFilemode", "ignore"),
    // One pack a fetch, instead of a file an object.
    ("fetch.unpackLimit", "1"),
    ("fetch.recurseSubmodules", "false"),
    ("fetch.writeCommitGraph", "false"),
    ("submodule.recurse", "false"),
    ("protocol.version", "2"),
    ("transfer.bundleURI", "false"),
    ("http.sslVerify", "true"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "120"),
];

/// One command.
pub(crate) struct Call<'a> {
    /// The repository.
    pub dir: &'a Path,
    /// An empty directory.
    pub home: &'a Path,
    pub args: Vec<OsString>,
    pub env: Vec<(&'static str, OsString)>,
    pub settings: Vec<(String, String)>,
    /// Transports that may be used, as `GIT_ALLOW_PROTOCOL` has them.
    pub protocols: &'a str,
    pub input: Input,
    /// Longest time.
    pub time: Duration,
}

/// What a command reads.
pub(crate) enum Input {
    Nothing,
    Bytes(Vec<u8>),
}

/// How a command ended.
pub(crate) struct Ended {
    pub status: ExitStatus,
    pub output: Vec<u8>,
    /// What it says to people, from its end.
    pub messages: String,
}

impl Git {
    /// Git by the path of its program. `search` are directories with programs: git needs its own, and
    /// ssh.
    pub fn new(program: PathBuf, search: &[PathBuf], reach: Reach) -> Git {
        let search = std::env::join_paths(search).unwrap_or_default();
        Git {
            program,
            search,
            reach,
            limits: Limits::default(),
            proxies: Proxies::default(),
            usable: Arc::default(),
        }
    }

    /// With proxies for HTTP.
    #[must_use]
    pub fn with_proxies(mut self, proxies: Proxies) -> Git {
        self.proxies = proxies;
        self
    }

    /// With other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Git {
        self.limits = limits;
        self
    }

    /// Refuses a git that is too old. `home` is an empty directory.
    pub(crate) async fn check_version(&self, home: &Path) -> Result<(), Failure> {
        let check = || async {
            let ended = self
                .run(Call {
                    dir: home,
                    home,
                    args: vec!["version".into()],
                    env: Vec::new(),
                    settings: Vec::new(),
                    protocols: "none",
                    input: Input::Nothing,
                    time: Duration::from_secs(60),
                })
                .await?;
            let text = String::from_utf8_lossy(&ended.output);
            let version = version(&text).ok_or_else(|| {
                let program = self.program.display();
                Failure::unsupported(format!("{program} does not say which version of git it is"))
            })?;
            if version < OLDEST {
                let ((major, minor), (least, then)) = (version, OLDEST);
                let message = format!("git {major}.{minor} is too old: {least}.{then} is needed");
                return Err(Failure::unsupported(message));
            }
            Ok(())
        };
        self.usable.get_or_try_init(check).await.copied()
    }

    /// Runs a command to its end. Dropping the future ends it with all its children.
    pub(crate) async fn run(&self, call: Call<'_>) -> Result<Ended, Failure> {
        let time = call.time;
        let what = call.args.first().map(|arg| arg.to_string_lossy().into_owned());
        let what = what.unwrap_or_default();
        match tokio::time::timeout(time, self.run_to_end(call)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::new(
                FailureKind::Limit,
                format!("git {what} has not ended after {} seconds", time.as_secs()),
            )),
        }
    }

    async fn run_to_end(&self, call: Call<'_>) -> Result<Ended, Failure> {
        let Call { dir, home, args, env, settings, protocols, input, .. } = call;
        let failed = |error: &io::Error| {
            let message = format!("cannot run {}", self.program.display());
            let kind = match error.kind() {
                io::ErrorKind::NotFound => FailureKind::NotFound,
                _ => FailureKind::Internal,
            };
            Failure::new(kind, message).cause(error)
        };
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .current_dir(home)
            .env_clear()
            .env("PATH", &self.search)
            .env("HOME", home)
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("GIT_DIR", dir)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_LITERAL_PATHSPECS", "1")
            .env("GIT_PROTOCOL_FROM_USER", "0")
            .env("GIT_ALLOW_PROTOCOL", protocols)
            .env("SSH_ASKPASS_REQUIRE", "never")
            .envs(env)
            .process_group(0)
            .kill_on_drop(true)
            .stdin(match &input {
                Input::Nothing => Stdio::null(),
                Input::Bytes(_) => Stdio::piped(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let own = SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let mut count = 0;
        for (key, value) in own.chain(settings) {
            command.env(format!("GIT_CONFIG_KEY_{count}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{count}"), value);
            count += 1;
        }
        command.env("GIT_CONFIG_COUNT", count.to_string());
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let group = Group::of(&child);
        self.limit(&group);
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let (Input::Bytes(bytes), Some(mut stdin)) = (&input, stdin) {
                // Who does not read to the end says why in another way.
                let _ = stdin.write_all(bytes).await;
            }
        };
        let (output, messages, ()) =
            tokio::join!(whole(stdout, self.limits.output, &group), end(stderr), feed);
        let status = child.wait().await.map_err(|error| failed(&error))?;
        group.let_go();
        let output = output.ok_or_else(|| {
            let message = format!("git says more than {} bytes", self.limits.output);
            Failure::new(FailureKind::Limit, message)
        })?;
        Ok(Ended { status, output, messages })
    }

    /// From outside, as nothing of ours can run between fork and exec. What git does before that is
    /// its own start.
    fn limit(&self, group: &Group) {
        let limit = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        let limits = [
            (Resource::Fsize, limit(self.limits.file)),
            (Resource::Data, limit(self.limits.memory)),
            (Resource::Core, none),
        ];
        for (resource, limit) in limits {
            // A program that has ended needs none.
            let _ = rustix::process::prlimit(group.0, resource, limit);
        }
    }
}

/// The version that `git version` says.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("git version ")?.split(['.', ' ']);
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

/// A command and its children; ended when dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Group {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Group(id.and_then(Pid::from_raw))
    }

    fn kill(&self) {
        if let Some(id) = self.0 {
            let _ = rustix::process::kill_process_group(id, Signal::KILL);
        }
    }

    /// It has been waited for: its number may be another's from now on.
    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All of an output; none if it is too long, and then the command is ended.
async fn whole(
    from: Option<impl AsyncRead + Unpin>,
    most: usize,
    group: &Group,
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let Some(from) = from else { return Some(out) };
    let _ = from.take(most as u64 + 1).read_to_end(&mut out).await;
    if out.len() > most {
        group.kill();
        return None;
    }
    Some(out)
}

/// The end of an output.
async fn end(from: Option<impl AsyncRead + Unpin>) -> String {
    let mut out = Vec::new();
    let mut buffer = [0; 4096];
    if let Some(mut from) = from {
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            out.extend_from_slice(&buffer[..read]);
            let surplus = out.len().saturating_sub(MESSAGES);
            out.drain(..surplus);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
