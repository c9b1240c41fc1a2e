//! Decompresses with limits, on a thread of its own, hashing what comes out.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use sha2::{Digest as _, Sha256};
use wbuild_graph::{DiffId, Digest};

use super::tar_read::TarLimits;
use crate::error::{Error, Result};
use crate::media::Compression;

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
            tar: TarLimits::default(),
        }
    }
}

/// Largest zstd window, as a power of two: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Bytes handed from thread to thread at once.
const PIECE: usize = 256 << 10;

/// The compression that the first bytes of a stream show; no magic means plain tar. An error for
/// formats that are recognised but not handled.
pub fn detect(start: &[u8]) -> Result<Compression> {
    let refuse = |name: &str| {
        let hint = "decompress it in a step of the build, or use gzip, zstd or no compression";
        Err(Error::unsupported(format!("{name} archives cannot be unpacked")).hint(hint))
    };
    match start {
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        // The second form is a skippable frame in front of the first real one.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => refuse("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => refuse("xz"),
        _ => Ok(Compression::None),
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

/// The decompressed stream, made by another thread.
pub(crate) struct Pipe {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
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
    expected: Option<Compression>,
    limits: Limits,
) -> (Pipe, ScopedJoinHandle<'scope, Option<Decompressed>>) {
    let (sender, pieces) = sync_channel(8);
    let handle = scope.spawn(move || match produce(input, expected, &limits, &sender) {
        Ok(done) => done,
        Err(error) => {
            // Nobody listens when the consumer failed first; its error is the one that counts.
            let _ = sender.send(Err(error.into_io()));
            None
        }
    });
    (Pipe { pieces, piece: Vec::new(), at: 0 }, handle)
}

fn produce<R: Read>(
    input: R,
    expected: Option<Compression>,
    limits: &Limits,
    sender: &SyncSender<io::Result<Vec<u8>>>,
) -> Result<Option<Decompressed>> {
    let failed = |e| Error::io("cannot read the archive", e);
    let count = Arc::new(AtomicU64::new(0));
    let mut input = CountingReader { inner: input, count: Arc::clone(&count) };
    let mut start = Vec::new();
    (&mut input).take(6).read_to_end(&mut start).map_err(failed)?;
    let found = detect(&start)?;
    if let Some(expected) = expected
        && expected != found
    {
        let name = |c| match c {
            Compression::None => "a plain tar archive",
            Compression::Gzip => "a gzip archive",
            Compression::Zstd => "a zstd archive",
        };
        let message =
            format!("the layer is {}, its media type says {}", name(found), name(expected));
        return Err(Error::invalid(message));
    }
    let input = BufReader::with_capacity(PIECE, io::Cursor::new(start).chain(input));
    let mut output: Box<dyn Read + '_> = match found {
        Compression::None => Box::new(input),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(failed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(failed)?;
            Box::new(decoder)
        }
    };
    let mut hash = Sha256::new();
    let mut size = 0u64;
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        (&mut output).take(PIECE as u64).read_to_end(&mut piece).map_err(|e| {
            // The decompressors complain in these kinds; an `Error` inside comes from the input.
            use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
            let ours = e.get_ref().is_some_and(|inner| inner.is::<Error>());
            match e.kind() {
                InvalidData | InvalidInput | UnexpectedEof | Other if !ours => {
                    Error::invalid("the archive cannot be decompressed").because(e)
                }
                _ => failed(e),
            }
        })?;
        if piece.is_empty() {
            let diff_id = DiffId(Digest::from_bytes(hash.finalize().into()));
            return Ok(Some(Decompressed { diff_id, size }));
        }
        hash.update(&piece);
        size += piece.len() as u64;
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
        if sender.send(Ok(piece)).is_err() {
            return Ok(None);
        }
    }
}
