//! A parsed file as text, each part followed by the bytes it stands at.

use std::fmt::Write as _;

use wbuild_dockerfile::ast::{Command, Healthcheck, Kind as Config};
use wbuild_earthfile::ast::{
    Assign, BuildArg, Earthfile, Kind, Mount, Recipe, Run, Source, Statement,
};
use wbuild_earthfile::flags::Flags;
use wbuild_earthfile::{Span, Text, features};

pub fn dump(file: &Earthfile) -> String {
    let mut out = String::new();
    if let Some(version) = &file.version {
        line(&mut out, 0, format!("VERSION {:?}", version.number));
        let minor = version.number.strip_prefix("0.").and_then(|minor| minor.parse().ok());
        let usual = features::Features::of(minor.unwrap_or_default());
        for name in features::names() {
            if version.features.has(name) != usual.has(name) {
                let on = if version.features.has(name) { "on" } else { "off" };
                line(&mut out, 1, format!("{name} {on}"));
            }
        }
        comments(&mut out, 1, &version.comments);
    }
    statements(&mut out, 0, &file.base);
    for target in &file.targets {
        recipe(&mut out, "target", target);
    }
    for function in &file.functions {
        recipe(&mut out, "function", function);
    }
    out
}

fn line(out: &mut String, depth: usize, text: impl AsRef<str>) {
    writeln!(out, "{}{}", "  ".repeat(depth), text.as_ref()).expect("a String takes all");
}

fn place(span: Span) -> String {
    format!("({}..{})", span.start, span.end)
}

fn comments(out: &mut String, depth: usize, comments: &[Text]) {
    for comment in comments {
        line(out, depth, format!("# {comment:?}"));
    }
}

fn recipe(out: &mut String, kind: &str, recipe: &Recipe) {
    line(out, 0, format!("{kind} {:?}", recipe.name));
    if let Some(doc) = recipe.doc() {
        line(out, 1, format!("doc {doc:?}"));
    }
    comments(out, 1, &recipe.comments);
    statements(out, 1, &recipe.body);
}

fn statements(out: &mut String, depth: usize, statements: &[Statement]) {
    for statement in statements {
        self::statement(out, depth, statement);
    }
}

fn flags(out: &mut String, depth: usize, flags: &Flags) {
    for flag in &flags.0 {
        line(out, depth, format!("{:?} {:?}", flag.word, flag.value));
    }
}

fn args(out: &mut String, depth: usize, args: &[BuildArg]) {
    for arg in args {
        line(out, depth, format!("arg {:?} = {:?}", arg.name, arg.value));
    }
}

fn assign(out: &mut String, depth: usize, assign: &Assign) {
    line(out, depth, format!("{:?} = {:?}", assign.name, assign.value));
}

fn command(command: &Command) -> String {
    match command {
        Command::Shell(text) => format!("shell {text:?}"),
        Command::Exec(words) => format!("exec {words:?}"),
    }
}

fn mounts(out: &mut String, depth: usize, mounts: &[Mount]) {
    for (key, value) in mounts.iter().flat_map(|mount| &mount.fields) {
        line(out, depth, format!("mount {key} {value:?}"));
    }
}

fn run(out: &mut String, depth: usize, run: &Run) {
    flags(out, depth, &run.flags);
    mounts(out, depth, &run.mounts);
    line(out, depth, command(&run.command));
}

fn source(out: &mut String, depth: usize, source: &Source) {
    line(out, depth, format!("{:?}", source.path));
    args(out, depth + 1, &source.args);
}

fn statement(out: &mut String, depth: usize, statement: &Statement) {
    line(out, depth, format!("{} {}", statement.name, place(statement.span)));
    let depth = depth + 1;
    comments(out, depth, &statement.comments);
    match &statement.kind {
        Kind::From { flags: named, base, args: given } => {
            flags(out, depth, named);
            line(out, depth, format!("{base:?}"));
            args(out, depth, given);
        }
        Kind::FromDockerfile { flags: named, context } => {
            flags(out, depth, named);
            source(out, depth, context);
        }
        Kind::Locally => {}
        Kind::Copy { flags: named, sources, target } => {
            flags(out, depth, named);
            sources.iter().for_each(|item| source(out, depth, item));
            line(out, depth, format!("-> {target:?}"));
        }
        Kind::SaveArtifact { flags: named, source, target, local } => {
            flags(out, depth, named);
            line(out, depth, format!("{source:?} -> {target:?} local {local:?}"));
        }
        Kind::SaveImage { flags: named, names } => {
            flags(out, depth, named);
            line(out, depth, format!("{names:?}"));
        }
        Kind::Run(command) => run(out, depth, command),
        Kind::Build { flags: named, target, args: given }
        | Kind::Do { flags: named, function: target, args: given } => {
            flags(out, depth, named);
            line(out, depth, format!("{target:?}"));
            args(out, depth, given);
        }
        Kind::Arg { flags: named, assign: pair } => {
            flags(out, depth, named);
            assign(out, depth, pair);
        }
        Kind::Let(pair) | Kind::Set(pair) | Kind::Env(pair) => assign(out, depth, pair),
        Kind::Label(pairs) => pairs.iter().for_each(|pair| assign(out, depth, pair)),
        Kind::Config(instruction) => match &instruction.kind {
            Config::Cmd(words) | Config::Entrypoint(words) => line(out, depth, command(words)),
            Config::Expose(words) | Config::Volume(words) => line(out, depth, format!("{words:?}")),
            Config::User(text) | Config::Workdir(text) => line(out, depth, format!("{text:?}")),
            Config::Healthcheck(check) => match &**check {
                Healthcheck::None => line(out, depth, "none"),
                Healthcheck::Check { command: words, timing } => {
                    line(out, depth, command(words));
                    line(out, depth, format!("{timing:?}"));
                }
            },
            other => line(out, depth, format!("{other:?}")),
        },
        Kind::GitClone { flags: named, url, target } => {
            flags(out, depth, named);
            line(out, depth, format!("{url:?} -> {target:?}"));
        }
        Kind::Import { flags: named, place, alias } => {
            flags(out, depth, named);
            line(out, depth, format!("{place:?} as {alias:?}"));
        }
        Kind::Cache { flags: named, path } => {
            flags(out, depth, named);
            line(out, depth, format!("{path:?}"));
        }
        Kind::Host { name, address } => line(out, depth, format!("{name:?} {address:?}")),
        Kind::Service(words) => line(out, depth, format!("{words:?}")),
        Kind::If { branches, otherwise } => {
            for branch in branches {
                run(out, depth, &branch.condition);
                statements(out, depth + 1, &branch.body);
            }
            if let Some(body) = otherwise {
                line(out, depth, "else");
                statements(out, depth + 1, body);
            }
        }
        Kind::For { flags: named, mounts: mounted, variable, values, body } => {
            flags(out, depth, named);
            mounts(out, depth, mounted);
            line(out, depth, format!("{variable:?} in {values:?}"));
            statements(out, depth + 1, body);
        }
        Kind::Wait(body) => statements(out, depth + 1, body),
        Kind::Try { body, finally } => {
            statements(out, depth + 1, body);
            line(out, depth, "finally");
            statements(out, depth + 1, finally);
        }
        Kind::With { flags: named, body } => {
            flags(out, depth, named);
            statements(out, depth + 1, body);
        }
    }
}

/// What a dump says, without the places where it says so.
pub fn without_places(dump: &str) -> String {
    let mut out = String::new();
    for line in dump.lines() {
        let mut rest = line;
        // Every text is followed by `@start..end`, every command by `(start..end)`.
        while let Some(at) = rest.find(['@', '(']) {
            out.push_str(&rest[..=at]);
            let behind = &rest[at + 1..];
            let digits = |text: &str| {
                text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len()
            };
            let first = digits(behind);
            let place = behind[first..].strip_prefix("..").map(|more| first + 2 + digits(more));
            rest = &behind[place.filter(|_| first > 0).unwrap_or(0)..];
        }
        out.push_str(rest);
        out.push('\n');
    }
    out
}
