//! Paths and links that try to leave their tree. Beside every tree stands a directory of canaries;
//! whatever is tried, nothing in it is read into a layer, changed, removed or added.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use wbuild_tree::{
    LayerWriter, LinkOptions, Links, MkdirOptions, Owner, RelPath, RemoveOptions, Root, Source,
    SourceKind, Work, WriteOptions, select,
};

use crate::support::*;

const SECRET: &str = "canary: must not be seen or touched";

struct Rig {
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Rig {
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

    fn path(&self, name: &str) -> std::path::PathBuf {
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
        ];
        for (name, target) in &traps {
            symlink(target, self.path(tree).join(name)).unwrap();
        }
        traps.into_iter().map(|(name, _)| name).collect()
    }

    fn check(&self, what: &str) {
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

    fn no_secret_in(&self, dir: &str, what: &str) {
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

    fn root(&self, name: &str) -> Root {
        Root::open(&self.path(name), name).unwrap()
    }

    fn clear_upper(&self) {
        fs::remove_dir_all(self.path("upper")).unwrap();
        fs::create_dir(self.path("upper")).unwrap();
    }

    fn writer(&self) -> LayerWriter {
        let base = Some(self.root("base"));
        LayerWriter::new(self.root("upper"), base, xattr_kind(), Work::default()).unwrap()
    }
}

#[test]
fn no_source_path_leaves_the_source() {
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
fn no_look_up_leaves_the_root() {
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
fn no_destination_leaves_the_layer() {
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
fn a_link_copied_earlier_leads_nowhere_else() {
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

/// Exchanges two names again and again while `work` runs.
fn while_swapping(a: &Path, b: &Path, work: impl FnOnce()) -> u64 {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swaps = 0;
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
                swaps += 1;
            }
            swaps
        });
        work();
        stop.store(true, Ordering::Relaxed);
        swapper.join().unwrap()
    })
}

#[test]
fn a_racing_exchange_of_directory_and_link_leaks_nothing() {
    let rig = Rig::new();
    fs::write(rig.path("source/d/file"), "payload").unwrap();
    fs::create_dir(rig.path("source/d/sub")).unwrap();
    fs::write(rig.path("source/d/sub/file"), "payload").unwrap();
    symlink("../canary", rig.path("source/trap")).unwrap();
    fs::write(rig.path("source/x"), "payload").unwrap();
    symlink("../secret", rig.path("source/y")).unwrap();
    let root = rig.root("source");
    let filter = wbuild_tree::Filter::all();
    let rounds = |paths: &[&str]| {
        let begun = std::time::Instant::now();
        let mut copied = 0;
        while begun.elapsed().as_millis() < 700 {
            for kind in [SourceKind::Context, SourceKind::Image] {
                let source = Source { root: &root, filter: &filter, kind };
                let work = Work::default();
                rig.clear_upper();
                if let Ok(mut selection) = select(&source, paths, &plain(), &work) {
                    let hashed = selection.digest(&source, None, &work).is_ok();
                    let mut writer = rig.writer();
                    let done = writer.copy(&source, &selection, "/o/", &my_options());
                    copied += u32::from(hashed && done.is_ok());
                }
                rig.no_secret_in("upper", "race");
            }
        }
        copied
    };
    let swaps = while_swapping(&rig.path("source/d"), &rig.path("source/trap"), || {
        rounds(&["d", "d/sub", "d/f*", "."]);
    });
    assert!(swaps > 100, "the race was run: {swaps}");
    while_swapping(&rig.path("source/x"), &rig.path("source/y"), || {
        rounds(&["x", "."]);
    });
    // Swapped an odd number of times or not, both names are still there.
    rig.check("race");
}
