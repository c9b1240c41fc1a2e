//! What a record says: the result of one vertex, findable by its cache keys.

use wbuild_graph::{Attrs, BlobDigest, CacheKey, ContentDigest, DiffId, ResultId};

use crate::lease::LeaseItem;
use crate::snapshot::SnapshotId;

/// The result of one vertex.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Every key it is found by; the first is the one it is known by. At least one.
    pub keys: Vec<CacheKey>,
    /// One per output of the op, in order.
    pub outputs: Vec<OutputRecord>,
    /// What the process said, for ops that capture it.
    pub outcome: Option<ExecOutcome>,
    /// When it was made, in seconds since 1970 (given by the caller).
    pub created: u64,
    /// The step's display name, for `du` and `explain`.
    pub description: String,
    /// Results it was made from.
    pub inputs: Vec<ResultId>,
    /// Blobs that must stay as long as the record does and are no layer (an image's config).
    pub attachments: Vec<BlobRef>,
    /// Facts of the caller, kept as they are.
    pub attrs: Attrs,
}

/// One output: a chain of layers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputRecord {
    /// Identity of the result, once computed.
    pub result_id: Option<ResultId>,
    /// The whole chain, lowest first. Empty chain = empty tree.
    pub layers: Vec<LayerRecord>,
}

/// One layer, with everything known of it so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerRecord {
    /// Its directory here; `None` while it is lazy.
    pub snapshot: Option<SnapshotId>,
    /// Of its files, once computed.
    pub content_digest: Option<ContentDigest>,
    /// Its archive, which may be here or only somewhere to fetch from.
    pub blob: Option<BlobRef>,
    /// Of its uncompressed archive, once known.
    pub diff_id: Option<DiffId>,
    /// Bytes of its files; 0 if unknown.
    pub size_bytes: u64,
    /// Where a lazy blob comes from, and other facts of the caller.
    pub attrs: Attrs,
}

/// A blob and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRef {
    /// Such as `application/vnd.oci.image.layer.v1.tar+gzip`.
    pub media_type: String,
    /// Of its bytes.
    pub digest: BlobDigest,
    /// In bytes.
    pub size: u64,
}

/// How a process ended and what it printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Its exit code.
    pub exit_code: i32,
    /// Captured standard output.
    pub stdout: Vec<u8>,
    /// Captured standard error.
    pub stderr: Vec<u8>,
    /// There was more on standard output than is kept.
    pub stdout_truncated: bool,
    /// There was more on standard error than is kept.
    pub stderr_truncated: bool,
}

impl Record {
    /// All layers of all outputs.
    pub fn layers(&self) -> impl Iterator<Item = &LayerRecord> {
        self.outputs.iter().flat_map(|output| &output.layers)
    }

    /// All snapshots it needs, in order, with repetitions.
    pub fn snapshots(&self) -> impl Iterator<Item = SnapshotId> + '_ {
        self.layers().filter_map(|layer| layer.snapshot)
    }

    /// All blobs it names, in order, with repetitions.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobRef> {
        self.layers().filter_map(|layer| layer.blob.as_ref()).chain(&self.attachments)
    }

    /// What a lease on the record holds.
    pub fn lease_items(&self) -> Vec<LeaseItem> {
        self.snapshots()
            .map(LeaseItem::Snapshot)
            .chain(self.blobs().map(|blob| LeaseItem::Blob(blob.digest)))
            .collect()
    }

    /// The topmost snapshot of each output: what distinguishes this record's chain from those it
    /// was built on.
    pub(crate) fn top_snapshots(&self) -> impl Iterator<Item = SnapshotId> + '_ {
        self.outputs.iter().filter_map(|output| output.layers.last()?.snapshot)
    }
}
