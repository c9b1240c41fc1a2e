//! Frontends that call other frontends.
//!
//! ```text
//! frontend ─► nested.build ─► Nested ─► turns ─► called frontends, one at a time
//!                                ▲                    │
//!                                └── capabilities ◄── Called: what one of them may see
//! ```
//!
//! Invariants:
//!
//! - What a called frontend does goes through the capabilities of its caller, so it is in the caller's
//!   graph, and in the trace if the caller's run is recorded. Which component was called is asked
//!   there, too: another one makes the trace void.
//! - Everything happens in one order, whatever takes how long: numbers of nodes and sources, and the
//!   trace, are the same in every run. See [`turns`].
//! - A called frontend names only outputs that it made or was given, and sees only what it was given.
//! - It is narrowed by what the user leaves itself, below what its caller is left: calling adds nothing
//!   to either.

mod called;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use wbuild_api::extension::{
    DiagnosticsCap, Frontend, FrontendHost, GraphCap, InspectCap, NestedBuild, NestedCap,
    NestedResult, RequestCap, ResultsCap,
};
use wbuild_graph::{Failure, FailureKind};

use crate::frontend_host::plugin_log;
use crate::job::Job;
use called::{Called, Looking};

/// The frontends that others may call; the one place that says which.
#[async_trait]
pub trait FindFrontend: Send + Sync {
    /// The frontend that is called so, by a name or a reference. Fails for those that may not be.
    async fn find(&self, name: &str) -> Result<Callee, Failure>;
}

/// A frontend that may be called.
pub struct Callee {
    /// The frontend.
    pub frontend: Arc<dyn Frontend>,
    /// What there is to say of it.
    pub notes: Vec<String>,
}

/// Those that are at hand.
#[async_trait]
impl<F> FindFrontend for F
where
    F: Fn(&str) -> Result<Arc<dyn Frontend>, Failure> + Send + Sync,
{
    async fn find(&self, name: &str) -> Result<Callee, Failure> {
        Ok(Callee { frontend: self(name)?, notes: Vec::new() })
    }
}

/// How deep frontends may call each other.
const DEPTH: usize = 8;
/// The most calls of one build.
const CALLS: usize = 1000;
/// How many called frontends are there at once, for each depth: each may use much memory.
const BESIDE: usize = 16;

/// What a caller has, and what those that it calls go through.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) graph: Arc<dyn GraphCap>,
    pub(crate) inspect: Arc<dyn InspectCap>,
    pub(crate) request: Arc<dyn RequestCap>,
    pub(crate) diagnostics: Arc<dyn DiagnosticsCap>,
    /// For what is required; what else is yielded goes back to the caller.
    pub(crate) results: Arc<dyn ResultsCap>,
}

/// The capability of `caller` to call others.
pub(crate) fn over(
    job: &Arc<Job>,
    caller: Caller,
    find: Arc<dyn FindFrontend>,
) -> Arc<dyn NestedCap> {
    Arc::new(Nested { job: Arc::clone(job), caller, find, depth: 0, calls: Arc::default() })
}

/// The capability of one caller.
struct Nested {
    job: Arc<Job>,
    caller: Caller,
    find: Arc<dyn FindFrontend>,
    /// How many callers are above this one.
    depth: usize,
    /// Calls of the whole build so far.
    calls: Arc<AtomicUsize>,
}

#[async_trait]
impl NestedCap for Nested {
    async fn build(&self, requests: Vec<NestedBuild>) -> Vec<Result<NestedResult, Failure>> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter();
        loop {
            let mut wave = Vec::new();
            // One after the other, as they stand in the trace.
            for request in requests.by_ref().take(BESIDE) {
                wave.push(self.begin(request).await);
            }
            if wave.is_empty() {
                return answers;
            }
            answers.extend(turns::run(&self.job, wave).await);
        }
    }
}

/// A frontend that is to be called.
struct Begun {
    frontend: Arc<dyn Frontend>,
    host: FrontendHost,
    called: Arc<Called>,
    turns: turns::Questions,
}

impl Nested {
    async fn begin(&self, request: NestedBuild) -> Result<Begun, Failure> {
        let limit = |message: String| Failure::new(FailureKind::Limit, message);
        if self.depth >= DEPTH {
            let message = format!("frontends call each other more than {DEPTH} deep");
            return Err(limit(message).hint("does one of them come to build itself?"));
        }
        if self.calls.fetch_add(1, Ordering::Relaxed) >= CALLS {
            let message = format!("frontends are called more than {CALLS} times in this build");
            return Err(limit(message));
        }
        let frontend = self.find.find(&request.frontend).await?.frontend;
        let identity = frontend.identity();
        let called = Called::new(&self.job, self.caller.clone(), request, &identity)?;
        let (ask, turns) = turns::questions();
        let caller = Caller {
            graph: Arc::clone(&called) as Arc<dyn GraphCap>,
            // Those below are run while this one has its turn.
            inspect: Arc::new(Looking { called: Arc::clone(&called), turns: None }),
            request: Arc::clone(&called) as Arc<dyn RequestCap>,
            diagnostics: Arc::clone(&self.caller.diagnostics),
            results: Arc::clone(&called) as Arc<dyn ResultsCap>,
        };
        let host = FrontendHost {
            graph: Arc::clone(&caller.graph),
            inspect: Arc::new(Looking { called: Arc::clone(&called), turns: Some(ask) }),
            request: Arc::clone(&caller.request),
            diagnostics: Arc::clone(&caller.diagnostics),
            results: Arc::clone(&caller.results),
            nested: Arc::new(Nested {
                job: Arc::clone(&self.job),
                caller,
                find: Arc::clone(&self.find),
                depth: self.depth + 1,
                calls: Arc::clone(&self.calls),
            }),
            log: plugin_log(identity.name, Arc::clone(self.job.steps().sink())),
        };
        Ok(Begun { frontend, host, called, turns })
    }
}
