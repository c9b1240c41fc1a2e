//! Compresses, with the same bytes for any number of threads.
//!
//! gzip: the input is cut into chunks of 1 MiB, and each becomes a member of the file (RFC 1952, 2.2),
//! so that only chunk size and level decide the bytes. libdeflate does it: at equal size it needs less
//! than half the time of zlib, and what a chunk loses for not seeing the one before it is below 0.3 %.
//! zstd: always its multi-threaded mode with a fixed job size; the single-threaded mode makes other
//! bytes.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use libdeflater::{CompressionLvl, Compressor as Deflater};

use crate::media::Compression;

/// Input of one gzip member. Part of the format in effect: changing it changes digests.
const CHUNK: usize = 1 << 20;
/// The size of what other builders push by default (within 1 %, of text and of programs), at several
/// times their speed; the next level saves 3 % and takes half as long again. Changing it changes digests.
const GZIP_LEVEL: i32 = 1;
/// Input of one zstd job, in bytes. Changing it changes digests.
const ZSTD_JOB: u32 = 4 << 20;

/// How a layer is to be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressOptions {
    /// The format.
    pub compression: Compression,
    /// gzip 0 to 9, default 1 (of libdeflate, which numbers differently from zlib); zstd 1 to 22, default 3. Values beyond are clamped.
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
                let level = options.level.unwrap_or(GZIP_LEVEL).clamp(0, 9);
                let level = CompressionLvl::new(level).expect("libdeflate knows 0 to 12");
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
    data: Vec<u8>,
    done: SyncSender<io::Result<Vec<u8>>>,
}

struct ParallelGzip<W: Write> {
    out: W,
    level: CompressionLvl,
    threads: usize,
    chunk: Vec<u8>,
    /// Started with the second chunk; most layers are smaller than that.
    workers: Option<Sender<Job>>,
    /// Members in the making, in order.
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    empty: bool,
}

impl<W: Write> ParallelGzip<W> {
    fn new(out: W, level: CompressionLvl, threads: usize) -> Self {
        let (chunk, pending) = (Vec::new(), VecDeque::new());
        ParallelGzip { out, level, threads, chunk, workers: None, pending, empty: true }
    }

    /// Has the chunk compressed; `last` says that none follows.
    fn dispatch(&mut self, last: bool) -> io::Result<()> {
        let data = std::mem::take(&mut self.chunk);
        let alone = std::mem::replace(&mut self.empty, false) && last;
        if self.threads == 1 || alone {
            let member = member(&mut Deflater::new(self.level), &data)?;
            return self.out.write_all(&member);
        }
        let (level, threads) = (self.level, self.threads);
        let workers = self.workers.get_or_insert_with(|| start_workers(level, threads));
        let (done, pending) = sync_channel(1);
        workers
            .send(Job { data, done })
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
            let member =
                pending.recv().map_err(|_| io::Error::other("a compression thread died"))??;
            self.out.write_all(&member)?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        // Nothing at all is one member too.
        if self.empty || !self.chunk.is_empty() {
            self.dispatch(true)?;
        }
        while !self.pending.is_empty() {
            self.collect()?;
        }
        Ok(self.out)
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
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
fn start_workers(level: CompressionLvl, threads: usize) -> Sender<Job> {
    let (sender, receiver) = channel::<Job>();
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..threads {
        let receiver = Arc::clone(&receiver);
        thread::spawn(move || {
            let mut deflater = Deflater::new(level);
            loop {
                let job = match receiver.lock() {
                    Ok(receiver) => receiver.recv(),
                    Err(_) => return,
                };
                let Ok(job) = job else { return };
                // The other end is gone when the layer was given up.
                let _ = job.done.send(member(&mut deflater, &job.data));
            }
        });
    }
    sender
}

/// `data` as a gzip member: no name, no time, no flags.
fn member(deflater: &mut Deflater, data: &[u8]) -> io::Result<Vec<u8>> {
    let mut member = vec![0; deflater.gzip_compress_bound(data.len())];
    let length = deflater.gzip_compress(data, &mut member).map_err(io::Error::other)?;
    member.truncate(length);
    Ok(member)
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
            [(Compression::Gzip, "405498e522f3"), (Compression::Zstd, "3309b2f818c9")]
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
            flate2::read::MultiGzDecoder::new(&one[..]).read_to_end(&mut back).expect("valid gzip");
            assert!(back == data, "{length} bytes come back");
        }
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
