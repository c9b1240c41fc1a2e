//! Directories of cache mounts, shared between steps, and of kept git repositories.
//!
//! ```text
//! caches/<sha256 of the id>/id          the id, for people
//! caches/<sha256 of the id>/<n>.lock    flock: shared for `shared`, exclusive otherwise
//! caches/<sha256 of the id>/<n>/        the directory; 0, and further ones for `private`
//! caches/<sha256 of the id>/<n>.ready   the directory has got its first content
//! caches/git-<sha256 of the URL>/…      the same for a repository: no id of a mount leads there
//! ```
//!
//! The locks are held per open file, so they work between processes and within one alike, and a
//! killed process gives them back. A prune looks at them while it excludes everybody who could
//! take one.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use wbuild_graph::Digest;

use crate::error::{Error, Result};
use crate::files::{Folder, touch};
use crate::store::Store;
use crate::sync::read;

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// Begins the folder names of git repositories.
pub(crate) const REPOSITORY: &str = "git-";
/// So many steps may use one `private` cache at once; far above what one machine runs.
const MAX_PRIVATE: u32 = 1024;

/// Who may use a cache directory at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CacheSharing {
    /// Everybody at once.
    Shared,
    /// Everybody, each a directory that nobody else has at that time.
    Private,
    /// One after the other.
    Locked,
}

/// Owner and mode of a cache directory when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheOwner {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Default for CacheOwner {
    fn default() -> Self {
        CacheOwner { mode: 0o755, uid: 0, gid: 0 }
    }
}

/// A cache directory in use; given back on drop.
#[derive(Debug)]
pub struct CacheDir {
    _lock: File,
    folder: Folder,
    slot: u32,
    fd: OwnedFd,
    fresh: bool,
}

impl AsFd for CacheDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl CacheDir {
    /// Whether nobody has called [`CacheDir::mark_ready`] on it yet: it is empty, or its first
    /// filling was interrupted and must be done again. (With `Shared` two may see this at once.)
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Says that it has got its first content, from now on for every user.
    pub fn mark_ready(&mut self) -> Result<()> {
        self.folder.open_or_create(&format!("{}.ready", self.slot), OFlags::empty())?;
        self.fresh = false;
        Ok(())
    }

    /// Its path, for programs that take no descriptor.
    pub fn path(&self) -> std::path::PathBuf {
        self.folder.join(&self.slot.to_string())
    }
}

impl Store {
    /// Takes a cache directory if it is free; `None` if others hold it. Never `None` for
    /// [`CacheSharing::Private`].
    pub fn try_cache_dir(
        &self,
        id: &str,
        sharing: CacheSharing,
        owner: CacheOwner,
    ) -> Result<Option<CacheDir>> {
        self.take(&Digest::of(id.as_bytes()).hex(), id, sharing, owner)
    }

    /// The ids of all directories of cache mounts, sorted.
    pub fn cache_dirs(&self) -> Result<Vec<String>> {
        let caches = &self.inner.caches;
        let mut ids = Vec::new();
        for (name, _) in caches.list()? {
            if name.starts_with(REPOSITORY) || !caches.exists(&format!("{name}/0"))? {
                continue;
            }
            if let Some(id) = caches.read(&format!("{name}/id"), 1 << 20)?
                && let Ok(id) = String::from_utf8(id)
            {
                ids.push(id);
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// Takes the directory in which a git repository is kept if it is free; `None` if somebody else
    /// holds it. `url` names the repository, for people too: it holds no credential.
    pub fn try_repository(&self, url: &str) -> Result<Option<CacheDir>> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let owner = CacheOwner { mode: 0o700, uid, gid };
        let name = format!("{REPOSITORY}{}", Digest::of(url.as_bytes()).hex());
        self.take(&name, url, CacheSharing::Locked, owner)
    }

    fn take(
        &self,
        name: &str,
        id: &str,
        sharing: CacheSharing,
        owner: CacheOwner,
    ) -> Result<Option<CacheDir>> {
        let inner = &*self.inner;
        inner.check_writable()?;
        inner.account.touch(&inner.root, format!("caches/{name}"))?;
        let _gc = read(&inner.gc);
        let folder = inner.caches.ensure(name)?;
        if !folder.exists("id")? {
            crate::files::write_atomically(&inner.tmp, &folder, "id", id.as_bytes())?;
        }
        let slots = if sharing == CacheSharing::Private { MAX_PRIVATE } else { 1 };
        for slot in 0..slots {
            if let Some(lock) = try_slot(&folder, slot, sharing)? {
                return open_slot(folder, slot, lock, owner).map(Some);
            }
        }
        if sharing == CacheSharing::Private {
            return Err(Error::TooLarge {
                what: format!("the number of users of cache {id:?}"),
                limit: u64::from(MAX_PRIVATE),
                unit: "directories",
            });
        }
        Ok(None)
    }

    /// Takes a cache directory, waiting for its other users. `cancelled` is asked while waiting.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`].
    pub fn cache_dir(
        &self,
        id: &str,
        sharing: CacheSharing,
        owner: CacheOwner,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<CacheDir> {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(dir) = self.try_cache_dir(id, sharing, owner)? {
                return Ok(dir);
            }
            if cancelled() {
                return Err(Error::Cancelled { what: format!("cache {id:?}") });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

fn try_slot(folder: &Folder, slot: u32, sharing: CacheSharing) -> Result<Option<File>> {
    let name = format!("{slot}.lock");
    let operation = match sharing {
        CacheSharing::Shared => FlockOperation::NonBlockingLockShared,
        CacheSharing::Private | CacheSharing::Locked => FlockOperation::NonBlockingLockExclusive,
    };
    let file = folder.open_or_create(&name, OFlags::empty())?;
    match rustix::fs::flock(&file, operation) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
        Err(errno) => Err(folder.error("lock", &name, errno)),
    }
}

fn open_slot(folder: Folder, slot: u32, lock: File, owner: CacheOwner) -> Result<CacheDir> {
    let name = slot.to_string();
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&folder, name.as_str(), flags, Mode::empty())
    };
    let fd = match open() {
        Ok(fd) => fd,
        Err(Errno::NOENT) => make_slot(&folder, &name, owner)?,
        Err(errno) => return Err(folder.error("open", &name, errno)),
    };
    let fresh = !folder.exists(&format!("{slot}.ready"))?;
    touch(&lock);
    Ok(CacheDir { _lock: lock, folder, slot, fd, fresh })
}

fn make_slot(folder: &Folder, name: &str, owner: CacheOwner) -> Result<OwnedFd> {
    // Under another name until its owner is right: `shared` users do not wait for each other.
    let temp = crate::files::TempName::new(folder, "new")?;
    folder.make_dir(temp.name(), Mode::RWXU)?;
    let made = folder.sub(temp.name())?;
    let failed = |errno| folder.error("set the owner and mode of", name, errno);
    let stat = rustix::fs::fstat(&made).map_err(failed)?;
    if (stat.st_uid, stat.st_gid) != (owner.uid, owner.gid) {
        rustix::fs::fchown(&made, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
            .map_err(failed)?;
    }
    rustix::fs::fchmod(&made, Mode::from_raw_mode(owner.mode & 0o7777)).map_err(failed)?;
    match rustix::fs::renameat_with(
        folder,
        temp.name(),
        folder,
        name,
        rustix::fs::RenameFlags::NOREPLACE,
    ) {
        Ok(()) => temp.keep(),
        // Another user was quicker: theirs it is.
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(folder.error("create", name, errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
        .map_err(|errno| folder.error("open", name, errno))
}

/// Whether some step uses one of the directories of a cache now.
pub(crate) fn in_use(folder: &Folder) -> Result<bool> {
    for (name, _) in folder.list()? {
        if !name.ends_with(".lock") {
            continue;
        }
        let Some(file) = folder.try_open(&name)? else { continue };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(true),
            Err(errno) => return Err(folder.error("lock", &name, errno)),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;
    use crate::testing::{open, write_file};

    fn owner() -> CacheOwner {
        CacheOwner {
            mode: 0o1770,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    #[test]
    fn sharing_decides_who_gets_which_directory() {
        use CacheSharing::{Locked, Private, Shared};
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let take = |sharing| store.try_cache_dir("../go build", sharing, owner()).unwrap();
        let first = take(Shared).unwrap();
        let second = take(Shared).unwrap();
        assert_eq!(first.path(), second.path());
        assert!(first.path().starts_with(dir.path().join("caches")));
        assert!(take(Locked).is_none());
        let private = take(Private).unwrap();
        let another = take(Private).unwrap();
        assert_ne!(private.path(), first.path());
        assert_ne!(private.path(), another.path());
        drop((first, second));
        let locked = take(Locked).unwrap();
        assert!(take(Locked).is_none() && take(Shared).is_none());
        assert_eq!(rustix::fs::fstat(&locked).unwrap().st_mode & 0o7777, 0o1770);
    }

    #[test]
    fn no_cache_mount_gets_at_a_repository() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let url = "https://example.org/a.git";
        let repository = store.try_repository(url).unwrap().unwrap();
        assert!(store.try_repository(url).unwrap().is_none());
        assert_eq!(rustix::fs::fstat(&repository).unwrap().st_mode & 0o7777, 0o700);
        for id in [url, &format!("git-{}", Digest::of(url.as_bytes()).hex())] {
            let mount = store.try_cache_dir(id, CacheSharing::Locked, owner()).unwrap().unwrap();
            assert_ne!(mount.path(), repository.path());
        }
        let ids = [format!("git-{}", Digest::of(url.as_bytes()).hex()), url.to_owned()];
        assert_eq!(store.cache_dirs().unwrap(), ids);
        let kinds: Vec<_> = store.du().unwrap().into_iter().map(|e| e.description).collect();
        assert_eq!(kinds.iter().filter(|kind| *kind == "git repository").count(), 1);
    }

    #[test]
    fn content_stays_and_an_interrupted_first_filling_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let take = || store.try_cache_dir("id", CacheSharing::Locked, owner()).unwrap().unwrap();
        let cache = take();
        assert!(cache.is_fresh());
        write_file(&cache, "half", b"x");
        drop(cache);
        let mut cache = take();
        assert!(cache.is_fresh() && cache.path().join("half").exists());
        cache.mark_ready().unwrap();
        drop(cache);
        assert!(!take().is_fresh());
    }

    #[test]
    fn waiting_ends_with_the_holder_or_by_cancellation() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let wait = |cancelled: &dyn Fn() -> bool| {
            store.cache_dir("id", CacheSharing::Locked, owner(), cancelled)
        };
        let held = wait(&|| false).unwrap();
        let asked = AtomicU32::new(0);
        let error = wait(&|| asked.fetch_add(1, Ordering::Relaxed) == 2).unwrap_err();
        assert!(matches!(error, Error::Cancelled { .. }));
        let released = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let dir = wait(&|| {
                    asked.fetch_add(1, Ordering::Relaxed);
                    false
                });
                (dir.is_ok(), released.load(Ordering::SeqCst))
            });
            while asked.load(Ordering::Relaxed) < 5 {
                std::thread::yield_now();
            }
            released.store(true, Ordering::SeqCst);
            drop(held);
            assert_eq!(waiter.join().unwrap(), (true, true));
        });
    }
}
