//! The hermetic WASI profile: what the runtimes of languages ask of WASI 0.2, answered so that it is
//! the same everywhere.
//!
//! Invariants:
//!
//! - Nothing of the system is behind it. There are no files (the list of preopened directories is
//!   empty), no environment, no arguments; standard input is at its end; what is written goes to the
//!   plugin's log, within its limits. Making a socket and looking up a name are denied by an answer,
//!   as programs ask for both only to see whether they can.
//! - Two runs over the same input see the same: the time of day is SOURCE_DATE_EPOCH, or 0; the
//!   monotonic clock counts how often it was asked, and waiting moves it on; random bytes follow from
//!   the definition.
//! - Waiting takes no time: when nothing is due the clock is moved to what is due first. So timers end
//!   in their order, and a loop that waits for a time of the clock ends.
//! - Any other function of `wasi:*` can be linked and not called: it ends the guest with its name.
//!
//! Functions are defined by name, for whichever 0.2 version a component imports: their types are
//! those that it imports them with, and a value that does not fit ends the guest.

use sha2::{Digest as _, Sha256};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, Resource, ResourceType, Val};
use wasmtime::{Engine, StoreContextMut};
use wbuild_graph::{Failure, FailureKind, Severity};

use crate::error::GuestDid;
use crate::state::{Capabilities, GuestState};

/// Bytes that one write may bring.
const WRITE_BYTES: u64 = 64 << 10;
/// Random bytes that are given at once.
const RANDOM_BYTES: u64 = 64 << 10;

/// Whether an import belongs to the profile.
pub(crate) fn offers(path: &str, version: &str) -> bool {
    path.starts_with("wasi:") && version.starts_with("0.2.")
}

/// A handle of the profile. Which, its number says.
struct Handle;

const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
/// Of a stream: always ready.
const POLLABLE: u32 = 3;
const NETWORK: u32 = 4;
/// The first pollable of a time; the number says its place in the list of them.
const TIMER: u32 = 16;

/// What one instance has seen of the profile.
#[derive(Default)]
pub(crate) struct Hermetic {
    /// What the monotonic clock says, in nanoseconds.
    clock: u64,
    /// The times that are waited for; None for a handle that is gone. No more than there can be handles.
    timers: Vec<Option<u64>>,
    /// How many blocks of random bytes were made.
    blocks: u64,
    /// Lines that are not ended yet, of standard output and of standard error.
    lines: [Vec<u8>; 2],
}

impl Hermetic {
    fn timer(&mut self, at: u64) -> u32 {
        let free = self.timers.iter().position(Option::is_none);
        let place = free.unwrap_or(self.timers.len());
        match free {
            Some(place) => self.timers[place] = Some(at),
            None => self.timers.push(Some(at)),
        }
        u32::try_from(place).map_or(POLLABLE, |place| TIMER.saturating_add(place))
    }

    /// The time that a pollable waits for; 0 for those that wait for none.
    fn time_of(&self, pollable: u32) -> u64 {
        let place = pollable.checked_sub(TIMER).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| *self.timers.get(place)?).unwrap_or(0)
    }

    fn forget(&mut self, handle: u32) {
        let place = handle.checked_sub(TIMER).and_then(|place| usize::try_from(place).ok());
        if let Some(timer) = place.and_then(|place| self.timers.get_mut(place)) {
            *timer = None;
        }
    }

    /// Waits until one is ready; answers the places of those that are.
    fn wait(&mut self, pollables: &[u32]) -> Vec<u32> {
        let first = pollables.iter().map(|one| self.time_of(*one)).min().unwrap_or(0);
        self.clock = self.clock.max(first);
        let ready = |(place, one): (u32, &u32)| (self.time_of(*one) <= self.clock).then_some(place);
        (0..).zip(pollables).filter_map(ready).collect()
    }
}

impl<C: Capabilities> GuestState<C> {
    fn random(&mut self, bytes: usize) -> Vec<u8> {
        let seed = self.caps().map(Capabilities::seed).unwrap_or_default();
        let mut out = Vec::with_capacity(bytes + 32);
        while out.len() < bytes {
            let mut block = Sha256::new();
            block.update(b"wbuild.hermetic.random.v1");
            block.update(&seed);
            block.update(self.hermetic.blocks.to_le_bytes());
            self.hermetic.blocks += 1;
            out.extend(block.finalize());
        }
        out.truncate(bytes);
        out
    }

    fn random_word(&mut self) -> u64 {
        self.random(8).into_iter().fold(0, |word, byte| word << 8 | u64::from(byte))
    }

    /// Says complete lines; keeps no more of an incomplete one than is shown of it.
    fn write(&mut self, stream: u32, bytes: &[u8]) {
        let severity = if stream == STDERR { Severity::Warning } else { Severity::Note };
        let most = self.meter.limits.log_line_bytes;
        for byte in bytes {
            let line = &mut self.hermetic.lines[usize::from(stream == STDERR)];
            if *byte != b'\n' {
                if line.len() <= most {
                    line.push(*byte);
                }
                continue;
            }
            let line = std::mem::take(line);
            self.say(severity, String::from_utf8_lossy(&line).into_owned());
        }
    }

    /// Says what was written last without an end of line.
    pub(crate) fn flush(&mut self) {
        for stream in [STDOUT, STDERR] {
            if !self.hermetic.lines[usize::from(stream == STDERR)].is_empty() {
                self.write(stream, b"\n");
            }
        }
    }
}

/// Defines what the component imports of `wasi:*`.
pub(crate) fn link<C: Capabilities>(
    linker: &mut Linker<GuestState<C>>,
    engine: &Engine,
    component: &Component,
) -> wasmtime::Result<()> {
    for (interface, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(instance) = import.ty else { continue };
        if !interface.starts_with("wasi:") {
            continue;
        }
        let path = interface.split('@').next().unwrap_or(interface).to_owned();
        let mut definitions = linker.instance(interface)?;
        for (name, item) in instance.exports(engine) {
            match item.ty {
                ComponentItem::Resource(_) => {
                    let ty = ResourceType::host::<Handle>();
                    definitions.resource(name, ty, |mut store, handle| {
                        store.data_mut().hermetic.forget(handle);
                        Ok(())
                    })?;
                }
                ComponentItem::ComponentFunc(_) => {
                    let (path, function) = (path.clone(), name.to_owned());
                    definitions.func_new(name, move |store, _, arguments, results| {
                        call(store, &path, &function, arguments, results)
                    })?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn call<C: Capabilities>(
    mut store: StoreContextMut<'_, GuestState<C>>,
    path: &str,
    function: &str,
    arguments: &[Val],
    results: &mut [Val],
) -> wasmtime::Result<()> {
    let mut numbers = Vec::with_capacity(arguments.len());
    // Handles are given back at once; what they are is their number.
    for argument in arguments {
        let handles: Vec<_> = match argument {
            Val::Resource(handle) => vec![*handle],
            Val::List(all) => all.iter().filter_map(handle_of).collect(),
            _ => Vec::new(),
        };
        for handle in handles {
            numbers.push(handle.try_into_resource::<Handle>(&mut store)?.rep());
        }
    }
    let stream = numbers.first().copied().unwrap_or(STDIN);
    let interface = path.strip_prefix("wasi:").unwrap_or(path);
    let method = function.rsplit('.').next().unwrap_or(function);
    let answer = match (interface, method) {
        ("cli/environment", "get-environment" | "get-arguments")
        | ("filesystem/preopens", "get-directories") => Some(Val::List(Vec::new())),
        ("cli/environment", "initial-cwd")
        | ("cli/terminal-stdin" | "cli/terminal-stdout" | "cli/terminal-stderr", _)
        | ("filesystem/types", "filesystem-error-code") => Some(Val::Option(None)),
        ("cli/exit", _) => {
            let status = match arguments.first() {
                Some(Val::U8(code)) => format!(" with status {code}"),
                Some(Val::Result(Ok(_))) => " with success".to_owned(),
                _ => String::new(),
            };
            store.data_mut().flush();
            let message = format!("ended its program{status} instead of answering");
            return Err(did(Failure::new(FailureKind::Internal, message).hint(
                "a plugin answers, with what it made or with a failure; what it wrote before is in its log",
            )));
        }
        ("cli/stdin", "get-stdin") => Some(handle(&mut store, STDIN)?),
        ("cli/stdout", "get-stdout") => Some(handle(&mut store, STDOUT)?),
        ("cli/stderr", "get-stderr") => Some(handle(&mut store, STDERR)?),
        ("clocks/wall-clock", "now") => {
            let epoch = store.data().caps().map_or(0, |caps| caps.epoch().unwrap_or(0));
            Some(time(epoch, 0))
        }
        ("clocks/wall-clock", "resolution") => Some(time(1, 0)),
        ("clocks/monotonic-clock", "now") => {
            let hermetic = &mut store.data_mut().hermetic;
            hermetic.clock = hermetic.clock.saturating_add(1);
            Some(Val::U64(hermetic.clock))
        }
        ("clocks/monotonic-clock", "resolution") => Some(Val::U64(1)),
        ("clocks/monotonic-clock", "subscribe-instant" | "subscribe-duration") => {
            let hermetic = &mut store.data_mut().hermetic;
            let from = if method == "subscribe-instant" { 0 } else { hermetic.clock };
            let Some(Val::U64(time)) = arguments.first() else {
                return Err(absent(path, function));
            };
            let timer = hermetic.timer(from.saturating_add(*time));
            Some(handle(&mut store, timer)?)
        }
        ("io/poll", "ready") => {
            let hermetic = &store.data().hermetic;
            Some(Val::Bool(hermetic.time_of(stream) <= hermetic.clock))
        }
        ("io/poll", "block") => {
            store.data_mut().hermetic.wait(&numbers);
            None
        }
        ("io/poll", "poll") => {
            let ready = store.data_mut().hermetic.wait(&numbers);
            Some(Val::List(ready.into_iter().map(Val::U32).collect()))
        }
        ("io/error", "to-debug-string") => Some(Val::String("the stream is closed".to_owned())),
        ("io/streams", "subscribe") => Some(handle(&mut store, POLLABLE)?),
        ("io/streams", "read" | "blocking-read" | "skip" | "blocking-skip") => {
            let closed = Val::Variant("closed".to_owned(), None);
            Some(Val::Result(Err(Some(Box::new(closed)))))
        }
        ("io/streams", "check-write") => {
            Some(Val::Result(Ok(Some(Box::new(Val::U64(WRITE_BYTES))))))
        }
        ("io/streams", "write" | "blocking-write-and-flush") => {
            let bytes: Vec<u8> = match arguments.get(1) {
                Some(Val::List(bytes)) => bytes.iter().filter_map(byte_of).collect(),
                _ => Vec::new(),
            };
            store.data_mut().write(stream, &bytes);
            Some(Val::Result(Ok(None)))
        }
        ("io/streams", "flush" | "blocking-flush") => Some(Val::Result(Ok(None))),
        ("random/random" | "random/insecure", "get-random-u64" | "get-insecure-random-u64") => {
            Some(Val::U64(store.data_mut().random_word()))
        }
        ("random/random" | "random/insecure", _) => {
            let wanted = match arguments.first() {
                Some(Val::U64(wanted)) if *wanted <= RANDOM_BYTES => *wanted,
                _ => {
                    let message =
                        format!("asked for more than {RANDOM_BYTES} random bytes at once");
                    return Err(did(Failure::new(FailureKind::Limit, message)));
                }
            };
            let bytes = store.data_mut().random(usize::try_from(wanted).unwrap_or(0));
            Some(Val::List(bytes.into_iter().map(Val::U8).collect()))
        }
        ("random/insecure-seed", _) => {
            let state = store.data_mut();
            Some(Val::Tuple(vec![Val::U64(state.random_word()), Val::U64(state.random_word())]))
        }
        ("sockets/instance-network", "instance-network") => Some(handle(&mut store, NETWORK)?),
        ("sockets/tcp-create-socket", "create-tcp-socket")
        | ("sockets/udp-create-socket", "create-udp-socket")
        | ("sockets/ip-name-lookup", "resolve-addresses") => {
            let denied = Val::Enum("access-denied".to_owned());
            Some(Val::Result(Err(Some(Box::new(denied)))))
        }
        _ => return Err(absent(path, function)),
    };
    if let (Some(place), Some(answer)) = (results.first_mut(), answer) {
        *place = answer;
    }
    Ok(())
}

/// Ends the guest, for what it did.
fn did(failure: Failure) -> wasmtime::Error {
    wasmtime::Error::new(GuestDid(failure))
}

/// Ends the guest, for a call of what the profile has not.
fn absent(path: &str, function: &str) -> wasmtime::Error {
    let message = format!("called {function} of {path}, which is not there for plugins");
    did(Failure::new(FailureKind::Denied, message).hint(
        "plugins run in the hermetic WASI profile: no files, no network, nothing of the machine",
    ))
}

fn handle_of(value: &Val) -> Option<wasmtime::component::ResourceAny> {
    match value {
        Val::Resource(handle) => Some(*handle),
        _ => None,
    }
}

fn byte_of(value: &Val) -> Option<u8> {
    match value {
        Val::U8(byte) => Some(*byte),
        _ => None,
    }
}

fn handle<C: Capabilities>(
    store: &mut StoreContextMut<'_, GuestState<C>>,
    number: u32,
) -> wasmtime::Result<Val> {
    let handle = Resource::<Handle>::new_own(number);
    Ok(Val::Resource(handle.try_into_resource_any(&mut *store)?))
}

fn time(seconds: u64, nanoseconds: u32) -> Val {
    Val::Record(vec![
        ("seconds".to_owned(), Val::U64(seconds)),
        ("nanoseconds".to_owned(), Val::U32(nanoseconds)),
    ])
}
