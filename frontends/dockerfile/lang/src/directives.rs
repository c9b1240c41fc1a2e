//! Parser directives: `# key=value` comments at the very top (Dockerfile reference, "Parser
//! directives").
//!
//! The first line that is not a known directive ends them: another comment, an unknown key, an
//! empty line, an instruction. A repeated key is an error.

use crate::lines::Reader;
use crate::suggest::did_you_mean;
use crate::text::shown;
use crate::{Code, Diagnostic, Text};

/// What the directives say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the frontend that the file was written for.
    pub syntax: Option<Text>,
    /// `# escape=`: `\` or a backtick.
    pub escape: char,
    /// `# check=`: how build checks are set.
    pub check: Option<Check>,
}

/// Settings of the build checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Rules not to run.
    pub skip: Vec<Text>,
    /// No rule is to run.
    pub skip_all: bool,
    /// Experimental rules to run.
    pub experimental: Vec<Text>,
    /// All experimental rules are to run.
    pub experimental_all: bool,
    /// A finding fails the build; where it says so.
    pub error: Option<Text>,
}

/// Reads the directives and leaves the reader at the first line after them.
pub(crate) fn read(reader: &mut Reader<'_>, problems: &mut Vec<Diagnostic>) -> Directives {
    let mut directives = Directives { syntax: None, escape: '\\', check: None };
    let mut seen: Vec<(&'static str, Text)> = Vec::new();
    while let Some((key, name, value)) = reader.peek().and_then(|line| directive(&line)) {
        reader.skip();
        if let Some((_, before)) = seen.iter().find(|(known, _)| *known == key) {
            problems.push(
                Diagnostic::error(
                    Code::RepeatedDirective,
                    name.span(),
                    format!("the `{key}` directive is given twice"),
                )
                .related(before.span(), "first given here")
                .help("keep one of them"),
            );
            continue;
        }
        match key {
            "syntax" => directives.syntax = Some(value),
            "escape" => match value.as_str() {
                "\\" => directives.escape = '\\',
                "`" => directives.escape = '`',
                _ => problems.push(
                    Diagnostic::error(
                        Code::InvalidDirective,
                        value.span(),
                        format!("{} cannot be the escape character", shown(&value)),
                    )
                    .help("use `\\`, which is the default, or a backtick"),
                ),
            },
            _ => {
                let value = up_to_blank(&value, problems);
                directives.check = Some(check(&value, problems));
            }
        }
        seen.push((key, name));
    }
    directives
}

/// Takes a line apart if it is a known directive: canonical key, key and value as written.
fn directive(line: &Text) -> Option<(&'static str, Text, Text)> {
    let line = line.trimmed();
    if !line.starts_with('#') {
        return None;
    }
    let (name, value) = line.slice(1..line.len()).split_once('=')?;
    let (name, value) = (name.trimmed(), value.trimmed());
    if value.is_empty() {
        return None;
    }
    let key = match name.to_ascii_lowercase().as_str() {
        "syntax" => "syntax",
        "escape" => "escape",
        "check" => "check",
        _ => return None,
    };
    Some((key, name, value))
}

/// Reads the value of `# check=`, e.g. `skip=StageNameCasing,JSONArgsRecommended;error=true`.
pub(crate) fn check(value: &Text, problems: &mut Vec<Diagnostic>) -> Check {
    let mut check = Check::default();
    let mut start = 0;
    for part in value.split(';') {
        let text = value.slice(start..start + part.len()).trimmed();
        start += part.len() + 1;
        if text.is_empty() {
            continue;
        }
        let Some((key, setting)) = text.split_once('=') else {
            problems.push(
                Diagnostic::error(
                    Code::InvalidDirective,
                    text.span(),
                    format!("{} is not a setting of the build checks", shown(&text)),
                )
                .help("write `skip=RuleName`, `error=true` or `experimental=RuleName`")
                .maybe_help(did_you_mean(&text, ["skip", "error", "experimental"])),
            );
            continue;
        };
        match key.trim() {
            "skip" if setting.trim() == "all" => check.skip_all = true,
            "skip" => check.skip = listed(&setting),
            "experimental" if setting.trim() == "all" => check.experimental_all = true,
            "experimental" => check.experimental = listed(&setting),
            "error" => match parse_bool(setting.trim()) {
                Some(error) => check.error = error.then(|| text.clone()),
                None => problems.push(
                    Diagnostic::error(
                        Code::InvalidDirective,
                        setting.span(),
                        format!("{} is neither true nor false", shown(&setting)),
                    )
                    .help("write `error=true` or `error=false`"),
                ),
            },
            other => problems.push(
                Diagnostic::error(
                    Code::InvalidDirective,
                    key.span(),
                    format!("the build checks have no setting {}", shown(other)),
                )
                .help("the settings are `skip`, `error` and `experimental`")
                .maybe_help(did_you_mean(other, ["skip", "error", "experimental"])),
            ),
        }
    }
    check
}

/// A setting ends at a blank, so that a remark may follow.
fn up_to_blank(value: &Text, problems: &mut Vec<Diagnostic>) -> Text {
    let Some(end) = value.find(' ') else { return value.clone() };
    if value[..end].ends_with([',', ';', '=']) {
        let rest = value.slice(end..value.len()).trimmed();
        let message = "what stands behind a blank is a remark and sets nothing";
        problems.push(
            Diagnostic::note(Code::InvalidDirective, rest.span(), message)
                .help("write the settings without blanks: `skip=OneRule,AnotherRule;error=true`"),
        );
    }
    value.slice(0..end)
}

/// The words between commas.
fn listed(text: &Text) -> Vec<Text> {
    let mut start = 0;
    let word = |part: &str| {
        let word = text.slice(start..start + part.len()).trimmed();
        start += part.len() + 1;
        word
    };
    text.split(',').map(word).collect()
}

/// The settings in the comments above an instruction, which hold for it alone: `# check=…`. The
/// first such comment counts; one that is malformed is an ordinary comment.
pub fn check_above(comments: &[Text]) -> Option<Check> {
    let mut problems = Vec::new();
    let check = check(&up_to_blank(&setting(comments)?, &mut Vec::new()), &mut problems);
    problems.is_empty().then_some(check)
}

/// The settings in the comments at the top of a file of a language without directives.
pub fn check_on_top(comments: &[Text], problems: &mut Vec<Diagnostic>) -> Check {
    let Some(value) = setting(comments) else { return Check::default() };
    let value = up_to_blank(&value, problems);
    check(&value, problems)
}

/// The value of the first `# check=`.
fn setting(comments: &[Text]) -> Option<Text> {
    comments.iter().find_map(|comment| {
        let (name, value) = comment.split_once('=')?;
        name.trim().eq_ignore_ascii_case("check").then(|| value.trimmed())
    })
}

/// The spellings of booleans that the tools of the field accept.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
