//! How a build is shown. Events come in from any thread through an [`EventSink`] that only puts
//! them into a queue; one thread keeps the [`model`] and lets a renderer turn it into bytes.
//!
//! Renderers are pure: events and ticks in, bytes out. So goldens test them without a terminal and
//! without a clock. The output of steps is never clipped in any display that shows it.

pub mod evicted;
pub mod json;
pub mod lines;
pub mod model;
pub mod plain;
pub mod spool;
pub mod tty;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wbuild_api::event::{Event, EventSink};

use model::{LogLine, Model};

/// How a build ended, as far as a display says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything that was asked for is there.
    Finished,
    /// It is not.
    Failed,
    /// The user gave it up.
    Cancelled,
}

/// Turns what happened into bytes for standard error.
pub trait Renderer: Send {
    /// Something happened; the model knows it already. `lines` are the lines that it completed.
    fn event(&mut self, event: &Event, lines: &[LogLine], model: &Model, out: &mut Vec<u8>);

    /// Time has passed, or a batch of events has been taken in.
    fn tick(&mut self, model: &Model, out: &mut Vec<u8>);

    /// Nothing more will happen. `lines` are what steps left without a line feed.
    fn finish(&mut self, ending: Ending, lines: &[LogLine], model: &Model, out: &mut Vec<u8>);

    /// How often [`Renderer::tick`] is wanted while nothing happens.
    fn tick_every(&self) -> Option<Duration> {
        None
    }

    /// The output of steps is not shown as it comes, so the model must keep all of it.
    fn keeps_whole_logs(&self) -> bool {
        false
    }
}

/// Shows nothing; failures are reported at the end.
#[derive(Debug, Default)]
pub struct Quiet;

impl Renderer for Quiet {
    fn event(&mut self, _: &Event, _: &[LogLine], _: &Model, _: &mut Vec<u8>) {}
    fn tick(&mut self, _: &Model, _: &mut Vec<u8>) {}
    fn finish(&mut self, _: Ending, _: &[LogLine], _: &Model, _: &mut Vec<u8>) {}
    fn keeps_whole_logs(&self) -> bool {
        true
    }
}

/// Bytes of output that may wait for the display. A step that writes faster than its output is
/// taken (a slow pipe) is slowed down beyond this, as in any pipeline; it is never stopped, since
/// the thread that reports may have a cancellation to see to.
const BACKLOG: usize = 64 << 20;
/// What each piece of output costs beyond that.
const BRAKE: Duration = Duration::from_millis(5);

/// The display of one build: a thread that draws.
pub struct Display {
    queue: Arc<Queue>,
    thread: JoinHandle<Model>,
}

#[derive(Default)]
struct Queue {
    sender: Mutex<Option<Sender<Event>>>,
    /// Set before the sender is dropped. A display that is dropped without a word was given up.
    ending: Mutex<Option<Ending>>,
    /// Bytes of output that wait.
    backlog: AtomicUsize,
}

impl EventSink for Queue {
    fn event(&self, event: Event) {
        if let Event::StepLog { data, .. } = &event
            && self.backlog.fetch_add(data.len(), Ordering::Relaxed) > BACKLOG
        {
            std::thread::sleep(BRAKE);
        }
        if let Some(sender) = &*self.sender.lock().unwrap_or_else(PoisonError::into_inner) {
            // The display is gone only after a bug in it; the build goes on unseen.
            let _ = sender.send(event);
        }
    }
}

impl Display {
    /// Starts drawing to `output`. A reader that goes away ends the drawing, not the build.
    pub fn start(mut renderer: Box<dyn Renderer>, mut output: Box<dyn Write + Send>) -> Self {
        let (sender, receiver) = channel();
        let sender = Mutex::new(Some(sender));
        let queue = Arc::new(Queue { sender, ..Queue::default() });
        let taken = Arc::clone(&queue);
        let thread =
            std::thread::spawn(move || draw(&receiver, &taken, &mut *renderer, &mut *output));
        Display { queue, thread }
    }

    /// Where the engine sends events.
    pub fn sink(&self) -> Arc<dyn EventSink> {
        Arc::<Queue>::clone(&self.queue)
    }

    /// Draws what is left and hands over what is known. Events that come later are dropped.
    pub fn finish(self, ending: Ending) -> Model {
        *self.queue.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
        self.queue.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn draw(
    receiver: &Receiver<Event>,
    queue: &Queue,
    renderer: &mut dyn Renderer,
    output: &mut dyn Write,
) -> Model {
    let began = Instant::now();
    let now = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut model = Model::new(renderer.keeps_whole_logs());
    let mut out = Vec::new();
    let mut open = true;
    while open {
        let first = match renderer.tick_every() {
            Some(period) => receiver.recv_timeout(period),
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match first {
            Ok(first) => {
                let rest = std::iter::from_fn(|| receiver.try_recv().ok());
                for event in std::iter::once(first).chain(rest) {
                    if let Event::StepLog { data, .. } = &event {
                        queue.backlog.fetch_sub(data.len(), Ordering::Relaxed);
                    }
                    let lines = model.apply(&event);
                    renderer.event(&event, &lines, &model, &mut out);
                    // What has piled up is shown in pieces.
                    if out.len() > 64 << 10 {
                        flush(&mut out, output);
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => open = false,
        }
        model.advance(now());
        if open {
            renderer.tick(&model, &mut out);
        } else {
            let lines = model.close();
            let ending = *queue.ending.lock().unwrap_or_else(PoisonError::into_inner);
            renderer.finish(ending.unwrap_or(Ending::Cancelled), &lines, &model, &mut out);
        }
        flush(&mut out, output);
    }
    model
}

/// One write for all that has piled up, so that the live view does not flicker.
fn flush(out: &mut Vec<u8>, output: &mut dyn Write) {
    if !out.is_empty() {
        // Nobody may be reading any more: the build goes on.
        let _ = output.write_all(out).and_then(|()| output.flush());
        out.clear();
    }
}
