//! Media types, descriptors, manifests and indexes.
//!
//! OCI image specification 1.1 (descriptor.md, manifest.md, image-index.md) and Docker's schema 2
//! (manifest-v2-2.md), which is accepted on reading. Invariants of what [`Document::decode`] lets
//! through: at most [`MAX_MANIFEST`] bytes, schema version 2, either a manifest or an index and never
//! both, no key twice, sizes in 0..=i64::MAX, only sha256 digests, and a media type that fits the
//! shape. Fields we do not know are kept and written again.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use wbuild_graph::{Digest, Platform};

use crate::error::{Error, ErrorKind, Result};

/// Largest manifest or index that is read, in bytes (the limit registries use).
pub const MAX_MANIFEST: u64 = 4 << 20;
/// Largest image config that is read, in bytes.
pub const MAX_CONFIG: u64 = wbuild_graph::op::IMAGE_CONFIG_BYTES;
/// Most layers of one image.
pub const MAX_LAYERS: usize = 1_000;
/// Most layers of one artifact: a manifest whose config is none of an image (manifest.md, "Guidelines
/// for Artifact Usage").
pub const MAX_ARTIFACT_LAYERS: usize = 10_000;
/// Most entries of one index.
pub const MAX_INDEX_ENTRIES: usize = 10_000;

/// Most platforms that a message lists.
const MAX_OFFERED: usize = 50;

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, plain tar.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, tar with gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, tar with zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker layer, plain tar.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker layer, tar with gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker layer, tar with zstd.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";

/// Annotation of an `index.json` entry: the tag (image-layout.md, annotations.md).
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation of an `index.json` entry: the full name, as containerd writes it.
pub const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";

/// Media types asked for when a manifest is fetched, best first.
pub const ACCEPT_MANIFESTS: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// zstd (RFC 8878).
    Zstd,
}

impl Compression {
    /// The OCI media type of a layer compressed this way.
    pub const fn oci_layer(self) -> &'static str {
        match self {
            Compression::None => OCI_LAYER,
            Compression::Gzip => OCI_LAYER_GZIP,
            Compression::Zstd => OCI_LAYER_ZSTD,
        }
    }

    /// The Docker media type of a layer compressed this way.
    pub const fn docker_layer(self) -> &'static str {
        match self {
            Compression::None => DOCKER_LAYER,
            Compression::Gzip => DOCKER_LAYER_GZIP,
            Compression::Zstd => DOCKER_LAYER_ZSTD,
        }
    }

    /// The compression a layer's media type announces; `None` where it is no layer type we know.
    /// Non-distributable and foreign layers count as layers.
    pub fn of_media_type(media_type: &str) -> Option<Compression> {
        match media_type {
            OCI_LAYER
            | DOCKER_LAYER
            | "application/vnd.oci.image.layer.nondistributable.v1.tar" => Some(Compression::None),
            OCI_LAYER_GZIP
            | DOCKER_LAYER_GZIP
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
                Some(Compression::Gzip)
            }
            OCI_LAYER_ZSTD
            | DOCKER_LAYER_ZSTD
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd" => {
                Some(Compression::Zstd)
            }
            _ => None,
        }
    }
}

/// Whether registries may hold a layer of this type: publishers keep some to themselves.
pub fn is_distributable(media_type: &str) -> bool {
    !media_type.contains("foreign") && !media_type.contains("nondistributable")
}

/// Which family of media types an image is written with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MediaFamily {
    /// OCI image specification.
    #[default]
    Oci,
    /// Docker schema 2.
    Docker,
}

impl MediaFamily {
    /// Type of a manifest.
    pub const fn manifest(self) -> &'static str {
        match self {
            MediaFamily::Oci => OCI_MANIFEST,
            MediaFamily::Docker => DOCKER_MANIFEST,
        }
    }

    /// Type of an index.
    pub const fn index(self) -> &'static str {
        match self {
            MediaFamily::Oci => OCI_INDEX,
            MediaFamily::Docker => DOCKER_LIST,
        }
    }

    /// Type of an image config.
    pub const fn config(self) -> &'static str {
        match self {
            MediaFamily::Oci => OCI_CONFIG,
            MediaFamily::Docker => DOCKER_CONFIG,
        }
    }

    /// This family's type for a layer of `media_type`. Foreign layers and types we do not know stay
    /// what they are.
    pub fn layer(self, media_type: &str) -> String {
        match Compression::of_media_type(media_type) {
            Some(compression) if is_distributable(media_type) => match self {
                MediaFamily::Oci => compression.oci_layer(),
                MediaFamily::Docker => compression.docker_layer(),
            }
            .to_owned(),
            _ => media_type.to_owned(),
        }
    }
}

/// The platform of a descriptor, as written there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DescriptorPlatform {
    /// CPU architecture, Go's names.
    pub architecture: String,
    /// Operating system, Go's names.
    pub os: String,
    /// Operating system version.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Required features.
    #[serde(default, rename = "os.features", skip_serializing_if = "Option::is_none")]
    pub os_features: Option<Vec<String>>,
    /// Variant of the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Fields we do not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl DescriptorPlatform {
    /// The normalised platform.
    pub fn normalised(&self) -> Platform {
        let mut platform = Platform::new(&self.os, &self.architecture, self.variant.as_deref());
        platform.os_version = self.os_version.clone().filter(|v| !v.is_empty());
        platform.os_features = self.os_features.clone().unwrap_or_default();
        platform
    }
}

impl From<&Platform> for DescriptorPlatform {
    fn from(platform: &Platform) -> Self {
        DescriptorPlatform {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            os_version: platform.os_version.clone(),
            os_features: (!platform.os_features.is_empty()).then(|| platform.os_features.clone()),
            variant: platform.variant.clone(),
            extra: Map::new(),
        }
    }
}

/// Points to a blob: what it is, which bytes, how many (descriptor.md).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the blob.
    pub media_type: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Number of its bytes, at most `i64::MAX`.
    #[serde(deserialize_with = "size")]
    pub size: u64,
    /// Where else it may be downloaded; never followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
    /// Arbitrary metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Platform of an index entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    /// Fields we do not know or do not use.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let size = u64::deserialize(deserializer)?;
    if i64::try_from(size).is_err() {
        return Err(serde::de::Error::custom("size exceeds 2^63 - 1"));
    }
    Ok(size)
}

impl Descriptor {
    /// A descriptor with nothing but the required fields.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            urls: None,
            annotations: None,
            platform: None,
            extra: Map::new(),
        }
    }

    /// The descriptor of `bytes`.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// The same with a platform.
    #[must_use]
    pub fn with_platform(mut self, platform: &Platform) -> Self {
        self.platform = Some(platform.into());
        self
    }

    /// The same with one more annotation.
    #[must_use]
    pub fn annotate(mut self, key: &str, value: impl Into<String>) -> Self {
        self.annotations.get_or_insert_default().insert(key.to_owned(), value.into());
        self
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether it names an index (or manifest list).
    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | DOCKER_LIST)
    }

    /// Whether it names an image manifest.
    pub fn is_manifest(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST)
    }

    /// Whether it is an attestation rather than an image: it would not run anywhere.
    pub fn is_attestation(&self) -> bool {
        self.annotation("vnd.docker.reference.type").is_some()
            || self.platform.as_ref().is_some_and(|p| p.os == "unknown")
    }

    /// The blob itself, where the descriptor carries it (descriptor.md, `data`) and it is what digest
    /// and size say. For small blobs: descriptors come in documents that have a limit.
    pub fn inline(&self) -> Option<Vec<u8>> {
        let text = self.extra.get("data")?.as_str()?;
        let bytes = STANDARD.decode(text).ok()?;
        self.verify("", &bytes).is_ok().then_some(bytes)
    }

    /// Checks that `bytes` are the blob this descriptor names.
    pub fn verify(&self, what: &str, bytes: &[u8]) -> Result<()> {
        let digest = Digest::of(bytes);
        if bytes.len() as u64 != self.size || digest != self.digest {
            return Err(mismatch(what, self, bytes.len() as u64, digest));
        }
        Ok(())
    }
}

pub(crate) fn mismatch(what: &str, want: &Descriptor, size: u64, digest: Digest) -> Error {
    let message = if size == want.size {
        format!("{what} has the digest {digest} instead of {}", want.digest)
    } else {
        format!("{what} has {size} bytes instead of {} ({})", want.size, want.digest)
    };
    Error::new(ErrorKind::Mismatch, message)
}

/// One image for one platform (manifest.md).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u32,
    /// Media type, where the document says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
    /// Arbitrary metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Fields we do not know or do not use.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Manifest {
    /// Whether it is an image's, rather than one of something else that is kept in registries.
    pub fn is_image(&self) -> bool {
        matches!(self.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG)
            && !self.extra.contains_key("artifactType")
    }

    /// A manifest of `family`; the types of config and layers are brought into the same family, as
    /// registries refuse a mix.
    pub fn new(family: MediaFamily, mut config: Descriptor, mut layers: Vec<Descriptor>) -> Self {
        if matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            config.media_type = family.config().to_owned();
        }
        for layer in &mut layers {
            layer.media_type = family.layer(&layer.media_type);
        }
        Manifest {
            schema_version: 2,
            media_type: Some(family.manifest().to_owned()),
            config,
            layers,
            annotations: None,
            extra: Map::new(),
        }
    }

    /// The bytes to store or send. Same value, same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has string keys only")
    }
}

/// Images by platform (image-index.md).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    schema_version: u32,
    /// Media type, where the document says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The entries.
    pub manifests: Vec<Descriptor>,
    /// Arbitrary metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Fields we do not know or do not use.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Index {
    /// An index of `family` over `manifests`.
    pub fn new(family: MediaFamily, manifests: Vec<Descriptor>) -> Self {
        Index {
            schema_version: 2,
            media_type: Some(family.index().to_owned()),
            manifests,
            annotations: None,
            extra: Map::new(),
        }
    }

    /// The bytes to store or send. Same value, same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an index has string keys only")
    }

    /// The entry that suits `wanted` best (the first of equals). Attestations are passed over; an
    /// entry that names no platform is taken only where no other suits and it is the only such entry.
    /// `what` names the index in the error, which lists what there is.
    pub fn choose(&self, wanted: &Platform, what: &str) -> Result<&Descriptor> {
        let mut best: Option<(u32, &Descriptor)> = None;
        let mut unnamed = Vec::new();
        let mut offered = Vec::new();
        let images = self.manifests.iter().filter(|d| d.is_manifest() || d.is_index());
        for descriptor in images.filter(|d| !d.is_attestation()) {
            let Some(platform) = &descriptor.platform else {
                unnamed.push(descriptor);
                continue;
            };
            let platform = platform.normalised();
            if let Some(rank) = platform.rank_for(wanted)
                && best.is_none_or(|(r, _)| rank < r)
            {
                best = Some((rank, descriptor));
            }
            // Said by whoever made the index: it is to be one word of a line.
            let name = platform.to_string().replace(|c: char| c.is_control(), "\u{fffd}");
            if !offered.contains(&name) {
                offered.push(name);
            }
        }
        if let Some((_, descriptor)) = best {
            return Ok(descriptor);
        }
        if let [only] = unnamed[..] {
            return Ok(only);
        }
        let message = format!("{what} has no image for {wanted}");
        let error = Error::new(ErrorKind::NotFound, message);
        let more = offered.len().saturating_sub(MAX_OFFERED);
        if more > 0 {
            offered.truncate(MAX_OFFERED);
            offered.push(format!("{more} more"));
        }
        Err(if offered.is_empty() {
            error.hint("it holds no image that names a platform")
        } else {
            error.hint(format!("it has {}; choose one with --platform", offered.join(", ")))
        })
    }
}

/// What a manifest request can yield.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // A handful exist at a time, and not for long.
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Images by platform.
    Index(Index),
}

impl Document {
    /// Decodes a manifest or index. `media_type` is what the descriptor or the server said it is;
    /// `what` names it in errors.
    pub fn decode(bytes: &[u8], media_type: Option<&str>, what: &str) -> Result<Document> {
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(Error::limit(format!("{what} is larger than {MAX_MANIFEST} bytes")));
        }
        let bad =
            |reason: String| Error::invalid(format!("{what} is not a valid manifest: {reason}"));
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape {
            schema_version: Option<u64>,
            media_type: Option<String>,
            config: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
            manifests: Option<serde::de::IgnoredAny>,
            fs_layers: Option<serde::de::IgnoredAny>,
        }
        let shape: Shape = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        if shape.schema_version == Some(1) {
            let message = format!("{what} is a manifest of Docker's schema 1");
            return Err(
                Error::unsupported(message).hint("push the image again with a current tool")
            );
        }
        if shape.schema_version != Some(2) {
            return Err(bad("schemaVersion is not 2".to_owned()));
        }
        // A document that reads as an image for one tool and as an index for another is an attack,
        // whatever its media type says.
        let is_image = shape.config.is_some() || shape.layers.is_some();
        let is_index = shape.manifests.is_some();
        if is_image && is_index || shape.fs_layers.is_some() {
            return Err(bad("it is both an image and an index".to_owned()));
        }
        let claims = [(media_type, true), (shape.media_type.as_deref(), false)];
        for (said, from_outside) in claims {
            let Some(said) = said else { continue };
            let index = match said.split(';').next().unwrap_or_default().trim() {
                OCI_MANIFEST | DOCKER_MANIFEST => false,
                OCI_INDEX | DOCKER_LIST => true,
                // Servers that do not know the type answer with a general one.
                "application/json" | "text/plain" | "application/octet-stream" if from_outside => {
                    continue;
                }
                other => {
                    let other: String = other.chars().take(100).collect();
                    return Err(Error::unsupported(format!("{what} has the media type {other:?}")));
                }
            };
            if index != is_index {
                return Err(bad(format!("its content is not what the media type {said} says")));
            }
        }
        if is_index {
            let index: Index = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
            if index.manifests.len() > MAX_INDEX_ENTRIES {
                return Err(Error::limit(format!(
                    "{what} has more than {MAX_INDEX_ENTRIES} entries"
                )));
            }
            return Ok(Document::Index(index));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        let image = matches!(manifest.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG);
        let most = if image { MAX_LAYERS } else { MAX_ARTIFACT_LAYERS };
        if manifest.layers.len() > most {
            return Err(Error::limit(format!("{what} has more than {most} layers")));
        }
        Ok(Document::Manifest(manifest))
    }

    /// The media type: what the document says, else the OCI one of its shape.
    pub fn media_type(&self) -> &str {
        match self {
            Document::Manifest(m) => m.media_type.as_deref().unwrap_or(OCI_MANIFEST),
            Document::Index(i) => i.media_type.as_deref().unwrap_or(OCI_INDEX),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn descriptor(media_type: &str) -> String {
        let digest = Digest::of(b"x");
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":1}}"#)
    }

    fn image() -> String {
        let (config, layer) = (descriptor(OCI_CONFIG), descriptor(OCI_LAYER_GZIP));
        format!(
            r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}],"x-kept":{{"a":[1]}}}}"#
        )
    }

    #[test]
    fn keeps_unknown_fields() {
        let text = image();
        let Document::Manifest(manifest) =
            Document::decode(text.as_bytes(), None, "m").expect("valid")
        else {
            panic!("not an index")
        };
        assert_eq!(String::from_utf8(manifest.to_bytes()).expect("utf-8"), text);
    }

    #[test]
    fn refuses_ambiguous_and_malformed_documents() {
        let image = image();
        let entry = descriptor(OCI_MANIFEST);
        let config = descriptor(OCI_CONFIG);
        let digest = Digest::of(b"x");
        let cases = [
            ("both", image.replacen('{', r#"{"manifests":[],"#, 1), None),
            (
                "index said to be image",
                format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#),
                Some(OCI_MANIFEST),
            ),
            ("image said to be index", image.clone(), Some(OCI_INDEX)),
            (
                "inner type lies",
                image.replacen('{', &format!(r#"{{"mediaType":"{OCI_INDEX}","#), 1),
                None,
            ),
            ("unknown type", image.replacen('{', r#"{"mediaType":"text/html","#, 1), None),
            (
                "inner type too general",
                image.replacen('{', r#"{"mediaType":"application/json","#, 1),
                None,
            ),
            ("key twice", image.replacen('{', &format!(r#"{{"config":{config},"#), 1), None),
            ("schema 1", r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), None),
            ("no schema", r#"{"manifests":[]}"#.to_owned(), None),
            ("nothing", r#"{"schemaVersion":2}"#.to_owned(), None),
            ("negative size", image.replace(r#""size":1"#, r#""size":-1"#), None),
            ("size past i64", image.replace(r#""size":1"#, r#""size":9223372036854775808"#), None),
            ("fractional size", image.replace(r#""size":1"#, r#""size":1.5"#), None),
            ("sha512", image.replace("sha256:", "sha512:"), None),
            ("short digest", image.replace(&digest.hex(), "abcd"), None),
            ("array", "[]".to_owned(), None),
            ("deep", "[".repeat(100_000), None),
            ("not json", "x".to_owned(), None),
            ("trailing", format!("{image}x"), None),
        ];
        for (name, text, media_type) in cases {
            assert!(
                Document::decode(text.as_bytes(), media_type, "it").is_err(),
                "{name} must be refused"
            );
        }
        let huge = vec![b' '; MAX_MANIFEST as usize + 1];
        assert_eq!(
            Document::decode(&huge, None, "it").expect_err("too large").kind(),
            ErrorKind::Limit
        );
    }

    #[test]
    fn accepts_docker_types_and_general_content_types() {
        let image = image();
        assert!(
            Document::decode(image.as_bytes(), Some("application/json; charset=utf-8"), "m")
                .is_ok()
        );
        assert!(Document::decode(image.as_bytes(), Some("text/html"), "m").is_err());
        let docker = image.replacen('{', &format!(r#"{{"mediaType":"{DOCKER_MANIFEST}","#), 1);
        let document =
            Document::decode(docker.as_bytes(), Some(DOCKER_MANIFEST), "m").expect("docker");
        assert_eq!(document.media_type(), DOCKER_MANIFEST);
    }

    #[test]
    fn chooses_by_platform() {
        let entry = |platform: &str, n: u8| {
            let descriptor = Descriptor::of(OCI_MANIFEST, &[n]);
            match platform {
                "" => descriptor,
                "attestation" => {
                    let mut d = descriptor.with_platform(&Platform::new("linux", "amd64", None));
                    d = d.annotate("vnd.docker.reference.type", "attestation-manifest");
                    d
                }
                other => descriptor.with_platform(&other.parse().expect("platform")),
            }
        };
        let p = |text: &str| text.parse::<Platform>().expect("platform");
        let index = Index::new(
            MediaFamily::Oci,
            vec![
                entry("attestation", 0),
                entry("linux/arm/v6", 1),
                entry("linux/amd64", 2),
                entry("linux/arm/v7", 3),
                entry("linux/amd64/v3", 4),
                entry("linux/amd64", 5),
            ],
        );
        for (wanted, n) in [
            ("linux/amd64", 2),
            ("linux/amd64/v2", 2),
            ("linux/amd64/v3", 4),
            ("linux/arm", 3),
            ("linux/arm/v6", 1),
        ] {
            let chosen = index.choose(&p(wanted), "it").expect(wanted);
            assert_eq!(chosen.digest, Digest::of(&[n]), "{wanted}");
        }
        let error = index.choose(&p("linux/s390x"), "docker.io/library/x:1").expect_err("absent");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), "docker.io/library/x:1 has no image for linux/s390x");
        let failure = wbuild_graph::Failure::from(error);
        assert!(
            failure.hints[0].contains("linux/arm/v6, linux/amd64, linux/arm/v7, linux/amd64/v3;")
        );
        let mut evil = entry("linux/arm64", 9);
        evil.platform.as_mut().expect("given").architecture = "x\nhint: do it\u{1b}[31m".to_owned();
        let evil = Index::new(MediaFamily::Oci, vec![evil]);
        let error = evil.choose(&p("linux/s390x"), "it").expect_err("absent");
        let failure = wbuild_graph::Failure::from(error);
        assert!(!failure.hints[0].contains(char::is_control), "{:?}", failure.hints);
        let unnamed = Index::new(MediaFamily::Oci, vec![entry("", 7)]);
        assert!(unnamed.choose(&p("linux/s390x"), "it").is_ok());
        let two = Index::new(MediaFamily::Oci, vec![entry("", 7), entry("", 8)]);
        assert!(two.choose(&p("linux/s390x"), "it").is_err());
    }

    #[test]
    fn a_family_is_never_mixed() {
        let config = Descriptor::of(DOCKER_CONFIG, b"{}");
        let layers = vec![
            Descriptor::of(DOCKER_LAYER_GZIP, b"a"),
            Descriptor::of(OCI_LAYER_ZSTD, b"b"),
            Descriptor::of("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"c"),
        ];
        let manifest = Manifest::new(MediaFamily::Oci, config, layers);
        assert_eq!(manifest.config.media_type, OCI_CONFIG);
        let types: Vec<&str> = manifest.layers.iter().map(|l| l.media_type.as_str()).collect();
        assert_eq!(
            types,
            [
                OCI_LAYER_GZIP,
                OCI_LAYER_ZSTD,
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
            ]
        );
    }

    proptest! {
        #[test]
        fn decode_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::decode(&bytes, None, "it");
        }

        #[test]
        fn decode_of_a_damaged_image_never_panics(at in 0usize..200, byte in any::<u8>()) {
            let mut bytes = image().into_bytes();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(Document::Manifest(manifest)) = Document::decode(&bytes, None, "it") {
                // What was let through is written and read again as the same value.
                let again = Document::decode(&manifest.to_bytes(), None, "it").expect("own output");
                prop_assert_eq!(again, Document::Manifest(manifest));
            }
        }
    }
}
