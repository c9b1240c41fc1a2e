//! A worker over toy ops, with counters instead of containers.
//!
//! A vertex is a file op whose first action writes `op.data`; its result is the text
//! `name(inputs)`, except that the name `const:X` yields `X` whatever its inputs are: a step that
//! runs again and makes the same files.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use wbuild_graph::op::{
    CopyOpts, EntryOpts, FileAction, FileActionKind, FileOp, LocalSource, SourceOp,
};
use wbuild_graph::{
    Attrs, CacheKey, ContentDigest, Definition, Digest, Edge, Failure, FailureKind, GraphLimits,
    Op, Platform, ResultId,
};
use wbuild_solver::{Abort, Observer, Pin, SolveVertex, Solver, Spawn, VertexEvent, Worker};

pub struct TokioSpawn;

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

/// Outlives builds, like the store.
#[derive(Default)]
pub struct Disk {
    pub records: Mutex<HashMap<CacheKey, Arc<Made>>>,
    /// Content of local directories and what image references point to.
    pub outside: Mutex<HashMap<String, String>>,
}

#[derive(Debug)]
pub struct Made {
    pub text: String,
    pub gone: Mutex<bool>,
}

pub struct Toy {
    pub disk: Arc<Disk>,
    /// How often each op ran, by name.
    pub runs: Mutex<BTreeMap<String, usize>>,
    pub lookups: Mutex<usize>,
    /// Ops that never end, and those that fail or panic.
    pub behaviour: Mutex<HashMap<String, &'static str>>,
}

pub fn name(op: &Op) -> String {
    match op {
        Op::Source(SourceOp::Image { reference, .. }) => reference.clone(),
        Op::Source(SourceOp::Local(local)) => local.name.clone(),
        Op::File(file) => match file.actions.first().map(|a| &a.kind) {
            Some(FileActionKind::Write { data, .. }) => String::from_utf8_lossy(data).into_owned(),
            _ => "copy".to_owned(),
        },
        _ => "other".to_owned(),
    }
}

#[async_trait]
impl Worker for Toy {
    type Outputs = Arc<Made>;

    async fn pin(&self, vertex: &SolveVertex) -> Result<Pin, Failure> {
        Ok(match vertex.op() {
            Op::Source(SourceOp::Local(_)) => Pin::ByContent,
            op => {
                let name = name(op);
                let pin = self.disk.outside.lock().unwrap().get(&name).cloned();
                let pin = pin.ok_or_else(|| Failure::not_found(format!("no image {name}")))?;
                Pin::Digest(Digest::of(pin.as_bytes()))
            }
        })
    }

    async fn content_digest(
        &self,
        _: &SolveVertex,
        input: usize,
        (made, _): (&Arc<Made>, u32),
    ) -> Result<ContentDigest, Failure> {
        if *made.gone.lock().unwrap() {
            let failure = Failure::new(FailureKind::Gone, "the data is gone");
            return Err(failure.attr("gone-input", input.to_string()));
        }
        Ok(ContentDigest(Digest::of(made.text.as_bytes())))
    }

    async fn result_id(&self, (made, index): (&Arc<Made>, u32)) -> Result<ResultId, Failure> {
        Ok(ResultId(Digest::of(format!("{}.{index}", made.text).as_bytes())))
    }

    async fn lookup(&self, _: &SolveVertex, key: CacheKey) -> Result<Option<Arc<Made>>, Failure> {
        *self.lookups.lock().unwrap() += 1;
        Ok(self.disk.records.lock().unwrap().get(&key).cloned())
    }

    async fn alias(&self, made: &Arc<Made>, key: CacheKey) -> Result<(), Failure> {
        self.disk.records.lock().unwrap().insert(key, Arc::clone(made));
        Ok(())
    }

    async fn run(
        &self,
        vertex: &SolveVertex,
        inputs: Vec<(Arc<Made>, u32)>,
    ) -> Result<Arc<Made>, Failure> {
        let name = name(vertex.op());
        *self.runs.lock().unwrap().entry(name.clone()).or_default() += 1;
        tokio::task::yield_now().await;
        let behaviour = self.behaviour.lock().unwrap().get(&name).copied();
        match behaviour {
            Some("hang") => std::future::pending::<()>().await,
            Some("fail") => {
                return Err(Failure::new(FailureKind::ExecFailed, format!("{name} failed")));
            }
            Some("panic") => panic!("{name} panicked"),
            _ => {}
        }
        let mut texts = Vec::new();
        for (number, (made, index)) in inputs.iter().enumerate() {
            if *made.gone.lock().unwrap() {
                let failure = Failure::new(FailureKind::Gone, "the data is gone");
                return Err(failure.attr("gone-input", number.to_string()));
            }
            texts.push(format!("{}.{index}", made.text));
        }
        let text = match (vertex.op(), name.strip_prefix("const:")) {
            (Op::Source(_), _) => {
                self.disk.outside.lock().unwrap().get(&name).cloned().unwrap_or_default()
            }
            (_, Some(constant)) => constant.to_owned(),
            _ => format!("{name}({})", texts.join(",")),
        };
        Ok(Arc::new(Made { text, gone: Mutex::new(false) }))
    }

    async fn save(
        &self,
        _: &SolveVertex,
        keys: Vec<CacheKey>,
        made: &Arc<Made>,
    ) -> Result<(), Failure> {
        let mut records = self.disk.records.lock().unwrap();
        for key in keys {
            records.insert(key, Arc::clone(made));
        }
        Ok(())
    }

    async fn forget(&self, made: &Arc<Made>) -> Result<(), Failure> {
        self.disk.records.lock().unwrap().retain(|_, other| !Arc::ptr_eq(other, made));
        Ok(())
    }
}

#[derive(Default)]
pub struct Log(pub Mutex<Vec<(String, VertexEvent)>>);

impl Observer for Log {
    fn vertex(&self, vertex: &SolveVertex, event: VertexEvent) {
        self.0.lock().unwrap().push((name(vertex.op()), event));
    }
}

/// One build over a disk.
pub struct Build {
    pub toy: Arc<Toy>,
    pub log: Arc<Log>,
    pub solver: Solver<Toy>,
    pub definition: Definition,
}

impl Build {
    pub fn new(disk: &Arc<Disk>) -> Self {
        let toy = Arc::new(Toy {
            disk: Arc::clone(disk),
            runs: Mutex::default(),
            lookups: Mutex::default(),
            behaviour: Mutex::default(),
        });
        let log = Arc::new(Log::default());
        let solver = Solver::new(Arc::clone(&toy), Arc::new(TokioSpawn), Arc::clone(&log) as _);
        let definition = Definition::new("toy", GraphLimits::default());
        Build { toy, log, solver, definition }
    }

    pub fn image(&mut self, reference: &str) -> Edge {
        let op = Op::Source(SourceOp::Image {
            reference: reference.to_owned(),
            platform: Platform::new("linux", "amd64", None),
            attrs: Attrs::default(),
        });
        self.insert(op, vec![])
    }

    pub fn local(&mut self, name: &str) -> Edge {
        let local = LocalSource { name: name.to_owned(), ..LocalSource::default() };
        self.insert(Op::Source(SourceOp::Local(local)), vec![])
    }

    /// A step that reads its inputs as wholes.
    pub fn step(&mut self, name: &str, inputs: &[Edge]) -> Edge {
        let write = FileActionKind::Write {
            path: "/name".to_owned(),
            data: name.as_bytes().to_vec(),
            opts: EntryOpts::default(),
        };
        let mut actions = vec![FileAction { mark: None, kind: write }];
        // Further inputs are copied from; the copy alone would be read by content, so they serve as
        // the place for names, too.
        let op = FileOp {
            base: (!inputs.is_empty()).then_some(0),
            names_from: (inputs.len() > 1).then_some(1),
            actions: {
                actions.truncate(1);
                actions
            },
        };
        self.insert(Op::File(op), inputs.to_vec())
    }

    /// A step that copies from its only input.
    pub fn copy(&mut self, from: Edge) -> Edge {
        let copy = FileActionKind::Copy {
            source: 0,
            paths: vec!["/".to_owned()],
            target: "/".to_owned(),
            opts: CopyOpts::default(),
        };
        let op = FileOp {
            base: None,
            names_from: None,
            actions: vec![FileAction { mark: None, kind: copy }],
        };
        self.insert(Op::File(op), vec![from])
    }

    fn insert(&mut self, op: Op, inputs: Vec<Edge>) -> Edge {
        let node = self.definition.insert(op, inputs).expect("a valid node");
        Edge { node, index: 0 }
    }

    pub async fn solve(&mut self, edge: Edge) -> Result<String, Failure> {
        let (vertex, _) = self.solver.load(&mut self.definition, edge);
        self.solver.solve(vertex).await.map(|made| made.text.clone())
    }

    pub fn runs(&self) -> String {
        let runs = self.toy.runs.lock().unwrap();
        runs.iter().map(|(name, n)| format!("{name}={n}")).collect::<Vec<_>>().join(" ")
    }
}

pub fn disk(outside: &[(&str, &str)]) -> Arc<Disk> {
    let disk = Disk::default();
    for (name, content) in outside {
        disk.outside.lock().unwrap().insert((*name).to_owned(), (*content).to_owned());
    }
    Arc::new(disk)
}
