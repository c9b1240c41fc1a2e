//! The command line: what may be written, and what it is read into.
//!
//! `wbuild [OPTIONS] PATH` is `wbuild build [OPTIONS] PATH`, and options may stand before the name
//! of a command ([`argv`]). The values of options are parsed here ([`values`]), syntax only: whether
//! a file exists or a name is known is for [`crate::resolve`] to say. The help is the comments of
//! these types, so that it cannot say something else than the source.

pub mod argv;
pub mod author;
pub mod build;
pub mod cache;
pub mod call;
pub mod csv;
pub mod imagetools;
pub mod plan;
pub mod trial;
pub mod values;

use std::ffi::OsString;
use std::path::PathBuf;

pub use clap::Error;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use author::{NewArgs, PluginBuildArgs, PluginKind, PluginLanguage, RunArgs};
pub use build::BuildArgs;
pub use imagetools::ImagetoolsCommand;
pub use plan::PlanArgs;
use wbuild_graph::Platform;
use wbuild_store::Space;

use crate::filter::Filter;
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
    /// Show what a build would do, and build nothing
    #[command(
        override_usage = "wbuild plan [OPTIONS] PATH\n       wbuild plan diff [OPTIONS] OLD NEW"
    )]
    Plan(Box<PlanArgs>),
    /// Say why the steps of the last build ran, or where their results were found
    Explain(ExplainArgs),
    /// Show what the state directory holds
    ///
    /// The sum is what the state directory takes on the disk. A star behind a size says that several
    /// results need it. Works while a build runs.
    Du(DuArgs),
    /// Remove cached results
    ///
    /// Removes what no other result needs, the longest unused first, and never what a running build
    /// needs. Without a limit, a filter or --all that is all results of steps; cache mounts, fetched
    /// images and git repositories stay.
    ///
    /// Filters: until=DURATION (not used for so long); inuse, mutable, immutable, shared, private, alone
    /// or with =true or =false; id, parents, description and type with =VALUE, !=VALUE or ~=REGEX. Types
    /// are regular, source.local, source.git.checkout, exec.cachemount and internal.
    Prune(PruneArgs),
    /// Check what the state directory holds
    ///
    /// Looks at records, blobs, layers, documents, seals and the index. Changes nothing, and works
    /// while a build runs, which may show as a problem. Ends with 1 if something is damaged.
    Fsck(FsckArgs),
    /// Show what this machine offers for building, and what is missing
    Doctor(DoctorArgs),
    /// Look into images in registries, and join several into one
    #[command(subcommand)]
    Imagetools(ImagetoolsCommand),
    /// Look at plugins, and make them
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

/// Where plugins may come from.
#[derive(Args, Clone, Debug, Default)]
pub struct PluginArgs {
    /// Fail where wbuild.lock lacks a plugin, rather than add it
    #[arg(long)]
    pub locked: bool,
    /// Fetch no plugins: use those that are here
    #[arg(long)]
    pub offline: bool,
    /// What plugins may do [default: policy.toml in ~/.config/wbuild, else in /etc/wbuild]
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
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
    /// Only what matches, see prune (repeats)
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<Filter>,
    /// Show all that is known, a paragraph for each
    #[arg(long)]
    pub verbose: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Remove cached results
#[derive(Args, Debug)]
pub struct PruneArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's help")]
    pub state: StateArgs,
    /// Everything: also cache mounts, fetched images and git repositories
    #[arg(short, long)]
    pub all: bool,
    /// Only what matches all of these (repeats), e.g. until=24h or type=exec.cachemount
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<Filter>,
    /// Stop when no more than this is used, e.g. 10GB or 5% of the disk
    #[arg(long, value_name = "SIZE", value_parser = units::parse_space)]
    pub max_used_space: Option<Space>,
    /// Keep so much, whatever the other limits say
    #[arg(long, value_name = "SIZE", value_parser = units::parse_space)]
    pub reserved_space: Option<Space>,
    /// Stop when so much of the disk is free
    #[arg(long, value_name = "SIZE", value_parser = units::parse_space)]
    pub min_free_space: Option<Space>,
    /// What other builders called reserved-space before.
    #[arg(long, hide = true, value_name = "SIZE", value_parser = units::parse_space)]
    pub keep_storage: Option<Space>,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Show all that is known of what goes
    #[arg(long)]
    pub verbose: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Check what the state directory holds
#[derive(Args, Debug)]
pub struct FsckArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's help")]
    pub state: StateArgs,
    /// Also read and compare all that blobs and layers hold
    #[arg(long)]
    pub verify: bool,
    /// Set aside what is damaged, in the folder damaged, and remove what crashes have left; what is
    /// missing then is made again by the builds that need it
    #[arg(long)]
    pub repair: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Show what this machine offers for building, and what is missing
///
/// Ends with 1 if builds with RUN steps cannot work here, or not for a platform that was named.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// Say for which platforms steps can run here and how, by running something for each; the usual
    /// ones, or those named (commas). Nothing is registered on the machine for it
    #[arg(long, value_name = "PLATFORM", num_args = 0..=1, require_equals = true,
        value_delimiter = ',')]
    pub platforms: Option<Vec<Platform>>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's help")]
    pub state: StateArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Look at plugins, and make them
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Show what a plugin is and what it can do
    Inspect(InspectArgs),
    /// Show the plugins that are part of this program, and those of the project
    List(ListArgs),
    /// Begin a plugin: write a small complete project
    ///
    /// The project has everything that it needs but the packages and the compiler of its language: the
    /// interfaces with their manual, a layer over them in the language, an example, a README.
    New(NewArgs),
    /// Build the component of a plugin's project
    ///
    /// The project is a folder with a wbuild-plugin.toml, or files in a language that is known. The
    /// ordinary tool of the language is run, and the component is DIR/build/NAME.wasm. Where a project
    /// of JavaScript or Python has not installed its compiler, npm or pip are asked to, inside of it.
    Build(PluginBuildArgs),
    /// Build a plugin and run a build with it
    ///
    /// Options of this command stand before the first word that is for the build.
    Run(RunArgs),
    /// Run the cases of a plugin, without a machine
    ///
    /// A case is a folder with a case.toml and what is expected. Of a frontend: a definition, and what
    /// the machine would answer (options, platforms, images, what processes do); expected are the
    /// graph, results, messages. No registry is asked and no step runs. Each case is run three times,
    /// the last time with nothing but the recorded answers of the first: what a frontend does may
    /// depend on nothing else. Of a runner: what the machine is, and which platforms are asked about;
    /// expected are its offers and plans. Of a cache backend: its options; what every backend promises
    /// is tried with them, and expected is what it keeps and does not offer. Ends with 1 if a case
    /// fails.
    Test(trial::TestArgs),
    /// Record what a frontend asks and is answered, or answer it again
    ///
    /// The trace is one JSON file with the definition, the options and every answer, for a bug report;
    /// the values of secrets are not in it, as no frontend sees them. With --replay the component is
    /// run against it, without any machine, and what it makes is shown; ends with 1 if it asks or does
    /// anything else than it did. Options of this command stand before the plugin.
    Trace(trial::TraceArgs),
    /// Put a component into a registry
    Publish(PublishArgs),
    /// Fetch a plugin and check what the policy says of it, its signature included
    Verify(PluginNameArgs),
    /// Fetch and compile plugins, so that builds need not
    Warm(WarmArgs),
    /// Look for newer versions of what wbuild.lock pins, and pin them
    Update(UpdateArgs),
}

/// Put a component into a registry
///
/// Prints the name of what was published, with its digest. The artifact has the layout of the CNCF's
/// working group for WebAssembly.
#[derive(Args, Debug)]
pub struct PublishArgs {
    /// The component file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where to: oci://REGISTRY/NAME[:TAG]
    #[arg(value_name = "oci://…")]
    pub to: OsString,
    /// Sign it with this key of minisign (`minisign -G` makes one)
    #[arg(long, value_name = "FILE")]
    pub sign: Option<PathBuf>,
    /// How registries are asked, as for builds
    #[arg(long, value_name = "FILE")]
    pub registry_config: Option<PathBuf>,
}

/// Fetch and compile plugins, so that builds need not
#[derive(Args, Debug)]
pub struct WarmArgs {
    /// As for --frontend: names, component files, oci://… or https://…
    #[arg(value_name = "PLUGIN", required = true)]
    pub names: Vec<OsString>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's help")]
    pub plugins: PluginArgs,
    /// What may be reached: network.private, as for builds
    #[arg(long, value_name = "ENTITLEMENT")]
    pub allow: Vec<values::AllowArg>,
    /// How registries are asked, as for builds
    #[arg(long, value_name = "FILE")]
    pub registry_config: Option<PathBuf>,
}

/// Look for newer versions of what wbuild.lock pins, and pin them
///
/// Shows what changes and asks. Without PLUGIN, all of the lock and of wbuild.toml. The project is that of the working
/// directory.
#[derive(Args, Debug)]
pub struct UpdateArgs {
    /// Names of wbuild.toml, or references
    #[arg(value_name = "PLUGIN")]
    pub names: Vec<OsString>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's help")]
    pub plugins: PluginArgs,
    /// How registries are asked, as for builds
    #[arg(long, value_name = "FILE")]
    pub registry_config: Option<PathBuf>,
}

/// Show what a plugin is, what it can do, and what it would be granted
#[derive(Args, Debug)]
pub struct InspectArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's help")]
    pub named: PluginNameArgs,
    /// Which plugins are looked at in a process of their own, without files, network and most
    /// system calls: all, untrusted (those that do not come with wbuild) or none [default: untrusted]
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true,
        default_missing_value = "untrusted", hide_possible_values = true)]
    pub isolate_plugins: Option<crate::isolation::IsolatePlugins>,
}

/// A plugin by its name.
#[derive(Args, Debug, Default)]
pub struct PluginNameArgs {
    /// As for --frontend: a name, a component file, oci://… or https://…; or the folder of a project
    #[arg(value_name = "PLUGIN")]
    pub plugin: OsString,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's help")]
    pub plugins: PluginArgs,
    /// What may be reached: network.private, as for builds
    #[arg(long, value_name = "ENTITLEMENT")]
    pub allow: Vec<values::AllowArg>,
    /// How registries are asked, as for builds
    #[arg(long, value_name = "FILE")]
    pub registry_config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Show the plugins that are part of this program, and those of the project
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
