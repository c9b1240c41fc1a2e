//! Helpers of the unit tests.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::lease::Held;
use crate::lock::LockWait;
use crate::snapshot::SnapshotId;
use crate::store::{OpenOptions, Store};

pub(crate) fn options() -> OpenOptions {
    OpenOptions { wait: LockWait::Fail, owner: "a test".into(), ..OpenOptions::default() }
}

pub(crate) fn open(dir: &Path) -> Store {
    Store::open(dir, options()).unwrap()
}

pub(crate) fn open_in_boot(dir: &Path, boot: &str) -> Store {
    Store::open(dir, OpenOptions { boot_id: Some(boot.into()), ..options() }).unwrap()
}

/// A committed snapshot with these files at its top.
pub(crate) fn snapshot_with(store: &Store, files: &[(&str, &str)]) -> Held<SnapshotId> {
    let builder = store.begin_snapshot().unwrap();
    for (name, text) in files {
        write_file(builder.fs(), name, text.as_bytes());
    }
    builder.commit().unwrap()
}

pub(crate) fn write_file(dir: impl AsFd, name: &str, data: &[u8]) {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644)).unwrap();
    std::fs::File::from(fd).write_all(data).unwrap();
}

/// Whether this process may mount. If not: says that the test is skipped, or fails where skipping
/// is not allowed.
pub(crate) fn privileged(test: &str) -> Option<()> {
    let probe = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    });
    match probe {
        Ok(_) => Some(()),
        Err(errno) => {
            // Not `eprintln`, which the test harness swallows when the test passes.
            let line = format!("skipped: {test}: this process may not mount ({errno})\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            assert!(
                std::env::var_os("WBUILD_TEST_REQUIRE").is_none_or(|value| value != "1"),
                "{test} must not be skipped here"
            );
            None
        }
    }
}
