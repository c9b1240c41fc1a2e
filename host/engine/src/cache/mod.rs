//! The cache backends of a build: asked after the store's own records, told of every new record.
//!
//! A backend maps keys to results; the result itself is a record of the store, found by the key
//! that the entry carries and believed only if it has the key that was asked for. So there is one
//! owner of what a result is, and a backend that lies or fails causes a miss.

mod blobs;
pub(crate) mod entries;
pub(crate) mod grants;
mod http;
pub(crate) mod imports;
pub(crate) mod inline;
mod kv;
mod repository;
mod shelf;
#[cfg(test)]
mod suite;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use wbuild_api::extension::{CacheBackend, CacheHost, CachePlugin, LogCap, RecordEntry};
use wbuild_graph::{Attrs, CacheKey, Failure, Severity};
use wbuild_store::Store;

use self::blobs::StoreBlobs;
use self::kv::KvBuckets;
pub(crate) use self::repository::Progress;
use self::shelf::Shelf;
use crate::blocking;
use crate::solved::Solved;

/// Media type of a layer that exists as files on this machine only.
const SNAPSHOT: &str = "application/vnd.wbuild.snapshot.v1";
/// The host's own bucket: which backends (by component digest and by what they are, as their buckets
/// are) have heard of all records.
const FILLED: &str = "filled";
/// Records announced at once.
const BATCH: usize = 500;

struct Line {
    plugin: Arc<dyn CachePlugin>,
    log: Arc<dyn LogCap>,
    backend: OnceCell<Arc<dyn CacheBackend>>,
    /// Calls of one backend never overlap.
    turn: tokio::sync::Mutex<()>,
    /// It has failed: a cache that does not work makes a build slower, not impossible.
    off: AtomicBool,
}

impl Line {
    fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    /// Does without the backend from now on.
    fn turn_off(&self, failure: &Failure) {
        if !self.off.swap(true, Ordering::Relaxed) {
            let text = format!("the cache backend failed and is not used further: {failure}");
            self.log.log(Severity::Warning, text);
        }
    }
}

/// All backends of a build.
pub(crate) struct CacheLine {
    store: Store,
    lines: Vec<Line>,
    pending: Mutex<Vec<RecordEntry>>,
}

impl CacheLine {
    pub(crate) fn new(
        store: Store,
        plugins: Vec<(Arc<dyn CachePlugin>, Arc<dyn LogCap>)>,
    ) -> CacheLine {
        let lines = plugins
            .into_iter()
            .map(|(plugin, log)| Line {
                plugin,
                log,
                backend: OnceCell::new(),
                turn: tokio::sync::Mutex::new(()),
                off: AtomicBool::new(false),
            })
            .collect();
        CacheLine { store, lines, pending: Mutex::default() }
    }

    async fn backend(&self, line: &Line) -> Result<Arc<dyn CacheBackend>, Failure> {
        let connect = async {
            let store = self.store.clone();
            // Opening the index reads and may write: not on an executor's thread.
            let kv = blocking(move || store.kv()).await?;
            let shelf = Shelf::new(self.store.clone());
            let host = CacheHost {
                kv: Arc::new(KvBuckets { kv, plugin: line.plugin.identity() }),
                blobs: Arc::new(StoreBlobs { shelf: shelf.clone() }),
                repository: None,
                http: None,
                log: Arc::clone(&line.log),
            };
            let backend = shelf.connect(&*line.plugin, host).await?;
            backend.open("write".to_owned(), Attrs::default()).await?;
            self.refill(line, &*backend).await?;
            Ok::<_, Failure>(backend)
        };
        line.backend.get_or_try_init(|| connect).await.cloned()
    }

    /// Announces every record to a backend that has not heard of them: one that is new here, or whose
    /// buckets were lost together with the mark that says it was filled.
    async fn refill(&self, line: &Line, backend: &dyn CacheBackend) -> Result<(), Failure> {
        let identity = line.plugin.identity();
        let mark = format!("{} {}", identity.digest, identity.what()).into_bytes();
        let store = self.store.clone();
        let key = mark.clone();
        let missing = blocking(move || -> Result<_, Failure> {
            let filled = store.kv()?.open_bucket(FILLED)?.get_many(&[key])?;
            match filled.into_iter().flatten().next() {
                Some(_) => Ok(None),
                None => Ok(Some(store.records()?)),
            }
        })
        .await?;
        let Some(records) = missing else {
            return Ok(());
        };
        let entries: Vec<RecordEntry> = records.iter().filter_map(entries::local).collect();
        for batch in entries.chunks(BATCH) {
            backend.save(batch.to_vec()).await?;
        }
        let store = self.store.clone();
        blocking(move || -> Result<(), Failure> {
            Ok(store.kv()?.open_bucket(FILLED)?.apply(&[(mark, Some(b"1".to_vec()))])?)
        })
        .await
    }

    /// A result by key.
    pub(crate) async fn find(&self, key: CacheKey) -> Result<Option<Arc<Solved>>, Failure> {
        for line in self.lines.iter().filter(|line| !line.is_off()) {
            let found = async {
                let backend = self.backend(line).await?;
                let _turn = line.turn.lock().await;
                backend.find(vec![key]).await
            };
            let found = found.await.unwrap_or_else(|failure| {
                line.turn_off(&failure);
                Vec::new()
            });
            for entry in found.into_iter().flatten() {
                let Some(record_key) =
                    entry.attrs.get(entries::RECORD).and_then(|k| k.parse().ok())
                else {
                    continue;
                };
                // What the backend claims is checked: the record itself says what its keys are.
                if let Some(held) = self.store.record(&record_key)?
                    && held.keys.contains(&key)
                {
                    let (record, lease) = held.into_parts();
                    return Ok(Some(Solved::from_record(record, lease)));
                }
            }
        }
        Ok(None)
    }

    /// Notes a new or changed record, to be told to the backends with [`CacheLine::flush`].
    pub(crate) fn announce(&self, outputs: &Solved) {
        if self.lines.is_empty() {
            return;
        }
        if let Some(entry) = outputs.record().as_ref().and_then(entries::local) {
            self.pending.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        }
    }

    /// Tells the backends of all new records. Does nothing, and opens nothing, if there are none.
    pub(crate) async fn flush(&self) {
        let entries =
            std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        if entries.is_empty() {
            return;
        }
        for line in self.lines.iter().filter(|line| !line.is_off()) {
            let told = async {
                let backend = self.backend(line).await?;
                let _turn = line.turn.lock().await;
                for batch in entries.chunks(BATCH) {
                    backend.save(batch.to_vec()).await?;
                }
                backend.commit().await
            };
            if let Err(failure) = told.await {
                line.turn_off(&failure);
            }
        }
    }
}
