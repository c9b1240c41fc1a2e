//! What a build asks of the outside, as plain records.
//!
//! One trait, because a build is one conversation: it asks for options and files, adds nodes, and
//! names its results. Each method stands for one function of wit/frontend; builders of that
//! interface are records here, so that a test can look at what was built.

use crate::Span;
use crate::diagnostic::{Diagnostic, Failure};
use crate::platform::Platform;

/// Ordered key/value pairs; a key may repeat.
pub type Attrs = Vec<(String, String)>;

/// One output of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Output {
    /// Number of the node.
    pub node: u32,
    /// Which of its outputs.
    pub index: u32,
}

/// The file to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionFile {
    /// As the user knows it.
    pub name: String,
    /// Its bytes.
    pub data: Vec<u8>,
    /// See wit/frontend, `request.definition-file`.
    pub attrs: Attrs,
}

/// A build context that the caller supplied under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedContext {
    /// `local`, `image`, `oci-layout`, `git`, `http` or `input`.
    pub kind: String,
    /// What to ask for, by kind.
    pub identifier: String,
    /// The files of an `input`.
    pub root: Option<Output>,
    /// The image config of an `input`.
    pub config: Option<String>,
    /// To be passed on with what `identifier` asks for.
    pub attrs: Attrs,
}

/// Asks for an image's config.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRequest {
    /// As written.
    pub reference: String,
    /// Which image of an index.
    pub platform: Platform,
    /// See wit/frontend, `graph.image`.
    pub attrs: Attrs,
}

/// An image that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Canonical name with digest.
    pub reference: String,
    /// What was found.
    pub platform: Platform,
    /// OCI image config.
    pub config: String,
}

/// A directory that the client lends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalSource {
    /// Its name.
    pub name: String,
    /// Only what matches; empty means everything.
    pub include: Vec<String>,
    /// Not what matches; the last match wins.
    pub exclude: Vec<(String, Option<Span>)>,
}

/// What a bind mount may do with its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// Read only.
    ReadOnly,
    /// Writes are the node's output.
    Output,
    /// Writes are dropped.
    Discard,
}

impl Bind {
    /// The word for it in the graph.
    pub fn as_str(self) -> &'static str {
        match self {
            Bind::ReadOnly => "ro",
            Bind::Output => "rw",
            Bind::Discard => "discard",
        }
    }
}

/// A directory that outlives builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheDir {
    /// Where it appears.
    pub target: String,
    /// Which one.
    pub id: String,
    /// `shared`, `private` or `locked`.
    pub sharing: &'static str,
    /// What a new one starts with.
    pub seed: Option<Output>,
    /// `mode`, `uid`, `gid`, `readonly`, `seed-path`.
    pub opts: Attrs,
}

/// What a process sees besides its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecMount {
    /// Files.
    Bind {
        /// Where they appear.
        target: String,
        /// None means an empty directory.
        source: Option<Output>,
        /// Path in the source; empty means the whole of it.
        subpath: String,
        /// See [`Bind`].
        access: Bind,
    },
    /// A cache.
    Cache(CacheDir),
    /// Memory.
    Tmpfs {
        /// Where it appears.
        target: String,
        /// `size`.
        opts: Attrs,
    },
    /// A secret as a file.
    SecretFile {
        /// Where it appears.
        target: String,
        /// Which one.
        id: String,
        /// Fail without it.
        required: bool,
        /// `mode`, `uid`, `gid`.
        opts: Attrs,
    },
    /// A secret as a variable.
    SecretEnv {
        /// The variable.
        name: String,
        /// Which one.
        id: String,
        /// Fail without it.
        required: bool,
    },
    /// An ssh agent.
    Ssh {
        /// Where its socket appears.
        target: String,
        /// Which one.
        id: String,
        /// Fail without it.
        required: bool,
        /// `mode`, `uid`, `gid`.
        opts: Attrs,
    },
}

/// Runs a process; the output is its root afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// The files it starts on; none means an empty directory.
    pub root: Option<Output>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// Variables that are in no key.
    pub volatile_env: Vec<(String, String)>,
    /// Absolute.
    pub cwd: String,
    /// Empty means root.
    pub user: String,
    /// Name of the machine it sees.
    pub hostname: String,
    /// Where it runs.
    pub platform: Platform,
    /// `sandbox`, `none` or `host`.
    pub network: String,
    /// `sandbox` or `insecure`.
    pub security: String,
    /// Name and address.
    pub add_hosts: Vec<(String, String)>,
    /// Name, soft and hard limit.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Device and whether it is required.
    pub devices: Vec<(String, bool)>,
    /// In order.
    pub mounts: Vec<ExecMount>,
    /// Any exit code is a result, and as many bytes of what the process prints are kept with it.
    pub capture: Option<u32>,
}

/// Copies files into the layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyAction {
    /// Where from.
    pub source: Output,
    /// Path or pattern in there.
    pub path: String,
    /// Where to; ends in `/` if it is a directory.
    pub target: String,
    /// See wit/frontend, `file-op.copy`.
    pub opts: Attrs,
}

/// One step of a file op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileAction {
    /// Copies files.
    Copy(CopyAction),
    /// Writes a file.
    Write {
        /// Where.
        path: String,
        /// What.
        data: Vec<u8>,
        /// See wit/frontend, `file-op.write`.
        opts: Attrs,
    },
    /// Makes a directory.
    Mkdir {
        /// Where.
        path: String,
        /// See wit/frontend, `file-op.mkdir`.
        opts: Attrs,
    },
}

/// Makes one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOp {
    /// What it is made on.
    pub base: Option<Output>,
    /// Where names of users are looked up, if not in the base.
    pub names_from: Option<Output>,
    /// In order, each with its place in the source.
    pub actions: Vec<(Span, FileAction)>,
}

/// The other side of a build.
pub trait Host {
    /// The file to build.
    fn definition(&mut self) -> Result<DefinitionFile, Failure>;
    /// An option by its name.
    fn opt(&mut self, name: &str) -> Option<String>;
    /// Options whose names begin with `prefix`, which is cut off.
    fn opts(&mut self, prefix: &str) -> Vec<(String, String)>;
    /// Where the build runs.
    fn build_platform(&mut self) -> Platform;
    /// What to build for; at least one.
    fn target_platforms(&mut self) -> Vec<Platform>;
    /// Names of the contexts that the caller supplied.
    fn context_names(&mut self) -> Vec<String>;
    /// A context by its name; `context` is the main one.
    fn context(
        &mut self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Option<NamedContext>, Failure>;
    /// What to build, in the words of the caller; nothing means the file's default.
    fn targets(&mut self) -> Vec<String>;
    /// The time that files and configs are to carry, in seconds since 1970.
    fn epoch(&mut self) -> Option<u64>;

    /// Registers a text that spans refer to.
    fn add_source(&mut self, name: &str, language: &str, text: &[u8]) -> Result<u32, Failure>;
    /// Says that a place in a generated text stands for another place.
    fn map_source(&mut self, generated: Span, original: Span) -> Result<(), Failure>;
    /// Shows a message that does not end the build.
    fn report(&mut self, diagnostic: Diagnostic);

    /// Finds images, all at once.
    fn resolve_images(&mut self, requests: &[ImageRequest]) -> Vec<Result<ImageInfo, Failure>>;
    /// A file of a tree; none if it is not there.
    fn read_file(&mut self, at: Output, path: &str) -> Result<Option<Vec<u8>>, Failure>;

    /// The files of an image.
    fn image(&mut self, request: &ImageRequest) -> Result<Output, Failure>;
    /// A directory of the client.
    fn local(&mut self, source: &LocalSource) -> Result<Output, Failure>;
    /// A git repository.
    fn git(&mut self, url: &str, reference: &str, attrs: &Attrs) -> Result<Output, Failure>;
    /// A tree that holds one downloaded file.
    fn http(&mut self, url: &str, checksum: Option<&str>, attrs: &Attrs)
    -> Result<Output, Failure>;
    /// Runs a process.
    fn exec(&mut self, exec: &Exec) -> Result<Output, Failure>;
    /// Makes a layer.
    fn file(&mut self, op: &FileOp) -> Result<Output, Failure>;
    /// Stacks layers.
    fn merge(&mut self, layers: &[Output]) -> Result<Output, Failure>;
    /// Names a node and says which places it comes from.
    fn annotate(&mut self, at: Output, name: &str, spans: &[Span], attrs: &Attrs);
    /// A node is to run even if its result is known.
    fn ignore_cache(&mut self, at: Output) -> Result<(), Failure>;

    /// Names the image that the build yields for a platform.
    fn result(
        &mut self,
        platform: &Platform,
        root: Option<Output>,
        config: &str,
    ) -> Result<(), Failure>;
}
