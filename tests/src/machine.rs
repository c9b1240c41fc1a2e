//! What builds leave on the machine: processes and mounts that know a directory.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use rustix::fs::{FlockOperation, flock};

use crate::run::Run;

/// Processes (`pid: command line`) whose command line, root, working directory or mounts mention
/// this directory or marker. This process is left out.
pub fn traces_of(mark: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return found };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == own || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // A process may end while it is looked at; then there is nothing to see.
        let read = |file: &str| {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let link = |file: &str| {
            let link = std::fs::read_link(entry.path().join(file));
            link.map(|path| path.display().to_string()).unwrap_or_default()
        };
        let command = read("cmdline");
        for (what, text) in [
            ("runs", command.clone()),
            ("has as root", link("root")),
            ("works in", link("cwd")),
            ("has mounted", read("mountinfo")),
        ] {
            if text.contains(mark) {
                found.push(format!("process {name} ({command}) {what} {mark}"));
                break;
            }
        }
    }
    found
}

/// Control groups with the names that steps have, wherever they are: crun makes none for them, runc
/// where it can.
pub fn step_groups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        // A group may go while it is looked at.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            let number = name.strip_prefix("step").unwrap_or_default();
            if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
                found.insert(entry.path());
            }
            folders.push(entry.path());
        }
    }
    found
}

/// Fails if anything on the machine still uses this directory or marker; waits a little, because
/// the kernel ends a process group in its own time.
pub fn nothing_left(mark: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let traces = traces_of(mark);
        if traces.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "left behind:\n{}", traces.join("\n"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The right to register handlers for programs of other processors for the whole machine
/// (exclusive), or to rely on there being none (shared). Until what is returned is dropped.
pub fn handlers(how: FlockOperation) -> Result<File> {
    // One for all copies of these tests.
    let path = std::env::temp_dir().join("wbuild-test-handlers.lock");
    let lock = File::open(&path).or_else(|_| File::create(&path))?;
    flock(&lock, how)?;
    Ok(lock)
}

/// Files below a directory that contain a text.
pub fn files_with(folder: &Path, text: &str) -> Result<String> {
    let mut command = if crate::skip::is_root() {
        Command::new("grep")
    } else {
        // The files of an ordinary user's builds belong to other ids of theirs.
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--map-auto", "grep"]);
        command
    };
    command.args(["-r", "-l", "-F", "-D", "skip", "-e", text]).arg(folder);
    let run = Run::of(&mut command)?;
    // 1 says that there is none, 2 that it could not look everywhere.
    let code = i32::from(run.stdout.is_empty());
    Ok(run.expect(code)?.text()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_there() {
        let folder = tempfile::tempdir().expect("a directory");
        let mark = folder.path().display().to_string();
        nothing_left(&mark).expect("nothing uses it yet");
        let mut sleeper = std::process::Command::new("sleep")
            .arg("100")
            .current_dir(folder.path())
            .spawn()
            .expect("sleep runs");
        assert_eq!(traces_of(&mark).len(), 1);
        sleeper.kill().and_then(|()| sleeper.wait()).expect("it ends");
        std::fs::write(folder.path().join("x"), "a needle b").expect("writable");
        assert!(files_with(folder.path(), "needle").expect("readable").ends_with("/x\n"));
        assert_eq!(files_with(folder.path(), "thread").expect("readable"), "");
    }
}
