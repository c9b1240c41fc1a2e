//! A full disk: errors that name the file, nothing lost, and a store that works on without a new
//! start once there is room.

mod crash;

use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use wbuild_graph::{CacheKey, Digest};
use wbuild_store::{
    Error, FsckOptions, LayerRecord, LockWait, OpenOptions, OutputRecord, PruneFilter, Record,
    Store,
};

/// How many sizes are tried; another number: `WBUILD_SIZES`.
const SIZES: u64 = 20;

/// A small file system; unmounted on drop.
struct Small(PathBuf);

impl Small {
    fn new(at: &Path, options: &str) -> Result<Small, rustix::io::Errno> {
        std::fs::create_dir_all(at).unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        mount("small", at, "tmpfs", MountFlags::empty(), Some(options.as_c_str()))?;
        Ok(Small(at.to_path_buf()))
    }

    fn resize(&self, options: &str) {
        rustix::mount::mount_remount(&self.0, MountFlags::empty(), options).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

fn skip(test: &str, reason: impl std::fmt::Display) {
    // Not `eprintln`, which the test harness swallows when the test passes.
    let _ = std::io::stderr().write_all(format!("skipped: {test}: {reason}\n").as_bytes());
    let required = std::env::var_os("WBUILD_TEST_REQUIRE").is_some_and(|value| value == "1");
    assert!(!required, "{test} must not be skipped here");
}

fn open(dir: &Path) -> Result<Store, Error> {
    let options =
        OpenOptions { wait: LockWait::Fail, boot_id: Some("b".into()), ..OpenOptions::default() };
    Store::open(dir, options)
}

fn key(n: u32) -> CacheKey {
    CacheKey(Digest::of(&n.to_le_bytes()))
}

/// One result: a snapshot, a blob, a record, a pair, made durable.
fn build(store: &Store, n: u32) -> Result<(), Error> {
    let builder = store.begin_snapshot()?;
    let path = builder.fs_path().join("data");
    std::fs::write(&path, vec![1; 20_000]).map_err(|source| Error::Io {
        action: "write",
        path,
        source,
    })?;
    let layer = builder.commit()?;
    store.put_blob(&n.to_le_bytes().repeat(2000))?;
    store.put_record(&Record {
        keys: vec![key(n)],
        outputs: vec![OutputRecord {
            layers: vec![LayerRecord { snapshot: Some(*layer), ..LayerRecord::default() }],
            ..OutputRecord::default()
        }],
        ..Record::default()
    })?;
    store.save_context("c", &vec![2; 3000])?;
    store.seal().map(|_| ())
}

/// Whether an error says where and why.
fn is_clean(error: &Error) -> bool {
    matches!(error, Error::Io { path, source, .. }
        if path.is_absolute()
            && source.kind() == std::io::ErrorKind::StorageFull)
        && error.hint().is_some_and(|hint| hint.contains("prune"))
}

#[test]
fn privileged_a_full_disk_is_reported_and_survived() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("small");
    let sizes = u32::try_from(crash::rounds("WBUILD_SIZES", SIZES)).unwrap().max(1);
    for step in 0..sizes {
        // By bytes and by inodes, at so many different points of the work.
        let bytes = 80 + 560 * step / sizes;
        for options in [format!("size={bytes}k"), format!("nr_inodes={}", 26 + 20 * step / sizes)] {
            let small = match Small::new(&at, &options) {
                Ok(small) => small,
                Err(errno) => {
                    let test = "privileged_a_full_disk_is_reported_and_survived";
                    return skip(test, format!("cannot mount tmpfs ({errno})"));
                }
            };
            let state = at.join("state");
            let store = match open(&state) {
                Ok(store) => store,
                Err(error) => {
                    assert!(is_clean(&error), "{options}: {error:?}");
                    small.resize("size=8m,nr_inodes=1000");
                    open(&state).unwrap()
                }
            };
            let mut done = 0;
            let error = loop {
                match build(&store, done) {
                    Ok(()) => done += 1,
                    Err(error) => break error,
                }
                if done == 60 {
                    break Error::Cancelled { what: "nothing: there is room after all".into() };
                }
            };
            let roomy = matches!(error, Error::Cancelled { .. });
            assert!(roomy || is_clean(&error), "{options}: {error:?}");
            for n in 0..done {
                assert!(store.get_record(&key(n)).unwrap().is_some(), "{options}: {n} is lost");
            }
            let report = store.fsck(FsckOptions { verify_blobs: true, repair: false }).unwrap();
            assert!(report.is_clean(), "{options}: {:?}", report.problems);
            // Still full: it opens and prunes, and builds of the same process go on.
            drop(store);
            let store = open(&state).unwrap_or_else(|error| panic!("{options}: {error:?}"));
            store.prune(&PruneFilter { all: true, ..PruneFilter::default() }).unwrap();
            small.resize("size=8m,nr_inodes=1000");
            build(&store, 1000).unwrap_or_else(|error| panic!("{options}: {error:?}"));
            drop(store);
            let store = open(&state).unwrap();
            assert!(store.get_record(&key(1000)).unwrap().is_some(), "{options}");
        }
    }
}
