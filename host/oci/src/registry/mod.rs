//! Pulls from registries and pushes to them (OCI distribution specification 1.1).
//!
//! Everything that is returned was checked against its digest and size. Registries on this machine
//! (127.0.0.0/8, `::1`, `localhost`) are asked over plain HTTP, all others over HTTPS, unless [`Hosts`]
//! says otherwise. Mirrors are asked first and never have the last word. Credentials go to where
//! [`auth`](self) rules allow and nowhere else. Dropping a future cancels its request.
//!
//! ```no_run
//! # async fn pull() -> wbuild_oci::Result<()> {
//! use wbuild_oci::registry::{Anonymous, Client, ClientOptions};
//! let client = Client::new(ClientOptions::default(), std::sync::Arc::new(Anonymous));
//! let reference = "alpine:3".parse()?;
//! let image = client.image(&reference, &"linux/amd64".parse().expect("a platform")).await?;
//! for layer in &image.manifest.layers {
//!     let mut blob = Vec::new();
//!     client.blob(&reference, layer, &mut blob).await?;
//! }
//! # Ok(()) }
//! ```

mod auth;
mod blob;
mod challenge;
mod credentials;
mod file_sink;
mod hosts;
mod http;
mod push;
mod referrers;
mod send;
mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use wbuild_graph::{Digest, Platform};
use wbuild_http::body;
pub use wbuild_http::{Proxies, Retries};

pub use blob::BlobSink;
pub use challenge::{Challenge, parse_challenges};
pub use credentials::{
    Anonymous, Credential, CredentialHelper, Credentials, DockerConfig, DockerCredentials,
};
pub use file_sink::FileSink;
pub use hosts::{Host, Hosts, Identity, Mirror, Trust};
pub use push::{PushSource, Pushed};
pub use referrers::Referrers;

use crate::config::ImageConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ImageMeta, MAX_NESTED_INDEXES, check_config_descriptor};
use crate::media::{ACCEPT_MANIFESTS, Descriptor, Document, MAX_MANIFEST};
use crate::reference::Reference;

use auth::{Access, Auth, Scope};
use hosts::{Endpoint, Sites};
use http::{Http, Request};

/// In which a registry says the digest of what it sends.
const DIGEST_HEADER: &str = "docker-content-digest";

/// What a [`Client`] is set up with.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Sent with every request.
    pub user_agent: String,
    /// See [`Retries`].
    pub retries: Retries,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest time in which nothing arrives.
    pub stall_timeout: Duration,
    /// Bytes of a blob that are sent in one request.
    pub upload_chunk: u64,
    /// Through whom to ask.
    pub proxies: Proxies,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            user_agent: concat!("wbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
            retries: Retries::default(),
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(60),
            upload_chunk: 16 << 20,
            proxies: Proxies::default(),
        }
    }
}

/// A manifest or index as fetched and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetched {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The decoded document.
    pub document: Document,
}

/// Talks to registries. Cheap to clone; clones share connections and tokens. Use one within one tokio
/// runtime.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    http: Http,
    auth: Auth,
    sites: Sites,
}

/// What is asked of a repository.
#[derive(Clone)]
struct Wanted<'a> {
    method: Method,
    /// `manifests` or `blobs`.
    kind: &'a str,
    /// A digest or a tag.
    target: &'a str,
    /// First byte wanted; 0 for all.
    from: u64,
}

impl<'a> Wanted<'a> {
    fn new(method: Method, kind: &'a str, target: &'a str) -> Self {
        Wanted { method, kind, target, from: 0 }
    }
}

impl Client {
    /// A client that asks every host as is usual; nothing is read or sent yet.
    pub fn new(options: ClientOptions, credentials: Arc<dyn Credentials>) -> Self {
        Self::with_hosts(options, credentials, Arc::new(BTreeMap::new()))
    }

    /// A client that asks hosts as `hosts` says.
    pub fn with_hosts(
        options: ClientOptions,
        credentials: Arc<dyn Credentials>,
        hosts: Arc<dyn Hosts>,
    ) -> Self {
        let (http, auth) = (Http::new(options.retries), Auth::new(credentials));
        Client(Arc::new(Inner { http, auth, sites: Sites::new(options, hosts) }))
    }

    /// Asks the mirrors of a registry no more. Whether there were any to ask: what the client has
    /// answered about the registry may have been their word.
    pub async fn without_mirrors(&self, registry: &str) -> bool {
        match self.0.sites.route(registry).await {
            Ok(route) => route.mirrors.iter().filter(|mirror| mirror.give_up()).count() > 0,
            Err(_) => false,
        }
    }

    /// What `reference` names at present: media type, digest and size of its manifest or index. Asks
    /// without fetching where the registry allows. The answer is the registry's claim until
    /// [`manifest`](Self::manifest) has fetched and checked it.
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor> {
        let mut places = self.0.sites.places(reference.registry()).await?;
        loop {
            let place = places.next();
            let result = self.resolve_at(&place, reference).await;
            if let Some(done) = places.settle(&place, result) {
                return done;
            }
        }
    }

    async fn resolve_at(&self, endpoint: &Endpoint, reference: &Reference) -> Result<Descriptor> {
        let (what, target) = (reference.to_string(), reference.target());
        let wanted = Wanted::new(Method::HEAD, "manifests", &target);
        match self.request(endpoint, reference, &wanted, &what).await {
            Ok(response) => {
                if let Some(descriptor) = described(response.headers())
                    && reference.digest().is_none_or(|pinned| pinned == descriptor.digest)
                {
                    return Ok(descriptor);
                }
            }
            // Some servers know no HEAD; the full request tells what is the matter.
            Err(error) if error.kind() == ErrorKind::Invalid => {}
            Err(error) => return Err(error),
        }
        let fetched = self.document(endpoint, reference, &target, reference.digest(), &what);
        Ok(fetched.await?.descriptor)
    }

    /// Fetches the manifest or index that `reference` names. With a digest in the reference the content
    /// is checked against it.
    pub async fn manifest(&self, reference: &Reference) -> Result<Fetched> {
        let (what, target) = (reference.to_string(), reference.target());
        let mut places = self.0.sites.places(reference.registry()).await?;
        loop {
            let place = places.next();
            let result = self.document(&place, reference, &target, reference.digest(), &what).await;
            if let Some(done) = places.settle(&place, result) {
                return done;
            }
        }
    }

    /// Fetches the manifest or index that `descriptor` names in the repository of `reference`, and checks
    /// type, size and digest.
    pub async fn manifest_of(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Fetched> {
        let digest = descriptor.digest;
        let what = format!("{}@{digest}", reference.name());
        if descriptor.size > MAX_MANIFEST {
            return Err(Error::limit(format!("{what} is larger than {MAX_MANIFEST} bytes")));
        }
        let bytes = match descriptor.inline() {
            Some(bytes) => bytes,
            None => self.by_digest(reference, descriptor, &what).await?,
        };
        // The descriptor's type must fit the content too, not only the server's.
        let document = Document::decode(&bytes, Some(&descriptor.media_type), &what)?;
        Ok(Fetched { descriptor: descriptor.clone(), bytes, document })
    }

    /// Fetches the image that `reference` names for `platform`: manifest and config, no layers.
    pub async fn image(&self, reference: &Reference, platform: &Platform) -> Result<ImageMeta> {
        let root = self.manifest(reference).await?;
        self.image_of(reference, root, platform).await
    }

    /// Like [`image`](Self::image), from a manifest or index at hand.
    pub async fn image_of(
        &self,
        reference: &Reference,
        root: Fetched,
        platform: &Platform,
    ) -> Result<ImageMeta> {
        let what = reference.to_string();
        let root_descriptor = root.descriptor.clone();
        let mut fetched = root;
        for _ in 0..=MAX_NESTED_INDEXES {
            let index = match fetched.document {
                Document::Index(index) => index,
                Document::Manifest(manifest) => {
                    check_config_descriptor(&manifest.config, &what)?;
                    let bytes = self.blob_bytes(reference, &manifest.config).await?;
                    let config = ImageConfig::decode(&bytes, &format!("the config of {what}"))?;
                    let Fetched { descriptor, bytes, .. } = fetched;
                    let platform = Some(platform);
                    return ImageMeta::new(
                        root_descriptor,
                        descriptor,
                        bytes,
                        manifest,
                        config,
                        platform,
                        &what,
                    );
                }
            };
            let chosen = index.choose(platform, &what)?;
            fetched = self.manifest_of(reference, chosen).await?;
        }
        Err(Error::limit(format!("{what} nests more than {MAX_NESTED_INDEXES} indexes")))
    }

    async fn by_digest(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        what: &str,
    ) -> Result<Vec<u8>> {
        let target = descriptor.digest.to_string();
        let mut places = self.0.sites.places(reference.registry()).await?;
        loop {
            let place = places.next();
            let pinned = Some(descriptor.digest);
            let fetched = self.document(&place, reference, &target, pinned, what).await;
            let result = fetched.and_then(|fetched| {
                descriptor.verify(what, &fetched.bytes)?;
                Ok(fetched.bytes)
            });
            if let Some(done) = places.settle(&place, result) {
                return done;
            }
        }
    }

    async fn document(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        target: &str,
        pinned: Option<Digest>,
        what: &str,
    ) -> Result<Fetched> {
        let retries = self.0.http.retries();
        let attempts = endpoint.attempts(retries.attempts);
        let mut failures = 0;
        loop {
            let wanted = Wanted::new(Method::GET, "manifests", target);
            let response = self.request(endpoint, reference, &wanted, what).await?;
            let media_type = header(response.headers(), CONTENT_TYPE.as_str()).map(str::to_owned);
            // Of no weight where the digest is known; else it may show that something was changed.
            let said = header(response.headers(), DIGEST_HEADER).and_then(|text| text.parse().ok());
            let limit = usize::try_from(MAX_MANIFEST).expect("fits");
            let bytes = match body(response, limit, what).await.map_err(Error::from) {
                Ok(bytes) => bytes,
                Err(error) => {
                    failures += 1;
                    if error.kind() != ErrorKind::Unavailable || failures >= attempts {
                        return Err(error);
                    }
                    tokio::time::sleep(retries.delay(failures)).await;
                    continue;
                }
            };
            let digest = Digest::of(&bytes);
            if let Some(expected) = pinned.or(said)
                && expected != digest
            {
                let message = format!("{what} has the digest {digest}");
                return Err(Error::new(ErrorKind::Mismatch, message));
            }
            let document = Document::decode(&bytes, media_type.as_deref(), what)?;
            let descriptor = Descriptor::new(document.media_type(), digest, bytes.len() as u64);
            return Ok(Fetched { descriptor, bytes, document });
        }
    }

    async fn request(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        wanted: &Wanted<'_>,
        what: &str,
    ) -> Result<reqwest::Response> {
        let repository = endpoint.repository(reference);
        let url = endpoint.url(&repository, wanted.kind, wanted.target, what)?;
        let scope =
            Scope { registry: endpoint.site.name.clone(), repository, access: Access::Pull };
        let accept = (wanted.kind == "manifests").then(|| {
            HeaderValue::from_str(&ACCEPT_MANIFESTS.join(", ")).expect("media types are ASCII")
        });
        let request = Request {
            site: &endpoint.site,
            attempts: endpoint.attempts(self.0.http.retries().attempts),
            method: wanted.method.clone(),
            url,
            scope: &scope,
            accept,
            from: wanted.from,
            what,
        };
        self.0.http.send(&self.0.auth, &request).await
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What the headers of a manifest say of it; `None` where something is missing or malformed.
fn described(headers: &HeaderMap) -> Option<Descriptor> {
    let digest = header(headers, DIGEST_HEADER)?.parse().ok()?;
    let size = header(headers, CONTENT_LENGTH.as_str())?
        .parse()
        .ok()
        .filter(|s| (1..=MAX_MANIFEST).contains(s))?;
    let media_type = header(headers, CONTENT_TYPE.as_str())?.split(';').next()?.trim();
    let descriptor = Descriptor::new(media_type, digest, size);
    (descriptor.is_index() || descriptor.is_manifest()).then_some(descriptor)
}
