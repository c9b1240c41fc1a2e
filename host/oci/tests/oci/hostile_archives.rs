//! Archives that mean harm. Beside the directory that is written lies a canary, which must not change.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use wbuild_oci::ErrorKind;
use wbuild_oci::layer::{
    ApplyOptions, Entry, EntryKind, Limits, OverlayKind, TarLimits, UnpackOptions, apply,
    no_parents, unpack,
};

use crate::support::*;

type Entries = Vec<(Entry, &'static [u8])>;

struct Nest {
    temp: tempfile::TempDir,
    before: Vec<String>,
}

impl Nest {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("temp");
        let at = |path: &str| temp.path().join(path);
        fs::create_dir_all(at("canary/dir")).expect("fresh");
        fs::write(at("canary/file"), b"untouched").expect("fresh");
        fs::create_dir(at("root")).expect("fresh");
        let before = describe(&at("canary"));
        Nest { temp, before }
    }

    fn root(&self) -> std::path::PathBuf {
        self.temp.path().join("root")
    }

    fn check(&self, name: &str) {
        assert_eq!(
            describe(&self.temp.path().join("canary")),
            self.before,
            "{name} reached the canary"
        );
    }

    fn canary(&self) -> String {
        self.temp.path().join("canary").to_str().expect("utf-8").to_owned()
    }
}

fn node(path: &str, kind: EntryKind) -> (Entry, &'static [u8]) {
    (Entry::new(path, kind, 0o644), b"")
}

#[test]
fn layers_that_must_be_refused() {
    let long: &'static str = Box::leak("x".repeat(256).into_boxed_str());
    let deep: &'static str = Box::leak("d/".repeat(600).into_boxed_str());
    let cases: Vec<(&str, Entries)> = vec![
        ("upwards", vec![file("../canary/file")]),
        ("upwards, absolute", vec![file("/../canary/file")]),
        ("upwards within", vec![dir("a"), file("a/../../canary/file")]),
        ("upwards at the end", vec![dir("a/..")]),
        ("through an absolute link", vec![symlink("a", "@"), file("a/file")]),
        ("through a relative link", vec![symlink("a", "../canary"), file("a/file")]),
        ("through a link within", vec![dir("b"), symlink("a", "b"), file("a/file")]),
        ("through a link's parent", vec![symlink("a", ".."), file("a/canary/file")]),
        ("directory through a link", vec![symlink("a", "@"), dir("a/new")]),
        ("through two links", vec![symlink("a", "b"), symlink("b", "@"), file("a/file")]),
        ("link replaced below", vec![dir("a"), file("a/x"), symlink("a", "@"), file("a/file")]),
        ("hard link upwards", vec![hard_link("a", "../canary/file")]),
        ("hard link absolute", vec![hard_link("a", "@/file")]),
        ("hard link to nothing", vec![hard_link("a", "b")]),
        ("hard link before its target", vec![hard_link("a", "b"), file("b")]),
        ("hard link through a link", vec![symlink("l", "@"), hard_link("a", "l/file")]),
        ("hard link to a directory", vec![dir("d"), hard_link("a", "d")]),
        ("hard link to a whiteout", vec![empty(".wh.b"), hard_link("a", "b")]),
        ("hard link to a whiteout's name", vec![empty(".wh.b"), hard_link("a", ".wh.b")]),
        ("file as directory", vec![file("a"), file("a/b")]),
        ("pipe as directory", vec![node("a", EntryKind::Fifo), file("a/b")]),
        ("root replaced by a file", vec![file(".")]),
        ("root replaced by a link", vec![symlink("./", "@")]),
        ("live whiteout", vec![node("a", EntryKind::CharDevice { major: 0, minor: 0 })]),
        ("whiteout of nothing", vec![empty(".wh.")]),
        ("whiteout of here", vec![empty(".wh..")]),
        ("whiteout of the parent", vec![empty(".wh...")]),
        ("whiteout of the parent, below", vec![empty("a/.wh...")]),
        ("whiteout of a whiteout", vec![empty(".wh..wh.")]),
        ("below a whiteout", vec![file(".wh.a/b")]),
        ("below an empty whiteout", vec![file(".wh./x")]),
        ("whiteout through a link", vec![symlink("a", "@"), empty("a/.wh.file")]),
        ("whiteout that is a link", vec![symlink(".wh.a", "x")]),
        ("whiteout that is a directory", vec![dir(".wh.a")]),
        (
            "whiteout that is a device",
            vec![node(".wh.a", EntryKind::CharDevice { major: 1, minor: 3 })],
        ),
        ("opaque that is a link", vec![dir("a"), symlink("a/.wh..wh..opq", "@")]),
        ("opaque that is a directory", vec![dir("a"), dir("a/.wh..wh..opq")]),
        ("opaque through a link", vec![symlink("a", "@"), empty("a/.wh..wh..opq")]),
        ("opaque root", vec![empty(".wh..wh..opq")]),
        ("name too long", vec![file(long)]),
        ("too deep", vec![file(Box::leak(format!("{deep}x").into_boxed_str()))]),
    ];
    for (name, mut entries) in cases {
        let nest = Nest::new();
        for (entry, _) in &mut entries {
            if let EntryKind::Symlink(target) | EntryKind::HardLink(target) = &mut entry.kind
                && target.starts_with(b"@")
            {
                *target = [nest.canary().as_bytes(), &target[1..]].concat();
            }
        }
        if name.starts_with("opaque") && !has_user_xattrs(&nest.root()) {
            continue;
        }
        let result = apply_layer(&tar(&entries), &nest.root());
        nest.check(name);
        let error = result.err().unwrap_or_else(|| panic!("{name} must be refused"));
        assert!(
            matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::Limit),
            "{name}: {:?} {error}",
            error.kind()
        );
    }
}

#[test]
fn unpacking_never_leaves_the_root() {
    let cases: Vec<(&str, Entries)> = vec![
        ("upwards", vec![file("../canary/file")]),
        ("through an absolute link", vec![symlink("a", "@"), file("a/file")]),
        ("through a relative link", vec![symlink("a", "../canary"), file("a/file")]),
        ("hard link upwards", vec![hard_link("a", "../canary/file")]),
        ("hard link through a link", vec![symlink("l", "@"), hard_link("a", "l/file")]),
        ("directory over a link", vec![symlink("a", "@"), dir("a"), file("a/file")]),
        ("file over a link", vec![symlink("a", "@/file"), file("a")]),
        ("mode through a link", vec![symlink("a", "@/dir"), dir("a/")]),
        ("live whiteout", vec![node("a", EntryKind::CharDevice { major: 0, minor: 0 })]),
    ];
    for (name, mut entries) in cases {
        let nest = Nest::new();
        for (entry, _) in &mut entries {
            if let EntryKind::Symlink(target) = &mut entry.kind
                && target.starts_with(b"@")
            {
                *target = [nest.canary().as_bytes(), &target[1..]].concat();
            }
        }
        let options =
            UnpackOptions { dest: b"", ownership: ownership(), limits: Limits::default() };
        // Some of these work, within the root; none may reach the canary.
        let _ = unpack(&tar(&entries)[..], open_dir(&nest.root()).as_fd(), &options);
        nest.check(name);
    }
}

#[test]
fn overlay_attributes_never_come_from_a_layer() {
    let nest = Nest::new();
    if !has_user_xattrs(&nest.root()) {
        return skip(
            "overlay_attributes_never_come_from_a_layer",
            "no user attributes in the temporary directory",
        );
    }
    let mut entry = dir("a");
    for name in [
        "user.overlay.opaque",
        "trusted.overlay.opaque",
        "user.overlay.whiteout",
        "security.selinux",
        "user.fine",
    ] {
        entry.0.xattrs.insert(name.into(), b"y".to_vec());
    }
    apply_layer(&tar(&[entry]), &nest.root()).expect("applied without them");
    let line = &describe(&nest.root())[0];
    assert!(
        line.ends_with(" user.fine=y") && !line.contains("overlay") && !line.contains("selinux"),
        "{line}"
    );
}

/// Changes fields of the first header and repairs its checksum.
fn patched(archive: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut archive = archive.to_vec();
    let header = &mut archive[..512];
    change(header);
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    archive
}

fn pax(records: &[u8], then: &[u8], kind: u8) -> Vec<u8> {
    let header = tar(&[(Entry::new("PaxHeader", EntryKind::File, 0o644), b"")]);
    let mut out = patched(&header[..512], |h| {
        h[156] = kind;
        h[124..135].copy_from_slice(format!("{:011o}", records.len()).as_bytes());
    });
    out.extend_from_slice(records);
    out.resize(out.len().next_multiple_of(512), 0);
    out.extend_from_slice(then);
    out
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length =
        (rest..).find(|n| rest + n.to_string().len() == *n).expect("some length counts itself");
    format!("{length} {key}={value}\n").into_bytes()
}

#[test]
fn headers_that_must_be_refused() {
    let good = tar(&[file("a"), file("b")]);
    let one = tar(&[file("a")]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("checksum", {
            let mut a = good.clone();
            a[0] ^= 1;
            a
        }),
        ("cut in a header", good[..100].to_vec()),
        ("cut in the data", good[..600].to_vec()),
        ("cut in the padding", good[..1000].to_vec()),
        ("size beyond the end", patched(&one, |h| h[124..136].copy_from_slice(b"77777777777\0"))),
        ("negative size", patched(&one, |h| h[124..136].fill(0xff))),
        ("size no number", patched(&one, |h| h[124..128].copy_from_slice(b"zzzz"))),
        (
            "uid past 32 bits",
            patched(&one, |h| h[108..116].copy_from_slice(b"\x80\0\0\x01\0\0\0\0")),
        ),
        (
            "uid of nobody at all",
            patched(&one, |h| h[108..116].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xff")),
        ),
        ("uid by pax", pax(&record("uid", "4294967296"), &one, b'x')),
        ("negative uid", pax(&record("uid", "-1"), &one, b'x')),
        ("uid in hex", pax(&record("uid", "0x0"), &one, b'x')),
        ("unknown type", patched(&one, |h| h[156] = b'Z')),
        ("directory with data", patched(&one, |h| h[156] = b'5')),
        (
            "link with data",
            patched(&one, |h| {
                h[156] = b'2';
                h[157] = b'x'
            }),
        ),
        ("link without a target", patched(&tar(&[empty("a")]), |h| h[156] = b'2')),
        ("pax size too large", pax(&record("size", "99999"), &one, b'x')),
        ("pax size too small", pax(&record("size", "0"), &one, b'x')),
        ("pax size negative", pax(&record("size", "-7"), &one, b'x')),
        ("pax name with NUL", pax(&record("path", "a\0b"), &one, b'x')),
        ("pax upwards", pax(&record("path", "../canary/file"), &one, b'x')),
        ("pax for all", pax(&record("path", "b"), &one, b'g')),
        ("pax size for all", pax(&record("size", "0"), &one, b'g')),
        ("pax record too long", pax(b"99 a=b\n", &one, b'x')),
        ("pax record without newline", pax(b"6 a=bc", &one, b'x')),
        ("pax record without key", pax(b"5 =b\n", &one, b'x')),
        ("pax record without length", pax(b"a=b\n", &one, b'x')),
        ("pax at the end", pax(&record("path", "x"), &[0; 1024], b'x')),
        ("zero block within", [&vec![0; 512], &good[..]].concat()),
        (
            "sparse beyond its size",
            pax(
                &[record("GNU.sparse.map", "0,7"), record("GNU.sparse.size", "3")].concat(),
                &one,
                b'x',
            ),
        ),
        (
            "sparse backwards",
            pax(
                &[record("GNU.sparse.map", "100,3,0,4"), record("GNU.sparse.size", "200")].concat(),
                &one,
                b'x',
            ),
        ),
        (
            "sparse of other data",
            pax(
                &[record("GNU.sparse.map", "0,3"), record("GNU.sparse.size", "200")].concat(),
                &one,
                b'x',
            ),
        ),
        (
            "sparse overflow",
            pax(
                &[
                    record("GNU.sparse.map", "18446744073709551615,7"),
                    record("GNU.sparse.size", "200"),
                ]
                .concat(),
                &one,
                b'x',
            ),
        ),
    ];
    for (name, archive) in cases {
        let nest = Nest::new();
        let result = apply_layer(&archive, &nest.root());
        nest.check(name);
        let error = result.err().unwrap_or_else(|| panic!("{name} must be refused"));
        assert!(
            matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::Limit),
            "{name}: {error}"
        );
    }
    // Harmless relatives of the above are accepted.
    let fine: Vec<(&str, Vec<u8>)> = vec![
        ("comment for all", pax(&record("comment", "x"), &one, b'g')),
        ("unknown key", pax(&record("VENDOR.x", "y"), &one, b'x')),
        ("no end", one[..1024].to_vec()),
        ("trailing bytes", [&one[..], b"trailing"].concat()),
        ("pax renames", pax(&record("path", "b"), &one, b'x')),
    ];
    for (name, archive) in fine {
        let nest = Nest::new();
        apply_layer(&archive, &nest.root()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(fs::read_dir(nest.root()).expect("there").count(), 1, "{name}");
    }
}

fn gzip(input: impl Read) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzEncoder::new(input, flate2::Compression::best())
        .read_to_end(&mut out)
        .expect("memory");
    out
}

#[test]
fn limits_hold() {
    let zeros: &'static [u8] = vec![0; 2 << 20].leak();
    let big = tar(&[(file("big").0, zeros)]);
    let small = Limits { ratio_floor: 1 << 20, ..Limits::default() };
    // A window of 256 MiB and an empty last block.
    let wide_window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x90, 0x01, 0x00, 0x00];
    let many: Vec<_> =
        (0..20).map(|n| empty(Box::leak(format!("f{n}").into_boxed_str()))).collect();
    let sparse = pax(
        &[record("GNU.sparse.map", "0,7"), record("GNU.sparse.size", "1000000000000")].concat(),
        &tar(&[file("a")]),
        b'x',
    );
    let huge_header = pax(&record("path", &"p".repeat(2 << 20)), &tar(&[file("a")]), b'x');
    let long_path = pax(&record("path", &"p/".repeat(3000)), &tar(&[file("a")]), b'x');
    for (name, layer, limits, kind) in [
        ("gzip bomb", gzip(&big[..]), small, ErrorKind::Limit),
        (
            "endless after the end",
            gzip(tar(&[file("a")]).chain(zeros).chain(zeros)),
            small,
            ErrorKind::Limit,
        ),
        ("too many bytes", big.clone(), Limits { unpacked: 1 << 20, ..small }, ErrorKind::Limit),
        ("too many entries", tar(&many), Limits { entries: 19, ..small }, ErrorKind::Limit),
        ("hole of a terabyte", sparse, small, ErrorKind::Limit),
        ("header of two megabytes", huge_header, small, ErrorKind::Limit),
        ("path too long", long_path, small, ErrorKind::Limit),
        ("zstd window", wide_window.to_vec(), small, ErrorKind::Invalid),
        (
            "many sparse pieces",
            pax(
                &[record("GNU.sparse.map", &"0,0,".repeat(40)), record("GNU.sparse.size", "7")]
                    .concat(),
                &tar(&[file("a")]),
                b'x',
            ),
            Limits { tar: TarLimits { sparse: 30, ..TarLimits::default() }, ..small },
            ErrorKind::Limit,
        ),
    ] {
        let nest = Nest::new();
        let options =
            ApplyOptions { limits, ownership: ownership(), ..ApplyOptions::new(OverlayKind::User) };
        let error = apply(&layer[..], open_dir(&nest.root()).as_fd(), &options, &mut no_parents)
            .err()
            .unwrap_or_else(|| panic!("{name} must be refused"));
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(disk(&nest.root()) < 8 << 20, "{name} filled the disk");
    }
    let nest = Nest::new();
    let within = ApplyOptions {
        limits: Limits { entries: 20, ..small },
        ownership: ownership(),
        ..ApplyOptions::new(OverlayKind::User)
    };
    apply(&tar(&many)[..], open_dir(&nest.root()).as_fd(), &within, &mut no_parents)
        .expect("exactly at the limit");
}

fn disk(root: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::read_dir(root)
        .expect("there")
        .map(|e| e.expect("entry").metadata().expect("meta").blocks() * 512)
        .sum()
}
