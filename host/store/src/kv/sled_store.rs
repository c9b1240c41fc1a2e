//! Buckets in sled 0.34.
//!
//! What sled leaves open is closed here:
//!
//! - Its `flush` does not make file sizes durable on Linux (it uses `sync_file_range`): every
//!   commit also syncs the file `db`.
//! - A damaged log is cut at the damage, silently, and values are not checked after that: every
//!   value carries a checksum over itself and its key, and every bucket a stamp with the number of
//!   its pairs, the sum of their checksums and a running epoch, renewed in the same atomic batch.
//!   A bucket is checked against its stamp when it is first used, so that a *missing* pair is
//!   noticed, too.
//! - A log cut at a damaged place is a consistent *earlier* state, stamps and all: every commit
//!   writes the epochs it covers into a file of their own, and a bucket that is behind it has lost
//!   something.
//! - It may panic on open or use: panics are caught.
//!
//! Whatever is wrong, the answer is the same: the database is put aside as `sled.bad-<n>` (two are
//! kept), and an empty one with a new generation takes its place. Only a failing disk or a full one
//! is an error; a good database must not be thrown away for that.
//!
//! ```text
//! index/epochs                      checksum, generation, and the committed epoch per bucket
//! index/sled/                       tree "" (default): generation; tree "b/<name>" per bucket
//! key   "k" key                     value  1 checksum:8 bytes value
//! key   "s"                         value  1 checksum:8 bytes count:u64 sum:u64 epoch:u64
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use sled::{Batch, Db, Tree};
use wbuild_graph::Digest;

use super::{AnswerSize, Change, Kv, KvStore, Pair, check_changes, check_keys, check_name, gather};
use crate::error::{Error, Result};
use crate::files::random_name;
use crate::sync::lock;

const EPOCHS: &str = "epochs";
const GENERATION: &[u8] = b"generation";
const STAMP_KEY: &[u8] = b"s";
const VERSION: u8 = 1;
const CHECK: usize = 8;
const KEPT_BAD: usize = 2;
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// The index of a large state is some tens of megabytes; sled's default of 1 GiB would be a leak.
const PAGE_CACHE: u64 = 64 << 20;

/// The index. Opened by its first use.
pub struct SledStore {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    state: Mutex<Option<Open>>,
    dirty: AtomicBool,
}

struct Open {
    db: Db,
    generation: String,
    /// Epochs of the last commit, by escaped name of the bucket.
    committed: BTreeMap<String, u64>,
    buckets: HashMap<String, Bucket>,
}

struct Bucket {
    tree: Tree,
    stamp: Stamp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stamp {
    count: u64,
    sum: u64,
    /// Counts the batches; makes every stamp differ from the one before.
    epoch: u64,
}

/// Why an operation on an open database did not work.
enum Trouble {
    /// The database is not what it should be: put it aside.
    Damaged(String),
    /// The disk failed or is full.
    Io(io::Error),
}

impl From<sled::Error> for Trouble {
    fn from(error: sled::Error) -> Self {
        match error {
            // Sled reports a file that is shorter than its log says in this way.
            sled::Error::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Trouble::Damaged(e.to_string())
            }
            sled::Error::Io(e) => Trouble::Io(e),
            other => Trouble::Damaged(other.to_string()),
        }
    }
}

fn guarded<T>(work: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    // The database is given up after a panic, so its state does not matter any more.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Trouble::Damaged(format!("panic: {}", text.unwrap_or("unknown"))))
    })
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECK] {
    let mut hasher = Sha256::new();
    hasher.update((key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut out = [0; CHECK];
    out.copy_from_slice(&hasher.finalize()[..CHECK]);
    out
}

/// A checked value and its checksum.
fn unwrap_value<'a>(key: &[u8], stored: &'a [u8]) -> Result<(&'a [u8], u64), Trouble> {
    let damaged = || Trouble::Damaged("a value does not have its checksum".into());
    let (version, rest) = stored.split_first().ok_or_else(damaged)?;
    let (check, value) = rest.split_first_chunk::<CHECK>().ok_or_else(damaged)?;
    if *version != VERSION || checksum(key, value) != *check {
        return Err(damaged());
    }
    Ok((value, u64::from_le_bytes(*check)))
}

fn wrap_value(key: &[u8], value: &[u8]) -> (Vec<u8>, u64) {
    let check = checksum(key, value);
    let mut out = Vec::with_capacity(1 + CHECK + value.len());
    out.push(VERSION);
    out.extend_from_slice(&check);
    out.extend_from_slice(value);
    (out, u64::from_le_bytes(check))
}

fn pair_key(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len());
    out.push(b'k');
    out.extend_from_slice(key);
    out
}

impl Stamp {
    fn encode(self) -> Vec<u8> {
        let mut value = Vec::with_capacity(24);
        for part in [self.count, self.sum, self.epoch] {
            value.extend_from_slice(&part.to_le_bytes());
        }
        wrap_value(STAMP_KEY, &value).0
    }

    fn decode(stored: &[u8]) -> Result<Stamp, Trouble> {
        let (value, _) = unwrap_value(STAMP_KEY, stored)?;
        let mut parts = value
            .chunks_exact(8)
            .map(|part| u64::from_le_bytes(part.try_into().expect("chunks of 8 bytes")));
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(count), Some(sum), Some(epoch), None) => Ok(Stamp { count, sum, epoch }),
            _ => Err(Trouble::Damaged("a stamp has another form".into())),
        }
    }
}

impl Bucket {
    /// Opens a bucket and compares all of it with its stamp, and that with the last commit.
    fn open(db: &Db, name: &str, committed: u64) -> Result<Bucket, Trouble> {
        let tree = db.open_tree(format!("b/{name}"))?;
        let mut found = Stamp::default();
        let mut stamp = None;
        for pair in &tree {
            let (key, stored) = pair?;
            match key.split_first() {
                Some((b's', [])) => stamp = Some(Stamp::decode(&stored)?),
                Some((b'k', key)) => {
                    let (_, check) = unwrap_value(key, &stored)?;
                    found.count += 1;
                    found.sum = found.sum.wrapping_add(check);
                }
                _ => return Err(Trouble::Damaged("a key has another form".into())),
            }
        }
        let stamp = stamp.unwrap_or_default();
        if (found.count, found.sum) != (stamp.count, stamp.sum) {
            return Err(Trouble::Damaged(format!(
                "bucket {name:?} has {} pairs of {}",
                found.count, stamp.count
            )));
        }
        if stamp.epoch < committed {
            return Err(Trouble::Damaged(format!(
                "bucket {name:?} is at epoch {}, but {committed} was committed",
                stamp.epoch
            )));
        }
        Ok(Bucket { tree, stamp })
    }

    fn get(&self, key: &[u8]) -> Result<Option<(Vec<u8>, u64)>, Trouble> {
        match self.tree.get(pair_key(key))? {
            None => Ok(None),
            Some(stored) => {
                unwrap_value(key, &stored).map(|(value, check)| Some((value.to_vec(), check)))
            }
        }
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), Trouble> {
        // The last change of a key counts, and the stamp must count each key once.
        let last: BTreeMap<&[u8], Option<&[u8]>> =
            changes.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        let mut batch = Batch::default();
        let mut stamp = Stamp { epoch: self.stamp.epoch + 1, ..self.stamp };
        for (key, value) in last {
            if let Some((_, check)) = self.get(key)? {
                stamp.count -= 1;
                stamp.sum = stamp.sum.wrapping_sub(check);
            }
            match value {
                Some(value) => {
                    let (stored, check) = wrap_value(key, value);
                    stamp.count += 1;
                    stamp.sum = stamp.sum.wrapping_add(check);
                    batch.insert(pair_key(key), stored);
                }
                None => batch.remove(pair_key(key)),
            }
        }
        batch.insert(STAMP_KEY, stamp.encode());
        self.tree.apply_batch(batch)?;
        self.stamp = stamp;
        Ok(())
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, Trouble> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(pair_key(after)),
            _ => Bound::Included(pair_key(prefix)),
        };
        let mut size = AnswerSize::new(limit);
        let mut out = Vec::new();
        for pair in self.tree.range::<Vec<u8>, _>((start, Bound::Unbounded)) {
            let (key, stored) = pair?;
            let Some((b'k', key)) = key.split_first() else { break };
            if !key.starts_with(prefix) {
                break;
            }
            let (value, _) = unwrap_value(key, &stored)?;
            if !size.take(key, value) {
                break;
            }
            out.push((key.to_vec(), value.to_vec()));
        }
        Ok(out)
    }

    fn clear(&mut self) -> Result<(), Trouble> {
        // In batches that keep the stamp right: sled's own `clear` would not.
        loop {
            let pairs = self.scan(b"", None, super::MAX_BATCH)?;
            if pairs.is_empty() {
                return Ok(());
            }
            let changes: Vec<Change> = pairs.into_iter().map(|(key, _)| (key, None)).collect();
            self.apply(&changes)?;
        }
    }
}

impl Open {
    fn bucket(&mut self, name: &str) -> Result<&mut Bucket, Trouble> {
        if !self.buckets.contains_key(name) {
            let committed = self.committed.get(&escape(name)).copied().unwrap_or(0);
            let bucket = Bucket::open(&self.db, name, committed)?;
            self.buckets.insert(name.to_owned(), bucket);
        }
        Ok(self.buckets.get_mut(name).expect("inserted above"))
    }
}

impl SledStore {
    /// An index in `folder` (a directory, made when needed). Nothing is opened yet.
    pub fn new(folder: PathBuf) -> Self {
        let state = Mutex::new(None);
        SledStore { shared: Arc::new(Shared { folder, state, dirty: AtomicBool::new(false) }) }
    }

    /// Whether something was applied since the last commit.
    pub(crate) fn is_dirty(&self) -> bool {
        self.shared.dirty.load(Ordering::Acquire)
    }

    /// Puts the database aside, whatever is in it: the next use begins an empty one.
    pub(crate) fn put_aside(&self, reason: &str) -> Result<()> {
        let mut state = lock(&self.shared.state);
        close(state.take());
        self.shared.put_aside(reason).map_err(|error| self.shared.error("put aside", error))
    }

    /// Hands everything to the kernel; the caller syncs the file system.
    pub(crate) fn flush(&self) -> Result<()> {
        self.shared.commit(false)
    }
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledStore").field("folder", &self.shared.folder).finish_non_exhaustive()
    }
}

impl Shared {
    fn path(&self) -> PathBuf {
        self.folder.join("sled")
    }

    fn error(&self, action: &'static str, source: io::Error) -> Error {
        Error::Index { action, path: self.path(), source }
    }

    /// Runs `work` on the open database. If the database turns out to be damaged, it is replaced
    /// and `work` runs once more on the empty one.
    fn with<T>(
        &self,
        action: &'static str,
        mut work: impl FnMut(&mut Open) -> Result<T, Trouble>,
    ) -> Result<T> {
        let mut state = lock(&self.state);
        // Found damaged, opened anew, found damaged again: then it is not the file.
        for _ in 0..3 {
            let trouble = match self.open(&mut state) {
                Err(trouble) => trouble,
                Ok(open) => match guarded(|| work(open)) {
                    Ok(value) => return Ok(value),
                    Err(trouble) => trouble,
                },
            };
            match trouble {
                Trouble::Io(error) => return Err(self.error(action, error)),
                Trouble::Damaged(reason) => {
                    close(state.take());
                    self.put_aside(&reason).map_err(|error| self.error("put aside", error))?;
                }
            }
        }
        Err(self.error(action, io::Error::other("a new index is damaged at once")))
    }

    fn open<'a>(&self, state: &'a mut Option<Open>) -> Result<&'a mut Open, Trouble> {
        if state.is_none() {
            let path = self.path();
            let epochs = std::fs::read(self.folder.join(EPOCHS)).unwrap_or_default();
            let mut tries = 0;
            let open = loop {
                match guarded(|| open_database(&path, &epochs)) {
                    // A database closed a moment ago keeps its lock until sled's own threads are
                    // done with it. Nobody else can have it: the state directory is locked.
                    Err(Trouble::Io(e))
                        if e.kind() == io::ErrorKind::Other && tries < LOCK_TRIES =>
                    {
                        tries += 1;
                        std::thread::sleep(LOCK_PAUSE);
                    }
                    other => break other?,
                }
            };
            *state = Some(open);
        }
        Ok(state.as_mut().expect("opened above"))
    }

    /// Renames the database away and forgets older ones.
    fn put_aside(&self, reason: &str) -> io::Result<()> {
        let path = self.path();
        if !path.exists() {
            return Ok(());
        }
        let mut bad: Vec<u64> = std::fs::read_dir(&self.folder)?
            .filter_map(|entry| {
                entry.ok()?.file_name().to_str()?.strip_prefix("sled.bad-")?.parse().ok()
            })
            .collect();
        bad.sort_unstable();
        let name = |n: u64| self.folder.join(format!("sled.bad-{n}"));
        let aside = name(bad.last().map_or(1, |last| last + 1));
        std::fs::rename(&path, &aside)?;
        // For whoever looks into it later; nothing reads it.
        let _ = std::fs::write(aside.join("reason"), reason);
        // The one just made counts among those kept.
        for n in bad.iter().rev().skip(KEPT_BAD - 1) {
            std::fs::remove_dir_all(name(*n))?;
        }
        Ok(())
    }

    fn commit(&self, sync: bool) -> Result<()> {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let result = self.with("write", |open| {
            open.db.flush()?;
            for (name, bucket) in &open.buckets {
                open.committed.insert(escape(name), bucket.stamp.epoch);
            }
            Ok(encode_epochs(&open.generation, &open.committed))
        });
        let result = result.and_then(|epochs| self.finish_commit(&epochs, sync));
        if result.is_err() {
            self.dirty.store(true, Ordering::Release);
        }
        result
    }
}

impl Shared {
    fn finish_commit(&self, epochs: &[u8], sync: bool) -> Result<()> {
        failpoint!("index::flushed", &self.folder);
        if sync {
            sync_database(&self.path()).map_err(|e| self.error("sync", e))?;
        }
        // After the database: epochs ahead of it would mean a loss that never was.
        let temp = self.folder.join(format!("{EPOCHS}.new"));
        File::create(&temp)
            .and_then(|mut file| {
                file.write_all(epochs)?;
                if sync { file.sync_all() } else { Ok(()) }
            })
            .and_then(|()| std::fs::rename(&temp, self.folder.join(EPOCHS)))
            .and_then(|()| if sync { File::open(&self.folder)?.sync_all() } else { Ok(()) })
            .map_err(|e| self.error("write the epochs of", e))
    }
}

/// A bucket's name in the file of epochs: arbitrary text, but no line breaks.
fn escape(name: &str) -> String {
    name.escape_default().to_string()
}

/// One line each: checksum, generation, then epoch and name of every bucket.
fn encode_epochs(generation: &str, epochs: &BTreeMap<String, u64>) -> Vec<u8> {
    let mut body = format!("{generation}\n");
    for (name, epoch) in epochs {
        body.push_str(&format!("{epoch} {name}\n"));
    }
    format!("{}\n{body}", Digest::of(body.as_bytes()).hex()).into_bytes()
}

/// What a whole file of epochs says behind its checksum.
fn whole_epochs(bytes: &[u8]) -> Option<&str> {
    let (check, body) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
    (Digest::of(body.as_bytes()).hex() == check).then_some(body)
}

/// The epochs of the database with this generation. Without a whole file nothing is known.
fn decode_epochs(bytes: &[u8], generation: &str) -> BTreeMap<String, u64> {
    let parse = || {
        let mut lines = whole_epochs(bytes)?.lines();
        if lines.next() != Some(generation) {
            return None;
        }
        Some(
            lines
                .filter_map(|line| {
                    let (epoch, name) = line.split_once(' ')?;
                    Some((name.to_owned(), epoch.parse().ok()?))
                })
                .collect::<BTreeMap<String, u64>>(),
        )
    };
    parse().unwrap_or_default()
}

fn open_database(path: &Path, epochs: &[u8]) -> Result<Open, Trouble> {
    let db = sled::Config::new()
        .path(path)
        .cache_capacity(PAGE_CACHE)
        // Commits flush; a thread that does so in between would only wake up for nothing.
        .flush_every_ms(None)
        .open()?;
    let generation = match db.get(GENERATION)? {
        Some(stored) => {
            let (value, _) = unwrap_value(GENERATION, &stored)?;
            String::from_utf8(value.to_vec())
                .map_err(|_| Trouble::Damaged("the generation is no text".into()))?
        }
        None => {
            // Pairs without a generation: the beginning of the log is gone.
            if !db.is_empty() || db.tree_names().len() > 1 {
                return Err(Trouble::Damaged("it has no generation".into()));
            }
            let name = random_name().map_err(|error| Trouble::Io(error.into()))?;
            db.insert(GENERATION, wrap_value(GENERATION, name.as_bytes()).0)?;
            name
        }
    };
    let committed = decode_epochs(epochs, &generation);
    Ok(Open { db, generation, committed, buckets: HashMap::new() })
}

/// What is wrong with the index in `folder`, which nobody else may have open: all of it is read.
/// Opening writes to it, so this is for a copy. `None` if it is good, or none is there.
pub(crate) fn examine(folder: &Path) -> io::Result<Option<String>> {
    let path = folder.join("sled");
    if !path.exists() {
        return Ok(None);
    }
    let epochs = std::fs::read(folder.join(EPOCHS)).unwrap_or_default();
    if !epochs.is_empty() && whole_epochs(&epochs).is_none() {
        return Ok(Some("the file of epochs does not have its checksum".into()));
    }
    let mut opened = None;
    let found = guarded(|| {
        let open = opened.insert(open_database(&path, &epochs)?);
        for name in open.db.tree_names() {
            // Others than buckets are sled's own.
            if let Some(name) = std::str::from_utf8(&name).ok().and_then(|n| n.strip_prefix("b/")) {
                open.bucket(name)?;
            }
        }
        Ok(())
    });
    close(opened);
    match found {
        Ok(()) => Ok(None),
        Err(Trouble::Damaged(reason)) => Ok(Some(reason)),
        Err(Trouble::Io(error)) => Err(error),
    }
}

/// Closing flushes, and that may panic on a damaged database.
fn close(open: Option<Open>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(open)));
}

/// What `flush` leaves out: the database's file, its large values, and their names.
fn sync_database(path: &Path) -> io::Result<()> {
    File::open(path.join("db"))?.sync_all()?;
    let blobs = path.join("blobs");
    if blobs.is_dir() {
        for entry in std::fs::read_dir(&blobs)? {
            File::open(entry?.path())?.sync_all()?;
        }
        File::open(&blobs)?.sync_all()?;
    }
    File::open(path)?.sync_all()
}

impl Drop for Shared {
    fn drop(&mut self) {
        close(lock(&self.state).take());
    }
}

impl KvStore for SledStore {
    fn open_bucket(&self, name: &str) -> Result<Arc<dyn Kv>> {
        check_name(name)?;
        let shared = Arc::clone(&self.shared);
        Ok(Arc::new(SledBucket { shared, name: name.to_owned() }))
    }

    fn commit(&self) -> Result<()> {
        self.shared.commit(true)
    }
}

struct SledBucket {
    shared: Arc<Shared>,
    name: String,
}

impl Kv for SledBucket {
    fn generation(&self) -> Result<String> {
        // Checks the bucket first: finding it damaged is what changes the generation.
        self.shared.with("read", |open| {
            open.bucket(&self.name)?;
            Ok(open.generation.clone())
        })
    }

    fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        check_keys(keys)?;
        self.shared.with("read", |open| {
            let bucket = open.bucket(&self.name)?;
            gather(keys, |key| Ok(bucket.get(key)?.map(|(value, _)| value)))
        })?
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>> {
        self.shared.with("read", |open| open.bucket(&self.name)?.scan(prefix, after, limit))
    }

    fn apply(&self, changes: &[Change]) -> Result<()> {
        check_changes(changes)?;
        if changes.is_empty() {
            return Ok(());
        }
        // Before, not after: a batch that is in without the mark would miss the next commit.
        self.shared.dirty.store(true, Ordering::Release);
        self.shared.with("write", |open| open.bucket(&self.name)?.apply(changes))
    }

    fn clear(&self) -> Result<()> {
        self.shared.dirty.store(true, Ordering::Release);
        self.shared.with("write", |open| open.bucket(&self.name)?.clear())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(folder: &Path, pairs: u32) -> (SledStore, String) {
        let store = SledStore::new(folder.to_path_buf());
        let bucket = store.open_bucket("b").unwrap();
        for n in 0..pairs {
            let value = vec![n as u8; 300];
            bucket.apply(&[(n.to_be_bytes().to_vec(), Some(value))]).unwrap();
        }
        store.commit().unwrap();
        let generation = bucket.generation().unwrap();
        (store, generation)
    }

    fn all(store: &SledStore) -> (String, Vec<Pair>) {
        let bucket = store.open_bucket("b").unwrap();
        let pairs = bucket.scan(b"", None, usize::MAX).unwrap();
        (bucket.generation().unwrap(), pairs)
    }

    #[test]
    fn pairs_survive_and_nothing_is_opened_before_use() {
        let dir = tempfile::tempdir().unwrap();
        drop(SledStore::new(dir.path().join("index")));
        assert!(!dir.path().join("index").exists());
        let (store, generation) = filled(dir.path(), 50);
        drop(store);
        let (again, pairs) = all(&SledStore::new(dir.path().to_path_buf()));
        assert_eq!((again, pairs.len()), (generation, 50));
    }

    /// The promise of the checksums and stamps: whatever bit flips, either everything is still
    /// there and right, or the generation changed.
    #[test]
    fn damage_changes_the_generation_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (store, generation) = filled(dir.path(), 60);
        let (_, expected) = all(&store);
        drop(store);
        let db = dir.path().join("sled/db");
        let good = std::fs::read(&db).unwrap();
        let used = good.iter().rposition(|byte| *byte != 0).unwrap();
        let (mut noticed, mut aside) = (0, 0);
        // Spread over the used part of the log; a prime step meets all kinds of fields.
        for bit in (0..used * 8).step_by((used * 8 / 40) | 1) {
            let damaged = tempfile::tempdir().unwrap();
            copy_tree(&dir.path().join("sled"), &damaged.path().join("sled"));
            std::fs::copy(dir.path().join(EPOCHS), damaged.path().join(EPOCHS)).unwrap();
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(damaged.path().join("sled/db"), bytes).unwrap();
            let store = SledStore::new(damaged.path().to_path_buf());
            let (now, pairs) = all(&store);
            if now == generation {
                assert!(pairs == expected, "bit {bit}: same generation, other pairs");
            } else {
                assert!(pairs.is_empty(), "bit {bit}");
                noticed += 1;
                let bucket = store.open_bucket("b").unwrap();
                bucket.apply(&[(b"x".to_vec(), Some(b"y".to_vec()))]).unwrap();
                assert_eq!(bucket.get_many(&[b"x".to_vec()]).unwrap(), [Some(b"y".to_vec())]);
                // A log cut at its very beginning is an empty database to sled.
                aside += usize::from(damaged.path().join("sled.bad-1/reason").exists());
            }
        }
        assert!(noticed > 0 && aside > 0, "no flip met anything");
    }

    fn copy_tree(from: &Path, to: &Path) {
        std::fs::create_dir(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy_tree(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }

    #[test]
    fn at_most_two_bad_databases_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut generations = std::collections::HashSet::new();
        for _ in 0..5 {
            let (store, generation) = filled(dir.path(), 1);
            assert!(generations.insert(generation), "each database has a generation of its own");
            drop(store);
            // Behind sled's back: a pair is missing, and sled itself cannot know.
            let db = sled::open(dir.path().join("sled")).unwrap();
            db.open_tree("b/b").unwrap().remove(pair_key(&0u32.to_be_bytes())).unwrap();
        }
        let store = SledStore::new(dir.path().to_path_buf());
        assert_eq!(all(&store).1, []);
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["epochs", "sled", "sled.bad-4", "sled.bad-5"]);
    }
}
