//! On real threads, with tokio as the engine uses it: what depends on a runtime that runs tasks at
//! the same time, catches panics and drops what it aborts.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use wbuild_graph::FailureKind;
use wbuild_solver::{Abort, Spawn, VertexEvent};

use crate::toy::{Behaviour, Build, Shelf, Store, lock};

struct TokioSpawn;

struct Handle(tokio::task::AbortHandle);

impl Abort for Handle {
    fn abort(&self) {
        self.0.abort();
    }
}

impl Spawn for TokioSpawn {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Box<dyn Abort> {
        Box::new(Handle(tokio::spawn(task).abort_handle()))
    }
}

fn build(outside: &[(&str, &str)]) -> Build {
    let shelf = Arc::new(Shelf::default());
    let pairs = outside.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned()));
    lock(&shelf.outside).extend(pairs);
    let pause = Box::new(|_: &_| tokio::task::yield_now().boxed());
    let store = Store { attributes: true, forgets: true };
    Build::new(&shelf, Arc::new(TokioSpawn), store, pause)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_caller_leaving_takes_nothing_from_another() {
    for round in 0..200 {
        let mut b = build(&[("base", "B")]);
        let base = b.vertex("base", "image", "base", &[]);
        let step = b.vertex("step", "step", "", &[base]);
        let vertex = b.load(step);
        let ask = || {
            let solver = b.solver.clone();
            tokio::spawn(async move { solver.solve(vertex).await.map(|made| made.text.clone()) })
        };
        let leaving = ask();
        let staying = ask();
        for _ in 0..round % 20 {
            tokio::task::yield_now().await;
        }
        leaving.abort();
        assert_eq!(staying.await.expect("no panic").expect("solved"), "step(B)");
        assert!(lock(&b.toy.shelf.violations).is_empty());
        assert!(lock(&b.log.done).values().all(|count| *count == 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn those_who_come_and_go_at_once_run_nothing_twice() {
    let mut b = build(&[("base", "B")]);
    let base = b.vertex("base", "image", "base", &[]);
    let step = b.vertex("step", "step", "", &[base]);
    let vertex = b.load(step);
    let mut callers = Vec::new();
    for round in 0..400 {
        let solver = b.solver.clone();
        callers.push(tokio::spawn(async move {
            let solve = solver.solve(vertex);
            // Polled a few times, then dropped; every tenth stays.
            match round % 10 {
                9 => solve.await.map(|made| Some(made.text.clone())),
                polls => tokio::select! {
                    biased;
                    made = solve => made.map(|made| Some(made.text.clone())),
                    () = async { for _ in 0..polls { tokio::task::yield_now().await } } => Ok(None),
                },
            }
        }));
    }
    for caller in callers {
        let answer = caller.await.expect("no panic").expect("solved or left");
        assert!(answer.is_none_or(|text| text == "step(B)"));
    }
    assert_eq!(*lock(&b.toy.shelf.violations), Vec::<String>::new());
    assert!(lock(&b.log.done).values().all(|count| *count == 1));
}

#[tokio::test]
async fn a_panic_in_an_op_is_a_failure_of_its_build_only() {
    let mut b = build(&[("base", "B")]);
    lock(&b.toy.behaviour).insert("bad".to_owned(), Behaviour::Panic);
    let base = b.vertex("base", "image", "base", &[]);
    let (bad, good) = (b.vertex("bad", "step", "", &[base]), b.vertex("good", "step", "", &[base]));
    let (bad, good) = (b.load(bad), b.load(good));
    let failure = b.solver.solve(bad).await.expect_err("it panics");
    assert_eq!(failure.kind, FailureKind::Internal);
    let events = lock(&b.log.events).clone();
    assert!(events.contains(&("bad".to_owned(), VertexEvent::Cancelled)), "{events:?}");
    assert_eq!(b.solver.solve(good).await.expect("solved").text, "good(B)");
}

#[tokio::test]
async fn a_chain_of_a_hundred_thousand_vertices_is_solved_and_cancelled() {
    let depth = if cfg!(debug_assertions) { 50_000 } else { 99_000 };
    let chain = |b: &mut Build| {
        let mut edge = b.vertex("base", "image", "base", &[]);
        for n in 0..depth {
            edge = b.vertex(&format!("n{n}"), "make", &n.to_string(), &[edge]);
        }
        b.load(edge)
    };
    let mut b = build(&[("base", "B")]);
    let vertex = chain(&mut b);
    let made = b.solver.solve(vertex).await.expect("solved");
    assert_eq!(made.text, (depth - 1).to_string());

    let mut b = build(&[("base", "B")]);
    lock(&b.toy.behaviour).insert("base".to_owned(), Behaviour::Hang);
    let vertex = chain(&mut b);
    let solve = b.solver.solve(vertex);
    assert!(tokio::time::timeout(Duration::from_secs(2), solve).await.is_err());
}
