//! Tar archives: what is read of them, and what a layer makes of the disk.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use wbuild_oci::layer::{
    ApplyOptions, CompressOptions, Entry, EntryKind, LayerBuilder, Limits, OverlayKind, Ownership,
    TarLimits, TarReader, TarWriter, UnpackOptions, WriteOptions, apply, no_parents, unpack,
    write_upper,
};
use wbuild_oci::media::Compression;

const BLOCK: usize = 512;

/// Corrects the checksums of what looks like a header, so that a changed one is read further than
/// its checksum. Every other bit of the input is left as it is.
fn mended(data: &[u8]) -> Vec<u8> {
    let mut archive = data.to_vec();
    for block in archive.chunks_exact_mut(BLOCK).filter(|b| &b[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    archive
}

/// The entries of an archive with their data; `None` where it is refused.
fn read(archive: impl Read) -> Option<Vec<(Entry, Vec<u8>)>> {
    let mut reader = TarReader::new(archive, TarLimits::default());
    let mut out = Vec::new();
    while let Some(entry) = reader.next_entry().ok()? {
        let mut data = vec![0; reader.remaining().try_into().unwrap_or(0).min(1 << 16)];
        let mut all = Vec::new();
        loop {
            match reader.read_data(&mut data).ok()? {
                0 => break,
                got => all.extend_from_slice(&data[..got]),
            }
        }
        out.push((entry, all));
    }
    reader.drain().ok()?;
    Some(out)
}

/// Hands out one byte at a time.
struct Slowly<R>(R);

impl<R: Read> Read for Slowly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = buffer.len().min(1);
        self.0.read(&mut buffer[..end])
    }
}

/// The input is an archive.
pub fn check_reader(data: &[u8]) {
    let archive = mended(data);
    let entries = read(&archive[..]);
    assert!(entries == read(Slowly(&archive[..])), "it depends on the pieces that are read");
    let Some(entries) = entries else { return };
    for (entry, data) in &entries {
        assert!(!entry.path.contains(&0) && entry.path.len() <= TarLimits::default().path);
        assert!(entry.mode <= 0o7777 && entry.uid != u32::MAX && entry.gid != u32::MAX);
        match (&entry.kind, &entry.sparse) {
            (EntryKind::File, None) => assert_eq!(entry.size, data.len() as u64),
            (EntryKind::File, Some(map)) => {
                let held: u64 = map.iter().map(|(_, length)| length).sum();
                assert_eq!(held, data.len() as u64, "the map is not the data");
                let mut end = 0;
                for (offset, length) in map {
                    assert!(*offset >= end, "pieces overlap: {map:?}");
                    end = offset + length;
                }
                assert!(end <= entry.size, "a piece behind the end: {map:?}");
            }
            (EntryKind::Symlink(to) | EntryKind::HardLink(to), None) => {
                assert!(!to.is_empty() && !to.contains(&0) && data.is_empty());
            }
            (_, sparse) => assert!(data.is_empty() && entry.size == 0 && sparse.is_none()),
        }
    }
    // What can be written is read again as it was.
    let plain = |(entry, _): &&(Entry, Vec<u8>)| {
        entry.sparse.is_none() && !entry.path.is_empty() && !entry.path.ends_with(b"/")
    };
    let mut writer = TarWriter::new(Vec::new());
    let mut kept = Vec::new();
    for (entry, data) in entries.iter().filter(plain) {
        if writer.append(entry, Some(&mut &data[..])).is_ok() {
            kept.push((entry.clone(), data.clone()));
        }
    }
    let again = writer.finish().expect("memory");
    assert!(read(&again[..]) == Some(kept), "it is not read as it was written");
}

/// Every name below a directory with what it is, sorted.
fn listing(root: &Path) -> Vec<(String, fs::Metadata)> {
    let mut out = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("it can be listed") {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("it is there");
            if meta.is_dir() {
                open.push(path.clone());
            }
            out.push((path.to_string_lossy().into_owned(), meta));
        }
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

/// The input is a layer, which is applied, and an archive, which is unpacked, beside a tree that
/// must stay as it is.
pub fn check_layer(data: &[u8]) {
    let archive = mended(data);
    let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("temp");
    let at = |name: &str| temp.path().join(name);
    for name in ["canary/dir", "upper", "tree/etc"] {
        fs::create_dir_all(at(name)).expect("fresh");
    }
    fs::write(at("canary/file"), "untouched").expect("fresh");
    // Ways out of the tree that is unpacked into: within it they lead nowhere.
    for (name, target) in [("tree/up", "../canary"), ("tree/etc/up", "../../../canary")] {
        std::os::unix::fs::symlink(target, at(name)).expect("fresh");
    }
    std::os::unix::fs::symlink(at("canary"), at("tree/canary")).expect("fresh");
    let canary = || {
        let all = listing(&at("canary"));
        let seen = all.into_iter().map(|(path, meta)| {
            (path, meta.mode(), meta.uid(), meta.mtime(), meta.ctime_nsec(), meta.nlink())
        });
        (seen.collect::<Vec<_>>(), fs::read(at("canary/file")).ok())
    };
    let before = canary();
    let limits = Limits { entries: 1_000, unpacked: 1 << 20, ..Limits::default() };
    let open = |name: &str| fs::File::open(at(name)).expect("a directory");
    let root = rustix::process::geteuid().is_root();
    let ownership = if root { Ownership::Keep } else { Ownership::Ignore };
    let options = ApplyOptions { limits, ownership, ..ApplyOptions::new(OverlayKind::User) };
    let applied = apply(&archive[..], open("upper").as_fd(), &options, &mut no_parents);
    assert_eq!(canary(), before, "the layer reached the canary");
    let marks = archive.windows(4).any(|window| window == b".wh.");
    for (path, meta) in listing(&at("upper")) {
        let live = meta.file_type().is_char_device() && meta.rdev() == 0;
        assert!(marks || !live, "{path} became a whiteout");
    }
    if applied.is_ok() {
        // A layer that was taken can be written.
        let none = CompressOptions::new(Compression::None);
        let mut builder = LayerBuilder::new(Vec::new(), &none).expect("options");
        let options = WriteOptions::new(OverlayKind::User);
        write_upper(&mut builder, open("upper").as_fd(), &options).expect("it can be written");
        let (layer, _) = builder.finish().expect("memory");
        assert!(read(&layer[..]).is_some(), "it is not read as it was written");
    }
    let options = UnpackOptions { dest: b"", ownership, limits };
    let _ = unpack(&archive[..], open("tree").as_fd(), &options);
    assert_eq!(canary(), before, "the archive reached the canary");
    for (path, meta) in listing(&at("tree")) {
        let live = meta.file_type().is_char_device() && meta.rdev() == 0;
        assert!(!live, "{path} became a whiteout");
    }
}

/// One archive with every kind of entry, and small ones around what is dangerous.
pub fn seeds() -> Vec<Vec<u8>> {
    let link = |path: &str, target: &str| {
        (Entry::new(path, EntryKind::Symlink(target.into()), 0o777), &b""[..])
    };
    let hard = |path: &str, target: &str| {
        (Entry::new(path, EntryKind::HardLink(target.into()), 0o644), &b""[..])
    };
    let file = |path: &str, data: &'static [u8]| (Entry::new(path, EntryKind::File, 0o4755), data);
    let dir = |path: &str| (Entry::new(path, EntryKind::Directory, 0o755), &b""[..]);
    let node = |path: &str, kind| (Entry::new(path, kind, 0o600), &b""[..]);
    let mut with_all = file("a/with attributes", b"x");
    with_all.0.xattrs.insert(b"user.a".to_vec(), b"value".to_vec());
    with_all.0.mtime = -5;
    with_all.0.uid = 4_000_000;
    let long = "l".repeat(120);
    [
        vec![
            dir("a"),
            with_all,
            link("a/link", "/etc/passwd"),
            hard("a/hard", "a/with attributes"),
            node("a/pipe", EntryKind::Fifo),
            node("a/null", EntryKind::CharDevice { major: 1, minor: 3 }),
            node("a/disk", EntryKind::BlockDevice { major: 8, minor: 1 }),
            file(&long, b"long"),
        ],
        vec![link("a", "../canary"), file("a/file", b"changed")],
        vec![link("a", "b"), link("b", "/canary"), dir("a"), file("a/file", b"changed")],
        vec![hard("a", "../canary/file"), file("a", b"changed")],
        vec![dir("d"), file("d/.wh.a", b""), file("d/.wh..wh..opq", b""), file("d/b", b"x")],
        vec![file(".wh.d", b""), dir("d"), file("d/x", b"x"), file("d", b"file")],
        vec![file("up/file", b"x"), file("etc/up/file", b"x"), file("canary/file", b"x")],
    ]
    .into_iter()
    .map(|entries| {
        let mut writer = TarWriter::new(Vec::new());
        for (mut entry, data) in entries {
            entry.size = data.len() as u64;
            writer.append(&entry, Some(&mut &data[..])).expect("memory");
        }
        writer.finish().expect("memory")
    })
    .collect()
}
