//! @NAME@: a runner for wbuild.
//!
//! It runs what the machine runs, and lets no process gain privileges: what may be changed of the
//! proposal of the host is said in `vendor/wbuild/wit/runner`.

use wbuild_runner::{Error, FailureKind, Job, Machine, Offer, Plan, Platform, Result, Runner, offer};

wbuild_runner::runner!(Mine);

struct Mine;

impl Runner for Mine {
    fn offer(machine: &Machine, platform: &Platform) -> Result<Offer> {
        if machine.native_platforms().contains(platform) {
            return Ok(offer(0, "native"));
        }
        // Both are shown when no runner of the build makes an offer.
        let message = format!("@NAME@ does not run {platform} on this machine");
        Err(Error::new(FailureKind::Unsupported, message).help("name a runner that emulates it"))
    }

    fn plan(_machine: &Machine, job: &Job) -> Result<Plan> {
        // `Plan::base()` is the ordinary answer: the process as wbuild proposes it. Here it may do
        // less: it gets no new privileges, whatever programs it starts.
        let mut spec: serde_json::Value = serde_json::from_str(&job.base_spec)?;
        spec["process"]["noNewPrivileges"] = true.into();
        Ok(Plan::edited(&spec))
    }
}

#[cfg(test)]
mod tests {
    use wbuild_testkit::{Machine, machine};

    use super::runner;

    /// Everything in tests/cases; UPDATE=1 writes anew what is expected.
    #[test]
    fn cases() {
        machine::check("tests/cases", runner());
    }

    #[test]
    fn says_what_does_not_run_here() {
        let said = Machine::new(&["linux/amd64"]).asked(&["linux/s390x"]).ask(runner());
        assert!(said.contains("does not run linux/s390x"), "{said}");
    }
}
