//! Places of values for cache backends, and cases of them: every promise of [`crate::promises`] over a
//! content store, buckets, a repository and a web server that are in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde::Deserialize;
use wbuild_api::extension::{
    BlobInfo, BlobsCap, CacheBackend, CacheHost, CachePlugin, HttpBody, HttpCap, HttpRequest,
    HttpResponse, KvCap, KvPair, LayerDescriptor, LogCap, Naming, NewManifest, RepositoryCap,
};
use wbuild_graph::{Attrs, BlobDigest, Digest, Failure, FailureKind, Severity};

use crate::bench::lock;
use crate::case::CASE_FILE;
use crate::cases::{Outcome, check_all, compare};
use crate::promises::{PROMISES, Place};
use crate::snapshot::severity_name;

type Blobs = BTreeMap<Digest, Vec<u8>>;
type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CaseFile {
    options: BTreeMap<String, String>,
    shared: bool,
}

/// A place in memory, for one backend with its options.
struct Memory {
    plugin: Arc<dyn CachePlugin>,
    options: Attrs,
    shared: bool,
    machines: Mutex<BTreeMap<String, Arc<Machine>>>,
    elsewhere: Arc<Elsewhere>,
    calls: Arc<AtomicUsize>,
    log: Arc<Log>,
}

#[derive(Default)]
struct Machine {
    blobs: Mutex<Blobs>,
    buckets: Mutex<BTreeMap<String, Pairs>>,
}

/// A server and a repository.
#[derive(Default)]
struct Elsewhere {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    blobs: Mutex<Blobs>,
    /// By tag and digest.
    manifests: Mutex<BTreeMap<String, (String, Vec<u8>)>>,
    bodies: Mutex<BTreeMap<u64, Vec<u8>>>,
}

#[derive(Default)]
struct Log(Mutex<Vec<(Severity, String)>>);

impl LogCap for Log {
    fn log(&self, severity: Severity, text: String) {
        lock(&self.0).push((severity, text));
    }
}

/// What of the place one instance on one machine has in hand.
struct Hands {
    machine: Arc<Machine>,
    elsewhere: Arc<Elsewhere>,
    origins: Vec<String>,
    tag: String,
    /// What it may reach of the content store, as in a build: what was named to it, and what it has
    /// written or brought.
    reachable: Mutex<BTreeSet<Digest>>,
    calls: Arc<AtomicUsize>,
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> Option<&str> {
    let host = url.find("://").map(|at| at + 3)?;
    let end = url[host..].find('/').map_or(url.len(), |at| host + at);
    ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)).then(|| &url[..end])
}

#[async_trait]
impl Place for Memory {
    async fn open(&self, machine: &str, mode: &str) -> Result<Arc<dyn CacheBackend>, Failure> {
        let origins = self.options.iter().filter_map(|(_, value)| origin(value));
        let reference = self.options.get("ref").and_then(|name| name.rsplit_once(':'));
        let tag = self.options.get("tag").or(reference.map(|(_, tag)| tag)).unwrap_or("latest");
        let hands = Arc::new(Hands {
            machine: self.machine(machine),
            elsewhere: Arc::clone(&self.elsewhere),
            origins: origins.map(str::to_owned).collect(),
            tag: tag.to_owned(),
            reachable: Mutex::default(),
            calls: Arc::clone(&self.calls),
        });
        let places = ["ref", "src", "dest"].iter().any(|key| self.options.get(key).is_some());
        let backend = self.plugin.connect(CacheHost {
            kv: Arc::clone(&hands) as _,
            blobs: Arc::clone(&hands) as _,
            repository: places.then(|| Arc::clone(&hands) as _),
            http: (!hands.origins.is_empty()).then(|| Arc::clone(&hands) as _),
            log: Arc::clone(&self.log) as _,
        });
        let backend = backend.await?;
        let named = move |layers: &mut dyn Iterator<Item = &LayerDescriptor>| {
            lock(&hands.reachable).extend(layers.map(|layer| layer.digest));
        };
        let backend: Arc<dyn CacheBackend> = Arc::new(Naming { named, backend });
        backend.open(mode.to_owned(), self.options.clone()).await?;
        Ok(backend)
    }

    fn put(&self, machine: &str, content: &[u8]) {
        lock(&self.machine(machine).blobs).insert(Digest::of(content), content.to_vec());
    }

    fn held(&self, machine: &str, digest: &Digest) -> Option<Vec<u8>> {
        lock(&self.machine(machine).blobs).get(digest).cloned()
    }

    fn is_shared(&self) -> bool {
        self.shared
    }
}

impl Memory {
    fn machine(&self, name: &str) -> Arc<Machine> {
        Arc::clone(lock(&self.machines).entry(name.to_owned()).or_default())
    }
}

fn absent(digest: &Digest) -> Failure {
    Failure::new(FailureKind::Gone, format!("the blob {digest} is neither there nor here"))
}

/// Checks what has come, and keeps it.
fn keep(blobs: &Mutex<Blobs>, wanted: &LayerDescriptor, data: Vec<u8>) -> Result<(), Failure> {
    if Digest::of(&data) != wanted.digest || data.len() as u64 != wanted.size {
        return Err(Failure::invalid(format!("what has come is not {}", wanted.digest)));
    }
    lock(blobs).insert(wanted.digest, data);
    Ok(())
}

impl Hands {
    /// Notes a call of a capability.
    fn count(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// A blob of the content store that it may reach.
    fn blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        let reachable = lock(&self.reachable).contains(digest);
        reachable.then(|| lock(&self.machine.blobs).get(digest).cloned()).flatten()
    }

    /// Takes what has come into the content store, if it is what was wanted.
    fn bring(&self, wanted: &LayerDescriptor, data: Vec<u8>) -> Result<(), Failure> {
        keep(&self.machine.blobs, wanted, data)?;
        lock(&self.reachable).insert(wanted.digest);
        Ok(())
    }

    fn write(&self, data: Vec<u8>) -> (Digest, u64) {
        let (digest, size) = (Digest::of(&data), data.len() as u64);
        lock(&self.reachable).insert(digest);
        lock(&self.machine.blobs).insert(digest, data);
        (digest, size)
    }
}

impl BlobsCap for Hands {
    fn open(&self, digest: Digest) -> Option<BlobInfo> {
        self.count();
        let size = self.blob(&digest)?.len() as u64;
        let media_type = "application/octet-stream".to_owned();
        Some(BlobInfo { digest: BlobDigest(digest), size, media_type })
    }

    fn read(&self, digest: Digest, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        self.count();
        let data = self.blob(&digest).ok_or_else(|| absent(&digest))?;
        let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(1 << 20);
        Ok(data[begin..data.len().min(begin.saturating_add(length))].to_vec())
    }

    fn write_small(&self, media_type: String, data: Vec<u8>) -> Result<BlobInfo, Failure> {
        self.count();
        let (digest, size) = self.write(data);
        Ok(BlobInfo { digest: BlobDigest(digest), size, media_type })
    }
}

impl KvCap for Hands {
    fn open(&self, bucket: String) -> Result<String, Failure> {
        self.count();
        lock(&self.machine.buckets).entry(bucket).or_default();
        Ok("1".to_owned())
    }

    fn get_many(
        &self,
        bucket: String,
        keys: Vec<Vec<u8>>,
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        self.count();
        let mut buckets = lock(&self.machine.buckets);
        let pairs = buckets.entry(bucket).or_default();
        Ok(keys.iter().map(|key| pairs.get(key).cloned()).collect())
    }

    fn scan(
        &self,
        bucket: String,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: u32,
    ) -> Result<Vec<KvPair>, Failure> {
        self.count();
        let mut buckets = lock(&self.machine.buckets);
        let pairs = buckets.entry(bucket).or_default().iter();
        let behind = |key: &&Vec<u8>| after.as_ref().is_none_or(|after| *key > after);
        let wanted = pairs.filter(|(key, _)| key.starts_with(&prefix) && behind(key));
        Ok(wanted.take(limit as usize).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn apply(
        &self,
        bucket: String,
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<(), Failure> {
        self.count();
        let mut buckets = lock(&self.machine.buckets);
        let pairs = buckets.entry(bucket).or_default();
        for (key, value) in changes {
            match value {
                Some(value) => drop(pairs.insert(key, value)),
                None => drop(pairs.remove(&key)),
            }
        }
        Ok(())
    }

    fn clear(&self, bucket: String) -> Result<(), Failure> {
        lock(&self.machine.buckets).entry(bucket).or_default().clear();
        Ok(())
    }
}

#[async_trait]
impl RepositoryCap for Hands {
    async fn resolve(&self, reference: String) -> Result<Option<LayerDescriptor>, Failure> {
        if reference.parse::<Digest>().is_err() && reference != self.tag {
            let message = format!("the tag {reference:?} is not granted, {:?} is", self.tag);
            return Err(Failure::new(FailureKind::Denied, message));
        }
        self.count();
        let found = lock(&self.elsewhere.manifests).get(&reference).cloned();
        Ok(found.map(|(media_type, data)| {
            let (digest, size) = self.write(data);
            let attrs = Attrs::default();
            let (diff_id, uncompressed_size) = (None, None);
            LayerDescriptor { media_type, digest, size, diff_id, uncompressed_size, attrs }
        }))
    }

    async fn pull(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>> {
        self.count();
        let pull = |wanted: &LayerDescriptor| {
            let there = lock(&self.elsewhere.blobs).get(&wanted.digest).cloned();
            self.bring(wanted, there.ok_or_else(|| absent(&wanted.digest))?)
        };
        blobs.iter().map(pull).collect()
    }

    async fn push(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>> {
        self.count();
        let push = |wanted: &LayerDescriptor| {
            if lock(&self.elsewhere.blobs).contains_key(&wanted.digest) {
                return Ok(());
            }
            let here = self.blob(&wanted.digest);
            keep(&self.elsewhere.blobs, wanted, here.ok_or_else(|| absent(&wanted.digest))?)
        };
        blobs.iter().map(push).collect()
    }

    async fn publish(&self, manifest: NewManifest) -> Result<Digest, Failure> {
        self.count();
        let digest = Digest::of(&manifest.data);
        let mut manifests = lock(&self.elsewhere.manifests);
        let names = manifest.tag.into_iter().chain([digest.to_string()]);
        for name in names {
            manifests.insert(name, (manifest.media_type.clone(), manifest.data.clone()));
        }
        Ok(digest)
    }

    async fn retain(&self, _manifests: Vec<Digest>) -> Result<u64, Failure> {
        Err(Failure::unsupported("what nothing leads to is removed by the place itself"))
    }
}

#[async_trait]
impl HttpCap for Hands {
    async fn send(&self, requests: Vec<HttpRequest>) -> Vec<Result<HttpResponse, Failure>> {
        self.count();
        requests.into_iter().map(|request| self.answer(request)).collect()
    }

    async fn body_small(&self, response: u64, limit: u32) -> Result<Vec<u8>, Failure> {
        let body = self.body(response)?;
        if body.len() as u64 > u64::from(limit) {
            let message = format!("the body of an answer is larger than {limit} bytes");
            return Err(Failure::new(FailureKind::Limit, message));
        }
        Ok(body)
    }

    async fn body_blob(&self, response: u64, expect: LayerDescriptor) -> Result<(), Failure> {
        self.bring(&expect, self.body(response)?)
    }

    fn forget(&self, response: u64) {
        lock(&self.elsewhere.bodies).remove(&response);
    }
}

impl Hands {
    fn body(&self, response: u64) -> Result<Vec<u8>, Failure> {
        let read = || Failure::invalid("the body of an answer can be had once");
        lock(&self.elsewhere.bodies).remove(&response).ok_or_else(read)
    }

    /// A server that keeps what is put.
    fn answer(&self, request: HttpRequest) -> Result<HttpResponse, Failure> {
        let granted = origin(&request.url).is_some_and(|o| self.origins.iter().any(|g| g == o));
        if !granted {
            let message = format!("{} is not granted", request.url);
            return Err(Failure::new(FailureKind::Denied, message).hint(format!(
                "granted are the origins of its options: {}",
                self.origins.join(", ")
            )));
        }
        let mut files = lock(&self.elsewhere.files);
        let (status, body) = match request.method.as_str() {
            "GET" | "HEAD" => match files.get(&request.url) {
                Some(data) => (200, data.clone()),
                None => (404, Vec::new()),
            },
            "PUT" => {
                let data = match request.body {
                    HttpBody::None => Vec::new(),
                    HttpBody::Small(data) => data,
                    HttpBody::Blob { digest, offset, length } => {
                        let data = self.blob(&digest.0).ok_or_else(|| absent(&digest.0))?;
                        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
                        let rest = data.get(begin..).unwrap_or_default();
                        let length = length.and_then(|length| usize::try_from(length).ok());
                        rest[..length.unwrap_or(rest.len()).min(rest.len())].to_vec()
                    }
                };
                files.insert(request.url.clone(), data);
                (201, Vec::new())
            }
            "DELETE" => (if files.remove(&request.url).is_some() { 204 } else { 404 }, Vec::new()),
            _ => (405, Vec::new()),
        };
        let mut headers = Attrs::default();
        headers.push("content-length", body.len().to_string());
        let mut bodies = lock(&self.elsewhere.bodies);
        let id = bodies.last_key_value().map_or(0, |(last, _)| last + 1);
        let body = if request.method == "HEAD" { Vec::new() } else { body };
        bodies.insert(id, body);
        Ok(HttpResponse { id, status, headers, url: request.url })
    }
}

/// Tries every promise of a backend with these options, each in a new place, and says what came of it,
/// whether all were kept, and how often the host was called.
async fn tried(
    plugin: &Arc<dyn CachePlugin>,
    options: &Attrs,
    shared: bool,
) -> (String, bool, usize) {
    let (mut out, mut all) = (String::new(), true);
    let calls = Arc::new(AtomicUsize::new(0));
    for promise in &PROMISES {
        let place = Memory {
            plugin: Arc::clone(plugin),
            options: options.clone(),
            shared,
            machines: Mutex::default(),
            elsewhere: Arc::default(),
            calls: Arc::clone(&calls),
            log: Arc::default(),
        };
        let said = match promise.keep(&place).await {
            Ok(None) => "kept".to_owned(),
            Ok(Some(note)) => note,
            Err(problem) => {
                all = false;
                format!("BROKEN: {problem}")
            }
        };
        let _ = writeln!(out, "{}: {said}", promise.name);
        for (severity, text) in &*lock(&place.log.0) {
            let _ = writeln!(out, "  {}: {text}", severity_name(*severity));
        }
    }
    let calls = calls.load(Ordering::Relaxed);
    (out, all, calls)
}

/// Runs a case of a cache backend and compares it with what is expected of it. A broken promise fails
/// in any case.
pub async fn run(folder: &Path, plugin: &Arc<dyn CachePlugin>, update: bool) -> Outcome {
    let file = folder.join(CASE_FILE);
    let wrong = |error: &dyn std::error::Error| {
        Failure::invalid(format!("{} is no case of a cache backend", file.display())).cause(error)
    };
    let text = std::fs::read_to_string(&file).map_err(|error| wrong(&error));
    let case = text.and_then(|text| toml::from_str(&text).map_err(|error| wrong(&error)));
    let CaseFile { options, shared } = match case {
        Ok(case) => case,
        Err(failure) => return Outcome::unreadable(folder, &failure),
    };
    let options = Attrs(options.into_iter().collect());
    let (got, all, calls) = tried(plugin, &options, shared).await;
    if !all {
        return Outcome { calls, problem: Some(got), ..Outcome::of(folder) };
    }
    Outcome { calls, ..compare(folder, &got, update) }
}

/// Runs all cases of a folder in a test. With `UPDATE=1` in the environment what is expected is
/// written anew.
///
/// # Panics
///
/// When a case is not as expected, or a promise is broken.
pub fn check(folder: impl AsRef<Path>, plugin: impl CachePlugin + 'static) {
    let plugin: Arc<dyn CachePlugin> = Arc::new(plugin);
    check_all(folder.as_ref(), async |folder, update| run(folder, &plugin, update).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_is_right() {
        let manual = crate::tests::manual("## A cache backend\n");
        let file: CaseFile = toml::from_str(manual).expect("the keys are known");
        assert!(file.shared && file.options.len() == 1);
    }
}
