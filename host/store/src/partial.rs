//! Blobs that are not all here yet, kept for whoever fetches them again.
//!
//! `tmp/partial-<hex>` is the beginning of the blob with that digest, as far as somebody has sent it.
//! It survives the process that wrote it, killed or not, and counts for nothing: a blob that is
//! continued is hashed from its first byte. Only the newest few are kept, and prune takes them like
//! blobs. Who writes one holds a lock on the file.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use rustix::fs::{FlockOperation, OFlags, flock};
use sha2::{Digest as _, Sha256};
use wbuild_graph::{BlobDigest, Digest};

use crate::blob::{BUFFER, Ingest};
use crate::error::{Error, Result};
use crate::files::{Folder, modified};
use crate::store::{Inner, Store};

/// Most beginnings that are kept.
const MOST: usize = 16;
/// Below so many bytes nothing is gained by keeping one.
pub(crate) const LEAST: u64 = 256 << 10;

fn name(digest: &BlobDigest) -> String {
    format!("partial-{}", digest.0.hex())
}

fn digest_of(name: &str) -> Option<BlobDigest> {
    name.strip_prefix("partial-").and_then(|hex| Digest::from_hex(hex).ok()).map(BlobDigest)
}

impl Store {
    /// Begins writing the blob `digest` of at most `limit` bytes, behind what an earlier attempt has
    /// left of it ([`Ingest::size`]). Reads that, so it may take long. What is written stays when this
    /// is dropped, for the next attempt.
    pub fn resume(&self, digest: &BlobDigest, limit: u64) -> Result<Ingest> {
        self.inner.check_writable()?;
        let tmp = &self.inner.tmp;
        let name = name(digest);
        let mut file = tmp.open_or_create(&name, OFlags::empty())?;
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // Between opening and locking it, its writer may have finished it: then it is a blob, and not
        // to be touched. A writer gives up its lock only after that.
        let opened = file.metadata().map_err(|e| Error::io("look up", tmp.join(&name), e))?;
        if !locked || tmp.stat(&name)?.is_none_or(|stat| stat.st_ino != opened.ino()) {
            // Somebody else is at it; this one is for itself.
            return self.ingest(limit);
        }
        let failed = |e: io::Error| Error::io("read", tmp.join(&name), e);
        let (hasher, size) = read(&mut file, limit).map_err(failed)?;
        let out = BufWriter::with_capacity(BUFFER, file);
        Ok(Ingest {
            store: self.clone(),
            name,
            out: Some(out),
            hasher: Some(hasher),
            written: size,
            limit,
            keep: true,
        })
    }
}

/// Hashes what is there, and leaves the file at its end. What is too long is dropped.
fn read(file: &mut File, limit: u64) -> io::Result<(Sha256, u64)> {
    let mut hasher = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; BUFFER];
    if file.metadata()?.len() > limit {
        file.set_len(0)?;
    }
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
    file.seek(SeekFrom::Start(size))?;
    Ok((hasher, size))
}

/// Empties `tmp`, where everything unfinished lives, but for the newest beginnings of blobs. One
/// `readdir` when there is nothing.
pub(crate) fn sweep(tmp: &Folder) -> Result<()> {
    let mut kept = Vec::new();
    for (name, _) in tmp.list()? {
        match digest_of(&name) {
            Some(_) => {
                if let Some(stat) = tmp.stat(&name)? {
                    kept.push((modified(&stat), name));
                }
            }
            None => tmp.remove_all(&name)?,
        }
    }
    if kept.len() > MOST {
        kept.sort();
        for (_, name) in &kept[..kept.len() - MOST] {
            tmp.remove_all(name)?;
        }
    }
    Ok(())
}

/// One that prune may take.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) digest: BlobDigest,
    pub(crate) last_used: SystemTime,
}

impl Partial {
    /// Its name in `tmp`.
    pub(crate) fn name(&self) -> String {
        name(&self.digest)
    }
}

impl Inner {
    /// All of them, by digest.
    pub(crate) fn partials(&self) -> Result<Vec<Partial>> {
        let mut out = Vec::new();
        for (name, _) in self.tmp.list()? {
            if let Some(digest) = digest_of(&name)
                && let Some(stat) = self.tmp.stat(&name)?
            {
                out.push(Partial { digest, last_used: modified(&stat) });
            }
        }
        out.sort_by_key(|partial| partial.digest);
        Ok(out)
    }

    /// Removes one, unless somebody writes it.
    pub(crate) fn remove_partial(&self, digest: &BlobDigest) -> Result<bool> {
        let name = name(digest);
        let Some(file) = self.tmp.try_open(&name)? else { return Ok(false) };
        Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            && self.tmp.remove_file(&name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::PruneFilter;
    use crate::testing::open;

    fn data() -> Vec<u8> {
        (0..600_000u32).map(|n| (n % 251) as u8).collect()
    }

    fn digest(data: &[u8]) -> BlobDigest {
        BlobDigest(Digest::of(data))
    }

    #[test]
    fn what_was_written_is_there_in_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let (data, store) = (data(), open(dir.path()));
        let digest = digest(&data);
        let mut first = store.resume(&digest, 1 << 20).unwrap();
        assert_eq!(first.size(), 0);
        first.append(&data[..400_000]).unwrap();
        // A second one meanwhile is for itself, and leaves nothing.
        let mut second = store.resume(&digest, 1 << 20).unwrap();
        assert_eq!(second.size(), 0);
        second.append(&data[..300_000]).unwrap();
        drop((first, second));
        assert_eq!(store.inner.partials().unwrap().len(), 1);
        drop(store);

        let store = open(dir.path());
        let mut third = store.resume(&digest, 1 << 20).unwrap();
        assert_eq!(third.size(), 400_000);
        third.append(&data[400_000..]).unwrap();
        third.commit(Some(&digest), Some(600_000)).unwrap();
        assert_eq!(store.read_blob(&digest, 1 << 20).unwrap().unwrap(), data);
        assert_eq!(std::fs::read_dir(store.tmp_path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_wrong_short_or_too_long_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (data, store) = (data(), open(dir.path()));
        let digest = digest(&data);
        let left = || std::fs::read_dir(store.tmp_path()).unwrap().count();
        let mut wrong = store.resume(&digest, 1 << 20).unwrap();
        wrong.append(&vec![1; 600_000]).unwrap();
        assert!(wrong.commit(Some(&digest), Some(600_000)).is_err());
        assert_eq!(left(), 0);
        let mut short = store.resume(&digest, 1 << 20).unwrap();
        short.append(&data[..1000]).unwrap();
        drop(short);
        assert_eq!(left(), 0);
        let mut again = store.resume(&digest, 1 << 20).unwrap();
        again.append(&vec![1; 500_000]).unwrap();
        again.restart().unwrap();
        assert_eq!(again.size(), 0);
        again.append(&data).unwrap();
        assert_eq!(again.digest(), Some(digest));
        drop(again);
        // A smaller limit than what is there: it cannot be its beginning.
        assert_eq!(store.resume(&digest, 500_000).unwrap().size(), 0);
    }

    #[test]
    fn few_are_kept_and_prune_takes_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        for n in 0..MOST + 3 {
            let text = vec![u8::try_from(n).unwrap(); 300_000];
            let mut ingest = store.resume(&digest(&text), 1 << 20).unwrap();
            ingest.append(&text).unwrap();
        }
        assert_eq!(store.inner.partials().unwrap().len(), MOST + 3);
        drop(store);
        let store = open(dir.path());
        let left = store.inner.partials().unwrap();
        assert_eq!(left.len(), MOST);
        let mut entries = store.du().unwrap();
        entries.retain(|entry| entry.kind == crate::UsageKind::Blob);
        assert_eq!(entries.len(), MOST);
        assert!(entries.iter().all(|entry| entry.size_bytes >= 300_000));
        let busy = store.resume(&left[0].digest, 1 << 20).unwrap();
        let all = PruneFilter { all: true, ..PruneFilter::default() };
        let report = store.prune(&all).unwrap();
        assert_eq!(report.removed.len(), MOST - 1);
        assert!(report.freed_bytes >= 300_000 * (MOST as u64 - 1));
        assert_eq!(busy.size(), 300_000, "what is being fetched stays");
        drop(busy);
        assert_eq!(store.inner.partials().unwrap().len(), 1);
    }
}
