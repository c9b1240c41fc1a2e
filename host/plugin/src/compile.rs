//! How a component's code comes about: from the code cache, else compiled, here or where it can be
//! ended.

use std::fs::File;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use wasmtime::Engine;
use wasmtime::component::Component;
use wbuild_graph::{Digest, Failure};

use crate::PluginKind;
use crate::code_cache::{Found, entry_key};
use crate::engine::Runtime;
use crate::error::Subject;
use crate::host::{Bytes, Inner, Plugin};
use crate::load::Border;

/// Compiles components where a compiler that takes too long, or is taken over by what it compiles,
/// can be ended.
#[async_trait]
pub trait Compile: std::fmt::Debug + Send + Sync {
    /// Answers what [`Compiler::compile`] makes of `component`. `name` is for messages.
    async fn compile(&self, name: &str, component: Arc<[u8]>) -> Result<Vec<u8>, Failure>;

    /// Answers what [`Border::read`] reads of `component`.
    async fn read(&self, name: &str, component: Arc<[u8]>) -> Result<Border, Failure>;
}

/// The compiler alone: makes code and runs none.
pub struct Compiler(Runtime);

impl Compiler {
    /// A compiler that has its threads.
    ///
    /// # Errors
    ///
    /// When the engine cannot start.
    pub fn new() -> Result<Compiler, Failure> {
        let broken =
            |error| Failure::internal(format!("the WebAssembly compiler cannot start: {error:#}"));
        let compiler = Compiler(Runtime::new().map_err(broken)?);
        // Threads are started by the first component, and this one is ours.
        compiler.compile("nothing", b"\0asm\x0d\0\x01\0")?;
        Ok(compiler)
    }

    /// Code as the code cache keeps it.
    ///
    /// # Errors
    ///
    /// `Invalid` when `component` is none.
    pub fn compile(&self, name: &str, component: &[u8]) -> Result<Vec<u8>, Failure> {
        self.0.engine().precompile_component(component).map_err(|error| {
            let mut failure =
                Failure::invalid(format!("{name} is not a valid WebAssembly component"));
            failure.causes = error.chain().map(ToString::to_string).collect();
            failure.attr("plugin", name)
        })
    }
}

/// How the component's code came about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compiled {
    /// If it was compiled now.
    pub(crate) time: Option<Duration>,
    /// Size of the native code, if known.
    pub(crate) size: Option<u64>,
    /// What was wrong with the code cache, if anything.
    pub(crate) note: Option<String>,
}

impl Plugin {
    /// Whether the compiled code is kept; if not, the first use compiles for a while.
    pub fn is_compiled(&self) -> bool {
        let inner = &self.inner;
        inner.shared().runtime().is_ok_and(|runtime| {
            inner.shared().code_cache.has(&entry_key(runtime.engine(), &inner.digest()))
        })
    }

    /// The file of the code cache that holds the compiled code, open for reading; compiled before if
    /// it is not there. None = the code cache cannot be used here.
    ///
    /// # Errors
    ///
    /// When the component cannot be compiled.
    pub async fn code(&self) -> Result<Option<File>, Failure> {
        let inner = &self.inner;
        let key = entry_key(inner.shared().runtime()?.engine(), &inner.digest());
        let cache = &inner.shared().code_cache;
        if let Ok(Some(file)) = cache.open(&key) {
            return Ok(Some(file));
        }
        inner.compile(&key, None).await?;
        Ok(cache.open(&key).ok().flatten())
    }
}

impl Inner {
    /// The compiled component: from the code cache, else compiled and kept there.
    pub(crate) async fn component(self: &Arc<Self>) -> Result<&Component, Failure> {
        self.component
            .get_or_try_init(|| async {
                let engine = self.shared().runtime()?.engine();
                let key = entry_key(engine, &self.digest());
                let rejected = match self.shared().code_cache.load(engine, &key) {
                    Found::Component(component) => return Ok(component),
                    Found::Nothing => None,
                    Found::Rejected(reason) => Some(reason),
                };
                let code = self.compile(&key, rejected).await?;
                deserialize_bytes(engine, &code).map_err(|error| {
                    let kind = self.first_kind();
                    let limits = self.limits(kind);
                    Subject { kind, name: self.name(), limits: &limits }.invalid(&error)
                })
            })
            .await
    }

    fn first_kind(&self) -> PluginKind {
        self.outline().kinds().first().copied().unwrap_or(PluginKind::Frontend)
    }

    /// Compiles the component and keeps its code.
    async fn compile(
        self: &Arc<Self>,
        key: &Digest,
        rejected: Option<String>,
    ) -> Result<Fresh, Failure> {
        let begin = Instant::now();
        let code = match (&self.shared().options.compiler, &self.bytes) {
            (Some(compiler), Bytes::Shared(bytes)) => {
                compiler.compile(self.name(), Arc::clone(bytes)).await?
            }
            _ => {
                // Compiling takes from tens of milliseconds to seconds of processor time.
                let this = Arc::clone(self);
                tokio::task::spawn_blocking(move || this.compile_here()).await.map_err(
                    |error| Failure::internal(format!("compiling {}", self.name())).cause(&error),
                )??
            }
        };
        let time = begin.elapsed();
        let code = Fresh(code);
        let stored = self.shared().code_cache.store(key, &code);
        *self.compiled.lock().unwrap_or_else(PoisonError::into_inner) = Compiled {
            time: Some(time),
            size: stored.as_ref().ok().copied(),
            note: rejected.or(stored.err()),
        };
        Ok(code)
    }

    fn compile_here(&self) -> Result<Vec<u8>, Failure> {
        let kind = self.first_kind();
        let limits = self.limits(kind);
        let engine = self.shared().runtime()?.engine();
        engine
            .precompile_component(self.bytes.get())
            .map_err(|error| Subject { kind, name: self.name(), limits: &limits }.invalid(&error))
    }

    /// Loads the code anew, to see how long it takes.
    pub(crate) fn reload(&self) -> Result<Option<Duration>, Failure> {
        let engine = self.shared().runtime()?.engine();
        let begin = Instant::now();
        let key = entry_key(engine, &self.digest());
        Ok(match self.shared().code_cache.load(engine, &key) {
            Found::Component(_) => Some(begin.elapsed()),
            Found::Nothing | Found::Rejected(_) => None,
        })
    }
}

/// Makes code of what was compiled just now.
#[allow(unsafe_code)]
fn deserialize_bytes(engine: &Engine, code: &Fresh) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` demands bytes that wasmtime's compiler made, as those of a `Fresh` are:
    // by this process, or by the compiler process that this one has started.
    unsafe { Component::deserialize(engine, &code.0) }
}

/// Code that was compiled just now.
pub(crate) struct Fresh(pub(crate) Vec<u8>);
