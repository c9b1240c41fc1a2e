//! A live instance and how it is called: the processor clock, the wall clock, and the words for
//! what ends it. The same for every kind of plugin.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::{Engine, Store};
use wbuild_graph::{Failure, FailureKind};

use crate::PluginKind;
use crate::engine::{CpuClock, Runtime, Waits};
use crate::error::Subject;
use crate::limits::{LimitReached, Limits};
use crate::state::{Capabilities, GuestState};

/// How often it is looked whether a call takes too long, at most.
const LOOK: Duration = Duration::from_millis(10);

/// Calls guests of one kind within their limits.
#[derive(Clone)]
pub(crate) struct Caller {
    kind: PluginKind,
    name: String,
    limits: Limits,
    clock: CpuClock,
    waits: Arc<Waits>,
    engine: Engine,
}

impl Caller {
    pub(crate) fn new(runtime: &Runtime, kind: PluginKind, name: &str, limits: Limits) -> Self {
        Caller {
            kind,
            name: name.to_owned(),
            limits,
            clock: runtime.clock(limits.cpu),
            waits: Arc::default(),
            engine: runtime.engine().clone(),
        }
    }

    /// A store in which an instance can be made.
    pub(crate) fn store<C: Capabilities>(&self, caps: Option<C>) -> Store<GuestState<C>> {
        GuestState::store(&self.engine, self.limits, &self.clock, Arc::clone(&self.waits), caps)
    }

    /// Gives the guest its processor time anew, where the limit is per call.
    pub(crate) fn reset(&self) {
        self.clock.reset();
    }

    /// Processor time of the calls so far.
    pub(crate) fn spent(&self) -> Duration {
        self.clock.spent()
    }

    /// Makes an instance.
    pub(crate) async fn instantiate<T>(
        &self,
        making: impl Future<Output = wasmtime::Result<T>>,
    ) -> Result<T, Failure> {
        self.run(making).await.map_err(|error| self.subject().not_made(error))
    }

    /// Runs one call. When it fails the instance must not be called again.
    pub(crate) async fn call<T>(
        &self,
        call: impl Future<Output = wasmtime::Result<T>>,
    ) -> Result<T, Failure> {
        self.run(call).await.map_err(|error| self.subject().ended(error))
    }

    async fn run<T>(&self, call: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
        let mut measured = pin!(self.clock.measure(call));
        let Some(wall) = self.limits.wall else { return measured.await };
        let (begin, waited) = (Instant::now(), self.waits.spent());
        loop {
            let allowed = wall + self.waits.spent().saturating_sub(waited);
            let left = allowed.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Err(LimitReached::Wall(wall).into());
            }
            // During a transfer what is left stays what it is.
            if let Ok(result) = tokio::time::timeout(left.max(LOOK), &mut measured).await {
                return result;
            }
        }
    }

    /// Says what a guest did wrong.
    pub(crate) fn broken(&self, what: &str) -> Failure {
        let Caller { kind, name, .. } = self;
        Failure::internal(format!("the {kind} {name} {what}"))
            .attr("plugin", name)
            .hint(format!("this is a bug of the {kind}, not of the build it was run for"))
    }

    /// Says that an answer is longer than anybody could want.
    pub(crate) fn too_many(&self, count: usize, what: &str, limit: usize) -> Failure {
        let Caller { kind, name, .. } = self;
        let message = format!("the {kind} {name} answers {count} {what}, more than {limit}");
        Failure::new(FailureKind::Limit, message).attr("plugin", name)
    }

    fn subject(&self) -> Subject<'_> {
        Subject { kind: self.kind, name: &self.name, limits: &self.limits }
    }
}
