//! Images as values, read from OCI layouts and docker archives; every digest and size is checked.

use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::tree::Tree;

/// An image.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the manifest; none in docker archives.
    pub digest: Option<String>,
    /// Digest of the config; empty in docker archives.
    pub config_digest: String,
    /// What names it: annotations of the index, or repo tags.
    pub names: Vec<String>,
    /// The image config.
    pub config: Value,
    /// Media types of the layers, the lowest first.
    pub media_types: Vec<String>,
    /// Digests of the layers as stored.
    pub layers: Vec<String>,
    /// Paths of the entries of each layer, as they come.
    pub layer_entries: Vec<Vec<String>>,
    /// Bytes of the layers as stored.
    pub layer_bytes: u64,
    /// The files.
    pub tree: Tree,
}

impl Image {
    /// The only image of an OCI layout directory.
    pub fn of_layout(layout: &Path) -> Result<Image> {
        let mut images = Self::all_of_layout(layout)?;
        ensure!(images.len() == 1, "{} images in {}", images.len(), layout.display());
        Ok(images.remove(0))
    }

    /// The images of an OCI layout directory, with those of indexes in it.
    pub fn all_of_layout(layout: &Path) -> Result<Vec<Image>> {
        Self::read_layout(layout)
            .with_context(|| format!("cannot read the OCI layout {}", layout.display()))
    }

    /// The only image of an OCI layout in a tar archive.
    pub fn of_layout_tar(archive: &Path) -> Result<Image> {
        let folder = tempfile::tempdir_in(crate::scratch()?)?;
        unpack(archive, folder.path())?;
        Self::of_layout(folder.path())
    }

    fn read_layout(layout: &Path) -> Result<Vec<Image>> {
        let version: Value = serde_json::from_slice(&std::fs::read(layout.join("oci-layout"))?)?;
        ensure!(version["imageLayoutVersion"] == "1.0.0", "oci-layout holds {version}");
        let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json"))?)?;
        ensure!(index["schemaVersion"] == 2, "index.json holds {index}");
        let mut images = Vec::new();
        Self::read_index(layout, &index, &mut images)?;
        Ok(images)
    }

    fn read_index(layout: &Path, index: &Value, images: &mut Vec<Image>) -> Result<()> {
        let manifests = index["manifests"].as_array().context("an index has no manifests")?;
        for descriptor in manifests {
            if descriptor["mediaType"] == "application/vnd.oci.image.index.v1+json" {
                let nested: Value = serde_json::from_slice(&blob(layout, descriptor)?)?;
                Self::read_index(layout, &nested, images)?;
                continue;
            }
            let image = Self::read_manifest(layout, descriptor)?;
            for key in ["os", "architecture", "variant"] {
                let said = &descriptor["platform"][key];
                ensure!(
                    descriptor["platform"].is_null() || *said == image.config[key],
                    "the descriptor says {key} {said}, the config {}",
                    image.config[key]
                );
            }
            images.push(image);
        }
        Ok(())
    }

    fn read_manifest(layout: &Path, descriptor: &Value) -> Result<Image> {
        let manifest: Value = serde_json::from_slice(&blob(layout, descriptor)?)?;
        ensure!(
            manifest["mediaType"] == descriptor["mediaType"],
            "the manifest says {}, its descriptor {}",
            manifest["mediaType"],
            descriptor["mediaType"]
        );
        let config: Value = serde_json::from_slice(&blob(layout, &manifest["config"])?)?;
        let layers = manifest["layers"].as_array().context("a manifest without layers")?;
        let mut image = Image {
            digest: descriptor["digest"].as_str().map(str::to_owned),
            config_digest: text(&manifest["config"], "digest")?.to_owned(),
            names: ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
                .iter()
                .filter_map(|key| descriptor["annotations"][key].as_str().map(str::to_owned))
                .collect(),
            config,
            media_types: Vec::new(),
            layers: Vec::new(),
            layer_entries: Vec::new(),
            layer_bytes: 0,
            tree: Tree::default(),
        };
        let diff_ids = diff_ids(&image.config)?;
        ensure!(
            diff_ids.len() == layers.len(),
            "{} layers, {} diff ids",
            layers.len(),
            diff_ids.len()
        );
        let history = image.config["history"].as_array().map_or(&[][..], |list| &list[..]);
        let with_layer = history.iter().filter(|entry| entry["empty_layer"] != true).count();
        ensure!(
            history.is_empty() || with_layer == layers.len(),
            "{} layers, but history knows of {with_layer}",
            layers.len()
        );
        for (layer, diff_id) in layers.iter().zip(&diff_ids) {
            let media_type = text(layer, "mediaType")?;
            let stored = blob(layout, layer)?;
            image.layer_bytes += stored.len() as u64;
            image.layers.push(text(layer, "digest")?.to_owned());
            let plain = decompress(media_type, stored)?;
            ensure!(sha256(&plain) == *diff_id, "a layer's content is not its diff id {diff_id}");
            let entries = image.tree.apply_layer(&plain[..]);
            image.layer_entries.push(entries.with_context(|| format!("layer {diff_id}"))?);
            image.media_types.push(media_type.to_owned());
        }
        Ok(image)
    }

    /// The only image of a `docker save` archive.
    pub fn of_docker_tar(archive: &Path) -> Result<Image> {
        let mut images = Self::all_of_docker_tar(archive)?;
        ensure!(images.len() == 1, "{} images in {}", images.len(), archive.display());
        Ok(images.remove(0))
    }

    /// The images of a `docker save` archive.
    pub fn all_of_docker_tar(archive: &Path) -> Result<Vec<Image>> {
        let folder = tempfile::tempdir_in(crate::scratch()?)?;
        unpack(archive, folder.path())?;
        let manifest = std::fs::read(folder.path().join("manifest.json"))?;
        let manifest: Value = serde_json::from_slice(&manifest)?;
        let entries = manifest.as_array().context("manifest.json is no list")?;
        entries.iter().map(|entry| Self::of_docker_entry(folder.path(), entry)).collect()
    }

    fn of_docker_entry(folder: &Path, entry: &Value) -> Result<Image> {
        let read =
            |name: &str| std::fs::read(folder.join(name)).with_context(|| format!("no {name}"));
        let config: Value = serde_json::from_slice(&read(text(entry, "Config")?)?)?;
        let mut image = Image {
            digest: None,
            config_digest: String::new(),
            names: strings(&entry["RepoTags"]),
            config,
            media_types: Vec::new(),
            layers: Vec::new(),
            layer_entries: Vec::new(),
            layer_bytes: 0,
            tree: Tree::default(),
        };
        let layers = strings(&entry["Layers"]);
        let diff_ids = diff_ids(&image.config)?;
        ensure!(
            diff_ids.len() == layers.len(),
            "{} layers, {} diff ids",
            layers.len(),
            diff_ids.len()
        );
        for (layer, diff_id) in layers.iter().zip(&diff_ids) {
            let stored = read(layer)?;
            image.layer_bytes += stored.len() as u64;
            let gzip = stored.starts_with(&[0x1f, 0x8b]);
            let plain = decompress(if gzip { "+gzip" } else { "" }, stored)?;
            ensure!(sha256(&plain) == *diff_id, "a layer's content is not its diff id {diff_id}");
            let entries = image.tree.apply_layer(&plain[..]);
            image.layer_entries.push(entries.with_context(|| format!("layer {diff_id}"))?);
        }
        Ok(image)
    }

    /// What of the config is the same wherever and whenever the image is built: no times, no
    /// digests, no platform. Keys sorted.
    pub fn lasting_config(&self) -> Value {
        let history = self.config["history"].as_array().map_or(&[][..], |list| &list[..]);
        let history: Vec<Value> = history
            .iter()
            .map(|entry| {
                let mut kept = Map::new();
                for (key, value) in entry.as_object().into_iter().flatten() {
                    if key != "created" {
                        kept.insert(key.clone(), value.clone());
                    }
                }
                Value::Object(kept)
            })
            .collect();
        let mut lasting = json!({
            "config": self.config["config"],
            "history": history,
            "layers": diff_ids(&self.config).map_or(0, |ids| ids.len()),
        });
        for (key, value) in self.config.as_object().into_iter().flatten() {
            let of_a_build =
                ["architecture", "os", "variant", "created", "rootfs", "history", "config"];
            if !of_a_build.contains(&key.as_str()) {
                lasting[key] = value.clone();
            }
        }
        sorted(lasting)
    }
}

/// The same value with the keys of objects in order.
pub fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().map(|(k, v)| (k, sorted(v))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// `sha256:…` of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Unpacks a tar archive of a layout: plain files and directories.
pub fn unpack(archive: &Path, into: &Path) -> Result<()> {
    let file = std::fs::File::open(archive)
        .with_context(|| format!("cannot open {}", archive.display()))?;
    tar::Archive::new(file)
        .unpack(into)
        .with_context(|| format!("cannot unpack {}", archive.display()))
}

fn diff_ids(config: &Value) -> Result<Vec<String>> {
    ensure!(config["rootfs"]["type"] == "layers", "the config's rootfs is {}", config["rootfs"]);
    Ok(strings(&config["rootfs"]["diff_ids"]))
}

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().map_or(&[][..], |list| &list[..]);
    list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("no {key} in {value}"))
}

/// A blob, checked against its descriptor.
fn blob(layout: &Path, descriptor: &Value) -> Result<Vec<u8>> {
    let digest = text(descriptor, "digest")?;
    let hex = digest.strip_prefix("sha256:").with_context(|| format!("the digest {digest}"))?;
    let path = layout.join("blobs/sha256").join(hex);
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(descriptor["size"] == bytes.len(), "{digest} is {} bytes long", bytes.len());
    ensure!(sha256(&bytes) == digest, "the content of {digest} is something else");
    Ok(bytes)
}

fn decompress(media_type: &str, stored: Vec<u8>) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    if media_type.ends_with("+gzip") || media_type.ends_with(".gzip") {
        flate2::read::MultiGzDecoder::new(&stored[..]).read_to_end(&mut plain)?;
    } else if media_type.ends_with("+zstd") {
        plain = zstd::decode_all(&stored[..])?;
    } else {
        plain = stored;
    }
    Ok(plain)
}
