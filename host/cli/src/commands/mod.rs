//! The commands, one a module.

pub mod build;
mod call;
pub mod doctor;
pub mod du;
mod engine;
pub mod explain;
pub mod fsck;
pub mod imagetools;
pub mod plan;
mod platforms;
pub mod plugin;
pub mod prune;

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::Value;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::terminal;
use wbuild_graph::Failure;
use wbuild_store::{LockWait, OpenOptions, Store};

/// Prints JSON for programs.
fn print_json(value: &Value) -> Result<Exit, Fault> {
    let mut text = serde_json::to_string_pretty(value).expect("keys are strings, so it is JSON");
    text.push('\n');
    terminal::print(text.as_bytes())?;
    Ok(Exit::Success)
}

/// Enters the namespaces in which the state of an ordinary user is readable: its files belong to
/// several users there. Where that cannot be had there are no such files.
fn see_all_owners(environment: &Environment) {
    if !environment.is_root {
        let _ = wbuild_exec::namespace::enter(&environment.search_path());
    }
}

/// Opens the state directory to change it. A build that runs is waited for.
fn open_to_change(dir: &Path, owner: &str, environment: &Environment) -> Result<Store, Fault> {
    see_all_owners(environment);
    let mut told = false;
    let wait = LockWait::Callback(Box::new(move |holder, _| {
        if !std::mem::replace(&mut told, true) {
            terminal::eprint(&format!("waiting for another build: {holder}\n"));
        }
        ControlFlow::Continue(())
    }));
    let options = OpenOptions { owner: owner.to_owned(), wait, ..OpenOptions::default() };
    Ok(Store::open(dir, options).map_err(Failure::from)?)
}

/// Opens the state directory to look at it, beside a build or not; `None` if there is none yet.
fn open_to_look(dir: &Path, environment: &Environment) -> Result<Option<Store>, Fault> {
    see_all_owners(environment);
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    match Store::open(dir, options) {
        Ok(store) => Ok(Some(store)),
        Err(wbuild_store::Error::Absent { .. }) => Ok(None),
        Err(error) => Err(Failure::from(error).into()),
    }
}
