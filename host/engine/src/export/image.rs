//! Images as OCI layout or docker archive.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use futures_util::future::try_join_all;
use wbuild_api::event::ImageReport;
use wbuild_api::extension::ImageResult;
use wbuild_api::request::{OutputDest, OutputKind, OutputSpec};
use wbuild_graph::{Attrs, BlobDigest, DiffId, Failure};
use wbuild_oci::Timestamp;
use wbuild_oci::config::{Finish, ImageConfig};
use wbuild_oci::layer::{CompressOptions, LayerBuilder, WriteOptions, write_upper};
use wbuild_oci::layout::{
    BlobSource, Export, ExportImage, write_docker_tar, write_oci_dir, write_oci_tar,
};
use wbuild_oci::media::{Compression, Descriptor, MediaFamily};
use wbuild_oci::reference::Reference;
use wbuild_store::{BlobRef, Store};

use crate::blocking;
use crate::job::Job;
use crate::ops::overlay_kind;
use crate::solved::{Layer, Origin, Output, Solved};
use crate::worker::output;

/// The largest layer that is written, in bytes.
const LAYER_LIMIT: u64 = 1 << 40;

const KNOWN: &[&str] = &[
    "name",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "tar",
    "rewrite-timestamp",
];

/// How layers are to be compressed.
#[derive(Clone, Copy)]
struct Want {
    options: CompressOptions,
    /// Compress again what exists in another form.
    force: bool,
}

fn want(attrs: &Attrs) -> Result<Want, Failure> {
    wbuild_graph::decode::only_known(attrs, "the output", KNOWN)?;
    let compression = match attrs.get("compression") {
        None | Some("gzip") => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        Some("uncompressed") => Compression::None,
        Some(other) => {
            return Err(Failure::unsupported(format!("unknown compression {other:?}"))
                .hint("expected gzip, zstd or uncompressed"));
        }
    };
    let level = match attrs.get("compression-level") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            Failure::invalid(format!("compression-level is a number, not {text:?}"))
        })?),
    };
    let mut options = CompressOptions::new(compression);
    options.level = level;
    let force = wbuild_graph::decode::flag(attrs, "force-compression")?;
    Ok(Want { options, force })
}

/// Writes all images of the build to one output.
pub(crate) async fn export(job: &Arc<Job>, spec: &OutputSpec) -> Result<ImageReport, Failure> {
    let images = job.images();
    if images.is_empty() {
        return Err(Failure::invalid("the build yields no image to export")
            .hint("choose an output of type local or tar for its files"));
    }
    let want = want(&spec.attrs)?;
    let names = names(job, spec)?;
    let kind = match spec.kind {
        OutputKind::Docker => "docker archive",
        _ => "OCI image layout",
    };
    let step = job.steps().internal(&format!("export {kind}"));
    let family = match spec.attrs.get("oci-mediatypes") {
        Some("false") => MediaFamily::Docker,
        _ => MediaFamily::Oci,
    };
    let result = async {
        let mut parts = Vec::new();
        for image in &images {
            parts.push(assemble(job, image, want, family).await?);
        }
        let config = parts.first().map(|image| image.manifest.config.digest);
        let epoch = job.request().source_date_epoch.map(|e| i64::try_from(e).unwrap_or(i64::MAX));
        let export = Export::new(family, parts, names, epoch)?;
        let report = ImageReport {
            names: export.names().iter().map(ToString::to_string).collect(),
            digest: Some(export.root().digest),
            config,
        };
        write(spec, job.worker().store.clone(), export).await?;
        Ok(report)
    }
    .await;
    match &result {
        Ok(_) => step.done(),
        Err(failure) => step.failed(failure),
    }
    result
}

fn names(job: &Job, spec: &OutputSpec) -> Result<Vec<Reference>, Failure> {
    let given = spec.attrs.all("name").flat_map(|names| names.split(','));
    let mut names = Vec::new();
    for name in job.request().tags.iter().map(String::as_str).chain(given) {
        let reference: Reference = name.parse()?;
        if !names.contains(&reference) {
            names.push(reference);
        }
    }
    Ok(names)
}

/// Puts manifest, config and layers of one image into the store.
async fn assemble(
    job: &Arc<Job>,
    image: &ImageResult,
    want: Want,
    family: MediaFamily,
) -> Result<ExportImage, Failure> {
    let layers: Vec<Arc<Layer>> = match image.root {
        None => Vec::new(),
        Some(edge) => {
            let solved = job.solve(edge).await?;
            let layers = match output(&solved, edge.index)? {
                Output::Tree(tree) => tree.layers.clone(),
                Output::Local(_) => {
                    return Err(Failure::invalid("an image cannot be a local directory as it is")
                        .hint("copy the directory into an empty tree first"));
                }
            };
            blobs(job, &solved, &layers, want).await?;
            layers
        }
    };
    let mut diff_ids: Vec<DiffId> = Vec::new();
    let mut descriptors = Vec::new();
    let mut newest = None;
    for layer in &layers {
        let facts = layer.facts();
        let (Some(blob), Some(diff_id)) = (facts.blob, facts.diff_id) else {
            return Err(Failure::internal("a layer has no blob after it was written"));
        };
        newest = newest.max(facts.created);
        diff_ids.push(diff_id);
        descriptors.push(Descriptor::new(blob.media_type, blob.digest.0, blob.size));
    }
    let platform = image.platform.as_ref().unwrap_or(&job.target_platforms()[0]);
    // An image that is exported twice from the cache is the same image: its date is that of its
    // newest layer, not of the export.
    // Without a layer of its own it has the date of its base.
    let seconds = |time| Timestamp::from_seconds(i64::try_from(time).unwrap_or(i64::MAX));
    let created = match job.request().source_date_epoch.or(newest).map(seconds) {
        Some(time) => time,
        None => base_date(&image.config).unwrap_or(seconds(job.worker().settings.now)),
    };
    let config = ImageConfig::finish(
        image.config.as_bytes(),
        &Finish { diff_ids: &diff_ids, platform, created: Some(created) },
    )?;
    Ok(ExportImage::new(family, config, descriptors))
}

/// The date a frontend has left in the config: that of the base image.
fn base_date(config: &str) -> Option<Timestamp> {
    let config: serde_json::Value = serde_json::from_str(config).ok()?;
    config.get("created")?.as_str()?.parse().ok()
}

/// Makes sure every layer is a blob in the store, and keeps what was learnt.
async fn blobs(
    job: &Arc<Job>,
    solved: &Arc<Solved>,
    layers: &[Arc<Layer>],
    want: Want,
) -> Result<(), Failure> {
    try_join_all(layers.iter().map(|layer| blob(job, layer, want))).await?;
    job.worker().keep_learnt(solved)
}

async fn blob(job: &Arc<Job>, layer: &Arc<Layer>, want: Want) -> Result<(), Failure> {
    let worker = job.worker();
    let facts = layer.facts();
    let epoch = match layer.origin {
        // Layers of a base are what they are.
        Origin::Image(_) => facts.epoch,
        Origin::Made => worker.settings.source_date_epoch,
    };
    let image = matches!(layer.origin, Origin::Image(_));
    if let Some(blob) = &facts.blob {
        let fits = Compression::of_media_type(&blob.media_type) == Some(want.options.compression);
        let usable = (fits || !want.force && image) && facts.epoch == epoch;
        if usable && worker.store.has_blob(&blob.digest)? {
            return Ok(());
        }
        if usable && image && facts.snapshot.is_none() {
            worker.images().fetch_layer(layer).await?;
            return Ok(());
        }
    }
    let Some(snapshot) = facts.snapshot else {
        // Compressing anew needs the files, hence the blob first.
        worker.images().fetch_layer(layer).await?;
        if want.force {
            return Err(Failure::unsupported(
                "force-compression of a base image's layers that are not unpacked",
            ));
        }
        return Ok(());
    };
    let _busy = layer.busy.lock().await;
    let _slot = worker.io_slots.acquire().await.expect("the semaphore is never closed");
    let store = worker.store.clone();
    let written = blocking(move || -> Result<_, Failure> {
        let view = store.view(&[snapshot])?;
        let ingest = store.ingest(LAYER_LIMIT)?;
        let mut builder = LayerBuilder::new(ingest, &want.options)?;
        let mut options = WriteOptions::new(overlay_kind(store.kind()));
        options.epoch = epoch.map(|epoch| i64::try_from(epoch).unwrap_or(i64::MAX));
        write_upper(&mut builder, view.as_fd(), &options)?;
        let (ingest, layer) = builder.finish()?;
        let held = ingest.commit(Some(&layer.digest), Some(layer.size))?;
        Ok((layer, held.into_parts().1))
    })
    .await?;
    let (written, lease) = written;
    layer.hold(lease);
    layer.learn(|facts| {
        facts.blob = Some(BlobRef {
            media_type: written.compression.oci_layer().to_owned(),
            digest: written.digest,
            size: written.size,
        });
        facts.diff_id = Some(written.diff_id);
        facts.size = written.uncompressed;
        facts.epoch = epoch;
    });
    Ok(())
}

struct StoreBlobs(Store);

impl BlobSource for StoreBlobs {
    fn open(
        &self,
        digest: &wbuild_graph::Digest,
    ) -> wbuild_oci::Result<Box<dyn std::io::Read + Send + '_>> {
        let missing = || {
            let message = format!("the blob {digest} is not in the store");
            wbuild_oci::Error::new(wbuild_oci::ErrorKind::NotFound, message)
        };
        match self.0.open_blob(&BlobDigest(*digest)) {
            Ok(Some(blob)) => Ok(Box::new(blob.file)),
            Ok(None) => Err(missing()),
            Err(error) => Err(missing().because(error)),
        }
    }
}

async fn write(spec: &OutputSpec, store: Store, export: Export) -> Result<(), Failure> {
    let (kind, dest) = (spec.kind, spec.dest.clone());
    blocking(move || -> Result<(), Failure> {
        let blobs = StoreBlobs(store);
        match (kind, &dest) {
            (OutputKind::Oci, OutputDest::Directory(directory)) => {
                let failed = |error: std::io::Error| {
                    let directory = directory.display();
                    Failure::invalid(format!("cannot write the layout {directory}")).cause(&error)
                };
                std::fs::create_dir_all(directory).map_err(failed)?;
                let fd = std::fs::File::open(directory).map_err(failed)?;
                Ok(write_oci_dir(&export, &blobs, fd.as_fd())?)
            }
            (OutputKind::Oci, dest) => super::files::to_writer(dest, |out| {
                write_oci_tar(&export, &blobs, out)?;
                Ok(())
            }),
            (_, dest) => super::files::to_writer(dest, |out| {
                write_docker_tar(&export, &blobs, out)?;
                Ok(())
            }),
        }
    })
    .await
}
