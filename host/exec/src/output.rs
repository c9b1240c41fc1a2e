//! Pipes for what a step prints.

use std::os::fd::OwnedFd;

use rustix::pipe::PipeFlags;
use tokio::net::unix::pipe::Receiver;
use wbuild_graph::Failure;

use crate::fail::OrFail;

/// Bytes a pipe holds, where the kernel lets this user have so much: fewer wake-ups for chatty
/// steps.
const PIPE_SIZE: usize = 256 << 10;

/// Makes a pipe: the end for [`crate::Step::stdout`] or `stderr`, and the end to read, which is at
/// its end when all processes of the step are gone. Must be called within a tokio runtime.
pub fn pipe() -> Result<(OwnedFd, Receiver), Failure> {
    let (reader, writer) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).or_fail("make a pipe for a step's output")?;
    let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_SIZE);
    let reader = Receiver::from_owned_fd(reader).or_fail("read a step's output")?;
    Ok((writer, reader))
}
