//! What the tests of the engine share: a state directory, a client and a frontend made of a function.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use wbuild_engine::event::{BuildError, BuildReport, Event, EventSink, StepEnd};
use wbuild_engine::extension::{
    CachePlugin, Frontend, FrontendHost, ImageResult, Origin, PluginIdentity,
};
use wbuild_engine::request::{
    BuildRequest, DefaultNetwork, DefinitionSource, OutputDest, OutputKind, OutputSpec,
};
use wbuild_engine::session::{BuildContext, ClientProcess, ClientSpec, RegistryAuth, Session};
use wbuild_engine::{Engine, EngineOptions, FindFrontend, Plugins, Reader};
use wbuild_graph::op::{
    CopyOpts, EntryOpts, FileAction, FileActionKind, FileOp, LocalSource, SourceOp,
};
use wbuild_graph::{Attrs, Digest, Edge, Failure, NodeMeta, Op};

/// Files are owned by root in layers, which only root can arrange.
pub fn privileged(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let required = std::env::var_os("WBUILD_TEST_REQUIRE").is_some_and(|value| value == "1");
    assert!(!required, "{test} must not be skipped, but needs root");
    eprintln!("skipped: {test}: not root");
    false
}

pub fn identity(name: &str) -> PluginIdentity {
    let (name, digest) = (name.to_owned(), Digest::of(name.as_bytes()));
    PluginIdentity::bundled(&name, digest, "0.1.0")
}

/// A frontend made of a function.
pub struct Native<F> {
    name: String,
    origin: Origin,
    function: F,
}

#[async_trait]
impl<F> Frontend for Native<F>
where
    F: Fn(&FrontendHost) -> Result<(), Failure> + Send + Sync,
{
    fn identity(&self) -> PluginIdentity {
        PluginIdentity { origin: self.origin.clone(), ..identity(&self.name) }
    }

    async fn build(&self, host: FrontendHost) -> Result<(), Failure> {
        (self.function)(&host)
    }
}

/// Is told how often the directory was opened before, and where it is.
pub type OnOpen = Box<dyn Fn(usize, &Path) + Send + Sync>;

/// A directory that does something each time it is opened.
pub struct Directory {
    path: PathBuf,
    opened: AtomicUsize,
    on_open: OnOpen,
}

impl BuildContext for Directory {
    fn identity(&self) -> Option<String> {
        Some(self.path.display().to_string())
    }

    fn display(&self) -> String {
        ".".to_owned()
    }

    fn open(&self) -> Result<OwnedFd, Failure> {
        (self.on_open)(self.opened.fetch_add(1, Ordering::SeqCst), &self.path);
        Ok(std::fs::File::open(&self.path).expect("the context is there").into())
    }
}

#[derive(Default)]
pub struct Client {
    contexts: BTreeMap<String, Arc<Directory>>,
    /// The last argument of each process that was begun.
    pub spawned: Arc<Mutex<Vec<String>>>,
}

/// The exit code of a process that has ended.
struct Ended(i32);

impl ClientProcess for Ended {
    fn wait(&self) -> Result<i32, Failure> {
        Ok(self.0)
    }

    fn kill(&self) {}
}

#[async_trait]
impl Session for Client {
    fn id(&self) -> String {
        "test".to_owned()
    }

    fn context(&self, name: &str) -> Option<Arc<dyn BuildContext>> {
        self.contexts.get(name).map(|context| Arc::clone(context) as Arc<dyn BuildContext>)
    }

    fn spawn(&self, spec: ClientSpec) -> Result<Arc<dyn ClientProcess>, Failure> {
        let directory = self.contexts["context"].path.join(&spec.cwd);
        self.spawned.lock().expect("spawned").extend(spec.args.last().cloned());
        let mut command = std::process::Command::new(&spec.args[0]);
        command.args(&spec.args[1..]).envs(spec.env).current_dir(directory);
        let status = command.stdout(spec.stdout).stderr(spec.stderr).status().expect("it runs");
        Ok(Arc::new(Ended(status.code().expect("an exit code"))))
    }

    fn has_secret(&self, _: &str) -> bool {
        false
    }

    async fn secret(&self, _: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(None)
    }

    fn has_ssh(&self, _: &str) -> bool {
        false
    }

    fn ssh_socket(&self, _: &str) -> Option<PathBuf> {
        None
    }

    async fn known_hosts(&self) -> Result<Vec<u8>, Failure> {
        Ok(Vec::new())
    }

    async fn registry_auth(&self, _: &str) -> Result<Option<RegistryAuth>, Failure> {
        Ok(None)
    }
}

#[derive(Default)]
pub struct Log(pub Mutex<Vec<Event>>);

impl EventSink for Log {
    fn event(&self, event: Event) {
        self.0.lock().expect("log").push(event);
    }
}

impl Log {
    pub fn ends(&self) -> Vec<StepEnd> {
        let log = self.0.lock().expect("log");
        let end = |event: &Event| match event {
            Event::StepEnded { how, .. } => Some(how.clone()),
            _ => None,
        };
        log.iter().filter_map(end).collect()
    }

    pub fn warnings(&self) -> usize {
        let log = self.0.lock().expect("log");
        log.iter().filter(|event| matches!(event, Event::PluginLog { .. })).count()
    }
}

/// A state directory, a context directory, and what the next build is given.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub client: Client,
    pub request: BuildRequest,
    pub caches: Vec<Arc<dyn CachePlugin>>,
    pub remotes: BTreeMap<String, Arc<dyn CachePlugin>>,
    /// What frontends may call.
    pub nested: Arc<dyn FindFrontend>,
    pub record_aliases: bool,
    pub log: Arc<Log>,
}

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::tempdir().expect("directory");
        std::fs::create_dir(dir.path().join("context")).expect("context");
        let inline = DefinitionSource::Inline { name: "test".to_owned(), data: Vec::new() };
        let request = BuildRequest {
            definition: inline,
            options: Attrs::default(),
            targets: Vec::new(),
            platforms: Vec::new(),
            contexts: BTreeMap::new(),
            tags: Vec::new(),
            outputs: Vec::new(),
            identify: false,
            pull: false,
            no_cache: false,
            source_date_epoch: None,
            network: DefaultNetwork::Host,
            add_hosts: Vec::new(),
            allow: Default::default(),
            max_parallelism: None,
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            cache_mounts: BTreeMap::new(),
            explain: false,
            keyed_secrets: Default::default(),
        };
        let mut place = Place {
            dir,
            client: Client::default(),
            request,
            caches: Vec::new(),
            remotes: BTreeMap::new(),
            nested: Arc::new(|name: &str| Err(Failure::not_found(format!("no frontend {name}")))),
            record_aliases: true,
            log: Arc::default(),
        };
        place.context(|_, _| {});
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path("context").join(name), text).expect("file of the context");
    }

    pub fn context(&mut self, on_open: impl Fn(usize, &Path) + Send + Sync + 'static) {
        let context = Directory {
            path: self.path("context"),
            opened: AtomicUsize::new(0),
            on_open: Box::new(on_open),
        };
        self.client.contexts.insert("context".to_owned(), Arc::new(context));
    }

    pub fn output(&mut self, kind: OutputKind, dest: OutputDest, attrs: &[(&str, &str)]) {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let attrs = Attrs(attrs.iter().map(pair).collect());
        self.request.outputs = vec![OutputSpec { kind, dest, attrs }];
    }

    /// Builds with a frontend that was never seen before.
    pub async fn build<F>(&mut self, frontend: F) -> Result<BuildReport, Box<BuildError>>
    where
        F: Fn(&FrontendHost) -> Result<(), Failure> + Send + Sync + 'static,
    {
        static BUILDS: AtomicUsize = AtomicUsize::new(0);
        let name = format!("native {}", BUILDS.fetch_add(1, Ordering::SeqCst));
        self.build_as(name, frontend).await
    }

    /// Builds with a frontend that has an identity of its own.
    pub async fn build_as<F>(
        &mut self,
        name: String,
        frontend: F,
    ) -> Result<BuildReport, Box<BuildError>>
    where
        F: Fn(&FrontendHost) -> Result<(), Failure> + Send + Sync + 'static,
    {
        let frontend = Native { name, origin: Origin::Bundled, function: frontend };
        self.build_with(Arc::new(frontend), CancellationToken::new()).await
    }

    /// Builds with a frontend that comes from elsewhere.
    pub async fn build_from<F>(
        &mut self,
        origin: &str,
        frontend: F,
    ) -> Result<BuildReport, Box<BuildError>>
    where
        F: Fn(&FrontendHost) -> Result<(), Failure> + Send + Sync + 'static,
    {
        let origin = Origin::From(origin.to_owned());
        let frontend = Native { name: "own".to_owned(), origin, function: frontend };
        self.build_with(Arc::new(frontend), CancellationToken::new()).await
    }

    /// Builds with any frontend.
    pub async fn build_with(
        &mut self,
        frontend: Arc<dyn Frontend>,
        cancel: CancellationToken,
    ) -> Result<BuildReport, Box<BuildError>> {
        self.log = Arc::default();
        let log = Arc::clone(&self.log) as Arc<dyn EventSink>;
        let options = EngineOptions {
            state_dir: self.path("state"),
            launcher: (PathBuf::from("/proc/self/exe"), "none".to_owned()),
            runtime: None,
            search: Vec::new(),
            user_namespace: None,
            record_aliases: self.record_aliases,
            wait: true,
            owner: "test".to_owned(),
            boot_id: None,
            limits: Default::default(),
            policies: Vec::new(),
        };
        let engine = Engine::open(options, Arc::clone(&log)).await.expect("opened");
        let plugins = Plugins {
            frontend: Reader::Frontend(frontend),
            runners: Vec::new(),
            caches: self.caches.clone(),
            remotes: self.remotes.clone(),
            nested: Arc::clone(&self.nested),
        };
        let session = Arc::new(std::mem::take(&mut self.client));
        let build = engine.build(
            self.request.clone(),
            Arc::clone(&session) as Arc<dyn Session>,
            plugins,
            log,
            cancel,
        );
        let built = tokio::time::timeout(Duration::from_secs(60), build).await;
        self.client.contexts.clone_from(&session.contexts);
        self.client.spawned = Arc::clone(&session.spawned);
        built.expect("the build does not hang")
    }
}

pub fn local(host: &FrontendHost) -> Edge {
    let source = LocalSource { name: "context".to_owned(), ..LocalSource::default() };
    host.graph.insert(Op::Source(SourceOp::Local(source)), Vec::new()).expect("context")[0]
}

pub fn copy(source: u32, path: &str, target: &str) -> FileAction {
    let opts = CopyOpts { create_dest: true, keep_times: true, ..CopyOpts::default() };
    let (paths, target) = (vec![path.to_owned()], target.to_owned());
    FileAction { mark: None, kind: FileActionKind::Copy { source, paths, target, opts } }
}

pub fn write(path: &str, data: &str) -> FileAction {
    let (path, data, opts) = (path.to_owned(), data.as_bytes().to_vec(), EntryOpts::default());
    FileAction { mark: None, kind: FileActionKind::Write { path, data, opts } }
}

pub fn file(
    host: &FrontendHost,
    base: Option<Edge>,
    from: Option<Edge>,
    action: FileAction,
) -> Edge {
    let inputs: Vec<Edge> = base.into_iter().chain(from).collect();
    let op = FileOp { base: base.map(|_| 0), names_from: None, actions: vec![action] };
    let edge = host.graph.insert(Op::File(op), inputs).expect("file op")[0];
    let meta = NodeMeta { name: "step".to_owned(), ..NodeMeta::default() };
    host.graph.annotate(edge, meta).expect("named");
    edge
}

pub fn yield_image(host: &FrontendHost, root: Edge) -> Result<(), Failure> {
    host.results.image(ImageResult {
        name: String::new(),
        platform: None,
        root: Some(root),
        config: "{}".to_owned(),
        attrs: Attrs::default(),
    })
}

pub fn copy_of_context(host: &FrontendHost) -> Result<(), Failure> {
    let context = local(host);
    yield_image(host, file(host, None, Some(context), copy(0, "/f", "/f")))
}
