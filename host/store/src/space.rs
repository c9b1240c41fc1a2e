//! How much of the disk the state directory may take.
//!
//! Three limits, with BuildKit's names and defaults: a ceiling for what is kept, a part that is kept
//! even where the disk has little room, and room that is left to others as long as more than that
//! part is kept. The ceiling wins over both.

use rustix::fs::StatVfs;

use crate::error::{Error, Result};
use crate::files::Folder;

/// An amount of disk space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the disk, at most 100.
    Percent(u8),
}

impl Space {
    /// In bytes, on a disk.
    pub fn on(self, disk: &Disk) -> u64 {
        match self {
            Space::Bytes(bytes) => bytes,
            Space::Percent(percent) => disk.share(percent),
        }
    }
}

/// Limits as they are given; what is not given has its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most that is kept. Default: 80 % of the disk, but no more than 100 GB.
    pub max_used: Option<Space>,
    /// What is kept for certain, below the ceiling. Default: 10 % of the disk, but no more than
    /// 10 GB.
    pub reserved: Option<Space>,
    /// What is left free for others. Default: 20 % of the disk.
    pub min_free: Option<Space>,
}

impl Limits {
    const MAX_USED: (u8, u64) = (80, 100_000_000_000);
    const RESERVED: (u8, u64) = (10, 10_000_000_000);
    const MIN_FREE: u8 = 20;

    /// What they come to on a disk.
    pub fn on(&self, disk: &Disk) -> Bounds {
        // A file system without a size has no shares.
        if disk.total == 0 {
            let bytes = |space: Option<Space>| match space {
                Some(Space::Bytes(bytes)) => Some(bytes),
                _ => None,
            };
            return Bounds {
                max_used: bytes(self.max_used),
                reserved: bytes(self.reserved).unwrap_or(0),
                min_free: 0,
            };
        }
        let or = |space: Option<Space>, (percent, most): (u8, u64)| {
            space.map_or_else(|| disk.share(percent).min(most), |space| space.on(disk))
        };
        let max_used = or(self.max_used, Self::MAX_USED);
        Bounds {
            max_used: Some(max_used),
            reserved: or(self.reserved, Self::RESERVED).min(max_used),
            min_free: or(self.min_free, (Self::MIN_FREE, u64::MAX)),
        }
    }
}

/// Limits in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Most that is kept; no ceiling if none.
    pub max_used: Option<u64>,
    /// What is kept for certain.
    pub reserved: u64,
    /// What is left free for others; 0 for nothing.
    pub min_free: u64,
}

impl Bounds {
    /// A ceiling alone.
    pub fn at_most(bytes: u64) -> Bounds {
        Bounds { max_used: Some(bytes), ..Bounds::default() }
    }

    /// How much of `used` bytes may stay where so many bytes are free.
    pub fn target(&self, used: u64, free: u64) -> u64 {
        let short = self.min_free.saturating_sub(free);
        let ceiling = self.max_used.unwrap_or(u64::MAX);
        let mut keep = ceiling;
        if short > 0 {
            keep = keep.min(used.saturating_sub(short));
        } else if self.max_used.is_none() && self.min_free == 0 {
            // Nothing but the part that is kept for certain was given.
            keep = self.reserved;
        }
        keep.max(self.reserved.min(ceiling))
    }

    /// Whether no amount of what is kept can be too much on this disk.
    pub(crate) fn holds_anyway(&self, disk: &Disk) -> bool {
        disk.free >= self.min_free && self.max_used.is_none_or(|most| disk.used <= most)
    }
}

/// A file system in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Its size; 0 if it has none of its own.
    pub total: u64,
    /// What anybody's files take.
    pub used: u64,
    /// What this user can still write.
    pub free: u64,
    /// Files it can hold; 0 if there is no such limit.
    pub files: u64,
    /// Files that can still be made.
    pub free_files: u64,
}

impl Disk {
    pub(crate) fn of(folder: &Folder) -> Result<Disk> {
        let stat = rustix::fs::fstatvfs(folder)
            .map_err(|errno| Error::io("measure the disk of", folder.path(), errno))?;
        let StatVfs { f_frsize: block, f_blocks, f_bfree, f_bavail, f_files, f_favail, .. } = stat;
        Ok(Disk {
            total: f_blocks.saturating_mul(block),
            used: f_blocks.saturating_sub(f_bfree).saturating_mul(block),
            free: f_bavail.saturating_mul(block),
            files: f_files,
            free_files: f_favail,
        })
    }

    fn share(&self, percent: u8) -> u64 {
        let share = u128::from(self.total) * u128::from(percent.min(100)) / 100;
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    /// Whether writing fails, or is about to, for want of bytes or of files.
    pub fn is_full(&self) -> bool {
        let few_bytes = self.total > 0 && self.free < (self.total / 100).min(16 << 20);
        let few_files = self.files > 0 && self.free_files < (self.files / 100).min(1000);
        few_bytes || few_files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn disk(total: u64, free: u64) -> Disk {
        Disk { total, used: total - free, free, ..Disk::default() }
    }

    #[test]
    fn defaults_are_shares_of_the_disk_up_to_an_amount() {
        let small = Limits::default().on(&disk(50 * GB, 30 * GB));
        assert_eq!(small, Bounds { max_used: Some(40 * GB), reserved: 5 * GB, min_free: 10 * GB });
        let large = Limits::default().on(&disk(1000 * GB, 900 * GB));
        assert_eq!(
            large,
            Bounds { max_used: Some(100 * GB), reserved: 10 * GB, min_free: 200 * GB }
        );
        let given = Limits {
            max_used: Some(Space::Bytes(GB)),
            reserved: Some(Space::Percent(50)),
            min_free: Some(Space::Percent(1)),
        };
        let given = given.on(&disk(100 * GB, 0));
        assert_eq!(given, Bounds { max_used: Some(GB), reserved: GB, min_free: GB });
        let endless = Limits { max_used: Some(Space::Percent(10)), ..Limits::default() };
        assert_eq!(endless.on(&Disk::default()), Bounds::default());
    }

    #[test]
    fn what_may_stay() {
        let bounds = Bounds { max_used: Some(50), reserved: 10, min_free: 20 };
        for (used, free, want) in [
            (40, 100, 50),
            (60, 100, 50),
            // Five are missing, so five go.
            (40, 15, 35),
            // What is reserved stays although others fill the disk.
            (12, 0, 10),
            (5, 0, 10),
        ] {
            assert_eq!(bounds.target(used, free), want, "{used} {free}");
        }
        let reserved = Bounds { reserved: 10, ..Bounds::default() };
        assert_eq!(reserved.target(60, 5), 10);
        let free = Bounds { min_free: 20, ..Bounds::default() };
        assert_eq!((free.target(60, 30), free.target(60, 5)), (u64::MAX, 45));
        assert_eq!(Bounds::at_most(7).target(60, 0), 7);
        let absurd = Bounds { max_used: Some(5), reserved: 10, min_free: 0 };
        assert_eq!(absurd.target(60, 0), 5, "the ceiling wins");
    }

    #[test]
    fn a_full_disk_is_full_of_bytes_or_of_files() {
        let roomy = Disk { files: 1000, free_files: 500, ..disk(GB, GB / 2) };
        assert!(!roomy.is_full());
        assert!(disk(GB, GB / 200).is_full());
        assert!(Disk { free_files: 3, ..roomy }.is_full());
        assert!(!Disk::default().is_full(), "one without a size is never full");
    }
}
