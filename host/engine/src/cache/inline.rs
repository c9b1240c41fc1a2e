//! Records within an image's config (`type=inline`): which keys lead to how many of its layers.
//!
//! ```json
//! "wbuild.cache.v1": {
//!   "layers":  [{"image": "docker.io/library/busybox:latest@sha256:…"}, {"content-digest": "sha256:…"}],
//!   "records": [{"key": "sha256:…", "layers": 2}]
//! }
//! ```
//!
//! `layers` says of each layer of the image what a cache elsewhere says of it beside its descriptor.
//! A record's result is the first so many layers. Only definition keys are in it, since they follow
//! from the build alone: the same build gives the same config. A later build finds the records by the
//! image's name; what its layers are is then said by its manifest and its list of diff ids.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::{join_all, try_join_all};
use serde::{Deserialize, Serialize};
use wbuild_api::extension::{CacheBackend, LayerDescriptor, RecordEntry};
use wbuild_api::request::CacheSpec;
use wbuild_graph::{Attrs, CacheKey, Failure, FailureKind, ResultId};
use wbuild_oci::ErrorKind;
use wbuild_oci::config::{CACHE_KEY, ImageConfig};
use wbuild_oci::media::{Descriptor, Document, MAX_CONFIG, Manifest};
use wbuild_oci::reference::Reference;
use wbuild_oci::registry::Client;
use wbuild_store::Store;

use super::entries;
use super::grants::Grants;
use crate::source::registry;

/// The most images of one index that are looked at.
const IMAGES: usize = 32;

/// What is kept in a config.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Inline {
    /// Of each layer of the image, bottom first.
    pub(crate) layers: Vec<BTreeMap<String, String>>,
    pub(crate) records: Vec<InlineRecord>,
}

/// One record.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InlineRecord {
    key: String,
    layers: usize,
}

impl Inline {
    /// Takes up a record whose result is the first layers of the image.
    pub(crate) fn add(&mut self, key: CacheKey, layers: Vec<Attrs>) {
        self.records.push(InlineRecord { key: key.to_string(), layers: layers.len() });
        let more = layers.into_iter().skip(self.layers.len());
        self.layers.extend(more.map(|attrs| attrs.0.into_iter().collect::<BTreeMap<_, _>>()));
    }

    /// The records of an image with these layers.
    fn entries(&self, layers: &[LayerDescriptor]) -> Vec<RecordEntry> {
        let described = layers.iter().zip(&self.layers).map(|(layer, said)| {
            let attrs = said.iter().map(|(key, value)| (key.clone(), value.clone()));
            LayerDescriptor { attrs: Attrs(attrs.collect()), ..layer.clone() }
        });
        let described: Vec<LayerDescriptor> = described.collect();
        let entry = |record: &InlineRecord| {
            let key: CacheKey = record.key.parse().ok()?;
            let layers = described.get(..record.layers)?.to_vec();
            let mut attrs = Attrs::default();
            attrs.push(entries::KIND, entries::RESULT);
            let id = ResultId(*key.digest());
            // When it was made is not said; it is the image's, whenever that was.
            Some(RecordEntry { keys: vec![key], id, layers, created: u64::MAX, attrs })
        };
        self.records.iter().filter_map(entry).collect()
    }
}

/// The records within the image that an import names; none if it names no image.
pub(super) async fn find(
    grants: &Grants,
    spec: &CacheSpec,
) -> Result<Option<Arc<dyn CacheBackend>>, Failure> {
    let Some(name) = spec.attrs.get("ref").filter(|_| spec.backend == "registry") else {
        return Ok(None);
    };
    let (reference, client) = (name.parse::<Reference>()?, grants.client(spec));
    let root = match client.manifest(&reference).await {
        Ok(root) => root,
        // The backend says so.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let manifests: Vec<Manifest> = match root.document {
        Document::Manifest(manifest) => vec![manifest],
        Document::Index(index) => {
            let of = index.manifests.iter().filter(|d| d.is_manifest()).take(IMAGES);
            let fetched = try_join_all(of.map(|found| client.manifest_of(&reference, found)));
            let documents = fetched.await?.into_iter().map(|fetched| fetched.document);
            let manifest = |document| match document {
                Document::Manifest(manifest) => Some(manifest),
                Document::Index(_) => None,
            };
            documents.filter_map(manifest).collect()
        }
    };
    let images = manifests.iter().filter(|manifest| manifest.is_image());
    let all = try_join_all(images.map(|image| records(&client, &reference, image))).await?;
    if all.is_empty() {
        return Ok(None);
    }
    if all.iter().all(Option::is_none) {
        let message = format!("{} is an image without a cache in it", reference.familiar());
        return Err(Failure::not_found(message)
            .hint("one is put there by --cache-to type=inline, when the image is built"));
    }
    let mut known: HashMap<CacheKey, Vec<RecordEntry>> = HashMap::new();
    for entry in all.into_iter().flatten().flatten() {
        known.entry(entry.keys[0]).or_default().push(entry);
    }
    let store = grants.store.clone();
    Ok(Some(Arc::new(ImageRecords { known, client, reference, store })))
}

/// What an image's config says; none if it has no records.
async fn records(
    client: &Client,
    reference: &Reference,
    manifest: &Manifest,
) -> Result<Option<Vec<RecordEntry>>, Failure> {
    if manifest.config.size > MAX_CONFIG {
        let message = format!("the config of {} is too large", reference.familiar());
        return Err(Failure::new(FailureKind::Limit, message));
    }
    let config = client.blob_bytes(reference, &manifest.config).await?;
    let what = format!("the config of {}", reference.familiar());
    let config = ImageConfig::decode(&config, &what)?;
    let Some(said) = config.root().get(CACHE_KEY) else { return Ok(None) };
    let inline = Inline::deserialize(said).map_err(|error| {
        Failure::invalid(format!("the cache in {} cannot be read", reference.familiar()))
            .cause(&error)
    })?;
    if manifest.layers.len() != config.diff_ids().len() {
        return Err(Failure::invalid(format!(
            "{what} has another number of layers than the image"
        )));
    }
    let layers =
        manifest.layers.iter().zip(config.diff_ids()).map(|(layer, diff_id)| LayerDescriptor {
            media_type: layer.media_type.clone(),
            digest: layer.digest,
            size: layer.size,
            diff_id: Some(*diff_id),
            uncompressed_size: None,
            attrs: Attrs::default(),
        });
    Ok(Some(inline.entries(&layers.collect::<Vec<_>>())))
}

/// An image that is read like a cache backend.
struct ImageRecords {
    known: HashMap<CacheKey, Vec<RecordEntry>>,
    client: Client,
    reference: Reference,
    store: Store,
}

fn only_read<T>() -> Result<T, Failure> {
    Err(Failure::unsupported("the cache in an image is written with the image"))
}

#[async_trait]
impl CacheBackend for ImageRecords {
    async fn open(&self, _: String, _: Attrs) -> Result<(), Failure> {
        Ok(())
    }

    async fn find(&self, keys: Vec<CacheKey>) -> Result<Vec<Vec<RecordEntry>>, Failure> {
        Ok(keys.iter().map(|key| self.known.get(key).cloned().unwrap_or_default()).collect())
    }

    async fn fetch(
        &self,
        layers: Vec<LayerDescriptor>,
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        let fetches = layers.iter().map(|layer| async {
            let blob = Descriptor::new(layer.media_type.clone(), layer.digest, layer.size);
            registry::fetch(&self.client, &self.reference, &blob, &self.store, &|_| {}).await
        });
        Ok(join_all(fetches).await)
    }

    async fn save(&self, _: Vec<RecordEntry>) -> Result<(), Failure> {
        only_read()
    }

    async fn push(&self, _: Vec<LayerDescriptor>) -> Result<Vec<Result<(), Failure>>, Failure> {
        only_read()
    }

    async fn commit(&self) -> Result<Attrs, Failure> {
        only_read()
    }

    async fn prune(&self, _: Attrs) -> Result<Attrs, Failure> {
        only_read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wbuild_graph::{DiffId, Digest};

    fn attrs(text: &str) -> Attrs {
        Attrs(vec![("content-digest".to_owned(), Digest::of(text.as_bytes()).to_string())])
    }

    fn layer(text: &str) -> LayerDescriptor {
        LayerDescriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
            digest: Digest::of(text.as_bytes()),
            size: 1,
            diff_id: Some(DiffId(Digest::of(text.as_bytes()))),
            uncompressed_size: None,
            attrs: Attrs::default(),
        }
    }

    #[test]
    fn records_are_read_back() {
        let key = |text: &str| CacheKey(Digest::of(text.as_bytes()));
        let mut inline = Inline::default();
        inline.add(key("first"), vec![attrs("a")]);
        inline.add(key("second"), vec![attrs("a"), attrs("b")]);
        inline.add(key("nothing"), Vec::new());
        let text = serde_json::to_string(&inline).expect("JSON");
        let read: Inline = serde_json::from_str(&text).expect("JSON");
        let entries = read.entries(&[layer("a"), layer("b")]);
        let seen: Vec<_> = entries.iter().map(|e| (e.keys[0], e.layers.len())).collect();
        assert_eq!(seen, [(key("first"), 1), (key("second"), 2), (key("nothing"), 0)]);
        assert_eq!(entries[1].layers[1].attrs, attrs("b"));
        // An image with fewer layers has none of the records that need more.
        assert_eq!(read.entries(&[layer("a")]).len(), 2);
        let odd = r#"{"layers": [], "records": [{"key": "k", "layers": 0}]}"#;
        let read: Inline = serde_json::from_str(odd).expect("JSON");
        assert!(read.entries(&[]).is_empty());
    }
}
