//! Interface `http`.

use std::sync::Arc;

use wasmtime::component::Resource;
use wbuild_api::extension::{HttpBody, HttpCap, HttpRequest};
use wbuild_graph::{Attrs, Failure};

use super::{
    BlobHandle, RequestBuilder, ResponseHandle, State, blobs, denied, fetched, layer_in, layer_size,
};
use crate::limits::SMALL_BODY;
use crate::limits::{Pairs, pairs_size};
use crate::v0_1::cache::http_wit as http;
use crate::v0_1::types::{answer, failure_out, wit};

impl http::HostOutgoing for State {
    fn new(&mut self, method: String, url: String) -> wasmtime::Result<Resource<RequestBuilder>> {
        let bytes = size_of::<HttpRequest>() + method.len() + url.len();
        self.begin(HttpRequest { method, url, ..HttpRequest::default() }, bytes)
    }

    fn header(
        &mut self,
        this: Resource<RequestBuilder>,
        name: String,
        value: String,
    ) -> wasmtime::Result<()> {
        let bytes = 2 * size_of::<String>() + name.len() + value.len();
        self.edit(&this, bytes, |request| {
            request.headers.push(name, value);
            Ok(())
        })
    }

    fn authorize(
        &mut self,
        this: Resource<RequestBuilder>,
        kind: String,
        attrs: Pairs,
    ) -> wasmtime::Result<()> {
        self.edit(&this, kind.len() + pairs_size(&attrs), |request| {
            request.authorize = Some((kind, Attrs(attrs)));
            Ok(())
        })
    }

    fn body_small(
        &mut self,
        this: Resource<RequestBuilder>,
        data: Vec<u8>,
    ) -> wasmtime::Result<()> {
        self.edit(&this, data.len(), |request| {
            request.body = HttpBody::Small(data);
            Ok(())
        })
    }

    fn body_blob(
        &mut self,
        this: Resource<RequestBuilder>,
        blob: Resource<BlobHandle>,
        offset: u64,
        length: Option<u64>,
    ) -> wasmtime::Result<()> {
        let digest = self.table.get(&blob)?.digest;
        self.edit(&this, 0, |request| {
            request.body = HttpBody::Blob { digest, offset, length };
            Ok(())
        })
    }

    fn attrs(&mut self, this: Resource<RequestBuilder>, attrs: Pairs) -> wasmtime::Result<()> {
        self.edit(&this, pairs_size(&attrs), |request| {
            request.attrs.0.extend(attrs);
            Ok(())
        })
    }

    fn drop(&mut self, this: Resource<RequestBuilder>) -> wasmtime::Result<()> {
        self.finish(this).map(drop)
    }
}

impl State {
    fn http(&self) -> wasmtime::Result<Result<Arc<dyn HttpCap>, Failure>> {
        Ok(self.caps()?.http.clone().ok_or_else(|| denied("HTTP")))
    }
}

impl http::HostIncoming for State {
    fn status(&mut self, this: Resource<ResponseHandle>) -> wasmtime::Result<u16> {
        Ok(self.table.get(&this)?.response.status)
    }

    fn headers(&mut self, this: Resource<ResponseHandle>) -> wasmtime::Result<Pairs> {
        Ok(self.table.get(&this)?.response.headers.0.clone())
    }

    fn url(&mut self, this: Resource<ResponseHandle>) -> wasmtime::Result<String> {
        Ok(self.table.get(&this)?.response.url.clone())
    }

    async fn body_small(
        &mut self,
        this: Resource<ResponseHandle>,
        limit: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, wit::Failure>> {
        let handle = self.table.get(&this)?;
        let (http, id) = (Arc::clone(&handle.http), handle.response.id);
        let limit = limit.min(SMALL_BODY);
        self.meter.charge(limit as usize)?;
        let body = self.waits.during(http.body_small(id, limit)).await;
        self.meter.release(limit as usize);
        answer(body)
    }

    async fn body_blob(
        &mut self,
        this: Resource<ResponseHandle>,
        expect: blobs::Descriptor,
    ) -> wasmtime::Result<Result<Resource<BlobHandle>, wit::Failure>> {
        let handle = self.table.get(&this)?;
        let (http, id) = (Arc::clone(&handle.http), handle.response.id);
        let bytes = layer_size(&expect);
        self.meter.charge(bytes)?;
        let received = match layer_in(expect) {
            Ok(layer) => {
                let blob = fetched(&layer);
                self.waits.during(http.body_blob(id, layer)).await.map(|()| blob)
            }
            Err(failure) => Err(failure),
        };
        self.meter.release(bytes);
        match received {
            Ok(blob) => Ok(Ok(self.push(blob)?)),
            Err(failure) => Ok(Err(failure_out(failure))),
        }
    }

    fn drop(&mut self, this: Resource<ResponseHandle>) -> wasmtime::Result<()> {
        self.forget(this)
    }
}

impl http::Host for State {
    async fn send(
        &mut self,
        requests: Vec<Resource<RequestBuilder>>,
    ) -> wasmtime::Result<Vec<Result<Resource<ResponseHandle>, wit::Failure>>> {
        self.meter.batch(requests.len())?;
        let mut built = Vec::with_capacity(requests.len());
        for request in requests {
            // Nothing of building a request can fail.
            match self.finish(request)? {
                Ok(request) => built.push(request),
                Err(failure) => return Err(crate::state::refuse(failure)),
            }
        }
        let http = match self.http()? {
            Ok(http) => http,
            Err(failure) => {
                return Ok(built.iter().map(|_| Err(failure_out(failure.clone()))).collect());
            }
        };
        let sent = self.waits.during(http.send(built)).await;
        let mut answers = Vec::with_capacity(sent.len());
        for result in sent {
            answers.push(match result {
                Ok(response) => {
                    let http = Arc::clone(&http);
                    Ok(self.push(ResponseHandle { response, http })?)
                }
                Err(failure) => Err(failure_out(failure)),
            });
        }
        Ok(answers)
    }
}
