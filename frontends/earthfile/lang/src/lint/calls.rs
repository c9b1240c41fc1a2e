//! What commands name: targets, functions, imports, and the arguments they hand over.

use std::collections::{BTreeMap, BTreeSet};

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::suggest::did_you_mean;
use wbuild_dockerfile::{Diagnostic, Text};

use super::environment::here;
use super::{Body, Lint};
use crate::Rule;
use crate::ast::{BuildArg, Earthfile, Kind, Recipe, Statement};
use crate::flags::{Flags, is_literal, switch};
use crate::reference::{self, Place, plus};

/// What stands before the first target.
const BASE: &str = "base";

/// A recipe that a command names.
struct Call<'f> {
    word: &'f Text,
    args: &'f [BuildArg],
    flags: &'f Flags,
}

/// The recipes that a command names.
fn calls(statement: &Statement) -> Vec<Call<'_>> {
    let mut found = Vec::new();
    match &statement.kind {
        Kind::From { flags, base: word, args }
        | Kind::Build { flags, target: word, args }
        | Kind::Do { flags, function: word, args } => found.push(Call { word, args, flags }),
        Kind::Copy { flags, sources, .. } => {
            for source in sources {
                found.push(Call { word: &source.path, args: &source.args, flags });
            }
        }
        Kind::FromDockerfile { flags, context } => {
            found.push(Call { word: &context.path, args: &[], flags });
        }
        _ => {}
    }
    found.retain(|call| plus(call.word).is_some());
    found
}

/// The name in a reference, without the path of an artifact.
fn target(name: &str) -> &str {
    name.split('/').next().unwrap_or_default()
}

/// What a recipe declares, calls and saves.
#[derive(Default)]
struct Facts<'f> {
    arguments: BTreeSet<&'f str>,
    /// Recipes of this file.
    calls: BTreeSet<&'f str>,
    saves: bool,
    /// It names something that is not known here.
    open: bool,
}

/// What the recipes of a file name.
pub(super) struct Calls<'f> {
    file: &'f Earthfile,
    facts: BTreeMap<&'f str, Facts<'f>>,
    /// What stands before a `+` somewhere.
    aliases: BTreeSet<String>,
    /// Some of these are made of variables.
    open: bool,
}

impl<'f> Calls<'f> {
    pub fn of(file: &'f Earthfile) -> Self {
        let (facts, aliases) = (BTreeMap::new(), BTreeSet::new());
        let mut all = Calls { file, facts, aliases, open: false };
        for (recipe, statements) in file.bodies() {
            let mut facts = Facts::default();
            for statement in statements {
                statement.walk(&mut |statement| all.note(statement, &mut facts));
            }
            all.facts.insert(recipe.map_or(BASE, |recipe| recipe.name.as_str()), facts);
        }
        all
    }

    fn note(&mut self, statement: &'f Statement, facts: &mut Facts<'f>) {
        match &statement.kind {
            Kind::Arg { assign, .. } => _ = facts.arguments.insert(&assign.name),
            Kind::SaveArtifact { .. } => facts.saves = true,
            Kind::FromDockerfile { flags, .. } => {
                flags.list("f").for_each(|file| self.place(file));
            }
            Kind::With { flags, .. } => {
                // `name=(+target --ARG=value)`
                facts.open = true;
                for load in flags.list("load") {
                    let words = load.split([' ', '\t', '(', ')', '=']);
                    words.for_each(|word| self.place(word));
                }
            }
            _ => {}
        }
        for call in calls(statement) {
            self.place(call.word);
            match here(call.word) {
                Some(name) => _ = facts.calls.insert(target(name)),
                None => facts.open = true,
            }
        }
    }

    /// Notes what stands before the `+` of a reference.
    fn place(&mut self, word: &str) {
        let Some(at) = plus(word) else { return };
        let place = word[..at].trim_start_matches(['"', '\'']);
        self.open |= !is_literal(place);
        self.aliases.insert(place.to_owned());
    }

    /// The recipes of this file that one needs, with itself and the base.
    pub fn reached(&self, name: &str) -> BTreeSet<&'f str> {
        let mut found = BTreeSet::new();
        let known = |name: &str| self.facts.get_key_value(name).map(|(name, _)| *name);
        let mut open: Vec<&str> = [known(BASE), known(name)].into_iter().flatten().collect();
        while let Some(name) = open.pop() {
            if found.insert(name) {
                let calls = self.facts.get(name).into_iter().flat_map(|facts| &facts.calls);
                open.extend(calls.filter_map(|name| known(name)));
            }
        }
        found
    }

    /// The arguments of recipes that one needs: what it is given reaches them, too.
    pub fn handed_on(&self, name: &str) -> BTreeSet<&'f str> {
        let others = self.reached(name).into_iter().filter(|other| *other != name);
        let facts = others.filter_map(|name| self.facts.get(name));
        facts.flat_map(|facts| facts.arguments.iter().copied()).collect()
    }

    /// Looks at what nothing names.
    pub fn check_file(&self, lint: &mut Lint) {
        for statement in &self.file.base {
            statement.walk(&mut |statement| self.import(statement, lint));
        }
        let called: BTreeSet<&str> =
            self.facts.values().flat_map(|facts| facts.calls.iter().copied()).collect();
        for function in &self.file.functions {
            if self.open || called.contains(function.name.as_str()) {
                continue;
            }
            let message = format!("nothing in this file calls {}", shown(&function.name));
            let finding = Diagnostic::warning(Rule::UnusedFunction, function.name.span(), message)
                .help("remove it, if no other file does");
            lint.add(&function.comments, finding);
        }
    }

    fn import(&self, statement: &Statement, lint: &mut Lint) {
        let Some(alias) = statement.import() else { return };
        if self.open || self.aliases.contains(alias) {
            return;
        }
        let message = format!("nothing uses the import {}", shown(alias));
        let finding = Diagnostic::warning(Rule::UnusedImport, statement.span, message)
            .help(format!("remove it, or name what is imported as `{alias}+name`"));
        lint.add(&statement.comments, finding);
    }

    /// Looks at what the commands of a recipe name.
    pub fn check_body(&self, body: Body<'f>, lint: &mut Lint) {
        let mut imports: BTreeSet<&str> = BTreeSet::new();
        for statement in self.file.base.iter().chain(body.statements) {
            statement.walk(&mut |statement| {
                imports.extend(statement.import());
            });
        }
        for statement in body.statements {
            statement.walk(&mut |statement| {
                if body.recipe.is_some() {
                    self.import(statement, lint);
                }
                for call in calls(statement) {
                    self.reference(statement, &call, &imports, lint);
                }
            });
        }
    }

    fn reference(
        &self,
        statement: &Statement,
        call: &Call<'_>,
        imports: &BTreeSet<&str>,
        lint: &mut Lint,
    ) {
        if let Some(alias) = alias(call.word)
            && !imports.contains(alias)
        {
            let at = call.word.span_of(0..alias.len());
            let message = format!("nothing is imported as {}", shown(alias));
            let finding = Diagnostic::warning(Rule::UnknownReference, at, message)
                .help("an alias is what IMPORT names; a directory begins with `./`")
                .maybe_help(did_you_mean(alias, imports.iter().copied()));
            return lint.add(&statement.comments, finding);
        }
        let Some(written) = here(call.word) else { return };
        let name = target(written);
        let (kind, recipes) = match statement.name {
            "DO" => ("function", &self.file.functions),
            _ => ("target", &self.file.targets),
        };
        let Some(recipe) = recipes.iter().find(|recipe| recipe.name.as_str() == name) else {
            if name == BASE && kind == "target" {
                return;
            }
            let start = call.word.len() - written.len();
            let at = call.word.span_of(start..start + name.len());
            let message = format!("there is no {kind} {} in this file", shown(name));
            let known = recipes.iter().map(|recipe| recipe.name.as_str());
            let finding = Diagnostic::warning(Rule::UnknownReference, at, message)
                .maybe_help(did_you_mean(name, known));
            return lint.add(&statement.comments, finding);
        };
        self.arguments(statement, call, recipe, lint);
        self.saved(statement, call, recipe, lint);
    }

    fn arguments(&self, statement: &Statement, call: &Call<'_>, recipe: &Recipe, lint: &mut Lint) {
        let function = recipe.marker.is_some();
        let passes = call.flags.get("pass-args").is_some();
        let given: Vec<(&Text, &str)> =
            call.args.iter().map(|arg| (&arg.name, arg.name.as_str())).collect();
        // What a target is given it hands on to those that it needs.
        let reached = match function {
            true => BTreeSet::from([recipe.name.as_str()]),
            false => self.reached(&recipe.name),
        };
        let facts = || reached.iter().filter_map(|name| self.facts.get(name));
        let known: BTreeSet<&str> =
            facts().flat_map(|facts| facts.arguments.iter().copied()).collect();
        let hands_on = function || !facts().any(|facts| facts.open);
        for (word, name) in given.iter().filter(|(_, name)| hands_on && !known.contains(name)) {
            let message = format!("{} declares no argument {}", shown(&recipe.name), shown(name));
            let finding = Diagnostic::warning(Rule::UndeclaredArgument, word.span(), message)
                .related(recipe.name.span(), "there is no ARG of this name in it")
                .help(format!("declare it: `ARG {name}`"))
                .maybe_help(did_you_mean(name, known.iter().copied()));
            lint.add(&statement.comments, finding);
        }
        // Who builds a target may give arguments that are handed on; those of a function are all here.
        let old = call.flags.get("build-arg").is_some();
        if !function || passes || old {
            return;
        }
        for required in &recipe.body {
            let Kind::Arg { flags, assign } = &required.kind else { continue };
            let is_on = |value: &Text| switch(value) == Some(true);
            let on = flags.get("required").map(|flag| flag.value.as_ref().is_none_or(is_on));
            let name = assign.name.as_str();
            if on != Some(true) || given.iter().any(|(_, given)| *given == name) {
                continue;
            }
            let message = format!("{} is called without {}", shown(&recipe.name), shown(name));
            let finding = Diagnostic::warning(Rule::MissingRequired, call.word.span(), message)
                .related(assign.name.span(), "it is required here")
                .help(format!("write `--{name}=…` behind the name of the function"));
            lint.add(&statement.comments, finding);
        }
    }

    fn saved(&self, statement: &Statement, call: &Call<'_>, recipe: &Recipe, lint: &mut Lint) {
        if statement.name != "COPY" {
            return;
        }
        // Functions save for the target that calls them.
        let mut open = vec![recipe.name.as_str()];
        let mut seen = BTreeSet::new();
        while let Some(name) = open.pop() {
            let Some(facts) = self.facts.get(name).filter(|_| seen.insert(name)) else { continue };
            if facts.saves || facts.open {
                return;
            }
            let functions = self.file.functions.iter().map(|function| function.name.as_str());
            open.extend(functions.filter(|name| facts.calls.contains(name)));
        }
        let message = format!("the target {} saves no artifacts", shown(&recipe.name));
        let finding = Diagnostic::warning(Rule::UnsavedArtifact, call.word.span(), message)
            .related(recipe.name.span(), "there is no SAVE ARTIFACT in it")
            .help("write e.g. `SAVE ARTIFACT file` in it");
        lint.add(&statement.comments, finding);
    }
}

/// The alias in a reference.
fn alias(word: &Text) -> Option<&str> {
    let at = plus(word).filter(|_| is_literal(word))?;
    match reference::place(&word[..at]).ok()? {
        Place::Import(_) => Some(&word[..at]),
        _ => None,
    }
}
