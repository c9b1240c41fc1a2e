//! Local contexts: directories of the client's, read in place.
//!
//! Nothing is copied or hashed until an op reads it, and then only the paths it reads. Digests of
//! files are kept between builds with what tells a changed file (size, times, inode), so that an
//! unchanged tree costs one walk and no read.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use wbuild_api::nodes::no_such_context;
use wbuild_api::session::{BuildContext, Session};
use wbuild_graph::decode::only_known;
use wbuild_graph::op::{IgnorePattern, LocalSource};
use wbuild_graph::{Diagnostic, Failure, Label, Severity, Span};
use wbuild_store::Store;
use wbuild_tree::TreeError;
use wbuild_tree::index::DigestIndex;
use wbuild_tree::root::Root;
use wbuild_tree::select::follow_patterns;
use wbuild_tree::walk::Filter;

use crate::blocking;
use crate::solved::{Output, Solved};

/// Name of the context that the command line's PATH gives.
pub(crate) const MAIN_CONTEXT: &str = "context";

/// Kept digests of one directory, loaded when first needed.
pub(crate) struct KeptDigests {
    /// None: they serve this build alone.
    id: Option<String>,
    store: Store,
    index: OnceLock<Mutex<DigestIndex>>,
}

impl KeptDigests {
    /// The index; reads it from the store the first time.
    pub(crate) fn index(&self) -> &Mutex<DigestIndex> {
        self.index.get_or_init(|| {
            // What cannot be read is as good as nothing: files are hashed again.
            let data = self.id.as_ref().and_then(|id| self.store.load_context(id).ok().flatten());
            Mutex::new(data.map_or_else(DigestIndex::new, DigestIndex::decode))
        })
    }

    fn keep(&self) -> Result<(), Failure> {
        let (Some(index), Some(id)) = (self.index.get(), &self.id) else {
            return Ok(());
        };
        let index = index.lock().unwrap_or_else(PoisonError::into_inner);
        if index.is_changed() {
            self.store.save_context(id, &index.encode())?;
        }
        Ok(())
    }
}

/// A directory as one op sees it: with what is hidden from it.
pub(crate) struct LocalTree {
    context: Arc<dyn BuildContext>,
    pub(crate) filter: Filter,
    exclude: Vec<IgnorePattern>,
    pub(crate) kept: Arc<KeptDigests>,
}

impl LocalTree {
    pub(crate) fn open(&self) -> Result<OwnedFd, Failure> {
        self.context.open()
    }

    pub(crate) fn display(&self) -> String {
        self.context.display()
    }

    /// A failure to read the tree, with the line of the ignore file that hides what is missing.
    pub(crate) fn failure(&self, error: TreeError, mark: Option<Span>) -> Failure {
        let hidden_by = match &error {
            TreeError::Missing(missing) => {
                missing.excluded_by.and_then(|index| self.exclude.get(index)).and_then(|p| p.at)
            }
            _ => None,
        };
        point(error.into(), mark, hidden_by)
    }
}

/// Adds the places a failure is about.
pub(crate) fn point(mut failure: Failure, mark: Option<Span>, hidden_by: Option<Span>) -> Failure {
    let label = |at, text: &str, primary| Label { at, text: text.to_owned(), primary };
    let mut labels: Vec<Label> = mark.into_iter().map(|at| label(at, "", true)).collect();
    labels.extend(hidden_by.map(|at| label(at, "hidden by this line", mark.is_none())));
    if !labels.is_empty() {
        failure.diagnostics.push(Diagnostic {
            severity: Severity::Error,
            code: None,
            message: failure.message.clone(),
            labels,
            help: None,
            url: None,
            attrs: wbuild_graph::Attrs::default(),
        });
    }
    failure
}

/// The local contexts of one build.
pub(crate) struct Locals {
    store: Store,
    session: Arc<dyn Session>,
    /// The main context, where the client hands it over instead of lending a directory.
    main: OnceLock<Arc<dyn BuildContext>>,
    kept: Mutex<HashMap<Option<String>, Arc<KeptDigests>>>,
}

impl Locals {
    pub(crate) fn new(store: Store, session: Arc<dyn Session>) -> Locals {
        Locals { store, session, main: OnceLock::new(), kept: Mutex::default() }
    }

    /// Makes a directory the main context, before anything is read of it.
    pub(crate) fn lend(&self, context: Arc<dyn BuildContext>) {
        // There is one main context, and it is settled once.
        let _ = self.main.set(context);
    }

    /// The directory of a name.
    pub(crate) fn lent(&self, name: &str) -> Result<Arc<dyn BuildContext>, Failure> {
        let found = match self.main.get() {
            Some(main) if name == MAIN_CONTEXT => Some(Arc::clone(main)),
            _ => self.session.context(name),
        };
        found.ok_or_else(|| no_such_context(name))
    }

    /// A handle on a directory; reads nothing but links that are to be followed.
    pub(crate) fn open(&self, source: &LocalSource) -> Result<Arc<Solved>, Failure> {
        let context = self.lent(&source.name)?;
        let patterns: Vec<&str> = source.exclude.iter().map(|p| p.pattern.as_str()).collect();
        only_known(&source.attrs, "graph.local", &[])?;
        let mut include = source.include.clone();
        // Everything is visible without a list; with one, what links lead to is added to it.
        if !include.is_empty() && !source.follow.is_empty() {
            let root = Root::from_fd(context.open()?, &context.display());
            include.extend(follow_patterns(&root, &source.follow)?);
        }
        let include: Vec<&str> = include.iter().map(String::as_str).collect();
        let filter = Filter::new(&include, &patterns)?;
        let id = context.identity();
        let kept = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(kept.entry(id.clone()).or_insert_with(|| {
                Arc::new(KeptDigests { id, store: self.store.clone(), index: OnceLock::new() })
            }))
        };
        let exclude = source.exclude.clone();
        let tree = LocalTree { context, filter, exclude, kept };
        Ok(Solved::new(vec![Output::Local(Arc::new(tree))], None))
    }

    /// Writes digests that are new back to the store.
    pub(crate) async fn keep(&self) -> Result<(), Failure> {
        let kept: Vec<Arc<KeptDigests>> =
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        blocking(move || kept.iter().try_for_each(|kept| kept.keep())).await
    }
}
