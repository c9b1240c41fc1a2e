//! How one process is launched: the runners' plan for it, in the namespaces it needs.

use std::collections::BTreeSet;
use std::sync::Arc;

use wbuild_api::extension::{Job, LaunchPlan};
use wbuild_exec::spec::{self, Spec};
use wbuild_exec::{ExecSpec, Handler};
use wbuild_graph::{Attrs, Diagnostic, Failure, Platform};

use crate::launchers::Launchers;
use crate::runners::Runners;

/// A process that can be started by the launcher with these handlers.
pub(crate) struct Launch {
    pub(crate) spec: Spec,
    pub(crate) handlers: Vec<Handler>,
    /// The execution domain that the spec asks for, by its name.
    pub(crate) personality: Option<String>,
    pub(crate) warnings: Vec<Diagnostic>,
    /// Platforms whose programs it cannot start, though it has some, and why.
    pub(crate) without: Option<(Arc<BTreeSet<Platform>>, Failure)>,
}

/// What the runners know of a process besides its spec.
pub(crate) fn job(exec: &ExecSpec, platform: &Platform) -> Job {
    Job {
        platform: platform.clone(),
        args: exec.args.clone(),
        env: exec.env.clone(),
        cwd: exec.cwd.clone(),
        mounts: Vec::new(),
        entry_format: Vec::new(),
        base_spec: String::new(),
        attrs: Attrs::default(),
    }
}

/// Plans the launch of `exec`. `job` is what runners see of it, its spec aside. The process's files
/// are also of the platforms in `foreign`.
pub(crate) async fn plan(
    runners: &Runners,
    launchers: &Launchers,
    mut exec: ExecSpec,
    mut job: Job,
    mut foreign: Arc<BTreeSet<Platform>>,
) -> Result<Launch, Failure> {
    let mut base = spec::base(&exec)?;
    job.base_spec = spec::to_json(&base).to_string();
    let (mut plan, mut handlers) = runners.plan(&job, &foreign).await?;
    let mut without = None;
    if !handlers.is_empty()
        && !foreign.is_empty()
        && let Err(failure) = launchers.get(handlers.clone()).await
    {
        // A step that has foreign programs may never start one, so it has to do without. One that is
        // foreign itself fails when it is started.
        without = Some((std::mem::take(&mut foreign), failure));
        (plan, handlers) = runners.plan(&job, &foreign).await?;
    }
    if !handlers.is_empty() && exec.user_namespace.is_none() {
        // Handlers are in a user namespace, and so is the process then. A plan depends on its job
        // alone, so the runner is asked again.
        exec.user_namespace = Some(wbuild_exec::namespace::same_ids()?);
        base = spec::base(&exec)?;
        job.base_spec = spec::to_json(&base).to_string();
        (plan, handlers) = runners.plan(&job, &foreign).await?;
    }
    let mut spec = match &plan.spec {
        None => base,
        Some(text) => spec::late::from_json(text)?,
    };
    if let Some(domain) = &plan.personality {
        spec::late::set_personality(&mut spec, domain)?;
    }
    let LaunchPlan { personality, warnings, .. } = plan;
    Ok(Launch { spec, handlers, personality, warnings, without })
}
