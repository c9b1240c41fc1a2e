//! Interface `request`.

use wasmtime::component::Resource;

use super::bindings::wbuild::frontend::{graph, request};
use super::{ContextHandle, State, edge_out};
use crate::limits::Pairs;
use crate::v0_1::types::{answer, failure_out, platform_in, platform_out, wit};

impl request::Host for State {
    fn definition(&mut self) -> wasmtime::Result<Result<request::DefinitionFile, wit::Failure>> {
        let file = self.caps()?.request.definition();
        answer(file.map(|file| request::DefinitionFile {
            name: file.name,
            data: file.data,
            attrs: file.attrs.0,
        }))
    }

    async fn opt(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        let request = self.caps()?.request.clone();
        Ok(request.opt(name).await)
    }

    async fn opts(&mut self, prefix: String) -> wasmtime::Result<Pairs> {
        let request = self.caps()?.request.clone();
        Ok(request.opts(prefix).await.0)
    }

    fn targets(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.caps()?.request.targets())
    }

    fn build_platform(&mut self) -> wasmtime::Result<wit::Platform> {
        Ok(platform_out(self.caps()?.request.build_platform()))
    }

    fn target_platforms(&mut self) -> wasmtime::Result<Vec<wit::Platform>> {
        Ok(self.caps()?.request.target_platforms().into_iter().map(platform_out).collect())
    }

    fn context(
        &mut self,
        name: String,
        platform: Option<wit::Platform>,
    ) -> wasmtime::Result<Result<Option<Resource<ContextHandle>>, wit::Failure>> {
        match self.caps()?.request.context(name, platform.map(platform_in)) {
            Ok(Some(context)) => Ok(Ok(Some(self.push(context)?))),
            Ok(None) => Ok(Ok(None)),
            Err(failure) => Ok(Err(failure_out(failure))),
        }
    }

    fn context_names(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.caps()?.request.context_names())
    }

    fn has_secret(&mut self, id: String) -> wasmtime::Result<bool> {
        Ok(self.caps()?.request.has_secret(id))
    }

    fn has_ssh(&mut self, id: String) -> wasmtime::Result<bool> {
        Ok(self.caps()?.request.has_ssh(id))
    }

    fn epoch(&mut self) -> wasmtime::Result<Option<u64>> {
        Ok(self.caps()?.request.epoch())
    }

    fn supports(&mut self, feature: String) -> wasmtime::Result<bool> {
        Ok(self.caps()?.request.supports(feature))
    }
}

impl request::HostNamedContext for State {
    fn kind(&mut self, this: Resource<ContextHandle>) -> wasmtime::Result<String> {
        Ok(self.table.get(&this)?.kind.clone())
    }

    fn identifier(&mut self, this: Resource<ContextHandle>) -> wasmtime::Result<String> {
        Ok(self.table.get(&this)?.identifier.clone())
    }

    fn root(&mut self, this: Resource<ContextHandle>) -> wasmtime::Result<Option<graph::Output>> {
        Ok(self.table.get(&this)?.root.map(edge_out))
    }

    fn config(&mut self, this: Resource<ContextHandle>) -> wasmtime::Result<Option<String>> {
        Ok(self.table.get(&this)?.config.clone())
    }

    fn attrs(&mut self, this: Resource<ContextHandle>) -> wasmtime::Result<Pairs> {
        Ok(self.table.get(&this)?.attrs.0.clone())
    }

    fn drop(&mut self, this: Resource<ContextHandle>) -> wasmtime::Result<()> {
        self.forget(this)
    }
}
