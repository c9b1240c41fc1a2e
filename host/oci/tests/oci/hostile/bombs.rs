//! Archives that are small and mean to be large: every limit has a case.
//!
//! Each case runs in a process of its own, the test itself once more, whose memory and time are
//! measured: it has to fail early, and with little of both.

use std::io::{self, Read};

use wbuild_oci::layer::{ApplyOptions, CompressOptions, Limits, OverlayKind, apply, no_parents};
use wbuild_oci::layer::{LayerBuilder, WriteOptions, write_upper};
use wbuild_oci::media::Compression;

use super::*;

/// Most memory of a process, in KiB, and most processor time, in seconds: a shared machine makes
/// the time on the clock say little.
const MEMORY: u64 = 256 << 10;
const SECONDS: u64 = 5;
/// Set in the process that is measured.
const MEASURED: &str = "WBUILD_TEST_MEASURED";

/// Runs `work` in a process of its own.
fn alone(test: &str, work: impl FnOnce(&Nest)) {
    if std::env::var_os(MEASURED).is_some() {
        let nest = Nest::new();
        work(&nest);
        nest.check(test);
        return println!("{}", usage());
    }
    let output = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", &format!("hostile::bombs::{test}"), "--nocapture"])
        .env(MEASURED, "1")
        .output()
        .expect("this test once more");
    assert_ran(test, &output);
    let text = String::from_utf8_lossy(&output.stdout);
    let used = text.lines().find_map(|line| line.strip_prefix("used: ")).expect("what was used");
    let (memory, seconds) = used.split_once(' ').expect("two numbers");
    assert!(memory.parse::<u64>().expect("a number") < MEMORY, "{test}: {memory} KiB");
    assert!(seconds.parse::<u64>().expect("a number") < SECONDS, "{test}: {seconds} seconds");
}

/// Highest memory in KiB and processor time in seconds of this process.
fn usage() -> String {
    let status = fs::read_to_string("/proc/self/status").expect("of Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("of Linux");
    let stat = fs::read_to_string("/proc/self/stat").expect("of Linux");
    let (_, fields) = stat.rsplit_once(')').expect("the name of the program");
    // utime and stime, in the hundredths of a second that the kernel shows to everybody.
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    format!("used: {} {}", peak.trim().trim_end_matches(" kB"), ticks / 100)
}

/// Applies a layer that must exceed a limit.
fn layer_exceeds(nest: &Nest, what: &str, layer: impl Read + Send, limits: Limits) {
    let root = nest.fresh("layer");
    let options =
        ApplyOptions { limits, ownership: ownership(), ..ApplyOptions::new(OverlayKind::User) };
    let result = apply(layer, open_dir(&root).as_fd(), &options, &mut no_parents);
    exceeded(what, &root, result);
}

/// Unpacks an archive that must exceed a limit.
fn archive_exceeds(nest: &Nest, what: &str, archive: impl Read + Send) {
    let root = nest.fresh("tree");
    let options = UnpackOptions { dest: b"", ownership: ownership(), limits: Limits::default() };
    exceeded(what, &root, unpack(archive, open_dir(&root).as_fd(), &options));
}

fn exceeded(what: &str, root: &Path, result: Result<Applied>) {
    let error = result.err().unwrap_or_else(|| panic!("{what} must be refused"));
    assert_eq!(error.kind(), ErrorKind::Limit, "{what}: {error}");
    let disk = disk(root);
    assert!(disk < 100 << 20, "{what}: {disk} bytes on the disk");
}

fn disk(root: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("there") {
            let entry = entry.expect("an entry");
            let meta = entry.metadata().expect("there");
            sum += meta.blocks() * 512;
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    sum
}

/// The header of a file of 10 GiB.
fn ten_gigabytes() -> Vec<u8> {
    raw(b'0', "zeros", b"", |h| h[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\x02\x80\0\0\0"))
}

/// A file of 10 GiB of zeros, compressed: the header, and 16 MiB again and again.
fn bomb(compress: fn(&[u8]) -> Vec<u8>) -> impl Read + Send {
    let zeros = compress(&vec![0; 16 << 20]);
    io::Cursor::new([compress(&ten_gigabytes()), zeros.repeat(640)].concat())
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(data, flate2::Compression::best());
    encoder.read_to_end(&mut out).expect("memory");
    out
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 3).expect("memory")
}

fn bzip2(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = bzip2::read::BzEncoder::new(data, bzip2::Compression::best());
    encoder.read_to_end(&mut out).expect("memory");
    out
}

fn xz(data: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).expect("options");
    io::Write::write_all(&mut encoder, data).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn t_bomb_gzip() {
    alone("t_bomb_gzip", |nest| {
        layer_exceeds(nest, "gzip", bomb(gzip), Limits::default());
        archive_exceeds(nest, "gzip", bomb(gzip));
    });
}

#[test]
fn t_bomb_zstd() {
    alone("t_bomb_zstd", |nest| {
        layer_exceeds(nest, "zstd", bomb(zstd), Limits::default());
        archive_exceeds(nest, "zstd", bomb(zstd));
    });
}

#[test]
fn t_bomb_bzip2() {
    alone("t_bomb_bzip2", |nest| archive_exceeds(nest, "bzip2", bomb(bzip2)));
}

#[test]
fn t_bomb_xz() {
    alone("t_bomb_xz", |nest| archive_exceeds(nest, "xz", bomb(xz)));
}

/// Zeros that no entry holds: behind the end, in front of an entry, or in extended headers.
#[test]
fn t_bomb_outside_of_entries() {
    alone("t_bomb_outside_of_entries", |nest| {
        let zeros = gzip(&vec![0; 16 << 20]).repeat(20);
        let tail = [gzip(&end()), zeros].concat();
        layer_exceeds(nest, "behind the end", &tail[..], Limits::default());
        let comments = gzip(&pax(b'g', &[record("comment", "c".repeat(500_000))]).repeat(10));
        layer_exceeds(nest, "comments", &comments.repeat(20)[..], Limits::default());
        let labels = gzip(&raw(b'V', "label", b"", |_| ()).repeat(10_000));
        layer_exceeds(nest, "labels", &labels.repeat(20)[..], Limits::default());
        let comments = gzip(&pax(b'x', &[record("comment", "c".repeat(1 << 20))]));
        layer_exceeds(nest, "one comment", &comments[..], Limits::default());
    });
}

/// Memory that a decoder asks for because a stream says so.
#[test]
fn t_bomb_windows() {
    alone("t_bomb_windows", |nest| {
        // Windows of 256 MiB and of the largest that can be written down; and an empty last block.
        for descriptor in [0x90, 0xff] {
            let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, descriptor, 0x01, 0x00, 0x00];
            layer_exceeds(nest, "zstd", &frame[..], Limits::default());
        }
        // A dictionary of 1 GiB: the properties of LZMA2, and the checksum of their header.
        let mut stream = xz(&[ten_gigabytes(), end()].concat());
        assert_eq!(stream[12..16], [2, 0, 0x21, 1]);
        stream[16] = 36;
        let checksum = crc32fast::hash(&stream[12..20]).to_le_bytes();
        stream[20..24].copy_from_slice(&checksum);
        archive_exceeds(nest, "xz", &stream[..]);
        // A file name in a gzip header that does not end.
        let name = [&b"\x1f\x8b\x08\x08\0\0\0\0\0\xff"[..], &vec![b'n'; 32 << 20]].concat();
        let error = apply_layer(&name, &nest.fresh("layer")).expect_err("no archive");
        assert!(is_refusal(&error), "{error}");
    });
}

/// Holes cost nothing where they are made, and count.
#[test]
fn t_bomb_holes() {
    alone("t_bomb_holes", |nest| {
        let hole = |name: &str, size: u64| {
            let records = [
                record("path", name),
                record("GNU.sparse.size", size.to_string()),
                record("GNU.sparse.map", format!("0,0,{size},0")),
            ];
            [pax(b'x', &records), raw(b'0', "a", b"", |_| ())].concat()
        };
        let large = [hole("a", 10 << 30), end()].concat();
        let root = nest.fresh("layer");
        apply_layer(&large, &root).expect("10 GiB are allowed");
        assert_eq!(fs::metadata(root.join("a")).expect("made").len(), 10 << 30);
        assert!(disk(&root) < 1 << 20, "a hole takes {} bytes", disk(&root));
        layer_exceeds(nest, "a terabyte", &hole("a", 1 << 40)[..], Limits::default());
        let many: Vec<u8> = (0..30).flat_map(|n| hole(&format!("f{n}"), 10 << 30)).collect();
        layer_exceeds(nest, "many holes", &many[..], Limits::default());
        layer_exceeds(
            nest,
            "the end of numbers",
            &hole("a", i64::MAX as u64)[..],
            Limits::default(),
        );
        let pieces = format!("{}\n", 100_001) + &"0\n0\n".repeat(100_001);
        let records = [
            record("GNU.sparse.major", "1"),
            record("GNU.sparse.minor", "0"),
            record("GNU.sparse.realsize", "0"),
        ];
        let pieces = [pax(b'x', &records), raw(b'0', "a", pieces.as_bytes(), |_| ())].concat();
        layer_exceeds(nest, "pieces", &pieces[..], Limits::default());
    });
}

/// An archive of which only the beginning differs from one entry to the next.
struct Endless<F> {
    next: F,
    count: u64,
    left: io::Cursor<Vec<u8>>,
}

impl<F: FnMut(u64) -> Vec<u8>> Endless<F> {
    fn new(next: F) -> Self {
        Endless { next, count: 0, left: io::Cursor::new(Vec::new()) }
    }
}

impl<F: FnMut(u64) -> Vec<u8>> Read for Endless<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.position() == self.left.get_ref().len() as u64 {
            self.left = io::Cursor::new((self.next)(self.count));
            self.count += 1;
        }
        self.left.read(buffer)
    }
}

#[test]
fn t_bomb_entries_and_bytes() {
    alone("t_bomb_entries_and_bytes", |nest| {
        let files = || Endless::new(|n| raw(b'0', &format!("f{n}"), b"", |_| ()));
        let few = Limits { entries: 2_000, ..Limits::default() };
        layer_exceeds(nest, "entries", files(), few);
        let same = Endless::new(|_| raw(b'0', "a", b"", |_| ()));
        layer_exceeds(nest, "entries of one name", same, few);
        let exactly: Vec<u8> =
            (0..few.entries).flat_map(|n| raw(b'0', &format!("f{n}"), b"", |_| ())).collect();
        let options = ApplyOptions {
            limits: few,
            ownership: ownership(),
            ..ApplyOptions::new(OverlayKind::User)
        };
        let root = nest.fresh("layer");
        apply(&exactly[..], open_dir(&root).as_fd(), &options, &mut no_parents)
            .expect("exactly at the limit");
        let small = Limits { unpacked: 4 << 20, ..Limits::default() };
        let data = vec![b'x'; 1 << 20];
        let bytes = Endless::new(move |n| raw(b'0', &format!("f{n}"), &data, |_| ()));
        layer_exceeds(nest, "bytes", bytes, small);
        // What is no entry does not count as one, but as bytes.
        let small = Limits { entries: 1_000, ..small };
        layer_exceeds(nest, "labels", Endless::new(|_| raw(b'V', "label", b"", |_| ())), small);
        layer_exceeds(
            nest,
            "headers",
            Endless::new(|_| pax(b'g', &[record("comment", "x")])),
            small,
        );
    });
}

/// What is remembered of directories until the end.
#[test]
fn t_bomb_directories() {
    alone("t_bomb_directories", |nest| {
        let long = |n: u64| format!("{}/d{n}", "d".repeat(90));
        let directories = Endless::new(move |n| raw(b'5', &long(n), b"", |_| ()));
        let few = Limits { directories: 1 << 20, ..Limits::default() };
        layer_exceeds(nest, "directories", directories, few);
        // One that is replaced is forgotten.
        let mut again = Vec::new();
        for _ in 0..2_000 {
            again.extend(raw(b'5', &"d".repeat(100), b"", |_| ()));
            again.extend(raw(b'0', &"d".repeat(100), b"", |_| ()));
        }
        let limits = Limits { directories: 4 << 10, ..Limits::default() };
        let options =
            ApplyOptions { limits, ownership: ownership(), ..ApplyOptions::new(OverlayKind::User) };
        let root = nest.fresh("layer");
        apply(&again[..], open_dir(&root).as_fd(), &options, &mut no_parents)
            .expect("one at a time");
        // As deep as may be, from one end to the other and back; then all of it replaced.
        let deep = "d/".repeat(500);
        let mut zigzag = Vec::new();
        for n in 0..300 {
            zigzag.extend(pax(b'x', &[record("path", format!("{deep}{n}"))]));
            zigzag.extend(raw(b'0', "a", b"", |_| ()));
            zigzag.extend(raw(b'0', &format!("d/{n}"), b"", |_| ()));
        }
        zigzag.extend(raw(b'0', "d", b"", |_| ()));
        let root = nest.fresh("layer");
        apply_layer(&zigzag, &root).expect("deep, but allowed");
        assert_eq!(contents(&root).len(), 1);
    });
}

#[test]
fn t_bomb_attributes() {
    alone("t_bomb_attributes", |nest| {
        let file = || raw(b'0', "a", b"", |_| ());
        let many = |count: usize, length: usize| {
            let value = "v".repeat(length);
            let records: Vec<Vec<u8>> =
                (0..count).map(|n| record(&format!("SCHILY.xattr.user.a{n}"), &value)).collect();
            [pax(b'x', &records), file()].concat()
        };
        layer_exceeds(nest, "many attributes", &many(1_000_000, 1)[..], Limits::default());
        layer_exceeds(nest, "large attributes", &many(20, 60_000)[..], Limits::default());
        // Within the limit of a header, but more than a file system takes: some error, and early.
        for layer in [many(30_000, 1), many(15, 60_000)] {
            let root = nest.fresh("layer");
            if has_user_xattrs(&root)
                && let Err(error) = apply_layer(&layer, &root)
            {
                assert!(error.to_string().contains("attribute"), "{error}");
            }
        }
    });
}

/// What was applied within the limits is written without more memory.
#[test]
fn t_bomb_written_again() {
    alone("t_bomb_written_again", |nest| {
        let archive = [ten_gigabytes(), vec![0; 100 << 20]].concat();
        let root = nest.fresh("layer");
        assert!(apply_layer(&archive, &root).is_err(), "cut short");
        let options = CompressOptions::new(Compression::Gzip);
        let mut builder = LayerBuilder::new(io::sink(), &options).expect("options");
        write_upper(&mut builder, open_dir(&root).as_fd(), &WriteOptions::new(OverlayKind::User))
            .expect("what is there");
        builder.finish().expect("no end of room");
    });
}
