//! The suite runs with components made for each released version of WIT: which, is a property of the
//! test's thread.
//!
//! When a version is released, the crates of `plugins/hostile` go on with the new one. For the one
//! before it each of [`COMPONENTS`] gets a crate of its own beside them, named with an ending that says
//! the version, whose `path` of the bindings is `wit/frozen/VERSION` and whose modules are those of the
//! first crate as they were (`#[path]`, as long as they compile); and [`VERSIONS`] a line.

#![allow(dead_code, missing_docs)]

use std::cell::Cell;
use std::path::{Path, PathBuf};

use wbuild_plugin::{Plugin, PluginHost};

/// Versions with the endings of the names of their components, oldest first. The last is made for what
/// is in `wit` itself.
pub const VERSIONS: &[(&str, &str)] = &[("0.1.0", "")];

/// What each version needs a component for. `hostile-import` and `hostile-world` are about names that
/// no version has.
pub const COMPONENTS: [&str; 5] =
    ["hostile-frontend", "hostile-nested", "hostile-runner", "hostile-cache", "hostile-http"];

thread_local! {
    static VERSION: Cell<usize> = const { Cell::new(VERSIONS.len() - 1) };
}

/// Runs a test for each version.
pub fn each(mut test: impl FnMut()) {
    for version in 0..VERSIONS.len() {
        VERSION.set(version);
        test();
    }
}

/// The version that a test is run for now.
pub fn version() -> &'static str {
    VERSIONS[VERSION.get()].0
}

/// A component of this version. It is called the same for all.
pub fn component(host: &PluginHost, name: &str) -> Plugin {
    let (_, ending) = VERSIONS[VERSION.get()];
    host.load(name, crate::common::dist(&format!("{name}{ending}"))).expect("it loads")
}

/// The WIT packages as they are now.
pub fn wit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit")
}

/// The WIT packages that the components of this version are made for.
pub fn packages() -> PathBuf {
    let newest = VERSION.get() + 1 == VERSIONS.len();
    if newest { wit() } else { wit().join("frozen").join(version()) }
}
