//! Reads a steps file. Pure; the language is described at the top of the crate.

use std::ops::Range;

/// How deep `if` may be nested.
const MAX_DEPTH: usize = 32;

/// One step and the place it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What to do.
    pub kind: StepKind,
    /// The line as written, for progress and history.
    pub text: String,
    /// Its bytes in the file.
    pub at: Range<usize>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// `from IMAGE`
    From(String),
    /// `run COMMAND`
    Run(String),
    /// `env NAME=VALUE`
    Env(String, Value),
    /// `if COMMAND … else … end`
    If {
        /// Decides by its exit code.
        condition: String,
        /// If it succeeds.
        then: Vec<Step>,
        /// If it fails.
        otherwise: Vec<Step>,
    },
    /// `copy SRC DST`
    Copy {
        /// In the context.
        from: String,
        /// In the image.
        to: String,
    },
    /// `workdir PATH`
    Workdir(String),
    /// `cmd COMMAND`
    Cmd(String),
}

/// The value of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// As written.
    Text(String),
    /// What a command prints.
    Output(String),
}

/// The file does not follow the language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub at: Range<usize>,
}

/// An `if` whose `end` has not come yet.
struct Open {
    condition: String,
    text: String,
    at: Range<usize>,
    then: Vec<Step>,
    /// Set once `else` has come.
    otherwise: Option<Vec<Step>>,
}

/// Reads a whole file.
pub fn parse(file: &[u8]) -> Result<Vec<Step>, SyntaxError> {
    let mut steps: Vec<Step> = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut start = 0;
    let mut begun = false;
    for raw in file.split_inclusive(|byte| *byte == b'\n') {
        let line_start = start;
        start += raw.len();
        let Ok(raw) = std::str::from_utf8(raw) else {
            return error(
                "this line is not UTF-8",
                line_start..line_start + raw.trim_ascii_end().len(),
            );
        };
        let text = raw.trim();
        let from = line_start + (raw.len() - raw.trim_start().len());
        let at = from..from + text.len();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        let takes_nothing = matches!(word, "else" | "end");
        if takes_nothing != rest.is_empty() && KEYWORDS.contains(&word) {
            let problem =
                if takes_nothing { "takes nothing after it" } else { "wants something after it" };
            return error(format!("`{word}` {problem}"), at);
        }
        if !begun && word != "from" {
            return error(format!("the first step must be `from`, not `{word}`"), at);
        }
        let kind = match word {
            "from" if begun => return error("`from` comes first, and once", at),
            "from" => {
                begun = true;
                StepKind::From(rest.to_owned())
            }
            "run" => StepKind::Run(rest.to_owned()),
            "env" => variable(rest).map_err(|message| SyntaxError { message, at: at.clone() })?,
            "copy" => match rest.split_whitespace().collect::<Vec<_>>()[..] {
                [from, to] => StepKind::Copy { from: from.to_owned(), to: to.to_owned() },
                _ => return error("`copy` wants a source and a destination", at),
            },
            "workdir" => StepKind::Workdir(rest.to_owned()),
            "cmd" => StepKind::Cmd(rest.to_owned()),
            "if" => {
                if open.len() == MAX_DEPTH {
                    return error(format!("`if` is nested more than {MAX_DEPTH} deep"), at);
                }
                let (condition, text) = (rest.to_owned(), text.to_owned());
                open.push(Open { condition, text, at, then: Vec::new(), otherwise: None });
                continue;
            }
            "else" => match open.last_mut() {
                Some(Open { otherwise: otherwise @ None, .. }) => {
                    *otherwise = Some(Vec::new());
                    continue;
                }
                Some(_) => return error("this `if` has an `else` already", at),
                None => return error("`else` without `if`", at),
            },
            "end" => {
                let Some(done) = open.pop() else { return error("`end` without `if`", at) };
                let kind = StepKind::If {
                    condition: done.condition,
                    then: done.then,
                    otherwise: done.otherwise.unwrap_or_default(),
                };
                innermost(&mut steps, &mut open).push(Step { kind, text: done.text, at: done.at });
                continue;
            }
            _ => {
                return error(
                    format!("unknown step `{word}`: expected {}", KEYWORDS.join(", ")),
                    at,
                );
            }
        };
        innermost(&mut steps, &mut open).push(Step { kind, text: text.to_owned(), at });
    }
    match open.pop() {
        Some(unfinished) => error("this `if` has no `end`", unfinished.at),
        None if !begun => error("the file has no step", 0..0),
        None => Ok(steps),
    }
}

const KEYWORDS: [&str; 9] = ["from", "run", "env", "if", "else", "end", "copy", "workdir", "cmd"];

/// The list that the next step belongs to.
fn innermost<'a>(steps: &'a mut Vec<Step>, open: &'a mut [Open]) -> &'a mut Vec<Step> {
    match open.last_mut() {
        None => steps,
        Some(Open { otherwise: Some(steps), .. } | Open { then: steps, otherwise: None, .. }) => {
            steps
        }
    }
}

/// `NAME=VALUE` or `NAME=$(COMMAND)`.
fn variable(text: &str) -> Result<StepKind, String> {
    let (name, value) = text.split_once('=').ok_or("`env` wants NAME=VALUE")?;
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !name.starts_with(first) || !name.chars().all(|c| first(c) || c.is_ascii_digit()) {
        return Err(format!("{name:?} is no name of a variable"));
    }
    let value = match value.strip_prefix("$(") {
        None => Value::Text(value.to_owned()),
        Some(command) => match command.strip_suffix(')').map(str::trim) {
            Some(command) if !command.is_empty() => Value::Output(command.to_owned()),
            _ => return Err("`$(` wants a command and a `)` at the end of the line".to_owned()),
        },
    };
    Ok(StepKind::Env(name.to_owned(), value))
}

fn error<T>(message: impl Into<String>, at: Range<usize>) -> Result<T, SyntaxError> {
    Err(SyntaxError { message: message.into(), at })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps in one line each, `if` with brackets.
    fn show(steps: &[Step]) -> String {
        let show_one = |step: &Step| match &step.kind {
            StepKind::From(image) => format!("from({image})"),
            StepKind::Run(command) => format!("run({command})"),
            StepKind::Env(name, Value::Text(text)) => format!("env({name},{text})"),
            StepKind::Env(name, Value::Output(command)) => format!("env({name},${command})"),
            StepKind::If { condition, then, otherwise } => {
                format!("if({condition})[{}][{}]", show(then), show(otherwise))
            }
            StepKind::Copy { from, to } => format!("copy({from},{to})"),
            StepKind::Workdir(path) => format!("workdir({path})"),
            StepKind::Cmd(command) => format!("cmd({command})"),
        };
        steps.iter().map(show_one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn reads_every_step() {
        for (file, want) in [
            ("from scratch", "from(scratch)"),
            ("# hi\n\n  from  a:1 \r\nrun echo  'a b'\n", "from(a:1) run(echo  'a b')"),
            (
                "from a\nenv A=b c\nenv B=\nenv C=$( date +%s )\n",
                "from(a) env(A,b c) env(B,) env(C,$date +%s)",
            ),
            (
                "from a\ncopy x /y/\nworkdir z\ncmd run me",
                "from(a) copy(x,/y/) workdir(z) cmd(run me)",
            ),
            ("from a\nif c\nrun t\nend\nrun z", "from(a) if(c)[run(t)][] run(z)"),
            (
                "from a\nif c\nrun t\nelse\nif d\nelse\nrun e\nend\nend",
                "from(a) if(c)[run(t)][if(d)[][run(e)]]",
            ),
        ] {
            assert_eq!(
                parse(file.as_bytes()).map(|steps| show(&steps)).as_deref(),
                Ok(want),
                "{file:?}"
            );
        }
    }

    #[test]
    fn a_step_knows_its_place() {
        let file = "# ü\n  from a\n\trun x\n";
        let steps = parse(file.as_bytes()).expect("valid");
        let places: Vec<&str> = steps.iter().map(|step| &file[step.at.clone()]).collect();
        assert_eq!(places, ["from a", "run x"]);
    }

    #[test]
    fn an_error_knows_its_place() {
        let deep = format!("from a\n{}", "if x\n".repeat(MAX_DEPTH + 1));
        for (file, place, message) in [
            ("", "", "no step"),
            ("# only words\n", "", "no step"),
            ("run x\nfrom a\n", "run x", "first step"),
            ("from a\nfrom b\n", "from b", "once"),
            ("from\n", "from", "wants something"),
            ("from a\nend x\n", "end x", "takes nothing"),
            ("from a\nfly to it\n", "fly to it", "unknown step `fly`"),
            ("from a\ncopy x\n", "copy x", "source and a destination"),
            ("from a\nenv 1A=x\n", "env 1A=x", "no name"),
            ("from a\nenv A\n", "env A", "NAME=VALUE"),
            ("from a\nenv A=$(x\n", "env A=$(x", "`)`"),
            ("from a\nenv A=$()\n", "env A=$()", "a command"),
            ("from a\nelse\n", "else", "without `if`"),
            ("from a\nend\n", "end", "without `if`"),
            ("from a\nif x\nelse\nelse\nend\n", "else", "already"),
            ("from a\nif x\nrun y\n", "if x", "no `end`"),
            (&deep, "if x", "nested"),
        ] {
            let error = parse(file.as_bytes()).expect_err(file);
            assert_eq!(&file[error.at.clone()], place, "{file:?}");
            assert!(error.message.contains(message), "{file:?}: {}", error.message);
        }
        let error = parse(b"from a\nrun \xff\n").expect_err("not UTF-8");
        assert_eq!(error.at, 7..12);
    }
}
