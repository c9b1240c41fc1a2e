//! What a cache elsewhere may reach: the repository, directory or servers that the user named for it,
//! and nothing else.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use wbuild_api::extension::{CacheBackend, CacheHost, CachePlugin, HttpCap, LogCap, RepositoryCap};
use wbuild_api::request::CacheSpec;
use wbuild_api::session::Session;
use wbuild_graph::{Attrs, Failure};
use wbuild_oci::reference::Reference;
use wbuild_oci::registry::Client;
use wbuild_store::Store;

use super::blobs::StoreBlobs;
use super::http;
use super::kv::KvBuckets;
use super::repository::{self, Elsewhere, Progress};
use super::shelf::Shelf;
use crate::blocking;
use crate::export::attrs::flag;
use crate::source::registry::Registries;

/// Keys that say what the engine is to do; a backend sees the others.
pub(crate) const ENGINES: [&str; 9] = [
    "mode",
    "compression",
    "compression-level",
    "force-compression",
    "ignore-error",
    "mounts",
    "oci-mediatypes",
    "image-manifest",
    INSECURE,
];
/// Of a registry: never mind who it is.
const INSECURE: &str = "registry.insecure";

/// How a capability is used.
pub(crate) struct Moves {
    /// Repositories of a registry that hold a blob already.
    pub(crate) elsewhere: Elsewhere,
    /// Told of what is moved.
    pub(crate) progress: Progress,
}

impl Moves {
    /// For looking things up.
    pub(crate) fn quiet() -> Moves {
        Moves::shown(Arc::new(|_, _, _| {}))
    }

    /// For fetching.
    pub(crate) fn shown(progress: Progress) -> Moves {
        Moves { elsewhere: Arc::new(|_, _| Vec::new()), progress }
    }
}

/// Makes the capabilities of caches elsewhere.
#[derive(Clone)]
pub(crate) struct Grants {
    pub(crate) store: Store,
    pub(crate) session: Arc<dyn Session>,
    pub(crate) registries: Arc<Registries>,
}

impl Grants {
    /// The client for the registry of a cache.
    pub(super) fn client(&self, spec: &CacheSpec) -> Client {
        let insecure = flag(&spec.attrs, INSECURE, false).unwrap_or(false);
        let name = spec.attrs.get("ref").and_then(|name| name.parse::<Reference>().ok());
        let registry = name.filter(|_| insecure).map(|name| name.registry().to_owned());
        self.registries.client_for_push(registry.into_iter().collect::<BTreeSet<_>>())
    }

    /// An instance of a backend with what was granted to it, opened to `mode`.
    pub(crate) async fn connect(
        &self,
        spec: &CacheSpec,
        plugin: &dyn CachePlugin,
        log: &Arc<dyn LogCap>,
        moves: Moves,
        mode: &str,
    ) -> Result<Arc<dyn CacheBackend>, Failure> {
        let shelf = Shelf::new(self.store.clone());
        let host = CacheHost {
            kv: Arc::new(KvBuckets { kv: self.store.kv()?, plugin: plugin.identity() }),
            blobs: Arc::new(StoreBlobs { shelf: shelf.clone() }),
            http: self.http(spec, &shelf, &moves),
            repository: self.repository(spec, &shelf, moves).await?,
            log: Arc::clone(log),
        };
        let backend = shelf.connect(plugin, host).await?;
        backend.open(mode.to_owned(), config(spec)).await?;
        Ok(backend)
    }

    /// Requests to the servers whose URLs stand in the options.
    fn http(&self, spec: &CacheSpec, shelf: &Shelf, moves: &Moves) -> Option<Arc<dyn HttpCap>> {
        let urls = spec.attrs.iter().filter_map(|(_, value)| value.parse::<reqwest::Url>().ok());
        let urls: Vec<_> = urls.filter(|url| matches!(url.scheme(), "http" | "https")).collect();
        let (shelf, session) = (shelf.clone(), Arc::clone(&self.session));
        let progress = Arc::clone(&moves.progress);
        (!urls.is_empty()).then(|| http::granted(shelf, session, &urls, progress))
    }

    async fn repository(
        &self,
        spec: &CacheSpec,
        shelf: &Shelf,
        moves: Moves,
    ) -> Result<Option<Arc<dyn RepositoryCap>>, Failure> {
        let Moves { elsewhere, progress } = moves;
        let shelf = shelf.clone();
        if let Some(name) = spec.attrs.get("ref") {
            let reference: Reference = name.parse()?;
            let client = self.client(spec);
            return Ok(Some(repository::registry(shelf, client, reference, elsewhere, progress)));
        }
        let (directory, make) = match (spec.attrs.get("src"), spec.attrs.get("dest")) {
            (Some(src), _) => (src.to_owned(), false),
            (None, Some(dest)) => (dest.to_owned(), true),
            (None, None) => return Ok(None),
        };
        let tag = spec.attrs.get("tag").unwrap_or("latest").to_owned();
        let dir = blocking({
            let directory = directory.clone();
            move || open(Path::new(&directory), make)
        })
        .await?;
        Ok(Some(repository::layout(shelf, dir, directory, tag, progress)))
    }
}

fn open(directory: &Path, make: bool) -> Result<OwnedFd, Failure> {
    let failed = |error: &dyn std::error::Error| {
        let message = format!("cannot open the directory {}", directory.display());
        Failure::not_found(message).cause(error)
    };
    if make {
        std::fs::create_dir_all(directory).map_err(|error| failed(&error))?;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::empty()).map_err(|error| failed(&error))
}

/// What a backend is told of the user's wishes.
pub(crate) fn config(spec: &CacheSpec) -> Attrs {
    let own = |(key, _): &&(String, String)| !ENGINES.contains(&key.as_str());
    Attrs(spec.attrs.0.iter().filter(own).cloned().collect())
}
