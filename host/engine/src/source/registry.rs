//! Images from registries.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use wbuild_api::session::{RegistryAuth, Session};
use wbuild_graph::{BlobDigest, Failure, Platform};
use wbuild_oci::media::Descriptor;
use wbuild_oci::reference::Reference;
use wbuild_oci::registry::{Client, ClientOptions, Credential, Credentials};
use wbuild_store::{Ingest, Store};

use crate::source::image::Provider;

/// The registries a build may pull from, by one client.
pub(crate) struct Registries {
    session: Arc<dyn Session>,
    client: OnceLock<Client>,
}

impl Registries {
    pub(crate) fn new(session: Arc<dyn Session>) -> Registries {
        Registries { session, client: OnceLock::new() }
    }

    /// Made by the first image: a build without one loads no certificates.
    fn client(&self) -> &Client {
        self.client.get_or_init(|| {
            let credentials = SessionCredentials(Arc::clone(&self.session));
            Client::new(ClientOptions::default(), Arc::new(credentials))
        })
    }
}

struct SessionCredentials(Arc<dyn Session>);

#[async_trait]
impl Credentials for SessionCredentials {
    async fn lookup(&self, registry: &str) -> wbuild_oci::Result<Option<Credential>> {
        match self.0.registry_auth(registry).await {
            Ok(auth) => Ok(auth.map(|auth| match auth {
                RegistryAuth::Basic { username, password } => {
                    Credential::Basic { username, password }
                }
                RegistryAuth::IdentityToken(token) => Credential::Identity(token),
                RegistryAuth::Bearer(token) => Credential::Bearer(token),
            })),
            Err(failure) => Err(wbuild_oci::Error::new(
                wbuild_oci::ErrorKind::Denied,
                format!("cannot get the credentials for {registry}"),
            )
            .because(failure)),
        }
    }
}

/// Writes a blob into the store and says how far it is.
pub(crate) struct Progress<'a> {
    pub(crate) ingest: Ingest,
    pub(crate) report: &'a (dyn Fn(u64) + Send + Sync),
}

impl std::io::Write for Progress<'_> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.ingest.write_all(data)?;
        (self.report)(self.ingest.size());
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Provider for Registries {
    async fn resolve(&self, reference: &Reference, _: &Platform) -> Result<Descriptor, Failure> {
        Ok(self.client().resolve(reference).await?)
    }

    async fn document(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, Failure> {
        if descriptor.is_manifest() || descriptor.is_index() {
            return Ok(self.client().manifest_of(reference, descriptor).await?.bytes);
        }
        Ok(self.client().blob_bytes(reference, descriptor).await?)
    }

    async fn fetch(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        store: &Store,
        report: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Failure> {
        let mut sink = Progress { ingest: store.ingest(descriptor.size)?, report };
        self.client().blob(reference, descriptor, &mut sink).await?;
        sink.ingest.commit(Some(&BlobDigest(descriptor.digest)), Some(descriptor.size))?;
        Ok(())
    }
}
