//! Images in registries, or in wbuild's own store alone.
//!
//! Layers of a base are fetched only if they have to be sent: a registry that has them is told to use
//! them. Documents of an image are kept in the store in any case.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::sync::Arc;

use async_trait::async_trait;
use wbuild_api::event::ImageReport;
use wbuild_api::request::{BuildRequest, OutputDest, OutputSpec};
use wbuild_graph::{BlobDigest, Digest, Failure, FailureKind};
use wbuild_oci::layout::Export;
use wbuild_oci::media::Descriptor;
use wbuild_oci::reference::Reference;
use wbuild_oci::registry::PushSource;

use super::annotations::Annotations;
use super::attrs::{self, Want, flag};
use super::image::{report, together};
use super::layers::{image_tree, solved_root};
use super::names::{self, Name};
use crate::blocking;
use crate::job::Job;
use crate::solved::{Layer, Origin};
use crate::steps::InternalStep;
use crate::worker::BuildWorker;
use wbuild_api::yielded::{Batch, Image};

/// Keys of this output besides those of all images.
const OWN: &[&str] = &[
    "push",
    "push-by-digest",
    "name-canonical",
    "registry.insecure",
    "store",
    "unpack",
    "dangling-name-prefix",
];

/// What an output of this kind is to do.
struct Wish {
    want: Want,
    annotations: Annotations,
    push: bool,
    by_digest: bool,
    insecure: bool,
    keep: bool,
    /// What an image without a name is called, before its digest.
    dangling: Option<Reference>,
}

impl Wish {
    fn of(request: &BuildRequest, spec: &OutputSpec) -> Result<Wish, Failure> {
        let attrs = &spec.attrs;
        let annotations = Annotations::of(request, attrs)?;
        let want = Want { lazy: true, ..attrs::want(attrs, OWN, &annotations)? };
        if flag(attrs, "unpack", false)? {
            return Err(Failure::unsupported("unpack=true: there is no daemon to unpack it for")
                .hint("leave it out; a later build unpacks what it reads"));
        }
        // The name with its digest is one a registry answers to anyway.
        flag(attrs, "name-canonical", false)?;
        let dangling = attrs.get("dangling-name-prefix").filter(|prefix| !prefix.is_empty());
        let wish = Wish {
            want,
            annotations,
            push: flag(attrs, "push", false)?,
            by_digest: flag(attrs, "push-by-digest", false)?,
            insecure: flag(attrs, "registry.insecure", false)?,
            keep: flag(attrs, "store", true)?,
            dangling: dangling.map(str::parse).transpose()?,
        };
        if wish.by_digest && !wish.push {
            return Err(Failure::invalid("push-by-digest=true without push=true pushes nothing")
                .hint("add push=true"));
        }
        wish.check(&names::given(request, spec)?)?;
        Ok(wish)
    }

    /// Refuses names that cannot be pushed to.
    fn check(&self, names: &[Name]) -> Result<(), Failure> {
        for (written, name) in names.iter().filter(|_| self.push) {
            if name.digest().is_some() {
                let message = format!("{written} has a digest, which a push cannot choose");
                return Err(Failure::invalid(message).hint("leave out what follows the @"));
            }
            if self.by_digest && has_tag(written) {
                let message = format!("{written} has a tag, but push-by-digest pushes none");
                let bare = name.name();
                return Err(Failure::invalid(message).hint(format!("call it {bare}")));
            }
        }
        Ok(())
    }
}

/// Whether a name is written with a tag; a colon before a slash belongs to a port.
fn has_tag(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// Refuses an output that cannot be written.
pub(super) fn check(request: &BuildRequest, spec: &OutputSpec) -> Result<(), Failure> {
    if spec.dest != OutputDest::Nowhere {
        return Err(Failure::invalid("an output of type image has no dest")
            .hint("for a file choose type=oci or type=docker"));
    }
    Wish::of(request, spec).map(|_| ())
}

/// Refuses, once it is known what there is, an output that pushes and has nothing to push; `else_done`
/// says that something else is done where images are pushed.
pub(super) fn settle(
    job: &Job,
    spec: &OutputSpec,
    batch: &Batch,
    else_done: bool,
) -> Result<(), Failure> {
    let wish = Wish::of(job.request(), spec)?;
    let mut pushed = false;
    for image in &batch.images {
        let names = names::of(job, spec, image)?;
        wish.check(&names.pushed)?;
        pushed |= !names.pushed.is_empty() || image.is_main() && wish.dangling.is_some();
    }
    if wish.push && !pushed && !else_done {
        return Err(Failure::invalid("the image has no name, so there is nowhere to push it")
            .hint("name it: -t REGISTRY/NAME:TAG, or name=REGISTRY/NAME:TAG in the output")
            .hint("or let the definition name it, e.g. with SAVE IMAGE --push in an Earthfile"));
    }
    Ok(())
}

/// An image that is written, and still to be pushed.
pub(crate) struct Push {
    image: Image,
    export: Export,
    targets: Vec<Reference>,
    by_digest: bool,
    insecure: bool,
}

/// Puts images into the store. Says what there is to push.
pub(crate) async fn export(
    job: &Arc<Job>,
    spec: &OutputSpec,
    batch: &Batch,
) -> Result<(Vec<ImageReport>, Vec<Push>), Failure> {
    let wish = Wish::of(job.request(), spec)?;
    let (mut reports, mut pushes) = (Vec::new(), Vec::new());
    for image in &batch.images {
        let anonymous = names::of(job, spec, image)?.all.is_empty();
        if wish.push && anonymous && !(image.is_main() && wish.dangling.is_some()) {
            // Others are pushed, or something is done: this one nobody asked for.
            continue;
        }
        let (report, push) = one(job, spec, &wish, image).await?;
        reports.push(report);
        pushes.extend(push);
    }
    Ok((reports, pushes))
}

async fn one(
    job: &Arc<Job>,
    spec: &OutputSpec,
    wish: &Wish,
    image: &Image,
) -> Result<(ImageReport, Option<Push>), Failure> {
    let names = names::of(job, spec, image)?;
    wish.check(&names.pushed)?;
    let dangling = wish.dangling.clone().filter(|_| image.is_main() && names.all.is_empty());
    let pushes = wish.push && (!names.pushed.is_empty() || dangling.is_some());
    // What is pushed is known by where it is.
    let names = if pushes { names.pushed } else { names.all };
    let title = match &names[..] {
        [(_, name), ..] if !image.is_main() => format!("export image {}", name.familiar()),
        _ => "export image".to_owned(),
    };
    let step = job.steps().internal(&title);
    let references: Vec<Reference> = names.iter().map(|(_, name)| name.clone()).collect();
    let mut attempt = 0;
    let result = loop {
        let result = prepare(job, wish, image, &references).await;
        if !job.worker().room.again(&result, &mut attempt).await {
            break result;
        }
    };
    let export = match result {
        Ok(export) => export,
        Err(failure) => {
            step.failed(&failure);
            return Err(failure);
        }
    };
    step.done();
    let digest = export.root().digest;
    let (targets, by_digest) = match (&references[..], dangling) {
        ([], Some(prefix)) => (vec![prefix], true),
        _ => (references, wish.by_digest),
    };
    let shown = targets.iter().map(|name| match (by_digest, names.is_empty()) {
        (_, true) => format!("{}@{digest}", name.name()),
        (true, false) => name.name(),
        (false, false) => name.to_string(),
    });
    let report = report(image, &export, shown.collect());
    let (image, insecure) = (image.clone(), wish.insecure);
    let push = pushes.then_some(Push { image, export, targets, by_digest, insecure });
    Ok((report, push))
}

/// An image as what is pushed, its layers and documents in the store.
async fn prepare(
    job: &Arc<Job>,
    wish: &Wish,
    image: &Image,
    names: &[Reference],
) -> Result<Export, Failure> {
    let export = together(job, wish.want, image, names, &wish.annotations).await?;
    if wish.keep {
        let (store, documents) = (job.worker().store.clone(), export.documents().clone());
        blocking(move || -> Result<(), Failure> {
            for bytes in documents.values() {
                store.put_blob(bytes)?;
            }
            Ok(())
        })
        .await?;
    }
    Ok(export)
}

/// Pushes an image to all of its places.
pub(crate) async fn push(job: &Arc<Job>, push: Push) -> Result<(), Failure> {
    let Push { image, export, targets, by_digest, insecure } = push;
    let worker = Arc::clone(job.worker());
    let shown: Vec<String> =
        targets.iter().map(|name| if by_digest { name.name() } else { name.familiar() }).collect();
    let step = Arc::new(job.steps().internal(&format!("push {}", shown.join(", "))));
    let layers = lazy_layers(job, &image).await?;
    let source = Source { layers, worker: Arc::clone(&worker), step: Arc::clone(&step) };
    let source: Arc<dyn PushSource> = Arc::new(source);
    let plain = match insecure {
        true => targets.iter().map(|name| name.registry().to_owned()).collect(),
        false => BTreeSet::new(),
    };
    let client = worker.images().registries.client_for_push(plain);
    let result = client.push(&export, &targets, by_digest, &source).await.map_err(Failure::from);
    drop((source, client));
    let step = Arc::into_inner(step).ok_or_else(|| Failure::internal("a push did not end"))?;
    match result {
        Ok(_) => {
            step.done();
            Ok(())
        }
        Err(failure) => {
            let layers = export.layers().map(|layer| BlobDigest(layer.digest)).collect();
            let failure = worker.if_damaged(layers, failure).await;
            step.failed(&failure);
            Err(failure)
        }
    }
}

/// The layers that an image has and that need not be here, by digest of their blobs.
async fn lazy_layers(
    job: &Arc<Job>,
    image: &Image,
) -> Result<HashMap<Digest, Vec<Arc<Layer>>>, Failure> {
    let mut layers: HashMap<Digest, Vec<Arc<Layer>>> = HashMap::new();
    for part in &image.parts {
        let Some((solved, index)) = solved_root(job, part).await? else { continue };
        for layer in &image_tree(&solved, index)?.layers {
            let lazy = layer.place.is_some() || layer.origin != Origin::Made;
            if let Some(blob) = layer.facts().blob.filter(|_| lazy) {
                layers.entry(blob.digest.0).or_default().push(Arc::clone(layer));
            }
        }
    }
    Ok(layers)
}

/// What a push takes from the store, and from where a base is.
struct Source {
    layers: HashMap<Digest, Vec<Arc<Layer>>>,
    worker: Arc<BuildWorker>,
    step: Arc<InternalStep>,
}

impl Source {
    async fn file(&self, layer: &Descriptor) -> Result<File, Failure> {
        let digest = BlobDigest(layer.digest);
        let store = &self.worker.store;
        if let Some(blob) = store.open_blob(&digest)? {
            return Ok(blob.file);
        }
        let missing = || {
            let message = format!("the blob {digest} is not in the store");
            Failure::new(FailureKind::Gone, message)
        };
        let base = self.layers.get(&layer.digest).and_then(|layers| layers.first());
        self.worker.fetch_layer(base.ok_or_else(missing)?).await?;
        Ok(store.open_blob(&digest)?.ok_or_else(missing)?.file)
    }
}

#[async_trait]
impl PushSource for Source {
    fn elsewhere(&self, layer: &Descriptor, registry: &str) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for layer in self.layers.get(&layer.digest).into_iter().flatten() {
            let repository = self.worker.repository_of(layer, registry);
            out.extend(repository.filter(|found| !out.contains(found)));
        }
        out
    }

    async fn open(&self, layer: &Descriptor) -> wbuild_oci::Result<File> {
        self.file(layer).await.map_err(|failure| {
            let message = format!("cannot open the layer {} to push it", layer.digest.short());
            wbuild_oci::Error::new(wbuild_oci::ErrorKind::Io, message).because(failure)
        })
    }

    fn sent(&self, blob: &Descriptor, bytes: u64) {
        self.step.progress(&blob.digest.to_string(), bytes, Some(blob.size));
    }
}

#[cfg(test)]
mod tests {
    use super::has_tag;

    #[test]
    fn tags() {
        for (name, tagged) in [
            ("a", false),
            ("a:1", true),
            ("localhost:5000/a", false),
            ("localhost:5000/a:1", true),
            ("a/b/c", false),
        ] {
            assert_eq!(has_tag(name), tagged, "{name}");
        }
    }
}
