//! `wbuild plugin`.

pub mod build;
pub mod inspect;
mod list;
pub mod new;
mod registry;
pub mod run;
pub mod test;
pub mod trace;
mod update;

use std::ffi::OsStr;
use std::path::Path;

use wbuild_author::{Project, watch};
use wbuild_cli::args::PluginNameArgs;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::Fault;
use wbuild_cli::resolve::Lends;
use wbuild_cli::resolve::plugins::Supply;
use wbuild_cli::terminal;
use wbuild_graph::Failure;
use wbuild_plugin::{Plugin, PluginKind};
use wbuild_supply::{PluginRef, Supplier};

pub use list::list;
pub use registry::{publish, verify, warm};
pub use update::update;

use crate::plugins;

/// A plugin that a command names, and who supplies it.
struct Named {
    supplier: Supplier,
    kind: PluginKind,
    reference: PluginRef,
}

/// The project whose folder a name of the command line is: it means the component.
///
/// # Errors
///
/// The project is not built.
fn project_at(name: &OsStr, environment: &Environment) -> Result<Option<Project>, Fault> {
    let folder = environment.absolute(Path::new(name));
    if !folder.is_dir() {
        return Ok(None);
    }
    let project = Project::read(&folder)?;
    if !project.component().is_file() {
        let message = format!("{} is not built", folder.display());
        return Err(Fault::from(Failure::not_found(message))
            .hint(format!("wbuild plugin build {}", folder.display())));
    }
    Ok(Some(project))
}

/// Says it if a component is older than what it was built from.
fn tell_changes(component: &Path) {
    let folder = component.parent().and_then(Path::parent);
    let project = folder.and_then(|folder| Project::read(folder).ok());
    let project = project.filter(|project| project.component() == component);
    if let Some(changed) = project.as_ref().and_then(watch::changed) {
        let folder = folder.unwrap_or(component).display();
        terminal::eprint(&terminal::plain(&format!(
            "note: {} has changed since {} was built; to build it anew: wbuild plugin build {folder}\n",
            changed.display(),
            component.display(),
        )));
    }
}

impl Named {
    fn new(args: &PluginNameArgs, environment: &Environment) -> Result<Named, Fault> {
        let project = project_at(&args.plugin, environment)?;
        let plugin = project.map_or(args.plugin.clone(), |of| of.component().into_os_string());
        let private = wbuild_cli::resolve::plugins::reaches_private(&args.allow);
        let supply = Supply::of(Some(&environment.cwd), &args.plugins, private)?;
        let (kind, reference) = supply.any(&plugin, environment)?;
        let lends = Lends::to_registries(args.registry_config.as_deref(), environment)?;
        let supplier = plugins::supplier(&supply, &lends, environment)?;
        Ok(Named { supplier, kind, reference })
    }
}

/// A plugin as its author tries it, whatever the policy would grant it in a build.
fn find(name: &OsStr, environment: &Environment) -> Result<Plugin, Fault> {
    let args = PluginNameArgs { plugin: name.to_owned(), ..PluginNameArgs::default() };
    let named = Named::new(&args, environment)?;
    let supplied = plugins::now(named.supplier.look_at(named.kind, &named.reference))?;
    Ok(supplied.plugin)
}
