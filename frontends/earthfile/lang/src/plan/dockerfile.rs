//! `FROM DOCKERFILE`: the frontend of Dockerfiles builds it, inside this build's graph.
//!
//! What it gets is a tree whose top is the context, without what the ignore files leave out. It is
//! copied together only if it is no tree already.

use std::collections::BTreeSet;
use std::rc::Rc;

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::shared::DEFAULT_PATH;
use wbuild_dockerfile::{
    CopyAction, Diagnostic, Failure, FileAction, FileOp, Image, LocalSource, Output, Platform,
    Span, Text, paths,
};

use super::base::wrong;
use super::files::IGNORE_FILES;
use super::host::NestedBuild;
use super::place::{main_root, relative};
use super::state::{Key, State};
use super::{File, Session};
use crate::Code;
use crate::ast::Source;
use crate::flags::Flags;
use crate::reference::{self, plus};

/// What it is called where nothing is said.
const NAME: &str = "Dockerfile";
/// What a context leaves out if it has no ignore file of this language.
const DOCKER_IGNORE: &str = ".dockerignore";

/// Files of a target, or of the build's own context.
enum From {
    /// What a target has saved, and the path in it.
    Artifact(Output, String),
    /// A path below the directory of the build.
    Here(String),
}

impl<'h> Session<'h> {
    pub(super) async fn from_dockerfile(
        self: &Rc<Self>,
        key: &Key,
        file: &File,
        state: &mut State,
        flags: &Flags,
        context: &Source,
        line: &Text,
    ) -> Result<(), Failure> {
        let platform = self.platform(state, flags.value("platform")).await?;
        // Without the entitlement, which is the caller's to give, no step is privileged.
        self.switch(state, flags, "allow-privileged").await?;
        let from = self.files_named(key, file, state, context, &platform).await?;
        let named = match flags.value("f") {
            Some(path) => {
                let source = Source { text: path.clone(), path: path.clone(), args: Vec::new() };
                Some((self.files_named(key, file, state, &source, &platform).await?, path.span()))
            }
            None => None,
        };
        let span = context.path.span();
        let usual = from.join(NAME);
        let (at, definition_span) = named.as_ref().map_or((&usual, span), |(at, span)| (at, *span));
        let (name, data) = self.definition(state, at, definition_span).await?;
        let beside = match &named {
            Some((From::Here(path), _)) => Some(format!("{path}{DOCKER_IGNORE}")),
            _ => None,
        };
        let root = self.tree(state, from, beside, line)?;

        let mut options: Vec<(String, String)> = Vec::new();
        for (name, mut values) in self.arguments(state, flags, &[]).await? {
            options.extend(values.pop().map(|value| (format!("build-arg:{name}"), value)));
        }
        if self.no_cache {
            options.push(("no-cache".to_owned(), String::new()));
        }
        if let Some(mode) = &self.resolve {
            options.push(("image-resolve-mode".to_owned(), mode.clone()));
        }
        let target = match flags.value("target") {
            Some(target) => Some(self.word(state, target).await?).filter(|name| !name.is_empty()),
            None => None,
        };
        let build = NestedBuild {
            frontend: "dockerfile".to_owned(),
            definition: (name, data),
            context: root,
            // What stands for an image of its name does so in a Dockerfile, too.
            handed_on: self.named_contexts(),
            target,
            platform: platform.clone(),
            options,
            asked_at: line.span(),
        };
        let images = self.schedule.nested(build).await.map_err(|mut failure| {
            // Besides the places in the Dockerfile, which it brings along.
            let message = match failure.diagnostics.is_empty() {
                true => failure.message.clone(),
                false => "the Dockerfile is built for this line".to_owned(),
            };
            failure.diagnostics.push(Diagnostic::error(Code::FailedCommand, line.span(), message));
            failure
        })?;
        let [image] = &images[..] else {
            let message = format!("the Dockerfile yields {} images, not one", images.len());
            return Err(Diagnostic::error(Code::UnresolvedImage, line.span(), message).into());
        };
        state.image = Image::parse(&image.config).map_err(|why| {
            let message = format!("the config of the Dockerfile's image is of no use: {why}");
            Failure::new("invalid", message).at(Code::UnresolvedImage, line.span())
        })?;
        state.image.tidy_working_dir();
        if state.image.env().get("PATH").is_none() && platform.os != "windows" {
            state.image.set_env("PATH", DEFAULT_PATH);
        }
        state.root = image.root;
        state.platform = platform;
        state.hosts.clear();
        state.cmd = false;
        state.begun = true;
        Ok(())
    }

    /// What a path or a reference to an artifact names.
    async fn files_named(
        self: &Rc<Self>,
        key: &Key,
        file: &File,
        state: &State,
        source: &Source,
        platform: &Platform,
    ) -> Result<From, Failure> {
        let text = self.word(state, &source.path).await?;
        if plus(&text).is_none() {
            let path = state.place.join(&text).filter(|_| !text.starts_with('/'));
            return path.map(From::Here).ok_or_else(|| {
                let message = format!("{} lies outside of the build's context", shown(&text));
                let help = "write it as seen from the directory of the Earthfile: `./path`";
                let at = source.path.span();
                Diagnostic::error(Code::InvalidReference, at, message).help(help).into()
            });
        }
        // The flags' arguments are for the Dockerfile.
        let none = Flags::default();
        let given = (&none, &source.args[..]);
        let artifact =
            reference::artifact(&text).map_err(|error| wrong(&source.path, &text, error))?;
        let at = (&artifact.target, source.path.span());
        let wanted = self.key(file, state, given, at, platform.clone()).await?;
        let saved = self.artifacts(&wanted, key, source.path.span()).await?;
        Ok(From::Artifact(saved, paths::join("/", &artifact.path)))
    }

    /// The Dockerfile: what it is called, and its text.
    async fn definition(
        self: &Rc<Self>,
        state: &State,
        at: &From,
        span: Span,
    ) -> Result<(String, Vec<u8>), Failure> {
        let failed = |failure: Failure| failure.at(Code::FailedCommand, span);
        let (root, path) = match at {
            From::Artifact(root, path) => {
                self.schedule.solved(vec![*root]).await.map_err(failed)?;
                (*root, path.clone())
            }
            From::Here(path) => (self.unfiltered(state, path, span)?, format!("/{path}")),
        };
        let found = self.host.borrow_mut().read_file(root, &path).map_err(failed)?;
        let name = match (at, &state.place.repository) {
            // As people know it who stand in the directory of the build.
            (From::Here(path), None) => relative(&self.main.directory, path),
            _ => path.trim_start_matches('/').to_owned(),
        };
        match found {
            Some(data) => Ok((name, data)),
            None => {
                let message = format!("there is no {}", shown(&name));
                let help = "`-f` names the Dockerfile, as a path seen from the Earthfile or as an artifact";
                let problem = Diagnostic::error(Code::UnknownTarget, span, message).help(help);
                Err(Failure { kind: "not-found".to_owned(), ..problem.into() })
            }
        }
    }

    /// The names that the caller gives contexts besides the main one.
    fn named_contexts(&self) -> Vec<String> {
        let names = self.host.borrow_mut().context_names().into_iter();
        let names = names.map(|name| name.split("::").next().unwrap_or_default().to_owned());
        let names: BTreeSet<String> = names.filter(|name| name != "context").collect();
        names.into_iter().collect()
    }

    /// The context with at least this file of it: what ignore files leave out may all the same be the
    /// Dockerfile.
    fn unfiltered(&self, state: &State, path: &str, span: Span) -> Result<Output, Failure> {
        if let Some(repository) = &state.place.repository {
            return self.repository(repository, span);
        }
        let mut host = self.host.borrow_mut();
        if let Some(root) = main_root(&mut **host)? {
            return Ok(root);
        }
        let (name, include) = ("context".to_owned(), vec![path.to_owned()]);
        host.local(&LocalSource { name, include, exclude: Vec::new() })
    }

    /// A tree whose top is the context.
    fn tree(
        self: &Rc<Self>,
        state: &State,
        from: From,
        beside: Option<String>,
        line: &Text,
    ) -> Result<Output, Failure> {
        let (source, path) = match from {
            From::Artifact(root, path) => (root, path),
            From::Here(path) if state.place.repository.is_some() => {
                (self.unfiltered(state, &path, line.span())?, format!("/{path}"))
            }
            From::Here(path) => {
                let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
                let ignore = IGNORE_FILES.iter().copied().chain([DOCKER_IGNORE]);
                let ignore = ignore.map(|name| format!("{prefix}{name}"));
                let ignore: Vec<String> = beside.into_iter().chain(ignore).collect();
                (self.context_without(&prefix, ignore)?, format!("/{path}"))
            }
        };
        if path == "/" {
            return Ok(source);
        }
        let opts = [("contents-only", "true"), ("wildcard", "true"), ("keep-times", "true")];
        let opts = opts.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let copy = CopyAction { source, path, target: "/".to_owned(), opts };
        let actions = vec![(line.span(), FileAction::Copy(copy))];
        self.add_file(&FileOp { base: None, names_from: None, actions }, state, line)
    }
}

impl From {
    fn join(&self, name: &str) -> From {
        match self {
            From::Artifact(root, path) => From::Artifact(*root, paths::join(path, name)),
            From::Here(path) if path.is_empty() => From::Here(name.to_owned()),
            From::Here(path) => From::Here(format!("{path}/{name}")),
        }
    }
}
