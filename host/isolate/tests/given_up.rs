//! Work that is given up, at as many moments as `WBUILD_GIVEN_UP` says, leaves nothing behind: no
//! process, descriptor, thread or memory. Alone in its process, since these are counted for all of it.
//! 60 moments each in process and isolated; `sh tests/long.sh hostile` takes 1,000.

#[path = "../../plugin/tests/common/mod.rs"]
mod common;
#[path = "support/gauge.rs"]
mod gauge;
mod support;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use gauge::{no_children, status, trim};
use support::versions::component;
use support::*;
use wbuild_api::extension::{CachePlugin, Frontend, Runner};
use wbuild_graph::{Attrs, CacheKey, Digest};

/// What memory may have grown by when all is over: less than one guest has.
const GROWTH: usize = 32 << 20;

const STEPS: &str = "from a\nenv A=$(a)\nenv B=$(b)\nif x\nrun y\nend\nenv C=$(c)\n";

/// Frontends that do something else each: compute, ask, take memory, fill the host's.
const HOSTILE: [&[(&str, &str)]; 5] = [
    &[("behaviour", "spin")],
    &[("behaviour", "spin-host-calls")],
    &[("behaviour", "alloc")],
    &[("behaviour", "flood"), ("function", "inspect.read-file")],
    &[("behaviour", "flood"), ("function", "exec-op.env"), ("handles", "held"), ("size", "100")],
];

/// Kinds of work that is given up.
const KINDS: usize = 8;

struct Guests {
    steps: Arc<dyn Frontend>,
    hostile: Arc<dyn Frontend>,
    runner: Arc<dyn Runner>,
    cache: Arc<dyn CachePlugin>,
}

impl Guests {
    fn new() -> Guests {
        let host = host();
        let there = |name: &str| component(&host, name);
        Guests {
            steps: load(&host, "steps").frontend_there().expect("a frontend"),
            hostile: there("hostile-frontend").frontend_there().expect("a frontend"),
            runner: there("hostile-runner").runner_there().expect("a runner"),
            cache: there("hostile-cache").cache_there().expect("a cache backend"),
        }
    }

    /// Gives up one piece of work of so many, each kind at moments from its begin on; answers whether
    /// it was done before.
    async fn give_up(&self, number: usize, of: usize) -> bool {
        let kind = number % KINDS;
        let moment = |span: usize| (number / KINDS) * span / of.div_ceil(KINDS);
        match kind {
            0 => {
                let world = World::with(STEPS, &[], 30);
                let done = given_up(self.steps.build(world.host()), moment(200)).await;
                if let Some(result) = &done {
                    result.as_ref().expect("it builds");
                }
                assert_eq!(Arc::strong_count(&world), 1, "the store and its handles are gone");
                done.is_some()
            }
            1..=5 => {
                let world = World::new("", HOSTILE[kind - 1]);
                // In this process only ticks of the clock are moments.
                let after = moment(if isolated() { 200 } else { 10 });
                let done = given_up(self.hostile.build(world.host()), after).await;
                assert_eq!(Arc::strong_count(&world), 1, "the store and its handles are gone");
                done.is_some()
            }
            6 => {
                let machine = Arc::new(Machine::default());
                let plan = self.runner.make_plan(machine.host(), job("spin"));
                let done = given_up(plan, moment(if isolated() { 100 } else { 10 })).await;
                assert_eq!(Arc::strong_count(&machine), 1);
                done.is_some()
            }
            _ => {
                let storage = Arc::new(Storage::default());
                let config = Attrs(vec![("x-behaviour".to_owned(), "spin".to_owned())]);
                let work = async {
                    let backend = self.cache.connect(storage.host()).await.expect("an instance");
                    backend.open("read".to_owned(), config).await.expect("open");
                    backend.find(vec![CacheKey(Digest::of(b"a"))]).await
                };
                let done = given_up(work, moment(if isolated() { 100 } else { 10 })).await;
                assert_eq!(Arc::strong_count(&storage), 1);
                done.is_some()
            }
        }
    }
}

/// Gives up a future after some polls, when whatever it waits for next has come and it has not looked.
async fn unread<T>(future: impl Future<Output = T>, polls: usize) {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        let ready = std::future::poll_fn(|context| {
            std::task::Poll::Ready(future.as_mut().poll(context).is_ready())
        });
        if ready.await {
            return;
        }
        // The thread itself: else it would be told.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Of this process, by name.
fn entries(of: &str) -> usize {
    std::fs::read_dir(of).expect(of).count()
}

/// What is left when all is over; threads and descriptors take a moment to go.
fn left() -> (usize, usize) {
    no_children();
    (entries("/proc/self/fd"), entries("/proc/self/task"))
}

#[test]
fn work_that_is_given_up_leaves_nothing_behind() {
    let moments = std::env::var("WBUILD_GIVEN_UP").map_or(60, |n| n.parse().expect("a number"));
    for isolated in [false, true] {
        with(isolated, || {
            let guests = Guests::new();
            let round = |count: usize| {
                run(async {
                    let mut done = 0;
                    for number in 0..count {
                        done += usize::from(guests.give_up(number, count).await);
                    }
                    for polls in 1..8 {
                        let world = World::new(STEPS, &[]);
                        unread(guests.steps.build(world.host()), polls).await;
                        assert_eq!(Arc::strong_count(&world), 1);
                    }
                    done
                })
            };
            // What is made once and kept: compiled code, the ticker, the thread that starts children.
            let world = World::new(STEPS, &[]);
            run(guests.steps.build(world.host())).expect("it builds");
            round(2 * KINDS);
            trim();
            let (before, resident) = (left(), status("VmRSS:"));
            let done = round(moments);
            trim();
            let begin = Instant::now();
            while left() != before && begin.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let after = left();
            let grown = status("VmRSS:").saturating_sub(resident);
            println!(
                "isolated: {isolated}; {moments} moments, {done} too late; descriptors, threads \
                 {before:?} then {after:?}; memory grew by {} KiB",
                grown >> 10
            );
            assert_eq!(after, before, "descriptors, threads");
            assert!(grown < GROWTH, "{grown} bytes more than before");
            // From before they have begun until after they have ended.
            assert!(done > 0 && done * 2 < moments, "{done} of {moments} were done before");
            run(guests.steps.build(world.host())).expect("it still builds");
        });
    }
}
