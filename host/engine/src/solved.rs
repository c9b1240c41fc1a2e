//! What a solved vertex yields: lazy handles on layers, and their way into and out of records.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use wbuild_api::extension::Outcome;
use wbuild_graph::encode::Encoder;
use wbuild_graph::{Attrs, CacheKey, ContentDigest, DiffId, ResultId};
use wbuild_oci::reference::Reference;
use wbuild_store::{BlobRef, ExecOutcome, LayerRecord, Lease, OutputRecord, Record, SnapshotId};
use wbuild_tree::LentFiles;

use crate::ops::content::Opened;
use crate::source::local::LocalTree;

/// All outputs of a solved vertex.
pub(crate) struct Solved {
    /// By index.
    pub(crate) outputs: Vec<Output>,
    /// What a captured exec did.
    pub(crate) outcome: Option<Arc<Outcome>>,
    /// The stored record, as last written. None: nothing is stored (local directories, images).
    pub(crate) record: Mutex<Option<Record>>,
    /// Further keys that the cache elsewhere has it under: to be handed on to other caches, and not
    /// believed here.
    pub(crate) hearsay: OnceLock<Vec<CacheKey>>,
}

/// One output.
#[derive(Clone)]
pub(crate) enum Output {
    /// A stack of layers.
    Tree(Arc<Tree>),
    /// A directory of the client's.
    Local(Arc<LocalTree>),
}

/// A stack of layers, bottom first.
pub(crate) struct Tree {
    pub(crate) layers: Vec<Arc<Layer>>,
    pub(crate) result_id: OnceLock<ResultId>,
}

impl Tree {
    pub(crate) fn new(layers: Vec<Arc<Layer>>) -> Arc<Tree> {
        Arc::new(Tree { layers, result_id: OnceLock::new() })
    }
}

/// What is known of a layer so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerFacts {
    pub(crate) snapshot: Option<SnapshotId>,
    pub(crate) content: Option<ContentDigest>,
    pub(crate) blob: Option<BlobRef>,
    pub(crate) diff_id: Option<DiffId>,
    /// Uncompressed, in bytes; 0 = not known.
    pub(crate) size: u64,
    /// When an op of ours made it, in seconds since 1970; none for layers of images.
    pub(crate) created: Option<u64>,
    /// The SOURCE_DATE_EPOCH that times in `blob` were clamped to.
    pub(crate) epoch: Option<u64>,
}

/// Where a layer's files can be had if they are not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Made by an op of ours: its snapshot or its blob is all there is.
    Made,
    /// A layer of an image.
    Image(ImageOrigin),
}

/// Which image a layer is of, and where the image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageOrigin {
    /// Canonical name with the manifest's digest.
    pub(crate) reference: String,
    /// `oci-layout:<context>`; none = a registry.
    pub(crate) store: Option<String>,
}

/// The files whose contents a layer's snapshot lacks, and the context in which they lie.
pub(crate) struct Lent {
    pub(crate) files: LentFiles,
    pub(crate) context: Arc<Opened>,
}

/// A change set, lazily present.
pub(crate) struct Layer {
    pub(crate) origin: Origin,
    /// The id of the cache elsewhere that has it, where it came from one: it is fetched from there
    /// and nowhere else, whatever its origin says.
    pub(crate) place: Option<String>,
    /// It could not be had from where it was said to be.
    lost: AtomicBool,
    facts: Mutex<LayerFacts>,
    lent: Mutex<Option<Arc<Lent>>>,
    leases: Mutex<Vec<Arc<Lease>>>,
    /// Held while the layer is fetched, unpacked, hashed or written out, so that it happens once.
    pub(crate) busy: tokio::sync::Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Layer {
    pub(crate) fn new(origin: Origin, facts: LayerFacts) -> Arc<Layer> {
        Layer::at(origin, None, facts)
    }

    fn at(origin: Origin, place: Option<String>, facts: LayerFacts) -> Arc<Layer> {
        Arc::new(Layer {
            origin,
            place,
            lost: AtomicBool::new(false),
            facts: Mutex::new(facts),
            lent: Mutex::default(),
            leases: Mutex::default(),
            busy: tokio::sync::Mutex::new(()),
        })
    }

    /// A layer that an op has just made.
    pub(crate) fn made(snapshot: SnapshotId, lease: Lease, created: u64) -> Arc<Layer> {
        let facts = LayerFacts {
            snapshot: Some(snapshot),
            created: Some(created),
            ..LayerFacts::default()
        };
        let layer = Layer::new(Origin::Made, facts);
        layer.hold(lease);
        layer
    }

    pub(crate) fn facts(&self) -> LayerFacts {
        lock(&self.facts).clone()
    }

    pub(crate) fn learn(&self, change: impl FnOnce(&mut LayerFacts)) {
        change(&mut lock(&self.facts));
    }

    /// Notes that the layer cannot be had any more: what was found with it has to be made anew.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Whether something was done about the layer in vain.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// What the snapshot lacks. Then it is good for looking up names only, and in no record.
    pub(crate) fn lent(&self) -> Option<Arc<Lent>> {
        lock(&self.lent).clone()
    }

    pub(crate) fn lend(&self, lent: Lent) {
        *lock(&self.lent) = Some(Arc::new(lent));
    }

    /// The snapshot lacks nothing any more.
    pub(crate) fn filled(&self) {
        *lock(&self.lent) = None;
    }

    /// The blob is the layer from now on.
    pub(crate) fn drop_snapshot(&self) {
        self.learn(|facts| facts.snapshot = None);
        self.filled();
    }

    /// Keeps what the layer is made of from being evicted.
    pub(crate) fn hold(&self, lease: Lease) {
        self.hold_shared(Arc::new(lease));
    }

    fn hold_shared(&self, lease: Arc<Lease>) {
        lock(&self.leases).push(lease);
    }
}

/// The content digest that stands for a layer of an image, which is not unpacked to be known.
pub(crate) fn image_layer_content(diff_id: &DiffId) -> ContentDigest {
    ContentDigest(Encoder::new("wbuild.image-layer.v1").digest(diff_id.digest()).finish())
}

/// Identity of a stack of layers: each layer's content on top of the identity below it.
pub(crate) fn result_id(layers: &[ContentDigest]) -> ResultId {
    let empty = Encoder::new("wbuild.result.v1").variant("empty").finish();
    ResultId(layers.iter().fold(empty, |parent, layer| {
        let mut e = Encoder::new("wbuild.result.v1");
        e.variant("layer").digest(&parent).digest(layer.digest());
        e.finish()
    }))
}

impl Solved {
    pub(crate) fn new(outputs: Vec<Output>, outcome: Option<Arc<Outcome>>) -> Arc<Solved> {
        Arc::new(Solved { outputs, outcome, record: Mutex::new(None), hearsay: OnceLock::new() })
    }

    pub(crate) fn tree(tree: Arc<Tree>) -> Arc<Solved> {
        Solved::new(vec![Output::Tree(tree)], None)
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Option<Record>> {
        lock(&self.record)
    }

    /// Layers whose snapshots lack something.
    pub(crate) fn lent_layers(&self) -> impl Iterator<Item = &Arc<Layer>> {
        let trees = self.outputs.iter().filter_map(|output| match output {
            Output::Tree(tree) => Some(tree),
            Output::Local(_) => None,
        });
        trees.flat_map(|tree| &tree.layers).filter(|layer| layer.lent().is_some())
    }

    pub(crate) fn is_lent(&self) -> bool {
        self.lent_layers().next().is_some()
    }

    /// The outputs as a record keeps them; local directories are in none.
    pub(crate) fn output_records(&self) -> Vec<OutputRecord> {
        let trees = self.outputs.iter().filter_map(|output| match output {
            Output::Tree(tree) => Some(tree),
            Output::Local(_) => None,
        });
        trees
            .map(|tree| OutputRecord {
                result_id: tree.result_id.get().copied(),
                layers: tree.layers.iter().map(|layer| layer.to_record()).collect(),
            })
            .collect()
    }

    /// The handle that a stored record stands for; `lease` keeps what it names.
    pub(crate) fn from_record(record: Record, lease: Lease) -> Arc<Solved> {
        let lease = Arc::new(lease);
        let outputs = record.outputs.iter().map(|output| {
            let layers = output.layers.iter().map(|layer| Layer::from_record(layer, &lease));
            let tree = Tree::new(layers.collect());
            if let Some(id) = output.result_id {
                // A fresh tree has no id yet.
                let _ = tree.result_id.set(id);
            }
            Output::Tree(tree)
        });
        let outcome = record.outcome.as_ref().map(|outcome| {
            Arc::new(Outcome {
                exit_code: outcome.exit_code,
                stdout: outcome.stdout.clone(),
                stdout_truncated: outcome.stdout_truncated,
                stderr: outcome.stderr.clone(),
                stderr_truncated: outcome.stderr_truncated,
            })
        });
        let solved = Solved::new(outputs.collect(), outcome);
        *solved.record() = Some(record);
        solved
    }
}

/// Whether two records' outputs are the very same files, whatever else is known of them.
pub(crate) fn same_files(a: &[OutputRecord], b: &[OutputRecord]) -> bool {
    let same_layer = |(a, b): (&LayerRecord, &LayerRecord)| match (a.snapshot, b.snapshot) {
        (Some(a), Some(b)) => a == b,
        // Of an image's layer the one may know more than the other.
        _ => a.diff_id.is_some() && a.diff_id == b.diff_id,
    };
    let same_output = |(a, b): (&OutputRecord, &OutputRecord)| {
        a.layers.len() == b.layers.len() && a.layers.iter().zip(&b.layers).all(same_layer)
    };
    a.len() == b.len() && a.iter().zip(b).all(same_output)
}

/// A captured outcome as a record keeps it.
pub(crate) fn outcome_record(outcome: &Outcome) -> ExecOutcome {
    ExecOutcome {
        exit_code: outcome.exit_code,
        stdout: outcome.stdout.clone(),
        stderr: outcome.stderr.clone(),
        stdout_truncated: outcome.stdout_truncated,
        stderr_truncated: outcome.stderr_truncated,
    }
}

const IMAGE: &str = "image";
const STORE: &str = "store";
const CREATED: &str = "created";
const EPOCH: &str = "epoch";
const PLACE: &str = "place";

/// What of a layer record's attributes means something on other machines, too.
pub(crate) fn facts_attrs(attrs: &Attrs) -> impl Iterator<Item = (String, String)> {
    let kept = [IMAGE, STORE, CREATED, EPOCH];
    attrs.0.iter().filter(move |(key, _)| kept.contains(&key.as_str())).cloned()
}

/// The attributes of a layer that the cache `place` has, from what it says. None if it makes no sense.
pub(crate) fn attrs_from(place: &str, said: &Attrs) -> Option<Attrs> {
    let mut attrs = Attrs(facts_attrs(said).collect());
    let numbers = [CREATED, EPOCH].into_iter().filter_map(|key| said.get(key));
    if !numbers.into_iter().all(|text| text.parse::<u64>().is_ok()) {
        return None;
    }
    if let Some(image) = attrs.get(IMAGE) {
        image.parse::<Reference>().ok()?;
    }
    attrs.push(PLACE, place);
    Some(attrs)
}

/// Of a blob with the times that the files have.
pub(crate) fn without_epoch(attrs: &mut Attrs) {
    attrs.0.retain(|(key, _)| key != EPOCH);
}

/// Whether a layer with these attributes is one of an image.
pub(crate) fn is_of_image(attrs: &Attrs) -> bool {
    attrs.get(IMAGE).is_some()
}

impl Layer {
    pub(crate) fn to_record(&self) -> LayerRecord {
        let facts = self.facts();
        let mut attrs = Attrs::default();
        if let Origin::Image(origin) = &self.origin {
            attrs.push(IMAGE, origin.reference.clone());
            if let Some(store) = &origin.store {
                attrs.push(STORE, store.clone());
            }
        }
        for (key, value) in [(CREATED, facts.created), (EPOCH, facts.epoch)] {
            if let Some(value) = value {
                attrs.push(key, value.to_string());
            }
        }
        if let Some(place) = &self.place {
            attrs.push(PLACE, place.clone());
        }
        LayerRecord {
            snapshot: facts.snapshot,
            content_digest: facts.content,
            blob: facts.blob,
            diff_id: facts.diff_id,
            size_bytes: facts.size,
            attrs,
        }
    }

    fn from_record(record: &LayerRecord, lease: &Arc<Lease>) -> Arc<Layer> {
        let origin = match record.attrs.get(IMAGE) {
            Some(reference) => Origin::Image(ImageOrigin {
                reference: reference.to_owned(),
                store: record.attrs.get(STORE).map(str::to_owned),
            }),
            None => Origin::Made,
        };
        let number = |key| record.attrs.get(key).and_then(|text| text.parse().ok());
        let facts = LayerFacts {
            snapshot: record.snapshot,
            content: record.content_digest,
            blob: record.blob.clone(),
            diff_id: record.diff_id,
            size: record.size_bytes,
            created: number(CREATED),
            epoch: number(EPOCH),
        };
        let place = record.attrs.get(PLACE).map(str::to_owned);
        let layer = Layer::at(origin, place, facts);
        layer.hold_shared(Arc::clone(lease));
        layer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wbuild_graph::Digest;

    /// Frozen: a change makes stored result keys unreachable.
    #[test]
    fn golden_result_ids() {
        let content = |text: &str| ContentDigest(Digest::of(text.as_bytes()));
        let found = [
            result_id(&[]).0.hex(),
            result_id(&[content("a")]).0.hex(),
            result_id(&[content("a"), content("b")]).0.hex(),
            image_layer_content(&DiffId(Digest::of(b"a"))).0.hex(),
        ];
        let golden = [
            "8636719970d14899fa33ce3e543f6704171d6d0f173c67fe656a15252e292758",
            "60c10cb7879f65882f0ad3b84296ee49aa5cd55f7c8d7d08ecd724dab96b5ad7",
            "d4fd7d44b380c55797ea94c1b570eab0c04fc3757d17d900eebc052b0be3b825",
            "a6c9e2edb154e78cf3ba78ae34037d72b18c44e4c148cb63c798dd98b119a5dd",
        ];
        assert_eq!(found, golden);
    }

    #[test]
    fn records_are_told_apart_by_their_files() {
        let id = |n: u8| format!("{n:032x}").parse::<SnapshotId>().expect("id");
        let layer = |snapshot: Option<u8>, diff_id: Option<&str>| LayerRecord {
            snapshot: snapshot.map(id),
            diff_id: diff_id.map(|text| DiffId(Digest::of(text.as_bytes()))),
            ..LayerRecord::default()
        };
        let of = |layers: &[LayerRecord]| {
            [OutputRecord { layers: layers.to_vec(), ..OutputRecord::default() }]
        };
        let base = of(&[layer(None, Some("base")), layer(Some(1), None)]);
        for (other, same) in [
            (of(&[layer(Some(7), Some("base")), layer(Some(1), Some("written"))]), true),
            (of(&[layer(None, Some("base")), layer(Some(2), None)]), false),
            (of(&[layer(None, Some("other")), layer(Some(1), None)]), false),
            (of(&[layer(None, Some("base"))]), false),
            (of(&[layer(None, Some("base")), layer(None, None)]), false),
        ] {
            assert_eq!(same_files(&base, &other), same, "{other:?}");
            assert_eq!(same_files(&other, &base), same, "{other:?}");
        }
    }
}
