//! Which plugins a build needs: what the command line and the project say.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use wbuild_api::request::{CacheSpec, Entitlement};
use wbuild_graph::Attrs;
use wbuild_plugin::PluginKind;
use wbuild_supply::{PluginRef, Project, catalog};

use crate::args::PluginArgs;
use crate::args::values::AllowArg;
use crate::environment::Environment;
use crate::exit::Fault;

/// Where a build's plugins come from.
#[derive(Clone, Debug, Default)]
pub struct Supply {
    /// The project; none where the main context is not on this machine.
    pub project: Option<Arc<Project>>,
    /// The policy that the command line names.
    pub policy: Option<std::path::PathBuf>,
    /// Nothing is added to the lock.
    pub locked: bool,
    /// Nothing is fetched for plugins.
    pub offline: bool,
    /// Plugins may be fetched from this machine and private networks.
    pub private: bool,
}

impl Supply {
    /// That of a directory, or of none.
    pub fn of(directory: Option<&Path>, args: &PluginArgs, private: bool) -> Result<Supply, Fault> {
        let real = directory.and_then(|directory| std::fs::canonicalize(directory).ok());
        let real = real.filter(|real| real.is_dir());
        let project = real.map(|real| Project::around(&real)).transpose()?;
        Ok(Supply {
            project: project.map(Arc::new),
            policy: args.policy.clone(),
            locked: args.locked,
            offline: args.offline,
            private,
        })
    }

    /// A plugin that the command line names; a name that nobody has is an error of it.
    pub fn named(
        &self,
        kind: PluginKind,
        text: &OsStr,
        environment: &Environment,
    ) -> Result<PluginRef, Fault> {
        let parsed = PluginRef::parse(text, &environment.cwd).map_err(Fault::misnamed)?;
        let parsed = match parsed {
            PluginRef::Named(name) => match self.alias(kind, &name) {
                true => PluginRef::Named(name),
                false => PluginRef::Bundled(name),
            },
            other => other,
        };
        if let PluginRef::Bundled(name) = &parsed {
            catalog::find(kind, name).map_err(Fault::misnamed)?;
        }
        Ok(parsed)
    }

    /// A plugin of whatever kind that the command line names: the first kind that has the name.
    pub fn any(
        &self,
        text: &OsStr,
        environment: &Environment,
    ) -> Result<(PluginKind, PluginRef), Fault> {
        let mut first = None;
        for kind in PluginKind::ALL {
            match self.named(kind, text, environment) {
                Ok(found) => return Ok((kind, found)),
                Err(fault) => first = first.or(Some(fault)),
            }
        }
        let mut fault = first.expect("there are kinds");
        if let Ok(PluginRef::Named(name)) = PluginRef::parse(text, &environment.cwd) {
            let all = PluginKind::ALL.into_iter().flat_map(catalog::names);
            let all: Vec<&str> = all.collect();
            fault = Fault::misnamed(catalog::unknown("plugin", &name, &all));
        }
        Err(fault)
    }

    fn alias(&self, kind: PluginKind, name: &str) -> bool {
        self.project.as_ref().is_some_and(|project| project.alias(kind, name).is_some())
    }

    /// Plugins that the command line names, or bundled ones.
    pub fn all(
        &self,
        kind: PluginKind,
        names: &[OsString],
        defaults: &[&str],
        environment: &Environment,
    ) -> Result<Vec<PluginRef>, Fault> {
        if names.is_empty() {
            return Ok(defaults
                .iter()
                .map(|name| PluginRef::Bundled((*name).to_owned()))
                .collect());
        }
        names.iter().map(|name| self.named(kind, name, environment)).collect()
    }

    /// The components that these caches need, by the names they have there. What the project says of a
    /// cache is added to it, where the user has not said otherwise.
    pub fn backends<'a>(
        &self,
        specs: impl Iterator<Item = &'a mut CacheSpec>,
        environment: &Environment,
    ) -> Result<BTreeMap<String, Backend>, Fault> {
        let mut out: BTreeMap<String, Backend> = BTreeMap::new();
        for spec in specs.filter(|spec| spec.backend != CacheSpec::INLINE) {
            let plugin = self.named(PluginKind::Cache, OsStr::new(&spec.backend), environment)?;
            let mut config = Attrs::default();
            if let (Some(project), PluginRef::Named(name)) = (&self.project, &plugin)
                && let Some(alias) = project.alias(PluginKind::Cache, name)
            {
                let unsaid = alias.config.iter().filter(|(key, _)| spec.attrs.get(key).is_none());
                config.0 = unsaid.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
                spec.attrs.0.extend(config.0.iter().cloned());
            }
            let known = out.entry(spec.backend.clone());
            let backend = known.or_insert(Backend { plugin, config: Attrs::default() });
            backend.config.0.extend(config.0);
        }
        Ok(out)
    }
}

/// Whether plugins may be fetched from this machine and private networks.
pub fn reaches_private(allow: &[AllowArg]) -> bool {
    allow.iter().any(|allow| allow.0 == Entitlement::NetworkPrivate)
}

/// What a cache elsewhere needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// The plugin.
    pub plugin: PluginRef,
    /// What the project, and not the user, has said of where the cache is.
    pub config: Attrs,
}
