//! Files as bodies of requests, and whether anything moves.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Bytes read from a file at once.
const PIECE: usize = 256 << 10;

/// When a request last moved, and what its file came to.
#[derive(Debug)]
pub struct Moving {
    last: Mutex<Instant>,
    failed: Mutex<Option<io::Error>>,
}

impl Default for Moving {
    fn default() -> Moving {
        Moving { last: Mutex::new(Instant::now()), failed: Mutex::default() }
    }
}

impl Moving {
    /// Waits for the answer to a request; `None` once nothing has moved for `stall`.
    pub async fn watch<T>(&self, request: impl Future<Output = T>, stall: Duration) -> Option<T> {
        let mut request = pin!(request);
        loop {
            let left = (self.last() + stall).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            if let Ok(answer) = tokio::time::timeout(left, &mut request).await {
                return Some(answer);
            }
        }
    }

    fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Why the file could not be read, if that is why there is no answer.
    pub fn failed(&self) -> Option<io::Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A part of a file as a body. A thread reads ahead by at most two pieces.
pub struct FileBody {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    length: u64,
    left: u64,
    sent: Arc<dyn Fn(u64) + Send + Sync>,
    moving: Arc<Moving>,
}

impl FileBody {
    /// Begins to read `length` bytes from `from`. `sent` is told of the bytes passed on. To be called
    /// within a tokio runtime.
    pub fn start(
        file: &Arc<File>,
        from: u64,
        length: u64,
        sent: &Arc<dyn Fn(u64) + Send + Sync>,
        moving: &Arc<Moving>,
    ) -> FileBody {
        let (sender, pieces) = mpsc::channel(2);
        let (file, moving) = (Arc::clone(file), Arc::clone(moving));
        tokio::task::spawn_blocking(move || {
            let (mut at, end) = (from, from + length);
            while at < end {
                let size = PIECE.min(usize::try_from(end - at).unwrap_or(PIECE));
                let mut piece = vec![0; size];
                let read = file.read_exact_at(&mut piece, at).map(|()| Bytes::from(piece));
                at += size as u64;
                let failed = read.is_err();
                // Nobody receives any more once the request is given up.
                if sender.blocking_send(read).is_err() || failed {
                    return;
                }
            }
        });
        FileBody { pieces, length, left: length, sent: Arc::clone(sent), moving }
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        // Asked for more: what it had went out.
        self.moving.touch();
        let Poll::Ready(piece) = self.pieces.poll_recv(context) else { return Poll::Pending };
        let piece = piece.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()));
        Poll::Ready(Some(match piece {
            Ok(bytes) => {
                self.left -= bytes.len() as u64;
                (self.sent)(self.length - self.left);
                Ok(Frame::data(bytes))
            }
            Err(error) => {
                let shown = io::Error::new(error.kind(), error.to_string());
                *self.moving.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(shown)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
