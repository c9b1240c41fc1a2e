//! A directory as the container will see it: an upper directory over a base that is only read.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::base::{BaseDir, open_dir};
use crate::root::{Names, read_link_at, stat_at, stat_fd};
use crate::stat::Stat;
use crate::xattr::{self, XattrKind};

/// One directory of the merged tree. At least one of the two is there.
pub(super) struct DirAt {
    pub upper: Option<OwnedFd>,
    /// None if the base has no directory here or the upper one is opaque.
    pub base: Option<BaseDir>,
}

/// What is under a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// Nothing; perhaps because the upper directory says so.
    Absent { whiteout: bool },
    /// In the upper directory (a directory there may be merged with one of the base).
    Upper(Stat),
    /// In the base only.
    Base(Stat),
}

impl Found {
    pub fn stat(self) -> Option<Stat> {
        match self {
            Found::Absent { .. } => None,
            Found::Upper(stat) | Found::Base(stat) => Some(stat),
        }
    }

    pub fn is_dir(self) -> bool {
        self.stat().is_some_and(|stat| stat.is_dir())
    }
}

impl DirAt {
    pub fn find(&self, name: &[u8]) -> Result<Found, Errno> {
        if let Some(upper) = &self.upper
            && let Some(stat) = stat_at(upper.as_fd(), name)?
        {
            return Ok(if stat.is_whiteout() {
                Found::Absent { whiteout: true }
            } else {
                Found::Upper(stat)
            });
        }
        Ok(match self.in_base(name)? {
            Some(stat) => Found::Base(stat),
            None => Found::Absent { whiteout: false },
        })
    }

    /// Metadata of the directory itself.
    pub fn stat(&self) -> Result<Stat, Errno> {
        match (&self.upper, &self.base) {
            (Some(upper), _) => stat_fd(upper.as_fd()),
            (None, Some(base)) => base.stat(),
            (None, None) => Err(Errno::NOENT),
        }
    }

    /// What the base has under the name, whatever the upper directory says.
    pub fn in_base(&self, name: &[u8]) -> Result<Option<Stat>, Errno> {
        self.base.as_ref().map_or(Ok(None), |base| base.find(name))
    }

    /// The directory under a name, `found` being what [`DirAt::find`] said.
    pub fn enter(&self, name: &[u8], found: Found, kind: XattrKind) -> Result<DirAt, Errno> {
        let in_base = || self.base.as_ref().map_or(Ok(None), |base| base.enter(name, kind));
        match (found, &self.upper) {
            (Found::Upper(_), Some(upper)) => {
                let upper = open_dir(upper.as_fd(), name)?;
                let opaque = xattr::has(upper.as_fd(), kind.opaque(), Some(b"y"))?;
                let base = if opaque { None } else { in_base()? };
                Ok(DirAt { upper: Some(upper), base })
            }
            // It was there when it was found; an image's tree that changes is nobody's intent.
            (Found::Base(_), _) => {
                Ok(DirAt { upper: None, base: Some(in_base()?.ok_or(Errno::NOENT)?) })
            }
            _ => Err(Errno::NOENT),
        }
    }

    pub fn read_link(&self, name: &[u8], found: Found) -> Result<Box<[u8]>, Errno> {
        match (found, &self.upper, &self.base) {
            (Found::Upper(_), Some(dir), _) => read_link_at(dir.as_fd(), name),
            (Found::Base(_), _, Some(dir)) => dir.read_link(name),
            _ => Err(Errno::NOENT),
        }
    }

    /// All names, sorted.
    pub fn names(&self) -> Result<BTreeSet<Box<[u8]>>, Errno> {
        let mut names = BTreeSet::new();
        if let Some(upper) = &self.upper {
            // A directory that was listed before is at its end.
            let again = open_dir(upper.as_fd(), b".")?;
            for (name, _) in Names::read(again.as_fd(), &mut Vec::new())?.iter() {
                names.insert(Box::from(name.to_bytes()));
            }
        }
        if let Some(base) = &self.base {
            base.add_names(&mut names)?;
        }
        let mut gone = Vec::new();
        for name in &names {
            if self.find(name)?.stat().is_none() {
                gone.push(name.clone());
            }
        }
        for name in gone {
            names.remove(&name);
        }
        Ok(names)
    }
}
