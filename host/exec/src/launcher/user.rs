//! The stages of a launcher in a user namespace of its own, with the same ids as outside.
//!
//! Only from outside may the ids be mapped, so one process stays there: it starts the next stage, maps
//! the ids when that has entered the namespace, and waits for its end.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::{inner, wire};
use crate::namespace;
use crate::spec::IdMap;
use crate::sys;

/// Argument of the stage that stays outside.
pub(super) const OUTSIDE: &str = "outside";
/// Argument of the stage that enters.
pub(super) const INSIDE: &str = "inside";

/// Starts the next stage and maps its ids.
pub(super) fn outside(subcommand: &OsStr) -> io::Result<i32> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let ids = namespace::same_ids().map_err(io::Error::other)?;
    let (ours, theirs) = wire::pair()?;
    let mut child = Command::new("/proc/self/exe")
        .arg(subcommand)
        .arg(INSIDE)
        .env_clear()
        .stdin(Stdio::inherit())
        .stdout(theirs)
        .spawn()?;
    // Of the socket to the main process only PID 1 keeps an end, so that its death is seen at once.
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
    if let Some((Turn::Entered, _)) = wire::receive(ours.as_fd())? {
        let proc = format!("/proc/{}", child.id());
        fs::write(format!("{proc}/uid_map"), lines(&ids.uids))?;
        fs::write(format!("{proc}/gid_map"), lines(&ids.gids))?;
        wire::send(ours.as_fd(), &Turn::Mapped, &[])?;
    }
    drop(ours);
    Ok(child.wait()?.code().unwrap_or(1))
}

/// Enters the namespace and goes on as an ordinary launcher.
pub(super) fn inside(subcommand: &OsStr) -> io::Result<i32> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // Where this is not allowed, what is there has to do.
    let _ = show_proc();
    sys::unshare(sys::Leave::User)?;
    let outside = rustix::stdio::stdout();
    wire::send(outside, &Turn::Entered, &[])?;
    match wire::receive(outside)? {
        Some((Turn::Mapped, _)) => {}
        _ => return Err(io::Error::other("the ids of the user namespace were not mapped")),
    }
    rustix::stdio::dup2_stdout(fs::File::options().write(true).open("/dev/null")?)?;
    super::outer(subcommand)
}

/// Shows all of `/proc` to this process. A container hides parts of it, which root of the container can
/// undo for itself; inside a further user namespace it cannot be undone, and no `/proc` be mounted.
fn show_proc() -> io::Result<()> {
    sys::unshare(sys::Leave::Mounts)?;
    namespace::make_private()?;
    Ok(inner::mount("proc", "/proc", "proc", inner::PLAIN, "")?)
}

/// Whose turn it is.
#[derive(serde::Serialize, serde::Deserialize)]
enum Turn {
    Entered,
    Mapped,
}

/// As `/proc/<pid>/uid_map` takes them (user_namespaces(7)).
fn lines(maps: &[IdMap]) -> String {
    maps.iter().map(|map| format!("{} {} {}\n", map.inside, map.outside, map.count)).collect()
}
