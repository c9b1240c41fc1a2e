//! From names, files and bytes to loaded plugins.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use wbuild_api::extension::{Frontend, Origin};
use wbuild_bundled::{Bundled, Kind};
use wbuild_engine::FindFrontend;
use wbuild_graph::{Digest, Failure};
use wbuild_plugin::{Grants, Plugin, PluginHost, PluginSource};

/// What reads the definition.
#[derive(Clone)]
pub enum FrontendSource {
    /// One that comes with wbuild: `dockerfile`, `earthfile`, `yaml`, `steps`.
    Bundled(String),
    /// A component in a file.
    File(PathBuf),
    /// A component in memory, and what it is called.
    Component(String, Arc<[u8]>),
    /// One in this process.
    Native(Arc<dyn Frontend>),
}

impl From<&str> for FrontendSource {
    fn from(name: &str) -> Self {
        FrontendSource::Bundled(name.to_owned())
    }
}

impl From<PathBuf> for FrontendSource {
    fn from(path: PathBuf) -> Self {
        FrontendSource::File(path)
    }
}

impl From<Arc<dyn Frontend>> for FrontendSource {
    fn from(frontend: Arc<dyn Frontend>) -> Self {
        FrontendSource::Native(frontend)
    }
}

impl FrontendSource {
    pub(crate) fn load(&self, host: &PluginHost) -> Result<Arc<dyn Frontend>, Failure> {
        match self {
            FrontendSource::Bundled(name) => bundled(host, Kind::Frontend, name)?.frontend(),
            FrontendSource::File(path) => {
                let plugin = host.load(&path.to_string_lossy(), path.as_path())?;
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                plugin.granted(from(path.to_string_lossy().into_owned())).frontend()
            }
            FrontendSource::Component(name, bytes) => {
                let plugin = host.load(name, PluginSource::Bytes(Arc::clone(bytes)))?;
                plugin.granted(from(format!("memory:{name}"))).frontend()
            }
            FrontendSource::Native(frontend) => Ok(Arc::clone(frontend)),
        }
    }
}

/// What a component from elsewhere is trusted with.
fn from(place: String) -> Grants {
    Grants { origin: Origin::From(place), ..Grants::default() }
}

/// A bundled component by its name.
pub(crate) fn bundled(host: &PluginHost, kind: Kind, name: &str) -> Result<Plugin, Failure> {
    match wbuild_bundled::find(kind, name) {
        Some(bundled) => load(host, bundled),
        None => {
            let all = wbuild_bundled::all().iter().filter(|bundled| bundled.kind == kind);
            let names: Vec<&str> = all.map(|bundled| bundled.name).collect();
            let message = format!("no plugin that comes with wbuild is called {name:?}");
            Err(Failure::not_found(message).hint(format!("there are {}", names.join(", "))))
        }
    }
}

/// A bundled component. What comes with wbuild may call other frontends; nothing else may.
fn load(host: &PluginHost, bundled: &Bundled) -> Result<Plugin, Failure> {
    let digest = Digest::from_bytes(bundled.digest);
    let source = PluginSource::Embedded { bytes: bundled.bytes, digest };
    let grants = Grants { nested: true, origin: Origin::Bundled, ..Grants::default() };
    Ok(host.load(bundled.name, source)?.granted(grants))
}

/// What a frontend may call: frontends that come with wbuild, by their names. Each is loaded once.
pub(crate) fn callable(host: &PluginHost) -> Arc<dyn FindFrontend> {
    let host = host.clone();
    let loaded: Mutex<BTreeMap<String, Arc<dyn Frontend>>> = Mutex::default();
    Arc::new(move |name: &str| {
        let mut loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frontend) = loaded.get(name) {
            return Ok(Arc::clone(frontend));
        }
        let frontend = bundled(&host, Kind::Frontend, name)?.frontend()?;
        loaded.insert(name.to_owned(), Arc::clone(&frontend));
        Ok(frontend)
    })
}
