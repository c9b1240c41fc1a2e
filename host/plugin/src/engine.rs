//! The wasmtime engine: one profile of settings, the epoch ticker, and the processor clock.
//!
//! Invariants:
//!
//! - One profile, so one kind of compiled code. Whatever is added to [`config`] that changes the
//!   code or its meaning also changes [`PROFILE`].
//! - Guest code is deterministic: NaNs are canonical, relaxed SIMD is deterministic, no threads.
//! - The ticker thread runs only while guest code runs, and is started by the first guest: a
//!   process that runs none has no thread of ours (it may still have to enter namespaces).

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use wasmtime::{Config, Engine, EngineWeak, OptLevel, UpdateDeadline, WasmBacktraceDetails};

use crate::limits::{FIBER_STACK, LimitReached, WASM_STACK};

/// Names the settings below in the keys of the code cache.
#[cfg(target_os = "linux")]
pub(crate) const PROFILE: &str = "wbuild.profile.v1";

/// How often guest code looks at the clock and lets other tasks run.
const TICK: Duration = Duration::from_millis(10);

/// The engine and its ticker.
pub(crate) struct Runtime {
    engine: Engine,
    ticker: Arc<Ticker>,
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .wasm_memory64(false)
        .relaxed_simd_deterministic(true)
        .cranelift_nan_canonicalization(true)
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(FIBER_STACK)
        // Names of functions come from the name section; neither line tables nor the map from
        // native to Wasm addresses is needed for them.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .generate_address_map(false)
        // Windows looks at it for every fault.
        .native_unwind_info(cfg!(windows))
        .parallel_compilation(true);
    #[cfg(target_os = "linux")]
    config.with_host_stack(Arc::new(crate::stack::Stacks::default()));
    config
}

impl Runtime {
    pub(crate) fn new() -> wasmtime::Result<Self> {
        let engine = Engine::new(&config())?;
        let ticker = Arc::new(Ticker::new(engine.weak()));
        Ok(Runtime { engine, ticker })
    }

    /// Starts the ticker's thread now.
    #[cfg(target_os = "linux")]
    pub(crate) fn start(&self) -> std::io::Result<()> {
        self.ticker.run().map(drop)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A clock for one guest that may use `budget` of processor time.
    pub(crate) fn clock(&self, budget: Duration) -> CpuClock {
        CpuClock {
            shared: Arc::new(ClockState {
                budget,
                used: AtomicU64::new(0),
                entered: AtomicU64::new(0),
            }),
            ticker: Arc::clone(&self.ticker),
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.ticker.lock().stop = true;
        self.ticker.wake.notify_all();
    }
}

/// Increments the engine's epoch every [`TICK`] while somebody runs guest code.
struct Ticker {
    engine: EngineWeak,
    state: Mutex<TickerState>,
    wake: Condvar,
}

#[derive(Default)]
struct TickerState {
    running: usize,
    thread: bool,
    parked: bool,
    stop: bool,
}

impl Ticker {
    fn new(engine: EngineWeak) -> Self {
        Ticker { engine, state: Mutex::default(), wake: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, TickerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ticks until the answer is dropped.
    fn run(self: &Arc<Self>) -> std::io::Result<Running> {
        let mut state = self.lock();
        if !state.thread {
            let ticker = Arc::clone(self);
            std::thread::Builder::new()
                .name("wbuild-epoch".to_owned())
                .stack_size(64 << 10)
                .spawn(move || ticker.work())?;
            state.thread = true;
        }
        state.running += 1;
        if state.parked {
            self.wake.notify_one();
        }
        drop(state);
        Ok(Running(Arc::clone(self)))
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            while state.running == 0 && !state.stop {
                state.parked = true;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.parked = false;
            if state.stop {
                return;
            }
            drop(state);
            std::thread::sleep(TICK);
            match self.engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    }
}

struct Running(Arc<Ticker>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}

/// Counts the processor time of one guest: what its thread used while it was polled. Waits of host
/// functions are not polled, so they do not count, and neither does a busy machine.
#[derive(Clone)]
pub(crate) struct CpuClock {
    shared: Arc<ClockState>,
    ticker: Arc<Ticker>,
}

struct ClockState {
    budget: Duration,
    /// Nanoseconds of finished polls.
    used: AtomicU64,
    /// Thread time at which the present poll began.
    entered: AtomicU64,
}

/// Nanoseconds since some moment that are the present thread's.
#[cfg(target_os = "linux")]
fn thread_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// There is no common clock of threads: all the time that passes.
#[cfg(not(target_os = "linux"))]
fn thread_time() -> u64 {
    static BEGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    u64::try_from(BEGIN.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl ClockState {
    fn present(&self) -> u64 {
        thread_time().saturating_sub(self.entered.load(Ordering::Relaxed))
    }

    /// Called by guest code at each tick.
    fn check(&self) -> Result<(), LimitReached> {
        let used = self.used.load(Ordering::Relaxed).saturating_add(self.present());
        if Duration::from_nanos(used) > self.budget {
            return Err(LimitReached::Cpu(self.budget));
        }
        Ok(())
    }
}

impl CpuClock {
    /// What was counted.
    pub(crate) fn spent(&self) -> Duration {
        Duration::from_nanos(self.shared.used.load(Ordering::Relaxed))
    }

    /// Starts counting anew.
    pub(crate) fn reset(&self) {
        self.shared.used.store(0, Ordering::Relaxed);
    }

    /// Makes guest code of `store` look at this clock, and yield, at each tick.
    pub(crate) fn attach<T: 'static>(&self, store: &mut wasmtime::Store<T>) {
        let shared = Arc::clone(&self.shared);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            shared.check()?;
            Ok(UpdateDeadline::Yield(1))
        });
    }

    /// Runs a call into a guest with the clock ticking.
    pub(crate) async fn measure<T>(
        &self,
        call: impl Future<Output = wasmtime::Result<T>>,
    ) -> wasmtime::Result<T> {
        let mut call = pin!(call);
        std::future::poll_fn(|context| {
            let running = match self.ticker.run() {
                Ok(running) => running,
                // Without a ticker an endless loop could not be ended.
                Err(error) => return Poll::Ready(Err(wasmtime::Error::new(error))),
            };
            self.shared.entered.store(thread_time(), Ordering::Relaxed);
            let poll = call.as_mut().poll(context);
            self.shared.used.fetch_add(self.shared.present(), Ordering::Relaxed);
            drop(running);
            // What comes after the guest's last look at the clock, its answer for one.
            if matches!(poll, Poll::Ready(Ok(_))) && self.spent() > self.shared.budget {
                return Poll::Ready(Err(LimitReached::Cpu(self.shared.budget).into()));
            }
            poll
        })
        .await
    }
}

/// How long one guest has waited for transfers, whose limits are others' than its own: what it is
/// granted (a registry, say) ends what does not move.
#[derive(Default)]
pub(crate) struct Waits(Mutex<WaitState>);

#[derive(Default)]
struct WaitState {
    ended: Duration,
    since: Option<Instant>,
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, WaitState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of it, with what it waits for now.
    pub(crate) fn spent(&self) -> Duration {
        let state = self.lock();
        state.ended + state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Waits for a transfer. A guest waits for one thing at a time.
    pub(crate) async fn during<T>(&self, transfer: impl Future<Output = T>) -> T {
        struct Ended<'a>(&'a Waits);
        impl Drop for Ended<'_> {
            fn drop(&mut self) {
                let mut state = self.0.lock();
                if let Some(since) = state.since.take() {
                    state.ended += since.elapsed();
                }
            }
        }
        self.lock().since = Some(Instant::now());
        let _ended = Ended(self);
        transfer.await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ticker_sleeps_when_nothing_runs_and_ends_with_the_engine() {
        let runtime = Runtime::new().expect("engine");
        assert!(!runtime.ticker.lock().thread, "no guest, no thread");
        let running = runtime.ticker.run().expect("thread");
        std::thread::sleep(TICK * 3);
        drop(running);
        let parked = |ticker: &Ticker| {
            (0..200).any(|_| {
                std::thread::sleep(TICK);
                ticker.lock().parked
            })
        };
        assert!(parked(&runtime.ticker));
        let again = runtime.ticker.run().expect("thread");
        assert_eq!(runtime.ticker.lock().running, 1);
        drop(again);
        let ticker = Arc::downgrade(&runtime.ticker);
        drop(runtime);
        let gone = (0..200).any(|_| {
            std::thread::sleep(TICK);
            ticker.strong_count() == 0
        });
        assert!(gone, "the thread holds the ticker until it ends");
    }
}
