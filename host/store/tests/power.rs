//! A power cut: the state lies on a file system in an image file, the image is copied while the
//! working process is stopped, and only the copy is looked at. What sat in the page cache of that
//! file system is missing in it, as after a real cut.
//!
//! Takes a minute and needs root, loop devices and `mkfs.ext4`: runs with `WBUILD_LONG=1` only.

mod crash;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crash::{Judge, Rng, open, start};
use rustix::process::{Pid, Signal, kill_process};
use wbuild_store::FsckOptions;

/// Another number: `WBUILD_CUTS`.
const CUTS: u64 = 20;
const IMAGE_SIZE: u64 = 192 << 20;

#[test]
fn child_process() {
    crash::run_child_if_asked(|| {});
}

/// A mounted image; unmounted on drop.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: &Path) -> Mounted {
        std::fs::create_dir_all(at).unwrap();
        run("mount", &["-o", "loop", &image.to_string_lossy(), &at.to_string_lossy()]);
        Mounted(at.to_path_buf())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[&self.0.to_string_lossy()]);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}

fn say(line: &str) {
    // Not `eprintln`, which the test harness swallows when the test passes.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn may_run() -> bool {
    let test = "privileged_power_cuts_lose_nothing_acknowledged";
    if std::env::var_os("WBUILD_LONG").is_none_or(|value| value != "1") {
        say(&format!("skipped: {test}: takes a minute, set WBUILD_LONG=1"));
        return false;
    }
    let root = rustix::process::geteuid().is_root();
    let tools = Command::new("mkfs.ext4").arg("-V").output().is_ok();
    if root && tools {
        return true;
    }
    say(&format!("skipped: {test}: needs root and mkfs.ext4"));
    let required = std::env::var_os("WBUILD_TEST_REQUIRE").is_some_and(|value| value == "1");
    assert!(!required, "{test} must not be skipped here");
    false
}

#[test]
fn privileged_power_cuts_lose_nothing_acknowledged() {
    if !may_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut image, mut next) = (dir.path().join("a.img"), dir.path().join("b.img"));
    let at = dir.path().join("mnt");
    std::fs::File::create(&image).unwrap().set_len(IMAGE_SIZE).unwrap();
    run("mkfs.ext4", &["-q", "-F", &image.to_string_lossy()]);
    let mut judge = Judge::default();
    let mut rng = Rng::new(u64::from(std::process::id()));
    let cuts = crash::rounds("WBUILD_CUTS", CUTS);
    for cut in 0..cuts {
        let mounted = Mounted::new(&image, &at);
        let mut child = start(&at.join("state"), rng.next(), &format!("boot-{cut}"), &[]);
        if cut % 2 == 0 {
            child.wait_for_ack();
        }
        std::thread::sleep(Duration::from_micros(rng.below(1_500_000)));
        let pid = Pid::from_raw(i32::try_from(child.pid()).unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        // Sparse, or every copy would take the whole size.
        run("cp", &["--sparse=always", &image.to_string_lossy(), &next.to_string_lossy()]);
        child.kill();
        judge.learn(&child.finish());
        drop(mounted);
        std::mem::swap(&mut image, &mut next);
        let _mounted = Mounted::new(&image, &at);
        let store = open(&at.join("state"), &format!("boot-{}", cut + 1));
        // What was not sealed may be torn; that is normal here, and a repair is all it takes.
        store.fsck(FsckOptions { verify_blobs: true, repair: true }).unwrap();
        judge.check(&store, &format!("power cut {cut}"));
    }
    eprintln!("{cuts} power cuts, {} acknowledgements", judge.acks);
    assert!(judge.acks as u64 >= cuts / 2);
}
