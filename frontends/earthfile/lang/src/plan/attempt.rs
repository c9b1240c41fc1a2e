//! `TRY`: a RUN that may fail, and what is saved of it in any case.
//!
//! If it fails, nothing of its target is carried out any more, and of the build nothing is left
//! behind but what FINALLY saves; then the build fails.

use std::rc::Rc;

use wbuild_dockerfile::{Diagnostic, Failure, Output};

use super::outputs::{Left, Local};
use super::run::{CONDITION, no_docker};
use super::state::{Key, State};
use super::{File, Session, unsupported};
use crate::Code;
use crate::ast::{Kind, Statement};
use crate::flags;

/// A RUN in TRY that has failed.
pub(super) struct Failed {
    key: Key,
    /// The process.
    at: Output,
    /// What FINALLY saves for outside.
    locals: Vec<Local>,
    /// What everybody gets who needs the target.
    failure: Failure,
}

impl<'h> Session<'h> {
    pub(super) async fn attempt(
        self: &Rc<Self>,
        key: &Key,
        file: &Rc<File>,
        state: &mut State,
        body: &[Statement],
        finally: &[Statement],
    ) -> Result<(), Failure> {
        let mut tried = None;
        for statement in body {
            let run = match &statement.kind {
                Kind::Run(run) => run,
                Kind::With { .. } => return Err(no_docker(statement.span)),
                _ => continue,
            };
            let span = statement.line.span();
            if let Some(push) = run.flags.get("push") {
                return Err(unsupported("`--push` of RUN in TRY", flags::span(push)));
            }
            let (exec, no_cache) = self.process(key, state, run, span, Some(CONDITION)).await?;
            let at = self.add_exec(&exec, state, span, &statement.line, no_cache)?;
            state.root = Some(at);
            state.image.add_history(statement.line.as_str().to_owned(), true);
            let code = self.schedule.outcome(at).await?.code;
            if code != 0 {
                let message = format!("the command of TRY has failed with exit code {code}");
                let problem = Diagnostic::error(Code::FailedCommand, span, message);
                tried = Some((at, Failure::from(problem)));
            }
        }
        let from = state.left.len();
        self.commands(key, file, state, finally).await?;
        let Some((at, failure)) = tried else { return Ok(()) };
        let locals = state.left.split_off(from).into_iter().filter_map(|left| match left {
            Left::Local(mut local) => {
                // What is missing is missing because of the failure, which says more.
                local.pass_over_missing();
                Some(local)
            }
            _ => None,
        });
        let locals = locals.collect();
        let (key, told) = (key.clone(), failure.clone());
        self.failed.borrow_mut().push(Failed { key, at, locals, failure: told });
        Err(failure)
    }

    /// Lets the build fail for a RUN in TRY, if that is what the failure of a target comes from: after
    /// what FINALLY saves was left behind.
    pub(super) fn fail(&self, failure: &Failure) -> Result<(), Failure> {
        let failed = self.failed.borrow();
        let Some(first) = failed.iter().find(|failed| failed.failure == *failure) else {
            return Err(failure.clone());
        };
        let outside = |key: &Key| {
            let slots = self.slots.borrow();
            slots.get(key).is_some_and(|slot| slot.need == super::wait::Need::Outside)
        };
        let saving = failed.iter().filter(|failed| outside(&failed.key));
        let locals: Vec<Local> = saving.flat_map(|failed| failed.locals.clone()).collect();
        self.yield_files("", &locals)?;
        self.host.borrow_mut().fail_after(first.at)
    }
}
