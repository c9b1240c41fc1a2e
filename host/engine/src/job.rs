//! One build: what the client asked for, the graph as it grows, the solver over it, and what the
//! frontend has yielded so far.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use wbuild_api::event::Event;
use wbuild_api::extension::{CachePlugin, DefinitionFile, ImageInfo, ImageRequest};
use wbuild_api::nodes::Rights;
use wbuild_api::request::{
    BuildRequest, ContextSpec, DefaultNetwork, DefinitionSource, OutputKind, OutputSpec,
};
use wbuild_api::session::Session;
use wbuild_api::texts::Texts;
use wbuild_api::yielded::Yielded;
use wbuild_graph::op::{Network, SourceOp};
use wbuild_graph::{
    Attrs, CacheKey, Definition, Edge, Failure, GraphLimits, NodeId, Op, Platform, Severity, decode,
};
use wbuild_solver::Solver;
use wbuild_tree::path::RelPath;
use wbuild_tree::root::Root;

use crate::inputs::{self, Inputs, Main};
use crate::inspect::Inspected;
use crate::keyed_secrets::KeyedSecrets;
use crate::narrow::Narrowed;
use crate::nested::{Callee, FindFrontend};
use crate::plan::{self, Planning};
use crate::solved::Solved;
use crate::source::local::MAIN_CONTEXT;
use crate::steps::Steps;
use crate::vcs;
use crate::worker::BuildWorker;

/// Name of the local context that holds the definition file.
const DEFINITION_CONTEXT: &str = "dockerfile";

/// The largest definition file.
pub(crate) const DEFINITION_LIMIT: u64 = 16 << 20;

/// Keys and values of the plugin contract that this host knows beyond the first release's.
const FEATURES: &[&str] = &[];

/// The option that tells frontends whether the client pushes.
const PUSH: &str = "push";

/// Whether an output pushes.
fn pushes(request: &BuildRequest) -> bool {
    let image = |output: &&OutputSpec| output.kind == OutputKind::Image;
    // What is no flag is refused with the output.
    let push = |output: &OutputSpec| decode::flag(&output.attrs, PUSH).unwrap_or(false);
    request.outputs.iter().filter(image).any(push)
}

/// Whether this host knows a feature.
pub(crate) fn supports(feature: &str) -> bool {
    FEATURES.contains(&feature)
}

/// One build.
pub(crate) struct Job {
    request: BuildRequest,
    options: Attrs,
    inputs: OnceLock<Inputs>,
    /// The node that the main context has in the graph as it is now.
    main: Mutex<Option<Edge>>,
    session: Arc<dyn Session>,
    platforms: Vec<Platform>,
    build_platform: Platform,
    definition: Mutex<Definition>,
    texts: Mutex<Texts>,
    yielded: Mutex<Yielded>,
    planning: Mutex<Planning>,
    steps: Arc<Steps>,
    /// Nodes whose steps have their names.
    named: Mutex<HashSet<NodeId>>,
    worker: Arc<BuildWorker>,
    remotes: BTreeMap<String, Arc<dyn CachePlugin>>,
    frontends: Arc<dyn FindFrontend>,
    solver: Solver<BuildWorker>,
    background: Mutex<Background>,
    /// Kept for later builds beside this one.
    saving: Mutex<Vec<JoinHandle<()>>>,
    keyed_secrets: OnceLock<KeyedSecrets>,
    /// Facts of the repository that the main context lies in.
    vcs: tokio::sync::OnceCell<Attrs>,
}

/// Work begun in the background; ends with the build.
#[derive(Default)]
struct Background {
    tasks: JoinSet<()>,
    begun: HashSet<Edge>,
}

/// Ends a job's background work when dropped: also when the build itself is dropped.
pub(crate) struct StopBackground<'a>(pub(crate) &'a Job);

impl Drop for StopBackground<'_> {
    fn drop(&mut self) {
        lock(&self.0.background).tasks.abort_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says what there is to say of them.
#[async_trait]
impl FindFrontend for Job {
    async fn find(&self, name: &str) -> Result<Callee, Failure> {
        let Callee { frontend, notes } = self.frontends.find(name).await?;
        self.note(notes);
        Ok(Callee { frontend, notes: Vec::new() })
    }
}

impl Job {
    pub(crate) fn new(
        request: BuildRequest,
        session: Arc<dyn Session>,
        steps: Arc<Steps>,
        worker: Arc<BuildWorker>,
        (remotes, frontends): (BTreeMap<String, Arc<dyn CachePlugin>>, Arc<dyn FindFrontend>),
        solver: Solver<BuildWorker>,
    ) -> Arc<Job> {
        let build_platform = Platform::host();
        let platforms = match &request.platforms[..] {
            [] => vec![build_platform.clone()],
            wanted => wanted.to_vec(),
        };
        let mut options = request.options.clone();
        if request.no_cache && options.get("no-cache").is_none() {
            options.push("no-cache", "");
        }
        // What is done follows from the outputs, and nobody is told otherwise.
        options.0.retain(|(key, _)| key != PUSH);
        if pushes(&request) {
            options.push(PUSH, "true");
        }
        Arc::new(Job {
            definition: Mutex::new(Definition::new(session.id(), GraphLimits::default())),
            options,
            inputs: OnceLock::new(),
            main: Mutex::default(),
            request,
            session,
            platforms,
            build_platform,
            texts: Mutex::default(),
            yielded: Mutex::default(),
            planning: Mutex::default(),
            steps,
            named: Mutex::default(),
            worker,
            remotes,
            frontends,
            solver,
            background: Mutex::default(),
            saving: Mutex::default(),
            keyed_secrets: OnceLock::new(),
            vcs: tokio::sync::OnceCell::new(),
        })
    }

    pub(crate) fn request(&self) -> &BuildRequest {
        &self.request
    }

    /// Reads the secrets whose values count for keys, before the first step is added.
    pub(crate) async fn settle_secrets(&self) -> Result<(), Failure> {
        let secrets = KeyedSecrets::read(&self.worker, &self.request.keyed_secrets).await?;
        // One build has one set of them.
        let _ = self.keyed_secrets.set(secrets);
        Ok(())
    }

    /// The hashes of these secrets.
    pub(crate) fn keyed_secrets(&self) -> Option<&KeyedSecrets> {
        self.keyed_secrets.get()
    }

    /// Those of the request, and those that the choice of the frontend added.
    pub(crate) fn options(&self) -> Attrs {
        let mut options = self.options.clone();
        options.0.extend(self.inputs.get().into_iter().flat_map(|inputs| inputs.options.0.clone()));
        options
    }

    /// Whether the client pushes, and so wants effects.
    pub(crate) fn pushes(&self) -> bool {
        self.options.get(PUSH).is_some()
    }

    /// One option. What the client gives counts before what is found out.
    pub(crate) async fn option(&self, name: &str) -> Option<String> {
        if let Some(value) = self.options().get(name) {
            return Some(value.to_owned());
        }
        let fact = name.strip_prefix(vcs::PREFIX)?;
        self.vcs().await.get(fact).map(str::to_owned)
    }

    /// Facts of the repository that the main context lies in, by name without `vcs:`.
    pub(crate) async fn vcs(&self) -> &Attrs {
        self.vcs.get_or_init(|| vcs::facts(self)).await
    }

    /// Whether names that the frontend gives its images count.
    pub(crate) fn frontend_names_images(&self) -> bool {
        self.inputs.get().is_some_and(|inputs| inputs.names_images)
    }

    /// What the frontend may use; nothing narrows it before it is settled which one that is.
    pub(crate) fn narrowed(&self) -> Option<&Narrowed> {
        Some(&self.inputs.get()?.narrowed)
    }

    /// Takes what was settled before the frontend runs.
    pub(crate) fn settle_inputs(&self, inputs: Inputs) {
        // One build has one way to its frontend.
        let _ = self.inputs.set(inputs);
    }

    /// The file to build.
    pub(crate) fn definition_file(&self) -> Result<DefinitionFile, Failure> {
        if let Some(settled) = self.inputs.get().and_then(|inputs| inputs.definition.as_ref()) {
            return Ok(settled.clone());
        }
        match &self.request.definition {
            DefinitionSource::Inline { name, data } => Ok(DefinitionFile {
                name: name.clone(),
                data: data.clone(),
                attrs: Attrs::default(),
            }),
            DefinitionSource::File { directory, name } => {
                let root = Root::open(directory, &directory.to_string_lossy())?;
                let data = root.read_file(&RelPath::clean(name)?, DEFINITION_LIMIT)?;
                let mut attrs = Attrs::default();
                attrs.push("path", name.clone());
                attrs.push("context", DEFINITION_CONTEXT);
                Ok(DefinitionFile { name: name.clone(), data, attrs })
            }
            DefinitionSource::InContext { .. } | DefinitionSource::Url(_) => {
                Err(Failure::internal("the definition was not fetched"))
            }
        }
    }

    /// The node of a main context that is no directory, in the graph as it is now.
    pub(crate) fn main_root(&self) -> Result<Option<Edge>, Failure> {
        let Some(Main::Tree(chain)) = self.inputs.get().and_then(|inputs| inputs.main.as_ref())
        else {
            return Ok(None);
        };
        let mut main = lock(&self.main);
        if main.is_none() {
            let mut definition = self.definition();
            let edge = inputs::insert(&mut definition, chain)?;
            // The same whenever the frontend, or a trace of it, asks anew.
            let _ = self.worker.main_context.set(definition.digest(edge.node));
            *main = Some(edge);
        }
        Ok(*main)
    }

    pub(crate) fn session(&self) -> &Arc<dyn Session> {
        &self.session
    }

    pub(crate) fn steps(&self) -> &Arc<Steps> {
        &self.steps
    }

    pub(crate) fn worker(&self) -> &Arc<BuildWorker> {
        &self.worker
    }

    /// What writes a cache elsewhere.
    pub(crate) fn remote(&self, backend: &str) -> Option<&Arc<dyn CachePlugin>> {
        self.remotes.get(backend)
    }

    /// Says something that is no plugin's.
    pub(crate) fn note(&self, notes: Vec<String>) {
        for text in notes {
            let (plugin, severity) = ("wbuild".to_owned(), Severity::Note);
            self.steps.sink().event(Event::PluginLog { plugin, severity, text });
        }
    }

    pub(crate) fn build_platform(&self) -> &Platform {
        &self.build_platform
    }

    pub(crate) fn target_platforms(&self) -> &[Platform] {
        &self.platforms
    }

    pub(crate) fn definition(&self) -> MutexGuard<'_, Definition> {
        lock(&self.definition)
    }

    pub(crate) fn texts(&self) -> MutexGuard<'_, Texts> {
        lock(&self.texts)
    }

    /// Makes what the request says of all processes part of an op, so that it is in the op's keys.
    pub(crate) fn settle(&self, op: &mut Op) {
        let Op::Exec(exec) = op else { return };
        if exec.network == Network::Sandbox && self.request.network == DefaultNetwork::None {
            exec.network = Network::None;
        }
        let more = self.request.add_hosts.iter().filter(|host| !exec.add_hosts.contains(host));
        let more: Vec<_> = more.cloned().collect();
        exec.add_hosts.extend(more);
        if let Some(secrets) = self.keyed_secrets.get() {
            secrets.settle(exec);
        }
    }

    /// Refuses what needs an entitlement nobody gave.
    pub(crate) fn check_granted(&self, op: &Op) -> Result<(), Failure> {
        let main = self.request.contexts.get(MAIN_CONTEXT);
        Rights {
            allow: &self.request.allow,
            network: self.request.network,
            in_directory: matches!(main, Some(ContextSpec::Local(_))),
        }
        .check(op)
    }

    pub(crate) async fn resolve_image(&self, request: ImageRequest) -> Result<ImageInfo, Failure> {
        let platform = request.platform.clone().unwrap_or_else(|| self.platforms[0].clone());
        let images = self.worker.images();
        let info = images.resolve(&request.reference, &platform, &request.attrs).await?;
        self.planning().pin_image(&ImageRequest { platform: Some(platform), ..request }, &info);
        Ok(info)
    }

    /// Solves one output.
    pub(crate) async fn solve(&self, edge: Edge) -> Result<Arc<Solved>, Failure> {
        let (vertex, _) = {
            let mut definition = self.definition();
            definition.check_edge(edge)?;
            self.name_steps(&mut definition, edge);
            self.solver.load(&mut definition, edge)
        };
        self.solver.solve(vertex).await
    }

    /// Forgets a result whose layers are gone, so that it is solved anew.
    pub(crate) async fn forget(&self, edge: Edge, solved: &Arc<Solved>) -> Result<(), Failure> {
        let vertex = self.definition().digest(edge.node);
        self.solver.forget(vertex, solved).await
    }

    /// All that these edges are built on, inputs first: what was solved, or is stored.
    pub(crate) async fn known(
        &self,
        roots: &[Edge],
    ) -> Result<Vec<(CacheKey, Arc<Solved>)>, Failure> {
        let mut seen = HashSet::new();
        let mut vertices = Vec::new();
        {
            let mut definition = self.definition();
            for edge in roots {
                let (vertex, _) = self.solver.load(&mut definition, *edge);
                let below = self.solver.below(vertex).into_iter();
                vertices.extend(below.filter(|vertex| seen.insert(*vertex)));
            }
        }
        let known = vertices.into_iter().map(|vertex| self.solver.known(vertex));
        Ok(try_join_all(known).await?.into_iter().flatten().collect())
    }

    /// Solves one output of a graph that is not the build's.
    pub(crate) async fn solve_in(
        &self,
        definition: &mut Definition,
        edge: Edge,
    ) -> Result<(Arc<Solved>, u32), Failure> {
        self.name_below(definition, edge, &mut HashSet::new());
        let (vertex, index) = self.solver.load(definition, edge);
        Ok((self.solver.solve(vertex).await?, index))
    }

    /// Tells the steps what the nodes below an edge are called, and the worker which of them see
    /// programs of other architectures.
    fn name_steps(&self, definition: &mut Definition, edge: Edge) {
        // What was named before is fixed, with all below it: a frontend may ask for many edges.
        self.name_below(definition, edge, &mut lock(&self.named));
    }

    fn name_below(&self, definition: &mut Definition, edge: Edge, named: &mut HashSet<NodeId>) {
        let mut stack = vec![edge.node];
        let mut new = Vec::new();
        while let Some(id) = stack.pop() {
            if named.insert(id) {
                new.push(id);
                let digest = definition.digest(id);
                let mut meta = definition.meta(id).clone();
                if let Op::Source(SourceOp::Image { reference, .. }) = &definition.vertex(id).op
                    && meta.name.is_empty()
                {
                    meta.name = format!("FROM {reference}");
                }
                self.steps.name(digest, &meta);
                stack.extend(definition.vertex(id).inputs.iter().map(|input| input.node));
            }
        }
        self.worker.foreign.note(definition, new);
    }

    /// Begins solving in the background; its failure shows when somebody needs the result.
    pub(crate) fn start(self: &Arc<Self>, edge: Edge) {
        let mut background = lock(&self.background);
        if background.begun.insert(edge) {
            let job = Arc::clone(self);
            background.tasks.spawn(crate::tracked(async move {
                let _ = job.solve(edge).await;
            }));
        }
    }

    /// Runs something beside the build, which ends with the build if not before.
    pub(crate) fn beside(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        lock(&self.background).tasks.spawn(crate::tracked(task))
    }

    /// Keeps something that a later build may use, beside this one. That it fails is no matter.
    pub(crate) fn save_beside<T: Send + 'static>(
        &self,
        saving: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) {
        let task = crate::tracked(async { saving.await.map(drop).unwrap_or_default() });
        lock(&self.saving).push(tokio::spawn(task));
    }

    /// Waits for what is kept beside the build.
    pub(crate) async fn saved(&self) {
        let saving = std::mem::take(&mut *lock(&self.saving));
        for task in saving {
            // A panic there ended as a failure.
            let _ = task.await;
        }
    }

    /// Ends what was begun in the background.
    pub(crate) async fn stop_background(&self) {
        self.saved().await;
        let mut tasks = std::mem::take(&mut lock(&self.background).tasks);
        tasks.shutdown().await;
    }

    /// Makes an output's files present.
    pub(crate) async fn materialise(&self, solved: &Solved, edge: Edge) -> Result<(), Failure> {
        self.worker.materialise(solved, edge.index).await
    }

    /// An output's files, for looking at.
    pub(crate) async fn tree_of(&self, edge: Edge) -> Result<Inspected, Failure> {
        let solved = self.solve(edge).await?;
        self.worker.inspect(&solved, edge.index).await
    }

    /// What the frontend has yielded so far.
    pub(crate) fn yielded(&self) -> MutexGuard<'_, Yielded> {
        lock(&self.yielded)
    }

    /// What there is to say of the plan besides.
    pub(crate) fn planning(&self) -> MutexGuard<'_, Planning> {
        plan::lock(&self.planning)
    }

    /// Takes back all that a frontend, or a trace of one, has added. What was solved meanwhile is
    /// known by its digest and stays known.
    pub(crate) fn forget_plan(&self) {
        *self.definition() = Definition::new(self.session.id(), GraphLimits::default());
        *self.texts() = Texts::default();
        *lock(&self.main) = None;
        *self.yielded() = Yielded::default();
        self.planning().forget();
        lock(&self.named).clear();
        lock(&self.background).begun.clear();
    }
}
