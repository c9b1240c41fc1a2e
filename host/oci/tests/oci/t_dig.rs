//! T-DIG: nothing that differs from its digest gets through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wbuild_graph::Digest;
use wbuild_oci::media::{Descriptor, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};
use wbuild_oci::{ErrorKind, Reference};

use crate::content::{Chance, Content, Keys, client, pull};
use crate::server::{Answer, Server};

#[tokio::test]
async fn t_dig_one_bit_in_any_of_200_answers_is_noticed() {
    let content = Content::new(&[40_000, 7_000, 1]);
    let bodies: Vec<Vec<u8>> = [&content.index, &content.manifest, &content.config]
        .into_iter()
        .chain(&content.layers)
        .cloned()
        .collect();
    let mut chance = Chance(1);
    let mut caught = 0;
    for round in 0..200 {
        let which = round % bodies.len();
        let (byte, bit) = (chance.below(bodies[which].len()), chance.below(8));
        let (served, damaged) = (content.clone(), bodies[which].clone());
        // Half of the time the registry does not say beforehand what a tag means.
        let silent = round % 2 == 1;
        let flipped = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&flipped);
        let server = Server::start("127.0.0.1", move |asked| {
            if asked.method == "HEAD" && silent {
                return Answer::new(405, "");
            }
            let mut answer = served.answer(asked);
            if asked.method == "GET" && answer.body == damaged {
                answer.body[byte] ^= 1 << bit;
                noted.store(true, Ordering::Relaxed);
            }
            answer
        });
        let result = pull(&client(Keys::default(), &[]), &server.reference("a/b:v1")).await;
        let error = result.err().unwrap_or_else(|| panic!("{round}: bit {bit} of byte {byte}"));
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{round}: {error}");
        assert!(flipped.load(Ordering::Relaxed), "{round}: {error}");
        caught += 1;
    }
    assert_eq!(caught, 200);
}

#[tokio::test]
async fn t_dig_cut_longer_and_of_another_size() {
    let content = Content::new(&[40_000]);
    for (what, original) in [
        ("index", &content.index),
        ("manifest", &content.manifest),
        ("config", &content.config),
        ("layer", &content.layers[0]),
    ] {
        type Change = fn(&mut Answer);
        let changes: [(&str, Change); 5] = [
            ("cut", |answer| answer.body.truncate(answer.body.len() / 2)),
            ("cut, with the length of all", |answer| {
                answer.length = Some(answer.body.len());
                answer.body.truncate(answer.body.len() / 2);
            }),
            ("nothing", |answer| answer.body.clear()),
            ("longer", |answer| answer.body.push(b' ')),
            ("longer, without a length", |answer| {
                answer.body.extend_from_slice(&[b' '; 70_000]);
                answer.open_end = true;
            }),
        ];
        for (how, change) in changes {
            let (served, original) = (content.clone(), original.clone());
            let server = Server::start("127.0.0.1", move |asked| {
                let mut answer = served.answer(asked);
                if asked.method == "GET" && answer.body == original {
                    change(&mut answer);
                    // A range of it is as wrong.
                    answer.headers.retain(|(name, _)| name != "Content-Range");
                }
                answer
            });
            let result = pull(&client(Keys::default(), &[]), &server.reference("a/b:v1")).await;
            // A cut blob is asked for again from there, which this server answers truthfully.
            let mended = what == "layer" || what == "config";
            if mended && how == "cut, with the length of all" {
                assert_eq!(result.expect("in the end"), content.layers, "{what} {how}");
                continue;
            }
            let error = result.err().unwrap_or_else(|| panic!("{what} {how}"));
            let kinds = [ErrorKind::Mismatch, ErrorKind::Unavailable];
            assert!(kinds.contains(&error.kind()), "{what} {how}: {error}");
        }
    }
}

#[tokio::test]
async fn t_dig_documents_that_confuse() {
    let layer = b"layer".to_vec();
    let good = Descriptor::of(OCI_LAYER_GZIP, &layer);
    let (config, digest) = (Descriptor::of(OCI_CONFIG, b"{}"), Digest::of(b"{}"));
    let hex = digest.hex();
    let sha512 = "0".repeat(128);
    let manifest = |config: &str, layers: &str| {
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layers}]}}"#)
    };
    let (plain, layers) = (
        serde_json::to_string(&config).expect("json"),
        serde_json::to_string(&good).expect("json"),
    );
    let with = |from: &str, to: &str| manifest(&plain.replace(from, to), &layers);
    let own = digest.to_string();
    for (name, document, media_type) in [
        ("sha512", with(&own, &format!("sha512:{sha512}")), OCI_MANIFEST),
        ("md5", with(&own, "md5:d41d8cd98f00b204e9800998ecf8427e"), OCI_MANIFEST),
        ("sha256 in name only", with(&own, &format!("sha256:{sha512}")), OCI_MANIFEST),
        ("sha256, too short", with(&own, &format!("sha256:{}", &hex[1..])), OCI_MANIFEST),
        ("capitals", with(&own, &format!("SHA256:{hex}")), OCI_MANIFEST),
        ("no algorithm", with(&own, &hex), OCI_MANIFEST),
        ("path", with(&own, "sha256:../../../../etc/passwd"), OCI_MANIFEST),
        ("negative size", with("\"size\":2", "\"size\":-2"), OCI_MANIFEST),
        ("size beyond all", with("\"size\":2", "\"size\":18446744073709551615"), OCI_MANIFEST),
        ("large config", with("\"size\":2", "\"size\":9223372036854775807"), OCI_MANIFEST),
        ("a larger config than it is", with("\"size\":2", "\"size\":3"), OCI_MANIFEST),
        ("a smaller config than it is", with("\"size\":2", "\"size\":1"), OCI_MANIFEST),
        (
            "image and index",
            manifest(&plain, &layers).replacen('{', r#"{"manifests":[],"#, 1),
            OCI_MANIFEST,
        ),
        (
            "index and image",
            manifest(&plain, &layers).replacen('{', r#"{"manifests":[],"#, 1),
            OCI_INDEX,
        ),
        ("an image called an index", manifest(&plain, &layers), OCI_INDEX),
        ("an index called an image", r#"{"schemaVersion":2,"manifests":[]}"#.into(), OCI_MANIFEST),
        (
            "schema 1",
            r#"{"schemaVersion":1,"name":"a/b","tag":"v1","fsLayers":[],"history":[]}"#.into(),
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
        ),
        (
            "the same key twice",
            manifest(&plain, &layers).replacen('{', r#"{"config":{},"#, 1),
            OCI_MANIFEST,
        ),
    ] {
        let bytes = document.into_bytes();
        let server = Server::start("127.0.0.1", move |asked| {
            if asked.target.contains("/blobs/") {
                return Answer::new(200, "{}");
            }
            Answer::new(200, &bytes[..])
                .header("Content-Type", media_type)
                .header("Docker-Content-Digest", Digest::of(&bytes).to_string())
        });
        let result = pull(&client(Keys::default(), &[]), &server.reference("a/b:v1")).await;
        let error = result.err().unwrap_or_else(|| panic!("{name} must fail"));
        assert_ne!(error.kind(), ErrorKind::Unavailable, "{name}: {error}");
        if name == "schema 1" {
            assert!(error.to_string().contains("schema 1"), "{error}");
        }
    }
    assert!(format!("127.0.0.1:1/a/b@sha512:{sha512}").parse::<Reference>().is_err());
}

#[tokio::test]
async fn t_dig_a_header_that_lies_is_noticed() {
    let content = Content::new(&[100]);
    let served = content.clone();
    let server = Server::start("127.0.0.1", move |asked| {
        let mut answer = served.answer(asked);
        if asked.target.ends_with("/v1") {
            answer.headers.retain(|(name, _)| name != "Docker-Content-Digest");
            answer = answer.header("Docker-Content-Digest", Digest::of(b"another").to_string());
        }
        answer
    });
    let client = client(Keys::default(), &[]);
    let reference = server.reference("a/b:v1");
    let error = client.manifest(&reference).await.expect_err("it says another digest");
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    // What it named by that header it does not have.
    assert!(pull(&client, &reference).await.is_err());
}

#[tokio::test]
async fn t_dig_a_size_is_no_reason_to_make_room() {
    let content = Content::new(&[1_000]);
    let server = content.serve("127.0.0.1");
    let digest = Digest::of(&content.layers[0]);
    for size in [1 << 40, u64::MAX >> 1] {
        let descriptor = Descriptor::new(OCI_LAYER_GZIP, digest, size);
        let mut out = Vec::new();
        let client = client(Keys::default(), &[]);
        let result = client.blob(&server.reference("a/b"), &descriptor, &mut out).await;
        assert_eq!(result.expect_err("too short").kind(), ErrorKind::Mismatch);
        assert!(out.capacity() < 1 << 20, "{}", out.capacity());
    }
}
