//! How registries are asked: by which scheme, whom to trust, which mirrors come first.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Url;
use tokio::sync::{OnceCell, Semaphore};
use wbuild_http::{Clients, Options, is_loopback, same_origin};
pub use wbuild_http::{Identity, Trust};

use super::ClientOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::reference::{DEFAULT_REGISTRY, Reference, split_port};

/// Blobs that are fetched from one host, or sent to it, at once, unless its configuration says otherwise.
const CONCURRENCY: usize = 4;
/// Longer than any request takes.
const A_DAY: Duration = Duration::from_secs(24 * 3600);
/// Tries of a request to a mirror: there is somebody else to ask.
const MIRROR_ATTEMPTS: u32 = 2;

/// How one host is asked.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Who is asked first for what this registry holds, in order.
    pub mirrors: Vec<Mirror>,
    /// Whether it is asked over plain HTTP; `None`: if it is on this machine and nothing is said of
    /// TLS.
    pub http: Option<bool>,
    /// How TLS is spoken. What the host leads to (storage, a token service) is asked in the same way,
    /// but sees no client certificate.
    pub trust: Trust,
    /// Hosts of token services outside of its domain that may have its credentials.
    pub realms: Vec<String>,
    /// Blobs fetched, and blobs sent, at once; `None`: a few.
    pub concurrency: Option<usize>,
}

/// Finds out how hosts are asked.
#[async_trait]
pub trait Hosts: Send + Sync {
    /// What is said of a host, as it is written in references and mirrors. Asked once, before the
    /// first request to it.
    async fn host(&self, name: &str) -> Result<Host>;
}

#[async_trait]
impl Hosts for BTreeMap<String, Host> {
    async fn host(&self, name: &str) -> Result<Host> {
        Ok(self.get(name).cloned().unwrap_or_default())
    }
}

/// A host that holds what another registry does, below a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    host: String,
    path: String,
}

impl FromStr for Mirror {
    type Err = Error;

    /// Reads `HOST[:PORT][/PATH]`.
    fn from_str(text: &str) -> Result<Mirror> {
        let bad = || {
            let shown: String = text.chars().take(200).flat_map(char::escape_debug).collect();
            Error::invalid(format!("\"{shown}\" is no mirror"))
                .hint("expected HOST[:PORT][/PATH], without https://")
        };
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        // The rules of names of images are those of the path.
        let example = format!("{}/x", text.trim_end_matches('/'));
        let example: Reference = example.parse().map_err(|_| bad())?;
        if example.registry() != host.to_ascii_lowercase() {
            return Err(bad());
        }
        let path = path.trim_end_matches('/').to_owned();
        Ok(Mirror { host: host.to_ascii_lowercase(), path })
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.path.is_empty() { "" } else { "/" };
        write!(f, "{}{slash}{}", self.host, self.path)
    }
}

/// One host, with its connections.
pub(super) struct Site {
    /// As in references: what credentials are looked up by.
    pub(super) name: String,
    /// Scheme and host, without a path.
    pub(super) origin: Url,
    /// See [`Host::realms`].
    pub(super) realms: Vec<String>,
    /// One for each blob that is fetched at once.
    pub(super) slots: Semaphore,
    /// Blobs that are sent to it at once.
    pub(super) concurrency: usize,
    /// Bytes of a blob that are sent to it in one request.
    pub(super) upload_chunk: u64,
    /// Longest time in which nothing moves.
    pub(super) stall_timeout: Duration,
    receiving: Connections,
    sending: Connections,
}

/// Clients for a host and for where it leads to.
struct Connections {
    own: Clients,
    /// If that makes a difference.
    others: Option<Clients>,
}

impl Site {
    pub(super) fn new(name: &str, host: &Host, options: &ClientOptions) -> Result<Site> {
        let tls = host.trust.insecure
            || !host.trust.extra_roots.is_empty()
            || !host.trust.identities.is_empty();
        let (bare, _) = split_port(name);
        let plain = host.http.unwrap_or(is_loopback(bare) && !tls);
        let scheme = if plain { "http" } else { "https" };
        let authority = if name == DEFAULT_REGISTRY { "registry-1.docker.io" } else { name };
        let origin = Url::parse(&format!("{scheme}://{authority}/"))
            .map_err(|e| Error::invalid(format!("{name} is no host")).because(e))?;
        let clients = |trust: Trust, stall_timeout: Duration| {
            Clients::new(Options {
                user_agent: options.user_agent.clone(),
                connect_timeout: options.connect_timeout,
                stall_timeout,
                proxies: options.proxies.clone(),
                trust,
                ..Options::default()
            })
        };
        let anonymous = Trust { identities: Vec::new(), ..host.trust.clone() };
        let connections = |stall_timeout: Duration| Connections {
            own: clients(host.trust.clone(), stall_timeout),
            others: (!host.trust.identities.is_empty())
                .then(|| clients(anonymous.clone(), stall_timeout)),
        };
        let concurrency = host.concurrency.unwrap_or(CONCURRENCY).max(1);
        Ok(Site {
            name: name.to_owned(),
            origin,
            realms: host.realms.clone(),
            slots: Semaphore::new(concurrency),
            concurrency,
            upload_chunk: options.upload_chunk.max(1),
            stall_timeout: options.stall_timeout,
            receiving: connections(options.stall_timeout),
            sending: connections(A_DAY),
        })
    }

    /// The client for a URL that a request to this host leads to.
    pub(super) async fn client(&self, url: &Url) -> Result<&reqwest::Client> {
        self.one_of(&self.receiving, url).await
    }

    /// The same for a request that sends much: its answer may be long in coming, so whoever sends it
    /// looks after its time.
    pub(super) async fn sender(&self, url: &Url) -> Result<&reqwest::Client> {
        self.one_of(&self.sending, url).await
    }

    async fn one_of<'a>(&self, all: &'a Connections, url: &Url) -> Result<&'a reqwest::Client> {
        let clients = match &all.others {
            Some(others) if !same_origin(url, &self.origin) => others,
            _ => &all.own,
        };
        Ok(clients.client(url).await?)
    }
}

/// A place where the content of a registry can be asked for.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) site: Arc<Site>,
    /// What mirrors put before the names of repositories, with a slash at the end, or nothing.
    prefix: String,
    /// The registry that it mirrors, and whether it has shown to be of no use.
    mirrored: Option<(String, Arc<AtomicBool>)>,
}

impl Endpoint {
    /// The repository of a reference, as it is called here.
    pub(super) fn repository(&self, reference: &Reference) -> String {
        format!("{}{}", self.prefix, reference.repository())
    }

    /// The URL of something in a repository.
    pub(super) fn url(
        &self,
        repository: &str,
        kind: &str,
        target: &str,
        what: &str,
    ) -> Result<Url> {
        let mut url = self
            .site
            .origin
            .join(&format!("/v2/{repository}/{kind}/{target}"))
            .map_err(|e| Error::invalid(format!("{what} has no valid address")).because(e))?;
        if let Some((registry, _)) = &self.mirrored {
            // One mirror may stand for several registries.
            url.query_pairs_mut().append_pair("ns", registry);
        }
        Ok(url)
    }

    /// Tries of a request, where the client's options say so many.
    pub(super) fn attempts(&self, usual: u32) -> u32 {
        if self.mirrored.is_some() { usual.min(MIRROR_ATTEMPTS) } else { usual }
    }

    /// Whether it is worth asking.
    fn is_up(&self) -> bool {
        self.mirrored.as_ref().is_none_or(|(_, useless)| !useless.load(Ordering::Relaxed))
    }

    /// A mirror has failed. One that cannot be reached, or that lies, is not asked again.
    fn failed(&self, error: &Error) {
        if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Mismatch) {
            self.give_up();
        }
    }

    /// Asks a mirror no more; whether it was asked until now.
    pub(super) fn give_up(&self) -> bool {
        self.mirrored.as_ref().is_some_and(|(_, useless)| !useless.swap(true, Ordering::Relaxed))
    }
}

/// Where the content of one registry can be had.
pub(super) struct Route {
    /// In order.
    pub(super) mirrors: Vec<Endpoint>,
    /// The registry itself.
    pub(super) origin: Endpoint,
}

/// The places to ask for one thing: the mirrors of a registry, in order, then the registry itself.
/// Whatever a mirror does, the registry has the last word.
pub(super) struct Places {
    route: Arc<Route>,
    next: usize,
    failed: Vec<String>,
}

impl Places {
    /// Where to ask now.
    pub(super) fn next(&mut self) -> Endpoint {
        let left = self.route.mirrors.iter().enumerate().skip(self.next);
        let mirror = left.into_iter().find(|(_, mirror)| mirror.is_up());
        self.next = mirror.map_or(usize::MAX, |(index, _)| index + 1);
        mirror.map_or(&self.route.origin, |(_, mirror)| mirror).clone()
    }

    /// What came of it; `None`: it is to be asked at the next place.
    pub(super) fn settle<T>(&mut self, asked: &Endpoint, result: Result<T>) -> Option<Result<T>> {
        let error = match result {
            Err(error) if asked.mirrored.is_some() && error.kind() != ErrorKind::Io => error,
            // Else it is not the mirror's fault, and nobody else can help.
            Err(error) if !error.has_hint() && !self.failed.is_empty() => {
                return Some(Err(error.hint(self.failed.join("; "))));
            }
            result => return Some(result),
        };
        asked.failed(&error);
        self.failed.push(format!("its mirror {}: {error}", asked.site.name));
        None
    }
}

type Slot<T> = Arc<OnceCell<Arc<T>>>;

/// All hosts, each set up when it is first asked.
pub(super) struct Sites {
    options: ClientOptions,
    hosts: Arc<dyn Hosts>,
    sites: Mutex<HashMap<String, Slot<Site>>>,
    routes: Mutex<HashMap<String, Slot<Route>>>,
}

fn slot<T>(slots: &Mutex<HashMap<String, Slot<T>>>, name: &str) -> Slot<T> {
    let mut slots = slots.lock().expect("no panic while held");
    Arc::clone(slots.entry(name.to_owned()).or_default())
}

impl Sites {
    pub(super) fn new(options: ClientOptions, hosts: Arc<dyn Hosts>) -> Sites {
        Sites { options, hosts, sites: Mutex::default(), routes: Mutex::default() }
    }

    /// The places to ask for something of `registry`.
    pub(super) async fn places(&self, registry: &str) -> Result<Places> {
        Ok(Places { route: self.route(registry).await?, next: 0, failed: Vec::new() })
    }

    /// Where the content of `registry` can be had.
    pub(super) async fn route(&self, registry: &str) -> Result<Arc<Route>> {
        let find = || async {
            let host = self.hosts.host(registry).await?;
            let mut mirrors = Vec::new();
            for mirror in &host.mirrors {
                let slash = if mirror.path.is_empty() { "" } else { "/" };
                mirrors.push(Endpoint {
                    site: self.site(&mirror.host).await?,
                    prefix: format!("{}{slash}", mirror.path),
                    mirrored: Some((registry.to_owned(), Arc::default())),
                });
            }
            let site = self.site(registry).await?;
            let origin = Endpoint { site, prefix: String::new(), mirrored: None };
            Ok(Arc::new(Route { mirrors, origin }))
        };
        slot(&self.routes, registry).get_or_try_init(find).await.cloned()
    }

    async fn site(&self, name: &str) -> Result<Arc<Site>> {
        let find = || async {
            Ok(Arc::new(Site::new(name, &self.hosts.host(name).await?, &self.options)?))
        };
        slot(&self.sites, name).get_or_try_init(find).await.cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_hosts_with_paths() {
        for (text, shown) in [
            ("mirror.example", "mirror.example"),
            ("Mirror.Example:5000", "mirror.example:5000"),
            ("core.example/proxy.docker.io", "core.example/proxy.docker.io"),
            ("core.example/a/b/", "core.example/a/b"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("[::1]:5000/x", "[::1]:5000/x"),
        ] {
            let mirror: Mirror = text.parse().expect(text);
            assert_eq!(mirror.to_string(), shown);
        }
        for text in [
            "",
            "/",
            "https://mirror.example",
            "a b",
            "mirror.example/../x",
            "mirror.example/a?b",
            "mirror",
            "mirror.example/a:b",
            "u@h.example",
        ] {
            assert!(text.parse::<Mirror>().is_err(), "{text}");
        }
    }

    #[test]
    fn schemes() {
        let tls = Trust { insecure: true, ..Trust::default() };
        for (name, http, trust, origin) in [
            ("docker.io", None, Trust::default(), "https://registry-1.docker.io/"),
            ("reg.example:5000", None, Trust::default(), "https://reg.example:5000/"),
            ("reg.example", Some(true), Trust::default(), "http://reg.example/"),
            ("127.0.0.1:5000", None, Trust::default(), "http://127.0.0.1:5000/"),
            ("127.0.0.1:5000", Some(false), Trust::default(), "https://127.0.0.1:5000/"),
            ("localhost:5000", None, tls.clone(), "https://localhost:5000/"),
            ("localhost:5000", Some(true), tls, "http://localhost:5000/"),
        ] {
            let host = Host { http, trust, ..Host::default() };
            let site = Site::new(name, &host, &ClientOptions::default()).expect(name);
            assert_eq!(site.origin.as_str(), origin, "{name} {http:?}");
        }
    }
}
