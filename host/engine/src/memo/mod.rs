//! Memoised planning: what a frontend asked, was told and did is kept, and as long as the host would
//! tell it the same again, it need not run. A *verifying trace*, as in Mokhov, Mitchell and Peyton
//! Jones, "Build Systems à la Carte" (2018), section 4.2.
//!
//! ```text
//! frontend ─► record ─► capabilities          first run: every call passes through `record`
//!               │
//!               ▼
//!             trace ─► replay ─► capabilities   later: no frontend, its calls are made again
//! ```
//!
//! Invariants:
//!
//! - A frontend is hermetic: what it does is a function of its component and of the answers it gets.
//!   So a trace holds if every question in it is answered as before, in order.
//! - Frontends that a frontend calls are part of its run: what they do goes through `record`, and so
//!   does the question which component they are.
//! - Only runs that succeeded are kept, and only if no answer was of the passing kind (a registry
//!   that could not be reached).
//! - Nothing the user sees happens before the whole trace held; what a trace that does not hold has
//!   added to the job is taken back.
//! - Losing a trace costs a run of the frontend, nothing else.

mod record;
mod replay;
mod trace;

use std::sync::Arc;

use wbuild_api::extension::{Frontend, PluginIdentity};
use wbuild_graph::{Digest, Failure};
use wbuild_store::DocumentKind;

use crate::blocking;
use crate::frontend_host::frontend_host;
use crate::job::Job;
use crate::keyed_secrets::KeyedSecrets;
use record::Recorder;
use trace::Trace;

/// How a graph came about.
pub(crate) struct Planned {
    /// The trace held, and the frontend was not run.
    pub(crate) held: bool,
    /// Calls of the frontend, or of the trace.
    pub(crate) calls: u64,
}

/// Runs the frontend, or what it did last time if that is what it would do now.
pub(crate) async fn plan(job: &Arc<Job>, frontend: &Arc<dyn Frontend>) -> Result<Planned, Failure> {
    let identity = frontend.identity();
    let id = id(job, &identity);
    let store = job.worker().store.clone();
    let known = {
        let (store, id) = (store.clone(), id.clone());
        // One that cannot be read is as good as none.
        blocking(move || store.load_document(DocumentKind::Memo, &id)).await.ok().flatten()
    };
    if let Some(trace) = known.as_deref().and_then(Trace::decode) {
        if replay::replay(&trace, &frontend_host(job, &identity.name), job).await {
            return Ok(Planned { held: true, calls: trace.calls.len() as u64 });
        }
        job.forget_plan();
    }
    let recorder = Recorder::new(job, frontend_host(job, &identity.name));
    frontend.build(recorder.host()).await?;
    let calls = recorder.calls();
    if let Some(trace) = recorder.finish() {
        // Beside the build, which need not wait for it before its end. Without it the next build
        // runs the frontend.
        job.save_beside(blocking(move || match trace.encode() {
            Some(data) => store.save_document(DocumentKind::Memo, &id, &data),
            None => Ok(()),
        }));
    }
    Ok(Planned { held: false, calls })
}

/// What the trace of a build is found by: the plugin, and what nearly every frontend asks first, so
/// that builds that differ in it keep traces side by side.
fn id(job: &Job, identity: &PluginIdentity) -> String {
    let request = job.request();
    let place = crate::explain::place_of(request);
    let wishes = (
        (env!("CARGO_PKG_VERSION"), identity.digest, &identity.wit_version),
        (job.options(), &request.targets, job.target_platforms(), &request.contexts),
        // Part of the graph, and no answer to any question.
        job.keyed_secrets().map(KeyedSecrets::hashes).filter(|hashes| !hashes.is_empty()),
    );
    let wishes = serde_json::to_vec(&wishes).expect("keys are strings, so it is JSON");
    format!("{} {place} {}", identity.name, &Digest::of(&wishes).hex()[..16])
}
