//! Frontends that call others: what is asked, what is answered, and the capability to ask.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use wbuild_graph::{Attrs, Edge, Failure, Platform, Span};

use crate::extension::{FilesResult, ImageResult};

/// A node that a called frontend gets as a context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NestedContext {
    /// Its files.
    pub root: Edge,
    /// Image config, if it is one.
    pub config: Option<String>,
}

/// What is wanted of another frontend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NestedBuild {
    /// By which policy knows it.
    pub frontend: String,
    /// Name and bytes; none = the caller's own.
    pub definition: Option<(String, Vec<u8>)>,
    /// By name, in the order they were given; the last of a name counts.
    pub contexts: Vec<(String, NestedContext)>,
    /// Names of contexts of the caller's that it gets as the caller has them.
    pub handed_on: Vec<String>,
    /// In order.
    pub targets: Vec<String>,
    /// None = the caller's own.
    pub platforms: Vec<Platform>,
    /// All that it gets.
    pub options: Attrs,
    /// Places that ask for it.
    pub asked_at: Vec<Span>,
}

/// What a called frontend has yielded; every platform is filled in, and outputs are nodes of the
/// caller's graph.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NestedResult {
    /// Images.
    pub images: Vec<ImageResult>,
    /// Trees of files.
    pub files: Vec<FilesResult>,
}

/// wit/frontend, interface `nested`.
#[async_trait]
pub trait NestedCap: Send + Sync {
    /// Runs all beside each other; one answer each, in order.
    async fn build(&self, requests: Vec<NestedBuild>) -> Vec<Result<NestedResult, Failure>>;
}
