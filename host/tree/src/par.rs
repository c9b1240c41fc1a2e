//! Running work on a few threads: a queue whose jobs may add jobs, and a loop over a slice.
//!
//! Helper threads are only started once there is something for them to do, so that small trees
//! cost no thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::{Result, TreeError};

/// Asks running tree operations to stop. Clones share the request.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Nothing is cancelled yet.
    pub fn new() -> Self {
        Cancel::default()
    }

    /// Operations that hold a clone end with [`TreeError::Cancelled`] after the file at hand.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(TreeError::Cancelled) } else { Ok(()) }
    }
}

/// How to run an operation.
#[derive(Clone, Debug)]
pub struct Work {
    /// Threads that may be used, the caller's included; at least 1.
    pub threads: usize,
    /// Where the caller asks to stop.
    pub cancel: Cancel,
}

impl Default for Work {
    /// As many threads as there are processors, at least 2 (one waits for the disk while the other
    /// computes), at most 8.
    fn default() -> Self {
        // Asked once: the answer is in several files of the kernel, and many trees are tiny.
        static PROCESSORS: OnceLock<usize> = OnceLock::new();
        let processors =
            *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(2, usize::from));
        Work { threads: processors.clamp(2, 8), cancel: Cancel::new() }
    }
}

struct Queue<J> {
    state: Mutex<QueueState<J>>,
    changed: Condvar,
}

struct QueueState<J> {
    jobs: Vec<J>,
    /// Jobs being worked on; the queue is finished when it is empty and this is 0.
    busy: usize,
    error: Option<TreeError>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A worker that panics is propagated by the scope; the data is then not used any more.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the job as done even if the worker panics, so that the others do not wait for ever.
struct Busy<'a, J>(&'a Queue<J>);

impl<J> Drop for Busy<'_, J> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.busy -= 1;
        if state.busy == 0 && state.jobs.is_empty() {
            self.0.changed.notify_all();
        }
    }
}

impl<J> Queue<J> {
    /// Works until there is nothing left. `alone` returns early as soon as others could help.
    fn drain<S>(
        &self,
        worker: &mut S,
        work: &(impl Fn(&mut S, J, &mut Vec<J>) -> Result<()> + Sync),
        cancel: &Cancel,
        alone: bool,
    ) {
        let mut added = Vec::new();
        loop {
            let job = {
                let mut state = lock(&self.state);
                loop {
                    if state.error.is_some() {
                        return;
                    }
                    if alone && state.jobs.len() > 1 {
                        return;
                    }
                    if let Some(job) = state.jobs.pop() {
                        state.busy += 1;
                        break job;
                    }
                    if state.busy == 0 {
                        return;
                    }
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let busy = Busy(self);
            let outcome = cancel.check().and_then(|()| work(worker, job, &mut added));
            {
                let mut state = lock(&self.state);
                match outcome {
                    Ok(()) if added.is_empty() => {}
                    Ok(()) => {
                        state.jobs.append(&mut added);
                        self.changed.notify_all();
                    }
                    Err(error) => {
                        state.error.get_or_insert(error);
                        state.jobs.clear();
                        self.changed.notify_all();
                    }
                }
            }
            drop(busy);
        }
    }
}

/// Runs jobs that may add jobs. Each thread has its own `S`; all of them are returned, in no
/// particular order. The first error ends the run.
pub(crate) fn run<J: Send, S: Send>(
    how: &Work,
    jobs: Vec<J>,
    new: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, J, &mut Vec<J>) -> Result<()> + Sync,
) -> Result<Vec<S>> {
    let queue = Queue {
        state: Mutex::new(QueueState { jobs, busy: 0, error: None }),
        changed: Condvar::new(),
    };
    let mut first = new();
    queue.drain(&mut first, &work, &how.cancel, how.threads > 1);
    let mut workers = Vec::with_capacity(how.threads);
    if lock(&queue.state).jobs.len() > 1 {
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..how.threads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut worker = new();
                        queue.drain(&mut worker, &work, &how.cancel, false);
                        worker
                    })
                })
                .collect();
            queue.drain(&mut first, &work, &how.cancel, false);
            for helper in helpers {
                match helper.join() {
                    Ok(worker) => workers.push(worker),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
    }
    workers.push(first);
    let state = queue.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.error {
        Some(error) => Err(error),
        None => Ok(workers),
    }
}

/// Runs `work` on pieces of at most `grain` items.
pub(crate) fn for_each_piece<T: Send, S: Send>(
    how: &Work,
    items: &mut [T],
    grain: usize,
    new: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &mut [T]) -> Result<()> + Sync,
) -> Result<()> {
    // Reversed, because jobs are taken from the end: pieces are begun in order.
    let pieces: Vec<&mut [T]> = items.chunks_mut(grain.max(1)).rev().collect();
    run(how, pieces, new, |worker, piece, _| work(worker, piece)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_runs_once_and_may_add_jobs() {
        for threads in [1, 2, 4] {
            let how = Work { threads, ..Work::default() };
            let sums = run(
                &how,
                vec![12_u64],
                || 0_u64,
                |sum, job, more| {
                    *sum += 1;
                    if job > 0 {
                        more.extend([job - 1, job - 1]);
                    }
                    Ok(())
                },
            )
            .unwrap();
            assert_eq!(sums.iter().sum::<u64>(), (1 << 13) - 1);
        }
    }

    #[test]
    fn an_error_or_a_cancellation_ends_the_run() {
        let how = Work { threads: 3, ..Work::default() };
        let error = run(
            &how,
            (0..1000).collect(),
            || (),
            |(), job, _| {
                if job == 500 {
                    Err(TreeError::Limit { what: "x".into(), limit: 1 })
                } else {
                    Ok(())
                }
            },
        );
        assert!(matches!(error, Err(TreeError::Limit { .. })));
        how.cancel.cancel();
        let cancelled = run(&how, vec![1], || (), |(), _, _| Ok(()));
        assert_eq!(cancelled.unwrap_err(), TreeError::Cancelled);
    }

    #[test]
    fn pieces_cover_the_slice() {
        let mut items = vec![0_u32; 1001];
        for_each_piece(
            &Work::default(),
            &mut items,
            10,
            || (),
            |(), piece| {
                piece.iter_mut().for_each(|item| *item += 1);
                Ok(())
            },
        )
        .unwrap();
        assert!(items.iter().all(|item| *item == 1));
    }
}
