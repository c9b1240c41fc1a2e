//! Interface `graph`.

use wasmtime::component::Resource;
use wbuild_graph::decode::known;
use wbuild_graph::op::{LocalSource, SourceOp};
use wbuild_graph::{Attrs, Edge, Failure, NodeMeta, Op, Platform, decode};

use super::bindings::wbuild::frontend::graph;
use super::{ExecBuilder, FileBuilder, LocalBuilder, State, edge_in, edge_out};
use crate::v0_1::builders::{
    ExecDraft, FileDraft, Inputs, LocalDraft, Pairs, pairs_size, texts_size,
};
use crate::v0_1::types::{answer, digest_in, platform_in, span_in, wit};

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
        let op = decode::only_known(&attrs, "graph.image", known::IMAGE)
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
        let op = decode::only_known(&attrs, "graph.git", known::GIT)
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
            decode::http_attrs(&attrs)?;
            let checksum = checksum.as_deref().map(digest_in).transpose()?;
            Ok(Op::Source(SourceOp::Http { url, checksum, attrs }))
        };
        self.insert_single(op(), Vec::new())
    }

    fn local(
        &mut self,
        spec: Resource<LocalBuilder>,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        match self.finish(spec)? {
            Ok(LocalDraft { source, after }) => {
                self.insert_single(Ok(Op::Source(SourceOp::Local(source))), after)
            }
            Err(failure) => answer(Err(failure)),
        }
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
        attrs: Pairs,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        let op = decode::only_known(&Attrs(attrs), "graph.merge", &[]).map(|()| Op::Merge);
        self.insert_single(op, layers.into_iter().map(edge_in).collect())
    }

    fn diff(
        &mut self,
        lower: Option<graph::Output>,
        upper: Option<graph::Output>,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        let mut inputs = Inputs::default();
        let lower = lower.map(|output| inputs.add(edge_in(output)));
        let upper = upper.map(|output| inputs.add(edge_in(output)));
        let op = decode::only_known(&Attrs(attrs), "graph.diff", &[])
            .map(|()| Op::Diff { lower, upper });
        self.insert_single(op, inputs.into_edges())
    }

    fn annotate(
        &mut self,
        at: graph::Output,
        name: String,
        spans: Vec<wit::Span>,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        self.meter.charge(name.len() + spans.len() * 12 + pairs_size(&attrs))?;
        let attrs = Attrs(attrs);
        let meta = || {
            let known = ["group", "group-name", "hidden"];
            decode::only_known(&attrs, "graph.annotate", &known)?;
            let group = attrs
                .get("group")
                .map(|id| (id.to_owned(), attrs.get("group-name").unwrap_or(id).to_owned()));
            let spans = spans.into_iter().map(span_in).collect();
            Ok(NodeMeta { name, spans, group, hidden: decode::flag(&attrs, "hidden")? })
        };
        let graph = &self.caps()?.graph;
        answer(meta().and_then(|meta| graph.annotate(edge_in(at), meta)))
    }

    fn ignore_cache(&mut self, at: graph::Output) -> wasmtime::Result<Result<(), wit::Failure>> {
        answer(self.caps()?.graph.ignore_cache(edge_in(at)))
    }

    fn same_work(
        &mut self,
        at: graph::Output,
        other: graph::Output,
    ) -> wasmtime::Result<Result<bool, wit::Failure>> {
        answer(self.caps()?.graph.same_work(edge_in(at), edge_in(other)))
    }
}

impl graph::HostLocalSource for State {
    fn new(&mut self, name: String) -> wasmtime::Result<Resource<LocalBuilder>> {
        let bytes = name.len();
        let source = LocalSource { name, ..LocalSource::default() };
        self.begin(LocalDraft { source, after: Vec::new() }, bytes)
    }

    fn include(&mut self, this: Resource<LocalBuilder>, pattern: String) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&pattern]), |local| {
            local.source.include.push(pattern);
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
            local.source.exclude.push(wbuild_graph::op::IgnorePattern { pattern, at });
            Ok(())
        })
    }

    fn follow(&mut self, this: Resource<LocalBuilder>, path: String) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&path]), |local| {
            local.source.follow.push(path);
            Ok(())
        })
    }

    fn after(&mut self, this: Resource<LocalBuilder>, at: graph::Output) -> wasmtime::Result<()> {
        self.edit(&this, size_of::<graph::Output>(), |local| {
            local.after.push(edge_in(at));
            Ok(())
        })
    }

    fn attrs(&mut self, this: Resource<LocalBuilder>, attrs: Pairs) -> wasmtime::Result<()> {
        self.edit(&this, pairs_size(&attrs), |local| {
            let attrs = Attrs(attrs);
            decode::only_known(&attrs, "local-source.attrs", &[])?;
            local.source.attrs.0.extend(attrs.0);
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
            decode::only_known(&limits, "exec-op.resources", known::RESOURCES)?;
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
            decode::only_known(&attrs, "exec-op.attrs", known::EXEC)?;
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
