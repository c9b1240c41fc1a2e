//! A cache backend that is compiled into a program instead of to a component.

use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;

use async_trait::async_trait;
use futures_channel::mpsc::{UnboundedSender, unbounded};
use futures_channel::oneshot;
use futures_util::StreamExt as _;
use wbuild_api::extension::{
    CacheBackend, CacheHost, CachePlugin, LayerDescriptor, PluginIdentity, RecordEntry,
};
use wbuild_graph::{Attrs, CacheKey, Digest, Failure};
use wbuild_guest::native::{Question, enter, panic_text};

use crate::session::Slot;
use crate::sys::{hash, layer_in, record_in, record_out};
use crate::{Cache, Error, Layer, Result};

/// A cache backend made by [`crate::cache!`], for tests and for programs that embed it.
///
/// Each instance runs on a thread of its own; statics are shared, as nothing of a component is.
pub struct Native<C> {
    name: &'static str,
    cache: PhantomData<fn() -> C>,
}

impl<C> Native<C> {
    /// The backend that `C` is.
    pub const fn new(name: &'static str) -> Self {
        Native { name, cache: PhantomData }
    }
}

impl<C> std::fmt::Debug for Native<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Native").field("name", &self.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl<C: Cache> CachePlugin for Native<C> {
    fn identity(&self) -> PluginIdentity {
        let digest = Digest::of(format!("native cache {}", self.name).as_bytes());
        PluginIdentity::bundled(self.name, digest, crate::WIT_VERSION)
    }

    async fn connect(&self, host: CacheHost) -> Result<Arc<dyn CacheBackend>, Failure> {
        let (calls, waiting) = mpsc::channel::<Call<C>>();
        std::thread::Builder::new()
            .name(self.name.to_owned())
            .spawn(move || {
                let slot = Slot::<C>::default();
                while let Ok((call, questions)) = waiting.recv() {
                    enter(host.clone(), questions, || call(&slot));
                }
            })
            .map_err(|error| Failure::internal("cannot start a thread").cause(&error))?;
        Ok(Arc::new(Instance { name: self.name, calls: Mutex::new(calls) }))
    }
}

type Call<C> = (Box<dyn FnOnce(&Slot<C>) + Send>, UnboundedSender<Question>);

struct Instance<C> {
    name: &'static str,
    calls: Mutex<mpsc::Sender<Call<C>>>,
}

impl<C: Cache> Instance<C> {
    /// Runs a call on the instance's thread, and answers its questions meanwhile.
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Slot<C>) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let ended = || {
            let message = format!("the cache backend {} has ended", self.name);
            Failure::internal(message).attr("plugin", self.name)
        };
        let (asks, mut questions) = unbounded();
        let (answer, answered) = oneshot::channel();
        let call = Box::new(move |slot: &Slot<C>| {
            let _ = answer.send(catch_unwind(AssertUnwindSafe(|| call(slot))));
        });
        let calls = self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        calls.send((call, asks)).map_err(|_| ended())?;
        while let Some(question) = questions.next().await {
            question.await;
        }
        match answered.await.map_err(|_| ended())? {
            Ok(value) => Ok(value),
            Err(panic) => {
                let Some(text) = panic_text(&*panic) else { return Err(Failure::cancelled()) };
                let message = format!("the cache backend {} panicked: {text}", self.name);
                Err(Failure::internal(message).attr("plugin", self.name))
            }
        }
    }

    /// A call that has one answer, in values that may leave the thread.
    async fn one<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Slot<C>) -> Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        self.call(|slot| call(slot).map_err(Error::into_failure)).await?
    }
}

fn layers_in(layers: Vec<LayerDescriptor>) -> Result<Vec<Layer>> {
    layers.into_iter().map(layer_in).collect()
}

fn done<T>(answers: Vec<Result<T>>) -> Vec<Result<(), Failure>> {
    answers.into_iter().map(|answer| answer.map(drop).map_err(Error::into_failure)).collect()
}

#[async_trait]
impl<C: Cache> CacheBackend for Instance<C> {
    async fn open(&self, mode: String, config: Attrs) -> Result<(), Failure> {
        self.one(move |slot| slot.open(&mode, config.0)).await
    }

    async fn find(&self, keys: Vec<CacheKey>) -> Result<Vec<Vec<RecordEntry>>, Failure> {
        let found = self.one(move |slot| {
            let keys = keys.iter().map(|key| hash(&key.0)).collect::<Result<Vec<_>>>()?;
            let found = slot.find(&keys)?;
            Ok(found.iter().map(|list| list.iter().map(record_out).collect()).collect())
        });
        found.await
    }

    async fn fetch(
        &self,
        layers: Vec<LayerDescriptor>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        self.one(move |slot| Ok(done(slot.fetch(&layers_in(layers)?)))).await
    }

    async fn save(&self, entries: Vec<RecordEntry>) -> Result<(), Failure> {
        let saved = self
            .one(move |slot| slot.save(entries.into_iter().map(record_in).collect::<Result<_>>()?));
        saved.await
    }

    async fn push(
        &self,
        layers: Vec<LayerDescriptor>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        self.one(move |slot| Ok(done(slot.push(&layers_in(layers)?)))).await
    }

    async fn commit(&self) -> Result<Attrs, Failure> {
        self.one(|slot| slot.commit().map(Attrs)).await
    }

    async fn prune(&self, options: Attrs) -> Result<Attrs, Failure> {
        self.one(move |slot| slot.prune(&options.0).map(Attrs)).await
    }
}
