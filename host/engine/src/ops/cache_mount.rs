//! Directories of cache mounts: those of the state directory, and those of the client's that stand in
//! for them (`--cache-mount`); and their way to caches elsewhere and back.
//!
//! A directory of the client's is locked like one of ours while a step has it, is filled like a new one
//! while it is empty, and keeps its owner and mode.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use wbuild_graph::{DiffId, Failure, FailureKind};
use wbuild_oci::layer::{
    ApplyOptions, CompressOptions, LayerBuilder, WriteOptions, apply, no_parents, write_upper,
};
use wbuild_store::{BlobRef, CacheDir, CacheOwner, CacheSharing, Lease};

use crate::blocking;
use crate::cache::entries::{LAYER_LIMIT, mount_key};
use crate::cancel::{CancelOnDrop, Stoppable};
use crate::ops::overlay_kind;
use crate::worker::BuildWorker;

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The directory of a cache mount in use; given back on drop.
pub(crate) enum CacheMount {
    /// In the state directory.
    Kept(CacheDir),
    /// The client's.
    Lent {
        path: PathBuf,
        /// Holds the lock.
        _fd: OwnedFd,
        fresh: bool,
    },
}

impl CacheMount {
    /// Takes the directory, waiting for its other users.
    pub(crate) async fn take(
        worker: &BuildWorker,
        id: &str,
        sharing: CacheSharing,
        owner: CacheOwner,
    ) -> Result<CacheMount, Failure> {
        let mut pause = FIRST_PAUSE;
        loop {
            let taken = match worker.cache_mounts.get(id) {
                Some(path) => {
                    let path = path.clone();
                    blocking(move || lend(path, sharing)).await?
                }
                None => {
                    let (store, id) = (worker.store.clone(), id.to_owned());
                    blocking(move || store.try_cache_dir(&id, sharing, owner))
                        .await?
                        .map(CacheMount::Kept)
                }
            };
            match taken {
                Some(dir) => return Ok(dir),
                None => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        match self {
            CacheMount::Kept(dir) => dir.path(),
            CacheMount::Lent { path, .. } => path.clone(),
        }
    }

    /// It has no content yet.
    pub(crate) fn is_fresh(&self) -> bool {
        match self {
            CacheMount::Kept(dir) => dir.is_fresh(),
            CacheMount::Lent { fresh, .. } => *fresh,
        }
    }

    /// It has got its first content.
    pub(crate) fn mark_ready(&mut self) -> Result<(), Failure> {
        match self {
            CacheMount::Kept(dir) => Ok(dir.mark_ready()?),
            CacheMount::Lent { fresh, .. } => {
                *fresh = false;
                Ok(())
            }
        }
    }
}

/// `None`: others have it.
fn lend(path: PathBuf, sharing: CacheSharing) -> Result<Option<CacheMount>, Failure> {
    let failed = |error: &dyn std::error::Error| {
        let message = format!("cannot use the directory {} as a cache mount", path.display());
        Failure::invalid(message).cause(error)
    };
    let fd = open(&path).map_err(|error| failed(&error))?;
    let operation = match sharing {
        CacheSharing::Shared => FlockOperation::NonBlockingLockShared,
        // There is one directory, so that everybody has one of their own only in turn.
        CacheSharing::Private | CacheSharing::Locked => FlockOperation::NonBlockingLockExclusive,
    };
    match rustix::fs::flock(&fd, operation) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
        Err(errno) => return Err(failed(&errno)),
    }
    let fresh = std::fs::read_dir(&path).map_err(|error| failed(&error))?.next().is_none();
    Ok(Some(CacheMount::Lent { path, _fd: fd, fresh }))
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Fills a directory that is new here from a cache elsewhere that has it. One that cannot be had
/// leaves the directory empty.
pub(crate) async fn restore(
    worker: &BuildWorker,
    id: &str,
    dir: &mut CacheMount,
) -> Result<(), Failure> {
    // Held until it is full: `shared` users come at the same time.
    let mut restored = worker.restored.lock().await;
    if !dir.is_fresh() {
        return Ok(());
    }
    match restored.get(id) {
        None => drop(restored.insert(id.to_owned(), false)),
        // Another step has done it since this one looked.
        Some(true) => return dir.mark_ready(),
        Some(false) => return Ok(()),
    }
    let Some((blob, diff_id, place)) = worker.imports.find_mount(mount_key(id)).await else {
        return Ok(());
    };
    let fetched = worker.imports.fetch(&place, std::slice::from_ref(&blob)).await;
    match fetched.into_iter().next() {
        // It has been said why.
        Some(Err(failure)) if failure.kind == FailureKind::Gone => return Ok(()),
        Some(Err(failure)) => return Err(failure),
        _ => {}
    }
    let path = dir.path();
    let step = worker.steps.internal(&format!("restore the cache mount {id}"));
    match unpack(worker, path.clone(), blob.clone(), diff_id).await {
        Ok(()) => {
            dir.mark_ready()?;
            restored.insert(id.to_owned(), true);
            step.done();
        }
        Err(failure) if failure.kind == FailureKind::Cancelled => return Err(failure),
        Err(failure) => {
            worker.imports.refuse(&place, &blob, &failure);
            step.in_vain(&failure);
            blocking(move || empty(&path)).await?;
        }
    }
    Ok(())
}

async fn unpack(
    worker: &BuildWorker,
    path: PathBuf,
    blob: BlobRef,
    diff_id: DiffId,
) -> Result<(), Failure> {
    let store = worker.store.clone();
    let _slot = worker.io_slots.acquire().await.expect("the semaphore is never closed");
    let (_cancel, work) = CancelOnDrop::new();
    blocking(move || -> Result<(), Failure> {
        let gone = || Failure::new(FailureKind::Gone, format!("the blob {} is gone", blob.digest));
        let input = store.open_blob(&blob.digest)?.ok_or_else(gone)?;
        let failed = |errno: Errno| {
            Failure::internal(format!("cannot fill the directory {}", path.display())).cause(&errno)
        };
        let fd = open(&path).map_err(failed)?;
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        let mut options = ApplyOptions::new(overlay_kind(store.kind()));
        options.media_type = Some(&blob.media_type);
        options.diff_id = Some(diff_id);
        let input = Stoppable { inner: &input.file, cancel: work.cancel };
        apply(input, fd.as_fd(), &options, &mut no_parents)?;
        // The mount's own, whatever the archive says of its root.
        let (uid, gid) =
            (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(&fd, Some(uid), Some(gid))
            .and_then(|()| rustix::fs::fchmod(&fd, Mode::from_raw_mode(stat.st_mode)))
            .map_err(failed)
    })
    .await
}

/// Removes what is in a directory.
fn empty(path: &Path) -> Result<(), Failure> {
    let remove = || -> std::io::Result<()> {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => std::fs::remove_dir_all(entry.path())?,
                false => std::fs::remove_file(entry.path())?,
            }
        }
        Ok(())
    };
    remove().map_err(|error| {
        Failure::internal(format!("cannot empty the directory {}", path.display())).cause(&error)
    })
}

/// The names of the directories that the cache mounts of an id have: several, where they want several
/// owners or begin with other files (`cache_names` in `exec.rs`).
pub(crate) async fn names(worker: &BuildWorker, id: &str) -> Result<Vec<String>, Failure> {
    if worker.cache_mounts.contains_key(id) {
        return Ok(vec![id.to_owned()]);
    }
    let (store, id) = (worker.store.clone(), id.to_owned());
    let all = blocking(move || store.cache_dirs()).await?;
    let of_id = |name: &String| match name.strip_prefix(&*id) {
        Some(rest) => rest.is_empty() || rest.starts_with(" ("),
        None => false,
    };
    Ok(all.into_iter().filter(of_id).collect())
}

/// A cache mount as a blob of the store, and what keeps it there.
pub(crate) async fn pack(
    worker: &BuildWorker,
    id: &str,
    options: &CompressOptions,
) -> Result<(BlobRef, DiffId, Lease), Failure> {
    // It is there, so it keeps its owner.
    let dir = CacheMount::take(worker, id, CacheSharing::Locked, CacheOwner::default()).await?;
    let (store, path, options) = (worker.store.clone(), dir.path(), *options);
    let _slot = worker.io_slots.acquire().await.expect("the semaphore is never closed");
    let (_cancel, work) = CancelOnDrop::new();
    blocking(move || -> Result<_, Failure> {
        // Nobody changes it meanwhile.
        let _dir = dir;
        let fd = open(&path).map(File::from).map_err(|errno| {
            Failure::internal(format!("cannot open the directory {}", path.display())).cause(&errno)
        })?;
        let ingest = store.ingest(LAYER_LIMIT)?.hashed_by_caller();
        let out = Stoppable { inner: ingest, cancel: work.cancel };
        let mut builder = LayerBuilder::new(out, &options)?;
        write_upper(&mut builder, fd.as_fd(), &WriteOptions::new(overlay_kind(store.kind())))?;
        let (out, made) = builder.finish()?;
        let held = out.inner.commit(Some(&made.digest), Some(made.size))?;
        let media_type = made.compression.oci_layer().to_owned();
        let blob = BlobRef { media_type, digest: made.digest, size: made.size };
        Ok((blob, made.diff_id, held.into_parts().1))
    })
    .await
}
