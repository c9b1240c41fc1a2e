//! Interface `repository`.

use std::sync::Arc;

use wasmtime::component::Resource;
use wbuild_api::extension::{LayerDescriptor, NewManifest, RepositoryCap};
use wbuild_graph::{Digest, Failure};

use super::{BlobHandle, State, blobs, denied, fetched, layer_in, layer_out, layer_size};
use crate::bounds;
use crate::v0_1::cache::repository_wit as repository;
use crate::v0_1::types::{answer, digest_in, failure_out, wit};

impl State {
    fn repository(&self) -> wasmtime::Result<Result<Arc<dyn RepositoryCap>, Failure>> {
        Ok(self.caps()?.repository.clone().ok_or_else(|| denied("repository")))
    }

    /// Has the repository do something with those of the layers that are layers; one answer each.
    async fn of_each<F>(
        &mut self,
        layers: Vec<blobs::Descriptor>,
        act: impl FnOnce(Arc<dyn RepositoryCap>, Vec<LayerDescriptor>) -> F,
    ) -> wasmtime::Result<Vec<Result<LayerDescriptor, Failure>>>
    where
        F: Future<Output = Vec<Result<(), Failure>>>,
    {
        self.meter.batch(layers.len())?;
        let repository = match self.repository()? {
            Ok(repository) => repository,
            Err(failure) => return Ok(layers.iter().map(|_| Err(failure.clone())).collect()),
        };
        // Held until all is done.
        let bytes = layers.iter().map(layer_size).sum();
        self.meter.charge(bytes)?;
        let mut answers: Vec<Result<LayerDescriptor, Failure>> =
            layers.into_iter().map(layer_in).collect();
        let wanted: Vec<LayerDescriptor> =
            answers.iter().filter_map(|layer| layer.as_ref().ok()).cloned().collect();
        let asked = wanted.len();
        let results = self.waits.during(act(repository, wanted)).await;
        self.meter.release(bytes);
        let counted = results.len() == asked;
        let mut results = results.into_iter();
        for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
            if !counted {
                *answer = Err(Failure::internal(format!("not {asked} answers for {asked} blobs")));
            } else if let Some(Err(failure)) = results.next() {
                *answer = Err(failure);
            }
        }
        Ok(answers)
    }
}

impl repository::Host for State {
    async fn resolve(
        &mut self,
        reference: String,
    ) -> wasmtime::Result<Result<Option<blobs::Descriptor>, wit::Failure>> {
        let repository = match self.repository()? {
            Ok(repository) => repository,
            Err(failure) => return answer(Err(failure)),
        };
        if let Err(failure) = bounds::reference(&reference) {
            return answer(Err(failure));
        }
        let found = self.waits.during(repository.resolve(reference)).await;
        answer(found.map(|found| found.map(layer_out)))
    }

    async fn pull(
        &mut self,
        wanted: Vec<blobs::Descriptor>,
    ) -> wasmtime::Result<Vec<Result<Resource<BlobHandle>, wit::Failure>>> {
        let pulled = self
            .of_each(wanted, |repository, wanted| async move { repository.pull(wanted).await })
            .await?;
        let handle = |answer: Result<LayerDescriptor, Failure>| match answer {
            Ok(layer) => Ok(Ok(self.push(fetched(&layer))?)),
            Err(failure) => Ok(Err(failure_out(failure))),
        };
        pulled.into_iter().map(handle).collect()
    }

    async fn push(
        &mut self,
        wanted: Vec<blobs::Descriptor>,
    ) -> wasmtime::Result<Vec<Result<(), wit::Failure>>> {
        let pushed = self
            .of_each(wanted, |repository, wanted| async move { repository.push(wanted).await })
            .await?;
        Ok(pushed.into_iter().map(|answer| answer.map(drop).map_err(failure_out)).collect())
    }

    async fn publish(
        &mut self,
        tag: Option<String>,
        media_type: String,
        data: Vec<u8>,
    ) -> wasmtime::Result<Result<String, wit::Failure>> {
        let repository = match self.repository()? {
            Ok(repository) => repository,
            Err(failure) => return answer(Err(failure)),
        };
        if let Some(Err(failure)) = tag.as_deref().map(bounds::reference) {
            return answer(Err(failure));
        }
        if let Err(failure) = bounds::manifest(&data) {
            return answer(Err(failure));
        }
        let bytes = data.len() + media_type.len();
        self.meter.charge(bytes)?;
        let manifest = NewManifest { tag, media_type, data };
        let published = self.waits.during(repository.publish(manifest)).await;
        self.meter.release(bytes);
        answer(published.map(|digest| digest.to_string()))
    }

    async fn retain(
        &mut self,
        manifests: Vec<String>,
    ) -> wasmtime::Result<Result<u64, wit::Failure>> {
        self.meter.batch(manifests.len())?;
        let repository = match self.repository()? {
            Ok(repository) => repository,
            Err(failure) => return answer(Err(failure)),
        };
        let digests: Result<Vec<Digest>, Failure> =
            manifests.iter().map(|digest| digest_in(digest)).collect();
        match digests {
            Ok(digests) => answer(self.waits.during(repository.retain(digests)).await),
            Err(failure) => answer(Err(failure)),
        }
    }
}
