//! Flags of commands: `--name`, `--name=value`, `--name value`, before the arguments.
//!
//! Values are kept as they are written; variables, quotes and `$(…)` in them are looked at when the
//! command is carried out. What can be checked without that is checked here.

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::suggest::closest;
use wbuild_dockerfile::{Diagnostic, Span, Text};

use crate::Code;
use crate::features::{Features, needed};
use crate::lex::{Line, closed};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `--push`, `--push=true`, `--push=$PUSH`.
    Switch,
    /// `--platform=linux/arm64`, at most once.
    Value,
    /// `--secret=…`, any number of times.
    List,
}

/// A flag that a command knows.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Without dashes.
    pub name: &'static str,
    /// What it takes.
    pub kind: Type,
    /// The feature that brought it; empty if it has always been there.
    pub feature: &'static str,
}

const fn spec(name: &'static str, kind: Type, feature: &'static str) -> Spec {
    Spec { name, kind, feature }
}

const PLATFORM: Spec = spec("platform", Type::Value, "");
const BUILD_ARG: Spec = spec("build-arg", Type::List, "");
const ALLOW_PRIVILEGED: Spec = spec("allow-privileged", Type::Switch, "");
const PASS_ARGS: Spec = spec("pass-args", Type::Switch, "pass-args");
const KEEP_TS: Spec = spec("keep-ts", Type::Switch, "");
const KEEP_OWN: Spec = spec("keep-own", Type::Switch, "");
const IF_EXISTS: Spec = spec("if-exists", Type::Switch, "");
const SYMLINK_NO_FOLLOW: Spec = spec("symlink-no-follow", Type::Switch, "");
const PRIVILEGED: Spec = spec("privileged", Type::Switch, "");
const SSH: Spec = spec("ssh", Type::Switch, "");
const NO_CACHE: Spec = spec("no-cache", Type::Switch, "");
const MOUNT: Spec = spec("mount", Type::List, "");
const SECRET: Spec = spec("secret", Type::List, "");
const PUSH: Spec = spec("push", Type::Switch, "");

/// The flags of a command.
pub fn known(command: &str) -> &'static [Spec] {
    match command {
        "FROM" => &[PLATFORM, BUILD_ARG, ALLOW_PRIVILEGED, PASS_ARGS],
        "FROM DOCKERFILE" => {
            const F: Spec = spec("f", Type::Value, "");
            const TARGET: Spec = spec("target", Type::Value, "");
            const PRIVILEGED: Spec =
                spec("allow-privileged", Type::Switch, "allow-privileged-from-dockerfile");
            &[F, BUILD_ARG, TARGET, PLATFORM, PRIVILEGED]
        }
        "RUN" => {
            const NETWORK: Spec = spec("network", Type::Value, "no-network");
            const ENTRYPOINT: Spec = spec("entrypoint", Type::Switch, "");
            const WITH_DOCKER: Spec = spec("with-docker", Type::Switch, "");
            const INTERACTIVE: Spec = spec("interactive", Type::Switch, "");
            const INTERACTIVE_KEEP: Spec = spec("interactive-keep", Type::Switch, "");
            const AWS: Spec = spec("aws", Type::Switch, "run-with-aws");
            const OIDC: Spec = spec("oidc", Type::Value, "run-with-aws-oidc");
            const RAW: Spec = spec("raw-output", Type::Switch, "raw-output");
            &[
                PUSH,
                NO_CACHE,
                ENTRYPOINT,
                PRIVILEGED,
                SECRET,
                NETWORK,
                SSH,
                MOUNT,
                INTERACTIVE,
                INTERACTIVE_KEEP,
                AWS,
                OIDC,
                RAW,
                WITH_DOCKER,
            ]
        }
        "IF" | "ELSE IF" => &[PRIVILEGED, SSH, NO_CACHE, MOUNT, SECRET],
        "FOR" => {
            const SEP: Spec = spec("sep", Type::Value, "");
            &[SEP, PRIVILEGED, SSH, NO_CACHE, MOUNT, SECRET]
        }
        "COPY" => {
            const DIR: Spec = spec("dir", Type::Switch, "");
            const CHOWN: Spec = spec("chown", Type::Value, "");
            const CHMOD: Spec = spec("chmod", Type::Value, "use-chmod");
            const FROM: Spec = spec("from", Type::Value, "");
            &[
                DIR,
                KEEP_TS,
                KEEP_OWN,
                CHOWN,
                CHMOD,
                IF_EXISTS,
                SYMLINK_NO_FOLLOW,
                FROM,
                PLATFORM,
                BUILD_ARG,
                ALLOW_PRIVILEGED,
                PASS_ARGS,
            ]
        }
        "SAVE ARTIFACT" => {
            const FORCE: Spec = spec("force", Type::Switch, "");
            &[KEEP_TS, KEEP_OWN, IF_EXISTS, SYMLINK_NO_FOLLOW, FORCE]
        }
        "SAVE IMAGE" => {
            const NO_LIST: Spec = spec("no-manifest-list", Type::Switch, "use-no-manifest-list");
            const CACHE_FROM: Spec = spec("cache-from", Type::List, "");
            const CACHE_HINT: Spec = spec("cache-hint", Type::Switch, "");
            const INSECURE: Spec = spec("insecure", Type::Switch, "");
            const LABELS: Spec =
                spec("without-earthly-labels", Type::Switch, "allow-without-earthly-labels");
            &[PUSH, NO_LIST, CACHE_FROM, CACHE_HINT, INSECURE, LABELS]
        }
        "BUILD" => {
            const PLATFORMS: Spec = spec("platform", Type::List, "");
            const AUTO_SKIP: Spec = spec("auto-skip", Type::Switch, "build-auto-skip");
            &[PLATFORMS, BUILD_ARG, AUTO_SKIP, ALLOW_PRIVILEGED, PASS_ARGS]
        }
        "ARG" => {
            const REQUIRED: Spec = spec("required", Type::Switch, "");
            const GLOBAL: Spec = spec("global", Type::Switch, "explicit-global");
            &[REQUIRED, GLOBAL]
        }
        "PIPELINE" => &[PUSH],
        "DO" | "IMPORT" => &[ALLOW_PRIVILEGED, PASS_ARGS],
        "GIT CLONE" => {
            const BRANCH: Spec = spec("branch", Type::Value, "");
            &[BRANCH, KEEP_TS]
        }
        "CACHE" => {
            const SHARING: Spec = spec("sharing", Type::Value, "");
            const CHMOD: Spec = spec("chmod", Type::Value, "");
            const ID: Spec = spec("id", Type::Value, "");
            const PERSIST: Spec = spec("persist", Type::Switch, "cache-persist-option");
            &[SHARING, CHMOD, ID, PERSIST]
        }
        "WITH DOCKER" => {
            const PULL: Spec = spec("pull", Type::List, "");
            const LOAD: Spec = spec("load", Type::List, "");
            const COMPOSE: Spec = spec("compose", Type::List, "");
            const SERVICE: Spec = spec("service", Type::List, "");
            const CACHE_ID: Spec = spec("cache-id", Type::Value, "docker-cache");
            &[
                PULL,
                LOAD,
                COMPOSE,
                SERVICE,
                PLATFORM,
                BUILD_ARG,
                CACHE_ID,
                ALLOW_PRIVILEGED,
                PASS_ARGS,
            ]
        }
        _ => &[],
    }
}

/// A flag as it is written; its name is one that the command knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// The name with its dashes.
    pub word: Text,
    /// Its value, if it has one.
    pub value: Option<Text>,
}

/// The flags of one command, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub Vec<Flag>);

impl Flags {
    /// A flag by its name.
    pub fn get(&self, name: &str) -> Option<&Flag> {
        self.0.iter().find(|flag| flag.name == name)
    }

    /// The value of a flag that stands at most once.
    pub fn value(&self, name: &str) -> Option<&Text> {
        self.get(name)?.value.as_ref()
    }

    /// All values of a flag.
    pub fn list<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f Text> {
        self.0.iter().filter(move |flag| flag.name == name).filter_map(|flag| flag.value.as_ref())
    }
}

/// What the value of a switch says.
pub fn switch(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Whether a word is known only when variables and quotes have been looked at.
pub fn is_literal(word: &str) -> bool {
    !word.contains(['$', '"', '\'', '\\'])
}

/// Reads the flags at the start of a line, from word `at` on. Answers with the first word that is
/// none. What is wrong goes to `problems`, and reading goes on.
pub fn read(
    command: &'static str,
    line: &Line,
    mut at: usize,
    features: &Features,
    problems: &mut Vec<Diagnostic>,
) -> (Flags, usize) {
    let specs = known(command);
    let mut flags: Vec<Flag> = Vec::new();
    while let Some(word) = line.words.get(at) {
        let short = word.starts_with("-f") && specs.iter().any(|spec| spec.name == "f");
        if !word.starts_with("--") && !short {
            break;
        }
        at += 1;
        if word.as_str() == "--" {
            break;
        }
        let dashes = if word.starts_with("--") { 2 } else { 1 };
        let end = word.find('=').unwrap_or(word.len());
        let (head, mut value) =
            (word.slice(0..end), (end < word.len()).then(|| word.slice(end + 1..word.len())));
        let name = &head[dashes..];
        let Some(spec) = specs.iter().find(|spec| spec.name == name) else {
            problems.push(unknown(command, &head, specs));
            continue;
        };
        if !spec.feature.is_empty() && !features.has(spec.feature) {
            problems.push(needed(&format!("`{head}` of {command}"), spec.feature, head.span()));
        }
        if spec.kind != Type::Switch && value.is_none() {
            value = line.words.get(at).cloned();
            at += 1;
            if value.is_none() {
                problems.push(
                    Diagnostic::error(
                        Code::InvalidFlag,
                        head.span(),
                        format!("{} needs a value", shown(&head)),
                    )
                    .help(format!("write `{head}=…`")),
                );
                break;
            }
        }
        if spec.name == "load" {
            value = value.map(|value| grouped(line, value, &mut at));
        }
        if let (Type::Switch, Some(value)) = (spec.kind, &value)
            && is_literal(value)
            && switch(value).is_none()
        {
            let at = if value.is_empty() { word.span() } else { value.span() };
            let message = format!("{} is either on or off, not {}", shown(&head), shown(value));
            let help = format!("write `{head}` or `{head}=false`");
            problems.push(Diagnostic::error(Code::InvalidFlag, at, message).help(help));
        }
        let first = flags.iter().find(|flag| flag.name == spec.name);
        if let Some(first) = first.filter(|_| spec.kind != Type::List) {
            problems.push(
                Diagnostic::error(
                    Code::RepeatedFlag,
                    head.span(),
                    format!("{} is given twice", shown(&head)),
                )
                .related(first.word.span(), "first given here")
                .help("keep one of them"),
            );
        }
        flags.push(Flag { name: spec.name, word: head, value });
    }
    (Flags(flags), at.min(line.words.len()))
}

/// A value with a parenthesis that is closed in a later word.
fn grouped(line: &Line, value: Text, at: &mut usize) -> Text {
    let Some(open) = value.find('(') else { return value };
    let start = line.starts[*at - 1] + line.words[*at - 1].len() - value.len();
    let Some(length) = closed(&line.text[start + open..]) else { return value };
    let end = start + open + length;
    while *at < line.words.len() && line.starts[*at] < end {
        *at += 1;
    }
    let last = line.starts[*at - 1] + line.words[*at - 1].len();
    line.text.slice(start..last)
}

fn unknown(command: &str, head: &Text, specs: &[Spec]) -> Diagnostic {
    let name = head.trim_start_matches('-');
    let list = specs.iter().map(|spec| dashed(spec.name)).collect::<Vec<_>>().join(", ");
    let help = match (command, specs.is_empty()) {
        ("FROM" | "BUILD" | "DO", _) => format!(
            "{command} knows {list}; arguments for what is built stand behind its name: `+name --ARG=value`"
        ),
        (_, true) => format!("{command} has no flags; write `--` before arguments with dashes"),
        (_, false) => format!("{command} knows {list}"),
    };
    let close = closest(name, specs.iter().map(|spec| spec.name));
    Diagnostic::error(
        Code::UnknownFlag,
        head.span(),
        format!("{command} has no flag {}", shown(head)),
    )
    .help(help)
    .maybe_help(close.map(|name| format!("did you mean `{}`?", dashed(name))))
}

/// A flag's name as it is written.
pub fn dashed(name: &str) -> String {
    if name.len() == 1 { format!("-{name}") } else { format!("--{name}") }
}

/// Where a flag stands.
pub fn span(flag: &Flag) -> Span {
    match &flag.value {
        Some(value) => flag.word.span().to(value.span()),
        None => flag.word.span(),
    }
}
