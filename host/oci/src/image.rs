//! One image for one platform, without its layers: what a build needs before it needs files.

use wbuild_graph::{ChainId, Digest, Platform};

use crate::config::ImageConfig;
use crate::error::{Error, Result};
use crate::media::{Descriptor, MAX_CONFIG, Manifest};

/// Deepest nesting of indexes that is followed.
pub const MAX_NESTED_INDEXES: usize = 4;

/// A resolved image: manifest and config, checked against each other.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageMeta {
    /// What the reference resolved to: the index, or the manifest where there is no index. Its digest
    /// is the pin.
    pub root: Descriptor,
    /// The manifest of the chosen platform.
    pub manifest_descriptor: Descriptor,
    /// Its bytes, as stored.
    pub manifest_bytes: Vec<u8>,
    /// The manifest.
    pub manifest: Manifest,
    /// The config.
    pub config: ImageConfig,
}

impl ImageMeta {
    /// Joins verified parts; errors where manifest, config and wanted platform contradict each other.
    pub fn new(
        root: Descriptor,
        manifest_descriptor: Descriptor,
        manifest_bytes: Vec<u8>,
        manifest: Manifest,
        config: ImageConfig,
        platform: Option<&Platform>,
        what: &str,
    ) -> Result<Self> {
        let (layers, ids) = (manifest.layers.len(), config.diff_ids().len());
        if layers != ids {
            return Err(Error::invalid(format!(
                "{what} contradicts itself: its manifest has {layers} layers, its config {ids}"
            )));
        }
        if let Some(wanted) = platform
            && config.platform().rank_for(wanted).is_none()
        {
            let found = config.platform();
            let message = format!("{what} is an image for {found}, not for {wanted}");
            return Err(Error::new(crate::ErrorKind::NotFound, message)
                .hint(format!("build for {found} with --platform, or use another image")));
        }
        Ok(ImageMeta { root, manifest_descriptor, manifest_bytes, manifest, config })
    }

    /// The digest of what the reference resolved to.
    pub fn pin(&self) -> Digest {
        self.root.digest
    }

    /// Identity of the stack of layers; `None` for an image without layers.
    pub fn chain_id(&self) -> Option<ChainId> {
        self.config.chain_id()
    }
}

/// Checks the descriptor of a config before it is fetched.
pub(crate) fn check_config_descriptor(descriptor: &Descriptor, what: &str) -> Result<()> {
    if descriptor.size > MAX_CONFIG {
        return Err(Error::limit(format!(
            "the config of {what} is larger than {MAX_CONFIG} bytes"
        )));
    }
    match descriptor.media_type.as_str() {
        crate::media::OCI_CONFIG | crate::media::DOCKER_CONFIG => Ok(()),
        other => {
            let other: String = other.chars().take(100).collect();
            let message =
                format!("{what} is no container image: its config has the type {other:?}");
            Err(Error::unsupported(message))
        }
    }
}
