//! Cache backends: one instance per backend, direction and build.
//!
//! An instance is called by one caller at a time, and never again after a call that did not come
//! back: neither a trap nor a dropped future leaves it in a state that can be reasoned about.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;
use wasmtime::Store;
use wbuild_api::extension::{
    CacheBackend, CacheHost, CachePlugin, LayerDescriptor, PluginIdentity, RecordEntry,
};
use wbuild_graph::{Attrs, CacheKey, Failure, FailureKind};

use crate::PluginKind;
use crate::guest::Caller;
use crate::host::{Admitted, Inner};
use crate::v0_1::cache::{RemoteCache, State, layer_out, record_in, record_out};
use crate::v0_1::types::failure_in;

/// A cache backend that is a component. Made by [`crate::Plugin::cache`].
pub struct WasmCache {
    plugin: Arc<Inner>,
    admitted: Admitted,
}

impl WasmCache {
    pub(crate) fn new(plugin: Arc<Inner>, admitted: Admitted) -> Self {
        WasmCache { plugin, admitted }
    }
}

#[async_trait]
impl CachePlugin for WasmCache {
    fn identity(&self) -> PluginIdentity {
        self.admitted.identity.clone()
    }

    async fn connect(&self, host: CacheHost) -> Result<Arc<dyn CacheBackend>, Failure> {
        let pre = self.plugin.cache_pre().await?;
        let kind = PluginKind::Cache;
        let runtime = self.plugin.shared().runtime()?;
        let caller = Caller::new(runtime, kind, &self.admitted.identity.name, self.admitted.limits);
        let mut store = caller.store(Some(host));
        let instance = caller.instantiate(pre.instantiate_async(&mut store)).await?;
        let live = Mutex::new(Slot::Live(Live { store, instance }));
        Ok(Arc::new(WasmCacheBackend { name: self.admitted.identity.name.clone(), caller, live }))
    }
}

struct Live {
    store: Store<State>,
    instance: RemoteCache,
}

enum Slot {
    Live(Live),
    /// A call is under way, or was dropped.
    Taken,
    Ended(Failure),
}

struct WasmCacheBackend {
    name: String,
    caller: Caller,
    live: Mutex<Slot>,
}

impl WasmCacheBackend {
    /// Runs one call on the instance, which is put back only if the call came back.
    async fn call<T, F>(&self, call: F) -> Result<T, Failure>
    where
        F: AsyncFnOnce(&mut Live) -> wasmtime::Result<T>,
    {
        let mut slot = self.live.lock().await;
        let mut live = match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Live(live) => live,
            Slot::Taken => {
                let what = format!("the cache backend {} was given up in a call", self.name);
                return Err(Failure::new(FailureKind::Unavailable, what));
            }
            Slot::Ended(failure) => {
                *slot = Slot::Ended(failure.clone());
                return Err(failure);
            }
        };
        self.caller.reset();
        let result = self.caller.call(call(&mut live)).await;
        *slot = match &result {
            Ok(_) => Slot::Live(live),
            Err(failure) => Slot::Ended(failure.clone()),
        };
        result
    }
}

#[async_trait]
impl CacheBackend for WasmCacheBackend {
    async fn open(&self, mode: String, config: Attrs) -> Result<(), Failure> {
        let result = self
            .call(async |live: &mut Live| {
                let backend = live.instance.wbuild_cache_backend();
                backend.call_open(&mut live.store, &mode, &config.0).await
            })
            .await?;
        result.map_err(failure_in)
    }

    async fn find(&self, keys: Vec<CacheKey>) -> Result<Vec<Vec<RecordEntry>>, Failure> {
        let texts: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let found = self
            .call(async |live: &mut Live| {
                live.instance.wbuild_cache_backend().call_find(&mut live.store, &texts).await
            })
            .await?
            .map_err(failure_in)?;
        if found.len() != keys.len() {
            let what = format!("answered {} lists for {} keys", found.len(), keys.len());
            return Err(self.caller.broken(&what));
        }
        let broken = |cause: String| {
            let mut failure = self.caller.broken("answered a record that is none");
            failure.causes.push(cause);
            failure
        };
        let mut out = Vec::with_capacity(found.len());
        for (key, list) in keys.iter().zip(found) {
            let list: Result<Vec<RecordEntry>, Failure> = list.into_iter().map(record_in).collect();
            let list = list.map_err(|failure| broken(failure.message))?;
            if list.iter().any(|record| !record.keys.contains(key)) {
                return Err(broken(format!("it does not have the key {key} it was found by")));
            }
            out.push(list);
        }
        Ok(out)
    }

    async fn fetch(
        &self,
        layers: Vec<LayerDescriptor>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        let wanted: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
        let layers: Vec<_> = layers.into_iter().map(layer_out).collect();
        let results = self
            .call(async |live: &mut Live| {
                let backend = live.instance.wbuild_cache_backend();
                let answers = backend.call_fetch(&mut live.store, &layers).await?;
                if answers.len() != wanted.len() {
                    return Ok(Err(answers.len()));
                }
                let state = live.store.data_mut();
                let mut results = Vec::with_capacity(answers.len());
                for (digest, answer) in wanted.iter().zip(answers) {
                    results.push(state.take_fetched(digest, answer)?);
                }
                Ok(Ok(results))
            })
            .await?;
        results.map_err(|got| self.miscounted(got, wanted.len()))
    }

    async fn save(&self, entries: Vec<RecordEntry>) -> Result<(), Failure> {
        let entries: Vec<_> = entries.into_iter().map(record_out).collect();
        let result = self
            .call(async |live: &mut Live| {
                live.instance.wbuild_cache_backend().call_save(&mut live.store, &entries).await
            })
            .await?;
        result.map_err(failure_in)
    }

    async fn push(
        &self,
        layers: Vec<LayerDescriptor>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        let layers: Vec<_> = layers.into_iter().map(layer_out).collect();
        let results = self
            .call(async |live: &mut Live| {
                live.instance.wbuild_cache_backend().call_push(&mut live.store, &layers).await
            })
            .await?;
        if results.len() != layers.len() {
            return Err(self.miscounted(results.len(), layers.len()));
        }
        Ok(results.into_iter().map(|result| result.map_err(failure_in)).collect())
    }

    async fn commit(&self) -> Result<Attrs, Failure> {
        let result = self
            .call(async |live: &mut Live| {
                live.instance.wbuild_cache_backend().call_commit(&mut live.store, &Vec::new()).await
            })
            .await?;
        result.map(Attrs).map_err(failure_in)
    }

    async fn prune(&self, options: Attrs) -> Result<Attrs, Failure> {
        let result = self
            .call(async |live: &mut Live| {
                let backend = live.instance.wbuild_cache_backend();
                backend.call_prune(&mut live.store, &options.0).await
            })
            .await?;
        result.map(Attrs).map_err(failure_in)
    }
}

impl WasmCacheBackend {
    fn miscounted(&self, got: usize, asked: usize) -> Failure {
        self.caller.broken(&format!("gave {got} answers for {asked} layers"))
    }
}
