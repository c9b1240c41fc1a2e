//! What guests may use: one table, and the one place where each bound is enforced.
//!
//! Linear memory alone is not enough: whatever a guest makes the host hold (builders, handles,
//! sources, messages) is counted too, see [`Meter`]. Processor time is counted by
//! [`crate::engine::CpuClock`], graph size by `wbuild_graph::Definition`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmtime::ResourceLimiter;
use wbuild_graph::{Failure, FailureKind, Platform};

use crate::PluginKind;

const MIB: usize = 1 << 20;

/// Bytes that one read of a file or blob answers at most.
pub const READ_BYTES: u32 = 1 << 20;
/// Entries or pairs that one listing answers at most.
pub const LIST_ITEMS: u32 = 10_000;
/// Bytes of a blob that a cache backend may write at once.
pub const SMALL_BLOB_WRITE: usize = 4 * MIB;
/// Size of the largest blob that a cache backend may read from: larger ones are layers.
pub const SMALL_BLOB_READ: u64 = 64 << 20;
/// Bytes of a body of HTTP that a guest takes in hand.
pub const SMALL_BODY: u32 = 4 << 20;
/// Bytes that the arguments or the answer of one call have at most. They come on top of what is held,
/// and nothing of them is known before they are all there, so this is what a guest can take besides
/// its limits.
pub(crate) const CALL_BYTES: usize = 24 * MIB;
/// Questions of one batch.
pub(crate) const BATCH_ITEMS: usize = 100_000;
/// Stack of the guest, in bytes.
pub(crate) const WASM_STACK: usize = MIB;
/// Stack of the fiber that runs guest and host functions, in bytes.
pub(crate) const FIBER_STACK: usize = 2 * MIB;

/// What one kind of guest may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Size of the component, in bytes.
    pub component_bytes: usize,
    /// Linear memory of all its modules together, in bytes.
    pub memory_bytes: usize,
    /// Elements of all its tables together.
    pub table_elements: usize,
    /// Core instances, and as many memories and tables.
    pub instances: usize,
    /// Processor time: of a build for a frontend, of a call else. Host waits do not count.
    pub cpu: Duration,
    /// Time on the wall of one call; none = as long as it takes.
    pub wall: Option<Duration>,
    /// What the host holds on the guest's behalf, in bytes; a call's arguments have no more either.
    pub buffered_bytes: usize,
    /// Handles (builders, blobs, buckets, …) held at once.
    pub handles: usize,
    /// Diagnostics and results of one instance.
    pub messages: usize,
    /// Log lines of one instance; the rest is dropped.
    pub log_lines: usize,
    /// Bytes of one log line; the rest is cut off.
    pub log_line_bytes: usize,
}

impl Limits {
    /// The default for a kind of plugin.
    pub const fn of(kind: PluginKind) -> Limits {
        match kind {
            PluginKind::Frontend => Limits {
                component_bytes: 32 * MIB,
                memory_bytes: 256 * MIB,
                table_elements: 200_000,
                instances: 100,
                cpu: Duration::from_secs(10),
                wall: None,
                buffered_bytes: 64 * MIB,
                handles: 10_000,
                messages: 10_000,
                log_lines: 1000,
                log_line_bytes: 4096,
            },
            PluginKind::Runner => Limits {
                component_bytes: 8 * MIB,
                memory_bytes: 32 * MIB,
                table_elements: 50_000,
                instances: 100,
                cpu: Duration::from_secs(1),
                wall: Some(Duration::from_secs(5)),
                buffered_bytes: 4 * MIB,
                handles: 256,
                messages: 100,
                log_lines: 100,
                log_line_bytes: 4096,
            },
            PluginKind::Cache => Limits {
                component_bytes: 8 * MIB,
                memory_bytes: 64 * MIB,
                table_elements: 50_000,
                instances: 100,
                cpu: Duration::from_secs(5),
                wall: Some(Duration::from_secs(120)),
                buffered_bytes: 64 * MIB,
                handles: 4000,
                messages: 1000,
                log_lines: 1000,
                log_line_bytes: 4096,
            },
        }
    }
}

impl Limits {
    /// What the arguments of one call may take, in bytes.
    pub fn call_bytes(&self) -> usize {
        self.buffered_bytes.min(CALL_BYTES)
    }
}

/// A bound that a guest ran into. Ends the guest; see [`crate::error`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitReached {
    /// Linear memory.
    #[error("needs more than {} of memory", size(*.0))]
    Memory(usize),
    /// Tables.
    #[error("needs tables of more than {0} elements")]
    Tables(usize),
    /// Core instances.
    #[error("has more than {0} core instances, memories or tables")]
    Instances(usize),
    /// Processor time.
    #[error("used more than {} of processor time", duration(*.0))]
    Cpu(Duration),
    /// Time of one call.
    #[error("took longer than {} for one call", duration(*.0))]
    Wall(Duration),
    /// What the host holds.
    #[error("makes the host hold more than {} for it", size(*.0))]
    Buffered(usize),
    /// Arguments or the answer of a call.
    #[error("passes more than {} in one call", size(*.0))]
    Call(usize),
    /// The answer of a call.
    #[error("asks for more than {} in one call", size(*.0))]
    Answer(usize),
    /// Handles.
    #[error("holds more than {0} handles at once")]
    Handles(usize),
    /// Diagnostics and results.
    #[error("reported more than {0} diagnostics and results")]
    Messages(usize),
    /// Items of one call.
    #[error("asks for more than {0} things at once")]
    Batch(usize),
}

impl LimitReached {
    /// The bound of a call that passes too much.
    pub fn call(limits: &Limits) -> LimitReached {
        match limits.call_bytes() {
            bytes if bytes == limits.buffered_bytes => LimitReached::Buffered(bytes),
            bytes => LimitReached::Call(bytes),
        }
    }

    /// What a user is told of the plugin that ran into it.
    pub fn failure(&self, kind: PluginKind, name: &str) -> Failure {
        let failure = Failure::new(FailureKind::Limit, format!("the {kind} {name} {self}"))
            .attr("plugin", name);
        match self.key() {
            Some(key) => failure.hint(format!(
                "if it needs more, the policy for plugins can give it: limits = {{ {key} = … }}; \
                 `wbuild plugin inspect` shows what holds"
            )),
            None => failure,
        }
    }

    /// What the limit is called in policies and projects, if it can be set there.
    pub(crate) fn key(&self) -> Option<&'static str> {
        match self {
            LimitReached::Memory(_) => Some("memory"),
            LimitReached::Cpu(_) => Some("cpu"),
            LimitReached::Wall(_) => Some("call-timeout"),
            LimitReached::Buffered(_) => Some("host-memory"),
            LimitReached::Handles(_) => Some("handles"),
            LimitReached::Call(_)
            | LimitReached::Answer(_)
            | LimitReached::Tables(_)
            | LimitReached::Instances(_)
            | LimitReached::Messages(_)
            | LimitReached::Batch(_) => None,
        }
    }
}

/// `attrs` as bindings hand it over.
pub(crate) type Pairs = Vec<(String, String)>;

/// Bytes the host spends on texts.
pub(crate) fn texts_size<'a>(texts: impl IntoIterator<Item = &'a String>) -> usize {
    texts.into_iter().map(|text| size_of::<String>() + text.len()).sum()
}

/// Bytes the host spends on pairs.
pub(crate) fn pairs_size(pairs: &Pairs) -> usize {
    pairs.iter().map(|(key, value)| texts_size([key, value])).sum()
}

/// Bytes the host spends on the texts of a platform.
pub fn platform_size(platform: &Platform) -> usize {
    let Platform { os, architecture, variant, os_version, os_features } = platform;
    let texts = [Some(os), Some(architecture), variant.as_ref(), os_version.as_ref()];
    texts_size(texts.into_iter().flatten()) + texts_size(os_features)
}

/// A size as people write it.
pub fn size(bytes: usize) -> String {
    match bytes {
        b if b >= MIB && b.is_multiple_of(MIB) => format!("{} MiB", b / MIB),
        b if b >= MIB => format!("{}.{} MiB", b / MIB, b % MIB * 10 / MIB),
        b if b >= 1024 => format!("{} KiB", b / 1024),
        b => format!("{b} bytes"),
    }
}

fn duration(time: Duration) -> String {
    if time.subsec_millis() == 0 {
        format!("{} s", time.as_secs())
    } else {
        format!("{} ms", time.as_millis())
    }
}

/// Shortens a text to at most `bytes` bytes and a mark that it was shortened.
pub fn clip(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        let end = text.floor_char_boundary(bytes);
        text.truncate(end);
        text.push('…');
        // Else what was cut off would be held as long as the rest.
        text.shrink_to_fit();
    }
    text
}

/// What happens to a log line.
pub enum LogVerdict {
    /// It is shown.
    Pass,
    /// The first that is dropped: say so.
    Last,
    /// It is not.
    Drop,
}

/// Counts what the host holds for one instance.
pub struct Meter {
    pub(crate) limits: Limits,
    buffered: usize,
    messages: usize,
    log_lines: usize,
}

impl Meter {
    /// With nothing held.
    pub fn new(limits: Limits) -> Self {
        Meter { limits, buffered: 0, messages: 0, log_lines: 0 }
    }

    /// The host is about to hold `bytes` more. To be called before memory is spent.
    pub fn charge(&mut self, bytes: usize) -> Result<(), LimitReached> {
        let sum = self.buffered.saturating_add(bytes);
        if sum > self.limits.buffered_bytes {
            return Err(LimitReached::Buffered(self.limits.buffered_bytes));
        }
        self.buffered = sum;
        Ok(())
    }

    /// The host holds `bytes` less.
    pub fn release(&mut self, bytes: usize) {
        self.buffered = self.buffered.saturating_sub(bytes);
    }

    /// A call is about to be answered with `bytes`, which are held until it has been.
    pub fn answers(&self, bytes: usize) -> Result<(), LimitReached> {
        let most = self.limits.call_bytes();
        if bytes > self.left() {
            return Err(LimitReached::Buffered(self.limits.buffered_bytes));
        }
        if bytes > most { Err(LimitReached::Answer(most)) } else { Ok(()) }
    }

    /// How much more may be held, in bytes.
    pub fn left(&self) -> usize {
        self.limits.buffered_bytes.saturating_sub(self.buffered)
    }

    /// A diagnostic or result of `bytes` that is kept until the build ends.
    pub fn message(&mut self, bytes: usize) -> Result<(), LimitReached> {
        if self.messages >= self.limits.messages {
            return Err(LimitReached::Messages(self.limits.messages));
        }
        self.messages += 1;
        self.charge(bytes)
    }

    /// One more line is said.
    pub fn log_line(&mut self) -> LogVerdict {
        self.log_lines = self.log_lines.saturating_add(1);
        match self.log_lines.cmp(&(self.limits.log_lines + 1)) {
            std::cmp::Ordering::Less => LogVerdict::Pass,
            std::cmp::Ordering::Equal => LogVerdict::Last,
            std::cmp::Ordering::Greater => LogVerdict::Drop,
        }
    }

    /// Bounds the number of questions in one call.
    pub fn batch(&self, items: usize) -> Result<(), LimitReached> {
        if items > BATCH_ITEMS { Err(LimitReached::Batch(BATCH_ITEMS)) } else { Ok(()) }
    }
}

/// Bounds memories, tables and instances of one store.
pub(crate) struct StoreLimiter {
    limits: Limits,
    memory: usize,
    elements: usize,
}

impl StoreLimiter {
    pub(crate) fn new(limits: Limits) -> Self {
        StoreLimiter { limits, memory: 0, elements: 0 }
    }

    /// Of all memories together.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory
    }
}

impl ResourceLimiter for StoreLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let sum = self.memory.saturating_add(desired.saturating_sub(current));
        if sum > self.limits.memory_bytes {
            // An error and not `false`: what a guest does without memory is rarely readable.
            return Err(LimitReached::Memory(self.limits.memory_bytes).into());
        }
        self.memory = sum;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let sum = self.elements.saturating_add(desired.saturating_sub(current));
        if sum > self.limits.table_elements {
            return Err(LimitReached::Tables(self.limits.table_elements).into());
        }
        self.elements = sum;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.limits.instances
    }

    fn tables(&self) -> usize {
        self.limits.instances
    }

    fn memories(&self) -> usize {
        self.limits.instances
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meter_counts_what_is_held_now() {
        let mut meter = Meter::new(Limits { buffered_bytes: 10, ..Limits::of(PluginKind::Cache) });
        assert_eq!(meter.charge(6), Ok(()));
        assert_eq!(meter.charge(5), Err(LimitReached::Buffered(10)));
        assert_eq!(meter.charge(4), Ok(()), "a refused charge holds nothing");
        meter.release(10);
        assert_eq!(meter.charge(10), Ok(()));
        assert_eq!(meter.charge(usize::MAX), Err(LimitReached::Buffered(10)));
    }

    #[test]
    fn an_answer_fits_beside_what_is_held_and_into_one_call() {
        let mut meter = Meter::new(Limits::of(PluginKind::Frontend));
        assert_eq!(meter.answers(CALL_BYTES), Ok(()));
        assert_eq!(meter.answers(CALL_BYTES + 1), Err(LimitReached::Answer(CALL_BYTES)));
        meter.charge(60 * MIB).expect("there is room for it");
        assert_eq!(meter.answers(4 * MIB), Ok(()));
        assert_eq!(meter.answers(4 * MIB + 1), Err(LimitReached::Buffered(64 * MIB)));
    }

    #[test]
    fn all_memories_share_one_bound() {
        let limits = Limits { memory_bytes: 3 * MIB, ..Limits::of(PluginKind::Frontend) };
        let mut limiter = StoreLimiter::new(limits);
        assert!(limiter.memory_growing(0, 2 * MIB, None).expect("fits"));
        assert!(limiter.memory_growing(0, 2 * MIB, None).is_err(), "a second memory counts too");
        assert!(limiter.memory_growing(2 * MIB, 3 * MIB, None).expect("fits"));
    }

    #[test]
    fn bounds_read_well() {
        assert_eq!(
            LimitReached::Memory(256 * MIB).to_string(),
            "needs more than 256 MiB of memory"
        );
        let cpu = LimitReached::Cpu(Duration::from_millis(250));
        assert_eq!(cpu.to_string(), "used more than 250 ms of processor time");
        assert_eq!(size(35_000), "34 KiB");
        assert_eq!(size(MIB + MIB / 2), "1.5 MiB");
        assert_eq!(clip("aé".to_owned(), 2), "a…");
    }
}
