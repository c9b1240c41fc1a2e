//! What builds leave on the machine: processes and mounts that know a directory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

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

/// Whether any file below a directory contains these bytes; its path if so.
pub fn find_bytes(folder: &Path, needle: &[u8]) -> Result<Option<std::path::PathBuf>> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path())?;
                if bytes.windows(needle.len()).any(|window| window == needle) {
                    return Ok(Some(entry.path()));
                }
            }
        }
    }
    Ok(None)
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
        assert!(find_bytes(folder.path(), b"needle").expect("readable").is_some());
        assert!(find_bytes(folder.path(), b"thread").expect("readable").is_none());
    }
}
