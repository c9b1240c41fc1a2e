//! The display for pipes, files and continuous integration: lines that are never taken back.
//!
//! ```text
//! #3 [build 2/5] RUN make
//! #3 0.123 cc -c foo.c
//! #3 DONE 1.2s
//! ```
//!
//! The number before a line of output is the seconds since the step began. Lines are whole. While
//! several steps write, one of them has the floor, so that their output does not alternate line by
//! line; what the others write waits for a moment.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use wbuild_api::event::{Event, StepEnd, StepId};
use wbuild_graph::Severity;

use super::evicted::evicted;
use super::model::{LogLine, Model};
use super::{Ending, Renderer};
use crate::explain;
use crate::terminal;
use crate::units;

/// A step that has been silent for so long gives the floor away.
const SILENCE_MS: u64 = 150;
/// Nobody waits longer than this for the floor.
const PATIENCE_MS: u64 = 1_000;
/// A step's output waits in at most so much memory.
const BUFFER: usize = 1 << 20;
/// How often a running transfer is shown.
const TRANSFER_MS: u64 = 5_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Plain {
    /// The step whose header was printed last.
    shown: Option<StepId>,
    /// The step that may write, and when it did last.
    floor: Option<(StepId, u64)>,
    /// What waits for the floor.
    waiting: BTreeMap<StepId, Buffered>,
    transfers: BTreeMap<StepId, u64>,
}

#[derive(Debug)]
struct Buffered {
    since_ms: u64,
    text: Vec<u8>,
    ended: bool,
}

impl Renderer for Plain {
    fn event(&mut self, event: &Event, lines: &[LogLine], model: &Model, out: &mut Vec<u8>) {
        for line in lines {
            self.log(line, model, out);
        }
        match event {
            Event::StepEnded { step, how, from, .. } => {
                let text = match how {
                    StepEnd::Done => {
                        let elapsed = model.step(*step).map_or(0, |s| s.elapsed_ms(model.now_ms));
                        format!("DONE {}", units::seconds(elapsed))
                    }
                    StepEnd::Cached => match from {
                        Some(from) => {
                            format!("CACHED from {}", terminal::plain(from).replace('\n', " "))
                        }
                        None => "CACHED".to_owned(),
                    },
                    StepEnd::Cancelled => "CANCELLED".to_owned(),
                    StepEnd::Failed(failure) => {
                        format!(
                            "ERROR: {}",
                            terminal::plain(&failure.to_string()).replace('\n', " ")
                        )
                    }
                };
                self.say(*step, text.as_bytes(), true, model, out);
                self.transfers.remove(step);
            }
            Event::StepProgress { step, item, current, total } => {
                let complete = total.is_some_and(|total| *current >= total);
                let last = self.transfers.get(step).copied();
                let due = last.is_none_or(|last| model.now_ms >= last + TRANSFER_MS);
                if complete || (due && last.is_some()) {
                    let item = terminal::plain_line(item.as_bytes());
                    let text = match total {
                        Some(total) => {
                            format!("{item} {} / {}", units::size(*current), units::size(*total))
                        }
                        None => format!("{item} {}", units::size(*current)),
                    };
                    self.say(*step, text.as_bytes(), false, model, out);
                }
                if due {
                    self.transfers.insert(*step, model.now_ms);
                }
            }
            Event::StepExplained { step, why } => {
                for line in explain::lines(why, None) {
                    self.say(*step, format!("because: {line}").as_bytes(), false, model, out);
                }
            }
            Event::PluginLog { plugin, severity, text } => {
                self.leave(out);
                let grade = match severity {
                    Severity::Error => "error: ",
                    Severity::Warning => "warning: ",
                    Severity::Note | Severity::Help => "",
                };
                let plugin = terminal::plain_line(plugin.as_bytes());
                for line in terminal::plain(text).lines() {
                    put(out, format_args!("{plugin}: {grade}{line}"));
                }
            }
            Event::Evicted { .. } => {
                self.leave(out);
                for (severity, text) in evicted(event) {
                    let grade = if severity == Severity::Warning { "warning: " } else { "" };
                    put(out, format_args!("wbuild: {grade}{text}"));
                }
            }
            Event::Waiting { holder } => {
                self.leave(out);
                let holder = terminal::plain_line(holder.as_bytes());
                put(out, format_args!("waiting for another build: {holder}"));
            }
            Event::StepDefined { .. }
            | Event::StepStarted { .. }
            | Event::StepLog { .. }
            | Event::StepWarning { .. }
            | Event::Diagnostic { .. } => {}
        }
        self.pass_on(model, out);
    }

    fn tick(&mut self, model: &Model, out: &mut Vec<u8>) {
        self.pass_on(model, out);
    }

    fn finish(&mut self, _: Ending, lines: &[LogLine], model: &Model, out: &mut Vec<u8>) {
        for line in lines {
            self.log(line, model, out);
        }
        while let Some(next) = self.longest_waiting() {
            self.give_floor(next, model, out);
        }
    }

    fn tick_every(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then_some(Duration::from_millis(50))
    }
}

impl Plain {
    fn log(&mut self, line: &LogLine, model: &Model, out: &mut Vec<u8>) {
        let started = model.step(line.step).and_then(|step| step.started_ms);
        let since = line.at_ms.saturating_sub(started.unwrap_or(line.at_ms));
        let mut text = format!("{}.{:03} ", since / 1000, since % 1000).into_bytes();
        text.extend_from_slice(&line.text);
        self.say(line.step, &text, false, model, out);
    }

    /// One line of a step: at once if it has the floor, else when it gets it.
    fn say(&mut self, step: StepId, text: &[u8], last: bool, model: &Model, out: &mut Vec<u8>) {
        let Some(known) = model.step(step) else { return };
        let mut line = format!("#{} ", known.number).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        let has_floor = self.floor.is_none_or(|(holder, _)| holder == step);
        if has_floor {
            self.header(step, model, out);
            out.extend_from_slice(&line);
            self.floor = (!last).then_some((step, model.now_ms));
            return;
        }
        let buffered = self.waiting.entry(step).or_insert_with(|| Buffered {
            since_ms: model.now_ms,
            text: Vec::new(),
            ended: false,
        });
        buffered.text.extend_from_slice(&line);
        buffered.ended = last;
        if buffered.text.len() > BUFFER {
            self.give_floor(step, model, out);
        }
    }

    /// Lets waiting steps write where the holder of the floor has ended, is silent, or has had it
    /// for long enough.
    fn pass_on(&mut self, model: &Model, out: &mut Vec<u8>) {
        while let Some(next) = self.longest_waiting() {
            let silent =
                self.floor.is_none_or(|(_, last)| model.now_ms.saturating_sub(last) >= SILENCE_MS);
            let since = self.waiting.get(&next).map_or(model.now_ms, |waiting| waiting.since_ms);
            if !silent && model.now_ms.saturating_sub(since) < PATIENCE_MS {
                break;
            }
            self.give_floor(next, model, out);
        }
    }

    fn longest_waiting(&self) -> Option<StepId> {
        self.waiting.iter().min_by_key(|(id, waiting)| (waiting.since_ms, **id)).map(|(id, _)| *id)
    }

    fn give_floor(&mut self, step: StepId, model: &Model, out: &mut Vec<u8>) {
        let Some(waiting) = self.waiting.remove(&step) else { return };
        self.header(step, model, out);
        out.extend_from_slice(&waiting.text);
        self.floor = (!waiting.ended).then_some((step, model.now_ms));
    }

    /// The step's name, when another step wrote before it.
    fn header(&mut self, step: StepId, model: &Model, out: &mut Vec<u8>) {
        if self.shown == Some(step) {
            return;
        }
        if self.shown.is_some() {
            out.push(b'\n');
        }
        self.shown = Some(step);
        if let Some(known) = model.step(step) {
            put(out, format_args!("#{} {}", known.number, known.name));
        }
    }

    /// Something that belongs to no step is said.
    fn leave(&mut self, out: &mut Vec<u8>) {
        if self.shown.take().is_some() {
            out.push(b'\n');
        }
    }
}

/// A line.
fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = writeln!(out, "{text}");
}
