//! Layers, configs and manifests of images, as blobs and documents.
//!
//! The same results give the same blobs. A layer of a base stays what its image says it is, unless
//! another compression is forced.

use std::cell::RefCell;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use futures_util::future::try_join_all;
use wbuild_api::extension::ImageResult;
use wbuild_graph::{DiffId, Failure, FailureKind};
use wbuild_oci::Timestamp;
use wbuild_oci::config::{Finish, ImageConfig};
use wbuild_oci::layer::{
    CompressOptions, LayerBlob, LayerBuilder, WriteOptions, recompress, write_upper,
};
use wbuild_oci::layout::ExportImage;
use wbuild_oci::media::{Compression, Descriptor, MediaFamily};
use wbuild_store::{BlobRef, Store};
use wbuild_tree::{LentReader, RelPath, TreeError};

use super::attrs::Want;
use crate::blocking;
use crate::cancel::{CancelOnDrop, Stoppable};
use crate::job::Job;
use crate::ops::overlay_kind;
use crate::solved::{Layer, LayerFacts, Lent, Origin, Output, Solved, Tree};
use crate::worker::output;

/// The largest layer that is written, in bytes.
const LAYER_LIMIT: u64 = 1 << 40;

/// The diff id of a layer and when it was made.
pub(super) async fn named(
    job: &Arc<Job>,
    layer: &Arc<Layer>,
) -> Result<(DiffId, Option<u64>), Failure> {
    let worker = job.worker();
    let epoch = worker.settings.source_date_epoch;
    let _busy = layer.busy.lock().await;
    let facts = layer.facts();
    let settled = matches!(layer.origin, Origin::Image(_)) || facts.epoch == epoch;
    if let (Some(diff_id), true) = (facts.diff_id, settled) {
        return Ok((diff_id, facts.created));
    }
    let (written, _) =
        write_made(job, layer, epoch, &CompressOptions::new(Compression::None), |_| {
            Ok(std::io::sink())
        })
        .await?;
    layer.learn(|facts| {
        facts.blob = None;
        facts.diff_id = Some(written.diff_id);
        facts.size = written.uncompressed;
        facts.epoch = epoch;
    });
    Ok((written.diff_id, facts.created))
}

/// What the root of an image was solved to; none for an image without layers.
pub(super) async fn solved_root(
    job: &Arc<Job>,
    image: &ImageResult,
) -> Result<Option<(Arc<Solved>, u32)>, Failure> {
    match image.root {
        None => Ok(None),
        Some(edge) => Ok(Some((job.solve(edge).await?, edge.index))),
    }
}

pub(super) fn image_tree(solved: &Solved, index: u32) -> Result<&Tree, Failure> {
    match output(solved, index)? {
        Output::Tree(tree) => Ok(tree),
        Output::Local(_) => Err(Failure::invalid("an image cannot be a local directory as it is")
            .hint("copy the directory into an empty tree first")),
    }
}

/// Manifest and config of one image, its layers put into the store. Those of a base stay where they
/// are if that is wanted.
pub(super) async fn assemble(
    job: &Arc<Job>,
    image: &ImageResult,
    want: Want,
    indexed: bool,
) -> Result<ExportImage, Failure> {
    let written: Vec<Written> = match solved_root(job, image).await? {
        None => Vec::new(),
        Some((solved, index)) => blobs(job, &solved, image_tree(&solved, index)?, want).await?,
    };
    let layers: Vec<_> = written.iter().map(|layer| (layer.diff_id, layer.created)).collect();
    let inline = Box::pin(super::cache::inline(job, image)).await?;
    let config = config(job, image, &layers, inline)?;
    let descriptors = written.into_iter().map(|layer| layer.descriptor).collect();
    let mut made = ExportImage::new(want.family, config, descriptors);
    // In an index an image stands for what was asked for, even where its stage is of another platform.
    if let (true, Some(platform)) = (indexed, &image.platform) {
        made.platform = platform.clone();
    }
    Ok(made)
}

/// The config of an image whose layers have these diff ids and dates.
pub(super) fn config(
    job: &Job,
    image: &ImageResult,
    layers: &[(DiffId, Option<u64>)],
    cache: Option<serde_json::Value>,
) -> Result<ImageConfig, Failure> {
    let newest = layers.iter().filter_map(|(_, created)| *created).max();
    let diff_ids: Vec<DiffId> = layers.iter().map(|(diff_id, _)| *diff_id).collect();
    let platform = image.platform.as_ref().unwrap_or(&job.target_platforms()[0]);
    // An image that is exported twice from the cache is the same image: its date is that of its
    // newest layer, not of the export.
    // Without a layer of its own it has the date of its base.
    let seconds = |time| Timestamp::from_seconds(i64::try_from(time).unwrap_or(i64::MAX));
    let created = match job.request().source_date_epoch.or(newest).map(seconds) {
        Some(time) => time,
        None => base_date(&image.config).unwrap_or(seconds(job.worker().settings.now)),
    };
    let with = Finish { diff_ids: &diff_ids, platform, created: Some(created), cache };
    Ok(ImageConfig::finish(image.config.as_bytes(), &with)?)
}

/// The date a frontend has left in the config: that of the base image.
fn base_date(config: &str) -> Option<Timestamp> {
    let config: serde_json::Value = serde_json::from_str(config).ok()?;
    config.get("created")?.as_str()?.parse().ok()
}

/// A layer as a blob of the store.
pub(super) struct Written {
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: DiffId,
    created: Option<u64>,
}

impl Written {
    fn of(facts: &LayerFacts, blob: &BlobRef) -> Result<Written, Failure> {
        let diff_id = facts.diff_id.ok_or_else(|| Failure::internal("a blob without a diff id"))?;
        let descriptor = Descriptor::new(blob.media_type.clone(), blob.digest.0, blob.size);
        Ok(Written { descriptor, diff_id, created: facts.created })
    }
}

/// Unpacks the layers of ours that are kept as blobs with other times than the image is to have.
pub(super) async fn unpack_others(
    job: &Arc<Job>,
    tree: &Tree,
    epoch: Option<u64>,
) -> Result<(), Failure> {
    let other = |layer: &Arc<Layer>| {
        let facts = layer.facts();
        layer.origin == Origin::Made && facts.snapshot.is_none() && facts.epoch != epoch
    };
    if tree.layers.iter().any(other) {
        job.worker().snapshots(tree).await?;
    }
    Ok(())
}

/// Makes sure every layer is a blob in the store, and keeps what was learnt.
async fn blobs(
    job: &Arc<Job>,
    solved: &Arc<Solved>,
    tree: &Tree,
    want: Want,
) -> Result<Vec<Written>, Failure> {
    unpack_others(job, tree, want.epoch(job)).await?;
    let written = try_join_all(tree.layers.iter().map(|layer| blob(job, layer, want))).await?;
    job.worker().keep_learnt(solved)?;
    Ok(written)
}

pub(super) async fn blob(
    job: &Arc<Job>,
    layer: &Arc<Layer>,
    want: Want,
) -> Result<Written, Failure> {
    match layer.origin {
        Origin::Image(_) => image_blob(job, layer, want).await,
        Origin::Made => made_blob(job, layer, want).await,
    }
}

/// Layers of a base are what they are: only their compression may be another, if that is forced.
async fn image_blob(job: &Arc<Job>, layer: &Layer, want: Want) -> Result<Written, Failure> {
    let worker = job.worker();
    let keeps = |blob: &BlobRef| {
        !want.force
            || Compression::of_media_type(&blob.media_type) == Some(want.options.compression)
    };
    let facts = layer.facts();
    if let Some(blob) = facts.blob.as_ref().filter(|blob| want.lazy && keeps(blob)) {
        return Written::of(&facts, blob);
    }
    let blob = worker.fetch_layer(layer).await?;
    let mut written = Written::of(&facts, &blob)?;
    if keeps(&blob) {
        return Ok(written);
    }
    // The layer itself stays what its image says it is: that is where it can be had again.
    let made = recompressed(job, layer, &blob, written.diff_id, want).await?;
    written.descriptor = made.descriptor(MediaFamily::Oci);
    Ok(written)
}

/// The same layer in another form, as a further blob.
async fn recompressed(
    job: &Arc<Job>,
    layer: &Layer,
    blob: &BlobRef,
    diff_id: DiffId,
    want: Want,
) -> Result<LayerBlob, Failure> {
    let worker = job.worker();
    let _slot = worker.io_slots.acquire().await.expect("the semaphore is never closed");
    let (store, digest, blob) = (worker.store.clone(), blob.digest, blob.clone());
    let (_cancel, work) = CancelOnDrop::new();
    let made = blocking(move || -> Result<_, Failure> {
        let gone = || Failure::new(FailureKind::Gone, format!("the blob {} is gone", blob.digest));
        let input = store.open_blob(&blob.digest)?.ok_or_else(gone)?;
        let input = Stoppable { inner: &input.file, cancel: work.cancel };
        let ingest = store.ingest(LAYER_LIMIT)?.hashed_by_caller();
        let (ingest, made) = recompress(input, &blob.media_type, diff_id, ingest, &want.options)?;
        let held = ingest.commit(Some(&made.digest), Some(made.size))?;
        Ok((made, held.into_parts().1))
    })
    .await;
    let (made, lease) = match made {
        Ok(made) => made,
        Err(failure) => return Err(worker.if_damaged(vec![digest], failure).await),
    };
    layer.hold(lease);
    Ok(made)
}

async fn made_blob(job: &Arc<Job>, layer: &Layer, want: Want) -> Result<Written, Failure> {
    let worker = job.worker();
    let epoch = want.epoch(job);
    // Two images of one build may share the layer.
    let _busy = layer.busy.lock().await;
    let facts = layer.facts();
    if let Some(blob) = &facts.blob {
        let compression = Compression::of_media_type(&blob.media_type);
        let fits = want.any || compression == Some(want.options.compression);
        if fits && facts.epoch == epoch {
            let here = worker.store.has_blob(&blob.digest)?;
            // What lies elsewhere is fetched when it has to be sent.
            if here || (want.lazy && layer.place.is_some()) {
                return Written::of(&facts, blob);
            }
            if layer.place.is_some() && facts.snapshot.is_none() {
                worker.fetch_layer(layer).await?;
                return Written::of(&facts, blob);
            }
        }
    }
    let written = match (facts.snapshot, &facts.blob, facts.diff_id) {
        (None, Some(blob), Some(diff_id)) => {
            worker.fetch_layer(layer).await?;
            recompressed(job, layer, blob, diff_id, want).await?
        }
        _ => {
            let (written, ingest) = write_made(job, layer, epoch, &want.options, |store| {
                Ok(store.ingest(LAYER_LIMIT)?.hashed_by_caller())
            })
            .await?;
            let (digest, size) = (written.digest, written.size);
            let held = blocking(move || ingest.commit(Some(&digest), Some(size))).await?;
            layer.hold(held.into_parts().1);
            written
        }
    };
    let blob = BlobRef {
        media_type: written.compression.oci_layer().to_owned(),
        digest: written.digest,
        size: written.size,
    };
    layer.learn(|facts| {
        facts.blob = Some(blob.clone());
        facts.diff_id = Some(written.diff_id);
        facts.size = written.uncompressed;
        facts.epoch = epoch;
    });
    Written::of(&layer.facts(), &blob)
}

/// Writes a layer that an op of ours made as a tar.
async fn write_made<W: std::io::Write + Send + 'static>(
    job: &Arc<Job>,
    layer: &Layer,
    epoch: Option<u64>,
    options: &CompressOptions,
    out: impl FnOnce(&Store) -> wbuild_store::Result<W> + Send + 'static,
) -> Result<(LayerBlob, W), Failure> {
    let worker = job.worker();
    let gone = || Failure::new(FailureKind::Gone, "the files of a layer are gone");
    let (snapshot, lent) = (layer.facts().snapshot.ok_or_else(gone)?, layer.lent());
    let _slot = worker.io_slots.acquire().await.expect("the semaphore is never closed");
    let (store, options) = (worker.store.clone(), *options);
    let (_cancel, work) = CancelOnDrop::new();
    blocking(move || -> Result<_, Failure> {
        let view = store.view(&[snapshot])?;
        let out = Stoppable { inner: out(&store)?, cancel: work.cancel };
        let mut builder = LayerBuilder::new(out, &options)?;
        let mut options = WriteOptions::new(overlay_kind(store.kind()));
        options.epoch = epoch.map(|epoch| i64::try_from(epoch).unwrap_or(i64::MAX));
        match &lent {
            None => write_upper(&mut builder, view.as_fd(), &options)?,
            Some(lent) => write_lent(&mut builder, view.as_fd(), options, lent)?,
        }
        let (out, layer) = builder.finish()?;
        Ok((layer, out.inner))
    })
    .await
}

/// Writes a layer whose large files are read from where they were copied from.
fn write_lent<W: std::io::Write>(
    builder: &mut LayerBuilder<W>,
    upper: BorrowedFd<'_>,
    options: WriteOptions<'_>,
    lent: &Lent,
) -> Result<(), Failure> {
    // A file that has changed is the context's failure, not the layer's.
    let failed: RefCell<Option<TreeError>> = RefCell::new(None);
    let contents = |path: &[u8]| {
        let opened =
            RelPath::clean(path).and_then(|path| lent.files.open(&path, &lent.context.root));
        match opened {
            Ok(None) => Ok(None),
            Ok(Some(inner)) => {
                Ok(Some(Box::new(Noting { inner, failed: &failed }) as Box<dyn std::io::Read>))
            }
            Err(error) => {
                failed.replace(Some(error));
                let message = "cannot read a file of a layer";
                Err(wbuild_oci::Error::new(wbuild_oci::ErrorKind::Changed, message))
            }
        }
    };
    let written =
        write_upper(builder, upper, &WriteOptions { contents: Some(&contents), ..options });
    match failed.take() {
        Some(error) => Err(lent.context.failure(error, None)),
        None => Ok(written?),
    }
}

/// Keeps the failure of a lent file.
struct Noting<'a> {
    inner: LentReader,
    failed: &'a RefCell<Option<TreeError>>,
}

impl std::io::Read for Noting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(buffer).map_err(|error| match error.downcast::<TreeError>() {
            Ok(error) => {
                self.failed.replace(Some(error));
                std::io::ErrorKind::InvalidData.into()
            }
            Err(error) => error,
        })
    }
}
