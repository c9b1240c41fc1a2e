//! Rules that go by the text of a file alone. They hold for all of it, whatever is built.

use std::collections::BTreeMap;

use super::Linter;
use crate::ast::{Dockerfile, Instruction, Kind, Stage};
use crate::directives::check_above;
use crate::parse::Parsed;
use crate::text::shown;
use crate::{Diagnostic, Rule, Text};

/// Names that mean something else where stages are named.
const RESERVED: [&str; 2] = ["scratch", "context"];

/// Looks at all that needs no values.
pub(crate) fn check(parsed: &Parsed, lint: &mut Linter) {
    for lines in &parsed.empty_continuations {
        let (first, others) = lines.split_first().expect("a list without lines is not kept");
        let message = "an empty line stands within an instruction";
        let mut finding = Diagnostic::warning(Rule::NoEmptyContinuation, *first, message)
            .help("remove it, or put a `#` there");
        for other in others {
            finding = finding.related(*other, "another one");
        }
        lint.add(&[], finding);
    }
    let file = &parsed.file;
    for instruction in &file.globals {
        described_argument(instruction, lint);
    }
    let mut names: BTreeMap<String, &Stage> = BTreeMap::new();
    for stage in &file.stages {
        stage_line(stage, lint);
        if let Some(name) = stage.folded_name() {
            stage_name(stage, &name, names.get(&name).copied(), lint);
            names.insert(name, stage);
        }
        for instruction in &stage.instructions {
            described_argument(instruction, lint);
            if let Kind::Maintainer(author) = &instruction.kind {
                let message = "MAINTAINER is deprecated";
                let at = instruction.keyword.span();
                let author = author.as_str();
                let help = format!("write `LABEL org.opencontainers.image.authors={author:?}`");
                let finding = Diagnostic::warning(Rule::MaintainerDeprecated, at, message);
                lint.add(&instruction.comments, finding.help(help));
            }
        }
    }
    casing(file, lint);
}

fn stage_line(stage: &Stage, lint: &mut Linter) {
    let (Some(name), Some(as_keyword)) = (&stage.name, &stage.as_keyword) else { return };
    let folded = name.to_lowercase();
    if name.as_str() != folded {
        let message = format!("the name {} of a stage has capitals", shown(name));
        let finding = Diagnostic::warning(Rule::StageNameCasing, name.span(), message);
        lint.add(&stage.comments, finding.help(format!("write {}", shown(&folded))));
    }
    // A keyword of mixed case is a matter of another rule.
    let wanted = match Case::of(&stage.keyword) {
        Case::Lower => as_keyword.to_lowercase(),
        Case::Upper => as_keyword.to_uppercase(),
        Case::Mixed => as_keyword.as_str().to_owned(),
    };
    if as_keyword.as_str() != wanted {
        let message =
            format!("{} is not written as {} is", shown(as_keyword), shown(&stage.keyword));
        let finding = Diagnostic::warning(Rule::FromAsCasing, as_keyword.span(), message);
        lint.add(&stage.comments, finding.help(format!("write {}", shown(&wanted))));
    }
    described(&stage.comments, &[&folded], "FROM", lint);
}

fn stage_name(stage: &Stage, folded: &str, before: Option<&Stage>, lint: &mut Linter) {
    let at = stage.name.as_ref().map_or(stage.span, Text::span);
    if RESERVED.contains(&folded) {
        let message =
            format!("{} means something else where images and stages are named", shown(folded));
        lint.add(&stage.comments, Diagnostic::warning(Rule::ReservedStageName, at, message));
    }
    if let Some(before) = before {
        let message = format!("there is another stage of the name {}", shown(folded));
        let place = before.name.as_ref().map_or(before.span, Text::span);
        let finding = Diagnostic::warning(Rule::DuplicateStageName, at, message)
            .related(place, "hidden from here on");
        lint.add(&stage.comments, finding);
    }
}

fn described_argument(instruction: &Instruction, lint: &mut Linter) {
    if let Kind::Arg(declarations) = &instruction.kind {
        let names: Vec<&str> = declarations.iter().map(|d| d.name.as_str()).collect();
        described(&instruction.comments, &names, "ARG", lint);
    }
}

/// The comment right above must be a description, that is begin with one of the names.
fn described(comments: &[Text], names: &[&str], instruction: &str, lint: &mut Linter) {
    let Some(comment) = comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    let is_setting = check_above(std::slice::from_ref(comment)).is_some();
    if is_setting || names.contains(&first) {
        return;
    }
    let message = format!("this comment looks like a description of the {instruction} below");
    let help = match names {
        [name] => format!("begin it with `{name}`, or put an empty line below it"),
        _ => "begin it with the name of an argument, or put an empty line below it".to_owned(),
    };
    let finding = Diagnostic::warning(Rule::InvalidDefinitionDescription, comment.span(), message);
    lint.add(comments, finding.help(help));
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Lower,
    Upper,
    Mixed,
}

impl Case {
    /// Of a keyword, which has letters of ASCII only.
    fn of(keyword: &str) -> Case {
        let upper = keyword.bytes().filter(u8::is_ascii_uppercase).count();
        match keyword.len() - upper {
            0 => Case::Upper,
            lower if lower == keyword.len() => Case::Lower,
            _ => Case::Mixed,
        }
    }
}

/// All keywords have the case that most of them have.
fn casing(file: &Dockerfile, lint: &mut Linter) {
    let keywords = || {
        file.stages.iter().flat_map(|stage| {
            let own = stage.instructions.iter().map(|i| (&i.keyword, &i.comments));
            std::iter::once((&stage.keyword, &stage.comments)).chain(own)
        })
    };
    let count = |case| keywords().filter(|(keyword, _)| Case::of(keyword) == case).count();
    let common = if count(Case::Lower) > count(Case::Upper) { Case::Lower } else { Case::Upper };
    for (keyword, comments) in keywords().filter(|(keyword, _)| Case::of(keyword) != common) {
        let (wanted, how) = match common {
            Case::Lower => (keyword.to_lowercase(), "small letters"),
            _ => (keyword.to_uppercase(), "capitals"),
        };
        let message = format!("{} is not in {how} as most instructions are", shown(keyword));
        let finding =
            Diagnostic::warning(Rule::ConsistentInstructionCasing, keyword.span(), message);
        lint.add(comments, finding.help(format!("write {}", shown(&wanted))));
    }
}
