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

use wbuild_cli::args::PluginNameArgs;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::Fault;
use wbuild_cli::resolve::Lends;
use wbuild_cli::resolve::plugins::Supply;
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

impl Named {
    fn new(args: &PluginNameArgs, environment: &Environment) -> Result<Named, Fault> {
        let private = wbuild_cli::resolve::plugins::reaches_private(&args.allow);
        let supply = Supply::of(Some(&environment.cwd), &args.plugins, private)?;
        let (kind, reference) = supply.any(&args.plugin, environment)?;
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
