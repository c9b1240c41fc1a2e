//! What processes have printed that is kept for frontends: each outcome is at most some megabytes, and is
//! held until its build ends, so all of a build's together have a bound.

use std::sync::atomic::{AtomicUsize, Ordering};

use wbuild_api::extension::Outcome;
use wbuild_graph::{Failure, FailureKind};

/// All that is kept for one build, in bytes: far more than conditions and values need.
const KEPT: usize = 256 << 20;

/// What is kept for one build.
#[derive(Debug, Default)]
pub(crate) struct Captured(AtomicUsize);

impl Captured {
    /// Counts an outcome that is held from now on.
    ///
    /// # Errors
    ///
    /// `Limit` when it is too much.
    pub(crate) fn hold(&self, outcome: Option<&Outcome>) -> Result<(), Failure> {
        let Some(outcome) = outcome else { return Ok(()) };
        let bytes = outcome.stdout.len() + outcome.stderr.len();
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= KEPT {
            return Ok(());
        }
        let message = format!(
            "the processes of this build have printed more than {} MiB that its frontend captures",
            KEPT >> 20
        );
        Err(Failure::new(FailureKind::Limit, message)
            .hint("a frontend captures what it decides by; what is long belongs into a file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_outcomes_of_a_build_have_one_bound() {
        let outcome = |stdout: usize, stderr: usize| Outcome {
            exit_code: 0,
            stdout: vec![b'x'; stdout],
            stdout_truncated: false,
            stderr: vec![b'x'; stderr],
            stderr_truncated: false,
        };
        let captured = Captured::default();
        let large = outcome(KEPT / 4, KEPT / 4);
        for _ in 0..2 {
            captured.hold(Some(&large)).expect("there is room for it");
            captured.hold(None).expect("nothing is kept");
        }
        let failure = captured.hold(Some(&outcome(1, 0))).expect_err("one more");
        assert_eq!(failure.kind, FailureKind::Limit);
        assert!(failure.message.contains("more than 256 MiB"), "{failure}");
    }
}
