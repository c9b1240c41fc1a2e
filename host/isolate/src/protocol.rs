//! What the two processes say to each other.
//!
//! The parent begins with a [`Start`]. From then on the child speaks and the parent answers each
//! [`Call`], one at a time: a guest waits for what it has asked, so a second question before the
//! answer is no guest's. [`FromChild::Done`] ends the task; a cache backend is then given the next.
//! The answer to a call is the value that the capability answers, and nothing around it.

use serde::{Deserialize, Serialize};
use wbuild_api::describe::{Description, Query};
use wbuild_api::extension::{
    FilesResult, HttpRequest, ImageRequest, ImageResult, Job, LaunchPlan, LayerDescriptor,
    NestedBuild, NewManifest, Offer, ReadDir, RecordEntry, SourceRequest,
};
use wbuild_graph::{
    Attrs, CacheKey, Definition, Diagnostic, Digest, Edge, Failure, GraphLimits, NodeMeta, Op,
    Platform, Severity, SourceFile, Span, VertexDigest, decode,
};
use wbuild_plugin::{Border, Known};

use crate::wire::{self, HEAD, Malformed};

/// What a child is told first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) known: Known,
    /// Which of the capabilities that not all backends have are there.
    pub(crate) repository: bool,
    pub(crate) http: bool,
    /// Of a frontend.
    pub(crate) facts: Option<Facts>,
    pub(crate) task: Task,
}

/// What is the same during the whole of a frontend's run, so that it need not be asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) targets: Vec<String>,
    pub(crate) build_platform: Platform,
    pub(crate) target_platforms: Vec<Platform>,
    pub(crate) context_names: Vec<String>,
    pub(crate) epoch: Option<u64>,
}

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    Build,
    Describe(Query),
    /// How long it takes to load it, and to make an instance.
    Measure,
    Supports(Vec<Platform>),
    MakePlan(Box<Job>),
    Connect,
    Open(String, Attrs),
    Find(Vec<CacheKey>),
    Fetch(Vec<LayerDescriptor>),
    Save(Vec<RecordEntry>),
    Push(Vec<LayerDescriptor>),
    Commit,
    Prune(Attrs),
}

/// What a child says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromChild {
    Call(Call),
    Done(Result<Done, Failure>),
}

/// How a task ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Done {
    Nothing,
    Described(Description),
    Offers(Vec<Result<Offer, Failure>>),
    Plan(Box<LaunchPlan>),
    Records(Vec<Vec<RecordEntry>>),
    Each(Vec<Result<(), Failure>>),
    Attrs(Attrs),
    /// How long loading took, and making an instance, in nanoseconds; or why none can be made.
    Measured(u64, Result<u64, Failure>),
    /// Of the compiler.
    Code(Vec<u8>),
    /// What a component says of itself.
    Border(Border),
}

/// A call of a capability.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    Log(Severity, String),
    Frontend(FrontendCall),
    Runner(RunnerCall),
    Cache(CacheCall),
}

/// A call of a frontend.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FrontendCall {
    Insert(Op, Vec<Edge>),
    Annotate(Edge, NodeMeta),
    IgnoreCache(Edge),
    SameWork(Edge, Edge),
    ResolveImages(Vec<ImageRequest>),
    ResolveSources(Vec<SourceRequest>),
    ReadFile(Edge, String, u64, u32),
    Stat(Edge, String),
    ReadDir(Edge, ReadDir),
    StartSolving(Vec<Edge>),
    Evaluate(Vec<Edge>),
    OutcomeOf(Edge),
    Definition,
    Opt(String),
    Opts(String),
    Context(String, Option<Platform>),
    HasSecret(String),
    HasSsh(String),
    Supports(String),
    AddSource(SourceFile),
    MapSources(Vec<(Span, Span)>),
    Report(Diagnostic),
    Image(ImageResult),
    Files(FilesResult),
    Require(Edge),
    Attest(String, FilesResult),
    Effect(String, Edge),
    FailAfter(Edge),
    Publish(Vec<String>),
    Nested(Vec<NestedBuild>),
}

/// A call of a runner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RunnerCall {
    NativePlatforms,
    KernelBinfmt(Platform),
    Features,
    FindTool(String),
    /// The base is the job's, whatever the child says.
    Clamp(String, Vec<String>),
}

/// A call of a cache backend.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum CacheCall {
    KvOpen(String),
    KvGetMany(String, Vec<Vec<u8>>),
    KvScan(String, Vec<u8>, Option<Vec<u8>>, u32),
    KvApply(String, Vec<(Vec<u8>, Option<Vec<u8>>)>),
    KvClear(String),
    BlobOpen(Digest),
    BlobRead(Digest, u64, u32),
    BlobWrite(String, Vec<u8>),
    Resolve(String),
    Pull(Vec<LayerDescriptor>),
    PushBlobs(Vec<LayerDescriptor>),
    Publish(NewManifest),
    Retain(Vec<Digest>),
    HttpSend(Vec<HttpRequest>),
    HttpBodySmall(u64, u32),
    HttpBodyBlob(u64, LayerDescriptor),
    HttpForget(u64),
}

/// What the frame of a child means to this process, written as this process writes: for fuzzing, which
/// has no types for it. Of a call that would make a node also the digest of the node, if it is a valid
/// one.
///
/// # Errors
///
/// As for a child: when it is no message, or one that would take more than `limit` bytes.
#[doc(hidden)]
pub fn claimed(body: &[u8], limit: usize) -> Result<(Vec<u8>, Option<VertexDigest>), Malformed> {
    let said: FromChild = wire::decode_claimed(body, limit)?;
    let written = wire::encode(&said).split_off(HEAD);
    let FromChild::Call(Call::Frontend(FrontendCall::Insert(op, inputs))) = said else {
        return Ok((written, None));
    };
    let mut definition = Definition::new("claimed", GraphLimits::default());
    let made = match decode::claimed(&op) {
        Ok(()) => definition.insert(op, inputs).ok(),
        Err(_) => None,
    };
    Ok((written, made.map(|node| definition.digest(node))))
}
