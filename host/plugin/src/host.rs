//! Plugins: from bytes to something that can be instantiated, each step as late as possible.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use wasmtime::component::{Component, Linker};
use wbuild_api::extension::{CachePlugin, Frontend, PluginIdentity, Runner};
use wbuild_graph::{Digest, Failure, FailureKind};

use crate::code_cache::CodeCache;
use crate::compile::{Compile, Compiled};
use crate::engine::Runtime;
use crate::error::Subject;
use crate::hermetic;
use crate::limits::{Limits, size};
use crate::load::{Grants, Outline};
use crate::state::{Capabilities, GuestState};
use crate::v0_1;
use crate::{PluginKind, WasmCache, WasmFrontend, WasmRunner};

/// How plugins are hosted.
#[derive(Clone, Debug)]
pub struct PluginHostOptions {
    /// Where compiled code is kept. Made with mode 0700 when first used; must be this user's own
    /// and closed to others, else nothing is kept.
    pub code_cache_dir: PathBuf,
    /// What frontends may use.
    pub frontend_limits: Limits,
    /// What runners may use.
    pub runner_limits: Limits,
    /// What cache backends may use.
    pub cache_limits: Limits,
    /// Compiles what does not come with the program; none = it is compiled here, however long it
    /// takes.
    pub compiler: Option<Arc<dyn Compile>>,
}

impl PluginHostOptions {
    /// The default limits and this code cache.
    pub fn new(code_cache_dir: impl Into<PathBuf>) -> Self {
        PluginHostOptions {
            code_cache_dir: code_cache_dir.into(),
            frontend_limits: Limits::of(PluginKind::Frontend),
            runner_limits: Limits::of(PluginKind::Runner),
            cache_limits: Limits::of(PluginKind::Cache),
            compiler: None,
        }
    }

    pub(crate) fn limits(&self, kind: PluginKind) -> Limits {
        match kind {
            PluginKind::Frontend => self.frontend_limits,
            PluginKind::Runner => self.runner_limits,
            PluginKind::Cache => self.cache_limits,
        }
    }
}

/// Where a component comes from.
#[derive(Clone, Debug)]
pub enum PluginSource {
    /// A file.
    Path(PathBuf),
    /// Bytes in memory.
    Bytes(Arc<[u8]>),
    /// Bytes that are part of the program, with their sha256: hashing them at every start would
    /// cost more than loading them.
    Embedded {
        /// The component.
        bytes: &'static [u8],
        /// Its sha256, computed when the program was built.
        digest: Digest,
    },
}

impl From<PathBuf> for PluginSource {
    fn from(path: PathBuf) -> Self {
        PluginSource::Path(path)
    }
}

impl From<&Path> for PluginSource {
    fn from(path: &Path) -> Self {
        PluginSource::Path(path.to_owned())
    }
}

impl From<Arc<[u8]>> for PluginSource {
    fn from(bytes: Arc<[u8]>) -> Self {
        PluginSource::Bytes(bytes)
    }
}

impl From<Vec<u8>> for PluginSource {
    fn from(bytes: Vec<u8>) -> Self {
        PluginSource::Bytes(bytes.into())
    }
}

/// Hosts plugins. Cheap to make: the engine starts with the first component that is needed.
#[derive(Clone)]
pub struct PluginHost {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) options: PluginHostOptions,
    pub(crate) code_cache: CodeCache,
    runtime: OnceLock<Result<Runtime, Failure>>,
    frontend_linker: OnceLock<Result<Linker<v0_1::frontend::State>, Failure>>,
    runner_linker: OnceLock<Result<Linker<v0_1::runner::State>, Failure>>,
    cache_linker: OnceLock<Result<Linker<v0_1::cache::State>, Failure>>,
}

impl Shared {
    pub(crate) fn runtime(&self) -> Result<&Runtime, Failure> {
        self.runtime
            .get_or_init(|| {
                Runtime::new().map_err(|error| {
                    let mut failure = Failure::internal("the WebAssembly engine cannot start");
                    failure.causes = error.chain().map(ToString::to_string).collect();
                    failure
                })
            })
            .as_ref()
            .map_err(Clone::clone)
    }

    fn linker<'a, T: 'static>(
        &self,
        cell: &'a OnceLock<Result<Linker<T>, Failure>>,
        link: impl FnOnce(&mut Linker<T>) -> wasmtime::Result<()>,
    ) -> Result<&'a Linker<T>, Failure> {
        let runtime = self.runtime()?;
        cell.get_or_init(|| {
            let mut linker = Linker::new(runtime.engine());
            link(&mut linker).map_err(|error| Failure::internal(format!("linker: {error:#}")))?;
            Ok(linker)
        })
        .as_ref()
        .map_err(Clone::clone)
    }
}

impl PluginHost {
    /// A host. Touches no file and starts no thread.
    pub fn new(options: PluginHostOptions) -> Self {
        let code_cache = CodeCache::new(options.code_cache_dir.clone());
        PluginHost {
            shared: Arc::new(Shared {
                options,
                code_cache,
                runtime: OnceLock::new(),
                frontend_linker: OnceLock::new(),
                runner_linker: OnceLock::new(),
                cache_linker: OnceLock::new(),
            }),
        }
    }

    /// Reads a component's bytes and what it imports and exports. Compiles nothing. `name` is what
    /// the user calls it: `dockerfile`, `./my.wasm`.
    ///
    /// # Errors
    ///
    /// `NotFound` or `Unavailable` when the file cannot be read, `Invalid` when it is no component,
    /// `Limit` when it is larger than any plugin may be.
    pub fn load(&self, name: &str, source: impl Into<PluginSource>) -> Result<Plugin, Failure> {
        let (bytes, digest) = self.bytes(name, source.into())?;
        let outline = Outline::read(name, bytes.get())?;
        Ok(self.plugin(name, digest, bytes, outline, None))
    }

    /// The same, but the component is looked at where it is compiled: this process reads nothing of it,
    /// unless it comes with the program.
    ///
    /// # Errors
    ///
    /// As of [`PluginHost::load`]; that there is no such place.
    pub async fn load_apart(
        &self,
        name: &str,
        source: impl Into<PluginSource>,
    ) -> Result<Plugin, Failure> {
        let (bytes, digest) = self.bytes(name, source.into())?;
        let outline = match (&self.shared.options.compiler, &bytes) {
            (Some(compiler), Bytes::Shared(component)) => {
                let border = compiler.read(name, Arc::clone(component)).await?;
                border.believed().ok_or_else(|| {
                    let message = format!("cannot look at {name}: what was read of it is too much");
                    Failure::new(FailureKind::Denied, message)
                })?
            }
            _ => Outline::read(name, bytes.get())?,
        };
        Ok(self.plugin(name, digest, bytes, outline, None))
    }

    fn bytes(&self, name: &str, source: PluginSource) -> Result<(Bytes, Digest), Failure> {
        let largest = PluginKind::ALL
            .into_iter()
            .map(|kind| self.shared.options.limits(kind).component_bytes)
            .max()
            .unwrap_or(0);
        let (bytes, known) = match source {
            PluginSource::Path(path) => (Bytes::Shared(read(name, &path, largest)?), None),
            PluginSource::Bytes(bytes) => (Bytes::Shared(bytes), None),
            PluginSource::Embedded { bytes, digest } => (Bytes::Embedded(bytes), Some(digest)),
        };
        if bytes.get().len() > largest {
            return Err(too_large(name, bytes.get().len() as u64, largest));
        }
        let digest = known.unwrap_or_else(|| Digest::of(bytes.get()));
        Ok((bytes, digest))
    }

    pub(crate) fn plugin(
        &self,
        name: &str,
        digest: Digest,
        bytes: Bytes,
        outline: Outline,
        component: Option<Component>,
    ) -> Plugin {
        Plugin {
            inner: Arc::new(Inner {
                shared: Arc::clone(&self.shared),
                name: name.to_owned(),
                digest,
                bytes,
                outline,
                component: OnceCell::new_with(component),
                frontend: OnceCell::new(),
                describe: OnceCell::new(),
                runner: OnceCell::new(),
                cache: OnceCell::new(),
                compiled: Mutex::default(),
            }),
            grants: Grants::default(),
        }
    }

    /// Compiles what is not compiled yet, one after the other. Answers how long each took, `None`
    /// for what was compiled already.
    pub async fn warm(&self, plugins: &[Plugin]) -> Result<Vec<Option<Duration>>, Failure> {
        let mut out = Vec::with_capacity(plugins.len());
        for plugin in plugins {
            plugin.inner.component().await?;
            out.push(plugin.inner.compiled().time);
        }
        Ok(out)
    }

    /// Where compiled code is kept.
    pub fn code_cache_dir(&self) -> &Path {
        self.shared.code_cache.path()
    }
}

fn too_large(name: &str, bytes: u64, limit: usize) -> Failure {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    Failure::new(
        FailureKind::Limit,
        format!("the component {name} is {} large, more than {}", size(bytes), size(limit)),
    )
}

fn read(name: &str, path: &Path, limit: usize) -> Result<Arc<[u8]>, Failure> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => FailureKind::NotFound,
            std::io::ErrorKind::PermissionDenied => FailureKind::Denied,
            _ => FailureKind::Unavailable,
        };
        Failure::new(kind, format!("cannot read the plugin {}", path.display())).cause(&error)
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size > limit as u64 {
        return Err(too_large(name, size, limit));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes.into())
}

pub(crate) enum Bytes {
    Shared(Arc<[u8]>),
    Embedded(&'static [u8]),
}

impl Bytes {
    pub(crate) fn get(&self) -> &[u8] {
        match self {
            Bytes::Shared(bytes) => bytes,
            Bytes::Embedded(bytes) => bytes,
        }
    }
}

/// A component that was read; compiled and linked when it is first run. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    pub(crate) inner: Arc<Inner>,
    pub(crate) grants: Grants,
}

/// A component that may be used as one kind, and how.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    pub(crate) identity: PluginIdentity,
    pub(crate) limits: Limits,
}

pub(crate) struct Inner {
    shared: Arc<Shared>,
    name: String,
    digest: Digest,
    pub(crate) bytes: Bytes,
    outline: Outline,
    pub(crate) component: OnceCell<Component>,
    frontend: OnceCell<v0_1::frontend::bindings::GrantedPre<v0_1::frontend::State>>,
    describe: OnceCell<v0_1::frontend::FrontendDescribePre<v0_1::frontend::State>>,
    runner: OnceCell<v0_1::runner::RunnerPre<v0_1::runner::State>>,
    cache: OnceCell<v0_1::cache::RemoteCachePre<v0_1::cache::State>>,
    pub(crate) compiled: Mutex<Compiled>,
}

impl Plugin {
    /// What the user calls it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// sha256 of the component.
    pub fn digest(&self) -> Digest {
        self.inner.digest
    }

    /// The same plugin with these grants; one that was loaded has none.
    pub fn granted(self, grants: Grants) -> Plugin {
        Plugin { grants, ..self }
    }

    /// The same plugin, which may also call frontends: for a host with none that are real, as that of
    /// a test.
    #[must_use]
    pub fn calling(mut self) -> Plugin {
        self.grants.nested = true;
        self
    }

    /// The component.
    pub fn bytes(&self) -> &[u8] {
        self.inner.bytes.get()
    }

    /// Names of its imports, sorted.
    pub fn imports(&self) -> &[String] {
        &self.inner.outline.imports
    }

    /// Names of its exports, sorted.
    pub fn exports(&self) -> &[String] {
        &self.inner.outline.exports
    }

    /// What it says of itself; nothing follows from it.
    pub fn manifest(&self) -> Option<&serde_json::Value> {
        self.inner.outline.manifest.as_ref()
    }

    /// The kinds of plugin it is; may be several, or none that this version knows.
    pub fn kinds(&self) -> Vec<PluginKind> {
        self.inner.outline.kinds()
    }

    /// The component as a frontend.
    ///
    /// # Errors
    ///
    /// When it is none, or asks for what frontends do not get. Says which.
    pub fn frontend(&self) -> Result<Arc<dyn Frontend>, Failure> {
        Ok(self.measured_frontend()?)
    }

    /// The component as a frontend that says what it used.
    ///
    /// # Errors
    ///
    /// As of [`Plugin::frontend`].
    pub fn measured_frontend(&self) -> Result<Arc<WasmFrontend>, Failure> {
        let admitted = self.inner.admit(PluginKind::Frontend, &self.grants)?;
        Ok(Arc::new(WasmFrontend::new(Arc::clone(&self.inner), admitted)))
    }

    /// The component as a runner.
    ///
    /// # Errors
    ///
    /// When it is none, or asks for what runners do not get. Says which.
    pub fn runner(&self) -> Result<Arc<dyn Runner>, Failure> {
        let admitted = self.inner.admit(PluginKind::Runner, &self.grants)?;
        Ok(Arc::new(WasmRunner::new(Arc::clone(&self.inner), admitted)))
    }

    /// The component as a cache backend.
    ///
    /// # Errors
    ///
    /// When it is none, or asks for what cache backends do not get. Says which.
    pub fn cache(&self) -> Result<Arc<dyn CachePlugin>, Failure> {
        let admitted = self.inner.admit(PluginKind::Cache, &self.grants)?;
        Ok(Arc::new(WasmCache::new(Arc::clone(&self.inner), admitted)))
    }
}

impl Inner {
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn outline(&self) -> &Outline {
        &self.outline
    }

    pub(crate) fn size(&self) -> usize {
        self.bytes.get().len()
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn limits(&self, kind: PluginKind) -> Limits {
        self.shared.options.limits(kind)
    }

    pub(crate) fn compiled(&self) -> Compiled {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Checks that the component is what it is to be used as.
    fn admit(&self, kind: PluginKind, grants: &Grants) -> Result<Admitted, Failure> {
        let wit_version = self.outline.check(kind, &self.name, grants)?;
        let limits = grants.limits(kind, self.limits(kind));
        if self.size() > limits.component_bytes {
            let subject = Subject { kind, name: &self.name, limits: &limits };
            return Err(subject.too_large(self.size()));
        }
        let (name, origin) = (self.name.clone(), grants.origin.clone());
        let (digest, allowed) = (self.digest, grants.allowed.clone());
        let identity = PluginIdentity { name, digest, wit_version, origin, allowed };
        Ok(Admitted { identity, limits })
    }

    /// The linker, with what this component imports of WASI.
    fn with_wasi<'a, C: Capabilities>(
        &self,
        linker: &'a Linker<GuestState<C>>,
        component: &Component,
    ) -> Result<Cow<'a, Linker<GuestState<C>>>, Failure> {
        if !self.outline.hermetic() {
            return Ok(Cow::Borrowed(linker));
        }
        let mut linker = linker.clone();
        let engine = self.shared.runtime()?.engine();
        hermetic::link(&mut linker, engine, component)
            .map_err(|error| Failure::internal(format!("linker of WASI: {error:#}")))?;
        Ok(Cow::Owned(linker))
    }

    fn link_failure(&self, kind: PluginKind) -> impl FnOnce(wasmtime::Error) -> Failure + '_ {
        move |error| {
            let limits = self.limits(kind);
            Subject { kind, name: &self.name, limits: &limits }.link(error)
        }
    }

    pub(crate) async fn frontend_pre(
        self: &Arc<Self>,
    ) -> Result<&v0_1::frontend::bindings::GrantedPre<v0_1::frontend::State>, Failure> {
        self.frontend
            .get_or_try_init(|| async {
                let component = self.component().await?;
                let linker =
                    self.shared.linker(&self.shared.frontend_linker, v0_1::frontend::link)?;
                let linker = self.with_wasi(linker, component)?;
                linker
                    .instantiate_pre(component)
                    .and_then(v0_1::frontend::bindings::GrantedPre::new)
                    .map_err(self.link_failure(PluginKind::Frontend))
            })
            .await
    }

    pub(crate) async fn describe_pre(
        self: &Arc<Self>,
    ) -> Result<&v0_1::frontend::FrontendDescribePre<v0_1::frontend::State>, Failure> {
        self.describe
            .get_or_try_init(|| async {
                let component = self.component().await?;
                let linker =
                    self.shared.linker(&self.shared.frontend_linker, v0_1::frontend::link)?;
                let linker = self.with_wasi(linker, component)?;
                linker
                    .instantiate_pre(component)
                    .and_then(v0_1::frontend::FrontendDescribePre::new)
                    .map_err(self.link_failure(PluginKind::Frontend))
            })
            .await
    }

    pub(crate) async fn runner_pre(
        self: &Arc<Self>,
    ) -> Result<&v0_1::runner::RunnerPre<v0_1::runner::State>, Failure> {
        self.runner
            .get_or_try_init(|| async {
                let component = self.component().await?;
                let linker = self.shared.linker(&self.shared.runner_linker, v0_1::runner::link)?;
                let linker = self.with_wasi(linker, component)?;
                linker
                    .instantiate_pre(component)
                    .and_then(v0_1::runner::RunnerPre::new)
                    .map_err(self.link_failure(PluginKind::Runner))
            })
            .await
    }

    pub(crate) async fn cache_pre(
        self: &Arc<Self>,
    ) -> Result<&v0_1::cache::RemoteCachePre<v0_1::cache::State>, Failure> {
        self.cache
            .get_or_try_init(|| async {
                let component = self.component().await?;
                let linker = self.shared.linker(&self.shared.cache_linker, v0_1::cache::link)?;
                let linker = self.with_wasi(linker, component)?;
                linker
                    .instantiate_pre(component)
                    .and_then(v0_1::cache::RemoteCachePre::new)
                    .map_err(self.link_failure(PluginKind::Cache))
            })
            .await
    }
}
