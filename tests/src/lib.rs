//! What the end-to-end tests and the benchmarks stand on.
//!
//! It knows wbuild only as its users do: as a program with arguments, output and files. No crate of
//! wbuild's is linked, so a reader of images here ([`image`], [`tree`]) cannot share a mistake with
//! the writer under test.
//!
//! - [`sandbox`]: a directory with a context and a state, and wbuild run in it;
//! - [`run`]: a finished program: exit code, output, steps;
//! - [`image`], [`tree`]: images and file trees as values;
//! - [`base`]: the image that cases start from, made of a static busybox;
//! - [`case`]: case folders and their golden files;
//! - [`packages`]: programs of other architectures;
//! - [`skip`]: tests that cannot run on this machine;
//! - [`kills`]: builds that are killed at random moments;
//! - [`unprivileged`]: wbuild run by an ordinary user, and in a container;
//! - [`wire`]: a bad connection between the two;
//! - [`files`]: a web server that keeps what is PUT to it;
//! - [`languages`]: compilers and interpreters for plugins in other languages;
//! - [`container`]: the smallest container;
//! - [`peer`], [`registry`], [`machine`]: other programs, and what is left of them on the machine.

pub mod base;
pub mod case;
pub mod container;
pub mod disk;
pub mod files;
pub mod git;
pub mod golden;
pub mod httpd;
pub mod image;
pub mod kills;
pub mod languages;
pub mod machine;
pub mod packages;
pub mod peer;
pub mod registry;
pub mod run;
pub mod sandbox;
pub mod skip;
pub mod tree;
pub mod unprivileged;
pub mod wire;

use std::path::{Path, PathBuf};

/// The root folder of the repository.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate lies one below the root")
        .to_owned()
}

/// A folder below `target/` for what tests share and leave: made if it is not there.
pub fn scratch() -> anyhow::Result<PathBuf> {
    // Beside the executable, so that several target folders do not share state.
    let path = target()?.join("e2e");
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

/// The folder of cargo's output that holds this executable, e.g. `target/debug`.
fn target() -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let folder = exe.parent().expect("a file has a folder");
    // Tests lie in `deps`, programs do not.
    Ok(if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder }.to_owned())
}

/// The program under test: `WBUILD_BIN`, else the one cargo built beside this executable.
pub fn wbuild_program() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("WBUILD_BIN") {
        return Ok(path.into());
    }
    let path = target()?.join("wbuild");
    anyhow::ensure!(
        path.is_file(),
        "{} is not there; run: cargo build -p wbuild-cli",
        path.display()
    );
    Ok(path)
}
