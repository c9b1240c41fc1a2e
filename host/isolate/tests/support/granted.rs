//! A repository, a web and other frontends that have whatever is asked for, and keep nothing.

use async_trait::async_trait;
use std::sync::atomic::{AtomicU64, Ordering};

use wbuild_api::extension::{
    FilesResult, HttpCap, HttpRequest, HttpResponse, ImageResult, LayerDescriptor, NestedBuild,
    NestedCap, NestedResult, NewManifest, RepositoryCap,
};
use wbuild_graph::{Attrs, Digest, Edge, Failure, NodeId, Platform};

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

/// Frontends that can be called: each yields an image with a config of so many bytes and as many files,
/// or fails with as many words about what it was given.
pub struct Callees(pub usize);

#[async_trait]
impl NestedCap for Callees {
    async fn build(&self, requests: Vec<NestedBuild>) -> Vec<Result<NestedResult, Failure>> {
        requests.iter().map(|request| self.yielded(request)).collect()
    }
}

impl Callees {
    fn yielded(&self, request: &NestedBuild) -> Result<NestedResult, Failure> {
        let text = "x".repeat(self.0);
        if request.frontend == "fails" {
            return Err(Failure::invalid("it cannot be built").hint(text));
        }
        let root = Edge { node: NodeId(0), index: 0 };
        let name = request.targets.first().cloned().unwrap_or_default();
        let platform = Some(Platform::new("linux", "amd64", None));
        let attrs = Attrs(vec![("tag".to_owned(), "t".to_owned())]);
        let files = FilesResult {
            name: name.clone(),
            platform: platform.clone(),
            root,
            path: text.clone(),
            attrs: attrs.clone(),
        };
        let image = ImageResult { name, platform, root: Some(root), config: text, attrs };
        Ok(NestedResult { images: vec![image], files: vec![files] })
    }
}
