//! A worker over toy ops: results are texts, the store is a map, and everything asked of it is
//! written down.
//!
//! | kind | its result |
//! | --- | --- |
//! | `image`, `local` | what the outside says |
//! | `step` | `label(inputs)`, shortened to a digest if it is long |
//! | `make` | a constant, whatever its inputs are |
//! | `fold` | one of two texts, so that different inputs often give equal results |
//! | `copy` | `label(what it reads of its input)`: the whole, or the value after `path=` |

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use wbuild_graph::op::{
    CopyOpts, EntryOpts, FileAction, FileActionKind, FileOp, LocalSource, SourceOp,
};
use wbuild_graph::{
    Attrs, CacheKey, ContentDigest, Definition, Digest, Edge, Failure, FailureKind, GraphLimits,
    Op, Platform, ResultId, VertexDigest,
};
use wbuild_solver::{
    FoundBy, GONE_INPUT, Miss, Observer, Pin, SolveVertex, Solver, Spawn, VertexEvent, Worker,
};

/// Locks a mutex that no panic can have poisoned.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while it was held")
}

/// A result.
#[derive(Debug)]
pub struct Made {
    pub text: String,
    /// Label of the vertex that made it.
    pub by: String,
    /// Its data is not there any more, though its record is.
    pub gone: AtomicBool,
}

/// What outlives builds: the store, and the world.
#[derive(Default)]
pub struct Shelf {
    pub records: Mutex<BTreeMap<[u8; 32], Arc<Made>>>,
    /// Content of local directories and of images, by name.
    pub outside: Mutex<BTreeMap<String, String>>,
    /// What was ever saved under each key. A key that meant two things is a violation.
    meanings: Mutex<HashMap<CacheKey, String>>,
    /// Promises that were broken.
    pub violations: Mutex<Vec<String>>,
}

impl Shelf {
    pub fn violation(&self, text: String) {
        lock(&self.violations).push(text);
    }

    fn put(&self, key: CacheKey, made: &Arc<Made>) {
        let mut meanings = lock(&self.meanings);
        let meant = meanings.entry(key).or_insert_with(|| made.text.clone());
        if *meant != made.text {
            let short = key.digest().short();
            self.violation(format!("the key {short} means {meant} and {}", made.text));
        }
        lock(&self.records).insert(*key.digest().as_bytes(), Arc::clone(made));
    }
}

/// What was asked of the worker.
#[derive(Clone, Debug)]
pub enum Call {
    Pin(String),
    Lookup { vertex: VertexDigest, label: String, key: CacheKey, hit: bool },
    Read { label: String, of: String, path: String },
    Run(String),
    Save { label: String, keys: Vec<CacheKey> },
    Alias { by: String },
    Forget { by: String },
}

/// How ops of a label behave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
    Fail,
    Hang,
    Panic,
}

/// What the store is like.
#[derive(Clone, Copy, Debug)]
pub struct Store {
    /// Failures say which input is gone.
    pub attributes: bool,
    /// What is told to be gone is not found again. A cache elsewhere may well offer it again.
    pub forgets: bool,
}

/// Waits a while, the way a call takes time.
pub type Pause = Box<dyn Fn(&Call) -> BoxFuture<'static, ()> + Send + Sync>;

pub struct Toy {
    pub shelf: Arc<Shelf>,
    pub calls: Mutex<Vec<Call>>,
    pub behaviour: Mutex<BTreeMap<String, Behaviour>>,
    pub store: Store,
    pub pause: Pause,
    /// Vertices whose op runs now.
    running: Mutex<HashSet<VertexDigest>>,
    /// Result keys of vertices that are about to run, and those of what runs now and may be joined.
    missed: Mutex<HashMap<VertexDigest, CacheKey>>,
    joined: Mutex<HashMap<CacheKey, VertexDigest>>,
    /// Vertices that were touched at all.
    pub touched: Mutex<HashSet<VertexDigest>>,
}

/// What a file op of the toy is, as its first action says it.
pub fn label(op: &Op) -> String {
    match op {
        Op::Source(SourceOp::Image { reference, .. }) => reference.clone(),
        Op::Source(SourceOp::Local(local)) => local.name.clone(),
        Op::File(file) => match file.actions.first().map(|action| &action.kind) {
            Some(FileActionKind::Write { path, .. }) => path.trim_matches('/').to_owned(),
            Some(FileActionKind::Copy { target, .. }) => target.trim_matches('/').to_owned(),
            _ => unreachable!("no toy op"),
        },
        _ => unreachable!("no toy op"),
    }
}

/// What is read of a text: all of it, or the value after `path=`.
pub fn read(text: &str, path: &str) -> String {
    match path {
        "/" => text.to_owned(),
        _ => text
            .split([',', '(', ')'])
            .find_map(|part| part.strip_prefix(path)?.strip_prefix('='))
            .unwrap_or("-")
            .to_owned(),
    }
}

/// The path that an op reads of an input.
fn reads(op: &Op) -> String {
    match op {
        Op::File(file) => match file.actions.first().map(|action| &action.kind) {
            Some(FileActionKind::Copy { paths, .. }) => paths[0].clone(),
            _ => "/".to_owned(),
        },
        _ => "/".to_owned(),
    }
}

/// What an op makes of its inputs: the whole meaning of a toy graph.
pub fn meaning(op: &Op, outside: &BTreeMap<String, String>, inputs: &[&str]) -> String {
    let label = label(op);
    let write = match op {
        Op::Source(_) => return outside.get(&label).cloned().unwrap_or_default(),
        Op::File(file) => match &file.actions[0].kind {
            FileActionKind::Write { data, .. } => String::from_utf8_lossy(data).into_owned(),
            _ => return format!("{label}({})", read(inputs[0], &reads(op))),
        },
        _ => unreachable!("no toy op"),
    };
    let joined = inputs.join(",");
    match write.split_once(':') {
        Some(("make", text)) => text.to_owned(),
        Some(("fold", _)) => {
            format!("{label}{}", Digest::of(joined.as_bytes()).as_bytes()[0] % 2)
        }
        _ if joined.len() > 60 => {
            format!("{label}({})", &Digest::of(joined.as_bytes()).hex()[..12])
        }
        _ => format!("{label}({joined})"),
    }
}

impl Toy {
    async fn call(&self, vertex: Option<VertexDigest>, call: Call) {
        lock(&self.touched).extend(vertex);
        let pause = (self.pause)(&call);
        lock(&self.calls).push(call);
        pause.await;
    }
}

/// Ends a run however it ends.
struct Runs<'a> {
    toy: &'a Toy,
    vertex: VertexDigest,
}

impl Drop for Runs<'_> {
    fn drop(&mut self) {
        lock(&self.toy.running).remove(&self.vertex);
        lock(&self.toy.joined).retain(|_, vertex| *vertex != self.vertex);
    }
}

fn gone() -> Failure {
    Failure::new(FailureKind::Gone, "the data is gone")
}

#[async_trait]
impl Worker for Toy {
    type Outputs = Arc<Made>;

    async fn pin(&self, vertex: &SolveVertex) -> Result<Pin, Failure> {
        let name = label(vertex.op());
        self.call(Some(vertex.digest), Call::Pin(name.clone())).await;
        if matches!(vertex.op(), Op::Source(SourceOp::Local(_))) {
            return Ok(Pin::ByContent);
        }
        let pin = lock(&self.shelf.outside).get(&name).cloned();
        let pin = pin.ok_or_else(|| Failure::not_found(format!("there is no image {name}")))?;
        Ok(Pin::Digest(Digest::of(pin.as_bytes())))
    }

    async fn content_digest(
        &self,
        vertex: &SolveVertex,
        _: usize,
        (made, _): (&Arc<Made>, u32),
    ) -> Result<ContentDigest, Failure> {
        let (label, path) = (label(vertex.op()), reads(vertex.op()));
        let call = Call::Read { label, of: made.by.clone(), path: path.clone() };
        self.call(Some(vertex.digest), call).await;
        if made.gone.load(Ordering::Relaxed) {
            return Err(gone());
        }
        Ok(ContentDigest(Digest::of(read(&made.text, &path).as_bytes())))
    }

    async fn result_id(&self, (made, index): (&Arc<Made>, u32)) -> Result<ResultId, Failure> {
        Ok(ResultId(Digest::of(format!("{}.{index}", made.text).as_bytes())))
    }

    async fn lookup(
        &self,
        vertex: &SolveVertex,
        key: CacheKey,
    ) -> Result<Option<Arc<Made>>, Failure> {
        let found = lock(&self.shelf.records).get(key.digest().as_bytes()).cloned();
        let (label, hit) = (label(vertex.op()), found.is_some());
        let call = Call::Lookup { vertex: vertex.digest, label, key, hit };
        self.call(Some(vertex.digest), call).await;
        Ok(found)
    }

    async fn alias(&self, made: &Arc<Made>, key: CacheKey) -> Result<(), Failure> {
        self.call(None, Call::Alias { by: made.by.clone() }).await;
        self.shelf.put(key, made);
        Ok(())
    }

    async fn run(
        &self,
        vertex: &SolveVertex,
        inputs: Vec<(Arc<Made>, u32)>,
    ) -> Result<Arc<Made>, Failure> {
        let label = label(vertex.op());
        if !lock(&self.running).insert(vertex.digest) {
            self.shelf.violation(format!("{label} runs twice at once"));
        }
        let _runs = Runs { toy: self, vertex: vertex.digest };
        // What was gone is made anew without a look at others.
        let lost = lock(&self.calls).iter().any(|call| matches!(call, Call::Forget { .. }));
        if let Some(key) = lock(&self.missed).remove(&vertex.digest).filter(|_| !lost)
            && !vertex.ignore_cache
            && lock(&self.joined).insert(key, vertex.digest).is_some()
        {
            self.shelf.violation(format!("{label} runs beside one of the same result key"));
        }
        self.call(Some(vertex.digest), Call::Run(label.clone())).await;
        let behaviour = lock(&self.behaviour).get(&label).copied();
        match behaviour {
            Some(Behaviour::Hang) => std::future::pending::<()>().await,
            Some(Behaviour::Fail) => {
                return Err(Failure::new(FailureKind::ExecFailed, format!("{label} failed")));
            }
            Some(Behaviour::Panic) => panic!("{label} panicked"),
            None => {}
        }
        for (number, (made, _)) in inputs.iter().enumerate() {
            if made.gone.load(Ordering::Relaxed) {
                return Err(match self.store.attributes {
                    true => gone().attr(GONE_INPUT, number.to_string()),
                    false => gone(),
                });
            }
        }
        let texts: Vec<&str> = inputs.iter().map(|(made, _)| made.text.as_str()).collect();
        let text = meaning(vertex.op(), &lock(&self.shelf.outside), &texts);
        Ok(Arc::new(Made { text, by: label, gone: AtomicBool::new(false) }))
    }

    async fn save(
        &self,
        vertex: &SolveVertex,
        keys: Vec<CacheKey>,
        made: &Arc<Made>,
    ) -> Result<(), Failure> {
        let label = label(vertex.op());
        self.call(None, Call::Save { label, keys: keys.clone() }).await;
        keys.into_iter().for_each(|key| self.shelf.put(key, made));
        Ok(())
    }

    async fn forget(&self, made: &Arc<Made>) -> Result<(), Failure> {
        self.call(None, Call::Forget { by: made.by.clone() }).await;
        if self.store.forgets {
            lock(&self.shelf.records).retain(|_, other| !Arc::ptr_eq(other, made));
        }
        Ok(())
    }

    fn found(&self, vertex: &SolveVertex, by: FoundBy, made: &Arc<Made>) {
        let (FoundBy::Definition(key) | FoundBy::Result(key)) = by;
        let meant = lock(&self.shelf.meanings).get(&key).cloned();
        if meant.as_ref() != Some(&made.text) {
            self.shelf.violation(format!("{} was found by a key of {meant:?}", label(vertex.op())));
        }
        if vertex.ignore_cache {
            self.shelf.violation(format!("{} was found and must not be", label(vertex.op())));
        }
    }

    async fn missed(&self, vertex: &SolveVertex, miss: Miss<'_, Arc<Made>>) {
        let inputs = vertex.inputs.len();
        let told = (miss.keys.len(), miss.inputs.len(), miss.parts.len());
        if told != (1 + usize::from(inputs > 0), inputs, inputs) {
            self.shelf.violation(format!("{} was missed with {told:?}", label(vertex.op())));
        }
        if let [_, result] = miss.keys {
            lock(&self.missed).insert(vertex.digest, *result);
        }
    }
}

/// What was told of the vertices, checked as it comes: what starts ends before it starts again.
pub struct Log {
    shelf: Arc<Shelf>,
    pub events: Mutex<Vec<(String, VertexEvent)>>,
    open: Mutex<HashMap<VertexDigest, String>>,
    /// How often a vertex was made.
    pub done: Mutex<HashMap<VertexDigest, usize>>,
}

impl Log {
    /// Labels of what started and has not ended.
    pub fn open(&self) -> BTreeSet<String> {
        lock(&self.open).values().cloned().collect()
    }
}

impl Observer for Log {
    fn vertex(&self, vertex: &SolveVertex, event: VertexEvent) {
        let label = label(vertex.op());
        let mut open = lock(&self.open);
        let was_open = match event {
            VertexEvent::Started => open.insert(vertex.digest, label.clone()).is_some(),
            _ => open.remove(&vertex.digest).is_some(),
        };
        let wanted = match event {
            VertexEvent::Started | VertexEvent::Cached => Some(false),
            VertexEvent::Done | VertexEvent::Cancelled => Some(true),
            // Before its op runs as well.
            VertexEvent::Failed(_) => None,
        };
        if wanted.is_some_and(|wanted| wanted != was_open) {
            self.shelf.violation(format!("{label} was told {event:?}, open before: {was_open}"));
        }
        if event == VertexEvent::Done {
            *lock(&self.done).entry(vertex.digest).or_default() += 1;
        }
        lock(&self.events).push((label, event));
    }
}

/// One build over a shelf.
pub struct Build {
    pub toy: Arc<Toy>,
    pub log: Arc<Log>,
    pub solver: Solver<Toy>,
    pub definition: Definition,
}

impl Build {
    pub fn new(shelf: &Arc<Shelf>, spawn: Arc<dyn Spawn>, store: Store, pause: Pause) -> Self {
        let toy = Arc::new(Toy {
            shelf: Arc::clone(shelf),
            calls: Mutex::default(),
            behaviour: Mutex::default(),
            store,
            pause,
            running: Mutex::default(),
            missed: Mutex::default(),
            joined: Mutex::default(),
            touched: Mutex::default(),
        });
        let log = Arc::new(Log {
            shelf: Arc::clone(shelf),
            events: Mutex::default(),
            open: Mutex::default(),
            done: Mutex::default(),
        });
        let solver = Solver::new(Arc::clone(&toy), spawn, Arc::clone(&log) as _);
        let definition = Definition::new("toy", GraphLimits::default());
        Build { toy, log, solver, definition }
    }

    /// Appends a vertex: `kind` and its argument as in the table at the top.
    pub fn vertex(&mut self, label: &str, kind: &str, argument: &str, inputs: &[Edge]) -> Edge {
        let action = |kind| FileAction { mark: None, kind };
        let op = match kind {
            "image" => Op::Source(SourceOp::Image {
                reference: argument.to_owned(),
                platform: Platform::new("linux", "amd64", None),
                attrs: Attrs::default(),
            }),
            "local" => Op::Source(SourceOp::Local(LocalSource {
                name: argument.to_owned(),
                ..LocalSource::default()
            })),
            "copy" => Op::File(FileOp {
                actions: vec![action(FileActionKind::Copy {
                    source: 0,
                    paths: vec![argument.to_owned()],
                    target: format!("/{label}"),
                    opts: CopyOpts::default(),
                })],
                ..FileOp::default()
            }),
            "step" | "make" | "fold" => Op::File(FileOp {
                // Inputs beyond the first count as wholes, too: nothing is copied from them.
                base: (!inputs.is_empty()).then_some(0),
                names_from: None,
                actions: vec![action(FileActionKind::Write {
                    path: format!("/{label}"),
                    data: match kind {
                        "step" => Vec::new(),
                        _ => format!("{kind}:{argument}").into_bytes(),
                    },
                    opts: EntryOpts::default(),
                })],
            }),
            other => panic!("no kind {other:?} of toy op"),
        };
        let node = self.definition.insert(op, inputs.to_vec()).expect("a valid node");
        Edge { node, index: 0 }
    }

    /// Makes an edge known to the solver.
    pub fn load(&mut self, edge: Edge) -> VertexDigest {
        self.solver.load(&mut self.definition, edge).0
    }
}
