//! Images as OCI layout or docker archive.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use futures_util::future::try_join_all;
use wbuild_api::event::{ImageDescriptor, ImageReport};
use wbuild_api::request::{BuildRequest, OutputDest, OutputKind, OutputSpec};
use wbuild_graph::{BlobDigest, Failure};
use wbuild_oci::layout::{BlobSource, Export, write_docker_tar, write_oci_dir, write_oci_tar};
use wbuild_oci::media::MediaFamily;
use wbuild_oci::reference::Reference;
use wbuild_store::Store;

use super::annotations::Annotations;
use super::attrs::{self, Want};
use super::layers::{assemble, config, image_tree, named, solved_root, unpack_others};
use super::names;
use crate::blocking;
use crate::cancel::CancelOnDrop;
use crate::job::Job;
use crate::present::REPAIR;
use crate::room::written_to;
use wbuild_api::yielded::{Batch, Image};

/// Keys of these outputs besides those of all images.
const OWN: &[&str] = &["tar"];

/// Refuses an output that cannot be written.
pub(super) fn check(request: &BuildRequest, spec: &OutputSpec) -> Result<(), Failure> {
    let annotations = Annotations::of(request, &spec.attrs)?;
    attrs::want(&spec.attrs, OWN, &annotations)?;
    names::given(request, spec)?;
    match (spec.kind, &spec.dest) {
        (OutputKind::Oci, OutputDest::Directory(_)) => Ok(()),
        (OutputKind::Oci, OutputDest::Daemon(_)) => {
            Err(Failure::unsupported("a Docker takes outputs of type docker only"))
        }
        (OutputKind::Docker, _) if request.platforms.len() > 1 => {
            Err(Failure::unsupported("a docker archive holds an image for one platform")
                .hint("choose one platform, or an output of type oci"))
        }
        (_, OutputDest::Daemon(endpoint)) => super::daemon::check(endpoint),
        (_, dest) => super::files::check_writable(dest),
    }
}

/// Refuses, once it is known what there is, an output that has nothing to write or cannot hold it.
pub(super) fn settle(spec: &OutputSpec, batch: &Batch) -> Result<(), Failure> {
    if batch.images.is_empty() {
        let message = "the build yields no image to export";
        return Err(Failure::invalid(message).hint(super::others(batch)));
    }
    let several = batch.images.iter().find(|image| image.parts.len() > 1);
    match several.filter(|_| spec.kind == OutputKind::Docker) {
        Some(image) => {
            let message = format!(
                "a docker archive holds images for one platform, and {} is for {}",
                image.shown(),
                image.parts.len()
            );
            Err(Failure::unsupported(message).hint("choose an output of type oci"))
        }
        None => Ok(()),
    }
}

/// Writes images to one output.
pub(crate) async fn export(
    job: &Arc<Job>,
    spec: &OutputSpec,
    batch: &Batch,
) -> Result<Vec<ImageReport>, Failure> {
    let annotations = Annotations::of(job.request(), &spec.attrs)?;
    let want = attrs::want(&spec.attrs, OWN, &annotations)?;
    let step = job.steps().internal(&match (spec.kind, &spec.dest) {
        (_, OutputDest::Daemon(endpoint)) => format!("load into {endpoint}"),
        (OutputKind::Docker, _) => "export docker archive".to_owned(),
        _ => "export OCI image layout".to_owned(),
    });
    let mut attempt = 0;
    let result = loop {
        let result = async {
            let (mut exports, mut reports) = (Vec::new(), Vec::new());
            for image in &batch.images {
                let names = names::of(job, spec, image)?.all.into_iter().map(|(_, name)| name);
                let names: Vec<Reference> = names.collect();
                let export = together(job, want, image, &names, &annotations).await?;
                let names = export.names().iter().map(ToString::to_string).collect();
                reports.push(report(image, &export, names));
                exports.push(export);
            }
            write(spec, job.worker().store.clone(), exports).await?;
            Ok(reports)
        }
        .await;
        if !job.worker().room.again(&result, &mut attempt).await {
            break result;
        }
    };
    match &result {
        Ok(_) => step.done(),
        Err(failure) => step.failed(failure),
    }
    result
}

/// One image, for all of its platforms.
pub(super) async fn together(
    job: &Arc<Job>,
    want: Want,
    image: &Image,
    names: &[Reference],
    annotations: &Annotations,
) -> Result<Export, Failure> {
    let own = names::annotations(image)?;
    // Docker's own types have no annotations.
    let family = if own.is_empty() { want.family } else { MediaFamily::Oci };
    let want = Want { family, ..want };
    let indexed = image.parts.len() > 1;
    let mut parts = Vec::new();
    for one in &image.parts {
        let mut part = assemble(job, one, want, indexed).await?;
        if !own.is_empty() {
            part.manifest.annotations.get_or_insert_default().extend(own.iter().cloned());
        }
        annotations.add_to(&mut part);
        parts.push(part);
    }
    let epoch = job.request().source_date_epoch.map(|e| i64::try_from(e).unwrap_or(i64::MAX));
    Ok(Export::annotated(want.family, parts, names.to_vec(), epoch, annotations.index())?)
}

/// What there is to say of an export.
pub(super) fn report(image: &Image, export: &Export, names: Vec<String>) -> ImageReport {
    let root = export.root();
    let config = match export.images() {
        [image] => Some(image.manifest.config.digest),
        _ => None,
    };
    let descriptor = ImageDescriptor {
        media_type: root.media_type.clone(),
        digest: root.digest,
        size: root.size,
        annotations: root.annotations.clone().unwrap_or_default(),
    };
    let image = image.name.clone();
    ImageReport { image, names, digest: Some(root.digest), config, descriptor: Some(descriptor) }
}

/// What the image of a build that writes none would be known by. Layers are hashed, and
/// neither compressed nor kept.
pub(super) async fn identify(job: &Arc<Job>) -> Result<Option<ImageReport>, Failure> {
    let whole = job.yielded().whole();
    let Some(main) = whole.main() else { return Ok(None) };
    // One of several platforms would be known by its index, which there is none of.
    let [image] = &main.parts[..] else { return Ok(None) };
    let mut layers = Vec::new();
    if let Some((solved, index)) = solved_root(job, image).await? {
        let tree = image_tree(&solved, index)?;
        unpack_others(job, tree, job.worker().settings.source_date_epoch).await?;
        let named = tree.layers.iter().map(|layer| named(job, layer));
        layers = try_join_all(named).await?;
        job.worker().keep_learnt(&solved)?;
    }
    let inline = Box::pin(super::cache::inline(job, image)).await?;
    let config = config(job, image, &layers, inline)?.descriptor(MediaFamily::Oci).digest;
    let names = job.request().tags.iter().map(|name| Ok(name.parse::<Reference>()?.to_string()));
    let names = names.collect::<Result<Vec<String>, Failure>>()?;
    let image = main.name.clone();
    Ok(Some(ImageReport { image, names, digest: None, config: Some(config), descriptor: None }))
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

async fn write(spec: &OutputSpec, store: Store, exports: Vec<Export>) -> Result<(), Failure> {
    if let OutputDest::Daemon(endpoint) = &spec.dest {
        return super::daemon::load(endpoint, move |out| {
            let exports: Vec<&Export> = exports.iter().collect();
            write_docker_tar(&exports, &StoreBlobs(store), out)?;
            Ok(())
        })
        .await;
    }
    let (kind, dest) = (spec.kind, spec.dest.clone());
    let (_cancel, work) = CancelOnDrop::new();
    blocking(move || -> Result<(), Failure> {
        let blobs = StoreBlobs(store);
        let exports: Vec<&Export> = exports.iter().collect();
        let failed = |error: wbuild_oci::Error| {
            let damaged = error.kind() == wbuild_oci::ErrorKind::Mismatch && !error.has_hint();
            let failure = Failure::from(error);
            if damaged { failure.hint(REPAIR) } else { failure }
        };
        match (kind, &dest) {
            (OutputKind::Oci, OutputDest::Directory(directory)) => {
                let unwritable = |error: std::io::Error| {
                    let directory = directory.display();
                    Failure::invalid(format!("cannot write the layout {directory}")).cause(&error)
                };
                std::fs::create_dir_all(directory)
                    .and_then(|()| std::fs::File::open(directory))
                    .map_err(unwritable)
                    .and_then(|fd| write_oci_dir(&exports, &blobs, fd.as_fd()).map_err(failed))
                    .map_err(|failure| written_to(failure, Some(directory)))
            }
            (OutputKind::Oci, dest) => super::files::to_writer(dest, &work.cancel, |out| {
                write_oci_tar(&exports, &blobs, out).map(drop).map_err(failed)
            }),
            (_, dest) => super::files::to_writer(dest, &work.cancel, |out| {
                write_docker_tar(&exports, &blobs, out).map(drop).map_err(failed)
            }),
        }
    })
    .await
}
