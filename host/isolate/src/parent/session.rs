//! One child at work: what it says is read, bounded, and answered.

use std::future::Future;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use wbuild_graph::{Failure, FailureKind};
use wbuild_plugin::limits::{LimitReached, LogVerdict, Meter};
use wbuild_plugin::{Limits, Plugin, PluginKind, bounds};

use super::process::{Process, Program};
use crate::child::{PANICKED, RUN};
use crate::protocol::{Call, Done, FromChild, Start, Task};
use crate::wire::{self, HEAD, Malformed};

/// Most calls of one child.
const CALLS: u64 = 5_000_000;
/// Most bytes that one child may say.
const BYTES: u64 = 4 << 30;
/// Memory that a frame may take beside what a child may have this process hold, in bytes.
const BESIDES: usize = 32 << 20;
/// How much more a frame weighs than the guest is charged for what it says, if that is small things.
const LIGHTEST: usize = 8;
/// Processor time that waking up for a call takes, on both sides of where it can be measured.
const WAKING: Duration = Duration::from_micros(15);
/// Time that a frontend may think, on the wall: its processor time is limited by the kernel, and a
/// busy machine gives it less than it wants.
const THINKING: Duration = Duration::from_secs(120);

/// Why a child is ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It ran into a bound, as its guest in this process would have.
    Limit(LimitReached),
    /// It said what no guest can say.
    Claim(String),
    /// A capability that cannot answer a failure has one.
    Failure(Failure),
}

impl From<LimitReached> for Ended {
    fn from(limit: LimitReached) -> Self {
        Ended::Limit(limit)
    }
}

impl From<Malformed> for Ended {
    fn from(malformed: Malformed) -> Self {
        Ended::Claim(malformed.to_string())
    }
}

/// The answer to a call, as a frame.
pub(super) type Answer = Result<Vec<u8>, Ended>;

/// Makes an answer.
pub(super) fn answer<T: Serialize + ?Sized>(value: &T) -> Answer {
    Ok(wire::encode(value))
}

/// That a child says what no guest can.
pub(super) fn claim<T>(what: impl Into<String>) -> Result<T, Ended> {
    Err(Ended::Claim(what.into()))
}

/// Who answers the calls of a child.
pub(super) trait Answers {
    /// Answers one. The session has counted it; what it holds is charged here.
    async fn answer(&mut self, call: Call, meter: &mut Meter) -> Answer;
    /// Whether a call waits for a transfer, whose limits are others' than the guest's.
    fn transfers(&self, _call: &Call) -> bool {
        false
    }
    /// Where lines for the user go.
    fn log(&self) -> &dyn wbuild_api::extension::LogCap;
}

/// A child at work.
pub(super) struct Session {
    process: Process,
    socket: UnixStream,
    kind: PluginKind,
    name: String,
    limits: Limits,
    meter: Meter,
    calls: u64,
    bytes: u64,
}

impl Session {
    /// Starts a child with its task.
    pub(super) async fn start(
        program: &Program,
        plugin: &Plugin,
        start: &Start,
    ) -> Result<Session, Failure> {
        let kind = start.known.kind();
        let code = super::code_of(plugin).await?;
        let (process, socket) = Process::start(program, RUN, code).await?;
        let socket = UnixStream::from_std(socket)
            .map_err(|error| Failure::internal("the socket of a plugin's process").cause(&error))?;
        let limits = plugin.limits(kind);
        let mut session = Session {
            process,
            socket,
            kind,
            name: plugin.name().to_owned(),
            limits,
            meter: Meter::new(limits),
            calls: 0,
            bytes: 0,
        };
        if session.say(&wire::encode(start)).await.is_err() {
            return Err(session.died().await);
        }
        Ok(session)
    }

    /// Gives it the next task.
    pub(super) async fn give(mut self, task: Task) -> Result<Session, Failure> {
        match self.say(&wire::encode(&task)).await {
            Ok(()) => Ok(self),
            Err(_) => Err(self.died().await),
        }
    }

    async fn say(&mut self, frame: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(frame).await
    }

    /// Answers what it asks until its task is done. The child is left only if it can go on.
    pub(super) async fn finish(
        mut self,
        answers: &mut impl Answers,
    ) -> Result<(Session, Result<Done, Failure>), Failure> {
        let patience = self.limits.wall.map_or(THINKING + self.limits.cpu, |wall| wall * 2);
        let mut thought = Duration::ZERO;
        // Of this process, for the child. In this process a guest pays for it as for its own.
        let mut work = Duration::ZERO;
        loop {
            let begin = Instant::now();
            let left = patience.saturating_sub(thought);
            let said = match tokio::time::timeout(left, counted(&mut work, self.hear())).await {
                Ok(Ok(Some(said))) => said,
                Ok(Ok(None)) => return Err(self.died().await),
                Ok(Err(ended)) => return Err(self.end(ended)),
                Err(_) => {
                    let reached = self.limits.wall.unwrap_or(patience);
                    return Err(self.end(LimitReached::Wall(reached).into()));
                }
            };
            thought += begin.elapsed();
            work += WAKING;
            if work > self.limits.cpu {
                let limit = LimitReached::Cpu(self.limits.cpu);
                return Err(self.end(limit.into()));
            }
            let call = match said {
                FromChild::Call(call) => call,
                FromChild::Done(Ok(done)) => return Ok((self, Ok(done))),
                FromChild::Done(Err(failure)) => {
                    let failure = bounds::failure(failure);
                    return Ok((self, Err(failure)));
                }
            };
            let (begin, transfers) = (Instant::now(), answers.transfers(&call));
            let answered = match call {
                Call::Log(severity, text) => {
                    self.log(answers.log(), severity, text);
                    answer(&())
                }
                call => counted(&mut work, answers.answer(call, &mut self.meter)).await,
            };
            // Of a frontend only what it does itself counts, as in this process.
            if self.limits.wall.is_some() && !transfers {
                thought += begin.elapsed();
            }
            match answered {
                Ok(frame) => {
                    if counted(&mut work, self.say(&frame)).await.is_err() {
                        return Err(self.died().await);
                    }
                }
                Err(ended) => return Err(self.end(ended)),
            }
        }
    }

    fn log(
        &mut self,
        log: &dyn wbuild_api::extension::LogCap,
        severity: wbuild_graph::Severity,
        text: String,
    ) {
        match self.meter.log_line() {
            LogVerdict::Pass => {
                // The mark that a line was shortened was made in the child; here it only must not be
                // longer.
                let text = wbuild_plugin::limits::clip(text, self.limits.log_line_bytes + 4);
                log.log(severity, text);
            }
            LogVerdict::Last => {
                let lines = self.limits.log_lines;
                let text = format!("more than {lines} messages; the rest is dropped");
                log.log(wbuild_graph::Severity::Warning, text);
            }
            LogVerdict::Drop => {}
        }
    }

    /// What it says next; none = it has closed its socket.
    async fn hear(&mut self) -> Result<Option<FromChild>, Ended> {
        // More than any child says that has its guest within limits: what it collected for this by many
        // calls, and the last of them.
        let most = self.limits.buffered_bytes.saturating_add(self.limits.call_bytes());
        // What there is room for, beside what is held: once for the frame and once for what it means.
        let room = self.meter.left().saturating_add(BESIDES) / 2;
        let limit = LimitReached::Buffered(self.limits.buffered_bytes);
        let Some(length) = length(&mut self.socket, most).await? else { return Ok(None) };
        if length > room {
            return Err(limit.into());
        }
        let Some(body) = body(&mut self.socket, length).await else { return Ok(None) };
        self.calls += 1;
        self.bytes = self.bytes.saturating_add(body.len() as u64);
        if self.calls > CALLS || self.bytes > BYTES {
            return claim(format!("more than {CALLS} calls or {BYTES} bytes"));
        }
        if wire::weigh(&body, most.saturating_mul(LIGHTEST))? > room {
            return Err(limit.into());
        }
        Ok(Some(wire::decode(&body)?))
    }

    fn end(self, ended: Ended) -> Failure {
        let Session { kind, name, .. } = self;
        match ended {
            Ended::Limit(limit) => limit.failure(kind, &name),
            Ended::Failure(failure) => failure.attr("plugin", &name),
            Ended::Claim(what) => {
                let message = format!("the {kind} {name} said what no {kind} can say");
                let mut failure = Failure::new(FailureKind::Denied, message)
                    .attr("plugin", &name)
                    .hint("it may be an attack; do not use it without isolation");
                failure.causes.push(what);
                failure
            }
        }
    }

    async fn died(self) -> Failure {
        let Session { process, kind, name, limits, .. } = self;
        fate(process.ended().await, kind, &name, limits)
    }
}

/// Adds the processor time that a future takes.
async fn counted<T>(used: &mut Duration, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let begin = thread_time();
        let poll = future.as_mut().poll(context);
        *used += thread_time().saturating_sub(begin);
        poll
    })
    .await
}

fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = Duration::from_secs(time.tv_sec.try_into().unwrap_or(0));
    seconds + Duration::from_nanos(time.tv_nsec.try_into().unwrap_or(0))
}

/// Reads a frame of at most `limit` bytes; none = the end.
pub(super) async fn frame(
    socket: &mut UnixStream,
    limit: usize,
) -> Result<Option<Vec<u8>>, Malformed> {
    match length(socket, limit).await? {
        Some(length) => Ok(body(socket, length).await),
        None => Ok(None),
    }
}

/// Reads how long a frame is that has at most `limit` bytes; none = the end.
async fn length(socket: &mut UnixStream, limit: usize) -> Result<Option<usize>, Malformed> {
    let mut head = [0; HEAD];
    match socket.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(_) => return Ok(None),
    }
    let length = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if length > limit { Err(Malformed::Weight) } else { Ok(Some(length)) }
}

/// Reads what follows the length; none = it ends before.
async fn body(socket: &mut UnixStream, length: usize) -> Option<Vec<u8>> {
    // Grows with what comes: a length alone takes no memory.
    let mut body = Vec::new();
    let read = socket.take(length as u64).read_to_end(&mut body).await;
    read.is_ok_and(|read| read == length).then_some(body)
}

/// What a user is told of a child that ended by itself.
pub(super) fn fate(
    status: Option<ExitStatus>,
    kind: PluginKind,
    name: &str,
    limits: Limits,
) -> Failure {
    let bug = format!("this is a bug of the {kind}, not of the build it was run for");
    let ended =
        |kind: FailureKind, message: String| Failure::new(kind, message).attr("plugin", name);
    let Some(status) = status else {
        let message = format!("the {kind} {name} closed its connection and was ended");
        return ended(FailureKind::Denied, message);
    };
    match status.signal() {
        Some(libc::SIGXCPU) => LimitReached::Cpu(limits.cpu).failure(kind, name),
        Some(libc::SIGSYS) => ended(
            FailureKind::Denied,
            format!("the {kind} {name} was ended: it made a system call that plugins do not make"),
        )
        .hint("it may be an attack on this machine; do not use it without isolation"),
        Some(libc::SIGKILL) => {
            ended(FailureKind::Unavailable, format!("the process of the {kind} {name} was killed"))
                .hint("the machine may be short of memory: the kernel's log tells")
        }
        Some(libc::SIGABRT) => ended(
            FailureKind::Limit,
            format!("the process of the {kind} {name} ran out of the memory it may use"),
        ),
        Some(signal) => {
            let message = format!("the process of the {kind} {name} was ended by signal {signal}");
            ended(FailureKind::Internal, message).hint(bug)
        }
        None if status.code() == Some(PANICKED) => ended(
            FailureKind::Internal,
            format!("wbuild has a bug: the process of the {kind} {name} panicked"),
        ),
        None => ended(
            FailureKind::Internal,
            format!("the process of the {kind} {name} ended early ({status})"),
        )
        .hint(bug),
    }
}
