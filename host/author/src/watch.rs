//! Noticing changes of files: by looking at them, often enough for a person.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::project::Project;

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(300);
/// Most files that are looked at; what is beyond is not noticed.
const FILES: usize = 50_000;

/// What files looked like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<PathBuf, (u64, Option<SystemTime>)>);

/// Looks at files, and at all files below folders, without what tools leave behind and without
/// `results` (absolute paths).
pub fn look(places: &[&Path], results: &[PathBuf]) -> Seen {
    let mut seen = Seen::default();
    for place in places {
        if let Ok(place) = std::path::absolute(place) {
            note(&place, results, &mut seen.0, 0);
        }
    }
    seen
}

/// Waits until something differs.
pub fn wait(places: &[&Path], results: &[PathBuf], before: &Seen) {
    while look(places, results) == *before {
        std::thread::sleep(EVERY);
    }
    // An editor or a checkout may be in the middle of it.
    std::thread::sleep(EVERY);
}

/// A file of a project that has changed since its component was built, if there is one: also one that was
/// moved or copied there with an old time. What takes no part in the component is left out.
pub fn changed(project: &Project) -> Option<PathBuf> {
    let built = std::fs::metadata(project.component()).ok()?;
    let built = (built.ctime(), built.ctime_nsec());
    let others = ["tests", "example", "out"].map(|name| project.folder.join(name));
    let Seen(files) = look(&[&project.folder], &others);
    files.into_keys().find(|path| {
        let is_prose = path.extension().is_some_and(|end| end == "md");
        let file = std::fs::metadata(path);
        !is_prose && file.is_ok_and(|file| (file.ctime(), file.ctime_nsec()) > built)
    })
}

type Files = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

fn note(path: &Path, results: &[PathBuf], files: &mut Files, depth: usize) {
    if files.len() >= FILES || depth > 32 || results.iter().any(|result| path == result) {
        return;
    }
    // Links are followed: the layer of a language may be one.
    let Ok(metadata) = std::fs::metadata(path) else { return };
    if !metadata.is_dir() {
        files.insert(path.to_owned(), (metadata.len(), metadata.modified().ok()));
        return;
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let tools = ["build", "target", "node_modules", ".venv", "__pycache__", ".git"];
        if !tools.iter().any(|tool| name == *tool) {
            note(&entry.path(), results, files, depth + 1);
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
        let results = [at("out")];
        let see = || look(&[folder.path()], &results);
        let first = see();
        std::fs::write(at("build/x.wasm"), "1").expect("written");
        std::fs::create_dir_all(at("out")).expect("made");
        std::fs::write(at("out/x"), "1").expect("written");
        assert_eq!(see(), first);
        std::fs::write(at("src/a"), "12").expect("written");
        let second = see();
        assert_ne!(second, first);
        wait(&[folder.path()], &results, &first);
        assert_eq!(see(), second);
        std::fs::remove_file(at("src/a")).expect("removed");
        assert_ne!(see(), second);
        // A file by itself.
        let file = at("build/x.wasm");
        let single = look(&[&file], &[]);
        std::fs::write(&file, "123").expect("written");
        assert_ne!(look(&[&file], &[]), single);
    }
}
