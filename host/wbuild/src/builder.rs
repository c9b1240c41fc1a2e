//! A build, put together and carried out.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use wbuild_api::event::{BuildError, BuildReport, Event, EventSink};
use wbuild_api::request::{
    BuildRequest, CacheSpec, ContextSpec, DefaultNetwork, DefinitionSource, Entitlement,
};
use wbuild_api::session::Proxies;
use wbuild_engine::{Engine, EngineOptions, Plugins, Reader};
use wbuild_graph::{Attrs, Failure, Platform, Severity, SourceMap};
use wbuild_plan::Plan;
use wbuild_plugin::PluginKind;
use wbuild_store::Limits;
use wbuild_supply::{
    ConfigFile, Consents, POLICY, PluginRef, PluginStore, Policy, Problem, Project, Supplier,
    SupplierOptions, Unattended,
};

use crate::error::Steps;
use crate::events::{Events, Nobody};
use crate::plugins::{self, FrontendSource, Isolate, Placement};
use crate::session::{
    Credentials, Directory, Lent, LocalSession, NoCredentials, RegistryHosts, SecretPlace,
};
use crate::values::{Built, Context, Output};
use crate::{CACHES, Error, Process, RUNNERS, launcher};

/// The name of the main context.
const MAIN: &str = "context";

/// A build that is being put together. Made by [`Process::builder`].
#[derive(Clone)]
pub struct Builder {
    process: Process,
    state_dir: PathBuf,
    code_dir: Option<PathBuf>,
    plugin_dir: Option<PathBuf>,
    project: Option<PathBuf>,
    policy: Option<PathBuf>,
    isolate: Option<Isolate>,
    locked: bool,
    offline: bool,
    frontend: FrontendSource,
    request: BuildRequest,
    lent: Lent,
    credentials: Arc<dyn Credentials>,
    events: Arc<dyn EventSink>,
    cancel: CancellationToken,
    runtime: Option<String>,
    limits: Limits,
    wait: bool,
    owner: String,
}

impl Builder {
    pub(crate) fn new(process: Process, state_dir: PathBuf) -> Builder {
        let request = BuildRequest {
            definition: DefinitionSource::InContext {
                directory: String::new(),
                names: vec!["Dockerfile".to_owned()],
            },
            options: Attrs::default(),
            targets: Vec::new(),
            platforms: Vec::new(),
            contexts: BTreeMap::from([(MAIN.to_owned(), ContextSpec::Empty)]),
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
        Builder {
            process,
            state_dir,
            code_dir: None,
            plugin_dir: None,
            project: None,
            policy: None,
            isolate: None,
            locked: false,
            offline: false,
            frontend: "dockerfile".into(),
            request,
            lent: Lent::default(),
            credentials: Arc::new(NoCredentials),
            events: Arc::new(Nobody),
            cancel: CancellationToken::new(),
            runtime: None,
            limits: Limits::default(),
            wait: true,
            owner: "a program with wbuild inside".to_owned(),
        }
    }

    // ---- what is built -------------------------------------------------------------------------

    /// What reads the definition: the name of a frontend, its reference (`oci://REGISTRY/NAME:TAG`,
    /// `https://HOST/PATH#sha256:DIGEST`), the path of a component, or what [`native`](crate::native)
    /// gives. Default: `dockerfile`.
    #[must_use]
    pub fn frontend(mut self, frontend: impl Into<FrontendSource>) -> Builder {
        self.frontend = frontend.into();
        self
    }

    /// The definition, as text, and what messages call it.
    #[must_use]
    pub fn definition(mut self, name: impl Into<String>, text: impl Into<Vec<u8>>) -> Builder {
        let (name, data) = (name.into(), text.into());
        self.request.definition = DefinitionSource::Inline { name, data };
        self
    }

    /// The definition, as a file inside the main context. Default: `Dockerfile`.
    #[must_use]
    pub fn definition_file(mut self, path: impl Into<String>) -> Builder {
        let (directory, names) = (String::new(), vec![path.into()]);
        self.request.definition = DefinitionSource::InContext { directory, names };
        self
    }

    /// The main context. Default: none.
    #[must_use]
    pub fn context(self, context: impl Into<Context>) -> Builder {
        self.build_context(MAIN, context)
    }

    /// A further context, or a substitute for an image of that name.
    #[must_use]
    pub fn build_context(
        mut self,
        name: impl Into<String>,
        context: impl Into<Context>,
    ) -> Builder {
        let name = name.into();
        self.lent.directories.remove(&name);
        let spec = match context.into() {
            Context::Directory(path) => {
                let shown = path.display().to_string();
                let path = std::path::absolute(&path).unwrap_or(path);
                let directory = Directory { path: path.clone(), shown };
                self.lent.directories.insert(name.clone(), directory);
                ContextSpec::Local(path)
            }
            Context::Image(reference) => ContextSpec::Image(reference),
            Context::OciLayout(directory, reference) => {
                ContextSpec::OciLayout { directory, reference }
            }
            Context::Git(url) => ContextSpec::Git(url),
            Context::Http(url) => ContextSpec::Http(url),
        };
        self.request.contexts.insert(name, spec);
        self
    }

    /// An option by the name that `docker buildx` has for it; the frontend gets it as it is.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Builder {
        self.request.options.push(name, value);
        self
    }

    /// A build argument.
    #[must_use]
    pub fn arg(self, name: impl AsRef<str>, value: impl Into<String>) -> Builder {
        self.option(format!("build-arg:{}", name.as_ref()), value)
    }

    /// A label of the image.
    #[must_use]
    pub fn label(self, name: impl AsRef<str>, value: impl Into<String>) -> Builder {
        self.option(format!("label:{}", name.as_ref()), value)
    }

    /// What is built; repeats where the frontend can build several.
    #[must_use]
    pub fn target(mut self, target: impl Into<String>) -> Builder {
        self.request.targets.push(target.into());
        self
    }

    /// What it is built for; repeats. Default: this machine.
    #[must_use]
    pub fn platform(mut self, platform: Platform) -> Builder {
        self.request.platforms.push(platform);
        self
    }

    /// A name for the image; repeats.
    #[must_use]
    pub fn tag(mut self, name: impl Into<String>) -> Builder {
        self.request.tags.push(name.into());
        self
    }

    /// Where results go; repeats. Default: they stay in the state directory.
    #[must_use]
    pub fn output(mut self, output: Output) -> Builder {
        self.request.outputs.push(output.0);
        self
    }

    /// Finds out the id of the image also where no output writes one.
    #[must_use]
    pub fn identify(mut self) -> Builder {
        self.request.identify = true;
        self
    }

    /// SOURCE_DATE_EPOCH: seconds since 1970 that all times of the result are clamped to.
    #[must_use]
    pub fn source_date_epoch(mut self, seconds: u64) -> Builder {
        self.request.source_date_epoch = Some(seconds);
        self.arg("SOURCE_DATE_EPOCH", seconds.to_string())
    }

    // ---- what steps get ------------------------------------------------------------------------

    /// A secret that steps may ask for.
    #[must_use]
    pub fn secret(mut self, id: impl Into<String>, value: impl Into<Vec<u8>>) -> Builder {
        self.lent.secrets.insert(id.into(), SecretPlace::Value(value.into()));
        self
    }

    /// A secret in a file, which is read when a step asks for it.
    #[must_use]
    pub fn secret_file(mut self, id: impl Into<String>, path: impl Into<PathBuf>) -> Builder {
        self.lent.secrets.insert(id.into(), SecretPlace::File(path.into()));
        self
    }

    /// The socket of an ssh agent.
    #[must_use]
    pub fn ssh(mut self, id: impl Into<String>, socket: impl Into<PathBuf>) -> Builder {
        self.lent.agents.insert(id.into(), socket.into());
        self
    }

    /// A file with the keys of ssh servers; repeats.
    #[must_use]
    pub fn known_hosts(mut self, path: impl Into<PathBuf>) -> Builder {
        self.lent.known_hosts.push(path.into());
        self
    }

    /// Steps that do not say otherwise have no network.
    #[must_use]
    pub fn without_network(mut self) -> Builder {
        self.request.network = DefaultNetwork::None;
        self
    }

    /// A line of each step's `/etc/hosts`.
    #[must_use]
    pub fn add_host(mut self, name: impl Into<String>, address: impl Into<String>) -> Builder {
        self.request.add_hosts.push((name.into(), address.into()));
        self
    }

    /// A right that the build has beyond what every build may.
    #[must_use]
    pub fn allow(mut self, right: Entitlement) -> Builder {
        self.request.allow.insert(right);
        self
    }

    // ---- registries ----------------------------------------------------------------------------

    /// Finds the credentials of registries, e.g. [`FromDocker`](crate::credentials::FromDocker).
    /// Default: none.
    #[must_use]
    pub fn credentials(mut self, credentials: Arc<dyn Credentials>) -> Builder {
        self.credentials = credentials;
        self
    }

    /// Says how registries are asked: mirrors, authorities, client certificates.
    #[must_use]
    pub fn registries(mut self, hosts: Arc<dyn RegistryHosts>) -> Builder {
        self.lent.registries = Some(hosts);
        self
    }

    /// Proxies for registries, URLs and git over HTTP.
    #[must_use]
    pub fn proxies(mut self, proxies: Proxies) -> Builder {
        self.lent.proxies = proxies;
        self
    }

    /// Tags are asked of the registry, and it is an error if that cannot be reached.
    #[must_use]
    pub fn pull(mut self) -> Builder {
        self.request.pull = true;
        self
    }

    // ---- caches and limits ---------------------------------------------------------------------

    /// Runs steps again, whatever is known of them.
    #[must_use]
    pub fn no_cache(mut self) -> Builder {
        self.request.no_cache = true;
        self.option("no-cache", "")
    }

    /// A cache elsewhere that is asked for results; its backend is a bundled one, or `inline`.
    #[must_use]
    pub fn cache_from(mut self, cache: CacheSpec) -> Builder {
        self.request.cache_from.push(cache);
        self
    }

    /// A cache elsewhere that results are written to.
    #[must_use]
    pub fn cache_to(mut self, cache: CacheSpec) -> Builder {
        self.request.cache_to.push(cache);
        self
    }

    /// Steps that run at once. Default: by the number of processors.
    #[must_use]
    pub fn jobs(mut self, jobs: usize) -> Builder {
        self.request.max_parallelism = Some(jobs.max(1));
        self
    }

    /// What may be kept on the disk.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Builder {
        self.limits = limits;
        self
    }

    /// Where compiled plugins are kept: a directory of this user's own. Default: beside the state
    /// directory, with `.code` behind its name.
    #[must_use]
    pub fn code_dir(mut self, directory: impl Into<PathBuf>) -> Builder {
        self.code_dir = Some(directory.into());
        self
    }

    // ---- plugins -------------------------------------------------------------------------------

    /// Where plugins that were fetched are kept. Default: beside the state directory, with `.plugins`
    /// behind its name.
    #[must_use]
    pub fn plugin_dir(mut self, directory: impl Into<PathBuf>) -> Builder {
        self.plugin_dir = Some(directory.into());
        self
    }

    /// The directory of a project: its `wbuild.toml` names plugins, its `wbuild.lock` pins them, and is
    /// written. Default: none; nothing is pinned.
    #[must_use]
    pub fn project(mut self, directory: impl Into<PathBuf>) -> Builder {
        self.project = Some(directory.into());
        self
    }

    /// A policy for plugins: what they may do, and whose signatures they need. Without one, and for
    /// what it does not say, plugins are granted nothing: nobody is asked.
    #[must_use]
    pub fn policy(mut self, file: impl Into<PathBuf>) -> Builder {
        self.policy = Some(file.into());
        self
    }

    /// Which plugins run in processes of their own. Default: those of registries and servers, and files
    /// that the project names.
    #[must_use]
    pub fn isolate(mut self, which: Isolate) -> Builder {
        self.isolate = Some(which);
        self
    }

    /// Fails where the lock lacks a plugin.
    #[must_use]
    pub fn locked(mut self) -> Builder {
        self.locked = true;
        self
    }

    /// Fetches no plugins: uses those that are here.
    #[must_use]
    pub fn offline(mut self) -> Builder {
        self.offline = true;
        self
    }

    /// The OCI runtime, by name or path. Default: crun, else runc.
    #[must_use]
    pub fn runtime(mut self, runtime: impl Into<String>) -> Builder {
        self.runtime = Some(runtime.into());
        self
    }

    // ---- how it goes ---------------------------------------------------------------------------

    /// Tells `sink` of all that happens.
    #[must_use]
    pub fn event_sink(mut self, sink: Arc<dyn EventSink>) -> Builder {
        self.events = sink;
        self
    }

    /// The builder, and what happens during its build as a stream, which ends when the builder is
    /// dropped: with the build.
    pub fn events(mut self) -> (Builder, Events) {
        let (sender, events) = Events::new();
        self.events = Arc::new(sender);
        (self, events)
    }

    /// Ends the build when the token is cancelled; what is left of it is waited for.
    #[must_use]
    pub fn cancelled_by(mut self, token: CancellationToken) -> Builder {
        self.cancel = token;
        self
    }

    /// Fails if another build has the state directory, in place of waiting for it.
    #[must_use]
    pub fn no_wait(mut self) -> Builder {
        self.wait = false;
        self
    }

    /// What others see who wait for this build.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Builder {
        self.owner = owner.into();
        self
    }

    /// Builds.
    ///
    /// # Errors
    ///
    /// What failed, of kind `Cancelled` if the token was cancelled.
    pub async fn build(self) -> Result<Built, Error> {
        self.process.can_run_steps()?;
        let outputs = self.request.outputs.iter().cloned().map(Output).collect();
        let (prepared, steps) = self.prepare().await?;
        let Prepared { options, request, session, plugins, cancel } = prepared;
        let sink = Arc::clone(&steps) as Arc<dyn EventSink>;
        let work = async {
            let engine = open(options, &sink, &cancel).await?;
            engine.build(request, session, plugins, Arc::clone(&sink), cancel).await
        };
        match work.await {
            Ok(report) => {
                let BuildReport { images, sources, stats } = report;
                let diagnostics = steps.diagnostics();
                Ok(Built { images, outputs, diagnostics, sources, stats })
            }
            Err(error) => Err(Error::of(*error, &steps)),
        }
    }

    /// Builds, on threads of its own, and waits. Not for asynchronous code.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    pub fn build_blocking(self) -> Result<Built, Error> {
        blocking(self.build())
    }

    /// Runs the frontend and builds nothing: says what would be built.
    ///
    /// # Errors
    ///
    /// What the frontend fails with, or a step that it looks at.
    pub async fn plan(self) -> Result<Plan, Error> {
        let (prepared, steps) = self.prepare().await?;
        let Prepared { options, request, session, plugins, cancel } = prepared;
        let sink = Arc::clone(&steps) as Arc<dyn EventSink>;
        let work = async {
            let engine = open(options, &sink, &cancel).await?;
            engine.plan(request, session, plugins, Arc::clone(&sink), cancel).await
        };
        match work.await {
            Ok(planned) => Ok(planned.plan.only_needed()),
            Err(error) => Err(Error::of(*error, &steps)),
        }
    }

    /// Plans, on threads of its own, and waits. Not for asynchronous code.
    ///
    /// # Errors
    ///
    /// As [`Builder::plan`].
    pub fn plan_blocking(self) -> Result<Plan, Error> {
        blocking(self.plan())
    }

    async fn prepare(self) -> Result<(Prepared, Arc<Steps>), Error> {
        let session = Arc::new(LocalSession::new(self.lent.clone(), Arc::clone(&self.credentials)));
        let supplier = Arc::new(self.supplier(&session)?);
        let place = Placement::new(self.isolate);
        let plugins = self.plugins(&supplier, &place);
        let (plugins, notes) = tokio::select! {
            supplied = plugins => supplied?,
            () = self.cancel.cancelled() => return Err(Failure::cancelled().into()),
        };
        let steps = Steps::new(self.events);
        for text in notes {
            let (plugin, severity) = ("wbuild".to_owned(), Severity::Note);
            steps.event(Event::PluginLog { plugin, severity, text });
        }
        let entered = self.process.entered().as_ref().ok();
        let options = EngineOptions {
            state_dir: self.state_dir,
            launcher: launcher(),
            runtime: self.runtime,
            search: self.process.directories().to_vec(),
            user_namespace: entered.and_then(|entered| entered.step_user_namespace()),
            record_aliases: true,
            wait: self.wait,
            owner: self.owner,
            boot_id: None,
            limits: self.limits,
            policies: Vec::new(),
        };
        let (request, cancel) = (self.request, self.cancel);
        Ok((Prepared { options, request, session, plugins, cancel }, steps))
    }

    /// Beside the state directory.
    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.state_dir.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    fn supplier(&self, session: &Arc<LocalSession>) -> Result<Supplier, Problem> {
        let project = self.project.as_deref().map(|directory| {
            let real = std::fs::canonicalize(directory).map_err(|error| {
                let message = format!("cannot find the project {}", directory.display());
                Failure::not_found(message).cause(&error)
            })?;
            Project::around(&real).map(Arc::new)
        });
        let policy = self.policy.clone().map(|file| ConfigFile::named(file, POLICY)).transpose()?;
        let shown = policy.as_ref().map(|file| file.path.display().to_string());
        let private = self.request.allow.contains(&Entitlement::NetworkPrivate);
        let session = Arc::clone(session);
        Supplier::new(SupplierOptions {
            host: plugins::host(self.code_dir.clone().unwrap_or_else(|| self.beside(".code"))),
            project: project.transpose()?,
            policy: policy.as_ref().map(Policy::read).transpose()?.unwrap_or_default(),
            policy_path: shown.unwrap_or_else(|| "the policy that the program gives".to_owned()),
            consents: Consents::default(),
            store: PluginStore::new(
                self.plugin_dir.clone().unwrap_or_else(|| self.beside(".plugins")),
            ),
            fetcher: Box::new(move || {
                plugins::fetcher(Arc::<LocalSession>::clone(&session), private)
            }),
            locked: self.locked,
            offline: self.offline,
        })
    }

    /// The plugins, and what there is to say of them.
    async fn plugins(
        &self,
        supplier: &Arc<Supplier>,
        place: &Placement,
    ) -> Result<(Plugins, Vec<String>), Failure> {
        let mut notes = Vec::new();
        let none = Attrs::default();
        let bundled = async |kind: PluginKind, name: &str| {
            let name = PluginRef::Bundled(name.to_owned());
            let supplied = supplier.supply(kind, &name, &none, &Unattended).await?;
            Ok::<_, Failure>((name, supplied))
        };
        let frontend = self.frontend.load(supplier, place, &mut notes).await?;
        let mut runners = Vec::new();
        for name in RUNNERS {
            let (name, supplied) = bundled(PluginKind::Runner, name).await?;
            runners.push(place.runner(&name, &supplied)?);
        }
        let mut caches = Vec::new();
        for name in CACHES {
            let (name, supplied) = bundled(PluginKind::Cache, name).await?;
            caches.push(place.cache(&name, &supplied)?);
        }
        let mut remotes = BTreeMap::new();
        let elsewhere = self.request.cache_from.iter().chain(&self.request.cache_to);
        for spec in elsewhere.filter(|cache| cache.backend != CacheSpec::INLINE) {
            let (name, supplied) = bundled(PluginKind::Cache, &spec.backend).await?;
            remotes.insert(spec.backend.clone(), place.cache(&name, &supplied)?);
        }
        notes.extend(supplier.save_lock());
        let nested = plugins::callable(supplier, place);
        let frontend = Reader::Frontend(frontend);
        Ok((Plugins { frontend, runners, caches, remotes, nested }, notes))
    }
}

/// All that an engine is asked with.
struct Prepared {
    options: EngineOptions,
    request: BuildRequest,
    session: Arc<LocalSession>,
    plugins: Plugins,
    cancel: CancellationToken,
}

/// Opens the engine, unless the build is cancelled while another one has the state directory.
async fn open(
    options: EngineOptions,
    sink: &Arc<dyn EventSink>,
    cancel: &CancellationToken,
) -> Result<Engine, Box<BuildError>> {
    let alone = |failure| {
        let sources = SourceMap::default();
        Box::new(BuildError { failure, step: None, sources })
    };
    tokio::select! {
        opened = Engine::open(options, Arc::clone(sink)) => opened.map_err(alone),
        () = cancel.cancelled() => Err(alone(Failure::cancelled())),
    }
}

/// Work of the engine that blocks has threads of its own; these only wait and decide.
fn blocking<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::internal("cannot start threads").cause(&error))?;
    let result = runtime.block_on(work);
    // All is cleaned up. What still blocks (waiting for a lock) ends with the process.
    runtime.shutdown_background();
    result
}
