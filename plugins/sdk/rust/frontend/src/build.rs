//! The build that this is: what the caller asked for, and what it yields.

use wbuild_api::extension::{
    FilesResult, ImageInfo, ImageRequest, ImageResult, NamedContext, SourceInfo, SourceRequest,
};
use wbuild_graph::{Attrs, FailureKind, Platform, Severity};

use crate::sources::LocalSource;
use crate::state::{Meta, annotations};
use crate::{Error, ImageConfig, Result, ResultExt as _, Source, State, sys};

/// Largest ignore file, in bytes.
const IGNORE_BYTES: usize = 4 << 20;
/// Name of the main context.
const MAIN: &str = "context";

/// What the caller asked for, and where results go. Every question is remembered by the host, which
/// runs the frontend anew only if an answer has changed: ask for what you use.
#[derive(Debug)]
pub struct Build(());

/// What an image is made on.
#[derive(Clone, Debug)]
pub struct Base {
    /// Its files, with the environment that its config says.
    pub state: State,
    /// Its config, without layers.
    pub config: ImageConfig,
}

/// An image to be made on, and how people see it.
#[derive(Clone, Debug)]
pub struct Wanted {
    name: String,
    platform: Platform,
    meta: Meta,
}

impl Wanted {
    /// By its name in the definition.
    pub fn new(name: impl Into<String>, platform: &Platform) -> Self {
        Wanted { name: name.into(), platform: platform.clone(), meta: Meta::default() }
    }

    annotations!();
}

impl Build {
    /// Made by [`crate::frontend!`].
    #[doc(hidden)]
    pub fn new() -> Build {
        Build(())
    }

    // ---- what was asked for ---------------------------------------------------------------------

    /// The definition file, registered as a source. `language` is for highlighting and may be empty.
    pub fn definition(&self, language: &str) -> Result<Source> {
        let file = sys::definition()?;
        Source::new(&file.name, language, &file.data)
    }

    /// An option, by its name of wit/frontend, `request.opt`.
    pub fn option(&self, name: &str) -> Option<String> {
        sys::opt(name)
    }

    /// Options whose names begin with `prefix`, which is cut off, in order.
    pub fn options(&self, prefix: &str) -> Vec<(String, String)> {
        sys::opts(prefix).0
    }

    /// The value of a build argument.
    pub fn arg(&self, name: &str) -> Option<String> {
        sys::opt(&format!("build-arg:{name}"))
    }

    /// All build arguments. Prefer [`Build::arg`]: what is not asked for invalidates nothing.
    pub fn args(&self) -> Vec<(String, String)> {
        self.options("build-arg:")
    }

    /// Labels that the caller wants on the image; [`Build::image`] sets them.
    pub fn labels(&self) -> Vec<(String, String)> {
        self.options("label:")
    }

    /// Whether a stage, or everything if it has no name, is not to be looked up.
    pub fn no_cache(&self, stage: &str) -> bool {
        match sys::opt("no-cache").as_deref() {
            None => false,
            Some("") => true,
            Some(stages) => stages.split(',').any(|name| name.trim().eq_ignore_ascii_case(stage)),
        }
    }

    /// Targets in the order they were asked for; empty = the definition's default.
    pub fn targets(&self) -> Vec<String> {
        sys::targets()
    }

    /// What to build for; at least one.
    pub fn platforms(&self) -> Vec<Platform> {
        sys::target_platforms()
    }

    /// Where steps run natively.
    pub fn build_platform(&self) -> Platform {
        sys::build_platform()
    }

    /// SOURCE_DATE_EPOCH if it is pinned; there is no other clock.
    pub fn epoch(&self) -> Option<u64> {
        sys::epoch()
    }

    /// Whether the caller offers a secret. Its value is never seen.
    pub fn has_secret(&self, id: &str) -> bool {
        sys::has_secret(id)
    }

    /// Whether the caller offers an ssh agent.
    pub fn has_ssh(&self, id: &str) -> bool {
        sys::has_ssh(id)
    }

    /// Whether the host knows what came after the first release, see wit/CHANGES.md.
    pub fn supports(&self, feature: &str) -> bool {
        sys::supports(feature)
    }

    // ---- contexts -------------------------------------------------------------------------------

    /// A context of the caller's, by its name, as it is.
    pub fn named_context(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Option<NamedContext>> {
        Ok(sys::context(name, platform)?)
    }

    /// Names of all contexts, sorted.
    pub fn context_names(&self) -> Vec<String> {
        sys::context_names()
    }

    /// The main context, without what its `.dockerignore` hides.
    pub fn context(&self) -> Result<State> {
        self.context_with(".dockerignore", |local| local)
    }

    /// The main context, without what the ignore file of a name hides, and as `change` says. What is
    /// no directory of the caller's is there already, and taken whole.
    pub fn context_with(
        &self,
        ignore_file: &str,
        change: impl FnOnce(LocalSource) -> LocalSource,
    ) -> Result<State> {
        let context = sys::context(MAIN, None)?;
        if let Some(root) = context.and_then(|context| context.root) {
            return Ok(State::of(root));
        }
        let only_it = State::local(MAIN).include(ignore_file).hidden();
        let only_it = only_it.named(format!("load {ignore_file}")).done()?;
        let mut local = State::local(MAIN).named("load context");
        if let Some(data) = only_it.read(ignore_file, IGNORE_BYTES)? {
            local = local.ignore(&Source::new(ignore_file, "", &data)?)?;
        }
        change(local).done()
    }

    /// The files of a context of any kind, by its name; none if the caller has none of this name.
    pub fn context_of(&self, name: &str, platform: Option<&Platform>) -> Result<Option<State>> {
        let Some(context) = sys::context(name, platform)? else { return Ok(None) };
        let state = match context.kind.as_str() {
            "input" => match context.root {
                Some(root) => State::of(root),
                None => State::scratch(),
            },
            "local" => State::local(&context.identifier).named(format!("load {name}")).done()?,
            "git" => State::git(&context.identifier).done()?,
            "http" => State::http(&context.identifier).done()?,
            "image" | "oci-layout" => {
                let image = State::image(&context.identifier).attrs(context.attrs);
                match platform {
                    Some(platform) => image.platform(platform),
                    None => image,
                }
                .done()?
            }
            other => {
                let message = format!("the context {name} is of the kind {other}");
                return Err(Error::new(FailureKind::Unsupported, message));
            }
        };
        Ok(Some(state))
    }

    // ---- images and sources ---------------------------------------------------------------------

    /// Resolves images, all at once; one answer each, in order.
    pub fn resolve_images(&self, requests: Vec<ImageRequest>) -> Vec<Result<ImageInfo>> {
        let answers = sys::resolve_images(requests).into_iter();
        answers.map(|answer| answer.map_err(Error::from)).collect()
    }

    /// Resolves git and http sources, all at once; one answer each, in order.
    pub fn resolve_sources(&self, requests: Vec<SourceRequest>) -> Vec<Result<SourceInfo>> {
        let answers = sys::resolve_sources(requests).into_iter();
        answers.map(|answer| answer.map_err(Error::from)).collect()
    }

    /// What an image is made on, see [`Build::bases`].
    pub fn base(&self, name: &str, platform: &Platform) -> Result<Base> {
        let wanted = Wanted::new(name, platform).named(format!("FROM {name}"));
        self.bases(vec![wanted]).remove(0)
    }

    /// What images are made on, resolved all at once; one answer each, in order. `scratch` is nothing,
    /// a context of the name stands for the image, and anything else is a reference. The files are
    /// those that the config belongs to, whatever the tag says later.
    pub fn bases(&self, wanted: Vec<Wanted>) -> Vec<Result<Base>> {
        let mut requests: Vec<ImageRequest> = Vec::new();
        let mut found: Vec<Result<Found>> = Vec::new();
        for wanted in &wanted {
            let one = self.find(wanted).map_err(|error| wanted.meta.place(error));
            found.push(one.map(|found| match found {
                Found::Here(base) => Found::Here(base),
                Found::Ask(request) => {
                    let known = requests.iter().position(|known| *known == request);
                    let place = known.unwrap_or(requests.len());
                    if known.is_none() {
                        requests.push(request);
                    }
                    Found::Asked(place)
                }
                Found::Asked(place) => Found::Asked(place),
            }));
        }
        let answers = match requests.is_empty() {
            true => Vec::new(),
            false => sys::resolve_images(requests.clone()),
        };
        let make = |(found, wanted): (Result<Found>, Wanted)| {
            let place = match found? {
                Found::Here(base) => return Ok(*base),
                Found::Asked(place) => place,
                Found::Ask(_) => unreachable!("all of them were asked"),
            };
            let Wanted { name, platform, meta } = wanted;
            let info = answers[place].clone().map_err(|failure| meta.place(failure.into()))?;
            let config = ImageConfig::parse(&info.config)
                .context(format!("the image {name} has a config that cannot be read"))
                .map_err(|error| meta.place(error))?;
            let attrs = requests[place].attrs.clone();
            let made = sys::image(&info.reference, Some(&platform), attrs);
            Ok(base_of(State::of(meta.apply(made)?), config, &platform))
        };
        found.into_iter().zip(wanted).map(make).collect()
    }

    /// What stands for an image.
    fn find(&self, wanted: &Wanted) -> Result<Found> {
        let Wanted { name, platform, .. } = wanted;
        if name == "scratch" {
            let state = State::scratch().platform(platform);
            return Ok(Found::Here(Box::new(Base { state, config: ImageConfig::new(platform) })));
        }
        let ask = |reference: &str, attrs: Attrs| {
            let (reference, platform) = (reference.to_owned(), Some(platform.clone()));
            Found::Ask(ImageRequest { reference, platform, attrs })
        };
        Ok(match sys::context(name, Some(platform))? {
            None => ask(name, Attrs::default()),
            Some(context) if matches!(&*context.kind, "image" | "oci-layout") => {
                ask(&context.identifier, context.attrs)
            }
            Some(context) => {
                let config = match &context.config {
                    Some(text) => ImageConfig::parse(text)?,
                    None => ImageConfig::new(platform),
                };
                let state = self.context_of(name, Some(platform))?.unwrap_or_default();
                Found::Here(Box::new(base_of(state, config, platform)))
            }
        })
    }

    // ---- results --------------------------------------------------------------------------------

    /// Yields an image: of the platform of the state or, if it has none, the first that was asked
    /// for; of the config as it is. Takes effect with [`Image::done`].
    pub fn image(&self, state: &State, config: &ImageConfig) -> Image {
        Image {
            labels: self.labels(),
            config: config.clone(),
            result: ImageResult {
                name: String::new(),
                platform: state.get_platform().cloned(),
                root: state.edge(),
                config: String::new(),
                attrs: Attrs::default(),
            },
        }
    }

    /// Yields files for the caller. Takes effect with [`Files::done`].
    pub fn files(&self, state: &State, path: &str) -> Result<Files> {
        let root = match state.edge() {
            Some(edge) => edge,
            None => sys::file(sys::FileOp::new(None))?,
        };
        Ok(Files(FilesResult {
            name: String::new(),
            platform: state.get_platform().cloned(),
            root,
            path: path.to_owned(),
            attrs: Attrs::default(),
        }))
    }

    /// Work that must succeed though nothing of it is yielded.
    pub fn require(&self, state: &State) -> Result<()> {
        if let Some(edge) = state.edge() {
            sys::require(edge)?;
        }
        Ok(())
    }

    /// Work of a process that is done for its effect, if the caller pushes.
    pub fn effect(&self, name: &str, state: &State) -> Result<()> {
        match state.edge() {
            Some(edge) => Ok(sys::effect(name, edge)?),
            None => Err(Error::invalid(format!("{name} has no effect: it is no process"))),
        }
    }

    /// The build fails with the failure of a process whose outcome was asked for, but after its
    /// results are written.
    pub fn fail_after(&self, state: &State) -> Result<()> {
        match state.edge() {
            Some(edge) => Ok(sys::fail_after(edge)?),
            None => Err(Error::invalid("nothing was run that could fail")),
        }
    }

    /// Writes or pushes named results now.
    pub fn publish(&self, names: &[&str]) -> Result<()> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Ok(sys::publish(&names)?)
    }

    /// A line for the user; not for errors.
    pub fn log(&self, severity: Severity, text: &str) {
        sys::log(severity, text);
    }
}

impl Default for Build {
    fn default() -> Self {
        Build::new()
    }
}

/// What stands for an image.
enum Found {
    /// It is no image of a registry.
    Here(Box<Base>),
    /// It is to be resolved.
    Ask(ImageRequest),
    /// It is resolved by the request of this number.
    Asked(usize),
}

pub(crate) fn base_of(state: State, config: ImageConfig, platform: &Platform) -> Base {
    let state = state.platform(platform).dir(config.get_dir()).user(config.get_user());
    let state =
        config.get_env().into_iter().fold(state, |state, (name, value)| state.env(name, value));
    Base { state, config }
}

/// An image that is yielded.
#[derive(Clone, Debug)]
#[must_use = "it is yielded by `done`"]
pub struct Image {
    labels: Vec<(String, String)>,
    config: ImageConfig,
    result: ImageResult,
}

impl Image {
    /// Distinguishes several images of one build; without it, it is the image that names of the
    /// caller's are for, and that has the labels the caller wants.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.result.name = name.into();
        self
    }

    /// What it is for.
    pub fn platform(mut self, platform: &Platform) -> Self {
        self.result.platform = Some(platform.clone());
        self
    }

    /// A key of `results.image`: `tag`, `push-tag`, `annotation`, `index`.
    pub fn attr(mut self, key: &str, value: impl Into<String>) -> Self {
        self.result.attrs.push(key, value);
        self
    }

    /// Yields it.
    pub fn done(mut self) -> Result<()> {
        if self.result.name.is_empty() {
            for (name, value) in &self.labels {
                self.config = self.config.label(name, value);
            }
        }
        self.result.config = self.config.to_json();
        Ok(sys::yield_image(self.result)?)
    }
}

/// Files that are yielded.
#[derive(Clone, Debug)]
#[must_use = "they are yielded by `done`"]
pub struct Files(FilesResult);

impl Files {
    /// For [`Build::publish`]; several may share one.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.0.name = name.into();
        self
    }

    /// The directory of the main context that they are for.
    pub fn dest(mut self, path: &str) -> Self {
        self.0.attrs.push("dest", path);
        self
    }

    /// Yields them.
    pub fn done(self) -> Result<()> {
        Ok(sys::yield_files(self.0)?)
    }
}
