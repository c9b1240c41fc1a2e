//! Opening, closing and sealing a state directory.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use wbuild_graph::CacheKey;

use crate::account::Account;
use crate::boot::{BootId, Seals, Stamp, StateKind};
use crate::error::{Error, Result};
use crate::files::{Folder, PRIVATE_DIR};
use crate::kv::{KvStore, SledStore};
use crate::lease::{Lease, LeaseItem, LeaseTable};
use crate::lock::{LockHolder, LockWait, StateLock};
use crate::snapshot::SnapshotCache;
use crate::sync::{lock, read, write};

/// The action of errors after which the page cache cannot be trusted any more.
pub(crate) const SYNC: &str = "sync";
const FORMAT_FILE: &str = "FORMAT";
const FORMAT_VERSION: &str = "wbuild-store 1";

/// How to open a state directory.
#[derive(Debug)]
pub struct OpenOptions {
    /// Stands in for this machine's boot id (tests that simulate a power cut). 1 to 64 letters,
    /// digits or `-`.
    pub boot_id: Option<String>,
    /// How this process introduces itself to those who wait for it: its command line.
    pub owner: String,
    /// What to do when another process holds the directory.
    pub wait: LockWait,
    /// Take no lock, write nothing: for `du` and other questions during a build.
    pub read_only: bool,
    /// Whether [`Store::get_record`] answers. Without it only [`Store::record`] finds records, by
    /// a key that something else (a cache backend) vouches for, and only under its first key.
    pub record_aliases: bool,
    /// Overlay attributes of a new directory; found out when `None`. An existing directory keeps
    /// its own.
    pub kind: Option<StateKind>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            boot_id: None,
            owner: String::new(),
            wait: LockWait::Timeout(Duration::from_secs(60)),
            read_only: false,
            record_aliases: true,
            kind: None,
        }
    }
}

/// An open state directory. Cheap to clone; closes with its last clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// What a seal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// Nothing had been written since the last seal; nothing was synced.
    Nothing,
    /// Everything written before the call is durable now.
    Synced,
}

/// A replaced record whose earlier version is kept until the replacement is durable.
#[derive(Debug)]
pub(crate) struct Replaced {
    pub(crate) key: CacheKey,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: Folder,
    pub(crate) tmp: Folder,
    pub(crate) blobs: Folder,
    pub(crate) pending_root: Folder,
    pub(crate) snapshots: Folder,
    pub(crate) records: Folder,
    pub(crate) documents: Folder,
    pub(crate) caches: Folder,
    pub(crate) kind: StateKind,
    pub(crate) boot: BootId,
    pub(crate) read_only: bool,
    pub(crate) record_aliases: bool,
    /// Number of the group that records are stamped with. Writers hold it shared from taking the
    /// number until their file has its name; a seal takes it exclusively, so a group is complete.
    pub(crate) seq: RwLock<u64>,
    pub(crate) seals: RwLock<Seals>,
    /// Only one seal at a time, and no record is replaced twice at once.
    sealing: Mutex<()>,
    pub(crate) record_writes: Mutex<()>,
    /// Something was written since the last seal.
    dirty: AtomicBool,
    sync_failed: AtomicBool,
    pub(crate) replaced: Mutex<Vec<Replaced>>,
    pub(crate) leases: Arc<LeaseTable>,
    pub(crate) account: Account,
    /// Shared by everything that turns names into leases, exclusive while prune decides.
    pub(crate) gc: RwLock<()>,
    pub(crate) known: SnapshotCache,
    pub(crate) adopted: OnceLock<()>,
    kv: OnceLock<Arc<SledStore>>,
    /// Last field: the lock is given back after everything else is closed.
    _lock: Option<StateLock>,
}

impl Store {
    /// Opens the state directory, making it if it is missing, and takes its lock. What a killed
    /// process left unfinished is removed on the way.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`], [`Error::LockedByAncestor`], [`Error::Cancelled`] for the lock,
    /// [`Error::Format`] for a directory of another version or kind, [`Error::Absent`] when
    /// `read_only` meets no state.
    pub fn open(dir: impl AsRef<Path>, options: OpenOptions) -> Result<Store> {
        let dir = dir.as_ref();
        let dir = std::path::absolute(dir).map_err(|e| Error::io("resolve", dir, e))?;
        let boot = match &options.boot_id {
            Some(id) => BootId::new(id)?,
            None => BootId::new(&crate::boot::boot_id()?)?,
        };
        if options.read_only {
            return Self::open_read_only(&dir, boot, &options);
        }
        std::fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
        let root = Folder::open(&dir)?;
        // An unrelated directory must not get a lock file before it is refused.
        check_format(&root)?;
        let state_lock = StateLock::acquire(&root, &options.owner, options.wait)?;
        let (kind, is_new) = match check_format(&root)? {
            Some(kind) => (kind, false),
            None => {
                // An attempt that was cut off before this may have left more than the lock.
                let is_new = root.list()?.iter().all(|(name, _)| name == "lock");
                (create(&root, options.kind)?, is_new)
            }
        };
        let probe = root.open_or_create("lock", rustix::fs::OFlags::empty())?;
        if kind == StateKind::Trusted && !kind.permitted(&probe) {
            return Err(Error::Format {
                path: dir,
                reason: "it was made by root and this process may not set trusted attributes"
                    .into(),
            });
        }
        let tmp = root.ensure("tmp")?;
        crate::partial::sweep(&tmp)?;
        let seals = Seals::load(&root, Some(&tmp))?;
        let store =
            Self::assemble(root, tmp, kind, boot, seals, Some(state_lock), options.record_aliases)?;
        if is_new {
            store.inner.account.is_new();
        }
        Ok(store)
    }

    fn open_read_only(dir: &Path, boot: BootId, options: &OpenOptions) -> Result<Store> {
        if !dir.exists() {
            return Err(Error::Absent { path: dir.to_path_buf() });
        }
        let root = Folder::open(dir)?;
        let Some(kind) = check_format(&root)? else {
            return Err(Error::Absent { path: dir.to_path_buf() });
        };
        let seals = Seals::load(&root, None)?;
        let tmp = root.sub("tmp")?;
        Self::assemble(root, tmp, kind, boot, seals, None, options.record_aliases)
    }

    fn assemble(
        root: Folder,
        tmp: Folder,
        kind: StateKind,
        boot: BootId,
        seals: Seals,
        state_lock: Option<StateLock>,
        record_aliases: bool,
    ) -> Result<Store> {
        let blobs = root.sub("blobs")?;
        Ok(Store {
            inner: Arc::new(Inner {
                tmp,
                pending_root: blobs.sub("pending")?,
                blobs: blobs.sub("sha256")?,
                snapshots: root.sub("snapshots")?,
                records: root.sub("records")?,
                documents: root.sub("contexts")?,
                caches: root.sub("caches")?,
                root,
                kind,
                // Above all that is sealed, or a new record would count as sealed.
                seq: RwLock::new(seals.sealed_up_to(&boot) + 1),
                boot,
                read_only: state_lock.is_none(),
                record_aliases,
                seals: RwLock::new(seals),
                sealing: Mutex::new(()),
                record_writes: Mutex::new(()),
                dirty: AtomicBool::new(false),
                sync_failed: AtomicBool::new(false),
                replaced: Mutex::new(Vec::new()),
                leases: Arc::default(),
                account: Account::default(),
                gc: RwLock::new(()),
                known: SnapshotCache::default(),
                adopted: OnceLock::new(),
                kv: OnceLock::new(),
                _lock: state_lock,
            }),
        })
    }

    /// The state directory.
    pub fn path(&self) -> &Path {
        self.inner.root.path()
    }

    /// The kind of overlay attributes its layers carry.
    pub fn kind(&self) -> StateKind {
        self.inner.kind
    }

    /// Whether it was opened read-only.
    pub fn is_read_only(&self) -> bool {
        self.inner.read_only
    }

    /// A folder for temporary files and bundles of this process; emptied at every open, but for begun
    /// downloads. The
    /// caller makes a name of its own in it and removes it.
    pub fn tmp_path(&self) -> PathBuf {
        self.inner.tmp.path().to_path_buf()
    }

    /// Who holds the state directory at `dir` now, if anybody does.
    pub fn holder(dir: impl AsRef<Path>) -> Result<Option<LockHolder>> {
        let dir = dir.as_ref();
        if !dir.exists() {
            return Ok(None);
        }
        crate::lock::current_holder(&Folder::open(dir)?)
    }

    /// Keeps `items` from eviction.
    pub fn lease(&self, items: Vec<LeaseItem>) -> Lease {
        let _gc = read(&self.inner.gc);
        self.inner.leases.lease(items)
    }

    /// The key-value index behind the kv capability. It is opened by its first use, not here.
    pub fn kv(&self) -> Result<Arc<dyn KvStore>> {
        self.inner.check_writable()?;
        self.inner.account.touch(&self.inner.root, "index".into())?;
        Ok(Arc::clone(self.inner.kv_store()) as Arc<dyn KvStore>)
    }

    /// Makes everything written so far durable; afterwards the caller may acknowledge it. One
    /// `syncfs` and one `fdatasync` however many records there are, none at all when nothing was
    /// written.
    ///
    /// # Errors
    ///
    /// After a sync that failed nothing of this process can become durable any more
    /// ([`Error::SyncFailed`]): the kernel reports lost pages once and then forgets them, so a
    /// later sync that succeeds proves nothing. After other errors (a full disk) the next seal
    /// covers what this one did not.
    pub fn seal(&self) -> Result<Sealed> {
        let inner = &*self.inner;
        if inner.read_only {
            return Ok(Sealed::Nothing);
        }
        let _one = lock(&inner.sealing);
        let kv_dirty = inner.kv.get().is_some_and(|kv| kv.is_dirty());
        if !inner.dirty.load(Ordering::Acquire) && !kv_dirty {
            return Ok(Sealed::Nothing);
        }
        if inner.sync_failed.load(Ordering::Acquire) {
            return Err(Error::SyncFailed { path: inner.root.path().to_path_buf() });
        }
        let result = inner.seal_group(kv_dirty);
        if let Err(error) = &result {
            // What is not sealed now is covered by the next seal, if there can be one.
            inner.mark_dirty();
            if matches!(error, Error::Io { action: SYNC, .. }) {
                inner.sync_failed.store(true, Ordering::Release);
            }
        }
        result.map(|()| Sealed::Synced)
    }
}

impl Inner {
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::ReadOnly { path: self.root.path().to_path_buf() });
        }
        Ok(())
    }

    pub(crate) fn kv_store(&self) -> &Arc<SledStore> {
        self.kv.get_or_init(|| Arc::new(SledStore::new(self.root.join("index"))))
    }

    pub(crate) fn kv_if_open(&self) -> Option<&Arc<SledStore>> {
        self.kv.get()
    }

    pub(crate) fn mark_dirty(&self) {
        self.dirty.store(true, Ordering::Release);
    }

    pub(crate) fn is_valid(&self, stamp: &Stamp) -> bool {
        stamp.boot == self.boot || self.is_sealed(stamp)
    }

    pub(crate) fn is_sealed(&self, stamp: &Stamp) -> bool {
        read(&self.seals).is_sealed(stamp)
    }

    fn seal_group(&self, kv_dirty: bool) -> Result<()> {
        let (group, replaced, pending) = {
            let mut seq = write(&self.seq);
            let group = *seq;
            *seq += 1;
            // Cleared before the sync: what is written during it belongs to the next group.
            self.dirty.store(false, Ordering::Release);
            (group, std::mem::take(&mut *lock(&self.replaced)), self.pending_blobs())
        };
        let sealed = pending.and_then(|pending| self.sync_group(group, &pending, kv_dirty));
        if let Err(error) = sealed {
            lock(&self.replaced).extend(replaced);
            return Err(error);
        }
        failpoint!("seal::sealed", self.root.path());
        for Replaced { key } in &replaced {
            self.forget_previous(key)?;
        }
        Ok(())
    }

    fn sync_group(&self, group: u64, pending: &[String], kv_dirty: bool) -> Result<()> {
        if kv_dirty && let Some(kv) = self.kv.get() {
            kv.flush()?;
        }
        failpoint!("seal::sync", self.root.path());
        rustix::fs::syncfs(&self.root).map_err(|e| Error::io(SYNC, self.root.path(), e))?;
        failpoint!("seal::synced", self.root.path());
        self.promote_blobs(pending)?;
        write(&self.seals).append(&self.root, &self.boot, group)
    }
}

/// Reads `FORMAT`; `None` for an empty (new) directory.
fn check_format(root: &Folder) -> Result<Option<StateKind>> {
    let refuse = |reason: String| Error::Format { path: root.path().to_path_buf(), reason };
    let Some(bytes) = root.read(FORMAT_FILE, 4096)? else {
        // The lock file and a half-made directory are ours; anything else is somebody's data.
        const OWN: [&str; 11] = [
            "lock",
            "tmp",
            "blobs",
            "snapshots",
            "records",
            "index",
            "contexts",
            "caches",
            "empty",
            "usage",
            "damaged",
        ];
        let foreign = root.list()?.into_iter().find(|(name, _)| !OWN.contains(&name.as_str()));
        return match foreign {
            None => Ok(None),
            Some((name, _)) => Err(refuse(format!(
                "it has no file {FORMAT_FILE} but contains {name:?}, so it is something else"
            ))),
        };
    };
    let text = String::from_utf8(bytes).map_err(|_| refuse(format!("{FORMAT_FILE} is no text")))?;
    let mut lines = text.lines();
    match lines.next() {
        Some(FORMAT_VERSION) => {}
        other => {
            return Err(refuse(format!(
                "its format is {:?}, this program knows {FORMAT_VERSION:?}",
                other.unwrap_or_default()
            )));
        }
    }
    let mut kind = None;
    for line in lines {
        match line.split_once(' ') {
            Some(("overlay", value)) => kind = StateKind::parse(value),
            // A feature this version does not know may change the meaning of everything.
            _ => return Err(refuse(format!("it uses {line:?}, which this program does not know"))),
        }
    }
    kind.map(Some).ok_or_else(|| refuse("its kind of overlay attributes is not known".into()))
}

fn create(root: &Folder, wanted: Option<StateKind>) -> Result<StateKind> {
    use std::io::Write;

    for name in ["tmp", "snapshots", "records", "contexts", "caches", "index"] {
        root.make_dir(name, PRIVATE_DIR)?;
    }
    // The lower layer where there is none: its mode becomes the mode of `/`.
    root.make_dir("empty", rustix::fs::Mode::from_raw_mode(0o755))?;
    let blobs = root.ensure("blobs")?;
    blobs.make_dir("sha256", PRIVATE_DIR)?;
    blobs.make_dir("pending", PRIVATE_DIR)?;
    let tmp = root.sub("tmp")?;
    let mut file = tmp.open_or_create(FORMAT_FILE, rustix::fs::OFlags::TRUNC)?;
    let kind = wanted.unwrap_or(if StateKind::Trusted.usable(&file) {
        StateKind::Trusted
    } else {
        StateKind::User
    });
    let text = format!("{FORMAT_VERSION}\noverlay {}\n", kind.as_str());
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|e| Error::io("write", tmp.join(FORMAT_FILE), e))?;
    // Last: a directory without it is made again from the start.
    tmp.rename(FORMAT_FILE, root, FORMAT_FILE)?;
    root.sync()?;
    Ok(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{open, options};

    #[test]
    fn a_new_directory_is_made_and_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/b");
        let kind = open(&state).kind();
        let text = std::fs::read_to_string(state.join("FORMAT")).unwrap();
        assert_eq!(text, format!("wbuild-store 1\noverlay {}\n", kind.as_str()));
        assert_eq!(open(&state).kind(), kind);
        assert_eq!(Store::holder(&state).unwrap(), None);
    }

    #[test]
    fn foreign_newer_and_unknown_directories_are_refused_unchanged() {
        for (file, text, reason) in [
            ("notes.txt", "mine", "it is something else"),
            ("FORMAT", "wbuild-store 2\noverlay user\n", "this program knows"),
            ("FORMAT", "wbuild-store 1\noverlay user\nsharding 4\n", "does not know"),
            ("FORMAT", "wbuild-store 1\noverlay other\n", "not known"),
            ("FORMAT", "wbuild-store 1\n", "not known"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(file), text).unwrap();
            let error = Store::open(dir.path(), options()).unwrap_err();
            assert!(
                matches!(&error, Error::Format { reason: r, .. } if r.contains(reason)),
                "{error}"
            );
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "{text:?}");
        }
    }

    #[test]
    fn leftovers_of_a_killed_process_are_swept_at_open() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        std::fs::create_dir_all(dir.path().join("tmp/snap-1/fs/usr")).unwrap();
        std::fs::write(dir.path().join("tmp/ingest-1"), b"half").unwrap();
        let store = open(dir.path());
        assert_eq!(std::fs::read_dir(store.tmp_path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_half_made_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("blobs")).unwrap();
        std::fs::write(dir.path().join("lock"), b"pid 1\n").unwrap();
        open(dir.path()).put_blob(b"x").unwrap();
    }

    #[test]
    fn reading_needs_no_lock_and_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let absent =
            Store::open(dir.path().join("absent"), OpenOptions { read_only: true, ..options() });
        assert!(matches!(absent, Err(Error::Absent { .. })));
        let writer = open(dir.path());
        let digest = writer.put_blob(b"x").unwrap();
        let reader = Store::open(dir.path(), OpenOptions { read_only: true, ..options() }).unwrap();
        assert_eq!(reader.read_blob(&digest, 10).unwrap().unwrap(), b"x");
        assert!(matches!(reader.put_blob(b"y"), Err(Error::ReadOnly { .. })));
        assert!(matches!(reader.kv().err(), Some(Error::ReadOnly { .. })));
        assert_eq!(reader.seal().unwrap(), Sealed::Nothing);
    }

    #[test]
    fn a_seal_syncs_only_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        assert_eq!(store.seal().unwrap(), Sealed::Nothing);
        store.put_blob(b"x").unwrap();
        assert_eq!(store.seal().unwrap(), Sealed::Synced);
        store.put_blob(b"x").unwrap();
        assert_eq!(store.seal().unwrap(), Sealed::Nothing, "the blob was there already");
        assert!(!dir.path().join("index/sled").exists(), "the index was never needed");
    }
}
