//! Marks of entries that were checked already: hashing two megabytes takes longer than everything
//! else that loading them needs, and entries of guests in other languages are ten times as large.
//!
//! A mark says that the file of one inode, with one size and one time of change, had the right
//! hash, in this boot. Invariants:
//!
//! - No write, rename or change of attributes escapes it: the kernel sets the time of change (ctime,
//!   inode(7)) at each, and no call sets it to a chosen value. (Stores into a shared mapping may come
//!   later than the time they set; only this user could have made one, and could as well change the
//!   code after a hash.) A change within the clock's tick of the check could keep the time, so only
//!   entries that have rested for [`RESTED`] are marked (git's index knows the same rule as "racily
//!   clean").
//! - A power cut ends it: what a disk lost shows as another boot's mark, and all is hashed again.
//! - A mark is a keyed hash under the key of the directory, as the entries are: whoever can merely
//!   place files there makes none.
//! - It is a saving only: what cannot be read or written means that the entry is hashed.

use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, SystemTime};

use highway::{HighwayHash as _, HighwayHasher, Key};
use rustix::fs::{RenameFlags, Stat};
use wbuild_graph::Digest;

use super::{finish, open_private, write_private};

const MAGIC: &[u8; 16] = b"wbuild mark v1\0\n";
pub(super) const SUFFIX: &str = ".mark";
/// How long a file must have been left alone: far more than any clock's tick, the two seconds of
/// FAT included.
const RESTED: Duration = Duration::from_secs(3);

pub(super) fn name(key: &Digest) -> String {
    format!("{}{SUFFIX}", key.hex())
}

/// What a mark must hold to stand for the file of `stat`; nothing without a boot id.
pub(super) struct Mark {
    hash: [u8; 32],
    changed: SystemTime,
}

impl Mark {
    pub(super) fn of(secret: [u64; 4], key: &Digest, stat: &Stat) -> Option<Mark> {
        // proc(5): a new one at every start of the kernel.
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
        // The types differ between architectures.
        let (seconds, nanoseconds) = (i128::from(stat.st_ctime), i128::from(stat.st_ctime_nsec));
        let mut hasher = HighwayHasher::new(Key(secret));
        hasher.append(MAGIC);
        hasher.append(key.as_bytes());
        let of_file = [stat.st_dev.into(), stat.st_ino.into(), stat.st_size.into()];
        for number in of_file.into_iter().chain([seconds, nanoseconds]) {
            hasher.append(&i128::to_le_bytes(number));
        }
        hasher.append(&boot);
        let since = Duration::from_secs(seconds.try_into().ok()?)
            + Duration::from_nanos(nanoseconds.try_into().ok()?);
        let changed = SystemTime::UNIX_EPOCH + since;
        Some(Mark { hash: finish(hasher), changed })
    }

    /// Whether the directory has this mark.
    pub(super) fn stands(&self, dir: BorrowedFd<'_>, key: &Digest) -> bool {
        let Ok(Some((file, stat))) = open_private(dir, &name(key)) else { return false };
        let mut found = [0; 32];
        stat.st_size == 32 && file.read_exact_at(&mut found, 0).is_ok() && found == self.hash
    }

    /// Leaves the mark of an entry whose hash was right, if it has rested by `now`.
    pub(super) fn leave(&self, dir: BorrowedFd<'_>, key: &Digest, now: SystemTime) {
        let rested = now.duration_since(self.changed);
        if rested.is_ok_and(|rested| rested >= RESTED) {
            // It saves time only.
            let _ = write_private(dir, &name(key), &[&self.hash], RenameFlags::empty());
        }
    }
}
