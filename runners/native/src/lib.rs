//! The native runner: a component of world `wbuild:runner/runner` that launches what the
//! machine's own kernel and processor run without an emulator.
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
    export!(Native with_types_in self);
    use super::Native;
}

use bindings::exports::wbuild::runner::planner::{Failure, Guest, Offer, Platform};
use bindings::wbuild::runner::machine;
use bindings::wbuild::runner::plan::Plan;
use bindings::wbuild::runner::process::Process;
use bindings::wbuild::types::types::{Diagnostic, Severity};
use rules::Machine;
use runner_common::Refusal;

struct Native;

impl Guest for Native {
    fn supports(platforms: Vec<Platform>) -> Vec<Result<Offer, Failure>> {
        let machine = machine();
        platforms.iter().map(|platform| machine.offer(platform).map_err(failure)).collect()
    }

    fn make_plan(process: &Process) -> Result<Plan, Failure> {
        let machine = machine();
        let platform = process.platform();
        machine.offer(&platform).map_err(failure)?;
        let plan = Plan::base();
        if machine.wants_linux32(&platform) {
            plan.personality("linux32")?;
        }
        let has_handler = |foreign: &Platform| {
            machine::kernel_binfmt(foreign).is_some_and(|entry| entry.usable_in_container)
        };
        if let Some(warning) = machine.foreign_program(&process.entry_format(), has_handler) {
            plan.warn(&Diagnostic {
                severity: Severity::Warning,
                code: Some("foreign-program".to_owned()),
                message: warning.message,
                labels: Vec::new(),
                help: Some(warning.help),
                url: None,
                attrs: Vec::new(),
            });
        }
        Ok(plan)
    }
}

/// What the host says of the machine.
fn machine() -> Machine {
    let personality =
        machine::features().iter().any(|(name, value)| name == "personality" && value != "false");
    Machine { native: machine::native_platforms(), personality }
}

/// The refusal, with its remedy where the host looks for it.
fn failure(refusal: Refusal) -> Failure {
    Failure {
        kind: "unsupported".to_owned(),
        message: refusal.message.clone(),
        retryable: false,
        diagnostics: vec![Diagnostic {
            severity: Severity::Error,
            code: Some("platform-not-native".to_owned()),
            message: refusal.message,
            labels: Vec::new(),
            help: Some(refusal.help),
            url: None,
            attrs: Vec::new(),
        }],
        attrs: Vec::new(),
    }
}
