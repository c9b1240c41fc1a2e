//! From references to loaded plugins: sets up the supplier of one command.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::BufRead as _;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use wbuild::plugins::Placement;
use wbuild_cli::config;
use wbuild_cli::environment::{Environment, vars};
use wbuild_cli::exit::Fault;
use wbuild_cli::resolve::plugins::Supply;
use wbuild_cli::resolve::{self, Build, Lends};
use wbuild_cli::session::LocalSession;
use wbuild_cli::terminal;
use wbuild_engine::extension::{CachePlugin, DefinitionFile, Runner};
use wbuild_engine::request::ContextSpec;
use wbuild_engine::{Choose, Chosen, Plugins, Reader};
use wbuild_graph::{Attrs, Failure, SourceMap};
use wbuild_plugin::{PluginHost, PluginKind};
use wbuild_supply::{
    Ask, Consents, POLICY, POLICY_FILE, PluginRef, PluginStore, Policy, Problem, Supplied,
    Supplier, SupplierOptions, Unattended, syntax,
};

use crate::credentials::FromDocker;

/// A host that keeps compiled code where the environment says.
pub fn host(environment: &Environment) -> PluginHost {
    wbuild::plugins::host(environment.code_cache_dir())
}

/// The supplier of a command. Nothing is fetched or compiled yet.
pub fn supplier(
    supply: &Supply,
    lends: &Lends,
    environment: &Environment,
) -> Result<Supplier, Fault> {
    let named = supply.policy.as_deref();
    let named = named.or_else(|| environment.var_os(vars::POLICY).map(Path::new));
    let file = config::find(named, POLICY_FILE, POLICY, environment)?;
    let policy = file.as_ref().map(Policy::read).transpose()?.unwrap_or_default();
    let directory = environment.config_dir();
    let policy_path = match (&file, &directory) {
        (Some(file), _) => file.path.display().to_string(),
        (None, Some(directory)) => directory.join(POLICY_FILE).display().to_string(),
        (None, None) => POLICY_FILE.to_owned(),
    };
    let given = environment.var(vars::AUTH_CONFIG)?.map(str::to_owned);
    let lends = Lends {
        docker_config: lends.docker_config.clone(),
        registries: lends.registries.clone(),
        proxies: lends.proxies.clone(),
        ..Lends::default()
    };
    let private = supply.private;
    let search = environment.search_path();
    let fetcher = move || {
        let docker_config = lends.docker_config.clone();
        let credentials = FromDocker::new(given.clone(), docker_config, search.clone());
        let session = Arc::new(LocalSession::new(lends.clone(), Arc::new(credentials)));
        wbuild::plugins::fetcher(session, private)
    };
    Ok(Supplier::new(SupplierOptions {
        host: host(environment),
        project: supply.project.clone(),
        policy,
        policy_path,
        consents: Consents::of(directory.as_deref())?,
        store: PluginStore::new(environment.plugin_dir()),
        fetcher: Box::new(fetcher),
        locked: supply.locked,
        offline: supply.offline,
    })?)
}

/// Asks whoever sits at the terminal, if somebody does.
pub struct AtTerminal(bool);

impl AtTerminal {
    /// The terminal of the command.
    pub fn new(environment: &Environment) -> AtTerminal {
        AtTerminal(environment.stdin_terminal && environment.stderr_terminal)
    }
}

impl Ask for AtTerminal {
    fn ask(&self, question: &str) -> Result<Option<bool>, Failure> {
        if !self.0 {
            return Ok(None);
        }
        // Some of it comes from the project and from the plugin.
        terminal::eprint(&terminal::plain(question));
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        read.map_err(|error| Failure::invalid("cannot read the answer").cause(&error))?;
        Ok(Some(matches!(answer.trim(), "y" | "Y" | "yes")))
    }
}

/// Waits for plugins, before there is a display and anything else that runs.
pub fn now<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::internal("cannot start an executor").cause(&error))?;
    Ok(runtime.block_on(work)?)
}

/// The plugins of a build, and what there is to say of them. Fetches what is not here; nothing is
/// compiled yet. To be called after namespaces were entered: what is fetched needs threads.
pub fn of_build(build: &Build, environment: &Environment) -> Result<(Plugins, Vec<String>), Fault> {
    let supplier = Arc::new(supplier(&build.supply, &build.lends, environment)?);
    let ask = AtTerminal::new(environment);
    let place = Placement::new(build.isolate.map(Into::into));
    let mut notes = Vec::new();
    let mut has_frontend = false;
    let plugins = now(async {
        let mut note = |mut supplied: Supplied| {
            notes.append(&mut supplied.notes);
            supplied
        };
        let none = Attrs::default();
        let frontend = match &build.frontend {
            Some(name) => {
                let supplied = supplier.supply(PluginKind::Frontend, name, &none, &ask).await?;
                Reader::Frontend(place.frontend(name, &note(supplied))?)
            }
            None => Reader::Chosen(Arc::new(ByDefinition {
                supplier: Arc::clone(&supplier),
                place: place.clone(),
                contexts: build.request.contexts.clone(),
                options: build.request.options.clone(),
            })),
        };
        has_frontend = true;
        let mut runners: Vec<Arc<dyn Runner>> = Vec::new();
        for name in &build.runners {
            let supplied = supplier.supply(PluginKind::Runner, name, &none, &ask).await?;
            runners.push(place.runner(name, &note(supplied))?);
        }
        let mut caches: Vec<Arc<dyn CachePlugin>> = Vec::new();
        for name in &build.caches {
            let supplied = supplier.supply(PluginKind::Cache, name, &none, &ask).await?;
            caches.push(place.cache(name, &note(supplied))?);
        }
        let mut remotes = BTreeMap::new();
        for (at, backend) in &build.remotes {
            let (plugin, config) = (&backend.plugin, &backend.config);
            let supplied = supplier.supply(PluginKind::Cache, plugin, config, &ask).await?;
            remotes.insert(at.clone(), place.cache(plugin, &note(supplied))?);
        }
        let nested = wbuild::plugins::callable(&supplier, &place);
        Ok(Plugins { frontend, runners, caches, remotes, nested })
    });
    let plugins = plugins.map_err(|fault| match &build.frontend_line {
        Some(line) if !has_frontend => line.show(*fault.failure).into(),
        _ => fault,
    })?;
    notes.extend(supplier.save_lock());
    Ok((plugins, notes))
}

/// Bundled runners, in order. Nothing is compiled yet.
pub fn runners(names: &[&str], environment: &Environment) -> Result<Vec<Arc<dyn Runner>>, Fault> {
    let supplier = supplier(&Supply::default(), &Lends::default(), environment)?;
    now(async {
        let mut runners = Vec::new();
        for name in names {
            let name = PluginRef::Bundled((*name).to_owned());
            let none = Attrs::default();
            let supplied = supplier.supply(PluginKind::Runner, &name, &none, &Unattended).await?;
            runners.push(supplied.plugin.runner()?);
        }
        Ok(runners)
    })
}

/// Chooses the frontend of a definition that is not here before the build.
struct ByDefinition {
    supplier: Arc<Supplier>,
    place: Placement,
    contexts: BTreeMap<String, ContextSpec>,
    options: Attrs,
}

#[async_trait]
impl Choose for ByDefinition {
    async fn choose(&self, found: &DefinitionFile) -> Result<Chosen, Box<(Failure, SourceMap)>> {
        let definition = syntax::Definition { name: &found.name, data: &found.data };
        let project = self.supplier.project();
        let choice = resolve::choose(&definition, &self.contexts, &self.options, project, None)
            .map_err(|Problem { failure, sources }| Box::new((*failure, sources)))?;
        // While a build runs nobody can be asked.
        let (kind, none) = (PluginKind::Frontend, Attrs::default());
        let supplied = self.supplier.supply(kind, &choice.frontend, &none, &Unattended).await;
        let frontend =
            supplied.and_then(|it| Ok((self.place.frontend(&choice.frontend, &it)?, it.notes)));
        let (frontend, mut notes) = frontend.map_err(|failure| {
            let problem = choice.line.as_ref().map(|line| line.show(failure.clone()));
            let Problem { failure, sources } = problem.unwrap_or_else(|| failure.into());
            Box::new((*failure, sources))
        })?;
        notes.extend(choice.note.clone());
        notes.extend(self.supplier.save_lock());
        let options = Attrs(choice.options().into_iter().collect());
        Ok(Chosen { frontend, options, notes })
    }
}
