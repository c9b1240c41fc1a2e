//! The embedded files, and writing them.

use std::path::Path;

use wbuild_graph::{Failure, FailureKind};

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// A failure to do something with a file.
pub fn failed(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => FailureKind::NotFound,
        std::io::ErrorKind::PermissionDenied => FailureKind::Denied,
        _ => FailureKind::Invalid,
    };
    Failure::new(kind, format!("cannot {what} {}", path.display())).cause(error)
}

/// Writes a file, and the folders it lies in.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| failed("make the folder", folder, &error))?;
    }
    std::fs::write(path, bytes).map_err(|error| failed("write", path, &error))
}

/// Files of a table whose paths begin with `prefix`, without it.
pub fn below<'a>(
    table: &'a [(&'a str, &'a [u8])],
    prefix: &'a str,
) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    table.iter().filter_map(move |(path, bytes)| {
        Some((path.strip_prefix(prefix)?.strip_prefix('/')?, *bytes))
    })
}

/// Writes one of the WIT packages with what it uses, in the layout that the languages' tools want: the
/// package itself at the top, used ones below `deps/`.
pub fn write_wit(package: &str, folder: &Path) -> Result<(), Failure> {
    let text = |package: &str| {
        WIT.iter()
            .find(|(path, _)| *path == format!("{package}/{package}.wit"))
            .map(|(_, bytes)| *bytes)
    };
    let own = text(package)
        .ok_or_else(|| Failure::internal(format!("there is no WIT package wbuild:{package}")))?;
    write(&folder.join(format!("{package}.wit")), own)?;
    for (path, bytes) in WIT {
        let Some((used, _)) = path.split_once('/') else { continue };
        let mention = format!("wbuild:{used}/");
        if used != package && own.windows(mention.len()).any(|part| part == mention.as_bytes()) {
            write(&folder.join("deps").join(path), bytes)?;
        }
    }
    Ok(())
}
