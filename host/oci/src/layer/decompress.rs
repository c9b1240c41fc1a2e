//! Decompresses with limits, on a thread of its own, hashing what comes out.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

use sha2::{Digest as _, Sha256};
use wbuild_graph::{DiffId, Digest};

use super::format::{Expected, Format, MAGIC, too_much_memory};
use super::tar_read::TarLimits;
use crate::error::{Error, Result};
use crate::pipe::{Feed, PIECE, Pipe, pipe};

/// What an archive from outside may demand. Exceeding one is an error of kind
/// [`Limit`](crate::ErrorKind::Limit).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most entries.
    pub entries: u64,
    /// Most bytes of files, holes of sparse files included.
    pub unpacked: u64,
    /// Most bytes out for one byte in, judged once `ratio_floor` bytes came out.
    pub ratio: u64,
    /// See `ratio`.
    pub ratio_floor: u64,
    /// Most bytes that the directories of the archive take in memory: their modes and times are
    /// remembered until the end.
    pub directories: usize,
    /// Limits of single entries.
    pub tar: TarLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            entries: 5_000_000,
            unpacked: 256 << 30,
            ratio: 200,
            ratio_floor: 64 << 20,
            directories: 128 << 20,
            tar: TarLimits::default(),
        }
    }
}

/// Counts what the decompressor takes in.
struct CountingReader<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.count.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

/// Digest and size of a decompressed stream.
pub(crate) struct Decompressed {
    pub(crate) diff_id: DiffId,
    pub(crate) size: u64,
}

/// Decompresses `input` on a thread of `scope`. The handle ends once the pipe is at its end or gone;
/// it yields `None` where the pipe was dropped before its end.
pub(crate) fn start<'scope, R: Read + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    input: R,
    expected: Expected,
    limits: Limits,
) -> (Pipe, ScopedJoinHandle<'scope, Option<Decompressed>>) {
    let (mut feed, pipe) = pipe();
    let handle = scope.spawn(move || match produce(input, expected, &limits, &mut feed) {
        Ok(done) => done,
        Err(error) => {
            // Nobody listens when the consumer failed first; its error is the one that counts.
            feed.send(Err(error.into_io()));
            None
        }
    });
    (pipe, handle)
}

fn produce<R: Read>(
    input: R,
    expected: Expected,
    limits: &Limits,
    feed: &mut Feed,
) -> Result<Option<Decompressed>> {
    let failed = |e| Error::io("cannot read the archive", e);
    let count = Arc::new(AtomicU64::new(0));
    let mut input = CountingReader { inner: input, count: Arc::clone(&count) };
    let mut start = Vec::new();
    (&mut input).take(MAGIC).read_to_end(&mut start).map_err(failed)?;
    let found = Format::detect(&start);
    expected.check(found)?;
    let input = BufReader::with_capacity(PIECE, io::Cursor::new(start).chain(input));
    let mut output = found.decode(input).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut size = 0u64;
    loop {
        let piece = feed.take(&mut output).map_err(|e| {
            // The decompressors complain in these kinds; an `Error` inside comes from the input.
            use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
            if let Some(error) = too_much_memory(&e) {
                return error;
            }
            let ours = e.get_ref().is_some_and(|inner| inner.is::<Error>());
            match e.kind() {
                InvalidData | InvalidInput | UnexpectedEof | Other if !ours => {
                    Error::invalid("the archive cannot be decompressed").because(e)
                }
                _ => failed(e),
            }
        })?;
        let bytes = piece.bytes();
        if bytes.is_empty() {
            let diff_id = DiffId(Digest::from_bytes(hash.finalize().into()));
            return Ok(Some(Decompressed { diff_id, size }));
        }
        hash.update(bytes);
        size += bytes.len() as u64;
        let taken_in = count.load(Ordering::Relaxed);
        if size > limits.ratio_floor && size / limits.ratio > taken_in {
            let ratio = limits.ratio;
            return Err(Error::limit(format!(
                "the archive expands to more than {ratio} times its size"
            )));
        }
        if size > limits.unpacked.saturating_add(limits.entries.saturating_mul(4096)) {
            return Err(Error::limit(format!(
                "the archive is larger than {} bytes",
                limits.unpacked
            )));
        }
        if !feed.send(Ok(piece)) {
            return Ok(None);
        }
    }
}
