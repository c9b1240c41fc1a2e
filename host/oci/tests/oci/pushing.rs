//! The push client against a registry that goes wrong: every status at every request, cuts at any
//! byte, lies about what it has, uploads that lead elsewhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use wbuild_graph::{DiffId, Digest, Platform};
use wbuild_oci::config::{Finish, ImageConfig};
use wbuild_oci::layout::{Export, ExportImage};
use wbuild_oci::media::{Descriptor, MediaFamily, OCI_LAYER_GZIP};
use wbuild_oci::registry::{
    Anonymous, Client, ClientOptions, Credential, Credentials, PushSource, Pushed, Retries,
};
use wbuild_oci::{Error, ErrorKind, Reference, Result, Timestamp};

use crate::registry_server::{Fault, Head, Registry};
use crate::server::{Answer, Server};

/// Bytes of a chunk in these tests, and what counts as progress.
const CHUNK: usize = 64 << 10;

fn options() -> ClientOptions {
    let retries =
        Retries { attempts: 4, first: Duration::from_millis(1), most: Duration::from_millis(5) };
    ClientOptions {
        retries,
        stall_timeout: Duration::from_millis(300),
        upload_chunk: CHUNK as u64,
        ..ClientOptions::default()
    }
}

fn client() -> Client {
    Client::new(options(), Arc::new(Anonymous))
}

/// Layers in memory.
#[derive(Default)]
struct Layers {
    data: BTreeMap<Digest, Vec<u8>>,
    elsewhere: Vec<String>,
    opened: AtomicUsize,
    progress: Mutex<BTreeMap<Digest, u64>>,
}

#[async_trait]
impl PushSource for Layers {
    fn elsewhere(&self, _: &Descriptor, _: &str) -> Vec<String> {
        self.elsewhere.clone()
    }

    async fn open(&self, layer: &Descriptor) -> Result<File> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let missing = || Error::new(ErrorKind::NotFound, "no such layer");
        let data = self.data.get(&layer.digest).ok_or_else(missing)?;
        let mut file = tempfile::tempfile().expect("temp");
        file.write_all(data).expect("temp");
        Ok(file)
    }

    fn sent(&self, blob: &Descriptor, bytes: u64) {
        assert!(bytes <= blob.size);
        self.progress.lock().expect("no panic").insert(blob.digest, bytes);
    }
}

/// Bytes that are the same nowhere.
fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..size.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(size).collect()
}

/// An image for each platform over layers of these sizes.
fn export(platforms: &[&str], sizes: &[usize]) -> (Export, Layers) {
    let mut layers = Layers::default();
    let mut descriptors = Vec::new();
    for (n, size) in sizes.iter().enumerate() {
        let data = bytes(n as u64 + 1, *size);
        let descriptor = Descriptor::of(OCI_LAYER_GZIP, &data);
        layers.data.insert(descriptor.digest, data);
        descriptors.push(descriptor);
    }
    let images = platforms.iter().map(|platform| {
        let platform: Platform = platform.parse().expect("platform");
        let diff_ids: Vec<_> = descriptors.iter().map(|d| DiffId(d.digest)).collect();
        let created = Some(Timestamp::from_seconds(0));
        let with = Finish { diff_ids: &diff_ids, platform: &platform, created, cache: None };
        let config = ImageConfig::finish(b"{}", &with).expect("config");
        ExportImage::new(MediaFamily::Oci, config, descriptors.clone())
    });
    let export = Export::new(MediaFamily::Oci, images.collect(), Vec::new(), None);
    (export.expect("export"), layers)
}

async fn push(
    client: &Client,
    export: &Export,
    names: &[Reference],
    layers: &Arc<Layers>,
) -> Result<Pushed> {
    let source: Arc<dyn PushSource> = Arc::clone(layers) as _;
    client.push(export, names, false, &source).await
}

/// Fails unless the repository holds all of the export, under this tag.
fn holds(registry: &Registry, repository: &str, tag: &str, export: &Export, layers: &Layers) {
    let state = registry.state();
    for layer in export.layers() {
        let found = state.blobs.get(&(repository.to_owned(), layer.digest));
        assert_eq!(found, layers.data.get(&layer.digest), "{}", layer.digest);
    }
    for image in export.images() {
        let config = state.blobs.get(&(repository.to_owned(), image.manifest.config.digest));
        assert_eq!(config.map(|c| &c[..]), Some(image.config.bytes()));
    }
    let names = export.manifests().iter().map(|m| (m, m.digest.to_string()));
    for (descriptor, name) in names.chain([(export.root(), tag.to_owned())]) {
        let found = &state.manifests[&(repository.to_owned(), name)];
        assert_eq!(found.0, descriptor.media_type);
        assert_eq!(Some(&found.1), export.documents().get(&descriptor.digest));
    }
}

#[tokio::test]
async fn what_is_missing_is_sent_once() {
    let registry = Registry::good();
    // Nothing, one request, one chunk exactly, several and a rest.
    let (export, layers) =
        export(&["linux/amd64", "linux/arm64"], &[0, 5, CHUNK, CHUNK + 1, 3 * CHUNK + 7]);
    let layers = Arc::new(layers);
    let client = client();
    let names = [registry.reference("a/b:1"), registry.reference("a/b:2")];
    let pushed = push(&client, &export, &names, &layers).await.expect("pushed");
    assert_eq!(pushed, Pushed { sent: 7, mounted: 0, present: 0 });
    for tag in ["1", "2"] {
        holds(&registry, "a/b", tag, &export, &layers);
    }
    let blobs: usize = export.layers().map(|layer| layer.size as usize).sum();
    let documents: usize = export.documents().values().map(Vec::len).sum();
    // The index went to two tags, and nothing else twice.
    assert_eq!(registry.state().received, blobs + documents + export.root().size as usize);
    assert_eq!(registry.count("PATCH"), 2 + 4);
    let done = layers.progress.lock().expect("no panic").clone();
    assert!(export.layers().filter(|l| l.size > 0).all(|l| done[&l.digest] == l.size), "{done:?}");
    // A manifest follows all it names, the tag comes last.
    let order: Vec<_> = registry.state().log.iter().map(Head::kind).collect();
    let last_blob = order.iter().rposition(|kind| *kind == "PUT blob");
    let first_manifest = order.iter().position(|kind| *kind == "PUT manifest");
    assert!(last_blob < first_manifest, "{order:?}");

    registry.state().log.clear();
    layers.opened.store(0, Ordering::Relaxed);
    let again = push(&client, &export, &names, &layers).await.expect("pushed");
    assert_eq!(again, Pushed { sent: 0, mounted: 0, present: 7 });
    assert!(registry.state().log.iter().all(|head| head.method == "HEAD"));
    assert_eq!(layers.opened.load(Ordering::Relaxed), 0, "nothing is opened that is not sent");
}

#[tokio::test]
async fn by_digest_there_is_no_tag() {
    let registry = Registry::good();
    let (export, layers) = export(&["linux/amd64"], &[100]);
    let source: Arc<dyn PushSource> = Arc::new(layers);
    let names = [registry.reference("a/b")];
    client().push(&export, &names, true, &source).await.expect("pushed");
    let state = registry.state();
    let digest = export.root().digest.to_string();
    assert_eq!(state.manifests.keys().collect::<Vec<_>>(), [&("a/b".to_owned(), digest)]);
}

#[tokio::test]
async fn other_repositories_and_registries() {
    let (one, other) = (Registry::good(), Registry::good());
    let (export, mut layers) = export(&["linux/amd64"], &[100, 200]);
    // The base is there already; a repository that has nothing is no obstacle.
    let base = export.layers().next().expect("two").digest;
    let content = layers.data[&base].clone();
    one.state().blobs.insert(("library/base".to_owned(), base), content);
    layers.elsewhere = vec!["library/gone".to_owned(), "library/base".to_owned()];
    let layers = Arc::new(layers);
    let names = [one.reference("a/b:1"), one.reference("c/d:2"), other.reference("e/f:3")];
    let pushed = push(&client(), &export, &names, &layers).await.expect("pushed");
    // Of layer, layer and config: mounted once, then all three; the other registry gets all.
    assert_eq!(pushed, Pushed { sent: 2 + 3, mounted: 1 + 3, present: 0 });
    holds(&one, "a/b", "1", &export, &layers);
    holds(&one, "c/d", "2", &export, &layers);
    holds(&other, "e/f", "3", &export, &layers);
}

/// What a push is made of that is met by every kind of request.
fn everything() -> (Export, Layers) {
    let (export, mut layers) = export(&["linux/amd64", "linux/arm64"], &[10, 2 * CHUNK]);
    layers.elsewhere = vec!["library/base".to_owned()];
    (export, layers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_status_at_every_request() {
    let kinds =
        ["HEAD blob", "POST mount", "POST", "PATCH", "PUT blob", "HEAD manifest", "PUT manifest"];
    // All of these kinds occur.
    let (export, layers) = everything();
    let registry = Registry::good();
    push(&client(), &export, &[registry.reference("a/b:1")], &Arc::new(layers)).await.expect("ok");
    for kind in kinds {
        assert!(registry.count(kind) > 0, "{kind}");
    }
    let statuses = [
        300, 304, 400, 401, 402, 403, 404, 405, 408, 409, 410, 411, 413, 415, 416, 418, 422, 425,
        429, 451, 499, 500, 501, 502, 503, 504, 507, 511, 599,
    ];
    for kind in kinds {
        for status in statuses {
            let registry = Registry::start("127.0.0.1", move |head, _| {
                if head.kind() == kind { Fault::Status(status) } else { Fault::None }
            });
            let (export, layers) = everything();
            let layers = Arc::new(layers);
            let began = Instant::now();
            let names = [registry.reference("a/b:1")];
            let result = push(&client(), &export, &names, &layers).await;
            let case = format!("{status} at {kind}");
            assert!(began.elapsed() < Duration::from_secs(10), "{case} takes too long");
            match (kind, status) {
                // That is how absence is said; without a mount or without chunks it is sent as well.
                ("HEAD blob" | "HEAD manifest", 404)
                | ("POST mount", _)
                | ("PATCH", 400 | 405 | 411 | 415 | 501) => {
                    result.unwrap_or_else(|error| panic!("{case}: {error}"));
                    holds(&registry, "a/b", "1", &export, &layers);
                }
                _ => {
                    let Err(error) = result else { panic!("{case} is no success") };
                    let failure = wbuild_graph::Failure::from(error);
                    let text = failure.to_string();
                    assert!(text.contains(&registry.address.to_string()), "{case}: {text}");
                    assert!(text.contains(&status.to_string()), "{case}: {text}");
                    assert!(!failure.hints.is_empty(), "{case} has no remedy: {text}");
                    let state = registry.state();
                    let tagged = state.manifests.contains_key(&("a/b".to_owned(), "1".to_owned()));
                    assert!(!tagged, "{case} leaves a tag");
                }
            }
        }
    }
}

#[tokio::test]
async fn passing_errors_do_not_matter() {
    // Each request fails once, in one of four ways.
    let seen = Mutex::new(std::collections::BTreeSet::new());
    let registry = Registry::start("127.0.0.1", move |head, number| {
        let fresh = seen.lock().expect("no panic").insert((head.method.clone(), head.path.clone()));
        match (fresh, number % 4) {
            (false, _) => Fault::None,
            (true, 0) => Fault::Status(503),
            (true, 1) => Fault::CutAnswer,
            (true, 2) => Fault::Status(429),
            (true, _) => Fault::Stall,
        }
    });
    let (export, layers) = everything();
    let layers = Arc::new(layers);
    push(&client(), &export, &[registry.reference("a/b:1")], &layers).await.expect("pushed");
    holds(&registry, "a/b", "1", &export, &layers);
}

#[tokio::test]
async fn cuts_at_any_byte() {
    let size = 9 * CHUNK + 1234;
    let random = |seed: u64| {
        let data = bytes(seed, 8);
        u64::from_le_bytes(data.try_into().expect("eight")) as usize
    };
    for seed in 0..60u64 {
        // Every fourth registry forgets an upload that was cut, as Debian's does.
        let forgets = seed % 4 == 3;
        let cuts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&cuts);
        let registry = Registry::start("127.0.0.1", move |head, number| {
            let most = if forgets { 1 } else { 5 };
            let chosen = head.kind() == "PATCH" && random(seed * 1000 + number as u64) % 3 == 0;
            if !chosen || counted.fetch_add(1, Ordering::Relaxed) >= most {
                return Fault::None;
            }
            let at = random(seed * 77 + number as u64) % head.length;
            Fault::CutBody(at, !forgets)
        });
        let (export, layers) = export(&["linux/amd64"], &[size]);
        let layers = Arc::new(layers);
        let names = [registry.reference("a/b:1")];
        // One try more than there are cuts: they may follow one another.
        let mut options = options();
        options.retries.attempts = 6;
        let client = Client::new(options, Arc::new(Anonymous));
        let result = push(&client, &export, &names, &layers).await;
        result.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        holds(&registry, "a/b", "1", &export, &layers);
        let cuts = cuts.load(Ordering::Relaxed).min(if forgets { 1 } else { 5 });
        let documents: usize = export.documents().values().map(Vec::len).sum();
        let again = registry.state().received - size - documents;
        let most = if forgets { cuts * size } else { cuts * CHUNK };
        assert!(again <= most, "seed {seed}: {again} bytes came again after {cuts} cuts");
    }
}

#[tokio::test]
async fn an_upload_that_never_gets_through_ends() {
    let cases: [(&str, Fault); 5] = [
        ("always cut, forgotten", Fault::CutBody(CHUNK / 2, false)),
        ("always cut at once", Fault::CutBody(0, true)),
        ("stalled", Fault::Stall),
        ("stays at nothing", Fault::Header("Range", "0-0".to_owned())),
        ("claims too much", Fault::Header("Range", "0-99999999".to_owned())),
    ];
    for (case, fault) in cases {
        let faulty = fault.clone();
        let registry = Registry::start("127.0.0.1", move |head, _| match head.kind() {
            "PATCH" => faulty.clone(),
            "GET" if matches!(faulty, Fault::Header(..)) => faulty.clone(),
            "PUT blob" if head.length > 1000 => Fault::CutBody(1, false),
            _ => Fault::None,
        });
        let (export, layers) = export(&["linux/amd64"], &[3 * CHUNK]);
        let began = Instant::now();
        let names = [registry.reference("a/b:1")];
        let result = push(&client(), &export, &names, &Arc::new(layers)).await;
        let Err(error) = result else { panic!("{case} is no success") };
        assert!(error.to_string().contains(&registry.address.to_string()), "{case}: {error}");
        assert!(began.elapsed() < Duration::from_secs(15), "{case} takes too long");
        assert!(registry.state().log.len() < 60, "{case}: {}", registry.state().log.len());
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for() {
    let registry = Registry::start("127.0.0.1", |head, _| match head.kind() {
        "PATCH" | "PUT blob" => Fault::CutAnswer,
        _ => Fault::None,
    });
    let (export, layers) = export(&["linux/amd64"], &[10, 5 * CHUNK]);
    let layers = Arc::new(layers);
    push(&client(), &export, &[registry.reference("a/b:1")], &layers).await.expect("pushed");
    holds(&registry, "a/b", "1", &export, &layers);
    let documents: usize = export.documents().values().map(Vec::len).sum();
    assert_eq!(registry.state().received, 10 + 5 * CHUNK + documents, "nothing is sent again");
}

#[tokio::test]
async fn what_the_registry_says_it_has_is_compared() {
    let other = Digest::of(b"other").to_string();
    for kind in ["PUT blob", "PUT manifest", "POST mount"] {
        for said in [other.clone(), "sha256:short".to_owned(), String::new()] {
            let lie = said.clone();
            let registry = Registry::start("127.0.0.1", move |head, _| {
                if head.kind() == kind {
                    Fault::Header("Docker-Content-Digest", lie.clone())
                } else {
                    Fault::None
                }
            });
            let (export, layers) = everything();
            for (digest, data) in &layers.data {
                let blob = ("library/base".to_owned(), *digest);
                if kind == "POST mount" {
                    registry.state().blobs.insert(blob, data.clone());
                }
            }
            let names = [registry.reference("a/b:1")];
            let error = push(&client(), &export, &names, &Arc::new(layers)).await;
            let error = error.expect_err(kind);
            assert_eq!(error.kind(), ErrorKind::Mismatch, "{kind}: {error}");
        }
    }
}

/// A password that must turn up nowhere else.
const SECRET: &str = "canary-51c0";

struct Known;

#[async_trait]
impl Credentials for Known {
    async fn lookup(&self, _: &str) -> Result<Option<Credential>> {
        Ok(Some(Credential::Basic { username: "user".to_owned(), password: SECRET.to_owned() }))
    }
}

#[tokio::test]
async fn uploads_elsewhere_get_no_credentials() {
    let elsewhere = Registry::start("127.0.0.2", |_, _| Fault::None);
    // The other host completes blobs; the registry does not know, which is its own affair.
    let home = elsewhere.address;
    let registry = Registry::start("127.0.0.1", move |head, number| {
        if head.authorization.is_none() {
            return Fault::Status(401);
        }
        match head.kind() {
            "POST" => Fault::Header(
                "Location",
                format!("http://{home}/v2/a/b/blobs/uploads/{number}?_state=a%2Bb"),
            ),
            _ => Fault::None,
        }
    });
    for number in 0..100 {
        elsewhere.state().uploads.insert(number.to_string(), Vec::new());
    }
    let (export, layers) = export(&["linux/amd64"], &[10, 3 * CHUNK]);
    let client = Client::new(options(), Arc::new(Known));
    // A challenge of the registry's own.
    let front = challenged(&registry);
    let names = [front.reference("a/b:1")];
    push(&client, &export, &names, &Arc::new(layers)).await.expect("pushed");
    let there = elsewhere.state();
    assert!(there.log.iter().any(|head| head.kind() == "PATCH"));
    assert_eq!(there.blobs.len(), 3, "two layers and a config");
    assert!(there.log.iter().all(|head| head.authorization.is_none()), "{:?}", there.log);
    let known = registry.state().log.iter().any(|head| head.authorization.is_some());
    assert!(known, "the registry itself gets them");
}

/// Passes all on to `registry`, and asks for a password where that answers 401.
fn challenged(registry: &Registry) -> Server {
    use std::io::Read as _;
    let address = registry.address;
    Server::start("127.0.0.1", move |asked| {
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        let mut head = format!("{} {} HTTP/1.1\r\n", asked.method, asked.target);
        for (name, value) in &asked.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n{}", asked.body).as_bytes()).expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let mut answer = Answer::new(status.parse().expect("a number"), "");
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            match name {
                "Connection" => {}
                "Content-Length" => answer.length = value.parse().ok(),
                _ => answer = answer.header(name, value),
            }
        }
        if status == "401" {
            answer = answer.header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        answer
    })
}

#[tokio::test]
async fn uploads_do_not_lead_just_anywhere() {
    for (location, kind) in [
        ("http://169.254.169.254/latest", ErrorKind::Denied),
        ("http://10.0.0.1/upload", ErrorKind::Denied),
        ("http://example.com/upload", ErrorKind::Denied),
        ("https://user:pw@example.com/upload", ErrorKind::Denied),
        ("file:///etc/passwd", ErrorKind::Denied),
        ("ftp://example.com/upload", ErrorKind::Denied),
        ("http://[", ErrorKind::Invalid),
    ] {
        for kind_of_request in ["POST", "PATCH"] {
            let registry = Registry::start("127.0.0.1", move |head, _| {
                if head.kind() == kind_of_request {
                    Fault::Header("Location", location.to_owned())
                } else {
                    Fault::None
                }
            });
            let (export, layers) = export(&["linux/amd64"], &[2 * CHUNK]);
            let names = [registry.reference("a/b:1")];
            let error = push(&client(), &export, &names, &Arc::new(layers)).await;
            let error = error.expect_err(location);
            assert_eq!(error.kind(), kind, "{location} at {kind_of_request}: {error}");
        }
    }
}

#[tokio::test]
async fn tokens_ask_to_push_and_mounts_for_both() {
    let registry = Registry::start("127.0.0.1", |_, _| Fault::None);
    let scopes = Arc::new(Mutex::new(Vec::new()));
    let asked_for = Arc::clone(&scopes);
    let tokens = Server::start("127.0.0.1", move |asked| {
        let scope = asked.target.split(['?', '&']).filter(|pair| pair.starts_with("scope="));
        let scope: Vec<&str> = scope.collect();
        asked_for.lock().expect("no panic").push(scope.join(" "));
        // The foreign repository is none of ours.
        match scope.iter().any(|scope| scope.contains("library")) {
            true => Answer::new(403, ""),
            false => Answer::new(200, r#"{"token":"t-1","expires_in":300}"#),
        }
    });
    let realm = tokens.url("/token");
    let address = registry.address;
    let front = Server::start("127.0.0.1", move |asked| {
        if asked.header("authorization") != Some("Bearer t-1") {
            let challenge = format!("Bearer realm=\"{realm}\",service=\"s\"");
            return Answer::challenge(challenge);
        }
        // What a push asks first is whether something is there.
        let _ = address;
        match &*asked.method {
            "HEAD" => Answer::new(404, ""),
            "POST" => Answer::new(202, "").header("Location", "/v2/a/b/blobs/uploads/1"),
            _ => Answer::new(201, ""),
        }
    });
    let (export, mut layers) = export(&["linux/amd64"], &[10]);
    layers.elsewhere = vec!["library/base".to_owned()];
    let client = Client::new(options(), Arc::new(Known));
    let names = [front.reference("a/b:1")];
    push(&client, &export, &names, &Arc::new(layers)).await.expect("pushed without the mount");
    let scopes = scopes.lock().expect("no panic").clone();
    let plain = "scope=repository%3Aa%2Fb%3Apull%2Cpush";
    let both = format!("{plain} scope=repository%3Alibrary%2Fbase%3Apull");
    assert_eq!(scopes.iter().filter(|scope| **scope == plain).count(), 1, "{scopes:?}");
    assert!(scopes.contains(&both), "{scopes:?}");
    let posts = front.asked().iter().filter(|asked| asked.method == "POST").count();
    assert!(posts >= 2, "layer and config are uploaded");
}

#[tokio::test]
async fn the_smallest_chunk_is_the_registrys() {
    let registry = Registry::start("127.0.0.1", |head, _| match head.kind() {
        "POST" => Fault::Header("OCI-Chunk-Min-Length", (3 * CHUNK).to_string()),
        _ => Fault::None,
    });
    let (export, layers) = export(&["linux/amd64"], &[7 * CHUNK]);
    let layers = Arc::new(layers);
    push(&client(), &export, &[registry.reference("a/b:1")], &layers).await.expect("pushed");
    let lengths: Vec<usize> = {
        let state = registry.state();
        state.log.iter().filter(|h| h.kind() == "PATCH").map(|h| h.length).collect()
    };
    assert_eq!(lengths, [3 * CHUNK, 3 * CHUNK, CHUNK]);
    holds(&registry, "a/b", "1", &export, &layers);
}
