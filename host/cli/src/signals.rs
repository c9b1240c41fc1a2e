//! Ctrl-C and termination: the first cancels the build, which cleans up; the second ends the
//! process at once, and the launcher with everything it has started.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use wbuild_api::event::{Event, EventSink};
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::terminal;
use wbuild_graph::Severity;

/// Listens from now on, on a task of the current runtime.
pub fn listen(cancel: CancellationToken, events: Arc<dyn EventSink>) -> Result<(), Fault> {
    let on =
        |kind| signal(kind).map_err(|error| Fault::input("cannot listen to signals").cause(&error));
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut terminate = on(SignalKind::terminate())?;
    let mut hangup = on(SignalKind::hangup())?;
    tokio::spawn(async move {
        next(&mut interrupt, &mut terminate, &mut hangup).await;
        cancel.cancel();
        events.event(Event::PluginLog {
            plugin: "wbuild".to_owned(),
            severity: Severity::Note,
            text: "cancelling; once more stops at once".to_owned(),
        });
        next(&mut interrupt, &mut terminate, &mut hangup).await;
        terminal::restore();
        std::process::exit(i32::from(Exit::Interrupted.code()));
    });
    Ok(())
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal, hangup: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
