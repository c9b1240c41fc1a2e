//! Interface `graph`.

use wasmtime::component::Resource;
use wbuild_graph::draft::{self, ExecDraft, FileDraft, LocalDraft};
use wbuild_graph::op::SourceOp;
use wbuild_graph::{Attrs, Edge, Failure, Op, Platform};

use super::bindings::wbuild::frontend::graph;
use super::{ExecBuilder, FileBuilder, LocalBuilder, State, edge_in, edge_out};
use crate::limits::{Pairs, pairs_size, platform_size, texts_size};
use crate::v0_1::types::{answer, platform_in, span_in, wit};

/// The only output of a node that has one.
fn single(outputs: Vec<Edge>) -> Result<graph::Output, Failure> {
    match outputs[..] {
        [edge] => Ok(edge_out(edge)),
        _ => Err(Failure::internal(format!("a node has {} outputs, not one", outputs.len()))),
    }
}

impl State {
    fn insert_single(
        &self,
        node: Result<(Op, Vec<Edge>), Failure>,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        let graph = &self.caps()?.graph;
        answer(node.and_then(|(op, inputs)| graph.insert(op, inputs)).and_then(single))
    }

    fn insert_source(
        &self,
        op: Result<Op, Failure>,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        self.insert_single(op.map(|op| (op, Vec::new())))
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
        self.insert_source(draft::image(reference, platform, Attrs(attrs)))
    }

    fn git(
        &mut self,
        url: String,
        reference: String,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        self.insert_source(draft::git(url, reference, Attrs(attrs)))
    }

    fn http(
        &mut self,
        url: String,
        checksum: Option<String>,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        self.insert_source(draft::http(url, checksum.as_deref(), Attrs(attrs)))
    }

    fn local(
        &mut self,
        spec: Resource<LocalBuilder>,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        let spec = self.finish(spec)?;
        self.insert_single(spec.map(LocalDraft::finish))
    }

    fn source(
        &mut self,
        identifier: String,
        platform: Option<wit::Platform>,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        let platform = platform.map(platform_in);
        let op = Op::Source(SourceOp::Other { identifier, platform, attrs: Attrs(attrs) });
        self.insert_source(Ok(op))
    }

    fn exec(
        &mut self,
        op: Resource<ExecBuilder>,
    ) -> wasmtime::Result<Result<Vec<graph::Output>, wit::Failure>> {
        let op = self.finish(op)?;
        let graph = &self.caps()?.graph;
        let outputs = op.map(ExecDraft::finish).and_then(|(op, inputs)| graph.insert(op, inputs));
        answer(outputs.map(|edges| edges.into_iter().map(edge_out).collect()))
    }

    fn file(
        &mut self,
        op: Resource<FileBuilder>,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        let op = self.finish(op)?;
        self.insert_single(op.map(FileDraft::finish))
    }

    fn merge(
        &mut self,
        layers: Vec<graph::Output>,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        self.meter.batch(layers.len())?;
        let layers = layers.into_iter().map(edge_in).collect();
        self.insert_single(draft::merge(layers, &Attrs(attrs)))
    }

    fn diff(
        &mut self,
        lower: Option<graph::Output>,
        upper: Option<graph::Output>,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<graph::Output, wit::Failure>> {
        self.insert_single(draft::diff(lower.map(edge_in), upper.map(edge_in), &Attrs(attrs)))
    }

    fn annotate(
        &mut self,
        at: graph::Output,
        name: String,
        spans: Vec<wit::Span>,
        attrs: Pairs,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        self.meter.charge(name.len() + spans.len() * 12 + pairs_size(&attrs))?;
        let spans = spans.into_iter().map(span_in).collect();
        let meta = draft::annotation(name, spans, &Attrs(attrs));
        let graph = &self.caps()?.graph;
        answer(meta.and_then(|meta| graph.annotate(edge_in(at), meta)))
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
        let bytes = texts_size([&name]);
        self.begin(LocalDraft::new(name), bytes)
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
            local.exclude(pattern, at.map(span_in));
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
        self.edit(&this, pairs_size(&attrs), |local| local.attrs(Attrs(attrs)))
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
        let platform = platform_in(platform);
        self.edit(&this, platform_size(&platform), |draft| {
            draft.op.platform = platform;
            Ok(())
        })
    }

    fn network(&mut self, this: Resource<ExecBuilder>, mode: String) -> wasmtime::Result<()> {
        self.edit(&this, 0, |draft| draft.network(&mode))
    }

    fn security(&mut self, this: Resource<ExecBuilder>, mode: String) -> wasmtime::Result<()> {
        self.edit(&this, 0, |draft| draft.security(&mode))
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
            draft.ulimit(name, soft, hard);
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
        self.edit(&this, pairs_size(&limits), |draft| draft.resources(Attrs(limits)))
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
            draft.tmpfs(target, &Attrs(opts))
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
            draft.secret_env(name, id, required);
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
        self.edit(&this, pairs_size(&attrs), |draft| draft.attrs(Attrs(attrs)))
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
        self.edit(&this, size_of::<graph::Output>(), |draft| {
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
