//! Mirrors: asked first, never the last word.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wbuild_graph::Digest;
use wbuild_oci::ErrorKind;
use wbuild_oci::media::{Descriptor, OCI_CONFIG, OCI_LAYER_GZIP};
use wbuild_oci::registry::{Client, Host, Trust};

use crate::content::{Content, Keys, client, pull};
use crate::server::{Answer, Server};
use crate::support::skip;
use crate::tls;

/// A client that asks `mirrors` for what `registry` holds.
fn mirrored(registry: &Server, mirrors: &[String]) -> Client {
    let mirrors = mirrors.iter().map(|mirror| mirror.parse().expect("a mirror")).collect();
    let name = registry.address.to_string();
    client(Keys::default(), &[(&name, Host { mirrors, ..Host::default() })])
}

#[tokio::test]
async fn a_mirror_that_has_it_is_all_that_is_asked() {
    let content = Content::new(&[5_000, 10]);
    let (registry, mirror) = (content.serve("127.0.0.1"), content.serve("127.0.0.2"));
    let client = mirrored(&registry, &[format!("{}/proxy/hub", mirror.address)]);
    let got = pull(&client, &registry.reference("a/b:v1")).await.expect("from the mirror");
    assert_eq!(got, content.layers);
    assert!(registry.asked().is_empty());
    let name = registry.address.to_string().replace(':', "%3A");
    for asked in mirror.asked() {
        assert!(asked.target.starts_with("/v2/proxy/hub/a/b/"), "{}", asked.target);
        assert!(asked.target.ends_with(&format!("?ns={name}")), "{}", asked.target);
    }
}

#[tokio::test]
async fn whatever_a_mirror_does_the_registry_has_the_last_word() {
    type Behaviour = fn(&crate::server::Asked, &Content) -> Answer;
    let content = Content::new(&[200_000, 10]);
    let cases: [(&str, Behaviour); 9] = [
        ("it has nothing", |_, _| Answer::new(404, "")),
        ("it lets nobody in", |_, _| Answer::challenge(r#"Basic realm="x""#)),
        ("it is out of order", |_, _| Answer::new(503, "")),
        ("it is no registry", |_, _| {
            Answer::new(200, "<html>").header("Content-Type", "text/html")
        }),
        ("it falls silent", |asked, content| Answer { stall: Some(5), ..content.answer(asked) }),
        ("it sends others' bytes", |asked, content| {
            let mut answer = content.answer(asked);
            answer.body.iter_mut().for_each(|byte| *byte ^= 1);
            answer
        }),
        ("it breaks off", |asked, content| {
            let mut answer = content.answer(asked);
            answer.length = Some(answer.body.len());
            answer.body.truncate(answer.body.len() / 2);
            answer
        }),
        ("it lies and breaks off", |asked, content| {
            let mut answer = content.answer(asked);
            answer.length = Some(answer.body.len());
            answer.body.iter_mut().for_each(|byte| *byte ^= 1);
            answer.body.truncate(answer.body.len() / 2);
            answer
        }),
        ("it leads in circles", |asked, _| Answer::redirect(asked.target.clone())),
    ];
    for (name, behaviour) in cases {
        let registry = content.serve("127.0.0.1");
        let served = content.clone();
        let mirror = Server::start("127.0.0.2", move |asked| behaviour(asked, &served));
        let client = mirrored(&registry, &[mirror.address.to_string()]);
        let got = pull(&client, &registry.reference("a/b:v1")).await;
        assert_eq!(got.unwrap_or_else(|error| panic!("{name}: {error:?}")), content.layers);
        assert!(!mirror.asked().is_empty() && mirror.asked().len() < 60, "{name}");
    }
}

#[tokio::test]
async fn a_mirror_that_is_gone_is_missed_once() {
    let content = Content::new(&[100]);
    let registry = content.serve("127.0.0.1");
    let second = content.serve("127.0.0.3");
    // Nobody listens on the port of discarding.
    let client = mirrored(&registry, &["127.0.0.2:9".to_owned(), second.address.to_string()]);
    let began = std::time::Instant::now();
    for _ in 0..5 {
        pull(&client, &registry.reference("a/b:v1")).await.expect("from the second");
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
    assert!(registry.asked().is_empty());
}

#[tokio::test]
async fn what_a_mirror_has_begun_the_registry_goes_on_with() {
    let content = Content::new(&[400_000]);
    let registry = content.serve("127.0.0.1");
    let (served, requests) = (content.clone(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&requests);
    let mirror = Server::start("127.0.0.2", move |asked| {
        let mut answer = served.answer(asked);
        // The first half, then nothing at all.
        match counter.fetch_add(1, Ordering::Relaxed) {
            0 => {
                answer.length = Some(answer.body.len());
                answer.body.truncate(200_000);
                answer
            }
            _ => Answer::new(503, ""),
        }
    });
    let client = mirrored(&registry, &[mirror.address.to_string()]);
    let descriptor = Descriptor::of(OCI_LAYER_GZIP, &content.layers[0]);
    let mut got = Vec::new();
    client.blob(&registry.reference("a/b"), &descriptor, &mut got).await.expect("together");
    assert!(got == content.layers[0]);
    let asked = registry.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].from(), 200_000);
}

#[tokio::test]
async fn when_all_fail_each_is_named() {
    let registry = Server::start("127.0.0.1", |_| Answer::new(500, ""));
    let mirror = Server::start("127.0.0.2", |_| Answer::new(404, ""));
    let client = mirrored(&registry, &[mirror.address.to_string()]);
    let error = client.resolve(&registry.reference("a/b:v1")).await.expect_err("nobody has it");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "the registry's own word counts: {error}");
    let shown = format!("{:?}", wbuild_graph::Failure::from(error));
    assert!(shown.contains("127.0.0.1") && shown.contains("127.0.0.2"), "{shown}");
}

#[tokio::test]
async fn what_mirrors_said_can_be_taken_back() {
    let (content, other) = (Content::new(&[100]), Content::new(&[200]));
    let registry = content.serve("127.0.0.1");
    // It names an image that it does not hand out.
    let mirror = Server::start("127.0.0.2", move |asked| match asked.method.as_str() {
        "HEAD" => other.answer(asked),
        _ => Answer::new(404, ""),
    });
    let client = mirrored(&registry, &[mirror.address.to_string()]);
    let reference = registry.reference("a/b:v1");
    assert!(pull(&client, &reference).await.is_err());
    assert!(client.without_mirrors(reference.registry()).await);
    assert_eq!(pull(&client, &reference).await.expect("the registry's"), content.layers);
    assert!(!client.without_mirrors(reference.registry()).await, "there are none left");
}

#[tokio::test]
async fn client_certificates_are_shown_to_their_host_only() {
    let test = "client_certificates_are_shown_to_their_host_only";
    let temp = tempfile::tempdir().expect("temp");
    let (Some(server), Some(ours)) = (tls::server_pair(), tls::make(temp.path(), "client")) else {
        return skip(test, "there is no openssl");
    };
    let content = Content::new(&[5_000]);
    let read = |path| std::fs::read(path).expect("made");
    // The blobs lie at a host that takes only those who show a certificate, too.
    let served = content.clone();
    let storage = Server::listen("127.0.0.1", Some(tls::config(Some(&ours))), move |asked| {
        served.answer(asked)
    });
    let (served, elsewhere) = (content.clone(), storage.url(""));
    let registry = Server::listen("127.0.0.1", Some(tls::config(Some(&ours))), move |asked| {
        if asked.target.contains("/elsewhere/blobs/") {
            return Answer::redirect(format!("{elsewhere}{}", asked.target));
        }
        served.answer(asked)
    });
    let name = registry.address.to_string();
    let trust = Trust { extra_roots: vec![read(&server.certificate)], ..Trust::default() };
    let identities = vec![wbuild_oci::registry::Identity {
        certificate: read(&ours.certificate),
        key: read(&ours.key),
    }];
    let with = Host { trust: Trust { identities, ..trust.clone() }, ..Host::default() };
    let known = client(Keys::default(), &[(&name, with)]);
    let reference = registry.reference("a/b:v1");
    assert_eq!(pull(&known, &reference).await.expect("with the certificate"), content.layers);
    // Where it leads to is not shown the certificate, and says so.
    let error =
        pull(&known, &registry.reference("a/elsewhere:v1")).await.expect_err("another host");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(storage.asked().is_empty());
    for (trust, kind) in [(trust, ErrorKind::Denied), (Trust::default(), ErrorKind::Denied)] {
        let host = Host { trust, http: Some(false), ..Host::default() };
        let nobody = client(Keys::default(), &[(&name, host)]);
        let error = pull(&nobody, &reference).await.expect_err("without it");
        assert_eq!(error.kind(), kind, "{error:?}");
    }
}

#[tokio::test]
async fn descriptors_that_carry_their_blob_need_no_request() {
    use base64::Engine as _;
    let config = Descriptor::of(OCI_CONFIG, b"{}");
    let server = Server::start("127.0.0.1", |_| Answer::new(200, "{}"));
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes).into();
    let client = client(Keys::default(), &[]);
    for (data, requests) in
        [(encode(b"{}"), 0), (encode(b"[]"), 1), ("{}".into(), 2), (1.into(), 3)]
    {
        let mut descriptor = config.clone();
        descriptor.extra.insert("data".to_owned(), data);
        let bytes = client.blob_bytes(&server.reference("a/b"), &descriptor).await.expect("a blob");
        assert_eq!((&bytes[..], server.asked().len()), (&b"{}"[..], requests));
    }
}

#[tokio::test]
async fn layers_that_registries_need_not_hold() {
    let server = Server::start("127.0.0.1", |_| Answer::new(404, ""));
    let witness = Server::start("127.0.0.2", |_| Answer::new(200, "x"));
    for media_type in [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ] {
        let mut descriptor = Descriptor::new(media_type, Digest::of(b"x"), 1);
        descriptor.urls = Some(vec![witness.url("/layer")]);
        let mut out = Vec::new();
        let result = client(Keys::default(), &[])
            .blob(&server.reference("a/b"), &descriptor, &mut out)
            .await;
        let error = result.expect_err("it is nowhere that is asked");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let failure = wbuild_graph::Failure::from(error);
        assert!(failure.hints.iter().any(|hint| hint.contains("not followed")), "{failure:?}");
    }
    assert!(witness.asked().is_empty());
}
