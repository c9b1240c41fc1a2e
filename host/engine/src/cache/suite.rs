//! Every cache backend of this repository, as the component that it is, over real stores and servers:
//! what all of them promise ([`promises`]), what none of them may be
//! talked into ([`lies`]), what none of them can reach ([`reach`]), and how little of an image passes
//! through them ([`volume`]).

mod lies;
mod promises;
mod reach;
mod volume;
mod web;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use async_trait::async_trait;
use reqwest::Url;
use wbuild_api::extension::{
    CacheBackend, CacheHost, CachePlugin, LayerDescriptor, LogCap, PluginIdentity, RecordEntry,
};
use wbuild_api::session::{BuildContext, RegistryAuth, Session};
use wbuild_graph::{Attrs, BlobDigest, CacheKey, Digest, Failure, ResultId, Severity};
use wbuild_oci::registry::{Anonymous, Client, ClientOptions, Retries};
use wbuild_plugin::{PluginHost, PluginHostOptions};
use wbuild_store::{OpenOptions, Store};
use wbuild_testkit::promises::{id, key, layer as described, much, record};
use wbuild_tests::files::FileServer;
use wbuild_tests::registry::Registry;
use wbuild_tests::skip::{self, Skip};

use super::blobs::StoreBlobs;
use super::kv::KvBuckets;
use super::repository::Progress;
use super::shelf::Shelf;
use super::{http, repository};

/// The components, each compiled once for all tests.
static HOST: LazyLock<PluginHost> = LazyLock::new(|| {
    let folder = root().join("target/tmp/plugin-code");
    PluginHost::new(PluginHostOptions::new(folder))
});

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where a cache is, and so which component keeps it.
enum Place {
    /// In the buckets of the store.
    Local,
    Registry(Registry),
    Directory(PathBuf),
    Web(FileServer),
}

/// A place, and what tests make in it.
struct World {
    place: Place,
    folder: tempfile::TempDir,
    log: Arc<Log>,
    /// Stores that stay open, by name.
    machines: Mutex<BTreeMap<String, Store>>,
}

/// What backends have logged.
#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl LogCap for Log {
    fn log(&self, _severity: Severity, text: String) {
        self.0.lock().expect("lock").push(text);
    }
}

/// A user who has one credential.
struct User(Option<RegistryAuth>);

#[async_trait]
impl Session for User {
    fn id(&self) -> String {
        "user".to_owned()
    }

    fn context(&self, _name: &str) -> Option<Arc<dyn BuildContext>> {
        None
    }

    fn has_secret(&self, _id: &str) -> bool {
        false
    }

    async fn secret(&self, _id: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(None)
    }

    fn has_ssh(&self, _id: &str) -> bool {
        false
    }

    fn ssh_socket(&self, _id: &str) -> Option<PathBuf> {
        None
    }

    async fn known_hosts(&self) -> Result<Vec<u8>, Failure> {
        Ok(Vec::new())
    }

    async fn registry_auth(&self, _host: &str) -> Result<Option<RegistryAuth>, Failure> {
        Ok(self.0.clone())
    }
}

/// Nothing is shown.
fn silent() -> Progress {
    Arc::new(|_, _, _| {})
}

impl World {
    /// One for each place there is. What lies elsewhere can be read by another store.
    fn all() -> Vec<World> {
        let mut worlds = World::elsewhere();
        worlds.push(World::new(|_| Place::Local));
        worlds
    }

    fn elsewhere() -> Vec<World> {
        let mut worlds = World::oci();
        worlds.push(World::new(|_| Place::Web(FileServer::start())));
        worlds
    }

    /// Those of `cache-oci`.
    fn oci() -> Vec<World> {
        let directory = |folder: &Path| {
            let path = folder.join("cache");
            std::fs::create_dir(&path).expect("a directory");
            Place::Directory(path)
        };
        let mut worlds = vec![World::new(directory)];
        worlds.extend(World::registry());
        worlds
    }

    /// `None` where there is no registry to start, unless there has to be one.
    fn registry() -> Option<World> {
        let folder = tempfile::tempdir().expect("a directory");
        let registry = match Registry::start(&folder.path().join("registry"), false) {
            Ok(registry) => registry,
            Err(error) if error.is::<Skip>() && !skip::is_failure() => {
                // Not `eprintln`, which the test harness swallows when the test passes.
                let line = format!("skipped: caches in a registry: {error}\n");
                let _ = std::io::stderr().write_all(line.as_bytes());
                return None;
            }
            Err(error) => panic!("no registry: {error:#}"),
        };
        Some(World {
            place: Place::Registry(registry),
            folder,
            log: Arc::default(),
            machines: Mutex::default(),
        })
    }

    fn new(place: impl FnOnce(&Path) -> Place) -> World {
        let folder = tempfile::tempdir().expect("a directory");
        World {
            place: place(folder.path()),
            folder,
            log: Arc::default(),
            machines: Mutex::default(),
        }
    }

    fn name(&self) -> &'static str {
        match self.place {
            Place::Local => "local",
            Place::Registry(_) => "registry",
            Place::Directory(_) => "directory",
            Place::Web(_) => "web",
        }
    }

    /// A store by name.
    fn store(&self, name: &str) -> Store {
        Store::open(self.folder.path().join(name), OpenOptions::default()).expect("a store")
    }

    /// What a backend gets that keeps this cache, over a shelf of a store.
    fn host(&self, shelf: &Shelf) -> CacheHost {
        let mut host = CacheHost {
            kv: Arc::new(KvBuckets {
                kv: shelf.store().kv().expect("buckets"),
                plugin: PluginIdentity::bundled("suite", Digest::of(b"suite"), "0.1.0"),
            }),
            blobs: Arc::new(StoreBlobs { shelf: shelf.clone() }),
            repository: None,
            http: None,
            log: Arc::clone(&self.log) as Arc<dyn LogCap>,
        };
        let shelf = shelf.clone();
        match &self.place {
            Place::Local => {}
            Place::Registry(registry) => {
                let reference = format!("{}/team/cache:main", registry.host());
                let retries = Retries { attempts: 1, ..Retries::default() };
                let options = ClientOptions { retries, ..ClientOptions::default() };
                let client = Client::new(options, Arc::new(Anonymous));
                let reference = reference.parse().expect("a reference");
                let nowhere: repository::Elsewhere = Arc::new(|_, _| Vec::new());
                host.repository =
                    Some(repository::registry(shelf, client, reference, nowhere, silent()));
            }
            Place::Directory(path) => {
                let dir = File::open(path).expect("a directory").into();
                let (name, tag) = (path.display().to_string(), "main".to_owned());
                host.repository = Some(repository::layout(shelf, dir, name, tag, silent()));
            }
            Place::Web(server) => {
                let origin = Url::parse(&server.url("/cache")).expect("a URL");
                host.http = Some(http::granted(shelf, Arc::new(User(None)), &[origin], silent()));
            }
        }
        host
    }

    /// The store of a machine, which is opened once.
    fn machine(&self, name: &str) -> Store {
        let mut machines = self.machines.lock().expect("lock");
        machines.entry(name.to_owned()).or_insert_with(|| self.store(name)).clone()
    }

    /// Connects a store to the cache, with further options.
    async fn open(&self, store: &Store, mode: &str, options: &[(&str, &str)]) -> Backend {
        self.open_as(store, mode, options, |plugin| plugin).await
    }

    /// The same, of what is made of the plugin.
    async fn open_as(
        &self,
        store: &Store,
        mode: &str,
        options: &[(&str, &str)],
        made: impl FnOnce(Arc<dyn CachePlugin>) -> Arc<dyn CachePlugin>,
    ) -> Backend {
        let (component, own): (_, Vec<(&str, String)>) = match &self.place {
            Place::Local => ("cache-local", Vec::new()),
            Place::Registry(registry) => {
                ("cache-oci", vec![("ref", format!("{}/team/cache:main", registry.host()))])
            }
            Place::Directory(_) => ("cache-oci", vec![("tag", "main".to_owned())]),
            Place::Web(server) => ("cache-http", vec![("url", server.url("/cache"))]),
        };
        let wasm = root().join(format!("target/guests/dist/{component}.wasm"));
        let bytes = std::fs::read(&wasm)
            .unwrap_or_else(|e| panic!("{}: {e}; run: cargo xtask guests", wasm.display()));
        let plugin = made(HOST.load(component, bytes).expect("loads").cache().expect("a backend"));
        let shelf = Shelf::new(store.clone());
        let backend = shelf.connect(&*plugin, self.host(&shelf)).await.expect("an instance");
        let own = own.iter().map(|(key, value)| (*key, value.as_str()));
        let config = own.chain(options.iter().copied());
        let config = config.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        backend.open(mode.to_owned(), Attrs(config)).await.expect("opens");
        Backend(backend)
    }

    /// Exports records with their layers, as a build does.
    async fn export(&self, store: &Store, records: &[RecordEntry]) {
        let backend = self.open(store, "write", &[]).await;
        backend.push_all(records).await;
        backend.0.save(records.to_vec()).await.expect("saves");
        backend.0.commit().await.expect("commits");
    }

    /// The bytes of a blob, where the cache keeps it.
    fn blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        match &self.place {
            Place::Web(server) => server.file(&format!("/cache/blobs/{}", digest.hex())),
            _ => std::fs::read(self.blob_path(digest)).ok(),
        }
    }

    /// Changes what the cache keeps for a blob; `None` takes it away.
    fn set_blob(&self, digest: &Digest, data: Option<&[u8]>) {
        match (&self.place, data) {
            (Place::Web(server), data) => {
                let path = format!("/cache/blobs/{}", digest.hex());
                server.set(&path, data.map(<[u8]>::to_vec));
            }
            (_, Some(data)) => std::fs::write(self.blob_path(digest), data).expect("writes"),
            (_, None) => std::fs::remove_file(self.blob_path(digest)).expect("removes"),
        }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        match &self.place {
            Place::Directory(path) => path.join("blobs/sha256").join(hex),
            Place::Registry(_) => {
                let blobs = "registry/data/docker/registry/v2/blobs/sha256";
                self.folder.path().join(blobs).join(&hex[..2]).join(hex).join("data")
            }
            Place::Local | Place::Web(_) => unreachable!("it keeps no files of blobs"),
        }
    }
}

/// The same place for the promises that every backend makes.
#[async_trait]
impl wbuild_testkit::promises::Place for World {
    async fn open(&self, machine: &str, mode: &str) -> Result<Arc<dyn CacheBackend>, Failure> {
        Ok(World::open(self, &self.machine(machine), mode, &[]).await.0)
    }

    fn put(&self, machine: &str, content: &[u8]) {
        self.machine(machine).put_blob(content).expect("a blob");
    }

    fn held(&self, machine: &str, digest: &Digest) -> Option<Vec<u8>> {
        held(&self.machine(machine), *digest)
    }

    fn is_shared(&self) -> bool {
        !matches!(self.place, Place::Local)
    }
}

/// An open backend.
struct Backend(Arc<dyn CacheBackend>);

impl Backend {
    async fn find(&self, key: CacheKey) -> Vec<RecordEntry> {
        let found = self.0.find(vec![key]).await.expect("finds");
        found.into_iter().next().expect("one list")
    }

    /// The results of a key.
    async fn ids(&self, key: CacheKey) -> Vec<ResultId> {
        self.find(key).await.into_iter().map(|record| record.id).collect()
    }

    async fn push_all(&self, records: &[RecordEntry]) {
        let layers: Vec<LayerDescriptor> =
            records.iter().flat_map(|record| record.layers.clone()).collect();
        for answer in self.0.push(layers).await.expect("pushes") {
            answer.expect("is pushed");
        }
    }
}

/// A layer that a store has.
fn layer(store: &Store, content: &[u8]) -> LayerDescriptor {
    store.put_blob(content).expect("a blob");
    described(content)
}

/// What a store holds of a blob.
fn held(store: &Store, digest: Digest) -> Option<Vec<u8>> {
    store.read_blob(&BlobDigest(digest), 1 << 30).expect("reads")
}
