//! Which runner runs a platform, and the machine as runners see it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::OnceCell;
use wbuild_api::extension::{
    BinfmtEntry, ClampCap, Job, LaunchPlan, LogCap, MachineCap, Runner, RunnerHost, Tool,
};
use wbuild_exec::clamp::Grants;
use wbuild_exec::facts::Facts;
use wbuild_graph::{Attrs, Failure, FailureKind, Platform};

type Slot = Arc<OnceCell<usize>>;

/// The runners of one build.
pub(crate) struct Runners {
    runners: Vec<(Arc<dyn Runner>, RunnerHost)>,
    chosen: Mutex<HashMap<Platform, Slot>>,
}

impl Runners {
    /// `log` says where each runner's lines go.
    pub(crate) fn new(
        runners: Vec<(Arc<dyn Runner>, Arc<dyn LogCap>)>,
        search: Vec<PathBuf>,
    ) -> Runners {
        let machine: Arc<dyn MachineCap> = Arc::new(Machine { search, facts: OnceLock::new() });
        let clamp: Arc<dyn ClampCap> = Arc::new(Clamp);
        let runners = runners
            .into_iter()
            .map(|(runner, log)| {
                let host =
                    RunnerHost { machine: Arc::clone(&machine), clamp: Arc::clone(&clamp), log };
                (runner, host)
            })
            .collect();
        Runners { runners, chosen: Mutex::default() }
    }

    /// The plan of the best runner for the job's platform.
    pub(crate) async fn plan(&self, job: Job) -> Result<LaunchPlan, Failure> {
        let slot = {
            let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(chosen.entry(job.platform.clone()).or_default())
        };
        let index = *slot.get_or_try_init(|| self.choose(&job.platform)).await?;
        let (runner, host) = &self.runners[index];
        let plan = runner.make_plan(host.clone(), job).await?;
        if !plan.binfmt.is_empty() || !plan.tools.is_empty() {
            return Err(Failure::new(
                FailureKind::Denied,
                format!(
                    "the runner {:?} asks for tools that are not granted",
                    runner.identity().name
                ),
            ));
        }
        Ok(plan)
    }

    /// Asks every runner once a platform; the lowest rank wins, the first of equals.
    async fn choose(&self, platform: &Platform) -> Result<usize, Failure> {
        let mut best: Option<(u32, usize)> = None;
        let mut refusals: Vec<Failure> = Vec::new();
        for (index, (runner, host)) in self.runners.iter().enumerate() {
            let answers = runner.supports(host.clone(), vec![platform.clone()]).await?;
            match answers.into_iter().next() {
                Some(Ok(offer)) if best.is_none_or(|(rank, _)| offer.rank < rank) => {
                    best = Some((offer.rank, index));
                }
                Some(Ok(_)) => {}
                Some(Err(failure)) => refusals.push(failure),
                None => {
                    let name = runner.identity().name;
                    return Err(Failure::internal(format!(
                        "the runner {name:?} gave no answer for {platform}"
                    )));
                }
            }
        }
        if let Some((_, index)) = best {
            return Ok(index);
        }
        let message = format!("no runner can run steps for {platform} on this machine");
        let mut failure = Failure::unsupported(message);
        for refusal in refusals {
            failure.causes.push(refusal.message);
            failure.hints.extend(refusal.hints);
            failure.hints.extend(refusal.diagnostics.into_iter().filter_map(|d| d.help));
        }
        Err(failure)
    }
}

/// What runners may know of the machine.
struct Machine {
    search: Vec<PathBuf>,
    facts: OnceLock<Facts>,
}

impl Machine {
    /// Looked at once, when the first runner asks.
    fn facts(&self) -> &Facts {
        self.facts.get_or_init(|| Facts::gather(&self.search))
    }
}

impl MachineCap for Machine {
    fn native_platforms(&self) -> Vec<Platform> {
        wbuild_exec::facts::native()
    }

    fn kernel_binfmt(&self, platform: Platform) -> Option<BinfmtEntry> {
        let handler = self.facts().handler_for(&platform)?;
        Some(BinfmtEntry {
            usable_in_container: handler.flags.contains('F'),
            flags: handler.flags.clone(),
            attrs: Attrs::default(),
        })
    }

    fn features(&self) -> Attrs {
        self.facts().features()
    }

    fn find_tool(&self, _: String) -> Option<Tool> {
        // No policy grants a tool yet.
        None
    }
}

struct Clamp;

impl ClampCap for Clamp {
    fn clamp(&self, base: String, edited: String, tools: Vec<String>) -> Result<String, Failure> {
        let base = wbuild_exec::spec::late::from_json(&base)?;
        let grants = Grants::default();
        if let Some(tool) = tools.first() {
            return Err(Failure::new(
                FailureKind::Denied,
                format!("the tool {tool:?} is not granted"),
            ));
        }
        let plan = wbuild_exec::clamp::clamp(&base, &edited, &grants)?;
        Ok(wbuild_exec::spec::to_json(&plan.spec).to_string())
    }
}
