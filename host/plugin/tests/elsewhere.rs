//! What a cache backend may do elsewhere: nothing that it was not granted, and the rest within bounds.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::*;
use wbuild_api::extension::{
    CacheHost, HttpCap, HttpRequest, HttpResponse, LayerDescriptor, NewManifest, RepositoryCap,
};
use wbuild_graph::{Attrs, Digest, Failure, FailureKind};
use wbuild_plugin::{PluginHost, PluginHostOptions};

/// A repository and a web that note what reaches them.
#[derive(Default)]
struct Elsewhere {
    calls: Mutex<Vec<String>>,
    /// How long each call takes.
    takes: Duration,
    /// How many answers are missing.
    short: usize,
}

impl Elsewhere {
    async fn note(&self, call: String) {
        self.calls.lock().expect("lock").push(call);
        tokio::time::sleep(self.takes).await;
    }

    async fn each(&self, call: &str, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>> {
        self.note(format!("{call} {}", blobs.len())).await;
        let answers = blobs.iter().map(|blob| match blob.digest == digest(b"gone") {
            true => Err(Failure::new(FailureKind::Gone, "it is gone")),
            false => Ok(()),
        });
        answers.skip(self.short).collect()
    }
}

fn digest(of: &[u8]) -> Digest {
    Digest::of(of)
}

#[async_trait]
impl RepositoryCap for Elsewhere {
    async fn resolve(&self, reference: String) -> Result<Option<LayerDescriptor>, Failure> {
        self.note(format!("resolve {reference}")).await;
        Ok(None)
    }

    async fn pull(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>> {
        self.each("pull", blobs).await
    }

    async fn push(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>> {
        self.each("push", blobs).await
    }

    async fn publish(&self, manifest: NewManifest) -> Result<Digest, Failure> {
        self.note(format!("publish {}", manifest.data.len())).await;
        Ok(digest(&manifest.data))
    }

    async fn retain(&self, manifests: Vec<Digest>) -> Result<u64, Failure> {
        self.note(format!("retain {}", manifests.len())).await;
        Ok(0)
    }
}

#[async_trait]
impl HttpCap for Elsewhere {
    async fn send(&self, requests: Vec<HttpRequest>) -> Vec<Result<HttpResponse, Failure>> {
        for request in &requests {
            self.note(format!("send {} {:?}", request.url, request.headers.0)).await;
        }
        let answer = |request: HttpRequest| HttpResponse {
            id: 1,
            status: 200,
            headers: Attrs::default(),
            url: request.url,
        };
        requests.into_iter().map(|request| Ok(answer(request))).collect()
    }

    async fn body_small(&self, response: u64, limit: u32) -> Result<Vec<u8>, Failure> {
        self.note(format!("body {response} {limit}")).await;
        Ok(b"body".to_vec())
    }

    async fn body_blob(&self, response: u64, _expect: LayerDescriptor) -> Result<(), Failure> {
        self.note(format!("blob {response}")).await;
        Ok(())
    }

    fn forget(&self, response: u64) {
        self.calls.lock().expect("lock").push(format!("forget {response}"));
    }
}

/// Opens the hostile backend and answers what it told, or why it ended.
fn opened(
    host: &PluginHost,
    elsewhere: Option<&Arc<Elsewhere>>,
    config: &[(&str, &str)],
) -> Result<Vec<String>, Failure> {
    let storage = Arc::new(Storage::default());
    let capabilities = CacheHost {
        repository: elsewhere.map(|it| Arc::clone(it) as _),
        http: elsewhere.map(|it| Arc::clone(it) as _),
        ..storage.host()
    };
    let config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let cache = load(host, "hostile-http").cache().expect("a cache backend");
    run(async {
        let backend = cache.connect(capabilities).await.expect("an instance");
        backend.open("read".to_owned(), Attrs(config)).await
    })?;
    let log = storage.log.lock().expect("lock");
    Ok(log.iter().map(|(_, line)| line.clone()).collect())
}

#[test]
fn what_was_not_granted_is_denied() {
    let gone = digest(b"gone").to_string();
    let config = [
        ("x-url", "http://169.254.169.254/latest/meta-data/"),
        ("x-get", "https://example.org/"),
        ("x-resolve", "latest"),
        ("x-pull", &*gone),
        ("x-push", &*gone),
        ("x-publish", "2"),
        ("x-retain", &*gone),
    ];
    let told = opened(&host(), None, &config).expect("it goes on");
    let denied = |call: &str, what: &str| {
        format!("{call}: denied: this cache backend was granted no {what}")
    };
    assert_eq!(
        told,
        [
            denied("url", "HTTP"),
            denied("get", "HTTP"),
            denied("resolve", "repository"),
            denied("pull", "repository"),
            denied("push", "repository"),
            denied("publish", "repository"),
            denied("retain", "repository"),
        ]
    );
}

#[test]
fn only_what_can_be_meant_reaches_a_repository() {
    let elsewhere = Arc::new(Elsewhere::default());
    let (here, gone) = (digest(b"here").to_string(), digest(b"gone").to_string());
    let config = [
        ("x-resolve", "../../v2/other/manifests/latest"),
        ("x-resolve", "a?b"),
        ("x-resolve", ""),
        ("x-resolve", "latest"),
        ("x-pull", &*here),
        ("x-pull", "sha256:../../etc/passwd"),
        ("x-pull", &*gone),
        ("x-push", "latest"),
        ("x-publish", "4194305"),
        ("x-publish", "2"),
        ("x-retain", "latest"),
    ];
    let told = opened(&host(), Some(&elsewhere), &config).expect("it goes on");
    let no_name = |name: &str| format!("resolve: invalid: {name:?} is neither a tag nor a digest");
    assert_eq!(
        told[..3],
        [no_name("../../v2/other/manifests/latest"), no_name("a?b"), no_name("")]
    );
    assert_eq!(told[3], "resolve: false");
    assert_eq!(told[4], format!("pull: {here:?}"));
    assert!(told[5].starts_with("pull: invalid: "), "{}", told[5]);
    assert_eq!(told[6], "pull: gone: it is gone");
    assert!(told[7].starts_with("push: invalid: "), "{}", told[7]);
    assert_eq!(
        told[8],
        "publish: limit: a manifest of 4.0 MiB is to be published, at most 4 MiB can be"
    );
    assert_eq!(told[9], format!("publish: {:?}", digest(b"  ").to_string()));
    assert!(told[10].starts_with("retain: invalid: "), "{}", told[10]);
    assert_eq!(
        *elsewhere.calls.lock().expect("lock"),
        ["resolve latest", "pull 2", "push 0", "publish 2"]
    );
}

#[test]
fn too_few_answers_of_a_repository_are_none() {
    let elsewhere = Arc::new(Elsewhere { short: 1, ..Elsewhere::default() });
    let (one, two) = (digest(b"1").to_string(), digest(b"2").to_string());
    let config = [("x-pull", &*one), ("x-pull", &*two)];
    let told = opened(&host(), Some(&elsewhere), &config).expect("it goes on");
    assert_eq!(told, ["pull: internal: not 2 answers for 2 blobs"; 2]);
}

#[test]
fn answers_are_forgotten_with_their_handles() {
    let elsewhere = Arc::new(Elsewhere::default());
    let told = opened(&host(), Some(&elsewhere), &[("x-get", "https://a.test/")]).expect("open");
    assert_eq!(told, ["get: 4", "get: 4"], "whether a body is had once is the capability's");
    let calls = elsewhere.calls.lock().expect("lock");
    assert_eq!(calls[1..], ["body 1 4096", "body 1 4096", "forget 1"]);
}

#[test]
fn transfers_are_no_time_of_the_backend() {
    let mut options = PluginHostOptions::new(code_cache());
    options.cache_limits.wall = Some(Duration::from_millis(150));
    let host = PluginHost::new(options);
    let elsewhere =
        Arc::new(Elsewhere { takes: Duration::from_millis(400), ..Elsewhere::default() });
    let config = [("x-resolve", "a"), ("x-resolve", "b"), ("x-get", "https://a.test/")];
    let told = opened(&host, Some(&elsewhere), &config).expect("it waits longer than it may take");
    assert_eq!(told[2..], ["resolve: false", "resolve: false"]);
}

#[test]
fn a_flood_of_requests_ends_the_backend() {
    let mut options = PluginHostOptions::new(code_cache());
    options.cache_limits.handles = 500;
    let host = PluginHost::new(options);
    let elsewhere = Arc::new(Elsewhere::default());
    let failure = opened(&host, Some(&elsewhere), &[("x-requests", "501")]).expect_err("too many");
    assert_eq!(
        failure.message,
        "the cache backend hostile-http holds more than 500 handles at once"
    );
    assert!(elsewhere.calls.lock().expect("lock").is_empty());
}
