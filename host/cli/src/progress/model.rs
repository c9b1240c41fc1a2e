//! What is known of a build's steps: their state, times, transfers and the end of their output.

use std::collections::{BTreeMap, VecDeque};

use wbuild_api::event::{Event, StepEnd, StepId};
use wbuild_graph::{Diagnostic, Failure, Span};

use super::lines::Splitter;
use super::spool::Spool;

/// Lines kept of each step for the live view and for a failure's report.
pub const TAIL_LINES: usize = 40;

/// Of a kept line at most so many bytes are kept; the display of the whole is not clipped.
const TAIL_LINE_BYTES: usize = 4 << 10;

/// A complete line of a step's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Whose.
    pub step: StepId,
    /// Without its line feed.
    pub text: Vec<u8>,
    /// When its end came.
    pub at_ms: u64,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Not begun.
    Waiting,
    /// At work.
    Running,
    /// Ended.
    Ended(StepEnd),
}

/// One step.
#[derive(Debug)]
pub struct Step {
    /// In the order of definition, from 1.
    pub number: usize,
    /// Free of control characters.
    pub name: String,
    /// Where the source says so.
    pub spans: Vec<Span>,
    /// See [`State`].
    pub state: State,
    /// When it began, in the build's milliseconds.
    pub started_ms: Option<u64>,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// Transfers by item: bytes so far, and in all if known.
    pub transfers: BTreeMap<String, (u64, Option<u64>)>,
    /// The last lines of its output.
    pub tail: VecDeque<Vec<u8>>,
    /// Lines of output in all.
    pub lines: u64,
    /// Warnings of the step.
    pub warnings: Vec<Diagnostic>,
    splitters: [Splitter; 2],
    /// All of the output, where the display does not show it as it comes.
    pub whole: Option<Spool>,
}

impl Step {
    /// Time from begin to end, or to now.
    pub fn elapsed_ms(&self, now_ms: u64) -> u64 {
        match self.started_ms {
            Some(started) => self.ended_ms.unwrap_or(now_ms).saturating_sub(started),
            None => 0,
        }
    }

    /// Why it failed.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.state {
            State::Ended(StepEnd::Failed(failure)) => Some(failure),
            _ => None,
        }
    }

    fn line(&mut self, text: &[u8]) {
        self.lines += 1;
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        let mut kept = text[..text.len().min(TAIL_LINE_BYTES)].to_vec();
        if kept.len() < text.len() {
            kept.extend_from_slice(" … (line cut)".as_bytes());
        }
        self.tail.push_back(kept);
        if let Some(whole) = &mut self.whole {
            whole.line(text);
        }
    }
}

/// All that is known of a build.
#[derive(Debug)]
pub struct Model {
    steps: BTreeMap<StepId, Step>,
    /// The build's time: the latest time heard of.
    pub now_ms: u64,
    /// Steps that have ended.
    pub ended: usize,
    /// Messages about the sources, each once, in the order they came.
    pub diagnostics: Vec<Diagnostic>,
    /// The live display may drop what a step that went well has written.
    keep_whole: bool,
}

impl Model {
    /// A model that keeps the output of steps whole, or only its end.
    pub fn new(keep_whole: bool) -> Self {
        Model { steps: BTreeMap::new(), now_ms: 0, ended: 0, diagnostics: Vec::new(), keep_whole }
    }

    /// A step.
    pub fn step(&self, id: StepId) -> Option<&Step> {
        self.steps.get(&id)
    }

    /// A step, to read its whole output.
    pub fn step_mut(&mut self, id: StepId) -> Option<&mut Step> {
        self.steps.get_mut(&id)
    }

    /// All steps by id.
    pub fn steps(&self) -> impl Iterator<Item = (StepId, &Step)> {
        self.steps.iter().map(|(id, step)| (*id, step))
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is no step.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The clock says so.
    pub fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// Takes an event in and hands out the lines it completed.
    pub fn apply(&mut self, event: &Event) -> Vec<LogLine> {
        let mut lines = Vec::new();
        match event {
            Event::StepDefined { step, name, spans } => {
                let number = self.steps.len() + 1;
                let keep_whole = self.keep_whole;
                self.steps.entry(*step).or_insert_with(|| Step {
                    number,
                    name: crate::terminal::plain(name).replace('\n', " "),
                    spans: spans.clone(),
                    state: State::Waiting,
                    started_ms: None,
                    ended_ms: None,
                    transfers: BTreeMap::new(),
                    tail: VecDeque::new(),
                    lines: 0,
                    warnings: Vec::new(),
                    splitters: Default::default(),
                    whole: keep_whole.then(Spool::default),
                });
            }
            Event::StepStarted { step, at_ms } => {
                self.advance(*at_ms);
                if let Some(step) = self.steps.get_mut(step) {
                    step.state = State::Running;
                    step.started_ms.get_or_insert(*at_ms);
                }
            }
            Event::StepLog { step: id, stream, data, at_ms } => {
                self.advance(*at_ms);
                if let Some(step) = self.steps.get_mut(id) {
                    // The two streams are cut apart: a line of one does not end one of the other.
                    let which = usize::from(*stream == 2);
                    let mut texts = Vec::new();
                    step.splitters[which].push(data, |text| texts.push(text));
                    for text in texts {
                        step.line(&text);
                        lines.push(LogLine { step: *id, text, at_ms: *at_ms });
                    }
                }
            }
            Event::StepProgress { step, item, current, total } => {
                if let Some(step) = self.steps.get_mut(step) {
                    step.transfers.insert(item.clone(), (*current, *total));
                }
            }
            Event::StepWarning { step, diagnostic } => {
                if let Some(step) = self.steps.get_mut(step) {
                    step.warnings.push(diagnostic.clone());
                }
                self.note(diagnostic);
            }
            Event::StepEnded { step: id, how, at_ms, .. } => {
                self.advance(*at_ms);
                if let Some(step) = self.steps.get_mut(id) {
                    lines.extend(left_over(*id, step, *at_ms));
                    if !matches!(step.state, State::Ended(_)) {
                        self.ended += 1;
                    }
                    step.state = State::Ended(how.clone());
                    step.ended_ms = Some(*at_ms);
                    if !matches!(how, StepEnd::Failed(_)) {
                        // Nobody will ask for it any more.
                        step.whole = None;
                        step.tail = VecDeque::new();
                    }
                }
            }
            Event::Diagnostic { diagnostic } => self.note(diagnostic),
            Event::StepExplained { .. }
            | Event::PluginLog { .. }
            | Event::Waiting { .. }
            | Event::Evicted { .. } => {}
        }
        lines
    }

    /// The build is over: hands out what steps left without a line feed.
    pub fn close(&mut self) -> Vec<LogLine> {
        let now = self.now_ms;
        self.steps.iter_mut().flat_map(|(id, step)| left_over(*id, step, now)).collect()
    }

    fn note(&mut self, diagnostic: &Diagnostic) {
        if !self.diagnostics.contains(diagnostic) {
            self.diagnostics.push(diagnostic.clone());
        }
    }
}

fn left_over(id: StepId, step: &mut Step, at_ms: u64) -> Vec<LogLine> {
    let mut lines = Vec::new();
    for which in 0..step.splitters.len() {
        if let Some(text) = step.splitters[which].finish() {
            step.line(&text);
            lines.push(LogLine { step: id, text, at_ms });
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(stream: u8, text: &str) -> Event {
        Event::StepLog { step: StepId(7), stream, data: text.as_bytes().into(), at_ms: 5 }
    }

    fn one_step(keep_whole: bool) -> Model {
        let mut model = Model::new(keep_whole);
        let name = "RUN \x1b[31mx\ny".to_owned();
        model.apply(&Event::StepDefined { step: StepId(7), name, spans: Vec::new() });
        model.apply(&Event::StepStarted { step: StepId(7), at_ms: 3 });
        model
    }

    #[test]
    fn streams_do_not_mix_within_a_line() {
        let mut model = one_step(false);
        assert!(model.apply(&log(1, "out")).is_empty());
        let lines = model.apply(&log(2, "err\n"));
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].text, b"err");
        assert_eq!(model.apply(&log(1, "put\n"))[0].text, b"output");
        let step = model.step(StepId(7)).expect("defined");
        assert_eq!(step.name, "RUN x y");
        assert_eq!((step.number, step.lines), (1, 2));
    }

    #[test]
    fn the_tail_is_bounded_and_the_whole_is_whole() {
        let mut model = one_step(true);
        for number in 0..1000 {
            model.apply(&log(1, &format!("{number}\n")));
        }
        model.apply(&log(1, &"x".repeat(10_000)));
        let failed = StepEnd::Failed(Failure::invalid("no"));
        let ended = Event::StepEnded { step: StepId(7), how: failed, from: None, at_ms: 9 };
        assert_eq!(model.apply(&ended).len(), 1, "the rest without a line feed");
        let now = model.now_ms;
        let step = model.step_mut(StepId(7)).expect("defined");
        assert_eq!(step.lines, 1001);
        assert_eq!(step.tail.len(), TAIL_LINES);
        assert!(step.tail.iter().all(|line| line.len() < TAIL_LINE_BYTES + 32));
        assert_eq!(step.elapsed_ms(now), 6);
        let mut whole = Vec::new();
        step.whole.as_mut().expect("kept").copy_to(&mut whole).expect("copy");
        assert_eq!(whole.iter().filter(|byte| **byte == b'\n').count(), 1001);
    }

    #[test]
    fn unknown_steps_are_ignored() {
        let mut model = Model::new(false);
        assert!(model.apply(&log(1, "x\n")).is_empty());
        model.apply(&Event::StepEnded {
            step: StepId(1),
            how: StepEnd::Done,
            from: None,
            at_ms: 1,
        });
        assert_eq!((model.len(), model.ended), (0, 0));
    }
}
