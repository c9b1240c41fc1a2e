//! Steps: what people see of vertices. Turns what the solver reports into events.
//!
//! A step is a vertex of this build, named after the first node that has its digest. It is announced
//! with its first event. Hidden steps are announced only when they fail.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use wbuild_api::event::{Event, EventSink, StepEnd, StepId};
use wbuild_api::explain::{Explanation, StepOutcome};
use wbuild_graph::{Diagnostic, Failure, NodeMeta, VertexDigest};
use wbuild_solver::{Observer, SolveVertex, VertexEvent};

#[derive(Default)]
struct Step {
    meta: NodeMeta,
    id: Option<StepId>,
    /// What was found may still have to run later: not everything below a hit is kept. What was given
    /// up somebody else may ask for.
    ended: Option<StepOutcome>,
    /// The cache elsewhere that it was found in.
    from: Option<String>,
}

#[derive(Default)]
struct State {
    steps: HashMap<VertexDigest, Step>,
    next: u32,
    /// The first step that failed.
    failed: Option<StepId>,
    /// The first fetch that failed: to blame if no step that needed it does.
    fetch_failed: Option<StepId>,
}

/// A step that has ended.
pub(crate) struct EndedStep {
    pub(crate) digest: VertexDigest,
    /// As displays have it.
    pub(crate) number: u32,
    pub(crate) meta: NodeMeta,
    pub(crate) end: StepOutcome,
}

/// The steps of one build.
pub(crate) struct Steps {
    sink: Arc<dyn EventSink>,
    began: Instant,
    state: Mutex<State>,
    run: AtomicU64,
    cached: AtomicU64,
}

impl Steps {
    pub(crate) fn new(sink: Arc<dyn EventSink>) -> Self {
        Steps {
            sink,
            began: Instant::now(),
            state: Mutex::default(),
            run: AtomicU64::new(0),
            cached: AtomicU64::new(0),
        }
    }

    /// Milliseconds since the build began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn sink(&self) -> &Arc<dyn EventSink> {
        &self.sink
    }

    /// Steps that ran, and steps that were found.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.run.load(Ordering::Relaxed), self.cached.load(Ordering::Relaxed))
    }

    pub(crate) fn failed(&self) -> Option<StepId> {
        let state = self.lock();
        state.failed.or(state.fetch_failed)
    }

    /// The build fails for what a vertex did, though that ended.
    pub(crate) fn blame(&self, digest: VertexDigest) {
        let mut state = self.lock();
        let step = self.announce(&mut state, digest, true);
        state.failed = state.failed.or(step);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a vertex its name, unless it has one.
    pub(crate) fn name(&self, digest: VertexDigest, meta: &NodeMeta) {
        let mut state = self.lock();
        let step = state.steps.entry(digest).or_default();
        if step.meta.name.is_empty() && step.id.is_none() {
            step.meta = meta.clone();
        }
    }

    /// What is known of a vertex's name and places.
    pub(crate) fn meta(&self, digest: VertexDigest) -> NodeMeta {
        self.lock().steps.get(&digest).map(|step| step.meta.clone()).unwrap_or_default()
    }

    /// The step's id, announcing it if need be. None: nothing is shown of it.
    fn announce(&self, state: &mut State, digest: VertexDigest, force: bool) -> Option<StepId> {
        let step = state.steps.entry(digest).or_default();
        if let Some(id) = step.id {
            return Some(id);
        }
        if !force && (step.meta.hidden || step.meta.name.is_empty()) {
            return None;
        }
        state.next += 1;
        let id = StepId(state.next);
        step.id = Some(id);
        self.sink.event(Event::StepDefined {
            step: id,
            name: step.meta.name.clone(),
            spans: step.meta.spans.clone(),
        });
        Some(id)
    }

    /// Begins a step anew that was found or given up and turns out to be needed after all.
    fn revive(&self, state: &mut State, digest: VertexDigest) {
        let step = state.steps.entry(digest).or_default();
        if step.ended == Some(StepOutcome::Cached) {
            step.from = None;
            self.cached.fetch_sub(1, Ordering::Relaxed);
        }
        if matches!(step.ended, Some(StepOutcome::Cached | StepOutcome::Cancelled)) {
            (step.id, step.ended) = (None, None);
        }
    }

    fn started(&self, digest: VertexDigest) {
        let at_ms = self.now();
        let mut state = self.lock();
        self.revive(&mut state, digest);
        if let Some(step) = self.announce(&mut state, digest, false) {
            self.sink.event(Event::StepStarted { step, at_ms });
        }
    }

    fn ended(&self, digest: VertexDigest, how: StepEnd) {
        let at_ms = self.now();
        let mut state = self.lock();
        let force = matches!(how, StepEnd::Failed(_));
        let given_up =
            state.steps.get(&digest).is_some_and(|s| s.ended == Some(StepOutcome::Cancelled));
        if force || given_up && !matches!(how, StepEnd::Cancelled) {
            self.revive(&mut state, digest);
        }
        let Some(step) = self.announce(&mut state, digest, force) else {
            return;
        };
        let entry = state.steps.entry(digest).or_default();
        if entry.ended.is_some() {
            return;
        }
        entry.ended = Some(match how {
            StepEnd::Done => StepOutcome::Done,
            StepEnd::Cached => StepOutcome::Cached,
            StepEnd::Failed(_) => StepOutcome::Failed,
            StepEnd::Cancelled => StepOutcome::Cancelled,
        });
        let from = entry.from.take().filter(|_| how == StepEnd::Cached);
        match how {
            StepEnd::Done => self.run.fetch_add(1, Ordering::Relaxed),
            StepEnd::Cached => self.cached.fetch_add(1, Ordering::Relaxed),
            StepEnd::Failed(_) => {
                state.failed.get_or_insert(step);
                0
            }
            StepEnd::Cancelled => 0,
        };
        self.sink.event(Event::StepEnded { step, how, from, at_ms });
    }

    /// Where a vertex's result was found, if not here.
    pub(crate) fn found_in(&self, digest: VertexDigest, place: String) {
        self.lock().steps.entry(digest).or_default().from = Some(place);
    }

    /// The cache elsewhere that a vertex was found in, until its step ends.
    pub(crate) fn elsewhere(&self, digest: VertexDigest) -> Option<String> {
        self.lock().steps.get(&digest)?.from.clone()
    }

    /// Why a step runs, or where its result came from.
    pub(crate) fn explained(&self, digest: VertexDigest, why: Explanation) {
        let mut state = self.lock();
        if let Some(step) = self.announce(&mut state, digest, false) {
            self.sink.event(Event::StepExplained { step, why });
        }
    }

    /// The steps that have been shown and have ended, in the order of their numbers.
    pub(crate) fn all_ended(&self) -> Vec<EndedStep> {
        let state = self.lock();
        let ended = state.steps.iter().filter_map(|(digest, step)| {
            let (id, end) = (step.id?, step.ended?);
            Some(EndedStep { digest: *digest, number: id.0, meta: step.meta.clone(), end })
        });
        let mut ended: Vec<EndedStep> = ended.collect();
        ended.sort_by_key(|step| step.number);
        ended
    }

    /// Output of a step.
    pub(crate) fn output(&self, digest: VertexDigest, stream: u8, data: &[u8]) {
        let at_ms = self.now();
        let mut state = self.lock();
        if let Some(step) = self.announce(&mut state, digest, false) {
            self.sink.event(Event::StepLog { step, stream, data: data.into(), at_ms });
        }
    }

    /// A warning of a step.
    pub(crate) fn warning(&self, digest: VertexDigest, diagnostic: Diagnostic) {
        let mut state = self.lock();
        if let Some(step) = self.announce(&mut state, digest, true) {
            self.sink.event(Event::StepWarning { step, diagnostic });
        }
    }

    /// Work of the engine's own that is shown like a step, e.g. an export.
    pub(crate) fn internal(self: &Arc<Self>, name: &str) -> InternalStep {
        let at_ms = self.now();
        let mut state = self.lock();
        state.next += 1;
        let step = StepId(state.next);
        self.sink.event(Event::StepDefined { step, name: name.to_owned(), spans: Vec::new() });
        self.sink.event(Event::StepStarted { step, at_ms });
        InternalStep { steps: Arc::clone(self), step, ended: false }
    }
}

impl Observer for Steps {
    fn vertex(&self, vertex: &SolveVertex, event: VertexEvent) {
        match event {
            VertexEvent::Started => self.started(vertex.digest),
            VertexEvent::Cached => self.ended(vertex.digest, StepEnd::Cached),
            VertexEvent::Done => self.ended(vertex.digest, StepEnd::Done),
            VertexEvent::Cancelled => self.ended(vertex.digest, StepEnd::Cancelled),
            VertexEvent::Failed(failure) => self.ended(vertex.digest, StepEnd::Failed(failure)),
        }
    }
}

/// A step that is no vertex. Ends as cancelled when dropped.
pub(crate) struct InternalStep {
    steps: Arc<Steps>,
    step: StepId,
    ended: bool,
}

impl InternalStep {
    pub(crate) fn progress(&self, item: &str, current: u64, total: Option<u64>) {
        let (step, item) = (self.step, item.to_owned());
        self.steps.sink.event(Event::StepProgress { step, item, current, total });
    }

    pub(crate) fn done(mut self) {
        self.end(StepEnd::Done);
    }

    /// It failed, and the build goes on.
    pub(crate) fn in_vain(mut self, failure: &Failure) {
        self.end(StepEnd::Failed(failure.clone()));
    }

    pub(crate) fn failed(mut self, failure: &Failure) {
        self.steps.lock().failed.get_or_insert(self.step);
        self.end(StepEnd::Failed(failure.clone()));
    }

    /// What was fetched for a step did not come. The step itself says where it was asked for.
    pub(crate) fn fetch_failed(mut self, failure: &Failure) {
        self.steps.lock().fetch_failed.get_or_insert(self.step);
        self.end(StepEnd::Failed(failure.clone()));
    }

    fn end(&mut self, how: StepEnd) {
        self.ended = true;
        let at_ms = self.steps.now();
        self.steps.sink.event(Event::StepEnded { step: self.step, how, from: None, at_ms });
    }
}

impl Drop for InternalStep {
    fn drop(&mut self) {
        if !self.ended {
            self.end(StepEnd::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wbuild_graph::Digest;

    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    impl EventSink for Log {
        fn event(&self, event: Event) {
            let line = match event {
                Event::StepDefined { step, .. } => format!("{} defined", step.0),
                Event::StepStarted { step, .. } => format!("{} started", step.0),
                Event::StepEnded { step, how: StepEnd::Cached, .. } => format!("{} found", step.0),
                Event::StepEnded { step, .. } => format!("{} ended", step.0),
                _ => return,
            };
            self.0.lock().expect("log").push(line);
        }
    }

    #[test]
    fn a_step_that_was_found_and_has_to_run_is_a_step_of_its_own() {
        let log = Arc::new(Log::default());
        let steps = Steps::new(Arc::clone(&log) as Arc<dyn EventSink>);
        let digest = VertexDigest(Digest::of(b"step"));
        steps.name(digest, &NodeMeta { name: "RUN x".to_owned(), ..NodeMeta::default() });
        steps.ended(digest, StepEnd::Cached);
        steps.ended(digest, StepEnd::Cached);
        assert_eq!(steps.counts(), (0, 1));
        steps.started(digest);
        steps.ended(digest, StepEnd::Failed(Failure::internal("x")));
        steps.ended(digest, StepEnd::Failed(Failure::internal("x")));
        assert_eq!(steps.failed(), Some(StepId(2)));
        assert_eq!(steps.counts(), (0, 0));
        let expected = ["1 defined", "1 found", "2 defined", "2 started", "2 ended"];
        assert_eq!(*log.0.lock().expect("log"), expected);
    }

    #[test]
    fn a_fetch_is_to_blame_only_if_no_step_is() {
        let steps = Arc::new(Steps::new(Arc::new(Log::default()) as Arc<dyn EventSink>));
        let digest = VertexDigest(Digest::of(b"step"));
        steps.name(digest, &NodeMeta { name: "ADD x".to_owned(), ..NodeMeta::default() });
        let failure = Failure::internal("x");
        steps.internal("fetch x").fetch_failed(&failure);
        assert_eq!(steps.failed(), Some(StepId(1)));
        steps.ended(digest, StepEnd::Failed(failure));
        assert_eq!(steps.failed(), Some(StepId(2)));
    }

    #[test]
    fn a_step_that_was_given_up_and_is_asked_for_again_is_a_step_of_its_own() {
        let log = Arc::new(Log::default());
        let steps = Steps::new(Arc::clone(&log) as Arc<dyn EventSink>);
        let digest = VertexDigest(Digest::of(b"step"));
        steps.name(digest, &NodeMeta { name: "RUN x".to_owned(), ..NodeMeta::default() });
        steps.started(digest);
        steps.ended(digest, StepEnd::Cancelled);
        steps.started(digest);
        steps.ended(digest, StepEnd::Cancelled);
        steps.ended(digest, StepEnd::Cancelled);
        steps.ended(digest, StepEnd::Cached);
        assert_eq!(steps.counts(), (0, 1));
        steps.started(digest);
        steps.ended(digest, StepEnd::Done);
        assert_eq!(steps.counts(), (1, 0));
        let found = log.0.lock().expect("log").join(", ");
        let expected = "1 defined, 1 started, 1 ended, 2 defined, 2 started, 2 ended, \
                        3 defined, 3 found, 4 defined, 4 started, 4 ended";
        assert_eq!(found, expected);
    }
}
