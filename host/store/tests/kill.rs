//! SIGKILL at random moments: nothing acknowledged is lost, nothing wrong is found, and no repair
//! by hand is needed. Every tenth time the boot id changes as well, which drops what is unsealed.

mod crash;

use std::time::{Duration, Instant};

use crash::{Judge, Rng, open, scratch, start};
use wbuild_store::{Error, FsckOptions, LockWait, OpenOptions, Store};

/// Another number: `WBUILD_KILLS`.
const KILLS: u64 = 100;

#[test]
fn child_process() {
    crash::run_child_if_asked(|| {});
}

#[test]
fn kills_lose_nothing_acknowledged() {
    let dir = scratch();
    let state = dir.path().join("state");
    let mut judge = Judge::default();
    let mut rng = Rng::new(u64::from(std::process::id()));
    let mut boot = 0;
    let mut slowest = Duration::ZERO;
    let kills = crash::rounds("WBUILD_KILLS", KILLS);
    for kill in 0..kills {
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
    eprintln!("{kills} kills, {} acknowledgements, slowest open {slowest:?}", judge.acks);
    assert!(judge.acks as u64 >= kills / 2);
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

/// Two processes on one state directory: the second is told for whom it waits, readers need not
/// wait, and the end of the first lets the second in.
#[test]
fn a_second_process_waits_for_the_first() {
    let dir = scratch();
    let state = dir.path().join("state");
    let mut child = start(&state, 1, "boot", &[]);
    let pid = child.pid();
    let holder = Store::holder(&state).unwrap().expect("it is held");
    assert_eq!((holder.pid, holder.command.as_str()), (Some(pid), "crash test"));
    let refused = Store::open(&state, OpenOptions { wait: LockWait::Fail, ..Default::default() });
    assert!(matches!(refused, Err(Error::Locked { .. })));
    let reader = Store::open(&state, OpenOptions { read_only: true, ..Default::default() });
    reader.unwrap().du().unwrap();
    let (sender, told) = std::sync::mpsc::channel();
    let wait = LockWait::Callback(Box::new(move |holder, _| {
        let _ = sender.send(holder.pid);
        std::ops::ControlFlow::Continue(())
    }));
    let second = std::thread::spawn(move || {
        Store::open(&state, OpenOptions { wait, ..Default::default() }).map(|_| ())
    });
    assert_eq!(told.recv().unwrap(), Some(pid));
    child.kill();
    second.join().unwrap().unwrap();
    child.finish();
}
