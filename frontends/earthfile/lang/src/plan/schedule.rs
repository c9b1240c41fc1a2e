//! Targets are planned beside each other: each is a task that goes on until it needs to know what a
//! command did or what an image is. When no task can go on, all questions that are open are answered
//! together, and the tasks go on. So a condition of one target does not hold up another, and any
//! number of conditions that do not depend on each other take as long as the longest.
//!
//! Tasks that can go on are polled in the order they were begun, over and over, so everything is
//! deterministic. One that waits is not polled until what it waits for wakes it: there may be thousands.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use wbuild_dockerfile::{Failure, ImageInfo, ImageRequest, Output};

use super::host::{DynamicHost, NestedBuild, NestedImage, Outcome};

/// What a task waits for.
#[derive(Clone, Debug)]
pub(super) enum Question {
    /// Which image it is.
    Image(ImageRequest),
    /// What a captured exec did.
    Outcome(Output),
    /// Whether all of these can be made.
    Solved(Vec<Output>),
    /// Results are to be left behind now.
    Publish(Vec<String>),
    /// What another frontend makes of something.
    Nested(Box<NestedBuild>),
}

/// The answer to a [`Question`].
#[derive(Clone, Debug)]
enum Answer {
    Image(Result<ImageInfo, Failure>),
    Outcome(Result<Outcome, Failure>),
    Done(Result<(), Failure>),
    Nested(Result<Vec<NestedImage>, Failure>),
}

fn no_answer() -> Failure {
    Failure::new("internal", "the host did not answer a question")
}

fn other_kind() -> Failure {
    Failure::new("internal", "the answer is of another kind")
}

type Task<'t> = Pin<Box<dyn Future<Output = ()> + 't>>;

/// The numbers of tasks that can go on.
#[derive(Default)]
struct Ready(Mutex<BTreeSet<usize>>);

impl Ready {
    fn add(&self, task: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(task);
    }

    /// Takes the first that is not below a number.
    fn take(&self, from: usize) -> Option<usize> {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *tasks.range(from..).next()?;
        tasks.remove(&first);
        Some(first)
    }
}

/// Lets a task go on.
struct TaskWaker {
    task: usize,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.add(self.task);
    }
}

/// Tasks in the order they were begun; nothing is left of one that is done.
#[derive(Default)]
struct Tasks<'t> {
    all: Vec<Option<(Task<'t>, Waker)>>,
    pending: usize,
}

/// What a task asked, until it has taken the answer.
#[derive(Default)]
struct Asked {
    answer: Option<Answer>,
    waits: Option<Waker>,
}

/// Tasks and what they ask.
pub(super) struct Schedule<'t> {
    begun: RefCell<VecDeque<Task<'t>>>,
    /// Number and question, not yet answered.
    open: RefCell<Vec<(usize, Question)>>,
    asked: RefCell<Vec<Asked>>,
    ready: Arc<Ready>,
}

impl<'t> Schedule<'t> {
    pub fn new() -> Self {
        Schedule {
            begun: RefCell::default(),
            open: RefCell::default(),
            asked: RefCell::default(),
            ready: Arc::default(),
        }
    }

    /// Begins a task.
    pub fn begin(&self, task: impl Future<Output = ()> + 't) {
        self.begun.borrow_mut().push_back(Box::pin(task));
    }

    async fn ask(&self, question: Question) -> Answer {
        let number = {
            let mut asked = self.asked.borrow_mut();
            asked.push(Asked::default());
            self.open.borrow_mut().push((asked.len() - 1, question));
            asked.len() - 1
        };
        poll_fn(|context| {
            let asked = &mut self.asked.borrow_mut()[number];
            match asked.answer.take() {
                Some(answer) => Poll::Ready(answer),
                None => {
                    asked.waits = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Which image it is.
    pub async fn image(&self, request: ImageRequest) -> Result<ImageInfo, Failure> {
        match self.ask(Question::Image(request)).await {
            Answer::Image(answer) => answer,
            _ => Err(other_kind()),
        }
    }

    /// What a captured exec did.
    pub async fn outcome(&self, at: Output) -> Result<Outcome, Failure> {
        match self.ask(Question::Outcome(at)).await {
            Answer::Outcome(answer) => answer,
            _ => Err(other_kind()),
        }
    }

    /// Waits until all of these are made.
    pub async fn solved(&self, at: Vec<Output>) -> Result<(), Failure> {
        match self.ask(Question::Solved(at)).await {
            Answer::Done(answer) => answer,
            _ => Err(other_kind()),
        }
    }

    /// Leaves results behind, and waits for that.
    pub async fn publish(&self, names: Vec<String>) -> Result<(), Failure> {
        match self.ask(Question::Publish(names)).await {
            Answer::Done(answer) => answer,
            _ => Err(other_kind()),
        }
    }

    /// The images that another frontend makes.
    pub async fn nested(&self, build: NestedBuild) -> Result<Vec<NestedImage>, Failure> {
        match self.ask(Question::Nested(Box::new(build))).await {
            Answer::Nested(answer) => answer,
            _ => Err(other_kind()),
        }
    }

    /// Goes on with every task until all of them wait.
    fn go_on(&self, tasks: &mut Tasks<'t>) {
        loop {
            // What went on may have begun others, or woken those before it.
            for task in self.begun.borrow_mut().drain(..) {
                let number = tasks.all.len();
                let waker = Arc::new(TaskWaker { task: number, ready: Arc::clone(&self.ready) });
                tasks.all.push(Some((task, Waker::from(waker))));
                tasks.pending += 1;
                self.ready.add(number);
            }
            let mut from = 0;
            while let Some(number) = self.ready.take(from) {
                from = number + 1;
                let Some((task, waker)) = &mut tasks.all[number] else { continue };
                if task.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
                    tasks.all[number] = None;
                    tasks.pending -= 1;
                }
            }
            if from == 0 {
                return;
            }
        }
    }

    /// Goes on until every task is done. False if some wait for each other.
    pub fn run<'h>(&self, host: &RefCell<&'h mut (dyn DynamicHost + 'h)>) -> bool {
        let mut tasks = Tasks::default();
        loop {
            self.go_on(&mut tasks);
            let open = std::mem::take(&mut *self.open.borrow_mut());
            if open.is_empty() {
                return tasks.pending == 0;
            }
            self.answer(open, host);
        }
    }

    fn answer<'h>(
        &self,
        open: Vec<(usize, Question)>,
        host: &RefCell<&'h mut (dyn DynamicHost + 'h)>,
    ) {
        let mut host = host.borrow_mut();
        let mut images: Vec<(usize, ImageRequest)> = Vec::new();
        let mut outcomes: Vec<(usize, Output)> = Vec::new();
        let mut solved: Vec<(usize, Vec<Output>)> = Vec::new();
        let mut publish: Vec<(usize, Vec<String>)> = Vec::new();
        let mut nested: Vec<(usize, NestedBuild)> = Vec::new();
        for (number, question) in open {
            match question {
                Question::Image(request) => images.push((number, request)),
                Question::Outcome(at) => outcomes.push((number, at)),
                Question::Solved(at) => solved.push((number, at)),
                Question::Publish(names) => publish.push((number, names)),
                Question::Nested(build) => nested.push((number, *build)),
            }
        }
        let mut asked = self.asked.borrow_mut();
        let mut answered = |number: usize, answer: Answer| {
            let asked = &mut asked[number];
            asked.answer = Some(answer);
            if let Some(waits) = asked.waits.take() {
                waits.wake();
            }
        };
        if !images.is_empty() {
            // Many targets begin with the same.
            let unique: BTreeSet<ImageRequest> =
                images.iter().map(|(_, request)| request.clone()).collect();
            let requests: Vec<ImageRequest> = unique.into_iter().collect();
            let found = host.resolve_images(&requests);
            for (number, request) in images {
                let place = requests.binary_search(&request).ok();
                let answer = place.and_then(|place| found.get(place).cloned());
                answered(number, Answer::Image(answer.unwrap_or_else(|| Err(no_answer()))));
            }
        }
        if outcomes.len() + solved.len() > 1 {
            // Beside each other; what fails says so again when it is asked for.
            let wanted = outcomes.iter().map(|(_, at)| *at);
            let wanted = wanted.chain(solved.iter().flat_map(|(_, at)| at.iter().copied()));
            let mut nodes: Vec<Output> = wanted.collect();
            nodes.sort_unstable();
            nodes.dedup();
            host.evaluate(&nodes);
        }
        for (number, at) in outcomes {
            answered(number, Answer::Outcome(host.outcome(at)));
        }
        for (number, at) in solved {
            let all = host.evaluate(&at).into_iter().collect::<Result<Vec<()>, Failure>>();
            answered(number, Answer::Done(all.map(|_| ())));
        }
        if !nested.is_empty() {
            let (numbers, builds): (Vec<usize>, Vec<NestedBuild>) = nested.into_iter().unzip();
            let mut found = host.nested(&builds).into_iter();
            for number in numbers {
                let answer = found.next().unwrap_or_else(|| Err(no_answer()));
                answered(number, Answer::Nested(answer));
            }
        }
        for (number, names) in publish {
            answered(number, Answer::Done(host.publish(&names)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// A chain of tasks, each of which begins the next and waits for it.
    #[derive(Default)]
    struct Chain {
        done: RefCell<Vec<usize>>,
        last: RefCell<Option<Waker>>,
        waiting: RefCell<Vec<Option<Waker>>>,
        polls: Cell<usize>,
    }

    const LENGTH: usize = 1000;

    fn begin(schedule: &Rc<Schedule<'static>>, chain: &Rc<Chain>, number: usize) {
        let (on, chain) = (Rc::downgrade(schedule), Rc::clone(chain));
        schedule.begin(async move {
            if number + 1 < LENGTH {
                begin(&on.upgrade().expect("it runs"), &chain, number + 1);
                poll_fn(|context| {
                    chain.polls.set(chain.polls.get() + 1);
                    if chain.done.borrow().contains(&(number + 1)) {
                        return Poll::Ready(());
                    }
                    chain.waiting.borrow_mut()[number + 1] = Some(context.waker().clone());
                    Poll::Pending
                })
                .await;
            } else {
                // The last waits for somebody else.
                let mut asked = false;
                poll_fn(|context| {
                    *chain.last.borrow_mut() = Some(context.waker().clone());
                    if std::mem::replace(&mut asked, true) {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
            }
            chain.done.borrow_mut().push(number);
            if let Some(waker) = chain.waiting.borrow_mut()[number].take() {
                waker.wake();
            }
        });
    }

    #[test]
    fn what_waits_is_not_polled() {
        let (schedule, chain) = (Rc::new(Schedule::new()), Rc::new(Chain::default()));
        chain.waiting.borrow_mut().resize(LENGTH, None);
        begin(&schedule, &chain, 0);
        let mut tasks = Tasks::default();
        schedule.go_on(&mut tasks);
        assert_eq!((tasks.pending, chain.polls.get()), (LENGTH, LENGTH - 1));
        chain.last.take().expect("the last waits").wake();
        schedule.go_on(&mut tasks);
        assert_eq!((tasks.pending, chain.polls.get()), (0, 2 * (LENGTH - 1)));
        assert!(chain.done.borrow().iter().copied().eq((0..LENGTH).rev()), "in another order");
    }
}
