//! A parsed file as text, each part followed by the bytes it stands at.

use std::fmt::Write as _;

use wbuild_dockerfile::ast::{
    Command, Dockerfile, Healthcheck, Heredoc, Instruction, Kind, Transfer,
};
use wbuild_dockerfile::{Span, Text};

pub fn dump(file: &Dockerfile) -> String {
    let mut out = String::new();
    let directives = &file.directives;
    if let Some(syntax) = &directives.syntax {
        line(&mut out, 0, format!("syntax {syntax:?}"));
    }
    if directives.escape != '\\' {
        line(&mut out, 0, format!("escape {:?}", directives.escape));
    }
    if let Some(check) = &directives.check {
        line(&mut out, 0, format!("{check:?}"));
    }
    for instruction in &file.globals {
        self::instruction(&mut out, 0, instruction);
    }
    for stage in &file.stages {
        line(&mut out, 0, format!("FROM {:?} {}", stage.base, place(stage.span)));
        optional(&mut out, "platform", stage.platform.as_ref());
        optional(&mut out, "as", stage.name.as_ref());
        if let Some(doc) = &stage.doc {
            line(&mut out, 1, format!("doc {doc:?}"));
        }
        for instruction in &stage.instructions {
            self::instruction(&mut out, 1, instruction);
        }
    }
    out
}

fn line(out: &mut String, depth: usize, text: impl AsRef<str>) {
    writeln!(out, "{}{}", "  ".repeat(depth), text.as_ref()).expect("a String takes all");
}

fn place(span: Span) -> String {
    format!("({}..{})", span.start, span.end)
}

fn optional(out: &mut String, name: &str, value: Option<&Text>) {
    if let Some(value) = value {
        line(out, 2, format!("{name} {value:?}"));
    }
}

fn instruction(out: &mut String, depth: usize, instruction: &Instruction) {
    let keyword = instruction.keyword.as_str();
    line(out, depth, format!("{keyword} {}", place(instruction.span)));
    let mut part = |text: String| line(out, depth + 1, text);
    let command = |command: &Command| match command {
        Command::Shell(text) => format!("shell {text:?}"),
        Command::Exec(words) => format!("exec {words:?}"),
    };
    match &instruction.kind {
        Kind::Arg(declarations) => {
            for declaration in declarations {
                let default = declaration.default.as_ref().map(|d| format!(" = {d:?}"));
                let doc = declaration.doc.as_ref().map(|doc| format!(" doc {doc:?}"));
                let (default, doc) = (default.unwrap_or_default(), doc.unwrap_or_default());
                part(format!("{:?}{default}{doc}", declaration.name));
            }
        }
        Kind::Env(pairs) | Kind::Label(pairs) => {
            for pair in pairs {
                let sign = if pair.legacy { "(legacy)" } else { "=" };
                part(format!("{:?} {sign} {:?}", pair.name, pair.value));
            }
        }
        Kind::Cmd(words) | Kind::Entrypoint(words) => part(command(words)),
        Kind::Expose(words) | Kind::Volume(words) | Kind::Shell(words) => {
            part(format!("{words:?}"))
        }
        Kind::Maintainer(text)
        | Kind::Stopsignal(text)
        | Kind::User(text)
        | Kind::Workdir(text) => {
            part(format!("{text:?}"));
        }
        Kind::Healthcheck(check) => match &**check {
            Healthcheck::None => part("none".to_owned()),
            Healthcheck::Check { command: words, timing } => {
                part(command(words));
                part(format!("{timing:?}"));
            }
        },
        Kind::Onbuild(trigger) => {
            part(format!("stored {:?}", trigger.expression));
            self::instruction(out, depth + 1, &trigger.instruction);
        }
        Kind::Run(run) => {
            part(command(&run.command));
            for mount in &run.mounts {
                part(format!("mount {:?}", mount.text));
                for field in &mount.fields {
                    part(format!("  {} {:?}", field.key, field.value));
                }
            }
            for (name, value) in [("network", &run.network), ("security", &run.security)] {
                if let Some(value) = value {
                    part(format!("{name} {value:?}"));
                }
            }
            for device in &run.devices {
                part(format!("device {device:?}"));
            }
            heredocs(out, depth + 1, &run.heredocs);
        }
        Kind::Copy(transfer) | Kind::Add(transfer) => self::transfer(out, depth + 1, transfer),
    }
}

fn transfer(out: &mut String, depth: usize, transfer: &Transfer) {
    let mut part = |text: String| line(out, depth, text);
    for (name, value) in [
        ("from", &transfer.from),
        ("chown", &transfer.chown),
        ("chmod", &transfer.chmod),
        ("checksum", &transfer.checksum),
    ] {
        if let Some(value) = value {
            part(format!("{name} {value:?}"));
        }
    }
    for (name, on) in [
        ("link", transfer.link.then_some(true)),
        ("parents", transfer.parents.then_some(true)),
        ("keep-git-dir", transfer.keep_git_dir),
        ("unpack", transfer.unpack),
    ] {
        if let Some(on) = on {
            part(format!("{name} {on}"));
        }
    }
    for pattern in &transfer.exclude {
        part(format!("exclude {pattern:?}"));
    }
    part(format!("{:?} -> {:?}", transfer.sources, transfer.target));
    heredocs(out, depth, &transfer.heredocs);
}

fn heredocs(out: &mut String, depth: usize, heredocs: &[Heredoc]) {
    for heredoc in heredocs {
        let expand = if heredoc.expand { " expand" } else { "" };
        let tabs = if heredoc.strip_tabs { " strip-tabs" } else { "" };
        line(out, depth, format!("heredoc {:?} {:?}{expand}{tabs}", heredoc.word, heredoc.name));
        line(out, depth + 1, format!("{:?}", heredoc.content()));
    }
}
