//! Which runner runs a platform, the machine as runners see it, and the tools they may use.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::OnceCell;
use wbuild_api::extension::{
    BinfmtEntry, BinfmtRule, ClampCap, Job, LaunchPlan, LogCap, MachineCap, Offer, Runner,
    RunnerHost, Tool,
};
use wbuild_exec::Handler;
use wbuild_exec::clamp::Grants;
use wbuild_exec::facts::Facts;
use wbuild_graph::{Attrs, Digest, Failure, FailureKind, Platform};

/// Which runner, and what it offers.
type Slot = Arc<OnceCell<(usize, Offer)>>;

/// The runner that may use emulators. A runner from a file has a path for a name.
const EMULATING: &str = "qemu";
/// How the names of emulators begin.
const EMULATOR: &str = "qemu-";

/// One runner and what it may do.
struct Line {
    runner: Arc<dyn Runner>,
    host: RunnerHost,
    tools: Arc<Tools>,
}

/// The runners of one build.
pub(crate) struct Runners {
    runners: Vec<Line>,
    chosen: Mutex<HashMap<Platform, Slot>>,
}

impl Runners {
    /// `log` says where each runner's lines go.
    pub(crate) fn new(
        runners: Vec<(Arc<dyn Runner>, Arc<dyn LogCap>)>,
        search: Vec<PathBuf>,
    ) -> Runners {
        let facts = Arc::new(OnceLock::new());
        let clamp: Arc<dyn ClampCap> = Arc::new(Clamp);
        let runners = runners
            .into_iter()
            .map(|(runner, log)| {
                let granted = runner.identity().name == EMULATING;
                let tools =
                    Arc::new(Tools { search: search.clone(), granted, found: Mutex::default() });
                let machine = Arc::new(Machine {
                    search: search.clone(),
                    facts: Arc::clone(&facts),
                    tools: Arc::clone(&tools),
                });
                let host = RunnerHost { machine, clamp: Arc::clone(&clamp), log };
                Line { runner, host, tools }
            })
            .collect();
        Runners { runners, chosen: Mutex::default() }
    }

    /// The plan of the best runner for the job's platform, and the handlers that its emulators are;
    /// with those for the platforms of `foreign`, which the job's files are of, where a runner has
    /// them.
    pub(crate) async fn plan(
        &self,
        job: &Job,
        foreign: &BTreeSet<Platform>,
    ) -> Result<(LaunchPlan, Vec<Handler>), Failure> {
        let (plan, handlers) = self.plan_for(job).await?;
        let mut handlers = BTreeSet::from_iter(handlers);
        for platform in foreign {
            let job = Job { platform: platform.clone(), ..job.clone() };
            // The job may never start such a program.
            if let Ok((_, more)) = self.plan_for(&job).await {
                handlers.extend(more);
            }
        }
        Ok((plan, handlers.into_iter().collect()))
    }

    /// The runner whose offer for the platform is the best.
    async fn best(&self, platform: &Platform) -> Result<(&Line, Offer), Failure> {
        let slot = {
            let mut chosen = self.chosen.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(chosen.entry(platform.clone()).or_default())
        };
        let (index, offer) = slot.get_or_try_init(|| self.choose(platform)).await?;
        Ok((&self.runners[*index], offer.clone()))
    }

    /// The name of the runner that runs a platform, and its offer.
    pub(crate) async fn offer(&self, platform: &Platform) -> Result<(String, Offer), Failure> {
        let (line, offer) = self.best(platform).await?;
        Ok((line.runner.identity().name, offer))
    }

    /// What is known of an emulator that a plan has named.
    pub(crate) fn tool(&self, name: &str) -> Option<Tool> {
        self.runners.iter().find_map(|line| line.tools.find(name)).map(|found| found.tool)
    }

    async fn plan_for(&self, job: &Job) -> Result<(LaunchPlan, Vec<Handler>), Failure> {
        let (line, _) = self.best(&job.platform).await?;
        let plan = line.runner.make_plan(line.host.clone(), job.clone()).await?;
        if let Some((tool, _)) = plan.tools.first() {
            return Err(line.denied(tool));
        }
        let handlers = plan.binfmt.iter().map(|rule| line.handler(rule));
        let handlers = handlers.collect::<Result<Vec<_>, Failure>>()?;
        Ok((plan, handlers))
    }

    /// Asks every runner once a platform; the lowest rank wins, the first of equals.
    async fn choose(&self, platform: &Platform) -> Result<(usize, Offer), Failure> {
        let mut best: Option<(usize, Offer)> = None;
        let mut refusals: Vec<Failure> = Vec::new();
        for (index, Line { runner, host, .. }) in self.runners.iter().enumerate() {
            let answers = runner.supports(host.clone(), vec![platform.clone()]).await?;
            match answers.into_iter().next() {
                Some(Ok(offer)) if best.as_ref().is_none_or(|(_, it)| offer.rank < it.rank) => {
                    best = Some((index, offer));
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
        if let Some(best) = best {
            return Ok(best);
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

impl Line {
    fn denied(&self, tool: &str) -> Failure {
        let name = self.runner.identity().name;
        let message =
            format!("the runner {name:?} asks for the tool {tool:?}, which is not granted");
        Failure::new(FailureKind::Denied, message)
    }

    fn handler(&self, rule: &BinfmtRule) -> Result<Handler, Failure> {
        let found = self.tools.find(&rule.tool).ok_or_else(|| self.denied(&rule.tool))?;
        Ok(Handler {
            name: found.tool.name,
            program: found.path,
            magic: rule.magic.clone(),
            mask: rule.mask.clone(),
            flags: rule.flags.clone(),
        })
    }
}

/// Programs of this machine that one runner may use in steps.
struct Tools {
    search: Vec<PathBuf>,
    /// It may use emulators. Others may use nothing.
    granted: bool,
    found: Mutex<BTreeMap<String, Option<FoundTool>>>,
}

#[derive(Clone)]
struct FoundTool {
    path: PathBuf,
    tool: Tool,
}

impl Tools {
    /// The tool of that name, looked at once. One that cannot be read is not there.
    fn find(&self, name: &str) -> Option<FoundTool> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if !self.granted || !name.starts_with(EMULATOR) || !name.bytes().all(plain) {
            return None;
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.entry(name.to_owned()).or_insert_with(|| self.look_for(name)).clone()
    }

    fn look_for(&self, name: &str) -> Option<FoundTool> {
        use wbuild_exec::runtime::find_program;
        // Debian's name of those without libraries, and everybody else's.
        let path = find_program(&format!("{name}-static"), &self.search)
            .or_else(|| find_program(name, &self.search))?;
        let said = std::process::Command::new(&path).arg("--version").output().ok()?;
        let version = String::from_utf8_lossy(&said.stdout).lines().next().map(str::to_owned);
        let tool = Tool {
            name: name.to_owned(),
            digest: Digest::of(&std::fs::read(&path).ok()?),
            is_static: wbuild_exec::elf::is_static(&path),
            version: version.filter(|_| said.status.success()),
        };
        Some(FoundTool { path, tool })
    }
}

/// What a runner may know of the machine.
struct Machine {
    search: Vec<PathBuf>,
    /// Of all runners.
    facts: Arc<OnceLock<Facts>>,
    tools: Arc<Tools>,
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

    fn find_tool(&self, name: String) -> Option<Tool> {
        Some(self.tools.find(&name)?.tool)
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
