//! Frontends: one fresh instance per build, nothing loaded before.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use wbuild_api::describe::{Description, Query};
use wbuild_api::extension::{Frontend, FrontendHost, PluginIdentity};
use wbuild_graph::Failure;

use crate::PluginKind;
use crate::guest::Caller;
use crate::host::{Admitted, Inner};
use crate::v0_1::frontend::ask;
use crate::v0_1::types::failure_in;

/// A frontend that is a component. Made by [`crate::Plugin::frontend`]; the component is loaded
/// when [`Frontend::build`] is first called, so that knowing its identity costs nothing.
pub struct WasmFrontend {
    plugin: Arc<Inner>,
    admitted: Admitted,
    usage: Mutex<Usage>,
}

/// What an instance used, for its author.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time. Waiting for the host does not count.
    pub cpu: Duration,
    /// Linear memory at its end, in bytes; it never shrinks.
    pub memory_bytes: usize,
}

impl WasmFrontend {
    pub(crate) fn new(plugin: Arc<Inner>, admitted: Admitted) -> Self {
        WasmFrontend { plugin, admitted, usage: Mutex::default() }
    }

    /// What the last build used that ended.
    pub fn usage(&self) -> Usage {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Frontend for WasmFrontend {
    fn identity(&self) -> PluginIdentity {
        self.admitted.identity.clone()
    }

    async fn build(&self, host: FrontendHost) -> Result<(), Failure> {
        let pre = self.plugin.frontend_pre().await?;
        let kind = PluginKind::Frontend;
        let runtime = self.plugin.shared().runtime()?;
        let caller = Caller::new(runtime, kind, &self.admitted.identity.name, self.admitted.limits);
        let mut store = caller.store(Some(host));
        let instance = caller.instantiate(pre.instantiate_async(&mut store)).await?;
        let result = caller.call(instance.wbuild_frontend_build().call_build(&mut store)).await;
        store.data_mut().flush();
        let usage = Usage { cpu: caller.spent(), memory_bytes: store.data().memory_bytes() };
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = usage;
        result?.map_err(failure_in)
    }

    fn describes(&self) -> bool {
        self.plugin.outline().describes()
    }

    /// With the limits of a build: what is asked is as much work as a build without its steps.
    async fn describe(&self, host: FrontendHost, query: Query) -> Result<Description, Failure> {
        if !self.describes() {
            return Err(query.unsupported(&self.admitted.identity.name));
        }
        let pre = self.plugin.describe_pre().await?;
        let kind = PluginKind::Frontend;
        let runtime = self.plugin.shared().runtime()?;
        let caller = Caller::new(runtime, kind, &self.admitted.identity.name, self.admitted.limits);
        let mut store = caller.store(Some(host));
        let instance = caller.instantiate(pre.instantiate_async(&mut store)).await?;
        ask(&caller, &mut store, &instance, query).await
    }
}
