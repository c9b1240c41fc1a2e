//! The imports and exports of a component.

use std::rc::Rc;

use cache_records::{Attrs, Hash, Layer, Record};
use wbuild_graph::Failure;
pub use wbuild_guest::wasm::log;
use wbuild_guest::wasm::{answer, failure_out, report_panics, run, wit};

use crate::http::{Body, Request};
use crate::session::Slot;
use crate::{Cache, Error, Result};

/// Generated: the component ABI is made of raw pointers.
#[allow(unsafe_code, missing_docs, clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: ["../../../../wit/types", "../../../../wit/cache"],
        world: "wbuild:cache/remote-cache",
        with: {
            "wbuild:types/types@0.1.0": wbuild_guest::wasm::wit,
            "wbuild:types/log@0.1.0": wbuild_guest::wasm::wit_log,
        },
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_backend",
        default_bindings_module: "wbuild_cache::sys::bindings",
    });
}

pub use bindings::exports::wbuild::cache::backend;
use bindings::wbuild::cache::{blobs, http, kv, repository};

// ---- records ------------------------------------------------------------------------------------

fn hash_in(text: &str) -> Result<Hash> {
    Hash::parse(text).ok_or_else(|| Error::invalid(format!("{text:?} is no digest")))
}

fn layer_in(layer: blobs::Descriptor) -> Result<Layer> {
    Ok(Layer {
        digest: hash_in(&layer.digest)?,
        size: layer.size,
        media_type: layer.media_type,
        diff_id: layer.diff_id.as_deref().map(hash_in).transpose()?,
        uncompressed_size: layer.uncompressed_size,
        attrs: layer.attrs,
    })
}

fn layers_in(layers: Vec<blobs::Descriptor>) -> Result<Vec<Layer>> {
    layers.into_iter().map(layer_in).collect()
}

fn layer_out(layer: &Layer) -> blobs::Descriptor {
    blobs::Descriptor {
        media_type: layer.media_type.clone(),
        digest: layer.digest.to_string(),
        size: layer.size,
        diff_id: layer.diff_id.map(|id| id.to_string()),
        uncompressed_size: layer.uncompressed_size,
        attrs: layer.attrs.clone(),
    }
}

fn record_in(entry: backend::RecordEntry) -> Result<Record> {
    Ok(Record {
        id: hash_in(&entry.id)?,
        attrs: entry.attrs,
        created: entry.created,
        keys: entry.keys.iter().map(|key| hash_in(key)).collect::<Result<_>>()?,
        layers: entry
            .layers
            .into_iter()
            .map(|layer| Ok(Rc::new(layer_in(layer)?)))
            .collect::<Result<_>>()?,
    })
}

fn record_out(record: &Record) -> backend::RecordEntry {
    backend::RecordEntry {
        keys: record.keys.iter().map(ToString::to_string).collect(),
        id: record.id.to_string(),
        layers: record.layers.iter().map(|layer| layer_out(layer)).collect(),
        created: record.created,
        attrs: record.attrs.clone(),
    }
}

/// What the host answers, as an error of the SDK's.
fn given<T>(result: std::result::Result<T, wit::Failure>) -> Result<T> {
    Ok(answer(result, |value| value)?)
}

// ---- blobs --------------------------------------------------------------------------------------

/// A blob in the content store, which stays there as long as this lives.
#[derive(Debug)]
pub struct Blob {
    handle: blobs::Blob,
    descriptor: blobs::Descriptor,
}

impl Blob {
    fn of(handle: blobs::Blob) -> Blob {
        Blob { descriptor: handle.descriptor(), handle }
    }

    /// A blob that is here now, and that this backend reaches (wit/cache, `blobs.open`). Never fetches.
    pub fn open(digest: &Hash) -> Option<Blob> {
        blobs::open(&digest.to_string()).map(Blob::of)
    }

    /// Stores a few bytes, at most 4 MiB.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub fn write_small(media_type: &str, data: &[u8]) -> Result<Blob> {
        Ok(Blob::of(given(blobs::write_small(media_type, data))?))
    }

    /// Its digest.
    ///
    /// # Errors
    ///
    /// When the host gives none.
    pub fn digest(&self) -> Result<Hash> {
        hash_in(&self.descriptor.digest)
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        self.descriptor.size
    }

    /// At most 1 MiB, of blobs of at most 64 MiB; nothing behind the end.
    ///
    /// # Errors
    ///
    /// Those of the host.
    pub fn read(&self, offset: u64, length: u32) -> Result<Vec<u8>> {
        given(blobs::read(&self.handle, offset, length))
    }
}

// ---- kv -----------------------------------------------------------------------------------------

/// Values of this backend's own, which the host keeps between builds.
#[derive(Debug)]
pub struct Bucket(kv::Bucket);

#[allow(missing_docs)] // Each is the function of its name in wit/cache, interface `kv`.
#[allow(clippy::missing_errors_doc)]
impl Bucket {
    pub fn open(name: &str) -> Result<Bucket> {
        Ok(Bucket(given(kv::Bucket::open(name))?))
    }

    pub fn generation(&self) -> String {
        self.0.generation()
    }

    pub fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        given(self.0.get_many(keys))
    }

    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: u32,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        given(self.0.scan(prefix, after, limit))
    }

    pub fn apply(&self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()> {
        given(self.0.apply(changes))
    }

    pub fn clear(&self) -> Result<()> {
        given(self.0.clear())
    }
}

// ---- repository ---------------------------------------------------------------------------------

/// The manifest that a tag or digest names; its blob is here afterwards.
///
/// # Errors
///
/// Those of the host.
pub fn resolve(reference: &str) -> Result<Option<Layer>> {
    given(repository::resolve(reference))?.map(layer_in).transpose()
}

/// Makes blobs present here; one answer each, in order.
pub fn pull(wanted: &[Layer]) -> Vec<Result<Blob>> {
    let wanted: Vec<_> = wanted.iter().map(layer_out).collect();
    repository::pull(&wanted).into_iter().map(|blob| given(blob).map(Blob::of)).collect()
}

/// Makes blobs present there; one answer each, in order.
pub fn push(wanted: &[Layer]) -> Vec<Result<()>> {
    let wanted: Vec<_> = wanted.iter().map(layer_out).collect();
    repository::push(&wanted).into_iter().map(given).collect()
}

/// Puts a manifest there. Answers its digest.
///
/// # Errors
///
/// Those of the host.
pub fn publish(tag: Option<&str>, media_type: &str, data: &[u8]) -> Result<Hash> {
    hash_in(&given(repository::publish(tag, media_type, data))?)
}

/// Removes what neither these manifests nor any other lead to; answers how many blobs.
///
/// # Errors
///
/// `Unsupported` of a registry.
pub fn retain(manifests: &[Hash]) -> Result<u64> {
    let manifests: Vec<String> = manifests.iter().map(ToString::to_string).collect();
    given(repository::retain(&manifests))
}

// ---- http ---------------------------------------------------------------------------------------

/// The beginning of an answer; its body waits.
#[derive(Debug)]
pub struct Response(http::Incoming);

impl Response {
    /// 100 to 599.
    pub fn status(&self) -> u16 {
        self.0.status()
    }

    /// All headers, names in lower case.
    pub fn headers(&self) -> Attrs {
        self.0.headers()
    }

    /// Who answered, after redirects.
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// The body, of at most `most` bytes and at most 4 MiB.
    ///
    /// # Errors
    ///
    /// `Limit` for a longer one.
    pub fn into_bytes(self, most: u32) -> Result<Vec<u8>> {
        given(self.0.body_small(most))
    }

    /// Takes the body into the content store, if it is this layer.
    ///
    /// # Errors
    ///
    /// `Invalid` when it is another.
    pub fn into_layer(self, layer: &Layer) -> Result<Blob> {
        given(self.0.body_blob(&layer_out(layer))).map(Blob::of)
    }
}

pub(crate) fn send(requests: Vec<Request>) -> Vec<Result<Response>> {
    let outgoing = |request: Request| {
        let out = http::Outgoing::new(&request.method, &request.url);
        request.headers.iter().for_each(|(name, value)| out.header(name, value));
        if let Some(kind) = &request.authorize {
            out.authorize(kind, &[]);
        }
        match &request.body {
            Body::None => {}
            Body::Small(data) => out.body_small(data),
            Body::Blob(blob, offset, length) => out.body_blob(&blob.handle, *offset, *length),
        }
        if !request.attrs.is_empty() {
            out.attrs(&request.attrs);
        }
        out
    };
    let requests: Vec<_> = requests.into_iter().map(outgoing).collect();
    http::send(requests).into_iter().map(|answer| given(answer).map(Response)).collect()
}

// ---- exports ------------------------------------------------------------------------------------

type Answer<T> = std::result::Result<T, wit::Failure>;

/// `backend.open`
pub fn open<C: Cache>(slot: &Slot<C>, mode: &str, config: Attrs) -> Answer<()> {
    run(|| slot.open(mode, config))
}

/// `backend.find`
pub fn find<C: Cache>(slot: &Slot<C>, keys: &[String]) -> Answer<Vec<Vec<backend::RecordEntry>>> {
    run(|| {
        let keys = keys.iter().map(|key| hash_in(key)).collect::<Result<Vec<_>>>()?;
        let found = slot.find(&keys)?;
        Ok(found.iter().map(|list| list.iter().map(record_out).collect()).collect())
    })
}

/// Answers for each of some layers.
fn each<T>(
    layers: Vec<blobs::Descriptor>,
    action: impl FnOnce(&[Layer]) -> Vec<Result<T>>,
) -> Vec<Answer<T>> {
    report_panics();
    let count = layers.len();
    let out = |error: Error| failure_out(error.into_failure());
    match layers_in(layers) {
        Ok(layers) => action(&layers).into_iter().map(|answer| answer.map_err(out)).collect(),
        Err(error) => {
            let failure: Failure = error.into_failure();
            (0..count).map(|_| Err(failure_out(failure.clone()))).collect()
        }
    }
}

/// `backend.fetch`
pub fn fetch<C: Cache>(slot: &Slot<C>, layers: Vec<blobs::Descriptor>) -> Vec<Answer<blobs::Blob>> {
    let blobs = each(layers, |layers| slot.fetch(layers));
    blobs.into_iter().map(|blob| blob.map(|blob| blob.handle)).collect()
}

/// `backend.save`
pub fn save<C: Cache>(slot: &Slot<C>, entries: Vec<backend::RecordEntry>) -> Answer<()> {
    run(|| slot.save(entries.into_iter().map(record_in).collect::<Result<_>>()?))
}

/// `backend.push`
pub fn push_all<C: Cache>(slot: &Slot<C>, layers: Vec<blobs::Descriptor>) -> Vec<Answer<()>> {
    each(layers, |layers| slot.push(layers))
}

/// `backend.commit`
pub fn commit<C: Cache>(slot: &Slot<C>) -> Answer<Attrs> {
    run(|| slot.commit())
}

/// `backend.prune`
pub fn prune<C: Cache>(slot: &Slot<C>, options: &[(String, String)]) -> Answer<Attrs> {
    run(|| slot.prune(options))
}
