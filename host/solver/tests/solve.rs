//! What the solver promises, on toy graphs.

mod toy;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use toy::{Build, Disk, disk};
use wbuild_graph::{Definition, Edge, FailureKind};
use wbuild_solver::VertexEvent;

#[tokio::test]
async fn equal_vertices_run_once_and_unused_ones_never() {
    let disk = disk(&[("base", "B")]);
    let mut b = Build::new(&disk);
    let base = b.image("base");
    let one = b.step("same", &[base]);
    let base_again = b.image("base");
    let two = b.step("same", &[base_again]);
    let unused_base = b.image("missing");
    b.step("unused", &[unused_base]);
    let top = b.step("top", &[one, two]);
    assert_eq!(b.solve(top).await.unwrap(), "top(same(B.0).0,same(B.0).0)");
    assert_eq!(b.runs(), "base=1 same=1 top=1");
}

#[tokio::test]
async fn a_hit_needs_none_of_the_inputs() {
    let disk = disk(&[("base", "B")]);
    let build = |b: &mut Build| {
        let base = b.image("base");
        let middle = b.step("middle", &[base]);
        b.step("top", &[middle])
    };
    let mut first = Build::new(&disk);
    let top = build(&mut first);
    first.solve(top).await.unwrap();
    let mut second = Build::new(&disk);
    let top = build(&mut second);
    second.solve(top).await.unwrap();
    assert_eq!(second.runs(), "");
    assert_eq!(*second.toy.lookups.lock().unwrap(), 1);
    let log = second.log.0.lock().unwrap();
    let cached: Vec<_> = log.iter().map(|(name, event)| (name.as_str(), event)).collect();
    assert_eq!(
        cached,
        [
            ("base", &VertexEvent::Cached),
            ("middle", &VertexEvent::Cached),
            ("top", &VertexEvent::Cached)
        ]
    );
}

#[tokio::test]
async fn what_lies_below_several_hits_is_reported_once() {
    let disk = disk(&[("base", "B")]);
    let build = |b: &mut Build| {
        let base = b.image("base");
        let middle = b.step("middle", &[base]);
        [b.step("one", &[middle]), b.step("two", &[middle])]
    };
    for _ in 0..2 {
        let mut b = Build::new(&disk);
        for top in build(&mut b) {
            b.solve(top).await.unwrap();
        }
        let log = b.log.0.lock().unwrap();
        for name in ["middle", "one", "two"] {
            let ends = |(who, event): &&(String, VertexEvent)| {
                who == name && *event != VertexEvent::Started
            };
            assert_eq!(log.iter().filter(ends).count(), 1, "{name}: {log:?}");
        }
    }
}

#[tokio::test]
async fn evicted_records_in_between_do_not_matter() {
    let disk = disk(&[("base", "B")]);
    let mut b = Build::new(&disk);
    let base = b.image("base");
    let middle = b.step("middle", &[base]);
    let (middle_vertex, _) = b.solver.load(&mut b.definition, middle);
    let top = b.step("top", &[middle]);
    b.solve(top).await.unwrap();
    let key = b.solver.key(middle_vertex).await.unwrap().key.unwrap();
    disk.records.lock().unwrap().remove(&key);

    let mut again = Build::new(&disk);
    let base = again.image("base");
    let middle = again.step("middle", &[base]);
    let top = again.step("top", &[middle]);
    let other = again.step("other", &[middle]);
    again.solve(top).await.unwrap();
    assert_eq!(again.runs(), "");
    again.solve(other).await.unwrap();
    assert_eq!(again.runs(), "other=1", "the result key still finds the step in between");
}

#[tokio::test]
async fn a_step_that_makes_the_same_files_ends_the_miss() {
    let disk = disk(&[("base", "B1")]);
    let build = |b: &mut Build| {
        let base = b.image("base");
        let generated = b.step("const:same", &[base]);
        let copied = b.copy(generated);
        b.step("top", &[copied])
    };
    let mut first = Build::new(&disk);
    let top = build(&mut first);
    first.solve(top).await.unwrap();
    disk.outside.lock().unwrap().insert("base".to_owned(), "B2".to_owned());
    let mut second = Build::new(&disk);
    let top = build(&mut second);
    second.solve(top).await.unwrap();
    assert_eq!(second.runs(), "base=1 const:same=1");
}

#[tokio::test]
async fn a_local_directory_is_keyed_by_what_is_read_of_it() {
    let disk = disk(&[("ctx", "files")]);
    let build = |b: &mut Build| {
        let ctx = b.local("ctx");
        let copied = b.copy(ctx);
        b.step("top", &[copied])
    };
    for (content, runs) in [
        ("files", "copy=1 ctx=1 top=1"),
        ("files", "ctx=1"),
        ("other", "copy=1 ctx=1 top=1"),
        ("files", "ctx=1"),
    ] {
        disk.outside.lock().unwrap().insert("ctx".to_owned(), content.to_owned());
        let mut b = Build::new(&disk);
        let top = build(&mut b);
        b.solve(top).await.unwrap();
        assert_eq!(b.runs(), runs, "{content}");
    }
}

#[tokio::test]
async fn ignore_cache_reruns_and_what_follows_is_found_by_result() {
    let disk = disk(&[("base", "B")]);
    let mut first = Build::new(&disk);
    let base = first.image("base");
    let step = first.step("step", &[base]);
    let top = first.step("top", &[step]);
    first.solve(top).await.unwrap();

    let mut second = Build::new(&disk);
    let base = second.image("base");
    let step = second.step("step", &[base]);
    second.definition.ignore_cache(step.node).unwrap();
    let top = second.step("top", &[step]);
    second.solve(top).await.unwrap();
    assert_eq!(second.runs(), "step=1", "same result, so what follows is found");
}

#[tokio::test]
async fn a_result_that_is_gone_is_made_again_once() {
    let disk = disk(&[("base", "B")]);
    let mut first = Build::new(&disk);
    let base = first.image("base");
    let step = first.step("step", &[base]);
    first.solve(step).await.unwrap();
    for made in disk.records.lock().unwrap().values() {
        *made.gone.lock().unwrap() = true;
    }
    let mut second = Build::new(&disk);
    let base = second.image("base");
    let step = second.step("step", &[base]);
    let top = second.step("top", &[step]);
    // The base is found gone below the step that is made again.
    assert_eq!(second.solve(top).await.unwrap(), "top(step(B.0).0)");
    assert_eq!(second.runs(), "base=1 step=2 top=2");
}

#[tokio::test]
async fn a_failure_reaches_all_and_cancels_what_nobody_needs() {
    let disk = disk(&[("base", "B")]);
    let mut b = Build::new(&disk);
    b.toy.behaviour.lock().unwrap().insert("slow".to_owned(), "hang");
    b.toy.behaviour.lock().unwrap().insert("bad".to_owned(), "fail");
    let base = b.image("base");
    let slow = b.step("slow", &[base]);
    let bad = b.step("bad", &[base]);
    let top = b.step("top", &[slow, bad]);
    let failure = b.solve(top).await.unwrap_err();
    assert_eq!(failure.message, "bad failed");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let log = b.log.0.lock().unwrap();
    assert!(log.contains(&("slow".to_owned(), VertexEvent::Cancelled)), "{log:?}");
    assert!(!log.iter().any(|(name, _)| name == "top"));
}

#[tokio::test]
async fn one_caller_leaving_takes_nothing_from_another() {
    let disk = disk(&[("base", "B")]);
    let mut b = Build::new(&disk);
    let base = b.image("base");
    let step = b.step("step", &[base]);
    let (vertex, _) = b.solver.load(&mut b.definition, step);
    for _ in 0..50 {
        let solver = b.solver.clone();
        let leaving =
            tokio::spawn(async move { solver.solve(vertex).await.map(|m| m.text.clone()) });
        let solver = b.solver.clone();
        let staying =
            tokio::spawn(async move { solver.solve(vertex).await.map(|m| m.text.clone()) });
        tokio::task::yield_now().await;
        leaving.abort();
        assert_eq!(staying.await.unwrap().unwrap(), "step(B.0)");
    }
    assert_eq!(b.runs(), "base=1 step=1");
}

#[tokio::test]
async fn a_panic_in_an_op_is_a_failure_of_its_build_only() {
    let disk = disk(&[("base", "B")]);
    let mut b = Build::new(&disk);
    b.toy.behaviour.lock().unwrap().insert("bad".to_owned(), "panic");
    let base = b.image("base");
    let bad = b.step("bad", &[base]);
    assert_eq!(b.solve(bad).await.unwrap_err().kind, FailureKind::Internal);
    let good = b.step("good", &[base]);
    assert_eq!(b.solve(good).await.unwrap(), "good(B.0)");
}

#[tokio::test]
async fn a_chain_of_a_hundred_thousand_vertices_is_solved_and_cancelled() {
    let depth = if cfg!(debug_assertions) { 50_000 } else { 100_000 };
    let disk = disk(&[("base", "B")]);
    let mut b = Build::new(&disk);
    let mut edge = b.image("base");
    for n in 0..depth {
        edge = b.step(&format!("const:{n}"), &[edge]);
    }
    assert_eq!(b.solve(edge).await.unwrap(), (depth - 1).to_string());

    let mut b = Build::new(&toy::disk(&[("base", "B")]));
    b.toy.behaviour.lock().unwrap().insert("base".to_owned(), "hang");
    let mut edge = b.image("base");
    for n in 0..depth {
        edge = b.step(&format!("const:{n}"), &[edge]);
    }
    let solve = b.solve(edge);
    assert!(tokio::time::timeout(Duration::from_secs(2), solve).await.is_err());
}

/// Random graphs: a list of nodes, each with the indices of earlier nodes it uses.
fn graphs() -> impl Strategy<Value = Vec<Vec<usize>>> {
    prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..30)
        .prop_map(|nodes| {
            nodes
                .iter()
                .enumerate()
                .map(|(n, inputs)| {
                    if n == 0 {
                        vec![]
                    } else {
                        inputs.iter().take(2).map(|i| i.index(n)).collect()
                    }
                })
                .collect()
        })
}

fn lay(b: &mut Build, graph: &[Vec<usize>]) -> Edge {
    let mut edges: Vec<Edge> = Vec::new();
    for (n, inputs) in graph.iter().enumerate() {
        let inputs: Vec<Edge> = inputs.iter().map(|i| edges[*i]).collect();
        let name = if n % 3 == 0 { format!("const:{}", n % 2) } else { format!("n{}", n % 7) };
        let edge = b.step(&name, &inputs);
        edges.push(edge);
    }
    *edges.last().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every vertex runs at most once; a second build gives the same result and runs nothing; a
    /// third, with some records lost, gives the same result.
    #[test]
    fn cached_and_uncached_builds_agree(graph in graphs(), lose in any::<u64>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let disk: Arc<Disk> = disk(&[]);
            let mut first = Build::new(&disk);
            let top = lay(&mut first, &graph);
            let result = first.solve(top).await.unwrap();
            let distinct = distinct(&mut first.definition);
            let runs: usize = first.toy.runs.lock().unwrap().values().sum();
            prop_assert!(runs <= distinct);

            let mut second = Build::new(&disk);
            let top = lay(&mut second, &graph);
            prop_assert_eq!(&second.solve(top).await.unwrap(), &result);
            prop_assert_eq!(second.runs(), "");

            let mut n = 0u32;
            disk.records.lock().unwrap().retain(|_, _| { n += 1; lose >> (n % 64) & 1 == 0 });
            let mut third = Build::new(&disk);
            let top = lay(&mut third, &graph);
            prop_assert_eq!(&third.solve(top).await.unwrap(), &result);
            Ok(())
        })?;
    }
}

fn distinct(definition: &mut Definition) -> usize {
    let ids: Vec<_> = definition.ids().collect();
    let digests: std::collections::BTreeSet<_> =
        ids.into_iter().map(|id| definition.digest(id)).collect();
    digests.len()
}
