//! Build checks: what can be built but is doubtful.
//!
//! Rules that go by the text alone are in `text`, those about `FROM` lines in `from`. What depends on
//! values is noticed where the values come about, when stages are lowered (`plan`), so nothing is
//! evaluated twice; `steps` has the questions that are asked there.
//!
//! Findings are kept until the end and then reported once each, in the order of the file: with
//! several platforms the same line is looked at several times.

pub(crate) mod from;
mod reference;
pub(crate) mod steps;
pub(crate) mod text;

use std::collections::BTreeSet;

use crate::diagnostic::CheckRule;
use crate::directives::{self, Check, Directives};
use crate::plan::host::Host;
use crate::suggest::did_you_mean;
use crate::text::shown;
use crate::{Code, Diagnostic, Failure, Rule, Severity, Span, Text};

/// The build argument that takes the place of the file's `# check=`.
const OVERRIDE: &str = "BUILDKIT_DOCKERFILE_CHECK";
/// Findings above this number are counted only. Nobody reads so many.
const MOST_FINDINGS: usize = 1000;
/// Looking for a word that was meant costs a comparison with each that is known, so it is done for
/// so many findings only.
const MOST_SUGGESTIONS: usize = 50;

/// Which rules of a language run, and what they have found.
#[derive(Debug)]
pub struct Linter<R = Rule> {
    settings: Check,
    /// Settings come from the file, not from the command line.
    of_file: bool,
    findings: Vec<Diagnostic>,
    seen: BTreeSet<(Option<Span>, R, String)>,
    suggestions: usize,
}

impl Linter {
    /// A linter with the settings of the caller, else with those of the file.
    pub(crate) fn new(host: &mut dyn Host, directives: &Directives) -> Result<Linter, Failure> {
        Ok(match host.opt(&format!("build-arg:{OVERRIDE}")) {
            None => Linter::of_file(host, directives.check.clone().unwrap_or_default()),
            Some(value) => {
                let settings = given(host, &value)?;
                Linter::with(host, settings, false)
            }
        })
    }
}

impl<R: CheckRule> Linter<R> {
    /// A linter with the settings of a file.
    pub fn of_file(host: &mut dyn Host, settings: Check) -> Self {
        Self::with(host, settings, true)
    }

    fn with(host: &mut dyn Host, settings: Check, of_file: bool) -> Self {
        let (findings, seen) = (Vec::new(), BTreeSet::new());
        let linter = Linter { settings, of_file, findings, seen, suggestions: 0 };
        linter.note_unknown_rules(host);
        linter
    }

    /// Whether a rule runs for an instruction with these comments above it.
    fn runs(&self, rule: R, comments: &[Text]) -> bool {
        let own = directives::check_above(comments);
        let listed = |names: &[Text]| names.iter().any(|name| name.as_str() == rule.name());
        let mut settings = std::iter::once(&self.settings).chain(&own);
        if rule.experimental() {
            settings.any(|check| check.experimental_all || listed(&check.experimental))
        } else {
            !settings.any(|check| check.skip_all || listed(&check.skip))
        }
    }

    /// Keeps a finding, if its rule runs for the instruction with these comments above it.
    pub fn add(&mut self, comments: &[Text], finding: Diagnostic) {
        let rule = R::named(&finding.code).expect("findings are made by their rule");
        if !self.runs(rule, comments) {
            return;
        }
        let at = finding.labels.first().map(|label| label.at);
        if self.seen.insert((at, rule, finding.message.clone())) {
            self.findings.push(finding);
        }
    }

    /// A help text that asks whether the closest candidate was meant.
    pub fn did_you_mean<'c>(
        &mut self,
        word: &str,
        candidates: impl IntoIterator<Item = &'c str>,
    ) -> Option<String> {
        self.suggestions += 1;
        if self.suggestions > MOST_SUGGESTIONS { None } else { did_you_mean(word, candidates) }
    }

    /// Reports all findings. Fails if there are any and the settings make that an error.
    pub fn finish(mut self, host: &mut dyn Host) -> Result<(), Failure> {
        self.findings.sort_by_key(|finding| finding.labels.first().map(|label| label.at));
        let mut rules: Vec<String> = Vec::new();
        let total = self.findings.len();
        for (count, mut finding) in self.findings.into_iter().enumerate() {
            let rule = format!("`{}`", finding.code);
            if !rules.contains(&rule) {
                rules.push(rule);
            }
            if count + 1 == MOST_FINDINGS && total > MOST_FINDINGS {
                let more = total - MOST_FINDINGS;
                finding = finding.help(format!("{more} more findings are not shown"));
            }
            if count < MOST_FINDINGS {
                host.report(finding);
            }
        }
        let Some(error) = self.settings.error.filter(|_| total > 0) else { return Ok(()) };
        let found = if total == 1 { "a finding".to_owned() } else { format!("{total} findings") };
        let message = format!("the build checks have {found} ({})", rules.join(", "));
        let help = "mend what was found, or skip a rule: `skip=` and its name";
        Err(Failure::from(if self.of_file {
            Diagnostic::error(Code::FailedChecks, error.span(), message)
                .label("makes findings errors")
                .help(help)
        } else {
            unplaced(Severity::Error, Code::FailedChecks, message)
                .help(format!("`{error}` of {OVERRIDE} makes findings errors; {help}"))
        }))
    }

    /// A misspelt name in the settings has no effect; say so.
    fn note_unknown_rules(&self, host: &mut dyn Host) {
        let names = || R::ALL.iter().map(|rule| rule.name());
        for name in self.settings.skip.iter().chain(&self.settings.experimental) {
            if name.is_empty() || R::named(name).is_some() {
                continue;
            }
            let message = format!("there is no rule {}", shown(name));
            let note = if self.of_file {
                Diagnostic::note(Code::UnknownRule, name.span(), message)
            } else {
                unplaced(Severity::Note, Code::UnknownRule, message)
            };
            host.report(note.maybe_help(did_you_mean(name, names())));
        }
    }
}

/// The settings that the caller has given.
fn given(host: &mut dyn Host, value: &str) -> Result<Check, Failure> {
    let read = |source| {
        let mut problems = Vec::new();
        let text = Text::decode(source, 0, value.as_bytes());
        (directives::check(&text, &mut problems), problems)
    };
    let (check, problems) = read(0);
    if problems.is_empty() {
        return Ok(check);
    }
    // It is a source only if there is something to show.
    let source = host.add_source(&format!("build argument {OVERRIDE}"), "", value.as_bytes())?;
    Err(Failure::of(read(source).1))
}

/// A message about the command line, not about a place in the file.
fn unplaced(severity: Severity, code: Code, message: String) -> Diagnostic {
    let nowhere = Span { source: 0, start: 0, end: 0 };
    let mut diagnostic = Diagnostic::error(code, nowhere, message);
    diagnostic.labels.clear();
    Diagnostic { severity, ..diagnostic }
}
