//! C: clang and the linker of LLVM. There is no standard library, so nothing can be imported by accident.

use std::path::PathBuf;
use std::process::Command;

use wbuild_graph::Failure;

use super::{read, tool, work};
use crate::files::failed;
use crate::project::{Kind, Project};

/// Names under which distributions have them, the plain one first.
const CLANG: [&str; 9] = [
    "clang", "clang-22", "clang-21", "clang-20", "clang-19", "clang-18", "clang-17", "clang-16",
    "clang-15",
];
const LINKER: [&str; 9] = [
    "wasm-ld",
    "wasm-ld-22",
    "wasm-ld-21",
    "wasm-ld-20",
    "wasm-ld-19",
    "wasm-ld-18",
    "wasm-ld-17",
    "wasm-ld-16",
    "wasm-ld-15",
];

/// The core module of a project: all `*.c` in it, and the layer in `wbuild/`.
pub(super) fn build(project: &Project) -> Result<Vec<u8>, Failure> {
    let hints = ["Debian, Ubuntu: apt-get install clang lld", "Fedora: dnf install clang lld"];
    let clang = tool::find(&CLANG).ok_or_else(|| tool::missing("clang", &hints))?;
    let linker = tool::find(&LINKER).ok_or_else(|| tool::missing("wasm-ld", &hints))?;
    let layer = project.folder.join("wbuild");
    let mut sources = sources(&project.folder)?;
    // Of the layer what this kind needs: its bindings, and what lies on them.
    sources.push(layer.join("memory.c"));
    if project.kind == Kind::Frontend {
        sources.extend(["text.c", "wbuild.c", "image.c"].map(|name| layer.join(name)));
    }
    sources.push(layer.join("gen").join(format!("{}.c", project.kind.world().replace('-', "_"))));
    let module = work(project)?.join("module.wasm");
    let mut command = Command::new(clang);
    command
        .args(["--target=wasm32-unknown-unknown", "-std=c11", "-Oz", "-flto", "-Wall", "-Wextra"])
        .args([
            "-ffreestanding",
            "-nostdlib",
            "-mbulk-memory",
            "-ffunction-sections",
            "-fdata-sections",
        ])
        .arg("-isystem")
        .arg(layer.join("libc"))
        .arg("-I")
        .arg(&project.folder)
        .arg(format!("-fuse-ld={}", linker.display()))
        // The names of functions stay: they are what is shown of a crash.
        .args(["-Wl,--no-entry", "-Wl,--gc-sections", "-Wl,--strip-debug"])
        .arg("-o")
        .arg(&module)
        .args(&sources)
        .current_dir(&project.folder);
    tool::run(&mut command, "clang").map_err(|failure| {
        match failure.causes.iter().any(|line| line.contains("undefined symbol")) {
            true => failure.hint(
                "there is no C library but what wbuild/libc declares; wbuild/wbuild.h has what \
                 frontends need besides",
            ),
            false => failure,
        }
    })?;
    read(&module)
}

fn sources(folder: &std::path::Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder).map_err(|error| failed("list", folder, &error))?;
    let mut sources: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "c"))
        .collect();
    // The order decides about the bytes of the component.
    sources.sort();
    Ok(sources)
}
