//! Room on the disk: what is kept stays below its limits after a build, and gives way during one.
//!
//! A look at the disk costs a system call, so it is taken again and again while a build runs; only
//! where room is short does anything get measured and evicted. A step that fails because the disk is
//! full is tried again after the older half of what is kept has gone, and once more after all of it
//! that nothing running needs. So is an export, unless it is written to another disk or cannot be begun
//! anew.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;
use tokio::sync::Mutex;
use wbuild_api::event::{Event, EventSink};
use wbuild_graph::{Failure, FailureKind, Severity};
use wbuild_store::{Collected, Disk, Gc, Limits, Policy, Store};

use crate::blocking;

/// Between two looks at the disk.
const PAUSE: Duration = Duration::from_millis(500);
/// The same after nothing could be evicted: what is in use stays so for a while.
const LONG_PAUSE: Duration = Duration::from_secs(30);
/// How often a step that met a full disk runs again.
const RETRIES: u32 = 2;
/// Marks the failure of a process during which the disk was full.
const DISK_FULL: &str = "disk-full";
/// Marks what failed outside of the state directory: where. Empty for a stream.
const WRITTEN_TO: &str = "written-to";

/// The room for one build.
pub(crate) struct Room {
    store: Store,
    gc: Gc,
    policies: Vec<Policy>,
    events: Arc<dyn EventSink>,
    /// One at a time: several steps meet a full disk at once.
    making: Mutex<()>,
    /// How often the disk was found full just before something was evicted.
    times_full: AtomicU64,
}

impl Room {
    pub(crate) fn new(
        store: Store,
        limits: Limits,
        policies: &[Policy],
        events: Arc<dyn EventSink>,
    ) -> Room {
        let gc = Gc { limits, since: SystemTime::now() };
        let policies = policies.to_vec();
        Room { store, gc, policies, events, making: Mutex::new(()), times_full: AtomicU64::new(0) }
    }

    /// Evicts whenever room is short, as long as it is polled.
    pub(crate) async fn watch(&self) {
        let mut pause = PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            pause = match self.collect_if_short().await {
                Ok(None) => PAUSE,
                Ok(Some(collected)) if !collected.report.removed.is_empty() => PAUSE,
                // It is not for this to end a build; what needs the room says so.
                Ok(Some(_)) | Err(_) => LONG_PAUSE,
            };
        }
    }

    async fn collect_if_short(&self) -> Result<Option<Collected>, Failure> {
        if !self.store.is_short(&self.gc.limits)? {
            return Ok(None);
        }
        let _one = self.making.lock().await;
        let (store, gc, events) = (self.store.clone(), self.gc, Arc::clone(&self.events));
        let (collected, was_full) = blocking(move || -> Result<_, Failure> {
            let before = store.disk()?;
            let collected = store.collect(&gc)?;
            // Here, as nobody may wait any more for the end of this: the build may be over.
            if let Some(collected) = collected.as_ref().filter(|it| !it.report.removed.is_empty()) {
                tell(&*events, collected);
            }
            let after = store.disk()?;
            // What a step met at the last moment before files went.
            let freed = collected.as_ref().map_or(0, |collected| collected.report.freed_bytes);
            let last = Disk { free: after.free.saturating_sub(freed), ..after };
            Ok((collected, before.is_full() || last.is_full()))
        })
        .await?;
        self.times_full.fetch_add(u64::from(was_full), Ordering::AcqRel);
        Ok(collected)
    }

    /// Brings what is kept below its limits, and to what policies say, after a build. Does not fail it.
    pub(crate) async fn tidy(&self) {
        let (store, gc, policies) = (self.store.clone(), self.gc, self.policies.clone());
        let tidied = blocking(move || -> Result<_, Failure> {
            Ok([store.heed(&policies, gc.since)?, store.gc(&gc)?])
        });
        match tidied.await {
            Ok(collected) => {
                collected.iter().flatten().for_each(|collected| tell(&*self.events, collected))
            }
            Err(failure) => self.events.event(Event::PluginLog {
                plugin: "wbuild".to_owned(),
                severity: Severity::Warning,
                text: format!("what is kept could not be brought below its limits: {failure}"),
            }),
        }
    }

    /// Writes down how much is kept. Where that cannot be, the next build measures.
    pub(crate) async fn close(&self) {
        let store = self.store.clone();
        let _ = blocking(move || store.close_account()).await;
    }

    /// Makes room for a step that failed for want of it. Answers whether it should run again.
    pub(crate) async fn make(&self, failure: &Failure, attempt: u32) -> Result<bool, Failure> {
        if attempt >= RETRIES || !is_shortage(failure) || !self.is_here(failure) {
            return Ok(false);
        }
        let _one = self.making.lock().await;
        let (store, gc) = (self.store.clone(), self.gc);
        let collected = blocking(move || store.make_room(&gc, attempt > 0)).await?;
        let freed = !collected.report.removed.is_empty();
        if freed {
            tell(&*self.events, &collected);
        }
        // Room that was made while it ran is room, too.
        Ok(freed || (attempt == 0 && self.times_full() > 0))
    }

    /// Whether an export that ended so is to be written again, as room was made for it.
    pub(crate) async fn again<T>(&self, result: &Result<T, Failure>, attempt: &mut u32) -> bool {
        let Err(failure) = result else { return false };
        // Why no room could be made matters less than what it was wanted for.
        let again = self.make(failure, *attempt).await.unwrap_or(false);
        *attempt += u32::from(again);
        again
    }

    /// Whether it was the disk of the state directory that was too small.
    fn is_here(&self, failure: &Failure) -> bool {
        let Some(place) = failure.attrs.get(WRITTEN_TO) else { return true };
        let device = |path: &Path| rustix::fs::stat(path).map(|stat| stat.st_dev);
        let there = nearest(place).map(device);
        matches!((there, device(self.store.path())), (Some(Ok(there)), Ok(here)) if there == here)
    }

    /// How often the disk was full and is no more: to be asked when a process begins.
    pub(crate) fn times_full(&self) -> u64 {
        self.times_full.load(Ordering::Acquire)
    }

    /// Marks the failure of a process if the disk is full, before its files go, or was since it
    /// began.
    pub(crate) async fn mark(&self, failure: Failure, times_full: u64) -> Failure {
        // What is being evicted at this moment is either there or counted.
        let _one = self.making.lock().await;
        let is_full = self.store.disk().is_ok_and(|disk| disk.is_full());
        match is_full || self.times_full() != times_full {
            true => failure.attr(DISK_FULL, "true"),
            false => failure,
        }
    }

    /// Says what can be done about a full disk, and what the limits are.
    pub(crate) fn explain(&self, failure: Failure) -> Failure {
        if !is_shortage(&failure) {
            return failure;
        }
        let kind = match failure.kind {
            FailureKind::Internal => FailureKind::Limit,
            kind => kind,
        };
        let failure = Failure { kind, ..failure };
        if !self.is_here(&failure) {
            let hint = failure.attrs.get(WRITTEN_TO).and_then(nearest).map(full_elsewhere);
            return match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            };
        }
        let Ok(disk) = self.store.disk() else { return failure };
        let bounds = self.gc.limits.on(&disk);
        let most = bounds.max_used.map_or_else(String::new, |most| {
            format!(", of which wbuild keeps at most {}", megabytes(most))
        });
        failure.hint(format!(
            "the disk of {} has {}{most} (--cache-max), and {} free; nothing more of what is kept \
             could be removed: free some space, or use another disk with --state-dir",
            self.store.path().display(),
            megabytes(disk.total),
            megabytes(disk.free),
        ))
    }
}

fn tell(events: &dyn EventSink, collected: &Collected) {
    events.event(Event::Evicted {
        freed_bytes: collected.report.freed_bytes,
        recent_bytes: collected.recent_bytes,
        used_bytes: collected.report.remaining_bytes,
        max_bytes: collected.bounds.max_used,
        min_free_bytes: collected.bounds.min_free,
    });
}

/// Marks what failed while `place` was written to, which need not be on the disk of the state
/// directory; none is a stream.
pub(crate) fn written_to(failure: Failure, place: Option<&Path>) -> Failure {
    let place = place.map_or_else(String::new, |place| place.display().to_string());
    failure.attr(WRITTEN_TO, place)
}

/// What there is of a path: it, or the first directory on the way up.
fn nearest(place: &str) -> Option<&Path> {
    let mut there = Path::new(place).ancestors().filter(|path| !path.as_os_str().is_empty());
    there.find(|path| path.exists())
}

fn full_elsewhere(place: &Path) -> String {
    let sizes = rustix::fs::statvfs(place).map_or_else(
        |_| String::new(),
        |stat| {
            let bytes = |blocks: u64| megabytes(blocks.saturating_mul(stat.f_frsize));
            format!(" ({}, {} free)", bytes(stat.f_blocks), bytes(stat.f_bavail))
        },
    );
    format!(
        "it was the disk of {}{sizes} that was full, which is not the one that wbuild keeps things on: \
         free some space there, or write to another disk",
        place.display(),
    )
}

/// Whether it was a full disk that something failed for.
fn is_shortage(failure: &Failure) -> bool {
    if failure.kind == FailureKind::Cancelled {
        return false;
    }
    let reasons = [Errno::NOSPC, Errno::DQUOT].map(|errno| errno.to_string());
    let says = |text: &String| reasons.iter().any(|reason| text.contains(reason));
    failure.attrs.get(DISK_FULL).is_some()
        || says(&failure.message)
        || failure.causes.iter().any(says)
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_recognised_in_failures_of_all_layers() {
        let full = std::io::Error::from(Errno::NOSPC);
        let store = wbuild_store::Error::Io {
            action: "write",
            path: "/x".into(),
            source: std::io::Error::from(Errno::NOSPC),
        };
        for failure in [
            Failure::internal("cannot write").cause(&full),
            Failure::from(store),
            Failure::internal("cannot write").cause(&Errno::DQUOT).context("outside"),
            Failure::new(FailureKind::ExecFailed, "a step").attr(DISK_FULL, "true"),
        ] {
            assert!(is_shortage(&failure), "{failure:?}");
        }
        for failure in [
            Failure::internal("cannot write").cause(&Errno::NOENT),
            Failure::new(FailureKind::ExecFailed, "exit code: 28"),
            Failure::cancelled().cause(&full),
        ] {
            assert!(!is_shortage(&failure), "{failure:?}");
        }
    }
}
