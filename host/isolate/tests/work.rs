//! Plugins in processes of their own do what they do in this one.

#[path = "../../plugin/tests/common/mod.rs"]
mod common;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use support::*;

const DOCKERFILE: &str = "# syntax=x\nFROM base AS a\nARG V=1\nRUN make $V\nFROM scratch\n\
                          COPY --from=a /out /\nCOPY . /src\nENTRYPOINT [\"/x\"]\n";

#[test]
fn a_frontend_builds_the_same_graph() {
    let plugin = load(&host(), "dockerfile");
    let isolated = isolator().frontend(&plugin).expect("a frontend");
    let here = plugin.frontend().expect("a frontend");
    assert_eq!(isolated.identity(), here.identity());
    run(async {
        let (one, other) = (World::new(DOCKERFILE, &[]), World::new(DOCKERFILE, &[]));
        here.build(one.host()).await.expect("it builds here");
        isolated.build(other.host()).await.expect("it builds there");
        assert_eq!(one.dump(), other.dump());
        assert_eq!(*one.results.lock().expect("lock"), *other.results.lock().expect("lock"));
        // A failure comes back with its places.
        let broken = "FROM base\nRUNN x\n";
        let (one, other) = (World::new(broken, &[]), World::new(broken, &[]));
        let here = here.build(one.host()).await.expect_err("an unknown instruction");
        let there = isolated.build(other.host()).await.expect_err("an unknown instruction");
        assert_eq!(here, there);
        assert!(!there.diagnostics.is_empty());
    });
}

/// Not a test of anything: prints what isolation costs.
#[test]
#[ignore = "a measurement"]
fn cost() {
    let plugin = load(&host(), "dockerfile");
    let isolated = isolator().frontend(&plugin).expect("a frontend");
    let here = plugin.frontend().expect("a frontend");
    run(async {
        for (name, frontend) in [("in process", here), ("isolated", isolated)] {
            let mut times: Vec<Duration> = Vec::new();
            for _ in 0..100 {
                let world = World::new(DOCKERFILE, &[]);
                let begin = Instant::now();
                frontend.build(world.host()).await.expect("it builds");
                times.push(begin.elapsed());
                drop(Arc::clone(&world));
            }
            times.sort();
            println!("{name}: best {:?}, median {:?}", times[0], times[50]);
        }
    });
}
