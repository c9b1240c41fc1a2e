//! The display for people at a terminal: what has ended scrolls up, what runs is drawn below it
//! and drawn again as it changes.
//!
//! ```text
//!  => CACHED [build 1/5] FROM alpine                                  0.0s
//!  => [build 2/5] COPY . .                                            0.3s
//! [+] Building 3.4s (2/7)
//!  => [build 3/5] RUN make                                            2.1s
//!  => => cc -c foo.c
//! ```
//!
//! A frame is one write: cursor up over the last frame, the lines that scroll, the new frame, each
//! line over the old one, and only then what is left of the old frame is cleared, so that nothing
//! flickers. A frame is never higher than the terminal, and no line of it is wider, so that the
//! cursor's way back is known. A build that is over before the first frame is due draws none.

use std::fmt::Write as _;
use std::time::Duration;

use wbuild_api::event::{Event, StepEnd, StepId};
use wbuild_graph::Severity;

use super::evicted::evicted;
use super::model::{LogLine, Model, State, Step};
use super::{Ending, Renderer};
use crate::explain;
use crate::report::style::{Paint, Style};
use crate::terminal;
use crate::units;

/// Time between two frames.
const FRAME_MS: u64 = 100;
/// Lines of output under each running step, where there is room.
const LOG_LINES: usize = 6;
/// Rows of a frame, where the terminal has more.
const MAX_ROWS: usize = 30;
/// Clears from the cursor to the end of the line, and goes to the next.
const END_OF_LINE: &str = "\x1b[K\n";
/// Clears from the cursor to the end of the screen.
const CLEAR_BELOW: &str = "\x1b[J";

/// See the module.
pub struct Tty {
    style: Style,
    /// Columns and rows; asked for each frame, since the window may change.
    window: Box<dyn FnMut() -> (usize, usize) + Send>,
    /// Rows of the frame that is on the screen.
    drawn: usize,
    /// When it was drawn; 0 = none was drawn yet.
    drawn_ms: u64,
    /// Lines that scroll with the next frame.
    above: String,
    /// Shown instead of steps while there is none.
    waiting: Option<String>,
}

impl Tty {
    /// A display for a terminal whose size `window` tells.
    pub fn new(style: Style, window: Box<dyn FnMut() -> (usize, usize) + Send>) -> Self {
        let above = String::new();
        Tty { style, window, drawn: 0, drawn_ms: 0, above, waiting: None }
    }
}

impl Renderer for Tty {
    fn event(&mut self, event: &Event, _: &[LogLine], model: &Model, _: &mut Vec<u8>) {
        match event {
            Event::StepStarted { .. } => self.waiting = None,
            Event::StepEnded { step, from, .. } => {
                if let Some(step) = model.step(*step) {
                    let (columns, _) = (self.window)();
                    let line = self.step_line(step, from.as_deref(), model.now_ms, columns);
                    self.scroll(&line);
                }
            }
            Event::StepExplained { step, why } => {
                let (columns, _) = (self.window)();
                let name = model.step(*step).map_or("", |step| &step.name);
                let name = terminal::truncate(name, columns / 2);
                // Whole, however narrow the terminal: what scrolls is not drawn over.
                for line in explain::lines(why, None) {
                    let line = self.style.paint(Paint::Dim, &format!(" => => {name}: {line}"));
                    self.scroll(&line);
                }
            }
            Event::PluginLog { plugin, severity, text } => {
                let plugin = terminal::plain_line(plugin.as_bytes());
                let grade = match severity {
                    Severity::Error => self.style.paint(Paint::Error, "error: "),
                    Severity::Warning => self.style.paint(Paint::Warning, "warning: "),
                    Severity::Note | Severity::Help => String::new(),
                };
                for line in terminal::plain(text).lines() {
                    self.scroll(&format!("{plugin}: {grade}{line}"));
                }
            }
            Event::Evicted { .. } => {
                for (severity, text) in evicted(event) {
                    let grade = match severity {
                        Severity::Warning => self.style.paint(Paint::Warning, "warning: "),
                        _ => String::new(),
                    };
                    self.scroll(&format!("wbuild: {grade}{text}"));
                }
            }
            Event::Waiting { holder } => {
                let holder = terminal::plain_line(holder.as_bytes());
                self.waiting = Some(format!("waiting for another build: {holder}"));
            }
            Event::StepDefined { .. }
            | Event::StepLog { .. }
            | Event::StepProgress { .. }
            | Event::StepWarning { .. }
            | Event::Diagnostic { .. } => {}
        }
    }

    fn tick(&mut self, model: &Model, out: &mut Vec<u8>) {
        if model.now_ms >= self.drawn_ms + FRAME_MS {
            self.draw(model, out);
        }
    }

    fn finish(&mut self, ending: Ending, _: &[LogLine], model: &Model, out: &mut Vec<u8>) {
        let word = match ending {
            Ending::Finished => self.style.paint(Paint::Good, "FINISHED"),
            Ending::Failed => self.style.paint(Paint::Error, "FAILED"),
            Ending::Cancelled => self.style.paint(Paint::Warning, "CANCELLED"),
        };
        let time = units::seconds(model.now_ms);
        let line = format!("[+] Building {time} ({}/{}) {word}", model.ended, model.len());
        self.put(&[line], out);
        out.extend_from_slice(terminal::show_cursor());
    }

    fn tick_every(&self) -> Option<Duration> {
        Some(Duration::from_millis(FRAME_MS))
    }

    fn keeps_whole_logs(&self) -> bool {
        true
    }
}

impl Tty {
    fn scroll(&mut self, line: &str) {
        self.above.push_str(line);
        self.above.push('\n');
    }

    /// Puts lines where the last frame was, those that scroll first.
    fn put(&mut self, frame: &[String], out: &mut Vec<u8>) {
        if self.drawn > 0 {
            out.extend_from_slice(format!("\x1b[{}A\r", self.drawn).as_bytes());
        }
        let above = std::mem::take(&mut self.above);
        for line in above.lines().chain(frame.iter().map(String::as_str)) {
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(END_OF_LINE.as_bytes());
        }
        if self.drawn > 0 {
            out.extend_from_slice(CLEAR_BELOW.as_bytes());
        }
        self.drawn = frame.len();
    }

    fn draw(&mut self, model: &Model, out: &mut Vec<u8>) {
        let (columns, rows) = (self.window)();
        if self.drawn_ms == 0 {
            out.extend_from_slice(terminal::hide_cursor());
        }
        let frame = self.frame(model, columns, rows);
        self.put(&frame, out);
        self.drawn_ms = model.now_ms;
    }

    fn frame(&self, model: &Model, columns: usize, rows: usize) -> Vec<String> {
        let header = match &self.waiting {
            Some(waiting) => format!("[+] {waiting} ({})", units::seconds(model.now_ms)),
            None => format!(
                "[+] Building {} ({}/{})",
                units::seconds(model.now_ms),
                model.ended,
                model.len()
            ),
        };
        let mut frame = vec![terminal::truncate(&header, columns)];
        // The last row stays free for the cursor.
        let room = rows.saturating_sub(2).min(MAX_ROWS);
        let mut running: Vec<(StepId, &Step)> =
            model.steps().filter(|(_, step)| step.state == State::Running).collect();
        running.sort_by_key(|(_, step)| step.number);
        let shown = running.len().min(room);
        let hidden = running.len() - shown;
        let logs = room.saturating_sub(shown).checked_div(shown).unwrap_or(0).min(LOG_LINES);
        for (_, step) in &running[hidden..] {
            frame.push(self.step_line(step, None, model.now_ms, columns));
            for text in details(step, logs) {
                let line = terminal::truncate(&format!(" => => {text}"), columns);
                frame.push(self.style.paint(Paint::Dim, &line));
            }
        }
        frame
    }

    /// ` => CACHED [2/5] RUN x from r/cache 0.1s`, cut to the width of the terminal; `from` is the cache
    /// elsewhere that it was found in.
    fn step_line(&self, step: &Step, from: Option<&str>, now_ms: u64, columns: usize) -> String {
        let (mark, paint) = match &step.state {
            State::Ended(StepEnd::Cached) => ("CACHED ", Paint::Good),
            State::Ended(StepEnd::Failed(_)) => ("ERROR ", Paint::Error),
            State::Ended(StepEnd::Cancelled) => ("CANCELLED ", Paint::Warning),
            State::Ended(StepEnd::Done) => ("", Paint::Good),
            State::Running | State::Waiting => ("", Paint::Note),
        };
        let time = units::seconds(step.elapsed_ms(now_ms));
        let fixed = " => ".len() + mark.len() + 1 + time.len();
        let room = columns.saturating_sub(fixed);
        let from = from.map_or_else(String::new, |from| {
            let from = format!(" from {}", terminal::plain(from).replace('\n', " "));
            // Beside a long name, too.
            let left = room.saturating_sub(terminal::width(&step.name)).max(room / 2);
            terminal::truncate(&from, left)
        });
        let name = terminal::truncate(&step.name, room.saturating_sub(terminal::width(&from)));
        let taken = terminal::width(&name) + terminal::width(&from);
        let gap = " ".repeat(room.saturating_sub(taken));
        let arrow = self.style.paint(paint, "=>");
        let mark = self.style.paint(paint, mark);
        let from = self.style.paint(Paint::Dim, &from);
        let mut line = String::new();
        let _ = write!(line, " {arrow} {mark}{name}{from}{gap} {time}");
        line
    }
}

/// Lines under a running step: transfers, else the end of its output.
fn details(step: &Step, limit: usize) -> Vec<String> {
    let open = |(current, total): &(u64, Option<u64>)| total.is_none_or(|total| *current < total);
    let transfers: Vec<String> = step
        .transfers
        .iter()
        .filter(|(_, progress)| open(progress))
        .map(|(item, (current, total))| {
            let item = terminal::plain_line(item.as_bytes());
            let all = total.map(|total| format!(" / {}", units::size(total))).unwrap_or_default();
            format!("{item} {}{all}", units::size(*current))
        })
        .take(limit)
        .collect();
    if !transfers.is_empty() {
        return transfers;
    }
    let from = step.tail.len().saturating_sub(limit);
    step.tail.iter().skip(from).map(|line| terminal::plain_line(line)).collect()
}
