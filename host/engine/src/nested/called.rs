//! What a called frontend may see and do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use wbuild_api::extension::{
    DefinitionFile, Entry, FilesResult, GraphCap, ImageInfo, ImageRequest, ImageResult, InspectCap,
    NamedContext, NestedBuild, NestedResult, Outcome, PluginIdentity, ReadDir, RequestCap,
    ResultsCap, SourceInfo, SourceRequest,
};
use wbuild_api::texts::options_of;
use wbuild_api::yielded::{Yielded, check_config};
use wbuild_graph::op::SourceOp;
use wbuild_graph::{Attrs, Edge, Failure, FailureKind, NodeId, NodeMeta, Op, Platform};

use super::Caller;
use super::turns::Ask;
use crate::frontend_host::evaluate_allowed;
use crate::job::Job;
use crate::narrow::Narrowed;

/// Whose a node is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// It made it.
    Own,
    /// It was given it.
    Given,
}

/// One called frontend: capabilities over those of its caller.
pub(super) struct Called {
    job: Arc<Job>,
    caller: Caller,
    request: NestedBuild,
    contexts: BTreeMap<String, NamedContext>,
    platforms: Vec<Platform>,
    /// What the user leaves this one.
    narrowed: Narrowed,
    nodes: Mutex<HashMap<NodeId, Whose>>,
    yielded: Mutex<Yielded>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Called {
    pub(super) fn new(
        job: &Arc<Job>,
        caller: Caller,
        request: NestedBuild,
        identity: &PluginIdentity,
    ) -> Result<Arc<Called>, Failure> {
        let narrowed = Narrowed::new(identity, &job.request().contexts)?;
        let mut nodes = HashMap::new();
        let mut contexts = BTreeMap::new();
        for (name, context) in &request.contexts {
            // Also says whether it is an output of the caller's.
            caller.graph.same_work(context.root, context.root)?;
            narrowed.given(name, &job.definition(), context.root)?;
            nodes.insert(context.root.node, Whose::Given);
            let context = NamedContext {
                kind: "input".to_owned(),
                identifier: name.clone(),
                root: Some(context.root),
                config: context.config.clone(),
                attrs: Attrs::default(),
            };
            contexts.insert(name.clone(), context);
        }
        let platforms = match &request.platforms[..] {
            [] => caller.request.target_platforms(),
            platforms => platforms.to_vec(),
        };
        let (nodes, yielded) = (Mutex::new(nodes), Mutex::default());
        let job = Arc::clone(job);
        Ok(Arc::new(Called { job, caller, request, contexts, platforms, narrowed, nodes, yielded }))
    }

    /// What it has yielded.
    pub(super) fn yielded(&self) -> NestedResult {
        let whole = lock(&self.yielded).whole();
        let images = whole.images.into_iter().flat_map(|image| image.parts).collect();
        NestedResult { images, files: whole.files }
    }

    /// Whose the node of an output is.
    fn whose(&self, at: Edge) -> Result<Whose, Failure> {
        let known = lock(&self.nodes).get(&at.node).copied();
        known.ok_or_else(|| {
            Failure::invalid(format!("there is no node {} in this graph", at.node.0))
        })
    }

    fn own(&self, at: Edge) -> Result<(), Failure> {
        match self.whose(at)? {
            Whose::Own => Ok(()),
            Whose::Given => {
                let message = format!("node {} is another frontend's", at.node.0);
                Err(Failure::new(FailureKind::Denied, message))
            }
        }
    }

    /// Whether a context is one of the caller's that it was given: by its name, or as it is called for
    /// one platform.
    fn handed_on(&self, name: &str) -> bool {
        let name = name.split_once("::").map_or(name, |(name, _)| name);
        self.request.handed_on.iter().any(|handed| handed == name)
    }

    /// The platform of a result.
    fn of(&self, platform: Option<Platform>) -> Platform {
        let first = || self.platforms.first().cloned();
        platform.or_else(first).unwrap_or_else(|| self.caller.request.build_platform())
    }
}

impl GraphCap for Called {
    fn insert(&self, mut op: Op, inputs: Vec<Edge>) -> Result<Vec<Edge>, Failure> {
        if let Op::Source(SourceOp::Local(source)) = &op
            && !self.handed_on(&source.name)
        {
            let message = format!("the directory {:?} was not given to this frontend", source.name);
            return Err(Failure::new(FailureKind::Denied, message)
                .hint("one that is called by another gets its contexts as nodes"));
        }
        self.narrowed.op(&mut op)?;
        inputs.iter().try_for_each(|input| self.whose(*input).map(drop))?;
        let outputs = self.caller.graph.insert(op, inputs)?;
        let made = outputs.iter().map(|edge| (edge.node, Whose::Own));
        lock(&self.nodes).extend(made);
        Ok(outputs)
    }

    fn annotate(&self, at: Edge, mut meta: NodeMeta) -> Result<(), Failure> {
        self.own(at)?;
        meta.spans.extend(&self.request.asked_at);
        self.caller.graph.annotate(at, meta)
    }

    fn ignore_cache(&self, at: Edge) -> Result<(), Failure> {
        self.own(at)?;
        self.caller.graph.ignore_cache(at)
    }

    fn same_work(&self, at: Edge, other: Edge) -> Result<bool, Failure> {
        self.whose(at)?;
        self.whose(other)?;
        self.caller.graph.same_work(at, other)
    }
}

#[async_trait]
impl RequestCap for Called {
    fn definition(&self) -> Result<DefinitionFile, Failure> {
        match &self.request.definition {
            Some((name, data)) => Ok(DefinitionFile {
                name: name.clone(),
                data: data.clone(),
                attrs: Attrs::default(),
            }),
            // The directory that it lies in is the caller's.
            None => {
                Ok(DefinitionFile { attrs: Attrs::default(), ..self.caller.request.definition()? })
            }
        }
    }

    async fn opt(&self, name: String) -> Option<String> {
        self.request.options.get(&name).map(str::to_owned)
    }

    async fn opts(&self, prefix: String) -> Attrs {
        options_of(&self.request.options, &prefix)
    }

    fn targets(&self) -> Vec<String> {
        self.request.targets.clone()
    }

    fn build_platform(&self) -> Platform {
        self.caller.request.build_platform()
    }

    fn target_platforms(&self) -> Vec<Platform> {
        self.platforms.clone()
    }

    fn context(
        &self,
        name: String,
        platform: Option<Platform>,
    ) -> Result<Option<NamedContext>, Failure> {
        let specific = platform.as_ref().map(|platform| format!("{name}::{platform}"));
        let specific = specific.and_then(|specific| self.contexts.get(&specific));
        let given = specific.or_else(|| self.contexts.get(&name)).cloned();
        if given.is_some() || !self.handed_on(&name) {
            return Ok(given);
        }
        let handed = self.caller.request.context(name.clone(), platform)?;
        let root = handed.as_ref().and_then(|context| context.root);
        if let Some(root) = root {
            self.narrowed.given(&name, &self.job.definition(), root)?;
        }
        lock(&self.nodes).extend(root.map(|root| (root.node, Whose::Given)));
        Ok(handed)
    }

    fn context_names(&self) -> Vec<String> {
        let mut names: BTreeSet<String> = self.contexts.keys().cloned().collect();
        if !self.request.handed_on.is_empty() {
            let callers = self.caller.request.context_names().into_iter();
            names.extend(callers.filter(|name| self.handed_on(name)));
        }
        names.into_iter().collect()
    }

    fn has_secret(&self, id: String) -> bool {
        self.caller.request.has_secret(id)
    }

    fn has_ssh(&self, id: String) -> bool {
        self.caller.request.has_ssh(id)
    }

    fn epoch(&self) -> Option<u64> {
        self.caller.request.epoch()
    }

    fn supports(&self, feature: String) -> bool {
        self.caller.request.supports(feature)
    }
}

#[async_trait]
impl ResultsCap for Called {
    fn image(&self, image: ImageResult) -> Result<(), Failure> {
        image.root.iter().try_for_each(|root| self.check_edge(*root))?;
        check_config(&image.config)?;
        let first = self.of(image.platform.clone());
        lock(&self.yielded).add_image(image, &first)
    }

    fn files(&self, files: FilesResult) -> Result<(), Failure> {
        self.check_edge(files.root)?;
        let platform = Some(self.of(files.platform.clone()));
        lock(&self.yielded).add_files(FilesResult { platform, ..files })
    }

    fn require(&self, at: Edge) -> Result<(), Failure> {
        self.whose(at)?;
        self.caller.results.require(at)
    }

    fn attest(&self, kind: String, _: FilesResult) -> Result<(), Failure> {
        Err(only_caller(&format!("attach the attestation {kind:?}")))
    }

    fn effect(&self, name: String, _: Edge) -> Result<(), Failure> {
        Err(only_caller(&format!("run {name:?} for its effect")))
    }

    fn fail_after(&self, _: Edge) -> Result<(), Failure> {
        Err(only_caller("fail a build after its export"))
    }

    async fn publish(&self, _: Vec<String>) -> Result<(), Failure> {
        Err(only_caller("publish results"))
    }
}

impl Called {
    /// That an output is there, and this frontend's to name.
    fn check_edge(&self, at: Edge) -> Result<(), Failure> {
        self.same_work(at, at).map(drop)
    }
}

fn only_caller(what: &str) -> Failure {
    Failure::unsupported(format!("a frontend that another has called cannot {what}"))
}

/// Its questions about results: each ends its turn, if it takes turns with others.
pub(super) struct Looking {
    pub(super) called: Arc<Called>,
    pub(super) turns: Option<Ask>,
}

impl Looking {
    async fn ask<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        question: impl FnOnce(Arc<dyn InspectCap>) -> F,
    ) -> Result<T, Failure> {
        let question = question(Arc::clone(&self.called.caller.inspect));
        match &self.turns {
            Some(turns) => turns.ask(question).await,
            None => Ok(question.await),
        }
    }

    /// Asks for as many answers as there are questions.
    async fn ask_all<T: Clone + Send + 'static, F>(
        &self,
        count: usize,
        question: impl FnOnce(Arc<dyn InspectCap>) -> F,
    ) -> Vec<Result<T, Failure>>
    where
        F: Future<Output = Vec<Result<T, Failure>>> + Send + 'static,
    {
        self.ask(question).await.unwrap_or_else(|failure| vec![Err(failure); count])
    }
}

#[async_trait]
impl InspectCap for Looking {
    async fn resolve_images(&self, requests: Vec<ImageRequest>) -> Vec<Result<ImageInfo, Failure>> {
        let narrowed = &self.called.narrowed;
        let refused: Vec<Option<Failure>> =
            requests.iter().map(|it| narrowed.image(&it.reference, &it.attrs).err()).collect();
        let left = requests.into_iter().zip(&refused).filter(|(_, refused)| refused.is_none());
        let left: Vec<ImageRequest> = left.map(|(request, _)| request).collect();
        let count = left.len();
        let answers =
            self.ask_all(count, |inspect| async move { inspect.resolve_images(left).await }).await;
        let mut answers = answers.into_iter();
        let answer = |refused: Option<Failure>| match refused {
            Some(failure) => Err(failure),
            None => answers.next().unwrap_or_else(|| Err(Failure::internal("no answer"))),
        };
        refused.into_iter().map(answer).collect()
    }

    async fn resolve_sources(
        &self,
        requests: Vec<SourceRequest>,
    ) -> Vec<Result<SourceInfo, Failure>> {
        let count = requests.len();
        self.ask_all(count, |inspect| async move { inspect.resolve_sources(requests).await }).await
    }

    async fn read_file(
        &self,
        at: Edge,
        path: String,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, Failure> {
        self.called.whose(at)?;
        self.ask(|inspect| async move { inspect.read_file(at, path, offset, length).await }).await?
    }

    async fn stat(&self, at: Edge, path: String) -> Result<Option<Entry>, Failure> {
        self.called.whose(at)?;
        self.ask(|inspect| async move { inspect.stat(at, path).await }).await?
    }

    async fn read_dir(&self, at: Edge, query: ReadDir) -> Result<Vec<Entry>, Failure> {
        self.called.whose(at)?;
        self.ask(|inspect| async move { inspect.read_dir(at, query).await }).await?
    }

    fn start(&self, at: Vec<Edge>) {
        let known = at.into_iter().filter(|edge| self.called.whose(*edge).is_ok());
        self.called.caller.inspect.start(known.collect());
    }

    async fn evaluate(&self, at: Vec<Edge>) -> Vec<Result<(), Failure>> {
        let (count, called) = (at.len(), Arc::clone(&self.called));
        let question = |inspect: Arc<dyn InspectCap>| async move {
            evaluate_allowed(&*inspect, at, |edge| called.whose(edge).map(drop)).await
        };
        self.ask_all(count, question).await
    }

    async fn outcome_of(&self, at: Edge) -> Result<Arc<Outcome>, Failure> {
        self.called.whose(at)?;
        self.ask(|inspect| async move { inspect.outcome_of(at).await }).await?
    }
}
