//! The imports and exports of a component.

use std::sync::Arc;

use wbuild_api::extension::{BinfmtEntry, Job, LaunchPlan, MachineCap, MountView, Tool};
use wbuild_graph::{Attrs, Failure, FailureKind, Platform};
use wbuild_guest::wasm::{answer, diagnostic_out, failure_out, platform_in, platform_out, wit};

use crate::{Machine, Result, Runner};

/// Generated: the component ABI is made of raw pointers.
#[allow(unsafe_code, missing_docs, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: ["../../../../wit/types", "../../../../wit/runner"],
        world: "wbuild:runner/runner",
        with: {
            "wbuild:types/types@0.1.0": wbuild_guest::wasm::wit,
            "wbuild:types/log@0.1.0": wbuild_guest::wasm::wit_log,
        },
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_planner",
        default_bindings_module: "wbuild_runner::wasm::bindings",
    });
}

pub use bindings::exports::wbuild::runner::planner;
use bindings::wbuild::runner::machine;

/// What the host says of the machine.
struct Imports;

impl MachineCap for Imports {
    fn native_platforms(&self) -> Vec<Platform> {
        machine::native_platforms().into_iter().map(platform_in).collect()
    }

    fn kernel_binfmt(&self, platform: Platform) -> Option<BinfmtEntry> {
        let entry = machine::kernel_binfmt(&platform_out(&platform))?;
        Some(BinfmtEntry {
            flags: entry.flag_letters,
            usable_in_container: entry.usable_in_container,
            attrs: Attrs(entry.attrs),
        })
    }

    fn features(&self) -> Attrs {
        Attrs(machine::features())
    }

    fn find_tool(&self, name: String) -> Option<Tool> {
        let tool = machine::find_tool(&name)?;
        Some(Tool {
            name: tool.name(),
            digest: wbuild_graph::draft::digest(&tool.digest()).ok()?,
            is_static: tool.is_static(),
            version: tool.version(),
        })
    }
}

fn job_in(process: &planner::Process) -> Job {
    let mount = |mount: bindings::wbuild::runner::process::MountView| MountView {
        slot: mount.slot,
        target: mount.target,
        kind: mount.kind,
        readonly: mount.readonly,
        attrs: Attrs(mount.attrs),
    };
    Job {
        platform: platform_in(process.platform()),
        args: process.args(),
        env: process.env(),
        cwd: process.cwd(),
        mounts: process.mounts().into_iter().map(mount).collect(),
        entry_format: process.entry_format(),
        base_spec: process.base_spec(),
        attrs: Attrs(process.attrs()),
    }
}

fn plan_out(plan: LaunchPlan) -> Result<planner::Plan, Failure> {
    let out = match plan.spec {
        Some(spec) => answer(planner::Plan::from_spec(&spec), |plan| plan)?,
        None => planner::Plan::base(),
    };
    let tool = |name: &str| {
        let denied =
            || Failure::new(FailureKind::Denied, format!("the tool {name:?} is not granted"));
        machine::find_tool(name).ok_or_else(denied)
    };
    for (name, target) in plan.tools {
        answer(out.bind_tool(&tool(&name)?, &target), |()| ())?;
    }
    for rule in plan.binfmt {
        let tool = tool(&rule.tool)?;
        answer(out.binfmt_rule(&tool, &rule.magic, &rule.mask, &rule.flags), |()| ())?;
    }
    if let Some(domain) = plan.personality {
        answer(out.personality(&domain), |()| ())?;
    }
    for warning in plan.warnings {
        out.warn(&diagnostic_out(warning));
    }
    Ok(out)
}

/// `planner.supports`
pub fn supports<R: Runner>(
    platforms: Vec<planner::Platform>,
) -> Vec<Result<planner::Offer, wit::Failure>> {
    wbuild_guest::wasm::report_panics();
    let machine = Machine::new(Arc::new(Imports));
    let offer = |platform| {
        let offer = R::offer(&machine, &platform_in(platform));
        let offer = offer.map_err(|error| failure_out(crate::refusal(error)))?;
        Ok(planner::Offer { rank: offer.rank, how: offer.how, attrs: offer.attrs.0 })
    };
    platforms.into_iter().map(offer).collect()
}

/// `planner.make-plan`
///
/// # Errors
///
/// Those of the runner, and of the host about its plan.
pub fn make_plan<R: Runner>(process: &planner::Process) -> Result<planner::Plan, wit::Failure> {
    wbuild_guest::wasm::run(|| {
        let plan = R::plan(&Machine::new(Arc::new(Imports)), &job_in(process))?;
        Ok(plan_out(plan.into_parts())?)
    })
}
