//! Called frontends take turns: each goes on until it asks something that has to be waited for, or is
//! done; then the next. When all of them wait, their questions are answered beside each other, and
//! they go on in the same order. So waiting overlaps, and the order in which things are done does not
//! depend on how long anything takes.

use std::future::Future;

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use wbuild_api::extension::NestedResult;
use wbuild_graph::Failure;

use super::Begun;
use crate::job::Job;

/// Lets who waits for an answer go on.
type Deliver = Box<dyn FnOnce() + Send>;

/// What ends a turn.
enum Told {
    /// A question; its future answers it, without letting anybody go on.
    Asks(BoxFuture<'static, Deliver>),
    Done(Result<(), Failure>),
}

/// Where a called frontend asks.
#[derive(Clone)]
pub(super) struct Ask(mpsc::UnboundedSender<Told>);

/// What it asks.
pub(super) struct Questions {
    told: mpsc::UnboundedReceiver<Told>,
    ask: Ask,
}

/// Both ends, for one frontend.
pub(super) fn questions() -> (Ask, Questions) {
    let (sender, told) = mpsc::unbounded_channel();
    (Ask(sender.clone()), Questions { told, ask: Ask(sender) })
}

impl Ask {
    /// Ends the turn with a question, and answers it in the next one.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let asked = Box::pin(async move {
            let answer = question.await;
            Box::new(move || {
                let _ = reply.send(answer);
            }) as Deliver
        });
        self.0.send(Told::Asks(asked)).map_err(|_| Failure::cancelled())?;
        answer.await.map_err(|_| Failure::cancelled())
    }
}

/// Ends a task with who waits for it.
struct Ends(AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs called frontends beside each other; one answer each, in order.
pub(super) async fn run(
    job: &Job,
    wave: Vec<Result<Begun, Failure>>,
) -> Vec<Result<NestedResult, Failure>> {
    let mut answers = Vec::new();
    let mut runs = Vec::new();
    let mut next: Vec<(usize, Deliver)> = Vec::new();
    for (number, begun) in wave.into_iter().enumerate() {
        answers.push(Err(Failure::internal("a called frontend has not ended")));
        match begun {
            Err(failure) => {
                answers[number] = Err(failure);
                runs.push(None);
            }
            Ok(Begun { frontend, host, called, turns: Questions { told, ask } }) => {
                let (go, begin) = oneshot::channel::<()>();
                // A task of its own: its processor time is not its caller's.
                let task = job.beside(async move {
                    if begin.await.is_ok() {
                        let result = frontend.build(host).await;
                        let _ = ask.0.send(Told::Done(result));
                    }
                });
                next.push((
                    number,
                    Box::new(move || {
                        let _ = go.send(());
                    }),
                ));
                runs.push(Some((told, called, Ends(task))));
            }
        }
    }
    while !next.is_empty() {
        let mut asked = Vec::new();
        for (number, deliver) in next {
            let Some((told, called, _)) = &mut runs[number] else { continue };
            deliver();
            match told.recv().await {
                Some(Told::Asks(question)) => asked.push((number, question)),
                Some(Told::Done(Ok(()))) => answers[number] = Ok(called.yielded()),
                Some(Told::Done(Err(failure))) => answers[number] = Err(failure),
                // It panicked, or the build is over.
                None => {}
            }
        }
        let answered = asked.into_iter().map(async |(number, question)| (number, question.await));
        next = join_all(answered).await;
    }
    answers
}
