//! Images from registries.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use wbuild_api::session::{self, RegistryAuth, Session};
use wbuild_graph::{Failure, Platform};
use wbuild_oci::media::Descriptor;
use wbuild_oci::reference::Reference;
use wbuild_oci::registry::{
    Client, ClientOptions, Credential, Credentials, Host, Hosts, Identity, Mirror, Proxies, Trust,
};
use wbuild_store::Store;

use crate::source::image::Provider;
use crate::source::receive::receive;

/// The registries a build pulls from and pushes to, by one client.
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
        self.client.get_or_init(|| self.with(BTreeSet::new()))
    }

    /// For pushing; to the registries of `insecure` also where nothing says who they are.
    pub(crate) fn client_for_push(&self, insecure: BTreeSet<String>) -> Client {
        match insecure.is_empty() {
            true => self.client().clone(),
            false => self.with(insecure),
        }
    }

    fn with(&self, insecure: BTreeSet<String>) -> Client {
        let session = Arc::clone(&self.session);
        let options = ClientOptions { proxies: proxies(&*session), ..ClientOptions::default() };
        let credentials = Arc::new(SessionCredentials(Arc::clone(&session)));
        Client::with_hosts(options, credentials, Arc::new(SessionHosts { session, insecure }))
    }
}

/// Through whom the session wants servers to be asked.
pub(crate) fn proxies(session: &dyn Session) -> Proxies {
    crate::proxies(&session.proxies())
}

/// Whom to trust where a host is asked as the session wants.
pub(crate) fn trust(host: &session::RegistryHost) -> Trust {
    let identities = host.keypairs.iter().cloned();
    let identities =
        identities.map(|pair| Identity { certificate: pair.certificate, key: pair.key });
    Trust {
        extra_roots: host.authorities.clone(),
        insecure: host.insecure,
        identities: identities.collect(),
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

/// How the session wants registries to be asked.
struct SessionHosts {
    session: Arc<dyn Session>,
    /// Those that one output allows to be anybody.
    insecure: BTreeSet<String>,
}

#[async_trait]
impl Hosts for SessionHosts {
    async fn host(&self, name: &str) -> wbuild_oci::Result<Host> {
        let host = self.session.registry_host(name).await.map_err(|failure| {
            wbuild_oci::Error::new(
                wbuild_oci::ErrorKind::Invalid,
                format!("cannot tell how {name} is to be asked"),
            )
            .because(failure)
        })?;
        let mirrors: wbuild_oci::Result<_> =
            host.mirrors.iter().map(|mirror| mirror.parse::<Mirror>()).collect();
        let mut host = Host {
            mirrors: mirrors?,
            http: host.http,
            trust: trust(&host),
            realms: host.realms,
            concurrency: host.concurrency,
        };
        if self.insecure.contains(name) {
            let trust = &mut host.trust;
            // TLS with anybody, if something is said of TLS; else none.
            let tls = host.http == Some(false)
                || trust.insecure
                || !trust.extra_roots.is_empty()
                || !trust.identities.is_empty();
            (trust.insecure, host.http) = (tls, Some(!tls));
        }
        Ok(host)
    }
}

#[async_trait]
impl Provider for Registries {
    async fn resolve(&self, reference: &Reference, _: &Platform) -> Result<Descriptor, Failure> {
        Ok(self.client().resolve(reference).await?)
    }

    async fn reconsider(&self, reference: &Reference) -> bool {
        self.client().without_mirrors(reference.registry()).await
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
        fetch(self.client(), reference, descriptor, store, report).await
    }
}

/// Brings a blob of a repository into the store.
pub(crate) async fn fetch(
    client: &Client,
    reference: &Reference,
    descriptor: &Descriptor,
    store: &Store,
    report: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), Failure> {
    let (mut receiver, writing) =
        receive(store, descriptor.digest, descriptor.size, report).await?;
    let fetching = async move { client.blob(reference, descriptor, &mut receiver).await };
    writing.beside(fetching).await
}
