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
                let identity = runner.identity();
                let emulates = identity.is_bundled() && identity.name == EMULATING;
                let granted = match emulates {
                    true => Granted::Emulators,
                    false => Granted::Named(identity.allowed.tools),
                };
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

    /// Asks the runners once a platform; the lowest rank wins, the first of equals, so that nobody is
    /// asked after one that offers the best there is: what a native step needs is not to wait until
    /// an emulator was looked at.
    async fn choose(&self, platform: &Platform) -> Result<(usize, Offer), Failure> {
        let mut best: Option<(usize, Offer)> = None;
        let mut refusals: Vec<Failure> = Vec::new();
        for (index, Line { runner, host, .. }) in self.runners.iter().enumerate() {
            if best.as_ref().is_some_and(|(_, offer)| offer.rank == 0) {
                break;
            }
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
    granted: Granted,
    found: Mutex<BTreeMap<String, Option<FoundTool>>>,
}

/// Which programs a runner may use.
enum Granted {
    /// All emulators: it comes with wbuild.
    Emulators,
    /// Those emulators that the user's policy names.
    Named(Vec<String>),
}

impl Granted {
    fn covers(&self, name: &str) -> bool {
        match self {
            Granted::Emulators => true,
            Granted::Named(names) => names.iter().any(|granted| granted == name),
        }
    }
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
        if !self.granted.covers(name) || !name.starts_with(EMULATOR) || !name.bytes().all(plain) {
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

/// What judges a runner's edited specification in a build, for who tries a runner without one.
pub fn clamp() -> Arc<dyn ClampCap> {
    Arc::new(Clamp)
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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use wbuild_api::extension::PluginIdentity;
    use wbuild_graph::Severity;

    use super::*;

    /// A runner that makes one offer for everything, and counts how often it is asked.
    struct Fixed {
        name: &'static str,
        rank: u32,
        asked: Mutex<u32>,
    }

    #[async_trait]
    impl Runner for Fixed {
        fn identity(&self) -> PluginIdentity {
            let (name, digest) = (self.name.to_owned(), Digest::of(self.name.as_bytes()));
            PluginIdentity::bundled(&name, digest, "0.1.0")
        }

        async fn supports(
            &self,
            _: RunnerHost,
            platforms: Vec<Platform>,
        ) -> Result<Vec<Result<Offer, Failure>>, Failure> {
            *self.asked.lock().expect("no panic") += 1;
            let offer = Offer { rank: self.rank, how: String::new(), attrs: Attrs::default() };
            Ok(platforms.iter().map(|_| Ok(offer.clone())).collect())
        }

        async fn make_plan(&self, _: RunnerHost, _: Job) -> Result<LaunchPlan, Failure> {
            unreachable!("nothing is launched")
        }
    }

    struct Silent;

    impl LogCap for Silent {
        fn log(&self, _: Severity, _: String) {}
    }

    #[tokio::test]
    async fn the_lowest_rank_wins_and_nobody_is_asked_after_the_best() {
        for (ranks, winner, asked) in [
            (vec![0, 100], "first", [1, 0, 0]),
            (vec![100, 0, 0], "second", [1, 1, 0]),
            (vec![100, 1, 1], "second", [1, 1, 1]),
        ] {
            let names = ["first", "second", "third"];
            let fixed = |(name, rank): (&'static str, &u32)| {
                Arc::new(Fixed { name, rank: *rank, asked: Mutex::default() })
            };
            let all: Vec<Arc<Fixed>> = names.into_iter().zip(&ranks).map(fixed).collect();
            let line = |runner: &Arc<Fixed>| {
                (Arc::clone(runner) as Arc<dyn Runner>, Arc::new(Silent) as Arc<dyn LogCap>)
            };
            let runners = Runners::new(all.iter().map(line).collect(), Vec::new());
            let platform = Platform::host();
            for _ in 0..2 {
                let (name, _) = runners.offer(&platform).await.expect("an offer");
                assert_eq!(name, winner, "{ranks:?}");
            }
            let counts: Vec<u32> = all.iter().map(|it| *it.asked.lock().expect("ok")).collect();
            assert_eq!(counts, asked[..counts.len()], "{ranks:?}");
        }
    }
}
