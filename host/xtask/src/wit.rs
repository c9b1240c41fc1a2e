//! Keeps `wit/CHANGES.md` in step with the WIT files.
//!
//! A plugin is compiled against these files by people we do not know, so no change to them may go
//! by unnoticed. The newest entry of `wit/CHANGES.md` (the first `## ` section) therefore lists
//! the SHA-256 of every WIT file. A test compares; [`record`] adds a line that says what changed
//! and renews the hashes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::{read_text, write_if_changed};

/// The packages, in an order in which each uses only earlier ones. Each lies in
/// `wit/<package>/<package>.wit`.
pub const PACKAGES: [&str; 4] = ["types", "frontend", "runner", "cache"];

/// Fails if the newest entry of the change list is not about the files as they are.
pub fn check(root: &Path) -> Result<()> {
    let changes = read_text(&change_list(root))?;
    let listed = listed_hashes(newest_entry(&changes)?)?;
    let present = hashes(root)?;
    if listed == present {
        return Ok(());
    }
    let differing: Vec<&str> = listed
        .iter()
        .chain(&present)
        .filter(|(file, hash)| listed.get(*file) != Some(hash) || present.get(*file) != Some(hash))
        .map(|(file, _)| file.as_str())
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    bail!(
        "wit/CHANGES.md does not list the present text of {}: say what changed, with `cargo xtask wit \"<what changed, and why>\"`",
        differing.join(", ")
    )
}

/// Adds `text` to the newest entry and renews its hashes.
pub fn record(root: &Path, text: &str) -> Result<()> {
    let path = change_list(root);
    let changes = read_text(&path)?;
    let renewed = with_change(&changes, text, &hashes(root)?)?;
    write_if_changed(&path, renewed.as_bytes())?;
    Ok(())
}

/// Writes `package` and the packages it uses to `folder` in the layout that single-folder tools
/// want: the package itself at the top, the used ones below `deps/`.
pub fn copy(root: &Path, package: &str, folder: &Path) -> Result<()> {
    if !PACKAGES.contains(&package) {
        bail!("no package {package} in wit/; there are {}", PACKAGES.join(", "));
    }
    let text = read_text(&file_of(root, package))?;
    write_if_changed(&folder.join(format!("{package}.wit")), text.as_bytes())?;
    for used in PACKAGES {
        if used != package && text.contains(&format!("wbuild:{used}/")) {
            let text = read_text(&file_of(root, used))?;
            write_if_changed(&folder.join(format!("deps/{used}/{used}.wit")), text.as_bytes())?;
        }
    }
    Ok(())
}

fn change_list(root: &Path) -> PathBuf {
    root.join("wit/CHANGES.md")
}

fn file_of(root: &Path, package: &str) -> PathBuf {
    root.join("wit").join(package).join(format!("{package}.wit"))
}

/// The hash of every WIT file, by its path below `wit/`.
fn hashes(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut hashes = BTreeMap::new();
    let folder = root.join("wit");
    let mut folders = vec![folder.clone()];
    while let Some(next) = folders.pop() {
        let entries =
            std::fs::read_dir(&next).with_context(|| format!("cannot list {}", next.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot list {}", next.display()))?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "wit") {
                let bytes = std::fs::read(&path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                let name =
                    path.strip_prefix(&folder).expect("found below it").display().to_string();
                hashes.insert(name, format!("{:x}", Sha256::digest(&bytes)));
            }
        }
    }
    Ok(hashes)
}

/// The first `## ` section.
fn newest_entry(changes: &str) -> Result<&str> {
    let start = match changes.find("\n## ") {
        Some(at) => at + 1,
        None if changes.starts_with("## ") => 0,
        None => bail!("wit/CHANGES.md has no entry (a line that starts with `## `)"),
    };
    let entry = &changes[start..];
    Ok(entry.find("\n## ").map_or(entry, |end| &entry[..=end]))
}

/// The lines `sha256 <hash> <file>` of an entry.
fn listed_hashes(entry: &str) -> Result<BTreeMap<String, String>> {
    let mut hashes = BTreeMap::new();
    for line in entry.lines() {
        let Some(rest) = line.strip_prefix("sha256 ") else { continue };
        let (hash, file) = rest
            .split_once(' ')
            .with_context(|| format!("wit/CHANGES.md: cannot make sense of `{line}`"))?;
        hashes.insert(file.to_owned(), hash.to_owned());
    }
    Ok(hashes)
}

/// The change list with one line more, and other hashes, in its newest entry.
///
/// An entry is a heading, text and list items, and a fenced block of hashes that ends it.
fn with_change(changes: &str, text: &str, hashes: &BTreeMap<String, String>) -> Result<String> {
    let text = text.trim();
    if text.is_empty() || text.contains('\n') {
        bail!("a change is said in one line of text");
    }
    let entry = newest_entry(changes)?;
    let block = entry
        .find("```text\n")
        .context("the newest entry of wit/CHANGES.md has no block of hashes (```text)")?;
    let mut renewed = entry[..block].trim_end().to_owned();
    // A list continues without a blank line, and starts after one.
    let continues =
        renewed.lines().last().is_some_and(|line| line.starts_with("- ") || line.starts_with("  "));
    let _ = write!(renewed, "{}- {text}\n\n```text\n", if continues { "\n" } else { "\n\n" });
    for (file, hash) in hashes {
        let _ = writeln!(renewed, "sha256 {hash} {file}");
    }
    renewed.push_str("```\n");
    let start = entry.as_ptr() as usize - changes.as_ptr() as usize;
    let rest = &changes[start + entry.len()..];
    let gap = if rest.is_empty() { "" } else { "\n" };
    Ok(format!("{}{renewed}{gap}{rest}", &changes[..start]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# Changes\n\n## 0.2.0\n\nText.\n\n```text\nsha256 aa a/a.wit\n```\n\n## 0.1.0\n\n- old\n\n```text\nsha256 00 a/a.wit\n```\n";

    #[test]
    fn only_the_newest_entry_counts() {
        let hashes = listed_hashes(newest_entry(LIST).expect("entry")).expect("hashes");
        assert_eq!(hashes, BTreeMap::from([("a/a.wit".to_owned(), "aa".to_owned())]));
    }

    #[test]
    fn a_change_is_listed_and_nothing_else_moves() {
        let hashes = BTreeMap::from([("a/a.wit".to_owned(), "bb".to_owned())]);
        let once = with_change(LIST, "first", &hashes).expect("once");
        assert_eq!(once, LIST.replace("Text.\n", "Text.\n\n- first\n").replace("aa", "bb"));
        let twice = with_change(&once, "second", &hashes).expect("twice");
        assert_eq!(twice, once.replace("- first\n", "- first\n- second\n"));
        assert!(with_change(LIST, "  ", &hashes).is_err());
        assert!(with_change("# Changes\n", "x", &hashes).is_err());
    }

    #[test]
    fn the_change_list_is_about_the_files_as_they_are() {
        check(&crate::workspace_root()).expect("listed");
    }

    #[test]
    fn a_copy_holds_what_the_package_uses() {
        let folder = std::env::temp_dir().join(format!("xtask-wit-{}", std::process::id()));
        copy(&crate::workspace_root(), "cache", &folder).expect("copied");
        assert!(folder.join("cache.wit").is_file());
        assert!(folder.join("deps/types/types.wit").is_file());
        assert!(!folder.join("deps/cache").exists());
        std::fs::remove_dir_all(&folder).expect("remove");
        assert!(copy(&crate::workspace_root(), "nope", &folder).is_err());
    }
}
