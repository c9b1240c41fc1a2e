//! Folders of cases: one folder each, with the definition, `case.toml`, `context/` and what is
//! `expected`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wbuild_api::extension::Frontend;
use wbuild_graph::{Failure, FailureKind};

use crate::case::{CASE_FILE, Case, EXPECTED};

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Of its folder.
    pub name: String,
    /// How often the host was called.
    pub calls: usize,
    /// What is wrong with it, for people; none if nothing is.
    pub problem: Option<String>,
    /// What is expected was written anew.
    pub updated: bool,
}

/// The folders of the cases in a folder, by name: every folder that has a `case.toml` or an `expected`.
///
/// # Errors
///
/// When the folder cannot be read or has none.
pub fn folders(of: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::not_found(format!("cannot read the cases in {}", of.display())).cause(&error)
    };
    let is_case = |path: &Path| path.join(CASE_FILE).is_file() || path.join(EXPECTED).is_file();
    if is_case(of) {
        return Ok(vec![of.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(of).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if is_case(&path) {
            found.push(path);
        } else if path.is_dir() {
            // A case that is never run is worse than none.
            return Err(Failure::invalid(format!("{} is no case", path.display()))
                .hint(format!("a case has a {CASE_FILE}, which may be empty")));
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(Failure::not_found(format!("there are no cases in {}", of.display()))
            .hint(format!("a case is a folder with a {CASE_FILE}, which may be empty")));
    }
    Ok(found)
}

/// Runs a case three times, see [`Case::run_thrice`], and compares it with what is expected of it.
pub async fn run(folder: &Path, frontend: &Arc<dyn Frontend>, update: bool) -> Outcome {
    let case = match Case::read(folder) {
        Ok(case) => case,
        Err(failure) => return Outcome::unreadable(folder, &failure),
    };
    let (run, differs) = case.run_thrice(frontend).await;
    let calls = run.trace.map_or(0, |trace| trace.calls.len());
    match differs {
        Some(_) => Outcome { calls, problem: differs, ..Outcome::of(folder) },
        None => {
            let broken = matches!(&run.snapshot.result, Err(e) if e.kind == FailureKind::Internal);
            let text = run.snapshot.text();
            let mut outcome = Outcome { calls, ..compare(folder, &text, update && !broken) };
            if update && broken && outcome.problem.is_some() {
                // Nobody wants a bug of the frontend, and its words are another machine's tomorrow.
                outcome.problem =
                    Some(format!("it crashed, which is not kept as expected:\n{text}"));
            }
            outcome
        }
    }
}

impl Outcome {
    /// Of a case with which nothing is wrong yet.
    pub(crate) fn of(folder: &Path) -> Outcome {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        Outcome { name: name.unwrap_or_default(), calls: 0, problem: None, updated: false }
    }

    pub(crate) fn unreadable(folder: &Path, failure: &Failure) -> Outcome {
        let causes = failure.causes.iter().map(|cause| format!("\n  because: {cause}"));
        let hints = failure.hints.iter().map(|hint| format!("\n  hint: {hint}"));
        let more: String = causes.chain(hints).collect();
        Outcome { problem: Some(format!("{}{more}", failure.message)), ..Outcome::of(folder) }
    }
}

/// Compares what came of a case with what is expected of it, or writes that anew.
pub(crate) fn compare(folder: &Path, got: &str, update: bool) -> Outcome {
    let mut outcome = Outcome::of(folder);
    let file = folder.join(EXPECTED);
    let expected = std::fs::read_to_string(&file).ok().map(|text| text.replace("\r\n", "\n"));
    if expected.as_deref() == Some(got) {
        return outcome;
    }
    if update {
        match std::fs::write(&file, got) {
            Ok(()) => outcome.updated = true,
            Err(error) => {
                outcome.problem = Some(format!("cannot write {}: {error}", file.display()));
            }
        }
        return outcome;
    }
    outcome.problem = Some(match expected {
        Some(expected) => difference(&expected, got),
        None => format!("there is no {EXPECTED}; this would be it:\n{got}"),
    });
    outcome
}

/// Runs all cases of a folder in a test. With `UPDATE=1` in the environment what is expected is
/// written anew.
///
/// # Panics
///
/// When a case is not as expected.
pub fn check(folder: impl AsRef<Path>, frontend: impl Frontend + 'static) {
    let frontend: Arc<dyn Frontend> = Arc::new(frontend);
    check_all(folder.as_ref(), async |folder, update| run(folder, &frontend, update).await);
}

/// Runs all cases of a folder by `run`, and panics if one is not as expected.
pub(crate) fn check_all(folder: &Path, run: impl AsyncFn(&Path, bool) -> Outcome) {
    let update = std::env::var_os("UPDATE").is_some_and(|value| value == "1");
    let folders = folders(folder).unwrap_or_else(|failure| panic!("{failure}"));
    let mut problems = String::new();
    for folder in folders {
        let outcome = pollster::block_on(run(&folder, update));
        if let Some(problem) = outcome.problem {
            problems.push_str(&format!("\n---- {}\n{problem}", outcome.name));
        }
    }
    assert!(problems.is_empty(), "UPDATE=1 writes anew what is expected{problems}");
}

/// Unchanged lines that are shown around a changed one.
const AROUND: usize = 3;

/// A difference by lines: `-` is expected, `+` is what came.
pub fn difference(expected: &str, got: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), got.lines().collect());
    let begin = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let rest = old.len().min(new.len()) - begin;
    let tail = old.iter().rev().zip(new.iter().rev()).take(rest);
    let end = tail.take_while(|(old, new)| old == new).count();
    let (old_end, new_end) = (old.len() - end, new.len() - end);
    // The longest common subsequence of what is left; of very long texts only what surrounds it.
    let (middle_old, middle_new) = (&old[begin..old_end], &new[begin..new_end]);
    let mut lines: Vec<(char, &str)> = old[..begin].iter().map(|line| (' ', *line)).collect();
    if middle_old.len().saturating_mul(middle_new.len()) > 4_000_000 {
        lines.extend(middle_old.iter().map(|line| ('-', *line)));
        lines.extend(middle_new.iter().map(|line| ('+', *line)));
    } else {
        lines.extend(common(middle_old, middle_new));
    }
    lines.extend(old[old_end..].iter().map(|line| (' ', *line)));
    let near = |at: usize| {
        let range = at.saturating_sub(AROUND)..(at + AROUND + 1).min(lines.len());
        lines[range].iter().any(|(kind, _)| *kind != ' ')
    };
    let mut out = String::new();
    let mut skipped = false;
    for (at, (kind, line)) in lines.iter().enumerate() {
        if near(at) {
            if skipped {
                out.push_str("  …\n");
            }
            out.push_str(&format!("{kind} {line}\n"));
        }
        skipped = !near(at);
    }
    out
}

fn common<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let width = new.len() + 1;
    let mut length = vec![0u32; (old.len() + 1) * width];
    for at in (0..old.len()).rev() {
        for to in (0..new.len()).rev() {
            length[at * width + to] = match old[at] == new[to] {
                true => length[(at + 1) * width + to + 1] + 1,
                false => length[(at + 1) * width + to].max(length[at * width + to + 1]),
            };
        }
    }
    let (mut at, mut to, mut out) = (0, 0, Vec::new());
    while at < old.len() || to < new.len() {
        let both = at < old.len() && to < new.len();
        if both && old[at] == new[to] {
            out.push((' ', old[at]));
            (at, to) = (at + 1, to + 1);
        } else if to == new.len()
            || (both && length[(at + 1) * width + to] >= length[at * width + to + 1])
        {
            out.push(('-', old[at]));
            at += 1;
        } else {
            out.push(('+', new[to]));
            to += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_what_changed_and_what_is_around() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        for (new, want) in [
            ("1\n2\n3\n4\nfive\n6\n7\n8\n9\n", "  …\n  2\n  3\n  4\n- 5\n+ five\n  6\n  7\n  8\n"),
            ("1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n", "  …\n  7\n  8\n  9\n+ 10\n"),
            ("2\n3\n4\n5\n6\n7\n8\n9\n", "- 1\n  2\n  3\n  4\n"),
            (old, ""),
        ] {
            assert_eq!(difference(old, new), want);
        }
        let got = difference("a\nb\nc\n", "a\nc\nb\nd\n");
        assert_eq!(got, "  a\n- b\n  c\n+ b\n+ d\n");
    }
}
