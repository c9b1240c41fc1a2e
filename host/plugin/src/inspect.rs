//! What a plugin is, for people: `wbuild plugin inspect`.

use std::time::{Duration, Instant};

use serde::Serialize;
use wbuild_graph::{Digest, Failure};

use crate::PluginKind;
use crate::guest::Caller;
use crate::host::Plugin;

/// What a plugin is and what it costs.
#[derive(Clone, Debug, Serialize)]
pub struct PluginInfo {
    /// As the user calls it.
    pub name: String,
    /// sha256 of the component.
    pub digest: Digest,
    /// Size of the component in bytes.
    pub size: u64,
    /// Kinds of plugin it is; empty = none that this version knows.
    pub kinds: Vec<PluginKind>,
    /// Whether a frontend answers sub-requests (targets, parameters, checks).
    pub describes: bool,
    /// WIT packages it speaks, with versions.
    pub packages: Vec<(String, String)>,
    /// What it asks for: the whole of what it could ever do.
    pub imports: Vec<String>,
    /// What it offers.
    pub exports: Vec<String>,
    /// The imports in words.
    pub abilities: Vec<&'static str>,
    /// Its own words about itself; grants nothing.
    pub manifest: Option<serde_json::Value>,
    /// Why it cannot be used, if it cannot.
    pub refusal: Option<Failure>,
    /// How long compiling took; none = it was compiled before.
    pub compile_time: Option<Duration>,
    /// Size of the native code in bytes, if it was compiled now.
    pub compiled_size: Option<u64>,
    /// How long loading the compiled code takes; none = it is not kept.
    pub load_time: Option<Duration>,
    /// How long making an instance takes, once it is loaded and linked.
    pub instantiate_time: Option<Duration>,
    /// What was wrong with the code cache, if anything.
    pub code_cache_note: Option<String>,
}

/// Interfaces and what they let a plugin do.
const ABILITIES: [(&str, &str); 13] = [
    ("wbuild:types/log", "write messages for the user"),
    ("wbuild:frontend/graph", "describe what is to be built"),
    ("wbuild:frontend/inspect", "look up images and read files of the build's own results"),
    ("wbuild:frontend/request", "read the build definition and the options of this invocation"),
    ("wbuild:frontend/diagnostics", "report diagnostics"),
    ("wbuild:frontend/results", "say what the build yields"),
    ("wbuild:frontend/nested", "call other frontends"),
    ("wbuild:runner/machine", "see what this machine can run, and granted tools"),
    ("wbuild:runner/plan", "propose how a process is launched, within policy"),
    ("wbuild:cache/kv", "keep small values in buckets of its own"),
    ("wbuild:cache/blobs", "read and write blobs of the content store"),
    ("wbuild:cache/repository", "pull from and push to a granted repository or image layout"),
    ("wbuild:cache/http", "talk to granted servers"),
];

impl PluginInfo {
    /// As what it can be used, if it can.
    pub fn usable(&self) -> Option<PluginKind> {
        self.kinds.first().copied().filter(|_| self.refusal.is_none())
    }
}

impl Plugin {
    /// Looks at the plugin: what its border says, compiles it if need be, and measures.
    ///
    /// # Errors
    ///
    /// When the component is invalid or too large. A component that cannot be used here for another
    /// reason is described, with [`PluginInfo::refusal`].
    pub async fn inspect(&self) -> Result<PluginInfo, Failure> {
        let inner = &self.inner;
        let mut info = self.border();
        let Some(kind) = info.usable() else { return Ok(info) };
        inner.component().await?;
        self.was_compiled(&mut info);
        info.load_time = inner.reload()?;
        match self.starts(kind, 3).await {
            Ok(times) => info.instantiate_time = times.into_iter().min(),
            Err(failure) => info.refusal = Some(failure),
        }
        Ok(info)
    }

    /// How its code came about, if that happened now.
    pub fn was_compiled(&self, info: &mut PluginInfo) {
        let compiled = self.inner.compiled();
        info.compile_time = compiled.time;
        info.compiled_size = compiled.size;
        info.code_cache_note = compiled.note;
    }

    /// What its border says, and whether it can be used here. Compiles and runs nothing.
    pub fn border(&self) -> PluginInfo {
        let inner = &self.inner;
        let outline = inner.outline();
        let kinds = outline.kinds();
        let mut info = PluginInfo {
            name: inner.name().to_owned(),
            digest: inner.digest(),
            size: inner.size() as u64,
            describes: outline.describes(),
            packages: outline.packages(),
            imports: outline.imports.clone(),
            exports: outline.exports.clone(),
            abilities: ABILITIES
                .iter()
                .filter(|(path, _)| {
                    outline.imports.iter().any(|name| name.split('@').next() == Some(path))
                })
                .map(|(_, words)| *words)
                .chain(outline.hermetic().then_some("run in the hermetic WASI profile"))
                .collect(),
            manifest: outline.manifest.clone(),
            refusal: None,
            compile_time: None,
            compiled_size: None,
            load_time: None,
            instantiate_time: None,
            code_cache_note: None,
            kinds,
        };
        let Some(kind) = info.kinds.first().copied() else {
            info.refusal = outline.check(PluginKind::Frontend, inner.name(), &self.grants).err();
            return info;
        };
        info.refusal = match kind {
            PluginKind::Frontend => self.frontend().err(),
            PluginKind::Runner => self.runner().err(),
            PluginKind::Cache => self.cache().err(),
        };
        info
    }

    /// How long making each of `count` instances takes, one after the other; for benchmarks and
    /// for processes that measure for another.
    ///
    /// # Errors
    ///
    /// When it is no plugin, or none can be made.
    pub async fn start_times(&self, count: usize) -> Result<Vec<Duration>, Failure> {
        let kinds = self.inner.outline().kinds();
        let kind = kinds.first().ok_or_else(|| Failure::invalid("it is no plugin"))?;
        self.starts(*kind, count).await
    }

    async fn starts(&self, kind: PluginKind, count: usize) -> Result<Vec<Duration>, Failure> {
        let inner = &self.inner;
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let runtime = inner.shared().runtime()?;
            let limits = self.grants.limits(kind, inner.limits(kind));
            let caller = Caller::new(runtime, kind, inner.name(), limits);
            match kind {
                PluginKind::Frontend => {
                    let pre = inner.frontend_pre().await?;
                    let begin = Instant::now();
                    let mut store = caller.store(None);
                    caller.instantiate(pre.instantiate_async(&mut store)).await?;
                    times.push(begin.elapsed());
                }
                PluginKind::Runner => {
                    let pre = inner.runner_pre().await?;
                    let begin = Instant::now();
                    let mut store = caller.store(None);
                    caller.instantiate(pre.instantiate_async(&mut store)).await?;
                    times.push(begin.elapsed());
                }
                PluginKind::Cache => {
                    let pre = inner.cache_pre().await?;
                    let begin = Instant::now();
                    let mut store = caller.store(None);
                    caller.instantiate(pre.instantiate_async(&mut store)).await?;
                    times.push(begin.elapsed());
                }
            }
        }
        Ok(times)
    }
}
