//! Rust: cargo, with the linker that every toolchain brings and whose output is a component.

use std::process::Command;

use serde_json::Value;
use wbuild_graph::Failure;

use super::{read, tool};
use crate::project::Project;

/// Not one of the `wasip` targets, which import WASI.
const TARGET: &str = "wasm32-unknown-unknown";

pub(super) fn build(project: &Project) -> Result<Vec<u8>, Failure> {
    let cargo = tool::find(&["cargo"]).ok_or_else(|| {
        tool::missing("cargo", &["install Rust 1.95 or newer (https://rustup.rs)"])
    })?;
    let mut command = Command::new(&cargo);
    command
        .args(["build", "--quiet", "--release", "--target", TARGET])
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-component-ld")
        .current_dir(&project.folder);
    tool::run(&mut command, "cargo build").map_err(|failure| {
        let lacks = failure.causes.iter().any(|line| {
            line.contains("can't find crate for `core`")
                || line.contains("can't find crate for `std`")
        });
        match lacks {
            true => failure.hint(format!("rustup target add {TARGET}")),
            false => failure,
        }
    })?;
    read(&output(project, &cargo)?)
}

/// Where cargo puts the library, which is the project's and the workspace's to say.
fn output(project: &Project, cargo: &std::path::Path) -> Result<std::path::PathBuf, Failure> {
    let failed = |what: &str| Failure::invalid(format!("cargo metadata: {what}"));
    let out = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(&project.folder)
        .output()
        .map_err(|error| failed("cannot be run").cause(&error))?;
    let metadata: Value =
        serde_json::from_slice(&out.stdout).map_err(|error| failed("no JSON").cause(&error))?;
    let manifest = project.folder.join("Cargo.toml");
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let library = packages
        .filter(|package| package["manifest_path"].as_str().is_some_and(|path| manifest == *path))
        .flat_map(|package| package["targets"].as_array().into_iter().flatten())
        .find(|target| {
            let types = target["crate_types"].as_array();
            types.is_some_and(|types| types.iter().any(|kind| kind == "cdylib"))
        })
        .and_then(|target| target["name"].as_str())
        .ok_or_else(|| {
            failed("the package makes no component")
                .hint("in Cargo.toml: [lib] crate-type = [\"cdylib\"]")
        })?;
    let target = metadata["target_directory"].as_str().ok_or_else(|| failed("no target folder"))?;
    let file = format!("{}.wasm", library.replace('-', "_"));
    Ok(std::path::Path::new(target).join(TARGET).join("release").join(file))
}
