//! How plugins that are compiled into a program ask their host: each runs on a thread of its own, and
//! its questions are answered where its caller waits for it.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::sync_channel;

use futures_channel::mpsc::UnboundedSender;

/// A question that waits for the host. It is polled where the plugin's future is polled, so any
/// executor will do.
pub type Question = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a thread asks, and by which way.
type Host = (Box<dyn Any>, UnboundedSender<Question>);

thread_local! {
    static HOST: RefCell<Option<Host>> = const { RefCell::new(None) };
}

/// Payload of the unwinding that ends a call nobody waits for any more.
pub struct GivenUp;

/// Runs `call` with `host` as what [`host`] and [`wait`] reach on this thread.
pub fn enter<H: 'static, T>(
    host: H,
    questions: UnboundedSender<Question>,
    call: impl FnOnce() -> T,
) -> T {
    HOST.set(Some((Box::new(host), questions)));
    let result = call();
    HOST.set(None);
    result
}

/// The host of this thread.
///
/// # Panics
///
/// On a thread that no plugin runs on.
pub fn host<H: Clone + 'static>() -> H {
    HOST.with_borrow(|slot| slot.as_ref().and_then(|(host, _)| host.downcast_ref::<H>().cloned()))
        .expect("a plugin asks its host on the thread that it runs on")
}

/// Waits for an answer.
pub fn wait<H, T, F>(ask: impl FnOnce(H) -> F) -> T
where
    H: Clone + 'static,
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (answer, answered) = sync_channel(1);
    let future = ask(host());
    let question = Box::pin(async move {
        let _ = answer.send(future.await);
    });
    let sent = HOST.with_borrow(|slot| {
        slot.as_ref().is_some_and(|(_, questions)| questions.unbounded_send(question).is_ok())
    });
    match sent.then(|| answered.recv()) {
        Some(Ok(answer)) => answer,
        _ => std::panic::resume_unwind(Box::new(GivenUp)),
    }
}

/// What a panic has said; none if it was a call that was given up.
pub fn panic_text(panic: &(dyn Any + Send)) -> Option<String> {
    if panic.is::<GivenUp>() {
        return None;
    }
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Some(text.unwrap_or_else(|| "with no message".to_owned()))
}
