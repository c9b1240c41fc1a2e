//! Cache backends in a child: one child per backend, direction and build.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;
use wbuild_api::extension::{
    BlobInfo, CacheBackend, CacheHost, CachePlugin, HttpBody, HttpCap, LayerDescriptor, LogCap,
    PluginIdentity, RecordEntry, RepositoryCap,
};
use wbuild_graph::{Attrs, CacheKey, Digest, Failure, FailureKind};
use wbuild_plugin::limits::{LIST_ITEMS, LimitReached, Meter, READ_BYTES, SMALL_BODY};
use wbuild_plugin::{Limits, Plugin, PluginKind, bounds};

use super::process::Program;
use super::session::{Answer, Answers, Ended, Session, answer, claim};
use crate::protocol::{CacheCall, Call, Done, Start, Task};

/// A cache backend whose guest runs in a process of its own.
pub(super) struct IsolatedCache {
    pub(super) program: Arc<Program>,
    pub(super) plugin: Plugin,
    pub(super) inner: Arc<dyn CachePlugin>,
}

#[async_trait]
impl CachePlugin for IsolatedCache {
    fn identity(&self) -> PluginIdentity {
        self.inner.identity()
    }

    async fn connect(&self, host: CacheHost) -> Result<Arc<dyn CacheBackend>, Failure> {
        let kind = PluginKind::Cache;
        let start = Start {
            known: self.plugin.known(kind),
            repository: host.repository.is_some(),
            http: host.http.is_some(),
            facts: None,
            task: Task::Connect,
        };
        let session = Session::start(&self.program, &self.plugin, &start).await?;
        let name = self.plugin.name().to_owned();
        let mut answers = CacheAnswers::new(host, self.plugin.limits(kind));
        let (session, done) = session.finish(&mut answers).await?;
        match done? {
            Done::Nothing => {}
            _ => return Err(broken(&name, "answered another question")),
        }
        let live = Mutex::new((Slot::Live(Box::new(session)), answers));
        Ok(Arc::new(IsolatedBackend { name, live }))
    }
}

fn broken(name: &str, what: &str) -> Failure {
    Failure::internal(format!("the cache backend {name} {what}")).attr("plugin", name)
}

enum Slot {
    Live(Box<Session>),
    /// A call is under way, or was dropped.
    Taken,
    Ended(Failure),
}

struct IsolatedBackend {
    name: String,
    live: Mutex<(Slot, CacheAnswers)>,
}

impl IsolatedBackend {
    async fn call(&self, task: Task) -> Result<Done, Failure> {
        let mut live = self.live.lock().await;
        let (slot, answers) = &mut *live;
        let session = match std::mem::replace(slot, Slot::Taken) {
            Slot::Live(session) => session,
            Slot::Taken => {
                let what = format!("the cache backend {} was given up in a call", self.name);
                return Err(Failure::new(FailureKind::Unavailable, what));
            }
            Slot::Ended(failure) => {
                *slot = Slot::Ended(failure.clone());
                return Err(failure);
            }
        };
        let called = match session.give(task).await {
            Ok(session) => session.finish(answers).await,
            Err(failure) => Err(failure),
        };
        match called {
            Ok((session, done)) => {
                *slot = Slot::Live(Box::new(session));
                done
            }
            Err(failure) => {
                *slot = Slot::Ended(failure.clone());
                Err(failure)
            }
        }
    }

    async fn nothing(&self, task: Task) -> Result<(), Failure> {
        match self.call(task).await? {
            Done::Nothing => Ok(()),
            _ => Err(broken(&self.name, "answered another question")),
        }
    }

    async fn attrs(&self, task: Task) -> Result<Attrs, Failure> {
        match self.call(task).await? {
            Done::Attrs(attrs) => Ok(bounds::attrs(attrs)),
            _ => Err(broken(&self.name, "answered another question")),
        }
    }

    async fn each(&self, task: Task, asked: usize) -> Result<Vec<Result<(), Failure>>, Failure> {
        match self.call(task).await? {
            Done::Each(each) if each.len() == asked => {
                Ok(each.into_iter().map(|one| one.map_err(bounds::failure)).collect())
            }
            _ => Err(broken(&self.name, "answered another question")),
        }
    }
}

#[async_trait]
impl CacheBackend for IsolatedBackend {
    async fn open(&self, mode: String, config: Attrs) -> Result<(), Failure> {
        self.nothing(Task::Open(mode, config)).await
    }

    async fn find(&self, keys: Vec<CacheKey>) -> Result<Vec<Vec<RecordEntry>>, Failure> {
        let found = match self.call(Task::Find(keys.clone())).await? {
            Done::Records(found) if found.len() == keys.len() => found,
            _ => return Err(broken(&self.name, "answered another question")),
        };
        for (key, records) in keys.iter().zip(&found) {
            if records.iter().any(|record| !record.keys.contains(key)) {
                return Err(broken(&self.name, "answered a record without the key it is found by"));
            }
        }
        Ok(found)
    }

    /// That a layer is there is what the child says; it must have been made present here.
    async fn fetch(
        &self,
        layers: Vec<LayerDescriptor>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        let mut each = self.each(Task::Fetch(layers.clone()), layers.len()).await?;
        let live = self.live.lock().await;
        for (layer, one) in layers.iter().zip(&mut each) {
            if one.is_ok() && !live.1.present.contains(&layer.digest) {
                let what = format!("handed over no layer {}", layer.digest);
                *one = Err(broken(&self.name, &what));
            }
        }
        Ok(each)
    }

    async fn save(&self, entries: Vec<RecordEntry>) -> Result<(), Failure> {
        self.nothing(Task::Save(entries)).await
    }

    async fn push(
        &self,
        layers: Vec<LayerDescriptor>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        let asked = layers.len();
        self.each(Task::Push(layers), asked).await
    }

    async fn commit(&self) -> Result<Attrs, Failure> {
        self.attrs(Task::Commit).await
    }

    async fn prune(&self, options: Attrs) -> Result<Attrs, Failure> {
        self.attrs(Task::Prune(options)).await
    }
}

struct CacheAnswers {
    host: CacheHost,
    limits: Limits,
    /// Blobs that a guest of this child could hold a handle of, with what is known of them.
    blobs: BTreeMap<Digest, Option<BlobInfo>>,
    /// Digests that were seen to be in the content store.
    present: BTreeSet<Digest>,
    /// Answers of servers that a guest could hold.
    responses: BTreeSet<u64>,
    /// Buckets that were opened.
    buckets: BTreeSet<String>,
}

impl CacheAnswers {
    fn new(host: CacheHost, limits: Limits) -> Self {
        CacheAnswers {
            host,
            limits,
            blobs: BTreeMap::new(),
            present: BTreeSet::new(),
            responses: BTreeSet::new(),
            buckets: BTreeSet::new(),
        }
    }

    /// A guest holds a handle of a blob from now on. It may have dropped it since, so this counts
    /// more than it holds; the child counts what it does.
    fn seen(
        &mut self,
        digest: Digest,
        info: Option<BlobInfo>,
        meter: &mut Meter,
    ) -> Result<(), Ended> {
        if !self.present.contains(&digest) {
            meter.charge(size_of::<BlobInfo>())?;
        }
        self.present.insert(digest);
        let known = self.blobs.entry(digest).or_default();
        if info.is_some() {
            *known = info;
        }
        Ok(())
    }

    fn bucket(&self, name: &str) -> Result<(), Ended> {
        if self.buckets.contains(name) { Ok(()) } else { claim("a bucket that was not opened") }
    }

    fn response(&self, id: u64) -> Result<Arc<dyn HttpCap>, Ended> {
        match &self.host.http {
            Some(http) if self.responses.contains(&id) => Ok(Arc::clone(http)),
            _ => claim("an answer of a server that it does not have"),
        }
    }

    fn repository(&self) -> Result<Arc<dyn RepositoryCap>, Ended> {
        match &self.host.repository {
            Some(repository) => Ok(Arc::clone(repository)),
            None => claim("a repository, which it was not granted"),
        }
    }
}

impl Answers for CacheAnswers {
    fn log(&self) -> &dyn LogCap {
        &*self.host.log
    }

    fn transfers(&self, call: &Call) -> bool {
        matches!(
            call,
            Call::Cache(
                CacheCall::Resolve(_)
                    | CacheCall::Pull(_)
                    | CacheCall::PushBlobs(_)
                    | CacheCall::Publish(_)
                    | CacheCall::Retain(_)
                    | CacheCall::HttpSend(_)
                    | CacheCall::HttpBodySmall(..)
                    | CacheCall::HttpBodyBlob(..)
            )
        )
    }

    async fn answer(&mut self, call: Call, meter: &mut Meter) -> Answer {
        let Call::Cache(call) = call else { return claim("a call of another kind of plugin") };
        match call {
            CacheCall::KvOpen(bucket) => {
                if let Err(failure) = bounds::bucket(&bucket) {
                    return claim(failure.message);
                }
                let opened = self.host.kv.open(bucket.clone());
                if opened.is_ok()
                    && self.buckets.insert(bucket)
                    && self.buckets.len() > self.limits.handles
                {
                    return Err(LimitReached::Handles(self.limits.handles).into());
                }
                answer(&opened)
            }
            CacheCall::KvGetMany(bucket, keys) => {
                self.bucket(&bucket)?;
                meter.batch(keys.len())?;
                answer(&self.host.kv.get_many(bucket, keys))
            }
            CacheCall::KvScan(bucket, prefix, after, limit) => {
                self.bucket(&bucket)?;
                answer(&self.host.kv.scan(bucket, prefix, after, limit.min(LIST_ITEMS)))
            }
            CacheCall::KvApply(bucket, changes) => {
                self.bucket(&bucket)?;
                answer(&self.host.kv.apply(bucket, changes))
            }
            CacheCall::KvClear(bucket) => {
                self.bucket(&bucket)?;
                answer(&self.host.kv.clear(bucket))
            }
            CacheCall::BlobOpen(digest) => {
                let info = self.host.blobs.open(digest);
                if let Some(info) = &info {
                    self.seen(digest, Some(info.clone()), meter)?;
                    self.seen(*info.digest.digest(), Some(info.clone()), meter)?;
                }
                answer(&info)
            }
            CacheCall::BlobRead(digest, offset, length) => {
                let Some(known) = self.blobs.get(&digest) else {
                    return claim("a blob that it has not opened");
                };
                let info = known.clone().or_else(|| self.host.blobs.open(digest));
                if info.is_some_and(|info| bounds::readable_blob(&info).is_err()) {
                    return claim("to read a blob that is too large");
                }
                answer(&self.host.blobs.read(digest, offset, length.min(READ_BYTES)))
            }
            CacheCall::BlobWrite(media_type, data) => {
                if bounds::media_type(&media_type).and_then(|()| bounds::small_blob(&data)).is_err()
                {
                    return claim("to write a blob that is too large");
                }
                let written = self.host.blobs.write_small(media_type, data);
                if let Ok(info) = &written {
                    self.seen(*info.digest.digest(), Some(info.clone()), meter)?;
                }
                answer(&written)
            }
            call => self.remote(call, meter).await,
        }
    }
}

impl CacheAnswers {
    async fn remote(&mut self, call: CacheCall, meter: &mut Meter) -> Answer {
        match call {
            CacheCall::Resolve(reference) => {
                if bounds::reference(&reference).is_err() {
                    return claim("a reference that is none");
                }
                let found = self.repository()?.resolve(reference).await;
                answer(&found)
            }
            CacheCall::Pull(layers) => {
                meter.batch(layers.len())?;
                let pulled = self.repository()?.pull(layers.clone()).await;
                for (layer, one) in layers.iter().zip(&pulled) {
                    if one.is_ok() {
                        self.seen(layer.digest, None, meter)?;
                    }
                }
                answer(&pulled)
            }
            CacheCall::PushBlobs(layers) => {
                meter.batch(layers.len())?;
                answer(&self.repository()?.push(layers).await)
            }
            CacheCall::Publish(manifest) => {
                let named = manifest.tag.as_deref().map_or(Ok(()), bounds::reference);
                if named.and_then(|()| bounds::manifest(&manifest.data)).is_err() {
                    return claim("a manifest that cannot be published");
                }
                answer(&self.repository()?.publish(manifest).await)
            }
            CacheCall::Retain(manifests) => {
                meter.batch(manifests.len())?;
                answer(&self.repository()?.retain(manifests).await)
            }
            CacheCall::HttpSend(requests) => {
                meter.batch(requests.len())?;
                let Some(http) = &self.host.http else {
                    return claim("HTTP, which it was not granted");
                };
                for request in &requests {
                    if let HttpBody::Blob { digest, .. } = &request.body
                        && !self.blobs.contains_key(digest.digest())
                    {
                        return claim("to send a blob that it has not opened");
                    }
                }
                let sent = http.send(requests).await;
                for response in sent.iter().flatten() {
                    self.responses.insert(response.id);
                }
                if self.responses.len() > self.limits.handles {
                    return Err(LimitReached::Handles(self.limits.handles).into());
                }
                answer(&sent)
            }
            CacheCall::HttpBodySmall(id, limit) => {
                answer(&self.response(id)?.body_small(id, limit.min(SMALL_BODY)).await)
            }
            CacheCall::HttpBodyBlob(id, expect) => {
                let digest = expect.digest;
                let received = self.response(id)?.body_blob(id, expect).await;
                if received.is_ok() {
                    self.seen(digest, None, meter)?;
                }
                answer(&received)
            }
            CacheCall::HttpForget(id) => {
                self.response(id)?.forget(id);
                self.responses.remove(&id);
                answer(&())
            }
            _ => claim("a call that is answered elsewhere"),
        }
    }
}
