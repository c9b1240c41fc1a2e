//! Embeds what a new project is made of: the WIT packages, the layers of the languages and the
//! templates, so that the installed program is one file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Folders of the workspace, each a constant. Of the packages the oldest version: a component made for
/// it runs on every host of 0.1.
const FOLDERS: [(&str, &str); 3] =
    [("WIT", "wit/frozen/0.1.0"), ("SDK", "plugins/sdk"), ("TEMPLATES", "plugins/templates")];
/// What is no part of them: what tools leave behind.
const SKIPPED: [&str; 5] = ["target", "node_modules", "build", "__pycache__", ".venv"];

fn main() {
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = manifest.ancestors().nth(2).expect("this crate lies in host/author").to_owned();
    let mut text = String::new();
    for (constant, folder) in FOLDERS {
        let top = root.join(folder);
        let mut files = Vec::new();
        collect(&top, &top, &mut files);
        files.sort();
        let _ = writeln!(text, "/// Files of `{folder}`, by their paths in it.");
        let _ = writeln!(text, "pub static {constant}: &[(&str, &[u8])] = &[");
        for file in files {
            let path = top.join(&file);
            let _ =
                writeln!(text, "    ({file:?}, include_bytes!({:?})),", path.display().to_string());
        }
        text.push_str("];\n");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("files.rs");
    if let Err(error) = std::fs::write(&out, text) {
        println!("cargo::error=cannot write {}: {error}", out.display());
    }
}

fn collect(top: &Path, folder: &Path, files: &mut Vec<String>) {
    // Cargo looks at a folder's own time, which changes with its entries.
    println!("cargo::rerun-if-changed={}", folder.display());
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if SKIPPED.iter().any(|skipped| name == *skipped) {
            continue;
        }
        if path.is_dir() {
            collect(top, &path, files);
        } else if let Some(inside) = path.strip_prefix(top).ok().and_then(Path::to_str) {
            println!("cargo::rerun-if-changed={}", path.display());
            files.push(inside.to_owned());
        }
    }
}
