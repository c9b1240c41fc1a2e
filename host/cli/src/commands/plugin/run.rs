//! `wbuild plugin run`.
//!
//! The build is a process of its own: it enters namespaces, which a process does once. So the plugin is
//! found by its path, and another digest is another instance.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use wbuild_author::{Kind, Project, watch};
use wbuild_cli::args::{self, BuildArgs, RunArgs};
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::report::Report;
use wbuild_cli::report::style::Style;
use wbuild_cli::terminal;
use wbuild_graph::{Failure, FailureKind};

use super::build::make;

/// Runs the command.
pub fn run(args: &RunArgs) -> Result<Exit, Fault> {
    if !args.watch {
        let project = Project::read(&args.project)?;
        make(&project)?;
        let error = command(&project, &args.build)?.exec();
        return Err(cannot_run(&error).into());
    }
    let build = match parsed(&args.build) {
        Ok(build) => build,
        Err(error) => {
            let _ = error.print();
            return Ok(Exit::Usage);
        }
    };
    // A project that is broken now may be repaired, but not one that is nowhere.
    let project = Project::read(&args.project)?;
    let watched = watched(&project, &build);
    let folders: Vec<&Path> = watched.iter().map(PathBuf::as_path).collect();
    let results = results(&build);
    loop {
        let seen = watch::look(&folders, &results);
        if let Err(fault) = once(args) {
            let report = Report {
                style: Style::new(false),
                sources: &fault.sources,
                output_was_shown: true,
            };
            terminal::eprint(&report.failure(&fault.failure, None));
        }
        terminal::eprint("waiting for changes; Ctrl-C ends it\n");
        watch::wait(&folders, &results, &seen);
        terminal::eprint("\n");
    }
}

/// One round: what is wrong in it ends the round only.
fn once(args: &RunArgs) -> Result<(), Fault> {
    let project = Project::read(&args.project)?;
    make(&project)?;
    command(&project, &args.build)?.status().map_err(|error| cannot_run(&error))?;
    Ok(())
}

/// `wbuild build` with the plugin, and these words.
fn command(project: &Project, words: &[OsString]) -> Result<Command, Failure> {
    let program = std::env::current_exe()
        .map_err(|error| Failure::internal("cannot find the program itself").cause(&error))?;
    let option = match project.kind {
        Kind::Frontend => "--frontend",
        Kind::Runner => "--runner",
        Kind::Cache => "--cache-backend",
    };
    let mut command = Command::new(program);
    command.arg("build").arg(option).arg(project.component()).args(words);
    Ok(command)
}

fn cannot_run(error: &std::io::Error) -> Failure {
    Failure::new(FailureKind::Internal, "cannot run wbuild build").cause(error)
}

fn parsed(words: &[OsString]) -> Result<Box<BuildArgs>, args::Error> {
    let argv = ["wbuild", "build"].map(OsString::from).into_iter().chain(words.iter().cloned());
    match args::parse(argv)?.command {
        Some(args::Command::Build(build)) => Ok(build),
        _ => unreachable!("the command was written above"),
    }
}

/// The project, the context and the definition, as far as they are files of this machine.
fn watched(project: &Project, build: &BuildArgs) -> Vec<PathBuf> {
    let context = build.path.as_ref().map(PathBuf::from);
    let mut all = vec![project.folder.clone()];
    all.extend(context.into_iter().chain(build.file.clone()).filter(|path| path.exists()));
    all
}

/// Where results go: what is written there is no change.
fn results(build: &BuildArgs) -> Vec<PathBuf> {
    let places = build.outputs.iter().filter_map(|output| output.dest.as_ref());
    places.filter_map(|place| std::path::absolute(place).ok()).collect()
}
