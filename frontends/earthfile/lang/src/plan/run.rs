//! `RUN`, and conditions.

use std::rc::Rc;

use wbuild_dockerfile::ast::Command;
use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::{
    CacheDir, Diagnostic, Exec, ExecMount, Failure, Output, Span, Text, TextBuilder, paths,
};

use super::Session;
use super::outputs::Left;
use super::state::{Key, State};
use super::words::CAPTURE;
use crate::Code;
use crate::ast::{Mount, Run};
use crate::flags;
use crate::parse::{is_variable, mount};

/// What a condition may print; nobody reads it.
pub(super) const CONDITION: u32 = 4096;

fn attr(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

/// File modes are written in octal.
pub(super) fn mode(value: &str, span: Span) -> Result<String, Failure> {
    match u32::from_str_radix(value, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(format!("{mode:04o}")),
        _ => {
            let message = format!("{} is not a file mode", shown(value));
            let help = "write it in octal, e.g. `0755`";
            Err(Diagnostic::error(Code::InvalidFlag, span, message).help(help).into())
        }
    }
}

/// `WITH DOCKER`, for which a build would need more rights than it has.
pub(super) fn no_docker(span: Span) -> Failure {
    let (message, help) = NO_DOCKER;
    Diagnostic::error(Code::Unsupported, span, message).help(help).into()
}

/// What is said of a Docker daemon, and what to do without it.
const NO_DOCKER: (&str, &str) = (
    "there is no Docker daemon in a build",
    "save images with `SAVE IMAGE name` and `BUILD +target`, and run their tests behind the build",
);

/// Why a flag is refused, and what to do in its place.
fn refused(flag: &str) -> Option<(&'static str, &'static str)> {
    Some(match flag {
        "interactive" | "interactive-keep" => (
            "a build cannot ask for input: it may run where nobody sits, and is cached",
            "save what it needs as an image, and run the command with `docker run -it`",
        ),
        "aws" | "oidc" => (
            "credentials of AWS are not handed over by themselves",
            "name them as secrets: `RUN --secret AWS_ACCESS_KEY_ID --secret AWS_SECRET_ACCESS_KEY …`",
        ),
        "with-docker" => NO_DOCKER,
        _ => return None,
    })
}

impl<'h> Session<'h> {
    /// A process on what the recipe has come to.
    pub(super) fn exec(&self, state: &State, args: Vec<String>, capture: Option<u32>) -> Exec {
        let mut exec = Exec {
            args,
            root: state.root,
            env: state.env(),
            volatile_env: Vec::new(),
            cwd: state.image.working_dir().to_owned(),
            user: state.image.user().to_owned(),
            hostname: "buildkitsandbox".to_owned(),
            platform: state.platform.clone(),
            network: "sandbox".to_owned(),
            security: "sandbox".to_owned(),
            add_hosts: state.hosts.clone(),
            ulimits: Vec::new(),
            devices: Vec::new(),
            mounts: state.caches.iter().cloned().map(ExecMount::Cache).collect(),
            capture,
        };
        self.settle_locally(state, &mut exec);
        exec
    }

    pub(super) fn add_exec(
        &self,
        exec: &Exec,
        state: &State,
        span: Span,
        name: &str,
        no_cache: bool,
    ) -> Result<Output, Failure> {
        let mut host = self.host.borrow_mut();
        let at = host.exec(exec).map_err(|failure| failure.at(Code::FailedCommand, span))?;
        host.annotate(at, &format!("[{}] {name}", state.title), &[span], &Vec::new());
        if no_cache || self.no_cache {
            host.ignore_cache(at)?;
        }
        Ok(at)
    }

    /// Whether a switch is on.
    pub(super) async fn switch(
        self: &Rc<Self>,
        state: &State,
        flags: &flags::Flags,
        name: &str,
    ) -> Result<bool, Failure> {
        let Some(flag) = flags.get(name) else { return Ok(false) };
        let Some(value) = &flag.value else { return Ok(true) };
        let text = self.word(state, value).await?;
        flags::switch(&text).ok_or_else(|| {
            let message = format!("`--{name}` is either on or off, not {}", shown(&text));
            let help = "what the variable stands for is `true` or `false`";
            Diagnostic::error(Code::InvalidFlag, value.span(), message).help(help).into()
        })
    }

    /// Makes the process of a RUN or a condition. Says also whether it is to run in any case.
    pub(super) async fn process(
        self: &Rc<Self>,
        key: &Key,
        state: &State,
        run: &Run,
        span: Span,
        capture: Option<u32>,
    ) -> Result<(Exec, bool), Failure> {
        for flag in &run.flags.0 {
            if let Some((message, help)) = refused(flag.name)
                && (flag.name == "oidc" || self.switch(state, &run.flags, flag.name).await?)
            {
                let at = flags::span(flag);
                return Err(Diagnostic::error(Code::Unsupported, at, message).help(help).into());
            }
        }
        if state.locally {
            self.check_local_run(run)?;
        }
        if !state.begun {
            let help = "write e.g. `FROM alpine` before it";
            let message = "there is nothing yet that the command could run in";
            return Err(Diagnostic::error(Code::Misplaced, span, message).help(help).into());
        }
        let mut args = match &run.command {
            Command::Exec(words) => words.iter().map(|word| word.as_str().to_owned()).collect(),
            Command::Shell(text) if text.is_empty() => Vec::new(),
            Command::Shell(text) => {
                let mut words = state.image.shell();
                words.push(text.as_str().to_owned());
                words
            }
        };
        if self.switch(state, &run.flags, "entrypoint").await? {
            // Without one the words are a program and its arguments.
            let mut words = state.image.entrypoint();
            match &run.command {
                // The words of the line are arguments of the program.
                Command::Shell(text) if !text.is_empty() => {
                    words.extend(self.split(state, text).await?);
                }
                _ => words.append(&mut args),
            }
            if words.is_empty() {
                let message = "the image has no entry point, and there is no command";
                let help = "set one with ENTRYPOINT, or write the command that runs";
                return Err(Diagnostic::error(Code::MissingArgument, span, message)
                    .help(help)
                    .into());
            }
            args = words;
        }
        let mut exec = self.exec(state, args, capture);
        if self.switch(state, &run.flags, "privileged").await? {
            if !state.privileged {
                let message = "an Earthfile of another repository may not ask for privileges";
                let help = "if that is wanted, write `--allow-privileged` where it is named";
                let at = run.flags.get("privileged").map_or(span, flags::span);
                return Err(Failure {
                    kind: "denied".to_owned(),
                    ..Diagnostic::error(Code::InvalidFlag, at, message).help(help).into()
                });
            }
            exec.security = "insecure".to_owned();
        }
        if run.flags.get("network").is_some() {
            exec.network = "none".to_owned();
        }
        for secret in run.flags.list("secret") {
            let text = self.word(state, secret).await?;
            let (name, id) = text.split_once('=').unwrap_or((&text, &text));
            let id = id.strip_prefix("+secrets/").unwrap_or(id);
            // An empty id switches a secret off.
            if id.is_empty() {
                continue;
            }
            if !is_variable(name) {
                let message = format!("{} cannot be the name of a variable", shown(name));
                let help = "write `--secret NAME=id`: a variable, and the secret it stands for";
                return Err(Diagnostic::error(Code::InvalidFlag, secret.span(), message)
                    .help(help)
                    .into());
            }
            let (name, id) = (name.to_owned(), id.to_owned());
            exec.mounts.push(ExecMount::SecretEnv { name, id, required: true });
        }
        if self.switch(state, &run.flags, "ssh").await? {
            let target = "/run/buildkit/ssh_agent.0".to_owned();
            exec.env.push((String::from("SSH_AUTH_SOCK"), target.clone()));
            let id = "default".to_owned();
            exec.mounts.push(ExecMount::Ssh { target, id, required: true, opts: Vec::new() });
        }
        for mount in &run.mounts {
            let mount = self.mount(key, state, mount).await?;
            exec.mounts.push(mount);
        }
        let no_cache = self.switch(state, &run.flags, "no-cache").await?;
        Ok((exec, no_cache))
    }

    /// Where a cache without an id of its own is: with the target and its arguments.
    pub(super) fn cache_id(key: &Key, path: &str) -> String {
        let args: String =
            key.overrides.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        format!("{}{args}:{path}", key.shown())
    }

    async fn mount(
        self: &Rc<Self>,
        key: &Key,
        state: &State,
        mount: &Mount,
    ) -> Result<ExecMount, Failure> {
        let mut fields: Vec<(&str, String, Text)> = Vec::new();
        if mount.fields.is_empty() {
            let text = placed(&self.word(state, &mount.text).await?, &mount.text);
            let read = mount::read(&text).map_err(|mut problems| problems.remove(0))?;
            for (name, value) in read.fields {
                fields.push((name, value.as_str().to_owned(), value));
            }
        }
        for (name, value) in &mount.fields {
            fields.push((name, self.word(state, value).await?, value.clone()));
        }
        let field = |name: &str| {
            let found = fields.iter().rev().find(|(field, ..)| *field == name);
            found
                .map(|(_, value, at)| (value.as_str(), at.span()))
                .filter(|(value, _)| !value.is_empty())
        };
        let span = mount.text.span();
        let wrong = |message: &str, help: &str| {
            Failure::from(Diagnostic::error(Code::InvalidMount, span, message).help(help))
        };
        let (kind, at) = field("type").unwrap_or(("", span));
        let experimental = match kind {
            mount::BIND => Some("copy the files in with COPY, and save what comes of them"),
            mount::SSH => Some("write `RUN --ssh …`"),
            _ => None,
        };
        if let Some(help) = experimental {
            let message = format!("mounts of the type {} are not supported", shown(kind));
            return Err(Diagnostic::error(Code::Unsupported, at, message).help(help).into());
        }
        let Some((target, _)) = field("target") else {
            return Err(wrong("the mount has no `target`", "write `target=/path`"));
        };
        let target = paths::join(state.image.working_dir(), target);
        if target == "/" {
            let help = "give it a directory of its own: `target=/path`";
            return Err(wrong("a mount cannot take the place of the whole file system", help));
        }
        let mut opts = Vec::new();
        if let Some((value, at)) = field("mode") {
            opts.push(attr("mode", mode(value, at)?));
        }
        match kind {
            "cache" => {
                if field("readonly").is_some() {
                    opts.push(attr("readonly", "true"));
                }
                let sharing = sharing(field("sharing"))?;
                let id = match field("id") {
                    Some((id, _)) if state.shares_caches => id.to_owned(),
                    _ => Self::cache_id(key, &target),
                };
                Ok(ExecMount::Cache(CacheDir { target, id, sharing, seed: None, opts }))
            }
            "tmpfs" => Ok(ExecMount::Tmpfs { target, opts }),
            "secret" => {
                let Some((id, _)) = field("id") else {
                    return Err(wrong("this secret has no id", "write `type=secret,id=name`"));
                };
                let id = id.strip_prefix("+secrets/").unwrap_or(id).to_owned();
                Ok(ExecMount::SecretFile { target, id, required: true, opts })
            }
            other => {
                let message = format!("there are no mounts of the type {}", shown(other));
                let help = "it is one of `cache`, `tmpfs`, `secret`";
                Err(Diagnostic::error(Code::InvalidMount, at, message).help(help).into())
            }
        }
    }

    pub(super) async fn run(
        self: &Rc<Self>,
        key: &Key,
        state: &mut State,
        run: &Run,
        line: &Text,
    ) -> Result<(), Failure> {
        let (mut exec, no_cache) = self.process(key, state, run, line.span(), None).await?;
        if self.switch(state, &run.flags, "push").await? {
            // It is no part of the target, but the next one sees what it has done.
            let on = state.pushed.filter(|(begun, _)| *begun == state.root);
            exec.root = on.map_or(state.root, |(_, at)| Some(at));
            let at = self.add_exec(&exec, state, line.span(), line, true)?;
            state.pushed = Some((state.root, at));
            state.left.push(Left::Effect(at, line.as_str().to_owned()));
            return Ok(());
        }
        let at = self.add_exec(&exec, state, line.span(), line, no_cache)?;
        state.root = Some(at);
        if state.locally {
            return Ok(());
        }
        state.image.add_history(line.as_str().to_owned(), true);
        Ok(())
    }

    /// What FOR goes through. A shell looks at it if only that can: at patterns, or with what the
    /// flags give it.
    pub(super) async fn items(
        self: &Rc<Self>,
        key: &Key,
        state: &State,
        (flags, mounts): (&flags::Flags, &[Mount]),
        values: &Text,
    ) -> Result<String, Failure> {
        let plain =
            flags.0.iter().all(|flag| flag.name == "sep") && !values.contains(['*', '?', '[']);
        if plain {
            // `$(…)` has been replaced here in all versions.
            let state = State { shells_out: true, ..state.clone() };
            return self.word(&state, values).await;
        }
        let run = Run {
            flags: flags.clone(),
            command: Command::Shell(placed(&format!("echo {values}"), values)),
            mounts: mounts.to_vec(),
        };
        let (exec, no_cache) = self.process(key, state, &run, values.span(), Some(CAPTURE)).await?;
        let at =
            self.add_exec(&exec, state, values.span(), &format!("FOR … IN {values}"), no_cache)?;
        self.output(at, values.span()).await
    }

    /// Whether a condition holds.
    pub(super) async fn holds(
        self: &Rc<Self>,
        key: &Key,
        state: &State,
        run: &Run,
        line: &Text,
    ) -> Result<bool, Failure> {
        let (exec, no_cache) = self.process(key, state, run, line.span(), Some(CONDITION)).await?;
        let at = self.add_exec(&exec, state, line.span(), line, no_cache)?;
        // A failure is of a step that it stands on, or of its own; both have their places.
        Ok(self.schedule.outcome(at).await?.code == 0)
    }
}

/// A text that stands in the place of another one.
fn placed(text: &str, at: &Text) -> Text {
    let mut builder = TextBuilder::like(at);
    text.chars().for_each(|c| builder.push_char(c, at, 0..at.len()));
    builder.finish()
}

/// How a cache is shared; one at a time if nothing is said.
pub(super) fn sharing(value: Option<(&str, Span)>) -> Result<&'static str, Failure> {
    let Some((word, span)) = value else { return Ok("locked") };
    let known = ["locked", "shared", "private"];
    known.into_iter().find(|name| *name == word).ok_or_else(|| {
        let message = format!("a cache cannot be shared in the way {}", shown(word));
        let help = "it is one of `locked`, `shared`, `private`";
        Diagnostic::error(Code::InvalidMount, span, message).help(help).into()
    })
}
