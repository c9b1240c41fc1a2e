//! Random builds, each wholly decided by a number: graphs, what the world and the store hold, who
//! asks for what and when, who leaves, what fails, what is evicted or lost meanwhile, and the order
//! in which everything happens.
//!
//! ```text
//! cargo test -p wbuild-solver --test solver simulation        the numbers below 10,000
//! SEEDS=500000 SEED=10000 cargo test …                         so many, from there on
//! SEEDS=1 SEED=4711 SIZE=6 cargo test …                        one, with at most so many vertices
//! ```
//!
//! A number that fails is tried with smaller and smaller graphs; the smallest is printed with the
//! command that plays it again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use wbuild_graph::{Edge, Failure, FailureKind, VertexDigest};
use wbuild_solver::Abort as _;

use crate::sim::{Handle, Random, Sim, SimSpawn};
use crate::toy::{Behaviour, Build, Call, Shelf, Store, lock, meaning};

/// Vertices of most graphs, and of some.
const SMALL: usize = 24;
const LARGE: usize = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn simulation() {
    let (first, count) = (number("SEED").unwrap_or(0), number("SEEDS").unwrap_or(10_000));
    let size = number("SIZE").map(|size| usize::try_from(size).expect("a size"));
    let mut seen = Seen::default();
    for seed in first..first + count {
        let Err(broken) = simulate(seed, size, &mut seen) else { continue };
        let sizes = 1..size.unwrap_or(LARGE);
        let smaller = sizes.map(|size| (size, simulate(seed, Some(size), &mut Seen::default())));
        let (size, broken) = smaller
            .filter_map(|(size, result)| Some((size, result.err()?)))
            .next()
            .unwrap_or((size.unwrap_or(LARGE), broken));
        panic!(
            "{broken}\nagain: SEEDS=1 SEED={seed} SIZE={size} \
             cargo test -p wbuild-solver --test solver simulation"
        );
    }
    println!("{seen:?}");
    // A simulation in which nothing happens proves nothing.
    if count >= 500 && size.is_none() {
        let Seen { runs, hits, cut_off, cancelled, failed, lost, left, evicted } = seen;
        let least = [runs, hits, cut_off, cancelled, failed, lost, left, evicted];
        assert!(least.iter().all(|events| *events >= count / 10), "too little happens: {seen:?}");
    }
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    runs: u64,
    hits: u64,
    cut_off: u64,
    cancelled: u64,
    failed: u64,
    lost: u64,
    left: u64,
    evicted: u64,
}

/// A vertex of a random graph.
#[derive(Clone, Debug)]
struct Node {
    label: String,
    kind: &'static str,
    argument: String,
    inputs: Vec<usize>,
}

fn random_graph(random: &mut Random, size: usize) -> Vec<Node> {
    let mut graph: Vec<Node> = Vec::new();
    // Long and thin, or wide: inputs are taken from so many vertices before.
    let reach = 1 + random.below(size.max(2));
    for n in 0..size {
        let sources = n < 2 || random.chance(8);
        let kind = match random.below(100) {
            0..70 if sources => "image",
            _ if sources => "local",
            0..50 => "step",
            50..60 => "make",
            60..80 => "fold",
            _ => "copy",
        };
        let argument = match kind {
            // Few names: some vertices are equal, some share what they stand for.
            "image" | "local" => format!("{kind}{}", random.below(3)),
            "copy" => ["/", "a", "b"][random.below(3)].to_owned(),
            "make" => format!("a={},b={}", random.below(2), random.below(2)),
            _ => String::new(),
        };
        let inputs = match kind {
            "image" | "local" => 0,
            "copy" => 1,
            _ => 1 + random.below(3),
        };
        let inputs = (0..inputs).map(|_| n - 1 - random.below(reach.min(n))).collect();
        let label = match kind {
            "image" | "local" => argument.clone(),
            _ => format!("n{}", if random.chance(10) { random.below(size) } else { n }),
        };
        graph.push(Node { label, kind, argument, inputs });
    }
    graph
}

/// The result of each vertex by the plain meaning of its op: what any build must come to.
fn expected(graph: &[Node], build: &Build, edges: &[Edge], shelf: &Shelf) -> Vec<String> {
    let outside = lock(&shelf.outside);
    let mut texts: Vec<String> = Vec::new();
    for (node, edge) in graph.iter().zip(edges) {
        let op = &build.definition.vertex(edge.node).op;
        let inputs: Vec<&str> = node.inputs.iter().map(|input| texts[*input].as_str()).collect();
        texts.push(meaning(op, &outside, &inputs));
    }
    texts
}

/// Somebody who asks.
struct Caller {
    node: usize,
    handle: Handle,
    answer: Arc<Mutex<Option<Result<String, Failure>>>>,
    left: bool,
}

/// Several builds of one graph, the last of them undisturbed. The error says which promise broke.
fn simulate(seed: u64, size: Option<usize>, seen: &mut Seen) -> Result<(), String> {
    let mut random = Random(seed);
    let wanted = if random.chance(3) { LARGE } else { SMALL };
    let wanted = 1 + random.below(wanted);
    let graph = random_graph(&mut random, wanted.min(size.unwrap_or(LARGE)));
    let shelf = Arc::new(Shelf::default());
    let builds = 2 + random.below(3);
    let mut story = String::new();
    for build in 0..builds {
        let calm = build + 1 == builds;
        change_world(&mut random, &shelf, calm);
        let _ = writeln!(story, "build {build}, calm {calm}, {:?}", lock(&shelf.outside));
        one_build(&mut random, &graph, &shelf, calm, seen, &mut story).map_err(|broken| {
            let lines = graph.iter().enumerate().map(|(n, node)| format!("{n}: {node:?}"));
            format!("{broken}\n{}\n{story}", lines.collect::<Vec<_>>().join("\n"))
        })?;
    }
    saved_keys(&mut random, &graph, &shelf)
}

/// What happens between builds.
fn change_world(random: &mut Random, shelf: &Shelf, calm: bool) {
    for kind in ["image", "local"] {
        for name in 0..3 {
            let name = format!("{kind}{name}");
            if !lock(&shelf.outside).contains_key(&name) || random.chance(20) {
                let content = format!("a={},b={}", random.below(2), random.below(2));
                lock(&shelf.outside).insert(name.clone(), content);
            }
            if !calm && kind == "image" && random.chance(3) {
                lock(&shelf.outside).remove(&name);
            }
        }
    }
    let percent = random.below(40);
    lock(&shelf.records).retain(|_, _| !random.chance(percent));
}

fn one_build(
    random: &mut Random,
    graph: &[Node],
    shelf: &Arc<Shelf>,
    calm: bool,
    seen: &mut Seen,
    story: &mut String,
) -> Result<(), String> {
    let sim = Arc::new(Sim::default());
    let gates = Arc::clone(&sim);
    // Everything takes time, now and then.
    let dice = Mutex::new(Random(random.next()));
    let pause = Box::new(move |_: &Call| match lock(&dice).chance(70) {
        true => gates.gate().boxed(),
        false => std::future::ready(()).boxed(),
    });
    let spawn = Arc::new(SimSpawn(Arc::clone(&sim)));
    let store = Store { attributes: random.chance(50), forgets: random.chance(50) };
    let mut build = Build::new(shelf, spawn, store, pause);
    let edges = lay(graph, &mut build, |_| !calm && random.chance(5));
    let expected = expected(graph, &build, &edges, shelf);
    let failing: BTreeSet<usize> = match calm {
        true => BTreeSet::new(),
        false => (0..graph.len()).filter(|_| random.chance(2)).collect(),
    };
    for node in &failing {
        lock(&build.toy.behaviour).insert(graph[*node].label.clone(), Behaviour::Fail);
    }
    let may_fail = reached(graph, |node| match node.kind {
        "image" if !lock(&shelf.outside).contains_key(&node.label) => true,
        _ => lock(&build.toy.behaviour).contains_key(&node.label),
    });
    // What was there before may lose its data; what this build makes is held.
    let before: Vec<_> = lock(&shelf.records).values().cloned().collect();
    let lossy = !calm && random.chance(50);

    let mut callers: Vec<Caller> = Vec::new();
    let mut joins = if calm { 1 } else { 1 + random.below(5) };
    let mut steps = 0;
    loop {
        let busy = callers.iter().any(|caller| !caller.left && lock(&caller.answer).is_none());
        if joins > 0 && (!busy || random.chance(3)) {
            joins -= 1;
            // The later ones need more.
            let below = random.below(graph.len());
            let node = if calm { graph.len() - 1 } else { below.max(random.below(graph.len())) };
            let _ = writeln!(story, "{steps}: somebody asks for {node}");
            callers.push(ask(&sim, &mut build, edges[node], node));
        } else if !calm && random.chance(1) && random.chance(30) {
            let caller = random.below(callers.len());
            let caller = &mut callers[caller];
            caller.handle.abort();
            if lock(&caller.answer).is_none() {
                let _ = writeln!(story, "{steps}: who asked for {} leaves", caller.node);
                (caller.left, seen.left) = (true, seen.left + 1);
            }
        } else if !calm && random.chance(1) {
            let percent = random.below(30);
            lock(&shelf.records).retain(|_, _| !random.chance(percent));
            seen.evicted += 1;
        } else if lossy && !before.is_empty() && random.chance(5) {
            before[random.below(before.len())].gone.store(true, Ordering::Relaxed);
        }
        if !sim.step(random) && joins == 0 {
            break;
        }
        steps += 1;
        if steps > 2_000 + 5_000 * graph.len() {
            return Err("it does not end".to_owned());
        }
    }

    for caller in &callers {
        let Caller { node, left, .. } = caller;
        match &*lock(&caller.answer) {
            Some(Ok(text)) if *text == expected[*node] => {}
            Some(Err(failure))
                if matches!(failure.kind, FailureKind::ExecFailed | FailureKind::NotFound)
                    && may_fail.contains(node) =>
            {
                seen.failed += 1;
            }
            None if *left => {}
            other => return Err(format!("vertex {node} came to {other:?}: {}", expected[*node])),
        }
    }
    let wanted: BTreeSet<usize> = callers.iter().map(|caller| caller.node).collect();
    check_end(graph, &mut build, &edges, &wanted, &sim)?;
    count(&build, seen);
    let Build { toy, solver, .. } = build;
    drop((callers, solver));
    match Arc::strong_count(&toy) {
        1 => Ok(()),
        more => Err(format!("cells are left: {more} hold the worker")),
    }
}

fn lay(graph: &[Node], build: &mut Build, mut ignore: impl FnMut(usize) -> bool) -> Vec<Edge> {
    let mut edges: Vec<Edge> = Vec::new();
    for (n, node) in graph.iter().enumerate() {
        let inputs: Vec<Edge> = node.inputs.iter().map(|input| edges[*input]).collect();
        let edge = build.vertex(&node.label, node.kind, &node.argument, &inputs);
        if ignore(n) {
            build.definition.ignore_cache(edge.node).expect("it is not looked at yet");
        }
        edges.push(edge);
    }
    edges
}

fn ask(sim: &Arc<Sim>, build: &mut Build, edge: Edge, node: usize) -> Caller {
    let vertex = build.load(edge);
    let (solver, answer) = (build.solver.clone(), Arc::default());
    let to: Arc<Mutex<Option<_>>> = Arc::clone(&answer);
    let asking = async move {
        let solved = solver.solve(vertex).await;
        *lock(&to) = Some(solved.map(|made| made.text.clone()));
    };
    Caller { node, handle: sim.start(asking.boxed()), answer, left: false }
}

/// The vertices that reach one for which `is` holds, themselves included.
fn reached(graph: &[Node], is: impl Fn(&Node) -> bool) -> BTreeSet<usize> {
    let mut out = BTreeSet::new();
    for (n, node) in graph.iter().enumerate() {
        if is(node) || node.inputs.iter().any(|input| out.contains(input)) {
            out.insert(n);
        }
    }
    out
}

/// What must hold when everybody has an answer or has left.
fn check_end(
    graph: &[Node],
    build: &mut Build,
    edges: &[Edge],
    wanted: &BTreeSet<usize>,
    sim: &Sim,
) -> Result<(), String> {
    let toy = &build.toy;
    if let Some(violation) = lock(&toy.shelf.violations).first() {
        return Err(violation.clone());
    }
    if sim.tasks() + sim.gates() > 0 {
        return Err(format!("{} tasks are left, {} wait", sim.tasks(), sim.gates()));
    }
    if !build.log.open().is_empty() {
        return Err(format!("these began and never ended: {:?}", build.log.open()));
    }
    let mut needed = wanted.clone();
    for n in (0..graph.len()).rev().filter(|n| needed.contains(n)).collect::<Vec<_>>() {
        let mut stack = vec![n];
        while let Some(n) = stack.pop() {
            stack.extend(graph[n].inputs.iter().filter(|input| needed.insert(**input)));
        }
    }
    let digests: HashMap<VertexDigest, &str> = needed
        .iter()
        .map(|n| (build.definition.digest(edges[*n].node), graph[*n].label.as_str()))
        .collect();
    if lock(&toy.touched).iter().any(|vertex| !digests.contains_key(vertex)) {
        return Err("a vertex that nobody needs was touched".to_owned());
    }
    for (vertex, count) in lock(&build.log.done).iter() {
        if *count > 1 {
            return Err(format!("{} was made {count} times", digests[vertex]));
        }
    }
    let mut looked_up: HashMap<VertexDigest, BTreeMap<[u8; 32], usize>> = HashMap::new();
    for call in lock(&toy.calls).iter() {
        if let Call::Lookup { vertex, key, .. } = call {
            let keys = looked_up.entry(*vertex).or_default();
            *keys.entry(*key.digest().as_bytes()).or_default() += 1;
        }
    }
    match looked_up.iter().find(|(_, keys)| keys.len() > 2) {
        Some((vertex, keys)) => Err(format!("{} has {} keys", digests[vertex], keys.len())),
        None => Ok(()),
    }
}

fn count(build: &Build, seen: &mut Seen) {
    use wbuild_solver::VertexEvent::*;
    for (_, event) in lock(&build.log.events).iter() {
        match event {
            Done => seen.runs += 1,
            Cached => seen.hits += 1,
            Cancelled => seen.cancelled += 1,
            Started | Failed(_) => {}
        }
    }
    for call in lock(&build.toy.calls).iter() {
        match call {
            Call::Alias { .. } => seen.cut_off += 1,
            Call::Forget { .. } => seen.lost += 1,
            _ => {}
        }
    }
}

/// What an undisturbed build of everything saves is a function of the graph and the world: the order
/// in which things happen has no part in it. And nothing that was ever saved contradicts it.
fn saved_keys(random: &mut Random, graph: &[Node], used: &Arc<Shelf>) -> Result<(), String> {
    let mut saved = Vec::new();
    for _ in 0..2 {
        let shelf = Arc::new(Shelf::default());
        lock(&shelf.outside).clone_from(&lock(&used.outside));
        let mut story = String::new();
        one_build(random, graph, &shelf, true, &mut Seen::default(), &mut story)?;
        let records = lock(&shelf.records);
        let texts = records.iter().map(|(key, made)| (*key, made.text.clone()));
        saved.push(texts.collect::<BTreeMap<_, _>>());
    }
    if saved[0] != saved[1] {
        return Err("two orders saved different keys".to_owned());
    }
    let contradicts = |(key, made): (&[u8; 32], &Arc<_>)| {
        let made: &crate::toy::Made = made;
        saved[0].get(key).is_some_and(|text| *text != made.text)
    };
    match lock(&used.records).iter().any(contradicts) {
        true => Err("a record has a key that means something else".to_owned()),
        false => Ok(()),
    }
}

#[test]
fn two_thousand_steps_are_one_wave() {
    let sim = Arc::new(Sim::default());
    let gates = Arc::clone(&sim);
    let pause = Box::new(move |call: &Call| match call {
        Call::Run(_) => gates.gate().boxed(),
        _ => std::future::ready(()).boxed(),
    });
    let shelf = Arc::new(Shelf::default());
    lock(&shelf.outside).insert("base".to_owned(), "B".to_owned());
    let store = Store { attributes: true, forgets: true };
    let mut build = Build::new(&shelf, Arc::new(SimSpawn(Arc::clone(&sim))), store, pause);
    let base = build.vertex("base", "image", "base", &[]);
    let steps: Vec<_> =
        (0..2_000).map(|n| build.vertex(&format!("s{n}"), "step", "", &[base])).collect();
    let top = build.vertex("top", "step", "", &steps);
    let caller = ask(&sim, &mut build, top, 0);
    for wave in [1, 2_000, 1] {
        sim.settle();
        assert_eq!(sim.gates(), wave);
        sim.open_all();
    }
    sim.settle();
    assert!(matches!(&*lock(&caller.answer), Some(Ok(_))));
}
