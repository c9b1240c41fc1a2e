//! SIGKILL at random moments: nothing acknowledged is lost, nothing wrong is found, and no repair
//! by hand is needed. Every tenth time the boot id changes as well, which drops what is unsealed.

mod crash;

use std::time::{Duration, Instant};

use crash::{Judge, Rng, open, start};
use wbuild_store::FsckOptions;

const KILLS: u64 = 100;

#[test]
fn child_process() {
    crash::run_child_if_asked(|| {});
}

#[test]
fn a_hundred_kills_lose_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut judge = Judge::default();
    let mut rng = Rng::new(u64::from(std::process::id()));
    let mut boot = 0;
    let mut slowest = Duration::ZERO;
    for kill in 0..KILLS {
        let name = format!("boot-{boot}");
        let mut child = start(&state, rng.next(), &name, &[]);
        // Half of them early, half after something was acknowledged, however slow the disk is.
        if kill % 2 == 0 {
            child.wait_for_ack();
        }
        std::thread::sleep(Duration::from_micros(rng.below(40_000)));
        child.kill();
        judge.learn(&child.finish());
        if kill % 10 == 9 {
            boot += 1;
        }
        let started = Instant::now();
        let store = open(&state, &format!("boot-{boot}"));
        slowest = slowest.max(started.elapsed());
        judge.check(&store, &format!("kill {kill}"));
        if kill % 25 == 24 {
            store.fsck(FsckOptions { verify_blobs: false, repair: true }).unwrap();
            judge.check(&store, &format!("kill {kill}, repaired"));
        }
        assert_eq!(std::fs::read_dir(store.tmp_path()).unwrap().count(), 0);
    }
    eprintln!("{KILLS} kills, {} acknowledgements, slowest open {slowest:?}", judge.acks);
    assert!(judge.acks as u64 >= KILLS / 2);
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}
