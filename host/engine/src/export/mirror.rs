//! Makes a directory hold nothing but what was written into it (`mode=delete`).
//!
//! Directories are entered by descriptor and no link is followed, so nothing outside is touched,
//! whatever the directory holds.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use wbuild_graph::Failure;
use wbuild_tree::par::Cancel;

/// What a directory is to hold: what any of these directories does, and these folders.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) like: Vec<OwnedFd>,
    pub(super) folders: Vec<(String, Kept)>,
}

impl Kept {
    /// Keeps what a directory holds, in a folder below.
    pub(super) fn keep(&mut self, folder: &[&str], like: OwnedFd) {
        let [name, below @ ..] = folder else {
            self.like.push(like);
            return;
        };
        let known = self.folders.iter().position(|(known, _)| known == name);
        let at = known.unwrap_or_else(|| {
            self.folders.push(((*name).to_owned(), Kept::default()));
            self.folders.len() - 1
        });
        self.folders[at].1.keep(below, like);
    }
}

/// Removes everything else from `directory`, which is called `shown`.
pub(super) fn prune(
    directory: BorrowedFd<'_>,
    kept: &Kept,
    shown: &Path,
    cancel: &Cancel,
) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::invalid(format!(
            "cannot remove what is not in the result from {}",
            shown.display()
        ))
        .cause(error)
    };
    for entry in Dir::read_from(directory).map_err(|error| failed(&error))? {
        if cancel.is_cancelled() {
            return Err(Failure::cancelled());
        }
        let entry = entry.map_err(|error| failed(&error))?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let name = OsStr::from_bytes(name.to_bytes());
        let folder = kept.folders.iter().find(|(folder, _)| OsStr::new(folder) == name);
        let mut below = Kept { like: Vec::new(), folders: Vec::new() };
        let mut known = folder.is_some();
        for like in &kept.like {
            known |= exists(like.as_fd(), name).map_err(|error| failed(&error))?;
            below.like.extend(child(like.as_fd(), name).map_err(|error| failed(&error))?);
        }
        let shown = shown.join(name);
        if !known {
            remove(directory, name).map_err(|error| failed(&error))?;
        } else if let Some(inside) = child(directory, name).map_err(|error| failed(&error))? {
            if let Some((_, folder)) = folder {
                prune(inside.as_fd(), folder, &shown, cancel)?;
            } else {
                prune(inside.as_fd(), &below, &shown, cancel)?;
            }
        }
    }
    Ok(())
}

fn exists(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<bool> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The directory `name`, if it is one.
fn child(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn remove(directory: BorrowedFd<'_>, name: &OsStr) -> std::io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        // EISDIR from Linux, EPERM from POSIX.
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return Ok(other?),
    }
    // It follows no link below where it begins.
    std::fs::remove_dir_all(
        Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).expect("a directory")
    }

    #[test]
    fn only_what_is_elsewhere_too_is_left() {
        let temp = tempfile::tempdir().expect("temp");
        let at = |path: &str| temp.path().join(path);
        for file in ["like/a", "like/d/b", "out/a", "out/old", "out/d/b", "out/d/old/deep"] {
            fs::create_dir_all(at(file).parent().expect("below")).expect("directory");
            fs::write(at(file), "x").expect("file");
        }
        for file in ["outside/kept", "out/linux_arm/x", "out/linux_arm/old", "arm/x"] {
            fs::create_dir_all(at(file).parent().expect("below")).expect("directory");
            fs::write(at(file), "x").expect("file");
        }
        // A link is removed or kept, and what it leads to left alone.
        symlink(at("outside"), at("out/link")).expect("link");
        symlink(at("outside"), at("out/also")).expect("link");
        fs::create_dir(at("like/also")).expect("directory");
        let arm = Kept { like: vec![open(&at("arm"))], folders: Vec::new() };
        let kept =
            Kept { like: vec![open(&at("like"))], folders: vec![("linux_arm".to_owned(), arm)] };
        let cancel = Cancel::new();
        prune(open(&at("out")).as_fd(), &kept, &at("out"), &cancel).expect("pruned");
        let names = |path: &str| {
            let mut names: Vec<_> = fs::read_dir(at(path))
                .expect("directory")
                .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
                .collect();
            names.sort();
            names
        };
        assert_eq!(names("out"), ["a", "also", "d", "linux_arm"]);
        assert_eq!(names("out/d"), ["b"]);
        assert_eq!(names("out/linux_arm"), ["x"]);
        assert_eq!(names("outside"), ["kept"]);
    }
}
