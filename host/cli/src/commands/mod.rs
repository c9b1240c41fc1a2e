//! The commands, one a module.

pub mod build;
mod call;
pub mod doctor;
pub mod du;
mod engine;
pub mod explain;
pub mod plugin;
pub mod prune;

use serde_json::Value;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::terminal;

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
