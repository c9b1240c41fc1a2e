//! What a build is made of where the client has no directory or file of it: contexts and definitions
//! behind URLs, archives that are handed over.
//!
//! It is settled before a frontend runs, since the definition decides which one does. What is fetched
//! goes through the solver like any source, so the nodes that the frontend then gets are solved
//! already, and nothing is fetched twice.

use std::fmt;
use std::io::{Cursor, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use async_trait::async_trait;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use wbuild_api::extension::{DefinitionFile, Frontend};
use wbuild_api::request::{ContextSpec, DefinitionSource};
use wbuild_api::session::{Archive, BuildContext};
use wbuild_git_url::{GitSource, git_source};
use wbuild_graph::op::{CopyOpts, FileAction, FileActionKind, FileOp, SourceOp, Unpack};
use wbuild_graph::{
    Attrs, Definition, Edge, Failure, FailureKind, GraphLimits, NodeMeta, Op, SourceMap,
};
use wbuild_oci::layer::{Limits, Ownership, UnpackOptions, is_archive, unpack};
use wbuild_store::SnapshotBuilder;
use wbuild_tree::TreeError;
use wbuild_tree::par::Cancel;
use wbuild_tree::path::RelPath;
use wbuild_tree::root::{Links, Root};

use crate::blocking;
use crate::cancel::{CancelOnDrop, Stoppable};
use crate::job::{DEFINITION_LIMIT, Job};
use crate::narrow::Narrowed;
use crate::solved::Solved;
use crate::source::local::MAIN_CONTEXT;

/// The name of the one file of a download whose own name means nothing.
const FILE: &str = "context";
/// The option that keeps `.git` in a context that is a repository.
const KEEP_GIT_DIR: &str = "build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR";
/// What people see while the main context is fetched.
const TITLE: &str = "[internal] load build context";

/// What was settled.
#[derive(Default)]
pub(crate) struct Inputs {
    /// The definition; none if it is a file or a text of the client's.
    pub(crate) definition: Option<DefinitionFile>,
    /// The main context, where the request alone does not say what it is.
    pub(crate) main: Option<Main>,
    /// Whether the frontend may say what images are called, and so where they are pushed to with the
    /// user's credentials: those that come with wbuild may.
    pub(crate) names_images: bool,
    /// What the frontend, and those that it calls, may use.
    pub(crate) narrowed: Narrowed,
    /// Options that the choice of the frontend adds.
    pub(crate) options: Attrs,
}

/// A main context that is no directory of the client's.
pub(crate) enum Main {
    /// Each op on the output of the one before.
    Tree(Vec<(Op, NodeMeta)>),
    /// A URL stood for the definition alone.
    Nothing,
}

/// What reads the definition.
#[derive(Clone)]
pub enum Reader {
    /// This frontend.
    Frontend(Arc<dyn Frontend>),
    /// The one that the definition asks for.
    Chosen(Arc<dyn Choose>),
}

/// Chooses a frontend by what the definition says.
#[async_trait]
pub trait Choose: Send + Sync {
    /// Chooses.
    ///
    /// # Errors
    ///
    /// The definition asks for one that is not there; with the sources that the failure points into.
    async fn choose(
        &self,
        definition: &DefinitionFile,
    ) -> Result<Chosen, Box<(Failure, SourceMap)>>;
}

/// A frontend that a definition asked for.
pub struct Chosen {
    /// The frontend.
    pub frontend: Arc<dyn Frontend>,
    /// Options that it gets besides those of the request.
    pub options: Attrs,
    /// What there is to say of the choice.
    pub notes: Vec<String>,
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reader::Frontend(frontend) => f.write_str(&frontend.identity().name),
            Reader::Chosen(_) => f.write_str("of the definition"),
        }
    }
}

/// Settles the inputs of a job, and what reads its definition.
pub(crate) async fn settle(job: &Arc<Job>, reader: &Reader) -> Result<Arc<dyn Frontend>, Failure> {
    let mut inputs = Inputs::default();
    let request = job.request();
    match request.contexts.get(MAIN_CONTEXT) {
        Some(ContextSpec::Archive) => job.worker().locals.lend(Arc::new(take_in(job).await?)),
        Some(ContextSpec::Http(url)) => download(job, url, &mut inputs).await?,
        Some(ContextSpec::Git(url)) => {
            inputs.main =
                Some(Main::Tree(vec![repository_op(url, job.options().get(KEEP_GIT_DIR))]));
        }
        _ => {}
    }
    match &request.definition {
        DefinitionSource::InContext { directory, names } if inputs.definition.is_none() => {
            inputs.definition = Some(in_context(job, directory, names, &inputs).await?);
        }
        DefinitionSource::Url(url) => {
            let file = fetched(job, url, "[internal] load build definition").await?;
            inputs.definition = Some(definition_of(url, file).await?);
        }
        _ => {}
    }
    let frontend = match reader {
        Reader::Frontend(frontend) => Arc::clone(frontend),
        Reader::Chosen(chooser) => {
            let definition = match &inputs.definition {
                Some(definition) => definition.clone(),
                None => job.definition_file()?,
            };
            let chosen = chooser.choose(&definition).await.map_err(|refused| {
                let (failure, sources) = *refused;
                job.texts().set_sources(sources);
                failure
            })?;
            job.note(chosen.notes);
            inputs.options = chosen.options;
            chosen.frontend
        }
    };
    let identity = frontend.identity();
    inputs.names_images = identity.is_bundled();
    inputs.narrowed = Narrowed::new(&identity, &request.contexts)?;
    job.settle_inputs(inputs);
    Ok(frontend)
}

// ---- URLs ------------------------------------------------------------------------------------------

/// The main context behind a URL: what an archive holds, or nothing but a definition.
async fn download(job: &Arc<Job>, url: &str, inputs: &mut Inputs) -> Result<(), Failure> {
    let mut file = fetched(job, url, TITLE).await?;
    let (archive, file) = blocking(move || -> Result<_, Failure> {
        let archive = is_archive(&mut file)?;
        Ok((archive, file))
    })
    .await?;
    if archive {
        inputs.main = Some(Main::Tree(vec![download_op(url, TITLE), unpack_op()]));
        return Ok(());
    }
    match &job.request().definition {
        DefinitionSource::InContext { .. } => {
            inputs.main = Some(Main::Nothing);
            inputs.definition = Some(definition_of(url, file).await?);
            Ok(())
        }
        _ => Err(Failure::invalid(format!("{} is no archive, so it is no context", shown(url)))
            .hint("it can be the definition: leave out --file")),
    }
}

/// The file behind a URL.
async fn fetched(job: &Arc<Job>, url: &str, title: &str) -> Result<std::fs::File, Failure> {
    let (root, _) = solved(job, &[download_op(url, title)]).await?;
    blocking(move || -> Result<_, Failure> {
        Ok(root.open_file(&RelPath::clean(FILE)?, Links::Refuse)?)
    })
    .await
}

fn download_op(url: &str, title: &str) -> (Op, NodeMeta) {
    let mut attrs = Attrs::default();
    attrs.push("filename", FILE);
    let op = Op::Source(SourceOp::Http { url: url.to_owned(), checksum: None, attrs });
    let name = format!("{title}: fetch");
    (op, NodeMeta { name, hidden: true, ..NodeMeta::default() })
}

fn repository_op(url: &str, keep_git_dir: Option<&str>) -> (Op, NodeMeta) {
    let git = git_source(url)
        .unwrap_or_else(|| GitSource { url: url.to_owned(), ..GitSource::default() });
    // What else the option may say stands for no, as it does to `docker build`.
    let keep = matches!(keep_git_dir, Some("1" | "t" | "T" | "true" | "True" | "TRUE"));
    let attrs = Attrs(git.attrs(keep));
    let op = Op::Source(SourceOp::Git { url: git.url, reference: git.reference, attrs });
    (op, NodeMeta { name: TITLE.to_owned(), ..NodeMeta::default() })
}

/// What the archive at the top of the input holds.
fn unpack_op() -> (Op, NodeMeta) {
    let opts = CopyOpts { create_dest: true, unpack: Unpack::Always, ..CopyOpts::default() };
    let (paths, target) = (vec![format!("/{FILE}")], "/".to_owned());
    let kind = FileActionKind::Copy { source: 0, paths, target, opts };
    let actions = vec![FileAction { mark: None, kind }];
    let op = Op::File(FileOp { base: None, names_from: None, actions });
    (op, NodeMeta { name: TITLE.to_owned(), ..NodeMeta::default() })
}

/// Adds a chain of ops to a graph.
pub(crate) fn insert(
    definition: &mut Definition,
    chain: &[(Op, NodeMeta)],
) -> Result<Edge, Failure> {
    let mut last = None;
    for (op, meta) in chain {
        let node = definition.insert(op.clone(), last.into_iter().collect())?;
        definition.annotate(node, meta.clone())?;
        last = Some(Edge { node, index: 0 });
    }
    last.ok_or_else(|| Failure::internal("a context of no ops"))
}

/// The files that a chain of ops makes, and what keeps them.
async fn solved(
    job: &Arc<Job>,
    chain: &[(Op, NodeMeta)],
) -> Result<(Root, (Arc<Solved>, Option<wbuild_store::Lease>)), Failure> {
    // A graph of its own: the numbers of nodes in the build's are the frontend's.
    let mut own = Definition::new(job.session().id(), GraphLimits::default());
    let edge = insert(&mut own, chain)?;
    let (solved, index) = job.solve_in(&mut own, edge).await?;
    let output = crate::worker::output(&solved, index)?;
    let (fd, lease) = job.worker().files_of(output).await?;
    Ok((Root::from_fd(fd, "the build context"), (Arc::clone(&solved), lease)))
}

/// A URL in messages: without what may be secret.
fn shown(url: &str) -> String {
    reqwest::Url::parse(url).map_or_else(|_| url.to_owned(), |url| wbuild_http::show_url(&url))
}

/// A download as the definition.
async fn definition_of(url: &str, file: std::fs::File) -> Result<DefinitionFile, Failure> {
    let name = shown(url);
    blocking(move || {
        let mut data = Vec::new();
        let read = file.take(DEFINITION_LIMIT + 1).read_to_end(&mut data);
        read.map_err(|error| Failure::internal("cannot read a download").cause(&error))?;
        if data.len() as u64 > DEFINITION_LIMIT {
            let most = DEFINITION_LIMIT >> 20;
            let message = format!("the definition {name} is longer than {most} MiB");
            return Err(Failure::new(FailureKind::Limit, message));
        }
        if data.iter().all(u8::is_ascii_whitespace) {
            return Err(Failure::invalid(format!("the definition {name} is empty")));
        }
        Ok(DefinitionFile { name, data, attrs: Attrs::default() })
    })
    .await
}

// ---- files of the context --------------------------------------------------------------------------

/// The first of `names` that a directory of the main context has.
async fn in_context(
    job: &Arc<Job>,
    directory: &str,
    names: &[String],
    inputs: &Inputs,
) -> Result<DefinitionFile, Failure> {
    let (root, _kept, shown, local) = match (&inputs.main, job.request().contexts.get(MAIN_CONTEXT))
    {
        (Some(Main::Tree(chain)), Some(spec)) => {
            let (root, kept) = solved(job, chain).await?;
            let shown = match spec {
                ContextSpec::Http(url) | ContextSpec::Git(url) => shown(url),
                _ => "the build context".to_owned(),
            };
            (root, Some(kept), shown, false)
        }
        _ => {
            let context = job.worker().locals.lent(MAIN_CONTEXT)?;
            let shown = context.display();
            (Root::from_fd(context.open()?, &shown), None, shown, true)
        }
    };
    let (names, directory) = (names.to_vec(), RelPath::clean(directory)?);
    blocking(move || {
        for name in &names {
            let name = RelPath::clean(name)?;
            let path = directory.join(name.as_bytes());
            match root.read_file(&path, DEFINITION_LIMIT) {
                Ok(data) => {
                    let mut attrs = Attrs::default();
                    if local {
                        attrs.push("path", path.to_string());
                        attrs.push("context", MAIN_CONTEXT);
                    }
                    if !directory.is_root() {
                        attrs.push("directory", directory.to_string());
                    }
                    return Ok(DefinitionFile { name: name.to_string(), data, attrs });
                }
                Err(TreeError::Missing(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let names = names.join(" or ");
        let place = match directory.is_root() {
            true => shown,
            false => format!("the directory {directory} of {shown}"),
        };
        Err(Failure::not_found(format!("cannot find {names} in {place}")).hint(
            "--file names the definition inside the context; an absolute path is one of this machine",
        ))
    })
    .await
}

// ---- archives --------------------------------------------------------------------------------------

/// An archive that was unpacked for the time of the build. It is a directory like any other, with the
/// same keys, but its files are never seen again.
struct Unpacked {
    files: SnapshotBuilder,
    name: String,
}

impl BuildContext for Unpacked {
    fn identity(&self) -> Option<String> {
        None
    }

    fn display(&self) -> String {
        self.name.clone()
    }

    fn open(&self) -> Result<OwnedFd, Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(self.files.fs(), ".", flags, Mode::empty()).map_err(|error| {
            Failure::internal("cannot open the unpacked build context").cause(&error)
        })
    }
}

/// Unpacks the archive that the session hands over.
async fn take_in(job: &Arc<Job>) -> Result<Unpacked, Failure> {
    let Archive { name, start, rest } = job.session().archive()?;
    let step = job.steps().internal("[internal] unpack build context");
    let store = job.worker().store.clone();
    let (_cancel, work) = CancelOnDrop::new();
    let result = blocking(move || -> Result<_, Failure> {
        let files = store.begin_snapshot()?;
        let rest = Patient { from: rest, cancel: work.cancel.clone() };
        let input = Stoppable { inner: Cursor::new(start).chain(rest), cancel: work.cancel };
        // Whose the files are counts for nothing: a step gets files of a context as root's.
        let (ownership, limits) = (Ownership::Ignore, Limits::default());
        unpack(input, files.fs(), &UnpackOptions { dest: b"", ownership, limits }).map_err(
            |error| Failure::from(error).context(format!("cannot unpack the build context {name}")),
        )?;
        Ok(Unpacked { files, name })
    })
    .await;
    match &result {
        Ok(_) => step.done(),
        Err(failure) => step.failed(failure),
    }
    result
}

/// Reads what may never come, such as a terminal or a pipe that nobody writes to, until cancelled.
struct Patient {
    from: OwnedFd,
    cancel: Cancel,
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        loop {
            let mut wanted = [PollFd::new(&self.from, PollFlags::IN)];
            match rustix::event::poll(&mut wanted, Some(&LOOK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(rustix::io::read(self.from.as_fd(), buffer)?),
                Err(error) => return Err(error.into()),
            }
            if self.cancel.is_cancelled() {
                return Err(std::io::Error::other("the build was cancelled"));
            }
        }
    }
}
