//! What of an image passes through a backend's memory: records and manifests, never layers. The host
//! moves those between the content store and the place, whatever their size.

use std::sync::atomic::{AtomicU64, Ordering};

use wbuild_api::extension::{
    BlobInfo, BlobsCap, CachePlugin, HttpBody, HttpCap, HttpRequest, HttpResponse, KvCap, KvPair,
    NewManifest, RepositoryCap,
};

use super::*;

/// What a backend may be passed of an image of 1 GiB, in bytes.
const MOST: u64 = 5 << 20;

/// Counts the bytes that pass between a backend and its capabilities, both ways.
#[derive(Clone, Default)]
struct Passed(Arc<AtomicU64>);

impl Passed {
    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts what an answer holds.
    fn answered<T, E>(
        &self,
        answer: Result<T, E>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Result<T, E> {
        self.add(answer.as_ref().map_or(0, bytes));
        answer
    }

    /// Counts what is written down like this.
    fn written(&self, value: &impl serde::Serialize) {
        self.add(serde_json::to_string(value).expect("JSON").len());
    }

    fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A capability whose bytes are counted.
struct Counted<C: ?Sized>(Passed, Arc<C>);

fn pair(pair: &KvPair) -> usize {
    pair.0.len() + pair.1.len()
}

impl KvCap for Counted<dyn KvCap> {
    fn open(&self, bucket: String) -> Result<String, Failure> {
        self.1.open(bucket)
    }

    fn get_many(
        &self,
        bucket: String,
        keys: Vec<Vec<u8>>,
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        self.0.add(keys.iter().map(Vec::len).sum());
        let values = self.1.get_many(bucket, keys);
        self.0.answered(values, |values| values.iter().flatten().map(Vec::len).sum())
    }

    fn scan(
        &self,
        bucket: String,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: u32,
    ) -> Result<Vec<KvPair>, Failure> {
        let pairs = self.1.scan(bucket, prefix, after, limit);
        self.0.answered(pairs, |pairs| pairs.iter().map(pair).sum())
    }

    fn apply(
        &self,
        bucket: String,
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<(), Failure> {
        let bytes = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| {
            key.len() + value.as_ref().map_or(0, Vec::len)
        };
        self.0.add(changes.iter().map(bytes).sum());
        self.1.apply(bucket, changes)
    }

    fn clear(&self, bucket: String) -> Result<(), Failure> {
        self.1.clear(bucket)
    }
}

impl BlobsCap for Counted<dyn BlobsCap> {
    fn open(&self, digest: Digest) -> Option<BlobInfo> {
        self.1.open(digest)
    }

    fn read(&self, digest: Digest, offset: u64, length: u32) -> Result<Vec<u8>, Failure> {
        self.0.answered(self.1.read(digest, offset, length), Vec::len)
    }

    fn write_small(&self, media_type: String, data: Vec<u8>) -> Result<BlobInfo, Failure> {
        self.0.add(data.len());
        self.1.write_small(media_type, data)
    }
}

#[async_trait]
impl RepositoryCap for Counted<dyn RepositoryCap> {
    async fn resolve(&self, reference: String) -> Result<Option<LayerDescriptor>, Failure> {
        let found = self.1.resolve(reference).await;
        self.0.written(&found.as_ref().ok());
        found
    }

    async fn pull(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>> {
        self.0.written(&blobs);
        self.1.pull(blobs).await
    }

    async fn push(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>> {
        self.0.written(&blobs);
        self.1.push(blobs).await
    }

    async fn publish(&self, manifest: NewManifest) -> Result<Digest, Failure> {
        self.0.add(manifest.data.len());
        self.1.publish(manifest).await
    }

    async fn retain(&self, manifests: Vec<Digest>) -> Result<u64, Failure> {
        self.0.written(&manifests);
        self.1.retain(manifests).await
    }
}

#[async_trait]
impl HttpCap for Counted<dyn HttpCap> {
    async fn send(&self, requests: Vec<HttpRequest>) -> Vec<Result<HttpResponse, Failure>> {
        for request in &requests {
            let body = if let HttpBody::Small(body) = &request.body { body.len() } else { 0 };
            self.0.add(request.url.len() + body);
            self.0.written(&request.headers);
        }
        let answers = self.1.send(requests).await;
        for answer in answers.iter().flatten() {
            self.0.add(answer.url.len());
            self.0.written(&answer.headers);
        }
        answers
    }

    async fn body_small(&self, response: u64, limit: u32) -> Result<Vec<u8>, Failure> {
        self.0.answered(self.1.body_small(response, limit).await, Vec::len)
    }

    async fn body_blob(&self, response: u64, expect: LayerDescriptor) -> Result<(), Failure> {
        self.0.written(&expect);
        self.1.body_blob(response, expect).await
    }

    fn forget(&self, response: u64) {
        self.1.forget(response);
    }
}

/// A backend that is given what is counted.
struct Watched(Passed, Arc<dyn CachePlugin>);

#[async_trait]
impl CachePlugin for Watched {
    fn identity(&self) -> PluginIdentity {
        self.1.identity()
    }

    async fn connect(&self, host: CacheHost) -> Result<Arc<dyn CacheBackend>, Failure> {
        let Watched(passed, plugin) = self;
        let repository = host.repository.map(|repository| {
            Arc::new(Counted(passed.clone(), repository)) as Arc<dyn RepositoryCap>
        });
        let http =
            host.http.map(|http| Arc::new(Counted(passed.clone(), http)) as Arc<dyn HttpCap>);
        let kv = Arc::new(Counted(passed.clone(), host.kv));
        let blobs = Arc::new(Counted(passed.clone(), host.blobs));
        plugin.connect(CacheHost { kv, blobs, repository, http, log: host.log }).await
    }
}

/// An image of `size` bytes in eight layers, each the result of a step.
fn image(store: &Store, size: usize) -> Vec<RecordEntry> {
    let step = |number: u64| {
        let mut content = vec![0; size / 8];
        // Of each layer its own, and nothing that gets smaller on its way.
        let mut state = number + 1;
        for bytes in content.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.copy_from_slice(&state.to_le_bytes());
        }
        let name = number.to_string();
        record(&name, &[&name], number, &[layer(store, &content)])
    };
    (0..8).map(step).collect()
}

/// Of 64 MiB, or with `WBUILD_LONG` of 1 GiB. What passes depends on the number of layers alone, so the
/// bound is the same.
#[tokio::test(flavor = "multi_thread")]
async fn layers_do_not_pass_through_a_backend() {
    let size = if std::env::var_os("WBUILD_LONG").is_some() { 1 << 30 } else { 64 << 20 };
    for world in World::all() {
        let (name, store) = (world.name(), world.store("writer"));
        let records = image(&store, size);
        let (sent, came) = (Passed::default(), Passed::default());
        let watched = |passed: &Passed| {
            let passed = passed.clone();
            move |plugin| Arc::new(Watched(passed, plugin)) as Arc<dyn CachePlugin>
        };
        let backend = world.open_as(&store, "write", &[], watched(&sent)).await;
        sent.written(&records);
        backend.push_all(&records).await;
        backend.0.save(records.clone()).await.expect("saves");
        backend.0.commit().await.expect("commits");
        // What is local has its layers in the store that has the records.
        let reader =
            if matches!(world.place, Place::Local) { store } else { world.store("reader") };
        let backend = world.open_as(&reader, "read", &[], watched(&came)).await;
        for wanted in &records {
            let found = backend.find(wanted.keys[0]).await;
            came.written(&found);
            for answer in backend.0.fetch(found[0].layers.clone()).await.expect("fetches") {
                answer.expect("is fetched");
            }
            let layer = &found[0].layers[0];
            assert!(reader.has_blob(&BlobDigest(layer.digest)).expect("looks"), "{name}");
        }
        let (sent, came) = (sent.total(), came.total());
        println!(
            "{name}: {size} bytes of layers; {sent} passed for sending them, {came} for fetching"
        );
        assert!(sent > 0 && came > 0, "{name}: something is counted");
        assert!(sent + came <= MOST, "{name}: {sent} and {came} bytes passed through the backend");
    }
}
