//! Rules about `FROM` lines. They hold for all stages, whatever is built.

use std::collections::BTreeSet;

use super::{Linter, reference};
use crate::ast::{Dockerfile, Kind, Stage};
use crate::expand::Expansion;
use crate::platform::Platform;
use crate::text::shown;
use crate::vars::Vars;
use crate::{Diagnostic, Rule, Text};

/// A `FROM` line whose words are expanded.
pub(crate) struct Line<'a> {
    pub stage: &'a Stage,
    /// None if it cannot be expanded, which is an error if the stage is needed.
    pub base: Option<&'a Expansion>,
    pub platform: Option<&'a Expansion>,
}

/// What `FROM` lines see.
pub(crate) struct Scope<'a> {
    pub file: &'a Dockerfile,
    pub globals: &'a Vars,
    pub build_platform: &'a Platform,
}

/// What `ARG` declares above the first `FROM`, with or without a value.
pub(crate) fn declared(file: &Dockerfile) -> impl Iterator<Item = &str> {
    let declarations = file.globals.iter().flat_map(|instruction| match &instruction.kind {
        Kind::Arg(declarations) => declarations.as_slice(),
        _ => &[],
    });
    declarations.map(|declaration| declaration.name.as_str())
}

/// Looks at one line.
pub(crate) fn check(line: &Line<'_>, scope: &Scope<'_>, lint: &mut Linter) {
    let stage = line.stage;
    if let Some(base) = line.base {
        undeclared(&stage.base, base, stage, scope, lint);
    }
    let (Some(word), Some(platform)) = (&stage.platform, line.platform) else { return };
    undeclared(word, platform, stage, scope, lint);
    if platform.unset.is_empty() && platform.used.len() == 1 {
        let target = scope.globals.get("TARGETPLATFORM");
        if platform.used.contains("TARGETPLATFORM") && target == Some(platform.text.as_str()) {
            let message = format!("the platform {} is that of the build anyway", shown(word));
            let finding = Diagnostic::warning(Rule::RedundantTargetPlatform, word.span(), message);
            lint.add(&stage.comments, finding.help("leave `--platform` out"));
        }
    }
    if platform.unset.is_empty() && platform.used.is_empty() {
        constant(word, &platform.text, stage, scope, lint);
    }
}

fn undeclared(
    word: &Text,
    expansion: &Expansion,
    stage: &Stage,
    scope: &Scope<'_>,
    lint: &mut Linter,
) {
    if expansion.unset.is_empty() {
        return;
    }
    let known = scope.globals.pairs().map(|(name, _)| name);
    let known: BTreeSet<&str> = known.chain(declared(scope.file)).collect();
    for (name, at) in &expansion.unset {
        if known.contains(name.as_str()) {
            continue;
        }
        let message = format!("no ARG above the first FROM declares {}", shown(name));
        let finding =
            Diagnostic::warning(Rule::UndefinedArgInFrom, word.span_of(at.clone()), message);
        let help = lint.did_you_mean(name, known.iter().copied());
        lint.add(&stage.comments, finding.maybe_help(help));
    }
}

fn constant(word: &Text, platform: &str, stage: &Stage, scope: &Scope<'_>, lint: &mut Linter) {
    // One that is wrong is an error of its own.
    let Some(parsed) = Platform::parse(platform, scope.build_platform) else { return };
    let name = stage.folded_name().unwrap_or_default();
    if name.contains(&parsed.os) || name.contains(&parsed.architecture) {
        return;
    }
    let message = format!("the stage is for {} whatever is built for", shown(platform));
    let finding = Diagnostic::warning(Rule::FromPlatformFlagConstDisallowed, word.span(), message)
        .help("leave `--platform` out and name the platform when building, or use a variable");
    lint.add(&stage.comments, finding);
}

/// Looks at what a line starts from if nobody gives a build argument: `base` is expanded with
/// nothing but the defaults of the file. `is_stage` knows the stages above.
pub(crate) fn check_default(
    stage: &Stage,
    base: &Expansion,
    is_stage: impl Fn(&str) -> bool,
    lint: &mut Linter,
) {
    let variables = !base.used.is_empty() || !base.unset.is_empty();
    if !variables || reference::valid(&base.text) || is_stage(&base.text) {
        return;
    }
    let word = &stage.base;
    let message = if base.text.is_empty() {
        format!("without build arguments {} names no image", shown(word))
    } else {
        format!(
            "without build arguments {} is {}, which is no image",
            shown(word),
            shown(&base.text)
        )
    };
    let finding = Diagnostic::warning(Rule::InvalidDefaultArgInFrom, word.span(), message)
        .help("give the ARG a default, or the variable: `${NAME:-default}`");
    lint.add(&stage.comments, finding);
}
