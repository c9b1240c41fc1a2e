//! The launcher: a helper process that owns the mounts and processes of steps.
//!
//! ```text
//!   main process ── spawn ──► stage 1 ── unshare mounts, PIDs; spawn ──► stage 2 = PID 1
//!        │                                                                  │
//!        └─────────────── SOCK_SEQPACKET: requests, descriptors ────────────┘
//!                                                                           ├─► crun run ─► step
//!                                                                           └─► crun run ─► step
//! ```
//!
//! A process with threads cannot enter namespaces and has no business cleaning up after others, so
//! one that has a single thread does. A launcher with handlers begins with a stage more, which
//! enters a user namespace. The main process makes file system mounts *detached* and hands
//! over their descriptors; host paths never appear in a request.

mod handlers;
mod inner;
mod user;
mod wire;

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::io::{Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use oci_spec::runtime::{LinuxSeccomp, Spec};
use rustix::process::Signal;
use tokio::sync::{oneshot, watch};
use wbuild_graph::{Failure, FailureKind};

use self::wire::{Lack, Outcome, Reply, Request};
use crate::fail::OrFail;
use crate::inroot::check_root;
use crate::mounts::Source;
use crate::runtime::{RuntimeInfo, RuntimeKind};
use crate::spec::{ROOT_TOKEN, bpf, capabilities, seccomp, to_json};
use crate::sys;

/// Argument that tells stage 2 from stage 1.
const STAGE_2: &str = "inner";

/// Annotation by which crun takes a compiled filter (crun(1)). Other runtimes, and a crun that does
/// not know it, use the spec's own section, which stays in place.
const BPF_ANNOTATION: &str = "run.oci.seccomp_bpf_data";

/// How to start a launcher.
#[derive(Clone, Debug)]
pub struct LauncherOptions {
    /// The program whose `main` hands the subcommand to [`launcher_main`]; `/proc/self/exe` for the
    /// running one.
    pub exe: PathBuf,
    /// The hidden subcommand, its first argument.
    pub subcommand: OsString,
    /// What runs containers.
    pub runtime: RuntimeInfo,
    /// How long a process that handles SIGTERM has to end when its step is cancelled.
    pub grace: Duration,
    /// What runs programs of other machines in all steps of this launcher. If there is any, the
    /// launcher is in a user namespace of its own: nothing is registered outside, and its steps need
    /// the user namespace of [`crate::namespace::same_ids`].
    pub handlers: Vec<Handler>,
}

/// A handler of binfmt_misc (the kernel's admin-guide/binfmt-misc).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handler {
    /// Letters, digits, `-` and `_`; the emulator sees it as the name of its program.
    pub name: String,
    /// The program. It is opened when the launcher starts, so no root needs to hold it.
    pub program: PathBuf,
    /// How the files begin that it is for.
    pub magic: Vec<u8>,
    /// Which bits of `magic` count; of equal length.
    pub mask: Vec<u8>,
    /// Of `O`, `C`, `P`; `F` is always set.
    pub flags: String,
}

/// A step to run.
pub struct Step {
    /// A spec as [`crate::spec::base`] or [`crate::clamp::clamp`] makes it: root and mount sources
    /// are tokens.
    pub spec: Spec,
    /// What is mounted as the root.
    pub root: Source,
    /// What the tokens of mount sources (`slot:<n>`, `tool:<name>`) stand for.
    pub slots: BTreeMap<String, Source>,
    /// Where the process writes; see [`crate::output::pipe`]. stdin is empty.
    pub stdout: OwnedFd,
    /// The same for errors.
    pub stderr: OwnedFd,
    /// Dropped once nothing of the step is left, however it ended: leases, guards of mutable
    /// snapshots.
    pub keep: Option<Box<dyn Any + Send>>,
}

/// How a step's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + n if signal n ended the process.
    pub code: i32,
}

/// A running launcher. Ends with everything it has started when dropped.
pub struct Launcher {
    shared: Arc<Shared>,
}

struct Shared {
    socket: OwnedFd,
    base: String,
    runtime: RuntimeKind,
    state: Mutex<State>,
    /// Steps of which something may be left.
    live: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    next: u64,
    pending: HashMap<u64, Pending>,
    /// Why no step can run any more.
    dead: Option<Failure>,
}

struct Pending {
    reply: oneshot::Sender<Outcome>,
    /// Dropped when the step is over.
    keep: Option<Box<dyn Any + Send>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is complete in itself, so a panic elsewhere does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a step off the books: lets go of what it held, then tells who waits for its end, so
    /// that whoever hears of it may use what was held.
    fn over(&self, id: u64, outcome: Option<Outcome>) {
        let pending = self.state().pending.remove(&id);
        if let Some(Pending { reply, keep }) = pending {
            drop(keep);
            self.live.send_modify(|live| *live -= 1);
            if let Some(outcome) = outcome {
                // Nobody may be waiting any more.
                let _ = reply.send(outcome);
            }
        }
    }
}

impl Launcher {
    /// Starts the process and waits until it is ready.
    pub async fn start(options: LauncherOptions) -> Result<Launcher, Failure> {
        let (sender, receiver) = oneshot::channel();
        // One thread starts the process and stays with it: the kernel's "kill the child when the
        // parent dies" means the thread that started it.
        std::thread::Builder::new()
            .name("launcher".to_owned())
            .spawn(move || attend(&options, sender))
            .or_fail("start a thread for the launcher")?;
        match receiver.await {
            Ok(shared) => Ok(Launcher { shared: shared? }),
            Err(_) => Err(Failure::internal("the launcher's thread ended before it began")),
        }
    }

    /// Runs a step to its end. Dropping the future ends the step's processes; see
    /// [`Launcher::drained`] for when they are gone.
    ///
    /// Fails with `Denied` on a root that [`crate::check_root`] refuses, `ExecFailed` if the runtime
    /// could not start the process, `Cancelled`, or `Internal` if the launcher died. An exit code other than 0 is no failure here.
    pub async fn run(&self, step: Step) -> Result<Exit, Failure> {
        self.begin(step)?.wait().await
    }

    /// Starts a step. The handle can end it early and still wait until it is gone.
    pub fn begin(&self, step: Step) -> Result<RunningStep, Failure> {
        let Step { spec, root, slots, stdout, stderr, keep } = step;
        let id = {
            let mut state = self.shared.state();
            state.next += 1;
            state.next
        };
        let dir = wire::step_dir(&self.shared.base, id);
        let mut files: Vec<wire::File> = Vec::new();
        let mut contents: Vec<Arc<[u8]>> = Vec::new();
        let mut mounts: Vec<OwnedFd> = Vec::new();
        let mut paths: HashMap<String, String> = HashMap::new();
        for (token, source) in slots {
            let path = match source {
                Source::Content(content) => {
                    files.push(wire::File {
                        len: content.data.len() as u64,
                        mode: content.mode,
                        uid: content.uid,
                        gid: content.gid,
                    });
                    contents.push(content.data);
                    wire::file_path(&dir, files.len() - 1)
                }
                source => {
                    let suffix = source.suffix();
                    mounts.push(source.detach()?);
                    wire::mount_path(&dir, mounts.len() - 1) + &suffix
                }
            };
            paths.insert(token, path);
        }
        let root = match root {
            Source::Content(_) => {
                return Err(Failure::internal("a step's root must be a directory, not a file"));
            }
            source => source.detach()?,
        };
        // A second time, whatever the caller has looked at: this is the very root that is run.
        check_root(root.as_fd())?;
        let spec = self.finish_spec(&spec, &dir, &paths)?;
        let bytes = serde_json::to_vec(&spec).expect("JSON values can be written");
        let parts = [bytes.as_slice()].into_iter().chain(contents.iter().map(|data| &**data));
        let payload = wire::payload(parts).or_fail("put the step's spec into memory")?;
        let request =
            Request::Run { id, spec_len: bytes.len() as u64, files, mounts: mounts.len() };
        let mut fds: Vec<BorrowedFd<'_>> =
            vec![payload.as_fd(), stdout.as_fd(), stderr.as_fd(), root.as_fd()];
        fds.extend(mounts.iter().map(AsFd::as_fd));

        let (reply, outcome) = oneshot::channel();
        {
            let mut state = self.shared.state();
            if let Some(failure) = &state.dead {
                return Err(failure.clone());
            }
            state.pending.insert(id, Pending { reply, keep });
            self.shared.live.send_modify(|live| *live += 1);
        }
        if let Err(errno) = wire::send(self.shared.socket.as_fd(), &request, &fds) {
            self.shared.over(id, None);
            let failure = Err(errno).or_fail("send the step to the launcher");
            return failure.map_err(|failure| match errno {
                rustix::io::Errno::MSGSIZE => Failure {
                    kind: FailureKind::Limit,
                    ..failure.hint("a step can have about 240 mounts")
                },
                _ => failure,
            });
        }
        Ok(RunningStep { id, shared: Arc::clone(&self.shared), outcome: Some(outcome) })
    }

    /// Waits until nothing is left of any step, finished, failed or dropped.
    pub async fn drained(&self) {
        let mut live = self.shared.live.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = live.wait_for(|live| *live == 0).await;
    }

    /// Puts paths in the place of tokens and adds the compiled system call filter.
    fn finish_spec(
        &self,
        spec: &Spec,
        dir: &str,
        paths: &HashMap<String, String>,
    ) -> Result<serde_json::Value, Failure> {
        use serde_json::Value;
        let mut value = to_json(spec);
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        if text(value.pointer("/root/path")).as_deref() != Some(ROOT_TOKEN) {
            return Err(Failure::internal("the root of a step's spec is no token"));
        }
        value["root"]["path"] = Value::String(wire::root_path(dir));
        for mount in value.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten() {
            let source = text(mount.get("source")).unwrap_or_default();
            let bind = text(mount.get("type")).as_deref() == Some("bind");
            match paths.get(&source) {
                Some(path) => mount["source"] = Value::String(path.clone()),
                None if bind && source != "/sys" => {
                    return Err(Failure::internal(format!(
                        "the mount source {source:?} of a step stands for nothing"
                    )));
                }
                None => {}
            }
        }
        if self.shared.runtime == RuntimeKind::Crun
            && let Some(filter) = compiled_filter(spec)
        {
            let annotations = value
                .as_object_mut()
                .expect("a spec is an object")
                .entry("annotations")
                .or_insert_with(|| Value::Object(serde_json::Map::new()));
            annotations[BPF_ANNOTATION] = Value::String(filter.to_owned());
        }
        Ok(value)
    }
}

/// The filter of the base spec, compiled, if this spec's rules are the base's.
fn compiled_filter(spec: &Spec) -> Option<&'static str> {
    use std::sync::LazyLock;
    static HOST: LazyLock<Option<(LinuxSeccomp, String)>> = LazyLock::new(|| {
        let architecture = wbuild_graph::Platform::host().architecture;
        let rules = seccomp::rules(&capabilities::DEFAULT, &architecture);
        let program = bpf::compile(&rules, &architecture)?;
        let text = base64::engine::general_purpose::STANDARD.encode(bpf::bytes(&program));
        Some((seccomp::section(&rules, &architecture), text))
    });
    let (section, text) = HOST.as_ref()?;
    (spec.linux().as_ref()?.seccomp().as_ref()? == section).then_some(text)
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // The process sees the end of the socket and goes, and everything goes with it; the thread
        // sees that and ends.
        let _ = rustix::net::shutdown(&self.shared.socket, rustix::net::Shutdown::Both);
    }
}

/// A step that has been handed to the launcher.
///
/// Dropping it ends the step's processes without waiting.
pub struct RunningStep {
    id: u64,
    shared: Arc<Shared>,
    outcome: Option<oneshot::Receiver<Outcome>>,
}

impl RunningStep {
    /// Asks for the end of the step's processes: SIGTERM where the first of them handles it, SIGKILL
    /// to all after the grace period. [`RunningStep::wait`] then fails with `Cancelled`.
    pub fn cancel(&self) {
        // If the launcher is gone, so is the step.
        let _ = wire::send(self.shared.socket.as_fd(), &Request::Cancel { id: self.id }, &[]);
    }

    /// Waits until the step has ended and nothing of it is left.
    pub async fn wait(&mut self) -> Result<Exit, Failure> {
        let Some(outcome) = &mut self.outcome else {
            return Err(Failure::internal("a step was waited for twice"));
        };
        let outcome = outcome.await;
        self.outcome = None;
        match outcome {
            Ok(Outcome::Exited(code)) => Ok(Exit { code }),
            Ok(Outcome::Cancelled) => Err(Failure::cancelled()),
            Ok(Outcome::Failed(why)) => {
                let mut failure = Failure::new(
                    FailureKind::ExecFailed,
                    "the step's process could not be started",
                );
                failure.causes.push(why);
                Err(failure)
            }
            Err(_) => Err(self.shared.state().dead.clone().unwrap_or_else(gone)),
        }
    }
}

impl Drop for RunningStep {
    fn drop(&mut self) {
        if self.outcome.is_some() {
            self.cancel();
        }
    }
}

fn gone() -> Failure {
    Failure::internal("the launcher process ended")
}

/// The launcher cannot work; with the remedy.
fn unusable(why: String, lack: Lack) -> Failure {
    let what = match lack {
        Lack::Handlers => "cannot set up emulators for this step",
        Lack::Proc | Lack::Other => "cannot set up the process that runs containers",
    };
    let mut failure = Failure::new(FailureKind::Unavailable, what);
    failure.causes.push(why);
    failure.hint(match lack {
        Lack::Proc => {
            "if wbuild runs in a container, start that with all of /proc visible: \
             --security-opt unmask=ALL (podman), --security-opt systempaths=unconfined (docker), \
             procMount: Unmasked (Kubernetes)"
        }
        Lack::Handlers => {
            "let user namespaces mount binfmt_misc (Linux 6.7 or later), or register the emulators \
             for the whole machine, with the flag F: apt-get install binfmt-support qemu-user-static"
        }
        Lack::Other => "`wbuild doctor` shows what this machine offers",
    })
}

/// Starts the launcher and reads its replies until it is gone.
fn attend(options: &LauncherOptions, ready: oneshot::Sender<Result<Arc<Shared>, Failure>>) {
    let mut process = match Process::start(options) {
        Ok(process) => process,
        Err(failure) => {
            let _ = ready.send(Err(failure));
            return;
        }
    };
    let base = match process.greet(options) {
        Ok(base) => base,
        Err(failure) => {
            let _ = ready.send(Err(process.end(failure)));
            return;
        }
    };
    let socket = match rustix::io::fcntl_dupfd_cloexec(&process.socket, 3) {
        Ok(socket) => socket,
        Err(errno) => {
            let failure = Err::<(), _>(errno).or_fail("keep the launcher's socket");
            let _ = ready.send(Err(process.end(failure.expect_err("it was made of an error"))));
            return;
        }
    };
    let shared = Arc::new(Shared {
        socket,
        base,
        runtime: options.runtime.kind,
        state: Mutex::new(State::default()),
        live: watch::Sender::new(0),
    });
    let weak = Arc::downgrade(&shared);
    if ready.send(Ok(shared)).is_err() {
        // Nobody waits any more, and the only owner of the socket's other users is gone.
        let _ = process.end(gone());
        return;
    }
    while let Ok(Some((Reply::Done { id, outcome }, _))) =
        wire::receive::<Reply>(process.socket.as_fd())
    {
        if let Some(shared) = weak.upgrade() {
            shared.over(id, Some(outcome));
        }
    }
    let failure = process.end(gone());
    if let Some(shared) = weak.upgrade() {
        let mut state = shared.state();
        state.dead = Some(failure);
        let left: Vec<u64> = state.pending.keys().copied().collect();
        drop(state);
        for id in left {
            shared.over(id, None);
        }
    }
}

/// The launcher as a child process.
struct Process {
    child: std::process::Child,
    socket: OwnedFd,
    /// What it complains of, if anything.
    stderr: std::fs::File,
}

impl Process {
    fn start(options: &LauncherOptions) -> Result<Process, Failure> {
        let (socket, theirs) = wire::pair().or_fail("make a socket for the launcher")?;
        let stderr = rustix::fs::memfd_create("launcher-stderr", rustix::fs::MemfdFlags::CLOEXEC)
            .or_fail("make room for the launcher's messages")?;
        let stderr = std::fs::File::from(stderr);
        let errors = stderr.try_clone().or_fail("make room for the launcher's messages")?;
        let child = Command::new(&options.exe)
            .arg(&options.subcommand)
            .args((!options.handlers.is_empty()).then_some(user::OUTSIDE))
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(errors)
            // Keys typed at the terminal are for the main process, which then ends steps in order.
            .process_group(0)
            .spawn()
            .or_fail(format_args!("start the launcher {}", options.exe.display()))?;
        Ok(Process { child, socket, stderr })
    }

    fn greet(&self, options: &LauncherOptions) -> Result<String, Failure> {
        let (handlers, programs) = handlers::open(&options.handlers)?;
        let request = Request::Start {
            kind: options.runtime.kind,
            path: options.runtime.path.clone(),
            grace_ms: options.grace.as_millis().try_into().unwrap_or(u64::MAX),
            handlers,
        };
        let programs: Vec<BorrowedFd<'_>> = programs.iter().map(AsFd::as_fd).collect();
        // Without a word of its own, what it has to do more than others is the likely reason.
        let silent = if options.handlers.is_empty() { Lack::Other } else { Lack::Handlers };
        wire::send(self.socket.as_fd(), &request, &programs)
            .map_err(|errno| unusable(errno.to_string(), silent))?;
        match wire::receive(self.socket.as_fd()) {
            Ok(Some((Reply::Ready { base }, _))) => Ok(base),
            Ok(Some((Reply::Broken { what, lack }, _))) => Err(unusable(what, lack)),
            Ok(_) => Err(unusable("it ended at once".to_owned(), silent)),
            Err(errno) => Err(unusable(errno.to_string(), silent)),
        }
    }

    /// Waits for the end of the process and adds its last words to a failure.
    fn end(&mut self, mut failure: Failure) -> Failure {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if let Ok(status) = self.child.wait()
            && !status.success()
        {
            failure.causes.push(format!("the launcher ended with {status}"));
        }
        let mut words = String::new();
        let read = self
            .stderr
            .rewind()
            .and_then(|()| Read::take(&mut self.stderr, 4096).read_to_string(&mut words));
        if read.is_ok() && !words.trim().is_empty() {
            failure.causes.push(words.trim().to_owned());
        }
        failure
    }
}

/// What the hidden subcommand does; returns the exit code. `args` are the arguments after it.
///
/// Must be called before any thread is started, from a process whose stdin is the launcher's socket.
pub fn launcher_main(subcommand: &OsStr, args: &[OsString]) -> i32 {
    let result = match args.first() {
        None => outer(subcommand),
        Some(stage) if stage == user::OUTSIDE => user::outside(subcommand),
        Some(stage) if stage == user::INSIDE => user::inside(subcommand),
        Some(stage) if stage == STAGE_2 => innermost(),
        Some(_) => Err(std::io::Error::from(std::io::ErrorKind::InvalidInput)),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            // stderr is memory that the main process reads.
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("the launcher failed: {error}\n"),
            );
            1
        }
    }
}

/// Stage 1: leaves the namespaces and starts PID 1 of the new one.
fn outer(subcommand: &OsStr) -> std::io::Result<i32> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    sys::unshare(sys::Leave::MountsAndPids)?;
    crate::namespace::make_private()?;
    let mut child = Command::new("/proc/self/exe")
        .arg(subcommand)
        .arg(STAGE_2)
        .env_clear()
        .stdin(Stdio::inherit())
        .spawn()?;
    // Of the socket only PID 1 keeps an end, so that its death is seen at once.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(child.wait()?.code().unwrap_or(1))
}

/// Stage 2: serves.
fn innermost() -> std::io::Result<i32> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if !rustix::process::getpid().is_init() {
        return Err(std::io::Error::other("this is not the first process of a PID namespace"));
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    inner::serve(socket)?;
    Ok(0)
}
