//! The hermetic WASI profile: what the runtimes of languages ask of WASI 0.2, answered so that it is
//! the same everywhere.
//!
//! Invariants:
//!
//! - Nothing of the system is behind it. There are no files (the list of preopened directories is
//!   empty), no environment, no arguments, no sockets; standard input is at its end; what is written
//!   goes to the plugin's log, within its limits.
//! - Two runs over the same input see the same: the time of day is SOURCE_DATE_EPOCH, or 0; the
//!   monotonic clock counts how often it was asked; random bytes follow from the definition.
//! - Any other function of `wasi:*` can be linked and not called: it ends the guest with its name.
//!
//! Functions are defined by name, for whichever 0.2 version a component imports: their types are
//! those that it imports them with, and a value that does not fit ends the guest.

use sha2::{Digest as _, Sha256};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, Resource, ResourceType, Val};
use wasmtime::{Engine, StoreContextMut};
use wbuild_graph::{Failure, FailureKind, Severity};

use crate::state::{Capabilities, GuestState, refuse};

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
const POLLABLE: u32 = 3;

/// What one instance has seen of the profile.
#[derive(Default)]
pub(crate) struct Hermetic {
    /// How often the monotonic clock was asked.
    asked: u64,
    /// How many blocks of random bytes were made.
    blocks: u64,
    /// Lines that are not ended yet, of standard output and of standard error.
    lines: [Vec<u8>; 2],
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
                    definitions.resource(name, ty, |_, _| Ok(()))?;
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
            let said = "the plugin ended its program instead of answering";
            store.data_mut().flush();
            return Err(refuse(Failure::new(FailureKind::Internal, said)));
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
            hermetic.asked += 1;
            Some(Val::U64(hermetic.asked))
        }
        ("clocks/monotonic-clock", "resolution") => Some(Val::U64(1)),
        ("clocks/monotonic-clock", _) => Some(handle(&mut store, POLLABLE)?),
        ("io/poll", "ready") => Some(Val::Bool(true)),
        ("io/poll", "block") => None,
        ("io/poll", "poll") => {
            let count = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            Some(Val::List((0..count).map(Val::U32).collect()))
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
                    let message = format!("more than {RANDOM_BYTES} random bytes at once");
                    return Err(refuse(Failure::new(FailureKind::Limit, message)));
                }
            };
            let bytes = store.data_mut().random(usize::try_from(wanted).unwrap_or(0));
            Some(Val::List(bytes.into_iter().map(Val::U8).collect()))
        }
        ("random/insecure-seed", _) => {
            let state = store.data_mut();
            Some(Val::Tuple(vec![Val::U64(state.random_word()), Val::U64(state.random_word())]))
        }
        _ => {
            let message = format!("{path} {function} is not there for plugins");
            return Err(refuse(Failure::new(FailureKind::Denied, message).hint(
                "plugins run in the hermetic WASI profile: no files, no network, no time of day",
            )));
        }
    };
    if let (Some(place), Some(answer)) = (results.first_mut(), answer) {
        *place = answer;
    }
    Ok(())
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
