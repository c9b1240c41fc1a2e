//! Where files come from.

use wbuild_graph::{Attrs, Platform, Span};

use crate::state::{Meta, annotations};
use crate::{Result, ResultExt as _, Source, State, sys};

/// A container image, see [`State::image`].
#[derive(Clone, Debug)]
#[must_use = "nothing comes of it until `done`"]
pub struct ImageSource {
    reference: String,
    platform: Option<Platform>,
    attrs: Attrs,
    meta: Meta,
}

impl ImageSource {
    pub(crate) fn new(reference: &str) -> Self {
        ImageSource {
            reference: reference.to_owned(),
            platform: None,
            attrs: Attrs::default(),
            meta: Meta::default(),
        }
    }

    annotations!();

    /// The build's first target platform if not called.
    pub fn platform(mut self, platform: &Platform) -> Self {
        self.platform = Some(platform.clone());
        self
    }

    /// A key of `graph.image`.
    pub fn attr(mut self, key: &str, value: impl Into<String>) -> Self {
        self.attrs.push(key, value);
        self
    }

    pub(crate) fn attrs(mut self, attrs: Attrs) -> Self {
        self.attrs.0.extend(attrs.0);
        self
    }

    /// Makes the node.
    pub fn done(self) -> Result<State> {
        let made = sys::image(&self.reference, self.platform.as_ref(), self.attrs);
        let state = State::of(self.meta.apply(made)?);
        Ok(match &self.platform {
            Some(platform) => state.platform(platform),
            None => state,
        })
    }
}

/// A directory of the caller's, see [`State::local`].
#[derive(Debug)]
#[must_use = "nothing comes of it until `done`"]
pub struct LocalSource {
    name: String,
    include: Vec<String>,
    exclude: Vec<(String, Option<Span>)>,
    follow: Vec<String>,
    after: Vec<State>,
    meta: Meta,
}

impl LocalSource {
    pub(crate) fn new(name: &str) -> Self {
        LocalSource {
            name: name.to_owned(),
            include: Vec::new(),
            exclude: Vec::new(),
            follow: Vec::new(),
            after: Vec::new(),
            meta: Meta::default(),
        }
    }

    annotations!();

    /// Only what matches one of these is visible.
    pub fn include(mut self, pattern: impl Into<String>) -> Self {
        self.include.push(pattern.into());
        self
    }

    /// The last match wins, `!` includes again.
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.exclude.push((pattern.into(), None));
        self
    }

    /// Every pattern of an ignore file, with its place.
    ///
    /// # Errors
    ///
    /// When one of them is malformed, with the place.
    pub fn ignore(mut self, source: &Source) -> Result<Self> {
        for line in wbuild_ignore::read(source.bytes()) {
            let at = source.span(line.at);
            wbuild_ignore::check(&line.pattern).at(at)?;
            self.exclude.push((line.pattern, Some(at)));
        }
        Ok(self)
    }

    /// Also what symlinks on this path point to.
    pub fn follow(mut self, path: impl Into<String>) -> Self {
        self.follow.push(path.into());
        self
    }

    /// Read only after this was made.
    pub fn after(mut self, state: &State) -> Self {
        self.after.push(state.clone());
        self
    }

    /// Makes the node.
    pub fn done(self) -> Result<State> {
        let local = sys::LocalSource::new(&self.name);
        self.include.iter().for_each(|pattern| local.include(pattern));
        self.exclude.iter().for_each(|(pattern, at)| local.exclude(pattern, *at));
        self.follow.iter().for_each(|path| local.follow(path));
        self.after.iter().filter_map(State::edge).for_each(|edge| local.after(edge));
        Ok(State::of(self.meta.apply(sys::local(local))?))
    }
}

/// A git repository, see [`State::git`].
#[derive(Clone, Debug)]
#[must_use = "nothing comes of it until `done`"]
pub struct GitSource {
    url: String,
    reference: String,
    attrs: Attrs,
    meta: Meta,
}

impl GitSource {
    pub(crate) fn new(url: &str) -> Self {
        GitSource {
            url: url.to_owned(),
            reference: String::new(),
            attrs: Attrs::default(),
            meta: Meta::default(),
        }
    }

    annotations!();

    /// A branch, tag or commit; the default branch if not called.
    pub fn reference(mut self, reference: impl Into<String>) -> Self {
        self.reference = reference.into();
        self
    }

    /// Only this directory of it.
    pub fn subdir(self, path: impl Into<String>) -> Self {
        self.attr("subdir", path)
    }

    /// With its `.git`.
    pub fn keep_git_dir(self) -> Self {
        self.attr("keep-git-dir", "true")
    }

    /// A key of `graph.git`.
    pub fn attr(mut self, key: &str, value: impl Into<String>) -> Self {
        self.attrs.push(key, value);
        self
    }

    /// Makes the node.
    pub fn done(self) -> Result<State> {
        let made = sys::git(&self.url, &self.reference, self.attrs);
        Ok(State::of(self.meta.apply(made)?))
    }
}

/// A file over http or https, see [`State::http`].
#[derive(Clone, Debug)]
#[must_use = "nothing comes of it until `done`"]
pub struct HttpSource {
    url: String,
    checksum: Option<String>,
    attrs: Attrs,
    meta: Meta,
}

impl HttpSource {
    pub(crate) fn new(url: &str) -> Self {
        HttpSource {
            url: url.to_owned(),
            checksum: None,
            attrs: Attrs::default(),
            meta: Meta::default(),
        }
    }

    annotations!();

    /// The digest that it must have.
    pub fn checksum(mut self, digest: impl Into<String>) -> Self {
        self.checksum = Some(digest.into());
        self
    }

    /// What it is called in the tree; the last part of the URL's path if not called.
    pub fn filename(self, name: impl Into<String>) -> Self {
        self.attr("filename", name)
    }

    /// A key of `graph.http`.
    pub fn attr(mut self, key: &str, value: impl Into<String>) -> Self {
        self.attrs.push(key, value);
        self
    }

    /// Makes the node.
    pub fn done(self) -> Result<State> {
        let made = sys::http(&self.url, self.checksum.as_deref(), self.attrs);
        Ok(State::of(self.meta.apply(made)?))
    }
}
