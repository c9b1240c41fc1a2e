//! Caches elsewhere that a build reads (`--cache-from`): asked after everything on this machine has
//! missed, all at the same time.
//!
//! A cache that is slow, broken or lies makes a build slower, not impossible: it has [`PATIENCE`] for
//! an answer and is not asked further when it fails. A hit is a handle; layers come when something
//! reads or sends them, and one that cannot be had is remembered as gone, so that the record it is in
//! is no hit any more and its step runs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use wbuild_api::extension::{CacheBackend, CachePlugin, LogCap, RecordEntry};
use wbuild_api::request::CacheSpec;
use wbuild_graph::{CacheKey, DiffId, Digest, Failure, FailureKind, Severity};
use wbuild_oci::reference::Reference;
use wbuild_store::{BlobRef, Record, Store};

use super::entries;
use super::grants::{Grants, Moves};
use super::inline;
use super::repository::Progress;
use crate::steps::Steps;

/// How long a cache may take to answer: the first time with all it has to fetch before.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may keep a build waiting in all.
const BUDGET: Duration = Duration::from_secs(60);
/// The most keys of a record that are handed on.
const HEARSAY: usize = 64;
/// The most keys asked of a backend in one call.
const KEYS: usize = 256;

type Locks = Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>;

/// All caches elsewhere of a build.
pub(crate) struct Imports {
    store: Store,
    steps: Arc<Steps>,
    grants: Grants,
    lines: Vec<Line>,
    /// Held by who fetches a blob.
    fetching: Locks,
    now: u64,
}

/// One cache elsewhere.
struct Place {
    /// Names it in records of the store, for later builds that have it, too.
    id: String,
    shown: String,
    spec: CacheSpec,
    plugin: Arc<dyn CachePlugin>,
    grants: Grants,
    log: Arc<dyn LogCap>,
    /// It has failed or was too slow.
    off: AtomicBool,
    /// Blobs that it does not have, or not as it says.
    gone: Mutex<HashSet<Digest>>,
}

/// A cache, and the task that asks it for keys, which begins with the first one.
struct Line {
    place: Arc<Place>,
    asking: OnceLock<Asking>,
}

type Question = (CacheKey, oneshot::Sender<Vec<RecordEntry>>);

struct Asking {
    questions: mpsc::Sender<Question>,
    task: AbortHandle,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A record that was found elsewhere.
pub(crate) struct Found {
    pub(crate) record: Record,
    /// All keys it is said to have.
    pub(crate) keys: Vec<CacheKey>,
    /// What people call the place.
    pub(crate) shown: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Imports {
    pub(crate) fn new(
        store: Store,
        steps: Arc<Steps>,
        grants: Grants,
        specs: &[CacheSpec],
        plugins: &BTreeMap<String, Arc<dyn CachePlugin>>,
        log: impl Fn(String) -> Arc<dyn LogCap>,
        now: u64,
    ) -> Imports {
        let lines = specs.iter().filter_map(|spec| {
            let plugin = Arc::clone(plugins.get(&spec.backend)?);
            let place = Arc::new(Place {
                id: id_of(spec),
                shown: spec.shown(),
                spec: spec.clone(),
                plugin,
                grants: grants.clone(),
                log: log(spec.shown()),
                off: AtomicBool::new(false),
                gone: Mutex::default(),
            });
            Some(Line { place, asking: OnceLock::new() })
        });
        let lines = lines.collect();
        Imports { store, steps, grants, lines, fetching: Locks::default(), now }
    }

    fn place(&self, id: &str) -> Option<&Place> {
        self.lines.iter().map(|line| &*line.place).find(|place| place.id == id)
    }

    /// The first cache's record for a key, if any has one.
    pub(crate) async fn find(&self, key: CacheKey) -> Option<Found> {
        self.first(key, |place, entry| {
            let record = entries::claimed(entry, key, &place.id, &lock(&place.gone), self.now)?;
            let keys = entry.keys.iter().copied().take(HEARSAY).collect();
            Some(Found { record, keys, shown: place.shown.clone() })
        })
        .await
    }

    /// Asks all caches for a key at once, and takes the first one's answer that is of use.
    async fn first<T>(
        &self,
        key: CacheKey,
        take: impl Fn(&Place, &RecordEntry) -> Option<T>,
    ) -> Option<T> {
        let mut answers: FuturesOrdered<_> = self
            .lines
            .iter()
            .map(|line| async move { (&*line.place, line.ask(key).await) })
            .collect();
        while let Some((place, entries)) = answers.next().await {
            if let Some(taken) = entries.iter().find_map(|entry| take(place, entry)) {
                return Some(taken);
            }
        }
        None
    }

    /// The blob of a cache mount and the place that has it.
    pub(crate) async fn find_mount(&self, key: CacheKey) -> Option<(BlobRef, DiffId, String)> {
        self.first(key, |place, entry| {
            let (blob, diff_id) = entries::claimed_mount(entry, key, &lock(&place.gone))?;
            Some((blob, diff_id, place.id.clone()))
        })
        .await
    }

    /// Makes sure that blobs are in the store that the cache `id` has; one answer each, in order.
    pub(crate) async fn fetch(&self, id: &str, blobs: &[BlobRef]) -> Vec<Result<(), Failure>> {
        // In one order for everybody, so that no two wait for each other.
        let mut order: Vec<&BlobRef> = blobs.iter().collect();
        order.sort_by_key(|blob| blob.digest.0);
        order.dedup_by_key(|blob| blob.digest.0);
        let mut held = Vec::new();
        for blob in &order {
            let one = Arc::clone(lock(&self.fetching).entry(blob.digest.0).or_default());
            held.push(one.lock_owned().await);
        }
        let mut outcome: HashMap<Digest, Result<(), Failure>> = HashMap::new();
        let mut missing = Vec::new();
        for blob in order {
            match self.store.has_blob(&blob.digest) {
                Ok(true) => drop(outcome.insert(blob.digest.0, Ok(()))),
                Ok(false) => missing.push(blob),
                Err(error) => drop(outcome.insert(blob.digest.0, Err(error.into()))),
            }
        }
        if !missing.is_empty() {
            let answers = match self.place(id) {
                Some(place) => self.fetch_from(place, &missing).await,
                None => {
                    let failure = gone("the cache that a layer is in is not one of this build's");
                    missing.iter().map(|_| Err(failure.clone())).collect()
                }
            };
            outcome.extend(missing.iter().map(|blob| blob.digest.0).zip(answers));
        }
        let unasked = || Err(Failure::internal("a blob was not asked for"));
        blobs
            .iter()
            .map(|blob| outcome.get(&blob.digest.0).cloned().unwrap_or_else(unasked))
            .collect()
    }

    /// Fetches blobs from a cache, by an instance of the backend of their own: who looks up keys does
    /// not wait for it.
    async fn fetch_from(&self, place: &Place, blobs: &[&BlobRef]) -> Vec<Result<(), Failure>> {
        let lacks = |blob: &&&BlobRef| lock(&place.gone).contains(&blob.digest.0);
        let what = match blobs {
            [one] => one.digest.0.short().to_string(),
            _ => format!("{} layers", blobs.len()),
        };
        let message = |blob: &BlobRef| format!("the cache {} lacks {}", place.shown, blob.digest);
        let wanted: Vec<&&BlobRef> = blobs.iter().filter(|blob| !lacks(blob)).collect();
        if wanted.is_empty() {
            return blobs.iter().map(|blob| Err(gone(message(blob)))).collect();
        }
        let step = self.steps.internal(&format!("fetch {what} from {}", place.shown));
        let step = Arc::new(step);
        let progress: Progress = {
            let step = Arc::clone(&step);
            Arc::new(move |digest, now, all| step.progress(&digest.to_string(), now, Some(all)))
        };
        let answers = async {
            let backend = place.connect(Moves::shown(progress)).await?;
            let layers: Vec<_> = wanted.iter().map(|blob| entries::wanted(blob)).collect();
            let asked = layers.len();
            let answers = backend.fetch(layers).await?;
            match answers.len() == asked {
                true => Ok(answers),
                false => Err(Failure::invalid("it gave another number of answers than asked for")),
            }
        };
        let answers = answers.await;
        let Some(step) = Arc::into_inner(step) else {
            return blobs.iter().map(|_| Err(Failure::internal("a fetch did not end"))).collect();
        };
        let mut last = answers.as_ref().err().cloned();
        for (number, blob) in wanted.iter().enumerate() {
            let said = match &answers {
                Ok(answers) => answers[number].clone(),
                Err(failure) => Err(failure.clone()),
            };
            // What it says it did is looked at.
            let here = self.store.has_blob(&blob.digest).unwrap_or(false);
            if !here {
                lock(&place.gone).insert(blob.digest.0);
                last = Some(said.err().unwrap_or_else(|| gone(message(blob))));
            }
        }
        match &last {
            None => step.done(),
            Some(failure) => {
                let text =
                    format!("a layer cannot be had from the cache {}: {failure}", place.shown);
                place.log.log(Severity::Warning, format!("{text}; what needs it runs again"));
                drop(step);
            }
        }
        blobs
            .iter()
            .map(|blob| match self.store.has_blob(&blob.digest)? {
                true => Ok(()),
                false => Err(gone(message(blob))),
            })
            .collect()
    }

    /// Notes that a blob which came from a cache is not what was said of it.
    pub(crate) fn refuse(&self, id: &str, blob: &BlobRef, failure: &Failure) {
        if let Some(place) = self.place(id)
            && lock(&place.gone).insert(blob.digest.0)
        {
            let shown = &place.shown;
            let text = format!("a layer of the cache {shown} cannot be used: {failure}");
            place.log.log(Severity::Warning, format!("{text}; what needs it runs again"));
        }
    }

    /// Does without a blob of a cache that has lied about another.
    pub(crate) fn doubt(&self, id: &str, blob: &BlobRef) {
        if let Some(place) = self.place(id) {
            lock(&place.gone).insert(blob.digest.0);
        }
    }

    /// Whether a blob of a cache turned out to be gone. From one that is not this build's it can only
    /// have come before.
    pub(crate) fn lacks(&self, id: &str, blob: &BlobRef) -> Result<bool, Failure> {
        match self.place(id) {
            Some(place) => Ok(lock(&place.gone).contains(&blob.digest.0)),
            None => Ok(!self.store.has_blob(&blob.digest)?),
        }
    }

    /// The repository that a cache is, if it is one of `registry`.
    pub(crate) fn repository(&self, id: &str, registry: &str) -> Option<String> {
        let place = self.place(id)?;
        let reference: Reference = place.spec.attrs.get("ref")?.parse().ok()?;
        (reference.registry() == registry).then(|| reference.repository().to_owned())
    }

    pub(crate) fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Asks no further.
    pub(crate) fn stop(&self) {
        self.lines.iter().filter_map(|line| line.asking.get()).for_each(|a| a.task.abort());
    }
}

impl Line {
    /// What the cache has for a key; nothing if it is off.
    async fn ask(&self, key: CacheKey) -> Vec<RecordEntry> {
        if self.place.off.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let asking = self.asking.get_or_init(|| {
            let (questions, waiting) = mpsc::channel(KEYS);
            let task = tokio::spawn(crate::tracked(serve(Arc::clone(&self.place), waiting)));
            Asking { questions, task: task.abort_handle() }
        });
        let (sender, answer) = oneshot::channel();
        if asking.questions.send((key, sender)).await.is_err() {
            return Vec::new();
        }
        // A task that has ended answers nothing.
        answer.await.unwrap_or_default()
    }
}

impl Place {
    /// An instance for reading.
    async fn connect(&self, moves: Moves) -> Result<Arc<dyn CacheBackend>, Failure> {
        if let Some(image) = inline::find(&self.grants, &self.spec).await? {
            return Ok(image);
        }
        self.grants.connect(&self.spec, &*self.plugin, &self.log, moves, "read").await
    }

    fn turn_off(&self, failure: &Failure) {
        if !self.off.swap(true, Ordering::Relaxed) {
            let text = format!("the cache {} is not used: {failure}", self.shown);
            self.log.log(Severity::Warning, text);
        }
    }
}

/// Answers questions for keys, as many at once as there are, so that calls never overlap.
async fn serve(place: Arc<Place>, mut waiting: mpsc::Receiver<Question>) {
    let mut backend: Option<Arc<dyn CacheBackend>> = None;
    let mut questions = Vec::new();
    let mut left = BUDGET;
    while waiting.recv_many(&mut questions, KEYS).await > 0 {
        let mut keys: Vec<CacheKey> = questions.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys.dedup();
        let find = async {
            let backend = match &backend {
                Some(backend) => backend,
                None => backend.insert(place.connect(Moves::quiet()).await?),
            };
            let found = backend.find(keys.clone()).await?;
            match found.len() == keys.len() {
                true => Ok(found),
                false => Err(Failure::invalid("it gave another number of answers than keys")),
            }
        };
        let (began, most) = (Instant::now(), PATIENCE.min(left));
        let found = tokio::time::timeout(most, find).await;
        left = left.saturating_sub(began.elapsed());
        let found = match found {
            Ok(found) => found,
            Err(_) => {
                let message = format!("it did not answer in {} seconds", most.as_secs());
                Err(Failure::new(FailureKind::Unavailable, message))
            }
        };
        match found {
            Ok(found) => {
                for (key, answer) in questions.drain(..) {
                    let entries = keys.binary_search(&key).map(|at| found[at].clone());
                    // Who asked may have gone.
                    let _ = answer.send(entries.unwrap_or_default());
                }
            }
            Err(failure) => {
                place.turn_off(&failure);
                // Dropped, so that everybody who waits gets nothing.
                return;
            }
        }
    }
}

/// Names a cache by what the user said of it, which may hold secrets.
fn id_of(spec: &CacheSpec) -> String {
    let mut e = wbuild_graph::encode::Encoder::new("wbuild.cache-place.v1");
    e.str(&spec.backend);
    e.pairs(&super::grants::config(spec).0);
    e.finish().hex()
}

fn gone(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Gone, message)
}
