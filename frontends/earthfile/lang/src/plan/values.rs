//! `ARG`, `LET`, `SET` and arguments for targets.

use std::collections::BTreeMap;
use std::rc::Rc;

use wbuild_dockerfile::expand::Lookup as _;
use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::suggest::did_you_mean;
use wbuild_dockerfile::{Diagnostic, Failure};

use super::state::{Key, State};
use super::{File, Session};
use crate::Code;
use crate::ast::{Assign, BuildArg};
use crate::features;
use crate::flags::Flags;

impl<'h> Session<'h> {
    pub(super) async fn arg(
        self: &Rc<Self>,
        key: &Key,
        file: &File,
        state: &mut State,
        flags: &Flags,
        assign: &Assign,
    ) -> Result<(), Failure> {
        let name = &assign.name;
        let required = self.switch(state, flags, "required").await?;
        let global = match file.has("explicit-global") {
            true => self.switch(state, flags, "global").await?,
            false => key.name == "base",
        };
        let built_in = match features::of_argument(name) {
            Some(feature) if !file.has(feature) => None,
            _ => self.built_in((key, file), state, name)?,
        };
        if let (Some(_), Some(value)) = (&built_in, assign.value.as_ref().filter(|v| !v.is_empty()))
        {
            let message = format!("{} is set by the builder, and has no default", shown(name));
            let help = format!("write `ARG {name}`");
            return Err(Diagnostic::error(Code::UnexpectedArgument, value.span(), message)
                .help(help)
                .into());
        }
        // Before version 0.8 what is there stays: that of an ARG above, of ENV, or a global one.
        let known = match file.has("arg-scope-and-set") {
            true => None,
            false => state.lookup(name).map(str::to_owned),
        };
        let given = state.overrides.get(name.as_str()).cloned();
        let value = match (built_in, given.or(known)) {
            (Some(value), _) => value,
            (None, Some(given)) => given,
            (None, None) if required => {
                let message = format!("the argument {} has no value", shown(name));
                let help = format!("give one: `--{name}=value` behind the target");
                return Err(Diagnostic::error(Code::MissingArgument, name.span(), message)
                    .help(help)
                    .into());
            }
            (None, None) => match &assign.value {
                Some(value) => self.value(state, value).await?,
                // A global one of the same name is declared again with its value.
                None => state.scopes.global(name).unwrap_or_default().to_owned(),
            },
        };
        if required && value.is_empty() {
            let message = format!("the argument {} is empty", shown(name));
            return Err(Diagnostic::error(Code::MissingArgument, name.span(), message)
                .help("it is required")
                .into());
        }
        if !global || !file.has("arg-scope-and-set") {
            state.scopes.argument(name, &value);
        }
        if global {
            state.scopes.add_global(name, &value);
        }
        Ok(())
    }

    pub(super) async fn assign(
        self: &Rc<Self>,
        state: &mut State,
        assign: &Assign,
        declare: bool,
    ) -> Result<(), Failure> {
        let name = &assign.name;
        let value = match &assign.value {
            Some(value) => self.word(state, value).await?,
            None => String::new(),
        };
        if declare {
            state.scopes.local(name, &value);
            return Ok(());
        }
        let problem = match state.scopes.set(name, &value) {
            Some(true) => return Ok(()),
            Some(false) => {
                let message = format!("the argument {} cannot be changed", shown(name));
                let help = format!("make a variable of it first: `LET {name}=${name}`");
                Diagnostic::error(Code::InvalidName, name.span(), message).help(help)
            }
            None => {
                let message = format!("there is no variable {}", shown(name));
                Diagnostic::error(Code::InvalidName, name.span(), message)
                    .help(format!("declare it with `LET {name}=value`"))
                    .maybe_help(did_you_mean(name, state.scopes.names()))
            }
        };
        Err(problem.into())
    }

    /// Arguments for a target, each name with all of its values.
    pub(super) async fn arguments(
        self: &Rc<Self>,
        state: &State,
        flags: &Flags,
        args: &[BuildArg],
    ) -> Result<Vec<(String, Vec<String>)>, Failure> {
        let mut all: Vec<(String, Vec<String>)> = Vec::new();
        let mut add =
            |name: String, value: String| match all.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(value),
                None => all.push((name, vec![value])),
            };
        for old in flags.list("build-arg") {
            let text = self.word(state, old).await?;
            match text.split_once('=') {
                Some((name, value)) => add(name.to_owned(), value.to_owned()),
                // Without a value it is handed on.
                None => match state.lookup(&text).map(str::to_owned) {
                    Some(value) => add(text, value),
                    None => {
                        let message = format!("the argument {} has no value here", shown(&text));
                        let help = format!("write `--build-arg {text}=value`");
                        return Err(Diagnostic::error(Code::MissingArgument, old.span(), message)
                            .help(help)
                            .maybe_help(did_you_mean(&text, state.scopes.names()))
                            .into());
                    }
                },
            }
        }
        for arg in args {
            if features::is_built_in(&arg.name) {
                let message = format!("{} is set by the builder", shown(&arg.name));
                let help = "leave it out; a platform is chosen with `--platform`";
                return Err(Diagnostic::error(Code::UnexpectedArgument, arg.name.span(), message)
                    .help(help)
                    .into());
            }
            let value = self.value(state, &arg.value).await?;
            add(arg.name.as_str().to_owned(), value);
        }
        Ok(all)
    }

    /// Arguments for one target: of a name that stands twice the last value.
    pub(super) async fn overrides(
        self: &Rc<Self>,
        state: &State,
        flags: &Flags,
        args: &[BuildArg],
        inherits: bool,
    ) -> Result<BTreeMap<String, String>, Failure> {
        let mut overrides = BTreeMap::new();
        if self.switch(state, flags, "pass-args").await? {
            let passed = state.scopes.passed().filter(|(name, _)| !features::is_built_in(name));
            let owned = passed.map(|(name, value)| (name.to_owned(), value.to_owned()));
            overrides.extend(owned);
            overrides.extend(state.overrides.clone());
        } else if inherits {
            overrides.clone_from(&state.overrides);
        }
        for (name, mut values) in self.arguments(state, flags, args).await? {
            overrides.extend(values.pop().map(|value| (name, value)));
        }
        Ok(overrides)
    }
}
