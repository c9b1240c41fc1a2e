//! The other actions, and that the upper directory means what it should to an overlay.

use std::fs;
use std::os::unix::fs::MetadataExt;

use wbuild_tree::{
    EntryMeta, LayerWriter, LinkOptions, Mark, MkdirOptions, NewEntry, RelPath, RemoveOptions,
    Result, TreeError, Work, WriteOptions, layer_digest, read_layer,
};

use crate::support::*;

fn write_options() -> WriteOptions {
    let (uid, gid) = ids();
    WriteOptions { mode: 0o640, uid, gid, timestamp: None, follow_links: true }
}

fn mkdir_options(parents: bool) -> MkdirOptions {
    let (uid, gid) = ids();
    MkdirOptions { mode: 0o750, uid, gid, parents, timestamp: None }
}

fn writer(base: &Tree, upper: &Tree) -> LayerWriter {
    let (base, upper) = (base.root("the base"), upper.root("the new layer"));
    LayerWriter::new(upper, Some(base.into()), xattr_kind(), Work::default()).unwrap()
}

/// Runs actions over a base and checks the layer itself and what a mount of it shows.
fn check(
    test: &str,
    base: &Tree,
    actions: impl FnOnce(&mut LayerWriter),
    layer: &[&str],
    seen: &[&str],
) -> Tree {
    let upper = Tree::new(&[]);
    let mut writer = writer(base, &upper);
    actions(&mut writer);
    writer.finish().unwrap();
    assert_eq!(upper.list(), layer, "{test}: the layer");
    if let Some(lines) = mounted(test, base, &upper) {
        assert_eq!(lines, seen, "{test}: mounted");
    }
    upper
}

#[test]
fn writing_files() {
    let base = Tree::new(&["700 etc/", "644 etc/old=O", "link->etc/old", "l2->/etc"]);
    check(
        "writing_files",
        &base,
        |layer| {
            layer.write_file("/etc/new", b"N", &write_options()).unwrap();
            layer.write_file("link", b"through", &write_options()).unwrap();
            layer.write_file("/l2/x/y", b"deep", &write_options()).unwrap();
            let error = layer.write_file("/etc", b"", &write_options()).unwrap_err();
            assert!(matches!(error, TreeError::Conflict { .. }), "{error}");
            let error = layer.write_file("/", b"", &write_options()).unwrap_err();
            assert!(matches!(error, TreeError::Conflict { .. }), "{error}");
        },
        &[
            "etc dir 700",
            "etc/new 640 = N",
            "etc/old 640 = through",
            "etc/x dir 755",
            "etc/x/y 640 = deep",
        ],
        &[
            "etc dir 700",
            "etc/new 640 = N",
            "etc/old 640 = through",
            "etc/x dir 755",
            "etc/x/y 640 = deep",
            "l2 -> /etc",
            "link -> etc/old",
        ],
    );
}

#[test]
fn making_directories() {
    let base = Tree::new(&["711 srv/", "f", "link->srv"]);
    let upper = check(
        "making_directories",
        &base,
        |layer| {
            layer.make_dir("/srv", &mkdir_options(false)).unwrap();
            layer.make_dir("/link/a/b", &mkdir_options(true)).unwrap();
            assert!(layer.make_dir("/no/parent", &mkdir_options(false)).is_err());
            assert!(layer.make_dir("/f", &mkdir_options(true)).is_err());
            assert!(layer.make_dir("/f/x", &mkdir_options(true)).is_err());
            layer.make_dir("/", &mkdir_options(true)).unwrap();
        },
        &["srv dir 711", "srv/a dir 750", "srv/a/b dir 750"],
        &["f 644 = f", "link -> srv", "srv dir 711", "srv/a dir 750", "srv/a/b dir 750"],
    );
    let mut layer = writer(&base, &upper);
    let options = MkdirOptions { timestamp: Some(at(99)), ..mkdir_options(true) };
    layer.make_dir("/srv/t", &options).unwrap();
    layer.finish().unwrap();
    assert_eq!(upper.meta("srv/t").mtime(), 99);
    assert_eq!(upper.meta("srv").mtime(), 99);
}

#[test]
fn making_links() {
    let base = Tree::new(&["d/f", "d/l->f"]);
    let (uid, gid) = ids();
    let options = LinkOptions { uid, gid, timestamp: Some(at(50)) };
    let upper = check(
        "making_links",
        &base,
        |layer| {
            layer.make_link("/d/new", "../../etc/passwd", &options).unwrap();
            layer.make_link("/d/l", "other", &options).unwrap();
            layer.make_link("/d/f", "/abs", &options).unwrap();
            assert!(layer.make_link("/d", "x", &options).is_err());
            assert!(layer.make_link("/none/x", "x", &options).is_err());
            assert!(layer.make_link("/d/e", "", &options).is_err());
        },
        &["d dir 755", "d/f -> /abs", "d/l -> other", "d/new -> ../../etc/passwd"],
        &["d dir 755", "d/f -> /abs", "d/l -> other", "d/new -> ../../etc/passwd"],
    );
    assert_eq!(upper.meta("d/new").mtime(), 50);
}

#[test]
fn removing_leaves_whiteouts_only_where_the_base_has_something() {
    let base = Tree::new(&["d/a", "d/b", "d/sub/x", "e/f", "l->d"]);
    check(
        "removing",
        &base,
        |layer| {
            let options = RemoveOptions::default();
            layer.write_file("/tmp/mine", b"", &write_options()).unwrap();
            layer.remove("/tmp/mine", &options).unwrap();
            layer.remove("/l/a", &options).unwrap();
            layer.remove("/d/sub", &options).unwrap();
            layer.remove("/e", &options).unwrap();
            layer.write_file("/d/b", b"changed", &write_options()).unwrap();
            layer.remove("/d/b", &options).unwrap();
            let error = layer.remove("/d/a", &options).unwrap_err();
            assert!(matches!(error, TreeError::Missing(_)), "{error}");
            layer.remove("/d/a", &RemoveOptions { allow_missing: true, ..options }).unwrap();
            assert!(layer.remove("/", &options).is_err());
            assert!(layer.remove("/d/../..", &options).is_err());
        },
        &[
            "d dir 755",
            "d/a whiteout",
            "d/b whiteout",
            "d/sub whiteout",
            "e whiteout",
            "tmp dir 755",
        ],
        &["d dir 755", "l -> d", "tmp dir 755"],
    );
}

#[test]
fn removing_by_pattern() {
    let base = Tree::new(&["d/a.o", "d/b.o", "d/c", "e/a.o", "x->d"]);
    check(
        "removing_by_pattern",
        &base,
        |layer| {
            layer.write_file("/d/new.o", b"", &write_options()).unwrap();
            let options = RemoveOptions { wildcard: true, ..RemoveOptions::default() };
            layer.remove("/*/*.o", &options).unwrap();
            layer.remove("/nothing*", &options).unwrap();
            layer.remove("/x*", &options).unwrap();
        },
        &[
            "d dir 755",
            "d/a.o whiteout",
            "d/b.o whiteout",
            "e dir 755",
            "e/a.o whiteout",
            "x whiteout",
        ],
        &["d dir 755", "d/c 644 = d/c", "e dir 755"],
    );
}

#[test]
fn a_directory_made_over_a_removed_one_is_empty() {
    let base = Tree::new(&["d/old", "d/sub/older", "f=file"]);
    let upper = check(
        "a_directory_made_over_a_removed_one_is_empty",
        &base,
        |layer| {
            layer.remove("/d", &RemoveOptions::default()).unwrap();
            layer.make_dir("/d/sub", &mkdir_options(true)).unwrap();
            layer.write_file("/d/sub/new", b"N", &write_options()).unwrap();
            layer.remove("/f", &RemoveOptions::default()).unwrap();
            layer.make_dir("/f", &mkdir_options(true)).unwrap();
        },
        &["d dir 750", "d/sub dir 750", "d/sub/new 640 = N", "f dir 750"],
        &["d dir 750", "d/sub dir 750", "d/sub/new 640 = N", "f dir 750"],
    );
    let root = upper.root("the layer");
    let nodes = read_layer(&root, xattr_kind(), &Work::default()).unwrap();
    let marks: Vec<_> = nodes.iter().map(|node| (node.path.to_string(), node.mark)).collect();
    assert_eq!(marks[0], ("d".to_owned(), Mark::Opaque));
    assert!(marks[1..].iter().all(|(_, mark)| *mark == Mark::None), "{marks:?}");
    // And what is removed from it again leaves nothing.
    let mut layer = writer(&base, &upper);
    layer.remove("/d/sub", &RemoveOptions::default()).unwrap();
    layer.finish().unwrap();
    assert_eq!(upper.names(), ["d", "f"]);
}

#[test]
fn parents_are_copied_up_with_all_their_metadata() {
    let test = "parents_are_copied_up_with_all_their_metadata";
    let base = Tree::new(&["1777 tmp/", "tmp/a/"]);
    base.add("751 tmp/a/");
    let attributes = set_xattr(&base.path("tmp"), "user.note", b"1");
    set_xattr(&base.path("tmp"), "user.overlay.origin", b"no");
    let chown = std::os::unix::fs::chown(base.path("tmp/a"), Some(12), Some(34)).is_ok();
    for path in ["tmp/a", "tmp"] {
        base.set_mtime(path, 1000);
    }
    let upper = Tree::new(&[]);
    let mut layer = writer(&base, &upper);
    layer.write_file("/tmp/a/f", b"", &write_options()).unwrap();
    layer.finish().unwrap();
    assert_eq!(upper.mode("tmp"), 0o1777);
    assert_eq!(upper.mode("tmp/a"), 0o751);
    assert_eq!(upper.meta("tmp").mtime(), 1000);
    assert!(upper.meta("tmp/a").mtime() > 1000);
    if attributes {
        assert_eq!(get_xattr(&upper.path("tmp"), "user.note").unwrap(), b"1");
        assert_eq!(get_xattr(&upper.path("tmp"), "user.overlay.origin"), None);
    }
    if chown {
        assert_eq!(upper.owner("tmp/a"), (12, 34));
    } else {
        skip(test, "owners cannot be changed");
    }
}

#[test]
fn the_layer_becomes_the_root_directory_of_its_base() {
    let base = Tree::new(&["x"]);
    fs::set_permissions(base.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o751))
        .unwrap();
    let upper = Tree::new(&[]);
    writer(&base, &upper).finish().unwrap();
    let mode = |tree: &Tree| tree.dir.path().metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode(&upper), 0o751);
    let upper = Tree::new(&[]);
    let root = upper.root("the new layer");
    LayerWriter::new(root, None, xattr_kind(), Work::default()).unwrap().finish().unwrap();
    assert_eq!(mode(&upper), 0o755);
}

#[test]
fn the_digest_of_a_layer_is_of_its_changes() {
    let base = Tree::new(&["d/a", "d/b"]);
    let digest = |actions: &dyn Fn(&mut LayerWriter)| {
        let upper = Tree::new(&[]);
        let mut layer = writer(&base, &upper);
        actions(&mut layer);
        layer.finish().unwrap();
        layer_digest(&upper.root("the layer"), xattr_kind(), &Work::default()).unwrap()
    };
    let options = RemoveOptions::default();
    let nothing = digest(&|_| {});
    let removed = digest(&|layer| layer.remove("/d/a", &options).unwrap());
    assert_ne!(nothing, removed);
    assert_eq!(removed, digest(&|layer| layer.remove("d/a", &options).unwrap()));
    assert_ne!(removed, digest(&|layer| layer.remove("/d/b", &options).unwrap()));
    let remade = |layer: &mut LayerWriter| {
        layer.remove("/d", &options).unwrap();
        layer.make_dir("/d", &mkdir_options(false)).unwrap();
    };
    let opaque = digest(&remade);
    let plain = {
        let upper = Tree::new(&["750 d/"]);
        layer_digest(&upper.root("the layer"), xattr_kind(), &Work::default()).unwrap()
    };
    assert_ne!(opaque, plain);
    // Times do not count.
    let written = |time| {
        digest(&|layer: &mut LayerWriter| {
            let options = WriteOptions { timestamp: Some(at(time)), ..write_options() };
            layer.write_file("/f", b"x", &options).unwrap();
        })
    };
    assert_eq!(written(1), written(2));
}

#[test]
fn a_layer_that_refers_to_another_one_is_refused() {
    let test = "a_layer_that_refers_to_another_one_is_refused";
    let upper = Tree::new(&["d/f"]);
    let name = match xattr_kind() {
        wbuild_tree::XattrKind::Trusted => "trusted.overlay.redirect",
        wbuild_tree::XattrKind::User => "user.overlay.redirect",
    };
    if !set_xattr(&upper.path("d"), name, b"/elsewhere") {
        return skip(test, "overlay attributes cannot be set");
    }
    let error = layer_digest(&upper.root("the layer"), xattr_kind(), &Work::default()).unwrap_err();
    assert!(matches!(error, TreeError::Unsupported { .. }), "{error}");
}

fn entry_meta(mode: u32) -> EntryMeta {
    let (uid, gid) = ids();
    EntryMeta { mode, uid, gid, mtime: Some(at(500)), ..Default::default() }
}

fn put(layer: &mut LayerWriter, name: &str, entry: NewEntry<'_>, mode: u32) -> Result<()> {
    layer.put(&RelPath::clean(name)?, entry, &entry_meta(mode))
}

#[test]
fn putting_entries_as_an_archive_brings_them() {
    let test = "putting_entries_as_an_archive_brings_them";
    if !privileged(test) {
        return;
    }
    let base = Tree::new(&["640 old=base", "dir/x", "link->dir", "gone->/nowhere", "d2/keep"]);
    let path = |text: &str| RelPath::clean(text).unwrap();
    let upper = check(
        test,
        &base,
        |layer| {
            put(layer, "dir", NewEntry::Directory, 0o711).unwrap();
            put(layer, "link/f", NewEntry::File { size: 3, data: &mut &b"abc"[..] }, 0o4755)
                .unwrap();
            put(layer, "dir/hard", NewEntry::HardLink(&path("link/f")), 0).unwrap();
            put(layer, "dir/base", NewEntry::HardLink(&path("old")), 0).unwrap();
            put(layer, "dir/self", NewEntry::Symlink(b"../../../x"), 0o777).unwrap();
            put(layer, "dir/self", NewEntry::HardLink(&path("dir/self")), 0).unwrap();
            put(layer, "d2", NewEntry::File { size: 0, data: &mut &b""[..] }, 0o600).unwrap();
            put(layer, "a/b/c", NewEntry::Directory, 0o700).unwrap();
            put(layer, "pipe", NewEntry::Fifo, 0o644).unwrap();
            let short =
                put(layer, "short", NewEntry::File { size: 9, data: &mut &b"abc"[..] }, 0o644);
            assert!(matches!(short, Err(TreeError::Data { .. })));
            layer.remove("/short", &RemoveOptions::default()).unwrap();
            // 0:0, and what the kernel would make 0:0.
            for (major, minor) in [(0, 0), (1 << 12, 0), (0, 1 << 20), (1 << 12, 1 << 20)] {
                assert!(put(layer, "w", NewEntry::CharDevice(major, minor), 0o644).is_err());
            }
            assert!(put(layer, "no", NewEntry::HardLink(&path("missing")), 0o644).is_err());
            assert!(put(layer, "no", NewEntry::HardLink(&path("dir")), 0o644).is_err());
            assert!(put(layer, "old/below", NewEntry::Fifo, 0o644).is_err());
            assert!(put(layer, "", NewEntry::Fifo, 0o644).is_err());
            put(layer, "", NewEntry::Directory, 0o644).unwrap();
            layer.put(&path(""), NewEntry::Directory, &entry_meta(0o755)).unwrap();
        },
        &[
            "a dir 755",
            "a/b dir 755",
            "a/b/c dir 700",
            "d2 600 = ",
            "dir dir 711",
            "dir/base 640 = base",
            "dir/f 4755 = abc",
            "dir/hard 4755 = abc",
            "dir/self -> ../../../x",
            "old 640 = base",
            "pipe special 644",
        ],
        &[
            "a dir 755",
            "a/b dir 755",
            "a/b/c dir 700",
            "d2 600 = ",
            "dir dir 711",
            "dir/base 640 = base",
            "dir/f 4755 = abc",
            "dir/hard 4755 = abc",
            "dir/self -> ../../../x",
            "dir/x 644 = dir/x",
            "gone -> /nowhere",
            "link -> dir",
            "old 640 = base",
            "pipe special 644",
        ],
    );
    assert_eq!(upper.meta("dir/f").ino(), upper.meta("dir/hard").ino());
    assert_eq!(upper.meta("old").ino(), upper.meta("dir/base").ino());
    for name in ["dir", "dir/f", "a/b/c", "d2"] {
        assert_eq!(upper.meta(name).mtime(), 500, "{name}");
    }
}
