//! The command line: what may be written, and what it is read into.
//!
//! `wbuild [OPTIONS] PATH` is `wbuild build [OPTIONS] PATH`, and options may stand before the name
//! of a command ([`argv`]). The values of options are parsed here ([`values`]), syntax only: whether
//! a file exists or a name is known is for [`crate::resolve`] to say. The help is the comments of
//! these types, so that it cannot say something else than the source.

pub mod argv;
pub mod build;
pub mod call;
pub mod csv;
pub mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use build::BuildArgs;

use crate::{environment, exit, units};

/// Build container images from a Dockerfile or any other definition
///
/// `wbuild PATH` is short for `wbuild build PATH`. Frontends (which read the definition), runners
/// (which decide how a step is launched) and cache backends are WebAssembly components: they get
/// what the build hands them and nothing else. The common ones are part of this program.
#[derive(Debug, Parser)]
#[command(
    name = "wbuild",
    version,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    override_usage = "wbuild [OPTIONS] PATH\n       wbuild COMMAND",
    subcommand_value_name = "COMMAND",
    next_line_help = false,
    max_term_width = 100,
    args_override_self = true
)]
pub struct Cli {
    /// Of a bare `wbuild PATH`.
    #[command(flatten)]
    pub build: BuildArgs,
    /// What to do, unless it is to build.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What wbuild can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build from a definition and a context directory
    #[command(override_usage = "wbuild build [OPTIONS] PATH")]
    Build(Box<BuildArgs>),
    /// Say why the steps of the last build ran, or where their results were found
    Explain(ExplainArgs),
    /// Show what the state directory holds
    Du(DuArgs),
    /// Remove cached results
    Prune(PruneArgs),
    /// Show what this machine offers for building, and what is missing
    Doctor(DoctorArgs),
    /// Look at plugins
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Show the version
    Version,
}

/// Where the state is.
#[derive(Args, Clone, Debug, Default)]
pub struct StateArgs {
    /// Where results are kept [default: $XDG_STATE_HOME/wbuild; for root /var/lib/wbuild]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// Say why the steps of the last build ran, or where their results were found
///
/// A step that ran is compared with the nearest earlier run of it: the command, variables and
/// mounts that changed, the files it reads, what it stands on.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// One step: its number, a line of the definition (Dockerfile:7), or a part of its name
    #[arg(value_name = "STEP")]
    pub step: Option<String>,
    /// The last build of this context [default: the last build]
    #[arg(long, value_name = "PATH")]
    pub context: Option<OsString>,
    /// The last build of this definition [default: that of the context]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's help")]
    pub state: StateArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Show what the state directory holds
#[derive(Args, Debug)]
pub struct DuArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's help")]
    pub state: StateArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Remove cached results
///
/// Removes what no other result needs, the longest unused first. Without a limit everything that no
/// running build uses goes.
#[derive(Args, Debug)]
pub struct PruneArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's help")]
    pub state: StateArgs,
    /// Also remove cache mounts and fetched images
    #[arg(short, long)]
    pub all: bool,
    /// Only what matches; known: until=DURATION (not used for so long, e.g. 24h)
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_prune_filter)]
    pub filter: Vec<PruneFilter>,
    /// Stop when no more than this is used, e.g. 10GB
    #[arg(long, value_name = "SIZE", alias = "keep-storage", value_parser = units::parse_size)]
    pub max_used_space: Option<u64>,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A condition of `prune --filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneFilter {
    /// Not used for so long.
    Until(Duration),
}

fn parse_prune_filter(text: &str) -> Result<PruneFilter, String> {
    match text.split_once('=') {
        Some(("until", value)) => Ok(PruneFilter::Until(units::parse_duration(value)?)),
        Some((key, _)) => Err(format!("unknown filter {key:?}; known: until")),
        None => Err("expected KEY=VALUE, e.g. until=24h".to_owned()),
    }
}

/// Show what this machine offers for building, and what is missing
///
/// Ends with 1 if builds with RUN steps cannot work here.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's help")]
    pub state: StateArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Look at plugins
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Show what a plugin is and what it can do
    Inspect(InspectArgs),
    /// Show the plugins that are part of this program
    List(ListArgs),
}

/// Show what a plugin is and what it can do
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// A component file, or the name of a bundled plugin
    #[arg(value_name = "NAME|PATH")]
    pub plugin: OsString,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Show the plugins that are part of this program
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Reads a command line, the program's name first. The error prints itself and knows its exit code.
pub fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let argv = argv::normalise(&command, argv.into_iter().collect());
    let matches = command.try_get_matches_from_mut(argv)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// The command line as clap knows it, for parsing, help and completions.
pub fn command() -> clap::Command {
    let after = format!("{}\n\n{}", exit::HELP, environment::HELP);
    let build = after.clone();
    Cli::command()
        .after_help(exit::HELP)
        .after_long_help(after)
        .mut_subcommand("build", |command| command.after_help(exit::HELP).after_long_help(build))
}
