//! A component as an artifact of a registry: the layout of the CNCF's working group for WebAssembly,
//! which `wkg oci push` writes.
//!
//! ```text
//! manifest ─┬─ config  application/vnd.wasm.config.v0+json   what it imports and exports
//!           └─ layer   application/wasm                      the component
//! ```
//!
//! What a manifest says of a component is never believed: the component is read instead. Signatures are
//! manifests of their own that refer to the artifact's.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use wbuild_graph::{Digest, Failure, FailureKind};
use wbuild_oci::Timestamp;
use wbuild_oci::media::{
    Descriptor, Document, Index, Manifest, MediaFamily, OCI_CONFIG, OCI_MANIFEST,
};

use crate::signature::MAX_SIGNATURE;

/// Config of an artifact.
pub const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Layer that is a component.
pub const LAYER: &str = "application/wasm";
/// The same as older tools wrote it.
const OLDER_LAYER: &str = "application/vnd.wasm.content.layer.v1+wasm";
/// The same as older tools wrote it.
const OLDER_CONFIG: &str = "application/vnd.wasm.config.v1+json";
/// Config that says nothing (image specification, "Guidelines for Artifact Usage").
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// A signature of minisign, and the manifest that holds one.
pub const SIGNATURE: &str = "application/vnd.wbuild.signature.minisign.v1";
/// Largest component of any kind, in bytes.
pub const MAX_COMPONENT: u64 = 32 << 20;
/// The most signatures of one component that are looked at.
pub const MAX_SIGNATURES: usize = 16;

/// What a document of a registry is to somebody who looks for a plugin.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// The manifest of a component: its layer.
    Component(Descriptor),
    /// An index; the artifact is this one of it.
    Entry(Descriptor),
}

/// Finds the component of a document.
///
/// # Errors
///
/// There is none in it: it is an image, something else, or too large.
pub fn find(document: &Document, what: &str) -> Result<Found, Failure> {
    match document {
        Document::Manifest(manifest) => component(manifest, what).map(Found::Component),
        Document::Index(index) => entry(index, what).map(Found::Entry),
    }
}

fn component(manifest: &Manifest, what: &str) -> Result<Descriptor, Failure> {
    if manifest.is_image() && !manifest.layers.iter().any(is_component) {
        return Err(is_image(what));
    }
    let kind = manifest.extra.get("artifactType").and_then(Value::as_str);
    let config = &*manifest.config.media_type;
    let wasm = |text: &str| matches!(text, CONFIG | OLDER_CONFIG | LAYER);
    let is_wasm = wasm(config)
        || (matches!(config, EMPTY | OCI_CONFIG) && kind.is_none_or(wasm))
        || kind.is_some_and(wasm);
    let [layer] = &manifest.layers[..] else {
        return Err(no_plugin(what, &format!("it has {} layers", manifest.layers.len())));
    };
    if !is_wasm || !is_component(layer) {
        let shown: String = kind.unwrap_or(config).chars().take(100).collect();
        return Err(no_plugin(what, &format!("it is of the type {shown:?}")));
    }
    if layer.size > MAX_COMPONENT {
        return Err(Failure::new(
            FailureKind::Limit,
            format!("the component of {what} is larger than {} MiB", MAX_COMPONENT >> 20),
        ));
    }
    Ok(layer.clone())
}

fn is_component(layer: &Descriptor) -> bool {
    matches!(&*layer.media_type, LAYER | OLDER_LAYER)
}

/// The only entry that says it is for WebAssembly, or the only one at all that says nothing.
fn entry(index: &Index, what: &str) -> Result<Descriptor, Failure> {
    let manifests: Vec<_> = index.manifests.iter().filter(|one| one.is_manifest()).collect();
    let of_wasm = |one: &&&Descriptor| {
        let platform = one.platform.as_ref().map(|platform| &*platform.architecture);
        platform == Some("wasm") || one.extra.get("artifactType").is_some_and(|kind| kind == CONFIG)
    };
    let chosen: Vec<_> = manifests.iter().filter(of_wasm).collect();
    match (&chosen[..], &manifests[..]) {
        ([only], _) => Ok((**only).clone()),
        ([], [only]) if only.platform.is_none() => Ok((*only).clone()),
        ([], _) => Err(is_image(what)),
        _ => Err(no_plugin(what, "it is an index of several components")),
    }
}

fn is_image(what: &str) -> Failure {
    Failure::unsupported(format!("{what} is a container image, not a WebAssembly component")).hint(
        "frontends of BuildKit are programs in containers, which wbuild does not run; it runs \
             components, as `wbuild plugin publish` and `wkg oci push` put them into registries",
    )
}

fn no_plugin(what: &str, why: &str) -> Failure {
    let mut failure = Failure::unsupported(format!("{what} is no WebAssembly component"));
    failure.causes.push(why.to_owned());
    failure.hint("`wbuild plugin publish FILE oci://…` puts one into a registry")
}

/// An artifact to be pushed.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// Its config.
    pub config: Vec<u8>,
    /// Its manifest.
    pub manifest: Vec<u8>,
    /// The component's layer.
    pub layer: Descriptor,
}

/// What is written about a component.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Names of its imports.
    pub imports: &'a [String],
    /// Names of its exports.
    pub exports: &'a [String],
    /// What it says of itself in its section `wbuild:manifest`.
    pub said: Option<&'a Value>,
    /// When it was made.
    pub created: Timestamp,
}

impl Artifact {
    /// The artifact of a component. Same component, same artifact.
    pub fn new(component: &[u8], about: About<'_>) -> Artifact {
        let layer = Descriptor::of(LAYER, component);
        let config = json!({
            "created": about.created.to_string(),
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [layer.digest.to_string()],
            "component": { "exports": about.exports, "imports": about.imports },
        });
        let config = serde_json::to_vec(&config).expect("keys are strings, so it is JSON");
        let mut manifest =
            Manifest::new(MediaFamily::Oci, Descriptor::of(CONFIG, &config), vec![layer.clone()]);
        let annotations = annotations(about.said);
        manifest.annotations = (!annotations.is_empty()).then_some(annotations);
        Artifact { config, manifest: manifest.to_bytes(), layer }
    }

    /// Digest of the manifest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }
}

/// Annotations by what the component says of itself.
fn annotations(said: Option<&Value>) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for (key, annotation) in [
        ("name", "title"),
        ("version", "version"),
        ("licence", "licenses"),
        ("license", "licenses"),
        ("licenses", "licenses"),
        ("homepage", "url"),
        ("description", "description"),
    ] {
        let text = said.and_then(|said| said.get(key)).and_then(Value::as_str);
        if let Some(text) = text.filter(|text| text.len() <= 1024) {
            out.insert(format!("org.opencontainers.image.{annotation}"), text.to_owned());
        }
    }
    out
}

/// The manifest of a signature over the artifact that `subject` names, and the signature's layer.
pub fn signature(subject: &Descriptor, text: &str) -> (Vec<u8>, Descriptor) {
    let layer = Descriptor::of(SIGNATURE, text.as_bytes());
    let mut manifest =
        Manifest::new(MediaFamily::Oci, Descriptor::of(EMPTY, b"{}"), vec![layer.clone()]);
    manifest.extra = Map::from_iter([
        ("artifactType".to_owned(), Value::from(SIGNATURE)),
        ("subject".to_owned(), serde_json::to_value(subject).expect("a descriptor is JSON")),
    ]);
    (manifest.to_bytes(), layer)
}

/// How the manifest of a signature is listed beside the artifact.
pub fn referrer(manifest: &[u8]) -> Descriptor {
    let mut descriptor = Descriptor::of(OCI_MANIFEST, manifest);
    descriptor.extra.insert("artifactType".to_owned(), Value::from(SIGNATURE));
    descriptor
}

/// The layer of a manifest that is a signature over `subject`; none of another manifest.
pub fn signature_of(document: &Document, subject: &Digest) -> Option<Descriptor> {
    let Document::Manifest(manifest) = document else { return None };
    let named = manifest.extra.get("subject")?.get("digest")?.as_str()?;
    let [layer] = &manifest.layers[..] else { return None };
    let fits = named == subject.to_string()
        && layer.media_type == SIGNATURE
        && layer.size <= MAX_SIGNATURE;
    fits.then(|| layer.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &[u8]) -> Document {
        Document::decode(text, None, "x").expect("a document")
    }

    fn about<'a>(said: Option<&'a Value>) -> About<'a> {
        let created = "1970-01-01T00:00:00Z".parse().expect("a time");
        About { imports: &[], exports: &[], said, created }
    }

    #[test]
    fn what_is_written_is_found() {
        let said = json!({"name": "app", "version": "1.2", "licence": "MIT", "x": 1});
        let artifact = Artifact::new(b"\0asm", about(Some(&said)));
        assert_eq!(artifact, Artifact::new(b"\0asm", about(Some(&said))));
        let document = decode(&artifact.manifest);
        assert_eq!(find(&document, "x").expect("found"), Found::Component(artifact.layer.clone()));
        let Document::Manifest(manifest) = &document else { panic!("it is a manifest") };
        let annotations = manifest.annotations.as_ref().expect("some");
        assert_eq!(annotations["org.opencontainers.image.licenses"], "MIT");
        assert_eq!(annotations.len(), 3);
        let config: Value = serde_json::from_slice(&artifact.config).expect("JSON");
        assert_eq!(config["layerDigests"][0], artifact.layer.digest.to_string());
        assert_eq!(config["created"], "1970-01-01T00:00:00Z");

        let subject = Descriptor::of(OCI_MANIFEST, &artifact.manifest);
        let (bytes, layer) = signature(&subject, "signed");
        let document = decode(&bytes);
        assert_eq!(signature_of(&document, &subject.digest), Some(layer));
        assert_eq!(signature_of(&document, &Digest::of(b"another")), None);
        assert!(find(&document, "x").is_err(), "a signature is no plugin");
    }

    #[test]
    fn what_others_write() {
        let digest = Digest::of(b"x");
        let one = |kind: &str, size: u64| {
            format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}"#)
        };
        let manifest = |more: &str, config: &str, layers: &[&str]| {
            let layers: Vec<String> = layers.iter().map(|kind| one(kind, 1)).collect();
            let (config, layers) = (one(config, 2), layers.join(","));
            format!(r#"{{"schemaVersion":2,{more}"config":{config},"layers":[{layers}]}}"#)
        };
        let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
        for (text, says) in [
            (manifest("", CONFIG, &[LAYER]), ""),
            (
                manifest(
                    r#""artifactType":"application/vnd.wasm.config.v0+json","#,
                    EMPTY,
                    &[LAYER],
                ),
                "",
            ),
            (manifest(r#""artifactType":"application/wasm","#, EMPTY, &[LAYER]), ""),
            (manifest("", OLDER_CONFIG, &[OLDER_LAYER]), ""),
            (manifest("", OCI_CONFIG, &[gzip]), "is a container image"),
            (manifest("", OCI_CONFIG, &[]), "is a container image"),
            (manifest("", CONFIG, &[LAYER, LAYER]), "2 layers"),
            (manifest("", CONFIG, &[]), "0 layers"),
            (manifest("", CONFIG, &[gzip]), "is no WebAssembly"),
            (manifest("", "application/vnd.cncf.helm.config.v1+json", &[LAYER]), "helm"),
            (
                manifest("", CONFIG, &[LAYER]).replace(r#""size":1}"#, r#""size":33554433}"#),
                "32 MiB",
            ),
        ] {
            match find(&decode(text.as_bytes()), "x") {
                Ok(found) => {
                    assert!(says.is_empty() && matches!(found, Found::Component(_)), "{text}")
                }
                Err(failure) => {
                    assert!(
                        !says.is_empty() && failure.to_string().contains(says),
                        "{text}: {failure}"
                    );
                }
            }
        }
        let entry = |platform: &str| {
            let platform = match platform {
                "" => String::new(),
                name => format!(r#","platform":{{"os":"x","architecture":"{name}"}}"#),
            };
            format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":1{platform}}}"#)
        };
        for (platforms, found) in [
            (&["amd64", "wasm"][..], true),
            (&[""], true),
            (&["amd64"], false),
            (&["amd64", "arm64"], false),
            (&["wasm", "wasm"], false),
            (&[], false),
        ] {
            let entries: Vec<String> = platforms.iter().map(|name| entry(name)).collect();
            let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
            assert_eq!(find(&decode(text.as_bytes()), "x").is_ok(), found, "{platforms:?}");
        }
    }
}
