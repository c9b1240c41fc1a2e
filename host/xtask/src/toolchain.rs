//! The compiler that guests are built with.
//!
//! Where the active toolchain has the wasm target it is that one. Else `wasm-std.sh` beside this
//! crate makes a private toolchain, once. The border between guest and host is the component
//! ABI, so the two may be compiled by different versions of rustc.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// The target triple of all guests.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// A rustc that has a standard library for [`TARGET`].
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// To be set as `RUSTC` for cargo.
    pub rustc: PathBuf,
    /// Changes when anything built with it must be built again: compiler, standard library and
    /// linker, in a few lines of text.
    pub identity: String,
}

impl Toolchain {
    /// Finds or makes it. Says on stderr what it is about to download or build.
    pub fn prepare(root: &Path, install_target: bool) -> Result<Toolchain> {
        let script = root.join("host/xtask/wasm-std.sh");
        let mut command = Command::new("sh");
        command.arg(&script);
        if install_target {
            command.arg("--rustup");
        }
        command.arg(root.join("target/wasm-toolchain")).stderr(std::process::Stdio::inherit());
        let rustc = output_of(&mut command)?;
        let rustc = PathBuf::from(rustc.trim());
        let identity = identity(&rustc)?;
        Ok(Toolchain { rustc, identity })
    }
}

/// Describes compiler, standard library and linker.
fn identity(rustc: &Path) -> Result<String> {
    let version = output_of(Command::new(rustc).arg("-vV"))?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .with_context(|| format!("{} -vV names no host", rustc.display()))?;
    let libdir =
        output_of(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))?;
    let libdir = Path::new(libdir.trim());
    // A rebuilt standard library of the same compiler differs in time at least; cargo itself does
    // not see that, and old build folders then fail with E0463.
    let mut rlibs = Vec::new();
    let entries =
        std::fs::read_dir(libdir).with_context(|| format!("cannot list {}", libdir.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", libdir.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("libstd-") {
            let seconds = entry
                .metadata()
                .and_then(|meta| meta.modified())
                .with_context(|| format!("cannot read the time of {}", entry.path().display()))?
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |time| time.as_secs());
            rlibs.push(format!("{name} {seconds}"));
        }
    }
    rlibs.sort();
    let linker = libdir
        .ancestors()
        .nth(2)
        .map(|rustlib| rustlib.join(host).join("bin/wasm-component-ld"))
        .filter(|linker| linker.exists())
        .with_context(|| {
            format!(
                "no wasm-component-ld beside {} (rustup's toolchains have it since 1.81)",
                libdir.display()
            )
        })?;
    let linker = output_of(Command::new(linker).arg("--version"))?;
    Ok(format!("{version}{}\n{linker}", rlibs.join("\n")))
}

/// Runs a command and returns its standard output.
pub fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        match stderr.trim() {
            "" => bail!("{} failed: {}", command.get_program().to_string_lossy(), output.status),
            text => bail!("{command:?} failed: {text}"),
        }
    }
    String::from_utf8(output.stdout).with_context(|| format!("{command:?} printed no UTF-8"))
}
