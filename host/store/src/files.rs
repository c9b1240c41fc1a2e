//! Directory-relative file primitives: every path the store touches is a plain name below a
//! directory that is held open, so nothing can redirect it by replacing a parent.
//!
//! Walks keep one descriptor whatever the depth, go up through `..` and check that they arrive
//! where they came from: a tree made by a build step can be deeper than the limit of open files
//! and than `PATH_MAX`.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// For directories the store owns: nobody else needs to look inside.
pub(crate) const PRIVATE_DIR: Mode = Mode::from_raw_mode(0o700);
const PRIVATE_FILE: Mode = Mode::from_raw_mode(0o600);
const DIR_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open directory and its path (for error messages only).
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Folder {
    /// Opens the directory at an absolute path; symbolic links are followed, it is the user's
    /// choice where the state lives.
    pub(crate) fn open(path: &Path) -> Result<Folder> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Folder { fd, path: path.to_path_buf() }),
            Err(errno) => Err(Error::io("open", path, errno)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn error(&self, action: &'static str, name: &str, source: Errno) -> Error {
        Error::io(action, self.join(name), source)
    }

    /// Opens a subdirectory; `None` if there is none.
    pub(crate) fn try_sub(&self, name: &str) -> Result<Option<Folder>> {
        match rustix::fs::openat(&self.fd, name, DIR_FLAGS, Mode::empty()) {
            Ok(fd) => Ok(Some(Folder { fd, path: self.join(name) })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error("open", name, errno)),
        }
    }

    /// Opens a subdirectory that must exist.
    pub(crate) fn sub(&self, name: &str) -> Result<Folder> {
        match self.try_sub(name)? {
            Some(folder) => Ok(folder),
            None => Err(self.error("open", name, Errno::NOENT)),
        }
    }

    /// Opens a subdirectory, making it if it is missing.
    pub(crate) fn ensure(&self, name: &str) -> Result<Folder> {
        if let Some(folder) = self.try_sub(name)? {
            return Ok(folder);
        }
        self.make_dir(name, PRIVATE_DIR)?;
        self.sub(name)
    }

    /// Makes a subdirectory; one that exists is fine.
    pub(crate) fn make_dir(&self, name: &str, mode: Mode) -> Result<()> {
        match rustix::fs::mkdirat(&self.fd, name, mode) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(self.error("create", name, errno)),
        }
    }

    /// Opens a file for reading; `None` if there is none.
    pub(crate) fn try_open(&self, name: &str) -> Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error("open", name, errno)),
        }
    }

    /// Opens a file for reading and writing, making it if it is missing.
    pub(crate) fn open_or_create(&self, name: &str, extra: OFlags) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | extra;
        rustix::fs::openat(&self.fd, name, flags, PRIVATE_FILE)
            .map(File::from)
            .map_err(|errno| self.error("open", name, errno))
    }

    /// Makes a new file for writing; it must not exist.
    pub(crate) fn create_new(&self, name: &str) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, PRIVATE_FILE)
            .map(File::from)
            .map_err(|errno| self.error("create", name, errno))
    }

    /// Reads a whole file of at most `limit` bytes; `None` if there is none.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.try_open(name)? {
            None => Ok(None),
            Some(file) => self.read_open(&file, name, limit).map(Some),
        }
    }

    /// Reads an open file of this folder, at most `limit` bytes.
    pub(crate) fn read_open(&self, file: &File, name: &str, limit: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let read = file.take(limit.saturating_add(1)).read_to_end(&mut out);
        match read {
            Ok(count) if count as u64 > limit => Err(Error::TooLarge {
                what: self.join(name).display().to_string(),
                limit,
                unit: "bytes",
            }),
            Ok(_) => Ok(out),
            Err(source) => Err(Error::io("read", self.join(name), source)),
        }
    }

    /// Whether `name` exists, of whatever kind.
    pub(crate) fn exists(&self, name: &str) -> Result<bool> {
        match rustix::fs::accessat(&self.fd, name, rustix::fs::Access::EXISTS, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.error("look up", name, errno)),
        }
    }

    /// Metadata of `name` itself; `None` if it does not exist.
    pub(crate) fn stat(&self, name: &str) -> Result<Option<Stat>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error("look up", name, errno)),
        }
    }

    /// Renames within or between folders of the state directory, replacing the target.
    pub(crate) fn rename(&self, name: &str, to: &Folder, new_name: &str) -> Result<()> {
        rustix::fs::renameat(&self.fd, name, &to.fd, new_name)
            .map_err(|errno| self.error("rename", name, errno))
    }

    /// Makes a hard link, unless the new name exists: then it answers `false`.
    pub(crate) fn try_link(&self, name: &str, to: &Folder, new_name: &str) -> Result<bool> {
        match rustix::fs::linkat(&self.fd, name, &to.fd, new_name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(to.error("link", new_name, errno)),
        }
    }

    /// Makes a hard link; the new name must not exist.
    pub(crate) fn link(&self, name: &str, to: &Folder, new_name: &str) -> Result<()> {
        rustix::fs::linkat(&self.fd, name, &to.fd, new_name, AtFlags::empty())
            .map_err(|errno| to.error("link", new_name, errno))
    }

    /// Removes a file; one that is missing is fine. Answers whether it was there.
    pub(crate) fn remove_file(&self, name: &str) -> Result<bool> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.error("remove", name, errno)),
        }
    }

    /// Removes whatever is at `name`, with everything in it.
    pub(crate) fn remove_all(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR) => {}
            Err(errno) => return Err(self.error("remove", name, errno)),
        }
        self.empty_dir(name)?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error("remove", name, errno)),
        }
    }

    fn empty_dir(&self, name: &str) -> Result<()> {
        let c_name = CString::new(name).map_err(|_| self.error("remove", name, Errno::INVAL))?;
        let result = open_dir(self.fd.as_fd(), &c_name)
            .or_else(|errno| match errno {
                // A directory its owner may not enter (the work directory of an overlay).
                Errno::ACCESS => {
                    rustix::fs::chmodat(&self.fd, name, PRIVATE_DIR, AtFlags::empty())?;
                    open_dir(self.fd.as_fd(), &c_name)
                }
                other => Err(other),
            })
            .and_then(|dir| {
                walk(dir, &mut Remove { privileged: rustix::process::geteuid().is_root() })
            });
        match result {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error("empty", name, errno)),
        }
    }

    /// Names and kinds of the entries, sorted by name. Names that are no UTF-8 are left out: the
    /// store makes none.
    pub(crate) fn list(&self) -> Result<Vec<(String, FileType)>> {
        // This one may have been read before.
        let fresh = open_dir(self.fd.as_fd(), c".");
        let entries = fresh
            .and_then(|dir| read_entries(dir.as_fd()))
            .map_err(|errno| self.error("list", ".", errno))?;
        let mut out: Vec<_> = entries
            .into_iter()
            .filter_map(|(name, kind)| Some((name.into_string().ok()?, kind)))
            .collect();
        out.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
    }

    /// Makes the directory's entries durable.
    pub(crate) fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.fd).map_err(|errno| self.error(crate::store::SYNC, ".", errno))
    }
}

/// Sets the modification time to now: the store's mark of last use. Best effort; a file that just
/// vanished or belongs to a read-only file system is no reason to fail a hit.
pub(crate) fn touch(file: impl AsFd) {
    set_modified(file, Timespec { tv_sec: 0, tv_nsec: UTIME_NOW });
}

/// Sets the time of last use to a certain one; see [`touch`].
pub(crate) fn mark(file: impl AsFd, time: SystemTime) {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    set_modified(file, Timespec { tv_sec: seconds, tv_nsec: i64::from(since.subsec_nanos()) });
}

fn set_modified(file: impl AsFd, time: Timespec) {
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let _ = rustix::fs::futimens(file, &Timestamps { last_access, last_modification: time });
}

/// Modification time of a stat, clamped to the epoch.
pub(crate) fn modified(stat: &Stat) -> SystemTime {
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
}

/// 32 random hex digits, for names that must not collide.
pub(crate) fn random_name() -> Result<String> {
    Ok(format!("{:032x}", random_u128()?))
}

pub(crate) fn random_u128() -> Result<u128> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        match rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::io("read random bytes from", "getrandom(2)", errno)),
        }
    }
    Ok(u128::from_ne_bytes(bytes))
}

/// What a walk does with what it meets.
pub(crate) trait Visitor {
    /// Called for every entry. For a directory: `true` enters it.
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
    ) -> rustix::io::Result<bool>;

    /// Called after a directory's entries.
    fn leave(&mut self, _parent: BorrowedFd<'_>, _name: &CStr) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// Levels of a walk whose directories stay open; of those further down only the deepest does.
const OPEN_LEVELS: usize = 32;

struct Level {
    name: CString,
    dir: Dir,
    entries: std::vec::IntoIter<(CString, FileType)>,
}

/// A directory on the way of a walk.
enum Dir {
    Open(OwnedFd),
    /// Device and inode, by which it is known again.
    Closed(u64, u64),
}

impl Dir {
    fn close(&mut self) -> rustix::io::Result<()> {
        if let Dir::Open(fd) = self {
            let stat = rustix::fs::fstat(fd)?;
            *self = Dir::Closed(stat.st_dev, stat.st_ino);
        }
        Ok(())
    }

    /// Opens it again, as the parent of `child`.
    fn reopen(&mut self, child: BorrowedFd<'_>) -> rustix::io::Result<()> {
        if let Dir::Closed(dev, ino) = *self {
            let fd = open_dir(child, c"..")?;
            let stat = rustix::fs::fstat(&fd)?;
            if (stat.st_dev, stat.st_ino) != (dev, ino) {
                // Moved by a process that writes in here: going on would visit other places.
                return Err(Errno::STALE);
            }
            *self = Dir::Open(fd);
        }
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Dir::Open(fd) => fd.as_fd(),
            Dir::Closed(..) => unreachable!("the deepest directory of a walk is open"),
        }
    }
}

fn open_dir(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(parent, name, DIR_FLAGS, Mode::empty())
}

/// All entries of a directory that was just opened.
fn read_entries(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<(CString, FileType)>> {
    let mut out = Vec::new();
    let mut buffer = Vec::with_capacity(8192);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            out.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(out)
}

/// `dir` was just opened: nothing has been read of it.
fn level(dir: OwnedFd, name: CString) -> rustix::io::Result<Level> {
    let entries = read_entries(dir.as_fd())?.into_iter();
    Ok(Level { name, dir: Dir::Open(dir), entries })
}

/// Walks the tree below `root`, depth first, without following links or crossing a rename.
/// Entries that vanish meanwhile are skipped.
pub(crate) fn walk(root: OwnedFd, visitor: &mut dyn Visitor) -> rustix::io::Result<()> {
    let mut stack = vec![level(root, CString::default())?];
    while let Some(top) = stack.last_mut() {
        let Some((name, kind)) = top.entries.next() else {
            let done = stack.pop().expect("the loop holds a level");
            let Some(parent) = stack.last_mut() else { break };
            parent.dir.reopen(done.dir.fd())?;
            visitor.leave(parent.dir.fd(), &done.name)?;
            continue;
        };
        let current = top.dir.fd();
        let kind = if kind == FileType::Unknown {
            match rustix::fs::statat(current, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            }
        } else {
            kind
        };
        match visitor.entry(current, &name, kind) {
            Ok(true) if kind == FileType::Directory => {}
            Ok(_) | Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        }
        let child = match open_dir(current, &name) {
            Ok(child) => child,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(errno) => return Err(errno),
        };
        let child = level(child, name)?;
        if stack.len() > OPEN_LEVELS {
            stack.last_mut().expect("the loop holds a level").dir.close()?;
        }
        stack.push(child);
    }
    Ok(())
}

struct Remove {
    /// Root enters and empties every directory whatever its mode.
    privileged: bool,
}

impl Visitor for Remove {
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
    ) -> rustix::io::Result<bool> {
        if kind == FileType::Directory {
            // An ordinary user cannot empty a directory without write permission, even an own one.
            if !self.privileged
                && rustix::fs::accessat(
                    parent,
                    name,
                    rustix::fs::Access::READ_OK
                        | rustix::fs::Access::WRITE_OK
                        | rustix::fs::Access::EXEC_OK,
                    AtFlags::EACCESS,
                )
                .is_err()
            {
                let _ = rustix::fs::chmodat(parent, name, PRIVATE_DIR, AtFlags::empty());
            }
            return Ok(true);
        }
        rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
        Ok(false)
    }

    fn leave(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
        rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
    }
}

/// Removes a temporary name when dropped, unless [`TempName::keep`] is called.
#[derive(Debug)]
pub(crate) struct TempName<'a> {
    folder: &'a Folder,
    name: String,
    armed: bool,
}

impl<'a> TempName<'a> {
    pub(crate) fn new(folder: &'a Folder, prefix: &str) -> Result<Self> {
        let name = format!("{prefix}-{}", random_name()?);
        Ok(TempName { folder, name, armed: true })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The name was renamed away.
    pub(crate) fn keep(mut self) {
        self.armed = false;
    }
}

impl Drop for TempName<'_> {
    fn drop(&mut self) {
        if self.armed {
            let _ = self.folder.remove_all(&self.name);
        }
    }
}

/// Writes `data` to a new file of `tmp` and renames it to `name` in `folder`. Atomic for whoever
/// looks; durable only after the next seal.
pub(crate) fn write_atomically(
    tmp: &Folder,
    folder: &Folder,
    name: &str,
    data: &[u8],
) -> Result<()> {
    let temp = TempName::new(tmp, "w")?;
    let mut file = tmp.create_new(temp.name())?;
    io::Write::write_all(&mut file, data)
        .map_err(|source| Error::io("write", tmp.join(temp.name()), source))?;
    tmp.rename(temp.name(), folder, name)?;
    temp.keep();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_and_unreadable_trees_are_removed_with_one_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let top = Folder::open(dir.path()).unwrap();
        top.make_dir("deep", PRIVATE_DIR).unwrap();
        let mut current = top.sub("deep").unwrap();
        // Deeper than PATH_MAX and than the usual limit of open files.
        for _ in 0..3000 {
            rustix::fs::mkdirat(&current, "d", PRIVATE_DIR).unwrap();
            let fd = open_dir(current.as_fd(), c"d").unwrap();
            current = Folder { fd, path: PathBuf::new() };
        }
        current.create_new("file").unwrap();
        let sub = top.sub("deep").unwrap();
        rustix::fs::mkdirat(&sub, "closed", PRIVATE_DIR).unwrap();
        sub.sub("closed").unwrap().create_new("x").unwrap();
        rustix::fs::chmodat(&sub, "closed", Mode::empty(), AtFlags::empty()).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("deep/link")).unwrap();
        top.remove_all("deep").unwrap();
        assert!(!top.exists("deep").unwrap());
        assert!(Path::new("/etc").exists());
    }

    #[test]
    fn reads_have_a_limit_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"12345").unwrap();
        let top = Folder::open(dir.path()).unwrap();
        assert_eq!(top.read("f", 5).unwrap().unwrap(), b"12345");
        assert_eq!(top.read("absent", 5).unwrap(), None);
        let error = top.read("f", 4).unwrap_err().to_string();
        assert!(error.contains("/f exceeds the limit of 4 bytes"), "{error}");
    }
}
