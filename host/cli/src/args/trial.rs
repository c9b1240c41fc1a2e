//! `wbuild plugin test` and `wbuild plugin trace`: plugins without a build.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::BuildArgs;

/// Run the cases of a plugin, without a machine
#[derive(Args, Debug)]
pub struct TestArgs {
    /// A component file, a project that was built, or the name of a bundled plugin
    #[arg(value_name = "PATH|NAME", default_value = ".")]
    pub plugin: OsString,
    /// The cases [default: tests/cases of the project, or beside the file]
    #[arg(long, value_name = "DIR")]
    pub cases: Option<PathBuf>,
    /// Write anew what is expected
    #[arg(long)]
    pub update: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Record what a frontend asks and is answered, or answer it again
#[derive(Args, Debug)]
pub struct TraceArgs {
    /// A component file, or the name of a bundled plugin
    #[arg(value_name = "NAME|PATH")]
    pub plugin: OsString,
    /// Answer from this trace, and from nothing else; shows what the frontend makes of it
    #[arg(long, value_name = "FILE", conflicts_with = "build")]
    pub replay: Option<PathBuf>,
    /// Where the trace goes [default: standard output]
    #[arg(short, long, value_name = "FILE", conflicts_with = "replay")]
    pub output: Option<PathBuf>,
    /// As of wbuild build: PATH and options
    #[arg(value_name = "BUILD", trailing_var_arg = true, allow_hyphen_values = true)]
    pub build: Vec<OsString>,
}

impl TraceArgs {
    /// The build that is to be recorded.
    pub fn parse_build(&self) -> Result<Box<BuildArgs>, clap::Error> {
        let words = self.build.iter().cloned();
        let argv = ["wbuild", "build"].map(OsString::from).into_iter().chain(words);
        match super::parse(argv)?.command {
            Some(super::Command::Build(build)) => Ok(build),
            _ => unreachable!("the command was written above"),
        }
    }
}
