//! Child processes: how they are started, and how they end.
//!
//! One thread starts all of them and stays: the kernel's "kill the child when the parent dies" means
//! the thread that started it. It also waits for those that have ended.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use wbuild_graph::Failure;

use crate::child::{LOCKED, UNLOCKED};
use crate::confine::WithoutLandlock;

/// How long a process that has closed its socket has to be gone.
const GONE: Duration = Duration::from_millis(200);

/// How children are started.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program whose `main` hands the subcommand to [`crate::child_main`]; `/proc/self/exe` for
    /// the running one.
    pub exe: PathBuf,
    /// The hidden subcommand, its first argument.
    pub subcommand: OsString,
    /// What to do on a kernel without Landlock.
    pub without_landlock: WithoutLandlock,
    /// Processor time that compiling may take, for any component; each MiB has as much again.
    pub compile_time: Duration,
}

impl Program {
    /// The running program, which hands `subcommand` to [`crate::child_main`]; 10 s to compile.
    pub fn this(subcommand: impl Into<OsString>) -> Program {
        Program {
            exe: "/proc/self/exe".into(),
            subcommand: subcommand.into(),
            without_landlock: WithoutLandlock::Refuse,
            compile_time: Duration::from_secs(10),
        }
    }
}

enum Order {
    /// Answered with what ends the child if nobody takes it: who asked may give up at any moment, also
    /// when the answer is on its way.
    Start(Box<Command>, oneshot::Sender<std::io::Result<Process>>),
    End(Child, Option<oneshot::Sender<Option<ExitStatus>>>),
}

fn orders() -> Result<mpsc::Sender<Order>, Failure> {
    static ORDERS: OnceLock<Mutex<Option<mpsc::Sender<Order>>>> = OnceLock::new();
    let mut orders =
        ORDERS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(orders) = &*orders {
        return Ok(orders.clone());
    }
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("wbuild-isolate".to_owned())
        .spawn(move || attend(&receiver))
        .map_err(|error| unstarted().cause(&error))?;
    Ok(orders.insert(sender).clone())
}

fn unstarted() -> Failure {
    Failure::internal("a plugin's process cannot be started")
}

fn attend(orders: &mpsc::Receiver<Order>) {
    while let Ok(order) = orders.recv() {
        match order {
            Order::Start(mut command, reply) => {
                let _ = reply.send(command.spawn().map(|child| Process(Some(child))));
            }
            Order::End(mut child, None) => drop(end(&mut child, Duration::ZERO)),
            Order::End(mut child, Some(reply)) => {
                // Nobody may be waiting any more.
                let _ = reply.send(end(&mut child, GONE));
            }
        }
    }
}

/// Waits a while for a process to end of itself, then ends it. Answers how it ended of itself.
fn end(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let begin = Instant::now();
    while begin.elapsed() < patience {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // Whatever comes of it, nothing is left to be done.
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// A running child; ended when dropped.
pub(super) struct Process(Option<Child>);

impl Process {
    /// Starts a child that finds `given` in place of its standard output, and answers the parent's
    /// end of its socket.
    pub(super) async fn start(
        program: &Program,
        mode: &str,
        given: File,
    ) -> Result<(Process, UnixStream), Failure> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| unstarted().cause(&error))?;
        ours.set_nonblocking(true).map_err(|error| unstarted().cause(&error))?;
        let landlock = match program.without_landlock {
            WithoutLandlock::Refuse => LOCKED,
            WithoutLandlock::Accept => UNLOCKED,
        };
        let mut command = Command::new(&program.exe);
        command
            .arg(&program.subcommand)
            .args([mode, &std::process::id().to_string(), landlock])
            .env_clear()
            // The C library reads a file of /proc before it gives back memory of a second arena, and
            // that is a system call that ends a confined process.
            .env("MALLOC_ARENA_MAX", "1")
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(given)
            .stderr(Stdio::null());
        let (reply, started) = oneshot::channel();
        orders()?.send(Order::Start(Box::new(command), reply)).map_err(|_| unstarted())?;
        let process = started.await.map_err(|_| unstarted())?;
        Ok((process.map_err(|error| unstarted().cause(&error))?, ours))
    }

    /// How a child that has closed its socket ended; none = it did not, and was ended.
    pub(super) async fn ended(mut self) -> Option<ExitStatus> {
        let child = self.0.take()?;
        let (reply, status) = oneshot::channel();
        orders().ok()?.send(Order::End(child, Some(reply))).ok()?;
        status.await.ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        // At once, and waited for elsewhere.
        let _ = child.kill();
        if let Ok(orders) = orders() {
            let _ = orders.send(Order::End(child, None));
        }
    }
}
