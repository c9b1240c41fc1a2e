//! Running the processes of a build: hardened spec, clamp, mounts, launcher, cancellation.
//!
//! The way of a step:
//!
//! ```text
//!   namespace::enter()            once, first thing in main, before any thread
//!   runtime::probe()              crun or runc, tried out (the answer can be kept: `is_current`)
//!   Launcher::start()             a helper process that dies with this one and takes all along
//!        │
//!   inroot check: check_root()    is this root fit to be run in?
//!   user::resolve()               USER → uid, gid, groups, HOME
//!   stubs::make()                 mount points that are missing, as an extra lower layer
//!   spec::base(ExecSpec)          Docker's confinement; root and mount sources are tokens
//!   clamp::clamp()                what a runner made of it, if it is no more privileged
//!        │
//!   launcher.run(Step)            → Exit { code }
//! ```
//!
//! A program that uses this crate gives the launcher a hidden subcommand:
//!
//! ```no_run
//! # use std::ffi::OsString;
//! let args: Vec<OsString> = std::env::args_os().skip(1).collect();
//! if args.first().is_some_and(|first| first == "__launcher") {
//!     std::process::exit(wbuild_exec::launcher_main(&args[0], &args[1..]));
//! }
//! ```
//!
//! Invariants:
//!
//! - No host path reaches a spec: sources are descriptors, given to the launcher beside it.
//! - A step that is over, cancelled or dropped leaves no process and no mount; so does the death of
//!   this process at any moment (see [`launcher`]).
//! - A step's output is never read, clipped or kept here: the caller owns the pipes.
//! - Nothing here prints, reads the user's environment or writes the state directory.

pub mod clamp;
pub mod elf;
pub mod facts;
mod fail;
mod inroot;
pub mod launcher;
pub mod mounts;
pub mod namespace;
pub mod output;
pub mod runtime;
pub mod spec;
pub mod stubs;
mod sys;
pub mod tiny;
pub mod user;

pub use inroot::check_root;
pub use launcher::{Exit, Handler, Launcher, LauncherOptions, RunningStep, Step, launcher_main};
pub use mounts::{Content, Source};
pub use runtime::{RuntimeInfo, RuntimeKind};
pub use spec::{ExecSpec, MountKind, MountSpec};
