//! Streams that another thread makes, a few pieces ahead of who reads them.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

/// Bytes handed from thread to thread at once.
pub(crate) const PIECE: usize = 256 << 10;
/// Pieces that may wait.
const AHEAD: usize = 8;

/// The reading end. At its end once the other one is gone.
pub(crate) struct Pipe {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

/// Both ends of a stream of pieces. Sending fails once nobody reads any more.
pub(crate) fn pipe() -> (SyncSender<io::Result<Vec<u8>>>, Pipe) {
    let (sender, pieces) = sync_channel(AHEAD);
    (sender, Pipe { pieces, piece: Vec::new(), at: 0 })
}

/// Has `input` read by a thread of `scope`, so that what reading costs (a digest, a decompression)
/// runs beside what is done with the bytes.
pub(crate) fn ahead<'scope, R: Read + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut input: R,
) -> Pipe {
    let (sender, pipe) = pipe();
    scope.spawn(move || {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut input).take(PIECE as u64).read_to_end(&mut piece);
            let end = piece.is_empty() || read.is_err();
            if !piece.is_empty() && sender.send(Ok(piece)).is_err() {
                return;
            }
            if let Err(error) = read {
                // Nobody listens if the reader has given up, and then nobody misses it.
                let _ = sender.send(Err(error));
            }
            if end {
                return;
            }
        }
    });
    pipe
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.pieces.recv() {
                Ok(Ok(piece)) => (self.piece, self.at) = (piece, 0),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(0),
            }
        }
        let rest = &self.piece[self.at..];
        let taken = rest.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&rest[..taken]);
        self.at += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes and then fails, or ends.
    struct Source(usize, bool);

    impl Read for Source {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 && self.1 {
                return Err(io::Error::other("broken"));
            }
            let count = self.0.min(buffer.len()).min(70_000);
            buffer[..count].fill(7);
            self.0 -= count;
            Ok(count)
        }
    }

    #[test]
    fn everything_arrives_and_then_the_error() {
        for length in [0, 1, PIECE, 3 * PIECE + 5] {
            for fails in [false, true] {
                std::thread::scope(|scope| {
                    let mut out = Vec::new();
                    let read = ahead(scope, Source(length, fails)).read_to_end(&mut out);
                    assert_eq!(out, vec![7; length]);
                    assert_eq!(read.is_err(), fails, "{length}");
                });
            }
        }
    }

    #[test]
    fn the_other_thread_ends_with_the_reader() {
        std::thread::scope(|scope| {
            let mut pipe = ahead(scope, io::repeat(1));
            pipe.read_exact(&mut [0; 10]).expect("bytes");
        });
    }
}
