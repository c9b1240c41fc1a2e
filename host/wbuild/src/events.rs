//! Events as a stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use wbuild_api::event::{Event, EventSink};

/// What happens during a build, in order; ends with the build. Dropped, nobody listens, and the
/// build goes on.
///
/// Events wait here until they are taken: whoever asks for them takes them.
pub struct Events(UnboundedReceiver<Event>);

impl Events {
    pub(crate) fn new() -> (Sender, Events) {
        let (sender, receiver) = unbounded_channel();
        (Sender(sender), Events(receiver))
    }

    /// The next event; none after the last.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }

    /// The next event, on a thread that may wait.
    pub fn blocking_next(&mut self) -> Option<Event> {
        self.0.blocking_recv()
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.0.poll_recv(context)
    }
}

/// Puts events into the stream.
pub(crate) struct Sender(UnboundedSender<Event>);

impl EventSink for Sender {
    fn event(&self, event: Event) {
        // That nobody listens is no matter.
        let _ = self.0.send(event);
    }
}

/// Takes events and forgets them.
pub(crate) struct Nobody;

impl EventSink for Nobody {
    fn event(&self, _: Event) {}
}
