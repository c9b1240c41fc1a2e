//! What the displays draw. A case is a folder with `events.jsonl`: events as `--progress json`
//! writes them, and `{"tick": MS}` where time passes. `plain.txt` holds the plain display, `tty.txt`
//! what stands on a terminal of 60 columns and 12 rows after each tick.

mod common;

use std::sync::{Arc, Mutex};

use wbuild_api::event::Event;
use wbuild_cli::progress::model::Model;
use wbuild_cli::progress::plain::Plain;
use wbuild_cli::progress::tty::Tty;
use wbuild_cli::progress::{Display, Ending, Renderer, json};
use wbuild_cli::report::style::Style;

enum Item {
    Event(Event),
    Tick(u64),
}

fn items(text: &str) -> Vec<Item> {
    let item = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).expect(line);
        match value.get("tick") {
            Some(ms) => Item::Tick(ms.as_u64().expect("milliseconds")),
            None => Item::Event(json::parse(line).unwrap_or_else(|e| panic!("{line}: {e}"))),
        }
    };
    text.lines().filter(|line| !line.is_empty() && !line.starts_with("//")).map(item).collect()
}

/// Feeds a renderer; `after` sees its bytes after each tick and at the end.
fn play(renderer: &mut dyn Renderer, items: &[Item], mut after: impl FnMut(&str, &[u8])) {
    let mut model = Model::new(renderer.keeps_whole_logs());
    for item in items {
        let mut out = Vec::new();
        match item {
            Item::Event(event) => {
                let lines = model.apply(event);
                renderer.event(event, &lines, &model, &mut out);
                after("", &out);
            }
            Item::Tick(ms) => {
                model.advance(*ms);
                renderer.tick(&model, &mut out);
                after(&format!("{ms} ms"), &out);
            }
        }
    }
    let mut out = Vec::new();
    let lines = model.close();
    let failed = model.steps().any(|(_, step)| step.failure().is_some());
    let ending = if failed { Ending::Failed } else { Ending::Finished };
    renderer.finish(ending, &lines, &model, &mut out);
    after("end", &out);
}

#[test]
fn displays() {
    let mut goldens = common::Goldens::default();
    for case in common::cases("progress") {
        let items = items(&common::read(&case, "events.jsonl"));
        let mut plain = Vec::new();
        play(&mut Plain::default(), &items, |_, bytes| plain.extend_from_slice(bytes));
        goldens.check(&case.join("plain.txt"), &String::from_utf8_lossy(&plain));

        let mut screen = Screen::default();
        let mut frames = String::new();
        let mut tty = Tty::new(Style::new(false), Box::new(|| (60, 12)));
        play(&mut tty, &items, |label, bytes| {
            screen.write(bytes);
            if !label.is_empty() {
                frames.push_str(&format!("--- {label}\n{}", screen.text()));
            }
        });
        assert!(!screen.cursor_hidden, "the cursor is shown again");
        goldens.check(&case.join("tty.txt"), &frames);
    }
}

/// As much of a terminal as the display uses. Anything else it writes is a bug.
#[derive(Default)]
struct Screen {
    lines: Vec<String>,
    row: usize,
    /// What stood in this row before and has not been cleared.
    under: String,
    column: usize,
    cursor_hidden: bool,
}

impl Screen {
    fn write(&mut self, bytes: &[u8]) {
        let mut rest = std::str::from_utf8(bytes).expect("UTF-8");
        while let Some(c) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("\x1b[") {
                let end = after.find(|c: char| c.is_ascii_alphabetic()).expect("a sequence ends");
                match (&after[..end], &after[end..=end]) {
                    ("?25", "l") => self.cursor_hidden = true,
                    ("?25", "h") => self.cursor_hidden = false,
                    (up, "A") => {
                        let up: usize = up.parse().expect("rows");
                        self.row = self.row.checked_sub(up).expect("not above the first line");
                    }
                    ("", "J") => self.lines.truncate(self.row),
                    ("", "K") => self.under.clear(),
                    other => panic!("unknown sequence {other:?}"),
                }
                rest = &after[end + 1..];
                continue;
            }
            match c {
                '\r' => self.column = 0,
                '\n' => {
                    self.line();
                    assert_eq!(self.under, "", "what stood in the line is cleared");
                    self.row += 1;
                    self.column = 0;
                }
                c => {
                    if self.column == 0 {
                        self.under = std::mem::take(self.line());
                    }
                    self.column += 1;
                    self.line().push(c);
                }
            }
            rest = &rest[c.len_utf8()..];
        }
    }

    fn line(&mut self) -> &mut String {
        if self.lines.len() <= self.row {
            self.lines.resize(self.row + 1, String::new());
        }
        &mut self.lines[self.row]
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// An output that many threads may look at.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_line_of_any_step_is_lost() {
    use wbuild_api::event::{StepEnd, StepId};
    const STEPS: u32 = 8;
    const LINES: u32 = 2_000;
    let shared = Shared::default();
    let display = Display::start(Box::<Plain>::default(), Box::new(shared.clone()));
    std::thread::scope(|scope| {
        for number in 0..STEPS {
            let sink = display.sink();
            scope.spawn(move || {
                let step = StepId(number);
                let name = format!("step {number}");
                sink.event(Event::StepDefined { step, name, spans: Vec::new() });
                sink.event(Event::StepStarted { step, at_ms: 0 });
                for line in 0..LINES {
                    let data = format!("s{number} l{line}\n").into_bytes().into();
                    sink.event(Event::StepLog { step, stream: 1, data, at_ms: u64::from(line) });
                }
                sink.event(Event::StepEnded { step, how: StepEnd::Done, from: None, at_ms: 5_000 });
            });
        }
    });
    let model = display.finish(Ending::Finished);
    assert_eq!(model.ended, STEPS as usize);
    let text = shared.0.lock().expect("not poisoned");
    let text = String::from_utf8_lossy(&text);
    for number in 0..STEPS {
        let wanted = format!(" s{number} l");
        let lines: Vec<u32> =
            text.lines().filter_map(|line| line.split_once(&wanted)?.1.parse().ok()).collect();
        assert!(lines.iter().copied().eq(0..LINES), "step {number}: {} lines", lines.len());
    }
    assert_eq!(text.matches(" DONE ").count(), STEPS as usize);
}

/// A reader that has gone away.
struct Closed;

impl std::io::Write for Closed {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_goes_away_does_not_end_the_build() {
    use wbuild_api::event::StepId;
    let display = Display::start(Box::<Plain>::default(), Box::new(Closed));
    let sink = display.sink();
    for number in 0..1_000 {
        let (step, name) = (StepId(number), "x".to_owned());
        sink.event(Event::StepDefined { step, name, spans: Vec::new() });
        sink.event(Event::StepLog { step, stream: 1, data: b"y\n"[..].into(), at_ms: 1 });
    }
    assert_eq!(display.finish(Ending::Finished).len(), 1_000);
    sink.event(Event::Waiting { holder: "after the end".into() });
}
