//! Targets are planned beside each other: each is a task that goes on until it needs to know what a
//! command did or what an image is. When no task can go on, all questions that are open are answered
//! together, and the tasks go on. So a condition of one target does not hold up another, and any
//! number of conditions that do not depend on each other take as long as the longest.
//!
//! Tasks are polled in the order they were begun, so everything is deterministic.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

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

/// Tasks and what they ask.
pub(super) struct Schedule<'t> {
    begun: RefCell<VecDeque<Task<'t>>>,
    /// Number and question, not yet answered.
    open: RefCell<Vec<(usize, Question)>>,
    answers: RefCell<Vec<Option<Answer>>>,
    /// Something happened that another task may wait for.
    moved: RefCell<bool>,
}

impl<'t> Schedule<'t> {
    pub fn new() -> Self {
        Schedule {
            begun: RefCell::default(),
            open: RefCell::default(),
            answers: RefCell::default(),
            moved: RefCell::new(false),
        }
    }

    /// Begins a task.
    pub fn begin(&self, task: impl Future<Output = ()> + 't) {
        self.begun.borrow_mut().push_back(Box::pin(task));
        self.moved();
    }

    /// Notes that other tasks may be able to go on.
    pub fn moved(&self) {
        *self.moved.borrow_mut() = true;
    }

    async fn ask(&self, question: Question) -> Answer {
        let number = {
            let mut answers = self.answers.borrow_mut();
            answers.push(None);
            self.open.borrow_mut().push((answers.len() - 1, question));
            answers.len() - 1
        };
        poll_fn(|_| match self.answers.borrow_mut()[number].take() {
            Some(answer) => Poll::Ready(answer),
            None => Poll::Pending,
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

    /// Goes on until every task is done. False if some wait for each other.
    pub fn run<'h>(&self, host: &RefCell<&'h mut (dyn DynamicHost + 'h)>) -> bool {
        let mut tasks: Vec<Task<'t>> = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        loop {
            // A task that is done may have been waited for by one before it.
            while self.moved.replace(false) {
                tasks.extend(self.begun.borrow_mut().drain(..));
                tasks.retain_mut(|task| {
                    let pending = task.as_mut().poll(&mut context).is_pending();
                    if !pending {
                        self.moved();
                    }
                    pending
                });
            }
            let open = std::mem::take(&mut *self.open.borrow_mut());
            if open.is_empty() {
                return tasks.is_empty();
            }
            self.answer(open, host);
            self.moved();
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
        let mut answers = self.answers.borrow_mut();
        if !images.is_empty() {
            // Many targets begin with the same.
            let unique: BTreeSet<ImageRequest> =
                images.iter().map(|(_, request)| request.clone()).collect();
            let requests: Vec<ImageRequest> = unique.into_iter().collect();
            let found = host.resolve_images(&requests);
            for (number, request) in images {
                let place = requests.binary_search(&request).ok();
                let answer = place.and_then(|place| found.get(place).cloned());
                answers[number] = Some(Answer::Image(answer.unwrap_or_else(|| Err(no_answer()))));
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
            answers[number] = Some(Answer::Outcome(host.outcome(at)));
        }
        for (number, at) in solved {
            let all = host.evaluate(&at).into_iter().collect::<Result<Vec<()>, Failure>>();
            answers[number] = Some(Answer::Done(all.map(|_| ())));
        }
        if !nested.is_empty() {
            let (numbers, builds): (Vec<usize>, Vec<NestedBuild>) = nested.into_iter().unzip();
            let mut found = host.nested(&builds).into_iter();
            for number in numbers {
                let answer = found.next().unwrap_or_else(|| Err(no_answer()));
                answers[number] = Some(Answer::Nested(answer));
            }
        }
        for (number, names) in publish {
            answers[number] = Some(Answer::Done(host.publish(&names)));
        }
    }
}
