//! The registry client against servers that lie, break off, and want credentials that are not theirs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use wbuild_graph::{Digest, Platform};
use wbuild_oci::media::{
    DOCKER_LIST, Descriptor, Index, Manifest, MediaFamily, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP,
    OCI_MANIFEST,
};
use wbuild_oci::registry::{Anonymous, Client, ClientOptions, Credential, Credentials, Host};
use wbuild_oci::{ErrorKind, Reference, Result};

use crate::content::{SECRET, leaked, options};
use crate::server::{Answer, Asked, Server};

struct Known;

#[async_trait]
impl Credentials for Known {
    async fn lookup(&self, _registry: &str) -> Result<Option<Credential>> {
        Ok(Some(Credential::Basic { username: "user".to_owned(), password: SECRET.to_owned() }))
    }
}

fn client() -> Client {
    Client::new(options(), Arc::new(Anonymous))
}

fn client_with_secret() -> Client {
    Client::new(options(), Arc::new(Known))
}

fn blob_data(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n * 31 % 251) as u8).collect()
}

async fn fetch(client: &Client, reference: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    client.blob(reference, descriptor, &mut out).await.map(|()| out)
}

/// Answers a range request as a server should.
fn ranged(data: &[u8], asked: &Asked) -> Answer {
    match asked.from() {
        0 => Answer::new(200, data),
        from => Answer::new(206, &data[from..])
            .header("Content-Range", format!("bytes {from}-{}/{}", data.len() - 1, data.len())),
    }
}

#[tokio::test]
async fn blobs_that_are_not_what_was_asked_for() {
    let data = blob_data(300_000);
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, &data);
    let mut flipped = data.clone();
    flipped[150_000] ^= 1;
    let longer = [&data[..], b"x"].concat();
    let cases: Vec<(&str, Answer, ErrorKind)> = vec![
        ("one bit flipped", Answer::new(200, flipped), ErrorKind::Mismatch),
        ("too long", Answer::new(200, longer.clone()), ErrorKind::Mismatch),
        (
            "too long, without a length",
            Answer { open_end: true, ..Answer::new(200, longer) },
            ErrorKind::Mismatch,
        ),
        ("too short", Answer::new(200, &data[..1000]), ErrorKind::Mismatch),
        (
            "too short, without a length",
            Answer { open_end: true, ..Answer::new(200, &data[..1000]) },
            ErrorKind::Mismatch,
        ),
        (
            "always cut at the start",
            Answer { length: Some(data.len()), ..Answer::new(200, "") },
            ErrorKind::Unavailable,
        ),
        (
            "stalled",
            Answer { stall: Some(1000), ..Answer::new(200, &data[..]) },
            ErrorKind::Unavailable,
        ),
        (
            "another part",
            Answer::new(206, &data[..]).header("Content-Range", "bytes 5-9/10"),
            ErrorKind::Invalid,
        ),
        (
            "absent",
            Answer::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#),
            ErrorKind::NotFound,
        ),
        ("forbidden", Answer::new(403, ""), ErrorKind::Denied),
        ("broken", Answer::new(500, "\x1b[31mred"), ErrorKind::Unavailable),
        ("busy", Answer::new(429, "").header("Retry-After", "0"), ErrorKind::Unavailable),
        ("no http", Answer::new(999, ""), ErrorKind::Invalid),
    ];
    for (name, answer, kind) in cases {
        let server = Server::start("127.0.0.1", move |_| answer.clone());
        let start = Instant::now();
        let error = fetch(&client(), &server.reference("a/b"), &descriptor)
            .await
            .err()
            .unwrap_or_else(|| panic!("{name} must fail"));
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(start.elapsed() < Duration::from_secs(10), "{name} took {:?}", start.elapsed());
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains('\x1b'), "{name}: {shown}");
        assert!(error.to_string().contains("127.0.0.1"), "{name} must name the host: {error}");
    }
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    let data = blob_data(1_000_000);
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, &data);
    for ranges in [true, false] {
        let (served, sent) = (data.clone(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&sent);
        let server = Server::start("127.0.0.1", move |asked| {
            let mut answer =
                if ranges { ranged(&served, asked) } else { Answer::new(200, &served[..]) };
            // Each time a third more arrives before the cut.
            let part =
                if ranges { 340_000 } else { 340_000 * (1 + counter.load(Ordering::Relaxed)) };
            counter.fetch_add(1, Ordering::Relaxed);
            answer.length = Some(answer.body.len());
            answer.body.truncate(part);
            answer
        });
        let got =
            fetch(&client(), &server.reference("a/b"), &descriptor).await.expect("in the end");
        assert!(got == data);
        let asked = server.asked();
        assert_eq!(asked.len(), 3, "ranges: {ranges}");
        assert_eq!(asked[0].header("range"), None);
        assert!(asked[1].from() >= 300_000, "{:?}", asked[1]);
    }
}

#[tokio::test]
async fn temporary_errors_are_retried() {
    let data = blob_data(10);
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, &data);
    let count = AtomicUsize::new(0);
    let server = Server::start("127.0.0.1", move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::new(503, ""),
        1 => Answer::new(429, "").header("Retry-After", "0"),
        2 => Answer { length: Some(10), ..Answer::new(200, "") },
        _ => Answer::new(200, &data[..]),
    });
    fetch(&client(), &server.reference("a/b"), &descriptor).await.expect("in the end");
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn manifests_that_are_not_what_was_asked_for() {
    let config = Descriptor::of(OCI_CONFIG, b"{}");
    let good = Manifest::new(MediaFamily::Oci, config.clone(), vec![]).to_bytes();
    let digest = Digest::of(&good);
    let both =
        String::from_utf8(good.clone()).expect("json").replacen('{', r#"{"manifests":[],"#, 1);
    let typed =
        |body: &[u8], media_type: &str| Answer::new(200, body).header("Content-Type", media_type);
    let huge = vec![b' '; (4 << 20) + 1];
    for (name, answer, pinned, kind) in [
        ("other content", typed(b"{}", OCI_MANIFEST), true, ErrorKind::Mismatch),
        ("type of an index", typed(&good, OCI_INDEX), true, ErrorKind::Invalid),
        ("image and index", typed(both.as_bytes(), OCI_MANIFEST), false, ErrorKind::Invalid),
        ("no manifest", typed(b"<html>", "text/html"), false, ErrorKind::Invalid),
        ("too large", typed(&huge, OCI_MANIFEST), false, ErrorKind::Limit),
        (
            "too large, without a length",
            Answer { open_end: true, ..typed(&huge, OCI_MANIFEST) },
            false,
            ErrorKind::Limit,
        ),
        (
            "absent",
            Answer::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"x"}]}"#),
            false,
            ErrorKind::NotFound,
        ),
    ] {
        let server = Server::start("127.0.0.1", move |_| answer.clone());
        let mut reference = server.reference("a/b:tag");
        if pinned {
            reference = reference.with_digest(digest);
        }
        let error =
            client().manifest(&reference).await.err().unwrap_or_else(|| panic!("{name} must fail"));
        assert_eq!(error.kind(), kind, "{name}: {error}");
    }
    let good_again = good.clone();
    let server = Server::start("127.0.0.1", move |_| typed(&good_again, OCI_MANIFEST));
    let fetched =
        client().manifest(&server.reference("a/b").with_digest(digest)).await.expect("the one");
    assert_eq!(fetched.bytes, good);
    // An index may not call it by another type or size.
    let wrong_size = Descriptor::new(OCI_MANIFEST, digest, good.len() as u64 + 1);
    let wrong_type = Descriptor::new(DOCKER_LIST, digest, good.len() as u64);
    for descriptor in [wrong_size, wrong_type] {
        assert!(client().manifest_of(&server.reference("a/b"), &descriptor).await.is_err());
    }
}

#[tokio::test]
async fn a_tag_is_resolved_with_or_without_help() {
    let manifest =
        Manifest::new(MediaFamily::Oci, Descriptor::of(OCI_CONFIG, b"{}"), vec![]).to_bytes();
    let digest = Digest::of(&manifest);
    for (with_digest, heads) in [(true, true), (false, true), (true, false)] {
        let bytes = manifest.clone();
        let server = Server::start("127.0.0.1", move |asked| {
            if asked.method == "HEAD" && !heads {
                return Answer::new(405, "");
            }
            let answer = Answer::new(200, &bytes[..]).header("Content-Type", OCI_MANIFEST);
            if with_digest {
                answer.header("Docker-Content-Digest", digest.to_string())
            } else {
                answer
            }
        });
        let descriptor = client().resolve(&server.reference("a/b:tag")).await.expect("resolved");
        assert_eq!((descriptor.digest, descriptor.size), (digest, manifest.len() as u64));
        let methods: Vec<String> = server.asked().into_iter().map(|asked| asked.method).collect();
        let want: &[&str] = if with_digest && heads { &["HEAD"] } else { &["HEAD", "GET"] };
        assert_eq!(methods, want);
    }
}

#[tokio::test]
async fn an_index_that_contains_itself_ends() {
    let server = Server::start("127.0.0.1", |_| {
        // A digest cannot be hit by accident, so each index names another; the depth is what counts.
        let platform: Platform = "linux/amd64".parse().expect("platform");
        let entry = Descriptor::of(OCI_INDEX, b"never").with_platform(&platform);
        Answer::new(200, Index::new(MediaFamily::Oci, vec![entry]).to_bytes())
            .header("Content-Type", OCI_INDEX)
    });
    let platform = "linux/amd64".parse().expect("platform");
    assert!(client().image(&server.reference("a/b"), &platform).await.is_err());
}

#[tokio::test]
async fn redirects_that_are_not_followed() {
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, b"x");
    let witness = Server::start("127.0.0.3", |_| Answer::new(200, "x"));
    for (name, to) in [
        ("file", "file:///etc/passwd".to_owned()),
        ("plain http to others", "http://192.0.2.1/x".to_owned()),
        ("a name with password", format!("http://a:b@{}/x", witness.address)),
        ("no scheme we know", "gopher://127.0.0.1/".to_owned()),
        ("nowhere", "http://[".to_owned()),
        ("in circles", "/v2/again".to_owned()),
    ] {
        let target = to.clone();
        let server = Server::start("127.0.0.1", move |_| Answer::redirect(target.clone()));
        let error = fetch(&client(), &server.reference("a/b"), &descriptor)
            .await
            .err()
            .unwrap_or_else(|| panic!("{name} must fail"));
        assert!(matches!(error.kind(), ErrorKind::Denied | ErrorKind::Invalid), "{name}: {error}");
        assert!(server.asked().len() <= 7, "{name}");
    }
    assert!(witness.asked().is_empty());
}

/// A registry that wants a token of `realm`.
fn token_registry(data: Vec<u8>, realm: String) -> Server {
    Server::start("127.0.0.1", move |asked| match asked.header("authorization") {
        Some("Bearer good-token") => ranged(&data, asked),
        _ => Answer::challenge(format!(
            r#"Bearer realm="{realm}",service="reg",scope="repository:a/b:pull,push,delete""#
        )),
    })
}

#[tokio::test]
async fn tokens_are_fetched_once_and_ask_for_little() {
    let data = blob_data(100);
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, &data);
    let tokens = Server::start("127.0.0.1", |_| {
        std::thread::sleep(Duration::from_millis(50));
        Answer::new(200, r#"{"token":"good-token","expires_in":300}"#)
    });
    let registry = token_registry(data, tokens.url("/token?a=b"));
    let client = client_with_secret();
    let reference = registry.reference("a/b");
    let (one, two, three) = tokio::join!(
        fetch(&client, &reference, &descriptor),
        fetch(&client, &reference, &descriptor),
        fetch(&client, &reference, &descriptor)
    );
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    fetch(&client, &reference, &descriptor).await.expect("with the token at hand");
    let asked = tokens.asked();
    assert_eq!(asked.len(), 1, "parallel requests share a token");
    assert_eq!(asked[0].target, "/token?a=b&service=reg&scope=repository%3Aa%2Fb%3Apull");
    assert!(asked[0].header("authorization").is_some_and(|h| h.starts_with("Basic ")));
    // The password itself never went to the registry.
    assert!(
        registry
            .asked()
            .iter()
            .all(|a| a.header("authorization").is_none_or(|h| h == "Bearer good-token"))
    );
}

#[tokio::test]
async fn a_refresh_token_goes_into_the_body() {
    struct Refresh;
    #[async_trait]
    impl Credentials for Refresh {
        async fn lookup(&self, _registry: &str) -> Result<Option<Credential>> {
            Ok(Some(Credential::Identity("refresh&me".to_owned())))
        }
    }
    let data = blob_data(100);
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, &data);
    let tokens =
        Server::start("127.0.0.1", |_| Answer::new(200, r#"{"access_token":"good-token"}"#));
    let registry = token_registry(data, tokens.url("/token"));
    let client = Client::new(options(), Arc::new(Refresh));
    fetch(&client, &registry.reference("a/b"), &descriptor).await.expect("with a token");
    let asked = &tokens.asked()[0];
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/token"));
    assert_eq!(
        asked.body,
        "service=reg&scope=repository%3Aa%2Fb%3Apull&grant_type=refresh_token&client_id=wbuild&refresh_token=refresh%26me"
    );
}

#[tokio::test]
async fn a_foreign_token_service_gets_no_credentials() {
    let data = blob_data(100);
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, &data);
    let foreign = Server::start("127.0.0.2", |asked| match asked.header("authorization") {
        Some(_) => Answer::new(200, r#"{"token":"good-token"}"#),
        None => Answer::new(401, ""),
    });
    let registry = token_registry(data.clone(), foreign.url("/token"));
    let reference = registry.reference("a/b");
    let error =
        fetch(&client_with_secret(), &reference, &descriptor).await.expect_err("no credentials");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let failure = wbuild_graph::Failure::from(error);
    assert!(failure.hints.iter().any(|hint| hint.contains("127.0.0.2")), "{failure:?}");
    assert!(!leaked(&foreign), "{:?}", foreign.asked());
    // Unless the user says so.
    let host = Host { realms: vec!["127.0.0.2".to_owned()], ..Host::default() };
    let hosts = BTreeMap::from([(reference.registry().to_owned(), host)]);
    let client = Client::with_hosts(options(), Arc::new(Known), Arc::new(hosts));
    fetch(&client, &reference, &descriptor).await.expect("trusted");
}

#[tokio::test]
async fn token_services_that_misbehave() {
    let data = blob_data(100);
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, &data);
    let witness = Server::start("127.0.0.2", |_| Answer::new(200, r#"{"token":"good-token"}"#));
    let long = format!(r#"{{"token":"{}"}}"#, "t".repeat(40_000));
    let huge = format!(r#"{{"token":"{}"}}"#, "t".repeat(2 << 20));
    for (name, answer, kind) in [
        ("redirect", Answer::redirect(witness.url("/")), ErrorKind::Invalid),
        ("no token", Answer::new(200, "{}"), ErrorKind::Invalid),
        ("no json", Answer::new(200, "x"), ErrorKind::Invalid),
        ("header injection", Answer::new(200, r#"{"token":"a\r\nX: y"}"#), ErrorKind::Invalid),
        ("long token", Answer::new(200, long), ErrorKind::Invalid),
        ("huge answer", Answer::new(200, huge), ErrorKind::Limit),
        ("refusal", Answer::new(403, ""), ErrorKind::Denied),
        ("trouble", Answer::new(503, ""), ErrorKind::Unavailable),
        ("useless token", Answer::new(200, r#"{"token":"bad","expires_in":0}"#), ErrorKind::Denied),
        (
            "endless token",
            Answer::new(200, r#"{"token":"bad","expires_in":1e300}"#),
            ErrorKind::Denied,
        ),
        (
            "backdated token",
            Answer::new(200, r#"{"token":"bad","expires_in":-5}"#),
            ErrorKind::Denied,
        ),
    ] {
        let tokens = Server::start("127.0.0.1", move |_| answer.clone());
        let registry = token_registry(data.clone(), tokens.url("/token"));
        let error = fetch(&client_with_secret(), &registry.reference("a/b"), &descriptor)
            .await
            .err()
            .unwrap_or_else(|| panic!("{name} must fail"));
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(registry.asked().len() <= 4 && tokens.asked().len() <= 4, "{name}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(SECRET), "{name}: {shown}");
    }
    assert!(!leaked(&witness));
}

#[tokio::test]
async fn realms_of_other_schemes_and_places_are_not_asked() {
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, b"x");
    for realm in
        ["http://192.0.2.1/token", "file:///etc/passwd", "/token", "", "http://u:p@127.0.0.1/"]
    {
        let registry = token_registry(vec![], realm.to_owned());
        let error = fetch(&client_with_secret(), &registry.reference("a/b"), &descriptor)
            .await
            .expect_err(realm);
        assert!(matches!(error.kind(), ErrorKind::Denied | ErrorKind::Invalid), "{realm}: {error}");
        assert!(!leaked(&registry));
    }
}

#[tokio::test]
async fn wrong_credentials_are_said_to_be_wrong() {
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, b"x");
    for (challenge, client, kind, tries) in [
        (r#"Basic realm="x""#, client_with_secret(), ErrorKind::Denied, 2),
        (r#"Basic realm="x""#, client(), ErrorKind::Denied, 1),
        (r#"Digest realm="x""#, client_with_secret(), ErrorKind::Unsupported, 1),
        (r#"Basic realm="x"#, client_with_secret(), ErrorKind::Invalid, 1),
    ] {
        let registry = Server::start("127.0.0.1", move |_| Answer::challenge(challenge));
        let error =
            fetch(&client, &registry.reference("a/b"), &descriptor).await.expect_err("refused");
        assert_eq!(error.kind(), kind, "{challenge}: {error}");
        assert_eq!(registry.asked().len(), tries, "{challenge}");
    }
}

#[tokio::test]
async fn dropping_the_future_ends_the_request() {
    let data = blob_data(1000);
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, &data);
    let server = Server::start("127.0.0.1", move |_| Answer {
        stall: Some(10),
        ..Answer::new(200, &data[..])
    });
    let patient = Client::new(
        ClientOptions { stall_timeout: Duration::from_secs(60), ..options() },
        Arc::new(Anonymous),
    );
    let reference = server.reference("a/b");
    let cancelled =
        tokio::time::timeout(Duration::from_millis(100), fetch(&patient, &reference, &descriptor))
            .await;
    assert!(cancelled.is_err());
}
