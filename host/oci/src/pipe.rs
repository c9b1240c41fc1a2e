//! Streams that another thread makes, a few pieces ahead of who reads them.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Scope;

/// Bytes handed from thread to thread at once.
pub(crate) const PIECE: usize = 256 << 10;
/// Pieces that may wait.
const AHEAD: usize = 8;

/// Some bytes of the stream.
pub(crate) struct Piece {
    /// Always as long as a piece may be, so that it is cleared once and not for each use.
    buffer: Vec<u8>,
    filled: usize,
}

impl Piece {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// Takes what `input` gives, up to a whole piece; less only where `input` ends or fails.
    fn fill(&mut self, input: &mut impl Read) -> io::Result<()> {
        self.filled = 0;
        while self.filled < self.buffer.len() {
            match input.read(&mut self.buffer[self.filled..]) {
                Ok(0) => break,
                Ok(count) => self.filled += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// The reading end. At its end once the other one is gone.
pub(crate) struct Pipe {
    pieces: Receiver<io::Result<Piece>>,
    used: Sender<Vec<u8>>,
    piece: Option<Piece>,
    at: usize,
}

/// The writing end.
pub(crate) struct Feed {
    pieces: SyncSender<io::Result<Piece>>,
    /// Buffers that were read: used again, since new ones would cost a page fault for each page.
    used: Receiver<Vec<u8>>,
    /// What comes after the last piece taken.
    failure: Option<io::Error>,
}

impl Feed {
    /// A piece of what `input` gives next; empty at its end. An error comes after the bytes before it.
    pub(crate) fn take(&mut self, input: &mut impl Read) -> io::Result<Piece> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let buffer = self.used.try_recv().unwrap_or_else(|_| vec![0; PIECE]);
        let mut piece = Piece { buffer, filled: 0 };
        match piece.fill(input) {
            Err(failure) if piece.filled > 0 => self.failure = Some(failure),
            other => other?,
        }
        Ok(piece)
    }

    /// Hands on a piece, or the error that ends the stream. False once nobody reads any more.
    pub(crate) fn send(&self, piece: io::Result<Piece>) -> bool {
        self.pieces.send(piece).is_ok()
    }
}

/// Both ends of a stream of pieces.
pub(crate) fn pipe() -> (Feed, Pipe) {
    let (sender, pieces) = sync_channel(AHEAD);
    let (back, used) = channel();
    (Feed { pieces: sender, used, failure: None }, Pipe { pieces, used: back, piece: None, at: 0 })
}

/// Has `input` read by a thread of `scope`, so that what reading costs (a digest, a decompression)
/// runs beside what is done with the bytes.
pub(crate) fn ahead<'scope, R: Read + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut input: R,
) -> Pipe {
    let (mut feed, pipe) = pipe();
    scope.spawn(move || {
        loop {
            let piece = feed.take(&mut input);
            let end = piece.as_ref().map_or(true, |piece| piece.filled == 0);
            if !feed.send(piece) || end {
                return;
            }
        }
    });
    pipe
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let rest = self.piece.as_ref().map_or(&[][..], |piece| &piece.bytes()[self.at..]);
            if !rest.is_empty() {
                let taken = rest.len().min(buffer.len());
                buffer[..taken].copy_from_slice(&rest[..taken]);
                self.at += taken;
                return Ok(taken);
            }
            if let Some(piece) = self.piece.take() {
                // The other side is gone once it has made everything.
                let _ = self.used.send(piece.buffer);
            }
            self.at = 0;
            match self.pieces.recv() {
                Ok(piece) => self.piece = Some(piece?),
                Err(_) => return Ok(0),
            }
        }
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
