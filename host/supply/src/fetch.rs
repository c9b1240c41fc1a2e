//! Fetches components and their signatures, by the clients that everything else is fetched by: with
//! their credentials, mirrors, proxies and checks.

use std::io;
use std::sync::Arc;

use reqwest::Url;
use reqwest::header::HeaderMap;
use wbuild_graph::{Digest, Failure};
use wbuild_http::{Clients, Download, ErrorKind, Retries, Sink, download};
use wbuild_oci::Reference;
use wbuild_oci::media::Descriptor;
use wbuild_oci::registry::{Client, Fetched as Document};

use crate::artifact::{self, Found, MAX_COMPONENT, MAX_SIGNATURES, SIGNATURE};
use crate::lock::Locked;
use crate::reference::{PluginRef, WebRef};
use crate::signature::{MAX_SIGNATURE, SUFFIX, Signature};

/// Asks registries and web servers.
pub struct Fetcher {
    client: Client,
    clients: Clients,
}

/// A component on its way: where it is, before it is fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Its artifact's manifest, where it is of a registry.
    pub manifest: Option<Digest>,
    /// The component as it has to be.
    pub component: Digest,
    layer: Option<Descriptor>,
}

impl Fetcher {
    /// Asks registries by `client` and web servers by `clients`.
    pub fn new(client: Client, clients: Clients) -> Fetcher {
        Fetcher { client, clients }
    }

    /// The registry client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What a reference means at present, or what it was locked to. Fetches no component.
    ///
    /// # Errors
    ///
    /// It cannot be had; it is no component; it is not what it was locked to.
    pub async fn find(
        &self,
        reference: &PluginRef,
        locked: Option<&Locked>,
    ) -> Result<Fetched, Failure> {
        let name = match reference {
            PluginRef::Registry(name) => name,
            PluginRef::Web(WebRef { digest, .. }) => {
                return Ok(Fetched { manifest: None, component: *digest, layer: None });
            }
            _ => return Err(Failure::internal(format!("{reference} is not fetched"))),
        };
        let pinned = match locked {
            Some(locked) => name.with_digest(locked.manifest),
            None => name.clone(),
        };
        let (manifest, layer) =
            self.artifact(&pinned).await.map_err(|failure| cannot_fetch(failure, reference))?;
        if let Some(locked) = locked
            && locked.component != layer.digest
        {
            return Err(Failure::invalid(format!(
                "{reference} is locked to the component {}, and its manifest is of {}",
                locked.component, layer.digest
            ))
            .hint("wbuild.lock contradicts itself; `wbuild plugin update` makes the entry anew"));
        }
        Ok(Fetched { manifest: Some(manifest), component: layer.digest, layer: Some(layer) })
    }

    /// The manifest that a reference leads to, through an index if need be, and the component's layer.
    async fn artifact(&self, reference: &Reference) -> Result<(Digest, Descriptor), Failure> {
        let what = reference.to_string();
        let first: Document = self.client.manifest(reference).await?;
        match artifact::find(&first.document, &what)? {
            Found::Component(layer) => Ok((first.descriptor.digest, layer)),
            Found::Entry(entry) => {
                let inner = self.client.manifest_of(reference, &entry).await?;
                match artifact::find(&inner.document, &what)? {
                    Found::Component(layer) => Ok((inner.descriptor.digest, layer)),
                    Found::Entry(_) => {
                        Err(Failure::unsupported(format!("{what} is an index of indexes")))
                    }
                }
            }
        }
    }

    /// The component itself.
    ///
    /// # Errors
    ///
    /// It cannot be had, or is not what it has to be.
    pub async fn component(
        &self,
        reference: &PluginRef,
        found: &Fetched,
    ) -> Result<Arc<[u8]>, Failure> {
        let fetched = async {
            match (reference, &found.layer) {
                (PluginRef::Registry(name), Some(layer)) => {
                    let mut bytes = Vec::new();
                    self.client.blob(name, layer, &mut bytes).await?;
                    Ok(bytes)
                }
                (PluginRef::Web(web), _) => {
                    let file = self.file(&web.url, MAX_COMPONENT).await?;
                    file.ok_or_else(|| Failure::not_found(format!("{} does not exist", web.url)))
                }
                _ => Err(Failure::internal(format!("{reference} is not fetched"))),
            }
        };
        let bytes = fetched.await.map_err(|failure| cannot_fetch(failure, reference))?;
        let digest = Digest::of(&bytes);
        if digest != found.component {
            let wanted = found.component;
            let wrong = Failure::invalid(format!("expected {wanted}, got {digest}"))
                .hint("whoever serves it has another component; it is not used");
            return Err(cannot_fetch(wrong, reference));
        }
        Ok(bytes.into())
    }

    /// The signatures that lie with a component, as text. What is no signature is passed over.
    ///
    /// # Errors
    ///
    /// They cannot be asked for.
    pub async fn signatures(
        &self,
        reference: &PluginRef,
        manifest: Option<Digest>,
    ) -> Result<Vec<String>, Failure> {
        let mut texts: Vec<Vec<u8>> = Vec::new();
        match (reference, manifest) {
            (PluginRef::Registry(name), Some(manifest)) => {
                let referrers = self.client.referrers(name, &manifest).await?;
                let of_ours = |one: &&Descriptor| {
                    one.extra.get("artifactType").is_none_or(|kind| kind == SIGNATURE)
                };
                let listed = referrers.manifests.iter().filter(|one| one.is_manifest());
                for entry in listed.filter(of_ours).take(MAX_SIGNATURES) {
                    let found = self.client.manifest_of(name, entry).await?;
                    if let Some(layer) = artifact::signature_of(&found.document, &manifest) {
                        texts.push(self.client.blob_bytes(name, &layer).await?);
                    }
                }
            }
            (PluginRef::Web(web), _) => {
                let mut url: Url =
                    web.url.parse().map_err(|e| Failure::invalid("no URL").cause(&e))?;
                url.set_path(&format!("{}{SUFFIX}", url.path()));
                texts.extend(self.file(url.as_str(), MAX_SIGNATURE).await?);
            }
            _ => {}
        }
        let readable = texts.into_iter().filter(|text| Signature::read(text, "it").is_ok());
        Ok(readable.filter_map(|text| String::from_utf8(text).ok()).collect())
    }

    /// A file of a web server; none if there is none.
    async fn file(&self, url: &str, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
        let parsed: Url = url.parse().map_err(|e| Failure::invalid("no URL").cause(&e))?;
        let wanted = Download {
            url: &parsed,
            what: url,
            headers: HeaderMap::new(),
            authorization: None,
            known: None,
            limit,
        };
        let mut bytes = Memory(Vec::new());
        match download(&self.clients, Retries::default(), &wanted, &mut bytes).await {
            Ok(_) => Ok(Some(bytes.0)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind == ErrorKind::OutOfReach => {
                Err(Failure::from(error).hint("to allow it: --allow network.private"))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn cannot_fetch(failure: Failure, reference: &PluginRef) -> Failure {
    failure.context(format!("cannot fetch the plugin {reference}"))
}

/// A download in memory; how much it may be, the download says.
struct Memory(Vec<u8>);

impl Sink for Memory {
    fn begin(&mut self, _: Option<u64>) -> io::Result<()> {
        self.0.clear();
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }
}
