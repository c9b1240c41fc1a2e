//! What a commit holds, checked before anything of it is written.

use std::collections::BTreeSet;

use wbuild_graph::{Failure, FailureKind};

use crate::name::ObjectId;
use crate::program::{Input, Limits};
use crate::repository::Repository;

/// Longest path, in bytes.
const LONGEST: usize = 4096;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A link.
    Link,
    /// A commit of another repository.
    Submodule,
}

/// An entry of a tree that is no directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From the top of the commit.
    pub path: Vec<u8>,
    /// See [`EntryKind`].
    pub kind: EntryKind,
    /// A blob, or a submodule's commit.
    pub id: ObjectId,
    /// In bytes, as it is stored; 0 for submodules.
    pub size: u64,
}

/// The entries of a commit below a directory: paths are clean and never lead through a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Sorted by path.
    pub entries: Vec<Entry>,
}

impl Tree {
    /// Reads the output of `git ls-tree -r -l -z`.
    ///
    /// # Errors
    /// `Denied` for names that could lead elsewhere, `Limit` if there is too much of something.
    pub fn parse(output: &[u8], limits: &Limits) -> Result<Tree, Failure> {
        let mut entries = Vec::new();
        let mut bytes = 0_u64;
        for line in output.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            let entry = parse_line(line)?;
            bytes = bytes.saturating_add(entry.size);
            if bytes > limits.tree {
                let message =
                    format!("the files of the commit have more than {} bytes", limits.tree);
                return Err(Failure::new(FailureKind::Limit, message));
            }
            if entries.len() == limits.entries {
                let message = format!("the commit has more than {} entries", limits.entries);
                return Err(Failure::new(FailureKind::Limit, message));
            }
            entries.push(entry);
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let leaves: BTreeSet<&[u8]> = entries.iter().map(|entry| &*entry.path).collect();
        if leaves.len() != entries.len() {
            return Err(denied("two entries of one name", b""));
        }
        for entry in &entries {
            let slashes = entry.path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            if slashes.map(|(at, _)| &entry.path[..at]).any(|above| leaves.contains(above)) {
                return Err(denied("an entry below one that is no directory", &entry.path));
            }
        }
        Ok(Tree { entries })
    }

    /// Those of a kind.
    pub fn of_kind(&self, kind: EntryKind) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.kind == kind)
    }
}

fn denied(what: &str, path: &[u8]) -> Failure {
    let path = String::from_utf8_lossy(path);
    Failure::new(FailureKind::Denied, format!("the commit holds {what} ({path:?})"))
}

/// `<mode> SP <type> SP <id> SP <size> TAB <path>`.
fn parse_line(line: &[u8]) -> Result<Entry, Failure> {
    let malformed = || Failure::internal("git lists a tree in an unknown form");
    let tab = line.iter().position(|byte| *byte == b'\t').ok_or_else(malformed)?;
    let facts = std::str::from_utf8(&line[..tab]).map_err(|_| malformed())?;
    let path = &line[tab + 1..];
    let mut words = facts.split_ascii_whitespace();
    let mut word = || words.next().ok_or_else(malformed);
    let (mode, _, id, size) = (word()?, word()?, word()?, word()?);
    let kind = match mode {
        "160000" => EntryKind::Submodule,
        "120000" => EntryKind::Link,
        mode if mode.starts_with("100") => EntryKind::File,
        _ => return Err(denied(&format!("an entry of the unknown mode {mode}"), path)),
    };
    let size = match kind {
        EntryKind::Submodule => 0,
        _ => size.parse().map_err(|_| malformed())?,
    };
    let forbidden =
        |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.eq_ignore_ascii_case(b".git");
    if path.len() > LONGEST || path.split(|byte| *byte == b'/').any(forbidden) {
        return Err(denied("a forbidden name", &path[..path.len().min(200)]));
    }
    let id = ObjectId::parse(id).ok_or_else(malformed)?;
    Ok(Entry { path: path.to_vec(), kind, id, size })
}

/// Cleans the path of a directory in a repository. None leads above its top.
///
/// # Errors
/// `Invalid` if no commit can have it.
pub fn clean_directory(path: &str) -> Result<String, Failure> {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name if name.contains('\0') || name.eq_ignore_ascii_case(".git") => {
                return Err(Failure::invalid(format!(
                    "{path:?} is not a directory of a repository"
                )));
            }
            name => names.push(name),
        }
    }
    Ok(names.join("/"))
}

impl Repository {
    /// What a commit that is here holds below a directory ("" = all).
    ///
    /// # Errors
    /// `NotFound` or `Invalid` if there is no such directory; see [`Tree::parse`].
    pub async fn tree(&self, commit: &ObjectId, directory: &str) -> Result<Tree, Failure> {
        let directory = clean_directory(directory)?;
        if !directory.is_empty() {
            let args = ["ls-tree", "-z", "--full-tree", commit.as_str(), "--", &directory];
            let output = self.checked(&args, Input::Nothing, Vec::new()).await?;
            match output.split(|byte| *byte == b' ').next() {
                Some(b"040000") => {}
                Some(b"") | None => {
                    let message = format!("there is no directory {directory:?} in commit {commit}");
                    return Err(Failure::not_found(message));
                }
                Some(mode) => {
                    let what = match mode {
                        b"120000" => "a symbolic link",
                        b"160000" => "a submodule",
                        _ => "a file",
                    };
                    let message = format!("{directory:?} in commit {commit} is {what}");
                    return Err(Failure::invalid(message).hint("name a directory"));
                }
            }
        }
        let below = format!("{directory}/");
        let mut args = vec!["ls-tree", "-r", "-l", "-z", "--full-tree", commit.as_str(), "--"];
        if !directory.is_empty() {
            args.push(&below);
        }
        let output = self.checked(&args, Input::Nothing, Vec::new()).await?;
        Tree::parse(&output, &self.git.limits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789012345678901234567890123456789";

    fn line(mode: &str, path: &str) -> Vec<u8> {
        let kind = if mode == "160000" { "commit" } else { "blob" };
        let size = if mode == "160000" { "      -" } else { "      7" };
        format!("{mode} {kind} {ID} {size}\t{path}\0").into_bytes()
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        let good = [line("100644", "b"), line("120000", "a/l"), line("160000", "a/s")].concat();
        let tree = Tree::parse(&good, &Limits::default()).expect("a tree");
        let paths: Vec<&[u8]> = tree.entries.iter().map(|entry| &*entry.path).collect();
        assert_eq!(paths, [&b"a/l"[..], b"a/s", b"b"]);
        for lines in [
            vec![line("100644", "../a")],
            vec![line("100644", "/a")],
            vec![line("100644", "a//b")],
            vec![line("100644", "a/./b")],
            vec![line("100644", ".git/config")],
            vec![line("100644", "a/.GIT/hooks/x")],
            vec![line("120000", ".git")],
            vec![line("100644", &"a".repeat(LONGEST + 1))],
            vec![line("020000", "device")],
            vec![line("100644", "a"), line("100644", "a")],
            // Through a link, a file, a submodule.
            vec![line("120000", "a"), line("100644", "a/b")],
            vec![line("100644", "a/b/c"), line("120000", "a")],
            vec![line("160000", "a"), line("100644", "a/b")],
            vec![line("120000", "a"), line("160000", "a/b")],
        ] {
            let failure = Tree::parse(&lines.concat(), &Limits::default()).expect_err("refused");
            assert_eq!(failure.kind, FailureKind::Denied, "{failure}");
        }
    }

    #[test]
    fn trees_have_limits() {
        let two = [line("100644", "a"), line("100644", "b")].concat();
        for limits in
            [Limits { entries: 1, ..Limits::default() }, Limits { tree: 13, ..Limits::default() }]
        {
            assert_eq!(Tree::parse(&two, &limits).expect_err("limit").kind, FailureKind::Limit);
        }
    }

    #[test]
    fn directories_are_cleaned() {
        for (path, clean) in [
            ("", ""),
            ("/", ""),
            ("a/b", "a/b"),
            ("/a/./b//", "a/b"),
            ("../../a/../b", "b"),
            ("..", ""),
        ] {
            assert_eq!(clean_directory(path).as_deref(), Ok(clean), "{path}");
        }
        assert!(clean_directory("a/.git").is_err() && clean_directory("a\0b").is_err());
    }

    proptest! {
        #[test]
        fn any_listing_is_read_or_refused(
            lines in prop::collection::vec(("100644|120000|160000|40000|x", "[a./g]{0,6}"), 0..6),
            noise in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut output: Vec<u8> = Vec::new();
            lines.iter().for_each(|(mode, path)| output.extend(line(mode, path)));
            output.extend(&noise);
            if let Ok(tree) = Tree::parse(&output, &Limits::default()) {
                for entry in &tree.entries {
                    prop_assert!(!entry.path.starts_with(b"/"));
                    prop_assert!(entry.path.split(|b| *b == b'/').all(|name| name != b".."));
                    let inside = |other: &Entry| {
                        other.path.strip_prefix(&*entry.path).is_some_and(|rest| rest.starts_with(b"/"))
                    };
                    prop_assert!(!tree.entries.iter().any(inside));
                }
            }
        }
    }
}
