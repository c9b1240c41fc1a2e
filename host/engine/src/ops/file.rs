//! File ops: one layer from copies, writes, directories, removals and links.
//!
//! The layer is written straight into a new snapshot, and names are looked up in the layers below
//! it: nothing is mounted.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use wbuild_exec::user::{Name, UserSpec};
use wbuild_graph::op::{EntryOpts, FileAction, FileActionKind, FileOp, Unpack};
use wbuild_graph::{ContentDigest, Failure, Span};
use wbuild_oci::layer::{Limits, Ownership, UnpackOptions, unpack};
use wbuild_solver::SolveVertex;
use wbuild_store::Store;
use wbuild_tree::layer::{
    Base, CopyOptions, LayerWriter, LinkOptions, MkdirOptions, Owner, RemoveOptions, WriteOptions,
};
use wbuild_tree::mode::ModeChange;
use wbuild_tree::par::Work;
use wbuild_tree::path::RelPath;
use wbuild_tree::root::{Links, Root};
use wbuild_tree::select::{SelectOptions, Shape, Source, SourceKind, select};
use wbuild_tree::stat::{Kind, Timestamp};
use wbuild_tree::walk::Filter;

use crate::blocking;
use crate::cancel::{CancelOnDrop, Stoppable};
use crate::ops::content::{Opened, Read, ReadAgain, changed};
use crate::ops::xattr_kind;
use crate::solved::{Layer, Lent, Output, Solved, Tree};
use crate::source::local::{LocalTree, point};
use crate::worker::BuildWorker;

/// Carries out the actions of `op`.
pub(crate) async fn run(
    worker: &BuildWorker,
    vertex: &SolveVertex,
    op: &FileOp,
    inputs: &[Output],
) -> Result<Arc<Solved>, Failure> {
    let input = |index: u32| {
        inputs
            .get(index as usize)
            .ok_or_else(|| Failure::internal("a file op refers to an input that is not there"))
    };
    let below = match op.base.map(input).transpose()? {
        None => Tree::new(Vec::new()),
        Some(Output::Tree(tree)) => Arc::clone(tree),
        Some(Output::Local(_)) => {
            return Err(Failure::unsupported(
                "a local directory cannot be what a layer lies on: copy from it instead",
            ));
        }
    };
    let (base, lease) = worker.base(&below).await?.unzip();
    let names = match op.names_from.or(op.base) {
        Some(index) if needs_names(op) => Some(worker.files_of(input(index)?).await?),
        _ => None,
    };
    let mut opened: Vec<Option<Arc<Opened>>> = inputs.iter().map(|_| None).collect();
    for action in &op.actions {
        if let FileActionKind::Copy { source, .. } = &action.kind {
            let slot = &mut opened[*source as usize];
            if slot.is_none() {
                let files = Opened::input(worker, vertex, *source as usize, input(*source)?);
                *slot = Some(Arc::new(files.await?));
            }
        }
    }
    let _slot = worker.io_slots.acquire().await.expect("the semaphore is never closed");
    let (_cancel, work) = CancelOnDrop::new();
    let (store, actions, now) = (worker.store.clone(), op.actions.clone(), worker.settings.now);
    let lends = worker.settings.lend.then(|| lender(op)).flatten();
    let (layer, read) = blocking(move || -> Result<(Arc<Layer>, ReadAgain), Failure> {
        let _kept = lease;
        let mut read = ReadAgain::default();
        let names = names.as_ref().map(|(fd, _)| fd.as_fd());
        let lender = lends.and_then(|source| opened[source].clone());
        let layer = write_layer(&store, base, now, &work, lender, |writer| {
            for action in &actions {
                act(writer, &store, action, &opened, names, &mut read, &work)
                    .map_err(|failure| point(failure, unpointed(action), None))?;
            }
            Ok(())
        })?;
        Ok((layer, read))
    })
    .await?;
    read.check(worker, vertex, inputs)?;
    let mut layers = below.layers.clone();
    layers.push(layer);
    Ok(Solved::tree(Tree::new(layers)))
}

/// The input of an op that does nothing but copy from it: the layer need not hold its large files.
fn lender(op: &FileOp) -> Option<usize> {
    let copied = |action: &FileAction| match &action.kind {
        FileActionKind::Copy { source, opts, .. } if opts.unpack == Unpack::Never => Some(*source),
        _ => None,
    };
    let source = op.actions.first().and_then(copied)?;
    op.actions.iter().all(|action| copied(action) == Some(source)).then_some(source as usize)
}

/// Copies point at their own place when they select; other actions are pointed at here.
fn unpointed(action: &FileAction) -> Option<Span> {
    match action.kind {
        FileActionKind::Copy { .. } => None,
        _ => action.mark,
    }
}

fn needs_names(op: &FileOp) -> bool {
    op.actions.iter().any(|action| {
        let opts = match &action.kind {
            FileActionKind::Copy { opts, .. } => &opts.entry,
            FileActionKind::Write { opts, .. }
            | FileActionKind::Mkdir { opts, .. }
            | FileActionKind::Symlink { opts, .. } => opts,
            FileActionKind::Remove { .. } => return false,
        };
        opts.chown.is_some()
    })
}

fn duplicate(fd: std::os::fd::BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    fd.try_clone_to_owned()
        .map_err(|error| Failure::internal("cannot duplicate a descriptor").cause(&error))
}

/// Makes a snapshot by `write`. With a `lender` large files that are copied from it stay there.
pub(crate) fn write_layer(
    store: &Store,
    base: Option<Base>,
    now: u64,
    work: &Work,
    lender: Option<Arc<Opened>>,
    write: impl FnOnce(&mut LayerWriter) -> Result<(), Failure>,
) -> Result<Arc<Layer>, Failure> {
    let builder = store.begin_snapshot()?;
    // Readable, as the writer lists what it has made.
    let upper = Root::from_fd(duplicate(builder.fs())?, "the new layer");
    let mut writer = LayerWriter::new(upper, base, xattr_kind(store.kind()), work.clone())?;
    if lender.is_some() {
        writer.lend();
    }
    write(&mut writer)?;
    let files = writer.finish()?;
    let (snapshot, lease) = builder.commit()?.into_parts();
    let layer = Layer::made(snapshot, lease, now);
    if let Some(context) = lender.filter(|_| !files.is_empty()) {
        layer.lend(Lent { files, context });
    }
    Ok(layer)
}

/// Owner and mode of what an action makes.
struct EntryFacts {
    owner: Option<(u32, u32)>,
    mode: Option<ModeChange>,
    timestamp: Option<Timestamp>,
}

fn facts(
    opts: &EntryOpts,
    names: Option<std::os::fd::BorrowedFd<'_>>,
) -> Result<EntryFacts, Failure> {
    let owner = match (&opts.chown, names) {
        (None, _) => None,
        (Some(owner), Some(names)) => Some(wbuild_exec::user::resolve_owner(names, owner)?),
        (Some(owner), None) => Some(numeric_owner(owner)?.ok_or_else(|| {
            Failure::not_found(format!("cannot look up the owner {owner:?}: the tree is empty"))
                .hint("use numbers, e.g. --chown=1000:1000")
        })?),
    };
    Ok(EntryFacts {
        owner,
        mode: opts.mode.as_deref().map(str::parse::<ModeChange>).transpose()?,
        timestamp: opts.timestamp.map(Timestamp::from_secs),
    })
}

/// `uid[:gid]` in numbers; the group defaults to the user's number.
fn numeric_owner(text: &str) -> Result<Option<(u32, u32)>, Failure> {
    let spec = UserSpec::parse(text)?;
    Ok(match (spec.user, spec.group) {
        (Name::Id(uid), None) => Some((uid, uid)),
        (Name::Id(uid), Some(Name::Id(gid))) => Some((uid, gid)),
        _ => None,
    })
}

fn act(
    writer: &mut LayerWriter,
    store: &Store,
    action: &FileAction,
    opened: &[Option<Arc<Opened>>],
    names: Option<std::os::fd::BorrowedFd<'_>>,
    again: &mut ReadAgain,
    work: &Work,
) -> Result<(), Failure> {
    match &action.kind {
        FileActionKind::Copy { source, paths, target, opts } => {
            let from = opened[*source as usize].as_ref().expect("opened before");
            let facts = facts(&opts.entry, names)?;
            let read = Read::of_copy(paths, opts, action.mark);
            let (selection, digest) = from.select(&read, work)?;
            again.note(*source, digest);
            let options = CopyOptions {
                // Owners of a directory of the user's are in no key, so they are never kept.
                owner: match (facts.owner, opts.keep_owner && from.kind == SourceKind::Image) {
                    (Some((uid, gid)), _) => Owner::Fixed { uid, gid },
                    (None, true) => Owner::Kept,
                    (None, false) => Owner::Fixed { uid: 0, gid: 0 },
                },
                mode: facts.mode,
                create_dest: opts.create_dest,
                follow_links: true,
                keep_times: opts.keep_times,
                replace: opts.replace,
                timestamp: facts.timestamp,
            };
            let failure = |error| from.failure(error, action.mark);
            if opts.unpack == Unpack::Never {
                writer.copy(&from.source(), &selection, target, &options).map_err(failure)?;
                return Ok(());
            }
            // Archives one by one; everything else as usual.
            for (number, root) in selection.roots().iter().enumerate() {
                let archive = root.shape == Shape::Node
                    && root.top.stat.kind == Kind::File
                    && unpack_one(writer, store, from, &root.path, target, &options, work)?;
                if !archive && opts.unpack == Unpack::Always {
                    let path = root.path.to_string();
                    return Err(Failure::invalid(format!("{path:?} is not an archive")));
                }
                if !archive {
                    let one = selection.only(number);
                    writer.copy(&from.source(), &one, target, &options).map_err(failure)?;
                }
            }
            // An archive is unpacked while it is read: whether it stayed the same shows afterwards.
            if let Some(local) = &from.local
                && from.select(&read, work)?.1 != digest
            {
                return Err(point(changed(local), action.mark, None));
            }
            Ok(())
        }
        FileActionKind::Write { path, data, opts } => {
            let facts = facts(opts, names)?;
            let (uid, gid) = facts.owner.unwrap_or((0, 0));
            let options = WriteOptions {
                mode: facts.mode.map_or(0o644, |mode| mode.apply(0o644, false)),
                uid,
                gid,
                timestamp: facts.timestamp,
                follow_links: true,
            };
            Ok(writer.write_file(path, data, &options)?)
        }
        FileActionKind::Mkdir { path, parents, opts } => {
            let facts = facts(opts, names)?;
            let (uid, gid) = facts.owner.unwrap_or((0, 0));
            let options = MkdirOptions {
                mode: facts.mode.map_or(0o755, |mode| mode.apply(0o755, true)),
                uid,
                gid,
                parents: *parents,
                timestamp: facts.timestamp,
            };
            Ok(writer.make_dir(path, &options)?)
        }
        FileActionKind::Remove { path, wildcard, allow_missing } => {
            let options = RemoveOptions {
                wildcard: *wildcard,
                allow_missing: *allow_missing,
                timestamp: None,
            };
            Ok(writer.remove(path, &options)?)
        }
        FileActionKind::Symlink { path, target, opts } => {
            let facts = facts(opts, names)?;
            let (uid, gid) = facts.owner.unwrap_or((0, 0));
            let options = LinkOptions { uid, gid, timestamp: facts.timestamp };
            Ok(writer.make_link(path, target, &options)?)
        }
    }
}

/// Unpacks `path` into the directory `target` if it is an archive; answers whether it is.
///
/// The archive is unpacked by itself first and copied from there, so that what is below it (links to
/// directories, owners and modes of directories that exist) is treated as by any other copy.
fn unpack_one(
    writer: &mut LayerWriter,
    store: &Store,
    from: &Opened,
    path: &RelPath,
    target: &str,
    options: &CopyOptions,
    work: &Work,
) -> Result<bool, Failure> {
    let mut file = from.root.open_file(path, Links::Refuse)?;
    if !wbuild_oci::layer::is_archive(&mut file)? {
        return Ok(false);
    }
    let scratch = store.begin_snapshot()?;
    let limits = Limits::default();
    let input = Stoppable { inner: &file, cancel: work.cancel.clone() };
    unpack(input, scratch.fs(), &UnpackOptions { dest: b"", ownership: Ownership::Keep, limits })?;
    let root = Root::from_fd(duplicate(scratch.fs())?, "the archive");
    let filter = Filter::all();
    let source = Source { root: &root, filter: &filter, kind: SourceKind::Image };
    let everything = SelectOptions { contents_only: true, ..SelectOptions::default() };
    let selection = select(&source, &["/"], &everything, work)?;
    let target = format!("{}/", target.trim_end_matches('/'));
    // An archive says itself whose its files are and what their modes; only a directory that is made
    // for it is the instruction's.
    let (uid, gid) = match options.owner {
        Owner::Fixed { uid, gid } => (uid, gid),
        Owner::Kept => (0, 0),
    };
    let (timestamp, parents) = (options.timestamp, true);
    writer.make_dir(&target, &MkdirOptions { mode: 0o755, uid, gid, parents, timestamp })?;
    let options = CopyOptions {
        owner: Owner::Kept,
        mode: None,
        keep_times: true,
        replace: true,
        ..options.clone()
    };
    writer.copy(&source, &selection, &target, &options)?;
    Ok(true)
}

/// A part of a local directory as a layer of its own, for a mount, and what it was. Never recorded.
pub(crate) async fn import(
    worker: &BuildWorker,
    local: Arc<LocalTree>,
    subpath: &str,
) -> Result<(Arc<Layer>, ContentDigest), Failure> {
    let opened = Opened::new(worker, &Output::Local(local)).await?;
    let (_cancel, work) = CancelOnDrop::new();
    let (store, now) = (worker.store.clone(), worker.settings.now);
    let subpath = subpath.to_owned();
    let _slot = worker.io_slots.acquire().await.expect("the semaphore is never closed");
    blocking(move || {
        let (selection, digest) = opened.select(&Read::of_local(&subpath), &work)?;
        let target = format!("/{}", subpath.trim_start_matches('/'));
        let layer = write_layer(&store, None, now, &work, None, |writer| {
            let copied =
                writer.copy(&opened.source(), &selection, &target, &CopyOptions::default());
            copied.map(drop).map_err(|error| opened.failure(error, None))
        })?;
        Ok::<_, Failure>((layer, digest))
    })
    .await
}

/// Fills a new cache directory with what its seed holds.
pub(crate) async fn seed(
    worker: &BuildWorker,
    from: &Output,
    path: &str,
    dir: &Path,
) -> Result<(), Failure> {
    let opened = Opened::new(worker, from).await?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty())
        .map_err(|error| Failure::internal("cannot open a cache directory").cause(&error))?;
    let (_cancel, work) = CancelOnDrop::new();
    let (kind, path) = (xattr_kind(worker.store.kind()), path.to_owned());
    blocking(move || -> Result<(), Failure> {
        let stat = rustix::fs::fstat(&fd)
            .map_err(|error| Failure::internal("cannot look at a cache directory").cause(&error))?;
        let root = Root::from_fd(fd, "the cache directory");
        let mut writer = LayerWriter::new(root.clone(), None, kind, work.clone())?;
        let (selection, _) = opened.select(&Read::of_local(&path), &work)?;
        let options = CopyOptions { owner: Owner::Kept, ..CopyOptions::default() };
        writer.copy(&opened.source(), &selection, "/", &options)?;
        writer.finish()?;
        // The mount's own owner and mode, which the writer has set to a layer's.
        let (uid, gid) =
            (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(root.as_fd(), Some(uid), Some(gid))
            .and_then(|()| rustix::fs::fchmod(root.as_fd(), Mode::from_raw_mode(stat.st_mode)))
            .map_err(|error| {
                Failure::internal("cannot set the owner of a cache directory").cause(&error)
            })
    })
    .await
}
