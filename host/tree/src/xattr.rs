//! Extended attributes that belong to a tree's contents.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Which extended attributes an overlay file system marks its directories with. A state directory
/// uses one kind for ever: marks of the other kind are invisible to a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum XattrKind {
    /// `trusted.overlay.*`, needs privileges.
    Trusted,
    /// `user.overlay.*`, for mounts with `userxattr`.
    User,
}

impl XattrKind {
    /// The attribute whose value `y` makes a directory hide everything below it in the stack.
    pub fn opaque(self) -> &'static str {
        match self {
            XattrKind::Trusted => "trusted.overlay.opaque",
            XattrKind::User => "user.overlay.opaque",
        }
    }

    /// The attribute of a directory that was renamed; a layer must not have one.
    pub(crate) fn redirect(self) -> &'static str {
        match self {
            XattrKind::Trusted => "trusted.overlay.redirect",
            XattrKind::User => "user.overlay.redirect",
        }
    }

    /// The attribute of a file whose data lies in a lower layer; a layer must not have one.
    pub(crate) fn metacopy(self) -> &'static str {
        match self {
            XattrKind::Trusted => "trusted.overlay.metacopy",
            XattrKind::User => "user.overlay.metacopy",
        }
    }
}

/// Attributes sorted by name.
pub type Xattrs = Vec<(Box<[u8]>, Box<[u8]>)>;

/// Largest value and largest list of names that Linux allows.
const MAX_LEN: usize = 64 * 1024;

/// Whether an attribute is part of the contents. Not: overlay's own marks (`*.overlay.*`), and
/// labels that the running machine, not the tree, gives its files (SELinux, IMA, EVM).
pub fn is_content(name: &[u8]) -> bool {
    let overlay = name
        .iter()
        .position(|byte| *byte == b'.')
        .is_some_and(|dot| name[dot..].starts_with(b".overlay."));
    !overlay && !matches!(name, b"security.selinux" | b"security.ima" | b"security.evm")
}

/// Where attributes are read from and written to.
#[derive(Clone, Copy)]
pub(crate) enum Holder<'a> {
    /// An open file or directory (not `O_PATH`).
    Fd(BorrowedFd<'a>),
    /// A name in a directory, not followed: links and device nodes, which cannot be opened.
    At(BorrowedFd<'a>, &'a [u8]),
}

/// There are no attribute calls relative to a directory before Linux 6.13; the magic link of the
/// directory gives the same, and the last name is not followed by the `l` variants.
fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())).join(OsStr::from_bytes(name))
}

impl Holder<'_> {
    fn list(self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Holder::Fd(fd) => rustix::fs::flistxattr(fd, buffer),
            Holder::At(dir, name) => rustix::fs::llistxattr(proc_path(dir, name), buffer),
        }
    }

    fn get(self, name: &CString, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Holder::Fd(fd) => rustix::fs::fgetxattr(fd, name, buffer),
            Holder::At(dir, at) => rustix::fs::lgetxattr(proc_path(dir, at), name, buffer),
        }
    }

    fn set(self, name: &CString, value: &[u8]) -> Result<(), Errno> {
        match self {
            Holder::Fd(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Holder::At(dir, at) => {
                rustix::fs::lsetxattr(proc_path(dir, at), name, value, XattrFlags::empty())
            }
        }
    }

    fn remove(self, name: &CString) -> Result<(), Errno> {
        match self {
            Holder::Fd(fd) => rustix::fs::fremovexattr(fd, name),
            Holder::At(dir, at) => rustix::fs::lremovexattr(proc_path(dir, at), name),
        }
    }
}

/// What overlay attributes of one kind say of an entry of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The directory hides what the layers below have at its place.
    pub opaque: bool,
    /// The entry was renamed or has its data elsewhere: not a plain layer.
    pub incomplete: bool,
}

/// The attributes that are content, sorted by name. A file system without attributes has none.
pub(crate) fn read(holder: Holder<'_>) -> Result<Xattrs, Errno> {
    read_marked(holder, None).map(|(xattrs, _)| xattrs)
}

/// Like [`read`], with what the overlay attributes of `kind` say.
pub(crate) fn read_marked(
    holder: Holder<'_>,
    kind: Option<XattrKind>,
) -> Result<(Xattrs, Marks), Errno> {
    let mut small = [0; 512];
    let mut large = Vec::new();
    let names: &[u8] = match holder.list(&mut small) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Default::default()),
        Ok(len) => &small[..len],
        Err(Errno::RANGE) => {
            large.resize(MAX_LEN, 0);
            let len = holder.list(&mut large)?;
            &large[..len]
        }
        Err(errno) => return Err(errno),
    };
    let mut found = Xattrs::new();
    let mut marks = Marks::default();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if let Some(kind) = kind {
            if *name == *kind.redirect().as_bytes() || *name == *kind.metacopy().as_bytes() {
                marks.incomplete = true;
            } else if *name == *kind.opaque().as_bytes() {
                let mut value = [0; 8];
                let c_name = CString::new(name).expect("split at NUL");
                let len = holder.get(&c_name, &mut value)?;
                // Any other value ("x": may hold whiteouts of another form) is not plain.
                marks.opaque = value[..len] == *b"y";
                marks.incomplete |= !marks.opaque;
            }
        }
        if !is_content(name) {
            continue;
        }
        let c_name = CString::new(name).expect("split at NUL");
        let mut value = vec![0; 256];
        let len = match holder.get(&c_name, &mut value) {
            Err(Errno::RANGE) => {
                value.resize(MAX_LEN, 0);
                holder.get(&c_name, &mut value)
            }
            other => other,
        };
        match len {
            Ok(len) => {
                value.truncate(len);
                found.push((name.into(), value.into_boxed_slice()));
            }
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    found.sort();
    Ok((found, marks))
}

/// Sets attributes; what else is there stays.
pub(crate) fn write(holder: Holder<'_>, xattrs: &Xattrs) -> Result<(), Errno> {
    for (name, value) in xattrs {
        let name = CString::new(&**name).map_err(|_| Errno::INVAL)?;
        holder.set(&name, value)?;
    }
    Ok(())
}

/// Sets attributes and removes other ones that are content.
pub(crate) fn replace(holder: Holder<'_>, xattrs: &Xattrs) -> Result<(), Errno> {
    for (name, _) in read(holder)? {
        if !xattrs.iter().any(|(wanted, _)| *wanted == name) {
            let name = CString::new(&*name).map_err(|_| Errno::INVAL)?;
            holder.remove(&name)?;
        }
    }
    write(holder, xattrs)
}

/// Whether an attribute is present with this value (any value if `None`).
pub(crate) fn has(fd: BorrowedFd<'_>, name: &str, value: Option<&[u8]>) -> Result<bool, Errno> {
    let mut buffer = [0; 256];
    match rustix::fs::fgetxattr(fd, name, &mut buffer) {
        Ok(len) => Ok(value.is_none_or(|wanted| buffer[..len] == *wanted)),
        Err(Errno::RANGE) => Ok(value.is_none()),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::is_content;

    #[test]
    fn which_attributes_are_content() {
        for (name, content) in [
            ("user.x", true),
            ("user.overlay", true),
            ("user.overlayx", true),
            ("security.capability", true),
            ("system.posix_acl_access", true),
            ("trusted.overlay.opaque", false),
            ("user.overlay.origin", false),
            ("security.selinux", false),
        ] {
            assert_eq!(is_content(name.as_bytes()), content, "{name}");
        }
    }
}
