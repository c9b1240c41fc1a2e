//! The content that an op reads of an input: for keys, and checked again when it is copied.

use std::collections::BTreeMap;
use std::sync::Arc;

use wbuild_graph::encode::Encoder;
use wbuild_graph::op::{CopyOpts, FileActionKind, MountKind};
use wbuild_graph::{ContentDigest, Failure, FailureKind, Op, Span};
use wbuild_solver::SolveVertex;
use wbuild_tree::TreeError;
use wbuild_tree::par::Work;
use wbuild_tree::root::Root;
use wbuild_tree::select::{SelectOptions, Selection, Source, SourceKind, select};
use wbuild_tree::walk::Filter;

use crate::blocking;
use crate::cancel::CancelOnDrop;
use crate::solved::Output;
use crate::source::local::{LocalTree, point};
use crate::worker::BuildWorker;

/// One read of an input.
pub(crate) struct Read {
    pub(crate) paths: Vec<String>,
    pub(crate) options: SelectOptions,
    pub(crate) mark: Option<Span>,
}

impl Read {
    /// What a copy action reads.
    pub(crate) fn of_copy(paths: &[String], opts: &CopyOpts, mark: Option<Span>) -> Read {
        Read {
            paths: paths.to_vec(),
            options: SelectOptions {
                wildcard: opts.wildcard,
                contents_only: opts.contents_only,
                follow_links: opts.follow_links,
                parents: opts.parents,
                allow_missing: opts.allow_missing,
                include: opts.include.clone(),
                exclude: opts.exclude.clone(),
                required: opts.required.clone(),
                // A single file keeps its name where the target turns out to be a directory, which
                // a key cannot know: the name always counts.
                into_dir: true,
            },
            mark,
        }
    }

    /// One path with all below it.
    pub(crate) fn of_path(path: &str) -> Read {
        let options = SelectOptions { follow_links: true, ..SelectOptions::default() };
        Read { paths: vec![path.to_owned()], options, mark: None }
    }

    /// What a mount shows of a local directory: what is in it, or one file.
    pub(crate) fn of_local(path: &str) -> Read {
        let mut read = Read::of_path(path);
        read.options.contents_only = true;
        read
    }
}

/// What `op` reads of input number `input`; everything, if it does not read by content. `local`:
/// the input is a directory of the client's, which is imported as it is read.
fn reads(op: &Op, input: usize, local: bool) -> Vec<Read> {
    let mut reads = Vec::new();
    match op {
        Op::File(file) => {
            for action in &file.actions {
                if let FileActionKind::Copy { source, paths, opts, .. } = &action.kind
                    && *source as usize == input
                {
                    reads.push(Read::of_copy(paths, opts, action.mark));
                }
            }
            if file.base.is_some_and(|base| base as usize == input) {
                reads.push(Read::of_path("/"));
            }
        }
        Op::Exec(exec) => {
            for mount in &exec.mounts {
                match &mount.kind {
                    MountKind::Bind { source: Some(source), subpath, .. }
                        if *source as usize == input =>
                    {
                        reads.push(match local {
                            true => Read::of_local(subpath),
                            false => Read::of_path(subpath),
                        });
                    }
                    _ => {}
                }
            }
        }
        Op::Source(_) | Op::Merge | Op::Diff { .. } => {}
    }
    if reads.is_empty() {
        reads.push(Read::of_path("/"));
    }
    reads
}

/// An input opened for reading.
pub(crate) struct Opened {
    pub(crate) root: Root,
    pub(crate) filter: Filter,
    pub(crate) kind: SourceKind,
    pub(crate) local: Option<Arc<LocalTree>>,
    _lease: Option<wbuild_store::Lease>,
}

impl Opened {
    /// Opens an output's files.
    pub(crate) async fn new(worker: &BuildWorker, output: &Output) -> Result<Opened, Failure> {
        Opened::called(worker, output, "the stage or image").await
    }

    /// Opens the files of a vertex's input.
    pub(crate) async fn input(
        worker: &BuildWorker,
        vertex: &SolveVertex,
        input: usize,
        output: &Output,
    ) -> Result<Opened, Failure> {
        let from = vertex.inputs.get(input).map(|(digest, _)| digest);
        match from.is_some() && from == worker.main_context.get() {
            true => Opened::called(worker, output, "the build context").await,
            false => Opened::new(worker, output).await,
        }
    }

    /// `place` is what messages call files that are layers.
    async fn called(worker: &BuildWorker, output: &Output, place: &str) -> Result<Opened, Failure> {
        let (fd, lease) = worker.files_of(output).await?;
        Ok(match output {
            Output::Tree(_) => Opened {
                root: Root::from_fd(fd, place),
                filter: Filter::all(),
                kind: SourceKind::Image,
                local: None,
                _lease: lease,
            },
            Output::Local(local) => Opened {
                root: Root::from_fd(fd, &format!("the build context ({})", local.display())),
                filter: local.filter.clone(),
                kind: SourceKind::Context,
                local: Some(Arc::clone(local)),
                _lease: lease,
            },
        })
    }

    /// A failure to read it.
    pub(crate) fn failure(&self, error: TreeError, mark: Option<Span>) -> Failure {
        match &self.local {
            Some(local) => local.failure(error, mark),
            None => point(error.into(), mark, None),
        }
    }

    pub(crate) fn source(&self) -> Source<'_> {
        Source { root: &self.root, filter: &self.filter, kind: self.kind }
    }

    /// Selects what a read covers, with digests.
    pub(crate) fn select(
        &self,
        read: &Read,
        work: &Work,
    ) -> Result<(Selection, ContentDigest), Failure> {
        let source = self.source();
        let index = self.local.as_ref().map(|local| local.kept.index());
        let selected =
            select(&source, &read.paths, &read.options, work).and_then(|mut selection| {
                let digest = selection.digest(&source, index, work)?;
                Ok((selection, digest))
            });
        selected.map_err(|error| self.failure(error, read.mark))
    }
}

/// The digest of what the op of `vertex` reads of its input number `input`, and what that is.
pub(crate) async fn digest(
    worker: &BuildWorker,
    vertex: &SolveVertex,
    input: usize,
    output: &Output,
) -> Result<(ContentDigest, Vec<Selection>, SourceKind), Failure> {
    let reads = reads(vertex.op(), input, matches!(output, Output::Local(_)));
    // Opening may fetch and unpack, which wants a slot of its own.
    let opened = Opened::input(worker, vertex, input, output).await?;
    let _slot = worker.io_slots.acquire().await.expect("the semaphore is never closed");
    let (_cancel, work) = CancelOnDrop::new();
    blocking(move || -> Result<_, Failure> {
        let selected: Vec<(Selection, ContentDigest)> =
            reads.iter().map(|read| opened.select(read, &work)).collect::<Result<_, _>>()?;
        let (selections, digests): (Vec<_>, Vec<_>) = selected.into_iter().unzip();
        Ok((combine(&digests), selections, opened.kind))
    })
    .await
}

/// The digest of several reads of one input, in the order of the op.
pub(crate) fn combine(reads: &[ContentDigest]) -> ContentDigest {
    let mut e = Encoder::new("wbuild.content.v1");
    e.list(reads.iter(), |e, digest| {
        e.digest(digest.digest());
    });
    ContentDigest(e.finish())
}

/// What an op has read of its local inputs while it ran, to be compared with what its keys were made
/// of: a directory of the client's may change between the two.
#[derive(Default)]
pub(crate) struct ReadAgain(BTreeMap<usize, Vec<ContentDigest>>);

impl ReadAgain {
    /// Notes a read. In the order of the op.
    pub(crate) fn note(&mut self, input: u32, digest: ContentDigest) {
        self.0.entry(input as usize).or_default().push(digest);
    }

    /// Fails if any input was not what the keys of `vertex` say.
    pub(crate) fn check(
        &self,
        worker: &BuildWorker,
        vertex: &SolveVertex,
        inputs: &[Output],
    ) -> Result<(), Failure> {
        for (input, digests) in &self.0 {
            let Some(Output::Local(local)) = inputs.get(*input) else { continue };
            if worker.keyed(vertex, *input).is_some_and(|keyed| keyed != combine(digests)) {
                return Err(changed(local));
            }
        }
        Ok(())
    }
}

/// The failure of a local directory that did not stay the same.
pub(crate) fn changed(local: &LocalTree) -> Failure {
    let mut failure = Failure::new(
        FailureKind::Changed,
        format!("files of the build context {} changed while the build ran", local.display()),
    )
    .hint("build again; what was done so far is found in the cache");
    failure.retryable = true;
    failure
}
