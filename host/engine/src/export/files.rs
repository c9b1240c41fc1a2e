//! Files as a directory or a tar.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wbuild_api::extension::FilesResult;
use wbuild_api::request::{DefinitionSource, OutputDest, OutputKind, OutputSpec};
use wbuild_graph::{Edge, Failure, FailureKind, Platform};
use wbuild_oci::layer::{CompressOptions, LayerBuilder, WriteOptions, write_upper};
use wbuild_oci::media::Compression;
use wbuild_store::{Lease, Store};
use wbuild_tree::layer::{CopyOptions, LayerWriter, Owner};
use wbuild_tree::par::{Cancel, Work};
use wbuild_tree::path::RelPath;
use wbuild_tree::root::{Links, Root};
use wbuild_tree::select::{SelectOptions, Source, SourceKind, select};
use wbuild_tree::walk::Filter;
use wbuild_tree::xattr::XattrKind;

use super::allocate::Allocating;
use super::mirror::{self, Kept};
use crate::blocking;
use crate::cancel::{CancelOnDrop, Stoppable};
use crate::job::Job;
use crate::ops::overlay_kind;
use crate::room::written_to;
use crate::solved::Output;
use crate::worker::output;
use wbuild_api::yielded::Batch;

/// One tree to write, and where.
struct Part {
    /// Below the output's directory.
    folder: Option<String>,
    /// A directory of the main context in its place: of that directory of the client's, this one.
    context: Option<(PathBuf, RelPath)>,
    path: String,
    files: OwnedFd,
    _lease: Lease,
}

/// `results=files`: nothing of images, also where no files are yielded.
/// `context=DIR`: where the main context lies, for files that are saved for other directories of it.
const KNOWN: &[&str] = &["mode", "platform-split", "tar", "results", "context"];

/// Whether an output takes what frontends yield as files, and never an image.
fn files_only(spec: &OutputSpec) -> Result<bool, Failure> {
    match spec.attrs.get("results") {
        None => Ok(false),
        Some("files") if spec.kind == OutputKind::Local => Ok(true),
        Some(other) => Err(Failure::invalid(format!("unknown results {other:?} of an output"))
            .hint("results=files of an output of type local writes files that a definition saves")),
    }
}

/// Whether a directory is to hold nothing else in the end.
pub(super) fn deletes(spec: &OutputSpec) -> Result<bool, Failure> {
    match (spec.attrs.get("mode"), spec.kind) {
        (None, _) | (Some("copy"), OutputKind::Local) => Ok(false),
        (Some("delete"), OutputKind::Local) => Ok(true),
        (Some(other), OutputKind::Local) => {
            Err(Failure::invalid(format!("unknown mode {other:?} of an output"))
                .hint("expected copy or delete"))
        }
        (Some(_), _) => Err(Failure::invalid("only an output of type local has a mode")),
    }
}

/// Refuses an output that cannot be written.
pub(super) fn check(spec: &OutputSpec) -> Result<(), Failure> {
    wbuild_graph::decode::only_known(&spec.attrs, "the output", KNOWN)?;
    wbuild_graph::decode::flag(&spec.attrs, "platform-split")?;
    deletes(spec)?;
    files_only(spec)?;
    match (spec.kind, &spec.dest) {
        (OutputKind::Local, OutputDest::Directory(_) | OutputDest::File(_)) => Ok(()),
        (OutputKind::Local, _) => {
            Err(Failure::invalid("an output of type local needs dest=DIRECTORY"))
        }
        (_, dest) => check_writable(dest),
    }
}

/// Refuses what [`to_writer`] cannot write to.
pub(super) fn check_writable(dest: &OutputDest) -> Result<(), Failure> {
    match dest {
        OutputDest::Stdout => Ok(()),
        OutputDest::File(path) => match path.file_name() {
            Some(_) => Ok(()),
            None => {
                Err(Failure::invalid(format!("the output {} has no file name", path.display())))
            }
        },
        OutputDest::Directory(path) => Err(Failure::invalid(format!(
            "the output {} is a directory, but a file is written",
            path.display()
        ))),
        OutputDest::Nowhere => Err(Failure::invalid("the output needs dest=FILE")),
        OutputDest::Daemon(endpoint) => Err(Failure::invalid(format!(
            "the output is a file, which the Docker at {endpoint} does not take"
        ))),
    }
}

/// Refuses, once it is known what there is, an output that would have nothing to write.
pub(super) fn settle(spec: &OutputSpec, batch: &Batch) -> Result<(), Failure> {
    if files_only(spec)? || !batch.files.is_empty() || batch.main().is_some() {
        return Ok(());
    }
    let message =
        "what is built yields neither files nor an image of its own, whose files those are";
    Err(Failure::invalid(message).hint(super::others(batch)))
}

/// Writes the files that the frontend has yielded as such, or else those of the build's image. `whole`
/// is all that was yielded.
pub(crate) async fn export(
    job: &Arc<Job>,
    spec: &OutputSpec,
    batch: &Batch,
    whole: &Batch,
) -> Result<(), Failure> {
    let images = match batch.main() {
        Some(main) if whole.files.is_empty() && !files_only(spec)? => &main.parts[..],
        _ => &[],
    };
    if images.is_empty() && batch.files.is_empty() {
        return Ok(());
    }
    let several = images.len() > 1;
    let split = match spec.attrs.get("platform-split") {
        Some(_) => wbuild_graph::decode::flag(&spec.attrs, "platform-split")?,
        None => several,
    };
    let mut wanted = Vec::new();
    for image in images {
        let Some(root) = image.root else { continue };
        let folder = image.platform.as_ref().filter(|_| split).map(folder);
        wanted.push((root, "/".to_owned(), (folder, None)));
    }
    for files in &batch.files {
        let place = place(job, spec, files)?;
        wanted.push((files.root, files.path.clone(), place));
    }
    let room = &job.worker().room;
    let mut parts = Vec::new();
    for (root, path, place) in wanted {
        let mut attempt = 0;
        parts.push(loop {
            let part = part(job, root, &path, place.clone()).await;
            if !room.again(&part, &mut attempt).await {
                break part?;
            }
        });
    }
    let parts = Arc::new(parts);
    let name = match spec.kind {
        OutputKind::Tar => "export tar",
        _ => "export files",
    };
    let step = job.steps().internal(name);
    let deletes = deletes(spec)?;
    let epoch = job.request().source_date_epoch.map(|e| i64::try_from(e).unwrap_or(i64::MAX));
    let mut attempt = 0;
    let result = loop {
        let (kind, dest, parts) = (spec.kind, spec.dest.clone(), Arc::clone(&parts));
        let store = job.worker().store.clone();
        let (_cancel, work) = CancelOnDrop::new();
        let result = blocking(move || match (kind, &dest) {
            (OutputKind::Local, OutputDest::Directory(directory) | OutputDest::File(directory)) => {
                // Also for an image without files.
                make_dir(directory)
                    .and_then(|()| parts.iter().try_for_each(|part| copy(part, directory, &work)))
                    .map_err(|failure| written_to(failure, Some(directory)))?;
                if deletes { delete_others(&parts, directory, &work.cancel) } else { Ok(()) }
            }
            (OutputKind::Local, _) => {
                Err(Failure::invalid("an output of type local needs dest=DIRECTORY"))
            }
            (_, dest) => write_tar(&parts, dest, &store, epoch, &work),
        })
        .await;
        if !room.again(&result, &mut attempt).await {
            break result;
        }
    };
    match &result {
        Ok(()) => step.done(),
        Err(failure) => step.failed(failure),
    }
    result
}

/// Writes the files as one tar.
fn write_tar(
    parts: &[Part],
    dest: &OutputDest,
    store: &Store,
    epoch: Option<i64>,
    work: &Work,
) -> Result<(), Failure> {
    // What is not one whole tree is put together first.
    let (tree, _scratch) = match parts {
        [one] if one.folder.is_none() && RelPath::clean(&one.path)?.is_root() => {
            (one.files.try_clone(), None)
        }
        parts => {
            let scratch = store.begin_snapshot()?;
            for part in parts {
                copy(part, &scratch.fs_path(), work)?;
            }
            (scratch.fs().try_clone_to_owned(), Some(scratch))
        }
    };
    let tree = tree.map_err(|error| {
        Failure::internal("cannot duplicate a directory descriptor").cause(&error)
    })?;
    to_writer(dest, &work.cancel, |out| {
        let options = CompressOptions::new(Compression::None);
        let mut builder = LayerBuilder::new(out, &options)?;
        let mut options = WriteOptions::new(overlay_kind(store.kind()));
        options.epoch = epoch;
        write_upper(&mut builder, tree.as_fd(), &options)?;
        builder.finish()?;
        Ok(())
    })
}

/// `linux/arm/v7` is written to `linux_arm_v7`.
fn folder(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

type Place = (Option<String>, Option<(PathBuf, RelPath)>);

/// Where files of a frontend go. Those for other directories than the definition's go there where the
/// output is for what is saved beside it; else they get a folder by their path in the context.
fn place(job: &Job, spec: &OutputSpec, files: &FilesResult) -> Result<Place, Failure> {
    let Some(dest) = files.attrs.get("dest") else { return Ok((None, None)) };
    let directory = match &job.request().definition {
        DefinitionSource::InContext { directory, .. } => directory.as_str(),
        _ => "",
    };
    // Nothing leads out of the context.
    let path = RelPath::clean(format!("{directory}/{dest}"))?;
    Ok(match spec.attrs.get("context") {
        Some(context) => (None, Some((context.into(), path))),
        None if path.is_root() => (None, None),
        None => (Some(path.to_string()), None),
    })
}

async fn part(
    job: &Arc<Job>,
    root: Edge,
    path: &str,
    (folder, context): Place,
) -> Result<Part, Failure> {
    let solved = job.solve(root).await?;
    match output(&solved, root.index)? {
        Output::Tree(tree) => {
            let (files, _lease) = job.worker().readable(tree).await?;
            Ok(Part { folder, context, path: path.to_owned(), files, _lease })
        }
        Output::Local(_) => Err(Failure::invalid("a local directory is not exported as it is")),
    }
}

fn make_dir(path: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(path).map_err(|error| {
        Failure::invalid(format!("cannot make the directory {}", path.display())).cause(&error)
    })
}

/// Copies a tree into a directory of the user's, which is made if it is missing. What is there and
/// not in the tree stays.
fn copy(part: &Part, directory: &Path, work: &Work) -> Result<(), Failure> {
    let dest = match (&part.context, &part.folder) {
        (Some((context, path)), _) => {
            let shown = context.join(path.to_string());
            let context = Root::open(context, &context.to_string_lossy())?;
            Root::from_fd(context.open_dir(path, Links::Inside)?, &shown.to_string_lossy())
        }
        (None, folder) => {
            let target = directory.join(folder.as_deref().unwrap_or_default());
            make_dir(&target)?;
            Root::open(&target, &target.to_string_lossy())?
        }
    };
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

/// Removes what none of the parts has from where they were copied to.
fn delete_others(parts: &[Part], directory: &Path, cancel: &Cancel) -> Result<(), Failure> {
    let mut kept = Kept::default();
    for part in parts.iter().filter(|part| part.context.is_none()) {
        let files = part
            .files
            .try_clone()
            .map_err(|error| Failure::internal("cannot duplicate a descriptor").cause(&error))?;
        let root = Root::from_fd(files, "the result");
        let path = RelPath::clean(&part.path)?;
        if !root.stat(&path, Links::Inside)?.is_some_and(|stat| stat.is_dir()) {
            return Err(Failure::unsupported("mode=delete needs a result that is a directory"));
        }
        let like = root.open_dir(&path, Links::Inside)?;
        let folder = part.folder.as_deref().unwrap_or_default();
        let names: Vec<&str> = folder.split('/').filter(|name| !name.is_empty()).collect();
        kept.keep(&names, like);
    }
    let dest = Root::open(directory, &directory.to_string_lossy())?;
    mirror::prune(dest.as_fd(), &kept, directory, cancel)
}

/// Opens a destination, writes to it, and makes it appear only when it is whole. A device or a pipe
/// is written to as it is.
pub(super) fn to_writer(
    dest: &OutputDest,
    cancel: &Cancel,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    check_writable(dest)?;
    let place = match dest {
        OutputDest::File(path) => Some(path.as_path()),
        _ => None,
    };
    put(dest, cancel, write).map_err(|failure| written_to(failure, place))
}

fn put(
    dest: &OutputDest,
    cancel: &Cancel,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let buffered = |out, failed: &dyn Fn(&std::io::Error) -> Failure| {
        let out: Box<dyn Write> = out;
        let mut out =
            Stoppable { inner: BufWriter::with_capacity(1 << 20, out), cancel: cancel.clone() };
        let written = write(&mut out).and_then(|()| out.flush().map_err(|error| failed(&error)));
        // What was not written when it failed is not tried again.
        let _ = out.inner.into_parts();
        written
    };
    let OutputDest::File(path) = dest else {
        return buffered(Box::new(std::io::stdout().lock()), &|error| {
            Failure::new(FailureKind::Unavailable, "cannot write to standard output").cause(error)
        });
    };
    let failed = |error: &std::io::Error| {
        Failure::invalid(format!("cannot write the output {}", path.display())).cause(error)
    };
    // A link stands for what it points to, which may not be there yet.
    let target = resolve_links(path).map_err(|error| failed(&error))?;
    match std::fs::metadata(&target) {
        Ok(meta) if !meta.is_file() => {
            let file = File::options().write(true).open(&target).map_err(|error| failed(&error))?;
            return buffered(Box::new(file), &failed);
        }
        _ => {}
    }
    let name = target.file_name().ok_or_else(|| {
        Failure::invalid(format!("the output {} has no file name", path.display()))
    })?;
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = target.with_file_name(partial);
    // Left by a process of this number that was killed; never followed if it is a link.
    let _ = std::fs::remove_file(&partial);
    let file = File::create_new(&partial).map_err(|error| failed(&error))?;
    let remove = RemoveOnDrop(Some(partial));
    buffered(Box::new(Allocating::new(file)), &failed)?;
    if cancel.is_cancelled() {
        return Err(Failure::cancelled());
    }
    remove.keep(&target).map_err(|error| failed(&error))
}

/// Where a path leads: the last component's links are followed.
fn resolve_links(path: &Path) -> std::io::Result<PathBuf> {
    let mut path = path.to_owned();
    // As many as the kernel follows.
    for _ in 0..40 {
        match std::fs::read_link(&path) {
            // Relative to where the link is. What /proc shows of a pipe is no path.
            Ok(to) if path.with_file_name(&to).try_exists()? || !path.exists() => {
                path = path.with_file_name(to);
            }
            _ => return Ok(path),
        }
    }
    Err(std::io::Error::from(rustix::io::Errno::LOOP))
}

struct RemoveOnDrop(Option<PathBuf>);

impl RemoveOnDrop {
    fn keep(mut self, path: &Path) -> std::io::Result<()> {
        if let Some(partial) = &self.0 {
            std::fs::rename(partial, path)?;
        }
        self.0 = None;
        Ok(())
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Some(partial) = &self.0 {
            // The failure that led here is the one to report.
            let _ = std::fs::remove_file(partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, symlink};

    use super::*;

    fn write(path: &Path, cancel: &Cancel) -> Result<(), Failure> {
        to_writer(&OutputDest::File(path.to_owned()), cancel, |out| {
            out.write_all(b"whole").map_err(|error| Failure::internal("write").cause(&error))
        })
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).expect("directory");
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("entry").file_name();
        let mut names: Vec<_> =
            entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_appear_whole_through_links_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().expect("directory");
        let at = |name: &str| dir.path().join(name);
        write(&at("new"), &Cancel::new()).expect("new file");
        std::fs::write(at("old"), "longer than what replaces it").expect("old file");
        symlink("old", at("link")).expect("link");
        symlink("absent", at("dangling")).expect("link");
        write(&at("link"), &Cancel::new()).expect("through a link");
        write(&at("dangling"), &Cancel::new()).expect("through a dangling link");
        for name in ["new", "old", "absent"] {
            assert_eq!(std::fs::read(at(name)).expect(name), b"whole");
        }
        assert!(at("link").is_symlink() && at("dangling").is_symlink());
        assert_eq!(names(dir.path()), ["absent", "dangling", "link", "new", "old"]);
    }

    #[test]
    fn a_pipe_is_written_to_and_stays_a_pipe() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).expect("pipe");
        let reader = {
            let path = path.clone();
            std::thread::spawn(move || std::fs::read(path).expect("read"))
        };
        write(&path, &Cancel::new()).expect("written");
        assert_eq!(reader.join().expect("reader"), b"whole");
        assert!(std::fs::metadata(&path).expect("still there").file_type().is_fifo());
        assert_eq!(names(dir.path()), ["pipe"]);
    }

    #[test]
    fn what_is_cancelled_leaves_the_old_file() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("out");
        std::fs::write(&path, "old").expect("old file");
        let cancel = Cancel::new();
        cancel.cancel();
        write(&path, &cancel).expect_err("cancelled");
        assert_eq!(std::fs::read(&path).expect("there"), b"old");
        assert_eq!(names(dir.path()), ["out"]);
    }
}
