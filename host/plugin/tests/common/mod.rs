//! In-memory capabilities, and the components under test.

#![allow(dead_code, missing_docs)]

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use async_trait::async_trait;
use wbuild_api::extension::*;
use wbuild_graph::{
    Attrs, BlobDigest, Definition, Diagnostic, Digest, Edge, Failure, FailureKind, GraphLimits,
    NodeMeta, Op, Platform, Severity, SourceFile, SourceMap, Span,
};
use wbuild_plugin::{Limits, Plugin, PluginHost, PluginHostOptions};

/// A component made by `cargo xtask guests`.
pub fn dist(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/guests/dist")
        .join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; run `cargo xtask guests` to make it", path.display())
    })
}

/// A component written down as text.
pub fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// The vocabulary as a component imports it.
pub const TYPES: &str = r#"
(import "wbuild:types/types@0.1.0" (instance $types
  (type $attrs' (list (tuple string string)))
  (export "attrs" (type $attrs (eq $attrs')))
  (type $severity' (enum "error" "warning" "note" "help"))
  (export "severity" (type $severity (eq $severity')))
  (type $span' (record (field "source" u32) (field "start" u32) (field "end" u32)))
  (export "span" (type $span (eq $span')))
  (type $label' (record (field "at" $span) (field "text" string) (field "primary" bool)))
  (export "label" (type $label (eq $label')))
  (type $diagnostic' (record (field "severity" $severity) (field "code" (option string))
    (field "message" string) (field "labels" (list $label)) (field "help" (option string))
    (field "url" (option string)) (field "attrs" $attrs)))
  (export "diagnostic" (type $diagnostic (eq $diagnostic')))
  (type $failure' (record (field "kind" string) (field "message" string)
    (field "retryable" bool) (field "diagnostics" (list $diagnostic)) (field "attrs" $attrs)))
  (export "failure" (type $failure (eq $failure')))
))
(alias export $types "failure" (type $failure))
(alias export $types "severity" (type $severity))
"#;

/// A frontend whose core module is `module`; it exports `mem` and `build`, which answers where the
/// result lies. `before` comes before it, `with` are its imports.
pub fn wat_frontend(before: &str, module: &str, with: &str) -> String {
    format!(
        r#"(component {TYPES} {before}
        (core module $m {module})
        (core instance $i (instantiate $m {with}))
        (type $build (func (result (result (error $failure)))))
        (func $f (type $build) (canon lift (core func $i "build") (memory (core memory $i "mem"))))
        (instance $b (export "build" (func $f)))
        (export "wbuild:frontend/build@0.1.0" (instance $b)))"#
    )
}

/// One directory of compiled code for all tests, so that each component is compiled once.
pub fn code_cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-code")
}

pub fn host() -> PluginHost {
    PluginHost::new(PluginHostOptions::new(code_cache()))
}

/// A host whose frontends have other limits.
pub fn frontend_host(change: impl FnOnce(&mut Limits)) -> PluginHost {
    let mut options = PluginHostOptions::new(code_cache());
    change(&mut options.frontend_limits);
    PluginHost::new(options)
}

pub fn load(host: &PluginHost, name: &str) -> Plugin {
    host.load(name, dist(name)).expect("it loads")
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("rt")
}

pub fn run<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}

/// Polls at most `polls` times; `None` = given up, the future was dropped.
pub async fn polls<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Message, causes and hints, as a user sees them.
pub fn render(failure: &Failure) -> String {
    let mut out = failure.message.clone();
    for cause in &failure.causes {
        out += &format!("\n  because: {cause}");
    }
    for hint in &failure.hints {
        out += &format!("\n  hint: {hint}");
    }
    out
}

/// A build in memory: every capability of a frontend, and what it did with them.
pub struct World {
    pub definition: Mutex<Definition>,
    pub sources: Mutex<SourceMap>,
    pub diagnostics: Mutex<Vec<Diagnostic>>,
    pub log: Mutex<Vec<(Severity, String)>>,
    pub results: Mutex<Vec<String>>,
    pub file: Vec<u8>,
    pub options: BTreeMap<String, String>,
    /// Files of every tree.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The config of every image.
    pub config: String,
    /// What execs with `capture` print.
    pub outcome: Arc<Outcome>,
    /// Bytes of each path of a listing, which has as many entries as were asked for; 0 = it is empty.
    pub listed: usize,
    /// How often each question waits before it is answered.
    pub waits: usize,
}

impl World {
    pub fn new(file: &str, options: &[(&str, &str)]) -> Arc<World> {
        World::with(file, options, 0)
    }

    pub fn with(file: &str, options: &[(&str, &str)], waits: usize) -> Arc<World> {
        let limits = GraphLimits { nodes: 1000, edges: 100_000, bytes: 1 << 20 };
        Arc::new(World {
            definition: Mutex::new(Definition::new("test", limits)),
            sources: Mutex::default(),
            diagnostics: Mutex::default(),
            log: Mutex::default(),
            results: Mutex::default(),
            file: file.as_bytes().to_vec(),
            options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            files: BTreeMap::new(),
            config: CONFIG.to_owned(),
            outcome: Arc::new(Outcome { stdout: b"1.2.3\n".to_vec(), ..Outcome::default() }),
            listed: 0,
            waits,
        })
    }

    pub fn host(self: &Arc<World>) -> FrontendHost {
        FrontendHost {
            graph: Arc::clone(self) as _,
            inspect: Arc::clone(self) as _,
            request: Arc::clone(self) as _,
            diagnostics: Arc::clone(self) as _,
            results: Arc::clone(self) as _,
            nested: Arc::clone(self) as _,
            log: Arc::clone(self) as _,
        }
    }

    pub fn dump(&self) -> String {
        wbuild_graph::dump::dump(&self.definition.lock().expect("lock"))
    }

    async fn wait(&self) {
        for _ in 0..self.waits {
            tokio::task::yield_now().await;
        }
    }

    fn check(&self, at: Edge) -> Result<(), Failure> {
        self.definition.lock().expect("lock").check_edge(at)
    }

    fn result(&self, root: Option<Edge>, line: String) -> Result<(), Failure> {
        if let Some(root) = root {
            self.check(root)?;
        }
        self.results.lock().expect("lock").push(line);
        Ok(())
    }
}

impl GraphCap for World {
    fn insert(&self, op: Op, inputs: Vec<Edge>) -> Result<Vec<Edge>, Failure> {
        let outputs = op.outputs();
        let node = self.definition.lock().expect("lock").insert(op, inputs)?;
        Ok((0..outputs).map(|index| Edge { node, index }).collect())
    }

    fn annotate(&self, at: Edge, meta: NodeMeta) -> Result<(), Failure> {
        self.definition.lock().expect("lock").annotate(at.node, meta)
    }

    fn ignore_cache(&self, at: Edge) -> Result<(), Failure> {
        self.definition.lock().expect("lock").ignore_cache(at.node)
    }

    fn same_work(&self, at: Edge, other: Edge) -> Result<bool, Failure> {
        let mut definition = self.definition.lock().expect("lock");
        Ok(definition.digest(at.node) == definition.digest(other.node) && at.index == other.index)
    }
}

const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":[]}}"#;

#[async_trait]
impl InspectCap for World {
    async fn resolve_images(&self, requests: Vec<ImageRequest>) -> Vec<Result<ImageInfo, Failure>> {
        self.wait().await;
        let resolve = |request: ImageRequest| {
            if request.reference.starts_with("missing") {
                return Err(Failure::not_found(format!("no image {}", request.reference))
                    .hint("docker pull knows it?"));
            }
            let manifest = Digest::of(request.reference.as_bytes());
            Ok(ImageInfo {
                reference: format!("registry.test/{}@{manifest}", request.reference),
                manifest,
                platform: request.platform.unwrap_or_else(Platform::host),
                config: self.config.clone(),
                attrs: Attrs::default(),
            })
        };
        requests.into_iter().map(resolve).collect()
    }

    async fn resolve_sources(
        &self,
        requests: Vec<SourceRequest>,
    ) -> Vec<Result<SourceInfo, Failure>> {
        self.wait().await;
        let none = |_| Err(Failure::unsupported("no sources here"));
        requests.into_iter().map(none).collect()
    }

    async fn read_file(
        &self,
        at: Edge,
        path: String,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, Failure> {
        self.wait().await;
        self.check(at)?;
        assert!(length <= 1 << 20, "no read is longer than 1 MiB");
        if path.starts_with("..") {
            let message = format!("{path} leads out of the tree");
            return Err(Failure::new(FailureKind::Denied, message));
        }
        let file = self.files.get(&path);
        let file = file.ok_or_else(|| Failure::not_found(format!("there is no file {path}")))?;
        let rest = file.get(offset as usize..).unwrap_or_default();
        Ok(rest[..rest.len().min(length as usize)].to_vec())
    }

    async fn stat(&self, at: Edge, _path: String) -> Result<Option<Entry>, Failure> {
        self.wait().await;
        self.check(at)?;
        Ok(None)
    }

    async fn read_dir(&self, at: Edge, query: ReadDir) -> Result<Vec<Entry>, Failure> {
        self.wait().await;
        self.check(at)?;
        assert!(query.limit <= 10_000);
        if self.listed == 0 {
            return Ok(Vec::new());
        }
        let entry = |n| Entry {
            path: format!("{n:0>width$}", width = self.listed),
            kind: EntryKind::File,
            size: 0,
            mode: 0o644,
            uid: 0,
            gid: 0,
            link: None,
            attrs: Attrs::default(),
        };
        Ok((0..query.limit).map(entry).collect())
    }

    fn start(&self, _at: Vec<Edge>) {}

    async fn evaluate(&self, at: Vec<Edge>) -> Vec<Result<(), Failure>> {
        self.wait().await;
        at.into_iter().map(|at| self.check(at)).collect()
    }

    async fn outcome_of(&self, at: Edge) -> Result<Arc<Outcome>, Failure> {
        self.wait().await;
        self.check(at)?;
        Ok(Arc::clone(&self.outcome))
    }
}

#[async_trait]
impl RequestCap for World {
    fn definition(&self) -> Result<DefinitionFile, Failure> {
        Ok(DefinitionFile {
            name: "Testfile".to_owned(),
            data: self.file.clone(),
            attrs: Attrs::default(),
        })
    }

    async fn opt(&self, name: String) -> Option<String> {
        self.options.get(&name).cloned()
    }

    async fn opts(&self, prefix: String) -> Attrs {
        let all = self.options.iter();
        let with = all.filter_map(|(k, v)| Some((k.strip_prefix(&prefix)?.to_owned(), v.clone())));
        Attrs(with.collect())
    }

    fn targets(&self) -> Vec<String> {
        Vec::new()
    }

    fn build_platform(&self) -> Platform {
        Platform::new("linux", "amd64", None)
    }

    fn target_platforms(&self) -> Vec<Platform> {
        vec![Platform::new("linux", "amd64", None)]
    }

    fn context(
        &self,
        name: String,
        _platform: Option<Platform>,
    ) -> Result<Option<NamedContext>, Failure> {
        Ok((name == "context").then(|| NamedContext {
            kind: "local".to_owned(),
            identifier: name,
            root: None,
            config: None,
            attrs: Attrs::default(),
        }))
    }

    fn context_names(&self) -> Vec<String> {
        vec!["context".to_owned()]
    }

    fn has_secret(&self, _id: String) -> bool {
        false
    }

    fn has_ssh(&self, _id: String) -> bool {
        false
    }

    fn epoch(&self) -> Option<u64> {
        None
    }

    fn supports(&self, _feature: String) -> bool {
        true
    }
}

impl DiagnosticsCap for World {
    fn add_source(&self, source: SourceFile) -> Result<u32, Failure> {
        Ok(self.sources.lock().expect("lock").add(source))
    }

    fn map_source(&self, _generated: Span, _original: Span) -> Result<(), Failure> {
        Ok(())
    }

    fn report(&self, diagnostic: Diagnostic) -> Result<(), Failure> {
        self.diagnostics.lock().expect("lock").push(diagnostic);
        Ok(())
    }
}

#[async_trait]
impl ResultsCap for World {
    fn image(&self, image: ImageResult) -> Result<(), Failure> {
        serde_json::from_str::<serde_json::Value>(&image.config)
            .map_err(|error| Failure::invalid("the image config is not JSON").cause(&error))?;
        let platform = image.platform.map(|p| p.to_string()).unwrap_or_default();
        self.result(image.root, format!("image {:?} {platform} {}", image.name, image.config))
    }

    fn files(&self, files: FilesResult) -> Result<(), Failure> {
        self.result(Some(files.root), format!("files {:?} {}", files.name, files.path))
    }

    fn require(&self, at: Edge) -> Result<(), Failure> {
        self.result(Some(at), "require".to_owned())
    }

    fn attest(&self, kind: String, statement: FilesResult) -> Result<(), Failure> {
        self.result(Some(statement.root), format!("attest {kind}"))
    }

    fn effect(&self, name: String, at: Edge) -> Result<(), Failure> {
        self.result(Some(at), format!("effect {name}"))
    }

    fn fail_after(&self, at: Edge) -> Result<(), Failure> {
        self.result(Some(at), "fail-after".to_owned())
    }

    async fn publish(&self, names: Vec<String>) -> Result<(), Failure> {
        self.wait().await;
        self.result(None, format!("publish {names:?}"))
    }
}

/// Whatever is asked yields an image on its first context, and that context as files.
#[async_trait]
impl NestedCap for World {
    async fn build(&self, requests: Vec<NestedBuild>) -> Vec<Result<NestedResult, Failure>> {
        self.wait().await;
        let mut answers = Vec::new();
        for request in requests {
            self.results.lock().expect("lock").push(format!("nested {request:?}"));
            if request.frontend == "missing" {
                answers.push(Err(Failure::not_found("there is no such frontend")));
                continue;
            }
            let (_, context) = &request.contexts[0];
            let (name, root) = (request.frontend.clone(), context.root);
            let platform = Some(Platform::new("linux", "arm64", None));
            let attrs = Attrs(vec![("tag".to_owned(), "t".to_owned())]);
            let image = ImageResult {
                name: name.clone(),
                platform: platform.clone(),
                root: Some(root),
                config: self.config.clone(),
                attrs: attrs.clone(),
            };
            let files = FilesResult { name, platform, root, path: "/".to_owned(), attrs };
            answers.push(Ok(NestedResult { images: vec![image], files: vec![files] }));
        }
        answers
    }
}

impl LogCap for World {
    fn log(&self, severity: Severity, text: String) {
        self.log.lock().expect("lock").push((severity, text));
    }
}

/// A machine, and a clamp that refuses what it is told to.
#[derive(Default)]
pub struct Machine {
    pub tools: Vec<Tool>,
    pub log: Mutex<Vec<(Severity, String)>>,
    /// What the clamp was asked.
    pub clamped: Mutex<Vec<(String, Vec<String>)>>,
}

impl Machine {
    pub fn host(self: &Arc<Machine>) -> RunnerHost {
        RunnerHost {
            machine: Arc::clone(self) as _,
            clamp: Arc::clone(self) as _,
            log: Arc::clone(self) as _,
        }
    }
}

impl MachineCap for Machine {
    fn native_platforms(&self) -> Vec<Platform> {
        vec![Platform::new("linux", "amd64", None), Platform::new("linux", "386", None)]
    }

    fn kernel_binfmt(&self, _platform: Platform) -> Option<BinfmtEntry> {
        None
    }

    fn features(&self) -> Attrs {
        Attrs(vec![("personality".to_owned(), "true".to_owned())])
    }

    fn find_tool(&self, name: String) -> Option<Tool> {
        self.tools.iter().find(|tool| tool.name == name).cloned()
    }
}

impl ClampCap for Machine {
    fn clamp(&self, base: String, edited: String, tools: Vec<String>) -> Result<String, Failure> {
        self.clamped.lock().expect("lock").push((edited.clone(), tools));
        let edited: serde_json::Value = serde_json::from_str(&edited)
            .map_err(|error| Failure::invalid("the spec is not JSON").cause(&error))?;
        let base: serde_json::Value = serde_json::from_str(&base).expect("the base spec");
        if edited == base {
            Ok(edited.to_string())
        } else {
            Err(Failure::new(FailureKind::Denied, "the edited spec differs from the base"))
        }
    }
}

impl LogCap for Machine {
    fn log(&self, severity: Severity, text: String) {
        self.log.lock().expect("lock").push((severity, text));
    }
}

pub fn job(hostile: &str) -> Job {
    Job {
        platform: Platform::new("linux", "amd64", None),
        args: vec!["/bin/true".to_owned()],
        env: vec![("HOSTILE".to_owned(), hostile.to_owned())],
        cwd: "/".to_owned(),
        mounts: vec![MountView {
            slot: 0,
            target: "/".to_owned(),
            kind: "bind".to_owned(),
            readonly: false,
            attrs: Attrs::default(),
        }],
        entry_format: vec!["elf:x86_64".to_owned()],
        base_spec: r#"{"ociVersion":"1.2.0","process":{"args":["/bin/true"],"cwd":"/"}}"#
            .to_owned(),
        attrs: Attrs::default(),
    }
}

type Bucket = (String, BTreeMap<Vec<u8>, Vec<u8>>);

/// Buckets and blobs in memory.
#[derive(Default)]
pub struct Storage {
    pub buckets: Mutex<BTreeMap<String, Bucket>>,
    pub blobs: Mutex<BTreeMap<Digest, Vec<u8>>>,
    pub log: Mutex<Vec<(Severity, String)>>,
}

impl Storage {
    pub fn host(self: &Arc<Storage>) -> CacheHost {
        CacheHost {
            kv: Arc::clone(self) as _,
            blobs: Arc::clone(self) as _,
            repository: None,
            http: None,
            log: Arc::clone(self) as _,
        }
    }

    pub fn put(&self, data: &[u8]) -> Digest {
        let digest = Digest::of(data);
        self.blobs.lock().expect("lock").insert(digest, data.to_vec());
        digest
    }
}

impl KvCap for Storage {
    fn open(&self, bucket: String) -> Result<String, Failure> {
        let mut buckets = self.buckets.lock().expect("lock");
        Ok(buckets.entry(bucket).or_insert_with(|| ("1".to_owned(), BTreeMap::new())).0.clone())
    }

    fn get_many(
        &self,
        bucket: String,
        keys: Vec<Vec<u8>>,
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let buckets = self.buckets.lock().expect("lock");
        let pairs = &buckets.get(&bucket).expect("opened before").1;
        Ok(keys.iter().map(|key| pairs.get(key).cloned()).collect())
    }

    fn scan(
        &self,
        bucket: String,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: u32,
    ) -> Result<Vec<KvPair>, Failure> {
        let buckets = self.buckets.lock().expect("lock");
        let pairs = &buckets.get(&bucket).expect("opened before").1;
        let wanted = pairs.iter().filter(|(key, _)| {
            key.starts_with(&prefix) && after.as_ref().is_none_or(|after| *key > after)
        });
        Ok(wanted.take(limit as usize).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn apply(
        &self,
        bucket: String,
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<(), Failure> {
        let mut buckets = self.buckets.lock().expect("lock");
        let pairs = &mut buckets.get_mut(&bucket).expect("opened before").1;
        for (key, value) in changes {
            match value {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        if pairs.len() > 64 {
            return Err(Failure::new(FailureKind::Limit, format!("{bucket} is full")));
        }
        Ok(())
    }

    fn clear(&self, bucket: String) -> Result<(), Failure> {
        self.buckets.lock().expect("lock").get_mut(&bucket).expect("opened before").1.clear();
        Ok(())
    }
}

impl BlobsCap for Storage {
    fn open(&self, digest: Digest) -> Option<BlobInfo> {
        let blobs = self.blobs.lock().expect("lock");
        blobs.get(&digest).map(|data| BlobInfo {
            digest: BlobDigest(digest),
            size: data.len() as u64,
            media_type: "application/octet-stream".to_owned(),
        })
    }

    fn read(&self, digest: Digest, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        let blobs = self.blobs.lock().expect("lock");
        let data = blobs.get(&digest).ok_or_else(|| Failure::not_found("no such blob"))?;
        let rest = data.get(offset as usize..).unwrap_or_default();
        Ok(rest[..rest.len().min(length as usize)].to_vec())
    }

    fn write_small(&self, media_type: String, data: Vec<u8>) -> Result<BlobInfo, Failure> {
        let size = data.len() as u64;
        Ok(BlobInfo { digest: BlobDigest(self.put(&data)), size, media_type })
    }
}

impl LogCap for Storage {
    fn log(&self, severity: Severity, text: String) {
        self.log.lock().expect("lock").push((severity, text));
    }
}
