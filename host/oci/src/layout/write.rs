//! Writes image layouts: as tar, as directory, and as an archive for `docker load`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde_json::json;
use wbuild_graph::{Digest, Platform};

use super::read::{open_file, read_limited};
use super::{BlobSource, INDEX_FILE, LAYOUT_FILE, LAYOUT_TEXT, VerifyingReader};
use crate::config::ImageConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::layer::{Entry, EntryKind, TarWriter};
use crate::media::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, Document, Index, MAX_MANIFEST,
    Manifest, MediaFamily,
};
use crate::pipe::ahead;
use crate::reference::Reference;

/// One image of an export.
#[derive(Clone, Debug)]
pub struct ExportImage {
    /// Where it runs; goes into the descriptor.
    pub platform: Platform,
    /// Its config.
    pub config: ImageConfig,
    /// Its manifest; must name that config.
    pub manifest: Manifest,
    /// Annotations of the descriptor that names the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// Annotations of an export of several images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexAnnotations {
    /// In the index.
    pub index: BTreeMap<String, String>,
    /// Of the descriptor that names the index.
    pub descriptor: BTreeMap<String, String>,
}

impl ExportImage {
    /// An image of `family` over `layers`, bottom first.
    pub fn new(family: MediaFamily, config: ImageConfig, layers: Vec<Descriptor>) -> Self {
        let manifest = Manifest::new(family, config.descriptor(family), layers);
        let annotations = BTreeMap::new();
        ExportImage { platform: config.platform().clone(), config, manifest, annotations }
    }
}

/// A result to export: one image or several by platform, with any number of names.
#[derive(Clone, Debug)]
pub struct Export {
    names: Vec<Reference>,
    images: Vec<ExportImage>,
    /// Of the images, in their order.
    manifests: Vec<Descriptor>,
    /// What the export is known by: the manifest, or the index of several.
    root: Descriptor,
    /// Everything but layers.
    documents: BTreeMap<Digest, Vec<u8>>,
    layers: BTreeMap<Digest, Descriptor>,
    mtime: i64,
}

impl Export {
    /// Puts an export together. One image is exported as its manifest, several as an index of `family`
    /// in the given order. `epoch` (seconds since 1970) dates the entries of archives; without it they
    /// are dated 1970.
    pub fn new(
        family: MediaFamily,
        images: Vec<ExportImage>,
        names: Vec<Reference>,
        epoch: Option<i64>,
    ) -> Result<Self> {
        Self::annotated(family, images, names, epoch, IndexAnnotations::default())
    }

    /// [`Export::new`] with annotations of the index, which only several images have.
    pub fn annotated(
        family: MediaFamily,
        images: Vec<ExportImage>,
        names: Vec<Reference>,
        epoch: Option<i64>,
        annotations: IndexAnnotations,
    ) -> Result<Self> {
        let mut documents = BTreeMap::new();
        let mut layers = BTreeMap::new();
        let mut manifests = Vec::new();
        for image in &images {
            let config = image.config.bytes();
            let what = format!("the config of the image for {}", image.platform);
            image.manifest.config.verify(&what, config)?;
            let (listed, diffs) = (image.manifest.layers.len(), image.config.diff_ids().len());
            if listed != diffs {
                let message = format!("{what} has {diffs} layers, its manifest {listed}");
                return Err(Error::invalid(message));
            }
            documents.insert(image.manifest.config.digest, config.to_vec());
            for layer in &image.manifest.layers {
                layers.insert(layer.digest, layer.clone());
            }
            let bytes = image.manifest.to_bytes();
            let media_type = image.manifest.media_type.as_deref().unwrap_or(family.manifest());
            let mut descriptor = Descriptor::of(media_type, &bytes).with_platform(&image.platform);
            descriptor.annotations = some(image.annotations.clone());
            documents.insert(descriptor.digest, bytes);
            manifests.push(descriptor);
        }
        let root = match &manifests[..] {
            [] => return Err(Error::invalid("there is no image to export")),
            [one] => one.clone(),
            _ => {
                let mut index = Index::new(family, manifests.clone());
                index.annotations = some(annotations.index);
                let bytes = index.to_bytes();
                let mut root = Descriptor::of(family.index(), &bytes);
                root.annotations = some(annotations.descriptor);
                documents.insert(root.digest, bytes);
                root
            }
        };
        Ok(Export { names, images, manifests, root, documents, layers, mtime: epoch.unwrap_or(0) })
    }

    /// The manifest, or the index of several images.
    pub fn root(&self) -> &Descriptor {
        &self.root
    }

    /// The names.
    pub fn names(&self) -> &[Reference] {
        &self.names
    }

    /// The images, in the order given.
    pub fn images(&self) -> &[ExportImage] {
        &self.images
    }

    /// The images' manifests, in the same order.
    pub fn manifests(&self) -> &[Descriptor] {
        &self.manifests
    }

    /// Layers of all images, each once, by digest.
    pub fn layers(&self) -> impl Iterator<Item = &Descriptor> {
        self.layers.values()
    }

    /// Manifests, configs and the index, by digest.
    pub fn documents(&self) -> &BTreeMap<Digest, Vec<u8>> {
        &self.documents
    }

    /// Entries of `index.json`: one for each name, or one without.
    fn entries(&self) -> Vec<Descriptor> {
        if self.names.is_empty() {
            return vec![self.root.clone()];
        }
        let named = |name: &Reference| {
            let name = name.without_digest();
            let tag = name.tag().unwrap_or("latest").to_owned();
            let root = self.root.clone().annotate(ANNOTATION_IMAGE_NAME, name.to_string());
            root.annotate(ANNOTATION_REF_NAME, tag)
        };
        self.names.iter().map(named).collect()
    }
}

/// The blobs of all exports, each once, in order of digest.
fn blobs<'e>(exports: &[&'e Export]) -> BTreeMap<&'e Digest, Blob<'e>> {
    let documents = exports.iter().flat_map(|export| &export.documents);
    let documents = documents.map(|(digest, bytes)| (digest, Blob::Document(bytes)));
    let layers = exports.iter().flat_map(|export| &export.layers);
    let layers = layers.map(|(digest, layer)| (digest, Blob::Layer(layer)));
    // Where a layer shares its digest with a document, both are the same bytes.
    documents.chain(layers).collect()
}

/// Entries of `index.json` for all exports.
fn entries(exports: &[&Export]) -> Vec<Descriptor> {
    exports.iter().flat_map(|export| export.entries()).collect()
}

fn some(annotations: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!annotations.is_empty()).then_some(annotations)
}

enum Blob<'a> {
    Document(&'a [u8]),
    Layer(&'a Descriptor),
}

/// Writes an OCI image layout as a tar archive and gives `out` back. Of several exports each has its
/// entries in the index.
pub fn write_oci_tar<W: Write>(exports: &[&Export], source: &dyn BlobSource, out: W) -> Result<W> {
    write_tar(exports, source, None, out)
}

/// Writes an archive for `docker load`: `manifest.json` beside an OCI layout, so that old and new
/// versions of Docker read it.
pub fn write_docker_tar<W: Write>(
    exports: &[&Export],
    source: &dyn BlobSource,
    out: W,
) -> Result<W> {
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let manifest = |export: &&Export| {
        let [image] = &export.images[..] else {
            let message = "an archive for docker load holds one platform only";
            return Err(
                Error::unsupported(message).hint("build one platform, or export with type=oci")
            );
        };
        let layers: Vec<String> = image.manifest.layers.iter().map(|l| path(&l.digest)).collect();
        let tags: Vec<String> =
            export.names.iter().map(|name| name.without_digest().familiar()).collect();
        Ok(json!({
            "Config": path(&image.manifest.config.digest),
            "RepoTags": if tags.is_empty() { None } else { Some(tags) },
            "Layers": layers,
        }))
    };
    let manifests = exports.iter().map(manifest).collect::<Result<Vec<_>>>()?;
    let manifests = serde_json::Value::Array(manifests).to_string();
    write_tar(exports, source, Some(manifests.into_bytes()), out)
}

fn write_tar<W: Write>(
    exports: &[&Export],
    source: &dyn BlobSource,
    docker: Option<Vec<u8>>,
    out: W,
) -> Result<W> {
    let mut tar = TarWriter::new(out);
    // Of one build, so all have the same.
    let mtime = exports.first().map_or(0, |export| export.mtime);
    let entry = |path: &str, kind: EntryKind, size: u64| {
        let mode = if kind == EntryKind::Directory { 0o755 } else { 0o644 };
        Entry { size, mtime, ..Entry::new(path, kind, mode) }
    };
    let file = |tar: &mut TarWriter<W>, path: &str, bytes: &[u8]| {
        tar.append(&entry(path, EntryKind::File, bytes.len() as u64), Some(&mut &bytes[..]))
    };
    file(&mut tar, LAYOUT_FILE, LAYOUT_TEXT)?;
    let index = Index::new(MediaFamily::Oci, entries(exports));
    file(&mut tar, INDEX_FILE, &index.to_bytes())?;
    if let Some(docker) = docker {
        file(&mut tar, "manifest.json", &docker)?;
    }
    tar.append(&entry("blobs", EntryKind::Directory, 0), None)?;
    tar.append(&entry("blobs/sha256", EntryKind::Directory, 0), None)?;
    for (digest, blob) in blobs(exports) {
        let path = format!("blobs/sha256/{}", digest.hex());
        match blob {
            Blob::Document(bytes) => file(&mut tar, &path, bytes)?,
            Blob::Layer(layer) => {
                let data = VerifyingReader::new(source.open(digest)?, *digest, Some(layer.size));
                // Checked while it is written.
                std::thread::scope(|scope| {
                    let mut data = ahead(scope, data);
                    tar.append(&entry(&path, EntryKind::File, layer.size), Some(&mut data))
                        .map_err(|e| shorter(e, digest))?;
                    end(&mut data, digest)
                })?;
            }
        }
    }
    tar.finish()
}

/// A blob that ends early is damaged, not changed under us.
fn shorter(error: Error, digest: &Digest) -> Error {
    if error.kind() == ErrorKind::Changed {
        return Error::new(
            ErrorKind::Mismatch,
            format!("the blob {digest} is smaller than announced"),
        );
    }
    error
}

/// Reads past the last byte, where the check sits.
fn end(data: &mut impl Read, digest: &Digest) -> Result<()> {
    match data.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Error::new(
            ErrorKind::Mismatch,
            format!("the blob {digest} is larger than announced"),
        )),
        Err(e) => Err(Error::io(format!("cannot read the blob {digest}"), e)),
    }
}

/// Writes an OCI image layout into the directory `dir`. A layout that is there already is added to:
/// blobs it has are kept, entries of the same name are replaced. `index.json` is replaced last and in one
/// step, so that a reader sees the old state or the new one.
pub fn write_oci_dir(
    exports: &[&Export],
    source: &dyn BlobSource,
    dir: BorrowedFd<'_>,
) -> Result<()> {
    make_folders(dir)?;
    for (digest, blob) in blobs(exports) {
        let path = format!("blobs/sha256/{}", digest.hex());
        if let Ok(present) = open_file(dir, &path)
            && is_blob(present, digest)
        {
            continue;
        }
        match blob {
            Blob::Document(bytes) => put(dir, &path, &mut &bytes[..])?,
            Blob::Layer(layer) => {
                let data = VerifyingReader::new(source.open(digest)?, *digest, Some(layer.size));
                std::thread::scope(|scope| put(dir, &path, &mut ahead(scope, data)))?;
            }
        }
    }
    list(dir, entries(exports))
}

/// Adds entries to `index.json`, in the place of those of the same name, and makes a layout of the
/// directory if it is none.
pub(super) fn list(dir: BorrowedFd<'_>, mut entries: Vec<Descriptor>) -> Result<()> {
    if let Some(old) = read_index(dir)? {
        let name = |d: &Descriptor| {
            (
                d.annotation(ANNOTATION_IMAGE_NAME).map(str::to_owned),
                d.annotation(ANNOTATION_REF_NAME).map(str::to_owned),
            )
        };
        let replaced = |old: &Descriptor| {
            entries.iter().any(|new| {
                name(new) == name(old) && (name(new) != (None, None) || new.digest == old.digest)
            })
        };
        let mut kept: Vec<Descriptor> =
            old.manifests.into_iter().filter(|d| !replaced(d)).collect();
        kept.append(&mut entries);
        entries = kept;
    }
    put(dir, LAYOUT_FILE, &mut &LAYOUT_TEXT[..])?;
    put(dir, INDEX_FILE, &mut &Index::new(MediaFamily::Oci, entries).to_bytes()[..])
}

/// `index.json`, if there is one.
pub(super) fn read_index(dir: BorrowedFd<'_>) -> Result<Option<Index>> {
    let file = match open_file(dir, INDEX_FILE) {
        Err(Errno::NOENT) => return Ok(None),
        other => other.map_err(|e| Error::io("cannot open index.json of an image layout", e))?,
    };
    let bytes = read_limited(file, MAX_MANIFEST, INDEX_FILE)?;
    match Document::decode(&bytes, None, INDEX_FILE)? {
        Document::Index(index) => Ok(Some(index)),
        Document::Manifest(_) => {
            Err(Error::invalid("index.json of an image layout is an image instead of an index"))
        }
    }
}

/// Makes the directories of blobs.
pub(super) fn make_folders(dir: BorrowedFd<'_>) -> Result<()> {
    for path in ["blobs", "blobs/sha256"] {
        match rustix::fs::mkdirat(dir, path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => {
                return Err(Error::io(
                    format!("cannot make the directory {path} of an image layout"),
                    e,
                ));
            }
        }
    }
    Ok(())
}

fn is_blob(file: std::fs::File, digest: &Digest) -> bool {
    std::io::copy(&mut VerifyingReader::new(file, *digest, None), &mut std::io::sink()).is_ok()
}

/// Writes a file under another name and renames it.
pub(super) fn put(dir: BorrowedFd<'_>, path: &str, data: &mut dyn Read) -> Result<()> {
    let failed = |e: Errno| Error::io(format!("cannot write {path} of an image layout"), e);
    let temporary = format!("{path}.partial");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(dir, &*temporary, flags, Mode::from_raw_mode(0o644));
    let fd = match open() {
        // Left by a run that was killed.
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(dir, &*temporary, AtFlags::empty()).map_err(failed)?;
            open()
        }
        other => other,
    };
    let mut file = std::fs::File::from(fd.map_err(failed)?);
    let written = std::io::copy(data, &mut file)
        .map_err(|e| Error::io(format!("cannot write {path} of an image layout"), e))
        .and_then(|_| rustix::fs::renameat(dir, &*temporary, dir, path).map_err(failed));
    if written.is_err() {
        // The error that counts is the first one.
        let _ = rustix::fs::unlinkat(dir, &*temporary, AtFlags::empty());
    }
    written
}
