//! The state directory's lock: one process builds at a time, others wait and know for whom.
//!
//! The lock is `flock(2)` on the file `lock`, so it ends with its holder however that dies. The
//! file's text says who holds it; it is information for people, never a condition.

use std::fmt;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::files::Folder;

const LOCK_FILE: &str = "lock";
/// The text always has this size: truncating the file would make some file systems write it out
/// at once.
const TEXT_SIZE: usize = 512;
/// Short at first, since most builds are; bounded, so that the turn is taken quickly.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Called while waiting, with the holder and the time waited so far; `Break` gives up.
pub type WaitCallback = Box<dyn FnMut(&LockHolder, Duration) -> ControlFlow<()> + Send>;

/// What to do when another process holds the state directory.
pub enum LockWait {
    /// Fail at once.
    Fail,
    /// Wait at most this long.
    Timeout(Duration),
    /// Ask again and again (about ten times a second).
    Callback(WaitCallback),
}

impl fmt::Debug for LockWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockWait::Fail => f.write_str("Fail"),
            LockWait::Timeout(time) => f.debug_tuple("Timeout").field(time).finish(),
            LockWait::Callback(_) => f.write_str("Callback"),
        }
    }
}

/// Who holds a state directory, in the holder's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockHolder {
    /// Its process id, if it has written it yet.
    pub pid: Option<u32>,
    /// Its command line or other description.
    pub command: String,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, self.command.as_str()) {
            (None, _) => f.write_str("another process"),
            (Some(pid), "") => write!(f, "process {pid}"),
            (Some(pid), command) => write!(f, "process {pid} ({command})"),
        }
    }
}

impl LockHolder {
    fn parse(text: &str) -> LockHolder {
        let mut lines = text.lines();
        let pid = lines.next().and_then(|line| line.strip_prefix("pid ")?.parse().ok());
        let command = lines.next().and_then(|line| line.strip_prefix("command "));
        LockHolder { pid, command: command.unwrap_or_default().to_owned() }
    }

    /// Whether the holder is this process or one of its ancestors.
    fn is_ancestor(&self) -> bool {
        let Some(pid) = self.pid else { return false };
        let mut current = std::process::id();
        // A chain of parents is short; the bound only guards against a strange /proc.
        for _ in 0..1000 {
            if current == pid {
                return true;
            }
            match parent_of(current) {
                Some(parent) if parent != 0 => current = parent,
                _ => return false,
            }
        }
        false
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// The held lock; released on drop.
#[derive(Debug)]
pub(crate) struct StateLock {
    file: File,
}

impl StateLock {
    /// Takes the lock, waiting as `wait` says.
    pub(crate) fn acquire(root: &Folder, owner: &str, mut wait: LockWait) -> Result<StateLock> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut suspected = false;
        loop {
            let file = root.open_or_create(LOCK_FILE, OFlags::empty())?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(StateLock::announce(file, owner)),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(errno) => return Err(root.error("lock", LOCK_FILE, errno)),
            }
            let holder = read_holder(&file);
            let path = root.path().to_path_buf();
            if holder.is_ancestor() {
                // The text may be one moment older than the lock, and then speak of somebody else.
                if suspected {
                    return Err(Error::LockedByAncestor { path, holder });
                }
                suspected = true;
                std::thread::sleep(pause);
                continue;
            }
            let waited = started.elapsed();
            match &mut wait {
                LockWait::Fail => return Err(Error::Locked { path, holder }),
                LockWait::Timeout(limit) if waited >= *limit => {
                    return Err(Error::Locked { path, holder });
                }
                LockWait::Timeout(_) => {}
                LockWait::Callback(ask) => {
                    if ask(&holder, waited).is_break() {
                        return Err(Error::Cancelled { what: format!("{holder}") });
                    }
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn announce(file: File, owner: &str) -> StateLock {
        let owner: String = owner.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = format!("pid {}\ncommand {owner}", std::process::id());
        let mut end = text.len().min(TEXT_SIZE - 1);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        write_text(&file, &text[..end]);
        StateLock { file }
    }
}

/// A full disk must not keep a prune from running: the text is a courtesy.
fn write_text(file: &File, text: &str) {
    let mut bytes = [b'\n'; TEXT_SIZE];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    let _ = file.write_all_at(&bytes, 0);
}

impl Drop for StateLock {
    fn drop(&mut self) {
        write_text(&self.file, "free");
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

fn read_holder(file: &File) -> LockHolder {
    let mut buffer = [0; TEXT_SIZE];
    let count = file.read_at(&mut buffer, 0).unwrap_or(0);
    LockHolder::parse(&String::from_utf8_lossy(&buffer[..count]))
}

/// Who holds the state directory at this moment, if anybody does.
pub(crate) fn current_holder(root: &Folder) -> Result<Option<LockHolder>> {
    let Some(file) = root.try_open(LOCK_FILE)? else { return Ok(None) };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            let _ = rustix::fs::flock(&file, FlockOperation::Unlock);
            Ok(None)
        }
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(Some(read_holder(&file))),
        Err(errno) => Err(root.error("lock", LOCK_FILE, errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        (dir, folder)
    }

    #[test]
    fn holder_text_round_trips_and_survives_nonsense() {
        for (text, pid, command) in [
            ("pid 12\ncommand wbuild .\n", Some(12), "wbuild ."),
            ("", None, ""),
            ("pid x\n", None, ""),
            ("pid 5", Some(5), ""),
        ] {
            let holder = LockHolder::parse(text);
            assert_eq!((holder.pid, holder.command.as_str()), (pid, command), "{text:?}");
        }
    }

    #[test]
    fn a_process_meets_its_own_lock_at_once() {
        let (_dir, folder) = folder();
        let held = StateLock::acquire(&folder, "first\nbuild", LockWait::Fail).unwrap();
        let error =
            StateLock::acquire(&folder, "second", LockWait::Timeout(Duration::from_secs(60)));
        match error.unwrap_err() {
            Error::LockedByAncestor { holder, .. } => assert_eq!(holder.command, "first build"),
            other => panic!("{other}"),
        }
        drop(held);
        StateLock::acquire(&folder, "third", LockWait::Fail).unwrap();
    }

    #[test]
    fn waiting_tells_for_whom_and_can_be_given_up() {
        let (_dir, folder) = folder();
        let held = StateLock::acquire(&folder, "x", LockWait::Fail).unwrap();
        // Another process's text: this one must not be taken for an ancestor.
        write_text(&held.file, "pid 4194304\ncommand other build");
        let mut seen = Vec::new();
        let (sender, receiver) = std::sync::mpsc::channel();
        let wait = LockWait::Callback(Box::new(move |holder, _| {
            sender.send(holder.to_string()).unwrap();
            ControlFlow::Break(())
        }));
        let error = StateLock::acquire(&folder, "y", wait).unwrap_err();
        assert!(matches!(error, Error::Cancelled { .. }), "{error}");
        seen.extend(receiver.try_iter());
        assert_eq!(seen, ["process 4194304 (other build)"]);
        let error = StateLock::acquire(&folder, "y", LockWait::Timeout(Duration::from_millis(10)));
        assert!(matches!(error, Err(Error::Locked { .. })));
    }
}
