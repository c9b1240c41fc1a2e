//! What a plugin wants beyond what every plugin of its kind gets, and what the user has said to it.
//!
//! An answer is kept for the component that it was given for, by its digest: another version asks
//! anew. Kept in `grants.toml` beside the user's policy; only what was granted is, so that a refusal
//! can be thought over. Buckets of values are nothing that is wanted: every cache backend has its own, by
//! its origin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use wbuild_graph::{Attrs, Digest, Failure};
use wbuild_oci::Reference;

use crate::document::{ConfigFile, Problem, replace};
use crate::policy::{Rule, covered};

/// The name of the file.
pub const FILE: &str = "grants.toml";
const WHAT: &str = "file of grants";

/// Something that is granted to plugins one by one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// To call other frontends.
    Nested,
    /// To read and write a repository, with the user's credentials, because a project says so.
    Repository(String),
    /// To use a directory, because a project says so.
    Directory(String),
    /// To send requests to a server, because a project says so.
    Http(String),
}

impl Want {
    /// What a project's configuration of a cache would lead its backend to.
    pub fn of_config(config: &Attrs) -> Vec<Want> {
        let mut wants = BTreeSet::new();
        for (key, value) in config.iter() {
            match key {
                "ref" => {
                    let name = value.parse::<Reference>().map(|reference| reference.name());
                    wants.insert(Want::Repository(name.unwrap_or_else(|_| value.to_owned())));
                }
                "src" | "dest" => {
                    wants.insert(Want::Directory(value.to_owned()));
                }
                _ => {}
            }
            // As the engine grants them: every URL in the options, whatever its key.
            if let Ok(url) = value.parse::<reqwest::Url>()
                && matches!(url.scheme(), "http" | "https")
            {
                wants.insert(Want::Http(url.origin().ascii_serialization()));
            }
        }
        wants.into_iter().collect()
    }

    /// In plain words, behind "it wants to".
    pub fn words(&self) -> String {
        match self {
            Want::Nested => "call other frontends: those that come with wbuild, and those that the project or the \
                 policy names".to_owned(),
            Want::Repository(name) => {
                format!(
                    "read and write {name} with your registry credentials (the project says so)"
                )
            }
            Want::Directory(path) => format!("use the directory {path} (the project says so)"),
            Want::Http(origin) => {
                format!(
                    "send requests to {origin} with your credentials for it (the project says so)"
                )
            }
        }
    }

    /// The line of a policy's entry that grants it; none where only the command line can.
    pub fn line(&self) -> Option<String> {
        let list = |key: &str, name: &str| format!("{key} = [{}]", toml::Value::from(name));
        match self {
            Want::Nested => Some("nested = true".to_owned()),
            Want::Repository(name) => Some(list("repositories", name)),
            Want::Directory(_) => None,
            Want::Http(origin) => Some(list("http", origin)),
        }
    }

    /// Whether an entry of the policy grants it.
    pub fn is_granted(&self, rule: &Rule) -> bool {
        match self {
            Want::Nested => rule.nested,
            Want::Repository(name) => covered(&rule.repositories, name),
            Want::Directory(_) => false,
            Want::Http(origin) => covered(&rule.http, origin),
        }
    }

    /// As it is kept.
    fn key(&self) -> String {
        match self {
            Want::Nested => "nested".to_owned(),
            Want::Repository(name) => format!("repository {name}"),
            Want::Directory(path) => format!("directory {path}"),
            Want::Http(origin) => format!("http {origin}"),
        }
    }
}

/// What the user has granted when asked.
#[derive(Debug, Default)]
pub struct Consents {
    path: Option<PathBuf>,
    given: BTreeMap<Digest, Entry>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    grant: Vec<Entry>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    component: Digest,
    /// As it was called when it was asked about.
    name: String,
    granted: BTreeSet<String>,
}

impl Consents {
    /// What was granted before, in the user's directory of configuration; without one nothing is kept.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or says what is not understood.
    pub fn of(directory: Option<&Path>) -> Result<Consents, Problem> {
        let Some(path) = directory.map(|directory| directory.join(FILE)) else {
            return Ok(Consents::default());
        };
        let mut given = BTreeMap::new();
        if let Some(file) = ConfigFile::first([path.clone()], WHAT)? {
            let document: Document = file.parse()?;
            given.extend(document.grant.into_iter().map(|entry| (entry.component, entry)));
        }
        Ok(Consents { path: Some(path), given })
    }

    /// Whether this was granted to this component.
    pub fn has(&self, component: &Digest, want: &Want) -> bool {
        self.given.get(component).is_some_and(|entry| entry.granted.contains(&want.key()))
    }

    /// What was granted to this component.
    pub fn of_component(&self, component: &Digest) -> Vec<String> {
        let granted = self.given.get(component).map(|entry| &entry.granted);
        granted.into_iter().flatten().cloned().collect()
    }

    /// Keeps what the user has granted.
    ///
    /// # Errors
    ///
    /// It cannot be kept.
    pub fn add(&mut self, component: Digest, name: &str, wants: &[Want]) -> Result<(), Failure> {
        let entry = self.given.entry(component).or_insert_with(|| Entry {
            component,
            name: name.to_owned(),
            granted: BTreeSet::new(),
        });
        entry.granted.extend(wants.iter().map(Want::key));
        let Some(path) = &self.path else { return Ok(()) };
        let document = Document { grant: self.given.values().cloned().collect() };
        let text = toml::to_string(&document).expect("there are tables of strings in it");
        let written = std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))
            .and_then(|()| replace(path, text.as_bytes(), 0o600));
        written.map_err(|error| {
            Failure::invalid(format!("cannot keep the answer in {}", path.display())).cause(&error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_for_the_component() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let at = dir.path().join("config");
        let mut consents = Consents::of(Some(&at)).expect("there are none");
        let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
        consents.add(one, "oci://r.example/x:1", &[Want::Nested]).expect("kept");
        consents.add(one, "x", &[Want::Http("https://h.example".into())]).expect("kept");
        let again = Consents::of(Some(&at)).expect("read");
        assert!(again.has(&one, &Want::Nested) && !again.has(&other, &Want::Nested));
        assert!(again.has(&one, &Want::Http("https://h.example".into())));
        assert!(!again.has(&one, &Want::Http("https://h.example:444".into())));
        std::fs::write(at.join(FILE), "grant = 1").expect("written");
        assert!(Consents::of(Some(&at)).is_err(), "a file that is wrong grants nothing in silence");
        Consents::default().add(one, "x", &[Want::Nested]).expect("nowhere to keep it");
    }

    #[test]
    fn what_a_configuration_leads_to() {
        let config = |pairs: &[(&str, &str)]| {
            Attrs(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        assert_eq!(Want::of_config(&config(&[("mode", "max"), ("x", "y")])), []);
        let wants = Want::of_config(&config(&[
            ("ref", "R.example/app:cache"),
            ("dest", "/etc"),
            ("any", "https://h.example:8443/x?y"),
        ]));
        let want = [
            Want::Repository("r.example/app".into()),
            Want::Directory("/etc".into()),
            Want::Http("https://h.example:8443".into()),
        ];
        assert_eq!(wants, want);
        let rule = Rule {
            repositories: vec!["r.example/*".into()],
            http: vec!["https://h.example:*".into()],
            ..Rule::default()
        };
        let granted: Vec<bool> = wants.iter().map(|want| want.is_granted(&rule)).collect();
        assert_eq!(granted, [true, false, true]);
    }
}
