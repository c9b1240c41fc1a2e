//! Runs plugins of wbuild without wbuild: against values, on any machine, without containers, network
//! or registry.
//!
//! ```
//! # use wbuild_frontend::{Build, ImageConfig, Result, State};
//! # wbuild_frontend::frontend!(build);
//! # fn build(build: &Build) -> Result<()> {
//! #     let text = build.definition("")?;
//! #     let root = State::scratch().files().write("/hello", text.bytes()).done()?;
//! #     build.image(&root, &ImageConfig::new(&build.platforms()[0])).done()
//! # }
//! use wbuild_testkit::Case;
//!
//! let built = Case::new("hello").run(frontend()).expect_success();
//! assert!(built.graph_text().contains(r#"write "/hello" "hello""#));
//! ```
//!
//! A frontend here is anything that implements [`Frontend`](wbuild_api::extension::Frontend): one that
//! `wbuild-frontend` compiled into the test, or a component that `wbuild-plugin` loaded. What a host
//! refuses (options that are not known, nodes that contradict themselves, rights that nobody gave,
//! amounts) is refused by the code that the engine runs; what a machine would answer is said by a
//! [`Case`], in a test or in a folder:
//!
//! ```text
//! tests/cases/NAME/
//!   case.toml     options, platforms, images, what processes do; may be empty
//!   hello.steps   the definition: the only other file, or the one that case.toml names
//!   context/      files of the main context
//!   expected      what comes of it: graph, results, diagnostics, log
//! ```
//!
//! ```toml
//! targets = ["test"]
//! platforms = ["linux/amd64", "linux/arm64"]
//! secrets = ["token"]
//! options."build-arg:VERSION" = "1.2"
//! images."alpine".config = { architecture = "amd64", os = "linux", config = { Env = ["PATH=/bin"] } }
//! images."alpine".files."/etc/os-release" = "ID=alpine\n"
//! contexts.lib.dir = "lib"
//! sources."https://example.com/a.tar".pin = "sha256:…"
//!
//! # A frontend that is called: an image for each platform, or without a `config` files. It does not run;
//! # the graph shows what it was asked. `fails = "…"` makes it fail.
//! frontends.dockerfile.config = { config = { Env = ["PATH=/bin"] } }
//! frontends.dockerfile.files."/bin/tool" = "made"
//!
//! limits.nodes = 100
//!
//! [[exec]] # what a process does instead of running; the first that matches counts. One that none
//!          # matches ends well and changes nothing, but nothing may ask what it printed.
//! contains = "cat /version"
//! stdout = "1.2.3\n"
//! exit-code = 0
//! files."/out" = "made"
//! ```
//!
//! A runner's case says what the machine is ([`machine`]) and which platforms are asked about; a plan is
//! made for each that is offered:
//!
//! ```toml
//! platforms = ["linux/arm64", "linux/386"]
//! machine.native = ["linux/amd64"]
//! machine.features = ["userns", "binfmt-userns"]
//! machine.handlers."linux/s390x" = "OCF"
//! machine.tools.qemu-aarch64 = { static = true, version = "8.2" }
//! job.args = ["/bin/sh", "-c", "make"]
//! job.entry-format = ["elf:aarch64"]
//! job.env.LANG = "C"
//! job.mounts."/cache" = "cache"
//! ```
//!
//! A cache backend's case has its options, and says whether machines share the cache. Every promise
//! that backends make ([`promises`]) is tried with them, over places in memory ([`backend`]):
//!
//! ```toml
//! options.url = "https://cache.example/team/"
//! shared = true
//! ```
//!
//! Every case of a frontend is run twice, and a third time with the recorded answers of the first run alone
//! ([`Trace`]): what a frontend does may depend on nothing but what it is answered.

pub mod backend;
mod bench;
mod case;
pub mod cases;
mod frontends;
pub mod machine;
pub mod promises;
mod record;
mod replay;
mod run;
mod snapshot;
mod staged;
mod trace;
mod tree;

pub use case::{Case, FakeExec, FakeImage, FakeSource};
pub use frontends::FakeFrontend;
pub use machine::Machine;
pub use record::Traced;
pub use run::{Replay, Run, replay};
pub use snapshot::Snapshot;
pub use trace::{Call, Trace};
pub use tree::{Node, Tree};
