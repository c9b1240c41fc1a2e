//! Pulls from registries (OCI distribution specification 1.1).
//!
//! Everything that is returned was checked against its digest and size. Registries on this machine
//! (127.0.0.0/8, `::1`, `localhost`) are asked over plain HTTP, all others over HTTPS. Credentials go to
//! where [`auth`](self) rules allow and nowhere else. Dropping a future cancels its request.
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
mod challenge;
mod credentials;
mod http;

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use sha2::{Digest as _, Sha256};
use wbuild_graph::{Digest, Platform};
pub use wbuild_http::Retries;
use wbuild_http::{body, is_loopback};

pub use challenge::{Challenge, parse_challenges};
pub use credentials::{
    Anonymous, Credential, CredentialHelper, Credentials, DockerConfig, DockerCredentials,
};

use crate::config::ImageConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{ImageMeta, MAX_NESTED_INDEXES, check_config_descriptor};
use crate::media::{ACCEPT_MANIFESTS, Descriptor, Document, MAX_CONFIG, MAX_MANIFEST, mismatch};
use crate::reference::{DEFAULT_REGISTRY, Reference, split_port};

use auth::{Auth, Scope};
use http::{Http, Request, transport_error};

/// Progress that makes up for a cut connection: a server that gives less before each cut is given up.
const GOOD_PROGRESS: u64 = 64 << 10;

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
    /// Registries (as in references) beyond this machine that are asked over plain HTTP.
    pub plain_http: BTreeSet<String>,
    /// PEM files with roots to trust besides those of the system.
    pub extra_roots: Vec<Vec<u8>>,
    /// Pairs of a registry and the host of a token service outside its domain that may have its
    /// credentials.
    pub trusted_realms: Vec<(String, String)>,
    /// URL of a proxy for HTTPS.
    pub https_proxy: Option<String>,
    /// Hosts that are asked without the proxy, comma separated, as in the variable `NO_PROXY`.
    pub no_proxy: Option<String>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            user_agent: concat!("wbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
            retries: Retries::default(),
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(60),
            plain_http: BTreeSet::new(),
            extra_roots: Vec::new(),
            trusted_realms: Vec::new(),
            https_proxy: None,
            no_proxy: None,
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
    plain_http: BTreeSet<String>,
}

impl Client {
    /// A client; nothing is read or sent yet.
    pub fn new(options: ClientOptions, credentials: Arc<dyn Credentials>) -> Self {
        let auth = Auth::new(credentials, options.trusted_realms.clone());
        let plain_http = options.plain_http.clone();
        Client(Arc::new(Inner { http: Http::new(options), auth, plain_http }))
    }

    /// What `reference` names at present: media type, digest and size of its manifest or index. Asks
    /// without fetching where the registry allows. The answer is the registry's claim until
    /// [`manifest`](Self::manifest) has fetched and checked it.
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor> {
        let what = reference.to_string();
        let target = reference.target();
        let response =
            self.request(Method::HEAD, reference, "manifests", &target, 0, true, &what).await;
        match response {
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
        Ok(self.manifest(reference).await?.descriptor)
    }

    /// Fetches the manifest or index that `reference` names. With a digest in the reference the content
    /// is checked against it.
    pub async fn manifest(&self, reference: &Reference) -> Result<Fetched> {
        let what = reference.to_string();
        self.document(reference, &reference.target(), reference.digest(), &what).await
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
        let fetched = self.document(reference, &digest.to_string(), Some(digest), &what).await?;
        descriptor.verify(&what, &fetched.bytes)?;
        // The descriptor's type must fit the content too, not only the server's.
        let document = Document::decode(&fetched.bytes, Some(&descriptor.media_type), &what)?;
        Ok(Fetched { descriptor: descriptor.clone(), bytes: fetched.bytes, document })
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
                    let mut bytes = Vec::new();
                    self.blob(reference, &manifest.config, &mut bytes).await?;
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

    /// Fetches a small blob, such as a config, into memory.
    pub async fn blob_bytes(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>> {
        if descriptor.size > MAX_CONFIG {
            let digest = descriptor.digest;
            return Err(Error::limit(format!("{digest} is larger than {MAX_CONFIG} bytes")));
        }
        let mut bytes = Vec::new();
        self.blob(reference, descriptor, &mut bytes).await?;
        Ok(bytes)
    }

    /// Streams the blob `descriptor` of the repository of `reference` into `sink`. A connection that
    /// breaks is taken up again where it broke.
    ///
    /// `sink` receives each byte once, in order, never more than the descriptor's size. What it holds
    /// counts only if this returns `Ok`: digest and size are checked at the end. Writes happen on the
    /// calling task, so `sink` should be quick (a file, a channel).
    pub async fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        sink: &mut (dyn Write + Send),
    ) -> Result<()> {
        let digest = descriptor.digest;
        let what = format!("blob {digest} of {}", reference.name());
        let retries = self.0.http.retries();
        let mut hash = Sha256::new();
        let (mut have, mut good, mut failures) = (0u64, 0u64, 0u32);
        loop {
            let target = digest.to_string();
            let mut response =
                self.request(Method::GET, reference, "blobs", &target, have, false, &what).await?;
            let mut skip = match (response.status(), have) {
                (StatusCode::PARTIAL_CONTENT, 1..) => {
                    let range = response.headers().get(CONTENT_RANGE).and_then(|r| r.to_str().ok());
                    if !range.is_some_and(|r| r.starts_with(&format!("bytes {have}-"))) {
                        let registry = reference.registry();
                        return Err(Error::invalid(format!(
                            "{registry} answers with another part of {what}"
                        )));
                    }
                    0
                }
                (StatusCode::OK, _) => {
                    if let Some(length) = response.content_length()
                        && length != descriptor.size
                    {
                        let size = descriptor.size;
                        let message = format!("{what} has {length} bytes instead of {size}");
                        return Err(Error::new(ErrorKind::Mismatch, message));
                    }
                    // No ranges here: what we have comes once more.
                    have
                }
                (status, _) => {
                    let registry = reference.registry();
                    return Err(Error::invalid(format!("{registry} answers {status} for {what}")));
                }
            };
            let url = response.url().clone();
            let cause = loop {
                match response.chunk().await {
                    Ok(Some(chunk)) => {
                        let passed = skip.min(chunk.len() as u64);
                        skip -= passed;
                        let fresh = &chunk[usize::try_from(passed).expect("part of a chunk")..];
                        if fresh.len() as u64 > descriptor.size - have {
                            let size = descriptor.size;
                            let message = format!("{what} has more than {size} bytes");
                            return Err(Error::new(ErrorKind::Mismatch, message));
                        }
                        sink.write_all(fresh)
                            .map_err(|e| Error::io(format!("cannot store {what}"), e))?;
                        hash.update(fresh);
                        have += fresh.len() as u64;
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(transport_error(&what, &url, error)),
                }
            };
            if have == descriptor.size {
                let found = Digest::from_bytes(hash.finalize().into());
                if found != digest {
                    return Err(mismatch(&what, descriptor, have, found));
                }
                return Ok(());
            }
            if have - good >= GOOD_PROGRESS {
                (good, failures) = (have, 0);
            }
            failures += 1;
            if failures >= retries.attempts {
                return Err(cause.unwrap_or_else(|| {
                    let size = descriptor.size;
                    let message = format!("{what} ends after {have} of {size} bytes");
                    Error::new(ErrorKind::Mismatch, message)
                }));
            }
            tokio::time::sleep(retries.delay(failures)).await;
        }
    }

    async fn document(
        &self,
        reference: &Reference,
        target: &str,
        pinned: Option<Digest>,
        what: &str,
    ) -> Result<Fetched> {
        let retries = self.0.http.retries();
        let mut failures = 0;
        loop {
            let response =
                self.request(Method::GET, reference, "manifests", target, 0, true, what).await?;
            let media_type = header(response.headers(), CONTENT_TYPE.as_str()).map(str::to_owned);
            let limit = usize::try_from(MAX_MANIFEST).expect("fits");
            let bytes = match body(response, limit, what).await.map_err(Error::from) {
                Ok(bytes) => bytes,
                Err(error) => {
                    failures += 1;
                    if error.kind() != ErrorKind::Unavailable || failures >= retries.attempts {
                        return Err(error);
                    }
                    tokio::time::sleep(retries.delay(failures)).await;
                    continue;
                }
            };
            let digest = Digest::of(&bytes);
            if let Some(pinned) = pinned
                && pinned != digest
            {
                let message = format!("{what} has the digest {digest}");
                return Err(Error::new(ErrorKind::Mismatch, message));
            }
            let document = Document::decode(&bytes, media_type.as_deref(), what)?;
            let descriptor = Descriptor::new(document.media_type(), digest, bytes.len() as u64);
            return Ok(Fetched { descriptor, bytes, document });
        }
    }

    #[allow(clippy::too_many_arguments)] // One place builds requests; a struct would only repeat them.
    async fn request(
        &self,
        method: Method,
        reference: &Reference,
        kind: &str,
        target: &str,
        from: u64,
        manifest: bool,
        what: &str,
    ) -> Result<reqwest::Response> {
        let registry = reference.registry();
        let (host, _) = split_port(registry);
        let plain = is_loopback(host) || self.0.plain_http.contains(registry);
        let scheme = if plain { "http" } else { "https" };
        let host = if registry == DEFAULT_REGISTRY { "registry-1.docker.io" } else { registry };
        let repository = reference.repository();
        let url = format!("{scheme}://{host}/v2/{repository}/{kind}/{target}");
        let url = Url::parse(&url)
            .map_err(|e| Error::invalid(format!("{what} has no valid address")).because(e))?;
        let scope = Scope { registry: registry.to_owned(), repository: repository.to_owned() };
        let accept = manifest.then(|| {
            HeaderValue::from_str(&ACCEPT_MANIFESTS.join(", ")).expect("media types are ASCII")
        });
        let request = Request { method, url, scope: &scope, accept, from, what };
        self.0.http.send(&self.0.auth, &request).await
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What the headers of a manifest say of it; `None` where something is missing or malformed.
fn described(headers: &HeaderMap) -> Option<Descriptor> {
    let digest = header(headers, "docker-content-digest")?.parse().ok()?;
    let size = header(headers, CONTENT_LENGTH.as_str())?
        .parse()
        .ok()
        .filter(|s| (1..=MAX_MANIFEST).contains(s))?;
    let media_type = header(headers, CONTENT_TYPE.as_str())?.split(';').next()?.trim();
    let descriptor = Descriptor::new(media_type, digest, size);
    (descriptor.is_index() || descriptor.is_manifest()).then_some(descriptor)
}
