//! What a runner is, and what it is given: facts about the machine, and a clamp for its plans.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use wbuild_graph::{Attrs, Diagnostic, Digest, Failure, Platform, quoted};

use super::{LogCap, PluginIdentity};

/// Decides how a process is launched. Plans only: the host checks the plan and carries it out.
#[async_trait]
pub trait Runner: Send + Sync {
    /// Which plugin this is.
    fn identity(&self) -> PluginIdentity;
    /// How well each platform can be run here.
    async fn supports(
        &self,
        host: RunnerHost,
        platforms: Vec<Platform>,
    ) -> Result<Vec<Result<Offer, Failure>>, Failure>;
    /// Pure: same job, same machine facts, same plan.
    async fn make_plan(&self, host: RunnerHost, job: Job) -> Result<LaunchPlan, Failure>;
}

/// The capabilities of a runner.
#[derive(Clone)]
pub struct RunnerHost {
    /// Facts and tools of the machine.
    pub machine: Arc<dyn MachineCap>,
    /// Checks edited specs.
    pub clamp: Arc<dyn ClampCap>,
    /// Lines for the user.
    pub log: Arc<dyn LogCap>,
}

/// How well a runner runs a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Lowest wins; native is 0, emulated 100.
    pub rank: u32,
    /// `native`, `personality`, `emulated`, …
    pub how: String,
    /// Open for later.
    pub attrs: Attrs,
}

/// One mount of a job as a runner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountView {
    /// `slot:<n>` in the spec.
    pub slot: u32,
    /// Path in the container.
    pub target: String,
    /// `bind`, `cache`, `tmpfs`, `secret`, `ssh`, `file`.
    pub kind: String,
    /// Writes are refused.
    pub readonly: bool,
    /// Open for later.
    pub attrs: Attrs,
}

/// One process the solver wants to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Where it runs.
    pub platform: Platform,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Without secret and volatile variables.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
    /// Mounts.
    pub mounts: Vec<MountView>,
    /// Format of the program inside the root and of its interpreter chain, e.g. `elf:x86_64`.
    pub entry_format: Vec<String>,
    /// The host's own safe OCI runtime spec, as JSON; mount sources are tokens.
    pub base_spec: String,
    /// Open for later.
    pub attrs: Attrs,
}

/// An emulator registration in the step's own user namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinfmtRule {
    /// Name of a granted tool.
    pub tool: String,
    /// Bytes at the start of a file.
    pub magic: Vec<u8>,
    /// Which bits of them count.
    pub mask: Vec<u8>,
    /// E.g. `OCF`.
    pub flags: String,
}

/// How to launch a job. `spec` has passed the clamp.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// The edited spec; none = the base spec.
    pub spec: Option<String>,
    /// Tools bound into the container: name and target.
    pub tools: Vec<(String, String)>,
    /// Emulators.
    pub binfmt: Vec<BinfmtRule>,
    /// E.g. `linux32`.
    pub personality: Option<String>,
    /// Shown with the step.
    pub warnings: Vec<Diagnostic>,
    /// Open for later.
    pub attrs: Attrs,
}

/// Execution domains a plan may choose.
const PERSONALITIES: [&str; 2] = ["linux", "linux32"];
/// Longest magic of a binfmt rule: what the kernel looks at of a file (`BINPRM_BUF_SIZE`).
const MAGIC_BYTES: usize = 256;

/// The parts of a plan are checked when they are put in, whichever way a runner is called.
impl LaunchPlan {
    /// Binds a tool into the container.
    ///
    /// # Errors
    ///
    /// `Invalid` when nothing can be bound there.
    pub fn bind_tool(&mut self, tool: String, target: String) -> Result<(), Failure> {
        if !target.starts_with('/') || target.contains('\0') {
            return Err(Failure::invalid(format!(
                "the tool target {} is not absolute",
                quoted(&target)
            )));
        }
        if self.tools.iter().any(|(_, taken)| *taken == target) {
            return Err(Failure::invalid(format!("two tools are bound at {target}")));
        }
        self.tools.push((tool, target));
        Ok(())
    }

    /// Registers an emulator for the step.
    ///
    /// # Errors
    ///
    /// `Invalid` or `Unsupported` when the kernel would not take it.
    pub fn register(&mut self, rule: BinfmtRule) -> Result<(), Failure> {
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
        self.binfmt.push(rule);
        Ok(())
    }

    /// Chooses the execution domain.
    ///
    /// # Errors
    ///
    /// `Unsupported` when plans cannot choose it.
    pub fn choose_personality(&mut self, domain: String) -> Result<(), Failure> {
        if !PERSONALITIES.contains(&domain.as_str()) {
            return Err(Failure::unsupported(format!("unknown personality {}", quoted(&domain)))
                .hint(format!("expected one of: {}", PERSONALITIES.join(", "))));
        }
        self.personality = Some(domain);
        Ok(())
    }

    /// The tools it uses, sorted.
    pub fn tool_names(&self) -> Vec<String> {
        let bound = self.tools.iter().map(|(tool, _)| tool);
        let registered = self.binfmt.iter().map(|rule| &rule.tool);
        let mut tools: Vec<String> = bound.chain(registered).cloned().collect();
        tools.sort();
        tools.dedup();
        tools
    }

    /// The plan that these parts make, with each of them checked. The spec is taken over as it is: it
    /// is the clamp's to judge.
    ///
    /// # Errors
    ///
    /// Those of the parts.
    pub fn checked(parts: LaunchPlan) -> Result<LaunchPlan, Failure> {
        let LaunchPlan { spec, tools, binfmt, personality, warnings, attrs } = parts;
        wbuild_graph::decode::only_known(&attrs, "plan.attrs", &[])?;
        let mut plan = LaunchPlan { spec, warnings, attrs, ..LaunchPlan::default() };
        tools.into_iter().try_for_each(|(tool, target)| plan.bind_tool(tool, target))?;
        binfmt.into_iter().try_for_each(|rule| plan.register(rule))?;
        personality.into_iter().try_for_each(|domain| plan.choose_personality(domain))?;
        Ok(plan)
    }
}

/// A host executable the policy lets a runner use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// By which it was found.
    pub name: String,
    /// Of its bytes.
    pub digest: Digest,
    /// Needs no libraries.
    pub is_static: bool,
    /// If known.
    pub version: Option<String>,
}

/// A handler the kernel has already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinfmtEntry {
    /// Its flags.
    pub flags: String,
    /// `F`: opened at registration.
    pub usable_in_container: bool,
    /// Open for later.
    pub attrs: Attrs,
}

/// wit/runner, interface `machine`.
pub trait MachineCap: Send + Sync {
    /// What runs without help.
    fn native_platforms(&self) -> Vec<Platform>;
    /// What the kernel emulates already.
    fn kernel_binfmt(&self, platform: Platform) -> Option<BinfmtEntry>;
    /// `rootless`, `userns`, `cgroup-v2`, `binfmt-userns`, `overlay`, `personality`.
    fn features(&self) -> Attrs;
    /// A granted tool by name.
    fn find_tool(&self, name: String) -> Option<Tool>;
}

/// wit/runner, `plan.from-spec`.
pub trait ClampCap: Send + Sync {
    /// Compares `edited` with `base` field by field; returns the spec to use, or what the policy
    /// refuses. `tools` are the names of tools the plan binds.
    fn clamp(&self, base: String, edited: String, tools: Vec<String>) -> Result<String, Failure>;
}
