//! Why steps ran: collected while they are solved, compared with what earlier builds left, kept for
//! the next one.
//!
//! ```text
//! worker ── read, found, missed ──► Explain ── keep ──► document of the definition
//!                                      │                         │
//!                                      └─ events (`--explain`)   └─► last (`wbuild explain`)
//! ```
//!
//! Invariants:
//!
//! - An unchanged build pays nothing for it but a few words of memory a step: no file is read, and
//!   none is written; the document is marked as used.
//! - The document is read when the first step is missed, never before.
//! - Nothing here is in a digest, and nothing here can fail a build: what cannot be read is not
//!   known, what cannot be written is left out.
//! - No value of a secret gets here (see [`ingredients`]).

mod compare;
mod document;
mod ingredients;
mod manifest;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::OnceCell;
use wbuild_api::explain::{
    Explained, Explanation, KeyKind, Place, RecordSource, StepExplained, StepOutcome,
};
use wbuild_graph::{CacheKey, Failure, NameParts, SourceMap, Span, VertexDigest};
use wbuild_solver::{FoundBy, Miss, ResultInput, SolveVertex};
use wbuild_store::{DocumentKind, Store};
use wbuild_tree::select::{Selection, SourceKind};

use self::compare::Known;
use self::document::Document;
use self::ingredients::{Ingredients, InputFacts};
use self::manifest::Manifest;
use crate::blocking;
use crate::solved::{Origin, Output, Solved};
use crate::steps::{EndedStep, Steps};

pub(crate) use self::document::{place, place_of};

/// What was read of an input is kept until it is clear whether its step runs; of more files only the
/// manifest is, so that memory does not grow with the context.
const HELD_FILES: u64 = 50_000;

/// The steps of the last build of a definition, or of the last build of all; none if none is known.
/// `definition` is where it was built from. The store may be open for reading only.
///
/// # Errors
///
/// The store cannot be read.
pub fn last(
    store: &Store,
    definition: Option<&wbuild_api::request::DefinitionSource>,
) -> Result<Option<Explained>, Failure> {
    let kind = DocumentKind::Explain;
    let found = match definition {
        Some(definition) => Some(place(definition)),
        None => store.newest_document(kind)?,
    };
    let Some(place) = found else { return Ok(None) };
    // Before it is read, which may mark it.
    let used = store.document_used(kind, &place)?;
    let Some(document) = Document::load(store, &place) else { return Ok(None) };
    let mut explained = document.explained;
    explained.unchanged_at = used
        .and_then(|used| used.duration_since(UNIX_EPOCH).ok())
        .filter(|used| used.as_nanos() != u128::from(document.saved))
        .map(|used| used.as_secs());
    Ok(Some(explained))
}

/// What was read of an input.
enum ReadFiles {
    Selections(Vec<Selection>, SourceKind),
    Manifest(Manifest),
}

/// A step whose result was found.
struct Found {
    by: FoundBy,
    made: Option<u64>,
    /// The cache elsewhere that it was found in.
    elsewhere: Option<String>,
}

/// A step that ran.
struct Missed {
    ingredients: Ingredients,
    /// None until it is asked for.
    why: Option<Explanation>,
}

#[derive(Default)]
struct State {
    read: HashMap<(VertexDigest, usize), ReadFiles>,
    found: HashMap<VertexDigest, Found>,
    /// Which of them a cache backend found.
    backends: HashSet<VertexDigest>,
    missed: HashMap<VertexDigest, Missed>,
    /// Keys of those.
    ran: HashSet<CacheKey>,
    manifests: HashMap<String, Manifest>,
}

/// What a build has found out about its steps.
pub(crate) struct Explain {
    store: Store,
    place: String,
    /// Each step is explained while the build runs.
    live: bool,
    /// This is a question and no build: nothing is kept.
    off: AtomicBool,
    state: Mutex<State>,
    known: OnceCell<Arc<Earlier>>,
}

/// What earlier builds left.
#[derive(Default)]
struct Earlier {
    runs: Known,
    manifests: BTreeMap<String, Manifest>,
}

impl Explain {
    pub(crate) fn new(store: Store, place: String, live: bool) -> Explain {
        let (off, state, known) = Default::default();
        Explain { store, place, live, off, state, known }
    }

    /// Keeps nothing of this job: it builds nothing.
    pub(crate) fn keep_nothing(&self) {
        self.off.store(true, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What earlier builds left.
    async fn known(&self) -> Arc<Earlier> {
        let load = async {
            let (store, place) = (self.store.clone(), self.place.clone());
            let load = move || {
                let Document { runs, manifests, .. } =
                    Document::load(&store, &place).unwrap_or_default();
                Ok::<_, Failure>(Earlier { runs: Known::new(runs), manifests })
            };
            Arc::new(blocking(load).await.unwrap_or_default())
        };
        Arc::clone(self.known.get_or_init(|| load).await)
    }

    /// What `vertex` reads of an input, for its keys.
    pub(crate) fn read(
        &self,
        vertex: VertexDigest,
        input: usize,
        selections: Vec<Selection>,
        kind: SourceKind,
    ) {
        let files: u64 = selections.iter().map(|selection| selection.totals().0).sum();
        let read = match files <= HELD_FILES {
            true => ReadFiles::Selections(selections, kind),
            false => ReadFiles::Manifest(Manifest::of(&selections, kind)),
        };
        self.state().read.insert((vertex, input), read);
    }

    /// A cache backend found the result of `vertex`.
    pub(crate) fn backend(&self, vertex: VertexDigest) {
        self.state().backends.insert(vertex);
    }

    /// The result of `vertex` was found.
    pub(crate) fn found(&self, vertex: &SolveVertex, by: FoundBy, solved: &Solved, steps: &Steps) {
        let made = solved.record().as_ref().map(|record| record.created);
        let found = Found { by, made, elsewhere: steps.elsewhere(vertex.digest) };
        if self.live {
            let why = self.state().explain_found(vertex.digest, &found);
            steps.explained(vertex.digest, why);
        }
        self.state().found.insert(vertex.digest, found);
    }

    /// `vertex` is about to run. `extra` is a field that its op does not hold.
    pub(crate) async fn missed(
        &self,
        vertex: &SolveVertex,
        miss: Miss<'_, Arc<Solved>>,
        extra: Option<(String, String)>,
        now: u64,
        steps: &Steps,
    ) {
        let name = steps.meta(vertex.digest).name;
        let parts = NameParts::of(&name);
        let by_content: Vec<bool> =
            miss.parts.iter().map(|part| matches!(part, ResultInput::Content(_))).collect();
        let mut fields = ingredients::fields(vertex.op(), &by_content);
        fields.extend(extra);
        let inputs = (0..miss.parts.len()).map(|input| self.input(vertex, &miss, input, steps));
        let ingredients = Ingredients {
            kind: ingredients::kind(vertex.op()).to_owned(),
            stage: parts.stage.to_owned(),
            position: parts.position,
            text: parts.text.to_owned(),
            keys: miss.keys.to_vec(),
            made: now,
            fields,
            op: ingredients::op_digest(vertex.op(), &by_content),
            inputs: inputs.collect(),
        };
        let why = match self.live {
            true => {
                let why = self.explain_missed(vertex, &ingredients).await;
                steps.explained(vertex.digest, why.clone());
                Some(why)
            }
            false if vertex.ignore_cache => Some(Explanation::CacheIgnored),
            false => None,
        };
        let mut state = self.state();
        state.ran.extend(miss.keys);
        state.missed.insert(vertex.digest, Missed { ingredients, why });
    }

    async fn explain_missed(&self, vertex: &SolveVertex, now: &Ingredients) -> Explanation {
        if vertex.ignore_cache {
            return Explanation::CacheIgnored;
        }
        let known = self.known().await;
        self.state().explain_missed(now, &known)
    }

    /// An input as it counts for the result key.
    fn input(
        &self,
        vertex: &SolveVertex,
        miss: &Miss<'_, Arc<Solved>>,
        input: usize,
        steps: &Steps,
    ) -> InputFacts {
        let (from, index) = vertex.inputs[input];
        let output = miss.inputs[input].outputs.get(index as usize);
        let named = steps.meta(from).name;
        let name = match output {
            Some(Output::Local(local)) => format!("the build context {}", local.display()),
            Some(Output::Tree(tree)) => match tree.layers.last().map(|layer| &layer.origin) {
                Some(Origin::Image(image)) => image.reference.clone(),
                _ if named.is_empty() => "the step before it".to_owned(),
                _ => named,
            },
            None => named,
        };
        let (value, files) = match miss.parts[input] {
            ResultInput::Result(id) => (id.digest().hex(), None),
            ResultInput::Content(content) => {
                let value = content.digest().hex();
                let kept = self.state().keep_manifest(vertex.digest, input, &value);
                (value.clone(), kept.then_some(value))
            }
        };
        InputFacts { role: ingredients::role(vertex.op(), input), name, value, files }
    }

    /// Whether a step has run, or has begun to.
    pub(crate) fn has_run(&self) -> bool {
        !self.state().missed.is_empty()
    }

    /// Keeps what is of use to the next build and to `wbuild explain`.
    pub(crate) async fn keep(&self, steps: &Steps, sources: &SourceMap) {
        let ended = steps.all_ended();
        if ended.is_empty() || self.off.load(Ordering::Relaxed) {
            return;
        }
        let usual = {
            let state = self.state();
            state.missed.is_empty()
                && state.backends.is_empty()
                && state.found.values().all(|found| {
                    matches!(found.by, FoundBy::Definition(_)) && found.elsewhere.is_none()
                })
        };
        let (store, place) = (self.store.clone(), self.place.clone());
        if usual {
            let mark =
                move || store.mark_document(DocumentKind::Explain, &place, SystemTime::now());
            // There may be none yet: where all results came from elsewhere.
            if blocking(mark).await.unwrap_or(true) {
                return;
            }
        }
        let known = self.known().await;
        let (explained, runs, manifests) = self.state().results(&known, &ended, sources);
        let (store, place) = (self.store.clone(), self.place.clone());
        let save = move || {
            let saved = SystemTime::now();
            let since = saved.duration_since(UNIX_EPOCH).unwrap_or_default();
            let mut document = Document {
                explained: Explained {
                    definition: place.clone(),
                    at: since.as_secs(),
                    ..explained
                },
                saved: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
                runs: known.runs.runs().to_vec(),
                manifests: known.manifests.clone(),
            };
            document.manifests.extend(manifests);
            document.add(runs);
            if let Some(data) = document.encode() {
                store.save_document(DocumentKind::Explain, &place, &data)?;
                // A later time says that a build has found everything since.
                store.mark_document(DocumentKind::Explain, &place, saved)?;
            }
            Ok::<_, Failure>(())
        };
        // Without it the next explanation knows less.
        let _ = blocking(save).await;
    }
}

type Results = (Explained, Vec<Ingredients>, HashMap<String, Manifest>);

impl State {
    fn explain_found(&self, vertex: VertexDigest, found: &Found) -> Explanation {
        let (by, key) = match found.by {
            FoundBy::Definition(key) => (KeyKind::Definition, key),
            FoundBy::Result(key) => (KeyKind::Result, key),
        };
        let from = match &found.elsewhere {
            Some(place) => RecordSource::Elsewhere(place.clone()),
            None if self.backends.contains(&vertex) => RecordSource::Backend,
            None if self.ran.contains(&key) => RecordSource::ThisBuild,
            None => RecordSource::Local,
        };
        Explanation::Found { by, key, from, made: found.made }
    }

    fn explain_missed(&self, now: &Ingredients, known: &Earlier) -> Explanation {
        let files =
            |name: &str| self.manifests.get(name).or_else(|| known.manifests.get(name)).cloned();
        compare::explain(now, &known.runs, &files)
    }

    /// Whether there is a manifest called `name`: of what was read of an input.
    fn keep_manifest(&mut self, vertex: VertexDigest, input: usize, name: &str) -> bool {
        let manifest = match self.read.remove(&(vertex, input)) {
            Some(ReadFiles::Selections(selections, kind)) => Manifest::of(&selections, kind),
            Some(ReadFiles::Manifest(manifest)) => manifest,
            None => return self.manifests.contains_key(name),
        };
        self.manifests.insert(name.to_owned(), manifest);
        true
    }

    /// All steps explained, and what is worth keeping of those that ran.
    fn results(&mut self, known: &Earlier, ended: &[EndedStep], sources: &SourceMap) -> Results {
        let mut explained = Explained::default();
        let mut failed: HashSet<VertexDigest> = HashSet::new();
        for step in ended {
            let why = match (self.found.get(&step.digest), self.missed.get(&step.digest)) {
                (_, Some(missed)) => Some(match &missed.why {
                    Some(why) => why.clone(),
                    None => self.explain_missed(&missed.ingredients, known),
                }),
                (Some(found), None) => Some(self.explain_found(step.digest, found)),
                (None, None) if step.end == StepOutcome::Cached => Some(Explanation::NotNeeded),
                (None, None) => None,
            };
            if step.end != StepOutcome::Done {
                failed.insert(step.digest);
            }
            explained.steps.push(StepExplained {
                number: step.number,
                name: step.meta.name.clone(),
                at: step.meta.spans.first().and_then(|span| lines(*span, sources)),
                end: step.end,
                why,
            });
        }
        // A failed run has no result to compare with. Steps that are not shown have not failed.
        let ran = self.missed.iter().filter(|(digest, _)| !failed.contains(digest));
        let mut runs: Vec<Ingredients> =
            ran.map(|(_, missed)| missed.ingredients.clone()).collect();
        runs.sort_by(|a, b| {
            (&a.stage, a.position, &a.text, &a.keys).cmp(&(&b.stage, b.position, &b.text, &b.keys))
        });
        (explained, runs, std::mem::take(&mut self.manifests))
    }
}

fn lines(span: Span, sources: &SourceMap) -> Option<Place> {
    let file = sources.get(span.source)?;
    let line = file.position(span.start).line;
    let last = file.position(span.end.saturating_sub(1).max(span.start)).line;
    Some(Place { file: file.name.clone(), line, last })
}

/// What an image is by content, for the fields of a step that fetches it.
pub(crate) fn image_field(reference: &str, manifest: &wbuild_graph::Digest) -> (String, String) {
    ("image".to_owned(), format!("{reference}@{manifest}"))
}

/// What a pinned source yields, where no more is known than that it is this or another.
pub(crate) fn pin_field(key: &CacheKey) -> (String, String) {
    ("what it yields".to_owned(), key.digest().short())
}
