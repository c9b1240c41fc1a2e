//! What ended a guest, in words: traps, limits and link errors become [`Failure`]s.

use wasmtime::component::ResourceTableError;
use wasmtime::{Trap, WasmBacktrace};
use wbuild_graph::{Failure, FailureKind};

use crate::PluginKind;
use crate::limits::{LimitReached, Limits, size};

/// A failure of a host function that has no way to answer one; ends the guest.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct HostRefusal(pub(crate) Failure);

/// Something that a guest does and that ends it: the failure's message goes on where "the frontend x"
/// ends.
#[derive(Debug, thiserror::Error)]
#[error("the plugin {0}")]
pub(crate) struct GuestDid(pub(crate) Failure);

/// Frames of a guest's stack that are shown.
const FRAMES: usize = 10;

/// Whom messages are about.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) kind: PluginKind,
    pub(crate) name: &'a str,
    pub(crate) limits: &'a Limits,
}

impl Subject<'_> {
    /// The failure of an error that ended the guest.
    pub(crate) fn ended(&self, error: wasmtime::Error) -> Failure {
        let Subject { kind, name, .. } = self;
        if let Some(HostRefusal(failure)) = error.downcast_ref() {
            return failure.clone().attr("plugin", *name);
        }
        if let Some(GuestDid(failure)) = error.downcast_ref() {
            let mut failure = failure.clone().attr("plugin", *name);
            failure.message = format!("the {kind} {name} {}", failure.message);
            return failure;
        }
        let limit = self.limit(&error);
        if let Some(limit) = limit {
            return limit.failure(*kind, name);
        }
        let message = match error.downcast_ref::<Trap>() {
            Some(Trap::StackOverflow) => format!("the {kind} {name} overflowed its stack"),
            Some(_) => format!("the {kind} {name} crashed"),
            None => format!("the {kind} {name} was ended"),
        };
        let mut failure = Failure::internal(message)
            .attr("plugin", *name)
            .hint(format!("this is a bug of the {kind}, not of the build it was run for"));
        failure.causes.push(error.root_cause().to_string());
        failure.causes.extend(error.downcast_ref::<WasmBacktrace>().and_then(stack));
        failure
    }

    /// The failure of an error that came up while an instance was made: what its code did is told
    /// from what it is.
    pub(crate) fn not_made(&self, error: wasmtime::Error) -> Failure {
        let ran = error.downcast_ref::<Trap>().is_some()
            || error.downcast_ref::<HostRefusal>().is_some()
            || error.downcast_ref::<GuestDid>().is_some()
            || error.downcast_ref::<WasmBacktrace>().is_some()
            || self.limit(&error).is_some();
        if ran { self.ended(error) } else { self.link(error) }
    }

    /// The bound that an error means, if it means one.
    fn limit(&self, error: &wasmtime::Error) -> Option<LimitReached> {
        if let Some(limit) = error.downcast_ref::<LimitReached>() {
            return Some(limit.clone());
        }
        let limits = self.limits;
        if let Some(ResourceTableError::Full) = error.downcast_ref() {
            return Some(LimitReached::Handles(limits.handles));
        }
        // Limits of wasmtime's own have no type that could be asked for.
        let text = error.root_cause().to_string();
        if text.contains("store handle limit exceeded") {
            Some(LimitReached::Handles(limits.handles.saturating_mul(2)))
        } else if text.contains("fuel allocated for hostcalls") {
            Some(LimitReached::call(limits))
        } else if text.starts_with("resource limit exceeded: ") {
            Some(LimitReached::Instances(limits.instances))
        } else {
            None
        }
    }

    /// The failure of a component that does not fit the host's functions.
    pub(crate) fn link(&self, error: wasmtime::Error) -> Failure {
        let Subject { kind, name, .. } = self;
        let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
        let missing = chain.last().is_some_and(|last| last.ends_with("implementation is missing"));
        let mut failure = if missing {
            Failure::unsupported(format!("the {kind} {name} needs a newer wbuild"))
                .hint("update wbuild, or use an older version of the plugin")
        } else {
            Failure::invalid(format!("the {kind} {name} does not fit this wbuild")).hint(
                "it was made for another version of the wbuild packages; build it anew from the \
                 WIT files of this version",
            )
        };
        failure.causes = chain;
        failure.attr("plugin", *name)
    }

    /// The failure of bytes that are no valid component.
    pub(crate) fn invalid(&self, error: &wasmtime::Error) -> Failure {
        let Subject { kind, name, .. } = self;
        let mut failure =
            Failure::invalid(format!("the {kind} {name} is not a valid WebAssembly component"));
        failure.causes = error.chain().map(ToString::to_string).collect();
        failure.attr("plugin", *name)
    }

    /// The failure of a component that is larger than its kind may be.
    pub(crate) fn too_large(&self, bytes: usize) -> Failure {
        let Subject { kind, name, limits } = self;
        Failure::new(
            FailureKind::Limit,
            format!(
                "the {kind} {name} is {} large, more than {}",
                size(bytes),
                size(limits.component_bytes)
            ),
        )
        .attr("plugin", *name)
    }
}

/// The guest's call stack, innermost function first.
fn stack(backtrace: &WasmBacktrace) -> Option<String> {
    let frames = backtrace.frames();
    let names: Vec<String> = frames
        .iter()
        .take(FRAMES)
        .map(|frame| match frame.func_name() {
            Some(name) => format!("`{name}`"),
            None => format!("function {}", frame.func_index()),
        })
        .collect();
    if names.is_empty() {
        return None;
    }
    let more = if frames.len() > FRAMES { ", called by more" } else { "" };
    Some(format!("in {}{more}", names.join(", called by ")))
}
