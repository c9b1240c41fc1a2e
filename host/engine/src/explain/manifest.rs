//! What a step read of an input, path by path: small enough to be kept, exact enough to tell which
//! files are others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wbuild_api::explain::{Change, FileChange, FileChangeKind};
use wbuild_graph::Digest;
use wbuild_tree::content::Node;
use wbuild_tree::select::{Selection, Shape, SourceKind};
use wbuild_tree::stat::Kind;

/// Rows of a manifest. Where there are more files, a row stands for a directory.
const ROWS: usize = 2000;
/// Files named of one input; the rest are counted.
const NAMED: usize = 20;
/// Hex digits of a digest that are kept: enough to tell files apart that are meant to differ.
const DIGITS: usize = 16;

/// Paths, and for each its metadata, a blank, and its content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Manifest(BTreeMap<String, String>);

impl Manifest {
    /// Of what was selected and digested. `kind`: owners of a context do not count.
    pub(super) fn of(selections: &[Selection], kind: SourceKind) -> Manifest {
        // Paths of a context are as people write them in `COPY`.
        let slash = if kind == SourceKind::Image { "/" } else { "" };
        let mut rows = BTreeMap::new();
        for root in selections.iter().flat_map(Selection::roots) {
            if root.shape != Shape::Contents {
                rows.insert(format!("{slash}{}", root.path), row(&root.top, kind));
            }
            let full = |node: &Node| format!("{slash}{}", root.path.join(node.path.as_bytes()));
            rows.extend(root.nodes.iter().map(|node| (full(node), row(node, kind))));
        }
        Manifest(shortened(rows))
    }

    /// What is different here, as people name it; none if nothing is.
    pub(super) fn changes(&self, before: &Manifest, of: &str) -> Option<Change> {
        let mut files = Vec::new();
        let mut note = |path: &String, how| files.push(FileChange { path: path.clone(), how });
        for (path, row) in &self.0 {
            match before.0.get(path) {
                None => note(path, FileChangeKind::New),
                Some(old) if old == row => {}
                Some(old) => note(path, how(old, row)),
            }
        }
        for path in before.0.keys().filter(|path| !self.0.contains_key(*path)) {
            note(path, FileChangeKind::Gone);
        }
        if files.is_empty() {
            return None;
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let more = u64::try_from(files.len().saturating_sub(NAMED)).unwrap_or(u64::MAX);
        files.truncate(NAMED);
        Some(Change::Files { of: of.to_owned(), files, more })
    }
}

fn how(before: &str, after: &str) -> FileChangeKind {
    let content = |row: &str| row.rsplit_once(' ').map(|(_, content)| content.to_owned());
    match content(before) == content(after) {
        true => FileChangeKind::Metadata,
        false => FileChangeKind::Content,
    }
}

fn short(digest: &Digest) -> String {
    let mut hex = digest.hex();
    hex.truncate(DIGITS);
    hex
}

fn row(node: &Node, kind: SourceKind) -> String {
    let stat = &node.stat;
    // Links have no mode that means anything.
    let mode = if stat.kind == Kind::Symlink { 0 } else { stat.mode };
    let mut row = format!("{}{mode:o}", stat.kind.as_str());
    if kind == SourceKind::Image {
        row.push_str(&format!(",{}:{}", stat.uid, stat.gid));
        if !node.xattrs.is_empty() {
            row.push_str(&format!(
                ",{}",
                short(&Digest::of(format!("{:?}", node.xattrs).as_bytes()))
            ));
        }
    }
    row.push(' ');
    match (&node.sha256, &node.link) {
        (Some(sha), _) => row.push_str(&short(&Digest::from_bytes(*sha))),
        (None, Some(target)) => row.push_str(&short(&Digest::of(target))),
        (None, None) => row.push_str(&format!("{},{}", stat.rdev.0, stat.rdev.1)),
    }
    row
}

/// No more than [`ROWS`]: paths are cut after as many names as that allows, and what is below a cut
/// becomes a digest of its rows.
fn shortened(rows: BTreeMap<String, String>) -> BTreeMap<String, String> {
    if rows.len() <= ROWS {
        return rows;
    }
    let deepest = rows.keys().map(|path| path.matches('/').count()).max().unwrap_or(0);
    for names in (0..=deepest).rev() {
        let mut groups: BTreeMap<&str, Vec<(&String, &String)>> = BTreeMap::new();
        for (path, row) in &rows {
            groups.entry(cut(path, names)).or_default().push((path, row));
        }
        if groups.len() > ROWS {
            continue;
        }
        let group = |(path, members): (&str, Vec<(&String, &String)>)| match members[..] {
            [(own, row)] if own == path => (path.to_owned(), row.clone()),
            _ => {
                let all: String =
                    members.iter().map(|(path, row)| format!("{path}\0{row}\n")).collect();
                (path.to_owned(), format!("several {}", short(&Digest::of(all.as_bytes()))))
            }
        };
        return groups.into_iter().map(group).collect();
    }
    unreachable!("without any name there is one group")
}

/// So many names of a path, with a slash behind if that is not all.
fn cut(path: &str, names: usize) -> &str {
    match names.checked_sub(1) {
        None => "/",
        Some(slash) => match path.match_indices('/').nth(slash) {
            Some((at, _)) => &path[..=at],
            None => path,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(rows: &[(&str, &str)]) -> Manifest {
        Manifest(shortened(
            rows.iter().map(|(path, row)| ((*path).to_owned(), (*row).to_owned())).collect(),
        ))
    }

    fn told(change: Option<Change>) -> Vec<(String, FileChangeKind)> {
        match change {
            Some(Change::Files { files, .. }) => {
                files.into_iter().map(|file| (file.path, file.how)).collect()
            }
            other => panic!("no files: {other:?}"),
        }
    }

    #[test]
    fn each_kind_of_change_is_told() {
        let before = manifest(&[
            ("a", "file644 1"),
            ("gone", "file644 1"),
            ("mode", "file644 1"),
            ("same", "file644 1"),
        ]);
        let after = manifest(&[
            ("a", "file644 2"),
            ("mode", "file755 1"),
            ("new", "file644 1"),
            ("same", "file644 1"),
        ]);
        use FileChangeKind::{Content, Gone, Metadata, New};
        let expected = [("a", Content), ("gone", Gone), ("mode", Metadata), ("new", New)];
        assert_eq!(
            told(after.changes(&before, "x")),
            expected.map(|(path, how)| (path.to_owned(), how))
        );
        assert_eq!(after.changes(&after, "x"), None);
    }

    #[test]
    fn large_trees_are_told_by_directory_and_names_are_limited() {
        let rows = |changed: usize| -> BTreeMap<String, String> {
            (0..10_000)
                .map(|n| {
                    let row = if n == changed { "file644 2" } else { "file644 1" };
                    (format!("dir{}/sub/file{n}", n % 100), row.to_owned())
                })
                .collect()
        };
        let before = Manifest(shortened(rows(usize::MAX)));
        let after = Manifest(shortened(rows(4217)));
        assert!(before.0.len() <= ROWS);
        let expected = ("dir17/sub/".to_owned(), FileChangeKind::Content);
        assert_eq!(told(after.changes(&before, "x")), [expected]);

        // A single directory that is too large is told as a whole.
        let flat = |row: &str| -> Manifest {
            Manifest(shortened((0..3000).map(|n| (format!("f{n}"), row.to_owned())).collect()))
        };
        let told_flat = told(flat("file644 2").changes(&flat("file644 1"), "x"));
        assert_eq!(told_flat, [("/".to_owned(), FileChangeKind::Content)]);

        let many = |row: &str| -> Manifest {
            Manifest((0..50).map(|n| (format!("f{n:02}"), row.to_owned())).collect())
        };
        match many("file644 2").changes(&many("file644 1"), "x") {
            Some(Change::Files { files, more, .. }) => {
                assert_eq!((files.len(), more), (NAMED, 30));
            }
            other => panic!("{other:?}"),
        }
    }
}
