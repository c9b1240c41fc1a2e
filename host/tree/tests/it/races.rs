//! Paths that change while they are used: directories and links that trade places again and again.
//!
//! A few seconds; a minute each with `WBUILD_LONG=1`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use wbuild_tree::{
    LinkOptions, MkdirOptions, Owner, RemoveOptions, Source, SourceKind, Work, WriteOptions, select,
};

use crate::paths::Rig;
use crate::support::*;

/// How long one race is run.
fn while_racing() -> Duration {
    let long = std::env::var_os("WBUILD_LONG").is_some_and(|value| value == "1");
    if long { Duration::from_secs(60) } else { Duration::from_millis(1500) }
}

/// Ends the other thread of a race, also when this one fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Repeats `work` while another thread exchanges two names; how often each was done.
fn race(a: &Path, b: &Path, mut work: impl FnMut()) -> (u64, u64) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swaps: u64 = 0;
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
                swaps += 1;
                // Pauses of all lengths: without them the other thread hardly gets to the directory.
                for _ in 0..swaps % 5_000 {
                    std::hint::spin_loop();
                }
            }
            swaps
        });
        let end = Stop(&stop);
        let (begun, length) = (Instant::now(), while_racing());
        let mut rounds = 0;
        while begun.elapsed() < length {
            work();
            rounds += 1;
        }
        drop(end);
        let swaps = swapper.join().unwrap();
        println!("{rounds} rounds while {swaps} exchanges were made");
        assert!(swaps > 100, "the race was run: {swaps}");
        (rounds, swaps)
    })
}

/// Copies, as contexts and images, while a directory or file of the source becomes a link to the
/// canary and back.
fn copy_while_swapping(names: [&str; 2], paths: &[&str]) {
    let rig = Rig::new();
    fs::write(rig.path("source/d/file"), "payload").unwrap();
    fs::create_dir(rig.path("source/d/sub")).unwrap();
    fs::write(rig.path("source/d/sub/file"), "payload").unwrap();
    symlink("../canary", rig.path("source/trap")).unwrap();
    fs::write(rig.path("source/x"), "payload").unwrap();
    symlink("../secret", rig.path("source/y")).unwrap();
    let root = rig.root("source");
    let filter = wbuild_tree::Filter::all();
    let [a, b] = names.map(|name| rig.path("source").join(name));
    let mut copied = 0;
    race(&a, &b, || {
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
    });
    // Swapped an odd number of times or not, both names are still there.
    rig.check("race");
    assert!(copied > 0, "some copies work, or the race is about nothing");
}

#[test]
fn t_path_race_of_a_source_directory() {
    copy_while_swapping(["d", "trap"], &["d*/f*", "."]);
}

#[test]
fn t_path_race_of_a_source_file() {
    copy_while_swapping(["x", "y"], &["."]);
}

/// Every change of a layer while a directory on the way becomes a link to the canary and back: in
/// the layer itself, or in its base.
fn change_while_swapping(tree: &str) {
    let Owner::Fixed { uid, gid } = me() else { unreachable!() };
    let rig = Rig::new();
    fs::create_dir_all(rig.path(tree).join("d/sub")).unwrap();
    symlink("../canary", rig.path(tree).join("trap")).unwrap();
    let root = rig.root("source");
    let filter = wbuild_tree::Filter::all();
    let source = Source { root: &root, filter: &filter, kind: SourceKind::Context };
    let from = select(&source, &["f", "d"], &plain(), &Work::default()).unwrap();
    let timestamp = Some(at(1));
    let (a, b) = (rig.path(tree).join("d"), rig.path(tree).join("trap"));
    let mut done = 0;
    race(&a, &b, || {
        if tree == "base" {
            rig.clear_upper();
        }
        let mut writer = rig.writer();
        for follow_links in [true, false] {
            let mut options = my_options();
            options.follow_links = follow_links;
            options.replace = follow_links;
            done += u32::from(writer.copy(&source, &from, "/d/sub/", &options).is_ok());
            let options = WriteOptions { mode: 0o600, uid, gid, timestamp, follow_links };
            done += u32::from(writer.write_file("/d/file", b"x", &options).is_ok());
            done += u32::from(writer.write_file("/d/sub/file", b"x", &options).is_ok());
        }
        let options = MkdirOptions { mode: 0o700, uid, gid, parents: true, timestamp };
        done += u32::from(writer.make_dir("/d/new/sub", &options).is_ok());
        let options = LinkOptions { uid, gid, timestamp };
        done += u32::from(writer.make_link("/d/link", "x", &options).is_ok());
        for path in ["/d/file", "/d/sub/*", "/d/new", "/d/link"] {
            let options = RemoveOptions { wildcard: true, allow_missing: true, timestamp };
            done += u32::from(writer.remove(path, &options).is_ok());
        }
        let _ = writer.finish();
        rig.check("race");
    });
    assert!(done > 0, "some changes work, or the race is about nothing");
}

#[test]
fn t_path_race_in_the_layer() {
    change_while_swapping("upper");
}

#[test]
fn t_path_race_in_the_base() {
    change_while_swapping("base");
}
