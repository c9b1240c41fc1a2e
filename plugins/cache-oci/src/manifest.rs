//! The manifest that stands for a cache: an OCI image manifest (image specification 1.1, "Guidelines for
//! Artifact Usage").
//!
//! ```text
//! artifactType   application/vnd.wbuild.cache.v1
//! config         the document of records (wbuild_cache::document)
//! layers         every layer that a record needs, so that no registry removes one; for a cache without
//!                layers the empty blob
//! ```

use serde_json::{Value, json};
use wbuild_cache::document::MEDIA_TYPE;
use wbuild_cache::{Hash, Layer};

/// What the artifact is.
pub const ARTIFACT: &str = "application/vnd.wbuild.cache.v1";
/// Type of the manifest itself.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Type of the blob `{}`, which stands for nothing.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Largest manifest, in bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// A blob that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Hash,
    /// In bytes.
    pub size: u64,
}

/// Writes a manifest. The order of the layers is the caller's.
pub fn write<'a>(
    document: &Blob,
    empty: Option<&Blob>,
    layers: impl IntoIterator<Item = &'a Layer>,
) -> Vec<u8> {
    let descriptor = |media_type: &str, digest: &Hash, size: u64| json!({"mediaType": media_type, "digest": digest.to_string(), "size": size});
    let layers = layers
        .into_iter()
        .map(|layer| descriptor(oci_type(&layer.media_type), &layer.digest, layer.size));
    let empty = empty.map(|blob| descriptor(EMPTY, &blob.digest, blob.size));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": descriptor(MEDIA_TYPE, &document.digest, document.size),
        "layers": layers.chain(empty).collect::<Vec<_>>(),
    });
    manifest.to_string().into_bytes()
}

/// A manifest has types of one family; registries refuse a mix. The record keeps the layer's own.
fn oci_type(media_type: &str) -> &str {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            "application/vnd.oci.image.layer.v1.tar+gzip"
        }
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
            "application/vnd.oci.image.layer.v1.tar+zstd"
        }
        other => other,
    }
}

/// The document of records that a manifest names; `None` if it is no cache of ours.
pub fn read(bytes: &[u8]) -> Option<Blob> {
    let manifest: Value = serde_json::from_slice(bytes).ok()?;
    if manifest["schemaVersion"] != 2 || manifest["artifactType"] != ARTIFACT {
        return None;
    }
    let config = &manifest["config"];
    if config["mediaType"] != MEDIA_TYPE {
        return None;
    }
    Some(Blob { digest: Hash::parse(config["digest"].as_str()?)?, size: config["size"].as_u64()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_is_pinned() {
        let document = Blob { digest: Hash([1; 32]), size: 7 };
        let layer = Layer {
            digest: Hash([2; 32]),
            size: 9,
            media_type: "application/vnd.docker.image.rootfs.diff.tar.gzip".into(),
            diff_id: None,
            uncompressed_size: None,
            attrs: Vec::new(),
        };
        let bytes = write(&document, None, [&layer]);
        let (one, two) = ("01".repeat(32), "02".repeat(32));
        assert_eq!(
            String::from_utf8(bytes.clone()).expect("text"),
            format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.wbuild.cache.v1","config":{{"mediaType":"application/vnd.wbuild.cache.records.v1","digest":"sha256:{one}","size":7}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:{two}","size":9}}]}}"#
            )
        );
        assert_eq!(read(&bytes), Some(document));
    }

    #[test]
    fn what_is_no_cache_is_not_read_as_one() {
        let good = write(&Blob { digest: Hash([1; 32]), size: 7 }, None, []);
        let good = String::from_utf8(good).expect("text");
        for (from, to) in [
            ("cache.v1\"", "cache.v2\""),
            ("records.v1", "records.v2"),
            ("\"size\":7", "\"size\":-7"),
            ("\"size\":7", "\"size\":\"7\""),
            ("sha256:01", "sha256:zz"),
            ("\"schemaVersion\":2", "\"schemaVersion\":1"),
            ("}", ""),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
        for other in ["", "{}", "[]", "null", r#"{"schemaVersion":2,"manifests":[]}"#] {
            assert_eq!(read(other.as_bytes()), None, "{other}");
        }
    }
}
