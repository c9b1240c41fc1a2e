//! The tree below a layer: the directories of the layers there, merged as overlayfs merges them
//! (kernel documentation, filesystems/overlayfs: the topmost layer that has a name decides, a whiteout
//! hides it, directories merge down to one that is opaque or covered by something else).
//!
//! Nothing is mounted: a mount of n layers costs more than the few names an action looks up, and a
//! chain of n steps would pay for it n times.
//!
//! Invariants:
//!
//! - The layers never change while this exists, so what was found once stays found.
//! - A path is only put together of names that were found to be directories in that very layer: none
//!   of them is a link.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::path::{MAX_PATH, RelPath};
use crate::root::{Names, Root, read_link_at, stat_at};
use crate::stat::Stat;
use crate::xattr::{self, XattrKind};

type Result<T> = std::result::Result<T, Errno>;

/// Layers that make up a directory, by number, topmost first.
type Merged = Arc<[usize]>;

/// What a new layer lies on.
pub struct Base {
    /// The directory in which those of the layers are.
    dir: Root,
    /// Paths of the layers in it, topmost first; empty: the directory itself.
    layers: Vec<Box<[u8]>>,
    /// Which layers make up the directories that were entered.
    entered: Mutex<HashMap<Box<[u8]>, Merged>>,
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Base").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

impl Base {
    /// A stack of layers, topmost first, as paths in `dir` on which no link is.
    ///
    /// # Panics
    /// Without a layer: that is no base.
    pub fn stack(dir: Root, layers: impl IntoIterator<Item = String>) -> Base {
        let layers: Vec<Box<[u8]>> =
            layers.into_iter().map(|path| path.into_bytes().into()).collect();
        assert!(!layers.is_empty(), "a base has a layer");
        Base { dir, layers, entered: Mutex::default() }
    }

    fn entered(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, Merged>> {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The root directory: whatever a layer says of it, all of them make it up.
    pub(super) fn root(self: &Arc<Self>) -> BaseDir {
        let layers = (0..self.layers.len()).collect();
        BaseDir { base: Arc::clone(self), path: Box::default(), layers }
    }

    /// The directory with this path; links on it are refused.
    pub(super) fn open(self: &Arc<Self>, path: &RelPath, kind: XattrKind) -> Result<BaseDir> {
        path.names().try_fold(self.root(), |dir, name| dir.enter(name, kind)?.ok_or(Errno::NOENT))
    }
}

/// One directory, merged already: of a mount, or a single layer's.
impl From<Root> for Base {
    fn from(root: Root) -> Base {
        Base::stack(root, [String::new()])
    }
}

/// A directory of the base.
pub(super) struct BaseDir {
    base: Arc<Base>,
    /// From the root; empty for the root itself, else without slashes at its ends.
    path: Box<[u8]>,
    /// The layers that make it up, topmost first. Never empty.
    layers: Merged,
}

impl BaseDir {
    /// Calls `then` with where a layer has a name of this directory (an empty name is the directory
    /// itself): a path, and the directory it begins in.
    fn at<T>(
        &self,
        layer: usize,
        name: &[u8],
        then: impl FnOnce(BorrowedFd<'_>, &[u8]) -> Result<T>,
    ) -> Result<T> {
        let path = |parts: &[&[u8]]| {
            let parts: Vec<&[u8]> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
            if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') }
        };
        let (dir, layer) = (self.base.dir.as_fd(), &*self.base.layers[layer]);
        let whole = path(&[layer, &self.path, name]);
        if whole.len() <= MAX_PATH {
            return then(dir, &whole);
        }
        // Within the layer no path is too long for the kernel.
        let root = open_dir(dir, &path(&[layer]))?;
        then(root.as_fd(), &path(&[&self.path, name]))
    }

    /// The topmost layer that has something under the name, unless it is a whiteout.
    fn shown(&self, name: &[u8]) -> Result<Option<(usize, Stat)>> {
        for layer in &*self.layers {
            if let Some(stat) = self.at(*layer, name, stat_at)? {
                return Ok((!stat.is_whiteout()).then_some((*layer, stat)));
            }
        }
        Ok(None)
    }

    /// Metadata of what is under a name, links not followed.
    pub(super) fn find(&self, name: &[u8]) -> Result<Option<Stat>> {
        Ok(self.shown(name)?.map(|(_, stat)| stat))
    }

    /// Metadata of the directory itself.
    pub(super) fn stat(&self) -> Result<Stat> {
        self.at(self.layers[0], b"", stat_at)?.ok_or(Errno::NOENT)
    }

    /// The directory itself, as the topmost layer has it: with its metadata, and not all names.
    pub(super) fn open(&self) -> Result<OwnedFd> {
        self.at(self.layers[0], b"", open_dir)
    }

    /// The directory in which what shows under a name is: the name leads to just that there.
    pub(super) fn open_for(&self, name: &[u8]) -> Result<OwnedFd> {
        let (layer, _) = self.shown(name)?.ok_or(Errno::NOENT)?;
        self.at(layer, b"", open_dir)
    }

    /// The target of a link.
    pub(super) fn read_link(&self, name: &[u8]) -> Result<Box<[u8]>> {
        let (layer, _) = self.shown(name)?.ok_or(Errno::NOENT)?;
        self.at(layer, name, read_link_at)
    }

    /// The directory under a name; none if something else shows there, or nothing.
    pub(super) fn enter(&self, name: &[u8], kind: XattrKind) -> Result<Option<BaseDir>> {
        let path: Box<[u8]> =
            if self.path.is_empty() { name.into() } else { [&*self.path, name].join(&b'/').into() };
        let known = self.base.entered().get(&path).cloned();
        let layers = match known {
            Some(layers) => layers,
            None => {
                let layers: Merged = self.layers_with(name, kind)?.into();
                self.base.entered().insert(path.clone(), Arc::clone(&layers));
                layers
            }
        };
        let base = Arc::clone(&self.base);
        Ok((!layers.is_empty()).then_some(BaseDir { base, path, layers }))
    }

    /// The layers whose directories merge to the one under a name.
    fn layers_with(&self, name: &[u8], kind: XattrKind) -> Result<Vec<usize>> {
        let mut layers = Vec::new();
        for layer in &*self.layers {
            let fd = match self.at(*layer, name, open_dir) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => continue,
                // A whiteout, a file, a link: nothing below it shows.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(errno) => return Err(errno),
            };
            layers.push(*layer);
            if Some(layer) != self.layers.last()
                && xattr::has(fd.as_fd(), kind.opaque(), Some(b"y"))?
            {
                break;
            }
        }
        Ok(layers)
    }

    /// Adds the names that any of the layers has something under, whiteouts included.
    pub(super) fn add_names(&self, names: &mut BTreeSet<Box<[u8]>>) -> Result<()> {
        for layer in &*self.layers {
            let fd = self.at(*layer, b"", open_dir)?;
            for (name, _) in Names::read(fd.as_fd(), &mut Vec::new())?.iter() {
                names.insert(Box::from(name.to_bytes()));
            }
        }
        Ok(())
    }
}

/// Opens a name as a directory, not following it.
pub(super) fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}
