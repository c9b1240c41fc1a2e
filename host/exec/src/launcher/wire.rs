//! Messages between the main process and its launcher.
//!
//! One message is one packet of a `SOCK_SEQPACKET` socket: JSON, at most [`MESSAGE_LIMIT`] bytes,
//! with descriptors beside it (`SCM_RIGHTS`). What can be large (the spec, contents of files) is in
//! a memfd. Both ends are the same binary, so the format needs no version.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::runtime::RuntimeKind;

/// Largest message.
pub(super) const MESSAGE_LIMIT: usize = 64 << 10;

/// Most descriptors with one message (the kernel's `SCM_MAX_FD` is 253).
pub(super) const FD_LIMIT: usize = 250;

/// From the main process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// The first message. Descriptors: the program of each handler.
    Start { kind: RuntimeKind, path: PathBuf, grace_ms: u64, handlers: Vec<Handler> },
    /// Run a step. Descriptors: payload, stdout, stderr, root, then one for each mount.
    Run { id: u64, spec_len: u64, files: Vec<File>, mounts: usize },
    /// End a step's processes.
    Cancel { id: u64 },
}

/// What runs programs that begin with `magic` under `mask`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Handler {
    pub name: String,
    pub magic: Vec<u8>,
    pub mask: Vec<u8>,
    pub flags: String,
}

/// A file to be made for a step; its bytes follow the spec's in the payload, in order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct File {
    pub len: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// From the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The answer to `Start`: steps' directories lie in `base`.
    Ready { base: String },
    /// The answer to `Start` if the launcher cannot work; it ends.
    Broken { what: String, lack: Lack },
    /// A step has ended and nothing of it is left.
    Done { id: u64, outcome: Outcome },
}

/// What a launcher that cannot work was refused, as far as there is a remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Lack {
    /// A view of its own processes.
    Proc,
    /// Handlers of its own.
    Handlers,
    /// Anything else.
    Other,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// The process ran and ended; 128 + n for signal n.
    Exited(i32),
    /// It was ended on request.
    Cancelled,
    /// It was never started.
    Failed(String),
}

/// Directory of a step.
pub(super) fn step_dir(base: &str, id: u64) -> String {
    format!("{base}/{id}")
}

/// Where the root of a step is mounted.
pub(super) fn root_path(dir: &str) -> String {
    format!("{dir}/rootfs")
}

/// Where mount `n` of a step is mounted.
pub(super) fn mount_path(dir: &str, n: usize) -> String {
    format!("{dir}/m{n}")
}

/// Where file `n` of a step lies.
pub(super) fn file_path(dir: &str, n: usize) -> String {
    format!("{dir}/f{n}")
}

/// Sends one message.
pub(super) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(message).expect("messages have only string keys");
    if bytes.len() > MESSAGE_LIMIT || fds.len() > FD_LIMIT {
        return Err(Errno::MSGSIZE);
    }
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(fds.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::MSGSIZE);
    }
    loop {
        let parts = [IoSlice::new(&bytes)];
        match rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            result => return result.map(|_| ()),
        }
    }
}

/// Waits for one message; `None` when the other end is gone.
pub(super) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> Result<Option<(T, Vec<OwnedFd>)>, Errno> {
    let mut bytes = vec![0; MESSAGE_LIMIT];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FD_LIMIT))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(None),
            result => break result?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    let message = serde_json::from_slice(&bytes[..received.bytes]).map_err(|_| Errno::BADMSG)?;
    Ok(Some((message, fds)))
}

/// A connected pair of sockets.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
}

/// A memfd with this content, for a payload.
pub(super) fn payload<'a>(parts: impl Iterator<Item = &'a [u8]>) -> std::io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("wbuild-step", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    for part in parts {
        std::io::Write::write_all(&mut file, part)?;
    }
    std::io::Seek::rewind(&mut file)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn messages_and_descriptors_cross_and_the_end_is_seen() {
        let (a, b) = pair().unwrap();
        let file = payload([b"one".as_slice(), b"two"].into_iter()).unwrap();
        let many = vec![file.as_fd(); FD_LIMIT];
        send(a.as_fd(), &Request::Cancel { id: 7 }, &many).unwrap();
        let (message, fds) = receive::<Request>(b.as_fd()).unwrap().unwrap();
        assert!(matches!(message, Request::Cancel { id: 7 }));
        assert_eq!(fds.len(), FD_LIMIT);
        let mut text = String::new();
        std::io::Read::read_to_string(
            &mut std::fs::File::from(fds.into_iter().next().unwrap()),
            &mut text,
        )
        .unwrap();
        assert_eq!(text, "onetwo");
        let long = Reply::Broken { what: "x".repeat(MESSAGE_LIMIT), lack: Lack::Other };
        assert_eq!(send(a.as_fd(), &long, &[]), Err(Errno::MSGSIZE));
        drop(a);
        assert!(receive::<Request>(b.as_fd()).unwrap().is_none());
    }
}
