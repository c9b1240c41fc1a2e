//! The same calls over the capabilities of `wbuild_api::extension`, for a frontend that is compiled
//! into a program: a test, or an engine that embeds it. What a call decides (keys, values, limits of
//! one op) is decided by `wbuild_graph::draft`, as for components.

mod nested;

use std::cell::RefCell;
use std::sync::Arc;

pub use nested::nested_build;
use wbuild_api::extension::{
    DefinitionFile, Entry, FilesResult, FrontendHost, ImageInfo, ImageRequest, ImageResult,
    NamedContext, Outcome, ReadDir, SourceInfo, SourceRequest,
};
use wbuild_graph::draft::{self, ExecDraft, FileDraft, LocalDraft};
use wbuild_graph::op::SourceOp;
use wbuild_graph::{Attrs, Diagnostic, Edge, Failure, Op, Platform, Severity, SourceFile, Span};
use wbuild_guest::native::wait;

fn host() -> FrontendHost {
    wbuild_guest::native::host()
}

fn single(op: Result<(Op, Vec<Edge>), Failure>) -> Result<Edge, Failure> {
    let (op, inputs) = op?;
    let outputs = host().graph.insert(op, inputs)?;
    outputs.first().copied().ok_or_else(|| Failure::internal("a node has no output"))
}

fn source_op(op: Result<Op, Failure>) -> Result<Edge, Failure> {
    single(op.map(|op| (op, Vec::new())))
}

// ---- request ------------------------------------------------------------------------------------

/// `request.definition`
pub fn definition() -> Result<DefinitionFile, Failure> {
    host().request.definition()
}

/// `request.opt`
pub fn opt(name: &str) -> Option<String> {
    let name = name.to_owned();
    wait(|host: FrontendHost| async move { host.request.opt(name).await })
}

/// `request.opts`
pub fn opts(prefix: &str) -> Attrs {
    let prefix = prefix.to_owned();
    wait(|host: FrontendHost| async move { host.request.opts(prefix).await })
}

/// `request.targets`
pub fn targets() -> Vec<String> {
    host().request.targets()
}

/// `request.build-platform`
pub fn build_platform() -> Platform {
    host().request.build_platform()
}

/// `request.target-platforms`
pub fn target_platforms() -> Vec<Platform> {
    host().request.target_platforms()
}

/// `request.context`
pub fn context(name: &str, platform: Option<&Platform>) -> Result<Option<NamedContext>, Failure> {
    host().request.context(name.to_owned(), platform.cloned())
}

/// `request.context-names`
pub fn context_names() -> Vec<String> {
    host().request.context_names()
}

/// `request.has-secret`
pub fn has_secret(id: &str) -> bool {
    host().request.has_secret(id.to_owned())
}

/// `request.has-ssh`
pub fn has_ssh(id: &str) -> bool {
    host().request.has_ssh(id.to_owned())
}

/// `request.epoch`
pub fn epoch() -> Option<u64> {
    host().request.epoch()
}

/// `request.supports`
pub fn supports(feature: &str) -> bool {
    host().request.supports(feature.to_owned())
}

// ---- inspect ------------------------------------------------------------------------------------

/// `inspect.resolve-images`
pub fn resolve_images(requests: Vec<ImageRequest>) -> Vec<Result<ImageInfo, Failure>> {
    wait(|host: FrontendHost| async move { host.inspect.resolve_images(requests).await })
}

/// `inspect.resolve-sources`
pub fn resolve_sources(requests: Vec<SourceRequest>) -> Vec<Result<SourceInfo, Failure>> {
    wait(|host: FrontendHost| async move { host.inspect.resolve_sources(requests).await })
}

/// `inspect.read-file`
pub fn read_file(at: Edge, path: &str, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
    let path = path.to_owned();
    wait(|host: FrontendHost| async move { host.inspect.read_file(at, path, offset, length).await })
}

/// `inspect.stat`
pub fn stat(at: Edge, path: &str) -> Result<Option<Entry>, Failure> {
    let path = path.to_owned();
    wait(|host: FrontendHost| async move { host.inspect.stat(at, path).await })
}

/// `inspect.read-dir`
pub fn read_dir(at: Edge, query: ReadDir) -> Result<Vec<Entry>, Failure> {
    wait(|host: FrontendHost| async move { host.inspect.read_dir(at, query).await })
}

/// `inspect.start`
pub fn start(at: &[Edge]) {
    host().inspect.start(at.to_vec());
}

/// `inspect.evaluate`
pub fn evaluate(at: &[Edge]) -> Vec<Result<(), Failure>> {
    let at = at.to_vec();
    wait(|host: FrontendHost| async move { host.inspect.evaluate(at).await })
}

/// `inspect.outcome-of`
pub fn outcome_of(at: Edge) -> Result<Arc<Outcome>, Failure> {
    wait(|host: FrontendHost| async move { host.inspect.outcome_of(at).await })
}

// ---- graph --------------------------------------------------------------------------------------

/// `graph.image`
pub fn image(reference: &str, platform: Option<&Platform>, attrs: Attrs) -> Result<Edge, Failure> {
    let platform = match platform {
        Some(platform) => platform.clone(),
        None => target_platforms().into_iter().next().unwrap_or_else(build_platform),
    };
    source_op(draft::image(reference.to_owned(), platform, attrs))
}

/// `graph.git`
pub fn git(url: &str, reference: &str, attrs: Attrs) -> Result<Edge, Failure> {
    source_op(draft::git(url.to_owned(), reference.to_owned(), attrs))
}

/// `graph.http`
pub fn http(url: &str, checksum: Option<&str>, attrs: Attrs) -> Result<Edge, Failure> {
    source_op(draft::http(url.to_owned(), checksum, attrs))
}

/// `graph.source`
pub fn source(
    identifier: &str,
    platform: Option<&Platform>,
    attrs: Attrs,
) -> Result<Edge, Failure> {
    let (identifier, platform) = (identifier.to_owned(), platform.cloned());
    source_op(Ok(Op::Source(SourceOp::Other { identifier, platform, attrs })))
}

/// A builder: its methods answer nothing, so the first failure is kept until it is used.
#[derive(Debug)]
struct Draft<T>(RefCell<Result<T, Failure>>);

impl<T> Draft<T> {
    fn new(draft: T) -> Self {
        Draft(RefCell::new(Ok(draft)))
    }

    fn edit(&self, change: impl FnOnce(&mut T) -> Result<(), Failure>) {
        let mut slot = self.0.borrow_mut();
        if let Ok(draft) = &mut *slot
            && let Err(failure) = change(draft)
        {
            *slot = Err(failure);
        }
    }

    fn set(&self, change: impl FnOnce(&mut T)) {
        self.edit(|draft| {
            change(draft);
            Ok(())
        });
    }

    fn finish(self) -> Result<T, Failure> {
        self.0.into_inner()
    }
}

/// `graph.local-source`
#[derive(Debug)]
pub struct LocalSource(Draft<LocalDraft>);

#[allow(missing_docs)] // Each is the method of its name.
impl LocalSource {
    pub fn new(name: &str) -> Self {
        LocalSource(Draft::new(LocalDraft::new(name.to_owned())))
    }

    pub fn include(&self, pattern: &str) {
        self.0.set(|local| local.source.include.push(pattern.to_owned()));
    }

    pub fn exclude(&self, pattern: &str, at: Option<Span>) {
        self.0.set(|local| local.exclude(pattern.to_owned(), at));
    }

    pub fn follow(&self, path: &str) {
        self.0.set(|local| local.source.follow.push(path.to_owned()));
    }

    pub fn after(&self, at: Edge) {
        self.0.set(|local| local.after.push(at));
    }
}

/// `graph.local`
pub fn local(spec: LocalSource) -> Result<Edge, Failure> {
    single(spec.0.finish().map(LocalDraft::finish))
}

/// `graph.exec-op`
#[derive(Debug)]
pub struct ExecOp(Draft<ExecDraft>);

#[allow(missing_docs)] // Each is the method of its name.
impl ExecOp {
    pub fn new(args: Vec<String>) -> Self {
        ExecOp(Draft::new(ExecDraft::new(args, build_platform())))
    }

    pub fn env(&self, vars: &[(String, String)]) {
        self.0.set(|draft| draft.op.env.extend_from_slice(vars));
    }

    pub fn volatile_env(&self, vars: &[(String, String)]) {
        self.0.set(|draft| draft.op.volatile_env.extend_from_slice(vars));
    }

    pub fn cwd(&self, path: &str) {
        self.0.set(|draft| draft.op.cwd = path.to_owned());
    }

    pub fn user(&self, user: &str) {
        self.0.set(|draft| draft.op.user = user.to_owned());
    }

    pub fn hostname(&self, name: &str) {
        self.0.set(|draft| draft.op.hostname = name.to_owned());
    }

    pub fn platform(&self, platform: &Platform) {
        self.0.set(|draft| draft.op.platform = platform.clone());
    }

    pub fn network(&self, mode: &str) {
        self.0.edit(|draft| draft.network(mode));
    }

    pub fn security(&self, mode: &str) {
        self.0.edit(|draft| draft.security(mode));
    }

    pub fn add_host(&self, name: &str, address: &str) {
        self.0.set(|draft| draft.op.add_hosts.push((name.to_owned(), address.to_owned())));
    }

    pub fn ulimit(&self, name: &str, soft: i64, hard: i64) {
        self.0.set(|draft| draft.ulimit(name.to_owned(), soft, hard));
    }

    pub fn device(&self, name: &str, required: bool) {
        self.0.set(|draft| draft.op.devices.push((name.to_owned(), required)));
    }

    pub fn resources(&self, limits: Attrs) {
        self.0.edit(|draft| draft.resources(limits));
    }

    pub fn valid_exit_codes(&self, codes: &[i32]) {
        self.0.set(|draft| draft.op.valid_exit_codes = codes.to_vec());
    }

    pub fn capture(&self, limit: u32) {
        self.0.edit(|draft| draft.capture(limit));
    }

    pub fn bind(
        &self,
        target: &str,
        source: Option<Edge>,
        subpath: &str,
        access: &str,
        opts: Attrs,
    ) {
        let (target, subpath) = (target.to_owned(), subpath.to_owned());
        self.0.edit(|draft| draft.bind(target, source, subpath, access, &opts));
    }

    pub fn cache_dir(
        &self,
        target: &str,
        id: &str,
        sharing: &str,
        seed: Option<Edge>,
        opts: Attrs,
    ) {
        let (target, id) = (target.to_owned(), id.to_owned());
        self.0.edit(|draft| draft.cache_dir(target, id, sharing, seed, &opts));
    }

    pub fn tmpfs(&self, target: &str, opts: Attrs) {
        self.0.edit(|draft| draft.tmpfs(target.to_owned(), &opts));
    }

    pub fn secret_file(&self, target: &str, id: &str, required: bool, opts: Attrs) {
        let (target, id) = (target.to_owned(), id.to_owned());
        self.0.edit(|draft| draft.secret_file(target, id, required, &opts));
    }

    pub fn secret_env(&self, name: &str, id: &str, required: bool) {
        self.0.set(|draft| draft.secret_env(name.to_owned(), id.to_owned(), required));
    }

    pub fn ssh(&self, target: &str, id: &str, required: bool, opts: Attrs) {
        let (target, id) = (target.to_owned(), id.to_owned());
        self.0.edit(|draft| draft.ssh(target, id, required, &opts));
    }

    pub fn attrs(&self, attrs: Attrs) {
        self.0.edit(|draft| draft.attrs(attrs));
    }
}

/// `graph.exec`
pub fn exec(op: ExecOp) -> Result<Vec<Edge>, Failure> {
    let (op, inputs) = op.0.finish()?.finish();
    host().graph.insert(op, inputs)
}

/// `graph.file-op`
#[derive(Debug)]
pub struct FileOp(Draft<FileDraft>);

#[allow(missing_docs)] // Each is the method of its name.
impl FileOp {
    pub fn new(base: Option<Edge>) -> Self {
        FileOp(Draft::new(FileDraft::new(base)))
    }

    pub fn names_from(&self, at: Edge) {
        self.0.set(|draft| draft.names_from(at));
    }

    pub fn mark(&self, at: Span) {
        self.0.set(|draft| draft.mark = Some(at));
    }

    pub fn copy(&self, source: Edge, paths: &[String], target: &str, opts: Attrs) {
        self.0.edit(|draft| draft.copy(source, paths.to_vec(), target.to_owned(), &opts));
    }

    pub fn write(&self, path: &str, data: &[u8], opts: Attrs) {
        self.0.edit(|draft| draft.write(path.to_owned(), data.to_vec(), &opts));
    }

    pub fn mkdir(&self, path: &str, opts: Attrs) {
        self.0.edit(|draft| draft.mkdir(path.to_owned(), &opts));
    }

    pub fn remove(&self, path: &str, opts: Attrs) {
        self.0.edit(|draft| draft.remove(path.to_owned(), &opts));
    }

    pub fn symlink(&self, path: &str, target: &str, opts: Attrs) {
        self.0.edit(|draft| draft.symlink(path.to_owned(), target.to_owned(), &opts));
    }
}

/// `graph.file`
pub fn file(op: FileOp) -> Result<Edge, Failure> {
    single(op.0.finish().map(FileDraft::finish))
}

/// `graph.merge`
pub fn merge(layers: &[Edge]) -> Result<Edge, Failure> {
    single(draft::merge(layers.to_vec(), &Attrs::default()))
}

/// `graph.diff`
pub fn diff(lower: Option<Edge>, upper: Option<Edge>) -> Result<Edge, Failure> {
    single(draft::diff(lower, upper, &Attrs::default()))
}

/// `graph.annotate`
pub fn annotate(at: Edge, name: &str, spans: &[Span], attrs: Attrs) -> Result<(), Failure> {
    host().graph.annotate(at, draft::annotation(name.to_owned(), spans.to_vec(), &attrs)?)
}

/// `graph.ignore-cache`
pub fn ignore_cache(at: Edge) -> Result<(), Failure> {
    host().graph.ignore_cache(at)
}

/// `graph.same-work`
pub fn same_work(at: Edge, other: Edge) -> Result<bool, Failure> {
    host().graph.same_work(at, other)
}

// ---- diagnostics, results, log ------------------------------------------------------------------

/// `diagnostics.add-source`
pub fn add_source(name: &str, language: &str, text: &[u8]) -> Result<u32, Failure> {
    host().diagnostics.add_source(SourceFile {
        name: name.to_owned(),
        language: language.to_owned(),
        text: text.into(),
    })
}

/// `diagnostics.map-source`
pub fn map_source(ranges: &[(Span, Span)]) -> Result<(), Failure> {
    let diagnostics = host().diagnostics;
    ranges.iter().try_for_each(|(from, to)| diagnostics.map_source(*from, *to))
}

/// `diagnostics.report`
///
/// # Panics
///
/// When more is reported than any build may: it ends a component, too.
pub fn report(diagnostic: Diagnostic) {
    if let Err(failure) = host().diagnostics.report(diagnostic) {
        panic!("{failure}");
    }
}

/// `results.image`
pub fn yield_image(image: ImageResult) -> Result<(), Failure> {
    host().results.image(image)
}

/// `results.files`
pub fn yield_files(files: FilesResult) -> Result<(), Failure> {
    host().results.files(files)
}

/// `results.require`
pub fn require(at: Edge) -> Result<(), Failure> {
    host().results.require(at)
}

/// `results.attest`
pub fn attest(kind: &str, statement: FilesResult) -> Result<(), Failure> {
    host().results.attest(kind.to_owned(), statement)
}

/// `results.effect`
pub fn effect(name: &str, at: Edge) -> Result<(), Failure> {
    host().results.effect(name.to_owned(), at)
}

/// `results.fail-after`
pub fn fail_after(at: Edge) -> Result<(), Failure> {
    host().results.fail_after(at)
}

/// `results.publish`
pub fn publish(names: &[String]) -> Result<(), Failure> {
    let names = names.to_vec();
    wait(|host: FrontendHost| async move { host.results.publish(names).await })
}

/// `log.log`
pub fn log(severity: Severity, text: &str) {
    host().log.log(severity, text.to_owned());
}
