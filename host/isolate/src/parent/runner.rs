//! Runners in a child.

use std::sync::Arc;

use async_trait::async_trait;
use wbuild_api::extension::{Job, LaunchPlan, LogCap, Offer, PluginIdentity, Runner, RunnerHost};
use wbuild_graph::{Failure, Platform};
use wbuild_plugin::limits::Meter;
use wbuild_plugin::{Plugin, PluginKind, bounds};

use super::process::Program;
use super::session::{Answer, Answers, Session, answer, claim};
use crate::protocol::{Call, Done, RunnerCall, Start, Task};

/// A runner whose guest runs in a process of its own; a fresh one for each question.
pub(super) struct IsolatedRunner {
    pub(super) program: Arc<Program>,
    pub(super) plugin: Plugin,
    pub(super) inner: Arc<dyn Runner>,
}

impl IsolatedRunner {
    async fn run(&self, answers: &mut RunnerAnswers, task: Task) -> Result<Done, Failure> {
        let kind = PluginKind::Runner;
        let known = self.plugin.known(kind);
        let start = Start { known, repository: false, http: false, facts: None, task };
        let session = Session::start(&self.program, &self.plugin, &start).await?;
        session.finish(answers).await?.1
    }

    fn broken(&self, what: &str) -> Failure {
        let name = self.plugin.name();
        Failure::internal(format!("the runner {name} {what}")).attr("plugin", name)
    }
}

#[async_trait]
impl Runner for IsolatedRunner {
    fn identity(&self) -> PluginIdentity {
        self.inner.identity()
    }

    async fn supports(
        &self,
        host: RunnerHost,
        platforms: Vec<Platform>,
    ) -> Result<Vec<Result<Offer, Failure>>, Failure> {
        let asked = platforms.len();
        let mut answers = RunnerAnswers::new(host, None);
        match self.run(&mut answers, Task::Supports(platforms)).await? {
            Done::Offers(offers) if offers.len() == asked => {
                let bounded = offers.into_iter().map(|offer| offer.map_err(bounds::failure));
                Ok(bounded.collect())
            }
            _ => Err(self.broken("answered another question")),
        }
    }

    async fn make_plan(&self, host: RunnerHost, job: Job) -> Result<LaunchPlan, Failure> {
        let mut answers = RunnerAnswers::new(host, Some(job.base_spec.clone()));
        let plan = match self.run(&mut answers, Task::MakePlan(Box::new(job))).await? {
            Done::Plan(plan) => *plan,
            _ => return Err(self.broken("answered another question")),
        };
        let plan = answers.check(plan).map_err(|what| self.broken(&what))?;
        let warnings = plan.warnings.into_iter().take(bounds::TEXT_ITEMS);
        Ok(LaunchPlan { warnings: warnings.map(bounds::diagnostic).collect(), ..plan })
    }
}

struct RunnerAnswers {
    host: RunnerHost,
    /// The spec that plans begin with; none while platforms are asked about.
    base: Option<String>,
    /// What the clamp passed, with the tools it knew of.
    clamped: Vec<(Vec<String>, String)>,
    /// Names of tools that were handed out.
    granted: Vec<String>,
}

impl RunnerAnswers {
    fn new(host: RunnerHost, base: Option<String>) -> Self {
        RunnerAnswers { host, base, clamped: Vec::new(), granted: Vec::new() }
    }

    /// Checks a plan: that it is no more than what was asked for and passed here.
    fn check(&self, plan: LaunchPlan) -> Result<LaunchPlan, String> {
        let said = |failure: Failure| format!("made an invalid plan: {}", failure.message);
        let tools = plan.tool_names();
        if let Some(tool) = tools.iter().find(|tool| !self.granted.contains(tool)) {
            return Err(format!("uses the tool {tool:?}, which it was not given"));
        }
        let plan = LaunchPlan::checked(plan).map_err(said)?;
        if let Some(spec) = &plan.spec
            && !self.clamped.iter().any(|(known, passed)| *known == tools && passed == spec)
        {
            return Err("made a plan that the clamp has not seen".to_owned());
        }
        Ok(plan)
    }
}

impl Answers for RunnerAnswers {
    fn log(&self) -> &dyn LogCap {
        &*self.host.log
    }

    async fn answer(&mut self, call: Call, meter: &mut Meter) -> Answer {
        let Call::Runner(call) = call else { return claim("a call of another kind of plugin") };
        let machine = &self.host.machine;
        match call {
            RunnerCall::NativePlatforms => answer(&machine.native_platforms()),
            RunnerCall::KernelBinfmt(platform) => answer(&machine.kernel_binfmt(platform)),
            RunnerCall::Features => answer(&machine.features()),
            RunnerCall::FindTool(name) => {
                let tool = machine.find_tool(name);
                if let Some(tool) = &tool
                    && !self.granted.contains(&tool.name)
                {
                    meter.charge(tool.name.len())?;
                    self.granted.push(tool.name.clone());
                }
                answer(&tool)
            }
            RunnerCall::Clamp(edited, mut tools) => {
                let Some(base) = &self.base else { return claim("a plan without a job") };
                if tools.iter().any(|tool| !self.granted.contains(tool)) {
                    return claim("a tool that it was not given");
                }
                meter.message(0)?;
                let passed = self.host.clamp.clamp(base.clone(), edited, tools.clone());
                if let Ok(spec) = &passed {
                    meter.charge(spec.len() + tools.iter().map(String::len).sum::<usize>())?;
                    tools.sort();
                    self.clamped.push((tools, spec.clone()));
                }
                answer(&passed)
            }
        }
    }
}
