//! What a build of an Earthfile asks of the outside beyond what one of a Dockerfile does.

use wbuild_dockerfile::{Attrs, Failure, Host, Output, Platform, Span};

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

/// What another frontend is to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NestedBuild {
    /// Which.
    pub frontend: String,
    /// Name and text of its definition.
    pub definition: (String, Vec<u8>),
    /// Its main context.
    pub context: Output,
    /// Names of the caller's contexts that it gets, too.
    pub handed_on: Vec<String>,
    /// What to build of it; none = its default.
    pub target: Option<String>,
    /// What for.
    pub platform: Platform,
    /// All that it gets.
    pub options: Vec<(String, String)>,
    /// Who asks for it.
    pub asked_at: Span,
}

/// An image that another frontend has yielded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NestedImage {
    /// Its files; none if it has no layers.
    pub root: Option<Output>,
    /// OCI image config.
    pub config: String,
}

/// The other side of a build whose graph depends on what commands say.
pub trait DynamicHost: Host {
    /// Solves several nodes beside each other; one answer each, in order.
    fn evaluate(&mut self, at: &[Output]) -> Vec<Result<(), Failure>>;
    /// A directory of the client's as it is after something was done there, if that is given.
    fn local_after(&mut self, name: &str, after: Option<Output>) -> Result<Output, Failure>;
    /// What an exec with `capture` did.
    fn outcome(&mut self, at: Output) -> Result<Outcome, Failure>;
    /// Has work done that must succeed though nothing of it is yielded.
    fn require(&mut self, at: Output) -> Result<(), Failure>;
    /// Has other frontends build something, beside each other; the images of each, in order.
    fn nested(&mut self, builds: &[NestedBuild]) -> Vec<Result<Vec<NestedImage>, Failure>>;
    /// Names of the directories in a directory that match a pattern, sorted; none if there is no such
    /// directory.
    fn directories(
        &mut self,
        at: Output,
        path: &str,
        pattern: &str,
    ) -> Result<Vec<String>, Failure>;
    /// What is known of a repository at a branch, tag or commit, by the names of the options `vcs:…`.
    fn repository_facts(&mut self, url: &str, reference: &str) -> Result<Attrs, Failure>;
    /// Names a tree of files for the client, by a name of its own, for a directory as seen from the
    /// definition's.
    fn files(&mut self, name: &str, root: Output, directory: &str) -> Result<(), Failure>;
    /// Names an image that the build yields for a platform. Images of one `name` are one image; the
    /// build's own is called "".
    fn image_result(
        &mut self,
        name: &str,
        platform: &Platform,
        root: Option<Output>,
        config: &str,
        attrs: &[(String, String)],
    ) -> Result<(), Failure>;
    /// Has a process run for its effect, if the caller pushes.
    fn effect(&mut self, name: &str, at: Output) -> Result<(), Failure>;
    /// Lets the build fail with the failure of this captured process, once the rest is written.
    fn fail_after(&mut self, at: Output) -> Result<(), Failure>;
    /// Writes results now, with the effects so far.
    fn publish(&mut self, names: &[String]) -> Result<(), Failure>;
    /// Whether two nodes are made in the same way of the same.
    fn same_work(&mut self, at: Output, other: Output) -> Result<bool, Failure>;
}
