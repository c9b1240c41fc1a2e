//! The QEMU runner: a component of world `wbuild:runner/runner` that launches programs of other
//! architectures through QEMU's user mode emulation.
//!
//! This file is the border; every decision is made in [`rules`], which knows no host.

mod rules;

mod bindings {
    // Generated: the component ABI is made of raw pointers.
    #![allow(unsafe_code, missing_docs)]
    wit_bindgen::generate!({
        path: ["../../wit/types", "../../wit/runner"],
        world: "wbuild:runner/runner",
        generate_all,
    });
    export!(Qemu with_types_in self);
    use super::Qemu;
}

use bindings::exports::wbuild::runner::planner::{Failure, Guest, Offer, Platform};
use bindings::wbuild::runner::machine;
use bindings::wbuild::runner::plan::Plan;
use bindings::wbuild::runner::process::Process;
use bindings::wbuild::types::types::{Diagnostic, Severity};
use rules::{Emulator, Facts, Way};
use runner_common::Refusal;

struct Qemu;

impl Guest for Qemu {
    fn supports(platforms: Vec<Platform>) -> Vec<Result<Offer, Failure>> {
        let offer = |platform: &Platform| {
            let facts = facts(platform);
            let attrs = Vec::new();
            let way = rules::way(platform, &facts.0);
            way.map(|way| Offer { rank: way.rank(), how: way.how().to_owned(), attrs })
        };
        platforms.iter().map(|platform| offer(platform).map_err(failure)).collect()
    }

    fn make_plan(process: &Process) -> Result<Plan, Failure> {
        let platform = process.platform();
        let (facts, tool) = facts(&platform);
        let plan = Plan::base();
        match rules::way(&platform, &facts).map_err(failure)? {
            Way::Kernel => {}
            Way::Handler(rule) => {
                let tool = tool.expect("a rule is made for a tool that was found");
                plan.binfmt_rule(&tool, &rule.magic, &rule.mask, &rule.flags)?;
            }
        }
        Ok(plan)
    }
}

/// What the host says that matters for a platform, and its emulator.
fn facts(platform: &Platform) -> (Facts, Option<machine::Tool>) {
    let tool = rules::machine_of(&platform.architecture)
        .and_then(|machine| machine::find_tool(&format!("qemu-{machine}")));
    let facts = Facts {
        native: machine::native_platforms().into_iter().map(|p| p.architecture).collect(),
        kernel_handler: machine::kernel_binfmt(platform)
            .is_some_and(|entry| entry.usable_in_container),
        own_handlers: machine::features()
            .iter()
            .any(|(name, value)| name == "binfmt-userns" && value == "true"),
        emulator: tool.as_ref().map(|tool| Emulator {
            is_static: tool.is_static(),
            version: tool.version().as_deref().and_then(rules::version),
        }),
    };
    (facts, tool)
}

/// The refusal, with its remedy where the host looks for it.
fn failure(refusal: Refusal) -> Failure {
    Failure {
        kind: "unsupported".to_owned(),
        message: refusal.message.clone(),
        retryable: false,
        diagnostics: vec![Diagnostic {
            severity: Severity::Error,
            code: Some("platform-not-emulated".to_owned()),
            message: refusal.message,
            labels: Vec::new(),
            help: Some(refusal.help),
            url: None,
            attrs: Vec::new(),
        }],
        attrs: Vec::new(),
    }
}
