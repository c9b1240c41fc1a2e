//! What is asked of instructions while their stage is lowered.

use super::Linter;
use crate::ast::Pair;
use crate::expand::Expansion;
use crate::platform::Platform;
use crate::text::shown;
use crate::vars::Vars;
use crate::{Diagnostic, IgnorePattern, Rule, Span, Text};

/// Words of names that hold secrets.
const SECRET: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];
/// Words of names that hold none although another word says so.
const NO_SECRET: [&str; 3] = ["public", "file", "version"];

/// Variables that a word uses and nothing has set. `declared` are arguments, with or without a
/// value; `unseen` names are given to no step.
pub(crate) fn undefined(
    lint: &mut Linter,
    comments: &[Text],
    (word, expansion): (&Text, &Expansion),
    (vars, declared, unseen): (&Vars, &Vars, &[&str]),
) {
    for (name, at) in &expansion.unset {
        if declared.get(name).is_some() || unseen.contains(&name.as_str()) {
            continue;
        }
        let message = format!("{} is not set", shown(&format!("${name}")));
        let finding = Diagnostic::warning(Rule::UndefinedVar, word.span_of(at.clone()), message);
        let known = vars.pairs().map(|(name, _)| name);
        let help = lint.did_you_mean(name, known);
        lint.add(comments, finding.maybe_help(help));
    }
}

/// Whether a name says that its value is a secret.
pub fn is_secret(name: &str) -> bool {
    let has = |words: &[&str]| {
        name.split('_').any(|part| words.iter().any(|word| word.eq_ignore_ascii_case(part)))
    };
    has(&SECRET) && !has(&NO_SECRET)
}

/// A name that says that its value is a secret.
pub(crate) fn secret(
    lint: &mut Linter,
    comments: &[Text],
    instruction: &str,
    (written, name): (&Text, &str),
) {
    if !is_secret(name) {
        return;
    }
    let leak = if instruction == "ARG" { "the image's history" } else { "the image" };
    let message = format!("{} sounds like a secret, and {leak} holds its value", shown(name));
    let finding = Diagnostic::warning(Rule::SecretsUsedInArgOrEnv, written.span(), message)
        .help("give it to the steps that need it: `RUN --mount=type=secret,id=…,env=…`");
    lint.add(comments, finding);
}

/// `ENV name value`.
pub(crate) fn legacy(lint: &mut Linter, comments: &[Text], instruction: &str, pair: &Pair) {
    if !pair.legacy {
        return;
    }
    let at = pair.name.span().to(pair.value.span());
    let message = format!("{instruction} without `=` is an old form");
    let finding = Diagnostic::warning(Rule::LegacyKeyValueFormat, at, message)
        .help(format!("write `{instruction} {}=…`, with quotes around blanks", pair.name.as_str()));
    lint.add(comments, finding);
}

/// An instruction of which only the last counts; `before` is an earlier one of the stage.
pub(crate) fn repeated(lint: &mut Linter, comments: &[Text], keyword: &Text, before: Option<Span>) {
    let Some(before) = before else { return };
    let name = keyword.to_uppercase();
    let message = format!("this {name} has no effect, since the stage has another one below");
    let finding = Diagnostic::warning(Rule::MultipleInstructionsDisallowed, before, message)
        .related(keyword.span(), "this one counts");
    lint.add(comments, finding);
}

/// A command for a shell that nobody has chosen.
pub(crate) fn shell_form(lint: &mut Linter, comments: &[Text], keyword: &Text, command: &Text) {
    let name = keyword.to_uppercase();
    let message = format!("a shell stands between signals and the program of {name}");
    let finding = Diagnostic::warning(Rule::JSONArgsRecommended, command.span(), message)
        .help(format!("write a JSON array, e.g. `{name} [\"program\", \"argument\"]`"));
    lint.add(comments, finding);
}

/// A working directory that depends on the base image.
pub(crate) fn relative(
    lint: &mut Linter,
    comments: &[Text],
    (written, path): (&Text, &str),
    platform: &Platform,
) {
    let absolute = match platform.os.as_str() {
        "windows" => {
            let path = match path.as_bytes() {
                [drive, b':', ..] if drive.is_ascii_alphabetic() => &path[2..],
                _ => path,
            };
            path.starts_with(['/', '\\'])
        }
        _ => path.starts_with('/'),
    };
    if absolute {
        return;
    }
    let message = format!("where {} is depends on the base image", shown(path));
    let finding = Diagnostic::warning(Rule::WorkdirRelativePath, written.span(), message)
        .help("write an absolute path, or set one before");
    lint.add(comments, finding);
}

/// Ports as `EXPOSE` names them. `port` is a word of what `written` comes to.
pub(crate) fn exposed(lint: &mut Linter, comments: &[Text], written: &Text, port: &str) {
    // Variables and quotes may have moved what is inside.
    let part = |from: usize, to: usize| match written.as_str() == port {
        true => written.span_of(from..to),
        false => written.span(),
    };
    let (host, container) = port.rsplit_once(':').unwrap_or(("", port));
    if let Some((_, protocol)) = container.split_once('/')
        && protocol != protocol.to_lowercase()
    {
        let message = format!("the protocol {} has capitals", shown(protocol));
        let at = part(port.len() - protocol.len(), port.len());
        let finding = Diagnostic::warning(Rule::ExposeProtoCasing, at, message)
            .help(format!("write {}", shown(&protocol.to_lowercase())));
        lint.add(comments, finding);
    }
    if host.bytes().any(|b| b != b':') {
        let message = format!("{} is about the host, which EXPOSE knows nothing of", shown(host));
        let finding = Diagnostic::warning(Rule::ExposeInvalidFormat, part(0, host.len()), message)
            .help(format!("write {}", shown(container)));
        lint.add(comments, finding);
    }
}

/// A source that an ignore file leaves out: its name, and the pattern.
pub(crate) fn ignored(
    lint: &mut Linter,
    comments: &[Text],
    (written, path): (&Text, &str),
    by: Option<(&str, &IgnorePattern)>,
) {
    let Some((file, pattern)) = by else { return };
    let message = format!("{} is left out of the context by {}", shown(path), shown(file));
    let finding = Diagnostic::warning(Rule::CopyIgnoredFile, written.span(), message)
        .related(pattern.at, "left out by this pattern");
    lint.add(comments, finding);
}

/// A base image of another platform than asked for.
pub(crate) fn other_platform(
    lint: &mut Linter,
    comments: &[Text],
    image: &Text,
    (expected, actual): (&Platform, &Platform),
) {
    if (&expected.os, &expected.architecture) == (&actual.os, &actual.architecture) {
        return;
    }
    let message = format!("this image is of the platform {actual}, not of {expected}");
    let finding = Diagnostic::warning(Rule::InvalidBaseImagePlatform, image.span(), message);
    lint.add(comments, finding);
}
