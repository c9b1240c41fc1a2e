//! Running a frontend against values.

use std::sync::Arc;

use wbuild_api::describe::{Description, Query};
use wbuild_api::extension::Frontend;
use wbuild_graph::Failure;

use crate::bench::lock;
use crate::case::Case;
use crate::record::Traced;
use crate::replay::Replayed;
use crate::snapshot::Snapshot;
use crate::staged::Staged;
use crate::trace::Trace;

/// A run: what came of it, and what was asked.
#[derive(Clone, Debug)]
pub struct Run {
    /// What came of it.
    pub snapshot: Snapshot,
    /// What was asked; none if the frontend did not get to its end.
    pub trace: Option<Trace>,
}

/// What came of a run against a trace.
#[derive(Clone, Debug)]
pub struct Replay {
    /// What it did.
    pub run: Run,
    /// Where it asked what the trace has no answer for.
    pub asked_else: Vec<String>,
}

impl Case {
    /// Runs a frontend once; waits for it.
    pub fn run(&self, frontend: impl Frontend + 'static) -> Snapshot {
        pollster::block_on(self.run_traced(Arc::new(frontend))).snapshot
    }

    /// Runs a frontend once and keeps what it asked.
    pub async fn run_traced(&self, frontend: Arc<dyn Frontend>) -> Run {
        let staged = Staged::new(&Arc::new(self.clone()));
        let traced = Traced::new(frontend);
        let result = traced.build(staged.host()).await;
        Run { snapshot: Snapshot::take(&staged.bench, result), trace: traced.trace() }
    }

    /// Asks a frontend about the definition instead of building it.
    pub fn describe(
        &self,
        frontend: impl Frontend + 'static,
        query: Query,
    ) -> (Result<Description, Failure>, Snapshot) {
        let staged = Staged::new(&Arc::new(self.clone()));
        let answer = pollster::block_on(frontend.describe(staged.host(), query));
        (answer, Snapshot::take(&staged.bench, Ok(())))
    }

    /// Runs a frontend twice, and then again with the answers of the first run and nothing else. What
    /// it does may depend on nothing but its answers: a difference is in words.
    pub async fn run_thrice(&self, frontend: &Arc<dyn Frontend>) -> (Run, Option<String>) {
        let first = self.run_traced(Arc::clone(frontend)).await;
        let second = self.run_traced(Arc::clone(frontend)).await;
        let (Some(one), Some(two)) = (&first.trace, &second.trace) else {
            return (first, None);
        };
        if let Some(difference) = one.difference(two) {
            let told = format!("two runs of the same build differ: {difference}");
            return (first, Some(told));
        }
        let again = replay(one, Arc::clone(frontend)).await;
        let told =
            match (&again.asked_else[..], again.run.trace.and_then(|two| one.difference(&two))) {
                ([asked, ..], _) => {
                    Some(format!("a run against its own trace asked else: {asked}"))
                }
                ([], Some(difference)) => {
                    Some(format!("a run against its own trace differs: {difference}"))
                }
                ([], None) => None,
            };
        (first, told)
    }
}

/// Runs a frontend with recorded answers and no machine at all.
pub async fn replay(trace: &Trace, frontend: Arc<dyn Frontend>) -> Replay {
    let replayed = Replayed::new(trace);
    let traced = Traced::new(frontend);
    let result = traced.build(replayed.host()).await;
    let snapshot = Snapshot::take(&replayed.bench, result);
    let asked_else = lock(&replayed.unanswered).clone();
    Replay { run: Run { snapshot, trace: traced.trace() }, asked_else }
}
