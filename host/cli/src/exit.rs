//! Exit codes, and the one error type of this crate.

use std::fmt;

use wbuild_graph::{Failure, FailureKind, SourceMap};
use wbuild_supply::Problem;

/// What the process says when it ends. `--help` lists them ([`HELP`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Success,
    /// The build or an input failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// A bug of wbuild's (`EX_SOFTWARE` of sysexits.h).
    Bug,
    /// Ended by Ctrl-C or a termination signal.
    Interrupted,
}

/// The paragraph of `--help` about exit codes.
pub const HELP: &str = "\
Exit codes:
  0    done
  1    the build failed, or an input is missing or wrong
  2    the command line is wrong
  70   a bug in wbuild
  130  interrupted";

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Bug => 70,
            Exit::Interrupted => 130,
        }
    }

    /// What a failure of the engine means for the exit code.
    pub fn of(failure: &Failure) -> Self {
        match failure.kind {
            FailureKind::Cancelled => Exit::Interrupted,
            FailureKind::Internal => Exit::Bug,
            _ => Exit::Failed,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit.code())
    }
}

/// A failure and the exit code it leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// How the process ends.
    pub exit: Exit,
    /// What is reported. Boxed: most results are not faults.
    pub failure: Box<Failure>,
    /// What the failure points into.
    pub sources: SourceMap,
}

impl Fault {
    fn new(exit: Exit, failure: Failure) -> Self {
        Fault { exit, failure: Box::new(failure), sources: SourceMap::default() }
    }

    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Fault::new(Exit::Usage, Failure::invalid(message))
    }

    /// The command line names what there is not.
    pub fn misnamed(failure: Failure) -> Self {
        Fault::new(Exit::Usage, failure)
    }

    /// Something the command line names is missing or wrong.
    pub fn input(message: impl Into<String>) -> Self {
        Fault::new(Exit::Failed, Failure::invalid(message))
    }

    /// Known, and not there yet.
    pub fn not_yet(message: impl Into<String>) -> Self {
        Fault::new(Exit::Usage, Failure::unsupported(message))
    }

    /// Adds something the user can try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.failure.hints.push(hint.into());
        self
    }

    /// Adds why it failed.
    #[must_use]
    pub fn cause(mut self, source: &dyn std::error::Error) -> Self {
        *self.failure = self.failure.cause(source);
        self
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Fault::new(Exit::of(&failure), failure)
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        let Problem { failure, sources } = problem;
        Fault { exit: Exit::of(&failure), failure, sources }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_every_code() {
        for exit in [Exit::Success, Exit::Failed, Exit::Usage, Exit::Bug, Exit::Interrupted] {
            let line = format!("\n  {:<4} ", exit.code());
            assert!(HELP.contains(&line), "{exit:?} is not in the help");
        }
    }

    #[test]
    fn failures_map_to_codes() {
        for (failure, code) in [
            (Failure::cancelled(), 130),
            (Failure::internal("x"), 70),
            (Failure::invalid("x"), 1),
            (Failure::new(FailureKind::ExecFailed, "x").attr("exit-code", "2"), 1),
            (Failure::unsupported("x"), 1),
        ] {
            assert_eq!(Exit::of(&failure).code(), code, "{failure}");
        }
        assert_eq!(Fault::usage("x").exit.code(), 2);
    }
}
