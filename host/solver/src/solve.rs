//! Solving: from a definition's edge to a result.

mod known;
mod turns;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, try_join_all};
use wbuild_graph::{
    CacheKey, ContentDigest, Definition, Edge, Failure, FailureKind, Op, ResultId, Vertex,
    VertexDigest,
};

use crate::cell::{Lazy, Spawn};
use crate::keys::{
    DefinitionInput, KeyInfo, Pin, ResultInput, definition_key, result_key, source_key,
};

/// A vertex as the solver sees it.
#[derive(Debug)]
pub struct SolveVertex {
    /// Identity inside this process.
    pub digest: VertexDigest,
    /// Op and inputs, as in the definition it came from.
    pub vertex: Arc<Vertex>,
    /// The inputs' identities, parallel to `vertex.inputs`.
    pub inputs: Vec<(VertexDigest, u32)>,
    /// Do not look it up.
    pub ignore_cache: bool,
}

impl SolveVertex {
    /// What to do.
    pub fn op(&self) -> &Op {
        &self.vertex.op
    }
}

/// Attribute of a failure of kind `Gone`: the number of the input whose data is gone.
pub const GONE_INPUT: &str = "gone-input";

/// What the solver needs from the world. One worker serves all builds of a process.
#[async_trait]
pub trait Worker: Send + Sync + 'static {
    /// All outputs of a solved vertex: a cheap, lazy handle.
    type Outputs: Clone + Send + Sync + 'static;

    /// Fixes a source.
    async fn pin(&self, vertex: &SolveVertex) -> Result<Pin, Failure>;

    /// Digest of exactly what `vertex` reads of its input number `input`, whose result is `output`
    /// (with the output's index). All of it, if the op does not read by content.
    async fn content_digest(
        &self,
        vertex: &SolveVertex,
        input: usize,
        output: (&Self::Outputs, u32),
    ) -> Result<ContentDigest, Failure>;

    /// Identity of one output by content.
    async fn result_id(&self, output: (&Self::Outputs, u32)) -> Result<ResultId, Failure>;

    /// A stored result by key.
    async fn lookup(
        &self,
        vertex: &SolveVertex,
        key: CacheKey,
    ) -> Result<Option<Self::Outputs>, Failure>;

    /// A further key of a stored result.
    async fn alias(&self, outputs: &Self::Outputs, key: CacheKey) -> Result<(), Failure>;

    /// Does the work. Dropping the future must end it without a trace.
    ///
    /// Fails with `Gone` when an input that was found turns out to have lost its data; the attribute
    /// [`GONE_INPUT`] says which one. Without it, all inputs that were found are made anew.
    async fn run(
        &self,
        vertex: &SolveVertex,
        inputs: Vec<(Self::Outputs, u32)>,
    ) -> Result<Self::Outputs, Failure>;

    /// Stores a result under its keys.
    async fn save(
        &self,
        vertex: &SolveVertex,
        keys: Vec<CacheKey>,
        outputs: &Self::Outputs,
    ) -> Result<(), Failure>;

    /// Drops the stored result, whose data turned out to be gone.
    async fn forget(&self, outputs: &Self::Outputs) -> Result<(), Failure>;

    /// Is told that a vertex was looked up and found; before the observer is.
    fn found(&self, _vertex: &SolveVertex, _by: FoundBy, _outputs: &Self::Outputs) {}

    /// Is told that a vertex is about to run; after the observer is.
    async fn missed(&self, _vertex: &SolveVertex, _miss: Miss<'_, Self::Outputs>) {}
}

/// The key that led to a stored result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// The definition key: nothing below was needed.
    Definition(CacheKey),
    /// The result key: what is below was solved, and is what it was.
    Result(CacheKey),
}

/// What a vertex was looked for by, in vain, and what that was made of.
#[derive(Debug)]
pub struct Miss<'a, O> {
    /// Definition key, and result key if there are inputs.
    pub keys: &'a [CacheKey],
    /// Results of the inputs.
    pub inputs: &'a [O],
    /// What each input contributed to the result key.
    pub parts: &'a [ResultInput],
}

/// What happens to a vertex.
#[derive(Clone, Debug, PartialEq)]
pub enum VertexEvent {
    /// Its op runs.
    Started,
    /// It was found, or something above it was.
    Cached,
    /// Its op ran.
    Done,
    /// Its op failed.
    Failed(Failure),
    /// Its op was given up.
    Cancelled,
}

/// Is told what happens.
pub trait Observer: Send + Sync + 'static {
    /// Called from any thread, by one at a time. Of each vertex: it is found, or its op starts and
    /// ends, or it fails before its op starts; and any of that again if it turns out to be needed
    /// after all. Must neither block nor call the solver.
    fn vertex(&self, vertex: &SolveVertex, event: VertexEvent);
}

/// A vertex's result, and whether it was found: then its data may be gone. What was made here is
/// held.
#[derive(Clone)]
struct Solved<T> {
    outputs: T,
    found: bool,
}

struct Cell<W: Worker> {
    vertex: SolveVertex,
    key: Arc<Lazy<KeyInfo>>,
    result: Arc<Lazy<Solved<W::Outputs>>>,
    /// Forgets the result that was found, once, whoever notices first that it is gone.
    loss: Arc<Lazy<()>>,
    /// It was found and is gone: not to be looked up again.
    anew: AtomicBool,
    /// Outputs that other vertices take as they are: they will ask for the identity of these.
    taken: Mutex<BTreeSet<u32>>,
}

struct Shared<W: Worker> {
    worker: Arc<W>,
    spawn: Arc<dyn Spawn>,
    observer: Arc<dyn Observer>,
    cells: Mutex<HashMap<VertexDigest, Arc<Cell<W>>>>,
    /// What the observer heard last of each vertex, and the order of what it hears.
    told: Mutex<HashMap<VertexDigest, Told>>,
    /// Who runs what by result key.
    running: turns::ByKey<W::Outputs>,
}

#[derive(Clone, Copy, PartialEq)]
enum Told {
    Found,
    Started,
    Ended,
}

/// Shares work between all who ask.
pub struct Solver<W: Worker> {
    shared: Arc<Shared<W>>,
}

impl<W: Worker> Clone for Solver<W> {
    fn clone(&self) -> Self {
        Solver { shared: Arc::clone(&self.shared) }
    }
}

impl<W: Worker> Solver<W> {
    /// A solver without any vertex.
    pub fn new(worker: Arc<W>, spawn: Arc<dyn Spawn>, observer: Arc<dyn Observer>) -> Self {
        let cells = Mutex::new(HashMap::new());
        let told = Mutex::new(HashMap::new());
        Solver {
            shared: Arc::new(Shared {
                worker,
                spawn,
                observer,
                cells,
                told,
                running: turns::ByKey::new(),
            }),
        }
    }

    fn cells(&self) -> MutexGuard<'_, HashMap<VertexDigest, Arc<Cell<W>>>> {
        self.shared.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an edge and all it needs known to the solver; nothing runs yet.
    pub fn load(&self, definition: &mut Definition, edge: Edge) -> (VertexDigest, u32) {
        let mut stack = vec![edge.node];
        let mut taken = Vec::new();
        let mut cells = self.cells();
        while let Some(id) = stack.pop() {
            let digest = definition.digest(id);
            if cells.contains_key(&digest) {
                continue;
            }
            let vertex = Arc::clone(definition.vertex(id));
            let inputs = vertex
                .inputs
                .iter()
                .map(|input| (definition.digest(input.node), input.index))
                .collect();
            let by_content = vertex.op.content_inputs(vertex.inputs.len());
            for (input, by_content) in vertex.inputs.iter().zip(by_content) {
                if !by_content {
                    taken.push((definition.digest(input.node), input.index));
                }
                stack.push(input.node);
            }
            let ignore_cache = definition.ignores_cache(id);
            let cell = Cell {
                vertex: SolveVertex { digest, vertex, inputs, ignore_cache },
                key: Lazy::new(),
                result: Lazy::new(),
                loss: Lazy::new(),
                anew: AtomicBool::new(false),
                taken: Mutex::default(),
            };
            cells.insert(digest, Arc::new(cell));
        }
        for (digest, index) in taken {
            let cell = cells.get(&digest).expect("all inputs were loaded");
            cell.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
        }
        (definition.digest(edge.node), edge.index)
    }

    fn cell(&self, digest: VertexDigest) -> Arc<Cell<W>> {
        Arc::clone(self.cells().get(&digest).expect("a vertex's inputs are loaded before it"))
    }

    /// The result of a loaded vertex.
    ///
    /// # Errors
    ///
    /// The first failure of anything it needs. Dropping the future gives up all work that nobody
    /// else waits for.
    pub async fn solve(&self, vertex: VertexDigest) -> Result<W::Outputs, Failure> {
        let solved = self.result(vertex).await.map_err(|failure| Failure::clone(&failure))?;
        Ok(solved.outputs)
    }

    /// The definition key of a loaded vertex.
    ///
    /// # Errors
    ///
    /// What pinning its sources or reading its local inputs failed with.
    pub async fn key(&self, vertex: VertexDigest) -> Result<KeyInfo, Failure> {
        self.key_of(vertex).await.map_err(|failure| Failure::clone(&failure))
    }

    fn result(
        &self,
        digest: VertexDigest,
    ) -> BoxFuture<'static, Result<Solved<W::Outputs>, Arc<Failure>>> {
        let this = self.clone();
        async move {
            let cell = this.cell(digest);
            let lazy = Arc::clone(&cell.result);
            let spawn = Arc::clone(&this.shared.spawn);
            lazy.get(&*spawn, move || async move { this.compute_result(&cell).await }.boxed()).await
        }
        .boxed()
    }

    fn key_of(&self, digest: VertexDigest) -> BoxFuture<'static, Result<KeyInfo, Arc<Failure>>> {
        let this = self.clone();
        async move {
            let cell = this.cell(digest);
            let lazy = Arc::clone(&cell.key);
            let spawn = Arc::clone(&this.shared.spawn);
            lazy.get(&*spawn, move || async move { this.compute_key(&cell).await }.boxed()).await
        }
        .boxed()
    }

    async fn compute_key(&self, cell: &Cell<W>) -> Result<KeyInfo, Arc<Failure>> {
        let vertex = &cell.vertex;
        if matches!(vertex.op(), Op::Source(_)) {
            let pin = self.shared.worker.pin(vertex).await;
            let pin = pin.map_err(|failure| self.failed(vertex, failure))?;
            let key = match pin {
                Pin::Digest(pin) => Some(source_key(vertex.op(), &pin)),
                Pin::ByContent => None,
            };
            return Ok(KeyInfo { key, stable: !vertex.ignore_cache });
        }
        let keys =
            try_join_all(vertex.inputs.iter().map(|(digest, _)| self.key_of(*digest))).await?;
        let inputs = keys.iter().enumerate().map(|(number, info)| async move {
            match info.key {
                Some(key) => Ok(DefinitionInput::Key(key, vertex.inputs[number].1)),
                None => {
                    let content = self.content(vertex, number).await?;
                    Ok::<_, Arc<Failure>>(DefinitionInput::Content(content))
                }
            }
        });
        let inputs = try_join_all(inputs).await?;
        Ok(KeyInfo {
            key: Some(definition_key(vertex.op(), &inputs)),
            stable: !vertex.ignore_cache && keys.iter().all(|info| info.stable),
        })
    }

    /// What `vertex` reads of a source that is keyed by content.
    async fn content(
        &self,
        vertex: &SolveVertex,
        input: usize,
    ) -> Result<ContentDigest, Arc<Failure>> {
        let (digest, index) = vertex.inputs[input];
        let outputs = self.result(digest).await?.outputs;
        let content = self.shared.worker.content_digest(vertex, input, (&outputs, index)).await;
        content.map_err(|failure| self.failed(vertex, failure))
    }

    /// Forgets a result that was found and is gone, so that the next solve makes it anew. Once,
    /// whoever notices.
    async fn lose(&self, digest: VertexDigest, outputs: &W::Outputs) -> Result<(), Arc<Failure>> {
        let cell = self.cell(digest);
        let loss = Arc::clone(&cell.loss);
        let (worker, outputs) = (Arc::clone(&self.shared.worker), outputs.clone());
        let forget = async move {
            worker.forget(&outputs).await.map_err(Failure::shared)?;
            cell.anew.store(true, Ordering::Release);
            cell.result.reset();
            Ok(())
        };
        loss.get(&*self.shared.spawn, || forget.boxed()).await
    }

    /// Loses those inputs of a vertex that were found and may be gone. Says whether there are any.
    ///
    /// What was made here cannot be made better, unless it is said to be gone by itself: then it may
    /// be made of something that was found, and is made once more.
    async fn lose_inputs(
        &self,
        vertex: &SolveVertex,
        input: Option<usize>,
        inputs: &[Solved<W::Outputs>],
    ) -> Result<bool, Arc<Failure>> {
        let mut any = false;
        for (number, solved) in inputs.iter().enumerate() {
            let digest = vertex.inputs[number].0;
            let may = match input {
                None => solved.found,
                Some(input) => {
                    let again = || self.cell(digest).anew.load(Ordering::Acquire);
                    input == number && (solved.found || !again())
                }
            };
            if may {
                self.lose(digest, &solved.outputs).await?;
                any = true;
            }
        }
        Ok(any)
    }

    async fn compute_result(&self, cell: &Cell<W>) -> Result<Solved<W::Outputs>, Arc<Failure>> {
        let vertex = &cell.vertex;
        let worker = &self.shared.worker;
        let info = self.key_of(vertex.digest).await?;
        let Some(key) = info.key else {
            // A directory of the client's: a handle, nothing to look up or to keep. Its inputs are
            // what has to have happened before.
            try_join_all(vertex.inputs.iter().map(|(digest, _)| self.result(*digest))).await?;
            let outputs = worker.run(vertex, Vec::new()).await;
            let outputs = outputs.map_err(|failure| self.failed(vertex, failure))?;
            return Ok(Solved { outputs, found: false });
        };
        let anew = cell.anew.load(Ordering::Acquire);
        if info.stable && !anew {
            let outputs = worker.lookup(vertex, key).await;
            if let Some(outputs) = outputs.map_err(|failure| self.failed(vertex, failure))? {
                worker.found(vertex, FoundBy::Definition(key), &outputs);
                self.tell_cached(cell);
                return Ok(Solved { outputs, found: true });
            }
        }
        // Each turn but the last loses an input that was found; none is lost twice.
        loop {
            let solved =
                try_join_all(vertex.inputs.iter().map(|(digest, _)| self.result(*digest))).await?;
            let inputs: Vec<_> = solved.iter().map(|input| input.outputs.clone()).collect();
            let Lost { input, failure } = match self.solve_with(vertex, key, anew, &inputs).await {
                Ok(solved) => return Ok(solved),
                Err(lost) => lost,
            };
            if failure.kind != FailureKind::Gone
                || !self.lose_inputs(vertex, input, &solved).await?
            {
                return Err(self.failed(vertex, failure));
            }
        }
    }

    /// Second look-up, then the work itself.
    async fn solve_with(
        &self,
        vertex: &SolveVertex,
        key: CacheKey,
        anew: bool,
        inputs: &[W::Outputs],
    ) -> Result<Solved<W::Outputs>, Lost> {
        let worker = &self.shared.worker;
        let mut keys = vec![key];
        let mut contributed = Vec::new();
        // One that is not to be found, or was made in vain, joins nobody.
        let mut turn = None;
        if !inputs.is_empty() {
            let by_content = vertex.op().content_inputs(inputs.len());
            let parts = inputs.iter().enumerate().map(|(number, outputs)| {
                let by_content = by_content[number];
                async move {
                    let (digest, index) = vertex.inputs[number];
                    let output = (outputs, index);
                    let local = self.cell(digest).key.peek();
                    let local = matches!(local, Some(Ok(KeyInfo { key: None, .. })));
                    if by_content || local {
                        let content = worker.content_digest(vertex, number, output).await;
                        content.map(ResultInput::Content)
                    } else {
                        worker.result_id(output).await.map(ResultInput::Result)
                    }
                    .map_err(|failure| Lost { input: Some(number), failure })
                }
            });
            contributed = try_join_all(parts).await?;
            let result_key = result_key(vertex.op(), &contributed);
            keys.push(result_key);
            if !vertex.ignore_cache && !anew {
                let own = turn.insert(self.shared.running.turn(result_key).await);
                let (outputs, found) = match &**own {
                    Some(made) => (Some(made.clone()), false),
                    None => (worker.lookup(vertex, result_key).await?, true),
                };
                if let Some(outputs) = outputs {
                    worker.alias(&outputs, key).await?;
                    worker.found(vertex, FoundBy::Result(result_key), &outputs);
                    self.tell(vertex, VertexEvent::Cached);
                    return Ok(Solved { outputs, found });
                }
            }
        }
        let edges: Vec<_> =
            inputs.iter().cloned().zip(vertex.inputs.iter().map(|(_, index)| *index)).collect();
        let mut running = Running { solver: self, vertex, ended: false };
        self.tell(vertex, VertexEvent::Started);
        worker.missed(vertex, Miss { keys: &keys, inputs, parts: &contributed }).await;
        let outputs = match worker.run(vertex, edges).await {
            Ok(outputs) => outputs,
            Err(failure) => {
                let input = failure.attrs.get(GONE_INPUT).and_then(|text| text.parse().ok());
                let input = input.filter(|input| *input < inputs.len());
                // Whether it ends as failed is for the caller to say: it may run once more.
                running.ended = failure.kind != FailureKind::Gone;
                return Err(Lost { input, failure });
            }
        };
        if let Err(failure) = self.keep(vertex, keys, &outputs).await {
            running.ended = failure.kind != FailureKind::Gone;
            return Err(failure.into());
        }
        running.ended = true;
        if let Some(turn) = &mut turn {
            **turn = Some(outputs.clone());
        }
        self.tell(vertex, VertexEvent::Done);
        Ok(Solved { outputs, found: false })
    }

    /// Saves what was made; with the identities that will be asked for, so that it is written once.
    async fn keep(
        &self,
        vertex: &SolveVertex,
        keys: Vec<CacheKey>,
        outputs: &W::Outputs,
    ) -> Result<(), Failure> {
        let worker = &self.shared.worker;
        let taken = {
            let cell = self.cell(vertex.digest);
            let taken = cell.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.clone()
        };
        for index in taken {
            worker.result_id((outputs, index)).await?;
        }
        worker.save(vertex, keys, outputs).await
    }

    /// Reports a failure.
    fn failed(&self, vertex: &SolveVertex, failure: Failure) -> Arc<Failure> {
        self.tell(vertex, VertexEvent::Failed(failure.clone()));
        failure.shared()
    }

    fn told(&self) -> MutexGuard<'_, HashMap<VertexDigest, Told>> {
        self.shared.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, vertex: &SolveVertex, event: VertexEvent) {
        let now = match event {
            VertexEvent::Cached => Told::Found,
            VertexEvent::Started => Told::Started,
            VertexEvent::Done | VertexEvent::Failed(_) | VertexEvent::Cancelled => Told::Ended,
        };
        let mut told = self.told();
        if told.insert(vertex.digest, now) != Some(Told::Found) || now != Told::Found {
            self.shared.observer.vertex(vertex, event);
        }
    }

    /// A hit makes all that is below it unneeded: it counts as found, too, unless it has been heard
    /// of. (Then what is below that has been as well.)
    fn tell_cached(&self, cell: &Cell<W>) {
        let mut told = self.told();
        let mut below = Vec::new();
        let mut stack: Vec<_> = cell.vertex.inputs.iter().map(|(digest, _)| *digest).collect();
        while let Some(digest) = stack.pop() {
            if let Entry::Vacant(entry) = told.entry(digest) {
                entry.insert(Told::Found);
                let cell = self.cell(digest);
                stack.extend(cell.vertex.inputs.iter().map(|(digest, _)| *digest));
                below.push(cell);
            }
        }
        for cell in below.iter().rev() {
            self.shared.observer.vertex(&cell.vertex, VertexEvent::Cached);
        }
        drop(told);
        self.tell(&cell.vertex, VertexEvent::Cached);
    }
}

/// A failure, and the input whose result is to blame if its data is gone.
struct Lost {
    input: Option<usize>,
    failure: Failure,
}

impl From<Failure> for Lost {
    fn from(failure: Failure) -> Self {
        Lost { input: None, failure }
    }
}

/// Reports a cancelled run when dropped before its end.
struct Running<'a, W: Worker> {
    solver: &'a Solver<W>,
    vertex: &'a SolveVertex,
    ended: bool,
}

impl<W: Worker> Drop for Running<'_, W> {
    fn drop(&mut self) {
        if !self.ended {
            self.solver.tell(self.vertex, VertexEvent::Cancelled);
        }
    }
}
