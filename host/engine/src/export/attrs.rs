//! The attributes that outputs of images have in common, by the names `docker buildx` uses.

use wbuild_graph::{Attrs, Failure};
use wbuild_oci::layer::CompressOptions;
use wbuild_oci::media::{Compression, MediaFamily};

use super::annotations::Annotations;
use crate::job::Job;

/// Of every output that is an image; each has more of its own, and annotations.
const COMMON: [&str; 6] = [
    "name",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "rewrite-timestamp",
];

/// How layers are to be written.
#[derive(Clone, Copy)]
pub(super) struct Want {
    pub(super) options: CompressOptions,
    /// Compress again what exists in another form.
    pub(super) force: bool,
    /// Any compression will do where a blob exists.
    pub(super) any: bool,
    /// Clamp times of files to SOURCE_DATE_EPOCH if there is one.
    pub(super) clamp: bool,
    /// Fetch no layer of a base that can stay as it is.
    pub(super) lazy: bool,
    pub(super) family: MediaFamily,
}

impl Want {
    /// What times of files are clamped to.
    pub(super) fn epoch(&self, job: &Job) -> Option<u64> {
        job.worker().settings.source_date_epoch.filter(|_| self.clamp)
    }
}

/// Reads them; `own` are the further keys of this kind of output.
pub(super) fn want(
    attrs: &Attrs,
    own: &[&str],
    annotations: &Annotations,
) -> Result<Want, Failure> {
    let plain = attrs.0.iter().filter(|(key, _)| !Annotations::is_key(key)).cloned();
    let known = [&COMMON[..], own].concat();
    wbuild_graph::decode::only_known(&Attrs(plain.collect()), "the output", &known)?;
    let options = compression(attrs)?;
    let force = flag(attrs, "force-compression", false)?;
    let clamp = flag(attrs, "rewrite-timestamp", true)?;
    // Docker's own types have no annotations, so whoever wants those gets the others.
    let family = match flag(attrs, "oci-mediatypes", true)? || !annotations.is_empty() {
        true => MediaFamily::Oci,
        false => MediaFamily::Docker,
    };
    Ok(Want { options, force, any: false, clamp, lazy: false, family })
}

/// How blobs are to be compressed.
pub(super) fn compression(attrs: &Attrs) -> Result<CompressOptions, Failure> {
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
    Ok(options)
}

/// A flag that is `default` unless it is given.
pub(crate) fn flag(attrs: &Attrs, key: &str, default: bool) -> Result<bool, Failure> {
    match attrs.get(key) {
        None => Ok(default),
        Some(_) => wbuild_graph::decode::flag(attrs, key),
    }
}
