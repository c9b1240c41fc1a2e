//! The host of the languages over the plugin interface: that of Dockerfiles, and, in its component,
//! that of Earthfiles.

use crate::bindings::wbuild::frontend::{diagnostics, graph, inspect, request, results};
use crate::bindings::wbuild::types::types as wit;
use crate::convert::{self, failure_in, platform_in, platform_out, span_out};
use wbuild_dockerfile::{
    DefinitionFile, Diagnostic, Exec, ExecMount, Failure, FileAction, FileOp, Host, ImageInfo,
    ImageRequest, LocalSource, NamedContext, Output, Platform, Span,
};

/// How much of a file is asked for at a time; the host may give less.
const PIECE: u32 = 1 << 20;
/// Files above this size are refused.
const MOST_BYTES: usize = 16 << 20;

/// The plugin interface as the language sees it. All other state is the host's.
#[derive(Default)]
pub struct Bridge {
    /// What stands for the definition file, where a language is made of another.
    pub definition: Option<DefinitionFile>,
}

/// Ordered key/value pairs.
pub type Attrs = Vec<(String, String)>;

pub fn output_out(output: Output) -> graph::Output {
    graph::Output { node: output.node, index: output.index }
}

pub fn output_in(output: graph::Output) -> Output {
    Output { node: output.node, index: output.index }
}

fn node(answer: Result<graph::Output, wit::Failure>) -> Result<Output, Failure> {
    answer.map(output_in).map_err(failure_in)
}

impl Host for Bridge {
    fn definition(&mut self) -> Result<DefinitionFile, Failure> {
        if let Some(file) = &self.definition {
            return Ok(file.clone());
        }
        let file = request::definition().map_err(failure_in)?;
        Ok(DefinitionFile { name: file.name, data: file.data, attrs: file.attrs })
    }

    fn opt(&mut self, name: &str) -> Option<String> {
        request::opt(name)
    }

    fn opts(&mut self, prefix: &str) -> Attrs {
        request::opts(prefix)
    }

    fn targets(&mut self) -> Vec<String> {
        request::targets()
    }

    fn build_platform(&mut self) -> Platform {
        platform_in(request::build_platform())
    }

    fn target_platforms(&mut self) -> Vec<Platform> {
        request::target_platforms().into_iter().map(platform_in).collect()
    }

    fn context_names(&mut self) -> Vec<String> {
        request::context_names()
    }

    fn context(
        &mut self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Option<NamedContext>, Failure> {
        let platform = platform.map(platform_out);
        let context = request::context(name, platform.as_ref()).map_err(failure_in)?;
        Ok(context.map(|context| NamedContext {
            kind: context.kind(),
            identifier: context.identifier(),
            root: context.root().map(output_in),
            config: context.config(),
            attrs: context.attrs(),
        }))
    }

    fn epoch(&mut self) -> Option<u64> {
        request::epoch()
    }

    fn add_source(&mut self, name: &str, language: &str, text: &[u8]) -> Result<u32, Failure> {
        diagnostics::add_source(name, language, text).map_err(failure_in)
    }

    fn map_source(&mut self, generated: Span, original: Span) -> Result<(), Failure> {
        let ranges = [(span_out(generated), span_out(original))];
        diagnostics::map_source(&ranges).map_err(failure_in)
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        diagnostics::report(&convert::diagnostic_out(diagnostic));
    }

    fn resolve_images(&mut self, requests: &[ImageRequest]) -> Vec<Result<ImageInfo, Failure>> {
        let requests: Vec<inspect::ImageRequest> = requests
            .iter()
            .map(|request| inspect::ImageRequest {
                reference: request.reference.clone(),
                platform: Some(platform_out(&request.platform)),
                attrs: request.attrs.clone(),
            })
            .collect();
        let answers = inspect::resolve_images(&requests).into_iter();
        let info = |info: inspect::ImageInfo| ImageInfo {
            reference: info.reference,
            platform: platform_in(info.platform),
            config: info.config,
        };
        answers.map(|answer| answer.map(info).map_err(failure_in)).collect()
    }

    fn read_file(&mut self, at: Output, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        let mut data = Vec::new();
        loop {
            match inspect::read_file(output_out(at), path, data.len() as u64, PIECE) {
                Ok(piece) if piece.is_empty() => return Ok(Some(data)),
                Ok(mut piece) => data.append(&mut piece),
                Err(failure) if failure.kind == "not-found" => return Ok(None),
                Err(failure) => return Err(failure_in(failure)),
            }
            if data.len() > MOST_BYTES {
                let message = format!("the file {path} is larger than {} MiB", MOST_BYTES >> 20);
                return Err(Failure::new("limit", message));
            }
        }
    }

    fn image(&mut self, request: &ImageRequest) -> Result<Output, Failure> {
        let platform = platform_out(&request.platform);
        node(graph::image(&request.reference, Some(&platform), &request.attrs))
    }

    fn local(&mut self, source: &LocalSource) -> Result<Output, Failure> {
        let builder = graph::LocalSource::new(&source.name);
        for pattern in &source.include {
            builder.include(pattern);
        }
        for (pattern, at) in &source.exclude {
            builder.exclude(pattern, at.map(span_out));
        }
        node(graph::local(builder))
    }

    fn git(&mut self, url: &str, reference: &str, attrs: &Attrs) -> Result<Output, Failure> {
        node(graph::git(url, reference, attrs))
    }

    fn http(
        &mut self,
        url: &str,
        checksum: Option<&str>,
        attrs: &Attrs,
    ) -> Result<Output, Failure> {
        node(graph::http(url, checksum, attrs))
    }

    fn exec(&mut self, exec: &Exec) -> Result<Output, Failure> {
        let outputs = graph::exec(exec_op(exec)).map_err(failure_in)?;
        // The root is the only bind whose writes are kept.
        let root = outputs.into_iter().next().map(output_in);
        root.ok_or_else(|| Failure::new("internal", "the host gave no output for the root"))
    }

    fn file(&mut self, op: &FileOp) -> Result<Output, Failure> {
        let builder = graph::FileOp::new(op.base.map(output_out));
        if let Some(at) = op.names_from {
            builder.names_from(output_out(at));
        }
        for (span, action) in &op.actions {
            builder.mark(span_out(*span));
            match action {
                FileAction::Copy(copy) => builder.copy(
                    output_out(copy.source),
                    std::slice::from_ref(&copy.path),
                    &copy.target,
                    &copy.opts,
                ),
                FileAction::Write { path, data, opts } => builder.write(path, data, opts),
                FileAction::Mkdir { path, opts } => builder.mkdir(path, opts),
            }
        }
        node(graph::file(builder))
    }

    fn merge(&mut self, layers: &[Output]) -> Result<Output, Failure> {
        let layers: Vec<graph::Output> = layers.iter().copied().map(output_out).collect();
        node(graph::merge(&layers, &[]))
    }

    fn annotate(&mut self, at: Output, name: &str, spans: &[Span], attrs: &Attrs) {
        let spans: Vec<wit::Span> = spans.iter().copied().map(span_out).collect();
        // A name that is refused costs the step its name, not the build.
        let _ = graph::annotate(output_out(at), name, &spans, attrs);
    }

    fn ignore_cache(&mut self, at: Output) -> Result<(), Failure> {
        graph::ignore_cache(output_out(at)).map_err(failure_in)
    }

    fn result(
        &mut self,
        platform: &Platform,
        root: Option<Output>,
        config: &str,
    ) -> Result<(), Failure> {
        let platform = platform_out(platform);
        results::image("", Some(&platform), root.map(output_out), config, &[]).map_err(failure_in)
    }
}

fn exec_op(exec: &Exec) -> graph::ExecOp {
    let op = graph::ExecOp::new(&exec.args);
    op.env(&exec.env);
    if !exec.volatile_env.is_empty() {
        op.volatile_env(&exec.volatile_env);
    }
    op.cwd(&exec.cwd);
    if !exec.user.is_empty() {
        op.user(&exec.user);
    }
    op.hostname(&exec.hostname);
    op.platform(&platform_out(&exec.platform));
    op.network(&exec.network);
    op.security(&exec.security);
    for (name, address) in &exec.add_hosts {
        op.add_host(name, address);
    }
    for (name, soft, hard) in &exec.ulimits {
        op.ulimit(name, *soft, *hard);
    }
    for (name, required) in &exec.devices {
        op.device(name, *required);
    }
    op.bind("/", exec.root.map(output_out), "", "rw", &[]);
    if let Some(limit) = exec.capture {
        op.capture(limit);
    }
    for mount in &exec.mounts {
        match mount {
            ExecMount::Bind { target, source, subpath, access } => {
                op.bind(target, source.map(output_out), subpath, access.as_str(), &[]);
            }
            ExecMount::Cache(cache) => op.cache_dir(
                &cache.target,
                &cache.id,
                cache.sharing,
                cache.seed.map(output_out),
                &cache.opts,
            ),
            ExecMount::Tmpfs { target, opts } => op.tmpfs(target, opts),
            ExecMount::SecretFile { target, id, required, opts } => {
                op.secret_file(target, id, *required, opts);
            }
            ExecMount::SecretEnv { name, id, required } => op.secret_env(name, id, *required),
            ExecMount::Ssh { target, id, required, opts } => op.ssh(target, id, *required, opts),
        }
    }
    op
}
