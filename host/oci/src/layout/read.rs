//! Reads an OCI image layout directory.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use wbuild_graph::{Digest, Platform};

use super::{BlobSource, INDEX_FILE, LAYOUT_FILE, VerifyingReader};
use crate::config::ImageConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ImageMeta, MAX_NESTED_INDEXES, check_config_descriptor};
use crate::media::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, Document, Index, MAX_CONFIG,
    MAX_MANIFEST, MediaFamily,
};
use crate::reference::Reference;

/// An image layout in a directory. Files are opened below that directory only; links that lead out of it
/// are not followed.
pub struct Layout {
    dir: OwnedFd,
    name: String,
    index: Index,
}

impl Layout {
    /// Opens the layout in `dir`; `name` is what messages call it.
    pub fn open(dir: OwnedFd, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let read = |file: &str| -> Result<Vec<u8>> {
            let opened = open_file(&dir, file).map_err(|e| match e {
                Errno::NOENT | Errno::NOTDIR => Error::new(
                    ErrorKind::NotFound,
                    format!("{name} is no OCI image layout: it has no {file}"),
                ),
                other => Error::io(format!("cannot open {name}/{file}"), other),
            })?;
            read_limited(opened, MAX_MANIFEST, &format!("{name}/{file}"))
        };
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Marker {
            image_layout_version: String,
        }
        let marker: Marker = serde_json::from_slice(&read(LAYOUT_FILE)?)
            .map_err(|e| Error::invalid(format!("{name}/{LAYOUT_FILE} is malformed")).because(e))?;
        if !marker.image_layout_version.starts_with("1.") {
            let version: String = marker.image_layout_version.chars().take(40).collect();
            return Err(Error::unsupported(format!("{name} has the layout version {version:?}")));
        }
        let what = format!("{name}/{INDEX_FILE}");
        match Document::decode(&read(INDEX_FILE)?, None, &what)? {
            Document::Index(index) => Ok(Layout { dir, name, index }),
            Document::Manifest(_) => {
                Err(Error::invalid(format!("{what} is an image instead of an index")))
            }
        }
    }

    /// Opens the layout in the directory at `path`.
    pub fn open_path(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| {
            Error::io(format!("cannot open the image layout {}", path.display()), e)
        })?;
        Self::open(dir, path.display().to_string())
    }

    /// `index.json`.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Finds what `name` means: a digest, a tag, or a whole name as some tools write it. `None` means
    /// the only image, or the one tagged `latest`. Where several entries have the name, the one for
    /// `platform` is taken.
    pub fn resolve(&self, name: Option<&str>, platform: &Platform) -> Result<Descriptor> {
        if let Some(digest) = name.and_then(|name| name.parse::<Digest>().ok()) {
            if let Some(entry) = self.index.manifests.iter().find(|d| d.digest == digest) {
                return Ok(entry.clone());
            }
            let file = self.open_blob(&digest)?;
            let what = self.blob_name(&digest);
            let bytes = read_limited(file, MAX_MANIFEST, &what)?;
            let document = Document::decode(&bytes, None, &what)?;
            let descriptor = Descriptor::new(document.media_type(), digest, bytes.len() as u64);
            descriptor.verify(&what, &bytes)?;
            return Ok(descriptor);
        }
        let entries = &self.index.manifests;
        let mut found: Vec<&Descriptor> = match name {
            None if entries.len() == 1 => entries.iter().collect(),
            _ => {
                let tag = name.unwrap_or("latest");
                let exact = |d: &&Descriptor| d.annotation(ANNOTATION_REF_NAME) == Some(tag);
                let exactly: Vec<&Descriptor> = entries.iter().filter(exact).collect();
                if exactly.is_empty() {
                    entries.iter().filter(|d| means(d, tag)).collect()
                } else {
                    exactly
                }
            }
        };
        // One image with several names may be listed under each of them.
        found.dedup_by(|a, b| a.digest == b.digest);
        match found[..] {
            [one] => Ok(one.clone()),
            [] => {
                let wanted = name.unwrap_or("latest");
                let message =
                    format!("the image layout {} has no image named {wanted:?}", self.name);
                let names: Vec<&str> =
                    entries.iter().filter_map(|d| d.annotation(ANNOTATION_REF_NAME)).collect();
                let error = Error::new(ErrorKind::NotFound, message);
                Err(if names.is_empty() {
                    error.hint("its images have no names; name one by its digest")
                } else {
                    error.hint(format!("it has {}", names.join(", ")))
                })
            }
            _ => {
                let several = Index::new(MediaFamily::Oci, found.into_iter().cloned().collect());
                several.choose(platform, &self.name).cloned()
            }
        }
    }

    /// Reads the image that `root` leads to for `platform`: manifest and config, no layers.
    pub fn image(&self, root: &Descriptor, platform: &Platform) -> Result<ImageMeta> {
        let mut descriptor = root.clone();
        for _ in 0..=MAX_NESTED_INDEXES {
            let what = self.blob_name(&descriptor.digest);
            let bytes = self.bytes(&descriptor, MAX_MANIFEST)?;
            match Document::decode(&bytes, Some(&descriptor.media_type), &what)? {
                Document::Index(index) => descriptor = index.choose(platform, &self.name)?.clone(),
                Document::Manifest(manifest) => {
                    check_config_descriptor(&manifest.config, &self.name)?;
                    let config = self.bytes(&manifest.config, MAX_CONFIG)?;
                    let config =
                        ImageConfig::decode(&config, &format!("the config of {}", self.name))?;
                    let (root, platform) = (root.clone(), Some(platform));
                    return ImageMeta::new(
                        root, descriptor, bytes, manifest, config, platform, &self.name,
                    );
                }
            }
        }
        Err(Error::limit(format!("{} nests more than {MAX_NESTED_INDEXES} indexes", self.name)))
    }

    /// Reads a blob into memory and checks it.
    pub fn bytes(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let what = self.blob_name(&descriptor.digest);
        if descriptor.size > limit {
            return Err(Error::limit(format!("{what} is larger than {limit} bytes")));
        }
        let bytes = read_limited(self.open_blob(&descriptor.digest)?, limit, &what)?;
        descriptor.verify(&what, &bytes)?;
        Ok(bytes)
    }

    /// Opens a blob. Reading fails at the end if content or size are not the descriptor's.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<impl Read + Send + use<>> {
        let file = self.open_blob(&descriptor.digest)?;
        let size =
            file.metadata().map_err(|e| Error::io(self.blob_name(&descriptor.digest), e))?.len();
        if size != descriptor.size {
            let (what, want) = (self.blob_name(&descriptor.digest), descriptor.size);
            let message = format!("{what} has {size} bytes instead of {want}");
            return Err(Error::new(ErrorKind::Mismatch, message));
        }
        Ok(VerifyingReader::new(file, descriptor.digest, Some(descriptor.size)))
    }

    fn blob_name(&self, digest: &Digest) -> String {
        format!("{}/blobs/sha256/{}", self.name, digest.hex())
    }

    fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = format!("blobs/sha256/{}", digest.hex());
        open_file(&self.dir, &path).map_err(|e| match e {
            Errno::NOENT => Error::new(
                ErrorKind::NotFound,
                format!("the image layout {} lacks the blob {digest}", self.name),
            ),
            // A link out of the layout, or something that is no file.
            Errno::XDEV | Errno::LOOP | Errno::INVAL => Error::invalid(format!(
                "{} is no file of the layout: links and pipes are not followed",
                self.blob_name(digest)
            )),
            other => Error::io(format!("cannot open {}", self.blob_name(digest)), other),
        })
    }
}

impl BlobSource for Layout {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send + '_>> {
        let file = self.open_blob(digest)?;
        Ok(Box::new(VerifyingReader::new(file, *digest, None)))
    }
}

/// Whether an entry is meant by `name` in one of the ways tools write names: a full name as tag
/// annotation, or containerd's annotation.
fn means(descriptor: &Descriptor, name: &str) -> bool {
    let wanted = name.parse::<Reference>().ok();
    [ANNOTATION_REF_NAME, ANNOTATION_IMAGE_NAME].iter().any(|key| {
        let Some(Ok(said)) = descriptor.annotation(key).map(str::parse::<Reference>) else {
            return false;
        };
        // A bare tag parses as a repository, so only a name with a colon or slash tells its tag.
        let explicit = descriptor.annotation(key).is_some_and(|text| text.contains([':', '/']));
        (explicit && said.tag() == Some(name)) || wanted.as_ref() == Some(&said)
    })
}

/// Opens a regular file below `dir`.
pub(super) fn open_file(dir: impl AsFd, path: &str) -> rustix::io::Result<File> {
    // NONBLOCK: a pipe in the place of a file must not hang us.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let fd = loop {
        match rustix::fs::openat2(&dir, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => break other?,
        }
    };
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    Ok(File::from(fd))
}

/// Reads a file of at most `limit` bytes.
pub(super) fn read_limited(file: File, limit: u64, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io(format!("cannot read {what}"), e))?;
    if bytes.len() as u64 > limit {
        return Err(Error::limit(format!("{what} is larger than {limit} bytes")));
    }
    Ok(bytes)
}
