//! The native runner: launches what the machine's own kernel and processor run without an emulator.
//!
//! Every decision is made in [`rules`], which asks no host.

mod rules;

use rules::Machine as Facts;
use wbuild_runner::{Job, Machine, Offer, Plan, Platform, Result, Runner};

wbuild_runner::runner!(Native);

struct Native;

impl Runner for Native {
    fn offer(machine: &Machine, platform: &Platform) -> Result<Offer> {
        facts(machine).offer(platform)
    }

    fn plan(machine: &Machine, job: &Job) -> Result<Plan> {
        let facts = facts(machine);
        facts.offer(&job.platform)?;
        let mut plan = Plan::base();
        if facts.wants_linux32(&job.platform) {
            plan = plan.personality("linux32");
        }
        let has_handler = |foreign: &Platform| {
            machine.kernel_handler(foreign).is_some_and(|entry| entry.usable_in_container)
        };
        if let Some(warning) = facts.foreign_program(&job.entry_format, has_handler) {
            plan = plan.warning("foreign-program", warning.message, warning.help);
        }
        Ok(plan)
    }
}

fn facts(machine: &Machine) -> Facts {
    Facts { native: machine.native_platforms(), personality: machine.has("personality") }
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        wbuild_testkit::machine::check("tests/cases", super::runner());
    }
}
