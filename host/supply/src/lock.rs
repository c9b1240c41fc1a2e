//! `wbuild.lock`: which component each reference of a project meant when it was first used.
//!
//! It lies beside `wbuild.toml` and is committed with it. Written only when it changes, and always the
//! same for the same content, so that it is an ordinary file of the context for the build's cache.
//!
//! Invariant: a lock is the project's word. That a reference's registry has such a component is for
//! [`crate::PluginStore`] to know or for the registry to say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Spanned;
use wbuild_graph::{Digest, Failure};

use crate::document::{ConfigFile, Problem, replace};
use crate::reference::PluginRef;

/// The name of the file.
pub const FILE: &str = "wbuild.lock";
const WHAT: &str = "lock file";
/// The version of the format.
const VERSION: u32 = 1;
/// Most entries.
const MAX_ENTRIES: usize = 1000;
/// Most imports of an entry; as many as a component may have.
const MAX_IMPORTS: usize = 1000;
/// What the file begins with.
const HEAD: &str = "# Which components the plugins of this project are. wbuild writes this file; `wbuild plugin \
                    update`\n# changes what is pinned. Commit it.\n";

/// What a reference is locked to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// The artifact's manifest.
    pub manifest: Digest,
    /// The component itself.
    pub component: Digest,
    /// What it imports, for those who look at a change.
    pub imports: Vec<String>,
    /// The key that its signature was made with, where the policy wanted one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

/// A lock, as it is and as it is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Lock {
    path: PathBuf,
    entries: BTreeMap<String, Locked>,
    changed: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: Spanned<u32>,
    #[serde(default)]
    plugin: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    source: Spanned<String>,
    manifest: Digest,
    component: Digest,
    #[serde(default)]
    imports: Vec<String>,
    signer: Option<String>,
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    plugin: Vec<WrittenEntry<'a>>,
}

#[derive(Serialize)]
struct WrittenEntry<'a> {
    source: &'a str,
    #[serde(flatten)]
    locked: &'a Locked,
}

impl Lock {
    /// The lock of a project's directory; empty if there is no file.
    ///
    /// # Errors
    ///
    /// The file cannot be read or says what is not understood.
    pub fn of(root: &Path) -> Result<Lock, Problem> {
        let path = root.join(FILE);
        match ConfigFile::first([path.clone()], WHAT)? {
            Some(file) => Lock::read(&file),
            None => Ok(Lock { path, entries: BTreeMap::new(), changed: false }),
        }
    }

    /// Reads a lock file.
    ///
    /// # Errors
    ///
    /// It says what is not understood; shows where.
    pub fn read(file: &ConfigFile) -> Result<Lock, Problem> {
        let Document { version, plugin } = file.parse().map_err(|mut problem| {
            let hint = "wbuild writes this file: take it from where it was committed; or remove it, and \
                        the next build pins anew";
            problem.failure.hints.push(hint.to_owned());
            problem
        })?;
        if *version.get_ref() != VERSION {
            let hint = "update wbuild; or remove the file, and the next build makes a new one";
            let message = "a version of this file that is not known here";
            return Err(file.wrong(version.span(), message, Some(hint)));
        }
        if plugin.len() > MAX_ENTRIES {
            let message = format!("more than {MAX_ENTRIES} plugins");
            return Err(file.wrong(plugin[MAX_ENTRIES].source.span(), &message, None));
        }
        let mut entries = BTreeMap::new();
        for Entry { source, manifest, component, imports, signer } in plugin {
            let at = source.span();
            let parsed = PluginRef::remote(source.get_ref());
            // As we write it, or it would be another name of the same.
            let ours = matches!(&parsed, Ok(Some(found @ PluginRef::Registry(_)))
                if found.to_string() == *source.get_ref());
            if !ours {
                let hint = "expected oci://REGISTRY/NAME:TAG";
                return Err(file.wrong(at, "this is no plugin of a registry", Some(hint)));
            }
            if imports.len() > MAX_IMPORTS {
                return Err(file.wrong(at, "it has more imports than a plugin may have", None));
            }
            let locked = Locked { manifest, component, imports, signer };
            if entries.insert(source.into_inner(), locked).is_some() {
                return Err(file.wrong(at, "it is here twice", None));
            }
        }
        Ok(Lock { path: file.path.clone(), entries, changed: false })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a reference is locked to.
    pub fn get(&self, reference: &PluginRef) -> Option<&Locked> {
        self.entries.get(&reference.to_string())
    }

    /// All entries, by their references.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Locked)> {
        self.entries.iter().map(|(source, locked)| (&**source, locked))
    }

    /// Locks a reference.
    pub fn set(&mut self, reference: &PluginRef, locked: Locked) {
        let source = reference.to_string();
        if self.entries.get(&source) != Some(&locked) {
            self.entries.insert(source, locked);
            self.changed = true;
        }
    }

    /// Takes an entry out, to look at the reference anew; see [`Lock::put_back`].
    pub(crate) fn take(&mut self, reference: &PluginRef) -> Option<Locked> {
        self.entries.remove(&reference.to_string())
    }

    /// Puts an entry back that was taken out.
    pub(crate) fn put_back(&mut self, reference: &PluginRef, locked: Locked) {
        self.entries.insert(reference.to_string(), locked);
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let plugin = self.entries.iter();
        let plugin = plugin.map(|(source, locked)| WrittenEntry { source, locked }).collect();
        let document = Written { version: VERSION, plugin };
        let text = toml::to_string(&document).expect("there are tables of strings and lists in it");
        format!("{HEAD}{text}")
    }

    /// Writes the file if it is to change. Whether it was written.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn save(&mut self) -> Result<bool, Failure> {
        if !self.changed {
            return Ok(false);
        }
        replace(&self.path, self.to_text().as_bytes(), 0o644).map_err(|error| {
            Failure::invalid(format!("cannot write {}", self.path.display())).cause(&error)
        })?;
        self.changed = false;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(text: &str) -> ConfigFile {
        ConfigFile::new("/p/wbuild.lock".into(), WHAT, text.into())
    }

    fn reference(text: &str) -> PluginRef {
        PluginRef::remote(text).expect(text).expect("it has a scheme")
    }

    fn locked(seed: &str) -> Locked {
        Locked {
            manifest: Digest::of(format!("manifest {seed}").as_bytes()),
            component: Digest::of(seed.as_bytes()),
            imports: vec!["wbuild:frontend/graph@0.1.0".into(), seed.into()],
            signer: (seed.len() % 2 == 1).then(|| "team".to_owned()),
        }
    }

    #[test]
    fn it_is_written_when_it_changes() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut lock = Lock::of(dir.path()).expect("there is none");
        assert!(!lock.save().expect("nothing to write"));
        assert!(!dir.path().join(FILE).exists());
        lock.set(&reference("oci://r.example/a:1"), locked("x"));
        assert!(lock.save().expect("written") && !lock.save().expect("written already"));
        let mut again = Lock::of(dir.path()).expect("read");
        assert_eq!(again, lock);
        again.set(&reference("oci://r.example/a:1"), locked("x"));
        assert!(!again.save().expect("it is the same"));
        again.set(&reference("oci://r.example/a:1"), locked("y"));
        assert!(again.save().expect("written"));
        let text = std::fs::read_to_string(dir.path().join(FILE)).expect("there");
        assert_eq!(text, again.to_text());
        std::fs::remove_dir_all(dir.path()).expect("removed");
        again.set(&reference("oci://r.example/b:1"), locked("y"));
        assert!(again.save().expect_err("the directory is gone").message.contains(FILE));
    }

    #[test]
    fn what_is_no_lock() {
        let digest = Digest::of(b"");
        let entry = |source: &str| {
            format!(
                "[[plugin]]\nsource = \"{source}\"\nmanifest = \"{digest}\"\ncomponent = \"{digest}\"\n"
            )
        };
        let good = entry("oci://r.example/a:1");
        Lock::read(&file(&format!("version = 1\n{good}"))).expect("read");
        for (text, says) in [
            (String::new(), "version"),
            ("version = 2\n".into(), "not known"),
            (format!("version = 1\n{good}{good}"), "twice"),
            (format!("version = 1\n{}", entry("oci://r.example/a")), "no plugin"),
            (format!("version = 1\n{}", entry("steps")), "no plugin"),
            (format!("version = 1\n{}", entry("oci://R.example/a:1")), "no plugin"),
            (format!("version = 1\n{good}x = 1\n"), "unknown field"),
            (format!("version = 1\n{}", good.replace("sha256:", "sha512:")), ""),
        ] {
            let problem = Lock::read(&file(&text)).expect_err(&text);
            let message = &problem.failure.diagnostics[0].message;
            assert!(message.contains(says), "{text}: {message}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(seeds in prop::collection::btree_map("[a-z]{1,9}", ".{0,12}", 0..5)) {
            let mut lock = Lock { path: "/p/wbuild.lock".into(), entries: BTreeMap::new(), changed: false };
            for (name, seed) in &seeds {
                lock.set(&reference(&format!("oci://r.example/{name}:1")), locked(seed));
            }
            lock.changed = false;
            let text = lock.to_text();
            let again = Lock::read(&file(&text)).expect("it was written by us");
            prop_assert_eq!(&again, &lock);
            prop_assert_eq!(again.to_text(), text);
        }
    }
}
