//! Compresses, with the same bytes for any number of threads.
//!
//! gzip: the input is cut into chunks of 1 MiB; each is deflated on its own with the 32 KiB before it
//! as dictionary and ends at a byte boundary (sync flush), so that the pieces laid end to end are one
//! deflate stream; checksums are combined. Only chunk size and level decide the bytes. zstd: always
//! its multi-threaded mode with a fixed job size; the single-threaded mode makes other bytes.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use flate2::{Compress, FlushCompress, Status};

use crate::media::Compression;

/// Input of one gzip piece. Part of the format in effect: changing it changes digests.
const CHUNK: usize = 1 << 20;
/// Deflate's window.
const WINDOW: usize = 32 << 10;
/// Input of one zstd job, in bytes. Changing it changes digests.
const ZSTD_JOB: u32 = 4 << 20;

/// How a layer is to be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressOptions {
    /// The format.
    pub compression: Compression,
    /// gzip 0 to 9, default 6; zstd 1 to 22, default 3. Values beyond are clamped.
    pub level: Option<i32>,
    /// Threads that compress; 0 means one for each core. Never changes the bytes.
    pub threads: usize,
}

impl CompressOptions {
    /// `compression` at its default level, on all cores.
    pub fn new(compression: Compression) -> Self {
        CompressOptions { compression, level: None, threads: 0 }
    }

    fn threads(&self) -> usize {
        match self.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            n => n.min(64),
        }
    }
}

/// Compresses what is written to it into `W`.
pub struct Compressor<W: Write>(Inner<W>);

enum Inner<W: Write> {
    None(W),
    Gzip(Box<ParallelGzip<W>>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    /// A compressor in front of `out`.
    pub fn new(out: W, options: &CompressOptions) -> io::Result<Self> {
        Ok(Compressor(match options.compression {
            Compression::None => Inner::None(out),
            Compression::Gzip => {
                let level = options.level.unwrap_or(6).clamp(0, 9).unsigned_abs();
                Inner::Gzip(Box::new(ParallelGzip::new(out, level, options.threads())))
            }
            Compression::Zstd => {
                let level = options.level.unwrap_or(3).clamp(1, 22);
                let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
                encoder.multithread(u32::try_from(options.threads()).expect("at most 64"))?;
                encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(ZSTD_JOB))?;
                encoder.include_checksum(true)?;
                Inner::Zstd(encoder)
            }
        }))
    }

    /// Ends the stream and gives `W` back.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Inner::None(out) => Ok(out),
            Inner::Gzip(gzip) => gzip.finish(),
            Inner::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::None(out) => out.write(data),
            Inner::Gzip(gzip) => gzip.write(data),
            Inner::Zstd(encoder) => encoder.write(data),
        }
    }

    /// Does nothing: a flush in the middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One chunk on its way.
struct Job {
    data: Arc<Vec<u8>>,
    before: Option<Arc<Vec<u8>>>,
    last: bool,
    done: SyncSender<io::Result<Piece>>,
}

/// One chunk compressed.
struct Piece {
    deflated: Vec<u8>,
    checksum: crc32fast::Hasher,
}

struct ParallelGzip<W: Write> {
    out: W,
    level: u32,
    threads: usize,
    chunk: Vec<u8>,
    before: Option<Arc<Vec<u8>>>,
    /// Started with the second chunk; most layers are smaller than that.
    workers: Option<Sender<Job>>,
    pending: VecDeque<Receiver<io::Result<Piece>>>,
    checksum: crc32fast::Hasher,
    length: u64,
    started: bool,
}

impl<W: Write> ParallelGzip<W> {
    fn new(out: W, level: u32, threads: usize) -> Self {
        ParallelGzip {
            out,
            level,
            threads,
            chunk: Vec::new(),
            before: None,
            workers: None,
            pending: VecDeque::new(),
            checksum: crc32fast::Hasher::new(),
            length: 0,
            started: false,
        }
    }

    fn dispatch(&mut self, last: bool) -> io::Result<()> {
        let data = Arc::new(std::mem::take(&mut self.chunk));
        let before = self.before.replace(Arc::clone(&data));
        self.length = self.length.wrapping_add(data.len() as u64);
        if self.threads == 1 || (last && before.is_none()) {
            let piece = deflate(self.level, &data, before.as_deref().map(Vec::as_slice), last)?;
            return self.emit(piece);
        }
        let level = self.level;
        let threads = self.threads;
        let workers = self.workers.get_or_insert_with(|| start_workers(level, threads));
        let (done, pending) = sync_channel(1);
        workers
            .send(Job { data, before, last, done })
            .map_err(|_| io::Error::other("the compression threads ended early"))?;
        self.pending.push_back(pending);
        // Bounds memory: two chunks for each thread, and the one being filled.
        while self.pending.len() >= 2 * self.threads {
            self.collect()?;
        }
        Ok(())
    }

    fn collect(&mut self) -> io::Result<()> {
        if let Some(pending) = self.pending.pop_front() {
            let piece =
                pending.recv().map_err(|_| io::Error::other("a compression thread died"))??;
            self.emit(piece)?;
        }
        Ok(())
    }

    fn emit(&mut self, piece: Piece) -> io::Result<()> {
        if !self.started {
            // No name, no time, no flags; the operating system is "unknown".
            self.out.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])?;
            self.started = true;
        }
        self.checksum.combine(&piece.checksum);
        self.out.write_all(&piece.deflated)
    }

    fn finish(mut self) -> io::Result<W> {
        self.dispatch(true)?;
        while !self.pending.is_empty() {
            self.collect()?;
        }
        self.out.write_all(&self.checksum.clone().finalize().to_le_bytes())?;
        // The trailer holds the length modulo 2^32 (RFC 1952, ISIZE).
        self.out.write_all(&(self.length as u32).to_le_bytes())?;
        Ok(self.out)
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // A full chunk waits for the next byte, because the last one is ended differently.
        if self.chunk.len() == CHUNK && !data.is_empty() {
            self.dispatch(false)?;
        }
        let taken = data.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&data[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Threads that end when the sender is dropped.
fn start_workers(level: u32, threads: usize) -> Sender<Job> {
    let (sender, receiver) = channel::<Job>();
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..threads {
        let receiver = Arc::clone(&receiver);
        thread::spawn(move || {
            loop {
                let job = match receiver.lock() {
                    Ok(receiver) => receiver.recv(),
                    Err(_) => return,
                };
                let Ok(job) = job else { return };
                let before = job.before.as_deref().map(Vec::as_slice);
                // The other end is gone when the layer was given up.
                let _ = job.done.send(deflate(level, &job.data, before, job.last));
            }
        });
    }
    sender
}

fn deflate(level: u32, data: &[u8], before: Option<&[u8]>, last: bool) -> io::Result<Piece> {
    // A fresh state each time: one that is reset keeps old bytes in its window, and these decide now
    // and then which match is found, so that the output would depend on who did which chunk before.
    let mut compress = Compress::new(flate2::Compression::new(level), false);
    if let Some(before) = before {
        let dictionary = &before[before.len().saturating_sub(WINDOW)..];
        compress.set_dictionary(dictionary).map_err(io::Error::other)?;
    }
    // Room for the worst case, so that one call does it: where a call ends for want of room can show in
    // the bytes too. (At worst every byte becomes a literal of 9 bits; stored blocks take less.)
    let mut deflated = Vec::with_capacity(data.len() + data.len() / 8 + 4096);
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    let status = compress.compress_vec(data, &mut deflated, flush).map_err(io::Error::other)?;
    let complete =
        if last { status == Status::StreamEnd } else { deflated.len() < deflated.capacity() };
    if !complete || compress.total_in() != data.len() as u64 {
        return Err(io::Error::other("a compressed chunk is larger than it can be"));
    }
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(data);
    Ok(Piece { deflated, checksum })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Half noise, half repetition, reproducible.
    fn sample(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut out = Vec::with_capacity(length + 64);
        while out.len() < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if state.is_multiple_of(3) {
                out.extend_from_slice(b"the same words again and again, ");
            } else {
                out.extend_from_slice(&state.to_le_bytes());
            }
        }
        out.truncate(length);
        out
    }

    fn compress(data: &[u8], compression: Compression, threads: usize, step: usize) -> Vec<u8> {
        let options = CompressOptions { compression, level: None, threads };
        let mut compressor = Compressor::new(Vec::new(), &options).expect("options");
        for part in data.chunks(step) {
            compressor.write_all(part).expect("memory");
            compressor.flush().expect("nothing to do");
        }
        compressor.finish().expect("memory")
    }

    #[test]
    fn bytes_are_frozen() {
        // A change here changes the digest of every layer that is built again: it belongs into the
        // release notes. It may come with a new version of a compressor.
        let data = sample(2 * CHUNK + 12_345);
        for (compression, want) in
            [(Compression::Gzip, "35f374aff84d"), (Compression::Zstd, "3309b2f818c9")]
        {
            let packed = compress(&data, compression, 2, usize::MAX);
            assert_eq!(wbuild_graph::Digest::of(&packed).short(), want, "{compression:?}");
        }
    }

    #[test]
    fn gzip_is_the_same_for_any_thread_count_and_step() {
        for length in [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK + 12_345] {
            let data = sample(length);
            let one = compress(&data, Compression::Gzip, 1, usize::MAX);
            for (threads, step) in [(2, 1 << 20), (3, 70_001), (7, 512 << 10)] {
                let other = compress(&data, Compression::Gzip, threads, step);
                assert!(one == other, "{length} bytes, {threads} threads");
            }
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&one[..]).read_to_end(&mut back).expect("valid gzip");
            assert!(back == data, "{length} bytes come back");
        }
    }

    #[test]
    fn the_dictionary_is_used() {
        // Noise that repeats across the border of two chunks compresses only through it.
        let noise: Vec<u8> = sample(CHUNK).into_iter().rev().take(20_000).collect();
        let mut data = vec![0; CHUNK - noise.len()];
        data.extend_from_slice(&noise);
        let alone = compress(&data, Compression::Gzip, 2, usize::MAX).len();
        data.extend_from_slice(&noise);
        let both = compress(&data, Compression::Gzip, 2, usize::MAX).len();
        assert!(both - alone < 2_000, "{alone} then {both}");
    }

    #[test]
    fn the_system_gzip_accepts_it() {
        use std::process::{Command, Stdio};
        let data = sample(2 * CHUNK + 77);
        let packed = compress(&data, Compression::Gzip, 2, usize::MAX);
        let child =
            Command::new("gzip").arg("-t").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let Ok(mut child) = child else {
            return crate::test_support::skip("the_system_gzip_accepts_it", "there is no gzip");
        };
        child.stdin.take().expect("piped").write_all(&packed).expect("gzip reads all");
        let output = child.wait_with_output().expect("gzip ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn zstd_is_the_same_for_any_thread_count() {
        for length in [0, 100_000, 5 << 20] {
            let data = sample(length);
            let one = compress(&data, Compression::Zstd, 1, 256 << 10);
            for (threads, step) in [(2, 256 << 10), (4, 99_999)] {
                assert!(
                    one == compress(&data, Compression::Zstd, threads, step),
                    "{length} bytes, {threads}"
                );
            }
            assert!(zstd::stream::decode_all(&one[..]).expect("valid zstd") == data);
        }
    }
}
