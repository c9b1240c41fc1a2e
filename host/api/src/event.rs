//! What happens during a build: the only channel from the engine to people.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wbuild_graph::{Diagnostic, Digest, Failure, Severity, SourceMap, Span};

use crate::explain::Explanation;

/// One thing that happened. Times are milliseconds since the build began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// A step exists. Sent before any other event of the step; hidden steps are announced only when
    /// they fail.
    StepDefined {
        /// The step; equal work of several nodes is one step.
        step: StepId,
        /// E.g. `[build 2/5] RUN make`.
        name: String,
        /// Where the source says so.
        spans: Vec<Span>,
    },
    /// A step runs.
    StepStarted {
        /// Which.
        step: StepId,
        /// When.
        at_ms: u64,
    },
    /// A step wrote output.
    StepLog {
        /// Which.
        step: StepId,
        /// 1 = standard output, 2 = standard error.
        stream: u8,
        /// Bytes as written; never clipped.
        data: Arc<[u8]>,
        /// When.
        at_ms: u64,
    },
    /// How far a step's transfer is.
    StepProgress {
        /// Which.
        step: StepId,
        /// What moves, e.g. a layer's digest.
        item: String,
        /// Bytes so far.
        current: u64,
        /// Bytes in all, if known.
        total: Option<u64>,
    },
    /// A step warns.
    StepWarning {
        /// Which.
        step: StepId,
        /// What.
        diagnostic: Diagnostic,
    },
    /// Why a step runs, or where its result came from. Sent only if the request asks for it, before
    /// the step ends.
    StepExplained {
        /// Which.
        step: StepId,
        /// Why.
        why: Explanation,
    },
    /// A step ended.
    StepEnded {
        /// Which.
        step: StepId,
        /// How.
        how: StepEnd,
        /// The cache elsewhere in which it was found.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// When.
        at_ms: u64,
    },
    /// The frontend reports a message about the sources.
    Diagnostic {
        /// What.
        diagnostic: Diagnostic,
    },
    /// A plugin says something.
    PluginLog {
        /// Which plugin.
        plugin: String,
        /// How grave.
        severity: Severity,
        /// What.
        text: String,
    },
    /// Results were removed to keep what is kept below its limits, or because a disk was full.
    Evicted {
        /// What went.
        freed_bytes: u64,
        /// Of that, what this very build had made or used.
        recent_bytes: u64,
        /// What is left.
        used_bytes: u64,
        /// Most that may be kept.
        max_bytes: Option<u64>,
        /// What is to be left free for others.
        min_free_bytes: u64,
    },
    /// The engine waits for another build.
    Waiting {
        /// For whom.
        holder: String,
    },
}

/// Names a step within one build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub u32);

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepEnd {
    /// It ran.
    Done,
    /// It was found in the cache.
    Cached,
    /// It failed.
    Failed(Failure),
    /// It was given up, since another step failed or the client went away.
    Cancelled,
}

/// Receives events. Never blocks for long: a slow display must buffer.
pub trait EventSink: Send + Sync {
    /// Called from any thread, in order for each step.
    fn event(&self, event: Event);
}

/// What a build that succeeded yields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildReport {
    /// One for each exported or built image.
    pub images: Vec<ImageReport>,
    /// Sources, for rendering diagnostics after the build.
    pub sources: SourceMap,
    /// Numbers for `--stats`.
    pub stats: BuildStats,
}

/// A build that failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildError {
    /// Why.
    pub failure: Failure,
    /// The step that failed, if one did.
    pub step: Option<StepId>,
    /// Sources, for rendering the excerpt.
    pub sources: SourceMap,
}

/// One image of a build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageReport {
    /// Which of the build's images it is, as the frontend distinguishes them; empty for the one that
    /// names of the client's are for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Names it was given.
    pub names: Vec<String>,
    /// Digest of the manifest or index, if it was exported as an image.
    pub digest: Option<Digest>,
    /// Digest of the config; none for an image of several platforms.
    pub config: Option<Digest>,
    /// What names it in full, if it was exported as an image.
    pub descriptor: Option<ImageDescriptor>,
}

/// A descriptor of an image (OCI image specification, descriptor.md).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageDescriptor {
    /// Of the manifest or index.
    pub media_type: String,
    /// Of the manifest or index.
    pub digest: Digest,
    /// Bytes of the manifest or index.
    pub size: u64,
    /// Annotations of the descriptor itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Numbers of one build.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildStats {
    /// Steps that ran.
    pub steps_run: u64,
    /// Steps found in the cache.
    pub steps_cached: u64,
    /// The frontend was not run, its memo trace held.
    pub frontend_memo_hit: bool,
    /// Milliseconds from begin to end.
    pub total_ms: u64,
    /// Milliseconds in the frontend, host waits included.
    pub frontend_ms: u64,
}
