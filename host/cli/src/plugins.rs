//! From names to loaded plugins.

use wbuild::Plugins;
use wbuild_bundled::{Bundled, Kind};
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::Fault;
use wbuild_cli::plugin_name::{PluginName, unknown};
use wbuild_cli::resolve::Build;
use wbuild_graph::Failure;
use wbuild_plugin::{Plugin, PluginHost, PluginHostOptions, PluginSource};

/// A host that keeps compiled code where the environment says.
pub fn host(environment: &Environment) -> PluginHost {
    PluginHost::new(PluginHostOptions::new(environment.code_cache_dir()))
}

/// The plugins of a build. Nothing is compiled yet.
pub fn of_build(host: &PluginHost, build: &Build) -> Result<Plugins, Fault> {
    let runners = build.runners.iter().map(|name| load(host, Kind::Runner, name)?.runner());
    let caches = build.caches.iter().map(|name| load(host, Kind::Cache, name)?.cache());
    Ok(Plugins {
        frontend: load(host, Kind::Frontend, &build.frontend)?.frontend()?,
        runners: runners.collect::<Result<_, Failure>>()?,
        caches: caches.collect::<Result<_, Failure>>()?,
    })
}

/// That all bundled names are known, before anything else is done.
pub fn check_names(build: &Build) -> Result<(), Fault> {
    let frontend = (Kind::Frontend, &build.frontend);
    let runners = build.runners.iter().map(|name| (Kind::Runner, name));
    let caches = build.caches.iter().map(|name| (Kind::Cache, name));
    for (kind, name) in std::iter::once(frontend).chain(runners).chain(caches) {
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
            host.load(name, source(bundled))
        }
    }
}

/// A bundled component.
pub fn source(bundled: &Bundled) -> PluginSource {
    let digest = wbuild_graph::Digest::from_bytes(bundled.digest);
    PluginSource::Embedded { bytes: bundled.bytes, digest }
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
