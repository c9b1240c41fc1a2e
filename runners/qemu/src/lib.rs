//! The QEMU runner: launches programs of other architectures through QEMU's user mode emulation.
//!
//! Every decision is made in [`rules`], which asks no host.

mod rules;

use rules::{Emulator, Facts, Way};
use wbuild_runner::{Job, Machine, Offer, Plan, Platform, Result, Runner, Tool, offer};

wbuild_runner::runner!(Qemu);

struct Qemu;

impl Runner for Qemu {
    fn offer(machine: &Machine, platform: &Platform) -> Result<Offer> {
        let way = rules::way(platform, &facts(machine, platform).0)?;
        Ok(offer(way.rank(), way.how()))
    }

    fn plan(machine: &Machine, job: &Job) -> Result<Plan> {
        let (facts, tool) = facts(machine, &job.platform);
        Ok(match rules::way(&job.platform, &facts)? {
            Way::Kernel => Plan::base(),
            Way::Handler(rule) => {
                let tool = tool.expect("a rule is made for a tool that was found");
                Plan::base().handler(&tool, rule.magic, rule.mask, rule.flags)
            }
        })
    }
}

/// What the host says that matters for a platform, and its emulator.
fn facts(machine: &Machine, platform: &Platform) -> (Facts, Option<Tool>) {
    let tool = rules::machine_of(&platform.architecture)
        .and_then(|name| machine.tool(&format!("qemu-{name}")));
    let facts = Facts {
        native: machine.native_platforms().into_iter().map(|p| p.architecture).collect(),
        kernel_handler: machine
            .kernel_handler(platform)
            .is_some_and(|entry| entry.usable_in_container),
        own_handlers: machine.has("binfmt-userns"),
        emulator: tool.as_ref().map(|tool| Emulator {
            is_static: tool.is_static,
            version: tool.version.as_deref().and_then(rules::version),
        }),
    };
    (facts, tool)
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        wbuild_testkit::machine::check("tests/cases", super::runner());
    }
}
