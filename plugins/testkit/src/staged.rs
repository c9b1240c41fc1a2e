//! The other half of a host: a machine that is not there, as a [`Case`] says it would answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use wbuild_api::extension::{
    DefinitionFile, Entry, FrontendHost, ImageInfo, ImageRequest, InspectCap, NamedContext,
    Outcome, ReadDir, RequestCap, SourceInfo, SourceRequest,
};
use wbuild_api::texts::options_of;
use wbuild_graph::op::{ExecOp, FileActionKind, FileOp, SourceOp, Unpack};
use wbuild_graph::{
    Attrs, Diagnostic, Digest, Edge, Failure, FailureKind, Label, NodeId, Op, Platform, Severity,
};

use crate::bench::{Bench, lock};
use crate::case::{Case, Context, FakeExec, FakeImage};
use crate::tree::{Node, Tree, clean};

/// The context that the definition lies in.
const DEFINITION_CONTEXT: &str = "dockerfile";

/// Bytes that one read answers at most.
const READ_BYTES: u32 = 1 << 20;

/// A run of a case.
pub(crate) struct Staged {
    pub(crate) case: Arc<Case>,
    pub(crate) bench: Arc<Bench>,
    /// What has been solved.
    solved: Mutex<HashMap<NodeId, Result<Arc<Solved>, Failure>>>,
}

/// What a node has come to.
#[derive(Default)]
struct Solved {
    /// By output; one that is not said has the files of the first.
    outputs: Vec<Tree>,
    outcome: Option<Arc<Outcome>>,
}

impl Staged {
    pub(crate) fn new(case: &Arc<Case>) -> Arc<Staged> {
        let mut bench = Bench::new(case.limits, case.platforms[0].clone());
        let files = |context: &Context| matches!(context, Context::Files(_));
        let lent = case.contexts.iter().filter(|(_, context)| files(context));
        let mut locals: std::collections::BTreeSet<String> =
            lent.map(|(name, _)| name.clone()).collect();
        locals.insert(DEFINITION_CONTEXT.to_owned());
        bench.locals = Some(locals);
        bench.allow.clone_from(&case.allow);
        bench.network = case.network;
        bench.in_directory = case.contexts.get("context").is_some_and(files);
        let (case, bench) = (Arc::clone(case), Arc::new(bench));
        Arc::new(Staged { case, bench, solved: Mutex::default() })
    }

    pub(crate) fn host(self: &Arc<Self>) -> FrontendHost {
        FrontendHost {
            graph: Arc::clone(&self.bench) as _,
            inspect: Arc::clone(self) as _,
            request: Arc::clone(self) as _,
            diagnostics: Arc::clone(&self.bench) as _,
            results: Arc::clone(&self.bench) as _,
            nested: Arc::clone(self) as _,
            log: Arc::clone(&self.bench) as _,
        }
    }

    fn image_of(
        &self,
        reference: &str,
        platform: &Platform,
    ) -> Result<(&str, &FakeImage), Failure> {
        let name = reference.split_once('@').map_or(reference, |(name, _)| name);
        let found =
            [reference, name].into_iter().find_map(|key| self.case.images.get_key_value(key));
        let Some((key, image)) = found else {
            return Err(Failure::not_found(format!("there is no image {reference}"))
                .hint(format!("the case may have one: [images.\"{name}\"]")));
        };
        if !image.platforms.is_empty() && !image.platforms.contains(platform) {
            let message = format!("the image {reference} is not there for {platform}");
            return Err(Failure::not_found(message));
        }
        Ok((key, image))
    }

    /// The files of an output, and what is known of the node, with everything it needs.
    fn solve(&self, at: Edge) -> Result<Arc<Solved>, Failure> {
        let definition = lock(&self.bench.definition).clone();
        definition.check_edge(at)?;
        let mut stack = vec![at.node];
        let mut solved = lock(&self.solved);
        while let Some(&node) = stack.last() {
            if solved.contains_key(&node) {
                stack.pop();
                continue;
            }
            let vertex = definition.vertex(node);
            let inputs = vertex.inputs.iter().map(|edge| edge.node);
            let missing: Vec<NodeId> = inputs.filter(|input| !solved.contains_key(input)).collect();
            if !missing.is_empty() {
                stack.extend(missing);
                continue;
            }
            let inputs = vertex.inputs.iter().map(|edge| {
                let input = solved.get(&edge.node).cloned();
                let input = input.ok_or_else(|| Failure::internal("an input was not solved"))??;
                Ok(input.tree(edge.index))
            });
            let result = inputs
                .collect::<Result<Vec<Tree>, Failure>>()
                .and_then(|inputs| self.run(&vertex.op, &definition.meta(node).name, &inputs))
                .map(Arc::new)
                .map_err(|failure| placed(failure, definition.meta(node)));
            solved.insert(node, result);
        }
        solved.get(&at.node).cloned().unwrap_or_else(|| Err(Failure::internal("it was not solved")))
    }

    fn tree(&self, at: Edge) -> Result<Tree, Failure> {
        Ok(self.solve(at)?.tree(at.index))
    }

    fn run(&self, op: &Op, name: &str, inputs: &[Tree]) -> Result<Solved, Failure> {
        let of = |input: &Option<u32>| {
            input.and_then(|at| inputs.get(at as usize)).cloned().unwrap_or_default()
        };
        let tree = match op {
            Op::Source(source) => self.fetch(source)?,
            Op::Exec(exec) => {
                let root = match exec.mounts.first().map(|mount| &mount.kind) {
                    Some(wbuild_graph::op::MountKind::Bind { source, .. }) => of(source),
                    _ => Tree::new(),
                };
                return self.exec(exec, name, root, op.outputs());
            }
            Op::File(file) => act(file, of(&file.base), inputs)?,
            Op::Merge => {
                let mut tree = Tree::new();
                inputs.iter().for_each(|layer| tree.extend(layer));
                tree
            }
            Op::Diff { lower, upper } => {
                let lower = of(lower);
                let mut tree = of(upper);
                for (path, node) in lower.iter() {
                    let same = tree.iter().any(|(known, other)| known == path && other == node);
                    if same && *node != Node::Directory {
                        tree.remove(path);
                    }
                }
                tree
            }
        };
        Ok(Solved { outputs: vec![tree], outcome: None })
    }

    fn fetch(&self, source: &SourceOp) -> Result<Tree, Failure> {
        let known = |url: &str| {
            let found = self.case.sources.get(url).map(|source| source.files.clone());
            found.ok_or_else(|| no_source(url))
        };
        match source {
            SourceOp::Image { reference, platform, .. } => {
                Ok(self.image_of(reference, platform)?.1.files.clone())
            }
            SourceOp::Local(local) => {
                let tree = match self.case.contexts.get(&local.name) {
                    Some(Context::Files(tree)) => tree.clone(),
                    _ => Tree::new().file(&self.case.name, &self.case.definition),
                };
                tree.seen_through(local)
            }
            SourceOp::Git { url, .. } | SourceOp::Http { url, .. } => known(url),
            SourceOp::Other { identifier, .. } => match self.yielded_by(identifier) {
                Some(files) => Ok(files),
                None => known(identifier),
            },
        }
    }

    fn exec(
        &self,
        exec: &ExecOp,
        name: &str,
        mut root: Tree,
        outputs: u32,
    ) -> Result<Solved, Failure> {
        let found = self.case.execs.iter().find(|known| known.matches(&exec.args, name));
        // What is only run ends well, unless the case says otherwise; what is asked about must be said.
        let fine = FakeExec::default();
        let found = found.or_else(|| exec.capture.is_none().then_some(&fine));
        let Some(FakeExec { exit_code, stdout, stderr, files, .. }) = found else {
            let message = format!("the case does not say what {:?} does", exec.args);
            return Err(Failure::new(FailureKind::Unavailable, message)
                .hint("say it: [[exec]] with contains = \"…\", exit-code, stdout, files"));
        };
        root.extend(files);
        let limit = exec.capture.map_or(usize::MAX, |limit| limit as usize);
        let cut = |text: &[u8]| (text[..text.len().min(limit)].to_vec(), text.len() > limit);
        let (stdout, stdout_truncated) = cut(stdout);
        let (stderr, stderr_truncated) = cut(stderr);
        let code = *exit_code;
        if exec.capture.is_none() && code != 0 && !exec.valid_exit_codes.contains(&code) {
            let message =
                format!("the process {:?} ended with exit code {code}", exec.args.join(" "));
            return Err(
                Failure::new(FailureKind::ExecFailed, message).attr("exit-code", code.to_string())
            );
        }
        let outcome =
            Outcome { exit_code: code, stdout, stdout_truncated, stderr, stderr_truncated };
        Ok(Solved {
            outputs: vec![root; outputs as usize],
            outcome: exec.capture.is_some().then(|| Arc::new(outcome)),
        })
    }
}

impl Solved {
    fn tree(&self, output: u32) -> Tree {
        self.outputs.get(output as usize).or(self.outputs.first()).cloned().unwrap_or_default()
    }
}

/// A failure of a node is shown where the node comes from.
fn placed(mut failure: Failure, meta: &wbuild_graph::NodeMeta) -> Failure {
    if failure.diagnostics.is_empty() && !meta.spans.is_empty() {
        let label = |at: &wbuild_graph::Span| Label { at: *at, text: String::new(), primary: true };
        failure.diagnostics.push(Diagnostic {
            severity: Severity::Error,
            code: None,
            message: failure.message.clone(),
            labels: meta.spans.iter().map(label).collect(),
            help: None,
            url: None,
            attrs: Attrs::default(),
        });
    }
    failure
}

fn no_source(url: &str) -> Failure {
    Failure::not_found(format!("there is nothing at {url}"))
        .hint(format!("the case may have it: [sources.\"{url}\"]"))
}

/// File actions, as far as a copy is of paths that are written out.
fn act(file: &FileOp, mut tree: Tree, inputs: &[Tree]) -> Result<Tree, Failure> {
    for action in &file.actions {
        match &action.kind {
            FileActionKind::Write { path, data, .. } => {
                tree.put(path, Node::File(data.as_slice().into(), 0o644));
            }
            FileActionKind::Mkdir { path, .. } => tree.put(path, Node::Directory),
            FileActionKind::Symlink { path, target, .. } => {
                tree.put(path, Node::Symlink(target.clone()));
            }
            FileActionKind::Remove { path, wildcard: false, allow_missing } => {
                if !tree.remove(&clean(path)?) && !allow_missing {
                    return Err(Failure::not_found(format!("there is no {path} to remove")));
                }
            }
            FileActionKind::Copy { source, paths, target, opts }
                if !opts.parents
                    && opts.include.is_empty()
                    && opts.exclude.is_empty()
                    && opts.unpack == Unpack::Never
                    && !paths.iter().any(|path| {
                        opts.wildcard && wbuild_ignore::glob::has_wildcard(path.as_bytes())
                    }) =>
            {
                let from = inputs.get(*source as usize).cloned().unwrap_or_default();
                for path in paths {
                    let path = clean(path)?;
                    let directory = target.ends_with('/') || tree.is_directory(&clean(target)?);
                    let whole = from.is_directory(&path) && opts.contents_only;
                    let name = path.rsplit('/').next().unwrap_or_default();
                    let to = match directory && !whole && !from.is_directory(&path) {
                        true => format!("{target}/{name}"),
                        false => target.clone(),
                    };
                    let found = tree.copy(&from, &path, &clean(&to)?, whole || !directory);
                    if !found && !opts.allow_missing {
                        return Err(Failure::not_found(format!("there is no {path} to copy")));
                    }
                }
            }
            FileActionKind::Remove { .. } | FileActionKind::Copy { .. } => {
                return Err(Failure::unsupported(
                    "a case does not know what files patterns and archives in file actions bring",
                )
                .hint("look at what they are copied from, or let an [[exec]] bring the files"));
            }
        }
    }
    Ok(tree)
}

#[async_trait]
impl InspectCap for Staged {
    async fn resolve_images(&self, requests: Vec<ImageRequest>) -> Vec<Result<ImageInfo, Failure>> {
        let resolve = |request: ImageRequest| {
            let platform = request.platform.unwrap_or_else(|| self.case.platforms[0].clone());
            let (name, image) = self.image_of(&request.reference, &platform)?;
            let manifest = Digest::of(format!("{name} {platform} {}", image.config).as_bytes());
            Ok(ImageInfo {
                reference: format!("{name}@{manifest}"),
                manifest,
                platform,
                config: image.config.clone(),
                attrs: Attrs::default(),
            })
        };
        requests.into_iter().map(resolve).collect()
    }

    async fn resolve_sources(
        &self,
        requests: Vec<SourceRequest>,
    ) -> Vec<Result<SourceInfo, Failure>> {
        let resolve = |request: SourceRequest| {
            let found =
                self.case.sources.get(&request.url).ok_or_else(|| no_source(&request.url))?;
            Ok(SourceInfo { pin: found.pin.clone(), attrs: found.attrs.clone() })
        };
        requests.into_iter().map(resolve).collect()
    }

    async fn read_file(
        &self,
        at: Edge,
        path: String,
        offset: u64,
        length: u32,
    ) -> Result<Vec<u8>, Failure> {
        self.tree(at)?.read(&path, offset, length.min(READ_BYTES))
    }

    async fn stat(&self, at: Edge, path: String) -> Result<Option<Entry>, Failure> {
        self.tree(at)?.stat(&path)
    }

    async fn read_dir(&self, at: Edge, query: ReadDir) -> Result<Vec<Entry>, Failure> {
        self.tree(at)?.read_dir(&query)
    }

    fn start(&self, _at: Vec<Edge>) {}

    async fn evaluate(&self, at: Vec<Edge>) -> Vec<Result<(), Failure>> {
        at.into_iter().map(|edge| self.solve(edge).map(drop)).collect()
    }

    async fn outcome_of(&self, at: Edge) -> Result<Arc<Outcome>, Failure> {
        let outcome = self.solve(at)?.outcome.clone();
        outcome
            .ok_or_else(|| Failure::invalid(format!("node {} is no exec with capture", at.node.0)))
    }
}

#[async_trait]
impl RequestCap for Staged {
    fn definition(&self) -> Result<DefinitionFile, Failure> {
        let attrs = [("path", self.case.name.as_str()), ("context", DEFINITION_CONTEXT)];
        Ok(DefinitionFile {
            name: self.case.name.clone(),
            data: self.case.definition.clone(),
            attrs: Attrs(attrs.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec()),
        })
    }

    async fn opt(&self, name: String) -> Option<String> {
        self.case.options.get(&name).map(str::to_owned)
    }

    async fn opts(&self, prefix: String) -> Attrs {
        options_of(&self.case.options, &prefix)
    }

    fn targets(&self) -> Vec<String> {
        self.case.targets.clone()
    }

    fn build_platform(&self) -> Platform {
        self.case.build_platform.clone()
    }

    fn target_platforms(&self) -> Vec<Platform> {
        self.case.platforms.clone()
    }

    fn context(
        &self,
        name: String,
        platform: Option<Platform>,
    ) -> Result<Option<NamedContext>, Failure> {
        let contexts = &self.case.contexts;
        let specific = platform.map(|platform| format!("{name}::{platform}"));
        let found = specific
            .and_then(|specific| contexts.get_key_value(&specific))
            .or_else(|| contexts.get_key_value(&name));
        Ok(found.map(|(key, context)| {
            let (kind, identifier) = match context {
                Context::Files(_) => ("local", key),
                Context::Image(reference) => ("image", reference),
                Context::Git(url) => ("git", url),
                Context::Http(url) => ("http", url),
            };
            NamedContext {
                kind: kind.to_owned(),
                identifier: identifier.clone(),
                root: None,
                config: None,
                attrs: Attrs::default(),
            }
        }))
    }

    fn context_names(&self) -> Vec<String> {
        self.case.contexts.keys().cloned().collect()
    }

    fn has_secret(&self, id: String) -> bool {
        self.case.secrets.contains(&id)
    }

    fn has_ssh(&self, id: String) -> bool {
        self.case.ssh.contains(&id)
    }

    fn epoch(&self) -> Option<u64> {
        self.case.epoch
    }

    fn supports(&self, _feature: String) -> bool {
        // As of the packages' first release.
        false
    }
}
