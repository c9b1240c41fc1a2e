//! Components that were fetched, kept so that a later build needs no network.
//!
//! ```text
//! DIR/<digest>.wasm               a component
//! DIR/<digest>.<origin>.json      that a repository or URL has it, with the signatures found there
//! ```
//!
//! They lie beside the compiled code and not in the state directory: nothing that makes room there
//! takes a plugin away, and what is removed here is fetched again.
//!
//! Invariants:
//!
//! - A component is what its digest says: that is looked at whenever it is taken out.
//! - A component counts for an origin only after it was fetched from there. So a lock that somebody
//!   else wrote cannot make a component that was fetched for one name answer to another, better
//!   trusted one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wbuild_graph::Digest;

use crate::artifact::{MAX_COMPONENT, MAX_SIGNATURES};
use crate::document::{read_file, replace};
use crate::reference::PluginRef;

/// The directory.
#[derive(Clone, Debug)]
pub struct PluginStore {
    directory: PathBuf,
}

/// A component that is here.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The component.
    pub bytes: Arc<[u8]>,
    /// Its artifact's manifest, where it is of a registry.
    pub manifest: Option<Digest>,
    /// Signatures that were found where it comes from, as text.
    pub signatures: Vec<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Note {
    /// What the component's versions have in common.
    source: String,
    manifest: Option<Digest>,
    signatures: Vec<String>,
}

impl PluginStore {
    /// The store in a directory, which is made when something is kept.
    pub fn new(directory: PathBuf) -> PluginStore {
        PluginStore { directory }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn component(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{}.wasm", digest.hex()))
    }

    fn note(&self, source: &str, digest: &Digest) -> PathBuf {
        let origin = Digest::of(source.as_bytes()).hex();
        self.directory.join(format!("{}.{}.json", digest.hex(), &origin[..16]))
    }

    /// A component, if it was fetched from there. What is damaged is not here.
    pub fn get(&self, from: &PluginRef, digest: &Digest) -> Option<Kept> {
        let source = from.source();
        let note = read_file(&self.note(&source, digest)).ok()?;
        let note: Note = serde_json::from_slice(&note).ok()?;
        if note.source != source || note.signatures.len() > MAX_SIGNATURES {
            return None;
        }
        let file = std::fs::File::open(self.component(digest)).ok()?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_COMPONENT + 1), &mut bytes)
            .ok()?;
        if Digest::of(&bytes) != *digest {
            return None;
        }
        Some(Kept { bytes: bytes.into(), manifest: note.manifest, signatures: note.signatures })
    }

    /// Keeps a component that was fetched from there; in place of what is known of it.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn keep(&self, from: &PluginRef, digest: &Digest, kept: &Kept) -> std::io::Result<()> {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let source = from.source();
        replace(&self.component(digest), &kept.bytes, 0o600)?;
        let (manifest, signatures) = (kept.manifest, kept.signatures.clone());
        let note = self.note(&source, digest);
        let text = serde_json::to_vec(&Note { source, manifest, signatures });
        replace(&note, &text.expect("keys are strings, so it is JSON"), 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_for_where_something_came_from() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let store = PluginStore::new(dir.path().join("plugins"));
        let from = |text: &str| PluginRef::remote(text).expect(text).expect("it has a scheme");
        let good = from("oci://r.example/good:1");
        let digest = Digest::of(b"component");
        let kept = Kept {
            bytes: b"component"[..].into(),
            manifest: Some(Digest::of(b"m")),
            signatures: vec!["s".into()],
        };
        assert!(store.get(&good, &digest).is_none());
        store.keep(&good, &digest, &kept).expect("kept");
        let found = store.get(&from("oci://r.example/good:2"), &digest).expect("any tag of it");
        assert_eq!((&*found.bytes, &*found.signatures), (&b"component"[..], &["s".to_owned()][..]));
        assert!(store.get(&from("oci://r.example/better:1"), &digest).is_none());
        // A byte changed on the disk.
        std::fs::write(store.component(&digest), b"c0mponent").expect("written");
        assert!(store.get(&good, &digest).is_none());
        store.keep(&good, &digest, &kept).expect("kept again");
        assert!(store.get(&good, &digest).is_some());
        std::fs::write(store.note(&good.source(), &digest), b"{").expect("written");
        assert!(store.get(&good, &digest).is_none());
    }
}
