//! Images for a running Docker: streamed into its API as they are written.

use std::io::Write;

use wbuild_graph::{Failure, FailureKind};
use wbuild_oci::ErrorKind;
use wbuild_oci::daemon::{Daemon, Endpoint, upload};

use crate::blocking;
use crate::cancel::{CancelOnDrop, Stoppable};

/// Refuses an address that can be none.
pub(super) fn check(endpoint: &str) -> Result<(), Failure> {
    endpoint.parse::<Endpoint>().map(drop).map_err(|error| advise(error.into()))
}

/// Fails unless a Docker answers.
pub(super) async fn reach(endpoint: &str) -> Result<(), Failure> {
    Daemon::new(endpoint.parse()?)?.ping().await.map_err(|error| advise(error.into()))
}

/// Gives a Docker the archive that `write` writes.
pub(super) async fn load(
    endpoint: &str,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    let daemon = Daemon::new(endpoint.parse()?)?;
    let (out, body) = upload();
    let (_cancel, work) = CancelOnDrop::new();
    let written = blocking(move || -> Result<Written, Failure> {
        let mut out = Stoppable { inner: out, cancel: work.cancel };
        match write(&mut out) {
            Ok(()) => Ok(out.inner.finish().map_or(Written::Refused, |()| Written::Whole)),
            Err(_) if out.inner.is_refused() => Ok(Written::Refused),
            Err(failure) => Err(failure),
        }
    });
    let (loaded, written) = tokio::join!(daemon.load(body), written);
    match (loaded, written) {
        // A request that is broken off fails as well, and says nothing of the reason.
        (_, Err(failure)) => Err(failure),
        (Ok(()), Ok(Written::Whole)) => Ok(()),
        (Ok(()), Ok(Written::Refused)) => {
            let message = format!("{endpoint} did not take the whole image");
            Err(Failure::new(FailureKind::Unavailable, message))
        }
        (Err(error), Ok(_)) if error.kind() == ErrorKind::Unavailable => Err(advise(error.into())),
        (Err(error), Ok(_)) => Err(error.into()),
    }
}

/// How far writing came.
enum Written {
    Whole,
    /// The other side stopped reading.
    Refused,
}

/// What to do where there is no Docker.
fn advise(failure: Failure) -> Failure {
    failure
        .hint("start it, or say where it listens: DOCKER_HOST=unix://PATH or tcp://HOST:PORT")
        .hint("elsewhere: --output type=docker,dest=- | docker load")
}
