//! Files that a build leaves for scripts.

use std::io::Write;
use std::path::Path;

use crate::exit::Fault;

pub use wbuild::metadata::{DIGEST, NAMES, image, image_id, metadata};

/// Replaces a file in one step, so that a reader sees the old content or the new.
pub fn replace_file(path: &Path, content: &[u8]) -> Result<(), Fault> {
    let write = || -> std::io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::Builder::new().prefix(".wbuild-").tempfile_in(parent)?;
        file.write_all(content)?;
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(permissions)?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(|error| Fault::input(format!("cannot write {}", path.display())).cause(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("id");
        std::fs::write(&path, "old and longer").expect("file");
        replace_file(&path, b"new").expect("replaced");
        assert_eq!(std::fs::read(&path).expect("file"), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).expect("directory").count(), 1);
        let fault = replace_file(&dir.path().join("no/id"), b"x").expect_err("no directory");
        assert!(fault.failure.message.contains("no/id"));
    }
}
