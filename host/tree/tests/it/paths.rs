//! Paths and links that try to leave their tree. Beside every tree stands a directory of canaries;
//! whatever is tried, nothing in it is read into a layer, changed, removed or added.

use std::fs;
use std::os::unix::fs::symlink;

use wbuild_tree::{
    LayerWriter, LinkOptions, Links, MkdirOptions, Owner, RelPath, RemoveOptions, Root, Source,
    SourceKind, Work, WriteOptions, select,
};

use crate::support::*;

const SECRET: &str = "canary: must not be seen or touched";

pub struct Rig {
    dir: tempfile::TempDir,
}

impl Rig {
    pub fn new() -> Rig {
        // Thousands of small layers: in memory where that is to be had.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        for name in ["canary/sub", "source/d", "base/d", "upper"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        for name in ["canary/file", "canary/sub/file", "secret"] {
            fs::write(dir.path().join(name), SECRET).unwrap();
        }
        fs::write(dir.path().join("source/f"), "payload").unwrap();
        fs::write(dir.path().join("source/d/g"), "payload").unwrap();
        Rig { dir }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Links in `tree` under which a naive implementation would leave it.
    fn set_traps(&self, tree: &str) -> Vec<String> {
        let outside = self.path("canary");
        let absolute = outside.to_str().unwrap();
        let traps: Vec<(String, String)> = vec![
            ("abs".into(), absolute.into()),
            ("abs-file".into(), format!("{absolute}/file")),
            ("up".into(), "../canary".into()),
            ("up-file".into(), "../canary/file".into()),
            ("far".into(), format!("{}{}", "../".repeat(60), &absolute[1..])),
            ("d/up".into(), "../../canary".into()),
            ("parent".into(), "..".into()),
            ("chain1".into(), "chain2".into()),
            ("chain2".into(), "d/up".into()),
            ("proc".into(), "/proc/self/root".into()),
            ("proc-cwd".into(), "/proc/self/cwd/..".into()),
            ("loop1".into(), "loop2".into()),
            ("loop2".into(), "loop1".into()),
            ("self".into(), "self/x".into()),
            ("root".into(), "/".into()),
            ("here".into(), ".".into()),
            ("dangling".into(), "nothing".into()),
        ];
        for (name, target) in &traps {
            symlink(target, self.path(tree).join(name)).unwrap();
        }
        traps.into_iter().map(|(name, _)| name).collect()
    }

    pub fn check(&self, what: &str) {
        let canary = |name: &str| fs::read_to_string(self.path(name)).unwrap_or_default();
        for name in ["canary/file", "canary/sub/file", "secret"] {
            assert_eq!(canary(name), SECRET, "{what}: {name}");
        }
        let names = |name: &str| {
            let mut names: Vec<_> =
                fs::read_dir(self.path(name)).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names("canary"), ["file", "sub"], "{what}");
        assert_eq!(names("canary/sub"), ["file"], "{what}");
        assert_eq!(names("."), ["base", "canary", "secret", "source", "upper"], "{what}");
    }

    pub fn no_secret_in(&self, dir: &str, what: &str) {
        let mut open = vec![self.path(dir)];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                if meta.is_dir() {
                    open.push(path);
                } else if meta.is_file() {
                    let text = fs::read(&path).unwrap();
                    assert!(text != SECRET.as_bytes(), "{what}: {}", path.display());
                }
            }
        }
    }

    pub fn root(&self, name: &str) -> Root {
        Root::open(&self.path(name), name).unwrap()
    }

    pub fn clear_upper(&self) {
        fs::remove_dir_all(self.path("upper")).unwrap();
        fs::create_dir(self.path("upper")).unwrap();
    }

    pub fn writer(&self) -> LayerWriter {
        let base = Some(self.root("base").into());
        LayerWriter::new(self.root("upper"), base, xattr_kind(), Work::default()).unwrap()
    }
}

#[test]
fn t_path_no_source_leaves_its_tree() {
    let rig = Rig::new();
    let mut paths: Vec<String> = Vec::new();
    for name in rig.set_traps("source") {
        for end in ["", "/", "/file", "/sub/file", "/*", "/../canary/file"] {
            paths.push(format!("{name}{end}"));
        }
    }
    for up in ["..", "../..", "../canary", "../canary/file", "d/../../canary/file", "/../canary"] {
        paths.push(up.to_owned());
        paths.push(format!("{up}/*"));
    }
    paths.push(rig.path("canary/file").to_str().unwrap().to_owned());
    paths.push("proc/self/root/../canary".to_owned());
    for kind in [SourceKind::Context, SourceKind::Image] {
        for follow_links in [true, false] {
            for parents in [true, false] {
                for path in &paths {
                    rig.clear_upper();
                    let what = format!("{path} {kind:?} follow {follow_links} parents {parents}");
                    let root = rig.root("source");
                    let filter = wbuild_tree::Filter::all();
                    let source = Source { root: &root, filter: &filter, kind };
                    let mut options = plain();
                    options.follow_links = follow_links;
                    options.parents = parents;
                    let work = Work::default();
                    if let Ok(mut selection) = select(&source, &[path], &options, &work) {
                        let _ = selection.digest(&source, None, &work);
                        let _ = rig.writer().copy(&source, &selection, "/o/", &my_options());
                    }
                    rig.no_secret_in("upper", &what);
                    rig.check(&what);
                }
            }
        }
    }
}

#[test]
fn t_path_no_look_up_leaves_the_root() {
    let rig = Rig::new();
    for name in rig.set_traps("source") {
        for end in ["", "/file", "/sub/file", "/../secret", "/../../secret"] {
            let given = format!("{name}{end}");
            let path = RelPath::clean(&given).unwrap();
            let root = rig.root("source");
            if let Ok(text) = root.read_file(&path, 1 << 20) {
                assert_ne!(text, SECRET.as_bytes(), "{given}");
            }
            let _ = root.read_dir(&path).map(|entries| {
                assert!(entries.iter().all(|e| *e.name != *b"canary"), "{given}");
            });
            let _ = root.stat(&path, Links::Refuse);
            let _ = root.follow(&path, true);
        }
    }
}

#[test]
fn t_path_no_destination_leaves_the_layer() {
    let Owner::Fixed { uid, gid } = me() else { unreachable!() };
    let rig = Rig::new();
    let traps = rig.set_traps("base");
    let mut targets: Vec<String> = vec![
        "../x".into(),
        "../../x/".into(),
        "/..".into(),
        "d/../../canary/file".into(),
        rig.path("canary/file").to_str().unwrap().into(),
    ];
    for name in traps {
        for end in ["", "/", "/file", "/sub/file", "/new/deep/", "/../secret"] {
            targets.push(format!("/{name}{end}"));
        }
    }
    let root = rig.root("source");
    let filter = wbuild_tree::Filter::all();
    let source = Source { root: &root, filter: &filter, kind: SourceKind::Context };
    for target in &targets {
        for (follow_links, replace) in [(true, false), (true, true), (false, false), (false, true)]
        {
            let what = format!("{target} follow {follow_links} replace {replace}");
            for paths in [&["f"][..], &["f", "d"]] {
                rig.clear_upper();
                let selection = select(&source, paths, &plain(), &Work::default()).unwrap();
                let mut options = my_options();
                options.follow_links = follow_links;
                options.replace = replace;
                let mut writer = rig.writer();
                let _ = writer.copy(&source, &selection, target, &options);
                let _ = writer.copy(&source, &selection, target, &options);
                let _ = writer.finish();
                rig.check(&what);
            }
            rig.clear_upper();
            let mut writer = rig.writer();
            let timestamp = Some(at(1));
            let _ = writer.write_file(
                target,
                b"x",
                &WriteOptions { mode: 0o644, uid, gid, timestamp, follow_links },
            );
            let _ = writer.make_dir(
                target,
                &MkdirOptions { mode: 0o755, uid, gid, parents: true, timestamp },
            );
            let _ = writer.make_link(target, "x", &LinkOptions { uid, gid, timestamp });
            for wildcard in [true, false] {
                let options = RemoveOptions { wildcard, allow_missing: true, timestamp };
                let _ = writer.remove(target, &options);
                let _ = writer.remove(&format!("{target}/*"), &options);
                let _ = writer.remove("/*/*", &options);
            }
            let _ = writer.finish();
            rig.check(&what);
        }
    }
}

/// Traps made by the layer itself: a copied link, then a write through it.
#[test]
fn t_path_a_copied_link_leads_nowhere_else() {
    let rig = Rig::new();
    rig.set_traps("source");
    let root = rig.root("source");
    let filter = wbuild_tree::Filter::all();
    let source = Source { root: &root, filter: &filter, kind: SourceKind::Image };
    let work = Work::default();
    let everything = select(&source, &["."], &plain(), &work).unwrap();
    let file = select(&source, &["f"], &plain(), &work).unwrap();
    let mut writer = rig.writer();
    writer.copy(&source, &everything, "/", &my_options()).unwrap();
    for target in
        ["/up/file", "/abs-file", "/chain1/x", "/far/sub/", "/parent/secret", "/d/up/file"]
    {
        let _ = writer.copy(&source, &file, target, &my_options());
        let _ = writer.remove(target, &RemoveOptions::default());
    }
    writer.finish().unwrap();
    rig.check("through copied links");
    rig.no_secret_in("upper", "through copied links");
}

/// What is tried.
enum Op {
    /// Copies these to that, out of a context and out of an image.
    Copy(&'static [&'static str], &'static str),
    Write(&'static str),
    Mkdir(&'static str),
    Link(&'static str),
    Remove(&'static str),
}

/// What must come of it.
enum Want {
    /// The layer holds these: directories end in a slash, links show their target, and what is
    /// removed from the base ends in `!`. `@` is the directory beside which the canary is.
    Makes(&'static str),
    Refused,
}

/// `base` holds `d/` and `source` holds `f`, `d/g`; both hold the links of [`Rig::set_traps`].
#[rustfmt::skip]
fn cases() -> Vec<(&'static str, Op, Want)> {
    use Op::{Copy, Link, Mkdir, Remove, Write};
    use Want::{Makes, Refused};
    vec![
        // Sources.
        ("source upwards", Copy(&["../canary/file"], "/o/"), Refused),
        ("source upwards to what is there", Copy(&["../f"], "/o/"), Makes("o/ o/f")),
        ("source upwards from the root", Copy(&["/../../f"], "/o/"), Makes("o/ o/f")),
        ("source upwards within", Copy(&["d/../f"], "/o/"), Makes("o/ o/f")),
        ("source upwards behind a link", Copy(&["d/up/../f"], "/o/"), Refused),
        ("source through a link upwards", Copy(&["up/file"], "/o/"), Refused),
        ("source through an absolute link", Copy(&["abs/file"], "/o/"), Refused),
        ("source as an absolute link", Copy(&["abs-file"], "/o/"), Refused),
        ("source as a link upwards", Copy(&["up-file"], "/o/"), Refused),
        ("source through links to links", Copy(&["chain1/file"], "/o/"), Refused),
        ("source through a link far upwards", Copy(&["far/file"], "/o/"), Refused),
        ("source through a link to the parent", Copy(&["parent/canary/file"], "/o/"), Refused),
        ("source through a link to the parent, within", Copy(&["parent/f"], "/o/"), Makes("o/ o/f")),
        ("source through a link to the root", Copy(&["root/f"], "/o/"), Makes("o/ o/f")),
        ("source through a link to here", Copy(&["here/here/d"], "/o/"), Makes("o/ o/g o/up->../../canary")),
        ("source through /proc", Copy(&["proc/canary/file"], "/o/"), Refused),
        ("source through a loop", Copy(&["loop1/f"], "/o/"), Refused),
        ("source through itself", Copy(&["self/f"], "/o/"), Refused),
        ("source as a loop", Copy(&["loop1"], "/o/"), Refused),
        ("source that dangles", Copy(&["dangling"], "/o/"), Refused),
        ("source below a file", Copy(&["f/x"], "/o/"), Refused),
        ("pattern upwards", Copy(&["../*"], "/o/"), Refused),
        ("pattern through links", Copy(&["up/*"], "/o/"), Makes("")),
        ("pattern of links", Copy(&["u*"], "/o/"), Refused),
        ("directory with links in it", Copy(&["d"], "/o/"), Makes("o/ o/g o/up->../../canary")),
        // Destinations.
        ("copy upwards", Copy(&["f"], "/../../x"), Makes("x")),
        ("copy upwards within", Copy(&["f"], "/a/../../../x"), Makes("x")),
        ("copy upwards to a directory", Copy(&["f"], "../../x/"), Makes("x/ x/f")),
        ("copy to the parent", Copy(&["f"], ".."), Makes("f")),
        ("copy through a link upwards", Copy(&["f"], "/up/file"), Makes("canary/ canary/file")),
        ("copy through an absolute link", Copy(&["f"], "/abs/file"), Makes("@/canary/file")),
        ("copy to an absolute link", Copy(&["f"], "/abs-file"), Makes("@/canary/file")),
        ("copy to a link upwards", Copy(&["f"], "/up-file"), Makes("canary/ canary/file")),
        ("copy through a link in a directory", Copy(&["f"], "/d/up/file"), Makes("canary/ canary/file")),
        ("copy through links to links", Copy(&["f"], "/chain1/file"), Makes("canary/ canary/file")),
        ("copy through a link far upwards", Copy(&["f"], "/far/file"), Makes("@/canary/file")),
        ("copy through a link to the parent", Copy(&["f"], "/parent/canary/file"), Makes("canary/ canary/file")),
        ("copy through a link to the root", Copy(&["f"], "/root/x"), Makes("x")),
        ("copy through a link to here", Copy(&["f"], "/here/here/x"), Makes("x")),
        ("copy through a dangling link", Copy(&["f"], "/dangling/x"), Makes("nothing/ nothing/x")),
        ("copy through /proc", Copy(&["f"], "/proc/x"), Refused),
        ("copy through a loop", Copy(&["f"], "/loop1/x"), Refused),
        ("copy to a loop", Copy(&["f"], "/loop1"), Refused),
        ("copy of a directory over a link", Copy(&["d"], "/up"), Makes("canary/ canary/g canary/up->../../canary")),
        ("write through a link upwards", Write("/up/file"), Makes("canary/ canary/file")),
        ("write to a link upwards", Write("/up-file"), Makes("canary/ canary/file")),
        ("write to the root", Write("/.."), Refused),
        ("write to a directory", Write("/d/."), Refused),
        ("write through a loop", Write("/loop2/x"), Refused),
        ("directory upwards", Mkdir("/../../x"), Makes("x/")),
        ("directory through a link upwards", Mkdir("/up/x"), Makes("canary/ canary/x/")),
        ("directory as a link upwards", Mkdir("/up"), Makes("canary/")),
        ("directory as a link to the root", Mkdir("/root"), Makes("")),
        ("directory through a loop", Mkdir("/self/x"), Refused),
        ("link upwards", Link("/../x"), Makes("x->target")),
        ("link in place of a link", Link("/up"), Makes("up->target")),
        ("link through a link upwards", Link("/up/x"), Refused),
        ("link to the root", Link("/"), Refused),
        // Removal.
        ("remove the root", Remove("/"), Refused),
        ("remove upwards", Remove("/../.."), Refused),
        ("remove upwards within", Remove("/d/../../.."), Refused),
        ("remove what is upwards", Remove("/../canary"), Refused),
        ("remove a link upwards", Remove("/up"), Makes("up!")),
        ("remove an absolute link", Remove("/abs-file"), Makes("abs-file!")),
        ("remove a link to the root", Remove("/root/"), Makes("root!")),
        ("remove through a link upwards", Remove("/up/file"), Refused),
        ("remove through a link to the root", Remove("/root/d"), Makes("d!")),
        ("remove through a link to the parent", Remove("/parent/d/up"), Makes("d/ d/up!")),
        ("remove a pattern through a link", Remove("/up/*"), Makes("")),
        ("remove a pattern of the root", Remove("/parent/c*"), Makes("chain1! chain2!")),
        ("remove a pattern upwards", Remove("/../can*"), Makes("")),
        ("remove through a loop", Remove("/loop1/x"), Refused),
    ]
}

/// What a layer holds, as [`Want::Makes`] has it.
fn made(rig: &Rig) -> String {
    let place = rig.path("").to_str().unwrap().trim_matches('/').to_owned();
    let lines = list(&rig.path("upper")).into_iter();
    let names = lines.map(|line| match line.split_once(' ') {
        Some((name, "whiteout")) => format!("{name}!"),
        Some((name, rest)) if rest.starts_with("dir ") => format!("{name}/"),
        Some((name, rest)) if rest.starts_with("-> ") => format!("{name}->{}", &rest[3..]),
        Some((name, _)) => name.to_owned(),
        None => line.clone(),
    });
    // Of the directories above the canary the last one is enough.
    let canary = std::path::Path::new(&place).join("canary");
    let names: Vec<String> = names.filter(|name| !canary.starts_with(name)).collect();
    names.join(" ").replace(&place, "@")
}

#[test]
fn t_path_cases() {
    let Owner::Fixed { uid, gid } = me() else { unreachable!() };
    let rig = Rig::new();
    rig.set_traps("source");
    rig.set_traps("base");
    let root = rig.root("source");
    let filter = wbuild_tree::Filter::all();
    let timestamp = Some(at(1));
    let mut wrong = Vec::new();
    for (name, op, want) in cases() {
        for kind in [SourceKind::Context, SourceKind::Image] {
            let source = Source { root: &root, filter: &filter, kind };
            rig.clear_upper();
            let mut writer = rig.writer();
            let done = match &op {
                Op::Copy(from, to) => select(&source, from, &plain(), &Work::default())
                    .and_then(|from| writer.copy(&source, &from, to, &my_options()))
                    .map(drop),
                Op::Write(to) => {
                    let follow_links = true;
                    let options = WriteOptions { mode: 0o644, uid, gid, timestamp, follow_links };
                    writer.write_file(to, b"x", &options)
                }
                Op::Mkdir(to) => {
                    let options = MkdirOptions { mode: 0o755, uid, gid, parents: true, timestamp };
                    writer.make_dir(to, &options)
                }
                Op::Link(to) => {
                    writer.make_link(to, "target", &LinkOptions { uid, gid, timestamp })
                }
                Op::Remove(at) => {
                    let wildcard = true;
                    writer.remove(at, &RemoveOptions { wildcard, allow_missing: false, timestamp })
                }
            };
            let done = done.and_then(|()| writer.finish().map(drop));
            rig.check(name);
            rig.no_secret_in("upper", name);
            match (&want, done) {
                (Want::Refused, Err(_)) => {}
                (Want::Makes(want), Ok(())) if made(&rig) == *want => {}
                (_, Ok(())) => wrong.push(format!("{name} ({kind:?}): {}", made(&rig))),
                (_, Err(error)) => wrong.push(format!("{name} ({kind:?}): {error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Deeper than any path that can be written: refused or walked, and nothing is left open.
#[test]
fn t_bomb_directories_deeper_than_a_path() {
    let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    let none = rustix::fs::Mode::empty();
    let mut at = rustix::fs::open(temp.path(), flags, none).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, "dd", rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "dd", flags, none).unwrap();
    }
    let root = Root::open(temp.path(), "the build context").unwrap();
    let filter = wbuild_tree::Filter::all();
    let upper = Tree::new(&[]);
    for kind in [SourceKind::Context, SourceKind::Image] {
        let source = Source { root: &root, filter: &filter, kind };
        let work = Work::default();
        let done = select(&source, &["."], &plain(), &work).and_then(|mut selection| {
            selection.digest(&source, None, &work)?;
            let root = upper.root("the new layer");
            let mut writer = LayerWriter::new(root, None, xattr_kind(), Work::default())?;
            writer.copy(&source, &selection, "/", &my_options())?;
            writer.finish()
        });
        let error = done.expect_err("no path is that long").to_string();
        assert!(error.contains("limit of 4095"), "{error}");
        assert!(error.len() < 10_000, "an error of {} bytes", error.len());
    }
    let whole = RelPath::root();
    let ownership = wbuild_tree::Ownership::Kept;
    assert!(wbuild_tree::tree_digest(&root, &whole, ownership, &Work::default()).is_err());
    // The standard library keeps a directory open for each level.
    for tree in [temp.path(), upper.dir.path()] {
        assert!(std::process::Command::new("rm").arg("-rf").arg(tree).status().unwrap().success());
    }
}
