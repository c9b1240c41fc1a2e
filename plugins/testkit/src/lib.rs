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
//! [`Case`], in a test or in a folder (what follows; [`cases`], [`machine`], [`backend`]).
#![doc = include_str!("../../docs/cases.md")]

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

#[cfg(test)]
mod tests {
    /// What the manual has as `case.toml` below a heading.
    pub(crate) fn manual(heading: &str) -> &'static str {
        let manual = include_str!("../../docs/cases.md");
        let (_, section) = manual.split_once(heading).expect("a heading");
        let (_, block) = section.split_once("```toml\n").expect("a block");
        block.split_once("```").expect("its end").0
    }
}
