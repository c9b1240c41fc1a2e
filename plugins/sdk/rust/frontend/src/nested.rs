//! Other frontends, which do a part of the work.
//!
//! Calling them is what a user has to grant. A component asks for it by having the import, and it has
//! the import only if [`Call`] is used in it, whether or not a build comes there.

use wbuild_api::extension::{NestedBuild, NestedContext, NestedResult};
use wbuild_graph::{Attrs, FailureKind, Platform, Span};

use crate::build::base_of;
use crate::{Base, Error, ImageConfig, Result, ResultExt as _, State, sys};

/// Name of the main context.
const MAIN: &str = "context";

/// A part of the work that another frontend does. It sees what it is given and nothing else: no option
/// and no context of the caller's that is not named here.
#[derive(Clone, Debug)]
#[must_use = "nothing comes of it until `done` or `Call::all`"]
pub struct Call {
    request: NestedBuild,
    contexts: Vec<(String, State, Option<ImageConfig>)>,
}

impl Call {
    /// Of the frontend of a name (bundled, or of the user's `wbuild.toml`) or a reference.
    pub fn new(frontend: impl Into<String>) -> Self {
        let request = NestedBuild { frontend: frontend.into(), ..NestedBuild::default() };
        Call { request, contexts: Vec::new() }
    }

    /// Its definition, and how errors name it; the caller's own if not called.
    pub fn definition(mut self, name: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        self.request.definition = Some((name.into(), data.into()));
        self
    }

    /// Its main context.
    pub fn context(self, state: &State) -> Self {
        self.named_context(MAIN, state, None)
    }

    /// A context of a name, with its config if it is an image: what `FROM name` means there, for
    /// instance. A second of a name takes the place of the first.
    pub fn named_context(
        mut self,
        name: &str,
        state: &State,
        config: Option<&ImageConfig>,
    ) -> Self {
        self.contexts.push((name.to_owned(), state.clone(), config.cloned()));
        self
    }

    /// A context of the caller's, under its name and as the caller has it: `context` is the main one.
    /// Of a directory it reads what it uses, as if it had been called by the user.
    pub fn hand_on(mut self, context: &str) -> Self {
        self.request.handed_on.push(context.to_owned());
        self
    }

    /// What it is to build; may be called several times.
    pub fn target(mut self, name: impl Into<String>) -> Self {
        self.request.targets.push(name.into());
        self
    }

    /// What it builds for; may be called several times. The caller's if not called.
    pub fn platform(mut self, platform: &Platform) -> Self {
        self.request.platforms.push(platform.clone());
        self
    }

    /// An option, by its name of wit/frontend, `request.opt`; it inherits none.
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.options.push(name, value);
        self
    }

    /// A build argument; it inherits none.
    pub fn arg(self, name: &str, value: impl Into<String>) -> Self {
        self.option(format!("build-arg:{name}"), value)
    }

    /// The place in the user's file that asks for it, where its failures are shown besides their own
    /// places. May be called several times.
    pub fn at(mut self, place: Span) -> Self {
        self.request.asked_at.push(place);
        self
    }

    /// Calls it; what it yields.
    pub fn done(self) -> Result<Called> {
        Call::all([self]).remove(0)
    }

    /// Calls all of them beside each other; one answer each, in order.
    pub fn all(calls: impl IntoIterator<Item = Call>) -> Vec<Result<Called>> {
        let calls: Vec<Result<NestedBuild>> = calls.into_iter().map(Call::request).collect();
        let requests: Vec<NestedBuild> = calls.iter().flatten().cloned().collect();
        let mut answers = match requests.is_empty() {
            true => Vec::new(),
            false => sys::nested_build(requests),
        }
        .into_iter();
        let missing = || Err(wbuild_graph::Failure::internal("the host did not answer for a call"));
        let mut answer = |call: Result<NestedBuild>| {
            let NestedBuild { asked_at, frontend, .. } = call?;
            let answer = answers.next().unwrap_or_else(missing).map_err(Error::from);
            let called = answer.and_then(|result| Called::new(&frontend, result));
            match asked_at.first() {
                Some(place) => called.at(*place),
                None => called,
            }
        };
        calls.into_iter().map(&mut answer).collect()
    }

    /// A context has a root, so an empty one becomes a node.
    fn request(self) -> Result<NestedBuild> {
        let mut request = self.request;
        for (name, state, config) in self.contexts {
            let root = match state.edge() {
                Some(edge) => edge,
                None => sys::file(sys::FileOp::new(None))?,
            };
            let config = config.as_ref().map(ImageConfig::to_json);
            request.contexts.push((name, NestedContext { root, config }));
        }
        Ok(request)
    }
}

/// What a called frontend has yielded. It is part of this build's graph, so it is built upon like
/// anything else; what is used of it nowhere is never made.
#[derive(Clone, Debug)]
pub struct Called {
    frontend: String,
    /// Images, one for each name and platform.
    pub images: Vec<CalledImage>,
    /// Trees of files.
    pub files: Vec<CalledFiles>,
}

/// An image that a called frontend has yielded.
#[derive(Clone, Debug)]
pub struct CalledImage {
    /// Distinguishes several; empty for the one that matters most.
    pub name: String,
    /// What it is for.
    pub platform: Platform,
    /// Its files, with the environment that its config says, and its config.
    pub base: Base,
    /// As of `results.image`: `tag`, `push-tag` and others.
    pub attrs: Attrs,
}

/// Files that a called frontend has yielded.
#[derive(Clone, Debug)]
pub struct CalledFiles {
    /// Several may share one.
    pub name: String,
    /// What they are for.
    pub platform: Platform,
    /// The tree that they are in.
    pub state: State,
    /// Where in it.
    pub path: String,
    /// As of `results.files`: `dest`.
    pub attrs: Attrs,
}

impl Called {
    fn new(frontend: &str, result: NestedResult) -> Result<Called> {
        // The host says it of everything.
        let of = |platform: Option<Platform>| {
            platform.ok_or_else(|| Error::new(FailureKind::Internal, "a result has no platform"))
        };
        let mut called =
            Called { frontend: frontend.to_owned(), images: Vec::new(), files: Vec::new() };
        for image in result.images {
            let platform = of(image.platform)?;
            let config = ImageConfig::parse(&image.config).context(format!(
                "the frontend {frontend} yields an image with a config that cannot be read"
            ))?;
            let state = image.root.map(State::of).unwrap_or_default();
            let base = base_of(state, config, &platform);
            let (name, attrs) = (image.name, image.attrs);
            called.images.push(CalledImage { name, platform, base, attrs });
        }
        for files in result.files {
            let platform = of(files.platform)?;
            let state = State::of(files.root).platform(&platform);
            let (name, path, attrs) = (files.name, files.path, files.attrs);
            called.files.push(CalledFiles { name, platform, state, path, attrs });
        }
        Ok(called)
    }

    /// The image for a platform, to be built upon: the one without a name, or else the only one.
    ///
    /// # Errors
    ///
    /// When there is none, or several and all of them have names.
    pub fn image(&self, platform: &Platform) -> Result<Base> {
        let all: Vec<&CalledImage> =
            self.images.iter().filter(|image| image.platform == *platform).collect();
        let found = all.iter().find(|image| image.name.is_empty());
        match (found, &all[..]) {
            (Some(image), _) | (None, [image]) => Ok(image.base.clone()),
            (None, []) => {
                let message =
                    format!("the frontend {} yields no image for {platform}", self.frontend);
                Err(Error::new(FailureKind::NotFound, message))
            }
            (None, several) => {
                let names: Vec<&str> = several.iter().map(|image| image.name.as_str()).collect();
                let message = format!("the frontend {} yields several images", self.frontend);
                Err(Error::invalid(message)
                    .help(format!("name one as the target: {}", names.join(", "))))
            }
        }
    }
}
