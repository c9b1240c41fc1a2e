//! What the text of a command alone says: old forms, secrets, conditions that are no conditions.

use wbuild_dockerfile::ast::{Command, Kind as Config};
use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::shared::{check_above, is_secret};
use wbuild_dockerfile::{Diagnostic, Span, Text};

use super::uses::{Word, uses};
use super::{Body, Lint};
use crate::Rule;
use crate::ast::{Assign, Earthfile, Kind, Run, Statement};
use crate::features::{VERSIONS, since};
use crate::flags::{self, Flags};
use crate::lex;
use crate::parse::is_variable;

/// Looks at VERSION.
pub(super) fn file(file: &Earthfile, lint: &mut Lint) {
    let Some(version) = &file.version else { return };
    let minor = version.minor();
    let newest = VERSIONS[VERSIONS.len() - 1];
    if minor < newest {
        let message = format!("version {} of the language is old", version.number);
        let finding = Diagnostic::warning(Rule::OldVersion, version.number.span(), message)
            .help(format!("write `VERSION 0.{newest}`, and look at what it changes"));
        lint.add(&version.comments, finding);
    }
    for flag in &version.flags {
        let name = flag.split_once('=').map_or(flag.clone(), |(name, _)| name);
        if since(name.trim_start_matches('-')).is_some_and(|since| since <= minor) {
            let message = format!("version {} has {} anyway", version.number, shown(&name));
            let finding = Diagnostic::warning(Rule::RedundantFeature, flag.span(), message);
            lint.add(&version.comments, finding.help("remove it"));
        }
    }
}

/// Looks at the commands of a recipe.
pub(super) fn body(file: &Earthfile, body: Body<'_>, lint: &mut Lint) {
    if let Some(recipe) = body.recipe {
        let kind = if recipe.marker.is_some() { "function" } else { "target" };
        described(&recipe.comments, &recipe.name, kind, lint);
    }
    for statement in body.statements {
        statement.walk(&mut |statement| {
            old(file, statement, lint);
            secret(file, statement, lint);
            several(statement, lint);
            constant(statement, lint);
            shell_form(statement, lint);
            if let Kind::Arg { assign, .. } = &statement.kind {
                described(&statement.comments, &assign.name, "ARG", lint);
            }
        });
    }
}

fn old(file: &Earthfile, statement: &Statement, lint: &mut Lint) {
    let mut report = |at: Span, what: &str, help: &str| {
        let finding =
            Diagnostic::warning(Rule::DeprecatedForm, at, format!("{what} is an old form"));
        lint.add(&statement.comments, finding.help(help));
    };
    let mut named = |list: &Flags, name: &str, help: &str| {
        for flag in list.0.iter().filter(|flag| flag.name == name) {
            report(flags::span(flag), &shown(&flags::dashed(name)), help);
        }
    };
    match &statement.kind {
        Kind::From { flags, .. } | Kind::Build { flags, .. } => {
            let help = format!("write `--NAME=value` behind the target of {}", statement.name);
            named(flags, "build-arg", &help);
        }
        Kind::Copy { flags, .. } => {
            named(flags, "build-arg", "write `(+target/path --NAME=value)`");
        }
        Kind::With { flags, .. } => {
            named(flags, "build-arg", "write `--load name=(+target --NAME=value)`");
        }
        Kind::SaveImage { flags, .. } => {
            named(flags, "cache-hint", "remove it: every step is cached");
        }
        Kind::Run(run) => {
            named(&run.flags, "with-docker", "write the command between WITH DOCKER and END");
        }
        _ => {}
    }
    if file.has("use-project-secrets") {
        for secret in runs(statement).into_iter().flat_map(|run| run.flags.list("secret")) {
            if let Some(at) = secret.find("+secrets/") {
                let at = secret.span_of(at..at + "+secrets/".len());
                report(at, "`+secrets/`", "write the name of the secret alone");
            }
        }
    }
    // `ENV name value`: what stands behind the name is no `=`.
    if let Kind::Env(Assign { name, value: Some(value) }) = &statement.kind
        && let Some(between) = between(&statement.line, name, value)
        && !between.contains('=')
    {
        let at = name.span().to(value.span());
        let finding =
            Diagnostic::warning(Rule::LegacyKeyValueFormat, at, "ENV without `=` is an old form")
                .help(format!("write `ENV {name}=…`, with quotes around blanks"));
        lint.add(&statement.comments, finding);
    }
}

/// What stands between the name and the value of a line.
fn between<'l>(line: &'l Text, name: &str, value: &str) -> Option<&'l str> {
    let rest = line.strip_suffix(value)?;
    let at = rest.find(name)? + name.len();
    Some(&rest[at..])
}

/// The commands that a statement runs.
fn runs(statement: &Statement) -> Vec<&Run> {
    match &statement.kind {
        Kind::Run(run) => vec![run],
        Kind::If { branches, .. } => branches.iter().map(|branch| &*branch.condition).collect(),
        _ => Vec::new(),
    }
}

/// The last words of names that are about a secret and hold none.
const ABOUT: [&str; 4] = ["arn", "id", "name", "path"];

fn secret(file: &Earthfile, statement: &Statement, lint: &mut Lint) {
    let (Kind::Arg { assign, .. } | Kind::Env(assign)) = &statement.kind else { return };
    let last = assign.name.rsplit('_').next().unwrap_or_default();
    if !is_secret(&assign.name) || ABOUT.iter().any(|word| word.eq_ignore_ascii_case(last)) {
        return;
    }
    // It may be the name of one, for `--secret`.
    let mut named = false;
    for statement in file.bodies().flat_map(|(_, body)| body) {
        statement.walk(&mut |statement| {
            let secrets = runs(statement).into_iter().flat_map(|run| run.flags.list("secret"));
            let words = secrets.map(|text| Word { text, shell: false });
            named |= words.flat_map(|word| uses(&word)).any(|used| used.name == *assign.name);
        });
    }
    if named {
        return;
    }
    let leak = if statement.name == "ARG" { "every process sees" } else { "the image holds" };
    let message = format!("{} sounds like a secret, and {leak} its value", shown(&assign.name));
    let finding = Diagnostic::warning(Rule::SecretsUsedInArgOrEnv, assign.name.span(), message)
        .help(format!("give it to the commands that need it: `RUN --secret {}`", assign.name));
    lint.add(&statement.comments, finding);
}

/// `ENV A=1 B=2`, where all behind the first `=` is one value.
fn several(statement: &Statement, lint: &mut Lint) {
    let (Kind::Arg { assign, .. } | Kind::Env(assign)) = &statement.kind else { return };
    let Some(value) = &assign.value else { return };
    // The old form takes the rest of the line, and is a matter of another rule.
    if between(&statement.line, &assign.name, value).is_some_and(|between| !between.contains('=')) {
        return;
    }
    let words = lex::words(value);
    let others = words.iter().skip(1).map(|word| word.split_once('='));
    let others: Option<Vec<Text>> = others.map(|pair| pair.map(|(name, _)| name)).collect();
    let Some(others) =
        others.filter(|names| !names.is_empty() && names.iter().all(|name| is_variable(name)))
    else {
        return;
    };
    let name = statement.name;
    let message = format!("this {name} declares {} alone", shown(&assign.name));
    let finding = Diagnostic::warning(Rule::SeveralAssignments, others[0].span(), message)
        .help(format!("write {name} once more, or quotes around the whole value"));
    lint.add(&statement.comments, finding);
}

/// Conditions that hold always or never.
fn constant(statement: &Statement, lint: &mut Lint) {
    let Kind::If { branches, .. } = &statement.kind else { return };
    for branch in branches {
        let Command::Shell(text) = &branch.condition.command else { continue };
        let Some(holds) = outcome(text) else { continue };
        let message = format!("this condition {} holds", if holds { "always" } else { "never" });
        let finding = Diagnostic::warning(Rule::ConstantCondition, text.span(), message)
            .help("remove the block, or use a variable: `IF [ \"$name\" = \"value\" ]`");
        lint.add(&statement.comments, finding);
    }
}

/// What a condition without variables comes to, if that is plain.
fn outcome(text: &str) -> Option<bool> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let plain = |word: &str| !word.contains(['$', '`', '\\', '*', '?', '[', '~']);
    let bare = |word: &str| word.trim_matches(['"', '\'']).to_owned();
    match words[..] {
        ["true" | ":"] => Some(true),
        ["false"] => Some(false),
        ["[", a, sign @ ("=" | "==" | "!="), b, "]"]
        | ["test", a, sign @ ("=" | "==" | "!="), b]
            if plain(a) && plain(b) =>
        {
            Some((bare(a) == bare(b)) == (sign != "!="))
        }
        _ => None,
    }
}

fn shell_form(statement: &Statement, lint: &mut Lint) {
    let Kind::Config(instruction) = &statement.kind else { return };
    let (Config::Cmd(Command::Shell(command)) | Config::Entrypoint(Command::Shell(command))) =
        &instruction.kind
    else {
        return;
    };
    let name = statement.name;
    let message = format!("a shell stands between signals and the program of {name}");
    let finding = Diagnostic::warning(Rule::JSONArgsRecommended, command.span(), message)
        .help(format!("write a JSON array, e.g. `{name} [\"program\", \"argument\"]`"));
    lint.add(&statement.comments, finding);
}

/// The comment right above must be a description, that is begin with the name.
fn described(comments: &[Text], name: &str, kind: &str, lint: &mut Lint) {
    let Some(first) = comments.first().filter(|_| check_above(comments).is_none()) else { return };
    if crate::ast::documented(comments, name).is_some() {
        return;
    }
    let message = format!("this comment looks like a description of the {kind} below");
    let finding = Diagnostic::warning(Rule::InvalidDefinitionDescription, first.span(), message)
        .help(format!("begin it with `{name}`, or put an empty line below it"));
    lint.add(comments, finding);
}
