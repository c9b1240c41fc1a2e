//! The documents of images, and references to images.

use wbuild_graph::{DiffId, Digest, Platform};
use wbuild_oci::{Descriptor, config, media};
use wbuild_oci::{Document, Finish, ImageConfig, Index, Manifest, MediaFamily, Reference};

fn bytes_of(document: &Document) -> Vec<u8> {
    match document {
        Document::Manifest(manifest) => manifest.to_bytes(),
        Document::Index(index) => index.to_bytes(),
    }
}

/// The input is a manifest, an index or a config.
pub fn check_document(data: &[u8]) {
    let types = [None, Some(media::OCI_MANIFEST), Some(media::OCI_INDEX), Some("text/plain")];
    for said in types {
        let Ok(document) = Document::decode(data, said, "the input") else { continue };
        // What is passed on says what was checked.
        let written = bytes_of(&document);
        let again = Document::decode(&written, said, "what was written").expect("it was read");
        assert_eq!(again, document, "it is not read as it was written");
        let is_index = matches!(document, Document::Index(_));
        assert_eq!(Descriptor::of(document.media_type(), &written).is_index(), is_index);
        match &document {
            Document::Manifest(manifest) => {
                assert!(manifest.layers.len() <= media::MAX_ARTIFACT_LAYERS);
                assert!(manifest.layers.iter().all(|layer| i64::try_from(layer.size).is_ok()));
            }
            Document::Index(index) => {
                assert!(index.manifests.len() <= media::MAX_INDEX_ENTRIES);
                let platform: Platform = "linux/arm64".parse().expect("a platform");
                if let Ok(chosen) = index.choose(&platform, "the input") {
                    assert!(index.manifests.contains(chosen));
                }
            }
        }
    }
    check_config(data);
}

fn check_config(data: &[u8]) {
    if let Ok(config) = ImageConfig::decode(data, "the input") {
        assert_eq!(config.bytes(), data, "a config stays what it was");
        look_at(&config);
    }
    let platform: Platform = "linux/amd64".parse().expect("a platform");
    let diff_ids = [DiffId(Digest::of(b"layer"))];
    let with = Finish { diff_ids: &diff_ids, platform: &platform, created: None, cache: None };
    if let Ok(config) = ImageConfig::finish(data, &with) {
        let again = ImageConfig::decode(config.bytes(), "what was written").expect("it was made");
        assert_eq!(again.diff_ids(), diff_ids, "the layers are the host's");
        look_at(&again);
    }
}

fn look_at(config: &config::ImageConfig) {
    let _ = (config.env(), config.chain_id(), config.process());
    for key in ["User", "WorkingDir", "StopSignal"] {
        let _ = config.process_string(key);
    }
}

/// A manifest, an index and a config.
pub fn documents() -> Vec<Vec<u8>> {
    let descriptor = |media_type: &str| Descriptor::of(media_type, b"content");
    let platform: Platform = "linux/arm64/v8".parse().expect("a platform");
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for family in [MediaFamily::Oci, MediaFamily::Docker] {
        let layers = vec![descriptor(media::OCI_LAYER_GZIP).annotate("key", "value")];
        let manifest = Manifest::new(family, descriptor(family.config()), layers);
        let entry = descriptor(family.manifest()).with_platform(&platform);
        seeds.extend([manifest.to_bytes(), Index::new(family, vec![entry]).to_bytes()]);
    }
    let diff_ids = [DiffId(Digest::of(b"layer"))];
    let with = Finish { diff_ids: &diff_ids, platform: &platform, created: None, cache: None };
    let frontend = br#"{"config":{"User":"1:2","Env":["A=b"],"ExposedPorts":{"80/tcp":{}}},
        "history":[{"created_by":"COPY a b"},{"created_by":"ENV A=b","empty_layer":true}]}"#;
    let config = ImageConfig::finish(frontend, &with).expect("a config");
    seeds.extend([frontend.to_vec(), config.bytes().to_vec()]);
    seeds
}

/// The input is a reference.
pub fn check_reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(reference) = text.parse::<Reference>() else { return };
    for written in [reference.to_string(), reference.familiar()] {
        assert_eq!(written.parse().ok(), Some(reference.clone()), "{written:?} is another one");
    }
    // These become parts of addresses and of file names.
    let parts = reference.repository().split('/');
    for part in parts {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        assert!(part.starts_with(|c: char| c.is_ascii_alphanumeric()), "{reference}");
        assert!(part.chars().all(plain), "{reference}");
    }
    let registry = reference.registry();
    assert!(!registry.is_empty() && !registry.contains(['/', '@', '?', '#', '\\']), "{reference}");
    assert!(!registry.contains(|c: char| c.is_control() || c.is_whitespace()), "{reference}");
    if let Some(tag) = reference.tag() {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(!tag.is_empty() && tag.len() <= 128 && tag.chars().all(plain), "{reference}");
        assert!(!tag.starts_with(['.', '-']), "{reference}");
    }
    assert!(reference.name().len() <= 255, "{reference}");
    assert!(reference.without_digest().digest().is_none());
    let digest = Digest::of(b"content");
    assert_eq!(reference.with_digest(digest).target(), digest.to_string());
}

/// References of every form.
pub fn references() -> Vec<Vec<u8>> {
    let digest = Digest::of(b"content");
    [
        "busybox".to_owned(),
        "library/busybox:1.36".to_owned(),
        "Registry.example:5000/a/b_c/d--e:Tag_1.2-x".to_owned(),
        format!("[::1]:5000/a@{digest}"),
        format!("localhost/a:b@{digest}"),
        "docker.io/a/../b".to_owned(),
        "index.docker.io/a".to_owned(),
        "-x/y".to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}
