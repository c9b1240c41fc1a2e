//! Content-addressed blobs, verified on the way in.
//!
//! ```text
//! blobs/sha256/ab/<hex>            durable
//! blobs/pending/<boot id>/<hex>    written in that boot, not sealed yet
//! ```
//!
//! A blob is written to `tmp`, hashed while it passes, and renamed to its name among the pending
//! ones of this boot; a seal moves it to its final place once its data is on disk. So a name under
//! `sha256` never stands for data that a power cut took. What another boot left pending is hashed
//! again before it is believed.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;

use sha2::{Digest as _, Sha256};
use wbuild_graph::{BlobDigest, Digest};

use crate::error::{Error, Result};
use crate::files::{Folder, random_name, touch};
use crate::lease::{Held, Lease, LeaseItem};
use crate::partial::LEAST;
use crate::store::{Inner, Store};
use crate::sync::read;

pub(crate) const BUFFER: usize = 64 << 10;

/// A blob that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Of its bytes.
    pub digest: BlobDigest,
    /// In bytes.
    pub size: u64,
}

/// A blob open for reading. It cannot be evicted while this exists.
#[derive(Debug)]
pub struct Blob {
    /// At its beginning.
    pub file: File,
    /// Of its bytes.
    pub digest: BlobDigest,
    /// In bytes.
    pub size: u64,
    lease: Lease,
}

impl Blob {
    /// The lease that keeps it.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }
}

/// What verifying a blob found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobCheck {
    /// Its bytes have its digest.
    Good,
    /// They have not; it was removed (unless the store is read-only).
    Damaged,
    /// There is no such blob.
    Absent,
}

/// A blob write in progress. Dropping it removes what was written, unless it is to be resumed.
#[derive(Debug)]
pub struct Ingest {
    pub(crate) store: Store,
    pub(crate) name: String,
    pub(crate) out: Option<BufWriter<File>>,
    /// None: the caller hashes.
    pub(crate) hasher: Option<Sha256>,
    pub(crate) written: u64,
    pub(crate) limit: u64,
    /// What is written when it is dropped stays for the next attempt; see `partial`.
    pub(crate) keep: bool,
}

impl Store {
    /// Begins writing a blob of at most `limit` bytes.
    pub fn ingest(&self, limit: u64) -> Result<Ingest> {
        self.inner.check_writable()?;
        let name = format!("ingest-{}", random_name()?);
        let file = self.inner.tmp.create_new(&name)?;
        Ok(Ingest {
            store: self.clone(),
            name,
            out: Some(BufWriter::with_capacity(BUFFER, file)),
            hasher: Some(Sha256::new()),
            written: 0,
            limit,
            keep: false,
        })
    }

    /// Stores small data as a blob.
    pub fn put_blob(&self, data: &[u8]) -> Result<BlobDigest> {
        self.inner.check_writable()?;
        let digest = BlobDigest(Digest::of(data));
        if self.inner.find_blob(&digest)?.is_some_and(|(_, size)| size == data.len() as u64) {
            return Ok(digest);
        }
        let mut ingest = self.ingest(data.len() as u64)?;
        ingest.append(data)?;
        ingest.commit(Some(&digest), None).map(|info| info.digest)
    }

    /// Reads a whole blob of at most `limit` bytes; `None` if it is not here.
    pub fn read_blob(&self, digest: &BlobDigest, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(mut blob) = self.open_blob(digest)? else { return Ok(None) };
        if blob.size > limit {
            return Err(Error::TooLarge { what: format!("blob {digest}"), limit, unit: "bytes" });
        }
        let mut out = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(0));
        blob.file.read_to_end(&mut out).map_err(|e| self.blob_error("read", digest, e))?;
        if Digest::of(&out) != digest.0 {
            // Small blobs are metadata; a flipped bit there must never be acted upon.
            return Err(Error::damaged(self.blob_path(digest), "its bytes have another digest"));
        }
        Ok(Some(out))
    }

    /// Opens a blob and marks it as used; `None` if it is not here. Its bytes were verified when
    /// they came in and are not hashed again; see [`Store::verify_blob`].
    pub fn open_blob(&self, digest: &BlobDigest) -> Result<Option<Blob>> {
        let _gc = read(&self.inner.gc);
        let Some((file, size)) = self.inner.find_blob(digest)? else { return Ok(None) };
        if !self.inner.read_only {
            touch(&file);
        }
        let lease = self.inner.leases.lease(vec![LeaseItem::Blob(*digest)]);
        Ok(Some(Blob { file, digest: *digest, size, lease }))
    }

    /// Whether a blob is here. Neither marks it as used nor keeps it.
    pub fn has_blob(&self, digest: &BlobDigest) -> Result<bool> {
        Ok(self.inner.find_blob(digest)?.is_some())
    }

    /// Hashes a blob's bytes again. One that is damaged stays, for a repair to set aside.
    pub fn verify_blob(&self, digest: &BlobDigest) -> Result<BlobCheck> {
        let Some((file, _)) = self.inner.find_blob(digest)? else { return Ok(BlobCheck::Absent) };
        let actual = hash_file(file).map_err(|e| self.blob_error("read", digest, e))?;
        if actual == digest.0 {
            return Ok(BlobCheck::Good);
        }
        Ok(BlobCheck::Damaged)
    }

    fn blob_path(&self, digest: &BlobDigest) -> std::path::PathBuf {
        let hex = digest.0.hex();
        self.inner.blobs.join(&hex[..2]).join(hex)
    }

    fn blob_error(&self, action: &'static str, digest: &BlobDigest, e: io::Error) -> Error {
        Error::io(action, self.blob_path(digest), e)
    }
}

impl Ingest {
    /// For code of ours that hashes all that it writes in here and names the digest at the commit:
    /// nothing is hashed a second time.
    pub fn hashed_by_caller(mut self) -> Self {
        self.hasher = None;
        self
    }

    /// Appends bytes. (The same as [`Write::write_all`], with this crate's errors.)
    pub fn append(&mut self, data: &[u8]) -> Result<()> {
        if data.len() as u64 > self.limit - self.written {
            return Err(Error::TooLarge {
                what: "a blob".into(),
                limit: self.limit,
                unit: "bytes",
            });
        }
        let out = self.out.as_mut().expect("taken only by commit, which consumes self");
        if let Err(e) = out.write_all(data) {
            // On a full disk it would only be in the way.
            self.keep = false;
            return Err(Error::io("write", self.store.inner.tmp.join(&self.name), e));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(data);
        }
        self.written += data.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.written
    }

    /// Drops what was written so far, to begin again.
    pub fn restart(&mut self) -> Result<()> {
        let failed = |e| Error::io("truncate", self.store.inner.tmp.join(&self.name), e);
        let out = self.out.as_mut().expect("taken only by commit, which consumes self");
        out.flush().and_then(|()| out.get_mut().set_len(0)).map_err(failed)?;
        out.seek(SeekFrom::Start(0)).map_err(failed)?;
        self.hasher = self.hasher.as_ref().map(|_| Sha256::new());
        self.written = 0;
        Ok(())
    }

    /// The digest of what was written so far; none if the caller hashes.
    pub fn digest(&self) -> Option<BlobDigest> {
        let hasher = self.hasher.clone()?;
        Some(BlobDigest(Digest::from_bytes(hasher.finalize().into())))
    }

    /// Finishes the blob. With `digest` and `size`, what came must be what was announced.
    pub fn commit(
        mut self,
        digest: Option<&BlobDigest>,
        size: Option<u64>,
    ) -> Result<Held<BlobInfo>> {
        if let Some(expected) = size
            && expected != self.written
        {
            return Err(Error::SizeMismatch { expected, actual: self.written });
        }
        let actual = match (self.digest(), digest) {
            (Some(actual), _) => actual,
            (None, Some(digest)) => *digest,
            (None, None) => {
                return Err(Error::Invalid {
                    what: "blob",
                    reason: "whoever hashes it has to name its digest".to_owned(),
                });
            }
        };
        // From here on it is a blob, or of no use to anybody.
        self.keep = false;
        if let Some(expected) = digest
            && *expected != actual
        {
            return Err(Error::DigestMismatch { expected: *expected, actual });
        }
        let store = self.store.clone();
        let inner = &*store.inner;
        let mut out = self.out.take().expect("commit runs once");
        // Open until it has its name, for the sake of its lock.
        out.flush().map_err(|e| Error::io("write", inner.tmp.join(&self.name), e))?;
        failpoint!("ingest::written", inner.tmp.join(&self.name));
        let info = BlobInfo { digest: actual, size: self.written };
        let _gc = read(&inner.gc);
        let lease = inner.leases.lease(vec![LeaseItem::Blob(actual)]);
        match inner.find_blob(&actual)? {
            Some((file, size)) if size == info.size => touch(&file),
            found => {
                // Held until the name is there: a seal must not list half of a group.
                let _group = read(&inner.seq);
                inner.mark_dirty();
                if found.is_some() {
                    // Cut short by a defect of the disk or by hand: the good bytes replace it.
                    inner.remove_blob(&actual)?;
                }
                inner.account.begin(&inner.root)?;
                inner.account.add_file(self.written);
                let pending = inner.pending_root.ensure(inner.boot.as_str())?;
                inner.tmp.rename(&self.name, &pending, &actual.0.hex())?;
                failpoint!("ingest::renamed", pending.path());
            }
        }
        Ok(Held::new(info, lease))
    }
}

impl Write for Ingest {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.append(data)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if self.keep && self.written >= LEAST {
            let inner = &self.store.inner;
            // What cannot be counted is counted when everything is.
            if inner.account.begin(&inner.root).is_ok() {
                inner.account.add_file(self.written);
            }
            return;
        }
        // After a commit that renamed it there is nothing of this name any more.
        let _ = self.store.inner.tmp.remove_file(&self.name);
    }
}

impl Inner {
    /// Finds a blob in its final place or among the pending ones of this boot.
    pub(crate) fn find_blob(&self, digest: &BlobDigest) -> Result<Option<(File, u64)>> {
        let hex = digest.0.hex();
        let mut found = self.open_blob_file(&hex)?;
        if found.is_none() && !self.read_only && self.adopted.get().is_none() {
            self.adopt_pending()?;
            found = self.open_blob_file(&hex)?;
        }
        let Some(file) = found else { return Ok(None) };
        let meta = file.metadata().map_err(|e| Error::io("look up", self.blobs.join(&hex), e))?;
        Ok(Some((file, meta.size())))
    }

    fn open_blob_file(&self, hex: &str) -> Result<Option<File>> {
        let place = |hex: &str| format!("{}/{hex}", &hex[..2]);
        if let Some(file) = self.blobs.try_open(&place(hex))? {
            return Ok(Some(file));
        }
        let pending = format!("{}/{hex}", self.boot.as_str());
        if let Some(file) = self.pending_root.try_open(&pending)? {
            // Whoever uses it will acknowledge something that depends on it.
            self.mark_dirty();
            return Ok(Some(file));
        }
        // A seal may have moved it between the two looks.
        self.blobs.try_open(&place(hex))
    }

    /// Removes a blob wherever it is.
    pub(crate) fn remove_blob(&self, digest: &BlobDigest) -> Result<bool> {
        let hex = digest.0.hex();
        let pending = self.pending_root.remove_file(&format!("{}/{hex}", self.boot.as_str()))?;
        Ok(self.blobs.remove_file(&format!("{}/{hex}", &hex[..2]))? || pending)
    }

    /// Names of the blobs of this boot that no seal covers yet.
    pub(crate) fn pending_blobs(&self) -> Result<Vec<String>> {
        let Some(pending) = self.pending_root.try_sub(self.boot.as_str())? else {
            return Ok(Vec::new());
        };
        Ok(pending.list()?.into_iter().map(|(name, _)| name).collect())
    }

    /// Moves blobs whose data is on disk to their final place.
    pub(crate) fn promote_blobs(&self, names: &[String]) -> Result<()> {
        let Some(pending) = self.pending_root.try_sub(self.boot.as_str())? else {
            return Ok(());
        };
        for name in names {
            // Evicted meanwhile is fine.
            if Digest::from_hex(name).is_ok() && pending.exists(name)? {
                pending.rename(name, &self.blobs.ensure(&name[..2])?, name)?;
                failpoint!("seal::promoted", self.blobs.join(name));
            }
        }
        Ok(())
    }

    /// Looks through what other boots left pending, once per open: what has its digest is kept.
    pub(crate) fn adopt_pending(&self) -> Result<()> {
        if self.adopted.set(()).is_err() {
            return Ok(());
        }
        for (boot, _) in self.pending_root.list()? {
            if boot == self.boot.as_str() {
                continue;
            }
            let folder = self.pending_root.sub(&boot)?;
            for (name, _) in folder.list()? {
                if let Ok(digest) = Digest::from_hex(&name)
                    && let Some(file) = folder.try_open(&name)?
                    && hash_file(file).is_ok_and(|actual| actual == digest)
                {
                    folder.rename(&name, &self.blobs.ensure(&name[..2])?, &name)?;
                }
            }
            self.pending_root.remove_all(&boot)?;
        }
        Ok(())
    }

    /// Every blob: folder, name. Sorted by name within a folder.
    pub(crate) fn each_blob(
        &self,
        mut visit: impl FnMut(&Folder, &str, BlobDigest) -> Result<()>,
    ) -> Result<()> {
        let shards = self.blobs.list()?.into_iter().map(|(name, _)| (&self.blobs, name));
        let pending = std::iter::once((&self.pending_root, self.boot.as_str().to_owned()));
        for (parent, name) in shards.chain(pending) {
            let Some(folder) = parent.try_sub(&name)? else { continue };
            for (name, _) in folder.list()? {
                if let Ok(digest) = Digest::from_hex(&name) {
                    visit(&folder, &name, BlobDigest(digest))?;
                }
            }
        }
        Ok(())
    }
}

/// The digest of a file's bytes from its present position.
pub(crate) fn hash_file(mut file: File) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from_bytes(hasher.finalize().into())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{OpenOptions, Sealed};
    use crate::testing::{open, open_in_boot, options};

    fn digest(data: &[u8]) -> BlobDigest {
        BlobDigest(Digest::of(data))
    }

    #[test]
    fn a_blob_is_there_after_commit_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let mut ingest = store.ingest(100).unwrap();
        ingest.write_all(b"hello ").unwrap();
        ingest.write_all(b"world").unwrap();
        assert!(!store.has_blob(&digest(b"hello world")).unwrap());
        let info = ingest.commit(Some(&digest(b"hello world")), Some(11)).unwrap();
        assert_eq!((info.digest, info.size), (digest(b"hello world"), 11));
        assert_eq!(store.read_blob(&info.digest, 11).unwrap().unwrap(), b"hello world");
        assert!(store.read_blob(&info.digest, 10).is_err());
        assert_eq!(store.read_blob(&digest(b"other"), 10).unwrap(), None);
        let mut again = store.ingest(100).unwrap();
        again.append(b"hello world").unwrap();
        again.commit(None, None).unwrap();
        assert_eq!(std::fs::read_dir(store.tmp_path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_not_as_announced_or_too_long_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let begin = |limit| {
            let mut ingest = store.ingest(limit).unwrap();
            ingest.append(b"abc").unwrap();
            ingest
        };
        let error = begin(9).commit(Some(&digest(b"abd")), None).unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }));
        let error = begin(9).commit(None, Some(4)).unwrap_err();
        assert!(matches!(error, Error::SizeMismatch { expected: 4, actual: 3 }));
        let mut full = begin(4);
        assert!(matches!(full.append(b"de"), Err(Error::TooLarge { limit: 4, .. })));
        full.append(b"d").unwrap();
        drop(full);
        drop(begin(9));
        assert_eq!(std::fs::read_dir(store.tmp_path()).unwrap().count(), 0);
        assert_eq!(store.seal().unwrap(), Sealed::Nothing);
    }

    #[test]
    fn a_flipped_bit_is_found_and_the_blob_can_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let digest = store.put_blob(b"precious").unwrap();
        store.seal().unwrap();
        let path = store.blob_path(&digest);
        std::fs::write(&path, b"precioux").unwrap();
        assert!(matches!(store.read_blob(&digest, 99), Err(Error::Damaged { .. })));
        assert_eq!(store.verify_blob(&digest).unwrap(), BlobCheck::Damaged);
        assert!(store.has_blob(&digest).unwrap(), "it is left for a repair");
        store.fsck(crate::FsckOptions { verify_blobs: true, repair: true }).unwrap();
        assert_eq!(store.verify_blob(&digest).unwrap(), BlobCheck::Absent);
        store.put_blob(b"precious").unwrap();
        assert_eq!(store.verify_blob(&digest).unwrap(), BlobCheck::Good);
        store.seal().unwrap();
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(store.put_blob(b"precious").unwrap(), digest);
        assert_eq!(store.verify_blob(&digest).unwrap(), BlobCheck::Good);
    }

    #[test]
    fn unsealed_blobs_of_another_boot_are_hashed_before_they_are_believed() {
        let dir = tempfile::tempdir().unwrap();
        let store = open_in_boot(dir.path(), "one");
        let sealed = store.put_blob(b"sealed").unwrap();
        store.seal().unwrap();
        let (good, torn) = (store.put_blob(b"good").unwrap(), store.put_blob(b"torn").unwrap());
        drop(store);
        let store = open_in_boot(dir.path(), "one");
        assert!(store.has_blob(&torn).unwrap(), "same boot: the page cache is intact");
        drop(store);
        std::fs::write(dir.path().join("blobs/pending/one").join(torn.0.hex()), b"").unwrap();
        let store = open_in_boot(dir.path(), "two");
        for (blob, there) in [(&sealed, true), (&good, true), (&torn, false)] {
            assert_eq!(store.has_blob(blob).unwrap(), there);
        }
        assert!(!dir.path().join("blobs/pending/one").exists());
        let reader = OpenOptions { read_only: true, ..options() };
        assert!(Store::open(dir.path(), reader).unwrap().has_blob(&good).unwrap());
    }
}
