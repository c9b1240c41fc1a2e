//! Noticing changes of files: by looking at them, often enough for a person.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(300);
/// Most files that are looked at; what is beyond is not noticed.
const FILES: usize = 50_000;

/// What files looked like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<PathBuf, (u64, Option<SystemTime>)>);

/// Looks at all files below some folders, without what tools leave behind.
pub fn look(folders: &[&Path]) -> Seen {
    let mut seen = Seen::default();
    for folder in folders {
        collect(folder, &mut seen.0, 0);
    }
    seen
}

/// Waits until something differs, and answers what is there then. `go_on` is asked each time.
pub fn wait(folders: &[&Path], before: &Seen, mut go_on: impl FnMut() -> bool) -> Option<Seen> {
    while go_on() {
        std::thread::sleep(EVERY);
        let now = look(folders);
        if now != *before {
            // An editor or a checkout may be in the middle of it.
            std::thread::sleep(EVERY);
            return Some(look(folders));
        }
    }
    None
}

fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, (u64, Option<SystemTime>)>, depth: usize) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = ["build", "target", "node_modules", ".venv", "__pycache__", ".git"];
        if ours.iter().any(|skipped| name == *skipped) || files.len() >= FILES {
            continue;
        }
        let path = entry.path();
        // Links are followed: the layer of a language may be one.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if !metadata.is_dir() {
            files.insert(path, (metadata.len(), metadata.modified().ok()));
        } else if depth < 32 {
            collect(&path, files, depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_noticed_and_what_tools_make_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("src")).expect("made");
        std::fs::create_dir_all(at("build")).expect("made");
        std::fs::write(at("src/a"), "1").expect("written");
        let first = look(&[folder.path()]);
        std::fs::write(at("build/x.wasm"), "1").expect("written");
        assert_eq!(look(&[folder.path()]), first);
        std::fs::write(at("src/a"), "12").expect("written");
        let second = look(&[folder.path()]);
        assert_ne!(second, first);
        assert_eq!(wait(&[folder.path()], &first, || true), Some(second.clone()));
        assert_eq!(wait(&[folder.path()], &second, || false), None);
        std::fs::remove_file(at("src/a")).expect("removed");
        assert_ne!(look(&[folder.path()]), second);
    }
}
