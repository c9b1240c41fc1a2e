//! The namespaces the main process itself lives in.
//!
//! Mounts made while building are for this process and what it starts, so it leaves the machine's
//! mount namespace first. As root that is all. An ordinary user also gets a user namespace, in which
//! it may mount and own files of more than one user; all of the store's I/O then happens inside it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::MountPropagationFlags;
use wbuild_graph::{Failure, FailureKind};

use crate::fail::OrFail;
use crate::runtime::find_program;
use crate::spec::{IdMap, UserNamespace};
use crate::sys;

/// What [`enter`] has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// A private mount namespace, as root of the machine.
    Root,
    /// A user namespace with its own mount namespace.
    User {
        /// Users inside (from 0) to users outside.
        uids: Vec<IdMap>,
        /// Groups inside to groups outside.
        gids: Vec<IdMap>,
        /// Why there is only one user, if so; for a hint when a step needs more.
        single: Option<String>,
    },
}

impl Entered {
    /// The user namespace each step needs: none as root, else the same ids once more. Extents are
    /// cut where the outer ones are, since the kernel refuses one that spans two.
    pub fn step_user_namespace(&self) -> Option<UserNamespace> {
        let again =
            |maps: &[IdMap]| maps.iter().map(|map| IdMap { outside: map.inside, ..*map }).collect();
        match self {
            Entered::Root => None,
            Entered::User { uids, gids, .. } => {
                Some(UserNamespace { uids: again(uids), gids: again(gids) })
            }
        }
    }
}

/// A user namespace inside the one of this process, with the same ids. Where the extents end is as
/// outside, since the kernel refuses one that spans two.
pub fn same_ids() -> Result<UserNamespace, Failure> {
    let same = |file: &str| -> Result<Vec<IdMap>, Failure> {
        Ok(own_map(file)?.iter().map(|map| IdMap { outside: map.inside, ..*map }).collect())
    };
    Ok(UserNamespace { uids: same("/proc/self/uid_map")?, gids: same("/proc/self/gid_map")? })
}

/// Enters the namespaces for building. Must be called before any thread is started.
///
/// `search` are directories with programs, for `newuidmap` and `newgidmap`.
pub fn enter(search: &[PathBuf]) -> Result<Entered, Failure> {
    let threads = status_field("Threads")?;
    if threads != "1" {
        return Err(Failure::internal(format!(
            "namespaces must be entered before threads are started; there are {threads}"
        )));
    }
    if rustix::process::geteuid().is_root() {
        match sys::unshare(sys::Leave::Mounts) {
            Ok(()) => {
                make_private().or_fail("make the mount namespace private")?;
                return already();
            }
            // Root of a container without the capability; a user namespace may still be had.
            Err(rustix::io::Errno::PERM) => {}
            Err(errno) => return Err(errno).or_fail("leave the machine's mount namespace"),
        }
    }
    enter_user(search)
}

/// What root is root of: the machine, or a user namespace that somebody else has made.
fn already() -> Result<Entered, Failure> {
    let (uids, gids) = (own_map("/proc/self/uid_map")?, own_map("/proc/self/gid_map")?);
    let whole = IdMap { inside: 0, outside: 0, count: u32::MAX };
    if uids == [whole] {
        return Ok(Entered::Root);
    }
    let one = uids.iter().map(|map| u64::from(map.count)).sum::<u64>() == 1;
    let single = one.then(|| "the user namespace around this process has one user".to_owned());
    Ok(Entered::User { uids, gids, single })
}

fn own_map(file: &str) -> Result<Vec<IdMap>, Failure> {
    let text = std::fs::read_to_string(file).or_fail(format_args!("read {file}"))?;
    parse_map(&text).ok_or_else(|| Failure::internal(format!("{file} is not understood")))
}

/// Reads `/proc/<pid>/uid_map` (user_namespaces(7)).
fn parse_map(text: &str) -> Option<Vec<IdMap>> {
    text.lines()
        .map(|line| {
            let numbers: Vec<u32> =
                line.split_ascii_whitespace().map(|n| n.parse().ok()).collect::<Option<_>>()?;
            let &[inside, outside, count] = numbers.as_slice() else { return None };
            Some(IdMap { inside, outside, count })
        })
        .collect()
}

/// Makes every mount of this mount namespace private: what happens here stays here.
pub(crate) fn make_private() -> rustix::io::Result<()> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags)
}

fn status_field(name: &str) -> Result<String, Failure> {
    let status = std::fs::read_to_string("/proc/self/status").or_fail("read /proc/self/status")?;
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value
        .map(|value| value.trim().to_owned())
        .ok_or_else(|| Failure::internal(format!("/proc/self/status has no {name}")))
}

fn enter_user(search: &[PathBuf]) -> Result<Entered, Failure> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // The helper must stay outside: only from there may newuidmap write the maps of this process.
    let ranges = Ranges::find(uid, gid, search);
    let helper = match &ranges {
        Ok(ranges) => Some(ranges.start_helper()?),
        Err(_) => None,
    };
    sys::unshare(sys::Leave::UserAndMounts).map_err(|errno| {
        Failure::new(FailureKind::Unavailable, "cannot enter a user namespace")
            .cause(&errno)
            .hint("allow user namespaces for ordinary users: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns")
            .hint("or run as root; in a container, give that CAP_SYS_ADMIN and a user namespace of its own")
    })?;
    let mapped = match (ranges, helper) {
        (Ok(ranges), Some(helper)) => helper.finish().map(|()| ranges).map_err(|f| f.to_string()),
        (Err(why), _) => Err(why.to_string()),
        (Ok(_), None) => Err("no helper".to_owned()),
    };
    let entered = match mapped {
        Ok(ranges) => Entered::User { uids: ranges.uids, gids: ranges.gids, single: None },
        Err(why) => {
            let write = |file: &str, text: String| {
                std::fs::write(file, text).or_fail(format_args!("write {file}"))
            };
            // Without privilege a group map is taken only once setgroups(2) is off.
            write("/proc/self/setgroups", "deny".to_owned())?;
            write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            write("/proc/self/gid_map", format!("0 {gid} 1"))?;
            let one = |outside| vec![IdMap { inside: 0, outside, count: 1 }];
            Entered::User { uids: one(uid), gids: one(gid), single: Some(why) }
        }
    };
    make_private().or_fail("make the mount namespace private")?;
    Ok(entered)
}

/// Why a user has no ids besides its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// This program is not installed.
    Program(&'static str),
    /// No range is set aside for the user: in which file, and why.
    Range(String),
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lack::Program(name) => write!(f, "{name} is not installed"),
            Lack::Range(why) => f.write_str(why),
        }
    }
}

/// Whether this user has ids besides its own, and all that it takes to use them; otherwise what
/// lacks.
pub(crate) fn subordinate_ids(search: &[PathBuf]) -> Result<(), Lack> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Ranges::find(uid, gid, search).map(|_| ())
}

/// The ids an ordinary user may use besides its own.
struct Ranges {
    uids: Vec<IdMap>,
    gids: Vec<IdMap>,
    newuidmap: PathBuf,
    newgidmap: PathBuf,
}

impl Ranges {
    fn find(uid: u32, gid: u32, search: &[PathBuf]) -> Result<Ranges, Lack> {
        let tool = |name: &'static str| find_program(name, search).ok_or(Lack::Program(name));
        let (newuidmap, newgidmap) = (tool("newuidmap")?, tool("newgidmap")?);
        let name = std::fs::read_to_string("/etc/passwd").ok().and_then(|p| user_name(&p, uid));
        let maps = |file: &str, own: u32| {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Lack::Range(format!("{file}: {error}")))?;
            let ranges = subordinate(&text, uid, name.as_deref());
            if ranges.is_empty() {
                return Err(Lack::Range(format!("{file} has no line for this user")));
            }
            Ok(layout(own, &ranges))
        };
        Ok(Ranges {
            uids: maps("/etc/subuid", uid)?,
            gids: maps("/etc/subgid", gid)?,
            newuidmap,
            newgidmap,
        })
    }

    /// Starts a shell that waits for a line and then writes the maps.
    fn start_helper(&self) -> Result<Helper, Failure> {
        let pid = std::process::id().to_string();
        let command = |tool: &Path, maps: &[IdMap]| {
            let mut words = vec![tool.display().to_string(), pid.clone()];
            for map in maps {
                words.extend([map.inside, map.outside, map.count].map(|n| n.to_string()));
            }
            words
        };
        let first = command(&self.newuidmap, &self.uids);
        let second = command(&self.newgidmap, &self.gids);
        // Words come as arguments, so nothing in them is ever read as shell syntax.
        let script = "read -r go && exec \"$@\"";
        let run = |words: &[String]| {
            Command::new("/bin/sh")
                .arg("-c")
                .arg(script)
                .arg("sh")
                .args(words)
                .env_clear()
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .or_fail("start a helper for newuidmap")
        };
        Ok(Helper { children: vec![run(&first)?, run(&second)?] })
    }
}

/// Waiting processes outside the namespace.
struct Helper {
    children: Vec<std::process::Child>,
}

impl Helper {
    fn finish(self) -> Result<(), Failure> {
        for mut child in self.children {
            let mut stdin = child.stdin.take().expect("it was piped");
            stdin.write_all(b"go\n").or_fail("wake the helper for newuidmap")?;
            drop(stdin);
            let output = child.wait_with_output().or_fail("wait for newuidmap")?;
            if !output.status.success() {
                let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(Failure::new(
                    FailureKind::Denied,
                    format!("newuidmap failed: {words}"),
                ));
            }
        }
        Ok(())
    }
}

/// The login name of a user (passwd(5)).
fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>() == Ok(uid)).then(|| name.to_owned())
    })
}

/// A user's lines of subuid(5) or subgid(5): first id and count.
fn subordinate(text: &str, uid: u32, name: Option<&str>) -> Vec<(u32, u32)> {
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.trim().split(':').collect();
            let &[owner, start, count] = fields.as_slice() else { return None };
            let mine = Some(owner) == name || owner.parse::<u32>() == Ok(uid);
            let (start, count) = (start.parse::<u32>().ok()?, count.parse::<u32>().ok()?);
            let sane = count > 0 && start > 0 && start.checked_add(count).is_some();
            (mine && sane).then_some((start, count))
        })
        .collect()
}

/// Own id as 0, then the ranges one after the other.
fn layout(own: u32, ranges: &[(u32, u32)]) -> Vec<IdMap> {
    let mut maps = vec![IdMap { inside: 0, outside: own, count: 1 }];
    let mut inside = 1u32;
    for (outside, count) in ranges {
        // The range of ids is finite, however many lines there are.
        let Some(next) = inside.checked_add(*count) else { break };
        maps.push(IdMap { inside, outside: *outside, count: *count });
        inside = next;
    }
    maps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lays_out_subordinate_ids() {
        let text = "# none\nother:1:5\nme:100000:65536\n1000:300000:10\nme:0:5\nme:5:0\nme:4294967295:9\nme:x:y\n";
        let ranges = subordinate(text, 1000, Some("me"));
        assert_eq!(ranges, [(100_000, 65_536), (300_000, 10)]);
        let maps = layout(1000, &ranges);
        let plain: Vec<_> = maps.iter().map(|m| (m.inside, m.outside, m.count)).collect();
        assert_eq!(plain, [(0, 1000, 1), (1, 100_000, 65_536), (65_537, 300_000, 10)]);
        let entered = Entered::User { uids: maps.clone(), gids: maps, single: None };
        let step = entered.step_user_namespace().unwrap();
        let plain: Vec<_> = step.uids.iter().map(|m| (m.inside, m.outside, m.count)).collect();
        assert_eq!(plain, [(0, 0, 1), (1, 1, 65_536), (65_537, 65_537, 10)]);
        assert_eq!(Entered::Root.step_user_namespace(), None);
    }

    #[test]
    fn reads_maps() {
        let map = |inside, outside, count| IdMap { inside, outside, count };
        let text = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(parse_map(text), Some(vec![map(0, 1000, 1), map(1, 100_000, 65_536)]));
        assert_eq!(parse_map("0 0 4294967295\n"), Some(vec![map(0, 0, u32::MAX)]));
        assert_eq!(parse_map("0 0\n"), None);
    }

    #[test]
    fn finds_login_names() {
        let passwd = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("me"));
        assert_eq!(user_name(passwd, 7), None);
    }
}
