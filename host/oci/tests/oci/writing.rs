//! Layers written from directories.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use wbuild_oci::ErrorKind;
use wbuild_oci::layer::{EntryKind, OverlayKind, TarLimits, TarReader, WriteOptions};
use wbuild_oci::media::Compression;

use crate::support::*;

const USER: WriteOptions<'static> = WriteOptions {
    overlay: OverlayKind::User,
    epoch: None,
    root_entry: false,
    skip: None,
    contents: None,
};

fn set_time(path: &Path, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 999_000_000 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("own file");
}

fn whiteout(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0)
        .expect("whiteouts need no privilege");
}

/// An upper directory with one of everything. `backwards` makes it in another order.
fn make_upper(root: &Path, backwards: bool) {
    let at = |path: &str| root.join(path);
    let mut steps: Vec<Box<dyn Fn() + '_>> = Vec::new();
    for d in ["dir", "dir/sub", "opaque", "zdir"] {
        fs::create_dir(at(d)).expect("fresh");
    }
    steps.push(Box::new(|| fs::write(at("dir/file"), b"hello").expect("fresh")));
    steps.push(Box::new(|| {
        fs::write(at("dir/setuid"), b"x").expect("fresh");
        fs::set_permissions(at("dir/setuid"), fs::Permissions::from_mode(0o4755))
            .expect("own file");
    }));
    steps.push(Box::new(|| {
        fs::write(at("dir/b-linked"), b"shared").expect("fresh");
        fs::hard_link(at("dir/b-linked"), at("zdir/again")).expect("same file system");
        fs::hard_link(at("dir/b-linked"), at("dir/a-linked")).expect("same file system");
    }));
    steps.push(Box::new(|| symlink("../gone", at("dir/link")).expect("fresh")));
    steps.push(Box::new(|| symlink("x".repeat(180), at("dir/long-link")).expect("fresh")));
    steps.push(Box::new(|| {
        rustix::fs::mkfifoat(CWD, at("dir/fifo"), Mode::from_raw_mode(0o640)).expect("fresh")
    }));
    steps.push(Box::new(|| whiteout(&at("dir/deleted"))));
    steps.push(Box::new(|| whiteout(&at("zdir/deleted"))));
    steps.push(Box::new(|| drop(UnixListener::bind(at("dir/socket")).expect("fresh"))));
    steps.push(Box::new(|| fs::write(at("!first"), b"").expect("fresh")));
    steps.push(Box::new(|| {
        let name = std::ffi::OsStr::from_bytes(b"dir/sub/na\xffme \xc3\xa4");
        fs::write(root.join(name), b"bytes").expect("fresh");
    }));
    steps.push(Box::new(|| {
        let deep = at(&format!("dir/sub/{}/{}", "d".repeat(120), "e".repeat(120)));
        fs::create_dir_all(&deep).expect("fresh");
        fs::write(deep.join("f".repeat(200)), vec![7; 70_000]).expect("fresh");
    }));
    steps.push(Box::new(|| {
        let file = fs::File::create(at("zdir/sparse")).expect("fresh");
        file.set_len(300_000).expect("own file");
        std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 150_000).expect("own file");
    }));
    steps.push(Box::new(|| {
        let set = |path: &str, name: &str, value: &[u8]| {
            rustix::fs::setxattr(at(path), name, value, XattrFlags::empty())
                .expect("user attributes");
        };
        set("dir/sub", "user.note", b"a=b\n\0c");
        set("opaque", "user.overlay.opaque", b"y");
        set("zdir", "user.overlay.opaque", b"n");
        set("zdir", "user.overlay.origin", b"\x01");
    }));
    if is_root() {
        steps.push(Box::new(|| {
            let device = rustix::fs::makedev(10, 300_000);
            rustix::fs::mknodat(
                CWD,
                at("dir/device"),
                FileType::BlockDevice,
                Mode::from_raw_mode(0o600),
                device,
            )
            .expect("root makes devices");
        }));
    }
    if backwards {
        steps.reverse();
    }
    steps.iter().for_each(|step| step());
    if is_root() {
        let (uid, gid) = (Uid::from_raw(3_000_000), Gid::from_raw(12));
        let follow = AtFlags::SYMLINK_NOFOLLOW;
        for path in ["dir/link", "dir/sub"] {
            rustix::fs::chownat(CWD, at(path), Some(uid), Some(gid), follow)
                .expect("root gives away");
        }
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        rustix::fs::setxattr(
            at("dir/file"),
            "security.capability",
            &capability,
            XattrFlags::empty(),
        )
        .expect("root sets capabilities");
        rustix::fs::setxattr(at("zdir"), "trusted.overlay.opaque", b"y", XattrFlags::empty())
            .expect("root");
    }
    for (n, line) in all_paths(root).iter().enumerate() {
        set_time(&root.join(line), 1_600_000_000 + n as i64);
    }
    set_time(&at("!first"), -5);
}

/// Paths of everything, contents before their directory, so that times set in this order stay.
fn all_paths(root: &Path) -> Vec<std::path::PathBuf> {
    fn walk(root: &Path, at: &Path, out: &mut Vec<std::path::PathBuf>) {
        let mut names: Vec<_> = fs::read_dir(root.join(at))
            .expect("dir")
            .map(|e| e.expect("entry").file_name())
            .collect();
        names.sort();
        for name in names {
            let path = at.join(name);
            if fs::symlink_metadata(root.join(&path)).expect("metadata").is_dir() {
                walk(root, &path, out);
            }
            out.push(path);
        }
    }
    let mut out = Vec::new();
    walk(root, Path::new(""), &mut out);
    out
}

#[test]
fn a_tree_survives_writing_and_applying() {
    let temp = tempfile::tempdir().expect("temp");
    if !has_user_xattrs(temp.path()) {
        return skip(
            "a_tree_survives_writing_and_applying",
            "no user attributes in the temporary directory",
        );
    }
    let (one, two) = (temp.path().join("one"), temp.path().join("two"));
    fs::create_dir(&one).expect("fresh");
    make_upper(&one, false);
    // What images do not carry is the one difference.
    let want: Vec<String> = describe(&one)
        .into_iter()
        .filter(|line| !line.contains(" socket "))
        .map(|line| {
            let line = line
                .replace(" user.overlay.origin=\\x01", "")
                .replace(" user.overlay.opaque=n", "");
            line.replace(" trusted.overlay.opaque=y", "")
        })
        .map(|line| if line.contains("deleted char") { normal_whiteout(&line) } else { line })
        .collect();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let (bytes, blob) = write_layer(&one, compression, &USER).expect("written");
        assert_eq!(blob.size, bytes.len() as u64);
        assert_eq!(blob.digest.0, wbuild_graph::Digest::of(&bytes));
        fs::create_dir(&two).expect("fresh");
        let applied = apply_layer(&bytes, &two).expect("applied");
        assert_eq!(
            (applied.diff_id, applied.size),
            (blob.diff_id, blob.uncompressed),
            "{compression:?}"
        );
        assert_eq!(applied.warnings, Vec::<String>::new());
        let got: Vec<String> = describe(&two)
            .into_iter()
            .map(|line| if line.contains("deleted char") { normal_whiteout(&line) } else { line })
            .collect();
        assert_eq!(got, want, "{compression:?}");
        // Written once more it is the same layer.
        let (_, again) = write_layer(&two, compression, &USER).expect("written");
        assert_eq!(again, blob);
        fs::remove_dir_all(&two).expect("own tree");
    }
}

/// Whiteouts have no metadata of their own.
fn normal_whiteout(line: &str) -> String {
    line.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

#[test]
fn order_and_names_are_those_of_the_specification() {
    let temp = tempfile::tempdir().expect("temp");
    if !has_user_xattrs(temp.path()) {
        return skip("order_and_names", "no user attributes in the temporary directory");
    }
    make_upper(temp.path(), false);
    let (bytes, _) = write_layer(temp.path(), Compression::None, &USER).expect("written");
    let mut reader = TarReader::new(&bytes[..], TarLimits::default());
    let mut seen = Vec::new();
    while let Some(entry) = reader.next_entry().expect("own output") {
        let path = entry.path.escape_ascii().to_string();
        let path = path
            .replace(&"d".repeat(120), "D")
            .replace(&"e".repeat(120), "E")
            .replace(&"f".repeat(200), "F");
        seen.push(match entry.kind {
            EntryKind::HardLink(target) => format!("{path} -> {}", target.escape_ascii()),
            EntryKind::BlockDevice { .. } => continue,
            _ => path,
        });
    }
    let want = [
        "!first",
        "dir",
        "dir/.wh.deleted",
        "dir/a-linked",
        "dir/b-linked -> dir/a-linked",
        "dir/fifo",
        "dir/file",
        "dir/link",
        "dir/long-link",
        "dir/setuid",
        "dir/sub",
        "dir/sub/D",
        "dir/sub/D/E",
        "dir/sub/D/E/F",
        "dir/sub/na\\xffme \\xc3\\xa4",
        "opaque",
        "opaque/.wh..wh..opq",
        "zdir",
        "zdir/.wh.deleted",
        "zdir/again -> dir/a-linked",
        "zdir/sparse",
    ];
    assert_eq!(seen, want);
}

#[test]
fn the_bytes_depend_on_the_content_alone() {
    let temp = tempfile::tempdir().expect("temp");
    if !has_user_xattrs(temp.path()) {
        return skip(
            "the_bytes_depend_on_the_content_alone",
            "no user attributes in the temporary directory",
        );
    }
    let (one, two) = (temp.path().join("one"), temp.path().join("two"));
    for (path, backwards) in [(&one, false), (&two, true)] {
        fs::create_dir(path).expect("fresh");
        make_upper(path, backwards);
    }
    let (_, first) = write_layer(&one, Compression::Gzip, &USER).expect("written");
    let (_, second) = write_layer(&two, Compression::Gzip, &USER).expect("written");
    assert_eq!(first, second);

    let epoch = WriteOptions { epoch: Some(1_500_000_000), ..USER };
    let (bytes, clamped) = write_layer(&one, Compression::None, &epoch).expect("written");
    let mut reader = TarReader::new(&bytes[..], TarLimits::default());
    while let Some(entry) = reader.next_entry().expect("own output") {
        let marker = entry.path.windows(4).any(|w| w == b".wh.");
        let want = if marker {
            0
        } else if entry.path == b"!first" {
            -5
        } else {
            1_500_000_000
        };
        assert_eq!(entry.mtime, want, "{}", entry.path.escape_ascii());
    }
    fs::write(two.join("!first"), b"").expect("own file");
    set_time(&two.join("dir/file"), 1_999_999_999);
    set_time(&two.join("!first"), -5);
    let (_, other) = write_layer(&two, Compression::None, &epoch).expect("written");
    assert_eq!(clamped, other);
    assert_ne!(write_layer(&two, Compression::None, &USER).expect("written").1, first);
}

#[test]
fn gnu_tar_agrees() {
    let temp = tempfile::tempdir().expect("temp");
    let upper = temp.path().join("upper");
    fs::create_dir(&upper).expect("fresh");
    if !has_user_xattrs(&upper) {
        return skip("gnu_tar_agrees", "no user attributes in the temporary directory");
    }
    make_upper(&upper, false);
    let (bytes, _) = write_layer(&upper, Compression::Gzip, &USER).expect("written");
    let archive = temp.path().join("layer.tar.gz");
    fs::write(&archive, &bytes).expect("temp");
    let archive = archive.to_str().expect("utf-8");
    let args =
        ["--numeric-owner", "--utc", "--full-time", "--quoting-style=escape", "-tvzf", archive];
    let Some(output) = run("tar", &args) else { return skip("gnu_tar_agrees", "there is no tar") };
    assert_ran("tar -t", &output);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let listing = String::from_utf8(output.stdout).expect("escaped");
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain).expect("gzip");
    use std::io::Read as _;
    let mut reader = TarReader::new(&plain[..], TarLimits::default());
    let mut lines = listing.lines();
    while let Some(entry) = reader.next_entry().expect("own output") {
        let line = lines.next().expect("as many entries as ours");
        let kind = match entry.kind {
            EntryKind::File => '-',
            EntryKind::Directory => 'd',
            EntryKind::Symlink(_) => 'l',
            EntryKind::HardLink(_) => 'h',
            EntryKind::CharDevice { .. } => 'c',
            EntryKind::BlockDevice { .. } => 'b',
            EntryKind::Fifo => 'p',
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(line.starts_with(kind), "{line}");
        assert_eq!(words[1], format!("{}/{}", entry.uid, entry.gid), "{line}");
        let date = wbuild_oci::Timestamp::from_seconds(entry.mtime).to_string();
        assert_eq!(format!("{}T{}Z", words[3], words[4]), date, "{line}");
        if entry.kind == EntryKind::File {
            assert_eq!(words[2], entry.size.to_string(), "{line}");
        }
        let tail = words[5..].join(" ");
        if entry.path.iter().all(|b| b.is_ascii_graphic()) {
            let path = String::from_utf8(entry.path.clone()).expect("ascii");
            assert!(
                tail == path
                    || tail.starts_with(&format!("{path}/"))
                    || tail.starts_with(&format!("{path} ")),
                "{line}"
            );
        }
        if let EntryKind::Symlink(target) | EntryKind::HardLink(target) = entry.kind {
            assert!(tail.ends_with(&String::from_utf8(target).expect("ascii")), "{line}");
        }
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn reserved_names_and_skips() {
    let temp = tempfile::tempdir().expect("temp");
    fs::create_dir(temp.path().join("a")).expect("fresh");
    fs::write(temp.path().join("a/b"), b"x").expect("fresh");
    fs::write(temp.path().join("a/c"), b"x").expect("fresh");
    let skip = |path: &[u8]| path == b"a/b";
    let skipping = WriteOptions { skip: Some(&skip), ..WriteOptions::new(OverlayKind::User) };
    let (_, with) = write_layer(temp.path(), Compression::None, &skipping).expect("written");
    fs::remove_file(temp.path().join("a/b")).expect("own file");
    let time = fs::metadata(temp.path().join("a/c")).expect("there").modified().expect("time");
    let epoch = WriteOptions { epoch: Some(0), ..USER };
    let (_, without) = write_layer(temp.path(), Compression::None, &epoch).expect("written");
    assert_eq!(with.uncompressed, without.uncompressed, "changed at {time:?}");
    fs::write(temp.path().join("a/.wh.x"), b"").expect("fresh");
    let error = write_layer(temp.path(), Compression::None, &USER).expect_err("reserved");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}
