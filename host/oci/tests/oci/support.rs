//! What several tests need: skipping, trees of files, running programs.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Output};

use rustix::fs::{Mode, OFlags, XattrFlags};
use wbuild_graph::Digest;
use wbuild_oci::Result;
use wbuild_oci::layer::{
    Applied, ApplyOptions, CompressOptions, Entry, EntryKind, LayerBlob, LayerBuilder, OverlayKind,
    Ownership, WriteOptions, apply, no_parents, write_upper,
};
use wbuild_oci::media::Compression;

/// Says that a test could not run here; a failure where everything is required to run.
pub fn skip(test: &str, reason: &str) {
    let required = std::env::var_os("WBUILD_TEST_REQUIRE").is_some_and(|v| v == "1");
    assert!(!required, "{test} must run here: {reason}");
    eprintln!("skipped: {test}: {reason}");
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Owners are kept where this process may set them.
pub fn ownership() -> Ownership {
    if is_root() { Ownership::Keep } else { Ownership::Ignore }
}

/// Runs a program; `None` where it is not installed.
pub fn run(program: &str, args: &[&str]) -> Option<Output> {
    match Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        // Nothing of the user's own configuration.
        .env("HOME", "/nonexistent")
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_RUNTIME_DIR")
        .output()
    {
        Ok(output) => Some(output),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => panic!("cannot run {program}: {e}"),
    }
}

/// Fails with the program's own words.
pub fn assert_ran(what: &str, output: &Output) {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}\n{err}", output.status);
}

pub fn open_dir(path: &Path) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).expect("a directory")
}

/// Whether the file system of `dir` keeps user attributes.
pub fn has_user_xattrs(dir: &Path) -> bool {
    rustix::fs::setxattr(dir, "user.probe", b"", XattrFlags::empty()).is_ok()
        && rustix::fs::removexattr(dir, "user.probe").is_ok()
}

/// One line for each thing in a tree, with all that an image keeps.
pub fn describe(root: &Path) -> Vec<String> {
    lines(root, true)
}

/// One line for each thing in a tree: names, types, modes, contents and links, but neither owners,
/// times nor attributes.
pub fn contents(root: &Path) -> Vec<String> {
    lines(root, false)
}

fn lines(root: &Path, whole: bool) -> Vec<String> {
    let mut out = Vec::new();
    walk(root, Path::new(""), &mut BTreeMap::new(), &mut out, whole);
    out
}

fn walk(
    root: &Path,
    at: &Path,
    links: &mut BTreeMap<(u64, u64), String>,
    out: &mut Vec<String>,
    whole: bool,
) {
    let mut names: Vec<_> = fs::read_dir(root.join(at))
        .expect("a directory")
        .map(|e| e.expect("an entry").file_name())
        .collect();
    names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    for name in names {
        let path = at.join(&name);
        let full = root.join(&path);
        let meta = fs::symlink_metadata(&full).expect("metadata");
        let kind = meta.file_type();
        let shown = path.as_os_str().as_bytes().escape_ascii().to_string();
        let what = if kind.is_dir() {
            "dir".to_owned()
        } else if kind.is_symlink() {
            format!("link {:?}", fs::read_link(&full).expect("a link"))
        } else if kind.is_file() {
            format!(
                "file {} {}",
                meta.size(),
                Digest::of(&fs::read(&full).expect("readable")).short()
            )
        } else if kind.is_fifo() {
            "fifo".to_owned()
        } else if kind.is_char_device() {
            format!("char {:x}", meta.rdev())
        } else if kind.is_block_device() {
            format!("block {:x}", meta.rdev())
        } else {
            "socket".to_owned()
        };
        let mut line = format!("{shown} {what} {:o}", meta.mode() & 0o7777);
        if whole {
            line.push_str(&format!(" {}:{} {}", meta.uid(), meta.gid(), meta.mtime()));
        }
        if !kind.is_dir() && meta.nlink() > 1 {
            let first = links.entry((meta.dev(), meta.ino())).or_insert_with(|| shown.clone());
            line.push_str(&format!(" = {first}"));
        }
        let mut list = vec![0; 4096];
        if whole && let Ok(length) = rustix::fs::llistxattr(&full, &mut list[..]) {
            let mut names: Vec<&[u8]> =
                list[..length].split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
            names.sort();
            for name in names {
                let mut value = vec![0; 4096];
                let name = std::str::from_utf8(name).expect("test names");
                let length = rustix::fs::lgetxattr(&full, name, &mut value[..]).expect("readable");
                line.push_str(&format!(" {name}={}", value[..length].escape_ascii()));
            }
        }
        out.push(line);
        if kind.is_dir() {
            walk(root, &path, links, out, whole);
        }
    }
}

/// Writes the layer of an upper directory into memory.
pub fn write_layer(
    upper: &Path,
    compression: Compression,
    options: &WriteOptions<'_>,
) -> Result<(Vec<u8>, LayerBlob)> {
    let mut builder = LayerBuilder::new(Vec::new(), &CompressOptions::new(compression))?;
    write_upper(&mut builder, open_dir(upper).as_fd(), options)?;
    builder.finish()
}

/// Applies a layer with user attributes and default limits.
pub fn apply_layer(layer: &[u8], upper: &Path) -> Result<Applied> {
    let options = ApplyOptions { ownership: ownership(), ..ApplyOptions::new(OverlayKind::User) };
    apply(layer, open_dir(upper).as_fd(), &options, &mut no_parents)
}

/// A plain tar of entries; those of files come with data.
pub fn tar(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut builder =
        LayerBuilder::new(Vec::new(), &CompressOptions::new(Compression::None)).expect("options");
    for (entry, data) in entries {
        let mut entry = entry.clone();
        entry.size = data.len() as u64;
        builder.append(&entry, Some(&mut &data[..])).expect("can be written");
    }
    builder.finish().expect("memory").0
}

pub fn file(path: &str) -> (Entry, &'static [u8]) {
    (Entry::new(path, EntryKind::File, 0o644), b"content")
}

pub fn empty(path: &str) -> (Entry, &'static [u8]) {
    (Entry::new(path, EntryKind::File, 0o644), b"")
}

pub fn dir(path: &str) -> (Entry, &'static [u8]) {
    (Entry::new(path, EntryKind::Directory, 0o755), b"")
}

pub fn symlink(path: &str, target: &str) -> (Entry, &'static [u8]) {
    (Entry::new(path, EntryKind::Symlink(target.into()), 0o777), b"")
}

pub fn hard_link(path: &str, target: &str) -> (Entry, &'static [u8]) {
    (Entry::new(path, EntryKind::HardLink(target.into()), 0o644), b"")
}
