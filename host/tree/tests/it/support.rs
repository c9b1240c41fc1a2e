//! Building trees, running copies, looking at what came out.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use wbuild_tree::{
    CopyOptions, CopyReport, Filter, LayerWriter, Owner, Result, Root, SelectOptions, Selection,
    Source, SourceKind, Timestamp, Work, XattrKind, select,
};

/// Prints why a test does not run here; where all tests must run, fails.
pub fn skip(test: &str, reason: &str) {
    // Not by a macro: the test harness would keep it to itself.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
    assert_ne!(std::env::var("WBUILD_TEST_REQUIRE").as_deref(), Ok("1"), "{test}: {reason}");
}

/// Whether owners can be given and devices be made; says so if not.
pub fn privileged(test: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    fs::write(&file, "").unwrap();
    let chown = std::os::unix::fs::chown(&file, Some(12), Some(34)).is_ok();
    if !chown {
        skip(test, "needs the privilege to give files away");
    }
    chown
}

/// A directory described by lines: `dir/`, `file`, `file=content`, `link->target`, with an
/// optional octal mode in front (`755 dir/`).
pub struct Tree {
    pub dir: tempfile::TempDir,
}

impl Tree {
    pub fn new(lines: &[&str]) -> Tree {
        let tree = Tree { dir: tempfile::tempdir().unwrap() };
        for line in lines {
            tree.add(line);
        }
        tree
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub fn add(&self, line: &str) {
        let (mode, rest) = match line.split_once(' ') {
            Some((mode, rest)) if mode.bytes().all(|b| b.is_ascii_digit()) => {
                (Some(u32::from_str_radix(mode, 8).unwrap()), rest)
            }
            _ => (None, line),
        };
        type Action<'a> = Box<dyn Fn(&Path) + 'a>;
        let (name, action): (&str, Action<'_>) = if let Some((name, to)) = rest.split_once("->") {
            (name, Box::new(move |path| symlink(to, path).unwrap()))
        } else if let Some(name) = rest.strip_suffix('/') {
            (name, Box::new(|path| fs::create_dir_all(path).unwrap()))
        } else if let Some((name, text)) = rest.split_once('=') {
            (name, Box::new(move |path| fs::write(path, text).unwrap()))
        } else {
            (rest, Box::new(move |path| fs::write(path, rest).unwrap()))
        };
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        action(&path);
        if let Some(mode) = mode {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    pub fn root(&self, place: &str) -> Root {
        Root::open(self.dir.path(), place).unwrap()
    }

    /// `path kind mode [-> target | = content]` of everything, sorted.
    pub fn list(&self) -> Vec<String> {
        list(self.dir.path())
    }

    /// Only the paths.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = entries(self.dir.path())
            .iter()
            .map(|path| path.strip_prefix(self.dir.path()).unwrap().display().to_string())
            .collect();
        names.sort();
        names
    }

    pub fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    pub fn meta(&self, path: &str) -> fs::Metadata {
        fs::symlink_metadata(self.path(path)).unwrap()
    }

    pub fn mode(&self, path: &str) -> u32 {
        self.meta(path).mode() & 0o7777
    }

    pub fn owner(&self, path: &str) -> (u32, u32) {
        (self.meta(path).uid(), self.meta(path).gid())
    }

    pub fn set_mtime(&self, path: &str, secs: u64) {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs);
        fs::File::open(self.path(path)).unwrap().set_modified(time).unwrap();
    }
}

/// Paths of everything below a directory.
fn entries(top: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut open = vec![top.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                open.push(path.clone());
            }
            out.push(path);
        }
    }
    out
}

/// See [`Tree::list`].
pub fn list(top: &Path) -> Vec<String> {
    let mut out = Vec::new();
    for path in entries(top) {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(top).unwrap().display().to_string();
        let mode = meta.mode() & 0o7777;
        let kind = meta.file_type();
        out.push(if kind.is_dir() {
            format!("{name} dir {mode:o}")
        } else if kind.is_symlink() {
            format!("{name} -> {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_char_device() && meta.rdev() == 0 {
            format!("{name} whiteout")
        } else if kind.is_file() {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            format!("{name} {mode:o} = {text}")
        } else {
            format!("{name} special {mode:o}")
        });
    }
    out.sort();
    out
}

/// This process's ids, for tests that are not about owners.
pub fn me() -> Owner {
    let dir = tempfile::tempdir().unwrap();
    let meta = fs::metadata(dir.path()).unwrap();
    Owner::Fixed { uid: meta.uid(), gid: meta.gid() }
}

pub fn my_options() -> CopyOptions {
    CopyOptions { owner: me(), ..CopyOptions::default() }
}

/// [`me`] in numbers.
pub fn ids() -> (u32, u32) {
    match me() {
        Owner::Fixed { uid, gid } => (uid, gid),
        Owner::Kept => unreachable!("these are fixed"),
    }
}

/// The options of an instruction without flags.
pub fn plain() -> SelectOptions {
    SelectOptions { wildcard: true, contents_only: true, follow_links: true, ..Default::default() }
}

/// The kind of overlay attributes this process can set.
pub fn xattr_kind() -> XattrKind {
    if rustix::process::geteuid().is_root() { XattrKind::Trusted } else { XattrKind::User }
}

/// One copy from a context into a layer.
pub struct Copy<'a> {
    pub source: &'a Tree,
    pub kind: SourceKind,
    pub ignore: &'a [&'a str],
    pub base: Option<&'a Tree>,
    pub upper: Tree,
    pub select: SelectOptions,
    pub options: CopyOptions,
}

impl<'a> Copy<'a> {
    pub fn new(source: &'a Tree) -> Copy<'a> {
        Copy {
            source,
            kind: SourceKind::Context,
            ignore: &[],
            base: None,
            upper: Tree::new(&[]),
            select: plain(),
            options: my_options(),
        }
    }

    pub fn image(source: &'a Tree) -> Copy<'a> {
        Copy { kind: SourceKind::Image, ..Copy::new(source) }
    }

    pub fn over(source: &'a Tree, base: &'a Tree) -> Copy<'a> {
        Copy { base: Some(base), ..Copy::new(source) }
    }

    pub fn with_source<T>(&self, then: impl FnOnce(&Source<'_>) -> T) -> T {
        let root = self.source.root("the build context");
        let filter = Filter::new(&[], self.ignore).unwrap();
        then(&Source { root: &root, filter: &filter, kind: self.kind })
    }

    pub fn selection(&self, paths: &[&str]) -> Result<Selection> {
        self.with_source(|source| select(source, paths, &self.select, &Work::default()))
    }

    /// The part of the cache key.
    pub fn digest(&self, paths: &[&str]) -> String {
        self.with_source(|source| {
            let work = Work::default();
            let mut selection = select(source, paths, &self.select, &work).unwrap();
            selection.digest(source, None, &work).unwrap().to_string()
        })
    }

    pub fn writer(&self) -> LayerWriter {
        let base = self.base.map(|base| base.root("the base").into());
        let upper = self.upper.root("the new layer");
        LayerWriter::new(upper, base, xattr_kind(), Work::default()).unwrap()
    }

    pub fn run(&self, paths: &[&str], target: &str) -> Result<CopyReport> {
        let selection = self.selection(paths)?;
        self.with_source(|source| {
            let mut writer = self.writer();
            let report = writer.copy(source, &selection, target, &self.options)?;
            writer.finish()?;
            Ok(report)
        })
    }

    /// Runs a copy that must work and lists the layer.
    pub fn layer(&self, paths: &[&str], target: &str) -> Vec<String> {
        self.run(paths, target).unwrap();
        self.upper.list()
    }
}

/// What a container would see: the layer mounted over the base, as [`Tree::list`] prints it.
/// `None` where overlays cannot be mounted.
pub fn mounted(test: &str, base: &Tree, upper: &Tree) -> Option<Vec<String>> {
    mounted_stack(test, &[base], upper)
}

/// The same over several layers, topmost first.
pub fn mounted_stack(test: &str, below: &[&Tree], upper: &Tree) -> Option<Vec<String>> {
    // On the file system of the upper directory and empty, as an overlay wants it.
    let work = tempfile::tempdir_in(upper.dir.path().parent().unwrap()).unwrap();
    let lower: Vec<String> =
        below.iter().map(|layer| layer.dir.path().display().to_string()).collect();
    let script = r#"
        mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$3" 2>/dev/null || exit 77
        cd "$3" && find . -mindepth 1 \( -type d -printf '%P dir %m\n' -o -type l -printf '%P -> %l\n' \
            -o -type f -printf '%P %m = ' -exec cat {} \; -printf '\n' -o -printf '%P special %m\n' \)
    "#;
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .args([Path::new(&lower.join(":")), upper.dir.path(), work.path()])
        .output();
    match output {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            Some(lines)
        }
        _ => {
            skip(test, "an overlay cannot be mounted");
            None
        }
    }
}

pub fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(secs)
}

pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> bool {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).is_ok()
}

pub fn get_xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let len = rustix::fs::lgetxattr(path.as_os_str().as_bytes(), name, &mut value).ok()?;
    value.truncate(len);
    Some(value)
}
