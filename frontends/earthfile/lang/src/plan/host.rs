//! What a build of an Earthfile asks of the outside beyond what one of a Dockerfile does.

use wbuild_dockerfile::{Failure, Host, Output, Platform};

/// What a captured process did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Of the process.
    pub code: i32,
    /// What it printed, up to the limit.
    pub stdout: Vec<u8>,
    /// There was more.
    pub truncated: bool,
    /// What it said about it.
    pub stderr: Vec<u8>,
}

/// The other side of a build whose graph depends on what commands say.
pub trait DynamicHost: Host {
    /// Solves several nodes beside each other; one answer each, in order.
    fn evaluate(&mut self, at: &[Output]) -> Vec<Result<(), Failure>>;
    /// What an exec with `capture` did.
    fn outcome(&mut self, at: Output) -> Result<Outcome, Failure>;
    /// Has work done that must succeed though nothing of it is yielded.
    fn require(&mut self, at: Output) -> Result<(), Failure>;
    /// Names a tree of files for the client.
    fn files(&mut self, root: Output) -> Result<(), Failure>;
    /// Names the image that the build yields for a platform, with names that the file gives it;
    /// whoever pushes is to `push` it to these, too.
    fn named_image(
        &mut self,
        platform: &Platform,
        root: Option<Output>,
        config: &str,
        names: &[String],
        push: bool,
    ) -> Result<(), Failure>;
}
