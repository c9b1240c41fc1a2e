//! `wbuild plan`: the options of `wbuild build`, and how the plan is shown.
//!
//! The form of the output is `--format`, as for what else of docker's and buildx's commands shows
//! something. `-o` says where results go, here as in a build: what reads the definition may want to
//! know, and a command line of `wbuild build` is one of `wbuild plan`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{BuildArgs, StateArgs};

/// Show what a build would do, and build nothing
///
/// The frontend reads the definition as in a build, and what it makes of it is printed: the steps with
/// all that they say and where they come from, and the results. What the frontend itself looks at is
/// fetched, or run. Nothing is written, pushed or loaded, whatever the options say.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_value_name = "COMMAND")]
pub struct PlanArgs {
    /// As in a build.
    #[command(flatten)]
    pub build: BuildArgs,

    /// How the plan is printed: text, json for programs and for wbuild plan diff, or dot for graphviz
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "text",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub format: PlanFormat,

    /// Also the steps that no result needs
    #[arg(long)]
    pub all: bool,

    /// Something else than to plan.
    #[command(subcommand)]
    pub command: Option<PlanCommand>,
}

/// How a plan is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// For people.
    #[default]
    Text,
    /// See `docs/plan.md` of the crate `wbuild-plan`.
    Json,
    /// For graphviz.
    Dot,
}

/// Commands about plans.
#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Show what is different between two plans
    ///
    /// OLD and NEW are files that wbuild plan --format json has written, or what wbuild plan can read: a
    /// directory, or a definition in one. Ends with 0 if the same is built, with 1 if not, and with 2
    /// if they cannot be compared.
    Diff(PlanDiffArgs),
}

/// Show what is different between two plans
#[derive(Args, Debug)]
pub struct PlanDiffArgs {
    /// What was
    #[arg(value_name = "OLD")]
    pub old: PathBuf,
    /// What is
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
    /// What reads definitions: a bundled plugin's name or a component file [default: what they say]
    #[arg(long, value_name = "NAME|PATH")]
    pub frontend: Option<std::ffi::OsString>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's help")]
    pub state: StateArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
