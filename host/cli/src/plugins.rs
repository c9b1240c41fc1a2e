//! From names to loaded plugins.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use wbuild_bundled::{Bundled, Kind};
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::Fault;
use wbuild_cli::isolation::{IsolatePlugins, isolated};
use wbuild_cli::plugin_name::{PluginName, unknown};
use wbuild_cli::resolve::{self, Build};
use wbuild_cli::syntax;
use wbuild_engine::extension::{CachePlugin, DefinitionFile, Frontend, Runner};
use wbuild_engine::request::ContextSpec;
use wbuild_engine::{Choose, Chosen, FindFrontend, Plugins, Reader};
use wbuild_graph::{Attrs, Failure, SourceMap};
use wbuild_isolate::{Isolator, Program};
use wbuild_plugin::{Grants, Plugin, PluginHost, PluginHostOptions, PluginSource};

/// First argument of the processes that run or compile plugins; no command of the user's.
pub const SUBCOMMAND: &str = "__plugin";

fn isolator() -> Isolator {
    Isolator::new(Program::this(SUBCOMMAND))
}

/// A host that keeps compiled code where the environment says, and has what does not come with
/// wbuild compiled where that can be ended.
pub fn host(environment: &Environment) -> PluginHost {
    let mut options = PluginHostOptions::new(environment.code_cache_dir());
    options.compiler = Some(isolator().compiler());
    PluginHost::new(options)
}

/// Where the plugins of a build run.
struct Placement {
    isolator: Isolator,
    choice: Option<IsolatePlugins>,
}

impl Placement {
    fn new(choice: Option<IsolatePlugins>) -> Placement {
        Placement { isolator: isolator(), choice }
    }

    /// The isolator, for a plugin that runs in a process of its own.
    fn elsewhere(&self, name: &PluginName) -> Option<&Isolator> {
        isolated(self.choice, name.origin()).then_some(&self.isolator)
    }

    fn frontend(&self, host: &PluginHost, name: &PluginName) -> Result<Arc<dyn Frontend>, Failure> {
        let plugin = load(host, Kind::Frontend, name)?;
        self.elsewhere(name).map_or_else(|| plugin.frontend(), |there| there.frontend(&plugin))
    }

    fn runner(&self, host: &PluginHost, name: &PluginName) -> Result<Arc<dyn Runner>, Failure> {
        let plugin = load(host, Kind::Runner, name)?;
        self.elsewhere(name).map_or_else(|| plugin.runner(), |there| there.runner(&plugin))
    }

    fn cache(&self, host: &PluginHost, name: &PluginName) -> Result<Arc<dyn CachePlugin>, Failure> {
        let plugin = load(host, Kind::Cache, name)?;
        self.elsewhere(name).map_or_else(|| plugin.cache(), |there| there.cache(&plugin))
    }
}

/// The plugins of a build. Nothing is compiled yet.
pub fn of_build(host: &PluginHost, build: &Build) -> Result<Plugins, Fault> {
    let place = Arc::new(Placement::new(build.isolate));
    let caches = build.caches.iter().map(|name| place.cache(host, name));
    let remotes = build.remotes.iter();
    let remotes = remotes
        .map(|(backend, name)| Ok::<_, Failure>((backend.clone(), place.cache(host, name)?)));
    let runners = build.runners.iter().map(|name| place.runner(host, name));
    Ok(Plugins {
        frontend: match &build.frontend {
            Some(name) => Reader::Frontend(place.frontend(host, name)?),
            None => Reader::Chosen(Arc::new(ByDefinition {
                host: host.clone(),
                place: Arc::clone(&place),
                contexts: build.request.contexts.clone(),
                options: build.request.options.clone(),
            })),
        },
        runners: runners.collect::<Result<_, Failure>>()?,
        caches: caches.collect::<Result<_, Failure>>()?,
        remotes: remotes.collect::<Result<_, Failure>>()?,
        nested: callable(host, place),
    })
}

/// Runners, in order. Nothing is compiled yet.
pub fn runners(host: &PluginHost, names: &[PluginName]) -> Result<Vec<Arc<dyn Runner>>, Fault> {
    let place = Placement::new(None);
    let runners = names.iter().map(|name| place.runner(host, name));
    Ok(runners.collect::<Result<_, Failure>>()?)
}

/// Chooses the frontend of a definition that is not here before the build.
struct ByDefinition {
    host: PluginHost,
    place: Arc<Placement>,
    contexts: BTreeMap<String, ContextSpec>,
    options: Attrs,
}

impl Choose for ByDefinition {
    fn choose(&self, found: &DefinitionFile) -> Result<Chosen, Box<(Failure, SourceMap)>> {
        let definition = syntax::Definition { name: &found.name, data: &found.data };
        let choice = resolve::choose(&definition, &self.contexts, &self.options)
            .map_err(|fault| Box::new((*fault.failure, fault.sources)))?;
        let name = PluginName::Bundled(choice.frontend.clone());
        let frontend = self.place.frontend(&self.host, &name);
        let frontend = frontend.map_err(|failure| Box::new((failure, SourceMap::default())))?;
        let options = Attrs(choice.options().into_iter().collect());
        Ok(Chosen { frontend, options, note: choice.note })
    }
}

/// That all bundled names are known, before anything else is done.
pub fn check_names(build: &Build) -> Result<(), Fault> {
    let frontend = build.frontend.iter().map(|name| (Kind::Frontend, name));
    let runners = build.runners.iter().map(|name| (Kind::Runner, name));
    let caches = build.caches.iter().chain(build.remotes.values());
    let caches = caches.map(|name| (Kind::Cache, name));
    for (kind, name) in frontend.chain(runners).chain(caches) {
        if let PluginName::Bundled(name) = name
            && wbuild_bundled::find(kind, name).is_none()
        {
            return Err(unknown(kind_name(kind), name, &names(kind)));
        }
    }
    Ok(())
}

fn load(host: &PluginHost, kind: Kind, name: &PluginName) -> Result<Plugin, Failure> {
    match name {
        PluginName::File { shown, path } => host.load(shown, path.as_path()),
        PluginName::Bundled(name) => {
            let bundled = wbuild_bundled::find(kind, name)
                .ok_or_else(|| *unknown(kind_name(kind), name, &names(kind)).failure)?;
            load_bundled(host, bundled)
        }
    }
}

/// A bundled component. What comes with wbuild may call other frontends; nothing else may.
pub fn load_bundled(host: &PluginHost, bundled: &Bundled) -> Result<Plugin, Failure> {
    let digest = wbuild_graph::Digest::from_bytes(bundled.digest);
    let source = PluginSource::Embedded { bytes: bundled.bytes, digest };
    Ok(host.load(bundled.name, source)?.granted(Grants { nested: true }))
}

/// What a frontend may call: frontends that come with wbuild, by their names. Each is loaded once,
/// however often it is called.
fn callable(host: &PluginHost, place: Arc<Placement>) -> FindFrontend {
    let host = host.clone();
    let loaded: Mutex<BTreeMap<String, Arc<dyn Frontend>>> = Mutex::default();
    Arc::new(move |name| {
        let mut loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frontend) = loaded.get(name) {
            return Ok(Arc::clone(frontend));
        }
        let bundled = PluginName::Bundled(name.to_owned());
        let frontend = place.frontend(&host, &bundled)?;
        loaded.insert(name.to_owned(), Arc::clone(&frontend));
        Ok(frontend)
    })
}

/// The names of a kind, the default first.
pub fn names(kind: Kind) -> Vec<&'static str> {
    wbuild_bundled::all().iter().filter(|b| b.kind == kind).map(|b| b.name).collect()
}

/// A kind in words.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Frontend => "frontend",
        Kind::Runner => "runner",
        Kind::Cache => "cache backend",
    }
}
