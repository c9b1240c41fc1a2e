//! Marks of deleted files, honest and not: what an image shows whose second layer holds them.
//!
//! What the two layers become in an overlay mount is compared with what umoci unpacks.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use wbuild_oci::layer::{
    Applied, ApplyOptions, CompressOptions, Entry, EntryKind, LayerBlob, LayerBuilder, OverlayKind,
    ParentMeta, apply,
};
use wbuild_oci::layout::{Export, write_oci_dir};
use wbuild_oci::media::{Compression, MediaFamily};

use super::*;
use crate::layouts::{Blobs, image};

/// What becomes of a layer.
enum Outcome {
    /// It is refused.
    Refused,
    /// The image holds these names: directories end in a slash, links show their target, and files
    /// of the second layer end in `*`.
    Shows(&'static str),
    /// The same, and umoci shows something else, for this reason.
    Alone(&'static str, &'static str),
}

/// A mark makes the directory that it is in, as Docker and containerd do; and since marks are about
/// lower layers only (layer.md), the order of the two does not matter.
const NO_DIRECTORY: &str = "it makes no directory for a mark";

/// A layer is applied by itself, so that a directory it needs replaces what is below: so do Docker
/// and containerd on overlays.
const REPLACED: &str = "it follows links of lower layers";

/// What lies below: directories with files, and a link to one of them.
fn below() -> Entries {
    vec![
        dir("a"),
        dir("a/d"),
        (file("a/d/e").0, b"below"),
        (file("a/f").0, b"below"),
        symlink("l", "a"),
        (file("x").0, b"below"),
    ]
}

fn opaque(dir: &str) -> (Entry, &'static [u8]) {
    empty(&format!("{dir}/.wh..wh..opq"))
}

#[rustfmt::skip]
fn cases() -> Vec<(&'static str, Entries, Outcome)> {
    use Outcome::{Alone, Refused, Shows};
    let device = |path: &str, major, minor| {
        (Entry::new(path, EntryKind::CharDevice { major, minor }, 0), &b""[..])
    };
    let sized = |path: &str| (file(path).0, &b"not empty"[..]);
    vec![
        // What whiteouts are for.
        ("file", vec![empty("a/.wh.f")], Shows("a/ a/d/ a/d/e l->a x")),
        ("file with its directory", vec![dir("a"), empty("a/.wh.f")], Shows("a/ a/d/ a/d/e l->a x")),
        ("directory", vec![empty(".wh.a")], Shows("l->a x")),
        ("link", vec![empty(".wh.l")], Shows("a/ a/d/ a/d/e a/f x")),
        ("of nothing that is there", vec![empty("a/.wh.nothing")], Shows("a/ a/d/ a/d/e a/f l->a x")),
        ("in a directory that is not there", vec![empty("new/.wh.f")], Alone("a/ a/d/ a/d/e a/f l->a new/ x", NO_DIRECTORY)),
        ("twice", vec![empty(".wh.x"), empty(".wh.x")], Shows("a/ a/d/ a/d/e a/f l->a")),
        ("with content", vec![sized(".wh.x")], Shows("a/ a/d/ a/d/e a/f l->a")),
        // Before and after what has the same name in the same layer.
        ("then file", vec![empty(".wh.x"), file("x")], Shows("a/ a/d/ a/d/e a/f l->a x*")),
        ("file, then whiteout", vec![file("x"), empty(".wh.x")], Shows("a/ a/d/ a/d/e a/f l->a x*")),
        ("then directory", vec![empty(".wh.a"), dir("a"), file("a/n")], Shows("a/ a/n* l->a x")),
        ("directory, then whiteout", vec![dir("a"), file("a/n"), empty(".wh.a")], Shows("a/ a/n* l->a x")),
        ("then content of the directory", vec![empty(".wh.a"), file("a/n")], Shows("a/ a/n* l->a x")),
        ("then whiteout within", vec![empty(".wh.a"), empty("a/.wh.f")], Alone("a/ l->a x", NO_DIRECTORY)),
        ("whiteout within, then of the parent", vec![empty("a/.wh.f"), empty(".wh.a")], Alone("a/ l->a x", NO_DIRECTORY)),
        ("then link", vec![empty(".wh.a"), symlink("a", "x")], Shows("a->x l->a x")),
        ("then file in place of a directory", vec![empty(".wh.a"), file("a")], Shows("a* l->a x")),
        ("hard link in place of it", vec![file("n"), empty(".wh.x"), hard_link("x", "n")], Shows("a/ a/d/ a/d/e a/f l->a n* x*")),
        // Opaque directories.
        ("opaque", vec![dir("a"), opaque("a"), file("a/n")], Shows("a/ a/n* l->a x")),
        ("opaque alone", vec![opaque("a")], Shows("a/ l->a x")),
        ("opaque after content", vec![dir("a"), file("a/n"), opaque("a")], Shows("a/ a/n* l->a x")),
        ("opaque twice", vec![opaque("a"), opaque("a"), file("a/n")], Shows("a/ a/n* l->a x")),
        ("opaque within opaque", vec![opaque("a"), opaque("a/d")], Alone("a/ a/d/ l->a x", NO_DIRECTORY)),
        ("opaque and whiteout", vec![opaque("a"), empty("a/.wh.f"), file("a/n")], Shows("a/ a/n* l->a x")),
        ("opaque, then whiteout of it", vec![opaque("a"), empty(".wh.a")], Alone("a/ l->a x", NO_DIRECTORY)),
        ("opaque, then a file instead", vec![opaque("a"), file("a")], Shows("a* l->a x")),
        ("opaque that is not there below", vec![dir("n"), opaque("n")], Shows("a/ a/d/ a/d/e a/f l->a n/ x")),
        ("opaque root", vec![empty(".wh..wh..opq")], Refused),
        ("opaque root, with a dot", vec![empty("./.wh..wh..opq")], Refused),
        // Names that are none.
        ("of nothing", vec![empty(".wh.")], Refused),
        ("of here", vec![empty(".wh..")], Refused),
        ("of the parent", vec![empty(".wh...")], Refused),
        ("of the parent, below", vec![empty("a/d/.wh...")], Refused),
        ("of three dots", vec![empty("a/.wh....")], Shows("a/ a/d/ a/d/e a/f l->a x")),
        ("below nothing", vec![file(".wh./x")], Refused),
        ("below here", vec![file(".wh../x")], Refused),
        ("below a whiteout", vec![file(".wh.a/b")], Refused),
        ("of a whiteout", vec![empty(".wh..wh.x")], Refused),
        ("of an opaque mark", vec![empty("a/.wh..wh..wh..opq")], Refused),
        ("upwards", vec![empty("../.wh.canary")], Refused),
        ("upwards within", vec![empty("a/../.wh.x")], Refused),
        ("upwards behind", vec![empty(".wh.a/..")], Refused),
        ("with a slash behind", vec![(Entry::new(".wh.x/", EntryKind::Directory, 0o755), b"")], Refused),
        ("absolute", vec![empty("/a/.wh.f")], Shows("a/ a/d/ a/d/e l->a x")),
        // Through links.
        ("through a link of the layer", vec![symlink("s", "a"), empty("s/.wh.f")], Refused),
        ("through a link outwards", vec![symlink("s", "../canary"), empty("s/.wh.file")], Refused),
        ("opaque through a link", vec![symlink("s", "a"), opaque("s")], Refused),
        ("through a link below", vec![empty("l/.wh.f")], Alone("a/ a/d/ a/d/e a/f l/ x", REPLACED)),
        ("opaque through a link below", vec![opaque("l")], Alone("a/ a/d/ a/d/e a/f l/ x", REPLACED)),
        ("file through a link below", vec![file("l/n")], Alone("a/ a/d/ a/d/e a/f l/ l/n* x", REPLACED)),
        ("directory in place of a link below", vec![dir("l"), empty("l/.wh.f")], Shows("a/ a/d/ a/d/e a/f l/ x")),
        // Marks of another type.
        ("as a link", vec![symlink(".wh.x", "a")], Refused),
        ("as a directory", vec![dir(".wh.x")], Refused),
        ("as a device", vec![device(".wh.x", 1, 3)], Refused),
        ("as a live whiteout", vec![device(".wh.x", 0, 0)], Refused),
        ("as a pipe", vec![(Entry::new(".wh.x", EntryKind::Fifo, 0o644), b"")], Refused),
        ("as a hard link to a file", vec![file("n"), hard_link(".wh.x", "n")], Shows("a/ a/d/ a/d/e a/f l->a n*")),
        ("as a hard link upwards", vec![hard_link(".wh.x", "../canary/file")], Shows("a/ a/d/ a/d/e a/f l->a")),
        ("opaque as a link", vec![dir("a"), symlink("a/.wh..wh..opq", "x")], Refused),
        ("opaque as a directory", vec![dir("a"), dir("a/.wh..wh..opq")], Refused),
        ("opaque as a hard link", vec![dir("a"), file("n"), hard_link("a/.wh..wh..opq", "n")], Shows("a/ l->a n* x")),
        ("target of a hard link", vec![empty(".wh.x"), hard_link("n", ".wh.x")], Refused),
        ("its file as the target", vec![empty(".wh.x"), hard_link("n", "x")], Refused),
        // Deletion by other names.
        ("live whiteout", vec![device("x", 0, 0)], Refused),
        ("live whiteout by a large minor", vec![device("x", 0, 1 << 20)], Refused),
        // AUFS.
        ("AUFS: its own files", vec![dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"), empty(".wh..wh.aufs"), dir(".wh..wh.orph"), file("n")], Alone("a/ a/d/ a/d/e a/f l->a n* x", "it does not know AUFS")),
        ("AUFS: whiteout", vec![empty(".wh..wh.aufs"), hard_link(".wh.x", ".wh..wh.aufs")], Shows("a/ a/d/ a/d/e a/f l->a")),
        ("AUFS: link into its files", vec![dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2"), hard_link("n", ".wh..wh.plnk/1.2")], Refused),
        ("AUFS: upwards", vec![file(".wh..wh.plnk/../../canary/file")], Refused),
        // What only looks like a mark.
        ("names that look alike", vec![file(".wh"), file("wh.x"), file("x.wh.y")], Shows(".wh* a/ a/d/ a/d/e a/f l->a wh.x* x x.wh.y*")),
        ("in other letters", vec![file(".WH.x")], Shows(".WH.x* a/ a/d/ a/d/e a/f l->a x")),
    ]
}

fn blob(entries: &[(Entry, &[u8])]) -> (LayerBlob, Vec<u8>) {
    let options = CompressOptions::new(Compression::Gzip);
    let mut builder = LayerBuilder::new(Vec::new(), &options).expect("options");
    for (entry, data) in entries {
        let mut entry = entry.clone();
        entry.size = data.len() as u64;
        builder.append(&entry, Some(&mut &data[..])).expect("memory");
    }
    let (bytes, blob) = builder.finish().expect("memory");
    (blob, bytes)
}

/// Names in a tree, as [`Outcome::Shows`] has them.
fn shown(root: &Path) -> String {
    let mut names = Vec::new();
    for line in contents(root) {
        let (path, rest) = line.split_once(' ').expect("a path and more");
        let full = root.join(path);
        names.push(match rest.split(' ').next() {
            Some("dir") => format!("{path}/"),
            Some("link") => {
                format!("{path}->{}", fs::read_link(full).expect("a link").display())
            }
            Some("file") if fs::read(&full).expect("a file") == b"below" => path.to_owned(),
            Some("file") => format!("{path}*"),
            _ => line.clone(),
        });
    }
    names.join(" ")
}

/// Applies a layer to lie on another.
fn apply_on(layer: &[u8], upper: &Path, lower: &Path) -> Result<Applied> {
    let options = ApplyOptions {
        ownership: ownership(),
        base_known: true,
        ..ApplyOptions::new(OverlayKind::User)
    };
    let mut below = |path: &[u8]| {
        let mut at = lower.to_owned();
        for name in path.split(|byte| *byte == b'/') {
            at.push(OsStr::from_bytes(name));
            if !fs::symlink_metadata(&at).is_ok_and(|meta| meta.is_dir()) {
                return Ok(None);
            }
        }
        Ok(Some(ParentMeta { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() }))
    };
    apply(layer, open_dir(upper).as_fd(), &options, &mut below)
}

/// What a mount of one layer over the other shows; `None` where there are no such mounts.
fn merged(nest: &Nest, lower: &Path, upper: &Path) -> Option<String> {
    let (work, to) = (nest.fresh("work"), nest.fresh("other"));
    // Copied out of the mount, which is gone with its namespace.
    let script = "mount -t overlay overlay -o \
                  userxattr,lowerdir=\"$1\",upperdir=\"$2\",workdir=\"$3\" \"$3\" || exit 77; \
                  cp -a \"$3/.\" \"$4\"";
    let paths = [lower, upper, &work, &to].map(|path| path.to_str().expect("utf-8"));
    let out = run("unshare", &[&["-m", "sh", "-c", script, "sh"][..], &paths].concat())?;
    let shown = match out.status.code() {
        Some(0) => Some(shown(&to)),
        Some(77) => None,
        // What is mounted and cannot be read is a result, and a wrong one.
        _ => Some(String::from_utf8_lossy(&out.stderr).into_owned()),
    };
    let _ = fs::remove_dir_all(&work);
    shown
}

/// What umoci unpacks; `None` where it is not installed.
fn umoci(nest: &Nest, blobs: &Blobs) -> Option<std::result::Result<String, String>> {
    let layout = nest.fresh("archive");
    let image = image("linux/amd64", blobs, MediaFamily::Oci);
    let names = vec!["case:latest".parse().expect("a name")];
    let export = Export::new(MediaFamily::Oci, vec![image], names, None).expect("export");
    write_oci_dir(&[&export], blobs, open_dir(&layout).as_fd()).expect("written");
    let bundle = nest.fresh("other");
    let from = format!("{}:latest", layout.display());
    let mut args = vec!["unpack", "--image", &from];
    if !is_root() {
        args.push("--rootless");
    }
    args.push(bundle.to_str().expect("utf-8"));
    let out = run("umoci", &args)?;
    let shown = match out.status.success() {
        true => Ok(shown(&bundle.join("rootfs"))),
        false => Err(String::from_utf8_lossy(&out.stderr).trim().to_owned()),
    };
    Some(shown)
}

#[test]
fn t_wh_marks_of_deletion() {
    let test = "t_wh_marks_of_deletion";
    let nest = Nest::new();
    if !has_user_xattrs(&nest.fresh("layer")) {
        return skip(test, "no user attributes in the temporary directory");
    }
    let base = blob(&below());
    let mut wrong = Vec::new();
    let (mut mounts, mut peer) = (true, true);
    for (name, entries, want) in cases() {
        let (lower, upper) = (nest.fresh("tree"), nest.fresh("layer"));
        apply_layer(&base.1, &lower).expect("the base");
        let layer = blob(&entries);
        let applied = apply_on(&layer.1, &upper, &lower);
        nest.check(name);
        let (want, reason) = match (want, applied) {
            (Outcome::Refused, Err(error)) if is_refusal(&error) => continue,
            (Outcome::Refused, Ok(_)) => {
                wrong.push(format!("{name}: taken"));
                continue;
            }
            (Outcome::Shows(want), Ok(_)) => (want, None),
            (Outcome::Alone(want, reason), Ok(_)) => (want, Some(reason)),
            (_, Err(error)) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        match merged(&nest, &lower, &upper) {
            None => mounts = false,
            Some(ours) if ours != want => wrong.push(format!("{name}: {ours}")),
            Some(_) => {}
        }
        match (umoci(&nest, &Blobs(vec![base.clone(), layer])), reason) {
            (None, _) => peer = false,
            (Some(theirs), None) if theirs.as_deref() != Ok(want) => {
                wrong.push(format!("{name}: umoci: {theirs:?}"));
            }
            (Some(theirs), Some(reason)) if theirs.as_deref() == Ok(want) => {
                wrong.push(format!("{name}: umoci agrees, though {reason}"));
            }
            _ => {}
        }
        nest.check(&format!("{name}, with others"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if !mounts {
        skip(test, "an overlay cannot be mounted");
    }
    if !peer {
        skip(test, "there is no umoci to compare with");
    }
}
