//! Mount points that leave no trace.
//!
//! A runtime makes the mount points a root lacks, and what it makes ends in the step's layer: empty
//! `/proc`, `/etc/resolv.conf`, target directories. So they are made beforehand in a *stub layer*:
//! a directory that holds just the missing mount points and the directories that lead to them. As
//! the topmost *lower* directory of the step's overlay it provides them without ever being part of
//! the upper one.
//!
//! Invariants:
//!
//! - A directory that exists in the view and is repeated in the stub layer (as a parent) has the
//!   owner, mode, times and extended attributes it has in the view, because an overlay shows, and
//!   copies up, those of the topmost layer.
//! - Targets are resolved in the view as the process will see it: symlinks are followed inside the
//!   root and never out of it.
//! - Writes go only into the directory the caller gave, by descriptors of directories made here.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timestamps, XattrFlags};
use rustix::io::Errno;
use wbuild_graph::Failure;

use crate::fail::OrFail;
use crate::inroot::raw;

/// Where the system mounts of every step lie; the first targets of [`make`].
pub const SYSTEM_TARGETS: [Target<'static>; 3] = [
    Target { path: "/proc", kind: TargetKind::Directory },
    Target { path: "/dev", kind: TargetKind::Directory },
    Target { path: "/sys", kind: TargetKind::Directory },
];

/// Symlinks followed for one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// Longest path.
const MAX_PATH: usize = 4096;

/// What is mounted at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// A directory.
    Directory,
    /// A file.
    File,
}

/// A mount target as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Absolute path in the container.
    pub path: &'a str,
    /// What its mount point must be.
    pub kind: TargetKind,
}

/// What [`make`] found and made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stubs {
    /// Something was missing: the layer is needed. Otherwise it is empty.
    pub needed: bool,
    /// The targets with symlinks resolved, in order.
    pub resolved: Vec<String>,
    /// Numbers of targets that lie below an earlier one. Their mount points belong into what is
    /// mounted there, which is none of the root's business: the runtime makes them if it can.
    pub nested: Vec<usize>,
}

/// A path resolved in the view.
struct Resolved {
    /// Names from the root, symlinks gone.
    names: Vec<String>,
    /// The directories among them that exist, by descriptor (`O_PATH`), without the root.
    existing: Vec<OwnedFd>,
    /// What the whole path is, if it exists.
    kind: Option<FileType>,
}

/// Fills `layer`, an empty directory, with the mount points for `targets` that `view`, the root
/// of the read-only merged view, lacks.
///
/// Fails with `Invalid` where a target exists as the wrong kind, or leads through what is no
/// directory.
pub fn make(
    view: BorrowedFd<'_>,
    targets: &[Target<'_>],
    layer: BorrowedFd<'_>,
) -> Result<Stubs, Failure> {
    let mut stubs = Stubs::default();
    // Directories of the layer that exist in the view: path to descriptors in both.
    let mut parents: BTreeMap<Vec<String>, (OwnedFd, OwnedFd)> = BTreeMap::new();
    let mut earlier: Vec<Vec<String>> = Vec::new();
    let mut fresh: Vec<(OwnedFd, OwnedFd)> = Vec::new();
    for (number, target) in targets.iter().enumerate() {
        let resolved = resolve(view, target.path)?;
        stubs.resolved.push(format!("/{}", resolved.names.join("/")));
        let below = earlier
            .iter()
            .any(|other| other.len() < resolved.names.len() && resolved.names.starts_with(other));
        earlier.push(resolved.names.clone());
        if below {
            stubs.nested.push(number);
            continue;
        }
        match (resolved.kind, target.kind) {
            (Some(FileType::Directory), TargetKind::Directory) => continue,
            (Some(FileType::Directory), TargetKind::File) => {
                return Err(wrong(target, "is a directory in the image, and a file is mounted"));
            }
            (Some(_), TargetKind::File) => continue,
            (Some(_), TargetKind::Directory) => {
                return Err(wrong(
                    target,
                    "is no directory in the image, and a directory is mounted",
                ));
            }
            (None, _) => {}
        }
        stubs.needed = true;
        build(layer, target, resolved, view, &mut parents, &mut fresh)?;
    }
    if stubs.needed {
        copy_metadata(view, layer)?;
    }
    // Last of all: making entries changes a directory's times.
    for (original, copy) in parents.values() {
        copy_metadata(original.as_fd(), copy.as_fd())?;
    }
    for (above, made) in &fresh {
        copy_times(above.as_fd(), made.as_fd())?;
    }
    Ok(stubs)
}

fn wrong(target: &Target<'_>, why: &str) -> Failure {
    Failure::invalid(format!("cannot mount at {}: it {why} there", target.path))
        .attr("path", target.path)
}

/// Makes one missing mount point and what leads to it.
fn build(
    layer: BorrowedFd<'_>,
    target: &Target<'_>,
    resolved: Resolved,
    view: BorrowedFd<'_>,
    parents: &mut BTreeMap<Vec<String>, (OwnedFd, OwnedFd)>,
    fresh: &mut Vec<(OwnedFd, OwnedFd)>,
) -> Result<(), Failure> {
    let attempt = || format!("make a mount point for {}", target.path);
    let dir_mode = Mode::from_raw_mode(0o755);
    let path = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3).or_fail(attempt());
    let mut at = path(layer)?;
    // The nearest directory that exists lends its times to what is new below it.
    let mut above = path(resolved.existing.last().map_or(view, AsFd::as_fd))?;
    let existing = resolved.existing.len();
    let mut originals = resolved.existing.into_iter();
    let last = resolved.names.len() - 1;
    for (depth, name) in resolved.names.iter().enumerate() {
        if depth == last && target.kind == TargetKind::File {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&at, name.as_str(), flags, Mode::from_raw_mode(0o644))
                .or_fail(attempt())?;
            fresh.push((above, file));
            return Ok(());
        }
        let made = match rustix::fs::mkdirat(&at, name.as_str(), dir_mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(errno).or_fail(attempt()),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next =
            rustix::fs::openat(&at, name.as_str(), flags, Mode::empty()).or_fail(attempt())?;
        if made {
            let copy = path(next.as_fd())?;
            if depth < existing {
                let original = originals.next().expect("there are as many as counted");
                parents.insert(resolved.names[..=depth].to_vec(), (original, copy));
            } else {
                // mkdirat is subject to the umask.
                rustix::fs::fchmod(&copy, dir_mode).or_fail(attempt())?;
                let lender = path(above.as_fd())?;
                fresh.push((std::mem::replace(&mut above, lender), copy));
            }
        } else if depth < existing {
            drop(originals.next());
        }
        at = next;
    }
    Ok(())
}

/// Resolves an absolute path in the view.
fn resolve(view: BorrowedFd<'_>, path: &str) -> Result<Resolved, Failure> {
    let invalid = |why: String| {
        Err(Failure::invalid(format!("cannot mount at {path}: {why}")).attr("path", path))
    };
    if !path.starts_with('/') || path.contains('\0') || path.len() > MAX_PATH {
        return invalid("it is no absolute path".to_owned());
    }
    let mut todo: VecDeque<String> = path.split('/').map(str::to_owned).collect();
    let mut names: Vec<String> = Vec::new();
    let mut existing: Vec<OwnedFd> = Vec::new();
    let mut kind = Some(FileType::Directory);
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                if kind == Some(FileType::Directory) && existing.len() == names.len() {
                    existing.pop();
                }
                names.pop();
                kind = (existing.len() == names.len()).then_some(FileType::Directory);
                continue;
            }
            _ => {}
        }
        if kind.is_none() {
            names.push(name);
            continue;
        }
        let here = existing.last().map_or(view, AsFd::as_fd);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match rustix::fs::openat(here, name.as_str(), flags, Mode::empty()) {
            Ok(found) => found,
            Err(Errno::NOENT) => {
                names.push(name);
                kind = None;
                continue;
            }
            Err(Errno::NOTDIR) => {
                return invalid(format!("/{} is no directory", names.join("/")));
            }
            Err(errno) => {
                return Err(errno).or_fail(format_args!("look up {path} in the root"));
            }
        };
        let stat = rustix::fs::fstat(&found).or_fail(format_args!("stat {path} in the root"))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return invalid("too many symbolic links".to_owned());
                }
                let link = rustix::fs::readlinkat(&found, "", Vec::new())
                    .or_fail(format_args!("read the link {name} of {path} in the root"))?;
                let Ok(link) = link.into_string() else {
                    return invalid(format!("the link {name} is no UTF-8"));
                };
                if link.starts_with('/') {
                    names.clear();
                    existing.clear();
                }
                for part in link.rsplit('/') {
                    todo.push_front(part.to_owned());
                }
                if todo.len() > MAX_PATH {
                    return invalid("its links make it too long".to_owned());
                }
            }
            FileType::Directory => {
                names.push(name);
                existing.push(found);
            }
            other => {
                names.push(name);
                if todo.iter().any(|part| !part.is_empty()) {
                    return invalid(format!("/{} is no directory", names.join("/")));
                }
                kind = Some(other);
            }
        }
    }
    Ok(Resolved { names, existing, kind })
}

/// Gives a directory the owner, mode, attributes and times of another.
fn copy_metadata(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Failure> {
    let attempt = "copy a directory's metadata to its stub";
    let stat = rustix::fs::fstat(from).or_fail(attempt)?;
    let (uid, gid) =
        (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(to, Some(uid), Some(gid)).or_fail(attempt)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).or_fail(attempt)?;
    // An O_PATH descriptor has no attributes of its own; its magic link does.
    let path = format!("/proc/self/fd/{}", raw(&from));
    for name in attributes(&path)? {
        // Marks of the overlay that made the view say nothing of this one.
        if name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
            continue;
        }
        let value = attribute(&path, &name)?;
        match rustix::fs::fsetxattr(to, name.as_str(), &value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => {
                return Err(errno).or_fail(format_args!("copy the attribute {name} to a stub"));
            }
        }
    }
    copy_times(from, to)
}

fn attributes(path: &str) -> Result<Vec<String>, Failure> {
    let mut buffer = vec![0u8; 64 << 10];
    match rustix::fs::listxattr(path, &mut buffer[..]) {
        Ok(len) => Ok(buffer[..len]
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect()),
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(errno) => Err(errno).or_fail("list the attributes of a directory in the root"),
    }
}

fn attribute(path: &str, name: &str) -> Result<Vec<u8>, Failure> {
    // XATTR_SIZE_MAX
    let mut buffer = vec![0u8; 64 << 10];
    let len = rustix::fs::getxattr(path, name, &mut buffer[..])
        .or_fail(format_args!("read the attribute {name} of a directory in the root"))?;
    buffer.truncate(len);
    Ok(buffer)
}

fn copy_times(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Failure> {
    let attempt = "copy a directory's times to its stub";
    let stat =
        rustix::fs::statx(from, "", AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::BASIC_STATS)
            .or_fail(attempt)?;
    let time = |t: rustix::fs::StatxTimestamp| rustix::fs::Timespec {
        tv_sec: t.tv_sec,
        tv_nsec: t.tv_nsec.into(),
    };
    let times =
        Timestamps { last_access: time(stat.stx_atime), last_modification: time(stat.stx_mtime) };
    rustix::fs::futimens(to, &times).or_fail(attempt)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use super::*;

    struct Rig {
        view: tempfile::TempDir,
        layer: tempfile::TempDir,
    }

    fn rig() -> Rig {
        Rig { view: tempfile::tempdir().unwrap(), layer: tempfile::tempdir().unwrap() }
    }

    impl Rig {
        fn make(&self, targets: &[(&str, TargetKind)]) -> Result<Stubs, Failure> {
            let open = |dir: &tempfile::TempDir| fs::File::open(dir.path()).unwrap();
            let targets: Vec<Target<'_>> =
                targets.iter().map(|(path, kind)| Target { path, kind: *kind }).collect();
            make(open(&self.view).as_fd(), &targets, open(&self.layer).as_fd())
        }

        /// Everything in the layer, directories with a slash.
        fn listing(&self) -> Vec<String> {
            fn walk(dir: &Path, prefix: &str, out: &mut Vec<String>) {
                for entry in fs::read_dir(dir).unwrap() {
                    let entry = entry.unwrap();
                    let name = format!("{prefix}/{}", entry.file_name().to_str().unwrap());
                    if entry.file_type().unwrap().is_dir() {
                        out.push(format!("{name}/"));
                        walk(&entry.path(), &name, out);
                    } else {
                        out.push(name);
                    }
                }
            }
            let mut out = Vec::new();
            walk(self.layer.path(), "", &mut out);
            out.sort();
            out
        }
    }

    use TargetKind::{Directory, File};

    #[test]
    fn makes_only_what_is_missing() {
        let rig = rig();
        fs::create_dir_all(rig.view.path().join("etc/app")).unwrap();
        fs::create_dir(rig.view.path().join("proc")).unwrap();
        fs::write(rig.view.path().join("etc/hosts"), "x").unwrap();
        let stubs = rig
            .make(&[
                ("/proc", Directory),
                ("/etc/hosts", File),
                ("/etc/resolv.conf", File),
                ("/a/b/../c/./d", Directory),
                ("/etc/app/x", File),
            ])
            .unwrap();
        assert!(stubs.needed);
        assert_eq!(
            stubs.resolved,
            ["/proc", "/etc/hosts", "/etc/resolv.conf", "/a/c/d", "/etc/app/x"]
        );
        assert_eq!(
            rig.listing(),
            ["/a/", "/a/c/", "/a/c/d/", "/etc/", "/etc/app/", "/etc/app/x", "/etc/resolv.conf"]
        );
        assert_eq!(fs::read(rig.view.path().join("etc/hosts")).unwrap(), b"x");
        assert!(!rig.view.path().join("a").exists());
    }

    #[test]
    fn nothing_missing_makes_nothing() {
        let rig = rig();
        for dir in ["proc", "dev", "sys"] {
            fs::create_dir(rig.view.path().join(dir)).unwrap();
        }
        let stubs = rig
            .make(&[
                ("/proc", Directory),
                ("/dev", Directory),
                ("/sys", Directory),
                ("/", Directory),
            ])
            .unwrap();
        assert!(!stubs.needed);
        assert!(rig.listing().is_empty());
    }

    #[test]
    fn parents_look_as_in_the_view_and_new_ones_have_their_times() {
        let rig = rig();
        let etc = rig.view.path().join("etc");
        fs::create_dir(&etc).unwrap();
        fs::set_permissions(&etc, fs::Permissions::from_mode(0o1751)).unwrap();
        let root = rustix::process::geteuid().is_root();
        if root {
            std::os::unix::fs::chown(&etc, Some(12), Some(34)).unwrap();
            let kept = rustix::fs::setxattr(&etc, "user.note", b"kept", XattrFlags::empty());
            let mark =
                rustix::fs::setxattr(&etc, "trusted.overlay.opaque", b"y", XattrFlags::empty());
            assert!(kept == Ok(()) || kept == Err(Errno::OPNOTSUPP), "{kept:?}");
            assert!(mark == Ok(()) || mark == Err(Errno::OPNOTSUPP), "{mark:?}");
        }
        let old = Timestamps {
            last_access: rustix::fs::Timespec { tv_sec: 1000, tv_nsec: 5 },
            last_modification: rustix::fs::Timespec { tv_sec: 2000, tv_nsec: 7 },
        };
        rustix::fs::utimensat(rustix::fs::CWD, &etc, &old, AtFlags::empty()).unwrap();
        rig.make(&[("/etc/resolv.conf", File), ("/etc/new/dir/", Directory)]).unwrap();
        let (a, b) =
            (fs::metadata(&etc).unwrap(), fs::metadata(rig.layer.path().join("etc")).unwrap());
        assert_eq!(
            (a.mode(), a.uid(), a.gid(), a.mtime(), a.mtime_nsec()),
            (b.mode(), b.uid(), b.gid(), b.mtime(), b.mtime_nsec())
        );
        let new = fs::metadata(rig.layer.path().join("etc/new")).unwrap();
        assert_eq!((new.mode() & 0o7777, new.mtime()), (0o755, 2000));
        if root {
            let mut buffer = [0u8; 256];
            let copy = rig.layer.path().join("etc");
            let len = rustix::fs::listxattr(&copy, &mut buffer[..]).unwrap_or(0);
            let names = String::from_utf8_lossy(&buffer[..len]).into_owned();
            assert!(!names.contains("overlay"), "{names}");
            let mut note = [0u8; 256];
            if rustix::fs::getxattr(&etc, "user.note", &mut note[..]).is_ok() {
                assert!(names.contains("user.note"), "{names}");
            }
        }
    }

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let rig = rig();
        let outside = tempfile::tempdir().unwrap();
        let root = rig.view.path();
        fs::create_dir_all(root.join("run")).unwrap();
        fs::create_dir_all(root.join("var")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        symlink("/run", root.join("var/run")).unwrap();
        symlink("/run/systemd/resolve/stub.conf", root.join("etc/resolv.conf")).unwrap();
        symlink("../../../../../etc", root.join("var/up")).unwrap();
        symlink(outside.path(), root.join("out")).unwrap();
        let stubs = rig
            .make(&[
                ("/var/run/secrets/token", File),
                ("/etc/resolv.conf", File),
                ("/var/up/hosts", File),
                ("/out/x", Directory),
            ])
            .unwrap();
        assert_eq!(
            stubs.resolved[..3],
            ["/run/secrets/token", "/run/systemd/resolve/stub.conf", "/etc/hosts"]
        );
        assert_eq!(stubs.resolved[3], format!("{}/x", outside.path().display()));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        let listing = rig.listing();
        assert!(listing.contains(&"/run/secrets/token".to_owned()), "{listing:?}");
        assert!(!listing.iter().any(|p| p.starts_with("/var")), "{listing:?}");
    }

    #[test]
    fn targets_inside_earlier_mounts_are_left_to_them() {
        let rig = rig();
        let stubs = rig
            .make(&[
                ("/proc", Directory),
                ("/proc/x", File),
                ("/cache", Directory),
                ("/cache/a/b", Directory),
                ("/q/r", Directory),
                ("/q", Directory),
            ])
            .unwrap();
        assert_eq!(stubs.nested, [1, 3]);
        assert_eq!(rig.listing(), ["/cache/", "/proc/", "/q/", "/q/r/"]);
    }

    #[test]
    fn refuses_what_cannot_be_a_mount_point() {
        let rig = rig();
        let root = rig.view.path();
        fs::write(root.join("file"), "").unwrap();
        fs::create_dir(root.join("dir")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        for (path, kind) in [
            ("/file", Directory),
            ("/dir", File),
            ("/file/x", File),
            ("/loop", File),
            ("relative", File),
            ("/a\0b", File),
        ] {
            assert!(rig.make(&[(path, kind)]).is_err(), "{path:?}");
        }
        assert!(rig.listing().is_empty());
    }
}
