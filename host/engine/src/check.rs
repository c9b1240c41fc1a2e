//! Comparing the files of stored layers with what is known of them, for a check of the store.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use wbuild_store::{Error, LayerState, StoredLayer};
use wbuild_tree::digest::layer_digest;
use wbuild_tree::par::Work;
use wbuild_tree::path::RelPath;
use wbuild_tree::root::Root;

use crate::ops::xattr_kind;
use crate::solved::image_layer_content;

/// Whether a layer's files are what they were: by the digest that a step's layer has once something
/// asked for it, else by the layer's archive, which an image's layer has as long as it is here.
///
/// # Errors
///
/// The layer cannot be read.
pub fn layer(layer: StoredLayer<'_>) -> Result<LayerState, Error> {
    let StoredLayer { record, files, blob, kind } = layer;
    // The digest that stands for a layer of an image says nothing of its files.
    let digest = record.content_digest.filter(|digest| {
        record.diff_id.is_none_or(|diff_id| *digest != image_layer_content(&diff_id))
    });
    if let Some(wanted) = digest {
        let root = Root::from_fd(files, "a layer");
        return match layer_digest(&root, xattr_kind(kind), &Work::default()) {
            Ok(found) if found == wanted => Ok(LayerState::Good),
            Ok(found) => Ok(LayerState::Damaged(format!("its files have {found}, not {wanted}"))),
            Err(error) => Ok(LayerState::Damaged(format!("its files cannot be read: {error}"))),
        };
    }
    let (Some(file), Some(blob), Some(diff_id)) = (blob, &record.blob, record.diff_id) else {
        return Ok(LayerState::Unknown);
    };
    let mut content = |path: &[u8]| content_of(&files, path);
    match wbuild_oci::layer::differences(file, &blob.media_type, diff_id, &mut content) {
        Ok(paths) => match paths.first() {
            None => Ok(LayerState::Good),
            Some(first) => Ok(LayerState::Damaged(format!(
                "{} of its files are not what its archive says, {:?} for one",
                paths.len(),
                String::from_utf8_lossy(first)
            ))),
        },
        // The archive is at fault, and was found by itself.
        Err(error) if error.kind() != wbuild_oci::ErrorKind::Io => Ok(LayerState::Unknown),
        Err(error) => Ok(LayerState::Damaged(format!("its files cannot be read: {error}"))),
    }
}

/// A regular file's content, without following links.
fn content_of(files: &OwnedFd, path: &[u8]) -> std::io::Result<Option<Box<dyn std::io::Read>>> {
    let Ok(path) = RelPath::clean(path) else { return Ok(None) };
    let mut directory = files.try_clone()?;
    let mut names = path.names().peekable();
    while let Some(name) = names.next() {
        let kind = if names.peek().is_none() { OFlags::NONBLOCK } else { OFlags::DIRECTORY };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | kind;
        match rustix::fs::openat(&directory, name, flags, Mode::empty()) {
            Ok(fd) => directory = fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
    let file = std::fs::File::from(directory);
    Ok(file.metadata()?.is_file().then(|| Box::new(file) as Box<dyn std::io::Read>))
}
