//! Ending work on blocking threads: dropping the future that waits for it does not.

use std::io::{self, Read, Write};

use wbuild_tree::par::{Cancel, Work};

/// Stops work on other threads when dropped.
pub(crate) struct CancelOnDrop(Cancel);

impl CancelOnDrop {
    pub(crate) fn new() -> (CancelOnDrop, Work) {
        let work = Work::default();
        (CancelOnDrop(work.cancel.clone()), work)
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// A reader or writer that fails once its work is cancelled: the way to end what has no request to
/// stop of its own.
pub(crate) struct Stoppable<T> {
    pub(crate) inner: T,
    pub(crate) cancel: Cancel,
}

impl<T> Stoppable<T> {
    fn check(&self) -> io::Result<()> {
        match self.cancel.is_cancelled() {
            false => Ok(()),
            // Not `Interrupted`, which asks callers to try again.
            true => Err(io::Error::other("the build was cancelled")),
        }
    }
}

impl<T: Read> Read for Stoppable<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.read(buffer)
    }
}

impl<T: Write> Write for Stoppable<T> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.check()?;
        self.inner.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.check()?;
        self.inner.flush()
    }
}
