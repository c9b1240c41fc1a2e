//! The launcher process: PID 1 of a PID namespace of its own, in a mount namespace of its own.
//!
//! One thread, one loop. It makes a step's mounts, starts the runtime, waits, cleans up, replies.
//!
//! Invariants:
//!
//! - It ends when the main process does (the socket ends; `SIGKILL` on the death of the process
//!   before it), and with it, as PID 1, every process of every step; with the last of them the mount
//!   namespace and every mount in it. So nothing is left behind whoever is killed when.
//! - A reply `Done` means: no process of the step lives, nothing of it is mounted here.
//! - Unknown children are debris of a killed runtime and are killed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, UnmountFlags};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use super::handlers;
use super::wire::{self, File, Lack, Outcome, Reply, Request};
use crate::runtime::RuntimeKind;

/// Pause between looks at what has no descriptor to wait on.
const TICK: Duration = Duration::from_millis(5);

/// How long a runtime may take to start a process that is to be ended at once.
const STARTING: Duration = Duration::from_secs(1);

/// How long a killed process may take to vanish before the runtime is killed, too.
const VANISHING: Duration = Duration::from_secs(2);

/// Zombies of no step are reaped at least this often.
const REAP: Duration = Duration::from_secs(1);

/// Between looks at whether an emulated process is dying.
const DYING: Duration = Duration::from_millis(100);

/// Most of a runtime's log that is read.
const LOG_LIMIT: u64 = 1 << 20;

/// Most of a runtime's error text that is passed on.
const ERROR_LIMIT: usize = 8 << 10;

/// Serves requests until the main process is gone.
pub(super) fn serve(socket: OwnedFd) -> io::Result<()> {
    let Some((Request::Start { kind, path, grace_ms, handlers }, programs)) =
        wire::receive(socket.as_fd())?
    else {
        return Ok(());
    };
    let lacks = |lack| move |why| (why, lack);
    let ready = mount_proc().map_err(lacks(Lack::Proc)).and_then(|()| {
        let runtime = set_up(kind, &path).map_err(lacks(Lack::Other))?;
        let registered = handlers::register(&handlers, &programs, &runtime.base);
        registered.map_err(lacks(Lack::Handlers))?;
        Ok(runtime)
    });
    let runtime = match ready {
        Ok(runtime) => runtime,
        Err(((what, error), lack)) => {
            let what = format!("cannot {what}: {error}");
            return Ok(wire::send(socket.as_fd(), &Reply::Broken { what, lack }, &[])?);
        }
    };
    let ready = Reply::Ready { base: runtime.base.clone() };
    wire::send(socket.as_fd(), &ready, &[])?;
    let grace = Duration::from_millis(grace_ms);
    let emulators = programs.iter().filter_map(|program| {
        let stat = rustix::fs::fstat(program).ok()?;
        Some((stat.st_dev, stat.st_ino))
    });
    let emulators = emulators.collect();
    Server { socket, runtime, grace, emulators, steps: BTreeMap::new() }.run()
}

struct Runtime {
    kind: RuntimeKind,
    path: PathBuf,
    base: String,
}

/// What was attempted, and why it failed.
pub(super) type Step<T> = Result<T, (String, io::Error)>;

pub(super) fn attempt<T, E: Into<io::Error>>(
    result: Result<T, E>,
    what: impl Into<String>,
) -> Step<T> {
    result.map_err(|error| (what.into(), error.into()))
}

/// What is mounted for its content alone.
pub(super) const PLAIN: MountFlags =
    MountFlags::NOSUID.union(MountFlags::NOEXEC).union(MountFlags::NODEV);

/// Shows the processes of the PID namespace. In a user namespace Linux refuses that where the `/proc`
/// that is there has parts hidden, as that of containers has.
fn mount_proc() -> Step<()> {
    attempt(mount("proc", "/proc", "proc", PLAIN, ""), "mount /proc of the new PID namespace")
}

/// Mounts what the runtime needs. Everything is in this process's own mount namespace.
fn set_up(kind: RuntimeKind, path: &Path) -> Step<Runtime> {
    if fs::metadata("/sys/fs/cgroup").is_ok() {
        mount_cgroups(kind, PLAIN);
    }
    let path = attempt(fs::canonicalize(path), format!("find the runtime {}", path.display()))?;
    // Any directory will do that does not hide the runtime: what is mounted over it is hidden from
    // this process and the runtime only.
    let over = ["/run", "/tmp", "/var/tmp", "/mnt"]
        .into_iter()
        .find(|dir| Path::new(dir).is_dir() && !path.starts_with(dir));
    let Some(over) = over else {
        return Err((
            "find a directory to work in".to_owned(),
            io::Error::from(io::ErrorKind::NotFound),
        ));
    };
    // Secrets lie here: memory only, and not swapped out where the kernel can promise that (6.4).
    // No further flags: only this process writes here, and in a user namespace a step's mount of a
    // file would be bound to them.
    let none = MountFlags::empty();
    let mounted = mount("tmpfs", over, "tmpfs", none, "mode=700,noswap")
        .or_else(|_| mount("tmpfs", over, "tmpfs", none, "mode=700"));
    attempt(mounted, format!("mount memory at {over}"))?;
    // A runtime on a read-only mount need not protect itself from being overwritten through
    // /proc/self/exe by starting from a copy, which costs crun a quarter of its time.
    let sealed = format!("{over}/runtime");
    let bound = fs::write(&sealed, "").and_then(|()| {
        rustix::mount::mount_bind(&path, &sealed)?;
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV;
        Ok(rustix::mount::mount_remount(&sealed, flags, "")?)
    });
    let path = if bound.is_ok() { PathBuf::from(sealed) } else { path };
    Ok(Runtime { kind, path, base: over.to_owned() })
}

/// Gives runtimes a view of control groups that they can live with. Steps have none of their own, so
/// a failure here is the runtime's to report.
///
/// crun refuses machines with cgroup v1 and v2 mixed, runc makes groups that outlive it. A cgroup2 of
/// our own suits both: read-only for runc, which then makes none.
fn mount_cgroups(kind: RuntimeKind, flags: MountFlags) {
    let place = "/sys/fs/cgroup";
    let mounted = mount("cgroup2", place, "cgroup2", flags, "");
    let _ = match (kind, mounted) {
        (RuntimeKind::Crun, Ok(())) => Ok(()),
        (RuntimeKind::Runc, Ok(())) => {
            let flags = flags | MountFlags::RDONLY | MountFlags::BIND;
            rustix::mount::mount_remount(place, flags, "")
        }
        // Not in a user namespace. crun is content with an empty directory; runc wants to see the
        // machine's groups, and then does without.
        (RuntimeKind::Crun, Err(_)) => mount("tmpfs", place, "tmpfs", flags, "mode=755"),
        (RuntimeKind::Runc, Err(_)) => Ok(()),
    };
}

pub(super) fn mount(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    data: &str,
) -> Result<(), Errno> {
    let data = std::ffi::CString::new(data).expect("mount options hold no NUL");
    rustix::mount::mount(source, target, kind, flags, Some(data.as_c_str()))
}

/// A step whose runtime runs.
struct Running {
    runtime: Pid,
    pidfd: OwnedFd,
    dir: String,
    mounts: usize,
    ending: Option<Ending>,
    /// The signal that its first process has died of, though the kernel did not let it.
    died: Option<i32>,
}

/// How far the ending of a cancelled step has got.
enum Ending {
    /// Nothing was done yet. `early`: the runtime had not said by then which process it started.
    Starting { since: Instant, early: bool },
    /// The process was asked to end.
    Asked { until: Instant },
    /// The process was killed.
    Killed { since: Instant },
    /// The runtime was killed.
    Abandoned,
}

struct Server {
    socket: OwnedFd,
    runtime: Runtime,
    grace: Duration,
    /// Programs that steps may be emulated by: device and inode.
    emulators: Vec<(u64, u64)>,
    steps: BTreeMap<u64, Running>,
}

impl Server {
    fn run(mut self) -> io::Result<()> {
        loop {
            let readable = self.wait()?;
            if readable {
                match wire::receive(self.socket.as_fd())? {
                    None => return Ok(()),
                    Some((Request::Run { id, spec_len, files, mounts }, fds)) => {
                        self.start(id, spec_len, &files, mounts, fds)?;
                    }
                    Some((Request::Cancel { id }, _)) => {
                        if let Some(step) = self.steps.get_mut(&id) {
                            let early = init(step).is_none();
                            let since = Instant::now();
                            step.ending.get_or_insert(Ending::Starting { since, early });
                        }
                    }
                    Some((Request::Start { .. }, _)) => {
                        return Err(io::Error::from(io::ErrorKind::InvalidData));
                    }
                }
            }
            self.reap()?;
            for step in self.steps.values_mut() {
                advance(step, self.grace);
                if step.ending.is_none() && step.died.is_none() {
                    step.died = let_die(step, &self.emulators);
                }
            }
        }
    }

    /// Waits for a request, the end of a runtime, or the time to look after endings. Returns whether
    /// there is a request.
    fn wait(&self) -> io::Result<bool> {
        let ending = self.steps.values().any(|step| step.ending.is_some());
        let timeout = match (self.steps.is_empty(), ending) {
            (_, true) => Some(TICK),
            (false, false) if !self.emulators.is_empty() => Some(DYING),
            (false, false) => Some(REAP),
            (true, false) => None,
        };
        let timeout = timeout.map(|timeout| rustix::event::Timespec {
            tv_sec: timeout.as_secs().try_into().expect("a second at most"),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
        fds.extend(self.steps.values().map(|step| PollFd::new(&step.pidfd, PollFlags::IN)));
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) => Ok(!fds[0].revents().is_empty()),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn start(
        &mut self,
        id: u64,
        spec_len: u64,
        files: &[File],
        mounts: usize,
        fds: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let dir = wire::step_dir(&self.runtime.base, id);
        let mut mounted = 0;
        let started = self.prepare(&dir, spec_len, files, mounts, fds, &mut mounted).and_then(
            |(stdout, stderr)| {
                let child = self.spawn(id, &dir, stdout, stderr);
                let child = attempt(child, format!("start {}", self.runtime.path.display()))?;
                let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
                let pid = pid.expect("a process id is positive");
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty());
                Ok((pid, attempt(pidfd, "watch the runtime")?))
            },
        );
        match started {
            Ok((runtime, pidfd)) => {
                let (ending, died) = (None, None);
                self.steps.insert(id, Running { runtime, pidfd, dir, mounts, ending, died });
                Ok(())
            }
            Err((what, error)) => {
                clean(&dir, mounted);
                let outcome = Outcome::Failed(format!("cannot {what}: {error}"));
                Ok(wire::send(self.socket.as_fd(), &Reply::Done { id, outcome }, &[])?)
            }
        }
    }

    /// Lays out the bundle: config, files, mounts. Returns the step's stdout and stderr.
    fn prepare(
        &self,
        dir: &str,
        spec_len: u64,
        files: &[File],
        mounts: usize,
        fds: Vec<OwnedFd>,
        mounted: &mut usize,
    ) -> Step<(OwnedFd, OwnedFd)> {
        let mut fds = fds.into_iter();
        let mut next = || {
            fds.next().ok_or_else(|| {
                ("read the request".to_owned(), io::Error::from(io::ErrorKind::UnexpectedEof))
            })
        };
        let mut payload = fs::File::from(next()?);
        let (stdout, stderr, root) = (next()?, next()?, next()?);
        attempt(fs::create_dir(dir), format!("make {dir}"))?;
        let mut take = |path: &str, len: u64, mode: u32| -> io::Result<fs::File> {
            let mut file =
                fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            let copied = io::copy(&mut Read::take(&mut payload, len), &mut file)?;
            file.flush()?;
            if copied != len {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            Ok(file)
        };
        let config = format!("{dir}/config.json");
        attempt(take(&config, spec_len, 0o600), format!("write {config}"))?;
        for (n, file) in files.iter().enumerate() {
            let path = wire::file_path(dir, n);
            let made = take(&path, file.len, file.mode & 0o7777).and_then(|made| {
                std::os::unix::fs::fchown(&made, Some(file.uid), Some(file.gid))?;
                // A change of owner clears setuid bits.
                made.set_permissions(fs::Permissions::from_mode(file.mode & 0o7777))
            });
            attempt(made, format!("write file {n} of the step"))?;
        }
        let rootfs = wire::root_path(dir);
        attempt(fs::create_dir(&rootfs), format!("make {rootfs}"))?;
        attempt(attach(&root, &rootfs), "mount the root of the step")?;
        for n in 0..mounts {
            let source = next()?;
            let path = wire::mount_path(dir, n);
            let placed = is_dir(&source).and_then(|is_dir| {
                if is_dir { fs::create_dir(&path) } else { fs::write(&path, "") }
            });
            attempt(placed, format!("make {path}"))?;
            attempt(attach(&source, &path), format!("mount source {n} of the step"))?;
            *mounted = n + 1;
        }
        Ok((stdout, stderr))
    }

    fn spawn(&self, id: u64, dir: &str, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<u32> {
        let mut command = Command::new(&self.runtime.path);
        command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        command.arg(format!("--root={}/state", self.runtime.base));
        command.arg(format!("--log={dir}/log")).arg("--log-format=json");
        command.arg(match self.runtime.kind {
            // Steps have no cgroup: their PID namespace is what ends them as a whole.
            RuntimeKind::Crun => "--cgroup-manager=disabled",
            // Lets runc go on where it cannot make cgroups.
            RuntimeKind::Runc => "--rootless=true",
        });
        command.arg("run").arg(format!("--bundle={dir}")).arg(format!("--pid-file={dir}/pid"));
        command.arg(format!("step{id}"));
        // Not waited for through this handle: see `reap`.
        Ok(command.spawn()?.id())
    }

    /// Collects every child that has ended, and finishes the steps whose runtime is among them.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let found = self.steps.iter().find(|(_, step)| step.runtime == pid);
                    let Some(id) = found.map(|(id, _)| *id) else { continue };
                    let step = self.steps.remove(&id).expect("it was just found");
                    self.finish(id, &step, status.exit_status())?;
                }
                Ok(None) | Err(Errno::CHILD) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn finish(&self, id: u64, step: &Running, code: Option<i32>) -> io::Result<()> {
        let started = init(step).is_some();
        if code.is_none() {
            // The runtime was killed: the processes it started are orphans of ours now.
            self.sweep();
        }
        let complaint = complaint(&step.dir);
        // crun names the process it has started before it knows whether the kernel takes the program
        // (a script without its interpreter, another machine's program); what it then logs tells. runc
        // says that on the step's stderr, and logs trouble after the end, too.
        let ran = started && (complaint.is_none() || self.runtime.kind == RuntimeKind::Runc);
        let outcome = match code {
            _ if step.ending.is_some() => Outcome::Cancelled,
            Some(_) if let Some(signal) = step.died => Outcome::Exited(128 + signal),
            Some(code) if ran || code == 0 => Outcome::Exited(code),
            code => Outcome::Failed(complaint.unwrap_or_else(|| match code {
                Some(code) => format!("the runtime ended with code {code} and said nothing"),
                None => "the runtime was killed".to_owned(),
            })),
        };
        clean(&step.dir, step.mounts);
        Ok(wire::send(self.socket.as_fd(), &Reply::Done { id, outcome }, &[])?)
    }

    /// Kills and collects all children that are no runtime of a step.
    fn sweep(&self) {
        let known: Vec<Pid> = self.steps.values().map(|step| step.runtime).collect();
        let deadline = Instant::now() + VANISHING;
        while Instant::now() < deadline {
            let orphans: Vec<Pid> =
                children().into_iter().filter(|pid| !known.contains(pid)).collect();
            if orphans.is_empty() {
                return;
            }
            for pid in orphans {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Takes the next step in ending a cancelled step, if it is time.
fn advance(step: &mut Running, grace: Duration) {
    let now = Instant::now();
    let next = match step.ending {
        None | Some(Ending::Abandoned) => return,
        Some(Ending::Starting { since, early }) => match init(step).and_then(|pid| open(pid, step))
        {
            // One that was not there to be asked is not worth waiting for; a runtime's own code,
            // which handles signals, may still be running in it.
            Some(_) if early || grace.is_zero() => Some(Signal::KILL),
            // A process that is PID 1 and has no handler does not even get the signal.
            Some((_, true)) => Some(Signal::TERM),
            Some((_, false)) => Some(Signal::KILL),
            None if now.duration_since(since) > STARTING => None,
            None => return,
        },
        Some(Ending::Asked { until }) if now >= until => Some(Signal::KILL),
        Some(Ending::Asked { .. }) => return,
        Some(Ending::Killed { since }) if now.duration_since(since) > VANISHING => None,
        Some(Ending::Killed { .. }) => return,
    };
    step.ending = Some(match next {
        Some(signal) => {
            if let Some((process, _)) = init(step).and_then(|pid| open(pid, step)) {
                let _ = rustix::process::pidfd_send_signal(&process, signal);
            }
            if signal == Signal::TERM {
                Ending::Asked { until: now + grace }
            } else {
                Ending::Killed { since: now }
            }
        }
        None => {
            let _ = rustix::process::pidfd_send_signal(&step.pidfd, Signal::KILL);
            Ending::Abandoned
        }
    });
}

/// Kills a step's first process if it is an emulator that is dying; answers of which signal.
///
/// QEMU ends a program that was killed by a signal by the same signal: it takes the default action,
/// blocks everything else and waits for it (`dump_core_and_abort` in its linux-user/signal.c). But
/// such a signal does nothing to PID 1, and it would wait for ever.
fn let_die(step: &Running, emulators: &[(u64, u64)]) -> Option<i32> {
    if emulators.is_empty() {
        return None;
    }
    let pid = init(step)?;
    // A program of this machine may wait like that for what it likes.
    let program = fs::metadata(format!("/proc/{}/exe", pid.as_raw_pid())).ok()?;
    if !emulators.contains(&(program.dev(), program.ino())) {
        return None;
    }
    let tasks = fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())).ok()?;
    let waits_for = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        awaited_death(&status)
    };
    let signal = tasks.filter_map(|task| waits_for(task.ok()?)).next()?;
    let (process, _) = open(pid, step)?;
    rustix::process::pidfd_send_signal(&process, Signal::KILL).ok()?;
    Some(signal)
}

/// The one signal that a sleeping thread lets through, if its action is the default one. `status` is
/// that of proc_pid_status(5).
fn awaited_death(status: &str) -> Option<i32> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches(':').trim())
    };
    let set = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
    // Those that cannot be blocked, and two that the C library keeps for itself.
    let never = [9, 19, 32, 33].iter().fold(0, |set, signal| set | 1u64 << (signal - 1));
    let open = !(set("SigBlk")? | never);
    let default = open & !(set("SigCgt")? | set("SigIgn")?);
    // By default these do nothing, or stop a process (signal(7)): nobody dies of them.
    let harmless =
        [17, 18, 20, 21, 22, 23, 28].iter().fold(0, |set, signal| set | 1u64 << (signal - 1));
    let sleeps = field("State")?.starts_with('S');
    (sleeps && open & harmless == 0 && open.count_ones() == 1 && default == open)
        .then(|| i32::try_from(open.trailing_zeros()).expect("below 64") + 1)
}

/// The process a runtime has started, once it says so.
fn init(step: &Running) -> Option<Pid> {
    let text = fs::read_to_string(format!("{}/pid", step.dir)).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

/// Opens a step's first process, if that number still is the runtime's child; and whether it
/// handles SIGTERM.
fn open(pid: Pid, step: &Running) -> Option<(OwnedFd, bool)> {
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches(':').trim())
    };
    let parent: i32 = field("PPid")?.parse().ok()?;
    if parent != step.runtime.as_raw_pid() && parent != 1 {
        return None;
    }
    let caught = u64::from_str_radix(field("SigCgt")?, 16).ok()?;
    let term = 1 << (Signal::TERM.as_raw() - 1);
    Some((process, caught & term != 0))
}

/// Processes whose parent is this one.
fn children() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name, which may hold anything, ends with the last parenthesis (proc_pid_stat(5)).
            let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?;
            (parent == "1").then(|| Pid::from_raw(pid))?
        })
        .collect()
}

/// The errors that a runtime has logged.
fn complaint(dir: &str) -> Option<String> {
    let mut log = Vec::new();
    let file = fs::File::open(format!("{dir}/log")).ok()?;
    Read::read_to_end(&mut Read::take(file, LOG_LIMIT), &mut log).ok()?;
    let mut errors = Vec::new();
    for line in log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let entry: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
        let field = |name: &str| entry.get(name).and_then(serde_json::Value::as_str);
        if matches!(field("level"), Some("error" | "fatal"))
            && let Some(message) = field("msg")
        {
            errors.push(message.to_owned());
        }
    }
    let mut text = errors.join("; ");
    if text.len() > ERROR_LIMIT {
        let end = (0..=ERROR_LIMIT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    (!text.is_empty()).then_some(text)
}

fn is_dir(fd: &OwnedFd) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory)
}

/// Mounts a detached mount at a path.
fn attach(mount: &OwnedFd, path: &str) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", rustix::fs::CWD, path, flags)
}

/// Unmounts and removes all of a step.
fn clean(dir: &str, mounts: usize) {
    let unmount = |path: &str| {
        // A plain unmount first: it is over when it returns. Another step's runtime may hold a copy
        // of the mount for the moment of its start; detaching is then what is left.
        if rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) == Err(Errno::BUSY) {
            let _ = rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
        }
    };
    for n in (0..mounts).rev() {
        unmount(&wire::mount_path(dir, n));
    }
    unmount(&wire::root_path(dir));
    // By name, never recursively: were something still mounted, its content would be at stake.
    for n in 0..mounts {
        let path = wire::mount_path(dir, n);
        let _ = fs::remove_dir(&path).or_else(|_| fs::remove_file(&path));
    }
    let _ = fs::remove_dir(wire::root_path(dir));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let _ = fs::remove_file(entry.path());
    }
    let _ = fs::remove_dir(dir);
}

#[cfg(test)]
mod tests {
    use super::awaited_death;

    #[test]
    fn who_waits_for_one_signal_only_is_dying() {
        let status = |state: &str, blocked: u64, caught: u64| {
            format!(
                "Name:\tx\nState:\t{state}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{caught:016x}\n",
                0
            )
        };
        let kept: u64 = [9, 19, 32, 33].iter().fold(0, |set, signal| set | 1 << (signal - 1));
        let (segv, term, child) = (1u64 << 10, 1u64 << 14, 1u64 << 16);
        for (state, blocked, caught, dying) in [
            ("S (sleeping)", !(kept | segv), 0, Some(11)),
            ("S (sleeping)", !(kept | term), segv, Some(15)),
            // Its child ends, which kills nobody.
            ("S (sleeping)", !(kept | child), 0, None),
            // It handles the signal, waits for another one as well, for none, or runs.
            ("S (sleeping)", !(kept | segv), segv, None),
            ("S (sleeping)", !(kept | segv | term), 0, None),
            ("S (sleeping)", !kept, 0, None),
            ("R (running)", !(kept | segv), 0, None),
            ("S (sleeping)", 0, 0, None),
        ] {
            assert_eq!(
                awaited_death(&status(state, blocked, caught)),
                dying,
                "{state} {blocked:x}"
            );
        }
        assert_eq!(awaited_death("Name:\tx\n"), None);
    }
}
