//! Every target over the case folders and over the inputs that were kept: those that reach every
//! branch, and those that once failed.

use wbuild_fuzz::{TARGETS, Target, seeds};

fn replay(target: &Target) {
    for seed in (target.seeds)() {
        (target.check)(&seed);
    }
    let kept = seeds::entries(&target.corpus());
    assert!(!kept.is_empty(), "nothing is kept for {}", target.name);
    for file in kept {
        let input = std::fs::read(&file).expect("a kept input can be read");
        // Says which one it was.
        let checked = std::panic::catch_unwind(|| (target.check)(&input));
        assert!(checked.is_ok(), "the input {} fails", file.display());
    }
}

#[test]
fn kept_inputs_hold() {
    TARGETS.iter().for_each(replay);
}
