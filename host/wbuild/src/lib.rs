//! wbuild for programs: builds from within a process, with the engine, the plugins and the bundled
//! components that the command line has.
//!
//! ```no_run
//! use wbuild::{Output, Process};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // First of all, before there is any thread: see `init`.
//!     let process: Process = wbuild::init();
//!
//!     let (builder, mut events) = process
//!         .builder("/var/lib/my-tool")
//!         .context("./src")
//!         .definition("Dockerfile", "FROM scratch\nCOPY . /src\n")
//!         .arg("VERSION", "2")
//!         .output(Output::files("./out"))
//!         .events();
//!     let progress = std::thread::spawn(move || {
//!         while let Some(event) = events.blocking_next() {
//!             println!("{event:?}");
//!         }
//!     });
//!     match builder.build_blocking() {
//!         Ok(built) => println!("{}", built.metadata()),
//!         Err(error) => eprintln!("{error}"),
//!     }
//!     progress.join().expect("it does not panic");
//!     Ok(())
//! }
//! ```
//!
//! # What a program has to know
//!
//! - [`init`] stands at the beginning of `main`. Steps are launched by a helper process, which is this
//!   program once more, and an ordinary user needs a user namespace, which cannot be entered by a
//!   process that has threads. What cannot be had is said when a step needs it, so a program that
//!   only [plans](Builder::plan) runs anywhere.
//! - Nothing is read from the environment: no state directory, no proxies, no credentials. What a
//!   build shall know is said to its [`Builder`]. Programs (crun, git, newuidmap) are looked for in
//!   `PATH`, unless [`Process::search`] says where.
//! - What reads the definition is a frontend by its name or reference (`oci://…`, `https://…#sha256:…`),
//!   a component in a file or in memory, or Rust. What it is trusted with say [`Builder::policy`] and
//!   [`Builder::isolate`]; it is pinned in the `wbuild.lock` of [`Builder::project`]. [`native`] makes a frontend of a function, so that a tool with a syntax of its own makes
//!   the graph in its own process. A native frontend is trusted like the program itself.
//!
//!   ```no_run
//!   # fn main() -> Result<(), wbuild::Error> {
//!   let built = wbuild::init()
//!       .builder("/var/lib/my-tool")
//!       .project("./src")
//!       .context("./src")
//!       .frontend("oci://registry.example/team/app-frontend:1")
//!       .isolate(wbuild::Isolate::Untrusted)
//!       .definition_file("app.yaml")
//!       .build_blocking()?;
//!   # drop(built);
//!   # Ok(())
//!   # }
//!   ```
//! - A build ends when its future is dropped, or when the token of [`Builder::cancelled_by`] is
//!   cancelled; the latter waits until nothing of it is left.
//! - [`Error`] shows what failed as the command line does, with the lines of the definition.
//! - One build at a time uses a state directory; another waits, in this process or elsewhere, unless
//!   [`Builder::no_wait`] was called.
//!
//! The command line is made of the same pieces: [`plugins`], [`session`], [`credentials`], [`render`],
//! [`metadata`], [`LAUNCHER`].

mod builder;
mod client_process;
pub mod credentials;
mod error;
mod events;
pub mod metadata;
mod native;
pub mod plugins;
mod process;
pub mod render;
pub mod session;
mod values;

/// Ops of the graph, for native frontends.
pub use wbuild_graph as graph;

pub use builder::Builder;
pub use error::Error;
pub use events::Events;
pub use native::native;
pub use plugins::{FrontendSource, Isolate};
pub use process::{LAUNCHER, Process, init, launcher, serve_if_asked};
pub use values::{Built, Context, Output};
pub use wbuild_api::event::{Event, ImageReport, StepEnd, StepId};
pub use wbuild_api::extension::{
    FilesResult, Frontend, FrontendHost, ImageRequest, ImageResult, PluginIdentity,
};
pub use wbuild_api::request::{CacheSpec, Entitlement};
pub use wbuild_graph::{Attrs, Diagnostic, Failure, FailureKind, Platform};
pub use wbuild_plan::Plan;
pub use wbuild_store::Limits;

/// The runners of a build that names none.
pub const RUNNERS: [&str; 2] = ["native", "qemu"];

/// The cache backends of a build that names none.
pub const CACHES: [&str; 1] = ["cache-local"];
