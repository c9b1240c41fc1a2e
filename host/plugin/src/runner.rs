//! Runners: a fresh instance per call, so that a plan depends on nothing but its job.

use std::sync::Arc;

use async_trait::async_trait;
use wasmtime::Store;
use wbuild_api::extension::{Job, LaunchPlan, Offer, PluginIdentity, Runner, RunnerHost};
use wbuild_graph::{Failure, Platform};

use crate::PluginKind;
use crate::guest::Caller;
use crate::host::{Admitted, Inner};
use crate::v0_1::runner::{RunnerCaps, State, bindings, offers_in};
use crate::v0_1::types::{failure_in, platform_out};

/// A runner that is a component. Made by [`crate::Plugin::runner`].
pub struct WasmRunner {
    plugin: Arc<Inner>,
    admitted: Admitted,
}

impl WasmRunner {
    pub(crate) fn new(plugin: Arc<Inner>, admitted: Admitted) -> Self {
        WasmRunner { plugin, admitted }
    }

    async fn instance(
        &self,
        host: RunnerHost,
        job: Option<Arc<Job>>,
    ) -> Result<(Caller, Store<State>, bindings::Runner), Failure> {
        let pre = self.plugin.runner_pre().await?;
        let kind = PluginKind::Runner;
        let runtime = self.plugin.shared().runtime()?;
        let caller = Caller::new(runtime, kind, &self.admitted.identity.name, self.admitted.limits);
        let mut store = caller.store(Some(RunnerCaps { host, job, granted: Vec::new() }));
        let instance = caller.instantiate(pre.instantiate_async(&mut store)).await?;
        Ok((caller, store, instance))
    }
}

#[async_trait]
impl Runner for WasmRunner {
    fn identity(&self) -> PluginIdentity {
        self.admitted.identity.clone()
    }

    async fn supports(
        &self,
        host: RunnerHost,
        platforms: Vec<Platform>,
    ) -> Result<Vec<Result<Offer, Failure>>, Failure> {
        let (caller, mut store, instance) = self.instance(host, None).await?;
        let asked: Vec<_> = platforms.into_iter().map(platform_out).collect();
        let planner = instance.wbuild_runner_planner();
        let offers = caller.call(planner.call_supports(&mut store, &asked)).await?;
        if offers.len() != asked.len() {
            let what = format!("answered {} offers for {} platforms", offers.len(), asked.len());
            return Err(caller.broken(&what));
        }
        Ok(offers_in(offers))
    }

    async fn make_plan(&self, host: RunnerHost, job: Job) -> Result<LaunchPlan, Failure> {
        let job = Arc::new(job);
        let (caller, mut store, instance) = self.instance(host, Some(Arc::clone(&job))).await?;
        let planner = instance.wbuild_runner_planner();
        caller
            .call(async {
                let handle = store.data_mut().push(job)?;
                match planner.call_make_plan(&mut store, handle).await? {
                    Ok(plan) => store.data_mut().take_plan(plan),
                    Err(failure) => Ok(Err(failure_in(failure))),
                }
            })
            .await?
    }
}
