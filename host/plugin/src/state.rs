//! What a store holds for one instance: handles, counters and the capabilities of its build.

use std::sync::Arc;

use wasmtime::component::{HasSelf, Resource, ResourceTable};
use wasmtime::{Engine, Store};
use wbuild_api::extension::LogCap;
use wbuild_graph::{Failure, Severity};

use crate::bounds;
use crate::engine::{CpuClock, Waits};
use crate::error::HostRefusal;
use crate::hermetic::Hermetic;
use crate::limits::{LimitReached, Limits, LogVerdict, Meter, StoreLimiter, clip};

/// The capabilities of one kind of guest.
pub(crate) trait Capabilities: Send + 'static {
    /// Lines for the user: every kind has it.
    fn log(&self) -> &Arc<dyn LogCap>;
    /// The time of day that a guest sees.
    fn epoch(&self) -> Option<u64> {
        None
    }
    /// What random bytes follow from.
    fn seed(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// Data of a store.
pub(crate) struct GuestState<C: 'static> {
    pub(crate) table: ResourceTable,
    pub(crate) meter: Meter,
    /// How long it waits for transfers, which count as no time of the guest's.
    pub(crate) waits: Arc<Waits>,
    limiter: StoreLimiter,
    /// Of a guest that imports WASI.
    pub(crate) hermetic: Hermetic,
    /// None while an instance is made only to be measured.
    caps: Option<C>,
}

/// How the linker reaches the host functions of `C`.
pub(crate) type Access<C> = HasSelf<GuestState<C>>;

impl<C: Capabilities> GuestState<C> {
    /// A store for one instance, with every limit in place.
    pub(crate) fn store(
        engine: &Engine,
        limits: Limits,
        clock: &CpuClock,
        waits: Arc<Waits>,
        caps: Option<C>,
    ) -> Store<Self> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        let state = GuestState {
            table,
            meter: Meter::new(limits),
            waits,
            limiter: StoreLimiter::new(limits),
            hermetic: Hermetic::default(),
            caps,
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(limits.call_bytes());
        // The guest's side of the handles; more than the host's, so that ours is met first.
        store.set_max_component_handles(limits.handles.saturating_mul(2));
        clock.attach(&mut store);
        store
    }

    /// Linear memory of the instance.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.limiter.memory_bytes()
    }

    /// The capabilities; refuses calls of an instance that serves no build.
    pub(crate) fn caps(&self) -> wasmtime::Result<&C> {
        self.caps.as_ref().ok_or_else(|| {
            refuse(Failure::internal("the plugin called the host before it was asked anything"))
        })
    }

    /// Same, for changing.
    pub(crate) fn caps_mut(&mut self) -> wasmtime::Result<&mut C> {
        self.caps.as_mut().ok_or_else(|| {
            refuse(Failure::internal("the plugin called the host before it was asked anything"))
        })
    }

    /// Says a line, if there is somebody to say it to.
    pub(crate) fn say(&mut self, severity: Severity, text: String) {
        let limits = self.meter.limits;
        let Some(caps) = &self.caps else { return };
        match self.meter.log_line() {
            LogVerdict::Pass => caps.log().log(severity, clip(text, limits.log_line_bytes)),
            LogVerdict::Last => {
                let text = format!("more than {} messages; the rest is dropped", limits.log_lines);
                caps.log().log(Severity::Warning, text);
            }
            LogVerdict::Drop => {}
        }
    }

    /// Makes a handle.
    pub(crate) fn push<T: Send + 'static>(&mut self, value: T) -> wasmtime::Result<Resource<T>> {
        let handles = self.meter.limits.handles;
        self.table.push(value).map_err(|_| LimitReached::Handles(handles).into())
    }

    /// Makes a builder that holds `bytes`.
    pub(crate) fn begin<T: Send + 'static>(
        &mut self,
        value: T,
        bytes: usize,
    ) -> wasmtime::Result<Resource<Builder<T>>> {
        self.meter.charge(bytes)?;
        self.push(Builder { value, bytes, error: None })
    }

    /// Changes a builder, which then holds `bytes` more. Builder methods answer nothing, so the
    /// first failure is kept until the builder is used.
    pub(crate) fn edit<T: 'static>(
        &mut self,
        builder: &Resource<Builder<T>>,
        bytes: usize,
        change: impl FnOnce(&mut T) -> Result<(), Failure>,
    ) -> wasmtime::Result<()> {
        self.meter.charge(bytes)?;
        let builder = self.table.get_mut(builder)?;
        builder.bytes += bytes;
        if builder.error.is_none()
            && let Err(failure) = change(&mut builder.value)
        {
            // Its words may be the guest's.
            let failure = bounds::failure(failure);
            let bytes = failure.message.len();
            self.meter.charge(bytes)?;
            builder.bytes += bytes;
            builder.error = Some(failure);
        }
        Ok(())
    }

    /// Consumes a builder: the guest's handle is gone, whatever comes of it.
    pub(crate) fn finish<T: 'static>(
        &mut self,
        builder: Resource<Builder<T>>,
    ) -> wasmtime::Result<Result<T, Failure>> {
        let builder = self.table.delete(builder)?;
        self.meter.release(builder.bytes);
        Ok(match builder.error {
            Some(failure) => Err(failure),
            None => Ok(builder.value),
        })
    }

    /// The guest dropped a handle.
    pub(crate) fn forget<T: 'static>(&mut self, handle: Resource<T>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

/// Ends the guest with a failure: for functions that cannot answer one.
pub(crate) fn refuse(failure: Failure) -> wasmtime::Error {
    wasmtime::Error::new(HostRefusal(failure))
}

/// Something a guest describes by several calls.
pub struct Builder<T> {
    pub(crate) value: T,
    bytes: usize,
    error: Option<Failure>,
}
