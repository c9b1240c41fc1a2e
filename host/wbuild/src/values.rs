//! What a build is given and what it yields.

use std::path::{Path, PathBuf};

use serde_json::Value;
use wbuild_api::event::{BuildReport, BuildStats, ImageReport};
use wbuild_api::request::{OutputDest, OutputKind, OutputSpec};
use wbuild_graph::{Attrs, Diagnostic, SourceMap};

use crate::metadata;

/// What a build context is.
#[derive(Clone, Debug, PartialEq)]
pub enum Context {
    /// A directory of this machine.
    Directory(PathBuf),
    /// An image.
    Image(String),
    /// An image in a directory with an OCI layout, by tag or digest if there are several.
    OciLayout(PathBuf, Option<String>),
    /// A git repository.
    Git(String),
    /// A file or archive behind a URL.
    Http(String),
}

impl From<&str> for Context {
    fn from(path: &str) -> Self {
        Context::Directory(path.into())
    }
}

impl From<&Path> for Context {
    fn from(path: &Path) -> Self {
        Context::Directory(path.to_owned())
    }
}

impl From<PathBuf> for Context {
    fn from(path: PathBuf) -> Self {
        Context::Directory(path)
    }
}

/// Where results go.
#[derive(Clone, Debug, PartialEq)]
pub struct Output(pub(crate) OutputSpec);

impl Output {
    fn new(kind: OutputKind, dest: OutputDest) -> Output {
        Output(OutputSpec { kind, dest, attrs: Attrs::default() })
    }

    /// The files, into a directory.
    pub fn files(directory: impl Into<PathBuf>) -> Output {
        Output::new(OutputKind::Local, OutputDest::Directory(directory.into()))
    }

    /// The files, as a tar.
    pub fn tar(file: impl Into<PathBuf>) -> Output {
        Output::new(OutputKind::Tar, OutputDest::File(file.into()))
    }

    /// The image, as a tar of an OCI layout.
    pub fn oci(file: impl Into<PathBuf>) -> Output {
        Output::new(OutputKind::Oci, OutputDest::File(file.into()))
    }

    /// The image, in a directory with an OCI layout.
    pub fn oci_layout(directory: impl Into<PathBuf>) -> Output {
        let mut output = Output::new(OutputKind::Oci, OutputDest::Directory(directory.into()));
        output.0.attrs.push("tar", "false");
        output
    }

    /// The image, as a tar for `docker load`.
    pub fn docker(file: impl Into<PathBuf>) -> Output {
        Output::new(OutputKind::Docker, OutputDest::File(file.into()))
    }

    /// The image in the state directory, pushed to where its names say.
    pub fn push() -> Output {
        let mut output = Output::new(OutputKind::Image, OutputDest::Nowhere);
        output.0.attrs.push("push", "true");
        output
    }

    /// A further attribute by the name that `docker buildx` has for it: `compression`, `name`, ….
    #[must_use]
    pub fn attr(mut self, key: impl Into<String>, value: impl Into<String>) -> Output {
        self.0.attrs.push(key, value);
        self
    }

    /// Where it goes.
    pub fn dest(&self) -> &OutputDest {
        &self.0.dest
    }
}

/// What a build that succeeded has made.
#[derive(Clone, Debug)]
pub struct Built {
    /// One for each image that was exported, or built.
    pub images: Vec<ImageReport>,
    /// What was written, in the order in which it was asked for.
    pub outputs: Vec<Output>,
    /// What was reported about the definition: warnings, notes.
    pub diagnostics: Vec<Diagnostic>,
    /// What diagnostics point into.
    pub sources: SourceMap,
    /// Numbers.
    pub stats: BuildStats,
}

impl Built {
    /// What was built as JSON, with the keys of `docker buildx build --metadata-file`.
    pub fn metadata(&self) -> Value {
        metadata::metadata(&self.report())
    }

    /// The id of the image, as `docker build --iidfile` has it.
    pub fn image_id(&self) -> Option<String> {
        metadata::image_id(&self.report()).map(|digest| digest.to_string())
    }

    fn report(&self) -> BuildReport {
        let (images, stats) = (self.images.clone(), self.stats.clone());
        BuildReport { images, sources: SourceMap::default(), stats }
    }
}
