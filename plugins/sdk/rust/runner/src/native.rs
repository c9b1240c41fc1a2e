//! A runner that is compiled into a program instead of to a component.

use std::panic::{AssertUnwindSafe, catch_unwind};

use async_trait::async_trait;
use wbuild_api::extension::{Job, LaunchPlan, Offer, PluginIdentity, RunnerHost};
use wbuild_graph::{Digest, Failure, FailureKind, Platform};

use crate::{Machine, Plan, Result, Runner, refusal};

/// A runner made by [`crate::runner!`], for tests and for programs that embed it. What it plans is
/// checked as a component's plans are.
#[derive(Clone, Copy)]
pub struct Native {
    name: &'static str,
    offer: fn(&Machine, &Platform) -> Result<Offer>,
    plan: fn(&Machine, &Job) -> Result<Plan>,
}

impl std::fmt::Debug for Native {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Native").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Native {
    /// The runner that `R` is.
    pub const fn new<R: Runner>(name: &'static str) -> Native {
        Native { name, offer: R::offer, plan: R::plan }
    }

    /// A panic ends a component; here it becomes a failure, too.
    fn call<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T, Failure> {
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(result) => result.map_err(crate::Error::into_failure),
            Err(panic) => {
                let text = wbuild_guest::native::panic_text(&*panic).unwrap_or_default();
                Err(Failure::internal(format!("the runner {} panicked: {text}", self.name))
                    .attr("plugin", self.name))
            }
        }
    }
}

#[async_trait]
impl wbuild_api::extension::Runner for Native {
    fn identity(&self) -> PluginIdentity {
        let digest = Digest::of(format!("native runner {}", self.name).as_bytes());
        PluginIdentity::bundled(self.name, digest, crate::WIT_VERSION)
    }

    async fn supports(
        &self,
        host: RunnerHost,
        platforms: Vec<Platform>,
    ) -> Result<Vec<Result<Offer, Failure>>, Failure> {
        let machine = Machine::new(host.machine);
        let offer = |platform| {
            let asked = || Ok((self.offer)(&machine, platform).map_err(refusal));
            self.call(asked)?
        };
        Ok(platforms.iter().map(offer).collect())
    }

    async fn make_plan(&self, host: RunnerHost, job: Job) -> Result<LaunchPlan, Failure> {
        let machine = Machine::new(host.machine);
        let plan = self.call(|| (self.plan)(&machine, &job))?;
        let mut plan = LaunchPlan::checked(plan.into_parts())?;
        let tools = plan.tool_names();
        if let Some(tool) = tools.iter().find(|tool| machine.tool(tool).is_none()) {
            let message = format!("the tool {tool:?} is not granted");
            return Err(Failure::new(FailureKind::Denied, message));
        }
        if let Some(edited) = plan.spec.take() {
            plan.spec = Some(host.clamp.clamp(job.base_spec, edited, tools)?);
        }
        Ok(plan)
    }
}
