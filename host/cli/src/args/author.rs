//! `wbuild plugin new`, `build` and `run`: for authors of plugins.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What a plugin is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PluginKind {
    /// Turns a user's file into a graph of work
    Frontend,
    /// Decides how a process is launched
    Runner,
    /// Remembers results by key
    Cache,
}

/// What a plugin is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PluginLanguage {
    /// Rust, compiled by cargo
    Rust,
    /// JavaScript, run by QuickJS inside of the component
    #[value(alias = "javascript")]
    Js,
    /// Python, run by CPython inside of the component
    Python,
    /// C, compiled by clang
    C,
}

/// Begin a plugin: write a small complete project
#[derive(Args, Debug)]
pub struct NewArgs {
    /// Its name: small letters, digits and -
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What it is used as
    #[arg(long, value_name = "KIND", value_enum, default_value = "frontend")]
    pub kind: PluginKind,
    /// What it is written in
    #[arg(long, value_name = "LANGUAGE", value_enum)]
    pub lang: PluginLanguage,
    /// Where [default: NAME]
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Build the component of a plugin's project
#[derive(Args, Debug)]
pub struct PluginBuildArgs {
    /// The project
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Build a plugin and run a build with it
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The project
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub project: PathBuf,
    /// Again whenever the project, the context or the definition changes, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// As of wbuild build: PATH and options
    #[arg(
        value_name = "BUILD",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub build: Vec<OsString>,
}
