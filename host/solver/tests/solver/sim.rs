//! A scheduler of one thread without a clock: what runs next is its decision, so a run can be
//! repeated exactly.
//!
//! A task goes on when its waker was called. Work that takes time in the real world waits at a
//! [`Gate`] until the scheduler opens it. Two ways to schedule:
//!
//! - [`Sim::settle`] and [`Sim::open_all`]: everything that can go on does, then all gates open at
//!   once. What passes the gates together is a wave.
//! - [`Sim::step`]: one poll, one drop of an aborted task or one gate at a time, picked by a seed.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::future::BoxFuture;
use wbuild_solver::{Abort, Spawn};

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

struct Task {
    /// None while it is polled.
    future: Option<BoxFuture<'static, ()>>,
    waker: Waker,
    ready: bool,
    aborted: bool,
}

#[derive(Default)]
struct State {
    next: u64,
    tasks: BTreeMap<u64, Task>,
    /// Tasks to poll or to drop, in the order in which they became so.
    queue: VecDeque<u64>,
    /// Closed gates that are waited at.
    gates: BTreeMap<u64, Waker>,
}

impl State {
    fn enqueue(&mut self, id: u64) {
        if let Some(task) = self.tasks.get_mut(&id)
            && !std::mem::replace(&mut task.ready, true)
        {
            self.queue.push_back(id);
        }
    }
}

#[derive(Default)]
pub struct Sim {
    state: Mutex<State>,
}

struct Woken {
    sim: Weak<Sim>,
    id: u64,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        if let Some(sim) = self.sim.upgrade() {
            sim.lock().enqueue(self.id);
        }
    }
}

/// A task.
pub struct Handle {
    sim: Weak<Sim>,
    id: u64,
}

impl Abort for Handle {
    fn abort(&self) {
        if let Some(sim) = self.sim.upgrade() {
            let mut state = sim.lock();
            if let Some(task) = state.tasks.get_mut(&self.id) {
                task.aborted = true;
            }
            state.enqueue(self.id);
        }
    }
}

/// The solver's way to start tasks.
pub struct SimSpawn(pub Arc<Sim>);

impl Spawn for SimSpawn {
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Box<dyn Abort> {
        Box::new(self.0.start(task))
    }
}

impl Sim {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it was held")
    }

    pub fn start(self: &Arc<Self>, future: BoxFuture<'static, ()>) -> Handle {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        let waker = Waker::from(Arc::new(Woken { sim: Arc::downgrade(self), id }));
        state.tasks.insert(id, Task { future: Some(future), waker, ready: false, aborted: false });
        state.enqueue(id);
        Handle { sim: Arc::downgrade(self), id }
    }

    /// Polls or drops the task at a place of the queue.
    fn advance(&self, place: usize) {
        let (id, future, waker) = {
            let mut state = self.lock();
            let id = state.queue.remove(place).expect("a place in the queue");
            let Some(task) = state.tasks.get_mut(&id) else { return };
            task.ready = false;
            let future = task.future.take();
            if task.aborted {
                state.tasks.remove(&id);
                drop(state);
                drop(future);
                return;
            }
            (id, future.expect("it is not polled now"), task.waker.clone())
        };
        let mut future = future;
        let poll = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut state = self.lock();
        if poll.is_ready() {
            state.tasks.remove(&id);
            drop(state);
        } else {
            state.tasks.get_mut(&id).expect("only this removes it").future = Some(future);
        }
    }

    /// Lets everything go on that can.
    pub fn settle(&self) {
        while !self.lock().queue.is_empty() {
            self.advance(0);
        }
    }

    /// Opens all gates. Says whether there were any.
    pub fn open_all(&self) -> bool {
        let gates = std::mem::take(&mut self.lock().gates);
        let any = !gates.is_empty();
        gates.into_values().for_each(Waker::wake);
        any
    }

    /// Does one thing of those that can happen next. False: there is none.
    pub fn step(&self, random: &mut Random) -> bool {
        let (tasks, gates) = {
            let state = self.lock();
            (state.queue.len(), state.gates.len())
        };
        if tasks + gates == 0 {
            return false;
        }
        match random.below(tasks + gates) {
            place if place < tasks => self.advance(place),
            place => {
                let mut state = self.lock();
                let id = *state.gates.keys().nth(place - tasks).expect("a gate");
                let waker = state.gates.remove(&id).expect("a gate");
                drop(state);
                waker.wake();
            }
        }
        true
    }

    /// Tasks that have not ended.
    pub fn tasks(&self) -> usize {
        self.lock().tasks.len()
    }

    /// Gates somebody waits at.
    pub fn gates(&self) -> usize {
        self.lock().gates.len()
    }

    /// Waits until the scheduler opens it.
    pub fn gate(self: &Arc<Self>) -> Gate {
        Gate { sim: Arc::clone(self), id: None }
    }
}

/// See [`Sim::gate`].
pub struct Gate {
    sim: Arc<Sim>,
    id: Option<u64>,
}

impl Future for Gate {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let sim = Arc::clone(&self.sim);
        let mut state = sim.lock();
        match self.id {
            Some(id) if !state.gates.contains_key(&id) => Poll::Ready(()),
            Some(id) => {
                state.gates.insert(id, context.waker().clone());
                Poll::Pending
            }
            None => {
                let id = state.next;
                state.next += 1;
                state.gates.insert(id, context.waker().clone());
                self.id = Some(id);
                Poll::Pending
            }
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.sim.lock().gates.remove(&id);
        }
    }
}
