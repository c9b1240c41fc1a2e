//! Applying layers and unpacking archives that mean no harm.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use wbuild_graph::{DiffId, Digest};
use wbuild_oci::layer::{
    ApplyOptions, Limits, OverlayKind, Ownership, ParentMeta, UnpackOptions, apply, no_parents,
    unpack,
};
use wbuild_oci::media::{OCI_LAYER, OCI_LAYER_GZIP};
use wbuild_oci::{ErrorKind, Result};

use crate::support::*;

/// What a layer made, without times and owners: `path` then `whiteout`, `opaque`, the content of a file,
/// `-> target` or nothing for a directory.
fn outcome(root: &Path) -> BTreeMap<String, String> {
    describe(root)
        .iter()
        .map(|line| {
            let (path, rest) = line.split_once(' ').expect("a path and more");
            let full = root.join(path);
            let what = if rest.starts_with("char 0 ") {
                "whiteout".to_owned()
            } else if rest.starts_with("file") {
                fs::read_to_string(full).expect("text")
            } else if rest.starts_with("link") {
                format!("-> {}", fs::read_link(full).expect("a link").display())
            } else if rest.contains("user.overlay.opaque=y") {
                "opaque".to_owned()
            } else {
                String::new()
            };
            (path.to_owned(), what)
        })
        .collect()
}

#[test]
fn whiteouts_and_duplicates() {
    let temp = tempfile::tempdir().expect("temp");
    if !has_user_xattrs(temp.path()) {
        return skip("whiteouts_and_duplicates", "no user attributes in the temporary directory");
    }
    let other = |path: &str, content: &'static [u8]| (file(path).0, content);
    let cases = [
        ("deleted file", vec![dir("a"), empty("a/.wh.b")], vec![("a", ""), ("a/b", "whiteout")]),
        ("parent not in the archive", vec![empty("a/.wh.b")], vec![("a", ""), ("a/b", "whiteout")]),
        (
            "opaque",
            vec![dir("a"), empty("a/.wh..wh..opq"), file("a/b")],
            vec![("a", "opaque"), ("a/b", "content")],
        ),
        (
            "opaque before its directory",
            vec![empty("a/.wh..wh..opq"), dir("a")],
            vec![("a", "opaque")],
        ),
        (
            "opaque after content",
            vec![file("a/b"), empty("a/.wh..wh..opq")],
            vec![("a", "opaque"), ("a/b", "content")],
        ),
        (
            "whiteout then directory",
            vec![empty(".wh.a"), dir("a"), file("a/b")],
            vec![("a", "opaque"), ("a/b", "content")],
        ),
        (
            "whiteout then content only",
            vec![empty(".wh.a"), file("a/b")],
            vec![("a", "opaque"), ("a/b", "content")],
        ),
        (
            "directory then whiteout",
            vec![dir("a"), file("a/b"), empty(".wh.a")],
            vec![("a", "opaque"), ("a/b", "content")],
        ),
        ("whiteout then file", vec![empty(".wh.a"), file("a")], vec![("a", "content")]),
        ("file then whiteout", vec![file("a"), empty(".wh.a")], vec![("a", "content")]),
        ("whiteout twice", vec![empty(".wh.a"), empty(".wh.a")], vec![("a", "whiteout")]),
        ("file twice", vec![file("a"), other("a", b"last")], vec![("a", "last")]),
        (
            "directory then file",
            vec![dir("a"), dir("a/b"), file("a/b/c"), file("a")],
            vec![("a", "content")],
        ),
        ("file then directory", vec![file("a"), dir("a")], vec![("a", "")]),
        (
            "link then directory",
            vec![symlink("a", "x"), dir("a"), file("a/b")],
            vec![("a", ""), ("a/b", "content")],
        ),
        ("file then link", vec![file("a"), symlink("a", "x")], vec![("a", "-> x")]),
        (
            "hard link replaced",
            vec![file("a"), hard_link("b", "a"), other("a", b"new")],
            vec![("a", "new"), ("b", "content")],
        ),
        ("hard link to itself", vec![file("a"), hard_link("a", "a")], vec![("a", "content")]),
        (
            "hard link over a file",
            vec![file("a"), other("b", b"old"), hard_link("b", "./a")],
            vec![("a", "content"), ("b", "content")],
        ),
        (
            "hard link to a link",
            vec![symlink("a", "/x"), hard_link("b", "a")],
            vec![("a", "-> /x"), ("b", "-> /x")],
        ),
        (
            "dots and slashes",
            vec![dir("./"), file("./a//b/./c"), file("/abs")],
            vec![("a", ""), ("a/b", ""), ("a/b/c", "content"), ("abs", "content")],
        ),
        (
            "aufs metadata",
            vec![dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"), empty(".wh..wh.aufs"), file("a")],
            vec![("a", "content")],
        ),
        (
            "aufs whiteout",
            vec![empty(".wh..wh.aufs"), hard_link(".wh.a", ".wh..wh.aufs")],
            vec![("a", "whiteout")],
        ),
        (
            "names that only look alike",
            vec![file(".wh"), file("a.wh.b")],
            vec![(".wh", "content"), ("a.wh.b", "content")],
        ),
    ];
    for (name, entries, want) in cases {
        let root = temp.path().join(name.replace(' ', "-"));
        fs::create_dir(&root).expect("fresh");
        apply_layer(&tar(&entries), &root).unwrap_or_else(|e| panic!("{name}: {e}"));
        let want: BTreeMap<String, String> =
            want.iter().map(|(p, w)| ((*p).to_owned(), (*w).to_owned())).collect();
        assert_eq!(outcome(&root), want, "{name}");
    }
}

#[test]
fn missing_parents_take_after_the_layers_below() {
    let temp = tempfile::tempdir().expect("temp");
    let mut entry = file("usr/bin/tool");
    entry.0.mtime = 1_000_000;
    let mut asked = Vec::new();
    let mut lookup = |path: &[u8]| -> Result<Option<ParentMeta>> {
        asked.push(String::from_utf8(path.to_vec()).expect("ascii"));
        Ok((path == b"usr").then(|| ParentMeta {
            mode: 0o2750,
            uid: 5,
            gid: 6,
            mtime: 77,
            xattrs: Vec::new(),
        }))
    };
    let options = ApplyOptions { ownership: ownership(), ..ApplyOptions::new(OverlayKind::User) };
    apply(&tar(&[entry])[..], open_dir(temp.path()).as_fd(), &options, &mut lookup)
        .expect("applied");
    assert_eq!(asked, ["usr", "usr/bin"]);
    let usr = fs::metadata(temp.path().join("usr")).expect("made");
    assert_eq!((usr.mode() & 0o7777, usr.mtime()), (0o2750, 77));
    if is_root() {
        assert_eq!((usr.uid(), usr.gid()), (5, 6));
    }
    let bin = fs::metadata(temp.path().join("usr/bin")).expect("made");
    assert_eq!((bin.mode() & 0o7777, bin.mtime()), (0o755, 1_000_000));
}

#[test]
fn modes_and_times_of_directories_come_last() {
    let temp = tempfile::tempdir().expect("temp");
    let mut closed = dir("closed");
    closed.0.mode = 0o500;
    closed.0.mtime = 12_345;
    let mut root = dir("./");
    root.0.mode = 0o711;
    root.0.mtime = 99;
    apply_layer(
        &tar(&[root, closed, file("closed/a"), dir("closed/b"), file("closed/b/c")]),
        temp.path(),
    )
    .expect("applied");
    let meta = fs::metadata(temp.path().join("closed")).expect("made");
    assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o500, 12_345));
    let meta = fs::metadata(temp.path()).expect("there");
    assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o711, 99));
    fs::set_permissions(temp.path().join("closed"), fs::Permissions::from_mode(0o700))
        .expect("own");
}

#[test]
fn content_is_checked() {
    let temp = tempfile::tempdir().expect("temp");
    let layer = tar(&[file("a")]);
    let right = DiffId(Digest::of(&layer));
    let wrong = DiffId(Digest::of(b"other"));
    let mut packed = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(&layer[..], flate2::Compression::fast());
    std::io::Read::read_to_end(&mut encoder, &mut packed).expect("memory");
    let mut damaged = packed.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let cut = &packed[..packed.len() - 9];
    for (name, layer, media_type, diff_id, want) in [
        ("right", &layer[..], Some(OCI_LAYER), Some(right), None),
        ("right gzip", &packed, Some(OCI_LAYER_GZIP), Some(right), None),
        ("wrong diff id", &packed, Some(OCI_LAYER_GZIP), Some(wrong), Some(ErrorKind::Mismatch)),
        (
            "plain said to be gzip",
            &layer,
            Some(OCI_LAYER_GZIP),
            Some(right),
            Some(ErrorKind::Invalid),
        ),
        ("gzip said to be plain", &packed, Some(OCI_LAYER), Some(right), Some(ErrorKind::Invalid)),
        ("unknown type", &packed, Some("application/x"), Some(right), Some(ErrorKind::Unsupported)),
        ("damaged", &damaged, None, Some(right), Some(ErrorKind::Invalid)),
        ("cut short", cut, None, Some(right), Some(ErrorKind::Invalid)),
        ("bzip2", b"BZh91AY&SY", None, None, Some(ErrorKind::Unsupported)),
        ("xz", b"\xfd7zXZ\0\0\x04", None, None, Some(ErrorKind::Unsupported)),
    ] {
        let root = temp.path().join(name.replace(' ', "-"));
        fs::create_dir(&root).expect("fresh");
        let options = ApplyOptions {
            ownership: ownership(),
            media_type,
            diff_id,
            ..ApplyOptions::new(OverlayKind::User)
        };
        let result = apply(layer, open_dir(&root).as_fd(), &options, &mut no_parents);
        assert_eq!(result.err().map(|e| e.kind()), want, "{name}");
    }
    let error = apply_layer(&layer, temp.path()).expect_err("not empty");
    assert!(error.to_string().contains("not empty"), "{error}");
}

#[test]
fn unpacking_goes_below_the_destination() {
    let temp = tempfile::tempdir().expect("temp");
    let root = temp.path().join("root");
    fs::create_dir_all(root.join("real/x")).expect("fresh");
    fs::create_dir(temp.path().join("outside")).expect("fresh");
    std::os::unix::fs::symlink("/real", root.join("link")).expect("fresh");
    std::os::unix::fs::symlink("../../../outside", root.join("real/up")).expect("fresh");
    fs::create_dir(root.join("outside")).expect("fresh");
    let archive =
        tar(&[dir("./"), file("x/a"), empty(".wh.b"), hard_link("again", "x/a"), file("up/c")]);
    let limits = Limits::default();
    let fixed = if is_root() { Ownership::Fixed { uid: 7, gid: 8 } } else { Ownership::Ignore };
    let options = UnpackOptions { dest: b"link/new/../new", ownership: fixed, limits };
    // `..` in the destination is resolved by the kernel and stays within the root, or is refused.
    let _ = unpack(&archive[..], open_dir(&root).as_fd(), &options);
    let options = UnpackOptions { dest: b"link", ownership: fixed, limits };
    unpack(&archive[..], open_dir(&root).as_fd(), &options).expect("unpacked");
    let at = |path: &str| root.join(path);
    assert_eq!(fs::read(at("real/x/a")).expect("through the link"), b"content");
    assert_eq!(fs::read(at("real/.wh.b")).expect("no whiteout"), b"");
    assert_eq!(fs::metadata(at("real/again")).expect("linked").nlink(), 2);
    // The link leads upwards; within the root that ends at the root.
    assert_eq!(fs::read(at("outside/c")).expect("inside of the root"), b"content");
    assert_eq!(fs::read_dir(temp.path().join("outside")).expect("there").count(), 0);
    if is_root() {
        assert_eq!(fs::metadata(at("real/x/a")).expect("made").uid(), 7);
    }
    let options = UnpackOptions { dest: b"fresh/dir", ownership: fixed, limits };
    unpack(&tar(&[file("a")])[..], open_dir(&root).as_fd(), &options).expect("unpacked");
    assert_eq!(fs::metadata(at("fresh")).expect("made").mode() & 0o7777, 0o755);
}

#[test]
fn archives_of_gnu_tar_are_read() {
    let temp = tempfile::tempdir().expect("temp");
    let tree = temp.path().join("tree");
    let long = "l".repeat(140);
    fs::create_dir_all(tree.join(&long)).expect("fresh");
    fs::write(tree.join(&long).join("m".repeat(130)), b"long").expect("fresh");
    std::os::unix::fs::symlink("t".repeat(150), tree.join("long-link")).expect("fresh");
    fs::write(tree.join("ä"), b"umlaut").expect("fresh");
    fs::write(tree.join("b"), b"linked").expect("fresh");
    fs::hard_link(tree.join("b"), tree.join("c")).expect("fresh");
    let sparse = fs::File::create(tree.join("sparse")).expect("fresh");
    sparse.set_len(4 << 20).expect("own file");
    for n in 0..40u64 {
        std::os::unix::fs::FileExt::write_all_at(
            &sparse,
            &[n as u8 + 1; 4096],
            n * 100_000 / 4096 * 4096,
        )
        .expect("own file");
    }
    let want: Vec<String> = describe(&tree);
    let kinds: [&[&str]; 8] = [
        &["--format=gnu"],
        &["--format=gnu", "-S"],
        &["--format=posix"],
        &["--format=posix", "-S"],
        &["--format=posix", "-S", "--sparse-version=0.1"],
        &["--format=posix", "-S", "--sparse-version=0.0"],
        &["--format=oldgnu", "-S"],
        &["--format=gnu", "--mtime=2020-01-01", "-z"],
    ];
    for (n, kind) in kinds.iter().enumerate() {
        let archive = temp.path().join(format!("{n}.tar"));
        let paths =
            ["-C", tree.to_str().expect("utf-8"), "-cf", archive.to_str().expect("utf-8"), "."];
        let args: Vec<&str> = kind.iter().copied().chain(["--sort=name"]).chain(paths).collect();
        let Some(output) = run("tar", &args) else {
            return skip("archives_of_gnu_tar_are_read", "there is no tar");
        };
        assert_ran("tar -c", &output);
        let root = temp.path().join(format!("root-{n}"));
        fs::create_dir(&root).expect("fresh");
        let input = fs::File::open(&archive).expect("made");
        let options =
            UnpackOptions { dest: b"", ownership: ownership(), limits: Limits::default() };
        unpack(input, open_dir(&root).as_fd(), &options)
            .unwrap_or_else(|e| panic!("{kind:?}: {e}"));
        if n != 7 {
            assert_eq!(describe(&root), want, "{kind:?}");
        }
        assert_eq!(
            fs::read(root.join("sparse")).expect("made"),
            fs::read(tree.join("sparse")).expect("made")
        );
    }
}
