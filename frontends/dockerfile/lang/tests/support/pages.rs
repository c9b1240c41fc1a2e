//! Documents made of the pages beside the codes and rules of a language.

use std::fmt::Write as _;
use std::path::Path;

use wbuild_dockerfile::{CheckRule, Diagnostic, Example, Page, Severity};

use super::recorder::Recorder;
use super::{check_golden, finish, render};

/// Writes or checks a document in the `docs` beside the crate.
pub fn golden(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file);
    let mut failed = Vec::new();
    check_golden(&path, text, &mut failed);
    finish(failed);
}

/// Adds a list of the rules, with links to their pages.
pub fn contents<R: CheckRule>(out: &mut String) {
    for rule in R::ALL {
        let anchor = rule.name().to_lowercase();
        let note = if rule.experimental() { " (experimental)" } else { "" };
        writeln!(out, "- [`{}`](#{anchor}){note}: {}", rule.name(), rule.summary())
            .expect("a String takes all");
    }
}

/// Adds the page of a rule. Its examples are checked: the wrong one must end in the rule alone, the
/// right one in nothing.
pub fn rule(page: &Page, check: impl Fn(&Example) -> (bool, Recorder), out: &mut String) {
    let Page { name, summary, explanation, wrong, right } = page;
    let (fine, recorder) = check(wrong);
    assert!(fine, "{name}: {}", recorder.out);
    let is_it = |found: &Diagnostic| found.severity == Severity::Warning && found.code == *name;
    let found = &recorder.diagnostics;
    assert!(found.iter().all(is_it) && found.len() == 1, "{name}: {}", recorder.out);
    let said = render(found, &recorder.sources);
    write!(out, "\n## `{name}`\n\n{summary}.\n\n{explanation}\n\n").expect("a String takes all");
    example("Reported", wrong, out);
    write!(out, "What wbuild says:\n\n```text\n{}\n```\n\n", said.trim_end())
        .expect("a String takes all");
    let (fine, recorder) = check(right);
    assert!(fine, "{name}: {}", recorder.out);
    assert!(recorder.diagnostics.is_empty(), "{name}: {}", recorder.out);
    example("Not reported", right, out);
    out.truncate(out.trim_end().len());
    out.push('\n');
}

/// Adds a file, with what else a build of it is given.
pub fn example(what: &str, example: &Example, out: &mut String) {
    let options = match example.options {
        "" => String::new(),
        options => format!(", built with `{options}`"),
    };
    write!(out, "{what}{options}:\n\n```dockerfile\n{}```\n\n", example.file)
        .expect("a String takes all");
    if !example.ignore.is_empty() {
        write!(out, "with this `.dockerignore`:\n\n```text\n{}```\n\n", example.ignore)
            .expect("a String takes all");
    }
}
