//! OCI content under one granted name, as a cache backend sees it: a repository of a registry, or an
//! image layout in a directory.
//!
//! - A grant is for one tag: no other is read or moved, whatever else lies under the name. What has a
//!   digest is what it says, so any may be asked for.
//! - What is brought here is checked against digest and size while it is written, and is held in the
//!   store for as long as the instance lives. Of the store's other blobs only those go out, and only
//!   those need not come, that the backend reaches (see [`super::shelf`]).
//! - Documents are read up to the limits of `wbuild_oci::media`; what they say is for the backend to
//!   judge, and what that makes of them for the engine.

mod before;
mod layout;
mod registry;

use std::sync::Arc;

use wbuild_api::extension::LayerDescriptor;
use wbuild_graph::{Digest, Failure, FailureKind};
use wbuild_oci::media::{Descriptor, Document};

pub(crate) use self::layout::layout;
pub(crate) use self::registry::{Elsewhere, registry};
use super::SNAPSHOT;

/// Blobs that one backend moves at once; a registry may allow less.
const PARALLEL: usize = 4;

/// Told how much of a blob has come or gone: its digest, bytes, and bytes of all of it.
pub(crate) type Progress = Arc<dyn Fn(&Digest, u64, u64) + Send + Sync>;

/// The blob that a descriptor is about.
pub(super) fn wanted(layer: &LayerDescriptor) -> Result<Descriptor, Failure> {
    if layer.media_type == SNAPSHOT {
        let message = format!("{} is no blob: it is the content of files", layer.digest);
        return Err(Failure::invalid(message));
    }
    if i64::try_from(layer.size).is_err() {
        return Err(Failure::invalid(format!("{} is too large to be", layer.digest)));
    }
    Ok(Descriptor::new(&layer.media_type, layer.digest, layer.size))
}

/// A blob that is not where it was said to be.
fn gone(failure: Failure) -> Failure {
    match failure.kind {
        FailureKind::NotFound => Failure { kind: FailureKind::Gone, ..failure },
        _ => failure,
    }
}

fn not_here(digest: &Digest) -> Failure {
    let message = format!("the blob {} is neither there nor here", digest.short());
    Failure::new(FailureKind::Gone, message)
}

/// What a tag or digest that a backend names stands for, if it was granted.
enum Named {
    Tag,
    Digest(Digest),
}

fn named(text: &str, granted: &str) -> Result<Named, Failure> {
    if let Ok(digest) = text.parse::<Digest>() {
        return Ok(Named::Digest(digest));
    }
    granted_tag(text, granted).map(|()| Named::Tag)
}

fn granted_tag(tag: &str, granted: &str) -> Result<(), Failure> {
    if tag == granted {
        return Ok(());
    }
    let message = format!("this cache backend was granted the tag {granted:?}, not {tag:?}");
    Err(Failure::new(FailureKind::Denied, message))
}

/// Refuses to publish what nobody could read.
fn check_manifest(media_type: &str, data: &[u8]) -> Result<(), Failure> {
    let document = Document::decode(data, Some(media_type), "the manifest to be published")?;
    if document.media_type() != media_type {
        let message =
            format!("the manifest to be published says that it is another than {media_type}");
        return Err(Failure::invalid(message));
    }
    Ok(())
}
