//! The boot id, the seals, and the kind of overlay attributes a state directory is stamped with.
//!
//! A record written during this boot is *unsealed*: its data may still sit in the page cache,
//! which survives the death of a process but not of the machine. Its stamp `(boot, seq)` says so.
//! The file `seals` says per boot up to which sequence number everything is durable:
//!
//! ```text
//! <boot id> <seq> <first 16 hex digits of sha256 of the line before them>\n
//! ```
//!
//! It only grows by appended lines, each made durable by one `fdatasync`; a torn or foreign line
//! is ignored. One `syncfs` covers all that was written before it by whichever process, so a line
//! seals every earlier record of its boot, also those of a process that was killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use rustix::fs::OFlags;
use wbuild_graph::Digest;

use crate::error::{Error, Result};
use crate::files::{Folder, TempName};

pub(crate) const SEALS_FILE: &str = "seals";
const SEALS_LIMIT: u64 = 16 << 20;
/// Beyond so many lines the file is rewritten with one line per boot.
const COMPACT_LINES: usize = 512;
/// So many boots are remembered; a record unsealed before that is long evicted or re-made.
const BOOT_ID_LIMIT: usize = 64;

/// Reads this machine's boot id (`/proc/sys/kernel/random/boot_id`, proc(5)): a new one at every
/// start of the kernel.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    Ok(text.trim().to_owned())
}

/// A checked boot id: also the name of a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootId(String);

impl BootId {
    pub(crate) fn new(text: &str) -> Result<BootId> {
        let good = (1..=BOOT_ID_LIMIT).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !good {
            return Err(Error::Invalid {
                what: "boot id",
                reason: format!("{text:?}: expected 1 to {BOOT_ID_LIMIT} letters, digits or '-'"),
            });
        }
        Ok(BootId(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// When something was written: which boot, and in which group of that boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) boot: BootId,
    pub(crate) seq: u64,
}

/// The sealed groups of all boots.
#[derive(Debug, Default)]
pub(crate) struct Seals {
    up_to: BTreeMap<String, u64>,
    file: Option<File>,
}

fn line(boot: &str, seq: u64) -> String {
    let body = format!("{boot} {seq}");
    let check = &Digest::of(body.as_bytes()).hex()[..16];
    format!("{body} {check}\n")
}

fn parse_line(text: &str) -> Option<(&str, u64)> {
    let (body, check) = text.rsplit_once(' ')?;
    if Digest::of(body.as_bytes()).hex()[..16] != *check {
        return None;
    }
    let (boot, seq) = body.split_once(' ')?;
    Some((boot, seq.parse().ok()?))
}

impl Seals {
    /// Reads the seals; with `write`, also repairs a torn end and compacts a long file.
    pub(crate) fn load(root: &Folder, tmp: Option<&Folder>) -> Result<Seals> {
        let bytes = root.read(SEALS_FILE, SEALS_LIMIT)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let mut seals = Seals::default();
        let mut lines = 0;
        for (boot, seq) in text.lines().filter_map(parse_line) {
            lines += 1;
            let entry = seals.up_to.entry(boot.to_owned()).or_default();
            *entry = seq.max(*entry);
        }
        if let Some(tmp) = tmp
            && lines > COMPACT_LINES.max(2 * seals.up_to.len())
        {
            seals.rewrite(root, tmp)?;
        }
        Ok(seals)
    }

    /// Whether what carries `stamp` survives a power cut.
    pub(crate) fn is_sealed(&self, stamp: &Stamp) -> bool {
        self.sealed_up_to(&stamp.boot) >= stamp.seq
    }

    /// The last sealed group of a boot; groups start at 1.
    pub(crate) fn sealed_up_to(&self, boot: &BootId) -> u64 {
        self.up_to.get(boot.as_str()).copied().unwrap_or(0)
    }

    /// Appends a seal and makes it durable. The caller has made the data durable before.
    pub(crate) fn append(&mut self, root: &Folder, boot: &BootId, seq: u64) -> Result<()> {
        let created = self.file.is_none() && !root.exists(SEALS_FILE)?;
        let mut file = match self.file.take() {
            Some(file) => file,
            None => open_for_append(root)?,
        };
        file.write_all(line(boot.as_str(), seq).as_bytes())
            .map_err(|e| Error::io("write", root.join(SEALS_FILE), e))?;
        failpoint!("seal::append", root.join(SEALS_FILE));
        file.sync_data().map_err(|e| Error::io(crate::store::SYNC, root.join(SEALS_FILE), e))?;
        if created {
            root.sync()?;
        }
        // Kept only after success: after a failed write the end may be torn and needs repair.
        self.file = Some(file);
        self.up_to.insert(boot.as_str().to_owned(), seq);
        Ok(())
    }

    /// Writes the file anew, with what is known and nothing else.
    pub(crate) fn rewrite(&mut self, root: &Folder, tmp: &Folder) -> Result<()> {
        let text: String = self.up_to.iter().map(|(boot, seq)| line(boot, *seq)).collect();
        let temp = TempName::new(tmp, "seals")?;
        let mut file = tmp.create_new(temp.name())?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|e| Error::io("write", tmp.join(temp.name()), e))?;
        tmp.rename(temp.name(), root, SEALS_FILE)?;
        temp.keep();
        // Another file has the name now.
        self.file = None;
        // Later lines go to the new file: its name must be as durable as they are.
        root.sync()
    }
}

/// How many lines of the file cannot be understood. An end without a line feed is what a crash
/// leaves, and does not count; nor do empty lines, which end such a one.
pub(crate) fn unreadable_seals(root: &Folder) -> Result<usize> {
    let bytes = root.read(SEALS_FILE, SEALS_LIMIT)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let bad =
        whole.map(str::trim_end).filter(|line| !line.is_empty() && parse_line(line).is_none());
    Ok(bad.count())
}

fn open_for_append(root: &Folder) -> Result<File> {
    let mut file = root.open_or_create(SEALS_FILE, OFlags::APPEND)?;
    let failed = |e| Error::io("read", root.join(SEALS_FILE), e);
    let length = file.metadata().map_err(failed)?.len();
    if length > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1)).map_err(failed)?;
        file.read_exact(&mut last).map_err(failed)?;
        if last != *b"\n" {
            // A line torn by a crash must not swallow the next one.
            file.write_all(b"\n").map_err(|e| Error::io("write", root.join(SEALS_FILE), e))?;
        }
    }
    Ok(file)
}

/// Which overlay attributes the layers of a state directory carry. Fixed when the directory is
/// made: an opaque directory of the one kind shows deleted files under the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// `trusted.overlay.*`: root of the initial user namespace.
    Trusted,
    /// `user.overlay.*` and mount option `userxattr`: everybody else.
    User,
}

impl StateKind {
    /// `trusted` or `user`.
    pub const fn as_str(self) -> &'static str {
        match self {
            StateKind::Trusted => "trusted",
            StateKind::User => "user",
        }
    }

    /// The prefix of overlayfs' own attributes, to be left out of content digests and layers.
    pub const fn overlay_prefix(self) -> &'static str {
        match self {
            StateKind::Trusted => "trusted.overlay.",
            StateKind::User => "user.overlay.",
        }
    }

    /// The attribute that marks an opaque directory; its value is `y`.
    pub const fn opaque_xattr(self) -> &'static str {
        match self {
            StateKind::Trusted => "trusted.overlay.opaque",
            StateKind::User => "user.overlay.opaque",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<StateKind> {
        [StateKind::Trusted, StateKind::User].into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether this process may write attributes of this kind. Changes nothing: removing one that
    /// is not there is refused to those who may not (xattr(7)), and fails differently for others.
    pub(crate) fn permitted(self, file: &File) -> bool {
        let name = format!("{}probe", self.overlay_prefix());
        let removed = rustix::fs::fremovexattr(file, name.as_str());
        matches!(removed, Ok(()) | Err(rustix::io::Errno::NODATA))
    }

    /// Whether attributes of this kind work on `file`'s file system, for this process.
    pub(crate) fn usable(self, file: &File) -> bool {
        let name = format!("{}probe", self.overlay_prefix());
        let set = rustix::fs::fsetxattr(file, name.as_str(), b"y", rustix::fs::XattrFlags::empty());
        let _ = rustix::fs::fremovexattr(file, name.as_str());
        set.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_ids_are_safe_file_names() {
        for good in [boot_id().unwrap().as_str(), "a", "A-1"] {
            assert!(BootId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "..", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(BootId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn torn_and_damaged_lines_are_ignored_and_do_not_swallow_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::open(dir.path()).unwrap();
        let path = dir.path().join(SEALS_FILE);
        let (a, b) = (BootId::new("a").unwrap(), BootId::new("b").unwrap());
        let torn = &line("a", 9)[..8];
        let forged = line("b", 3).replace(" 3 ", " 7 ");
        std::fs::write(&path, format!("{}{forged}\0\0{torn}", line("a", 2))).unwrap();
        let mut seals = Seals::load(&root, None).unwrap();
        assert_eq!((seals.sealed_up_to(&a), seals.sealed_up_to(&b)), (2, 0));
        seals.append(&root, &b, 1).unwrap();
        let seals = Seals::load(&root, None).unwrap();
        assert_eq!((seals.sealed_up_to(&a), seals.sealed_up_to(&b)), (2, 1));
        assert!(seals.is_sealed(&Stamp { boot: a.clone(), seq: 2 }));
        assert!(!seals.is_sealed(&Stamp { boot: a, seq: 3 }));
    }

    #[test]
    fn a_long_file_is_compacted() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::open(dir.path()).unwrap();
        let path = dir.path().join(SEALS_FILE);
        let text: String = (1..=2000).map(|seq| line(["a", "b"][seq % 2], seq as u64)).collect();
        std::fs::write(&path, text).unwrap();
        let seals = Seals::load(&root, Some(&root)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        let again = Seals::load(&root, None).unwrap();
        for boot in ["a", "b"] {
            let boot = BootId::new(boot).unwrap();
            assert_eq!(seals.sealed_up_to(&boot), again.sealed_up_to(&boot));
            assert!(again.sealed_up_to(&boot) >= 1999);
        }
    }
}
