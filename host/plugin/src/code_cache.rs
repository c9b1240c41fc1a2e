//! Compiled code of components, kept between processes.
//!
//! Loading compiled code executes it, so an entry is used only if this program wrote it:
//!
//! - The directory belongs to the present user and nobody else may enter it (0700); so does each
//!   file. Files are opened relative to the directory, never through a symlink.
//! - An entry leaves no doubt: behind the code stand magic, key, length and a 256-bit keyed hash
//!   over all of it, checked at the first load of each boot and again whenever the file could have
//!   changed (module `mark`). The hash's key is random, is made with the directory and is readable
//!   by this user only: whoever can merely place a file there cannot make an entry that is used.
//!   The hash is HighwayHash, a pseudo-random function made for this: 0.1 ms per MiB where sha256
//!   takes 0.5 with and 3 without instructions for it.
//! - What was checked is what is mapped: the very file, by its descriptor. Entries are never
//!   changed in place, only replaced.
//! - The name of an entry is the key: component, engine version, settings and machine features.
//! - Whatever is wrong with an entry, it is removed and the component compiled anew. A cache that
//!   cannot be used costs time, never a build.
//!
//! Entries are written to a temporary name and renamed, without syncs: after a power cut the hash
//! tells a torn entry.

mod mark;

use std::ffi::OsString;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use highway::{HighwayHash, HighwayHasher, Key};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;
use wbuild_graph::Digest;

use self::mark::Mark;
use crate::compile::Fresh;
use crate::engine::PROFILE;

const MAGIC: &[u8; 16] = b"wbuild code v1\0\n";
/// What stands behind the code: magic, key, length, hash. Behind, since code is mapped from the
/// beginning of a file.
const FOOT: usize = 16 + 32 + 8 + 32;
/// Where in the foot the hash begins.
const HASH_AT: usize = 16 + 32 + 8;
/// How much is read at once to be hashed; stays in the processor's cache.
const PIECE: usize = 128 << 10;
/// Largest entry that is read: far above what the largest component compiles to.
const ENTRY_BYTES: u64 = 512 << 20;
/// All entries together; beyond it the oldest go.
const TOTAL_BYTES: u64 = 1 << 30;
const SECRET: &str = "hash.key";
const SUFFIX: &str = ".cwasm";
const TEMPORARY: &str = ".new-";

/// A directory of compiled code.
pub(crate) struct CodeCache {
    path: PathBuf,
    opened: OnceLock<Result<Opened, String>>,
}

struct Opened {
    dir: OwnedFd,
    secret: [u64; 4],
}

/// What became of a look-up.
pub(crate) enum Found {
    Component(Component),
    Nothing,
    /// Something was there and is gone now; says what was wrong with it.
    Rejected(String),
}

/// The key of a component's code.
pub(crate) fn entry_key(engine: &Engine, component: &Digest) -> Digest {
    struct Feed(Sha256);
    impl Hasher for Feed {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut feed = Feed(Sha256::new());
    feed.write(MAGIC);
    feed.write(component.as_bytes());
    PROFILE.hash(&mut feed);
    // Holds wasmtime's version, all settings, and the features of the processor.
    engine.precompile_compatibility_hash().hash(&mut feed);
    Digest::from_bytes(feed.0.finalize().into())
}

impl CodeCache {
    /// A cache in `path`, which is made when it is first used.
    pub(crate) fn new(path: PathBuf) -> Self {
        CodeCache { path, opened: OnceLock::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn opened(&self) -> Result<&Opened, String> {
        self.opened.get_or_init(|| Opened::new(&self.path)).as_ref().map_err(Clone::clone)
    }

    /// Loads compiled code.
    pub(crate) fn load(&self, engine: &Engine, key: &Digest) -> Found {
        let Ok(opened) = self.opened() else { return Found::Nothing };
        let entry = match opened.read(key, SystemTime::now()) {
            Ok(Some(entry)) => entry,
            Ok(None) => return Found::Nothing,
            Err(reason) => {
                opened.remove_entry(key);
                return Found::Rejected(reason);
            }
        };
        match deserialize(engine, &entry) {
            Ok(component) => Found::Component(component),
            Err(error) => {
                opened.remove_entry(key);
                Found::Rejected(error.to_string())
            }
        }
    }

    /// Whether there is an entry; what it is worth shows when it is read.
    pub(crate) fn has(&self, key: &Digest) -> bool {
        let has = |opened: &Opened| {
            rustix::fs::statat(&opened.dir, entry_name(key), AtFlags::SYMLINK_NOFOLLOW).is_ok()
        };
        self.opened().is_ok_and(has)
    }

    /// The file of an entry whose hash is right, open for reading: for a process that may read
    /// nothing else.
    pub(crate) fn open(&self, key: &Digest) -> Result<Option<File>, String> {
        let found = self.opened()?.read(key, SystemTime::now())?;
        Ok(found.map(|entry| entry.file))
    }

    /// Keeps compiled code. An error means that it is not kept, no more.
    pub(crate) fn store(&self, key: &Digest, code: &Fresh) -> Result<u64, String> {
        let code = &code.0;
        let opened = self.opened()?;
        opened.write(key, code)?;
        opened.prune(key);
        Ok(code.len() as u64)
    }
}

/// An entry whose hash was right.
struct Trusted {
    file: File,
    /// Whether it was hashed now: else it was before, in this boot, and has not changed since.
    #[cfg_attr(not(test), expect(dead_code, reason = "how it came to be trusted is tested"))]
    hashed: bool,
}

/// Makes code of an entry.
#[allow(unsafe_code)]
fn deserialize(engine: &Engine, entry: &Trusted) -> wasmtime::Result<Component> {
    // By descriptor: a path could lead to another file by now.
    let path = format!("/proc/self/fd/{}", entry.file.as_raw_fd());
    // SAFETY: `deserialize_file` demands a file that `Component::serialize` made and that nobody
    // changes while it is mapped. A `Trusted` exists only after the keyed hash of this very file,
    // whose key only this user can read, was found right and the file not changed since; files with
    // a right hash are written by `Opened::write` alone, from what `serialize` answered, and are
    // replaced but never changed: they are open to this user only. Bytes behind the code are no
    // part of it: its format is ELF, which says where its parts are. Wasmtime refuses another
    // version's or setting's code.
    unsafe { Component::deserialize_file(engine, path) }
}

/// Makes code of a file that another process of this program has checked and handed over.
#[allow(unsafe_code)]
pub(crate) fn deserialize_inherited(engine: &Engine, code: &File) -> wasmtime::Result<Component> {
    let path = format!("/proc/self/fd/{}", code.as_raw_fd());
    // SAFETY: as `deserialize`, but that the check of the hash was done by the process that started
    // this one, which it confines: what the code does beyond what it should hits that confinement.
    unsafe { Component::deserialize_file(engine, path) }
}

fn entry_name(key: &Digest) -> String {
    format!("{}{SUFFIX}", key.hex())
}

fn finish(hasher: HighwayHasher) -> [u8; 32] {
    let mut out = [0; 32];
    for (bytes, word) in out.chunks_exact_mut(8).zip(hasher.finalize256()) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    out
}

impl Opened {
    fn new(path: &Path) -> Result<Self, String> {
        let because = |what: &str| format!("code cache {}: {what}", path.display());
        std::fs::DirBuilder::new()
            .recursive(true)
            .create(path.parent().unwrap_or(path))
            .map_err(|error| because(&error.to_string()))?;
        match rustix::fs::mkdirat(CWD, path, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(because(&error.to_string())),
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|error| because(&error.to_string()))?;
        let stat = rustix::fs::fstat(&dir).map_err(|error| because(&error.to_string()))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(because("it belongs to another user"));
        }
        if stat.st_mode & 0o077 != 0 {
            return Err(because("others may enter it (its mode must be 0700)"));
        }
        let secret = secret(&dir).map_err(|error| because(&error))?;
        Ok(Opened { dir, secret })
    }

    fn remove(&self, name: &str) {
        // Nothing depends on it: an entry that stays is rejected again.
        let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::empty());
    }

    fn remove_entry(&self, key: &Digest) {
        self.remove(&entry_name(key));
        self.remove(&mark::name(key));
    }

    /// The entry, checked. `now` decides whether it has rested long enough to be marked.
    fn read(&self, key: &Digest, now: SystemTime) -> Result<Option<Trusted>, String> {
        let dir = self.dir.as_fd();
        let Some((file, stat)) = open_private(dir, &entry_name(key))? else {
            return Ok(None);
        };
        let mark = Mark::of(self.secret, key, &stat);
        if mark.as_ref().is_some_and(|mark| mark.stands(dir, key)) {
            return Ok(Some(Trusted { file, hashed: false }));
        }
        self.check(key, &file, &stat)?;
        // Of before the check: had the file changed since, the mark would not stand.
        if let Some(mark) = mark {
            mark.leave(dir, key, now);
        }
        Ok(Some(Trusted { file, hashed: true }))
    }

    /// Checks what stands behind the code, and the hash.
    fn check(&self, key: &Digest, file: &File, stat: &Stat) -> Result<(), String> {
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size > ENTRY_BYTES {
            return Err("it is too large".to_owned());
        }
        let Some(length) = size.checked_sub(FOOT as u64) else {
            return Err("it is shorter than its foot".to_owned());
        };
        let mut foot = [0; FOOT];
        file.read_exact_at(&mut foot, length).map_err(|error| error.to_string())?;
        if foot[..16] != MAGIC[..] {
            return Err("it is not an entry of this version".to_owned());
        }
        if foot[16..48] != key.as_bytes()[..] {
            return Err("it is the code of another component or engine".to_owned());
        }
        if foot[48..HASH_AT] != length.to_le_bytes()[..] {
            return Err("its length is wrong".to_owned());
        }
        let mut hasher = HighwayHasher::new(Key(self.secret));
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while at < length {
            let want = usize::try_from(length - at).unwrap_or(PIECE).min(PIECE);
            file.read_exact_at(&mut piece[..want], at).map_err(|error| error.to_string())?;
            hasher.append(&piece[..want]);
            at += want as u64;
        }
        hasher.append(&foot[..HASH_AT]);
        if foot[HASH_AT..] != finish(hasher)[..] {
            return Err("its hash is wrong".to_owned());
        }
        Ok(())
    }

    fn write(&self, key: &Digest, code: &[u8]) -> Result<(), String> {
        let mut foot = Vec::with_capacity(FOOT);
        foot.extend_from_slice(MAGIC);
        foot.extend_from_slice(key.as_bytes());
        foot.extend_from_slice(&(code.len() as u64).to_le_bytes());
        let mut hasher = HighwayHasher::new(Key(self.secret));
        hasher.append(code);
        hasher.append(&foot);
        foot.extend_from_slice(&finish(hasher));
        write_private(self.dir.as_fd(), &entry_name(key), &[code, &foot], RenameFlags::empty())
    }

    /// Removes what was left behind, and the oldest entries when there are too many.
    fn prune(&self, keep: &Digest) {
        let Ok(entries) = self.list() else { return };
        let newest = entries.iter().map(|entry| entry.modified).max().unwrap_or(0);
        for entry in entries.iter().filter(|entry| entry.name.starts_with(TEMPORARY)) {
            // A writer takes seconds; an hour old one has died.
            if entry.modified < newest - 3600 {
                self.remove(&entry.name);
            }
        }
        let mut code: Vec<&Listed> = entries.iter().filter(|e| e.name.ends_with(SUFFIX)).collect();
        code.sort_by_key(|entry| std::cmp::Reverse(entry.modified));
        let mut total = 0u64;
        for entry in code {
            total = total.saturating_add(entry.size);
            if total > TOTAL_BYTES && entry.name != entry_name(keep) {
                self.remove(&entry.name);
                self.remove(&entry.name.replace(SUFFIX, mark::SUFFIX));
            }
        }
    }

    fn list(&self) -> rustix::io::Result<Vec<Listed>> {
        let mut out = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir)? {
            let entry = entry?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            let (Ok(name), Ok(stat)) = (
                name.into_string(),
                rustix::fs::statat(&self.dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW),
            ) else {
                continue;
            };
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            out.push(Listed { name, size, modified: stat.st_mtime });
        }
        Ok(out)
    }
}

struct Listed {
    name: String,
    size: u64,
    modified: i64,
}

/// The key of the hash, made when there is none.
fn secret(dir: &OwnedFd) -> Result<[u64; 4], String> {
    // Twice: another process may make it between our look and our rename.
    for _ in 0..2 {
        match read_secret(dir) {
            Ok(Some(secret)) => return Ok(secret),
            Ok(None) => {}
            // Not ours, or damaged: what was hashed with it is lost either way.
            Err(_) => {
                let _ = rustix::fs::unlinkat(dir, SECRET, AtFlags::empty());
            }
        }
        let mut fresh = [0u8; 32];
        let mut filled = 0;
        while filled < fresh.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            filled += rustix::rand::getrandom(&mut fresh[filled..], flags)
                .map_err(|error| format!("no random bytes: {error}"))?;
        }
        // Never over another process's: its entries would all be rejected.
        if write_private(dir.as_fd(), SECRET, &[&fresh], RenameFlags::NOREPLACE).is_ok() {
            return Ok(words(&fresh));
        }
    }
    read_secret(dir)?.ok_or_else(|| "its key cannot be written".to_owned())
}

fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|n| u64::from_le_bytes(words[n]))
}

fn read_secret(dir: &OwnedFd) -> Result<Option<[u64; 4]>, String> {
    let Some((file, stat)) = open_private(dir, SECRET)? else { return Ok(None) };
    let mut bytes = [0; 32];
    if stat.st_size != 32 {
        return Err("its key is damaged".to_owned());
    }
    file.read_exact_at(&mut bytes, 0).map_err(|error| error.to_string())?;
    Ok(Some(words(&bytes)))
}

/// Opens a file that must be a regular file of this user which nobody else can write.
fn open_private(dir: impl AsFd, name: &str) -> Result<Option<(File, Stat)>, String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(format!("it cannot be opened: {error}")),
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| error.to_string())?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("it is not a regular file".to_owned());
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
        return Err("others may write it".to_owned());
    }
    Ok(Some((file.into(), stat)))
}

/// Writes a file under a temporary name and gives it its own.
fn write_private(
    dir: impl AsFd,
    name: &str,
    parts: &[&[u8]],
    rename: RenameFlags,
) -> Result<(), String> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let temporary = format!("{TEMPORARY}{}-{serial}", std::process::id());
    let dir = dir.as_fd();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(dir, &temporary, flags, Mode::RUSR | Mode::WUSR);
    let file = open().or_else(|error| {
        // A process of the same id that was killed.
        rustix::fs::unlinkat(dir, &temporary, AtFlags::empty()).map_err(|_| error)?;
        open()
    });
    let mut file = File::from(file.map_err(|error| format!("{temporary}: {error}"))?);
    let written = parts.iter().try_for_each(|part| file.write_all(part)).map_err(|e| e.to_string());
    let renamed = written.and_then(|()| {
        rustix::fs::renameat_with(dir, &temporary, dir, name, rename)
            .map_err(|error| format!("{name}: {error}"))
    });
    if renamed.is_err() {
        let _ = rustix::fs::unlinkat(dir, &temporary, AtFlags::empty());
    }
    renamed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Until the clock of the file system has gone on: what changes then gets another time.
    fn tick() {
        std::thread::sleep(Duration::from_millis(50));
    }

    /// Whether an entry is hashed, an hour later, when it has rested.
    fn hashed(opened: &Opened, key: &Digest) -> bool {
        let later = SystemTime::now() + Duration::from_secs(3600);
        opened.read(key, later).expect("a good entry").expect("an entry").hashed
    }

    #[test]
    fn an_entry_is_hashed_until_it_has_rested_and_again_when_it_changed() {
        let temp = tempfile::tempdir().expect("directory");
        let path = temp.path().join("code");
        let opened = Opened::new(&path).expect("it opens");
        let keys = [Digest::of(b"one"), Digest::of(b"two")];
        for key in &keys {
            opened.write(key, b"code").expect("it is written");
            for now in [
                SystemTime::UNIX_EPOCH,
                std::fs::metadata(path.join(entry_name(key)))
                    .and_then(|entry| entry.modified())
                    .expect("a time"),
            ] {
                assert!(opened.read(key, now).expect("good").expect("is").hashed);
                assert!(!path.join(mark::name(key)).exists(), "it has not rested");
            }
        }
        tick();
        for key in &keys {
            assert!(hashed(&opened, key), "never before");
            assert!(!hashed(&opened, key) && !hashed(&opened, key), "it is marked");
        }
        assert!(!hashed(&Opened::new(&path).expect("it opens"), &keys[0]), "in any process");

        // A mark is for one entry.
        let marks = keys.map(|key| path.join(mark::name(&key)));
        std::fs::copy(&marks[0], &marks[1]).expect("copy");
        assert!(hashed(&opened, &keys[1]));

        // Written over with the same bytes or others, replaced, renamed: it is looked at.
        let entries = keys.map(|key| path.join(entry_name(&key)));
        let good = std::fs::read(&entries[0]).expect("entry");
        tick();
        std::fs::write(&entries[0], &good).expect("write");
        assert!(hashed(&opened, &keys[0]) && !hashed(&opened, &keys[0]), "marked anew");
        let modified = std::fs::metadata(&entries[0]).expect("entry").modified().expect("time");
        let mut bad = good.clone();
        bad[0] ^= 1;
        tick();
        std::fs::write(&entries[0], &bad).expect("write");
        let file = File::options().write(true).open(&entries[0]).expect("open");
        file.set_modified(modified).expect("set the time of modification back");
        assert_eq!(
            opened.read(&keys[0], SystemTime::now()).err().as_deref(),
            Some("its hash is wrong")
        );

        tick();
        std::fs::write(&entries[0], &good).expect("write");
        assert!(hashed(&opened, &keys[0]) && !hashed(&opened, &keys[0]), "marked anew");
        tick();
        std::fs::rename(&entries[1], &entries[0]).expect("rename");
        assert!(opened.read(&keys[0], SystemTime::now()).is_err(), "the code of another component");
    }

    #[test]
    fn a_mark_of_another_secret_or_shape_does_not_stand() {
        let temp = tempfile::tempdir().expect("directory");
        let path = temp.path().join("code");
        let opened = Opened::new(&path).expect("it opens");
        let key = Digest::of(b"one");
        opened.write(&key, b"code").expect("it is written");
        tick();
        assert!(hashed(&opened, &key) && !hashed(&opened, &key));
        let mark = path.join(mark::name(&key));
        let good = std::fs::read(&mark).expect("mark");
        for bad in [&good[..31], &[&good[..], b"x"].concat(), &[0; 32], b""] {
            std::fs::write(&mark, bad).expect("write");
            assert!(hashed(&opened, &key), "{bad:?}");
            assert!(!hashed(&opened, &key), "marked anew");
        }
        let (_, stat) = open_private(&opened.dir, &entry_name(&key)).expect("opens").expect("is");
        let foreign = Mark::of([1, 2, 3, 4], &key, &stat).expect("a mark");
        assert!(!foreign.stands(opened.dir.as_fd(), &key));
        foreign.leave(opened.dir.as_fd(), &key, SystemTime::now() + Duration::from_secs(3600));
        assert!(hashed(&opened, &key), "left with another key");
        opened.remove_entry(&key);
        assert!(!mark.exists());
    }
}
