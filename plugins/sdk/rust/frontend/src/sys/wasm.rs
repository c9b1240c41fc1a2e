//! The imports of a component.

mod nested;

use std::sync::Arc;

pub use nested::nested_build;
use wbuild_api::extension::{
    DefinitionFile, Entry, EntryKind, ImageInfo, ImageRequest, ImageResult, NamedContext, Outcome,
    ReadDir, SourceInfo, SourceRequest,
};
use wbuild_api::extension::{FilesResult, Parameter, Target};
use wbuild_graph::{Attrs, Diagnostic, Digest, Edge, Failure, NodeId, Platform, Span};
pub use wbuild_guest::wasm::log;
use wbuild_guest::wasm::{answer, diagnostic_out, failure_in, platform_in, platform_out, span_out};
#[doc(hidden)]
pub use wbuild_guest::wasm::{run, wit};

/// Generated: the component ABI is made of raw pointers.
#[allow(unsafe_code, missing_docs, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../../../wit/types", "../../../../wit/frontend"],
        world: "wbuild:frontend/imports",
        with: {
            "wbuild:types/types@0.1.0": wbuild_guest::wasm::wit,
            "wbuild:types/log@0.1.0": wbuild_guest::wasm::wit_log,
        },
        generate_all,
    });
}

/// What [`crate::frontend!`] exports.
#[doc(hidden)]
#[allow(unsafe_code, missing_docs, clippy::all)]
pub mod exports {
    #[doc(hidden)]
    pub mod build {
        wit_bindgen::generate!({
            path: ["../../../../wit/types", "../../../../wit/frontend"],
            inline: "
                package wbuild:sdk-build;
                world exports { export wbuild:frontend/build@0.1.0; }
            ",
            with: {
                "wbuild:types/types@0.1.0": wbuild_guest::wasm::wit,
            },
            pub_export_macro: true,
            export_macro_name: "export_build",
            default_bindings_module: "wbuild_frontend::sys::exports::build",
        });
    }
    #[doc(hidden)]
    pub mod describe {
        wit_bindgen::generate!({
            path: ["../../../../wit/types", "../../../../wit/frontend"],
            inline: "
                package wbuild:sdk-describe;
                world describes { export wbuild:frontend/describe@0.1.0; }
            ",
            with: {
                "wbuild:types/types@0.1.0": wbuild_guest::wasm::wit,
            },
            pub_export_macro: true,
            export_macro_name: "export_describe",
            default_bindings_module: "wbuild_frontend::sys::exports::describe",
        });
    }
}

use bindings::wbuild::frontend::{diagnostics, graph, inspect, request, results};
use exports::describe::exports::wbuild::frontend::describe as guest;

// ---- records ------------------------------------------------------------------------------------

fn edge_out(edge: Edge) -> graph::Output {
    graph::Output { node: edge.node.0, index: edge.index }
}

fn edge_in(output: graph::Output) -> Edge {
    Edge { node: NodeId(output.node), index: output.index }
}

fn edges_out(edges: &[Edge]) -> Vec<graph::Output> {
    edges.iter().copied().map(edge_out).collect()
}

fn node(output: Result<graph::Output, wit::Failure>) -> Result<Edge, Failure> {
    answer(output, edge_in)
}

// ---- request ------------------------------------------------------------------------------------

/// `request.definition`
pub fn definition() -> Result<DefinitionFile, Failure> {
    answer(request::definition(), |file| DefinitionFile {
        name: file.name,
        data: file.data,
        attrs: Attrs(file.attrs),
    })
}

/// `request.opt`
pub fn opt(name: &str) -> Option<String> {
    request::opt(name)
}

/// `request.opts`
pub fn opts(prefix: &str) -> Attrs {
    Attrs(request::opts(prefix))
}

/// `request.targets`
pub fn targets() -> Vec<String> {
    request::targets()
}

/// `request.build-platform`
pub fn build_platform() -> Platform {
    platform_in(request::build_platform())
}

/// `request.target-platforms`
pub fn target_platforms() -> Vec<Platform> {
    request::target_platforms().into_iter().map(platform_in).collect()
}

/// `request.context`
pub fn context(name: &str, platform: Option<&Platform>) -> Result<Option<NamedContext>, Failure> {
    let context = request::context(name, platform.map(platform_out).as_ref());
    answer(context, |context| {
        context.map(|context| NamedContext {
            kind: context.kind(),
            identifier: context.identifier(),
            root: context.root().map(edge_in),
            config: context.config(),
            attrs: Attrs(context.attrs()),
        })
    })
}

/// `request.context-names`
pub fn context_names() -> Vec<String> {
    request::context_names()
}

/// `request.has-secret`
pub fn has_secret(id: &str) -> bool {
    request::has_secret(id)
}

/// `request.has-ssh`
pub fn has_ssh(id: &str) -> bool {
    request::has_ssh(id)
}

/// `request.epoch`
pub fn epoch() -> Option<u64> {
    request::epoch()
}

/// `request.supports`
pub fn supports(feature: &str) -> bool {
    request::supports(feature)
}

// ---- inspect ------------------------------------------------------------------------------------

/// `inspect.resolve-images`
pub fn resolve_images(requests: Vec<ImageRequest>) -> Vec<Result<ImageInfo, Failure>> {
    let requests: Vec<inspect::ImageRequest> = requests
        .into_iter()
        .map(|request| inspect::ImageRequest {
            reference: request.reference,
            platform: request.platform.as_ref().map(platform_out),
            attrs: request.attrs.0,
        })
        .collect();
    let info = |info: inspect::ImageInfo| -> Result<ImageInfo, Failure> {
        Ok(ImageInfo {
            reference: info.reference,
            manifest: digest_in(&info.manifest)?,
            platform: platform_in(info.platform),
            config: info.config,
            attrs: Attrs(info.attrs),
        })
    };
    let answers = inspect::resolve_images(&requests).into_iter();
    answers.map(|found| found.map_err(failure_in).and_then(info)).collect()
}

fn digest_in(text: &str) -> Result<Digest, Failure> {
    wbuild_graph::draft::digest(text)
}

/// `inspect.resolve-sources`
pub fn resolve_sources(requests: Vec<SourceRequest>) -> Vec<Result<SourceInfo, Failure>> {
    let requests: Vec<inspect::SourceRequest> = requests
        .into_iter()
        .map(|request| inspect::SourceRequest {
            kind: request.kind,
            url: request.url,
            reference: request.reference,
            attrs: request.attrs.0,
        })
        .collect();
    let info = |info: inspect::SourceInfo| SourceInfo { pin: info.pin, attrs: Attrs(info.attrs) };
    inspect::resolve_sources(&requests).into_iter().map(|found| answer(found, info)).collect()
}

/// `inspect.read-file`
pub fn read_file(at: Edge, path: &str, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
    answer(inspect::read_file(edge_out(at), path, offset, length), |bytes| bytes)
}

fn entry_in(entry: inspect::Entry) -> Entry {
    Entry {
        path: entry.path,
        kind: match entry.kind {
            inspect::EntryKind::File => EntryKind::File,
            inspect::EntryKind::Directory => EntryKind::Directory,
            inspect::EntryKind::Symlink => EntryKind::Symlink,
            inspect::EntryKind::Other => EntryKind::Other,
        },
        size: entry.size,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        link: entry.link,
        attrs: Attrs(entry.attrs),
    }
}

/// `inspect.stat`
pub fn stat(at: Edge, path: &str) -> Result<Option<Entry>, Failure> {
    answer(inspect::stat(edge_out(at), path, &[]), |entry| entry.map(entry_in))
}

/// `inspect.read-dir`
pub fn read_dir(at: Edge, query: ReadDir) -> Result<Vec<Entry>, Failure> {
    let after = query.after.as_deref();
    let entries = inspect::read_dir(edge_out(at), &query.path, after, query.limit, &query.opts.0);
    answer(entries, |entries| entries.into_iter().map(entry_in).collect())
}

/// `inspect.start`
pub fn start(at: &[Edge]) {
    inspect::start(&edges_out(at));
}

/// `inspect.evaluate`
pub fn evaluate(at: &[Edge]) -> Vec<Result<(), Failure>> {
    inspect::evaluate(&edges_out(at)).into_iter().map(|done| done.map_err(failure_in)).collect()
}

/// `inspect.outcome-of`
pub fn outcome_of(at: Edge) -> Result<Arc<Outcome>, Failure> {
    let outcome = answer(inspect::outcome_of(edge_out(at)), |outcome| outcome)?;
    let stream = |name: &str| -> Result<(Vec<u8>, bool), wit::Failure> {
        let size = outcome.size(name)?;
        let bytes = if size == 0 { Vec::new() } else { outcome.read(name, 0, size)? };
        Ok((bytes, outcome.truncated(name)?))
    };
    let (stdout, stdout_truncated) = stream("stdout").map_err(failure_in)?;
    let (stderr, stderr_truncated) = stream("stderr").map_err(failure_in)?;
    let exit_code = outcome.exit_code();
    Ok(Arc::new(Outcome { exit_code, stdout, stdout_truncated, stderr, stderr_truncated }))
}

// ---- graph --------------------------------------------------------------------------------------

/// `graph.image`
pub fn image(reference: &str, platform: Option<&Platform>, attrs: Attrs) -> Result<Edge, Failure> {
    node(graph::image(reference, platform.map(platform_out).as_ref(), &attrs.0))
}

/// `graph.git`
pub fn git(url: &str, reference: &str, attrs: Attrs) -> Result<Edge, Failure> {
    node(graph::git(url, reference, &attrs.0))
}

/// `graph.http`
pub fn http(url: &str, checksum: Option<&str>, attrs: Attrs) -> Result<Edge, Failure> {
    node(graph::http(url, checksum, &attrs.0))
}

/// `graph.source`
pub fn source(
    identifier: &str,
    platform: Option<&Platform>,
    attrs: Attrs,
) -> Result<Edge, Failure> {
    node(graph::source(identifier, platform.map(platform_out).as_ref(), &attrs.0))
}

/// `graph.local-source`
#[derive(Debug)]
pub struct LocalSource(graph::LocalSource);

#[allow(missing_docs)] // Each is the method of its name.
impl LocalSource {
    pub fn new(name: &str) -> Self {
        LocalSource(graph::LocalSource::new(name))
    }

    pub fn include(&self, pattern: &str) {
        self.0.include(pattern);
    }

    pub fn exclude(&self, pattern: &str, at: Option<Span>) {
        self.0.exclude(pattern, at.map(span_out));
    }

    pub fn follow(&self, path: &str) {
        self.0.follow(path);
    }

    pub fn after(&self, at: Edge) {
        self.0.after(edge_out(at));
    }
}

/// `graph.local`
pub fn local(spec: LocalSource) -> Result<Edge, Failure> {
    node(graph::local(spec.0))
}

/// `graph.exec-op`
#[derive(Debug)]
pub struct ExecOp(graph::ExecOp);

#[allow(missing_docs)] // Each is the method of its name.
impl ExecOp {
    pub fn new(args: Vec<String>) -> Self {
        ExecOp(graph::ExecOp::new(&args))
    }

    pub fn env(&self, vars: &[(String, String)]) {
        self.0.env(vars);
    }

    pub fn volatile_env(&self, vars: &[(String, String)]) {
        self.0.volatile_env(vars);
    }

    pub fn cwd(&self, path: &str) {
        self.0.cwd(path);
    }

    pub fn user(&self, user: &str) {
        self.0.user(user);
    }

    pub fn hostname(&self, name: &str) {
        self.0.hostname(name);
    }

    pub fn platform(&self, platform: &Platform) {
        self.0.platform(&platform_out(platform));
    }

    pub fn network(&self, mode: &str) {
        self.0.network(mode);
    }

    pub fn security(&self, mode: &str) {
        self.0.security(mode);
    }

    pub fn add_host(&self, name: &str, address: &str) {
        self.0.add_host(name, address);
    }

    pub fn ulimit(&self, name: &str, soft: i64, hard: i64) {
        self.0.ulimit(name, soft, hard);
    }

    pub fn device(&self, name: &str, required: bool) {
        self.0.device(name, required);
    }

    pub fn resources(&self, limits: Attrs) {
        self.0.resources(&limits.0);
    }

    pub fn valid_exit_codes(&self, codes: &[i32]) {
        self.0.valid_exit_codes(codes);
    }

    pub fn capture(&self, limit: u32) {
        self.0.capture(limit);
    }

    pub fn bind(
        &self,
        target: &str,
        source: Option<Edge>,
        subpath: &str,
        access: &str,
        opts: Attrs,
    ) {
        self.0.bind(target, source.map(edge_out), subpath, access, &opts.0);
    }

    pub fn cache_dir(
        &self,
        target: &str,
        id: &str,
        sharing: &str,
        seed: Option<Edge>,
        opts: Attrs,
    ) {
        self.0.cache_dir(target, id, sharing, seed.map(edge_out), &opts.0);
    }

    pub fn tmpfs(&self, target: &str, opts: Attrs) {
        self.0.tmpfs(target, &opts.0);
    }

    pub fn secret_file(&self, target: &str, id: &str, required: bool, opts: Attrs) {
        self.0.secret_file(target, id, required, &opts.0);
    }

    pub fn secret_env(&self, name: &str, id: &str, required: bool) {
        self.0.secret_env(name, id, required);
    }

    pub fn ssh(&self, target: &str, id: &str, required: bool, opts: Attrs) {
        self.0.ssh(target, id, required, &opts.0);
    }

    pub fn attrs(&self, attrs: Attrs) {
        self.0.attrs(&attrs.0);
    }
}

/// `graph.exec`
pub fn exec(op: ExecOp) -> Result<Vec<Edge>, Failure> {
    answer(graph::exec(op.0), |outputs| outputs.into_iter().map(edge_in).collect())
}

/// `graph.file-op`
#[derive(Debug)]
pub struct FileOp(graph::FileOp);

#[allow(missing_docs)] // Each is the method of its name.
impl FileOp {
    pub fn new(base: Option<Edge>) -> Self {
        FileOp(graph::FileOp::new(base.map(edge_out)))
    }

    pub fn names_from(&self, at: Edge) {
        self.0.names_from(edge_out(at));
    }

    pub fn mark(&self, at: Span) {
        self.0.mark(span_out(at));
    }

    pub fn copy(&self, source: Edge, paths: &[String], target: &str, opts: Attrs) {
        self.0.copy(edge_out(source), paths, target, &opts.0);
    }

    pub fn write(&self, path: &str, data: &[u8], opts: Attrs) {
        self.0.write(path, data, &opts.0);
    }

    pub fn mkdir(&self, path: &str, opts: Attrs) {
        self.0.mkdir(path, &opts.0);
    }

    pub fn remove(&self, path: &str, opts: Attrs) {
        self.0.remove(path, &opts.0);
    }

    pub fn symlink(&self, path: &str, target: &str, opts: Attrs) {
        self.0.symlink(path, target, &opts.0);
    }
}

/// `graph.file`
pub fn file(op: FileOp) -> Result<Edge, Failure> {
    node(graph::file(op.0))
}

/// `graph.merge`
pub fn merge(layers: &[Edge]) -> Result<Edge, Failure> {
    node(graph::merge(&edges_out(layers), &[]))
}

/// `graph.diff`
pub fn diff(lower: Option<Edge>, upper: Option<Edge>) -> Result<Edge, Failure> {
    node(graph::diff(lower.map(edge_out), upper.map(edge_out), &[]))
}

/// `graph.annotate`
pub fn annotate(at: Edge, name: &str, spans: &[Span], attrs: Attrs) -> Result<(), Failure> {
    let spans: Vec<wit::Span> = spans.iter().copied().map(span_out).collect();
    answer(graph::annotate(edge_out(at), name, &spans, &attrs.0), |()| ())
}

/// `graph.ignore-cache`
pub fn ignore_cache(at: Edge) -> Result<(), Failure> {
    answer(graph::ignore_cache(edge_out(at)), |()| ())
}

/// `graph.same-work`
pub fn same_work(at: Edge, other: Edge) -> Result<bool, Failure> {
    answer(graph::same_work(edge_out(at), edge_out(other)), |same| same)
}

// ---- diagnostics, results ------------------------------------------------------------------

/// `diagnostics.add-source`
pub fn add_source(name: &str, language: &str, text: &[u8]) -> Result<u32, Failure> {
    answer(diagnostics::add_source(name, language, text), |index| index)
}

/// `diagnostics.map-source`
pub fn map_source(ranges: &[(Span, Span)]) -> Result<(), Failure> {
    let ranges: Vec<(wit::Span, wit::Span)> =
        ranges.iter().map(|(from, to)| (span_out(*from), span_out(*to))).collect();
    answer(diagnostics::map_source(&ranges), |()| ())
}

/// `diagnostics.report`
pub fn report(diagnostic: Diagnostic) {
    diagnostics::report(&diagnostic_out(diagnostic));
}

/// `results.image`
pub fn yield_image(image: ImageResult) -> Result<(), Failure> {
    let ImageResult { name, platform, root, config, attrs } = image;
    let platform = platform.as_ref().map(platform_out);
    answer(results::image(&name, platform.as_ref(), root.map(edge_out), &config, &attrs.0), |()| ())
}

/// `results.files`
pub fn yield_files(files: FilesResult) -> Result<(), Failure> {
    let FilesResult { name, platform, root, path, attrs } = files;
    let platform = platform.as_ref().map(platform_out);
    answer(results::files(&name, platform.as_ref(), edge_out(root), &path, &attrs.0), |()| ())
}

/// `results.require`
pub fn require(at: Edge) -> Result<(), Failure> {
    answer(results::require(edge_out(at)), |()| ())
}

/// `results.attest`
pub fn attest(kind: &str, statement: FilesResult) -> Result<(), Failure> {
    let FilesResult { name, platform, root, path, attrs } = statement;
    let platform = platform.as_ref().map(platform_out);
    let root = edge_out(root);
    answer(results::attest(&name, platform.as_ref(), kind, root, &path, &attrs.0), |()| ())
}

/// `results.effect`
pub fn effect(name: &str, at: Edge) -> Result<(), Failure> {
    answer(results::effect(name, edge_out(at)), |()| ())
}

/// `results.fail-after`
pub fn fail_after(at: Edge) -> Result<(), Failure> {
    answer(results::fail_after(edge_out(at)), |()| ())
}

/// `results.publish`
pub fn publish(names: &[String]) -> Result<(), Failure> {
    answer(results::publish(names), |()| ())
}

// ---- exports ------------------------------------------------------------------------------------

#[doc(hidden)]
pub fn target_out(target: Target) -> guest::Target {
    guest::Target {
        name: target.name,
        summary: target.summary,
        is_default: target.is_default,
        at: target.at.map(span_out),
        attrs: target.attrs.0,
    }
}

#[doc(hidden)]
pub fn parameter_out(parameter: Parameter) -> guest::Parameter {
    guest::Parameter {
        kind: parameter.kind,
        name: parameter.name,
        summary: parameter.summary,
        value: parameter.default,
        required: parameter.required,
        at: parameter.at.map(span_out),
        attrs: parameter.attrs.0,
    }
}

#[doc(hidden)]
pub fn method_out((name, summary): (String, String)) -> guest::Method {
    guest::Method { name, summary, attrs: Vec::new() }
}
