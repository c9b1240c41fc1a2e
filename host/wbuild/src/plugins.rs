//! From references to loaded plugins, and where they run; the one way for the command line and for
//! programs with wbuild inside.
//!
//! Whoever has a [`Supplier`] has said where plugins come from and what they are trusted with.
//! [`Placement`] says which of them run in processes of their own; [`callable`] which of them others
//! may call. Plugins that do not come with wbuild are compiled in a process that can be ended
//! ([`host`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use wbuild_api::extension::{CachePlugin, Frontend, Origin, Runner};
use wbuild_api::session::Session;
use wbuild_engine::{Callee, FindFrontend};
use wbuild_graph::{Attrs, Failure};
use wbuild_http::{Clients, Options, Reach};
use wbuild_isolate::{Isolator, Program};
use wbuild_plugin::{Grants, Plugin, PluginHost, PluginHostOptions, PluginKind, PluginSource};
use wbuild_supply::{Fetcher, PluginRef, Supplied, Supplier, Unattended};

/// First argument of the processes that run, compile or look at plugins; no command of a program's
/// own.
pub const CHILD: &str = "__plugin";

/// Has plugins run in processes that are this program once more.
pub fn isolator() -> Isolator {
    Isolator::new(Program::this(CHILD))
}

/// A host that keeps compiled code in a directory, and has what does not come with wbuild compiled
/// where that can be ended.
pub fn host(code_dir: impl Into<PathBuf>) -> PluginHost {
    let mut options = PluginHostOptions::new(code_dir);
    options.compiler = Some(isolator().compiler());
    PluginHost::new(options)
}

/// Fetches plugins as a session's images are fetched; from private networks, too, if `private`.
pub fn fetcher(session: Arc<dyn Session>, private: bool) -> Fetcher {
    let reach = if private { Reach::Everything } else { Reach::Public };
    let proxies = wbuild_engine::proxies(&session.proxies());
    let clients = Clients::new(Options { reach, proxies, ..Options::default() });
    Fetcher::new(wbuild_engine::registry_client(session), clients)
}

/// Which plugins run in processes of their own, without files, network and most system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolate {
    /// Every plugin.
    All,
    /// Every plugin that does not come with wbuild.
    Untrusted,
    /// None.
    None,
}

/// By what a plugin is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is part of this program.
    Bundled,
    /// The user names a file, or the program has it.
    File,
    /// It is of a registry, of a server, or of a file that a project names.
    Remote,
}

impl Trust {
    /// That of a plugin which was asked for as `name` and is `source`.
    pub fn of(name: &PluginRef, source: &PluginRef) -> Trust {
        match source {
            PluginRef::Bundled(_) | PluginRef::Named(_) => Trust::Bundled,
            // Files of the project came with it.
            PluginRef::File { .. } if matches!(name, PluginRef::Named(_)) => Trust::Remote,
            PluginRef::File { .. } => Trust::File,
            PluginRef::Registry(_) | PluginRef::Web(_) => Trust::Remote,
        }
    }

    /// Whether such a plugin runs in a process of its own. Without a choice that is what came from
    /// elsewhere: a file was put where it is by somebody who could as well have run it.
    pub fn is_isolated(self, choice: Option<Isolate>) -> bool {
        match choice {
            Some(Isolate::All) => true,
            Some(Isolate::Untrusted) => self != Trust::Bundled,
            Some(Isolate::None) => false,
            None => self == Trust::Remote,
        }
    }
}

/// Where the plugins of a build run.
#[derive(Clone, Debug)]
pub struct Placement {
    isolator: Isolator,
    choice: Option<Isolate>,
}

impl Placement {
    /// By a choice; see [`Trust::is_isolated`].
    pub fn new(choice: Option<Isolate>) -> Placement {
        Placement { isolator: isolator(), choice }
    }

    fn elsewhere(&self, trust: Trust) -> Option<&Isolator> {
        trust.is_isolated(self.choice).then_some(&self.isolator)
    }

    /// A frontend. `name` is what it was asked for by.
    ///
    /// # Errors
    ///
    /// It is none, or wants what frontends do not get.
    pub fn frontend(&self, name: &PluginRef, it: &Supplied) -> Result<Arc<dyn Frontend>, Failure> {
        self.frontend_of(&it.plugin, Trust::of(name, &it.source))
    }

    fn frontend_of(&self, plugin: &Plugin, trust: Trust) -> Result<Arc<dyn Frontend>, Failure> {
        let there = self.elsewhere(trust);
        there.map_or_else(|| plugin.frontend(), |there| there.frontend(plugin))
    }

    /// A runner.
    ///
    /// # Errors
    ///
    /// As of [`Placement::frontend`].
    pub fn runner(&self, name: &PluginRef, it: &Supplied) -> Result<Arc<dyn Runner>, Failure> {
        let there = self.elsewhere(Trust::of(name, &it.source));
        there.map_or_else(|| it.plugin.runner(), |there| there.runner(&it.plugin))
    }

    /// A cache backend.
    ///
    /// # Errors
    ///
    /// As of [`Placement::frontend`].
    pub fn cache(&self, name: &PluginRef, it: &Supplied) -> Result<Arc<dyn CachePlugin>, Failure> {
        let there = self.elsewhere(Trust::of(name, &it.source));
        there.map_or_else(|| it.plugin.cache(), |there| there.cache(&it.plugin))
    }
}

/// What frontends may call: see [`Supplier::callee`]. Each is loaded once, however often it is called.
pub fn callable(supplier: &Arc<Supplier>, place: &Placement) -> Arc<dyn FindFrontend> {
    let (supplier, place) = (Arc::clone(supplier), place.clone());
    Arc::new(Callable { supplier, place, loaded: Default::default() })
}

struct Callable {
    supplier: Arc<Supplier>,
    place: Placement,
    loaded: tokio::sync::Mutex<BTreeMap<PluginRef, Arc<dyn Frontend>>>,
}

#[async_trait]
impl FindFrontend for Callable {
    async fn find(&self, name: &str) -> Result<Callee, Failure> {
        let reference = self.supplier.callee(name)?;
        let mut loaded = self.loaded.lock().await;
        if let Some(frontend) = loaded.get(&reference) {
            return Ok(Callee { frontend: Arc::clone(frontend), notes: Vec::new() });
        }
        // While a build runs nobody can be asked.
        let (kind, none) = (PluginKind::Frontend, Attrs::default());
        let mut supplied = self.supplier.supply(kind, &reference, &none, &Unattended).await?;
        let frontend = self.place.frontend(&reference, &supplied)?;
        let mut notes = std::mem::take(&mut supplied.notes);
        notes.extend(self.supplier.save_lock());
        loaded.insert(reference, Arc::clone(&frontend));
        Ok(Callee { frontend, notes })
    }
}

/// What reads the definition.
#[derive(Clone)]
pub enum FrontendSource {
    /// As `--frontend` names it: `dockerfile`, a name of the [project](crate::Builder::project),
    /// `oci://REGISTRY/NAME:TAG`, `https://HOST/PATH#sha256:DIGEST`.
    Named(String),
    /// A component in a file.
    File(PathBuf),
    /// A component in memory, and what it is called.
    Component(String, Arc<[u8]>),
    /// One in this process.
    Native(Arc<dyn Frontend>),
}

impl From<&str> for FrontendSource {
    fn from(name: &str) -> Self {
        FrontendSource::Named(name.to_owned())
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
    pub(crate) async fn load(
        &self,
        supplier: &Supplier,
        place: &Placement,
        notes: &mut Vec<String>,
    ) -> Result<Arc<dyn Frontend>, Failure> {
        let name = match self {
            FrontendSource::Native(frontend) => return Ok(Arc::clone(frontend)),
            FrontendSource::Component(name, bytes) => {
                let plugin = supplier.host().load(name, PluginSource::Bytes(Arc::clone(bytes)))?;
                let origin = Origin::From(format!("memory:{name}"));
                let plugin = plugin.granted(Grants { origin, ..Grants::default() });
                return place.frontend_of(&plugin, Trust::File);
            }
            FrontendSource::Named(name) => PluginRef::parse(name.as_ref(), Path::new("/"))?,
            FrontendSource::File(path) => {
                let shown = path.to_string_lossy().into_owned();
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                PluginRef::File { shown, path }
            }
        };
        if let (FrontendSource::Named(text), PluginRef::File { .. }) = (self, &name) {
            return Err(Failure::invalid(format!("{text:?} is the path of a component"))
                .hint("a path is given as one: PathBuf::from(…)"));
        }
        let (kind, none) = (PluginKind::Frontend, Attrs::default());
        let supplied = supplier.supply(kind, &name, &none, &Unattended).await?;
        let frontend = place.frontend(&name, &supplied)?;
        notes.extend(supplied.notes);
        Ok(frontend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_isolated() {
        use Isolate::*;
        let all = [Trust::Bundled, Trust::File, Trust::Remote];
        for (choice, wanted) in [
            (Option::None, [false, false, true]),
            (Some(All), [true, true, true]),
            (Some(Untrusted), [false, true, true]),
            (Some(None), [false, false, false]),
        ] {
            assert_eq!(all.map(|trust| trust.is_isolated(choice)), wanted, "{choice:?}");
        }
    }
}
