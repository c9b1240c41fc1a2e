//! Caches elsewhere that a build writes (`--cache-to`), beside its outputs: records, and the layers of
//! their results as blobs. A layer's blob is made once and is the same as that of an image.
//!
//! - `mode=min` takes the records whose layers are all in the results that the build yields, `mode=max`
//!   every record that the build used or made.
//! - Times of files stay as they are: SOURCE_DATE_EPOCH is a matter of images.
//! - A server that has not moved anything within [`PATIENCE`] is given up; from then on the limits of
//!   transfers hold, since a large blob takes a registry its time.
//! - `type=inline` writes nothing by itself; [`inline`] says what goes into an image's config.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;
use wbuild_api::extension::{CacheBackend, ImageResult, LayerDescriptor, RecordEntry};
use wbuild_api::request::{BuildRequest, CacheSpec};
use wbuild_graph::{CacheKey, DiffId, Edge, Failure, FailureKind, Severity};
use wbuild_oci::media::MediaFamily;
use wbuild_oci::reference::Reference;
use wbuild_store::{BlobRef, OutputRecord, SnapshotId};

use super::attrs::{self, Want, flag};
use super::layers::{Written, blob, unpack_others};
use crate::cache::entries;
use crate::cache::grants::Moves;
use crate::cache::imports::PATIENCE;
use crate::frontend_host::plugin_log;
use crate::job::Job;
use crate::ops::cache_mount;
use crate::room::written_to;
use crate::solved::{self, Layer, Output, Solved};

/// Layers that a backend is asked to take at once.
const LAYERS: usize = 32;
/// Records announced at once.
const RECORDS: usize = 500;

/// Which records are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Min,
    Max,
}

/// What one export is to do.
struct Wish {
    mode: Mode,
    want: Want,
    ignore_error: bool,
    /// Ids of cache mounts that go with it.
    mounts: Vec<String>,
}

impl Wish {
    fn of(request: &BuildRequest, spec: &CacheSpec) -> Result<Wish, Failure> {
        let given = &spec.attrs;
        let mode = match given.get("mode") {
            None | Some("min") => Mode::Min,
            Some("max") => Mode::Max,
            Some(other) => {
                let message = format!("mode={other} of a cache: expected min or max");
                return Err(Failure::invalid(message));
            }
        };
        for key in ["oci-mediatypes", "image-manifest"] {
            if !flag(given, key, true)? {
                let message = format!("{key}=false: a cache is always an OCI image manifest");
                return Err(Failure::unsupported(message).hint("leave it out"));
            }
        }
        // What an image of the build has, unless it is said: then the blobs are the same.
        let as_image = request.outputs.iter().find(|output| output.kind.is_image());
        let options = match (given.get("compression"), as_image) {
            (None, Some(output)) => attrs::compression(&output.attrs)?,
            _ => attrs::compression(given)?,
        };
        let force = flag(given, "force-compression", false)?;
        let want = Want {
            options,
            force,
            any: !force,
            clamp: false,
            lazy: true,
            family: MediaFamily::Oci,
        };
        let ignore_error = flag(given, "ignore-error", false)?;
        let mounts = given.all("mounts").map(str::to_owned).collect();
        Ok(Wish { mode, want, ignore_error, mounts })
    }
}

/// Refuses what cannot be written.
pub(super) fn check(request: &BuildRequest) -> Result<(), Failure> {
    for spec in request.cache_from.iter().chain(&request.cache_to) {
        if let Some(name) = spec.attrs.get("ref") {
            name.parse::<Reference>()?;
        }
    }
    for spec in &request.cache_to {
        let wish = Wish::of(request, spec)?;
        if spec.backend != CacheSpec::INLINE {
            continue;
        }
        if wish.mode == Mode::Max {
            return Err(Failure::unsupported(
                "mode=max of type=inline: an image holds its own layers",
            )
            .hint("write the others to type=registry"));
        }
        let known = ["mode", "ignore-error"];
        wbuild_graph::decode::only_known(&spec.attrs, "--cache-to type=inline", &known)?;
    }
    Ok(())
}

/// From now on, makes the layers of what the build makes to blobs as soon as they are there, if a
/// cache is to have all of them: what is compressed while steps wait, or while others run, need not be
/// compressed at the end. One layer at a time, so that steps get at their files.
pub(super) fn begin(job: &Arc<Job>) -> Result<(), Failure> {
    for spec in &job.request().cache_to {
        let wish = Wish::of(job.request(), spec)?;
        if wish.mode != Mode::Max {
            continue;
        }
        let (made, mut hear) = tokio::sync::mpsc::unbounded_channel();
        if job.worker().made.set(made).is_err() {
            return Ok(());
        }
        let (task, want) = (Arc::clone(job), wish.want);
        job.beside(async move {
            while let Some(solved) = hear.recv().await {
                if solved.outcome.is_some() {
                    continue;
                }
                for tree in trees(&solved).into_iter().flatten() {
                    let Some(layer) = tree.layers.last() else { continue };
                    // What fails here fails again, and is told, when the cache is written.
                    let _ = blob(&task, layer, want).await;
                }
            }
        });
        return Ok(());
    }
    Ok(())
}

/// Writes all caches; `roots` are the results of the build.
pub(super) async fn export(job: &Arc<Job>, roots: &[Edge]) -> Result<(), Failure> {
    let specs = job.request().cache_to.iter().filter(|spec| spec.backend != CacheSpec::INLINE);
    try_join_all(specs.map(|spec| one(job, spec, roots).boxed())).await.map(|_| ())
}

async fn one(job: &Arc<Job>, spec: &CacheSpec, roots: &[Edge]) -> Result<(), Failure> {
    let wish = Wish::of(job.request(), spec)?;
    let step = Arc::new(job.steps().internal(&format!("export cache to {}", spec.shown())));
    let progress: crate::cache::Progress = {
        let step = Arc::clone(&step);
        Arc::new(move |digest, now, all| step.progress(&digest.to_string(), now, Some(all)))
    };
    let mut attempt = 0;
    let result = loop {
        let result = write(job, spec, &wish, roots, Arc::clone(&progress)).await;
        if !job.worker().room.again(&result, &mut attempt).await {
            break result;
        }
    };
    drop(progress);
    let step = Arc::into_inner(step).ok_or_else(|| Failure::internal("an export did not end"))?;
    let Err(failure) = result else {
        step.done();
        return Ok(());
    };
    let failure = failure.context(format!("cannot export the cache to {}", spec.shown()));
    if wish.ignore_error && failure.kind != FailureKind::Cancelled {
        step.in_vain(&failure);
        plugin_log(spec.shown(), Arc::clone(job.steps().sink()))
            .log(Severity::Warning, format!("{failure}; the build goes on (ignore-error=true)"));
        return Ok(());
    }
    step.failed(&failure);
    Err(failure.hint("ignore-error=true lets the build succeed all the same"))
}

async fn write(
    job: &Arc<Job>,
    spec: &CacheSpec,
    wish: &Wish,
    roots: &[Edge],
    progress: crate::cache::Progress,
) -> Result<(), Failure> {
    let mut chosen = Layers::default();
    let results = job.known(roots).await?;
    let roots: Vec<Arc<Solved>> = try_join_all(roots.iter().map(|edge| job.solve(*edge))).await?;
    roots.iter().for_each(|solved| chosen.take_up(solved));
    let mut records: Vec<Found> = Vec::new();
    for (_, solved) in results {
        let Some(record) = solved.record().clone() else { continue };
        // What a process printed is kept here only.
        if record.outcome.is_some() || trees(&solved).is_none() {
            continue;
        }
        if wish.mode == Mode::Max {
            chosen.take_up(&solved);
        } else if !chosen.has_all(&solved) {
            continue;
        }
        let mut keys = record.keys;
        keys.extend(solved.hearsay.get().into_iter().flatten());
        keys.sort_unstable();
        keys.dedup();
        records.push(Found { solved, keys, created: record.created });
    }
    let blobs = chosen.blobs(job, &records, wish.want).await?;
    let mut layers: HashMap<wbuild_graph::Digest, (LayerDescriptor, Option<Arc<Layer>>)> =
        HashMap::new();
    let mut entries: Vec<RecordEntry> = Vec::new();
    for found in records {
        let outputs = chosen.outputs(job, &found.solved, &blobs).await?;
        let entry = entries::elsewhere(found.keys, &outputs, found.created);
        let Some(entry) = entry else { continue };
        let of = trees(&found.solved).into_iter().flatten().flat_map(|tree| &tree.layers);
        for (descriptor, layer) in entry.layers.iter().zip(of) {
            let canonical = chosen.find(layer).cloned();
            layers.entry(descriptor.digest).or_insert_with(|| (descriptor.clone(), canonical));
        }
        entries.push(entry);
    }
    let mut leases = Vec::new();
    for id in &wish.mounts {
        let names = cache_mount::names(job.worker(), id).await?;
        if names.is_empty() {
            let text = format!("there is no cache mount {id:?} to export");
            plugin_log(spec.shown(), Arc::clone(job.steps().sink())).log(Severity::Warning, text);
        }
        for name in names {
            let (blob, diff_id, lease) =
                cache_mount::pack(job.worker(), &name, &wish.want.options).await?;
            leases.push(lease);
            let entry = entries::mount(&name, &blob, diff_id, job.worker().settings.now);
            layers.insert(blob.digest.0, (entry.layers[0].clone(), None));
            entries.push(entry);
        }
    }
    let mut layers: Vec<_> = layers.into_values().collect();
    layers.sort_by_key(|(descriptor, _)| descriptor.digest);
    let moved = CancellationToken::new();
    let progress: crate::cache::Progress = {
        let moved = moved.clone();
        Arc::new(move |digest, now, all| {
            moved.cancel();
            progress(digest, now, all);
        })
    };
    let backend = connect(job, spec, &layers, progress).await?;
    let send = async {
        for part in layers.chunks(LAYERS) {
            push(job, &*backend, part, &moved).await?;
        }
        for part in entries.chunks(RECORDS) {
            backend.save(part.to_vec()).await?;
        }
        backend.commit().await
    };
    let sent = match spec.attrs.get("dest") {
        // A disk may be slow, and says how far it is only after each blob.
        Some(dest) => send.await.map_err(|failure| written_to(failure, Some(dest.as_ref()))),
        None => patiently(send, &moved).await,
    };
    drop(leases);
    sent.map(drop)
}

/// Does what talks to a server, unless nothing has `moved` for too long at the beginning.
async fn patiently<T>(
    send: impl Future<Output = Result<T, Failure>>,
    moved: &CancellationToken,
) -> Result<T, Failure> {
    let mut send = pin!(send);
    tokio::select! {
        sent = &mut send => return sent,
        () = moved.cancelled() => {}
        () = tokio::time::sleep(PATIENCE) => {
            let message = format!("it did not answer in {} seconds", PATIENCE.as_secs());
            return Err(Failure::new(FailureKind::Unavailable, message));
        }
    }
    send.await
}

/// An instance for writing.
async fn connect(
    job: &Arc<Job>,
    spec: &CacheSpec,
    layers: &[(LayerDescriptor, Option<Arc<Layer>>)],
    progress: crate::cache::Progress,
) -> Result<Arc<dyn CacheBackend>, Failure> {
    let worker = Arc::clone(job.worker());
    let known: HashMap<_, Arc<Layer>> = layers
        .iter()
        .filter_map(|(descriptor, layer)| Some((descriptor.digest, layer.clone()?)))
        .collect();
    let elsewhere = {
        let worker = Arc::clone(&worker);
        move |digest: &wbuild_graph::Digest, registry: &str| -> Vec<String> {
            let layer = known.get(digest);
            layer.and_then(|layer| worker.repository_of(layer, registry)).into_iter().collect()
        }
    };
    let moves = Moves { elsewhere: Arc::new(elsewhere), progress };
    let missing = || Failure::internal(format!("there is no component for {}", spec.shown()));
    let plugin = job.remote(&spec.backend).ok_or_else(missing)?;
    let log = plugin_log(spec.shown(), Arc::clone(job.steps().sink()));
    worker.imports.grants().connect(spec, &**plugin, &log, moves, "write").await
}

/// Puts layers there. What is neither there nor here is fetched and tried again: layers of a base, or
/// of another cache, come only if they have to.
async fn push(
    job: &Arc<Job>,
    backend: &dyn CacheBackend,
    layers: &[(LayerDescriptor, Option<Arc<Layer>>)],
    moved: &CancellationToken,
) -> Result<(), Failure> {
    let mut wanted: Vec<&(LayerDescriptor, Option<Arc<Layer>>)> = layers.iter().collect();
    for attempt in 0..2 {
        let asked = wanted.iter().map(|(descriptor, _)| descriptor.clone()).collect();
        let answers = backend.push(asked).await?;
        moved.cancel();
        if answers.len() != wanted.len() {
            return Err(Failure::invalid("the cache backend gave another number of answers"));
        }
        let mut missing = Vec::new();
        for (layer, answer) in wanted.into_iter().zip(answers) {
            match answer {
                Ok(()) => {}
                Err(failure) if failure.kind == FailureKind::Gone && attempt == 0 => {
                    missing.push(layer);
                }
                Err(failure) => {
                    let digest = wbuild_graph::BlobDigest(layer.0.digest);
                    return Err(job.worker().if_damaged(vec![digest], failure).await);
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let fetches = missing.iter().filter_map(|(_, layer)| layer.as_ref());
        try_join_all(fetches.map(|layer| job.worker().fetch_layer(layer))).await?;
        wanted = missing;
    }
    Ok(())
}

/// A record that is to be written.
struct Found {
    solved: Arc<Solved>,
    keys: Vec<CacheKey>,
    created: u64,
}

/// The outputs of a result, if all are layers.
fn trees(solved: &Solved) -> Option<Vec<&Arc<solved::Tree>>> {
    fn tree(output: &Output) -> Option<&Arc<solved::Tree>> {
        match output {
            Output::Tree(tree) => Some(tree),
            Output::Local(_) => None,
        }
    }
    solved.outputs.iter().map(tree).collect()
}

/// Layers, each once: several records have handles of their own for the same.
#[derive(Default)]
struct Layers {
    all: Vec<Arc<Layer>>,
    by_snapshot: HashMap<SnapshotId, usize>,
    by_diff_id: HashMap<DiffId, usize>,
}

impl Layers {
    fn position(&self, layer: &Layer) -> Option<usize> {
        let facts = layer.facts();
        let by_snapshot = facts.snapshot.and_then(|id| self.by_snapshot.get(&id));
        let by_diff_id = || facts.diff_id.and_then(|id| self.by_diff_id.get(&id));
        by_snapshot.or_else(by_diff_id).copied()
    }

    fn find(&self, layer: &Layer) -> Option<&Arc<Layer>> {
        self.position(layer).and_then(|at| self.all.get(at))
    }

    fn has_all(&self, solved: &Solved) -> bool {
        let mut layers = trees(solved).into_iter().flatten().flat_map(|tree| &tree.layers);
        layers.all(|layer| self.position(layer).is_some())
    }

    fn take_up(&mut self, solved: &Solved) {
        for layer in trees(solved).into_iter().flatten().flat_map(|tree| &tree.layers) {
            let at = match self.position(layer) {
                Some(at) => at,
                None => {
                    self.all.push(Arc::clone(layer));
                    self.all.len() - 1
                }
            };
            let facts = layer.facts();
            if let Some(snapshot) = facts.snapshot {
                self.by_snapshot.entry(snapshot).or_insert(at);
            }
            if let Some(diff_id) = facts.diff_id {
                self.by_diff_id.entry(diff_id).or_insert(at);
            }
        }
    }

    /// The blobs of all layers that the records have, by place in the list; what was learnt is kept.
    async fn blobs(
        &self,
        job: &Arc<Job>,
        records: &[Found],
        want: Want,
    ) -> Result<HashMap<usize, Written>, Failure> {
        let mut used = HashSet::new();
        for found in records {
            for tree in trees(&found.solved).into_iter().flatten() {
                unpack_others(job, tree, None).await?;
                used.extend(tree.layers.iter().filter_map(|layer| self.position(layer)));
            }
        }
        let made = used.into_iter().map(|at| async move {
            let written = blob(job, &self.all[at], want).await?;
            // Kept with the rest of what is learnt.
            job.worker().layer_content(&self.all[at]).await?;
            Ok::<_, Failure>((at, written))
        });
        let made: HashMap<usize, Written> = try_join_all(made).await?.into_iter().collect();
        for found in records {
            for layer in trees(&found.solved).into_iter().flatten().flat_map(|tree| &tree.layers) {
                let canonical = self.find(layer).filter(|canonical| !Arc::ptr_eq(canonical, layer));
                if let Some(canonical) = canonical {
                    let known = canonical.facts();
                    layer.learn(|facts| {
                        facts.content = known.content;
                        facts.blob = known.blob;
                        facts.diff_id = known.diff_id;
                        facts.size = known.size;
                        facts.epoch = known.epoch;
                    });
                }
            }
            job.worker().keep_learnt(&found.solved)?;
        }
        Ok(made)
    }

    /// What a record keeps of a result whose layers are these blobs.
    async fn outputs(
        &self,
        job: &Arc<Job>,
        solved: &Solved,
        blobs: &HashMap<usize, Written>,
    ) -> Result<Vec<OutputRecord>, Failure> {
        let mut outputs = Vec::new();
        for tree in trees(solved).into_iter().flatten() {
            let mut layers = Vec::new();
            for layer in &tree.layers {
                let written = self.position(layer).and_then(|at| blobs.get(&at));
                let missing = || Failure::internal("a layer of a record has no blob");
                let written = written.ok_or_else(missing)?;
                let content = job.worker().layer_content(layer).await?;
                let mut record = layer.to_record();
                record.content_digest = Some(content);
                record.diff_id = Some(written.diff_id);
                record.blob = Some(BlobRef {
                    media_type: written.descriptor.media_type.clone(),
                    digest: wbuild_graph::BlobDigest(written.descriptor.digest),
                    size: written.descriptor.size,
                });
                // These have the times that the files have.
                solved::without_epoch(&mut record.attrs);
                layers.push(record);
            }
            outputs.push(OutputRecord { result_id: None, layers });
        }
        Ok(outputs)
    }
}

/// What goes into the config of an image, if the build is to write a cache of type inline.
pub(super) async fn inline(
    job: &Arc<Job>,
    image: &ImageResult,
) -> Result<Option<serde_json::Value>, Failure> {
    let wanted = job.request().cache_to.iter().any(|spec| spec.backend == CacheSpec::INLINE);
    let Some(root) = image.root.filter(|_| wanted) else { return Ok(None) };
    let solved = job.solve(root).await?;
    let whole = super::layers::image_tree(&solved, root.index)?;
    let mut inline = crate::cache::inline::Inline::default();
    for (key, found) in job.known(&[root]).await? {
        let trees = trees(&found).unwrap_or_default();
        let [tree] = &trees[..] else { continue };
        let has_record = found.record().as_ref().is_some_and(|record| record.outcome.is_none());
        let below = whole.layers.get(..tree.layers.len());
        let same = |(a, b): (&Arc<Layer>, &Arc<Layer>)| {
            let (a, b) = (a.facts(), b.facts());
            a.snapshot.is_some() && a.snapshot == b.snapshot
                || a.diff_id.is_some() && a.diff_id == b.diff_id
        };
        let in_image = below.is_some_and(|below| below.iter().zip(&tree.layers).all(same));
        if !has_record || !in_image {
            continue;
        }
        let mut attrs = Vec::new();
        for layer in &tree.layers {
            let content = job.worker().layer_content(layer).await?;
            attrs.push(entries::layer_attrs(content, &layer.to_record().attrs));
        }
        inline.add(key, attrs);
    }
    let json = serde_json::to_value(&inline)
        .map_err(|error| Failure::internal("cannot write the inline cache").cause(&error))?;
    Ok(Some(json))
}
