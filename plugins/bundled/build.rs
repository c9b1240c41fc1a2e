//! Finds the components that are embedded and writes the table of them.
//!
//! It does not build them: a cargo inside a cargo would wait for its own lock and take the wrong
//! compiler. `cargo xtask guests` does, and leaves beside each component the list of files it was
//! made of; a component that no longer matches its list is embedded with a warning.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// The bundled components: kind, name, and the package of this workspace that makes it.
const BUNDLED: [(&str, &str, &str); 9] = [
    ("Frontend", "dockerfile", "dockerfile"),
    ("Frontend", "earthfile", "earthfile"),
    ("Frontend", "steps", "steps"),
    ("Frontend", "yaml", "yaml"),
    ("Runner", "native", "native"),
    ("Runner", "qemu", "qemu"),
    ("Cache", "cache-local", "cache-local"),
    // A repository of a registry, or a directory: which one is decided by what it is granted.
    ("Cache", "registry", "cache-oci"),
    ("Cache", "local", "cache-oci"),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = manifest.ancestors().nth(2).expect("this crate lies in plugins/bundled").to_owned();
    let dist = root.join("target/guests/dist");

    let mut missing = Vec::new();
    let mut stale = Vec::new();
    // What has several names is embedded once.
    let mut statics = BTreeSet::new();
    let mut table = String::new();
    for (kind, name, package) in BUNDLED {
        let wasm = dist.join(format!("{package}.wasm"));
        let inputs = dist.join(format!("{package}.inputs"));
        println!("cargo::rerun-if-changed={}", wasm.display());
        println!("cargo::rerun-if-changed={}", inputs.display());
        let Ok(bytes) = std::fs::read(&wasm) else {
            missing.push(package);
            continue;
        };
        let inputs = std::fs::read_to_string(&inputs);
        if inputs.is_ok_and(|inputs| changed_since(&root, &inputs)) {
            stale.push(package);
        }
        let constant = package.replace('-', "_").to_uppercase();
        statics.insert(format!(
            "    static {constant}: &[u8] = include_bytes!({:?});\n",
            wasm.display().to_string()
        ));
        let _ = writeln!(
            table,
            "        Bundled {{ name: {name:?}, kind: Kind::{kind}, bytes: {constant}, digest: {:?} }},",
            <[u8; 32]>::from(Sha256::digest(&bytes)),
        );
    }
    let statics: String = statics.into_iter().collect();
    let table = format!("{{\n{statics}    &[\n{table}    ]\n}}\n");

    if !missing.is_empty() {
        println!(
            "cargo::error=the bundled components are not built ({} missing in target/guests/dist); run: cargo xtask guests",
            missing.join(", ")
        );
        return;
    }
    if !stale.is_empty() {
        println!(
            "cargo::warning=embedding components that are older than their sources ({}); run: cargo xtask guests",
            stale.join(", ")
        );
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("bundled.rs");
    if let Err(error) = std::fs::write(&out, table) {
        println!("cargo::error=cannot write {}: {error}", out.display());
    }
}

/// Whether a source that `cargo xtask guests` listed differs now. Also has cargo watch it.
///
/// The toolchain and the files that concern the whole workspace are left out: they change for
/// reasons that have nothing to do with the guests, and cargo decides about them anyway.
fn changed_since(root: &Path, inputs: &str) -> bool {
    let mut changed = false;
    for line in inputs.lines() {
        let Some((hash, path)) = line.split_once(' ') else { continue };
        if matches!(path, "toolchain" | "Cargo.toml" | ".cargo/config.toml")
            || path.starts_with("Cargo.lock")
        {
            continue;
        }
        let path = root.join(path);
        println!("cargo::rerun-if-changed={}", path.display());
        let now = std::fs::read(&path).map(|bytes| format!("{:016x}", fingerprint(&bytes)));
        changed |= now.ok().as_deref() != Some(hash);
    }
    changed
}

/// FNV-1a, as in `host/xtask/src/guests.rs`.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
