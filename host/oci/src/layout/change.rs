//! Adds to an image layout in a directory piece by piece, and removes what nothing there leads to.
//!
//! Order keeps it whole: blobs, then the manifest that names them, then the entry of `index.json` that
//! names that; what is removed is reachable from no entry. Each file appears by a rename. Who adds or
//! removes holds the lock of the directory, else one could remove what another has not named yet;
//! readers need none.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use wbuild_graph::Digest;

use super::read::{open_file, read_limited};
use super::write::{list, make_folders, put, read_index};
use super::{LAYOUT_FILE, LAYOUT_TEXT, VerifyingReader};
use crate::error::{Error, ErrorKind, Result};
use crate::image::MAX_NESTED_INDEXES;
use crate::media::{ANNOTATION_REF_NAME, Descriptor, Document, MAX_MANIFEST};
use crate::pipe::ahead;

/// Where blobs lie.
const BLOBS: &str = "blobs/sha256";

/// An image layout that is changed; see the module. The lock goes with it.
pub struct LayoutWriter {
    dir: OwnedFd,
}

impl LayoutWriter {
    /// A writer of the layout in `dir`, which is made one if it is none; `None` while another process
    /// changes it.
    ///
    /// # Errors
    /// There are blobs and it is no layout: they are somebody else's, and would be removed as nobody's.
    pub fn try_lock(dir: OwnedFd) -> Result<Option<LayoutWriter>> {
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            // Some file systems have no locks; there it is left to the user to take turns.
            Ok(()) | Err(Errno::NOTSUP | Errno::NOSYS | Errno::NOLCK | Errno::INVAL) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(Error::io("cannot lock an image layout", error)),
        }
        let writer = LayoutWriter { dir };
        writer.mark()?;
        Ok(Some(writer))
    }

    fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Makes the directory a layout, before anything is in it: so one that has blobs and no mark was
    /// not begun here.
    fn mark(&self) -> Result<()> {
        make_folders(self.dir())?;
        if !matches!(open_file(self.dir(), LAYOUT_FILE), Err(Errno::NOENT)) {
            return Ok(());
        }
        if self.blobs()?.next().transpose()?.is_some() {
            let message = "the directory has blobs and is no OCI image layout";
            return Err(Error::invalid(message).hint("name an empty directory"));
        }
        put(self.dir(), LAYOUT_FILE, &mut &LAYOUT_TEXT[..])
    }

    /// Names of files among the blobs.
    fn blobs(&self) -> Result<impl Iterator<Item = Result<String>> + use<>> {
        let failed = |e: Errno| Error::io("cannot look through an image layout", e);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(self.dir(), BLOBS, flags, Mode::empty()).map_err(failed)?;
        let entries = Dir::new(folder).map_err(failed)?;
        let name = move |entry: std::result::Result<rustix::fs::DirEntry, Errno>| {
            let name = entry.map_err(failed)?.file_name().to_str().unwrap_or_default().to_owned();
            Ok(name)
        };
        let own = |name: &Result<String>| !name.as_ref().is_ok_and(|n| matches!(&**n, "." | ".."));
        Ok(entries.map(name).filter(own))
    }

    /// Whether the layout has a blob of this digest and size. Its content is checked by who reads it.
    pub fn has_blob(&self, descriptor: &Descriptor) -> bool {
        let file = open_file(self.dir(), &path_of(&descriptor.digest));
        file.is_ok_and(|file| file.metadata().is_ok_and(|meta| meta.len() == descriptor.size))
    }

    /// Adds a blob, which is checked on the way.
    pub fn put_blob(&self, descriptor: &Descriptor, data: impl Read + Send) -> Result<()> {
        let digest = descriptor.digest;
        let data = VerifyingReader::new(data, digest, Some(descriptor.size));
        std::thread::scope(|scope| put(self.dir(), &path_of(&digest), &mut ahead(scope, data)))
    }

    /// Adds a manifest or an index. A tag leads to it from then on; without one only its digest does.
    pub fn put_manifest(
        &self,
        tag: Option<&str>,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest> {
        let descriptor = Descriptor::of(media_type, bytes);
        let digest = descriptor.digest;
        put(self.dir(), &path_of(&digest), &mut &bytes[..])?;
        if let Some(tag) = tag {
            list(self.dir(), vec![descriptor.annotate(ANNOTATION_REF_NAME, tag)])?;
        }
        Ok(digest)
    }

    /// Removes every blob that is reachable neither from these manifests nor from one that is listed,
    /// and answers how many those are.
    ///
    /// # Errors
    /// A manifest cannot be read: then it is not known what it leads to, and nothing is removed.
    pub fn retain(&self, manifests: &[Digest]) -> Result<u64> {
        let mut reached = Reached { dir: self.dir(), digests: BTreeSet::new() };
        for entry in read_index(self.dir())?.into_iter().flat_map(|index| index.manifests) {
            reached.follow(&entry.digest, entry.is_manifest() || entry.is_index(), 0)?;
        }
        for manifest in manifests {
            reached.follow(manifest, true, 0)?;
        }
        let mut removed = 0;
        for name in self.blobs()? {
            let name = name?;
            let (hex, partial) = match name.strip_suffix(".partial") {
                Some(hex) => (hex, true),
                None => (&*name, false),
            };
            // What is no blob is somebody else's.
            let Ok(digest) = format!("sha256:{hex}").parse::<Digest>() else { continue };
            if !partial && reached.digests.contains(&digest) {
                continue;
            }
            match rustix::fs::unlinkat(self.dir(), format!("{BLOBS}/{name}"), AtFlags::empty()) {
                Ok(()) => removed += u64::from(!partial),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(Error::io("cannot clear an image layout", error)),
            }
        }
        Ok(removed)
    }
}

impl Drop for LayoutWriter {
    fn drop(&mut self) {
        // The lock is of the open directory, of which the caller may have other descriptors.
        let _ = rustix::fs::flock(&self.dir, FlockOperation::Unlock);
    }
}

fn path_of(digest: &Digest) -> String {
    format!("{BLOBS}/{}", digest.hex())
}

/// Blobs that something leads to.
struct Reached<'a> {
    dir: BorrowedFd<'a>,
    digests: BTreeSet<Digest>,
}

impl Reached<'_> {
    fn follow(&mut self, digest: &Digest, document: bool, depth: usize) -> Result<()> {
        if !self.digests.insert(*digest) || !document {
            return Ok(());
        }
        let what = path_of(digest);
        if depth > MAX_NESTED_INDEXES {
            return Err(Error::limit(format!(
                "{what} nests more than {MAX_NESTED_INDEXES} indexes"
            )));
        }
        let file = match open_file(self.dir, &what) {
            // Layouts may hold a part of an image; what is not there leads nowhere.
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(|e| Error::io(format!("cannot open {what}"), e))?,
        };
        let bytes = read_limited(file, MAX_MANIFEST, &what)?;
        if Digest::of(&bytes) != *digest {
            let message = format!("{what} of an image layout is damaged");
            return Err(Error::new(ErrorKind::Mismatch, message)
                .hint("remove it, or the whole directory: what it leads to is not known"));
        }
        match Document::decode(&bytes, None, &what)? {
            Document::Manifest(manifest) => {
                self.digests.insert(manifest.config.digest);
                self.digests.extend(manifest.layers.iter().map(|layer| layer.digest));
            }
            Document::Index(index) => {
                for entry in index.manifests {
                    let document = entry.is_manifest() || entry.is_index();
                    self.follow(&entry.digest, document, depth + 1)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use crate::media::{Manifest, MediaFamily, OCI_LAYER};

    fn open(path: &std::path::Path) -> OwnedFd {
        std::fs::File::open(path).expect("a directory").into()
    }

    fn writer(path: &std::path::Path) -> LayoutWriter {
        LayoutWriter::try_lock(open(path)).expect("locks").expect("nobody else")
    }

    /// Adds a manifest with one layer.
    fn add(to: &LayoutWriter, tag: Option<&str>, text: &str) -> (Digest, Digest) {
        let layer = Descriptor::of(OCI_LAYER, text.as_bytes());
        assert!(!to.has_blob(&layer));
        to.put_blob(&layer, text.as_bytes()).expect("adds");
        assert!(to.has_blob(&layer));
        let config = Descriptor::of("application/vnd.test", b"{}");
        to.put_blob(&config, &b"{}"[..]).expect("adds");
        let manifest = Manifest::new(MediaFamily::Oci, config, vec![layer.clone()]);
        let bytes = manifest.to_bytes();
        let media_type = MediaFamily::Oci.manifest();
        (to.put_manifest(tag, media_type, &bytes).expect("adds"), layer.digest)
    }

    fn blobs(path: &std::path::Path) -> usize {
        std::fs::read_dir(path.join(BLOBS)).expect("a folder").count()
    }

    #[test]
    fn what_a_moved_tag_led_to_goes_and_everything_else_stays() {
        let temp = tempfile::tempdir().expect("a directory");
        let to = writer(temp.path());
        let (other, _) = add(&to, Some("other"), "other");
        let (_, gone) = add(&to, Some("cache"), "old");
        let (untagged, kept) = add(&to, None, "kept");
        let (new, _) = add(&to, Some("cache"), "new");
        std::fs::write(temp.path().join(BLOBS).join("README"), "mine").expect("writes");
        let left = temp.path().join(format!("{BLOBS}/{}.partial", gone.hex()));
        std::fs::write(left, "half").expect("writes");

        assert_eq!(to.retain(&[untagged]).expect("clears"), 2, "the old manifest and its layer");
        let layout = Layout::open_path(temp.path()).expect("a layout");
        for (tag, digest) in [("other", other), ("cache", new)] {
            let found = layout.resolve(Some(tag), &wbuild_graph::Platform::host()).expect(tag);
            assert_eq!(found.digest, digest);
        }
        assert!(to.has_blob(&Descriptor::new("", kept, 4)));
        assert!(!to.has_blob(&Descriptor::new("", gone, 3)));
        assert_eq!(blobs(temp.path()), 3 + 3 + 1 + 1, "manifests, layers, a config, what is mine");
        assert_eq!(to.retain(&[]).expect("clears"), 2, "what nothing names any more");
    }

    #[test]
    fn nothing_goes_while_it_is_not_known_what_is_needed() {
        let temp = tempfile::tempdir().expect("a directory");
        let to = writer(temp.path());
        let (manifest, _) = add(&to, Some("a"), "a");
        add(&to, None, "b");
        let before = blobs(temp.path());
        std::fs::write(temp.path().join(path_of(&manifest)), "damaged").expect("writes");
        let error = to.retain(&[]).expect_err("unknown");
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert_eq!(blobs(temp.path()), before);
    }

    #[test]
    fn blobs_of_others_are_left_alone() {
        let temp = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(temp.path().join(BLOBS)).expect("makes");
        let theirs = temp.path().join(path_of(&Digest::of(b"theirs")));
        std::fs::write(&theirs, "theirs").expect("writes");
        let error = LayoutWriter::try_lock(open(temp.path())).err().expect("it is no layout");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        std::fs::remove_file(theirs).expect("removes");
        // Begun and cut off, it is a layout without anything that is named.
        let to = writer(temp.path());
        to.put_blob(&Descriptor::of(OCI_LAYER, b"mine"), &b"mine"[..]).expect("adds");
        drop(to);
        assert_eq!(writer(temp.path()).retain(&[]).expect("clears"), 1);
    }

    #[test]
    fn wrong_blobs_are_not_added_and_one_changes_it_at_a_time() {
        let temp = tempfile::tempdir().expect("a directory");
        let shared = open(temp.path());
        let other = shared.try_clone().expect("a descriptor");
        let to = LayoutWriter::try_lock(other).expect("locks").expect("nobody else");
        let layer = Descriptor::of(OCI_LAYER, b"right");
        for wrong in [&b"wrong"[..], b"righ", b"right!"] {
            assert!(to.put_blob(&layer, wrong).is_err());
            assert!(!to.has_blob(&layer));
        }
        assert_eq!(blobs(temp.path()), 0, "nothing is left of them");
        assert!(LayoutWriter::try_lock(open(temp.path())).expect("asks").is_none());
        drop(to);
        writer(temp.path());
        drop(shared);
    }
}
