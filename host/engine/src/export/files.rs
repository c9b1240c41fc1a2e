//! Files as a directory or a tar.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use wbuild_api::request::{OutputDest, OutputKind, OutputSpec};
use wbuild_graph::{Edge, Failure, Platform};
use wbuild_oci::layer::{CompressOptions, LayerBuilder, WriteOptions, write_upper};
use wbuild_oci::media::Compression;
use wbuild_store::Lease;
use wbuild_tree::layer::{CopyOptions, LayerWriter, Owner};
use wbuild_tree::path::RelPath;
use wbuild_tree::root::{Links, Root};
use wbuild_tree::select::{SelectOptions, Source, SourceKind, select};
use wbuild_tree::walk::Filter;
use wbuild_tree::xattr::XattrKind;

use crate::blocking;
use crate::job::Job;
use crate::ops::content::CancelOnDrop;
use crate::ops::overlay_kind;
use crate::solved::Output;
use crate::worker::output;

/// One tree to write, and the folder it gets if there are several.
struct Part {
    folder: Option<String>,
    path: String,
    files: OwnedFd,
    _lease: Lease,
}

/// Writes the files of all images (or, without images, of all file results) of the build.
pub(crate) async fn export(job: &Arc<Job>, spec: &OutputSpec) -> Result<(), Failure> {
    wbuild_graph::decode::only_known(&spec.attrs, "the output", &["platform-split", "tar"])?;
    let images = job.images();
    let several = images.len() > 1;
    let split = match spec.attrs.get("platform-split") {
        Some(_) => wbuild_graph::decode::flag(&spec.attrs, "platform-split")?,
        None => several,
    };
    let mut parts = Vec::new();
    for image in &images {
        let Some(root) = image.root else { continue };
        let folder = image.platform.as_ref().filter(|_| split).map(folder);
        parts.push(part(job, root, "/", folder).await?);
    }
    for files in job.files() {
        parts.push(part(job, files.root, &files.path, None).await?);
    }
    let name = match spec.kind {
        OutputKind::Tar => "export tar",
        _ => "export files",
    };
    let step = job.steps().internal(name);
    let (kind, dest) = (spec.kind, spec.dest.clone());
    let epoch = job.request().source_date_epoch.map(|e| i64::try_from(e).unwrap_or(i64::MAX));
    let overlay = overlay_kind(job.worker().store.kind());
    let (_cancel, work) = CancelOnDrop::new();
    let result = blocking(move || match (kind, &dest) {
        (OutputKind::Local, OutputDest::Directory(directory) | OutputDest::File(directory)) => {
            parts.iter().try_for_each(|part| copy(part, directory, &work))
        }
        (OutputKind::Local, _) => {
            Err(Failure::invalid("an output of type local needs dest=DIRECTORY"))
        }
        (_, dest) => to_writer(dest, |out| {
            let options = CompressOptions::new(Compression::None);
            let mut builder = LayerBuilder::new(out, &options)?;
            let mut options = WriteOptions::new(overlay);
            options.epoch = epoch;
            match &parts[..] {
                [one] if one.folder.is_none() => {
                    write_upper(&mut builder, one.files.as_fd(), &options)?;
                }
                _ => {
                    return Err(Failure::unsupported(
                        "a tar of several platforms: choose one, or an output of type local",
                    ));
                }
            }
            builder.finish()?;
            Ok(())
        }),
    })
    .await;
    match &result {
        Ok(()) => step.done(),
        Err(failure) => step.failed(failure),
    }
    result
}

/// `linux/arm/v7` is written to `linux_arm_v7`.
fn folder(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

async fn part(
    job: &Arc<Job>,
    root: Edge,
    path: &str,
    folder: Option<String>,
) -> Result<Part, Failure> {
    let solved = job.solve(root).await?;
    match output(&solved, root.index)? {
        Output::Tree(tree) => {
            let (files, _lease) = job.worker().readable(tree).await?;
            Ok(Part { folder, path: path.to_owned(), files, _lease })
        }
        Output::Local(_) => Err(Failure::invalid("a local directory is not exported as it is")),
    }
}

/// Copies a tree into a directory of the user's, which is made if it is missing. What is there and
/// not in the tree stays.
fn copy(part: &Part, directory: &Path, work: &wbuild_tree::par::Work) -> Result<(), Failure> {
    let target = match &part.folder {
        Some(folder) => directory.join(folder),
        None => directory.to_owned(),
    };
    std::fs::create_dir_all(&target).map_err(|error| {
        Failure::invalid(format!("cannot make the directory {}", target.display())).cause(&error)
    })?;
    let dest = Root::open(&target, &target.to_string_lossy())?;
    let before = rustix::fs::fstat(dest.as_fd())
        .map_err(|error| Failure::internal("cannot look at the output directory").cause(&error))?;
    let from = part
        .files
        .try_clone()
        .map_err(|error| Failure::internal("cannot duplicate a descriptor").cause(&error))?;
    let root = Root::from_fd(from, "the result");
    let filter = Filter::all();
    let source = Source { root: &root, filter: &filter, kind: SourceKind::Image };
    let options =
        SelectOptions { contents_only: true, follow_links: true, ..SelectOptions::default() };
    let path = RelPath::clean(&part.path)?;
    root.stat(&path, Links::Inside)?;
    let selection = select(&source, &[&part.path], &options, work)?;
    // The marks of an overlay have no meaning in the user's directory, and none are made: nothing
    // is removed.
    let mut writer = LayerWriter::new(dest.clone(), None, XattrKind::User, work.clone())?;
    // An ordinary user owns what the export makes; root keeps the image's owners.
    let owner = match rustix::process::geteuid().is_root() {
        true => Owner::Kept,
        false => Owner::Fixed { uid: before.st_uid, gid: before.st_gid },
    };
    let options = CopyOptions { owner, replace: true, ..CopyOptions::default() };
    writer.copy(&source, &selection, "/", &options)?;
    writer.finish()?;
    // The directory itself is the user's, whatever the image's root is like.
    let (uid, gid) =
        (rustix::fs::Uid::from_raw(before.st_uid), rustix::fs::Gid::from_raw(before.st_gid));
    rustix::fs::fchown(dest.as_fd(), Some(uid), Some(gid))
        .and_then(|()| {
            rustix::fs::fchmod(dest.as_fd(), rustix::fs::Mode::from_raw_mode(before.st_mode))
        })
        .map_err(|error| Failure::internal("cannot restore the output directory").cause(&error))
}

/// Opens a destination, writes to it, and makes it appear only when it is whole.
pub(super) fn to_writer(
    dest: &OutputDest,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    match dest {
        OutputDest::Stdout => {
            let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
            write(&mut out)?;
            out.flush().map_err(|error| {
                Failure::new(
                    wbuild_graph::FailureKind::Unavailable,
                    "cannot write to standard output",
                )
                .cause(&error)
            })
        }
        OutputDest::File(path) => {
            let failed = |what: &str, error: &std::io::Error| {
                Failure::invalid(format!("cannot {what} the output {}", path.display()))
                    .cause(error)
            };
            let parent = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            let name = path.file_name().ok_or_else(|| {
                Failure::invalid(format!("the output {} has no file name", path.display()))
            })?;
            let mut partial = std::ffi::OsString::from(".");
            partial.push(name);
            partial.push(format!(".{}.partial", std::process::id()));
            let partial = parent.join(partial);
            let file = File::create(&partial).map_err(|error| failed("write", &error))?;
            let remove = RemoveOnDrop(Some(partial));
            let mut out = BufWriter::with_capacity(1 << 20, file);
            write(&mut out)?;
            out.flush().map_err(|error| failed("write", &error))?;
            remove.keep(path).map_err(|error| failed("write", &error))
        }
        OutputDest::Directory(path) => Err(Failure::invalid(format!(
            "the output {} is a directory, but a file is written",
            path.display()
        ))),
        OutputDest::Nowhere => Err(Failure::invalid("the output needs dest=FILE")),
    }
}

struct RemoveOnDrop(Option<std::path::PathBuf>);

impl RemoveOnDrop {
    fn keep(mut self, path: &Path) -> std::io::Result<()> {
        match &self.0 {
            Some(partial) => std::fs::rename(partial, path)?,
            None => return Ok(()),
        }
        self.0 = None;
        Ok(())
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Some(partial) = &self.0 {
            let _ = std::fs::remove_file(partial);
        }
    }
}
