//! Plans as values.

use serde_json::Value;
use wbuild_api::extension::{BinfmtRule, LaunchPlan, Tool};
use wbuild_graph::Severity;
use wbuild_guest::diagnostic;

/// How a process is to be launched. A value: the host sees it, and may refuse it, when the runner
/// returns it.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "a plan is returned"]
pub struct Plan(LaunchPlan);

impl Plan {
    /// As the host proposes it: the ordinary beginning.
    pub fn base() -> Plan {
        Plan::default()
    }

    /// With an edited specification. What may differ from [`crate::Job::base_spec`] is said in
    /// `wit/runner` (`plan.from-spec`): an interpreter before the arguments, stricter mounts and limits,
    /// fewer capabilities.
    pub fn edited(spec: &Value) -> Plan {
        Plan(LaunchPlan { spec: Some(spec.to_string()), ..LaunchPlan::default() })
    }

    /// A tool is seen, read-only, at an absolute path in the container.
    pub fn bind_tool(mut self, tool: &Tool, target: impl Into<String>) -> Plan {
        self.0.tools.push((tool.name.clone(), target.into()));
        self
    }

    /// A tool handles programs of a kind, in the step alone: those whose first bytes are `magic` where
    /// `mask` has ones (binfmt_misc). `flags` are of `O`, `C`, `P`, `F`. The machine has to have
    /// `binfmt-userns`.
    pub fn handler(
        mut self,
        tool: &Tool,
        magic: impl Into<Vec<u8>>,
        mask: impl Into<Vec<u8>>,
        flags: impl Into<String>,
    ) -> Plan {
        self.0.binfmt.push(BinfmtRule {
            tool: tool.name.clone(),
            magic: magic.into(),
            mask: mask.into(),
            flags: flags.into(),
        });
        self
    }

    /// The execution domain: `linux32` for a `uname` of 32 bit.
    pub fn personality(mut self, domain: impl Into<String>) -> Plan {
        self.0.personality = Some(domain.into());
        self
    }

    /// Something that is shown with the step, and what the user can do about it.
    pub fn warning(
        mut self,
        code: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Plan {
        let mut warning = diagnostic(Severity::Warning, message.into());
        warning.code = Some(code.to_owned());
        warning.help = Some(help.into());
        self.0.warnings.push(warning);
        self
    }

    /// As the host takes it.
    pub fn into_parts(self) -> LaunchPlan {
        self.0
    }
}
