//! Why a build failed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use wbuild_api::event::{BuildError, Event, EventSink, StepId};
use wbuild_graph::{Diagnostic, Failure, SourceMap};
use wbuild_supply::Problem;

use crate::render::style::Style;
use crate::render::text::plain_line;
use crate::render::{FailedStep, Report};

/// Lines that are kept of the output of each step.
const TAIL: usize = 30;

/// A build that failed. Shown, it is what the command line says: the message, the lines of the
/// definition, causes and hints.
#[derive(Clone, Debug)]
pub struct Error {
    /// What failed and why; `kind` is for programs.
    pub failure: Box<Failure>,
    /// The step that failed, if one did: its name, and the end of what it wrote.
    pub step: Option<FailedStep>,
    /// What diagnostics point into.
    pub sources: SourceMap,
}

impl Error {
    pub(crate) fn of(error: BuildError, steps: &Steps) -> Error {
        let BuildError { failure, step, sources } = error;
        let step = step.and_then(|id| steps.get(id));
        Error { failure: Box::new(failure), step, sources }
    }

    /// As text, with colours for a terminal if `colour`.
    pub fn render(&self, colour: bool) -> String {
        let style = Style::new(colour);
        let report = Report { style, sources: &self.sources, output_was_shown: false };
        report.failure(&self.failure, self.step.as_ref())
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Error { failure: Box::new(failure), step: None, sources: SourceMap::default() }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Error { failure: problem.failure, step: None, sources: problem.sources }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Error {}

/// Notes what is needed of steps to say which one failed, and what was reported; passes events on.
pub(crate) struct Steps {
    state: Mutex<State>,
    next: Arc<dyn EventSink>,
}

#[derive(Default)]
struct State {
    steps: Vec<(StepId, FailedStep)>,
    diagnostics: Vec<Diagnostic>,
}

impl Steps {
    pub(crate) fn new(next: Arc<dyn EventSink>) -> Arc<Steps> {
        Arc::new(Steps { state: Mutex::default(), next })
    }

    fn get(&self, id: StepId) -> Option<FailedStep> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.steps.iter().find(|(known, _)| *known == id).map(|(_, step)| step.clone())
    }

    /// What was reported about the definition.
    pub(crate) fn diagnostics(&self) -> Vec<Diagnostic> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.diagnostics.clone()
    }
}

impl EventSink for Steps {
    fn event(&self, event: Event) {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            match &event {
                Event::StepDefined { step, name, spans } => {
                    let number = state.steps.len() + 1;
                    let (name, spans) = (plain_line(name.as_bytes()), spans.clone());
                    let step_of = FailedStep { number, name, spans, ..FailedStep::default() };
                    state.steps.push((*step, step_of));
                }
                Event::StepLog { step, data, .. } => {
                    let found = state.steps.iter_mut().rev().find(|(known, _)| known == step);
                    if let Some((_, step)) = found {
                        note(step, data);
                    }
                }
                Event::Diagnostic { diagnostic } => state.diagnostics.push(diagnostic.clone()),
                _ => {}
            }
        }
        self.next.event(event);
    }
}

/// Adds output to the end of a step's.
fn note(step: &mut FailedStep, data: &[u8]) {
    for piece in data.split_inclusive(|byte| *byte == b'\n') {
        match step.tail.last_mut().filter(|line| !line.ends_with(b"\n")) {
            Some(line) => line.extend_from_slice(piece),
            None => {
                step.lines += 1;
                step.tail.push(piece.to_vec());
            }
        }
    }
    let surplus = step.tail.len().saturating_sub(TAIL);
    step.tail.drain(..surplus);
    // A line without an end is no way to fill the memory.
    if let Some(line) = step.tail.last_mut()
        && line.len() > 64 << 10
    {
        line.drain(..line.len() - (32 << 10));
    }
}
