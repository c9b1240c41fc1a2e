//! `FROM`, and which target a reference names.

use std::rc::Rc;

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::shared::{DEFAULT_PATH, has_layers};
use wbuild_dockerfile::{Diagnostic, Failure, Image, ImageRequest, Platform, Span, Text};

use super::place::Place;
use super::state::{Import, Key, State};
use super::{File, Session, unsupported};
use crate::Code;
use crate::ast::{BuildArg, Kind, Recipe, Statement};
use crate::flags::{Flags, is_literal};
use crate::reference::{self, Reference, ReferenceError, plus};

/// Says where a reference is wrong.
pub(super) fn wrong(word: &Text, text: &str, error: ReferenceError) -> Failure {
    let span = if word.as_str() == text { word.span_of(error.at) } else { word.span() };
    Diagnostic::error(Code::InvalidReference, span, error.message).help(error.help).into()
}

impl<'h> Session<'h> {
    /// The platform that a flag names, or that of the recipe.
    pub(super) async fn platform(
        self: &Rc<Self>,
        state: &State,
        value: Option<&Text>,
    ) -> Result<Platform, Failure> {
        let Some(value) = value else { return Ok(state.platform.clone()) };
        let text = self.word(state, value).await?;
        match text.as_str() {
            "" => return Ok(state.platform.clone()),
            "native" | "user" => return Ok(self.build_platform.clone()),
            _ => {}
        }
        Platform::parse(&text, &self.build_platform).ok_or_else(|| {
            let message = format!("{} is not a platform", shown(&text));
            let help = "write e.g. `linux/arm64`";
            Diagnostic::error(Code::InvalidFlag, value.span(), message).help(help).into()
        })
    }

    /// Which target a reference in a recipe means.
    pub(super) async fn key(
        self: &Rc<Self>,
        file: &File,
        state: &State,
        (flags, args): (&Flags, &[BuildArg]),
        (reference, span): (&Reference, Span),
        platform: Platform,
    ) -> Result<Key, Failure> {
        let (place, allowed) = self.place(file, state, &reference.place, span)?;
        let inherits = place == file.place;
        let overrides = self.overrides(state, flags, args, inherits).await?;
        let privileged = self.privileged(file, state, flags, (&place, allowed)).await?;
        let there = self.file(&place, span)?;
        let name = reference.name.clone();
        if name != "base" && super::find(&there.parsed.targets, &name).is_none() {
            return Err(super::unknown(&there, "target", &name, Some(span)));
        }
        Ok(Key { place, name, platform, overrides, privileged })
    }

    /// Whether a target may ask for privileges: what lies in another repository only if that is said
    /// where it is named.
    pub(super) async fn privileged(
        self: &Rc<Self>,
        file: &File,
        state: &State,
        flags: &Flags,
        (place, allowed): (&Place, bool),
    ) -> Result<bool, Failure> {
        let said = allowed || self.switch(state, flags, "allow-privileged").await?;
        Ok(state.privileged && (said || place.repository == file.place.repository))
    }

    /// IMPORT.
    pub(super) async fn import(
        self: &Rc<Self>,
        file: &File,
        state: &mut State,
        flags: &Flags,
        (place, alias): (&Text, Option<&Text>),
    ) -> Result<(), Failure> {
        let text = self.word(state, place).await?;
        let named = reference::place(&text).map_err(|error| wrong(place, &text, error))?;
        let last = match &named {
            reference::Place::Local(path) | reference::Place::Remote { path, .. } => {
                path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
            }
            reference::Place::Here | reference::Place::Import(_) => {
                let message = format!("{} is neither a directory nor a repository", shown(&text));
                let help = "a directory begins with `./`, a repository with its host";
                return Err(Diagnostic::error(Code::InvalidReference, place.span(), message)
                    .help(help)
                    .into());
            }
        };
        let alias = match alias {
            Some(alias) => self.word(state, alias).await?,
            None => last.strip_suffix(".git").unwrap_or(&last).to_owned(),
        };
        let (found, _) = self.place(file, state, &named, place.span())?;
        let privileged = self.switch(state, flags, "allow-privileged").await?;
        state.imports.insert(alias, Import { place: found, privileged });
        Ok(())
    }

    /// Begins with targets that commands of a recipe will need, as far as that is known: so they do
    /// not wait for the conditions of each other.
    pub(super) fn begin_ahead(self: &Rc<Self>, key: &Key, file: &File, recipe: &Recipe) {
        // What stands below a FROM of another platform is for that one.
        let elsewhere = |statement: &Statement| matches!(&statement.kind, Kind::From { flags, .. } if flags.get("platform").is_some());
        if !file.parsed.base.iter().chain(&recipe.body).any(elsewhere) {
            self.begin_all_ahead(key, file, &recipe.body);
        }
    }

    /// The same for some commands of a recipe.
    pub(super) fn begin_all_ahead(self: &Rc<Self>, key: &Key, file: &File, body: &[Statement]) {
        let begin = |flags: &Flags, args: &[BuildArg], text: &str, artifact: bool| {
            if !flags.0.is_empty() || !is_literal(text) || plus(text).is_none() {
                return;
            }
            let reference = match artifact {
                true => reference::artifact(text).map(|artifact| artifact.target),
                false => reference::target(text),
            };
            let Ok(Reference { place: reference::Place::Here, name }) = reference else { return };
            if super::find(&file.parsed.targets, &name).is_none()
                || args.iter().any(|arg| !is_literal(&arg.value))
            {
                return;
            }
            let mut overrides = key.overrides.clone();
            for arg in args {
                let twice = args.iter().filter(|other| other.name.as_str() == arg.name.as_str());
                if twice.count() > 1 {
                    return;
                }
                overrides.insert(arg.name.as_str().to_owned(), arg.value.as_str().to_owned());
            }
            self.begin(&Key { name, overrides, ..key.clone() });
        };
        for statement in body {
            match &statement.kind {
                Kind::Build { flags, target, args } => begin(flags, args, target, false),
                Kind::From { flags, base, args } => begin(flags, args, base, false),
                Kind::Copy { flags, sources, .. } => {
                    for source in sources {
                        begin(flags, &source.args, &source.path, true);
                    }
                }
                // Nothing after it begins before its end.
                Kind::Wait(_) => return,
                _ => {}
            }
        }
    }

    pub(super) async fn from(
        self: &Rc<Self>,
        key: &Key,
        file: &File,
        state: &mut State,
        (flags, args): (&Flags, &[BuildArg]),
        base: &Text,
        span: Span,
    ) -> Result<(), Failure> {
        let text = self.word(state, base).await?;
        let platform = self.platform(state, flags.value("platform")).await?;
        state.cmd = false;
        state.caches.clear();
        if plus(&text).is_some() {
            let reference = reference::target(&text).map_err(|error| wrong(base, &text, error))?;
            let at = (&reference, base.span());
            let wanted = self.key(file, state, (flags, args), at, platform).await?;
            let planned = self.need(&wanted, key, base.span()).await?;
            if planned.locally {
                let message = format!("{} runs LOCALLY, so it is no image", wanted.shown());
                let help = "copy what it saves: `COPY +target/file .`";
                return Err(Diagnostic::error(Code::InvalidReference, base.span(), message)
                    .help(help)
                    .into());
            }
            state.root = planned.root;
            state.image = planned.image.clone();
            state.platform = planned.platform.clone();
            state.hosts = planned.hosts.clone();
            state.begun = true;
            return Ok(());
        }
        state.begun = true;
        state.hosts.clear();
        if text == "scratch" {
            state.root = None;
            state.image = Image::empty(&platform);
            state.platform = platform;
            return Ok(());
        }
        if text.is_empty() {
            let message = format!("{} comes to nothing", shown(base));
            let help = "name an image, or a target: `FROM +name`";
            return Err(Diagnostic::error(Code::MissingArgument, base.span(), message)
                .help(help)
                .into());
        }
        let failed = |failure: Failure| failure.at(Code::UnresolvedImage, base.span());
        let mut attrs: Vec<(String, String)> =
            self.resolve.iter().map(|mode| ("resolve".to_owned(), mode.clone())).collect();
        // A context of this name, if the caller gives one, stands for the image.
        let named = self.host.borrow_mut().context(&text, Some(&platform)).map_err(failed)?;
        let reference = match named.filter(|_| text != "context") {
            None => text,
            Some(context) if matches!(&*context.kind, "image" | "oci-layout") => {
                attrs.extend(context.attrs);
                context.identifier
            }
            Some(context) => {
                let what = format!(
                    "the context {}, which is no image but {},",
                    shown(&text),
                    context.kind
                );
                return Err(unsupported(&what, base.span()));
            }
        };
        let mut request = ImageRequest { reference, platform: platform.clone(), attrs };
        let info = self.schedule.image(request.clone()).await.map_err(failed)?;
        state.image = Image::parse(&info.config).map_err(|why| {
            let message =
                format!("the config of {} is of no use: {why}", shown(&request.reference));
            Failure::new("invalid", message).at(Code::UnresolvedImage, base.span())
        })?;
        state.image.take_triggers();
        state.image.tidy_working_dir();
        state.root = None;
        if has_layers(&info.config) {
            // By digest, so that files and config are of one image.
            request.reference = info.reference;
            let mut host = self.host.borrow_mut();
            let root = host.image(&request).map_err(failed)?;
            host.annotate(root, &format!("FROM {}", request.reference), &[span], &Vec::new());
            state.root = Some(root);
        }
        if state.image.env().get("PATH").is_none() && platform.os != "windows" {
            state.image.set_env("PATH", DEFAULT_PATH);
        }
        state.platform = platform;
        Ok(())
    }
}
