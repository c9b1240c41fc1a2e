//! The parser: whole files, and instructions that images store.

use wbuild_dockerfile::ast::{Command, Healthcheck, Heredoc, Instruction, Kind, Transfer};
use wbuild_dockerfile::{Severity, Text, parse, parse_trigger};

use crate::seeds;
use crate::source::Source;

/// The input is a file.
pub fn check_file(data: &[u8]) {
    let source = Source::new(7, data);
    let parsed = parse(7, data);
    assert_eq!(format!("{parsed:?}"), format!("{:?}", parse(7, data)), "it differs each time");
    source.check_diagnostics(&parsed.problems);
    parsed.empty_continuations.iter().flatten().for_each(|span| source.check_span(*span));
    let failed = parsed.problems.iter().any(|problem| problem.severity == Severity::Error);
    assert_eq!(parsed.failed(), failed);
    let file = &parsed.file;
    assert!(failed || !file.stages.is_empty(), "neither an error nor a stage");
    let slash = file.directives.escape == '\\';
    let mut end = 0;
    let mut next = |instruction: &Instruction| {
        assert!(instruction.span.start >= end, "instructions overlap at {:?}", instruction.span);
        end = instruction.span.end;
        self::instruction(source, instruction);
        if slash
            && !failed
            && let Kind::Onbuild(trigger) = &instruction.kind
        {
            stored(&trigger.expression, &trigger.instruction);
        }
    };
    file.globals.iter().for_each(&mut next);
    for stage in &file.stages {
        source.check_span(stage.span);
        let parts = [&stage.platform, &stage.name, &stage.as_keyword];
        for text in parts.into_iter().flatten().chain([&stage.keyword, &stage.base]) {
            source.check_text(text);
        }
        stage.instructions.iter().for_each(&mut next);
    }
}

/// The input is an instruction that an image stores.
pub fn check_trigger(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let source = Source::new(3, data);
    match parse_trigger(3, text) {
        Err(problems) => {
            assert!(problems.iter().any(|problem| problem.severity == Severity::Error));
            source.check_diagnostics(&problems);
        }
        Ok(instruction) => self::instruction(source, &instruction),
    }
}

fn instruction(source: Source<'_>, instruction: &Instruction) {
    source.check_span(instruction.span);
    source.check_copy(&instruction.line);
    source.check_copy(&instruction.keyword);
    assert!(instruction.line.starts_with(instruction.keyword.as_str()));
    for text in texts(instruction) {
        source.check_text(text);
        let (part, whole) = (text.span(), instruction.span);
        assert!(
            part.start >= whole.start && part.end <= whole.end,
            "{text:?} lies outside of its instruction, {whole:?}"
        );
    }
    if let Kind::Onbuild(trigger) = &instruction.kind {
        self::instruction(source, &trigger.instruction);
    }
}

/// A stored instruction says the same when it is read again.
fn stored(expression: &str, instruction: &Instruction) {
    // Blanks at the end are not stored, so an escape before them becomes a continuation.
    let line = expression.split('\n').next().unwrap_or_default();
    if line.ends_with('\\') {
        return;
    }
    match parse_trigger(0, expression) {
        Ok(again) => assert_eq!(meaning(&again), meaning(instruction), "{expression:?}"),
        Err(problems) => panic!("{expression:?} cannot be read again: {problems:?}"),
    }
}

/// What an instruction says, without the places where it says so.
fn meaning(instruction: &Instruction) -> String {
    let debug = format!("{:?}", instruction.kind);
    let mut out = String::new();
    let mut rest = debug.as_str();
    // Every text is followed by `@start..end`.
    while let Some(at) = rest.find('@') {
        out.push_str(&rest[..at]);
        rest = rest[at + 1..].trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    }
    out + rest
}

fn command(command: &Command) -> Vec<&Text> {
    match command {
        Command::Shell(text) => vec![text],
        Command::Exec(words) => words.iter().collect(),
    }
}

fn heredocs(heredocs: &[Heredoc]) -> impl Iterator<Item = &Text> {
    heredocs.iter().flat_map(|heredoc| [&heredoc.word, &heredoc.raw])
}

fn transfer(transfer: &Transfer) -> Vec<&Text> {
    let flags = [&transfer.from, &transfer.chown, &transfer.chmod, &transfer.checksum];
    let mut texts: Vec<&Text> = transfer.sources.iter().chain([&transfer.target]).collect();
    texts.extend(flags.into_iter().flatten().chain(&transfer.exclude));
    texts.extend(heredocs(&transfer.heredocs));
    texts
}

/// All texts that an instruction is made of.
fn texts(instruction: &Instruction) -> Vec<&Text> {
    match &instruction.kind {
        Kind::Add(words) | Kind::Copy(words) => transfer(words),
        Kind::Arg(declarations) => declarations
            .iter()
            .flat_map(|declaration| std::iter::once(&declaration.name).chain(&declaration.default))
            .collect(),
        Kind::Cmd(words) | Kind::Entrypoint(words) => command(words),
        Kind::Env(pairs) | Kind::Label(pairs) => {
            pairs.iter().flat_map(|pair| [&pair.name, &pair.value]).collect()
        }
        Kind::Expose(words) | Kind::Shell(words) | Kind::Volume(words) => words.iter().collect(),
        Kind::Onbuild(_) => Vec::new(),
        Kind::Healthcheck(check) => match &**check {
            Healthcheck::None => Vec::new(),
            Healthcheck::Check { command: words, .. } => command(words),
        },
        Kind::Maintainer(text)
        | Kind::Stopsignal(text)
        | Kind::User(text)
        | Kind::Workdir(text) => vec![text],
        Kind::Run(run) => {
            let mut texts = command(&run.command);
            texts.extend(run.network.iter().chain(&run.security).chain(&run.devices));
            for mount in &run.mounts {
                texts.push(&mount.text);
                for field in &mount.fields {
                    texts.extend(std::iter::once(&field.name).chain(&field.value));
                }
            }
            texts.extend(heredocs(&run.heredocs));
            texts
        }
    }
}

/// The case folders.
pub fn files() -> Vec<Vec<u8>> {
    seeds::cases().into_iter().map(|case| case.dockerfile).collect()
}

/// The instructions of the case folders, one by one.
pub fn triggers() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for case in seeds::cases() {
        for stage in parse(0, &case.dockerfile).file.stages {
            for instruction in stage.instructions {
                let span = instruction.span;
                seeds.push(case.dockerfile[span.start as usize..span.end as usize].to_vec());
            }
        }
    }
    seeds
}
