//! `wbuild:cache@0.1`, world `remote-cache`, of which `local-cache` is a part: what is granted of the
//! rest is decided by the capabilities.

mod http;
mod repository;

use std::sync::Arc;

use wasmtime::component::{Linker, Resource};
use wbuild_api::extension::{
    BlobInfo, CacheHost, HttpCap, HttpRequest, HttpResponse, KvPair, LayerDescriptor, LogCap,
    RecordEntry,
};
use wbuild_graph::{Attrs, BlobDigest, CacheKey, DiffId, Digest, Failure, FailureKind, ResultId};

use super::types::{self, answer, digest_in, failure_in, failure_out, wit};
use crate::bounds;
use crate::limits::{LIST_ITEMS, READ_BYTES, pairs_size};
use crate::state::{Access, Builder, Capabilities, GuestState};

/// Generated from `wit/cache`.
#[allow(missing_docs, unsafe_code, clippy::all)]
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: ["../../wit/types", "../../wit/cache"],
        world: "wbuild:cache/remote-cache",
        imports: {
            "wbuild:cache/repository.resolve": async | trappable,
            "wbuild:cache/repository.pull": async | trappable,
            "wbuild:cache/repository.push": async | trappable,
            "wbuild:cache/repository.publish": async | trappable,
            "wbuild:cache/repository.retain": async | trappable,
            "wbuild:cache/http.send": async | trappable,
            "wbuild:cache/http.[method]incoming.body-small": async | trappable,
            "wbuild:cache/http.[method]incoming.body-blob": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: {
            "wbuild:types/types": crate::v0_1::types::bindings::wbuild::types::types,
            "wbuild:types/log": crate::v0_1::types::bindings::wbuild::types::log,
            "wbuild:cache/blobs.blob": crate::v0_1::cache::BlobHandle,
            "wbuild:cache/kv.bucket": crate::v0_1::cache::BucketHandle,
            "wbuild:cache/http.outgoing": crate::v0_1::cache::RequestBuilder,
            "wbuild:cache/http.incoming": crate::v0_1::cache::ResponseHandle,
        },
    });
}

use bindings::exports::wbuild::cache::backend;
use bindings::wbuild::cache::{blobs, http as http_wit, kv, repository as repository_wit};
pub(crate) use bindings::{RemoteCache, RemoteCachePre};

/// A blob that is present; held by the guest.
pub type BlobHandle = BlobInfo;

/// An open bucket; held by the guest.
pub struct BucketHandle {
    name: String,
    generation: String,
}

/// A request under construction.
pub type RequestBuilder = Builder<HttpRequest>;

/// An answer, of which the capability holds the body; held by the guest.
pub struct ResponseHandle {
    response: HttpResponse,
    http: Arc<dyn HttpCap>,
}

impl Drop for ResponseHandle {
    fn drop(&mut self) {
        self.http.forget(self.response.id);
    }
}

/// State of a cache backend's store.
pub(crate) type State = GuestState<CacheHost>;

impl Capabilities for CacheHost {
    fn log(&self) -> &Arc<dyn LogCap> {
        &self.log
    }
}

/// Everything a cache backend may import.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::wit::add_to_linker::<_, Access<CacheHost>>(linker, |state| state)?;
    types::log::add_to_linker::<_, Access<CacheHost>>(linker, |state| state)?;
    kv::add_to_linker::<_, Access<CacheHost>>(linker, |state| state)?;
    blobs::add_to_linker::<_, Access<CacheHost>>(linker, |state| state)?;
    repository_wit::add_to_linker::<_, Access<CacheHost>>(linker, |state| state)?;
    http_wit::add_to_linker::<_, Access<CacheHost>>(linker, |state| state)
}

/// That a backend uses what it was not granted.
fn denied(what: &str) -> Failure {
    Failure::new(FailureKind::Denied, format!("this cache backend was granted no {what}"))
}

/// What a handle of a fetched layer stands for.
fn fetched(layer: &LayerDescriptor) -> BlobHandle {
    BlobInfo {
        digest: BlobDigest(layer.digest),
        size: layer.size,
        media_type: layer.media_type.clone(),
    }
}

/// Bytes the host holds for a descriptor.
fn layer_size(layer: &blobs::Descriptor) -> usize {
    size_of::<LayerDescriptor>() + layer.media_type.len() + pairs_size(&layer.attrs)
}

fn layer_in(layer: blobs::Descriptor) -> Result<LayerDescriptor, Failure> {
    bounds::media_type(&layer.media_type)?;
    Ok(LayerDescriptor {
        media_type: layer.media_type,
        digest: digest_in(&layer.digest)?,
        size: layer.size,
        diff_id: layer.diff_id.as_deref().map(digest_in).transpose()?.map(DiffId),
        uncompressed_size: layer.uncompressed_size,
        attrs: Attrs(layer.attrs),
    })
}

pub(crate) fn layer_out(layer: LayerDescriptor) -> blobs::Descriptor {
    blobs::Descriptor {
        media_type: layer.media_type,
        digest: layer.digest.to_string(),
        size: layer.size,
        diff_id: layer.diff_id.map(|id| id.to_string()),
        uncompressed_size: layer.uncompressed_size,
        attrs: layer.attrs.0,
    }
}

/// A record as a backend answers it. Its form is checked here; whether it is believed, by who asks.
pub(crate) fn record_in(entry: backend::RecordEntry) -> Result<RecordEntry, Failure> {
    let keys: Result<Vec<CacheKey>, Failure> =
        entry.keys.iter().map(|key| digest_in(key).map(CacheKey)).collect();
    let keys = keys?;
    if keys.is_empty() {
        return Err(Failure::invalid("a record has no key"));
    }
    Ok(RecordEntry {
        keys,
        id: ResultId(digest_in(&entry.id)?),
        layers: entry.layers.into_iter().map(layer_in).collect::<Result<_, _>>()?,
        created: entry.created,
        attrs: Attrs(entry.attrs),
    })
}

pub(crate) fn record_out(entry: RecordEntry) -> backend::RecordEntry {
    backend::RecordEntry {
        keys: entry.keys.iter().map(ToString::to_string).collect(),
        id: entry.id.to_string(),
        layers: entry.layers.into_iter().map(layer_out).collect(),
        created: entry.created,
        attrs: entry.attrs.0,
    }
}

impl State {
    /// Takes what `fetch` answered for one layer: the blob handed over must be the layer.
    pub(crate) fn take_fetched(
        &mut self,
        wanted: &Digest,
        answer: Result<Resource<BlobHandle>, wit::Failure>,
    ) -> wasmtime::Result<Result<(), Failure>> {
        let blob = match answer {
            Ok(handle) => self.table.delete(handle)?,
            Err(failure) => return Ok(Err(failure_in(failure))),
        };
        Ok(if blob.digest.digest() == wanted {
            Ok(())
        } else {
            Err(Failure::new(
                FailureKind::Invalid,
                format!("asked for the layer {wanted}, it gave {}", blob.digest),
            ))
        })
    }

    fn bucket(&self, handle: &Resource<BucketHandle>) -> wasmtime::Result<String> {
        Ok(self.table.get(handle)?.name.clone())
    }
}

impl blobs::Host for State {
    fn open(&mut self, digest: String) -> wasmtime::Result<Option<Resource<BlobHandle>>> {
        // A text that is no digest names no blob that is present.
        let Ok(digest) = digest_in(&digest) else { return Ok(None) };
        match self.caps()?.blobs.open(digest) {
            Some(info) => Ok(Some(self.push(info)?)),
            None => Ok(None),
        }
    }

    fn read(
        &mut self,
        blob: Resource<BlobHandle>,
        offset: u64,
        length: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, wit::Failure>> {
        let info = self.table.get(&blob)?;
        if let Err(failure) = bounds::readable_blob(info) {
            return answer(Err(failure));
        }
        let digest = *info.digest.digest();
        answer(self.caps()?.blobs.read(digest, offset, length.min(READ_BYTES)))
    }

    fn write_small(
        &mut self,
        media_type: String,
        data: Vec<u8>,
    ) -> wasmtime::Result<Result<Resource<BlobHandle>, wit::Failure>> {
        if let Err(failure) =
            bounds::media_type(&media_type).and_then(|()| bounds::small_blob(&data))
        {
            return answer(Err(failure));
        }
        match self.caps()?.blobs.write_small(media_type, data) {
            Ok(info) => Ok(Ok(self.push(info)?)),
            Err(failure) => Ok(Err(failure_out(failure))),
        }
    }
}

impl blobs::HostBlob for State {
    fn descriptor(&mut self, this: Resource<BlobHandle>) -> wasmtime::Result<blobs::Descriptor> {
        let info = self.table.get(&this)?;
        Ok(blobs::Descriptor {
            media_type: info.media_type.clone(),
            digest: info.digest.to_string(),
            size: info.size,
            diff_id: None,
            uncompressed_size: None,
            attrs: Vec::new(),
        })
    }

    fn drop(&mut self, this: Resource<BlobHandle>) -> wasmtime::Result<()> {
        self.forget(this)
    }
}

impl kv::Host for State {}

fn pairs_bytes<'a>(keys: impl IntoIterator<Item = &'a Vec<u8>>) -> usize {
    keys.into_iter().map(|key| size_of::<Vec<u8>>() + key.len()).sum()
}

impl kv::HostBucket for State {
    fn open(
        &mut self,
        name: String,
    ) -> wasmtime::Result<Result<Resource<BucketHandle>, wit::Failure>> {
        if let Err(failure) = bounds::bucket(&name) {
            return answer(Err(failure));
        }
        match self.caps()?.kv.open(name.clone()) {
            Ok(generation) => Ok(Ok(self.push(BucketHandle { name, generation })?)),
            Err(failure) => Ok(Err(failure_out(failure))),
        }
    }

    fn generation(&mut self, this: Resource<BucketHandle>) -> wasmtime::Result<String> {
        Ok(self.table.get(&this)?.generation.clone())
    }

    fn get_many(
        &mut self,
        this: Resource<BucketHandle>,
        keys: Vec<Vec<u8>>,
    ) -> wasmtime::Result<Result<Vec<Option<Vec<u8>>>, wit::Failure>> {
        self.meter.batch(keys.len())?;
        let asked = keys.len();
        let values = self.caps()?.kv.get_many(self.bucket(&this)?, keys);
        answer(values.and_then(|values| {
            if values.len() == asked {
                Ok(values)
            } else {
                Err(Failure::internal(format!("{} values for {asked} keys", values.len())))
            }
        }))
    }

    fn scan(
        &mut self,
        this: Resource<BucketHandle>,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: u32,
    ) -> wasmtime::Result<Result<Vec<KvPair>, wit::Failure>> {
        let kv = &self.caps()?.kv;
        answer(kv.scan(self.bucket(&this)?, prefix, after, limit.min(LIST_ITEMS)))
    }

    fn apply(
        &mut self,
        this: Resource<BucketHandle>,
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        // Held until the batch is applied.
        let bytes = pairs_bytes(changes.iter().map(|(key, _)| key))
            + pairs_bytes(changes.iter().filter_map(|(_, value)| value.as_ref()));
        self.meter.charge(bytes)?;
        let result = self.caps()?.kv.apply(self.bucket(&this)?, changes);
        self.meter.release(bytes);
        answer(result)
    }

    fn clear(
        &mut self,
        this: Resource<BucketHandle>,
    ) -> wasmtime::Result<Result<(), wit::Failure>> {
        let kv = &self.caps()?.kv;
        answer(kv.clear(self.bucket(&this)?))
    }

    fn drop(&mut self, this: Resource<BucketHandle>) -> wasmtime::Result<()> {
        self.forget(this)
    }
}
