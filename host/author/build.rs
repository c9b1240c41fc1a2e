//! Embeds what a new project is made of: the WIT packages, the layers of the languages and the
//! templates, so that the installed program is one file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What is no part of a project: what tools leave behind.
const SKIPPED: [&str; 6] = ["target", "node_modules", "build", "__pycache__", ".venv", ".git"];
/// The sources that a project in Rust needs, a path of the workspace a line; `#` begins a comment.
const VENDORED: &str = "plugins/sdk/rust/vendor.list";
/// The workspace around them.
const VENDORED_WORKSPACE: &str = "plugins/sdk/rust/vendor.toml";

/// Files by the paths that they have in a table.
type Table = Vec<(String, PathBuf)>;

fn main() {
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = manifest.ancestors().nth(2).expect("this crate lies in host/author").to_owned();
    let below = |folder: &str| {
        let mut table = Vec::new();
        collect(&root.join(folder), "", &mut table);
        table
    };
    let mut sdk = below("plugins/sdk");
    // Of a language's folder the layer: the rest is about it.
    sdk.retain(|(path, _)| path.split('/').nth(1) == Some("wbuild"));
    let tables = [
        // The oldest version: a component made for it runs on every host of 0.1.
        ("WIT", "The WIT packages", below("wit/frozen/0.1.0")),
        ("SDK", "The layers of the languages: `LANGUAGE/wbuild/…`", sdk),
        ("TEMPLATES", "The templates: `LANGUAGE/KIND/…`", below("plugins/templates")),
        ("VENDORED", "What a project in Rust has below `vendor/wbuild`", vendored(&root)),
    ];
    let mut text = String::new();
    for (constant, what, mut table) in tables {
        table.sort();
        let _ = writeln!(text, "/// {what}.\npub static {constant}: &[(&str, &[u8])] = &[");
        for (path, file) in table {
            let _ =
                writeln!(text, "    ({path:?}, include_bytes!({:?})),", file.display().to_string());
        }
        text.push_str("];\n");
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("files.rs");
    if let Err(error) = std::fs::write(&out, text) {
        println!("cargo::error=cannot write {}: {error}", out.display());
    }
}

fn vendored(root: &Path) -> Table {
    let list = root.join(VENDORED);
    println!("cargo::rerun-if-changed={}", list.display());
    let Ok(lines) = std::fs::read_to_string(list) else { return Table::new() };
    let mut table = vec![("Cargo.toml".to_owned(), root.join(VENDORED_WORKSPACE))];
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !line.starts_with('#') {
            collect(&root.join(line), line, &mut table);
        }
    }
    table
}

/// Notes a file, or the files below a folder, as `name` and what is below it.
fn collect(path: &Path, name: &str, table: &mut Table) {
    // Of a folder cargo looks at its own time, too, which changes with its entries.
    println!("cargo::rerun-if-changed={}", path.display());
    if !path.is_dir() {
        table.push((name.to_owned(), path.to_owned()));
        return;
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let Some(inside) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if !SKIPPED.contains(&inside.as_str()) {
            let name = if name.is_empty() { inside } else { format!("{name}/{inside}") };
            collect(&entry.path(), &name, table);
        }
    }
}
