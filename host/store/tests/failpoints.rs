//! Death and injected errors at every named failure point. Needs the feature `failpoints`.

mod crash;

use std::sync::atomic::{AtomicU32, Ordering};

use crash::{Judge, Rng, open, scratch, start};

/// Every failure point of the crate: one per change of state.
const POINTS: [&str; 18] = [
    "ingest::written",
    "ingest::renamed",
    "snapshot::finished",
    "snapshot::committed",
    "record::written",
    "record::kept",
    "record::linked",
    "record::renamed",
    "index::flushed",
    "seal::sync",
    "seal::synced",
    "seal::promoted",
    "seal::append",
    "seal::sealed",
    "prune::record",
    "prune::retired",
    "prune::blob",
    "prune::deleted",
];

#[test]
fn child_process() {
    crash::run_child_if_asked(|| {
        let point = std::env::var("WBUILD_CRASH_POINT").unwrap();
        let pass: u32 = std::env::var("WBUILD_CRASH_PASS").unwrap().parse().unwrap();
        if std::env::var("WBUILD_CRASH_HOW").unwrap() == "error" {
            fail::cfg(point, &format!("{pass}*off->return")).unwrap();
            return;
        }
        let hits = AtomicU32::new(0);
        fail::cfg_callback(point, move || {
            if hits.fetch_add(1, Ordering::Relaxed) == pass {
                let me = rustix::process::getpid();
                rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
            }
        })
        .unwrap();
    });
}

/// At which of its passings a point strikes: these, or with `WBUILD_PASSES` the first so many.
fn passes(usual: &[u32]) -> Vec<u32> {
    let usual_count = usual.len() as u64;
    let count = crash::rounds("WBUILD_PASSES", usual_count);
    match count == usual_count {
        true => usual.to_vec(),
        false => (0..u32::try_from(count).unwrap()).collect(),
    }
}

fn visit_every_point(how: &str, passes: &[u32]) {
    assert!(fail::has_failpoints());
    let dir = scratch();
    let state = dir.path().join("state");
    let mut judge = Judge::default();
    let mut rng = Rng::new(u64::from(std::process::id()));
    for (index, point) in POINTS.iter().enumerate() {
        for pass in passes {
            let boot = format!("boot-{}", index / 4);
            let variables = [
                ("WBUILD_CRASH_POINT", (*point).to_owned()),
                ("WBUILD_CRASH_PASS", pass.to_string()),
                ("WBUILD_CRASH_HOW", how.to_owned()),
            ];
            let lines = start(&state, rng.next(), &boot, &variables).finish();
            let failed = lines.iter().any(|line| line.starts_with("@failed"));
            assert_eq!(failed, how == "error", "{point}: {:?}", lines.last());
            judge.learn(&lines);
            let store = open(&state, &boot);
            judge.check(&store, &format!("{how} at {point}, pass {pass}"));
        }
    }
    assert!(judge.acks > 20);
}

#[test]
fn death_at_every_point_loses_nothing_acknowledged() {
    visit_every_point("kill", &passes(&[0, 1, 5]));
}

#[test]
fn an_error_at_every_point_is_reported_and_loses_nothing() {
    visit_every_point("error", &passes(&[0, 3]));
}

/// A point that no test visits would be a hole: the list above is what the sources contain.
#[test]
fn the_list_of_points_is_complete() {
    let mut found: Vec<String> = Vec::new();
    let mut folders = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            for rest in text.split("failpoint!(").skip(1) {
                if let Some(name) = rest.trim_start().strip_prefix('"') {
                    found.push(name.split('"').next().unwrap().to_owned());
                }
            }
        }
    }
    found.sort();
    let mut listed = POINTS.map(str::to_owned).to_vec();
    listed.sort();
    assert_eq!(found, listed);
}
