//! `wbuild:runner@0.1`.

use std::sync::Arc;

use wasmtime::component::{Linker, Resource};
use wbuild_api::extension::{BinfmtRule, Job, LaunchPlan, LogCap, Offer, RunnerHost, Tool};
use wbuild_graph::{Attrs, Failure, decode};

use super::types::{
    self, answer, diagnostic_in, diagnostic_size, failure_in, failure_out, platform_in,
    platform_out, wit,
};
use crate::limits::{Pairs, pairs_size, texts_size};
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
            "wbuild:runner/process.process": crate::v0_1::runner::JobHandle,
            "wbuild:runner/plan.plan": crate::v0_1::runner::PlanBuilder,
        },
    });
}

pub(crate) use bindings::RunnerPre;
use bindings::exports::wbuild::runner::planner;
use bindings::wbuild::runner::{machine, plan, process};

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

impl PlanDraft {
    fn base() -> Self {
        PlanDraft { edited: None, clamped: None, plan: LaunchPlan::default() }
    }
}

/// Everything a runner may import.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::wit::add_to_linker::<_, Access<RunnerCaps>>(linker, |state| state)?;
    types::log::add_to_linker::<_, Access<RunnerCaps>>(linker, |state| state)?;
    machine::add_to_linker::<_, Access<RunnerCaps>>(linker, |state| state)?;
    process::add_to_linker::<_, Access<RunnerCaps>>(linker, |state| state)?;
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
        let tools = draft.plan.tool_names();
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

impl process::Host for State {}

impl process::HostProcess for State {
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

    fn mounts(&mut self, this: Resource<JobHandle>) -> wasmtime::Result<Vec<process::MountView>> {
        let mounts = &self.table.get(&this)?.mounts;
        Ok(mounts
            .iter()
            .map(|mount| process::MountView {
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
        let known = self.caps()?.granted.clone();
        match self.clamp(spec.clone(), known.clone())? {
            Ok(clamped) => {
                let bytes = texts_size([&spec, &clamped]);
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
        self.try_plan(&this, texts_size([&tool, &target]), |draft| {
            draft.plan.bind_tool(tool, target)
        })
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
        self.try_plan(&this, bytes, |draft| draft.plan.register(rule))
    }

    fn personality(
        &mut self,
        this: Resource<PlanBuilder>,
        domain: String,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        self.try_plan(&this, texts_size([&domain]), |draft| draft.plan.choose_personality(domain))
    }

    fn warn(
        &mut self,
        this: Resource<PlanBuilder>,
        diagnostic: wit::Diagnostic,
    ) -> wasmtime::Result<()> {
        self.meter.message(0)?;
        self.edit(&this, diagnostic_size(&diagnostic), |draft| {
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use wbuild_api::extension::{BinfmtEntry, ClampCap, MachineCap};
    use wbuild_graph::{Digest, FailureKind, Platform, Severity};

    use super::plan::HostPlan as _;
    use super::*;
    use crate::PluginKind;
    use crate::engine::Runtime;
    use crate::limits::Limits;
    use crate::v0_1::runner::machine::Host as _;

    /// A machine with one tool, and a clamp that lets a spec name the tools it is told of.
    #[derive(Default)]
    struct Fake {
        asked: Mutex<Vec<Vec<String>>>,
    }

    impl MachineCap for Fake {
        fn native_platforms(&self) -> Vec<Platform> {
            Vec::new()
        }
        fn kernel_binfmt(&self, _platform: Platform) -> Option<BinfmtEntry> {
            None
        }
        fn features(&self) -> Attrs {
            Attrs::default()
        }
        fn find_tool(&self, name: String) -> Option<Tool> {
            let digest = Digest::of(b"tool");
            (name == "qemu").then_some(Tool { name, digest, is_static: true, version: None })
        }
    }

    impl ClampCap for Fake {
        fn clamp(
            &self,
            _base: String,
            edited: String,
            tools: Vec<String>,
        ) -> Result<String, Failure> {
            self.asked.lock().expect("lock").push(tools.clone());
            match edited.strip_prefix("tool:") {
                Some(tool) if !tools.iter().any(|known| known == tool) => {
                    Err(Failure::new(FailureKind::Denied, format!("{tool} is not bound")))
                }
                _ => Ok(format!("clamped {edited}")),
            }
        }
    }

    impl LogCap for Fake {
        fn log(&self, _severity: Severity, _text: String) {}
    }

    fn with_state<T>(test: impl FnOnce(&mut State, &Fake) -> T) -> T {
        let fake = Arc::new(Fake::default());
        let runtime = Runtime::new().expect("engine");
        let limits = Limits::of(PluginKind::Runner);
        let job = Job {
            platform: Platform::host(),
            args: vec!["true".to_owned()],
            env: Vec::new(),
            cwd: "/".to_owned(),
            mounts: Vec::new(),
            entry_format: Vec::new(),
            base_spec: "base".to_owned(),
            attrs: Attrs::default(),
        };
        let caps = RunnerCaps {
            host: RunnerHost {
                machine: Arc::clone(&fake) as _,
                clamp: Arc::clone(&fake) as _,
                log: Arc::clone(&fake) as _,
            },
            job: Some(Arc::new(job)),
            granted: Vec::new(),
        };
        let clock = runtime.clock(limits.cpu);
        let mut store = State::store(runtime.engine(), limits, &clock, Arc::default(), Some(caps));
        test(store.data_mut(), &fake)
    }

    fn message<T>(result: Result<T, wit::Failure>) -> String {
        result.err().map(|failure| failure.message).unwrap_or_default()
    }

    #[test]
    fn a_spec_may_name_a_tool_only_if_the_plan_binds_it() {
        with_state(|state, fake| {
            let ungranted = state.from_spec("tool:qemu".to_owned()).expect("no trap");
            assert_eq!(message(ungranted), "qemu is not bound");

            let tool = state.find_tool("qemu".to_owned()).expect("no trap").expect("granted");
            let borrowed = || Resource::new_borrow(tool.rep());
            // Granted, named, and never bound: refused in the end.
            let plan = state.from_spec("tool:qemu".to_owned()).expect("no trap").expect("a plan");
            let refused = state.take_plan(plan).expect("no trap").expect_err("not bound");
            assert_eq!(refused.message, "qemu is not bound");

            let plan = state.from_spec("tool:qemu".to_owned()).expect("no trap").expect("a plan");
            let this = Resource::new_borrow(plan.rep());
            state.bind_tool(this, borrowed(), "/q".to_owned()).expect("no trap").expect("bound");
            let plan = state.take_plan(plan).expect("no trap").expect("a plan");
            assert_eq!(plan.spec.as_deref(), Some("clamped tool:qemu"));
            assert_eq!(plan.tools, [("qemu".to_owned(), "/q".to_owned())]);
            let asked = fake.asked.lock().expect("lock");
            let qemu = vec!["qemu".to_owned()];
            // Not asked again where nothing changed since.
            assert_eq!(*asked, [vec![], qemu.clone(), vec![], qemu]);
        });
    }

    #[test]
    fn what_a_plan_cannot_say_is_refused_at_once() {
        with_state(|state, _| {
            let tool = state.find_tool("qemu".to_owned()).expect("no trap").expect("granted");
            let plan = state.base().expect("a plan");
            let mut bind = |target: &str| {
                let (this, tool) =
                    (Resource::new_borrow(plan.rep()), Resource::new_borrow(tool.rep()));
                message(state.bind_tool(this, tool, target.to_owned()).expect("no trap"))
            };
            assert_eq!(bind("q"), "the tool target \"q\" is not absolute");
            assert_eq!(bind("/q"), "");
            assert_eq!(bind("/q"), "two tools are bound at /q");
            let mut rule = |magic: &[u8], mask: &[u8], flags: &str| {
                let (this, tool) =
                    (Resource::new_borrow(plan.rep()), Resource::new_borrow(tool.rep()));
                let (magic, mask) = (magic.to_vec(), mask.to_vec());
                let rule = state.binfmt_rule(this, tool, magic, mask, flags.to_owned());
                message(rule.expect("no trap"))
            };
            assert_eq!(rule(b"", b"", ""), "a binfmt magic has 1 to 256 bytes, not 0");
            assert_eq!(
                rule(&[1; 257], &[1; 257], ""),
                "a binfmt magic has 1 to 256 bytes, not 257"
            );
            assert_eq!(rule(b"ab", b"a", ""), "a binfmt mask is as long as its magic");
            assert_eq!(rule(b"ab", b"ab", "OX"), "unknown binfmt flag 'X'");
            assert_eq!(rule(b"ab", b"ab", "OCF"), "");
            let unknown = Resource::new_borrow(plan.rep());
            let unknown = state.personality(unknown, "vax".to_owned()).expect("no trap");
            assert_eq!(message(unknown), "unknown personality \"vax\"");
            let attrs = Resource::new_borrow(plan.rep());
            state.attrs(attrs, vec![("speed".to_owned(), "9".to_owned())]).expect("no trap");
            let refused = state.take_plan(plan).expect("no trap").expect_err("an unknown key");
            assert_eq!(refused.message, "plan.attrs does not know the key \"speed\"");
        });
    }
}
