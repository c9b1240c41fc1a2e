//! Names and links of entries that try to leave the directory, or to be two things at once.

use wbuild_oci::layer::{Entry, EntryKind};

use super::*;

fn node(path: &str, kind: EntryKind) -> (Entry, &'static [u8]) {
    (Entry::new(path, kind, 0o644), b"")
}

fn char_device(major: u32, minor: u32) -> EntryKind {
    EntryKind::CharDevice { major, minor }
}

fn block_device(major: u32, minor: u32) -> EntryKind {
    EntryKind::BlockDevice { major, minor }
}

fn other(path: &str) -> (Entry, &'static [u8]) {
    (file(path).0, b"other")
}

/// What GNU tar does with links that lead elsewhere.
const DELAYED: &str = "it makes them at the end, unless what it finds there looks changed";

#[rustfmt::skip]
fn cases(canary: &str, root: bool) -> Vec<(&'static str, Entries, Want)> {
    use Want::{Refused, Taken, Unlike, Varies};
    let inside = |path: &str| format!("{canary}{path}");
    let deep = "d/".repeat(600);
    let within_depth = format!("{}x", "d/".repeat(511));
    let mut closed = dir("a");
    closed.0.mode = 0;
    let mut cases = vec![
        // Upwards and from the root.
        ("upwards", vec![file("../canary/file")], Refused),
        ("upwards, absolute", vec![file("/../canary/file")], Refused),
        ("upwards within", vec![dir("a"), file("a/../../canary/file")], Refused),
        ("upwards and back", vec![dir("a"), file("a/../b")], Refused),
        ("upwards at the end", vec![dir("a/..")], Refused),
        ("upwards alone", vec![dir("..")], Refused),
        ("upwards as a link", vec![symlink("..", "a")], Refused),
        ("three dots", vec![file("..."), file(".../x"), file("..a")], Refused),
        ("three dots as a name", vec![dir("..."), file(".../x"), file("..a")], Taken),
        ("absolute", vec![file("/abs"), dir("/d"), file("/d/x")], Taken),
        ("absolute, of the canary", vec![file(&inside("/file"))], Taken),
        ("many slashes and dots", vec![dir("./"), dir(".//a"), file("./a//b"), file("a/./c")], Taken),
        // Through symbolic links.
        ("through an absolute link", vec![symlink("a", canary), file("a/file")], Refused),
        ("through a relative link", vec![symlink("a", "../canary"), file("a/file")], Refused),
        ("through a link within", vec![dir("b"), symlink("a", "b"), file("a/file")], Refused),
        ("through a link to the parent", vec![symlink("a", ".."), file("a/canary/file")], Refused),
        ("through a link to here", vec![symlink("a", "."), file("a/file")], Refused),
        ("through a link to the root", vec![symlink("a", "/"), file(&inside("/file")[1..])], Taken),
        ("through a dangling link", vec![symlink("a", "nothing"), file("a/file")], Refused),
        ("through a loop", vec![symlink("a", "b"), symlink("b", "a"), file("a/file")], Refused),
        ("through two links", vec![symlink("a", "b"), symlink("b", canary), file("a/file")], Refused),
        (
            "through links in directories",
            vec![dir("d"), symlink("d/a", ".."), symlink("b", "d/a/.."), file("b/canary/file")],
            Refused,
        ),
        ("through a link in /proc", vec![symlink("a", "/proc/self/cwd"), file("a/file")], Refused),
        ("directory through a link", vec![symlink("a", canary), dir("a/new")], Refused),
        ("link through a link", vec![symlink("a", canary), symlink("a/new", "x")], Refused),
        (
            "link in place of a directory",
            vec![dir("a"), file("a/x"), symlink("a", canary), file("a/file")],
            Refused,
        ),
        ("mode through a link", vec![symlink("a", &inside("/dir")), dir("a/.")], Unlike("it follows links that it made itself to directories")),
        (
            "directory in place of a link",
            vec![symlink("a", canary), dir("a"), file("a/file")],
            Varies(DELAYED),
        ),
        ("file in place of a link", vec![symlink("a", &inside("/file")), file("a")], Varies(DELAYED)),
        ("link in place of a link", vec![symlink("a", canary), symlink("a", "x")], Varies(DELAYED)),
        ("links to anywhere", vec![symlink("a", canary), symlink("b", "/"), symlink("c", "../..")], Taken),
        // Hard links.
        ("hard link upwards", vec![hard_link("a", "../canary/file")], Refused),
        ("hard link absolute", vec![hard_link("a", &inside("/file"))], Refused),
        ("hard link to nothing", vec![hard_link("a", "b")], Refused),
        ("hard link before its target", vec![hard_link("a", "b"), file("b")], Refused),
        ("hard link through a link", vec![symlink("l", canary), hard_link("a", "l/file")], Refused),
        (
            "hard link through a relative link",
            vec![symlink("l", "../canary"), hard_link("a", "l/file")],
            Refused,
        ),
        ("hard link to a directory", vec![dir("d"), hard_link("a", "d")], Refused),
        ("hard link to the root", vec![hard_link("a", ".")], Refused),
        ("hard link as the root", vec![file("b"), hard_link(".", "b")], Refused),
        ("hard link to what is below it", vec![dir("a"), file("a/b"), hard_link("a", "a/b")], Refused),
        (
            "write through a hard link to a link",
            vec![symlink("l", &inside("/file")), hard_link("a", "l"), other("a")],
            Varies(DELAYED),
        ),
        ("hard link to a link", vec![symlink("l", &inside("/file")), hard_link("a", "l")], Taken),
        ("hard link to itself", vec![file("a"), hard_link("a", "a")], Taken),
        ("hard link twice", vec![file("a"), hard_link("b", "a"), hard_link("b", "a")], Taken),
        ("hard link to a hard link", vec![file("a"), hard_link("b", "a"), hard_link("c", "b")], Taken),
        ("hard link over a file", vec![file("a"), other("b"), hard_link("b", "a")], Taken),
        ("hard link, then a file over it", vec![file("a"), hard_link("b", "a"), other("b")], Taken),
        // Names twice.
        ("file twice", vec![file("a"), other("a")], Taken),
        ("link over a file", vec![file("a"), symlink("a", canary)], Taken),
        ("file over an empty directory", vec![dir("a"), file("a")], Taken),
        (
            "file over a directory",
            vec![dir("a"), file("a/b"), file("a")],
            Unlike("it keeps directories that are not empty"),
        ),
        ("link over an empty directory", vec![dir("a"), symlink("a", canary)], Taken),
        ("hard link over an empty directory", vec![file("b"), dir("a"), hard_link("a", "b")], Taken),
        ("directory over a file", vec![file("a"), dir("a"), file("a/b")], Taken),
        ("directory over a pipe", vec![node("a", EntryKind::Fifo), dir("a"), file("a/b")], Taken),
        ("directory twice", vec![dir("a"), file("a/b"), closed], Taken),
        ("file as a directory", vec![file("a"), file("a/b")], Refused),
        ("pipe as a directory", vec![node("a", EntryKind::Fifo), file("a/b")], Refused),
        ("root as a file", vec![file(".")], Refused),
        ("root as a link", vec![symlink("./", canary)], Refused),
        // Devices and pipes.
        ("pipe", vec![node("a", EntryKind::Fifo)], Taken),
        ("live whiteout", vec![node("a", char_device(0, 0))], Refused),
        ("live whiteout by a large major", vec![node("a", char_device(1 << 12, 0))], Refused),
        ("live whiteout by a large minor", vec![node("a", char_device(0, 1 << 20))], Refused),
        ("null device by a large major", vec![node("a", char_device(0x1001, 3))], Refused),
        ("disk by a large minor", vec![node("a", block_device(8, 1 << 20))], Refused),
        // Names that are too long or too many.
        ("deep", vec![file(&format!("{deep}x"))], Refused),
        ("as deep as may be", vec![file(&within_depth)], Taken),
        ("longest name", vec![file(&"x".repeat(255))], Taken),
        ("name too long", vec![file(&"x".repeat(256))], Refused),
        ("directory too long", vec![file(&format!("{}/x", "x".repeat(256)))], Refused),
        ("target as long as may be", vec![symlink("a", &("t/".repeat(2047) + "t"))], Taken),
        ("target of a byte more", vec![symlink("a", &"t/".repeat(2048))], Refused),
        ("target too long", vec![symlink("a", &"t/".repeat(2049))], Refused),
        ("path too long", vec![file(&format!("{}/x", "x".repeat(200).as_str().to_owned() + &format!("/{}", "x".repeat(200)).repeat(20)))], Refused),
    ];
    if root {
        cases.extend([
            ("null device", vec![node("a", char_device(1, 3))], Taken),
            ("highest device", vec![node("a", block_device(0xfff, 0xf_ffff))], Taken),
            (
                "device over a file",
                vec![file("a"), node("a", char_device(5, 1)), hard_link("b", "a")],
                Taken,
            ),
        ]);
    }
    cases
}

#[test]
fn f_tar_names_and_links() {
    let nest = Nest::new();
    let cases = cases(&nest.canary(), is_root());
    let made =
        cases.into_iter().map(|(name, entries, want)| Case { name, archive: tar(&entries), want });
    try_all("f_tar_names_and_links", &nest, made.collect());
}

/// Links that the tree holds already are followed, but as if the tree were all there is.
#[test]
fn f_tar_trees_with_traps() {
    let nest = Nest::new();
    let canary = nest.canary();
    for (name, entries) in [
        ("relative", vec![file("up/file")]),
        ("absolute", vec![file("abs/file")]),
        ("of a file", vec![file("abs-file"), file("up-file")]),
        ("chained", vec![file("chain/file"), dir("chain/dir")]),
        ("in a directory", vec![file("d/up/file"), dir("d/up"), file("d/up/file")]),
        ("to the parent", vec![file("parent/canary/file"), file("parent/new")]),
        ("into /proc", vec![file("proc/cwd/file"), file("proc/root/file")]),
        ("as a directory", vec![dir("abs"), dir("up/dir"), dir("abs/dir/new")]),
        ("as the target of a link", vec![hard_link("a", "abs/file"), hard_link("b", "up-file")]),
        ("as a target, then written", vec![hard_link("a", "abs-file"), file("a")]),
        ("as a whiteout", vec![empty("abs/.wh.file"), empty("up/.wh..wh..opq")]),
    ] {
        let tree = nest.fresh("tree");
        fs::create_dir(tree.join("d")).expect("fresh");
        for (link, target) in [
            ("up", "../canary"),
            ("abs", &canary),
            ("abs-file", &format!("{canary}/file")),
            ("up-file", "../canary/file"),
            ("chain", "d/up"),
            ("d/up", "../../canary"),
            ("parent", ".."),
            ("proc", "/proc/self"),
        ] {
            std::os::unix::fs::symlink(target, tree.join(link)).expect("fresh");
        }
        // Some of these work, within the tree.
        let _ = unpacked(&tar(&entries), &tree);
        nest.check(name);
        no_live_whiteout(&tree, name);
    }
}

#[test]
fn f_tar_overlay_attributes_stay_out() {
    let nest = Nest::new();
    let root = nest.fresh("layer");
    if !has_user_xattrs(&root) {
        return skip("f_tar_overlay_attributes_stay_out", "no user attributes here");
    }
    let mut entries = [dir("a"), file("b"), symlink("c", "x")];
    for (entry, _) in &mut entries {
        for name in [
            "user.overlay.opaque",
            "user.overlay.whiteout",
            "user.overlay.redirect",
            "user.overlay.metacopy",
            "user.overlay.overlay.opaque",
            "trusted.overlay.opaque",
            "trusted.overlay.redirect",
            "trusted.overlay.overlay.whiteout",
            "security.selinux",
            "system.nfs4_acl",
            "",
        ] {
            entry.xattrs.insert(name.into(), b"y".to_vec());
        }
    }
    for (entry, _) in &mut entries[..2] {
        entry.xattrs.insert(b"user.fine".into(), b"y".to_vec());
    }
    let archive = tar(&entries);
    apply_layer(&archive, &root).expect("applied without them");
    unpacked(&archive, &nest.fresh("tree")).expect("unpacked without them");
    for tree in [root, nest.path("tree")] {
        let lines = describe(&tree);
        assert!(lines[..2].iter().all(|line| line.ends_with(" user.fine=y")), "{lines:?}");
        for word in ["overlay", "selinux", "nfs4"] {
            assert!(!lines.iter().any(|line| line.contains(word)), "{lines:?}");
        }
    }
}
