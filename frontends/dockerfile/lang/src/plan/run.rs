//! `RUN`.

use crate::ast::{Command, Heredoc, Instruction, Mount, Run};
use crate::parse::{Resolved, Sharing, resolve_mount};
use crate::text::shown;
use crate::{Code, Diagnostic, Failure, Text, paths};

use super::contexts::hidden;
use super::expand_word;
use super::host::{Attrs, Bind, CacheDir, Exec, ExecMount, FileAction, FileOp, Output};
use super::lower::Lowering;

/// Where a heredoc that is a program of its own (`#!`) appears.
const PROGRAMS: &str = "/dev/pipes/";

fn attr(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

impl Lowering<'_, '_> {
    pub(super) fn run(&mut self, instruction: &Instruction, run: &Run) -> Result<(), Failure> {
        if let Some(device) = run.devices.first() {
            return Err(Diagnostic::error(
                Code::Unsupported,
                device.span(),
                "`--device` of RUN is not supported yet",
            )
            .into());
        }
        let mut mounts = Vec::new();
        let (args, summary) = self.arguments(run, &mut mounts)?;
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let mut env: Vec<_> = self.state.vars.pairs().map(owned).collect();
        for pair in &run.own.env {
            let (name, value) = (self.word(&pair.name)?, self.word(&pair.value)?);
            env.retain(|(known, _)| *known != name);
            env.push((name, value));
        }
        let (mut cwd, mut user) =
            (self.state.image.working_dir().to_owned(), self.state.image.user().to_owned());
        if let Some(own) = &run.own.workdir {
            cwd = paths::join(&cwd, &self.word(own)?);
        }
        if let Some(own) = &run.own.user {
            user = self.word(own)?;
        }
        let mut masked = Vec::new();
        let mut sockets: Vec<String> = Vec::new();
        if let Some(size) = &self.session.request.shm_size {
            let opts = vec![attr("size", size.clone())];
            mounts.push(ExecMount::Tmpfs { target: "/dev/shm".to_owned(), opts });
        }
        for mount in &run.mounts {
            self.mount(mount, &mut mounts, &mut sockets)?;
        }
        for mount in &mounts {
            if let ExecMount::SecretEnv { name, .. } = mount {
                masked.push(name.clone());
            }
        }
        if let Some(socket) = sockets.first()
            && self.state.vars.get("SSH_AUTH_SOCK").is_none()
        {
            env.push((String::from("SSH_AUTH_SOCK"), socket.clone()));
        }
        let network = match run.network.as_deref() {
            None | Some("default") => self.session.request.network.clone(),
            Some(mode) => mode.to_owned(),
        };
        let name = self.shown(instruction, &masked) + &summary;
        let name = self.next_title() + &name;
        let exec = Exec {
            root: self.state.root,
            env,
            volatile_env: self.session.request.proxy_env(),
            cwd,
            user,
            hostname: self.session.request.hostname.clone(),
            platform: self.state.platform.clone(),
            network,
            security: run.security.as_deref().unwrap_or("sandbox").to_owned(),
            add_hosts: self.session.request.add_hosts.clone(),
            ulimits: self.session.request.ulimits.clone(),
            devices: Vec::new(),
            mounts,
            args,
            capture: None,
        };
        let root = self.session.host.exec(&exec)?;
        self.name(root, &name, &Attrs::new())?;
        self.state.root = Some(root);
        let history = self.history(&exec.args);
        self.state.image.add_history(history, true);
        Ok(())
    }

    /// The command as history shows it, after the arguments that it sees.
    fn history(&self, args: &[String]) -> String {
        let arguments = self.state.arguments.pairs();
        let mut words = Vec::with_capacity(args.len() + arguments.len() + 2);
        words.push("RUN".to_owned());
        if arguments.len() > 0 {
            words.push(format!("|{}", arguments.len()));
        }
        for (name, declared) in arguments {
            // `ENV` of the same name counts where it stands later.
            let value = self.state.vars.get(name).unwrap_or(declared);
            words.push(format!("{name}={value}"));
        }
        words.extend(args.iter().cloned());
        words.join(" ") + " # buildkit"
    }

    /// The words of the process, and what the step's name says of its heredoc.
    fn arguments(
        &mut self,
        run: &Run,
        mounts: &mut Vec<ExecMount>,
    ) -> Result<(Vec<String>, String), Failure> {
        let (Command::Shell(text), [first, ..]) = (&run.command, &run.heredocs[..]) else {
            return Ok((self.command(&run.command), String::new()));
        };
        // Nothing but a heredoc: it is the command.
        if *first.word == **text {
            let content = first.content();
            let summary = format!(" ({})", summary(&first.raw));
            // As written: behind a tab that `<<-` drops it is a remark to the shell.
            if first.raw.starts_with("#!") && self.state.image.os() != "windows" {
                mounts.push(self.program(first, &content)?);
                // The shell starts it, as it starts whatever is not in exec form.
                return Ok((self.in_shell(format!("{PROGRAMS}{}", first.name)), summary));
            }
            return Ok((self.in_shell(content.as_str().to_owned()), summary));
        }
        // The shell reads them itself, so it gets them as they were written.
        let mut full = text.as_str().to_owned();
        for heredoc in &run.heredocs {
            full.push('\n');
            full.push_str(&heredoc.raw);
            full.push_str(&heredoc.name);
        }
        Ok((self.in_shell(full), String::new()))
    }

    /// A text behind the stage's shell.
    fn in_shell(&self, text: String) -> Vec<String> {
        let mut words = self.state.image.shell();
        words.push(text);
        words
    }

    /// A heredoc as a file that can be run.
    fn program(&mut self, heredoc: &Heredoc, content: &Text) -> Result<ExecMount, Failure> {
        if heredoc.name.contains('/') {
            let message = format!("{} cannot be the name of a program", shown(&heredoc.name));
            let error = Diagnostic::error(Code::InvalidHeredoc, heredoc.word.span(), message);
            return Err(error.help("end it by a name without `/`, e.g. `EOF`").into());
        }
        let mut opts = vec![attr("mode", "0755")];
        opts.extend(self.timestamp());
        let action = FileAction::Write {
            path: format!("/{}", heredoc.name),
            data: content.as_bytes().to_vec(),
            opts,
        };
        let span = heredoc.word.span();
        let op = FileOp { base: None, names_from: None, actions: vec![(span, action)] };
        let source = self.session.host.file(&op)?;
        let title = "[internal] preparing inline document";
        self.session.host.annotate(source, title, &[span], &hidden());
        Ok(ExecMount::Bind {
            target: PROGRAMS.trim_end_matches('/').to_owned(),
            source: Some(source),
            subpath: String::new(),
            access: Bind::ReadOnly,
        })
    }

    /// The files that a mount names; those of the context if it names none.
    fn mounted(&mut self, from: Option<&Text>) -> Result<Option<Output>, Failure> {
        let Some(from) = from else {
            let root = self.session.main_context()?;
            return Ok(Some(root));
        };
        let place = self.plan.places.get(from.as_str()).copied();
        let place = place.expect("every `from` was looked up when the stage was planned");
        self.place(place, from)
    }

    fn mount(
        &mut self,
        mount: &Mount,
        mounts: &mut Vec<ExecMount>,
        sockets: &mut Vec<String>,
    ) -> Result<(), Failure> {
        let (state, escape) = (&self.state, self.escape);
        let (lint, comments) = (&mut *self.session.lint, self.comments);
        let resolved = resolve_mount(mount, &mut |word| {
            let expansion = expand_word(word, escape, &state.vars)?;
            state.undefined(lint, comments, word, &expansion);
            Ok(expansion.text)
        })?;
        let cwd = self.state.image.working_dir().to_owned();
        let place = |target: &str| {
            let target = paths::join(&cwd, target);
            if target == "/" {
                let message = "a mount cannot take the place of the whole file system";
                return Err(Failure::from(
                    Diagnostic::error(Code::InvalidMount, mount.text.span(), message)
                        .help("give it a directory of its own: `target=/path`"),
                ));
            }
            Ok(target)
        };
        let owned = |ownership: &crate::parse::Ownership| {
            let mut opts = Attrs::new();
            opts.extend(ownership.mode.map(|mode| attr("mode", format!("{mode:04o}"))));
            opts.extend(ownership.uid.map(|uid| attr("uid", uid.to_string())));
            opts.extend(ownership.gid.map(|gid| attr("gid", gid.to_string())));
            opts
        };
        match resolved {
            Resolved::Bind { from, source, target, writable } => {
                let target = place(&target)?;
                mounts.push(ExecMount::Bind {
                    target,
                    source: self.mounted(from.as_ref())?,
                    subpath: subpath(&source),
                    access: if writable { Bind::Discard } else { Bind::ReadOnly },
                });
            }
            Resolved::Cache { from, source, target, id, sharing, readonly, ownership } => {
                let id = id.unwrap_or_else(|| paths::clean(&target));
                self.taken.mount("cache-mount", &id, false, mount.text.span());
                let namespace = &self.session.request.cache_namespace;
                let id = if namespace.is_empty() { id } else { format!("{namespace}/{id}") };
                let target = place(&target)?;
                let seed = match &from {
                    None => None,
                    from => self.mounted(from.as_ref())?,
                };
                let mut opts = owned(&ownership);
                if readonly {
                    opts.push(attr("readonly", "true"));
                }
                if seed.is_some() && !source.is_empty() {
                    opts.push(attr("seed-path", paths::rooted(&source)));
                }
                let sharing = Sharing::as_str(sharing);
                mounts.push(ExecMount::Cache(CacheDir { target, id, sharing, seed, opts }));
            }
            Resolved::Tmpfs { target, size } => {
                let target = place(&target)?;
                let opts = size.map(|size| attr("size", size.to_string())).into_iter().collect();
                mounts.push(ExecMount::Tmpfs { target, opts });
            }
            Resolved::Secret { id, target, env, required, ownership } => {
                self.taken.mount("secret", &id, required, mount.text.span());
                if let Some(name) = env {
                    let id = id.clone();
                    mounts.push(ExecMount::SecretEnv { name, id, required });
                }
                if let Some(target) = target {
                    let target = place(&target)?;
                    let opts = owned(&ownership);
                    mounts.push(ExecMount::SecretFile { target, id, required, opts });
                }
            }
            Resolved::Ssh { id, target, required, ownership } => {
                self.taken.mount("ssh", &id, required, mount.text.span());
                let target = match target {
                    Some(target) => place(&target)?,
                    None => format!("/run/buildkit/ssh_agent.{}", sockets.len()),
                };
                sockets.push(target.clone());
                mounts.push(ExecMount::Ssh { target, id, required, opts: owned(&ownership) });
            }
        }
        Ok(())
    }
}

/// A path in a mount's source; nothing for all of it.
fn subpath(source: &str) -> String {
    let path = paths::rooted(source);
    if path == "/" { String::new() } else { path }
}

/// The first line of a heredoc, for the step's name.
fn summary(text: &str) -> String {
    let mut lines = text.trim().lines();
    let first = lines.next().unwrap_or_default();
    format!("{first}{}", if lines.next().is_some() { "..." } else { "" })
}
