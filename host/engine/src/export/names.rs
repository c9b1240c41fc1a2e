//! What images are called, and by which of their names they are pushed.
//!
//! Names of the client's are for the image `""`. Names that a frontend gives count only if it may give
//! some ([`crate::inputs::Inputs::names_images`]): the client's credentials would take them anywhere.

use wbuild_api::request::{BuildRequest, OutputSpec};
use wbuild_graph::{Failure, FailureKind};
use wbuild_oci::reference::Reference;

use crate::job::Job;
use wbuild_api::yielded::{Batch, Image};

/// A name as written, and read.
pub(super) type Name = (String, Reference);

/// What an image yields can say of itself.
const KNOWN: &[&str] = &["tag", "push-tag", "annotation", "index"];

/// What an image is called by an output.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// All of them, the client's first.
    pub(super) all: Vec<Name>,
    /// Those that it is pushed to, if the output pushes.
    pub(super) pushed: Vec<Name>,
}

/// The names of the request and those of the output, each once.
pub(super) fn given(request: &BuildRequest, spec: &OutputSpec) -> Result<Vec<Name>, Failure> {
    let of_output = spec.attrs.all("name").flat_map(|names| names.split(','));
    let mut names = Vec::new();
    for name in request.tags.iter().map(String::as_str).chain(of_output) {
        add(&mut names, name.trim())?;
    }
    Ok(names)
}

fn add(names: &mut Vec<Name>, name: &str) -> Result<(), Failure> {
    let reference: Reference = name.parse()?;
    if !names.iter().any(|(_, known)| *known == reference) {
        names.push((name.to_owned(), reference));
    }
    Ok(())
}

/// What an image is called.
pub(super) fn of(job: &Job, spec: &OutputSpec, image: &Image) -> Result<Names, Failure> {
    let mut names = Names::default();
    if image.is_main() {
        names.all = given(job.request(), spec)?;
        names.pushed.clone_from(&names.all);
    }
    for (key, name) in image.attrs(&["tag", "push-tag"]) {
        if !job.frontend_names_images() {
            let message = format!("the frontend calls its image {name:?}, which is not granted");
            return Err(Failure::new(FailureKind::Denied, message)
                .hint("use a frontend that gives no names, and --tag"));
        }
        add(&mut names.all, name)?;
        if key == "push-tag" {
            add(&mut names.pushed, name)?;
        }
    }
    Ok(names)
}

/// Refuses what an image says of itself and cannot be.
pub(super) fn check(image: &Image) -> Result<(), Failure> {
    for part in &image.parts {
        wbuild_graph::decode::only_known(&part.attrs, "results.image", KNOWN)?;
        let list = super::attrs::flag(&part.attrs, "index", true)?;
        if !list && image.parts.len() > 1 {
            let message = format!(
                "{} is yielded for {} platforms, but is to have no index (index=false)",
                image.shown(),
                image.parts.len()
            );
            return Err(Failure::invalid(message));
        }
    }
    annotations(image).map(|_| ())
}

/// Annotations of the manifests of an image.
pub(super) fn annotations(image: &Image) -> Result<Vec<(String, String)>, Failure> {
    let pair = |text: &str| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::invalid(format!("the annotation {text:?} of an image is not key=value"))),
    };
    image.attrs(&["annotation"]).into_iter().map(|(_, text)| pair(text)).collect()
}

/// Refuses one name for two images, of which only one could keep it.
pub(super) fn check_distinct(job: &Job, spec: &OutputSpec, batch: &Batch) -> Result<(), Failure> {
    let mut known: Vec<(Reference, &Image)> = Vec::new();
    for image in &batch.images {
        for (written, name) in of(job, spec, image)?.all {
            if let Some((_, other)) = known.iter().find(|(known, _)| *known == name) {
                let message =
                    format!("{} and {} are both called {written}", other.shown(), image.shown());
                return Err(Failure::invalid(message).hint("give each a name of its own"));
            }
            known.push((name, image));
        }
    }
    Ok(())
}
