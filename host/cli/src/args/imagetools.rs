//! `wbuild imagetools`: options by the names that `docker buildx imagetools` uses.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::{AnnotationArg, ProgressArg};
use crate::template::Template;

/// Look into images in registries, and join several into one
#[derive(Debug, Subcommand)]
pub enum ImagetoolsCommand {
    /// Show what an image in a registry or an OCI layout is made of
    ///
    /// Reads manifests only, and configs if the format asks for them.
    Inspect(ImageInspectArgs),
    /// Make one image of several, e.g. of those built on machines of different platforms
    ///
    /// A SOURCE is an image or an index: NAME[:TAG], NAME@DIGEST, oci-layout://DIR[:TAG], a DIGEST in the
    /// only repository that is named, or a descriptor as JSON. What the repository of a --tag lacks is
    /// mounted or copied there. A single index is taken as it is.
    Create(ImageCreateArgs),
}

/// Show what an image in a registry or an OCI layout is made of
#[derive(Args, Debug)]
pub struct ImageInspectArgs {
    /// The image: NAME[:TAG], NAME@DIGEST or oci-layout://DIR[:TAG]
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Print the manifest or index as it is
    #[arg(long, conflicts_with_all = ["format", "json"])]
    pub raw: bool,
    /// Print what a template in the manner of Go makes of .Name, .Manifest and .Image (the config, or
    /// one for each platform), e.g. '{{json .Manifest}}'
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "json")]
    pub format: Option<Template>,
    /// Print JSON: name and manifest
    #[arg(long)]
    pub json: bool,
    /// How registries are asked, as with wbuild build
    #[arg(long, value_name = "FILE")]
    pub registry_config: Option<PathBuf>,
}

/// Make one image of several
#[derive(Args, Debug)]
pub struct ImageCreateArgs {
    /// What is joined
    #[arg(value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// A name for the result (repeats)
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub tags: Vec<String>,
    /// Read a SOURCE from a file (repeats); the file that wbuild build --metadata-file writes is one
    #[arg(short, long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Add to what the first name stands for already
    #[arg(long)]
    pub append: bool,
    /// An annotation (repeats): index:KEY=VALUE or manifest-descriptor[PLATFORM]:KEY=VALUE
    #[arg(long = "annotation", value_name = "ANNOTATION")]
    pub annotations: Vec<AnnotationArg>,
    /// Print what would be pushed
    #[arg(long)]
    pub dry_run: bool,
    /// Make an index of a single image, too; =false gives the image another name
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "true", default_missing_value = "true", hide_default_value = true)]
    pub prefer_index: bool,
    /// Write what was made to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// How the work is shown: auto, tty, plain, json or quiet
    #[arg(long, value_name = "DISPLAY")]
    pub progress: Option<ProgressArg>,
    /// How registries are asked, as with wbuild build
    #[arg(long, value_name = "FILE")]
    pub registry_config: Option<PathBuf>,
}
