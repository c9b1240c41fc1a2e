//! `wbuild:runner@0.1`.

use std::sync::Arc;

use wasmtime::component::{Linker, Resource};
use wbuild_api::extension::{BinfmtRule, Job, LaunchPlan, LogCap, Offer, RunnerHost, Tool};
use wbuild_graph::{Attrs, Failure, decode};

use super::builders::{Pairs, pairs_size, texts_size};
use super::types::{
    self, answer, diagnostic_in, failure_in, failure_out, platform_in, platform_out, wit,
};
use crate::state::{Access, Builder, Capabilities, GuestState};

/// Generated from `wit/runner`.
#[allow(missing_docs, unsafe_code, clippy::all)]
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: ["../../wit/types", "../../wit/runner"],
        world: "wbuild:runner/runner",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "wbuild:types/types": crate::v0_1::types::bindings::wbuild::types::types,
            "wbuild:types/log": crate::v0_1::types::bindings::wbuild::types::log,
            "wbuild:runner/machine.tool": crate::v0_1::runner::ToolHandle,
            "wbuild:runner/job.job": crate::v0_1::runner::JobHandle,
            "wbuild:runner/plan.plan": crate::v0_1::runner::PlanBuilder,
        },
    });
}

pub(crate) use bindings::RunnerPre;
use bindings::exports::wbuild::runner::planner;
use bindings::wbuild::runner::{job, machine, plan};

/// A granted tool; held by the guest.
pub type ToolHandle = Tool;
/// The job that is planned; lent to the guest.
pub type JobHandle = Arc<Job>;
/// A plan under construction.
pub type PlanBuilder = Builder<PlanDraft>;

/// State of a runner's store.
pub(crate) type State = GuestState<RunnerCaps>;

/// What a runner may do in one call.
pub(crate) struct RunnerCaps {
    pub(crate) host: RunnerHost,
    /// None while platforms are asked about.
    pub(crate) job: Option<Arc<Job>>,
    /// Names of tools handed out, sorted.
    pub(crate) granted: Vec<String>,
}

impl Capabilities for RunnerCaps {
    fn log(&self) -> &Arc<dyn LogCap> {
        &self.host.log
    }
}

/// A plan as the guest describes it.
pub struct PlanDraft {
    /// The spec as edited; none = the base spec.
    edited: Option<String>,
    /// What the clamp made of it when it was given, and the tools it knew of then.
    clamped: Option<(String, Vec<String>)>,
    plan: LaunchPlan,
}

/// Execution domains a plan may choose.
const PERSONALITIES: [&str; 2] = ["linux", "linux32"];
/// Longest magic of a binfmt rule: what the kernel looks at of a file (`BINPRM_BUF_SIZE`).
const MAGIC_BYTES: usize = 256;

impl PlanDraft {
    fn base() -> Self {
        PlanDraft { edited: None, clamped: None, plan: LaunchPlan::default() }
    }

    fn bind_tool(&mut self, tool: String, target: String) -> Result<(), Failure> {
        if !target.starts_with('/') || target.contains('\0') {
            return Err(Failure::invalid(format!("the tool target {target:?} is not absolute")));
        }
        if self.plan.tools.iter().any(|(_, taken)| *taken == target) {
            return Err(Failure::invalid(format!("two tools are bound at {target}")));
        }
        self.plan.tools.push((tool, target));
        Ok(())
    }

    fn binfmt_rule(&mut self, rule: BinfmtRule) -> Result<(), Failure> {
        if rule.magic.is_empty() || rule.magic.len() > MAGIC_BYTES {
            return Err(Failure::invalid(format!(
                "a binfmt magic has 1 to {MAGIC_BYTES} bytes, not {}",
                rule.magic.len()
            )));
        }
        if rule.mask.len() != rule.magic.len() {
            return Err(Failure::invalid("a binfmt mask is as long as its magic"));
        }
        if let Some(bad) = rule.flags.chars().find(|c| !"OCFP".contains(*c)) {
            return Err(Failure::unsupported(format!("unknown binfmt flag {bad:?}"))
                .hint("expected some of: O, C, F, P"));
        }
        self.plan.binfmt.push(rule);
        Ok(())
    }

    fn personality(&mut self, domain: String) -> Result<(), Failure> {
        if !PERSONALITIES.contains(&domain.as_str()) {
            return Err(Failure::unsupported(format!("unknown personality {domain:?}"))
                .hint(format!("expected one of: {}", PERSONALITIES.join(", "))));
        }
        self.plan.personality = Some(domain);
        Ok(())
    }

    /// The tools the plan uses, sorted.
    fn tools(&self) -> Vec<String> {
        let bound = self.plan.tools.iter().map(|(tool, _)| tool);
        let registered = self.plan.binfmt.iter().map(|rule| &rule.tool);
        let mut tools: Vec<String> = bound.chain(registered).cloned().collect();
        tools.sort();
        tools.dedup();
        tools
    }
}

/// Everything a runner may import.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::wit::add_to_linker::<_, Access<RunnerCaps>>(linker, |state| state)?;
    types::log::add_to_linker::<_, Access<RunnerCaps>>(linker, |state| state)?;
    machine::add_to_linker::<_, Access<RunnerCaps>>(linker, |state| state)?;
    job::add_to_linker::<_, Access<RunnerCaps>>(linker, |state| state)?;
    plan::add_to_linker::<_, Access<RunnerCaps>>(linker, |state| state)
}

/// Converts what `supports` answers.
pub(crate) fn offers_in(
    offers: Vec<Result<planner::Offer, wit::Failure>>,
) -> Vec<Result<Offer, Failure>> {
    let offer = |offer: planner::Offer| Offer {
        rank: offer.rank,
        how: offer.how,
        attrs: Attrs(offer.attrs),
    };
    offers.into_iter().map(|answer| answer.map(offer).map_err(failure_in)).collect()
}

impl State {
    /// Takes the plan that `make-plan` answered. The clamp has the last word, with the tools the
    /// plan really uses.
    pub(crate) fn take_plan(
        &mut self,
        plan: Resource<PlanBuilder>,
    ) -> wasmtime::Result<Result<LaunchPlan, Failure>> {
        let draft = match self.finish(plan)? {
            Ok(draft) => draft,
            Err(failure) => return Ok(Err(failure)),
        };
        let tools = draft.tools();
        let mut plan = draft.plan;
        if let Some(edited) = draft.edited {
            plan.spec = match draft.clamped {
                Some((spec, known)) if known == tools => Some(spec),
                _ => match self.clamp(edited, tools)? {
                    Ok(spec) => Some(spec),
                    Err(failure) => return Ok(Err(failure)),
                },
            };
        }
        Ok(Ok(plan))
    }

    fn clamp(
        &self,
        edited: String,
        tools: Vec<String>,
    ) -> wasmtime::Result<Result<String, Failure>> {
        let caps = self.caps()?;
        let Some(job) = &caps.job else {
            return Ok(Err(Failure::invalid("there is no job to plan for")));
        };
        Ok(caps.host.clamp.clamp(job.base_spec.clone(), edited, tools))
    }
}

impl machine::Host for State {
    fn native_platforms(&mut self) -> wasmtime::Result<Vec<wit::Platform>> {
        let platforms = self.caps()?.host.machine.native_platforms();
        Ok(platforms.into_iter().map(platform_out).collect())
    }

    fn kernel_binfmt(
        &mut self,
        platform: wit::Platform,
    ) -> wasmtime::Result<Option<machine::BinfmtEntry>> {
        let entry = self.caps()?.host.machine.kernel_binfmt(platform_in(platform));
        Ok(entry.map(|entry| machine::BinfmtEntry {
            flag_letters: entry.flags,
            usable_in_container: entry.usable_in_container,
            attrs: entry.attrs.0,
        }))
    }

    fn features(&mut self) -> wasmtime::Result<Pairs> {
        Ok(self.caps()?.host.machine.features().0)
    }

    fn find_tool(&mut self, name: String) -> wasmtime::Result<Option<Resource<ToolHandle>>> {
        let caps = self.caps_mut()?;
        let Some(tool) = caps.host.machine.find_tool(name) else { return Ok(None) };
        if let Err(at) = caps.granted.binary_search(&tool.name) {
            caps.granted.insert(at, tool.name.clone());
        }
        Ok(Some(self.push(tool)?))
    }
}

impl machine::HostTool for State {
    fn name(&mut self, this: Resource<ToolHandle>) -> wasmtime::Result<String> {
        Ok(self.table.get(&this)?.name.clone())
    }

    fn digest(&mut self, this: Resource<ToolHandle>) -> wasmtime::Result<String> {
        Ok(self.table.get(&this)?.digest.to_string())
    }

    fn is_static(&mut self, this: Resource<ToolHandle>) -> wasmtime::Result<bool> {
        Ok(self.table.get(&this)?.is_static)
    }

    fn version(&mut self, this: Resource<ToolHandle>) -> wasmtime::Result<Option<String>> {
        Ok(self.table.get(&this)?.version.clone())
    }

    fn drop(&mut self, this: Resource<ToolHandle>) -> wasmtime::Result<()> {
        self.forget(this)
    }
}

impl job::Host for State {}

impl job::HostJob for State {
    fn platform(&mut self, this: Resource<JobHandle>) -> wasmtime::Result<wit::Platform> {
        Ok(platform_out(self.table.get(&this)?.platform.clone()))
    }

    fn args(&mut self, this: Resource<JobHandle>) -> wasmtime::Result<Vec<String>> {
        Ok(self.table.get(&this)?.args.clone())
    }

    fn env(&mut self, this: Resource<JobHandle>) -> wasmtime::Result<Pairs> {
        Ok(self.table.get(&this)?.env.clone())
    }

    fn cwd(&mut self, this: Resource<JobHandle>) -> wasmtime::Result<String> {
        Ok(self.table.get(&this)?.cwd.clone())
    }

    fn mounts(&mut self, this: Resource<JobHandle>) -> wasmtime::Result<Vec<job::MountView>> {
        let mounts = &self.table.get(&this)?.mounts;
        Ok(mounts
            .iter()
            .map(|mount| job::MountView {
                slot: mount.slot,
                target: mount.target.clone(),
                kind: mount.kind.clone(),
                readonly: mount.readonly,
                attrs: mount.attrs.0.clone(),
            })
            .collect())
    }

    fn entry_format(&mut self, this: Resource<JobHandle>) -> wasmtime::Result<Vec<String>> {
        Ok(self.table.get(&this)?.entry_format.clone())
    }

    fn base_spec(&mut self, this: Resource<JobHandle>) -> wasmtime::Result<String> {
        Ok(self.table.get(&this)?.base_spec.clone())
    }

    fn attrs(&mut self, this: Resource<JobHandle>) -> wasmtime::Result<Pairs> {
        Ok(self.table.get(&this)?.attrs.0.clone())
    }

    fn drop(&mut self, this: Resource<JobHandle>) -> wasmtime::Result<()> {
        self.forget(this)
    }
}

impl plan::Host for State {}

impl State {
    /// Changes a plan by a function that answers at once.
    fn try_plan(
        &mut self,
        plan: &Resource<PlanBuilder>,
        bytes: usize,
        change: impl FnOnce(&mut PlanDraft) -> Result<(), Failure>,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        let mut result = Ok(());
        self.edit(plan, bytes, |draft| {
            result = change(draft);
            Ok(())
        })?;
        answer(result)
    }
}

impl plan::HostPlan for State {
    fn base(&mut self) -> wasmtime::Result<Resource<PlanBuilder>> {
        self.begin(PlanDraft::base(), 0)
    }

    fn from_spec(
        &mut self,
        spec: String,
    ) -> wasmtime::Result<Result<Resource<PlanBuilder>, wit::Failure>> {
        let bytes = texts_size([&spec]);
        let known = self.caps()?.granted.clone();
        match self.clamp(spec.clone(), known.clone())? {
            Ok(clamped) => {
                let draft = PlanDraft {
                    edited: Some(spec),
                    clamped: Some((clamped, known)),
                    plan: LaunchPlan::default(),
                };
                Ok(Ok(self.begin(draft, bytes)?))
            }
            Err(failure) => Ok(Err(failure_out(failure))),
        }
    }

    fn bind_tool(
        &mut self,
        this: Resource<PlanBuilder>,
        tool: Resource<ToolHandle>,
        target: String,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        let tool = self.table.get(&tool)?.name.clone();
        self.try_plan(&this, texts_size([&tool, &target]), |draft| draft.bind_tool(tool, target))
    }

    fn binfmt_rule(
        &mut self,
        this: Resource<PlanBuilder>,
        tool: Resource<ToolHandle>,
        magic: Vec<u8>,
        mask: Vec<u8>,
        flags: String,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        let tool = self.table.get(&tool)?.name.clone();
        let bytes = texts_size([&tool, &flags]) + magic.len() + mask.len();
        let rule = BinfmtRule { tool, magic, mask, flags };
        self.try_plan(&this, bytes, |draft| draft.binfmt_rule(rule))
    }

    fn personality(
        &mut self,
        this: Resource<PlanBuilder>,
        domain: String,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        self.try_plan(&this, texts_size([&domain]), |draft| draft.personality(domain))
    }

    fn warn(
        &mut self,
        this: Resource<PlanBuilder>,
        diagnostic: wit::Diagnostic,
    ) -> wasmtime::Result<()> {
        self.meter.message(0)?;
        let bytes = texts_size([&diagnostic.message]) + pairs_size(&diagnostic.attrs);
        self.edit(&this, bytes, |draft| {
            draft.plan.warnings.push(diagnostic_in(diagnostic));
            Ok(())
        })
    }

    fn attrs(&mut self, this: Resource<PlanBuilder>, attrs: Pairs) -> wasmtime::Result<()> {
        self.edit(&this, pairs_size(&attrs), |draft| {
            let attrs = Attrs(attrs);
            decode::only_known(&attrs, "plan.attrs", &[])?;
            draft.plan.attrs.0.extend(attrs.0);
            Ok(())
        })
    }

    fn drop(&mut self, this: Resource<PlanBuilder>) -> wasmtime::Result<()> {
        self.finish(this).map(drop)
    }
}
