//! A value that is computed once by a task of its own, for as long as somebody waits for it.
//!
//! Invariants:
//!
//! - At most one task computes it at any time: one that was given up ends before the next begins.
//! - It is given up when nobody waits for it any more, and never before.

use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};

use futures_channel::oneshot;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use wbuild_graph::{Failure, FailureKind};

// Its own tests run under shuttle, which tries many orders in which threads take the lock.
#[cfg(test)]
use shuttle::sync::{Mutex, MutexGuard};
#[cfg(not(test))]
use std::sync::{Mutex, MutexGuard};

/// Starts tasks. The engine does it with its runtime, tests with a simulated one.
pub trait Spawn: Send + Sync {
    /// Runs `task` to its end, or until it is aborted.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Box<dyn Abort>;
}

/// Ends a task.
pub trait Abort: Send {
    /// Drops the task soon, from outside: never within this call's stack.
    fn abort(&self);
}

type Answer<T> = Result<T, Arc<Failure>>;

enum State<T> {
    Idle,
    Running {
        round: u64,
        waiters: Vec<(u64, oneshot::Sender<Answer<T>>)>,
        abort: Option<Box<dyn Abort>>,
    },
    /// Everybody left and the task is being dropped. Who comes now waits for the end of that.
    Stopping {
        round: u64,
        next: Vec<oneshot::Sender<()>>,
    },
    Done(Answer<T>),
}

struct Inner<T> {
    state: State<T>,
    /// Counts rounds and waiters, so that a late end of an aborted round is told from the present.
    next: u64,
}

/// The shared value.
pub(crate) struct Lazy<T> {
    inner: Mutex<Inner<T>>,
}

impl<T: Clone + Send + 'static> Lazy<T> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Lazy { inner: Mutex::new(Inner { state: State::Idle, next: 0 }) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // The lock is never held across foreign code, so a poisoned state is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value if it is there.
    pub(crate) fn peek(&self) -> Option<Answer<T>> {
        match &self.lock().state {
            State::Done(answer) => Some(answer.clone()),
            _ => None,
        }
    }

    /// Forgets the value, so that the next [`Lazy::get`] computes it anew.
    pub(crate) fn reset(&self) {
        let mut inner = self.lock();
        if matches!(inner.state, State::Done(_)) {
            inner.state = State::Idle;
        }
    }

    /// The value; `compute` is called if nobody computes it yet.
    pub(crate) async fn get(
        self: &Arc<Self>,
        spawn: &dyn Spawn,
        compute: impl FnOnce() -> BoxFuture<'static, Answer<T>>,
    ) -> Answer<T> {
        let (receiver, ticket) = loop {
            let stopped = {
                let mut inner = self.lock();
                let ticket = inner.next;
                inner.next += 1;
                let (sender, receiver) = oneshot::channel();
                match &mut inner.state {
                    State::Done(answer) => return answer.clone(),
                    State::Running { waiters, .. } => {
                        waiters.push((ticket, sender));
                        break (receiver, ticket);
                    }
                    State::Stopping { next, .. } => {
                        let (sender, stopped) = oneshot::channel();
                        next.push(sender);
                        stopped
                    }
                    State::Idle => {
                        inner.state = State::Running {
                            round: ticket,
                            waiters: vec![(ticket, sender)],
                            abort: None,
                        };
                        drop(inner);
                        self.start(spawn, ticket, compute());
                        break (receiver, ticket);
                    }
                }
            };
            // The sender is dropped, not used: all that matters is that the round has ended.
            let _ = stopped.await;
        };
        let _waiter = Waiter { cell: self, ticket };
        match receiver.await {
            Ok(answer) => answer,
            // The task was dropped without an answer: it panicked, or its runtime is gone.
            Err(oneshot::Canceled) => {
                Err(Failure::internal("a task of the build ended without an answer").shared())
            }
        }
    }

    fn start(
        self: &Arc<Self>,
        spawn: &dyn Spawn,
        round: u64,
        future: BoxFuture<'static, Answer<T>>,
    ) {
        let ending = Ending { cell: Arc::clone(self), round };
        let handle = spawn.spawn(Box::pin(Round { future, ending }));
        if let State::Running { round: now, abort, .. } = &mut self.lock().state
            && *now == round
        {
            // Nobody can have left yet: who started it still waits.
            *abort = Some(handle);
        }
    }

    /// Ends a round. `None`: the task was dropped.
    fn finish(&self, round: u64, answer: Option<Answer<T>>) {
        let ended = {
            let mut inner = self.lock();
            match &inner.state {
                State::Running { round: now, .. } | State::Stopping { round: now, .. }
                    if *now == round => {}
                _ => return,
            }
            let next = match &answer {
                // Being cancelled says nothing about the vertex: the next one may try.
                Some(Err(failure)) if failure.kind == FailureKind::Cancelled => State::Idle,
                // Even if everybody left a moment ago: it is there now.
                Some(answer) => State::Done(answer.clone()),
                None => State::Idle,
            };
            std::mem::replace(&mut inner.state, next)
        };
        // Dropped outside of the lock, it wakes those who wait for the end of the round.
        if let (State::Running { waiters, .. }, Some(answer)) = (ended, answer) {
            for (_, waiter) in waiters {
                // A waiter that left has dropped its receiver.
                let _ = waiter.send(answer.clone());
            }
        }
    }

    fn leave(&self, ticket: u64) {
        let abort = {
            let mut inner = self.lock();
            let State::Running { round, waiters, abort } = &mut inner.state else { return };
            waiters.retain(|(id, _)| *id != ticket);
            if !waiters.is_empty() {
                return;
            }
            let (round, abort) = (*round, abort.take());
            inner.state = State::Stopping { round, next: Vec::new() };
            abort
        };
        if let Some(abort) = abort {
            abort.abort();
        }
    }
}

/// Leaves when dropped.
struct Waiter<'a, T: Clone + Send + 'static> {
    cell: &'a Arc<Lazy<T>>,
    ticket: u64,
}

impl<T: Clone + Send + 'static> Drop for Waiter<'_, T> {
    fn drop(&mut self) {
        self.cell.leave(self.ticket);
    }
}

/// One computation. Its parts are dropped in this order: a round ends after all it was doing.
struct Round<T: Clone + Send + 'static> {
    future: BoxFuture<'static, Answer<T>>,
    ending: Ending<T>,
}

impl<T: Clone + Send + 'static> Future for Round<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let answer = ready!(self.future.poll_unpin(context));
        self.ending.cell.finish(self.ending.round, Some(answer));
        Poll::Ready(())
    }
}

/// Ends the round when the task is dropped without having answered.
struct Ending<T: Clone + Send + 'static> {
    cell: Arc<Lazy<T>>,
    round: u64,
}

impl<T: Clone + Send + 'static> Drop for Ending<T> {
    fn drop(&mut self) {
        self.cell.finish(self.round, None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use shuttle::future::{JoinHandle, block_on, spawn, yield_now};

    use super::*;

    struct ShuttleSpawn;

    impl Abort for JoinHandle<()> {
        fn abort(&self) {
            JoinHandle::abort(self);
        }
    }

    impl Spawn for ShuttleSpawn {
        fn spawn(&self, task: BoxFuture<'static, ()>) -> Box<dyn Abort> {
            Box::new(spawn(task))
        }
    }

    /// What computations of one cell did.
    #[derive(Default)]
    struct Count {
        running: AtomicUsize,
        begun: AtomicUsize,
        completed: AtomicUsize,
    }

    struct Running(Arc<Count>);

    impl Running {
        fn new(count: &Arc<Count>) -> Self {
            count.begun.fetch_add(1, Ordering::SeqCst);
            assert_eq!(count.running.fetch_add(1, Ordering::SeqCst), 0, "two at once");
            Running(Arc::clone(count))
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.running.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn ask(cell: &Arc<Lazy<usize>>, count: &Arc<Count>) -> JoinHandle<Answer<usize>> {
        let (cell, count) = (Arc::clone(cell), Arc::clone(count));
        spawn(async move {
            let compute = move || {
                async move {
                    let _running = Running::new(&count);
                    yield_now().await;
                    yield_now().await;
                    Ok(count.completed.fetch_add(1, Ordering::SeqCst))
                }
                .boxed()
            };
            cell.get(&ShuttleSpawn, compute).await
        })
    }

    /// Many orders: at random, and with few changes between threads, which finds other errors.
    fn check(test: fn()) {
        shuttle::check_random(test, 3_000);
        shuttle::check_pct(test, 3_000, 3);
    }

    #[test]
    fn nobody_who_stays_waits_in_vain_and_nothing_runs_twice() {
        check(|| {
            let (cell, count) = (Lazy::new(), Arc::new(Count::default()));
            let leaving = [ask(&cell, &count), ask(&cell, &count)];
            let staying = [ask(&cell, &count), ask(&cell, &count)];
            let leave = spawn(async move {
                for caller in leaving {
                    caller.abort();
                    yield_now().await;
                }
            });
            // Shuttle fails the test when all that is left waits.
            for caller in staying {
                assert_eq!(block_on(caller).expect("it stays").expect("computed"), 0);
            }
            block_on(leave).expect("no panic");
            assert_eq!(count.completed.load(Ordering::SeqCst), 1);
            assert!(matches!(cell.peek(), Some(Ok(0))));
        });
    }

    #[test]
    fn when_all_have_left_nothing_runs_and_who_comes_then_begins_anew() {
        check(|| {
            let (cell, count) = (Lazy::new(), Arc::new(Count::default()));
            let leaving = ask(&cell, &count);
            leaving.abort();
            // Asks while the first may be on its way out.
            let second = ask(&cell, &count);
            let _ = block_on(leaving);
            block_on(second).expect("it stays").expect("computed");
            assert_eq!(count.completed.load(Ordering::SeqCst), 1);
            assert!(count.begun.load(Ordering::SeqCst) <= 2);
            let third = ask(&Lazy::new(), &count);
            third.abort();
            let _ = block_on(third);
            // The task that was given up ends soon, not at once.
            while count.running.load(Ordering::SeqCst) > 0 {
                shuttle::thread::yield_now();
            }
        });
    }

    #[test]
    fn a_value_that_is_forgotten_is_computed_anew_once() {
        check(|| {
            let (cell, count) = (Lazy::new(), Arc::new(Count::default()));
            block_on(ask(&cell, &count)).expect("it stays").expect("computed");
            let forget = {
                let cell = Arc::clone(&cell);
                shuttle::thread::spawn(move || cell.reset())
            };
            let callers = [ask(&cell, &count), ask(&cell, &count)];
            for caller in callers {
                assert!(block_on(caller).expect("it stays").expect("computed") <= 1);
            }
            forget.join().expect("no panic");
            assert!(count.completed.load(Ordering::SeqCst) <= 2);
        });
    }

    #[test]
    fn a_computation_that_was_cancelled_or_dropped_says_nothing_about_the_next() {
        check(|| {
            let cell = Lazy::<usize>::new();
            let cancelled = {
                let cell = Arc::clone(&cell);
                spawn(async move {
                    let compute = || {
                        async {
                            yield_now().await;
                            Err(Failure::cancelled().shared())
                        }
                        .boxed()
                    };
                    cell.get(&ShuttleSpawn, compute).await
                })
            };
            let failure = block_on(cancelled).expect("it stays").expect_err("cancelled");
            assert_eq!(failure.kind, FailureKind::Cancelled);
            let answer = block_on(ask(&cell, &Arc::default()));
            assert_eq!(answer.expect("it stays").expect("computed"), 0);
        });
    }
}
