//! A repository and a web that have whatever is asked for, and keep nothing.

use async_trait::async_trait;
use std::sync::atomic::{AtomicU64, Ordering};

use wbuild_api::extension::{
    HttpCap, HttpRequest, HttpResponse, LayerDescriptor, NewManifest, RepositoryCap,
};
use wbuild_graph::{Attrs, Digest, Failure};

#[derive(Default)]
pub struct Granted(AtomicU64);

#[async_trait]
impl RepositoryCap for Granted {
    async fn resolve(&self, _reference: String) -> Result<Option<LayerDescriptor>, Failure> {
        Ok(None)
    }
    async fn pull(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>> {
        blobs.iter().map(|_| Ok(())).collect()
    }
    async fn push(&self, blobs: Vec<LayerDescriptor>) -> Vec<Result<(), Failure>> {
        blobs.iter().map(|_| Ok(())).collect()
    }
    async fn publish(&self, manifest: NewManifest) -> Result<Digest, Failure> {
        Ok(Digest::of(&manifest.data))
    }
    async fn retain(&self, _manifests: Vec<Digest>) -> Result<u64, Failure> {
        Ok(0)
    }
}

#[async_trait]
impl HttpCap for Granted {
    async fn send(&self, requests: Vec<HttpRequest>) -> Vec<Result<HttpResponse, Failure>> {
        let answer = |request: HttpRequest| HttpResponse {
            id: self.0.fetch_add(1, Ordering::Relaxed),
            status: 200,
            headers: Attrs::default(),
            url: request.url,
        };
        requests.into_iter().map(|request| Ok(answer(request))).collect()
    }
    async fn body_small(&self, _response: u64, limit: u32) -> Result<Vec<u8>, Failure> {
        Ok(vec![b'x'; limit as usize])
    }
    async fn body_blob(&self, _response: u64, _expect: LayerDescriptor) -> Result<(), Failure> {
        Ok(())
    }
    fn forget(&self, _response: u64) {}
}
