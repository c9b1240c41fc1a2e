//! `wbuild:frontend@0.1`.

use wasmtime::component::{Linker, Resource};
use wbuild_api::extension::{
    Entry, EntryKind, FilesResult, FrontendHost, ImageRequest, ImageResult, NamedContext, ReadDir,
    SourceRequest,
};
use wbuild_graph::op::{LocalSource, SourceOp};
use wbuild_graph::{Attrs, Edge, Failure, NodeId, NodeMeta, Op, Platform, SourceFile, decode};

use super::builders::{ExecDraft, FileDraft, Pairs, pairs_size, texts_size};
use super::types::{
    self, answer, answers, diagnostic_in, digest_in, failure_out, platform_in, platform_out,
    span_in, wit,
};
use crate::limits::{LIST_ITEMS, READ_BYTES};
use crate::state::{Access, Builder, Capabilities, GuestState, refuse};

/// Generated from `wit/frontend`.
#[allow(missing_docs, unsafe_code, clippy::all)]
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: ["../../wit/types", "../../wit/frontend"],
        world: "wbuild:frontend/frontend",
        imports: {
            "wbuild:frontend/inspect.resolve-images": async | trappable,
            "wbuild:frontend/inspect.resolve-sources": async | trappable,
            "wbuild:frontend/inspect.read-file": async | trappable,
            "wbuild:frontend/inspect.stat": async | trappable,
            "wbuild:frontend/inspect.read-dir": async | trappable,
            "wbuild:frontend/inspect.evaluate": async | trappable,
            "wbuild:frontend/inspect.outcome-of": async | trappable,
            "wbuild:frontend/results.publish": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: {
            "wbuild:types/types": crate::v0_1::types::bindings::wbuild::types::types,
            "wbuild:types/log": crate::v0_1::types::bindings::wbuild::types::log,
            "wbuild:frontend/graph.local-source": crate::v0_1::frontend::LocalBuilder,
            "wbuild:frontend/graph.exec-op": crate::v0_1::frontend::ExecBuilder,
            "wbuild:frontend/graph.file-op": crate::v0_1::frontend::FileBuilder,
            "wbuild:frontend/inspect.outcome": crate::v0_1::frontend::OutcomeHandle,
            "wbuild:frontend/request.named-context": crate::v0_1::frontend::ContextHandle,
        },
    });
}

use bindings::wbuild::frontend::{diagnostics, graph, inspect, request, results};

pub type LocalBuilder = Builder<LocalSource>;
pub type ExecBuilder = Builder<ExecDraft>;
pub type FileBuilder = Builder<FileDraft>;
/// What an exec did; held by the guest.
pub type OutcomeHandle = std::sync::Arc<wbuild_api::extension::Outcome>;
/// A named context; held by the guest.
pub type ContextHandle = NamedContext;

/// State of a frontend's store.
pub(crate) type State = GuestState<FrontendHost>;

impl Capabilities for FrontendHost {
    fn log(&self) -> &std::sync::Arc<dyn wbuild_api::extension::LogCap> {
        &self.log
    }
}

/// Everything a frontend may import.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::wit::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    types::log::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    graph::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    inspect::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    request::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    diagnostics::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    results::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)
}

fn edge_in(output: graph::Output) -> Edge {
    Edge { node: NodeId(output.node), index: output.index }
}

fn edge_out(edge: Edge) -> graph::Output {
    graph::Output { node: edge.node.0, index: edge.index }
}

/// The only output of a node that has one.
fn single(outputs: Vec<Edge>) -> Result<graph::Output, Failure> {
    match outputs[..] {
        [edge] => Ok(edge_out(edge)),
        _ => Err(Failure::internal(format!("a node has {} outputs, not one", outputs.len()))),
    }
}

impl State {
    fn insert(&self, op: Op, inputs: Vec<Edge>) -> wasmtime::Result<Result<Vec<Edge>, Failure>> {
        Ok(self.caps()?.graph.insert(op, inputs))
    }

    fn insert_single(
        &self,
        op: Result<Op, Failure>,
        inputs: Vec<Edge>,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        let graph = &self.caps()?.graph;
        answer(op.and_then(|op| graph.insert(op, inputs)).and_then(single))
    }

    /// The platform of an image that is asked for without one.
    fn default_platform(&self) -> wasmtime::Result<Platform> {
        let request = &self.caps()?.request;
        let first = request.target_platforms().into_iter().next();
        Ok(first.unwrap_or_else(|| request.build_platform()))
    }
}

impl graph::Host for State {
    fn image(
        &mut self,
        reference: String,
        platform: Option<wit::Platform>,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        let platform = match platform {
            Some(platform) => platform_in(platform),
            None => self.default_platform()?,
        };
        let attrs = Attrs(attrs);
        let known = ["resolve", "checksum", "layer-limit", "store"];
        let op = decode::only_known(&attrs, "graph.image", &known)
            .map(|()| Op::Source(SourceOp::Image { reference, platform, attrs }));
        self.insert_single(op, Vec::new())
    }

    fn git(
        &mut self,
        url: String,
        reference: String,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        let attrs = Attrs(attrs);
        let known = [
            "subdir",
            "checksum",
            "keep-git-dir",
            "submodules",
            "mtime",
            "fetch-by-commit",
            "auth-token-secret",
            "auth-header-secret",
            "ssh",
            "known-hosts",
        ];
        let op = decode::only_known(&attrs, "graph.git", &known)
            .map(|()| Op::Source(SourceOp::Git { url, reference, attrs }));
        self.insert_single(op, Vec::new())
    }

    fn http(
        &mut self,
        url: String,
        checksum: Option<String>,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        let attrs = Attrs(attrs);
        let op = || {
            let plain = Attrs(
                attrs.0.iter().filter(|(key, _)| !key.starts_with("header.")).cloned().collect(),
            );
            let known = ["filename", "mode", "uid", "gid", "auth-header-secret"];
            decode::only_known(&plain, "graph.http", &known)?;
            let checksum = checksum.as_deref().map(digest_in).transpose()?;
            Ok(Op::Source(SourceOp::Http { url, checksum, attrs }))
        };
        self.insert_single(op(), Vec::new())
    }

    fn local(
        &mut self,
        spec: Resource<LocalBuilder>,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        let op = self.finish(spec)?.map(|local| Op::Source(SourceOp::Local(local)));
        self.insert_single(op, Vec::new())
    }

    fn source(
        &mut self,
        identifier: String,
        platform: Option<wit::Platform>,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        let platform = platform.map(platform_in);
        let op = Op::Source(SourceOp::Other { identifier, platform, attrs: Attrs(attrs) });
        self.insert_single(Ok(op), Vec::new())
    }

    fn exec(
        &mut self,
        op: Resource<ExecBuilder>,
    ) -> wasmtime::Result<Result<Vec<graph::Output>, wit::Failure>> {
        let outputs = match self.finish(op)? {
            Ok(draft) => {
                let (op, inputs) = draft.finish();
                self.insert(op, inputs)?
            }
            Err(failure) => Err(failure),
        };
        answer(outputs.map(|edges| edges.into_iter().map(edge_out).collect()))
    }

    fn file(
        &mut self,
        op: Resource<FileBuilder>,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        match self.finish(op)? {
            Ok(draft) => {
                let (op, inputs) = draft.finish();
                self.insert_single(Ok(op), inputs)
            }
            Err(failure) => answer(Err(failure)),
        }
    }

    fn merge(
        &mut self,
        layers: Vec<graph::Output>,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        self.insert_single(Ok(Op::Merge), layers.into_iter().map(edge_in).collect())
    }

    fn diff(
        &mut self,
        lower: Option<graph::Output>,
        upper: Option<graph::Output>,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        let mut inputs = super::builders::Inputs::default();
        let lower = lower.map(|output| inputs.add(edge_in(output)));
        let upper = upper.map(|output| inputs.add(edge_in(output)));
        self.insert_single(Ok(Op::Diff { lower, upper }), inputs.into_edges())
    }

    fn annotate(
        &mut self,
        at: graph::Output,
        name: String,
        spans: Vec<wit::Span>,
        attrs: Pairs,
    ) -> wasmtime::Result<()> {
        self.meter.charge(name.len() + spans.len() * 12 + pairs_size(&attrs))?;
        let attrs = Attrs(attrs);
        let meta = || {
            let known = ["group", "group-name", "weak-group", "hidden"];
            decode::only_known(&attrs, "graph.annotate", &known)?;
            let group = attrs.get("group").or_else(|| attrs.get("weak-group"));
            let group =
                group.map(|id| (id.to_owned(), attrs.get("group-name").unwrap_or(id).to_owned()));
            let spans = spans.into_iter().map(span_in).collect();
            Ok(NodeMeta { name, spans, group, hidden: decode::flag(&attrs, "hidden")? })
        };
        let graph = &self.caps()?.graph;
        meta().and_then(|meta| graph.annotate(edge_in(at), meta)).map_err(refuse)
    }

    fn ignore_cache(&mut self, at: graph::Output) -> wasmtime::Result<()> {
        self.caps()?.graph.ignore_cache(edge_in(at)).map_err(refuse)
    }

    fn digest_of(&mut self, at: graph::Output) -> wasmtime::Result<String> {
        let digest = self.caps()?.graph.digest_of(edge_in(at)).map_err(refuse)?;
        Ok(digest.to_string())
    }
}

impl graph::HostLocalSource for State {
    fn new(&mut self, name: String) -> wasmtime::Result<Resource<LocalBuilder>> {
        let bytes = name.len();
        self.begin(LocalSource { name, ..LocalSource::default() }, bytes)
    }

    fn include(&mut self, this: Resource<LocalBuilder>, pattern: String) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&pattern]), |local| {
            local.include.push(pattern);
            Ok(())
        })
    }

    fn exclude(
        &mut self,
        this: Resource<LocalBuilder>,
        pattern: String,
        at: Option<wit::Span>,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&pattern]), |local| {
            let at = at.map(span_in);
            local.exclude.push(wbuild_graph::op::IgnorePattern { pattern, at });
            Ok(())
        })
    }

    fn follow(&mut self, this: Resource<LocalBuilder>, path: String) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&path]), |local| {
            local.follow.push(path);
            Ok(())
        })
    }

    fn attrs(&mut self, this: Resource<LocalBuilder>, attrs: Pairs) -> wasmtime::Result<()> {
        self.edit(&this, pairs_size(&attrs), |local| {
            let attrs = Attrs(attrs);
            decode::only_known(&attrs, "local-source.attrs", &[])?;
            local.attrs.0.extend(attrs.0);
            Ok(())
        })
    }

    fn drop(&mut self, this: Resource<LocalBuilder>) -> wasmtime::Result<()> {
        self.finish(this).map(drop)
    }
}

impl graph::HostExecOp for State {
    fn new(&mut self, args: Vec<String>) -> wasmtime::Result<Resource<ExecBuilder>> {
        let bytes = texts_size(&args);
        let platform = self.caps()?.request.build_platform();
        self.begin(ExecDraft::new(args, platform), bytes)
    }

    fn env(&mut self, this: Resource<ExecBuilder>, vars: Pairs) -> wasmtime::Result<()> {
        self.edit(&this, pairs_size(&vars), |draft| {
            draft.op.env.extend(vars);
            Ok(())
        })
    }

    fn volatile_env(&mut self, this: Resource<ExecBuilder>, vars: Pairs) -> wasmtime::Result<()> {
        self.edit(&this, pairs_size(&vars), |draft| {
            draft.op.volatile_env.extend(vars);
            Ok(())
        })
    }

    fn cwd(&mut self, this: Resource<ExecBuilder>, path: String) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&path]), |draft| {
            draft.op.cwd = path;
            Ok(())
        })
    }

    fn user(&mut self, this: Resource<ExecBuilder>, user: String) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&user]), |draft| {
            draft.op.user = user;
            Ok(())
        })
    }

    fn hostname(&mut self, this: Resource<ExecBuilder>, name: String) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&name]), |draft| {
            draft.op.hostname = name;
            Ok(())
        })
    }

    fn platform(
        &mut self,
        this: Resource<ExecBuilder>,
        platform: wit::Platform,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size(&platform.os_features), |draft| {
            draft.op.platform = platform_in(platform);
            Ok(())
        })
    }

    fn network(&mut self, this: Resource<ExecBuilder>, mode: String) -> wasmtime::Result<()> {
        self.edit(&this, 0, |draft| {
            draft.op.network = decode::network(&mode)?;
            Ok(())
        })
    }

    fn security(&mut self, this: Resource<ExecBuilder>, mode: String) -> wasmtime::Result<()> {
        self.edit(&this, 0, |draft| {
            draft.op.security = decode::security(&mode)?;
            Ok(())
        })
    }

    fn add_host(
        &mut self,
        this: Resource<ExecBuilder>,
        name: String,
        address: String,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&name, &address]), |draft| {
            draft.op.add_hosts.push((name, address));
            Ok(())
        })
    }

    fn ulimit(
        &mut self,
        this: Resource<ExecBuilder>,
        name: String,
        soft: i64,
        hard: i64,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&name]), |draft| {
            draft.op.ulimits.push(wbuild_graph::op::Ulimit { name, soft, hard });
            Ok(())
        })
    }

    fn device(
        &mut self,
        this: Resource<ExecBuilder>,
        name: String,
        required: bool,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&name]), |draft| {
            draft.op.devices.push((name, required));
            Ok(())
        })
    }

    fn resources(&mut self, this: Resource<ExecBuilder>, limits: Pairs) -> wasmtime::Result<()> {
        self.edit(&this, pairs_size(&limits), |draft| {
            let limits = Attrs(limits);
            let known = [
                "memory",
                "memory-swap",
                "cpu-shares",
                "cpu-period",
                "cpu-quota",
                "cpuset-cpus",
                "cpuset-mems",
                "cgroup-parent",
            ];
            decode::only_known(&limits, "exec-op.resources", &known)?;
            draft.op.resources.0.extend(limits.0);
            Ok(())
        })
    }

    fn valid_exit_codes(
        &mut self,
        this: Resource<ExecBuilder>,
        codes: Vec<i32>,
    ) -> wasmtime::Result<()> {
        self.edit(&this, codes.len() * 4, |draft| {
            draft.op.valid_exit_codes = codes;
            Ok(())
        })
    }

    fn capture(&mut self, this: Resource<ExecBuilder>, limit: u32) -> wasmtime::Result<()> {
        self.edit(&this, 0, |draft| draft.capture(limit))
    }

    fn bind(
        &mut self,
        this: Resource<ExecBuilder>,
        target: String,
        source: Option<graph::Output>,
        subpath: String,
        access: String,
        opts: Pairs,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&target, &subpath]) + pairs_size(&opts), |draft| {
            draft.bind(target, source.map(edge_in), subpath, &access, &Attrs(opts))
        })
    }

    fn cache_dir(
        &mut self,
        this: Resource<ExecBuilder>,
        target: String,
        id: String,
        sharing: String,
        seed: Option<graph::Output>,
        opts: Pairs,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&target, &id]) + pairs_size(&opts), |draft| {
            draft.cache_dir(target, id, &sharing, seed.map(edge_in), &Attrs(opts))
        })
    }

    fn tmpfs(
        &mut self,
        this: Resource<ExecBuilder>,
        target: String,
        opts: Pairs,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&target]) + pairs_size(&opts), |draft| {
            draft.mount(target, decode::tmpfs_mount(&Attrs(opts))?);
            Ok(())
        })
    }

    fn secret_file(
        &mut self,
        this: Resource<ExecBuilder>,
        target: String,
        id: String,
        required: bool,
        opts: Pairs,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&target, &id]) + pairs_size(&opts), |draft| {
            draft.secret_file(target, id, required, &Attrs(opts))
        })
    }

    fn secret_env(
        &mut self,
        this: Resource<ExecBuilder>,
        name: String,
        id: String,
        required: bool,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&name, &id]), |draft| {
            draft.op.secret_env.push(wbuild_graph::op::SecretEnv { name, id, required });
            Ok(())
        })
    }

    fn ssh(
        &mut self,
        this: Resource<ExecBuilder>,
        target: String,
        id: String,
        required: bool,
        opts: Pairs,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&target, &id]) + pairs_size(&opts), |draft| {
            draft.ssh(target, id, required, &Attrs(opts))
        })
    }

    fn attrs(&mut self, this: Resource<ExecBuilder>, attrs: Pairs) -> wasmtime::Result<()> {
        self.edit(&this, pairs_size(&attrs), |draft| {
            let attrs = Attrs(attrs);
            decode::only_known(&attrs, "exec-op.attrs", &[])?;
            draft.op.attrs.0.extend(attrs.0);
            Ok(())
        })
    }

    fn drop(&mut self, this: Resource<ExecBuilder>) -> wasmtime::Result<()> {
        self.finish(this).map(drop)
    }
}

impl graph::HostFileOp for State {
    fn new(&mut self, base: Option<graph::Output>) -> wasmtime::Result<Resource<FileBuilder>> {
        self.begin(FileDraft::new(base.map(edge_in)), 0)
    }

    fn names_from(
        &mut self,
        this: Resource<FileBuilder>,
        at: graph::Output,
    ) -> wasmtime::Result<()> {
        self.edit(&this, 0, |draft| {
            draft.names_from(edge_in(at));
            Ok(())
        })
    }

    fn mark(&mut self, this: Resource<FileBuilder>, at: wit::Span) -> wasmtime::Result<()> {
        self.edit(&this, 0, |draft| {
            draft.mark = Some(span_in(at));
            Ok(())
        })
    }

    fn copy(
        &mut self,
        this: Resource<FileBuilder>,
        source: graph::Output,
        paths: Vec<String>,
        target: String,
        opts: Pairs,
    ) -> wasmtime::Result<()> {
        let bytes = texts_size(&paths) + texts_size([&target]) + pairs_size(&opts);
        self.edit(&this, bytes, |draft| draft.copy(edge_in(source), paths, target, &Attrs(opts)))
    }

    fn write(
        &mut self,
        this: Resource<FileBuilder>,
        path: String,
        data: Vec<u8>,
        opts: Pairs,
    ) -> wasmtime::Result<()> {
        let bytes = texts_size([&path]) + data.len() + pairs_size(&opts);
        self.edit(&this, bytes, |draft| draft.write(path, data, &Attrs(opts)))
    }

    fn mkdir(
        &mut self,
        this: Resource<FileBuilder>,
        path: String,
        opts: Pairs,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&path]) + pairs_size(&opts), |draft| {
            draft.mkdir(path, &Attrs(opts))
        })
    }

    fn remove(
        &mut self,
        this: Resource<FileBuilder>,
        path: String,
        opts: Pairs,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&path]) + pairs_size(&opts), |draft| {
            draft.remove(path, &Attrs(opts))
        })
    }

    fn symlink(
        &mut self,
        this: Resource<FileBuilder>,
        path: String,
        target: String,
        opts: Pairs,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&path, &target]) + pairs_size(&opts), |draft| {
            draft.symlink(path, target, &Attrs(opts))
        })
    }

    fn drop(&mut self, this: Resource<FileBuilder>) -> wasmtime::Result<()> {
        self.finish(this).map(drop)
    }
}

fn entry_out(entry: Entry) -> inspect::Entry {
    inspect::Entry {
        path: entry.path,
        kind: match entry.kind {
            EntryKind::File => inspect::EntryKind::File,
            EntryKind::Directory => inspect::EntryKind::Directory,
            EntryKind::Symlink => inspect::EntryKind::Symlink,
            EntryKind::Other => inspect::EntryKind::Other,
        },
        size: entry.size,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        link: entry.link,
        attrs: entry.attrs.0,
    }
}

impl inspect::Host for State {
    async fn resolve_images(
        &mut self,
        requests: Vec<inspect::ImageRequest>,
    ) -> wasmtime::Result<Vec<Result<inspect::ImageInfo, wit::Failure>>> {
        self.meter.batch(requests.len())?;
        let requests = requests
            .into_iter()
            .map(|request| ImageRequest {
                reference: request.reference,
                platform: request.platform.map(platform_in),
                attrs: Attrs(request.attrs),
            })
            .collect();
        let inspect = self.caps()?.inspect.clone();
        Ok(answers(inspect.resolve_images(requests).await, |info| inspect::ImageInfo {
            reference: info.reference,
            manifest: info.manifest.to_string(),
            platform: platform_out(info.platform),
            config: info.config,
            attrs: info.attrs.0,
        }))
    }

    async fn resolve_sources(
        &mut self,
        requests: Vec<inspect::SourceRequest>,
    ) -> wasmtime::Result<Vec<Result<inspect::SourceInfo, wit::Failure>>> {
        self.meter.batch(requests.len())?;
        let requests = requests
            .into_iter()
            .map(|request| SourceRequest {
                identifier: request.identifier,
                attrs: Attrs(request.attrs),
            })
            .collect();
        let inspect = self.caps()?.inspect.clone();
        Ok(answers(inspect.resolve_sources(requests).await, |info| inspect::SourceInfo {
            pin: info.pin,
            attrs: info.attrs.0,
        }))
    }

    async fn read_file(
        &mut self,
        at: graph::Output,
        path: String,
        offset: u64,
        length: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, wit::Failure>> {
        let inspect = self.caps()?.inspect.clone();
        answer(inspect.read_file(edge_in(at), path, offset, length.min(READ_BYTES)).await)
    }

    async fn stat(
        &mut self,
        at: graph::Output,
        path: String,
    ) -> wasmtime::Result<Result<Option<inspect::Entry>, wit::Failure>> {
        let inspect = self.caps()?.inspect.clone();
        answer(inspect.stat(edge_in(at), path).await.map(|entry| entry.map(entry_out)))
    }

    async fn read_dir(
        &mut self,
        at: graph::Output,
        path: String,
        after: Option<String>,
        limit: u32,
        opts: Pairs,
    ) -> wasmtime::Result<Result<Vec<inspect::Entry>, wit::Failure>> {
        let query = ReadDir { path, after, limit: limit.min(LIST_ITEMS), opts: Attrs(opts) };
        if let Err(failure) =
            decode::only_known(&query.opts, "inspect.read-dir", &["pattern", "recursive"])
        {
            return answer(Err(failure));
        }
        let inspect = self.caps()?.inspect.clone();
        let entries = inspect.read_dir(edge_in(at), query).await;
        answer(entries.map(|entries| entries.into_iter().map(entry_out).collect()))
    }

    fn start(&mut self, at: Vec<graph::Output>) -> wasmtime::Result<()> {
        self.meter.batch(at.len())?;
        self.caps()?.inspect.start(at.into_iter().map(edge_in).collect());
        Ok(())
    }

    async fn evaluate(
        &mut self,
        at: Vec<graph::Output>,
    ) -> wasmtime::Result<Vec<Result<(), wit::Failure>>> {
        self.meter.batch(at.len())?;
        let inspect = self.caps()?.inspect.clone();
        Ok(answers(inspect.evaluate(at.into_iter().map(edge_in).collect()).await, |()| ()))
    }

    async fn outcome_of(
        &mut self,
        at: graph::Output,
    ) -> wasmtime::Result<Result<Resource<OutcomeHandle>, wit::Failure>> {
        let inspect = self.caps()?.inspect.clone();
        match inspect.outcome_of(edge_in(at)).await {
            Ok(outcome) => Ok(Ok(self.push(outcome)?)),
            Err(failure) => Ok(Err(failure_out(failure))),
        }
    }
}

impl State {
    fn stream<T>(
        &self,
        this: &Resource<OutcomeHandle>,
        stream: &str,
        answer: impl FnOnce(&[u8], bool) -> T,
    ) -> wasmtime::Result<T> {
        let outcome = self.table.get(this)?;
        match stream {
            "stdout" => Ok(answer(&outcome.stdout, outcome.stdout_truncated)),
            "stderr" => Ok(answer(&outcome.stderr, outcome.stderr_truncated)),
            other => Err(refuse(
                Failure::unsupported(format!("outcome has no stream {other:?}"))
                    .hint("expected one of: stdout, stderr"),
            )),
        }
    }
}

impl inspect::HostOutcome for State {
    fn exit_code(&mut self, this: Resource<OutcomeHandle>) -> wasmtime::Result<i32> {
        Ok(self.table.get(&this)?.exit_code)
    }

    fn size(&mut self, this: Resource<OutcomeHandle>, stream: String) -> wasmtime::Result<u32> {
        self.stream(&this, &stream, |bytes, _| u32::try_from(bytes.len()).unwrap_or(u32::MAX))
    }

    fn truncated(
        &mut self,
        this: Resource<OutcomeHandle>,
        stream: String,
    ) -> wasmtime::Result<bool> {
        self.stream(&this, &stream, |_, truncated| truncated)
    }

    fn read(
        &mut self,
        this: Resource<OutcomeHandle>,
        stream: String,
        offset: u32,
        length: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, wit::Failure>> {
        self.stream(&this, &stream, |bytes, _| {
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            Ok(rest[..rest.len().min(length.min(READ_BYTES) as usize)].to_vec())
        })
    }

    fn drop(&mut self, this: Resource<OutcomeHandle>) -> wasmtime::Result<()> {
        self.forget(this)
    }
}

impl request::Host for State {
    fn definition(&mut self) -> wasmtime::Result<Result<request::DefinitionFile, wit::Failure>> {
        let file = self.caps()?.request.definition();
        answer(file.map(|file| request::DefinitionFile {
            name: file.name,
            data: file.data,
            attrs: file.attrs.0,
        }))
    }

    fn opt(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.caps()?.request.opt(name))
    }

    fn opts(&mut self, prefix: String) -> wasmtime::Result<Pairs> {
        Ok(self.caps()?.request.opts(prefix).0)
    }

    fn targets(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.caps()?.request.targets())
    }

    fn build_platform(&mut self) -> wasmtime::Result<wit::Platform> {
        Ok(platform_out(self.caps()?.request.build_platform()))
    }

    fn target_platforms(&mut self) -> wasmtime::Result<Vec<wit::Platform>> {
        Ok(self.caps()?.request.target_platforms().into_iter().map(platform_out).collect())
    }

    fn context(
        &mut self,
        name: String,
        platform: Option<wit::Platform>,
    ) -> wasmtime::Result<Result<Option<Resource<ContextHandle>>, wit::Failure>> {
        match self.caps()?.request.context(name, platform.map(platform_in)) {
            Ok(Some(context)) => Ok(Ok(Some(self.push(context)?))),
            Ok(None) => Ok(Ok(None)),
            Err(failure) => Ok(Err(failure_out(failure))),
        }
    }

    fn context_names(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.caps()?.request.context_names())
    }

    fn has_secret(&mut self, id: String) -> wasmtime::Result<bool> {
        Ok(self.caps()?.request.has_secret(id))
    }

    fn has_ssh(&mut self, id: String) -> wasmtime::Result<bool> {
        Ok(self.caps()?.request.has_ssh(id))
    }

    fn epoch(&mut self) -> wasmtime::Result<Option<u64>> {
        Ok(self.caps()?.request.epoch())
    }

    fn supports(&mut self, feature: String) -> wasmtime::Result<bool> {
        Ok(self.caps()?.request.supports(feature))
    }
}

impl request::HostNamedContext for State {
    fn kind(&mut self, this: Resource<ContextHandle>) -> wasmtime::Result<String> {
        Ok(self.table.get(&this)?.kind.clone())
    }

    fn identifier(&mut self, this: Resource<ContextHandle>) -> wasmtime::Result<String> {
        Ok(self.table.get(&this)?.identifier.clone())
    }

    fn root(&mut self, this: Resource<ContextHandle>) -> wasmtime::Result<Option<graph::Output>> {
        Ok(self.table.get(&this)?.root.map(edge_out))
    }

    fn config(&mut self, this: Resource<ContextHandle>) -> wasmtime::Result<Option<String>> {
        Ok(self.table.get(&this)?.config.clone())
    }

    fn attrs(&mut self, this: Resource<ContextHandle>) -> wasmtime::Result<Pairs> {
        Ok(self.table.get(&this)?.attrs.0.clone())
    }

    fn drop(&mut self, this: Resource<ContextHandle>) -> wasmtime::Result<()> {
        self.forget(this)
    }
}

impl diagnostics::Host for State {
    fn add_source(
        &mut self,
        name: String,
        language: String,
        text: Vec<u8>,
    ) -> wasmtime::Result<u32> {
        self.meter.message(texts_size([&name, &language]) + text.len())?;
        let source = SourceFile { name, language, text: text.into() };
        self.caps()?.diagnostics.add_source(source).map_err(refuse)
    }

    fn map_source(&mut self, generated: wit::Span, original: wit::Span) -> wasmtime::Result<()> {
        // A preprocessor maps every line: bounded by bytes, not by the number of messages.
        self.meter.charge(size_of::<[wit::Span; 2]>())?;
        let diagnostics = &self.caps()?.diagnostics;
        diagnostics.map_source(span_in(generated), span_in(original)).map_err(refuse)
    }

    fn report(&mut self, diagnostic: wit::Diagnostic) -> wasmtime::Result<()> {
        let labels = diagnostic.labels.iter().map(|label| &label.text);
        let texts = [&diagnostic.code, &diagnostic.help, &diagnostic.url];
        let bytes = texts_size([&diagnostic.message])
            + texts_size(labels)
            + texts_size(texts.into_iter().flatten())
            + pairs_size(&diagnostic.attrs);
        self.meter.message(bytes)?;
        self.caps()?.diagnostics.report(diagnostic_in(diagnostic)).map_err(refuse)
    }
}

impl results::Host for State {
    fn image(
        &mut self,
        name: String,
        platform: Option<wit::Platform>,
        root: Option<graph::Output>,
        config: String,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        self.meter.message(texts_size([&name, &config]) + pairs_size(&attrs))?;
        answer(self.caps()?.results.image(ImageResult {
            name,
            platform: platform.map(platform_in),
            root: root.map(edge_in),
            config,
            attrs: Attrs(attrs),
        }))
    }

    fn files(
        &mut self,
        name: String,
        platform: Option<wit::Platform>,
        root: graph::Output,
        path: String,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        self.meter.message(texts_size([&name, &path]) + pairs_size(&attrs))?;
        answer(self.caps()?.results.files(FilesResult {
            name,
            platform: platform.map(platform_in),
            root: edge_in(root),
            path,
            attrs: Attrs(attrs),
        }))
    }

    fn attest(
        &mut self,
        name: String,
        platform: Option<wit::Platform>,
        kind: String,
        root: graph::Output,
        path: String,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        self.meter.message(texts_size([&name, &kind, &path]) + pairs_size(&attrs))?;
        let statement = FilesResult {
            name,
            platform: platform.map(platform_in),
            root: edge_in(root),
            path,
            attrs: Attrs(attrs),
        };
        answer(self.caps()?.results.attest(kind, statement))
    }

    fn effect(
        &mut self,
        name: String,
        at: graph::Output,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        self.meter.message(texts_size([&name]))?;
        answer(self.caps()?.results.effect(name, edge_in(at)))
    }

    fn fail_after(&mut self, at: graph::Output) -> wasmtime::Result<Result<(), wit::Failure>> {
        self.meter.message(0)?;
        answer(self.caps()?.results.fail_after(edge_in(at)))
    }

    async fn publish(&mut self, names: Vec<String>) -> wasmtime::Result<Result<(), wit::Failure>> {
        self.meter.batch(names.len())?;
        let results = self.caps()?.results.clone();
        answer(results.publish(names).await)
    }
}
