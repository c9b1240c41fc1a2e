//! The file system that a build has at some point, and how the next one is made of it.

use std::sync::Arc;

use wbuild_api::extension::{Entry, ReadDir};
use wbuild_graph::{Attrs, Edge, FailureKind, Platform, Span};

use crate::files::Files;
use crate::run::Run;
use crate::sources::{GitSource, HttpSource, ImageSource, LocalSource};
use crate::{Error, Result, sys};

/// Bytes that one read answers at most.
const PIECE: u32 = 1 << 20;
/// Entries that one listing answers at most.
const ENTRIES: u32 = 10_000;

/// A file system, and the environment, directory, user and platform that processes on it have.
///
/// Immutable and cheap to clone: every operation answers a new one. A node is made at once, so that
/// an error belongs to the line that made it; nothing runs until a result, or a question, needs it.
#[derive(Clone, Debug, Default)]
pub struct State {
    root: Option<Edge>,
    scope: Arc<Scope>,
}

/// What processes are run with, unless they say otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: String,
    pub(crate) user: String,
    pub(crate) platform: Option<Platform>,
}

impl Default for Scope {
    fn default() -> Self {
        Scope { env: Vec::new(), cwd: "/".to_owned(), user: String::new(), platform: None }
    }
}

impl State {
    /// Nothing at all.
    pub fn scratch() -> State {
        State::default()
    }

    /// The files of a container image. `Build::base` also has its config.
    pub fn image(reference: &str) -> ImageSource {
        ImageSource::new(reference)
    }

    /// A directory of the caller's, by the name of the context. `Build::context` knows which one is
    /// the main context, and reads its ignore file.
    pub fn local(name: &str) -> LocalSource {
        LocalSource::new(name)
    }

    /// A git repository.
    pub fn git(url: &str) -> GitSource {
        GitSource::new(url)
    }

    /// A tree that holds one file, fetched over http or https.
    pub fn http(url: &str) -> HttpSource {
        HttpSource::new(url)
    }

    /// The layers of the later on top of those of the earlier; copies nothing. Has the environment of
    /// the first.
    pub fn merge<'a>(layers: impl IntoIterator<Item = &'a State>) -> Result<State> {
        let layers: Vec<&State> = layers.into_iter().collect();
        let edges: Vec<Edge> = layers.iter().filter_map(|layer| layer.root).collect();
        let root = match edges[..] {
            [] => None,
            [only] => Some(only),
            _ => Some(sys::merge(&edges)?),
        };
        Ok(State {
            root,
            scope: layers.first().map(|first| first.scope.clone()).unwrap_or_default(),
        })
    }

    /// What this has and `lower` has not. Has the environment of this.
    pub fn diff(&self, lower: &State) -> Result<State> {
        Ok(self.with_root(Some(sys::diff(lower.root, self.root)?)))
    }

    /// The output of a node, with the environment of nothing.
    pub fn of(edge: Edge) -> State {
        State { root: Some(edge), ..State::default() }
    }

    /// The output that this is; none for [`State::scratch`].
    pub fn edge(&self) -> Option<Edge> {
        self.root
    }

    pub(crate) fn with_root(&self, root: Option<Edge>) -> State {
        State { root, scope: Arc::clone(&self.scope) }
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    fn change(mut self, change: impl FnOnce(&mut Scope)) -> State {
        change(Arc::make_mut(&mut self.scope));
        self
    }

    // ---- what processes are run with ------------------------------------------------------------

    /// Sets a variable.
    #[must_use]
    pub fn env(self, name: impl Into<String>, value: impl Into<String>) -> State {
        let (name, value) = (name.into(), value.into());
        self.change(|scope| match scope.env.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => scope.env.push((name, value)),
        })
    }

    /// Sets the directory that processes run in, seen from the one before.
    #[must_use]
    pub fn dir(self, path: &str) -> State {
        self.change(|scope| scope.cwd = crate::path::join(&scope.cwd, path))
    }

    /// Sets who processes run as: `user[:group]`.
    #[must_use]
    pub fn user(self, user: impl Into<String>) -> State {
        self.change(|scope| scope.user = user.into())
    }

    /// Sets what processes are for, and with them images made of this.
    #[must_use]
    pub fn platform(self, platform: &Platform) -> State {
        self.change(|scope| scope.platform = Some(platform.clone()))
    }

    /// A variable.
    pub fn get_env(&self, name: &str) -> Option<&str> {
        let found = self.scope.env.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// All variables, in the order in which they were set first.
    pub fn all_env(&self) -> &[(String, String)] {
        &self.scope.env
    }

    /// The directory that processes run in.
    pub fn get_dir(&self) -> &str {
        &self.scope.cwd
    }

    /// Who processes run as; empty means root.
    pub fn get_user(&self) -> &str {
        &self.scope.user
    }

    /// What processes are for; none means what the host is.
    pub fn get_platform(&self) -> Option<&Platform> {
        self.scope.platform.as_ref()
    }

    // ---- what is done to it ---------------------------------------------------------------------

    /// A process: program and arguments. There is no shell unless you name one, see [`crate::sh`].
    pub fn run<I, S>(&self, args: I) -> Run
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Run::new(self.clone(), args.into_iter().map(Into::into).collect())
    }

    /// File actions without a process; all of one builder form one layer.
    pub fn files(&self) -> Files {
        Files::new(self.clone())
    }

    /// Do not look the node up that made this; save its result all the same. Comes before anything
    /// looks at it.
    pub fn ignore_cache(self) -> Result<State> {
        if let Some(edge) = self.root {
            sys::ignore_cache(edge)?;
        }
        Ok(self)
    }

    // ---- what is in it --------------------------------------------------------------------------

    fn look(&self) -> Result<Edge> {
        self.root.ok_or_else(|| {
            Error::new(FailureKind::NotFound, "there are no files in an empty file system")
        })
    }

    /// A whole file; none if there is nothing at the path. At most `limit` bytes.
    pub fn read(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        let Some(edge) = self.root else { return Ok(None) };
        let mut data = Vec::new();
        loop {
            match sys::read_file(edge, path, data.len() as u64, PIECE) {
                Ok(piece) if piece.is_empty() => return Ok(Some(data)),
                Ok(mut piece) => {
                    let last = piece.len() < PIECE as usize;
                    data.append(&mut piece);
                    if data.len() > limit {
                        let message = format!("the file {path} is larger than {limit} bytes");
                        return Err(Error::new(FailureKind::Limit, message));
                    }
                    if last {
                        return Ok(Some(data));
                    }
                }
                Err(failure) if failure.kind == FailureKind::NotFound => return Ok(None),
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// What is at a path, not following a symlink at its end.
    pub fn stat(&self, path: &str) -> Result<Option<Entry>> {
        match self.root {
            Some(edge) => Ok(sys::stat(edge, path)?),
            None => Ok(None),
        }
    }

    /// The entries of a directory, sorted, those that match one of the patterns; with none, all.
    pub fn list(&self, path: &str, patterns: &[&str], recursive: bool) -> Result<Vec<Entry>> {
        let edge = self.look()?;
        let mut opts = Attrs::default();
        patterns.iter().for_each(|pattern| opts.push("pattern", *pattern));
        if recursive {
            opts.push("recursive", "true");
        }
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let after = all.last().map(|entry| entry.path.clone());
            let query =
                ReadDir { path: path.to_owned(), after, limit: ENTRIES, opts: opts.clone() };
            let more = sys::read_dir(edge, query)?;
            let whole = more.len() < ENTRIES as usize;
            all.extend(more);
            if whole {
                return Ok(all);
            }
        }
    }

    /// Whether both are the same work, and so have the same result.
    pub fn same_work(&self, other: &State) -> Result<bool> {
        match (self.root, other.root) {
            (Some(at), Some(other)) => Ok(sys::same_work(at, other)?),
            (at, other) => Ok(at == other),
        }
    }

    /// Begins to make these in the background.
    pub fn start<'a>(states: impl IntoIterator<Item = &'a State>) {
        let edges: Vec<Edge> = states.into_iter().filter_map(|state| state.root).collect();
        sys::start(&edges);
    }

    /// Makes these beside each other, and waits; one answer each, in order.
    pub fn make<'a>(states: impl IntoIterator<Item = &'a State>) -> Vec<Result<()>> {
        let states: Vec<&State> = states.into_iter().collect();
        let edges: Vec<Edge> = states.iter().filter_map(|state| state.root).collect();
        let mut answers = sys::evaluate(&edges).into_iter();
        let answer = |state: &&State| match state.root {
            Some(_) => answers.next().unwrap_or(Ok(())).map_err(Error::from),
            None => Ok(()),
        };
        states.iter().map(answer).collect()
    }
}

/// How people see a node: names, places and groups are in no key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meta {
    name: String,
    places: Vec<Span>,
    attrs: Attrs,
}

impl Meta {
    pub(crate) fn name(&mut self, name: impl Into<String>) {
        self.name = name.into();
    }

    pub(crate) fn at(&mut self, place: Span) {
        self.places.push(place);
    }

    pub(crate) fn group(&mut self, id: &str, name: &str) {
        self.attrs.push("group", id);
        self.attrs.push("group-name", name);
    }

    pub(crate) fn hidden(&mut self) {
        self.attrs.push("hidden", "true");
    }

    /// An error belongs to the first place.
    pub(crate) fn place(&self, error: Error) -> Error {
        match self.places.first() {
            Some(place) => error.at(*place),
            None => error,
        }
    }

    /// Gives the node its name; an error of what made it is shown at its place.
    pub(crate) fn apply(self, made: Result<Edge, wbuild_graph::Failure>) -> Result<Edge> {
        let edge = made.map_err(|failure| self.place(failure.into()))?;
        if !(self.name.is_empty() && self.places.is_empty() && self.attrs.is_empty()) {
            sys::annotate(edge, &self.name, &self.places, self.attrs.clone())
                .map_err(|failure| self.place(failure.into()))?;
        }
        Ok(edge)
    }
}

/// The methods of a builder that say how people see its node.
macro_rules! annotations {
    () => {
        /// For progress, errors and history.
        pub fn named(mut self, name: impl Into<String>) -> Self {
            self.meta.name(name);
            self
        }

        /// The place in the user's file that it comes from, where its failure is shown. May be called
        /// several times.
        pub fn at(mut self, place: wbuild_graph::Span) -> Self {
            self.meta.at(place);
            self
        }

        /// Shown together with the others of the same id.
        pub fn group(mut self, id: &str, name: &str) -> Self {
            self.meta.group(id, name);
            self
        }

        /// Not shown unless it fails.
        pub fn hidden(mut self) -> Self {
            self.meta.hidden();
            self
        }
    };
}
pub(crate) use annotations;
