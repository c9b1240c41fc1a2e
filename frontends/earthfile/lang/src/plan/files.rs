//! `COPY`, `SAVE ARTIFACT`, and the context that files are taken from.

use std::rc::Rc;

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::{
    CopyAction, Diagnostic, Failure, FileAction, FileOp, LocalSource, Output, Span, Text,
    parse_ignore, paths,
};

use super::base::wrong;
use super::outputs::{Left, Local};
use super::run::mode;
use super::state::{Key, State};
use super::{File, Session, main_root, unsupported};
use wbuild_git_url::git_source;

use crate::Code;
use crate::ast::Source;
use crate::flags::{self, Flags};
use crate::reference::{self, plus};

/// What files carry whose time is not kept: 2020-04-16 12:00 UTC, as they always have.
const TIME: &str = "1587038400";

/// What a directory leaves out; the first that is there counts.
const IGNORE_FILES: [&str; 2] = [".earthlyignore", ".earthignore"];

fn attr(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
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
    fn context(&self, directory: &str) -> Result<Output, Failure> {
        if let Some(known) = self.contexts.borrow().get(directory) {
            return Ok(*known);
        }
        let mut host = self.host.borrow_mut();
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let root = match main_root(&mut **host)? {
            Some(root) => root,
            None => {
                let name = "context".to_owned();
                let include: Vec<String> =
                    IGNORE_FILES.iter().map(|file| format!("{prefix}{file}")).collect();
                let probe = LocalSource {
                    name: name.clone(),
                    include: include.clone(),
                    exclude: Vec::new(),
                };
                let at = host.local(&probe)?;
                let mut exclude = Vec::new();
                for path in include {
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
                host.local(&LocalSource { name, include: Vec::new(), exclude })?
            }
        };
        self.contexts.borrow_mut().insert(directory.to_owned(), root);
        Ok(root)
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
            opts.push(attr("allow-missing", "true"));
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
        if let Some(value) = flags.value("chown") {
            let text = self.word(state, value).await?;
            opts.push(attr("chown", text));
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
            let (output, path) = if plus(&text).is_some() {
                let artifact = reference::artifact(&text)
                    .map_err(|error| wrong(&source.path, &text, error))?;
                let at = (&artifact.target, source.path.span());
                let given = (flags, &source.args[..]);
                let wanted = self.key(file, state, given, at, platform.clone()).await?;
                let planned = self.need(&wanted, key, source.path.span()).await?;
                let Some(artifacts) = planned.artifacts else {
                    let message =
                        format!("the target {} saves no artifacts", shown(&wanted.shown()));
                    let help = "write e.g. `SAVE ARTIFACT file` in it";
                    return Err(Diagnostic::error(
                        Code::InvalidReference,
                        source.path.span(),
                        message,
                    )
                    .help(help)
                    .into());
                };
                if keep_own {
                    opts.push(attr("keep-owner", "true"));
                }
                (artifacts, unescaped(&artifact.path))
            } else {
                if text.starts_with('/') {
                    let message = "a file of the context has no absolute path";
                    let help = "write it as seen from the directory of the Earthfile: `./path`";
                    return Err(Diagnostic::error(
                        Code::InvalidReference,
                        source.path.span(),
                        message,
                    )
                    .help(help)
                    .into());
                }
                let Some(path) = super::below(&state.directory, &unescaped(&text)) else {
                    let what = "a file outside of the build's directory";
                    return Err(unsupported(what, source.path.span()));
                };
                (self.context(&state.directory)?, format!("/{path}"))
            };
            let copy = CopyAction { source: output, path, target: place.clone(), opts };
            actions.push((source.text.span(), FileAction::Copy(copy)));
        }
        let op = FileOp { base: state.root, names_from: None, actions };
        state.root = Some(self.add_file(&op, state, line)?);
        state.image.add_history(line.as_str().to_owned(), true);
        Ok(())
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
        let opts = vec![attr("create-dest", "true"), attr("contents-only", "true"), times];
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
        let Some(root) = state.root else {
            let message = "there are no files yet that could be saved";
            let help = "write FROM and what makes the file before it";
            return Err(Diagnostic::error(Code::Misplaced, source.span(), message)
                .help(help)
                .into());
        };
        let mut opts = vec![attr("create-dest", "true"), attr("wildcard", "true")];
        if self.switch(state, flags, "if-exists").await? {
            opts.push(attr("allow-missing", "true"));
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
        let path = paths::join(state.image.working_dir(), &text);
        let saved = match target {
            Some(target) => paths::join_target("/", &unescaped(&self.word(state, target).await?)),
            None => "/".to_owned(),
        };
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
        let copy =
            CopyAction { source: root, path: path.clone(), target: saved, opts: whole(kept) };
        let actions = vec![(line.span(), FileAction::Copy(copy))];
        let op = FileOp { base: state.artifacts, names_from: None, actions };
        state.artifacts = Some(self.add_file(&op, state, line)?);
        if let Some(local) = local {
            let target = self.local(state, flags, local).await?;
            let span = line.span();
            let (path, opts) = (path.clone(), whole(opts));
            state.left.push(Left::Local(Local { root, path, target, opts, span }));
        }
        Ok(())
    }

    /// Where AS LOCAL puts something, below the directory of the build.
    async fn local(
        self: &Rc<Self>,
        state: &State,
        flags: &Flags,
        local: &Text,
    ) -> Result<String, Failure> {
        if let Some(force) = flags.get("force")
            && self.switch(state, flags, "force").await?
        {
            return Err(unsupported("`--force` of SAVE ARTIFACT", flags::span(force)));
        }
        let text = unescaped(&self.word(state, local).await?);
        let Some(path) = super::below(&state.directory, &text) else {
            let span: Span = local.span();
            return Err(unsupported("a file outside of the build's directory", span));
        };
        let directory =
            text.is_empty() || text.ends_with('/') || text == "." || text.ends_with("/.");
        Ok(match (path.as_str(), directory) {
            ("", _) => "/".to_owned(),
            (path, true) => format!("/{path}/"),
            (path, false) => format!("/{path}"),
        })
    }
}
