//! File actions without a process.

use wbuild_graph::{Attrs, Span};

use crate::state::{Meta, annotations};
use crate::{Result, State, sys};

/// File actions on a [`State`], see [`State::files`]. Paths that are not absolute are seen from the
/// state's directory.
#[derive(Debug)]
#[must_use = "nothing comes of it until `done`"]
pub struct Files {
    state: State,
    op: sys::FileOp,
    meta: Meta,
}

impl Files {
    pub(crate) fn new(state: State) -> Self {
        let op = sys::FileOp::new(state.edge());
        Files { state, op, meta: Meta::default() }
    }

    annotations!();

    fn path(&self, path: &str) -> String {
        crate::path::join(self.state.get_dir(), path)
    }

    /// The actions that follow come from this place.
    pub fn mark(self, place: Span) -> Self {
        self.op.mark(place);
        self
    }

    /// Where user and group names are looked up; in the state if not called.
    pub fn names_from(self, state: &State) -> Self {
        if let Some(edge) = state.edge() {
            self.op.names_from(edge);
        }
        self
    }

    /// Copies a path of another state. A target that ends in `/` is a directory; missing parents of
    /// it are made, a directory is copied with what is in it.
    pub fn copy(self, from: &State, path: &str, target: &str) -> Self {
        self.copy_with(from, &[path], target, Copy::new().create_dest())
    }

    /// Copies paths of another state, as the options say.
    pub fn copy_with(self, from: &State, paths: &[&str], target: &str, options: Copy) -> Self {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let target = self.path(target);
        // Of nothing there is nothing to copy; what is missing is the host's to say.
        match from.edge() {
            Some(edge) => self.op.copy(edge, &paths, &target, options.0),
            None => {
                if let Ok(empty) = sys::file(sys::FileOp::new(None)) {
                    self.op.copy(empty, &paths, &target, options.0);
                }
            }
        }
        self
    }

    /// Writes a file.
    pub fn write(self, path: &str, data: impl AsRef<[u8]>) -> Self {
        self.write_with(path, data, &[])
    }

    /// Writes a file, with keys of `file-op.write`: `chown`, `mode`, `timestamp`.
    pub fn write_with(self, path: &str, data: impl AsRef<[u8]>, opts: &[(&str, &str)]) -> Self {
        self.op.write(&self.path(path), data.as_ref(), attrs(opts));
        self
    }

    /// Makes a directory, its missing parents, too; one that is there is no error.
    pub fn mkdir(self, path: &str) -> Self {
        self.mkdir_with(path, &[("parents", "true")])
    }

    /// Makes a directory, with keys of `file-op.mkdir`.
    pub fn mkdir_with(self, path: &str, opts: &[(&str, &str)]) -> Self {
        self.op.mkdir(&self.path(path), attrs(opts));
        self
    }

    /// Removes a path and what is below it.
    pub fn remove(self, path: &str) -> Self {
        self.remove_with(path, &[])
    }

    /// Removes, with keys of `file-op.remove`: `wildcard`, `allow-missing`.
    pub fn remove_with(self, path: &str, opts: &[(&str, &str)]) -> Self {
        self.op.remove(&self.path(path), attrs(opts));
        self
    }

    /// Makes a symlink.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.op.symlink(&self.path(path), target, Attrs::default());
        self
    }

    /// Makes the node; the state after it.
    pub fn done(self) -> Result<State> {
        let edge = self.meta.apply(sys::file(self.op))?;
        Ok(self.state.with_root(Some(edge)))
    }
}

fn attrs(opts: &[(&str, &str)]) -> Attrs {
    Attrs(opts.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
}

/// How a copy is done; nothing is set in the beginning.
#[derive(Clone, Debug, Default)]
pub struct Copy(Attrs);

impl Copy {
    /// As plainly as can be.
    pub fn new() -> Self {
        Copy::default()
    }

    fn flag(self, key: &str) -> Self {
        self.opt(key, "true")
    }

    /// A key of `file-op.copy`.
    #[must_use]
    pub fn opt(mut self, key: &str, value: impl Into<String>) -> Self {
        self.0.push(key, value);
        self
    }

    /// Make missing parents of the target.
    #[must_use]
    pub fn create_dest(self) -> Self {
        self.flag("create-dest")
    }

    /// Paths are patterns.
    #[must_use]
    pub fn wildcard(self) -> Self {
        self.flag("wildcard")
    }

    /// A directory stands for what is in it.
    #[must_use]
    pub fn contents(self) -> Self {
        self.flag("contents-only")
    }

    /// Keep times.
    #[must_use]
    pub fn keep_times(self) -> Self {
        self.flag("keep-times")
    }

    /// Keep owners.
    #[must_use]
    pub fn keep_owner(self) -> Self {
        self.flag("keep-owner")
    }

    /// What is missing is no error.
    #[must_use]
    pub fn allow_missing(self) -> Self {
        self.flag("allow-missing")
    }

    /// `user[:group]` of what is copied.
    #[must_use]
    pub fn chown(self, owner: impl Into<String>) -> Self {
        self.opt("chown", owner)
    }

    /// Mode of what is copied, octal or symbolic.
    #[must_use]
    pub fn mode(self, mode: impl Into<String>) -> Self {
        self.opt("mode", mode)
    }

    /// Only what matches; may be called several times.
    #[must_use]
    pub fn include(self, pattern: impl Into<String>) -> Self {
        self.opt("include", pattern)
    }

    /// Not what matches; may be called several times.
    #[must_use]
    pub fn exclude(self, pattern: impl Into<String>) -> Self {
        self.opt("exclude", pattern)
    }
}
