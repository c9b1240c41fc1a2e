//! File trees as values: read from tar archives and image layers, listed, compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read;

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

/// A file tree: absolute paths, sorted. The root directory itself is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<String, Entry>);

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Permissions with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Extended attributes; values in hex.
    pub xattrs: BTreeMap<String, String>,
    /// Kind and content.
    pub node: Node,
}

/// Kind and content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Directory,
    /// A file: its size, the start of its SHA-256, and the first path of its hard links.
    File {
        /// Bytes.
        size: u64,
        /// Hex.
        digest: String,
        /// Set for a hard link that is not the first.
        link: Option<String>,
    },
    /// A symbolic link.
    Symlink(String),
    /// A device or a pipe: its tar type letter and numbers.
    Special(char, u32, u32),
}

impl Tree {
    /// The files of a tar archive without whiteouts.
    pub fn of_tar(archive: impl Read) -> Result<Tree> {
        let mut tree = Tree::default();
        tree.apply(archive, false)?;
        Ok(tree)
    }

    /// Puts a layer on top (OCI image specification, "Image Layer Filesystem Changeset"). The paths
    /// of its entries as they come, whiteouts among them; those of directories end in `/`.
    pub fn apply_layer(&mut self, archive: impl Read) -> Result<Vec<String>> {
        self.apply(archive, true)
    }

    fn apply(&mut self, archive: impl Read, whiteouts: bool) -> Result<Vec<String>> {
        let mut archive = tar::Archive::new(archive);
        let mut entries = Vec::new();
        let mut seen: BTreeMap<String, ()> = BTreeMap::new();
        let mut added = Tree::default();
        for entry in archive.entries().context("not a tar archive")? {
            let mut entry = entry.context("cannot read an entry of the archive")?;
            let path = entry.path()?.to_str().context("a path is not UTF-8")?.to_owned();
            let path = format!("/{}", path.trim_start_matches("./").trim_matches('/'));
            if path == "/" || path == "/." {
                continue;
            }
            ensure!(seen.insert(path.clone(), ()).is_none(), "{path} is in the archive twice");
            let is_directory = entry.header().entry_type().is_dir();
            entries.push(if is_directory { format!("{path}/") } else { path.clone() });
            let (folder, name) = path.rsplit_once('/').expect("it begins with a slash");
            if whiteouts && name == ".wh..wh..opq" {
                let below = format!("{folder}/");
                self.0.retain(|path, _| !path.starts_with(&below));
                continue;
            }
            if whiteouts && let Some(name) = name.strip_prefix(".wh.") {
                let gone = format!("{folder}/{name}");
                ensure!(self.0.contains_key(&gone), "the whiteout of {gone} hides nothing");
                let below = format!("{gone}/");
                self.0.retain(|path, _| *path != gone && !path.starts_with(&below));
                continue;
            }
            let read = read_entry(&mut entry, &added, &self.0)
                .with_context(|| format!("{path} in the archive"))?;
            added.0.insert(path, read);
        }
        let new: BTreeSet<String> = added.0.keys().cloned().collect();
        for (path, entry) in added.0 {
            if !matches!(entry.node, Node::Directory) {
                let below = format!("{path}/");
                self.0.retain(|path, _| !path.starts_with(&below));
            }
            self.0.insert(path, entry);
        }
        self.regroup(&new);
        Ok(entries)
    }

    /// Names hard links anew whose first path was removed, or replaced by one of `new`: what was
    /// linked to it is another file now.
    fn regroup(&mut self, new: &BTreeSet<String>) {
        let mut leaders: BTreeMap<String, String> = BTreeMap::new();
        let lost: Vec<(String, String)> = (self.0.iter())
            .filter(|(path, _)| !new.contains(*path))
            .filter_map(|(path, entry)| match &entry.node {
                Node::File { link: Some(first), .. } => Some((path.clone(), first.clone())),
                _ => None,
            })
            .filter(|(_, first)| new.contains(first) || !self.0.contains_key(first))
            .collect();
        for (path, first) in lost {
            let leader = leaders.get(&first).cloned();
            if leader.is_none() {
                leaders.insert(first, path.clone());
            }
            if let Some(Entry { node: Node::File { link, .. }, .. }) = self.0.get_mut(&path) {
                *link = leader;
            }
        }
    }

    /// One line an entry, sorted by path.
    pub fn listing(&self) -> String {
        let lines = self.0.iter().map(|(path, entry)| format!("{}\n", entry.line(path)));
        lines.collect()
    }

    /// What differs from `base`: `+` and `-` lines, sorted by path. An entry that has changed is
    /// shown as it is now.
    pub fn since(&self, base: &Tree) -> String {
        let mut out = String::new();
        let mut paths: Vec<&String> = self.0.keys().chain(base.0.keys()).collect();
        paths.sort();
        paths.dedup();
        for path in paths {
            match (base.0.get(path), self.0.get(path)) {
                (before, Some(now)) if before != Some(now) => {
                    let _ = writeln!(out, "+ {}", now.line(path));
                }
                (Some(_), None) => {
                    let _ = writeln!(out, "- {path}");
                }
                _ => {}
            }
        }
        out
    }

    /// The entry at a path.
    pub fn get(&self, path: &str) -> Result<&Entry> {
        self.0.get(path).with_context(|| format!("there is no {path} in:\n{}", self.listing()))
    }
}

impl Entry {
    fn line(&self, path: &str) -> String {
        // One entry is one line.
        let path = path.replace('\n', "\\n");
        let mut out = match &self.node {
            Node::Directory => format!("d{:04o} {}:{} {path}/", self.mode, self.uid, self.gid),
            Node::File { size, digest, link } => {
                let link = link.as_ref().map(|link| format!(" = {link}")).unwrap_or_default();
                format!(
                    "-{:04o} {}:{} {path} {size} {}{link}",
                    self.mode,
                    self.uid,
                    self.gid,
                    &digest[..12]
                )
            }
            // The permissions of a symbolic link mean nothing.
            Node::Symlink(target) => format!("l {}:{} {path} -> {target}", self.uid, self.gid),
            Node::Special(kind, major, minor) => {
                format!("{kind}{:04o} {}:{} {path} {major},{minor}", self.mode, self.uid, self.gid)
            }
        };
        for (name, value) in &self.xattrs {
            let _ = write!(out, " {name}={value}");
        }
        out
    }
}

fn read_entry<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    added: &Tree,
    below: &BTreeMap<String, Entry>,
) -> Result<Entry> {
    let mut xattrs = BTreeMap::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            if let Some(name) = extension.key()?.strip_prefix("SCHILY.xattr.") {
                let value = extension.value_bytes().iter().map(|byte| format!("{byte:02x}"));
                xattrs.insert(name.to_owned(), value.collect());
            }
        }
    }
    let header = entry.header().clone();
    let mode = header.mode()? & 0o7777;
    let target = || -> Result<String> {
        let name = entry.link_name()?.context("a link without target")?;
        Ok(name.to_str().context("a link target is not UTF-8")?.to_owned())
    };
    let node = match header.entry_type() {
        tar::EntryType::Directory => Node::Directory,
        tar::EntryType::Symlink => Node::Symlink(target()?),
        tar::EntryType::Link => {
            let first = target()?;
            let first = format!("/{}", first.trim_start_matches("./").trim_matches('/'));
            let found = added.0.get(&first).or_else(|| below.get(&first));
            let Some(Entry { node: Node::File { size, digest, .. }, xattrs: same, .. }) = found
            else {
                bail!("a hard link to {first}, which is no file before it");
            };
            // One file under two names: whether a writer says its attributes again is its choice.
            xattrs.clone_from(same);
            Node::File { size: *size, digest: digest.clone(), link: Some(first) }
        }
        tar::EntryType::Regular | tar::EntryType::Continuous => {
            let mut hash = Sha256::new();
            let size = std::io::copy(entry, &mut hash)?;
            ensure!(size == header.size()? || size > 0, "the content is cut short");
            let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            Node::File { size, digest, link: None }
        }
        kind @ (tar::EntryType::Char | tar::EntryType::Block) => {
            let letter = if kind == tar::EntryType::Char { 'c' } else { 'b' };
            let (major, minor) = (header.device_major()?, header.device_minor()?);
            Node::Special(letter, major.unwrap_or(0), minor.unwrap_or(0))
        }
        tar::EntryType::Fifo => Node::Special('p', 0, 0),
        other => bail!("an entry of the kind {other:?}"),
    };
    Ok(Entry { mode, uid: header.uid()?, gid: header.gid()?, xattrs, node })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive of `path`, `path/` (directory), `path -> target`, `path = target` (hard link).
    fn archive(lines: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for line in lines {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(0);
            header.set_uid(0);
            header.set_gid(0);
            let done = if let Some((path, target)) = line.split_once(" -> ") {
                header.set_entry_type(tar::EntryType::Symlink);
                builder.append_link(&mut header, path, target)
            } else if let Some((path, target)) = line.split_once(" = ") {
                header.set_entry_type(tar::EntryType::Link);
                builder.append_link(&mut header, path, target)
            } else if line.ends_with('/') {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                builder.append_data(&mut header, line, &b""[..])
            } else {
                header.set_size(line.len() as u64);
                builder.append_data(&mut header, line, line.as_bytes())
            };
            done.expect("in memory");
        }
        builder.into_inner().expect("in memory")
    }

    #[test]
    fn layers_add_replace_and_remove() {
        let mut tree =
            Tree::of_tar(&archive(&["a/", "a/x", "a/y", "b/", "b/z", "c", "d/", "d/e"])[..])
                .expect("an archive");
        let base = tree.clone();
        let layer = archive(&[
            "a/",
            "a/.wh.x",
            "b/",
            "b/.wh..wh..opq",
            "b/new",
            "c",
            "d",
            "l -> c",
            "h = c",
        ]);
        tree.apply_layer(&layer[..]).expect("a layer");
        let since = tree.since(&base);
        let lines: Vec<&str> =
            since.lines().map(|line| line.split(" 0:0 ").last().unwrap_or(line)).collect();
        assert_eq!(
            lines,
            [
                "- /a/x",
                "/b/new 5 087cd98078f3",
                "- /b/z",
                "/d 1 18ac3e7343f0",
                "- /d/e",
                "/h 1 2e7d2c03a950 = /c",
                "/l -> c"
            ]
        );
    }

    #[test]
    fn faulty_archives_are_refused() {
        for (lines, complaint) in [
            (&["a", "a"][..], "twice"),
            (&[".wh.nothing"][..], "hides nothing"),
            (&["h = nowhere"][..], "nowhere"),
        ] {
            let error = Tree::default().apply_layer(&archive(lines)[..]).expect_err("faulty");
            assert!(format!("{error:#}").contains(complaint), "{lines:?}: {error:#}");
        }
    }
}
