//! Variables that nothing sets, that nothing uses, and that hide each other.

use std::collections::{BTreeMap, BTreeSet};

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::{Diagnostic, Span, Text};

use super::environment::{Environment, Environments};
use super::uses::{Use, Word, bare, runs, uses, words};
use super::{Body, Lint};
use crate::Rule;
use crate::ast::{Assign, Earthfile, Kind, Recipe, Statement};
use crate::features::is_built_in;
use crate::flags::{Flags, switch};

/// Variables that every shell or nearly every image has.
const USUAL: [&str; 12] = [
    "HOME",
    "HOSTNAME",
    "IFS",
    "LANG",
    "LD_LIBRARY_PATH",
    "OLDPWD",
    "PATH",
    "PPID",
    "PWD",
    "SHELL",
    "TERM",
    "USER",
];

/// A variable that a recipe declares.
struct Variable<'f> {
    name: &'f Text,
    comments: &'f [Text],
    command: &'static str,
    /// Something may have used it.
    used: bool,
}

/// Whether a switch is on, as far as that is known.
fn on(flags: &Flags, name: &str) -> bool {
    flags
        .get(name)
        .is_some_and(|flag| flag.value.as_ref().is_none_or(|value| switch(value) != Some(false)))
}

/// What ARG, LET or FOR declares.
fn declared(statement: &Statement) -> Option<(&Text, Option<&Text>)> {
    match &statement.kind {
        Kind::Arg { assign: Assign { name, value }, .. } | Kind::Let(Assign { name, value }) => {
            Some((name, value.as_ref()))
        }
        Kind::For { variable, .. } => Some((variable, None)),
        _ => None,
    }
}

/// The arguments that all recipes of a file have.
fn globals(file: &Earthfile) -> BTreeMap<&str, Span> {
    let explicit = file.has("explicit-global");
    let mut found = BTreeMap::new();
    for statement in &file.base {
        statement.walk(&mut |statement| {
            if let Kind::Arg { flags, assign } = &statement.kind
                && (!explicit || on(flags, "global"))
            {
                found.entry(assign.name.as_str()).or_insert(assign.name.span());
            }
        });
    }
    found
}

/// Where each name is declared first, with the recipe.
fn places(file: &Earthfile) -> BTreeMap<&str, (Option<&Recipe>, Span)> {
    let mut found = BTreeMap::new();
    for (recipe, statements) in file.bodies() {
        for statement in statements {
            statement.walk(&mut |statement| {
                if let (Some((name, _)), Kind::Arg { .. } | Kind::Let(_)) =
                    (declared(statement), &statement.kind)
                {
                    found.entry(name.as_str()).or_insert((recipe, name.span()));
                }
            });
        }
    }
    found
}

/// Looks at the commands of a recipe.
pub(super) fn check(
    file: &Earthfile,
    body: Body<'_>,
    (environments, handed_on): (&Environments<'_>, BTreeSet<&str>),
    lint: &mut Lint,
) {
    let function = body.recipe.is_some_and(|recipe| recipe.marker.is_some());
    let environment = match body.recipe {
        None => Environment::default(),
        Some(_) => environments.begin(function),
    };
    let mut walker = Walker {
        file,
        body,
        environments,
        environment,
        handed_on,
        globals: globals(file),
        places: places(file),
        variables: Vec::new(),
        repeats: BTreeMap::new(),
        told: BTreeSet::new(),
        lint,
    };
    body.statements.iter().for_each(|statement| walker.statement(statement));
    walker.unused();
}

struct Walker<'f, 'l> {
    file: &'f Earthfile,
    body: Body<'f>,
    environments: &'l Environments<'l>,
    /// Variables of ENV so far.
    environment: Environment,
    /// Arguments of recipes that this one needs.
    handed_on: BTreeSet<&'l str>,
    globals: BTreeMap<&'f str, Span>,
    places: BTreeMap<&'f str, (Option<&'f Recipe>, Span)>,
    variables: Vec<Variable<'f>>,
    /// Arguments so far that a second ARG does not change.
    repeats: BTreeMap<&'f str, Span>,
    /// Names that something was said of.
    told: BTreeSet<String>,
    lint: &'l mut Lint,
}

impl<'f> Walker<'f, '_> {
    fn statement(&mut self, statement: &'f Statement) {
        for word in words(statement) {
            self.word(statement, &word);
        }
        if runs(statement) {
            self.variables.iter_mut().for_each(|variable| variable.used = true);
        }
        if let Kind::Set(assign) = &statement.kind {
            self.uses(&assign.name);
        }
        self.environments.one(statement, &mut self.environment);
        if let Some((name, value)) = declared(statement) {
            self.declare(statement, name, value);
        }
        for block in statement.blocks() {
            let before = self.repeats.clone();
            block.iter().for_each(|statement| self.statement(statement));
            // Of several blocks one is carried out.
            self.repeats = before;
        }
        if let Kind::For { variable, .. } = &statement.kind {
            self.variables.retain(|known| known.name.span() != variable.span());
        }
    }

    fn uses(&mut self, name: &str) {
        let known = self.variables.iter_mut().filter(|known| known.name.as_str() == name);
        known.for_each(|variable| variable.used = true);
    }

    fn word(&mut self, statement: &'f Statement, word: &Word<'_>) {
        let found = uses(word);
        if found.is_empty() {
            return;
        }
        let bare = bare(word.text);
        for used in found {
            self.uses(&used.name);
            let set = self.variables.iter().any(|known| known.name.as_str() == used.name)
                || self.globals.contains_key(used.name.as_str())
                || self.environment.names.contains(&used.name)
                || (used.shell && bare.contains(used.name.as_str()));
            if !set && !used.guarded && !self.told.contains(&used.name) {
                self.undefined(statement, word, used);
            }
        }
    }

    fn undefined(&mut self, statement: &'f Statement, word: &Word<'_>, used: Use) {
        let name = used.name.as_str();
        if USUAL.contains(&name) || secrets(statement).any(|secret| secret == name) {
            return;
        }
        let message = format!("{} is not set here", shown(&format!("${name}")));
        let at = word.text.span_of(used.at);
        let finding = Diagnostic::warning(Rule::UndefinedVariable, at, message);
        let finding = match self.places.get(name) {
            Some((owner, place)) if !self.environment.foreign => {
                let own = owner.map(|recipe| recipe.name.span())
                    == self.body.recipe.map(|recipe| recipe.name.span());
                match owner {
                    _ if own => finding
                        .related(*place, "declared here, below")
                        .help("move the declaration above what uses it"),
                    None => finding
                        .related(*place, "declared here, for the base alone")
                        .help(format!("write `ARG --global {name}` there, or `ARG {name}` here")),
                    Some(_) => finding
                        .related(*place, "declared here, for this recipe alone")
                        .help(format!("declare it here, too: `ARG {name}`")),
                }
            }
            // The builder sets these where they are declared only.
            _ if is_built_in(name) => finding.help(format!("declare it: `ARG {name}`")),
            // A shell's own variables cannot be told from mistakes.
            _ if used.shell => return,
            _ if !self.environment.image && !self.environment.foreign => {
                let known: Vec<&str> = self.names().collect();
                let help = self.lint.did_you_mean(name, known);
                finding.help(format!("declare it: `ARG {name}`")).maybe_help(help)
            }
            _ => {
                let known: Vec<&str> = self.names().collect();
                let Some(help) = self.lint.did_you_mean(name, known) else { return };
                finding.help(help)
            }
        };
        self.told.insert(name.to_owned());
        self.lint.add(&statement.comments, finding);
    }

    fn names(&self) -> impl Iterator<Item = &'f str> {
        let own = self.variables.iter().map(|known| known.name.as_str());
        own.chain(self.globals.keys().copied())
    }

    fn declare(&mut self, statement: &'f Statement, name: &'f Text, value: Option<&Text>) {
        self.repeated(statement, name, value);
        self.shadowed(statement, name, value);
        self.variables.push(Variable {
            name,
            comments: &statement.comments,
            command: statement.name,
            used: match &statement.kind {
                // Recipes may use it that are looked at by themselves, or of other files.
                Kind::Arg { flags, .. } => {
                    on(flags, "required")
                        || self.handed_on.contains(name.as_str())
                        || (self.body.recipe.is_none() && self.globals.contains_key(name.as_str()))
                }
                Kind::For { .. } => true,
                _ => false,
            },
        });
    }

    /// Before version 0.8 a second ARG is no mistake, and its default has no effect.
    fn repeated(&mut self, statement: &'f Statement, name: &'f Text, value: Option<&Text>) {
        if !matches!(statement.kind, Kind::Arg { .. }) || self.file.has("arg-scope-and-set") {
            return;
        }
        let global = self.globals.get(name.as_str()).filter(|_| self.body.recipe.is_some());
        let (first, which) = match (self.repeats.get(name.as_str()), global) {
            (Some(first), _) => (*first, "first"),
            (None, Some(global)) if value.is_some() => (*global, "global"),
            _ => {
                self.repeats.insert(name.as_str(), name.span());
                return;
            }
        };
        let message = format!("the argument {} is declared twice", shown(name));
        let finding = Diagnostic::warning(Rule::RepeatedArgument, name.span(), message)
            .related(first, format!("the value is that of the {which} one"))
            .help("remove one of them, or give it another name");
        self.lint.add(&statement.comments, finding);
    }

    fn shadowed(&mut self, statement: &'f Statement, name: &'f Text, value: Option<&Text>) {
        // `LET a=$a` makes a variable of an argument.
        let word = value.map(|text| Word { text, shell: false });
        let from_it =
            word.is_some_and(|word| uses(&word).iter().any(|used| used.name == name.as_str()));
        if from_it {
            return;
        }
        let own = self.variables.iter().rev().find(|known| known.name.as_str() == name.as_str());
        let (place, what) = match (&statement.kind, own) {
            // Of LET and FOR the LET counts.
            (Kind::For { .. }, Some(own)) if own.command == "LET" => {
                let message = format!("this {} is hidden by the LET of this name", shown(name));
                let finding = Diagnostic::warning(Rule::ShadowedVariable, name.span(), message)
                    .related(own.name.span(), "declared here")
                    .help("give the variable of the loop another name");
                return self.lint.add(&statement.comments, finding);
            }
            (Kind::Let(_) | Kind::For { .. }, Some(own)) => (own.name.span(), own.command),
            (Kind::Arg { .. }, _) if self.body.recipe.is_none() => return,
            // Before version 0.8 it keeps the value of the global one.
            (Kind::Arg { .. }, _) if !self.file.has("arg-scope-and-set") => return,
            // With a default of its own; without it is the global one that is meant.
            (Kind::Arg { .. }, None) if value.is_none() => return,
            (_, None) => match self.globals.get(name.as_str()) {
                Some(place) => (*place, "global ARG"),
                None => return,
            },
            _ => return,
        };
        let message = format!("{} hides the {what} of this name", shown(name));
        let help = match &statement.kind {
            Kind::For { .. } => "give the variable of the loop another name",
            _ => "give it another name",
        };
        let finding = Diagnostic::warning(Rule::ShadowedVariable, name.span(), message)
            .related(place, "declared here")
            .help(help);
        self.lint.add(&statement.comments, finding);
    }

    fn unused(&mut self) {
        for variable in self.variables.iter().filter(|known| !known.used) {
            let name = variable.name;
            // Who means it in another recipe is told there that it is not seen.
            if self.body.recipe.is_none() && self.used_elsewhere(name) {
                continue;
            }
            let message = format!("nothing uses the {} {}", variable.command, shown(name));
            let finding = Diagnostic::warning(Rule::UnusedArgument, name.span(), message);
            self.lint.add(variable.comments, finding.help("remove it"));
        }
    }

    /// Whether a recipe uses a variable of the base.
    fn used_elsewhere(&self, name: &str) -> bool {
        let mut found = false;
        for statement in self.file.bodies().skip(1).flat_map(|(_, body)| body) {
            statement.walk(&mut |statement| {
                found |= words(statement).iter().flat_map(uses).any(|used| used.name == name);
            });
        }
        found
    }
}

/// The variables that secrets become in a command.
fn secrets(statement: &Statement) -> impl Iterator<Item = String> {
    let mut names = Vec::new();
    let mut of = |flags: &Flags| {
        for secret in flags.list("secret") {
            names.push(secret.split('=').next().unwrap_or_default().to_owned());
        }
        names.extend(on(flags, "ssh").then(|| "SSH_AUTH_SOCK".to_owned()));
    };
    match &statement.kind {
        Kind::Run(run) => of(&run.flags),
        Kind::For { flags, .. } => of(flags),
        Kind::If { branches, .. } => {
            branches.iter().for_each(|branch| of(&branch.condition.flags));
        }
        _ => {}
    }
    names.into_iter()
}
