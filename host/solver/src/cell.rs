//! A value that is computed once by a task of its own, for as long as somebody waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;
use futures_util::future::BoxFuture;
use wbuild_graph::{Failure, FailureKind};

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
        let (receiver, ticket) = {
            let mut inner = self.lock();
            let ticket = inner.next;
            inner.next += 1;
            let (sender, receiver) = oneshot::channel();
            match &mut inner.state {
                State::Done(answer) => return answer.clone(),
                State::Running { waiters, .. } => {
                    waiters.push((ticket, sender));
                    (receiver, ticket)
                }
                State::Idle => {
                    inner.state = State::Running {
                        round: ticket,
                        waiters: vec![(ticket, sender)],
                        abort: None,
                    };
                    drop(inner);
                    self.start(spawn, ticket, compute());
                    (receiver, ticket)
                }
            }
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
        let handle = spawn.spawn(Box::pin(async move {
            let answer = future.await;
            ending.cell.finish(ending.round, Some(answer));
        }));
        let mut inner = self.lock();
        match &mut inner.state {
            State::Running { round: now, abort, .. } if *now == round => *abort = Some(handle),
            // Everybody left between the start and now.
            State::Idle => handle.abort(),
            _ => {}
        }
    }

    /// Ends a round. `None`: the task was dropped.
    fn finish(&self, round: u64, answer: Option<Answer<T>>) {
        let waiters = {
            let mut inner = self.lock();
            match &mut inner.state {
                State::Running { round: now, waiters, .. } if *now == round => {
                    let waiters = std::mem::take(waiters);
                    inner.state = match &answer {
                        // Being cancelled says nothing about the vertex: the next one may try.
                        Some(Err(failure)) if failure.kind == FailureKind::Cancelled => State::Idle,
                        Some(answer) => State::Done(answer.clone()),
                        None => State::Idle,
                    };
                    waiters
                }
                _ => return,
            }
        };
        if let Some(answer) = answer {
            for (_, waiter) in waiters {
                // A waiter that left has dropped its receiver.
                let _ = waiter.send(answer.clone());
            }
        }
    }

    fn leave(&self, ticket: u64) {
        let abort = {
            let mut inner = self.lock();
            match &mut inner.state {
                State::Running { waiters, abort, .. } => {
                    waiters.retain(|(id, _)| *id != ticket);
                    if !waiters.is_empty() {
                        return;
                    }
                    let abort = abort.take();
                    inner.state = State::Idle;
                    abort
                }
                _ => return,
            }
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
