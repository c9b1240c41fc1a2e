//! `COPY`, `SAVE ARTIFACT`, and the context that files are taken from.

use std::rc::Rc;

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::{
    CopyAction, Diagnostic, Failure, FileAction, FileOp, LocalSource, Output, Span, Text,
    parse_ignore, paths,
};

use super::base::wrong;
use super::outputs::{Left, Local};
use super::place::{Place, is_pattern, main_root, strip};
use super::run::mode;
use super::state::{Key, State};
use super::{File, Session};
use wbuild_git_url::git_source;

use crate::Code;
use crate::ast::Source;
use crate::flags::Flags;
use crate::reference::{self, plus};

/// What files carry whose time is not kept: 2020-04-16 12:00 UTC, as they always have.
const TIME: &str = "1587038400";

/// What is not there is passed over.
pub(super) const ALLOW_MISSING: &str = "allow-missing";

/// What must be there.
pub(super) const REQUIRED: &str = "required";

/// What a directory leaves out; the first that is there counts.
pub(super) const IGNORE_FILES: [&str; 2] = [".earthlyignore", ".earthignore"];

fn attr(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

/// Whether what is copied is there: a pattern that matches nothing is an error, as a path is, unless
/// what is missing is passed over.
fn must_match(path: &str, opts: &mut Vec<(String, String)>) {
    if is_pattern(path) && !opts.iter().any(|(name, _)| name == ALLOW_MISSING) {
        opts.push(attr(REQUIRED, "."));
    }
}

/// A backslash before a `+` is for the parser only.
fn unescaped(path: &str) -> String {
    path.replace("\\+", "+")
}

impl<'h> Session<'h> {
    pub(super) fn add_file(
        &self,
        op: &FileOp,
        state: &State,
        line: &Text,
    ) -> Result<Output, Failure> {
        let mut host = self.host.borrow_mut();
        let span = line.span();
        let at = host.file(op).map_err(|failure| failure.at(Code::FailedCommand, span))?;
        host.annotate(at, &format!("[{}] {line}", state.title), &[span], &Vec::new());
        if self.no_cache {
            host.ignore_cache(at)?;
        }
        Ok(at)
    }

    /// The files of a directory of the context, without what its ignore file leaves out.
    fn context(&self, place: &Place, span: Span) -> Result<Output, Failure> {
        if let Some(repository) = &place.repository {
            // As it is: nothing lies in it that was not committed.
            return self.repository(repository, span);
        }
        if let Some(known) = self.contexts.borrow().get(place) {
            return Ok(*known);
        }
        let prefix = place.path("");
        let ignore = IGNORE_FILES.iter().map(|file| format!("{prefix}{file}")).collect();
        let root = self.context_without(&prefix, ignore)?;
        self.contexts.borrow_mut().insert(place.clone(), root);
        Ok(root)
    }

    /// The files of the context without what the first of these ignore files leaves out, whose
    /// patterns are relative to the directory `prefix`.
    pub(super) fn context_without(
        &self,
        prefix: &str,
        ignore: Vec<String>,
    ) -> Result<Output, Failure> {
        let mut host = self.host.borrow_mut();
        if let Some(root) = main_root(&mut **host)? {
            return Ok(root);
        }
        let name = "context".to_owned();
        let probe =
            LocalSource { name: name.clone(), include: ignore.clone(), exclude: Vec::new() };
        let at = host.local(&probe)?;
        let mut exclude = Vec::new();
        for path in ignore {
            let Some(data) = host.read_file(at, &format!("/{path}"))? else { continue };
            let source = host.add_source(&path, "", &data)?;
            let patterns = parse_ignore(source, &data).map_err(Failure::of)?;
            exclude.extend(patterns.into_iter().map(|pattern| {
                let text = match pattern.text.strip_prefix('!') {
                    Some(text) => format!("!{prefix}{text}"),
                    None => format!("{prefix}{}", pattern.text),
                };
                (text, Some(pattern.at))
            }));
            break;
        }
        host.local(&LocalSource { name, include: Vec::new(), exclude })
    }

    pub(super) async fn copy(
        self: &Rc<Self>,
        key: &Key,
        file: &File,
        state: &mut State,
        flags: &Flags,
        (sources, target): (&[Source], &Text),
        line: &Text,
    ) -> Result<(), Failure> {
        let mut opts = vec![attr("create-dest", "true"), attr("wildcard", "true")];
        if !self.switch(state, flags, "dir").await? {
            opts.push(attr("contents-only", "true"));
        }
        if self.switch(state, flags, "if-exists").await? {
            opts.push(attr(ALLOW_MISSING, "true"));
        }
        let times = match self.switch(state, flags, "keep-ts").await? {
            true => attr("keep-times", "true"),
            false => attr("timestamp", TIME),
        };
        opts.push(times);
        if !self.switch(state, flags, "symlink-no-follow").await? {
            opts.push(attr("follow-links", "true"));
        }
        let keep_own = self.switch(state, flags, "keep-own").await?;
        if let Some(value) = flags.value("chmod") {
            let text = self.word(state, value).await?;
            opts.push(attr("mode", mode(&text, value.span())?));
        }
        let chown = match flags.value("chown") {
            Some(value) => self.word(state, value).await?,
            None => String::new(),
        };
        if !chown.is_empty() {
            opts.push(attr("chown", chown.as_str()));
        }
        let platform = self.platform(state, flags.value("platform")).await?;
        let written = unescaped(&self.word(state, target).await?);
        let several = sources.len() > 1 && !written.ends_with('/') && written != ".";
        let place = paths::join_target(state.image.working_dir(), &written);
        let place = if several && !place.ends_with('/') { place + "/" } else { place };
        let mut actions = Vec::new();
        for source in sources {
            let text = self.word(state, &source.path).await?;
            let mut opts = opts.clone();
            let (trees, path) = if plus(&text).is_some() {
                let artifact = reference::artifact(&text)
                    .map_err(|error| wrong(&source.path, &text, error))?;
                if keep_own && chown.is_empty() {
                    opts.push(attr("keep-owner", "true"));
                }
                let path = unescaped(&artifact.path);
                let wildcards = (&source.path, "COPY", "wildcard-copy");
                let mut outputs = Vec::new();
                for target in self.stands_for(file, &artifact.target, wildcards)? {
                    let at = (&target, source.path.span());
                    let given = (flags, &source.args[..]);
                    let wanted = self.key(file, state, given, at, platform.clone()).await?;
                    outputs.push(self.artifacts(&wanted, key, source.path.span()).await?);
                }
                (outputs, path)
            } else {
                let mut path = unescaped(&text);
                if path.starts_with('/') {
                    // The context is all there is: its directory is what an absolute path begins at.
                    path = format!(".{}", paths::clean(&path));
                }
                let Some(path) = state.place.below(&path) else {
                    let message =
                        format!("{} lies outside of the Earthfile's directory", shown(&text));
                    let help =
                        "save it as an artifact of an Earthfile there: `COPY ../dir+target/file .`";
                    return Err(Diagnostic::error(
                        Code::InvalidReference,
                        source.path.span(),
                        message,
                    )
                    .help(help)
                    .into());
                };
                let context = self.context(&state.place, source.path.span())?;
                (vec![context], format!("/{path}"))
            };
            // What is copied is of who works with it, unless something else is said.
            let user = state.image.user();
            if chown.is_empty() && !keep_own && !user.is_empty() {
                opts.push(attr("chown", user));
            }
            must_match(&path, &mut opts);
            for tree in trees {
                let (path, target, opts) = (path.clone(), place.clone(), opts.clone());
                let copy = CopyAction { source: tree, path, target, opts };
                actions.push((source.text.span(), FileAction::Copy(copy)));
            }
        }
        let op = FileOp { base: state.root, names_from: None, actions };
        state.root = Some(self.add_file(&op, state, line)?);
        state.image.add_history(line.as_str().to_owned(), true);
        Ok(())
    }

    /// Names an artifact of the target that was asked for as the one result.
    pub(super) fn artifact(&self, keys: &[Key], path: &str) -> Result<(), Failure> {
        let [key] = keys else {
            let message = "an artifact is written for one platform at a time";
            return Err(Failure::new("unsupported", message));
        };
        let slots = self.slots.borrow();
        let planned = slots.get(key).and_then(|slot| slot.done.as_ref());
        let Some(source) = planned.and_then(|state| state.as_ref().ok()?.artifacts) else {
            let message = format!("the target {} saves no artifacts", shown(&key.shown()));
            return Err(Failure::new("not-found", message));
        };
        let at = Span { source: 0, start: 0, end: 0 };
        let file = self.file(&key.place, at)?;
        let at = super::find(&file.parsed.targets, &key.name).map_or(at, |t| t.name.span());
        let mut host = self.host.borrow_mut();
        let name = host.opt("artifact-name").unwrap_or_default();
        let opts = ["create-dest", "wildcard", "follow-links"].map(|name| attr(name, "true"));
        let (path, target) = (unescaped(path), format!("/{name}"));
        let mut opts = [&opts[..], &[attr("timestamp", TIME)]].concat();
        must_match(&path, &mut opts);
        let actions = vec![(at, FileAction::Copy(CopyAction { source, path, target, opts }))];
        let root = host.file(&FileOp { base: None, names_from: None, actions })?;
        host.annotate(root, "save artifact", &[at], &Vec::new());
        host.files("", root, "")
    }

    /// What a target saves for others.
    pub(super) async fn artifacts(
        self: &Rc<Self>,
        wanted: &Key,
        key: &Key,
        span: Span,
    ) -> Result<Output, Failure> {
        let planned = self.need(wanted, key, span).await?;
        planned.artifacts.ok_or_else(|| {
            let message = format!("the target {} saves no artifacts", shown(&wanted.shown()));
            let help = "write e.g. `SAVE ARTIFACT file` in it";
            Diagnostic::error(Code::InvalidReference, span, message).help(help).into()
        })
    }

    pub(super) async fn git_clone(
        self: &Rc<Self>,
        state: &mut State,
        flags: &Flags,
        (url, target): (&Text, &Text),
        line: &Text,
    ) -> Result<(), Failure> {
        let address = self.word(state, url).await?;
        let branch = match flags.value("branch") {
            Some(branch) => self.word(state, branch).await?,
            None => String::new(),
        };
        let Some(git) = git_source(&address) else {
            let message = format!("{} is not the address of a repository", shown(&address));
            let help = "write e.g. `https://example.org/repo.git` or `git@example.org:repo.git`";
            return Err(Diagnostic::error(Code::InvalidReference, url.span(), message)
                .help(help)
                .into());
        };
        let source = {
            let mut host = self.host.borrow_mut();
            let failed = |failure: Failure| failure.at(Code::FailedCommand, line.span());
            let source = host.git(&git.url, &branch, &git.attrs(true)).map_err(failed)?;
            let hidden = vec![attr("hidden", "true")];
            host.annotate(source, &format!("[{}] {line}", state.title), &[url.span()], &hidden);
            source
        };
        let times = match self.switch(state, flags, "keep-ts").await? {
            true => attr("keep-times", "true"),
            false => attr("timestamp", TIME),
        };
        let written = unescaped(&self.word(state, target).await?);
        let place = paths::join(state.image.working_dir(), &written);
        let place = if place.ends_with('/') { place } else { place + "/" };
        let mut opts = vec![attr("create-dest", "true"), attr("contents-only", "true"), times];
        if !state.image.user().is_empty() {
            opts.push(attr("chown", state.image.user()));
        }
        let copy = CopyAction { source, path: "/".to_owned(), target: place, opts };
        let actions = vec![(line.span(), FileAction::Copy(copy))];
        let op = FileOp { base: state.root, names_from: None, actions };
        state.root = Some(self.add_file(&op, state, line)?);
        state.image.add_history(line.as_str().to_owned(), true);
        Ok(())
    }

    pub(super) async fn save_artifact(
        self: &Rc<Self>,
        file: &File,
        state: &mut State,
        flags: &Flags,
        (source, target, local): (&Text, Option<&Text>, Option<&Text>),
        line: &Text,
    ) -> Result<(), Failure> {
        let root = match state.locally {
            true => Some(self.local_files(state)?),
            false => state.root,
        };
        let Some(root) = root else {
            let message = "there are no files yet that could be saved";
            let help = "write FROM and what makes the file before it";
            return Err(Diagnostic::error(Code::Misplaced, source.span(), message)
                .help(help)
                .into());
        };
        let mut opts = vec![attr("create-dest", "true"), attr("wildcard", "true")];
        if self.switch(state, flags, "if-exists").await? {
            opts.push(attr(ALLOW_MISSING, "true"));
        }
        let times = match self.switch(state, flags, "keep-ts").await? {
            true => attr("keep-times", "true"),
            false => attr("timestamp", TIME),
        };
        opts.push(times);
        if !self.switch(state, flags, "symlink-no-follow").await? {
            opts.push(attr("follow-links", "true"));
        }
        let text = unescaped(&self.word(state, source).await?);
        let path = if state.locally {
            self.local_path(state, &text, source.span())?
        } else {
            paths::join(state.image.working_dir(), &text)
        };
        let saved = match target {
            Some(target) => paths::join_target("/", &unescaped(&self.word(state, target).await?)),
            None => "/".to_owned(),
        };
        must_match(&path, &mut opts);
        let mut kept = opts.clone();
        if file.has("save-artifact-keep-own") || self.switch(state, flags, "keep-own").await? {
            kept.push(attr("keep-owner", "true"));
        }
        // The contents of a whole tree, which has no name of its own.
        let whole = |mut opts: Vec<(String, String)>| {
            if path == "/" {
                opts.push(attr("contents-only", "true"));
            }
            opts
        };
        let root = match state.locally {
            true => root,
            false => self.persisted(state, Some(&path))?.unwrap_or(root),
        };
        let copy = CopyAction {
            source: root,
            path: path.clone(),
            target: saved.clone(),
            opts: whole(kept),
        };
        let actions = vec![(line.span(), FileAction::Copy(copy))];
        let op = FileOp { base: state.artifacts, names_from: None, actions };
        state.artifacts = Some(self.add_file(&op, state, line)?);
        if let Some(local) = local {
            let (base, target) = self.local(state, flags, local).await?;
            // In a directory of the artifacts it is called what it was called before.
            let name = (!saved.ends_with('/')).then_some(saved);
            let (path, opts, span) = (path.clone(), whole(opts), line.span());
            state.left.push(Left::Local(Local { root, path, name, base, target, opts, span }));
        }
        Ok(())
    }

    /// Where AS LOCAL puts something: a directory of the main context, and the path below it. What
    /// is of a repository is saved where the build began.
    async fn local(
        self: &Rc<Self>,
        state: &State,
        flags: &Flags,
        local: &Text,
    ) -> Result<(String, String), Failure> {
        let place = if state.place.repository.is_some() { &self.main } else { &state.place };
        let force = self.switch(state, flags, "force").await? && state.place.repository.is_none();
        let text = unescaped(&self.word(state, local).await?);
        let refused = |why: &str, help: &str| {
            let message = format!("{} lies outside of {why}", shown(&text));
            Err(Diagnostic::error(Code::InvalidReference, local.span(), message).help(help).into())
        };
        let (base, path) = match (place.below(&text), place.join(&text)) {
            _ if text.starts_with('/') => {
                let help = "write it as seen from the directory of the Earthfile: `./path`";
                return refused("the directories of the build", help);
            }
            (Some(path), _) => {
                let inside = strip(&path, &place.directory).unwrap_or_default().to_owned();
                (place.directory.clone(), inside)
            }
            (None, Some(path)) if force => (String::new(), path),
            (None, Some(_)) if state.place.repository.is_none() => {
                return refused(
                    "the Earthfile's directory",
                    "if that is meant: `SAVE ARTIFACT --force`",
                );
            }
            (None, _) => {
                let help = "files are saved in the git work tree around the Earthfile, or in its \
                            directory if there is none";
                return refused("what is built from", help);
            }
        };
        let directory =
            text.is_empty() || text.ends_with('/') || text == "." || text.ends_with("/.");
        let target = match (path.as_str(), directory) {
            ("", _) => "/".to_owned(),
            (path, true) => format!("/{path}/"),
            (path, false) => format!("/{path}"),
        };
        Ok((base, target))
    }
}
