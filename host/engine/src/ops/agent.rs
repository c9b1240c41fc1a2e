//! An ssh agent that is lent to a step.
//!
//! The step gets a socket of its own, of the owner and mode that its mount asks for, and what it
//! says there goes to the caller's agent and back. So a step that is not root can use the agent
//! without any right to the caller's socket, and the agent, which answers its own user only, sees
//! this process. The socket goes when the step has ended, connections that are still open with it.

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use wbuild_graph::Failure;
use wbuild_graph::op::MountMode;

const NAME: &str = "agent";
/// Connections of one step at a time; further ones wait.
const CONNECTIONS: usize = 64;

/// Serves a step's socket until it is dropped.
pub(crate) struct LentAgent(AbortHandle);

impl Drop for LentAgent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl LentAgent {
    /// Makes the socket in `folder`, which is empty and goes after the step, and serves it with the
    /// agent behind the socket at `agent`. Answers with the socket as something to mount.
    pub(crate) fn lend(
        folder: BorrowedFd<'_>,
        agent: PathBuf,
        mode: &MountMode,
    ) -> Result<(LentAgent, OwnedFd), Failure> {
        let make = || -> std::io::Result<(UnixListener, OwnedFd)> {
            // By descriptor: the path of a socket has at most 107 bytes.
            let path = format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd());
            let listener = StdListener::bind(path)?;
            listener.set_nonblocking(true)?;
            let (uid, gid) = (Some(Uid::from_raw(mode.uid)), Some(Gid::from_raw(mode.gid)));
            rustix::fs::chownat(folder, NAME, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            let bits = Mode::from_raw_mode(mode.mode.unwrap_or(0o600));
            rustix::fs::chmodat(folder, NAME, bits, AtFlags::empty())?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let socket = rustix::fs::openat(folder, NAME, flags, Mode::empty())?;
            Ok((UnixListener::from_std(listener)?, socket))
        };
        let (listener, socket) = make().map_err(|error| {
            let failure = Failure::internal("cannot make the socket of an ssh agent").cause(&error);
            match Errno::from_io_error(&error) {
                // An owner that this user's namespace does not have.
                Some(Errno::INVAL | Errno::PERM) => failure.hint(format!(
                    "this user may not give files to {}:{}; run as root, or give the user more \
                     subordinate ids in /etc/subuid and /etc/subgid",
                    mode.uid, mode.gid
                )),
                _ => failure,
            }
        })?;
        let task = tokio::spawn(serve(listener, Arc::new(agent)));
        Ok((LentAgent(task.abort_handle()), socket))
    }
}

async fn serve(listener: UnixListener, agent: Arc<PathBuf>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        match accepted {
            Ok((mut step, _)) => {
                let agent = Arc::clone(&agent);
                connections.spawn(async move {
                    // Refused by the agent, it ends at once, as it would without us.
                    if let Ok(mut agent) = UnixStream::connect(&*agent).await {
                        let _ = tokio::io::copy_bidirectional(&mut step, &mut agent).await;
                    }
                });
            }
            // Out of descriptors, for one: later there may be some.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_step_talks_to_the_agent_until_it_has_ended() {
        let temp = tempfile::tempdir().expect("directory");
        // Longer than the path of a socket can be.
        let folder = temp.path().join("x".repeat(200));
        std::fs::create_dir(&folder).expect("directory");
        let agent_path = temp.path().join("agent");
        let agent = UnixListener::bind(&agent_path).expect("an agent");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = agent.accept().await {
                let mut word = [0; 4];
                stream.read_exact(&mut word).await.expect("a word");
                word.reverse();
                stream.write_all(&word).await.expect("an answer");
            }
        });
        let own = std::fs::metadata(&folder).expect("folder");
        let mode = MountMode { uid: own.uid(), gid: own.gid(), mode: Some(0o640) };
        let dir = std::fs::File::open(&folder).expect("folder");
        let (lent, socket) = LentAgent::lend(dir.as_fd(), agent_path, &mode).expect("lent");
        let made = std::fs::symlink_metadata(folder.join(NAME)).expect("socket");
        assert_eq!(made.permissions().mode() & 0o7777, 0o640);

        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let mut streams = Vec::new();
        for word in [b"abcd", b"efgh"] {
            let mut stream = UnixStream::connect(&path).await.expect("connected");
            stream.write_all(word).await.expect("sent");
            streams.push(stream);
        }
        for (stream, answer) in streams.iter_mut().zip([b"dcba", b"hgfe"]) {
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.expect("an answer");
            assert_eq!(&word, answer);
        }

        let mut open = UnixStream::connect(&path).await.expect("connected");
        drop(lent);
        let mut rest = Vec::new();
        // Ended or reset, whether or not it had been taken.
        let _ = open.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        assert!(UnixStream::connect(&path).await.is_err(), "nobody listens any more");
    }

    #[tokio::test]
    async fn without_an_agent_connections_end() {
        let temp = tempfile::tempdir().expect("directory");
        let dir = std::fs::File::open(temp.path()).expect("folder");
        let own = std::fs::metadata(temp.path()).expect("folder");
        let mode = MountMode { uid: own.uid(), gid: own.gid(), mode: None };
        let (_lent, socket) =
            LentAgent::lend(dir.as_fd(), temp.path().join("none"), &mode).expect("lent");
        let made = std::fs::symlink_metadata(temp.path().join(NAME)).expect("socket");
        assert_eq!(made.permissions().mode() & 0o7777, 0o600);
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let mut stream = UnixStream::connect(&path).await.expect("connected");
        assert_eq!(stream.read(&mut [0; 1]).await.expect("the end"), 0);
    }
}
