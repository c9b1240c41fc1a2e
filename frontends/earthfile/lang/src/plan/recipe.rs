//! The commands of a recipe, one after the other.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::{CacheDir, Diagnostic, Failure, Span, Text, paths};

use super::base::wrong;
use super::outputs::Left;
use super::run::{mode, sharing};
use super::state::{Key, State};
use super::wait::Need;
use super::{File, Session, unknown, unsupported};
use crate::Code;
use crate::ast::{BuildArg, Kind, Statement};
use crate::flags::{self, Flags};
use crate::reference;

/// Functions inside each other.
const DEPTH: usize = 64;

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
            for statement in statements {
                self.command(key, file, state, statement).await?;
            }
            Ok(())
        })
    }

    /// Carries the commands of a block out, whose variables end with it.
    pub(super) async fn block(
        self: &Rc<Self>,
        key: &Key,
        file: &Rc<File>,
        state: &mut State,
        statements: &[Statement],
    ) -> Result<(), Failure> {
        let scoped = file.has("arg-scope-and-set");
        if scoped {
            state.scopes.open();
        }
        self.commands(key, file, state, statements).await?;
        if scoped {
            state.scopes.close();
        }
        Ok(())
    }

    async fn command(
        self: &Rc<Self>,
        key: &Key,
        file: &Rc<File>,
        state: &mut State,
        statement: &Statement,
    ) -> Result<(), Failure> {
        let (span, line) = (statement.span, &statement.line);
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
                let address = self.word(state, address).await?;
                state.hosts.push((name, address));
                Ok(())
            }
            Kind::If { branches, otherwise } => {
                for branch in branches {
                    if self.holds(key, state, &branch.condition, &branch.line).await? {
                        return self.block(key, file, state, &branch.body).await;
                    }
                }
                match otherwise {
                    Some(body) => self.block(key, file, state, body).await,
                    None => Ok(()),
                }
            }
            Kind::For { flags, variable, values, body } => {
                self.repeat(key, file, state, (flags, variable, values), body).await
            }
            Kind::Import { flags, place, alias } => {
                self.import(file, state, flags, (place, alias.as_ref())).await
            }
            Kind::GitClone { flags, url, target } => {
                self.git_clone(state, flags, (url, target), line).await
            }
            Kind::Project(_) => {
                let message = "PROJECT has no effect";
                let note = Diagnostic::note(Code::Unsupported, span, message)
                    .help("it was for a service that does not exist any more");
                self.host.borrow_mut().report(note);
                Ok(())
            }
            Kind::Wait(body) => self.wait(key, file, state, body).await,
            Kind::Try { body, finally } => self.attempt(key, file, state, body, finally).await,
            Kind::FromDockerfile { .. } | Kind::Locally | Kind::With { .. } => {
                Err(unsupported(statement.name, span))
            }
        }
    }

    async fn repeat(
        self: &Rc<Self>,
        key: &Key,
        file: &Rc<File>,
        state: &mut State,
        (flags, variable, values): (&Flags, &Text, &Text),
        body: &[Statement],
    ) -> Result<(), Failure> {
        for flag in &flags.0 {
            if flag.name != "sep" {
                return Err(unsupported(&format!("`--{}` of FOR", flag.name), flags::span(flag)));
            }
        }
        let separators = match flags.value("sep") {
            Some(value) => self.word(state, value).await?.replace("\\n", "\n").replace("\\t", "\t"),
            None => "\n\t ".to_owned(),
        };
        let text = self.word(state, values).await?;
        for item in text.split(|c| separators.contains(c)).filter(|item| !item.is_empty()) {
            state.scopes.open();
            state.scopes.declare(variable, item, false, false);
            self.block(key, file, state, body).await?;
            state.scopes.close();
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
        if let Some(flag) = flags.get("auto-skip") {
            return Err(unsupported("`--auto-skip` of BUILD", flags::span(flag)));
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

    async fn cache(
        self: &Rc<Self>,
        key: &Key,
        file: &File,
        state: &mut State,
        flags: &Flags,
        path: &Text,
    ) -> Result<(), Failure> {
        if !file.has("cache-persist-option") {
            let what = "CACHE before version 0.8, where its files become part of the image,";
            return Err(unsupported(what, path.span()));
        }
        if let Some(flag) = flags.get("persist")
            && self.switch(state, flags, "persist").await?
        {
            return Err(unsupported("`--persist` of CACHE", flags::span(flag)));
        }
        let target = self.word(state, path).await?;
        let target = paths::join(state.image.working_dir(), &target);
        if target == "/" {
            let message = "a cache cannot take the place of the whole file system";
            let help = "give it a directory of its own";
            return Err(Diagnostic::error(Code::InvalidMount, path.span(), message)
                .help(help)
                .into());
        }
        let word: Option<(String, Span)> = match flags.value("sharing") {
            Some(value) => Some((self.word(state, value).await?, value.span())),
            None => None,
        };
        let sharing = sharing(word.as_ref().map(|(word, span)| (word.as_str(), *span)))?;
        let id = match flags.value("id") {
            Some(id) => self.word(state, id).await?,
            None => String::new(),
        };
        let id = if id.is_empty() { Self::cache_id(key, &target) } else { id };
        let mut opts = Vec::new();
        if let Some(value) = flags.value("chmod") {
            let text = self.word(state, value).await?;
            opts.push(("mode".to_owned(), mode(&text, value.span())?));
        }
        state.caches.retain(|known| known.target != target);
        state.caches.push(CacheDir { target, id, sharing, seed: None, opts });
        Ok(())
    }
}
