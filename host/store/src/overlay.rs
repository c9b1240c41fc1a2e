//! Detached overlay mounts: made with `fsopen(2)` and friends, attached to no path, gone with
//! their last descriptor. So a killed process leaves none behind.
//!
//! Options (kernel documentation, filesystems/overlayfs): `redirect_dir=nofollow`, `index=off`,
//! `metacopy=off`, because a layer must mean the same on every machine and an image must not be
//! able to smuggle a redirect in; `volatile` for steps, because a seal syncs what matters.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags,
};

use crate::boot::StateKind;
use crate::error::{Error, Result};
use crate::files::{Folder, PRIVATE_DIR, TempName};

/// Overlayfs takes so many lower layers (`OVL_MAX_STACK`).
pub const MAX_LAYERS: usize = 500;
/// mount(2) takes its options in one page.
const OPTION_PAGE: usize = 4096;

/// Where a writable mount writes.
#[derive(Clone, Copy)]
pub(crate) struct Upper<'a> {
    pub(crate) fs: BorrowedFd<'a>,
    pub(crate) work: BorrowedFd<'a>,
}

/// How this kernel makes overlay mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayApi {
    /// fsconfig(2) with `lowerdir+` (Linux 6.5).
    PerLayer,
    /// mount(2) with all layers in one string, limited to one page.
    OneString,
}

/// A path that leads to an open directory, short and without characters to escape. (fsconfig
/// takes strings of at most 255 bytes, and a state directory may lie deeper.)
fn fd_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn options(kind: StateKind, upper: bool) -> (Vec<(&'static str, &'static str)>, Vec<&'static str>) {
    let pairs = vec![("redirect_dir", "nofollow"), ("index", "off"), ("metacopy", "off")];
    let mut flags = Vec::new();
    if kind == StateKind::User {
        flags.push("userxattr");
    }
    if upper {
        flags.push("volatile");
    }
    (pairs, flags)
}

/// Mounts `count` lower layers, topmost first, opened one at a time by `open`.
pub(crate) fn mount(
    kind: StateKind,
    count: usize,
    open: impl Fn(usize) -> Result<OwnedFd>,
    upper: Option<Upper<'_>>,
    tmp: &Folder,
) -> Result<OwnedFd> {
    match overlay_api() {
        OverlayApi::PerLayer => mount_per_layer(kind, count, open, upper),
        OverlayApi::OneString => mount_one_string(kind, count, open, upper, tmp),
    }
}

/// Which of the two ways this kernel offers; asked once.
pub fn overlay_api() -> OverlayApi {
    static API: OnceLock<OverlayApi> = OnceLock::new();
    *API.get_or_init(|| {
        // Before 6.5 an overlay context was of the legacy kind, which takes every key, known or
        // not, and checks them at the end only.
        let supported =
            rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).is_ok_and(|context| {
                rustix::mount::fsconfig_set_string(&context, "lowerdir+", "/").is_ok()
                    && rustix::mount::fsconfig_set_string(&context, "wbuild-probe", "x").is_err()
            });
        if supported { OverlayApi::PerLayer } else { OverlayApi::OneString }
    })
}

fn mount_per_layer(
    kind: StateKind,
    count: usize,
    open: impl Fn(usize) -> Result<OwnedFd>,
    upper: Option<Upper<'_>>,
) -> Result<OwnedFd> {
    let error = |context: Option<&OwnedFd>, step: String, errno: Errno| Error::Overlay {
        layers: count,
        step,
        detail: context.map(kernel_message).unwrap_or_default(),
        source: errno.into(),
    };
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|e| error(None, "fsopen".into(), e))?;
    let set = |key: &str, value: &str| {
        rustix::mount::fsconfig_set_string(&context, key, value)
            .map_err(|e| error(Some(&context), format!("{key}={value}"), e))
    };
    let (pairs, flags) = options(kind, upper.is_some());
    set("source", "wbuild")?;
    for (key, value) in pairs {
        set(key, value)?;
    }
    for flag in flags {
        rustix::mount::fsconfig_set_flag(&context, flag)
            .map_err(|e| error(Some(&context), flag.into(), e))?;
    }
    for index in 0..count {
        // Resolved at once, so one descriptor at a time is enough for any number of layers.
        let layer = open(index)?;
        set("lowerdir+", &fd_path(layer.as_fd()))?;
    }
    if let Some(upper) = upper {
        set("upperdir", &fd_path(upper.fs))?;
        set("workdir", &fd_path(upper.work))?;
    }
    rustix::mount::fsconfig_create(&context)
        .map_err(|e| error(Some(&context), "create".into(), e))?;
    let attributes = match upper {
        Some(_) => MountAttrFlags::empty(),
        None => MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOATIME,
    };
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|e| error(Some(&context), "fsmount".into(), e))
}

/// What the kernel wrote about a refused option (fsopen(2): messages are read from the context).
fn kernel_message(context: &OwnedFd) -> String {
    let mut out = Vec::new();
    let mut buffer = [0u8; 1024];
    while let Ok(count) = rustix::io::read(context, &mut buffer) {
        if count == 0 || out.len() > 8 {
            break;
        }
        let text = String::from_utf8_lossy(&buffer[..count]);
        // "e overlay: words": the letter is the severity.
        let words = text.trim().split_once(' ').map_or(text.trim(), |(_, rest)| rest);
        out.push(words.to_owned());
    }
    out.join("; ")
}

fn mount_one_string(
    kind: StateKind,
    count: usize,
    open: impl Fn(usize) -> Result<OwnedFd>,
    upper: Option<Upper<'_>>,
    tmp: &Folder,
) -> Result<OwnedFd> {
    let error = |step: &str, errno: Errno| Error::Overlay {
        layers: count,
        step: step.into(),
        detail: String::new(),
        source: errno.into(),
    };
    let layers: Vec<OwnedFd> = (0..count).map(&open).collect::<Result<_>>()?;
    let paths: Vec<String> = layers.iter().map(|fd| fd_path(fd.as_fd())).collect();
    let mut data = format!("lowerdir={}", paths.join(":"));
    if let Some(upper) = upper {
        data.push_str(&format!(",upperdir={},workdir={}", fd_path(upper.fs), fd_path(upper.work)));
    }
    let (pairs, flags) = options(kind, upper.is_some());
    for (key, value) in pairs {
        data.push_str(&format!(",{key}={value}"));
    }
    for flag in flags {
        data.push(',');
        data.push_str(flag);
    }
    if data.len() >= OPTION_PAGE {
        return Err(Error::TooLarge {
            what: format!("the mount options for {count} layers on this kernel (before 6.5)"),
            limit: OPTION_PAGE as u64,
            unit: "bytes",
        });
    }
    let data = CString::new(data).map_err(|_| error("mount", Errno::INVAL))?;
    let point = TempName::new(tmp, "mnt")?;
    tmp.make_dir(point.name(), PRIVATE_DIR)?;
    let path = tmp.join(point.name());
    let mount_flags = if upper.is_some() {
        MountFlags::empty()
    } else {
        MountFlags::RDONLY | MountFlags::NOATIME
    };
    rustix::mount::mount("wbuild", &path, "overlay", mount_flags, Some(data.as_c_str()))
        .map_err(|e| error("mount", e))?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, &path, clone).map_err(|e| error("open_tree", e));
    // The clone keeps the file system; the path must be free before anything can fail.
    let detached =
        rustix::mount::unmount(&path, UnmountFlags::DETACH).map_err(|e| error("umount", e));
    let tree = tree?;
    detached?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::privileged;

    /// Both ways must give the same tree and leave nothing in the mount table.
    #[test]
    fn privileged_old_kernels_get_the_same_mounts() {
        let Some(_) = privileged("privileged_old_kernels_get_the_same_mounts") else { return };
        let dir = tempfile::tempdir().unwrap();
        for name in ["low", "high", "fs", "work", "tmp"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("low/a"), "1").unwrap();
        std::fs::write(dir.path().join("high/a"), "2").unwrap();
        let folder = |name: &str| Folder::open(&dir.path().join(name)).unwrap();
        let tmp = folder("tmp");
        let open =
            |index: usize| Ok(folder(["high", "low"][index]).as_fd().try_clone_to_owned().unwrap());
        let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let read = |fd: &OwnedFd| std::fs::read_to_string(fd_path(fd.as_fd()) + "/a").unwrap();
        for kind in [StateKind::Trusted, StateKind::User] {
            let view = mount_one_string(kind, 2, open, None, &tmp).unwrap();
            assert_eq!(read(&view), "2");
            let view = mount_per_layer(kind, 2, open, None).unwrap();
            assert_eq!(read(&view), "2");
        }
        let (fs, work) = (folder("fs"), folder("work"));
        let upper = Upper { fs: fs.as_fd(), work: work.as_fd() };
        let step = mount_one_string(StateKind::Trusted, 2, open, Some(upper), &tmp).unwrap();
        std::fs::write(fd_path(step.as_fd()) + "/new", "n").unwrap();
        drop(step);
        assert!(dir.path().join("fs/new").exists());
        assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn privileged_a_refused_mount_says_which_option() {
        let Some(_) = privileged("privileged_a_refused_mount_says_which_option") else { return };
        let file = tempfile::tempfile().unwrap();
        let open = |_| Ok(file.as_fd().try_clone_to_owned().unwrap());
        let error = mount_per_layer(StateKind::Trusted, 2, open, None).unwrap_err();
        assert!(error.to_string().contains("lowerdir+="), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
}
