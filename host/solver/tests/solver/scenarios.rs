//! The files in `cases`: commands, each with the lines below it that are indented.
//!
//! ```text
//! graph                  vertices, one a line: NAME = KIND[:ARGUMENT] INPUT…
//! outside NAME=CONTENT…  what images and local directories hold
//! fail NAME…             ops that fail; `hang` never end, `heal` behave again
//! evict NAME…            the store loses the records of what these made
//! gone NAME…             their records stay, the data goes
//! ignore NAME…           not to be looked up from now on; none: all are
//! unattributed           failures no longer say which input is gone
//! unforgetting           what is gone is found again, as in a cache elsewhere
//! solve CALLER…          a build; below it what happened
//! ```
//!
//! A caller is a vertex, with `@join=N` one that asks while wave N runs, with `@leave=N` one that
//! leaves then, with `@known` one that afterwards wants to know what is known of all that it is built
//! on. A wave is the ops that run side by side when everything else is done at once and
//! each op takes equally long; ` | ` separates waves. `UPDATE=1` writes the files anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use wbuild_graph::{Edge, Failure, VertexDigest};
use wbuild_solver::{Abort as _, VertexEvent};

use crate::sim::{Handle, Sim, SimSpawn};
use crate::toy::{Behaviour, Build, Call, Shelf, Store, lock};

#[test]
fn cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/solver/cases");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("cases")
        .map(|entry| entry.expect("a case").path())
        .collect();
    files.sort();
    assert!(files.len() > 10, "cases are missing");
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a case");
        let found = play(&text);
        if found != text && update {
            std::fs::write(&file, &found).expect("a case is written");
        } else if found != text {
            let _ = writeln!(wrong, "{}:\n{found}", file.display());
        }
    }
    assert!(wrong.is_empty(), "these ended otherwise (UPDATE=1 takes them over):\n{wrong}");
}

/// Plays a case; its text with what happened as the lines below each `solve`.
fn play(text: &str) -> String {
    let mut stage = Stage::default();
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let mut below = Vec::new();
        while let Some(next) = lines.next_if(|next| next.starts_with(' ')) {
            below.push(next);
        }
        let _ = writeln!(out, "{line}");
        let mut words = line.split_whitespace();
        let command = words.next().unwrap_or("#");
        let names: Vec<&str> = words.collect();
        if command == "solve" {
            stage.solve(&names).lines().for_each(|line| {
                let _ = writeln!(out, "    {line}");
            });
            continue;
        }
        below.iter().for_each(|line| {
            let _ = writeln!(out, "{line}");
        });
        stage.prepare(command, &names, &below);
    }
    let violations = lock(&stage.shelf.violations);
    assert!(violations.is_empty(), "{violations:?} in\n{out}");
    drop(violations);
    out
}

#[derive(Default)]
struct Stage {
    shelf: Arc<Shelf>,
    /// Label, kind, argument, inputs.
    graph: Vec<(String, String, String, Vec<String>)>,
    behaviour: BTreeMap<String, Behaviour>,
    ignored: Vec<String>,
    unattributed: bool,
    unforgetting: bool,
}

/// Somebody who asks for a vertex.
struct Caller {
    name: String,
    vertex: VertexDigest,
    join: usize,
    leave: Option<usize>,
    known: bool,
    handle: Option<Handle>,
    answer: Arc<Mutex<Option<Result<String, Failure>>>>,
}

impl Stage {
    fn prepare(&mut self, command: &str, names: &[&str], below: &[&str]) {
        let owned = || names.iter().map(|name| (*name).to_owned());
        match command {
            _ if command.starts_with('#') => {}
            "graph" => self.graph = below.iter().map(|line| parse_vertex(line)).collect(),
            "outside" => {
                lock(&self.shelf.outside).extend(names.iter().map(|pair| {
                    let (name, content) = pair.split_once('=').expect("NAME=CONTENT");
                    (name.to_owned(), content.to_owned())
                }));
            }
            "fail" => self.behaviour.extend(owned().map(|name| (name, Behaviour::Fail))),
            "hang" => self.behaviour.extend(owned().map(|name| (name, Behaviour::Hang))),
            "heal" => self.behaviour.retain(|name, _| !names.contains(&name.as_str())),
            "evict" => {
                lock(&self.shelf.records).retain(|_, made| !names.contains(&made.by.as_str()));
            }
            "gone" => lock(&self.shelf.records)
                .values()
                .filter(|made| names.contains(&made.by.as_str()))
                .for_each(|made| made.gone.store(true, Ordering::Relaxed)),
            "ignore" => self.ignored = owned().collect(),
            "unattributed" => self.unattributed = true,
            "unforgetting" => self.unforgetting = true,
            other => panic!("no command {other:?}"),
        }
    }

    fn solve(&self, callers: &[&str]) -> String {
        let sim = Arc::new(Sim::default());
        let gates = Arc::clone(&sim);
        let pause = Box::new(move |call: &Call| match call {
            Call::Run(_) => gates.gate().boxed(),
            _ => std::future::ready(()).boxed(),
        });
        let spawn = Arc::new(SimSpawn(Arc::clone(&sim)));
        let store = Store { attributes: !self.unattributed, forgets: !self.unforgetting };
        let mut build = Build::new(&self.shelf, spawn, store, pause);
        lock(&build.toy.behaviour).clone_from(&self.behaviour);
        let mut edges: BTreeMap<&str, Edge> = BTreeMap::new();
        for (label, kind, argument, inputs) in &self.graph {
            let inputs: Vec<Edge> = inputs.iter().map(|input| edges[input.as_str()]).collect();
            let edge = build.vertex(label.trim_end_matches('\''), kind, argument, &inputs);
            if self.ignored.contains(label) {
                build.definition.ignore_cache(edge.node).expect("it is not looked at yet");
            }
            edges.insert(label, edge);
        }
        let mut callers: Vec<Caller> =
            callers.iter().map(|text| parse_caller(text, &mut build, &edges)).collect();

        let last = callers.iter().flat_map(|c| [c.join, c.leave.unwrap_or(1)]).max().unwrap_or(1);
        let mut waves = Vec::new();
        let mut seen = 0;
        for wave in 1.. {
            // The last wave ends and what follows begins.
            sim.settle();
            for caller in &mut callers {
                if caller.join == wave {
                    caller.handle = Some(sim.start(caller.ask(&build)));
                }
                if caller.leave == Some(wave) {
                    caller.handle.as_ref().expect("who leaves has joined").abort();
                }
            }
            sim.settle();
            let calls = lock(&build.toy.calls);
            let runs = calls[seen..].iter().filter_map(|call| match call {
                Call::Run(label) => Some(label.as_str()),
                _ => None,
            });
            waves.push(runs.collect::<Vec<_>>().join(", "));
            seen = calls.len();
            drop(calls);
            if !sim.open_all() && wave >= last {
                break;
            }
        }
        waves.truncate(waves.iter().rposition(|wave| !wave.is_empty()).map_or(0, |last| last + 1));
        let out = report(&build, &callers, &waves);
        // Who still waits leaves, and nothing is left.
        callers.iter().for_each(|caller| caller.handle.as_ref().expect("it joined").abort());
        sim.settle();
        assert_eq!((sim.tasks(), sim.gates()), (0, 0), "tasks are left:\n{out}");
        assert!(build.log.open().is_empty(), "{:?} never ended:\n{out}", build.log.open());
        let Build { toy, solver, .. } = build;
        drop(solver);
        assert_eq!(Arc::strong_count(&toy), 1, "cells are left:\n{out}");
        out
    }
}

impl Caller {
    fn ask(&self, build: &Build) -> BoxFuture<'static, ()> {
        let (solver, vertex) = (build.solver.clone(), self.vertex);
        let answer = Arc::clone(&self.answer);
        async move {
            let solved = solver.solve(vertex).await;
            *lock(&answer) = Some(solved.map(|made| made.text.clone()));
        }
        .boxed()
    }

    fn ended(&self) -> String {
        match &*lock(&self.answer) {
            Some(Ok(text)) => text.clone(),
            Some(Err(failure)) => format!("failed: {}", failure.message),
            None if self.leave.is_some() => "left".to_owned(),
            None => "waits".to_owned(),
        }
    }
}

/// What happened, a line for each kind of thing that did.
fn report(build: &Build, callers: &[Caller], waves: &[String]) -> String {
    let mut lines: Vec<(&str, Vec<String>)> =
        ["pinned", "looked up", "read", "saved", "aliased", "forgot", "told"]
            .map(|what| (what, Vec::new()))
            .into();
    let mut add = |what: &str, entry: String| {
        let line = lines.iter_mut().find(|(name, _)| *name == what).expect("a line");
        line.1.push(entry);
    };
    for call in lock(&build.toy.calls).iter() {
        match call {
            Call::Pin(label) => add("pinned", label.clone()),
            Call::Lookup { vertex, label, key, hit } => {
                let known =
                    build.solver.key(*vertex).now_or_never().expect("it was looked up by it");
                let level = match known.expect("a key").key == Some(*key) {
                    true => "definition",
                    false => "result",
                };
                let hit = if *hit { "hit" } else { "miss" };
                add("looked up", format!("{label} by {level}: {hit}"));
            }
            Call::Read { label, of, path } => add("read", format!("{path} of {of} for {label}")),
            Call::Run(_) => {}
            Call::Save { label, keys, .. } => {
                let keys = keys.len();
                add("saved", format!("{label} under {keys}"));
            }
            Call::Alias { by } => add("aliased", by.clone()),
            Call::Forget { by } => add("forgot", by.clone()),
        }
    }
    for (label, event) in lock(&build.log.events).iter() {
        let event = match event {
            VertexEvent::Started => continue,
            VertexEvent::Cached => "cached",
            VertexEvent::Done => "done",
            VertexEvent::Failed(_) => "failed",
            VertexEvent::Cancelled => "cancelled",
        };
        add("told", format!("{label} {event}"));
    }
    let mut out = String::new();
    let mut line = |name: &str, text: &str| {
        if !text.is_empty() {
            let _ = writeln!(out, "{name:<10} {text}");
        }
    };
    for (name, entries) in &lines {
        if *name == "saved" {
            line("ran", &waves.join(" | "));
        }
        line(name, &entries.join(", "));
    }
    for caller in callers {
        line(&caller.name, &format!("= {}", caller.ended()));
        if caller.known {
            line("known", &known(build, caller.vertex));
        }
    }
    out
}

/// What is known of all that a vertex is built on; nothing runs for it.
fn known(build: &Build, vertex: VertexDigest) -> String {
    let known = build.solver.below(vertex).into_iter().filter_map(|vertex| {
        let known = build.solver.known(vertex).now_or_never().expect("nothing runs for it");
        let (key, made) = known.expect("looked up")?;
        let own = build.solver.key(vertex).now_or_never().expect("it is known");
        assert_eq!(own.expect("a key").key, Some(key));
        Some(made.text.clone())
    });
    known.collect::<Vec<_>>().join(", ")
}

/// `NAME = KIND[:ARGUMENT] INPUT…`. The argument of a source is its name unless it is given.
fn parse_vertex(line: &str) -> (String, String, String, Vec<String>) {
    let (name, rest) = line.split_once('=').expect("NAME = KIND …");
    let name = name.trim().to_owned();
    let mut words = rest.split_whitespace().map(str::to_owned);
    let kind = words.next().expect("a kind");
    let (kind, argument) = match kind.split_once(':') {
        Some((kind, argument)) => (kind.to_owned(), argument.to_owned()),
        None => (kind, name.clone()),
    };
    (name, kind, argument, words.collect())
}

fn parse_caller(text: &str, build: &mut Build, edges: &BTreeMap<&str, Edge>) -> Caller {
    let mut parts = text.split('@');
    let name = parts.next().expect("a vertex");
    let (mut join, mut leave, mut known) = (1, None, false);
    for part in parts {
        match part.split_once('=') {
            Some(("join", wave)) => join = wave.parse().expect("a wave"),
            Some(("leave", wave)) => leave = Some(wave.parse().expect("a wave")),
            _ if part == "known" => known = true,
            _ => panic!("{part:?} is neither join=, leave= nor known"),
        }
    }
    let vertex = build.load(edges[name]);
    Caller {
        name: text.to_owned(),
        vertex,
        join,
        leave,
        known,
        handle: None,
        answer: Arc::default(),
    }
}
