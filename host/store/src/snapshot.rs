//! Snapshots: directories that are layers for overlayfs, and the merged trees made of them.
//!
//! ```text
//! tmp/snap-<id>/{fs,work}    being built: `fs` is an upper directory, `work` overlay's scratch,
//!                            there once it is mounted
//! snapshots/<id>/fs          committed; never changed again
//! ```
//!
//! A snapshot by itself is nothing: a record names it, or it is garbage. Its id is random; what it
//! contains is told by the record's content digest.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{Folder, PRIVATE_DIR, TempName, Visitor, random_u128, walk};
use crate::lease::{Held, Lease, LeaseItem};
use crate::overlay::{self, Upper};
use crate::store::{Inner, Store};
use crate::sync::{lock, read};
use crate::usage::Meter;

/// Name of a snapshot in its state directory: 32 hex digits. Meaningless elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId(u128);

impl SnapshotId {
    pub(crate) const fn from_u128(value: u128) -> Self {
        SnapshotId(value)
    }

    pub(crate) const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotId({self})")
    }
}

impl FromStr for SnapshotId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let good = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match u128::from_str_radix(text, 16) {
            Ok(value) if good => Ok(SnapshotId(value)),
            _ => Err(Error::Invalid {
                what: "snapshot id",
                reason: format!("{text:?}: expected 32 lower-case hex digits"),
            }),
        }
    }
}

impl Serialize for SnapshotId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SnapshotId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Snapshots seen to exist since the open. Only this process removes any while it holds the lock,
/// so a name seen once need not be looked up again.
#[derive(Debug, Default)]
pub(crate) struct SnapshotCache(Mutex<HashSet<SnapshotId>>);

impl SnapshotCache {
    pub(crate) fn insert(&self, id: SnapshotId) {
        lock(&self.0).insert(id);
    }

    pub(crate) fn remove(&self, id: SnapshotId) {
        lock(&self.0).remove(&id);
    }

    fn contains(&self, id: SnapshotId) -> bool {
        lock(&self.0).contains(&id)
    }
}

/// A snapshot being built. Dropping it removes it.
#[derive(Debug)]
pub struct SnapshotBuilder {
    store: Store,
    id: SnapshotId,
    folder: Folder,
    fs: OwnedFd,
    /// It was mounted, and so has a scratch directory.
    mounted: AtomicBool,
    /// It was mounted as the lowest layer, where whiteouts mean nothing and show as devices.
    lowest: AtomicBool,
    committed: bool,
}

/// A tree, for `openat(2)` and its like. As long as this exists its layers are not evicted.
///
/// The descriptor is either that of a directory, or, if [`View::is_mount`], the `O_PATH` descriptor
/// of a detached mount, to be put somewhere with `move_mount(2)`; that mount ends with this very
/// descriptor unless it was put somewhere. `O_PATH` cannot be listed: see [`View::open_dir`].
#[derive(Debug)]
pub struct View {
    fd: OwnedFd,
    is_mount: bool,
    lease: Lease,
}

impl AsFd for View {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl View {
    /// Whether the descriptor is a detached mount.
    pub fn is_mount(&self) -> bool {
        self.is_mount
    }

    /// Opens the root directory of the tree for listing. Keep the view as long as it is used.
    pub fn open_dir(&self) -> Result<OwnedFd> {
        rustix::fs::openat(&self.fd, ".", DIR_FLAGS, Mode::empty())
            .map_err(|errno| Error::io("open", "the root of a merged tree", errno))
    }

    /// The lease on its layers.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Takes the descriptor out; keep the lease as long as it is used.
    pub fn into_parts(self) -> (OwnedFd, Lease) {
        (self.fd, self.lease)
    }
}

/// Layers side by side, not merged: for who looks a few names up and needs no mount for that. As
/// long as the lease exists they are not evicted.
#[derive(Debug)]
pub struct Stack {
    /// The directory in which they are.
    pub dir: OwnedFd,
    /// Their paths in it, topmost first, each layer once.
    pub paths: Vec<String>,
    /// What keeps them.
    pub lease: Lease,
}

impl Store {
    /// Begins a snapshot with an empty `fs` (mode 0755).
    pub fn begin_snapshot(&self) -> Result<SnapshotBuilder> {
        let inner = &*self.inner;
        inner.check_writable()?;
        let id = SnapshotId(random_u128()?);
        let name = building_name(id);
        inner.tmp.make_dir(&name, PRIVATE_DIR)?;
        let folder = inner.tmp.sub(&name)?;
        folder.make_dir("fs", Mode::from_raw_mode(0o755))?;
        let fs = open_dir(&folder, "fs")?;
        // The umask may have taken bits that the root directory of an image must have.
        rustix::fs::fchmod(&fs, Mode::from_raw_mode(0o755))
            .map_err(|e| folder.error("set the mode of", "fs", e))?;
        Ok(SnapshotBuilder {
            store: self.clone(),
            id,
            folder,
            fs,
            mounted: AtomicBool::new(false),
            lowest: AtomicBool::new(false),
            committed: false,
        })
    }

    /// The merged tree of `layers`, lowest first, for reading.
    ///
    /// No layer gives an empty directory, one gives its own directory, several give a detached
    /// overlay mount. Only the mount is protected from writing: a caller that hands the tree to
    /// somebody else wants [`Store::view_mount`].
    ///
    /// # Errors
    ///
    /// [`Error::SnapshotGone`], [`Error::Overlay`].
    pub fn view(&self, layers: &[SnapshotId]) -> Result<View> {
        let (lease, unique) = self.hold_layers(layers)?;
        let inner = &*self.inner;
        let fd = match unique.as_slice() {
            [] => open_dir(&inner.root, "empty")?,
            [only] => inner.open_layer(*only)?,
            _ => {
                let open = |i: usize| inner.open_layer(unique[i]);
                overlay::mount(inner.kind, unique.len(), open, None, &inner.tmp)?
            }
        };
        Ok(View { fd, is_mount: unique.len() > 1, lease })
    }

    /// The directories of `layers`, lowest first, as they are.
    ///
    /// # Errors
    ///
    /// [`Error::SnapshotGone`].
    pub fn stack(&self, layers: &[SnapshotId]) -> Result<Stack> {
        let (lease, unique) = self.hold_layers(layers)?;
        let dir = self.inner.snapshots.as_fd().try_clone_to_owned();
        let dir = dir.map_err(|e| Error::io("duplicate", self.inner.snapshots.path(), e))?;
        Ok(Stack { dir, paths: unique.iter().map(layer_path).collect(), lease })
    }

    /// Like [`Store::view`], but always a read-only mount, to be put into a step.
    pub fn view_mount(&self, layers: &[SnapshotId]) -> Result<View> {
        let (lease, unique) = self.hold_layers(layers)?;
        let inner = &*self.inner;
        // Overlayfs wants two layers to merge; below the only one, or as both, nothing.
        let nothing = TempName::new(&inner.tmp, "nothing")?;
        inner.tmp.make_dir(nothing.name(), Mode::from_raw_mode(0o755))?;
        let open = |index: usize| match unique.get(index) {
            Some(id) => inner.open_layer(*id),
            None if index == unique.len() => open_dir(&inner.root, "empty"),
            None => open_dir(&inner.tmp, nothing.name()),
        };
        let fd = overlay::mount(inner.kind, unique.len().max(2), open, None, &inner.tmp)?;
        Ok(View { fd, is_mount: true, lease })
    }

    /// The merged tree of `layers`, lowest first, writable into `builder`: a detached overlay
    /// mount that does not sync (`volatile`), so nothing in it is durable before a seal.
    ///
    /// `extra_lower` sits on top of the layers: it carries mount points that the tree lacks.
    /// Directories in it must have the modes and owners of those they cover. The builder's root
    /// directory takes mode, owner and time from the topmost layer. Close the mount, and end every
    /// process that has it, before [`SnapshotBuilder::commit`].
    ///
    /// # Errors
    ///
    /// [`Error::SnapshotGone`], [`Error::Overlay`].
    pub fn writable(
        &self,
        layers: &[SnapshotId],
        builder: &SnapshotBuilder,
        extra_lower: Option<OwnedFd>,
    ) -> Result<View> {
        let (lease, unique) = self.hold_layers(layers)?;
        let inner = &*self.inner;
        let top = match unique.first() {
            Some(top) => inner.open_layer(*top)?,
            None => {
                builder.lowest.store(true, Ordering::Relaxed);
                open_dir(&inner.root, "empty")?
            }
        };
        copy_root_metadata(&top, &builder.fs)
            .map_err(|e| builder.folder.error("set the owner and mode of", "fs", e))?;
        let extra = usize::from(extra_lower.is_some());
        let count = unique.len().max(1) + extra;
        let open = |index: usize| match (&extra_lower, index) {
            (Some(fd), 0) => fd.try_clone().map_err(|e| Error::io("duplicate", "mount points", e)),
            _ if unique.is_empty() => open_dir(&inner.root, "empty"),
            _ => inner.open_layer(unique[index - extra]),
        };
        builder.mounted.store(true, Ordering::Relaxed);
        let work = builder.folder.ensure("work")?;
        let upper = Upper { fs: builder.fs.as_fd(), work: work.as_fd() };
        let fd = overlay::mount(inner.kind, count, open, Some(upper), &inner.tmp)?;
        Ok(View { fd, is_mount: true, lease })
    }

    /// Leases the layers, checks that they exist, and gives them topmost first. A layer that
    /// occurs twice stays where it is topmost: its lower occurrence can show nothing that the
    /// upper does not, and overlayfs refuses it.
    fn hold_layers(&self, layers: &[SnapshotId]) -> Result<(Lease, Vec<SnapshotId>)> {
        let inner = &*self.inner;
        let _gc = read(&inner.gc);
        let mut seen = HashSet::new();
        let unique: Vec<_> = layers.iter().rev().copied().filter(|id| seen.insert(*id)).collect();
        for id in &unique {
            if !inner.snapshot_exists(*id)? {
                return Err(Error::SnapshotGone { id: *id });
            }
        }
        let items = unique.iter().map(|id| LeaseItem::Snapshot(*id)).collect();
        Ok((inner.leases.lease(items), unique))
    }
}

impl SnapshotBuilder {
    /// Its id; valid in records once [`SnapshotBuilder::commit`] succeeded.
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// The directory that becomes the layer: fill it directly, or through
    /// [`Store::writable`]. In it, whiteouts (character device 0:0) and opaque directories
    /// ([`crate::StateKind::opaque_xattr`]) have their overlayfs meaning.
    pub fn fs(&self) -> BorrowedFd<'_> {
        self.fs.as_fd()
    }

    /// Path of [`SnapshotBuilder::fs`] until the commit, for programs that take no descriptor.
    pub fn fs_path(&self) -> PathBuf {
        self.folder.join("fs")
    }

    /// The lowest layer of a chain needs no whiteouts: call this for one that was unpacked, where
    /// the unpacker does not leave them out itself. (Done by itself after
    /// [`Store::writable`] over no layers.)
    pub fn drop_whiteouts(&self) -> Result<()> {
        let root = open_dir(&self.folder, "fs")?;
        walk(root, &mut DropWhiteouts)
            .map_err(|errno| self.folder.error("remove whiteouts from", "fs", errno))
    }

    /// Finishes the snapshot. It survives a crash once a record names it.
    pub fn commit(mut self) -> Result<Held<SnapshotId>> {
        if self.lowest.load(Ordering::Relaxed) {
            self.drop_whiteouts()?;
        }
        let store = self.store.clone();
        let inner = &*store.inner;
        // A volatile mount leaves a mark in it that forbids its reuse, and it holds nothing else.
        if self.mounted.load(Ordering::Relaxed) {
            self.folder.remove_all("work")?;
        }
        failpoint!("snapshot::finished", self.folder.path());
        inner.account.begin(&inner.root)?;
        inner.account.add_file(Meter::default().measure(&inner.tmp, &building_name(self.id))?);
        let _gc = read(&inner.gc);
        let lease = inner.leases.lease(vec![LeaseItem::Snapshot(self.id)]);
        inner.mark_dirty();
        inner.tmp.rename(&building_name(self.id), &inner.snapshots, &self.id.to_string())?;
        self.committed = true;
        failpoint!("snapshot::committed", inner.snapshots.path());
        inner.known.insert(self.id);
        Ok(Held::new(self.id, lease))
    }
}

impl Drop for SnapshotBuilder {
    fn drop(&mut self) {
        if !self.committed {
            let _ = self.store.inner.tmp.remove_all(&building_name(self.id));
        }
    }
}

impl Inner {
    /// Whether a snapshot is committed.
    pub(crate) fn snapshot_exists(&self, id: SnapshotId) -> Result<bool> {
        // Without the lock another process may remove it at any time: no memory then.
        if !self.read_only && self.known.contains(id) {
            return Ok(true);
        }
        let exists = self.snapshots.exists(&id.to_string())?;
        if exists {
            self.known.insert(id);
        }
        Ok(exists)
    }

    pub(crate) fn open_layer(&self, id: SnapshotId) -> Result<OwnedFd> {
        let name = layer_path(&id);
        match rustix::fs::openat(&self.snapshots, &name, DIR_FLAGS, Mode::empty()) {
            Ok(fd) => Ok(fd),
            Err(rustix::io::Errno::NOENT) => Err(Error::SnapshotGone { id }),
            Err(errno) => Err(self.snapshots.error("open", &name, errno)),
        }
    }

    /// Takes a snapshot out of sight at once; the caller removes what is left under the name
    /// given back.
    pub(crate) fn retire_snapshot(&self, id: SnapshotId) -> Result<String> {
        self.known.remove(id);
        let trash = format!("trash-{id}");
        self.snapshots.rename(&id.to_string(), &self.tmp, &trash)?;
        Ok(trash)
    }

    /// All committed snapshots, sorted.
    pub(crate) fn list_snapshots(&self) -> Result<Vec<SnapshotId>> {
        let names = self.snapshots.list()?;
        Ok(names.into_iter().filter_map(|(name, _)| name.parse().ok()).collect())
    }
}

const DIR_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Where a layer's directory is among the snapshots.
fn layer_path(id: &SnapshotId) -> String {
    format!("{id}/fs")
}

fn building_name(id: SnapshotId) -> String {
    format!("snap-{id}")
}

fn open_dir(folder: &Folder, name: &str) -> Result<OwnedFd> {
    rustix::fs::openat(folder, name, DIR_FLAGS, Mode::empty())
        .map_err(|errno| folder.error("open", name, errno))
}

fn copy_root_metadata(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let present = rustix::fs::fstat(to)?;
    if (stat.st_uid, stat.st_gid) != (present.st_uid, present.st_gid) {
        rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = |seconds, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: nanos as _ };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    rustix::fs::futimens(to, &times)
}

struct DropWhiteouts;

impl Visitor for DropWhiteouts {
    fn entry(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        kind: FileType,
    ) -> rustix::io::Result<bool> {
        if kind == FileType::CharacterDevice {
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if stat.st_rdev == 0 {
                rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::testing::{open, privileged, snapshot_with};

    fn read_at(dir: impl AsFd, path: &str) -> Option<String> {
        let fd = rustix::fs::openat(dir, path, OFlags::RDONLY, Mode::empty()).ok()?;
        let mut text = String::new();
        std::fs::File::from(fd).read_to_string(&mut text).ok()?;
        Some(text)
    }

    fn write_at(dir: impl AsFd, path: &str, text: &str) {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let fd = rustix::fs::openat(dir, path, flags, Mode::from_raw_mode(0o644)).unwrap();
        std::io::Write::write_all(&mut std::fs::File::from(fd), text.as_bytes()).unwrap();
    }

    fn names(dir: impl AsFd) -> Vec<String> {
        let dir = rustix::fs::openat(dir, ".", DIR_FLAGS, Mode::empty()).unwrap();
        let mut out: Vec<_> = rustix::fs::Dir::read_from(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
            .filter(|name| name != "." && name != "..")
            .collect();
        out.sort();
        out
    }

    #[test]
    fn ids_are_read_back_and_nothing_else_is() {
        let id = SnapshotId(0xab);
        assert_eq!(id.to_string().parse::<SnapshotId>().unwrap(), id);
        for bad in ["", "..", "+0000000000000000000000000000000", &"A".repeat(32), &"0".repeat(33)]
        {
            assert!(bad.parse::<SnapshotId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_builder_is_committed_or_vanishes() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let builder = store.begin_snapshot().unwrap();
        let dropped = builder.id();
        write_at(builder.fs(), "f", "x");
        assert!(matches!(store.view(&[dropped]), Err(Error::SnapshotGone { .. })));
        drop(builder);
        let kept = snapshot_with(&store, &[("f", "y")]);
        assert_eq!(store.inner.list_snapshots().unwrap(), [*kept]);
        assert_eq!(std::fs::read_dir(store.tmp_path()).unwrap().count(), 0);
        assert!(!store.inner.snapshots.path().join(kept.to_string()).join("work").exists());
    }

    #[test]
    fn no_layer_is_an_empty_tree_and_one_is_itself() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        assert!(names(store.view(&[]).unwrap()).is_empty());
        let a = snapshot_with(&store, &[("f", "1")]);
        assert_eq!(read_at(store.view(&[*a]).unwrap(), "f").unwrap(), "1");
        assert_eq!(read_at(store.view(&[*a, *a]).unwrap(), "f").unwrap(), "1");
    }

    #[test]
    fn privileged_views_merge_layers_and_leave_no_mount() {
        let Some(_) = privileged("privileged_views_merge_layers_and_leave_no_mount") else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let a = snapshot_with(&store, &[("f", "1"), ("only-a", "a")]);
        let b = snapshot_with(&store, &[("f", "2")]);
        let builder = store.begin_snapshot().unwrap();
        rustix::fs::mknodat(
            builder.fs(),
            "only-a",
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let c = builder.commit().unwrap();
        let view = store.view(&[*a, *b]).unwrap();
        assert_eq!(names(&view), ["f", "only-a"]);
        assert_eq!(read_at(&view, "f").unwrap(), "2");
        let denied = rustix::fs::openat(&view, "n", OFlags::WRONLY | OFlags::CREATE, Mode::RUSR);
        assert_eq!(denied.unwrap_err(), rustix::io::Errno::ROFS);
        assert_eq!(names(store.view(&[*a, *b, *c]).unwrap()), ["f"]);
        assert_eq!(names(store.view(&[*a, *c, *a]).unwrap()), ["f", "only-a"]);
        for (layers, expected) in
            [(&[][..], &[][..]), (&[*b], &["f"]), (&[*a, *b], &["f", "only-a"])]
        {
            let mount = store.view_mount(layers).unwrap();
            assert!(mount.is_mount());
            assert_eq!(names(&mount), expected);
            assert_eq!(names(mount.open_dir().unwrap()), expected);
            let denied =
                rustix::fs::openat(&mount, "n", OFlags::WRONLY | OFlags::CREATE, Mode::RUSR);
            assert_eq!(denied.unwrap_err(), rustix::io::Errno::ROFS);
        }
        drop(view);
        assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    }

    #[test]
    fn privileged_steps_write_into_their_layer_only() {
        let Some(_) = privileged("privileged_steps_write_into_their_layer_only") else { return };
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let base = snapshot_with(&store, &[("keep", "k"), ("gone", "g")]);
        let base_dir = store.inner.snapshots.join(&base.to_string()).join("fs");
        std::fs::set_permissions(&base_dir, std::os::unix::fs::PermissionsExt::from_mode(0o1711))
            .unwrap();
        let stubs = tempfile::tempdir().unwrap();
        std::fs::write(stubs.path().join("stub"), "").unwrap();
        let extra = Folder::open(stubs.path()).unwrap();
        let builder = store.begin_snapshot().unwrap();
        let extra = extra.as_fd().try_clone_to_owned().unwrap();
        let mount = store.writable(&[*base], &builder, Some(extra)).unwrap();
        assert_eq!(names(&mount), ["gone", "keep", "stub"]);
        assert_eq!(rustix::fs::fstat(&mount).unwrap().st_mode & 0o7777, 0o1711);
        write_at(&mount, "new", "n");
        rustix::fs::unlinkat(&mount, "gone", AtFlags::empty()).unwrap();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains("tmp/snap-"), "the mount is attached nowhere");
        drop(mount);
        let layer = builder.commit().unwrap();
        assert_eq!(names(store.view(&[*layer]).unwrap()), ["gone", "new"], "a whiteout and a file");
        let merged = store.view(&[*base, *layer]).unwrap();
        assert_eq!(names(&merged), ["keep", "new"]);
        assert_eq!(read_at(&merged, "new").unwrap(), "n");
    }

    #[test]
    fn privileged_a_step_over_nothing_leaves_no_whiteouts() {
        let Some(_) = privileged("privileged_a_step_over_nothing_leaves_no_whiteouts") else {
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let stubs = tempfile::tempdir().unwrap();
        std::fs::write(stubs.path().join("stub"), "").unwrap();
        let builder = store.begin_snapshot().unwrap();
        let extra = Folder::open(stubs.path()).unwrap().as_fd().try_clone_to_owned().unwrap();
        let mount = store.writable(&[], &builder, Some(extra)).unwrap();
        rustix::fs::unlinkat(&mount, "stub", AtFlags::empty()).unwrap();
        write_at(&mount, "f", "x");
        drop(mount);
        let layer = builder.commit().unwrap();
        assert_eq!(names(store.view(&[*layer]).unwrap()), ["f"]);
    }

    #[test]
    fn privileged_many_layers_fit_and_too_many_are_refused_with_a_hint() {
        let Some(_) = privileged("privileged_many_layers_fit_and_too_many") else { return };
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let held: Vec<_> = (0..=overlay::MAX_LAYERS)
            .map(|n| snapshot_with(&store, &[(&format!("f{n}"), "x")]))
            .collect();
        let ids: Vec<_> = held.iter().map(|id| **id).collect();
        let view = store.view(&ids[..overlay::MAX_LAYERS]).unwrap();
        assert_eq!(names(&view).len(), overlay::MAX_LAYERS);
        let error = store.view(&ids).unwrap_err();
        assert!(error.hint().unwrap().contains("at most"), "{error}");
    }
}
