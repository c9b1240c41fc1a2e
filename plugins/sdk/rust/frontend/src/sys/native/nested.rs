//! Frontends that are called, over the capability.

use wbuild_api::extension::{FrontendHost, NestedBuild, NestedResult};
use wbuild_graph::Failure;
use wbuild_guest::native::wait;

/// `nested.build`, with the builders `nested.nested-build`
pub fn nested_build(requests: Vec<NestedBuild>) -> Vec<Result<NestedResult, Failure>> {
    wait(|host: FrontendHost| async move { host.nested.build(requests).await })
}
