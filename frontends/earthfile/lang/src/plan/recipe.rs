//! The commands of a recipe, one after the other.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::{Diagnostic, Failure, Text};

use super::base::wrong;
use super::outputs::Left;
use super::run::no_docker;
use super::state::{Key, State};
use super::wait::Need;
use super::{File, Session, unknown, unsupported};
use crate::Code;
use crate::ast::{BuildArg, Kind, Mount, Statement};
use crate::flags::{self, Flags};
use crate::reference;

/// Functions inside each other.
const DEPTH: usize = 64;

/// Functions and blocks inside each other: each takes some of the stack.
const LEVELS: usize = 100;

/// Whether a command needs something to begin with. What runs processes says so itself.
fn works_on_files(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Copy { .. }
            | Kind::SaveArtifact { .. }
            | Kind::SaveImage { .. }
            | Kind::Env(_)
            | Kind::Label(_)
            | Kind::Config(_)
            | Kind::GitClone { .. }
            | Kind::Cache { .. }
            | Kind::Host { .. }
    )
}

type Done<'r> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'r>>;

impl<'h> Session<'h> {
    /// Carries commands out.
    pub(super) fn commands<'r>(
        self: &'r Rc<Self>,
        key: &'r Key,
        file: &'r Rc<File>,
        state: &'r mut State,
        statements: &'r [Statement],
    ) -> Done<'r> {
        Box::pin(async move {
            if let Some(first) = statements.first().filter(|_| state.depth >= LEVELS) {
                let message =
                    format!("there are more than {LEVELS} functions and blocks inside each other");
                let help = "make targets of some of them, which `BUILD`, `FROM` and `COPY` name";
                return Err(Diagnostic::error(Code::Misplaced, first.span, message)
                    .help(help)
                    .into());
            }
            state.depth += 1;
            for statement in statements {
                self.command(key, file, state, statement).await?;
            }
            state.depth -= 1;
            Ok(())
        })
    }

    async fn command(
        self: &Rc<Self>,
        key: &Key,
        file: &Rc<File>,
        state: &mut State,
        statement: &Statement,
    ) -> Result<(), Failure> {
        let (span, line) = (statement.span, &statement.line);
        self.check_locally(state, statement)?;
        state.shells_out = file.has("shell-out-anywhere");
        state.shares_caches = file.has("global-cache");
        if !state.begun && works_on_files(&statement.kind) {
            let message = format!("there is nothing yet that {} could work on", statement.name);
            let help = "write e.g. `FROM alpine` before it";
            return Err(Diagnostic::error(Code::Misplaced, span, message).help(help).into());
        }
        if let Kind::With { .. } = &statement.kind {
            return Err(no_docker(span));
        }
        match &statement.kind {
            Kind::From { flags, base, args } => {
                self.from(key, file, state, (flags, args), base, span).await
            }
            Kind::Copy { flags, sources, target } => {
                self.copy(key, file, state, flags, (sources, target), line).await
            }
            Kind::SaveArtifact { flags, source, target, local } => {
                let words = (source, target.as_ref(), local.as_ref());
                self.save_artifact(file, state, flags, words, line).await
            }
            Kind::SaveImage { flags, names } => self.save_image(key, state, flags, names).await,
            Kind::Run(run) => self.run(key, state, run, line).await,
            Kind::Build { flags, target, args } => {
                self.build(key, file, state, (flags, args), target).await
            }
            Kind::Arg { flags, assign } => self.arg(key, file, state, flags, assign).await,
            Kind::Let(assign) => self.assign(state, assign, true).await,
            Kind::Set(assign) => self.assign(state, assign, false).await,
            Kind::Env(assign) => self.env(state, assign, line).await,
            Kind::Label(pairs) => self.label(state, pairs, line).await,
            Kind::Config(instruction) => self.config(state, &instruction.kind, line).await,
            Kind::Do { flags, function, args } => {
                self.call(key, file, state, (flags, args), function).await
            }
            Kind::Cache { flags, path } => self.cache(key, file, state, flags, path).await,
            Kind::Host { name, address } => {
                let name = self.word(state, name).await?;
                let text = self.word(state, address).await?;
                if text.parse::<std::net::IpAddr>().is_err() {
                    let message = format!("{} is not an address", shown(&text));
                    let help = "write the number of one, e.g. `192.0.2.1`";
                    return Err(Diagnostic::error(Code::InvalidFlag, address.span(), message)
                        .help(help)
                        .into());
                }
                state.hosts.push((name, text));
                Ok(())
            }
            Kind::If { branches, otherwise } => {
                for branch in branches {
                    if self.holds(key, state, &branch.condition, &branch.line).await? {
                        return self.commands(key, file, state, &branch.body).await;
                    }
                }
                match otherwise {
                    Some(body) => self.commands(key, file, state, body).await,
                    None => Ok(()),
                }
            }
            Kind::For { flags, mounts, variable, values, body } => {
                self.repeat(key, file, state, (flags, mounts, variable, values), body).await
            }
            Kind::Import { flags, place, alias } => {
                self.import(file, state, flags, (place, alias.as_ref())).await
            }
            Kind::GitClone { flags, url, target } => {
                self.git_clone(state, flags, (url, target), line).await
            }
            Kind::Service(_) => {
                let message = format!("{} has no effect", statement.name);
                let note = Diagnostic::note(Code::Unsupported, span, message)
                    .help("it was for a service that does not exist any more");
                self.host.borrow_mut().report(note);
                Ok(())
            }
            Kind::Wait(body) => self.wait(key, file, state, body).await,
            Kind::Try { body, finally } => self.attempt(key, file, state, body, finally).await,
            Kind::FromDockerfile { flags, context } => {
                self.from_dockerfile(key, file, state, flags, context, line).await
            }
            Kind::Locally => self.locally(state, span),
            Kind::With { .. } => Err(unsupported(statement.name, span)),
        }
    }

    async fn repeat(
        self: &Rc<Self>,
        key: &Key,
        file: &Rc<File>,
        state: &mut State,
        (flags, mounts, variable, values): (&Flags, &[Mount], &Text, &Text),
        body: &[Statement],
    ) -> Result<(), Failure> {
        let separators = match flags.value("sep") {
            Some(value) => self.word(state, value).await?.replace("\\n", "\n").replace("\\t", "\t"),
            None => "\n\t ".to_owned(),
        };
        let text = self.items(key, state, (flags, mounts), values).await?;
        for item in text.split(|c| separators.contains(c)).filter(|item| !item.is_empty()) {
            state.scopes.argument(variable, item);
            self.commands(key, file, state, body).await?;
            state.scopes.end(variable);
        }
        Ok(())
    }

    /// Each platform and each combination of arguments is a target of its own.
    async fn build(
        self: &Rc<Self>,
        key: &Key,
        file: &Rc<File>,
        state: &mut State,
        (flags, args): (&Flags, &[BuildArg]),
        target: &Text,
    ) -> Result<(), Failure> {
        let text = self.word(state, target).await?;
        let reference = reference::target(&text).map_err(|error| wrong(target, &text, error))?;
        if let Some(flag) = flags.get("auto-skip")
            && self.switch(state, flags, "auto-skip").await?
        {
            let message = "`--auto-skip` has no effect";
            let note = Diagnostic::note(Code::Unsupported, flags::span(flag), message)
                .help("what has not changed is not done again anyway");
            self.host.borrow_mut().report(note);
        }
        let mut platforms = Vec::new();
        for value in flags.list("platform") {
            platforms.push(self.platform(state, Some(value)).await?);
        }
        if platforms.is_empty() {
            platforms.push(state.platform.clone());
        }
        let matrix = self.arguments(state, flags, args).await?;
        let combinations: usize = matrix.iter().map(|(_, values)| values.len()).product();
        if combinations > 1000 {
            let message = format!("these arguments come to {combinations} combinations");
            let help = "write several BUILD in its place";
            return Err(Diagnostic::error(Code::InvalidFlag, target.span(), message)
                .help(help)
                .into());
        }
        let wildcards = (target, "BUILD", "wildcard-builds");
        let named = self.stands_for(file, &reference, wildcards)?;
        let mut keys = Vec::new();
        for (platform, reference) in
            platforms.iter().flat_map(|platform| named.iter().map(move |named| (platform, named)))
        {
            let at = (reference, target.span());
            let key = self.key(file, state, (flags, args), at, platform.clone()).await?;
            for number in 0..combinations {
                let (mut key, mut rest) = (key.clone(), number);
                for (name, values) in &matrix {
                    key.overrides.insert(name.clone(), values[rest % values.len()].clone());
                    rest /= values.len();
                }
                keys.push(key);
            }
        }
        // All of them go on beside each other.
        keys.iter().for_each(|key| self.begin(key));
        for wanted in keys {
            self.note_need(&wanted, key, Need::Outside);
            self.need(&wanted, key, target.span()).await?;
            state.left.push(Left::Build(wanted));
        }
        Ok(())
    }

    /// A function: its own arguments, and the files and the image of who calls it.
    fn call<'r>(
        self: &'r Rc<Self>,
        key: &'r Key,
        file: &'r Rc<File>,
        state: &'r mut State,
        (flags, args): (&'r Flags, &'r [BuildArg]),
        function: &'r Text,
    ) -> Done<'r> {
        Box::pin(async move {
            let text = self.word(state, function).await?;
            let span = function.span();
            let reference =
                reference::function(&text).map_err(|error| wrong(function, &text, error))?;
            let (place, allowed) = self.place(file, state, &reference.place, span)?;
            let overrides = self.overrides(state, flags, args, false).await?;
            let privileged = self.privileged(file, state, flags, (&place, allowed)).await?;
            let there = self.file(&place, span)?;
            let recipe = super::find(&there.parsed.functions, &reference.name)
                .ok_or_else(|| unknown(&there, "function", &reference.name, Some(span)))?;
            super::readable(recipe)?;
            if state.title.matches(" → ").count() >= DEPTH {
                let message = format!("there are more than {DEPTH} functions inside each other");
                let help = format!("does {} call itself?", shown(&reference.name));
                return Err(Diagnostic::error(Code::InvalidReference, span, message)
                    .help(help)
                    .into());
            }
            let base = Key {
                place: place.clone(),
                name: "base".to_owned(),
                platform: key.platform.clone(),
                privileged,
                overrides: match place == file.place {
                    true => key.overrides.clone(),
                    // Another file gets what it is given.
                    false => overrides.clone(),
                },
            };
            let (globals, imports) = if base == *key {
                // The base itself calls a function of its file.
                (state.scopes.globals(), state.imports.clone())
            } else {
                let base = self.need(&base, key, span).await?;
                (base.scopes.globals(), base.imports.clone())
            };
            let title = format!("{} → {}", state.title, reference.name);
            let callers = (
                std::mem::replace(&mut state.scopes, globals),
                std::mem::replace(&mut state.overrides, overrides),
                std::mem::replace(&mut state.title, title),
                std::mem::replace(&mut state.imports, imports),
                std::mem::replace(&mut state.privileged, privileged),
            );
            // Files are taken from the caller's directory, references are the function's.
            let done = self.commands(key, &there, state, &recipe.body).await;
            (state.scopes, state.overrides, state.title, state.imports, state.privileged) = callers;
            done
        })
    }
}
