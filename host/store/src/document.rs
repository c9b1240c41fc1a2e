//! Small documents of the caller: digest tables of local contexts, memo traces. Opaque bytes under
//! a name, checked by a checksum, never synced by themselves: each can be made again.
//!
//! ```text
//! contexts/<kind>-<sha256 of the id>      "WBDOC\0\x01\0" sha256-of-rest  id-length:u32 id data
//! ```

use std::time::SystemTime;

use wbuild_graph::Digest;

use crate::error::{Error, Result};
use crate::files::{mark, modified, touch, write_atomically};
use crate::store::{Inner, Store};
use crate::sync::read;

const MAGIC: &[u8; 8] = b"WBDOC\0\x01\0";
const HEADER: usize = 8 + 32;
/// The digest table of a context of a million files is about 100 MB.
const DOCUMENT_LIMIT: u64 = 512 << 20;

/// What kind of document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentKind {
    /// Kept digests of a local context.
    Context,
    /// A memo trace: what a frontend read, and what it answered.
    Memo,
    /// What was found out about this machine, e.g. which container runtime works.
    Machine,
    /// What a name outside meant when it was last asked for, e.g. the manifest of an image's tag.
    Pin,
    /// What the steps of a definition were last made of.
    Explain,
}

impl DocumentKind {
    const ALL: [DocumentKind; 5] = [
        DocumentKind::Context,
        DocumentKind::Memo,
        DocumentKind::Machine,
        DocumentKind::Pin,
        DocumentKind::Explain,
    ];

    /// `context`, `memo`, `machine`, `pin` or `explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            DocumentKind::Context => "context",
            DocumentKind::Memo => "memo",
            DocumentKind::Machine => "machine",
            DocumentKind::Pin => "pin",
            DocumentKind::Explain => "explain",
        }
    }

    /// The kind a file name begins with.
    pub(crate) fn of_file(name: &str) -> Option<DocumentKind> {
        let (kind, hex) = name.split_once('-')?;
        Digest::from_hex(hex).ok()?;
        Self::ALL.into_iter().find(|known| known.as_str() == kind)
    }
}

fn file_name(kind: DocumentKind, id: &str) -> String {
    format!("{}-{}", kind.as_str(), Digest::of(id.as_bytes()).hex())
}

fn encode(id: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + 4 + id.len() + data.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[0; 32]);
    out.extend_from_slice(&u32::try_from(id.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(data);
    let checksum = Digest::of(&out[HEADER..]);
    out[8..HEADER].copy_from_slice(checksum.as_bytes());
    out
}

/// The id and where the data begins; `None` if anything is wrong.
fn decode(bytes: &[u8]) -> Option<(&str, usize)> {
    let (header, body) = bytes.split_at_checked(HEADER)?;
    if header[..8] != *MAGIC || *Digest::of(body).as_bytes() != header[8..] {
        return None;
    }
    let (length, rest) = body.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (id, _) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(id).ok()?, HEADER + 4 + length))
}

impl Store {
    /// Reads a document and marks it as used; `None` if there is none or it is damaged.
    pub fn load_document(&self, kind: DocumentKind, id: &str) -> Result<Option<Vec<u8>>> {
        let inner = &*self.inner;
        let _gc = read(&inner.gc);
        let name = file_name(kind, id);
        let Some(file) = inner.documents.try_open(&name)? else { return Ok(None) };
        let mut bytes = inner.documents.read_open(&file, &name, DOCUMENT_LIMIT)?;
        let Some((_, start)) = decode(&bytes).filter(|(found, _)| *found == id) else {
            return Ok(None);
        };
        if !inner.read_only {
            touch(&file);
        }
        bytes.drain(..start);
        Ok(Some(bytes))
    }

    /// Stores a document, replacing the one of that name at once and whole.
    pub fn save_document(&self, kind: DocumentKind, id: &str, data: &[u8]) -> Result<()> {
        let inner = &*self.inner;
        inner.check_writable()?;
        if data.len() as u64 + id.len() as u64 + 64 > DOCUMENT_LIMIT {
            return Err(Error::TooLarge {
                what: format!("{} document {id:?}", kind.as_str()),
                limit: DOCUMENT_LIMIT,
                unit: "bytes",
            });
        }
        let bytes = encode(id, data);
        inner.account.begin(&inner.root)?;
        inner.account.add_file(bytes.len() as u64);
        let _gc = read(&inner.gc);
        write_atomically(&inner.tmp, &inner.documents, &file_name(kind, id), &bytes)
    }

    /// When a document was last stored, read or marked; `None` if there is none.
    pub fn document_used(&self, kind: DocumentKind, id: &str) -> Result<Option<SystemTime>> {
        let stat = self.inner.documents.stat(&file_name(kind, id))?;
        Ok(stat.as_ref().map(modified))
    }

    /// Marks a document as used at `time`. Answers whether there is one.
    pub fn mark_document(&self, kind: DocumentKind, id: &str, time: SystemTime) -> Result<bool> {
        let inner = &*self.inner;
        inner.check_writable()?;
        let _gc = read(&inner.gc);
        let Some(file) = inner.documents.try_open(&file_name(kind, id))? else {
            return Ok(false);
        };
        mark(&file, time);
        Ok(true)
    }

    /// The id of the document of a kind that was used last.
    pub fn newest_document(&self, kind: DocumentKind) -> Result<Option<String>> {
        let inner = &*self.inner;
        let _gc = read(&inner.gc);
        let mut found = Vec::new();
        for (name, _) in inner.documents.list()? {
            if DocumentKind::of_file(&name) == Some(kind)
                && let Some(stat) = inner.documents.stat(&name)?
            {
                found.push((modified(&stat), name));
            }
        }
        found.sort();
        for (_, name) in found.into_iter().rev() {
            // A damaged one has no id.
            if let Some(id) = inner.document_id(&name)? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// The kept digests of a local context; see [`Store::load_document`].
    pub fn load_context(&self, id: &str) -> Result<Option<Vec<u8>>> {
        self.load_document(DocumentKind::Context, id)
    }

    /// Keeps the digests of a local context; see [`Store::save_document`].
    pub fn save_context(&self, id: &str, data: &[u8]) -> Result<()> {
        self.save_document(DocumentKind::Context, id, data)
    }
}

impl Inner {
    /// The id of a document file, `None` if it is damaged.
    pub(crate) fn document_id(&self, name: &str) -> Result<Option<String>> {
        let Some(bytes) = self.documents.read(name, DOCUMENT_LIMIT)? else { return Ok(None) };
        let Some((id, _)) = decode(&bytes) else { return Ok(None) };
        let matches = DocumentKind::of_file(name).is_some_and(|kind| file_name(kind, id) == name);
        Ok(matches.then(|| id.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::open;

    #[test]
    fn the_document_that_was_used_last_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let kind = DocumentKind::Explain;
        let at = |secs| SystemTime::UNIX_EPOCH + std::time::Duration::new(secs, 5);
        assert_eq!(store.newest_document(kind).unwrap(), None);
        assert!(!store.mark_document(kind, "a", at(1)).unwrap());
        for (id, secs) in [("a", 3), ("b", 9), ("c", 6)] {
            store.save_document(kind, id, b"x").unwrap();
            assert!(store.mark_document(kind, id, at(secs)).unwrap());
        }
        store.save_document(DocumentKind::Memo, "later", b"x").unwrap();
        assert_eq!(store.newest_document(kind).unwrap().as_deref(), Some("b"));
        assert_eq!(store.document_used(kind, "b").unwrap(), Some(at(9)));
        std::fs::write(dir.path().join("contexts").join(file_name(kind, "b")), b"damaged").unwrap();
        assert!(store.mark_document(kind, "b", at(10)).unwrap());
        assert_eq!(store.newest_document(kind).unwrap().as_deref(), Some("c"));
    }

    #[test]
    fn documents_come_back_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let id = "/home/../strange \0 id";
        assert_eq!(store.load_context(id).unwrap(), None);
        store.save_context(id, b"first").unwrap();
        store.save_context(id, b"second").unwrap();
        store.save_document(DocumentKind::Memo, id, b"").unwrap();
        assert_eq!(store.load_context(id).unwrap().unwrap(), b"second");
        assert_eq!(store.load_document(DocumentKind::Memo, id).unwrap().unwrap(), b"");
        let path = dir.path().join("contexts").join(file_name(DocumentKind::Context, id));
        let good = std::fs::read(&path).unwrap();
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(store.load_context(id).unwrap(), None, "flip at {index}");
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert_eq!(store.load_context(id).unwrap(), None);
        let other = dir.path().join("contexts").join(file_name(DocumentKind::Context, "b"));
        std::fs::write(other, &good).unwrap();
        assert_eq!(store.load_context("b").unwrap(), None, "moved by hand");
    }
}
