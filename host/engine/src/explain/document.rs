//! What is kept between builds: the ingredients of earlier runs, and the last build explained.
//!
//! One document for each definition, read and written only by builds in which a step ran or was
//! found in an unusual way. It is bounded, in no digest, and evicted like the digests of contexts:
//! to lose it costs an explanation.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use wbuild_api::explain::Explained;
use wbuild_api::request::{BuildRequest, ContextSpec, DefinitionSource};
use wbuild_store::{DocumentKind, Store};

use super::ingredients::Ingredients;
use super::manifest::Manifest;
use crate::source::local::MAIN_CONTEXT;

/// Changes with the meaning of the document.
const FORMAT: &[u8] = b"wbuild explain 1\n";
/// Runs kept of one step.
const RUNS: usize = 3;
/// Runs kept in all.
const ALL_RUNS: usize = 2000;
/// The largest document, in bytes.
const SIZE_LIMIT: usize = 4 << 20;

/// See the module.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Document {
    pub(super) explained: Explained,
    /// When it was written, in nanoseconds since 1970. Marked later: builds changed nothing since.
    pub(super) saved: u64,
    /// The newest last.
    pub(super) runs: Vec<Ingredients>,
    /// What runs read, by digest of that.
    pub(super) manifests: BTreeMap<String, Manifest>,
}

/// What the document of a build's definition is found by.
pub(crate) fn place_of(request: &BuildRequest) -> String {
    match (&request.definition, request.contexts.get(MAIN_CONTEXT)) {
        (DefinitionSource::InContext { directory, names }, Some(ContextSpec::Local(context))) => {
            let name = names.join(" ");
            context.join(directory).join(name).display().to_string()
        }
        (definition, _) => place(definition),
    }
}

/// What the document of a definition is found by.
pub(crate) fn place(definition: &DefinitionSource) -> String {
    match definition {
        DefinitionSource::File { directory, name } => directory.join(name).display().to_string(),
        DefinitionSource::Inline { name, .. } => name.clone(),
        DefinitionSource::InContext { directory, names } if directory.is_empty() => names.join(" "),
        DefinitionSource::InContext { directory, names } => {
            format!("{directory}/{}", names.join(" "))
        }
        DefinitionSource::Url(url) => url.clone(),
    }
}

impl Document {
    /// None if there is none, or none that can be understood.
    pub(super) fn load(store: &Store, place: &str) -> Option<Document> {
        let data = store.load_document(DocumentKind::Explain, place).ok().flatten()?;
        Document::decode(&data)
    }

    pub(super) fn decode(data: &[u8]) -> Option<Document> {
        serde_json::from_slice(data.strip_prefix(FORMAT)?).ok()
    }

    /// Adds runs, and forgets the oldest where there are too many.
    pub(super) fn add(&mut self, runs: Vec<Ingredients>) {
        self.runs.extend(runs);
        let mut newer: HashMap<(String, String, String), usize> = HashMap::new();
        let mut left = ALL_RUNS;
        let mut kept: Vec<Ingredients> = Vec::new();
        let mut keys = BTreeSet::new();
        for run in self.runs.drain(..).rev() {
            let step = (run.kind.clone(), run.stage.clone(), run.text.clone());
            let count = newer.entry(step).or_default();
            // The same once more says nothing new.
            let fresh = !run.keys.iter().any(|key| keys.contains(key));
            if *count < RUNS && left > 0 && fresh {
                *count += 1;
                left -= 1;
                keys.extend(run.keys.iter().copied());
                kept.push(run);
            }
        }
        kept.reverse();
        self.runs = kept;
    }

    /// As bytes, shortened until that is little enough.
    pub(super) fn encode(&mut self) -> Option<Vec<u8>> {
        loop {
            let used: BTreeSet<&String> = self
                .runs
                .iter()
                .flat_map(|run| &run.inputs)
                .filter_map(|input| input.files.as_ref())
                .collect();
            let unused: Vec<String> =
                self.manifests.keys().filter(|name| !used.contains(name)).cloned().collect();
            for name in unused {
                self.manifests.remove(&name);
            }
            let mut out = FORMAT.to_vec();
            serde_json::to_writer(&mut out, self).ok()?;
            if out.len() <= SIZE_LIMIT {
                return Some(out);
            }
            if self.runs.is_empty() {
                return None;
            }
            self.runs.drain(..self.runs.len().div_ceil(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::ingredients::InputFacts;
    use wbuild_graph::{CacheKey, Digest};

    fn run(text: &str, number: usize, value: &str) -> Ingredients {
        Ingredients {
            kind: "exec".into(),
            stage: String::new(),
            position: 1,
            text: text.into(),
            keys: vec![CacheKey(Digest::of(format!("{text} {number}").as_bytes()))],
            made: number as u64,
            fields: vec![("command".into(), value.into())],
            op: String::new(),
            inputs: vec![InputFacts {
                role: "source".into(),
                name: "x".into(),
                value: number.to_string(),
                files: Some(number.to_string()),
            }],
        }
    }

    #[test]
    fn the_newest_runs_of_each_step_stay() {
        let mut document = Document::default();
        for number in 0..10 {
            document.manifests.insert(number.to_string(), Manifest::default());
            document.add(vec![run("a", number, ""), run("b", 0, "")]);
        }
        let data = document.encode().expect("small");
        let read = Document::decode(&data).expect("its own format");
        let made: Vec<(&str, u64)> =
            read.runs.iter().map(|run| (run.text.as_str(), run.made)).collect();
        assert_eq!(made, [("a", 7), ("a", 8), ("a", 9), ("b", 0)]);
        let manifests: Vec<&str> = read.manifests.keys().map(String::as_str).collect();
        assert_eq!(manifests, ["0", "7", "8", "9"]);
        for length in 0..data.len() {
            assert!(Document::decode(&data[..length]).is_none());
        }
    }

    #[test]
    fn a_document_is_bounded() {
        let mut document = Document::default();
        let long = "x".repeat(4000);
        document.add((0..2 * ALL_RUNS).map(|n| run(&format!("step {n}"), n, &long)).collect());
        assert_eq!(document.runs.len(), ALL_RUNS);
        let data = document.encode().expect("some of it");
        assert!(data.len() <= SIZE_LIMIT);
        let newest = document.runs.last().expect("some stay").made;
        assert_eq!(newest, 2 * ALL_RUNS as u64 - 1, "the newest stay");
    }
}
