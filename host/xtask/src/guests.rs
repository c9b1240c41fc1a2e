//! Compiles the guests of the workspace to components.
//!
//! A guest is a workspace member that makes a `cdylib`; there is no other list. All are built by
//! one cargo invocation with `--profile guest`, their own target folder and their own compiler
//! ([`crate::toolchain`]). The linker `wasm-component-ld` (`.cargo/config.toml`) makes cargo's
//! output a component; here it is only checked and copied:
//!
//! ```text
//! target/guests/
//!   toolchain                  identity of what the folder was built with
//!   wasm32-unknown-unknown/    cargo's
//!   dist/<package>.wasm        the components; others read these and nothing else here
//!   dist/<package>.inputs      what it was made of: one "<hash> <path>" a line
//! ```
//!
//! Invariants: a component appears in `dist` whole and checked, or not at all; an unchanged one
//! keeps its file and time, so that nothing that embeds it is built again.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::component::Surface;
use crate::toolchain::{TARGET, Toolchain, output_of};
use crate::{read_text, write_if_changed};

/// How to build.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Package names; empty means all.
    pub only: Vec<String>,
    /// Add the target to rustup's toolchain instead of making a private toolchain.
    pub install_target: bool,
    /// Renew the golden list of imports.
    pub bless: bool,
}

/// A workspace member that is compiled to a component.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The package, also the name of the component.
    pub name: String,
    /// Name of the library target: the stem of cargo's output.
    library: String,
    manifest: PathBuf,
    /// From `[package.metadata.wbuild]`, for test components that misbehave on purpose.
    exceptions: Exceptions,
}

/// What a test component may do although no real one may.
#[derive(Clone, Debug, Default)]
struct Exceptions {
    /// `allow-imports`: names outside the `wbuild` namespace.
    imports: Vec<String>,
    /// `no-role`: exports nothing that a host would call.
    no_role: bool,
}

/// The folder of the finished components.
pub fn dist(root: &Path) -> PathBuf {
    root.join("target/guests/dist")
}

/// The golden list of imports and exports, see [`golden_entry`].
pub fn golden_file(root: &Path) -> PathBuf {
    root.join("host/xtask/imports.golden")
}

/// The guests of the workspace, by name.
pub fn list(root: &Path) -> Result<Vec<Guest>> {
    let metadata = output_of(
        cargo(root)
            .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
            .arg(root.join("Cargo.toml")),
    )?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).context("cannot decode the output of cargo metadata")?;
    let mut guests = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let target = package["targets"].as_array().into_iter().flatten().find(|target| {
            target["crate_types"].as_array().into_iter().flatten().any(|kind| kind == "cdylib")
        });
        let Some(target) = target else { continue };
        let text = |value: &serde_json::Value, what: &str| {
            value.as_str().map(str::to_owned).with_context(|| format!("cargo metadata: no {what}"))
        };
        let wbuild = &package["metadata"]["wbuild"];
        guests.push(Guest {
            name: text(&package["name"], "package name")?,
            library: text(&target["name"], "target name")?.replace('-', "_"),
            manifest: text(&package["manifest_path"], "manifest path")?.into(),
            exceptions: Exceptions {
                imports: wbuild["allow-imports"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|name| text(name, "text in allow-imports"))
                    .collect::<Result<_>>()?,
                no_role: wbuild["no-role"].as_bool().unwrap_or(false),
            },
        });
    }
    guests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(guests)
}

/// Builds, checks and copies the guests; prints a line for each that changed.
pub fn build(root: &Path, options: &Options) -> Result<()> {
    let all = list(root)?;
    let chosen = choose(&all, &options.only)?;
    let toolchain = Toolchain::prepare(root, options.install_target)?;
    let target_dir = root.join("target/guests");
    renew_build_folder(&target_dir, &toolchain)?;

    let mut build = cargo(root);
    build
        .args(["build", "--profile", "guest", "--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .env("RUSTC", &toolchain.rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", remapped_paths())
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-component-ld");
    for guest in &chosen {
        build.args(["--package", &guest.name]);
    }
    let status = build.status().with_context(|| format!("cannot run {build:?}"))?;
    if !status.success() {
        bail!(
            "the guests do not compile (the component linker also fails this way when a WIT file and a guest disagree)"
        );
    }

    let dist = dist(root);
    let outputs = target_dir.join(TARGET).join("guest");
    let mut golden = String::new();
    let mut changed = 0;
    for guest in &chosen {
        let wasm = outputs.join(format!("{}.wasm", guest.library));
        let bytes =
            std::fs::read(&wasm).with_context(|| format!("cannot read {}", wasm.display()))?;
        let surface = Surface::read(&bytes).with_context(|| format!("{}", wasm.display()))?;
        accept(guest, &surface)?;
        golden.push_str(&golden_entry(&guest.name, &surface));
        let inputs = inputs(root, guest, &outputs, &toolchain)?;
        if write_if_changed(&dist.join(format!("{}.wasm", guest.name)), &bytes)? {
            changed += 1;
            eprintln!("{:>10}  {}", format!("{} KiB", bytes.len().div_ceil(1024)), guest.name);
        }
        write_if_changed(&dist.join(format!("{}.inputs", guest.name)), inputs.as_bytes())?;
    }
    if options.only.is_empty() {
        remove_others(&dist, &all)?;
    }
    if options.bless {
        if !options.only.is_empty() {
            bail!("--bless renews the list of all components, so it takes no names");
        }
        write_if_changed(&golden_file(root), golden.as_bytes())?;
    }
    if changed == 0 {
        eprintln!("{} components in {} are up to date", chosen.len(), dist.display());
    }
    Ok(())
}

/// Why `dist` is not up to date, a line for each component; empty when it is. Compiles nothing.
pub fn check(root: &Path, options: &Options) -> Result<Vec<String>> {
    let all = list(root)?;
    let toolchain_file = root.join("target/guests/toolchain");
    let toolchain = std::fs::read_to_string(&toolchain_file).unwrap_or_default();
    let mut stale = Vec::new();
    for guest in choose(&all, &options.only)? {
        let name = &guest.name;
        let dist = dist(root);
        if !dist.join(format!("{name}.wasm")).is_file() {
            stale.push(format!("{name}: not built"));
            continue;
        }
        let recorded =
            std::fs::read_to_string(dist.join(format!("{name}.inputs"))).unwrap_or_default();
        match first_difference(root, &recorded, &toolchain) {
            None => {}
            Some(what) => stale.push(format!("{name}: {what}")),
        }
    }
    Ok(stale)
}

/// A component's entry in the golden list.
pub fn golden_entry(name: &str, surface: &Surface) -> String {
    let mut text = format!("{name}\n");
    for import in &surface.imports {
        let _ = writeln!(text, "  import {import}");
    }
    for export in &surface.exports {
        let _ = writeln!(text, "  export {export}");
    }
    text
}

/// Cargo for the guests, without what the calling cargo or the user's shell sets for the host.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    for name in
        ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"]
    {
        command.env_remove(name);
    }
    command
}

/// Compiler flags that keep the folders of this machine out of the components: panic messages name
/// source files, and a component's digest must not depend on where it was built. (Files of the
/// workspace are named relative to its root anyway.)
fn remapped_paths() -> std::ffi::OsString {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".cargo"))
    });
    let mut flags = std::ffi::OsString::new();
    if let Some(home) = home {
        flags.push("--remap-path-prefix=");
        flags.push(home.join("registry/src"));
        flags.push("=crates");
    }
    flags
}

fn choose<'a>(all: &'a [Guest], only: &[String]) -> Result<Vec<&'a Guest>> {
    for name in only {
        if !all.iter().any(|guest| guest.name == *name) {
            let known: Vec<&str> = all.iter().map(|guest| guest.name.as_str()).collect();
            bail!("no guest is called {name}; there are {}", known.join(", "));
        }
    }
    Ok(all.iter().filter(|guest| only.is_empty() || only.contains(&guest.name)).collect())
}

/// Removes cargo's output when it was made by another toolchain.
fn renew_build_folder(target_dir: &Path, toolchain: &Toolchain) -> Result<()> {
    let stamp = target_dir.join("toolchain");
    if std::fs::read_to_string(&stamp).is_ok_and(|present| present == toolchain.identity) {
        return Ok(());
    }
    let old = target_dir.join(TARGET);
    if old.exists() {
        eprintln!("the toolchain of the guests has changed: building them anew");
        std::fs::remove_dir_all(&old)
            .with_context(|| format!("cannot remove {}", old.display()))?;
    }
    write_if_changed(&stamp, toolchain.identity.as_bytes())?;
    Ok(())
}

/// Refuses a component that asks for more than wbuild offers, or that nobody could use.
fn accept(guest: &Guest, surface: &Surface) -> Result<()> {
    let foreign: Vec<&str> = surface
        .foreign_imports()
        .filter(|name| !guest.exceptions.imports.iter().any(|allowed| allowed == name))
        .collect();
    if !foreign.is_empty() {
        bail!(
            "{} imports {}: a component may import wbuild:* only (look for a dependency that wants clocks, files or randomness)",
            guest.name,
            foreign.join(", ")
        );
    }
    if surface.roles().is_empty() && !guest.exceptions.no_role {
        bail!(
            "{} exports {:?}: neither a frontend, a runner nor a cache backend (is `export!` missing?)",
            guest.name,
            surface.exports
        );
    }
    Ok(())
}

/// The text of `<name>.inputs`: the toolchain, then every file the component was made of.
fn inputs(root: &Path, guest: &Guest, outputs: &Path, toolchain: &Toolchain) -> Result<String> {
    // Cargo's dep-info names all sources of the workspace that went into it: Rust files, included
    // files and the WIT files that the bindings macro read.
    let dep_info = outputs.join(format!("{}.d", guest.library));
    let mut paths: BTreeSet<PathBuf> = dep_info_files(&read_text(&dep_info)?).into_iter().collect();
    paths.insert(guest.manifest.clone());
    for file in ["Cargo.toml", ".cargo/config.toml"] {
        paths.insert(root.join(file));
    }
    let lock = read_text(&root.join("Cargo.lock"))?;
    let mut text = format!("{:016x} toolchain\n", fingerprint(toolchain.identity.as_bytes()));
    let _ = writeln!(
        text,
        "{:016x} {LOCKED}{}",
        fingerprint(locked(&lock, &guest.name).as_bytes()),
        guest.name
    );
    for path in paths {
        let bytes =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let shown = path.strip_prefix(root).unwrap_or(&path);
        let _ = writeln!(text, "{:016x} {}", fingerprint(&bytes), shown.display());
    }
    Ok(text)
}

/// What differs now from the recorded inputs, if anything.
fn first_difference(root: &Path, recorded: &str, toolchain: &str) -> Option<String> {
    if recorded.is_empty() {
        return Some("not known what it was made of".to_owned());
    }
    for line in recorded.lines() {
        let Some((hash, path)) = line.split_once(' ') else {
            return Some("not known what it was made of".to_owned());
        };
        let now = if path == "toolchain" {
            Some(fingerprint(toolchain.as_bytes()))
        } else if let Some(package) = path.strip_prefix(LOCKED) {
            let lock = std::fs::read_to_string(root.join("Cargo.lock")).ok();
            lock.map(|lock| fingerprint(locked(&lock, package).as_bytes()))
        } else {
            std::fs::read(root.join(path)).ok().map(|bytes| fingerprint(&bytes))
        };
        match now {
            None => return Some(format!("{path} is gone")),
            Some(now) if format!("{now:016x}") != hash => {
                return Some(format!("{path} has changed"));
            }
            Some(_) => {}
        }
    }
    None
}

/// The prerequisites in a make rule file as cargo writes it (`\ ` stands for a blank).
fn dep_info_files(text: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in text.lines() {
        let Some((_, prerequisites)) = line.split_once(": ") else { continue };
        let mut name = String::new();
        let mut chars = prerequisites.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' if chars.peek() == Some(&' ') => name.extend(chars.next()),
                ' ' => files.push(std::mem::take(&mut name)),
                c => name.push(c),
            }
        }
        files.push(name);
    }
    files.into_iter().filter(|name| !name.is_empty()).map(PathBuf::from).collect()
}

/// Before the name of a package: what `Cargo.lock` says of it and of everything it depends on.
const LOCKED: &str = "Cargo.lock#";

/// The entries of a lock file that `package` reaches, sorted. The rest is about the host and
/// changes for reasons that do not concern a guest.
fn locked(lock: &str, package: &str) -> String {
    let entries: Vec<&str> = lock.split("[[package]]\n").skip(1).map(str::trim_end).collect();
    let is = |entry: &str, key: &str, value: &str| {
        entry.lines().any(|line| line == format!("{key} = \"{value}\""))
    };
    let mut reached = BTreeSet::new();
    let mut next = vec![package.to_owned()];
    while let Some(wanted) = next.pop() {
        // A dependency is written as "name", or "name version" where there are several versions.
        let mut words = wanted.split(' ');
        let (name, version) = (words.next().unwrap_or_default(), words.next());
        for entry in &entries {
            if is(entry, "name", name)
                && version.is_none_or(|version| is(entry, "version", version))
                && reached.insert(*entry)
            {
                let dependencies =
                    entry.lines().filter_map(|line| line.strip_prefix(" \"")?.strip_suffix("\","));
                next.extend(dependencies.map(str::to_owned));
            }
        }
    }
    reached.into_iter().collect::<Vec<_>>().join("\n")
}

/// FNV-1a. Tells a changed file from an unchanged one, and nothing more: no one gains anything by
/// a collision here. `wbuild-bundled`'s build script computes the same.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Removes components of guests that no longer exist.
fn remove_others(dist: &Path, guests: &[Guest]) -> Result<()> {
    let entries =
        std::fs::read_dir(dist).with_context(|| format!("cannot list {}", dist.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", dist.display()))?.path();
        let known = path
            .file_stem()
            .is_some_and(|stem| guests.iter().any(|guest| stem == guest.name.as_str()));
        if !known {
            std::fs::remove_file(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_fnv_1a() {
        // Published vectors of the 64 bit variant.
        for (text, want) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            assert_eq!(fingerprint(text.as_bytes()), want, "{text:?}");
        }
    }

    #[test]
    fn reads_make_rules() {
        let files = dep_info_files("/t/x.wasm: /a/b.rs /a/with\\ blank.rs /w/t.wit\n\n/a/b.rs:\n");
        assert_eq!(files, ["/a/b.rs", "/a/with blank.rs", "/w/t.wit"].map(PathBuf::from));
        assert!(dep_info_files("x: \n").is_empty());
    }

    #[test]
    fn a_component_may_import_nothing_foreign() {
        let guest = |exceptions| Guest {
            name: "g".into(),
            library: "g".into(),
            manifest: "Cargo.toml".into(),
            exceptions,
        };
        let surface = |imports: &[&str]| Surface {
            imports: imports.iter().map(|name| (*name).to_owned()).collect(),
            exports: vec!["wbuild:frontend/build@0.1.0".into()],
        };
        let strict = guest(Exceptions::default());
        accept(&strict, &surface(&["wbuild:types/log@0.1.0"])).expect("ours");
        for foreign in ["wasi:cli/stdout@0.2.0", "wbuildx:types/log@0.1.0", "env"] {
            let error =
                accept(&strict, &surface(&["wbuild:types/log@0.1.0", foreign])).expect_err(foreign);
            assert!(error.to_string().contains(foreign), "{error}");
        }
        let lax =
            guest(Exceptions { imports: vec!["hostile:extra/thing@0.1.0".into()], no_role: false });
        accept(&lax, &surface(&["hostile:extra/thing@0.1.0"])).expect("allowed by name");
        accept(&lax, &surface(&["wasi:io/poll@0.2.0"])).expect_err("not allowed");
        let useless = Surface::default();
        accept(&strict, &useless).expect_err("no role");
        accept(&guest(Exceptions { imports: Vec::new(), no_role: true }), &useless)
            .expect("said so");
    }

    #[test]
    fn only_its_own_part_of_the_lock_file_concerns_a_guest() {
        let lock = |log: &str, host: &str| {
            format!(
                "version = 4\n\n[[package]]\nname = \"g\"\nversion = \"0.1.0\"\ndependencies = [\n \"log {log}\",\n]\n\n[[package]]\nname = \"host\"\nversion = \"{host}\"\ndependencies = [\n \"log 9.0.0\",\n]\n\n[[package]]\nname = \"log\"\nversion = \"{log}\"\ndependencies = [\n \"low\",\n]\n\n[[package]]\nname = \"log\"\nversion = \"9.0.0\"\n\n[[package]]\nname = \"low\"\nversion = \"0.2.0\"\nchecksum = \"aa\"\n"
            )
        };
        let part = locked(&lock("1.0.0", "1.0.0"), "g");
        for (text, there) in [
            ("\"g\"", true),
            ("\"1.0.0\"", true),
            ("\"aa\"", true),
            ("host", false),
            ("9.0.0", false),
        ] {
            assert_eq!(part.contains(text), there, "{text} in {part}");
        }
        assert_eq!(part, locked(&lock("1.0.0", "2.0.0"), "g"));
        assert_ne!(part, locked(&lock("1.0.1", "1.0.0"), "g"));
        assert_ne!(part, locked(&lock("1.0.0", "1.0.0").replace("aa", "bb"), "g"));
    }

    #[test]
    fn another_toolchain_means_another_build_folder() {
        let folder = std::env::temp_dir().join(format!("xtask-renew-{}", std::process::id()));
        let output = folder.join(TARGET).join("guest/g.wasm");
        let toolchain =
            |identity: &str| Toolchain { rustc: "rustc".into(), identity: identity.into() };
        let build = || {
            std::fs::create_dir_all(output.parent().expect("a folder")).expect("make");
            std::fs::write(&output, "").expect("write");
        };
        build();
        renew_build_folder(&folder, &toolchain("a")).expect("renews");
        assert!(!output.exists(), "made by nobody knows what");
        build();
        renew_build_folder(&folder, &toolchain("a")).expect("keeps");
        assert!(output.exists());
        renew_build_folder(&folder, &toolchain("b")).expect("renews");
        assert!(!output.exists());
        std::fs::remove_dir_all(&folder).expect("remove");
    }

    #[test]
    fn tells_what_has_changed() {
        let folder = std::env::temp_dir().join(format!("xtask-inputs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("temporary folder");
        std::fs::write(folder.join("a"), "1").expect("write");
        let recorded =
            format!("{:016x} toolchain\n{:016x} a\n", fingerprint(b"t"), fingerprint(b"1"));
        assert_eq!(first_difference(&folder, &recorded, "t"), None);
        assert_eq!(
            first_difference(&folder, &recorded, "u").as_deref(),
            Some("toolchain has changed")
        );
        std::fs::write(folder.join("a"), "2").expect("write");
        assert_eq!(first_difference(&folder, &recorded, "t").as_deref(), Some("a has changed"));
        std::fs::remove_file(folder.join("a")).expect("remove");
        assert_eq!(first_difference(&folder, &recorded, "t").as_deref(), Some("a is gone"));
        assert!(first_difference(&folder, "", "t").is_some());
        std::fs::remove_dir_all(&folder).expect("remove");
    }
}
