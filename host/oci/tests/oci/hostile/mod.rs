//! Archives and layers that mean harm.
//!
//! Beside everything that is written lies a canary, which must not change. A [`Case`] is an archive
//! made by hand and what must become of it; where it is taken, GNU tar has to read and unpack it the
//! same way, because two readings of one archive are an attack.

mod bombs;
mod formats;
mod paths;
mod whiteouts;

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use wbuild_oci::layer::{
    Applied, Entry, EntryKind, Limits, TarLimits, TarReader, UnpackOptions, unpack,
};
use wbuild_oci::{Error, ErrorKind, Result, Timestamp};

use crate::support::*;

/// Bytes of a tar block.
const BLOCK: usize = 512;

/// Entries with their data, as [`tar`] takes them.
type Entries = Vec<(Entry, &'static [u8])>;

/// What must become of an archive.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Want {
    /// It is refused as a layer; unpacked it may do what it wants within its directory.
    Refused,
    /// It is taken, and GNU tar reads and unpacks it the same way.
    Taken,
    /// It is taken, and GNU tar reads or unpacks it in another way, for this reason.
    Unlike(&'static str),
    /// It is taken, and GNU tar does not do the same every time, for this reason.
    Varies(#[allow(dead_code)] &'static str),
}

/// An archive made by hand.
struct Case {
    name: &'static str,
    archive: Vec<u8>,
    want: Want,
}

/// A directory with a canary in it, in which cases are tried.
struct Nest {
    temp: tempfile::TempDir,
    before: Vec<String>,
}

impl Nest {
    fn new() -> Self {
        // Thousands of small trees: in memory where that is to be had.
        let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("temp");
        let at = |path: &str| temp.path().join(path);
        fs::create_dir_all(at("canary/dir")).expect("fresh");
        fs::write(at("canary/file"), b"untouched").expect("fresh");
        fs::hard_link(at("canary/file"), at("canary/again")).expect("fresh");
        let before = describe(&at("canary"));
        Nest { temp, before }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// A new directory with this name.
    fn fresh(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("fresh");
        path
    }

    /// The canary is as it was, and nothing was made beside it.
    fn check(&self, what: &str) {
        assert_eq!(describe(&self.path("canary")), self.before, "{what} reached the canary");
        for entry in fs::read_dir(self.temp.path()).expect("there") {
            let name = entry.expect("an entry").file_name();
            let known = ["canary", "layer", "tree", "other", "archive", "work"];
            assert!(known.iter().any(|known| name == *known), "{what} made {name:?}");
        }
    }

    fn canary(&self) -> String {
        self.path("canary").to_str().expect("utf-8").to_owned()
    }
}

fn unpacked(archive: &[u8], root: &Path) -> Result<Applied> {
    let options = UnpackOptions { dest: b"", ownership: ownership(), limits: Limits::default() };
    unpack(archive, open_dir(root).as_fd(), &options)
}

/// No device that an overlay takes for a deleted file.
fn no_live_whiteout(root: &Path, what: &str) {
    let found = describe(root).into_iter().find(|line| line.contains(" char 0 "));
    assert_eq!(found, None, "{what}: a live whiteout");
}

/// Whether an error blames the archive.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::Limit)
}

/// Tries every case: as a layer, as an archive to unpack, and with GNU tar.
fn try_all(test: &str, nest: &Nest, cases: Vec<Case>) {
    let gnu = run("tar", &["--version"])
        .is_some_and(|output| String::from_utf8_lossy(&output.stdout).contains("GNU tar"));
    if !gnu {
        skip(test, "there is no GNU tar to compare with");
    }
    let mut wrong = Vec::new();
    for Case { name, archive, want } in cases {
        let layer = nest.fresh("layer");
        let applied = apply_layer(&archive, &layer);
        nest.check(&format!("{name}, as a layer"));
        no_live_whiteout(&layer, name);
        let tree = nest.fresh("tree");
        let extracted = unpacked(&archive, &tree);
        nest.check(&format!("{name}, unpacked"));
        no_live_whiteout(&tree, name);
        match (want, applied) {
            (Want::Refused, Err(error)) if is_refusal(&error) => {}
            (Want::Refused, Ok(_)) => wrong.push(format!("{name}: taken")),
            (_, Err(error)) => wrong.push(format!("{name}: {error}")),
            (Want::Varies(_), Ok(_)) => {}
            (want, Ok(_)) if gnu => {
                let differs = match extracted {
                    Err(error) => Some(format!("not unpacked: {error}")),
                    Ok(_) => unlike_gnu(nest, &archive, &contents(&tree)),
                };
                nest.check(&format!("{name}, with GNU tar"));
                match (want, differs) {
                    (Want::Taken, Some(how)) => wrong.push(format!("{name}: {how}")),
                    (Want::Unlike(reason), None) => {
                        wrong.push(format!("{name}: GNU tar agrees, though {reason}"));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// In what GNU tar differs from our reading of an archive and from what we have unpacked, if it does.
fn unlike_gnu(nest: &Nest, archive: &[u8], ours: &[String]) -> Option<String> {
    let file = nest.path("archive");
    fs::write(&file, archive).expect("own file");
    let file = file.to_str().expect("utf-8");
    let options = ["--numeric-owner", "--full-time", "--quoting-style=literal", "--utc"];
    let list = run("tar", &[&options[..], &["-tvf", file]].concat()).expect("tar is there");
    if !list.status.success() {
        return Some(format!("not listed: {}", String::from_utf8_lossy(&list.stderr)));
    }
    let theirs: Vec<&[u8]> = list.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect();
    let mut reader = TarReader::new(archive, TarLimits::default());
    let mut count = 0;
    while let Some(entry) = reader.next_entry().expect("it was applied") {
        let theirs = theirs.get(count).copied().map(words).unwrap_or_default();
        let ours = words(&listed(&entry));
        if theirs != ours {
            return Some(format!("listed as {theirs:?} instead of {ours:?}"));
        }
        count += 1;
    }
    if theirs.len() > count {
        return Some(format!("{} entries instead of {count}", theirs.len()));
    }
    let other = nest.fresh("other");
    let to = other.to_str().expect("utf-8");
    let out = run("tar", &["-xpf", file, "-C", to]).expect("tar is there");
    if !out.status.success() {
        return Some(format!("not unpacked: {}", String::from_utf8_lossy(&out.stderr)));
    }
    let theirs = contents(&other);
    (theirs != ours).then(|| format!("unpacked as {theirs:?} instead of {ours:?}"))
}

/// Words of a line of a list, without the fraction of its time and slashes behind a directory.
fn words(line: &[u8]) -> Vec<String> {
    let words = line.split(|b| *b == b' ').filter(|word| !word.is_empty());
    let mut words: Vec<String> = words.map(|word| word.escape_ascii().to_string()).collect();
    if let Some(time) = words.get_mut(4) {
        time.truncate(time.find('.').unwrap_or(time.len()));
    }
    if let Some(name) = words.get_mut(5).filter(|_| line.starts_with(b"d")) {
        name.truncate(name.trim_end_matches('/').len());
    }
    words
}

/// An entry as `tar -tv` prints it.
fn listed(entry: &Entry) -> Vec<u8> {
    let (letter, size, link): (_, _, Option<(&str, &[u8])>) = match &entry.kind {
        EntryKind::File => ('-', entry.size.to_string(), None),
        EntryKind::Directory => ('d', "0".to_owned(), None),
        EntryKind::Symlink(target) => ('l', "0".to_owned(), Some((" -> ", target))),
        EntryKind::HardLink(target) => ('h', "0".to_owned(), Some((" link to ", target))),
        EntryKind::CharDevice { major, minor } => ('c', format!("{major},{minor}"), None),
        EntryKind::BlockDevice { major, minor } => ('b', format!("{major},{minor}"), None),
        EntryKind::Fifo => ('p', "0".to_owned(), None),
    };
    let mut mode = String::from(letter);
    for (shift, special, letters) in [(6, 0o4000, "sS"), (3, 0o2000, "sS"), (0, 0o1000, "tT")] {
        let bits = entry.mode >> shift;
        mode.push(if bits & 4 != 0 { 'r' } else { '-' });
        mode.push(if bits & 2 != 0 { 'w' } else { '-' });
        let (both, alone) = letters.split_at(1);
        mode.push_str(match (entry.mode & special != 0, bits & 1 != 0) {
            (true, true) => both,
            (true, false) => alone,
            (false, true) => "x",
            (false, false) => "-",
        });
    }
    let time = Timestamp::from_seconds(entry.mtime).to_string().replace('T', " ").replace('Z', "");
    let mut line = format!("{mode} {}/{} {size} {time} ", entry.uid, entry.gid).into_bytes();
    line.extend_from_slice(&entry.path);
    if let Some((arrow, target)) = link {
        line.extend_from_slice(arrow.as_bytes());
        line.extend_from_slice(target);
    }
    line
}

/// A header with a right checksum: a file of `size` bytes, mode 0644, owner 0:0, dated 1970.
fn header(flag: u8, name: &[u8], size: usize) -> Vec<u8> {
    let mut header = vec![0; BLOCK];
    let length = name.len().min(100);
    header[..length].copy_from_slice(&name[..length]);
    header[100..107].copy_from_slice(if flag == b'5' { b"0000755" } else { b"0000644" });
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = flag;
    header[257..265].copy_from_slice(b"ustar\x0000");
    summed(&mut header);
    header
}

/// Corrects the checksum of a header.
fn summed(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// An entry written by hand: its header after `change`, then its data.
fn raw(flag: u8, name: &str, data: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut out = header(flag, name.as_bytes(), data.len());
    change(&mut out);
    summed(&mut out);
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

/// The end of an archive.
fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

/// An extended header with these records, of one entry (`x`) or of all that follow (`g`).
fn pax(flag: u8, records: &[Vec<u8>]) -> Vec<u8> {
    raw(flag, "PaxHeader", &records.concat(), |_| ())
}

/// A record of an extended header.
fn record(key: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    let rest = key.len() + value.len() + 3;
    let length =
        (rest..).find(|n| rest + n.to_string().len() == *n).expect("some length counts itself");
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}
